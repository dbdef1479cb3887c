//! One posting list: ascending ordinals, and where the dictionary says to find them.
//!
//! A term's value in the dictionary is either a *run* (consecutive ordinals, such as a metric's name in a block sorted by
//! it; no bytes elsewhere) or a *place* among the postings. A stored list is the smaller of two forms: varint gaps or a
//! roaring bitmap; a checksum follows.

use std::ops::Range;

use model::{DecodeError, Reader, put_varint};
use roaring::RoaringBitmap;

use crate::error::PostingsError;

const RUN: u64 = 1 << 63;
const LENGTH_BITS: u32 = 27;
const FORM_GAPS: u8 = 0;
const FORM_ROARING: u8 = 1;
/// Form and checksum.
const OVERHEAD: usize = 5;
/// A roaring bitmap can't be smaller than its gaps below this many bytes of them.
const ROARING_FROM_BYTES: usize = 16;

/// What a term's value in the dictionary says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pointer {
    /// These ordinals.
    Run(Range<u32>),
    /// The list in these bytes of the postings.
    Place(Range<u64>),
}

impl Pointer {
    pub(crate) fn from_value(value: u64) -> Pointer {
        if value & RUN != 0 {
            let (first, count) = (value as u32, (value >> 32) as u32 & 0x7fff_ffff);
            Pointer::Run(first..first.saturating_add(count))
        } else {
            let start = value >> LENGTH_BITS;
            Pointer::Place(start..start + (value & ((1 << LENGTH_BITS) - 1)))
        }
    }

    fn to_value(&self) -> Result<u64, PostingsError> {
        match self {
            Pointer::Run(run) => {
                let count = run.end - run.start;
                if count > 0x7fff_ffff {
                    return Err(PostingsError::TooLarge);
                }
                Ok(RUN | u64::from(count) << 32 | u64::from(run.start))
            }
            Pointer::Place(place) => {
                let length = place.end - place.start;
                if length >> LENGTH_BITS != 0 || place.start >> (63 - LENGTH_BITS) != 0 {
                    return Err(PostingsError::TooLarge);
                }
                Ok(place.start << LENGTH_BITS | length)
            }
        }
    }
}

/// A list that grows; a run takes no memory of its own.
#[derive(Debug, Default)]
pub(crate) struct List {
    first: u32,
    /// One after the last.
    next: u32,
    count: u32,
    /// The gaps before each ordinal after the first, less one; empty while it is a run.
    gaps: Vec<u8>,
}

impl List {
    /// Appends an ordinal, which must be above all before; one equal to the last is left out.
    pub(crate) fn push(&mut self, ordinal: u32) {
        if self.count == 0 {
            self.first = ordinal;
        } else if ordinal < self.next {
            return;
        } else if ordinal > self.next && self.gaps.is_empty() {
            self.gaps.resize(self.count as usize - 1, 0);
            put_varint(&mut self.gaps, u64::from(ordinal - self.next));
        } else if !self.gaps.is_empty() {
            put_varint(&mut self.gaps, u64::from(ordinal - self.next));
        }
        self.next = ordinal + 1;
        self.count += 1;
    }

    /// Appends the list to `postings`, unless it is a run, and returns its value for the dictionary.
    pub(crate) fn finish(self, postings: &mut Vec<u8>) -> Result<u64, PostingsError> {
        if self.gaps.is_empty() {
            return Pointer::Run(self.first..self.next).to_value();
        }
        let start = postings.len();
        let roaring = if self.gaps.len() < ROARING_FROM_BYTES { None } else { self.to_roaring() };
        match roaring {
            Some(bitmap) => {
                postings.push(FORM_ROARING);
                bitmap.serialize_into(&mut *postings).expect("writing to memory does not fail");
            }
            None => {
                postings.push(FORM_GAPS);
                put_varint(postings, u64::from(self.first));
                postings.extend_from_slice(&self.gaps);
            }
        }
        let checksum = crc32c::crc32c(&postings[start..]);
        postings.extend_from_slice(&checksum.to_le_bytes());
        Pointer::Place(start as u64..postings.len() as u64).to_value()
    }

    /// The bitmap, if it is smaller than the gaps.
    fn to_roaring(&self) -> Option<RoaringBitmap> {
        let mut bitmap = from_gaps(self.first, &mut Reader::new(&self.gaps)).expect("these are our own gaps");
        bitmap.optimize();
        (bitmap.serialized_size() < self.gaps.len()).then_some(bitmap)
    }
}

fn from_gaps(first: u32, gaps: &mut Reader<'_>) -> Result<RoaringBitmap, DecodeError> {
    let mut bitmap = RoaringBitmap::new();
    let mut run = first..first.checked_add(1).ok_or_else(|| gaps.error("ordinal out of range"))?;
    while !gaps.is_empty() {
        let gap = gaps.varint()?;
        let ordinal = u32::try_from(u64::from(run.end).saturating_add(gap)).ok().filter(|&o| o < u32::MAX);
        let ordinal = ordinal.ok_or_else(|| gaps.error("ordinal out of range"))?;
        if gap > 0 {
            bitmap.insert_range(run.clone());
            run.start = ordinal;
        }
        run.end = ordinal + 1;
    }
    bitmap.insert_range(run);
    Ok(bitmap)
}

/// Reads a stored list, all of `bytes`; `offset` is where it lies, for the error.
pub(crate) fn decode(bytes: &[u8], offset: u64) -> Result<RoaringBitmap, PostingsError> {
    decode_list(bytes).map_err(|what| PostingsError::CorruptList { offset, what })
}

fn decode_list(bytes: &[u8]) -> Result<RoaringBitmap, DecodeError> {
    let error = |what| DecodeError { offset: 0, what };
    if bytes.len() <= OVERHEAD {
        return Err(error("shorter than a list can be"));
    }
    let (body, checksum) = bytes.split_at(bytes.len() - 4);
    if crc32c::crc32c(body).to_le_bytes() != checksum {
        return Err(error("checksum does not match"));
    }
    let mut reader = Reader::new(body);
    match reader.u8()? {
        FORM_GAPS => {
            let first = u32::try_from(reader.varint()?).map_err(|_| reader.error("ordinal out of range"))?;
            from_gaps(first, &mut reader)
        }
        FORM_ROARING => {
            RoaringBitmap::deserialize_from(reader.take(reader.remaining())?).map_err(|_| error("not a roaring bitmap"))
        }
        _ => Err(error("unknown form of list")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn check(ordinals: &BTreeSet<u32>) {
        let mut list = List::default();
        for &ordinal in ordinals {
            list.push(ordinal);
            list.push(ordinal);
        }
        let mut postings = vec![7; 3];
        match Pointer::from_value(list.finish(&mut postings).unwrap()) {
            Pointer::Run(run) => assert!(run.eq(ordinals.iter().copied()) && postings.len() == 3),
            Pointer::Place(place) => {
                assert_eq!(place, 3..postings.len() as u64);
                let bytes = &mut postings[3..];
                assert!(decode(bytes, 3).unwrap().iter().eq(ordinals.iter().copied()));
                for i in 0..bytes.len().min(64) {
                    bytes[i] ^= 4;
                    assert!(decode(bytes, 3).is_err());
                    bytes[i] ^= 4;
                    assert!(decode(&bytes[..i], 3).is_err());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn lists_return(sparse in prop::collection::btree_set(0u32..1 << 20, 1..200), runs in prop::collection::vec((0u32..4000, 1u32..40), 1..40)) {
            check(&sparse);
            check(&runs.iter().flat_map(|&(start, n)| start..start + n).collect());
        }

        #[test]
        fn any_bytes_are_an_error_at_worst(form in 0u8..3, mut bytes: Vec<u8>) {
            bytes.insert(0, form);
            let checksum = crc32c::crc32c(&bytes);
            bytes.extend_from_slice(&checksum.to_le_bytes());
            drop(decode(&bytes, 0));
        }
    }

    #[test]
    fn the_smaller_form_is_stored() {
        check(&(0..100_000).filter(|n| n % 3 != 0).collect());
        check(&(0..100_000).filter(|n| n % 1000 < 500).collect());
        check(&BTreeSet::from([0, u32::MAX - 2]));
        check(&(5..10).collect());
    }
}
