//! Aggregations: the series of a group become one.
//!
//! A group is folded series by series into one accumulator a step, in the order of the series, so that sums are rounded
//! as Prometheus rounds them. `topk` and its like, which keep series, are in `top`.

use std::collections::HashMap;

use model::{Labels, LabelsBuilder, METRIC_NAME};

use super::Evaluator;
use super::error::EvalError;
use super::functions::is_label_name;
use super::go_format::{format_decimal, quote};
use super::kahan::{KahanMean, KahanSum};
use super::matrix::{Column, Matrix, Row};
use super::plan::{AggregateNode, Arg, Node};
use super::quantile::quantile;
use super::steps::Steps;
use crate::ast::AggregateOp;

/// The rows of one group.
pub(super) struct Group {
    /// What they have in common.
    pub labels: Labels,
    /// Their indices, ascending.
    pub rows: Vec<usize>,
}

impl<'a> Evaluator<'a> {
    /// Evaluates an aggregation.
    pub(super) fn aggregate(&self, aggregate: &AggregateNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        match aggregate.op {
            AggregateOp::CountValues => return self.count_values(aggregate, steps),
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
                return self.top(aggregate, steps);
            }
            _ => {}
        }
        if let Some(matrix) = self.in_shares(aggregate, steps)? {
            return Ok(matrix);
        }
        let param = self.aggregate_param(aggregate, steps)?;
        let matrix = self.vector(&aggregate.expr.node, steps)?;
        if let (AggregateOp::Quantile, Some(arg)) = (aggregate.op, &aggregate.param) {
            self.check_quantile_extremes(&param, arg);
        }
        let mut out = self.matrix();
        for group in groups(&matrix.rows, aggregate) {
            self.cells(steps)?;
            self.account.work(group.rows.len().saturating_mul(steps.count()))?;
            let rows: Vec<&Row> = group.rows.iter().map(|&i| &matrix.rows[i]).collect();
            let column = self.aggregate_group(aggregate, &rows, &param, steps)?;
            out.push(Row { drop_name: drops_name(&rows, &column), labels: group.labels, column })?;
        }
        Ok(out)
    }

    /// The parameter at each step; empty if there is none.
    pub(super) fn aggregate_param(&self, aggregate: &AggregateNode, steps: Steps) -> Result<Vec<f64>, EvalError> {
        aggregate.param.as_ref().map_or(Ok(Vec::new()), |param| self.scalar(&param.node, steps))
    }

    /// Warns of the extremes of quantiles if they are beyond 0 and 1.
    fn check_quantile_extremes(&self, quantiles: &[f64], arg: &Arg) {
        let extremes = Extremes::of(quantiles);
        self.annotate(|all| {
            if extremes.has_nan {
                all.invalid_quantile(f64::NAN, arg.position);
            }
            if extremes.max > 1.0 {
                all.invalid_quantile(extremes.max, arg.position);
            }
            if extremes.min < 0.0 {
                all.invalid_quantile(extremes.min, arg.position);
            }
        });
    }

    fn aggregate_group(
        &self,
        aggregate: &AggregateNode,
        rows: &[&Row],
        param: &[f64],
        steps: Steps,
    ) -> Result<Column, EvalError> {
        let ignored = || self.note_histograms(aggregate, rows);
        Ok(match aggregate.op {
            AggregateOp::Sum => {
                let rows = self.only_floats(aggregate, rows, steps)?;
                fold(&rows, steps, KahanSum::of, KahanSum::add, |sum| sum.value())
            }
            AggregateOp::Avg => {
                let rows = self.only_floats(aggregate, rows, steps)?;
                fold(&rows, steps, KahanMean::of, KahanMean::add, |mean| mean.value())
            }
            AggregateOp::Min => {
                ignored();
                fold(
                    rows,
                    steps,
                    |v| v,
                    |min, v| {
                        if *min > v || min.is_nan() {
                            *min = v
                        }
                    },
                    |min| *min,
                )
            }
            AggregateOp::Max => {
                ignored();
                fold(
                    rows,
                    steps,
                    |v| v,
                    |max, v| {
                        if *max < v || max.is_nan() {
                            *max = v
                        }
                    },
                    |max| *max,
                )
            }
            AggregateOp::Stdvar => {
                ignored();
                fold(rows, steps, Variance::of, Variance::add, Variance::value)
            }
            AggregateOp::Stddev => {
                ignored();
                fold(rows, steps, Variance::of, Variance::add, |variance| variance.value().sqrt())
            }
            AggregateOp::Quantile => {
                ignored();
                self.quantile_of_group(rows, param, steps)
            }
            AggregateOp::Count => {
                let mut column = Column::absent(steps.count());
                for row in rows {
                    for i in (0..steps.count()).filter(|&i| row.column.is_present(i)) {
                        column.set_float(i, column.float(i).unwrap_or(0.0) + 1.0);
                    }
                }
                column
            }
            _ => {
                let mut column = Column::absent(steps.count());
                for row in rows {
                    for i in (0..steps.count()).filter(|&i| row.column.is_present(i)) {
                        column.set_float(i, 1.0);
                    }
                }
                column
            }
        })
    }

    /// Says that an aggregation leaves histograms out, if there are any.
    pub(super) fn note_histograms(&self, aggregate: &AggregateNode, rows: &[&Row]) {
        if rows.iter().any(|row| has_histogram(&row.column)) {
            let (name, position) = (aggregate.op.as_str(), aggregate.expr.position);
            self.annotate(|all| all.histogram_ignored_in_aggregation(name, position));
        }
    }

    /// The rows without the steps at which floats and histograms of the group are mixed: they have no sum.
    ///
    /// Errors if only histograms are to be added up.
    fn only_floats<'r>(
        &self,
        aggregate: &AggregateNode,
        rows: &[&'r Row],
        steps: Steps,
    ) -> Result<Vec<std::borrow::Cow<'r, Row>>, EvalError> {
        use std::borrow::Cow;
        let mut all: Vec<Cow<'r, Row>> = rows.iter().map(|row| Cow::Borrowed(*row)).collect();
        if rows.iter().all(|row| row.column.is_float()) {
            return Ok(all);
        }
        for i in 0..steps.count() {
            if !rows.iter().any(|row| row.column.histogram(i).is_some()) {
                continue;
            }
            if !rows.iter().any(|row| row.column.float(i).is_some()) {
                return Err(EvalError::native_histogram(aggregate.op.as_str()));
            }
            self.annotate(|annotations| annotations.mixed_floats_histograms_aggregation(aggregate.expr.position));
            all.iter_mut().for_each(|row| row.to_mut().column.clear(i));
        }
        Ok(all)
    }

    fn quantile_of_group(&self, rows: &[&Row], quantiles: &[f64], steps: Steps) -> Column {
        let mut column = Column::absent(steps.count());
        let mut values = Vec::with_capacity(rows.len());
        for (i, &q) in quantiles.iter().enumerate() {
            values.clear();
            values.extend(rows.iter().filter_map(|row| row.column.float(i)));
            if !values.is_empty() {
                column.set_float(i, quantile(q, &mut values));
            }
        }
        column
    }

    /// `count_values("label", v)`: how often each value is there, the value in a label.
    fn count_values(&self, aggregate: &AggregateNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let label = match aggregate.param.as_ref().map(|param| &param.node) {
            Some(Node::Text(label)) => label.as_str(),
            _ => "",
        };
        if !is_label_name(label) {
            return Err(EvalError::Execution(format!("invalid label name {}", quote(label))));
        }
        let matrix = self.vector(&aggregate.expr.node, steps)?;
        if matrix.has_histograms() {
            return Err(EvalError::native_histogram("count_values"));
        }
        let mut counts: Vec<Row> = Vec::new();
        let mut found: HashMap<Labels, usize> = HashMap::new();
        let mut held = self.account.charge();
        for row in &matrix.rows {
            // Where the counts of a value of this row are, by the value's bits.
            let mut of_value: HashMap<u64, usize> = HashMap::new();
            for i in 0..steps.count() {
                let Some(v) = row.column.float(i) else { continue };
                let count = match of_value.get(&v.to_bits()) {
                    Some(&count) => count,
                    None => {
                        let labels = LabelsBuilder::from_labels(&row.labels).set(label, &format_decimal(v)).build();
                        let labels = group_labels(&labels, aggregate, Some(label));
                        let count = match found.get(&labels) {
                            Some(&count) => count,
                            None => {
                                self.cells(steps)?;
                                held.raise(0, steps.count() * 8 + labels.as_bytes().len())?;
                                found.insert(labels.clone(), counts.len());
                                counts.push(Row { labels, drop_name: false, column: Column::absent(steps.count()) });
                                counts.len() - 1
                            }
                        };
                        of_value.insert(v.to_bits(), count);
                        count
                    }
                };
                let column = &mut counts[count].column;
                column.set_float(i, column.float(i).unwrap_or(0.0) + 1.0);
            }
        }
        drop(held);
        let mut out = self.matrix();
        for row in counts {
            out.push(row)?;
        }
        Ok(out)
    }
}

/// Sorts rows by group, groups in the order of their first row.
pub(super) fn groups(rows: &[Row], aggregate: &AggregateNode) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut found: HashMap<Labels, usize> = HashMap::new();
    for (i, row) in rows.iter().enumerate() {
        let labels = group_labels(&row.labels, aggregate, None);
        match found.get(&labels) {
            Some(&group) => groups[group].rows.push(i),
            None => {
                found.insert(labels.clone(), groups.len());
                groups.push(Group { labels, rows: vec![i] });
            }
        }
    }
    groups
}

/// The labels that a series shares with its group. `value_label` is one that `count_values` adds to those of `by`.
fn group_labels(labels: &Labels, aggregate: &AggregateNode, value_label: Option<&str>) -> Labels {
    let is_named = |name: &str| aggregate.grouping.iter().any(|label| label == name);
    if aggregate.without {
        labels.filtered(|name| !is_named(name) && name != METRIC_NAME)
    } else if aggregate.grouping.is_empty() && value_label.is_none() {
        Labels::empty()
    } else {
        labels.filtered(|name| is_named(name) || value_label == Some(name))
    }
}

/// Whether the group's name, if it has one, is to be dropped: if a sample that its last value is made of says so.
pub(super) fn drops_name(rows: &[&Row], column: &Column) -> bool {
    let last = (0..column.len()).rev().find(|&i| column.is_present(i));
    last.is_some_and(|last| rows.iter().any(|row| row.drop_name && row.column.is_present(last)))
}

fn has_histogram(column: &Column) -> bool {
    !column.is_float() && (0..column.len()).any(|i| column.histogram(i).is_some())
}

/// Folds the floats of all rows into one accumulator a step.
fn fold<S: Clone>(
    rows: &[impl std::ops::Deref<Target = Row>],
    steps: Steps,
    first: impl Fn(f64) -> S,
    add: impl Fn(&mut S, f64),
    value: impl Fn(&S) -> f64,
) -> Column {
    let mut states: Vec<Option<S>> = vec![None; steps.count()];
    for row in rows {
        for (i, state) in states.iter_mut().enumerate() {
            let Some(v) = row.column.float(i) else { continue };
            match state {
                Some(state) => add(state, v),
                None => *state = Some(first(v)),
            }
        }
    }
    let mut column = Column::absent(steps.count());
    for (i, state) in states.iter().enumerate() {
        if let Some(state) = state {
            column.set_float(i, value(state));
        }
    }
    column
}

/// The variance by Welford's method.
#[derive(Clone)]
struct Variance {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Variance {
    fn of(v: f64) -> Variance {
        Variance { count: 1.0, mean: v, squares: if v.is_finite() { 0.0 } else { f64::NAN } }
    }

    fn add(&mut self, v: f64) {
        self.count += 1.0;
        let delta = v - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (v - self.mean);
    }

    fn value(&self) -> f64 {
        self.squares / self.count
    }
}

/// The least and the greatest of a parameter's values, NaN left out.
pub(super) struct Extremes {
    pub min: f64,
    pub max: f64,
    pub has_nan: bool,
}

impl Extremes {
    pub fn of(values: &[f64]) -> Extremes {
        let mut extremes = Extremes { min: f64::INFINITY, max: f64::NEG_INFINITY, has_nan: false };
        for &v in values {
            extremes.has_nan |= v.is_nan();
            extremes.min = extremes.min.min(v);
            extremes.max = extremes.max.max(v);
        }
        extremes
    }
}
