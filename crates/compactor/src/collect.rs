//! Which objects may go, and when: a state machine without I/O. PROTOCOL.md, "Who may delete".
//!
//! It goes by the index as the bucket holds it (`stored`), never by the one in memory: a recovery would go back
//! to what is stored. [`index::dead`] judges; this file knows where to look, and waits:
//!
//! - Everything is listed once, when a checkpoint of the whole index was stored: at the start.
//! - From then on the stored changes say what was retired, so nothing is listed in the steady state. A writer that
//!   is closed, and a lease that was given up, have their own folders listed once: there lie PUTs that no entry
//!   ever named.
//! - What is dead at a stored revision c goes when nobody uses a revision below c any more. It stays dead.
//!
//! Of a segment every attempt that may have been begun is deleted, known to be stored or not (docs/decisions/0006).
//! A PUT that lands after its object was judged is found by the listing at the next start. Checkpoints older than the newest few, and
//! changes that the oldest of those contains, go too: a recovery reads the newest checkpoint and what follows it, and
//! must never fall back to an older one, which names deleted objects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bucket::Folder;
use index::{Applied, Index, dead};
use model::{Lease, ObjectKey, Revision, Right, WriterId};

use crate::settings::Settings;

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The whole index was stored; what was retired before is not known one by one.
    WholeStored,
    /// A checkpoint is in the bucket.
    CheckpointStored {
        /// Of this revision.
        at: Revision,
    },
    /// Changes are in the bucket, and this is what their entries did.
    ChangesStored {
        /// Their first revision.
        first: Revision,
        /// The position of their last.
        last: u64,
        /// In order.
        applied: Vec<Applied>,
    },
    /// A checkpoint or changes may be in the bucket: the answer to their PUT was an error.
    PerhapsStored {
        /// Which object.
        key: ObjectKey,
    },
    /// A folder's objects.
    Listed {
        /// Which folder.
        folder: Folder,
        /// All in it.
        keys: Vec<ObjectKey>,
    },
    /// A folder could not be listed.
    ListFailed {
        /// Which.
        folder: Folder,
    },
    /// Time went by.
    Tick {
        /// Nobody uses a revision below this one.
        lowest_in_use: Revision,
    },
    /// The last batch is over.
    Deleted {
        /// Those that could not be deleted.
        failed: Vec<ObjectKey>,
    },
}

/// What to do. One at a time; its answer is the next input but for ticks and what is stored meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// List a folder.
    List(Folder),
    /// Delete these; look at `cluster.json` first.
    Delete(Vec<ObjectKey>),
}

/// The state.
#[derive(Debug)]
pub struct Collector {
    settings: Settings,
    to_list: Vec<Folder>,
    /// Dead at this stored revision.
    waiting: BTreeMap<Revision, BTreeSet<ObjectKey>>,
    /// Dead, and nobody can be reading them.
    free: BTreeSet<ObjectKey>,
    checkpoints: BTreeSet<Revision>,
    /// Checkpoints that may be in the bucket.
    perhaps: BTreeSet<Revision>,
    /// (last, first) of changes in the bucket.
    changes: BTreeSet<(Revision, Revision)>,
    is_busy: bool,
    /// Not before: something failed.
    retry: Duration,
}

impl Collector {
    /// Knows of nothing yet.
    pub fn new(settings: Settings) -> Collector {
        Collector {
            settings,
            to_list: Vec::new(),
            waiting: BTreeMap::new(),
            free: BTreeSet::new(),
            checkpoints: BTreeSet::new(),
            perhaps: BTreeSet::new(),
            changes: BTreeSet::new(),
            is_busy: false,
            retry: Duration::ZERO,
        }
    }

    /// Objects that are known to be dead and are there yet.
    pub fn pending(&self) -> usize {
        self.waiting.values().map(BTreeSet::len).sum::<usize>() + self.free.len()
    }

    /// Whether nothing is left that may go now.
    pub fn is_idle(&self) -> bool {
        self.free.is_empty() && self.to_list.is_empty()
    }

    /// Goes on from `input` at `now` (the boot clock). `stored` is the index as the bucket is known to hold it.
    pub fn step(&mut self, now: Duration, input: Input, stored: &Index) -> Option<Output> {
        match input {
            Input::WholeStored => {
                for folder in [Folder::Segments, Folder::Blocks, Folder::Checkpoints, Folder::Changes] {
                    self.list_later(folder);
                }
            }
            Input::CheckpointStored { at } => {
                self.perhaps.remove(&at);
                self.checkpoints.insert(at);
                self.retire_checkpoints();
            }
            Input::PerhapsStored { key: ObjectKey::Checkpoint(at) } => {
                self.perhaps.insert(at);
            }
            Input::PerhapsStored { key } => self.found(vec![key], stored),
            Input::ChangesStored { first, last, applied } => {
                self.changes.insert((Revision { position: last, ..first }, first));
                for applied in applied {
                    self.retire(applied, stored);
                }
            }
            Input::Listed { folder, keys } => {
                self.is_busy = false;
                self.to_list.retain(|other| *other != folder);
                self.found(keys, stored);
            }
            Input::ListFailed { folder } => {
                self.is_busy = false;
                self.list_later(folder);
                self.retry = now + self.settings.retry_after;
            }
            Input::Tick { lowest_in_use } => self.set_free(lowest_in_use),
            Input::Deleted { failed } => {
                self.is_busy = false;
                if !failed.is_empty() {
                    self.retry = now + self.settings.retry_after;
                }
                self.free.extend(failed);
            }
        }
        if self.is_busy || now < self.retry {
            return None;
        }
        let output = self.next(stored)?;
        self.is_busy = true;
        Some(output)
    }

    fn next(&mut self, stored: &Index) -> Option<Output> {
        if let Some(folder) = self.to_list.first() {
            return Some(Output::List(*folder));
        }
        let mut batch = Vec::new();
        while batch.len() < self.settings.deletes_max {
            let Some(key) = self.free.pop_first() else { break };
            // Dead is for ever, so this holds; data is deleted here, so it is asked again.
            let is_index = matches!(key, ObjectKey::Checkpoint(_) | ObjectKey::Changes { .. });
            assert!(is_index || dead(stored, &key), "{key} was dead and is not");
            batch.push(key);
        }
        (!batch.is_empty()).then_some(Output::Delete(batch))
    }

    /// What an entry took out of the data, and where what it made dead may lie.
    fn retire(&mut self, applied: Applied, stored: &Index) {
        match applied {
            Applied::Cut { writer, retired, block, closed_by } => {
                for (n, attempt) in retired {
                    // Those before it may be stored as well, if only their answers were lost, and the one after
                    // it, which is its hedge; none beyond that was begun (the ingester's flush sees to it).
                    for attempt in 0..=attempt.min(ATTEMPTS_MAX) + 1 {
                        self.wait(ObjectKey::Segment { writer, n, attempt }, stored);
                    }
                }
                match closed_by {
                    Some(lease) => self.list_closed(writer, lease),
                    // Earlier tries of this cut's block, whose answers were lost.
                    None => {
                        let first = ObjectKey::cut_attempt(ObjectKey::cut_reaches(block.attempt), 0);
                        for attempt in first..block.attempt {
                            self.wait(ObjectKey::Block { right: block.right, attempt }, stored);
                        }
                    }
                }
            }
            Applied::Closed { writer, lease } => self.list_closed(writer, lease),
            Applied::Replaced { retired } => {
                for block in retired {
                    self.wait(block.key(), stored);
                }
            }
            Applied::CompactGranted { abandoned: Some(lease), .. } => {
                self.list_later(Folder::BlocksOf(Right::Compactor(lease)));
            }
            Applied::CompactGranted { abandoned: None, .. }
            | Applied::Registered { .. }
            | Applied::Added { .. }
            | Applied::Fenced { .. }
            | Applied::AdoptGranted { .. }
            | Applied::Deleted { .. }
            | Applied::Quarantined(_)
            | Applied::NodeSet { .. }
            | Applied::NodeForgotten { .. } => (),
        }
    }

    /// Everything that was PUT for a closed writer: what no entry named lies there too.
    fn list_closed(&mut self, writer: WriterId, lease: Lease) {
        self.list_later(Folder::SegmentsOf(writer));
        self.list_later(Folder::BlocksOf(Right::Writer(writer)));
        for number in 1..=lease.number {
            self.list_later(Folder::BlocksOf(Right::Adopter(writer, Lease { number, ..lease })));
        }
    }

    fn list_later(&mut self, folder: Folder) {
        if !self.to_list.contains(&folder) {
            self.to_list.push(folder);
        }
    }

    fn found(&mut self, keys: Vec<ObjectKey>, stored: &Index) {
        for key in keys {
            match key {
                ObjectKey::Checkpoint(at) => {
                    self.checkpoints.insert(at);
                }
                ObjectKey::Changes { first, last } => {
                    self.changes.insert((Revision { position: last, ..first }, first));
                }
                _ => self.wait(key, stored),
            }
        }
        self.retire_checkpoints();
    }

    /// Has an object wait, if it is dead, until nobody uses an older revision than the stored one.
    fn wait(&mut self, key: ObjectKey, stored: &Index) {
        let waits = self.free.contains(&key) || self.waiting.values().any(|keys| keys.contains(&key));
        if dead(stored, &key) && !waits {
            self.waiting.entry(stored.revision()).or_default().insert(key);
        }
    }

    fn set_free(&mut self, lowest_in_use: Revision) {
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() > lowest_in_use {
                break;
            }
            self.free.extend(entry.remove());
        }
    }

    /// No plan reads these, so they need not wait.
    fn retire_checkpoints(&mut self) {
        while self.checkpoints.len() > self.settings.checkpoints_kept.max(1) {
            let Some(oldest) = self.checkpoints.pop_first() else { break };
            self.free.insert(ObjectKey::Checkpoint(oldest));
        }
        let Some(oldest_kept) = self.checkpoints.first().copied() else { return };
        while let Some(at) = self.perhaps.first().copied().filter(|at| *at < oldest_kept) {
            self.perhaps.remove(&at);
            self.free.insert(ObjectKey::Checkpoint(at));
        }
        while let Some((last, first)) = self.changes.first().copied() {
            if last > oldest_kept {
                break;
            }
            self.changes.pop_first();
            self.free.insert(ObjectKey::Changes { first, last: last.position });
        }
    }
}

/// More attempts than a writer makes in an hour; a larger number in an entry must not keep us busy.
const ATTEMPTS_MAX: u32 = 1000;
