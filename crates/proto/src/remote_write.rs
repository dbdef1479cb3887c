//! Decodes a remote-write 1.0 request: docs/formats/remote-write.md.
//!
//! One walk over the decompressed body (and a glance ahead, which counts the series). The result borrows
//! the body: labels stay where they lie on the wire, so that the ingester can hash and compare them there;
//! floats and histograms go to two flat columns. Nothing is allocated a label or a sample.
//! (Tried: `prost` structs take 760 to 980 ns and 18 allocations a sample, this walk some 30.)
//!
//! The whole body is checked before the caller sees any of it. What a *series* may be (its labels' UTF-8,
//! names, order, a histogram that adds up) is the ingester's to judge: one bad series must not cost the rest.

use std::ops::Range;

use model::{Histogram, MetricKind};

use crate::error::ProtoError;
use crate::histogram::decode_histogram;
use crate::wire::{FIXED64, Fields, LENGTH, VARINT};

/// What a decoded request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes of memory for all columns together, histograms' buckets included.
    ///
    /// Two bytes on the wire can say a sample (16 bytes here) or an empty histogram (200), so this is a limit of
    /// its own beside that of the body. The default of 64 MiB holds any 32 MiB body of ordinary float series.
    pub result_bytes_max: usize,
}

impl Default for DecodeLimits {
    fn default() -> DecodeLimits {
        DecodeLimits { result_bytes_max: 64 << 20 }
    }
}

/// A decoded request: series that point into flat columns of samples.
#[derive(Debug, Default)]
pub struct WriteRequest<'a> {
    /// The series in the sender's order, each with at least one sample; those without any are left out.
    pub series: Vec<TimeSeries<'a>>,
    /// Float samples (milliseconds, value) in the order they were sent.
    pub samples: Vec<(i64, f64)>,
    /// Native histograms (milliseconds, histogram), not yet validated.
    pub histograms: Vec<(i64, Histogram)>,
    /// Exemplars there were; they are checked for form and passed over.
    pub exemplars: u64,
    /// Metadata in the order they were sent.
    pub metadata: Vec<MetadataRef<'a>>,
    /// Metadata left out because they name no metric or are not UTF-8.
    pub metadata_refused: u64,
}

/// One series of a request.
#[derive(Debug, Clone)]
pub struct TimeSeries<'a> {
    /// The whole of it as it lies on the wire: what its field of the request holds. [`crate::put_series`] writes it again.
    pub wire: &'a [u8],
    /// Its labels, as they lie on the wire.
    pub labels: WireLabels<'a>,
    /// Its floats: where in [`WriteRequest::samples`].
    pub samples: Range<u32>,
    /// Its histograms: where in [`WriteRequest::histograms`].
    pub histograms: Range<u32>,
}

/// What a sender says about a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataRef<'a> {
    /// The whole of it as it lies on the wire. [`crate::put_metadata`] writes it again.
    pub wire: &'a [u8],
    /// Counter, gauge …; unknown numbers are [`MetricKind::Unknown`].
    pub kind: MetricKind,
    /// The metric (family) it is about; never empty.
    pub metric: &'a str,
    /// Its unit, or "".
    pub unit: &'a str,
    /// Its help text, or "".
    pub help: &'a str,
}

/// The labels of a series as they lie on the wire, checked for form and nothing else: they may be unsorted,
/// repeated, empty, or not UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct WireLabels<'a> {
    /// From the first label's tag to the last label's end.
    fields: &'a [u8],
    /// Whether there is nothing but labels in `fields`.
    is_contiguous: bool,
}

impl<'a> WireLabels<'a> {
    /// All Label fields of the series as they lie on the wire, tags and lengths included, if they lie together.
    ///
    /// Every known sender writes them so; equal to what [`crate::put_wire_labels`] makes if it also sorts them.
    #[inline]
    pub fn as_contiguous(&self) -> Option<&'a [u8]> {
        self.is_contiguous.then_some(self.fields)
    }

    /// The labels' names and values, in the order they were sent.
    pub fn iter(&self) -> WireLabelsIter<'a> {
        WireLabelsIter { fields: Fields::new(self.fields) }
    }
}

/// Walks the labels of a series; see [`WireLabels::iter`].
#[derive(Debug, Clone)]
pub struct WireLabelsIter<'a> {
    fields: Fields<'a>,
}

impl<'a> Iterator for WireLabelsIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        // The walk of decode_write_request has seen every one of these fields, so no error can come up here.
        while let Ok(Some((field, wire_type))) = self.fields.tag() {
            if (field, wire_type) == (time_series::LABELS, LENGTH) {
                return decode_label(self.fields.nested().ok()?).ok();
            }
            self.fields.skip(field, wire_type).ok()?;
        }
        None
    }
}

/// Fields of `WriteRequest`.
pub(crate) mod write_request {
    pub(crate) const TIMESERIES: u32 = 1;
    pub(crate) const METADATA: u32 = 3;
    pub(super) const KNOWN: &[u32] = &[TIMESERIES, METADATA];
}

/// Fields of `TimeSeries`.
pub(crate) mod time_series {
    pub(crate) const LABELS: u32 = 1;
    pub(crate) const SAMPLES: u32 = 2;
    pub(crate) const EXEMPLARS: u32 = 3;
    pub(crate) const HISTOGRAMS: u32 = 4;
    pub(super) const KNOWN: &[u32] = &[LABELS, SAMPLES, EXEMPLARS, HISTOGRAMS];
}

/// Decodes a decompressed body.
///
/// Costs one walk and a handful of allocations whatever the body holds. Unknown fields are skipped; of a field
/// given twice that is to be there once the last counts, as protobuf has it.
///
/// Errors: `Malformed` for bytes that are not this message (wrong wire types, lengths past the end, overlong
/// varints); `ResultTooLarge` if the columns would outgrow `limits`.
pub fn decode_write_request<'a>(bytes: &'a [u8], limits: &DecodeLimits) -> Result<WriteRequest<'a>, ProtoError> {
    let mut memory = Memory { left: limits.result_bytes_max, limit: limits.result_bytes_max };
    let mut request = WriteRequest::default();
    let series = count_series(bytes)?;
    memory.reserve(&mut request.series, series)?;
    memory.reserve(&mut request.samples, series)?;

    let mut fields = Fields::new(bytes);
    while let Some(tag) = fields.tag()? {
        match tag {
            (write_request::TIMESERIES, LENGTH) => decode_series(fields.nested()?, &mut request, &mut memory)?,
            (write_request::METADATA, LENGTH) => match decode_metadata(fields.nested()?)? {
                Some(metadata) => memory.push(&mut request.metadata, metadata)?,
                None => request.metadata_refused += 1,
            },
            (field, wire_type) => fields.skip_unknown(field, wire_type, write_request::KNOWN)?,
        }
    }
    Ok(request)
}

/// Counts the series, so that columns are allocated once and a body of millions of empty ones is refused first.
fn count_series(bytes: &[u8]) -> Result<usize, ProtoError> {
    let mut series = 0;
    let mut fields = Fields::new(bytes);
    while let Some((field, wire_type)) = fields.tag()? {
        series += usize::from(field == write_request::TIMESERIES);
        fields.skip(field, wire_type)?;
    }
    Ok(series)
}

fn decode_series<'a>(
    mut fields: Fields<'a>,
    request: &mut WriteRequest<'a>,
    memory: &mut Memory,
) -> Result<(), ProtoError> {
    let (first_sample, first_histogram) = (request.samples.len() as u32, request.histograms.len() as u32);
    let start = fields.rest();
    let origin = fields.position();
    let (mut labels, mut label_bytes) = (0..0, 0);
    loop {
        let field_start = fields.position();
        while let Some(bytes) = plain_label_bytes(fields.rest()) {
            fields.advance(bytes);
        }
        if fields.position() == field_start {
            if let Some((bytes, sample)) = split_plain_sample(fields.rest()) {
                fields.advance(bytes);
                memory.push(&mut request.samples, sample)?;
                continue;
            }
            let Some(tag) = fields.tag()? else { break };
            if tag != (time_series::LABELS, LENGTH) {
                decode_series_field(tag, &mut fields, request, memory)?;
                continue;
            }
            decode_odd_label(fields.nested()?)?;
        }
        if label_bytes == 0 {
            labels.start = field_start - origin;
        }
        labels.end = fields.position() - origin;
        label_bytes += fields.position() - field_start;
    }
    let samples = first_sample..request.samples.len() as u32;
    let histograms = first_histogram..request.histograms.len() as u32;
    if !samples.is_empty() || !histograms.is_empty() {
        let is_contiguous = label_bytes == labels.len();
        let labels = WireLabels { fields: &start[labels], is_contiguous };
        memory.push(&mut request.series, TimeSeries { wire: start, labels, samples, histograms })?;
    }
    Ok(())
}

/// A field of a series other than a label.
fn decode_series_field<'a>(
    tag: (u32, u8),
    fields: &mut Fields<'a>,
    request: &mut WriteRequest<'a>,
    memory: &mut Memory,
) -> Result<(), ProtoError> {
    match tag {
        (time_series::SAMPLES, LENGTH) => memory.push(&mut request.samples, decode_sample(fields.nested()?)?)?,
        (time_series::HISTOGRAMS, LENGTH) => {
            let histogram = decode_histogram(fields.nested()?, memory)?;
            memory.push(&mut request.histograms, histogram)?;
        }
        (time_series::EXEMPLARS, LENGTH) => {
            check_exemplar(fields.nested()?)?;
            request.exemplars += 1;
        }
        (field, wire_type) => fields.skip_unknown(field, wire_type, time_series::KNOWN)?,
    }
    Ok(())
}

/// A label's name and value; either is empty if it is not given.
#[inline]
fn decode_label(label: Fields<'_>) -> Result<(&[u8], &[u8]), ProtoError> {
    match split_plain_label(label.rest()) {
        Some(pair) => Ok(pair),
        None => decode_odd_label(label),
    }
}

/// What nearly every label is: a name and then a value, each shorter than 128 bytes. The general walk, with an error
/// at each step, takes four times as long.
#[inline]
fn split_plain_label(label: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[tag, length], rest) = label.split_first_chunk::<2>()?;
    if tag != 0x0a || length >= 0x80 {
        return None;
    }
    let (name, rest) = rest.split_at_checked(usize::from(length))?;
    let (&[tag, length], value) = rest.split_first_chunk::<2>()?;
    (tag == 0x12 && length < 0x80 && usize::from(length) == value.len()).then_some((name, value))
}

/// How long the Label field at the front of a series is, if it is a plain one.
#[inline]
fn plain_label_bytes(series: &[u8]) -> Option<usize> {
    let (&[tag, length], rest) = series.split_first_chunk::<2>()?;
    if tag != 0x0a || length >= 0x80 {
        return None;
    }
    split_plain_label(rest.get(..usize::from(length))?)?;
    Some(2 + usize::from(length))
}

/// The Sample field at the front of a series and its length, if it is what nearly every sample is: value and then time.
#[inline]
fn split_plain_sample(series: &[u8]) -> Option<(usize, (i64, f64))> {
    let (&[tag, length, value_tag], rest) = series.split_first_chunk::<3>()?;
    let (value, rest) = rest.split_first_chunk::<8>()?;
    let (&time_tag, rest) = rest.split_first()?;
    // Up to nine bytes: 63 bits, so nothing is cut off. Later than that, or before 1970, is for the general walk.
    let time_bytes = usize::from(length).checked_sub(10)?;
    if (tag, value_tag, time_tag) != (0x12, 0x09, 0x10) || !(1..=9).contains(&time_bytes) {
        return None;
    }
    let mut t = 0;
    for (i, &byte) in rest.get(..time_bytes)?.iter().enumerate() {
        if (byte < 0x80) != (i + 1 == time_bytes) {
            return None;
        }
        t |= i64::from(byte & 0x7f) << (7 * i);
    }
    Some((12 + time_bytes, (t, f64::from_bits(u64::from_le_bytes(*value)))))
}

fn decode_odd_label(mut fields: Fields<'_>) -> Result<(&[u8], &[u8]), ProtoError> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    while let Some(tag) = fields.tag()? {
        match tag {
            (1, LENGTH) => name = fields.nested()?.rest(),
            (2, LENGTH) => value = fields.nested()?.rest(),
            (field, wire_type) => fields.skip_unknown(field, wire_type, &[1, 2])?,
        }
    }
    Ok((name, value))
}

#[inline]
fn decode_sample(mut fields: Fields<'_>) -> Result<(i64, f64), ProtoError> {
    let (mut t, mut v) = (0, 0.0);
    while let Some(tag) = fields.tag()? {
        match tag {
            (1, FIXED64) => v = fields.f64()?,
            (2, VARINT) => t = fields.varint()? as i64,
            (field, wire_type) => fields.skip_unknown(field, wire_type, &[1, 2])?,
        }
    }
    Ok((t, v))
}

fn check_exemplar(mut fields: Fields<'_>) -> Result<(), ProtoError> {
    while let Some(tag) = fields.tag()? {
        match tag {
            (1, LENGTH) => {
                decode_label(fields.nested()?)?;
            }
            (2, FIXED64) => {
                fields.f64()?;
            }
            (3, VARINT) => {
                fields.varint()?;
            }
            (field, wire_type) => fields.skip_unknown(field, wire_type, &[1, 2, 3])?,
        }
    }
    Ok(())
}

/// `None` if it says nothing that could be kept; metadata are hints, and not worth refusing samples for.
fn decode_metadata(mut fields: Fields<'_>) -> Result<Option<MetadataRef<'_>>, ProtoError> {
    let wire = fields.rest();
    let mut kind = 0;
    let [mut metric, mut help, mut unit]: [&[u8]; 3] = [&[]; 3];
    while let Some(tag) = fields.tag()? {
        match tag {
            (1, VARINT) => kind = fields.varint()?,
            (2, LENGTH) => metric = fields.nested()?.rest(),
            (4, LENGTH) => help = fields.nested()?.rest(),
            (5, LENGTH) => unit = fields.nested()?.rest(),
            (field, wire_type) => fields.skip_unknown(field, wire_type, &[1, 2, 4, 5])?,
        }
    }
    let texts = (std::str::from_utf8(metric), std::str::from_utf8(help), std::str::from_utf8(unit));
    let (Ok(metric), Ok(help), Ok(unit)) = texts else { return Ok(None) };
    if metric.is_empty() {
        return Ok(None);
    }
    Ok(Some(MetadataRef { wire, kind: MetricKind::from_number(kind).unwrap_or_default(), metric, unit, help }))
}

/// Counts down the memory that the columns take: by capacity, before it is allocated.
#[derive(Debug)]
pub(crate) struct Memory {
    left: usize,
    limit: usize,
}

impl Memory {
    fn take(&mut self, bytes: usize) -> Result<(), ProtoError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(ProtoError::ResultTooLarge { limit: self.limit }),
        }
    }

    fn reserve<T>(&mut self, list: &mut Vec<T>, more: usize) -> Result<(), ProtoError> {
        self.take(more.saturating_mul(size_of::<T>()))?;
        list.reserve_exact(more);
        Ok(())
    }

    /// Appends to a column, doubling it when it is full.
    #[inline]
    pub(crate) fn push<T>(&mut self, list: &mut Vec<T>, item: T) -> Result<(), ProtoError> {
        if list.len() == list.capacity() {
            self.reserve(list, list.len().max(4))?;
        }
        list.push(item);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
