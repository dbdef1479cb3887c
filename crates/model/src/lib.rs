//! The field's words as types, and the one rule for merging two samples.
//!
//! Everything here is plain data: no I/O, no clock, no task. Other crates meet in these types: a label
//! set that was hashed on the wire, spelled in a segment, sorted in a block and printed in a response
//! is the same [`Labels`] everywhere.

mod buckets;
mod encoding;
mod histogram;
mod labels;
mod matcher;
mod merge;
mod metadata;
mod object_key;
mod pattern;
mod revision;
mod sample;
mod samples;
mod shard;
mod tenant;

pub use buckets::Bucket;
pub use encoding::{DecodeError, Reader, put_varint, put_zigzag, unzigzag, zigzag};
pub use histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Counts, Histogram, HistogramError, Span};
pub use labels::{LabelError, Labels, LabelsBuilder, LabelsBytesIter, LabelsIter, METRIC_NAME};
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use merge::greater;
pub use metadata::{Metadata, MetricKind};
pub use object_key::{ObjectKey, ObjectKeyError, Right};
pub use pattern::{Pattern, PatternError};
pub use revision::{Incarnation, Lease, NodeId, Revision, SegmentNumber, WriterId};
pub use sample::{STALE_NAN_BITS, Sample, TimeRange, TimestampMs, Value, is_stale, stale_marker};
pub use samples::Samples;
pub use shard::Shard;
pub use tenant::{TenantError, TenantId};
