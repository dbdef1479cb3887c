//! The replica's own id and its count of starts: `identity` in the log's folder. Bytes: docs/formats/log.md.
//!
//! Written before anything is said to anybody, and with the log: a folder that lost its log has lost its votes
//! too, and must not speak under the old id.

use std::path::Path;

use runtime::Random;

use crate::error::OpenError;
use crate::files::Files;
use crate::members::Identity;

const NAME: &str = "identity";
const MAGIC: &[u8; 4] = b"BRID";
const VERSION: u32 = 1;
/// Magic, version, id, boots, checksum.
const BYTES: usize = 28;

/// Draws an id if the folder is begun, else reads it and counts this start. Durable when it returns.
pub fn begin_or_boot(files: &dyn Files, folder: &Path, begin: bool, random: &Random) -> Result<Identity, OpenError> {
    let path = folder.join(NAME);
    let io = |what| {
        let path = path.clone();
        move |source| OpenError::Io { what, path, source }
    };
    let identity = if begin {
        files.create_folder(folder).map_err(io("create the folder of"))?;
        // 0 means nobody in raft.
        Identity { id: random.u64().max(1), boots: 1 }
    } else {
        let bytes = files.read(&path).map_err(io("read"))?;
        let last = parse(&bytes).ok_or_else(|| OpenError::Corrupt {
            path: path.clone(),
            offset: 0,
            what: "it is not the identity that was written".to_owned(),
        })?;
        Identity { boots: last.boots + 1, ..last }
    };
    files.write_atomically(&path, &encode(identity)).map_err(io("write"))?;
    Ok(identity)
}

fn encode(identity: Identity) -> Vec<u8> {
    let mut out = Vec::with_capacity(BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&identity.id.to_le_bytes());
    out.extend_from_slice(&identity.boots.to_le_bytes());
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

fn parse(bytes: &[u8]) -> Option<Identity> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let (covered, checksum) = bytes.split_last_chunk::<4>()?;
    let is_ours = covered.starts_with(MAGIC) && covered[4..8] == VERSION.to_le_bytes();
    if !is_ours || crc32c::crc32c(covered) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let id = u64::from_le_bytes(*covered[8..].first_chunk()?);
    let boots = u64::from_le_bytes(*covered[16..].first_chunk()?);
    (id != 0 && boots != 0).then_some(Identity { id, boots })
}
