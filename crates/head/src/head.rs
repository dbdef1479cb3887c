//! The head itself: taking segments in, and what it weighs.

use std::collections::HashMap;

use chunk::{measure_code, measure_plain_code, measure_varint, put_repeat};
use model::{SegmentNumber, TenantId, TimeRange};
use segment::{Columns, SeriesId};

use crate::arena::Arena;
use crate::arrivals::Arrivals;
use crate::error::HeadError;
use crate::labels::TenantLabels;
use crate::series::{Series, SeriesTable};
use crate::slab::Slab;

/// The value code of a sample that repeats the one before.
const SAME: u8 = 0;

/// A writer's samples since its last cut; see the crate's page.
///
/// Queries read it under a shared lock of the owner's, a segment is taken in under an exclusive one.
#[derive(Debug)]
pub struct Head {
    /// The segments of this head are those above it.
    cut: SegmentNumber,
    /// The last segment taken in.
    applied: SegmentNumber,
    pub(crate) tenants: Vec<TenantLabels>,
    pub(crate) tenant_numbers: HashMap<TenantId, u32>,
    pub(crate) series: SeriesTable,
    pub(crate) slab: Slab,
    pub(crate) arena: Arena,
    pub(crate) arrivals: Arrivals,
    samples: u64,
    pub(crate) time_range: Option<TimeRange>,
    scratch: Vec<u8>,
}

/// What a head weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadStats {
    /// Series with samples since the cut.
    pub series: usize,
    /// Samples since the cut, each arrival counted.
    pub samples: u64,
    /// Bytes of memory, from capacities; what an allocator rounds up is not in it.
    pub bytes: usize,
    /// From the earliest to the latest sample; `None` if there is none.
    pub time_range: Option<TimeRange>,
}

impl Head {
    /// An empty head; the first segment that it takes in is `cut` + 1.
    pub fn new(cut: SegmentNumber) -> Head {
        Head {
            cut,
            applied: cut,
            tenants: Vec::new(),
            tenant_numbers: HashMap::new(),
            series: SeriesTable::default(),
            slab: Slab::default(),
            arena: Arena::default(),
            arrivals: Arrivals::default(),
            samples: 0,
            time_range: None,
            scratch: Vec::new(),
        }
    }

    /// The last segment that was taken in; at first the cut.
    pub fn applied(&self) -> SegmentNumber {
        self.applied
    }

    /// The cut that this head's segments come after.
    pub fn cut(&self) -> SegmentNumber {
        self.cut
    }

    /// What it weighs; walks its pages, which is quick.
    pub fn stats(&self) -> HeadStats {
        let bytes = size_of::<Head>()
            + self.tenants.iter().map(TenantLabels::memory_bytes).sum::<usize>()
            + self.series.memory_bytes()
            + self.slab.memory_bytes()
            + self.arena.memory_bytes()
            + self.arrivals.memory_bytes();
        HeadStats { series: self.series.len, samples: self.samples, bytes, time_range: self.time_range }
    }

    /// Takes in a committed segment, the next after [`Head::applied`]. 20 to 30 ns a sample.
    ///
    /// Errors: not the next one, or it does not fit what came before; then the head stays as it is.
    pub fn take_in(&mut self, n: SegmentNumber, columns: &Columns) -> Result<(), HeadError> {
        if n != self.applied + 1 {
            return Err(HeadError::NotNext { applied: self.applied, found: n });
        }
        self.check(n, columns)?;
        self.spell(columns);
        for entry in columns.metadata() {
            let tenant = self.tenant_number(&columns.tenants()[entry.tenant as usize]);
            self.tenants[tenant as usize].put_metadata(&entry.metric, entry.metadata.clone());
        }
        self.scatter(columns);
        self.arrivals.push(columns.ids());
        self.samples += columns.samples();
        self.time_range = match (self.time_range, columns.time_range()) {
            (Some(a), Some(b)) => Some(TimeRange { start: a.start.min(b.start), end: a.end.max(b.end) }),
            (a, b) => a.or(b),
        };
        self.applied = n;
        Ok(())
    }

    /// Everything that could go wrong, before anything is changed.
    fn check(&self, n: SegmentNumber, columns: &Columns) -> Result<(), HeadError> {
        let label_bytes = 5 * columns.series().map(|series| series.pairs.len()).sum::<usize>()
            + (0..columns.pair_count() as u32).map(|pair| columns.pair(pair).len()).sum::<usize>();
        if !self.arena.has_room(label_bytes, columns.series_count() + 2 * columns.pair_count()) {
            return Err(HeadError::Full { n });
        }
        let mut spelled: Vec<SeriesId> = columns.series().map(|series| series.id).collect();
        spelled.sort_unstable();
        let in_segment = spelled.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let before = || spelled.iter().copied().find(|&id| self.series.get(id).is_some());
        if let Some(id) = in_segment.or_else(before) {
            return Err(HeadError::SpelledTwice { n, id });
        }
        for run in columns.ids().runs() {
            for (first, len, slice) in self.series.slices(run) {
                if slice.is_some_and(|slice| slice.iter().all(Series::is_spelled)) {
                    continue;
                }
                let is_known = |i: u32| slice.is_some_and(|slice| slice[i as usize].is_spelled());
                let is_new = |i: u32| spelled.binary_search(&(first + i)).is_ok();
                if let Some(i) = (0..len).find(|&i| !is_known(i) && !is_new(i)) {
                    return Err(HeadError::UnknownSeries { n, id: first + i });
                }
            }
        }
        Ok(())
    }

    fn tenant_number(&mut self, tenant: &TenantId) -> u32 {
        if let Some(&number) = self.tenant_numbers.get(tenant) {
            return number;
        }
        let number = self.tenants.len() as u32;
        self.tenants.push(TenantLabels::new(tenant.clone()));
        self.tenant_numbers.insert(tenant.clone(), number);
        number
    }

    /// Enters the series that the segment spells out, without samples yet.
    fn spell(&mut self, columns: &Columns) {
        // The head's numbers for the segment's pairs, for the tenant that used each last.
        let mut numbers: Vec<Option<(u32, u32)>> = vec![None; columns.pair_count()];
        let mut list = Vec::new();
        for spelled in columns.series() {
            let number = self.tenant_number(&columns.tenants()[spelled.tenant as usize]);
            let tenant = &mut self.tenants[number as usize];
            list.clear();
            for &pair in spelled.pairs {
                let known = numbers[pair as usize].filter(|&(of, _)| of == number).map(|(_, in_head)| in_head);
                let in_head = known.unwrap_or_else(|| tenant.intern(columns.pair(pair), &mut self.arena));
                numbers[pair as usize] = Some((number, in_head));
                list.push(in_head);
            }
            let labels = tenant.add_series(spelled.id, &list, &mut self.arena, &mut self.slab, &mut self.scratch);
            self.series.insert(spelled.id, labels);
        }
    }

    /// Copies each sample's codes to the end of its series' chain.
    fn scatter(&mut self, columns: &Columns) {
        let Head { series, slab, scratch, .. } = self;
        let (values, times) = (columns.values(), columns.times());
        let (mut value, mut time) = (0, 0);
        for run in columns.ids().runs() {
            series.slices_mut(run, |slice| {
                for series in slice {
                    let codes = &mut series.codes;
                    // Half of all series hardly ever change: theirs are only counted.
                    if values[value] == SAME && codes.repeats < u16::MAX {
                        codes.repeats += 1;
                        value += 1;
                        continue;
                    }
                    if codes.repeats > 0 {
                        scratch.clear();
                        put_repeat(scratch, u32::from(codes.repeats));
                        slab.append(codes, scratch);
                        codes.repeats = 0;
                    }
                    let word = values[value..].first_chunk().copied().unwrap_or([0xff; 8]);
                    let len = measure_plain_code(word);
                    if len > 0 {
                        slab.append_word(codes, word, len);
                        value += len;
                        continue;
                    }
                    let shape = measure_code(&values[value..]).expect("columns hold whole value codes");
                    slab.append(codes, &values[value..value + shape.len]);
                    value += shape.len;
                    if shape.is_timed {
                        let len = measure_varint(&times[time..]).expect("columns hold the time codes they promise");
                        slab.append(codes, &times[time..time + len]);
                        time += len;
                    }
                }
            });
        }
    }

    /// The label pairs of a series, as [`crate::labels`] lists them.
    pub(crate) fn pair_list(&self, id: SeriesId) -> &[u8] {
        self.series.get(id).map_or(&[], |series| self.arena.get(series.labels))
    }

    /// Appends all codes of a series to `out`, in the order in which they arrived.
    pub(crate) fn copy_codes(&self, series: &Series, out: &mut Vec<u8>) {
        self.slab.copy(series.codes, out);
        put_repeat(out, u32::from(series.codes.repeats));
    }
}

#[cfg(test)]
mod tests;
