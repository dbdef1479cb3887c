//! Arithmetic where Go's `math` differs from Rust's.

use std::f64::consts::PI;

/// The greater; NaN if one is NaN and the other is not +Inf.
pub(crate) fn max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// The lesser; NaN if one is NaN and the other is not −Inf.
pub(crate) fn min(a: f64, b: f64) -> f64 {
    -max(-a, -b)
}

/// Rounds to a multiple of `nearest`, halves up.
pub(super) fn round_to(v: f64, nearest: f64) -> f64 {
    // Dividing by the inverse is more often exact than multiplying: 0.1 has none that is.
    let inverse = 1.0 / nearest;
    (v * inverse + 0.5).floor() / inverse
}

/// −1, 0 or 1, or NaN.
pub(super) fn sign(v: f64) -> f64 {
    if v < 0.0 {
        -1.0
    } else if v > 0.0 {
        1.0
    } else {
        v
    }
}

pub(super) fn to_radians(v: f64) -> f64 {
    v * PI / 180.0
}

pub(super) fn to_degrees(v: f64) -> f64 {
    v * 180.0 / PI
}

/// Seconds cut off to whole ones; what is not a number, or too large, becomes the time that Go on amd64 makes of it.
pub(super) fn whole_seconds(v: f64) -> i128 {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if (-BEYOND..BEYOND).contains(&v) { v as i128 } else { 1 << 63 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_follow_go() {
        assert_eq!(max(f64::INFINITY, f64::NAN), f64::INFINITY);
        assert!(max(1.0, f64::NAN).is_nan() && min(f64::NAN, 1.0).is_nan());
        assert_eq!(min(f64::NEG_INFINITY, f64::NAN), f64::NEG_INFINITY);
        assert!(max(-0.0, 0.0).is_sign_positive() && min(0.0, -0.0).is_sign_negative());
        assert_eq!((max(1.0, 2.0), min(1.0, 2.0)), (2.0, 1.0));
    }

    #[test]
    fn halves_are_rounded_up() {
        assert_eq!([-2.5, 2.5, 0.49].map(|v| round_to(v, 1.0)), [-2.0, 3.0, 0.0]);
        assert_eq!(round_to(0.77, 0.5), 1.0);
    }
}
