//! The longest time in which something did not happen.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Measures it, from one look to the next.
#[derive(Debug)]
pub struct Gap {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    last: Instant,
    longest: Duration,
}

impl Default for Gap {
    fn default() -> Gap {
        Gap { inner: Mutex::new(Inner { last: Instant::now(), longest: Duration::ZERO }) }
    }
}

impl Gap {
    /// It happens now.
    pub fn mark(&self) {
        let mut inner = self.lock();
        let now = Instant::now();
        inner.longest = inner.longest.max(now - inner.last);
        inner.last = now;
    }

    /// Begins to measure anew.
    pub fn begin(&self) {
        *self.lock() = Inner { last: Instant::now(), longest: Duration::ZERO };
    }

    /// The longest time since [`Gap::begin`] without a [`Gap::mark`].
    pub fn longest(&self) -> Duration {
        let inner = self.lock();
        inner.longest.max(inner.last.elapsed())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}
