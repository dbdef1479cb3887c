//! Quantiles: of a list of numbers, and of a classic histogram's buckets.

use std::cmp::Ordering;

/// Bucket counts that differ by less, relative to their sum, differ by rounding only. From experience of
/// Prometheus's authors: a bucket needs 10^12 observations before one of them is ignored.
const SMALL_DELTA_TOLERANCE: f64 = 1e-12;

/// Orders numbers with NaN first.
pub(crate) fn nan_first(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
    }
}

/// The `q` quantile of `values`, between two of them in proportion; sorts them. NaN of none, or if `q` is NaN.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|&a, &b| nan_first(a, b));
    let last = (values.len() - 1) as f64;
    let rank = q * last;
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(last);
    let weight = rank - rank.floor();
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}

/// A bucket of a classic histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bucket {
    /// The value of its `le`.
    pub upper_bound: f64,
    /// Observations up to it.
    pub count: f64,
}

/// What had to be changed in buckets whose counts fell with their bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ForcedMonotonicity {
    /// The lowest bound whose count was raised.
    pub bucket_min: f64,
    /// The highest.
    pub bucket_max: f64,
    /// By how much at most.
    pub difference_max: f64,
}

/// The `q` quantile of a classic histogram, linear within a bucket; and what had to be mended for it.
///
/// NaN if there are fewer than two buckets, no observation, or no bucket up to +Inf. In the highest bucket it is the
/// bound below; in the lowest, 0 is where the bucket begins unless its bound is not above 0, which then is the answer.
/// `buckets` must not be empty; sorts and merges them.
pub(crate) fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<ForcedMonotonicity>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !sort_and_coalesce(buckets) {
        return (f64::NAN, None);
    }
    let forced = force_monotonicity(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    // The first bucket that reaches the rank. A NaN count reaches none.
    let reaches = |bucket: &Bucket| bucket.count >= rank;
    let b = buckets[..last].partition_point(|bucket| !reaches(bucket));
    if b == last {
        return (buckets[last - 1].upper_bound, forced);
    }
    if b == 0 && buckets[0].upper_bound <= 0.0 {
        return (buckets[0].upper_bound, forced);
    }
    let mut start = 0.0;
    let end = buckets[b].upper_bound;
    let mut count = buckets[b].count;
    if b > 0 {
        start = buckets[b - 1].upper_bound;
        count -= buckets[b - 1].count;
        rank -= buckets[b - 1].count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// Which share of a classic histogram's observations lies between `lower` and `upper`, linear within a bucket.
///
/// `buckets` must not be empty; sorts and merges them.
pub(crate) fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !sort_and_coalesce(buckets) {
        return f64::NAN;
    }
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank_of = |bound: f64| match observations_below(bound, buckets) {
        Some(rank) if rank > count => count,
        Some(rank) => rank,
        None => count,
    };
    (rank_of(upper) - rank_of(lower)) / count
}

/// How many observations lie below `bound`; None if it is above every bucket.
fn observations_below(bound: f64, buckets: &[Bucket]) -> Option<f64> {
    let mut rank = 0.0;
    // With a first bound above 0 all observations are taken to be positive.
    let mut bucket_start = if buckets[0].upper_bound <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    for bucket in buckets {
        if bucket_start >= bound {
            return Some(rank);
        }
        if bucket.upper_bound > bound {
            // A bucket without a lower end can't be divided: all of it counts.
            return Some(if bucket_start == f64::NEG_INFINITY {
                bucket.count
            } else {
                rank + (bucket.count - rank) * (bound - bucket_start) / (bucket.upper_bound - bucket_start)
            });
        }
        rank = bucket.count;
        bucket_start = bucket.upper_bound;
    }
    None
}

/// Sorts by bound and adds up buckets of one bound. Returns whether the last one's bound is +Inf, as it must be.
fn sort_and_coalesce(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| nan_first(a.upper_bound, b.upper_bound));
    if buckets.last().is_none_or(|last| last.upper_bound != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.upper_bound == kept.upper_bound;
        if same {
            kept.count += next.count;
        }
        same
    });
    true
}

/// Raises counts that are lower than the one before; silently if by rounding only.
fn force_monotonicity(buckets: &mut [Bucket]) -> Option<ForcedMonotonicity> {
    let mut forced: Option<ForcedMonotonicity> = None;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let count = bucket.count;
        if count == previous {
            continue;
        }
        if almost_equal(previous, count, SMALL_DELTA_TOLERANCE) {
            bucket.count = previous;
        } else if count < previous {
            bucket.count = previous;
            let so_far = forced.get_or_insert(ForcedMonotonicity {
                bucket_min: f64::INFINITY,
                bucket_max: f64::NEG_INFINITY,
                difference_max: 0.0,
            });
            so_far.bucket_min = so_far.bucket_min.min(bucket.upper_bound);
            so_far.bucket_max = so_far.bucket_max.max(bucket.upper_bound);
            so_far.difference_max = so_far.difference_max.max(previous - count);
        } else {
            previous = count;
        }
    }
    forced
}

/// Whether `a` and `b` differ by less than `tolerance` times their sum; two NaNs are equal.
pub(crate) fn almost_equal(a: f64, b: f64, tolerance: f64) -> bool {
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < tolerance * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < tolerance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        pairs.iter().map(|&(upper_bound, count)| Bucket { upper_bound, count }).collect()
    }

    #[test]
    fn quantile_lies_between_two_values() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(quantile(0.25, &mut [1.0, 2.0]), 1.25);
        assert_eq!(quantile(2.0, &mut [1.0]), f64::INFINITY);
        assert!(quantile(0.5, &mut []).is_nan());
    }

    #[test]
    fn bucket_quantile_is_linear_within_a_bucket() {
        let all = [(f64::INFINITY, 10.0), (1.0, 4.0), (2.0, 8.0)];
        assert_eq!(bucket_quantile(0.2, &mut buckets(&all)), (0.5, None));
        assert_eq!(bucket_quantile(0.6, &mut buckets(&all)), (1.5, None));
        assert_eq!(bucket_quantile(0.9, &mut buckets(&all)), (2.0, None));
        assert!(bucket_quantile(0.9, &mut buckets(&all[1..])).0.is_nan());
    }

    #[test]
    fn falling_counts_are_raised_and_told() {
        let (_, forced) = bucket_quantile(0.5, &mut buckets(&[(1.0, 4.0), (2.0, 1.0), (f64::INFINITY, 5.0)]));
        assert_eq!(forced, Some(ForcedMonotonicity { bucket_min: 2.0, bucket_max: 2.0, difference_max: 3.0 }));
        let (_, rounding) = bucket_quantile(0.5, &mut buckets(&[(1.0, 4.0), (2.0, 4.0 - 1e-13), (f64::INFINITY, 5.0)]));
        assert_eq!(rounding, None);
    }

    #[test]
    fn fraction_counts_what_lies_between() {
        let all = [(1.0, 4.0), (2.0, 8.0), (f64::INFINITY, 10.0)];
        assert_eq!(bucket_fraction(0.5, 1.5, &mut buckets(&all)), 0.4);
        assert_eq!(bucket_fraction(f64::NEG_INFINITY, f64::INFINITY, &mut buckets(&all)), 1.0);
    }
}
