//! The group, as its callers see it: one thread drives the replica, everybody else hands it what to do and reads
//! the state.
//!
//! The thread takes all that waits, writes it as one record, makes it durable, applies what is committed and
//! answers; what arrives meanwhile is the next batch. So a quiet index answers in one fsync, and a busy one shares
//! it. The state's write lock is held only while a batch is applied.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use runtime::{Clock, Random, Registry};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::core::{Change, Core};
use crate::error::{OpenError, ProposeError};
use crate::files::{Files, SystemFiles};
use crate::folder;
use crate::machine::Machine;
use crate::members::{Identity, Members, MembersError, Start};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::recent::Recent;
use crate::replica::{Answer, Input, PanicIsFatal, Replica, Shared, Stop};
use crate::settings::Settings;
use crate::standing::{Seen, Standing, StandingRefused};
use crate::transport::{NoTransport, Transport};

/// Ticks that are made up for after the thread was held up; more are lost. The others' messages of the meantime were
/// taken in before, but a disk that stalls for seconds must not look like a silent leader.
const TICKS_AT_ONCE_MAX: u64 = 3;
/// What a queued message takes beside its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// A group's metrics, registered by the first that is opened with it. Clones are the same.
#[derive(Clone, Default)]
pub struct MetricsOnce(Arc<OnceLock<Metrics>>);

/// What a group is handed.
#[derive(Clone)]
pub struct Parts {
    /// Where its files lie.
    pub files: Arc<dyn Files>,
    /// For ticks, deadlines and how long things took.
    pub clock: Arc<dyn Clock>,
    /// For the replica's id.
    pub random: Random,
    /// Where messages to other replicas go.
    pub transport: Arc<dyn Transport>,
    /// Where its metrics go.
    pub registry: Registry,
    /// Those metrics: a group that is closed and opened again goes on with them. Empty at first.
    pub metrics: MetricsOnce,
    /// Ends the process, with the reason. A test may record it and return; then the group answers nothing more.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Parts {
    /// The machine's files, no other replicas, and an abort when the log fails.
    pub fn system(clock: Arc<dyn Clock>, random: Random, registry: Registry) -> Parts {
        let fatal = |reason: &str| {
            tracing::error!(
                id = "index-log-failed",
                reason,
                "index log failed: the process stops, start it again unless the reason says otherwise (index-log-failed)"
            );
            std::process::abort();
        };
        Parts {
            files: Arc::new(SystemFiles),
            clock,
            random,
            transport: Arc::new(NoTransport),
            registry,
            metrics: MetricsOnce::default(),
            fatal: Arc::new(fatal),
        }
    }
}

/// A replicated state. Clones are the same group; when the last is dropped, its thread ends.
pub struct Group<S, E, A> {
    pub(crate) shared: Arc<Shared<S>>,
    machine: Machine<S, E, A>,
    door: Arc<Door<E, A>>,
    settings: Settings,
    folder: PathBuf,
    metrics: Metrics,
    identity: Identity,
}

/// The last one out closes it.
struct Door<E, A> {
    inputs: Arc<Inputs<E, A>>,
}

struct Inputs<E, A> {
    queue: Queue<Input<E, A>>,
    /// Proposals that wait or are under way.
    proposals: Arc<Semaphore>,
    has_ended: watch::Sender<bool>,
}

impl<E, A> Inputs<E, A> {
    fn close(&self) {
        self.queue.close();
        self.proposals.close();
        self.has_ended.send_replace(true);
    }
}

impl<E, A> Drop for Door<E, A> {
    fn drop(&mut self) {
        self.inputs.close();
    }
}

impl<S, E, A> Clone for Group<S, E, A> {
    fn clone(&self) -> Self {
        Group {
            shared: self.shared.clone(),
            machine: self.machine,
            door: self.door.clone(),
            settings: self.settings,
            folder: self.folder.clone(),
            metrics: self.metrics.clone(),
            identity: self.identity,
        }
    }
}

impl<S, E, A> Group<S, E, A>
where
    S: Send + Sync + 'static,
    E: Send + 'static,
    A: Send + 'static,
{
    /// Whether `folder` holds a replica, to be opened with [`Start::Existing`].
    pub fn exists(files: &dyn Files, folder: &Path) -> bool {
        folder::exists(files, folder)
    }

    /// Opens the group in `folder`, or begins one there, as `start` says. Blocks.
    ///
    /// When it returns, everything is applied that this replica knows to be committed: with one voter that is all,
    /// with more a leader tells the rest ([`Group::read_index`]).
    ///
    /// Errors: `Start` when the folder is not as `start` has it; `Corrupt` when the disk lost something that may
    /// have been answered; nothing is changed then.
    pub fn open(
        folder: &Path,
        machine: Machine<S, E, A>,
        start: Start<S>,
        settings: Settings,
        parts: Parts,
    ) -> Result<Group<S, E, A>, OpenError> {
        let registered = || Metrics::new(&parts.registry, settings.queue_entries_max);
        let metrics = parts.metrics.0.get_or_init(registered).clone();
        begin(folder, &machine, start, &parts)?;
        let (replica, identity) = open_replica(folder, machine, settings, parts.clone(), metrics.clone())?;
        let shared = replica.shared().clone();
        let inputs = Arc::new(Inputs {
            queue: Queue::new(settings.messages_bytes_max),
            proposals: Arc::new(Semaphore::new(settings.queue_entries_max)),
            has_ended: watch::Sender::new(false),
        });
        let door = Arc::new(Door { inputs: inputs.clone() });
        let thread = Thread { replica, inputs, settings, parts };
        let named = thread::Builder::new().name("index-log".to_owned());
        named.spawn(move || thread.run()).map_err(|source| OpenError::Io {
            what: "start the thread of",
            path: folder.to_path_buf(),
            source,
        })?;
        Ok(Group { shared, machine, door, settings, folder: folder.to_path_buf(), metrics, identity })
    }

    /// Proposes an entry; answers when it is durable, committed and applied here.
    ///
    /// Goes to the leader, wherever it is, and to the next one when that changes; so an entry may be applied
    /// twice, and must be such that the second time does no harm. Waits while too many are under way. Dropping the
    /// future does not take the proposal back. An error tells with [`ProposeError::is_certain`] whether the entry
    /// may still be in the log.
    pub async fn propose(&self, entry: E) -> Result<A, ProposeError> {
        self.metrics.proposals.inc();
        let payload = (self.machine.encode)(&entry);
        if payload.len() > self.settings.entry_bytes_max {
            self.metrics.proposals_failed.with(["too_large"]).inc();
            return Err(ProposeError::TooLarge { bytes: payload.len(), limit: self.settings.entry_bytes_max });
        }
        self.metrics.queue_entries.inc();
        let answer = self.propose_payload(entry, payload).await;
        self.metrics.queue_entries.dec();
        answer.unwrap_or_else(|| {
            self.metrics.proposals_failed.with(["closed"]).inc();
            Err(ProposeError::Closed)
        })
    }

    /// `None`: closed.
    async fn propose_payload(&self, entry: E, payload: Vec<u8>) -> Option<Result<A, ProposeError>> {
        let permit = self.door.inputs.proposals.clone().acquire_owned().await.ok()?;
        self.ask(|answer| Input::Propose { entry, payload, answer, permit }).await
    }

    /// `None`: closed.
    async fn ask<T, X>(&self, input: impl FnOnce(Answer<T, X>) -> Input<E, A>) -> Option<Result<T, X>> {
        let (answer, answered) = oneshot::channel();
        // What waits in the queue when it closes is dropped, and its answer with it.
        if !self.door.inputs.queue.push(input(answer)) {
            return None;
        }
        answered.await.ok()
    }

    /// Looks at the state. Proposals wait meanwhile, so be quick, and don't read inside of a read.
    pub fn read<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.shared.state.read())
    }

    /// The position that a read must have applied to see every proposal that was answered before this call, by
    /// whichever replica: [`Group::wait_applied`] waits for it.
    ///
    /// Asks the leader, and the leader asks a majority whether it still is; all who wait share one question. Errors:
    /// `NoLeader` after a bounded time.
    pub async fn read_index(&self) -> Result<u64, ProposeError> {
        // Nobody else can have answered anything.
        if self.shared.is_alone.load(Ordering::SeqCst) {
            return Ok(self.applied());
        }
        self.ask(Input::Read).await.unwrap_or(Err(ProposeError::Closed))
    }

    /// The last position applied.
    pub fn applied(&self) -> u64 {
        *self.shared.applied.borrow()
    }

    /// The last position applied, to wait for changes of it. The state is at least there when this says so.
    pub fn watch_applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// Waits until `position` is applied. `Err`: the group was closed before.
    pub async fn wait_applied(&self, position: u64) -> Result<(), ProposeError> {
        let mut applied = self.watch_applied();
        let mut ended = self.door.inputs.has_ended.subscribe();
        tokio::select! {
            biased;
            reached = applied.wait_for(|applied| *applied >= position) => {
                reached.map(|_| ()).map_err(|_| ProposeError::Closed)
            }
            _ = ended.wait_for(|ended| *ended) => Err(ProposeError::Closed),
        }
    }

    /// The entries applied after `position`, ascending, and the position that they reach.
    ///
    /// `None`: `position` is too long ago ([`Settings::recent_bytes_max`]); look at the whole state instead.
    pub fn entries_after(&self, position: u64) -> Option<(Vec<(u64, E)>, u64)> {
        let recent = self.shared.recent.lock();
        let mut entries = Vec::new();
        for (at, payload) in recent.after(position)? {
            let entry = (self.machine.decode)(payload).expect("was encoded or decoded here before");
            entries.push((*at, entry));
        }
        // Positions without an entry are covered as well.
        Some((entries, recent.upto().max(position)))
    }

    /// Hands leadership over if it has it and there is anybody, answers what was proposed before, writes a snapshot
    /// and ends the group's thread.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.door.inputs.queue.push(Input::Close(done)) {
            // An error: the thread has ended already, or with the process.
            let _ = closed.await;
        }
    }

    /// Where its files lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Who this replica is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Takes a message that the transport received from replica `from`. Never blocks; drops it when too many wait.
    pub fn receive(&self, from: u64, message: Vec<u8>) {
        let bytes = message.len() + MESSAGE_OVERHEAD_BYTES;
        if bytes > self.settings.messages_bytes_max {
            self.metrics.messages_dropped.with(["too_large"]).inc();
        } else if !self.door.inputs.queue.offer(Input::Message { from, bytes: message }, bytes) {
            self.metrics.messages_dropped.with(["queue_full"]).inc();
        }
    }

    /// The transport can't reach `peer` now: entries are sent to it one message at a time until it answers.
    pub fn unreachable(&self, peer: u64) {
        self.door.inputs.queue.push(Input::Unreachable(peer));
    }

    /// The transport has carried a message as large as a snapshot to `peer`, or has failed to. Without it a snapshot
    /// that got lost is sent again after [`Settings::snapshot_wait`].
    pub fn report_snapshot(&self, peer: u64, is_sent: bool) {
        self.door.inputs.queue.push(Input::SnapshotReported { peer, is_sent });
    }

    /// Who is in the group, as this replica knows it.
    pub fn members(&self) -> Members {
        self.shared.members.borrow().clone()
    }

    /// The members, to wait for changes of who is in and who leads; progress alone does not wake.
    pub fn watch_members(&self) -> watch::Receiver<Members> {
        self.shared.members.subscribe()
    }

    /// Adds a replica that follows and does not vote. Answers when that is applied here.
    pub async fn add_learner(&self, id: u64) -> Result<(), MembersError> {
        self.change(Change::AddLearner(id)).await
    }

    /// Makes a learner that has caught up a voter.
    pub async fn promote(&self, id: u64) -> Result<(), MembersError> {
        self.change(Change::Promote(id)).await
    }

    /// Makes a voter a learner.
    pub async fn demote(&self, id: u64) -> Result<(), MembersError> {
        self.change(Change::Demote(id)).await
    }

    /// Removes a replica, voter or learner. Its id is not used again.
    pub async fn remove(&self, id: u64) -> Result<(), MembersError> {
        self.change(Change::Remove(id)).await
    }

    /// Removes voter `old` and makes learner `new`, which has caught up, a voter, in one joint change.
    pub async fn replace(&self, old: u64, new: u64) -> Result<(), MembersError> {
        self.change(Change::Replace { old, new }).await
    }

    async fn change(&self, change: Change) -> Result<(), MembersError> {
        self.ask(|answer| Input::Change(change, answer)).await.unwrap_or(Err(MembersError::Closed))
    }

    /// Hands leadership to a voter; answers when it leads, as far as this replica knows.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), MembersError> {
        self.ask(|answer| Input::Transfer(to, answer)).await.unwrap_or(Err(MembersError::Closed))
    }

    /// What this replica says of itself in a hello: all of it is durable.
    pub fn standing(&self) -> Standing {
        *self.shared.standing.lock()
    }

    /// What was seen of the other replicas by now.
    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().clone()
    }

    /// Judges what another replica says of itself, and remembers it: less than it had in `before`, which is to be taken
    /// before the other begins to say it, is refused.
    pub fn judge(&self, standing: &Standing, before: &Seen) -> Result<(), StandingRefused> {
        self.shared.seen.lock().judge(standing, before)
    }
}

/// Makes the folder what `start` says.
fn begin<S, E, A>(path: &Path, machine: &Machine<S, E, A>, start: Start<S>, parts: &Parts) -> Result<(), OpenError> {
    let files = &*parts.files;
    let exists = folder::exists(files, path);
    let refuse = |what| Err(OpenError::Start { folder: path.to_path_buf(), what });
    match start {
        Start::Existing if exists => Ok(()),
        Start::Existing => refuse("there is no index in it"),
        Start::Join(_) if exists => refuse("there is an index in it already"),
        Start::Join(state) => folder::begin(files, path, &parts.random, &(machine.snapshot)(&state), false),
        Start::Bootstrap(mut state) => {
            (machine.advance)(&mut state, 1);
            let state = (machine.snapshot)(&state);
            if exists {
                folder::bootstrap_joined(files, path, &state)
            } else {
                folder::begin(files, path, &parts.random, &state, true)
            }
        }
    }
}

/// Opens the folder's replica, without a thread.
pub(crate) fn open_replica<S, E, A>(
    path: &Path,
    machine: Machine<S, E, A>,
    settings: Settings,
    parts: Parts,
    metrics: Metrics,
) -> Result<(Replica<S, E, A>, Identity), OpenError>
where
    S: 'static,
    E: 'static,
    A: 'static,
{
    let unreadable = |source| OpenError::Unreadable { path: path.to_path_buf(), source };
    let mut stored = folder::read(&*parts.files, path)?;
    let state = (machine.restore)(&std::mem::take(&mut stored.state)).map_err(unreadable)?;
    let log = folder::open_log(&*parts.files, path, &stored)?;
    let identity = Identity { id: stored.id, boots: log.boots() };
    let (snapshot, entries) = (stored.meta.index, stored.log.entries.len());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let reads_payload = Box::new(move |payload: &[u8]| (machine.decode)(payload).is_ok());
    let core = Core::new(identity, stored.log, snapshot, settings, seen.clone(), reads_payload).map_err(unreadable)?;
    let shared = Arc::new(Shared {
        state: RwLock::new(state),
        recent: Mutex::new(Recent::new(snapshot, settings.recent_bytes_max)),
        applied: watch::Sender::new(snapshot),
        members: watch::Sender::new(Members::default()),
        standing: Mutex::new(core.standing()),
        seen,
        is_alone: false.into(),
    });
    let stopped = |stop| match stop {
        Stop::Unreadable(source) => OpenError::Unreadable { path: path.to_path_buf(), source },
        Stop::Fatal(reason) => {
            OpenError::Io { what: "write to", path: path.to_path_buf(), source: std::io::Error::other(reason) }
        }
    };
    let replica = Replica::start(shared, machine, core, log, settings, path.to_path_buf(), parts, metrics);
    let replica = replica.map_err(stopped)?;
    tracing::info!(
        replica = format!("{:016x}", identity.id),
        boots = identity.boots,
        position = replica.applied(),
        snapshot,
        entries,
        "index log opened"
    );
    Ok((replica, identity))
}

/// The group's thread.
struct Thread<S, E, A> {
    replica: Replica<S, E, A>,
    inputs: Arc<Inputs<E, A>>,
    settings: Settings,
    parts: Parts,
}

impl<S, E, A> Thread<S, E, A> {
    fn run(mut self) {
        let fatal = self.parts.fatal.clone();
        let inputs = self.inputs.clone();
        {
            let _guard = PanicIsFatal(fatal.clone());
            // Also when it panics, for a test whose `fatal` returns.
            let _closed = Closed(inputs);
            if let Err(stop) = self.serve() {
                let reason = match stop {
                    Stop::Fatal(reason) => reason,
                    Stop::Unreadable(source) => {
                        format!("an entry or a state can't be read: {source} (index-log-unreadable)")
                    }
                };
                fatal(&reason);
            }
        }
    }

    fn serve(&mut self) -> Result<(), Stop> {
        let clock = self.parts.clock.clone();
        let tick = self.settings.tick;
        let mut last = clock.boottime();
        while !self.replica.is_closed() {
            let needs_ticks = self.replica.needs_ticks();
            let timeout = needs_ticks.then(|| tick.saturating_sub(clock.boottime().saturating_sub(last)));
            let mut inputs = Vec::new();
            let mut bytes = 0;
            let is_open = self.inputs.queue.wait(timeout.map(|left| left.max(Duration::from_millis(1))), |input| {
                let ends = matches!(input, Input::Close(_));
                bytes += input.bytes();
                inputs.push(input);
                ends || bytes >= self.settings.batch_bytes_max
            });
            if !is_open {
                return Ok(());
            }
            let now = clock.boottime();
            let mut ticks = 0;
            while now.saturating_sub(last) >= tick && ticks < TICKS_AT_ONCE_MAX {
                last += tick;
                ticks += 1;
            }
            if now.saturating_sub(last) >= tick || !needs_ticks {
                last = now;
            }
            if !needs_ticks {
                ticks = 0;
            }
            if ticks > 0 || !inputs.is_empty() {
                self.replica.turn(inputs, ticks)?;
            }
        }
        Ok(())
    }
}

struct Closed<E, A>(Arc<Inputs<E, A>>);

impl<E, A> Drop for Closed<E, A> {
    fn drop(&mut self) {
        self.0.close();
    }
}
