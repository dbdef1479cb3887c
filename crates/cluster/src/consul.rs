//! Tells a Consul agent of this node, for as long as it runs.
//!
//! Two services: `<service>` is the HTTP port, with a check of `/-/ready`, for those who write and query; and
//! `<service>-peer` is the peer port, for `--join dnssrv+<service>-peer.service.consul`. The second has a check of its
//! own, that the port answers: nodes that look for one another for the first time are not ready before they have found
//! each other, and Consul's DNS leaves out what is not healthy.
//!
//! Nothing depends on the agent: what fails is told, once, and tried again. An agent that was restarted without its
//! memory is told again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use runtime::{Clock, Counter, Gauge, Random, Registry, Secret, Shutdown, Stage, Tasks};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::discovery::Resolver;
use crate::host::HostPort;

/// Between two looks whether the agent still knows the services.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// After a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How long the agent, which is on this machine or near, may take for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a stopping node tries to take its services away. Their checks fail soon after in any case.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How much of a refusal is quoted.
const QUOTE_CHARS_MAX: usize = 200;

/// What an operator writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulSettings {
    /// The agent's HTTP address.
    pub address: HostPort,
    /// The name of the services.
    pub service: String,
    /// Tags of the services.
    pub tags: Vec<String>,
    /// Metadata of the services.
    pub meta: BTreeMap<String, String>,
    /// The ACL token that may write them.
    pub token: Option<Secret>,
}

/// What the agent is told of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulNode {
    /// The node's name. Names the services on this agent together with their ports.
    pub name: String,
    /// Where others, and the agent's check, reach its HTTP port.
    pub http: HostPort,
    /// Where other nodes reach it; none without cluster traffic.
    pub peer: Option<HostPort>,
}

/// What the registration works with.
pub struct ConsulParts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub random: Random,
    /// Finds the agent if its address is a name.
    pub resolver: Resolver,
    /// Where its metrics go.
    pub registry: Registry,
    /// Where its task runs, through the draining stage.
    pub tasks: Tasks,
}

/// How it stands with the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsulStatus {
    /// Whether the agent knew all services when it last answered.
    pub is_registered: bool,
    /// Why the latest attempt failed, if it did.
    pub error: Option<String>,
}

/// A service of this node.
struct Service {
    id: String,
    registration: Vec<u8>,
    /// Whether the agent has known it in this process' life.
    is_known: bool,
}

/// Registers a node with the agent, and goes on to until the process stops; shows how it stands.
pub fn register_with_consul(
    settings: ConsulSettings,
    node: &ConsulNode,
    parts: ConsulParts,
) -> watch::Receiver<ConsulStatus> {
    let (status, shown) = watch::channel(ConsulStatus::default());
    let failures = parts.registry.counter(
        "bellrock_cluster_consul_failures_total",
        "Attempts to register with the Consul agent, or to see that it still knows this node, that failed.",
    );
    let registered = parts.registry.gauge(
        "bellrock_cluster_consul_registered",
        "1 while the Consul agent knows this node's services. Worry when it is 0: who finds nodes by Consul misses it.",
    );
    let services = services(&settings, node);
    let agent = Agent { settings, clock: parts.clock, resolver: parts.resolver };
    let registrar = Registrar { agent, services, random: parts.random, status, failures, registered };
    let shutdown = parts.tasks.shutdown().clone();
    parts.tasks.spawn("cluster.register", Stage::Draining, registrar.run(shutdown));
    shown
}

fn services(settings: &ConsulSettings, node: &ConsulNode) -> Vec<Service> {
    let check = |what: serde_json::Value| {
        let mut check = json!({"Interval": "5s", "Timeout": "3s", "DeregisterCriticalServiceAfter": "1h"});
        if let (Some(check), serde_json::Value::Object(what)) = (check.as_object_mut(), what) {
            check.extend(what);
        }
        check
    };
    let service = |name: String, at: &HostPort, check: serde_json::Value| {
        let id = format!("{name}-{}-{}", node.name, at.port);
        let registration = json!({
            "ID": id,
            "Name": name,
            "Address": at.host.to_string(),
            "Port": at.port,
            "Tags": settings.tags,
            "Meta": settings.meta,
            "Check": check,
        });
        Service { id, registration: registration.to_string().into_bytes(), is_known: false }
    };
    let ready = json!({"Name": "ready", "HTTP": format!("http://{}/-/ready", node.http)});
    let mut services = vec![service(settings.service.clone(), &node.http, check(ready))];
    services.extend(node.peer.as_ref().map(|peer| {
        let connects = json!({"Name": "connects", "TCP": peer.to_string()});
        service(format!("{}-peer", settings.service), peer, check(connects))
    }));
    services
}

struct Registrar {
    agent: Agent,
    services: Vec<Service>,
    random: Random,
    status: watch::Sender<ConsulStatus>,
    failures: Counter,
    registered: Gauge,
}

impl Registrar {
    async fn run(mut self, shutdown: Shutdown) {
        loop {
            let outcome = tokio::select! {
                () = shutdown.reached(Stage::Draining) => break,
                outcome = register(&self.agent, &mut self.services) => outcome,
            };
            let interval = if outcome.is_ok() { CHECK_INTERVAL } else { RETRY_INTERVAL };
            self.tell(outcome);
            let wait = self.random.duration_between(interval * 3 / 4, interval * 5 / 4);
            tokio::select! {
                () = shutdown.reached(Stage::Draining) => break,
                () = self.agent.clock.sleep(wait) => {}
            }
        }
        self.deregister().await;
    }

    fn tell(&self, outcome: Result<(), String>) {
        let is_registered = outcome.is_ok();
        let before = self.status.borrow().clone();
        let agent = &self.agent.settings.address;
        match &outcome {
            Ok(()) if !before.is_registered => tracing::info!(%agent, "registered with consul"),
            Ok(()) => {}
            Err(error) => {
                self.failures.inc();
                // Once; the status has the latest.
                if before.error.is_none() {
                    tracing::warn!(%agent, error, id = "consul-registration", "not registered with consul");
                }
            }
        }
        self.registered.set(i64::from(is_registered));
        self.status.send_replace(ConsulStatus { is_registered, error: outcome.err() });
    }

    /// Takes the services away, in one attempt.
    async fn deregister(&self) {
        let agent = &self.agent.settings.address;
        let all = async {
            for service in &self.services {
                let path = format!("/v1/agent/service/deregister/{}", segment(&service.id));
                match self.agent.request(Method::PUT, &path, Bytes::new()).await {
                    // Not found: it never knew it, or has forgotten it.
                    Ok((StatusCode::OK | StatusCode::NOT_FOUND, _)) => {}
                    Ok((status, answer)) => return Err(refusal(status, &answer)),
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        match limited(&*self.agent.clock, DEREGISTER_TIMEOUT, all).await {
            Ok(()) => tracing::info!(%agent, "deregistered from consul"),
            Err(error) => {
                tracing::warn!(%agent, error, id = "consul-registration", "not deregistered from consul");
            }
        }
        self.registered.set(0);
        self.status.send_replace(ConsulStatus::default());
    }
}

/// Sees to it that the agent knows each service. What it has not been told in this process' life is told in any case,
/// as a former process may have been another version with other settings.
async fn register(agent: &Agent, services: &mut [Service]) -> Result<(), String> {
    for service in services {
        if service.is_known {
            let path = format!("/v1/agent/service/{}", segment(&service.id));
            match agent.request(Method::GET, &path, Bytes::new()).await? {
                (StatusCode::OK, _) => continue,
                (StatusCode::NOT_FOUND, _) => {
                    tracing::info!(agent = %agent.settings.address, service = service.id, "consul forgot a service");
                    service.is_known = false;
                }
                (status, answer) => return Err(refusal(status, &answer)),
            }
        }
        let body = Bytes::from(service.registration.clone());
        match agent.request(Method::PUT, "/v1/agent/service/register?replace-existing-checks=true", body).await? {
            (StatusCode::OK, _) => service.is_known = true,
            (status, answer) => return Err(refusal(status, &answer)),
        }
    }
    Ok(())
}

/// What the agent said instead of yes. A redirect is one too: none is followed.
fn refusal(status: StatusCode, answer: &[u8]) -> String {
    let said: String = String::from_utf8_lossy(answer).trim().chars().take(QUOTE_CHARS_MAX).collect();
    if said.is_empty() { format!("the agent answers {status}") } else { format!("the agent answers {status}: {said}") }
}

/// A part of a path, whatever an operator has called it.
fn segment(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The agent's HTTP API. A request takes a connection of its own: there are a few in a minute.
struct Agent {
    settings: ConsulSettings,
    clock: Arc<dyn Clock>,
    resolver: Resolver,
}

impl Agent {
    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        limited(&*self.clock, REQUEST_TIMEOUT, async {
            let stream = self.connect().await?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            let request = self.build(method, path, body)?;
            let exchange = async move {
                let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
                let status = answer.status();
                let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
                let body = body.map_err(|error| format!("read the answer: {error}"))?;
                // Here the sender is dropped, which ends the connection.
                Ok((status, body.to_bytes()))
            };
            // What goes wrong with the connection is told to the exchange.
            let (answer, _told) = futures::join!(exchange, connection);
            answer
        })
        .await
    }

    fn build(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.settings.address.to_string());
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.settings.token {
            let mut value = hyper::header::HeaderValue::from_str(token.reveal())
                .map_err(|_| "the token has characters that no header may have".to_string())?;
            value.set_sensitive(true);
            request = request.header("X-Consul-Token", value);
        }
        request.body(Full::new(body)).map_err(|error| error.to_string())
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that connects to the agent, under a time limit")]
    async fn connect(&self) -> Result<TcpStream, String> {
        let addresses = self.resolver.resolve(&self.settings.address).await.map_err(|error| error.to_string())?;
        let mut failed = String::new();
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = format!("connect to {address}: {error}"),
            }
        }
        Err(failed)
    }
}

async fn limited<T>(
    clock: &dyn Clock,
    limit: Duration,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    runtime::timeout(clock, limit, work).await.unwrap_or_else(|timed_out| Err(timed_out.to_string()))
}

#[cfg(test)]
mod tests;
