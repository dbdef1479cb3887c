//! Shards: the series of a query, split so that several nodes can each take a share.

use crate::labels::Labels;

/// One of `count` shares of all series. Which one a series is in follows from its labels alone, on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which; below `count`.
    pub number: u32,
    /// Of how many; at least 1.
    pub count: u32,
}

impl Shard {
    /// The only one: every series.
    pub const WHOLE: Shard = Shard { number: 0, count: 1 };

    /// Whether a series is in it.
    pub fn has(&self, labels: &Labels) -> bool {
        self.count <= 1 || hash(labels.as_bytes()) % u64::from(self.count) == u64::from(self.number)
    }
}

/// FNV-1a with the finalizer of SplitMix64, without which its low bits are poor. Nothing stored depends on it, but the nodes
/// of a query do: it must not change while nodes of two versions are in one cluster.
fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a series would be in two shards of a query, or in none, while a cluster is upgraded.
    #[test]
    fn the_hash_stays_what_it_is() {
        let labels = Labels::from_pairs([("__name__", "node_cpu_seconds_total"), ("cpu", "0")]).unwrap();
        assert_eq!(hash(labels.as_bytes()), HASH_OF_VERSION_1);
    }

    const HASH_OF_VERSION_1: u64 = 3_584_425_618_996_948_052;

    #[test]
    fn each_series_is_in_one_shard_and_shards_are_of_a_size() {
        let mut sizes = [0; 3];
        for i in 0..3_000 {
            let labels = Labels::from_pairs([("__name__", "m"), ("instance", i.to_string().as_str())]).unwrap();
            let shards = (0..3).filter(|&number| Shard { number, count: 3 }.has(&labels));
            let of: Vec<u32> = shards.collect();
            assert_eq!(of.len(), 1);
            sizes[of[0] as usize] += 1;
            assert!(Shard::WHOLE.has(&labels));
        }
        assert!(sizes.iter().all(|size| (900..1_100).contains(size)), "{sizes:?}");
    }
}
