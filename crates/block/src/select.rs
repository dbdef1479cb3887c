//! Questions about series: which match, their labels, their samples.
//!
//! All start alike ([`Selection`]): the terms say which posting lists are needed, those say which rows match, and the
//! series pages of those rows say what they are called and when they have samples. [`Select`] then reads chunk pages.
//! Pages and rows outside the time range are skipped at each step. Fetches come in rounds of bounded size.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use chunk::{Page, open_frame};
use model::{Labels, Samples, Shard, TenantId, TimeRange};
use postings::{Matchers, Plan, Postings, PostingsError};

use crate::error::{BlockError, Section};
use crate::fetch::{Fetch, ROUND_BYTES_MAX};
use crate::index::BlockIndex;
use crate::request::{Request, Step};
use crate::series_page::{self, Row};
use crate::writer::SERIES_PAGE_BYTES_MAX;

/// A row that was selected.
struct Found {
    /// The page's place in the directory.
    page: usize,
    row: Row,
}

/// What all questions share: from matchers to the labels of the rows that match.
struct Selection {
    index: Arc<BlockIndex>,
    tenant: TenantId,
    matchers: Arc<Matchers>,
    range: TimeRange,
    state: State,
}

enum State {
    Start,
    Postings { plan: Plan, fetch: Fetch },
    SeriesPages { rows: Postings, pages: Vec<usize>, next: usize, fetch: Option<Fetch>, found: Vec<Found> },
    Done,
}

impl Selection {
    fn new(index: Arc<BlockIndex>, tenant: &TenantId, matchers: Arc<Matchers>, range: TimeRange) -> Selection {
        Selection { index, tenant: tenant.clone(), matchers, range, state: State::Start }
    }

    /// Whether the block has series of the tenant and samples in the range.
    fn overlaps(&self) -> bool {
        let has_tenant = self.index.directory.tenant(&self.tenant).is_some_and(|entry| !entry.rows.is_empty());
        has_tenant && self.index.footer.time_range.is_some_and(|range| range.overlaps(&self.range))
    }

    fn step(&mut self) -> Result<Step<Vec<Found>>, BlockError> {
        if matches!(self.state, State::Start) {
            self.start()?;
        }
        match &mut self.state {
            State::Postings { fetch, .. } => Ok(Step::Fetch(fetch.ranges())),
            State::SeriesPages { pages, next, found, .. } if *next == pages.len() => {
                let found = std::mem::take(found);
                self.state = State::Done;
                Ok(Step::Done(found))
            }
            State::SeriesPages { pages, next, fetch, .. } => {
                let directory = &self.index.directory.pages;
                let round = pages[*next..].iter().map(|&page| directory[page].series.clone());
                Ok(Step::Fetch(fetch.insert(next_round(round)).ranges()))
            }
            State::Start | State::Done => Err(BlockError::OutOfTurn("the answer was given already")),
        }
    }

    /// Plans; goes as far as it can without a fetch.
    fn start(&mut self) -> Result<(), BlockError> {
        if !self.overlaps() {
            return self.take_rows(&Plan::default(), &[]);
        }
        let sections = &self.index.footer.sections;
        let corrupt = |what: &dyn std::fmt::Display| BlockError::corrupt(Section::Terms, sections.terms.start, what);
        let plan = self.index.terms.plan(&self.tenant, &self.matchers).map_err(|e| corrupt(&e))?;
        let Range { start, end } = sections.postings;
        if let Some(need) = plan.needs().iter().find(|need| need.end > end - start) {
            return Err(corrupt(&format_args!("a posting list at {}..{} is past the end", need.start, need.end)));
        }
        let fetch = Fetch::new(plan.needs().iter().map(|need| need.start + start..need.end + start).collect());
        if fetch.ranges().is_empty() {
            return self.take_rows(&plan, &[]);
        }
        self.state = State::Postings { plan, fetch };
        Ok(())
    }

    fn supply(&mut self, parts: &[Bytes]) -> Result<(), BlockError> {
        match &mut self.state {
            State::Postings { plan, fetch } => {
                let lists = fetch.cut(parts)?;
                let plan = std::mem::take(plan);
                self.take_rows(&plan, &lists)
            }
            State::SeriesPages { rows, pages, next, fetch, found } => {
                let fetch = fetch.take().ok_or(BlockError::OutOfTurn("nothing was asked for"))?;
                for bytes in fetch.cut(parts)? {
                    let page = pages[*next];
                    read_series_page(&self.index, page, &bytes, rows, self.range, found)?;
                    *next += 1;
                }
                Ok(())
            }
            State::Start | State::Done => Err(BlockError::OutOfTurn("nothing was asked for")),
        }
    }

    /// Resolves the plan and finds the pages that its rows are in.
    fn take_rows(&mut self, plan: &Plan, lists: &[Bytes]) -> Result<(), BlockError> {
        let start = self.index.footer.sections.postings.start;
        let rows = plan.resolve(lists).map_err(|e| match e {
            PostingsError::CorruptList { offset, what } => {
                BlockError::corrupt(Section::Postings, start.saturating_add(offset), what)
            }
            e => BlockError::corrupt(Section::Postings, start, e),
        })?;
        let tenant_rows = self.index.directory.tenant(&self.tenant).map_or(0..0, |entry| entry.rows.clone());
        let is_inside = |row: Option<u32>| row.is_none_or(|row| tenant_rows.contains(&row));
        if !is_inside(rows.min()) || !is_inside(rows.max()) {
            return Err(BlockError::corrupt(Section::Postings, start, "a posting is not a row of its tenant"));
        }
        let directory = &self.index.directory.pages;
        let mut pages = Vec::new();
        let mut row = rows.min();
        while let Some(at) = row {
            let page = directory.partition_point(|page| page.rows.end <= at);
            if directory[page].range.overlaps(&self.range) {
                pages.push(page);
            }
            row = rows.range(directory[page].rows.end..).next();
        }
        self.state = State::SeriesPages { rows, pages, next: 0, fetch: None, found: Vec::new() };
        Ok(())
    }
}

/// As many of the wanted ranges as fit one round, at least one.
fn next_round(wanted: impl Iterator<Item = Range<u64>>) -> Fetch {
    let mut bytes = 0;
    let round = wanted.enumerate().take_while(|(i, range)| {
        bytes += range.end - range.start;
        *i == 0 || bytes <= ROUND_BYTES_MAX
    });
    Fetch::new(round.map(|(_, range)| range).collect())
}

fn read_series_page(
    index: &BlockIndex,
    page: usize,
    bytes: &[u8],
    rows: &Postings,
    range: TimeRange,
    found: &mut Vec<Found>,
) -> Result<(), BlockError> {
    let entry = &index.directory.pages[page];
    let corrupt = |what: &dyn std::fmt::Display| BlockError::corrupt(Section::SeriesPage, entry.series.start, what);
    let body = open_frame(bytes, SERIES_PAGE_BYTES_MAX).map_err(|e| corrupt(&e))?;
    let is_wanted = |row: usize| rows.contains(entry.rows.start + row as u32);
    let page_rows = series_page::decode(&body, entry.rows.len(), range, is_wanted).map_err(|e| corrupt(&e))?;
    found.extend(page_rows.into_iter().map(|row| Found { page, row }));
    Ok(())
}

/// Reads the samples of the series that match, clipped to a range; series without a sample in it are left out.
/// Ordered by labels.
pub struct Select {
    selection: Selection,
    samples_max: u64,
    shard: Shard,
    rows: Option<ChunkPages>,
}

/// The second half of a [`Select`]: rows are known, their samples are not.
struct ChunkPages {
    found: Vec<Found>,
    /// Rows before this one are answered.
    next: usize,
    /// The pages asked for, by their place in the directory.
    pages: Vec<usize>,
    fetch: Option<Fetch>,
    series: Vec<(Labels, Samples)>,
}

impl Select {
    /// See the type.
    pub fn new(index: Arc<BlockIndex>, tenant: &TenantId, matchers: Arc<Matchers>, range: TimeRange) -> Select {
        let selection = Selection::new(index, tenant, matchers, range);
        Select { selection, samples_max: u64::MAX, shard: Shard::WHOLE, rows: None }
    }

    /// Refuses with `TooManySamples` a selection whose series hold more samples in this block, before fetching them.
    pub fn with_samples_max(mut self, samples_max: u64) -> Select {
        self.samples_max = samples_max;
        self
    }

    /// Leaves out the series of other shards, without fetching their samples.
    pub fn with_shard(mut self, shard: Shard) -> Select {
        self.shard = shard;
        self
    }
}

impl Request for Select {
    type Output = Vec<(Labels, Samples)>;

    fn step(&mut self) -> Result<Step<Self::Output>, BlockError> {
        if self.rows.is_none() {
            let mut found = match self.selection.step()? {
                Step::Fetch(ranges) => return Ok(Step::Fetch(ranges)),
                Step::Done(found) => found,
            };
            if self.shard != Shard::WHOLE {
                found.retain(|found| self.shard.has(&found.row.labels));
            }
            let samples = samples_of(&found);
            if samples > self.samples_max {
                return Err(BlockError::TooManySamples { max: self.samples_max });
            }
            self.rows = Some(ChunkPages { found, next: 0, pages: Vec::new(), fetch: None, series: Vec::new() });
        }
        let Some(rows) = &mut self.rows else { return Err(BlockError::OutOfTurn("no rows")) };
        if rows.next == rows.found.len() {
            return Ok(Step::Done(std::mem::take(&mut rows.series)));
        }
        rows.pages = rows.found[rows.next..].iter().map(|found| found.page).collect();
        rows.pages.dedup();
        let directory = &self.selection.index.directory.pages;
        let fetch = next_round(rows.pages.iter().map(|&page| directory[page].chunk.clone()));
        Ok(Step::Fetch(rows.fetch.insert(fetch).ranges()))
    }

    fn supply(&mut self, parts: Vec<Bytes>) -> Result<(), BlockError> {
        let Some(rows) = &mut self.rows else { return self.selection.supply(&parts) };
        let fetch = rows.fetch.take().ok_or(BlockError::OutOfTurn("nothing was asked for"))?;
        let pages = std::mem::take(&mut rows.pages);
        for (page, bytes) in pages.into_iter().zip(fetch.cut(&parts)?) {
            rows.read_page(&self.selection.index, page, &bytes, self.selection.range)?;
        }
        Ok(())
    }
}

impl ChunkPages {
    /// Decodes the found rows of one page.
    fn read_page(&mut self, index: &BlockIndex, page: usize, bytes: &[u8], range: TimeRange) -> Result<(), BlockError> {
        let offset = index.directory.pages[page].chunk.start;
        let corrupt = |what: &dyn std::fmt::Display| BlockError::corrupt(Section::ChunkPage, offset, what);
        let chunks = Page::decode(bytes).map_err(|e| corrupt(&e))?;
        while let Some(Found { row, .. }) = self.found.get(self.next).filter(|found| found.page == page) {
            let mut samples = chunks.series(row.number).map_err(|e| corrupt(&e))?;
            let extent = row.extent;
            let ends = (samples.timestamps.first().copied(), samples.timestamps.last().copied());
            // A page that was swapped for another has the right checksum, but hardly the right times.
            if samples.len() as u64 != extent.samples || ends != (Some(extent.range.start), Some(extent.range.end)) {
                return Err(corrupt(&"its samples are not those of its series page"));
            }
            samples.clip(range);
            let labels = row.labels.clone();
            self.next += 1;
            if samples.is_empty() {
                continue;
            }
            match self.series.last_mut() {
                // A series of very many samples has several rows.
                Some((last, all)) if *last == labels => all.merge(samples),
                _ => self.series.push((labels, samples)),
            }
        }
        Ok(())
    }
}

fn samples_of(found: &[Found]) -> u64 {
    found.iter().fold(0, |sum, found| sum.saturating_add(found.row.extent.samples))
}

/// Counts the samples that the series that match and may have samples in a range hold in this block, in the range or not.
/// Fetches no chunk pages.
pub struct CountSamples {
    selection: Selection,
}

impl CountSamples {
    /// See the type.
    pub fn new(index: Arc<BlockIndex>, tenant: &TenantId, matchers: Arc<Matchers>, range: TimeRange) -> CountSamples {
        CountSamples { selection: Selection::new(index, tenant, matchers, range) }
    }
}

impl Request for CountSamples {
    type Output = u64;

    fn step(&mut self) -> Result<Step<u64>, BlockError> {
        Ok(match self.selection.step()? {
            Step::Fetch(ranges) => Step::Fetch(ranges),
            Step::Done(found) => Step::Done(samples_of(&found)),
        })
    }

    fn supply(&mut self, parts: Vec<Bytes>) -> Result<(), BlockError> {
        self.selection.supply(&parts)
    }
}

/// Reads the labels of the series that match and may have samples in a range. Ordered by labels.
/// Fetches no chunk pages.
pub struct SelectSeries {
    selection: Selection,
}

impl SelectSeries {
    /// See the type.
    pub fn new(index: Arc<BlockIndex>, tenant: &TenantId, matchers: Arc<Matchers>, range: TimeRange) -> SelectSeries {
        SelectSeries { selection: Selection::new(index, tenant, matchers, range) }
    }
}

impl Request for SelectSeries {
    type Output = Vec<Labels>;

    fn step(&mut self) -> Result<Step<Self::Output>, BlockError> {
        match self.selection.step()? {
            Step::Fetch(ranges) => Ok(Step::Fetch(ranges)),
            Step::Done(found) => {
                let mut labels: Vec<_> = found.into_iter().map(|found| found.row.labels).collect();
                labels.dedup();
                Ok(Step::Done(labels))
            }
        }
    }

    fn supply(&mut self, parts: Vec<Bytes>) -> Result<(), BlockError> {
        self.selection.supply(&parts)
    }
}

/// Reads the names of the labels of the series that match, ascending. Without matchers it needs no fetch, and the range
/// is only compared with the block's.
pub struct LabelNames {
    selection: Selection,
}

impl LabelNames {
    /// See the type.
    pub fn new(index: Arc<BlockIndex>, tenant: &TenantId, matchers: Arc<Matchers>, range: TimeRange) -> LabelNames {
        LabelNames { selection: Selection::new(index, tenant, matchers, range) }
    }
}

impl Request for LabelNames {
    type Output = Vec<String>;

    fn step(&mut self) -> Result<Step<Self::Output>, BlockError> {
        if self.selection.matchers.is_empty() {
            return self.selection.answer_from_terms(|index, tenant| index.terms.label_names(tenant));
        }
        self.selection.step_distinct(|labels, names| names.extend(labels.iter().map(|(name, _)| name.to_owned())))
    }

    fn supply(&mut self, parts: Vec<Bytes>) -> Result<(), BlockError> {
        self.selection.supply(&parts)
    }
}

/// Reads the values of a label of the series that match, ascending. Without matchers it needs no fetch, and the range is
/// only compared with the block's.
pub struct LabelValues {
    selection: Selection,
    name: String,
}

impl LabelValues {
    /// See the type.
    pub fn new(
        index: Arc<BlockIndex>,
        tenant: &TenantId,
        name: &str,
        matchers: Arc<Matchers>,
        range: TimeRange,
    ) -> LabelValues {
        LabelValues { selection: Selection::new(index, tenant, matchers, range), name: name.to_owned() }
    }
}

impl Request for LabelValues {
    type Output = Vec<String>;

    fn step(&mut self) -> Result<Step<Self::Output>, BlockError> {
        let name = self.name.as_str();
        if self.selection.matchers.is_empty() {
            return self.selection.answer_from_terms(|index, tenant| index.terms.label_values(tenant, name));
        }
        self.selection.step_distinct(|labels, values| values.extend(labels.get(name).map(str::to_owned)))
    }

    fn supply(&mut self, parts: Vec<Bytes>) -> Result<(), BlockError> {
        self.selection.supply(&parts)
    }
}

impl Selection {
    /// Answers from the dictionary alone.
    fn answer_from_terms(
        &self,
        list: impl FnOnce(&BlockIndex, &TenantId) -> Result<Vec<String>, PostingsError>,
    ) -> Result<Step<Vec<String>>, BlockError> {
        if !self.overlaps() {
            return Ok(Step::Done(Vec::new()));
        }
        let offset = self.index.footer.sections.terms.start;
        let all = list(&self.index, &self.tenant).map_err(|e| BlockError::corrupt(Section::Terms, offset, e))?;
        Ok(Step::Done(all))
    }

    /// Answers from the labels of the series that match.
    fn step_distinct(
        &mut self,
        collect: impl Fn(&Labels, &mut BTreeSet<String>),
    ) -> Result<Step<Vec<String>>, BlockError> {
        match self.step()? {
            Step::Fetch(ranges) => Ok(Step::Fetch(ranges)),
            Step::Done(found) => {
                let mut distinct = BTreeSet::new();
                found.iter().for_each(|found| collect(&found.row.labels, &mut distinct));
                Ok(Step::Done(distinct.into_iter().collect()))
            }
        }
    }
}
