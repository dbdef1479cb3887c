//! Encodes remote-write 1.0 requests, for tests and tools, and the canonical wire form of labels.
//!
//! Writes what Prometheus writes: labels, samples, histograms in field order, scalars packed, no field
//! that has its default.

use model::{CounterResetHint, Counts, Histogram, Labels, MetricKind, Span, put_varint, zigzag};

use crate::remote_write::{time_series, write_request};
use crate::wire::{FIXED64, LENGTH, VARINT};

/// Appends the canonical wire form of a label set: one Label field of a TimeSeries after another, sorted by name,
/// minimal lengths. It is what a sender that sorts its labels sends.
pub fn put_wire_labels(out: &mut Vec<u8>, labels: &Labels) {
    for (name, value) in labels.iter() {
        put_label(out, name.as_bytes(), value.as_bytes());
    }
}

/// Appends a series of another request as it lay there: [`crate::TimeSeries::wire`]. A request is such series one after
/// another, so any of them put together are one again.
#[inline]
pub fn put_series(out: &mut Vec<u8>, wire: &[u8]) {
    put_bytes(out, write_request::TIMESERIES, wire);
}

/// Appends metadata of another request as they lay there: [`crate::MetadataRef::wire`].
pub fn put_metadata(out: &mut Vec<u8>, wire: &[u8]) {
    put_bytes(out, write_request::METADATA, wire);
}

/// The most bytes that [`put_series`] or [`put_metadata`] adds to what it is given.
pub const FIELD_BYTES_MAX: usize = 11;

/// Builds the protobuf bytes of a request, series by series. Not checked: tests build bad requests with it too.
#[derive(Debug, Clone, Default)]
pub struct WriteRequestBuilder {
    out: Vec<u8>,
}

impl WriteRequestBuilder {
    /// A request without anything.
    pub fn new() -> WriteRequestBuilder {
        WriteRequestBuilder::default()
    }

    /// Adds a series of floats: (milliseconds, value).
    pub fn series(&mut self, labels: &Labels, samples: &[(i64, f64)]) -> &mut WriteRequestBuilder {
        self.series_of(labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), samples, &[])
    }

    /// Adds a series of histograms: (milliseconds, histogram).
    pub fn histograms(&mut self, labels: &Labels, histograms: &[(i64, Histogram)]) -> &mut WriteRequestBuilder {
        self.series_of(labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &[], histograms)
    }

    /// Adds a series with any labels in any order, for tests of what a receiver refuses.
    pub fn series_of<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        samples: &[(i64, f64)],
        histograms: &[(i64, Histogram)],
    ) -> &mut WriteRequestBuilder {
        let mut series = Vec::new();
        for (name, value) in labels {
            put_label(&mut series, name, value);
        }
        for &(t, v) in samples {
            let mut sample = Vec::with_capacity(20);
            put_f64(&mut sample, 1, v);
            put_u64(&mut sample, 2, t as u64);
            put_bytes(&mut series, time_series::SAMPLES, &sample);
        }
        for (t, histogram) in histograms {
            put_bytes(&mut series, time_series::HISTOGRAMS, &encode_histogram(*t, histogram));
        }
        put_series(&mut self.out, &series);
        self
    }

    /// Adds metadata of a metric.
    pub fn metadata(&mut self, kind: MetricKind, metric: &str, unit: &str, help: &str) -> &mut WriteRequestBuilder {
        let mut metadata = Vec::new();
        put_u64(&mut metadata, 1, u64::from(kind.number()));
        for (field, text) in [(2, metric), (4, help), (5, unit)] {
            if !text.is_empty() {
                put_bytes(&mut metadata, field, text.as_bytes());
            }
        }
        put_metadata(&mut self.out, &metadata);
        self
    }

    /// The message so far, not compressed.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

fn encode_histogram(t: i64, histogram: &Histogram) -> Vec<u8> {
    let mut out = Vec::new();
    match &histogram.counts {
        Counts::Integer { count, zero, .. } => {
            // Members of a oneof are written also when 0: which one it is says the kind.
            put_tag(&mut out, 1, VARINT);
            put_varint(&mut out, *count);
            put_tag(&mut out, 6, VARINT);
            put_varint(&mut out, *zero);
        }
        Counts::Float { count, zero, .. } => {
            put_tag(&mut out, 2, FIXED64);
            out.extend_from_slice(&count.to_bits().to_le_bytes());
            put_tag(&mut out, 7, FIXED64);
            out.extend_from_slice(&zero.to_bits().to_le_bytes());
        }
    }
    put_f64(&mut out, 3, histogram.sum);
    put_u64(&mut out, 4, zigzag(i64::from(histogram.schema)));
    put_f64(&mut out, 5, histogram.zero_threshold);
    put_spans(&mut out, 8, &histogram.negative_spans);
    put_spans(&mut out, 11, &histogram.positive_spans);
    match &histogram.counts {
        Counts::Integer { positive, negative, .. } => {
            for (field, deltas) in [(9, negative), (12, positive)] {
                let mut packed = Vec::new();
                deltas.iter().for_each(|&delta| put_varint(&mut packed, zigzag(delta)));
                put_packed(&mut out, field, &packed);
            }
        }
        Counts::Float { positive, negative, .. } => {
            put_packed(&mut out, 10, &packed_floats(negative));
            put_packed(&mut out, 13, &packed_floats(positive));
        }
    }
    put_u64(
        &mut out,
        14,
        match histogram.counter_reset_hint {
            CounterResetHint::Unknown => 0,
            CounterResetHint::Reset => 1,
            CounterResetHint::NotReset => 2,
            CounterResetHint::Gauge => 3,
        },
    );
    put_u64(&mut out, 15, t as u64);
    put_packed(&mut out, 16, &packed_floats(&histogram.custom_bounds));
    out
}

fn put_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let bytes = 2 + varint_bytes(name.len()) + name.len() + varint_bytes(value.len()) + value.len();
    put_tag(out, time_series::LABELS, LENGTH);
    put_varint(out, bytes as u64);
    put_bytes(out, 1, name);
    put_bytes(out, 2, value);
}

fn varint_bytes(n: usize) -> usize {
    (n.max(1).ilog2() / 7 + 1) as usize
}

fn put_spans(out: &mut Vec<u8>, field: u32, spans: &[Span]) {
    for span in spans {
        let mut message = Vec::with_capacity(12);
        put_u64(&mut message, 1, zigzag(i64::from(span.offset)));
        put_u64(&mut message, 2, u64::from(span.length));
        put_bytes(out, field, &message);
    }
}

fn packed_floats(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect()
}

fn put_tag(out: &mut Vec<u8>, field: u32, wire_type: u8) {
    put_varint(out, u64::from(field << 3 | u32::from(wire_type)));
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_tag(out, field, LENGTH);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_packed(out: &mut Vec<u8>, field: u32, packed: &[u8]) {
    if !packed.is_empty() {
        put_bytes(out, field, packed);
    }
}

/// A varint field, left out at 0 as proto3 has it.
fn put_u64(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_tag(out, field, VARINT);
        put_varint(out, value);
    }
}

/// A double field, left out at +0 (but not at −0) as proto3 has it.
fn put_f64(out: &mut Vec<u8>, field: u32, value: f64) {
    if value.to_bits() != 0 {
        put_tag(out, field, FIXED64);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}
