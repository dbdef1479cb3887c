//! What the index knows of a block.

use model::{DecodeError, ObjectKey, Reader, Revision, Right, TimeRange};

use crate::encoding::{put_block, read_block};

/// Which block: the right it was PUT under, and which PUT under that right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId {
    /// What it was PUT under.
    pub right: Right,
    /// Which PUT; for a writer's own cut made by [`ObjectKey::cut_attempt`].
    pub attempt: u64,
}

impl BlockId {
    /// Where the block lies.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::Block { right: self.right, attempt: self.attempt }
    }
}

/// What the index says of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockMeta {
    /// Which block.
    pub id: BlockId,
    /// Length of the object; a reader finds the footer by it.
    pub bytes: u64,
    /// From its first to its last sample; `None` if it holds metadata only.
    pub range: Option<TimeRange>,
    /// Series in it.
    pub series: u64,
    /// Samples in it.
    pub samples: u64,
    /// The revision that it was built from: later deletes apply to it.
    pub built_at: Revision,
}

impl BlockMeta {
    /// Appends its bytes, as they are in a checkpoint: for messages that name blocks.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_block(out, self);
    }

    /// Reads what [`BlockMeta::put`] wrote.
    pub fn read(reader: &mut Reader<'_>) -> Result<BlockMeta, DecodeError> {
        read_block(reader)
    }
}
