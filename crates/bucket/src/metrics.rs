//! What the bucket says of itself.

use runtime::metrics::DURATION_BUCKETS_SECONDS;
use runtime::{Counter, Counters, Histogram, Registry};

use crate::error::{ErrorKind, Operation};

#[derive(Clone)]
pub struct Metrics {
    operations: [OfOperation; 4],
    errors: Counters<2>,
    pub retries: Counters<1>,
    pub unknown_names: Counter,
    pub moved_objects: Counter,
    pub moved_bytes: Counter,
}

#[derive(Clone)]
struct OfOperation {
    requests: Counter,
    duration: Histogram,
    bytes: Counter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Metrics {
        let requests = registry.counters(
            "bellrock_bucket_requests_total",
            "Requests to the object store, failed ones included. S3 bills for them.",
            ["operation"],
        );
        let duration = registry.histograms(
            "bellrock_bucket_request_duration_seconds",
            "How long the object store took. Every ack waits for one put: worry when its p99 passes 1.",
            ["operation"],
            DURATION_BUCKETS_SECONDS,
        );
        let bytes = registry.counters(
            "bellrock_bucket_bytes_total",
            "Bytes sent to (put) and fetched from (get) the object store.",
            ["operation"],
        );
        let errors = registry.counters(
            "bellrock_bucket_errors_total",
            "Requests that failed. not_found is part of normal life; worry about the others when they go on.",
            ["operation", "reason"],
        );
        let retries = registry.counters(
            "bellrock_bucket_retries_total",
            "Requests that were sent again, segments' PUTs not among them. The log says why; worry when it goes on.",
            ["operation"],
        );
        let of = |operation: Operation| OfOperation {
            requests: requests.with([operation.name()]),
            duration: duration.with([operation.name()]),
            bytes: bytes.with([operation.name()]),
        };
        let unknown_names = registry.counter(
            "bellrock_bucket_unknown_names_total",
            "Names seen in listings that no object of Bellrock has. They are left alone; who put them there?",
        );
        let moved_objects = registry.counter(
            "bellrock_bucket_moved_objects_total",
            "Objects that bellrock bucket migrate has copied and compared. It is seen on; no alert needs it.",
        );
        let moved_bytes = registry.counter("bellrock_bucket_moved_bytes_total", "The bytes of these objects.");
        Metrics { operations: Operation::ALL.map(of), errors, retries, unknown_names, moved_objects, moved_bytes }
    }

    pub fn record(&self, operation: Operation, seconds: f64, outcome: Result<u64, ErrorKind>) {
        let Some(at) = Operation::ALL.iter().position(|other| *other == operation) else { return };
        let of = &self.operations[at];
        of.requests.inc();
        of.duration.observe(seconds);
        match outcome {
            Ok(bytes) => {
                of.bytes.inc_by(bytes);
            }
            Err(kind) => {
                self.errors.with([operation.name(), reason(kind)]).inc();
            }
        }
    }
}

fn reason(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "not_found",
        ErrorKind::NoSpace => "no_space",
        ErrorKind::ReadOnly => "read_only",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::OtherCluster => "other_cluster",
    }
}
