//! Reads: all that wait are answered with one position that the leader confirms, one question under way at a time.

use super::{Core, REPEAT_TICKS};
use crate::codec::Tag;

#[derive(Default)]
pub(super) struct Reads {
    /// Tickets given out, and answered.
    pub(super) last: u64,
    pub(super) answered: u64,
    pub(super) sequence: u64,
    pub(super) flight: Option<Flight>,
}

pub(super) struct Flight {
    pub(super) sequence: u64,
    pub(super) upto: u64,
    pub(super) since: u64,
    pub(super) sent: Option<(u64, u64, u64)>,
}

impl Core {
    /// Takes a read; it ends among the reads that are answered up to a ticket.
    pub fn read(&mut self) -> u64 {
        self.reads.last += 1;
        self.reads.last
    }

    pub(super) fn send_reads(&mut self, leader: u64) {
        if self.reads.answered == self.reads.last {
            return;
        }
        if self.lacks_leader() {
            self.reads.flight = None;
            self.answer_reads(self.reads.last, None);
            return;
        }
        if leader == 0 {
            return;
        }
        let own = leader == self.identity.id;
        // A leader that has committed nothing in its term does not know what is committed.
        if own && !self.node.raft.commit_to_current_term() {
            return;
        }
        let (upto, ticks, term) = (self.reads.last, self.ticks, self.term());
        let flight = self.reads.flight.get_or_insert_with(|| {
            self.reads.sequence += 1;
            Flight { sequence: self.reads.sequence, upto, since: ticks, sent: None }
        });
        let is_due =
            flight.sent.is_none_or(|(to, in_term, at)| (to, in_term) != (leader, term) || at + REPEAT_TICKS <= ticks);
        if is_due {
            flight.sent = Some((leader, term, ticks));
            let sequence = flight.sequence;
            let context = self.read_context(sequence);
            self.node.read_index(context);
        }
    }

    /// No two reads of any two replicas have the same.
    pub(super) fn read_context(&self, sequence: u64) -> Vec<u8> {
        Tag { id: self.identity.id, boots: self.identity.boots, sequence }.before(&[]).to_vec()
    }

    pub(super) fn answer_reads(&mut self, upto: u64, position: Option<u64>) {
        self.reads.answered = upto;
        self.outputs.reads.push((upto, position));
    }
}
