//! What a query reads: blocks, writers' segments above their cuts, what is missing, what is deleted.

use model::{NodeId, Revision, SegmentNumber, TimeRange, WriterId};

use crate::block::BlockMeta;
use crate::delete::Delete;
use crate::entry::SegmentMeta;
use crate::state::{Index, Quarantined, Stage, Writer};

/// A writer with segments that no block holds: a head has them, or they are read from the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedWriter {
    /// Which.
    pub id: WriterId,
    /// Where its head is, if it is live.
    pub node: NodeId,
    /// Where its head is, if it is fenced and adopted.
    pub adopter: Option<NodeId>,
    /// Where it stands.
    pub stage: Stage,
    /// The answer starts after this segment.
    pub cut: SegmentNumber,
    /// The answer ends with this segment.
    pub added: SegmentNumber,
    /// The last one that is not quarantined; the cut if all are.
    pub readable: SegmentNumber,
    /// How many of them are quarantined.
    pub quarantined: u64,
}

/// The data at one revision, as far as a time range is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which revision.
    pub revision: Revision,
    /// Blocks that overlap, and those without samples (their metadata has no time).
    pub blocks: Vec<BlockMeta>,
    /// Writers with segments above their cut, whatever their time.
    pub writers: Vec<PlannedWriter>,
    /// Overlapping segments that are missing from the answer because they can't be decoded.
    pub quarantined: Vec<Quarantined>,
    /// Overlapping deletes, oldest first, with their revisions.
    pub deletes: Vec<(Revision, Delete)>,
}

impl Index {
    /// What a query over `range` has to read at this revision.
    pub fn plan(&self, range: TimeRange) -> Plan {
        let overlaps = |other: &Option<TimeRange>| other.is_none_or(|other| other.overlaps(&range));
        let writers = self.writers().filter(|(_, writer)| writer.added > writer.cut);
        Plan {
            revision: self.revision,
            blocks: self.blocks().filter(|block| overlaps(&block.range)).copied().collect(),
            writers: writers
                .map(|(id, writer)| {
                    let (readable, quarantined) = self.readable(id, writer);
                    PlannedWriter {
                        id,
                        node: writer.node,
                        adopter: writer.adopter,
                        stage: writer.stage,
                        cut: writer.cut,
                        added: writer.added,
                        readable,
                        quarantined,
                    }
                })
                .collect(),
            quarantined: self
                .quarantined()
                .filter(|segments| segments.range.is_some_and(|other| other.overlaps(&range)))
                .copied()
                .collect(),
            deletes: self
                .deletes()
                .filter(|(_, delete)| delete.range.overlaps(&range))
                .map(|(at, delete)| (at, delete.clone()))
                .collect(),
        }
    }

    /// The last segment of a writer that is not quarantined, and how many are.
    fn readable(&self, id: WriterId, writer: &Writer) -> (SegmentNumber, u64) {
        if self.quarantined.range((id, 0)..=(id, SegmentNumber::MAX)).next().is_none() {
            return (writer.added, 0);
        }
        let readable = (writer.cut + 1..=writer.added).filter(|n| !self.is_quarantined(id, *n));
        let (last, count) = readable.fold((writer.cut, 0), |(_, count), n| (n, count + 1));
        (last, writer.added - writer.cut - count)
    }

    /// The segments of a planned writer, to read them from the bucket; quarantined ones are left out.
    ///
    /// `None`: it was cut, closed or quarantined since the plan was made, so plan again: the plan does not know what
    /// the answer lacks.
    pub fn planned_segments(&self, planned: &PlannedWriter) -> Option<Vec<(SegmentNumber, SegmentMeta)>> {
        let writer = self.writer(planned.id).filter(|writer| writer.cut == planned.cut)?;
        let planned_ones = writer.segments().take_while(|(n, _)| *n <= planned.added);
        let readable = planned_ones.filter(|(n, _)| !self.is_quarantined(planned.id, *n));
        let readable: Vec<_> = readable.map(|(n, segment)| (n, *segment)).collect();
        let planned_count = planned.added - planned.cut - planned.quarantined;
        (readable.len() as u64 == planned_count).then_some(readable)
    }
}
