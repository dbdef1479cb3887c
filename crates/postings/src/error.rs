//! What can go wrong with terms and postings.

use model::DecodeError;

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostingsError {
    /// Stored terms can't be what was written.
    #[error("terms: {0}")]
    CorruptTerms(&'static str),
    /// A stored posting list can't be what was written. The offset counts from the start of all postings.
    #[error("posting list at {offset}: {what}")]
    CorruptList {
        /// Where the list starts.
        offset: u64,
        /// What is wrong.
        what: DecodeError,
    },
    /// The caller's ordinals or tenants did not ascend.
    #[error("series are not added in order")]
    OutOfOrder,
    /// More postings than a term's value can point at (64 GiB in all, 128 MiB a list).
    #[error("postings are larger than their format allows")]
    TooLarge,
}
