//! When to write the index to the bucket: a state machine without I/O.
//!
//! The whole index at the start; from then on the entries since, every few seconds, and every few minutes a
//! checkpoint of *what is stored already*, which only folds changes that the bucket has into one object. So
//! there is no entry that a checkpoint has and no changes had, and the collector, which follows the changes,
//! misses nothing. Only when the entries since can't be had any more (they left the window) is the whole
//! index written again, and the collector told to look at everything anew.
//!
//! One write at a time. A failed one is tried again later; then it may be of a newer revision: whatever the
//! failed one left in the bucket is true as well.

use std::time::Duration;

use crate::settings::Settings;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Time went by; the index has applied this position.
    Tick {
        /// It.
        applied: u64,
    },
    /// The whole index is stored, and known to be.
    WholeStored {
        /// At this position.
        at: u64,
    },
    /// The changes are stored, and known to be.
    ChangesStored {
        /// Up to this position.
        last: u64,
    },
    /// The entries since are not to be had.
    ChangesGone,
    /// What is stored is stored as a checkpoint, and known to be.
    CheckpointStored,
    /// The last output came to nothing that is known.
    Failed,
    /// The process ends: store everything once more.
    Stop,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Store the whole index as it is now.
    PutWhole,
    /// Store the entries after this position.
    PutChanges {
        /// It.
        after: u64,
    },
    /// Store what is stored as a checkpoint.
    PutCheckpoint,
    /// Nothing more will come.
    Done,
}

/// The state.
#[derive(Debug)]
pub struct Checkpointer {
    settings: Settings,
    /// The bucket is known to hold the index up to here; `None`: nothing that this process has written.
    stored: Option<u64>,
    /// And a checkpoint of it here.
    checkpoint: u64,
    applied: u64,
    is_writing: bool,
    is_stopping: bool,
    is_done: bool,
    next_changes: Duration,
    next_checkpoint: Duration,
    /// Not before: something failed.
    retry: Duration,
}

impl Checkpointer {
    /// Nothing is stored yet.
    pub fn new(settings: Settings) -> Checkpointer {
        Checkpointer {
            settings,
            stored: None,
            checkpoint: 0,
            applied: 0,
            is_writing: false,
            is_stopping: false,
            is_done: false,
            next_changes: Duration::ZERO,
            next_checkpoint: Duration::ZERO,
            retry: Duration::ZERO,
        }
    }

    /// Goes on from `input` at `now` (the boot clock). At most one output at a time; answer it before the next.
    pub fn step(&mut self, now: Duration, input: Input) -> Option<Output> {
        match input {
            Input::Tick { applied } => self.applied = self.applied.max(applied),
            Input::WholeStored { at } => {
                self.stored = Some(at);
                self.checkpoint_stored(now, at);
                self.changes_stored(now);
            }
            Input::ChangesStored { last } => {
                self.stored = Some(last);
                self.changes_stored(now);
            }
            Input::ChangesGone => {
                self.stored = None;
                self.is_writing = false;
            }
            Input::CheckpointStored => self.checkpoint_stored(now, self.stored.unwrap_or(0)),
            Input::Failed => {
                self.is_writing = false;
                self.retry = now + self.settings.retry_after;
                if self.is_stopping {
                    // The log has everything; the next start writes it.
                    self.is_done = true;
                    return Some(Output::Done);
                }
            }
            Input::Stop => self.is_stopping = true,
        }
        let output = self.next(now)?;
        self.is_writing = output != Output::Done;
        self.is_done = output == Output::Done;
        Some(output)
    }

    fn changes_stored(&mut self, now: Duration) {
        self.is_writing = false;
        self.next_changes = now + self.settings.changes_every;
    }

    fn checkpoint_stored(&mut self, now: Duration, at: u64) {
        self.is_writing = false;
        self.checkpoint = at;
        self.next_checkpoint = now + self.settings.checkpoint_every;
    }

    fn next(&self, now: Duration) -> Option<Output> {
        // At the end nobody waits for the next time.
        let is_due = |at: Duration| self.is_stopping || now >= at;
        if self.is_writing || self.is_done || !is_due(self.retry) {
            return None;
        }
        let Some(stored) = self.stored else { return Some(Output::PutWhole) };
        if self.applied > stored && is_due(self.next_changes) {
            return Some(Output::PutChanges { after: stored });
        }
        if stored > self.checkpoint && is_due(self.next_checkpoint) {
            return Some(Output::PutCheckpoint);
        }
        self.is_stopping.then_some(Output::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn everything_at_the_start_then_changes_then_checkpoints() {
        let mut c = Checkpointer::new(Settings::default());
        assert_eq!(c.step(at(0), Input::Tick { applied: 7 }), Some(Output::PutWhole));
        assert_eq!(c.step(at(1), Input::Tick { applied: 9 }), None, "one at a time");
        assert_eq!(c.step(at(2), Input::WholeStored { at: 8 }), None);
        assert_eq!(c.step(at(6), Input::Tick { applied: 9 }), None);
        assert_eq!(c.step(at(7), Input::Tick { applied: 9 }), Some(Output::PutChanges { after: 8 }));
        assert_eq!(c.step(at(7), Input::ChangesStored { last: 9 }), None);
        assert_eq!(c.step(at(100), Input::Tick { applied: 9 }), None, "nothing new, nothing written");
        assert_eq!(c.step(at(302), Input::Tick { applied: 9 }), Some(Output::PutCheckpoint));
        assert_eq!(c.step(at(303), Input::CheckpointStored), None);
        assert_eq!(c.step(at(9000), Input::Tick { applied: 9 }), None);
    }

    #[test]
    fn changes_come_before_the_checkpoint_that_folds_them() {
        let mut c = Checkpointer::new(Settings::default());
        c.step(at(0), Input::Tick { applied: 1 });
        c.step(at(0), Input::WholeStored { at: 1 });
        assert_eq!(c.step(at(400), Input::Tick { applied: 5 }), Some(Output::PutChanges { after: 1 }));
        assert_eq!(c.step(at(400), Input::ChangesStored { last: 5 }), Some(Output::PutCheckpoint));
    }

    #[test]
    fn a_failure_is_tried_again_later() {
        let mut c = Checkpointer::new(Settings::default());
        assert_eq!(c.step(at(0), Input::Tick { applied: 1 }), Some(Output::PutWhole));
        assert_eq!(c.step(at(1), Input::Failed), None);
        assert_eq!(c.step(at(10), Input::Tick { applied: 1 }), None);
        assert_eq!(c.step(at(11), Input::Tick { applied: 1 }), Some(Output::PutWhole));
        c.step(at(11), Input::WholeStored { at: 1 });
        assert_eq!(c.step(at(16), Input::Tick { applied: 2 }), Some(Output::PutChanges { after: 1 }));
        assert_eq!(c.step(at(16), Input::Failed), None);
        assert_eq!(c.step(at(26), Input::Tick { applied: 3 }), Some(Output::PutChanges { after: 1 }));
    }

    #[test]
    fn entries_that_are_gone_take_the_whole_index() {
        let mut c = Checkpointer::new(Settings::default());
        c.step(at(0), Input::Tick { applied: 1 });
        c.step(at(0), Input::WholeStored { at: 1 });
        assert_eq!(c.step(at(9), Input::Tick { applied: 2 }), Some(Output::PutChanges { after: 1 }));
        assert_eq!(c.step(at(9), Input::ChangesGone), Some(Output::PutWhole));
    }

    #[test]
    fn a_stop_stores_the_rest_at_once_and_gives_up_on_failure() {
        let mut c = Checkpointer::new(Settings::default());
        c.step(at(0), Input::Tick { applied: 1 });
        c.step(at(0), Input::WholeStored { at: 1 });
        c.step(at(0), Input::Tick { applied: 2 });
        assert_eq!(c.step(at(1), Input::Stop), Some(Output::PutChanges { after: 1 }));
        assert_eq!(c.step(at(1), Input::ChangesStored { last: 2 }), Some(Output::PutCheckpoint));
        assert_eq!(c.step(at(1), Input::CheckpointStored), Some(Output::Done));
        assert_eq!(c.step(at(9), Input::Tick { applied: 3 }), None);

        let mut c = Checkpointer::new(Settings::default());
        assert_eq!(c.step(at(0), Input::Stop), Some(Output::PutWhole));
        assert_eq!(c.step(at(0), Input::Failed), Some(Output::Done));
    }
}
