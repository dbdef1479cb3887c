//! Parses and evaluates PromQL, pure and synchronous.
//!
//! A text becomes a tree ([`ast`]) that has been type-checked; whoever evaluates it hands in the series.
//! The language is Prometheus 3.14's, with its experimental parts on.

pub mod ast;
mod function;

pub use ast::Expr;
pub use function::{Arity, Function, Signature};
