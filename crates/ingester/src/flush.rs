//! Flush: when to seal the open segment, and what to do with each sealed one, as a state machine.
//!
//! A segment is sealed as soon as a slot is free, so a quiet node acks in one round trip, and while those before it
//! are on their way the next segment fills, so a busy one makes large segments. Sealed segments are PUT side
//! by side, but committed in the order of their numbers, as their ids and deltas build on one another. A segment has
//! its slot until it is committed: when the index is slow, or has no leader, segments grow instead of queueing for it;
//! once full they are PUT all the same.
//!
//! A number is never given up (PROTOCOL.md, "Chosen"): a PUT that fails is tried again under the next attempt's
//! key until it is stored or the writer is fenced; its requests are answered 503 at their own deadline.
//!
//! Where PUTs cross a network (docs/decisions/0006) an attempt that takes too long is given up for the next, and one that
//! takes longer than nearly all others lately gets a hedge: a second attempt beside it, and the first of the two counts.
//! **Whatever happens, the attempts that were begun of a stored segment end with the one after the stored one.** The
//! collector relies on it: it finds every object of a segment without a listing.
//! No clock, no I/O, no task here: [`Flush::step`] is given the time and what happened, and says what to do.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::SegmentNumber;

/// What the machine goes by.
#[derive(Debug, Clone, Copy)]
pub struct FlushRules {
    /// Segments that may be on their way at once, from seal to commit; of full ones, PUTs.
    pub slots: usize,
    /// Least time between two seals, unless the open segment is full: bounds commits (and S3's bill) a second.
    pub interval_min: Duration,
    /// At this many bytes the open segment is full.
    pub segment_bytes_max: usize,
    /// Wait after a failed PUT, doubled with each further failure.
    pub retry_delay_min: Duration,
    /// Longest such wait.
    pub retry_delay_max: Duration,
    /// `None`: an attempt takes as long as it takes. A disk that hangs hangs for every attempt.
    pub attempts: Option<AttemptRules>,
}

/// How attempts follow one another where PUTs cross a network.
#[derive(Debug, Clone, Copy)]
pub struct AttemptRules {
    /// An attempt that takes longer is given up. Doubled with each of a segment that was, so that a store which is slow
    /// for all, or a line that is too thin for a full segment, gets the time it needs.
    pub timeout_min: Duration,
    /// Longest such time.
    pub timeout_max: Duration,
    /// A hedge comes no earlier, however quick the store is.
    pub hedge_min: Duration,
    /// When a hedge comes while too few PUTs are known to go by.
    pub hedge_unknown: Duration,
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
        /// The attempt.
        attempt: u32,
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
    /// Stop a PUT that is under way. It may be stored all the same, now or later, and no longer counts.
    Abandon {
        /// The segment.
        n: SegmentNumber,
        /// The attempt.
        attempt: u32,
        /// Whether it took too long; else another attempt was quicker.
        is_late: bool,
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
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Putting(Putting),
    Stored { attempt: u32 },
    Proposed,
}

/// A segment that is not known to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Putting {
    /// Under way: none, one, or an attempt and the next, which is its hedge.
    running: Vec<Attempt>,
    /// Attempts that were begun, so the number of the next.
    begun: u32,
    /// Those that took too long.
    late: u32,
    /// When the next begins if none is under way.
    retry_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attempt {
    number: u32,
    since: Duration,
    /// When it is given up.
    until: Option<Duration>,
    /// When it gets a hedge; `None`: never, or it has had one.
    hedge_at: Option<Duration>,
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
    /// How long the latest PUTs took, oldest first; of one that was given up, how long it had taken by then.
    put_times: VecDeque<Duration>,
}

/// PUTs that are gone by for the time of a hedge: enough for a 95th percentile, few enough to follow a store that changes.
const PUT_TIMES_MAX: usize = 128;

/// With fewer, one slow PUT would be the percentile.
const PUT_TIMES_MIN: usize = 20;

impl Flush {
    /// The machine of a new writer.
    pub fn new(rules: FlushRules) -> Flush {
        Flush {
            rules,
            sealed: 0,
            open_bytes: 0,
            hurry: false,
            last_seal: None,
            places: BTreeMap::new(),
            put_times: VecDeque::new(),
        }
    }

    /// Changes how many segments may be on their way, and how attempts follow one another, for those that begin from here
    /// on: a bucket may move across a network.
    pub fn set_way(&mut self, slots: usize, attempts: Option<AttemptRules>) {
        (self.rules.slots, self.rules.attempts) = (slots, attempts);
    }

    /// Whether nothing is open or on its way.
    pub fn is_idle(&self) -> bool {
        self.open_bytes == 0 && self.places.is_empty()
    }

    /// Takes in what happened and returns what to do. `now` is any clock that does not go back.
    pub fn step(&mut self, now: Duration, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Open { bytes } => {
                self.open_bytes = bytes;
                self.hurry &= bytes > 0;
            }
            Input::Hurry => self.hurry = self.open_bytes > 0,
            Input::Stored { n, attempt } => self.stored(now, n, attempt, &mut outputs),
            Input::NotStored { n, attempt } => self.not_stored(now, n, attempt),
            Input::Committed { n } => {
                self.places.remove(&n);
            }
        }
        self.propose(&mut outputs);
        self.give_up(now, &mut outputs);
        self.put_again(now, &mut outputs);
        self.seal(now, &mut outputs);
        outputs
    }

    /// When `step` wants to be called (with `Open`), if nothing else happens before.
    pub fn wake_at(&self) -> Option<Duration> {
        let mut wake_at = (self.open_bytes > 0 && self.has_slot()).then(|| self.seal_at());
        for place in self.places.values() {
            let Place::Putting(putting) = place else { continue };
            let times = match &putting.running[..] {
                [] => [Some(putting.retry_at), None],
                [one] => [one.until, one.hedge_at],
                [one, other, ..] => [one.until, other.until],
            };
            wake_at = times.into_iter().chain([wake_at]).flatten().min();
        }
        wake_at
    }

    fn stored(&mut self, now: Duration, n: SegmentNumber, attempt: u32, outputs: &mut Vec<Output>) {
        let Some(place) = self.places.get_mut(&n) else { return };
        let Place::Putting(putting) = place else { return };
        // One that was given up no longer counts, stored or not: by now there may be attempts beyond the next.
        if !putting.running.iter().any(|running| running.number == attempt) {
            return;
        }
        let running = std::mem::take(&mut putting.running);
        *place = Place::Stored { attempt };
        for other in running {
            // How long the slower one would have taken nobody knows; without what it took by now, hedges
            // would make the store look quicker than it is, and more hedges would follow.
            self.put_took(now.saturating_sub(other.since));
            if other.number != attempt {
                outputs.push(Output::Abandon { n, attempt: other.number, is_late: false });
            }
        }
    }

    fn not_stored(&mut self, now: Duration, n: SegmentNumber, attempt: u32) {
        let rules = self.rules;
        if let Some(Place::Putting(putting)) = self.places.get_mut(&n) {
            putting.ended(now, n, attempt, &rules);
        }
    }

    fn give_up(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        let rules = self.rules;
        let mut took = Vec::new();
        for (&n, place) in &mut self.places {
            let Place::Putting(putting) = place else { continue };
            let late: Vec<Attempt> = putting
                .running
                .iter()
                .filter(|attempt| attempt.until.is_some_and(|until| until <= now))
                .copied()
                .collect();
            for attempt in late {
                putting.late += 1;
                putting.ended(now, n, attempt.number, &rules);
                took.push(now.saturating_sub(attempt.since));
                outputs.push(Output::Abandon { n, attempt: attempt.number, is_late: true });
            }
        }
        for time in took {
            self.put_took(time);
        }
    }

    fn put_took(&mut self, time: Duration) {
        if self.put_times.len() == PUT_TIMES_MAX {
            self.put_times.pop_front();
        }
        self.put_times.push_back(time);
    }

    /// How long an attempt is waited for before it gets a hedge: what 95 % of the latest PUTs took.
    fn hedge_after(&self, attempts: &AttemptRules) -> Duration {
        if self.put_times.len() < PUT_TIMES_MIN {
            return attempts.hedge_unknown;
        }
        let mut times: Vec<Duration> = self.put_times.iter().copied().collect();
        times.sort_unstable();
        times[times.len() * 95 / 100].max(attempts.hedge_min)
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
        let (attempts, hedge_after) = self.attempt_times();
        for (&n, place) in &mut self.places {
            let Place::Putting(putting) = place else { continue };
            let is_wanted = match &mut putting.running[..] {
                [] => putting.retry_at <= now,
                [one] if one.hedge_at.is_some_and(|at| at <= now) => {
                    // One hedge for each attempt, also if it fails: another would be two after the attempt.
                    one.hedge_at = None;
                    true
                }
                _ => false,
            };
            if is_wanted {
                // A failed attempt's key is not used again: its bytes may be there, torn or unsynced.
                let attempt = putting.begin(now, attempts, hedge_after);
                outputs.push(Output::Put { n, attempt });
            }
        }
    }

    fn attempt_times(&self) -> (Option<AttemptRules>, Duration) {
        let hedge_after = self.rules.attempts.map_or(Duration::MAX, |attempts| self.hedge_after(&attempts));
        (self.rules.attempts, hedge_after)
    }

    fn seal(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        if self.open_bytes == 0 || !self.has_slot() || now < self.seal_at() {
            return;
        }
        self.sealed += 1;
        let mut putting = Putting { running: Vec::new(), begun: 0, late: 0, retry_at: now };
        let (attempts, hedge_after) = self.attempt_times();
        let attempt = putting.begin(now, attempts, hedge_after);
        self.places.insert(self.sealed, Place::Putting(putting));
        self.last_seal = Some(now);
        self.open_bytes = 0;
        self.hurry = false;
        outputs.push(Output::Seal(self.sealed));
        outputs.push(Output::Put { n: self.sealed, attempt });
    }

    /// A segment that waits to be tried again keeps its slot, so that a store that fails is not flooded.
    fn has_slot(&self) -> bool {
        let is_full = self.open_bytes >= self.rules.segment_bytes_max;
        let putting = self.places.values().filter(|place| matches!(place, Place::Putting(_))).count();
        putting < self.rules.slots && (is_full || self.places.len() < self.rules.slots)
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

impl Putting {
    fn begin(&mut self, now: Duration, attempts: Option<AttemptRules>, hedge_after: Duration) -> u32 {
        let number = self.begun;
        self.begun += 1;
        let until = attempts.map(|attempts| {
            let doubled = attempts.timeout_min.saturating_mul(1 << self.late.min(16));
            now + doubled.min(attempts.timeout_max)
        });
        // After the time-out a hedge would be one of an attempt that is gone.
        let hedge_at = now.checked_add(hedge_after).filter(|at| until.is_some_and(|until| *at < until));
        self.running.push(Attempt { number, since: now, until, hedge_at });
        number
    }

    /// An attempt has failed or was given up; when it was the last, the next begins after a while.
    fn ended(&mut self, now: Duration, n: SegmentNumber, attempt: u32, rules: &FlushRules) {
        let before = self.running.len();
        self.running.retain(|running| running.number != attempt);
        if self.running.len() < before && self.running.is_empty() {
            let doubled = rules.retry_delay_min.saturating_mul(1 << attempt.min(16)).min(rules.retry_delay_max);
            self.retry_at = now + jittered(doubled, n, attempt);
        }
    }
}

/// Between half of a wait and all of it: writers that failed together do not come again together. No random numbers
/// here; segment and attempt spread as well (the finalizer of SplitMix64).
fn jittered(wait: Duration, n: SegmentNumber, attempt: u32) -> Duration {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(attempt));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let half = wait / 2;
    half + half.mul_f64((z >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: FlushRules = FlushRules {
        slots: 2,
        interval_min: Duration::from_millis(10),
        segment_bytes_max: 1000,
        retry_delay_min: Duration::from_millis(100),
        retry_delay_max: Duration::from_secs(2),
        attempts: None,
    };

    const REMOTE: FlushRules = FlushRules {
        attempts: Some(AttemptRules {
            timeout_min: Duration::from_secs(2),
            timeout_max: Duration::from_secs(30),
            hedge_min: Duration::from_millis(20),
            hedge_unknown: Duration::from_millis(500),
        }),
        ..RULES
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
    fn a_small_segment_waits_for_a_commit_and_a_full_one_for_a_put_only() {
        let mut flush = Flush::new(FlushRules { slots: 1, ..RULES });
        flush.step(ms(0), Input::Open { bytes: 1 });
        flush.step(ms(1), Input::Open { bytes: 5 });
        assert_eq!(flush.step(ms(20), Input::Stored { n: 1, attempt: 0 }), [Output::Propose { n: 1, attempt: 0 }]);
        assert_eq!((flush.step(ms(500), Input::Open { bytes: 999 }), flush.wake_at()), (vec![], None));
        assert_eq!(flush.step(ms(501), Input::Open { bytes: 1000 }), [Output::Seal(2), put(2, 0)]);
        assert_eq!(flush.step(ms(502), Input::Open { bytes: 1000 }), [], "2 is being PUT");
        assert_eq!(flush.step(ms(503), Input::Stored { n: 2, attempt: 0 }), [Output::Seal(3), put(3, 0)]);
        flush.step(ms(504), Input::Open { bytes: 7 });
        assert_eq!(flush.step(ms(505), Input::Committed { n: 1 }), [Output::Propose { n: 2, attempt: 0 }]);
    }

    #[test]
    fn a_failed_put_is_tried_again_under_another_key() {
        let mut flush = Flush::new(RULES);
        flush.step(ms(0), Input::Open { bytes: 1 });
        assert_eq!(flush.step(ms(5), Input::NotStored { n: 1, attempt: 0 }), []);
        let again = flush.wake_at().unwrap();
        assert!((ms(55)..=ms(105)).contains(&again), "{again:?}");
        assert_eq!(flush.step(again, Input::Open { bytes: 0 }), [put(1, 1)]);
        flush.step(ms(110), Input::NotStored { n: 1, attempt: 1 });
        let again = flush.wake_at().unwrap();
        assert!((ms(210)..=ms(310)).contains(&again), "{again:?}");
        assert_eq!(flush.step(again, Input::Open { bytes: 0 }), [put(1, 2)]);
        assert_eq!(flush.step(ms(320), Input::Stored { n: 1, attempt: 2 }), [Output::Propose { n: 1, attempt: 2 }]);
    }

    #[test]
    fn a_slow_put_gets_one_hedge_and_the_quicker_of_the_two_counts() {
        let mut flush = Flush::new(REMOTE);
        flush.step(ms(0), Input::Open { bytes: 1 });
        assert_eq!(flush.wake_at(), Some(ms(500)));
        assert_eq!(flush.step(ms(500), Input::Open { bytes: 0 }), [put(1, 1)]);
        assert_eq!(flush.step(ms(1900), Input::Open { bytes: 0 }), [], "one hedge");
        assert_eq!(
            flush.step(ms(1950), Input::Stored { n: 1, attempt: 1 }),
            [Output::Abandon { n: 1, attempt: 0, is_late: false }, Output::Propose { n: 1, attempt: 1 }]
        );
        assert_eq!(flush.step(ms(1960), Input::Stored { n: 1, attempt: 0 }), [], "too late to matter");
    }

    #[test]
    fn a_bucket_that_moves_across_a_network_gets_its_attempts_from_the_next_one_on() {
        let mut flush = Flush::new(RULES);
        flush.step(ms(0), Input::Open { bytes: 1 });
        flush.set_way(REMOTE.slots, REMOTE.attempts);
        assert_eq!(flush.step(ms(60_000), Input::Open { bytes: 1 }), [Output::Seal(2), put(2, 0)], "1 takes its time");
        assert_eq!(flush.step(ms(60_500), Input::Open { bytes: 0 }), [put(2, 1)], "2 gets a hedge");
        assert_eq!(flush.step(ms(60_600), Input::NotStored { n: 1, attempt: 0 }), []);
        let again = flush.wake_at().unwrap();
        assert!(flush.step(again, Input::Open { bytes: 0 }).contains(&put(1, 1)));
        assert!(
            flush.step(again + ms(500), Input::Open { bytes: 0 }).contains(&put(1, 2)),
            "and so does what follows 1"
        );
    }

    #[test]
    fn a_failed_hedge_is_not_followed_by_another_of_the_same_attempt() {
        let mut flush = Flush::new(REMOTE);
        flush.step(ms(0), Input::Open { bytes: 1 });
        flush.step(ms(500), Input::Open { bytes: 0 });
        assert_eq!(flush.step(ms(600), Input::NotStored { n: 1, attempt: 1 }), []);
        assert_eq!(flush.wake_at(), Some(ms(2000)), "only the time-out");
        assert_eq!(flush.step(ms(1999), Input::Stored { n: 1, attempt: 0 }), [Output::Propose { n: 1, attempt: 0 }]);
    }

    #[test]
    fn late_attempts_are_given_up_and_the_next_get_more_time() {
        let mut flush = Flush::new(REMOTE);
        flush.step(ms(0), Input::Open { bytes: 1 });
        let (mut now, mut lasted) = (ms(0), Vec::new());
        let mut begun = BTreeMap::from([(0, ms(0))]);
        while lasted.len() < 12 {
            now = flush.wake_at().unwrap();
            for output in flush.step(now, Input::Open { bytes: 0 }) {
                match output {
                    Output::Put { attempt, .. } => {
                        begun.insert(attempt, now);
                    }
                    Output::Abandon { attempt, is_late: true, .. } => lasted.push(now - begun[&attempt]),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!((lasted[0], lasted.last().copied()), (ms(2000), Some(Duration::from_secs(30))));
        assert!(lasted.is_sorted(), "{lasted:?}");
        let last = *begun.keys().last().unwrap();
        let outputs = flush.step(now, Input::Stored { n: 1, attempt: last });
        assert!(outputs.is_empty() || outputs.contains(&Output::Propose { n: 1, attempt: last }));
    }

    #[test]
    fn the_time_of_a_hedge_follows_the_store() {
        let mut flush = Flush::new(FlushRules { interval_min: Duration::ZERO, ..REMOTE });
        let mut now = ms(0);
        for n in 1..=100 {
            flush.step(now, Input::Open { bytes: 1 });
            now += ms(if n % 10 == 0 { 300 } else { 30 });
            flush.step(now, Input::Stored { n, attempt: 0 });
            flush.step(now, Input::Committed { n });
        }
        flush.step(now, Input::Open { bytes: 1 });
        assert_eq!(flush.wake_at(), Some(now + ms(300)), "a tenth of the PUTs takes so long");
    }

    #[test]
    fn hurry_does_not_wait_for_the_interval() {
        let mut flush = Flush::new(RULES);
        flush.step(ms(0), Input::Open { bytes: 1 });
        flush.step(ms(1), Input::Open { bytes: 1 });
        assert_eq!(flush.step(ms(2), Input::Hurry), [Output::Seal(2), put(2, 0)]);
    }

    proptest! {
        /// Whatever fails, hangs and in whatever order answers come: numbers are sealed and proposed in order, no key is
        /// PUT twice, no more segments are under way than slots, at most one hedge runs for each, nothing is proposed
        /// before it is stored, and the attempts begun end with the one after the stored one.
        #[test]
        fn order_slots_keys_and_attempts_hold(
            is_remote in any::<bool>(),
            choices in prop::collection::vec((0u8..7, 0usize..8, 0u64..40), 1..300),
        ) {
            let mut flush = Flush::new(if is_remote { REMOTE } else { RULES });
            let (mut now, mut sealed, mut proposed, mut committed): (u64, u64, u64, u64) = (0, 0, 0, 0);
            let mut open = 0;
            let mut in_flight: Vec<(SegmentNumber, u32)> = Vec::new();
            // Given up, which does not mean that they are not stored, or that no answer of theirs is on its way.
            let mut abandoned: Vec<(SegmentNumber, u32)> = Vec::new();
            let mut stored = std::collections::BTreeSet::new();
            let mut keys = std::collections::BTreeSet::new();
            for (choice, pick, wait) in choices {
                now += if choice == 6 { wait * 100 } else { wait };
                let input = match choice {
                    0 => Input::Open { bytes: 1 + pick * 300 },
                    1 if !in_flight.is_empty() => {
                        let (n, attempt) = in_flight.remove(pick % in_flight.len());
                        stored.insert((n, attempt));
                        Input::Stored { n, attempt }
                    }
                    2 if !in_flight.is_empty() => {
                        let (n, attempt) = in_flight.remove(pick % in_flight.len());
                        Input::NotStored { n, attempt }
                    }
                    3 if committed < proposed => {
                        committed += 1;
                        Input::Committed { n: committed }
                    }
                    4 => Input::Hurry,
                    5 if !abandoned.is_empty() => {
                        let (n, attempt) = abandoned.remove(pick % abandoned.len());
                        stored.insert((n, attempt));
                        if pick < 4 { Input::Stored { n, attempt } } else { Input::NotStored { n, attempt } }
                    }
                    _ => Input::Open { bytes: 0 },
                };
                if let Input::Open { bytes } = input {
                    open = bytes;
                }
                for output in flush.step(ms(now), input) {
                    match output {
                        Output::Seal(n) => {
                            prop_assert!(open >= RULES.segment_bytes_max || sealed - committed < RULES.slots as u64);
                            open = 0;
                            sealed += 1;
                            prop_assert_eq!(n, sealed);
                        }
                        Output::Put { n, attempt } => {
                            prop_assert!(n <= sealed && keys.insert((n, attempt)));
                            in_flight.push((n, attempt));
                        }
                        Output::Abandon { n, attempt, .. } => {
                            prop_assert!(is_remote);
                            let at = in_flight.iter().position(|other| *other == (n, attempt));
                            prop_assert!(at.is_some(), "only what is under way is given up");
                            in_flight.remove(at.unwrap());
                            abandoned.push((n, attempt));
                        }
                        Output::Propose { n, attempt } => {
                            proposed += 1;
                            prop_assert!(n == proposed && n == committed + 1 && stored.contains(&(n, attempt)));
                            let begun = keys.range((n, 0)..=(n, u32::MAX)).last().unwrap().1;
                            prop_assert!(begun <= attempt + 1, "attempt {} was begun of {}", begun, attempt);
                        }
                    }
                }
                let mut by_segment = BTreeMap::<SegmentNumber, Vec<u32>>::new();
                for (n, attempt) in &in_flight {
                    by_segment.entry(*n).or_default().push(*attempt);
                }
                prop_assert!(by_segment.len() <= RULES.slots);
                let most = if is_remote { 2 } else { 1 };
                prop_assert!(by_segment.values().all(|attempts| attempts.len() <= most), "{:?}", by_segment);
            }
        }
    }
}
