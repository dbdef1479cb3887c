//! What a replica says of itself when it meets another: an old copy of a disk shows by having less than was seen.

use std::collections::BTreeMap;

/// How far a replica is, all of it durable. Said in every hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub id: u64,
    /// The last position in its log.
    pub last_index: u64,
    /// Its term.
    pub term: u64,
    /// Starts of a process on its folder.
    pub boots: u64,
}

/// A replica has less than it had: its disk was set back, or copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "replica {id:016x} comes with {what} {told}, and was at {seen} before: its index/ is an old copy, or a second \
     process runs on one. Empty its index/, so that it joins under a new id (replica-went-back)"
)]
pub struct StandingRefused {
    /// Whose.
    pub id: u64,
    /// What went back: "term", "boot", "last position".
    pub what: &'static str,
    /// What it says now.
    pub told: u64,
    /// What was seen of it.
    pub seen: u64,
}

/// More replicas than any group has had; those of the lowest ids are forgotten first.
const REPLICAS_MAX: usize = 1000;

/// The most that was seen of each other replica since this process began.
#[derive(Debug, Clone, Default)]
pub struct Seen(BTreeMap<u64, Most>);

#[derive(Debug, Clone, Copy, Default)]
struct Most {
    term: u64,
    boots: u64,
    /// In this term this replica led, and the other had acked this position: only the leader of a later term can
    /// have it cut anything off.
    acked: (u64, u64),
    /// It acked this position, which was committed: nobody ever cuts that off.
    committed: u64,
}

impl Seen {
    /// A message of `term` came, perhaps acking what is up to `acked`.
    pub fn hear(&mut self, id: u64, term: u64, acked: Option<u64>, committed: u64) {
        let most = self.most(id);
        most.term = most.term.max(term);
        if let Some(acked) = acked {
            most.acked = most.acked.max((term, acked));
            most.committed = most.committed.max(acked.min(committed));
        }
    }

    /// Judges and remembers what a replica says of itself. `before` is what was seen before it began to say it: what
    /// it has acked since then may have come on another way and overtaken this. (Starts of a process do not move.)
    pub fn judge(&mut self, standing: &Standing, before: &Seen) -> Result<(), StandingRefused> {
        let Standing { id, last_index, term, boots } = *standing;
        let most = self.most(id);
        // Of whom nothing had been seen, nothing is expected.
        let most_before = before.0.get(&id).copied().unwrap_or_default();
        let acked = if term == most_before.acked.0 { most_before.acked.1 } else { 0 };
        let checks = [
            ("boot", boots, most.boots),
            ("term", term, most_before.term),
            ("last position", last_index, acked.max(most_before.committed)),
        ];
        for (what, told, seen) in checks {
            if told < seen {
                return Err(StandingRefused { id, what, told, seen });
            }
        }
        most.boots = boots;
        most.term = most.term.max(term);
        Ok(())
    }

    fn most(&mut self, id: u64) -> &mut Most {
        while self.0.len() > REPLICAS_MAX {
            self.0.pop_first();
        }
        self.0.entry(id).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acked_while_it_was_said_does_not_count_against_it() {
        let standing = |last_index, boots| Standing { id: 1, last_index, term: 2, boots };
        let mut seen = Seen::default();
        seen.hear(1, 2, Some(13), 13);
        let before = seen.clone();
        // It says 13 on a new connection, appends 14, and its ack on an old one is here first.
        seen.hear(1, 3, Some(14), 14);
        assert_eq!(seen.judge(&standing(13, 1), &before), Ok(()));
        let refused = |what, told, seen| Err(StandingRefused { id: 1, what, told, seen });
        assert_eq!(seen.clone().judge(&standing(12, 1), &before), refused("last position", 12, 13));
        let now = seen.clone();
        assert_eq!(seen.judge(&standing(14, 1), &now), refused("term", 2, 3));
        // A second process on the folder has been here meanwhile.
        assert_eq!(seen.judge(&standing(14, 2), &before), Ok(()));
        assert_eq!(seen.judge(&standing(14, 1), &before), refused("boot", 1, 2));
    }
}
