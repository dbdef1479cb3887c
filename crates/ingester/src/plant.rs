//! Bugs put in on purpose, so that the crash tests can show that they find them.
//!
//! Only in builds with the feature `plant`, which no default build has, and only with `BELLROCK_PLANT` set.

#![cfg_attr(
    feature = "plant",
    allow(clippy::disallowed_methods, reason = "a test hook, kept out of the settings on purpose")
)]

/// Which bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Requests are answered when their segment is sealed, before it is stored.
    AckBeforeFsync,
    /// A head is let go when its block is stored, without the entry that swaps segments for block.
    CutWithoutRetiring,
}

/// The bug that this process has on purpose.
#[cfg(feature = "plant")]
pub(crate) fn planted() -> Option<Plant> {
    match std::env::var("BELLROCK_PLANT").ok()?.as_str() {
        "ack-before-fsync" => Some(Plant::AckBeforeFsync),
        "cut-without-retiring" => Some(Plant::CutWithoutRetiring),
        _ => None,
    }
}

/// The bug that this process has on purpose: none.
#[cfg(not(feature = "plant"))]
pub(crate) fn planted() -> Option<Plant> {
    None
}

/// Whether this process has this bug.
pub(crate) fn is_planted(plant: Plant) -> bool {
    planted() == Some(plant)
}
