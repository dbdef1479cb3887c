//! Durations as Prometheus writes them: `1h30m`, units from the largest to the smallest, each at most once.

/// The units and their milliseconds, in the order in which they must come.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Prometheus counts nanoseconds in 64 bits; what it can't hold is refused here too.
const DURATION_MS_MAX: i64 = i64::MAX / 1_000_000;

/// Reads a duration such as `1h30m`, `500ms` or `0`, without a sign; returns milliseconds.
///
/// Errors: anything else, and more than about 292 years; the text says which, as Prometheus words it.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("not a valid duration string: {text:?}");
    match text {
        "0" => return Ok(0),
        "" => return Err("empty duration string".to_owned()),
        _ => {}
    }
    let mut total: i64 = 0;
    let mut units = &UNITS[..];
    let mut rest = text;
    while !rest.is_empty() {
        let (digits, after) = split_while(rest, |c| c.is_ascii_digit());
        let (unit, after) = split_while(after, |c| !c.is_ascii_digit());
        let count: u64 = digits.parse().map_err(|_| invalid())?;
        if unit.is_empty() {
            return Err(invalid());
        }
        if !UNITS.iter().any(|&(name, _)| name == unit) {
            return Err(format!("unknown unit {unit:?} in duration {text:?}"));
        }
        let i = units.iter().position(|&(name, _)| name == unit).ok_or_else(invalid)?;
        let ms = i64::try_from(count).ok().and_then(|count| count.checked_mul(units[i].1));
        total = ms
            .and_then(|ms| total.checked_add(ms))
            .filter(|&total| total <= DURATION_MS_MAX)
            .ok_or("duration out of range")?;
        units = &units[i + 1..];
        rest = after;
    }
    Ok(total)
}

/// Writes milliseconds as a duration: 5400000 is `1h30m`. Years and weeks only come up if nothing is left over, as
/// `90d` is easier to read than `12w6d`. A negative one starts with `-`.
pub fn format_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut text = if ms < 0 { "-".to_owned() } else { String::new() };
    let mut rest = ms.unsigned_abs();
    for (name, unit_ms) in UNITS {
        let unit_ms = unit_ms.unsigned_abs();
        let only_exact = matches!(name, "y" | "w");
        if rest >= unit_ms && (!only_exact || rest.is_multiple_of(unit_ms)) {
            text.push_str(&format!("{}{name}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    text
}

fn split_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !keep(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        let check = |text, ms, canonical| {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
            assert_eq!(format_duration(ms), canonical);
        };
        check("0", 0, "0s");
        check("5m", 300_000, "5m");
        check("1h30m", 5_400_000, "1h30m");
        check("90m", 5_400_000, "1h30m");
        check("2w", 14 * 86_400_000, "2w");
        check("90d", 90 * 86_400_000, "90d");
        check("1y1d", 366 * 86_400_000, "366d");
        check("4s180ms", 4_180, "4s180ms");
        assert_eq!(format_duration(-90_000), "-1m30s");
        assert!(format_duration(i64::MIN).ends_with("55s808ms"));
    }

    #[test]
    fn bad_durations_say_why() {
        let check = |text, message: &str| assert_eq!(parse_duration(text), Err(message.to_owned()), "{text}");
        check("", "empty duration string");
        check("5", r#"not a valid duration string: "5""#);
        check("m", r#"not a valid duration string: "m""#);
        check("5m1h", r#"not a valid duration string: "5m1h""#);
        check("5m1m", r#"not a valid duration string: "5m1m""#);
        check("-5m", r#"not a valid duration string: "-5m""#);
        check("5y1hs", r#"unknown unit "hs" in duration "5y1hs""#);
        check("293y", "duration out of range");
        check("99999999999999999999s", r#"not a valid duration string: "99999999999999999999s""#);
        check("9223372036854775807y", "duration out of range");
    }
}
