//! The series of a head, found by their writer-local ids.

use segment::{IdRun, SeriesId};

use crate::arena::StringRef;
use crate::slab::Chain;

/// Ids in a page: 12 KiB of series.
const PAGE: usize = 1024;

/// The labels of an id that was not spelled out.
const UNSPELLED: StringRef = StringRef::MAX;

/// One series. 12 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Series {
    /// Its label pairs, as [`crate::labels`] writes them.
    pub(crate) labels: StringRef,
    /// Its codes.
    pub(crate) codes: Chain,
}

impl Series {
    const EMPTY: Series = Series { labels: UNSPELLED, codes: Chain::EMPTY };

    #[inline]
    pub(crate) fn is_spelled(&self) -> bool {
        self.labels != UNSPELLED
    }
}

/// All series, by id. Ids are dense, as the writer gives them out; a forged id costs a page and at most 32 MiB of
/// (untouched) page table.
#[derive(Debug, Default)]
pub(crate) struct SeriesTable {
    pages: Vec<Option<Box<[Series]>>>,
    pages_in_use: usize,
    /// How many are spelled out.
    pub(crate) len: usize,
}

impl SeriesTable {
    /// The series with this id, if it was spelled out.
    #[inline]
    pub(crate) fn get(&self, id: SeriesId) -> Option<&Series> {
        let page = self.pages.get(id as usize / PAGE)?.as_ref()?;
        Some(&page[id as usize % PAGE]).filter(|series| series.is_spelled())
    }

    /// Enters a series that is not there yet.
    pub(crate) fn insert(&mut self, id: SeriesId, labels: StringRef) {
        let number = id as usize / PAGE;
        if number >= self.pages.len() {
            self.pages.resize_with(number + 1, || None);
        }
        let page = self.pages[number].get_or_insert_with(|| {
            self.pages_in_use += 1;
            vec![Series::EMPTY; PAGE].into()
        });
        page[id as usize % PAGE] = Series { labels, codes: Chain::EMPTY };
        self.len += 1;
    }

    /// The series of a run of ids, page by page: the first id, how many, and the series, spelled or not; `None` where
    /// no page was ever filled.
    pub(crate) fn slices(&self, run: IdRun) -> impl Iterator<Item = (SeriesId, u32, Option<&[Series]>)> {
        page_ranges(run).map(|(first, number, range)| {
            let page = self.pages.get(number).and_then(Option::as_ref);
            (first, range.len() as u32, page.map(|page| &page[range]))
        })
    }

    /// The series of a run of ids, each of which is known to be spelled out, page by page.
    pub(crate) fn slices_mut(&mut self, run: IdRun, mut visit: impl FnMut(&mut [Series])) {
        for (_, number, range) in page_ranges(run) {
            let page = self.pages[number].as_mut().expect("the ids were checked");
            visit(&mut page[range]);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.pages_in_use * PAGE * size_of::<Series>() + self.pages.capacity() * size_of::<Option<Box<[Series]>>>()
    }
}

/// Splits a run where pages end: first id, page, and range within it.
fn page_ranges(run: IdRun) -> impl Iterator<Item = (SeriesId, usize, std::ops::Range<usize>)> {
    let (mut at, end) = (run.first as usize, run.first as usize + run.len as usize);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (number, from) = (at / PAGE, at % PAGE);
        let to = PAGE.min(from + end - at);
        let first = at as SeriesId;
        at += to - from;
        Some((first, number, from..to))
    })
}
