//! Decodes the native histograms of remote-write into [`model::Histogram`].
//!
//! Whether it is an integer or a float histogram is said by which count is set, the last one if both are;
//! the other kind's fields are then passed over, as Prometheus does. Nothing is validated here: see
//! [`model::Histogram::validate`], which the ingester calls a series at a time.

use model::{CounterResetHint, Counts, Histogram, Span, unzigzag};

use crate::error::ProtoError;
use crate::remote_write::Memory;
use crate::wire::{FIXED64, Fields, LENGTH, VARINT};

const KNOWN: &[u32] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// Decodes one Histogram message: its timestamp in milliseconds, and itself.
pub(crate) fn decode_histogram(mut fields: Fields<'_>, memory: &mut Memory) -> Result<(i64, Histogram), ProtoError> {
    let mut t = 0;
    let mut histogram = Histogram::default();
    let mut is_float = false;
    let (mut count, mut zero) = (0, 0);
    let (mut count_float, mut zero_float) = (0.0, 0.0);
    let (mut positive, mut negative) = (Vec::new(), Vec::new());
    let (mut positive_floats, mut negative_floats) = (Vec::new(), Vec::new());
    while let Some(tag) = fields.tag()? {
        match tag {
            (1, VARINT) => (count, is_float) = (fields.varint()?, false),
            (2, FIXED64) => (count_float, is_float) = (fields.f64()?, true),
            (3, FIXED64) => histogram.sum = fields.f64()?,
            (4, VARINT) => histogram.schema = sint32(fields.varint()?),
            (5, FIXED64) => histogram.zero_threshold = fields.f64()?,
            // A oneof: setting one clears the other.
            (6, VARINT) => (zero, zero_float) = (fields.varint()?, 0.0),
            (7, FIXED64) => (zero, zero_float) = (0, fields.f64()?),
            (8, LENGTH) => memory.push(&mut histogram.negative_spans, decode_span(fields.nested()?)?)?,
            (9, VARINT | LENGTH) => push_deltas(&mut fields, tag.1, &mut negative, memory)?,
            (10, FIXED64 | LENGTH) => push_floats(&mut fields, tag.1, &mut negative_floats, memory)?,
            (11, LENGTH) => memory.push(&mut histogram.positive_spans, decode_span(fields.nested()?)?)?,
            (12, VARINT | LENGTH) => push_deltas(&mut fields, tag.1, &mut positive, memory)?,
            (13, FIXED64 | LENGTH) => push_floats(&mut fields, tag.1, &mut positive_floats, memory)?,
            (14, VARINT) => histogram.counter_reset_hint = reset_hint(fields.varint()?),
            (15, VARINT) => t = fields.varint()? as i64,
            (16, FIXED64 | LENGTH) => push_floats(&mut fields, tag.1, &mut histogram.custom_bounds, memory)?,
            (field, wire_type) => fields.skip_unknown(field, wire_type, KNOWN)?,
        }
    }
    histogram.counts = if is_float {
        Counts::Float { count: count_float, zero: zero_float, positive: positive_floats, negative: negative_floats }
    } else {
        Counts::Integer { count, zero, positive, negative }
    };
    Ok((t, histogram))
}

fn decode_span(mut fields: Fields<'_>) -> Result<Span, ProtoError> {
    let mut span = Span { offset: 0, length: 0 };
    while let Some(tag) = fields.tag()? {
        match tag {
            (1, VARINT) => span.offset = sint32(fields.varint()?),
            // A uint32 is its varint's low half, in every protobuf decoder.
            (2, VARINT) => span.length = fields.varint()? as u32,
            (field, wire_type) => fields.skip_unknown(field, wire_type, &[1, 2])?,
        }
    }
    Ok(span)
}

/// Takes in repeated sint64s, one or packed.
fn push_deltas(
    fields: &mut Fields<'_>,
    wire_type: u8,
    out: &mut Vec<i64>,
    memory: &mut Memory,
) -> Result<(), ProtoError> {
    if wire_type == VARINT {
        return memory.push(out, unzigzag(fields.varint()?));
    }
    let mut packed = fields.nested()?;
    while !packed.is_empty() {
        memory.push(out, unzigzag(packed.varint()?))?;
    }
    Ok(())
}

/// Takes in repeated doubles, one or packed.
fn push_floats(
    fields: &mut Fields<'_>,
    wire_type: u8,
    out: &mut Vec<f64>,
    memory: &mut Memory,
) -> Result<(), ProtoError> {
    if wire_type == FIXED64 {
        return memory.push(out, fields.f64()?);
    }
    let mut packed = fields.nested()?;
    while !packed.is_empty() {
        memory.push(out, packed.f64()?)?;
    }
    Ok(())
}

/// A sint32 is the low half of its varint, in every protobuf decoder.
fn sint32(varint: u64) -> i32 {
    unzigzag(u64::from(varint as u32)) as i32
}

fn reset_hint(number: u64) -> CounterResetHint {
    match number {
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}
