//! Puts, fetches and deletes objects: in a directory, or in an object store (S3, GCS, Azure), behind one face.
//!
//! What [`Bucket::put`] has answered survives a power loss, with every folder on the way to it. Keys are
//! [`model::ObjectKey`]s and nothing else. A remote store is asked again while it fails for a reason that may pass
//! (`patience`); a directory is not. When a segment's PUT goes under another attempt's key is the ingester's policy.
//!
//! A bucket lies in one place (`place`), or in two while it moves from a directory to an object store (`places`, `moving`).
//!
//! It knows objects and ranges, but no format: checksums of sections are `block`'s and `segment`'s.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests look at and damage files behind the bucket"))]

mod cache;
mod check;
mod cluster;
#[cfg(test)]
mod conformance;
mod error;
mod faults;
mod folders;
mod local;
mod location;
mod metrics;
mod moved;
mod moving;
mod patience;
mod place;
mod places;
mod remote;
mod replica;
#[cfg(test)]
#[allow(dead_code, reason = "the harness of the end-to-end tests, which use more of it")]
#[path = "../../../tests/src/s3.rs"]
mod s3_server;
mod store;

pub use cache::{CacheLimits, RangeCache};
pub use check::{Finding, Findings, Verdict};
pub use cluster::Cluster;
pub use error::{BucketError, ErrorKind, Operation};
pub use faults::{Effect, Fault, Faults};
pub use folders::Folder;
pub use location::{Location, Protocol, Remote};
pub use moving::{Move, MoveError, MoveProgress, Step};
pub use place::Listed;
pub use replica::ReplicaNote;
pub use store::Bucket;
