//! x
use crate::BlockError;
use model::{Labels, Metadata, Revision, Samples, TenantId, TimeRange};

/// What the caller knows of a block before its first series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The cluster's id.
    pub cluster: u128,
    /// The index revision that the block is built from: deletes up to it are applied.
    pub built_at: Revision,
}

/// What was written, for the index entry and for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockStats {
    /// Distinct (tenant, labels).
    pub series: u64,
    /// Samples of all series.
    pub samples: u64,
    /// From the first sample to the last; `None` if there are none.
    pub time_range: Option<TimeRange>,
    /// Bytes of the object.
    pub bytes: u64,
}

/// Writes a block from series that come in order; see the module.
pub struct BlockWriter {}

impl BlockWriter {
    /// A writer that compresses as a cut does: fast.
    pub fn new(_header: Header) -> BlockWriter {
        BlockWriter {}
    }

    /// Compresses at this zstd level instead of 1.
    pub fn with_level(self, _level: i32) -> BlockWriter {
        self
    }

    /// Adds a series. Tenants ascend; within one, series ascend by [`Labels::cmp_by_metric`]. One without samples is left out.
    ///
    /// Errors: `OutOfOrder` for series, or for timestamps that do not ascend.
    pub fn add(&mut self, _tenant: &TenantId, _labels: &Labels, _samples: &Samples) -> Result<(), BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }

    /// Adds what is known of a metric, in any order; the last for a (tenant, metric) stays.
    pub fn put_metadata(&mut self, _tenant: &TenantId, _metric: &str, _metadata: &Metadata) {}

    /// Whether no sample was added.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Ends the block and returns the object's bytes.
    pub fn finish(self) -> Result<(Vec<u8>, BlockStats), BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
}
