//! The state that a recovery from the bucket begins a new incarnation with: PROTOCOL.md, "Recovery from the bucket".

use std::collections::BTreeMap;

use model::{Incarnation, NodeId, Revision, SegmentNumber, TimeRange, WriterId};

use crate::entry::SegmentMeta;
use crate::state::{CompactLease, Index, Quarantined, Stage, Writer};

impl Index {
    /// The first state of a new incarnation, from what is stored: `self` is the newest stored checkpoint with its changes,
    /// `found` are the segments in the bucket.
    ///
    /// A writer that the checkpoint could know and does not is closed, and stays so whatever is found. Every other one,
    /// also those registered after the checkpoint, has all segments of the unbroken run above the checkpoint's `added`,
    /// whether they were committed or not: here "not in the checkpoint" is not "not committed". (Behind quarantined ones they
    /// are quarantined too.) It is fenced; if
    /// nothing is left of it, closed. Blocks that the checkpoint does not name are dead, and all leases are superseded.
    ///
    /// Panics if `incarnation` is not above the checkpoint's.
    pub fn recovered(
        mut self,
        incarnation: Incarnation,
        found: &BTreeMap<WriterId, BTreeMap<SegmentNumber, SegmentMeta>>,
    ) -> Index {
        assert!(incarnation > self.incarnation(), "a recovery begins a new incarnation");
        let at = self.revision;
        // Those that come back come with empty disks, and so as others.
        self.nodes.clear();
        for id in found.keys().filter(|id| id.0 > at) {
            // Nobody has the node's id 0, so nobody takes the writer for its own.
            let unknown = Writer {
                node: NodeId(0),
                nonce: 0,
                stage: Stage::Fenced,
                added: 0,
                cut: 0,
                lease: 0,
                adopter: None,
                segments: Default::default(),
            };
            self.writers.insert(*id, unknown);
        }
        for (id, writer) in &mut self.writers {
            let stored = found.get(id);
            let aside =
                self.quarantined.range((*id, 0)..=(*id, SegmentNumber::MAX)).any(|(_, aside)| aside.upto > writer.cut);
            let known = writer.added;
            while let Some(segment) = stored.and_then(|stored| stored.get(&(writer.added + 1))) {
                writer.added += 1;
                writer.segments.push_back(*segment);
            }
            // Segments build on one another, so those behind a quarantined one can't be read either.
            if aside && writer.added > known {
                let bytes = writer.segments().filter(|(n, _)| *n > known).map(|(_, segment)| segment.bytes).sum();
                let (from, upto, range) = (known + 1, writer.added, Some(TimeRange::ALL));
                self.quarantined.insert((*id, from), Quarantined { writer: *id, from, upto, range, bytes });
            }
            writer.stage = Stage::Fenced;
            writer.lease = 0;
            writer.adopter = None;
        }
        self.writers.retain(|_, writer| writer.added > writer.cut);
        // Whoever is there after a recovery is new, and says so itself.
        self.nodes.clear();
        self.compact = CompactLease { number: 0, is_spent: true, holder: None };
        self.revision = Revision { incarnation, position: 0 };
        self
    }
}
