//! A series' samples in columns: what heads and blocks hand to queries, and what a cut packs.

use std::sync::Arc;

use crate::histogram::Histogram;
use crate::merge::greater;
use crate::sample::{Sample, TimeRange, TimestampMs, Value};

/// Samples of one series. Columns of one length; `histograms` stays empty until the first histogram comes.
///
/// Whoever hands it out promises ascending, unique timestamps; [`Samples::sort_and_merge`] makes it so.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// Milliseconds.
    pub timestamps: Vec<TimestampMs>,
    /// Floats; 0 where the sample is a histogram.
    pub floats: Vec<f64>,
    /// Histograms, `None` where the sample is a float; empty if all are floats.
    pub histograms: Vec<Option<Arc<Histogram>>>,
}

impl Samples {
    /// How many samples.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Whether all are floats.
    pub fn is_float(&self) -> bool {
        self.histograms.is_empty()
    }

    /// Bytes of memory that the columns take, histograms' buckets not counted.
    pub fn memory_bytes(&self) -> usize {
        self.timestamps.capacity() * 8 + self.floats.capacity() * 8 + self.histograms.capacity() * 8
    }

    /// Appends a float.
    #[inline]
    pub fn push_float(&mut self, t: TimestampMs, v: f64) {
        self.timestamps.push(t);
        self.floats.push(v);
        if !self.histograms.is_empty() {
            self.histograms.push(None);
        }
    }

    /// Appends a sample of either kind.
    pub fn push(&mut self, t: TimestampMs, v: Value) {
        match v {
            Value::Float(v) => self.push_float(t, v),
            Value::Histogram(h) => {
                self.histograms.resize(self.timestamps.len(), None);
                self.timestamps.push(t);
                self.floats.push(0.0);
                self.histograms.push(Some(h));
            }
        }
    }

    /// The value at `i`; panics if there is none.
    pub fn value(&self, i: usize) -> Value {
        match self.histograms.get(i) {
            Some(Some(h)) => Value::Histogram(h.clone()),
            _ => Value::Float(self.floats[i]),
        }
    }

    /// Every sample in turn.
    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        (0..self.len()).map(|i| Sample { t: self.timestamps[i], v: self.value(i) })
    }

    /// Keeps the first `n` samples.
    pub fn truncate(&mut self, n: usize) {
        self.timestamps.truncate(n);
        self.floats.truncate(n);
        self.histograms.truncate(n);
    }

    /// Keeps the samples within `range`; needs them ascending.
    pub fn clip(&mut self, range: TimeRange) {
        self.truncate(self.timestamps.partition_point(|&t| t <= range.end));
        let before = self.timestamps.partition_point(|&t| t < range.start);
        self.timestamps.drain(..before);
        self.floats.drain(..before);
        if !self.histograms.is_empty() {
            self.histograms.drain(..before);
        }
    }

    /// Whether timestamps ascend without repeats.
    pub fn is_sorted(&self) -> bool {
        self.timestamps.windows(2).all(|pair| pair[0] < pair[1])
    }

    /// Sorts by time and merges samples at one timestamp by the rule of [`greater`]; a walk if it is sorted already.
    pub fn sort_and_merge(&mut self) {
        if self.is_sorted() {
            return;
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&i| self.timestamps[i]);
        let mut merged = Samples::default();
        let mut pending: Option<(TimestampMs, Value)> = None;
        for i in order {
            let (t, v) = (self.timestamps[i], self.value(i));
            pending = match pending.take() {
                Some((last, kept)) if last == t => Some((t, greater(kept, v))),
                Some((last, kept)) => {
                    merged.push(last, kept);
                    Some((t, v))
                }
                None => Some((t, v)),
            };
        }
        if let Some((t, v)) = pending {
            merged.push(t, v);
        }
        *self = merged;
    }

    /// Takes in the samples of another list, both ascending; the result is.
    pub fn merge(&mut self, other: Samples) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let in_order =
            other.timestamps.first().is_none_or(|first| self.timestamps.last().is_some_and(|last| last < first));
        if self.is_float() && other.is_float() {
            self.timestamps.extend_from_slice(&other.timestamps);
            self.floats.extend_from_slice(&other.floats);
        } else {
            other.iter().for_each(|sample| self.push(sample.t, sample.v));
        }
        if !in_order {
            self.sort_and_merge();
        }
    }
}

impl FromIterator<Sample> for Samples {
    fn from_iter<I: IntoIterator<Item = Sample>>(samples: I) -> Samples {
        let mut all = Samples::default();
        samples.into_iter().for_each(|sample| all.push(sample.t, sample.v));
        all
    }
}

/// As [`Value`]: by bits.
impl PartialEq for Samples {
    fn eq(&self, other: &Samples) -> bool {
        self.timestamps == other.timestamps && (0..self.len()).all(|i| self.value(i) == other.value(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(pairs: &[(i64, f64)]) -> Samples {
        pairs.iter().map(|&(t, v)| Sample::float(t, v)).collect()
    }

    #[test]
    fn merging_keeps_the_greater_and_sorts() {
        let mut a = floats(&[(1, 1.0), (3, 3.0)]);
        a.merge(floats(&[(2, 2.0), (3, 4.0), (5, 5.0)]));
        assert_eq!(a, floats(&[(1, 1.0), (2, 2.0), (3, 4.0), (5, 5.0)]));
        a.clip(TimeRange { start: 2, end: 3 });
        assert_eq!(a, floats(&[(2, 2.0), (3, 4.0)]));
    }

    #[test]
    fn a_histogram_beats_a_float_and_keeps_its_place() {
        let h = Value::Histogram(Arc::new(Histogram::default()));
        let mut a = floats(&[(1, 1.0), (2, 2.0)]);
        a.merge([Sample { t: 2, v: h.clone() }, Sample::float(3, 3.0)].into_iter().collect());
        assert_eq!(a.len(), 3);
        assert_eq!((a.value(0), a.value(1), a.value(2)), (Value::Float(1.0), h, Value::Float(3.0)));
    }
}
