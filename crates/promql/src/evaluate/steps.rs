//! The times at which an expression is evaluated: start, start + interval, … up to the end.

use model::TimestampMs;

/// A grid of times; an instant query has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Steps {
    /// The first time.
    pub start: TimestampMs,
    /// No time is later; it need not lie on the grid. Before `start`: there are no times.
    pub end: TimestampMs,
    /// Milliseconds between two times, at least 1.
    pub interval: i64,
}

impl Steps {
    /// One time only.
    pub fn once(t: TimestampMs) -> Steps {
        Steps { start: t, end: t, interval: 1 }
    }

    /// How many times there are.
    pub fn count(&self) -> usize {
        if self.end < self.start {
            return 0;
        }
        let intervals = (i128::from(self.end) - i128::from(self.start)) / i128::from(self.interval);
        usize::try_from(intervals + 1).unwrap_or(usize::MAX)
    }

    /// The time of step `i`.
    #[inline]
    pub fn at(&self, i: usize) -> TimestampMs {
        self.start.saturating_add((i as i64).saturating_mul(self.interval))
    }

    /// The last time that there is, or `start` if there is none.
    pub fn last(&self) -> TimestampMs {
        self.at(self.count().saturating_sub(1))
    }

    /// Every time in turn.
    pub fn iter(self) -> impl Iterator<Item = TimestampMs> {
        (0..self.count()).map(move |i| self.at(i))
    }

    /// Whether start and end are one: then a vector keeps the order that a function gave it, as in Prometheus.
    pub fn is_instant(&self) -> bool {
        self.start == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_whole_intervals() {
        let check = |start, end, interval, expected: &[i64]| {
            let steps = Steps { start, end, interval };
            assert_eq!((steps.count(), steps.iter().collect::<Vec<_>>()), (expected.len(), expected.to_vec()));
        };
        check(0, 25, 10, &[0, 10, 20]);
        check(0, 20, 10, &[0, 10, 20]);
        check(5, 5, 1, &[5]);
        check(5, 4, 1, &[]);
    }
}
