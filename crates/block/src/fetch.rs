//! The ranges that one round of a request wants, joined into fewer to fetch, and cut out again of what came.

use std::ops::Range;

use bytes::Bytes;

use crate::error::BlockError;

/// Wanted ranges this close are fetched as one: reading some bytes for nothing is cheaper than another request.
const GAP_BYTES_MAX: u64 = 8 << 10;

/// Bytes that one round of a request may want, unless a single range is longer: bounds what is in memory at once.
pub(crate) const ROUND_BYTES_MAX: u64 = 8 << 20;

/// One round.
#[derive(Debug)]
pub(crate) struct Fetch {
    wanted: Vec<Range<u64>>,
    joined: Vec<Range<u64>>,
}

impl Fetch {
    /// `wanted` ascend by start and end; they may touch or repeat.
    pub(crate) fn new(wanted: Vec<Range<u64>>) -> Fetch {
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in &wanted {
            match joined.last_mut() {
                Some(last) if range.start <= last.end.saturating_add(GAP_BYTES_MAX) => {
                    last.end = last.end.max(range.end)
                }
                _ => joined.push(range.clone()),
            }
        }
        joined.retain(|range| !range.is_empty());
        Fetch { wanted, joined }
    }

    /// One range, not empty.
    pub(crate) fn one(range: Range<u64>) -> Fetch {
        Fetch { wanted: Vec::from([range.clone()]), joined: Vec::from([range]) }
    }

    /// What to fetch: ascending, disjoint, not empty.
    pub(crate) fn ranges(&self) -> Vec<Range<u64>> {
        self.joined.clone()
    }

    /// Takes what was fetched and returns the bytes of each wanted range, in their order.
    pub(crate) fn cut(&self, parts: &[Bytes]) -> Result<Vec<Bytes>, BlockError> {
        for (i, range) in self.joined.iter().enumerate() {
            let got = parts.get(i).map_or(0, |part| part.len() as u64);
            let wanted = range.end - range.start;
            if got != wanted {
                return Err(BlockError::WrongLength { offset: range.start, wanted, got });
            }
        }
        let cut = |range: &Range<u64>| {
            let i = self.joined.partition_point(|joined| joined.end < range.end);
            match (self.joined.get(i), parts.get(i)) {
                (Some(joined), Some(part)) if !range.is_empty() => {
                    part.slice((range.start - joined.start) as usize..(range.end - joined.start) as usize)
                }
                _ => Bytes::new(),
            }
        };
        Ok(self.wanted.iter().map(cut).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_joined_and_cut_out_again() {
        let object: Vec<u8> = (0..100_000u32).map(|i| (i / 7) as u8).collect();
        let object = Bytes::from(object);
        let fetch = Fetch::new(vec![5..10, 10..10, 10..20, 12..18, 8000..9000, 50_000..50_001]);
        assert_eq!(fetch.ranges(), [5..9000, 50_000..50_001]);
        let get = |range: &Range<u64>| object.slice(range.start as usize..range.end as usize);
        let parts: Vec<_> = fetch.ranges().iter().map(get).collect();
        let cut = fetch.cut(&parts).unwrap();
        assert_eq!(cut, fetch.wanted.iter().map(get).collect::<Vec<_>>());
        let short = [parts[0].clone(), Bytes::new()];
        assert_eq!(fetch.cut(&short), Err(BlockError::WrongLength { offset: 50_000, wanted: 1, got: 0 }));
        assert!(fetch.cut(&parts[..1]).is_err());
    }
}
