//! The log as raft reads it: in memory, whole from where it was cut off.
//!
//! It is what the disk holds, a moment early: raft takes entries for stable only when the driver says that they
//! are durable. Its size is bounded by how often a snapshot cuts it (`Settings::snapshot_after_bytes`).

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// A log that begins after a base.
#[derive(Debug, Default)]
pub struct MemLog {
    pub hard_state: HardState,
    /// The members at the snapshot that this start began with; read once.
    pub members: ConfState,
    /// The position before the first entry, and the term there.
    pub base: (u64, u64),
    pub entries: VecDeque<Entry>,
    /// For replicas that the log does not reach back to.
    pub snapshot: Option<Snapshot>,
    /// Who asked for a snapshot when there was none to give.
    pub wanted_by: RefCell<BTreeSet<u64>>,
}

impl MemLog {
    pub fn first(&self) -> u64 {
        self.base.0 + 1
    }

    pub fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// `None`: cut off, or not there yet.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.at(index).and_then(|at| self.entries.get(at)).map(|entry| entry.term)
    }

    fn at(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first())?).ok()
    }

    /// Appends; what was there from the first of `entries` on is replaced.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let at = self.at(first.index).filter(|at| *at <= self.entries.len());
        self.entries.truncate(at.expect("raft appends within its log or at its end"));
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets everything; the log goes on after a snapshot.
    pub fn restart(&mut self, index: u64, term: u64) {
        self.entries.clear();
        self.base = (index, term);
        self.snapshot = None;
    }

    /// Cuts off what is at or before `index`.
    pub fn cut(&mut self, index: u64) {
        if index <= self.base.0 {
            return;
        }
        let term = self.term_at(index).expect("what is cut off was applied, so it is there");
        self.entries.drain(..(index - self.base.0) as usize);
        self.base = (index, term);
    }

    /// The entries after `index`.
    pub fn after(&self, index: u64) -> impl Iterator<Item = &Entry> {
        let from = self.at(index + 1).unwrap_or(0).min(self.entries.len());
        self.entries.range(from..)
    }
}

impl Storage for MemLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in self.after(low - 1).take_while(|entry| entry.index < high) {
            bytes += (entry.data.len() + entry.context.len() + 16) as u64;
            if bytes > limit && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_at(index).ok_or_else(|| {
            if index < self.base.0 { StorageError::Compacted.into() } else { StorageError::Unavailable.into() }
        })
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let usable = self.snapshot.as_ref().filter(|snapshot| {
            let meta = snapshot.get_metadata();
            let conf = meta.get_conf_state();
            let has_to = [&conf.voters, &conf.learners, &conf.voters_outgoing].iter().any(|ids| ids.contains(&to));
            meta.index >= request_index.max(self.base.0) && has_to
        });
        if usable.is_none() {
            self.wanted_by.borrow_mut().insert(to);
        }
        usable.cloned().ok_or_else(|| StorageError::SnapshotTemporarilyUnavailable.into())
    }
}
