//! Writes a block: the object's bytes grow page by page, all else is small beside them.
//!
//! Besides the object itself, a writer holds one page's samples, the compressed series pages, one tenant's terms with
//! their postings, and the metadata.

use std::collections::BTreeMap;

use bytes::Bytes;
use chunk::{FrameError, FrameWriter, PAGE_SERIES_MAX, PageError, PageWriter, SERIES_SAMPLES_MAX};
use model::{Counts, Labels, Metadata, Revision, Samples, TenantId, TimeRange};
use postings::{PostingsBuilder, PostingsError};

use crate::directory::{Directory, PageEntry, TenantEntry};
use crate::error::BlockError;
use crate::footer::{Footer, HEAD_BYTES, MAGIC, Sections, VERSION};
use crate::metadata;
use crate::pieces::Pieces;
use crate::series_page::{Extent, SeriesPageBuilder};

/// The level of a cut, which must keep up with what comes in.
const CUT_LEVEL: i32 = 1;

/// A page ends above any of these, so that reading one series of it costs little: samples, …
const PAGE_SAMPLES_MAX: u64 = 128 << 10;
/// … bytes of values before compression, …
const PAGE_VALUE_BYTES_MAX: usize = 1 << 20;
/// … and bytes of labels.
const PAGE_LABEL_BYTES_MAX: usize = 256 << 10;

/// A row ends above this, where histograms are large: an estimate of their bytes.
const ROW_BYTES_MAX: usize = 4 << 20;

/// Limits of what a reader decompresses at once.
pub(crate) const SERIES_PAGE_BYTES_MAX: usize = 96 << 20;
pub(crate) const METADATA_BYTES_MAX: usize = 256 << 20;
pub(crate) const TERMS_BYTES_MAX: usize = 1 << 30;
pub(crate) const DIRECTORY_BYTES_MAX: usize = 256 << 20;

/// What the caller knows of a block before its first series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The cluster's id.
    pub cluster: u128,
    /// The index revision that the block is built from: deletes up to it are applied.
    pub built_at: Revision,
}

/// What was written, for the index entry and for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockStats {
    /// Distinct (tenant, labels).
    pub series: u64,
    /// Samples of all series.
    pub samples: u64,
    /// From the first sample to the last; `None` if there are none.
    pub time_range: Option<TimeRange>,
    /// Bytes of the object.
    pub bytes: u64,
    /// The footer, with the length of each section.
    pub footer: Footer,
}

/// Writes a block from series that come in order; see the module.
pub struct BlockWriter {
    header: Header,
    object: Pieces,
    series_pages: Pieces,
    directory: Directory,
    chunk_page: PageWriter,
    series_page: SeriesPageBuilder,
    frames: FrameWriter,
    postings: PostingsBuilder,
    metadata: BTreeMap<TenantId, BTreeMap<String, Metadata>>,
    last: Option<(TenantId, Labels)>,
    rows: u32,
    /// The first row of the page and of the tenant that are being written.
    page_start: u32,
    page_range: Option<TimeRange>,
    tenant_start: u32,
    series: u64,
    samples: u64,
    time_range: Option<TimeRange>,
}

impl BlockWriter {
    /// A writer that compresses as a cut does: fast.
    pub fn new(header: Header) -> BlockWriter {
        let mut object = Pieces::default();
        object.end().extend_from_slice(&MAGIC);
        object.end().extend_from_slice(&VERSION.to_le_bytes());
        object.end().extend_from_slice(&[0; 4]);
        BlockWriter {
            header,
            object,
            series_pages: Pieces::default(),
            directory: Directory::default(),
            chunk_page: PageWriter::new(CUT_LEVEL),
            series_page: SeriesPageBuilder::default(),
            frames: FrameWriter::new(CUT_LEVEL),
            postings: PostingsBuilder::new(),
            metadata: BTreeMap::new(),
            last: None,
            rows: 0,
            page_start: 0,
            page_range: None,
            tenant_start: 0,
            series: 0,
            samples: 0,
            time_range: None,
        }
    }

    /// Compresses at this zstd level instead of 1.
    pub fn with_level(mut self, level: i32) -> BlockWriter {
        self.chunk_page = PageWriter::new(level);
        self.frames = FrameWriter::new(level);
        self
    }

    /// Adds a series. Tenants ascend; within one, labels ascend. A series without samples is left out.
    ///
    /// Errors: `OutOfOrder` for tenants, series, or timestamps that do not ascend. The writer is of no use after one.
    pub fn add(&mut self, tenant: &TenantId, labels: &Labels, samples: &Samples) -> Result<(), BlockError> {
        if samples.is_empty() {
            return Ok(());
        }
        self.follow(tenant, labels)?;
        let mut from = 0;
        while from < samples.len() {
            let to = row_end(samples, from);
            // Within a row the page looks.
            if from > 0 && samples.timestamps[from - 1] >= samples.timestamps[from] {
                return Err(BlockError::OutOfOrder("timestamps"));
            }
            if (from, to) == (0, samples.len()) {
                self.add_row(tenant, labels, samples)?;
            } else {
                self.add_row(tenant, labels, &part(samples, from, to))?;
            }
            from = to;
        }
        self.series += 1;
        Ok(())
    }

    /// Checks the order and remembers the series as the last.
    fn follow(&mut self, tenant: &TenantId, labels: &Labels) -> Result<(), BlockError> {
        let is_next = match &self.last {
            None => true,
            Some((last, _)) if last > tenant => return Err(BlockError::OutOfOrder("tenants")),
            Some((last, _)) if last < tenant => {
                self.end_tenant();
                true
            }
            Some((_, last)) => last < labels,
        };
        if !is_next {
            return Err(BlockError::OutOfOrder("series"));
        }
        match &mut self.last {
            Some((last, last_labels)) if last == tenant => *last_labels = labels.clone(),
            last => *last = Some((tenant.clone(), labels.clone())),
        }
        Ok(())
    }

    fn add_row(&mut self, tenant: &TenantId, labels: &Labels, samples: &Samples) -> Result<(), BlockError> {
        let (Some(&start), Some(&end)) = (samples.timestamps.first(), samples.timestamps.last()) else {
            return Ok(());
        };
        let range = TimeRange { start, end };
        let list = self.chunk_page.add(samples).map_err(page_error)?;
        self.series_page.push(labels, list, Extent { range, samples: samples.len() as u64 });
        self.postings.add(tenant, labels, self.rows).map_err(postings_error)?;
        self.rows = self.rows.checked_add(1).ok_or(BlockError::TooLarge("rows"))?;
        self.samples += samples.len() as u64;
        widen(&mut self.page_range, range);
        widen(&mut self.time_range, range);
        let is_full = self.chunk_page.series() == PAGE_SERIES_MAX
            || self.chunk_page.samples() >= PAGE_SAMPLES_MAX
            || self.chunk_page.value_bytes() >= PAGE_VALUE_BYTES_MAX
            || self.series_page.label_bytes() >= PAGE_LABEL_BYTES_MAX;
        if is_full { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> Result<(), BlockError> {
        let Some(range) = self.page_range.take() else { return Ok(()) };
        let chunk_start = self.object.len();
        self.chunk_page.finish(self.object.end()).map_err(page_error)?;
        let series_start = self.series_pages.len();
        let body = self.series_page.finish();
        self.frames.put(self.series_pages.end(), &body, SERIES_PAGE_BYTES_MAX).map_err(frame_error("series page"))?;
        self.directory.pages.push(PageEntry {
            chunk: chunk_start..self.object.len(),
            series: series_start..self.series_pages.len(),
            rows: self.page_start..self.rows,
            range,
        });
        self.page_start = self.rows;
        Ok(())
    }

    fn end_tenant(&mut self) {
        if let Some((tenant, _)) = self.last.take() {
            self.directory.tenants.push(TenantEntry { tenant, rows: self.tenant_start..self.rows, metadata: 0..0 });
        }
        self.tenant_start = self.rows;
    }

    /// Adds what is known of a metric, in any order; the last for a (tenant, metric) stays.
    pub fn put_metadata(&mut self, tenant: &TenantId, metric: &str, metadata: &Metadata) {
        if !self.metadata.contains_key(tenant) {
            self.metadata.insert(tenant.clone(), BTreeMap::new());
        }
        if let Some(metrics) = self.metadata.get_mut(tenant) {
            metrics.insert(metric.to_owned(), metadata.clone());
        }
    }

    /// Whether no sample was added.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Ends the block and returns the object's bytes, in pieces of about 1 MiB.
    pub fn finish(mut self) -> Result<(Vec<Bytes>, BlockStats), BlockError> {
        self.end_page()?;
        self.end_tenant();
        let mut out = std::mem::take(&mut self.object);
        let chunk_pages = HEAD_BYTES..out.len();
        for piece in std::mem::take(&mut self.series_pages).into_vec() {
            out.push(piece);
        }
        let series_pages = chunk_pages.end..out.len();
        let encoded = self.postings.finish().map_err(postings_error)?;
        out.push(encoded.postings.into());
        let postings = series_pages.end..out.len();
        put_metadata(self.metadata, &mut self.directory, &mut self.frames, &mut out)?;
        let metadata = postings.end..out.len();
        self.frames.put(out.end(), &encoded.terms, TERMS_BYTES_MAX).map_err(frame_error("terms"))?;
        let terms = metadata.end..out.len();
        let directory = self.directory.encode();
        self.frames.put(out.end(), &directory, DIRECTORY_BYTES_MAX).map_err(frame_error("directory"))?;
        let directory = terms.end..out.len();
        let footer = Footer {
            cluster: self.header.cluster,
            built_at: self.header.built_at,
            time_range: self.time_range,
            series: self.series,
            rows: u64::from(self.rows),
            samples: self.samples,
            sections: Sections { chunk_pages, series_pages, postings, metadata, terms, directory },
        };
        footer.put(out.end());
        let stats = BlockStats {
            series: self.series,
            samples: self.samples,
            time_range: self.time_range,
            bytes: out.len(),
            footer,
        };
        Ok((out.into_vec(), stats))
    }
}

/// Writes each tenant's metadata and notes where in the directory, which may get tenants that have no series.
fn put_metadata(
    metadata: BTreeMap<TenantId, BTreeMap<String, Metadata>>,
    directory: &mut Directory,
    frames: &mut FrameWriter,
    out: &mut Pieces,
) -> Result<(), BlockError> {
    for (tenant, metrics) in metadata {
        let i = match directory.tenants.binary_search_by(|entry| entry.tenant.cmp(&tenant)) {
            Ok(i) => i,
            Err(i) => {
                let row = i.checked_sub(1).map_or(0, |before| directory.tenants[before].rows.end);
                directory.tenants.insert(i, TenantEntry { tenant, rows: row..row, metadata: 0..0 });
                i
            }
        };
        let start = out.len();
        frames.put(out.end(), &metadata::encode(&metrics), METADATA_BYTES_MAX).map_err(frame_error("metadata"))?;
        directory.tenants[i].metadata = start..out.len();
    }
    Ok(())
}

/// Where the row that starts at sample `from` ends.
fn row_end(samples: &Samples, from: usize) -> usize {
    let end = samples.len().min(from + SERIES_SAMPLES_MAX);
    let mut bytes = 0;
    for (i, histogram) in samples.histograms.iter().enumerate().take(end).skip(from) {
        bytes += histogram.as_ref().map_or(9, |histogram| {
            let (positive, negative) = match &histogram.counts {
                Counts::Integer { positive, negative, .. } => (positive.len(), negative.len()),
                Counts::Float { positive, negative, .. } => (positive.len(), negative.len()),
            };
            let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
            64 + 8 * (positive + negative + histogram.custom_bounds.len() + spans)
        });
        if bytes > ROW_BYTES_MAX {
            return i.max(from + 1);
        }
    }
    end
}

fn part(samples: &Samples, from: usize, to: usize) -> Samples {
    Samples {
        timestamps: samples.timestamps[from..to].to_vec(),
        floats: samples.floats[from..to].to_vec(),
        histograms: samples.histograms.get(from..to).map(<[_]>::to_vec).unwrap_or_default(),
    }
}

fn widen(range: &mut Option<TimeRange>, by: TimeRange) {
    *range = Some(match *range {
        Some(range) => TimeRange { start: range.start.min(by.start), end: range.end.max(by.end) },
        None => by,
    });
}

fn page_error(error: PageError) -> BlockError {
    match error {
        PageError::OutOfOrder => BlockError::OutOfOrder("timestamps"),
        PageError::Frame(error) => frame_error("page")(error),
        _ => BlockError::TooLarge("page"),
    }
}

fn postings_error(error: PostingsError) -> BlockError {
    match error {
        PostingsError::TooLarge => BlockError::TooLarge("postings"),
        _ => BlockError::OutOfOrder("series"),
    }
}

fn frame_error(what: &'static str) -> impl Fn(FrameError) -> BlockError {
    move |_| BlockError::TooLarge(what)
}
