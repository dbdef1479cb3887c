//! The label pairs that a segment's spelled series use, each once.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Distinct label pairs in their canonical bytes (`model::Labels`), numbered from 0.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pairs {
    bytes: Vec<u8>,
    /// Where each ends in `bytes`.
    ends: Vec<u32>,
    /// Finds a pair's number by its bytes. Pairs that were decoded are not in it.
    table: HashTable<u32>,
    /// Keyed, so that no sender can make pairs collide.
    hasher: RandomState,
}

impl Pairs {
    /// The number of a pair, a new one if it is new.
    pub(crate) fn intern(&mut self, pair: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(pair);
        let (bytes, ends) = (&self.bytes, &self.ends);
        if let Some(&i) = self.table.find(hash, |&i| get(bytes, ends, i) == pair) {
            return i;
        }
        let i = self.push(pair);
        let (bytes, ends, hasher) = (&self.bytes, &self.ends, &self.hasher);
        self.table.insert_unique(hash, i, |&i| hasher.hash_one(get(bytes, ends, i)));
        i
    }

    /// Appends a pair without looking for it.
    pub(crate) fn push(&mut self, pair: &[u8]) -> u32 {
        self.bytes.extend_from_slice(pair);
        // 4 GiB of new label pairs in one segment are beyond every limit on its size.
        self.ends.push(u32::try_from(self.bytes.len()).expect("a segment holds less than 4 GiB"));
        self.ends.len() as u32 - 1
    }

    /// The canonical bytes of pair `i`; panics if there is none.
    #[inline]
    pub(crate) fn get(&self, i: u32) -> &[u8] {
        get(&self.bytes, &self.ends, i)
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// All pairs, one after the other.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + 4 * self.ends.capacity() + self.table.allocation_size()
    }
}

#[inline]
fn get<'a>(bytes: &'a [u8], ends: &[u32], i: u32) -> &'a [u8] {
    let i = i as usize;
    let start = if i == 0 { 0 } else { ends[i - 1] as usize };
    &bytes[start..ends[i] as usize]
}
