//! Which node's writer is a series' home: the rendezvous hash.
//!
//! Every node finds the same home for a series, whatever order its labels are sent in, and however the request is
//! spelled; when a node goes, only the series that it was home to find another one, and when one comes, only those that
//! it is home to from then on leave theirs. Nothing depends on it but locality, so the hash needs no secret; but it
//! must not change while nodes of two versions are in one cluster.
//!
//! The hash of a series is a sum over its labels, which is the same in any order: nothing is sorted. It takes some 300 ns, as
//! labels are short and of all lengths; so it is remembered ([`Remembered`]) by another hash, of the labels' bytes as they
//! lie on the wire, which takes a sixth of that.

use std::sync::atomic::{AtomicU64, Ordering};

use model::{NodeId, TenantId};
use proto::{TimeSeries, WireLabels};

/// Digits of π: nothing up the sleeve.
const KEYS: [u64; 3] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0];

/// The hash that the hashes of a tenant's series begin with.
pub(crate) fn tenant_hash(tenant: &TenantId) -> u64 {
    hash(KEYS[2], tenant.as_str().as_bytes())
}

/// The hash of a series. Labels without a value are none, as everywhere.
#[inline]
pub(crate) fn series_hash(tenant: u64, labels: &WireLabels<'_>) -> u64 {
    let label = |(name, value): (&[u8], &[u8])| match value {
        [] => 0,
        value => hash(hash(tenant, name), value),
    };
    labels.iter().map(label).fold(tenant, u64::wrapping_add)
}

/// Hashes of the series that came lately: 4 MiB.
///
/// Each has one place, where the next one that has it too takes its own. Nothing is locked: half a pair that another
/// thread writes at the same time does not fit the other half, and is not taken.
#[derive(Debug)]
pub(crate) struct Remembered {
    places: Box<[(AtomicU64, AtomicU64)]>,
}

/// Of 2 to the power of this.
const PLACES_LOG2: u32 = 18;

/// Stands for a hash that is not remembered. A series may have it; then it is never remembered. It is also what is found for
/// labels that do not lie together in a table without anything in their place.
const UNKNOWN: u64 = 0;

impl Remembered {
    /// Nothing yet.
    pub(crate) fn new() -> Remembered {
        Remembered { places: (0..1_u64 << PLACES_LOG2).map(|_| Default::default()).collect() }
    }

    /// [`series_hash`] of each series, remembered.
    ///
    /// In two passes: a place is far from the one before, so a look is a wait for memory, and the second pass waits for
    /// many at once. (In one pass it took 180 ns a series, as long as the sum that it saves.)
    pub(crate) fn series_hashes(&self, tenant: u64, series: &[TimeSeries<'_>]) -> Vec<u64> {
        let spelled = |series: &TimeSeries<'_>| series.labels.as_contiguous().map_or(0, |b| spelled_hash(tenant, b));
        let mut hashes: Vec<u64> = series.iter().map(spelled).collect();
        for hash in &mut hashes {
            let spelled = *hash;
            let (check, remembered) = self.place(spelled);
            let found = remembered.load(Ordering::Relaxed);
            *hash = if check.load(Ordering::Relaxed) ^ found == spelled { found } else { UNKNOWN };
        }
        for (hash, series) in hashes.iter_mut().zip(series) {
            if *hash == UNKNOWN {
                *hash = series_hash(tenant, &series.labels);
                if let Some(bytes) = series.labels.as_contiguous() {
                    let spelled = spelled_hash(tenant, bytes);
                    let (check, remembered) = self.place(spelled);
                    remembered.store(*hash, Ordering::Relaxed);
                    check.store(*hash ^ spelled, Ordering::Relaxed);
                }
            }
        }
        hashes
    }

    #[inline]
    fn place(&self, spelled: u64) -> &(AtomicU64, AtomicU64) {
        &self.places[(spelled >> (u64::BITS - PLACES_LOG2)) as usize]
    }
}

/// A hash of bytes that are many, 32 at a time.
#[inline]
fn spelled_hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut lanes = [seed ^ KEYS[0], seed ^ KEYS[1] ^ bytes.len() as u64];
    let mut take = |block: &[u8; 32]| {
        let (words, _) = block.as_chunks::<8>();
        let word = |i: usize| u64::from_le_bytes(words[i]);
        lanes[0] = fold(lanes[0] ^ word(0), KEYS[1] ^ word(1));
        lanes[1] = fold(lanes[1] ^ word(2), KEYS[2] ^ word(3));
    };
    let (blocks, tail) = bytes.as_chunks::<32>();
    blocks.iter().for_each(&mut take);
    let mut last = [0; 32];
    last[..tail.len()].copy_from_slice(tail);
    take(&last);
    fold(lanes[0] ^ lanes[1].rotate_left(32), KEYS[0])
}

/// Which of the nodes is home to a series: its place in `nodes`, which holds at least one.
#[inline]
pub(crate) fn home(series: u64, nodes: &[NodeId]) -> usize {
    let mut best = (0, 0);
    for (i, node) in nodes.iter().enumerate() {
        // Node ids are random numbers. A draw is decided by the order of the ids, which is the caller's.
        let score = fold(fold(series ^ node.0, KEYS[0]) ^ node.0, KEYS[1]);
        if i == 0 || score > best.0 {
            best = (score, i);
        }
    }
    best.1
}

/// Both halves of a product, which each bit of both factors has a say in.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ KEYS[0].wrapping_mul(bytes.len() as u64 | 1);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), KEYS[1]).wrapping_add(KEYS[2]);
    }
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    fold(state ^ u64::from_le_bytes(last), KEYS[0]) ^ state.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use model::Labels;
    use proptest::prelude::*;
    use proto::{DecodeLimits, WriteRequestBuilder};

    use super::*;

    fn hash_of(tenant: &str, pairs: &[(&str, &str)]) -> u64 {
        let mut builder = WriteRequestBuilder::new();
        builder.series_of(pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &[(1, 1.0)], &[]);
        let bytes = builder.finish();
        let request = proto::decode_write_request(&bytes, &DecodeLimits::default()).unwrap();
        series_hash(tenant_hash(&TenantId::new(tenant).unwrap()), &request.series[0].labels)
    }

    fn nodes(ids: &[u64]) -> Vec<NodeId> {
        // As ids are drawn.
        ids.iter().map(|&id| NodeId(hash(7, &id.to_le_bytes()))).collect()
    }

    #[test]
    fn another_spelling_is_the_same_series() {
        let canonical = hash_of("t", &[("__name__", "m"), ("job", "a"), ("zone", "b")]);
        assert_eq!(hash_of("t", &[("zone", "b"), ("empty", ""), ("job", "a"), ("__name__", "m")]), canonical);
        let others = [
            hash_of("u", &[("__name__", "m"), ("job", "a"), ("zone", "b")]),
            hash_of("t", &[("__name__", "m"), ("job", "b"), ("zone", "a")]),
            hash_of("t", &[("__name__", "m"), ("joba", ""), ("zone", "b")]),
            hash_of("t", &[("__name__", "m"), ("job", "a")]),
        ];
        assert!(others.iter().all(|other| *other != canonical), "{others:?}");
    }

    #[test]
    fn what_is_remembered_is_the_hash() {
        let remembered = Remembered::new();
        let tenant = tenant_hash(&TenantId::anonymous());
        let mut builder = WriteRequestBuilder::new();
        // So many that some have one place.
        for i in 0..20_000 {
            let labels = [("__name__", "m".repeat(i % 70)), ("job", i.to_string())];
            builder.series_of(labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &[(1, 1.0)], &[]);
        }
        let bytes = builder.finish();
        let request = proto::decode_write_request(&bytes, &DecodeLimits::default()).unwrap();
        let want: Vec<u64> = request.series.iter().map(|series| series_hash(tenant, &series.labels)).collect();
        for _ in 0..2 {
            assert!(remembered.series_hashes(tenant, &request.series) == want);
        }
    }

    /// Nodes of two versions are in one cluster while it is upgraded.
    #[test]
    fn the_hash_stays_what_it_is() {
        let hash = hash_of("anonymous", &[("__name__", "node_cpu_seconds_total"), ("cpu", "0"), ("mode", "idle")]);
        assert_eq!(hash, HASH_OF_VERSION_1);
        let nodes = [NodeId(1), NodeId(u64::MAX / 3), NodeId(u64::MAX)];
        let homes: Vec<usize> = (0..8).map(|i| home(hash.wrapping_add(i), &nodes)).collect();
        assert_eq!(homes, HOMES_OF_VERSION_1);
    }

    const HASH_OF_VERSION_1: u64 = 2_522_728_975_166_954_355;
    const HOMES_OF_VERSION_1: [usize; 8] = [1, 1, 2, 2, 2, 0, 2, 2];

    #[test]
    fn every_node_is_home_to_its_share() {
        for count in [2, 3, 5] {
            let nodes = nodes(&(0..count).collect::<Vec<_>>());
            let mut series = vec![0; nodes.len()];
            for i in 0..10_000 {
                let name = format!("metric_{}", i % 100);
                let labels = [("__name__", name.as_str()), ("instance", &format!("host-{}:9100", i / 100))];
                series[home(hash_of("t", &labels), &nodes)] += 1;
            }
            let fair = 10_000 / nodes.len();
            assert!(series.iter().all(|&n| n > fair * 9 / 10 && n < fair * 11 / 10), "{series:?}");
        }
    }

    proptest! {
        #[test]
        fn who_is_left_stays_home(ids in proptest::collection::hash_set(0_u64..1000, 2..8), series: u64, gone: usize) {
            let ids: Vec<u64> = ids.into_iter().collect();
            let all = nodes(&ids);
            let before = all[home(series, &all)];
            let mut left = all.clone();
            let gone = left.remove(gone % all.len());
            let after = left[home(series, &left)];
            prop_assert!(before == gone || after == before);
            // Nor does it matter in which order they are known.
            left.reverse();
            prop_assert_eq!(left[home(series, &left)], after);
        }

        #[test]
        fn any_labels_have_one_hash_in_any_order(pairs: Vec<(String, String)>, turn: usize) {
            let Ok(labels) = Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))) else {
                return Ok(());
            };
            let mut sorted: Vec<(&str, &str)> = labels.iter().collect();
            let canonical = hash_of("t", &sorted);
            if !sorted.is_empty() {
                let turn = turn % sorted.len();
                sorted.rotate_left(turn);
            }
            prop_assert_eq!(hash_of("t", &sorted), canonical);
        }
    }
}
