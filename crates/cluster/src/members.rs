//! Who votes: what the leader changes next about the members of the index's group, as a pure function.
//!
//! 1, 3 or 5 nodes vote, as many as there are nodes for; all others follow as learners. Every rule is about patience: a
//! change is proposed to the group, which refuses what would be wrong.
//!
//! - A node that has renewed its session lately is *there*. As long as more voters are wanted, a learner that is there and
//!   has caught up is promoted; when fewer are wanted, a voter is demoted.
//! - A voter that is silent is replaced by a learner that is there: at once if that one has the silent one's name (the same
//!   machine with an empty disk), else after [`Rules::replace_after`].
//! - A node that is silent for [`Rules::forget_after`] is gone for good: it is removed, and forgotten.
//!
//! With two nodes one votes: two voters could lose none, as one alone can't, and would stop twice as often.

use std::collections::BTreeMap;
use std::time::Duration;

use consensus::Members;
use model::NodeId;

/// The most that vote: each entry waits for a majority of them.
const VOTERS_MAX: usize = 5;

/// How patient the leader is.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A node that has renewed within this time is there.
    pub there_within: Duration,
    /// A silent voter is replaced after this time by another node.
    pub replace_after: Duration,
    /// A silent node is gone for good after this time.
    pub forget_after: Duration,
    /// A learner this close to the leader's log, in entries, has caught up.
    pub lag_max: u64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            there_within: Duration::from_secs(2),
            replace_after: Duration::from_secs(30),
            forget_after: Duration::from_secs(3600),
            lag_max: 1000,
        }
    }
}

/// What the leader knows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What an operator calls it.
    pub name: String,
    /// For how long it has not renewed, at most for as long as this leader leads.
    pub silent: Duration,
    /// Whether it has renewed with this leader.
    pub has_renewed: bool,
}

/// What to change next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Makes a node follow.
    AddLearner(NodeId),
    /// Lets a learner vote.
    Promote(NodeId),
    /// Lets a voter only follow.
    Demote(NodeId),
    /// A learner takes the place of a voter, in one step.
    Replace {
        /// The voter.
        old: NodeId,
        /// The learner.
        new: NodeId,
    },
    /// Takes a node out of the group.
    Remove(NodeId),
    /// Takes a node that is out of the group out of the index.
    Forget(NodeId),
}

/// The next change, if there is anything to change. `nodes` are the index's, the leader among them.
pub fn next_change(
    rules: &Rules,
    leader: NodeId,
    members: &Members,
    nodes: &BTreeMap<NodeId, Known>,
) -> Option<Change> {
    if members.joint.is_some() {
        return None;
    }
    let silent = |id: NodeId| nodes.get(&id).map_or(Duration::MAX, |known| known.silent);
    let is_there = |id: NodeId| id == leader || silent(id) <= rules.there_within;
    let voters: Vec<NodeId> = members.voters.iter().copied().map(NodeId).collect();
    let learners: Vec<NodeId> = members.learners.iter().copied().map(NodeId).collect();

    // Nodes that the index knows and the group does not: new ones, and those that were replaced, which stay known for a while.
    // To a new leader everybody is silent since it leads, so one that is there must have been heard.
    let mut outside = nodes.iter().filter(|(id, _)| !members.contains(id.0));
    if let Some((id, _)) = outside.clone().find(|(id, known)| known.has_renewed && is_there(**id)) {
        return Some(Change::AddLearner(*id));
    }
    if let Some((id, _)) = outside.find(|(_, known)| known.silent >= rules.forget_after) {
        return Some(Change::Forget(*id));
    }

    let has_caught_up = |id: NodeId| {
        let progress = members.progress.get(&id.0);
        progress.is_some_and(|p| p.is_active && !p.is_installing && p.matched + rules.lag_max >= members.last_index)
    };
    let ready: Vec<NodeId> = learners.iter().copied().filter(|id| is_there(*id) && has_caught_up(*id)).collect();
    let name = |id: NodeId| nodes.get(&id).map(|known| known.name.as_str());

    for old in voters.iter().copied().filter(|id| !is_there(*id)) {
        let namesake = ready.iter().copied().find(|new| name(*new).is_some() && name(*new) == name(old));
        let patient = (silent(old) >= rules.replace_after).then(|| ready.first().copied()).flatten();
        if let Some(new) = namesake.or(patient) {
            return Some(Change::Replace { old, new });
        }
    }
    let gone = |id: &NodeId| *id != leader && silent(*id) >= rules.forget_after;
    if let Some(id) = learners.iter().chain(&voters).copied().find(gone) {
        return Some(Change::Remove(id));
    }

    // A silent node still counts: it comes back more often than not.
    let wanted = voters_wanted(voters.len() + learners.len());
    if voters.len() < wanted {
        return ready.first().copied().map(Change::Promote);
    }
    if voters.len() > wanted {
        // Rather one that is silent, never the leader.
        let spare = voters.iter().copied().filter(|id| *id != leader);
        return spare.max_by_key(|id| (!is_there(*id), *id)).map(Change::Demote);
    }
    None
}

/// How many of so many nodes vote.
pub fn voters_wanted(nodes: usize) -> usize {
    match nodes.min(VOTERS_MAX) {
        0 | 1 => 1,
        n if n % 2 == 1 => n,
        n => n - 1,
    }
}

/// How many nodes may be lost, with their disks, before writes stop, as things are now.
pub fn losses_survived(members: &Members, is_there: impl Fn(NodeId) -> bool) -> usize {
    let there = members.voters.iter().filter(|id| is_there(NodeId(**id))).count();
    there.saturating_sub(members.voters.len() / 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use consensus::Progress;
    use proptest::prelude::*;

    const RULES: Rules = Rules {
        there_within: Duration::from_secs(2),
        replace_after: Duration::from_secs(30),
        forget_after: Duration::from_secs(3600),
        lag_max: 10,
    };

    #[derive(Debug, Clone)]
    struct Group {
        members: Members,
        nodes: BTreeMap<NodeId, Known>,
    }

    impl Group {
        fn new(voters: &[u64], learners: &[u64]) -> Group {
            let mut group = Group {
                members: Members {
                    voters: voters.to_vec(),
                    learners: learners.to_vec(),
                    last_index: 100,
                    ..Members::default()
                },
                nodes: BTreeMap::new(),
            };
            for id in voters.iter().chain(learners) {
                group.know(*id, 0, 100);
            }
            group
        }

        fn know(&mut self, id: u64, silent_s: u64, matched: u64) {
            let known =
                Known { name: format!("n{id}"), silent: Duration::from_secs(silent_s), has_renewed: silent_s < 3600 };
            self.nodes.insert(NodeId(id), known);
            let progress = Progress { matched, is_active: silent_s <= 2, is_installing: false };
            self.members.progress.insert(id, progress);
        }

        fn next(&self) -> Option<Change> {
            next_change(&RULES, NodeId(1), &self.members, &self.nodes)
        }

        /// Does what the leader would.
        fn follow(&mut self, change: Change) {
            let members = &mut self.members;
            let mut out = |id: NodeId| {
                members.voters.retain(|other| *other != id.0);
                members.learners.retain(|other| *other != id.0);
            };
            match change {
                Change::AddLearner(id) => members.learners.push(id.0),
                Change::Promote(id) => {
                    out(id);
                    members.voters.push(id.0);
                }
                Change::Demote(id) => {
                    out(id);
                    members.learners.push(id.0);
                }
                Change::Replace { old, new } => {
                    out(old);
                    out(new);
                    members.voters.push(new.0);
                }
                Change::Remove(id) => out(id),
                Change::Forget(id) => {
                    self.nodes.remove(&id);
                }
            }
        }

        fn settle(&mut self) -> Vec<Change> {
            let mut changes = Vec::new();
            while let Some(change) = self.next() {
                self.follow(change);
                changes.push(change);
                assert!(changes.len() < 50, "it goes on for ever: {changes:?}");
            }
            changes
        }
    }

    #[test]
    fn one_grows_to_three_and_five_and_back() {
        let mut group = Group::new(&[1], &[]);
        assert_eq!(group.settle(), []);
        group.know(2, 0, 100);
        assert_eq!(group.settle(), [Change::AddLearner(NodeId(2))]);
        group.know(3, 0, 100);
        let n = NodeId;
        assert_eq!(group.settle(), [Change::AddLearner(n(3)), Change::Promote(n(2)), Change::Promote(n(3))]);
        for id in 4..=6 {
            group.know(id, 0, 100);
        }
        group.settle();
        assert_eq!((group.members.voters.len(), group.members.learners.len()), (5, 1));
        for id in 3..=6 {
            group.know(id, 4000, 100);
        }
        group.settle();
        assert_eq!((group.members.voters.as_slice(), group.nodes.len()), ([1].as_slice(), 2));
    }

    #[test]
    fn an_empty_disk_of_the_same_name_takes_the_place_at_once() {
        let mut group = Group::new(&[1, 2, 3], &[]);
        group.know(3, 4, 90);
        assert_eq!(group.next(), None, "it is only silent");
        group.know(4, 0, 0);
        assert_eq!(group.next(), Some(Change::AddLearner(NodeId(4))));
        group.follow(Change::AddLearner(NodeId(4)));
        assert_eq!(group.next(), None, "it has not caught up, and is not the same machine");
        group.know(4, 0, 95);
        group.nodes.get_mut(&NodeId(4)).unwrap().name = "n3".into();
        let replace = Change::Replace { old: NodeId(3), new: NodeId(4) };
        assert_eq!(group.settle(), [replace]);
        group.know(3, 4000, 90);
        assert_eq!(group.settle(), [Change::Forget(NodeId(3))]);
    }

    #[test]
    fn nodes_that_were_replaced_before_do_not_keep_a_new_one_out_and_do_not_come_back() {
        let mut group = Group::new(&[1, 3, 5], &[]);
        group.know(2, 60, 90);
        group.know(4, 0, 90);
        group.nodes.get_mut(&NodeId(4)).unwrap().has_renewed = false;
        assert_eq!(group.next(), None, "a new leader has heard of neither");
        group.know(6, 0, 0);
        assert_eq!(group.settle(), [Change::AddLearner(NodeId(6))]);
    }

    #[test]
    fn another_node_takes_the_place_after_a_while() {
        let mut group = Group::new(&[1, 2, 3], &[4]);
        group.know(2, 29, 100);
        assert_eq!(group.next(), None);
        group.know(2, 30, 100);
        assert_eq!(group.next(), Some(Change::Replace { old: NodeId(2), new: NodeId(4) }));
    }

    #[test]
    fn losses_are_counted_from_the_voters_that_are_there() {
        let group = Group::new(&[1, 2, 3, 4, 5], &[6]);
        assert_eq!(losses_survived(&group.members, |_| true), 2);
        assert_eq!(losses_survived(&group.members, |id| id.0 > 1), 1);
        assert_eq!(losses_survived(&group.members, |id| id.0 > 3), 0);
    }

    proptest! {
        /// From anywhere it comes to rest, the leader stays a voter, and never does a change leave the voters that are
        /// there without a majority that had one before.
        #[test]
        fn it_comes_to_rest(roles in prop::collection::vec((0..3_u8, 0..4_usize, 80..=100_u64), 1..9)) {
            let (mut voters, mut learners, mut known) = (vec![1], Vec::new(), Vec::new());
            for (i, (role, silence, matched)) in roles.into_iter().enumerate() {
                let id = i as u64 + 2;
                known.push((id, [0, 10, 100, 5000][silence], matched));
                match role {
                    0 => voters.push(id),
                    1 => learners.push(id),
                    _ => {}
                }
            }
            let mut group = Group::new(&voters, &learners);
            known.into_iter().for_each(|(id, silent, matched)| group.know(id, silent, matched));
            let there = |group: &Group, id: u64| id == 1 || group.nodes.get(&NodeId(id)).is_some_and(|k| k.silent.as_secs() <= 2);
            let has_majority = |group: &Group| {
                let voters = &group.members.voters;
                voters.iter().filter(|id| there(group, **id)).count() > voters.len() / 2
            };
            let mut count = 0;
            while let Some(change) = group.next() {
                let had = has_majority(&group);
                group.follow(change);
                prop_assert!(!had || has_majority(&group), "{change:?} loses the majority");
                prop_assert!(group.members.is_voter(1));
                count += 1;
                prop_assert!(count < 60);
            }
        }
    }
}
