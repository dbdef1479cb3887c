//! What this node says of itself and, while it leads, of the others; and what it hears of them.
//!
//! Every node answers the question at any time, so that whoever is asked about the cluster can say what each node says.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Message, losses_survived};
use futures::future::join_all;
use model::{NodeId, Revision};
use tokio::sync::watch;

use super::wire::{Leading, NodeSays};
use super::{Member, SESSION_MAX};
use crate::health::NodeHealth;

/// A node that does not answer by then is reported as that.
const ASK_LIMIT: Duration = Duration::from_secs(1);

/// Clocks that differ by more are told of: more than a renewal takes on its way, and far less than refuses samples.
const CLOCKS_APART_MAX_MS: u64 = 5_000;

/// What this node says, but for what `Member` knows itself.
pub struct Says {
    /// What keeps it from its work.
    pub health: NodeHealth,
    /// Up to which revision the bucket holds the index, while this node leads.
    pub stored: watch::Receiver<Revision>,
}

impl Member {
    /// Sets what other nodes are told of this one.
    pub fn set_says(&self, says: Says) {
        self.shared.says.set(says);
    }

    /// What this node says of itself, and of the others while it leads.
    pub fn says(&self) -> NodeSays {
        let says = self.shared.says.get();
        let degraded = match says {
            Some(says) => {
                let report = says.health.own();
                report.not_ready.into_iter().chain(report.notices).collect()
            }
            None => vec!["the node is starting (starting)".to_owned()],
        };
        NodeSays {
            applied: self.group().read(|index| index.revision()),
            head_bytes: self.shared.heads.get().map_or(0, |heads| heads.0.memory_bytes() as u64),
            degraded,
            // The lowest revision there is: nothing is known to be stored.
            leading: self.leading(says.map(|says| *says.stored.borrow()).unwrap_or_default()),
        }
    }

    /// What only the leader knows; `None` elsewhere.
    fn leading(&self, stored: Revision) -> Option<Leading> {
        self.look_who_leads();
        let (term, _) = (*self.shared.leads.lock())?;
        let now = self.shared.clock.boottime();
        let renewals = self.shared.sessions.renewals();
        let silent = renewals.into_iter().map(|(node, renewal)| {
            let silent = if node == self.node() { Duration::ZERO } else { now.saturating_sub(renewal.at) };
            (node, silent.as_millis() as u64)
        });
        let node_losses = self.losses_survived() as u64;
        Some(Leading { term, stored, node_losses, silent_ms: silent.collect(), degraded: self.complaints_of_members() })
    }

    /// How many nodes may be lost now, as the leader counts: those that have renewed lately.
    fn losses_survived(&self) -> usize {
        let now = self.shared.clock.boottime();
        let renewals = self.shared.sessions.renewals();
        let is_there = |node: NodeId| {
            node == self.node() || renewals.get(&node).is_some_and(|last| now.saturating_sub(last.at) <= SESSION_MAX)
        };
        losses_survived(&self.group().members(), is_there)
    }

    /// What is wrong with the other members as the leader sees them, in words; nothing elsewhere.
    pub fn complaints_of_members(&self) -> Vec<String> {
        self.silent_members().into_iter().chain(self.differing_clocks()).collect()
    }

    /// The members that the leader has not heard of for longer than a session lasts.
    fn silent_members(&self) -> Vec<String> {
        let Some((_, since)) = *self.shared.leads.lock() else { return Vec::new() };
        let (now, members) = (self.shared.clock.boottime(), self.group().members());
        let renewals = self.shared.sessions.renewals();
        let others = members.voters.iter().chain(&members.learners).copied().map(NodeId);
        let silent = others.filter(|node| *node != self.node()).filter_map(|node| {
            // A new leader has heard of nobody yet: silence counts from when it began to listen.
            let last = renewals.get(&node).map_or(since, |renewal| renewal.at);
            let silent = now.saturating_sub(last);
            (silent > SESSION_MAX).then_some((node, silent))
        });
        let losses = self.losses_survived();
        silent.map(|(node, silent)| self.tell_silent(node, silent, losses)).collect()
    }

    /// The nodes with a session whose wall clock was not the leader's when they renewed last.
    fn differing_clocks(&self) -> Vec<String> {
        if self.shared.leads.lock().is_none() {
            return Vec::new();
        }
        let now = self.shared.clock.boottime();
        let renewals = self.shared.sessions.renewals().into_iter();
        let lately = renewals.filter(|(_, renewal)| now.saturating_sub(renewal.at) <= SESSION_MAX);
        lately.filter_map(|(node, renewal)| tell_clock(&self.name_of(node), node, renewal.clock_ahead_ms)).collect()
    }

    /// Empty if the index does not know it yet.
    fn name_of(&self, node: NodeId) -> String {
        // A member is named in the index soon after it is one; until then its id, which is told beside the name, has to do.
        self.group().read(|index| index.node(node).map(|info| info.name.clone())).unwrap_or_default()
    }

    fn tell_silent(&self, node: NodeId, silent: Duration, losses: usize) -> String {
        let name = self.name_of(node);
        let more = match losses {
            0 => "until then writes stop if another voter is lost".to_owned(),
            losses => format!("until then {losses} more may be lost"),
        };
        format!(
            "node {name} ({node}) has not been heard of for {} s: start it again, or one with an empty disk and its \
             --node.name, which takes its place; {more} (node-silent)",
            silent.as_secs()
        )
    }

    /// Asks every other node that the index knows, all at once; in words why one does not say.
    pub async fn ask_others(&self) -> BTreeMap<NodeId, Result<NodeSays, String>> {
        let Some(peers) = self.peers() else { return BTreeMap::new() };
        let own = self.node();
        let others: Vec<NodeId> =
            self.group().read(|index| index.nodes().map(|(node, _)| node).filter(|node| *node != own).collect());
        let asked = others.into_iter().map(async |node| {
            let said = peers.call(node, Message::Status, Bytes::new(), ASK_LIMIT).await;
            let said = said.map_err(|error| error.to_string());
            (node, said.and_then(|said| NodeSays::decode(&said).map_err(|error| error.to_string())))
        });
        join_all(asked).await.into_iter().collect()
    }
}

/// What to say of a clock that is this much ahead of the leader's (below 0: behind); `None`: as good as the same.
fn tell_clock(name: &str, node: NodeId, ahead_ms: i64) -> Option<String> {
    let how = if ahead_ms > 0 { "ahead of" } else { "behind" };
    (ahead_ms.unsigned_abs() > CLOCKS_APART_MAX_MS).then(|| {
        format!(
            "the clock of node {name} ({node}) is {} s {how} the leader's: have both set by NTP; a node refuses samples that \
             its own clock takes to be far in the future (clock-differs)",
            ahead_ms.unsigned_abs() / 1000
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clocks_that_are_far_apart_are_told_of() {
        let told = |ahead_ms| tell_clock("n2", NodeId(2), ahead_ms);
        assert_eq!([told(0), told(5_000), told(-5_000)], [None, None, None]);
        let (ahead, behind) = (told(7_900).unwrap(), told(i64::MIN).unwrap());
        assert!(ahead.contains("node n2 (") && ahead.contains("is 7 s ahead of the leader's"), "{ahead}");
        assert!(behind.contains(" s behind the leader's"), "{behind}");
    }
}
