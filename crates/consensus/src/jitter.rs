//! How long each voter waits for its leader, so that two seldom campaign at once.
//!
//! Raft has each draw a timeout of its own. Of two survivors drawing from ten ticks one in ten pairs draws the same, both vote
//! for themselves, and all is to do again: a dead leader costs twice as long. Here each voter draws from a slot of its own, by
//! the order of the ids, and a tick is left free between two slots as they do not count from the same moment.

/// Ticks that `own` waits, from `election_ticks` to less than twice as many; `chance` is any number. Who is no voter does not
/// campaign, and its timeout means nothing.
pub(crate) fn election_timeout(election_ticks: usize, voters: &[u64], own: u64, chance: u64) -> usize {
    let before = voters.iter().filter(|id| **id < own).count();
    let width = (election_ticks / voters.len().max(1)).max(1);
    let free = usize::from(width > 1);
    let drawn = chance as usize % (width - free);
    election_ticks + (before * width + drawn).min(election_ticks - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_voters_campaign_in_the_same_tick_or_the_next() {
        for voters in [vec![7], vec![9, 3], vec![u64::MAX, 0, 5], vec![5, 4, 3, 2, 1]] {
            for chance in 0..30 {
                let timeout = |id: &u64, chance: u64| election_timeout(10, &voters, *id, chance);
                for a in &voters {
                    assert!((10..20).contains(&timeout(a, chance)));
                    for (b, other) in voters.iter().filter(|b| *b != a).flat_map(|b| (0..30).map(move |c| (b, c))) {
                        assert!(timeout(a, chance).abs_diff(timeout(b, other)) >= 2, "{voters:?} {a} {b}");
                    }
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
                    let timeout = election_timeout(ticks, &voters, own, u64::MAX);
                    assert!((ticks..2 * ticks).contains(&timeout), "{ticks} {count} {own}");
                }
            }
        }
    }
}
