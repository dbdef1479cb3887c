//! x
use crate::*;
use bytes::Bytes;
use model::{Metadata, TenantId};
use std::sync::Arc;

/// Reads a tenant's metadata: metric name and what is known of it, ascending.
pub struct FetchMetadata {}

impl FetchMetadata {
    /// See the type.
    pub fn new(_index: Arc<BlockIndex>, _tenant: &TenantId) -> FetchMetadata {
        FetchMetadata {}
    }
}

impl Request for FetchMetadata {
    type Output = Vec<(String, Metadata)>;
    fn step(&mut self) -> Result<Step<Self::Output>, BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
    fn supply(&mut self, _parts: Vec<Bytes>) -> Result<(), BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
}
