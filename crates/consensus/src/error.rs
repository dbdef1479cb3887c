//! What can go wrong.

use std::io;
use std::path::PathBuf;

use crate::machine::BoxError;

/// Who has to act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Time, or an operator who makes room: try again.
    Unavailable,
    /// An operator: stored bytes are not what was written.
    Corrupt,
    /// A programmer.
    Bug,
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// The disk of the log is full. The entry is not in the log and never will be.
    #[error("no space left for the index log in {}; free some, it goes on by itself (index-log-no-space)", folder.display())]
    NoSpace {
        /// Where the log lies.
        folder: PathBuf,
    },
    /// The disk refused for another reason before anything was written. The entry is not in the log.
    #[error("the index log in {} can't be written: {reason}", folder.display())]
    Refused {
        /// Where the log lies.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The entry is larger than entries may be.
    #[error("a proposal of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// No leader is known, or none that answered in time ([`crate::Settings::leader_wait`]).
    #[error(
        "the index has no leader: fewer than half of its voters reach one another, or one is being elected (no-leader)"
    )]
    NoLeader {
        /// Whether the entry was never given to a leader, so that it is surely not in the log.
        is_certain: bool,
    },
    /// The group was closed. Whether the entry is in the log is not known.
    #[error("the index is closed")]
    Closed,
}

impl ProposeError {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ProposeError::TooLarge { .. } => ErrorKind::Bug,
            _ => ErrorKind::Unavailable,
        }
    }

    /// Whether the entry is surely not in the log. `false`: propose it again to find out.
    pub fn is_certain(&self) -> bool {
        !matches!(self, ProposeError::Closed | ProposeError::NoLeader { is_certain: false })
    }
}

/// Why a group can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder is not what [`crate::Start`] says.
    #[error("index log: {} can't be opened so: {what}", folder.display())]
    Start {
        /// Which.
        folder: PathBuf,
        /// How it is.
        what: &'static str,
    },
    /// The system refused.
    #[error("index log: {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Stored bytes are damaged where a crash can't have damaged them.
    #[error(
        "index log: {} is damaged at byte {offset}: {what}. Nothing was changed. Restore index/ from a copy of this disk, \
         or move it away and rebuild it from the bucket (index-log-corrupt)", path.display()
    )]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// Whole, but not of this program: usually written by a newer version.
    #[error("index log: {} holds what this program can't read: {source} (index-log-unreadable)", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The state machine's word.
        source: BoxError,
    },
}

impl OpenError {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OpenError::Io { .. } => ErrorKind::Unavailable,
            OpenError::Start { .. } => ErrorKind::Bug,
            OpenError::Corrupt { .. } | OpenError::Unreadable { .. } => ErrorKind::Corrupt,
        }
    }
}
