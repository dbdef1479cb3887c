//! Numbers and quoted texts as Go writes them, where Prometheus's answers hold them.

/// The shortest decimal that reads back as `v`, never with an exponent: how label values from numbers are written.
pub fn format_decimal(v: f64) -> String {
    if v.is_nan() {
        "NaN".to_owned()
    } else if v.is_infinite() {
        if v > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        v.to_string()
    }
}

/// A sample's value as the HTTP API writes it: shortest, with an exponent below 10⁻⁶ and from 10²¹ on.
pub fn format_sample_value(v: f64) -> String {
    let size = v.abs();
    if v.is_finite() && size != 0.0 && !(1e-6..1e21).contains(&size) {
        with_exponent(v, None)
    } else {
        format_decimal(v)
    }
}

/// Go's `%g`: shortest, with an exponent below 10⁻⁴ and from 10⁶ on.
pub(crate) fn format_g(v: f64) -> String {
    let size = v.abs();
    if v.is_finite() && size != 0.0 && !(1e-4..1e6).contains(&size) {
        with_exponent(v, None)
    } else {
        format_decimal(v)
    }
}

/// As OpenMetrics writes a number: Go's `%g`, with ".0" behind an integer.
pub(crate) fn format_open_metrics(v: f64) -> String {
    let out = format_g(v);
    if !v.is_finite() || out.contains(['e', '.']) { out } else { out + ".0" }
}

/// Go's `%.Ng` with N = `digits` significant digits.
pub(crate) fn format_g_digits(v: f64, digits: usize) -> String {
    if !v.is_finite() || v == 0.0 {
        return format_decimal(v);
    }
    let scientific = format!("{:.*e}", digits - 1, v);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    if exponent < -4 || exponent >= digits as i32 {
        return with_exponent(v, Some(digits));
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trim_zeros(&format!("{v:.decimals$}")).to_owned()
}

/// `1.5e+06`: at least two digits of exponent, with a sign.
fn with_exponent(v: f64, digits: Option<usize>) -> String {
    let text = match digits {
        Some(digits) => format!("{:.*e}", digits - 1, v),
        None => format!("{v:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = if digits.is_some() { trim_zeros(mantissa) } else { mantissa };
    let (sign, size) = match exponent.strip_prefix('-') {
        Some(size) => ('-', size),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{size:0>2}")
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// A text as Go quotes it.
pub(crate) fn quote(text: &str) -> String {
    crate::literal::quote(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_does() {
        assert_eq!(
            ["NaN", "+Inf", "-Inf", "0.1"],
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.1].map(format_decimal)[..]
        );
        assert_eq!(format_decimal(1e21), "1000000000000000000000");
        assert_eq!(format_decimal(-0.0), "-0");
        assert_eq!(
            ["1e+21", "1e-07", "0.000001", "123456789"],
            [1e21, 1e-7, 1e-6, 123456789.0].map(format_sample_value)[..]
        );
        assert_eq!(["1e-05", "1.23456789e+08", "100000"], [1e-5, 123456789.0, 1e5].map(format_g)[..]);
        assert_eq!(
            ["1.2e+02", "2", "0.33", "1e-05"],
            [123.456, 2.0, 1.0 / 3.0, 1e-5].map(|v| format_g_digits(v, 2))[..]
        );
        assert_eq!(["1.0", "0.99", "1e-05"], [1.0, 0.99, 1e-5].map(format_open_metrics)[..]);
    }

    #[test]
    fn texts_are_quoted_as_go_does() {
        assert_eq!(quote("a\"b\\\n\u{1}é"), r#""a\"b\\\n\x01é""#);
    }
}
