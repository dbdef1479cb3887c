//! How large things may grow, and how long they may take. Nobody could say when to change these, so they are no flags.

use std::time::Duration;

/// Bounds of a group.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Proposals that wait for the log; more wait outside, in [`crate::Group::propose`].
    pub queue_entries_max: usize,
    /// How much goes into one write and fsync; a batch ends with the entry that reaches it.
    pub batch_bytes_max: usize,
    /// One entry's bytes; a larger proposal is refused.
    pub entry_bytes_max: usize,
    /// A snapshot is taken, and the log truncated, when the log has grown by this much. It is what a start
    /// has to read: 8 MiB are about 150,000 entries, a second.
    pub snapshot_after_bytes: u64,
    /// Entries that [`crate::Group::entries_after`] can still give. Whoever follows asks every few seconds; at a
    /// hundred entries a second 1 MiB is more than a minute.
    pub recent_bytes_max: usize,
    /// How long a proposal or a read waits for a leader before it fails with `NoLeader`.
    pub leader_wait: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            queue_entries_max: 4096,
            batch_bytes_max: 1 << 20,
            entry_bytes_max: 4 << 20,
            snapshot_after_bytes: 8 << 20,
            recent_bytes_max: 1 << 20,
            leader_wait: Duration::from_secs(1),
        }
    }
}
