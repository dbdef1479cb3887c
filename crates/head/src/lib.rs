//! A writer's samples since its last cut, in memory, rebuilt from its segments if lost.
//!
//! [`Head`] is a fold over committed segments and nothing else: live, after a crash and at adoption the same
//! [`Head::take_in`] takes in the same columns. It keeps the codes of the segments as they are, in chains of small
//! nodes, and decodes them only when they are asked for: in a query outside the lock, in a cut one series at a time.
//! It does no I/O and knows no clock; whoever owns it decides when it is cut, and starts an empty one then.

mod arena;
mod arrivals;
mod error;
mod head;
mod labels;
mod pages;
mod select;
mod series;
mod slab;
mod sorted;

pub use error::HeadError;
pub use head::{Head, HeadStats};
pub use select::{HeadSelection, SelectedSeries};
pub use sorted::SortedSeries;
