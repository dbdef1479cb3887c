//! Columns as bytes and back: docs/formats/segment.md, "Outline" and "Sections".

use chunk::{histogram_in, measure_code, measure_varint};
use model::{
    DecodeError, Metadata, MetricKind, Reader, Revision, SegmentNumber, TenantId, TimeRange, WriterId, put_varint,
    put_zigzag,
};

use crate::columns::{Columns, MetadataEntry};
use crate::error::{Section, SegmentError};
use crate::ids::Ids;

/// The first bytes of every segment.
const MAGIC: [u8; 8] = *b"BRSEGMNT";

/// Version 1: the first.
const VERSION: u16 = 1;

/// Bytes of the header, its checksum included.
const HEADER_BYTES: usize = 96;

/// Bytes in front of each section's content.
const SECTION_HEAD_BYTES: usize = 14;

/// Flag in the header: the first segment since a cut (or of its writer).
const FIRST_AFTER_CUT: u8 = 1;

/// An unpacked section may be this large. A writer seals at some MiB; this only bounds what forged bytes can ask for.
const SECTION_BYTES_MAX: u64 = 256 << 20;

/// Sections shorter than this are stored as they are: a compressed frame's own overhead would eat the gain.
const COMPRESS_FROM_BYTES: usize = 64;

/// zstd's level: 2 and above cost twice the CPU for a few per cent, and blocks replace segments within minutes.
const ZSTD_LEVEL: i32 = 1;

/// How a section's content is stored.
const STORED: u8 = 0;
const ZSTD: u8 = 1;

/// What a segment says of itself in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The cluster it belongs to.
    pub cluster: u128,
    /// Who wrote it.
    pub writer: WriterId,
    /// Its number: the writer's segments are 1, 2, 3 …
    pub n: SegmentNumber,
    /// The revision that the writer had applied when it sealed this: later deletes apply to it.
    pub sealed_at: Revision,
    /// Whether ids and codes start anew here.
    pub first_after_cut: bool,
}

/// Packs a segment. About 30 ns a sample; the result is a byte or two a sample of a steady sender.
pub fn encode(header: &Header, columns: &Columns) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
    let mut sections = Vec::with_capacity(HEADER_BYTES + columns.values.len());
    let mut count = 0;
    for section in Section::AFTER_HEADER {
        let encoded;
        let content: &[u8] = match section {
            Section::Header => &[],
            Section::Pairs => columns.pairs.bytes(),
            Section::Times => &columns.times,
            Section::Values => &columns.values,
            Section::Tenants => {
                encoded = encode_tenants(columns);
                &encoded
            }
            Section::Series => {
                encoded = encode_series(columns);
                &encoded
            }
            Section::Ids => {
                encoded = columns.ids.encode();
                &encoded
            }
            Section::Metadata => {
                encoded = encode_metadata(columns);
                &encoded
            }
        };
        if !content.is_empty() {
            put_section(&mut sections, section, content, &mut compressor);
            count += 1;
        }
    }
    let mut out = encode_header(header, columns, count);
    out.append(&mut sections);
    out
}

fn encode_header(header: &Header, columns: &Columns, sections: u8) -> Vec<u8> {
    let range = columns.time_range.unwrap_or(TimeRange { start: 0, end: 0 });
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.push(if header.first_after_cut { FIRST_AFTER_CUT } else { 0 });
    out.push(sections);
    out.extend_from_slice(&header.cluster.to_le_bytes());
    for number in [
        header.writer.0.incarnation,
        header.writer.0.position,
        header.n,
        header.sealed_at.incarnation,
        header.sealed_at.position,
        columns.samples,
        range.start as u64,
        range.end as u64,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

fn put_section(
    out: &mut Vec<u8>,
    section: Section,
    content: &[u8],
    compressor: &mut Option<zstd::bulk::Compressor<'_>>,
) {
    let compressed = match compressor {
        Some(compressor) if content.len() >= COMPRESS_FROM_BYTES => compressor.compress(content).ok(),
        _ => None,
    };
    let (codec, stored) = match &compressed {
        Some(compressed) if compressed.len() < content.len() => (ZSTD, &compressed[..]),
        _ => (STORED, content),
    };
    let start = out.len();
    out.extend_from_slice(&[section as u8, codec]);
    // The length limits are far below 4 GiB; a longer section would not be read back.
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    out.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&out[start..]), stored);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(stored);
}

fn encode_tenants(columns: &Columns) -> Vec<u8> {
    let mut out = Vec::new();
    for tenant in &columns.tenants {
        put_str(&mut out, tenant.as_str());
    }
    out
}

fn put_str(out: &mut Vec<u8>, s: &str) {
    put_varint(out, s.len() as u64);
    out.extend_from_slice(s.as_bytes());
}

/// Label pairs as they differ from the series before: 0 is the same at this place, 1 the next pair never used so
/// far, 2 and up name a pair. So a target's next series is mostly zeros.
fn encode_series(columns: &Columns) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut next_id, mut next_pair) = (0, 0);
    let mut last: &[u32] = &[];
    for series in columns.series() {
        put_zigzag(&mut out, i64::from(series.id) - i64::from(next_id));
        next_id = series.id.wrapping_add(1);
        put_varint(&mut out, u64::from(series.tenant));
        put_varint(&mut out, series.pairs.len() as u64);
        for (position, &pair) in series.pairs.iter().enumerate() {
            if last.get(position) == Some(&pair) {
                out.push(0);
            } else if pair == next_pair {
                out.push(1);
                next_pair += 1;
            } else {
                put_varint(&mut out, u64::from(pair) + 2);
            }
        }
        last = series.pairs;
    }
    out
}

fn encode_metadata(columns: &Columns) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in &columns.metadata {
        put_varint(&mut out, u64::from(entry.tenant));
        put_str(&mut out, &entry.metric);
        out.push(entry.metadata.kind as u8);
        put_str(&mut out, &entry.metadata.unit);
        put_str(&mut out, &entry.metadata.help);
    }
    out
}

/// Unpacks a segment and checks all of it: what it returns, a head can take in.
///
/// Memory stays in proportion to the sections' lengths, of at most 256 MiB each, and those are only believed once
/// their checksum is right. Nothing is said of samples against other segments: that an id was spelled, for one.
pub fn decode(bytes: &[u8]) -> Result<(Header, Columns), SegmentError> {
    let (header, mut left, mut columns) = decode_header(bytes)?;
    let mut offset = HEADER_BYTES;
    let mut decompressor = None;
    for section in Section::AFTER_HEADER {
        let content = match bytes.get(offset) {
            Some(&kind) if kind == section as u8 && left > 0 => {
                let (content, end) = get_section(bytes, offset, section, &mut decompressor)?;
                (offset, left) = (end, left - 1);
                content
            }
            _ => Vec::new(),
        };
        decode_section(section, content, &mut columns).map_err(|source| SegmentError::Content { section, source })?;
    }
    if left > 0 || offset != bytes.len() {
        let what = if left > 0 { "a section is missing" } else { "bytes after the last section" };
        return Err(SegmentError::Outline { section: Section::Metadata, offset, what });
    }
    Ok((header, columns))
}

/// Reads the header; returns how many sections follow, and columns that know only their count and time range.
fn decode_header(bytes: &[u8]) -> Result<(Header, u8, Columns), SegmentError> {
    let outline = |what| SegmentError::Outline { section: Section::Header, offset: 0, what };
    if !bytes.starts_with(&MAGIC) {
        return Err(SegmentError::Magic);
    }
    let head = bytes.get(..HEADER_BYTES).ok_or(outline("unexpected end"))?;
    let mut reader = Reader::new(&head[MAGIC.len()..]);
    let short = |_: DecodeError| outline("unexpected end");
    let version = u16::from_le_bytes([reader.u8().map_err(short)?, reader.u8().map_err(short)?]);
    if version != VERSION {
        return Err(SegmentError::Version { found: version, known: VERSION });
    }
    let (flags, sections) = (reader.u8().map_err(short)?, reader.u8().map_err(short)?);
    let cluster = u128::from(reader.u64().map_err(short)?) | u128::from(reader.u64().map_err(short)?) << 64;
    let mut numbers = [0; 8];
    for number in &mut numbers {
        *number = reader.u64().map_err(short)?;
    }
    let covered = MAGIC.len() + reader.offset();
    let (expected, found) = (reader.u32().map_err(short)?, crc32c::crc32c(&head[..covered]));
    if expected != found {
        return Err(SegmentError::Checksum { section: Section::Header, offset: covered, expected, found });
    }
    if flags & !FIRST_AFTER_CUT != 0 {
        return Err(outline("unknown flags"));
    }
    let [incarnation, position, n, sealed_incarnation, sealed_position, samples, start, end] = numbers;
    let header = Header {
        cluster,
        writer: WriterId(Revision { incarnation, position }),
        n,
        sealed_at: Revision { incarnation: sealed_incarnation, position: sealed_position },
        first_after_cut: flags & FIRST_AFTER_CUT != 0,
    };
    let range = TimeRange { start: start as i64, end: end as i64 };
    if range.start > range.end {
        return Err(outline("time range ends before it starts"));
    }
    let columns = Columns { samples, time_range: (samples > 0).then_some(range), ..Columns::new() };
    Ok((header, sections, columns))
}

/// Checks and unpacks the section at `offset`; returns it with the offset of the next.
fn get_section(
    bytes: &[u8],
    offset: usize,
    section: Section,
    decompressor: &mut Option<zstd::bulk::Decompressor<'_>>,
) -> Result<(Vec<u8>, usize), SegmentError> {
    let outline = |what| SegmentError::Outline { section, offset, what };
    let mut reader = Reader::new(&bytes[offset..]);
    let short = |_: DecodeError| outline("unexpected end");
    reader.u8().map_err(short)?;
    let codec = reader.u8().map_err(short)?;
    let content_len = u64::from(reader.u32().map_err(short)?);
    let stored_len = reader.u32().map_err(short)? as usize;
    let expected = reader.u32().map_err(short)?;
    let stored = reader.take(stored_len).map_err(short)?;
    let head = &bytes[offset..offset + SECTION_HEAD_BYTES - 4];
    let found = crc32c::crc32c_append(crc32c::crc32c(head), stored);
    if expected != found {
        return Err(SegmentError::Checksum { section, offset, expected, found });
    }
    if content_len > SECTION_BYTES_MAX {
        return Err(SegmentError::TooLarge { section, offset, bytes: content_len, max: SECTION_BYTES_MAX });
    }
    let content = match codec {
        STORED => stored.to_vec(),
        ZSTD => {
            let decompressor = match decompressor {
                Some(decompressor) => decompressor,
                None => {
                    decompressor.insert(zstd::bulk::Decompressor::new().map_err(|_| outline("zstd can't be set up"))?)
                }
            };
            decompressor.decompress(stored, content_len as usize).map_err(|_| outline("zstd can't unpack it"))?
        }
        _ => return Err(outline("unknown codec")),
    };
    if content.len() as u64 != content_len {
        return Err(outline("unpacks to another length than it says"));
    }
    Ok((content, offset + reader.offset()))
}

/// Fills one part of the columns; sections come in their order, so each may be checked against those before.
fn decode_section(section: Section, content: Vec<u8>, columns: &mut Columns) -> Result<(), DecodeError> {
    match section {
        Section::Header => Ok(()),
        Section::Tenants => decode_tenants(&content, columns),
        Section::Pairs => decode_pairs(&content, columns),
        Section::Series => decode_series(&content, columns),
        Section::Ids => {
            columns.ids = Ids::decode(&content, columns.samples)?;
            Ok(())
        }
        // Which time codes there must be is known with the values.
        Section::Times => {
            columns.times = content;
            Ok(())
        }
        Section::Values => {
            columns.values = content;
            check_codes(columns)
        }
        Section::Metadata => decode_metadata(&content, columns),
    }
}

fn decode_tenants(content: &[u8], columns: &mut Columns) -> Result<(), DecodeError> {
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        let tenant = TenantId::new(reader.str()?).map_err(|_| reader.error("not a tenant's name"))?;
        columns.push_tenant(tenant);
    }
    Ok(())
}

fn decode_pairs(content: &[u8], columns: &mut Columns) -> Result<(), DecodeError> {
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        let start = reader.offset();
        if reader.str()?.is_empty() || reader.str()?.is_empty() {
            return Err(reader.error("a label's name or value is empty"));
        }
        columns.pairs.push(&content[start..reader.offset()]);
    }
    Ok(())
}

fn decode_series(content: &[u8], columns: &mut Columns) -> Result<(), DecodeError> {
    let mut reader = Reader::new(content);
    let (mut next_id, mut next_pair, mut last) = (0, 0u32, 0..0);
    while !reader.is_empty() {
        let id = i64::from(next_id).checked_add(reader.zigzag()?).and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| reader.error("id out of range"))?;
        next_id = id.wrapping_add(1);
        let tenant = reader.varint()?;
        if tenant >= columns.tenants.len() as u64 {
            return Err(reader.error("unknown tenant"));
        }
        let start = columns.series_pairs.len();
        for position in 0..reader.count(1)? {
            let pair = match reader.varint()? {
                0 => columns.series_pairs[last.clone()].get(position).copied(),
                1 => {
                    next_pair += 1;
                    Some(next_pair - 1)
                }
                code => u32::try_from(code - 2).ok(),
            };
            let pair = pair.filter(|&pair| (pair as usize) < columns.pairs.len());
            columns.series_pairs.push(pair.ok_or_else(|| reader.error("unknown label pair"))?);
        }
        last = start..columns.series_pairs.len();
        let names = || columns.series_pairs[last.clone()].iter().map(|&pair| name_of(columns.pairs.get(pair)));
        if !names().is_sorted_by(|a, b| a < b) {
            return Err(reader.error("label names are not in order"));
        }
        columns.push_series_row(id, tenant as u32);
    }
    Ok(())
}

/// The name in a label pair's canonical bytes.
fn name_of(pair: &[u8]) -> &[u8] {
    Reader::new(pair).bytes().unwrap_or_default()
}

/// Walks both columns of codes once: as many whole value codes as ids, and exactly the time codes that they need.
fn check_codes(columns: &Columns) -> Result<(), DecodeError> {
    let (mut value, mut time, mut count) = (0, 0, 0);
    while value < columns.values.len() {
        let at = |e: DecodeError| DecodeError { offset: value + e.offset, ..e };
        let shape = measure_code(&columns.values[value..]).map_err(at)?;
        // One-byte codes are never histograms.
        if shape.len > 1 {
            histogram_in(&columns.values[value..value + shape.len]).map_err(at)?;
        }
        value += shape.len;
        count += 1;
        if shape.is_timed {
            time += measure_varint(&columns.times[time..])
                .map_err(|_| DecodeError { offset: time, what: "a time code is missing or broken" })?;
        }
    }
    if count != columns.samples {
        return Err(DecodeError { offset: value, what: "another number of values than of samples" });
    }
    if time != columns.times.len() {
        return Err(DecodeError { offset: time, what: "more time codes than values that have one" });
    }
    Ok(())
}

fn decode_metadata(content: &[u8], columns: &mut Columns) -> Result<(), DecodeError> {
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        let tenant = reader.varint()?;
        if tenant >= columns.tenants.len() as u64 {
            return Err(reader.error("unknown tenant"));
        }
        let metric = reader.str()?.to_owned();
        let kind = u64::from(reader.u8()?);
        let kind = MetricKind::from_number(kind).ok_or_else(|| reader.error("unknown kind of metric"))?;
        let metadata = Metadata { kind, unit: reader.str()?.to_owned(), help: reader.str()?.to_owned() };
        columns.push_metadata_entry(MetadataEntry { tenant: tenant as u32, metric, metadata });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
