//! The entries applied last, for whoever follows the log from a little behind.

use std::collections::VecDeque;

use bytes::Bytes;

/// A window at the end of the log, bounded by bytes.
pub struct Recent {
    entries: VecDeque<(u64, Bytes)>,
    /// Every entry after this position is in the window.
    complete_after: u64,
    /// Everything up to this position was applied.
    upto: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    pub fn new(position: u64, bytes_max: usize) -> Recent {
        Recent { entries: VecDeque::new(), complete_after: position, upto: position, bytes: 0, bytes_max }
    }

    pub fn push(&mut self, position: u64, payload: Bytes) {
        self.upto = position;
        self.bytes += payload.len() + ENTRY_BYTES;
        self.entries.push_back((position, payload));
        while self.bytes > self.bytes_max {
            let Some((position, payload)) = self.entries.pop_front() else { break };
            self.bytes -= payload.len() + ENTRY_BYTES;
            self.complete_after = position;
        }
    }

    /// A position without an entry was applied.
    pub fn advance(&mut self, position: u64) {
        self.upto = position;
    }

    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// `None`: some have left the window.
    pub fn after(&self, position: u64) -> Option<impl Iterator<Item = &(u64, Bytes)>> {
        if position < self.complete_after {
            return None;
        }
        let from = self.entries.partition_point(|(at, _)| *at <= position);
        Some(self.entries.range(from..))
    }
}

/// What an entry takes beside its payload.
const ENTRY_BYTES: usize = 48;
