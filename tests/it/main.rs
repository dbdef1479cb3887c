//! Drives the whole: one binary, one module per feature.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]
#![allow(clippy::print_stdout, reason = "what a test measured is shown when it fails, and with --nocapture")]

/// Runs each of these functions, which take a store, as a test on every kind of store.
macro_rules! on_every_store {
    ($($test:ident),+ $(,)?) => {
        mod on_directory {
            $(#[test] fn $test() { crate::on(tests::store::Kind::Directory, super::$test) })+
        }
        mod on_s3 {
            $(#[test] fn $test() { crate::on(tests::store::Kind::S3, super::$test) })+
        }
        mod on_garage {
            $(#[test] fn $test() { crate::on(tests::store::Kind::Garage, super::$test) })+
        }
    };
}

mod agents;
mod cluster;
mod corruption;
mod crash;
mod deploy;
mod discovery;
mod disks;
mod layering;
mod operating;
mod power;
mod promqltest;
mod receiver;
mod recovery;
mod runbook;
mod sharding;
mod status;
mod stores;
mod torture;
mod write_and_query;

use tests::store::Kind;
use tests::{Node, Settings, Store};

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

/// A node with its defaults on a store, ready.
fn node_on(store: &Store) -> Node {
    Node::start(&store.apply(settings())).unwrap()
}

/// Runs a test on a store of this kind, unless there is none here.
fn on(kind: Kind, test: impl FnOnce(&Store)) {
    if let Some(store) = Store::start(kind) {
        test(&store);
    }
}
