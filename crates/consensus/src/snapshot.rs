//! Local snapshots: the state at a position, so that the log before it can go. Bytes: docs/formats/log.md.
//!
//! One at a time matters: the newest. It is written whole or not at all, and the log it replaces is only
//! removed when it is durable. A damaged one stops the start: the log before it is gone.

use std::io;
use std::path::Path;

use crate::error::OpenError;
use crate::files::Files;

const MAGIC: &[u8; 4] = b"BRSN";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;

/// The name of the snapshot at `position`.
pub fn snapshot_name(position: u64) -> String {
    format!("snapshot-{position:020}")
}

/// What a snapshot's name says; `None`: not a snapshot.
pub fn parse_snapshot_name(name: &str) -> Option<u64> {
    let position = name.strip_prefix("snapshot-")?.parse().ok()?;
    (snapshot_name(position) == name).then_some(position)
}

/// Writes the snapshot at `position`; it is durable when this returns.
pub fn write_snapshot(files: &dyn Files, folder: &Path, position: u64, state: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(state.len() + HEADER_BYTES + 4);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&position.to_le_bytes());
    bytes.extend_from_slice(state);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    files.write_atomically(&folder.join(snapshot_name(position)), &bytes)
}

/// Checks a snapshot's bytes and returns the state's.
pub fn read_snapshot<'a>(path: &Path, bytes: &'a [u8], position: u64) -> Result<&'a [u8], OpenError> {
    let corrupt = |what: &str| OpenError::Corrupt { path: path.to_path_buf(), offset: 0, what: what.to_owned() };
    let Some((covered, checksum)) = bytes.split_last_chunk::<4>() else {
        return Err(corrupt("it is too short"));
    };
    if crc32c::crc32c(covered) != u32::from_le_bytes(*checksum) {
        return Err(corrupt("its checksum is wrong"));
    }
    if !covered.starts_with(MAGIC) || covered.len() < HEADER_BYTES {
        return Err(corrupt("it is not a snapshot"));
    }
    if covered[4..8] != VERSION.to_le_bytes() {
        return Err(OpenError::Unreadable { path: path.to_path_buf(), source: "another version of snapshots".into() });
    }
    if covered[8..16] != position.to_le_bytes() {
        return Err(corrupt("it is the snapshot of another position"));
    }
    Ok(&covered[HEADER_BYTES..])
}
