//! Accepts samples, flushes, acks, cuts.
//!
//! The path of a write: [`Ingester::append`] finds each series its id and adds the samples to the open segment (`append`);
//! the writer seals it (`flush` says when), PUTs it, proposes AddSegment, lets the head take it in and only then wakes
//! the requests that wait for it (`writer`). Every few minutes the head is cut into a block (`cut` says when). The
//! segments that a dead process left behind are adopted at the start (`adopt`).
//!
//! The head is a fold over committed segments and nothing else, so what a query sees can't be lost any more, and a
//! crash costs nothing but reading the segments again.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests set the scene with files and tasks of their own"))]

mod adopt;
mod append;
mod cut;
mod error;
mod flush;
mod heads;
mod ingester;
mod metrics;
mod pack;
mod plant;
mod series_table;
mod settings;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{IngesterError, Kind, PushError, Reason, Rejected};
pub use heads::{HeadPlan, Heads, HeadsError};
pub use ingester::{Ingester, Parts, Ticket};
pub use pack::PackError;
pub use settings::{Limits, Settings};

/// The index as consensus keeps it.
pub type IndexGroup = consensus::Group<index::Index, index::Entry, Result<index::Applied, index::Refused>>;
