//! Functions of range vectors: one window function at a time over a series' samples.

use model::{TimestampMs, Value};

use super::super::Evaluator;
use super::super::error::EvalError;
use super::super::extended::extended_increase;
use super::super::kahan::{KahanMean, KahanSum};
use super::super::matrix::{Column, Matrix, Row};
use super::super::plan::{CallNode, Node};
use super::super::quantile::quantile;
use super::super::steps::Steps;
use super::super::window::{Frame, Points, Window};
use super::rate::{ChangeKind, Resets, between_last_two, extrapolated, range_seconds};
use super::regression::{double_exponential_smoothing, linear_regression};
use crate::ast::RangeMode;
use crate::function::Function;

/// Suffixes that tell a counter by its name.
const COUNTER_SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

/// Computes what a function has for one window; None: no sample at that step.
type Kernel<'k> = Box<dyn FnMut(Window<'_>, &mut Notes) -> Result<Option<Value>, EvalError> + 'k>;

/// What is to be said about a series once all its windows were seen.
#[derive(Default)]
struct Notes {
    /// Some window had both kinds of samples, and the function can't do with that.
    mixed: bool,
    /// Some window had histograms that were left out.
    histograms_ignored: bool,
    /// The last quantile that was not between 0 and 1.
    invalid_quantiles: Vec<f64>,
}

impl<'a> Evaluator<'a> {
    /// Evaluates a function that has a range vector among its arguments, the one at index `range_arg`.
    pub(super) fn over_range(&self, call: &CallNode, range_arg: usize, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let range = self.range(&call.args[range_arg].node, steps)?;
        check_mode(call.function, range.frame.mode)?;
        let scalars = call.args.iter().enumerate().filter(|(i, _)| *i != range_arg);
        let scalars = scalars.map(|(_, arg)| self.scalar(&arg.node, steps)).collect::<Result<Vec<_>, _>>()?;
        let keeps_name = matches!(call.function, Function::LastOverTime | Function::FirstOverTime);
        let position = call.args[0].position;
        let mut matrix = self.matrix();
        for series in &range.series {
            self.cells(steps)?;
            self.account.work(series.points.floats().0.len())?;
            let mut notes = Notes::default();
            let mut column = Column::absent(steps.count());
            let mut kernel = kernel(call.function, range.frame, &scalars, &series.points);
            range.windows(&series.points, steps, |window| {
                self.account.work(window.values.len())?;
                if let Some(v) = kernel(window, &mut notes)? {
                    column.set(window.step, v);
                }
                Ok(())
            })?;
            let name = series.labels.metric_name();
            self.annotate(|all| {
                if notes.mixed {
                    all.mixed_floats_histograms(name, position);
                }
                if notes.histograms_ignored {
                    all.histogram_ignored_in_mixed_range(name, position);
                }
                for q in notes.invalid_quantiles {
                    all.invalid_quantile(q, position);
                }
                let is_counted = matches!(call.function, Function::Rate | Function::Increase);
                let is_named_so = COUNTER_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
                if is_counted && !name.is_empty() && !is_named_so && !column.is_empty() {
                    all.possible_non_counter(name, position);
                }
            });
            let drop_name = !keeps_name || series.drop_name;
            matrix.push(Row { labels: series.labels.clone(), drop_name, column })?;
        }
        Ok(matrix)
    }

    /// `absent_over_time`: 1 at the steps at which no series has a sample in its window.
    pub(super) fn absent_over_time(&self, call: &CallNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let present = self.over_range(call, 0, steps)?;
        self.absent_where(&present, &call.args[0].matchers, steps)
    }
}

/// `anchored` and `smoothed` ranges hold samples from beyond the window, which only few functions expect.
fn check_mode(function: Function, mode: RangeMode) -> Result<(), EvalError> {
    let (name, functions): (_, &[Function]) = match mode {
        RangeMode::Plain => return Ok(()),
        RangeMode::Anchored => {
            ("anchored", &[Function::Changes, Function::Delta, Function::Increase, Function::Rate, Function::Resets])
        }
        RangeMode::Smoothed => ("smoothed", &[Function::Delta, Function::Increase, Function::Rate]),
    };
    if functions.contains(&function) {
        return Ok(());
    }
    let names = functions.iter().map(|function| function.name()).collect::<Vec<_>>().join(", ");
    let function = function.name();
    Err(EvalError::Execution(format!("{name} modifier can only be used with: {names} - not with {function}")))
}

/// The function as it is applied to each window of one series. `scalars` are its other arguments.
fn kernel<'k>(function: Function, frame: Frame, scalars: &'k [Vec<f64>], points: &Points) -> Kernel<'k> {
    match function {
        Function::Rate => change(function, ChangeKind { is_counter: true, per_second: true }, frame, points),
        Function::Increase => change(function, ChangeKind { is_counter: true, per_second: false }, frame, points),
        Function::Delta => change(function, ChangeKind { is_counter: false, per_second: false }, frame, points),
        Function::Irate => last_two(function, true),
        Function::Idelta => last_two(function, false),
        Function::Resets => transitions(function, frame.mode, |before, v| v < before),
        Function::Changes => {
            transitions(function, frame.mode, |before, v| v != before && !(v.is_nan() && before.is_nan()))
        }
        Function::SumOverTime => all_of_one_kind(function, |window| {
            let mut sum = KahanSum::default();
            window.values.iter().for_each(|&v| sum.add(v));
            if sum.sum.is_infinite() { sum.sum } else { sum.value() }
        }),
        Function::AvgOverTime => all_of_one_kind(function, |window| {
            let mut mean = KahanMean::of(window.values[0]);
            window.values[1..].iter().for_each(|&v| mean.add(v));
            mean.value()
        }),
        Function::MinOverTime => of_floats(1, |window| Ok(extreme(window, |v, so_far| v < so_far).1)),
        Function::MaxOverTime => of_floats(1, |window| Ok(extreme(window, |v, so_far| v > so_far).1)),
        Function::TsOfMinOverTime => of_floats(1, |window| Ok(in_seconds(extreme(window, |v, so_far| v <= so_far).0))),
        Function::TsOfMaxOverTime => of_floats(1, |window| Ok(in_seconds(extreme(window, |v, so_far| v >= so_far).0))),
        Function::StdvarOverTime => of_floats(1, |window| Ok(variance(window.values))),
        Function::StddevOverTime => of_floats(1, |window| Ok(variance(window.values).sqrt())),
        Function::MadOverTime => of_floats(1, |window| Ok(median_deviation(window.values))),
        Function::QuantileOverTime => quantile_over_time(&scalars[0]),
        Function::Deriv => of_floats(2, |window| Ok(linear_regression(window.times, window.values, window.times[0]).0)),
        Function::PredictLinear => {
            let ahead = &scalars[0];
            of_floats(2, |window| {
                let (slope, intercept) = linear_regression(window.times, window.values, window.t);
                Ok(slope * ahead[window.step] + intercept)
            })
        }
        Function::DoubleExponentialSmoothing => smoothing(&scalars[0], &scalars[1]),
        Function::CountOverTime => any(|window| (window.values.len() + window.histograms.len()) as f64),
        Function::TsOfFirstOverTime => any(|window| {
            let first = [window.times.first(), window.histogram_times.first()].into_iter().flatten().min();
            in_seconds(first.copied().unwrap_or_default())
        }),
        Function::TsOfLastOverTime => any(|window| {
            let last = [window.times.last(), window.histogram_times.last()].into_iter().flatten().max();
            in_seconds(last.copied().unwrap_or_default())
        }),
        Function::PresentOverTime | Function::AbsentOverTime => any(|_| 1.0),
        Function::FirstOverTime => Box::new(|window, _| Ok(first_value(&window))),
        Function::LastOverTime => Box::new(|window, _| Ok(last_value(&window))),
        other => {
            let name = other.name();
            Box::new(move |_, _| Err(EvalError::BadData(format!("{name} does not take a range vector"))))
        }
    }
}

/// A function of what there is, whatever its kind.
fn any<'k>(f: impl Fn(Window<'_>) -> f64 + 'k) -> Kernel<'k> {
    Box::new(move |window, _| Ok(Some(Value::Float(f(window)))))
}

/// A function of a window's floats, if they are at least `min`; histograms are left out.
fn of_floats<'k>(min: usize, mut f: impl FnMut(Window<'_>) -> Result<f64, EvalError> + 'k) -> Kernel<'k> {
    Box::new(move |window, notes| {
        if !window.values.is_empty() && !window.histograms.is_empty() {
            notes.histograms_ignored = true;
        }
        if window.values.len() < min { Ok(None) } else { Ok(Some(Value::Float(f(window)?))) }
    })
}

/// A function of floats that makes no sense for a window with both kinds of samples.
fn all_of_one_kind<'k>(function: Function, f: impl Fn(Window<'_>) -> f64 + 'k) -> Kernel<'k> {
    Box::new(move |window, notes| {
        if window.histograms.is_empty() {
            return Ok(Some(Value::Float(f(window))));
        }
        if window.values.is_empty() {
            return Err(EvalError::native_histogram(function.name()));
        }
        notes.mixed = true;
        Ok(None)
    })
}

fn change<'k>(function: Function, kind: ChangeKind, frame: Frame, points: &Points) -> Kernel<'k> {
    let values = if kind.is_counter { points.floats().1 } else { &[] };
    let mut resets = Resets::of(values);
    Box::new(move |window, notes| {
        if !window.histograms.is_empty() {
            if !window.values.is_empty() {
                notes.mixed = true;
            } else if window.histograms.len() > 1 || frame.mode != RangeMode::Plain {
                return Err(EvalError::native_histogram(function.name()));
            }
            return Ok(None);
        }
        if frame.mode == RangeMode::Plain {
            return Ok(extrapolated(&window, kind, &mut resets, frame.range).map(Value::Float));
        }
        let increase = extended_increase(&window, frame.mode, kind.is_counter);
        let per = if kind.per_second { range_seconds(frame.range) } else { 1.0 };
        Ok(increase.map(|increase| Value::Float(increase / per)))
    })
}

fn last_two<'k>(function: Function, is_rate: bool) -> Kernel<'k> {
    Box::new(move |window, notes| {
        let Window { times, values, histogram_times, .. } = window;
        if values.len() + histogram_times.len() < 2 {
            return Ok(None);
        }
        // How many histograms are among the last two samples.
        let before_last_float = values.len().checked_sub(2).map(|i| times[i]);
        let last_float = times.last();
        let newer = |than: Option<TimestampMs>| {
            than.map_or(histogram_times.len(), |than| histogram_times.iter().filter(|&&t| t > than).count())
        };
        match (newer(before_last_float).min(2), newer(last_float.copied()).min(2)) {
            (0, _) => {
                let n = values.len();
                let before = (times[n - 2], values[n - 2]);
                Ok(between_last_two(before, (times[n - 1], values[n - 1]), is_rate).map(Value::Float))
            }
            (_, 2) => Err(EvalError::native_histogram(function.name())),
            _ => {
                notes.mixed = true;
                Ok(None)
            }
        }
    })
}

/// Counts the pairs of adjacent samples that satisfy `counts`, and each change between floats and histograms.
fn transitions<'k>(function: Function, mode: RangeMode, counts: impl Fn(f64, f64) -> bool + 'k) -> Kernel<'k> {
    Box::new(move |window, _| {
        let Some((times, values, histogram_times)) = from_anchor(&window, mode) else { return Ok(None) };
        let mut count = values.windows(2).filter(|pair| counts(pair[0], pair[1])).count();
        if !histogram_times.is_empty() {
            // Each float that lies alone between histograms, and so on: walk both lists in the order of time.
            let mut kinds: Vec<(TimestampMs, Option<f64>)> =
                times.iter().copied().zip(values.iter().copied().map(Some)).collect();
            kinds.extend(histogram_times.iter().map(|&t| (t, None)));
            kinds.sort_by_key(|(t, _)| *t);
            count = 0;
            for pair in kinds.windows(2) {
                count += match (pair[0].1, pair[1].1) {
                    (Some(before), Some(v)) => usize::from(counts(before, v)),
                    (None, None) => return Err(EvalError::native_histogram(function.name())),
                    _ => 1,
                };
            }
        }
        Ok(Some(Value::Float(count as f64)))
    })
}

/// The samples of a window; of an anchored one those from the last before its beginning on, or None if no other follows.
fn from_anchor<'w>(window: &Window<'w>, mode: RangeMode) -> Option<(&'w [TimestampMs], &'w [f64], &'w [TimestampMs])> {
    let Window { times, values, histogram_times, start, .. } = *window;
    if mode != RangeMode::Anchored {
        return Some((times, values, histogram_times));
    }
    let mut floats = times.partition_point(|&t| t <= start);
    let mut histograms = histogram_times.partition_point(|&t| t <= start);
    if floats == times.len() && histograms == histogram_times.len() {
        return None;
    }
    let float = floats.checked_sub(1).map(|i| times[i]);
    let histogram = histograms.checked_sub(1).map(|i| histogram_times[i]);
    match (float, histogram) {
        (None, None) => {}
        (Some(float), histogram) if histogram.is_none_or(|histogram| float >= histogram) => floats -= 1,
        _ => histograms -= 1,
    }
    Some((&times[floats..], &values[floats..], &histogram_times[histograms..]))
}

/// The first sample that is `better` than those before it, or not NaN after NaNs.
fn extreme(window: Window<'_>, better: impl Fn(f64, f64) -> bool) -> (TimestampMs, f64) {
    let (mut t, mut so_far) = (window.times[0], window.values[0]);
    for (&next, &v) in window.times.iter().zip(window.values) {
        if better(v, so_far) || so_far.is_nan() {
            (t, so_far) = (next, v);
        }
    }
    (t, so_far)
}

/// The variance by Welford's method, its sums compensated.
fn variance(values: &[f64]) -> f64 {
    let mut count = 0.0;
    let mut mean = KahanSum::default();
    let mut squares = KahanSum::default();
    for &v in values {
        count += 1.0;
        let delta = v - mean.value();
        mean.add(delta / count);
        squares.add(delta * (v - mean.value()));
    }
    squares.value() / count
}

/// The median of the distances from the median; NaN if some value is.
fn median_deviation(values: &[f64]) -> f64 {
    if values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let mut values = values.to_vec();
    let median = quantile(0.5, &mut values);
    values.iter_mut().for_each(|v| *v = (*v - median).abs());
    quantile(0.5, &mut values)
}

fn quantile_over_time(quantiles: &[f64]) -> Kernel<'_> {
    let mut sorted = Vec::new();
    Box::new(move |window, notes| {
        if window.values.is_empty() {
            return Ok(None);
        }
        let q = quantiles[window.step];
        if !(0.0..=1.0).contains(&q) && !notes.invalid_quantiles.iter().any(|seen| seen.to_bits() == q.to_bits()) {
            notes.invalid_quantiles.push(q);
        }
        notes.histograms_ignored |= !window.histograms.is_empty();
        sorted.clear();
        sorted.extend_from_slice(window.values);
        Ok(Some(Value::Float(quantile(q, &mut sorted))))
    })
}

fn smoothing<'k>(factors: &'k [f64], trends: &'k [f64]) -> Kernel<'k> {
    Box::new(move |window, notes| {
        let smoothed = double_exponential_smoothing(window.values, factors[window.step], trends[window.step])?;
        notes.histograms_ignored |= !window.values.is_empty() && !window.histograms.is_empty();
        Ok((window.values.len() > 1).then_some(Value::Float(smoothed)))
    })
}

fn first_value(window: &Window<'_>) -> Option<Value> {
    match (window.times.first(), window.histogram_times.first()) {
        (Some(float), histogram) if histogram.is_none_or(|histogram| float < histogram) => {
            window.values.first().copied().map(Value::Float)
        }
        _ => window.histograms.first().cloned().map(Value::Histogram),
    }
}

fn last_value(window: &Window<'_>) -> Option<Value> {
    match (window.times.last(), window.histogram_times.last()) {
        (Some(float), histogram) if histogram.is_none_or(|histogram| float > histogram) => {
            window.values.last().copied().map(Value::Float)
        }
        _ => window.histograms.last().cloned().map(Value::Histogram),
    }
}

fn in_seconds(t: TimestampMs) -> f64 {
    t as f64 / 1000.0
}

/// Whether a node is a range vector.
pub(super) fn is_range(node: &Node) -> bool {
    matches!(node, Node::SelectRange(_) | Node::Subquery(_))
}
