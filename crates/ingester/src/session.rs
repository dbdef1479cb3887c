//! The session, as a second line behind the fence.

use std::time::Duration;

/// Says until when this node's session lasts, as far as it knows itself.
///
/// An ack follows the commit of the writer's own entry, which a fence refuses: that alone keeps every promise. This is
/// defence in depth (RELIABILITY.md, row 3): a process that was paused, and finds its session long over when an entry of its
/// writer is applied, does not answer and begins with a new writer.
pub trait SessionGuard: Send + Sync {
    /// The time by CLOCK_BOOTTIME up to which writes may be answered; `None` if there is no end.
    fn deadline(&self) -> Option<Duration>;
}

/// The session of a node that is alone: nobody else could fence it.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysInSession;

impl SessionGuard for AlwaysInSession {
    fn deadline(&self) -> Option<Duration> {
        None
    }
}
