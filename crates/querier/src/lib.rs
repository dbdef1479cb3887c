//! Gathers a query's series from heads and blocks at one revision, and evaluates PromQL over them.
//!
//! A query plans once (`plan`): which blocks overlap its time, and of each writer which segments no block holds. Blocks
//! are read by ranges (`blocks`), heads through a trait that the binary fills in (`heads`), and what both
//! have of a series is merged by the model's one rule (`select`). When a part of the plan has gone since (a cut let go of
//! a head, a collector deleted a block) the whole query is planned again at a newer revision, never answered in part.

mod blocks;
mod error;
mod heads;
mod metrics;
mod plan;
mod querier;
mod segments;
mod select;
mod settings;
mod shares;

pub use error::{Kind, QueryError};
pub use heads::{HeadError, HeadPlan, HeadReader};
pub use plan::OldestPlan;
pub use querier::{Answer, LabelsAnswer, Parts, Querier, QueryOptions, RangeOf, ShareRefused};
pub use segments::SegmentHeads;
pub use settings::{Limits, Settings};
pub use shares::{Nodes, ShareError};

/// The index as consensus keeps it.
pub type IndexGroup = consensus::Group<index::Index, index::Entry, Result<index::Applied, index::Refused>>;
