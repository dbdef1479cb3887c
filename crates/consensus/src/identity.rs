//! The replica's own id: `identity` in the log's folder. Bytes: docs/formats/log.md.
//!
//! Written last when a folder is begun, so that its being there says that the rest is. An id is never used by
//! another folder, nor by this one when it has lost its log: with that went its votes.

use std::path::Path;

use crate::error::OpenError;
use crate::files::Files;

/// The file's name.
pub const NAME: &str = "identity";
const MAGIC: &[u8; 4] = b"BRID";
const VERSION: u32 = 1;
/// Magic, version, id, checksum.
const BYTES: usize = 20;

/// Writes the id; it is durable when this returns.
pub fn write_identity(files: &dyn Files, folder: &Path, id: u64) -> std::io::Result<()> {
    let mut out = Vec::with_capacity(BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    files.write_atomically(&folder.join(NAME), &out)
}

/// Reads the id.
pub fn read_identity(files: &dyn Files, folder: &Path) -> Result<u64, OpenError> {
    let path = folder.join(NAME);
    let bytes = files.read(&path).map_err(|source| OpenError::Io { what: "read", path: path.clone(), source })?;
    let what = "it is not the identity that was written".to_owned();
    parse(&bytes).ok_or(OpenError::Corrupt { path, offset: 0, what })
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let (covered, checksum) = bytes.split_last_chunk::<4>()?;
    let is_ours = covered.starts_with(MAGIC) && covered[4..8] == VERSION.to_le_bytes();
    let id = u64::from_le_bytes(*covered[8..].first_chunk()?);
    (is_ours && id != 0 && crc32c::crc32c(covered) == u32::from_le_bytes(*checksum)).then_some(id)
}
