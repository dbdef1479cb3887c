//! Prometheus's script language for PromQL tests: a parser for it, and a runner over any store.
//!
//! Written from `../shared/conformance/promqltest-format.md`. [`parse`] reads a script; [`run`] plays it against a
//! [`Store`] and returns what did not come out as expected. The expectations are judged here, so that one set of scripts
//! holds the engine alone and a whole node over HTTP to the same answers.

mod at_modifier;
mod compare;
mod duration;
mod histogram;
mod http_store;
mod memory;
mod nhcb;
mod runner;
mod script;
mod series;

pub use compare::floats_are_near;
pub use duration::parse_duration;
pub use histogram::{FloatHistogram, HistogramLiteral};
pub use http_store::HttpStore;
pub use memory::MemoryStore;
pub use runner::{Answer, Choice, Data, Failure, Report, Store, is_native, run, run_eval};
pub use script::{Action, Command, Eval, Expected, Load, Script, ScriptError, Steps, TextMatch, When, parse, read};
pub use series::{Item, parse_series};
