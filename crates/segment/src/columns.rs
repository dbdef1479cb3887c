//! What a segment holds, in memory.

use std::collections::HashMap;

use chunk::{SeriesState, measure_code, measure_varint};
use model::{Histogram, Labels, Metadata, MetricKind, Reader, TenantId, TimeRange, TimestampMs};

use crate::SeriesId;
use crate::ids::Ids;
use crate::pairs::Pairs;

/// Sorting pays when the runs of ids are shorter than this on average: below it, ids and a head's scattered nodes
/// cost more than the sort.
const SORT_BELOW_RUN_LEN: u64 = 8;

/// The columns of one segment: new series, samples, metadata. See the crate's page.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    pub(crate) tenants: Vec<TenantId>,
    pub(crate) tenant_numbers: HashMap<TenantId, u32>,
    pub(crate) pairs: Pairs,
    pub(crate) series: Vec<SeriesRow>,
    /// The pairs of all spelled series, one series after the other, by ascending label name.
    pub(crate) series_pairs: Vec<u32>,
    pub(crate) ids: Ids,
    pub(crate) times: Vec<u8>,
    pub(crate) values: Vec<u8>,
    pub(crate) metadata: Vec<MetadataEntry>,
    pub(crate) metadata_bytes: usize,
    pub(crate) samples: u64,
    pub(crate) time_range: Option<TimeRange>,
}

/// A spelled series, as `Columns` keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeriesRow {
    pub(crate) id: SeriesId,
    pub(crate) tenant: u32,
    /// Where its pairs end in `series_pairs`; they begin where the last series' end.
    pub(crate) pairs_end: u32,
}

/// A series that is spelled out: from here to the cut, its id stands for it.
#[derive(Debug, Clone, Copy)]
pub struct SpelledSeries<'a> {
    /// Its id.
    pub id: SeriesId,
    /// Index of its tenant in [`Columns::tenants`].
    pub tenant: u32,
    /// Numbers of its label pairs for [`Columns::pair`], by ascending label name.
    pub pairs: &'a [u32],
}

/// What a sender said of one metric name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataEntry {
    /// Index of the tenant in [`Columns::tenants`].
    pub tenant: u32,
    /// The metric's name.
    pub metric: String,
    /// What was said.
    pub metadata: Metadata,
}

impl Columns {
    /// Columns of an empty segment.
    pub fn new() -> Columns {
        Columns::default()
    }

    /// Spells a series out. Once per cut and series, before its first sample.
    pub fn spell(&mut self, id: SeriesId, tenant: &TenantId, labels: &Labels) {
        let tenant = self.tenant_number(tenant);
        let last_start = match self.series.len() {
            0 | 1 => 0,
            n => self.series[n - 2].pairs_end as usize,
        };
        let last = last_start..self.series_pairs.len();
        let mut reader = Reader::new(labels.as_bytes());
        for position in 0.. {
            let start = reader.offset();
            if reader.is_empty() || reader.bytes().and(reader.bytes()).is_err() {
                break;
            }
            let pair = &labels.as_bytes()[start..reader.offset()];
            // A target's series share most of their labels, at the same places.
            let above = self.series_pairs[last.clone()].get(position).copied();
            let number = match above {
                Some(above) if self.pairs.get(above) == pair => above,
                _ => self.pairs.intern(pair),
            };
            self.series_pairs.push(number);
        }
        self.push_series_row(id, tenant);
    }

    /// Closes the list of pairs that was appended to `series_pairs`.
    pub(crate) fn push_series_row(&mut self, id: SeriesId, tenant: u32) {
        let pairs_end = u32::try_from(self.series_pairs.len()).expect("a segment spells less than 2^32 label pairs");
        self.series.push(SeriesRow { id, tenant, pairs_end });
    }

    /// Appends a float. `state` is the series' since the last cut, whichever segments its samples went to.
    #[inline]
    pub fn push_float(&mut self, id: SeriesId, state: &mut SeriesState, t: TimestampMs, v: f64) {
        state.encode_float(t, v, &mut self.values, &mut self.times);
        self.count(id, t);
    }

    /// Appends a histogram; as [`Columns::push_float`].
    pub fn push_histogram(&mut self, id: SeriesId, state: &mut SeriesState, t: TimestampMs, histogram: &Histogram) {
        state.encode_histogram(t, histogram, &mut self.values, &mut self.times);
        self.count(id, t);
    }

    #[inline]
    fn count(&mut self, id: SeriesId, t: TimestampMs) {
        self.ids.push(id);
        self.samples += 1;
        match &mut self.time_range {
            Some(range) => (range.start, range.end) = (range.start.min(t), range.end.max(t)),
            None => self.time_range = Some(TimeRange { start: t, end: t }),
        }
    }

    /// Keeps what a sender says of a metric; the last word in the writer's segments counts.
    pub fn put_metadata(&mut self, tenant: &TenantId, metric: &str, kind: MetricKind, unit: &str, help: &str) {
        let tenant = self.tenant_number(tenant);
        let metadata = Metadata { kind, unit: unit.to_owned(), help: help.to_owned() };
        self.push_metadata_entry(MetadataEntry { tenant, metric: metric.to_owned(), metadata });
    }

    pub(crate) fn push_metadata_entry(&mut self, entry: MetadataEntry) {
        let texts = entry.metric.len() + entry.metadata.unit.len() + entry.metadata.help.len();
        self.metadata_bytes += size_of::<MetadataEntry>() + texts;
        self.metadata.push(entry);
    }

    fn tenant_number(&mut self, tenant: &TenantId) -> u32 {
        if let Some(last) = self.series.last()
            && self.tenants[last.tenant as usize] == *tenant
        {
            return last.tenant;
        }
        match self.tenant_numbers.get(tenant) {
            Some(&number) => number,
            None => self.push_tenant(tenant.clone()),
        }
    }

    pub(crate) fn push_tenant(&mut self, tenant: TenantId) -> u32 {
        let number = self.tenants.len() as u32;
        self.tenant_numbers.insert(tenant.clone(), number);
        self.tenants.push(tenant);
        number
    }

    /// Orders samples by id if they came in no order; call it once the segment is full.
    ///
    /// Samples of one series keep their order, so it means the same. Does nothing, in no time, for a steady sender's
    /// order. Else it costs some 100 ns a sample, and saves about that in the head and a byte a sample in the object.
    pub fn seal(&mut self) {
        if self.ids.run_count() as u64 * SORT_BELOW_RUN_LEN <= self.samples {
            return;
        }
        let ids = self.ids.runs().flat_map(|run| run.ids());
        let mut order: Vec<(SeriesId, u32, u32)> = Vec::with_capacity(self.samples as usize);
        let (mut value, mut time) = (0, 0);
        for id in ids {
            order.push((id, value as u32, time as u32));
            let (value_len, time_len) = self.measure(value, time);
            (value, time) = (value + value_len, time + time_len);
        }
        // Offsets grow with arrival and never repeat: this is a stable sort by id.
        order.sort_unstable();
        let (mut values, mut times) = (Vec::with_capacity(value), Vec::with_capacity(time));
        let mut sorted = Ids::default();
        for (id, value, time) in order {
            let (value, time) = (value as usize, time as usize);
            let (value_len, time_len) = self.measure(value, time);
            values.extend_from_slice(&self.values[value..value + value_len]);
            times.extend_from_slice(&self.times[time..time + time_len]);
            sorted.push(id);
        }
        (self.ids, self.values, self.times) = (sorted, values, times);
    }

    /// Bytes of the value code and of its time code at these offsets.
    fn measure(&self, value: usize, time: usize) -> (usize, usize) {
        let shape = measure_code(&self.values[value..]).expect("columns hold whole value codes");
        let time_len = match shape.is_timed {
            true => measure_varint(&self.times[time..]).expect("columns hold a time code for each value that says so"),
            false => 0,
        };
        (shape.len, time_len)
    }

    /// About what the segment takes before compression, in bytes; grows with each call that appends.
    pub fn bytes(&self) -> usize {
        self.values.len()
            + self.times.len()
            + self.ids.len_bytes()
            + self.pairs.bytes().len()
            + 2 * self.series_pairs.len()
            + 4 * self.series.len()
            + self.metadata_bytes
    }

    /// Bytes of memory, from capacities.
    pub fn memory_bytes(&self) -> usize {
        self.values.capacity()
            + self.times.capacity()
            + self.ids.memory_bytes()
            + self.pairs.memory_bytes()
            + 4 * self.series_pairs.capacity()
            + size_of::<SeriesRow>() * self.series.capacity()
            + self.metadata_bytes
    }

    /// How many samples.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// From the earliest to the latest sample; `None` if there is none.
    pub fn time_range(&self) -> Option<TimeRange> {
        self.time_range
    }

    /// Whether there is nothing to make durable.
    pub fn is_empty(&self) -> bool {
        self.samples == 0 && self.series.is_empty() && self.metadata.is_empty()
    }

    /// The tenants that spelled series and metadata name by their index.
    pub fn tenants(&self) -> &[TenantId] {
        &self.tenants
    }

    /// How many distinct label pairs there are.
    pub fn pair_count(&self) -> usize {
        self.pairs.len()
    }

    /// Label pair `i` in its canonical bytes (`model::Labels`); panics if there is none.
    pub fn pair(&self, i: u32) -> &[u8] {
        self.pairs.get(i)
    }

    /// The series that are spelled out, in the order in which they came.
    pub fn series(&self) -> impl Iterator<Item = SpelledSeries<'_>> {
        let mut start = 0;
        self.series.iter().map(move |row| {
            let pairs = &self.series_pairs[start..row.pairs_end as usize];
            start = row.pairs_end as usize;
            SpelledSeries { id: row.id, tenant: row.tenant, pairs }
        })
    }

    /// How many series are spelled out.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// The samples' series.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// The value codes of all samples (`chunk`), whole ones, as many as there are ids.
    pub fn values(&self) -> &[u8] {
        &self.values
    }

    /// The time codes of those samples whose value code says that there is one.
    pub fn times(&self) -> &[u8] {
        &self.times
    }

    /// What was said of metrics, in the order in which it came.
    pub fn metadata(&self) -> &[MetadataEntry] {
        &self.metadata
    }
}
