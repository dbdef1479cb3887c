//! What a query answers.

use model::{Labels, Samples, TimestampMs, Value};

use super::budget::Charge;
use super::error::EvalError;
use super::extended::extend_floats;
use super::matrix::Matrix;
use super::steps::Steps;
use super::window::{Frame, RangeSeries, RangeVector};
use crate::ast::RangeMode;

/// The answer to a query.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryResult {
    /// One number.
    Scalar {
        /// The evaluation time.
        t: TimestampMs,
        /// The number.
        v: f64,
    },
    /// A text.
    String {
        /// The evaluation time.
        t: TimestampMs,
        /// The text.
        v: String,
    },
    /// A sample a series, in the order that the expression gave them.
    Vector(Vec<ResultSample>),
    /// Samples of series, sorted by labels.
    Matrix(Vec<ResultSeries>),
}

/// A sample of a [`QueryResult::Vector`].
#[derive(Debug, Clone, PartialEq)]
pub struct ResultSample {
    /// Its series.
    pub labels: Labels,
    /// The evaluation time.
    pub t: TimestampMs,
    /// What the series had.
    pub v: Value,
}

/// A series of a [`QueryResult::Matrix`].
#[derive(Debug, Clone, PartialEq)]
pub struct ResultSeries {
    /// Its labels.
    pub labels: Labels,
    /// At least one sample, ascending in time.
    pub samples: Samples,
}

impl QueryResult {
    /// How many samples it holds.
    pub fn samples(&self) -> usize {
        match self {
            QueryResult::Scalar { .. } | QueryResult::String { .. } => 1,
            QueryResult::Vector(samples) => samples.len(),
            QueryResult::Matrix(series) => series.iter().map(|series| series.samples.len()).sum(),
        }
    }

    pub(super) fn vector(matrix: Matrix<'_>, t: TimestampMs) -> QueryResult {
        let sample = |row: &super::Row| Some(ResultSample { labels: row.labels.clone(), t, v: row.column.value(0)? });
        QueryResult::Vector(matrix.rows.iter().filter_map(sample).collect())
    }

    pub(super) fn matrix(matrix: Matrix<'_>, steps: Steps) -> QueryResult {
        let times: Vec<TimestampMs> = steps.iter().collect();
        let series = matrix.rows.into_iter();
        let series = series.map(|row| ResultSeries { labels: row.labels, samples: row.column.into_samples(&times) });
        QueryResult::sorted(series.collect())
    }

    pub(super) fn matrix_of_scalar(values: Vec<f64>, steps: Steps) -> QueryResult {
        if values.is_empty() {
            return QueryResult::Matrix(Vec::new());
        }
        let samples = Samples { timestamps: steps.iter().collect(), floats: values, histograms: Vec::new() };
        QueryResult::Matrix(vec![ResultSeries { labels: Labels::empty(), samples }])
    }

    /// The windows of a range vector at its one step.
    pub(super) fn windows(
        range: RangeVector<'_>,
        t: TimestampMs,
        mut held: Charge<'_>,
    ) -> Result<QueryResult, EvalError> {
        let mut all = Vec::new();
        for series in &range.series {
            let samples = window(&range, series, t)?;
            held.raise(samples.len(), samples.memory_bytes())?;
            if !samples.is_empty() {
                let labels = match series.drop_name {
                    true => super::matrix::without_metadata(&series.labels),
                    false => series.labels.clone(),
                };
                all.push(ResultSeries { labels, samples });
            }
        }
        Ok(QueryResult::sorted(all))
    }

    fn sorted(mut series: Vec<ResultSeries>) -> QueryResult {
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        QueryResult::Matrix(series)
    }
}

/// What a series' window holds, with its ends made up if they are to be.
fn window(range: &RangeVector<'_>, series: &RangeSeries, t: TimestampMs) -> Result<Samples, EvalError> {
    let mut samples = Samples::default();
    let Frame { mode, .. } = range.frame;
    range.windows(&series.points, Steps::once(t), |window| {
        if mode == RangeMode::Plain {
            let mut others = window.histogram_times.iter().zip(window.histograms).peekable();
            for (&t, &v) in window.times.iter().zip(window.values) {
                while let Some((t, h)) = others.next_if(|(other, _)| **other < t) {
                    samples.push(*t, Value::Histogram(h.clone()));
                }
                samples.push_float(t, v);
            }
            others.for_each(|(t, h)| samples.push(*t, Value::Histogram(h.clone())));
        } else if window.histograms.is_empty() {
            samples = extend_floats(&window, mode);
        } else {
            let name = if mode == RangeMode::Anchored { "anchored" } else { "smoothed" };
            return Err(EvalError::Execution(format!("{name} modifier is not supported with histograms")));
        }
        Ok(())
    })?;
    Ok(samples)
}
