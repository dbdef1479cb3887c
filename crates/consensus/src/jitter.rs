//! How long each voter waits for its leader, so that two seldom campaign at once.
//!
//! Raft has each draw a timeout of its own. Of two survivors drawing from ten ticks one in ten pairs draws the same, both vote
//! for themselves, and all is to do again: a dead leader costs twice as long. Here each voter draws from a slot of its own, by
//! the order of the ids, and a tick is left free between two slots as they do not count from the same moment.

/// Ticks that `own` waits, from `election_ticks` to less than twice as many; `chance` is any number. Who has no vote in either
/// half of the configuration does not campaign, and its timeout means nothing.
///
/// The free tick comes first: who heard the leader a moment later gives no vote before it has itself waited `election_ticks`.
pub(crate) fn election_timeout(
    election_ticks: usize,
    voters: &[u64],
    outgoing: &[u64],
    own: u64,
    chance: u64,
) -> usize {
    let only_outgoing = || outgoing.iter().filter(|id| !voters.contains(id));
    let count = voters.len() + only_outgoing().count();
    let before = voters.iter().chain(only_outgoing()).filter(|id| **id < own).count();
    let width = (election_ticks / count.max(1)).max(1);
    let free = usize::from(width > 1);
    let drawn = chance as usize % (width - free);
    election_ticks + (before * width + free + drawn).min(election_ticks - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_voters_campaign_in_the_same_tick_or_the_next() {
        let groups: [(&[u64], &[u64]); 6] = [
            (&[7], &[]),
            (&[9, 3], &[]),
            (&[u64::MAX, 0, 5], &[]),
            (&[5, 4, 3, 2, 1], &[]),
            // One takes the place of another.
            (&[1, 2, 4], &[3, 2, 1]),
            (&[1, 2, 3], &[1]),
        ];
        for (voters, outgoing) in groups {
            let all: BTreeSet<u64> = voters.iter().chain(outgoing).copied().collect();
            let timeout = |id: u64, chance: u64| election_timeout(10, voters, outgoing, id, chance);
            let draws = |id: u64| (0..30).map(|chance| timeout(id, chance)).collect::<Vec<_>>();
            for &a in &all {
                assert!(draws(a).iter().all(|t| (11..20).contains(t)), "{all:?} {a}");
                for &b in all.iter().filter(|b| **b != a) {
                    let apart = |t: usize| draws(b).into_iter().all(|u| t.abs_diff(u) >= 2);
                    assert!(draws(a).into_iter().all(apart), "{all:?} {a} {b}");
                }
            }
        }
    }

    #[test]
    fn raft_takes_each_of_them() {
        // Raft demands a timeout from once to less than twice the ticks.
        for ticks in 1..30 {
            for count in 0..9 {
                let voters: Vec<u64> = (0..count).collect();
                for own in 0..10 {
                    let timeout = election_timeout(ticks, &voters, &[], own, u64::MAX);
                    assert!((ticks..2 * ticks).contains(&timeout), "{ticks} {count} {own}");
                }
            }
        }
    }
}
