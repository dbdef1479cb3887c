//! A page: the samples of up to 256 series, compressed together. Format: docs/formats/block.md, "Chunk page".
//!
//! Distinct lists of timestamps are stored once; each series names its list and has its values in a codec of its own
//! (`values.rs`). Like lies beside like, so that zstd finds it: all counts, all first timestamps, all codecs. After the
//! decompression, which is of the whole page, one series is decoded without the others.

use std::collections::HashMap;
use std::ops::Range;

use model::{DecodeError, Reader, Samples, TimestampMs, put_varint, put_zigzag};

use crate::frame::{FrameError, FrameWriter, open_frame};
use crate::values;

/// Series that fit one page: a list's number takes one byte.
pub const PAGE_SERIES_MAX: usize = 256;

/// Samples that a series may have in one page: what a few hostile bytes can make a reader allocate is bounded by it.
pub const SERIES_SAMPLES_MAX: usize = 65_536;

/// Bytes of a page before compression. The writer's caller ends pages long before; one histogram may be large.
const BODY_BYTES_MAX: usize = 96 << 20;

/// A page that can't be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Stored bytes that no writer wrote.
    #[error(transparent)]
    Corrupt(#[from] DecodeError),
    /// The page as a whole: version, checksum, length, compression.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Timestamps of a series that do not ascend.
    #[error("timestamps do not ascend")]
    OutOfOrder,
    /// More series, samples or bytes than a page can hold.
    #[error("too many {0} for one page")]
    TooMany(&'static str),
    /// There is no such series in the page.
    #[error("page has no series {0}")]
    NoSeries(usize),
}

/// What a page holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageStats {
    /// Series in the page.
    pub series: usize,
    /// Their samples.
    pub samples: u64,
    /// Bytes after compression.
    pub bytes: usize,
}

/// Packs pages, one after the other, in the same buffers.
pub struct PageWriter {
    frames: FrameWriter,
    lists: Vec<Range<usize>>,
    list_timestamps: Vec<TimestampMs>,
    /// The newest list of this first and last timestamp and length.
    list_numbers: HashMap<(TimestampMs, TimestampMs, usize), u8>,
    series: Vec<Entry>,
    values: Vec<u8>,
    samples: u64,
    scratch: values::Scratch,
}

/// A series within a page.
#[derive(Debug, Clone)]
struct Entry {
    list: u8,
    codec: u8,
    /// Where its bytes lie among the values (while writing) or in the body (while reading).
    values: Range<usize>,
}

impl PageWriter {
    /// A writer that compresses at this zstd level.
    pub fn new(level: i32) -> PageWriter {
        PageWriter {
            frames: FrameWriter::new(level),
            lists: Vec::new(),
            list_timestamps: Vec::new(),
            list_numbers: HashMap::new(),
            series: Vec::new(),
            values: Vec::new(),
            samples: 0,
            scratch: values::Scratch::default(),
        }
    }

    /// Appends a series, which gets the next number. Returns the number of its list of timestamps: 0 for the page's first,
    /// one more for each other list.
    ///
    /// Errors: `OutOfOrder`, or `TooMany` if the page or the series is over its limit; the page is as before then.
    pub fn add(&mut self, samples: &Samples) -> Result<u8, PageError> {
        if self.series.len() == PAGE_SERIES_MAX {
            return Err(PageError::TooMany("series"));
        }
        if samples.len() > SERIES_SAMPLES_MAX {
            return Err(PageError::TooMany("samples"));
        }
        let list = self.list(samples)?;
        let start = self.values.len();
        let codec = values::encode(samples, &mut self.scratch, &mut self.values);
        self.series.push(Entry { list, codec, values: start..self.values.len() });
        self.samples += samples.len() as u64;
        Ok(list)
    }

    /// The number of the samples' list of timestamps; it is stored if the page has none like it.
    fn list(&mut self, samples: &Samples) -> Result<u8, PageError> {
        let timestamps = samples.timestamps.as_slice();
        let (first, last) = (timestamps.first().copied().unwrap_or(0), timestamps.last().copied().unwrap_or(0));
        let shape = (first, last, timestamps.len());
        if let Some(&number) = self.list_numbers.get(&shape)
            && self.list_timestamps[self.lists[usize::from(number)].clone()] == *timestamps
        {
            return Ok(number);
        }
        // Only a new list needs to be looked at.
        if !samples.is_sorted() {
            return Err(PageError::OutOfOrder);
        }
        let number = self.lists.len() as u8;
        self.list_numbers.insert(shape, number);
        let start = self.list_timestamps.len();
        self.list_timestamps.extend_from_slice(timestamps);
        self.lists.push(start..self.list_timestamps.len());
        Ok(number)
    }

    /// Series added since the last page.
    pub fn series(&self) -> usize {
        self.series.len()
    }

    /// Their samples.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Their bytes before compression, timestamps not counted.
    pub fn value_bytes(&self) -> usize {
        self.values.len()
    }

    /// Appends the page to `out` and starts the next one.
    ///
    /// Errors: `Frame` if it is over the format's limit; then nothing is written and the series are gone.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<PageStats, PageError> {
        let body = self.body();
        let stats = PageStats { series: self.series.len(), samples: self.samples, bytes: 0 };
        self.lists.clear();
        self.list_timestamps.clear();
        self.list_numbers.clear();
        self.series.clear();
        self.values.clear();
        self.samples = 0;
        let bytes = self.frames.put(out, &body, BODY_BYTES_MAX)?;
        Ok(PageStats { bytes, ..stats })
    }

    /// The page before compression.
    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.values.len() + self.list_timestamps.len() + 16 * self.series.len());
        put_varint(&mut body, self.series.len() as u64);
        put_varint(&mut body, self.lists.len() as u64);
        let lists = || self.lists.iter().map(|range| &self.list_timestamps[range.clone()]);
        lists().for_each(|list| put_varint(&mut body, list.len() as u64));
        let mut last = 0;
        for list in lists() {
            let first = list.first().copied().unwrap_or(0);
            put_zigzag(&mut body, first.wrapping_sub(last));
            last = first;
        }
        lists().for_each(|list| put_zigzag(&mut body, first_interval(list)));
        let mut changes = Vec::new();
        for list in lists() {
            let start = changes.len();
            put_changes(&mut changes, list);
            put_varint(&mut body, (changes.len() - start) as u64);
        }
        body.extend(self.series.iter().map(|entry| entry.list));
        body.extend(self.series.iter().map(|entry| entry.codec));
        self.series.iter().for_each(|entry| put_varint(&mut body, entry.values.len() as u64));
        body.extend_from_slice(&changes);
        body.extend_from_slice(&self.values);
        body
    }
}

fn first_interval(list: &[TimestampMs]) -> i64 {
    if list.len() < 2 { 0 } else { list[1].wrapping_sub(list[0]) }
}

/// Writes how each interval differs from the one before; nothing if none does.
fn put_changes(out: &mut Vec<u8>, list: &[TimestampMs]) {
    let start = out.len();
    let mut interval = first_interval(list);
    let mut is_regular = true;
    for pair in list.windows(2).skip(1) {
        let next = pair[1].wrapping_sub(pair[0]);
        let change = next.wrapping_sub(interval);
        is_regular &= change == 0;
        put_zigzag(out, change);
        interval = next;
    }
    if is_regular {
        out.truncate(start);
    }
}

/// A list of timestamps within a page.
#[derive(Debug, Clone)]
struct List {
    count: usize,
    first: TimestampMs,
    interval: i64,
    /// Empty if every interval is the same.
    changes: Range<usize>,
}

/// A decompressed page.
pub struct Page {
    body: Vec<u8>,
    lists: Vec<List>,
    series: Vec<Entry>,
}

impl Page {
    /// Verifies the checksum, decompresses, and finds where each series lies. All of `bytes` must be the page.
    pub fn decode(bytes: &[u8]) -> Result<Page, PageError> {
        let body = open_frame(bytes, BODY_BYTES_MAX)?;
        Ok(Page::from_body(body)?)
    }

    fn from_body(body: Vec<u8>) -> Result<Page, DecodeError> {
        let mut reader = Reader::new(&body);
        // A series takes at least its list, its codec and a length; a list a count, a first, an interval, a length.
        let series_count = reader.count(3)?;
        let list_count = reader.count(4)?;
        if series_count > PAGE_SERIES_MAX || list_count > PAGE_SERIES_MAX {
            return Err(reader.error("too many series in a page"));
        }
        let mut lists = vec![List { count: 0, first: 0, interval: 0, changes: 0..0 }; list_count];
        for list in &mut lists {
            list.count = reader.varint()? as usize;
            if list.count > SERIES_SAMPLES_MAX {
                return Err(reader.error("too many samples in a series"));
            }
        }
        let mut last = 0i64;
        for list in &mut lists {
            last = last.wrapping_add(reader.zigzag()?);
            list.first = last;
        }
        for list in &mut lists {
            list.interval = reader.zigzag()?;
        }
        let mut lengths = Vec::with_capacity(list_count);
        for _ in 0..list_count {
            lengths.push(reader.varint()?);
        }
        let numbers = reader.take(series_count)?;
        let codecs = reader.take(series_count)?;
        let mut value_lengths = Vec::with_capacity(series_count);
        for _ in 0..series_count {
            value_lengths.push(reader.varint()?);
        }
        for (list, length) in lists.iter_mut().zip(lengths) {
            list.changes = take_range(&mut reader, length)?;
        }
        let mut series = Vec::with_capacity(series_count);
        for ((&list, &codec), length) in numbers.iter().zip(codecs).zip(value_lengths) {
            if usize::from(list) >= list_count {
                return Err(reader.error("no such list of timestamps"));
            }
            series.push(Entry { list, codec, values: take_range(&mut reader, length)? });
        }
        if !reader.is_empty() {
            return Err(reader.error("bytes after the last series"));
        }
        Ok(Page { body, lists, series })
    }

    /// How many series it holds.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Bytes of memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.body.capacity() + self.lists.capacity() * size_of::<List>() + self.series.capacity() * size_of::<Entry>()
    }

    /// Decodes the samples of series `i`, which ascend.
    pub fn series(&self, i: usize) -> Result<Samples, PageError> {
        let entry = self.series.get(i).ok_or(PageError::NoSeries(i))?;
        let list = &self.lists[usize::from(entry.list)];
        let mut samples = Samples { timestamps: self.timestamps(list)?, ..Samples::default() };
        let at = |e: DecodeError| DecodeError { offset: e.offset + entry.values.start, what: e.what };
        values::decode(entry.codec, &self.body[entry.values.clone()], &mut samples).map_err(at)?;
        Ok(samples)
    }

    fn timestamps(&self, list: &List) -> Result<Vec<TimestampMs>, DecodeError> {
        let mut reader = Reader::new(&self.body[list.changes.clone()]);
        let is_regular = list.changes.is_empty();
        let mut timestamps = Vec::with_capacity(list.count);
        let (mut t, mut interval) = (list.first, list.interval);
        for i in 0..list.count {
            if i > 0 {
                if i > 1 && !is_regular {
                    interval = interval.wrapping_add(reader.zigzag()?);
                }
                let next = t.wrapping_add(interval);
                if next <= t {
                    return Err(reader.error("timestamps do not ascend"));
                }
                t = next;
            }
            timestamps.push(t);
        }
        if !reader.is_empty() {
            return Err(reader.error("bytes after the last timestamp"));
        }
        Ok(timestamps)
    }
}

fn take_range(reader: &mut Reader<'_>, length: u64) -> Result<Range<usize>, DecodeError> {
    let start = reader.offset();
    let length = usize::try_from(length).map_err(|_| reader.error("length runs past the end"))?;
    reader.take(length)?;
    Ok(start..start + length)
}

#[cfg(test)]
mod tests;
