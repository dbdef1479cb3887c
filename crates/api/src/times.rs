//! Times and durations as Prometheus's API takes them: Unix seconds with a fraction, RFC 3339, `5m`, seconds.

/// Prometheus's own names for "the beginning" and "the end", which clients send back to it; years of more than four
/// digits are not RFC 3339.
const TIME_MIN: (&str, Time) =
    ("-292273086-05-16T16:47:06Z", Time { ns: (i64::MIN / 1000 + 62_135_596_801) as i128 * NS });
const TIME_MAX: (&str, Time) =
    ("292277025-08-18T07:12:54.999999999Z", Time { ns: (i64::MAX / 1000 - 62_135_596_801) as i128 * NS + 999_999_999 });

/// Nanoseconds of a second.
const NS: i128 = 1_000_000_000;
const NS_OF_MS: i128 = 1_000_000;

/// A time in nanoseconds since 1970, as finely as RFC 3339 may say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time {
    pub(crate) ns: i128,
}

impl Time {
    /// A time in milliseconds.
    pub(crate) fn from_ms(ms: i64) -> Time {
        Time { ns: i128::from(ms) * NS_OF_MS }
    }

    /// The millisecond that it lies in.
    pub(crate) fn ms(self) -> i64 {
        // Both parsers bound the seconds so that this fits.
        i64::try_from(self.ns.div_euclid(NS_OF_MS)).unwrap_or(if self.ns < 0 { i64::MIN } else { i64::MAX })
    }
}

/// Reads a time; the error is Prometheus's text.
pub(crate) fn parse_time(text: &str) -> Result<Time, String> {
    if let Some(time) = parse_seconds(text).or_else(|| parse_rfc3339(text)) {
        return Ok(time);
    }
    match [TIME_MIN, TIME_MAX].iter().find(|(name, _)| *name == text) {
        Some((_, time)) => Ok(*time),
        None => Err(format!("cannot parse {} to a valid timestamp", promql_quote(text))),
    }
}

/// Reads a duration, in seconds or with units, as nanoseconds; the error is Prometheus's text.
pub(crate) fn parse_duration_ns(text: &str) -> Result<i64, String> {
    let cannot = |why: &str| format!("cannot parse {} to a valid duration{why}", promql_quote(text));
    if let Ok(seconds) = text.parse::<f64>() {
        let ns = seconds * 1e9;
        if ns.is_nan() {
            return Err(cannot(""));
        }
        // As Go compares: 2^63 itself is still let through, and saturates.
        if ns > i64::MAX as f64 || ns < i64::MIN as f64 {
            return Err(cannot(". It overflows int64"));
        }
        return Ok(ns as i64);
    }
    promql::parse_duration(text).map(|ms| ms.saturating_mul(1_000_000)).map_err(|_| cannot(""))
}

/// Rounds the fraction to milliseconds, as Prometheus does.
fn parse_seconds(text: &str) -> Option<Time> {
    let seconds: f64 = text.parse().ok()?;
    // Beyond this, milliseconds do not fit 64 bits.
    if !seconds.is_finite() || seconds.abs() > (i64::MAX / 1000) as f64 {
        return None;
    }
    let fraction_ms = (seconds.fract() * 1000.0).round() as i128;
    Some(Time { ns: seconds.trunc() as i128 * NS + fraction_ms * NS_OF_MS })
}

/// `2006-01-02T15:04:05.999999999Z07:00`
fn parse_rfc3339(text: &str) -> Option<Time> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = bytes.get(range)?;
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let punctuation = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if punctuation.iter().any(|&(i, expected)| bytes.get(i) != Some(&expected)) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=days_of_month(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = &bytes[19..];
    let mut ns = 0;
    if let [b'.', digits @ ..] = rest {
        let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return None;
        }
        // What is finer than a nanosecond is cut off.
        ns = (0..9).fold(0, |ns, i| ns * 10 + if i < length { i128::from(digits[i] - b'0') } else { 0 });
        rest = &digits[length..];
    }
    let offset_s = match *rest {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = bytes.len() - rest.len();
            let (hours, minutes) = (number(at + 1..at + 3)?, number(at + 4..at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    Some(Time { ns: i128::from(seconds) * NS + ns })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let leap_days = |year: i64| (year - 1).div_euclid(4) - (year - 1).div_euclid(100) + (year - 1).div_euclid(400);
    let years = (year - 1970) * 365 + leap_days(year) - leap_days(1970);
    years + (1..month).map(|month| days_of_month(year, month)).sum::<i64>() + day - 1
}

/// Quotes as Go's `%q` does, for what people type.
pub(crate) fn promql_quote(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, ms: i64) {
        assert_eq!(parse_time(text).map(Time::ms), Ok(ms), "{text}");
    }

    #[test]
    fn times_are_read_as_prometheus_reads_them() {
        check("0", 0);
        check("1543578564.705", 1_543_578_564_705);
        check("1543578564.7054", 1_543_578_564_705);
        check("-1.5", -1500);
        check("1.5e3", 1_500_000);
        check("2015-06-03T13:21:58.555Z", 1_433_337_718_555);
        check("2015-06-03T14:21:58.555+01:00", 1_433_337_718_555);
        check("2015-06-03T13:21:58.5559Z", 1_433_337_718_555);
        check("1970-01-01T00:00:00Z", 0);
        check("2000-02-29T00:00:00Z", 951_782_400_000);
        check("0001-01-01T00:00:00Z", -62_135_596_800_000);
        check("9999-12-31T23:59:59Z", 253_402_300_799_000);
        check(TIME_MIN.0, (i64::MIN / 1000 + 62_135_596_801) * 1000);
        check(TIME_MAX.0, (i64::MAX / 1000 - 62_135_596_801) * 1000 + 999);
    }

    #[test]
    fn no_millisecond_is_lost_to_the_fraction() {
        for ms in 0..1000 {
            check(&format!("1543578564.{ms:03}"), 1_543_578_564_000 + ms);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let bad = [
            "",
            "foo",
            "NaN",
            "Inf",
            "1e300",
            "2015-13-03T13:21:58Z",
            "2015-02-29T13:21:58Z",
            "2015-06-03",
            "2015-06-03T24:00:00Z",
            "2015-06-03T13:21:58",
            "2015-06-03T13:21:58.Z",
            "2015-06-03T13:21:58+1:00",
            "1s",
        ];
        for text in bad {
            assert_eq!(parse_time(text), Err(format!("cannot parse {text:?} to a valid timestamp")));
        }
    }

    #[test]
    fn durations_are_seconds_or_have_units() {
        for (text, ns) in
            [("1", 1_000_000_000), ("0.5", 500_000_000), ("1m30s", 90_000_000_000), ("-1", -1_000_000_000)]
        {
            assert_eq!(parse_duration_ns(text), Ok(ns), "{text}");
        }
        for text in ["", "foo", "-5m", "NaN"] {
            assert_eq!(parse_duration_ns(text), Err(format!("cannot parse {text:?} to a valid duration")));
        }
        let overflow = "cannot parse \"1e300\" to a valid duration. It overflows int64";
        assert_eq!(parse_duration_ns("1e300"), Err(overflow.to_owned()));
    }
}
