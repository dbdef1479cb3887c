//! The bytes of a part of a request and of its answer; docs/formats/peer.md.
//!
//! A part has one of two forms. With **labels** it is the request's own series as they lay on the wire, put together: a
//! request again, which the home decodes and checks like any other. With **hashes** it names each series by the hash that
//! the home itself would find it by, a few bytes instead of hundreds, and the home takes it only if it knows them all. Nothing is
//! trusted but the tenant and the hashes, as whoever sends them is a node of the cluster.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use model::{DecodeError, Reader, TenantId, TimestampMs, put_varint, put_zigzag};

use crate::error::{Reason, Rejected};
use crate::series_table::SeriesHasher;

/// A part is closed when it has grown to this: what a home decodes in a millisecond or two, between other requests.
pub(crate) const PART_BYTES_MAX: usize = 1 << 20;

/// What became of a request, or of a part of it; everything else of it is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What never can be stored as sent.
    pub rejected: Rejected,
    /// Series that there was no memory for: their places in the part, ascending.
    pub without_room: Vec<u32>,
}

const WITH_LABELS: u8 = 0;
const WITH_HASHES: u8 = 1;

/// Begins a part with labels of a tenant's request, with room for so many bytes of series.
pub(crate) fn begin(tenant: &TenantId, series_bytes: usize) -> Vec<u8> {
    let tenant = tenant.as_str();
    let mut out = Vec::with_capacity(tenant.len() + 3 + series_bytes);
    put_text(&mut out, tenant);
    out.push(WITH_LABELS);
    out
}

/// A part, and whose it is.
pub(crate) enum Part<'a> {
    /// The bytes of a request.
    WithLabels(&'a [u8]),
    /// The same without labels.
    WithHashes(HashedPart),
}

/// A part whose series are named by their hashes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HashedPart {
    /// The series in the sender's order: their hashes, and where their samples are, at least one each.
    pub series: Vec<(u128, Range<u32>)>,
    /// Milliseconds, value.
    pub samples: Vec<(TimestampMs, f64)>,
}

const HASH_BYTES: usize = size_of::<u128>();
/// What the number of a series' samples takes at most.
const COUNT_BYTES_MAX: usize = 5;
/// What a sample takes in a part with hashes: its time's varint and its value.
const SAMPLE_BYTES: RangeInclusive<usize> = 9..=18;

/// The most bytes that a series of so many samples adds to a part with hashes.
pub(crate) fn hashed_bytes_max(samples: usize) -> usize {
    HASH_BYTES + COUNT_BYTES_MAX + samples * SAMPLE_BYTES.end()
}

/// Builds a part with hashes, series by series.
#[derive(Debug)]
pub(crate) struct HashedPartBuilder {
    out: Vec<u8>,
    before: TimestampMs,
}

impl HashedPartBuilder {
    /// A part of a tenant's request without anything, with room for so many bytes of series.
    pub(crate) fn new(tenant: &TenantId, series_bytes: usize) -> HashedPartBuilder {
        let tenant = tenant.as_str();
        let mut out = Vec::with_capacity(tenant.len() + 3 + series_bytes);
        put_text(&mut out, tenant);
        out.push(WITH_HASHES);
        HashedPartBuilder { out, before: 0 }
    }

    /// Adds a series with at least one sample.
    #[inline]
    pub(crate) fn put(&mut self, hash: u128, samples: &[(TimestampMs, f64)]) {
        self.out.extend_from_slice(&hash.to_le_bytes());
        put_varint(&mut self.out, samples.len() as u64);
        for &(t, v) in samples {
            put_zigzag(&mut self.out, t.wrapping_sub(self.before));
            self.out.extend_from_slice(&v.to_bits().to_le_bytes());
            self.before = t;
        }
    }

    /// Bytes of memory, used or not.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.out.capacity()
    }

    /// The part, which holds no memory that it does not need.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.out.shrink_to_fit();
        self.out
    }
}

/// Whose part it is, and the part.
pub(crate) fn decode(part: &[u8]) -> Result<(TenantId, Part<'_>), DecodeError> {
    let mut reader = Reader::new(part);
    let tenant = TenantId::new(reader.str()?).map_err(|_| reader.error("not a tenant"))?;
    match reader.u8()? {
        WITH_LABELS => Ok((tenant, Part::WithLabels(&part[reader.offset()..]))),
        WITH_HASHES => Ok((tenant, Part::WithHashes(decode_hashed(&mut reader)?))),
        _ => Err(reader.error("unknown form of a part")),
    }
}

fn decode_hashed(reader: &mut Reader<'_>) -> Result<HashedPart, DecodeError> {
    let series_max = reader.remaining() / (HASH_BYTES + 1 + SAMPLE_BYTES.start());
    let mut series = Vec::with_capacity(series_max);
    let mut samples = Vec::with_capacity(series_max);
    let mut t: TimestampMs = 0;
    while !reader.is_empty() {
        let hash = u128::from(reader.u64()?) | u128::from(reader.u64()?) << 64;
        let first = samples.len() as u32;
        let count = reader.count(*SAMPLE_BYTES.start())?;
        if count == 0 {
            return Err(reader.error("a series without samples"));
        }
        for _ in 0..count {
            t = t.wrapping_add(reader.zigzag()?);
            samples.push((t, f64::from_bits(reader.u64()?)));
        }
        series.push((hash, first..samples.len() as u32));
    }
    Ok(HashedPart { series, samples })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// What a home answers to a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// How the home finds its series.
    pub hasher: SeriesHasher,
    /// `None`: nothing was taken, and the labels are needed.
    pub outcome: Option<Outcome>,
}

impl Answer {
    /// The answer's body.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.hasher.put(&mut out);
        if let Some(outcome) = &self.outcome {
            outcome.put(&mut out);
        }
        out
    }

    /// Reads what [`Answer::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Answer, DecodeError> {
        let mut reader = Reader::new(bytes);
        let hasher = SeriesHasher::read(&mut reader)?;
        let outcome = if reader.is_empty() { None } else { Some(Outcome::read(&mut reader)?) };
        if !reader.is_empty() {
            return Err(reader.error("bytes after the end of an answer"));
        }
        Ok(Answer { hasher, outcome })
    }
}

impl Outcome {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.rejected.counts().count() as u64);
        for (reason, count) in self.rejected.counts() {
            out.push(reason.number());
            put_varint(out, count);
        }
        put_varint(out, self.rejected.first().len() as u64);
        self.rejected.first().iter().for_each(|line| put_text(out, line));
        put_varint(out, self.without_room.len() as u64);
        for &place in &self.without_room {
            put_varint(out, u64::from(place));
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Outcome, DecodeError> {
        let mut counts = BTreeMap::new();
        for _ in 0..reader.count(2)? {
            let reason = Reason::from_number(reader.u8()?).ok_or_else(|| reader.error("unknown reason"))?;
            counts.insert(reason, reader.varint()?);
        }
        let mut first = Vec::new();
        for _ in 0..reader.count(1)? {
            first.push(reader.str()?.to_owned());
        }
        let mut without_room = Vec::new();
        for _ in 0..reader.count(1)? {
            let place = u32::try_from(reader.varint()?).map_err(|_| reader.error("no place in a part"))?;
            if without_room.last().is_some_and(|last| *last >= place) {
                return Err(reader.error("places are not ascending"));
            }
            without_room.push(place);
        }
        Ok(Outcome { rejected: Rejected::from_parts(counts, first), without_room })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASHER: SeriesHasher = SeriesHasher::new([1, 2, 3, 4]);

    #[test]
    fn parts_are_read_back() {
        let tenant = TenantId::new("team-a").unwrap();
        let mut part = begin(&tenant, 3);
        part.extend_from_slice(b"abc");
        let (owner, decoded) = decode(&part).unwrap();
        assert!(owner == tenant && matches!(decoded, Part::WithLabels(b"abc")));
        part[7] = 2;
        assert!(decode(&part).is_err(), "a form that there is not");
    }

    #[test]
    fn a_series_without_samples_is_no_series() {
        let mut part = HashedPartBuilder::new(&TenantId::anonymous(), 0);
        part.put(1, &[]);
        let mut part = part.finish();
        assert!(decode(&part).is_err());
        // More than there are bytes for.
        *part.last_mut().unwrap() = 100;
        assert!(decode(&part).is_err());
    }

    fn answer(outcome: Option<Outcome>) -> Answer {
        Answer { hasher: HASHER, outcome }
    }

    #[test]
    fn answers_are_read_back() {
        let mut outcome = Outcome { without_room: vec![0, 7, u32::MAX], ..Outcome::default() };
        for i in 0..12 {
            outcome.rejected.add(Reason::ALL[i % 3], 300, || format!("series {i}"));
        }
        for answer in [answer(None), answer(Some(Outcome::default())), answer(Some(outcome))] {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
        let bad = |bytes: &[u8]| Answer::decode(&[&[0; 32], bytes].concat()).is_err();
        assert!(bad(&[0, 0, 2, 1, 1]) && bad(&[1, 99, 1, 0, 0]) && bad(&[0, 0, 0, 0]));
        assert_eq!(format!("{HASHER:?}"), "SeriesHasher(…)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_at_worst(bytes: Vec<u8>) {
            if let Ok(answer) = Answer::decode(&[&[0; 32], &bytes[..]].concat()) {
                prop_assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
            }
            if let Ok((_, Part::WithLabels(body))) = decode(&bytes) {
                prop_assert!(bytes.ends_with(body));
            }
            if let Ok((_, Part::WithHashes(part))) = decode(&[&[1, b'a', WITH_HASHES], &bytes[..]].concat()) {
                prop_assert!(part.samples.len() * SAMPLE_BYTES.start() <= bytes.len());
                prop_assert!(part.series.len() <= part.samples.len());
            }
        }

        #[test]
        fn parts_with_hashes_are_read_back(
            series: Vec<(u128, (i64, u64), Vec<(i64, u64)>)>,
        ) {
            let tenant = TenantId::new("team-a").unwrap();
            let mut part = HashedPartBuilder::new(&tenant, 10);
            let (empty, mut bytes_max) = (part.out.len(), 0);
            let mut all = Vec::new();
            for (hash, first, more) in &series {
                let samples: Vec<(i64, f64)> =
                    std::iter::once(first).chain(more).map(|&(t, v)| (t, f64::from_bits(v))).collect();
                part.put(*hash, &samples);
                bytes_max += hashed_bytes_max(samples.len());
                all.push((*hash, samples));
            }
            let part = part.finish();
            prop_assert!(part.len() - empty <= bytes_max);
            let (owner, Part::WithHashes(decoded)) = decode(&part).unwrap() else { panic!("labels") };
            prop_assert_eq!(owner, tenant);
            let bits = |samples: &[(i64, f64)]| samples.iter().map(|(t, v)| (*t, v.to_bits())).collect::<Vec<_>>();
            let read: Vec<_> = decoded.series.iter().map(|(hash, at)| {
                (*hash, bits(&decoded.samples[at.start as usize..at.end as usize]))
            }).collect();
            prop_assert_eq!(read, all.iter().map(|(hash, samples)| (*hash, bits(samples))).collect::<Vec<_>>());
        }
    }
}
