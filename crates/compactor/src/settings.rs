//! How often. Nobody could say when to change these yet, so they are no flags.

use std::time::Duration;

/// The compactor's rhythm.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How often things are looked at.
    pub tick: Duration,
    /// How long an entry may be in the index and not in the bucket. A recovery from the bucket alone loses
    /// what cuts and deletes did since, never segments.
    pub changes_every: Duration,
    /// How many changes a recovery may have to read: one checkpoint's worth.
    pub checkpoint_every: Duration,
    /// After a failure.
    pub retry_after: Duration,
    /// When the bucket does not answer, it counts as a failure.
    pub bucket_timeout: Duration,
    /// Checkpoints that stay, for whoever looks into an accident. A recovery reads the newest only.
    pub checkpoints_kept: usize,
    /// Deletes between two looks at `cluster.json`.
    pub deletes_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            tick: Duration::from_secs(1),
            changes_every: Duration::from_secs(5),
            checkpoint_every: Duration::from_secs(300),
            retry_after: Duration::from_secs(10),
            bucket_timeout: Duration::from_secs(60),
            checkpoints_kept: 3,
            deletes_max: 500,
        }
    }
}
