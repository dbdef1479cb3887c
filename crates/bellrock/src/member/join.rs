//! How a node without an index comes to one: it joins the cluster that its bucket names, or begins one with others.
//!
//! - The bucket has a `cluster.json`: the node joins that cluster, whatever else it was told, and never begins one.
//! - It has none: with `--expect N`, N nodes that see one another and all say "no cluster" agree on the one with the lowest
//!   id, which begins the cluster; the others see the bucket's `cluster.json` then, and join.
//!
//! Nothing here is in a hurry: a name that does not resolve, or a node that is late, is waited for, and `/-/ready` says so.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use bucket::{Bucket, Cluster};
use cluster::Hello;
use model::NodeId;
use runtime::{Shutdown, Stage};

use super::Member;

/// How often the others, and the bucket, are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a node must have seen the same others before it begins a cluster: they must have seen it, too.
const AGREED_FOR: Duration = Duration::from_secs(2);

/// What a node without an index does.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// The cluster is there: be taken in by it.
    Join(Cluster),
    /// It is this node that begins the cluster.
    Begin,
}

/// Waits until it is clear how this node comes to an index; `None` if the process is stopped before.
pub async fn way(member: &Member, bucket: &Bucket, expect: Option<u64>, shutdown: &Shutdown) -> Result<Option<Way>> {
    let mut agreed_since: Option<(Vec<NodeId>, Duration)> = None;
    loop {
        match bucket.cluster().await {
            Ok(Some(cluster)) => return Ok(Some(Way::Join(cluster))),
            Ok(None) => {
                let others = member.look_around().await;
                let now = member.shared.clock.boottime();
                match judge(member.node(), &others, expect) {
                    Verdict::Wait(why) => {
                        agreed_since = None;
                        member.set_trouble(Some(why));
                    }
                    Verdict::Begin(agreed) => {
                        let since = match &agreed_since {
                            Some((before, since)) if *before == agreed => *since,
                            _ => now,
                        };
                        if now.saturating_sub(since) >= AGREED_FOR {
                            return Ok(Some(Way::Begin));
                        }
                        agreed_since = Some((agreed, since));
                    }
                }
            }
            Err(error) if error.kind() == bucket::ErrorKind::Unavailable => {
                member.set_trouble(Some(format!("the bucket does not answer: {error}")));
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = shutdown.reached(Stage::Draining) => return Ok(None),
            () = member.shared.clock.sleep(LOOK_EVERY) => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Wait(String),
    /// These nodes, this one first, see no cluster, and this one is to begin it.
    Begin(Vec<NodeId>),
}

/// What the nodes that were found make of this one.
fn judge(own: NodeId, others: &BTreeMap<NodeId, Hello>, expect: Option<u64>) -> Verdict {
    if let Some(hello) = others.values().find(|hello| hello.cluster != 0) {
        let why = format!(
            "node {} ({}) is of cluster {:032x}, and the bucket has no cluster.json: is --bucket the one of that cluster? \
             (bucket-not-of-cluster)",
            hello.name, hello.peer, hello.cluster,
        );
        return Verdict::Wait(why);
    }
    let Some(expect) = expect else {
        let why = "there is no cluster to join yet, and without --expect this node begins none (no-cluster)";
        return Verdict::Wait(why.to_owned());
    };
    let mut nodes: Vec<NodeId> = others.keys().copied().chain([own]).collect();
    nodes.sort_unstable();
    if (nodes.len() as u64) < expect {
        let why = format!("{} of {expect} nodes that are to begin the cluster are there (expect)", nodes.len());
        return Verdict::Wait(why);
    }
    match nodes.first() {
        Some(first) if *first == own => Verdict::Begin(nodes),
        first => Verdict::Wait(format!("node {} is to begin the cluster", first.map_or(own, |first| *first))),
    }
}

impl Member {
    /// Says hello to every address that is found.
    async fn look_around(&self) -> BTreeMap<NodeId, Hello> {
        let (Some(peers), Some(discovery)) = (self.peers(), &self.shared.discovery) else { return BTreeMap::new() };
        let mut found = BTreeMap::new();
        for address in discovery.snapshot().addresses {
            match peers.greet(&address.to_string()).await {
                Ok(hello) => {
                    found.insert(hello.node, hello);
                }
                Err(error) => tracing::debug!(%address, %error, "no node there"),
            }
        }
        found.remove(&self.node());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: u64, cluster: u128) -> (NodeId, Hello) {
        let hello = Hello {
            cluster,
            incarnation: 1,
            node: NodeId(node),
            name: format!("n{node}"),
            peer: String::new(),
            api: String::new(),
            last_index: 0,
            term: 0,
            boots: 1,
        };
        (NodeId(node), hello)
    }

    #[test]
    fn the_lowest_of_enough_nodes_begins() {
        let others = BTreeMap::from([hello(2, 0), hello(3, 0)]);
        assert_eq!(judge(NodeId(1), &others, Some(3)), Verdict::Begin(vec![NodeId(1), NodeId(2), NodeId(3)]));
        assert!(matches!(judge(NodeId(9), &others, Some(3)), Verdict::Wait(_)));
        assert!(matches!(judge(NodeId(1), &others, Some(4)), Verdict::Wait(why) if why.starts_with("3 of 4")));
        assert!(matches!(judge(NodeId(1), &others, None), Verdict::Wait(why) if why.contains("no-cluster")));
    }

    #[test]
    fn nobody_begins_beside_a_cluster() {
        let others = BTreeMap::from([hello(2, 0), hello(3, 7)]);
        assert!(
            matches!(judge(NodeId(1), &others, Some(3)), Verdict::Wait(why) if why.contains("bucket-not-of-cluster"))
        );
    }
}
