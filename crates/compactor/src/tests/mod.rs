//! The collector against random histories, and the driver on a directory.

mod drive;
mod history;

use index::{Applied, BlockId, BlockMeta, Command, Entry, Index, NodeId, Refused, SegmentMeta};
use model::{Incarnation, Lease, ObjectKey, Revision, Right, SegmentNumber, TimeRange, WriterId};

const CLUSTER: u128 = 7;
const INCARNATION: Incarnation = 1;

fn entry(command: Command) -> Entry {
    Entry { incarnation: INCARNATION, command }
}

fn at(position: u64) -> Revision {
    Revision { incarnation: INCARNATION, position }
}

fn lease(number: u64) -> Lease {
    Lease { incarnation: INCARNATION, number }
}

fn add(writer: WriterId, n: SegmentNumber, attempt: u32) -> Entry {
    let segment = SegmentMeta { attempt, bytes: 1, range: Some(TimeRange { start: 0, end: 1 }) };
    entry(Command::AddSegment { writer, n, segment })
}

fn block(right: Right, attempt: u64) -> BlockMeta {
    BlockMeta { id: BlockId { right, attempt }, bytes: 1, range: None, series: 1, samples: 1, built_at: at(1) }
}

fn own_cut(writer: WriterId, from: SegmentNumber, upto: SegmentNumber, attempt: u16) -> Entry {
    let block = block(Right::Writer(writer), ObjectKey::cut_attempt(upto, attempt));
    entry(Command::Cut { writer, from, upto, block, lease: None })
}

fn adopted_cut(writer: WriterId, from: SegmentNumber, upto: SegmentNumber, lease: Lease, attempt: u64) -> Entry {
    let block = block(Right::Adopter(writer, lease), attempt);
    entry(Command::Cut { writer, from, upto, block, lease: Some(lease) })
}

fn segment(writer: WriterId, n: SegmentNumber, attempt: u32) -> ObjectKey {
    ObjectKey::Segment { writer, n, attempt }
}

/// Applies the next entry.
fn apply(index: &mut Index, entry: &Entry) -> Result<Applied, Refused> {
    index.apply(index.revision().position + 1, entry)
}
