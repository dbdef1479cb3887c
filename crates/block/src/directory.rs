//! The directory: how long each page is and what times it covers, and which rows and metadata are whose.
//! Format: docs/formats/block.md.

use std::ops::Range;

use model::{DecodeError, Reader, TenantId, TimeRange, put_varint, put_zigzag};

use crate::footer::{Footer, Sections};

/// A chunk page, its series page, and their rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageEntry {
    pub(crate) chunk: Range<u64>,
    pub(crate) series: Range<u64>,
    pub(crate) rows: Range<u32>,
    pub(crate) range: TimeRange,
}

/// A tenant's rows, and where its metadata lies (empty if it has none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantEntry {
    pub(crate) tenant: TenantId,
    pub(crate) rows: Range<u32>,
    pub(crate) metadata: Range<u64>,
}

/// Both lists, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) pages: Vec<PageEntry>,
    pub(crate) tenants: Vec<TenantEntry>,
}

impl Directory {
    /// The body of its frame. Only lengths are written: pages, rows and metadata follow one another.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_varint(&mut body, self.pages.len() as u64);
        self.pages.iter().for_each(|page| put_varint(&mut body, page.chunk.end - page.chunk.start));
        self.pages.iter().for_each(|page| put_varint(&mut body, page.series.end - page.series.start));
        self.pages.iter().for_each(|page| put_varint(&mut body, page.rows.len() as u64));
        let mut last = 0;
        for page in &self.pages {
            put_zigzag(&mut body, page.range.start.wrapping_sub(last));
            put_varint(&mut body, page.range.end.wrapping_sub(page.range.start) as u64);
            last = page.range.start;
        }
        put_varint(&mut body, self.tenants.len() as u64);
        for entry in &self.tenants {
            put_varint(&mut body, entry.tenant.as_str().len() as u64);
            body.extend_from_slice(entry.tenant.as_str().as_bytes());
            put_varint(&mut body, entry.rows.len() as u64);
            put_varint(&mut body, entry.metadata.end - entry.metadata.start);
        }
        body
    }

    /// Reads the body and checks it against the footer.
    pub(crate) fn decode(body: &[u8], footer: &Footer) -> Result<Directory, DecodeError> {
        let mut reader = Reader::new(body);
        let Sections { chunk_pages, series_pages, metadata, .. } = &footer.sections;
        let page_count = reader.count(5)?;
        let mut read_column =
            || -> Result<Vec<u64>, DecodeError> { (0..page_count).map(|_| reader.varint()).collect() };
        let (chunk_bytes, series_bytes, row_counts) = (read_column()?, read_column()?, read_column()?);
        let mut pages = Vec::with_capacity(page_count);
        let (mut chunk, mut series, mut row, mut last) = (chunk_pages.start, series_pages.start, 0, 0i64);
        for ((chunk_bytes, series_bytes), rows) in chunk_bytes.into_iter().zip(series_bytes).zip(row_counts) {
            let start = last.wrapping_add(reader.zigzag()?);
            let end = start.wrapping_add(reader.varint()? as i64);
            if end < start {
                return Err(reader.error("a page ends before it starts"));
            }
            pages.push(PageEntry {
                chunk: follow(&mut chunk, chunk_bytes, &reader)?,
                series: follow(&mut series, series_bytes, &reader)?,
                rows: follow_rows(&mut row, rows, &reader)?,
                range: TimeRange { start, end },
            });
            last = start;
        }
        let pages_row_end = row;
        let tenant_count = reader.count(3)?;
        let mut tenants: Vec<TenantEntry> = Vec::with_capacity(tenant_count);
        let mut metadata_end = metadata.start;
        row = 0;
        for _ in 0..tenant_count {
            let tenant = TenantId::new(reader.str()?).map_err(|_| reader.error("not a tenant's name"))?;
            if tenants.last().is_some_and(|last| last.tenant >= tenant) {
                return Err(reader.error("tenants do not ascend"));
            }
            let rows = reader.varint()?;
            let rows = follow_rows(&mut row, rows, &reader)?;
            let bytes = reader.varint()?;
            tenants.push(TenantEntry { tenant, rows, metadata: follow(&mut metadata_end, bytes, &reader)? });
        }
        let ends = (chunk, series, metadata_end, u64::from(row), u64::from(pages_row_end));
        if !reader.is_empty() || ends != (chunk_pages.end, series_pages.end, metadata.end, footer.rows, footer.rows) {
            return Err(reader.error("directory does not fit the footer"));
        }
        Ok(Directory { pages, tenants })
    }

    /// The tenant's entry, if the block has anything of it.
    pub(crate) fn tenant(&self, tenant: &TenantId) -> Option<&TenantEntry> {
        let i = self.tenants.binary_search_by(|entry| entry.tenant.cmp(tenant)).ok()?;
        Some(&self.tenants[i])
    }

    /// Bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let names: usize = self.tenants.iter().map(|entry| entry.tenant.as_str().len() + 16).sum();
        self.pages.capacity() * size_of::<PageEntry>() + self.tenants.capacity() * size_of::<TenantEntry>() + names
    }
}

fn follow(at: &mut u64, bytes: u64, reader: &Reader<'_>) -> Result<Range<u64>, DecodeError> {
    let start = *at;
    *at = start.checked_add(bytes).ok_or_else(|| reader.error("length out of range"))?;
    Ok(start..*at)
}

fn follow_rows(at: &mut u32, rows: u64, reader: &Reader<'_>) -> Result<Range<u32>, DecodeError> {
    let start = *at;
    let end = u32::try_from(rows).ok().and_then(|rows| start.checked_add(rows));
    *at = end.ok_or_else(|| reader.error("rows out of range"))?;
    Ok(start..*at)
}
