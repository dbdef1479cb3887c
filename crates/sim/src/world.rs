//! The world: virtual time, the replicated log, the network, who is alive, and what goes wrong.
//!
//! The log is an oracle: one committed sequence, as raft would agree on it. Around it everything may go wrong that raft allows:
//! a proposal is lost, arrives twice or seconds late, its answer is lost; replicas apply with a lag of their own; a leader
//! is deposed without knowing it; for a time there is none.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

use index::{Applied, BlockId, BlockMeta, Command, Entry, Index, Refused};
use model::{Incarnation, Lease, NodeId, Right};
use runtime::Random;

use crate::ledger::{Ledger, Sample, group_of};
use crate::plant::Plant;
use crate::process::{Process, Stimulus};
use crate::rates::{MS, Rates, SECOND};
use crate::store::{Request, Store};

pub(crate) const CLUSTER: u128 = 7;
/// Replicas are rebuilt from snapshots this far apart.
const SNAPSHOT_EVERY: usize = 64;
/// How often a process looks at the time.
const WAKE_EVERY: u64 = 50 * MS;
/// How often it is looked at who leads.
const RAFT_TICK: u64 = 100 * MS;
/// A client that has no answer tries again.
const CLIENT_TIMEOUT: u64 = 4 * SECOND;
/// Tries of a client while there are faults.
const CLIENT_TRIES_MAX: u32 = 5;
/// After the faults everything settles within this time.
const SETTLE_MAX: u64 = 240 * SECOND;

/// Which proposal of which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    pub slot: usize,
    pub life: u64,
    pub token: u64,
}

pub(crate) type Outcome = Result<Applied, Refused>;

#[derive(Debug)]
pub(crate) struct Log {
    pub incarnation: Incarnation,
    pub entries: Vec<(Option<Tag>, Entry, Outcome)>,
    snapshots: Vec<Index>,
    /// After the last entry.
    pub truth: Index,
    pub leader: Option<usize>,
    pub term: u64,
}

impl Log {
    pub(crate) fn begin(index: Index, term: u64) -> Log {
        Log {
            incarnation: index.incarnation(),
            entries: Vec::new(),
            snapshots: vec![index.clone()],
            truth: index,
            leader: None,
            term,
        }
    }

    /// The state after so many entries.
    pub(crate) fn state_at(&self, count: usize) -> Index {
        let from = (count / SNAPSHOT_EVERY).min(self.snapshots.len() - 1);
        let mut index = self.snapshots[from].clone();
        for at in from * SNAPSHOT_EVERY..count {
            // Refused entries are refused again.
            let _same = index.apply(at as u64 + 1, &self.entries[at].1);
        }
        index
    }

    fn push(&mut self, tag: Option<Tag>, entry: Entry) -> Outcome {
        let outcome = self.truth.apply(self.entries.len() as u64 + 1, &entry);
        self.entries.push((tag, entry, outcome.clone()));
        if self.entries.len().is_multiple_of(SNAPSHOT_EVERY) {
            self.snapshots.push(self.truth.clone());
        }
        outcome
    }
}

/// A machine with its disk; a process may run on it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub node: NodeId,
    pub life: u64,
    pub process: Option<Process>,
    /// Entries on its disk that are known to be committed.
    disk: usize,
    pub is_paused: bool,
    inbox: Vec<Stimulus>,
    pub is_cut_from_store: bool,
    clock_offset: u64,
    drift_ppm: u64,
}

#[derive(Debug)]
pub(crate) struct ClientRequest {
    pub samples: Vec<u32>,
    pub answered: bool,
    tries: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Process { slot: usize, life: u64, what: Stimulus },
    Store { slot: usize, life: u64, token: u64, request: Request, answers: bool },
    Proposal { tag: Tag, entry: Entry, is_late: bool },
    RaftTick,
    Write,
    ClientSends { request: u64 },
    ClientAnswered { request: u64 },
    Ask,
    AskDelete,
    Kill,
    Start { slot: usize, life: u64 },
    Pause,
    Resume { slot: usize, life: u64 },
    Partition,
    Mend { from: usize, to: usize },
    CutFromStore,
    MendStore { slot: usize },
    StoreOut,
    StoreBack,
    ChangeLeader,
    Leaderless,
    Disaster,
    Recover,
    Heal,
    CheckSettled,
    LastCheck,
}

/// How a seed ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// Of everything that happened, in order: equal for equal seeds.
    pub trace_hash: u64,
    /// How much happened.
    pub events: u64,
    /// Entries committed, queries answered and checked, samples acked.
    pub counts: [u64; 3],
    /// What broke, if something did.
    pub failure: Option<String>,
}

pub(crate) struct World {
    pub random: Random,
    pub rates: Rates,
    pub plant: Option<Plant>,
    prints: bool,
    pub now: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    /// Events so far: the time that "before" is judged by.
    pub tick: u64,
    queued: u64,
    trace_hash: u64,
    pub failure: Option<String>,
    is_over: bool,

    pub log: Log,
    pub store: Store,
    pub slots: Vec<Slot>,
    broken_links: BTreeSet<(usize, usize)>,
    leader_lost_at: Option<u64>,
    leaderless_until: u64,
    next_node: u64,

    pub ledger: Ledger,
    pub requests: BTreeMap<u64, ClientRequest>,
    next_request: u64,
    pub is_healed: bool,
    is_down: bool,
    pub queries_open: u64,
    pub queries_checked: u64,
    settled_since: Option<u64>,
}

#[derive(Debug)]
struct Queued {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Queued) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Queued) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Plant>, prints: bool) -> World {
        let random = Random::from_seed(seed);
        let rates = Rates::draw(&random);
        let slots = (0..rates.nodes).map(|slot| Slot {
            node: NodeId(slot as u64 + 1),
            life: 0,
            process: None,
            disk: 0,
            is_paused: false,
            inbox: Vec::new(),
            is_cut_from_store: false,
            clock_offset: random.below(1000 * SECOND),
            drift_ppm: if rates.drift_ppm > 0 { random.below(rates.drift_ppm) } else { 0 },
        });
        let slots: Vec<Slot> = slots.collect();
        let mut world = World {
            next_node: slots.len() as u64 + 1,
            slots,
            random,
            rates,
            plant,
            prints,
            now: 0,
            queue: BinaryHeap::new(),
            tick: 0,
            queued: 0,
            trace_hash: seed,
            failure: None,
            is_over: false,
            log: Log::begin(Index::new(CLUSTER, 1), 0),
            store: Store::new(1),
            broken_links: BTreeSet::new(),
            leader_lost_at: Some(0),
            leaderless_until: 0,
            ledger: Ledger::default(),
            requests: BTreeMap::new(),
            next_request: 0,
            is_healed: false,
            is_down: false,
            queries_open: 0,
            queries_checked: 0,
            settled_since: None,
        };
        let text = format!("{:?}", world.rates);
        world.note(1, || text);
        world
    }

    pub(crate) fn run(mut self) -> Report {
        let rates = self.rates.clone();
        for slot in 0..rates.nodes {
            self.start(slot);
        }
        self.at(0, Event::RaftTick);
        let faults = [
            (rates.write_every, Event::Write),
            (rates.query_every, Event::Ask),
            (rates.delete_every, Event::AskDelete),
            (rates.kill_every, Event::Kill),
            (rates.pause_every, Event::Pause),
            (rates.partition_every, Event::Partition),
            (rates.store_cut_every, Event::CutFromStore),
            (rates.store_outage_every, Event::StoreOut),
            (rates.leader_change_every, Event::ChangeLeader),
            (rates.leaderless_every, Event::Leaderless),
        ];
        for (every, event) in faults {
            self.again(every, event);
        }
        if rates.disaster_at > 0 {
            self.at(rates.disaster_at, Event::Disaster);
        }
        self.at(rates.faults_end, Event::Heal);
        while let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() {
            self.now = at;
            self.tick += 1;
            self.on_event(event);
            if self.failure.is_some() || self.is_over {
                break;
            }
        }
        let acked = self.ledger.samples.iter().filter(|sample| sample.acked.is_some()).count() as u64;
        Report {
            trace_hash: self.trace_hash,
            events: self.tick,
            counts: [self.log.entries.len() as u64, self.queries_checked, acked],
            failure: self.failure,
        }
    }

    // ---- time, chance, trace ---------------------------------------------------------------

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse(Queued { at, number: self.queued, event }));
    }

    /// Queues the next of something that happens every so often.
    fn again(&mut self, every: u64, event: Event) {
        if every > 0 {
            let at = self.now + every / 4 + self.random.below(every * 3 / 2);
            self.at(at, event);
        }
    }

    pub(crate) fn chance(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.random.below(1000) < per_mille
    }

    /// Notes what happens: always in the hash, and in words if somebody looks.
    pub(crate) fn note(&mut self, word: u64, text: impl FnOnce() -> String) {
        let mixed = (self.trace_hash ^ word ^ self.now.rotate_left(20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.trace_hash = mixed ^ (mixed >> 29);
        if self.prints {
            self.print(&text());
        }
    }

    #[allow(clippy::print_stdout, reason = "a trace is asked for on the command line")]
    fn print(&self, text: &str) {
        println!("{:>10.3} {text}", self.now as f64 / 1e6);
    }

    pub(crate) fn fail(&mut self, text: String) {
        self.note(2, || format!("FAILED: {text}"));
        self.failure.get_or_insert(format!("at {:.3} s: {text}", self.now as f64 / 1e6));
    }

    /// The boot clock of a machine.
    pub(crate) fn clock(&self, slot: usize) -> Duration {
        let slot = &self.slots[slot];
        Duration::from_micros(slot.clock_offset + self.now + self.now / 1000 * slot.drift_ppm / 1000)
    }

    /// The process of a slot, which must run.
    pub(crate) fn process(&mut self, slot: usize) -> &mut Process {
        self.slots[slot].process.as_mut().expect("the process runs")
    }

    pub(crate) fn runs(&self, slot: usize) -> bool {
        self.slots[slot].process.is_some()
    }

    // ---- messages --------------------------------------------------------------------------

    pub(crate) fn is_linked(&self, from: usize, to: usize) -> bool {
        from == to || !self.broken_links.contains(&(from, to))
    }

    /// Sends a message from process to process: it may be lost, doubled, late and out of order.
    pub(crate) fn message(&mut self, from: usize, to: usize, what: Stimulus) {
        if !self.is_linked(from, to) || (from != to && self.chance(self.rates.net_loss)) {
            return;
        }
        let copies = 1 + u64::from(from != to && self.chance(self.rates.net_duplicate));
        for _ in 0..copies {
            let at = self.now + MS / 2 + self.random.below(self.rates.net_delay);
            let life = self.slots[to].life;
            self.at(at, Event::Process { slot: to, life, what: what.clone() });
        }
    }

    // ---- the log ---------------------------------------------------------------------------

    pub(crate) fn propose_entry(&mut self, tag: Tag, entry: Entry) {
        let rates = self.rates.clone();
        if self.chance(rates.proposal_loss) {
            return;
        }
        let delay = MS / 2 + self.random.below(rates.net_delay);
        let is_late = self.chance(rates.proposal_late);
        if self.chance(rates.proposal_duplicate) {
            let at = self.now + delay + self.random.below(2 * SECOND);
            self.at(at, Event::Proposal { tag, entry: entry.clone(), is_late: false });
        }
        let delay = if is_late { self.random.below(20 * SECOND) } else { delay };
        self.at(self.now + delay, Event::Proposal { tag, entry, is_late });
    }

    fn on_proposal(&mut self, tag: Tag, entry: Entry, is_late: bool) {
        let Some(leader) = self.log.leader else { return };
        if self.is_down || !(is_late || self.is_linked(tag.slot, leader)) {
            return;
        }
        self.commit(tag, entry);
    }

    fn commit(&mut self, tag: Tag, entry: Entry) {
        if self.plant == Some(Plant::StaleReplace)
            && let Command::Replace { lease, old, block } = &entry.command
            && entry.incarnation == self.log.incarnation
        {
            return self.commit_stale(tag, *lease, old.clone(), *block);
        }
        self.push(Some(tag), entry);
    }

    fn push(&mut self, tag: Option<Tag>, entry: Entry) {
        let command = entry.command.clone();
        let outcome = self.log.push(tag, entry);
        let at = self.log.truth.revision();
        let word = at.position << 8 | u64::from(outcome.is_ok());
        self.note(word, || format!("log {at}: {command:?} by {tag:?}: {outcome:?}"));
        match (&outcome, &command) {
            (Ok(Applied::Added { writer, n }), _) => self.ledger.added(*writer, *n, at),
            (Ok(Applied::Deleted { at }), Command::Delete(delete)) => {
                let group = group_of(delete);
                let unknown =
                    |state: &&mut crate::ledger::DeleteState| state.group == group && state.revision.is_none();
                if let Some(state) = self.ledger.deletes.iter_mut().find(unknown) {
                    state.revision = Some(*at);
                }
            }
            _ => {}
        }
        let Some(leader) = self.log.leader else { return };
        for slot in 0..self.slots.len() {
            self.tell_committed(leader, slot);
        }
    }

    /// The planted bug: whatever number it stands on, a Replace of blocks that are there is accepted.
    fn commit_stale(&mut self, tag: Tag, lease: Lease, old: Vec<BlockId>, block: BlockMeta) {
        let incarnation = self.log.incarnation;
        let compact = self.log.truth.compact_lease();
        if lease == (Lease { incarnation, number: compact.number }) && !compact.is_spent {
            return self.push(Some(tag), Entry { incarnation, command: Command::Replace { lease, old, block } });
        }
        let next = Lease { incarnation, number: compact.number + 1 };
        let command = Command::GrantCompact { node: NodeId(u64::MAX), number: next.number };
        self.push(None, Entry { incarnation, command });
        let named = BlockMeta { id: BlockId { right: Right::Compactor(next), ..block.id }, ..block };
        self.store.alias.insert(named.id.key(), block.id.key());
        self.push(Some(tag), Entry { incarnation, command: Command::Replace { lease: next, old, block: named } });
    }

    fn tell_committed(&mut self, leader: usize, slot: usize) {
        if self.runs(slot) && self.is_linked(leader, slot) {
            let lag = if slot == leader { MS } else { self.rates.apply_lag };
            let at = self.now + MS / 2 + self.random.below(lag);
            let (count, life) = (self.log.entries.len(), self.slots[slot].life);
            self.at(at, Event::Process { slot, life, what: Stimulus::Committed(count) });
        }
    }

    fn is_alive(&self, slot: usize) -> bool {
        self.runs(slot) && !self.slots[slot].is_paused
    }

    fn has_quorum(&self, leader: usize) -> bool {
        let hears =
            |slot: &usize| self.is_alive(*slot) && self.is_linked(leader, *slot) && self.is_linked(*slot, leader);
        self.is_alive(leader) && (0..self.slots.len()).filter(hears).count() * 2 > self.slots.len()
    }

    fn on_raft_tick(&mut self) {
        self.at(self.now + RAFT_TICK, Event::RaftTick);
        match self.log.leader {
            Some(leader) if self.has_quorum(leader) && self.now >= self.leaderless_until => {
                for slot in 0..self.slots.len() {
                    self.tell_committed(leader, slot);
                }
            }
            Some(leader) => self.depose(leader),
            None => {
                let since = self.leader_lost_at.unwrap_or(self.now);
                let may = self.now >= self.leaderless_until && self.now >= since + 300 * MS;
                let candidates: Vec<usize> = (0..self.slots.len()).filter(|slot| self.has_quorum(*slot)).collect();
                if may && !candidates.is_empty() && self.random.below(4) == 0 {
                    let leader = candidates[self.random.below(candidates.len() as u64) as usize];
                    self.log.leader = Some(leader);
                    self.log.term += 1;
                    let (term, life) = (self.log.term, self.slots[leader].life);
                    self.note(5, || format!("raft: {leader} leads in term {term}"));
                    self.at(self.now, Event::Process { slot: leader, life, what: Stimulus::Leads(Some(term)) });
                }
            }
        }
    }

    /// The leader is none any more; it learns that later, if it runs at all.
    fn depose(&mut self, leader: usize) {
        self.note(6, || format!("raft: {leader} leads no more"));
        self.log.leader = None;
        self.leader_lost_at = Some(self.now);
        let at = self.now + self.random.below(2 * SECOND);
        let life = self.slots[leader].life;
        self.at(at, Event::Process { slot: leader, life, what: Stimulus::Leads(None) });
    }

    // ---- what happens ----------------------------------------------------------------------

    fn on_event(&mut self, event: Event) {
        let rates = self.rates.clone();
        match event {
            Event::Process { slot, life, what } => {
                if self.slots[slot].life != life || !self.runs(slot) {
                    return;
                }
                if self.slots[slot].is_paused {
                    self.slots[slot].inbox.push(what);
                } else {
                    self.on_stimulus(slot, what);
                }
            }
            Event::Store { slot, life, token, request, answers } => self.on_store(slot, life, token, request, answers),
            Event::Proposal { tag, entry, is_late } => self.on_proposal(tag, entry, is_late),
            Event::RaftTick => self.on_raft_tick(),
            Event::Write if self.now < rates.faults_end + 5 * SECOND => {
                self.again(rates.write_every, Event::Write);
                self.write();
            }
            Event::ClientSends { request } => self.client_sends(request),
            Event::ClientAnswered { request } => {
                if let Some(request) = self.requests.get_mut(&request) {
                    request.answered = true;
                }
            }
            Event::Ask => {
                if self.settled_since.is_none() {
                    self.again(rates.query_every, Event::Ask);
                }
                let slot = self.any_slot();
                if self.is_alive(slot) {
                    self.ask(slot);
                }
            }
            Event::AskDelete if !self.is_healed => {
                self.again(rates.delete_every, Event::AskDelete);
                let slot = self.any_slot();
                if self.is_alive(slot) {
                    self.ask_delete(slot);
                }
            }
            Event::LastCheck => self.last_check(),
            Event::CheckSettled => self.check_settled(),
            fault if !self.is_healed => self.on_fault(fault),
            // What was under way when the faults stopped.
            Event::Start { slot, life } if self.slots[slot].life == life && !self.runs(slot) && !self.is_down => {
                self.start(slot);
            }
            Event::Resume { slot, life } if self.slots[slot].life == life => self.resume(slot),
            Event::Recover => self.recover(),
            _ => {}
        }
    }

    fn on_fault(&mut self, event: Event) {
        let rates = self.rates.clone();
        let victim = self.any_slot();
        let (life, lasts) = (self.slots[victim].life, 200 * MS + self.random.below(8 * SECOND));
        match event {
            Event::Kill => {
                self.again(rates.kill_every, Event::Kill);
                if self.runs(victim) {
                    let wipes = self.chance(rates.wipe) && self.can_wipe(victim);
                    self.kill(victim, wipes);
                    let life = self.slots[victim].life;
                    self.at(self.now + lasts, Event::Start { slot: victim, life });
                }
            }
            Event::Start { slot, life } if self.slots[slot].life == life && !self.runs(slot) && !self.is_down => {
                self.start(slot);
            }
            Event::Pause => {
                self.again(rates.pause_every, Event::Pause);
                if self.is_alive(victim) {
                    self.note(7, || format!("{victim} is paused"));
                    self.slots[victim].is_paused = true;
                    self.at(self.now + lasts, Event::Resume { slot: victim, life });
                }
            }
            Event::Resume { slot, life } if self.slots[slot].life == life => self.resume(slot),
            Event::Partition => {
                self.again(rates.partition_every, Event::Partition);
                // From one node, or from all: then it is alone.
                let other = self.any_slot();
                let all = self.random.below(2) == 0;
                let one_way = self.chance(rates.one_way);
                let inward = self.random.below(2) == 0;
                for to in (0..self.slots.len()).filter(|to| *to != victim && (all || *to == other)) {
                    for (from, to) in [(victim, to), (to, victim)] {
                        if one_way && (from == victim) == inward {
                            continue;
                        }
                        self.note(8, || format!("{from} can't reach {to}"));
                        self.broken_links.insert((from, to));
                        self.at(self.now + lasts, Event::Mend { from, to });
                    }
                }
            }
            Event::Mend { from, to } => {
                self.broken_links.remove(&(from, to));
            }
            Event::CutFromStore => {
                self.again(rates.store_cut_every, Event::CutFromStore);
                self.note(9, || format!("{victim} can't reach the store"));
                self.slots[victim].is_cut_from_store = true;
                self.at(self.now + lasts, Event::MendStore { slot: victim });
            }
            Event::MendStore { slot } => self.slots[slot].is_cut_from_store = false,
            Event::StoreOut => {
                self.again(rates.store_outage_every, Event::StoreOut);
                self.note(10, || "the store is away".to_owned());
                self.store.is_out = true;
                self.at(self.now + lasts, Event::StoreBack);
            }
            Event::StoreBack => self.store.is_out = false,
            Event::ChangeLeader => {
                self.again(rates.leader_change_every, Event::ChangeLeader);
                if let Some(leader) = self.log.leader {
                    self.depose(leader);
                }
            }
            Event::Leaderless => {
                self.again(rates.leaderless_every, Event::Leaderless);
                self.leaderless_until = self.now + lasts;
            }
            Event::Disaster => self.disaster(),
            Event::Recover => self.recover(),
            Event::Heal => self.heal(),
            _ => {}
        }
    }

    pub(crate) fn any_slot(&self) -> usize {
        self.random.below(self.slots.len() as u64) as usize
    }

    // ---- life and death --------------------------------------------------------------------

    /// A wiped disk must leave a majority with what was committed; here: everybody else lives.
    fn can_wipe(&self, victim: usize) -> bool {
        (0..self.slots.len()).filter(|slot| *slot != victim).all(|slot| self.runs(slot)) && self.slots.len() > 2
    }

    pub(crate) fn kill(&mut self, slot: usize, wipes: bool) {
        self.note(11, || format!("{slot} is killed{}", if wipes { ", its disk is lost" } else { "" }));
        let next_node = self.next_node;
        let it = &mut self.slots[slot];
        if let Some(process) = it.process.take() {
            it.disk = process.applied;
            self.queries_open -= process.queries.len() as u64;
        }
        it.life += 1;
        it.is_paused = false;
        it.inbox.clear();
        if wipes {
            it.node = NodeId(next_node);
            it.disk = 0;
            self.next_node += 1;
        }
        if self.log.leader == Some(slot) {
            self.depose(slot);
        }
    }

    pub(crate) fn start(&mut self, slot: usize) {
        // Of what is on the disk, the end may not be known to be committed yet.
        let count = self.slots[slot].disk.saturating_sub(self.random.below(8) as usize).min(self.log.entries.len());
        let (index, node, life) = (self.log.state_at(count), self.slots[slot].node, self.slots[slot].life);
        self.note(12, || format!("{slot} starts as node {} with {count} entries", node.0));
        self.slots[slot].process = Some(Process::new(index, count, node, &self.rates));
        self.boot(slot);
        let at = self.now + self.random.below(WAKE_EVERY);
        self.at(at, Event::Process { slot, life, what: Stimulus::Wake });
    }

    pub(crate) fn wake_again(&mut self, slot: usize) {
        let at = self.now + WAKE_EVERY / 2 + self.random.below(WAKE_EVERY);
        let life = self.slots[slot].life;
        self.at(at, Event::Process { slot, life, what: Stimulus::Wake });
    }

    fn resume(&mut self, slot: usize) {
        if !self.slots[slot].is_paused {
            return;
        }
        self.note(13, || format!("{slot} goes on"));
        self.slots[slot].is_paused = false;
        let life = self.slots[slot].life;
        for what in std::mem::take(&mut self.slots[slot].inbox) {
            self.at(self.now, Event::Process { slot, life, what });
        }
    }

    /// Every node and every disk is lost; the bucket stays.
    fn disaster(&mut self) {
        self.note(14, || "every node and its disk are lost".to_owned());
        self.is_down = true;
        for slot in 0..self.slots.len() {
            self.kill(slot, true);
        }
        self.store.incarnation += 1;
        let at = self.now + SECOND + self.random.below(12 * SECOND);
        self.at(at, Event::Recover);
    }

    /// PROTOCOL.md, "Recovery from the bucket": nobody of the old incarnation is alive.
    fn recover(&mut self) {
        if self.store.is_out {
            return self.at(self.now + SECOND, Event::Recover);
        }
        let recovered = match self.recovered_index() {
            Ok(Some(index)) => index,
            // Nothing was stored yet, so nothing was retired: the segments are everything.
            Ok(None) => self.recovered_from(Index::new(CLUSTER, 1), &[]),
            Err(why) => return self.fail(format!("the bucket can't be recovered: {why}")),
        };
        self.note(15, || format!("recovered: {:?}", recovered.counts()));
        let term = self.log.term;
        self.log = Log::begin(recovered, term);
        self.begin_ledger();
        if self.failure.is_some() {
            return;
        }
        self.is_down = false;
        for slot in 0..self.slots.len() {
            self.start(slot);
        }
    }

    /// What the recovered index says is the data; all that was acked must be in it.
    fn begin_ledger(&mut self) {
        let truth = self.log.truth.clone();
        let (mut segments, mut blocks) = (Vec::new(), Vec::new());
        for block in truth.blocks() {
            match self.store.get(&block.id.key()) {
                Some(crate::store::Object::Block(block)) => blocks.push(block.clone()),
                _ => return self.fail(format!("recovered, but {} is gone", block.id.key())),
            }
        }
        for (id, writer) in truth.writers() {
            for (n, _) in writer.segments() {
                segments.push(Rc::clone(&self.ledger.segments[&(id, n)]));
            }
        }
        self.ledger.begin(&segments, &blocks);
        // A delete that the bucket does not know is none; nobody was told that it is.
        let known: Vec<_> = truth.deletes().map(|(at, _)| at).collect();
        let forgotten = |state: &crate::ledger::DeleteState| state.revision.is_none_or(|at| !known.contains(&at));
        if self.ledger.deletes.iter().any(|state| state.answered.is_some() && forgotten(state)) {
            return self.fail("recovered without a delete that was answered".to_owned());
        }
        for state in &mut self.ledger.deletes {
            if state.revision.is_some_and(|at| !known.contains(&at)) {
                // So that an entry of the next incarnation is not taken for it.
                state.revision = Some(model::Revision::default());
            }
        }
        let deletes = crate::querying::deletes_of(&truth);
        let answer = self.ledger.expected(truth.revision(), &deletes, |w, n| truth.is_quarantined(w, n));
        if let Some(sample) = self.ledger.missing(self.tick, &answer) {
            self.fail(format!("recovered without sample {sample}, which was acked"));
        }
    }

    // ---- clients ---------------------------------------------------------------------------

    fn write(&mut self) {
        let mut samples = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let series = self.random.below(24) as u16;
            let sample = Sample {
                series,
                group: series % self.rates.groups,
                first_sent: self.tick,
                last_arrived: self.tick,
                acked: None,
            };
            samples.push(self.ledger.samples.len() as u32);
            self.ledger.samples.push(sample);
        }
        let request = self.next_request;
        self.next_request += 1;
        self.requests.insert(request, ClientRequest { samples, answered: false, tries: 0 });
        self.client_sends(request);
    }

    fn client_sends(&mut self, id: u64) {
        let slot = self.any_slot();
        let is_healed = self.is_healed;
        let Some(request) = self.requests.get_mut(&id) else { return };
        if request.answered || (request.tries >= CLIENT_TRIES_MAX && !is_healed) {
            self.requests.remove(&id);
            return;
        }
        request.tries += 1;
        let life = self.slots[slot].life;
        for _ in 0..1 + u64::from(self.chance(self.rates.net_duplicate)) {
            if !self.chance(self.rates.net_loss) {
                let at = self.now + MS / 2 + self.random.below(self.rates.net_delay);
                self.at(at, Event::Process { slot, life, what: Stimulus::Request(id) });
            }
        }
        self.at(self.now + CLIENT_TIMEOUT, Event::ClientSends { request: id });
    }

    /// A process answers a request 2xx.
    pub(crate) fn ack(&mut self, slot: usize, id: u64) {
        self.note(id << 8 | 20, || format!("{slot} acks request {id}"));
        let tick = self.tick;
        let Some(request) = self.requests.get(&id) else { return };
        for sample in &request.samples {
            self.ledger.samples[*sample as usize].acked.get_or_insert(tick);
        }
        if !self.chance(self.rates.net_loss) {
            let at = self.now + self.random.below(self.rates.net_delay);
            self.at(at, Event::ClientAnswered { request: id });
        }
    }

    // ---- the end ---------------------------------------------------------------------------

    fn heal(&mut self) {
        self.note(16, || "faults stop".to_owned());
        self.is_healed = true;
        self.rates.heal();
        self.broken_links.clear();
        self.store.is_out = false;
        self.leaderless_until = 0;
        for slot in 0..self.slots.len() {
            self.slots[slot].is_cut_from_store = false;
            self.resume(slot);
            if !self.runs(slot) && !self.is_down {
                self.start(slot);
            }
        }
        // Requests that were on their way to the store have landed by then.
        self.at(self.now + 36 * SECOND, Event::CheckSettled);
    }

    fn check_settled(&mut self) {
        match self.unsettled() {
            None => {
                self.note(17, || "settled".to_owned());
                self.settled_since = Some(self.now);
                // A new leader looks at the bucket anew: what landed late is found by its listing alone.
                if let Some(leader) = self.log.leader {
                    self.depose(leader);
                }
                self.at(self.now + 25 * SECOND, Event::LastCheck);
            }
            Some(why) if self.now > self.rates.faults_end + SETTLE_MAX => self.fail(format!("not settled: {why}")),
            Some(_) => self.at(self.now + SECOND, Event::CheckSettled),
        }
    }

    /// What is still to be done, if something is.
    fn unsettled(&self) -> Option<String> {
        if self.is_down {
            return Some("no recovery".to_owned());
        }
        for (number, slot) in self.slots.iter().enumerate() {
            let Some(process) = &slot.process else { return Some(format!("{number} is down")) };
            if process.applied != self.log.entries.len() {
                return Some(format!("{number} has applied {} of {}", process.applied, self.log.entries.len()));
            }
            if process.writer_id().is_none() {
                return Some(format!("{number} has no writer"));
            }
        }
        let current: BTreeSet<_> =
            self.slots.iter().filter_map(|slot| slot.process.as_ref().and_then(Process::writer_id)).collect();
        for (id, writer) in self.log.truth.writers() {
            if !current.contains(&id) {
                return Some(format!("writer {id} is {} with {:?}", writer.stage, writer.adopter));
            }
        }
        self.requests.iter().find(|(_, request)| !request.answered).map(|(id, _)| format!("request {id} is not acked"))
    }

    fn last_check(&mut self) {
        if let Some(why) = self.unsettled() {
            return self.fail(format!("settled, and then not: {why}"));
        }
        for slot in 0..self.slots.len() {
            let index = &self.process(slot).index;
            if index.state_hash() != self.log.truth.state_hash() {
                return self.fail(format!("the index of {slot} differs"));
            }
        }
        let garbage = self.store.objects.keys().find(|key| index::dead(&self.log.truth, key));
        if let Some(key) = garbage {
            return self.fail(format!("{key} is dead, and there for ever"));
        }
        let answer = {
            let truth = &self.log.truth;
            let deletes = crate::querying::deletes_of(truth);
            self.ledger.expected(truth.revision(), &deletes, |w, n| truth.is_quarantined(w, n))
        };
        if let Some(sample) = self.ledger.missing(self.tick, &answer) {
            return self.fail(format!("sample {sample} was acked and is gone"));
        }
        if self.queries_open > 0 {
            return self.fail(format!("{} queries have not ended", self.queries_open));
        }
        if self.settled_since == Some(0) {
            self.is_over = true;
            return;
        }
        // Once more everybody is asked; then it is over.
        self.settled_since = Some(0);
        for slot in 0..self.slots.len() {
            self.ask(slot);
        }
        self.at(self.now + 15 * SECOND, Event::LastCheck);
    }
}
