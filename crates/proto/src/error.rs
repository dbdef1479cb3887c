//! What can be wrong with a body. All of it is for the sender to change: 400, never 5xx.

/// Why a body is refused as a whole; none of it was handed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtoError {
    /// The compressed bytes are not what the encoding demands.
    #[error("body is not valid {encoding}: {what}")]
    Compression {
        /// `snappy` (block format), `zstd` or `gzip`.
        encoding: &'static str,
        /// What was found.
        what: String,
    },
    /// The body is, or says that it is, too large when decompressed.
    #[error("decompressed body has {}{bytes} bytes, over the limit of {limit}; send smaller requests", if *exact { "" } else { "at least " })]
    DecodedTooLarge {
        /// Bytes declared, or reached before giving up.
        bytes: u64,
        /// Whether `bytes` is all of them.
        exact: bool,
        /// The limit.
        limit: usize,
    },
    /// The decoded request would take more memory than any honest request of its size.
    #[error("decoded request takes more than {limit} bytes of memory, the limit; send smaller requests")]
    ResultTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The bytes are not a protobuf message of this schema.
    #[error("body is not a valid remote-write 1.0 message: {what} at byte {offset}")]
    Malformed {
        /// Offset in the decompressed body.
        offset: usize,
        /// What was found there.
        what: &'static str,
    },
}
