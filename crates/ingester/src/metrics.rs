//! The ingester's metrics.

use runtime::metrics::DURATION_BUCKETS_SECONDS;
use runtime::{Counter, Counters, Gauge, GaugeF64, Histogram, Registry};

/// Segment sizes: from one scrape of one target to a full segment.
const SEGMENT_BYTES_BUCKETS: &[f64] = &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

#[derive(Clone)]
pub(crate) struct Metrics {
    pub samples: Counter,
    pub rejected: Counters<1>,
    pub unavailable: Counters<1>,
    pub exemplars_ignored: Counter,
    pub parts_forwarded: Counter,
    pub parts_spelled: Counter,
    pub parts_taken: Counter,
    pub parts_failed_over: Counter,
    pub nodes_passed_over: Gauge,
    pub ack_seconds: Histogram,
    pub segment_bytes: Histogram,
    pub segments_committed: Counter,
    pub puts: Counter,
    pub put_failures: Counter,
    pub puts_hedged_away: Counter,
    pub cuts: Counter,
    pub cut_failures: Counter,
    pub cut_seconds: Histogram,
    pub last_cut_seconds: GaugeF64,
    pub fenced: Counter,
    pub adopted: Counter,
    pub quarantined: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Metrics {
        let r = registry;
        Metrics {
            samples: r.counter("bellrock_ingester_samples_total", "Samples taken into a segment"),
            rejected: r.counters(
                "bellrock_ingester_samples_rejected_total",
                "Samples refused with 400, by reason: their senders drop them; see docs/runbook.md",
                ["reason"],
            ),
            unavailable: r.counters(
                "bellrock_ingester_writes_unavailable_total",
                "Writes answered 503, by reason: their senders retry. Worry when it keeps growing",
                ["reason"],
            ),
            exemplars_ignored: r
                .counter("bellrock_ingester_exemplars_ignored_total", "Exemplars sent, which are not stored yet"),
            parts_forwarded: r.counter(
                "bellrock_ingester_parts_forwarded_total",
                "Parts of requests that were sent to another node, the home of their series",
            ),
            parts_spelled: r.counter(
                "bellrock_ingester_parts_spelled_total",
                "Parts that were sent again with labels, as their home did not know each series by its hash or refused a sample. \
                 Once a series after each cut of a head is as it should be",
            ),
            parts_taken: r.counter(
                "bellrock_ingester_parts_taken_total",
                "Parts of other nodes' requests that were taken here, as the home of their series",
            ),
            parts_failed_over: r.counter(
                "bellrock_ingester_parts_failed_over_total",
                "Parts that their home did not take, or not all of them, and others did. Worry when it keeps growing",
            ),
            nodes_passed_over: r.gauge(
                "bellrock_ingester_nodes_passed_over",
                "Nodes that take no parts of writes, as far as this node knows. Worry when it stays above 0",
            ),
            ack_seconds: r.histogram(
                "bellrock_ingester_ack_duration_seconds",
                "From the append to the ack of a write. Worry when it nears the senders' timeout",
                DURATION_BUCKETS_SECONDS,
            ),
            segment_bytes: r.histogram(
                "bellrock_ingester_segment_bytes",
                "Sizes of stored segments",
                SEGMENT_BYTES_BUCKETS,
            ),
            segments_committed: r
                .counter("bellrock_ingester_segments_committed_total", "Segments committed to the index"),
            puts: r
                .counter("bellrock_ingester_segment_puts_total", "PUTs of segments that were begun, hedges included"),
            put_failures: r.counter(
                "bellrock_ingester_segment_put_failures_total",
                "PUTs of segments that failed or were late, and are tried again. Worry when it grows",
            ),
            puts_hedged_away: r.counter(
                "bellrock_ingester_segment_puts_hedged_away_total",
                "PUTs of segments whose second attempt, or first, was quicker. About one in twenty is as it should be",
            ),
            cuts: r.counter("bellrock_ingester_cuts_total", "Heads cut into a block"),
            cut_failures: r.counter(
                "bellrock_ingester_cut_failures_total",
                "Blocks that could not be stored and are tried again. Worry when it grows",
            ),
            cut_seconds: r.histogram(
                "bellrock_ingester_cut_duration_seconds",
                "From the freezing of a head to its block's commit",
                DURATION_BUCKETS_SECONDS,
            ),
            last_cut_seconds: r.gauge_f64(
                "bellrock_ingester_last_cut_timestamp_seconds",
                "When the last cut was committed. Worry when it is an hour ago while samples arrive",
            ),
            fenced: r.counter(
                "bellrock_ingester_writers_fenced_total",
                "Writers of this process that were fenced while it lived. Worry when it grows: see docs/runbook.md",
            ),
            adopted: r
                .counter("bellrock_ingester_writers_adopted_total", "Dead writers whose segments were loaded and cut"),
            quarantined: r.counter(
                "bellrock_ingester_segments_quarantined_total",
                "Segments that could not be decoded and were put aside. Worry at once: see docs/runbook.md",
            ),
        }
    }
}
