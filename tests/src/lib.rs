//! The harness: what the tests in `it/` need to start real nodes, to feed them and to judge their answers.
//!
//! Nothing here knows a crate's inside but by its public face. Tests wait on conditions, never on time; ports are
//! chosen by the operating system (`loopback`: those that must be known before); only processes that a test has started
//! are ended, by their id.
//!
//! | variable | what it does |
//! |---|---|
//! | `BELLROCK_FORBID_SKIPS=1` | a test that cannot find what it needs fails instead of printing `SKIPPED: …` |
//! | `BELLROCK_FULL=1` | the agents run for ten minutes, the crash test holds its load to 20,000 samples a second, and the torture does each fault five times, at its full length |
//! | `BELLROCK_PROMETHEUS=PATH` | this Prometheus is the agent and the peer instead of the installed one |
//! | `BELLROCK_SEED=N` | replays what a failed test printed as its seed |
//! | `BELLROCK_TORTURE=N,N` | the torture does only these faults of RELIABILITY.md's table |
//! | `BELLROCK_TORTURE_LOGS=FOLDER` | it keeps there what its processes said last |
//!
//! `cargo test -p tests --features plant` also shows that the checks find the bugs they are there to find.

pub mod agents;
pub mod answer;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod disk;
pub mod dns;
pub mod fsync;
pub mod garage;
pub mod known;
pub mod load;
pub mod loopback;
pub mod namespaces;
pub mod node;
pub mod process;
pub mod promqltest;
pub mod random;
pub mod s3;
pub mod skips;
pub mod store;
pub mod torture;
pub mod wait;

pub use client::{Client, Series, labels};
pub use node::{Node, Settings};
pub use random::Random;
pub use skips::{conformance, skip};
pub use store::Store;
pub use wait::{wait_for, wait_within};
