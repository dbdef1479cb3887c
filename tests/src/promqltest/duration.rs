//! Prometheus's durations: `0`, or units y w d h m s ms in this order, each at most once.

/// The units, longest first, with their milliseconds; `ms` before `m` and `s` when they are looked up by prefix.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Milliseconds of a duration such as `1h30m`; `None` if it is not one. There is no sign.
pub fn parse_duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0i64;
    let mut last = None;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = UNITS.iter().position(|&(name, _)| name == &rest[..letters])?;
        if last.is_some_and(|last| last >= unit) {
            return None;
        }
        last = Some(unit);
        total = total.checked_add(number.checked_mul(UNITS[unit].1)?)?;
        rest = &rest[letters..];
    }
    last.map(|_| total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_in_order_and_once() {
        let cases = [
            ("0", Some(0)),
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("1m30s500ms", Some(90_500)),
            ("500ms", Some(500)),
            ("1y", Some(31_536_000_000)),
            ("", None),
            ("5", None),
            ("m", None),
            ("-5m", None),
            ("1m1h", None),
            ("1m1m", None),
            ("1x", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
