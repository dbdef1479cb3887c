//! What to ask when, and what is known: the half of discovery that does no I/O.
//!
//! Each source has its own rhythm: asked every second while nothing is known of it, every few seconds after a
//! failure or a change, and more and more seldom while the answer stays the same. A failure, and an answer without
//! addresses is one, never takes away what was known: an address that is no longer right costs a connection
//! attempt, an empty list could cost a cluster (RELIABILITY.md, row 26).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use runtime::Random;

use super::snapshot::{Failure, Snapshot, SourceState};
use super::source::Source;

/// Between two questions while a source has told nothing yet: a node that starts waits for this.
const UNKNOWN_INTERVAL: Duration = Duration::from_secs(1);

/// After a failure or a change; rolling restarts change names several times within seconds.
const UNSTABLE_INTERVAL: Duration = Duration::from_secs(3);

/// While the answer stays the same. Nothing waits for it: a new node connects to the old ones by itself.
const STABLE_INTERVAL_MAX: Duration = Duration::from_secs(15);

/// Addresses of one source that are used; no cluster has so many nodes, and a wrong name should not cost more.
const ADDRESSES_MAX: usize = 256;

/// Both clocks, read once.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The boot clock, which decides when to ask.
    pub boottime: Duration,
    /// The wall clock, which people are shown.
    pub ms: i64,
}

/// What a source answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// What was found.
    pub addresses: BTreeSet<SocketAddr>,
    /// Why that is not all, or nothing.
    pub error: Option<String>,
}

/// What happens.
#[derive(Debug)]
pub enum Input {
    /// Time goes on.
    Tick,
    /// A question that was put earlier has its answer.
    Answered {
        /// Its place in the settings.
        source: usize,
        /// The answer.
        answer: Answer,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask this source, and bring the answer.
    Ask(usize),
    /// Tell that this source fails now, and did not before.
    Failed(usize),
    /// Tell that this source answers again.
    Recovered(usize),
    /// Tell that there are other addresses than before.
    Changed,
}

/// The state: what is known, and when to ask again.
#[derive(Debug)]
pub struct Asking {
    snapshot: Snapshot,
    rhythms: Vec<Rhythm>,
    random: Random,
}

#[derive(Debug)]
struct Rhythm {
    /// None for an address, which is not asked for, and while an answer is awaited.
    ask_at: Option<Duration>,
    interval: Duration,
}

impl Asking {
    /// Begins with what needs no question.
    pub fn new(sources: Vec<Source>, random: Random) -> Asking {
        let mut rhythms = Vec::new();
        let mut snapshot = Snapshot::default();
        for source in sources {
            let mut addresses = BTreeSet::new();
            let ask_at = match source {
                Source::Address(address) => {
                    addresses.insert(address);
                    None
                }
                _ => Some(Duration::ZERO),
            };
            rhythms.push(Rhythm { ask_at, interval: UNKNOWN_INTERVAL });
            snapshot.sources.push(SourceState { source, addresses, asked: 0, last_success_ms: None, failure: None });
        }
        snapshot.addresses = snapshot.union();
        Asking { snapshot, rhythms, random }
    }

    /// What is known.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// When, by the boot clock, the next [`Input::Tick`] has something to do; none until then an answer comes.
    pub fn next_at(&self) -> Option<Duration> {
        self.rhythms.iter().filter_map(|rhythm| rhythm.ask_at).min()
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        match input {
            Input::Tick => self.ask(now),
            Input::Answered { source, answer } => self.fold(now, source, answer),
        }
    }

    fn ask(&mut self, now: Now) -> Vec<Output> {
        let mut outputs = Vec::new();
        for (source, rhythm) in self.rhythms.iter_mut().enumerate() {
            if rhythm.ask_at.take_if(|at| *at <= now.boottime).is_some() {
                outputs.push(Output::Ask(source));
            }
        }
        outputs
    }

    fn fold(&mut self, now: Now, at: usize, answer: Answer) -> Vec<Output> {
        let mut outputs = Vec::new();
        let state = &mut self.snapshot.sources[at];
        let taken = state.take(now, answer);
        match &state.failure {
            Some(failure) if failure.asked == 1 => outputs.push(Output::Failed(at)),
            None if taken.is_recovery => outputs.push(Output::Recovered(at)),
            _ => {}
        }

        let rhythm = &mut self.rhythms[at];
        rhythm.interval = match (&state.failure, state.addresses.is_empty()) {
            (_, true) => UNKNOWN_INTERVAL,
            (Some(_), false) => UNSTABLE_INTERVAL,
            (None, false) if taken.is_other => UNSTABLE_INTERVAL,
            (None, false) => (rhythm.interval * 2).clamp(UNSTABLE_INTERVAL, STABLE_INTERVAL_MAX),
        };
        // Nodes that were started together ask at different times.
        let wait = self.random.duration_between(rhythm.interval * 3 / 4, rhythm.interval * 5 / 4);
        rhythm.ask_at = Some(now.boottime + wait);

        let addresses = self.snapshot.union();
        if addresses != self.snapshot.addresses {
            self.snapshot.addresses = addresses;
            outputs.push(Output::Changed);
        }
        outputs
    }
}

/// What an answer was to a source.
struct Taken {
    /// Other addresses than before.
    is_other: bool,
    /// The first good answer after failures.
    is_recovery: bool,
}

impl SourceState {
    fn take(&mut self, now: Now, answer: Answer) -> Taken {
        let Answer { mut addresses, mut error } = answer;
        if addresses.len() > ADDRESSES_MAX {
            let count = addresses.len();
            addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
            error.get_or_insert_with(|| format!("has {count} addresses, of which {ADDRESSES_MAX} are used"));
        }
        if addresses.is_empty() {
            error.get_or_insert_with(|| "has no addresses".to_string());
        }
        self.asked += 1;
        let before = self.failure.take();
        let is_recovery = before.is_some() && error.is_none();
        match error {
            Some(error) => {
                // What was found stands beside what was known, as a part of the answer is missing.
                let room = ADDRESSES_MAX.saturating_sub(addresses.len());
                let missing: Vec<SocketAddr> = self.addresses.difference(&addresses).take(room).copied().collect();
                addresses.extend(missing);
                let (since_ms, asked) = before.map_or((now.ms, 0), |failure| (failure.since_ms, failure.asked));
                self.failure = Some(Failure { error, since_ms, asked: asked + 1 });
            }
            None => self.last_success_ms = Some(now.ms),
        }
        let is_other = addresses != self.addresses;
        self.addresses = addresses;
        Taken { is_other, is_recovery }
    }
}

#[cfg(test)]
mod tests;
