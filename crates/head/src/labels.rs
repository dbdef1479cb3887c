//! Labels and postings of one tenant: each label pair once, and which series have it.
//!
//! A series' label set is the list of its pairs' numbers. Matchers are turned into sets of numbers first, so that a
//! candidate is judged without looking at a string.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use model::{Labels, MatchOp, Matcher, Metadata, Reader, TenantId, put_varint, put_zigzag};
use segment::SeriesId;

use crate::arena::{Arena, StringRef};
use crate::pages::Pages;
use crate::slab::{Chain, Slab};

/// Ids of series in the order in which they came. 16 bytes and about one a series; a lone id takes no node.
#[derive(Debug)]
pub(crate) struct Posting {
    pub(crate) count: u32,
    last: SeriesId,
    /// Zigzag varints of the steps from id to id; empty up to the second id.
    steps: Chain,
}

impl Posting {
    const EMPTY: Posting = Posting { count: 0, last: 0, steps: Chain::EMPTY };

    fn push(&mut self, id: SeriesId, slab: &mut Slab, scratch: &mut Vec<u8>) {
        scratch.clear();
        if self.count == 1 {
            put_zigzag(scratch, i64::from(self.last));
        }
        if self.count >= 1 {
            put_zigzag(scratch, i64::from(id) - i64::from(self.last));
            slab.append(&mut self.steps, scratch);
        }
        self.last = id;
        self.count += 1;
    }

    fn copy(&self, slab: &Slab, out: &mut Vec<SeriesId>) {
        if self.count == 1 {
            out.push(self.last);
            return;
        }
        let mut bytes = Vec::new();
        slab.copy(self.steps, &mut bytes);
        let mut reader = Reader::new(&bytes);
        let mut id = 0;
        out.reserve(self.count as usize);
        while let Ok(step) = reader.zigzag() {
            id += step;
            out.push(id as SeriesId);
        }
    }
}

/// A label pair. 24 bytes.
#[derive(Debug)]
struct Pair {
    name: u32,
    value: StringRef,
    posting: Posting,
}

#[derive(Debug)]
struct Name {
    text: StringRef,
    /// Its pairs, in the order in which they came.
    pairs: Vec<u32>,
}

/// The labels, postings and metadata of one tenant.
#[derive(Debug)]
pub(crate) struct TenantLabels {
    pub(crate) tenant: TenantId,
    names: Vec<Name>,
    name_table: HashTable<u32>,
    pairs: Pages<Pair>,
    pair_table: HashTable<u32>,
    /// Keyed, so that no sender can make pairs collide.
    hasher: RandomState,
    /// Every series of the tenant.
    pub(crate) all: Posting,
    pub(crate) metadata: BTreeMap<String, Metadata>,
    metadata_bytes: usize,
}

/// What a matcher asks of a series' list of pairs.
struct Condition {
    /// Pairs of one label name: those that match, or those that do not.
    pairs: PairSet,
    /// Whether the series must have one of them; else it must have none.
    wants: bool,
    /// Series with one of them.
    series: u64,
}

/// A set of pair numbers.
enum PairSet {
    One(u32),
    Many(Vec<u64>, Vec<u32>),
}

impl PairSet {
    fn new(pairs: Vec<u32>) -> PairSet {
        if let [one] = pairs[..] {
            return PairSet::One(one);
        }
        let mut bits = vec![0; pairs.iter().max().map_or(0, |&max| max as usize / 64 + 1)];
        pairs.iter().for_each(|&pair| bits[pair as usize / 64] |= 1 << (pair % 64));
        PairSet::Many(bits, pairs)
    }

    #[inline]
    fn contains(&self, pair: u32) -> bool {
        match self {
            PairSet::One(one) => *one == pair,
            PairSet::Many(bits, _) => bits.get(pair as usize / 64).is_some_and(|word| word >> (pair % 64) & 1 == 1),
        }
    }

    fn list(&self) -> &[u32] {
        match self {
            PairSet::One(one) => std::slice::from_ref(one),
            PairSet::Many(_, list) => list,
        }
    }
}

impl TenantLabels {
    pub(crate) fn new(tenant: TenantId) -> TenantLabels {
        TenantLabels {
            tenant,
            names: Vec::new(),
            name_table: HashTable::new(),
            pairs: Pages::default(),
            pair_table: HashTable::new(),
            hasher: RandomState::new(),
            all: Posting::EMPTY,
            metadata: BTreeMap::new(),
            metadata_bytes: 0,
        }
    }

    /// The number of a pair, given in its canonical bytes; a new one if it is new.
    pub(crate) fn intern(&mut self, pair: &[u8], arena: &mut Arena) -> u32 {
        let mut reader = Reader::new(pair);
        let (name, value) = (reader.bytes().unwrap_or_default(), reader.bytes().unwrap_or_default());
        let name = self.intern_name(name, arena);
        if let Some(found) = self.find_pair(name, value, arena) {
            return found;
        }
        let hash = self.hasher.hash_one((name, value));
        let number = self.pairs.push(Pair { name, value: arena.push(value), posting: Posting::EMPTY });
        let (pairs, hasher) = (&self.pairs, &self.hasher);
        self.pair_table.insert_unique(hash, number, |&number| {
            let pair = pairs.get(number);
            hasher.hash_one((pair.name, arena.get(pair.value)))
        });
        self.names[name as usize].pairs.push(number);
        number
    }

    fn intern_name(&mut self, name: &[u8], arena: &mut Arena) -> u32 {
        if let Some(found) = self.find_name(name, arena) {
            return found;
        }
        let hash = self.hasher.hash_one(name);
        let number = self.names.len() as u32;
        self.names.push(Name { text: arena.push(name), pairs: Vec::new() });
        let (names, hasher) = (&self.names, &self.hasher);
        let rehash = |&number: &u32| hasher.hash_one(arena.get(names[number as usize].text));
        self.name_table.insert_unique(hash, number, rehash);
        number
    }

    fn find_name(&self, name: &[u8], arena: &Arena) -> Option<u32> {
        let is_it = |&number: &u32| arena.get(self.names[number as usize].text) == name;
        self.name_table.find(self.hasher.hash_one(name), is_it).copied()
    }

    fn find_pair(&self, name: u32, value: &[u8], arena: &Arena) -> Option<u32> {
        let is_it = |&number: &u32| {
            let pair = self.pairs.get(number);
            pair.name == name && arena.get(pair.value) == value
        };
        self.pair_table.find(self.hasher.hash_one((name, value)), is_it).copied()
    }

    /// Enters a series under each of its pairs; returns the list of them.
    pub(crate) fn add_series(
        &mut self,
        id: SeriesId,
        pairs: &[u32],
        arena: &mut Arena,
        slab: &mut Slab,
        scratch: &mut Vec<u8>,
    ) -> StringRef {
        let mut list = Vec::with_capacity(5 * pairs.len());
        for &pair in pairs {
            put_varint(&mut list, u64::from(pair));
            self.pairs.get_mut(pair).posting.push(id, slab, scratch);
        }
        self.all.push(id, slab, scratch);
        arena.push(&list)
    }

    pub(crate) fn put_metadata(&mut self, metric: &str, metadata: Metadata) {
        let texts = metadata.unit.len() + metadata.help.len();
        match self.metadata.get_mut(metric) {
            Some(known) => {
                self.metadata_bytes += texts;
                self.metadata_bytes -= known.unit.len() + known.help.len();
                *known = metadata;
            }
            None => {
                self.metadata_bytes += size_of::<(String, Metadata)>() + metric.len() + texts;
                self.metadata.insert(metric.to_owned(), metadata);
            }
        }
    }

    /// Appends a label set's canonical bytes.
    pub(crate) fn put_labels(&self, list: &[u8], arena: &Arena, out: &mut Vec<u8>) {
        for pair in pair_numbers(list) {
            let pair = self.pairs.get(pair);
            for text in [arena.get(self.names[pair.name as usize].text), arena.get(pair.value)] {
                put_varint(out, text.len() as u64);
                out.extend_from_slice(text);
            }
        }
    }

    /// A label set; `scratch` is only there to be used again.
    pub(crate) fn labels(&self, list: &[u8], arena: &Arena, scratch: &mut Vec<u8>) -> Labels {
        scratch.clear();
        self.put_labels(list, arena, scratch);
        // Columns are made from label sets, or checked when they are decoded.
        Labels::from_canonical(scratch)
    }

    /// The ids of the series that satisfy every matcher, in no order.
    ///
    /// Walks the postings of the most selective matcher that a missing label does not satisfy, and judges each of its
    /// series by the others; so its cost is that of the matcher with the fewest series.
    pub(crate) fn select<'a>(
        &self,
        matchers: &[Matcher],
        arena: &Arena,
        slab: &Slab,
        list_of: impl Fn(SeriesId) -> &'a [u8],
    ) -> Vec<SeriesId> {
        let mut conditions: Vec<Condition> = matchers.iter().map(|matcher| self.condition(matcher, arena)).collect();
        // A condition to have none of no pairs is always met.
        conditions.retain(|condition| condition.wants || !condition.pairs.list().is_empty());
        let driver = (0..conditions.len())
            .filter(|&i| conditions[i].wants)
            .min_by_key(|&i| conditions[i].series)
            .map(|i| conditions.swap_remove(i));
        let mut ids = Vec::new();
        match driver {
            Some(driver) => {
                driver.pairs.list().iter().for_each(|&pair| self.pairs.get(pair).posting.copy(slab, &mut ids));
            }
            None => self.all.copy(slab, &mut ids),
        }
        if !conditions.is_empty() {
            ids.retain(|&id| {
                let list = list_of(id);
                conditions.iter().all(|c| pair_numbers(list).any(|pair| c.pairs.contains(pair)) == c.wants)
            });
        }
        ids
    }

    fn condition(&self, matcher: &Matcher, arena: &Arena) -> Condition {
        let wants = !matcher.matches_empty();
        let name = self.find_name(matcher.name().as_bytes(), arena);
        let mut found = Vec::new();
        match (name, matcher.op()) {
            (None, _) => {}
            (Some(name), MatchOp::Equal) if wants => {
                found.extend(self.find_pair(name, matcher.value().as_bytes(), arena));
            }
            (Some(name), _) => {
                let pairs = self.names[name as usize].pairs.iter().copied();
                found.extend(pairs.filter(|&pair| matcher.matches(self.value_of(pair, arena)) == wants));
            }
        }
        let series = found.iter().map(|&pair| u64::from(self.pairs.get(pair).posting.count)).sum();
        Condition { pairs: PairSet::new(found), wants, series }
    }

    fn value_of<'a>(&self, pair: u32, arena: &'a Arena) -> &'a str {
        text(arena.get(self.pairs.get(pair).value))
    }

    /// Every label name, sorted; or those of the label sets in `lists`.
    pub(crate) fn label_names<'a>(&self, lists: Option<impl Iterator<Item = &'a [u8]>>, arena: &Arena) -> Vec<String> {
        let mut is_seen = vec![lists.is_none(); self.names.len()];
        let pairs = lists.map(|lists| self.pairs_in(lists)).unwrap_or_default();
        pairs.iter().for_each(|&pair| is_seen[self.pairs.get(pair).name as usize] = true);
        let seen = self.names.iter().zip(is_seen).filter(|(_, is_seen)| *is_seen);
        let mut names: Vec<String> = seen.map(|(name, _)| text(arena.get(name.text)).to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// Every value of a label, sorted; or those in the label sets in `lists`.
    pub(crate) fn label_values<'a>(
        &self,
        name: &str,
        lists: Option<impl Iterator<Item = &'a [u8]>>,
        arena: &Arena,
    ) -> Vec<String> {
        let Some(name) = self.find_name(name.as_bytes(), arena) else {
            return Vec::new();
        };
        let pairs = match lists {
            None => self.names[name as usize].pairs.clone(),
            Some(lists) => self.pairs_in(lists),
        };
        let of_name = pairs.into_iter().filter(|&pair| self.pairs.get(pair).name == name);
        let mut values: Vec<String> = of_name.map(|pair| self.value_of(pair, arena).to_owned()).collect();
        values.sort_unstable();
        values
    }

    /// The distinct pairs of these label sets.
    fn pairs_in<'a>(&self, lists: impl Iterator<Item = &'a [u8]>) -> Vec<u32> {
        let mut is_seen = vec![false; self.pairs.len()];
        lists.flat_map(pair_numbers).for_each(|pair| is_seen[pair as usize] = true);
        (0..self.pairs.len() as u32).filter(|&pair| is_seen[pair as usize]).collect()
    }

    /// For each pair, its place in the order of (name, value), from 1.
    pub(crate) fn pair_ranks(&self, arena: &Arena) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.pairs.len() as u32).collect();
        order.sort_unstable_by_key(|&pair| {
            let pair = self.pairs.get(pair);
            (arena.get(self.names[pair.name as usize].text), arena.get(pair.value))
        });
        let mut ranks = vec![0; order.len()];
        for (rank, pair) in (1..).zip(order) {
            ranks[pair as usize] = rank;
        }
        ranks
    }

    /// The ids of all series of the tenant, in the order in which they were spelled out.
    pub(crate) fn all_series(&self, slab: &Slab) -> Vec<SeriesId> {
        let mut ids = Vec::new();
        self.all.copy(slab, &mut ids);
        ids
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<TenantLabels>()
            + self.names.iter().map(|name| size_of::<Name>() + 4 * name.pairs.capacity()).sum::<usize>()
            + self.pairs.memory_bytes()
            + self.name_table.allocation_size()
            + self.pair_table.allocation_size()
            + self.metadata_bytes
    }
}

/// The pair numbers in a series' list, by ascending label name.
#[inline]
pub(crate) fn pair_numbers(list: &[u8]) -> impl Iterator<Item = u32> {
    let mut reader = Reader::new(list);
    std::iter::from_fn(move || reader.varint().ok().map(|pair| pair as u32))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("labels are UTF-8: columns are made from label sets, or checked when decoded")
}
