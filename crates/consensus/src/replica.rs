//! One replica with its disk: drives the core, makes durable what it says, applies what is committed, answers.
//!
//! [`Replica::turn`] takes all inputs that wait and the ticks that went by; all of them share one record and one
//! fsync. It neither waits nor looks at a clock but to measure, so tests call it as they like.
//!
//! When the log can't be written or fsynced, nothing goes on: the kernel may have dropped the bytes and call the
//! next fsync a success. A new start reads what is really there. A full disk is found before the log is touched;
//! it refuses proposals, and a leader with others hands over.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use raft::eraftpb::{Entry, SnapshotMetadata};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::core::{Change, Committed, Core, Failure, Persist, changes_members};
use crate::error::ProposeError;
use crate::folder::remove_older;
use crate::group::Parts;
use crate::log::{Log, log_name};
use crate::machine::{BoxError, Machine};
use crate::members::{Members, MembersError};
use crate::metrics::Metrics;
use crate::recent::Recent;
use crate::settings::Settings;
use crate::snapshot::write_snapshot;
use crate::standing::{Seen, Standing};

/// What callers see of a replica. Locks are taken in this order: `recent`, then `state`; the others alone.
pub struct Shared<S> {
    pub state: RwLock<S>,
    pub recent: Mutex<Recent>,
    pub applied: watch::Sender<u64>,
    pub members: watch::Sender<Members>,
    pub standing: Mutex<Standing>,
    pub seen: Arc<Mutex<Seen>>,
    /// Whether this replica is the only member, and leads: then what it has applied is all that anybody was answered.
    pub is_alone: AtomicBool,
}

pub type Answer<T, E> = oneshot::Sender<Result<T, E>>;

/// What the thread is given to do.
pub enum Input<E, A> {
    Propose { entry: E, payload: Vec<u8>, answer: Answer<A, ProposeError>, permit: OwnedSemaphorePermit },
    Message { from: u64, bytes: Vec<u8> },
    Unreachable(u64),
    SnapshotReported { peer: u64, is_sent: bool },
    Read(Answer<u64, ProposeError>),
    Change(Change, Answer<(), MembersError>),
    Transfer(u64, Answer<(), MembersError>),
    Close(oneshot::Sender<()>),
}

impl<E, A> Input<E, A> {
    /// Bytes that it may bring into the log.
    pub fn bytes(&self) -> usize {
        match self {
            Input::Propose { payload, .. } => payload.len() + 64,
            Input::Message { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }
}

/// Why a replica can't go on.
#[derive(Debug)]
pub enum Stop {
    /// The log is not what memory says it is.
    Fatal(String),
    /// An entry or a state is whole, and the state machine can't read it.
    Unreadable(BoxError),
}

struct Waiter<E, A> {
    entry: E,
    answer: Answer<A, ProposeError>,
    /// Given back when the proposal is answered.
    _permit: OwnedSemaphorePermit,
}

/// The replica. Everything but `shared` is its thread's alone.
pub struct Replica<S, E, A> {
    shared: Arc<Shared<S>>,
    machine: Machine<S, E, A>,
    core: Core,
    log: Log,
    /// The commit in the last record. (It may lag: records are written for entries, terms and votes.)
    durable_commit: u64,
    /// The position of the newest durable snapshot.
    snapshot: u64,
    /// When the log is as long as this, a snapshot is tried.
    snapshot_at_bytes: u64,
    /// Why the disk takes no entries now.
    refused: Option<ProposeError>,
    waiters: HashMap<u64, Waiter<E, A>>,
    /// By their tickets, ascending.
    reads: VecDeque<(u64, Answer<u64, ProposeError>)>,
    change: Option<Answer<(), MembersError>>,
    transfer: Option<Answer<(), MembersError>>,
    /// Who waits for the end; and the ticks that a hand-over may still take.
    closing: Option<(Vec<oneshot::Sender<()>>, u64)>,
    is_closed: bool,
    settings: Settings,
    folder: PathBuf,
    parts: Parts,
    metrics: Metrics,
}

impl<S, E, A> Replica<S, E, A> {
    /// The folder's replica, with everything applied that was known to be committed; a group of one voter leads.
    #[expect(clippy::too_many_arguments, reason = "it is put together in one place")]
    pub fn start(
        shared: Arc<Shared<S>>,
        machine: Machine<S, E, A>,
        core: Core,
        log: Log,
        settings: Settings,
        folder: PathBuf,
        parts: Parts,
        metrics: Metrics,
    ) -> Result<Replica<S, E, A>, Stop> {
        let snapshot = core.applied_index();
        let durable_commit = core.log().hard_state.commit;
        let mut replica = Replica {
            shared,
            machine,
            core,
            log,
            durable_commit,
            snapshot,
            snapshot_at_bytes: settings.snapshot_after_bytes,
            refused: None,
            waiters: HashMap::new(),
            reads: VecDeque::new(),
            change: None,
            transfer: None,
            closing: None,
            is_closed: false,
            settings,
            folder,
            parts,
            metrics,
        };
        // What is known to be committed changes the members first.
        replica.cycle()?;
        replica.core.campaign_if_only_voter();
        if !replica.core.is_leader() {
            // The count of starts is durable before anything is said. (A leader's first record has it.)
            let hard_state = replica.core.log().hard_state.clone();
            replica.log.append(&hard_state, &[]).map_err(|error| replica.log_failed(error))?;
        }
        replica.cycle()?;
        replica.publish();
        Ok(replica)
    }

    /// Whether time has to go by for it to do its work.
    pub fn needs_ticks(&self) -> bool {
        self.core.needs_ticks() || self.closing.is_some() || self.refused.is_some()
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub fn shared(&self) -> &Arc<Shared<S>> {
        &self.shared
    }

    pub fn applied(&self) -> u64 {
        self.core.applied_index()
    }

    /// Takes inputs in, lets time go by, and does what follows.
    pub fn turn(&mut self, inputs: Vec<Input<E, A>>, ticks: u64) -> Result<(), Stop> {
        let bytes: usize = inputs.iter().map(Input::bytes).sum();
        self.make_room(bytes + self.core.unsent_bytes());
        for input in inputs {
            self.take(input);
        }
        for _ in 0..ticks {
            self.core.tick();
            if let Some((_, left)) = &mut self.closing {
                *left = left.saturating_sub(1);
            }
        }
        if ticks > 0 && !self.core.is_leader() {
            self.core.campaign_if_only_voter();
        }
        self.cycle()?;
        if self.closing.is_some() {
            self.close()?;
        } else if self.log.bytes() >= self.snapshot_at_bytes {
            self.take_snapshot()?;
        }
        self.publish();
        Ok(())
    }

    /// Finds a full disk before anything is taken that would have to be written.
    fn make_room(&mut self, bytes: usize) {
        if bytes == 0 && self.refused.is_none() {
            return;
        }
        let room = self.log.reserve(bytes as u64 * 2);
        let was_refused = self.refused.is_some();
        self.refused = room.err().map(|error| self.refusal(&error));
        match &self.refused {
            Some(refused) if !was_refused => {
                tracing::warn!(id = "index-log-no-space", error = %refused, "index log takes no entries");
            }
            None if was_refused => tracing::info!("index log takes entries again"),
            _ => (),
        }
        if self.refused.is_some() != was_refused {
            self.core.set_full(self.refused.is_some());
        }
    }

    fn refusal(&self, error: &io::Error) -> ProposeError {
        let folder = self.folder.clone();
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            ProposeError::NoSpace { folder }
        } else {
            ProposeError::Refused { folder, reason: error.to_string() }
        }
    }

    fn take(&mut self, input: Input<E, A>) {
        // Whoever asked may have stopped waiting: then an answer goes nowhere.
        match input {
            Input::Propose { answer, .. } if self.closing.is_some() => {
                self.metrics.proposals_failed.with(["closed"]).inc();
                let _ = answer.send(Err(ProposeError::Closed));
            }
            Input::Propose { entry, payload, answer, permit } => match &self.refused {
                Some(refused) => {
                    let is_full = matches!(refused, ProposeError::NoSpace { .. });
                    self.metrics.proposals_failed.with([if is_full { "no_space" } else { "refused" }]).inc();
                    let _ = answer.send(Err(refused.clone()));
                }
                None => {
                    let sequence = self.core.propose(&payload);
                    self.waiters.insert(sequence, Waiter { entry, answer, _permit: permit });
                }
            },
            Input::Message { from, bytes } => self.core.receive(from, &bytes),
            Input::Unreachable(peer) => self.core.unreachable(peer),
            Input::SnapshotReported { peer, is_sent } => self.core.report_snapshot(peer, is_sent),
            Input::Read(answer) => self.reads.push_back((self.core.read(), answer)),
            Input::Change(change, answer) => match self.core.change(change) {
                Some(done) => drop(answer.send(done)),
                None => self.change = Some(answer),
            },
            Input::Transfer(to, answer) => match self.core.transfer(to) {
                Some(done) => drop(answer.send(done)),
                None => self.transfer = Some(answer),
            },
            Input::Close(done) => match &mut self.closing {
                Some((waiting, _)) => waiting.push(done),
                None => {
                    let ticks = if self.core.is_leader() && self.core.hand_over() {
                        self.settings.election_ticks as u64
                    } else {
                        0
                    };
                    self.closing = Some((vec![done], ticks));
                }
            },
        }
    }

    /// Goes on until nothing is left to do: send, make durable, send, apply, answer.
    fn cycle(&mut self) -> Result<(), Stop> {
        loop {
            self.core.settle();
            if self.core.wants_snapshot() {
                let state = self.snapshot_for_peers();
                self.core.provide_snapshot(state);
            }
            let persist = self.core.ready();
            self.give_out()?;
            let Some(persist) = persist else { return Ok(()) };
            let installed = self.make_durable(&persist)?;
            let committed = self.core.persisted(installed.as_ref());
            *self.shared.standing.lock() = self.core.standing();
            self.send();
            self.apply(&committed)?;
        }
    }

    fn send(&mut self) {
        for (to, message) in mem::take(&mut self.core.outputs.messages) {
            self.parts.transport.send(to, message);
        }
    }

    /// Sends and answers what the core has put out.
    fn give_out(&mut self) -> Result<(), Stop> {
        self.send();
        let outputs = mem::take(&mut self.core.outputs);
        if let Some(reason) = outputs.fatal {
            return Err(Stop::Fatal(reason));
        }
        // Whoever asked may have stopped waiting: then an answer goes nowhere.
        for (sequence, failure) in outputs.failed {
            let Some(waiter) = self.waiters.remove(&sequence) else { continue };
            let (reason, error) = match failure {
                Failure::NoLeader { is_certain } => ("no_leader", ProposeError::NoLeader { is_certain }),
                Failure::Unreadable => {
                    let reason = "the leader, which is of another version, can't read it".to_owned();
                    ("unreadable", ProposeError::Refused { folder: self.folder.clone(), reason })
                }
            };
            self.metrics.proposals_failed.with([reason]).inc();
            let _ = waiter.answer.send(Err(error));
        }
        for (upto, position) in outputs.reads {
            while self.reads.front().is_some_and(|(ticket, _)| *ticket <= upto) {
                let (_, answer) = self.reads.pop_front().expect("there is a front");
                let _ = answer.send(position.ok_or(ProposeError::NoLeader { is_certain: true }));
            }
        }
        if let Some((answer, done)) = self.change.take_if(|_| outputs.changed.is_some()).zip(outputs.changed) {
            let _ = answer.send(done);
        }
        if let Some((answer, done)) = self.transfer.take_if(|_| outputs.transferred.is_some()).zip(outputs.transferred)
        {
            let _ = answer.send(done);
        }
        for reason in outputs.dropped {
            self.metrics.messages_dropped.with([reason]).inc();
        }
        self.metrics.proposals_forwarded.inc_by(outputs.forwarded);
        self.metrics.snapshots_sent.inc_by(outputs.snapshots_sent);
        Ok(())
    }

    fn log_failed(&self, error: io::Error) -> Stop {
        Stop::Fatal(format!("write {}: {error}", self.log.path.display()))
    }

    fn make_durable(&mut self, persist: &Persist) -> Result<Option<SnapshotMetadata>, Stop> {
        if let Some(snapshot) = &persist.snapshot {
            return self.install(snapshot.get_metadata(), &snapshot.data, persist).map(Some);
        }
        if !persist.is_needed {
            return Ok(None);
        }
        let started = self.parts.clock.boottime();
        self.log.append(&persist.hard_state, &persist.entries).map_err(|error| self.log_failed(error))?;
        self.durable_commit = persist.hard_state.commit;
        self.metrics.sync_duration.observe((self.parts.clock.boottime() - started).as_secs_f64());
        self.metrics.batch_entries.observe(persist.entries.len() as f64);
        self.metrics.log_bytes.set(self.log.bytes() as i64);
        Ok(None)
    }

    /// Takes over the leader's state, and begins a log after it.
    fn install(&mut self, meta: &SnapshotMetadata, bytes: &[u8], persist: &Persist) -> Result<SnapshotMetadata, Stop> {
        let state = (self.machine.restore)(bytes).map_err(Stop::Unreadable)?;
        let files = &*self.parts.files;
        let failed =
            |error: io::Error| Stop::Fatal(format!("install a snapshot in {}: {error}", self.folder.display()));
        write_snapshot(files, &self.folder, meta, bytes).map_err(failed)?;
        let base = (meta.index, meta.term);
        let (number, boots) = (self.log.number + 1, self.log.boots());
        self.log = Log::create(files, &self.folder, number, boots, base, &persist.hard_state, &persist.entries)
            .map_err(failed)?;
        remove_older(files, &self.folder, meta.index, number);
        self.durable_commit = persist.hard_state.commit;
        self.snapshot = meta.index;
        self.snapshot_at_bytes = self.log.bytes() + self.settings.snapshot_after_bytes;
        {
            let mut recent = self.shared.recent.lock();
            *self.shared.state.write() = state;
            *recent = Recent::new(meta.index, self.settings.recent_bytes_max);
        }
        self.metrics.snapshots_installed.inc();
        self.metrics.applied_position.set(meta.index as i64);
        self.shared.applied.send_replace(meta.index);
        tracing::info!(position = meta.index, term = meta.term, bytes = bytes.len(), "index snapshot installed");
        Ok(meta.clone())
    }

    fn apply(&mut self, committed: &[Entry]) -> Result<(), Stop> {
        let Some(last) = committed.last().map(|entry| entry.index) else { return Ok(()) };
        if committed.iter().any(|entry| changes_members(entry) && entry.index > self.durable_commit) {
            let hard_state = self.core.hard_state();
            self.log.append(&hard_state, &[]).map_err(|error| self.log_failed(error))?;
            self.durable_commit = hard_state.commit;
        }
        let mut answers = Vec::new();
        let mut hashes = Vec::new();
        {
            let mut recent = self.shared.recent.lock();
            let mut state = self.shared.state.write();
            // Dropped before the lock is: nobody reads a state that is half applied.
            let _guard = PanicIsFatal(self.parts.fatal.clone());
            for entry in committed {
                let position = entry.index;
                match self.core.commit(entry).map_err(Stop::Unreadable)? {
                    Committed::Nothing => (self.machine.advance)(&mut state, position),
                    Committed::Members => {
                        (self.machine.advance)(&mut state, position);
                        self.shared.is_alone.store(self.is_alone(), Ordering::SeqCst);
                    }
                    Committed::Proposal { tag, payload } => {
                        let is_own = (tag.id, tag.boots) == self.core.own();
                        let waiter = is_own.then(|| self.waiters.remove(&tag.sequence)).flatten();
                        match waiter {
                            Some(Waiter { entry, answer, _permit }) => {
                                let applied = (self.machine.apply)(&mut state, position, &entry);
                                answers.push((answer, applied));
                            }
                            None => {
                                let entry = (self.machine.decode)(&payload).map_err(Stop::Unreadable)?;
                                (self.machine.apply)(&mut state, position, &entry);
                            }
                        }
                        recent.push(position, payload);
                    }
                }
                recent.advance(position);
                if position.is_multiple_of(self.settings.hash_every.max(1)) && !self.core.is_alone() {
                    hashes.push((position, (self.machine.hash)(&state)));
                }
            }
        }
        self.core.applied_to(last);
        self.metrics.applied_position.set(last as i64);
        // Before the answers: who is answered must not read an older position.
        self.shared.applied.send_replace(last);
        for (answer, applied) in answers {
            // Whoever proposed may have stopped waiting.
            let _ = answer.send(Ok(applied));
        }
        for (position, hash) in hashes {
            self.core.hashed(position, hash);
        }
        Ok(())
    }

    fn is_alone(&self) -> bool {
        self.core.is_leader() && self.core.is_alone()
    }

    /// Shows callers what changed.
    fn publish(&mut self) {
        *self.shared.standing.lock() = self.core.standing();
        self.metrics.committed_position.set(self.core.commit_index() as i64);
        let is_lone_leader = self.shared.is_alone.load(Ordering::SeqCst) && self.is_alone();
        if is_lone_leader && self.shared.members.borrow().term == self.core.term() {
            // The one thing that moves; and nobody waits for it.
            let last_index = self.core.log().last();
            self.shared.members.send_if_modified(|members| {
                members.last_index = last_index;
                false
            });
            return;
        }
        let members = self.core.members();
        self.shared.is_alone.store(self.is_alone(), Ordering::SeqCst);
        self.metrics.is_leader.set(i64::from(members.is_leader));
        self.metrics.voters.set(members.voters.len() as i64);
        self.metrics.term.set(members.term as i64);
        self.shared.members.send_if_modified(|published| {
            let key = |members: &Members| (members.leader, members.term, members.is_leader);
            let same_members = published.voters == members.voters
                && published.learners == members.learners
                && published.joint == members.joint;
            let is_news = key(published) != key(&members) || !same_members;
            if is_news {
                tracing::info!(
                    leader = members.leader.map(|id| format!("{id:016x}")),
                    term = members.term,
                    is_leader = members.is_leader,
                    voters = members.voters.len(),
                    learners = members.learners.len(),
                    "index group changed"
                );
            }
            *published = members;
            is_news
        });
    }

    fn snapshot_for_peers(&self) -> Option<Vec<u8>> {
        let bytes = (self.machine.snapshot)(&self.shared.state.read());
        let limit = self.settings.snapshot_bytes_max;
        if bytes.len() > limit {
            tracing::error!(
                id = "index-snapshot-too-large",
                bytes = bytes.len(),
                limit,
                "index is too large to be sent to a replica that needs it whole"
            );
            return None;
        }
        Some(bytes)
    }

    fn close(&mut self) -> Result<(), Stop> {
        let is_handing_over = self.core.is_leader() && self.closing.as_ref().is_some_and(|(_, left)| *left > 0);
        if is_handing_over {
            return Ok(());
        }
        self.take_snapshot()?;
        self.is_closed = true;
        for done in self.closing.take().into_iter().flat_map(|(waiting, _)| waiting) {
            // Whoever closed may have stopped waiting.
            let _ = done.send(());
        }
        Ok(())
    }

    /// Takes a snapshot and begins a new log. If that fails, the old log goes on, and it is tried again later.
    fn take_snapshot(&mut self) -> Result<(), Stop> {
        if self.core.applied_index() == self.snapshot {
            return Ok(());
        }
        self.metrics.snapshots.inc();
        match self.write_snapshot() {
            Ok(()) => {
                self.snapshot = self.core.applied_index();
                self.metrics.snapshot_last_success.set(self.parts.clock.now_ms() as f64 / 1000.0);
                self.begin_log()
            }
            Err(error) => {
                self.metrics.snapshots_failed.inc();
                self.try_later();
                tracing::warn!(%error, folder = %self.folder.display(), "index snapshot failed; the log goes on");
                Ok(())
            }
        }
    }

    fn try_later(&mut self) {
        self.snapshot_at_bytes = self.log.bytes() + self.settings.snapshot_after_bytes / 8 + 1;
    }

    fn write_snapshot(&self) -> io::Result<()> {
        let index = self.core.applied_index();
        let term = self.core.log().term_at(index).expect("what is applied is in the log or its base");
        let mut meta = SnapshotMetadata { index, term, ..SnapshotMetadata::default() };
        meta.set_conf_state(self.core.conf().clone());
        let bytes = (self.machine.snapshot)(&self.shared.state.read());
        write_snapshot(&*self.parts.files, &self.folder, &meta, &bytes)
    }

    /// Begins a log that holds what followers may still need and what is not applied yet; the one before goes.
    fn begin_log(&mut self) -> Result<(), Stop> {
        let base = self.next_base();
        let log = self.core.log();
        let entries: Vec<Entry> = log.after(base).cloned().collect();
        let base_term = log.term_at(base).expect("the base is in the log");
        let hard_state = self.core.hard_state();
        let (number, boots) = (self.log.number + 1, self.log.boots());
        let files = &*self.parts.files;
        match Log::create(files, &self.folder, number, boots, (base, base_term), &hard_state, &entries) {
            Ok(log) => {
                self.log = log;
                self.core.log_mut().cut(base);
                self.snapshot_at_bytes = self.log.bytes() + self.settings.snapshot_after_bytes;
                remove_older(files, &self.folder, self.snapshot, number);
            }
            Err(error) => {
                tracing::warn!(%error, folder = %self.folder.display(), "new index log not begun; the old one goes on");
                // What is left of the new one must not be found: a start would take it for the one to go on with.
                let path = self.folder.join(log_name(number));
                let gone = match files.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => files.sync_folder(&self.folder),
                };
                gone.map_err(|error| Stop::Fatal(format!("remove {}: {error}", path.display())))?;
                self.try_later();
            }
        }
        self.metrics.log_bytes.set(self.log.bytes() as i64);
        Ok(())
    }

    /// Where the next log begins: a little before what is applied, so that slow followers need no snapshot.
    fn next_base(&self) -> u64 {
        let applied = self.core.applied_index();
        if self.core.is_alone() {
            return applied;
        }
        let log = self.core.log();
        let mut bytes = 0;
        let mut base = applied;
        for entry in log.entries.iter().rev().skip_while(|entry| entry.index > applied) {
            bytes += entry.data.len() + entry.context.len() + 16;
            if bytes > self.settings.tail_bytes_max {
                break;
            }
            base = entry.index - 1;
        }
        base
    }
}

/// Ends the process if the thread panics while this lives: the state may be half applied.
pub struct PanicIsFatal(pub Arc<dyn Fn(&str) + Send + Sync>);

impl Drop for PanicIsFatal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)("the log's thread panicked");
        }
    }
}
