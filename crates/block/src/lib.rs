//! The immutable object that a cut or a compaction makes: chunk pages, series pages, terms, postings, metadata, footer.
//!
//! [`BlockWriter`] takes series in order and returns the object's bytes. Readers do no I/O: a [`Request`] says in
//! [`Request::step`] which byte ranges it needs, takes them in [`Request::supply`], and so on until it is done:
//!
//! ```no_run
//! # use block::{BlockError, Request, Step};
//! # use bytes::Bytes;
//! # use std::ops::Range;
//! fn run<R: Request>(mut request: R, get_ranges: impl Fn(&[Range<u64>]) -> Vec<Bytes>) -> Result<R::Output, BlockError> {
//!     loop {
//!         match request.step()? {
//!             Step::Fetch(ranges) => request.supply(get_ranges(&ranges))?,
//!             Step::Done(output) => return Ok(output),
//!         }
//!     }
//! }
//! ```
//!
//! First [`Open`] makes a [`BlockIndex`] (to be cached), then [`Select`], [`SelectSeries`], [`LabelNames`], [`LabelValues`]
//! and [`FetchMetadata`] answer from it. The format: docs/formats/block.md.

mod directory;
mod error;
mod fetch;
mod footer;
mod index;
mod metadata;
mod pieces;
mod request;
mod select;
mod series_page;
mod writer;

pub use error::{BlockError, Section};
pub use footer::{FOOTER_HINT_BYTES, Footer, Sections};
pub use index::{BlockIndex, Open};
pub use metadata::FetchMetadata;
pub use postings::Matchers;
pub use request::{Request, Step};
pub use select::{CountSamples, LabelNames, LabelValues, Select, SelectSeries};
pub use writer::{BlockStats, BlockWriter, Header};

#[cfg(test)]
mod tests;
