//! x
use crate::*;
use bytes::Bytes;

/// A block's footer, directory and terms: what every question to it needs. Immutable; cache it in an `Arc`.
pub struct BlockIndex {
    footer: Footer,
}

impl BlockIndex {
    /// What the block says of itself.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Bytes of memory it takes, for a cache's accounts.
    pub fn memory_bytes(&self) -> usize {
        0
    }
}

/// Reads a block's index: one fetch, or two if it is longer than [`FOOTER_HINT_BYTES`].
pub struct Open {}

impl Open {
    /// `object_bytes` is the object's length, as the index entry names it.
    pub fn new(_object_bytes: u64) -> Open {
        Open {}
    }
}

impl Request for Open {
    type Output = BlockIndex;
    fn step(&mut self) -> Result<Step<BlockIndex>, BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
    fn supply(&mut self, _parts: Vec<Bytes>) -> Result<(), BlockError> {
        Err(BlockError::OutOfTurn("not yet"))
    }
}
