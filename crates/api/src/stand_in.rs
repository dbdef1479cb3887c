//! Stands in for promql's results until its engine is merged.
#![allow(missing_docs)]
use model::{Labels, Samples, TimestampMs, Value};
#[derive(Debug, Clone, PartialEq)]
pub enum QueryResult {
    Scalar { t: TimestampMs, v: f64 },
    String { t: TimestampMs, v: String },
    Vector(Vec<ResultSample>),
    Matrix(Vec<ResultSeries>),
}
#[derive(Debug, Clone, PartialEq)]
pub struct ResultSample {
    pub labels: Labels,
    pub t: TimestampMs,
    pub v: Value,
}
#[derive(Debug, Clone, PartialEq)]
pub struct ResultSeries {
    pub labels: Labels,
    pub samples: Samples,
}
pub fn format_sample_value(v: f64) -> String {
    if v.is_nan() {
        return "NaN".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    if v != 0.0 && (v.abs() < 1e-6 || v.abs() >= 1e21) {
        let s = format!("{v:e}");
        let (m, e) = s.split_once('e').unwrap_or((&s, "0"));
        let (sign, digits) = match e.strip_prefix('-') {
            Some(d) => ('-', d),
            None => ('+', e),
        };
        return format!("{m}e{sign}{digits:0>2}");
    }
    format!("{v}")
}
