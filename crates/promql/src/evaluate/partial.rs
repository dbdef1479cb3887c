//! Aggregations in shares: each evaluates a shard of the series, and what they come to is put together here.
//!
//! Only what looks at one series at a time may stand below such an aggregation, so that a shard's share depends on nothing
//! outside of it. A share names its aggregation by where it stands in the query's text, which everybody parses alike.
//! Sums are carried with their compensation, so that nothing is rounded on the way. Where native histograms are to be added
//! up, or a mean overflows, a share says that it is of no use, and whoever asked evaluates the whole.

use std::collections::HashMap;

use model::{DecodeError, Labels, Reader, STALE_NAN_BITS, is_stale, put_varint};

use super::aggregate::{drops_name, groups};
use super::annotations::Severity;
use super::budget::{Account, Budget};
use super::error::EvalError;
use super::kahan::KahanSum;
use super::matrix::{Column, Matrix, Row};
use super::plan::{self, AggregateNode, Node};
use super::steps::Steps;
use super::storage::{Selection, Storage};
use super::{Annotations, Evaluator, Options, Query};
use crate::ast::AggregateOp;
use crate::function::Function;

/// In a column: nothing at this step.
const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// A shard's share of an aggregation.
#[derive(Debug, Clone, Default)]
pub struct Partial {
    groups: Vec<PartialGroup>,
    annotations: Annotations,
}

#[derive(Debug, Clone)]
struct PartialGroup {
    /// What its series have in common.
    labels: Labels,
    /// The first of its series: groups are ordered by it.
    first: Labels,
    drops_name: bool,
    /// The sum, the least, the greatest or the count at each step; [`ABSENT`] where there is none.
    values: Vec<f64>,
    /// What rounding took from each sum; of sums and means only.
    compensations: Vec<f64>,
    /// How many were added up; of means only.
    counts: Vec<f64>,
}

/// Why there is no share.
#[derive(Debug, thiserror::Error)]
pub enum PartialError {
    /// The aggregation is to be evaluated whole.
    #[error("can't be evaluated in shares: {0}")]
    Unsuitable(&'static str),
    /// As a query's.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// What a [`Storage`] is asked for shares of.
#[derive(Debug)]
pub struct PartialRequest<'q> {
    /// Where the aggregation stands in the query's text: [`Query::partial`] finds it by that.
    pub position: u32,
    /// What its selectors need.
    pub selections: &'q [Selection],
}

impl Query {
    /// Evaluates one aggregation of the query over what `storage` has, which is a shard of the series.
    pub fn partial(
        &self,
        position: u32,
        storage: &dyn Storage,
        budget: &dyn Budget,
        options: &Options,
    ) -> Result<Partial, PartialError> {
        let plan = self.plan(options)?;
        let found = find(&plan, position, self.steps()).filter(|(aggregate, _)| is_sharable(aggregate));
        let (aggregate, steps) = found.ok_or(PartialError::Unsuitable("there is no such aggregation"))?;
        let account = Account::new(budget, options.samples_max);
        let evaluator = Evaluator { storage, account: &account, options, annotations: Default::default() };
        account.check()?;
        let groups = evaluator.share(aggregate, steps)?;
        Ok(Partial { groups, annotations: evaluator.annotations.into_inner() })
    }
}

impl<'a> Evaluator<'a> {
    /// The aggregation put together from the storage's shares; `None` if it is to be evaluated here.
    pub(super) fn in_shares(&self, aggregate: &AggregateNode, steps: Steps) -> Result<Option<Matrix<'a>>, EvalError> {
        if !is_sharable(aggregate) {
            return Ok(None);
        }
        let mut selections = Vec::new();
        plan::selections(&aggregate.expr.node, &mut selections);
        let request = PartialRequest { position: aggregate.position, selections: &selections };
        let Some(partials) = self.storage.partials(&request)? else { return Ok(None) };
        let Some(groups) = merge(aggregate.op, &partials, steps.count()) else { return Ok(None) };
        partials.iter().for_each(|partial| self.annotate(|all| all.absorb(&partial.annotations)));
        let mut out = self.matrix();
        for group in groups {
            self.cells(steps)?;
            let column = Column::from_floats(group.finished(aggregate.op));
            out.push(Row { labels: group.labels, drop_name: group.drops_name, column })?;
        }
        Ok(Some(out))
    }

    fn share(&self, aggregate: &AggregateNode, steps: Steps) -> Result<Vec<PartialGroup>, PartialError> {
        let matrix = self.vector(&aggregate.expr.node, steps)?;
        if matches!(aggregate.op, AggregateOp::Sum | AggregateOp::Avg) && matrix.has_histograms() {
            return Err(PartialError::Unsuitable("native histograms are added up"));
        }
        let mut held = self.account.charge();
        let mut shares = Vec::new();
        for group in groups(&matrix.rows, aggregate) {
            self.cells(steps)?;
            self.account.work(group.rows.len().saturating_mul(steps.count())).map_err(PartialError::Eval)?;
            held.raise(steps.count(), steps.count() * 3 * size_of::<f64>())?;
            let rows: Vec<&Row> = group.rows.iter().map(|&i| &matrix.rows[i]).collect();
            let mut share = PartialGroup::new(aggregate.op, group.labels, rows[0].labels.clone(), steps.count());
            for row in &rows {
                share.add(aggregate.op, &row.column);
            }
            if aggregate.op == AggregateOp::Avg && share.values.iter().any(|v| v.is_infinite()) {
                return Err(PartialError::Unsuitable("a mean overflows"));
            }
            if matches!(aggregate.op, AggregateOp::Min | AggregateOp::Max) {
                self.note_histograms(aggregate, &rows);
            }
            share.drops_name = drops_name(&rows, &Column::from_floats(share.values.clone()));
            shares.push(share);
        }
        Ok(shares)
    }
}

impl PartialGroup {
    fn new(op: AggregateOp, labels: Labels, first: Labels, steps: usize) -> PartialGroup {
        let has_compensation = matches!(op, AggregateOp::Sum | AggregateOp::Avg);
        PartialGroup {
            labels,
            first,
            drops_name: false,
            values: vec![ABSENT; steps],
            compensations: vec![0.0; if has_compensation { steps } else { 0 }],
            counts: vec![0.0; if op == AggregateOp::Avg { steps } else { 0 }],
        }
    }

    /// Takes in a series.
    fn add(&mut self, op: AggregateOp, column: &Column) {
        for i in 0..self.values.len() {
            let is_counted = matches!(op, AggregateOp::Count | AggregateOp::Group);
            match column.float(i) {
                _ if is_counted && column.is_present(i) => self.add_cell(op, i, 1.0, 0.0, 0.0),
                Some(v) if !is_counted => self.add_cell(op, i, v, 0.0, 1.0),
                _ => {}
            }
        }
    }

    /// Takes in what another share has at a step.
    fn add_cell(&mut self, op: AggregateOp, i: usize, value: f64, compensation: f64, count: f64) {
        let is_first = is_stale(self.values[i]);
        let held = self.values[i];
        match op {
            AggregateOp::Sum | AggregateOp::Avg => {
                let mut sum = KahanSum { sum: value, compensation };
                if !is_first {
                    sum = KahanSum { sum: held, compensation: self.compensations[i] };
                    sum.add(value);
                    if sum.sum.is_finite() {
                        sum.compensation += compensation;
                    }
                }
                (self.values[i], self.compensations[i]) = (sum.sum, sum.compensation);
                if let Some(all) = self.counts.get_mut(i) {
                    *all += count;
                }
            }
            AggregateOp::Min if is_first || held > value || held.is_nan() => self.values[i] = value,
            AggregateOp::Max if is_first || held < value || held.is_nan() => self.values[i] = value,
            AggregateOp::Min | AggregateOp::Max => {}
            AggregateOp::Count if !is_first => self.values[i] = held + value,
            _ => self.values[i] = value,
        }
    }

    fn last_present(&self) -> Option<usize> {
        self.values.iter().rposition(|v| !is_stale(*v))
    }

    /// The value at each step.
    fn finished(&self, op: AggregateOp) -> Vec<f64> {
        let finish = |(i, &v): (usize, &f64)| match op {
            _ if is_stale(v) => ABSENT,
            AggregateOp::Sum => KahanSum { sum: v, compensation: self.compensations[i] }.value(),
            AggregateOp::Avg => v / self.counts[i] + self.compensations[i] / self.counts[i],
            _ => v,
        };
        self.values.iter().enumerate().map(finish).collect()
    }
}

/// Puts shares together, ordered as if they had never been apart. `None`: they do not fit the aggregation, or the whole overflows.
fn merge(op: AggregateOp, partials: &[Partial], steps: usize) -> Option<Vec<PartialGroup>> {
    let mut merged: Vec<PartialGroup> = Vec::new();
    let mut found: HashMap<&Labels, usize> = HashMap::new();
    for share in partials.iter().flat_map(|partial| &partial.groups) {
        let empty = PartialGroup::new(op, share.labels.clone(), share.first.clone(), steps);
        let fits = share.values.len() == steps
            && share.compensations.len() == empty.compensations.len()
            && share.counts.len() == empty.counts.len();
        if !fits {
            return None;
        }
        let at = *found.entry(&share.labels).or_insert_with(|| {
            merged.push(empty);
            merged.len() - 1
        });
        let group = &mut merged[at];
        // The name goes if a sample that the last value is made of says so.
        match share.last_present().cmp(&group.last_present()) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => group.drops_name |= share.drops_name,
            std::cmp::Ordering::Greater => group.drops_name = share.drops_name,
        }
        if share.first < group.first {
            group.first = share.first.clone();
        }
        for i in (0..steps).filter(|&i| !is_stale(share.values[i])) {
            let of = |column: &[f64]| column.get(i).copied().unwrap_or(0.0);
            group.add_cell(op, i, share.values[i], of(&share.compensations), of(&share.counts));
        }
        if op == AggregateOp::Avg && group.values.iter().any(|v| v.is_infinite()) {
            return None;
        }
    }
    merged.sort_by(|a, b| a.first.cmp(&b.first));
    Some(merged)
}

/// The aggregation at a place of the text, and the steps that it is evaluated at.
fn find(node: &Node, position: u32, steps: Steps) -> Option<(&AggregateNode, Steps)> {
    match node {
        Node::Aggregate(aggregate) if aggregate.position == position => Some((aggregate, steps)),
        Node::Aggregate(aggregate) => {
            let args = aggregate.param.iter().chain([&aggregate.expr]);
            args.into_iter().find_map(|arg| find(&arg.node, position, steps))
        }
        Node::Subquery(subquery) => find(&subquery.inner, position, subquery.steps),
        Node::Invariant(inner) => find(inner, position, Steps::once(steps.start)),
        Node::Negate(inner) => find(inner, position, steps),
        Node::ScalarBinary(binary) => find(&binary.lhs, position, steps).or_else(|| find(&binary.rhs, position, steps)),
        Node::MixedBinary(binary) => {
            find(&binary.vector, position, steps).or_else(|| find(&binary.scalar, position, steps))
        }
        Node::VectorBinary(binary) => find(&binary.lhs, position, steps).or_else(|| find(&binary.rhs, position, steps)),
        Node::Call(call) => call.args.iter().find_map(|arg| find(&arg.node, position, steps)),
        Node::Number(_) | Node::Text(_) | Node::Select(_) | Node::SelectRange(_) => None,
    }
}

fn is_sharable(aggregate: &AggregateNode) -> bool {
    use AggregateOp::{Avg, Count, Group, Max, Min, Sum};
    matches!(aggregate.op, Sum | Avg | Count | Group | Min | Max) && is_by_series(&aggregate.expr.node)
}

/// Whether each series of the result comes from one selected series, whatever others there are.
fn is_by_series(node: &Node) -> bool {
    match node {
        Node::Select(_) | Node::SelectRange(_) => true,
        Node::Subquery(subquery) => is_by_series(&subquery.inner),
        Node::Negate(inner) => is_by_series(inner),
        Node::MixedBinary(binary) => is_by_series(&binary.vector) && matches!(binary.scalar, Node::Number(_)),
        Node::Call(call) if call.args.is_empty() => false,
        Node::Call(call) => {
            let is_known = |node: &Node| matches!(node, Node::Number(_));
            let vectors = call.args.iter().filter(|arg| !is_known(&arg.node)).count();
            maps_series(call.function)
                && vectors == 1
                && call.args.iter().all(|arg| is_known(&arg.node) || is_by_series(&arg.node))
        }
        _ => false,
    }
}

/// Whether a function makes of each series one with the same labels, and looks at nothing else.
fn maps_series(function: Function) -> bool {
    use Function::*;
    matches!(
        function,
        Abs | Acos
            | Acosh
            | Asin
            | Asinh
            | Atan
            | Atanh
            | AvgOverTime
            | Ceil
            | Changes
            | Clamp
            | ClampMax
            | ClampMin
            | Cos
            | Cosh
            | CountOverTime
            | Deg
            | Delta
            | Deriv
            | Exp
            | FirstOverTime
            | Floor
            | Idelta
            | Increase
            | Irate
            | LastOverTime
            | Ln
            | Log10
            | Log2
            | MadOverTime
            | MaxOverTime
            | MinOverTime
            | PredictLinear
            | PresentOverTime
            | QuantileOverTime
            | Rad
            | Rate
            | Resets
            | Round
            | Sgn
            | Sin
            | Sinh
            | Sqrt
            | StddevOverTime
            | StdvarOverTime
            | SumOverTime
            | Tan
            | Tanh
            | Timestamp
    )
}

impl Partial {
    /// The bytes, for another node of the same version: groups, then annotations.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.groups.len() as u64);
        for group in &self.groups {
            for labels in [&group.labels, &group.first] {
                put_varint(&mut out, labels.as_bytes().len() as u64);
                out.extend_from_slice(labels.as_bytes());
            }
            out.push(u8::from(group.drops_name));
            for column in [&group.values, &group.compensations, &group.counts] {
                put_varint(&mut out, column.len() as u64);
                column.iter().for_each(|v| out.extend_from_slice(&v.to_bits().to_le_bytes()));
            }
        }
        let said: Vec<_> = self.annotations.said().collect();
        put_varint(&mut out, said.len() as u64);
        for (severity, text, position) in said {
            out.push(u8::from(severity == Severity::Warning));
            put_varint(&mut out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
            put_varint(&mut out, u64::from(position));
        }
        out
    }

    /// Reads what [`Partial::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Partial, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut partial = Partial::default();
        for _ in 0..reader.count(6)? {
            let labels = Labels::decode(reader.bytes()?)?;
            let first = Labels::decode(reader.bytes()?)?;
            let drops_name = reader.u8()? != 0;
            let mut column = || {
                let count = reader.count(size_of::<f64>())?;
                (0..count).map(|_| Ok(f64::from_bits(reader.u64()?))).collect::<Result<Vec<f64>, DecodeError>>()
            };
            let (values, compensations, counts) = (column()?, column()?, column()?);
            partial.groups.push(PartialGroup { labels, first, drops_name, values, compensations, counts });
        }
        for _ in 0..reader.count(3)? {
            let severity = if reader.u8()? != 0 { Severity::Warning } else { Severity::Info };
            let text = reader.str()?.to_owned();
            let position = u32::try_from(reader.varint()?).map_err(|_| reader.error("a position of four bytes"))?;
            partial.annotations.say(severity, text, position);
        }
        if !reader.is_empty() {
            return Err(reader.error("bytes after the end of a share"));
        }
        Ok(partial)
    }
}
