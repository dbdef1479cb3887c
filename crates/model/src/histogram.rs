//! Native histograms, as Prometheus has them: exponential buckets (schemas −4 to 8) or custom bounds (−53).
//!
//! Integer and float histograms share the layout; [`Counts`] tells them apart. Integer buckets are kept
//! as remote-write sends them, as deltas from bucket to bucket; float buckets are absolute.
//! The canonical encoding is what segments and blocks store, and breaks ties when samples merge.

use crate::encoding::{DecodeError, Reader, put_varint, put_zigzag};

/// The schema of histograms with custom bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// Whether a histogram's counters were reset before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CounterResetHint {
    /// Not said.
    #[default]
    Unknown,
    /// They were.
    Reset,
    /// They were not.
    NotReset,
    /// A gauge: there are no counters.
    Gauge,
}

/// A run of consecutive buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Gap to the end of the previous span; the first span's is the index of its first bucket and may be negative.
    pub offset: i32,
    /// Buckets in the run.
    pub length: u32,
}

/// The observations: in all, in the zero bucket, and in each bucket that the spans name.
#[derive(Debug, Clone, PartialEq)]
pub enum Counts {
    /// Of an integer histogram. Buckets are deltas to the bucket before, the first to 0.
    Integer {
        /// Observations in all.
        count: u64,
        /// Observations in the zero bucket.
        zero: u64,
        /// Positive buckets, deltas.
        positive: Vec<i64>,
        /// Negative buckets, deltas.
        negative: Vec<i64>,
    },
    /// Of a float histogram. Buckets are absolute.
    Float {
        /// Observations in all.
        count: f64,
        /// Observations in the zero bucket.
        zero: f64,
        /// Positive buckets, absolute.
        positive: Vec<f64>,
        /// Negative buckets, absolute.
        negative: Vec<f64>,
    },
}

/// A native histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Whether counters were reset before it.
    pub counter_reset_hint: CounterResetHint,
    /// Resolution: a power of two has 2^schema buckets; −53 means custom bounds.
    pub schema: i32,
    /// Half the width of the zero bucket.
    pub zero_threshold: f64,
    /// Sum of the observations; the stale NaN marks the end of the series.
    pub sum: f64,
    /// Where the positive buckets lie.
    pub positive_spans: Vec<Span>,
    /// Where the negative buckets lie.
    pub negative_spans: Vec<Span>,
    /// Upper bounds of custom buckets, ascending, without the last (+Inf); empty for other schemas.
    pub custom_bounds: Vec<f64>,
    /// The observations.
    pub counts: Counts,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counter_reset_hint: CounterResetHint::Unknown,
            schema: 0,
            zero_threshold: 0.0,
            sum: 0.0,
            positive_spans: Vec::new(),
            negative_spans: Vec::new(),
            custom_bounds: Vec::new(),
            counts: Counts::Integer { count: 0, zero: 0, positive: Vec::new(), negative: Vec::new() },
        }
    }
}

/// What is wrong with a histogram (Prometheus, `model/histogram`, `Validate`).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HistogramError {
    /// Neither −53 nor −4 to 8.
    #[error("histogram has unknown schema {0}")]
    Schema(i32),
    /// Spans and buckets do not count the same.
    #[error("histogram's spans need {needed} buckets, it has {have}")]
    SpanCount {
        /// Buckets that the spans name.
        needed: u64,
        /// Buckets there are.
        have: usize,
    },
    /// Only a first span may reach below.
    #[error("histogram span {0} has a negative offset")]
    SpanOffset(usize),
    /// A bucket, or the zero bucket or count, below 0.
    #[error("histogram has a negative count of observations")]
    NegativeCount,
    /// The buckets add up to more than the count, or to less without NaN observations.
    #[error("histogram's buckets hold {buckets} observations, its count says {count}")]
    CountMismatch {
        /// Sum over buckets.
        buckets: f64,
        /// The count.
        count: f64,
    },
    /// Custom bounds must ascend and be finite.
    #[error("histogram's custom bounds are not ascending and finite")]
    CustomBounds,
    /// Something a schema −53 histogram can't have (negative or zero buckets), or only it can (bounds).
    #[error("histogram with schema {0} can't have {1}")]
    Unfit(i32, &'static str),
}

impl Histogram {
    /// Whether it is a float histogram.
    pub fn is_float(&self) -> bool {
        matches!(self.counts, Counts::Float { .. })
    }

    /// Observations in all; above 2^53 an integer count is rounded.
    pub fn count(&self) -> f64 {
        match self.counts {
            Counts::Integer { count, .. } => count as f64,
            Counts::Float { count, .. } => count,
        }
    }

    /// Checks what a receiver must: spans, counts, bounds. Costs one walk.
    pub fn validate(&self) -> Result<(), HistogramError> {
        let custom = self.schema == CUSTOM_BUCKETS_SCHEMA;
        if !custom && !(-4..=8).contains(&self.schema) {
            return Err(HistogramError::Schema(self.schema));
        }
        if custom {
            self.validate_custom()?;
        } else if !self.custom_bounds.is_empty() {
            return Err(HistogramError::Unfit(self.schema, "custom bounds"));
        }
        match &self.counts {
            Counts::Integer { count, zero, positive, negative } => {
                check_spans(&self.positive_spans, positive.len())?;
                check_spans(&self.negative_spans, negative.len())?;
                let mut total = u128::from(*zero);
                for deltas in [positive, negative] {
                    let mut bucket = 0i128;
                    for &delta in deltas {
                        bucket += i128::from(delta);
                        total += u128::try_from(bucket).map_err(|_| HistogramError::NegativeCount)?;
                    }
                }
                // NaN observations are counted but lie in no bucket.
                let count_fits =
                    if self.sum.is_nan() { total <= u128::from(*count) } else { total == u128::from(*count) };
                if !count_fits {
                    return Err(HistogramError::CountMismatch { buckets: total as f64, count: *count as f64 });
                }
            }
            Counts::Float { count, zero, positive, negative } => {
                check_spans(&self.positive_spans, positive.len())?;
                check_spans(&self.negative_spans, negative.len())?;
                // Floats are not held to add up: Prometheus does not either, for rounding.
                if positive.iter().chain(negative).chain([count, zero]).any(|&v| v < 0.0) {
                    return Err(HistogramError::NegativeCount);
                }
            }
        }
        Ok(())
    }

    fn validate_custom(&self) -> Result<(), HistogramError> {
        let zero = match self.counts {
            Counts::Integer { zero, .. } => zero as f64,
            Counts::Float { zero, .. } => zero,
        };
        if zero != 0.0 || self.zero_threshold != 0.0 {
            return Err(HistogramError::Unfit(self.schema, "a zero bucket"));
        }
        if !self.negative_spans.is_empty() {
            return Err(HistogramError::Unfit(self.schema, "negative buckets"));
        }
        let ascending = self.custom_bounds.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || self.custom_bounds.iter().any(|bound| bound.is_nan() || *bound == f64::INFINITY) {
            return Err(HistogramError::CustomBounds);
        }
        let reach: i64 = self.positive_spans.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).sum();
        if reach > self.custom_bounds.len() as i64 + 1 {
            return Err(HistogramError::Unfit(self.schema, "more buckets than bounds"));
        }
        if self.positive_spans.first().is_some_and(|span| span.offset < 0) {
            return Err(HistogramError::SpanOffset(0));
        }
        Ok(())
    }

    /// The canonical encoding, which [`Histogram::decode`] reads: docs/formats/histogram.md.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(u8::from(self.is_float()) | (self.counter_reset_hint as u8) << 1);
        put_zigzag(&mut out, i64::from(self.schema));
        put_f64(&mut out, self.zero_threshold);
        put_f64(&mut out, self.sum);
        for spans in [&self.positive_spans, &self.negative_spans] {
            put_varint(&mut out, spans.len() as u64);
            for span in spans {
                put_zigzag(&mut out, i64::from(span.offset));
                put_varint(&mut out, u64::from(span.length));
            }
        }
        put_floats(&mut out, &self.custom_bounds);
        match &self.counts {
            Counts::Integer { count, zero, positive, negative } => {
                put_varint(&mut out, *count);
                put_varint(&mut out, *zero);
                for deltas in [positive, negative] {
                    put_varint(&mut out, deltas.len() as u64);
                    deltas.iter().for_each(|&delta| put_zigzag(&mut out, delta));
                }
            }
            Counts::Float { count, zero, positive, negative } => {
                put_f64(&mut out, *count);
                put_f64(&mut out, *zero);
                put_floats(&mut out, positive);
                put_floats(&mut out, negative);
            }
        }
        out
    }

    /// Reads what [`Histogram::encode`] wrote, which must be all of `bytes`. Does not validate.
    pub fn decode(bytes: &[u8]) -> Result<Histogram, DecodeError> {
        let mut r = Reader::new(bytes);
        let flags = r.u8()?;
        if flags > 7 {
            return Err(r.error("unknown histogram flags"));
        }
        let counter_reset_hint = match flags >> 1 {
            0 => CounterResetHint::Unknown,
            1 => CounterResetHint::Reset,
            2 => CounterResetHint::NotReset,
            _ => CounterResetHint::Gauge,
        };
        let schema = i32::try_from(r.zigzag()?).map_err(|_| r.error("schema out of range"))?;
        let zero_threshold = get_f64(&mut r)?;
        let sum = get_f64(&mut r)?;
        let positive_spans = get_spans(&mut r)?;
        let negative_spans = get_spans(&mut r)?;
        let custom_bounds = get_floats(&mut r)?;
        let counts = if flags & 1 == 0 {
            Counts::Integer {
                count: r.varint()?,
                zero: r.varint()?,
                positive: get_deltas(&mut r)?,
                negative: get_deltas(&mut r)?,
            }
        } else {
            Counts::Float {
                count: get_f64(&mut r)?,
                zero: get_f64(&mut r)?,
                positive: get_floats(&mut r)?,
                negative: get_floats(&mut r)?,
            }
        };
        if !r.is_empty() {
            return Err(r.error("bytes after the histogram"));
        }
        Ok(Histogram {
            counter_reset_hint,
            schema,
            zero_threshold,
            sum,
            positive_spans,
            negative_spans,
            custom_bounds,
            counts,
        })
    }
}

fn check_spans(spans: &[Span], buckets: usize) -> Result<(), HistogramError> {
    if let Some(i) = spans.iter().skip(1).position(|span| span.offset < 0) {
        return Err(HistogramError::SpanOffset(i + 1));
    }
    let needed: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if needed != buckets as u64 {
        return Err(HistogramError::SpanCount { needed, have: buckets });
    }
    Ok(())
}

fn put_f64(out: &mut Vec<u8>, v: f64) {
    out.extend_from_slice(&v.to_bits().to_le_bytes());
}

fn put_floats(out: &mut Vec<u8>, values: &[f64]) {
    put_varint(out, values.len() as u64);
    values.iter().for_each(|&v| put_f64(out, v));
}

fn get_f64(r: &mut Reader<'_>) -> Result<f64, DecodeError> {
    Ok(f64::from_bits(r.u64()?))
}

fn get_floats(r: &mut Reader<'_>) -> Result<Vec<f64>, DecodeError> {
    (0..r.count(8)?).map(|_| get_f64(r)).collect()
}

fn get_deltas(r: &mut Reader<'_>) -> Result<Vec<i64>, DecodeError> {
    (0..r.count(1)?).map(|_| r.zigzag()).collect()
}

fn get_spans(r: &mut Reader<'_>) -> Result<Vec<Span>, DecodeError> {
    let mut spans = Vec::new();
    for _ in 0..r.count(2)? {
        let offset = i32::try_from(r.zigzag()?).map_err(|_| r.error("span offset out of range"))?;
        let length = u32::try_from(r.varint()?).map_err(|_| r.error("span length out of range"))?;
        spans.push(Span { offset, length });
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::stale_marker;

    fn integer(count: u64, positive: Vec<i64>) -> Histogram {
        Histogram {
            positive_spans: vec![Span { offset: -2, length: positive.len() as u32 }],
            counts: Counts::Integer { count, zero: 1, positive, negative: vec![] },
            ..Histogram::default()
        }
    }

    #[test]
    fn encoding_returns_the_same() {
        let float = Histogram {
            counter_reset_hint: CounterResetHint::Gauge,
            schema: CUSTOM_BUCKETS_SCHEMA,
            sum: stale_marker(),
            custom_bounds: vec![0.5, 1.0],
            counts: Counts::Float { count: 2.5, zero: 0.0, positive: vec![0.5, 2.0], negative: vec![] },
            positive_spans: vec![Span { offset: 0, length: 2 }],
            ..Histogram::default()
        };
        for h in [integer(6, vec![2, 1]), float] {
            let bytes = h.encode();
            assert_eq!(Histogram::decode(&bytes).unwrap().encode(), bytes);
            for end in 0..bytes.len() {
                assert!(Histogram::decode(&bytes[..end]).is_err());
            }
        }
    }

    #[test]
    fn validation_finds_what_is_wrong() {
        assert_eq!(integer(6, vec![2, 1]).validate(), Ok(()));
        assert!(matches!(integer(5, vec![2, 1]).validate(), Err(HistogramError::CountMismatch { .. })));
        assert_eq!(integer(1, vec![1, -2]).validate(), Err(HistogramError::NegativeCount));
        let unknown = Histogram { schema: 9, ..integer(6, vec![2, 1]) };
        assert_eq!(unknown.validate(), Err(HistogramError::Schema(9)));
        let more = Histogram { positive_spans: vec![Span { offset: 0, length: 3 }], ..integer(6, vec![2, 1]) };
        assert_eq!(more.validate(), Err(HistogramError::SpanCount { needed: 3, have: 2 }));
        let nan = Histogram { sum: f64::NAN, ..integer(9, vec![2, 1]) };
        assert_eq!(nan.validate(), Ok(()));
    }
}
