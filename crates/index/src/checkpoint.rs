//! The whole index as bytes: docs/formats/checkpoint.md, "Checkpoint".
//!
//! The same state always gives the same bytes, so a checkpoint's key is write-once whoever writes it, and
//! the hash of the bytes compares replicas. Reading checks the checksum first, then every invariant that
//! applying entries keeps: what can't have been written is not taken in.

use std::collections::{BTreeMap, VecDeque};

use highway::{HighwayHash, HighwayHasher};
use model::{DecodeError, Reader, put_varint};

use crate::encoding::*;
use crate::node::{put_info, read_info};
use crate::state::{CompactLease, Index, Quarantined, Stage, Writer};

/// The version that checkpoints are written with.
pub const CHECKPOINT_VERSION: u8 = 2;

const MAGIC: &[u8; 4] = b"BRIX";

/// Bytes that are no checkpoint. There is nothing to fall back to: an older one may name deleted objects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Something else.
    #[error("not an index checkpoint")]
    NotACheckpoint,
    /// Written by a newer version.
    #[error("index checkpoint of version {0}, this program knows version {CHECKPOINT_VERSION}: start the newer one")]
    UnknownVersion(u8),
    /// Not what was written.
    #[error("index checkpoint's checksum is wrong")]
    Checksum,
    /// Not what was written, though the checksum is right.
    #[error("index checkpoint is damaged: {0}")]
    Damaged(#[from] DecodeError),
}

impl Index {
    /// The state's bytes.
    pub fn encode_checkpoint(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(MAGIC);
        out.push(CHECKPOINT_VERSION);
        out.extend_from_slice(&self.cluster.to_le_bytes());
        put_revision(&mut out, self.revision);
        put_varint(&mut out, self.writers.len() as u64);
        for (id, writer) in &self.writers {
            put_writer(&mut out, *id);
            put_node(&mut out, writer.node);
            out.extend_from_slice(&writer.nonce.to_le_bytes());
            out.push(match writer.stage {
                Stage::Live => 1,
                Stage::Fenced => 2,
            });
            put_varint(&mut out, writer.lease);
            put_option(&mut out, writer.adopter, put_node);
            put_varint(&mut out, writer.cut);
            put_varint(&mut out, writer.segments.len() as u64);
            for segment in &writer.segments {
                put_segment(&mut out, segment);
            }
        }
        put_varint(&mut out, self.blocks.len() as u64);
        for block in self.blocks.values() {
            put_block(&mut out, block);
        }
        put_varint(&mut out, self.quarantined.len() as u64);
        for range in self.quarantined.values() {
            put_writer(&mut out, range.writer);
            put_varint(&mut out, range.from);
            put_varint(&mut out, range.upto);
            put_option(&mut out, range.range, put_range);
            put_varint(&mut out, range.bytes);
        }
        put_varint(&mut out, self.compact.number);
        out.push(u8::from(self.compact.is_spent));
        put_option(&mut out, self.compact.holder, put_node);
        put_varint(&mut out, self.deletes.len() as u64);
        for (at, delete) in &self.deletes {
            put_revision(&mut out, *at);
            put_delete(&mut out, delete);
        }
        put_varint(&mut out, self.nodes.len() as u64);
        for (id, info) in &self.nodes {
            put_node(&mut out, *id);
            put_info(&mut out, info);
        }
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads what [`Index::encode_checkpoint`] wrote.
    pub fn decode_checkpoint(bytes: &[u8]) -> Result<Index, CheckpointError> {
        let body = checked(bytes, MAGIC).ok_or(CheckpointError::NotACheckpoint)?;
        if !(1..=CHECKPOINT_VERSION).contains(&body.version) {
            return Err(CheckpointError::UnknownVersion(body.version));
        }
        if !body.checksum_is_right {
            return Err(CheckpointError::Checksum);
        }
        Ok(read_index(body.version, body.fields)?)
    }

    /// A hash of everything in the state. Equal on replicas that applied the same log, so compare it.
    pub fn state_hash(&self) -> u64 {
        // The key is fixed: all replicas must agree. Nobody gains from a collision with themselves.
        HighwayHasher::default().hash64(&self.encode_checkpoint())
    }
}

/// What checkpoints and changes have in common around their fields.
pub(crate) struct Checked<'a> {
    pub version: u8,
    pub fields: &'a [u8],
    pub checksum_is_right: bool,
}

/// Takes magic, version and checksum off; `None` if it is too short or of another magic.
pub(crate) fn checked<'a>(bytes: &'a [u8], magic: &[u8; 4]) -> Option<Checked<'a>> {
    let (covered, checksum) = bytes.split_last_chunk::<4>()?;
    let rest = covered.strip_prefix(magic)?;
    let (version, fields) = rest.split_first()?;
    let checksum_is_right = crc32c::crc32c(covered) == u32::from_le_bytes(*checksum);
    Some(Checked { version: *version, fields, checksum_is_right })
}

pub(crate) fn read_cluster(reader: &mut Reader<'_>) -> Result<u128, DecodeError> {
    let mut cluster = [0; 16];
    cluster.copy_from_slice(reader.take(16)?);
    Ok(u128::from_le_bytes(cluster))
}

fn read_index(version: u8, fields: &[u8]) -> Result<Index, DecodeError> {
    let mut reader = Reader::new(fields);
    let cluster = read_cluster(&mut reader)?;
    let revision = read_revision(&mut reader)?;
    let mut index = Index::new(cluster, revision.incarnation);
    index.revision = revision;

    for _ in 0..reader.count(24)? {
        let id = read_writer(&mut reader)?;
        let writer = read_writer_state(&mut reader)?;
        if id.0 > revision {
            return Err(reader.error("a writer of after the checkpoint"));
        }
        put_in_order(&reader, &mut index.writers, id, writer)?;
    }
    for _ in 0..reader.count(9)? {
        let block = read_block(&mut reader)?;
        put_in_order(&reader, &mut index.blocks, block.id, block)?;
    }
    for _ in 0..reader.count(6)? {
        let range = Quarantined {
            writer: read_writer(&mut reader)?,
            from: reader.varint()?,
            upto: reader.varint()?,
            range: read_option(&mut reader, read_range)?,
            bytes: reader.varint()?,
        };
        if range.from == 0 || range.from > range.upto || index.is_quarantined(range.writer, range.from) {
            return Err(reader.error("a quarantined range that is none"));
        }
        put_in_order(&reader, &mut index.quarantined, (range.writer, range.from), range)?;
    }
    index.compact = CompactLease {
        number: reader.varint()?,
        is_spent: read_bool(&mut reader)?,
        holder: read_option(&mut reader, read_node)?,
    };
    for _ in 0..reader.count(6)? {
        let at = read_revision(&mut reader)?;
        let delete = read_delete(&mut reader)?;
        put_in_order(&reader, &mut index.deletes, at, delete)?;
    }
    // Version 1 is of before there could be several nodes.
    let nodes = if version == 1 { 0 } else { reader.count(11)? };
    for _ in 0..nodes {
        let id = read_node(&mut reader)?;
        let info = read_info(&mut reader)?;
        put_in_order(&reader, &mut index.nodes, id, info)?;
    }
    if !reader.is_empty() {
        return Err(reader.error("bytes after the end of a checkpoint"));
    }
    Ok(index)
}

fn read_writer_state(reader: &mut Reader<'_>) -> Result<Writer, DecodeError> {
    let node = read_node(reader)?;
    let nonce = reader.u64()?;
    let stage = match reader.u8()? {
        1 => Stage::Live,
        2 => Stage::Fenced,
        _ => return Err(reader.error("unknown stage of a writer")),
    };
    let lease = reader.varint()?;
    let adopter = read_option(reader, read_node)?;
    let cut = reader.varint()?;
    let count = reader.count(3)?;
    let added = cut.checked_add(count as u64).ok_or_else(|| reader.error("segment number over 64 bits"))?;
    // Grows as it is read: a segment in memory is larger than its three bytes at least.
    let mut segments = VecDeque::new();
    for _ in 0..count {
        segments.push_back(read_segment(reader)?);
    }
    Ok(Writer { node, nonce, stage, added, cut, lease, adopter, segments })
}

/// Only the ascending order is what was written.
fn put_in_order<K: Ord, V>(reader: &Reader<'_>, map: &mut BTreeMap<K, V>, key: K, value: V) -> Result<(), DecodeError> {
    if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
        return Err(reader.error("out of order"));
    }
    map.insert(key, value);
    Ok(())
}
