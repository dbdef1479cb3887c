//! Evaluates PromQL, column by column: an expression becomes a matrix of series by steps, at once for all steps.
//!
//! [`plan`] works out all that no data is needed for; then each node of the plan is evaluated exactly once: selectors
//! fetch their series, range functions slide a window over each series' samples, and everything above maps columns to
//! columns. What is held is counted against a [`Budget`], and time is looked at every few thousand cells.
//! Native histograms are carried along; where a function would have to calculate with one, the query fails and says so.

mod aggregate;
mod annotations;
mod binary;
mod budget;
mod date;
mod error;
mod extended;
mod functions;
mod go_format;
mod kahan;
mod matching;
mod matrix;
mod partial;
mod plan;
#[cfg(test)]
mod properties;
mod quantile;
mod result;
mod select;
mod steps;
mod storage;
#[cfg(test)]
mod tests;
mod top;
mod window;
mod xxhash;

use std::cell::RefCell;

use model::{Labels, TimestampMs};

pub use annotations::{Annotations, Severity};
pub use budget::{Budget, Interruption, OverBudget, Unlimited};
pub use error::{EvalError, EvalErrorKind};
pub use go_format::{format_decimal, format_sample_value};
pub use partial::{Partial, PartialError, PartialRequest};
pub use result::{QueryResult, ResultSample, ResultSeries};
pub use storage::{Hints, Selection, Storage, StorageError};

use crate::ast::{Expr, ValueType};
use crate::parser::parse;
use budget::Account;
use matrix::{Column, Matrix, Row};
use plan::{Node, QueryTimes};
use steps::Steps;
use window::RangeVector;

/// How queries are evaluated; what an operator may set.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How far back an instant selector looks for a sample, in milliseconds.
    pub lookback_ms: i64,
    /// The step of a subquery that names none, in milliseconds.
    pub default_subquery_step_ms: i64,
    /// Samples that a query may hold at one time.
    pub samples_max: u64,
}

impl Default for Options {
    /// Prometheus's: 5 minutes, 1 minute, 50 million.
    fn default() -> Options {
        Options { lookback_ms: 300_000, default_subquery_step_ms: 60_000, samples_max: 50_000_000 }
    }
}

/// An expression and the times to evaluate it at.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    expr: Expr,
    text: String,
    start: TimestampMs,
    end: TimestampMs,
    /// None: an instant query.
    interval: Option<i64>,
}

impl Query {
    /// A query at one time.
    ///
    /// Errors: a text that does not parse.
    pub fn instant(text: &str, at: TimestampMs) -> Result<Query, EvalError> {
        Ok(Query { expr: parse(text)?, text: text.to_owned(), start: at, end: at, interval: None })
    }

    /// A query at `start`, `start` + `step`, … up to `end`; milliseconds.
    ///
    /// Errors: a text that does not parse or is neither a scalar nor an instant vector, a step below 1.
    pub fn range(text: &str, start: TimestampMs, end: TimestampMs, step: i64) -> Result<Query, EvalError> {
        let expr = parse(text)?;
        if step < 1 {
            return Err(EvalError::BadData(
                "zero or negative query resolution step widths are not accepted".to_owned(),
            ));
        }
        let kind = expr.value_type();
        if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
            let kind = kind.documented();
            let why = format!("invalid expression type \"{kind}\" for range query, must be Scalar or instant Vector");
            return Err(EvalError::BadData(why));
        }
        Ok(Query { expr, text: text.to_owned(), start, end, interval: Some(step) })
    }

    /// The text that the query was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The expression.
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// Start, end and step in milliseconds; without a step it is an instant query.
    pub fn times(&self) -> (TimestampMs, TimestampMs, Option<i64>) {
        (self.start, self.end, self.interval)
    }

    /// What each selector will ask of the storage, in the order they were written: to be fetched beforehand.
    ///
    /// What the function `info` fetches besides depends on the series found, and is not among them.
    pub fn selections(&self, options: &Options) -> Result<Vec<Selection>, EvalError> {
        let mut all = Vec::new();
        plan::selections(&self.plan(options)?, &mut all);
        Ok(all)
    }

    /// Evaluates the query. Annotations come with an error too.
    pub fn evaluate(
        &self,
        storage: &dyn Storage,
        budget: &dyn Budget,
        options: &Options,
    ) -> (Result<QueryResult, EvalError>, Annotations) {
        let plan = match self.plan(options) {
            Ok(plan) => plan,
            Err(error) => return (Err(error), Annotations::default()),
        };
        let account = Account::new(budget, options.samples_max);
        let evaluator =
            Evaluator { storage, account: &account, options, annotations: RefCell::new(Annotations::default()) };
        let result = account.check().and_then(|()| evaluator.result(self, &plan));
        (result, evaluator.annotations.into_inner())
    }

    fn plan(&self, options: &Options) -> Result<Node, EvalError> {
        let times = QueryTimes {
            start: self.start,
            end: self.end,
            interval: self.interval.unwrap_or(0),
            lookback: options.lookback_ms,
            default_subquery_step: options.default_subquery_step_ms,
        };
        plan::plan(&self.expr, times, self.steps())
    }

    fn steps(&self) -> Steps {
        Steps { start: self.start, end: self.end, interval: self.interval.unwrap_or(1) }
    }
}

/// One evaluation: what it reads from, what it may use, what it has to say.
struct Evaluator<'a> {
    storage: &'a dyn Storage,
    account: &'a Account<'a>,
    options: &'a Options,
    annotations: RefCell<Annotations>,
}

impl<'a> Evaluator<'a> {
    fn result(&self, query: &Query, plan: &Node) -> Result<QueryResult, EvalError> {
        let steps = query.steps();
        let is_instant = query.interval.is_none();
        match query.expr.value_type() {
            ValueType::String => match plan {
                Node::Text(text) => Ok(QueryResult::String { t: query.start, v: text.clone() }),
                _ => Err(EvalError::BadData("only a literal is a string".to_owned())),
            },
            ValueType::Scalar => {
                let values = self.scalar(plan, steps)?;
                Ok(match values.first() {
                    Some(&v) if is_instant => QueryResult::Scalar { t: query.start, v },
                    _ => QueryResult::matrix_of_scalar(values, steps),
                })
            }
            ValueType::Vector => {
                let mut matrix = self.vector(plan, steps)?;
                matrix.drop_names();
                matrix.merge_same_labels()?;
                Ok(if is_instant {
                    QueryResult::vector(matrix, query.start)
                } else {
                    QueryResult::matrix(matrix, steps)
                })
            }
            ValueType::Matrix => QueryResult::windows(self.range(plan, steps)?, query.start, self.account.charge()),
        }
    }

    /// Evaluates an instant vector.
    fn vector(&self, node: &Node, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        self.account.check()?;
        if steps.count() == 0 {
            return Ok(self.matrix());
        }
        match node {
            Node::Select(select) => self.select(select, steps),
            Node::Invariant(inner) => self.invariant(inner, steps),
            Node::Negate(inner) => self.negate(inner, steps),
            Node::MixedBinary(binary) => self.mixed_binary(binary, steps),
            Node::VectorBinary(binary) => self.vector_binary(binary, steps),
            Node::Aggregate(aggregate) => self.aggregate(aggregate, steps),
            Node::Call(call) => self.call(call, steps),
            _ => Err(wrong_type(node, "an instant vector")),
        }
    }

    /// Evaluates a scalar: a number a step.
    fn scalar(&self, node: &Node, steps: Steps) -> Result<Vec<f64>, EvalError> {
        self.account.check_column(steps.count())?;
        self.account.work(steps.count())?;
        match node {
            Node::Number(v) => Ok(vec![*v; steps.count()]),
            Node::Invariant(inner) => {
                let once = self.scalar(inner, Steps::once(steps.start))?;
                Ok(once.first().map_or(Vec::new(), |&v| vec![v; steps.count()]))
            }
            Node::Negate(inner) => Ok(self.scalar(inner, steps)?.into_iter().map(|v| -v).collect()),
            Node::ScalarBinary(binary) => {
                let mut lhs = self.scalar(&binary.lhs, steps)?;
                let rhs = self.scalar(&binary.rhs, steps)?;
                lhs.iter_mut().zip(rhs).for_each(|(l, r)| *l = binary::scalar_operation(binary.op, *l, r));
                Ok(lhs)
            }
            Node::Call(call) => self.call_scalar(call, steps),
            _ => Err(wrong_type(node, "a scalar")),
        }
    }

    /// Evaluates a range vector.
    fn range(&self, node: &Node, steps: Steps) -> Result<RangeVector<'a>, EvalError> {
        self.account.check()?;
        match node {
            Node::SelectRange(select) => self.select_range(select, steps),
            Node::Subquery(subquery) => {
                let matrix = self.vector(&subquery.inner, subquery.steps)?;
                window::points_of(matrix, subquery.steps, subquery.frame, self.account.charge())
            }
            _ => Err(wrong_type(node, "a range vector")),
        }
    }

    fn invariant(&self, inner: &Node, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let once = self.vector(inner, Steps::once(steps.start))?;
        let mut all = self.matrix();
        for row in &once.rows {
            self.cells(steps)?;
            all.push(Row { column: row.column.repeated(steps.count()), ..row.clone() })?;
        }
        Ok(all)
    }

    fn negate(&self, inner: &Node, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let mut matrix = self.vector(inner, steps)?;
        if matrix.has_histograms() {
            return Err(EvalError::native_histogram("unary minus"));
        }
        for row in &mut matrix.rows {
            row.drop_name = true;
            row.column.map_floats(|_, v| -v);
        }
        Ok(matrix)
    }

    /// An empty matrix.
    fn matrix(&self) -> Matrix<'a> {
        Matrix::new(self.account)
    }

    /// A matrix of one series without labels.
    fn matrix_of(&self, labels: Labels, drop_name: bool, column: Column) -> Result<Matrix<'a>, EvalError> {
        let mut matrix = self.matrix();
        matrix.push(Row { labels, drop_name, column })?;
        Ok(matrix)
    }

    /// To be called before a column is made: errors if it can't be held, or if it is time to stop.
    fn cells(&self, steps: Steps) -> Result<(), EvalError> {
        self.account.check_column(steps.count())?;
        self.account.work(steps.count())
    }

    /// Adds annotations.
    fn annotate(&self, add: impl FnOnce(&mut Annotations)) {
        add(&mut self.annotations.borrow_mut());
    }
}

fn wrong_type(node: &Node, wanted: &str) -> EvalError {
    let kind = match node {
        Node::Number(_) | Node::ScalarBinary(_) => "a scalar",
        Node::Text(_) => "a string",
        Node::SelectRange(_) | Node::Subquery(_) => "a range vector",
        _ => "an expression of another type",
    };
    EvalError::BadData(format!("{wanted} is needed where {kind} stands"))
}
