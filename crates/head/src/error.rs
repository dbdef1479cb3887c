//! Why a head can't take a segment in, or can't answer.

use model::{DecodeError, SegmentNumber};
use segment::SeriesId;

/// What went wrong in a head. After an error of [`crate::Head::take_in`] the head is what it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Segments are taken in one after the other.
    #[error("head has applied segment {applied}, so {found} is not the next")]
    NotNext {
        /// The last segment that was taken in.
        applied: SegmentNumber,
        /// The one that was offered.
        found: SegmentNumber,
    },
    /// A sample of a series that no segment since the cut has spelled out: a segment is missing or forged.
    #[error("segment {n} has a sample of series {id}, which was not spelled out since the cut")]
    UnknownSeries {
        /// The segment.
        n: SegmentNumber,
        /// The series.
        id: SeriesId,
    },
    /// A series spelled out a second time since the cut: forged, or a bug in the writer.
    #[error("segment {n} spells series {id} out again")]
    SpelledTwice {
        /// The segment.
        n: SegmentNumber,
        /// The series.
        id: SeriesId,
    },
    /// Labels take all of the 4 GiB that a head can number.
    #[error("head has no room for the labels of segment {n}: cut it")]
    Full {
        /// The segment.
        n: SegmentNumber,
    },
    /// The plan names a segment that has not been taken in yet: wait.
    #[error("head has applied segment {applied}, the query's plan needs {upto}")]
    Behind {
        /// The last segment that was taken in.
        applied: SegmentNumber,
        /// What the plan needs.
        upto: SegmentNumber,
    },
    /// The head can't go back to a plan this old: take a newer one.
    #[error("head has applied segment {applied} and can't go back to {upto}: plan again")]
    PlanAgain {
        /// The last segment that was taken in.
        applied: SegmentNumber,
        /// What the plan asks for.
        upto: SegmentNumber,
    },
    /// Codes that can't be read although they were checked when they came in: a bug, or failing memory.
    #[error("head holds broken codes of series {id}: {source}")]
    Codes {
        /// The series.
        id: SeriesId,
        /// What and where in the series' codes.
        source: DecodeError,
    },
}
