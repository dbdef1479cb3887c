//! Sums that do not lose small addends (Kahan's, with Neumaier's improvement), step by step as Prometheus sums.

/// A running sum and what rounding took from it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct KahanSum {
    /// The sum as rounded.
    pub sum: f64,
    /// What is to be added to it.
    pub compensation: f64,
}

impl KahanSum {
    /// A sum of one addend.
    pub fn of(first: f64) -> KahanSum {
        KahanSum { sum: first, compensation: 0.0 }
    }

    /// Adds `v`. Once the sum is infinite there is nothing to compensate.
    #[inline]
    pub fn add(&mut self, v: f64) {
        let total = self.sum + v;
        if total.is_infinite() {
            self.compensation = 0.0;
        } else if self.sum.abs() >= v.abs() {
            self.compensation += (self.sum - total) + v;
        } else {
            self.compensation += (v - total) + self.sum;
        }
        self.sum = total;
    }

    /// The sum with its compensation.
    #[inline]
    pub fn value(&self) -> f64 {
        self.sum + self.compensation
    }
}

/// A mean: the sum divided at the end, as long as the sum does not overflow; from there on a running mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct KahanMean {
    sum: KahanSum,
    mean: KahanSum,
    count: f64,
    is_incremental: bool,
}

impl KahanMean {
    /// A mean of one value.
    pub fn of(first: f64) -> KahanMean {
        KahanMean { sum: KahanSum::of(first), mean: KahanSum::default(), count: 1.0, is_incremental: false }
    }

    /// Takes in `v`.
    #[inline]
    pub fn add(&mut self, v: f64) {
        self.count += 1.0;
        if !self.is_incremental {
            let mut next = self.sum;
            next.add(v);
            if !next.sum.is_infinite() {
                self.sum = next;
                return;
            }
            self.is_incremental = true;
            let before = self.count - 1.0;
            self.mean = KahanSum { sum: self.sum.sum / before, compensation: self.sum.compensation / before };
        }
        let share = (self.count - 1.0) / self.count;
        self.mean.sum *= share;
        self.mean.compensation *= share;
        self.mean.add(v / self.count);
    }

    /// The mean of what was taken in.
    pub fn value(&self) -> f64 {
        if self.is_incremental {
            self.mean.value()
        } else {
            self.sum.sum / self.count + self.sum.compensation / self.count
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_addends_survive_large_ones() {
        let mut sum = KahanSum::default();
        [1e100, 1.0, -1e100, 1.0].into_iter().for_each(|v| sum.add(v));
        assert_eq!(sum.value(), 2.0);
    }

    #[test]
    fn a_mean_does_not_overflow() {
        let mut mean = KahanMean::of(f64::MAX);
        mean.add(f64::MAX);
        mean.add(f64::MAX);
        assert!((mean.value() / f64::MAX - 1.0).abs() < 1e-15);
        let mut mean = KahanMean::of(1.0);
        mean.add(2.0);
        assert_eq!(mean.value(), 1.5);
    }
}
