//! What queries ask of a head: samples, series, label names and values, metadata.

use std::collections::VecDeque;
use std::sync::Arc;

use chunk::Decoder;
use model::{DecodeError, Labels, Matcher, Metadata, Samples, SegmentNumber, TenantId, TimeRange};
use segment::{Ids, SeriesId};

use crate::arrivals::count_arrivals;
use crate::error::HeadError;
use crate::head::Head;
use crate::labels::TenantLabels;

/// Bytes of copied codes in one buffer: freed one by one while a selection is decoded.
const BUFFER_BYTES: usize = 1 << 18;

impl Head {
    /// Copies labels and codes of the series that satisfy every matcher, as they were after segment `upto`.
    ///
    /// Quick, as it is called under the owner's shared lock: some hundred ns a series, whatever its samples. Samples
    /// are decoded by [`HeadSelection::decode`], outside the lock. Without matchers it is every series of the tenant.
    ///
    /// Errors: `Behind` if `upto` is yet to come, `PlanAgain` if it is older than what the head remembers.
    pub fn select(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        upto: SegmentNumber,
    ) -> Result<HeadSelection, HeadError> {
        let applied = self.applied();
        if upto > applied {
            return Err(HeadError::Behind { applied, upto });
        }
        let after = if upto < self.cut() { None } else { self.arrivals.after(upto, applied) };
        let later = after.ok_or(HeadError::PlanAgain { applied, upto })?;
        let mut selection = HeadSelection { range, later, entries: Vec::new(), buffers: VecDeque::new() };
        let Some((labels, ids)) = self.matching(tenant, matchers, range) else {
            return Ok(selection);
        };
        selection.entries.reserve_exact(ids.len());
        for id in ids {
            let Some(series) = self.series.get(id) else { continue };
            let buffer = match selection.buffers.back_mut() {
                Some(buffer) if buffer.len() < BUFFER_BYTES => buffer,
                _ => selection.buffers.push_back_mut(Vec::new()),
            };
            labels.put_labels(self.arena.get(series.labels), &self.arena, buffer);
            let labels_end = buffer.len() as u32;
            self.copy_codes(series, buffer);
            selection.entries.push(Entry { id, labels_end, codes_end: buffer.len() as u32 });
        }
        Ok(selection)
    }

    /// The label sets of the series that satisfy every matcher and have a sample in `range`, in no order.
    ///
    /// Decodes samples only if the head reaches out of `range`, and then until the first one inside.
    pub fn series(&self, tenant: &TenantId, matchers: &[Matcher], range: TimeRange) -> Vec<Labels> {
        let Some((labels, ids)) = self.matching(tenant, matchers, range) else {
            return Vec::new();
        };
        let covers = self.time_range.is_some_and(|all| range.start <= all.start && all.end <= range.end);
        let mut codes = Vec::new();
        let found = ids.into_iter().filter_map(|id| self.series.get(id)).filter(|series| {
            if covers {
                return !series.codes.is_empty();
            }
            codes.clear();
            self.copy_codes(series, &mut codes);
            has_sample_in(&codes, range)
        });
        let mut scratch = Vec::new();
        found.map(|series| labels.labels(self.arena.get(series.labels), &self.arena, &mut scratch)).collect()
    }

    /// The label names of the series that satisfy every matcher, sorted; none if no sample of the head is in `range`.
    ///
    /// As in Prometheus, a single series is not asked for its times.
    pub fn label_names(&self, tenant: &TenantId, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
        let Some((labels, ids)) = self.matching_unless_all(tenant, matchers, range) else {
            return Vec::new();
        };
        let lists = ids.as_ref().map(|ids| ids.iter().map(|&id| self.pair_list(id)));
        labels.label_names(lists, &self.arena)
    }

    /// The values of label `name` on the series that satisfy every matcher, sorted; otherwise as [`Head::label_names`].
    pub fn label_values(&self, tenant: &TenantId, name: &str, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
        let Some((labels, ids)) = self.matching_unless_all(tenant, matchers, range) else {
            return Vec::new();
        };
        let lists = ids.as_ref().map(|ids| ids.iter().map(|&id| self.pair_list(id)));
        labels.label_values(name, lists, &self.arena)
    }

    /// What senders said of the tenant's metrics, by name, ascending.
    pub fn metadata(&self, tenant: &TenantId) -> impl Iterator<Item = (&str, &Metadata)> {
        let labels = self.tenant_labels(tenant);
        labels.into_iter().flat_map(|labels| labels.metadata.iter().map(|(metric, known)| (metric.as_str(), known)))
    }

    /// The tenants that have series or metadata here, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.tenants.iter().map(|labels| &labels.tenant)
    }

    fn tenant_labels(&self, tenant: &TenantId) -> Option<&TenantLabels> {
        self.tenant_numbers.get(tenant).map(|&number| &self.tenants[number as usize])
    }

    /// The series that satisfy every matcher, if the tenant is known and the head has samples in `range` at all.
    fn matching(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Option<(&TenantLabels, Vec<SeriesId>)> {
        self.time_range.filter(|all| all.overlaps(&range))?;
        let labels = self.tenant_labels(tenant)?;
        Some((labels, labels.select(matchers, &self.arena, &self.slab, |id| self.pair_list(id))))
    }

    /// As [`Head::matching`], but `None` in place of a list of all series.
    fn matching_unless_all(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Option<(&TenantLabels, Option<Vec<SeriesId>>)> {
        if matchers.is_empty() {
            self.time_range.filter(|all| all.overlaps(&range))?;
            return Some((self.tenant_labels(tenant)?, None));
        }
        self.matching(tenant, matchers, range).map(|(labels, ids)| (labels, Some(ids)))
    }
}

fn has_sample_in(codes: &[u8], range: TimeRange) -> bool {
    let mut decoder = Decoder::new(codes);
    while let Ok(Some((t, _))) = decoder.next_sample() {
        if range.contains(t) {
            return true;
        }
    }
    false
}

/// Labels and codes of the series that a query asked for, copied from a head.
#[derive(Debug)]
pub struct HeadSelection {
    range: TimeRange,
    /// The ids of the segments that came later than the query's plan.
    later: Vec<Arc<Ids>>,
    entries: Vec<Entry>,
    /// Labels and codes of each entry in turn; an entry begins a new buffer if the last one is full.
    buffers: VecDeque<Vec<u8>>,
}

/// One series of a selection: where its labels and codes end in its buffer.
#[derive(Debug, Clone, Copy)]
struct Entry {
    id: SeriesId,
    labels_end: u32,
    codes_end: u32,
}

impl HeadSelection {
    /// How many series were copied; those without a sample in the range are not told apart yet.
    pub fn series_count(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        self.buffers.iter().map(Vec::capacity).sum::<usize>() + self.entries.capacity() * size_of::<Entry>()
    }

    /// The series with their samples, one at a time: sorted, merged, within the range; empty ones are left out.
    ///
    /// Series come in no order. Samples that arrived after the plan are left out. Memory falls as it goes on.
    pub fn decode(self) -> SelectedSeries {
        let mut order: Vec<u32> = Vec::new();
        let mut late = Vec::new();
        if !self.later.is_empty() {
            order.extend(0..self.entries.len() as u32);
            order.sort_unstable_by_key(|&i| self.entries[i as usize].id);
            let ids: Vec<SeriesId> = order.iter().map(|&i| self.entries[i as usize].id).collect();
            late.resize(self.entries.len(), 0);
            for (&i, count) in order.iter().zip(count_arrivals(&self.later, &ids)) {
                late[i as usize] = count;
            }
        }
        SelectedSeries { selection: self, late, next: 0, offset: 0, scratch: Samples::default() }
    }
}

/// See [`HeadSelection::decode`].
#[derive(Debug)]
pub struct SelectedSeries {
    selection: HeadSelection,
    /// For each entry, how many of its last arrivals came after the plan; empty if there are none.
    late: Vec<u32>,
    next: usize,
    /// Where the next entry begins in the first buffer.
    offset: usize,
    scratch: Samples,
}

impl Iterator for SelectedSeries {
    type Item = Result<(Labels, Samples), HeadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(&entry) = self.selection.entries.get(self.next) {
            let late = self.late.get(self.next).copied().unwrap_or(0);
            self.next += 1;
            if self.selection.buffers.front().is_some_and(|buffer| self.offset == buffer.len()) {
                self.selection.buffers.pop_front();
                self.offset = 0;
            }
            let buffer = self.selection.buffers.front()?;
            let labels = &buffer[self.offset..entry.labels_end as usize];
            let codes = &buffer[entry.labels_end as usize..entry.codes_end as usize];
            self.offset = entry.codes_end as usize;
            match decode_samples(codes, late, self.selection.range, &mut self.scratch) {
                Ok(None) => {}
                Ok(Some(samples)) => {
                    return Some(Ok((Labels::from_canonical(labels), samples)));
                }
                Err(source) => return Some(Err(HeadError::Codes { id: entry.id, source })),
            }
        }
        None
    }
}

/// Decodes a series but for its `late` last samples; `None` if nothing is left within `range`.
///
/// What it returns is as long as it needs to be: a query may hold very many of them.
pub(crate) fn decode_samples(
    codes: &[u8],
    late: u32,
    range: TimeRange,
    scratch: &mut Samples,
) -> Result<Option<Samples>, DecodeError> {
    scratch.truncate(0);
    Decoder::new(codes).decode_into(scratch)?;
    scratch.truncate(scratch.len().saturating_sub(late as usize));
    scratch.sort_and_merge();
    scratch.clip(range);
    Ok((!scratch.is_empty()).then(|| scratch.clone()))
}
