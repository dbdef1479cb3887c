//! The other nodes: where they are, and calls to them.
//!
//! A node has two connections from here, one a lane, opened when first needed. [`Peers::call`] waits for an answer;
//! [`Peers::post`] does not: posts wait in a bounded queue of their own per node and go out in order, as many as
//! there are in one body, and are dropped when the node can't be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use model::NodeId;
use parking_lot::Mutex;
use runtime::{Clock, Registry};
use tokio::sync::Notify;

use crate::Host;
use crate::connect::{Connection, connect};
use crate::error::{CallError, Refusal, RefusalKind};
use crate::hello::{Hello, HelloError};
use crate::message::{Lane, Message, put_post};
use crate::metrics::Metrics;
use crate::security::Security;
use crate::settings::Settings;

/// Posts in one body, unless a single one is longer.
const POSTS_BYTES: usize = 1 << 20;
/// A body of posts that is not answered in this time was not delivered.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Posts that wait for one node.
#[derive(Default)]
struct Mailbox {
    posts: Mutex<Posts>,
    filled: Notify,
}

#[derive(Default)]
struct Posts {
    waiting: std::collections::VecDeque<Vec<u8>>,
    bytes: usize,
    is_closed: bool,
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
        self.shared.mailboxes.lock().retain(|node, mailbox| {
            let is_known = addresses.contains_key(node);
            if !is_known {
                mailbox.posts.lock().is_closed = true;
                mailbox.filled.notify_one();
            }
            is_known
        });
        *self.shared.addresses.lock() = addresses;
    }

    /// Adds a node that nobody else has told of yet: whoever has just said where it is.
    pub fn set_address(&self, node: NodeId, address: &str) {
        self.shared.addresses.lock().insert(node, address.to_owned());
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
        let mailbox = {
            let mut mailboxes = self.shared.mailboxes.lock();
            let mailbox = mailboxes.entry(node).or_insert_with(|| {
                let mailbox = Arc::new(Mailbox::default());
                runtime::spawn(deliver(self.shared.clone(), node, mailbox.clone()));
                mailbox
            });
            mailbox.clone()
        };
        let settings = &self.shared.parts.settings;
        {
            let mut posts = mailbox.posts.lock();
            let is_full = posts.waiting.len() >= settings.posts_waiting_max
                || posts.bytes + post.len() > settings.posts_waiting_bytes_max;
            if is_full {
                drop(posts);
                self.shared.metrics.posts_dropped.inc();
                return;
            }
            posts.bytes += post.len();
            posts.waiting.push_back(post);
        }
        mailbox.filled.notify_one();
    }
}

/// Takes the posts of one node to it, in order, until the node is forgotten.
async fn deliver(shared: Arc<Shared>, node: NodeId, mailbox: Arc<Mailbox>) {
    loop {
        let (body, count) = {
            let mut posts = mailbox.posts.lock();
            if posts.is_closed {
                return;
            }
            let (mut body, mut count) = (Vec::new(), 0_u64);
            while let Some(next) = posts.waiting.front()
                && (body.is_empty() || body.len() + next.len() <= POSTS_BYTES)
            {
                let Some(post) = posts.waiting.pop_front() else { break };
                posts.bytes -= post.len();
                put_post(&mut body, &post);
                count += 1;
            }
            (body, count)
        };
        if count == 0 {
            mailbox.filled.notified().await;
            continue;
        }
        let address = shared.addresses.lock().get(&node).cloned();
        let delivered = match address {
            Some(address) => shared.call(Some(node), &address, Message::Consensus, body.into(), POST_TIMEOUT).await,
            None => Err(CallError::Unknown { node: node.to_string() }),
        };
        if let Err(error) = delivered {
            tracing::debug!(%node, %error, "posts not delivered");
            shared.metrics.posts_dropped.inc_by(count);
            // What waits behind them is old by the time that the node is there again.
            let dropped = {
                let mut posts = mailbox.posts.lock();
                posts.bytes = 0;
                std::mem::take(&mut posts.waiting).len()
            };
            shared.metrics.posts_dropped.inc_by(dropped as u64);
            (shared.parts.unreachable)(node);
        }
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
        let request = Request::post(format!("https://bellrock/{}", message.name())).body(Full::new(body));
        let request = request.map_err(|error| failed(error.to_string()))?;
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
