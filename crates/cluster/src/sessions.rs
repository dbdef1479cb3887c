//! Sessions: who has said lately that it is alive, to this replica while it leads.
//!
//! They are not in the index: a renewal is worth nothing after a few seconds, and only the leader judges them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, Revision};
use parking_lot::Mutex;

/// What a node said when it renewed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// When it arrived here, by CLOCK_BOOTTIME.
    pub at: Duration,
    /// The lowest revision that the node still uses: the lower of what it has applied and its oldest plan.
    pub lowest: Revision,
    /// Its wall clock then, in milliseconds, less this node's.
    pub clock_ahead_ms: i64,
}

/// Renewals by node. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    renewals: Arc<Mutex<BTreeMap<NodeId, Renewal>>>,
}

impl Sessions {
    /// A node renews. What it uses never goes back in one incarnation; an older message that comes late changes nothing.
    pub fn renew(&self, node: NodeId, renewal: Renewal) {
        let mut renewals = self.renewals.lock();
        let known = renewals.entry(node).or_insert(renewal);
        if renewal.at >= known.at {
            *known = renewal;
        }
    }

    /// Every node that ever renewed here.
    pub fn renewals(&self) -> BTreeMap<NodeId, Renewal> {
        self.renewals.lock().clone()
    }

    /// Forgets a node that is not part of the cluster any more.
    pub fn forget(&self, node: NodeId) {
        self.renewals.lock().remove(&node);
    }

    /// Forgets everybody: what was said in an earlier term says nothing in this one.
    pub fn clear(&self) {
        self.renewals.lock().clear();
    }

    /// The lowest revision that a node with a session uses; `None` if nobody has one. A session lasts `session_max`.
    pub fn lowest_in_use(&self, now: Duration, session_max: Duration) -> Option<Revision> {
        let renewals = self.renewals.lock();
        let with_session = renewals.values().filter(|renewal| now.saturating_sub(renewal.at) <= session_max);
        with_session.map(|renewal| renewal.lowest).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_of_the_nodes_with_a_session_counts() {
        let sessions = Sessions::default();
        let s = Duration::from_secs;
        let at = |position| Revision { incarnation: 1, position };
        let renew = |node, at, lowest| sessions.renew(NodeId(node), Renewal { at, lowest, clock_ahead_ms: 0 });
        assert_eq!(sessions.lowest_in_use(s(0), s(3)), None);
        renew(1, s(1), at(5));
        renew(2, s(2), at(9));
        renew(1, s(0), at(4));
        assert_eq!(sessions.lowest_in_use(s(4), s(3)), Some(at(5)));
        assert_eq!(sessions.lowest_in_use(s(5), s(3)), Some(at(9)));
        sessions.forget(NodeId(2));
        assert_eq!(sessions.lowest_in_use(s(5), s(3)), None);
    }
}
