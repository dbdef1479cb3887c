//! What can be wrong with a segment's bytes, and in which section.

use std::fmt;

use model::DecodeError;

/// A part of a segment; the number is its kind in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Section {
    /// The fixed part in front.
    Header = 0,
    /// Names of the tenants.
    Tenants = 1,
    /// Label pairs that the spelled series use.
    Pairs = 2,
    /// The series that are spelled out here.
    Series = 3,
    /// The samples' series.
    Ids = 4,
    /// Time codes.
    Times = 5,
    /// Value codes.
    Values = 6,
    /// Kinds, units and help texts of metrics.
    Metadata = 7,
}

impl Section {
    /// The sections that follow the header, in their order.
    pub(crate) const AFTER_HEADER: [Section; 7] = [
        Section::Tenants,
        Section::Pairs,
        Section::Series,
        Section::Ids,
        Section::Times,
        Section::Values,
        Section::Metadata,
    ];
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Section::Header => "header",
            Section::Tenants => "tenants",
            Section::Pairs => "label pairs",
            Section::Series => "series",
            Section::Ids => "ids",
            Section::Times => "times",
            Section::Values => "values",
            Section::Metadata => "metadata",
        })
    }
}

/// Bytes that are no whole segment. All of these mean that the object is corrupt; the caller adds which one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The magic is not there.
    #[error("not a segment: the first bytes are not its magic")]
    Magic,
    /// Written by a newer release.
    #[error("segment has format version {found}, this release reads up to {known}")]
    Version {
        /// Its version.
        found: u16,
        /// The newest that is known here.
        known: u16,
    },
    /// The bytes end too early, or go on after the end.
    #[error("segment {section} at byte {offset}: {what}")]
    Outline {
        /// Where it was noticed.
        section: Section,
        /// Offset in the object.
        offset: usize,
        /// What does not fit.
        what: &'static str,
    },
    /// The bytes are not those that were written.
    #[error("segment {section} at byte {offset}: checksum is {found:08x}, should be {expected:08x}")]
    Checksum {
        /// Which section.
        section: Section,
        /// Offset in the object.
        offset: usize,
        /// What the section says.
        expected: u32,
        /// What its bytes have.
        found: u32,
    },
    /// A section over the limit.
    #[error("segment {section} at byte {offset}: {bytes} bytes, the limit is {max}")]
    TooLarge {
        /// Which section.
        section: Section,
        /// Offset in the object.
        offset: usize,
        /// Its size, unpacked.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The checksum is right, the content is not: a bug in the writer, or forged.
    #[error("segment {section}, unpacked: {source}")]
    Content {
        /// Which section.
        section: Section,
        /// What and where in the unpacked section.
        source: DecodeError,
    },
}
