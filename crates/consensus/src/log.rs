//! The log on disk: records, appended and fsynced one at a time. Bytes: docs/formats/log.md.
//!
//! A record is one group commit: raft's hard state and all entries that waited, under one checksum. It is written
//! only when the record before it is durable, and nothing in it is acked before it is durable itself. So:
//!
//! - A torn record can only be the last one, and nothing in it was acked: it is cut off.
//! - A damaged record with a whole one after it was durable once: the disk has lost what was acked, and
//!   the start is stopped. (Had each entry its own record, a batch that was torn in its middle by a power
//!   loss would look just the same: the disk may write a batch's pages in any order.)
//! - A whole record at the end may be one that the last process had written and not yet fsynced. It is kept,
//!   and made durable before anybody can hear of it.
//!
//! Entries replace what the log holds from the first of them on: raft cuts a tail off that no leader knows.
//! A new log repeats what it needs of the one before, so that one file is all that a start reads.
//!
//! What it can't tell: a bit that rots in the very last record looks like a torn one.

use std::io;
use std::path::{Path, PathBuf};

use raft::eraftpb::{Entry, HardState};

use crate::codec::{Reader, put_entry, read_entry};
use crate::error::OpenError;
use crate::files::{Files, LogFile};

const MAGIC: &[u8; 4] = b"BRLG";
const VERSION: u32 = 2;
/// Magic, version, number, base position, base term, checksum.
pub const HEADER_BYTES: usize = 36;
/// Length, checksum, number of the record, boots, hard state, position of the first entry.
pub const RECORD_HEADER_BYTES: usize = 56;
/// A record that claims more is no record: more than limits allow to be uncommitted or kept.
const RECORD_BYTES_MAX: usize = 256 << 20;
/// Room that is always there for records without entries: a new term, a vote.
pub const MARGIN_BYTES: u64 = 64 << 10;

/// The name of the `number`th log.
pub fn log_name(number: u64) -> String {
    format!("log-{number:020}")
}

/// What a log's name says; `None`: not a log.
pub fn parse_log_name(name: &str) -> Option<u64> {
    let number = name.strip_prefix("log-")?.parse().ok()?;
    (log_name(number) == name).then_some(number)
}

/// The log that is written to.
pub struct Log {
    pub path: PathBuf,
    pub number: u64,
    file: Box<dyn LogFile>,
    records: u64,
    /// Starts of a process on this folder, this one included; in every record.
    boots: u64,
}

impl Log {
    /// Creates a log whose first record holds `entries`, which follow `base`; all of it is durable when this returns.
    pub fn create(
        files: &dyn Files,
        folder: &Path,
        number: u64,
        boots: u64,
        base: (u64, u64),
        hard_state: &HardState,
        entries: &[Entry],
    ) -> io::Result<Log> {
        let path = folder.join(log_name(number));
        // A process may have died here before it was through. (What is whole is never created anew.)
        match files.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        let mut file = files.open_log(&path, true)?;
        let mut bytes = header(number, base);
        bytes.extend_from_slice(&record(1, boots, hard_state, entries));
        file.reserve(bytes.len() as u64 + MARGIN_BYTES)?;
        file.append(&bytes)?;
        file.sync()?;
        files.sync_folder(folder)?;
        Ok(Log { path, number, file, records: 1, boots })
    }

    /// Opens a log for going on in the start after the one that wrote it, cuts a torn record off, and makes the rest
    /// durable. The new count of starts is durable with the next record.
    pub fn open(files: &dyn Files, path: PathBuf, contents: &Contents) -> io::Result<Log> {
        let mut file = files.open_log(&path, false)?;
        if file.len() > contents.whole_bytes {
            file.truncate(contents.whole_bytes)?;
        }
        file.sync()?;
        Ok(Log { path, number: contents.number, file, records: contents.records, boots: contents.boots + 1 })
    }

    pub fn bytes(&self) -> u64 {
        self.file.len()
    }

    pub fn boots(&self) -> u64 {
        self.boots
    }

    /// Room for so many bytes of records and the margin; an error leaves the log untouched.
    pub fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.file.reserve(bytes + MARGIN_BYTES)
    }

    /// Appends a record and makes it durable. After an error nobody knows what is in the file.
    pub fn append(&mut self, hard_state: &HardState, entries: &[Entry]) -> io::Result<()> {
        let record = record(self.records + 1, self.boots, hard_state, entries);
        self.file.append(&record)?;
        self.file.sync()?;
        self.records += 1;
        Ok(())
    }
}

fn header(number: u64, base: (u64, u64)) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&base.0.to_le_bytes());
    out.extend_from_slice(&base.1.to_le_bytes());
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// One record's bytes.
pub fn record(number: u64, boots: u64, hard_state: &HardState, entries: &[Entry]) -> Vec<u8> {
    let size: usize = entries.iter().map(|entry| entry.data.len() + entry.context.len() + 16).sum();
    let mut out = Vec::with_capacity(RECORD_HEADER_BYTES + size);
    out.extend_from_slice(&[0; 8]);
    let first = entries.first().map_or(0, |entry| entry.index);
    for value in [number, boots, hard_state.term, hard_state.vote, hard_state.commit, first] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    for entry in entries {
        put_entry(&mut out, entry);
    }
    assert!(out.len() <= RECORD_BYTES_MAX, "a record is not huge");
    let length = (out.len() - RECORD_HEADER_BYTES) as u32;
    out[0..4].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(&out);
    out[4..8].copy_from_slice(&checksum.to_le_bytes());
    out
}

/// Covers the whole record but for the checksum itself.
fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[0..4]), &record[8..])
}

/// What a log file holds.
#[derive(Debug, Default, Clone)]
pub struct Contents {
    pub number: u64,
    /// The position and term before the first entry.
    pub base: (u64, u64),
    /// As the last record has it.
    pub hard_state: HardState,
    /// Positions follow the base without gaps.
    pub entries: Vec<Entry>,
    pub records: u64,
    pub boots: u64,
    /// Where the last whole record ends.
    pub whole_bytes: u64,
}

/// Reads a log. `None`: it was never finished being created, so nothing was ever acked that is only in it.
pub fn read_log(path: &Path, bytes: &[u8], number: u64) -> Result<Option<Contents>, OpenError> {
    let corrupt = |offset: usize, what: &str| OpenError::Corrupt {
        path: path.to_path_buf(),
        offset: offset as u64,
        what: what.to_owned(),
    };
    if bytes.starts_with(MAGIC) && bytes.get(4..8).is_some_and(|version| *version != VERSION.to_le_bytes()) {
        let version = u32::from_le_bytes(*bytes[4..].first_chunk().expect("four bytes"));
        let source = match version {
            1 => "version 1 of the log, from before nodes could form a group: start the older program, or move index/ \
                  away and rebuild it from the bucket"
                .into(),
            _ => format!("version {version} of the log").into(),
        };
        // A bit of the version that has flipped must not pass for another version.
        if bytes.len() < 20 || version != 1 || crc32c::crc32c(&bytes[..16]).to_le_bytes() == bytes[16..20] {
            return Err(OpenError::Unreadable { path: path.to_path_buf(), source });
        }
    }
    // The header and the first record become durable together, before the second is written. Until then the log before
    // this one is there, and holds the same.
    let damaged_begin = |offset: usize| match whole_record_after(bytes, offset, 2) {
        Some(after) => {
            Err(corrupt(offset, &format!("its beginning is damaged, and a whole record follows at {after}")))
        }
        None => Ok(None),
    };
    let Some(base) = read_header(bytes, number) else { return damaged_begin(0) };
    let mut contents = Contents { number, base, ..Contents::default() };
    let mut offset = HEADER_BYTES;
    while offset < bytes.len() {
        let next = contents.records + 1;
        let Some(record) = whole_record(&bytes[offset..]) else {
            if contents.records == 0 {
                return damaged_begin(offset + 1);
            }
            if let Some(after) = whole_record_after(bytes, offset + 1, next) {
                return Err(corrupt(offset, &format!("a record is damaged, and a whole one follows at {after}")));
            }
            break;
        };
        if record.number != next {
            return Err(corrupt(offset, &format!("record {} follows, not {next}", record.number)));
        }
        add(&mut contents, &record).map_err(|what| corrupt(offset, what))?;
        offset += RECORD_HEADER_BYTES + record.body.len();
        contents.records = next;
        contents.whole_bytes = offset as u64;
    }
    Ok((contents.records > 0).then_some(contents))
}

fn read_header(bytes: &[u8], number: u64) -> Option<(u64, u64)> {
    let mut reader = Reader(bytes.get(8..HEADER_BYTES)?);
    let (found, base) = (reader.u64()?, (reader.u64()?, reader.u64()?));
    (found == number && bytes.starts_with(&header(number, base))).then_some(base)
}

/// Takes a record's hard state and entries in.
fn add(contents: &mut Contents, record: &WholeRecord<'_>) -> Result<(), &'static str> {
    let mut reader = Reader(record.body);
    let mut index = record.first;
    if !reader.is_empty() {
        let after = index.checked_sub(contents.base.0 + 1).and_then(|after| usize::try_from(after).ok());
        let Some(after) = after.filter(|after| *after <= contents.entries.len()) else {
            return Err("its entries do not follow those before");
        };
        contents.entries.truncate(after);
    }
    while !reader.is_empty() {
        let entry = read_entry(&mut reader, index).ok_or("an entry can't be read")?;
        contents.entries.push(entry);
        index += 1;
    }
    contents.hard_state = record.hard_state.clone();
    contents.boots = record.boots;
    Ok(())
}

struct WholeRecord<'a> {
    number: u64,
    boots: u64,
    hard_state: HardState,
    first: u64,
    body: &'a [u8],
}

/// The record that `bytes` begin with; `None` if it is torn or damaged.
fn whole_record(bytes: &[u8]) -> Option<WholeRecord<'_>> {
    let length = u32::from_le_bytes(*bytes.first_chunk::<4>()?) as usize;
    if length > RECORD_BYTES_MAX {
        return None;
    }
    let record = bytes.get(..RECORD_HEADER_BYTES + length)?;
    if checksum(record).to_le_bytes() != record[4..8] {
        return None;
    }
    let mut reader = Reader(&record[8..]);
    let (number, boots) = (reader.u64()?, reader.u64()?);
    let (term, vote, commit) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let hard_state = HardState { term, vote, commit, ..HardState::default() };
    Some(WholeRecord { number, boots, hard_state, first: reader.u64()?, body: reader.0 })
}

/// Looks at every offset for a record that was written after the `next`th.
fn whole_record_after(bytes: &[u8], from: usize, next: u64) -> Option<usize> {
    (from..bytes.len()).find(|offset| {
        let Some(number) = bytes.get(offset + 8..offset + 16) else { return false };
        let number = u64::from_le_bytes(number.try_into().expect("eight bytes"));
        // Cheap first: without this, random bytes would have us sum up megabytes at every offset. No damaged
        // bytes held more records than they are many.
        let plausible = number >= next && number - next <= bytes.len() as u64;
        plausible && whole_record(&bytes[*offset..]).is_some()
    })
}
