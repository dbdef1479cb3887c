//! The folders that can be listed.

use std::fmt;

use model::{ObjectKey, Right, WriterId};

/// A folder of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// Everybody's segments.
    Segments,
    /// One writer's segments.
    SegmentsOf(WriterId),
    /// All blocks.
    Blocks,
    /// The blocks that were PUT under one right.
    BlocksOf(Right),
    /// Checkpoints of the index.
    Checkpoints,
    /// Changes of the index.
    Changes,
}

impl Folder {
    /// The folders that hold all others.
    pub(crate) const TOP: [&'static str; 4] =
        [ObjectKey::SEGMENTS, ObjectKey::BLOCKS, ObjectKey::CHECKPOINTS, ObjectKey::CHANGES];
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Folder::Segments => f.write_str(ObjectKey::SEGMENTS),
            // The folder of a key is the key without its name, so it is spelled in one place only.
            Folder::SegmentsOf(writer) => {
                f.write_str(parent(&ObjectKey::Segment { writer, n: 0, attempt: 0 }.to_string()))
            }
            Folder::Blocks => f.write_str(ObjectKey::BLOCKS),
            Folder::BlocksOf(right) => f.write_str(parent(&ObjectKey::Block { right, attempt: 0 }.to_string())),
            Folder::Checkpoints => f.write_str(ObjectKey::CHECKPOINTS),
            Folder::Changes => f.write_str(ObjectKey::CHANGES),
        }
    }
}

/// The folder that a path lies in; "" at the top.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
