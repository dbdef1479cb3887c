//! What can go wrong with a block.

use std::fmt;

/// A part of a block's object, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Samples.
    ChunkPage,
    /// Labels of the rows of a chunk page.
    SeriesPage,
    /// Posting lists.
    Postings,
    /// The term dictionary.
    Terms,
    /// A tenant's metadata.
    Metadata,
    /// Where the pages lie, and which rows are whose.
    Directory,
    /// The end of the object.
    Footer,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Section::ChunkPage => "chunk page",
            Section::SeriesPage => "series page",
            Section::Postings => "postings",
            Section::Terms => "terms",
            Section::Metadata => "metadata",
            Section::Directory => "directory",
            Section::Footer => "footer",
        })
    }
}

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Stored bytes can't be what was written, or they are of a version that this program does not know.
    #[error("corrupt block: {section} at {offset}: {what}")]
    Corrupt {
        /// Which part.
        section: Section,
        /// Where it starts in the object.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The object store gave other bytes than were asked for.
    #[error("asked for {wanted} bytes at {offset}, got {got}")]
    WrongLength {
        /// Start of the range.
        offset: u64,
        /// Its length.
        wanted: u64,
        /// What came.
        got: u64,
    },
    /// A selection holds more samples than its caller allows; found before they are fetched.
    #[error("the selection holds more than {max} samples in one block")]
    TooManySamples {
        /// The limit.
        max: u64,
    },
    /// The writer's caller broke its promise of order, or gave samples that do not ascend.
    #[error("{0} out of order")]
    OutOfOrder(&'static str),
    /// More of something than the format can hold.
    #[error("{0} too large for one block")]
    TooLarge(&'static str),
    /// The reader's caller called `supply` without a fetch, or `step` after the end.
    #[error("{0}")]
    OutOfTurn(&'static str),
}

impl BlockError {
    /// Whether the object is damaged: it is to be quarantined, after one more GET.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, BlockError::Corrupt { .. } | BlockError::WrongLength { .. })
    }

    pub(crate) fn corrupt(section: Section, offset: u64, what: impl fmt::Display) -> BlockError {
        BlockError::Corrupt { section, offset, what: what.to_string() }
    }
}
