//! One replica without its disk, its network and its clock: raft, and what is built around it.
//!
//! Inputs go in one by one (`tick`, `receive`, `propose`, …); then [`Core::settle`], and as long as
//! [`Core::ready`] has something: make it durable, [`Core::persisted`], apply what came out of it, settle.
//! What is to be sent or answered gathers in [`Core::outputs`]. No I/O, no clock, no randomness of its own: the
//! same calls give the same run, which is how tests drive hundreds of clusters from a seed.
//!
//! Here are raft's own steps, snapshots, and hashes of the state compared. Built around them, each in its file:
//! `proposals`, `reads`, and `change` of members and leader.

mod change;
mod proposals;
mod reads;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata};
use raft::{Config, ProgressState, RawNode, ReadOnlyOption, Ready, SnapshotStatus, StateRole};

use crate::codec::{Tag, read_change};
use crate::envelope::{Body, Refusal, decode, encode};
use crate::jitter::election_timeout;
use crate::logger;
use crate::machine::BoxError;
use crate::mem_log::MemLog;
use crate::members::{Identity, Members, MembersError, Progress};
use crate::settings::Settings;
use crate::standing::{Seen, Standing};

pub use self::change::Change;
use self::change::{Transfer, UnderWay};
use self::proposals::Waiting;
use self::reads::{Flight, Reads};

/// Hashes that are kept to be compared, own and heard.
const HASHES_MAX: usize = 16;
/// Applied proposals that the leader still knows, when they are forwarded once more.
const APPLIED_TAGS_MAX: usize = 4096;
/// Ticks after which a forwarded proposal or read is said again: a message may be lost.
const REPEAT_TICKS: u64 = 5;

/// Whether the state machine can read a payload.
pub type ReadsPayload = Box<dyn Fn(&[u8]) -> bool + Send>;

/// Why a proposal ended without having been applied here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    NoLeader { is_certain: bool },
    Unreadable,
}

/// What the driver does next, beside what is made durable.
#[derive(Debug, Default)]
pub struct Outputs {
    /// To whom, and what.
    pub messages: Vec<(u64, Vec<u8>)>,
    /// Proposals by their sequence.
    pub failed: Vec<(u64, Failure)>,
    /// Reads up to a ticket are answered with a position, or not at all.
    pub reads: Vec<(u64, Option<u64>)>,
    /// The change of members that was under way.
    pub changed: Option<Result<(), MembersError>>,
    /// The hand-over that was under way.
    pub transferred: Option<Result<(), MembersError>>,
    /// Nothing may go on.
    pub fatal: Option<String>,
    /// For the metrics: messages not listened to, by reason; proposals forwarded; snapshots sent.
    pub dropped: Vec<&'static str>,
    pub forwarded: u64,
    pub snapshots_sent: u64,
}

/// What must be durable before [`Core::persisted`].
#[derive(Debug)]
pub struct Persist {
    /// With every record.
    pub hard_state: HardState,
    /// Comes first: what was in the log before it goes.
    pub snapshot: Option<Snapshot>,
    /// Replaces what the log holds from the first of them on.
    pub entries: Vec<Entry>,
    /// `false`: nothing but the commit moved, which may as well be told later.
    pub is_needed: bool,
}

/// What a committed entry is.
#[derive(Debug)]
pub enum Committed {
    /// Raft's own.
    Nothing,
    /// The members changed.
    Members,
    /// Somebody's proposal.
    Proposal { tag: Tag, payload: Bytes },
}

pub struct Core {
    node: RawNode<MemLog>,
    identity: Identity,
    settings: Settings,
    ticks: u64,
    /// Members as of `applied`.
    conf: ConfState,
    applied: u64,
    /// Leader and term when we last looked.
    seen_leader: (u64, u64),
    leader_known_at: u64,
    /// When other members sent something last.
    heard: BTreeMap<u64, u64>,
    /// Campaigns that began here; it moves the jitter on.
    campaigns: u64,
    waiting: BTreeMap<u64, Waiting>,
    unsent: BTreeSet<u64>,
    unsent_bytes: usize,
    next_sequence: u64,
    /// The leader said no: nothing is forwarded before this tick.
    forward_after: u64,
    /// Others' proposals that the leader has not given to raft yet.
    foreign: VecDeque<(Tag, Bytes)>,
    /// Proposals in the log of this leader's term: said twice, they are taken once. Those applied stay a while.
    appended: HashSet<Tag>,
    appended_and_applied: VecDeque<Tag>,
    reads: Reads,
    change: Option<UnderWay>,
    transfer: Option<Transfer>,
    is_removed: bool,
    is_full: bool,
    /// Peers that are sent a snapshot, since when.
    installing: BTreeMap<u64, u64>,
    ready: Option<Ready>,
    /// Messages that wait until a new term or vote is durable.
    held: Vec<Message>,
    term_and_vote: (u64, u64),
    hashes: BTreeMap<u64, u64>,
    heard_hashes: BTreeMap<u64, u64>,
    seen: Arc<Mutex<Seen>>,
    reads_payload: ReadsPayload,
    pub outputs: Outputs,
}

impl Core {
    /// `log` is what the disk holds, `applied` the position of its snapshot.
    pub fn new(
        identity: Identity,
        log: MemLog,
        applied: u64,
        settings: Settings,
        seen: Arc<Mutex<Seen>>,
        reads_payload: ReadsPayload,
    ) -> Result<Core, BoxError> {
        let config = Config {
            id: identity.id,
            election_tick: settings.election_ticks,
            heartbeat_tick: settings.heartbeat_ticks,
            applied,
            max_size_per_msg: settings.message_bytes_max,
            max_inflight_msgs: settings.messages_in_flight_max,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: settings.uncommitted_bytes_max,
            max_committed_size_per_ready: settings.uncommitted_bytes_max,
            ..Config::default()
        };
        let conf = log.members.clone();
        let term_and_vote = (log.hard_state.term, log.hard_state.vote);
        let node = RawNode::new(&config, log, &logger::to_tracing())?;
        let mut core = Core {
            node,
            identity,
            settings,
            ticks: 0,
            conf,
            applied,
            seen_leader: (0, term_and_vote.0),
            leader_known_at: 0,
            heard: BTreeMap::new(),
            campaigns: 0,
            waiting: BTreeMap::new(),
            unsent: BTreeSet::new(),
            unsent_bytes: 0,
            next_sequence: 1,
            forward_after: 0,
            foreign: VecDeque::new(),
            appended: HashSet::new(),
            appended_and_applied: VecDeque::new(),
            reads: Reads::default(),
            change: None,
            transfer: None,
            is_removed: false,
            is_full: false,
            installing: BTreeMap::new(),
            ready: None,
            held: Vec::new(),
            term_and_vote,
            hashes: BTreeMap::new(),
            heard_hashes: BTreeMap::new(),
            seen,
            reads_payload,
            outputs: Outputs::default(),
        };
        core.set_jitter();
        Ok(core)
    }

    // Looking at it.

    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Whether this replica is the only member: then what it has applied is all there is.
    pub fn is_alone(&self) -> bool {
        self.conf.voters == [self.identity.id] && self.conf.voters_outgoing.is_empty() && self.conf.learners.is_empty()
    }

    fn is_only_voter(&self) -> bool {
        self.conf.voters == [self.identity.id] && self.conf.voters_outgoing.is_empty()
    }

    /// Whether time has to go by for it to do its work.
    pub fn needs_ticks(&self) -> bool {
        !(self.is_leader() && self.is_alone() && self.waiting.is_empty())
    }

    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    pub fn commit_index(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Id and boots: what this start's proposals are tagged with.
    pub fn own(&self) -> (u64, u64) {
        (self.identity.id, self.identity.boots)
    }

    pub fn hard_state(&self) -> HardState {
        self.node.raft.hard_state()
    }

    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    pub fn conf(&self) -> &ConfState {
        &self.conf
    }

    pub fn log(&self) -> &MemLog {
        self.node.store()
    }

    pub fn log_mut(&mut self) -> &mut MemLog {
        self.node.mut_store()
    }

    /// Bytes of proposals that may still enter the log with the next input.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// What is durable, once [`Core::persisted`] was called.
    pub fn standing(&self) -> Standing {
        let Identity { id, boots } = self.identity;
        Standing { id, boots, last_index: self.node.raft.raft_log.last_index(), term: self.term() }
    }

    pub fn members(&self) -> Members {
        let own = self.identity.id;
        let sorted = |ids: &[u64]| {
            let mut ids: Vec<u64> = ids.iter().copied().filter(|id| !(self.is_removed && *id == own)).collect();
            ids.sort_unstable();
            ids
        };
        let outgoing = sorted(&self.conf.voters_outgoing);
        let leader = self.leader();
        let mut progress = BTreeMap::new();
        if self.is_leader() {
            for (id, peer) in self.node.raft.prs().iter().filter(|(id, _)| **id != own) {
                let is_installing = peer.state == ProgressState::Snapshot;
                progress.insert(*id, Progress { matched: peer.matched, is_active: peer.recent_active, is_installing });
            }
        }
        Members {
            voters: sorted(&self.conf.voters),
            learners: sorted(&self.conf.learners),
            joint: (!outgoing.is_empty()).then_some(outgoing),
            leader: (leader != 0).then_some(leader),
            term: self.term(),
            is_leader: self.is_leader(),
            last_index: self.node.raft.raft_log.last_index(),
            progress,
        }
    }

    /// Who leads, 0 for nobody.
    fn leader(&self) -> u64 {
        if self.is_removed || self.is_lost() { 0 } else { self.node.raft.leader_id }
    }

    /// Who may not campaign never gives its leader up by itself.
    fn is_lost(&self) -> bool {
        let raft = &self.node.raft;
        !raft.promotable() && raft.election_elapsed > 2 * self.settings.election_ticks
    }

    /// Whether the leader was heard lately; of itself, a leader knows by the others.
    fn is_in_touch(&self, leader: u64) -> bool {
        let own = self.identity.id;
        let wait = self.settings.leader_wait_ticks();
        if leader != own {
            return self.node.raft.election_elapsed as u64 <= wait;
        }
        let is_heard =
            |id: &&u64| **id == own || self.heard.get(id).is_some_and(|at| self.ticks.saturating_sub(*at) <= wait);
        let has_most = |voters: &[u64]| voters.is_empty() || voters.iter().filter(is_heard).count() * 2 > voters.len();
        has_most(&self.conf.voters) && has_most(&self.conf.voters_outgoing)
    }

    fn lacks_leader(&self) -> bool {
        self.ticks.saturating_sub(self.leader_known_at) > self.settings.leader_wait_ticks()
    }

    // Inputs.

    /// A group of one does not wait for an election.
    pub fn campaign_if_only_voter(&mut self) {
        if self.is_only_voter() && !self.is_leader() {
            // An error: entries that change the members come first; they are applied in a moment.
            if let Err(error) = self.node.campaign() {
                tracing::debug!(%error, "campaign put off");
            }
            self.set_jitter();
        }
    }

    /// One tick of time.
    pub fn tick(&mut self) {
        self.ticks += 1;
        if !self.is_leader() && (self.is_removed || self.is_full) {
            // Who can't write a log must not lead, and a removed replica must let the others be.
            self.node.raft.election_elapsed = 0;
        }
        let was_leader = self.is_leader();
        if self.node.tick() && !was_leader {
            self.campaigns += 1;
        }
        self.set_jitter();
        if self.is_lost() && !self.is_removed && self.ticks.is_multiple_of(self.settings.election_ticks as u64) {
            // Who campaigns is told when it was removed; a learner has to ask.
            let members: Vec<u64> = self.conf.voters.clone();
            for id in members {
                self.say(id, &Body::Lost);
            }
        }
        self.repeat();
        self.watch_snapshots();
        if self.is_full && self.is_leader() && self.node.raft.lead_transferee.is_none() {
            self.hand_over();
        }
    }

    /// Raft draws its election timeout from the thread's own generator. Drawn anew from what this run has seen,
    /// it is the same each time the run is.
    fn set_jitter(&mut self) {
        let mut x =
            self.identity.id ^ self.term().rotate_left(20) ^ self.campaigns.rotate_left(40) ^ self.identity.boots;
        for _ in 0..2 {
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        }
        let (voters, outgoing) = (&self.conf.voters, &self.conf.voters_outgoing);
        let ticks = self.settings.election_ticks;
        let timeout = election_timeout(ticks, voters, outgoing, self.identity.id, x ^ (x >> 31));
        self.node.raft.set_randomized_election_timeout(timeout);
    }

    /// Says again what may have been lost, and gives up what waited too long.
    fn repeat(&mut self) {
        let own = self.identity.id;
        let mut late = Vec::new();
        for (sequence, waiting) in &mut self.waiting {
            match waiting.given {
                Some((leader, _, at)) if leader != own && at + REPEAT_TICKS <= self.ticks => {
                    waiting.given = None;
                    self.unsent.insert(*sequence);
                    self.unsent_bytes += waiting.data.len();
                }
                _ => (),
            }
            if waiting.since + self.settings.answer_wait_ticks() < self.ticks {
                late.push(*sequence);
            }
        }
        if !self.is_only_voter() {
            for sequence in late {
                self.fail(sequence);
            }
            let is_late = |flight: &Flight| flight.since + self.settings.answer_wait_ticks() < self.ticks;
            if let Some(flight) = self.reads.flight.take_if(|flight| is_late(flight)) {
                self.answer_reads(flight.upto, None);
            }
        }
        if let Some(transfer) = self.transfer.take_if(|transfer| transfer.until < self.ticks) {
            tracing::debug!(peer = transfer.to, "leadership not handed over in time");
            self.outputs.transferred = Some(Err(MembersError::Uncertain));
        }
    }

    /// A snapshot that got lost on its way would keep its peer waiting for ever.
    fn watch_snapshots(&mut self) {
        let mut failed = Vec::new();
        let mut installing = BTreeMap::new();
        if self.is_leader() {
            for (id, _) in self.node.raft.prs().iter().filter(|(_, peer)| peer.state == ProgressState::Snapshot) {
                let since = *self.installing.get(id).unwrap_or(&self.ticks);
                if since + self.settings.snapshot_wait_ticks() < self.ticks {
                    failed.push(*id);
                } else {
                    installing.insert(*id, since);
                }
            }
        }
        if installing.is_empty() && failed.is_empty() && self.ticks.is_multiple_of(100) {
            self.node.mut_store().snapshot = None;
        }
        self.installing = installing;
        for id in failed {
            self.node.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    /// A message from `from`, as the transport knows.
    pub fn receive(&mut self, from: u64, bytes: &[u8]) {
        match decode(from, self.identity.id, bytes) {
            Ok(Body::Raft(message)) => self.receive_raft(message),
            Ok(Body::Forward { boots, proposals }) => self.receive_forward(from, boots, proposals),
            Ok(Body::Refused { boots, refusal, sequences }) => self.receive_refused(from, boots, refusal, &sequences),
            Ok(Body::Hash { position, hash }) => {
                if from == self.leader() {
                    self.heard_hashes.insert(position, hash);
                    self.compare_hashes();
                }
            }
            Ok(Body::Lost) if !self.is_member(from) => self.say(from, &Body::Removed { position: self.applied }),
            // The leader will be heard.
            Ok(Body::Lost) => (),
            Ok(Body::Removed { position }) => {
                if position > self.applied && !self.is_removed && !self.is_leader() {
                    tracing::warn!(peer = from, position, "this replica was removed from the index's group");
                    self.is_removed = true;
                }
            }
            Err(dropped) => {
                tracing::debug!(peer = from, reason = dropped.name(), bytes = bytes.len(), "message dropped");
                self.outputs.dropped.push(dropped.name());
            }
        }
    }

    fn receive_raft(&mut self, message: Message) {
        let (from, kind) = (message.from, message.get_msg_type());
        if self.is_member(from) {
            self.heard.insert(from, self.ticks);
        }
        let raft = &self.node.raft;
        let is_stable = raft.raft_log.unstable_entries().is_empty() && raft.raft_log.unstable_snapshot().is_none();
        let is_current = message.term >= raft.term;
        let last = raft.raft_log.last_index();
        match kind {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote if !self.is_member(from) => {
                self.say(from, &Body::Removed { position: self.applied });
            }
            // Raft would pass it on; the asker looks for the leader itself.
            MessageType::MsgReadIndex if !self.is_leader() => return,
            // What is not durable yet must not be campaigned with; and who is full must not lead.
            MessageType::MsgTimeoutNow if !is_stable || self.is_full => return,
            MessageType::MsgAppend if self.is_full && !message.entries.is_empty() => return,
            MessageType::MsgSnapshot if self.is_full => return,
            // The leader says only what it knows this replica to have: it has acked more than it now holds.
            MessageType::MsgHeartbeat if is_current && message.commit > last => {
                self.outputs.fatal = Some(format!(
                    "the leader {from:016x} knows position {} of this replica to be durable, and its log ends at {last}: \
                     index/ is an old copy (replica-went-back)",
                    message.commit
                ));
                return;
            }
            _ => (),
        }
        let is_of_leader =
            matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot);
        if is_of_leader && is_current && self.is_removed {
            self.is_removed = false;
        }
        let is_vote = matches!(kind, MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse);
        if !is_vote && message.term > 0 {
            let acked = (kind == MessageType::MsgAppendResponse && !message.reject).then_some(message.index);
            let acked = acked.filter(|_| self.is_leader() && message.term == self.term());
            self.seen.lock().hear(from, message.term, acked, self.commit_index());
        }
        self.step(message);
    }

    fn step(&mut self, message: Message) {
        if let Err(error) = self.node.step(message) {
            tracing::debug!(%error, "raft message refused");
        }
        self.set_jitter();
    }

    fn is_member(&self, id: u64) -> bool {
        let conf = &self.conf;
        [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next].iter().any(|ids| ids.contains(&id))
    }

    /// The transport can't reach a peer.
    pub fn unreachable(&mut self, peer: u64) {
        self.node.report_unreachable(peer);
    }

    /// The transport knows what became of a snapshot.
    pub fn report_snapshot(&mut self, peer: u64, is_sent: bool) {
        self.node.report_snapshot(peer, if is_sent { SnapshotStatus::Finish } else { SnapshotStatus::Failure });
    }

    /// Whether the disk has room for entries.
    pub fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
        if is_full && self.is_leader() {
            self.hand_over();
        }
    }

    /// Whether a peer needs a snapshot of what is applied now.
    pub fn wants_snapshot(&self) -> bool {
        !self.node.store().wanted_by.borrow().is_empty()
    }

    /// The state at what is applied now, for the peers that want it; `None` if it can't be had.
    pub fn provide_snapshot(&mut self, state: Option<Vec<u8>>) {
        let wanted_by = mem::take(&mut *self.node.store().wanted_by.borrow_mut());
        let Some(state) = state else { return };
        let term = self.node.store().term_at(self.applied).expect("what is applied is in the log or its base");
        let mut meta = SnapshotMetadata { index: self.applied, term, ..SnapshotMetadata::default() };
        meta.set_conf_state(self.conf.clone());
        let mut snapshot = Snapshot { data: state.into(), ..Snapshot::default() };
        snapshot.set_metadata(meta);
        self.node.mut_store().snapshot = Some(snapshot);
        for id in wanted_by {
            if self.is_leader() && self.node.raft.prs().get(id).is_some() {
                self.node.raft.send_append(id);
            }
        }
        self.node.store().wanted_by.borrow_mut().clear();
    }

    // Going on.

    /// Looks at what changed, and gives what waits to the leader. After every round of inputs, and of applying.
    pub fn settle(&mut self) {
        let leader = self.leader();
        let now = (leader, self.term());
        if now != self.seen_leader {
            self.leader_changed(now);
        }
        if leader != 0 && self.is_in_touch(leader) {
            self.leader_known_at = self.ticks;
        }
        self.finish_change();
        if self.lacks_leader() {
            // What was given to one may still be committed; whoever proposed it asks again and finds out.
            let all: Vec<u64> = self.waiting.keys().copied().collect();
            for sequence in all {
                self.fail(sequence);
            }
        }
        if leader == self.identity.id {
            self.append_waiting();
        } else if leader != 0 {
            self.forward(leader);
        }
        self.send_reads(leader);
    }

    fn leader_changed(&mut self, now: (u64, u64)) {
        let own = self.identity.id;
        tracing::debug!(leader = now.0, term = now.1, "leader changed");
        self.seen_leader = now;
        self.forward_after = 0;
        // In the log or not, nobody knows: said again to the new leader, which takes what it has twice.
        self.appended.clear();
        self.appended_and_applied.clear();
        for (sequence, waiting) in &mut self.waiting {
            if waiting.given.take().is_some() {
                self.unsent.insert(*sequence);
                self.unsent_bytes += waiting.data.len();
            }
        }
        if now.0 != own {
            let mut refused: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
            for (tag, _) in self.foreign.drain(..) {
                refused.entry((tag.id, tag.boots)).or_default().push(tag.sequence);
            }
            for ((id, boots), sequences) in refused {
                self.say(id, &Body::Refused { boots, refusal: Refusal::NotLeader, sequences });
            }
        }
        if self.change.as_ref().is_some_and(|change| change.term != now.1 || now.0 != own) {
            self.change = None;
            self.outputs.changed = Some(Err(MembersError::Uncertain));
        }
        if let Some(transfer) = self.transfer.take_if(|_| now.0 != 0 && now.0 != own) {
            let is_done = now.0 == transfer.to;
            self.outputs.transferred = Some(if is_done { Ok(()) } else { Err(MembersError::Uncertain) });
        }
    }

    fn say(&mut self, to: u64, body: &Body) {
        self.outputs.messages.push((to, encode(self.identity.id, to, body)));
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.outputs.snapshots_sent += 1;
            }
            // Both are raft's own forwarding, which is not used.
            if matches!(message.get_msg_type(), MessageType::MsgPropose | MessageType::MsgTransferLeader) {
                continue;
            }
            let to = message.to;
            self.say(to, &Body::Raft(message));
        }
    }

    // Making durable, and applying.

    /// What has to be durable next. Until [`Core::persisted`], nothing else may be called.
    pub fn ready(&mut self) -> Option<Persist> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let hard_state = self.node.raft.hard_state();
        let messages = ready.take_messages();
        let term_and_vote = (hard_state.term, hard_state.vote);
        if mem::replace(&mut self.term_and_vote, term_and_vote) != term_and_vote {
            // A leader's entries may travel before they are durable here, but not its term: a group of one voter
            // and a learner would use it again after a crash, with other entries.
            self.held = messages;
        } else {
            self.send(messages);
        }
        for read in ready.take_read_states() {
            let own = self.reads.flight.as_ref().map(|flight| self.read_context(flight.sequence));
            let flight = self.reads.flight.take_if(|_| own.is_some_and(|own| own == read.request_ctx));
            if let Some(flight) = flight {
                self.answer_reads(flight.upto, Some(read.index));
            }
        }
        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        let entries = ready.take_entries();
        // Members take effect when they are applied, and must not be taken back by a crash: whoever counts on the new
        // ones may have let an old one go. So their commit is durable first, and whoever acks knows it for good.
        let is_needed = ready.must_sync() || ready.committed_entries().iter().any(changes_members);
        let log = self.node.mut_store();
        if let Some(snapshot) = &snapshot {
            let meta = snapshot.get_metadata();
            log.restart(meta.index, meta.term);
        }
        log.append(&entries);
        log.hard_state = hard_state.clone();
        self.ready = Some(ready);
        Some(Persist { hard_state, snapshot, entries, is_needed })
    }

    /// What [`Core::ready`] gave is durable. Returns the entries to apply, ascending; after a snapshot was installed.
    pub fn persisted(&mut self, installed: Option<&SnapshotMetadata>) -> Vec<Entry> {
        let mut ready = self.ready.take().expect("ready comes first");
        let held = mem::take(&mut self.held);
        self.send(held);
        let messages = ready.take_persisted_messages();
        let mut committed = ready.take_committed_entries();
        let mut light = self.node.advance_append(ready);
        self.send(messages);
        committed.append(&mut light.take_committed_entries());
        self.send(light.take_messages());
        if let Some(meta) = installed {
            self.conf = meta.get_conf_state().clone();
            self.is_removed = false;
            self.applied_to(meta.index);
        }
        committed
    }

    /// Looks at a committed entry; a change of members is done here.
    pub fn commit(&mut self, entry: &Entry) -> Result<Committed, BoxError> {
        if changes_members(entry) {
            let change = read_change(&entry.context).ok_or("a change of members that can't be read")?;
            match self.node.apply_conf_change(&change) {
                Ok(conf) => {
                    self.conf = conf;
                    let mut heard = mem::take(&mut self.heard);
                    heard.retain(|id, _| self.is_member(*id));
                    self.heard = heard;
                }
                // The same everywhere: it follows from the members alone.
                Err(error) => tracing::warn!(position = entry.index, %error, "change of members had no effect"),
            }
            let raft = &mut self.node.raft;
            if raft.state == StateRole::Leader && !raft.promotable() {
                let term = raft.term;
                raft.become_follower(term, 0);
            }
            self.set_jitter();
            return Ok(Committed::Members);
        }
        if entry.data.is_empty() {
            return Ok(Committed::Nothing);
        }
        let tag = Tag::of(&entry.data).ok_or("an entry without its proposer")?;
        if self.appended.contains(&tag) {
            self.appended_and_applied.push_back(tag);
            if self.appended_and_applied.len() > APPLIED_TAGS_MAX {
                let oldest = self.appended_and_applied.pop_front().expect("one was just pushed");
                self.appended.remove(&oldest);
            }
        }
        if (tag.id, tag.boots) == (self.identity.id, self.identity.boots) {
            self.take(tag.sequence);
        }
        Ok(Committed::Proposal { tag, payload: entry.data.slice(Tag::BYTES..) })
    }

    /// Everything up to `index` is applied.
    pub fn applied_to(&mut self, index: u64) {
        self.applied = self.applied.max(index);
        self.node.advance_apply_to(index);
    }

    /// The hash of the state at a position that is looked at everywhere.
    pub fn hashed(&mut self, position: u64, hash: u64) {
        self.hashes.insert(position, hash);
        if self.is_leader() {
            let others: Vec<u64> = self.node.raft.prs().iter().map(|(id, _)| *id).collect();
            let own = self.identity.id;
            for id in others.into_iter().filter(|id| *id != own) {
                self.say(id, &Body::Hash { position, hash });
            }
        }
        self.compare_hashes();
    }

    fn compare_hashes(&mut self) {
        for hashes in [&mut self.hashes, &mut self.heard_hashes] {
            while hashes.len() > HASHES_MAX {
                hashes.pop_first();
            }
        }
        for (position, heard) in &self.heard_hashes {
            let Some(own) = self.hashes.get(position).filter(|own| *own != heard) else { continue };
            self.outputs.fatal = Some(format!(
                "the state at position {position} has hash {own:016x} here and {heard:016x} on the leader: this replica's \
                 index is not the others' (index-diverged)"
            ));
        }
    }
}

/// Whether an entry changes the members.
pub fn changes_members(entry: &Entry) -> bool {
    entry.get_entry_type() == EntryType::EntryConfChangeV2
}
