//! Who is in the group, as one replica knows it, and why a change of that may be refused.

use std::collections::BTreeMap;

use crate::error::ErrorKind;

/// Who a replica is: its folder's id, and which start of the process this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Random, drawn when the folder was begun, never 0, never used by another folder.
    pub id: u64,
    /// Starts of a process on the folder, this one included; from 1.
    pub boots: u64,
}

/// How a group is opened.
#[derive(Debug)]
pub enum Start<S> {
    /// The folder holds a group ([`crate::Group::exists`]): goes on with it.
    Existing,
    /// Begins a group of one voter with this state. The folder holds nothing, or a replica that joined and has
    /// heard nothing yet: that one keeps its id.
    Bootstrap(S),
    /// Begins a replica that knows nobody. It never campaigns, and waits for a leader to send it the state; until
    /// then this one is what readers see.
    Join(S),
}

/// The group's members as this replica has applied them, and who leads it as far as it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Replicas that vote, ascending. Empty: this one joined and has heard of nobody.
    pub voters: Vec<u64>,
    /// Replicas that follow and don't vote, ascending.
    pub learners: Vec<u64>,
    /// While voters are replaced: those of before, whose majority is asked as well.
    pub joint: Option<Vec<u64>>,
    /// Who leads.
    pub leader: Option<u64>,
    /// The term of that.
    pub term: u64,
    /// Whether this replica leads.
    pub is_leader: bool,
    /// The last position in this replica's log, applied or not.
    pub last_index: u64,
    /// What the leader knows of the others, by id; empty elsewhere.
    pub progress: BTreeMap<u64, Progress>,
}

/// How far another replica is, as its leader knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last position that it has made durable.
    pub matched: u64,
    /// Whether it was heard of in the last election timeout.
    pub is_active: bool,
    /// Whether it needs a snapshot first: the log no longer reaches back to it.
    pub is_installing: bool,
}

impl Members {
    /// Whether `id` votes, in either set of voters.
    pub fn is_voter(&self, id: u64) -> bool {
        self.voters.contains(&id) || self.joint.as_ref().is_some_and(|before| before.contains(&id))
    }

    /// Whether `id` is a voter or a learner.
    pub fn contains(&self, id: u64) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }
}

/// Why a change of members did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// Only the leader changes members.
    #[error("this replica does not lead the index's group")]
    NotLeader {
        /// Who does, if known.
        leader: Option<u64>,
    },
    /// One change at a time.
    #[error("another change of the index's members is under way")]
    Busy,
    /// The learner is too far behind to vote.
    #[error("replica {id:016x} is at {matched} of {last_index}, too far behind to vote")]
    NotCaughtUp {
        /// Which.
        id: u64,
        /// The last position that it has made durable.
        matched: u64,
        /// The leader's last position.
        last_index: u64,
    },
    /// The change makes no sense for these members.
    #[error("{what}")]
    Invalid {
        /// Why.
        what: String,
    },
    /// The leader changed, or time ran out, before the change was applied. It may be applied still: look at the members.
    #[error("the change of the index's members was not seen to happen; it may yet")]
    Uncertain,
    /// The group was closed. The change may be applied still.
    #[error("the index is closed")]
    Closed,
}

impl MembersError {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            MembersError::Invalid { .. } => ErrorKind::Bug,
            _ => ErrorKind::Unavailable,
        }
    }
}
