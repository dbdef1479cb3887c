//! Range vectors: each series' points, and the window over them that moves from step to step.
//!
//! A window's ends only ever move forward, so two indices slide over the points; nothing is searched again at each step.

use std::sync::Arc;

use model::{Histogram, Labels, Samples, TimestampMs, is_stale};

use super::budget::Charge;
use super::error::EvalError;
use super::matrix::{Matrix, Row};
use super::steps::Steps;
use crate::ast::RangeMode;

/// A window of samples of each series, at every step.
pub(crate) struct RangeVector<'a> {
    /// The series, with the points of all their windows.
    pub series: Vec<RangeSeries>,
    /// Where the windows lie.
    pub frame: Frame,
    /// What the points hold; kept with them.
    pub _charge: Charge<'a>,
}

/// A series and its points.
pub(crate) struct RangeSeries {
    /// Its labels.
    pub labels: Labels,
    /// As of [`Row`].
    pub drop_name: bool,
    /// Its points, without stale markers.
    pub points: Points,
}

/// Where the windows of a range selector or subquery lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Frame {
    /// Milliseconds; a window is (end − range, end].
    pub range: i64,
    /// A window's end is so much before the step's time.
    pub offset: i64,
    /// Instead of each step's time.
    pub at: Option<TimestampMs>,
    /// Whether windows look beyond their ends, by `lookback`.
    pub mode: RangeMode,
    /// Milliseconds.
    pub lookback: i64,
}

impl Frame {
    /// Where the window of the step at `t` begins (excluded) and ends (included), without what it sees beyond.
    pub fn bounds(&self, t: TimestampMs) -> (TimestampMs, TimestampMs) {
        let end = self.at.unwrap_or(t).saturating_sub(self.offset);
        (end.saturating_sub(self.range), end)
    }

    /// From where (excluded) to where (included) the window of the step at `t` sees points.
    pub fn sight(&self, t: TimestampMs) -> (TimestampMs, TimestampMs) {
        let (start, end) = self.bounds(t);
        match self.mode {
            RangeMode::Plain => (start, end),
            RangeMode::Anchored => (start.saturating_sub(self.lookback), end),
            RangeMode::Smoothed => (start.saturating_sub(self.lookback), end.saturating_add(self.lookback)),
        }
    }
}

/// A series' points, floats and histograms apart, each ascending in time.
pub(crate) enum Points {
    /// As the storage handed them out: only floats, no stale marker.
    Stored(Arc<Samples>),
    /// Sorted out, or made by a subquery.
    Sorted(SortedPoints),
}

/// See [`Points`].
#[derive(Default)]
pub(crate) struct SortedPoints {
    times: Vec<TimestampMs>,
    values: Vec<f64>,
    histogram_times: Vec<TimestampMs>,
    histograms: Vec<Arc<Histogram>>,
}

impl Points {
    /// The points of stored samples: what is stale is left out.
    pub fn from_samples(samples: Arc<Samples>) -> Points {
        if samples.is_float() && !samples.floats.iter().any(|v| is_stale(*v)) {
            return Points::Stored(samples);
        }
        let mut sorted = SortedPoints::default();
        for (i, &t) in samples.timestamps.iter().enumerate() {
            match samples.histograms.get(i) {
                Some(Some(h)) if is_stale(h.sum) => {}
                Some(Some(h)) => {
                    sorted.histogram_times.push(t);
                    sorted.histograms.push(h.clone());
                }
                _ if is_stale(samples.floats[i]) => {}
                _ => {
                    sorted.times.push(t);
                    sorted.values.push(samples.floats[i]);
                }
            }
        }
        Points::Sorted(sorted)
    }

    /// The points of an evaluated series: one for each cell that is not empty.
    pub fn from_row(row: &Row, steps: Steps) -> Points {
        let mut sorted = SortedPoints::default();
        for (i, t) in steps.iter().enumerate() {
            if let Some(v) = row.column.float(i) {
                sorted.times.push(t);
                sorted.values.push(v);
            } else if let Some(h) = row.column.histogram(i) {
                sorted.histogram_times.push(t);
                sorted.histograms.push(h.clone());
            }
        }
        Points::Sorted(sorted)
    }

    /// The floats.
    pub fn floats(&self) -> (&[TimestampMs], &[f64]) {
        match self {
            Points::Stored(samples) => (&samples.timestamps, &samples.floats),
            Points::Sorted(sorted) => (&sorted.times, &sorted.values),
        }
    }

    /// The histograms.
    pub fn histograms(&self) -> (&[TimestampMs], &[Arc<Histogram>]) {
        match self {
            Points::Stored(_) => (&[], &[]),
            Points::Sorted(sorted) => (&sorted.histogram_times, &sorted.histograms),
        }
    }

    /// Bytes that they hold, histograms' buckets not counted.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Points::Stored(samples) => samples.memory_bytes(),
            Points::Sorted(sorted) => (sorted.times.len() + sorted.histogram_times.len()) * 16,
        }
    }
}

/// What a function sees of one series at one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'p> {
    /// The floats' times.
    pub times: &'p [TimestampMs],
    /// The floats.
    pub values: &'p [f64],
    /// The histograms' times.
    pub histogram_times: &'p [TimestampMs],
    /// The histograms.
    pub histograms: &'p [Arc<Histogram>],
    /// Where the window begins, excluded. Points before it are seen only if the range is anchored or smoothed.
    pub start: TimestampMs,
    /// Where it ends, included. Points after it are seen only if the range is smoothed.
    pub end: TimestampMs,
    /// The step's time.
    pub t: TimestampMs,
    /// The step's number.
    pub step: usize,
    /// The index of the first float among all of the series'.
    pub first: usize,
}

/// The indices of the points in a window, which slides forward over them.
#[derive(Debug, Clone, Copy, Default)]
struct Slider {
    from: usize,
    to: usize,
}

impl Slider {
    /// Moves to (`after`, `upto`]; neither may be less than the time before.
    #[inline]
    fn slide(&mut self, times: &[TimestampMs], after: TimestampMs, upto: TimestampMs) {
        while self.to < times.len() && times[self.to] <= upto {
            self.to += 1;
        }
        while self.from < self.to && times[self.from] <= after {
            self.from += 1;
        }
    }
}

impl RangeVector<'_> {
    /// Calls `see` with each window of a series that is not empty.
    pub fn windows(
        &self,
        points: &Points,
        steps: Steps,
        mut see: impl FnMut(Window<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let (times, values) = points.floats();
        let (histogram_times, histograms) = points.histograms();
        let mut floats = Slider::default();
        let mut others = Slider::default();
        for (step, t) in steps.iter().enumerate() {
            let (start, end) = self.frame.bounds(t);
            let (after, upto) = self.frame.sight(t);
            floats.slide(times, after, upto);
            others.slide(histogram_times, after, upto);
            if floats.from == floats.to && others.from == others.to {
                continue;
            }
            see(Window {
                times: &times[floats.from..floats.to],
                values: &values[floats.from..floats.to],
                histogram_times: &histogram_times[others.from..others.to],
                histograms: &histograms[others.from..others.to],
                start,
                end,
                t,
                step,
                first: floats.from,
            })?;
        }
        Ok(())
    }
}

/// Turns the evaluation of a subquery into the points of its windows.
pub(crate) fn points_of<'a>(
    matrix: Matrix<'a>,
    steps: Steps,
    frame: Frame,
    mut charge: Charge<'a>,
) -> Result<RangeVector<'a>, EvalError> {
    let mut series = Vec::with_capacity(matrix.rows.len());
    for row in &matrix.rows {
        let points = Points::from_row(row, steps);
        let (floats, histograms) = (points.floats().0.len(), points.histograms().0.len());
        charge.raise(floats + histograms, points.memory_bytes())?;
        series.push(RangeSeries { labels: row.labels.clone(), drop_name: row.drop_name, points });
    }
    Ok(RangeVector { series, frame, _charge: charge })
}

#[cfg(test)]
mod tests {
    use super::super::budget::{Account, Unlimited};
    use super::*;
    use model::{Sample, stale_marker};

    #[test]
    fn windows_are_open_to_the_left_and_skip_stale_markers() {
        let samples: Samples = [(0, 0.0), (10, 1.0), (20, stale_marker()), (30, 3.0), (40, 4.0)]
            .map(|(t, v)| Sample::float(t, v))
            .into_iter()
            .collect();
        let points = Points::from_samples(Arc::new(samples));
        let account = Account::new(&Unlimited, 100);
        let frame = Frame { range: 20, offset: 0, at: None, mode: RangeMode::Plain, lookback: 100 };
        let vector = RangeVector { series: Vec::new(), frame, _charge: account.charge() };
        let mut seen = Vec::new();
        vector
            .windows(&points, Steps { start: 20, end: 90, interval: 10 }, |window| {
                seen.push((window.t, window.values.to_vec()));
                Ok(())
            })
            .unwrap();
        let expected = [(20, vec![1.0]), (30, vec![3.0]), (40, vec![3.0, 4.0]), (50, vec![4.0])];
        assert_eq!(seen, expected);
    }
}
