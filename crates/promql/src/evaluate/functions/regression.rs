//! Lines and curves through a window's floats.

use model::TimestampMs;

use super::super::error::EvalError;
use super::super::kahan::KahanSum;

/// The line of least squares through the samples: its slope per second, and its value at `at`. Needs two samples.
pub(super) fn linear_regression(times: &[TimestampMs], values: &[f64], at: TimestampMs) -> (f64, f64) {
    let mut sums = [KahanSum::default(); 4];
    let first = values[0];
    let mut is_constant = true;
    for (&t, &y) in times.iter().zip(values) {
        is_constant &= y == first;
        let x = t.saturating_sub(at) as f64 / 1e3;
        for (sum, addend) in sums.iter_mut().zip([x, y, x * y, x * x]) {
            sum.add(addend);
        }
    }
    if is_constant {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = values.len() as f64;
    let [x, y, xy, xx] = sums.map(|sum| sum.value());
    let covariance = xy - x * y / n;
    let variance = xx - x * x / n;
    let slope = covariance / variance;
    (slope, y / n - slope * x / n)
}

/// The last value of a double exponential smoothing: newer values weigh more, and so do newer trends.
///
/// Errors: factors that are not between 0 and 1. Needs two values.
pub(super) fn double_exponential_smoothing(values: &[f64], smoothing: f64, trend: f64) -> Result<f64, EvalError> {
    for (name, symbol, factor) in [("smoothing", "sf", smoothing), ("trend", "tf", trend)] {
        if factor <= 0.0 || factor >= 1.0 {
            let why = format!("invalid {name} factor. Expected: 0 < {symbol} < 1, got: {factor:.6}");
            return Err(EvalError::Execution(why));
        }
    }
    if values.len() < 2 {
        return Ok(f64::NAN);
    }
    let mut before = 0.0;
    let mut smoothed = values[0];
    let mut slope = values[1] - values[0];
    for (i, v) in values.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (smoothed - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * v + (1.0 - smoothing) * (smoothed + slope);
        (before, smoothed) = (smoothed, next);
    }
    Ok(smoothed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_goes_through_its_points() {
        let (slope, intercept) = linear_regression(&[0, 1000, 2000], &[1.0, 3.0, 5.0], 1000);
        assert_eq!((slope, intercept), (2.0, 3.0));
        assert_eq!(linear_regression(&[0, 1000], &[4.0, 4.0], 0), (0.0, 4.0));
    }

    #[test]
    fn smoothing_follows_a_line() {
        assert_eq!(double_exponential_smoothing(&[1.0, 2.0, 3.0, 4.0], 0.5, 0.5).unwrap(), 4.0);
        assert!(double_exponential_smoothing(&[1.0, 2.0], 1.0, 0.5).is_err());
    }
}
