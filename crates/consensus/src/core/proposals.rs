//! Proposals: each has its proposer's tag and waits at its proposer until it is applied there. A leader gives its own and
//! the others' to raft, many in one call; a follower forwards its own to the leader, and again when they may be lost.

use std::collections::HashSet;

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};

use super::{Core, Failure};
use crate::codec::Tag;
use crate::envelope::{Body, Refusal};

/// Payload bytes in one message of forwarded proposals, and in one call of raft's.
const BATCH_BYTES: usize = 256 << 10;

pub(super) struct Waiting {
    pub(super) data: Bytes,
    pub(super) since: u64,
    /// Given to a leader: which, in which term, when.
    pub(super) given: Option<(u64, u64, u64)>,
    /// Whether it ever was: then nobody knows where it may turn up.
    pub(super) was_given: bool,
}

impl Core {
    /// Takes a proposal; it ends by being applied here, or among the failed.
    pub fn propose(&mut self, payload: &[u8]) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let data = Tag { id: self.identity.id, boots: self.identity.boots, sequence }.before(payload);
        self.unsent.insert(sequence);
        self.unsent_bytes += data.len();
        self.waiting.insert(sequence, Waiting { data, since: self.ticks, given: None, was_given: false });
        sequence
    }

    pub(super) fn receive_forward(&mut self, from: u64, boots: u64, proposals: Vec<(u64, Bytes)>) {
        let is_busy = self.is_full || self.foreign.len() + proposals.len() > self.settings.queue_entries_max;
        let refusal = match () {
            () if !self.is_leader() => Some(Refusal::NotLeader),
            () if is_busy => Some(Refusal::Busy),
            () => None,
        };
        if let Some(refusal) = refusal {
            let sequences = proposals.into_iter().map(|(sequence, _)| sequence).collect();
            return self.say(from, &Body::Refused { boots, refusal, sequences });
        }
        let mut unreadable = Vec::new();
        for (sequence, payload) in proposals {
            // An entry that can't be read stops every replica: it must not get into the log.
            if payload.len() > self.settings.entry_bytes_max || !(self.reads_payload)(&payload) {
                unreadable.push(sequence);
                continue;
            }
            let tag = Tag { id: from, boots, sequence };
            self.foreign.push_back((tag, tag.before(&payload)));
        }
        if !unreadable.is_empty() {
            self.say(from, &Body::Refused { boots, refusal: Refusal::Unreadable, sequences: unreadable });
        }
    }

    pub(super) fn receive_refused(&mut self, from: u64, boots: u64, refusal: Refusal, sequences: &[u64]) {
        if boots != self.identity.boots {
            return;
        }
        for sequence in sequences {
            let Some(waiting) = self.waiting.get_mut(sequence) else { continue };
            if waiting.given.is_none_or(|(leader, ..)| leader != from) {
                continue;
            }
            if refusal == Refusal::Unreadable {
                self.take(*sequence);
                self.outputs.failed.push((*sequence, Failure::Unreadable));
                continue;
            }
            waiting.given = None;
            self.unsent.insert(*sequence);
            self.unsent_bytes += waiting.data.len();
            self.forward_after = self.ticks + 1;
        }
    }

    /// The leader's own and the others' proposals go to raft, many in one call.
    pub(super) fn append_waiting(&mut self) {
        if self.is_full {
            return;
        }
        loop {
            let mut batch = Vec::new();
            let mut bytes = 0;
            for sequence in &self.unsent {
                if bytes >= BATCH_BYTES {
                    break;
                }
                let tag = Tag { id: self.identity.id, boots: self.identity.boots, sequence: *sequence };
                let data = self.waiting[sequence].data.clone();
                bytes += data.len();
                batch.push((tag, data));
            }
            let own = batch.len();
            for (tag, data) in &self.foreign {
                if bytes >= BATCH_BYTES {
                    break;
                }
                bytes += data.len();
                batch.push((*tag, data.clone()));
            }
            if batch.is_empty() {
                return;
            }
            let foreign = batch.len() - own;
            let is_new = |(tag, _): &&(Tag, Bytes)| !self.appended.contains(tag);
            let mut entries: Vec<Entry> = Vec::with_capacity(batch.len());
            let mut tags = HashSet::new();
            for (tag, data) in batch.iter().filter(is_new) {
                if tags.insert(*tag) {
                    entries.push(Entry { data: data.clone(), ..Entry::default() });
                }
            }
            if !entries.is_empty() && !self.append(entries) {
                // As much as may be uncommitted is; when some is committed, the rest follows.
                return;
            }
            self.appended.extend(tags);
            self.foreign.drain(..foreign);
            let given = Some((self.identity.id, self.term(), self.ticks));
            for (tag, data) in &batch[..own] {
                self.unsent.remove(&tag.sequence);
                self.unsent_bytes -= data.len();
                let waiting = self.waiting.get_mut(&tag.sequence).expect("what is unsent waits");
                waiting.given = given;
                waiting.was_given = true;
            }
        }
    }

    pub(super) fn append(&mut self, entries: Vec<Entry>) -> bool {
        let mut message = Message { from: self.identity.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        self.node.step(message).is_ok()
    }

    pub(super) fn forward(&mut self, leader: u64) {
        if self.ticks < self.forward_after {
            return;
        }
        while !self.unsent.is_empty() {
            let mut proposals = Vec::new();
            let mut bytes = 0;
            while bytes < BATCH_BYTES {
                let Some(sequence) = self.unsent.pop_first() else { break };
                let waiting = self.waiting.get_mut(&sequence).expect("what is unsent waits");
                waiting.given = Some((leader, self.node.raft.term, self.ticks));
                waiting.was_given = true;
                bytes += waiting.data.len();
                proposals.push((sequence, waiting.data.slice(Tag::BYTES..)));
            }
            self.unsent_bytes -= bytes;
            self.outputs.forwarded += proposals.len() as u64;
            self.say(leader, &Body::Forward { boots: self.identity.boots, proposals });
        }
    }

    /// Forgets a proposal.
    pub(super) fn take(&mut self, sequence: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&sequence)?;
        if self.unsent.remove(&sequence) {
            self.unsent_bytes -= waiting.data.len();
        }
        Some(waiting)
    }

    pub(super) fn fail(&mut self, sequence: u64) {
        if let Some(waiting) = self.take(sequence) {
            self.outputs.failed.push((sequence, Failure::NoLeader { is_certain: !waiting.was_given }));
        }
    }
}
