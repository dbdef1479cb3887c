//! Metrics about this process, and the text that a Prometheus scrapes.
//!
//! A thin face over `prometheus-client`, so that no other crate knows it: metrics are declared in each
//! crate's `metrics.rs` with their full names, label names are fixed at registration, and the text is
//! the Prometheus exposition format 0.0.4 (`prometheus-client` alone writes OpenMetrics, in which a
//! counter's type line lacks `_total`). Recording is an atomic operation; [`Counters::with`] and its
//! like take a lock, so keep their result where it is hot.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::registry::Metric;
use prometheus_client::{metrics, registry};

/// The `Content-Type` of [`Registry::encode`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds in seconds for requests and PUTs: from a cached answer to a time-out.
pub const DURATION_BUCKETS_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// A number that only grows: `inc()`, `inc_by(n)`, `get()`.
pub type Counter = metrics::counter::Counter;
/// A whole number that goes up and down: `set(n)`, `inc()`, `dec()`, `inc_by(n)`, `get()`.
pub type Gauge = metrics::gauge::Gauge;
/// A fractional number that goes up and down, such as a time in seconds.
pub type GaugeF64 = metrics::gauge::Gauge<f64, AtomicU64>;
/// A distribution: `observe(v)`.
pub type Histogram = metrics::histogram::Histogram;

/// Counters of one name, told apart by `N` labels.
pub type Counters<const N: usize> = Labelled<N, Counter, fn() -> Counter>;
/// Gauges of one name, told apart by `N` labels.
pub type Gauges<const N: usize> = Labelled<N, Gauge, fn() -> Gauge>;
/// Histograms of one name, told apart by `N` labels.
pub type Histograms<const N: usize> = Labelled<N, Histogram, Buckets>;

type LabelSet<const N: usize> = [(&'static str, String); N];

/// The metrics of one name, one for each combination of label values in use.
#[derive(Clone)]
pub struct Labelled<const N: usize, M, C> {
    names: [&'static str; N],
    family: Family<LabelSet<N>, M, C>,
}

impl<const N: usize, M: Clone, C: MetricConstructor<M>> Labelled<N, M, C> {
    /// Returns the metric with these label values, in the order of the names at registration; creates it
    /// at zero when it is new. The values must be a bounded set known in code.
    pub fn with(&self, values: [&str; N]) -> M {
        self.family.get_or_create_owned(&self.label_set(values))
    }

    /// Forgets the metric with these label values, such as a tenant that is gone.
    pub fn remove(&self, values: [&str; N]) {
        self.family.remove(&self.label_set(values));
    }

    fn label_set(&self, values: [&str; N]) -> LabelSet<N> {
        let mut values = values.into_iter();
        self.names.map(|name| (name, values.next().unwrap_or_default().to_string()))
    }
}

/// The upper bounds of a histogram's buckets; `+Inf` is added.
#[derive(Debug, Clone, Copy)]
pub struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// All metrics of a process. Clones are the same registry; there is no global one.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    registry: registry::Registry,
    names: BTreeSet<String>,
}

impl Registry {
    /// Creates an empty registry.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Registers a counter; `name` ends in `_total`.
    ///
    /// Panics, as all registrations do, when the name is not a metric name, is taken, or the help text
    /// has a line break: these are constants in the code.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(stem(name), help, Counter::default())
    }

    /// Registers counters that are told apart by labels.
    pub fn counters<const N: usize>(&self, name: &str, help: &str, labels: [&'static str; N]) -> Counters<N> {
        let family = Family::new_with_constructor(Counter::default as fn() -> Counter);
        Labelled { names: labels, family: self.register(stem(name), help, family) }
    }

    /// Registers a gauge of whole numbers.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// Registers a gauge of fractional numbers.
    pub fn gauge_f64(&self, name: &str, help: &str) -> GaugeF64 {
        self.register(name, help, GaugeF64::default())
    }

    /// Registers gauges that are told apart by labels.
    pub fn gauges<const N: usize>(&self, name: &str, help: &str, labels: [&'static str; N]) -> Gauges<N> {
        let family = Family::new_with_constructor(Gauge::default as fn() -> Gauge);
        Labelled { names: labels, family: self.register(name, help, family) }
    }

    /// Registers a histogram with these upper bounds, ascending.
    pub fn histogram(&self, name: &str, help: &str, bounds: &'static [f64]) -> Histogram {
        self.register(name, help, Buckets(bounds).new_metric())
    }

    /// Registers histograms that are told apart by labels.
    pub fn histograms<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        bounds: &'static [f64],
    ) -> Histograms<N> {
        let family = Family::new_with_constructor(Buckets(bounds));
        Labelled { names: labels, family: self.register(name, help, family) }
    }

    /// Registers a gauge whose value is asked for at each scrape; `None` leaves it out.
    pub fn gauge_fn(&self, name: &str, help: &str, read: impl Fn() -> Option<f64> + Send + Sync + 'static) {
        self.register_fn(name, help, MetricType::Gauge, Box::new(read));
    }

    /// Registers a counter whose value is asked for at each scrape; `None` leaves it out.
    pub fn counter_fn(&self, name: &str, help: &str, read: impl Fn() -> Option<f64> + Send + Sync + 'static) {
        self.register_fn(stem(name), help, MetricType::Counter, Box::new(read));
    }

    /// Writes all metrics in the Prometheus text format, [`CONTENT_TYPE`].
    ///
    /// Functions given to [`Registry::gauge_fn`] run under the registry's lock and must not register.
    pub fn encode(&self) -> String {
        let mut open_metrics = String::new();
        text::encode(&mut open_metrics, &self.inner.lock().registry).expect("writing to a string does not fail");
        to_prometheus_text(&open_metrics)
    }

    fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        let mut inner = self.inner.lock();
        inner.claim(name, help);
        inner.registry.register(name, help_stem(help), metric.clone());
        metric
    }

    fn register_fn(&self, name: &str, help: &str, kind: MetricType, read: ReadValue) {
        let mut inner = self.inner.lock();
        inner.claim(name, help);
        let (name, help) = (name.to_string(), help.to_string());
        inner.registry.register_collector(Box::new(ReadAtScrape { name, help, kind, read }));
    }
}

impl Inner {
    fn claim(&mut self, name: &str, help: &str) {
        let is_name_byte =
            |(i, b): (usize, u8)| b.is_ascii_alphabetic() || b == b'_' || b == b':' || (i > 0 && b.is_ascii_digit());
        assert!(!name.is_empty() && name.bytes().enumerate().all(is_name_byte), "metric name {name:?}");
        assert!(!help.contains(['\n', '\\']), "help of metric {name}");
        assert!(self.names.insert(name.to_string()), "metric {name} is registered twice");
    }
}

type ReadValue = Box<dyn Fn() -> Option<f64> + Send + Sync>;

struct ReadAtScrape {
    name: String,
    help: String,
    kind: MetricType,
    read: ReadValue,
}

impl fmt::Debug for ReadAtScrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Collector for ReadAtScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(value) = (self.read)() else { return Ok(()) };
        let mut metric = encoder.encode_descriptor(&self.name, &self.help, None, self.kind)?;
        match self.kind {
            MetricType::Counter => metric.encode_counter::<[(String, String); 0], f64, f64>(&value, None),
            _ => metric.encode_gauge(&value),
        }
    }
}

/// `prometheus-client` adds `_total` to a counter's name by itself.
fn stem(name: &str) -> &str {
    name.strip_suffix("_total").unwrap_or_else(|| panic!("counter {name} does not end in _total"))
}

/// `prometheus-client` ends the help of registered metrics with a full stop.
fn help_stem(help: &str) -> &str {
    help.strip_suffix('.').unwrap_or(help)
}

/// Gives counters' type and help lines their `_total`, and drops OpenMetrics' end mark.
fn to_prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Written with the type line that follows it, which says what the name is.
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some(help) = help.take() {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if line != "# EOF" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_prometheus_format() {
        let registry = Registry::new();
        registry.counter("bellrock_test_puts_total", "Puts.").inc_by(3);
        let rejected = registry.counters("bellrock_test_rejected_total", "Refused.", ["reason", "tenant"]);
        rejected.with(["too_old", "a\"b\\c\nd"]).inc();
        registry.gauge("bellrock_test_series", "Series in memory.").set(-4);
        registry.gauge_f64("bellrock_test_age_seconds", "Age.").set(1.5);
        registry.gauge_fn("bellrock_test_free_bytes", "Free.", || Some(7.0));
        registry.gauge_fn("bellrock_test_unknown", "Never known.", || None);
        registry.counter_fn("bellrock_test_cpu_seconds_total", "CPU.", || Some(2.25));
        let histogram = registry.histogram("bellrock_test_duration_seconds", "Durations.", &[0.5, 1.0]);
        histogram.observe(0.7);
        let text = registry.encode();
        let expected = r##"# HELP bellrock_test_puts_total Puts.
# TYPE bellrock_test_puts_total counter
bellrock_test_puts_total 3
# HELP bellrock_test_rejected_total Refused.
# TYPE bellrock_test_rejected_total counter
bellrock_test_rejected_total{reason="too_old",tenant="a\"b\\c\nd"} 1
# HELP bellrock_test_series Series in memory.
# TYPE bellrock_test_series gauge
bellrock_test_series -4
# HELP bellrock_test_age_seconds Age.
# TYPE bellrock_test_age_seconds gauge
bellrock_test_age_seconds 1.5
# HELP bellrock_test_duration_seconds Durations.
# TYPE bellrock_test_duration_seconds histogram
bellrock_test_duration_seconds_sum 0.7
bellrock_test_duration_seconds_count 1
bellrock_test_duration_seconds_bucket{le="0.5"} 0
bellrock_test_duration_seconds_bucket{le="1.0"} 1
bellrock_test_duration_seconds_bucket{le="+Inf"} 1
# HELP bellrock_test_free_bytes Free.
# TYPE bellrock_test_free_bytes gauge
bellrock_test_free_bytes 7.0
# HELP bellrock_test_cpu_seconds_total CPU.
# TYPE bellrock_test_cpu_seconds_total counter
bellrock_test_cpu_seconds_total 2.25
"##;
        assert_eq!(text, expected);
    }

    #[test]
    fn labelled_metrics_are_shared_and_can_be_removed() {
        let registry = Registry::new();
        let gauges = registry.gauges("bellrock_test_series", "Series.", ["tenant"]);
        gauges.with(["a"]).set(2);
        assert_eq!(gauges.with(["a"]).get(), 2);
        gauges.remove(["a"]);
        assert!(!registry.encode().contains("tenant"));
        let histograms = registry.histograms("bellrock_test_s", "Seconds.", ["verb"], &[1.0]);
        histograms.with(["put"]).observe(0.1);
        assert!(registry.encode().contains("bellrock_test_s_bucket{le=\"1.0\",verb=\"put\"} 1"));
    }

    #[test]
    #[should_panic(expected = "registered twice")]
    fn a_name_is_registered_once() {
        let registry = Registry::new();
        registry.gauge("bellrock_test_x", "X.");
        registry.gauge("bellrock_test_x", "X.");
    }
}
