//! Real agents push to Bellrock, and it answers as the Prometheus beside it that holds the same samples.
//!
//! Half a minute at a scrape a second by default; `BELLROCK_FULL=1` takes ten minutes at five seconds. The Prometheus is
//! the installed one, Debian's 2.42, or the one that `BELLROCK_PROMETHEUS` names.

use model::TimestampMs;
use tests::agents::{self, Agent, Prometheus};
use tests::compare::{Comparison, common_end, read_expressions};
use tests::{Client, skips, wait_within};

use crate::crash::is_full;
use crate::node;

/// What to ask.
const EXPRESSIONS: &str = include_str!("../testdata/expressions.txt");

/// How long agents run, and how often they scrape.
struct Pace {
    seconds: i64,
    interval_seconds: i64,
}

fn pace() -> Pace {
    if is_full() { Pace { seconds: 600, interval_seconds: 5 } } else { Pace { seconds: 30, interval_seconds: 1 } }
}

impl Pace {
    fn interval(&self) -> String {
        format!("{}s", self.interval_seconds)
    }

    /// Waits until both servers hold samples of every target over the whole time; gives a time that both hold.
    #[track_caller]
    fn wait_for_samples(&self, peer: &Client, bellrock: &Client, targets: usize) -> TimestampMs {
        let deadline = std::time::Duration::from_secs(self.seconds as u64 * 2 + 60);
        let mut first = None;
        let end = wait_within(deadline, || {
            let end = common_end(peer, bellrock, targets, self.interval_seconds * 1_000).ok()??;
            let since = *first.get_or_insert(end);
            (end - since >= self.seconds * 1_000).then_some(end)
        });
        end.expect("the agents' samples arrive")
    }

    #[track_caller]
    fn compare(&self, peer: &Client, peer_version: u32, bellrock: &Client, end: TimestampMs) {
        let comparison = Comparison {
            expressions: read_expressions(EXPRESSIONS),
            end,
            range_ms: if is_full() { 3_600_000 } else { self.seconds * 1_000 },
            step_ms: if is_full() { 15_000 } else { self.interval_seconds * 2_000 },
            peer_version,
        };
        let outcome = comparison.run(peer, bellrock).unwrap();
        println!("{outcome}");
        assert!(outcome.asked >= 60 && outcome.non_empty >= 50, "{outcome}");
        assert!(outcome.differences.is_empty(), "{outcome}");
    }
}

/// A counter with a label for the reason, as 3.x has for dropped samples, is absent until the first.
#[track_caller]
fn assert_zero(agent: &Agent, metrics: &[&str], absent_is_zero: &[&str]) {
    for metric in metrics.iter().chain(absent_is_zero) {
        let v = agent.client().metric(metric).unwrap();
        let is_zero = v == Some(0.0) || (v.is_none() && absent_is_zero.contains(metric));
        assert!(is_zero, "{metric} of the agent is {v:?}");
    }
}

#[test]
fn prometheus_remote_writes_and_answers_are_equal() {
    let Some((prometheus, version)) = agents::find_prometheus() else { return };
    let Some(exporter) = skips::program("prometheus-node-exporter", "prometheus-node-exporter") else { return };
    let pace = pace();
    let node = node();
    let exporter = agents::start_node_exporter(&exporter).unwrap();
    let settings = Prometheus {
        remote_write: Some(format!("{}/api/v1/write", node.client().base())),
        scrape_interval: pace.interval(),
        is_receiver: false,
    };
    let prometheus = settings.start(&prometheus).unwrap();
    agents::set_targets(&prometheus, &[("prometheus", prometheus.address()), ("node", exporter.address())]).unwrap();
    let end = pace.wait_for_samples(prometheus.client(), node.client(), 2);
    pace.compare(prometheus.client(), version, node.client(), end);
    let mut counters =
        vec!["prometheus_remote_storage_samples_failed_total", "prometheus_remote_storage_samples_retried_total"];
    let mut absent_is_zero = vec![];
    let dropped = "prometheus_remote_storage_samples_dropped_total";
    if version == 2 {
        counters.push(dropped)
    } else {
        absent_is_zero.push(dropped)
    }
    assert_zero(&prometheus, &counters, &absent_is_zero);
}

#[test]
fn vmagent_remote_writes_and_answers_are_equal() {
    let Some((prometheus, version)) = agents::find_prometheus() else { return };
    let Some(exporter) = skips::program("prometheus-node-exporter", "prometheus-node-exporter") else { return };
    let Some(vmagent) = skips::program("vmagent", "victoria-metrics") else { return };
    let pace = pace();
    let node = node();
    let exporter = agents::start_node_exporter(&exporter).unwrap();
    let receiver = Prometheus { remote_write: None, scrape_interval: pace.interval(), is_receiver: true };
    let receiver = receiver.start(&prometheus).unwrap();
    let urls = [node.client(), receiver.client()].map(|client| format!("{}/api/v1/write", client.base()));
    let vmagent = agents::start_vmagent(&vmagent, &pace.interval(), &urls).unwrap();
    agents::set_targets(&vmagent, &[("prometheus", receiver.address()), ("node", exporter.address())]).unwrap();
    let end = pace.wait_for_samples(receiver.client(), node.client(), 2);
    pace.compare(receiver.client(), version, node.client(), end);
    assert_zero(
        &vmagent,
        &["vmagent_remotewrite_packets_dropped_total", "vmagent_remotewrite_retries_count_total"],
        &[],
    );
}
