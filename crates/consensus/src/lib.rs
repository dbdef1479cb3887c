//! A group of replicas over any deterministic state machine; at first a group of one, which is a durable log.
//!
//! [`Group::propose`] answers when an entry is durable and applied; [`Group::read`] looks at the state;
//! [`Group::read_index`] says which position a read must wait for to see everything that was answered
//! before. The state machine comes as a [`Machine`] of plain functions, so neither crate knows the other.
//! Callers must not lean on there being one replica: raft takes over behind the same face.
//!
//! The log's and snapshots' bytes: docs/formats/log.md. What survives what: `log.rs`.

mod codec;
mod core;
mod envelope;
mod error;
mod files;
mod folder;
mod group;
mod identity;
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
pub use group::{Group, Parts};
pub use machine::{BoxError, Machine};
pub use members::{Identity, Members, MembersError, Progress, Start};
pub use settings::Settings;
pub use standing::{Standing, StandingRefused};
pub use transport::{NoTransport, Transport};
