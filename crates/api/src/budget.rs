//! A limit on the bytes of all request bodies together.
//!
//! Nobody waits here: a request that finds no room is answered 503 at once, and its sender comes again. Whoever waited
//! would hold the bytes it has already.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many bytes for everyone. Clones are the same budget.
#[derive(Debug, Clone)]
pub(crate) struct ByteBudget {
    max: usize,
    used: Arc<AtomicUsize>,
}

/// Bytes held by one request; they return when it is dropped.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    budget: ByteBudget,
    held: usize,
}

impl ByteBudget {
    pub(crate) fn new(max: usize) -> ByteBudget {
        ByteBudget { max, used: Arc::default() }
    }

    /// The limit.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// What all requests hold.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// An account that holds nothing yet.
    pub(crate) fn open(&self) -> HeldBytes {
        HeldBytes { budget: self.clone(), held: 0 }
    }
}

impl HeldBytes {
    /// Takes more bytes; `false`, and nothing taken, if there is no room.
    #[must_use]
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let fits = |used: usize| used.checked_add(more).filter(|&sum| sum <= self.budget.max);
        let taken = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if taken {
            self.held += more;
        }
        taken
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_and_return() {
        let budget = ByteBudget::new(10);
        let mut first = budget.open();
        let mut second = budget.open();
        assert!(first.grow(6) && second.grow(4) && !second.grow(1));
        assert!(!first.grow(usize::MAX));
        drop(first);
        assert!(second.grow(6));
        assert_eq!(budget.used(), 10);
    }
}
