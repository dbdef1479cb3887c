//! The other nodes: where they are, and calls to them.
//!
//! A node has three connections from here, one a lane, opened when first needed. [`Peers::call`] waits for an answer;
//! [`Peers::post`] does not: posts wait in a bounded queue of their own per node and go out in order ([`crate::posts`]),
//! and are dropped when the node can't be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::Request;
use model::NodeId;
use parking_lot::Mutex;
use runtime::{Clock, Registry};

use crate::Host;
use crate::connect::{Connection, Outgoing, connect};
use crate::error::{CallError, Refusal, RefusalKind};
use crate::hello::{Hello, HelloError};
use crate::message::{Lane, Message};
use crate::metrics::Metrics;
use crate::posts::Mailbox;
use crate::security::Security;
use crate::settings::Settings;

/// What [`Peers`] is built from.
pub struct PeersParts {
    /// Who this is.
    pub host: Arc<dyn Host>,
    /// How connections are secured.
    pub security: Security,
    /// Bounds.
    pub settings: Settings,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where metrics go.
    pub registry: Registry,
    /// Told when posts to a node could not be delivered.
    pub unreachable: Arc<dyn Fn(NodeId) + Send + Sync>,
}

/// The other nodes. Clones are the same.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

/// What is known of the way to a node, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Where.
    pub address: String,
    /// Why the last connection failed; `None` if it stands, or none was tried.
    pub error: Option<String>,
}

struct Shared {
    parts: PeersParts,
    metrics: Metrics,
    addresses: Mutex<BTreeMap<NodeId, String>>,
    /// By address, as a node that moves is reached at another one at once.
    lines: Mutex<BTreeMap<(String, Lane), Arc<Line>>>,
    mailboxes: Mutex<BTreeMap<NodeId, Arc<Mailbox>>>,
}

/// The way to one address.
struct Line {
    /// Held while a connection is made, so that one is made at a time.
    state: tokio::sync::Mutex<LineState>,
    last_error: Mutex<Option<String>>,
}

#[derive(Default)]
struct LineState {
    connection: Option<Connection>,
    failed_at: Option<Duration>,
}

impl Peers {
    /// No nodes are known yet.
    pub fn new(parts: PeersParts) -> Peers {
        let metrics = Metrics::new(&parts.registry);
        let (addresses, lines, mailboxes) = Default::default();
        Peers { shared: Arc::new(Shared { parts, metrics, addresses, lines, mailboxes }) }
    }

    pub(crate) fn parts(&self) -> &PeersParts {
        &self.shared.parts
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Sets where every other node is. Nodes that are not named are forgotten, with what waits for them.
    pub fn set_addresses(&self, addresses: BTreeMap<NodeId, String>) {
        let named: BTreeSet<&String> = addresses.values().collect();
        self.shared.lines.lock().retain(|(address, _), _| named.contains(address));
        let before = std::mem::replace(&mut *self.shared.addresses.lock(), addresses.clone());
        self.shared.mailboxes.lock().retain(|node, mailbox| {
            // What was posted to where it was may lie there: whoever has moved gets a mailbox of its own.
            let stays = match (before.get(node), addresses.get(node)) {
                (Some(before), Some(now)) => before == now,
                (None, now) => now.is_some(),
                (Some(_), None) => false,
            };
            if !stays {
                mailbox.close();
            }
            stays
        });
    }

    /// Adds a node that nobody else has told of yet: whoever has just said where it is.
    pub fn set_address(&self, node: NodeId, address: &str) {
        let before = self.shared.addresses.lock().insert(node, address.to_owned());
        if before.is_some_and(|before| before != address)
            && let Some(mailbox) = self.shared.mailboxes.lock().remove(&node)
        {
            mailbox.close();
        }
    }

    /// Where a node is.
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.shared.addresses.lock().get(&node).cloned()
    }

    /// How the nodes can be reached, for people.
    pub fn reached(&self) -> BTreeMap<NodeId, Reached> {
        let addresses = self.shared.addresses.lock().clone();
        let lines = self.shared.lines.lock();
        let of = |address: String| {
            let line = lines.get(&(address.clone(), Lane::Control));
            let error = line.and_then(|line| line.last_error.lock().clone());
            Reached { address, error }
        };
        addresses.into_iter().map(|(node, address)| (node, of(address))).collect()
    }

    /// Asks whoever is at an address who it is.
    pub async fn greet(&self, address: &str) -> Result<Hello, CallError> {
        let connection = self.shared.connection(None, address, Lane::Control).await?;
        Ok(connection.other)
    }

    /// Sends a message to a node and waits for its answer, at most `limit`.
    pub async fn call(&self, node: NodeId, message: Message, body: Bytes, limit: Duration) -> Result<Bytes, CallError> {
        let address = self.address(node).ok_or_else(|| CallError::Unknown { node: node.to_string() })?;
        self.shared.call(Some(node), &address, message, body, limit).await
    }

    /// Sends a message to whoever is at an address.
    pub async fn call_at(
        &self,
        address: &str,
        message: Message,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        self.shared.call(None, address, message, body, limit).await
    }

    /// Sends a message of consensus to a node; it may be lost. Never waits. Must be called inside a tokio runtime.
    pub fn post(&self, node: NodeId, post: Vec<u8>) {
        let mut mailboxes = self.shared.mailboxes.lock();
        let mailbox = mailboxes.entry(node).or_insert_with(|| {
            let mailbox = Arc::new(Mailbox::default());
            runtime::spawn(deliver(self.shared.clone(), node, mailbox.clone()));
            mailbox
        });
        if mailbox.put(post, &self.shared.parts.settings) {
            self.shared.metrics.posts.inc();
        } else {
            self.shared.metrics.posts_dropped.inc();
        }
    }
}

/// Takes the posts of one node to it, in order, until the mailbox is closed.
async fn deliver(shared: Arc<Shared>, node: NodeId, mailbox: Arc<Mailbox>) {
    loop {
        mailbox.filled().await;
        if mailbox.is_closed() {
            return;
        }
        let error = shared.post_while_it_stands(node, &mailbox).await;
        if mailbox.is_closed() {
            return;
        }
        tracing::debug!(%node, error, "posts not delivered");
        // What waits is old by the time that the node is there again.
        shared.metrics.posts_dropped.inc_by(mailbox.empty() as u64);
        (shared.parts.unreachable)(node);
    }
}

impl Shared {
    async fn call(
        &self,
        node: Option<NodeId>,
        address: &str,
        message: Message,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let name = node.map_or_else(|| address.to_owned(), |node| node.to_string());
        let clock = &*self.parts.clock;
        let since = clock.boottime();
        let called = runtime::timeout(clock, limit, self.call_in_time(node, address, message, body)).await;
        let called =
            called.unwrap_or_else(|_| Err(CallError::Timeout { node: name, message: message.name(), after: limit }));
        self.metrics.calls.with([message.name()]).observe((clock.boottime() - since).as_secs_f64());
        if let Err(error) = &called {
            let reason = match error {
                CallError::Unreachable { .. } | CallError::Unknown { .. } => "unreachable",
                CallError::Timeout { .. } => "timeout",
                CallError::Refused { .. } => "refused",
            };
            self.metrics.calls_failed.with([message.name(), reason]).inc();
        }
        called
    }

    async fn call_in_time(
        &self,
        node: Option<NodeId>,
        address: &str,
        message: Message,
        body: Bytes,
    ) -> Result<Bytes, CallError> {
        let mut connection = self.connection(node, address, message.lane()).await?;
        let name = connection.other.node.to_string();
        let failed =
            |reason: String| CallError::Unreachable { node: name.clone(), address: address.to_owned(), reason };
        let request = request(message, Either::Left(Full::new(body))).map_err(|error| failed(error.to_string()))?;
        let response = connection.requests.send_request(request).await.map_err(|error| failed(chain(&error)))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), message.answer_bytes_max()).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
        if status == 200 {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        let refusal = Refusal { kind: RefusalKind::of_status(status), text };
        Err(CallError::Refused { node: connection.other.node.to_string(), refusal })
    }

    /// Takes posts to a node until that fails; returns why.
    async fn post_while_it_stands(&self, node: NodeId, mailbox: &Arc<Mailbox>) -> String {
        let Some(address) = self.addresses.lock().get(&node).cloned() else { return "no address of it".to_owned() };
        let mut connection = match self.connection(Some(node), &address, Lane::Control).await {
            Ok(connection) => connection,
            Err(error) => return error.to_string(),
        };
        let request = match request(Message::Consensus, Either::Right(mailbox.body())) {
            Ok(request) => request,
            Err(error) => return error.to_string(),
        };
        match connection.requests.send_request(request).await {
            Ok(response) => format!("it takes no more of them: {}", response.status()),
            Err(error) => chain(&error),
        }
    }

    /// A connection that stands, made if there is none.
    async fn connection(&self, node: Option<NodeId>, address: &str, lane: Lane) -> Result<Connection, CallError> {
        let line = {
            let mut lines = self.lines.lock();
            let line = lines.entry((address.to_owned(), lane)).or_insert_with(|| {
                Arc::new(Line { state: tokio::sync::Mutex::default(), last_error: Mutex::default() })
            });
            line.clone()
        };
        let failed = |reason: String| {
            let node = node.map_or_else(|| address.to_owned(), |node| node.to_string());
            CallError::Unreachable { node, address: address.to_owned(), reason }
        };
        let settings = &self.parts.settings;
        let clock = &*self.parts.clock;
        let mut state = line.state.lock().await;
        let standing = state.connection.as_ref().filter(|connection| !connection.requests.is_closed());
        let connection = match standing {
            Some(connection) => connection.clone(),
            None => {
                state.connection = None;
                if let Some(at) = state.failed_at
                    && clock.boottime() < at + settings.reconnect_delay
                {
                    let last = line.last_error.lock().clone().unwrap_or_default();
                    return Err(failed(last));
                }
                let made = connect(address, &*self.parts.host, lane, &self.parts.security, settings);
                let made = runtime::timeout(clock, settings.connect_timeout, made).await;
                let made = made.unwrap_or_else(|_| {
                    Err(HelloError::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time")))
                });
                match made {
                    Ok(connection) => {
                        state.failed_at = None;
                        *line.last_error.lock() = None;
                        state.connection = Some(connection.clone());
                        connection
                    }
                    Err(error) => {
                        state.failed_at = Some(clock.boottime());
                        self.metrics.connect_failures.inc();
                        let text = error.to_string();
                        let is_new = line.last_error.lock().replace(text.clone()).as_deref() != Some(text.as_str());
                        let is_itself =
                            matches!(&error, HelloError::Itself) || text.ends_with(&HelloError::Itself.to_string());
                        if is_new && !is_itself && !matches!(error, HelloError::Io(_)) {
                            tracing::warn!(address, error = text, id = "peer-refused", "no connection to a node");
                        }
                        return Err(failed(text));
                    }
                }
            }
        };
        drop(state);
        match node {
            Some(node) if connection.other.node != node => {
                Err(failed(format!("node {} answers there", connection.other.node)))
            }
            _ => Ok(connection),
        }
    }
}

fn request(message: Message, body: Outgoing) -> Result<Request<Outgoing>, hyper::http::Error> {
    Request::post(format!("https://bellrock/{}", message.name())).body(body)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
