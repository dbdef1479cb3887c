//! Writes JSON as Prometheus's API does, byte by byte: times without needless zeros, values as strings.

use std::io::Write;

use model::{Histogram, Labels, Samples, Value};
use promql::{format_decimal, format_sample_value};

/// Writes a string. With `html`, `<`, `>`, `&`, U+2028 and U+2029 are escaped too, as Go's encoder does everywhere but
/// in label sets.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str, html: bool) {
    out.push(b'"');
    let mut plain = 0;
    for (i, c) in text.char_indices() {
        let is_escaped = match c {
            '"' | '\\' => true,
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => html,
            c => c < ' ',
        };
        if !is_escaped {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[plain..i]);
        plain = i + c.len_utf8();
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c => put_fmt(out, format_args!("\\u{:04x}", u32::from(c))),
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}

/// Writes a list of strings.
pub(crate) fn put_strings<'a>(out: &mut Vec<u8>, texts: impl IntoIterator<Item = &'a str>) {
    put_list(out, texts, |out, text| put_string(out, text, true));
}

/// Writes a list, item by item.
pub(crate) fn put_list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, put: impl Fn(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put(out, item);
    }
    out.push(b']');
}

/// Writes a label set as an object.
pub(crate) fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put_string(out, name, false);
        out.push(b':');
        put_string(out, value, false);
    }
    out.push(b'}');
}

/// Writes milliseconds as seconds: `1435781451.781`, `12`, `-0.001`.
pub(crate) fn put_time(out: &mut Vec<u8>, t: i64) {
    if t < 0 {
        out.push(b'-');
    }
    let (seconds, ms) = (t.unsigned_abs() / 1000, t.unsigned_abs() % 1000);
    put_fmt(out, format_args!("{seconds}"));
    if ms > 0 {
        put_fmt(out, format_args!(".{ms:03}"));
    }
}

/// Writes what a scalar or string result begins with: the time without any needless zero, as another encoder of
/// Prometheus's has it (`1.5` where a sample says `1.500`), and a comma.
pub(crate) fn put_short_time(out: &mut Vec<u8>, t: i64) {
    put_time(out, t);
    if t % 1000 != 0 {
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b',');
}

/// Writes a scalar result, without the brackets; its value never has an exponent.
pub(crate) fn put_scalar(out: &mut Vec<u8>, t: i64, v: f64) {
    put_short_time(out, t);
    put_fmt(out, format_args!("\"{}\"", format_decimal(v)));
}

/// Writes `time,"value"`, without the brackets.
fn put_float_point(out: &mut Vec<u8>, t: i64, v: f64) {
    put_time(out, t);
    out.push(b',');
    put_value(out, v);
}

/// Writes a sample of a vector: its key, time and value.
pub(crate) fn put_sample(out: &mut Vec<u8>, t: i64, v: &Value) {
    match v {
        Value::Float(v) => {
            out.extend_from_slice(b"\"value\":[");
            put_float_point(out, t, *v);
        }
        Value::Histogram(histogram) => {
            out.extend_from_slice(b"\"histogram\":[");
            put_time(out, t);
            out.push(b',');
            put_histogram(out, histogram);
        }
    }
    out.push(b']');
}

/// Writes the samples of a matrix's series: each kind under its own key, which is left out if there are none.
pub(crate) fn put_samples(out: &mut Vec<u8>, samples: &Samples) {
    let histogram_at = |i: usize| samples.histograms.get(i).and_then(Option::as_ref);
    let floats = (0..samples.len()).filter(|&i| histogram_at(i).is_none());
    let histograms = (0..samples.len()).filter_map(|i| Some((samples.timestamps[i], histogram_at(i)?)));
    let mut floats = floats.map(|i| (samples.timestamps[i], samples.floats[i])).peekable();
    let mut histograms = histograms.peekable();
    if floats.peek().is_some() {
        out.extend_from_slice(b",\"values\":");
        put_list(out, floats, |out, (t, v)| {
            out.push(b'[');
            put_float_point(out, t, v);
            out.push(b']');
        });
    }
    if histograms.peek().is_some() {
        out.extend_from_slice(b",\"histograms\":");
        put_list(out, histograms, |out, (t, histogram)| {
            out.push(b'[');
            put_time(out, t);
            out.push(b',');
            put_histogram(out, histogram);
            out.push(b']');
        });
    }
}

/// Writes a value as a string: `"1.5"`, `"1e+21"`, `"NaN"`, `"-Inf"`.
fn put_value(out: &mut Vec<u8>, v: f64) {
    put_fmt(out, format_args!("\"{}\"", format_sample_value(v)));
}

/// Writes a histogram; empty buckets are left out.
fn put_histogram(out: &mut Vec<u8>, histogram: &Histogram) {
    out.extend_from_slice(b"{\"count\":");
    put_value(out, histogram.count());
    out.extend_from_slice(b",\"sum\":");
    put_value(out, histogram.sum);
    let mut buckets = histogram.buckets().into_iter().filter(|bucket| bucket.count != 0.0).peekable();
    if buckets.peek().is_some() {
        out.extend_from_slice(b",\"buckets\":");
        put_list(out, buckets, |out, bucket| {
            // 0: (lower, upper], 1: [lower, upper), 2: (lower, upper), 3: [lower, upper].
            out.extend_from_slice(match (bucket.is_lower_inclusive, bucket.is_upper_inclusive) {
                (false, true) => b"[0,",
                (true, false) => b"[1,",
                (false, false) => b"[2,",
                (true, true) => b"[3,",
            });
            put_value(out, bucket.lower);
            out.push(b',');
            put_value(out, bucket.upper);
            out.push(b',');
            put_value(out, bucket.count);
            out.push(b']');
        });
    }
    out.push(b'}');
}

/// Writes text that needs no escaping.
pub(crate) fn put_fmt(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec does not fail");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Counts, Sample, Span};

    use super::*;

    #[track_caller]
    fn check(put: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut out = Vec::new();
        put(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        check(|out| put_string(out, "a\"b\\c\n\r\t\u{1}ü😀\u{7f}", false), "\"a\\\"b\\\\c\\n\\r\\t\\u0001ü😀\u{7f}\"");
        check(|out| put_string(out, "<&>\u{2028}", true), r#""\u003c\u0026\u003e\u2028""#);
        check(|out| put_string(out, "<&>", false), "\"<&>\"");
        check(|out| put_strings(out, []), "[]");
    }

    #[test]
    fn times_have_no_needless_zeros() {
        for (t, expected) in [
            (0, "0"),
            (1, "0.001"),
            (10, "0.010"),
            (1_435_781_451_781, "1435781451.781"),
            (12_000, "12"),
            (-1, "-0.001"),
            (-1500, "-1.500"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            check(|out| put_time(out, t), expected);
        }
    }

    #[test]
    fn values_are_strings_in_gos_shortest_form() {
        for (v, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.25e300, "-1.25e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-07"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            check(|out| put_value(out, v), &format!("\"{expected}\""));
        }
    }

    #[test]
    fn series_have_a_list_for_each_kind() {
        let histogram = Histogram {
            sum: 18.5,
            zero_threshold: 0.25,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            negative_spans: vec![Span { offset: 0, length: 1 }],
            counts: Counts::Integer { count: 6, zero: 2, positive: vec![1, -1, 2], negative: vec![1] },
            ..Histogram::default()
        };
        let mut samples: Samples = [Sample::float(1500, 1.0)].into_iter().collect();
        samples.push(2000, Value::Histogram(Arc::new(histogram)));
        check(
            |out| put_samples(out, &samples),
            r#","values":[[1.500,"1"]],"histograms":[[2,{"count":"6","sum":"18.5","buckets":[[1,"-1","-0.5","1"],[3,"-0.25","0.25","2"],[0,"0.5","1","1"],[0,"2","4","2"]]}]]"#,
        );
        let empty = Value::Histogram(Arc::new(Histogram::default()));
        check(|out| put_sample(out, 3000, &empty), r#""histogram":[3,{"count":"0","sum":"0"}]"#);
        check(|out| put_sample(out, 3000, &Value::Float(2.0)), r#""value":[3,"2"]"#);
    }
}
