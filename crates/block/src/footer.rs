//! The end of the object: who wrote it, what it holds, and where each section lies. Format: docs/formats/block.md.

use std::ops::Range;

use model::{DecodeError, Reader, Revision, TimeRange};

use crate::error::{BlockError, Section};

/// How many bytes of an object's end to fetch first: mostly all that [`crate::Open`] needs.
pub const FOOTER_HINT_BYTES: u64 = 64 << 10;

/// The object starts and ends with it.
pub(crate) const MAGIC: [u8; 8] = *b"BELLROCK";
/// Of the object's outline; the frames inside have their own.
pub(crate) const VERSION: u32 = 1;
/// Magic, version, four bytes of 0.
pub(crate) const HEAD_BYTES: u64 = 16;
/// Of the footer without the tail.
const BODY_BYTES: usize = 16 + 16 + 8 + 8 + 8 + 8 + 8 + 6 * 16;
/// Checksum, length of the footer's body, version, magic.
const TAIL_BYTES: usize = 20;
/// Bytes of the whole footer.
pub(crate) const FOOTER_BYTES: u64 = (BODY_BYTES + TAIL_BYTES) as u64;

/// What a block says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The cluster that wrote it.
    pub cluster: u128,
    /// The index revision that it was built from.
    pub built_at: Revision,
    /// From its first sample to its last; `None` if it has none.
    pub time_range: Option<TimeRange>,
    /// Distinct (tenant, labels).
    pub series: u64,
    /// Rows: a series with very many samples has several.
    pub rows: u64,
    /// Samples of all series.
    pub samples: u64,
    /// Where the sections lie.
    pub sections: Sections,
}

/// Byte ranges of the sections, which follow one another in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sections {
    /// Samples, a page after the other.
    pub chunk_pages: Range<u64>,
    /// Labels and time ranges of the rows of each chunk page.
    pub series_pages: Range<u64>,
    /// Posting lists.
    pub postings: Range<u64>,
    /// Metadata, a frame a tenant.
    pub metadata: Range<u64>,
    /// The term dictionary.
    pub terms: Range<u64>,
    /// Lengths of pages; tenants.
    pub directory: Range<u64>,
}

impl Sections {
    fn all(&self) -> [&Range<u64>; 6] {
        [&self.chunk_pages, &self.series_pages, &self.postings, &self.metadata, &self.terms, &self.directory]
    }
}

impl Footer {
    /// Appends the footer, with which the object is whole.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.cluster.to_le_bytes());
        let range = self.time_range.unwrap_or(TimeRange { start: 0, end: -1 });
        let words = [
            self.built_at.incarnation,
            self.built_at.position,
            range.start as u64,
            range.end as u64,
            self.series,
            self.rows,
            self.samples,
        ];
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        for section in self.sections.all() {
            out.extend_from_slice(&section.start.to_le_bytes());
            out.extend_from_slice(&(section.end - section.start).to_le_bytes());
        }
        let mut end = Vec::with_capacity(TAIL_BYTES);
        end.extend_from_slice(&(BODY_BYTES as u32).to_le_bytes());
        end.extend_from_slice(&VERSION.to_le_bytes());
        end.extend_from_slice(&MAGIC);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&out[start..]), &end);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&end);
    }

    /// Reads the footer from the last bytes of an object of `object_bytes`, at least [`FOOTER_HINT_BYTES`] of them or all.
    pub fn decode(tail: &[u8], object_bytes: u64) -> Result<Footer, BlockError> {
        let corrupt =
            |what: &str| BlockError::corrupt(Section::Footer, object_bytes.saturating_sub(FOOTER_BYTES), what);
        if tail.len() as u64 > object_bytes || object_bytes < HEAD_BYTES + FOOTER_BYTES {
            return Err(corrupt("object is shorter than a block can be"));
        }
        let Some((_, footer)) = tail.split_last_chunk::<{ FOOTER_BYTES as usize }>() else {
            return Err(corrupt("object is shorter than a block can be"));
        };
        let (body, end) = footer.split_at(BODY_BYTES);
        let (checksum, end) = end.split_at(4);
        if end[8..] != MAGIC {
            return Err(corrupt("object does not end as a block does"));
        }
        if end[4..8] != VERSION.to_le_bytes() {
            return Err(corrupt("unknown block version"));
        }
        if crc32c::crc32c_append(crc32c::crc32c(body), end).to_le_bytes() != checksum {
            return Err(corrupt("checksum does not match"));
        }
        if end[..4] != (BODY_BYTES as u32).to_le_bytes() {
            return Err(corrupt("wrong length"));
        }
        let footer = Footer::decode_body(body).map_err(|e| corrupt(e.what))?;
        let mut at = HEAD_BYTES;
        for section in footer.sections.all() {
            if section.start != at || section.end < at {
                return Err(corrupt("sections do not follow one another"));
            }
            at = section.end;
        }
        if at != object_bytes - FOOTER_BYTES {
            return Err(corrupt("sections are longer or shorter than the object"));
        }
        Ok(footer)
    }

    fn decode_body(body: &[u8]) -> Result<Footer, DecodeError> {
        let mut reader = Reader::new(body);
        let cluster = u128::from(reader.u64()?) | u128::from(reader.u64()?) << 64;
        let built_at = Revision { incarnation: reader.u64()?, position: reader.u64()? };
        let range = TimeRange { start: reader.u64()? as i64, end: reader.u64()? as i64 };
        let (series, rows, samples) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let mut section = || -> Result<Range<u64>, DecodeError> {
            let start = reader.u64()?;
            let end = start.checked_add(reader.u64()?).ok_or_else(|| reader.error("section is too long"))?;
            Ok(start..end)
        };
        Ok(Footer {
            cluster,
            built_at,
            time_range: (samples > 0).then_some(range),
            series,
            rows,
            samples,
            sections: Sections {
                chunk_pages: section()?,
                series_pages: section()?,
                postings: section()?,
                metadata: section()?,
                terms: section()?,
                directory: section()?,
            },
        })
    }
}
