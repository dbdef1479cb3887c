//! Wire messages and their bounded decoding into [`model`].
//!
//! So far: Prometheus remote-write 1.0, in both directions, and the three encodings of its bodies.
//! Everything here is a function of bytes: no I/O, no clock. Whatever the bytes are, decoding ends in a
//! value or an error, never in a panic or in memory beyond the limits given.

mod compression;
mod encode;
mod error;
mod histogram;
mod remote_write;
mod wire;

pub use compression::{ContentEncoding, compress_snappy, decoded_bytes, decompress};
pub use encode::{FIELD_BYTES_MAX, WriteRequestBuilder, put_metadata, put_series, put_wire_labels};
pub use error::ProtoError;
pub use remote_write::{
    DecodeLimits, MetadataRef, TimeSeries, WireLabels, WireLabelsIter, WriteRequest, decode_write_request,
};
