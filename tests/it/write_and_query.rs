//! What is pushed is what is read back; what can't be stored is refused, and says so.

use std::io::Write;

use model::{Counts, Histogram, Labels, Samples, Span, TimestampMs, Value, stale_marker};
use proto::{WriteRequestBuilder, compress_snappy};
use tests::client::write_request;
use tests::promqltest::{Data, Steps};
use tests::{Client, Node, Series, Store, labels};

use crate::{node, node_on, settings};

/// A time in the past, so that no clock matters.
const T: TimestampMs = 1_700_000_000_000;

/// What the limits on a request are by default.
const BODY_MAX: usize = 32 << 20;

/// What bombs may cost at their peak: a body and its decoded form at their limits, while both buffers grow.
const BOMB_BYTES_MAX: u64 = 192 << 20;

/// What may remain of that a moment later.
const REST_BYTES_MAX: u64 = 48 << 20;

on_every_store! {
    pushed_samples_are_read_back,
    every_alias_takes_requests,
    every_encoding_is_read,
    the_valid_part_of_a_partly_bad_request_is_read_back,
    bad_bodies_are_refused_with_a_message,
    bombs_are_refused_and_memory_stays_flat,
    out_of_order_and_repeated_samples_merge,
    tenants_see_their_own,
    a_stale_marker_ends_a_series,
    an_ordinary_nan_is_no_stale_marker,
    native_histograms_are_read_back,
    metadata_is_kept_per_metric,
    a_restart_keeps_everything,
}

/// All samples of a selector in the hour up to `T` + 30 min, sorted by labels.
#[track_caller]
fn read(client: &Client, selector: &str) -> Vec<(Labels, Samples)> {
    let answer = client.instant(&format!("{selector}[1h]"), T + 1_800_000).unwrap().unwrap();
    let Data::Matrix(mut matrix) = answer.data else { panic!("{}", answer.data) };
    matrix.sort_by(|a, b| a.0.cmp(&b.0));
    matrix
}

fn floats(pairs: &[(TimestampMs, f64)]) -> Samples {
    pairs.iter().map(|&(t, v)| model::Sample::float(t, v)).collect()
}

/// Three series of ten samples, with values that need all their digits.
fn some_series() -> Vec<Series> {
    let one = |i: usize| {
        let samples: Vec<_> = (0..10).map(|n| (T + n * 15_000, n as f64 * 0.1 + 1.0 / (i as f64 + 3.0))).collect();
        Series::floats(&labels("m", &[("i", &i.to_string()), ("job", "ünï")]), &samples)
    };
    (0..3).map(one).collect()
}

fn expected(series: &[Series]) -> Vec<(Labels, Samples)> {
    series.iter().map(|one| (one.labels.clone(), floats(&one.floats))).collect()
}

fn pushed_samples_are_read_back(store: &Store) {
    let node = node_on(store);
    let client = node.client();
    let series = some_series();
    client.push_ok(&series).unwrap();
    assert_eq!(read(client, "m"), expected(&series));
    assert_eq!(read(client, r#"{i=~"1|2",job!=""}"#), expected(&series[1..]));
    assert_eq!(read(client, "nothing"), []);

    let steps = Steps { start: T, end: T + 30_000, step: 15_000 };
    let answer = client.range("sum(m) > 0", steps).unwrap().unwrap();
    let Data::Matrix(matrix) = answer.data else { panic!("{}", answer.data) };
    assert_eq!(matrix[0].1.timestamps, [T, T + 15_000, T + 30_000]);

    let (start, end) = ("1700000000", "1700001000");
    for prefix in ["", "/prometheus"] {
        let get =
            |path: &str, parameters: &[(&str, &str)]| client.data(&format!("{prefix}{path}"), parameters).unwrap();
        let times = [("start", start), ("end", end)];
        assert_eq!(get("/api/v1/labels", &times), serde_json::json!(["__name__", "i", "job"]));
        assert_eq!(get("/api/v1/label/i/values", &times), serde_json::json!(["0", "1", "2"]));
        assert_eq!(
            get("/api/v1/series", &[("match[]", "m{i=\"2\"}"), times[0], times[1]]),
            serde_json::json!([{"__name__": "m", "i": "2", "job": "ünï"}])
        );
        let answer = get("/api/v1/query", &[("query", "count(m)"), ("time", start)]);
        assert_eq!(answer["result"][0]["value"], serde_json::json!([1_700_000_000, "3"]));
        assert!(get("/api/v1/status/buildinfo", &[])["version"].is_string());
    }
    let form = [("query", "count(m)"), ("start", start), ("end", start), ("step", "15")];
    assert_eq!(client.post_form("/api/v1/query_range", &form).unwrap().status, 200);
}

fn every_alias_takes_requests(store: &Store) {
    let node = node_on(store);
    let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    for (i, path) in ["/api/v1/write", "/api/v1/push", "/prometheus/api/v1/write"].iter().enumerate() {
        let series = Series::floats(&labels("m", &[("path", path)]), &[(T, i as f64)]);
        let response = node.client().post(path, &headers, &compress_snappy(&write_request(&[series]))).unwrap();
        assert_eq!(response.status / 100, 2, "{path}: {}", response.text());
    }
    assert_eq!(read(node.client(), "m").len(), 3);
}

fn every_encoding_is_read(store: &Store) {
    let node = node_on(store);
    let message = |name: &str| write_request(&[Series::floats(&labels(name, &[]), &[(T, 1.0)])]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&message("m_gzip")).unwrap();
    let bodies = [
        ("snappy", compress_snappy(&message("m_snappy"))),
        ("zstd", zstd::encode_all(message("m_zstd").as_slice(), 1).unwrap()),
        ("gzip", gzip.finish().unwrap()),
    ];
    for (encoding, body) in bodies {
        let response = node.client().push_body(&body, encoding).unwrap();
        assert_eq!(response.status / 100, 2, "{encoding}: {}", response.text());
        assert_eq!(read(node.client(), &format!("m_{encoding}")).len(), 1);
    }
}

fn the_valid_part_of_a_partly_bad_request_is_read_back(store: &Store) {
    let node = node_on(store);
    let good = some_series();
    let mut builder = WriteRequestBuilder::new();
    let pairs = |pairs: &'static [(&str, &str)]| pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    for series in &good {
        builder.series(&series.labels, &series.floats);
        builder.series_of(pairs(&[("job", "without a name")]), &[(T, 1.0)], &[]);
        builder.series_of(pairs(&[("__name__", "twice"), ("a", "1"), ("a", "2")]), &[(T, 1.0)], &[]);
        builder.series_of(pairs(&[("__name__", "empty"), ("", "1")]), &[(T, 1.0)], &[]);
        builder.series_of(pairs(&[("__name__", "before_1970")]), &[(-1, 1.0)], &[]);
    }
    let response = node.client().push_bytes(&builder.finish()).unwrap();
    assert_eq!(response.status, 400, "{}", response.text());
    assert!(response.text().contains('3'), "the message has no count: {}", response.text());
    assert_eq!(read(node.client(), r#"{__name__=~".+"}"#), expected(&good));
    for bad in ["{job=\"without a name\"}", "twice", "empty", "before_1970"] {
        assert_eq!(read(node.client(), bad), [], "{bad}");
    }
}

fn bad_bodies_are_refused_with_a_message(store: &Store) {
    let node = node_on(store);
    let client = node.client();
    let message = write_request(&some_series());
    let good = compress_snappy(&message);
    let plain = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    let version_2 = [
        ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("Content-Encoding", "snappy"),
    ];
    let text = [("Content-Type", "text/plain"), ("Content-Encoding", "snappy")];
    let unknown = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "br")];
    let cases = [
        ("nothing", plain, vec![], 400),
        ("no snappy", plain, vec![0xff; 8], 400),
        ("half of it", plain, good[..good.len() / 2].to_vec(), 400),
        ("no protobuf", plain, compress_snappy(b"\x0a\xff\xff\xff\x7f"), 400),
        ("half a message", plain, compress_snappy(&message[..message.len() - 3]), 400),
        ("version 2", version_2, good.clone(), 415),
        ("another type", text, good.clone(), 415),
        ("another encoding", unknown, good.clone(), 415),
    ];
    for (what, headers, body, status) in cases {
        let response = client.post("/api/v1/write", &headers, &body).unwrap();
        assert_eq!(response.status, status, "{what}: {}", response.text());
        assert!(!response.text().trim().is_empty(), "{what}: no message");
    }
    assert_eq!(client.get("/api/v1/write", &[]).unwrap().status, 405);
    assert_eq!(read(client, r#"{__name__=~".+"}"#), []);
}

fn bombs_are_refused_and_memory_stays_flat(store: &Store) {
    let mut node = node_on(store);
    let client = node.client().clone();
    client.push_ok(&some_series()).unwrap();
    let zeros = vec![0; BODY_MAX * 8];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&zeros).unwrap();
    // Says that it is 4 GiB, in eleven bytes.
    let liar = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], b"bombs"].concat();
    let bombs = [
        ("snappy", compress_snappy(&zeros)),
        ("snappy", liar),
        ("zstd", zstd::encode_all(zeros.as_slice(), 1).unwrap()),
        ("gzip", gzip.finish().unwrap()),
        ("snappy", vec![0; BODY_MAX + 1]),
    ];
    drop(zeros);
    let (before, resting) = (node.process().peak_bytes(), node.process().resident_bytes());
    for round in 0..5 {
        for (i, (encoding, body)) in bombs.iter().enumerate() {
            // A server that has refused may close before it has read all: then there is no answer to look at.
            let Ok(response) = client.push_body(body, encoding) else { continue };
            assert!(
                matches!(response.status, 400 | 413),
                "round {round}, bomb {i} ({encoding}): {} {}",
                response.status,
                response.text()
            );
        }
    }
    let after = node.process().peak_bytes();
    assert!(after < before + BOMB_BYTES_MAX, "peak memory went from {before} to {after} bytes");
    let is_flat = |bytes: u64| (bytes < resting + REST_BYTES_MAX).then_some(());
    tests::wait_for("resident memory falls back", || is_flat(node.process().resident_bytes()));
    assert_eq!(read(&client, "m").len(), 3);
}

fn out_of_order_and_repeated_samples_merge(store: &Store) {
    let node = node_on(store);
    let client = node.client();
    let m = labels("m", &[]);
    let push = |floats: &[(TimestampMs, f64)]| client.push_ok(&[Series::floats(&m, floats)]).unwrap();
    push(&[(T + 3_000, 3.0), (T + 1_000, 1.0)]);
    push(&[(T + 2_000, 2.0)]);
    push(&[(T + 3_000, 3.0), (T, 0.0)]);
    // Of two values at one time the greater stays, in either order.
    push(&[(T + 1_000, 7.0)]);
    push(&[(T + 2_000, -5.0)]);
    let merged = floats(&[(T, 0.0), (T + 1_000, 7.0), (T + 2_000, 2.0), (T + 3_000, 3.0)]);
    assert_eq!(read(client, "m"), [(m, merged)]);
}

fn tenants_see_their_own(store: &Store) {
    let mut node = node_on(store);
    let m = labels("m", &[]);
    for restarted in [false, true] {
        if !restarted {
            node.client().push_ok(&[Series::floats(&m, &[(T, 0.0)])]).unwrap();
            node.client().tenant("a").push_ok(&[Series::floats(&m, &[(T, 1.0)])]).unwrap();
            node.client().tenant("b.c").push_ok(&[Series::floats(&m, &[(T, 2.0)])]).unwrap();
        } else {
            assert!(node.terminate().unwrap().success());
            node.start_again().unwrap();
        }
        let client = node.client();
        assert_eq!(read(client, "m"), [(m.clone(), floats(&[(T, 0.0)]))]);
        assert_eq!(read(&client.tenant("anonymous"), "m"), [(m.clone(), floats(&[(T, 0.0)]))]);
        assert_eq!(read(&client.tenant("a"), "m"), [(m.clone(), floats(&[(T, 1.0)]))]);
        assert_eq!(read(&client.tenant("b.c"), "m"), [(m.clone(), floats(&[(T, 2.0)]))]);
        assert_eq!(read(&client.tenant("d"), "m"), []);
    }
    for name in ["..", "a/b", "a b", &"x".repeat(151)] {
        assert_eq!(node.client().tenant(name).push(&some_series()).unwrap().status, 400, "{name:?}");
        let parameters = [("query", "m")];
        assert_eq!(node.client().tenant(name).get("/api/v1/query", &parameters).unwrap().status, 400, "{name:?}");
    }
}

fn a_stale_marker_ends_a_series(store: &Store) {
    let node = node_on(store);
    let m = labels("m", &[]);
    node.client().push_ok(&[Series::floats(&m, &[(T, 1.0), (T + 15_000, stale_marker())])]).unwrap();
    let at = |t| {
        let Data::Vector(vector) = node.client().instant("m", t).unwrap().unwrap().data else { panic!() };
        vector
    };
    assert_eq!(at(T + 14_999), [(m.clone(), Value::Float(1.0))]);
    assert_eq!(at(T + 15_000), []);
    assert_eq!(read(node.client(), "m"), [(m, floats(&[(T, 1.0)]))]);
}

fn an_ordinary_nan_is_no_stale_marker(store: &Store) {
    let node = node_on(store);
    node.client().push_ok(&[Series::floats(&labels("m", &[]), &[(T, f64::NAN)])]).unwrap();
    let [(_, samples)] = &read(node.client(), "m")[..] else { panic!() };
    assert!(samples.floats[0].is_nan());
}

fn native_histogram() -> Histogram {
    Histogram {
        schema: 1,
        zero_threshold: 0.001,
        sum: 18.5,
        positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 1 }],
        negative_spans: vec![Span { offset: -1, length: 1 }],
        counts: Counts::Integer { count: 9, zero: 2, positive: vec![1, 1, 1], negative: vec![1] },
        ..Histogram::default()
    }
}

fn native_histograms_are_read_back(store: &Store) {
    let mut node = node_on(store);
    let integer = native_histogram();
    let float = Histogram {
        counts: Counts::Float { count: 9.5, zero: 2.5, positive: vec![1.0, 2.0, 3.0], negative: vec![1.0] },
        ..integer.clone()
    };
    let custom = Histogram {
        schema: model::CUSTOM_BUCKETS_SCHEMA,
        zero_threshold: 0.0,
        sum: 7.0,
        negative_spans: vec![],
        positive_spans: vec![Span { offset: 0, length: 3 }],
        custom_bounds: vec![0.5, 1.0],
        counts: Counts::Integer { count: 6, zero: 0, positive: vec![1, 1, 1], negative: vec![] },
        ..integer.clone()
    };
    let all = [("integer", integer), ("float", float), ("custom", custom)];
    let push: Vec<Series> = all
        .iter()
        .map(|(kind, h)| Series {
            labels: labels("h", &[("kind", kind)]),
            floats: vec![],
            histograms: vec![(T, h.clone()), (T + 15_000, h.clone())],
        })
        .collect();
    node.client().push_ok(&push).unwrap();
    let ask = |node: &Node, kind: &str| {
        let query = format!("h{{kind=\"{kind}\"}}");
        let data = node.client().data("/api/v1/query", &[("query", &query), ("time", "1700000015")]).unwrap();
        data["result"][0]["histogram"][1].clone()
    };
    let shown: Vec<_> = all.iter().map(|(kind, _)| ask(&node, kind)).collect();
    assert_eq!((shown[0]["count"].as_str(), shown[0]["sum"].as_str()), (Some("9"), Some("18.5")), "{}", shown[0]);
    assert_eq!(shown[0]["buckets"].as_array().map(Vec::len), Some(5), "{}", shown[0]);
    assert_eq!(shown[1]["count"], "9.5", "{}", shown[1]);
    assert_eq!(
        shown[2]["buckets"],
        serde_json::json!([[3, "-Inf", "0.5", "1"], [0, "0.5", "1", "2"], [0, "1", "+Inf", "3"]]),
    );
    assert!(node.terminate().unwrap().success());
    node.start_again().unwrap();
    let from_block: Vec<_> = all.iter().map(|(kind, _)| ask(&node, kind)).collect();
    assert_eq!(shown, from_block);
}

fn metadata_is_kept_per_metric(store: &Store) {
    let mut node = node_on(store);
    let mut builder = WriteRequestBuilder::new();
    builder.series(&labels("m_total", &[]), &[(T, 1.0)]);
    builder.metadata(model::MetricKind::Gauge, "m_total", "", "before");
    node.client().push_bytes(&builder.finish()).unwrap();
    builder.metadata(model::MetricKind::Counter, "m_total", "bytes", "What it counts.");
    assert_eq!(node.client().push_bytes(&builder.finish()).unwrap().status / 100, 2);
    let expected = serde_json::json!({"m_total": [{"type": "counter", "unit": "bytes", "help": "What it counts."}]});
    assert_eq!(node.client().data("/api/v1/metadata", &[]).unwrap(), expected);
    assert!(node.terminate().unwrap().success());
    node.start_again().unwrap();
    assert_eq!(node.client().data("/api/v1/metadata", &[]).unwrap(), expected);
}

fn a_restart_keeps_everything(store: &Store) {
    let mut node = node_on(store);
    let series = some_series();
    let late = Series::floats(&series[0].labels, &[(T + 7_000, 0.5), (T + 600_000, 2.5)]);
    node.client().push_ok(&series).unwrap();
    let mut all = expected(&series);
    assert_eq!(read(node.client(), "m"), all);

    node.kill().unwrap();
    node.start_again().unwrap();
    assert_eq!(read(node.client(), "m"), all);

    assert!(node.terminate().unwrap().success());
    node.start_again().unwrap();
    assert_eq!(read(node.client(), "m"), all);

    // Late samples lie in another block than those before and after them.
    node.client().push_ok(std::slice::from_ref(&late)).unwrap();
    all[0].1.merge(floats(&late.floats));
    assert_eq!(read(node.client(), "m"), all);
    node.kill().unwrap();
    node.start_again().unwrap();
    assert_eq!(read(node.client(), "m"), all);
    assert!(node.terminate().unwrap().success());
    node.start_again().unwrap();
    assert_eq!(read(node.client(), "m"), all);
}

#[test]
fn a_second_process_on_the_same_data_stops_and_names_the_first() {
    let mut node = node();
    let mut second = settings().spawn(node.data()).unwrap();
    assert!(!second.wait().unwrap().success());
    let pid = node.process().pid().to_string();
    // The reader of its output may be a moment behind its end.
    tests::wait_for("the second process names the first", || second.output().contains(&pid).then_some(()));
    node.client().push_ok(&some_series()).unwrap();
}
