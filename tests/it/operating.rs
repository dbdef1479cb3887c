//! What an operator sees: refusals at start, reloads, readiness, the node's own metrics, and errors as Prometheus words them.

use std::fs;

use rustix::process::Signal;
use tests::{Series, labels, wait_for};

use crate::{node, settings};

#[test]
fn bad_settings_stop_it_with_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    let bad = settings().argument("--log.level=loud").argument("--retention=soon").argument("--nonsense=1");
    let mut process = bad.spawn(folder.path()).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(2));
    for fault in ["log.level", "retention", "nonsense"] {
        wait_for("every fault is listed", || process.output().contains(fault).then_some(()));
    }
}

#[test]
fn a_reload_applies_limits_and_names_what_needs_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bellrock.yml");
    fs::write(&file, "ingester:\n  max_labels_per_series: 2\n").unwrap();
    let mut node = tests::Node::start(&settings().argument(format!("--config={}", file.display()))).unwrap();
    let series = Series::floats(&labels("m", &[("a", "1"), ("b", "2")]), &[(1_700_000_000_000, 1.0)]);
    let status = |node: &tests::Node| node.client().push(std::slice::from_ref(&series)).unwrap().status;
    assert_eq!(status(&node), 400);

    fs::write(&file, "ingester:\n  max_labels_per_series: 3\nlog:\n  format: json\n").unwrap();
    node.process().signal(Signal::HUP).unwrap();
    wait_for("the new limit holds", || (status(&node) / 100 == 2).then_some(()));
    wait_for("the rest is named", || node.process().output().contains("needs a restart").then_some(()));

    fs::write(&file, "ingester:\n  max_labels_per_series: none at all\n").unwrap();
    node.process().signal(Signal::HUP).unwrap();
    wait_for("the bad file is refused", || node.process().output().contains("none at all").then_some(()));
    assert_eq!(status(&node) / 100, 2);
}

#[test]
fn health_and_own_metrics_are_shown() {
    let node = node();
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(node.client().get(path, &[]).unwrap().status, 200, "{path}");
    }
    node.client().push_ok(&[Series::floats(&labels("m", &[]), &[(1_700_000_000_000, 1.0)])]).unwrap();
    let page = node.client().get("/metrics", &[]).unwrap();
    assert_eq!(page.status, 200);
    assert!(page.text().lines().any(|line| line.starts_with("bellrock_")), "{}", page.text());
}

#[test]
fn errors_are_worded_as_prometheus_does() {
    let node = node();
    let cases = [
        ("/api/v1/query", vec![("query", "sum(")], 400, "bad_data"),
        ("/api/v1/query", vec![], 400, "bad_data"),
        ("/api/v1/query", vec![("query", "up"), ("time", "yesterday")], 400, "bad_data"),
        ("/api/v1/query_range", vec![("query", "up"), ("start", "10"), ("end", "1"), ("step", "1")], 400, "bad_data"),
        ("/api/v1/query_range", vec![("query", "up"), ("start", "0"), ("end", "1"), ("step", "0")], 400, "bad_data"),
        (
            "/api/v1/query_range",
            vec![("query", "up"), ("start", "0"), ("end", "11001"), ("step", "1")],
            400,
            "bad_data",
        ),
        (
            "/api/v1/query_range",
            vec![("query", "up[5m]"), ("start", "0"), ("end", "1"), ("step", "1")],
            400,
            "bad_data",
        ),
        ("/api/v1/series", vec![], 400, "bad_data"),
        ("/api/v1/series", vec![("match[]", "up{")], 400, "bad_data"),
        ("/api/v1/query", vec![("query", "label_replace(vector(1), \"a\", \"$1\", \"b\", \"(\")")], 422, "execution"),
    ];
    for (path, parameters, status, kind) in cases {
        let response = node.client().get(path, &parameters).unwrap();
        assert_eq!(response.status, status, "{path} {parameters:?}: {}", response.text());
        let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!((json["status"].as_str(), json["errorType"].as_str()), (Some("error"), Some(kind)), "{json}");
        assert!(json["error"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
    }
    assert_eq!(node.client().get("/api/v1/nothing", &[]).unwrap().status, 404);
}
