//! The way from an empty process to a node that is part of a cluster: alone, or with the others.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bucket::Bucket;
use cluster::{
    ConsulNode, ConsulParts, Discovery, DiscoveryParts, HostPort, Peers, PeersParts, Rules, Security,
    register_with_consul,
};
use consensus::Transport;
use index::NodeInfo;
use model::NodeId;
use runtime::{Clock, Random, Registry, Stage, Tasks};
use tokio::net::TcpListener;

use super::join::{self, Way};
use super::{Member, change_members};
use crate::index_log::{self, Opened};
use crate::late::Late;
use crate::settings::cluster::ClusterSettings;

/// What it takes.
pub struct Surroundings<'a> {
    /// How nodes find and trust one another.
    pub settings: &'a ClusterSettings,
    /// Bounds of what nodes send one another.
    pub traffic: cluster::Settings,
    /// Where the index's log lies.
    pub folder: PathBuf,
    /// The cluster's bucket.
    pub bucket: Bucket,
    /// Where other nodes are heard.
    pub peer_listeners: Vec<TcpListener>,
    /// Where clients are heard.
    pub api_addresses: &'a [SocketAddr],
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Random,
    /// Where metrics go.
    pub registry: Registry,
    /// What lives as long as the process.
    pub tasks: Tasks,
}

/// A node that is part of a cluster, if only of itself.
pub struct Together {
    /// Its part in it.
    pub member: Member,
    /// The way to the other nodes; `None` if it takes none in.
    pub peers: Option<Peers>,
}

/// Carries consensus's messages, once there are peers.
struct PeerTransport {
    peers: Late<Peers>,
    /// Messages are sent from a thread of consensus's own.
    runtime: tokio::runtime::Handle,
}

impl Transport for PeerTransport {
    fn send(&self, to: u64, message: Vec<u8>) {
        let _inside = self.runtime.enter();
        if let Some(peers) = self.peers.get() {
            peers.post(NodeId(to), message);
        }
    }
}

impl Surroundings<'_> {
    /// Opens the index, finds the others, joins or begins a cluster, and waits until this node is in it.
    ///
    /// `None` if the process is told to stop before. `later` is set as soon as there is something to say of the node.
    pub async fn come_together(mut self, later: &Late<Member>) -> Result<Option<Together>> {
        let takes_others = !self.peer_listeners.is_empty();
        let joins = !self.settings.discovery.sources.is_empty();
        let transport: Late<Peers> = Late::default();
        let consensus = self.consensus(&transport);
        let opened = index_log::open(&self.folder, &self.bucket, &self.random, consensus.clone(), joins).await?;
        let (Opened::Whole(group) | Opened::Joining(group)) = &opened;
        let discovery = takes_others.then(|| self.discover());
        let info = if takes_others { self.info(discovery.as_ref())? } else { self.lonely_info() };
        let member = Member::new(info.clone(), group.clone(), self.clock.clone(), discovery.clone());
        later.set(member.clone());
        let peers = if takes_others { Some(self.peers(&member)?) } else { None };
        if let Some(peers) = &peers {
            member.set_peers(peers.clone());
            transport.set(peers.clone());
        }
        self.register(&info, discovery.as_ref());

        let shutdown = self.tasks.shutdown().clone();
        let tasks = self.tasks.clone();
        let is_joining = matches!(opened, Opened::Joining(_));
        drop(opened);
        if is_joining {
            match join::way(&member, &self.bucket, self.settings.expect, &shutdown).await? {
                None => return Ok(None),
                Some(Way::Join(cluster)) => {
                    tracing::info!(%cluster, "joining the cluster of the bucket");
                    member.set_joining(cluster);
                }
                Some(Way::Begin) => {
                    let cluster = self.bucket.bootstrap(&self.random).await?;
                    tracing::info!(%cluster, "this node begins the cluster");
                    member.group().close().await;
                    member.set_group(index_log::begin(&self.folder, cluster, consensus).await?);
                }
            }
        }
        self.tasks.spawn("member.renew", Stage::Closing, member.clone().renew(tasks.clone()));
        tokio::select! {
            () = member.wait_until_in() => {}
            () = shutdown.reached(Stage::Draining) => return Ok(None),
        }
        let (found, here) = (index_log::cluster_of(&member.group()), self.bucket.cluster().await?);
        if here != Some(found) {
            let here = here.map_or_else(|| "none".to_owned(), |here| here.to_string());
            bail!(
                "the index is of cluster {found}, the bucket in {} of cluster {here} (other-cluster)",
                self.bucket.place()
            );
        }
        self.tasks.spawn(
            "member.change_members",
            Stage::Draining,
            change_members(member.clone(), Rules::default(), tasks),
        );
        Ok(Some(Together { member, peers }))
    }

    fn consensus(&self, transport: &Late<Peers>) -> consensus::Parts {
        let parts = consensus::Parts::system(self.clock.clone(), self.random.clone(), self.registry.clone());
        let runtime = tokio::runtime::Handle::current();
        consensus::Parts { transport: Arc::new(PeerTransport { peers: transport.clone(), runtime }), ..parts }
    }

    fn discover(&self) -> Discovery {
        let parts = DiscoveryParts {
            clock: self.clock.clone(),
            random: self.random.clone(),
            registry: self.registry.clone(),
            tasks: self.tasks.clone(),
        };
        Discovery::start(self.settings.discovery.clone(), parts)
    }

    fn name(&self) -> String {
        self.settings.node_name.clone().unwrap_or_else(runtime::process::host_name)
    }

    fn lonely_info(&self) -> NodeInfo {
        NodeInfo { name: self.name(), peer: String::new(), api: String::new() }
    }

    fn info(&self, discovery: Option<&Discovery>) -> Result<NodeInfo> {
        let listening = self.peer_listeners.iter().map(TcpListener::local_addr);
        let listening = listening.collect::<std::io::Result<Vec<SocketAddr>>>()?;
        let found = discovery.map(|discovery| discovery.snapshot().addresses).unwrap_or_default();
        // Those that were given as addresses are known before anything is asked.
        let advertised = cluster::advertised(&self.settings.advertise, &listening, &BTreeSet::from_iter(found))?;
        tracing::info!(address = %advertised.address, reason = %advertised.reason, "other nodes reach this one at");
        let api = cluster::service_address(self.api_addresses, &advertised.address.host);
        let api = api.map_or_else(String::new, |api| format!("http://{api}"));
        Ok(NodeInfo { name: self.name(), peer: advertised.address.to_string(), api })
    }

    fn peers(&mut self, member: &Member) -> Result<Peers> {
        let group = member.clone();
        let peers = Peers::new(PeersParts {
            host: Arc::new(member.clone()),
            security: self.security()?,
            settings: self.traffic,
            clock: self.clock.clone(),
            registry: self.registry.clone(),
            unreachable: Arc::new(move |node| group.group().unreachable(node.0)),
        });
        let (serving, shutdown) = (peers.clone(), self.tasks.shutdown().clone());
        let listeners = std::mem::take(&mut self.peer_listeners);
        self.tasks.spawn("cluster.serve", Stage::Closing, async move {
            cluster::serve(&serving, listeners, async move { shutdown.reached(Stage::Closing).await }).await;
        });
        Ok(peers)
    }

    fn security(&self) -> Result<Security> {
        if let Some(secret) = &self.settings.peer_secret {
            return Ok(Security::with_secret(&cluster::Secret::new(secret.reveal().as_bytes())?)?);
        }
        let Some(tls) = &self.settings.peer_tls else {
            bail!("the peer port needs a secret or certificates (peer-secret)")
        };
        Ok(Security::with_certificates(&read(&tls.ca_file)?, &read(&tls.cert_file)?, &read(&tls.key_file)?)?)
    }

    fn register(&self, info: &NodeInfo, discovery: Option<&Discovery>) {
        let (Some(consul), Some(discovery)) = (self.settings.consul.clone(), discovery) else { return };
        let Ok(peer) = info.peer.parse::<HostPort>() else { return };
        let Some(http) = cluster::service_address(self.api_addresses, &peer.host) else { return };
        let parts = ConsulParts {
            clock: self.clock.clone(),
            random: self.random.clone(),
            resolver: discovery.resolver().clone(),
            registry: self.registry.clone(),
            tasks: self.tasks.clone(),
        };
        let node = ConsulNode { name: info.name.clone(), http, peer: Some(peer) };
        // Its state is in the metrics and the log.
        drop(register_with_consul(consul, &node, parts));
    }
}

#[allow(clippy::disallowed_methods, reason = "certificates, read once at the start")]
fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {}", path.display()))
}
