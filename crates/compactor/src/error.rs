//! What can go wrong.

use bucket::BucketError;
use index::{ChangesError, CheckpointError};
use model::{ObjectKey, Revision};

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Time, or an operator: it is tried again.
    Unavailable,
    /// An operator: stored bytes are not what was written.
    Corrupt,
    /// An operator: this process must not go on with this bucket.
    OtherCluster,
}

/// Why the index is not in the bucket as it should be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CompactorError {
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The bucket did not answer.
    #[error("the bucket did not answer in {seconds} s")]
    TimedOut {
        /// How long it was given.
        seconds: u64,
    },
    /// What was written comes back as something else.
    #[error("{key} was stored and comes back different (checkpoint-differs)")]
    Differs {
        /// Which object.
        key: ObjectKey,
    },
    /// A checkpoint that can't be read.
    #[error("{key}: {source} (checkpoint-corrupt)")]
    Checkpoint {
        /// Which object.
        key: ObjectKey,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// Changes that can't be read.
    #[error("{key}: {source} (changes-corrupt)")]
    Changes {
        /// Which object.
        key: ObjectKey,
        /// What is wrong with them.
        source: ChangesError,
    },
    /// The bucket holds a newer index than this process.
    #[error(
        "the bucket holds {found}, but the index here is at {here}: index/ is an old copy, or another process \
         writes to this bucket. Rebuild the index from the bucket (index-behind)"
    )]
    IndexBehind {
        /// What the bucket holds.
        found: ObjectKey,
        /// Where the index is.
        here: Revision,
    },
}

impl CompactorError {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CompactorError::Bucket(error) => match error.kind() {
                bucket::ErrorKind::OtherCluster => ErrorKind::OtherCluster,
                bucket::ErrorKind::Corrupt => ErrorKind::Corrupt,
                _ => ErrorKind::Unavailable,
            },
            CompactorError::TimedOut { .. } => ErrorKind::Unavailable,
            CompactorError::Differs { .. } | CompactorError::Checkpoint { .. } | CompactorError::Changes { .. } => {
                ErrorKind::Corrupt
            }
            CompactorError::IndexBehind { .. } => ErrorKind::OtherCluster,
        }
    }
}
