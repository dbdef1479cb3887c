//! Keeps the index in the bucket, and collects what the index does not name any more.
//!
//! - `checkpoint`: when to write a checkpoint or the changes since.
//! - `collect`: which objects are dead, and when they may go.
//! - `stored`: the index as the bucket holds it, read back from there; the collector goes by nothing else.
//! - `drive`: the thin driver that does what those say.
//!
//! Merging blocks (compaction proper), retention and downsampling come with their own issue.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests wait for real files while the clock stands still"))]

mod checkpoint;
mod collect;
mod drive;
mod error;
mod metrics;
mod settings;
mod stored;
#[cfg(test)]
mod tests;

pub use drive::{Compactor, IndexGroup, Parts};
pub use error::{CompactorError, ErrorKind};
pub use settings::Settings;
pub use stored::{check_index_is_newest, read_stored};
