//! From the tree that was written to the tree that is evaluated, once per query.
//!
//! Here everything is worked out that depends on the query's times but on no data: duration expressions, `start()` and
//! `end()`, the times at which subqueries are evaluated, what does not change from step to step and so is evaluated
//! once, and which samples each selector needs. Each node is evaluated exactly once, at all its steps.
//! The parser bounds a tree's height, so that walking it here and in the evaluation is bounded too.

use model::{Matcher, TimeRange, TimestampMs};

use super::error::EvalError;
use super::steps::Steps;
use super::storage::{Hints, Selection};
use super::window::Frame;
use crate::ast::{
    self, Aggregate, AggregateOp, At, Binary, BinaryOp, Call, DurationExpr, DurationOp, Expr, Extent, MatrixSelector,
    RangeMode, Subquery, ValueType, VectorMatching, VectorSelector,
};
use crate::function::Function;

/// A node that is evaluated. Parentheses, unary plus and folded calls are gone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// A scalar that is known.
    Number(f64),
    /// A text.
    Text(String),
    /// An instant selector.
    Select(Box<Select>),
    /// A range selector.
    SelectRange(Box<SelectRange>),
    /// A subquery.
    Subquery(Box<SubqueryNode>),
    /// Evaluated at the first step only, then the same at all.
    Invariant(Box<Node>),
    /// Minus.
    Negate(Box<Node>),
    /// An operation on two scalars.
    ScalarBinary(Box<ScalarBinary>),
    /// An operation on a vector and a scalar.
    MixedBinary(Box<MixedBinary>),
    /// An operation on two vectors.
    VectorBinary(Box<VectorBinary>),
    /// An aggregation.
    Aggregate(Box<AggregateNode>),
    /// A function's call.
    Call(Box<CallNode>),
}

/// See [`Node::Select`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Select {
    pub selection: Selection,
    pub at: Option<TimestampMs>,
    pub offset: i64,
    pub is_smoothed: bool,
    pub position: u32,
}

/// See [`Node::SelectRange`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SelectRange {
    pub selection: Selection,
    pub frame: Frame,
}

/// See [`Node::Subquery`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SubqueryNode {
    pub inner: Node,
    pub steps: Steps,
    pub frame: Frame,
}

/// See [`Node::ScalarBinary`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ScalarBinary {
    pub op: BinaryOp,
    pub lhs: Node,
    pub rhs: Node,
}

/// See [`Node::MixedBinary`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MixedBinary {
    pub op: BinaryOp,
    pub vector: Node,
    pub scalar: Node,
    /// Whether the scalar stands on the left.
    pub scalar_first: bool,
    pub return_bool: bool,
    pub position: u32,
}

/// See [`Node::VectorBinary`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VectorBinary {
    pub op: BinaryOp,
    pub lhs: Node,
    pub rhs: Node,
    pub matching: VectorMatching,
    pub return_bool: bool,
    pub position: u32,
}

/// See [`Node::Aggregate`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AggregateNode {
    pub op: AggregateOp,
    pub param: Option<Arg>,
    pub expr: Arg,
    pub without: bool,
    /// Sorted, without repeats.
    pub grouping: Vec<String>,
    pub position: u32,
}

/// See [`Node::Call`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CallNode {
    pub function: Function,
    pub args: Vec<Arg>,
    /// Of `info` only.
    pub reference: Reference,
    pub position: u32,
}

/// An argument, and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Arg {
    pub node: Node,
    pub position: u32,
    /// The matchers if it is a selector, instant or range, as it stands: what `absent` makes labels of, and `info` reads.
    pub matchers: Vec<Matcher>,
}

/// The time at which `info` looks for info series: that of the first selector in its first argument.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Reference {
    /// The innermost `@` around the selector.
    pub at: Option<TimestampMs>,
    /// All offsets from the selector up to where `at` stands.
    pub offset: i64,
}

/// The query's own times, which `step()`, `@ end()` and the like stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct QueryTimes {
    pub start: TimestampMs,
    pub end: TimestampMs,
    /// 0 of an instant query.
    pub interval: i64,
    pub lookback: i64,
    pub default_subquery_step: i64,
}

/// Plans `expr` for evaluation at `steps`.
pub(crate) fn plan(expr: &Expr, times: QueryTimes, steps: Steps) -> Result<Node, EvalError> {
    Planner { times }.node(expr, Place { steps, interval: times.interval, around: Around::default() })
}

/// Every selection in a plan, in the order they were written.
pub(crate) fn selections(node: &Node, out: &mut Vec<Selection>) {
    match node {
        Node::Number(_) | Node::Text(_) => {}
        Node::Select(select) => out.push(select.selection.clone()),
        Node::SelectRange(select) => out.push(select.selection.clone()),
        Node::Subquery(subquery) => selections(&subquery.inner, out),
        Node::Invariant(inner) | Node::Negate(inner) => selections(inner, out),
        Node::ScalarBinary(binary) => {
            selections(&binary.lhs, out);
            selections(&binary.rhs, out);
        }
        Node::MixedBinary(binary) => {
            selections(&binary.vector, out);
            selections(&binary.scalar, out);
        }
        Node::VectorBinary(binary) => {
            selections(&binary.lhs, out);
            selections(&binary.rhs, out);
        }
        Node::Aggregate(aggregate) => {
            for arg in aggregate.param.iter().chain([&aggregate.expr]) {
                selections(&arg.node, out);
            }
        }
        // The second argument of info only looks like a selector; what it fetches depends on the first one's series.
        Node::Call(call) if call.function == Function::Info => selections(&call.args[0].node, out),
        Node::Call(call) => call.args.iter().for_each(|arg| selections(&arg.node, out)),
    }
}

struct Planner {
    times: QueryTimes,
}

/// Where in the tree, and at which times, something is planned.
#[derive(Clone, Copy)]
struct Place<'e> {
    steps: Steps,
    /// Of the closest subquery around, else the query's.
    interval: i64,
    around: Around<'e>,
}

/// What is around a selector, for the storage's hints.
#[derive(Clone, Copy, Default)]
struct Around<'e> {
    function: Option<&'static str>,
    aggregate: Option<&'e Aggregate>,
}

impl<'e> Place<'e> {
    /// The same, but with something else around.
    fn within(self, around: Around<'e>) -> Place<'e> {
        Place { around, ..self }
    }

    /// Below something that is not an aggregation.
    fn below(self) -> Place<'e> {
        self.within(Around { aggregate: None, ..self.around })
    }
}

impl Planner {
    /// Plans what is evaluated at many steps: once, if it does not change from one to the next.
    fn node(&self, expr: &Expr, place: Place<'_>) -> Result<Node, EvalError> {
        let expr = without_parens(expr);
        if place.steps.count() > 1 && is_evaluated_once(expr) {
            let once = Place { steps: Steps::once(place.steps.start), ..place };
            return Ok(Node::Invariant(Box::new(self.changing(expr, once)?)));
        }
        self.changing(expr, place)
    }

    fn changing(&self, expr: &Expr, place: Place<'_>) -> Result<Node, EvalError> {
        Ok(match expr {
            Expr::Paren(paren) => self.changing(&paren.expr, place)?,
            Expr::Number(literal) => Node::Number(literal.value),
            Expr::String(literal) => Node::Text(literal.value.clone()),
            Expr::Vector(selector) => Node::Select(Box::new(self.select(selector, place)?)),
            Expr::Matrix(selector) => Node::SelectRange(Box::new(self.select_range(selector, place)?)),
            Expr::Subquery(subquery) => Node::Subquery(Box::new(self.subquery(subquery, place)?)),
            Expr::Unary(unary) => {
                let inner = self.node(&unary.expr, place.below())?;
                if unary.negate { Node::Negate(Box::new(inner)) } else { inner }
            }
            Expr::Binary(binary) => self.binary(binary, place)?,
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, place)?,
            Expr::Call(call) => self.call(call, place)?,
        })
    }

    fn select(&self, selector: &VectorSelector, place: Place<'_>) -> Result<Select, EvalError> {
        let at = self.at(selector.at);
        let offset = self.offset(selector.offset.as_ref())?;
        let is_smoothed = selector.range_mode == RangeMode::Smoothed;
        let lookback = self.times.lookback;
        let first = at.unwrap_or(place.steps.start).saturating_sub(offset);
        let last = at.unwrap_or(place.steps.last()).saturating_sub(offset);
        let range = TimeRange {
            start: first.saturating_sub(lookback).saturating_add(1),
            end: last.saturating_add(if is_smoothed { lookback } else { 0 }),
        };
        let selection = selection(selector, range, 0, place);
        Ok(Select { selection, at, offset, is_smoothed, position: selector.position.start })
    }

    fn select_range(&self, matrix: &MatrixSelector, place: Place<'_>) -> Result<SelectRange, EvalError> {
        let selector = &matrix.selector;
        let frame = Frame {
            range: self.extent(&matrix.range, Sign::Positive)?,
            offset: self.offset(selector.offset.as_ref())?,
            at: self.at(selector.at),
            mode: selector.range_mode,
            lookback: self.times.lookback,
        };
        let range = TimeRange {
            start: frame.sight(place.steps.start).0.saturating_add(1),
            end: frame.sight(place.steps.last()).1,
        };
        Ok(SelectRange { selection: selection(selector, range, frame.range, place), frame })
    }

    fn subquery(&self, subquery: &Subquery, place: Place<'_>) -> Result<SubqueryNode, EvalError> {
        let frame = Frame {
            range: self.extent(&subquery.range, Sign::Positive)?,
            offset: self.offset(subquery.offset.as_ref())?,
            at: self.at(subquery.at),
            mode: RangeMode::Plain,
            lookback: self.times.lookback,
        };
        let interval = match &subquery.step {
            Some(step) => self.extent(step, Sign::Positive)?,
            None => 0,
        };
        let interval = if interval > 0 { interval } else { self.times.default_subquery_step.max(1) };
        // The first multiple of the interval within the first window; windows are open to the left.
        let (after, _) = frame.bounds(place.steps.start);
        let multiple = interval.saturating_mul(after / interval);
        let start = if multiple <= after { multiple.saturating_add(interval) } else { multiple };
        let steps = Steps { start, end: frame.bounds(place.steps.last()).1, interval };
        let inner = self.node(&subquery.expr, Place { steps, interval, ..place.below() })?;
        Ok(SubqueryNode { inner, steps, frame })
    }

    fn binary(&self, binary: &Binary, place: Place<'_>) -> Result<Node, EvalError> {
        let place = place.within(Around::default());
        let lhs = self.node(&binary.lhs, place)?;
        let rhs = self.node(&binary.rhs, place)?;
        let (op, return_bool, position) = (binary.op, binary.return_bool, binary.position.start);
        Ok(match (binary.lhs.value_type(), binary.rhs.value_type()) {
            (ValueType::Scalar, ValueType::Scalar) => Node::ScalarBinary(Box::new(ScalarBinary { op, lhs, rhs })),
            (ValueType::Scalar, _) => {
                let (vector, scalar, scalar_first) = (rhs, lhs, true);
                Node::MixedBinary(Box::new(MixedBinary { op, vector, scalar, scalar_first, return_bool, position }))
            }
            (_, ValueType::Scalar) => {
                let (vector, scalar, scalar_first) = (lhs, rhs, false);
                Node::MixedBinary(Box::new(MixedBinary { op, vector, scalar, scalar_first, return_bool, position }))
            }
            _ => {
                let matching = binary
                    .matching
                    .clone()
                    .ok_or_else(|| EvalError::BadData("two vectors are joined without a matching".to_owned()))?;
                Node::VectorBinary(Box::new(VectorBinary { op, lhs, rhs, matching, return_bool, position }))
            }
        })
    }

    fn aggregate(&self, aggregate: &Aggregate, place: Place<'_>) -> Result<Node, EvalError> {
        let place = place.within(Around { function: Some(aggregate.op.as_str()), aggregate: Some(aggregate) });
        let param = match &aggregate.param {
            Some(param) => Some(self.arg(param, place.within(Around::default()))?),
            None => None,
        };
        let mut grouping = aggregate.grouping.clone();
        grouping.sort();
        grouping.dedup();
        Ok(Node::Aggregate(Box::new(AggregateNode {
            op: aggregate.op,
            param,
            expr: self.arg(&aggregate.expr, place)?,
            without: aggregate.without,
            grouping,
            position: aggregate.position.start,
        })))
    }

    fn call(&self, call: &Call, place: Place<'_>) -> Result<Node, EvalError> {
        let QueryTimes { start, end, interval, .. } = self.times;
        let number = match call.function {
            Function::Start => Some(start as f64 / 1000.0),
            Function::End => Some(end as f64 / 1000.0),
            Function::Range => Some(end.saturating_sub(start) as f64 / 1000.0),
            Function::Step => Some(if start == end { 0.0 } else { interval as f64 / 1000.0 }),
            _ => None,
        };
        if let Some(number) = number {
            return Ok(Node::Number(number));
        }
        let inner = place.within(Around { function: Some(call.function.name()), aggregate: None });
        let args = call.args.iter().map(|arg| self.arg(arg, inner)).collect::<Result<_, _>>()?;
        let reference = match call.args.first() {
            Some(first) if call.function == Function::Info => self.reference(first)?.unwrap_or_default(),
            _ => Reference::default(),
        };
        Ok(Node::Call(Box::new(CallNode { function: call.function, args, reference, position: call.position.start })))
    }

    fn arg(&self, expr: &Expr, place: Place<'_>) -> Result<Arg, EvalError> {
        let expr = without_parens(expr);
        let matchers = match expr {
            Expr::Vector(selector) => selector.matchers.clone(),
            Expr::Matrix(matrix) => matrix.selector.matchers.clone(),
            _ => Vec::new(),
        };
        // A subquery's result has no place in the text: Prometheus names its first character.
        let position = if matches!(expr, Expr::Subquery(_)) { 0 } else { expr.position().start };
        Ok(Arg { node: self.node(expr, place)?, position, matchers })
    }

    /// See [`Reference`]; None if there is no selector.
    fn reference(&self, expr: &Expr) -> Result<Option<Reference>, EvalError> {
        let of_selector = |selector: &VectorSelector| {
            Ok(Some(Reference { at: self.at(selector.at), offset: self.offset(selector.offset.as_ref())? }))
        };
        match expr {
            Expr::Number(_) | Expr::String(_) => Ok(None),
            Expr::Vector(selector) => of_selector(selector),
            Expr::Matrix(matrix) => of_selector(&matrix.selector),
            Expr::Subquery(subquery) => {
                let Some(mut reference) = self.reference(&subquery.expr)? else { return Ok(None) };
                if reference.at.is_none() {
                    let offset = self.offset(subquery.offset.as_ref())?;
                    reference.offset = reference.offset.saturating_add(offset);
                    reference.at = self.at(subquery.at);
                }
                Ok(Some(reference))
            }
            Expr::Unary(unary) => self.reference(&unary.expr),
            Expr::Paren(paren) => self.reference(&paren.expr),
            Expr::Binary(binary) => match self.reference(&binary.lhs)? {
                Some(reference) => Ok(Some(reference)),
                None => self.reference(&binary.rhs),
            },
            Expr::Aggregate(aggregate) => match self.reference(&aggregate.expr)? {
                Some(reference) => Ok(Some(reference)),
                None => aggregate.param.as_ref().map_or(Ok(None), |param| self.reference(param)),
            },
            Expr::Call(call) => {
                for arg in &call.args {
                    if let Some(reference) = self.reference(arg)? {
                        return Ok(Some(reference));
                    }
                }
                Ok(None)
            }
        }
    }

    fn at(&self, at: Option<At>) -> Option<TimestampMs> {
        at.map(|at| match at {
            At::Timestamp(t) => t,
            At::Start => self.times.start,
            At::End => self.times.end,
        })
    }

    fn offset(&self, offset: Option<&Extent>) -> Result<i64, EvalError> {
        offset.map_or(Ok(0), |offset| self.extent(offset, Sign::Any))
    }

    /// Milliseconds.
    fn extent(&self, extent: &Extent, sign: Sign) -> Result<i64, EvalError> {
        let expr = match extent {
            Extent::Literal(ms) => return Ok(*ms),
            Extent::Expr(expr) => expr,
        };
        let refused = |expr: &DurationExpr, why: &str| {
            let ast::PositionRange { start, end } = expr.position();
            EvalError::BadData(format!("{start}:{end}: {why}"))
        };
        let seconds = self.seconds(expr)?;
        // What fits in an i64 of nanoseconds, as Prometheus keeps durations.
        const SECONDS_MAX: f64 = 9_223_372_036.854_775;
        if !seconds.is_finite() {
            Err(refused(expr, "duration is NaN or infinite"))
        } else if seconds <= 0.0 && sign == Sign::Positive {
            Err(refused(expr, "duration must be greater than 0"))
        } else if seconds.abs() > SECONDS_MAX {
            Err(refused(expr, "duration is out of range"))
        } else {
            Ok((seconds * 1000.0) as i64)
        }
    }

    fn seconds(&self, expr: &DurationExpr) -> Result<f64, EvalError> {
        let QueryTimes { start, end, interval, .. } = self.times;
        Ok(match expr {
            DurationExpr::Number(literal) => literal.value,
            DurationExpr::Step(_) => interval as f64 / 1000.0,
            DurationExpr::Range(_) => end.saturating_sub(start) as f64 / 1000.0,
            DurationExpr::Negate(inner, _) => -self.seconds(inner)?,
            DurationExpr::Paren(inner, _) => self.seconds(inner)?,
            DurationExpr::Binary(binary) => {
                let (lhs, rhs) = (self.seconds(&binary.lhs)?, self.seconds(&binary.rhs)?);
                let by_zero = |what: &str| {
                    let ast::PositionRange { start, end } = binary.position;
                    EvalError::BadData(format!("{start}:{end}: {what} by zero"))
                };
                match binary.op {
                    DurationOp::Add => lhs + rhs,
                    DurationOp::Sub => lhs - rhs,
                    DurationOp::Mul => lhs * rhs,
                    DurationOp::Div if rhs == 0.0 => return Err(by_zero("division")),
                    DurationOp::Div => lhs / rhs,
                    DurationOp::Mod if rhs == 0.0 => return Err(by_zero("modulo")),
                    DurationOp::Mod => lhs % rhs,
                    DurationOp::Pow => lhs.powf(rhs),
                    DurationOp::Min => super::functions::math::min(lhs, rhs),
                    DurationOp::Max => super::functions::math::max(lhs, rhs),
                }
            }
        })
    }
}

/// Whether a duration may be negative or zero.
#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Positive,
    Any,
}

fn selection(selector: &VectorSelector, range: TimeRange, window: i64, place: Place<'_>) -> Selection {
    let (grouping, by) = match place.around.aggregate {
        Some(aggregate) => (aggregate.grouping.clone(), !aggregate.without),
        None => (Vec::new(), false),
    };
    let hints = Hints { step: place.interval, range: window, function: place.around.function, grouping, by };
    Selection { matchers: selector.matchers.clone(), range, hints }
}

fn without_parens(mut expr: &Expr) -> &Expr {
    while let Expr::Paren(paren) = expr {
        expr = &paren.expr;
    }
    expr
}

/// Whether `expr` is evaluated at one step and copied to all others. Range vectors are not: their consumers are.
fn is_evaluated_once(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) | Expr::String(_) | Expr::Matrix(_) | Expr::Subquery(_) => false,
        _ => is_invariant(expr),
    }
}

/// Whether `expr` has the same value at every step.
fn is_invariant(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::Vector(selector) => selector.at.is_some(),
        Expr::Matrix(matrix) => matrix.selector.at.is_some(),
        Expr::Subquery(subquery) => subquery.at.is_some(),
        Expr::Unary(unary) => is_invariant(&unary.expr),
        Expr::Paren(paren) => is_invariant(&paren.expr),
        Expr::Binary(binary) => is_invariant(&binary.lhs) && is_invariant(&binary.rhs),
        // As in Prometheus, the parameter does not count: `topk(scalar(foo), bar @ 1)` has one k.
        Expr::Aggregate(aggregate) => is_invariant(&aggregate.expr),
        Expr::Call(call) => match call.function {
            Function::Start | Function::End | Function::Range | Function::Step => true,
            Function::Timestamp => call
                .args
                .iter()
                .all(|arg| matches!(without_parens(arg), Expr::Vector(selector) if selector.at.is_some())),
            function => !depends_on_time(function) && call.args.iter().all(is_invariant),
        },
    }
}

/// Whether a function's result depends on the evaluation time even if its arguments don't.
fn depends_on_time(function: Function) -> bool {
    use Function::{DayOfMonth, DayOfWeek, DayOfYear, DaysInMonth, Hour, Minute, Month, PredictLinear, Time, Year};
    matches!(
        function,
        DayOfMonth | DayOfWeek | DayOfYear | DaysInMonth | Hour | Minute | Month | PredictLinear | Time | Year
    )
}
