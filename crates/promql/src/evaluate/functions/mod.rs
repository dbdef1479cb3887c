//! The functions. Which is which is one `match`; what they do is in the modules below.

mod absent;
mod classic;
mod info;
mod label;
pub(super) mod math;
mod order;
mod over_time;
mod rate;
mod regression;

use model::{Histogram, Labels};

pub(super) use label::is_label_name;

use super::Evaluator;
use super::date::DateTime;
use super::error::EvalError;
use super::matrix::{Column, Matrix};
use super::plan::{CallNode, Node};
use super::steps::Steps;
use crate::function::Function;

impl<'a> Evaluator<'a> {
    /// Evaluates a call that returns an instant vector.
    pub(super) fn call(&self, call: &CallNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        match call.function {
            Function::AbsentOverTime => return self.absent_over_time(call, steps),
            Function::Absent => return self.absent(call, steps),
            Function::Info => return self.info(call, steps),
            Function::LabelReplace => return self.label_replace(call, steps),
            Function::LabelJoin => return self.label_join(call, steps),
            Function::HistogramQuantile => return self.histogram_quantile(call, steps),
            Function::HistogramQuantiles => return self.histogram_quantiles(call, steps),
            Function::HistogramFraction => return self.histogram_fraction(call, steps),
            Function::Sort | Function::SortDesc | Function::SortByLabel | Function::SortByLabelDesc => {
                return self.sort(call, steps);
            }
            Function::Timestamp => return self.timestamp(call, steps),
            Function::Vector => {
                let values = self.scalar(&call.args[0].node, steps)?;
                return self.matrix_of(Labels::empty(), false, Column::from_floats(values));
            }
            _ => {}
        }
        if let Some(range_arg) = call.args.iter().position(|arg| over_time::is_range(&arg.node)) {
            return self.over_range(call, range_arg, steps);
        }
        let Some(first) = call.args.first() else { return self.of_now(call.function, steps) };
        let mut matrix = self.vector(&first.node, steps)?;
        match call.function {
            Function::HistogramCount => map_histograms(&mut matrix, Histogram::count),
            Function::HistogramSum => map_histograms(&mut matrix, |h| h.sum),
            Function::HistogramAvg => map_histograms(&mut matrix, |h| h.sum / h.count()),
            Function::HistogramStddev | Function::HistogramStdvar => {
                if matrix.has_histograms() {
                    return Err(EvalError::native_histogram(call.function.name()));
                }
                matrix.rows.clear();
            }
            // Start timestamps are not stored.
            Function::StartTimestamp => matrix.rows.clear(),
            Function::Clamp | Function::ClampMin | Function::ClampMax | Function::Round => {
                let scalars = call.args[1..].iter().map(|arg| self.scalar(&arg.node, steps));
                let scalars = scalars.collect::<Result<Vec<_>, _>>()?;
                bound(call.function, &scalars, &mut matrix);
            }
            function => {
                let f = float_function(function)?;
                map(&mut matrix, |_, v| f(v));
            }
        }
        Ok(matrix)
    }

    /// Evaluates a call that returns a scalar.
    pub(super) fn call_scalar(&self, call: &CallNode, steps: Steps) -> Result<Vec<f64>, EvalError> {
        let of_two = |f: fn(f64, f64) -> f64| {
            let mut a = self.scalar(&call.args[0].node, steps)?;
            let b = self.scalar(&call.args[1].node, steps)?;
            a.iter_mut().zip(b).for_each(|(a, b)| *a = f(*a, b));
            Ok(a)
        };
        match call.function {
            Function::Time => Ok(steps.iter().map(|t| t as f64 / 1000.0).collect()),
            Function::Pi => Ok(vec![std::f64::consts::PI; steps.count()]),
            Function::MaxOf => of_two(math::max),
            Function::MinOf => of_two(math::min),
            Function::Scalar => Ok(only_floats(&self.vector(&call.args[0].node, steps)?, steps)),
            other => Err(EvalError::BadData(format!("{} does not return a scalar", other.name()))),
        }
    }

    /// `hour()` and its like without an argument: of the evaluation time.
    fn of_now(&self, function: Function, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let f = date_function(function)?;
        let values = steps.iter().map(|t| f(DateTime::of_unix(t / 1000))).collect();
        self.matrix_of(Labels::empty(), false, Column::from_floats(values))
    }

    /// The samples' times in seconds: of a selector the stored ones, of anything else the evaluation times.
    fn timestamp(&self, call: &CallNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let arg = &call.args[0].node;
        if let Node::Select(select) = arg {
            let mut matrix = self.select_origins(select, steps, false)?;
            map(&mut matrix, |_, t| t / 1000.0);
            return Ok(matrix);
        }
        let mut matrix = self.vector(arg, steps)?;
        for row in &mut matrix.rows {
            let mut times = Column::absent(steps.count());
            for (i, t) in steps.iter().enumerate() {
                if row.column.is_present(i) {
                    times.set_float(i, t as f64 / 1000.0);
                }
            }
            row.column = times;
            row.drop_name = true;
        }
        Ok(matrix)
    }
}

/// At each step the one float there is, or NaN.
fn only_floats(matrix: &Matrix<'_>, steps: Steps) -> Vec<f64> {
    let only = |i| {
        let mut floats = matrix.rows.iter().filter_map(|row| row.column.float(i));
        match (floats.next(), floats.next()) {
            (Some(v), None) => v,
            _ => f64::NAN,
        }
    };
    (0..steps.count()).map(only).collect()
}

/// Replaces every float by `f` of its step and value; histograms are left out, names lost.
fn map(matrix: &mut Matrix<'_>, mut f: impl FnMut(usize, f64) -> f64) {
    for row in &mut matrix.rows {
        row.drop_name = true;
        row.column.map_floats(&mut f);
    }
    matrix.remove_empty();
}

/// Replaces every histogram by a number; floats are left out, names lost.
fn map_histograms(matrix: &mut Matrix<'_>, f: impl Fn(&Histogram) -> f64) {
    for row in &mut matrix.rows {
        let mut numbers = Column::absent(row.column.len());
        for i in 0..row.column.len() {
            if let Some(histogram) = row.column.histogram(i) {
                numbers.set_float(i, f(histogram));
            }
        }
        row.column = numbers;
        row.drop_name = true;
    }
    matrix.remove_empty();
}

/// `clamp` and its like, and `round`: their bounds may differ from step to step.
fn bound(function: Function, scalars: &[Vec<f64>], matrix: &mut Matrix<'_>) {
    if function == Function::Round {
        let to = |i: usize| scalars.first().map_or(1.0, |nearest| nearest[i]);
        return map(matrix, |i, v| math::round_to(v, to(i)));
    }
    let (min, max): (&dyn Fn(usize) -> f64, &dyn Fn(usize) -> f64) = match function {
        Function::ClampMin => (&|i| scalars[0][i], &|_| f64::INFINITY),
        Function::ClampMax => (&|_| f64::NEG_INFINITY, &|i| scalars[0][i]),
        _ => (&|i| scalars[0][i], &|i| scalars[1][i]),
    };
    for row in &mut matrix.rows {
        row.column.retain(|i| max(i) >= min(i) || max(i).is_nan() || min(i).is_nan());
    }
    map(matrix, |i, v| math::max(min(i), math::min(max(i), v)));
}

/// The functions that look at one float at a time.
fn float_function(function: Function) -> Result<Box<dyn Fn(f64) -> f64>, EvalError> {
    Ok(Box::new(match function {
        Function::Abs => f64::abs,
        Function::Ceil => f64::ceil,
        Function::Floor => f64::floor,
        Function::Exp => f64::exp,
        Function::Sqrt => f64::sqrt,
        Function::Ln => f64::ln,
        Function::Log2 => f64::log2,
        Function::Log10 => f64::log10,
        Function::Sin => f64::sin,
        Function::Cos => f64::cos,
        Function::Tan => f64::tan,
        Function::Asin => f64::asin,
        Function::Acos => f64::acos,
        Function::Atan => f64::atan,
        Function::Sinh => f64::sinh,
        Function::Cosh => f64::cosh,
        Function::Tanh => f64::tanh,
        Function::Asinh => f64::asinh,
        Function::Acosh => f64::acosh,
        Function::Atanh => f64::atanh,
        Function::Rad => math::to_radians,
        Function::Deg => math::to_degrees,
        Function::Sgn => math::sign,
        _ => {
            let f = date_function(function)?;
            return Ok(Box::new(move |v| f(DateTime::of_unix(math::whole_seconds(v)))));
        }
    }))
}

/// The functions of a moment.
fn date_function(function: Function) -> Result<fn(DateTime) -> f64, EvalError> {
    Ok(match function {
        Function::Year => |moment| moment.year as f64,
        Function::Month => |moment| f64::from(moment.month),
        Function::DayOfMonth => |moment| f64::from(moment.day),
        Function::DayOfWeek => |moment| f64::from(moment.weekday),
        Function::DayOfYear => |moment| f64::from(moment.day_of_year()),
        Function::DaysInMonth => |moment| f64::from(moment.days_in_month()),
        Function::Hour => |moment| f64::from(moment.hour),
        Function::Minute => |moment| f64::from(moment.minute),
        other => return Err(EvalError::BadData(format!("{} is not a function of one vector", other.name()))),
    })
}
