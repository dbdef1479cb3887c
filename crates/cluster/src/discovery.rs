//! Finds the addresses of the other nodes: of `--join`, asked again for ever.
//!
//! A name is never believed to be empty, nor to be complete: what was known stays known while a lookup fails, and
//! what fails is shown. Whether a cluster may begin is decided elsewhere, by what nodes say of themselves.
//!
//! `asking` decides what to ask when and how answers are taken in, without I/O; `resolver` asks; here is the loop
//! between them.

mod asking;
mod metrics;
mod resolver;
mod snapshot;
mod source;

use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use runtime::{Clock, Random, Registry, Shutdown, Stage, Tasks};
use tokio::sync::watch;

use asking::{Asking, Input, Now, Output};
use metrics::Metrics;
pub use resolver::{ResolveError, Resolver};
pub use snapshot::{Failure, Snapshot, SourceState};
pub use source::Source;

/// What an operator writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscoverySettings {
    /// Where the addresses of other nodes come from.
    pub sources: Vec<Source>,
    /// The nameserver to ask instead of those in `/etc/resolv.conf`.
    pub nameserver: Option<SocketAddr>,
}

/// What discovery works with.
pub struct DiscoveryParts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub random: Random,
    /// Where its metrics go.
    pub registry: Registry,
    /// Where its task runs, until the flushing stage.
    pub tasks: Tasks,
}

/// What is known of the other nodes' addresses, kept up to date. Clones show the same.
#[derive(Debug, Clone)]
pub struct Discovery {
    snapshot: watch::Receiver<Snapshot>,
    resolver: Resolver,
}

impl Discovery {
    /// Starts to ask. Must be called inside a tokio runtime.
    pub fn start(settings: DiscoverySettings, parts: DiscoveryParts) -> Discovery {
        let resolver = Resolver::new(settings.nameserver, parts.clock.clone());
        let asking = Asking::new(settings.sources, parts.random);
        let (sender, snapshot) = watch::channel(asking.snapshot().clone());
        let metrics = Metrics::new(&parts.registry);
        metrics.addresses.set(asking.snapshot().addresses.len() as i64);
        let shutdown = parts.tasks.shutdown().clone();
        let driver = Driver { asking, resolver: resolver.clone(), clock: parts.clock, sender, metrics };
        parts.tasks.spawn("cluster.discover", Stage::Flushing, driver.run(shutdown));
        Discovery { snapshot, resolver }
    }

    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// What is known, to be waited on: it tells of a change when there are other addresses, when a source begins or
    /// ceases to fail, and when every source has been asked. Counts and times are up to date whenever it is looked at.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.clone()
    }

    /// Looks up other names with the same nameservers.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }
}

struct Driver {
    asking: Asking,
    resolver: Resolver,
    clock: Arc<dyn Clock>,
    sender: watch::Sender<Snapshot>,
    metrics: Metrics,
}

impl Driver {
    async fn run(mut self, shutdown: Shutdown) {
        let mut questions = FuturesUnordered::new();
        let mut input = Some(Input::Tick);
        loop {
            if let Some(input) = input.take() {
                let now = Now { boottime: self.clock.boottime(), ms: self.clock.now_ms() };
                let outputs = self.asking.step(now, input);
                for at in self.tell(&outputs) {
                    let (resolver, source) = (self.resolver.clone(), self.asking.snapshot().sources[at].source.clone());
                    questions.push(async move { (at, resolver.ask(&source).await) });
                }
            }
            let tick = async {
                match self.asking.next_at() {
                    Some(at) => self.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.reached(Stage::Flushing) => return,
                Some((source, answer)) = questions.next() => {
                    self.metrics.lookups.inc();
                    self.metrics.failures.inc_by(u64::from(answer.error.is_some()));
                    input = Some(Input::Answered { source, answer });
                }
                () = tick => input = Some(Input::Tick),
            }
        }
    }

    /// Logs and publishes what has come of a step; returns the sources to ask.
    fn tell(&self, outputs: &[Output]) -> Vec<usize> {
        let snapshot = self.asking.snapshot();
        let mut ask = Vec::new();
        for output in outputs {
            match output {
                Output::Ask(at) => ask.push(*at),
                Output::Failed(at) => {
                    let SourceState { source, addresses, failure, .. } = &snapshot.sources[*at];
                    let error = failure.as_ref().map_or("", |failure| &failure.error);
                    tracing::warn!(%source, error, kept = addresses.len(), id = "join-unresolved", "join not resolved");
                }
                Output::Recovered(at) => {
                    let SourceState { source, addresses, .. } = &snapshot.sources[*at];
                    tracing::info!(%source, addresses = addresses.len(), "join resolved again");
                }
                Output::Changed => tracing::info!(addresses = ?snapshot.addresses, "addresses discovered"),
            }
        }
        self.metrics.addresses.set(snapshot.addresses.len() as i64);
        self.metrics.failing.set(snapshot.sources.iter().filter(|source| source.failure.is_some()).count() as i64);
        let has_news = outputs.iter().any(|output| !matches!(output, Output::Ask(_)));
        self.sender.send_if_modified(|shown| {
            let is_first_round_over = snapshot.is_asked() && !shown.is_asked();
            shown.clone_from(snapshot);
            has_news || is_first_round_over
        });
        ask
    }
}
