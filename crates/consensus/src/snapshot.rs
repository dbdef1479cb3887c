//! Snapshots on disk: the state and the members at a position, so that the log before it can go. Bytes:
//! docs/formats/log.md.
//!
//! One at a time matters: the newest. It is written whole or not at all, and the log it replaces is only
//! removed when it is durable. A damaged one stops the start: the log before it is gone.

use std::io;
use std::path::Path;

use raft::eraftpb::SnapshotMetadata;

use crate::codec::{Reader, put_members, read_members};
use crate::error::OpenError;
use crate::files::Files;

const MAGIC: &[u8; 4] = b"BRSN";
const VERSION: u32 = 2;

/// The name of the snapshot at `position`.
pub fn snapshot_name(position: u64) -> String {
    format!("snapshot-{position:020}")
}

/// What a snapshot's name says; `None`: not a snapshot.
pub fn parse_snapshot_name(name: &str) -> Option<u64> {
    let position = name.strip_prefix("snapshot-")?.parse().ok()?;
    (snapshot_name(position) == name).then_some(position)
}

/// Writes a snapshot; it is durable when this returns.
pub fn write_snapshot(files: &dyn Files, folder: &Path, meta: &SnapshotMetadata, state: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(state.len() + 128);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&meta.index.to_le_bytes());
    bytes.extend_from_slice(&meta.term.to_le_bytes());
    put_members(&mut bytes, meta.get_conf_state());
    bytes.extend_from_slice(state);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    files.write_atomically(&folder.join(snapshot_name(meta.index)), &bytes)
}

/// Checks a snapshot's bytes and returns what it says of itself, and the state's bytes.
pub fn read_snapshot<'a>(
    path: &Path,
    bytes: &'a [u8],
    position: u64,
) -> Result<(SnapshotMetadata, &'a [u8]), OpenError> {
    let corrupt = |what: &str| OpenError::Corrupt { path: path.to_path_buf(), offset: 0, what: what.to_owned() };
    let Some((covered, checksum)) = bytes.split_last_chunk::<4>() else {
        return Err(corrupt("it is too short"));
    };
    if crc32c::crc32c(covered) != u32::from_le_bytes(*checksum) {
        return Err(corrupt("its checksum is wrong"));
    }
    let Some((head, rest)) = covered.split_first_chunk::<8>().filter(|(head, _)| head.starts_with(MAGIC)) else {
        return Err(corrupt("it is not a snapshot"));
    };
    if head[4..8] != VERSION.to_le_bytes() {
        let source =
            "another version of snapshots: start the program that wrote it, or move index/ away and rebuild it \
                      from the bucket"
                .into();
        return Err(OpenError::Unreadable { path: path.to_path_buf(), source });
    }
    let mut reader = Reader(rest);
    let meta = read_meta(&mut reader).ok_or_else(|| corrupt("its members can't be read"))?;
    if meta.index != position {
        return Err(corrupt("it is the snapshot of another position"));
    }
    Ok((meta, reader.0))
}

fn read_meta(reader: &mut Reader<'_>) -> Option<SnapshotMetadata> {
    let mut meta = SnapshotMetadata { index: reader.u64()?, term: reader.u64()?, ..SnapshotMetadata::default() };
    meta.set_conf_state(read_members(reader)?);
    Some(meta)
}
