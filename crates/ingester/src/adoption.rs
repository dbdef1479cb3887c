//! Adoption: does what [`Adopt`] says for every writer that the applied index grants to this node.
//!
//! When this process starts it fences the live writers of its own node id (it holds the data folder's lock, so
//! their process is gone) and grants them to itself; other nodes' writers are the warden's business. New writes are
//! taken at once, by a new writer; queries of an adopted one's samples wait until its segments are loaded. A head whose
//! writer is closed, or adopted elsewhere, is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use head::Head;
use index::{Applied, BlockId, BlockMeta, Command, Refused, SegmentMeta, Stage as WriterStage};
use model::{Lease, NodeId, ObjectKey, Right, SegmentNumber, WriterId};
use parking_lot::Mutex;
use runtime::Stage;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use crate::adopt::{self, Adopt, AdoptRules, End, Input, Output};
use crate::error::IngesterError;
use crate::heads::WriterHeads;
use crate::ingester::{Registration, Shared};
use crate::pack::pack;
use crate::writer::{chain, propose, refused};

/// Adoptions at once; further ones wait.
const ADOPTIONS_MAX: usize = 2;
/// Segments that are fetched ahead of the one that is taken in.
const FETCH_AHEAD: usize = 8;
/// Further keys of one segment that are tried when the one that the index names gives nothing.
const OTHER_ATTEMPTS_MAX: u32 = 3;

/// Takes over what this node's dead processes left live, offers all that is granted to this node to queries, and starts to
/// load it.
pub(crate) async fn start(shared: &Arc<Shared>) -> Result<(), IngesterError> {
    let (group, node) = (&shared.parts.group, shared.parts.node);
    let left: Vec<_> = group.read(|index| adopt::strays(index, node, |_, _| false).collect());
    for id in left {
        fence(shared, id).await?;
        grant(shared, id, node).await?;
    }
    let (events, inbox) = mpsc::unbounded_channel();
    let mut adoptions = Adoptions { shared: shared.clone(), running: BTreeMap::new(), fencing: Arc::default(), events };
    adoptions.look();
    // Before this node calls itself ready.
    adoptions.report();
    shared.parts.tasks.spawn("ingester.adopt", Stage::Flushing, adoptions.run(inbox));
    Ok(())
}

/// Fences a writer of this node; that it is fenced or closed already is as good.
pub(crate) async fn fence(shared: &Shared, writer: WriterId) -> Result<(), IngesterError> {
    match propose(shared, Command::Fence { writer }).await? {
        Ok(Applied::Fenced { .. }) | Err(Refused::WrongStage { .. } | Refused::Closed { .. }) => Ok(()),
        odd => Err(refused("fence", writer, &odd)),
    }
}

/// Grants an adoption to this node, unless the leader was quicker.
async fn grant(shared: &Shared, writer: WriterId, node: NodeId) -> Result<(), IngesterError> {
    let last = shared.parts.group.read(|index| index.writer(writer).map_or(0, |writer| writer.lease));
    match propose(shared, Command::GrantAdopt { writer, node, number: last + 1 }).await? {
        Ok(Applied::AdoptGranted { .. }) => Ok(()),
        Err(Refused::AlreadyGranted { .. } | Refused::NotNextLease { .. } | Refused::Closed { .. }) => Ok(()),
        odd => Err(refused("grant_adopt", writer, &odd)),
    }
}

/// What a task reports of an adoption.
#[derive(Debug)]
struct Event {
    writer: WriterId,
    lease: Lease,
    what: What,
}

#[derive(Debug)]
enum What {
    Input(Input),
    NotLoaded { n: SegmentNumber, why: String },
    Unreadable { n: SegmentNumber, why: String },
    Stored(BlockMeta),
    NotStored { why: String },
    Failed(IngesterError),
}

struct Running {
    machine: Adopt,
    heads: Arc<WriterHeads>,
    frozen: Option<Vec<Arc<Head>>>,
    block: Option<BlockMeta>,
    /// The task of the last output.
    task: Option<tokio::task::JoinHandle<()>>,
    since: Duration,
    segments: u64,
    failed: Option<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

struct Adoptions {
    shared: Arc<Shared>,
    running: BTreeMap<WriterId, Running>,
    /// Strays whose Fence is under way.
    fencing: Arc<Mutex<BTreeSet<WriterId>>>,
    events: mpsc::UnboundedSender<Event>,
}

impl Adoptions {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        let shared = self.shared.clone();
        let (shutdown, clock) = (shared.parts.tasks.shutdown().clone(), &*shared.parts.clock);
        let mut applied = shared.parts.group.watch_applied();
        loop {
            let wake_at = self.running.values().filter_map(|running| running.machine.wake_at()).min();
            let event = tokio::select! {
                // Stopped half-way, nothing is lost: whoever is granted it next begins again.
                () = shutdown.reached(Stage::Flushing) => return,
                event = inbox.recv() => event,
                changed = applied.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return,
                },
                () = clock.sleep_until(wake_at.unwrap_or(Duration::MAX)), if wake_at.is_some() => None,
            };
            match event {
                Some(event) => self.on_event(event),
                None => self.look(),
            }
            self.report();
        }
    }

    /// Begins what is granted, goes on with what is under way, and lets go of what is not this node's any more.
    fn look(&mut self) {
        for id in self.running.keys().copied().collect::<Vec<_>>() {
            self.step(id, Input::Tick);
        }
        let node = self.shared.parts.node;
        let Registration { writer: own, under_way } = *self.shared.registration.lock();
        let (granted, foreign, strays, is_fenced) = self.shared.parts.group.read(|index| {
            let granted: Vec<_> = adopt::granted(index, node)
                .map(|(id, lease)| (id, lease, index.writer(id).map_or(0, |writer| writer.cut)))
                .collect();
            let is_foreign = |id: &WriterId| match index.writer(*id) {
                Some(writer) => writer.adopter.is_some_and(|adopter| adopter != node),
                None => true,
            };
            let foreign: Vec<_> = self.shared.heads.writers().into_iter().filter(is_foreign).collect();
            let is_ours = |id, nonce| own == Some(id) || under_way == Some(nonce);
            let strays: Vec<_> = adopt::strays(index, node, is_ours).collect();
            let is_live = |id| index.writer(id).is_some_and(|writer| writer.stage == WriterStage::Live);
            (granted, foreign, strays, own.is_some_and(|own| !is_live(own)))
        });
        for id in strays {
            self.fence(id);
        }
        if is_fenced {
            self.shared.fenced.notify_one();
        }
        for id in foreign {
            debug!(writer = %id, "head let go: its writer is closed, or adopted elsewhere");
            self.running.remove(&id);
            self.shared.heads.remove(id);
        }
        for (id, lease, cut) in granted {
            let is_running = self.running.get(&id).is_some_and(|running| running.machine.lease() == lease);
            if is_running {
                continue;
            }
            let (heads, loaded) = self.heads_of(id, cut);
            if self.running.len() < ADOPTIONS_MAX {
                self.begin(id, lease, heads, loaded);
            }
        }
    }

    /// Fences what another process of this node registered.
    fn fence(&self, id: WriterId) {
        if !self.fencing.lock().insert(id) {
            return;
        }
        let (shared, fencing) = (self.shared.clone(), self.fencing.clone());
        runtime::spawn(async move {
            match fence(&shared, id).await {
                Ok(()) => info!(writer = %id, "writer of a dead process of this node fenced"),
                Err(failure) => warn!(writer = %id, error = chain(&failure), "writer of a dead process not fenced"),
            }
            fencing.lock().remove(&id);
        });
    }

    /// The head to load into, and how far it has come: that of this process's own fenced writer may be whole.
    fn heads_of(&self, id: WriterId, cut: SegmentNumber) -> (Arc<WriterHeads>, SegmentNumber) {
        if let Some(heads) = self.shared.heads.find(id)
            && let Some(loaded) = heads.settle(cut)
        {
            return (heads, loaded);
        }
        let heads = Arc::new(WriterHeads::new(id, cut));
        self.shared.heads.insert(heads.clone());
        (heads, cut)
    }

    fn begin(&mut self, id: WriterId, lease: Lease, heads: Arc<WriterHeads>, loaded: SegmentNumber) {
        let parts = &self.shared.parts;
        let machine = Adopt::new(AdoptRules::default(), id, parts.node, lease, loaded, parts.random.u64());
        let since = parts.clock.boottime();
        let running =
            Running { machine, heads, frozen: None, block: None, task: None, since, segments: 0, failed: None };
        self.running.insert(id, running);
        self.step(id, Input::Tick);
    }

    fn on_event(&mut self, Event { writer, lease, what }: Event) {
        let Some(running) = self.running.get_mut(&writer).filter(|running| running.machine.lease() == lease) else {
            return;
        };
        let input = match what {
            What::Input(input) => {
                running.segments += u64::from(matches!(input, Input::Loaded { .. }));
                input
            }
            What::NotLoaded { n, why } => {
                warn!(%writer, segment = n, error = why, "segment not fetched, trying again");
                Input::NotLoaded
            }
            What::Unreadable { n, why } => {
                error!(
                    %writer, segment = n, error = why,
                    "segment can't be read: it and those behind it are put aside (segment-quarantined)"
                );
                Input::Unreadable { n }
            }
            What::Stored(block) => {
                running.block = Some(block);
                Input::Stored
            }
            What::NotStored { why } => {
                warn!(%writer, error = why, "block of a dead writer not stored, trying again");
                self.shared.metrics.cut_failures.inc();
                Input::NotStored
            }
            What::Failed(failure) => {
                error!(%writer, error = chain(&failure), "writer not adopted");
                // It stays fenced with its segments; queries that need them fail and name it.
                running.heads.fail(chain(&failure));
                running.failed = Some(chain(&failure));
                return;
            }
        };
        self.step(writer, input);
        if !self.running.contains_key(&writer) {
            // There is room for another, and this one may be granted to this node anew.
            self.look();
        }
    }

    fn step(&mut self, id: WriterId, input: Input) {
        let Some(running) = self.running.get_mut(&id) else { return };
        let now = self.shared.parts.clock.boottime();
        let output = self.shared.parts.group.read(|index| running.machine.step(now, input, index));
        match output {
            None => {}
            Some(Output::Load { from, upto }) => self.load(id, from, upto),
            Some(Output::Quarantine { from, upto }) => self.quarantine(id, from, upto),
            Some(Output::Pack { attempt }) => self.pack(id, attempt),
            Some(Output::Cut { from, upto }) => self.cut(id, from, upto),
            Some(Output::Close) => {
                running.heads.set_whole();
                let lease = running.machine.lease();
                self.propose(id, Command::Close { writer: id, lease });
            }
            Some(Output::End(end)) => self.end(id, end),
        }
    }

    fn end(&mut self, id: WriterId, end: End) {
        let Some(running) = self.running.remove(&id) else { return };
        let elapsed_ms = (self.shared.parts.clock.boottime() - running.since).as_millis() as u64;
        match end {
            End::Closed => {
                self.shared.metrics.adopted.inc();
                info!(writer = %id, segments = running.segments, elapsed_ms, "dead writer adopted");
            }
            End::Superseded => info!(writer = %id, elapsed_ms, "adoption superseded"),
            End::Refused => error!(writer = %id, elapsed_ms, "adoption refused, though it is granted to this node"),
        }
        self.shared.heads.remove(id);
    }

    fn load(&mut self, id: WriterId, from: SegmentNumber, upto: SegmentNumber) {
        let Some(running) = self.running.get_mut(&id) else { return };
        let segments: Vec<(SegmentNumber, SegmentMeta)> = self.shared.parts.group.read(|index| {
            let segments = index.writer(id).into_iter().flat_map(|writer| writer.segments());
            let wanted = segments.filter(|(n, _)| (from..=upto).contains(n) && !index.is_quarantined(id, *n));
            wanted.map(|(n, segment)| (n, *segment)).collect()
        });
        let loader = Loader { shared: self.shared.clone(), id, heads: running.heads.clone() };
        let (events, lease) = (self.events.clone(), running.machine.lease());
        running.task = Some(runtime::spawn(async move {
            let fetches =
                segments.into_iter().map(|(n, segment)| loader.fetch(n, segment).map(move |read| (n, read)).boxed());
            let mut fetched = futures::stream::iter(fetches).buffered(FETCH_AHEAD);
            while let Some((n, read)) = fetched.next().await {
                let taken_in = read.and_then(|(header, columns)| {
                    let taken_in = loader.heads.take_in_adopted(n, header.first_after_cut, &columns);
                    taken_in.map(|_| ()).map_err(|e| NotRead::Never(chain(&e)))
                });
                let is_loaded = taken_in.is_ok();
                let what = match taken_in {
                    Ok(()) => What::Input(Input::Loaded { n }),
                    Err(NotRead::Now(why)) => What::NotLoaded { n, why },
                    Err(NotRead::Never(why)) => What::Unreadable { n, why },
                };
                if events.send(Event { writer: id, lease, what }).is_err() || !is_loaded {
                    return;
                }
            }
        }));
    }

    fn quarantine(&mut self, id: WriterId, from: SegmentNumber, upto: SegmentNumber) {
        let Some(running) = self.running.get(&id) else { return };
        self.shared.metrics.quarantined.inc_by(upto - from + 1);
        let lease = running.machine.lease();
        self.propose(id, Command::Quarantine { writer: id, from, upto, lease });
    }

    fn pack(&mut self, id: WriterId, attempt: u64) {
        let Some(running) = self.running.get_mut(&id) else { return };
        let heads = running.frozen.get_or_insert_with(|| running.heads.freeze_all()).clone();
        // Queries that wait for segments that are quarantined since plan again, and then know what is missing.
        running.heads.set_whole();
        let lease = running.machine.lease();
        let block = BlockId { right: Right::Adopter(id, lease), attempt };
        let (cluster, built_at) = self.shared.parts.group.read(|index| (index.cluster(), index.revision()));
        let (events, bucket) = (self.events.clone(), self.shared.parts.bucket.clone());
        running.task = Some(runtime::spawn(async move {
            let packed = runtime::blocking(move || pack(&heads, cluster, block, built_at)).await;
            let what = match packed {
                Ok((object, meta)) => match bucket.put_pieces(&block.key(), object).await {
                    Ok(()) => What::Stored(meta),
                    Err(e) => What::NotStored { why: chain(&e) },
                },
                Err(source) => What::Failed(IngesterError::Pack { writer: id.to_string(), source }),
            };
            events.send(Event { writer: id, lease, what }).ok();
        }));
    }

    fn cut(&mut self, id: WriterId, from: SegmentNumber, upto: SegmentNumber) {
        let Some(running) = self.running.get(&id) else { return };
        let Some(block) = running.block else { return };
        let lease = Some(running.machine.lease());
        self.propose(id, Command::Cut { writer: id, from, upto, block, lease });
    }

    /// Proposes until it is decided. What came of it, the machine reads in the index.
    fn propose(&mut self, id: WriterId, command: Command) {
        let Some(running) = self.running.get_mut(&id) else { return };
        let (shared, events, lease) = (self.shared.clone(), self.events.clone(), running.machine.lease());
        running.task = Some(runtime::spawn(async move {
            let what = match propose(&shared, command).await {
                Ok(_) => What::Input(Input::Decided),
                Err(failure) => What::Failed(failure),
            };
            events.send(Event { writer: id, lease, what }).ok();
        }));
    }

    /// Tells `/-/ready` what is under way.
    fn report(&self) {
        let texts = self.running.iter().map(|(id, running)| match &running.failed {
            Some(why) => format!("writer {id} could not be adopted: {why}"),
            None => format!("the segments of writer {id} are being loaded"),
        });
        *self.shared.adopting.lock() = texts.collect();
    }
}

/// Why a segment is not in the head.
enum NotRead {
    /// The bucket did not answer.
    Now(String),
    /// What is stored, if anything, is not it.
    Never(String),
}

struct Loader {
    shared: Arc<Shared>,
    id: WriterId,
    heads: Arc<WriterHeads>,
}

impl Loader {
    /// Reads a segment under the key that the index names, or another attempt's: all hold the same bytes, if whole.
    async fn fetch(
        &self,
        n: SegmentNumber,
        segment: SegmentMeta,
    ) -> Result<(segment::Header, segment::Columns), NotRead> {
        let others = (0..=OTHER_ATTEMPTS_MAX).filter(|&attempt| attempt != segment.attempt);
        let mut damaged = None;
        for attempt in std::iter::once(segment.attempt).chain(others) {
            match self.shared.parts.bucket.get(&ObjectKey::Segment { writer: self.id, n, attempt }).await {
                Ok(object) => match self.decode(n, &object) {
                    Ok(read) => return Ok(read),
                    Err(why) => damaged = damaged.or(Some(why)),
                },
                Err(e) if e.kind() == bucket::ErrorKind::NotFound => {}
                Err(e) => return Err(NotRead::Now(chain(&e))),
            }
        }
        Err(NotRead::Never(damaged.unwrap_or_else(|| "it is not in the bucket".to_owned())))
    }

    fn decode(&self, n: SegmentNumber, object: &Bytes) -> Result<(segment::Header, segment::Columns), String> {
        let (header, columns) = segment::decode(object).map_err(|e| chain(&e))?;
        if (header.writer, header.n) != (self.id, n) {
            return Err(format!("it says that it is segment {} of writer {}", header.n, header.writer));
        }
        Ok((header, columns))
    }
}
