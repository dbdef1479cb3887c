//! Waiting for a condition, the only way tests wait.

use std::time::{Duration, Instant};

/// How long a condition may take; a loaded machine is slow, a hang is for ever.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Between the first looks at a condition, and the most between later ones. They only bound what looking costs, which
/// may be a query; nothing depends on them.
const POLL_INTERVALS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];

/// Looks at `condition` until it gives a value; panics with `what` after [`DEADLINE`].
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, condition).unwrap_or_else(|| panic!("{what}: not within {DEADLINE:?}"))
}

/// Looks at `condition` until it gives a value, or until `deadline` has passed.
pub fn wait_within<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        let waited = start.elapsed();
        if waited >= deadline {
            return None;
        }
        let [least, most] = POLL_INTERVALS;
        std::thread::sleep((waited / 50).clamp(least, most));
    }
}
