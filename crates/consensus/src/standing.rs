//! What a replica says of itself when it meets another: an old copy of a disk shows by having less than was seen.

/// How far a replica is, all of it durable. Said in every hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub id: u64,
    /// The last position in its log.
    pub last_index: u64,
    /// Its term.
    pub term: u64,
    /// Starts of a process on its folder.
    pub boots: u64,
}

/// A replica has less than it had: its disk was set back, or copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "replica {id:016x} comes with {what} {told}, and was at {seen} before: its index/ is an old copy, or a second \
     process runs on one. Empty its index/, so that it joins under a new id (replica-went-back)"
)]
pub struct StandingRefused {
    /// Whose.
    pub id: u64,
    /// What went back: "term", "boot", "last position".
    pub what: &'static str,
    /// What it says now.
    pub told: u64,
    /// What was seen of it.
    pub seen: u64,
}
