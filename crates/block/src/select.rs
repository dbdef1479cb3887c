//! x
use crate::*;
use bytes::Bytes;
use model::{Labels, Samples, TenantId, TimeRange};
use std::sync::Arc;

/// Reads the samples of the series that match, clipped to a range; series without a sample in it are left out. Ordered by metric name and labels.
pub struct Select {}

impl Select {
    /// See the type.
    pub fn new(_index: Arc<BlockIndex>, _tenant: &TenantId, _matchers: Arc<Matchers>, _range: TimeRange) -> Select {
        Select {}
    }

    /// Refuses with `TooManySamples` a selection whose series hold more samples in this block, before fetching them.
    pub fn with_samples_max(self, _samples_max: u64) -> Select {
        self
    }
}

impl Request for Select {
    type Output = Vec<(Labels, Samples)>;
    fn step(&mut self) -> Result<Step<Self::Output>, BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
    fn supply(&mut self, _parts: Vec<Bytes>) -> Result<(), BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
}

/// Reads the labels of the series that match and may have samples in a range. Ordered by metric name and labels. Fetches no chunk pages.
pub struct SelectSeries {}

impl SelectSeries {
    /// See the type.
    pub fn new(
        _index: Arc<BlockIndex>,
        _tenant: &TenantId,
        _matchers: Arc<Matchers>,
        _range: TimeRange,
    ) -> SelectSeries {
        SelectSeries {}
    }
}

impl Request for SelectSeries {
    type Output = Vec<Labels>;
    fn step(&mut self) -> Result<Step<Self::Output>, BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
    fn supply(&mut self, _parts: Vec<Bytes>) -> Result<(), BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
}

/// Reads the names of the labels of the series that match, ascending. Without matchers it needs no fetch, and the range is only compared with the block's.
pub struct LabelNames {}

impl LabelNames {
    /// See the type.
    pub fn new(_index: Arc<BlockIndex>, _tenant: &TenantId, _matchers: Arc<Matchers>, _range: TimeRange) -> LabelNames {
        LabelNames {}
    }
}

impl Request for LabelNames {
    type Output = Vec<String>;
    fn step(&mut self) -> Result<Step<Self::Output>, BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
    fn supply(&mut self, _parts: Vec<Bytes>) -> Result<(), BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
}

/// Reads the values of a label of the series that match, ascending. Without matchers it needs no fetch, and the range is only compared with the block's.
pub struct LabelValues {}

impl LabelValues {
    /// See the type.
    pub fn new(
        _index: Arc<BlockIndex>,
        _tenant: &TenantId,
        _name: &str,
        _matchers: Arc<Matchers>,
        _range: TimeRange,
    ) -> LabelValues {
        LabelValues {}
    }
}

impl Request for LabelValues {
    type Output = Vec<String>;
    fn step(&mut self) -> Result<Step<Self::Output>, BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
    fn supply(&mut self, _parts: Vec<Bytes>) -> Result<(), BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
}
