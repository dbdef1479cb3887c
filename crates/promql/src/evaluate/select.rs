//! Selectors: what the storage hands out, seen from the evaluation times.

use std::sync::Arc;

use model::{Labels, Samples, TimestampMs, Value, is_stale};

use super::Evaluator;
use super::error::EvalError;
use super::extended::interpolate;
use super::matching::text_of;
use super::matrix::{Column, Matrix, Row};
use super::plan::{Select, SelectRange};
use super::steps::Steps;
use super::storage::Selection;
use super::window::{Points, RangeSeries, RangeVector};

impl<'a> Evaluator<'a> {
    /// The series of a selection, sorted by labels: the order in which floats are added up must not be left to chance.
    pub(super) fn fetch(&self, selection: &Selection) -> Result<Vec<(Labels, Arc<Samples>)>, EvalError> {
        if selection.range.end < selection.range.start {
            return Ok(Vec::new());
        }
        let mut series = self.storage.select(selection)?;
        self.account.check()?;
        if !series.is_sorted_by(|a, b| a.0 <= b.0) {
            series.sort_by(|a, b| a.0.cmp(&b.0));
        }
        Ok(series)
    }

    /// Evaluates an instant selector: at each step the latest sample that is not too old.
    pub(super) fn select(&self, select: &Select, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let series = self.fetch(&select.selection)?;
        let mut matrix = self.matrix();
        let mut held = self.account.charge();
        held.raise(0, series.iter().map(|(_, samples)| samples.memory_bytes()).sum())?;
        for (labels, samples) in series {
            self.cells(steps)?;
            self.account.work(samples.len())?;
            let column = if select.is_smoothed {
                self.smoothed_column(select, &labels, samples, steps)?
            } else {
                latest_column(&samples, self.options.lookback_ms, steps, select)
            };
            matrix.push(Row { labels, drop_name: false, column })?;
        }
        Ok(matrix)
    }

    /// Evaluates an instant selector, but to the samples' own times, in milliseconds.
    ///
    /// Errors: histograms, if only floats make sense.
    pub(super) fn select_origins(
        &self,
        select: &Select,
        steps: Steps,
        only_floats: bool,
    ) -> Result<Matrix<'a>, EvalError> {
        let series = self.fetch(&select.selection)?;
        let mut matrix = self.matrix();
        for (labels, samples) in series {
            self.cells(steps)?;
            let mut column = Column::absent(steps.count());
            let mut has_histograms = false;
            for_each_latest(&samples.timestamps, self.options.lookback_ms, steps, select, |step, i| {
                let is_stale = match samples.value(i) {
                    Value::Float(v) => is_stale(v),
                    Value::Histogram(h) => {
                        has_histograms |= !is_stale(h.sum);
                        is_stale(h.sum)
                    }
                };
                if !is_stale {
                    column.set_float(step, samples.timestamps[i] as f64);
                }
            });
            if only_floats && has_histograms {
                let series = text_of(&labels);
                let why = format!("this should be an info metric, with float samples: {series}");
                return Err(EvalError::Execution(why));
            }
            matrix.push(Row { labels, drop_name: false, column })?;
        }
        Ok(matrix)
    }

    /// Evaluates a range selector.
    pub(super) fn select_range(&self, select: &SelectRange, steps: Steps) -> Result<RangeVector<'a>, EvalError> {
        let selected = if steps.count() == 0 { Vec::new() } else { self.fetch(&select.selection)? };
        let mut charge = self.account.charge();
        let mut series = Vec::with_capacity(selected.len());
        for (labels, samples) in selected {
            self.account.work(samples.len())?;
            let points = Points::from_samples(samples);
            charge.raise(0, points.memory_bytes() + labels.as_bytes().len())?;
            series.push(RangeSeries { labels, drop_name: false, points });
        }
        Ok(RangeVector { series, frame: select.frame, _charge: charge })
    }

    /// A column of values that are interpolated between the samples around each step; without a later one, the last.
    fn smoothed_column(
        &self,
        select: &Select,
        labels: &Labels,
        samples: Arc<Samples>,
        steps: Steps,
    ) -> Result<Column, EvalError> {
        let lookback = self.options.lookback_ms;
        let points = Points::from_samples(samples);
        let (times, values) = points.floats();
        let (histogram_times, _) = points.histograms();
        let mut column = Column::absent(steps.count());
        for (step, t) in steps.iter().enumerate() {
            let t = select.at.unwrap_or(t).saturating_sub(select.offset);
            let seen = |times: &[TimestampMs]| {
                let from = times.partition_point(|&other| other <= t.saturating_sub(lookback));
                from..times.partition_point(|&other| other <= t.saturating_add(lookback)).max(from)
            };
            let (floats, histograms) = (seen(times), seen(histogram_times));
            if !histograms.is_empty() {
                if floats.is_empty() {
                    return Err(EvalError::native_histogram("smoothed selectors"));
                }
                self.annotate(|all| all.mixed_floats_histograms(labels.metric_name(), select.position));
                continue;
            }
            let next = floats.start + times[floats.clone()].partition_point(|&other| other < t);
            if next < floats.end && times[next] == t {
                column.set_float(step, values[next]);
            } else if next > floats.start && next < floats.end {
                let (left, right) = ((times[next - 1], values[next - 1]), (times[next], values[next]));
                column.set_float(step, interpolate(left, right, t, false));
            } else if next > floats.start {
                column.set_float(step, values[next - 1]);
            }
        }
        Ok(column)
    }
}

/// Calls `see` with each step, and with the index of its latest sample unless that is too old. It may be a stale marker.
#[inline]
fn for_each_latest(
    times: &[TimestampMs],
    lookback: i64,
    steps: Steps,
    select: &Select,
    mut see: impl FnMut(usize, usize),
) {
    // Index of the first sample after the time that is looked at; it only grows.
    let mut next = 0;
    for (step, t) in steps.iter().enumerate() {
        let t = select.at.unwrap_or(t).saturating_sub(select.offset);
        while next < times.len() && times[next] <= t {
            next += 1;
        }
        if next > 0 && times[next - 1] > t.saturating_sub(lookback) {
            see(step, next - 1);
        }
    }
}

/// A column with each step's latest sample.
fn latest_column(samples: &Samples, lookback: i64, steps: Steps, select: &Select) -> Column {
    let mut column = Column::absent(steps.count());
    let Samples { timestamps, floats, .. } = samples;
    if samples.is_float() {
        // A stale marker leaves a cell as empty as it was.
        for_each_latest(timestamps, lookback, steps, select, |step, i| column.set_float(step, floats[i]));
        return column;
    }
    for_each_latest(timestamps, lookback, steps, select, |step, i| match samples.value(i) {
        Value::Histogram(h) if is_stale(h.sum) => {}
        v => column.set(step, v),
    });
    column
}
