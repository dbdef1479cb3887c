//! What the face counts about itself.

use runtime::metrics::DURATION_BUCKETS_SECONDS;
use runtime::{Counters, Gauge, Histograms, Registry};

use crate::budget::ByteBudget;

/// Metrics of the face. Routes are the router's own patterns, so their number is bounded.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) requests: Counters<3>,
    pub(crate) seconds: Histograms<1>,
    pub(crate) running: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, bodies: &ByteBudget) -> Metrics {
        let (used, max) = (bodies.clone(), bodies.max());
        registry.gauge_fn(
            "bellrock_api_bodies_bytes",
            "Memory that request bodies take now; at bellrock_api_bodies_bytes_max writes get 503.",
            move || Some(used.used() as f64),
        );
        registry.gauge("bellrock_api_bodies_bytes_max", "Memory that request bodies may take.").set(max as i64);
        Metrics {
            requests: registry.counters(
                "bellrock_api_requests_total",
                "Requests answered, by route and status; worry about 5xx, and about 400 on the write route: its samples are dropped.",
                ["route", "method", "code"],
            ),
            seconds: registry.histograms(
                "bellrock_api_request_duration_seconds",
                "From a request's header to its answer's, by route.",
                ["route"],
                DURATION_BUCKETS_SECONDS,
            ),
            running: registry.gauge("bellrock_api_requests_running", "Requests being worked on."),
        }
    }
}
