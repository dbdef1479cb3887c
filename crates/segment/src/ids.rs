//! The ids column: which series each sample belongs to, as runs of consecutive ids.
//!
//! A steady sender repeats its series in the order in which they got their ids, so a run is as long as its request.
//! In random order a run is one sample; a sealed segment is sorted then, and small gaps are left.

use model::{DecodeError, Reader, put_varint, unzigzag, zigzag};

use crate::SeriesId;

/// Consecutive ids, in ascending order, one sample each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IdRun {
    /// The first id.
    pub first: SeriesId,
    /// How many; 0 only in a run not begun.
    pub len: u32,
}

impl IdRun {
    /// The id after the last.
    #[inline]
    fn end(self) -> SeriesId {
        self.first.wrapping_add(self.len)
    }

    /// The ids.
    pub fn ids(self) -> impl Iterator<Item = SeriesId> {
        (0..self.len).map(move |i| self.first.wrapping_add(i))
    }
}

/// The ids of all samples of a segment, in their order. A byte or two a run.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    /// The runs that are complete.
    bytes: Vec<u8>,
    /// Where the last complete run ended.
    last_end: SeriesId,
    /// The run that may still grow.
    open: IdRun,
    /// Runs in all.
    runs: usize,
}

impl Ids {
    /// Appends the id of one sample.
    #[inline]
    pub(crate) fn push(&mut self, id: SeriesId) {
        if self.open.len != 0 && self.open.end() == id && id != 0 {
            self.open.len += 1;
            return;
        }
        self.close_run();
        self.open = IdRun { first: id, len: 1 };
        self.runs += 1;
    }

    fn close_run(&mut self) {
        if self.open.len != 0 {
            put_run(&mut self.bytes, self.last_end, self.open);
            self.last_end = self.open.end();
        }
    }

    /// The runs, in order.
    pub fn runs(&self) -> impl Iterator<Item = IdRun> + '_ {
        let mut reader = Reader::new(&self.bytes);
        let mut end = 0;
        let complete = std::iter::from_fn(move || {
            // The bytes are of our own making, or were checked when they were decoded.
            let run = read_run(&mut reader, end).ok()?;
            end = run.end();
            Some(run)
        });
        complete.chain((self.open.len != 0).then_some(self.open))
    }

    /// How many runs there are.
    pub fn run_count(&self) -> usize {
        self.runs
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Ids>() + self.bytes.capacity()
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The column as it is stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut whole = self.clone();
        whole.close_run();
        whole.bytes
    }

    /// Reads a stored column, which must hold exactly `samples` ids.
    pub(crate) fn decode(bytes: &[u8], samples: u64) -> Result<Ids, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (mut count, mut runs, mut end) = (0u64, 0, 0);
        while !reader.is_empty() {
            let run = read_run(&mut reader, end)?;
            count += u64::from(run.len);
            (runs, end) = (runs + 1, run.end());
        }
        if count != samples {
            return Err(reader.error("another number of ids than of values"));
        }
        Ok(Ids { bytes: bytes.to_vec(), last_end: end, open: IdRun::default(), runs })
    }
}

/// One varint for a lone id, two for a longer run; what counts is the gap to the end of the run before.
fn put_run(out: &mut Vec<u8>, last_end: SeriesId, run: IdRun) {
    let gap = zigzag(i64::from(run.first) - i64::from(last_end));
    put_varint(out, gap << 1 | u64::from(run.len > 1));
    if run.len > 1 {
        put_varint(out, u64::from(run.len));
    }
}

#[inline]
fn read_run(reader: &mut Reader<'_>, last_end: SeriesId) -> Result<IdRun, DecodeError> {
    let code = reader.varint()?;
    let len = if code & 1 == 0 { 1 } else { reader.varint()? };
    let first = i64::from(last_end).checked_add(unzigzag(code >> 1)).and_then(|first| u32::try_from(first).ok());
    let Some(first) = first else {
        return Err(reader.error("id out of range"));
    };
    // The end of the last run may be 2^32, which wraps to 0.
    if len == 0 || u64::from(first) + len > 1 << 32 || len > u64::from(u32::MAX) {
        return Err(reader.error("run of ids out of range"));
    }
    Ok(IdRun { first, len: len as u32 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(ids: &Ids) -> Vec<u32> {
        ids.runs().flat_map(IdRun::ids).collect()
    }

    proptest! {
        #[test]
        fn any_ids_return(list in prop::collection::vec(prop_oneof![0u32..9, any::<u32>(), (u32::MAX - 3)..=u32::MAX], 0..99)) {
            let mut ids = Ids::default();
            list.iter().for_each(|&id| ids.push(id));
            prop_assert_eq!(&all(&ids), &list);
            let stored = ids.encode();
            let decoded = Ids::decode(&stored, list.len() as u64).unwrap();
            prop_assert_eq!(&all(&decoded), &list);
            prop_assert_eq!(decoded.run_count(), ids.run_count());
            prop_assert!(Ids::decode(&stored, list.len() as u64 + 1).is_err());
        }

        #[test]
        fn any_bytes_are_an_error_at_worst(bytes: Vec<u8>, samples in 0u64..99) {
            if let Ok(ids) = Ids::decode(&bytes, samples) {
                prop_assert_eq!(all(&ids).len() as u64, samples);
            }
        }
    }

    #[test]
    fn a_steady_order_takes_three_bytes() {
        let mut ids = Ids::default();
        (0..10_000).for_each(|id| ids.push(id));
        (0..10_000).for_each(|id| ids.push(id));
        assert_eq!(ids.encode().len(), 3 + 5);
    }
}
