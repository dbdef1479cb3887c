//! x
use model::{Revision, TimeRange};

/// How many bytes of an object's end to fetch first: mostly all that [`crate::Open`] needs.
pub const FOOTER_HINT_BYTES: u64 = 64 << 10;

/// What a block says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The cluster that wrote it.
    pub cluster: u128,
    /// The index revision that it was built from.
    pub built_at: Revision,
    /// From its first sample to its last; `None` if it has none.
    pub time_range: Option<TimeRange>,
    /// Distinct (tenant, labels).
    pub series: u64,
    /// Samples of all series.
    pub samples: u64,
}
