//! The commit protocol: what each entry demands, and what it does.
//!
//! Every arm first checks, then changes: a refused entry leaves the state as it was, but for the position,
//! which counts every entry of the log. PROTOCOL.md's table is the specification; tools/protocol-model
//! searched it. Three rules are finer here than in the table, because here blocks have keys:
//!
//! - A block must lie under the right that the entry stands on: the writer's own, the adopter's current
//!   number, the compactor's. A writer's own cut must also be the one that its key says, because the key
//!   is what "dead" is judged by.
//! - **Quarantine.** An adopter that can't decode segments says so before it cuts. The same lease as for its
//!   Cut is demanded, so a superseded adopter (whose copy of the object may have been bad) can't hide data.
//!   Its Cut then still reaches `added`, its block leaves the quarantined numbers out, and Close is allowed
//!   if they are all that is left. The range stays in the state and is never dead: what can't be read today
//!   may be read by a repaired program tomorrow, and a query over its time range knows that it is
//!   incomplete. A number at or below the cut can't be quarantined: it may be dead, and dead is for ever.
//!   A live writer's segments can't be either; its head has them, and its own cut does not read them back.

use model::{Lease, NodeId, Revision, Right, SegmentNumber, TimeRange, WriterId};

use crate::block::{BlockId, BlockMeta};
use crate::delete::Delete;
use crate::entry::{Command, Entry, SegmentMeta};
use crate::refused::Refused;
use crate::state::{CompactLease, Index, Quarantined, Stage, Writer};

/// What an entry did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// There is a new writer.
    Registered {
        /// Its id.
        writer: WriterId,
    },
    /// A segment is data.
    Added {
        /// Whose.
        writer: WriterId,
        /// Which.
        n: SegmentNumber,
    },
    /// A writer is fenced.
    Fenced {
        /// Which.
        writer: WriterId,
        /// Its last segment.
        added: SegmentNumber,
    },
    /// A node may adopt a writer.
    AdoptGranted {
        /// Which writer.
        writer: WriterId,
        /// Under which number.
        lease: Lease,
    },
    /// A block took the place of segments.
    Cut {
        /// Whose.
        writer: WriterId,
        /// The segments: number and the PUT that was known. Quarantined ones are not among them.
        retired: Vec<(SegmentNumber, u32)>,
        /// What took their place.
        block: BlockId,
        /// Closed with it: an adopter's cut, under this number.
        closed_by: Option<Lease>,
    },
    /// A writer is closed.
    Closed {
        /// Which.
        writer: WriterId,
        /// Under which number.
        lease: Lease,
    },
    /// A node may compact.
    CompactGranted {
        /// Under which number.
        lease: Lease,
        /// The number before it, if it had no Replace: what was PUT under it is dead.
        abandoned: Option<Lease>,
    },
    /// A block took the place of others.
    Replaced {
        /// The others.
        retired: Vec<BlockId>,
    },
    /// Samples are to be left out.
    Deleted {
        /// What was sealed or built at an earlier revision is concerned.
        at: Revision,
    },
    /// Segments are out of the data, but kept.
    Quarantined(Quarantined),
    /// A node is known, or known differently.
    NodeSet {
        /// Which.
        node: NodeId,
    },
    /// A node is not known any more.
    NodeForgotten {
        /// Which.
        node: NodeId,
    },
}

impl Index {
    /// Applies the entry at `position` of the log.
    ///
    /// Positions ascend, with gaps where the log held something that is not the index's. `Err`: refused,
    /// and nothing but the position changed. Cost: logarithmic, but a Cut walks the segments it retires.
    ///
    /// Panics if `position` is not above the last: applying twice is a bug that must not go on.
    pub fn apply(&mut self, position: u64, entry: &Entry) -> Result<Applied, Refused> {
        assert!(position > self.revision.position, "entries are applied once, in order");
        self.revision.position = position;
        if entry.incarnation != self.incarnation() {
            return Err(Refused::OtherIncarnation { entry: entry.incarnation, index: self.incarnation() });
        }
        match &entry.command {
            Command::Register { node, nonce } => self.register(*node, *nonce),
            Command::AddSegment { writer, n, segment } => self.add_segment(*writer, *n, segment),
            Command::Fence { writer } => self.fence(*writer),
            Command::GrantAdopt { writer, node, number } => self.grant_adopt(*writer, *node, *number),
            Command::Cut { writer, from, upto, block, lease: None } => self.cut_own(*writer, *from, *upto, block),
            Command::Cut { writer, from, upto, block, lease: Some(lease) } => {
                self.cut_adopted(*writer, *from, *upto, block, *lease)
            }
            Command::Close { writer, lease } => self.close(*writer, *lease),
            Command::GrantCompact { node, number } => self.grant_compact(*node, *number),
            Command::Replace { lease, old, block } => self.replace(*lease, old, block),
            Command::Delete(delete) => self.delete(delete),
            Command::Quarantine { writer, from, upto, lease } => self.quarantine(*writer, *from, *upto, *lease),
            Command::SetNode { node, info } => {
                self.nodes.insert(*node, info.clone());
                Ok(Applied::NodeSet { node: *node })
            }
            Command::ForgetNode { node } => match self.nodes.remove(node) {
                Some(_) => Ok(Applied::NodeForgotten { node: *node }),
                None => Err(Refused::NodeUnknown { node: *node }),
            },
        }
    }

    /// The log holds nothing for the index up to `position`.
    pub fn advance(&mut self, position: u64) {
        self.revision.position = self.revision.position.max(position);
    }

    fn register(&mut self, node: NodeId, nonce: u64) -> Result<Applied, Refused> {
        for (writer, known) in &self.writers {
            if (known.node, known.nonce) == (node, nonce) {
                return Err(Refused::AlreadyRegistered { writer: *writer });
            }
        }
        let writer = WriterId(self.revision);
        let known = Writer {
            node,
            nonce,
            stage: Stage::Live,
            added: 0,
            cut: 0,
            lease: 0,
            adopter: None,
            segments: Default::default(),
        };
        self.writers.insert(writer, known);
        Ok(Applied::Registered { writer })
    }

    fn add_segment(&mut self, id: WriterId, n: SegmentNumber, segment: &SegmentMeta) -> Result<Applied, Refused> {
        let writer = self.known(id)?;
        // Before the stage is looked at: what is committed stays so, also when the writer was fenced since.
        if (1..=writer.added).contains(&n) {
            return Err(Refused::AlreadyAdded { writer: id, n });
        }
        writer.must_be(id, Stage::Live)?;
        if n != writer.added + 1 {
            return Err(Refused::OutOfOrder { writer: id, n, next: writer.added + 1 });
        }
        writer.added = n;
        writer.segments.push_back(*segment);
        Ok(Applied::Added { writer: id, n })
    }

    fn fence(&mut self, id: WriterId) -> Result<Applied, Refused> {
        let writer = self.known(id)?;
        writer.must_be(id, Stage::Live)?;
        writer.stage = Stage::Fenced;
        Ok(Applied::Fenced { writer: id, added: writer.added })
    }

    fn grant_adopt(&mut self, id: WriterId, node: NodeId, number: u64) -> Result<Applied, Refused> {
        let incarnation = self.incarnation();
        let writer = self.known(id)?;
        writer.must_be(id, Stage::Fenced)?;
        if number == writer.lease && writer.adopter == Some(node) {
            return Err(Refused::AlreadyGranted { number });
        }
        if writer.lease.checked_add(1) != Some(number) {
            return Err(Refused::NotNextLease { number, last: writer.lease });
        }
        writer.lease = number;
        writer.adopter = Some(node);
        Ok(Applied::AdoptGranted { writer: id, lease: Lease { incarnation, number } })
    }

    fn cut_own(
        &mut self,
        id: WriterId,
        from: SegmentNumber,
        upto: SegmentNumber,
        block: &BlockMeta,
    ) -> Result<Applied, Refused> {
        self.must_be_new(block)?;
        let writer = self.known(id)?;
        writer.must_be(id, Stage::Live)?;
        let right_key = block.id.right == Right::Writer(id) && model::ObjectKey::cut_reaches(block.id.attempt) == upto;
        if !right_key {
            return Err(Refused::WrongKey { block: block.id });
        }
        writer.must_be_cut_at(id, from)?;
        if !(from < upto && upto <= writer.added) {
            return Err(Refused::WrongEnd { writer: id, upto, added: writer.added });
        }
        let retired = writer.retire(upto);
        self.blocks.insert(block.id, *block);
        Ok(Applied::Cut { writer: id, retired, block: block.id, closed_by: None })
    }

    fn cut_adopted(
        &mut self,
        id: WriterId,
        from: SegmentNumber,
        upto: SegmentNumber,
        block: &BlockMeta,
        lease: Lease,
    ) -> Result<Applied, Refused> {
        self.must_be_new(block)?;
        let incarnation = self.incarnation();
        let writer = self.known(id)?;
        writer.must_be_adopted_under(id, incarnation, lease)?;
        if block.id.right != Right::Adopter(id, lease) {
            return Err(Refused::WrongKey { block: block.id });
        }
        writer.must_be_cut_at(id, from)?;
        if !(from < upto && upto == writer.added) {
            return Err(Refused::WrongEnd { writer: id, upto, added: writer.added });
        }
        let mut retired = writer.retire(upto);
        retired.retain(|(n, _)| !self.is_quarantined(id, *n));
        self.writers.remove(&id);
        self.blocks.insert(block.id, *block);
        Ok(Applied::Cut { writer: id, retired, block: block.id, closed_by: Some(lease) })
    }

    fn close(&mut self, id: WriterId, lease: Lease) -> Result<Applied, Refused> {
        let incarnation = self.incarnation();
        let writer = self.known(id)?;
        writer.must_be_adopted_under(id, incarnation, lease)?;
        let (cut, added) = (writer.cut, writer.added);
        if (cut + 1..=added).any(|n| !self.is_quarantined(id, n)) {
            return Err(Refused::SegmentsLeft { writer: id, cut });
        }
        self.writers.remove(&id);
        Ok(Applied::Closed { writer: id, lease })
    }

    fn grant_compact(&mut self, node: NodeId, number: u64) -> Result<Applied, Refused> {
        let last = self.compact.number;
        if number == last && self.compact.holder == Some(node) {
            return Err(Refused::AlreadyGranted { number });
        }
        if last.checked_add(1) != Some(number) {
            return Err(Refused::NotNextLease { number, last });
        }
        let incarnation = self.incarnation();
        let abandoned = (!self.compact.is_spent).then_some(Lease { incarnation, number: last });
        self.compact = CompactLease { number, is_spent: false, holder: Some(node) };
        Ok(Applied::CompactGranted { lease: Lease { incarnation, number }, abandoned })
    }

    fn replace(&mut self, lease: Lease, old: &[BlockId], block: &BlockMeta) -> Result<Applied, Refused> {
        self.must_be_new(block)?;
        if lease != (Lease { incarnation: self.incarnation(), number: self.compact.number }) {
            return Err(Refused::LeaseNotCurrent { lease });
        }
        if self.compact.is_spent {
            return Err(Refused::LeaseSpent { lease });
        }
        if block.id.right != Right::Compactor(lease) {
            return Err(Refused::WrongKey { block: block.id });
        }
        for id in old {
            if !self.blocks.contains_key(id) {
                return Err(Refused::BlockAbsent { block: *id });
            }
        }
        // A block that is listed twice is retired once.
        let retired = old.iter().filter(|id| self.blocks.remove(id).is_some()).copied().collect();
        self.blocks.insert(block.id, *block);
        self.compact.is_spent = true;
        Ok(Applied::Replaced { retired })
    }

    fn delete(&mut self, delete: &Delete) -> Result<Applied, Refused> {
        if let Some((at, _)) = self.deletes.iter().find(|(_, known)| known.nonce == delete.nonce) {
            return Err(Refused::AlreadyDeleted { at: *at });
        }
        self.deletes.insert(self.revision, delete.clone());
        Ok(Applied::Deleted { at: self.revision })
    }

    fn quarantine(
        &mut self,
        id: WriterId,
        from: SegmentNumber,
        upto: SegmentNumber,
        lease: Lease,
    ) -> Result<Applied, Refused> {
        let incarnation = self.incarnation();
        let writer = self.known(id)?;
        writer.must_be_adopted_under(id, incarnation, lease)?;
        if !(writer.cut < from && from <= upto && upto <= writer.added) {
            return Err(Refused::WrongQuarantine { writer: id });
        }
        let mut range: Option<TimeRange> = None;
        let mut bytes = 0_u64;
        for (_, segment) in writer.segments().filter(|(n, _)| (from..=upto).contains(n)) {
            bytes = bytes.saturating_add(segment.bytes);
            range = match (range, segment.range) {
                (Some(a), Some(b)) => Some(TimeRange { start: a.start.min(b.start), end: a.end.max(b.end) }),
                (a, b) => a.or(b),
            };
        }
        let known = (from..=upto).filter(|n| self.is_quarantined(id, *n)).count() as u64;
        if known == upto - from + 1 {
            return Err(Refused::AlreadyQuarantined { writer: id });
        }
        if known > 0 {
            return Err(Refused::WrongQuarantine { writer: id });
        }
        let quarantined = Quarantined { writer: id, from, upto, range, bytes };
        self.quarantined.insert((id, from), quarantined);
        Ok(Applied::Quarantined(quarantined))
    }

    fn known(&mut self, writer: WriterId) -> Result<&mut Writer, Refused> {
        let was_there = writer.0 <= self.revision;
        match self.writers.get_mut(&writer) {
            Some(known) => Ok(known),
            None if was_there => Err(Refused::Closed { writer }),
            None => Err(Refused::UnknownWriter { writer }),
        }
    }

    fn must_be_new(&self, block: &BlockMeta) -> Result<(), Refused> {
        if self.blocks.contains_key(&block.id) {
            return Err(Refused::AlreadyNamed { block: block.id });
        }
        Ok(())
    }
}

impl Writer {
    fn must_be(&self, writer: WriterId, stage: Stage) -> Result<(), Refused> {
        if self.stage != stage {
            return Err(Refused::WrongStage { writer, stage: self.stage });
        }
        Ok(())
    }

    fn must_be_adopted_under(&self, writer: WriterId, incarnation: u64, lease: Lease) -> Result<(), Refused> {
        self.must_be(writer, Stage::Fenced)?;
        // A writer that was never granted has no adopter; number 0 would match it.
        if self.adopter.is_none() || lease != (Lease { incarnation, number: self.lease }) {
            return Err(Refused::LeaseNotCurrent { lease });
        }
        Ok(())
    }

    fn must_be_cut_at(&self, writer: WriterId, from: SegmentNumber) -> Result<(), Refused> {
        if self.cut != from {
            return Err(Refused::CutMoved { writer, cut: self.cut, from });
        }
        Ok(())
    }

    /// Takes the segments up to `upto` out; the caller has checked that it is between cut and added.
    fn retire(&mut self, upto: SegmentNumber) -> Vec<(SegmentNumber, u32)> {
        let first = self.cut + 1;
        let count = (upto - self.cut) as usize;
        self.cut = upto;
        let retired = self.segments.drain(..count).enumerate();
        retired.map(|(i, segment)| (first + i as u64, segment.attempt)).collect()
    }
}
