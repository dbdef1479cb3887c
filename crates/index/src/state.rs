//! The state: writers, blocks, quarantined segments, the compaction lease, deletes, at a revision.
//!
//! Only writers that are live or fenced are remembered. A closed one is forgotten at once: an id that is
//! not above the revision and not in the table is closed, for ever, because ids are revisions and no
//! revision comes twice. So the state does not grow with restarts.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use model::{Incarnation, Lease, NodeId, Revision, SegmentNumber, TimeRange, WriterId};

use crate::block::{BlockId, BlockMeta};
use crate::delete::Delete;
use crate::entry::SegmentMeta;
use crate::node::NodeInfo;

/// Where a writer stands. A closed one is not in the index any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It may add segments and cut.
    Live,
    /// Nothing of it is accepted any more; an adopter cuts or closes it.
    Fenced,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Live => "live",
            Stage::Fenced => "fenced",
        })
    }
}

/// What the index knows of a writer. Always: `cut ≤ added`, and `segments` are those between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// Where it runs or ran.
    pub node: NodeId,
    /// What its process drew; it tells a retried Register.
    pub nonce: u64,
    /// Where it stands.
    pub stage: Stage,
    /// Segments `1..=added` are committed.
    pub added: SegmentNumber,
    /// Segments `1..=cut` are retired: a block holds them.
    pub cut: SegmentNumber,
    /// The number of the last grant to adopt it; 0 if there was none.
    pub lease: u64,
    /// Who holds that grant.
    pub adopter: Option<NodeId>,
    /// Segments `cut+1..=added`, in order.
    pub(crate) segments: VecDeque<SegmentMeta>,
}

impl Writer {
    /// Its segments that no block holds, ascending.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = (SegmentNumber, &SegmentMeta)> {
        let first = self.cut + 1;
        self.segments.iter().enumerate().map(move |(i, segment)| (first + i as u64, segment))
    }

    /// One of them; `None` if it is cut, or not added.
    pub fn segment(&self, n: SegmentNumber) -> Option<&SegmentMeta> {
        let at = n.checked_sub(self.cut)?.checked_sub(1)?;
        self.segments.get(usize::try_from(at).ok()?)
    }
}

/// Segments of one writer that can't be decoded. Their objects are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantined {
    /// Whose.
    pub writer: WriterId,
    /// The first.
    pub from: SegmentNumber,
    /// The last.
    pub upto: SegmentNumber,
    /// When their samples lie, as their AddSegments said; `None` if they hold none.
    pub range: Option<TimeRange>,
    /// Length of their objects, one PUT each.
    pub bytes: u64,
}

/// The right to compact: one at a time, one Replace each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactLease {
    /// Of the last grant; 0 if there was none in this incarnation.
    pub number: u64,
    /// Whether it has had its Replace.
    pub is_spent: bool,
    /// Who holds it.
    pub holder: Option<NodeId>,
}

/// How much there is, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Writers that are live.
    pub writers_live: u64,
    /// Writers that wait for an adopter.
    pub writers_fenced: u64,
    /// Segments that no block holds.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub block_bytes: u64,
    /// Samples in blocks.
    pub block_samples: u64,
    /// Segments that can't be decoded.
    pub segments_quarantined: u64,
    /// Deletes remembered.
    pub deletes: u64,
}

/// The replicated state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub(crate) cluster: u128,
    pub(crate) revision: Revision,
    pub(crate) writers: BTreeMap<WriterId, Writer>,
    pub(crate) blocks: BTreeMap<BlockId, BlockMeta>,
    /// By writer and first number; ranges of one writer have no number in common.
    pub(crate) quarantined: BTreeMap<(WriterId, SegmentNumber), Quarantined>,
    pub(crate) compact: CompactLease,
    /// By the revision of their entries.
    pub(crate) deletes: BTreeMap<Revision, Delete>,
    /// How to reach every node.
    pub(crate) nodes: BTreeMap<NodeId, NodeInfo>,
}

impl Index {
    /// An index with nothing in it, before its first entry.
    pub fn new(cluster: u128, incarnation: Incarnation) -> Index {
        Index {
            cluster,
            revision: Revision { incarnation, position: 0 },
            writers: BTreeMap::new(),
            blocks: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            compact: CompactLease { number: 0, is_spent: true, holder: None },
            deletes: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }

    /// The id that the cluster was given at bootstrap.
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    /// Which life of the index.
    pub fn incarnation(&self) -> Incarnation {
        self.revision.incarnation
    }

    /// What was applied last.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Every writer that is not closed, oldest first.
    pub fn writers(&self) -> impl Iterator<Item = (WriterId, &Writer)> {
        self.writers.iter().map(|(id, writer)| (*id, writer))
    }

    /// One of them; `None` if it is closed or was never registered.
    pub fn writer(&self, id: WriterId) -> Option<&Writer> {
        self.writers.get(&id)
    }

    /// The current number of the lease to adopt a fenced writer, and who holds it.
    pub fn adopt_lease(&self, id: WriterId) -> Option<(NodeId, Lease)> {
        let writer = self.writers.get(&id)?;
        Some((writer.adopter?, Lease { incarnation: self.incarnation(), number: writer.lease }))
    }

    /// Every block.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = &BlockMeta> {
        self.blocks.values()
    }

    /// One block.
    pub fn block(&self, id: &BlockId) -> Option<&BlockMeta> {
        self.blocks.get(id)
    }

    /// Every range of segments that can't be decoded.
    pub fn quarantined(&self) -> impl ExactSizeIterator<Item = &Quarantined> {
        self.quarantined.values()
    }

    /// Whether this segment is among them.
    pub fn is_quarantined(&self, writer: WriterId, n: SegmentNumber) -> bool {
        let before = self.quarantined.range((writer, 0)..=(writer, n)).next_back();
        before.is_some_and(|(_, range)| n <= range.upto)
    }

    /// The right to compact.
    pub fn compact_lease(&self) -> CompactLease {
        self.compact
    }

    /// Every delete with its revision, oldest first.
    pub fn deletes(&self) -> impl ExactSizeIterator<Item = (Revision, &Delete)> {
        self.deletes.iter().map(|(at, delete)| (*at, delete))
    }

    /// Every node that is part of the cluster, and how to reach it.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &NodeInfo)> {
        self.nodes.iter().map(|(id, info)| (*id, info))
    }

    /// One of them.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.get(&id)
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { deletes: self.deletes.len() as u64, ..Counts::default() };
        for writer in self.writers.values() {
            match writer.stage {
                Stage::Live => counts.writers_live += 1,
                Stage::Fenced => counts.writers_fenced += 1,
            }
            counts.segments += writer.segments.len() as u64;
            counts.segment_bytes += writer.segments.iter().map(|segment| segment.bytes).sum::<u64>();
        }
        for block in self.blocks.values() {
            counts.blocks += 1;
            counts.block_bytes += block.bytes;
            counts.block_samples += block.samples;
        }
        for range in self.quarantined.values() {
            counts.segments_quarantined += range.upto - range.from + 1;
        }
        counts
    }
}
