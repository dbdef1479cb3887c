//! What the compactor says of itself, and of the index (which names no metric).

use index::Counts;
use runtime::{Clock, Counter, Counters, Gauge, GaugeF64, Registry};

#[derive(Clone)]
pub struct Metrics {
    pub writes: Counters<1>,
    pub writes_failed: Counters<1>,
    pub last_success: GaugeF64,
    pub stored_position: Gauge,
    pub deletes: Counter,
    pub deletes_failed: Counter,
    pub collect_last_success: GaugeF64,
    pub pending: Gauge,
    writers: [Gauge; 2],
    segments: Gauge,
    segment_bytes: Gauge,
    blocks: Gauge,
    block_bytes: Gauge,
    block_samples: Gauge,
    quarantined: Gauge,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Metrics {
        let writers = registry.gauges(
            "bellrock_index_writers",
            "Writers that are not closed. Worry when fenced ones stay: nobody adopts them.",
            ["stage"],
        );
        Metrics {
            writes: registry.counters(
                "bellrock_compactor_index_writes_total",
                "Checkpoints and changes of the index that were to be written to the bucket.",
                ["object"],
            ),
            writes_failed: registry.counters(
                "bellrock_compactor_index_writes_failed_total",
                "Those that failed. They are tried again; worry when it goes on.",
                ["object"],
            ),
            last_success: registry.gauge_f64(
                "bellrock_compactor_index_last_success_timestamp_seconds",
                "When the index in the bucket was last known to be complete. Worry when it is minutes ago.",
            ),
            stored_position: registry.gauge(
                "bellrock_compactor_index_stored_position",
                "The index is in the bucket up to here. Compare with bellrock_consensus_applied_position.",
            ),
            deletes: registry.counter("bellrock_compactor_deletes_total", "Dead objects that were to be deleted."),
            deletes_failed: registry.counter(
                "bellrock_compactor_deletes_failed_total",
                "Those that were not. They are tried again; worry when it goes on: the bucket only grows.",
            ),
            collect_last_success: registry.gauge_f64(
                "bellrock_compactor_collect_last_success_timestamp_seconds",
                "When the collector last got through with nothing left that may go. Worry when it is an hour ago.",
            ),
            pending: registry.gauge(
                "bellrock_compactor_collect_pending_objects",
                "Dead objects that are there yet. Worry when it only grows: is a query pinning an old revision?",
            ),
            writers: [writers.with(["live"]), writers.with(["fenced"])],
            segments: registry.gauge("bellrock_index_segments", "Segments that no block holds yet."),
            segment_bytes: registry.gauge("bellrock_index_segment_bytes", "Their bytes."),
            blocks: registry.gauge("bellrock_index_blocks", "Blocks."),
            block_bytes: registry.gauge("bellrock_index_block_bytes", "Their bytes."),
            block_samples: registry.gauge("bellrock_index_block_samples", "Samples in them."),
            quarantined: registry.gauge(
                "bellrock_index_segments_quarantined",
                "Segments that can't be decoded; their samples are missing from answers. Worry above 0.",
            ),
        }
    }

    pub fn set_counts(&self, counts: &Counts) {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.writers[0], counts.writers_live);
        set(&self.writers[1], counts.writers_fenced);
        set(&self.segments, counts.segments);
        set(&self.segment_bytes, counts.segment_bytes);
        set(&self.blocks, counts.blocks);
        set(&self.block_bytes, counts.block_bytes);
        set(&self.block_samples, counts.block_samples);
        set(&self.quarantined, counts.segments_quarantined);
    }
}

/// Now, as timestamps in metrics are written.
pub fn now_seconds(clock: &dyn Clock) -> f64 {
    clock.now_ms() as f64 / 1000.0
}
