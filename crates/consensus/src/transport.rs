//! How messages leave: consensus opens no sockets, whoever owns them carries its bytes.

/// Carries messages to other replicas. What the bytes mean is consensus's own affair (docs/formats/log.md).
///
/// Raft asks little of it: a message may be lost, doubled, late, or overtake another. It must reach no other
/// replica than `to`, and whoever hands it to [`crate::Group::receive`] must know who really sent it.
pub trait Transport: Send + Sync + 'static {
    /// Sends to a replica by its id. Called from the group's thread: never blocks, may drop.
    fn send(&self, to: u64, message: Vec<u8>);
}

/// Carries nothing: for a group that stays one replica.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTransport;

impl Transport for NoTransport {
    fn send(&self, _: u64, _: Vec<u8>) {}
}
