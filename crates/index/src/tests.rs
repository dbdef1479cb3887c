//! The protocol's promises, held against random entries: what tools/protocol-model searched, on the real code.

use std::collections::{BTreeMap, BTreeSet};

use model::{Incarnation, Lease, MatchOp, ObjectKey, Revision, Right, SegmentNumber, TenantId, TimeRange, WriterId};
use proptest::prelude::*;

use super::*;

const CLUSTER: u128 = 0xfeed;
const INCARNATION: Incarnation = 3;

fn at(position: u64) -> Revision {
    Revision { incarnation: INCARNATION, position }
}

fn writer(position: u64) -> WriterId {
    WriterId(at(position))
}

fn lease(number: u64) -> Lease {
    Lease { incarnation: INCARNATION, number }
}

fn segment() -> SegmentMeta {
    SegmentMeta { attempt: 0, bytes: 10, range: Some(TimeRange { start: 5, end: 9 }) }
}

fn block(right: Right, attempt: u64) -> BlockMeta {
    let range = Some(TimeRange { start: 1, end: 2 });
    BlockMeta { id: BlockId { right, attempt }, bytes: 1, range, series: 1, samples: 1, built_at: at(1) }
}

/// An index, and entries proposed to it one after another.
struct Log {
    index: Index,
    applied: Vec<(u64, Entry)>,
}

impl Log {
    fn new() -> Log {
        Log { index: Index::new(CLUSTER, INCARNATION), applied: Vec::new() }
    }

    fn propose(&mut self, command: Command) -> Result<Applied, Refused> {
        let entry = Entry { incarnation: INCARNATION, command };
        let position = self.index.revision().position + 1;
        self.applied.push((position, entry.clone()));
        self.index.apply(position, &entry)
    }

    fn register(&mut self, nonce: u64) -> WriterId {
        match self.propose(Command::Register { node: NodeId(1), nonce }) {
            Ok(Applied::Registered { writer }) => writer,
            other => panic!("{other:?}"),
        }
    }

    fn add(&mut self, writer: WriterId, n: SegmentNumber) -> Result<Applied, Refused> {
        self.propose(Command::AddSegment { writer, n, segment: segment() })
    }

    fn cut(&mut self, writer: WriterId, from: SegmentNumber, upto: SegmentNumber) -> Result<Applied, Refused> {
        let block = block(Right::Writer(writer), ObjectKey::cut_attempt(upto, 0));
        self.propose(Command::Cut { writer, from, upto, block, lease: None })
    }

    fn fence_and_grant(&mut self, writer: WriterId) -> Lease {
        self.propose(Command::Fence { writer }).unwrap();
        self.propose(Command::GrantAdopt { writer, node: NodeId(2), number: 1 }).unwrap();
        lease(1)
    }

    fn adopted_cut(&mut self, writer: WriterId, from: u64, upto: u64, lease: Lease) -> Result<Applied, Refused> {
        let block = block(Right::Adopter(writer, lease), 0);
        self.propose(Command::Cut { writer, from, upto, block, lease: Some(lease) })
    }

    fn is_dead(&self, key: ObjectKey) -> bool {
        dead(&self.index, &key)
    }
}

fn segment_key(writer: WriterId, n: SegmentNumber) -> ObjectKey {
    ObjectKey::Segment { writer, n, attempt: 0 }
}

// ---- one rule after another ---------------------------------------------------------------------

#[test]
fn segments_commit_in_order_and_a_retry_is_told_so() {
    let mut log = Log::new();
    let w = log.register(1);
    assert_eq!(w, writer(1));
    assert_eq!(log.add(w, 2), Err(Refused::OutOfOrder { writer: w, n: 2, next: 1 }));
    assert_eq!(log.add(w, 1), Ok(Applied::Added { writer: w, n: 1 }));
    assert_eq!(log.add(w, 1), Err(Refused::AlreadyAdded { writer: w, n: 1 }));
    assert_eq!(log.add(w, 0), Err(Refused::OutOfOrder { writer: w, n: 0, next: 2 }));
    assert_eq!(log.add(writer(99), 1), Err(Refused::UnknownWriter { writer: writer(99) }));
}

#[test]
fn a_retry_of_what_was_committed_is_told_so_after_the_fence_too() {
    let mut log = Log::new();
    let w = log.register(1);
    log.add(w, 1).unwrap();
    log.propose(Command::Fence { writer: w }).unwrap();
    assert_eq!(log.add(w, 1), Err(Refused::AlreadyAdded { writer: w, n: 1 }));
    assert_eq!(log.add(w, 2), Err(Refused::WrongStage { writer: w, stage: Stage::Fenced }));
    assert_eq!(log.cut(w, 0, 1), Err(Refused::WrongStage { writer: w, stage: Stage::Fenced }));
}

#[test]
fn one_process_has_one_writer() {
    let mut log = Log::new();
    let w = log.register(7);
    let again = log.propose(Command::Register { node: NodeId(1), nonce: 7 });
    assert_eq!(again, Err(Refused::AlreadyRegistered { writer: w }));
    assert!(log.register(8) > w);
}

#[test]
fn another_incarnations_entry_changes_nothing_but_the_position() {
    let mut index = Index::new(CLUSTER, INCARNATION);
    let entry = Entry { incarnation: 2, command: Command::Register { node: NodeId(1), nonce: 1 } };
    assert_eq!(index.apply(1, &entry), Err(Refused::OtherIncarnation { entry: 2, index: 3 }));
    let mut untouched = Index::new(CLUSTER, INCARNATION);
    untouched.advance(1);
    assert_eq!(index, untouched);
}

#[test]
fn a_cut_swaps_segments_for_a_block_at_one_revision() {
    let mut log = Log::new();
    let w = log.register(1);
    for n in 1..=3 {
        log.add(w, n).unwrap();
    }
    assert_eq!(log.cut(w, 1, 2), Err(Refused::CutMoved { writer: w, cut: 0, from: 1 }));
    assert_eq!(log.cut(w, 0, 4), Err(Refused::WrongEnd { writer: w, upto: 4, added: 3 }));
    assert_eq!(log.cut(w, 0, 0), Err(Refused::WrongEnd { writer: w, upto: 0, added: 3 }));
    let plan = log.index.plan(TimeRange { start: 0, end: 100 });
    assert_eq!((plan.blocks.len(), plan.writers[0].cut, plan.writers[0].added), (0, 0, 3));
    let cut = log.cut(w, 0, 2);
    let Ok(Applied::Cut { writer, retired, closed_by, .. }) = cut else { panic!("{cut:?}") };
    assert_eq!((writer, &retired[..], closed_by), (w, &[(1, 0), (2, 0)][..], None));
    let again = log.cut(w, 0, 2);
    assert!(matches!(again, Err(Refused::AlreadyNamed { .. })), "{again:?}");
    assert_eq!(log.index.planned_segments(&plan.writers[0]), None, "cut since: plan again");
    let plan = log.index.plan(TimeRange { start: 0, end: 100 });
    assert_eq!((plan.blocks.len(), plan.writers[0].cut, plan.writers[0].added), (1, 2, 3));
    assert_eq!(log.index.planned_segments(&plan.writers[0]), Some(vec![(3, segment())]));
    assert!(log.is_dead(segment_key(w, 2)) && !log.is_dead(segment_key(w, 3)));
}

#[test]
fn a_block_under_another_right_or_for_another_cut_is_refused() {
    let mut log = Log::new();
    let w = log.register(1);
    log.add(w, 1).unwrap();
    log.add(w, 2).unwrap();
    for (right, attempt) in [
        (Right::Writer(writer(2)), ObjectKey::cut_attempt(2, 0)),
        (Right::Writer(w), ObjectKey::cut_attempt(1, 0)),
        (Right::Compactor(lease(1)), 0),
    ] {
        let block = block(right, attempt);
        let refused = log.propose(Command::Cut { writer: w, from: 0, upto: 2, block, lease: None });
        assert_eq!(refused, Err(Refused::WrongKey { block: block.id }));
    }
}

#[test]
fn only_the_newest_adopter_may_cut_and_its_cut_closes() {
    let mut log = Log::new();
    let w = log.register(1);
    log.add(w, 1).unwrap();
    let none = log.adopted_cut(w, 0, 1, lease(0));
    assert_eq!(none, Err(Refused::WrongStage { writer: w, stage: Stage::Live }));
    let first = log.fence_and_grant(w);
    let again = log.propose(Command::GrantAdopt { writer: w, node: NodeId(2), number: 1 });
    assert_eq!(again, Err(Refused::AlreadyGranted { number: 1 }));
    let second = log.propose(Command::GrantAdopt { writer: w, node: NodeId(3), number: 2 });
    assert_eq!(second, Ok(Applied::AdoptGranted { writer: w, lease: lease(2) }));
    assert_eq!(log.adopted_cut(w, 0, 1, first), Err(Refused::LeaseNotCurrent { lease: first }));
    let close = log.propose(Command::Close { writer: w, lease: lease(2) });
    assert_eq!(close, Err(Refused::SegmentsLeft { writer: w, cut: 0 }));

    let superseded = ObjectKey::Block { right: Right::Adopter(w, first), attempt: 0 };
    let current = ObjectKey::Block { right: Right::Adopter(w, lease(2)), attempt: 9 };
    let later = ObjectKey::Block { right: Right::Adopter(w, lease(3)), attempt: 0 };
    assert!(log.is_dead(superseded) && !log.is_dead(current) && !log.is_dead(later));

    let cut = log.adopted_cut(w, 0, 1, lease(2));
    let Ok(Applied::Cut { writer, retired, closed_by, .. }) = cut else { panic!("{cut:?}") };
    assert_eq!((writer, &retired[..], closed_by), (w, &[(1, 0)][..], Some(lease(2))));
    assert_eq!(log.index.writer(w), None);
    assert_eq!(log.add(w, 2), Err(Refused::Closed { writer: w }));
    assert!(log.is_dead(segment_key(w, 1)) && log.is_dead(segment_key(w, 2)), "the uncommitted one too");
    assert!(log.is_dead(current) && !log.is_dead(ObjectKey::Block { right: Right::Adopter(w, lease(2)), attempt: 0 }));
}

#[test]
fn quarantined_segments_are_left_out_and_kept_for_ever() {
    let mut log = Log::new();
    let w = log.register(1);
    for n in 1..=4 {
        log.add(w, n).unwrap();
    }
    log.cut(w, 0, 1).unwrap();
    let live = log.propose(Command::Quarantine { writer: w, from: 3, upto: 3, lease: lease(1) });
    assert_eq!(live, Err(Refused::WrongStage { writer: w, stage: Stage::Live }));
    let lease = log.fence_and_grant(w);
    for (from, upto) in [(1, 1), (1, 3), (3, 2), (3, 5), (0, 0)] {
        let refused = log.propose(Command::Quarantine { writer: w, from, upto, lease });
        assert_eq!(refused, Err(Refused::WrongQuarantine { writer: w }), "{from} {upto}");
    }
    log.propose(Command::Quarantine { writer: w, from: 3, upto: 4, lease }).unwrap();
    let again = log.propose(Command::Quarantine { writer: w, from: 4, upto: 4, lease });
    assert_eq!(again, Err(Refused::AlreadyQuarantined { writer: w }));
    let overlapping = log.propose(Command::Quarantine { writer: w, from: 2, upto: 3, lease });
    assert_eq!(overlapping, Err(Refused::WrongQuarantine { writer: w }));

    let plan = log.index.plan(TimeRange { start: 9, end: 20 });
    assert_eq!(plan.quarantined.len(), 1);
    assert_eq!((plan.quarantined[0].from, plan.quarantined[0].upto, plan.quarantined[0].bytes), (3, 4, 20));
    assert_eq!(log.index.plan(TimeRange { start: 10, end: 20 }).quarantined.len(), 0);
    assert_eq!(log.index.planned_segments(&plan.writers[0]), Some(vec![(2, segment())]));

    let cut = log.adopted_cut(w, 1, 4, lease);
    let Ok(Applied::Cut { writer, retired, closed_by, .. }) = cut else { panic!("{cut:?}") };
    assert_eq!((writer, &retired[..], closed_by), (w, &[(2, 0)][..], Some(lease)));
    assert!(log.is_dead(segment_key(w, 2)) && log.is_dead(segment_key(w, 5)));
    assert!(!log.is_dead(segment_key(w, 3)) && !log.is_dead(segment_key(w, 4)));
}

#[test]
fn a_writer_with_nothing_but_quarantined_segments_is_closed() {
    let mut log = Log::new();
    let w = log.register(1);
    log.add(w, 1).unwrap();
    let lease = log.fence_and_grant(w);
    log.propose(Command::Quarantine { writer: w, from: 1, upto: 1, lease }).unwrap();
    assert_eq!(log.propose(Command::Close { writer: w, lease }), Ok(Applied::Closed { writer: w, lease }));
    assert!(!log.is_dead(segment_key(w, 1)));
}

#[test]
fn nodes_are_known_until_they_are_forgotten() {
    let mut log = Log::new();
    let info = |peer: &str| NodeInfo { name: "a".into(), peer: peer.into(), api: String::new() };
    let node = NodeId(7);
    log.propose(Command::SetNode { node, info: info("one:1") }).unwrap();
    assert_eq!(log.propose(Command::SetNode { node, info: info("two:2") }), Ok(Applied::NodeSet { node }));
    assert_eq!(log.index.nodes().collect::<Vec<_>>(), [(node, &info("two:2"))]);
    assert_eq!(log.propose(Command::ForgetNode { node }), Ok(Applied::NodeForgotten { node }));
    assert_eq!(log.propose(Command::ForgetNode { node }), Err(Refused::NodeUnknown { node }));
    // Longer texts are cut off at a character, the same on every replica.
    let long = Entry { incarnation: INCARNATION, command: Command::SetNode { node, info: info(&"ä".repeat(200)) } };
    let Command::SetNode { info: read, .. } = Entry::decode(&long.encode()).unwrap().command else { panic!() };
    assert_eq!(read.peer, "ä".repeat(127));
}

#[test]
fn a_compaction_lease_is_spent_by_one_replace() {
    let mut log = Log::new();
    let w = log.register(1);
    log.add(w, 1).unwrap();
    log.cut(w, 0, 1).unwrap();
    let old = BlockId { right: Right::Writer(w), attempt: ObjectKey::cut_attempt(1, 0) };
    let merged = block(Right::Compactor(lease(1)), 0);
    let replace = |lease, old: &[BlockId], block| Command::Replace { lease, old: old.to_vec(), block };
    assert_eq!(log.propose(replace(lease(1), &[old], merged)), Err(Refused::LeaseNotCurrent { lease: lease(1) }));
    assert_eq!(log.propose(replace(lease(0), &[old], merged)), Err(Refused::LeaseSpent { lease: lease(0) }));
    log.propose(Command::GrantCompact { node: NodeId(1), number: 1 }).unwrap();
    let absent = BlockId { right: Right::Writer(w), attempt: 0 };
    let refused = log.propose(replace(lease(1), &[old, absent], merged));
    assert_eq!(refused, Err(Refused::BlockAbsent { block: absent }));
    assert!(!log.is_dead(merged.id.key()), "it may be named yet");
    let replaced = log.propose(replace(lease(1), &[old], merged));
    assert_eq!(replaced, Ok(Applied::Replaced { retired: vec![old] }));
    let again = log.propose(replace(lease(1), &[old], merged));
    assert_eq!(again, Err(Refused::AlreadyNamed { block: merged.id }));
    let other = block(Right::Compactor(lease(1)), 1);
    assert_eq!(log.propose(replace(lease(1), &[merged.id], other)), Err(Refused::LeaseSpent { lease: lease(1) }));
    assert!(log.is_dead(other.id.key()) && log.is_dead(old.key()) && !log.is_dead(merged.id.key()));
    assert!(!log.is_dead(ObjectKey::Block { right: Right::Compactor(lease(2)), attempt: 0 }), "not granted yet");
}

#[test]
fn own_blocks_die_with_the_cut_they_were_made_for() {
    let mut log = Log::new();
    let w = log.register(1);
    for n in 1..=2 {
        log.add(w, n).unwrap();
    }
    let try_of =
        |upto, attempt| ObjectKey::Block { right: Right::Writer(w), attempt: ObjectKey::cut_attempt(upto, attempt) };
    log.cut(w, 0, 1).unwrap();
    assert!(log.is_dead(try_of(1, 1)) && !log.is_dead(try_of(1, 0)) && !log.is_dead(try_of(2, 0)));
    log.propose(Command::Fence { writer: w }).unwrap();
    assert!(log.is_dead(try_of(2, 0)) && !log.is_dead(try_of(1, 0)));
}

#[test]
fn the_checkpoint_knows_nothing_of_what_came_after_it() {
    let mut log = Log::new();
    log.register(1);
    let checkpoint = log.index.clone();
    let later = log.register(2);
    assert!(!dead(&checkpoint, &segment_key(later, 1)));
    assert!(!dead(&checkpoint, &ObjectKey::Block { right: Right::Writer(later), attempt: 0 }));
    let next_life = WriterId(Revision { incarnation: INCARNATION + 1, position: 1 });
    assert!(!dead(&checkpoint, &segment_key(next_life, 1)));
    let earlier_life = WriterId(Revision { incarnation: INCARNATION - 1, position: 99 });
    assert!(dead(&checkpoint, &segment_key(earlier_life, 1)));
    for key in [ObjectKey::Cluster, ObjectKey::Checkpoint(at(1)), ObjectKey::Changes { first: at(1), last: 2 }] {
        assert!(!dead(&checkpoint, &key));
    }
}

#[test]
fn a_closed_writer_leaves_nothing_behind() {
    let mut log = Log::new();
    for nonce in 0..50 {
        let w = log.register(nonce);
        let lease = log.fence_and_grant(w);
        log.propose(Command::Close { writer: w, lease }).unwrap();
    }
    assert!(log.index.encode_checkpoint().len() < 60);
}

#[test]
fn the_largest_add_segment_fits_a_hundred_bytes() {
    let writer = WriterId(Revision { incarnation: u64::MAX, position: u64::MAX });
    let range = Some(TimeRange { start: i64::MIN, end: i64::MAX });
    let segment = SegmentMeta { attempt: u32::MAX, bytes: u64::MAX, range };
    let entry = Entry { incarnation: u64::MAX, command: Command::AddSegment { writer, n: u64::MAX, segment } };
    assert!(entry.encode().len() <= 100, "{}", entry.encode().len());
    assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
}

#[test]
fn unknown_entries_halt() {
    let entry = Entry { incarnation: 1, command: Command::Fence { writer: writer(1) } };
    let mut bytes = entry.encode();
    bytes[1] = 200;
    assert_eq!(Entry::decode(&bytes), Err(EntryError::UnknownKind(200)));
    bytes[0] = 2;
    assert_eq!(Entry::decode(&bytes), Err(EntryError::UnknownVersion(2)));
    let mut bytes = entry.encode();
    bytes.push(0);
    assert!(matches!(Entry::decode(&bytes), Err(EntryError::Damaged(_))));
}

// ---- random entries -----------------------------------------------------------------------------

/// A draw that `entry` turns into a command near what the state allows.
type Draw = (u8, u8, u8, u8, u8);

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    // The first number picks the command, and segments are added oftener than anything else happens.
    proptest::collection::vec((0..26_u8, 0..8_u8, 0..8_u8, 0..8_u8, 0..8_u8), 1..120)
}

/// What the test remembers beside the index: who ever was, what was ever PUT, what each block holds.
#[derive(Default)]
struct World {
    writers: Vec<WriterId>,
    keys: BTreeSet<ObjectKey>,
    blocks: Vec<BlockId>,
    contents: BTreeMap<BlockId, Vec<(WriterId, SegmentNumber)>>,
    committed: BTreeSet<(WriterId, SegmentNumber)>,
}

impl World {
    fn writer(&self, draw: u8) -> WriterId {
        // Mostly the newest ones; now and then one that is not registered yet.
        let back = usize::from(draw) % 5;
        self.writers.iter().rev().nth(back).copied().unwrap_or(writer(100_000))
    }

    fn entry(&mut self, index: &Index, (kind, a, b, c, d): Draw) -> Entry {
        let id = self.writer(a);
        let known = index.writer(id);
        let (cut, added, granted) = known.map_or((0, 0, 1), |w| (w.cut, w.added, w.lease));
        // Mostly right; else one off, to either side.
        let near = |value: u64, draw: u8| match draw {
            0..=5 => value,
            6 => value + 1,
            _ => value.saturating_sub(1),
        };
        let mut incarnation = INCARNATION;
        let command = match kind {
            0 => Command::Register { node: NodeId(1), nonce: u64::from(a) * 8 + u64::from(b) },
            1..=9 => {
                let n = near(added + 1, b);
                let segment = SegmentMeta { attempt: u32::from(c), ..segment() };
                self.keys.insert(ObjectKey::Segment { writer: id, n, attempt: segment.attempt });
                Command::AddSegment { writer: id, n, segment }
            }
            10 => Command::Fence { writer: id },
            11 | 12 => Command::GrantAdopt { writer: id, node: NodeId(u64::from(c % 2)), number: near(granted + 1, b) },
            13..=15 => {
                let upto = near((cut + 1 + u64::from(c % 4)).min(added), b);
                let key = ObjectKey::cut_attempt(near(upto, d), u16::from(d % 2));
                let block = self.put(Right::Writer(id), key);
                Command::Cut { writer: id, from: near(cut, a), upto, block, lease: None }
            }
            16 | 17 => {
                let lease = lease(near(granted, c));
                let block = self.put(Right::Adopter(id, lease), u64::from(d % 2));
                Command::Cut { writer: id, from: near(cut, a), upto: near(added, b), block, lease: Some(lease) }
            }
            18 => Command::Close { writer: id, lease: lease(near(granted, b)) },
            19 => Command::GrantCompact {
                node: NodeId(u64::from(c % 2)),
                number: near(index.compact_lease().number + 1, b),
            },
            20 | 21 => {
                let lease = lease(near(index.compact_lease().number, b));
                let old: Vec<BlockId> = if c < 6 {
                    index.blocks().map(|block| block.id).skip(usize::from(c % 3)).take(2).collect()
                } else {
                    self.blocks.iter().rev().take(2).copied().collect()
                };
                let block = self.put(Right::Compactor(lease), u64::from(d % 2));
                Command::Replace { lease, old, block }
            }
            22 => {
                let from = near(cut + 1 + u64::from(c % 2), b);
                Command::Quarantine { writer: id, from, upto: near(from + u64::from(d % 2), a), lease: lease(granted) }
            }
            23 => {
                let text = |draw: u8| "ä".repeat(usize::from(draw) * 20);
                let info = NodeInfo { name: text(b % 3), peer: text(c % 3), api: text(d % 3) };
                Command::SetNode { node: NodeId(u64::from(a % 3)), info }
            }
            24 => Command::ForgetNode { node: NodeId(u64::from(a % 3)) },
            _ if a == 0 => {
                incarnation = u64::from(b);
                Command::Fence { writer: id }
            }
            _ => Command::Delete(Delete {
                nonce: index.revision().position,
                tenant: TenantId::anonymous(),
                matchers: vec![DeleteMatcher { name: "a".into(), op: MatchOp::NotRegex, value: "b|c".into() }],
                range: TimeRange { start: 0, end: i64::from(c) },
            }),
        };
        Entry { incarnation, command }
    }

    fn put(&mut self, right: Right, attempt: u64) -> BlockMeta {
        let block = block(right, attempt);
        self.keys.insert(block.id.key());
        self.blocks.push(block.id);
        block
    }

    /// Follows what an applied entry means for where samples are.
    fn follow(&mut self, entry: &Entry, applied: &Applied) {
        match (&entry.command, applied) {
            (_, Applied::Registered { writer }) => {
                assert!(self.writers.iter().all(|other| other < writer), "ids are ordered and none is used twice");
                self.writers.push(*writer);
            }
            (_, Applied::Added { writer, n }) => assert!(self.committed.insert((*writer, *n))),
            (Command::Cut { writer, block, .. }, Applied::Cut { retired, .. }) => {
                let content = retired.iter().map(|(n, _)| (*writer, *n)).collect();
                assert!(self.contents.insert(block.id, content).is_none(), "no block is named twice");
            }
            (Command::Replace { block, .. }, Applied::Replaced { retired }) => {
                let content = retired.iter().flat_map(|id| self.contents[id].clone()).collect();
                assert!(self.contents.insert(block.id, content).is_none(), "no block is named twice");
            }
            _ => (),
        }
    }

    /// Promise 2: each committed segment is in exactly one place, or quarantined.
    fn check_data(&self, index: &Index) {
        let mut seen = BTreeSet::new();
        for block in index.blocks() {
            for place in &self.contents[&block.id] {
                assert!(seen.insert(*place), "{place:?} is doubled");
                assert!(!index.is_quarantined(place.0, place.1));
            }
        }
        for (id, writer) in index.writers() {
            assert_eq!(writer.added - writer.cut, writer.segments().len() as u64);
            for (n, _) in writer.segments().filter(|(n, _)| !index.is_quarantined(id, *n)) {
                assert!(seen.insert((id, n)), "{id} {n} is doubled");
            }
        }
        for place in &self.committed {
            assert!(seen.contains(place) != index.is_quarantined(place.0, place.1), "{place:?} is missing");
        }
        assert!(seen.iter().all(|place| self.committed.contains(place)), "nothing that was not committed");
    }

    fn check_dead(&self, before: &Index, after: &Index) {
        for key in &self.keys {
            assert!(dead(after, key) || !dead(before, key), "{key} was dead and is not");
        }
        for block in after.blocks() {
            assert!(!dead(before, &block.id.key()) && !dead(after, &block.id.key()));
        }
        for (writer, n) in &self.committed {
            let needed = after.writer(*writer).is_some_and(|known| *n > known.cut) || after.is_quarantined(*writer, *n);
            assert!(!needed || !dead(after, &segment_key(*writer, *n)));
        }
    }
}

fn check_monotone(before: &Index, after: &Index) {
    assert!(before.revision() < after.revision());
    for (id, old) in before.writers() {
        let Some(new) = after.writer(id) else { continue };
        assert!(old.added <= new.added && old.cut <= new.cut && old.lease <= new.lease && new.cut <= new.added);
        assert!(old.stage == Stage::Live || (new.stage == Stage::Fenced && old.added == new.added));
    }
    assert!(before.compact_lease().number <= after.compact_lease().number);
    assert!(before.quarantined().all(|range| after.quarantined().any(|other| other == range)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_whatever_is_proposed(draws in draws()) {
        let mut world = World::default();
        let mut log = Log::new();
        for draw in draws {
            let entry = world.entry(&log.index, draw);
            prop_assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry.clone());
            let before = log.index.clone();
            let position = before.revision().position + 1;
            log.applied.push((position, entry.clone()));
            match log.index.apply(position, &entry) {
                Ok(applied) => {
                    world.follow(&entry, &applied);
                    check_monotone(&before, &log.index);
                    // Proposed again, as after a lost answer: refused, or the same once more.
                    let mut again = log.index.clone();
                    let answer = again.apply(position + 1, &entry);
                    prop_assert!(answer.is_err() || matches!(entry.command, Command::SetNode { .. }), "{answer:?}");
                }
                Err(_) => {
                    let mut untouched = before.clone();
                    untouched.advance(position);
                    prop_assert_eq!(&untouched, &log.index, "a refused entry changes nothing");
                }
            }
            world.check_data(&log.index);
            world.check_dead(&before, &log.index);
        }
        let bytes = log.index.encode_checkpoint();
        let read = Index::decode_checkpoint(&bytes).unwrap();
        prop_assert_eq!(&read, &log.index);
        prop_assert_eq!(read.state_hash(), log.index.state_hash());
    }

    #[test]
    fn a_checkpoint_and_the_changes_after_it_are_the_state(
        draws in draws(), split in 0..120_usize, overlap in 0..40_usize
    ) {
        let mut world = World::default();
        let mut log = Log::new();
        let mut checkpoint = log.index.encode_checkpoint();
        let mut from = 0;
        for (i, draw) in draws.into_iter().enumerate() {
            if i == split {
                (checkpoint, from) = (log.index.encode_checkpoint(), i);
            }
            let entry = world.entry(&log.index, draw);
            let position = log.index.revision().position + 1;
            log.applied.push((position, entry.clone()));
            if let Ok(applied) = log.index.apply(position, &entry) {
                world.follow(&entry, &applied);
            }
        }
        let mut recovered = Index::decode_checkpoint(&checkpoint).unwrap();
        let at = recovered.revision().position;
        // Changes may begin before the checkpoint's end.
        let first = (at + 1).saturating_sub(overlap as u64).max(1);
        let from = from.min(first as usize - 1);
        let last = log.index.revision().position;
        let changes = Changes {
            cluster: CLUSTER,
            incarnation: INCARNATION,
            first,
            last,
            entries: log.applied[from..].to_vec(),
        };
        let read = Changes::decode(&changes.encode()).unwrap();
        prop_assert_eq!(&read, &changes);
        if at < last {
            let gap = Changes { first: at + 2, ..read.clone() };
            prop_assert!(recovered.replay(&gap).is_err());
            prop_assert_eq!(recovered.replay(&read).unwrap().len() as u64, last - at);
        }
        prop_assert!(recovered.replay(&read).is_err(), "not twice");
        prop_assert_eq!(recovered, log.index);
    }

    #[test]
    fn any_bytes_are_an_error_at_worst(mut bytes: Vec<u8>, kind in 0..14_u8) {
        let _ = Entry::decode(&bytes).is_ok();
        let mut entry = vec![ENTRY_VERSION, kind];
        entry.extend_from_slice(&bytes);
        let _ = Entry::decode(&entry).is_ok();
        for magic in [b"BRIX", b"BRCH"] {
            let mut object = magic.to_vec();
            object.push(1 + kind % 2);
            object.append(&mut bytes.clone());
            let checksum = crc32c::crc32c(&object);
            object.extend_from_slice(&checksum.to_le_bytes());
            let _ = Index::decode_checkpoint(&object).is_ok();
            let _ = Changes::decode(&object).is_ok();
        }
        bytes.truncate(8);
        prop_assert!(Index::decode_checkpoint(&bytes).is_err() && Changes::decode(&bytes).is_err());
    }

    #[test]
    fn damaged_bytes_are_told(draws in draws(), cut in 0..10_000_usize, flip in 0..10_000_usize, bit in 0..8_u8) {
        let mut world = World::default();
        let mut log = Log::new();
        for draw in draws {
            let entry = world.entry(&log.index, draw);
            let _ = log.propose(entry.command);
            if let Some((_, entry)) = log.applied.last() {
                let mut bytes = entry.encode();
                let at = flip % bytes.len();
                bytes[at] ^= 1 << bit;
                let _ = Entry::decode(&bytes).is_ok();
                prop_assert!(Entry::decode(&entry.encode()[..cut % bytes.len()]).is_err());
            }
        }
        let bytes = log.index.encode_checkpoint();
        prop_assert!(Index::decode_checkpoint(&bytes[..cut % bytes.len()]).is_err());
        let mut flipped = bytes.clone();
        flipped[flip % bytes.len()] ^= 1 << bit;
        prop_assert!(Index::decode_checkpoint(&flipped).is_err());
        // A right checksum over wrong fields must be an error or a sound state, and never a panic.
        let body = flipped.len() - 4;
        let checksum = crc32c::crc32c(&flipped[..body]).to_le_bytes();
        flipped[body..].copy_from_slice(&checksum);
        if let Ok(index) = Index::decode_checkpoint(&flipped) {
            prop_assert_eq!(Index::decode_checkpoint(&index.encode_checkpoint()), Ok(index));
        }
    }
}
