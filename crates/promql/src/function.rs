//! The functions of PromQL, and what each takes and returns.
//!
//! One row a function, in the order of their names: the enum for evaluators to match on, the table for the type
//! checker. A row's place in the table is its variant's number; a test holds the two together.

use crate::ast::ValueType::{self, Matrix, Scalar, String, Vector};

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // Named as PromQL names them.
pub enum Function {
    Abs,
    Absent,
    AbsentOverTime,
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    AvgOverTime,
    Ceil,
    Changes,
    Clamp,
    ClampMax,
    ClampMin,
    Cos,
    Cosh,
    CountOverTime,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    DaysInMonth,
    Deg,
    Delta,
    Deriv,
    DoubleExponentialSmoothing,
    End,
    Exp,
    FirstOverTime,
    Floor,
    HistogramAvg,
    HistogramCount,
    HistogramFraction,
    HistogramQuantile,
    HistogramQuantiles,
    HistogramStddev,
    HistogramStdvar,
    HistogramSum,
    Hour,
    Idelta,
    Increase,
    Info,
    Irate,
    LabelJoin,
    LabelReplace,
    LastOverTime,
    Ln,
    Log10,
    Log2,
    MadOverTime,
    MaxOf,
    MaxOverTime,
    MinOf,
    MinOverTime,
    Minute,
    Month,
    Pi,
    PredictLinear,
    PresentOverTime,
    QuantileOverTime,
    Rad,
    Range,
    Rate,
    Resets,
    Round,
    Scalar,
    Sgn,
    Sin,
    Sinh,
    Sort,
    SortByLabel,
    SortByLabelDesc,
    SortDesc,
    Sqrt,
    Start,
    StartTimestamp,
    StddevOverTime,
    StdvarOverTime,
    Step,
    SumOverTime,
    Tan,
    Tanh,
    Time,
    Timestamp,
    TsOfFirstOverTime,
    TsOfLastOverTime,
    TsOfMaxOverTime,
    TsOfMinOverTime,
    Vector,
    Year,
}

/// How many arguments a function takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// One for each of `args`.
    Exact,
    /// One for each of `args` but the last, then up to so many more of the last one's type.
    UpTo(usize),
    /// One for each of `args` but the last, then any number of the last one's type.
    Any,
}

/// What a function takes and returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Which function it is.
    pub function: Function,
    /// As PromQL writes it.
    pub name: &'static str,
    /// The arguments' types.
    pub args: &'static [ValueType],
    /// How many arguments there may be.
    pub arity: Arity,
    /// The result's type.
    pub returns: ValueType,
    /// Whether Prometheus only knows it with `--enable-feature=promql-experimental-functions`.
    pub is_experimental: bool,
}

impl Function {
    /// The function of this name; names are lower case.
    pub fn from_name(name: &str) -> Option<Function> {
        let i = SIGNATURES.binary_search_by_key(&name, |signature| signature.name).ok()?;
        Some(SIGNATURES[i].function)
    }

    /// What it takes and returns.
    pub fn signature(self) -> &'static Signature {
        &SIGNATURES[self as usize]
    }

    /// As PromQL writes it.
    pub fn name(self) -> &'static str {
        self.signature().name
    }

    /// All functions, by name.
    pub fn all() -> impl Iterator<Item = Function> {
        SIGNATURES.iter().map(|signature| signature.function)
    }
}

const fn stable(
    function: Function,
    name: &'static str,
    args: &'static [ValueType],
    arity: Arity,
    returns: ValueType,
) -> Signature {
    Signature { function, name, args, arity, returns, is_experimental: false }
}

const fn experimental(
    function: Function,
    name: &'static str,
    args: &'static [ValueType],
    arity: Arity,
    returns: ValueType,
) -> Signature {
    Signature { function, name, args, arity, returns, is_experimental: true }
}

/// Sorted by name, which is also the order of the variants.
static SIGNATURES: &[Signature] = &[
    stable(Function::Abs, "abs", &[Vector], Arity::Exact, Vector),
    stable(Function::Absent, "absent", &[Vector], Arity::Exact, Vector),
    stable(Function::AbsentOverTime, "absent_over_time", &[Matrix], Arity::Exact, Vector),
    stable(Function::Acos, "acos", &[Vector], Arity::Exact, Vector),
    stable(Function::Acosh, "acosh", &[Vector], Arity::Exact, Vector),
    stable(Function::Asin, "asin", &[Vector], Arity::Exact, Vector),
    stable(Function::Asinh, "asinh", &[Vector], Arity::Exact, Vector),
    stable(Function::Atan, "atan", &[Vector], Arity::Exact, Vector),
    stable(Function::Atanh, "atanh", &[Vector], Arity::Exact, Vector),
    stable(Function::AvgOverTime, "avg_over_time", &[Matrix], Arity::Exact, Vector),
    stable(Function::Ceil, "ceil", &[Vector], Arity::Exact, Vector),
    stable(Function::Changes, "changes", &[Matrix], Arity::Exact, Vector),
    stable(Function::Clamp, "clamp", &[Vector, Scalar, Scalar], Arity::Exact, Vector),
    stable(Function::ClampMax, "clamp_max", &[Vector, Scalar], Arity::Exact, Vector),
    stable(Function::ClampMin, "clamp_min", &[Vector, Scalar], Arity::Exact, Vector),
    stable(Function::Cos, "cos", &[Vector], Arity::Exact, Vector),
    stable(Function::Cosh, "cosh", &[Vector], Arity::Exact, Vector),
    stable(Function::CountOverTime, "count_over_time", &[Matrix], Arity::Exact, Vector),
    stable(Function::DayOfMonth, "day_of_month", &[Vector], Arity::UpTo(1), Vector),
    stable(Function::DayOfWeek, "day_of_week", &[Vector], Arity::UpTo(1), Vector),
    stable(Function::DayOfYear, "day_of_year", &[Vector], Arity::UpTo(1), Vector),
    stable(Function::DaysInMonth, "days_in_month", &[Vector], Arity::UpTo(1), Vector),
    stable(Function::Deg, "deg", &[Vector], Arity::Exact, Vector),
    stable(Function::Delta, "delta", &[Matrix], Arity::Exact, Vector),
    stable(Function::Deriv, "deriv", &[Matrix], Arity::Exact, Vector),
    experimental(
        Function::DoubleExponentialSmoothing,
        "double_exponential_smoothing",
        &[Matrix, Scalar, Scalar],
        Arity::Exact,
        Vector,
    ),
    experimental(Function::End, "end", &[], Arity::Exact, Scalar),
    stable(Function::Exp, "exp", &[Vector], Arity::Exact, Vector),
    stable(Function::FirstOverTime, "first_over_time", &[Matrix], Arity::Exact, Vector),
    stable(Function::Floor, "floor", &[Vector], Arity::Exact, Vector),
    stable(Function::HistogramAvg, "histogram_avg", &[Vector], Arity::Exact, Vector),
    stable(Function::HistogramCount, "histogram_count", &[Vector], Arity::Exact, Vector),
    stable(Function::HistogramFraction, "histogram_fraction", &[Scalar, Scalar, Vector], Arity::Exact, Vector),
    stable(Function::HistogramQuantile, "histogram_quantile", &[Scalar, Vector], Arity::Exact, Vector),
    experimental(
        Function::HistogramQuantiles,
        "histogram_quantiles",
        &[Vector, String, Scalar, Scalar],
        Arity::UpTo(9),
        Vector,
    ),
    stable(Function::HistogramStddev, "histogram_stddev", &[Vector], Arity::Exact, Vector),
    stable(Function::HistogramStdvar, "histogram_stdvar", &[Vector], Arity::Exact, Vector),
    stable(Function::HistogramSum, "histogram_sum", &[Vector], Arity::Exact, Vector),
    stable(Function::Hour, "hour", &[Vector], Arity::UpTo(1), Vector),
    stable(Function::Idelta, "idelta", &[Matrix], Arity::Exact, Vector),
    stable(Function::Increase, "increase", &[Matrix], Arity::Exact, Vector),
    experimental(Function::Info, "info", &[Vector, Vector], Arity::UpTo(1), Vector),
    stable(Function::Irate, "irate", &[Matrix], Arity::Exact, Vector),
    stable(Function::LabelJoin, "label_join", &[Vector, String, String, String], Arity::Any, Vector),
    stable(Function::LabelReplace, "label_replace", &[Vector, String, String, String, String], Arity::Exact, Vector),
    stable(Function::LastOverTime, "last_over_time", &[Matrix], Arity::Exact, Vector),
    stable(Function::Ln, "ln", &[Vector], Arity::Exact, Vector),
    stable(Function::Log10, "log10", &[Vector], Arity::Exact, Vector),
    stable(Function::Log2, "log2", &[Vector], Arity::Exact, Vector),
    experimental(Function::MadOverTime, "mad_over_time", &[Matrix], Arity::Exact, Vector),
    experimental(Function::MaxOf, "max_of", &[Scalar, Scalar], Arity::Exact, Scalar),
    stable(Function::MaxOverTime, "max_over_time", &[Matrix], Arity::Exact, Vector),
    experimental(Function::MinOf, "min_of", &[Scalar, Scalar], Arity::Exact, Scalar),
    stable(Function::MinOverTime, "min_over_time", &[Matrix], Arity::Exact, Vector),
    stable(Function::Minute, "minute", &[Vector], Arity::UpTo(1), Vector),
    stable(Function::Month, "month", &[Vector], Arity::UpTo(1), Vector),
    stable(Function::Pi, "pi", &[], Arity::Exact, Scalar),
    stable(Function::PredictLinear, "predict_linear", &[Matrix, Scalar], Arity::Exact, Vector),
    stable(Function::PresentOverTime, "present_over_time", &[Matrix], Arity::Exact, Vector),
    stable(Function::QuantileOverTime, "quantile_over_time", &[Scalar, Matrix], Arity::Exact, Vector),
    stable(Function::Rad, "rad", &[Vector], Arity::Exact, Vector),
    experimental(Function::Range, "range", &[], Arity::Exact, Scalar),
    stable(Function::Rate, "rate", &[Matrix], Arity::Exact, Vector),
    stable(Function::Resets, "resets", &[Matrix], Arity::Exact, Vector),
    stable(Function::Round, "round", &[Vector, Scalar], Arity::UpTo(1), Vector),
    stable(Function::Scalar, "scalar", &[Vector], Arity::Exact, Scalar),
    stable(Function::Sgn, "sgn", &[Vector], Arity::Exact, Vector),
    stable(Function::Sin, "sin", &[Vector], Arity::Exact, Vector),
    stable(Function::Sinh, "sinh", &[Vector], Arity::Exact, Vector),
    stable(Function::Sort, "sort", &[Vector], Arity::Exact, Vector),
    experimental(Function::SortByLabel, "sort_by_label", &[Vector, String], Arity::Any, Vector),
    experimental(Function::SortByLabelDesc, "sort_by_label_desc", &[Vector, String], Arity::Any, Vector),
    stable(Function::SortDesc, "sort_desc", &[Vector], Arity::Exact, Vector),
    stable(Function::Sqrt, "sqrt", &[Vector], Arity::Exact, Vector),
    experimental(Function::Start, "start", &[], Arity::Exact, Scalar),
    experimental(Function::StartTimestamp, "start_timestamp", &[Vector], Arity::Exact, Vector),
    stable(Function::StddevOverTime, "stddev_over_time", &[Matrix], Arity::Exact, Vector),
    stable(Function::StdvarOverTime, "stdvar_over_time", &[Matrix], Arity::Exact, Vector),
    experimental(Function::Step, "step", &[], Arity::Exact, Scalar),
    stable(Function::SumOverTime, "sum_over_time", &[Matrix], Arity::Exact, Vector),
    stable(Function::Tan, "tan", &[Vector], Arity::Exact, Vector),
    stable(Function::Tanh, "tanh", &[Vector], Arity::Exact, Vector),
    stable(Function::Time, "time", &[], Arity::Exact, Scalar),
    stable(Function::Timestamp, "timestamp", &[Vector], Arity::Exact, Vector),
    experimental(Function::TsOfFirstOverTime, "ts_of_first_over_time", &[Matrix], Arity::Exact, Vector),
    experimental(Function::TsOfLastOverTime, "ts_of_last_over_time", &[Matrix], Arity::Exact, Vector),
    experimental(Function::TsOfMaxOverTime, "ts_of_max_over_time", &[Matrix], Arity::Exact, Vector),
    experimental(Function::TsOfMinOverTime, "ts_of_min_over_time", &[Matrix], Arity::Exact, Vector),
    stable(Function::Vector, "vector", &[Scalar], Arity::Exact, Vector),
    stable(Function::Year, "year", &[Vector], Arity::UpTo(1), Vector),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_in_the_variants_order() {
        assert!(SIGNATURES.is_sorted_by_key(|signature| signature.name));
        for (i, signature) in SIGNATURES.iter().enumerate() {
            assert_eq!(signature.function as usize, i, "{}", signature.name);
            assert_eq!(Function::from_name(signature.name), Some(signature.function));
            assert!(signature.arity == Arity::Exact || !signature.args.is_empty(), "{}", signature.name);
        }
        assert_eq!(Function::from_name("Rate"), None);
    }
}
