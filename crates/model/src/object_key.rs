//! Where objects lie in the bucket. Every key is made here, from typed parts, and nowhere else.
//!
//! A key begins with its right (PROTOCOL.md, "Who may delete"): the writer or the lease number that it was
//! PUT under. Keys are write-once: another try of other bytes takes another attempt number. The two files that are not
//! (`cluster.json`, `replicas/`) are nobody's data.
//!
//! ```text
//! cluster.json
//! replicas/<node>.json                                   what a replica of the index had; written again and again
//! segments/<incarnation>.<revision>/<n>.<attempt>
//! blocks/w-<incarnation>.<revision>/<attempt>            the writer's own cut
//! blocks/a-<incarnation>.<revision>-<lease>/<attempt>    the cut of the writer's adopter
//! blocks/c-<lease>/<attempt>                             a compaction
//! checkpoints/<incarnation>.<position>                   the whole index at a revision
//! changes/<incarnation>.<first>-<last>                   the entries of these revisions
//! ```
//! Numbers are zero-padded to 20 digits, so that names sort as numbers.

use std::fmt;

use crate::revision::{Lease, NodeId, Revision, SegmentNumber, WriterId};

/// What a block is PUT under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Right {
    /// A writer cuts its own head.
    Writer(WriterId),
    /// An adopter cuts a fenced writer's head.
    Adopter(WriterId, Lease),
    /// A compactor merges blocks.
    Compactor(Lease),
}

/// The key of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKey {
    /// The cluster's id and incarnation.
    Cluster,
    /// What a node's replica of the index had: with [`ObjectKey::Cluster`] all that is not write-once.
    Replica(NodeId),
    /// A segment.
    Segment {
        /// Whose.
        writer: WriterId,
        /// Its number.
        n: SegmentNumber,
        /// 0 for the first PUT, one more with each further one.
        attempt: u32,
    },
    /// A block.
    Block {
        /// What it was PUT under.
        right: Right,
        /// Distinguishes PUTs under one right: for a writer's cut, the segment it reaches and the try
        /// ([`ObjectKey::cut_attempt`]).
        attempt: u64,
    },
    /// A checkpoint of the index.
    Checkpoint(Revision),
    /// Index entries after a checkpoint, both ends included.
    Changes {
        /// The first revision.
        first: Revision,
        /// The position of the last.
        last: u64,
    },
}

/// A name in the bucket that no key has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the key of a Bellrock object")]
pub struct ObjectKeyError(String);

impl ObjectKey {
    /// The folder of what replicas had.
    pub const REPLICAS: &'static str = "replicas";
    /// The folder of all segments.
    pub const SEGMENTS: &'static str = "segments";
    /// The folder of all blocks.
    pub const BLOCKS: &'static str = "blocks";
    /// The folder of all checkpoints.
    pub const CHECKPOINTS: &'static str = "checkpoints";
    /// The folder of all changes.
    pub const CHANGES: &'static str = "changes";

    /// The attempt number of a writer's own cut: which segment the block reaches, and which try it is.
    ///
    /// A writer keeps its right from cut to cut, so whoever collects must see in the key which cut a
    /// block was made for: it is dead once the writer has cut that far (index, "dead").
    ///
    /// Panics if `upto` does not fit 48 bits: at a thousand segments a second that takes 8,900 years.
    pub fn cut_attempt(upto: SegmentNumber, attempt: u16) -> u64 {
        assert!(upto < 1 << 48, "a writer has fewer than 2^48 segments");
        upto << 16 | u64::from(attempt)
    }

    /// The segment that a writer's own cut with this attempt number reaches.
    pub fn cut_reaches(attempt: u64) -> SegmentNumber {
        attempt >> 16
    }

    /// Reads what [`ObjectKey`]'s `Display` wrote; anything else is an error.
    pub fn parse(path: &str) -> Result<ObjectKey, ObjectKeyError> {
        let key = parse(path).ok_or_else(|| ObjectKeyError(path.to_owned()))?;
        // Writing it again refuses every other spelling ("1" for "0…01").
        if key.to_string() == path { Ok(key) } else { Err(ObjectKeyError(path.to_owned())) }
    }
}

fn parse(path: &str) -> Option<ObjectKey> {
    let mut parts = path.split('/');
    let key = match (parts.next()?, parts.next(), parts.next()) {
        ("cluster.json", None, None) => ObjectKey::Cluster,
        (ObjectKey::REPLICAS, Some(name), None) => {
            ObjectKey::Replica(NodeId(u64::from_str_radix(name.strip_suffix(".json")?, 16).ok()?))
        }
        (ObjectKey::SEGMENTS, Some(writer), Some(name)) => {
            let (n, attempt) = name.split_once('.')?;
            ObjectKey::Segment {
                writer: WriterId(revision(writer)?),
                n: n.parse().ok()?,
                attempt: attempt.parse().ok()?,
            }
        }
        (ObjectKey::BLOCKS, Some(right), Some(attempt)) => {
            ObjectKey::Block { right: parse_right(right)?, attempt: attempt.parse().ok()? }
        }
        (ObjectKey::CHECKPOINTS, Some(name), None) => ObjectKey::Checkpoint(revision(name)?),
        (ObjectKey::CHANGES, Some(name), None) => {
            let (first, last) = name.split_once('-')?;
            ObjectKey::Changes { first: revision(first)?, last: last.parse().ok()? }
        }
        _ => return None,
    };
    if parts.next().is_some() { None } else { Some(key) }
}

fn parse_right(text: &str) -> Option<Right> {
    match text.split_once('-')? {
        ("w", writer) => Some(Right::Writer(WriterId(revision(writer)?))),
        ("a", rest) => {
            let (writer, lease) = rest.split_once('-')?;
            Some(Right::Adopter(WriterId(revision(writer)?), parse_lease(lease)?))
        }
        ("c", lease) => Some(Right::Compactor(parse_lease(lease)?)),
        _ => None,
    }
}

fn revision(text: &str) -> Option<Revision> {
    let (incarnation, position) = text.split_once('.')?;
    Some(Revision { incarnation: incarnation.parse().ok()?, position: position.parse().ok()? })
}

fn parse_lease(text: &str) -> Option<Lease> {
    let (incarnation, number) = text.split_once('.')?;
    Some(Lease { incarnation: incarnation.parse().ok()?, number: number.parse().ok()? })
}

/// A revision, zero-padded.
struct Padded(Revision);

impl fmt::Display for Padded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:020}", self.0.incarnation, self.0.position)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ObjectKey::Cluster => write!(f, "cluster.json"),
            ObjectKey::Replica(node) => write!(f, "{}/{:016x}.json", Self::REPLICAS, node.0),
            ObjectKey::Segment { writer, n, attempt } => {
                write!(f, "{}/{}/{n:020}.{attempt}", Self::SEGMENTS, Padded(writer.0))
            }
            ObjectKey::Block { right, attempt } => {
                write!(f, "{}/", Self::BLOCKS)?;
                match right {
                    Right::Writer(writer) => write!(f, "w-{}", Padded(writer.0))?,
                    Right::Adopter(writer, lease) => write!(f, "a-{}-{lease}", Padded(writer.0))?,
                    Right::Compactor(lease) => write!(f, "c-{lease}")?,
                }
                write!(f, "/{attempt:020}")
            }
            ObjectKey::Checkpoint(at) => write!(f, "{}/{}", Self::CHECKPOINTS, Padded(at)),
            ObjectKey::Changes { first, last } => write!(f, "{}/{}-{last:020}", Self::CHANGES, Padded(first)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        let at = Revision { incarnation: 2, position: 17 };
        let lease = Lease { incarnation: 2, number: 3 };
        for key in [
            ObjectKey::Cluster,
            ObjectKey::Replica(NodeId(0xab)),
            ObjectKey::Segment { writer: WriterId(at), n: 9, attempt: 1 },
            ObjectKey::Block { right: Right::Writer(WriterId(at)), attempt: 4 },
            ObjectKey::Block { right: Right::Adopter(WriterId(at), lease), attempt: 0 },
            ObjectKey::Block { right: Right::Compactor(lease), attempt: 0 },
            ObjectKey::Checkpoint(at),
            ObjectKey::Changes { first: at, last: 30 },
        ] {
            assert_eq!(ObjectKey::parse(&key.to_string()), Ok(key));
        }
    }

    #[test]
    fn other_names_are_not_keys() {
        for path in [
            "",
            "x",
            "replicas/ab.json",
            "replicas/00000000000000ab",
            "segments/1.2/3.0",
            "segments/../x",
            "blocks/w-1.00000000000000000002/x",
            "cluster.json/x",
        ] {
            assert!(ObjectKey::parse(path).is_err(), "{path}");
        }
    }
}
