//! The one rule for merging two samples of a series at one timestamp (DESIGN.md, promise 4).
//!
//! The greater stays, in this order: stale marker < NaN (by bits) < floats (−0 < +0) < histograms (by
//! count, sum, canonical bytes; float over integer). As it is a total order, merging is commutative,
//! associative and idempotent: retries, duplicates and overlapping blocks can't change an answer.

use std::cmp::Ordering;

use crate::histogram::Histogram;
use crate::sample::{Value, is_stale};

/// Returns the one of two values that stays.
pub fn greater(a: Value, b: Value) -> Value {
    if order(&a, &b) == Ordering::Less { b } else { a }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => rank(*a).cmp(&rank(*b)),
        (Value::Float(_), Value::Histogram(_)) | (Value::Histogram(_), Value::Float(_)) => kind(a).cmp(&kind(b)),
        (Value::Histogram(x), Value::Histogram(y)) => {
            let key = |h: &Histogram| (rank(h.count()), rank(h.sum), h.is_float());
            kind(a).cmp(&kind(b)).then_with(|| key(x).cmp(&key(y))).then_with(|| x.encode().cmp(&y.encode()))
        }
    }
}

/// Stale markers of either kind, floats, histograms.
fn kind(v: &Value) -> u8 {
    match v {
        Value::Float(v) if is_stale(*v) => 0,
        Value::Histogram(h) if is_stale(h.sum) => 1,
        Value::Float(_) => 2,
        Value::Histogram(_) => 3,
    }
}

/// Stale markers, then other NaNs by bits, then numbers in their order.
fn rank(v: f64) -> (u8, u64) {
    let bits = v.to_bits();
    if is_stale(v) {
        (0, 0)
    } else if v.is_nan() {
        (1, bits)
    } else {
        // Negative numbers have their sign bit set and grow with their bits: turn them round.
        (2, if bits >> 63 == 1 { !bits } else { bits | 1 << 63 })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::histogram::{Counts, Span};
    use crate::sample::{STALE_NAN_BITS, Sample, stale_marker};
    use crate::samples::Samples;

    fn histogram(count: u64, sum: f64, float: bool) -> Value {
        let counts = if float {
            Counts::Float { count: count as f64, zero: 0.0, positive: vec![count as f64], negative: vec![] }
        } else {
            Counts::Integer { count, zero: 0, positive: vec![count as i64], negative: vec![] }
        };
        Value::Histogram(Arc::new(Histogram {
            positive_spans: vec![Span { offset: 0, length: 1 }],
            sum,
            counts,
            ..Histogram::default()
        }))
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let special = prop::sample::select(vec![
            STALE_NAN_BITS,
            f64::NAN.to_bits(),
            f64::NAN.to_bits() | 7,
            0,
            1 << 63,
            f64::INFINITY.to_bits(),
            f64::NEG_INFINITY.to_bits(),
        ]);
        prop_oneof![
            special.prop_map(|bits| Value::Float(f64::from_bits(bits))),
            any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
            (0u64..3, prop::sample::select(vec![0.0, 1.0, stale_marker()]), any::<bool>())
                .prop_map(|(n, sum, float)| histogram(n, sum, float)),
        ]
    }

    proptest! {
        #[test]
        fn merging_is_commutative(a in any_value(), b in any_value()) {
            prop_assert_eq!(greater(a.clone(), b.clone()), greater(b, a));
        }

        #[test]
        fn merging_is_associative(a in any_value(), b in any_value(), c in any_value()) {
            let left = greater(greater(a.clone(), b.clone()), c.clone());
            prop_assert_eq!(left, greater(a, greater(b, c)));
        }

        #[test]
        fn merging_is_idempotent(a in any_value()) {
            prop_assert_eq!(greater(a.clone(), a.clone()), a);
        }

        #[test]
        fn lists_merge_alike_in_any_order(mut samples in prop::collection::vec((0i64..8, any_value()), 0..24), cut in 0usize..24) {
            let all = |samples: &[(i64, Value)]| {
                let mut list: Samples = samples.iter().map(|(t, v)| Sample { t: *t, v: v.clone() }).collect();
                list.sort_and_merge();
                list
            };
            let whole = all(&samples);
            let cut = cut.min(samples.len());
            let (mut left, mut right) = (all(&samples[..cut]), all(&samples[cut..]));
            right.merge(left.clone());
            left.merge(all(&samples[cut..]));
            prop_assert_eq!(&left, &whole);
            prop_assert_eq!(&right, &whole);
            samples.reverse();
            prop_assert_eq!(&all(&samples), &whole);
        }
    }

    #[test]
    fn the_order_is_promise_four() {
        let f = Value::Float;
        let ascending = [
            f(f64::from_bits(STALE_NAN_BITS)),
            histogram(0, stale_marker(), false),
            f(f64::NAN),
            f(f64::NEG_INFINITY),
            f(-1.0),
            f(-0.0),
            f(0.0),
            f(2.0),
            f(f64::INFINITY),
            histogram(1, 9.0, false),
            histogram(2, 1.0, false),
            histogram(2, 2.0, false),
            histogram(2, 2.0, true),
        ];
        for pair in ascending.windows(2) {
            assert_eq!(greater(pair[0].clone(), pair[1].clone()), pair[1]);
        }
    }
}
