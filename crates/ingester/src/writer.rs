//! The writer: drives flush and cut from one task, for one registration after another.
//!
//! A writer that was fenced while its process lives ends: whoever waits for it is answered 503 (the samples may be stored
//! all the same, and are sent again), and a new one registers, for which every series is new. The old head stays, as it
//! is a fold over committed segments, until the writer is adopted.
//!
//! All that the two machines say is done here, one event at a time, so nothing happens between two of their steps. What takes
//! long (encoding, PUTs, proposals, packing) runs in tasks that report back as an [`Event`]. The head takes in a
//! segment right after its commit, in this task, then the requests that wait for it are woken.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use consensus::ProposeError;
use head::Head;
use index::{Applied, BlockId, BlockMeta, Command, Entry, Refused, SegmentMeta, Stage as WriterStage};
use model::{ObjectKey, Right, SegmentNumber, WriterId};
use runtime::{Stage, StopReason};
use segment::Columns;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use crate::adoption;
use crate::append::{Sealed, Waiter};
use crate::cut::{self, CutMachine, CutRules};
use crate::error::IngesterError;
use crate::flush::{self, AttemptRules, Flush, FlushRules};
use crate::heads::WriterHeads;
use crate::ingester::{Registration, Shared};
use crate::pack::pack;
use crate::plant::{Plant, is_planted};
use crate::settings::SERIES_BYTES;
use crate::verdict::{self, Verdict};

/// First wait after a failed PUT, doubled each time.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two tries.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
/// Wait before an entry that found no leader is proposed again. While there is none that costs nothing, and segments wait for
/// it: a delay that grows would make an election of three seconds one of six.
const NO_LEADER_DELAY: Duration = Duration::from_millis(100);

/// How PUTs of segments are timed out and hedged where they cross a network (RELIABILITY.md, row 5; docs/decisions/0006).
const ATTEMPTS: AttemptRules = AttemptRules {
    timeout_min: Duration::from_secs(2),
    timeout_max: Duration::from_secs(30),
    hedge_min: Duration::from_millis(20),
    hedge_unknown: Duration::from_millis(500),
};
/// Segments on their way at once to a disk: one that is larger costs the disk and the index less than two (decision 0009).
const DISK_SLOTS: usize = 1;
/// How often a process without a session looks whether it has one again, before it registers a writer.
const SESSION_WAIT: Duration = Duration::from_millis(100);

/// What a task reports back to the writer.
#[derive(Debug)]
pub(crate) enum Event {
    /// A segment is stored.
    Stored { n: SegmentNumber, attempt: u32, bytes: u64 },
    /// A PUT of a segment failed.
    NotStored { n: SegmentNumber, attempt: u32, why: String },
    /// A segment's entry was applied.
    Committed { n: SegmentNumber },
    /// The frozen head's block is stored.
    BlockStored(BlockMeta),
    /// It is not.
    BlockNotStored { why: String },
    /// The cut's entry was applied.
    CutCommitted,
    /// Somebody wants the head cut.
    CutWanted,
    /// An entry was refused because the writer is fenced, or closed already.
    Fenced,
    /// The writer can't go on.
    Failed(IngesterError),
}

/// How a writer ends.
enum End {
    /// The process stops: everything is flushed and cut.
    Stopped,
    /// The others took this node for dead.
    Fenced,
    /// The session was over when an entry was applied, though nobody has fenced the writer yet.
    SessionOver,
    Failed(IngesterError),
}

impl From<IngesterError> for End {
    fn from(failure: IngesterError) -> End {
        End::Failed(failure)
    }
}

/// A sealed segment until it is committed.
struct Pending {
    columns: Arc<Columns>,
    /// What is PUT, the same at every attempt.
    object: Arc<std::sync::OnceLock<Bytes>>,
    first_after_cut: bool,
    sealed_at: model::Revision,
    waiters: Vec<Waiter>,
    memory_bytes: usize,
    stored_bytes: u64,
}

/// A PUT under way; it is stopped when this is dropped, also with the writer. What has been sent may be stored all the same.
struct Put(JoinHandle<()>);

impl Drop for Put {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// See the module.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    id: WriterId,
    heads: Arc<WriterHeads>,
    flush: Flush,
    cut: CutMachine,
    pending: BTreeMap<SegmentNumber, Pending>,
    /// PUTs of segments that are under way.
    puts: HashMap<(SegmentNumber, u32), Put>,
    frozen: Option<(Arc<Head>, Duration)>,
    events: mpsc::UnboundedSender<Event>,
}

/// Registers the first writer, and starts the task that it and those after it live in.
pub(crate) async fn start(shared: &Arc<Shared>) -> Result<(), IngesterError> {
    // Its head is there, and counted, before the first request comes.
    let first = Writer::new(shared, register(shared).await?);
    shared.parts.tasks.spawn("ingester.write", Stage::Flushing, live(shared.clone(), first));
    Ok(())
}

type Inbox = mpsc::UnboundedReceiver<Event>;

/// One writer after another, until the process stops.
async fn live(shared: Arc<Shared>, (mut writer, mut inbox): (Writer, Inbox)) {
    let shutdown = shared.parts.tasks.shutdown().clone();
    loop {
        let id = writer.id;
        let end = writer.run(inbox).await;
        let why = match end {
            End::Stopped => return,
            End::Failed(failure) => return fail(&shared, id, &failure),
            End::Fenced => "fenced",
            End::SessionOver => "its session is over",
        };
        warn!(writer = %id, why, id = "writer-fenced", "writer ended while its process lives, a new one registers");
        shared.metrics.fenced.inc();
        let next = tokio::select! {
            next = begin_again(&shared, id) => next,
            () = shutdown.reached(Stage::Flushing) => {
                shared.appender.lock().close();
                return;
            }
        };
        (writer, inbox) = match next {
            Ok(next) => Writer::new(&shared, next),
            Err(failure) => return fail(&shared, id, &failure),
        };
    }
}

/// Sees to it that the old writer is fenced, keeps its head if it is whole, and registers a new one.
async fn begin_again(shared: &Shared, old: WriterId) -> Result<WriterId, IngesterError> {
    *shared.registration.lock() = Registration::default();
    shared.appender.lock().start_over();
    if is_live(shared, old) {
        adoption::fence(shared, old).await?;
    }
    // What was committed and not taken in is missing in the head, and nothing more can be committed now.
    let added = shared.parts.group.read(|index| index.writer(old).map(|writer| writer.added));
    if let Some(heads) = shared.heads.find(old)
        && added != Some(heads.applied())
    {
        shared.heads.remove(old);
    }
    // Without a session the next writer would end with its first segment.
    let clock = &*shared.parts.clock;
    while shared.parts.session.deadline().is_some_and(|deadline| clock.boottime() > deadline) {
        clock.sleep(SESSION_WAIT).await;
    }
    register(shared).await
}

fn is_live(shared: &Shared, id: WriterId) -> bool {
    shared.parts.group.read(|index| index.writer(id).is_some_and(|writer| writer.stage == WriterStage::Live))
}

/// How many segments may be on their way, and how their PUTs follow one another.
fn way(shared: &Shared) -> (usize, Option<AttemptRules>) {
    if shared.parts.bucket.is_remote() {
        (shared.settings.remote_segment_slots, Some(ATTEMPTS))
    } else {
        (DISK_SLOTS, None)
    }
}

fn fail(shared: &Shared, id: WriterId, failure: &IngesterError) {
    shared.appender.lock().close();
    error!(writer = %id, error = chain(failure), "writer failed");
    let reason = StopReason::Failed(format!("writer {id} failed: {}", chain(failure)));
    shared.parts.tasks.shutdown().begin(reason);
}

impl Writer {
    /// Of a writer that is registered. What is reported comes out of the second part.
    fn new(shared: &Arc<Shared>, id: WriterId) -> (Writer, Inbox) {
        let heads = Arc::new(WriterHeads::new(id, 0));
        shared.heads.insert(heads.clone());
        let settings = &shared.settings;
        let (slots, attempts) = way(shared);
        let (events, inbox) = mpsc::unbounded_channel();
        let writer = Writer {
            shared: shared.clone(),
            id,
            heads,
            flush: Flush::new(FlushRules {
                slots,
                interval_min: settings.flush_interval_min,
                segment_bytes_max: settings.segment_bytes_max,
                retry_delay_min: RETRY_DELAY_MIN,
                retry_delay_max: RETRY_DELAY_MAX,
                attempts,
            }),
            cut: CutMachine::new(CutRules {
                age_max: settings.cut_age_max,
                head_bytes_max: settings.head_bytes_max,
                sample_bytes_max: settings.head_sample_bytes_max,
                retry_delay_min: RETRY_DELAY_MIN,
                retry_delay_max: RETRY_DELAY_MAX,
            }),
            pending: BTreeMap::new(),
            puts: HashMap::new(),
            frozen: None,
            events,
        };
        *shared.registration.lock() = Registration { writer: Some(id), under_way: None };
        info!(writer = %id, "writer registered");
        (writer, inbox)
    }

    fn is_live(&self) -> bool {
        is_live(&self.shared, self.id)
    }

    async fn run(mut self, mut inbox: Inbox) -> End {
        let shared = self.shared.clone();
        let shutdown = shared.parts.tasks.shutdown().clone();
        let clock = &*shared.parts.clock;
        let mut stopping = false;
        while !(stopping && self.flush.is_idle() && self.cut.is_idle()) {
            let wake_at = [self.flush.wake_at(), self.cut.wake_at()].into_iter().flatten().min();
            let event = tokio::select! {
                () = shared.appended.notified() => None,
                () = shared.cut_wanted.notified() => Some(Event::CutWanted),
                // A writer that nobody writes to must notice as well: requests are routed to live writers.
                () = shared.fenced.notified() => (!self.is_live()).then_some(Event::Fenced),
                event = inbox.recv() => event,
                () = clock.sleep_until(wake_at.unwrap_or(Duration::MAX)), if wake_at.is_some() => None,
                () = shutdown.reached(Stage::Flushing), if !stopping => {
                    stopping = true;
                    self.shared.appender.lock().close();
                    Some(Event::CutWanted)
                }
            };
            let now = clock.boottime();
            if let Some(event) = event
                && let Err(end) = self.on_event(now, event)
            {
                // Nobody acks and nobody asks any more while the process stops: the segments wait for an adopter.
                return if stopping && !matches!(end, End::Failed(_)) { End::Stopped } else { end };
            }
            let (slots, attempts) = way(&shared);
            self.flush.set_way(slots, attempts);
            let bytes = self.shared.appender.lock().open_bytes();
            self.step_flush(now, flush::Input::Open { bytes });
            if stopping {
                // Segments that came after the last cut want one too.
                self.step_flush(now, flush::Input::Hurry);
                self.step_cut(now, cut::Input::Wanted);
            }
            self.step_cut(now, cut::Input::Tick);
        }
        info!(writer = %self.id, "writer flushed and cut");
        End::Stopped
    }

    fn on_event(&mut self, now: Duration, event: Event) -> Result<(), End> {
        match event {
            Event::Stored { n, attempt, bytes } => {
                self.puts.remove(&(n, attempt));
                if let Some(pending) = self.pending.get_mut(&n) {
                    pending.stored_bytes = bytes;
                }
                self.step_flush(now, flush::Input::Stored { n, attempt });
            }
            Event::NotStored { n, attempt, why } => {
                self.puts.remove(&(n, attempt));
                self.not_stored(n, attempt, &why);
                self.step_flush(now, flush::Input::NotStored { n, attempt });
            }
            Event::Committed { n } => self.committed(now, n)?,
            Event::BlockStored(block) => {
                debug!(writer = %self.id, block = %block.id.key(), bytes = block.bytes, "block stored");
                self.propose_cut(block);
                self.step_cut(now, cut::Input::Stored);
            }
            Event::BlockNotStored { why } => {
                warn!(writer = %self.id, error = why, "block not stored, trying again");
                self.shared.metrics.cut_failures.inc();
                self.step_cut(now, cut::Input::NotStored);
            }
            Event::CutCommitted => self.step_cut(now, cut::Input::Committed),
            Event::CutWanted => self.step_cut(now, cut::Input::Wanted),
            Event::Fenced => return Err(End::Fenced),
            Event::Failed(failure) => return Err(failure.into()),
        }
        Ok(())
    }

    fn not_stored(&self, n: SegmentNumber, attempt: u32, why: &str) {
        warn!(writer = %self.id, segment = n, attempt, error = why, "segment not stored, trying again");
        self.shared.metrics.put_failures.inc();
        // One lost request is part of a network's life; /-/ready need not know of it.
        if attempt > 0 || !self.shared.parts.bucket.is_remote() {
            *self.shared.failing.lock() = Some(format!("writes fail: segments can't be stored: {why}"));
        }
    }

    fn abandon(&mut self, n: SegmentNumber, attempt: u32, is_late: bool) {
        self.puts.remove(&(n, attempt));
        if is_late {
            self.not_stored(n, attempt, "no answer in time; the bucket is slow or out of reach");
        } else {
            self.shared.metrics.puts_hedged_away.inc();
        }
    }

    fn step_flush(&mut self, now: Duration, input: flush::Input) {
        for output in self.flush.step(now, input) {
            match output {
                flush::Output::Seal(n) => self.seal(now, n),
                flush::Output::Put { n, attempt } => self.put(n, attempt),
                flush::Output::Abandon { n, attempt, is_late } => self.abandon(n, attempt, is_late),
                flush::Output::Propose { n, attempt } => self.propose(n, attempt),
            }
        }
    }

    fn seal(&mut self, now: Duration, n: SegmentNumber) {
        let sealed_at = self.shared.parts.group.read(|index| index.revision());
        let Sealed { n: number, mut columns, mut waiters, is_cut_point, first_after_cut } =
            self.shared.appender.lock().seal();
        columns.seal();
        assert_eq!(n, number, "the appender and the flush count alike");
        if is_planted(Plant::AckBeforeFsync) {
            wake(std::mem::take(&mut waiters));
        }
        let memory_bytes = columns.memory_bytes();
        self.shared.sealed_bytes.fetch_add(memory_bytes, Ordering::Relaxed);
        let pending = Pending {
            columns: Arc::new(columns),
            object: Arc::default(),
            first_after_cut,
            sealed_at,
            waiters,
            memory_bytes,
            stored_bytes: 0,
        };
        self.pending.insert(n, pending);
        if is_cut_point {
            self.step_cut(now, cut::Input::Pointed { upto: n });
        }
    }

    fn put(&mut self, n: SegmentNumber, attempt: u32) {
        self.shared.metrics.puts.inc();
        let pending = &self.pending[&n];
        let header = segment::Header {
            cluster: self.cluster(),
            writer: self.id,
            n,
            sealed_at: pending.sealed_at,
            first_after_cut: pending.first_after_cut,
        };
        let (columns, object) = (pending.columns.clone(), pending.object.clone());
        let (bucket, events) = (self.shared.parts.bucket.clone(), self.events.clone());
        let key = ObjectKey::Segment { writer: self.id, n, attempt };
        let put = runtime::spawn(async move {
            let object = object.get_or_init(|| segment::encode(&header, &columns).into()).clone();
            debug_assert!(segment::decode(&object).is_ok(), "a segment is readable before it is stored");
            let bytes = object.len() as u64;
            let event = match bucket.put_attempt(&key, object).await {
                Ok(()) => Event::Stored { n, attempt, bytes },
                Err(e) => Event::NotStored { n, attempt, why: chain(&e) },
            };
            // An error means that the writer has ended.
            events.send(event).ok();
        });
        self.puts.insert((n, attempt), Put(put));
    }

    fn propose(&self, n: SegmentNumber, attempt: u32) {
        let pending = &self.pending[&n];
        let segment = SegmentMeta { attempt, bytes: pending.stored_bytes, range: pending.columns.time_range() };
        let command = Command::AddSegment { writer: self.id, n, segment };
        self.propose_then(command, verdict::of_add, Event::Committed { n });
    }

    fn committed(&mut self, now: Duration, n: SegmentNumber) -> Result<(), End> {
        let Some(pending) = self.pending.remove(&n) else { return Ok(()) };
        let take_in = self.heads.take_in(n, &pending.columns);
        let stats = take_in.map_err(|source| IngesterError::TakeIn { writer: self.id.to_string(), n, source })?;
        self.shared.sealed_bytes.fetch_sub(pending.memory_bytes, Ordering::Relaxed);
        if self.shared.parts.session.deadline().is_some_and(|deadline| now > deadline) {
            return Err(End::SessionOver);
        }
        wake(pending.waiters);
        if self.shared.failing.lock().take().is_some() {
            info!(writer = %self.id, segment = n, "segments are stored and committed again");
        }
        self.shared.metrics.segments_committed.inc();
        self.shared.metrics.segment_bytes.observe(pending.stored_bytes as f64);
        let sample_bytes = stats.bytes.saturating_sub(stats.series * SERIES_BYTES);
        self.step_cut(now, cut::Input::TakenIn { n, head_bytes: stats.bytes, sample_bytes });
        self.step_flush(now, flush::Input::Committed { n });
        Ok(())
    }

    fn step_cut(&mut self, now: Duration, input: cut::Input) {
        for output in self.cut.step(now, input) {
            match output {
                cut::Output::Point => self.point(now),
                cut::Output::Freeze { upto } => self.frozen = Some((self.heads.freeze(upto), now)),
                cut::Output::Pack { from: _, upto, attempt } => self.pack(upto, attempt),
                // The block is at hand where its PUT is reported: `propose_cut`.
                cut::Output::Propose { .. } => {}
                cut::Output::Thaw => self.thaw(now),
            }
        }
    }

    fn point(&mut self, now: Duration) {
        let point = self.shared.appender.lock().point();
        match point {
            Some(upto) => self.step_cut(now, cut::Input::Pointed { upto }),
            None => self.step_flush(now, flush::Input::Hurry),
        }
    }

    fn pack(&self, upto: SegmentNumber, attempt: u32) {
        let Some((frozen, _)) = &self.frozen else { return };
        let (frozen, events, bucket) = (frozen.clone(), self.events.clone(), self.shared.parts.bucket.clone());
        // A key has 16 bits for the try; whoever fails that often fails for days.
        let attempt = ObjectKey::cut_attempt(upto, u16::try_from(attempt).unwrap_or(u16::MAX));
        let id = BlockId { right: Right::Writer(self.id), attempt };
        let (cluster, built_at) = self.shared.parts.group.read(|index| (index.cluster(), index.revision()));
        runtime::spawn(async move {
            let packed = runtime::blocking(move || pack(&[frozen], cluster, id, built_at)).await;
            let event = match packed {
                Ok((object, block)) => match bucket.put_pieces(&id.key(), object).await {
                    Ok(()) => Event::BlockStored(block),
                    Err(e) => Event::BlockNotStored { why: chain(&e) },
                },
                Err(source) => Event::Failed(IngesterError::Pack { writer: id.key().to_string(), source }),
            };
            events.send(event).ok();
        });
    }

    fn propose_cut(&self, block: BlockMeta) {
        let from = self.shared.parts.group.read(|index| index.writer(self.id).map(|writer| writer.cut));
        let Some(from) = from else { return };
        let upto = ObjectKey::cut_reaches(block.id.attempt);
        if is_planted(Plant::CutWithoutRetiring) {
            self.events.send(Event::CutCommitted).ok();
            return;
        }
        let command = Command::Cut { writer: self.id, from, upto, block, lease: None };
        self.propose_then(command, move |answer| verdict::of_cut(upto, answer), Event::CutCommitted);
    }

    fn thaw(&mut self, now: Duration) {
        self.heads.thaw();
        if let Some((_, since)) = self.frozen.take() {
            let metrics = &self.shared.metrics;
            metrics.cuts.inc();
            metrics.cut_seconds.observe((now - since).as_secs_f64());
            metrics.last_cut_seconds.set(self.shared.parts.clock.now_ms() as f64 / 1e3);
            info!(writer = %self.id, elapsed_ms = (now - since).as_millis() as u64, "head cut");
        }
    }

    /// Proposes until it is decided, and reports `done` if `judge` says so.
    fn propose_then(
        &self,
        command: Command,
        judge: impl FnOnce(&Result<Applied, Refused>) -> Verdict + Send + 'static,
        done: Event,
    ) {
        let (shared, events, writer) = (self.shared.clone(), self.events.clone(), self.id);
        runtime::spawn(async move {
            let what = command.name();
            let event = match propose(&shared, command).await {
                Ok(answer) => match judge(&answer) {
                    Verdict::Done => done,
                    Verdict::Fenced => Event::Fenced,
                    Verdict::Odd => Event::Failed(refused(what, writer, &answer)),
                },
                Err(failure) => Event::Failed(failure),
            };
            events.send(event).ok();
        });
    }

    fn cluster(&self) -> u128 {
        self.shared.parts.group.read(|index| index.cluster())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What is not committed now never will be by this writer; its requests' waiters go with it.
        let bytes = self.pending.values().map(|pending| pending.memory_bytes).sum();
        self.shared.sealed_bytes.fetch_sub(bytes, Ordering::Relaxed);
        // Its PUTs end with it; the next writer's tell how the bucket is.
        *self.shared.failing.lock() = None;
    }
}

/// A proposal that the index has not taken yet; it is told of until it is decided or given up.
struct Waiting<'a>(&'a Shared);

impl Waiting<'_> {
    fn begin(shared: &Shared) -> Waiting<'_> {
        shared.index_trouble.lock().waiting += 1;
        Waiting(shared)
    }

    fn because(&self, error: &ProposeError) {
        self.0.index_trouble.lock().why = Some(format!("writes fail: the index takes no entries: {}", chain(error)));
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut trouble = self.0.index_trouble.lock();
        trouble.waiting -= 1;
        if trouble.waiting == 0 {
            trouble.why = None;
        }
    }
}

/// Proposes a command in the present incarnation until it is decided: a timeout proves nothing.
pub(crate) async fn propose(shared: &Shared, command: Command) -> Result<Result<Applied, Refused>, IngesterError> {
    let what = command.name();
    let incarnation = shared.parts.group.read(|index| index.incarnation());
    let entry = Entry { incarnation, command };
    let mut delay = RETRY_DELAY_MIN;
    let mut waiting: Option<Waiting<'_>> = None;
    let mut warned = None;
    loop {
        match shared.parts.group.propose(entry.clone()).await {
            Ok(applied) => {
                // Whatever it did: entries are taken again, also when no write comes to show it.
                shared.index_trouble.lock().why = None;
                return Ok(applied);
            }
            Err(e) if e.kind() == consensus::ErrorKind::Unavailable && !matches!(e, ProposeError::Closed) => {
                let kind = std::mem::discriminant(&e);
                if warned.replace(kind) != Some(kind) {
                    warn!(error = chain(&e), entry = what, "entry not committed, trying until it is");
                }
                waiting.get_or_insert_with(|| Waiting::begin(shared)).because(&e);
                if matches!(e, ProposeError::NoLeader { .. }) {
                    shared.parts.clock.sleep(NO_LEADER_DELAY).await;
                } else {
                    shared.parts.clock.sleep(delay).await;
                    delay = (delay * 2).min(RETRY_DELAY_MAX);
                }
            }
            Err(source) => return Err(IngesterError::Propose { what, source }),
        }
    }
}

/// The error for an entry of ours that should have been accepted.
pub(crate) fn refused(what: &'static str, writer: WriterId, odd: &Result<Applied, Refused>) -> IngesterError {
    let reason = match odd {
        Err(refused) => refused.to_string(),
        Ok(applied) => format!("unexpected answer {applied:?}"),
    };
    IngesterError::Refused { what, writer: writer.to_string(), reason }
}

async fn register(shared: &Shared) -> Result<WriterId, IngesterError> {
    let nonce = shared.parts.random.u64();
    *shared.registration.lock() = Registration { writer: None, under_way: Some(nonce) };
    let command = Command::Register { node: shared.parts.node, nonce };
    match propose(shared, command).await? {
        Ok(Applied::Registered { writer }) | Err(Refused::AlreadyRegistered { writer }) => Ok(writer),
        odd => Err(refused("register", WriterId(model::Revision::default()), &odd)),
    }
}

fn wake(waiters: Vec<Waiter>) {
    for waiter in waiters {
        // An error means that the request has timed out or its client left.
        waiter.send(()).ok();
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
