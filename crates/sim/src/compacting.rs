//! Compaction in the abstract: some blocks become one, under a lease that one Replace spends. Which blocks and when is
//! the product's own affair, in a later issue; here any node tries at any time.

use std::rc::Rc;
use std::time::Duration;

use index::{Applied, BlockId, BlockMeta, Command, Refused};
use model::{Lease, Revision, Right, TimeRange};

use crate::ledger::{Block, Deletes, Occurrence};
use crate::process::{Op, Purpose};
use crate::querying::deletes_of;
use crate::store::{Answer, Object, Request};
use crate::world::{Outcome, World};

#[derive(Debug)]
pub(crate) struct Compaction {
    /// `None` while the grant is awaited.
    lease: Option<Lease>,
    built_at: Revision,
    deletes: Deletes,
    old: Vec<BlockId>,
    left: Vec<BlockId>,
    got: Vec<Occurrence>,
    attempt: u64,
    object: Option<(BlockMeta, Rc<Block>)>,
}

impl World {
    /// Begins a compaction now and then.
    pub(crate) fn compact(&mut self, slot: usize) {
        let (now, every) = (self.clock(slot), self.rates.compact_every);
        if every == 0 || now < self.process(slot).compact_at {
            return;
        }
        let wait = Duration::from_micros(every / 2 + self.random.below(every));
        let process = self.process(slot);
        process.compact_at = now + wait;
        if process.compaction.is_some() || process.index.blocks().len() < 2 {
            return;
        }
        let (node, number) = (process.node, process.index.compact_lease().number + 1);
        process.compaction = Some(Compaction {
            lease: None,
            built_at: Revision::default(),
            deletes: Vec::new(),
            old: Vec::new(),
            left: Vec::new(),
            got: Vec::new(),
            attempt: 0,
            object: None,
        });
        self.propose(slot, Purpose::GrantCompact, Command::GrantCompact { node, number });
    }

    pub(crate) fn compact_granted(&mut self, slot: usize, outcome: &Outcome) {
        let most = 2 + self.random.below(3) as usize;
        let process = self.process(slot);
        let lease = match outcome {
            Ok(Applied::CompactGranted { lease, .. }) => *lease,
            Err(Refused::AlreadyGranted { number }) => {
                Lease { incarnation: process.index.incarnation(), number: *number }
            }
            _ => {
                process.compaction = None;
                return;
            }
        };
        let Some(compaction) = &mut process.compaction else { return };
        compaction.lease = Some(lease);
        // One view: its blocks, with its deletes.
        compaction.built_at = process.index.revision();
        compaction.deletes = deletes_of(&process.index);
        compaction.old = process.index.blocks().map(|block| block.id).take(most).collect();
        compaction.left = compaction.old.clone();
        let old = compaction.old.clone();
        if old.len() < 2 {
            process.compaction = None;
        }
        for block in old {
            self.request(slot, Op::CompactGet(block), Request::Get(block.key()));
        }
    }

    pub(crate) fn compact_got(&mut self, slot: usize, id: BlockId, answer: Answer) {
        let Some(mut compaction) = self.process(slot).compaction.take() else { return };
        let Some(lease) = compaction.lease else {
            self.process(slot).compaction = Some(compaction);
            return;
        };
        if !compaction.left.contains(&id) {
            self.process(slot).compaction = Some(compaction);
            return;
        }
        // Anything but the block ends it; the lease is given up, and another is taken next time.
        let Answer::Got(Object::Block(block)) = answer else { return };
        compaction.left.retain(|left| *left != id);
        let left: Vec<_> = self.ledger.left(&block.occurrences, block.built_at, &compaction.deletes).collect();
        compaction.got.extend(left);
        if compaction.left.is_empty() {
            let samples = compaction.got.len() as u64;
            // A key of its own for each content: who was granted twice begins anew.
            compaction.attempt = self.random.u64() >> 1;
            let meta = BlockMeta {
                id: BlockId { right: Right::Compactor(lease), attempt: compaction.attempt },
                bytes: samples,
                range: Some(TimeRange { start: 0, end: 1 }),
                series: 1,
                samples,
                built_at: compaction.built_at,
            };
            let object =
                Rc::new(Block { built_at: compaction.built_at, occurrences: std::mem::take(&mut compaction.got) });
            compaction.object = Some((meta, object.clone()));
            self.process(slot).compaction = Some(compaction);
            self.request(slot, Op::CompactPut, Request::Put(meta.id.key(), Object::Block(object)));
        } else {
            self.process(slot).compaction = Some(compaction);
        }
    }

    pub(crate) fn compact_put(&mut self, slot: usize, answer: Answer) {
        let Some(compaction) = &self.process(slot).compaction else { return };
        let (Some(lease), Some((block, _))) = (compaction.lease, &compaction.object) else { return };
        let (block, old) = (*block, compaction.old.clone());
        if !matches!(answer, Answer::Done) {
            self.process(slot).compaction = None;
            return;
        }
        self.propose(slot, Purpose::Replace, Command::Replace { lease, old, block });
    }
}
