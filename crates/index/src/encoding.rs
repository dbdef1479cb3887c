//! Pieces that entries, checkpoints and changes have in common (docs/formats/checkpoint.md).
//!
//! Numbers are varints, timestamps zigzag varints. Every `put_x` has a `read_x` beside it.

use model::{DecodeError, Lease, MatchOp, NodeId, Reader, Revision, Right, TenantId, TimeRange, WriterId};
use model::{put_varint, put_zigzag};

use crate::block::{BlockId, BlockMeta};
use crate::delete::{Delete, DeleteMatcher};
use crate::entry::SegmentMeta;

pub fn put_revision(out: &mut Vec<u8>, revision: Revision) {
    put_varint(out, revision.incarnation);
    put_varint(out, revision.position);
}

pub fn read_revision(reader: &mut Reader<'_>) -> Result<Revision, DecodeError> {
    Ok(Revision { incarnation: reader.varint()?, position: reader.varint()? })
}

pub fn put_writer(out: &mut Vec<u8>, writer: WriterId) {
    put_revision(out, writer.0);
}

pub fn read_writer(reader: &mut Reader<'_>) -> Result<WriterId, DecodeError> {
    Ok(WriterId(read_revision(reader)?))
}

pub fn put_lease(out: &mut Vec<u8>, lease: Lease) {
    put_varint(out, lease.incarnation);
    put_varint(out, lease.number);
}

pub fn read_lease(reader: &mut Reader<'_>) -> Result<Lease, DecodeError> {
    Ok(Lease { incarnation: reader.varint()?, number: reader.varint()? })
}

pub fn put_node(out: &mut Vec<u8>, node: NodeId) {
    out.extend_from_slice(&node.0.to_le_bytes());
}

pub fn read_node(reader: &mut Reader<'_>) -> Result<NodeId, DecodeError> {
    Ok(NodeId(reader.u64()?))
}

/// 0, or 1 and what is there.
pub fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            put(out, value);
        }
    }
}

pub fn read_option<T>(
    reader: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if read_bool(reader)? { Ok(Some(read(reader)?)) } else { Ok(None) }
}

pub fn read_bool(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.error("a flag is 0 or 1")),
    }
}

pub fn put_range(out: &mut Vec<u8>, range: TimeRange) {
    put_zigzag(out, range.start);
    put_zigzag(out, range.end);
}

pub fn read_range(reader: &mut Reader<'_>) -> Result<TimeRange, DecodeError> {
    let range = TimeRange { start: reader.zigzag()?, end: reader.zigzag()? };
    if range.start > range.end {
        return Err(reader.error("a time range ends before it starts"));
    }
    Ok(range)
}

pub fn put_segment(out: &mut Vec<u8>, segment: &SegmentMeta) {
    put_varint(out, u64::from(segment.attempt));
    put_varint(out, segment.bytes);
    put_option(out, segment.range, put_range);
}

pub fn read_segment(reader: &mut Reader<'_>) -> Result<SegmentMeta, DecodeError> {
    let attempt = u32::try_from(reader.varint()?).map_err(|_| reader.error("attempt over 32 bits"))?;
    Ok(SegmentMeta { attempt, bytes: reader.varint()?, range: read_option(reader, read_range)? })
}

pub fn put_block_id(out: &mut Vec<u8>, id: &BlockId) {
    match id.right {
        Right::Writer(writer) => {
            out.push(1);
            put_writer(out, writer);
        }
        Right::Adopter(writer, lease) => {
            out.push(2);
            put_writer(out, writer);
            put_lease(out, lease);
        }
        Right::Compactor(lease) => {
            out.push(3);
            put_lease(out, lease);
        }
    }
    put_varint(out, id.attempt);
}

pub fn read_block_id(reader: &mut Reader<'_>) -> Result<BlockId, DecodeError> {
    let right = match reader.u8()? {
        1 => Right::Writer(read_writer(reader)?),
        2 => Right::Adopter(read_writer(reader)?, read_lease(reader)?),
        3 => Right::Compactor(read_lease(reader)?),
        _ => return Err(reader.error("unknown kind of right")),
    };
    Ok(BlockId { right, attempt: reader.varint()? })
}

pub fn put_block(out: &mut Vec<u8>, block: &BlockMeta) {
    put_block_id(out, &block.id);
    put_varint(out, block.bytes);
    put_option(out, block.range, put_range);
    put_varint(out, block.series);
    put_varint(out, block.samples);
    put_revision(out, block.built_at);
}

pub fn read_block(reader: &mut Reader<'_>) -> Result<BlockMeta, DecodeError> {
    Ok(BlockMeta {
        id: read_block_id(reader)?,
        bytes: reader.varint()?,
        range: read_option(reader, read_range)?,
        series: reader.varint()?,
        samples: reader.varint()?,
        built_at: read_revision(reader)?,
    })
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub fn put_delete(out: &mut Vec<u8>, delete: &Delete) {
    out.extend_from_slice(&delete.nonce.to_le_bytes());
    put_str(out, delete.tenant.as_str());
    put_range(out, delete.range);
    put_varint(out, delete.matchers.len() as u64);
    for matcher in &delete.matchers {
        out.push(match matcher.op {
            MatchOp::Equal => 1,
            MatchOp::NotEqual => 2,
            MatchOp::Regex => 3,
            MatchOp::NotRegex => 4,
        });
        put_str(out, &matcher.name);
        put_str(out, &matcher.value);
    }
}

pub fn read_delete(reader: &mut Reader<'_>) -> Result<Delete, DecodeError> {
    let nonce = reader.u64()?;
    let tenant = TenantId::new(reader.str()?).map_err(|_| reader.error("a tenant's name outside the rule"))?;
    let range = read_range(reader)?;
    let mut matchers = Vec::new();
    for _ in 0..reader.count(3)? {
        let op = match reader.u8()? {
            1 => MatchOp::Equal,
            2 => MatchOp::NotEqual,
            3 => MatchOp::Regex,
            4 => MatchOp::NotRegex,
            _ => return Err(reader.error("unknown match operator")),
        };
        matchers.push(DeleteMatcher { op, name: reader.str()?.to_owned(), value: reader.str()?.to_owned() });
    }
    Ok(Delete { nonce, tenant, matchers, range })
}
