//! The values of one series in a page. Format: docs/formats/block.md, "Values".
//!
//! Most series are whole numbers or decimals: their mantissas' differences, or the differences of those, divided by what
//! they have in common (a page of 4096 bytes, a megahertz), are varints of a byte or two. What has no mantissa, such as
//! a stale marker among numbers, is an exception beside them; if there are many, all are XORed floats instead.

use std::sync::Arc;

use model::{DecodeError, Histogram, Reader, STALE_NAN_BITS, Samples, put_varint, put_zigzag, unzigzag, zigzag};

use crate::decimal;

/// All values are one decimal: scale, mantissa.
const CONSTANT: u8 = 0;
/// All values are one float: its bits.
const CONSTANT_BITS: u8 = 1;
/// Scale, unit, first mantissa, differences.
const DELTA: u8 = 2;
/// Scale, unit, first mantissa, first difference, differences of differences.
const DOUBLE_DELTA: u8 = 3;
/// XOR with the bits before: a byte for the shape of each, then the bytes that are not zero.
const XOR: u8 = 4;
/// Floats and histograms, each spelled out.
const MIXED: u8 = 5;
/// Added to 0, 2, 3: exceptions come first.
const WITH_EXCEPTIONS: u8 = 0x80;

/// An exception's kinds.
const EXCEPTION_STALE: u8 = 0;
const EXCEPTION_BITS: u8 = 1;

/// Scales that divide by a power of ten; `decimal`'s others, units, are found as a common divisor here.
const SCALES: u8 = 16;
/// Mantissas stay below this, so that a float holds each exactly.
const MANTISSA_MAX: u64 = 1 << 53;

/// Buffers that [`encode`] uses again and again.
#[derive(Default)]
pub(crate) struct Scratch {
    mantissas: Vec<i64>,
    /// Positions that have no mantissa; there the one before is repeated.
    exceptions: Vec<usize>,
}

/// Appends the values' bytes to `out` and returns their codec. Timestamps are the page's business.
pub(crate) fn encode(samples: &Samples, scratch: &mut Scratch, out: &mut Vec<u8>) -> u8 {
    if !samples.is_float() {
        encode_mixed(samples, out);
        return MIXED;
    }
    let floats = samples.floats.as_slice();
    let first = floats.first().copied().unwrap_or(0.0);
    if floats.iter().all(|v| v.to_bits() == first.to_bits()) {
        return encode_constant(first, out);
    }
    match find_mantissas(floats, scratch) {
        Some(scale) => encode_decimals(floats, scale, scratch, out),
        None => {
            encode_xor(floats, out);
            XOR
        }
    }
}

fn encode_constant(v: f64, out: &mut Vec<u8>) -> u8 {
    match (0..SCALES).find_map(|scale| Some((scale, decimal::at_scale(v, scale)?))) {
        Some((scale, mantissa)) => {
            out.push(scale);
            put_zigzag(out, mantissa);
            CONSTANT
        }
        None => {
            out.extend_from_slice(&v.to_bits().to_le_bytes());
            CONSTANT_BITS
        }
    }
}

/// Finds the least scale at which (nearly) all values have a mantissa; `None` if too many have not.
fn find_mantissas(floats: &[f64], scratch: &mut Scratch) -> Option<u8> {
    let Scratch { mantissas, exceptions } = scratch;
    mantissas.clear();
    exceptions.clear();
    // An exception costs about what a raw float does; beyond a few, XOR is shorter and quicker.
    let exceptions_max = floats.len() / 8 + 2;
    let mut scale = 0;
    let mut largest = 0u64;
    let mut last = None;
    for (i, &v) in floats.iter().enumerate() {
        let mut found = decimal::at_scale(v, scale);
        if found.is_none() && v.to_bits() != STALE_NAN_BITS {
            let finer = (scale + 1..SCALES).find_map(|finer| Some((finer, decimal::at_scale(v, finer)?)));
            if let Some((finer, mantissa)) = finer {
                let factor = 10u64.pow(u32::from(finer - scale));
                if largest.saturating_mul(factor) < MANTISSA_MAX {
                    mantissas.iter_mut().for_each(|mantissa| *mantissa *= factor as i64);
                    last = last.map(|mantissa: i64| mantissa * factor as i64);
                    largest *= factor;
                    scale = finer;
                    found = Some(mantissa);
                }
            }
        }
        match found {
            Some(mantissa) => {
                if last.is_none() {
                    // Exceptions at the very start.
                    mantissas.fill(mantissa);
                }
                largest = largest.max(mantissa.unsigned_abs());
                last = Some(mantissa);
                mantissas.push(mantissa);
            }
            None => {
                exceptions.push(i);
                if exceptions.len() > exceptions_max {
                    return None;
                }
                mantissas.push(last.unwrap_or(0));
            }
        }
    }
    Some(scale)
}

fn encode_decimals(floats: &[f64], scale: u8, scratch: &Scratch, out: &mut Vec<u8>) -> u8 {
    let Scratch { mantissas, exceptions } = scratch;
    if !exceptions.is_empty() {
        put_exceptions(floats, exceptions, out);
    }
    // Bits, not bytes: zstd's entropy coding makes use of those too.
    let (mut delta_bits, mut change_bits) = (0, 0);
    let (mut unit, mut last_delta) = (0u64, 0i64);
    for pair in mantissas.windows(2) {
        let delta = pair[1] - pair[0];
        delta_bits += 64 - zigzag(delta).leading_zeros();
        change_bits += 64 - zigzag(delta - last_delta).leading_zeros();
        last_delta = delta;
        if unit != 1 && delta != 0 {
            unit = common_divisor(unit, delta.unsigned_abs());
        }
    }
    out.push(scale);
    let first = mantissas.first().copied().unwrap_or(0);
    let codec = if unit == 0 {
        put_zigzag(out, first);
        CONSTANT
    } else {
        put_varint(out, unit);
        put_zigzag(out, first);
        let is_double = change_bits < delta_bits;
        if unit == 1 {
            put_deltas(mantissas, is_double, |delta| delta, out);
        } else {
            put_deltas(mantissas, is_double, |delta| delta / unit as i64, out);
        }
        if is_double { DOUBLE_DELTA } else { DELTA }
    };
    if exceptions.is_empty() { codec } else { codec | WITH_EXCEPTIONS }
}

#[inline]
fn put_deltas(mantissas: &[i64], is_double: bool, in_units: impl Fn(i64) -> i64, out: &mut Vec<u8>) {
    let mut last = 0;
    for pair in mantissas.windows(2) {
        let delta = in_units(pair[1] - pair[0]);
        put_zigzag(out, delta - last);
        if is_double {
            last = delta;
        }
    }
}

fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while a != 0 {
        (a, b) = (b % a, a);
    }
    b
}

fn put_exceptions(floats: &[f64], exceptions: &[usize], out: &mut Vec<u8>) {
    put_varint(out, exceptions.len() as u64);
    let mut next = 0;
    for &i in exceptions {
        put_varint(out, (i - next) as u64);
        next = i + 1;
        let bits = floats[i].to_bits();
        if bits == STALE_NAN_BITS {
            out.push(EXCEPTION_STALE);
        } else {
            out.push(EXCEPTION_BITS);
            out.extend_from_slice(&bits.to_le_bytes());
        }
    }
}

/// The shape of an XOR: 0 if it is 0, else 1 + 8 · zero bytes at its low end + (bytes that follow − 1).
fn shape(xor: u64) -> (u8, usize, usize) {
    if xor == 0 {
        return (0, 0, 0);
    }
    let low = (xor.trailing_zeros() / 8) as usize;
    let bytes = 8 - low - (xor.leading_zeros() / 8) as usize;
    (1 + (low * 8 + bytes - 1) as u8, low, bytes)
}

fn encode_xor(floats: &[f64], out: &mut Vec<u8>) {
    let mut last = 0;
    for v in floats {
        out.push(shape(v.to_bits() ^ last).0);
        last = v.to_bits();
    }
    last = 0;
    for v in floats {
        let xor = v.to_bits() ^ last;
        let (_, low, bytes) = shape(xor);
        out.extend_from_slice(&xor.to_le_bytes()[low..low + bytes]);
        last = v.to_bits();
    }
}

/// For each sample: 0 and a float's bits, or a histogram's length and its canonical bytes.
fn encode_mixed(samples: &Samples, out: &mut Vec<u8>) {
    for (histogram, v) in samples.histograms.iter().zip(&samples.floats) {
        match histogram {
            Some(histogram) => {
                let bytes = histogram.encode();
                put_varint(out, bytes.len() as u64);
                out.extend_from_slice(&bytes);
            }
            None => {
                out.push(0);
                out.extend_from_slice(&v.to_bits().to_le_bytes());
            }
        }
    }
}

/// Reads the values of as many samples as `samples` has timestamps; all of `bytes` must be used.
pub(crate) fn decode(codec: u8, bytes: &[u8], samples: &mut Samples) -> Result<(), DecodeError> {
    let count = samples.timestamps.len();
    let mut reader = Reader::new(bytes);
    let exceptions = if codec & WITH_EXCEPTIONS != 0 { read_exceptions(&mut reader, count)? } else { Vec::new() };
    samples.floats.reserve_exact(count);
    match codec & !WITH_EXCEPTIONS {
        CONSTANT => {
            let scale = read_scale(&mut reader)?;
            samples.floats.resize(count, decimal::to_float(reader.zigzag()?, scale));
        }
        CONSTANT_BITS => samples.floats.resize(count, f64::from_bits(reader.u64()?)),
        kind @ (DELTA | DOUBLE_DELTA) => decode_deltas(&mut reader, kind == DOUBLE_DELTA, count, &mut samples.floats)?,
        XOR => decode_xor(&mut reader, count, &mut samples.floats)?,
        MIXED => decode_mixed(&mut reader, count, samples)?,
        _ => return Err(reader.error("unknown codec")),
    }
    for (i, bits) in exceptions {
        samples.floats[i] = f64::from_bits(bits);
    }
    if !reader.is_empty() {
        return Err(reader.error("bytes after the last value"));
    }
    Ok(())
}

fn read_scale(reader: &mut Reader<'_>) -> Result<u8, DecodeError> {
    let scale = reader.u8()?;
    if scale >= SCALES { Err(reader.error("unknown scale")) } else { Ok(scale) }
}

fn read_exceptions(reader: &mut Reader<'_>, count: usize) -> Result<Vec<(usize, u64)>, DecodeError> {
    let mut exceptions = Vec::new();
    let mut next = 0;
    for _ in 0..reader.count(2)? {
        let gap = reader.varint()?;
        if gap >= (count - next) as u64 {
            return Err(reader.error("exception past the last sample"));
        }
        let i = next + gap as usize;
        let bits = match reader.u8()? {
            EXCEPTION_STALE => STALE_NAN_BITS,
            EXCEPTION_BITS => reader.u64()?,
            _ => return Err(reader.error("unknown kind of exception")),
        };
        exceptions.push((i, bits));
        next = i + 1;
    }
    Ok(exceptions)
}

/// Arithmetic wraps: foreign bytes give some floats, never a panic.
fn decode_deltas(
    reader: &mut Reader<'_>,
    is_double: bool,
    count: usize,
    floats: &mut Vec<f64>,
) -> Result<(), DecodeError> {
    let scale = read_scale(reader)?;
    let unit = reader.varint()? as i64;
    let mut mantissa = reader.zigzag()?;
    let mut last = 0i64;
    floats.push(decimal::to_float(mantissa, scale));
    for _ in 1..count {
        let delta = last.wrapping_add(unzigzag(reader.varint()?));
        if is_double {
            last = delta;
        }
        mantissa = mantissa.wrapping_add(delta.wrapping_mul(unit));
        floats.push(decimal::to_float(mantissa, scale));
    }
    if floats.len() != count {
        return Err(reader.error("values without samples"));
    }
    Ok(())
}

fn decode_xor(reader: &mut Reader<'_>, count: usize, floats: &mut Vec<f64>) -> Result<(), DecodeError> {
    let shapes = reader.take(count)?;
    let mut bits = 0;
    for &shape in shapes {
        if shape > 0 {
            let (low, length) = (usize::from((shape - 1) / 8), usize::from((shape - 1) % 8) + 1);
            if low + length > 8 {
                return Err(reader.error("unknown shape of a float"));
            }
            let mut bytes = [0; 8];
            bytes[low..low + length].copy_from_slice(reader.take(length)?);
            bits ^= u64::from_le_bytes(bytes);
        }
        floats.push(f64::from_bits(bits));
    }
    Ok(())
}

fn decode_mixed(reader: &mut Reader<'_>, count: usize, samples: &mut Samples) -> Result<(), DecodeError> {
    for _ in 0..count {
        let bytes = reader.bytes()?;
        if bytes.is_empty() {
            samples.floats.push(f64::from_bits(reader.u64()?));
            samples.histograms.push(None);
        } else {
            let start = reader.offset() - bytes.len();
            let histogram =
                Histogram::decode(bytes).map_err(|e| DecodeError { offset: start + e.offset, what: e.what })?;
            samples.floats.push(0.0);
            samples.histograms.push(Some(Arc::new(histogram)));
        }
    }
    Ok(())
}
