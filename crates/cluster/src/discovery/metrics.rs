//! What discovery says of itself.

use runtime::{Counter, Gauge, Registry};

#[derive(Clone)]
pub struct Metrics {
    pub lookups: Counter,
    pub failures: Counter,
    pub addresses: Gauge,
    pub failing: Gauge,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Metrics {
        Metrics {
            lookups: registry.counter(
                "bellrock_cluster_discovery_lookups_total",
                "Questions for the names of join, failed ones included.",
            ),
            failures: registry.counter(
                "bellrock_cluster_discovery_failures_total",
                "Questions for the names of join without a full answer. The log and /-/ready say why.",
            ),
            addresses: registry.gauge(
                "bellrock_cluster_discovery_addresses",
                "Addresses of nodes that the names of join have. Worry when there are fewer than nodes.",
            ),
            failing: registry.gauge(
                "bellrock_cluster_discovery_sources_failing",
                "Names of join whose latest lookup failed; what was known of them is used. Worry when it stays above 0.",
            ),
        }
    }
}
