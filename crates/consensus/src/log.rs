//! The log file: records of entries, appended and fsynced one record at a time. Bytes: docs/formats/log.md.
//!
//! A record is one group commit: all entries that waited, under one checksum. It is written only when the
//! record before it is durable, and answered only when it is durable itself. So:
//!
//! - A torn record can only be the last one, and nothing in it was answered: it is cut off.
//! - A damaged record with a whole one after it was durable once: the disk has lost what was answered, and
//!   the start is stopped. (Had each entry its own record, a batch that was torn in its middle by a power
//!   loss would look just the same: the disk may write a batch's pages in any order.)
//! - A whole record at the end may be one that the last process had written and not yet fsynced. It is kept,
//!   and made durable before anybody can see it.
//!
//! What it can't tell: a bit that rots in the very last record looks like a torn one.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::files::{Files, LogFile};

const MAGIC: &[u8; 4] = b"BRLG";
const VERSION: u32 = 1;
/// Magic, version, first position, checksum.
pub const HEADER_BYTES: usize = 20;
/// Length, checksum, first position.
pub const RECORD_HEADER_BYTES: usize = 16;
/// A record that claims more is no record: twice the largest batch and entry that settings allow, and more.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// The name of the log that begins with the entry at `first`.
pub fn log_name(first: u64) -> String {
    format!("log-{first:020}")
}

/// What a log's name says; `None`: not a log.
pub fn parse_log_name(name: &str) -> Option<u64> {
    let first = name.strip_prefix("log-")?.parse().ok()?;
    (log_name(first) == name).then_some(first)
}

/// The log that is written to.
pub struct Log {
    pub path: PathBuf,
    file: Box<dyn LogFile>,
}

impl Log {
    /// Creates the log that begins with `first`; it is durable when this returns, and still empty.
    pub fn create(files: &dyn Files, folder: &Path, first: u64) -> io::Result<Log> {
        let path = folder.join(log_name(first));
        // A process may have died here before it wrote anything. (What has records is never created anew.)
        match files.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        let mut file = files.open_log(&path, true)?;
        file.reserve(HEADER_BYTES as u64)?;
        file.append(&header(first))?;
        file.sync()?;
        files.sync_folder(folder)?;
        Ok(Log { path, file })
    }

    /// Opens the last log, cuts a torn record off, and makes the rest durable.
    pub fn open(files: &dyn Files, path: PathBuf, whole_bytes: u64) -> io::Result<Log> {
        let mut file = files.open_log(&path, false)?;
        if file.len() > whole_bytes {
            file.truncate(whole_bytes)?;
        }
        file.sync()?;
        Ok(Log { path, file })
    }

    pub fn bytes(&self) -> u64 {
        self.file.len()
    }

    /// Room for a record; an error leaves the log untouched.
    pub fn reserve(&mut self, record: &[u8]) -> io::Result<()> {
        self.file.reserve(record.len() as u64)
    }

    /// Appends a record and makes it durable. After an error nobody knows what is in the file.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.file.append(record)?;
        self.file.sync()
    }
}

fn header(first: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&first.to_le_bytes());
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// Builds one record.
pub struct Record {
    bytes: Vec<u8>,
    entries: usize,
}

impl Record {
    pub fn new() -> Record {
        Record { bytes: vec![0; RECORD_HEADER_BYTES], entries: 0 }
    }

    pub fn push(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(payload);
        self.entries += 1;
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The record's bytes, with the position of its first entry.
    pub fn finish(mut self, first: u64) -> Vec<u8> {
        assert!(self.entries > 0 && self.bytes.len() <= RECORD_BYTES_MAX, "a record is neither empty nor huge");
        let length = (self.bytes.len() - RECORD_HEADER_BYTES) as u32;
        self.bytes[0..4].copy_from_slice(&length.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&first.to_le_bytes());
        let checksum = checksum(&self.bytes);
        self.bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

/// Covers the whole record but for the checksum itself.
fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[0..4]), &record[8..])
}

/// What a log file holds.
pub struct Contents<'a> {
    /// Entries with their positions, ascending without gaps.
    pub entries: Vec<(u64, &'a [u8])>,
    /// Where the last whole record ends. 0: not even the header is whole, so nothing was ever in it.
    pub whole_bytes: u64,
}

/// Reads the log that begins with `first`. Only the last log may have a torn end.
pub fn read_log<'a>(path: &Path, bytes: &'a [u8], first: u64, is_last: bool) -> Result<Contents<'a>, OpenError> {
    let corrupt = |offset: usize, what: &str| OpenError::Corrupt {
        path: path.to_path_buf(),
        offset: offset as u64,
        what: what.to_owned(),
    };
    if bytes.get(..HEADER_BYTES) != Some(header(first).as_slice()) {
        if bytes.len() >= 8 && bytes.starts_with(MAGIC) && bytes[4..8] != VERSION.to_le_bytes() {
            return Err(OpenError::Unreadable {
                path: path.to_path_buf(),
                source: "another version of the log".into(),
            });
        }
        // The header is durable before the first record is written.
        if is_last && bytes.len() <= HEADER_BYTES {
            return Ok(Contents { entries: Vec::new(), whole_bytes: 0 });
        }
        return Err(corrupt(0, "its header is not what was written"));
    }
    let mut contents = Contents { entries: Vec::new(), whole_bytes: HEADER_BYTES as u64 };
    let mut next = first;
    let mut offset = HEADER_BYTES;
    while offset < bytes.len() {
        let Some(record) = whole_record(&bytes[offset..]) else {
            if !is_last {
                return Err(corrupt(offset, "a record is damaged, and a later log follows"));
            }
            if let Some(after) = whole_record_after(bytes, offset + 1, next) {
                return Err(corrupt(offset, &format!("a record is damaged, and a whole one follows at {after}")));
            }
            break;
        };
        if record.first != next {
            return Err(corrupt(offset, &format!("position {} follows, not {next}", record.first)));
        }
        let mut rest = record.body;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else {
                return Err(corrupt(offset, "an entry runs past its record"));
            };
            contents.entries.push((next, payload));
            next += 1;
            rest = after;
        }
        if !rest.is_empty() {
            return Err(corrupt(offset, "bytes after the last entry of a record"));
        }
        offset += RECORD_HEADER_BYTES + record.body.len();
        contents.whole_bytes = offset as u64;
    }
    Ok(contents)
}

struct WholeRecord<'a> {
    first: u64,
    body: &'a [u8],
}

/// The record that `bytes` begin with; `None` if it is torn or damaged.
fn whole_record(bytes: &[u8]) -> Option<WholeRecord<'_>> {
    let length = u32::from_le_bytes(*bytes.first_chunk::<4>()?) as usize;
    if length == 0 || length > RECORD_BYTES_MAX {
        return None;
    }
    let record = bytes.get(..RECORD_HEADER_BYTES + length)?;
    let stored = u32::from_le_bytes(*record[4..].first_chunk::<4>()?);
    let first = u64::from_le_bytes(*record[8..].first_chunk::<8>()?);
    (checksum(record) == stored).then_some(WholeRecord { first, body: &record[RECORD_HEADER_BYTES..] })
}

/// Looks at every offset for a record that was written after the one that should begin at position `next`.
fn whole_record_after(bytes: &[u8], from: usize, next: u64) -> Option<usize> {
    (from..bytes.len()).find(|offset| {
        let Some(position) = bytes.get(offset + 8..offset + 16) else { return false };
        let position = u64::from_le_bytes(position.try_into().expect("eight bytes"));
        // Cheap first: without this, random bytes would have us sum up megabytes at every offset. No damaged
        // record held more entries than it has bytes.
        let plausible = position > next && position - next <= bytes.len() as u64;
        plausible && whole_record(&bytes[*offset..]).is_some()
    })
}
