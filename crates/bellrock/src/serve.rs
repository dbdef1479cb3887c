//! `bellrock serve`: builds the roles, wires them, and stops them in order.
//!
//! Built from the outside in, so that what fails most often fails first and touches nothing: the lock
//! on the data folder, the addresses, the bucket, the index, then the roles. Everything that lives as long as the
//! process is a task in one of the stop's stages.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::Api;
use bucket::{Bucket, Location, RangeCache};
use compactor::Compactor;
use index::NodeId;
use ingester::Ingester;
use model::Revision;
use querier::{OldestPlan, Querier};
use runtime::{Clock, DataDir, Random, Registry, Shutdown, Stage, StopReason, SystemClock, Tasks};
use tokio::net::TcpListener;

use crate::heads::LocalHeads;
use crate::health::NodeHealth;
use crate::index_log::{self, IndexGroup};
use crate::logging::{self, LogLevel, chain};
use crate::services::{LocalIngest, LocalQueries};
use crate::settings::sources::Surroundings;
use crate::settings::{Loaded, Settings};
use crate::signals::Signals;
use crate::{greeting, process_metrics, roles};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How often it is looked at whether the bucket is still this cluster's (RELIABILITY.md, row 13).
const CHECK_CLUSTER_INTERVAL: Duration = Duration::from_secs(10);

/// Serves until something ends it; returns what the process exits with.
pub fn run(loaded: Loaded, surroundings: Surroundings) -> ExitCode {
    let executor = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("bellrock").build() {
        Ok(executor) => executor,
        Err(error) => return cannot_start(&error.into()),
    };
    let served = executor.block_on(serve(loaded, surroundings));
    // Everything has ended or was aborted; a thread that still computes for nobody is not waited for.
    executor.shutdown_background();
    match served {
        Ok(StopReason::Requested(_)) => ExitCode::SUCCESS,
        Ok(StopReason::Failed(_)) => ExitCode::FAILURE,
        Err(error) => cannot_start(&error),
    }
}

/// Tells the person who starts it, in whatever format the log is.
fn cannot_start(error: &anyhow::Error) -> ExitCode {
    // Without a stderr there is nobody to tell.
    let _gone = writeln!(std::io::stderr(), "bellrock cannot start: {}", chain(error.as_ref())).is_err();
    ExitCode::FAILURE
}

async fn serve(mut loaded: Loaded, surroundings: Surroundings) -> Result<StopReason> {
    let clock = SystemClock::shared();
    let settings = &loaded.settings;
    let level = logging::start(settings.log_format, settings.log_level, clock.clone());
    runtime::process::raise_open_files_max();
    let mut signals = Signals::listen().context("listen to signals")?;
    let data = DataDir::open(&settings.data)?;
    let listeners = runtime::listen(&settings.listen).map_err(|error| anyhow::anyhow!("cannot {error} (listen)"))?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<SocketAddr>>>()?;
    let shutdown = Shutdown::new();
    let node = Node::build(settings, &data, listeners, clock.clone(), shutdown.clone(), level).await?;
    greet(&addresses, &data, settings.bucket.as_ref());
    signals.until_stopping(&shutdown, || node.reload(&mut loaded, &surroundings)).await;
    node.stop(&mut signals).await;
    Ok(shutdown.reason().unwrap_or_else(|| StopReason::Requested("asked to".to_string())))
}

fn greet(addresses: &[SocketAddr], data: &DataDir, bucket: Option<&Location>) {
    let place = bucket.map_or_else(|| data.path().display().to_string(), Location::to_string);
    let text = greeting::text(VERSION, addresses, &place, &runtime::process::host_name());
    // For the person who starts it, beside the log on stderr; a service may have no stdout.
    let _gone = std::io::stdout().write_all(text.as_bytes()).is_err();
    for address in greeting::reachable(addresses) {
        tracing::warn!(%address, id = "no-auth", "other machines can reach this address and nobody has to log in");
    }
    tracing::info!(version = VERSION, addresses = ?addresses, data = %data.path().display(), bucket = place, "serving");
}

/// Everything that runs in this process.
struct Node {
    tasks: Tasks,
    clock: Arc<dyn Clock>,
    level: LogLevel,
    memory_total_bytes: u64,
    ingester: Ingester,
    querier: Querier,
    api: Api,
}

impl Node {
    async fn build(
        settings: &Settings,
        data: &DataDir,
        listeners: Vec<TcpListener>,
        clock: Arc<dyn Clock>,
        shutdown: Shutdown,
        level: LogLevel,
    ) -> Result<Node> {
        let random = Random::from_system()?;
        let registry = Registry::new();
        let tasks = Tasks::new(shutdown.clone());
        let memory_total_bytes = roles::memory_total_bytes();
        process_metrics::register_process(&registry, VERSION, &*clock);

        let location = match &settings.bucket {
            Some(location) => location.clone(),
            None => Location::Own(data.folder("bucket")?),
        };
        let bucket = Bucket::open(location, clock.clone(), &registry).await?;
        if bucket.is_remote() {
            tracing::info!(
                bucket = bucket.place(),
                id = "bucket-durability",
                "whether answered writes survive a power cut is the object store's to see to; Garage needs metadata_fsync \
                 and data_fsync = true"
            );
        }
        let index_folder = data.folder("index")?;
        let index = index_log::open(&index_folder, &bucket, clock.clone(), &random, &registry).await?;
        process_metrics::register_data(&registry, data.path());
        check_cluster(&tasks, bucket.clone(), index.clone(), clock.clone());

        let collected = bucket.clone();
        let queried = for_queries(&bucket, settings, data, &registry).await?;
        let bucket = Arc::new(bucket);
        let parts = ingester::Parts {
            group: index.clone(),
            bucket: bucket.clone(),
            clock: clock.clone(),
            random: random.clone(),
            registry: registry.clone(),
            tasks: tasks.clone(),
            node: NodeId(random.u64()),
        };
        let ingester = Ingester::start(roles::ingester(settings, memory_total_bytes), parts).await?;
        ingester.set_limits(roles::ingester_limits(&settings.limits), roles::ingester_tenants(settings));
        let parts = querier::Parts {
            group: index.clone(),
            bucket: Arc::new(queried),
            heads: Arc::new(LocalHeads(ingester.heads())),
            clock: clock.clone(),
            registry: registry.clone(),
        };
        let querier = Querier::new(&roles::querier(settings, memory_total_bytes), parts);
        run_compactor(
            &tasks,
            compactor::Parts {
                cluster: index_log::cluster_of(&index),
                bucket: collected,
                clock: clock.clone(),
                registry: registry.clone(),
                lowest_in_use: lowest_in_use(index.clone(), querier.plans()),
                group: index.clone(),
            },
        );
        let parts = api::Parts {
            ingest: Arc::new(LocalIngest(ingester.clone())),
            queries: Arc::new(LocalQueries(querier.clone())),
            health: Arc::new(NodeHealth { ingester: ingester.clone(), index, shutdown: shutdown.clone() }),
            clock: clock.clone(),
            random,
            registry,
            version: VERSION.to_string(),
        };
        let api = Api::new(roles::api(settings, memory_total_bytes), parts);
        let serving = api.clone();
        tasks.spawn("api.serve", Stage::Draining, async move {
            let draining = async move { shutdown.reached(Stage::Draining).await };
            api::serve(&serving, listeners, draining).await;
        });
        Ok(Node { tasks, clock, level, memory_total_bytes, ingester, querier, api })
    }

    /// SIGHUP: puts what may change while running in force, and says what was done.
    fn reload(&self, loaded: &mut Loaded, surroundings: &Surroundings) {
        let done = match loaded.reload(surroundings) {
            Ok(done) => done,
            Err(faults) => {
                tracing::error!(error = %faults, id = "bad-settings", "settings not reloaded, the old ones stay");
                return;
            }
        };
        let settings = &loaded.settings;
        self.level.set(settings.log_level);
        self.ingester.set_limits(roles::ingester_limits(&settings.limits), roles::ingester_tenants(settings));
        self.querier.set_limits(roles::querier_limits(settings, self.memory_total_bytes));
        self.api.set_settings(roles::api(settings, self.memory_total_bytes));
        tracing::info!(applied = done.applied.join(","), "settings reloaded");
        for setting in done.needs_restart {
            tracing::warn!(setting, id = "needs-restart", "changed setting needs a restart");
        }
    }

    /// Stops everything in order; a second signal does not wait.
    async fn stop(self, signals: &mut Signals) {
        match self.tasks.shutdown().reason() {
            Some(StopReason::Failed(error)) => tracing::error!(error, "stopping after a failure"),
            Some(StopReason::Requested(signal)) => tracing::info!(signal, "stopping"),
            None => {}
        }
        let since = self.clock.boottime();
        tokio::select! {
            () = self.tasks.stop(&*self.clock, roles::stop_limit) => {
                let elapsed_ms = (self.clock.boottime() - since).as_millis() as u64;
                tracing::info!(elapsed_ms, "stopped");
            }
            () = signals.insists() => tracing::warn!("told to stop again, not waiting"),
        }
    }
}

/// The bucket as queries use it: reads of a remote one are tried until the query's own deadline, and copies are kept.
async fn for_queries(bucket: &Bucket, settings: &Settings, data: &DataDir, registry: &Registry) -> Result<Bucket> {
    if !bucket.is_remote() {
        return Ok(bucket.clone());
    }
    let folder = data.path().join("cache");
    let cache = RangeCache::open(&folder, settings.cache, registry)
        .with_context(|| format!("open the cache in {}", folder.display()))?;
    Ok(bucket.with_patience(Duration::MAX).with_cache(cache))
}

/// Keeps the index in the bucket and collects; at the end stores it once more and closes the log, with a snapshot
/// for a quick start, as nothing proposes any more.
fn run_compactor(tasks: &Tasks, parts: compactor::Parts) {
    let (shutdown, index) = (tasks.shutdown().clone(), parts.group.clone());
    let compactor = Compactor::new(compactor::Settings::default(), parts);
    tasks.spawn("compactor.run", Stage::Closing, async move {
        compactor.run(shutdown.clone()).await;
        shutdown.reached(Stage::Closing).await;
        index.close().await;
    });
}

/// Says which revision this node still needs the objects of: the oldest plan's, or what is applied here.
fn lowest_in_use(index: IndexGroup, plans: OldestPlan) -> Arc<dyn Fn() -> Revision + Send + Sync> {
    Arc::new(move || {
        // In this order: a plan that is made in between is of this revision or a later one.
        let applied = index.read(|index| index.revision());
        plans.revision().map_or(applied, |oldest| oldest.min(applied))
    })
}

/// Stops the process when the bucket has become another cluster's, or a later life's of this one.
fn check_cluster(tasks: &Tasks, bucket: Bucket, index: IndexGroup, clock: Arc<dyn Clock>) {
    let shutdown = tasks.shutdown().clone();
    let expected = index_log::cluster_of(&index);
    tasks.spawn("bucket.check_cluster", Stage::Flushing, async move {
        loop {
            tokio::select! {
                () = shutdown.reached(Stage::Flushing) => return,
                () = clock.sleep(CHECK_CLUSTER_INTERVAL) => {}
            }
            match bucket.check_cluster(&expected).await {
                Ok(()) => {}
                Err(error) if error.kind() == bucket::ErrorKind::OtherCluster => {
                    shutdown.begin(StopReason::Failed(chain(&error)));
                    return;
                }
                Err(error) => tracing::warn!(error = chain(&error), "bucket not checked"),
            }
        }
    });
}
