//! Samples: a timestamp, and a float or a native histogram.

use std::sync::Arc;

use crate::histogram::Histogram;

/// Milliseconds since the Unix epoch. Stored samples are at or after 0; query arithmetic may go below.
pub type TimestampMs = i64;

/// The bits of the NaN that says "this series ended here" (Prometheus, `model/value`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The stale marker as a float.
pub fn stale_marker() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `v` is the stale marker: by its bits, no other NaN is.
#[inline]
pub fn is_stale(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// What a series had at one time.
#[derive(Debug, Clone)]
pub enum Value {
    /// A float, all 64 bits of which matter.
    Float(f64),
    /// A native histogram. A stale marker of a histogram series has the stale NaN as its sum.
    Histogram(Arc<Histogram>),
}

/// One sample.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When.
    pub t: TimestampMs,
    /// What.
    pub v: Value,
}

impl Sample {
    /// A float sample.
    pub fn float(t: TimestampMs, v: f64) -> Sample {
        Sample { t, v: Value::Float(v) }
    }
}

/// Bits are compared, not numbers: two NaNs are equal if they are the same NaN, and −0 is not +0.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Value::Histogram(a), Value::Histogram(b)) => a.encode() == b.encode(),
            _ => false,
        }
    }
}

impl PartialEq for Sample {
    fn eq(&self, other: &Sample) -> bool {
        self.t == other.t && self.v == other.v
    }
}

/// From `start` to `end`, both included, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first millisecond.
    pub start: TimestampMs,
    /// The last millisecond.
    pub end: TimestampMs,
}

impl TimeRange {
    /// Every time there is.
    pub const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

    /// Whether `t` lies within.
    #[inline]
    pub fn contains(&self, t: TimestampMs) -> bool {
        self.start <= t && t <= self.end
    }

    /// Whether the two have a millisecond in common.
    pub fn overlaps(&self, other: &TimeRange) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}
