//! Names in time: incarnations, revisions, writers, segment numbers, lease numbers.

use std::fmt;

/// Which life of the index: 1 at bootstrap, one more with each recovery from the bucket.
pub type Incarnation = u64;

/// A writer's segments are numbered 1, 2, 3 … as it seals them; 0 is "none yet".
pub type SegmentNumber = u64;

/// The index's applied position. Ordered by incarnation first; ids made from it are ordered too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision {
    /// Which life of the index.
    pub incarnation: Incarnation,
    /// Entries applied in it.
    pub position: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.position)
    }
}

/// One lifetime of an ingesting process: the revision of its Register entry, so never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriterId(pub Revision);

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease's fencing number: (incarnation, count of grants), never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease {
    /// The incarnation that granted it.
    pub incarnation: Incarnation,
    /// 1 for the first grant of this right.
    pub number: u64,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.number)
    }
}

/// Which node: a random number drawn once per life of its data, never used twice. Its name is only a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
