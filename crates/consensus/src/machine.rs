//! The state machine that a group replicates, as the functions that the group needs of it.

/// Whatever a state machine says is wrong with bytes.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A deterministic state machine over a state `S` with entries `E`, each answered by an `A`.
///
/// Plain functions: two replicas given the same entries must come to the same state, so there is nothing
/// for them to close over.
#[derive(Debug)]
pub struct Machine<S, E, A> {
    /// Applies the entry at a position. Positions ascend; those between are the group's own, see `advance`.
    pub apply: fn(&mut S, position: u64, entry: &E) -> A,
    /// The log holds nothing for the state at a position: a leader began, or the members changed. With `apply`, every
    /// position comes once, ascending.
    pub advance: fn(&mut S, position: u64),
    /// The entry's bytes.
    pub encode: fn(&E) -> Vec<u8>,
    /// Reads an entry; an error stops the replica, nothing is ever skipped.
    pub decode: fn(&[u8]) -> Result<E, BoxError>,
    /// The state's bytes.
    pub snapshot: fn(&S) -> Vec<u8>,
    /// Reads a state.
    pub restore: fn(&[u8]) -> Result<S, BoxError>,
    /// A hash of the whole state, the same on every replica at the same position. May take as long as a snapshot.
    pub hash: fn(&S) -> u64,
}

impl<S, E, A> Clone for Machine<S, E, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, E, A> Copy for Machine<S, E, A> {}
