//! What can go wrong with an object, and who has to act.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

/// What was asked of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Open the bucket.
    Open,
    /// Store an object.
    Put,
    /// Fetch an object, or ranges of it.
    Get,
    /// Delete an object.
    Delete,
    /// List a folder.
    List,
}

impl Operation {
    /// Every operation on objects, for metrics.
    pub(crate) const ALL: [Operation; 4] = [Operation::Put, Operation::Get, Operation::Delete, Operation::List];

    /// A name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Open => "open",
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::Delete => "delete",
            Operation::List => "list",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who has to act, or what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such object. Plan again; never take it for empty.
    NotFound,
    /// The disk is full, or a quota is: an operator makes room; 503 until then.
    NoSpace,
    /// The disk is read-only, or permissions forbid it: an operator; 503 until then.
    ReadOnly,
    /// Time, or an operator: try again.
    Unavailable,
    /// An operator: the bucket is not what it should be.
    Corrupt,
    /// An operator: this bucket is another cluster's, or this process is of an older incarnation. Stop.
    OtherCluster,
}

/// Why an operation failed.
///
/// After a failed or unanswered PUT the object may be stored or not, and may yet appear; after a failed fsync
/// it may be readable and not durable. So never PUT under that attempt's key again: take the next one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BucketError {
    /// There is no such object.
    #[error("{operation} {path}: no such object")]
    NotFound {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: String,
    },
    /// The disk is full.
    #[error("{operation} {path}: no space left in the bucket; free some, it goes on by itself (bucket-no-space)")]
    NoSpace {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: String,
    },
    /// The disk can't be written to.
    #[error("{operation} {path}: {reason}; make the bucket writable for this process (bucket-read-only)")]
    ReadOnly {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// Anything else that may pass.
    #[error("{operation} {path}: {source}")]
    Unavailable {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: String,
        /// What the store said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A range lies outside the object: it is shorter than what named it says.
    #[error("get {path}: it has {bytes} bytes, {end} are needed (object-too-short)")]
    TooShort {
        /// Of what.
        path: String,
        /// Its length.
        bytes: u64,
        /// Where the range ends.
        end: u64,
    },
    /// The bucket already holds something.
    #[error(
        "the bucket holds {found} and no cluster.json: give an empty one, or recover the cluster that this was (bucket-not-empty)"
    )]
    NotEmpty {
        /// For example.
        found: String,
    },
    /// The bucket's `cluster.json` is not what was written.
    #[error("cluster.json can't be read: {reason} (cluster-file-corrupt)")]
    ClusterFile {
        /// What is wrong with it.
        reason: String,
    },
    /// The bucket belongs to another cluster, or to a later life of this one.
    #[error("the bucket is of cluster {found}, this process is of {expected}: it must not write here (other-cluster)")]
    OtherCluster {
        /// What the bucket says; "none" if its `cluster.json` is gone.
        found: String,
        /// What this process is of.
        expected: String,
    },
}

impl BucketError {
    /// Who has to act, or what to do next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            BucketError::NotFound { .. } => ErrorKind::NotFound,
            BucketError::NoSpace { .. } => ErrorKind::NoSpace,
            BucketError::ReadOnly { .. } => ErrorKind::ReadOnly,
            BucketError::Unavailable { .. } => ErrorKind::Unavailable,
            BucketError::TooShort { .. } | BucketError::NotEmpty { .. } | BucketError::ClusterFile { .. } => {
                ErrorKind::Corrupt
            }
            BucketError::OtherCluster { .. } => ErrorKind::OtherCluster,
        }
    }

    /// Sorts an error of the store or the system by what to do about it.
    pub(crate) fn sort(
        operation: Operation,
        path: &str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> BucketError {
        let source: Box<dyn Error + Send + Sync> = source.into();
        let path = path.to_owned();
        if let Some(object_store::Error::NotFound { .. }) = source.downcast_ref() {
            return BucketError::NotFound { operation, path };
        }
        match io_error_below(&*source).map(|error| (error.kind(), error.to_string())) {
            Some((io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _)) => {
                BucketError::NoSpace { operation, path }
            }
            Some((io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied, reason)) => {
                BucketError::ReadOnly { operation, path, reason }
            }
            _ => BucketError::Unavailable { operation, path, source: source.into() },
        }
    }
}

/// The system's error that an error stems from.
fn io_error_below<'a>(error: &'a (dyn Error + Send + Sync + 'static)) -> Option<&'a io::Error> {
    let mut error: Option<&'a (dyn Error + 'static)> = Some(error);
    while let Some(this) = error {
        if let Some(io) = this.downcast_ref::<io::Error>() {
            return Some(io);
        }
        error = this.source();
    }
    None
}
