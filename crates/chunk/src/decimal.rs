//! Finds the integer behind a float, so that neighbouring values differ by small numbers.
//!
//! Most metrics are decimals (`0.25`, `1234.5`), whole numbers, or multiples of a unit (pages of 4096 bytes). A
//! [`Scale`] says which; `value = mantissa / 10^n` or `mantissa · unit`. Every answer is exact: the mantissa gives
//! back the same 64 bits, or there is none. So −0, NaN, infinities and most computed floats have no mantissa.

/// How a mantissa becomes a value: 0 to 15 divide by that power of ten, 16 to 18 multiply by 512, 1000, 4096.
pub type Scale = u8;

/// Scales are below this.
pub const SCALES: Scale = 19;

/// Of each scale: the approximate factor from value to mantissa, and the exact factor and divisor back.
///
/// One of the latter two is 1, so that a mantissa's value is rounded once. Tables instead of cases, because series of
/// all scales come one after the other and a mispredicted branch costs more than a multiplication by 1.
const TO_MANTISSA: [f64; SCALES as usize] = [
    1e0,
    1e1,
    1e2,
    1e3,
    1e4,
    1e5,
    1e6,
    1e7,
    1e8,
    1e9,
    1e10,
    1e11,
    1e12,
    1e13,
    1e14,
    1e15, // decimals
    1.0 / 512.0,
    1.0 / 1000.0,
    1.0 / 4096.0, // sectors, thousands (hertz, bits a second), pages
];
const FACTORS: [f64; SCALES as usize] =
    [1e0, 1e0, 1e0, 1e0, 1e0, 1e0, 1e0, 1e0, 1e0, 1e0, 1e0, 1e0, 1e0, 1e0, 1e0, 1e0, 512.0, 1000.0, 4096.0];
const DIVISORS: [f64; SCALES as usize] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e0, 1e0, 1e0];

/// Above 2^53 not every whole number is a float.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Mantissas stay below this, but for whole numbers: 15 digits always survive a float, with more every float looks
/// like a decimal.
const MANTISSA_MAX: f64 = 1e15;

/// Adding and subtracting it rounds a float of magnitude below 2^51 to a whole number, without a library call.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// Units are only looked for above this: below it the bare number is as short.
const UNIT_FROM: f64 = 65_536.0;

/// The value of a mantissa; any mantissa gives some float. A scale out of range counts as 0.
#[inline]
pub fn to_float(mantissa: i64, scale: Scale) -> f64 {
    let i = usize::from(if scale < SCALES { scale } else { 0 });
    mantissa as f64 * FACTORS[i] / DIVISORS[i]
}

/// The mantissa of `v` at this scale, if it is below 10^15 and gives back the very same bits.
#[inline]
pub fn at_scale(v: f64, scale: Scale) -> Option<i64> {
    if scale >= SCALES {
        return None;
    }
    let i = usize::from(scale);
    let x = v * TO_MANTISSA[i];
    let rounded = (x + ROUNDER) - ROUNDER;
    let back = rounded * FACTORS[i] / DIVISORS[i];
    // NaN is below nothing.
    (x.abs() < MANTISSA_MAX && back.to_bits() == v.to_bits()).then_some(rounded as i64)
}

/// Looks for a scale: the smallest power of ten, or a unit for large whole numbers.
///
/// A float without any costs about 16 divisions; whoever meets many of them should not ask each time.
pub fn detect(v: f64) -> Option<(i64, Scale)> {
    if let Some(m) = whole(v) {
        let units = [18, 17, 16].into_iter().filter(|_| v.abs() >= UNIT_FROM);
        let unit = units.filter_map(|scale| Some((at_scale(v, scale)?, scale))).next();
        return unit.or(Some((m, 0)));
    }
    if v.abs() >= WHOLE_MAX {
        // Beyond what every whole number can be, some multiples of pages still have a short mantissa.
        return at_scale(v, 18).map(|m| (m, 18));
    }
    (1..16).find_map(|scale| Some((at_scale(v, scale)?, scale)))
}

/// `v` as a whole number, if it is one of at most 2^53 and not −0.
#[inline]
pub fn whole(v: f64) -> Option<i64> {
    let m = v as i64;
    (v.abs() <= WHOLE_MAX && (m as f64).to_bits() == v.to_bits()).then_some(m)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_are_found_at_their_scale() {
        let check = |v: f64, expected: Option<(i64, Scale)>| assert_eq!(detect(v), expected, "{v}");
        check(0.0, Some((0, 0)));
        check(-1.0, Some((-1, 0)));
        check(0.25, Some((25, 2)));
        check(-1234.5, Some((-12345, 1)));
        check(0.1, Some((1, 1)));
        check(1e-15, Some((1, 15)));
        check(4096.0 * 1e6, Some((1_000_000, 18)));
        check(1.7e9, Some((1_700_000, 17)));
        check(1_000_001.0, Some((1_000_001, 0)));
        check(WHOLE_MAX, Some((1 << 41, 18)));
        check(WHOLE_MAX - 1.0, Some(((1 << 53) - 1, 0)));
        check(9.223372036854776e18, None);
        check(4096e15, None);
        check(4096e14, Some((100_000_000_000_000, 18)));
        for v in [-0.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, f64::MAX, std::f64::consts::PI, 1.0 / 3.0] {
            check(v, None);
        }
    }

    proptest! {
        #[test]
        fn a_mantissa_gives_back_the_same_bits(bits: u64, scale in 0u8..=255) {
            let v = f64::from_bits(bits);
            if let Some(m) = at_scale(v, scale) {
                prop_assert_eq!(to_float(m, scale).to_bits(), bits);
            }
            if let Some((m, scale)) = detect(v) {
                prop_assert_eq!(to_float(m, scale).to_bits(), bits);
            }
        }

        #[test]
        fn short_decimals_are_always_found(m in -999_999_999_999_999i64..1_000_000_000_000_000, scale in 0u8..16) {
            let v = to_float(m, scale);
            let (found, at) = detect(v).expect("15 digits survive");
            prop_assert_eq!(to_float(found, at).to_bits(), v.to_bits());
            prop_assert_eq!(at_scale(v, scale), Some(m));
        }
    }
}
