//! How the other nodes hash labels, and whether a part with hashes is worth a try.
//!
//! A part is sent twice if its home does not know all of it. As a rule that is once after each cut; but a sender whose series are
//! new in each request, or never can be stored, would have every part sent twice. So after two such parts in a row some go with
//! labels at once, and twice as many after each further one.

use std::collections::BTreeMap;

use model::NodeId;
use parking_lot::Mutex;

use crate::series_table::SeriesHasher;

/// With this many in a row the most are sent with labels, [`labels_after`] of it.
const MISSES_MAX: u32 = 6;

/// By node; those that have answered.
#[derive(Debug, Default)]
pub(super) struct Hashers(Mutex<BTreeMap<NodeId, Known>>);

#[derive(Debug)]
struct Known {
    hasher: SeriesHasher,
    /// Parts with hashes that were not taken, one after the other.
    misses: u32,
    /// Parts that go with labels before the next that does not.
    labels_for: u32,
}

fn labels_after(misses: u32) -> u32 {
    (1 << misses) - 2
}

impl Hashers {
    /// How to hash for a node whose part is cut now; `None`: it gets labels.
    pub(super) fn next(&self, node: NodeId) -> Option<SeriesHasher> {
        let mut known = self.0.lock();
        let known = known.get_mut(&node)?;
        if known.labels_for > 0 {
            known.labels_for -= 1;
            return None;
        }
        Some(known.hasher)
    }

    /// A node has said how it hashes.
    pub(super) fn told(&self, node: NodeId, hasher: SeriesHasher) {
        let mut known = self.0.lock();
        known.entry(node).or_insert(Known { hasher, misses: 0, labels_for: 0 }).hasher = hasher;
    }

    /// A node has answered to a part with hashes.
    pub(super) fn tried(&self, node: NodeId, was_taken: bool) {
        let mut known = self.0.lock();
        let Some(known) = known.get_mut(&node) else { return };
        (known.misses, known.labels_for) = match was_taken {
            true => (0, 0),
            false => {
                let misses = (known.misses + 1).min(MISSES_MAX);
                (misses, labels_after(misses))
            }
        };
    }

    /// Forgets all other nodes.
    pub(super) fn retain(&self, live: &[NodeId]) {
        self.0.lock().retain(|node, _| live.contains(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);

    /// Parts that go with labels until one goes with hashes again.
    fn labels(hashers: &Hashers) -> u32 {
        (0..1000).take_while(|_| hashers.next(NODE).is_none()).count() as u32
    }

    #[test]
    fn hashes_are_tried_less_and_less_while_they_are_not_taken() {
        let hashers = Hashers::default();
        assert_eq!(hashers.next(NODE), None, "nobody has said how");
        hashers.tried(NODE, false);
        hashers.told(NODE, SeriesHasher::new([1; 4]));
        let after_misses: Vec<u32> = (0..8)
            .map(|_| {
                hashers.tried(NODE, false);
                labels(&hashers)
            })
            .collect();
        assert_eq!(after_misses, [0, 2, 6, 14, 30, 62, 62, 62]);
        hashers.tried(NODE, true);
        assert_eq!(labels(&hashers), 0);
        hashers.tried(NODE, false);
        assert_eq!(labels(&hashers), 0, "it is the first again");
    }

    #[test]
    fn a_new_key_takes_the_place_of_the_old_one_and_who_is_gone_is_forgotten() {
        let hashers = Hashers::default();
        for key in [[1; 4], [2; 4]] {
            hashers.told(NODE, SeriesHasher::new(key));
            assert_eq!(hashers.next(NODE), Some(SeriesHasher::new(key)));
        }
        hashers.retain(&[NODE]);
        assert!(hashers.next(NODE).is_some());
        hashers.retain(&[NodeId(8)]);
        assert_eq!(hashers.next(NODE), None);
    }
}
