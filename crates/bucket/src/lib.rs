//! Puts, fetches and deletes objects: in a local directory, and in S3 behind the same face later.
//!
//! What [`Bucket::put`] has answered survives a power loss, with every folder on the way to it. Keys are
//! [`model::ObjectKey`]s and nothing else. Nothing is retried here: how long to wait and under which attempt's
//! key to try again is the caller's policy (the ingester's differs from the collector's).
//!
//! It knows objects and ranges, but no format: checksums of sections are `block`'s and `segment`'s.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests look at and damage files behind the bucket"))]

mod cluster;
#[cfg(test)]
mod conformance;
mod error;
mod faults;
mod folders;
mod local;
mod metrics;
mod store;

pub use cluster::Cluster;
pub use error::{BucketError, ErrorKind, Operation};
pub use faults::{Effect, Fault, Faults};
pub use folders::Folder;
pub use store::{Bucket, Listed};
