//! How long one attempt at a remote store may take, and how long it is tried again.
//!
//! A directory gets neither: a disk that hangs hangs for every attempt, and its errors do not pass by asking again.
//! PUTs of segments have their own policy (the ingester's flush): an ack waits for them.

use std::time::Duration;

use runtime::{Clock, Random};

/// An attempt that moves next to no bytes may take this long.
const ATTEMPT_MIN: Duration = Duration::from_secs(10);

/// Further time for the bytes that it moves: the slowest line that is taken for one.
const BYTES_PER_SECOND_MIN: u64 = 256 << 10;

/// First wait between two attempts, doubled each time.
const DELAY_MIN: Duration = Duration::from_millis(50);

/// Longest wait between two attempts.
const DELAY_MAX: Duration = Duration::from_secs(3);

/// How long an operation is tried again in all, unless its caller says otherwise.
pub const TOTAL: Duration = Duration::from_secs(30);

/// How long one attempt may take that moves this many bytes.
pub fn attempt_limit(bytes: u64) -> Duration {
    ATTEMPT_MIN + time_for(bytes)
}

/// The time that these bytes take on the slowest line.
pub fn time_for(bytes: u64) -> Duration {
    Duration::from_secs(bytes / BYTES_PER_SECOND_MIN)
}

/// The waits between the attempts of one operation.
pub struct Delays<'a> {
    clock: &'a dyn Clock,
    random: &'a Random,
    next: Duration,
    until: Duration,
}

impl<'a> Delays<'a> {
    /// Begins now, for an operation that may be tried again for `total`.
    pub fn new(clock: &'a dyn Clock, random: &'a Random, total: Duration) -> Delays<'a> {
        Delays { clock, random, next: DELAY_MIN, until: clock.boottime().saturating_add(total) }
    }

    /// Waits, and says whether to try again. With jitter, so that nodes that failed together do not come together.
    pub async fn pause(&mut self) -> bool {
        let delay = self.random.duration_between(self.next / 2, self.next);
        self.next = (self.next * 2).min(DELAY_MAX);
        if self.clock.boottime().saturating_add(delay) >= self.until {
            return false;
        }
        self.clock.sleep(delay).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::ManualClock;

    #[tokio::test]
    async fn pauses_grow_and_end() {
        let (clock, random) = (ManualClock::new(0), Random::from_seed(1));
        let mut delays = Delays::new(&clock, &random, Duration::from_secs(10));
        let mut pauses = 0;
        loop {
            let (again, ()) = tokio::join!(delays.pause(), async { clock.advance(DELAY_MAX) });
            if !again {
                break;
            }
            pauses += 1;
        }
        assert!((2..=4).contains(&pauses), "{pauses}");
        assert!(!Delays::new(&clock, &random, Duration::ZERO).pause().await);
        assert_eq!(attempt_limit(512 << 10), Duration::from_secs(12));
    }
}
