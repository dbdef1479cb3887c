//! The harness: what the tests in `it/` need to start real nodes, to feed them and to judge their answers.
//!
//! Nothing here knows a crate's inside but by its public face. Tests wait on conditions, never on time; ports are
//! chosen by the operating system; only processes that a test has started are ended, by their id.

pub mod promqltest;
pub mod skips;

pub use skips::{conformance, skip};
