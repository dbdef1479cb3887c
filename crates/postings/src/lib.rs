//! Says which series match: a term dictionary over (tenant, label name, label value), and for each term the
//! ordinals of the series that have it.
//!
//! Knows nothing of blocks: ordinals are whatever the caller counts. Does no I/O: [`Terms::plan`] says which byte
//! ranges of the postings it needs, [`Plan::resolve`] takes them and answers. The bytes: docs/formats/block.md.

mod automaton;
mod builder;
mod error;
mod key;
mod list;
mod matchers;
mod plan;
mod terms;

pub use builder::{Encoded, PostingsBuilder};
pub use error::PostingsError;
pub use matchers::Matchers;
pub use plan::Plan;
pub use terms::Terms;

/// Ordinals of series, ascending.
pub use roaring::RoaringBitmap as Postings;
