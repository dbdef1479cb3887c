//! The querier's metrics.

use runtime::metrics::DURATION_BUCKETS_SECONDS;
use runtime::{Counter, Counters, Gauge, Histogram, Registry};

#[derive(Clone)]
pub(crate) struct Metrics {
    pub seconds: Histogram,
    pub failures: Counters<1>,
    pub planned_again: Counter,
    pub series: Counter,
    pub samples: Counter,
    pub running: Gauge,
    pub shares: Counters<1>,
    pub cache_misses: Counter,
    pub cache_hits: Counter,
}

impl Metrics {
    pub(crate) fn new(r: &Registry) -> Metrics {
        Metrics {
            seconds: r.histogram(
                "bellrock_querier_query_duration_seconds",
                "Duration of queries, waiting for their turn included",
                DURATION_BUCKETS_SECONDS,
            ),
            failures: r.counters(
                "bellrock_querier_queries_failed_total",
                "Queries without an answer, by kind. Worry about corrupt ones at once",
                ["kind"],
            ),
            planned_again: r.counter(
                "bellrock_querier_plans_repeated_total",
                "Queries that were planned again as a cut or the collector overtook them",
            ),
            series: r.counter("bellrock_querier_series_selected_total", "Series that selectors found"),
            samples: r.counter("bellrock_querier_samples_selected_total", "Samples that selectors found"),
            shares: r.counters(
                "bellrock_querier_shares_total",
                "Shares of aggregations that queries of this node were spread into, by where they were evaluated. Failed \
                 ones were asked of another node and evaluated here after all",
                ["where"],
            ),
            running: r.gauge("bellrock_querier_queries_running", "Queries being evaluated"),
            cache_misses: r.counter("bellrock_querier_blocks_opened_total", "Blocks whose footer and terms were read"),
            cache_hits: r.counter("bellrock_querier_block_cache_hits_total", "Blocks that were open already"),
        }
    }
}
