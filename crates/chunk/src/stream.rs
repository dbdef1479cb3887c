//! The codes of samples in a stream: docs/formats/segment.md, "Codes".
//!
//! Each sample becomes one *value code* and, if it does not come one interval after the one before, one *time code*.
//! Both build on the series' samples since the cut, which [`SeriesState`] sums up in 24 bytes; most steady samples
//! take one byte. Segments keep the two kinds of codes in columns; in a head, [`Decoder`] finds them one after the
//! other: the value code, then the time code if the value code's lowest bit says that there is one.
//!
//! Time is the change of the interval, as a zigzag varint. Arithmetic wraps, so that any timestamps return.
//!
//! ```text
//! value code   varint, bit 0: a time code follows; bit 1:
//!   0          the rest is the zigzag difference of mantissas
//!   1          the rest of one byte is an escape: 0–7 and 8–15 raw float as XOR, 16 stale marker,
//!              17 histogram, 18 repeat, 19 decimal at another scale
//! ```

use std::sync::Arc;

use model::{
    DecodeError, Histogram, Reader, STALE_NAN_BITS, Samples, TimestampMs, Value, put_varint, unzigzag, zigzag,
};

use crate::decimal::{self, SCALES, Scale};

/// Bit 0 of a value code: a time code follows.
const TIMED: u8 = 1;
/// Bit 1 of a value code: it is an escape.
const ESCAPE: u8 = 2;

/// Escapes 0 to 7: the low 1 to 8 bytes of the XOR with the last value's bits; the rest of it is 0.
const XOR_LOW: u8 = 0;
/// Escapes 8 to 15: the high 1 to 8 bytes of that XOR; the rest of it is 0.
const XOR_HIGH: u8 = 8;
/// The stale marker. The last value stays what it was.
const STALE: u8 = 16;
/// A varint length and a histogram's canonical bytes. The last value stays what it was.
const HISTOGRAM: u8 = 17;
/// A varint count of samples, each one interval after the one before with the same value. Only in heads.
const REPEAT: u8 = 18;
/// A scale, and the zigzag varint of the mantissa at it.
const DECIMAL: u8 = 19;

/// The scale of a series whose last value is raw: its "mantissa" is the float's bits.
const RAW: Scale = 255;

/// What the next sample of a series is coded against: its samples since the cut, summed up.
///
/// Default is "none yet". 24 bytes, as every active series has one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeriesState {
    /// The last timestamp.
    t: TimestampMs,
    /// The last float: its mantissa at `scale`, or its bits.
    value: i64,
    /// The last interval, cut to 32 bits: whatever does not fit costs bytes, not samples.
    dt: i32,
    /// How `value` is meant.
    scale: Scale,
    /// Raw floats in a row, up to 255: for a series of them, a scale is looked for ever more rarely.
    misses: u8,
    /// Whether there was a sample: the first has no interval.
    is_started: bool,
}

impl SeriesState {
    /// Appends a float's codes: one to `values`, at most one to `times`.
    #[inline]
    pub fn encode_float(&mut self, t: TimestampMs, v: f64, values: &mut Vec<u8>, times: &mut Vec<u8>) {
        // A series' first sample picks its scale, or multiples of a unit would be taken for bare numbers.
        let is_first = !self.is_started;
        let timed = self.encode_time(t, times);
        match decimal::at_scale(v, self.scale) {
            Some(m) if !is_first => self.encode_mantissa(m, timed, values),
            _ => self.encode_odd_float(v, timed, values),
        }
    }

    #[inline]
    fn encode_mantissa(&mut self, m: i64, timed: u8, values: &mut Vec<u8>) {
        let delta = m.wrapping_sub(self.value);
        self.value = m;
        put_code(values, zigzag(delta) << 2 | u64::from(timed));
    }

    /// The first float, one without a mantissa at the present scale, or any after a raw one.
    fn encode_odd_float(&mut self, v: f64, timed: u8, values: &mut Vec<u8>) {
        let bits = v.to_bits();
        if bits == STALE_NAN_BITS {
            values.push(escape(STALE, timed));
            return;
        }
        let last = self.last_bits();
        if self.scale == RAW && last == bits {
            values.push(timed);
            return;
        }
        if let Some((m, scale)) = self.look_for_scale(v) {
            if scale == self.scale {
                self.encode_mantissa(m, timed, values);
                return;
            }
            (self.value, self.scale, self.misses) = (m, scale, 0);
            values.extend_from_slice(&[escape(DECIMAL, timed), scale]);
            put_varint(values, zigzag(m));
            return;
        }
        (self.value, self.scale, self.misses) = (bits as i64, RAW, self.misses.saturating_add(1));
        put_xor(values, last ^ bits, timed);
    }

    /// Whole numbers are always found; for fractions, a series of raw floats looks at 1, 2, 4, 8 … 128 of them only.
    fn look_for_scale(&self, v: f64) -> Option<(i64, Scale)> {
        if self.scale != RAW || self.misses.is_power_of_two() || decimal::whole(v).is_some() {
            return decimal::detect(v);
        }
        None
    }

    /// Appends a histogram's codes: one to `values`, at most one to `times`.
    pub fn encode_histogram(
        &mut self,
        t: TimestampMs,
        histogram: &Histogram,
        values: &mut Vec<u8>,
        times: &mut Vec<u8>,
    ) {
        let timed = self.encode_time(t, times);
        let bytes = histogram.encode();
        values.push(escape(HISTOGRAM, timed));
        put_varint(values, bytes.len() as u64);
        values.extend_from_slice(&bytes);
    }

    /// Returns [`TIMED`] if it wrote a time code, else 0.
    #[inline]
    fn encode_time(&mut self, t: TimestampMs, times: &mut Vec<u8>) -> u8 {
        let change = self.advance(t);
        if change == 0 {
            return 0;
        }
        put_varint(times, zigzag(change));
        TIMED
    }

    /// Moves to the next timestamp and returns the change of the interval.
    #[inline]
    fn advance(&mut self, t: TimestampMs) -> i64 {
        let dt = t.wrapping_sub(self.t);
        let change = dt.wrapping_sub(i64::from(self.dt));
        self.dt = if self.is_started { dt as i32 } else { 0 };
        (self.t, self.is_started) = (t, true);
        change
    }

    /// The inverse of [`SeriesState::advance`].
    #[inline]
    fn advance_by(&mut self, change: i64) -> TimestampMs {
        let dt = change.wrapping_add(i64::from(self.dt));
        self.dt = if self.is_started { dt as i32 } else { 0 };
        (self.t, self.is_started) = (self.t.wrapping_add(dt), true);
        self.t
    }

    /// The last float's bits.
    fn last_bits(&self) -> u64 {
        if self.scale == RAW { self.value as u64 } else { decimal::to_float(self.value, self.scale).to_bits() }
    }
}

/// Appends a varint of up to 28 bits without a branch on its length, which from series to series nobody can predict.
#[inline]
fn put_code(values: &mut Vec<u8>, code: u64) {
    if code >= 1 << 28 {
        put_varint(values, code);
        return;
    }
    let code = code as u32;
    let len = (38 - (code | 1).leading_zeros()) / 7;
    let groups = code & 0x7f | (code & 0x3f80) << 1 | (code & 0x1f_c000) << 2 | (code & 0xfe0_0000) << 3;
    let more = 0x0080_8080 & ((1 << (8 * (len - 1))) - 1);
    values.extend_from_slice(&(groups | more).to_le_bytes());
    values.truncate(values.len() - 4 + len as usize);
}

fn escape(kind: u8, timed: u8) -> u8 {
    kind << 2 | ESCAPE | timed
}

/// Writes the XOR of two floats without its leading or its trailing zero bytes, whichever are more.
fn put_xor(values: &mut Vec<u8>, xor: u64, timed: u8) {
    // At least one byte, should they be equal.
    let low = 8 - (xor.leading_zeros() / 8).min(7);
    let high = 8 - (xor.trailing_zeros() / 8).min(7);
    let (kind, bytes, len) = if low <= high { (XOR_LOW, xor, low) } else { (XOR_HIGH, xor >> (64 - 8 * high), high) };
    values.push(escape(kind + len as u8 - 1, timed));
    values.extend_from_slice(&bytes.to_le_bytes()[..len as usize]);
}

/// Appends the code that says: `n` more samples, each one interval after the one before, with the same value.
///
/// One or two cost no more when they are spelled out, so they are.
pub fn put_repeat(out: &mut Vec<u8>, n: u32) {
    if n <= 2 {
        out.resize(out.len() + n as usize, 0);
        return;
    }
    out.push(escape(REPEAT, 0));
    put_varint(out, u64::from(n));
}

/// Measures a value code that is neither an escape nor timed, from the 8 bytes that begin with it; 0 if it is either, or
/// longer. Without a branch on its length.
#[inline]
pub fn measure_plain_code(bytes: [u8; 8]) -> usize {
    let word = u64::from_le_bytes(bytes);
    let ends = !word & 0x8080_8080_8080_8080;
    let len = (ends.trailing_zeros() as usize + 1) / 8;
    if word & u64::from(ESCAPE | TIMED) == 0 && ends != 0 { len } else { 0 }
}

/// How one value code lies in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeShape {
    /// Bytes of the value code.
    pub len: usize,
    /// Whether it has a time code.
    pub is_timed: bool,
}

/// Measures the value code that `bytes` start with.
///
/// Errors: the end comes too early, or no encoder of samples writes this. A histogram's bytes are not looked into.
#[inline]
pub fn measure_code(bytes: &[u8]) -> Result<CodeShape, DecodeError> {
    let Some(&first) = bytes.first() else {
        return Err(DecodeError { offset: 0, what: "unexpected end" });
    };
    let is_timed = first & TIMED != 0;
    if first & ESCAPE == 0 {
        return Ok(CodeShape { len: measure_varint(bytes)?, is_timed });
    }
    let mut reader = Reader::new(bytes);
    reader.u8()?;
    match first >> 2 {
        kind @ 0..16 => {
            reader.take(usize::from(kind & 7) + 1)?;
        }
        STALE => {}
        HISTOGRAM => {
            reader.bytes()?;
        }
        DECIMAL => {
            if reader.u8()? >= SCALES {
                return Err(reader.error("unknown scale"));
            }
            reader.varint()?;
        }
        _ => return Err(reader.error("unknown kind of value")),
    }
    Ok(CodeShape { len: reader.offset(), is_timed })
}

/// Bytes of the varint that `bytes` start with.
#[inline]
pub fn measure_varint(bytes: &[u8]) -> Result<usize, DecodeError> {
    if bytes.first().is_some_and(|&byte| byte < 0x80) {
        return Ok(1);
    }
    let mut reader = Reader::new(bytes);
    reader.varint()?;
    Ok(reader.offset())
}

/// The histogram of a value code that [`measure_code`] measured, if it is one.
///
/// Errors: bytes that are no histogram.
pub fn histogram_in(code: &[u8]) -> Result<Option<Histogram>, DecodeError> {
    let mut reader = Reader::new(code);
    let first = reader.u8()?;
    if first | TIMED != escape(HISTOGRAM, TIMED) {
        return Ok(None);
    }
    Histogram::decode(reader.bytes()?).map(Some)
}

/// Reads a series' samples back from its codes since the cut, in the order in which they arrived.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    reader: Reader<'a>,
    state: SeriesState,
    /// The last float, which `state.value` stands for.
    v: f64,
    /// Samples of a repeat still to come.
    repeats: u64,
}

impl<'a> Decoder<'a> {
    /// A decoder over all codes of one series.
    pub fn new(codes: &'a [u8]) -> Decoder<'a> {
        Decoder { reader: Reader::new(codes), state: SeriesState::default(), v: 0.0, repeats: 0 }
    }

    /// The next sample, or `None` at the end.
    ///
    /// Errors: bytes that no encoder wrote. A repeat may yield up to 2^32 samples from six bytes: whoever reads
    /// foreign bytes must count.
    #[inline]
    pub fn next_sample(&mut self) -> Result<Option<(TimestampMs, Value)>, DecodeError> {
        loop {
            if self.repeats > 0 {
                self.repeats -= 1;
                return Ok(Some((self.state.advance_by(0), Value::Float(self.v))));
            }
            if self.reader.is_empty() {
                return Ok(None);
            }
            let code = self.reader.varint()?;
            if code & u64::from(ESCAPE) == 0 {
                let t = self.read_delta(code)?;
                return Ok(Some((t, Value::Float(self.v))));
            }
            if let Some(sample) = self.read_escape(code)? {
                return Ok(Some(sample));
            }
        }
    }

    /// Appends all samples that are left to `samples`; the same as [`Decoder::next_sample`], but quicker.
    pub fn decode_into(mut self, samples: &mut Samples) -> Result<(), DecodeError> {
        loop {
            if samples.is_float() && self.repeats > 0 {
                let (start, step) = (self.state.t, i64::from(self.state.dt));
                let repeats = 1..=std::mem::take(&mut self.repeats) as i64;
                samples.floats.resize(samples.floats.len() + *repeats.end() as usize, self.v);
                samples.timestamps.extend(repeats.map(|i| start.wrapping_add(step.wrapping_mul(i))));
                self.state.t = samples.timestamps.last().copied().unwrap_or(start);
                self.state.is_started = true;
            }
            while self.repeats > 0 {
                self.repeats -= 1;
                samples.push_float(self.state.advance_by(0), self.v);
            }
            if self.reader.is_empty() {
                return Ok(());
            }
            let code = self.reader.varint()?;
            if code & u64::from(ESCAPE) == 0 {
                let t = self.read_delta(code)?;
                samples.push_float(t, self.v);
            } else if let Some((t, v)) = self.read_escape(code)? {
                samples.push(t, v);
            }
        }
    }

    /// Reads the rest of a sample whose value is a difference, and returns its time.
    #[inline]
    fn read_delta(&mut self, code: u64) -> Result<TimestampMs, DecodeError> {
        let delta = unzigzag(code >> 2);
        if delta != 0 {
            self.state.value = self.state.value.wrapping_add(delta);
            self.v = f64::from_bits(self.state.last_bits());
        }
        let change = if code & u64::from(TIMED) == 0 { 0 } else { self.reader.zigzag()? };
        Ok(self.state.advance_by(change))
    }

    /// Reads the rest of an escape: a sample, or how many repeats there are.
    fn read_escape(&mut self, code: u64) -> Result<Option<(TimestampMs, Value)>, DecodeError> {
        let mut other = None;
        match u8::try_from(code >> 2).unwrap_or(u8::MAX) {
            kind @ 0..16 => self.read_xor(kind)?,
            STALE => other = Some(Value::Float(f64::from_bits(STALE_NAN_BITS))),
            HISTOGRAM => other = Some(Value::Histogram(Arc::new(Histogram::decode(self.reader.bytes()?)?))),
            REPEAT => {
                self.repeats = self.reader.varint()?;
                let fits = u32::try_from(self.repeats).is_ok_and(|n| n > 0) && code & u64::from(TIMED) == 0;
                if !fits {
                    self.repeats = 0;
                    return Err(self.reader.error("impossible repeat"));
                }
                return Ok(None);
            }
            DECIMAL => {
                let scale = self.reader.u8()?;
                if scale >= SCALES {
                    return Err(self.reader.error("unknown scale"));
                }
                (self.state.value, self.state.scale) = (self.reader.zigzag()?, scale);
                self.v = decimal::to_float(self.state.value, scale);
            }
            _ => return Err(self.reader.error("unknown kind of value")),
        }
        let change = if code & u64::from(TIMED) == 0 { 0 } else { self.reader.zigzag()? };
        let t = self.state.advance_by(change);
        Ok(Some((t, other.unwrap_or(Value::Float(self.v)))))
    }

    fn read_xor(&mut self, kind: u8) -> Result<(), DecodeError> {
        let len = usize::from(kind & 7) + 1;
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(self.reader.take(len)?);
        let mut xor = u64::from_le_bytes(bytes);
        if kind >= XOR_HIGH {
            xor <<= 64 - 8 * len;
        }
        let bits = self.state.last_bits() ^ xor;
        (self.state.value, self.state.scale, self.v) = (bits as i64, RAW, f64::from_bits(bits));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes, then lays each value code and its time code one after the other, as a head does.
    fn encode(samples: &[(i64, Value)]) -> Vec<u8> {
        let (mut values, mut times) = (Vec::new(), Vec::new());
        let mut state = SeriesState::default();
        for (t, v) in samples {
            match v {
                Value::Float(v) => state.encode_float(*t, *v, &mut values, &mut times),
                Value::Histogram(h) => state.encode_histogram(*t, h, &mut values, &mut times),
            }
        }
        let (mut codes, mut v, mut t) = (Vec::new(), 0, 0);
        while v < values.len() {
            let shape = measure_code(&values[v..]).unwrap();
            codes.extend_from_slice(&values[v..v + shape.len]);
            v += shape.len;
            if shape.is_timed {
                let len = measure_varint(&times[t..]).unwrap();
                codes.extend_from_slice(&times[t..t + len]);
                t += len;
            }
        }
        assert_eq!(t, times.len());
        codes
    }

    /// Decodes in both ways, which must agree.
    fn decode(codes: &[u8]) -> Result<Vec<(i64, Value)>, DecodeError> {
        let mut decoder = Decoder::new(codes);
        let mut all = Vec::new();
        let mut samples = Samples::default();
        let quick = Decoder::new(codes).decode_into(&mut samples);
        loop {
            match decoder.next_sample() {
                Ok(Some(sample)) => all.push(sample),
                Ok(None) => break,
                Err(e) => {
                    assert_eq!(quick, Err(e.clone()));
                    return Err(e);
                }
            }
        }
        assert_eq!(quick, Ok(()));
        assert_eq!(samples, all.iter().map(|(t, v)| model::Sample { t: *t, v: v.clone() }).collect());
        Ok(all)
    }

    fn floats(start: i64, step: i64, values: &[f64]) -> Vec<(i64, Value)> {
        values.iter().enumerate().map(|(i, &v)| (start + i as i64 * step, Value::Float(v))).collect()
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
            (-1000i64..1000, 0u8..4).prop_map(|(m, scale)| Value::Float(decimal::to_float(m, scale))),
            prop::sample::select(vec![STALE_NAN_BITS, f64::NAN.to_bits(), 0, 1 << 63, 0x7ff0 << 48])
                .prop_map(|bits| Value::Float(f64::from_bits(bits))),
            (0u64..9).prop_map(|zero| Value::Histogram(Arc::new(Histogram {
                sum: zero as f64,
                counts: model::Counts::Integer { count: zero, zero, positive: vec![], negative: vec![] },
                ..Histogram::default()
            }))),
        ]
    }

    fn any_timestamp() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), 0i64..100, Just(i64::MIN), Just(i64::MAX)]
    }

    proptest! {
        #[test]
        fn any_samples_return(samples in prop::collection::vec((any_timestamp(), any_value()), 0..50)) {
            prop_assert_eq!(decode(&encode(&samples)).unwrap(), samples);
        }

        #[test]
        fn any_bytes_are_an_error_at_worst(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new(&bytes);
            for _ in 0..1000 {
                if !matches!(decoder.next_sample(), Ok(Some(_))) {
                    break;
                }
            }
            let mut rest = &bytes[..];
            while let Ok(shape) = measure_code(rest) {
                let _checked = histogram_in(&rest[..shape.len]);
                rest = &rest[shape.len..];
            }
        }

        #[test]
        fn a_cut_code_is_an_error(value in any_value(), t: i64) {
            let codes = encode(&[(t, value)]);
            for end in 1..codes.len() {
                prop_assert!(decode(&codes[..end]).is_err());
            }
        }
    }

    #[test]
    fn codes_without_branches_are_varints() {
        for shift in 0..60 {
            for code in [(1u64 << shift) - 1, 1 << shift, (1 << shift) + 1] {
                let (mut quick, mut plain) = (Vec::new(), Vec::new());
                put_code(&mut quick, code);
                put_varint(&mut plain, code);
                assert_eq!(quick, plain, "{code:x}");
                let mut window = [0xff; 8];
                let len = plain.len().min(8);
                window[..len].copy_from_slice(&plain[..len]);
                let is_plain = code & 3 == 0 && plain.len() <= 8;
                assert_eq!(measure_plain_code(window), if is_plain { len } else { 0 }, "{code:x}");
            }
        }
    }

    #[test]
    fn a_state_is_24_bytes() {
        assert_eq!(size_of::<SeriesState>(), 24);
    }

    #[test]
    fn steady_samples_take_a_byte() {
        let check = |values: &[f64], bytes: usize| {
            let samples = floats(1_795_000_000_000, 15_000, values);
            let codes = encode(&samples);
            assert_eq!(decode(&codes).unwrap(), samples);
            // The first two samples set the time and the interval.
            assert_eq!(codes.len(), encode(&samples[..2]).len() + bytes);
        };
        check(&[7.0, 7.0, 7.0, 7.0], 2);
        check(&[0.25, 0.5, 0.62, 0.77], 2);
        check(&[4096e5, 4096e5, 100_004.0 * 4096.0, 100_001.0 * 4096.0], 2);
        // A raw float that stays costs a byte, one that moves costs its XOR.
        check(&[f64::NAN, f64::NAN, f64::NAN, f64::NAN], 2);
        check(&[0.1 + 0.2, 0.1 + 0.2, 1.0 / 3.0, 1.0 / 3.0], 8 + 1);
    }

    #[test]
    fn a_series_of_raw_floats_finds_back_to_decimals() {
        let mut values: Vec<f64> = (1..100).map(|i| 1.0 / (3 * i) as f64).collect();
        values.extend([5.0, 6.0, 7.0, 8.0]);
        let samples = floats(0, 10, &values);
        let codes = encode(&samples);
        assert_eq!(decode(&codes).unwrap(), samples);
        assert_eq!(codes[codes.len() - 3..], [8, 8, 8]);
    }

    #[test]
    fn a_repeat_from_the_start_counts_from_zero() {
        let mut samples = floats(0, 0, &[0.0; 5]);
        samples.extend(floats(10, 10, &[1.0, 2.0, 3.0]));
        let spelled_out = encode(&samples);
        assert_eq!(spelled_out[..5], [0; 5]);
        let mut codes = Vec::new();
        put_repeat(&mut codes, 5);
        codes.extend_from_slice(&spelled_out[5..]);
        assert_eq!(decode(&codes).unwrap(), samples);
    }

    #[test]
    fn repeats_among_histograms_keep_their_kind() {
        let mut codes = encode(&[(5, Value::Float(1.5)), (15, Value::Histogram(Arc::new(Histogram::default())))]);
        put_repeat(&mut codes, 4);
        let found = decode(&codes).unwrap();
        assert_eq!(found[2..], floats(25, 10, &[1.5; 4]));
    }

    #[test]
    fn a_repeat_is_the_same_as_its_samples() {
        let start = encode(&floats(5, 10, &[1.5, 2.5]));
        for n in 0..40 {
            let mut codes = start.clone();
            put_repeat(&mut codes, n);
            let mut expected = floats(5, 10, &[1.5, 2.5]);
            expected.extend((0..i64::from(n)).map(|i| (25 + 10 * i, Value::Float(2.5))));
            assert_eq!(decode(&codes).unwrap(), expected);
        }
    }
}
