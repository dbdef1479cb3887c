//! The buckets of a native histogram with their bounds, as Prometheus's API and functions show them.

use crate::histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, Histogram, Span};

/// One bucket: how many observations lie between two bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// The lower bound.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// Whether an observation of just `lower` is counted.
    pub is_lower_inclusive: bool,
    /// Whether an observation of just `upper` is counted.
    pub is_upper_inclusive: bool,
    /// Observations; of integer histograms too, whose counts above 2^53 are rounded.
    pub count: f64,
}

impl Histogram {
    /// Returns the buckets by ascending bounds: negative ones, the zero bucket if anything is in it, positive ones.
    ///
    /// Empty buckets that a span names are among them. Buckets that reach into the zero bucket end at its bound. Needs
    /// a histogram that is [`Histogram::validate`]d; what another one means is not defined, but it is no panic.
    pub fn buckets(&self) -> Vec<Bucket> {
        let (zero, positive, negative) = match &self.counts {
            Counts::Integer { zero, positive, negative, .. } => (*zero as f64, running(positive), running(negative)),
            Counts::Float { zero, positive, negative, .. } => (*zero, positive.clone(), negative.clone()),
        };
        let mut buckets: Vec<Bucket> =
            indexes(&self.negative_spans).zip(negative).map(|(i, count)| self.negative_bucket(i, count)).collect();
        buckets.reverse();
        if zero > 0.0 {
            buckets.push(Bucket {
                lower: -self.zero_threshold,
                upper: self.zero_threshold,
                is_lower_inclusive: true,
                is_upper_inclusive: true,
                count: zero,
            });
        }
        buckets.extend(indexes(&self.positive_spans).zip(positive).map(|(i, count)| self.positive_bucket(i, count)));
        buckets
    }

    fn positive_bucket(&self, index: i64, count: f64) -> Bucket {
        let is_custom = self.schema == CUSTOM_BUCKETS_SCHEMA;
        let (mut lower, upper) = (self.bound(index - 1), self.bound(index));
        if lower > 0.0 && lower < self.zero_threshold {
            lower = self.zero_threshold;
        }
        let is_lower_inclusive = if is_custom { index == 0 } else { lower < 0.0 };
        Bucket { lower, upper, is_lower_inclusive, is_upper_inclusive: is_custom || upper > 0.0, count }
    }

    fn negative_bucket(&self, index: i64, count: f64) -> Bucket {
        let (lower, mut upper) = (-self.bound(index), -self.bound(index - 1));
        if upper < 0.0 && upper > -self.zero_threshold {
            upper = -self.zero_threshold;
        }
        Bucket { lower, upper, is_lower_inclusive: true, is_upper_inclusive: false, count }
    }

    /// The upper bound of the positive bucket with this index.
    fn bound(&self, index: i64) -> f64 {
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            return match usize::try_from(index) {
                Ok(i) => self.custom_bounds.get(i).copied().unwrap_or(f64::INFINITY),
                Err(_) => f64::NEG_INFINITY,
            };
        }
        let exponent = index as f64 * 2f64.powi(-self.schema);
        // The last bucket of regular numbers would end at +Inf, but that is where the bucket of infinities begins.
        if exponent == 1024.0 { f64::MAX } else { exponent.exp2() }
    }
}

/// Deltas from bucket to bucket as counts.
fn running(deltas: &[i64]) -> Vec<f64> {
    let mut count = 0i64;
    let absolute = deltas.iter().map(|delta| {
        count = count.wrapping_add(*delta);
        count as f64
    });
    absolute.collect()
}

/// The index of each bucket that the spans name, as long as somebody asks.
fn indexes(spans: &[Span]) -> impl Iterator<Item = i64> + '_ {
    let mut next = 0;
    spans.iter().flat_map(move |span| {
        let start = next + i64::from(span.offset);
        next = start + i64::from(span.length);
        start..next
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(histogram: &Histogram, expected: &[(f64, f64, bool, bool, f64)]) {
        let got: Vec<_> = histogram
            .buckets()
            .iter()
            .map(|b| (b.lower, b.upper, b.is_lower_inclusive, b.is_upper_inclusive, b.count))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn exponential_buckets_ascend_around_zero() {
        let histogram = Histogram {
            schema: 0,
            zero_threshold: 0.75,
            positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 1 }],
            negative_spans: vec![Span { offset: 0, length: 2 }],
            counts: Counts::Integer { count: 11, zero: 2, positive: vec![1, 1, -2], negative: vec![1, 3] },
            ..Histogram::default()
        };
        check(
            &histogram,
            &[
                (-2.0, -1.0, true, false, 4.0),
                (-1.0, -0.75, true, false, 1.0),
                (-0.75, 0.75, true, true, 2.0),
                (0.75, 1.0, false, true, 1.0),
                (1.0, 2.0, false, true, 2.0),
                (4.0, 8.0, false, true, 0.0),
            ],
        );
    }

    #[test]
    fn the_last_buckets_end_at_the_largest_number_and_at_infinity() {
        let histogram = Histogram {
            schema: -4,
            positive_spans: vec![Span { offset: 64, length: 2 }],
            counts: Counts::Float { count: 3.0, zero: 0.0, positive: vec![1.0, 2.0], negative: vec![] },
            ..Histogram::default()
        };
        let from = 2f64.powi(1008);
        check(&histogram, &[(from, f64::MAX, false, true, 1.0), (f64::MAX, f64::INFINITY, false, true, 2.0)]);
    }

    #[test]
    fn custom_buckets_have_their_bounds() {
        let histogram = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            custom_bounds: vec![0.5, 1.0],
            positive_spans: vec![Span { offset: 0, length: 3 }],
            counts: Counts::Integer { count: 6, zero: 0, positive: vec![1, 1, 1], negative: vec![] },
            ..Histogram::default()
        };
        check(
            &histogram,
            &[
                (f64::NEG_INFINITY, 0.5, true, true, 1.0),
                (0.5, 1.0, false, true, 2.0),
                (1.0, f64::INFINITY, false, true, 3.0),
            ],
        );
    }
}
