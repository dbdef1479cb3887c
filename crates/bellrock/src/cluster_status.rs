//! What `/api/v1/status/cluster` says: the index, this node's part in it, and what the other nodes answer.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{
    ClusterReport, ClusterStatus, DurabilityReport, Kind, LeaseReport, NodeReport, Right, Role, ServiceError,
    WriterReport,
};
use bucket::Location;
use consensus::Members;
use futures::FutureExt;
use futures::future::BoxFuture;
use index::{Index, Stage};
use model::{Lease, NodeId};

use crate::late::Late;
use crate::member::Member;
use crate::member::SESSION_MAX;
use crate::member::wire::NodeSays;
use crate::mover::Mover;

/// Asks this node's member, and through it the others.
pub struct WholeCluster {
    /// This node among others.
    pub member: Late<Member>,
    /// Where the bucket lay at the start.
    pub bucket: Location,
    /// Knows whether it has moved since.
    pub mover: Mover,
    /// Bellrock's version.
    pub version: &'static str,
}

impl ClusterStatus for WholeCluster {
    fn report(&self) -> BoxFuture<'static, Result<ClusterReport, ServiceError>> {
        let (member, version) = (self.member.clone(), self.version);
        let bucket = self.mover.moved_to().unwrap_or_else(|| self.bucket.clone());
        async move {
            let starting = || {
                ServiceError::new(
                    Kind::Unavailable,
                    "this node is starting; /-/ready says what it waits for (starting)",
                )
            };
            let member = member.get().ok_or_else(starting)?;
            let mut said = member.ask_others().await;
            said.insert(member.node(), Ok(member.says()));
            let group = member.group();
            let members = group.members();
            Ok(group.read(|index| report(index, &members, member.node(), &said, &bucket, version)))
        }
        .boxed()
    }
}

/// The report of node `own`, from its index, its group's members, and what every node said.
fn report(
    index: &Index,
    members: &Members,
    own: NodeId,
    said: &BTreeMap<NodeId, Result<NodeSays, String>>,
    bucket: &Location,
    version: &str,
) -> ClusterReport {
    let name = |node: NodeId| index.node(node).map_or_else(|| node.to_string(), |info| info.name.clone());
    // Of two that think so the one of the later term is right.
    let heard = said.iter().filter_map(|(node, said)| Some((*node, said.as_ref().ok()?.leading.as_ref()?)));
    let leading = heard.max_by_key(|(_, leading)| leading.term);
    let leader = leading.map(|(node, leading)| (node, leading.term));

    let mut nodes: Vec<NodeReport> = index
        .nodes()
        .map(|(id, info)| {
            let says = said.get(&id).and_then(|said| said.as_ref().ok());
            let silent = leading.and_then(|(_, leading)| leading.silent_ms.get(&id)).copied();
            let silent = silent.map(Duration::from_millis);
            NodeReport {
                id,
                name: info.name.clone(),
                peer: info.peer.clone(),
                api: info.api.clone(),
                role: role(members, leader, id),
                is_alive: says.is_some() || silent.is_some_and(|silent| silent <= SESSION_MAX),
                silent,
                applied: says.map(|says| says.applied),
                head_bytes: says.map(|says| says.head_bytes),
            }
        })
        .collect();
    nodes.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));

    let node_losses = leading.map_or(0, |(_, leading)| leading.node_losses);
    let unknown = "no leader of the index answers: which nodes are there is what this one sees itself".to_owned();
    ClusterReport {
        cluster: index.cluster(),
        version: version.to_owned(),
        answered_by: name(own),
        degraded: degraded(&nodes, said),
        unknown: leading.is_none().then_some(unknown).into_iter().collect(),
        leader,
        applied: index.revision(),
        stored: leading.map(|(_, leading)| leading.stored).filter(|stored| stored.position > 0),
        writers: index.writers().map(|(id, writer)| writer_report(id, writer)).collect(),
        leases: leases(index),
        durability: durability(node_losses, members.voters.len() + members.learners.len(), leader.is_some(), bucket),
        nodes,
    }
}

/// What is wrong: with the cluster as its leader says, with nodes that say nothing, and what nodes say of themselves.
fn degraded(nodes: &[NodeReport], said: &BTreeMap<NodeId, Result<NodeSays, String>>) -> Vec<String> {
    let says = |node: &NodeReport| said.get(&node.id).and_then(|said| said.as_ref().ok());
    let leading = nodes.iter().filter_map(|node| says(node)?.leading.as_ref()).max_by_key(|leading| leading.term);
    // Without a leader nobody speaks for the cluster; `unknown` says so.
    let mut degraded = leading.map(|leading| leading.degraded.clone()).unwrap_or_default();
    for node in nodes.iter().filter(|node| node.role != Role::None) {
        let id = format!("({})", node.id);
        let is_told = degraded.iter().any(|text| text.contains(&id));
        if let Some(Err(error)) = said.get(&node.id).filter(|_| !is_told) {
            degraded.push(format!("node {} {id} does not answer: {error} (node-silent)", node.name));
        }
    }
    // What several say of themselves is told once.
    let mut own: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        let texts = says(node).into_iter().flat_map(|says| &says.degraded);
        texts.for_each(|text| own.entry(text.as_str()).or_default().push(&node.name));
    }
    degraded.extend(own.into_iter().map(|(text, names)| format!("{}: {text}", names.join(", "))));
    degraded
}

fn role(members: &Members, leader: Option<(NodeId, u64)>, node: NodeId) -> Role {
    match leader {
        Some((leader, _)) if leader == node => Role::Leader,
        _ if members.is_voter(node.0) => Role::Voter,
        _ if members.learners.contains(&node.0) => Role::Learner,
        _ => Role::None,
    }
}

fn writer_report(id: model::WriterId, writer: &index::Writer) -> WriterReport {
    WriterReport {
        id,
        node: writer.node,
        is_fenced: writer.stage == Stage::Fenced,
        adopter: writer.adopter,
        added: writer.added,
        cut: writer.cut,
        segment_bytes: writer.segments().map(|(_, segment)| segment.bytes).sum(),
        oldest: writer.segments().filter_map(|(_, segment)| Some(segment.range?.start)).min(),
    }
}

fn leases(index: &Index) -> Vec<LeaseReport> {
    let adopting = index.writers().filter_map(|(id, _)| {
        let (holder, number) = index.adopt_lease(id)?;
        Some(LeaseReport { right: Right::Adopt(id), number, holder })
    });
    let compact = index.compact_lease();
    let number = Lease { incarnation: index.incarnation(), number: compact.number };
    let holder = compact.holder.filter(|_| !compact.is_spent);
    adopting.chain(holder.map(|holder| LeaseReport { right: Right::Compact, number, holder })).collect()
}

/// What may be lost now, in words that promise no more than what was built. `nodes` are the group's members.
fn durability(node_losses: u64, nodes: usize, is_led: bool, bucket: &Location) -> DurabilityReport {
    let losses = match (is_led, nodes, node_losses) {
        (false, ..) => "the index has no leader: nothing can be written, and what is known can be read".to_owned(),
        (_, 0 | 1, _) => "this is the only node: while it is away nothing is written or read".to_owned(),
        (_, _, 0) => {
            "no node that votes may be lost now: writes would stop until it is back; queries would go on".to_owned()
        }
        (_, _, losses) => format!(
            "{losses} of the nodes may be lost now, with {} disk: writes and queries go on",
            if losses == 1 { "its" } else { "their" }
        ),
    };
    let stored = match bucket {
        Location::Own(path) => format!(
            "what was answered is synced to this machine's disk ({}): a kill or a power cut loses nothing; the loss of that \
             disk loses everything (--bucket keeps blocks and segments elsewhere)",
            path.display()
        ),
        Location::Shared(path) => format!(
            "what was answered is synced to the directory {}: losing the disks of all nodes loses nothing; the loss of the \
             disk that holds this directory loses everything",
            path.display()
        ),
        Location::Remote(_) => format!(
            "what was answered is in {bucket}: losing the disks of all nodes loses nothing; whether the store survives power \
             cuts and disks of its own is the store's to see to (Garage: metadata_fsync, data_fsync, replication_factor)"
        ),
    };
    DurabilityReport { node_losses, bucket: bucket.to_string(), text: vec![losses, stored] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::wire::Leading;
    use index::{Command, Entry, NodeInfo};
    use model::Revision;

    const OWN: NodeId = NodeId(1);

    /// An index that knows nodes `n1`, `n2`, ….
    fn index(nodes: u64) -> Index {
        let mut index = Index::new(7, 1);
        for id in 1..=nodes {
            let info = NodeInfo { name: format!("n{id}"), peer: format!("n{id}:9010"), api: String::new() };
            let command = Command::SetNode { node: NodeId(id), info };
            index.apply(id, &Entry { incarnation: 1, command }).unwrap();
        }
        index
    }

    fn says(degraded: &[&str], leading: Option<Leading>) -> Result<NodeSays, String> {
        let degraded = degraded.iter().map(|text| (*text).to_owned()).collect();
        Ok(NodeSays { applied: Revision { incarnation: 1, position: 3 }, head_bytes: 5, degraded, leading })
    }

    fn leading(term: u64, silent_ms: &[(u64, u64)], degraded: &[&str]) -> Option<Leading> {
        Some(Leading {
            term,
            stored: Revision::default(),
            node_losses: 1,
            silent_ms: silent_ms.iter().map(|(node, ms)| (NodeId(*node), *ms)).collect(),
            degraded: degraded.iter().map(|text| (*text).to_owned()).collect(),
        })
    }

    fn report_of(nodes: u64, voters: &[u64], said: Vec<Result<NodeSays, String>>) -> ClusterReport {
        let members = Members { voters: voters.to_vec(), ..Members::default() };
        let said = (1..).map(NodeId).zip(said).collect();
        report(&index(nodes), &members, OWN, &said, &Location::Shared("/b".into()), "0")
    }

    #[test]
    fn the_newest_leader_is_believed() {
        let old = leading(3, &[(1, 0)], &["old"]);
        let new = leading(4, &[(1, 200), (2, 0), (3, 4000)], &[]);
        let report = report_of(3, &[1, 2, 3], vec![says(&[], old), says(&[], new), says(&[], None)]);
        assert_eq!((report.leader, report.stored), (Some((NodeId(2), 4)), None));
        let roles: Vec<&str> = report.nodes.iter().map(|node| node.role.as_str()).collect();
        assert_eq!(roles, ["voter", "leader", "voter"]);
        // It answers, though it does not renew.
        assert!(report.nodes.iter().all(|node| node.is_alive));
        assert_eq!((report.degraded.len(), report.unknown.len(), report.durability.node_losses), (0, 0, 1));
        assert_eq!(
            report.durability.text[0],
            "1 of the nodes may be lost now, with its disk: writes and queries go on"
        );
    }

    #[test]
    fn what_is_wrong_is_told_once_with_who_says_it() {
        let silent = "node n3 (0000000000000003) has not been heard of for 9 s (node-silent)";
        let said = vec![
            says(&["a name is gone (join-unresolved)"], leading(3, &[(1, 0), (2, 9), (3, 9000)], &[silent])),
            says(&["a name is gone (join-unresolved)", "its own"], None),
            Err("refused".to_owned()),
            Err("refused".to_owned()),
        ];
        // The fourth was replaced: nobody waits for it.
        let report = report_of(4, &[1, 2, 3], said);
        assert_eq!(report.degraded, [silent, "n1, n2: a name is gone (join-unresolved)", "n2: its own"]);
        let alive: Vec<bool> = report.nodes.iter().map(|node| node.is_alive).collect();
        assert_eq!(alive, [true, true, false, false]);
        assert_eq!(report.nodes[3].role, Role::None);
    }

    #[test]
    fn without_a_leader_it_says_what_this_node_sees() {
        let report = report_of(2, &[1, 2], vec![says(&["no leader (no-leader)"], None), Err("timed out".to_owned())]);
        assert_eq!((report.leader, report.durability.node_losses, report.unknown.len()), (None, 0, 1));
        let told = "node n2 (0000000000000002) does not answer: timed out (node-silent)";
        assert_eq!(report.degraded, [told, "n1: no leader (no-leader)"]);
        assert!(report.durability.text[0].starts_with("the index has no leader"));
    }

    #[test]
    fn a_disk_that_holds_all_is_called_that() {
        for (bucket, expected) in [
            (Location::Own("/d".into()), "the loss of that disk loses everything"),
            (Location::Shared("/d".into()), "the loss of the disk that holds this directory loses everything"),
            (Location::parse("s3://m").unwrap(), "is the store's to see to"),
        ] {
            let text = durability(0, 1, true, &bucket).text;
            assert!(text[0].contains("only node") && text[1].contains(expected), "{text:?}");
        }
    }
}
