//! The replicated state machine: which writers, segments and blocks there are, at a revision.
//!
//! [`Index::apply`] is the commit protocol: an entry's precondition is judged there, when the entry is
//! applied, and nowhere else; a proposer's view may be arbitrarily old. It is a pure function of the
//! state, the position and the entry: no clock, no I/O, no randomness, so every replica that applies the
//! same log is in the same state ([`Index::state_hash`] compares them).
//!
//! Beside it: [`Index::plan`], what a query reads; [`dead`], which objects may be deleted; and the bytes
//! of [`Entry`], checkpoint and [`Changes`] (docs/formats/checkpoint.md).
//!
//! It knows neither how entries are agreed on (`consensus`) nor where checkpoints lie (`bucket`), and it
//! names no metric: numbers for those come from [`Index::counts`].

mod apply;
mod block;
mod changes;
mod checkpoint;
mod dead;
mod delete;
mod encoding;
mod entry;
mod node;
mod plan;
mod refused;
mod state;
#[cfg(test)]
mod tests;

pub use apply::Applied;
pub use block::{BlockId, BlockMeta};
pub use changes::{CHANGES_VERSION, Changes, ChangesError};
pub use checkpoint::{CHECKPOINT_VERSION, CheckpointError};
pub use dead::dead;
pub use delete::{Delete, DeleteMatcher};
pub use entry::{Command, ENTRY_VERSION, Entry, EntryError, SegmentMeta};
pub use model::NodeId;
pub use node::{NODE_TEXT_BYTES_MAX, NodeInfo};
pub use plan::{Plan, PlannedWriter};
pub use refused::Refused;
pub use state::{CompactLease, Counts, Index, Quarantined, Stage, Writer};
