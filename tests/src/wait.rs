//! Waiting for a condition, the only way tests wait.

use std::time::{Duration, Instant};

/// How long a condition may take; a loaded machine is slow, a hang is for ever.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at a condition. It only bounds what looking costs; nothing depends on it.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Looks at `condition` until it gives a value; panics with `what` after [`DEADLINE`].
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, condition).unwrap_or_else(|| panic!("{what}: not within {DEADLINE:?}"))
}

/// Looks at `condition` until it gives a value, or until `deadline` has passed.
pub fn wait_within<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}
