//! When an answer is the expected one.

use std::collections::BTreeMap;

use model::{Labels, Samples, TimestampMs, Value, is_stale};

use super::histogram::{FloatHistogram, HistogramLiteral};
use super::runner::Data;
use super::script::{Eval, Expected, Steps, When};
use super::series::Item;

/// How far two floats may lie apart, relative to the sum of their magnitudes.
const EPSILON: f64 = 1e-6;

/// Whether two floats are equal by the scripts' rule: within 1e-6, NaNs equal, the stale marker only to itself.
pub fn floats_are_near(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

/// What differs between the answer and what `eval` expects; empty if nothing does.
pub(super) fn differences(eval: &Eval, data: &Data) -> Vec<String> {
    let steps = match (&eval.when, eval.range_vector) {
        (_, Some(steps)) => Some(steps),
        (When::Range(steps), None) => Some(*steps),
        (When::Instant(_), None) => None,
    };
    match (&eval.expected, data) {
        (Expected::Scalar(expected), Data::Scalar(v)) if floats_are_near(*expected, *v) => vec![],
        (Expected::String(expected), Data::String(s)) if expected == s => vec![],
        (Expected::Series(series), Data::String(s)) if series.is_empty() && s.is_empty() => vec![],
        (Expected::Series(series), Data::Vector(vector)) if steps.is_none() => {
            compare_vector(series, vector, eval.ordered)
        }
        (Expected::Series(series), Data::Matrix(matrix)) if steps.is_some() => {
            steps.map_or_else(Vec::new, |steps| compare_matrix(series, matrix, steps))
        }
        (expected, data) => vec![format!("expected {}, got {data}", expected.describe())],
    }
}

/// What differs between the middle step of a range query and the expectation of an instant one.
pub(super) fn middle_differences(eval: &Eval, matrix: &[(Labels, Samples)], at: TimestampMs) -> Vec<String> {
    let mut found = unsorted(matrix);
    let mut vector = Vec::new();
    for (labels, samples) in matrix {
        vector.extend(samples.iter().filter(|sample| sample.t == at).map(|sample| (labels.clone(), sample.v)));
    }
    match (&eval.expected, vector.as_slice()) {
        (Expected::Series(series), _) => found.extend(compare_vector(series, &vector, false)),
        (Expected::Scalar(expected), [(labels, Value::Float(v))])
            if labels.is_empty() && floats_are_near(*expected, *v) => {}
        (expected, _) => {
            found.push(format!("expected {}, got {}", expected.describe(), Data::Vector(vector.clone())));
        }
    }
    found
}

fn compare_vector(expected: &[(Labels, Vec<Item>)], got: &[(Labels, Value)], ordered: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut by_labels: BTreeMap<&Labels, (usize, &Value)> = BTreeMap::new();
    for (i, (labels, value)) in got.iter().enumerate() {
        if by_labels.insert(labels, (i, value)).is_some() {
            found.push(format!("{labels} comes twice"));
        }
    }
    for (i, (labels, items)) in expected.iter().enumerate() {
        let Some((position, value)) = by_labels.remove(labels) else {
            found.push(format!("{labels} is missing"));
            continue;
        };
        if ordered && position != i {
            found.push(format!("{labels} is number {position}, expected {i}"));
        }
        if let Some(item) = items.first()
            && !is_expected(item, value)
        {
            found.push(format!("{labels}: expected {}, got {}", show_item(item), show_value(value)));
        }
    }
    found.extend(by_labels.iter().map(|(labels, (_, v))| format!("{labels} {} is not expected", show_value(v))));
    found
}

fn compare_matrix(expected: &[(Labels, Vec<Item>)], got: &[(Labels, Samples)], steps: Steps) -> Vec<String> {
    let mut found = unsorted(got);
    let mut by_labels: BTreeMap<&Labels, &Samples> = got.iter().map(|(labels, samples)| (labels, samples)).collect();
    for (labels, items) in expected {
        let Some(samples) = by_labels.remove(labels) else {
            found.push(format!("{labels} is missing"));
            continue;
        };
        let mut values: BTreeMap<TimestampMs, Value> = samples.iter().map(|sample| (sample.t, sample.v)).collect();
        for (i, item) in items.iter().enumerate() {
            let t = steps.start + i as i64 * steps.step;
            let value = values.remove(&t);
            let fits = match (item, &value) {
                (Item::Missing, None) => true,
                (item, Some(value)) => is_expected(item, value),
                (_, None) => false,
            };
            if !fits {
                let got = value.as_ref().map_or("nothing".to_owned(), show_value);
                found.push(format!("{labels} at {t}: expected {}, got {got}", show_item(item)));
            }
        }
        let rest = values.iter().map(|(t, v)| format!("{labels} at {t}: {} is not expected", show_value(v)));
        found.extend(rest);
    }
    found.extend(by_labels.iter().map(|(labels, samples)| format!("{labels} {} is not expected", show(samples))));
    found
}

/// A matrix must come sorted by labels.
fn unsorted(matrix: &[(Labels, Samples)]) -> Vec<String> {
    let pair = matrix.windows(2).find(|pair| pair[0].0 >= pair[1].0);
    pair.map(|pair| format!("{} comes before {}", pair[0].0, pair[1].0)).into_iter().collect()
}

fn is_expected(item: &Item, value: &Value) -> bool {
    match (item, value) {
        (Item::Float(expected), Value::Float(v)) => floats_are_near(*expected, *v),
        (Item::Histogram(expected), Value::Histogram(h)) => {
            histograms_are_near(expected, &FloatHistogram::from_model(h))
        }
        _ => false,
    }
}

fn histograms_are_near(expected: &HistogramLiteral, got: &FloatHistogram) -> bool {
    let (a, b) = (expected.histogram.compacted(), got.compacted());
    let buckets = |a: &BTreeMap<i32, f64>, b: &BTreeMap<i32, f64>| {
        a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.0 == y.0 && floats_are_near(*x.1, *y.1))
    };
    a.schema == b.schema
        && a.zero_threshold == b.zero_threshold
        && a.custom_bounds == b.custom_bounds
        && floats_are_near(a.count, b.count)
        && floats_are_near(a.sum, b.sum)
        && floats_are_near(a.zero, b.zero)
        && buckets(&a.positive, &b.positive)
        && buckets(&a.negative, &b.negative)
        && (!expected.hint_is_given || a.counter_reset_hint == b.counter_reset_hint)
}

fn show_item(item: &Item) -> String {
    match item {
        Item::Missing => "nothing".into(),
        Item::Float(v) => show_float(*v),
        Item::Histogram(literal) => format!("{:?}", literal.histogram),
    }
}

pub(super) fn show_value(value: &Value) -> String {
    match value {
        Value::Float(v) => show_float(*v),
        Value::Histogram(h) => format!("{:?}", FloatHistogram::from_model(h)),
    }
}

pub(super) fn show(samples: &Samples) -> String {
    let parts: Vec<String> = samples.iter().map(|sample| format!("{}@{}", show_value(&sample.v), sample.t)).collect();
    parts.join(" ")
}

fn show_float(v: f64) -> String {
    if is_stale(v) { "stale".into() } else { v.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_near_each_other_are_equal() {
        let stale = model::stale_marker();
        for (a, b, expected) in [
            (1.0, 1.0 + 1e-7, true),
            (1.0, 1.0 + 1e-5, false),
            (0.0, 1e-300, false),
            (0.0, -0.0, true),
            (f64::NAN, f64::NAN, true),
            (stale, stale, true),
            (stale, f64::NAN, false),
            (f64::INFINITY, f64::NEG_INFINITY, false),
            (f64::INFINITY, 1.0, false),
        ] {
            assert_eq!(floats_are_near(a, b), expected, "{a} {b}");
        }
    }
}
