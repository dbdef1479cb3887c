//! The group: one thread owns the log, everybody else proposes to it and reads the state.
//!
//! The thread takes all proposals that wait, writes them as one record, makes it durable, applies them and
//! answers; what arrives meanwhile is the next batch. So a quiet index answers in one fsync, and a busy one
//! shares it. The state's write lock is held only while a batch is applied.
//!
//! When the log can't be written or fsynced, the process ends (`Parts::fatal`): the kernel may have dropped
//! the bytes and call the next fsync a success. A new start reads what is really there. A full disk is found
//! before the log is touched, and only refuses proposals.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use parking_lot::{Mutex, RwLock};
use runtime::{Clock, Random, Registry};
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{OpenError, ProposeError};
use crate::files::{Files, SystemFiles};
use crate::identity::begin_or_boot;
use crate::log::{Log, Record, log_name, parse_log_name, read_log};
use crate::machine::Machine;
use crate::members::{Identity, Members, MembersError, Start};
use crate::metrics::Metrics;
use crate::recent::Recent;
use crate::settings::Settings;
use crate::snapshot::{parse_snapshot_name, read_snapshot, snapshot_name, write_snapshot};
use crate::standing::{Standing, StandingRefused};
use crate::transport::{NoTransport, Transport};

/// What a group is handed.
#[derive(Clone)]
pub struct Parts {
    /// Where its files lie.
    pub files: Arc<dyn Files>,
    /// For ticks, deadlines and how long things took.
    pub clock: Arc<dyn Clock>,
    /// For the replica's id and the jitter of elections.
    pub random: Random,
    /// Where messages to other replicas go.
    pub transport: Arc<dyn Transport>,
    /// Where its metrics go.
    pub registry: Registry,
    /// Ends the process, with the reason. A test may record it and return; then the group answers nothing more.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Parts {
    /// The machine's files, no other replicas, and an abort when the log fails.
    pub fn system(clock: Arc<dyn Clock>, random: Random, registry: Registry) -> Parts {
        let fatal = |reason: &str| {
            tracing::error!(reason, "index log failed: the process stops, start it again (index-log-failed)");
            std::process::abort();
        };
        Parts {
            files: Arc::new(SystemFiles),
            clock,
            random,
            transport: Arc::new(NoTransport),
            registry,
            fatal: Arc::new(fatal),
        }
    }
}

/// A replicated state. Clones are the same group; when the last is dropped, its thread ends.
pub struct Group<S, E, A> {
    pub(crate) shared: Arc<Shared<S>>,
    machine: Machine<S, E, A>,
    pub(crate) requests: mpsc::Sender<Request<E, A>>,
    settings: Settings,
    folder: PathBuf,
    metrics: Metrics,
    identity: Identity,
    members: watch::Sender<Members>,
}

impl<S, E, A> Clone for Group<S, E, A> {
    fn clone(&self) -> Self {
        Group {
            shared: self.shared.clone(),
            machine: self.machine,
            requests: self.requests.clone(),
            settings: self.settings,
            folder: self.folder.clone(),
            metrics: self.metrics.clone(),
            identity: self.identity,
            members: self.members.clone(),
        }
    }
}

/// Locks are taken in this order: `recent`, then `state`.
pub(crate) struct Shared<S> {
    state: RwLock<S>,
    recent: Mutex<Recent>,
    applied: watch::Sender<u64>,
}

pub(crate) enum Request<E, A> {
    Propose {
        entry: E,
        payload: Vec<u8>,
        answer: oneshot::Sender<Result<A, ProposeError>>,
    },
    /// Snapshot, and end the thread.
    Close {
        done: oneshot::Sender<()>,
    },
}

impl<S, E, A> Group<S, E, A>
where
    S: Send + Sync + 'static,
    E: Send + 'static,
    A: Send + 'static,
{
    /// Whether `folder` holds a replica, to be opened with [`Start::Existing`].
    pub fn exists(files: &dyn Files, folder: &Path) -> bool {
        let names = files.names(folder).unwrap_or_default();
        names.iter().any(|name| parse_snapshot_name(name).is_some() || parse_log_name(name).is_some())
    }

    /// Opens the group in `folder`, or begins one there, as `start` says. Blocks.
    ///
    /// Errors: `Start` when the folder is not as `start` has it; `Corrupt` when the disk lost something that may have been answered; nothing is changed then.
    pub fn open(
        folder: &Path,
        machine: Machine<S, E, A>,
        start: Start<S>,
        settings: Settings,
        parts: Parts,
    ) -> Result<Group<S, E, A>, OpenError> {
        let exists = Self::exists(&*parts.files, folder);
        let refuse = |what| Err(OpenError::Start { folder: folder.to_path_buf(), what });
        let initial = match start {
            Start::Existing if exists => None,
            Start::Existing => return refuse("there is no index in it"),
            Start::Bootstrap(_) | Start::Join(_) if exists => return refuse("there is an index in it already"),
            Start::Bootstrap(state) | Start::Join(state) => Some(state),
        };
        let identity = begin_or_boot(&*parts.files, folder, !exists, &parts.random)?;
        let metrics = Metrics::new(&parts.registry, settings.queue_entries_max);
        let opened = open_files(folder, &machine, initial, &settings, &*parts.files)?;
        tracing::info!(
            position = opened.position,
            snapshot = opened.snapshot,
            entries = opened.position - opened.snapshot,
            torn_bytes = opened.torn_bytes,
            "index log opened"
        );
        metrics.applied_position.set(opened.position as i64);
        let shared = Arc::new(Shared {
            state: RwLock::new(opened.state),
            recent: Mutex::new(opened.recent),
            applied: watch::Sender::new(opened.position),
        });
        let (requests, incoming) = mpsc::channel(settings.queue_entries_max);
        let writer = Writer {
            shared: shared.clone(),
            machine,
            incoming,
            log: opened.log,
            position: opened.position,
            snapshot: opened.snapshot,
            snapshot_at_bytes: settings.snapshot_after_bytes,
            settings,
            folder: folder.to_path_buf(),
            parts,
            metrics: metrics.clone(),
        };
        let named = thread::Builder::new().name("index-log".to_owned());
        named.spawn(move || writer.run()).map_err(|source| OpenError::Io {
            what: "start the thread of",
            path: folder.to_path_buf(),
            source,
        })?;
        let id = identity.id;
        let members = Members { voters: vec![id], leader: Some(id), term: 1, is_leader: true, ..Members::default() };
        Ok(Group {
            shared,
            machine,
            requests,
            settings,
            folder: folder.to_path_buf(),
            metrics,
            identity,
            members: watch::Sender::new(members),
        })
    }

    /// Proposes an entry; answers when it is durable and applied.
    ///
    /// Waits while the queue is full. Dropping the future does not take the proposal back. An error tells
    /// with [`ProposeError::is_certain`] whether the entry may still be in the log.
    pub async fn propose(&self, entry: E) -> Result<A, ProposeError> {
        self.metrics.proposals.inc();
        let payload = (self.machine.encode)(&entry);
        if payload.len() > self.settings.entry_bytes_max {
            self.metrics.proposals_failed.with(["too_large"]).inc();
            return Err(ProposeError::TooLarge { bytes: payload.len(), limit: self.settings.entry_bytes_max });
        }
        let (answer, mut answered) = oneshot::channel();
        let closed = |_| {
            self.metrics.proposals_failed.with(["closed"]).inc();
            ProposeError::Closed
        };
        self.metrics.queue_entries.inc();
        let sent = self.requests.send(Request::Propose { entry, payload, answer }).await;
        if sent.is_err() {
            self.metrics.queue_entries.dec();
            return Err(closed(()));
        }
        // A proposal that enters the queue while the thread ends may lie there for as long as the group lives: whoever
        // waits for its answer alone would wait for ever. What was answered before the end is answered.
        tokio::select! {
            biased;
            answer = &mut answered => answer.map_err(|_| closed(()))?,
            () = self.requests.closed() => answered.try_recv().map_err(|_| closed(()))?,
        }
    }

    /// Looks at the state. Proposals wait meanwhile, so be quick, and don't read inside of a read.
    pub fn read<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.shared.state.read())
    }

    /// The position that a read must have applied to see every proposal that was answered before this call.
    ///
    /// A group of one answers after it has applied, so that is what is applied now; with several replicas it
    /// takes a round trip, and may fail.
    pub async fn read_index(&self) -> Result<u64, ProposeError> {
        Ok(self.applied())
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
        tokio::select! {
            reached = applied.wait_for(|applied| *applied >= position) => {
                reached.map(|_| ()).map_err(|_| ProposeError::Closed)
            }
            () = self.requests.closed() => Err(ProposeError::Closed),
        }
    }

    /// The entries applied after `position`, ascending, and the position that they reach.
    ///
    /// `None`: `position` is too long ago ([`Settings::recent_bytes_max`]); look at the whole state instead.
    pub fn entries_after(&self, position: u64) -> Option<(Vec<(u64, E)>, u64)> {
        let applied = self.applied();
        let recent = self.shared.recent.lock();
        let mut entries = Vec::new();
        // Positions without an entry are covered as well.
        let mut upto = applied.max(position);
        for (at, payload) in recent.after(position)? {
            let entry = (self.machine.decode)(payload).expect("was encoded or decoded here before");
            entries.push((*at, entry));
            upto = upto.max(*at);
        }
        Some((entries, upto))
    }

    /// Answers what was proposed before, writes a snapshot and ends the log's thread.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.requests.send(Request::Close { done }).await.is_ok() {
            // An error, or no answer: the thread has ended already, or with the process.
            tokio::select! {
                _ = closed => {}
                () = self.requests.closed() => {}
            }
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
        tracing::debug!(peer = from, bytes = message.len(), "message for a group of one dropped");
    }

    /// The transport can't reach `peer` now: entries are sent to it one message at a time until it answers.
    pub fn unreachable(&self, peer: u64) {
        tracing::debug!(peer, "peer of a group of one unreachable");
    }

    /// The transport has carried a message as large as a snapshot to `peer`, or has failed to.
    pub fn report_snapshot(&self, peer: u64, is_sent: bool) {
        tracing::debug!(peer, is_sent, "snapshot of a group of one reported");
    }

    /// Who is in the group, as this replica knows it.
    pub fn members(&self) -> Members {
        Members { last_index: self.applied(), ..self.members.borrow().clone() }
    }

    /// The members, to wait for changes of who is in and who leads; progress alone does not wake.
    pub fn watch_members(&self) -> watch::Receiver<Members> {
        self.members.subscribe()
    }

    /// Adds a replica that follows and does not vote. Answers when that is applied here.
    pub async fn add_learner(&self, id: u64) -> Result<(), MembersError> {
        self.one_only(id)
    }

    /// Makes a learner that has caught up a voter.
    pub async fn promote(&self, id: u64) -> Result<(), MembersError> {
        self.one_only(id)
    }

    /// Makes a voter a learner.
    pub async fn demote(&self, id: u64) -> Result<(), MembersError> {
        self.one_only(id)
    }

    /// Removes a replica, voter or learner. Its id is not used again.
    pub async fn remove(&self, id: u64) -> Result<(), MembersError> {
        self.one_only(id)
    }

    /// Removes voter `old` and makes learner `new`, which has caught up, a voter, in one joint change.
    pub async fn replace(&self, old: u64, new: u64) -> Result<(), MembersError> {
        tracing::debug!(old, new, "replacement in a group of one refused");
        self.one_only(new)
    }

    /// Hands leadership to a voter that has caught up; answers when it leads, as far as this replica knows.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), MembersError> {
        if to == self.identity.id { Ok(()) } else { self.one_only(to) }
    }

    fn one_only(&self, id: u64) -> Result<(), MembersError> {
        Err(MembersError::Invalid { what: format!("replica {id:016x}: this version keeps one replica") })
    }

    /// What this replica says of itself in a hello: all of it is durable.
    pub fn standing(&self) -> Standing {
        Standing { id: self.identity.id, last_index: self.applied(), term: 1, boots: self.identity.boots }
    }

    /// Judges what another replica says of itself, and remembers it: less than it had before is refused.
    pub fn judge(&self, standing: &Standing) -> Result<(), StandingRefused> {
        tracing::debug!(?standing, "standing heard by a group of one");
        Ok(())
    }
}

struct Opened<S> {
    state: S,
    recent: Recent,
    log: Log,
    position: u64,
    snapshot: u64,
    torn_bytes: u64,
}

fn open_files<S, E, A>(
    folder: &Path,
    machine: &Machine<S, E, A>,
    initial: Option<S>,
    settings: &Settings,
    files: &dyn Files,
) -> Result<Opened<S>, OpenError> {
    let io = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| OpenError::Io { what, path, source }
    };
    files.create_folder(folder).map_err(io("create", folder))?;
    let names = files.names(folder).map_err(io("list", folder))?;
    let mut logs: Vec<u64> = names.iter().filter_map(|name| parse_log_name(name)).collect();
    logs.sort_unstable();

    let (mut state, snapshot) = match names.iter().filter_map(|name| parse_snapshot_name(name)).max() {
        Some(position) => {
            let path = folder.join(snapshot_name(position));
            let bytes = files.read(&path).map_err(io("read", &path))?;
            let state = (machine.restore)(read_snapshot(&path, &bytes, position)?)
                .map_err(|source| OpenError::Unreadable { path, source })?;
            (state, position)
        }
        // The first snapshot is durable before the first log is created.
        None if !logs.is_empty() => {
            let what = "it holds logs and no snapshot to apply them to".to_owned();
            return Err(OpenError::Corrupt { path: folder.to_path_buf(), offset: 0, what });
        }
        None => {
            let state = initial.expect("the folder was looked at before");
            write_snapshot(files, folder, 0, &(machine.snapshot)(&state)).map_err(io("begin", folder))?;
            (state, 0)
        }
    };

    // A log is done with when the next one begins at or before what follows the snapshot.
    let needed = logs.iter().rposition(|first| *first <= snapshot + 1).unwrap_or(0);
    let mut position = snapshot;
    let mut recent = Recent::new(snapshot, settings.recent_bytes_max);
    // Of the last log: its first position, the one after its end, whole bytes, torn bytes.
    let mut last: Option<(u64, u64, u64, u64)> = None;
    for (i, first) in logs.iter().enumerate().skip(needed) {
        let path = folder.join(log_name(*first));
        let bytes = files.read(&path).map_err(io("read", &path))?;
        let contents = read_log(&path, &bytes, *first, i + 1 == logs.len())?;
        if *first > position + 1 {
            let what = format!("it begins with position {first}, but {} comes first", position + 1);
            return Err(OpenError::Corrupt { path, offset: 0, what });
        }
        for (at, payload) in &contents.entries {
            if *at <= position {
                continue;
            }
            let entry =
                (machine.decode)(payload).map_err(|source| OpenError::Unreadable { path: path.clone(), source })?;
            (machine.apply)(&mut state, *at, &entry);
            recent.push(*at, payload.to_vec());
            position = *at;
        }
        let end = *first + contents.entries.len() as u64;
        last = Some((*first, end, contents.whole_bytes, bytes.len() as u64 - contents.whole_bytes));
    }

    // Everything is read and understood: only now is anything changed.
    let (log, torn_bytes) = match last {
        Some((first, end, whole_bytes, torn_bytes)) if whole_bytes > 0 && end == position + 1 => {
            let path = folder.join(log_name(first));
            let log = Log::open(files, path.clone(), whole_bytes).map_err(io("open", &path))?;
            (log, torn_bytes)
        }
        // None yet, one that was never finished being created, or one that ends before the snapshot.
        _ => (Log::create(files, folder, position + 1).map_err(io("create a log in", folder))?, 0),
    };
    files.sync_folder(folder).map_err(io("sync", folder))?;
    remove_older(files, folder, snapshot, &logs[..needed]);
    Ok(Opened { state, recent, log, position, snapshot, torn_bytes })
}

/// Removes what a durable snapshot made needless. What is left over is removed next time.
fn remove_older(files: &dyn Files, folder: &Path, snapshot: u64, logs: &[u64]) {
    let mut needless: Vec<String> = logs.iter().map(|first| log_name(*first)).collect();
    let names = files.names(folder).unwrap_or_default();
    let is_needless =
        |name: &String| parse_snapshot_name(name).is_some_and(|at| at < snapshot) || name.ends_with(".tmp");
    needless.extend(names.into_iter().filter(is_needless));
    for name in needless {
        if let Err(error) = files.remove(&folder.join(&name)) {
            tracing::warn!(file = name, %error, "old index log file not removed");
        }
    }
}

/// The log's thread.
struct Writer<S, E, A> {
    shared: Arc<Shared<S>>,
    machine: Machine<S, E, A>,
    incoming: mpsc::Receiver<Request<E, A>>,
    log: Log,
    /// The last applied.
    position: u64,
    /// The position of the newest durable snapshot.
    snapshot: u64,
    /// When the log is as long as this, a snapshot is tried.
    snapshot_at_bytes: u64,
    settings: Settings,
    folder: PathBuf,
    parts: Parts,
    metrics: Metrics,
}

/// A proposal that is taken from the queue.
struct Taken<E, A> {
    entry: E,
    payload: Vec<u8>,
    answer: oneshot::Sender<Result<A, ProposeError>>,
}

/// The log is not what memory says it is: nothing may go on.
struct Fatal(String);

/// Ends the process if the thread panics while this lives: the state may be half applied.
struct PanicIsFatal(Arc<dyn Fn(&str) + Send + Sync>);

impl Drop for PanicIsFatal {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)("the log's thread panicked");
        }
    }
}

impl<S, E, A> Writer<S, E, A> {
    fn run(mut self) {
        let _guard = PanicIsFatal(self.parts.fatal.clone());
        if let Err(Fatal(reason)) = self.serve() {
            (self.parts.fatal)(&reason);
        }
    }

    fn serve(&mut self) -> Result<(), Fatal> {
        while let Some(request) = self.incoming.blocking_recv() {
            let mut batch = Vec::new();
            let mut record = Record::new();
            let mut close = None;
            let mut next = Some(request);
            while let Some(request) = next {
                match request {
                    Request::Propose { entry, payload, answer } => {
                        self.metrics.queue_entries.dec();
                        record.push(&payload);
                        batch.push(Taken { entry, payload, answer });
                    }
                    Request::Close { done } => {
                        close = Some(done);
                        break;
                    }
                }
                if record.len() >= self.settings.batch_bytes_max {
                    break;
                }
                next = self.incoming.try_recv().ok();
            }
            if !batch.is_empty() {
                self.commit(batch, record)?;
            }
            if close.is_some() || self.log.bytes() >= self.snapshot_at_bytes {
                self.snapshot()?;
            }
            if let Some(done) = close {
                self.incoming.close();
                // Whoever closed may have stopped waiting.
                let _ = done.send(());
                return Ok(());
            }
        }
        Ok(())
    }

    fn commit(&mut self, batch: Vec<Taken<E, A>>, record: Record) -> Result<(), Fatal> {
        let record = record.finish(self.position + 1);
        if let Err(error) = self.log.reserve(&record) {
            self.refuse(batch, &error);
            return Ok(());
        }
        let started = self.parts.clock.boottime();
        if let Err(error) = self.log.append(&record) {
            return Err(Fatal(format!("write {}: {error}", self.log.path.display())));
        }
        self.metrics.sync_duration.observe((self.parts.clock.boottime() - started).as_secs_f64());
        self.metrics.batch_entries.observe(batch.len() as f64);
        self.metrics.log_bytes.set(self.log.bytes() as i64);

        let mut answers = Vec::with_capacity(batch.len());
        {
            let mut recent = self.shared.recent.lock();
            let mut state = self.shared.state.write();
            // Dropped before the lock is: nobody reads a state that is half applied.
            let _guard = PanicIsFatal(self.parts.fatal.clone());
            for Taken { entry, payload, answer } in batch {
                self.position += 1;
                let applied = (self.machine.apply)(&mut state, self.position, &entry);
                recent.push(self.position, payload);
                answers.push((answer, applied));
            }
        }
        self.metrics.applied_position.set(self.position as i64);
        // Before the answers: who is answered must not read an older position.
        self.shared.applied.send_replace(self.position);
        for (answer, applied) in answers {
            // Whoever proposed may have stopped waiting.
            let _ = answer.send(Ok(applied));
        }
        Ok(())
    }

    /// The log is untouched: these proposals fail, the next ones are tried again.
    fn refuse(&self, batch: Vec<Taken<E, A>>, error: &io::Error) {
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let folder = self.folder.clone();
        let (reason, refused) = if is_full {
            ("no_space", ProposeError::NoSpace { folder })
        } else {
            ("refused", ProposeError::Refused { folder, reason: error.to_string() })
        };
        self.metrics.proposals_failed.with([reason]).inc_by(batch.len() as u64);
        tracing::warn!(%error, folder = %self.folder.display(), proposals = batch.len(), "index log refused proposals");
        for taken in batch {
            // Whoever proposed may have stopped waiting.
            let _ = taken.answer.send(Err(refused.clone()));
        }
    }

    /// Takes a snapshot and begins a new log. If that fails, the old log goes on, and it is tried again later.
    fn snapshot(&mut self) -> Result<(), Fatal> {
        if self.position == self.snapshot {
            return Ok(());
        }
        self.metrics.snapshots.inc();
        match self.write_snapshot() {
            Ok(()) => {
                self.snapshot = self.position;
                self.snapshot_at_bytes = self.settings.snapshot_after_bytes;
                self.metrics.snapshot_last_success.set(self.parts.clock.now_ms() as f64 / 1000.0);
                self.begin_log()
            }
            Err(error) => {
                self.metrics.snapshots_failed.inc();
                self.snapshot_at_bytes = self.log.bytes() + self.settings.snapshot_after_bytes / 8 + 1;
                tracing::warn!(%error, folder = %self.folder.display(), "index snapshot failed; the log goes on");
                Ok(())
            }
        }
    }

    fn write_snapshot(&self) -> io::Result<()> {
        let bytes = (self.machine.snapshot)(&self.shared.state.read());
        write_snapshot(&*self.parts.files, &self.folder, self.position, &bytes)
    }

    /// Begins the log after the snapshot and removes what lies before it.
    fn begin_log(&mut self) -> Result<(), Fatal> {
        let files = &*self.parts.files;
        let next = self.position + 1;
        match Log::create(files, &self.folder, next) {
            Ok(log) => {
                self.log = log;
                let names = files.names(&self.folder).unwrap_or_default();
                let logs = names.iter().filter_map(|name| parse_log_name(name));
                let older: Vec<u64> = logs.filter(|first| *first < next).collect();
                remove_older(files, &self.folder, self.snapshot, &older);
            }
            Err(error) => {
                tracing::warn!(%error, folder = %self.folder.display(), "new index log not begun; the old one goes on");
                // What is left of the new one must not be found beside entries of the same positions in the old
                // one: a start would take it for the one to go on with.
                let path = self.folder.join(log_name(next));
                let gone = match files.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => files.sync_folder(&self.folder),
                };
                gone.map_err(|error| Fatal(format!("remove {}: {error}", path.display())))?;
                self.snapshot_at_bytes = self.log.bytes() + self.settings.snapshot_after_bytes / 8 + 1;
            }
        }
        self.metrics.log_bytes.set(self.log.bytes() as i64);
        Ok(())
    }
}
