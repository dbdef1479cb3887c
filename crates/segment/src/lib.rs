//! The bytes that one flush makes durable: docs/formats/segment.md.
//!
//! A writer fills [`Columns`] while a segment is open: each new series is spelled out once since the cut, each sample
//! is coded against its series' last one. [`encode`] seals them into the bytes of one object and [`decode`] gives
//! them back. The head takes in the same columns either way: live, or after a crash.
//!
//! A segment alone means little: ids and codes build on the writer's segments since its last cut, so they are only
//! ever read in order, from a cut on.

mod columns;
mod error;
mod format;
mod ids;
mod pairs;

pub use chunk::SeriesState;
pub use columns::{Columns, MetadataEntry, SpelledSeries};
pub use error::{Section, SegmentError};
pub use format::{Header, decode, encode};
pub use ids::{IdRun, Ids};

/// A series' number within its writer; it may be given to another series after a cut.
pub type SeriesId = u32;
