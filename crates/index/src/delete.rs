//! Deletes of samples: what was asked, not yet what it did. Readers and compactions apply them.

use model::{MatchOp, TenantId, TimeRange};

/// One condition of a delete, as it was written. The index compares nothing: it only remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteMatcher {
    /// The label's name.
    pub name: String,
    /// How it compares.
    pub op: MatchOp,
    /// The value or pattern.
    pub value: String,
}

/// Samples of one tenant's matching series within a time range.
///
/// It applies to a segment if its revision is later than the one the segment was sealed at, and to a
/// block if it is later than the one that the block was built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// Drawn by whoever asks: a proposal that is made again, or arrives twice, must not delete what was written since.
    pub nonce: u64,
    /// Whose samples.
    pub tenant: TenantId,
    /// All must match.
    pub matchers: Vec<DeleteMatcher>,
    /// Which of their samples.
    pub range: TimeRange,
}
