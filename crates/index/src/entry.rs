//! Entries of the index's log, and their bytes (docs/formats/checkpoint.md, "Entry").
//!
//! An entry says what is to happen, and everything that its precondition is judged by; [`crate::Index`]
//! judges. Bytes that can't be read are an error that halts the replica: skipping an entry that another
//! replica applies would part the two for ever.

use model::{DecodeError, Incarnation, Lease, NodeId, Reader, SegmentNumber, TimeRange, WriterId, put_varint};

use crate::block::{BlockId, BlockMeta};
use crate::delete::Delete;
use crate::encoding::*;
use crate::node::{NodeInfo, put_info, read_info};

/// The version that entries are written with.
pub const ENTRY_VERSION: u8 = 1;

/// What the index says of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentMeta {
    /// Which PUT is known to be stored, so the one that a reader tries first.
    pub attempt: u32,
    /// Length of the object.
    pub bytes: u64,
    /// From its first to its last sample; `None` if it holds none.
    pub range: Option<TimeRange>,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The incarnation that it was proposed in; another one's is refused.
    pub incarnation: Incarnation,
    /// What is to happen.
    pub command: Command,
}

/// What is to happen. PROTOCOL.md's table of entries; preconditions are at the arms of [`crate::Index::apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A process starts to ingest. Its writer id is the revision of this entry.
    Register {
        /// Where it runs.
        node: NodeId,
        /// Drawn by the process, so that a retry after a lost answer makes no second writer.
        nonce: u64,
    },
    /// A segment is stored: from now on it is data.
    AddSegment {
        /// Whose.
        writer: WriterId,
        /// Its number, the one after the last added.
        n: SegmentNumber,
        /// What to know of it.
        segment: SegmentMeta,
    },
    /// A writer is taken for dead: nothing more of it is accepted.
    Fence {
        /// Which.
        writer: WriterId,
    },
    /// A node gets the right to adopt a fenced writer.
    GrantAdopt {
        /// Which writer.
        writer: WriterId,
        /// Who gets it.
        node: NodeId,
        /// The number that this grant makes: one more than the last.
        number: u64,
    },
    /// A block takes the place of segments.
    Cut {
        /// Whose segments.
        writer: WriterId,
        /// The last number that had been cut before.
        from: SegmentNumber,
        /// The last number that the block holds.
        upto: SegmentNumber,
        /// The block.
        block: BlockMeta,
        /// `None`: the writer cuts its own head. Else the adopter's number; the writer is closed with it.
        lease: Option<Lease>,
    },
    /// A fenced writer has nothing left.
    Close {
        /// Which.
        writer: WriterId,
        /// The adopter's number.
        lease: Lease,
    },
    /// A node gets the right to one compaction.
    GrantCompact {
        /// Who gets it.
        node: NodeId,
        /// The number that this grant makes: one more than the last.
        number: u64,
    },
    /// A merged block takes the place of others.
    Replace {
        /// The compactor's number; this entry spends it.
        lease: Lease,
        /// What it was merged from.
        old: Vec<BlockId>,
        /// The merged block.
        block: BlockMeta,
    },
    /// Samples are to be left out of every answer from here on.
    Delete(Delete),
    /// Segments of a fenced writer can't be decoded. They stay stored, out of the adopter's block.
    Quarantine {
        /// Whose.
        writer: WriterId,
        /// The first number.
        from: SegmentNumber,
        /// The last number.
        upto: SegmentNumber,
        /// The adopter's number.
        lease: Lease,
    },
    /// A node is part of the cluster, or can be reached elsewhere than before.
    SetNode {
        /// Which.
        node: NodeId,
        /// How to reach it.
        info: NodeInfo,
    },
    /// A node is not part of the cluster any more.
    ForgetNode {
        /// Which.
        node: NodeId,
    },
}

/// Bytes that are no entry of this version. Whoever applies the log must stop at it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Written by a newer version.
    #[error("index entry of version {0}, this program knows version {ENTRY_VERSION}: start the newer version again")]
    UnknownVersion(u8),
    /// Written by a newer version.
    #[error("index entry of unknown kind {0}: start the newer version again")]
    UnknownKind(u8),
    /// Not what was written.
    #[error("index entry is damaged: {0}")]
    Damaged(#[from] DecodeError),
}

impl Entry {
    /// The entry's bytes; at most 100 for an `AddSegment`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(ENTRY_VERSION);
        out.push(self.command.kind());
        put_varint(&mut out, self.incarnation);
        self.command.put(&mut out);
        out
    }

    /// Reads what [`Entry::encode`] wrote, all of it.
    pub fn decode(bytes: &[u8]) -> Result<Entry, EntryError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != ENTRY_VERSION {
            return Err(EntryError::UnknownVersion(version));
        }
        let kind = reader.u8()?;
        let incarnation = reader.varint()?;
        let Some(command) = Command::read(kind, &mut reader)? else {
            return Err(EntryError::UnknownKind(kind));
        };
        if !reader.is_empty() {
            return Err(reader.error("bytes after the end of an entry").into());
        }
        Ok(Entry { incarnation, command })
    }
}

impl Command {
    /// A name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Register { .. } => "register",
            Command::AddSegment { .. } => "add_segment",
            Command::Fence { .. } => "fence",
            Command::GrantAdopt { .. } => "grant_adopt",
            Command::Cut { .. } => "cut",
            Command::Close { .. } => "close",
            Command::GrantCompact { .. } => "grant_compact",
            Command::Replace { .. } => "replace",
            Command::Delete(_) => "delete",
            Command::Quarantine { .. } => "quarantine",
            Command::SetNode { .. } => "set_node",
            Command::ForgetNode { .. } => "forget_node",
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Command::Register { .. } => 1,
            Command::AddSegment { .. } => 2,
            Command::Fence { .. } => 3,
            Command::GrantAdopt { .. } => 4,
            Command::Cut { .. } => 5,
            Command::Close { .. } => 6,
            Command::GrantCompact { .. } => 7,
            Command::Replace { .. } => 8,
            Command::Delete(_) => 9,
            Command::Quarantine { .. } => 10,
            Command::SetNode { .. } => 11,
            Command::ForgetNode { .. } => 12,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Command::Register { node, nonce } => {
                put_node(out, *node);
                out.extend_from_slice(&nonce.to_le_bytes());
            }
            Command::AddSegment { writer, n, segment } => {
                put_writer(out, *writer);
                put_varint(out, *n);
                put_segment(out, segment);
            }
            Command::Fence { writer } => put_writer(out, *writer),
            Command::GrantAdopt { writer, node, number } => {
                put_writer(out, *writer);
                put_node(out, *node);
                put_varint(out, *number);
            }
            Command::Cut { writer, from, upto, block, lease } => {
                put_writer(out, *writer);
                put_varint(out, *from);
                put_varint(out, *upto);
                put_option(out, *lease, put_lease);
                put_block(out, block);
            }
            Command::Close { writer, lease } => {
                put_writer(out, *writer);
                put_lease(out, *lease);
            }
            Command::GrantCompact { node, number } => {
                put_node(out, *node);
                put_varint(out, *number);
            }
            Command::Replace { lease, old, block } => {
                put_lease(out, *lease);
                put_varint(out, old.len() as u64);
                for id in old {
                    put_block_id(out, id);
                }
                put_block(out, block);
            }
            Command::Delete(delete) => put_delete(out, delete),
            Command::Quarantine { writer, from, upto, lease } => {
                put_writer(out, *writer);
                put_varint(out, *from);
                put_varint(out, *upto);
                put_lease(out, *lease);
            }
            Command::SetNode { node, info } => {
                put_node(out, *node);
                put_info(out, info);
            }
            Command::ForgetNode { node } => put_node(out, *node),
        }
    }

    /// `None`: no command has this kind.
    fn read(kind: u8, reader: &mut Reader<'_>) -> Result<Option<Command>, DecodeError> {
        Ok(Some(match kind {
            1 => Command::Register { node: read_node(reader)?, nonce: reader.u64()? },
            2 => Command::AddSegment {
                writer: read_writer(reader)?,
                n: reader.varint()?,
                segment: read_segment(reader)?,
            },
            3 => Command::Fence { writer: read_writer(reader)? },
            4 => {
                Command::GrantAdopt { writer: read_writer(reader)?, node: read_node(reader)?, number: reader.varint()? }
            }
            5 => Command::Cut {
                writer: read_writer(reader)?,
                from: reader.varint()?,
                upto: reader.varint()?,
                lease: read_option(reader, read_lease)?,
                block: read_block(reader)?,
            },
            6 => Command::Close { writer: read_writer(reader)?, lease: read_lease(reader)? },
            7 => Command::GrantCompact { node: read_node(reader)?, number: reader.varint()? },
            8 => {
                let lease = read_lease(reader)?;
                let mut old = Vec::new();
                for _ in 0..reader.count(4)? {
                    old.push(read_block_id(reader)?);
                }
                Command::Replace { lease, old, block: read_block(reader)? }
            }
            9 => Command::Delete(read_delete(reader)?),
            10 => Command::Quarantine {
                writer: read_writer(reader)?,
                from: reader.varint()?,
                upto: reader.varint()?,
                lease: read_lease(reader)?,
            },
            11 => Command::SetNode { node: read_node(reader)?, info: read_info(reader)? },
            12 => Command::ForgetNode { node: read_node(reader)? },
            _ => return Ok(None),
        }))
    }
}
