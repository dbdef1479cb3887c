//! An adoption's driver, as `ingester::adoption` is one.

use index::{BlockId, BlockMeta, Command};
use ingester::adopt::{self, Adopt, AdoptRules, Output};
use model::{Lease, ObjectKey, Right, SegmentNumber, WriterId};

use crate::process::{Op, Purpose};
use crate::store::{Answer, Object, Request};
use crate::world::World;
use crate::writing::Head;

/// Adoptions at once.
const ADOPTIONS_MAX: usize = 2;
/// As the product: keys of one segment that are tried beside the one that the index names.
const OTHER_ATTEMPTS_MAX: u32 = 3;

#[derive(Debug)]
pub(crate) struct Adoption {
    machine: Adopt,
    /// The last segment to load now.
    upto: SegmentNumber,
    block: Option<BlockMeta>,
}

impl World {
    /// Begins what is granted to this node, goes on with what is under way, lets go of what is not this node's any more.
    pub(crate) fn look_at_adoptions(&mut self, slot: usize) {
        for id in self.process(slot).adoptions.keys().copied().collect::<Vec<_>>() {
            if let Some(lease) = self.process(slot).adoptions.get(&id).map(|adoption| adoption.machine.lease()) {
                self.adoption_step(slot, id, lease, adopt::Input::Tick);
            }
        }
        let process = self.process(slot);
        let (node, index) = (process.node, &process.index);
        let is_foreign = |id: &WriterId| match index.writer(*id) {
            Some(writer) => writer.adopter.is_some_and(|adopter| adopter != node),
            None => true,
        };
        let foreign: Vec<_> = process.heads.keys().copied().filter(is_foreign).collect();
        let granted: Vec<_> = adopt::granted(index, node).collect();
        let is_ours = |id, nonce| process.writer_id() == Some(id) || process.nonce == Some(nonce);
        let strays: Vec<_> = adopt::strays(index, node, is_ours).collect();
        for id in foreign {
            process.adoptions.remove(&id);
            process.heads.remove(&id);
        }
        for writer in strays {
            let purpose = Purpose::FenceOwn { writer };
            let is_booting = self.process(slot).boot.contains(&writer);
            if !is_booting && !self.is_proposing(slot, &purpose) {
                self.propose(slot, purpose, Command::Fence { writer });
            }
        }
        for (id, lease) in granted {
            self.begin_adoption(slot, id, lease);
        }
    }

    fn begin_adoption(&mut self, slot: usize, id: WriterId, lease: Lease) {
        let nonce = self.random.u64();
        let process = self.process(slot);
        if process.adoptions.get(&id).is_some_and(|adoption| adoption.machine.lease() == lease) {
            return;
        }
        let cut = process.index.writer(id).map_or(0, |writer| writer.cut);
        let loaded = match process.heads.get_mut(&id).and_then(|head| head.settle(cut)) {
            Some(loaded) => loaded,
            None => {
                process.heads.insert(id, Head::new(cut));
                cut
            }
        };
        if process.adoptions.len() >= ADOPTIONS_MAX {
            return;
        }
        let machine = Adopt::new(AdoptRules::default(), id, process.node, lease, loaded, nonce);
        process.adoptions.insert(id, Adoption { machine, upto: 0, block: None });
        self.note(50, || format!("{slot} adopts {id} under {lease} from {loaded}"));
        self.adoption_step(slot, id, lease, adopt::Input::Tick);
    }

    pub(crate) fn adoption_step(&mut self, slot: usize, id: WriterId, lease: Lease, input: adopt::Input) {
        let now = self.clock(slot);
        let process = self.process(slot);
        let Some(adoption) = process.adoptions.get_mut(&id).filter(|adoption| adoption.machine.lease() == lease) else {
            return;
        };
        let Some(output) = adoption.machine.step(now, input, &process.index) else { return };
        self.note(51, || format!("{slot} adopting {id}: {output:?}"));
        match output {
            Output::Load { from, upto } => {
                if let Some(adoption) = self.process(slot).adoptions.get_mut(&id) {
                    adoption.upto = upto;
                }
                self.load(slot, id, lease, from);
            }
            Output::Quarantine { from, upto } => {
                let command = Command::Quarantine { writer: id, from, upto, lease };
                self.propose(slot, Purpose::Adoption { writer: id, lease }, command);
            }
            Output::Pack { attempt } => self.pack_adopted(slot, id, lease, attempt),
            Output::Cut { from, upto } => {
                let Some(block) = self.process(slot).adoptions.get(&id).and_then(|adoption| adoption.block) else {
                    return;
                };
                let command = Command::Cut { writer: id, from, upto, block, lease: Some(lease) };
                self.propose(slot, Purpose::Adoption { writer: id, lease }, command);
            }
            Output::Close => {
                if let Some(head) = self.process(slot).heads.get_mut(&id) {
                    head.is_whole = true;
                }
                let command = Command::Close { writer: id, lease };
                self.propose(slot, Purpose::Adoption { writer: id, lease }, command);
            }
            Output::End(adopt::End::Refused) => self.fail(format!("{slot}: the adoption of {id} was refused")),
            Output::End(_) => {
                self.process(slot).adoptions.remove(&id);
                self.process(slot).heads.remove(&id);
            }
        }
    }

    /// Reads the next segment, under the key that the index names.
    fn load(&mut self, slot: usize, writer: WriterId, lease: Lease, n: SegmentNumber) {
        let known = self.process(slot).index.writer(writer).and_then(|writer| writer.segment(n)).copied();
        let Some(segment) = known else { return };
        self.load_attempt(slot, writer, lease, n, segment.attempt);
    }

    fn load_attempt(&mut self, slot: usize, writer: WriterId, lease: Lease, n: SegmentNumber, attempt: u32) {
        let key = ObjectKey::Segment { writer, n, attempt };
        self.request(slot, Op::Load { writer, lease, n, attempt }, Request::Get(key));
    }

    pub(crate) fn segment_loaded(
        &mut self,
        slot: usize,
        writer: WriterId,
        lease: Lease,
        n: SegmentNumber,
        attempt: u32,
        answer: Answer,
    ) {
        let process = self.process(slot);
        let is_ours = |adoption: &&Adoption| adoption.machine.lease() == lease;
        let Some(upto) = process.adoptions.get(&writer).filter(is_ours).map(|adoption| adoption.upto) else { return };
        let known = process.index.writer(writer).and_then(|writer| writer.segment(n)).map(|segment| segment.attempt);
        match answer {
            Answer::Got(Object::Segment(segment)) if !self.ledger.poisoned.contains(&(writer, n)) => {
                self.take_in(slot, writer, segment);
                self.adoption_step(slot, writer, lease, adopt::Input::Loaded { n });
                if n < upto && self.failure.is_none() {
                    self.load(slot, writer, lease, n + 1);
                }
            }
            Answer::Got(_) | Answer::NotFound => {
                // The next key, in the order in which the product tries them.
                let mut others = (0..=OTHER_ATTEMPTS_MAX).filter(|other| Some(*other) != known);
                let next = match known == Some(attempt) {
                    true => others.next(),
                    false => others.find(|other| *other > attempt),
                };
                match next {
                    Some(next) => self.load_attempt(slot, writer, lease, n, next),
                    None => {
                        self.note(52, || format!("{slot} can't read segment {n} of {writer}"));
                        self.adoption_step(slot, writer, lease, adopt::Input::Unreadable { n });
                    }
                }
            }
            _ => self.adoption_step(slot, writer, lease, adopt::Input::NotLoaded),
        }
    }

    fn pack_adopted(&mut self, slot: usize, id: WriterId, lease: Lease, attempt: u64) {
        let process = self.process(slot);
        let Some(head) = process.heads.get_mut(&id) else { return };
        head.is_whole = true;
        let segments = head.growing.clone();
        let (block, object) = self.pack(slot, BlockId { right: Right::Adopter(id, lease), attempt }, &segments);
        let op = Op::AdoptedBlock { writer: id, lease, block };
        self.request(slot, op, Request::Put(block.id.key(), Object::Block(object)));
    }

    pub(crate) fn adopted_block_stored(
        &mut self,
        slot: usize,
        writer: WriterId,
        lease: Lease,
        block: BlockMeta,
        answer: Answer,
    ) {
        let is_stored = matches!(answer, Answer::Done);
        let is_ours = |adoption: &&mut Adoption| adoption.machine.lease() == lease;
        let Some(adoption) = self.process(slot).adoptions.get_mut(&writer).filter(is_ours) else { return };
        if is_stored {
            adoption.block = Some(block);
        }
        let input = if is_stored { adopt::Input::Stored } else { adopt::Input::NotStored };
        self.adoption_step(slot, writer, lease, input);
    }
}
