//! The ingester's face: takes requests, keeps the books on memory, starts and stops what works behind it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bucket::Bucket;
use model::{NodeId, TenantId, TimestampMs, WriterId};
use parking_lot::{Mutex, RwLock};
use proto::WriteRequest;
use runtime::{Clock, Random, Registry, Tasks};
use tokio::sync::{Notify, oneshot};

use crate::IndexGroup;
use crate::adoption;
use crate::append::{Appended, Appender, Prepared, TimeBounds};
use crate::error::{IngesterError, PushError};
use crate::heads::Heads;
use crate::metrics::Metrics;
use crate::route::{HashedPart, Homes, Outcome, Router};
use crate::series_table::SeriesHasher;
use crate::session::SessionGuard;
use crate::settings::{Limits, Settings};
use crate::writer;

/// Share of the memory limit above which series that are not known yet are refused.
const NEW_SERIES_PERCENT: usize = 80;

/// What the ingester is built from.
#[derive(Clone)]
pub struct Parts {
    /// The index.
    pub group: IndexGroup,
    /// Where segments and blocks go.
    pub bucket: Arc<Bucket>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Random,
    /// Where metrics are registered.
    pub registry: Registry,
    /// What works behind it lives here, and ends in the flushing stage.
    pub tasks: Tasks,
    /// This node.
    pub node: NodeId,
    /// Whether it may still answer writes.
    pub session: Arc<dyn SessionGuard>,
    /// The other nodes' writers; `None` if there never can be any.
    pub homes: Option<Arc<dyn Homes>>,
}

/// What pushes, the writer and the adopter share.
pub(crate) struct Shared {
    pub settings: Settings,
    pub parts: Parts,
    pub metrics: Metrics,
    pub heads: Heads,
    pub limits: RwLock<LimitsOf>,
    /// Taken alone, never while another lock is held.
    pub appender: Mutex<Appender>,
    /// Bytes of sealed segments that are not committed yet.
    pub sealed_bytes: AtomicUsize,
    /// Something was appended.
    pub appended: Notify,
    /// Somebody wants the head cut.
    pub cut_wanted: Notify,
    /// Which writer is this process's: any other live one of this node is to be fenced.
    pub registration: Mutex<Registration>,
    /// The applied index says that it is not live any more.
    pub fenced: Notify,
    /// Why the last PUT failed, while PUTs fail: `/-/ready` says it.
    pub failing: Mutex<Option<String>>,
    pub index_trouble: Mutex<IndexTrouble>,
    /// Adoption that is under way, in words; empty when all is loaded.
    pub adopting: Mutex<Vec<String>>,
    pub hasher: SeriesHasher,
    pub router: Router,
}

/// Why the index takes no entries, while it takes none.
#[derive(Debug, Default)]
pub(crate) struct IndexTrouble {
    /// Proposals that were not taken and are tried again.
    pub waiting: usize,
    /// What the last of them was told; `None` as soon as one is taken.
    pub why: Option<String>,
}

/// What this process has registered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Registration {
    /// Its writer.
    pub writer: Option<WriterId>,
    /// The nonce of a Register whose answer is not known.
    pub under_way: Option<u64>,
}

/// Limits: for everyone, and for tenants that have their own.
#[derive(Debug, Clone, Default)]
pub(crate) struct LimitsOf {
    everyone: Arc<Limits>,
    tenants: HashMap<TenantId, Arc<Limits>>,
}

impl LimitsOf {
    fn of(&self, tenant: &TenantId) -> Arc<Limits> {
        self.tenants.get(tenant).unwrap_or(&self.everyone).clone()
    }
}

/// Accepts samples; cheap to clone.
#[derive(Clone)]
pub struct Ingester {
    pub(crate) shared: Arc<Shared>,
}

/// A request whose samples lie in a segment. Durable and visible when [`Ticket::durable`] says so.
#[must_use = "nothing is durable before it says so"]
pub struct Ticket {
    shared: Arc<Shared>,
    since: Duration,
    appended: Appended,
    committed: oneshot::Receiver<()>,
}

impl Ingester {
    /// Registers a writer, starts it, and begins to adopt what dead writers of this node left behind.
    ///
    /// Whoever calls holds the lock of the data folder, so every live writer of this node is a dead process's.
    pub async fn start(settings: Settings, parts: Parts) -> Result<Ingester, IngesterError> {
        let key = std::array::from_fn(|_| parts.random.u64());
        let hasher = SeriesHasher::new(key);
        let limits = LimitsOf { everyone: Arc::new(settings.limits.clone()), tenants: HashMap::new() };
        let shared = Arc::new(Shared {
            metrics: Metrics::new(&parts.registry),
            heads: Heads::default(),
            limits: RwLock::new(limits),
            appender: Mutex::new(Appender::new(hasher)),
            sealed_bytes: AtomicUsize::new(0),
            appended: Notify::new(),
            cut_wanted: Notify::new(),
            registration: Mutex::default(),
            fenced: Notify::new(),
            failing: Mutex::new(None),
            index_trouble: Mutex::default(),
            adopting: Mutex::new(Vec::new()),
            hasher,
            router: Router::new(parts.homes.clone()),
            settings,
            parts,
        });
        adoption::start(&shared).await?;
        writer::start(&shared).await?;
        shared.register_gauges();
        Ok(Ingester { shared })
    }

    /// The heads, for queries.
    pub fn heads(&self) -> Heads {
        self.shared.heads.clone()
    }

    /// Replaces the limits: a reload.
    pub fn set_limits(&self, everyone: Limits, tenants: HashMap<TenantId, Limits>) {
        let tenants = tenants.into_iter().map(|(tenant, limits)| (tenant, Arc::new(limits))).collect();
        *self.shared.limits.write() = LimitsOf { everyone: Arc::new(everyone), tenants };
    }

    /// Cuts the head soon, whatever its age; nothing happens if it is empty.
    pub fn cut_now(&self) {
        self.shared.cut_wanted.notify_one();
    }

    /// What is wrong, in words for an operator; empty when all is well.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles: Vec<String> = self.shared.failing.lock().iter().cloned().collect();
        troubles.extend(self.shared.index_trouble.lock().why.iter().cloned());
        troubles.extend(self.shared.adopting.lock().iter().cloned());
        troubles
    }

    /// Adds a request's samples to this node's open segment, whatever their home ([`Ingester::push`] looks for that). The
    /// request may be dropped then; the ticket waits for the rest.
    ///
    /// Errors: `Unavailable` kinds only, and then nothing was added; what the sender must change is in the ticket.
    pub fn append(&self, tenant: &TenantId, request: &WriteRequest<'_>) -> Result<Ticket, PushError> {
        self.shared.append(tenant, request).inspect_err(|error| self.shared.count_unavailable(error))
    }
}

impl Shared {
    pub(crate) fn append(self: &Arc<Self>, tenant: &TenantId, request: &WriteRequest<'_>) -> Result<Ticket, PushError> {
        let limits = self.limits.read().of(tenant);
        let bounds = TimeBounds::new(self.parts.clock.now_ms(), &limits);
        let prepared = Prepared::new(tenant, request, &self.hasher, bounds);
        let (waiter, committed) = oneshot::channel();
        let appended = {
            let mut appender = self.appender.lock();
            let room_for_series = self.check_room(&appender)?;
            appender.append(&prepared, &limits, room_for_series, waiter)
        };
        self.metrics.exemplars_ignored.inc_by(request.exemplars);
        Ok(self.ticket(appended, committed))
    }

    /// Adds a part whose series are named by their hashes; `None`, and nothing was added, if their labels are needed: a series
    /// is not known by this hash, is to be spelled, or has a sample that is refused, which its sender is told of by name.
    pub(crate) fn append_hashed(
        self: &Arc<Self>,
        tenant: &TenantId,
        part: &HashedPart,
    ) -> Result<Option<Ticket>, PushError> {
        let bounds = TimeBounds::new(self.parts.clock.now_ms(), &self.limits.read().of(tenant));
        let is_refused = |(t, _): &(TimestampMs, f64)| bounds.refuse(*t).is_some();
        if part.samples.iter().any(is_refused) {
            return Ok(None);
        }
        let (waiter, committed) = oneshot::channel();
        let appended = {
            let mut appender = self.appender.lock();
            self.check_room(&appender)?;
            appender.append_hashed(part, waiter)
        };
        Ok(appended.map(|appended| self.ticket(appended, committed)))
    }

    fn ticket(self: &Arc<Self>, appended: Appended, committed: oneshot::Receiver<()>) -> Ticket {
        if appended.waits {
            self.appended.notify_one();
        }
        self.metrics.samples.inc_by(appended.samples);
        for (reason, count) in appended.rejected.counts() {
            self.metrics.rejected.with([reason.as_str()]).inc_by(count);
        }
        Ticket { shared: self.clone(), since: self.parts.clock.boottime(), appended, committed }
    }

    /// Whether there is room for samples, and (the result) for series that are not known yet.
    pub(crate) fn check_room(&self, appender: &Appender) -> Result<bool, PushError> {
        if appender.is_closed() {
            return Err(PushError::Closed);
        }
        let (used_bytes, max_bytes) = (self.memory_bytes_with(appender), self.settings.memory_bytes_max);
        if used_bytes >= max_bytes {
            return Err(PushError::Memory { used_bytes, max_bytes });
        }
        let room_for_series = used_bytes < max_bytes / 100 * NEW_SERIES_PERCENT;
        let used_bytes = appender.open_bytes() + self.sealed_bytes.load(Ordering::Relaxed);
        let max_bytes = self.settings.buffer_bytes_max;
        if used_bytes >= max_bytes {
            return Err(PushError::BufferFull { used_bytes, max_bytes });
        }
        Ok(room_for_series)
    }

    /// Bytes that heads, table and buffers take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes_with(&self.appender.lock())
    }

    fn memory_bytes_with(&self, appender: &Appender) -> usize {
        let appender = appender.open_bytes() + appender.table_bytes();
        appender + self.sealed_bytes.load(Ordering::Relaxed) + self.heads.memory_bytes()
    }

    pub(crate) fn count_unavailable(&self, error: &PushError) {
        let reason = match error {
            PushError::Rejected(_) => return,
            PushError::NewSeries { .. } => "new_series",
            PushError::Memory { .. } => "memory_max",
            PushError::BufferFull { .. } => "buffer_bytes_max",
            PushError::AckTimeout { .. } => "ack_timeout",
            PushError::Fenced => "writer_fenced",
            PushError::ForwardsFull { .. } => "forward_bytes_max",
            PushError::NoWriter { .. } | PushError::Failing { .. } => "no_writer",
            PushError::Closed => "closed",
        };
        self.metrics.unavailable.with([reason]).inc();
    }

    fn register_gauges(self: &Arc<Self>) {
        let gauge = |name, help, read: fn(&Shared) -> usize| {
            // Weak: the registry outlives the ingester in tests.
            let shared = Arc::downgrade(self);
            self.parts.registry.gauge_fn(name, help, move || Some(read(&*shared.upgrade()?) as f64));
        };
        gauge(
            "bellrock_ingester_memory_bytes",
            "Heads, series table and buffers; 503 at memory-max",
            Shared::memory_bytes,
        );
        gauge("bellrock_ingester_series", "Series that were written lately", |s| s.appender.lock().table_series());
        gauge("bellrock_ingester_head_bytes", "Memory of all heads", |s| s.heads.memory_bytes());
        gauge(
            "bellrock_ingester_forward_bytes",
            "Parts of requests on their way to other nodes; at a sixteenth of memory-max, 64 MiB at most, requests stay here",
            |s| s.router.in_flight_bytes(),
        );
        gauge("bellrock_ingester_buffer_bytes", "Open and sealed segments that are not committed", |s| {
            s.appender.lock().open_bytes() + s.sealed_bytes.load(Ordering::Relaxed)
        });
    }
}

impl Ticket {
    /// Waits until everything that could be stored is durable and visible to queries.
    ///
    /// Errors: `Rejected` if part of the request was refused for good, with everything else durable; any other if part
    /// may not be stored, and the request is to be sent again whole.
    pub async fn durable(self) -> Result<(), PushError> {
        let shared = self.shared.clone();
        let result = match self.outcome().await {
            Ok(Outcome { without_room, .. }) if !without_room.is_empty() => Err(PushError::NewSeries {
                series: without_room.len() as u64,
                used_bytes: shared.memory_bytes(),
                max_bytes: shared.settings.memory_bytes_max,
            }),
            Ok(Outcome { rejected, .. }) if !rejected.is_empty() => Err(PushError::Rejected(rejected)),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        result.inspect_err(|error| shared.count_unavailable(error))
    }

    /// Series that there was no memory for: their places in the request, ascending.
    pub(crate) fn without_room(&self) -> &[u32] {
        &self.appended.without_room
    }

    /// The same; somebody else takes them, and the outcome does not have them any more.
    pub(crate) fn take_without_room(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.appended.without_room)
    }

    /// Waits until everything that was added is durable and visible to queries, and says what was not added.
    pub(crate) async fn outcome(self) -> Result<Outcome, PushError> {
        let Ticket { shared, since, appended, committed } = self;
        let clock = &*shared.parts.clock;
        if appended.waits {
            let limit = shared.settings.ack_timeout;
            match runtime::timeout(clock, limit, committed).await {
                Ok(Ok(())) => shared.metrics.ack_seconds.observe((clock.boottime() - since).as_secs_f64()),
                Ok(Err(_)) if shared.appender.lock().is_closed() => return Err(PushError::Closed),
                Ok(Err(_)) => return Err(PushError::Fenced),
                Err(_) => return Err(PushError::AckTimeout { after_ms: limit.as_millis() }),
            }
        }
        Ok(Outcome { rejected: appended.rejected, without_room: appended.without_room })
    }
}
