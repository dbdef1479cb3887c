//! Several real nodes over one store.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::loopback::own_addresses;
use crate::node::{Node, Settings};
use crate::store::Store;
use crate::wait::wait_for;

/// What the nodes of a test prove themselves with.
pub const SECRET: &str = "the join secret of a test";

/// Nodes that find one another by their addresses. They end before their store does.
pub struct Cluster {
    /// The nodes, by number.
    pub nodes: Vec<Node>,
    settings: Settings,
    store: Store,
    peers: Vec<SocketAddr>,
    folder: TempDir,
}

impl Cluster {
    /// Starts `count` nodes that begin a cluster together, and waits until each is ready and votes.
    pub fn start(settings: &Settings, store: Store, count: usize) -> Result<Cluster> {
        let mut cluster = Cluster {
            nodes: Vec::new(),
            settings: settings.clone(),
            store,
            peers: own_addresses(count)?,
            folder: tempfile::tempdir()?,
        };
        for number in 0..count {
            cluster.nodes.push(Node::start_among(&cluster.settings_of(number, cluster.peers[number]))?);
        }
        for number in 0..count {
            cluster.nodes[number].wait_until_ready().with_context(|| format!("node {number}"))?;
        }
        cluster.wait_for_voters(::cluster::voters_wanted(count));
        Ok(cluster)
    }

    /// Waits until so many nodes vote, as every node knows: before, the loss of one may be the loss of most.
    #[track_caller]
    pub fn wait_for_voters(&self, count: usize) {
        wait_for("the nodes vote", || {
            let votes = |node: &Node| node.client().metric("bellrock_consensus_voters").ok().flatten();
            self.nodes.iter().all(|node| votes(node) == Some(count as f64)).then_some(())
        });
    }

    /// Where the bucket lies if the nodes share a directory.
    pub fn shared_folder(&self) -> PathBuf {
        self.folder.path().join("bucket")
    }

    fn settings_of(&self, number: usize, peer: SocketAddr) -> Settings {
        let mut settings = match &self.store {
            // The one that nodes can share.
            Store::Directory => {
                let bucket = self.shared_folder();
                self.settings.clone().argument(format!("--bucket=file://{}", bucket.display()))
            }
            store => store.apply(self.settings.clone()),
        };
        for address in &self.peers {
            settings = settings.argument(format!("--join={address}"));
        }
        settings
            .argument(format!("--peer.listen={peer}"))
            .argument(format!("--node.name=n{number}"))
            .argument(format!("--expect={}", self.peers.len()))
            .variable("BELLROCK_PEER_SECRET", SECRET)
    }

    /// Puts a node with an empty disk in the place of one that has ended, under its name; it has another address.
    pub fn replace(&mut self, number: usize) -> Result<()> {
        let peer = own_addresses(1)?[0];
        self.nodes[number] = Node::start_among(&self.settings_of(number, peer))?;
        self.nodes[number].wait_until_ready()
    }

    /// The settings of a node that looks for nobody: what a program needs to be told of the store.
    pub fn settings_alone(&self) -> Settings {
        self.store.apply(self.settings.clone())
    }

    /// Starts the first node on another folder, in which an index was rebuilt; the others have ended and are to be
    /// replaced.
    pub fn begin_again(&mut self, data: TempDir) -> Result<()> {
        self.nodes[0] = Node::start_in(&self.settings_of(0, self.peers[0]), data)?;
        Ok(())
    }

    /// The number of the node that leads the index, waited for.
    #[track_caller]
    pub fn leader(&self) -> usize {
        wait_for("a node leads the index", || {
            self.nodes.iter().position(|node| {
                let leads = node.client().metric("bellrock_consensus_is_leader");
                leads.is_ok_and(|leads| leads == Some(1.0))
            })
        })
    }
}
