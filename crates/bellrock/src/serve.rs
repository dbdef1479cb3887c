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
use ingester::fence::FenceRules;
use ingester::{Homes, Ingester, WardenParts};
use model::Revision;
use querier::{Querier, SegmentHeads};
use runtime::{Clock, DataDir, Random, Registry, Shutdown, Stage, StopReason, SystemClock, Tasks};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cluster_status::WholeCluster;
use crate::heads::LocalHeads;
use crate::health::NodeHealth;
use crate::index_log;
use crate::late::Late;
use crate::logging::{self, LogLevel, chain};
use crate::member::heads::ClusterHeads;
use crate::member::homes::PeerHomes;
use crate::member::shares::ClusterNodes;
use crate::member::{self, Member, together};
use crate::mover::Mover;
use crate::services::{LocalIngest, LocalQueries};
use crate::settings::sources::Surroundings;
use crate::settings::{Loaded, Settings};
use crate::signals::Signals;
use crate::{control, greeting, process_metrics, roles};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a node that stops waits for a leader of the index to cut its head with.
const STOP_WITHOUT_LEADER: Duration = Duration::from_secs(10);
/// How often it is looked at whether the bucket is still this cluster's (RELIABILITY.md, row 13).
const CHECK_CLUSTER_INTERVAL: Duration = Duration::from_secs(10);
/// How soon it is tried again when the bucket did not say: writes wait for it before long.
const CHECK_CLUSTER_AGAIN: Duration = Duration::from_secs(1);

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
    let listen = |addresses: &[SocketAddr], setting: &str| {
        runtime::listen(addresses).map_err(|error| anyhow::anyhow!("cannot {error} ({setting})"))
    };
    let listeners = listen(&settings.listen, "listen")?;
    let peer_listeners = listen(&settings.cluster.peer_listen, "peer-listen")?;
    let addresses = local_addresses(&listeners)?;
    let shutdown = Shutdown::new();
    let base = Base::new(clock.clone(), Tasks::new(shutdown.clone()))?;
    let roles = Roles::of(&base);
    serve_control(&data, &base, &roles.mover);
    let location = match &settings.bucket {
        Some(location) => location.clone(),
        None => Location::Own(data.folder("bucket")?),
    };
    let member = roles.member.clone();
    let (tasks, fronts) = (base.tasks.clone(), base.serve_api(settings, &roles, &location, listeners));
    greet(&addresses, &data, settings.bucket.as_ref());
    let building = Node::build(settings, &data, location, base, roles, peer_listeners, &addresses, level, fronts);
    // Another node may have to come first, and whoever stops this one until then does not wait for that.
    let built = tokio::select! {
        built = building => Some(built?),
        () = signals.until_stopping(&shutdown, || tracing::warn!("settings not reloaded: the node is starting")) => None,
    };
    match built.flatten() {
        Some(node) => {
            signals.until_stopping(&shutdown, || node.reload(&mut loaded, &surroundings)).await;
            stop(&node.tasks, &*clock, &mut signals, &member).await;
        }
        None => stop(&tasks, &*clock, &mut signals, &member).await,
    }
    Ok(shutdown.reason().unwrap_or_else(|| StopReason::Requested("asked to".to_string())))
}

/// Hears programs of the same user; without that it serves all the same.
fn serve_control(data: &DataDir, base: &Base, mover: &Mover) {
    let listener = match runtime::listen_in(data.path()) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, id = "no-control-socket", "no socket in the data folder: bucket migrate won't work");
            return;
        }
    };
    let (mover, clock, shutdown) = (mover.clone(), base.clock.clone(), base.tasks.shutdown().clone());
    base.tasks.spawn("control.serve", Stage::Draining, control::serve(listener, mover, clock, shutdown));
}

fn local_addresses(listeners: &[TcpListener]) -> Result<Vec<SocketAddr>> {
    Ok(listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?)
}

/// Stops everything in order; a second signal does not wait. Nor does the last of several nodes that stop together for a
/// leader that will not come: what it answered is durable, and whoever starts next adopts it.
async fn stop(tasks: &Tasks, clock: &dyn Clock, signals: &mut Signals, member: &Late<Member>) {
    let leaderless = async {
        match member.get() {
            Some(member) => member.leaderless_for(STOP_WITHOUT_LEADER).await,
            None => std::future::pending().await,
        }
    };
    match tasks.shutdown().reason() {
        Some(StopReason::Failed(error)) => tracing::error!(error, "stopping after a failure"),
        Some(StopReason::Requested(signal)) => tracing::info!(signal, "stopping"),
        None => {}
    }
    let since = clock.boottime();
    tokio::select! {
        () = tasks.stop(clock, roles::stop_limit) => {
            let elapsed_ms = (clock.boottime() - since).as_millis() as u64;
            tracing::info!(elapsed_ms, "stopped");
        }
        () = signals.insists() => tracing::warn!("told to stop again, not waiting"),
        () = leaderless => tracing::warn!("the index has no leader any more: stopped without a last cut"),
    }
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

/// What everything in this process is handed.
struct Base {
    clock: Arc<dyn Clock>,
    random: Random,
    registry: Registry,
    tasks: Tasks,
    memory_total_bytes: u64,
}

/// The roles, once they run.
struct Roles {
    ingester: Late<Ingester>,
    querier: Late<Querier>,
    member: Late<Member>,
    mover: Mover,
}

impl Roles {
    fn of(base: &Base) -> Roles {
        let member: Late<Member> = Late::default();
        let mover = Mover::new(member.clone(), base.clock.clone(), base.random.clone(), base.tasks.clone());
        Roles { ingester: Late::default(), querier: Late::default(), member, mover }
    }

    fn health(&self, tasks: &Tasks) -> NodeHealth {
        let (ingester, member, mover) = (self.ingester.clone(), self.member.clone(), self.mover.clone());
        NodeHealth { ingester, member, mover, shutdown: tasks.shutdown().clone() }
    }
}

impl Base {
    fn new(clock: Arc<dyn Clock>, tasks: Tasks) -> Result<Base> {
        let registry = Registry::new();
        process_metrics::register_process(&registry, VERSION, &*clock);
        let memory_total_bytes = roles::memory_total_bytes();
        Ok(Base { clock, random: Random::from_system()?, registry, tasks, memory_total_bytes })
    }

    /// Answers clients from here on: with "starting" until the roles run.
    fn serve_api(&self, settings: &Settings, roles: &Roles, bucket: &Location, listeners: Vec<TcpListener>) -> Api {
        let shutdown = self.tasks.shutdown().clone();
        let (ingester, member) = (roles.ingester.clone(), roles.member.clone());
        let parts = api::Parts {
            ingest: Arc::new(LocalIngest { ingester, member: member.clone() }),
            queries: Arc::new(LocalQueries(roles.querier.clone())),
            health: Arc::new(roles.health(&self.tasks)),
            cluster: Arc::new(WholeCluster {
                member: member.clone(),
                bucket: bucket.clone(),
                mover: roles.mover.clone(),
                version: VERSION,
            }),
            clock: self.clock.clone(),
            random: self.random.clone(),
            registry: self.registry.clone(),
            version: VERSION.to_string(),
        };
        let api = Api::new(roles::api(settings, self.memory_total_bytes), parts);
        let serving = api.clone();
        self.tasks.spawn("api.serve", Stage::Draining, async move {
            let draining = async move { shutdown.reached(Stage::Draining).await };
            api::serve(&serving, listeners, draining).await;
        });
        api
    }
}

/// Everything that runs in this process.
struct Node {
    tasks: Tasks,
    level: LogLevel,
    memory_total_bytes: u64,
    ingester: Ingester,
    querier: Querier,
    api: Api,
}

impl Node {
    /// `None`: told to stop before this node was part of a cluster.
    #[allow(clippy::too_many_arguments, reason = "the one place where everything comes together")]
    async fn build(
        settings: &Settings,
        data: &DataDir,
        location: Location,
        base: Base,
        roles: Roles,
        peer_listeners: Vec<TcpListener>,
        api_addresses: &[SocketAddr],
        level: LogLevel,
        api: Api,
    ) -> Result<Option<Node>> {
        let Base { clock, random, registry, tasks, memory_total_bytes } = base;
        let bucket = Bucket::open(location, clock.clone(), &registry).await?;
        if settings.bucket.is_some() && bucket.finish_move(&data.path().join("bucket")).await? {
            tracing::info!(bucket = bucket.place(), "the move to this bucket is finished");
        }
        if bucket.is_remote() {
            tracing::info!(
                bucket = bucket.place(),
                id = "bucket-durability",
                "whether answered writes survive a power cut is the object store's to see to; Garage needs metadata_fsync \
                 and data_fsync = true"
            );
        }
        process_metrics::register_data(&registry, data.path());

        let surroundings = together::Surroundings {
            settings: &settings.cluster,
            traffic: roles::cluster(settings, memory_total_bytes),
            folder: data.folder("index")?,
            bucket: bucket.clone(),
            peer_listeners,
            api_addresses,
            clock: clock.clone(),
            random: random.clone(),
            registry: registry.clone(),
            tasks: tasks.clone(),
        };
        let Some(together) = surroundings.come_together(&roles.member).await? else { return Ok(None) };
        let member = together.member;
        let (index, node) = (member.group(), member.node());
        check_cluster(&tasks, bucket.clone(), member.clone(), clock.clone());

        if settings.bucket.is_none() {
            roles.mover.set_bucket(bucket.clone());
        }
        let collected = bucket.clone();
        let queried = Arc::new(for_queries(&bucket, settings, data, &registry).await?);
        let parts = ingester::Parts {
            group: index.clone(),
            bucket: Arc::new(bucket),
            clock: clock.clone(),
            random: random.clone(),
            registry: registry.clone(),
            tasks: tasks.clone(),
            node,
            session: Arc::new(member.clone()),
            homes: together.peers.clone().map(|peers| Arc::new(PeerHomes(peers)) as Arc<dyn Homes>),
        };
        let ingester = Ingester::start(roles::ingester(settings, memory_total_bytes), parts).await?;
        let warden = WardenParts {
            group: index.clone(),
            sessions: Arc::new(member.clone()),
            clock: clock.clone(),
            tasks: tasks.clone(),
        };
        ingester::start_warden(FenceRules { session_max: member::SESSION_MAX, ..FenceRules::default() }, warden);
        ingester.set_limits(roles::ingester_limits(&settings.limits), roles::ingester_tenants(settings));
        let heads = ClusterHeads {
            node,
            local: LocalHeads(ingester.heads()),
            peers: together.peers.clone(),
            group: index.clone(),
            segments: SegmentHeads::new(index.clone(), queried.clone()),
        };
        let parts = querier::Parts {
            group: index.clone(),
            bucket: queried,
            heads: Arc::new(heads),
            nodes: together.peers.map(|peers| {
                let nodes: Arc<dyn querier::Nodes> = Arc::new(ClusterNodes { node, peers, group: index.clone() });
                nodes
            }),
            clock: clock.clone(),
            registry: registry.clone(),
        };
        let querier = Querier::new(&roles::querier(settings, memory_total_bytes), parts);
        member.set_roles(ingester.clone(), querier.clone());
        let lowest = member.clone();
        let stored = run_compactor(
            &tasks,
            member.clone(),
            compactor::Parts {
                cluster: index_log::cluster_of(&index),
                bucket: collected,
                clock: clock.clone(),
                registry: registry.clone(),
                // While it is not known nothing is collected: nobody uses less than this.
                lowest_in_use: Arc::new(move || lowest.lowest_in_use().unwrap_or_default()),
                group: index,
            },
        );
        member.set_says(member::Says { health: roles.health(&tasks), stored });
        roles.ingester.set(ingester.clone());
        roles.querier.set(querier.clone());
        Ok(Some(Node { tasks, level, memory_total_bytes, ingester, querier, api }))
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
}

/// The bucket as queries use it: reads of a remote one are tried until the query's own deadline, and copies are kept; from
/// the next start on, if it becomes one while it is used.
async fn for_queries(bucket: &Bucket, settings: &Settings, data: &DataDir, registry: &Registry) -> Result<Bucket> {
    if !bucket.is_remote() {
        return Ok(bucket.with_patience(Duration::MAX));
    }
    let folder = data.path().join("cache");
    let cache = RangeCache::open(&folder, settings.cache, registry)
        .with_context(|| format!("open the cache in {}", folder.display()))?;
    Ok(bucket.with_patience(Duration::MAX).with_cache(cache))
}

/// While this node leads the index, keeps it in the bucket and collects; at the end stores it once more. Then closes the
/// log, with a snapshot for a quick start, as nothing proposes any more. Gives the revision up to which the bucket holds it.
fn run_compactor(tasks: &Tasks, member: Member, parts: compactor::Parts) -> watch::Receiver<Revision> {
    let (shutdown, index) = (tasks.shutdown().clone(), parts.group.clone());
    let mut compactor = Compactor::new(compactor::Settings::default(), parts);
    let stored = compactor.stored_revision();
    tasks.spawn("compactor.run", Stage::Closing, async move {
        loop {
            tokio::select! {
                () = member.wait_leads(true) => {}
                () = shutdown.reached(Stage::Closing) => break,
            }
            tokio::select! {
                () = compactor.run(shutdown.clone()) => break,
                // Stopped in the middle it leaves nothing half done: keys are write-once, and deleting can be done again.
                () = member.wait_leads(false) => compactor = compactor.anew(),
            }
        }
        shutdown.reached(Stage::Closing).await;
        index.close().await;
    });
    stored
}

/// Stops the process when the bucket has become another cluster's, or a later life's of this one. Notes there what this
/// node's replica of the index has.
///
/// It looks on while what was accepted is flushed and cut: until then writes are still answered.
fn check_cluster(tasks: &Tasks, bucket: Bucket, member: Member, clock: Arc<dyn Clock>) {
    let shutdown = tasks.shutdown().clone();
    let expected = index_log::cluster_of(&member.group());
    // Each look counts from its beginning, so one attempt that takes its time is better than none that is given up.
    let bucket = bucket.with_patience(Duration::ZERO);
    tasks.spawn("bucket.check_cluster", Stage::Closing, async move {
        let mut noted = None;
        loop {
            let at = clock.boottime();
            let interval = match bucket.check_cluster(&expected).await {
                Ok(()) => {
                    member.bucket_seen(at);
                    if let Err(error) = member.note_replica(&bucket, &mut noted).await {
                        tracing::warn!(error = chain(&error), "what this replica has not noted in the bucket");
                    }
                    CHECK_CLUSTER_INTERVAL
                }
                Err(error) if error.kind() == bucket::ErrorKind::OtherCluster => {
                    member.bucket_lost();
                    shutdown.begin(StopReason::Failed(chain(&error)));
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "bucket not checked");
                    CHECK_CLUSTER_AGAIN
                }
            };
            tokio::select! {
                () = shutdown.reached(Stage::Closing) => return,
                () = clock.sleep((at + interval).saturating_sub(clock.boottime())) => {}
            }
        }
    });
}
