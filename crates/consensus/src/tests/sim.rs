//! Whole groups on a simulated network and simulated disks, from a seed.
//!
//! Messages are lost, doubled, late and out of order; links fail in one direction or both; processes die in the
//! middle of a write, machines lose power with what was not synced, disks fill up, a replica's disk is wiped and
//! it comes back under a new id; meanwhile the group grows from one to three to five voters and shrinks back to
//! three. Always: what one replica applied, every other applies in the same place; what was answered is there;
//! a read's position covers what was answered before it; states hash alike. In the end, without faults: progress.
//!
//! `CONSENSUS_SEEDS=7..8 cargo test -p consensus groups_keep` runs those seeds.
#![allow(clippy::disallowed_methods, reason = "which seeds to run comes from the environment")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use runtime::{ManualClock, Random, Registry};
use tokio::sync::{Semaphore, oneshot};

use super::disk::Disk;
use crate::core::Change;
use crate::folder;
use crate::group::open_replica;
use crate::metrics::Metrics;
use crate::replica::{Input, Replica};
use crate::*;

const FOLDER: &str = "/data/index";
/// Steps of simulated time between two ticks of a replica.
const TICK_STEPS: u64 = 10;

#[derive(Debug, Clone, Default)]
struct State {
    position: u64,
    entries: Vec<(u64, u64)>,
}

const MACHINE: Machine<State, u64, u64> = Machine {
    apply: |state, position, entry| {
        assert_eq!(position, state.position + 1, "every position comes once");
        state.position = position;
        state.entries.push((position, *entry));
        position
    },
    advance: |state, position| {
        assert_eq!(position, state.position + 1, "every position comes once");
        state.position = position;
    },
    encode: |entry| entry.to_le_bytes().to_vec(),
    decode: |bytes| Ok(u64::from_le_bytes(bytes.try_into()?)),
    snapshot: |state| {
        let mut out = state.position.to_le_bytes().to_vec();
        for (position, entry) in &state.entries {
            out.extend_from_slice(&position.to_le_bytes());
            out.extend_from_slice(&entry.to_le_bytes());
        }
        out
    },
    restore: |bytes| {
        let mut numbers = bytes.chunks(8).map(|chunk| Ok(u64::from_le_bytes(chunk.try_into()?)));
        let position: Result<u64, BoxError> = numbers.next().ok_or("empty")?;
        let rest: Result<Vec<u64>, BoxError> = numbers.collect();
        Ok(State { position: position?, entries: rest?.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect() })
    },
    hash: |state| {
        let add = |hash: u64, number: u64| (hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        state.entries.iter().fold(state.position, |hash, (position, entry)| add(add(hash, *position), *entry))
    },
};

type SimReplica = Replica<State, u64, u64>;

#[derive(Clone, Default)]
struct Outbox(Arc<Mutex<Messages>>);

/// To whom, and what.
type Messages = Vec<(u64, Vec<u8>)>;

impl Transport for Outbox {
    fn send(&self, to: u64, message: Vec<u8>) {
        self.0.lock().push((to, message));
    }
}

struct Node {
    disk: Disk,
    replica: Option<SimReplica>,
    id: u64,
    outbox: Outbox,
    /// The disk dies within the next operations.
    is_armed: bool,
    starts_at: u64,
    next_tick: u64,
    tick_steps: u64,
    /// Entries of its state that were compared with the others'.
    checked: usize,
}

struct Message {
    from: u64,
    to: u64,
    bytes: Vec<u8>,
}

struct Pending {
    entry: u64,
    answered: oneshot::Receiver<Result<u64, ProposeError>>,
}

struct PendingRead {
    at_least: u64,
    answered: oneshot::Receiver<Result<u64, ProposeError>>,
}

struct Sim {
    seed: u64,
    random: Random,
    now: u64,
    nodes: Vec<Node>,
    /// By when they arrive.
    messages: BTreeMap<(u64, u64), Message>,
    order: u64,
    blocked: HashSet<(u64, u64)>,
    loss: u64,
    /// One of so many steps breaks something, about eight times.
    faults: u64,
    has_faults: bool,
    settings: Settings,
    permits: Arc<Semaphore>,
    next_entry: u64,
    pending: Vec<Pending>,
    reads: Vec<PendingRead>,
    /// What was applied anywhere, by position.
    history: BTreeMap<u64, u64>,
    acked: BTreeMap<u64, u64>,
    /// Surely in no log.
    refused: BTreeSet<u64>,
    acked_upto: u64,
    change: Option<oneshot::Receiver<Result<(), MembersError>>>,
    /// Nodes that should be voters.
    wanted: usize,
    is_wiped: bool,
    answered_reads: u64,
    trace: u32,
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let random = Random::from_seed(seed);
        let settings = Settings {
            snapshot_after_bytes: 1000 + random.below(8000),
            tail_bytes_max: random.below(1500) as usize,
            message_bytes_max: 100 + random.below(400),
            messages_in_flight_max: 1 + random.below(8) as usize,
            uncommitted_bytes_max: 1000,
            caught_up_entries: 20,
            hash_every: 1 + random.below(20),
            snapshot_wait: std::time::Duration::from_secs(3),
            ..Settings::default()
        };
        let loss = random.below(10);
        let faults = 200 << random.below(5);
        let mut sim = Sim {
            seed,
            random,
            now: 0,
            nodes: Vec::new(),
            messages: BTreeMap::new(),
            order: 0,
            blocked: HashSet::new(),
            loss,
            faults,
            has_faults: true,
            settings,
            permits: Arc::new(Semaphore::new(1 << 20)),
            next_entry: 1,
            pending: Vec::new(),
            reads: Vec::new(),
            history: BTreeMap::new(),
            acked: BTreeMap::new(),
            refused: BTreeSet::new(),
            acked_upto: 0,
            change: None,
            wanted: 1,
            is_wiped: false,
            answered_reads: 0,
            trace: 0,
        };
        for i in 0..5 {
            let node = sim.begin(i == 0);
            sim.nodes.push(node);
        }
        sim
    }

    /// A node with an empty disk begins.
    fn begin(&mut self, bootstrap: bool) -> Node {
        let disk = Disk::default();
        let mut state = State::default();
        if bootstrap {
            (MACHINE.advance)(&mut state, 1);
        }
        folder::begin(&disk, Path::new(FOLDER), &self.random, &(MACHINE.snapshot)(&state), bootstrap).unwrap();
        Node {
            disk,
            replica: None,
            id: 0,
            outbox: Outbox::default(),
            is_armed: false,
            starts_at: self.now,
            next_tick: 0,
            tick_steps: TICK_STEPS,
            checked: 0,
        }
    }

    fn start(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        let registry = Registry::new();
        let parts = Parts {
            files: Arc::new(node.disk.clone()),
            clock: Arc::new(ManualClock::new(0)),
            random: Random::from_seed(1),
            transport: Arc::new(node.outbox.clone()),
            registry: registry.clone(),
            metrics: Default::default(),
            fatal: Arc::new(|reason| panic!("{reason}")),
        };
        let metrics = Metrics::new(&registry, self.settings.queue_entries_max);
        match open_replica(Path::new(FOLDER), MACHINE, self.settings, parts, metrics) {
            Ok((replica, identity)) => {
                assert!(node.id == 0 || node.id == identity.id);
                node.id = identity.id;
                node.replica = Some(replica);
                node.checked = 0;
                node.next_tick = self.now + self.random.below(TICK_STEPS);
                self.after_turn(i);
            }
            // A log after a snapshot that was being installed needs a little space.
            Err(error) if node.is_armed || node.disk.is_full() => {
                tracing::debug!(%error, "died while it started");
                node.disk.set_full(false);
                self.crash(i);
            }
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    fn crash(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.replica = None;
        node.is_armed = false;
        if self.random.below(2) == 0 {
            node.disk.process_dies()
        } else {
            node.disk.power_loss(&self.random)
        }
        node.starts_at = self.now + self.random.below(if self.has_faults { 1500 } else { 20 });
    }

    fn turn(&mut self, i: usize, inputs: Vec<Input<u64, u64>>, ticks: u64) {
        let node = &mut self.nodes[i];
        let Some(replica) = &mut node.replica else { return };
        let turned = replica.turn(inputs, ticks);
        match turned {
            Ok(()) => self.after_turn(i),
            Err(stop) if node.is_armed => {
                tracing::debug!(?stop, "died");
                // What it answered and sent before is out.
                self.after_turn(i);
                self.crash(i);
            }
            Err(stop) => panic!("seed {}: node {i}: {stop:?}", self.seed),
        }
    }

    fn after_turn(&mut self, i: usize) {
        self.deliver_outbox(i);
        let node = &mut self.nodes[i];
        let shared = node.replica.as_ref().unwrap().shared();
        let state = shared.state.read();
        for (position, entry) in state.entries.iter().skip(node.checked) {
            let same = *self.history.entry(*position).or_insert(*entry);
            assert_eq!(same, *entry, "seed {}: node {i} differs at {position}", self.seed);
            assert!(!self.refused.contains(entry), "seed {}: {entry} was surely refused", self.seed);
            assert!(*entry < self.next_entry);
        }
        node.checked = state.entries.len();
    }

    fn deliver_outbox(&mut self, i: usize) {
        let from = self.nodes[i].id;
        for (to, bytes) in std::mem::take(&mut *self.nodes[i].outbox.0.lock()) {
            let copies = match self.random.below(100) {
                _ if self.blocked.contains(&(from, to)) => 0,
                _ if !self.has_faults => 1,
                x if x < self.loss => 0,
                x if x < self.loss + 3 => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let late = if self.random.below(20) == 0 { 60 } else { 4 };
                self.order += 1;
                let at = self.now + 1 + self.random.below(late);
                self.messages.insert((at, self.order), Message { from, to, bytes: bytes.clone() });
            }
        }
    }

    fn step(&mut self) {
        self.now += 1;
        let later = self.messages.split_off(&(self.now + 1, 0));
        let due = std::mem::replace(&mut self.messages, later);
        let mut inputs: BTreeMap<usize, Vec<Input<u64, u64>>> = BTreeMap::new();
        for message in due.into_values() {
            self.trace = crc32c::crc32c_append(self.trace, &message.bytes);
            let Some(i) = self.nodes.iter().position(|node| node.id == message.to) else { continue };
            inputs.entry(i).or_default().push(Input::Message { from: message.from, bytes: message.bytes });
        }
        for i in 0..self.nodes.len() {
            if self.nodes[i].replica.is_none() {
                if self.nodes[i].starts_at <= self.now {
                    self.start(i);
                }
                continue;
            }
            let mut ticks = 0;
            if self.nodes[i].next_tick <= self.now {
                ticks = 1;
                // A clock may go slowly for a while: no answer may lean on it.
                if !self.has_faults {
                    self.nodes[i].tick_steps = TICK_STEPS;
                } else if self.random.below(30) == 0 {
                    self.nodes[i].tick_steps = TICK_STEPS << self.random.below(4);
                }
                self.nodes[i].next_tick = self.now + self.nodes[i].tick_steps;
            }
            let inputs = inputs.remove(&i).unwrap_or_default();
            if ticks > 0 || !inputs.is_empty() {
                self.turn(i, inputs, ticks);
            }
        }
        self.collect();
        if self.has_faults {
            self.break_something();
        }
        if self.now.is_multiple_of(17) {
            self.operate();
        }
        self.judge();
    }

    /// A client proposes or reads somewhere.
    fn ask(&mut self) {
        let i = self.anybody();
        if self.nodes[i].replica.is_none() {
            return;
        }
        let mut inputs = Vec::new();
        for _ in 0..self.random.below(4) {
            let (answer, answered) = oneshot::channel();
            if self.random.below(3) == 0 {
                self.reads.push(PendingRead { at_least: self.acked_upto, answered });
                inputs.push(Input::Read(answer));
            } else {
                let entry = self.next_entry;
                self.next_entry += 1;
                let permit = self.permits.clone().try_acquire_owned().unwrap();
                self.pending.push(Pending { entry, answered });
                inputs.push(Input::Propose { entry, payload: (MACHINE.encode)(&entry), answer, permit });
            }
        }
        self.turn(i, inputs, 0);
    }

    /// Some node; oftener one that believes to lead, of which there may be several.
    fn anybody(&mut self) -> usize {
        let leads =
            |node: &Node| node.replica.as_ref().is_some_and(|replica| replica.shared().members.borrow().is_leader);
        let leaders: Vec<usize> = (0..5).filter(|i| leads(&self.nodes[*i])).collect();
        match leaders.get(self.random.below(2 * leaders.len() as u64) as usize) {
            Some(i) => *i,
            None => self.random.below(5) as usize,
        }
    }

    fn collect(&mut self) {
        let seed = self.seed;
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain_mut(|pending| match pending.answered.try_recv() {
            Ok(Ok(position)) => {
                assert_eq!(self.history.get(&position), Some(&pending.entry), "seed {seed}");
                self.acked.insert(position, pending.entry);
                self.acked_upto = self.acked_upto.max(position);
                false
            }
            Ok(Err(error)) => {
                if error.is_certain() {
                    self.refused.insert(pending.entry);
                }
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
        self.pending = pending;
        let mut answered = 0;
        self.reads.retain_mut(|read| match read.answered.try_recv() {
            Ok(Ok(position)) => {
                assert!(position >= read.at_least, "seed {seed}: a read at {position} of {}", read.at_least);
                answered += 1;
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            _ => false,
        });
        self.answered_reads += answered;
    }

    fn break_something(&mut self) {
        let ids: Vec<u64> = self.nodes.iter().map(|node| node.id).collect();
        let i = self.random.below(5) as usize;
        if self.random.below(200) == 0 {
            self.blocked.clear();
        }
        if self.random.below(80) == 0 {
            self.nodes[i].disk.set_full(false);
        }
        if self.random.below(50) == 0 {
            self.wipe(i);
        }
        match self.random.below(self.faults) {
            0 if self.nodes[i].replica.is_some() => self.crash(i),
            1 if !self.nodes[i].is_armed => {
                self.nodes[i].disk.die_after(self.random.below(30));
                self.nodes[i].is_armed = true;
            }
            2 => {
                // One node apart, in one direction or both.
                let i = self.anybody();
                let direction = self.random.below(3);
                for other in ids.iter().filter(|id| **id != ids[i]) {
                    if direction != 1 {
                        self.blocked.insert((ids[i], *other));
                    }
                    if direction != 0 {
                        self.blocked.insert((*other, ids[i]));
                    }
                }
            }
            3 => {
                let other = self.random.below(5) as usize;
                self.blocked.insert((ids[i], ids[other]));
            }
            4 => self.nodes[i].disk.set_full(true),
            5 => {
                let other = self.random.below(5) as usize;
                self.turn(i, vec![Input::Unreachable(ids[other])], 0);
            }
            6 => {
                let (answer, _) = oneshot::channel();
                let other = self.random.below(5) as usize;
                self.turn(i, vec![Input::Transfer(ids[other], answer)], 0);
            }
            7 => {
                let (done, _) = oneshot::channel();
                self.turn(i, vec![Input::Close(done)], 0);
                // The disk of a closed one is as safe as of any other.
                for _ in 0..20 {
                    self.turn(i, Vec::new(), 1);
                }
                if self.nodes[i].replica.is_some() {
                    self.crash(i);
                }
            }
            _ => (),
        }
    }

    /// A replica's disk is emptied, once the last one that was has been replaced, and only while the group is what it
    /// should be: what it held must be elsewhere.
    fn wipe(&mut self, i: usize) {
        let Some((_, members)) = self.leader() else { return };
        let voters = &members.voters;
        let is_settled = voters.len() == self.wanted && members.joint.is_none() && self.change.is_none();
        if self.is_wiped || !is_settled || voters.len() < 3 || !voters.contains(&self.nodes[i].id) {
            return;
        }
        self.is_wiped = true;
        let id = self.nodes[i].id;
        self.nodes[i] = self.begin(false);
        tracing::debug!(node = i, id, "wiped");
    }

    /// Who leads with the highest term, and its members.
    fn leader(&self) -> Option<(usize, Members)> {
        let leaders = self.nodes.iter().enumerate().filter_map(|(i, node)| {
            let members = node.replica.as_ref()?.shared().members.borrow().clone();
            members.is_leader.then_some((i, members))
        });
        leaders.max_by_key(|(_, members)| members.term)
    }

    /// Leads the group to what it should be, one change after another, as the cluster's leader would.
    fn operate(&mut self) {
        if let Some(change) = &mut self.change {
            if matches!(change.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return;
            }
            self.change = None;
        }
        let Some((leader, members)) = self.leader() else { return };
        let wanted: Vec<u64> = self.nodes[..self.wanted].iter().map(|node| node.id).filter(|id| *id != 0).collect();
        let known: Vec<u64> = members.voters.iter().chain(&members.learners).copied().collect();
        let missing = wanted.iter().copied().find(|id| !known.contains(id));
        let learner = members.learners.iter().copied().find(|id| wanted.contains(id));
        let extra = known.iter().copied().find(|id| !wanted.contains(id));
        let extra_voter =
            members.voters.iter().copied().find(|id| !wanted.contains(id) && *id != self.nodes[leader].id);
        if members.joint.is_none() && missing.is_none() && learner.is_none() && extra.is_none() {
            self.is_wiped = false;
            return;
        }
        let (answer, answered) = oneshot::channel();
        let input = match (missing, learner, extra) {
            (Some(id), ..) => Input::Change(Change::AddLearner(id), answer),
            (_, Some(new), _) => match extra_voter {
                Some(old) => Input::Change(Change::Replace { old, new }, answer),
                None => Input::Change(Change::Promote(new), answer),
            },
            (.., Some(old)) if old == self.nodes[leader].id => Input::Transfer(wanted[0], answer),
            (.., Some(old)) if self.random.below(4) == 0 && members.voters.contains(&old) => {
                Input::Change(Change::Demote(old), answer)
            }
            (.., Some(old)) => Input::Change(Change::Remove(old), answer),
            _ => return,
        };
        self.change = Some(answered);
        self.turn(leader, vec![input], 0);
    }

    /// Nobody who did nothing wrong is taken for an old copy of itself.
    fn judge(&mut self) {
        let (a, b) = (self.random.below(5) as usize, self.random.below(5) as usize);
        if let (Some(a), Some(b)) = (&self.nodes[a].replica, &self.nodes[b].replica) {
            let standing = *b.shared().standing.lock();
            let mut seen = a.shared().seen.lock();
            let now = seen.clone();
            let judged = seen.judge(&standing, &now);
            assert_eq!(judged, Ok(()), "seed {}", self.seed);
        }
    }

    fn run(seed: u64) -> (u32, usize) {
        let mut sim = Sim::new(seed);
        for wanted in [1, 3, 5, 3] {
            sim.wanted = wanted;
            for _ in 0..700 {
                sim.step();
                if sim.random.below(4) == 0 {
                    sim.ask();
                }
            }
        }
        sim.heal();
        (sim.trace, sim.acked.len())
    }

    /// Without faults, everything that was lost, late or half done must come right.
    fn heal(&mut self) {
        self.has_faults = false;
        self.blocked.clear();
        for node in &mut self.nodes {
            node.disk.set_full(false);
            if node.is_armed {
                node.disk.process_dies();
                node.is_armed = false;
            }
            node.starts_at = node.starts_at.min(self.now + 20);
        }
        let before = self.acked.len();
        let reads_before = self.answered_reads;
        let is_done = |sim: &Sim| {
            let Some((_, members)) = sim.leader() else { return false };
            let mut wanted: Vec<u64> = sim.nodes[..sim.wanted].iter().map(|node| node.id).collect();
            wanted.sort_unstable();
            let states: BTreeSet<u64> = sim.nodes[..sim.wanted]
                .iter()
                .map(|node| node.replica.as_ref().map_or(0, |replica| replica.applied()))
                .collect();
            members.voters == wanted && members.learners.is_empty() && members.joint.is_none() && states.len() == 1
        };
        let mut steps = 0;
        loop {
            self.step();
            steps += 1;
            let asks = self.acked.len() < before + 10 || self.answered_reads < reads_before + 3;
            if asks && steps % 20 == 0 {
                self.ask();
            }
            if !asks && self.pending.is_empty() && is_done(self) {
                break;
            }
            if steps > 20_000 {
                let members: Vec<_> = self
                    .nodes
                    .iter()
                    .map(|node| {
                        node.replica
                            .as_ref()
                            .map(|replica| (replica.applied(), node.id, replica.shared().members.borrow().clone()))
                    })
                    .collect();
                panic!(
                    "seed {}: no progress: {:?}, acked {} of {before}, {members:#?}",
                    self.seed,
                    self.change,
                    self.acked.len()
                );
            }
        }
        let mut hashes = BTreeSet::new();
        for node in &self.nodes[..self.wanted] {
            let state = node.replica.as_ref().unwrap().shared().state.read();
            hashes.insert((MACHINE.hash)(&state));
            for (position, entry) in &state.entries {
                assert_eq!(self.history.get(position), Some(entry), "seed {}", self.seed);
            }
            let there: BTreeSet<(u64, u64)> = state.entries.iter().copied().collect();
            for (position, entry) in &self.acked {
                assert!(there.contains(&(*position, *entry)), "seed {}: {entry} was lost", self.seed);
            }
        }
        assert_eq!(hashes.len(), 1, "seed {}", self.seed);
    }
}

#[test]
fn groups_keep_what_they_answered_through_anything() {
    let (from, upto) = match std::env::var("CONSENSUS_SEEDS") {
        Ok(seeds) => {
            let (from, upto) = seeds.split_once("..").unwrap();
            (from.parse().unwrap(), upto.parse().unwrap())
        }
        Err(_) => (0, 200),
    };
    let mut acked = 0;
    for seed in from..upto {
        acked += Sim::run(seed).1;
    }
    assert!(acked as u64 > (upto - from) * 50, "{acked}: most of it should work");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 77] {
        assert_eq!(Sim::run(seed), Sim::run(seed));
    }
}
