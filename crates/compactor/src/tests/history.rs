//! The collector alone, with a bucket that is a set of keys.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bucket::Folder;
use index::{Plan, dead};
use runtime::Random;

use super::*;
use crate::collect::{Collector, Input, Output};
use crate::settings::Settings;

const NOW: Duration = Duration::from_secs(100);

fn whole(index: &Index) -> Collector {
    let mut collector = Collector::new(Settings::default());
    let mut output = collector.step(NOW, Input::WholeStored, index);
    while let Some(Output::List(folder)) = output {
        output = collector.step(NOW, Input::Listed { folder, keys: vec![] }, index);
    }
    assert_eq!(output, None);
    collector
}

fn changes(collector: &mut Collector, index: &mut Index, entry: &Entry) -> Option<Output> {
    let applied = vec![apply(index, entry).unwrap()];
    let first = index.revision();
    collector.step(NOW, Input::ChangesStored { first, last: first.position, applied }, index)
}

#[test]
fn everything_is_listed_once_and_the_dead_go() {
    let mut index = Index::new(CLUSTER, INCARNATION);
    apply(&mut index, &entry(Command::Register { node: NodeId(1), nonce: 1 })).unwrap();
    let w = WriterId(at(1));
    apply(&mut index, &add(w, 1, 0)).unwrap();
    let mut collector = Collector::new(Settings::default());
    let mut output = collector.step(NOW, Input::WholeStored, &index);
    let mut listed = Vec::new();
    while let Some(Output::List(folder)) = output {
        listed.push(folder);
        // Of a writer before this one, of this one, and of one that is not registered yet.
        let old = WriterId(Revision { incarnation: 0, position: 9 });
        let keys = match folder {
            Folder::Segments => vec![segment(old, 1, 0), segment(w, 1, 0), segment(WriterId(at(50)), 1, 0)],
            _ => vec![],
        };
        output = collector.step(NOW, Input::Listed { folder, keys }, &index);
    }
    assert_eq!(listed, [Folder::Segments, Folder::Blocks, Folder::Checkpoints, Folder::Changes]);
    assert_eq!(collector.step(NOW, Input::Tick { lowest_in_use: at(1) }, &index), None, "a plan may read it");
    let old = segment(WriterId(Revision { incarnation: 0, position: 9 }), 1, 0);
    let tick = Input::Tick { lowest_in_use: at(2) };
    assert_eq!(collector.step(NOW, tick.clone(), &index), Some(Output::Delete(vec![old])));
    assert_eq!(collector.step(NOW, tick.clone(), &index), None, "one batch at a time");
    assert_eq!(collector.step(NOW, Input::Deleted { failed: vec![old] }, &index), None);
    assert_eq!(collector.step(NOW, tick.clone(), &index), None, "not at once again");
    assert_eq!(collector.step(NOW * 2, tick, &index), Some(Output::Delete(vec![old])));
}

#[test]
fn a_cut_lists_nothing_and_retires_every_attempt() {
    let mut index = Index::new(CLUSTER, INCARNATION);
    let mut collector = whole(&index);
    let w = WriterId(at(1));
    for entry in [entry(Command::Register { node: NodeId(1), nonce: 1 }), add(w, 1, 0), add(w, 2, 2), add(w, 3, 0)] {
        assert_eq!(changes(&mut collector, &mut index, &entry), None);
    }
    assert_eq!(changes(&mut collector, &mut index, &own_cut(w, 0, 2, 2)), None);
    let stored = index.revision();
    assert_eq!(collector.step(NOW, Input::Tick { lowest_in_use: at(stored.position - 1) }, &index), None);
    let output = collector.step(NOW, Input::Tick { lowest_in_use: stored }, &index);
    // Those before the known one, and the hedge after it; the tries of the block before the one that was named.
    let mut expected: Vec<_> = [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3)].map(|(n, a)| segment(w, n, a)).into();
    expected.extend(
        [0, 1].map(|attempt| ObjectKey::Block { right: Right::Writer(w), attempt: ObjectKey::cut_attempt(2, attempt) }),
    );
    assert_eq!(output, Some(Output::Delete(expected)));
}

#[test]
fn a_closed_writer_s_folders_are_listed_once() {
    let mut index = Index::new(CLUSTER, INCARNATION);
    let mut collector = whole(&index);
    let w = WriterId(at(1));
    let grant = |number| entry(Command::GrantAdopt { writer: w, node: NodeId(1), number });
    let begin = entry(Command::Register { node: NodeId(1), nonce: 1 });
    for entry in [begin, add(w, 1, 0), entry(Command::Fence { writer: w }), grant(1), grant(2)] {
        assert_eq!(changes(&mut collector, &mut index, &entry), None);
    }
    let mut output = changes(&mut collector, &mut index, &adopted_cut(w, 0, 1, lease(2), 1));
    let mut listed = Vec::new();
    while let Some(Output::List(folder)) = output {
        listed.push(folder);
        let keys = match folder {
            // Segment 2 was PUT and never committed; the adopter's first PUT was never answered.
            Folder::SegmentsOf(_) => vec![segment(w, 1, 0), segment(w, 2, 0)],
            Folder::BlocksOf(Right::Adopter(_, Lease { number: 2, .. })) => {
                (0..2).map(|attempt| block(Right::Adopter(w, lease(2)), attempt).id.key()).collect()
            }
            _ => vec![],
        };
        output = collector.step(NOW, Input::Listed { folder, keys }, &index);
    }
    let folders = [
        Folder::SegmentsOf(w),
        Folder::BlocksOf(Right::Writer(w)),
        Folder::BlocksOf(Right::Adopter(w, lease(1))),
        Folder::BlocksOf(Right::Adopter(w, lease(2))),
    ];
    assert_eq!(listed, folders);
    let output = collector.step(NOW, Input::Tick { lowest_in_use: index.revision() }, &index);
    let orphan = block(Right::Adopter(w, lease(2)), 0).id.key();
    assert_eq!(output, Some(Output::Delete(vec![segment(w, 1, 0), segment(w, 1, 1), segment(w, 2, 0), orphan])));
}

#[test]
fn the_newest_checkpoints_and_what_follows_the_oldest_of_them_stay() {
    let index = Index::new(CLUSTER, INCARNATION);
    let mut collector = whole(&index);
    let changes = |first, last| Input::ChangesStored { first: at(first), last, applied: vec![] };
    for (first, last) in [(1, 10), (11, 20), (21, 30), (31, 40)] {
        assert_eq!(collector.step(NOW, changes(first, last), &index), None);
    }
    let stored = |position| Input::CheckpointStored { at: at(position) };
    let covered = ObjectKey::Changes { first: at(1), last: 10 };
    assert_eq!(collector.step(NOW, stored(10), &index), Some(Output::Delete(vec![covered])));
    assert_eq!(collector.step(NOW, Input::Deleted { failed: vec![] }, &index), None);
    assert_eq!(collector.step(NOW, stored(20), &index), None);
    assert_eq!(collector.step(NOW, stored(30), &index), None);
    let output = collector.step(NOW, stored(40), &index);
    let expected = vec![ObjectKey::Checkpoint(at(10)), ObjectKey::Changes { first: at(11), last: 20 }];
    assert_eq!(output, Some(Output::Delete(expected)));
}

/// A whole little cluster: writers, cuts, adoptions and compactions, with PUTs whose entries never come and
/// PUTs that land late; a stored index that lags; plans that pin old revisions; deletes that fail.
struct World {
    random: Random,
    live: Index,
    /// Entries that are not stored yet.
    log: VecDeque<Entry>,
    stored: Index,
    bucket: BTreeSet<ObjectKey>,
    plans: Vec<(Plan, BTreeSet<ObjectKey>)>,
    collector: Collector,
    now: Duration,
}

impl World {
    fn new(seed: u64) -> World {
        let live = Index::new(CLUSTER, INCARNATION);
        let mut world = World {
            random: Random::from_seed(seed),
            stored: live.clone(),
            live,
            log: VecDeque::new(),
            bucket: BTreeSet::new(),
            plans: Vec::new(),
            collector: Collector::new(Settings { deletes_max: 5, ..Settings::default() }),
            now: NOW,
        };
        world.collect(Input::WholeStored);
        world
    }

    fn chance(&self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }

    fn propose(&mut self, entry: Entry) {
        // Late or never: whatever was PUT for it is an orphan then.
        if self.chance(6) {
            return;
        }
        let _ = apply(&mut self.live, &entry);
        self.log.push_back(entry);
    }

    fn writer(&self) -> Option<(WriterId, index::Writer)> {
        let all: Vec<_> = self.live.writers().collect();
        let at = self.random.below(all.len().max(1) as u64) as usize;
        all.get(at).map(|(id, writer)| (*id, (*writer).clone()))
    }

    fn act(&mut self) {
        let draw = self.random.below(12);
        let Some((w, known)) = self.writer().filter(|_| draw > 0) else {
            let nonce = self.random.u64();
            return self.propose(entry(Command::Register { node: NodeId(1), nonce }));
        };
        let attempt = self.random.below(3);
        match draw {
            1..=5 => {
                let (n, attempt) = (known.added + 1, attempt as u32);
                self.bucket.insert(segment(w, n, attempt));
                self.propose(add(w, n, attempt));
            }
            6 | 7 if known.added > known.cut => {
                let upto = known.cut + 1 + self.random.below(known.added - known.cut);
                let cut = own_cut(w, known.cut, upto, attempt as u16);
                self.put_block_of(&cut);
                self.propose(cut);
            }
            8 => self.propose(entry(Command::Fence { writer: w })),
            9 => {
                let number = known.lease + 1;
                self.propose(entry(Command::GrantAdopt { writer: w, node: NodeId(1), number }));
            }
            10 => {
                if self.chance(4) {
                    let n = known.cut + 1;
                    self.propose(entry(Command::Quarantine { writer: w, from: n, upto: n, lease: lease(known.lease) }));
                }
                let cut = adopted_cut(w, known.cut, known.added, lease(known.lease), attempt);
                self.put_block_of(&cut);
                self.propose(cut);
                self.propose(entry(Command::Close { writer: w, lease: lease(known.lease) }));
            }
            _ => {
                let number = self.live.compact_lease().number;
                if self.live.compact_lease().is_spent || self.chance(3) {
                    self.propose(entry(Command::GrantCompact { node: NodeId(1), number: number + 1 }));
                } else {
                    let old = self.live.blocks().map(|block| block.id).take(2).collect();
                    let block = block(Right::Compactor(lease(number)), attempt);
                    self.bucket.insert(block.id.key());
                    self.propose(entry(Command::Replace { lease: lease(number), old, block }));
                }
            }
        }
    }

    fn put_block_of(&mut self, entry: &Entry) {
        if let Command::Cut { block, .. } = &entry.command {
            self.bucket.insert(block.id.key());
        }
    }

    /// What a plan at the live revision reads.
    fn plan(&mut self) {
        let plan = self.live.plan(TimeRange::ALL);
        let mut needs: BTreeSet<ObjectKey> = plan.blocks.iter().map(|block| block.id.key()).collect();
        for writer in &plan.writers {
            let segments = self.live.planned_segments(writer).unwrap();
            needs.extend(segments.iter().map(|(n, known)| segment(writer.id, *n, known.attempt)));
        }
        self.plans.push((plan, needs));
    }

    fn store(&mut self) {
        let count = self.random.below(self.log.len() as u64 + 1) as usize;
        let mut applied = Vec::new();
        let first = at(self.stored.revision().position + 1);
        for entry in self.log.drain(..count) {
            applied.extend(apply(&mut self.stored, &entry));
        }
        if count > 0 {
            let last = self.stored.revision().position;
            self.collect(Input::ChangesStored { first, last, applied });
        }
    }

    fn tick(&mut self) {
        self.now += Duration::from_secs(self.random.below(8));
        let oldest = self.plans.iter().map(|(plan, _)| plan.revision).min();
        let lowest_in_use = oldest.unwrap_or(self.live.revision());
        self.collect(Input::Tick { lowest_in_use });
    }

    fn collect(&mut self, input: Input) {
        let mut output = self.collector.step(self.now, input, &self.stored);
        while let Some(wanted) = output {
            let answer = match wanted {
                Output::List(folder) if self.chance(5) => Input::ListFailed { folder },
                Output::List(folder) => {
                    let folder_path = format!("{folder}/");
                    let inside = |key: &&ObjectKey| key.to_string().starts_with(&folder_path);
                    Input::Listed { folder, keys: self.bucket.iter().filter(inside).copied().collect() }
                }
                Output::Delete(keys) => {
                    let mut failed = Vec::new();
                    for key in keys {
                        if self.chance(8) {
                            failed.push(key);
                        } else {
                            self.bucket.remove(&key);
                        }
                    }
                    Input::Deleted { failed }
                }
            };
            output = self.collector.step(self.now, answer, &self.stored);
        }
    }

    fn check(&self, seed: u64) {
        let mut needs = BTreeSet::new();
        // The data now, and the data that a recovery would find.
        for index in [&self.live, &self.stored] {
            needs.extend(index.blocks().map(|block| block.id.key()));
            for (id, writer) in index.writers() {
                needs.extend(writer.segments().map(|(n, known)| segment(id, n, known.attempt)));
            }
        }
        for (_, planned) in &self.plans {
            needs.extend(planned.iter().copied());
        }
        for key in needs {
            assert!(self.bucket.contains(&key), "seed {seed}: {key} is needed and gone");
        }
    }
}

#[test]
fn nothing_that_anybody_needs_goes_and_everything_dead_does() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            match world.random.below(10) {
                0 => world.plan(),
                1 if !world.plans.is_empty() => {
                    let at = world.random.below(world.plans.len() as u64) as usize;
                    world.plans.remove(at);
                }
                2 => world.store(),
                3 | 4 => world.tick(),
                _ => world.act(),
            }
            world.check(seed);
        }
        // Quiet now: no plans, everything stored. PUTs that landed after their folder was listed are for the next
        // start; so start once more.
        world.plans.clear();
        while !world.log.is_empty() {
            world.store();
        }
        world.collector = Collector::new(Settings::default());
        world.collect(Input::WholeStored);
        for _ in 0..200 {
            world.tick();
        }
        world.check(seed);
        for key in &world.bucket {
            assert!(!dead(&world.stored, key), "seed {seed}: {key} is dead and still there");
        }
        assert_eq!(world.collector.pending(), 0);
    }
}
