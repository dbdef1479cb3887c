//! Accepts samples, flushes, acks, cuts.
//!
//! The path of a write: [`Ingester::push`] splits a request and hands each part to its series' home (`route`), which may be
//! this node; [`Ingester::append`] finds each series its id and adds the samples to the open segment (`append`); the
//! writer seals it (`flush` says when), PUTs it, proposes AddSegment, lets the head take it in and only then wakes the
//! requests that wait for it (`writer`). Every few minutes the head is cut into a block (`cut` says when).
//!
//! The leader's `warden` fences the writers of nodes that went silent and grants them to others (`fence` says when and to
//! whom); a node adopts what it is granted (`adoption`; `adopt` says how). A process whose writer is fenced while it lives
//! answers 503 to those who wait, and registers a new one.
//!
//! `flush`, `cut`, `fence` and `adopt` are machines without I/O, public so that `sim` can drive them.
//!
//! The head is a fold over committed segments and nothing else, so what a query sees can't be lost any more, and a
//! crash costs nothing but reading the segments again.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests set the scene with files and tasks of their own"))]

pub mod adopt;
mod adoption;
mod append;
pub mod cut;
mod error;
pub mod fence;
pub mod flush;
mod heads;
mod ingester;
mod metrics;
mod pack;
mod plant;
mod route;
mod series_table;
mod session;
mod settings;
#[cfg(test)]
mod tests;
pub mod verdict;
mod warden;
mod writer;

pub use error::{IngesterError, Kind, PushError, Reason, Rejected};
pub use heads::{HeadPlan, Heads, HeadsError};
pub use ingester::{Ingester, Parts, Ticket};
pub use pack::PackError;
pub use route::{Homes, NotTaken, PartError, Routed};
pub use session::{AlwaysInSession, SessionGuard};
pub use settings::{Limits, Settings};
pub use warden::{AloneSessions, Sessions, WardenParts, start_warden};

/// The index as consensus keeps it.
pub type IndexGroup = consensus::Group<index::Index, index::Entry, Result<index::Applied, index::Refused>>;
