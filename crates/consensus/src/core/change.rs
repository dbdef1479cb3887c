//! Changes of members, one at a time and proposed by the leader, and leadership that is handed over.

use raft::ProgressState;
use raft::eraftpb::{ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry};

use super::Core;
use crate::codec::{put_change, single};
use crate::members::MembersError;

/// A change of members, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    AddLearner(u64),
    Promote(u64),
    Demote(u64),
    Remove(u64),
    Replace { old: u64, new: u64 },
}

pub(super) struct UnderWay {
    pub(super) index: u64,
    pub(super) term: u64,
}

pub(super) struct Transfer {
    pub(super) to: u64,
    pub(super) until: u64,
}

impl Core {
    /// Begins a change of members; ends in the outputs unless it is refused at once, or done already.
    pub fn change(&mut self, change: Change) -> Option<Result<(), MembersError>> {
        if !self.is_leader() {
            return Some(Err(self.not_leader()));
        }
        let raft = &self.node.raft;
        let is_joint = !self.conf.voters_outgoing.is_empty();
        if self.change.is_some() || is_joint || raft.has_pending_conf() || raft.lead_transferee.is_some() {
            return Some(Err(MembersError::Busy));
        }
        let own = self.identity.id;
        let invalid = |what: String| Some(Err(MembersError::Invalid { what }));
        let is_voter = |id: u64| self.conf.voters.contains(&id);
        let is_learner = |id: u64| self.conf.learners.contains(&id);
        let mut wanted = ConfChangeV2::default();
        match change {
            Change::AddLearner(0) => return invalid("0 is no replica's id".to_owned()),
            Change::AddLearner(id) if is_learner(id) => return Some(Ok(())),
            Change::AddLearner(id) if is_voter(id) => return invalid(format!("replica {id:016x} is a voter")),
            Change::AddLearner(id) => wanted.mut_changes().push(single(ConfChangeType::AddLearnerNode, id)),
            Change::Promote(id) if is_voter(id) => return Some(Ok(())),
            Change::Promote(id) | Change::Replace { new: id, .. } if !is_learner(id) => {
                return invalid(format!("replica {id:016x} is no learner"));
            }
            Change::Promote(id) | Change::Replace { new: id, .. } if self.is_behind(id).is_some() => {
                return self.is_behind(id).map(Err);
            }
            Change::Demote(id) | Change::Remove(id) | Change::Replace { old: id, .. } if id == own => {
                return invalid("the leader hands leadership over before it stops voting".to_owned());
            }
            Change::Promote(id) => wanted.mut_changes().push(single(ConfChangeType::AddNode, id)),
            Change::Demote(id) if is_learner(id) => return Some(Ok(())),
            Change::Demote(id) if !is_voter(id) => return invalid(format!("replica {id:016x} is no member")),
            Change::Demote(id) => wanted.mut_changes().push(single(ConfChangeType::AddLearnerNode, id)),
            Change::Remove(id) if !is_voter(id) && !is_learner(id) => return Some(Ok(())),
            Change::Remove(id) => wanted.mut_changes().push(single(ConfChangeType::RemoveNode, id)),
            Change::Replace { old, .. } if !is_voter(old) => return invalid(format!("replica {old:016x} is no voter")),
            Change::Replace { old, new } => {
                wanted.set_transition(ConfChangeTransition::Explicit);
                wanted.mut_changes().push(single(ConfChangeType::AddNode, new));
                wanted.mut_changes().push(single(ConfChangeType::RemoveNode, old));
            }
        }
        if let Err(error) = self.node.propose_conf_change(put_change(&wanted), wanted) {
            tracing::debug!(%error, "change of members not proposed");
            return Some(Err(MembersError::Busy));
        }
        self.change = Some(UnderWay { index: self.node.raft.raft_log.last_index(), term: self.term() });
        None
    }

    fn is_behind(&self, id: u64) -> Option<MembersError> {
        let last_index = self.node.raft.raft_log.last_index();
        let peer = self.node.raft.prs().get(id);
        let matched = peer.map_or(0, |peer| peer.matched);
        let is_near = peer.is_some_and(|peer| peer.recent_active && peer.state != ProgressState::Snapshot)
            && matched > 0
            && last_index - matched.min(last_index) <= self.settings.caught_up_entries;
        (!is_near).then_some(MembersError::NotCaughtUp { id, matched, last_index })
    }

    pub(super) fn finish_change(&mut self) {
        let is_joint = !self.conf.voters_outgoing.is_empty();
        if is_joint && self.is_leader() && !self.node.raft.has_pending_conf() {
            // Also what an earlier leader left half way.
            let leave = ConfChangeV2::default();
            match self.node.propose_conf_change(put_change(&leave), leave) {
                Ok(()) => {
                    let last = self.node.raft.raft_log.last_index();
                    self.change.iter_mut().for_each(|change| change.index = last);
                }
                Err(error) => tracing::debug!(%error, "end of a change of members put off"),
            }
        }
        // Raft counts a change that it had no room for as under way, until an entry is applied where it would have been.
        let raft = &self.node.raft;
        if self.is_leader()
            && raft.pending_conf_index > raft.raft_log.last_index()
            && !self.append(vec![Entry::default()])
        {
            tracing::debug!("empty entry put off");
        }
        if !is_joint && self.change.as_ref().is_some_and(|change| self.is_known(change.index)) {
            self.change = None;
            self.outputs.changed = Some(Ok(()));
        }
    }

    /// Whether a change of members is applied here and durable at most of those who vote now: then no loss of fewer
    /// than half of them, however soon, leaves nobody who knows who votes.
    fn is_known(&self, index: u64) -> bool {
        let own = self.identity.id;
        let knows =
            |id: &&u64| **id == own || self.node.raft.prs().get(**id).is_some_and(|peer| peer.committed_index >= index);
        index <= self.applied && self.conf.voters.iter().filter(knows).count() * 2 > self.conf.voters.len()
    }

    /// Begins to hand leadership to `to`; ends in the outputs unless it is refused at once, or done.
    pub fn transfer(&mut self, to: u64) -> Option<Result<(), MembersError>> {
        if !self.is_leader() {
            return Some(Err(self.not_leader()));
        }
        if to == self.identity.id {
            return Some(Ok(()));
        }
        if !self.conf.voters.contains(&to) {
            return Some(Err(MembersError::Invalid { what: format!("replica {to:016x} is no voter") }));
        }
        if self.transfer.is_some() {
            return Some(Err(MembersError::Busy));
        }
        self.transfer = Some(Transfer { to, until: self.ticks + 2 * self.settings.election_ticks as u64 });
        self.node.transfer_leader(to);
        None
    }

    /// Gives leadership to whoever is furthest, if there is anybody.
    pub fn hand_over(&mut self) -> bool {
        let own = self.identity.id;
        let raft = &self.node.raft;
        let others = raft.prs().iter().filter(|(id, _)| **id != own && self.conf.voters.contains(id));
        let best = others.filter(|(_, peer)| peer.recent_active).max_by_key(|(id, peer)| (peer.matched, **id));
        let Some((to, _)) = best.map(|(id, peer)| (*id, peer.matched)) else { return false };
        self.node.transfer_leader(to);
        true
    }

    fn not_leader(&self) -> MembersError {
        let leader = self.leader();
        MembersError::NotLeader { leader: (leader != 0).then_some(leader) }
    }
}
