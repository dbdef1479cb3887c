//! What the log, the snapshots and the messages have in common: entries, changes of members, and who the
//! members are, as bytes. Bytes: docs/formats/log.md.
//!
//! Raft's structs are made by its protobuf compiler; none of their own encoding is ever read here, so whatever
//! that decoder does with odd bytes (RUSTSEC-2024-0437) can't be reached from outside.

use bytes::Bytes;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType,
};

/// An entry's term, kind and length.
pub const ENTRY_HEADER_BYTES: usize = 13;
/// More members than anybody has. A list that claims more is no list.
const MEMBERS_MAX: usize = 1000;

/// Takes values off the front; `None` when they are not all there.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn u8(&mut self) -> Option<u8> {
        let (value, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*value)
    }

    pub fn u32(&mut self) -> Option<u32> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*value))
    }

    pub fn u64(&mut self) -> Option<u64> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*value))
    }

    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Bytes with their length before them.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("limits keep what is written far below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Which proposal an entry is: its proposer finds its answer by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    pub id: u64,
    pub boots: u64,
    pub sequence: u64,
}

impl Tag {
    pub const BYTES: usize = 24;

    /// The tag and the payload, as they stand in an entry.
    pub fn before(self, payload: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(Tag::BYTES + payload.len());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.boots.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(payload);
        out.into()
    }

    /// The tag that an entry's data begin with.
    pub fn of(data: &[u8]) -> Option<Tag> {
        let mut reader = Reader(data);
        Some(Tag { id: reader.u64()?, boots: reader.u64()?, sequence: reader.u64()? })
    }
}

pub fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let (kind, bytes) = match entry.get_entry_type() {
        EntryType::EntryNormal => (0, &entry.data),
        EntryType::EntryConfChangeV2 => (1, &entry.context),
        EntryType::EntryConfChange => unreachable!("members are only changed by the second kind of entry"),
    };
    out.extend_from_slice(&entry.term.to_le_bytes());
    out.push(kind);
    put_bytes(out, bytes);
}

pub fn read_entry(reader: &mut Reader<'_>, index: u64) -> Option<Entry> {
    let mut entry = Entry { term: reader.u64()?, index, ..Entry::default() };
    match reader.u8()? {
        0 => entry.data = Bytes::copy_from_slice(reader.bytes()?),
        1 => {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.context = Bytes::copy_from_slice(reader.bytes()?);
            read_change(&entry.context)?;
        }
        _ => return None,
    }
    Some(entry)
}

/// A change of members: an entry's context. Raft's own bytes of it stand beside it and are not stored.
pub fn put_change(change: &ConfChangeV2) -> Vec<u8> {
    let kind = match change.get_transition() {
        _ if change.changes.is_empty() => 2,
        ConfChangeTransition::Auto => 0,
        ConfChangeTransition::Explicit => 1,
        ConfChangeTransition::Implicit => unreachable!("joint members are always left by an entry of ours"),
    };
    let mut out = vec![kind];
    for single in &change.changes {
        out.push(match single.get_change_type() {
            ConfChangeType::AddNode => 0,
            ConfChangeType::AddLearnerNode => 1,
            ConfChangeType::RemoveNode => 2,
        });
        out.extend_from_slice(&single.node_id.to_le_bytes());
    }
    out
}

pub fn read_change(bytes: &[u8]) -> Option<ConfChangeV2> {
    let mut reader = Reader(bytes);
    let mut change = ConfChangeV2::default();
    let kind = reader.u8()?;
    change.set_transition(match kind {
        0 | 2 => ConfChangeTransition::Auto,
        1 => ConfChangeTransition::Explicit,
        _ => return None,
    });
    while !reader.is_empty() {
        let kind = match reader.u8()? {
            0 => ConfChangeType::AddNode,
            1 => ConfChangeType::AddLearnerNode,
            2 => ConfChangeType::RemoveNode,
            _ => return None,
        };
        change.mut_changes().push(single(kind, reader.u64()?));
    }
    let fits = match kind {
        0 => change.changes.len() == 1,
        1 => (1..=MEMBERS_MAX).contains(&change.changes.len()),
        _ => change.changes.is_empty(),
    };
    fits.then_some(change)
}

pub fn single(kind: ConfChangeType, id: u64) -> ConfChangeSingle {
    let mut single = ConfChangeSingle { node_id: id, ..ConfChangeSingle::default() };
    single.set_change_type(kind);
    single
}

pub fn put_members(out: &mut Vec<u8>, conf: &ConfState) {
    for ids in [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next] {
        out.extend_from_slice(&(ids.len() as u32).to_le_bytes());
        for id in ids {
            out.extend_from_slice(&id.to_le_bytes());
        }
    }
}

pub fn read_members(reader: &mut Reader<'_>) -> Option<ConfState> {
    let mut lists = [const { Vec::new() }; 4];
    for list in &mut lists {
        let count = reader.u32()? as usize;
        if count > MEMBERS_MAX {
            return None;
        }
        for _ in 0..count {
            list.push(reader.u64()?);
        }
    }
    let [voters, learners, voters_outgoing, learners_next] = lists;
    // Raft aborts when it is handed members that contradict themselves.
    let all = voters.iter().chain(&voters_outgoing);
    let is_odd = voters.is_empty() && !(learners.is_empty() && voters_outgoing.is_empty())
        || learners.iter().any(|id| all.clone().any(|voter| voter == id))
        || learners_next.iter().any(|id| !voters_outgoing.contains(id) || voters.contains(id) || learners.contains(id));
    let has_duplicates = [&voters, &learners, &voters_outgoing, &learners_next].iter().any(|ids| {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len() != ids.len() || sorted.first() == Some(&0)
    });
    if is_odd || has_duplicates {
        return None;
    }
    Some(ConfState { voters, learners, voters_outgoing, learners_next, ..ConfState::default() })
}
