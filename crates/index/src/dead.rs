//! Which objects may be deleted: PROTOCOL.md, "Who may delete an object, and when".

use model::{Lease, ObjectKey, Right, SegmentNumber, WriterId};

use crate::block::BlockId;
use crate::state::{Index, Stage};

/// Whether no entry after `checkpoint` can make the object under `key` part of the data.
///
/// `checkpoint` is what the bucket holds (a checkpoint with its changes), never the index in memory: a
/// recovery would go back to what the bucket holds. Dead is for ever: with any later state it is true again.
/// Never true of the cluster's and replicas' files, checkpoints and changes, which have rules of their own, nor of what the
/// checkpoint can't know yet: a writer or number of after it.
pub fn dead(checkpoint: &Index, key: &ObjectKey) -> bool {
    match *key {
        ObjectKey::Segment { writer, n, .. } => segment_is_dead(checkpoint, writer, n),
        ObjectKey::Block { right, attempt } => block_is_dead(checkpoint, BlockId { right, attempt }),
        ObjectKey::Cluster | ObjectKey::Replica(_) | ObjectKey::Checkpoint(_) | ObjectKey::Changes { .. } => false,
    }
}

fn segment_is_dead(checkpoint: &Index, writer: WriterId, n: SegmentNumber) -> bool {
    if checkpoint.is_quarantined(writer, n) {
        return false;
    }
    match checkpoint.writer(writer) {
        Some(known) => n <= known.cut,
        None => is_closed(checkpoint, writer),
    }
}

fn block_is_dead(checkpoint: &Index, block: BlockId) -> bool {
    if checkpoint.block(&block).is_some() {
        return false;
    }
    match block.right {
        Right::Writer(writer) => match checkpoint.writer(writer) {
            // Cut(from, upto) demands from = cut < upto, and the key says upto.
            Some(known) => known.stage == Stage::Fenced || ObjectKey::cut_reaches(block.attempt) <= known.cut,
            None => is_closed(checkpoint, writer),
        },
        Right::Adopter(writer, lease) => match checkpoint.writer(writer) {
            // Only older numbers: "not the current one" would also hit one that was granted after the checkpoint.
            Some(known) => lease < Lease { incarnation: checkpoint.incarnation(), number: known.lease },
            None => is_closed(checkpoint, writer),
        },
        Right::Compactor(lease) => {
            let compact = checkpoint.compact_lease();
            let current = Lease { incarnation: checkpoint.incarnation(), number: compact.number };
            lease < current || (lease == current && compact.is_spent)
        }
    }
}

/// Closed writers are forgotten: an id that the checkpoint could know, and does not.
fn is_closed(checkpoint: &Index, writer: WriterId) -> bool {
    writer.0 <= checkpoint.revision() && checkpoint.writer(writer).is_none()
}
