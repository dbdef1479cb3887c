//! The bytes of a part of a request and of its answer; docs/formats/peer.md.
//!
//! A part is the request's own series as they lay on the wire, put together: a request again, which the home decodes
//! and checks like any other. Nothing is trusted but the tenant, as whoever sends it is a node of the cluster.

use std::collections::BTreeMap;

use model::{DecodeError, Reader, TenantId, put_varint};

use crate::error::{Reason, Rejected};

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

/// Begins a part of a tenant's request, with room for so many bytes of series.
pub(crate) fn begin(tenant: &TenantId, series_bytes: usize) -> Vec<u8> {
    let tenant = tenant.as_str();
    let mut out = Vec::with_capacity(tenant.len() + 2 + series_bytes);
    put_text(&mut out, tenant);
    out
}

/// Whose part it is, and the request that it holds.
pub(crate) fn decode(part: &[u8]) -> Result<(TenantId, &[u8]), DecodeError> {
    let mut reader = Reader::new(part);
    let tenant = TenantId::new(reader.str()?).map_err(|_| reader.error("not a tenant"))?;
    Ok((tenant, &part[reader.offset()..]))
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

impl Outcome {
    /// The answer's body.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.rejected.counts().count() as u64);
        for (reason, count) in self.rejected.counts() {
            out.push(reason.number());
            put_varint(&mut out, count);
        }
        put_varint(&mut out, self.rejected.first().len() as u64);
        self.rejected.first().iter().for_each(|line| put_text(&mut out, line));
        put_varint(&mut out, self.without_room.len() as u64);
        for &place in &self.without_room {
            put_varint(&mut out, u64::from(place));
        }
        out
    }

    /// Reads what [`Outcome::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Outcome, DecodeError> {
        let mut reader = Reader::new(bytes);
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
        if !reader.is_empty() {
            return Err(reader.error("bytes after the end of an answer"));
        }
        Ok(Outcome { rejected: Rejected::from_parts(counts, first), without_room })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_read_back() {
        let tenant = TenantId::new("team-a").unwrap();
        let mut part = begin(&tenant, 3);
        part.extend_from_slice(b"abc");
        assert_eq!(decode(&part), Ok((tenant, &b"abc"[..])));
    }

    #[test]
    fn answers_are_read_back() {
        let mut outcome = Outcome { without_room: vec![0, 7, u32::MAX], ..Outcome::default() };
        assert_eq!(Outcome::decode(&Outcome::default().encode()), Ok(Outcome::default()));
        for i in 0..12 {
            outcome.rejected.add(Reason::ALL[i % 3], 300, || format!("series {i}"));
        }
        assert_eq!(Outcome::decode(&outcome.encode()), Ok(outcome));
        assert!(Outcome::decode(&[0, 0, 2, 1, 1]).is_err() && Outcome::decode(&[1, 99, 1, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_at_worst(bytes: Vec<u8>) {
            let _ = Outcome::decode(&bytes).is_ok();
            let _ = decode(&bytes).is_ok();
        }
    }
}
