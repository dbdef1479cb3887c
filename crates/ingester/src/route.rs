//! Route: splits a request by series, hands each part to its series' home, and answers when all parts are answered.
//!
//! The home is the live writer that wins the rendezvous hash (`home`). That keeps a series in one head instead of in one a
//! node, and nothing else depends on it: any live writer may take any part, which then obeys the same rules as a request
//! that was sent to it. So a part that is not taken is split anew among the nodes that were not tried yet, and at the
//! end stays here; a part that is tried at two nodes because an answer was lost is in two heads, which the merge makes
//! one again. A part is never forwarded twice: whoever takes it does so itself or refuses.
//!
//! A node that does not take parts is passed over for a while (`passed_over` says for how long). Nobody waits for another's
//! memory: what is on its way to others is bounded, and a home without room refuses at once. As a home
//! waits for nothing but its own flush, nodes that forward to one another can't wait in a circle.
//!
//! Most of a part's bytes are labels, and its home knows most series. So once a node has told in an answer how it hashes
//! labels, parts for it name their series by those hashes; it takes such a part whole or says that it needs the labels:
//! once after each cut of its head, and for series that are new or never can be stored. Then the part is sent with them. See
//! docs/decisions/0010.
//!
//! Where this node's writer is the only live one, a request is appended as it is, at the cost of a look at the index.

mod cutter;
mod hashers;
mod home;
mod part;
mod passed_over;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use index::Stage;
use model::{NodeId, TenantId};
use parking_lot::Mutex;
use proto::{DecodeLimits, WriteRequest};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::error::{PushError, Rejected};
use crate::ingester::{Ingester, Shared, Ticket};
use cutter::{Cut, Cutter};
use hashers::Hashers;
use part::{Answer, PART_BYTES_MAX};
pub(crate) use part::{HashedPart, Outcome};
use passed_over::{Input, Output, PassedOver, Rules};

/// With [`ASK_LIMIT`] a node that is cut off costs a write a second.
const RULES: Rules = Rules {
    ask_after: Duration::from_millis(400),
    rest_refused: Duration::from_secs(1),
    rest_silent: Duration::from_secs(2),
};
/// A node that does not say in this time whether it takes parts is silent.
const ASK_LIMIT: Duration = Duration::from_millis(600);
/// How often whoever waits for a part looks at how long its node has been silent.
const TICK: Duration = Duration::from_millis(200);
/// A home that is there and has not made a part durable in this time is passed over: it may be the only one that is cut off
/// from the bucket, and says so itself a little later. Two PUTs that are given up are shorter.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a part costs beside its bytes while it is on its way.
const PART_OVERHEAD_BYTES: usize = 1 << 10;
/// A part was decoded within limits once, and no column of it is longer than there.
const PART_DECODED_BYTES_MAX: usize = 256 << 20;

/// The other nodes' writers, as the ingester reaches them.
pub trait Homes: Send + Sync + 'static {
    /// Hands a part to a node's writer ([`Ingester::take_part`]) and waits until it is durable there, at most `limit`. What
    /// it says then is returned as it is.
    fn append(&self, node: NodeId, part: Bytes, limit: Duration) -> BoxFuture<'static, Result<Bytes, NotTaken>>;

    /// Asks a node whether it takes parts now ([`Ingester::takes_parts`]), for at most `limit`.
    fn ask(&self, node: NodeId, limit: Duration) -> BoxFuture<'static, Result<(), NotTaken>>;
}

/// Why a node has not taken a part; it may have, if it is silent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It says so.
    #[error("{0}")]
    Refused(String),
    /// It says nothing: it can't be reached, or takes too long.
    #[error("{0}")]
    Silent(String),
}

/// Why a part of another node's request is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// It is no part of a request.
    #[error("not a part of a request: {0}")]
    Malformed(String),
    /// It can't be stored now.
    #[error(transparent)]
    Push(#[from] PushError),
}

/// What routing keeps.
pub(crate) struct Router {
    homes: Option<Arc<dyn Homes>>,
    passed_over: Mutex<PassedOver>,
    /// Told when a node is found to be silent, for whoever waits for it.
    silenced: watch::Sender<()>,
    in_flight_bytes: Arc<AtomicUsize>,
    hashers: Hashers,
    /// Made when there is something to split.
    remembered: OnceLock<home::Remembered>,
}

impl Router {
    /// To these nodes; `None` if there never can be any.
    pub(crate) fn new(homes: Option<Arc<dyn Homes>>) -> Router {
        Router {
            homes,
            passed_over: Mutex::new(PassedOver::new(RULES)),
            silenced: watch::Sender::new(()),
            in_flight_bytes: Arc::default(),
            hashers: Hashers::default(),
            remembered: OnceLock::new(),
        }
    }

    /// What is on its way to other nodes.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes.load(Ordering::Relaxed)
    }
}

/// A request that lies in segments, or is on its way to them. [`Routed::durable`] sends the parts of other nodes.
#[must_use = "nothing is durable, and no part is sent, before it says so"]
pub struct Routed {
    shared: Arc<Shared>,
    placed: Placed,
    /// By boottime; it is answered by then.
    until: Duration,
}

/// Where a request has gone.
#[derive(Default)]
struct Placed {
    here: Option<Ticket>,
    parts: Vec<Part>,
}

/// A part for another node, until it is answered.
struct Part {
    node: NodeId,
    with_labels: Bytes,
    /// The same without labels, to be tried first.
    with_hashes: Option<Bytes>,
    /// Who is not to be tried when that node does not take it.
    tried: Vec<NodeId>,
    _held: HeldBytes,
}

/// Bytes that are on their way; they return when it is dropped.
struct HeldBytes {
    in_flight: Arc<AtomicUsize>,
    bytes: usize,
}

impl HeldBytes {
    /// As many of them as there still are.
    fn split(&mut self, bytes: usize) -> HeldBytes {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        HeldBytes { in_flight: self.in_flight.clone(), bytes }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Ingester {
    /// Takes a client's request: what is at home here is in the open segment when this returns, the rest goes to its homes
    /// while [`Routed::durable`] waits. The request may be dropped at once.
    ///
    /// Errors: `Unavailable` kinds only, and then nothing is durable.
    pub fn push(&self, tenant: &TenantId, request: WriteRequest<'_>) -> Result<Routed, PushError> {
        let until = self.shared.parts.clock.boottime() + self.shared.settings.ack_timeout;
        let placed = if self.shared.is_alone() {
            self.shared.append(tenant, &request).map(|ticket| Placed { here: Some(ticket), parts: Vec::new() })
        } else {
            self.shared.place(tenant, request, Vec::new(), PushError::Closed)
        };
        let placed = placed.inspect_err(|error| self.shared.count_unavailable(error))?;
        Ok(Routed { shared: self.shared.clone(), placed, until })
    }

    /// Whether parts of other nodes' requests would be taken now; cheap.
    pub fn takes_parts(&self) -> Result<(), PushError> {
        self.shared.check_room(&self.shared.appender.lock())?;
        match &*self.shared.failing.lock() {
            // Another node may reach the bucket.
            Some(why) => Err(PushError::Failing { why: why.clone() }),
            None => Ok(()),
        }
    }

    /// Takes a part of a request that another node has received, as the home of its series; what has labels is checked as if
    /// it had been sent here, and what has none was. What it returns waits until the part is durable, and says then what the
    /// other node is to hear; at once, if the labels are needed.
    ///
    /// Errors: nothing was taken.
    pub fn take_part(&self, part: &[u8]) -> Result<BoxFuture<'static, Result<Bytes, PushError>>, PartError> {
        self.takes_parts()?;
        let (shared, hasher) = (&self.shared, self.shared.hasher);
        let (tenant, part) = part::decode(part).map_err(|error| PartError::Malformed(error.to_string()))?;
        let ticket = match part {
            part::Part::WithLabels(body) => {
                Some(shared.append(&tenant, &decode_request(body).map_err(PartError::Malformed)?)?)
            }
            part::Part::WithHashes(part) => shared.append_hashed(&tenant, &part)?,
        };
        let Some(ticket) = ticket else {
            return Ok(async move { Ok(Answer { hasher, outcome: None }.encode().into()) }.boxed());
        };
        shared.metrics.parts_taken.inc();
        Ok(async move { Ok(Answer { hasher, outcome: Some(ticket.outcome().await?) }.encode().into()) }.boxed())
    }
}

impl Routed {
    /// Waits until everything that could be stored is durable and visible to queries, wherever it is.
    ///
    /// Errors: `Rejected` if part of the request was refused for good, with everything else durable; any other if part
    /// may not be stored, and the request is to be sent again whole.
    pub async fn durable(self) -> Result<(), PushError> {
        let Routed { shared, mut placed, until } = self;
        if placed.parts.is_empty()
            && let Some(here) = placed.here.take()
        {
            return here.durable().await;
        }
        let clock = shared.parts.clock.clone();
        let limit = until.saturating_sub(clock.boottime());
        let finished = runtime::timeout(&*clock, limit, shared.clone().finish(placed, until)).await;
        let late = || Err(PushError::AckTimeout { after_ms: shared.settings.ack_timeout.as_millis() });
        let result = match finished.unwrap_or_else(|_| late()) {
            Ok(rejected) if rejected.is_empty() => return Ok(()),
            Ok(rejected) => Err(PushError::Rejected(rejected)),
            Err(error) => Err(error),
        };
        result.inspect_err(|error| shared.count_unavailable(error))
    }
}

impl Shared {
    /// Whether no other node has a live writer.
    fn is_alone(&self) -> bool {
        let here = self.parts.node;
        self.router.homes.is_none()
            || self
                .parts
                .group
                .read(|index| index.writers().all(|(_, writer)| writer.stage != Stage::Live || writer.node == here))
    }

    /// The nodes that may take a part now, this one included, each once, ascending; without those that were tried. This
    /// node alone if nobody is left; nobody if it was tried too.
    fn candidates(self: &Arc<Self>, tried: &[NodeId]) -> Vec<NodeId> {
        let here = self.parts.node;
        let mut nodes: Vec<NodeId> = self.parts.group.read(|index| {
            index.writers().filter(|(_, writer)| writer.stage == Stage::Live).map(|(_, writer)| writer.node).collect()
        });
        nodes.sort_unstable();
        nodes.dedup();
        self.step(Input::Live(&nodes), "");
        self.router.hashers.retain(&nodes);
        let is_failing = self.failing.lock().is_some();
        let passed_over = self.router.passed_over.lock();
        nodes.retain(|node| {
            let is_well = if *node == here { !is_failing } else { !passed_over.contains(*node) };
            is_well && !tried.contains(node)
        });
        if nodes.is_empty() && !tried.contains(&here) {
            nodes.push(here);
        }
        nodes
    }

    /// Appends what is at home here, and makes parts of the rest; whom `tried` names gets nothing. `last` is the error if
    /// nobody is left.
    ///
    /// Errors: what was appended may be stored, so the request is to be sent again.
    fn place(
        self: &Arc<Self>,
        tenant: &TenantId,
        mut request: WriteRequest<'_>,
        mut tried: Vec<NodeId>,
        mut last: PushError,
    ) -> Result<Placed, PushError> {
        let here = self.parts.node;
        let mut placed = Placed::default();
        loop {
            let candidates = self.candidates(&tried);
            if candidates.is_empty() {
                return Err(last);
            }
            self.split(tenant, &mut request, &candidates, &tried, &mut placed.parts)?;
            if request.series.is_empty() && request.metadata.is_empty() {
                return Ok(placed);
            }
            tried.push(here);
            match self.append(tenant, &request) {
                Ok(mut ticket) => {
                    let without_room = ticket.without_room();
                    if without_room.is_empty() || self.candidates(&tried).is_empty() {
                        placed.here = Some(ticket);
                        return Ok(placed);
                    }
                    last = self.no_room(without_room.len());
                    let without_room = ticket.take_without_room();
                    keep(&mut request, &without_room);
                    placed.here = Some(ticket);
                }
                Err(error) => last = error,
            }
        }
    }

    /// Makes parts of the series whose home is elsewhere, and leaves the others in the request: all of them if there is no
    /// memory to send anything.
    fn split(
        &self,
        tenant: &TenantId,
        request: &mut WriteRequest<'_>,
        candidates: &[NodeId],
        tried: &[NodeId],
        parts: &mut Vec<Part>,
    ) -> Result<(), PushError> {
        let here = candidates.iter().position(|node| *node == self.parts.node);
        if here.is_some() && candidates.len() == 1 {
            return Ok(());
        }
        let tenant_hash = home::tenant_hash(tenant);
        let remembered = self.router.remembered.get_or_init(home::Remembered::new);
        let hashes = remembered.series_hashes(tenant_hash, &request.series);
        let home_of = |(hash, series): (u64, &proto::TimeSeries<'_>)| match here {
            Some(here) if series.wire.len() > PART_BYTES_MAX => here,
            _ => home::home(hash, candidates),
        };
        let homes: Vec<usize> = hashes.into_iter().zip(&request.series).map(home_of).collect();
        // Metadata are of no series: they stay where they came, if anything does.
        let home_of_metadata = here.unwrap_or_else(|| home::home(tenant_hash, candidates));
        let mut cutter = Cutter::new(tenant, candidates.len());
        let elsewhere = |home: usize| Some(home).filter(|_| Some(home) != here);
        for (&home, series) in homes.iter().zip(&request.series) {
            if let Some(home) = elsewhere(home) {
                cutter.expect_series(home, series);
            }
        }
        if let Some(home) = elsewhere(home_of_metadata) {
            request.metadata.iter().for_each(|metadata| cutter.expect_metadata(home, metadata));
        }
        cutter.hash_for(|home| self.router.hashers.next(candidates[home]));
        let mut held = self.hold(cutter.expected_bytes());
        if held.is_err() {
            // Hashes are a second form of the same: without it there may be room.
            cutter.hash_for(|_| None);
            held = self.hold(cutter.expected_bytes());
        }
        let mut held = match held {
            Ok(held) => held,
            // Locality is all that is lost.
            Err(_) if here.is_some() => return Ok(()),
            Err(full) => return Err(full),
        };
        let mut homes = homes.into_iter();
        let samples = &request.samples;
        request.series.retain(|series| {
            let home = homes.next().and_then(elsewhere);
            if let Some(home) = home {
                cutter.put_series(home, series, samples);
            }
            home.is_none()
        });
        if let Some(home) = elsewhere(home_of_metadata) {
            std::mem::take(&mut request.metadata).iter().for_each(|metadata| cutter.put_metadata(home, metadata));
        }
        for Cut { home, with_labels, with_hashes } in cutter.finish() {
            let bytes = with_labels.len() + with_hashes.as_ref().map_or(0, Vec::len);
            let (with_labels, with_hashes) = (with_labels.into(), with_hashes.map(Bytes::from));
            let _held = held.split(bytes + PART_OVERHEAD_BYTES);
            parts.push(Part { node: candidates[home], with_labels, with_hashes, tried: tried.to_vec(), _held });
        }
        Ok(())
    }

    /// Takes memory for what is to be sent.
    fn hold(&self, series_bytes: usize) -> Result<HeldBytes, PushError> {
        let (bytes, max_bytes) = (series_bytes + PART_OVERHEAD_BYTES, self.settings.forward_bytes_max);
        let in_flight = &self.router.in_flight_bytes;
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= max_bytes);
        match in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(HeldBytes { in_flight: in_flight.clone(), bytes }),
            Err(used_bytes) => Err(PushError::ForwardsFull { used_bytes, max_bytes }),
        }
    }

    /// Sends the parts of others and waits for all; what was refused for good of any.
    fn finish(self: Arc<Self>, placed: Placed, until: Duration) -> BoxFuture<'static, Result<Rejected, PushError>> {
        let Placed { here, parts } = placed;
        async move {
            let others = futures::future::try_join_all(parts.into_iter().map(|part| self.deliver(part, until)));
            let here = async {
                let Some(ticket) = here else { return Ok(Rejected::default()) };
                let Outcome { rejected, without_room } = ticket.outcome().await?;
                if without_room.is_empty() { Ok(rejected) } else { Err(self.no_room(without_room.len())) }
            };
            let (mut rejected, others) = futures::future::try_join(here, others).await?;
            others.into_iter().for_each(|other| rejected.merge(other));
            Ok(rejected)
        }
        .boxed()
    }

    fn no_room(&self, series: usize) -> PushError {
        PushError::NewSeries {
            series: series as u64,
            used_bytes: self.memory_bytes(),
            max_bytes: self.settings.memory_bytes_max,
        }
    }

    /// Hands a part over; what its home does not take goes to others, or stays here.
    async fn deliver(self: &Arc<Self>, part: Part, until: Duration) -> Result<Rejected, PushError> {
        let (mut rejected, only, why) = match self.hand_over(&part, until).await {
            Ok(Outcome { rejected, without_room }) if without_room.is_empty() => return Ok(rejected),
            Ok(Outcome { rejected, without_room }) => {
                let why = format!("node {} has no memory for {} new series", part.node, without_room.len());
                (rejected, Some(without_room), why)
            }
            Err(not_taken) => (Rejected::default(), None, format!("node {}: {not_taken}", part.node)),
        };
        self.metrics.parts_failed_over.inc();
        debug!(node = %part.node, error = why, "part not taken, others are tried");
        let placed = self.place_anew(&part, only.as_deref(), why)?;
        drop(part);
        rejected.merge(self.clone().finish(placed, until).await?);
        Ok(rejected)
    }

    fn place_anew(self: &Arc<Self>, part: &Part, only: Option<&[u32]>, why: String) -> Result<Placed, PushError> {
        // It was a request when it came, so an error is a bug; who sent it may try again.
        let (tenant, mut request) = read_back(&part.with_labels).map_err(|why| PushError::NoWriter { why })?;
        if let Some(only) = only {
            keep(&mut request, only);
        }
        let mut tried = part.tried.clone();
        tried.push(part.node);
        self.place(&tenant, request, tried, PushError::NoWriter { why })
    }

    /// Sends a part to its node and waits for the answer, or for the node to be found silent.
    async fn hand_over(self: &Arc<Self>, part: &Part, until: Duration) -> Result<Outcome, NotTaken> {
        self.metrics.parts_forwarded.inc();
        if let Some(with_hashes) = &part.with_hashes {
            let outcome = self.exchange(part.node, with_hashes.clone(), until).await?;
            self.router.hashers.tried(part.node, outcome.is_some());
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
            self.metrics.parts_spelled.inc();
        }
        let outcome = self.exchange(part.node, part.with_labels.clone(), until).await?;
        outcome.ok_or_else(|| NotTaken::Refused("it does not read labels".to_owned()))
    }

    /// The same of one form of a part. `None`: the node has taken nothing, and needs the other form.
    async fn exchange(
        self: &Arc<Self>,
        node: NodeId,
        part: Bytes,
        until: Duration,
    ) -> Result<Option<Outcome>, NotTaken> {
        let Some(homes) = self.router.homes.clone() else { return Err(NotTaken::Refused("no way to it".to_owned())) };
        let limit = until.saturating_sub(self.parts.clock.boottime()).min(PATIENCE);
        let mut silenced = self.router.silenced.subscribe();
        let _sent = Sent::begin(self.clone(), node);
        let mut answer = homes.append(node, part, limit);
        let answer = loop {
            if self.router.passed_over.lock().is_silent(node) {
                return Err(NotTaken::Silent("it does not answer".to_owned()));
            }
            tokio::select! {
                answer = &mut answer => break answer,
                _ = silenced.changed() => {}
                () = self.parts.clock.sleep(TICK) => self.step(Input::Tick, ""),
            }
        };
        let read = |bytes: Bytes| Answer::decode(&bytes).map_err(|error| NotTaken::Refused(error.to_string()));
        let answer = answer.and_then(read);
        match &answer {
            Ok(answer) => {
                self.step(Input::Took(node), "");
                self.router.hashers.told(node, answer.hasher);
            }
            Err(not_taken) => self.step_not_taken(node, not_taken),
        }
        Ok(answer?.outcome)
    }

    fn step_not_taken(self: &Arc<Self>, node: NodeId, not_taken: &NotTaken) {
        match not_taken {
            NotTaken::Refused(why) => self.step(Input::Refused(node), why),
            NotTaken::Silent(why) => self.step(Input::Silent(node), why),
        }
    }

    /// Steps the machine and does what it says; `why` is for the log.
    fn step(self: &Arc<Self>, input: Input<'_>, why: &str) {
        let now = self.parts.clock.boottime();
        let outputs = self.router.passed_over.lock().step(now, input);
        for output in &outputs {
            match *output {
                Output::Ask(node) => self.ask(node),
                Output::PassOver(node) => {
                    warn!(%node, error = why, id = "node-passed-over", "a node takes no parts of writes, others take them");
                }
                Output::TakeUp(node) => info!(%node, "a node takes parts of writes again"),
            }
        }
        if matches!(input, Input::Silent(_)) {
            self.router.silenced.send_replace(());
        }
        if outputs.iter().any(|output| !matches!(output, Output::Ask(_))) {
            self.metrics.nodes_passed_over.set(self.router.passed_over.lock().len() as i64);
        }
    }

    fn ask(self: &Arc<Self>, node: NodeId) {
        let Some(homes) = self.router.homes.clone() else { return };
        let shared = self.clone();
        runtime::spawn(async move {
            match homes.ask(node, ASK_LIMIT).await {
                Ok(()) => shared.step(Input::Takes(node), ""),
                Err(not_taken) => shared.step_not_taken(node, &not_taken),
            }
        });
    }
}

/// A part on its way, as the machine counts them; also when whoever waits for it leaves.
struct Sent {
    shared: Arc<Shared>,
    node: NodeId,
}

impl Sent {
    fn begin(shared: Arc<Shared>, node: NodeId) -> Sent {
        shared.step(Input::Sent(node), "");
        Sent { shared, node }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let now = self.shared.parts.clock.boottime();
        self.shared.router.passed_over.lock().step(now, Input::Ended(self.node));
    }
}

/// Reads a part with labels; the error is in words.
fn read_back(part: &[u8]) -> Result<(TenantId, WriteRequest<'_>), String> {
    match part::decode(part).map_err(|error| error.to_string())? {
        (tenant, part::Part::WithLabels(body)) => Ok((tenant, decode_request(body)?)),
        (_, part::Part::WithHashes(_)) => Err("a part without labels".to_owned()),
    }
}

/// Reads the request that a part with labels holds; the error is in words.
fn decode_request(body: &[u8]) -> Result<WriteRequest<'_>, String> {
    let limits = DecodeLimits { result_bytes_max: PART_DECODED_BYTES_MAX };
    let mut request = proto::decode_write_request(body, &limits).map_err(|error| error.to_string())?;
    // Counted by whoever received the request.
    request.exemplars = 0;
    Ok(request)
}

/// Leaves these series in a request, by their places in it, ascending; and nothing else.
fn keep(request: &mut WriteRequest<'_>, places: &[u32]) {
    let mut places = places.iter().peekable();
    let mut place = 0;
    request.series.retain(|_| {
        let is_kept = places.next_if_eq(&&place).is_some();
        place += 1;
        is_kept
    });
    request.metadata.clear();
    request.exemplars = 0;
}
