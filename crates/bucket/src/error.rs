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
    /// The disk is read-only, or permissions or credentials forbid it: an operator; 503 until then.
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
    /// The object store knows the request's credentials and refuses, or does not know them.
    #[error(
        "{operation} {path}: the object store refuses: {reason}; mend the credentials or their rights (bucket-access-denied)"
    )]
    AccessDenied {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: String,
        /// What the store said.
        reason: String,
    },
    /// The object store has no bucket of this name. Says nothing of the object.
    #[error(
        "{operation} {path}: the object store has no such bucket: {reason}; make it, or mend --bucket (bucket-missing)"
    )]
    NoSuchBucket {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: String,
        /// What the store said.
        reason: String,
    },
    /// The object store does not understand the request: a setting is wrong. Asking again does not help.
    #[error(
        "{operation} {path}: the object store refuses: {reason}; mend the bucket's settings (bucket-request-refused)"
    )]
    RequestRefused {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: String,
        /// What the store said.
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
    /// What was noted of a replica is not what was written.
    #[error(
        "{path} can't be read: {reason}. Delete it if no disk of that node was set back: it is written again (replica-file-corrupt)"
    )]
    ReplicaFile {
        /// The object.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory's bucket lies elsewhere now.
    #[error("the bucket in {from} has moved to {to}: start with {settings} (bucket-moved)")]
    Moved {
        /// The directory.
        from: String,
        /// The new place.
        to: String,
        /// What to start with.
        settings: String,
    },
    /// The note of a directory's bucket that has moved is not what was written.
    #[error("moved.json in {folder} can't be read: {reason} (bucket-moved)")]
    MovedFile {
        /// The directory.
        folder: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A move to this bucket has begun and not happened.
    #[error("a move to the bucket in {to} has not happened: {from} is in force until it has (bucket-moving)")]
    Moving {
        /// Where the bucket was to move.
        to: String,
        /// Where it is.
        from: String,
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
            BucketError::ReadOnly { .. } | BucketError::AccessDenied { .. } => ErrorKind::ReadOnly,
            // Of the data nothing can be said while the bucket is away: above all not that an object is gone.
            BucketError::Unavailable { .. } | BucketError::NoSuchBucket { .. } | BucketError::RequestRefused { .. } => {
                ErrorKind::Unavailable
            }
            BucketError::TooShort { .. }
            | BucketError::NotEmpty { .. }
            | BucketError::ClusterFile { .. }
            | BucketError::ReplicaFile { .. }
            | BucketError::Moved { .. }
            | BucketError::MovedFile { .. }
            | BucketError::Moving { .. } => ErrorKind::Corrupt,
            BucketError::OtherCluster { .. } => ErrorKind::OtherCluster,
        }
    }

    /// Whether the same request may succeed in a moment, with nobody doing anything.
    pub(crate) fn may_pass_soon(&self) -> bool {
        matches!(self, BucketError::Unavailable { .. })
    }

    /// Sorts an error of the store or the system by what to do about it.
    pub(crate) fn sort(
        operation: Operation,
        path: &str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> BucketError {
        let source: Box<dyn Error + Send + Sync> = source.into();
        let path = path.to_owned();
        match source.downcast_ref() {
            Some(error @ (object_store::Error::NotFound { .. } | object_store::Error::Generic { .. }))
                if error.to_string().contains("NoSuchBucket") =>
            {
                return BucketError::NoSuchBucket { operation, path, reason: in_short(&error.to_string()) };
            }
            Some(object_store::Error::NotFound { .. }) => return BucketError::NotFound { operation, path },
            // A directory's, which comes as an error of the system, is told apart below.
            Some(
                error @ (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }),
            ) if io_error_below(error).is_none() => {
                return BucketError::AccessDenied { operation, path, reason: in_short(&error.to_string()) };
            }
            Some(error @ object_store::Error::Generic { .. }) if is_refused(&error.to_string()) => {
                return BucketError::RequestRefused { operation, path, reason: in_short(&error.to_string()) };
            }
            _ => (),
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

/// An error with what it stems from, each part once: `object_store` repeats some of its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let part = cause.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = cause.source();
    }
    text
}

/// Whether the text is that of a status 4xx that stays: `object_store` shows the status in no other way.
fn is_refused(text: &str) -> bool {
    let Some((_, status)) = text.split_once("non-2xx status code: ") else { return false };
    status.starts_with('4') && !["408", "429"].iter().any(|passing| status.starts_with(passing))
}

/// What a store has said, without its line breaks and in bounds: it ends in messages and logs.
fn in_short(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// Of a store's answer in a message; S3's have the reason in their first words.
const REASON_CHARS_MAX: usize = 600;

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
