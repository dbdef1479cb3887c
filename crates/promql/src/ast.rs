//! The tree that a PromQL text becomes.
//!
//! It says what was written, not what will be fetched: offsets of enclosing subqueries are not added up, duration
//! expressions such as `[step() * 2]` are kept as trees, since only the query that is run knows its step and range.
//! Everything here is plain data with public fields; the parser is the one place that builds it, and it has checked
//! the types, so an evaluator may rely on them (an aggregation's operand is an instant vector, and so on).

use model::{Matcher, TimestampMs};

use crate::function::Function;

/// The bytes of the query text that a node was written in: `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PositionRange {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// What an expression evaluates to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One number, at each step.
    Scalar,
    /// A text.
    String,
    /// An instant vector: at most one sample a series, at each step.
    Vector,
    /// A range vector: a window of samples a series, at each step.
    Matrix,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// `1.5`, `0x1f`, `Inf`, `5m`
    Number(NumberLiteral),
    /// `"text"`
    String(StringLiteral),
    /// `up{job="a"} offset 5m`
    Vector(Box<VectorSelector>),
    /// `up[5m]`
    Matrix(Box<MatrixSelector>),
    /// `rate(up[5m])[1h:1m]`
    Subquery(Box<Subquery>),
    /// `-up`
    Unary(Box<Unary>),
    /// `(up)`
    Paren(Box<Paren>),
    /// `a + on (job) b`
    Binary(Box<Binary>),
    /// `sum by (job) (up)`
    Aggregate(Box<Aggregate>),
    /// `rate(up[5m])`
    Call(Box<Call>),
}

/// A number, or a duration that stands for its seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberLiteral {
    /// The number; of a duration, its seconds.
    pub value: f64,
    /// Whether it was written as a duration, and so is printed as one.
    pub is_duration: bool,
    /// Where it was written, with its sign.
    pub position: PositionRange,
}

/// A text.
#[derive(Debug, Clone, PartialEq)]
pub struct StringLiteral {
    /// Without quotes and escapes; bytes that are not UTF-8 (`"\xff"`) are replaced by U+FFFD.
    pub value: String,
    /// The bytes, if they are not UTF-8. Only the canonical form needs them.
    pub raw: Option<Box<[u8]>>,
    /// Where it was written.
    pub position: PositionRange,
}

/// Selects series, and of each the latest sample.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorSelector {
    /// The metric's name if it was written before the braces. `matchers` has a matcher for it too, its last.
    pub name: Option<String>,
    /// What a series must satisfy. (At least one refuses the empty value, but for the second argument of `info`.)
    pub matchers: Vec<Matcher>,
    /// The evaluation time, if it is fixed.
    pub at: Option<At>,
    /// How far before the evaluation time it looks; negative: after. None where it was not written, or is 0.
    pub offset: Option<Extent>,
    /// `anchored` or `smoothed`; of a range selector, this field of the selector in it.
    pub range_mode: RangeMode,
    /// Where it was written, with its modifiers.
    pub position: PositionRange,
}

/// Selects series, and of each the samples in a window.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    /// Which series; its `at`, `offset` and `range_mode` are the whole's, though written behind the range.
    pub selector: VectorSelector,
    /// How long the window is.
    pub range: Extent,
    /// Where it was written, with its modifiers.
    pub position: PositionRange,
}

/// Evaluates an instant vector at many times, which makes it a range vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    /// What is evaluated; an instant vector.
    pub expr: Expr,
    /// How long the window is.
    pub range: Extent,
    /// The time between two evaluations; None, where it was not written or is 0: the default.
    pub step: Option<Extent>,
    /// The evaluation time, if it is fixed.
    pub at: Option<At>,
    /// As of [`VectorSelector`].
    pub offset: Option<Extent>,
    /// Where it was written, with its modifiers.
    pub position: PositionRange,
}

/// What follows `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// `@ 1609746000.5`
    Timestamp(TimestampMs),
    /// `@ start()`: of the query, also for an inner one.
    Start,
    /// `@ end()`: of the query, also for an inner one.
    End,
}

/// How a window treats its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RangeMode {
    /// As it lies.
    #[default]
    Plain,
    /// `anchored`: with the sample before the window.
    Anchored,
    /// `smoothed`: interpolated at both ends.
    Smoothed,
}

/// A length of time in a selector.
#[derive(Debug, Clone, PartialEq)]
pub enum Extent {
    /// Milliseconds. Only an offset may be negative; a range below a millisecond has become 0.
    Literal(i64),
    /// What only a running query can work out.
    Expr(Box<DurationExpr>),
}

/// Arithmetic with durations, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationExpr {
    /// `5m`, `300`, `-1.5`
    Number(NumberLiteral),
    /// `step()`: the query's resolution; 0 of an instant query.
    Step(PositionRange),
    /// `range()`: the query's end minus its start.
    Range(PositionRange),
    /// `-x`
    Negate(Box<DurationExpr>, PositionRange),
    /// `(x)`
    Paren(Box<DurationExpr>, PositionRange),
    /// `x * y`, `min_of(x, y)`
    Binary(Box<DurationBinary>),
}

/// An operation on two durations.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationBinary {
    /// The operation.
    pub op: DurationOp,
    /// The left operand.
    pub lhs: DurationExpr,
    /// The right operand.
    pub rhs: DurationExpr,
    /// Where it was written.
    pub position: PositionRange,
}

/// An operation on durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `min_of(x, y)`
    Min,
    /// `max_of(x, y)`
    Max,
}

/// `-x` or `+x`.
#[derive(Debug, Clone, PartialEq)]
pub struct Unary {
    /// Whether it is `-`.
    pub negate: bool,
    /// A scalar or an instant vector, not a literal.
    pub expr: Expr,
    /// Where it was written.
    pub position: PositionRange,
}

/// An expression in parentheses.
#[derive(Debug, Clone, PartialEq)]
pub struct Paren {
    /// What is in them.
    pub expr: Expr,
    /// Where it was written, with them.
    pub position: PositionRange,
}

/// An operation on two scalars, two instant vectors, or one of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// The operation.
    pub op: BinaryOp,
    /// The left operand.
    pub lhs: Expr,
    /// The right operand.
    pub rhs: Expr,
    /// `bool`: a comparison yields 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// How series are paired: there if both operands are instant vectors, and only then.
    pub matching: Option<VectorMatching>,
    /// Where it was written.
    pub position: PositionRange,
}

/// An operation between two expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `atan2`
    Atan2,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `<`
    Less,
    /// `>=`
    GreaterOrEqual,
    /// `<=`
    LessOrEqual,
    /// `</`: trims a histogram to what lies below.
    TrimUpper,
    /// `>/`: trims a histogram to what lies above.
    TrimLower,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
}

/// How the series of two instant vectors are paired.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorMatching {
    /// How many of a side one of the other may be paired with. (Always many-to-many for set operators, and only for them.)
    pub cardinality: Cardinality,
    /// `on`: pairs agree in `labels`. Else they agree in all others but the metric's name (`ignoring`, or nothing said).
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// The labels of `group_left` or `group_right`: the result takes them from the "one" side.
    pub include: Vec<String>,
    /// `fill` and `fill_left`: stands in for a series that the left side lacks.
    pub fill_left: Option<f64>,
    /// `fill` and `fill_right`: stands in for a series that the right side lacks.
    pub fill_right: Option<f64>,
}

/// How many series of one side may be paired with one of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cardinality {
    /// One with one.
    #[default]
    OneToOne,
    /// `group_left`: many of the left with one of the right.
    ManyToOne,
    /// `group_right`: one of the left with many of the right.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// An aggregation of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// How groups are aggregated.
    pub op: AggregateOp,
    /// There exactly if the operation takes one: a string for `count_values`, else a scalar.
    pub param: Option<Expr>,
    /// The instant vector.
    pub expr: Expr,
    /// `without`: groups agree in all labels but `grouping`. Else (`by`, or nothing said) they agree in these.
    pub without: bool,
    /// The labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Where it was written.
    pub position: PositionRange,
}

/// How a group of samples becomes one, or a few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Named as PromQL names them.
pub enum AggregateOp {
    Avg,
    Bottomk,
    Count,
    CountValues,
    Group,
    LimitRatio,
    Limitk,
    Max,
    Min,
    Quantile,
    Stddev,
    Stdvar,
    Sum,
    Topk,
}

/// A function's call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Which.
    pub function: Function,
    /// As many as [`Function::signature`] allows, of the types that it names.
    pub args: Vec<Expr>,
    /// Where it was written.
    pub position: PositionRange,
}

impl Expr {
    /// What it evaluates to.
    pub fn value_type(&self) -> ValueType {
        match self {
            Expr::Number(_) => ValueType::Scalar,
            Expr::String(_) => ValueType::String,
            Expr::Vector(_) | Expr::Aggregate(_) => ValueType::Vector,
            Expr::Matrix(_) | Expr::Subquery(_) => ValueType::Matrix,
            Expr::Unary(unary) => unary.expr.value_type(),
            Expr::Paren(paren) => paren.expr.value_type(),
            Expr::Call(call) => call.function.signature().returns,
            Expr::Binary(binary) => match (binary.lhs.value_type(), binary.rhs.value_type()) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::Vector,
            },
        }
    }

    /// Where it was written.
    pub fn position(&self) -> PositionRange {
        match self {
            Expr::Number(literal) => literal.position,
            Expr::String(literal) => literal.position,
            Expr::Vector(selector) => selector.position,
            Expr::Matrix(selector) => selector.position,
            Expr::Subquery(subquery) => subquery.position,
            Expr::Unary(unary) => unary.position,
            Expr::Paren(paren) => paren.position,
            Expr::Binary(binary) => binary.position,
            Expr::Aggregate(aggregate) => aggregate.position,
            Expr::Call(call) => call.position,
        }
    }
}

impl DurationExpr {
    /// Where it was written.
    pub fn position(&self) -> PositionRange {
        match self {
            DurationExpr::Number(literal) => literal.position,
            DurationExpr::Step(position)
            | DurationExpr::Range(position)
            | DurationExpr::Negate(_, position)
            | DurationExpr::Paren(_, position) => *position,
            DurationExpr::Binary(binary) => binary.position,
        }
    }
}

impl ValueType {
    /// As the HTTP API and the parse errors' short form name it: "scalar", "string", "vector" or "matrix".
    pub fn as_str(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "vector",
            ValueType::Matrix => "matrix",
        }
    }

    /// As the documentation names it: "instant vector" and "range vector".
    pub fn documented(self) -> &'static str {
        match self {
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
            _ => self.as_str(),
        }
    }
}

impl BinaryOp {
    /// As PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Equal => "==",
            BinaryOp::NotEqual => "!=",
            BinaryOp::Greater => ">",
            BinaryOp::Less => "<",
            BinaryOp::GreaterOrEqual => ">=",
            BinaryOp::LessOrEqual => "<=",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
        }
    }

    /// Whether it compares: only then may `bool` follow.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        matches!(self, Equal | NotEqual | Greater | Less | GreaterOrEqual | LessOrEqual)
    }

    /// Whether it is `and`, `or` or `unless`.
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }
}

impl DurationOp {
    /// As PromQL writes it; of the last two, the function's name.
    pub fn as_str(self) -> &'static str {
        match self {
            DurationOp::Add => "+",
            DurationOp::Sub => "-",
            DurationOp::Mul => "*",
            DurationOp::Div => "/",
            DurationOp::Mod => "%",
            DurationOp::Pow => "^",
            DurationOp::Min => "min_of",
            DurationOp::Max => "max_of",
        }
    }
}

impl AggregateOp {
    /// As PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            AggregateOp::Avg => "avg",
            AggregateOp::Bottomk => "bottomk",
            AggregateOp::Count => "count",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Group => "group",
            AggregateOp::LimitRatio => "limit_ratio",
            AggregateOp::Limitk => "limitk",
            AggregateOp::Max => "max",
            AggregateOp::Min => "min",
            AggregateOp::Quantile => "quantile",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Sum => "sum",
            AggregateOp::Topk => "topk",
        }
    }

    /// The type of the parameter that it takes before the vector, if it takes one.
    pub fn param_type(self) -> Option<ValueType> {
        match self {
            AggregateOp::CountValues => Some(ValueType::String),
            AggregateOp::Bottomk
            | AggregateOp::LimitRatio
            | AggregateOp::Limitk
            | AggregateOp::Quantile
            | AggregateOp::Topk => Some(ValueType::Scalar),
            _ => None,
        }
    }
}
