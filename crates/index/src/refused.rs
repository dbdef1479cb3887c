//! Why an entry was refused.

use model::{Incarnation, Lease, NodeId, Revision, SegmentNumber, WriterId};

use crate::block::BlockId;
use crate::state::Stage;

/// A precondition that did not hold. The entry changed nothing.
///
/// The `Already…` ones say that what was asked for is so: what a retry after a lost answer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Proposed in another life of the index.
    #[error("proposed in incarnation {entry}, the index is in {index}")]
    OtherIncarnation {
        /// The entry's.
        entry: Incarnation,
        /// The index's.
        index: Incarnation,
    },
    /// This process has a writer.
    #[error("registered already as writer {writer}")]
    AlreadyRegistered {
        /// It.
        writer: WriterId,
    },
    /// No writer of this id was registered yet.
    #[error("writer {writer} is not registered")]
    UnknownWriter {
        /// The id.
        writer: WriterId,
    },
    /// The writer is closed. Whether the entry had been applied before, the index can't say any more.
    #[error("writer {writer} is closed")]
    Closed {
        /// The id.
        writer: WriterId,
    },
    /// The writer is in another stage than the entry demands.
    #[error("writer {writer} is {stage}")]
    WrongStage {
        /// The id.
        writer: WriterId,
        /// What it is in.
        stage: Stage,
    },
    /// This number is committed: an earlier try of the same proposal got through.
    #[error("segment {n} of writer {writer} is added already")]
    AlreadyAdded {
        /// Whose.
        writer: WriterId,
        /// Which.
        n: SegmentNumber,
    },
    /// A number after the next one: segments commit in order.
    #[error("segment {n} of writer {writer} is not the next, {next}")]
    OutOfOrder {
        /// Whose.
        writer: WriterId,
        /// Which.
        n: SegmentNumber,
        /// What is to come.
        next: SegmentNumber,
    },
    /// This grant is the newest already, and the same node holds it.
    #[error("lease number {number} is granted already")]
    AlreadyGranted {
        /// Its number.
        number: u64,
    },
    /// A grant's number is not the one after the last.
    #[error("lease number {number} does not follow {last}")]
    NotNextLease {
        /// The entry's.
        number: u64,
        /// The last granted.
        last: u64,
    },
    /// A newer grant superseded the number, or it was never granted.
    #[error("lease {lease} is not the current one")]
    LeaseNotCurrent {
        /// The entry's.
        lease: Lease,
    },
    /// The number has had its Replace.
    #[error("lease {lease} is spent")]
    LeaseSpent {
        /// The entry's.
        lease: Lease,
    },
    /// This block is part of the data: an earlier try of the same proposal got through.
    #[error("block {} is named already", .block.key())]
    AlreadyNamed {
        /// It.
        block: BlockId,
    },
    /// The block's key is not one of the right, or the cut, that the entry stands on.
    #[error("block {} was not put for this entry", .block.key())]
    WrongKey {
        /// It.
        block: BlockId,
    },
    /// Cut elsewhere since.
    #[error("writer {writer} is cut up to {cut}, not {from}")]
    CutMoved {
        /// Whose.
        writer: WriterId,
        /// Where it is cut.
        cut: SegmentNumber,
        /// Where the entry says.
        from: SegmentNumber,
    },
    /// `upto` is not where this cut or quarantine may end.
    #[error("{upto} is not a segment of writer {writer} that this may reach: it has {added}")]
    WrongEnd {
        /// Whose.
        writer: WriterId,
        /// The entry's.
        upto: SegmentNumber,
        /// The last added.
        added: SegmentNumber,
    },
    /// Closing would lose segments.
    #[error("writer {writer} has segments above {cut} that are neither cut nor quarantined")]
    SegmentsLeft {
        /// Whose.
        writer: WriterId,
        /// The last cut.
        cut: SegmentNumber,
    },
    /// A block that was to be replaced is not part of the data.
    #[error("block {} is not part of the data", .block.key())]
    BlockAbsent {
        /// It.
        block: BlockId,
    },
    /// This delete is known: an earlier try of the same proposal got through.
    #[error("deleted already, at revision {at}")]
    AlreadyDeleted {
        /// When.
        at: Revision,
    },
    /// All of these are quarantined.
    #[error("segments of writer {writer} are quarantined already")]
    AlreadyQuarantined {
        /// Whose.
        writer: WriterId,
    },
    /// There is no such node.
    #[error("node {node} is not part of the cluster")]
    NodeUnknown {
        /// Which.
        node: NodeId,
    },
    /// Some of these are quarantined, or the range is empty or reaches below the cut.
    #[error("not a range of segments of writer {writer} that can be quarantined")]
    WrongQuarantine {
        /// Whose.
        writer: WriterId,
    },
}

impl Refused {
    /// Whether the index is as the entry wanted it: an earlier try of the same proposal was applied.
    pub fn is_already_so(&self) -> bool {
        matches!(
            self,
            Refused::AlreadyRegistered { .. }
                | Refused::AlreadyAdded { .. }
                | Refused::AlreadyGranted { .. }
                | Refused::AlreadyNamed { .. }
                | Refused::AlreadyDeleted { .. }
                | Refused::AlreadyQuarantined { .. }
        )
    }
}
