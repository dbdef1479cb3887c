//! What a group says of itself.

use runtime::metrics::DURATION_BUCKETS_SECONDS;
use runtime::{Counter, Counters, Gauge, GaugeF64, Histogram, Registry};

#[derive(Clone)]
pub struct Metrics {
    pub proposals: Counter,
    pub proposals_failed: Counters<1>,
    pub queue_entries: Gauge,
    pub batch_entries: Histogram,
    pub sync_duration: Histogram,
    pub applied_position: Gauge,
    pub committed_position: Gauge,
    pub is_leader: Gauge,
    pub voters: Gauge,
    pub term: Gauge,
    pub proposals_forwarded: Counter,
    pub messages_dropped: Counters<1>,
    pub snapshots_sent: Counter,
    pub snapshots_installed: Counter,
    pub log_bytes: Gauge,
    pub snapshots: Counter,
    pub snapshots_failed: Counter,
    pub snapshot_last_success: GaugeF64,
}

impl Metrics {
    pub fn new(registry: &Registry, queue_entries_max: usize) -> Metrics {
        registry
            .gauge("bellrock_consensus_queue_capacity", "Proposals that may wait for the index log.")
            .set(i64::try_from(queue_entries_max).unwrap_or(i64::MAX));
        Metrics {
            proposals: registry.counter("bellrock_consensus_proposals_total", "Entries proposed to the index log."),
            proposals_failed: registry.counters(
                "bellrock_consensus_proposals_failed_total",
                "Entries that did not get into the index log. Worry when no_space or refused grows: writes get 503.",
                ["reason"],
            ),
            queue_entries: registry.gauge(
                "bellrock_consensus_queue_entries",
                "Proposals that wait or are under way. Worry when it stays near the capacity: a disk is too slow, or no leader.",
            ),
            batch_entries: registry.histogram(
                "bellrock_consensus_batch_entries",
                "Entries written with one fsync.",
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0, 2048.0],
            ),
            sync_duration: registry.histogram(
                "bellrock_consensus_sync_duration_seconds",
                "One write and fsync of the index log. Every ack waits for one: worry above 0.1.",
                DURATION_BUCKETS_SECONDS,
            ),
            applied_position: registry
                .gauge("bellrock_consensus_applied_position", "The position of the last entry applied."),
            committed_position: registry.gauge(
                "bellrock_consensus_committed_position",
                "The last position known to be committed. Worry when the applied one stays behind it.",
            ),
            voters: registry.gauge(
                "bellrock_consensus_voters",
                "Replicas that vote, as this one knows. Most of them must be there for a write to be taken.",
            ),
            is_leader: registry.gauge("bellrock_consensus_is_leader", "1 on the replica that leads, 0 on the others."),
            term: registry.gauge(
                "bellrock_consensus_term",
                "Raft's term. Worry when it goes up without a node having stopped: leaders are too slow to be heard.",
            ),
            proposals_forwarded: registry
                .counter("bellrock_consensus_proposals_forwarded_total", "Entries sent to the leader, repeats included."),
            messages_dropped: registry.counters(
                "bellrock_consensus_messages_dropped_total",
                "Messages of other replicas that were not listened to. Worry when queue_full or malformed grows.",
                ["reason"],
            ),
            snapshots_sent: registry.counter(
                "bellrock_consensus_snapshots_sent_total",
                "Whole states sent to replicas that the log no longer reaches back to.",
            ),
            snapshots_installed: registry
                .counter("bellrock_consensus_snapshots_installed_total", "Whole states taken over from a leader."),
            log_bytes: registry.gauge("bellrock_consensus_log_bytes", "Length of the index log since its snapshot."),
            snapshots: registry.counter("bellrock_consensus_snapshots_total", "Local snapshots tried."),
            snapshots_failed: registry.counter(
                "bellrock_consensus_snapshots_failed_total",
                "Local snapshots that failed. The log only grows meanwhile; worry when it goes on.",
            ),
            snapshot_last_success: registry.gauge_f64(
                "bellrock_consensus_snapshot_last_success_timestamp_seconds",
                "When the last local snapshot was written; taken as the log grows, so an idle node's may be old.",
            ),
        }
    }
}
