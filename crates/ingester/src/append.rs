//! Append: finds each series of a request its id and adds the samples to the open segment.
//!
//! Everything that can be done without the lock (decoding, hashing, checking histograms) is done before it is taken;
//! one lock a request, so a request lies in one segment whole. Only a series that the table does not know is
//! sorted, checked and interned; one that it knows but has not spelled since the last cut is decoded again from the
//! request at hand, as the table holds no labels.

use std::collections::HashSet;
use std::time::Duration;

use model::{Labels, METRIC_NAME, SegmentNumber, TenantId, TimestampMs};
use proto::{WireLabels, WriteRequest};
use segment::{Columns, SeriesId};
use tokio::sync::oneshot;

use crate::error::{Reason, Rejected};
use crate::route::HashedPart;
use crate::series_table::{SeriesHasher, SeriesTable};
use crate::settings::Limits;

/// Label bytes of a refused series that a report shows.
const DESCRIBED_BYTES_MAX: usize = 200;

/// Metadata rows whose spelling is remembered between two cuts; beyond them rows are written again, which is harmless.
const METADATA_REMEMBERED_MAX: usize = 100_000;

/// A request as it goes under the lock: decoded, hashed, with the times that its samples may have.
pub(crate) struct Prepared<'r, 'a> {
    tenant: &'r TenantId,
    request: &'r WriteRequest<'a>,
    salt: u128,
    /// One a series.
    hashes: Vec<u128>,
    bounds: TimeBounds,
}

/// The times that samples may have at this moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeBounds {
    oldest: TimestampMs,
    newest: TimestampMs,
}

impl TimeBounds {
    /// The bounds at `now_ms`.
    pub(crate) fn new(now_ms: TimestampMs, limits: &Limits) -> TimeBounds {
        let ms = |d: Duration| TimestampMs::try_from(d.as_millis()).unwrap_or(TimestampMs::MAX);
        let oldest = limits.retention.map_or(0, |retention| now_ms.saturating_sub(ms(retention)).max(0));
        TimeBounds { oldest, newest: now_ms.saturating_add(ms(limits.max_future)) }
    }

    /// Why a sample at `t` can't be stored, if it can't.
    #[inline]
    pub(crate) fn refuse(&self, t: TimestampMs) -> Option<Reason> {
        if t > self.newest {
            Some(Reason::MaxFuture)
        } else if t < 0 {
            Some(Reason::BeforeEpoch)
        } else if t < self.oldest {
            Some(Reason::Retention)
        } else {
            None
        }
    }
}

impl<'r, 'a> Prepared<'r, 'a> {
    /// Hashes every series.
    pub(crate) fn new(
        tenant: &'r TenantId,
        request: &'r WriteRequest<'a>,
        hasher: &SeriesHasher,
        bounds: TimeBounds,
    ) -> Prepared<'r, 'a> {
        let salt = hasher.salt(tenant);
        let hashes = request.series.iter().map(|series| hasher.hash_wire(salt, &series.labels)).collect();
        Prepared { tenant, request, salt, hashes, bounds }
    }
}

/// What became of a request under the lock.
#[derive(Debug, Default)]
pub(crate) struct Appended {
    /// Samples that are in the open segment now.
    pub samples: u64,
    /// Samples that never will be.
    pub rejected: Rejected,
    /// Series that were not taken in for want of memory: their places in the request, ascending.
    pub without_room: Vec<u32>,
    /// Whether anything was added, so that the waiter will be told.
    pub waits: bool,
}

/// Told when the segment that holds a request is committed and taken in, or dropped if it never will be.
pub(crate) type Waiter = oneshot::Sender<()>;

/// A sealed segment, with those who wait for it.
pub(crate) struct Sealed {
    pub n: SegmentNumber,
    pub columns: Columns,
    pub waiters: Vec<Waiter>,
    /// Whether it is the last below a cut point: what follows spells its series anew.
    pub is_cut_point: bool,
    /// Whether it is the first above one, or the writer's first.
    pub first_after_cut: bool,
}

/// The open segment and the table of series: what a writer's one lock guards.
pub(crate) struct Appender {
    hasher: SeriesHasher,
    table: SeriesTable,
    open: Columns,
    waiters: Vec<Waiter>,
    sealed: SegmentNumber,
    first_after_cut: bool,
    /// The next seal is to be a cut point.
    cut_wanted: bool,
    metadata: HashSet<u128>,
    closed: bool,
}

impl Appender {
    /// Of a new writer.
    pub(crate) fn new(hasher: SeriesHasher) -> Appender {
        Appender {
            hasher,
            table: SeriesTable::default(),
            open: Columns::new(),
            waiters: Vec::new(),
            sealed: 0,
            first_after_cut: true,
            cut_wanted: false,
            metadata: HashSet::new(),
            closed: false,
        }
    }

    /// Bytes of the open segment; 0 if nothing is open.
    pub(crate) fn open_bytes(&self) -> usize {
        if self.open.is_empty() { 0 } else { self.open.bytes().max(1) }
    }

    /// Bytes of the table of series.
    pub(crate) fn table_bytes(&self) -> usize {
        self.table.memory_bytes()
    }

    /// Series that the table knows.
    pub(crate) fn table_series(&self) -> usize {
        self.table.len()
    }

    /// Takes no more requests.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether requests are taken.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Adds a request to the open segment. `waiter` hears when all that was added is durable and visible.
    pub(crate) fn append(
        &mut self,
        prepared: &Prepared<'_, '_>,
        limits: &Limits,
        room_for_series: bool,
        waiter: Waiter,
    ) -> Appended {
        let mut appended = Appended::default();
        let mut after = None;
        let request = prepared.request;
        for (place, (series, &hash)) in (0..).zip(request.series.iter().zip(&prepared.hashes)) {
            let samples = (series.samples.len() + series.histograms.len()) as u64;
            if samples == 0 {
                continue;
            }
            let found = match self.table.find(after, hash) {
                Some(id) => Ok(id),
                None => self.admit(prepared, &series.labels, hash, limits, room_for_series),
            };
            let spelled = found.and_then(|id| self.spell(id, prepared.tenant, &series.labels).map(|()| id));
            match spelled {
                Ok(id) => {
                    after = Some(id);
                    self.append_series(id, prepared, series, &mut appended);
                }
                Err(Refusal::NoRoom) => appended.without_room.push(place),
                Err(Refusal::Invalid(reason, why)) => {
                    appended.rejected.add(reason, samples, || format!("{}: {why}", describe(&series.labels)));
                }
            }
        }
        let metadata = self.append_metadata(prepared);
        if appended.samples > 0 || metadata {
            self.waiters.push(waiter);
            appended.waits = true;
        }
        appended
    }

    /// Adds a part whose series are named by their hashes, all of it or nothing: `None` if a series is not known, or was not
    /// spelled since the cut, for which its labels are needed. The caller has looked at the times.
    pub(crate) fn append_hashed(&mut self, part: &HashedPart, waiter: Waiter) -> Option<Appended> {
        let mut ids: Vec<SeriesId> = Vec::with_capacity(part.series.len());
        for (hash, _) in &part.series {
            let id = self.table.find(ids.last().copied(), *hash)?;
            if !self.table.is_spelled(id) {
                return None;
            }
            ids.push(id);
        }
        for (&id, (_, samples)) in ids.iter().zip(&part.series) {
            let state = self.table.state(id);
            for &(t, v) in &part.samples[range(samples)] {
                self.open.push_float(id, state, t, v);
            }
        }
        let waits = !part.samples.is_empty();
        if waits {
            self.waiters.push(waiter);
        }
        Some(Appended { samples: part.samples.len() as u64, waits, ..Appended::default() })
    }

    /// Spells a series out if it was not since the cut.
    fn spell(&mut self, id: SeriesId, tenant: &TenantId, wire: &WireLabels<'_>) -> Result<(), Refusal> {
        if !self.table.is_spelled(id) {
            // Valid when it was admitted; should it not be any more, the sender is told, and nothing is lost in silence.
            let labels = decode_labels(wire)?;
            self.table.set_spelled(id);
            self.open.spell(id, tenant, &labels);
        }
        Ok(())
    }

    fn append_series(
        &mut self,
        id: SeriesId,
        prepared: &Prepared<'_, '_>,
        series: &proto::TimeSeries<'_>,
        appended: &mut Appended,
    ) {
        let state = self.table.state(id);
        let request = prepared.request;
        for &(t, v) in &request.samples[range(&series.samples)] {
            match prepared.bounds.refuse(t) {
                None => {
                    self.open.push_float(id, state, t, v);
                    appended.samples += 1;
                }
                Some(reason) => appended.rejected.add(reason, 1, || describe_time(&series.labels, t, reason)),
            }
        }
        for (t, histogram) in &request.histograms[range(&series.histograms)] {
            match (prepared.bounds.refuse(*t), histogram.validate()) {
                (None, Ok(())) => {
                    self.open.push_histogram(id, state, *t, histogram);
                    appended.samples += 1;
                }
                (Some(reason), _) => appended.rejected.add(reason, 1, || describe_time(&series.labels, *t, reason)),
                (None, Err(why)) => {
                    let line = || format!("{}: {why}", describe(&series.labels));
                    appended.rejected.add(Reason::InvalidHistogram, 1, line);
                }
            }
        }
    }

    /// Finds a series that is not known by this spelling: checks it, and takes it in if it is new.
    fn admit(
        &mut self,
        prepared: &Prepared<'_, '_>,
        wire: &WireLabels<'_>,
        hash: u128,
        limits: &Limits,
        room_for_series: bool,
    ) -> Result<SeriesId, Refusal> {
        let labels = decode_labels(wire)?;
        check_labels(&labels, limits)?;
        let canonical = self.hasher.hash_labels(prepared.salt, &labels);
        if canonical != hash
            && let Some(id) = self.table.find(None, canonical)
        {
            self.table.insert_alias(hash, id);
            return Ok(id);
        }
        if !room_for_series {
            return Err(Refusal::NoRoom);
        }
        let id = self.table.insert(canonical);
        if canonical != hash {
            self.table.insert_alias(hash, id);
        }
        Ok(id)
    }

    fn append_metadata(&mut self, prepared: &Prepared<'_, '_>) -> bool {
        let mut added = false;
        for row in &prepared.request.metadata {
            let mut key = Vec::new();
            key.push(row.kind as u8);
            for part in [row.metric, row.unit, row.help] {
                key.extend_from_slice(&(part.len() as u64).to_le_bytes());
                key.extend_from_slice(part.as_bytes());
            }
            let hash = self.hasher.hash(prepared.salt, &key);
            if self.metadata.contains(&hash) {
                continue;
            }
            if self.metadata.len() < METADATA_REMEMBERED_MAX {
                self.metadata.insert(hash);
            }
            self.open.put_metadata(prepared.tenant, row.metric, row.kind, row.unit, row.help);
            added = true;
        }
        added
    }

    /// Begins anew for the next writer of this process: its first segment is 1, and spells every series.
    ///
    /// What is open is dropped, and with it those who wait for it: they are answered 503.
    pub(crate) fn start_over(&mut self) {
        self.open = Columns::new();
        self.waiters.clear();
        self.sealed = 0;
        self.first_after_cut = true;
        self.cut_wanted = false;
        self.start_generation();
    }

    /// Closes the open segment under the next number.
    pub(crate) fn seal(&mut self) -> Sealed {
        self.sealed += 1;
        let is_cut_point = std::mem::take(&mut self.cut_wanted);
        let sealed = Sealed {
            n: self.sealed,
            columns: std::mem::take(&mut self.open),
            waiters: std::mem::take(&mut self.waiters),
            is_cut_point,
            first_after_cut: std::mem::replace(&mut self.first_after_cut, is_cut_point),
        };
        if is_cut_point {
            self.start_generation();
        }
        sealed
    }

    /// Sets a cut point between two seals: at once if nothing is open, and then returns it; else the next seal is one.
    pub(crate) fn point(&mut self) -> Option<SegmentNumber> {
        if self.open_bytes() > 0 {
            self.cut_wanted = true;
            return None;
        }
        self.first_after_cut = true;
        self.start_generation();
        Some(self.sealed)
    }

    fn start_generation(&mut self) {
        self.table.start_generation();
        self.metadata.clear();
    }
}

/// Where a series' samples are in the columns of its request.
pub(crate) fn range(range: &std::ops::Range<u32>) -> std::ops::Range<usize> {
    range.start as usize..range.end as usize
}

/// Why a series is not taken in.
enum Refusal {
    NoRoom,
    Invalid(Reason, String),
}

fn decode_labels(wire: &WireLabels<'_>) -> Result<Labels, Refusal> {
    let mut pairs = Vec::with_capacity(16);
    for (name, value) in wire.iter() {
        match (std::str::from_utf8(name), std::str::from_utf8(value)) {
            (Ok(name), Ok(value)) => pairs.push((name, value)),
            _ => return Err(Refusal::Invalid(Reason::LabelsNotUtf8, "a label is not UTF-8".to_owned())),
        }
    }
    Labels::from_pairs(pairs).map_err(|e| Refusal::Invalid(Reason::InvalidLabels, e.to_string()))
}

fn check_labels(labels: &Labels, limits: &Limits) -> Result<(), Refusal> {
    if labels.get(METRIC_NAME).is_none() {
        let why = "the series has no metric name (__name__)";
        return Err(Refusal::Invalid(Reason::MissingMetricName, why.to_owned()));
    }
    let count = labels.len();
    if count > limits.max_labels_per_series {
        let max = limits.max_labels_per_series;
        let why = format!(
            "{count} labels, the limit is {max} (max-labels-per-series). Raise --ingester.max-labels-per-series."
        );
        return Err(Refusal::Invalid(Reason::MaxLabelsPerSeries, why));
    }
    for (name, value) in labels.iter() {
        if name.len() > limits.max_label_name_bytes {
            let (len, max) = (name.len(), limits.max_label_name_bytes);
            let why = format!(
                "a label name of {len} bytes, the limit is {max} (max-label-name-bytes). Raise --ingester.max-label-name-bytes."
            );
            return Err(Refusal::Invalid(Reason::MaxLabelNameBytes, why));
        }
        if value.len() > limits.max_label_value_bytes {
            let (len, max) = (value.len(), limits.max_label_value_bytes);
            let why = format!(
                "label {name:?} has a value of {len} bytes, the limit is {max} (max-label-value-bytes). \
                 Raise --ingester.max-label-value-bytes."
            );
            return Err(Refusal::Invalid(Reason::MaxLabelValueBytes, why));
        }
    }
    Ok(())
}

/// The labels as they were sent, shortened.
fn describe(wire: &WireLabels<'_>) -> String {
    let mut text = String::from("{");
    for (name, value) in wire.iter() {
        if text.len() > DESCRIBED_BYTES_MAX {
            text.push('…');
            break;
        }
        let cut = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(DESCRIBED_BYTES_MAX)]).into_owned();
        if text.len() > 1 {
            text.push_str(", ");
        }
        text.push_str(&format!("{}={:?}", cut(name), cut(value)));
    }
    text.push('}');
    text
}

fn describe_time(wire: &WireLabels<'_>, t: TimestampMs, reason: Reason) -> String {
    let why = match reason {
        Reason::BeforeEpoch => "is before 1970",
        Reason::Retention => "is older than the retention (--retention)",
        _ => "is more than 10 min (max-future) ahead of this node's clock",
    };
    format!("{}: timestamp {t} ms {why}", describe(wire))
}
