//! What the traffic between nodes says of itself.

use runtime::metrics::DURATION_BUCKETS_SECONDS;
use runtime::{Counter, Counters, Gauge, Histograms, Registry};

#[derive(Clone)]
pub struct Metrics {
    pub calls: Histograms<1>,
    pub calls_failed: Counters<2>,
    pub posts: Counter,
    pub posts_dropped: Counter,
    pub connections: Gauge,
    pub connections_refused: Counters<1>,
    pub connect_failures: Counter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Metrics {
        Metrics {
            calls: registry.histograms(
                "bellrock_cluster_call_duration_seconds",
                "How long other nodes took to answer, by message; failed calls included.",
                ["message"],
                DURATION_BUCKETS_SECONDS,
            ),
            calls_failed: registry.counters(
                "bellrock_cluster_calls_failed_total",
                "Calls to other nodes without an answer. Worry when unreachable or timeout go on for a node that should be up.",
                ["message", "reason"],
            ),
            posts: registry
                .counter("bellrock_cluster_posts_total", "Consensus messages that were given to the way to another node."),
            posts_dropped: registry.counter(
                "bellrock_cluster_posts_dropped_total",
                "Consensus messages that were dropped before they were sent. They are sent again; worry when it goes on.",
            ),
            connections: registry.gauge("bellrock_cluster_connections", "Connections from other nodes that are served."),
            connections_refused: registry.counters(
                "bellrock_cluster_connections_refused_total",
                "Connections from other nodes that were refused. secret and cluster mean a node that is set up wrongly, or a stranger.",
                ["reason"],
            ),
            connect_failures: registry.counter(
                "bellrock_cluster_connect_failures_total",
                "Connections to other nodes that could not be made.",
            ),
        }
    }
}
