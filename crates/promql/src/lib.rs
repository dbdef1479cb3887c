//! Parses and evaluates PromQL, pure and synchronous.
//!
//! A text becomes a tree ([`ast`]) that has been type-checked; whoever evaluates it hands in the series.
//! The language is Prometheus 3.14's, with its experimental parts on.

pub mod ast;
mod check;
mod duration;
mod error;
mod evaluate;
mod function;
mod lexer;
mod literal;
mod parser;
mod pretty;
mod print;

pub use ast::{Expr, ValueType};
pub use duration::{format_duration, parse_duration};
pub use error::ParseError;
pub use evaluate::{
    Annotations, Budget, EvalError, EvalErrorKind, Hints, Interruption, Options, OverBudget, Partial, PartialError,
    PartialRequest, Query, QueryResult, ResultSample, ResultSeries, Selection, Severity, Storage, StorageError,
    Unlimited, format_decimal, format_sample_value,
};
pub use function::{Arity, Function, Signature};
pub use parser::{HEIGHT_MAX, TEXT_BYTES_MAX, parse, parse_labels, parse_matchers};
