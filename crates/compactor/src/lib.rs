//! Keeps the index in the bucket, and collects what the index does not name any more.
//!
//! - `checkpoint`: when to write a checkpoint or the changes since.
//! - `collect`: which objects are dead, and when they may go.
//! - `stored`: the index as the bucket holds it, read back from there; the collector goes by nothing else.
//! - `recover`: what the bucket holds becomes the index of a new incarnation.
//! - `drive`: the thin driver that does what those say.
//!
//! `checkpoint`, `collect` and `recover` do no I/O, and are public so that `sim` can drive them.
//!
//! Merging blocks (compaction proper), retention and downsampling come with their own issue.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests wait for real files while the clock stands still"))]

pub mod checkpoint;
pub mod collect;
mod drive;
mod error;
mod metrics;
pub mod recover;
mod settings;
mod stored;
#[cfg(test)]
mod tests;

pub use drive::{Compactor, IndexGroup, Parts};
pub use error::{CompactorError, ErrorKind};
pub use settings::Settings;
pub use stored::{check_index_is_newest, read_stored};
