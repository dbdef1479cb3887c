//! What replicas say to one another. Bytes: docs/formats/log.md.
//!
//! Whoever sends is known and trusted (the transport authenticates it); its bytes are still read under limits,
//! and what raft would abort on is turned away here.

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType, Snapshot, SnapshotMetadata};

use crate::codec::{ENTRY_HEADER_BYTES, Reader, put_bytes, put_entry, put_members, read_entry, read_members};

const VERSION: u8 = 1;

/// Raft's messages that travel, by their number on the wire.
const KINDS: [MessageType; 12] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// Why the leader did not take a forwarded proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It does not lead (any more).
    NotLeader,
    /// It has as much under way as it may, or no space.
    Busy,
    /// It can't read the payload: the proposer is of another version. Trying again is of no use.
    Unreadable,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    Raft(Message),
    /// Proposals of the sender, for the leader.
    Forward {
        boots: u64,
        proposals: Vec<(u64, Bytes)>,
    },
    /// Proposals of the recipient that the sender does not take.
    Refused {
        boots: u64,
        refusal: Refusal,
        sequences: Vec<u64>,
    },
    /// The leader's hash of the state at a position.
    Hash {
        position: u64,
        hash: u64,
    },
    /// The sender does not vote, and has not heard of a leader for long: is it still a member?
    Lost,
    /// The recipient asks for votes or is lost, and is no member as of the position that the sender has applied.
    Removed {
        position: u64,
    },
}

/// Why a message is not listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Of another version.
    Version,
    /// It says that another sent it.
    Sender,
    /// It is for another replica: an id that is not used any more at this address.
    Recipient,
    /// Not what any replica writes.
    Malformed,
}

impl Dropped {
    pub fn name(self) -> &'static str {
        match self {
            Dropped::Version => "version",
            Dropped::Sender => "sender",
            Dropped::Recipient => "recipient",
            Dropped::Malformed => "malformed",
        }
    }
}

pub fn encode(from: u64, to: u64, body: &Body) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&from.to_le_bytes());
    out.extend_from_slice(&to.to_le_bytes());
    match body {
        Body::Raft(message) => {
            out.push(1);
            put_message(&mut out, message);
        }
        Body::Forward { boots, proposals } => {
            out.push(2);
            out.extend_from_slice(&boots.to_le_bytes());
            for (sequence, payload) in proposals {
                out.extend_from_slice(&sequence.to_le_bytes());
                put_bytes(&mut out, payload);
            }
        }
        Body::Refused { boots, refusal, sequences } => {
            out.push(3);
            out.extend_from_slice(&boots.to_le_bytes());
            out.push(match refusal {
                Refusal::NotLeader => 0,
                Refusal::Busy => 1,
                Refusal::Unreadable => 2,
            });
            for sequence in sequences {
                out.extend_from_slice(&sequence.to_le_bytes());
            }
        }
        Body::Hash { position, hash } => {
            out.push(4);
            out.extend_from_slice(&position.to_le_bytes());
            out.extend_from_slice(&hash.to_le_bytes());
        }
        Body::Lost => out.push(6),
        Body::Removed { position } => {
            out.push(5);
            out.extend_from_slice(&position.to_le_bytes());
        }
    }
    out
}

/// Reads what `from` sent to `to`.
pub fn decode(from: u64, to: u64, bytes: &[u8]) -> Result<Body, Dropped> {
    let mut reader = Reader(bytes);
    if reader.u8() != Some(VERSION) {
        return Err(if bytes.is_empty() { Dropped::Malformed } else { Dropped::Version });
    }
    if reader.u64().ok_or(Dropped::Malformed)? != from {
        return Err(Dropped::Sender);
    }
    if reader.u64().ok_or(Dropped::Malformed)? != to {
        return Err(Dropped::Recipient);
    }
    let body = read_body(&mut reader, from, to).ok_or(Dropped::Malformed)?;
    if reader.is_empty() { Ok(body) } else { Err(Dropped::Malformed) }
}

fn read_body(reader: &mut Reader<'_>, from: u64, to: u64) -> Option<Body> {
    Some(match reader.u8()? {
        1 => Body::Raft(read_message(reader, from, to)?),
        2 => {
            let boots = reader.u64()?;
            let mut proposals = Vec::new();
            while !reader.is_empty() {
                proposals.push((reader.u64()?, Bytes::copy_from_slice(reader.bytes()?)));
            }
            Body::Forward { boots, proposals }
        }
        3 => {
            let boots = reader.u64()?;
            let refusal = match reader.u8()? {
                0 => Refusal::NotLeader,
                1 => Refusal::Busy,
                2 => Refusal::Unreadable,
                _ => return None,
            };
            let mut sequences = Vec::new();
            while !reader.is_empty() {
                sequences.push(reader.u64()?);
            }
            Body::Refused { boots, refusal, sequences }
        }
        4 => Body::Hash { position: reader.u64()?, hash: reader.u64()? },
        5 => Body::Removed { position: reader.u64()? },
        6 => Body::Lost,
        _ => return None,
    })
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    let kind = KINDS.iter().position(|kind| *kind == message.get_msg_type());
    out.push(kind.expect("only these leave the core") as u8);
    out.push(u8::from(message.reject));
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
    ];
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    put_bytes(out, &message.context);
    out.extend_from_slice(&(message.entries.len() as u32).to_le_bytes());
    for entry in message.entries.iter() {
        put_entry(out, entry);
    }
    if message.get_msg_type() == MessageType::MsgSnapshot {
        let snapshot = message.get_snapshot();
        let meta = snapshot.get_metadata();
        out.extend_from_slice(&meta.index.to_le_bytes());
        out.extend_from_slice(&meta.term.to_le_bytes());
        put_members(out, meta.get_conf_state());
        put_bytes(out, &snapshot.data);
    }
}

fn read_message(reader: &mut Reader<'_>, from: u64, to: u64) -> Option<Message> {
    let kind = *KINDS.get(reader.u8()? as usize)?;
    let mut message = Message { from, to, ..Message::default() };
    message.set_msg_type(kind);
    message.reject = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    message.term = reader.u64()?;
    message.log_term = reader.u64()?;
    message.index = reader.u64()?;
    message.commit = reader.u64()?;
    message.commit_term = reader.u64()?;
    message.reject_hint = reader.u64()?;
    message.request_snapshot = reader.u64()?;
    message.context = Bytes::copy_from_slice(reader.bytes()?);
    let count = reader.u32()? as usize;
    if count > reader.0.len() / ENTRY_HEADER_BYTES {
        return None;
    }
    let is_read = matches!(kind, MessageType::MsgReadIndex | MessageType::MsgReadIndexResp);
    let is_append = kind == MessageType::MsgAppend;
    // Raft looks at a read's only entry without asking whether there is one.
    if is_read && count != 1 || !is_read && !is_append && count != 0 {
        return None;
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    let mut term = message.log_term;
    for i in 0..count as u64 {
        let index = if is_append { message.index.checked_add(1 + i)? } else { 0 };
        let entry = read_entry(reader, index)?;
        if is_append && (entry.term < term || entry.term > message.term || entry.term == 0) {
            return None;
        }
        term = entry.term;
        entries.push(entry);
    }
    message.set_entries(entries.into());
    // A message without a term is one of raft's to itself.
    if message.term == 0 && kind != MessageType::MsgReadIndex {
        return None;
    }
    if kind == MessageType::MsgSnapshot {
        let mut meta = SnapshotMetadata { index: reader.u64()?, term: reader.u64()?, ..SnapshotMetadata::default() };
        if meta.index == 0 || meta.term == 0 || meta.term > message.term {
            return None;
        }
        meta.set_conf_state(read_members(reader)?);
        let mut snapshot = Snapshot { data: Bytes::copy_from_slice(reader.bytes()?), ..Snapshot::default() };
        snapshot.set_metadata(meta);
        message.set_snapshot(snapshot);
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use raft::eraftpb::{ConfChangeType, ConfChangeV2, ConfState, EntryType};

    use super::*;
    use crate::codec::{put_change, single};

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (1..4_u64, prop::collection::vec(any::<u8>(), 0..30), any::<bool>());
        prop::collection::vec(entry, 0..5).prop_map(|entries| {
            let mut term = 1;
            let entry = |(i, (more, data, changes)): (usize, (u64, Vec<u8>, bool))| {
                term += more;
                let mut entry = Entry { term, index: 8 + i as u64, ..Entry::default() };
                if changes {
                    let mut change = ConfChangeV2::default();
                    change.mut_changes().push(single(ConfChangeType::AddLearnerNode, more));
                    entry.set_entry_type(EntryType::EntryConfChangeV2);
                    entry.context = put_change(&change).into();
                } else {
                    entry.data = data.into();
                }
                entry
            };
            entries.into_iter().enumerate().map(entry).collect()
        })
    }

    fn bodies() -> impl Strategy<Value = Body> {
        let message = (0..KINDS.len(), any::<[u64; 4]>(), any::<bool>(), entries());
        let raft = message.prop_map(|(kind, numbers, reject, entries)| {
            let mut message =
                Message { from: 1, to: 2, term: 1000, index: 7, log_term: 1, reject, ..Message::default() };
            message.set_msg_type(KINDS[kind]);
            [message.commit, message.commit_term, message.reject_hint, message.request_snapshot] = numbers;
            message.context = numbers[0].to_le_bytes().to_vec().into();
            match KINDS[kind] {
                MessageType::MsgAppend => message.set_entries(entries.into()),
                MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
                    message.set_entries(vec![Entry { data: vec![1, 2].into(), ..Entry::default() }].into());
                }
                MessageType::MsgSnapshot => {
                    let mut meta = SnapshotMetadata { index: 9, term: 5, ..SnapshotMetadata::default() };
                    meta.set_conf_state(ConfState { voters: vec![1, 2], learners: vec![3], ..ConfState::default() });
                    let mut snapshot = Snapshot { data: vec![7; 40].into(), ..Snapshot::default() };
                    snapshot.set_metadata(meta);
                    message.set_snapshot(snapshot);
                }
                _ => (),
            }
            Body::Raft(message)
        });
        let payload = prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let proposals = prop::collection::vec((any::<u64>(), payload), 0..4);
        let refusal = prop::sample::select(vec![Refusal::NotLeader, Refusal::Busy, Refusal::Unreadable]);
        let sequences = prop::collection::vec(any::<u64>(), 0..4);
        prop_oneof![
            4 => raft,
            1 => (any::<u64>(), proposals).prop_map(|(boots, proposals)| Body::Forward { boots, proposals }),
            1 => (any::<u64>(), refusal, sequences)
                .prop_map(|(boots, refusal, sequences)| Body::Refused { boots, refusal, sequences }),
            1 => any::<[u64; 2]>().prop_map(|[position, hash]| Body::Hash { position, hash }),
            1 => any::<u64>().prop_map(|position| Body::Removed { position }),
            1 => Just(Body::Lost),
        ]
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives_and_damage_is_no_panic(body in bodies(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let bytes = encode(1, 2, &body);
            prop_assert_eq!(decode(1, 2, &bytes), Ok(body.clone()));
            prop_assert_eq!(decode(3, 2, &bytes), Err(Dropped::Sender));
            prop_assert_eq!(decode(1, 3, &bytes), Err(Dropped::Recipient));
            let mut damaged = bytes.clone();
            damaged[at.index(bytes.len())] ^= 1_u8 << bit;
            let _ = decode(1, 2, &damaged).is_ok();
            // A list of numbers may be cut between two of them; nothing else may be cut.
            let cut = decode(1, 2, &bytes[..at.index(bytes.len())]);
            let is_list = matches!(body, Body::Forward { .. } | Body::Refused { .. });
            prop_assert!(cut.is_err() || is_list);
        }
    }
}
