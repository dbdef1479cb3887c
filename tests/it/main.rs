//! Drives the whole: one binary, one module per feature.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]
#![allow(clippy::print_stdout, reason = "what a test measured is shown when it fails, and with --nocapture")]

mod agents;
mod corruption;
mod crash;
mod discovery;
mod disks;
mod layering;
mod operating;
mod power;
mod promqltest;
mod receiver;
mod runbook;
mod write_and_query;

use tests::{Node, Settings};

/// The program under test: a `[[bin]]` of this package over the `bellrock` library.
const BELLROCK: &str = env!("CARGO_BIN_EXE_bellrock-under-test");

/// How tests start a node if they have no wishes.
fn settings() -> Settings {
    Settings::new(BELLROCK)
}

/// A node with its defaults, ready.
fn node() -> Node {
    Node::start(&settings()).unwrap()
}
