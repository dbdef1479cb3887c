//! Which series the latest segments brought samples for, so that a query can leave them out again.

use std::collections::VecDeque;
use std::sync::Arc;

use model::SegmentNumber;
use segment::{Ids, SeriesId};

/// Memory for it, in bytes. A steady sender's segment takes some hundred, one in random order a byte or two a sample;
/// so this goes back for at least a second, and a query that comes later than that plans again.
const BYTES_MAX: usize = 4 << 20;

/// Segments, at most.
const SEGMENTS_MAX: usize = 1024;

/// The ids of the latest segments.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    latest: VecDeque<Arc<Ids>>,
    bytes: usize,
}

impl Arrivals {
    /// Remembers the ids of the segment that was just taken in; forgets the oldest if memory asks for it.
    pub(crate) fn push(&mut self, ids: &Ids) {
        let ids = Arc::new(ids.clone());
        self.bytes += ids.memory_bytes();
        self.latest.push_back(ids);
        while self.bytes > BYTES_MAX || self.latest.len() > SEGMENTS_MAX {
            let Some(oldest) = self.latest.pop_front() else { break };
            self.bytes -= oldest.memory_bytes();
        }
    }

    /// The ids of the segments after `upto`, up to `applied`; `None` if they are not all remembered.
    pub(crate) fn after(&self, upto: SegmentNumber, applied: SegmentNumber) -> Option<Vec<Arc<Ids>>> {
        let count = usize::try_from(applied.checked_sub(upto)?).ok()?;
        let skip = self.latest.len().checked_sub(count)?;
        Some(self.latest.iter().skip(skip).cloned().collect())
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes + self.latest.capacity() * size_of::<Arc<Ids>>()
    }
}

/// Counts for each of `series`, which ascend, how many samples these segments brought.
pub(crate) fn count_arrivals(segments: &[Arc<Ids>], series: &[SeriesId]) -> Vec<u32> {
    let mut counts = vec![0; series.len()];
    for run in segments.iter().flat_map(|ids| ids.runs()) {
        let from = series.partition_point(|&id| id < run.first);
        for (count, &id) in counts[from..].iter_mut().zip(&series[from..]) {
            if id - run.first >= run.len {
                break;
            }
            *count += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use segment::{Columns, SeriesState};

    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        // Every other id: each is a run, and takes a byte.
        let mut columns = Columns::new();
        for id in 0..300_000 {
            columns.push_float(id * 2, &mut SeriesState::default(), 0, 0.0);
        }
        let mut arrivals = Arrivals::default();
        for _ in 0..30 {
            arrivals.push(columns.ids());
        }
        assert!(arrivals.memory_bytes() < BYTES_MAX + 100_000);
        assert_eq!(arrivals.after(30, 30).map(|ids| ids.len()), Some(0));
        assert_eq!(arrivals.after(28, 30).map(|ids| ids.len()), Some(2));
        assert!(arrivals.after(2, 30).is_none());
        let latest = arrivals.after(27, 30).unwrap();
        assert_eq!(count_arrivals(&latest, &[0, 1, 599_998, 600_000]), [3, 0, 3, 0]);
    }
}
