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
    /// For how long nothing may be heard of a leader (by the leader: of a majority) before proposals and reads fail
    /// with `NoLeader`; until something is, they fail at once.
    pub leader_wait: Duration,
    /// How long a proposal or a read waits for its answer while a leader is known; then it fails with `NoLeader`, as
    /// that leader does not reach a majority, or not this replica. A group of one voter waits for its disk as long as
    /// it takes.
    pub answer_wait: Duration,
    /// Raft's unit of time.
    pub tick: Duration,
    /// A follower that hears nothing for once to twice so many ticks holds an election; a leader that hears from no
    /// majority for as long steps down. With ticks of 100 ms one of three is followed in 1 to 2 s; shorter ones would
    /// take a disk that stalls for half a second for a dead node.
    pub election_ticks: usize,
    /// A leader says that it is there every so many ticks.
    pub heartbeat_ticks: usize,
    /// Entries in one message to a follower.
    pub message_bytes_max: u64,
    /// Messages with entries under way to a follower.
    pub messages_in_flight_max: usize,
    /// Entries of a leader that are not committed yet; more proposals wait.
    pub uncommitted_bytes_max: u64,
    /// Messages that wait to be taken in; more are dropped. A snapshot comes in one of them.
    pub messages_bytes_max: usize,
    /// The largest state that is sent to another replica.
    pub snapshot_bytes_max: usize,
    /// How long a snapshot may be on its way before it is sent again.
    pub snapshot_wait: Duration,
    /// Entries before a snapshot that the log keeps, so that a follower that was away for a moment needs no snapshot.
    pub tail_bytes_max: usize,
    /// A learner that is so many entries behind, or fewer, may become a voter.
    pub caught_up_entries: u64,
    /// Replicas compare the hash of their states at every so many positions. Hashing costs about as much as a
    /// snapshot.
    pub hash_every: u64,
}

impl Settings {
    pub(crate) fn leader_wait_ticks(&self) -> u64 {
        self.ticks(self.leader_wait)
    }

    pub(crate) fn answer_wait_ticks(&self) -> u64 {
        self.ticks(self.answer_wait)
    }

    pub(crate) fn snapshot_wait_ticks(&self) -> u64 {
        self.ticks(self.snapshot_wait)
    }

    fn ticks(&self, time: Duration) -> u64 {
        time.as_millis().div_ceil(self.tick.as_millis().max(1)) as u64
    }
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
            answer_wait: Duration::from_secs(5),
            tick: Duration::from_millis(100),
            election_ticks: 10,
            heartbeat_ticks: 2,
            message_bytes_max: 1 << 20,
            messages_in_flight_max: 64,
            uncommitted_bytes_max: 16 << 20,
            messages_bytes_max: 192 << 20,
            snapshot_bytes_max: 128 << 20,
            snapshot_wait: Duration::from_secs(20),
            tail_bytes_max: 1 << 20,
            caught_up_entries: 1000,
            hash_every: 4096,
        }
    }
}
