//! Time: what the wall says, and how long ago something was.
//!
//! Two clocks, never mixed. The wall clock stamps samples and is what people see; it jumps. The boot
//! clock (`CLOCK_BOOTTIME`) measures deadlines and ages: it never jumps and goes on while the machine
//! sleeps, so that a session has expired when a suspended machine wakes up. All waiting is by the boot
//! clock, so a test with a [`ManualClock`] decides when it ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

/// A wait that a [`Clock`] hands out.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long one sleep of the machine's timer may be before the boot clock is looked at again.
///
/// Tokio's timers stand still while the machine is suspended; the boot clock does not. After waking up,
/// a wait is late by this much at most.
const SLEEP_SLICE_MAX: Duration = Duration::from_secs(10);

/// The source of time that every component is handed, as an `Arc<dyn Clock>`.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall time in milliseconds since 1970-01-01 UTC. It may jump in both directions.
    fn now_ms(&self) -> i64;

    /// Returns the time since the machine was booted, suspended time included. It never goes back.
    fn boottime(&self) -> Duration;

    /// Waits until [`Clock::boottime`] has reached `deadline`; returns at once if it has already.
    fn sleep_until(&self, deadline: Duration) -> Sleep;

    /// Waits for `duration` by the boot clock.
    fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.boottime().saturating_add(duration))
    }
}

/// Something took longer than it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out after {0:?}")]
pub struct TimedOut(pub Duration);

/// Waits for `work`, but no longer than `limit` by `clock`; then `work` is dropped.
pub async fn timeout<T>(clock: &dyn Clock, limit: Duration, work: impl Future<Output = T>) -> Result<T, TimedOut> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = clock.sleep(limit) => Err(TimedOut(limit)),
    }
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Returns the machine's clocks, ready to hand to components.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
    }

    fn boottime(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // The kernel never reports a negative boot time.
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    fn sleep_until(&self, deadline: Duration) -> Sleep {
        Box::pin(async move {
            loop {
                let left = deadline.saturating_sub(SystemClock.boottime());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(SLEEP_SLICE_MAX)).await;
            }
        })
    }
}

/// A clock that stands still until a test moves it. Clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    time: Arc<Mutex<ManualTime>>,
    // Told of every move, so that sleepers look at the time again.
    moved: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy)]
struct ManualTime {
    now_ms: i64,
    boottime: Duration,
}

impl ManualClock {
    /// Creates a clock whose wall shows `now_ms`, on a machine booted an hour ago.
    pub fn new(now_ms: i64) -> ManualClock {
        let time = ManualTime { now_ms, boottime: Duration::from_secs(3600) };
        ManualClock { time: Arc::new(Mutex::new(time)), moved: watch::Sender::new(()) }
    }

    /// Moves both clocks forward and wakes the sleepers whose deadline has come.
    pub fn advance(&self, by: Duration) {
        {
            let mut time = self.time.lock();
            time.boottime += by;
            time.now_ms += i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        }
        self.moved.send_replace(());
    }

    /// Sets the wall clock alone, as an administrator or NTP would.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.time.lock().now_ms = now_ms;
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.time.lock().now_ms
    }

    fn boottime(&self) -> Duration {
        self.time.lock().boottime
    }

    fn sleep_until(&self, deadline: Duration) -> Sleep {
        let clock = self.clone();
        Box::pin(async move {
            let mut moved = clock.moved.subscribe();
            while clock.boottime() < deadline {
                // The sender lives in `clock`, so this cannot fail while we hold it.
                if moved.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn manual_sleepers_wake_when_their_deadline_comes() {
        let clock = ManualClock::new(1_000);
        let sleeper = tokio::spawn(clock.sleep(Duration::from_secs(10)));
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        assert_eq!(clock.now_ms(), 11_000);
    }

    #[tokio::test]
    async fn setting_the_wall_does_not_move_deadlines() {
        let clock = ManualClock::new(0);
        let before = clock.boottime();
        clock.set_now_ms(1 << 40);
        assert_eq!((clock.now_ms(), clock.boottime()), (1 << 40, before));
    }

    #[tokio::test]
    async fn system_clock_sleeps_by_the_boot_clock() {
        let deadline = SystemClock.boottime() + Duration::from_millis(5);
        SystemClock.sleep_until(deadline).await;
        assert!(SystemClock.boottime() >= deadline);
        assert!(SystemClock.now_ms() > 1_600_000_000_000);
    }

    #[tokio::test]
    async fn timeout_gives_up_at_the_limit_and_prefers_the_work() {
        let clock = ManualClock::new(0);
        assert_eq!(timeout(&clock, Duration::ZERO, async { 7 }).await, Ok(7));
        let waiting = timeout(&clock, Duration::from_secs(1), std::future::pending::<()>());
        let mover = async { clock.advance(Duration::from_secs(1)) };
        assert_eq!(tokio::join!(waiting, mover).0, Err(TimedOut(Duration::from_secs(1))));
    }
}
