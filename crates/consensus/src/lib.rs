//! A group of replicas over any deterministic state machine: tikv's raft, a log of our own, and the face around it.
//!
//! [`Group::propose`] answers when an entry is durable, committed and applied here; [`Group::read`] looks at the state;
//! [`Group::read_index`] says which position a read must wait for to see everything that was answered
//! before, by any replica. The state machine comes as a [`Machine`] of plain functions, so neither crate knows the
//! other. A group of one voter and of many is the same code; who is in it changes while it runs.
//!
//! It opens no sockets: a [`Transport`] carries its bytes, [`Group::receive`] takes them. `core` is raft and what is
//! built around it, without I/O or time; `replica` gives it a disk; `group` gives it a thread and callers.
//!
//! The log's, snapshots' and messages' bytes: docs/formats/log.md. What survives what: `log.rs`. Why raft is used as it
//! is: docs/decisions/0007.

mod codec;
mod core;
mod envelope;
mod error;
mod files;
mod folder;
mod group;
mod identity;
mod jitter;
mod log;
mod logger;
mod machine;
mod mem_log;
mod members;
mod metrics;
mod queue;
mod recent;
mod replica;
mod settings;
mod snapshot;
mod standing;
#[cfg(test)]
mod tests;
mod transport;

pub use error::{ErrorKind, OpenError, ProposeError};
pub use files::{Files, LogFile, SystemFiles};
pub use group::{Group, MetricsOnce, Parts};
pub use machine::{BoxError, Machine};
pub use members::{Identity, Members, MembersError, Progress, Start};
pub use settings::Settings;
pub use standing::{Seen, Standing, StandingRefused};
pub use transport::{NoTransport, Transport};
