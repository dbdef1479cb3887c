//! What the leader does for the group: who votes, and who is gone for good. The rules are `cluster::next_change`'s.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::{Change, Known, Rules, next_change};
use index::{Command, Entry};
use model::NodeId;
use runtime::{Stage, Tasks};

use super::Member;

/// How often the leader looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Changes the members of the group while this node leads it, one change at a time, until the end.
pub async fn change_members(member: Member, rules: Rules, tasks: Tasks) {
    let shutdown = tasks.shutdown().clone();
    loop {
        let change = member.next_change(&rules);
        if let Some(change) = change {
            match member.carry_out(change).await {
                Ok(()) => {
                    tracing::info!(?change, "the index's members changed");
                    continue;
                }
                // It is looked at again, from what the members are then.
                Err(error) => tracing::info!(?change, error, "the index's members not changed"),
            }
        }
        tokio::select! {
            () = shutdown.reached(Stage::Draining) => return,
            () = member.shared.clock.sleep(LOOK_EVERY) => {}
        }
    }
}

impl Member {
    fn next_change(&self, rules: &Rules) -> Option<Change> {
        let (_, since) = (*self.shared.leads.lock())?;
        let group = self.group();
        let members = group.members();
        if !members.is_leader {
            return None;
        }
        let now = self.shared.clock.boottime();
        let renewals = self.shared.sessions.renewals();
        let known = |node: NodeId, name: &str| {
            // A new leader has heard of nobody yet: silence counts from when it began to listen.
            let renewed = renewals.get(&node).map(|renewal| renewal.at);
            let silent = now.saturating_sub(renewed.unwrap_or(since));
            Known { name: name.to_owned(), silent, has_renewed: renewed.is_some() }
        };
        let nodes: BTreeMap<NodeId, Known> =
            group.read(|index| index.nodes().map(|(node, info)| (node, known(node, &info.name))).collect());
        next_change(rules, self.node(), &members, &nodes)
    }

    async fn carry_out(&self, change: Change) -> Result<(), String> {
        let group = self.group();
        let changed = match change {
            Change::AddLearner(node) => group.add_learner(node.0).await,
            Change::Promote(node) => group.promote(node.0).await,
            Change::Demote(node) => group.demote(node.0).await,
            Change::Replace { old, new } => group.replace(old.0, new.0).await,
            Change::Remove(node) => group.remove(node.0).await,
            Change::Forget(node) => {
                let incarnation = group.read(|index| index.incarnation());
                let proposed = group.propose(Entry { incarnation, command: Command::ForgetNode { node } }).await;
                proposed.map_err(|error| error.to_string())?.map_err(|refused| refused.to_string())?;
                self.shared.sessions.forget(node);
                return Ok(());
            }
        };
        changed.map_err(|error| error.to_string())
    }
}
