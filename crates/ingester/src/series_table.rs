//! Which series has which id: found by a keyed hash of the label bytes as they lie on the wire.
//!
//! The first guess is the series that followed this one last time: a sender that keeps its order costs one comparison
//! a series. Otherwise the hash is probed. A hash stands for a series without its bytes being compared, so it is 128 bits
//! wide and keyed with a secret that only the nodes of the cluster know: nobody can aim for a collision, and by chance
//! there is none (a billion series: 10⁻²⁰).
//!
//! The table outlives cuts. It remembers in which *generation* (between two cuts) a series was last spelled out, and
//! forgets those that were silent for [`SILENT_GENERATIONS`]; their ids are used again, which is safe as every
//! id is spelled anew after each cut. It holds no labels: those are in the request at hand.

use std::collections::HashMap;
use std::fmt;

use hashbrown::HashTable;
use highway::{HighwayHash, HighwayHasher, Key};
use model::{DecodeError, Labels, Reader, TenantId};
use proto::WireLabels;
use segment::{SeriesId, SeriesState};

/// A series that was not written for this many whole generations is forgotten: half an hour at ten minutes a cut.
const SILENT_GENERATIONS: u32 = 3;

/// Makes the hashes; cheap to copy, used outside the table's lock. Other nodes of the cluster are told the key, and nobody
/// else is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeriesHasher {
    key: [u64; 4],
}

impl fmt::Debug for SeriesHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeriesHasher(…)")
    }
}

impl SeriesHasher {
    /// A hasher with this secret.
    pub(crate) const fn new(key: [u64; 4]) -> SeriesHasher {
        SeriesHasher { key }
    }

    /// The hash of bytes, under a tenant's salt.
    #[inline]
    pub(crate) fn hash(&self, salt: u128, bytes: &[u8]) -> u128 {
        let [low, high] = HighwayHasher::new(Key(self.key)).hash128(bytes);
        (u128::from(high) << 64 | u128::from(low)) ^ salt
    }

    /// What sets one tenant's hashes apart from another's.
    pub(crate) fn salt(&self, tenant: &TenantId) -> u128 {
        self.hash(0, tenant.as_str().as_bytes())
    }

    /// The hash of labels as they lie on the wire; another spelling of the same labels has another one.
    #[inline]
    pub(crate) fn hash_wire(&self, salt: u128, labels: &WireLabels<'_>) -> u128 {
        match labels.as_contiguous() {
            Some(bytes) => self.hash(salt, bytes),
            // Label fields with other fields between them: legal, and nobody sends it.
            None => {
                let mut bytes = Vec::new();
                for (name, value) in labels.iter() {
                    for part in [name, value] {
                        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                        bytes.extend_from_slice(part);
                    }
                }
                self.hash(!salt, &bytes)
            }
        }
    }

    /// Appends the key, 32 bytes.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        self.key.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    /// Reads what [`SeriesHasher::put`] wrote.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<SeriesHasher, DecodeError> {
        let mut key = [0; 4];
        for word in &mut key {
            *word = reader.u64()?;
        }
        Ok(SeriesHasher { key })
    }

    /// The hash of a label set in its canonical wire form.
    pub(crate) fn hash_labels(&self, salt: u128, labels: &Labels) -> u128 {
        let mut wire = Vec::with_capacity(labels.as_bytes().len() * 2);
        proto::put_wire_labels(&mut wire, labels);
        self.hash(salt, &wire)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SeriesTable {
    by_hash: HashTable<SeriesId>,
    /// Other spellings (unsorted, with empty labels) of series, by the hash of those.
    aliases: HashMap<u128, SeriesId>,
    rows: Vec<Row>,
    free: Vec<SeriesId>,
    generation: u32,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    hash: u128,
    state: SeriesState,
    /// Who followed last time.
    next: SeriesId,
    /// The generation in which it was last spelled; `NEVER` if the row is free.
    spelled: u32,
}

const NEVER: u32 = u32::MAX;

impl SeriesTable {
    /// Series that are known.
    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Bytes of memory, from capacities.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.by_hash.capacity() * (size_of::<SeriesId>() + 1)
            + self.aliases.capacity() * (size_of::<(u128, SeriesId)>() + 1)
            + self.free.capacity() * size_of::<SeriesId>()
    }

    /// Finds the series with this hash; `after` is the one that came before it in the request.
    #[inline]
    pub(crate) fn find(&mut self, after: Option<SeriesId>, hash: u128) -> Option<SeriesId> {
        if let Some(after) = after {
            let guess = self.rows[after as usize].next;
            if self.rows[guess as usize].hash == hash {
                return Some(guess);
            }
        }
        let found = self.by_hash.find(hash as u64, |&id| self.rows[id as usize].hash == hash).copied();
        let found = found.or_else(|| self.aliases.get(&hash).copied())?;
        if let Some(after) = after {
            self.rows[after as usize].next = found;
        }
        Some(found)
    }

    /// Takes a series in that `find` does not know.
    pub(crate) fn insert(&mut self, hash: u128) -> SeriesId {
        let id = self.free.pop().unwrap_or(self.rows.len() as SeriesId);
        let row = Row { hash, state: SeriesState::default(), next: id, spelled: NEVER };
        match self.rows.get_mut(id as usize) {
            Some(free) => *free = row,
            None => self.rows.push(row),
        }
        self.by_hash.insert_unique(hash as u64, id, |&id| self.rows[id as usize].hash as u64);
        id
    }

    /// Notes another spelling of a series.
    pub(crate) fn insert_alias(&mut self, hash: u128, id: SeriesId) {
        self.aliases.insert(hash, id);
    }

    /// Whether the series was spelled since the last cut.
    #[inline]
    pub(crate) fn is_spelled(&self, id: SeriesId) -> bool {
        self.rows[id as usize].spelled == self.generation
    }

    /// Notes that the series is being spelled now: its codes start afresh.
    pub(crate) fn set_spelled(&mut self, id: SeriesId) {
        let row = &mut self.rows[id as usize];
        row.spelled = self.generation;
        row.state = SeriesState::default();
    }

    /// What the series' next code builds on.
    #[inline]
    pub(crate) fn state(&mut self, id: SeriesId) -> &mut SeriesState {
        &mut self.rows[id as usize].state
    }

    /// A cut: from now on every series is to be spelled anew; forgets those that have been silent.
    pub(crate) fn start_generation(&mut self) {
        self.generation += 1;
        let oldest = self.generation.saturating_sub(SILENT_GENERATIONS);
        let (rows, free) = (&mut self.rows, &mut self.free);
        self.by_hash.retain(|&mut id| {
            let row = &mut rows[id as usize];
            let keep = row.spelled != NEVER && row.spelled >= oldest;
            if !keep {
                *row = Row { hash: 0, state: SeriesState::default(), next: id, spelled: NEVER };
                free.push(id);
            }
            keep
        });
        self.aliases.retain(|_, id| rows[*id as usize].spelled != NEVER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(hashes: &[u128]) -> SeriesTable {
        let mut table = SeriesTable::default();
        for &hash in hashes {
            let id = table.insert(hash);
            table.set_spelled(id);
        }
        table
    }

    #[test]
    fn series_are_found_with_and_without_a_guess() {
        let mut table = table(&[10, 11, 12]);
        assert_eq!(table.find(None, 11), Some(1));
        assert_eq!(table.find(Some(1), 12), Some(2));
        assert_eq!(table.rows[1].next, 2, "the next time it is the first guess");
        assert_eq!(table.find(Some(1), 12), Some(2));
        assert_eq!(table.find(Some(1), 13), None);
        table.insert_alias(13, 0);
        assert_eq!(table.find(Some(1), 13), Some(0));
    }

    #[test]
    fn silent_series_are_forgotten_and_their_ids_used_again() {
        let mut table = table(&[10, 11]);
        table.insert_alias(99, 1);
        for _ in 0..SILENT_GENERATIONS + 1 {
            table.start_generation();
            assert!(!table.is_spelled(0));
            let id = table.find(None, 10).unwrap();
            table.set_spelled(id);
        }
        assert_eq!((table.find(None, 11), table.find(None, 99), table.len()), (None, None, 1));
        assert_eq!(table.insert(12), 1);
        assert_eq!(table.find(Some(0), 12), Some(1));
    }

    #[test]
    fn tenants_and_keys_set_hashes_apart() {
        let hasher = SeriesHasher::new([1, 2, 3, 4]);
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let labels = Labels::from_pairs([("__name__", "up")]).unwrap();
        let hash = hasher.hash_labels(hasher.salt(&a), &labels);
        assert_ne!(hash, hasher.hash_labels(hasher.salt(&b), &labels));
        assert_ne!(hash, SeriesHasher::new([1, 2, 3, 5]).hash_labels(hasher.salt(&a), &labels));
    }
}
