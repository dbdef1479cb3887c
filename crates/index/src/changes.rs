//! Entries between two checkpoints as bytes: docs/formats/checkpoint.md, "Changes".
//!
//! A checkpoint every few minutes and the entries since it every few seconds are what a recovery reads.
//! Refused entries are written too: they are refused again when they are replayed, at the same position.

use model::{DecodeError, Incarnation, Reader, put_varint};

use crate::apply::Applied;
use crate::checkpoint::{checked, read_cluster};
use crate::entry::{Entry, EntryError};
use crate::refused::Refused;
use crate::state::Index;

/// The version that changes are written with.
pub const CHANGES_VERSION: u8 = 1;

const MAGIC: &[u8; 4] = b"BRCH";

/// The entries of the positions `first..=last`; a position without one was not the index's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Which cluster's.
    pub cluster: u128,
    /// In which life of its index.
    pub incarnation: Incarnation,
    /// The first position covered.
    pub first: u64,
    /// The last position covered.
    pub last: u64,
    /// Ascending.
    pub entries: Vec<(u64, Entry)>,
}

/// Bytes that are no changes, or changes that do not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangesError {
    /// Something else.
    #[error("not an object of index changes")]
    NotChanges,
    /// Written by a newer version.
    #[error("index changes of version {0}, this program knows version {CHANGES_VERSION}: start the newer one")]
    UnknownVersion(u8),
    /// Not what was written.
    #[error("index changes' checksum is wrong")]
    Checksum,
    /// Not what was written, though the checksum is right.
    #[error("index changes are damaged: {0}")]
    Damaged(#[from] DecodeError),
    /// An entry in them.
    #[error("at position {position}: {source}")]
    Entry {
        /// Its position.
        position: u64,
        /// What is wrong with it.
        source: EntryError,
    },
    /// They don't begin where the state ends, or are another cluster's.
    #[error("index changes {incarnation}.{first}-{last} do not follow revision {at}")]
    DoNotFollow {
        /// Theirs.
        incarnation: Incarnation,
        /// Theirs.
        first: u64,
        /// Theirs.
        last: u64,
        /// The state's.
        at: model::Revision,
    },
}

impl Changes {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.entries.len() * 64);
        out.extend_from_slice(MAGIC);
        out.push(CHANGES_VERSION);
        out.extend_from_slice(&self.cluster.to_le_bytes());
        put_varint(&mut out, self.incarnation);
        put_varint(&mut out, self.first);
        put_varint(&mut out, self.last);
        put_varint(&mut out, self.entries.len() as u64);
        let mut next = self.first;
        for (position, entry) in &self.entries {
            assert!((next..=self.last).contains(position), "changes are ascending and within their bounds");
            put_varint(&mut out, position - next);
            next = position + 1;
            let bytes = entry.encode();
            put_varint(&mut out, bytes.len() as u64);
            out.extend_from_slice(&bytes);
        }
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads what [`Changes::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Changes, ChangesError> {
        let body = checked(bytes, MAGIC).ok_or(ChangesError::NotChanges)?;
        if body.version != CHANGES_VERSION {
            return Err(ChangesError::UnknownVersion(body.version));
        }
        if !body.checksum_is_right {
            return Err(ChangesError::Checksum);
        }
        let mut reader = Reader::new(body.fields);
        let mut changes = Changes {
            cluster: read_cluster(&mut reader)?,
            incarnation: reader.varint()?,
            first: reader.varint()?,
            last: reader.varint()?,
            entries: Vec::new(),
        };
        let mut next = Some(changes.first);
        for _ in 0..reader.count(5)? {
            let gap = reader.varint()?;
            let position = next.and_then(|next| next.checked_add(gap)).filter(|position| *position <= changes.last);
            let position = position.ok_or_else(|| reader.error("a position out of bounds"))?;
            next = position.checked_add(1);
            let entry = Entry::decode(reader.bytes()?).map_err(|source| ChangesError::Entry { position, source })?;
            changes.entries.push((position, entry));
        }
        if !reader.is_empty() {
            return Err(reader.error("bytes after the end of changes").into());
        }
        Ok(changes)
    }
}

impl Index {
    /// Applies what of these changes is after this state, and says what each such entry did.
    ///
    /// They may begin before this state's end: a checkpoint whose PUT was answered by an error may be stored
    /// all the same, and the changes written then begin at the checkpoint before it. Only a gap is an error.
    /// `Err`: they don't follow, or hold nothing new, and nothing was applied.
    pub fn replay(&mut self, changes: &Changes) -> Result<Vec<Result<Applied, Refused>>, ChangesError> {
        let at = self.revision.position;
        let follow = changes.cluster == self.cluster
            && changes.incarnation == self.revision.incarnation
            && changes.first <= at.saturating_add(1)
            && at < changes.last;
        if !follow {
            let Changes { incarnation, first, last, .. } = *changes;
            return Err(ChangesError::DoNotFollow { incarnation, first, last, at: self.revision });
        }
        let new = changes.entries.iter().filter(|(position, _)| *position > at);
        let outcomes = new.map(|(position, entry)| self.apply(*position, entry)).collect();
        self.advance(changes.last);
        Ok(outcomes)
    }
}
