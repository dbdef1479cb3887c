//! What an evaluation may use: bytes and time, by the caller's [`Budget`]; samples, by an option.
//!
//! What is held is counted in a [`Charge`], which gives it back when it is dropped, so that no path forgets.

use std::cell::Cell;

use super::error::EvalError;

/// Bytes and time that an evaluation may use; usually shared with other queries.
pub trait Budget: Send + Sync {
    /// Takes memory before it is allocated.
    fn take(&self, bytes: u64) -> Result<(), OverBudget>;

    /// Gives memory back.
    fn release(&self, bytes: u64);

    /// Asked often: whether to stop, and why. Must be cheap.
    fn interruption(&self) -> Option<Interruption>;
}

/// A refusal of memory. The text says which limit it is, its value, and how to raise it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OverBudget(pub String);

/// Why an evaluation has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// The query's time is up.
    TimedOut,
    /// Whoever asked went away, or the server stops.
    Canceled,
}

/// A budget without bounds, for tests and tools.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

impl Budget for Unlimited {
    fn take(&self, _bytes: u64) -> Result<(), OverBudget> {
        Ok(())
    }

    fn release(&self, _bytes: u64) {}

    fn interruption(&self) -> Option<Interruption> {
        None
    }
}

/// Cells that are worked on between two looks at the clock: about a tenth of a millisecond.
const CELLS_PER_CHECK: usize = 1 << 16;

/// One evaluation's account with its budget.
pub(crate) struct Account<'b> {
    budget: &'b dyn Budget,
    samples_max: u64,
    samples: Cell<u64>,
    cells: Cell<usize>,
}

impl<'b> Account<'b> {
    pub fn new(budget: &'b dyn Budget, samples_max: u64) -> Account<'b> {
        Account { budget, samples_max, samples: Cell::new(0), cells: Cell::new(0) }
    }

    /// A charge of nothing, to be raised.
    pub fn charge<'a>(&'a self) -> Charge<'a> {
        Charge { account: self, samples: 0, bytes: 0 }
    }

    /// Tells that `cells` more numbers were or will be worked on; errors if it is time to stop.
    #[inline]
    pub fn work(&self, cells: usize) -> Result<(), EvalError> {
        let worked = self.cells.get().saturating_add(cells);
        if worked < CELLS_PER_CHECK {
            self.cells.set(worked);
            return Ok(());
        }
        self.cells.set(0);
        self.check()
    }

    /// Errors if it is time to stop.
    pub fn check(&self) -> Result<(), EvalError> {
        self.budget.interruption().map_or(Ok(()), |why| Err(why.into()))
    }

    /// Errors if a column of so many cells could never be held.
    pub fn check_column(&self, cells: usize) -> Result<(), EvalError> {
        if cells as u64 > self.samples_max { Err(EvalError::TooManySamples) } else { Ok(()) }
    }
}

/// Samples and bytes that are held; given back on drop.
pub(crate) struct Charge<'a> {
    account: &'a Account<'a>,
    samples: u64,
    bytes: u64,
}

impl Charge<'_> {
    /// Counts so many more samples and bytes as held, or errors.
    pub fn raise(&mut self, samples: usize, bytes: usize) -> Result<(), EvalError> {
        self.account.budget.take(bytes as u64)?;
        self.bytes += bytes as u64;
        let held = self.account.samples.get().saturating_add(samples as u64);
        if held > self.account.samples_max {
            return Err(EvalError::TooManySamples);
        }
        self.account.samples.set(held);
        self.samples += samples as u64;
        Ok(())
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.account.samples.set(self.account.samples.get() - self.samples);
        self.account.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let account = Account::new(&Unlimited, 10);
        let mut charge = account.charge();
        charge.raise(8, 64).unwrap();
        assert!(matches!(account.charge().raise(3, 0), Err(EvalError::TooManySamples)));
        drop(charge);
        account.charge().raise(10, 0).unwrap();
    }
}
