//! Flush: when to seal the open segment, and what to do with each sealed one, as a state machine.
//!
//! A segment is sealed as soon as a PUT slot is free, so a quiet node acks in one round trip, and while PUTs
//! are in flight the next segment fills, so a busy one makes large segments. Sealed segments are PUT side
//! by side, but committed in the order of their numbers, as their ids and deltas build on one another.
//!
//! A number is never given up (PROTOCOL.md, "Chosen"): a PUT that fails is tried again under the next attempt's
//! key until it is stored or the writer is fenced; its requests are answered 503 at their own deadline.
//! No clock, no I/O, no task here: [`Flush::step`] is given the time and what happened, and says what to do.

use std::collections::BTreeMap;
use std::time::Duration;

use model::SegmentNumber;

/// What the machine goes by.
#[derive(Debug, Clone, Copy)]
pub struct FlushRules {
    /// PUTs that may be in flight at once.
    pub put_slots: usize,
    /// Least time between two seals, unless the open segment is full: bounds commits (and S3's bill) a second.
    pub interval_min: Duration,
    /// At this many bytes the open segment is full.
    pub segment_bytes_max: usize,
    /// Wait after a failed PUT, doubled with each further failure.
    pub retry_delay_min: Duration,
    /// Longest such wait.
    pub retry_delay_max: Duration,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The open segment now has this many bytes (0: nothing is open).
    Open {
        /// Its size in memory.
        bytes: usize,
    },
    /// Whatever is open is to be sealed as soon as a slot is free, whatever the interval: a cut or the end waits for it.
    Hurry,
    /// A PUT is known to have succeeded.
    Stored {
        /// The segment.
        n: SegmentNumber,
        /// The attempt that was stored.
        attempt: u32,
    },
    /// A PUT failed, or nobody knows.
    NotStored {
        /// The segment.
        n: SegmentNumber,
    },
    /// The segment's entry was applied here.
    Committed {
        /// The segment.
        n: SegmentNumber,
    },
}

/// What to do, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Close the open segment, under this number; `Put` for it follows.
    Seal(SegmentNumber),
    /// PUT a sealed segment.
    Put {
        /// The segment.
        n: SegmentNumber,
        /// Makes its key: never the same twice.
        attempt: u32,
    },
    /// Propose AddSegment; until it is committed no other is proposed.
    Propose {
        /// The segment.
        n: SegmentNumber,
        /// The attempt that is stored.
        attempt: u32,
    },
}

/// Where a sealed segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Putting { attempt: u32 },
    Waiting { until: Duration, attempt: u32 },
    Stored { attempt: u32 },
    Proposed,
}

/// The machine of one writer; see the module.
#[derive(Debug)]
pub struct Flush {
    rules: FlushRules,
    sealed: SegmentNumber,
    open_bytes: usize,
    hurry: bool,
    last_seal: Option<Duration>,
    /// Every sealed segment that is not committed.
    places: BTreeMap<SegmentNumber, Place>,
}

impl Flush {
    /// The machine of a new writer.
    pub fn new(rules: FlushRules) -> Flush {
        Flush { rules, sealed: 0, open_bytes: 0, hurry: false, last_seal: None, places: BTreeMap::new() }
    }

    /// Whether nothing is open or on its way.
    pub fn is_idle(&self) -> bool {
        self.open_bytes == 0 && self.places.is_empty()
    }

    /// Takes in what happened and returns what to do. `now` is any clock that does not go back.
    pub fn step(&mut self, now: Duration, input: Input) -> Vec<Output> {
        match input {
            Input::Open { bytes } => {
                self.open_bytes = bytes;
                self.hurry &= bytes > 0;
            }
            Input::Hurry => self.hurry = self.open_bytes > 0,
            Input::Stored { n, attempt } => {
                if let Some(place @ (Place::Putting { .. } | Place::Waiting { .. })) = self.places.get_mut(&n) {
                    *place = Place::Stored { attempt };
                }
            }
            Input::NotStored { n } => self.not_stored(now, n),
            Input::Committed { n } => {
                self.places.remove(&n);
            }
        }
        let mut outputs = Vec::new();
        self.propose(&mut outputs);
        self.put_again(now, &mut outputs);
        self.seal(now, &mut outputs);
        outputs
    }

    /// When `step` wants to be called (with `Open`), if nothing else happens before.
    pub fn wake_at(&self) -> Option<Duration> {
        let retries = self.places.values().filter_map(|place| match place {
            Place::Waiting { until, .. } => Some(*until),
            _ => None,
        });
        let seal = (self.open_bytes > 0 && self.has_slot()).then(|| self.seal_at());
        retries.chain(seal).min()
    }

    fn not_stored(&mut self, now: Duration, n: SegmentNumber) {
        if let Some(place) = self.places.get_mut(&n)
            && let Place::Putting { attempt } = *place
        {
            let doubled = self.rules.retry_delay_min.saturating_mul(1 << attempt.min(16));
            *place = Place::Waiting { until: now + doubled.min(self.rules.retry_delay_max), attempt };
        }
    }

    /// Only the lowest segment may be proposed: entries demand `n = added + 1`.
    fn propose(&mut self, outputs: &mut Vec<Output>) {
        if let Some((&n, place)) = self.places.iter_mut().next()
            && let Place::Stored { attempt } = *place
        {
            *place = Place::Proposed;
            outputs.push(Output::Propose { n, attempt });
        }
    }

    fn put_again(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        for (&n, place) in &mut self.places {
            if let Place::Waiting { until, attempt } = *place
                && until <= now
            {
                // The failed attempt's key is not used again: its bytes may be there, torn or unsynced.
                *place = Place::Putting { attempt: attempt + 1 };
                outputs.push(Output::Put { n, attempt: attempt + 1 });
            }
        }
    }

    fn seal(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        if self.open_bytes == 0 || !self.has_slot() || now < self.seal_at() {
            return;
        }
        self.sealed += 1;
        self.places.insert(self.sealed, Place::Putting { attempt: 0 });
        self.last_seal = Some(now);
        self.open_bytes = 0;
        self.hurry = false;
        outputs.push(Output::Seal(self.sealed));
        outputs.push(Output::Put { n: self.sealed, attempt: 0 });
    }

    /// A segment that waits to be tried again keeps its slot, so that a store that fails is not flooded.
    fn has_slot(&self) -> bool {
        let taken = self.places.values().filter(|place| matches!(place, Place::Putting { .. } | Place::Waiting { .. }));
        taken.count() < self.rules.put_slots
    }

    fn seal_at(&self) -> Duration {
        match self.last_seal {
            Some(last) if !self.hurry && self.open_bytes < self.rules.segment_bytes_max => {
                last + self.rules.interval_min
            }
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: FlushRules = FlushRules {
        put_slots: 2,
        interval_min: Duration::from_millis(10),
        segment_bytes_max: 1000,
        retry_delay_min: Duration::from_millis(100),
        retry_delay_max: Duration::from_secs(2),
    };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn put(n: SegmentNumber, attempt: u32) -> Output {
        Output::Put { n, attempt }
    }

    #[test]
    fn a_quiet_writer_seals_at_once() {
        let mut flush = Flush::new(RULES);
        assert_eq!(flush.step(ms(0), Input::Open { bytes: 1 }), [Output::Seal(1), put(1, 0)]);
        assert_eq!(flush.step(ms(1), Input::Stored { n: 1, attempt: 0 }), [Output::Propose { n: 1, attempt: 0 }]);
        assert_eq!(flush.step(ms(2), Input::Committed { n: 1 }), []);
        assert!(flush.is_idle());
        assert_eq!(flush.step(ms(50), Input::Open { bytes: 1 }), [Output::Seal(2), put(2, 0)]);
    }

    #[test]
    fn a_busy_writer_fills_the_next_while_slots_are_taken() {
        let mut flush = Flush::new(RULES);
        flush.step(ms(0), Input::Open { bytes: 1 });
        assert_eq!(flush.step(ms(1), Input::Open { bytes: 10 }), []);
        assert_eq!(flush.wake_at(), Some(ms(10)));
        assert_eq!(flush.step(ms(2), Input::Open { bytes: 1000 }), [Output::Seal(2), put(2, 0)]);
        assert_eq!(flush.step(ms(90), Input::Open { bytes: 5000 }), [], "both slots are taken");
        assert_eq!(flush.wake_at(), None);
        assert_eq!(
            flush.step(ms(91), Input::Stored { n: 2, attempt: 0 }),
            [Output::Seal(3), put(3, 0)],
            "1 goes first"
        );
        assert_eq!(flush.step(ms(92), Input::Stored { n: 1, attempt: 0 }), [Output::Propose { n: 1, attempt: 0 }]);
        assert_eq!(flush.step(ms(93), Input::Committed { n: 1 }), [Output::Propose { n: 2, attempt: 0 }]);
    }

    #[test]
    fn a_failed_put_is_tried_again_under_another_key() {
        let mut flush = Flush::new(RULES);
        flush.step(ms(0), Input::Open { bytes: 1 });
        assert_eq!(flush.step(ms(5), Input::NotStored { n: 1 }), []);
        assert_eq!(flush.wake_at(), Some(ms(105)));
        assert_eq!(flush.step(ms(105), Input::Open { bytes: 0 }), [put(1, 1)]);
        flush.step(ms(110), Input::NotStored { n: 1 });
        assert_eq!(flush.wake_at(), Some(ms(310)));
        assert_eq!(flush.step(ms(310), Input::Open { bytes: 0 }), [put(1, 2)]);
        assert_eq!(flush.step(ms(320), Input::Stored { n: 1, attempt: 2 }), [Output::Propose { n: 1, attempt: 2 }]);
    }

    #[test]
    fn hurry_does_not_wait_for_the_interval() {
        let mut flush = Flush::new(RULES);
        flush.step(ms(0), Input::Open { bytes: 1 });
        flush.step(ms(1), Input::Open { bytes: 1 });
        assert_eq!(flush.step(ms(2), Input::Hurry), [Output::Seal(2), put(2, 0)]);
    }

    proptest! {
        /// Whatever fails and in whatever order answers come: numbers are sealed and proposed in order, no key is
        /// PUT twice, no more PUTs run than slots, and nothing is proposed before it is stored.
        #[test]
        fn order_slots_and_keys_hold(choices in prop::collection::vec((0u8..5, 0usize..8, 0u64..40), 1..200)) {
            let mut flush = Flush::new(RULES);
            let (mut now, mut sealed, mut proposed, mut committed) = (0, 0, 0, 0);
            let mut in_flight: Vec<(SegmentNumber, u32)> = Vec::new();
            let mut stored = std::collections::BTreeSet::new();
            let mut keys = std::collections::BTreeSet::new();
            for (choice, pick, wait) in choices {
                now += wait;
                let input = match choice {
                    0 => Input::Open { bytes: 1 + pick * 300 },
                    1 if !in_flight.is_empty() => {
                        let (n, attempt) = in_flight.remove(pick % in_flight.len());
                        stored.insert(n);
                        Input::Stored { n, attempt }
                    }
                    2 if !in_flight.is_empty() => Input::NotStored { n: in_flight.remove(pick % in_flight.len()).0 },
                    3 if committed < proposed => {
                        committed += 1;
                        Input::Committed { n: committed }
                    }
                    4 => Input::Hurry,
                    _ => Input::Open { bytes: 0 },
                };
                for output in flush.step(ms(now), input) {
                    match output {
                        Output::Seal(n) => {
                            sealed += 1;
                            prop_assert_eq!(n, sealed);
                        }
                        Output::Put { n, attempt } => {
                            prop_assert!(n <= sealed && keys.insert((n, attempt)));
                            in_flight.push((n, attempt));
                        }
                        Output::Propose { n, .. } => {
                            proposed += 1;
                            prop_assert!(n == proposed && n == committed + 1 && stored.contains(&n));
                        }
                    }
                }
                prop_assert!(in_flight.len() <= RULES.put_slots);
            }
        }
    }
}
