//! Cut: when a head becomes a block, and in which order, as a state machine.
//!
//! The cut point is a number chosen between two seals: the last sealed one. When the head has taken it in, the head
//! freezes and a new one takes what follows; the frozen one is packed, the block is PUT, and one entry swaps the
//! segments for the block. Until that entry is applied queries read the frozen head, from then on the block: there is
//! no instant at which a sample is missing or doubled. One cut at a time.
//!
//! No clock, no I/O, no task: [`CutMachine::step`] is given the time and what happened, and says what to do.

use std::time::Duration;

use model::SegmentNumber;

/// What the machine goes by.
#[derive(Debug, Clone, Copy)]
pub struct CutRules {
    /// A head is cut when its first sample is this old (by arrival).
    pub age_max: Duration,
    /// A head is cut when it takes this many bytes.
    pub head_bytes_max: usize,
    /// A head is cut when its samples alone take this many.
    pub sample_bytes_max: usize,
    /// Wait after a block that could not be stored, doubled with each further failure.
    pub retry_delay_min: Duration,
    /// Longest such wait.
    pub retry_delay_max: Duration,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The head took in a segment.
    TakenIn {
        /// The segment.
        n: SegmentNumber,
        /// What the head takes now.
        head_bytes: usize,
        /// What of it samples take.
        sample_bytes: usize,
    },
    /// Somebody wants the head cut now: the end of the process, a test, an operator.
    Wanted,
    /// The cut point is set: every segment above it spells its series anew.
    Pointed {
        /// The last sealed segment.
        upto: SegmentNumber,
    },
    /// The head is frozen, packed and PUT.
    Stored,
    /// The block could not be PUT, or nobody knows.
    NotStored,
    /// The entry was applied: the block is part of the data and the segments are retired.
    Committed,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Set a cut point at the next seal, or at once if nothing is open; answer with `Pointed`.
    Point,
    /// Freeze the head, which has taken in exactly up to this segment, and start a new one; `Pack` follows.
    Freeze {
        /// The cut point.
        upto: SegmentNumber,
    },
    /// Pack the frozen head into a block and PUT it, under a key of its own for each try.
    Pack {
        /// The cut before.
        from: SegmentNumber,
        /// The cut point.
        upto: SegmentNumber,
        /// 0, 1, 2 …
        attempt: u32,
    },
    /// Propose the Cut entry for the stored block until it is committed or refused.
    Propose {
        /// The cut before.
        from: SegmentNumber,
        /// The cut point.
        upto: SegmentNumber,
        /// Names the block's key.
        attempt: u32,
    },
    /// Let the frozen head go.
    Thaw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The head grows.
    Growing,
    /// Waiting for a seal.
    Pointing,
    /// Waiting for the head to take in the cut point.
    Freezing {
        upto: SegmentNumber,
    },
    Packing {
        upto: SegmentNumber,
        attempt: u32,
    },
    Waiting {
        upto: SegmentNumber,
        attempt: u32,
        until: Duration,
    },
    Proposing {
        upto: SegmentNumber,
    },
}

/// The machine of one writer; see the module.
#[derive(Debug)]
pub struct CutMachine {
    rules: CutRules,
    stage: Stage,
    /// The last committed cut.
    cut: SegmentNumber,
    taken_in: SegmentNumber,
    /// Whether the head is as large as it may be.
    is_large: bool,
    /// When the head took in its first segment above the present or coming cut.
    since: Option<Duration>,
    wanted: bool,
}

impl CutMachine {
    /// The machine of a new writer.
    pub fn new(rules: CutRules) -> CutMachine {
        CutMachine { rules, stage: Stage::Growing, cut: 0, taken_in: 0, is_large: false, since: None, wanted: false }
    }

    /// Whether every segment that was taken in is cut and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Growing && self.since.is_none()
    }

    /// Takes in what happened and returns what to do. `now` is any clock that does not go back.
    pub fn step(&mut self, now: Duration, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        match (input, self.stage) {
            (Input::TakenIn { n, head_bytes, sample_bytes }, _) => {
                self.taken_in = n;
                self.is_large = head_bytes >= self.rules.head_bytes_max || sample_bytes >= self.rules.sample_bytes_max;
                self.since.get_or_insert(now);
            }
            (Input::Wanted, _) => self.wanted = true,
            (Input::Pointed { upto }, Stage::Pointing) => self.stage = Stage::Freezing { upto },
            (Input::Stored, Stage::Packing { upto, attempt }) => {
                self.stage = Stage::Proposing { upto };
                outputs.push(Output::Propose { from: self.cut, upto, attempt });
            }
            (Input::NotStored, Stage::Packing { upto, attempt }) => {
                let delay = self.rules.retry_delay_min.saturating_mul(1 << attempt.min(16));
                let until = now + delay.min(self.rules.retry_delay_max);
                self.stage = Stage::Waiting { upto, attempt: attempt + 1, until };
            }
            (Input::Committed, Stage::Proposing { upto }) => {
                self.cut = upto;
                self.stage = Stage::Growing;
                outputs.push(Output::Thaw);
            }
            _ => {}
        }
        self.freeze(&mut outputs);
        if let Stage::Waiting { upto, attempt, until } = self.stage
            && until <= now
        {
            self.stage = Stage::Packing { upto, attempt };
            outputs.push(Output::Pack { from: self.cut, upto, attempt });
        }
        if self.stage == Stage::Growing && self.is_due(now) {
            self.wanted = false;
            self.stage = Stage::Pointing;
            outputs.push(Output::Point);
        }
        if self.is_idle() {
            self.wanted = false;
        }
        outputs
    }

    /// When `step` wants to be called with `Tick`, if nothing else happens before.
    pub fn wake_at(&self) -> Option<Duration> {
        match self.stage {
            Stage::Growing => self.since.map(|since| since + self.rules.age_max),
            Stage::Waiting { until, .. } => Some(until),
            _ => None,
        }
    }

    fn freeze(&mut self, outputs: &mut Vec<Output>) {
        let Stage::Freezing { upto } = self.stage else { return };
        if self.taken_in < upto {
            return;
        }
        // The driver freezes between two segments, so the head has taken in exactly the cut point.
        assert!(self.taken_in == upto, "segment {} was taken in past the cut point {upto}", self.taken_in);
        self.since = None;
        self.is_large = false;
        self.stage = Stage::Packing { upto, attempt: 0 };
        outputs.push(Output::Freeze { upto });
        outputs.push(Output::Pack { from: self.cut, upto, attempt: 0 });
    }

    fn is_due(&self, now: Duration) -> bool {
        let Some(since) = self.since else { return false };
        self.wanted || self.is_large || now >= since + self.rules.age_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: CutRules = CutRules {
        age_max: Duration::from_secs(600),
        head_bytes_max: 1000,
        sample_bytes_max: 500,
        retry_delay_min: Duration::from_secs(1),
        retry_delay_max: Duration::from_secs(30),
    };

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn taken_in(n: SegmentNumber, head_bytes: usize) -> Input {
        Input::TakenIn { n, head_bytes, sample_bytes: head_bytes / 4 }
    }

    #[test]
    fn a_head_is_cut_by_age_from_point_to_thaw() {
        let mut cut = CutMachine::new(RULES);
        assert_eq!(cut.step(s(0), Input::Tick), []);
        assert_eq!(cut.wake_at(), None, "an empty head is never cut");
        assert_eq!(cut.step(s(5), taken_in(1, 10)), []);
        assert_eq!(cut.wake_at(), Some(s(605)));
        assert_eq!(cut.step(s(605), Input::Tick), [Output::Point]);
        assert_eq!(cut.step(s(605), taken_in(2, 20)), []);
        assert_eq!(cut.step(s(606), Input::Pointed { upto: 3 }), []);
        let freeze = [Output::Freeze { upto: 3 }, Output::Pack { from: 0, upto: 3, attempt: 0 }];
        assert_eq!(cut.step(s(606), taken_in(3, 30)), freeze);
        assert_eq!(cut.step(s(607), taken_in(4, 5)), []);
        assert_eq!(cut.step(s(608), Input::Stored), [Output::Propose { from: 0, upto: 3, attempt: 0 }]);
        assert_eq!(cut.step(s(609), Input::Committed), [Output::Thaw]);
        assert_eq!(cut.wake_at(), Some(s(1207)), "the new head's age counts from its first segment");
    }

    #[test]
    fn a_head_is_cut_by_size_and_the_next_cut_starts_where_it_ended() {
        let mut cut = CutMachine::new(RULES);
        assert_eq!(cut.step(s(0), taken_in(1, 1000)), [Output::Point]);
        let freeze = |from, upto| [Output::Freeze { upto }, Output::Pack { from, upto, attempt: 0 }];
        assert_eq!(cut.step(s(0), Input::Pointed { upto: 1 }), freeze(0, 1));
        assert_eq!(cut.step(s(1), taken_in(2, 2000)), [], "one cut at a time");
        cut.step(s(1), Input::Stored);
        assert_eq!(cut.step(s(2), Input::Committed), [Output::Thaw, Output::Point]);
        assert_eq!(cut.step(s(2), Input::Pointed { upto: 2 }), freeze(1, 2));
    }

    #[test]
    fn a_head_is_cut_by_the_size_of_its_samples() {
        let mut cut = CutMachine::new(RULES);
        assert_eq!(cut.step(s(0), Input::TakenIn { n: 1, head_bytes: 999, sample_bytes: 499 }), []);
        assert_eq!(cut.step(s(0), Input::TakenIn { n: 2, head_bytes: 999, sample_bytes: 500 }), [Output::Point]);
    }

    #[test]
    fn a_block_that_is_not_stored_is_tried_again_under_another_key() {
        let mut cut = CutMachine::new(RULES);
        cut.step(s(0), taken_in(1, 1000));
        cut.step(s(0), Input::Pointed { upto: 1 });
        assert_eq!(cut.step(s(1), Input::NotStored), []);
        assert_eq!(cut.step(s(2), Input::Tick), [Output::Pack { from: 0, upto: 1, attempt: 1 }]);
        assert_eq!(cut.step(s(3), Input::NotStored), []);
        assert_eq!(cut.wake_at(), Some(s(5)));
    }

    #[test]
    fn a_wanted_cut_of_nothing_is_no_cut() {
        let mut cut = CutMachine::new(RULES);
        assert_eq!(cut.step(s(0), Input::Wanted), []);
        assert!(cut.is_idle());
        assert_eq!(cut.step(s(1), taken_in(1, 1)), [], "the wish is not kept for later data");
        assert_eq!(cut.step(s(2), Input::Wanted), [Output::Point]);
    }
}
