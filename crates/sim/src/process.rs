//! One process: an index of its own, and the product's machines over it. What it is told comes as a [`Stimulus`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use index::{Command, Entry, Index, Stage};
use ingester::fence::{self, Fence, FenceRules};
use ingester::{adopt, cut, flush};
use model::{Lease, NodeId, Revision, SegmentNumber, WriterId};

use crate::adopting::Adoption;
use crate::compacting::Compaction;
use crate::keeping::Keeper;
use crate::ledger::group_of;
use crate::querying::{HeadAnswer, Query};
use crate::rates::{MS, Rates};
use crate::store::Answer;
use crate::world::{Outcome, Tag, World};
use crate::writing::{Appender, Head, Life};

/// A session is renewed this often.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// The product's, and the sessions' that the collector goes by.
const SESSION_MAX: Duration = Duration::from_secs(3);
/// A proposal without an answer is made again after about this time.
const PROPOSE_AGAIN_MS: u64 = 400;

/// What a process is told.
#[derive(Debug, Clone)]
pub(crate) enum Stimulus {
    Wake,
    /// So many entries are committed.
    Committed(usize),
    Leads(Option<u64>),
    Store(u64, Answer),
    /// A client's request arrives.
    Request(u64),
    /// To the leader.
    Renew {
        slot: usize,
        node: NodeId,
        sent: Duration,
        lowest: Revision,
        term: u64,
    },
    Renewed {
        sent: Duration,
    },
    ReadIndex {
        query: u64,
        least: usize,
    },
    AskHead {
        query: u64,
        slot: usize,
        writer: index::PlannedWriter,
    },
    HeadAnswer {
        query: u64,
        writer: WriterId,
        answer: HeadAnswer,
    },
}

/// What a request to the store was for.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Segment { writer: WriterId, n: SegmentNumber, attempt: u32 },
    OwnBlock { writer: WriterId, block: index::BlockMeta },
    Load { writer: WriterId, lease: Lease, n: SegmentNumber, attempt: u32 },
    AdoptedBlock { writer: WriterId, lease: Lease, block: index::BlockMeta },
    KeepPut,
    KeepGet,
    CollectList(bucket::Folder),
    CollectDelete(model::ObjectKey),
    Absent,
    CompactGet(index::BlockId),
    CompactPut,
    QueryBlock { query: u64, block: index::BlockMeta },
    QuerySegment { query: u64, writer: WriterId, n: SegmentNumber },
}

/// What an entry was proposed for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Purpose {
    Register,
    AddSegment { writer: WriterId, n: SegmentNumber },
    OwnCut { writer: WriterId, upto: SegmentNumber },
    FenceOwn { writer: WriterId },
    BootFence { writer: WriterId },
    BootGrant { writer: WriterId },
    Warden { writer: WriterId },
    Adoption { writer: WriterId, lease: Lease },
    GrantCompact,
    Replace,
    Delete(usize),
}

impl Purpose {
    /// Whether it is proposed again until it is decided.
    fn insists(&self) -> bool {
        !matches!(self, Purpose::Warden { .. } | Purpose::GrantCompact)
    }
}

#[derive(Debug)]
pub(crate) struct Pending {
    purpose: Purpose,
    command: Command,
    again_at: Duration,
}

#[derive(Debug)]
pub(crate) struct Session {
    at: Duration,
    lowest: Revision,
}

#[derive(Debug)]
pub(crate) struct Process {
    pub node: NodeId,
    pub index: Index,
    pub applied: usize,
    pub proposals: BTreeMap<u64, Pending>,
    pub ops: BTreeMap<u64, Op>,
    tokens: u64,

    pub appender: Appender,
    pub life: Option<Life>,
    /// The nonce of the Register that is under way.
    pub nonce: Option<u64>,
    /// The writer was ended; the next registers when there is a session.
    pub wants_writer: bool,
    pub heads: BTreeMap<WriterId, Head>,
    /// What dead processes of this node left, still to be fenced and granted before anything is written.
    pub boot: VecDeque<WriterId>,
    pub adoptions: BTreeMap<WriterId, Adoption>,

    pub leads: Option<(u64, Duration)>,
    pub fence: Fence,
    pub sessions: BTreeMap<NodeId, Session>,
    renew_at: Duration,
    pub session_until: Option<Duration>,

    pub keeper: Option<Keeper>,
    pub compaction: Option<Compaction>,
    pub compact_at: Duration,
    pub queries: BTreeMap<u64, Query>,
    /// Deletes that wait for everybody.
    pub deletes: Vec<usize>,
}

impl Process {
    pub(crate) fn new(index: Index, applied: usize, node: NodeId, _rates: &Rates) -> Process {
        Process {
            node,
            index,
            applied,
            proposals: BTreeMap::new(),
            ops: BTreeMap::new(),
            tokens: 0,
            appender: Appender::default(),
            life: None,
            nonce: None,
            wants_writer: false,
            heads: BTreeMap::new(),
            boot: VecDeque::new(),
            adoptions: BTreeMap::new(),
            leads: None,
            fence: Fence::new(FenceRules::default()),
            sessions: BTreeMap::new(),
            renew_at: Duration::ZERO,
            session_until: None,
            keeper: None,
            compaction: None,
            compact_at: Duration::ZERO,
            queries: BTreeMap::new(),
            deletes: Vec::new(),
        }
    }

    pub(crate) fn next_token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// The writer that takes requests.
    pub(crate) fn writer_id(&self) -> Option<WriterId> {
        self.life.as_ref().map(|life| life.id)
    }

    /// No object that anything at this revision or later needs is lower than this: plans, and what is applied.
    fn lowest_in_use(&self) -> Revision {
        let plans = self.queries.values().filter_map(Query::revision).min();
        plans.map_or(self.index.revision(), |oldest| oldest.min(self.index.revision()))
    }
}

impl World {
    pub(crate) fn on_stimulus(&mut self, slot: usize, what: Stimulus) {
        match what {
            Stimulus::Wake => self.wake(slot),
            Stimulus::Committed(count) => self.apply(slot, count),
            Stimulus::Leads(term) => self.leads(slot, term),
            Stimulus::Store(token, answer) => {
                if let Some(op) = self.process(slot).ops.remove(&token) {
                    self.on_answer(slot, op, answer);
                }
            }
            Stimulus::Request(id) => self.on_request(slot, id),
            Stimulus::Renew { slot: from, node, sent, lowest, term } => {
                let now = self.clock(slot);
                let process = self.process(slot);
                // A message that was on its way for long says nothing of now: the term tells at least the reign.
                if process.leads.is_some_and(|(leading, _)| leading == term) {
                    process.sessions.insert(node, Session { at: now, lowest });
                    self.step_fence(slot, fence::Input::Renewed { node, at: now });
                    self.message(slot, from, Stimulus::Renewed { sent });
                }
            }
            Stimulus::Renewed { sent } => {
                let until = sent + SESSION_MAX;
                let process = self.process(slot);
                process.session_until = Some(process.session_until.map_or(until, |known| known.max(until)));
            }
            Stimulus::ReadIndex { query, least } => self.on_read_index(slot, query, least),
            Stimulus::AskHead { query, slot: from, writer } => self.on_ask_head(slot, query, from, writer),
            Stimulus::HeadAnswer { query, writer, answer } => self.on_head_answer(slot, query, writer, answer),
        }
    }

    fn on_answer(&mut self, slot: usize, op: Op, answer: Answer) {
        match op {
            Op::Segment { writer, n, attempt } => self.segment_stored(slot, writer, n, attempt, answer),
            Op::OwnBlock { writer, block } => self.own_block_stored(slot, writer, block, answer),
            Op::Load { writer, lease, n, attempt } => self.segment_loaded(slot, writer, lease, n, attempt, answer),
            Op::AdoptedBlock { writer, lease, block } => self.adopted_block_stored(slot, writer, lease, block, answer),
            Op::KeepPut => self.keep_put(slot, answer),
            Op::KeepGet => self.keep_got(slot, answer),
            Op::CollectList(folder) => self.collect_listed(slot, folder, answer),
            Op::CollectDelete(key) => self.collect_deleted(slot, key, answer),
            Op::Absent => {}
            Op::CompactGet(block) => self.compact_got(slot, block, answer),
            Op::CompactPut => self.compact_put(slot, answer),
            Op::QueryBlock { query, block } => self.query_block(slot, query, block, answer),
            Op::QuerySegment { query, writer, n } => self.query_segment(slot, query, writer, n, answer),
        }
    }

    fn wake(&mut self, slot: usize) {
        self.wake_again(slot);
        let now = self.clock(slot);
        self.propose_again(slot, now);
        self.renew(slot, now);
        self.step_fence(slot, fence::Input::Tick);
        self.register_if_wanted(slot);
        self.wake_writer(slot);
        self.look_at_adoptions(slot);
        self.keep(slot);
        self.compact(slot);
        self.wake_queries(slot);
        self.answer_deletes(slot);
    }

    // ---- entries ---------------------------------------------------------------------------

    pub(crate) fn propose(&mut self, slot: usize, purpose: Purpose, command: Command) {
        let again_at = self.clock(slot) + Duration::from_millis(PROPOSE_AGAIN_MS + self.random.below(400));
        let process = self.process(slot);
        let token = process.next_token();
        let entry = Entry { incarnation: process.index.incarnation(), command: command.clone() };
        process.proposals.insert(token, Pending { purpose, command, again_at });
        let life = self.slots[slot].life;
        self.propose_entry(Tag { slot, life, token }, entry);
    }

    pub(crate) fn is_proposing(&self, slot: usize, purpose: &Purpose) -> bool {
        let process = self.slots[slot].process.as_ref();
        process.is_some_and(|process| process.proposals.values().any(|pending| pending.purpose == *purpose))
    }

    /// An answer that does not come proves nothing.
    fn propose_again(&mut self, slot: usize, now: Duration) {
        let due: Vec<u64> = {
            let proposals = self.process(slot).proposals.iter();
            proposals.filter(|(_, pending)| pending.again_at <= now).map(|(token, _)| *token).collect()
        };
        for token in due {
            let Some(pending) = self.process(slot).proposals.remove(&token) else { continue };
            if pending.purpose.insists() {
                self.propose(slot, pending.purpose, pending.command);
            } else if pending.purpose == Purpose::GrantCompact {
                self.process(slot).compaction = None;
            }
        }
    }

    fn apply(&mut self, slot: usize, count: usize) {
        if self.process(slot).applied >= count {
            return;
        }
        let life = self.slots[slot].life;
        while self.runs(slot) && self.process(slot).applied < count.min(self.log.entries.len()) {
            let at = self.process(slot).applied;
            let (tag, entry, outcome) = self.log.entries[at].clone();
            if matches!(entry.command, Command::Delete(_)) {
                // What was received before the delete must not be sealed after it.
                self.drop_open(slot);
            }
            let process = self.process(slot);
            let here = process.index.apply(at as u64 + 1, &entry);
            process.applied = at + 1;
            if here != outcome {
                return self.fail(format!("{slot} applied {entry:?} as {here:?}, the log says {outcome:?}"));
            }
            if let Command::Delete(delete) = &entry.command {
                self.note(30, || format!("{slot} knows the delete of group {}", group_of(delete)));
            }
            if let Some(tag) = tag.filter(|tag| (tag.slot, tag.life) == (slot, life))
                && let Some(pending) = self.process(slot).proposals.remove(&tag.token)
            {
                self.decided(slot, pending.purpose, outcome);
            }
        }
        self.look_at_writer(slot);
        self.look_at_adoptions(slot);
        self.wake_queries(slot);
    }

    fn decided(&mut self, slot: usize, purpose: Purpose, outcome: Outcome) {
        match purpose {
            Purpose::Register => self.registered(slot, outcome),
            Purpose::AddSegment { writer, n } => self.segment_decided(slot, writer, n, &outcome),
            Purpose::OwnCut { writer, upto } => self.own_cut_decided(slot, writer, upto, &outcome),
            Purpose::FenceOwn { .. } => {}
            Purpose::BootFence { writer } => {
                let number = self.process(slot).index.writer(writer).map_or(0, |writer| writer.lease) + 1;
                let node = self.process(slot).node;
                self.propose(slot, Purpose::BootGrant { writer }, Command::GrantAdopt { writer, node, number });
            }
            Purpose::BootGrant { writer } => {
                self.process(slot).boot.retain(|other| *other != writer);
                self.go_on_booting(slot);
            }
            Purpose::Warden { writer } => self.step_fence(slot, fence::Input::Decided { writer }),
            Purpose::Adoption { writer, lease } => self.adoption_step(slot, writer, lease, adopt::Input::Decided),
            Purpose::GrantCompact => self.compact_granted(slot, &outcome),
            Purpose::Replace => self.process(slot).compaction = None,
            Purpose::Delete(delete) => self.process(slot).deletes.push(delete),
        }
    }

    // ---- start -----------------------------------------------------------------------------

    /// As `ingester::Ingester::start`: what dead processes of this node left is fenced and granted to itself.
    pub(crate) fn boot(&mut self, slot: usize) {
        let node = self.slots[slot].node;
        let process = self.process(slot);
        process.boot = adopt::strays(&process.index, node, |_, _| false).collect();
        self.go_on_booting(slot);
    }

    fn go_on_booting(&mut self, slot: usize) {
        match self.process(slot).boot.front().copied() {
            Some(writer) => self.propose(slot, Purpose::BootFence { writer }, Command::Fence { writer }),
            None => self.register(slot),
        }
    }

    /// Registers the next writer, once this process has a session: without one it would end with its first segment.
    pub(crate) fn register_if_wanted(&mut self, slot: usize) {
        if self.process(slot).wants_writer && !self.is_out_of_session(slot) {
            self.register(slot);
        }
    }

    /// Whether a guarded process may not ack.
    pub(crate) fn is_out_of_session(&mut self, slot: usize) -> bool {
        let now = self.clock(slot);
        self.rates.guard && self.process(slot).session_until.is_some_and(|until| now > until)
    }

    pub(crate) fn register(&mut self, slot: usize) {
        let nonce = self.random.u64();
        let process = self.process(slot);
        process.nonce = Some(nonce);
        process.wants_writer = false;
        let command = Command::Register { node: process.node, nonce };
        self.propose(slot, Purpose::Register, command);
    }

    // ---- leading ---------------------------------------------------------------------------

    fn leads(&mut self, slot: usize, term: Option<u64>) {
        let now = self.clock(slot);
        // The news may be older than the next reign.
        if term.is_none() && self.log.leader == Some(slot) {
            return;
        }
        let process = self.process(slot);
        process.leads = term.map(|term| (term, now));
        process.sessions.clear();
        process.keeper = term.map(|_| Keeper::new());
        self.step_fence(slot, fence::Input::Leads(term));
    }

    pub(crate) fn step_fence(&mut self, slot: usize, input: fence::Input) {
        let now = self.clock(slot);
        let process = self.process(slot);
        let outputs = process.fence.step(now, input, &process.index);
        for output in outputs {
            let (writer, command) = match output {
                fence::Output::Fence { writer } => (writer, Command::Fence { writer }),
                fence::Output::GrantAdopt { writer, node, number } => {
                    (writer, Command::GrantAdopt { writer, node, number })
                }
            };
            self.note(31, || format!("{slot} as warden: {output:?}"));
            self.propose(slot, Purpose::Warden { writer }, command);
        }
    }

    fn renew(&mut self, slot: usize, now: Duration) {
        if now < self.process(slot).renew_at {
            return;
        }
        let process = self.process(slot);
        process.renew_at = now + RENEW_EVERY;
        let (node, lowest) = (process.node, process.lowest_in_use());
        if let Some(leader) = self.log.leader.filter(|leader| self.runs(*leader)) {
            let term = self.log.term;
            self.message(slot, leader, Stimulus::Renew { slot, node, sent: now, lowest, term });
        }
    }

    /// What the collector of a leader may go by: nothing before it has heard everybody for a full term.
    pub(crate) fn lowest_in_use(&mut self, slot: usize) -> Revision {
        let now = self.clock(slot);
        let process = self.process(slot);
        let Some((_, since)) = process.leads else { return Revision::default() };
        if now < since + SESSION_MAX + Duration::from_millis(300) {
            return Revision::default();
        }
        let in_session = process.sessions.values().filter(|session| now < session.at + SESSION_MAX);
        let lowest = in_session.map(|session| session.lowest).min();
        lowest.map_or(process.lowest_in_use(), |lowest| lowest.min(process.lowest_in_use()))
    }

    // ---- deletes ---------------------------------------------------------------------------

    pub(crate) fn ask_delete(&mut self, slot: usize) {
        if self.process(slot).life.is_none() {
            return;
        }
        let group = self.random.below(u64::from(self.rates.groups)) as u16;
        let is_open = |delete: &crate::ledger::DeleteState| delete.group == group && delete.revision.is_none();
        // One at a time of a group, so that the log's entry is the newest one's.
        if self.ledger.deletes.iter().any(is_open) {
            return;
        }
        let (id, nonce) = (self.ledger.deletes.len(), self.random.u64());
        let proposed = self.tick;
        self.ledger.deletes.push(crate::ledger::DeleteState { group, proposed, revision: None, answered: None });
        self.note(32, || format!("{slot} is asked to delete group {group}"));
        self.propose(slot, Purpose::Delete(id), Command::Delete(crate::ledger::delete_of(group, nonce)));
    }

    /// A delete is answered when it is stored, and every live writer has applied it or is fenced.
    fn answer_deletes(&mut self, slot: usize) {
        for id in self.process(slot).deletes.clone() {
            let Some(at) = self.ledger.deletes[id].revision else { continue };
            let writers_know = self.log.truth.writers().all(|(_, writer)| {
                let runs = |other: &&crate::world::Slot| other.node == writer.node;
                let process = self.slots.iter().find(runs).and_then(|other| other.process.as_ref());
                writer.stage != Stage::Live || process.is_some_and(|process| process.index.revision() >= at)
            });
            if writers_know && self.is_stored(at) {
                self.note(33, || format!("delete {id} is answered"));
                self.ledger.deletes[id].answered = Some(self.tick);
                self.process(slot).deletes.retain(|other| *other != id);
            }
        }
    }

    /// Whether some leader has read the index at this revision back from the bucket.
    fn is_stored(&self, at: Revision) -> bool {
        let keepers = self.slots.iter().filter_map(|slot| slot.process.as_ref()?.keeper.as_ref());
        keepers.filter_map(|keeper| keeper.stored.as_ref()).any(|stored| stored.revision() >= at)
    }
}

/// Rules that make an hour of the product a few seconds here.
pub(crate) fn flush_rules(rates: &Rates) -> flush::FlushRules {
    flush::FlushRules {
        slots: rates.segment_slots,
        interval_min: Duration::from_millis(10),
        segment_bytes_max: 20,
        retry_delay_min: Duration::from_millis(100),
        retry_delay_max: Duration::from_secs(2),
        attempts: rates.hedges.then_some(flush::AttemptRules {
            timeout_min: Duration::from_millis(800),
            timeout_max: Duration::from_secs(5),
            hedge_min: Duration::from_millis(20),
            hedge_unknown: Duration::from_millis(300),
        }),
    }
}

pub(crate) fn cut_rules(rates: &Rates) -> cut::CutRules {
    cut::CutRules {
        age_max: Duration::from_micros(rates.cut_age),
        head_bytes_max: rates.head_samples_max,
        sample_bytes_max: rates.head_samples_max,
        retry_delay_min: Duration::from_micros(100 * MS),
        retry_delay_max: Duration::from_secs(2),
    }
}
