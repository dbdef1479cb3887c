//! The face over fakes: every status code, and Prometheus's JSON to the byte.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use model::{
    Labels, Lease, Matcher, Metadata, MetricKind, NodeId, Revision, Sample, TenantId, TimeRange, TimestampMs, Value,
    WriterId,
};
use parking_lot::Mutex;
use proto::{WriteRequest, WriteRequestBuilder, compress_snappy};
use runtime::{ManualClock, Random, Registry, Shutdown, Stage, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use crate::*;
use promql::{QueryResult, ResultSample, ResultSeries};

const NOW: TimestampMs = 1_700_000_000_500;

/// Answers with what it is given, and notes what it was asked.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<String>>,
    append_error: Mutex<Option<ServiceError>>,
    durable_error: Mutex<Option<ServiceError>>,
    query: Mutex<Option<Result<Answer, ServiceError>>>,
    health: Mutex<HealthReport>,
    cluster: Mutex<Option<ClusterReport>>,
}

impl Fake {
    fn note(&self, text: String) {
        self.asked.lock().push(text);
    }

    fn result(&self) -> Result<Answer, ServiceError> {
        let empty = Answer { result: QueryResult::Vector(vec![]), warnings: vec![], infos: vec![] };
        self.query.lock().take().unwrap_or(Ok(empty))
    }
}

impl Ingest for Fake {
    fn append(&self, tenant: &TenantId, request: &WriteRequest<'_>) -> Result<Durable, ServiceError> {
        self.note(format!("{tenant} {}", request.samples.len()));
        if let Some(error) = self.append_error.lock().take() {
            return Err(error);
        }
        let result = self.durable_error.lock().take().map_or(Ok(()), Err);
        Ok(futures::future::ready(result).boxed())
    }
}

fn shown(selectors: &[Vec<Matcher>]) -> String {
    let selector = |matchers: &Vec<Matcher>| matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    selectors.iter().map(selector).collect::<Vec<_>>().join(" | ")
}

impl Queries for Fake {
    fn instant<'a>(
        &'a self,
        tenant: &'a TenantId,
        text: &'a str,
        at: TimestampMs,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Answer, ServiceError>> {
        self.note(format!(
            "{tenant} {text} @{at} {:?} {:?} {}",
            options.timeout, options.lookback, options.partial_response
        ));
        futures::future::ready(self.result()).boxed()
    }

    fn range<'a>(
        &'a self,
        tenant: &'a TenantId,
        text: &'a str,
        steps: Steps,
        _: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Answer, ServiceError>> {
        self.note(format!("{tenant} {text} {} {} {}", steps.start, steps.end, steps.step));
        futures::future::ready(self.result()).boxed()
    }

    fn series<'a>(
        &'a self,
        _: &'a TenantId,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        _: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<Labels>, ServiceError>> {
        self.note(format!("{} {} {}", shown(selectors), range.start, range.end));
        let items = vec![labels(&[("__name__", "up"), ("job", "<a>")]), labels(&[("__name__", "up"), ("job", "b")])];
        futures::future::ready(Ok(Found { items, warnings: vec![] })).boxed()
    }

    fn label_names<'a>(
        &'a self,
        _: &'a TenantId,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        _: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<String>, ServiceError>> {
        self.note(format!("{} {} {}", shown(selectors), range.start, range.end));
        let items = vec!["__name__".to_owned(), "job".to_owned()];
        futures::future::ready(Ok(Found { items, warnings: vec!["part is missing".to_owned()] })).boxed()
    }

    fn label_values<'a>(
        &'a self,
        _: &'a TenantId,
        name: &'a str,
        selectors: &'a [Vec<Matcher>],
        _: TimeRange,
        _: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<String>, ServiceError>> {
        self.note(format!("{name} {}", shown(selectors)));
        let items = vec!["a".to_owned(), "b".to_owned()];
        futures::future::ready(Ok(Found { items, warnings: vec![] })).boxed()
    }

    fn metadata<'a>(
        &'a self,
        _: &'a TenantId,
        _: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<BTreeMap<String, Metadata>, ServiceError>> {
        let up = Metadata { kind: MetricKind::Gauge, unit: String::new(), help: "1 if it is \"up\"".to_owned() };
        let cpu = Metadata { kind: MetricKind::Counter, unit: "seconds".to_owned(), help: String::new() };
        let all = BTreeMap::from([("up".to_owned(), up), ("cpu_seconds_total".to_owned(), cpu)]);
        futures::future::ready(Ok(all)).boxed()
    }
}

impl Health for Fake {
    fn report(&self) -> HealthReport {
        self.health.lock().clone()
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn api_with(settings: Settings) -> (Api, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    let parts = Parts {
        ingest: fake.clone(),
        queries: fake.clone(),
        health: fake.clone(),
        cluster: fake.clone(),
        clock: Arc::new(ManualClock::new(NOW)),
        random: Random::from_seed(1),
        registry: Registry::new(),
        version: "0.1.0".to_owned(),
    };
    (Api::new(settings, parts), fake)
}

fn api() -> (Api, Arc<Fake>) {
    api_with(Settings::default())
}

async fn ask(api: &Api, request: Request<Body>) -> (StatusCode, Response<()>, String) {
    let (head, body) = api.router().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, Response::from_parts(head, ()), String::from_utf8(body.to_vec()).unwrap())
}

async fn get(api: &Api, uri: &str) -> (StatusCode, String) {
    let (status, _, body) = ask(api, Request::get(uri).body(Body::empty()).unwrap()).await;
    (status, body)
}

#[track_caller]
fn check_error(answer: (StatusCode, String), status: u16, kind: &str, text: &str) {
    let json: serde_json::Value = serde_json::from_str(&answer.1).unwrap();
    assert_eq!((answer.0.as_u16(), json["errorType"].as_str()), (status, Some(kind)), "{}", answer.1);
    assert_eq!(json["status"], "error");
    assert!(json["error"].as_str().unwrap().contains(text), "{}", answer.1);
}

// ---- writes

fn body() -> Vec<u8> {
    WriteRequestBuilder::new().series(&labels(&[("__name__", "up")]), &[(NOW, 1.0), (NOW + 1, 2.0)]).finish()
}

fn write_request(body: impl Into<Body>, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post("/api/v1/write");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

async fn check_write(api: &Api, request: Request<Body>, status: u16, text: &str) {
    let (got, response, body) = ask(api, request).await;
    assert_eq!(got.as_u16(), status, "{body}");
    assert!(body.contains(text), "{body}");
    assert_eq!(body.is_empty(), status == 204, "a refusal says why");
    assert_eq!(response.headers().contains_key("retry-after"), matches!(status, 503 | 429));
}

#[tokio::test]
async fn writes_in_every_encoding_and_under_every_name_are_taken() {
    let (api, fake) = api();
    check_write(&api, write_request(compress_snappy(&body()), &[]), 204, "").await;
    let zstd = zstd::bulk::compress(&body(), 1).unwrap();
    check_write(&api, write_request(zstd, &[("content-encoding", "zstd"), ("x-scope-orgid", "team-a")]), 204, "").await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&body()).unwrap();
    check_write(&api, write_request(gzip.finish().unwrap(), &[("content-encoding", "gzip")]), 204, "").await;
    for alias in ["/api/v1/push", "/prometheus/api/v1/write", "/prometheus/api/v1/push"] {
        let request = Request::post(alias).body(Body::from(compress_snappy(&body()))).unwrap();
        check_write(&api, request, 204, "").await;
    }
    // A message without anything is one.
    check_write(&api, write_request(compress_snappy(&[]), &[]), 204, "").await;
    let asked = fake.asked.lock().join(", ");
    assert_eq!(asked, "anonymous 2, team-a 2, anonymous 2, anonymous 2, anonymous 2, anonymous 2, anonymous 0");
}

#[tokio::test]
async fn bad_writes_are_refused_with_a_reason() {
    let (api, fake) = api();
    let snappy = || compress_snappy(&body());
    check_write(&api, write_request(snappy(), &[("content-type", "text/plain")]), 415, "Content-Type").await;
    let two = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    check_write(&api, write_request(snappy(), &[("content-type", two)]), 415, "2.0 is not taken yet").await;
    check_write(&api, write_request(snappy(), &[("content-encoding", "br")]), 415, "Content-Encoding").await;
    check_write(&api, write_request(snappy(), &[("x-scope-orgid", "a/b")]), 400, "bad-tenant").await;
    check_write(&api, write_request(Body::empty(), &[]), 400, "empty").await;
    check_write(&api, write_request("garbage", &[]), 400, "snappy").await;
    check_write(&api, write_request(body(), &[]), 400, "snappy").await;
    check_write(&api, write_request(compress_snappy(b"\x08\x07"), &[]), 400, "wire type").await;
    let bomb: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    check_write(&api, write_request(bomb, &[]), 400, "4294967295 bytes, over the limit of 33554432").await;
    check_write(&api, write_request(vec![0; (32 << 20) + 1], &[]), 413, "request-bytes-max").await;
    assert!(fake.asked.lock().is_empty());
}

#[tokio::test]
async fn what_the_ingester_says_decides_the_status() {
    let (api, fake) = api();
    for (kind, status) in [
        (Kind::Invalid, 400),
        (Kind::Throttled, 429),
        (Kind::Unavailable, 503),
        (Kind::Timeout, 503),
        (Kind::Internal, 500),
    ] {
        *fake.append_error.lock() = Some(ServiceError::new(kind, "because"));
        check_write(&api, write_request(compress_snappy(&body()), &[]), status, "because\n").await;
        *fake.durable_error.lock() = Some(ServiceError::new(kind, "because"));
        check_write(&api, write_request(compress_snappy(&body()), &[]), status, "because\n").await;
    }
}

#[tokio::test]
async fn bodies_share_one_budget() {
    let (api, _) = api_with(Settings { bodies_bytes_max: 200, ..Settings::default() });
    check_write(&api, write_request(vec![0; 201], &[]), 503, "bodies-bytes-max").await;
    // The body fits, what it becomes does not.
    let zeros = compress_snappy(&[0; 1000]);
    assert!(zeros.len() < 100);
    check_write(&api, write_request(zeros, &[]), 503, "bodies-bytes-max").await;
    check_write(&api, write_request(compress_snappy(&body()), &[]), 204, "").await;
}

#[tokio::test]
async fn other_methods_and_paths_are_named() {
    let (api, _) = api();
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::PATCH] {
        let request = Request::builder().method(method.clone()).uri("/api/v1/write").body(Body::empty()).unwrap();
        let (status, response, _) = ask(&api, request).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(response.headers()["allow"], "POST");
    }
    check_error(get(&api, "/api/v1/write/nope").await, 404, "not_found", "/api/v1/write/nope");
    check_error(get(&api, "/nope").await, 404, "not_found", "/nope");
}

// ---- queries

#[tokio::test]
async fn instant_queries_answer_in_prometheus_json() {
    let (api, fake) = api();
    let sample = |job: &str, v: Value| ResultSample { labels: labels(&[("__name__", "up"), ("job", job)]), t: NOW, v };
    let answer = Answer {
        result: QueryResult::Vector(vec![sample("<a>", Value::Float(1.0)), sample("b", Value::Float(f64::NAN))]),
        warnings: vec!["w <1>".to_owned()],
        infos: (0..12).map(|i| format!("i{i}")).collect(),
    };
    *fake.query.lock() = Some(Ok(answer));
    let (status, body) = get(&api, "/api/v1/query?query=up&time=1700000000.5").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        concat!(
            r#"{"status":"success","data":{"resultType":"vector","result":["#,
            r#"{"metric":{"__name__":"up","job":"<a>"},"value":[1700000000.500,"1"]},"#,
            r#"{"metric":{"__name__":"up","job":"b"},"value":[1700000000.500,"NaN"]}]},"#,
            r#""warnings":["w \u003c1\u003e"],"#,
            r#""infos":["i0","i1","i2","i3","i4","i5","i6","i7","i8","i9","2 more info annotations omitted"]}"#
        )
    );
    assert_eq!(fake.asked.lock().pop().unwrap(), "anonymous up @1700000000500 None None false");
}

#[tokio::test]
async fn each_type_of_result_is_written() {
    let (api, fake) = api();
    let series = |n: i64| ResultSeries {
        labels: labels(&[("n", &n.to_string())]),
        samples: [Sample::float(0, 1.0), Sample::float(60_000, 1.5)].into_iter().collect(),
    };
    for (result, expected) in [
        (
            QueryResult::Scalar { t: 1500, v: 1e21 },
            r#"{"resultType":"scalar","result":[1.5,"1000000000000000000000"]}"#,
        ),
        (QueryResult::String { t: 1000, v: "a<b".to_owned() }, r#"{"resultType":"string","result":[1,"a\u003cb"]}"#),
        (QueryResult::Vector(vec![]), r#"{"resultType":"vector","result":[]}"#),
        (QueryResult::Matrix(vec![]), r#"{"resultType":"matrix","result":[]}"#),
        (
            QueryResult::Matrix(vec![series(1), series(2)]),
            r#"{"resultType":"matrix","result":[{"metric":{"n":"1"},"values":[[0,"1"],[60,"1.5"]]},{"metric":{"n":"2"},"values":[[0,"1"],[60,"1.5"]]}]}"#,
        ),
    ] {
        *fake.query.lock() = Some(Ok(Answer { result, warnings: vec![], infos: vec![] }));
        let (_, body) = get(&api, "/prometheus/api/v1/query?query=x").await;
        assert_eq!(body, format!(r#"{{"status":"success","data":{expected}}}"#));
    }
}

#[tokio::test]
async fn large_answers_are_sent_in_pieces_and_whole() {
    let (api, fake) = api();
    let samples =
        (0..20_000).map(|i| ResultSample { labels: labels(&[("n", &i.to_string())]), t: i, v: Value::Float(i as f64) });
    *fake.query.lock() = Some(Ok(Answer {
        result: QueryResult::Vector(samples.collect()),
        warnings: vec!["w".to_owned()],
        infos: vec![],
    }));
    let (_, body) = get(&api, "/api/v1/query?query=x").await;
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    let result = json["data"]["result"].as_array().unwrap();
    assert_eq!(
        (result.len(), &result[19_999]["metric"]["n"], &json["warnings"][0]),
        (20_000, &"19999".into(), &"w".into())
    );
}

#[tokio::test]
async fn queries_are_taken_as_forms_too() {
    let (api, fake) = api();
    let form = "query=sum(up)&start=0&end=1h&step=15&timeout=5s";
    let post = |form: &'static str, query: &str| {
        Request::post(format!("/api/v1/query_range{query}"))
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .header("x-scope-orgid", "team-a")
            .body(Body::from(form))
            .unwrap()
    };
    let (status, _, body) = ask(&api, post(form, "")).await;
    check_error((status, body), 400, "bad_data", "invalid parameter \"end\": cannot parse \"1h\" to a valid timestamp");
    let (status, ..) = ask(&api, post("query=sum%28up%29&start=0&step=15", "?end=3600&query=other")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(fake.asked.lock().pop().unwrap(), "team-a sum(up) 0 3600000 15000");
    let large = Request::post("/api/v1/query")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(vec![b'a'; (10 << 20) + 1]))
        .unwrap();
    let (status, _, body) = ask(&api, large).await;
    check_error((status, body), 413, "bad_data", "limit");
}

#[tokio::test]
async fn parameters_are_checked() {
    let (api, fake) = api();
    let range = |rest: &str| format!("/api/v1/query_range?query=up&{rest}");
    for (uri, text) in [
        (
            "/api/v1/query?query=up&time=x".to_owned(),
            "invalid parameter \"time\": invalid time value for 'time': cannot parse \"x\"",
        ),
        (
            "/api/v1/query?query=up&timeout=x".to_owned(),
            "invalid parameter \"timeout\": cannot parse \"x\" to a valid duration",
        ),
        (
            "/api/v1/query?query=up&lookback_delta=x".to_owned(),
            "error parsing lookback delta duration: cannot parse \"x\"",
        ),
        ("/api/v1/query?query=up&limit=-1".to_owned(), "invalid parameter \"limit\": limit must be non-negative"),
        ("/api/v1/query?query=up&limit=x".to_owned(), "invalid parameter \"limit\": strconv.Atoi: parsing \"x\""),
        ("/api/v1/query?query=up&partial_response=x".to_owned(), "neither true nor false"),
        (range("end=1&step=1"), "invalid parameter \"start\": cannot parse \"\" to a valid timestamp"),
        (range("start=2&end=1&step=1"), "invalid parameter \"end\": end timestamp must not be before start time"),
        (
            range("start=1&end=2&step=0"),
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (range("start=1&end=2&step=0.0001"), "zero or negative query resolution"),
        (range("start=1&end=2&step=-1"), "zero or negative query resolution"),
        (
            range("start=0&end=11001&step=1"),
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        ("/api/v1/series".to_owned(), "no match[] parameter provided"),
        (
            "/api/v1/series?match[]=%7B%7D".to_owned(),
            "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher",
        ),
        ("/api/v1/series?match[]=up%7B".to_owned(), "invalid parameter \"match[]\": 1:"),
        ("/api/v1/labels?match[]=%7Ba%3D%22%22%7D".to_owned(), "match[] must contain at least one non-empty matcher"),
        ("/api/v1/labels?start=x".to_owned(), "invalid parameter \"start\": invalid time value for 'start'"),
        ("/api/v1/label/%ff/values".to_owned(), "invalid label name"),
        ("/api/v1/metadata?limit=x".to_owned(), "limit must be a number"),
    ] {
        check_error(get(&api, &uri).await, 400, "bad_data", text);
    }
    assert!(fake.asked.lock().is_empty());
    assert_eq!(get(&api, &range("start=0&end=11000&step=1")).await.0, StatusCode::OK);
    get(&api, "/api/v1/query?query=up&timeout=5s&lookback_delta=1m&partial_response=true&stats=all").await;
    assert_eq!(fake.asked.lock().pop().unwrap(), "anonymous up @1700000000500 Some(5s) Some(60s) true");
}

#[tokio::test]
async fn the_kind_of_an_error_decides_status_and_type() {
    let (api, fake) = api();
    for (kind, status, name) in [
        (Kind::Invalid, 400, "bad_data"),
        (Kind::Execution, 422, "execution"),
        (Kind::Timeout, 503, "timeout"),
        (Kind::Canceled, 499, "canceled"),
        (Kind::Unavailable, 503, "unavailable"),
        (Kind::Throttled, 429, "unavailable"),
        (Kind::Internal, 500, "internal"),
    ] {
        *fake.query.lock() = Some(Err(ServiceError::new(kind, "1:1: because")));
        check_error(get(&api, "/api/v1/query?query=x").await, status, name, "1:1: because");
    }
    *fake.query.lock() = Some(Err(ServiceError::new(Kind::Invalid, "1:1: parse error: x < y")));
    let expected = r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:1: parse error: x \u003c y"}"#;
    assert_eq!(get(&api, "/api/v1/query?query=x").await.1, expected);
}

#[tokio::test]
async fn labels_and_metadata_answer_in_prometheus_json() {
    let (api, fake) = api();
    for (uri, expected) in [
        (
            "/api/v1/series?match[]=up&match[]=%7Bjob%3D~%22a.*%22%7D&start=1&end=2.5",
            r#"{"status":"success","data":[{"__name__":"up","job":"<a>"},{"__name__":"up","job":"b"}]}"#,
        ),
        (
            "/api/v1/series?match[]=up&limit=1",
            r#"{"status":"success","data":[{"__name__":"up","job":"<a>"}],"warnings":["results truncated due to limit"]}"#,
        ),
        ("/api/v1/labels", r#"{"status":"success","data":["__name__","job"],"warnings":["part is missing"]}"#),
        ("/api/v1/label/job/values?match[]=up", r#"{"status":"success","data":["a","b"]}"#),
        (
            "/api/v1/label/U__http_2e_code/values?limit=1",
            r#"{"status":"success","data":["a"],"warnings":["results truncated due to limit"]}"#,
        ),
        (
            "/api/v1/metadata",
            r#"{"status":"success","data":{"cpu_seconds_total":[{"type":"counter","unit":"seconds","help":""}],"up":[{"type":"gauge","unit":"","help":"1 if it is \"up\""}]}}"#,
        ),
        ("/api/v1/metadata?metric=nope", r#"{"status":"success","data":{}}"#),
        (
            "/api/v1/metadata?limit=1&limit_per_metric=1",
            r#"{"status":"success","data":{"cpu_seconds_total":[{"type":"counter","unit":"seconds","help":""}]}}"#,
        ),
        (
            "/api/v1/status/buildinfo",
            r#"{"status":"success","data":{"version":"3.14.0","revision":"","branch":"","buildUser":"","buildDate":"","goVersion":"","bellrockVersion":"0.1.0"}}"#,
        ),
    ] {
        assert_eq!(get(&api, uri).await, (StatusCode::OK, expected.to_owned()), "{uri}");
    }
    let asked = fake.asked.lock();
    assert_eq!(asked[0], r#"__name__="up" | job=~"a.*" 1000 2500"#);
    assert_eq!(asked[1], format!(r#"__name__="up" {} {}"#, i64::MIN, i64::MAX));
    assert_eq!(asked[2], format!(" {} {}", i64::MIN, i64::MAX));
    assert_eq!((asked[3].as_str(), asked[4].as_str()), (r#"job __name__="up""#, "http.code "));
}

// ---- the node itself

impl ClusterStatus for Fake {
    fn report(&self) -> BoxFuture<'static, Result<ClusterReport, ServiceError>> {
        let report = self.cluster.lock().clone();
        let starting = ServiceError::new(Kind::Unavailable, "starting");
        futures::future::ready(report.ok_or(starting)).boxed()
    }
}

fn cluster_report() -> ClusterReport {
    let at = |position| Revision { incarnation: 1, position };
    let node = |id, name: &str, role, silent_ms: Option<u64>| NodeReport {
        id: NodeId(id),
        name: name.to_owned(),
        peer: format!("{name}:9010"),
        api: String::new(),
        role,
        is_alive: silent_ms == Some(0),
        silent: silent_ms.map(Duration::from_millis),
        applied: silent_ms.map(|_| at(7)),
        head_bytes: silent_ms,
    };
    ClusterReport {
        cluster: 0xc1,
        version: "0.1.0".to_owned(),
        answered_by: "a".to_owned(),
        degraded: vec!["node b is \"away\" (node-silent)".to_owned()],
        unknown: vec!["much".to_owned()],
        leader: Some((NodeId(1), 3)),
        applied: at(7),
        stored: None,
        nodes: vec![
            node(1, "a", Role::Leader, Some(0)),
            node(2, "b", Role::Voter, Some(4500)),
            node(3, "c", Role::None, None),
        ],
        writers: vec![WriterReport {
            id: WriterId(at(4)),
            node: NodeId(2),
            is_fenced: true,
            adopter: Some(NodeId(1)),
            added: 9,
            cut: 5,
            segment_bytes: 100,
            oldest: Some(1500),
        }],
        leases: vec![LeaseReport {
            right: Right::Adopt(WriterId(at(4))),
            number: Lease { incarnation: 1, number: 2 },
            holder: NodeId(1),
        }],
        durability: DurabilityReport { node_losses: 0, bucket: "s3://m".to_owned(), text: vec!["none".to_owned()] },
    }
}

#[tokio::test]
async fn the_cluster_is_shown_with_what_is_not_known() {
    let (api, fake) = api();
    let (status, text) = get(&api, "/api/v1/status/cluster").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");

    *fake.cluster.lock() = Some(cluster_report());
    let expected = concat!(
        r#"{"status":"success","data":{"cluster":"000000000000000000000000000000c1","version":"0.1.0","answeredBy":"a","#,
        r#""isHealthy":false,"degraded":["node b is \"away\" (node-silent)"],"leader":{"node":"0000000000000001","term":3},"#,
        r#""revision":{"applied":"1.7","stored":null},"nodes":["#,
        r#"{"id":"0000000000000001","role":"leader","name":"a","peer":"a:9010","api":"","isAlive":true,"silentSeconds":0,"#,
        r#""applied":"1.7","headBytes":0},"#,
        r#"{"id":"0000000000000002","role":"voter","name":"b","peer":"b:9010","api":"","isAlive":false,"silentSeconds":4.500,"#,
        r#""applied":"1.7","headBytes":4500},"#,
        r#"{"id":"0000000000000003","role":"none","name":"c","peer":"c:9010","api":"","isAlive":false,"silentSeconds":null,"#,
        r#""applied":null,"headBytes":null}],"#,
        r#""writers":[{"id":"1.4","node":"0000000000000002","stage":"fenced","adopter":"0000000000000001","added":9,"cut":5,"#,
        r#""segmentBytes":100,"oldestSample":1.500}],"#,
        r#""leases":[{"right":"adopt","writer":"1.4","number":"1.2","holder":"0000000000000001"}],"#,
        r#""durability":{"nodeLosses":0,"bucket":"s3://m","text":["none"]}},"warnings":["much"]}"#,
    );
    for uri in ["/api/v1/status/cluster", "/prometheus/api/v1/status/cluster"] {
        assert_eq!(get(&api, uri).await, (StatusCode::OK, expected.to_owned()));
    }
}

#[tokio::test]
async fn pages_say_how_the_node_is() {
    let (api, fake) = api();
    assert_eq!(get(&api, "/-/healthy").await, (StatusCode::OK, "Bellrock is healthy.\n".to_owned()));
    fake.health.lock().notices.push("segments 3 to 4 are put aside".to_owned());
    let expected = "Bellrock is ready.\n- segments 3 to 4 are put aside\n";
    assert_eq!(get(&api, "/-/ready").await, (StatusCode::OK, expected.to_owned()));
    fake.health.lock().not_ready.push("no space left on the disk".to_owned());
    let expected = "Bellrock is not ready:\n- no space left on the disk\n- segments 3 to 4 are put aside\n";
    assert_eq!(get(&api, "/-/ready").await, (StatusCode::SERVICE_UNAVAILABLE, expected.to_owned()));
    let request = Request::get("/").header("host", "metrics.example:9009").body(Body::empty()).unwrap();
    let (_, _, text) = ask(&api, request).await;
    assert!(text.contains("http://metrics.example:9009/api/v1/write"), "{text}");
}

#[tokio::test]
async fn requests_are_counted_by_route_and_code() {
    let (api, _) = api();
    get(&api, "/api/v1/query?query=up").await;
    get(&api, "/api/v1/label/a/values").await;
    get(&api, "/api/v1/label/b/values").await;
    get(&api, "/nope").await;
    get(&api, "/api/v1/write").await;
    let (_, text) = get(&api, "/metrics").await;
    for line in [
        r#"bellrock_api_requests_total{route="/api/v1/query",method="GET",code="200"} 1"#,
        r#"bellrock_api_requests_total{route="/api/v1/label/{name}/values",method="GET",code="200"} 2"#,
        r#"bellrock_api_requests_total{route="other",method="GET",code="404"} 1"#,
        r#"bellrock_api_requests_total{route="/api/v1/write",method="GET",code="405"} 1"#,
        r#"bellrock_api_request_duration_seconds_count{route="/api/v1/query"} 1"#,
        "bellrock_api_bodies_bytes 0",
        "bellrock_api_requests_running 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn several_listeners_serve_and_drain() {
    let (api, _) = api();
    let addresses = ["127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let mut listeners = Vec::new();
    for address in addresses {
        let address: std::net::SocketAddr = address;
        listeners.push(tokio::net::TcpListener::bind(address).await.unwrap());
    }
    let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let shutdown = Shutdown::new();
    let stopping = shutdown.clone();
    let server = api.clone();
    let serving =
        tokio::spawn(
            async move { serve(&server, listeners, async move { stopping.reached(Stage::Draining).await }).await },
        );
    for port in &ports {
        let mut stream = tokio::net::TcpStream::connect(port).await.unwrap();
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("Bellrock is healthy.\n"), "{text}");
    }
    // One request is under way when the shutdown begins: it is answered. An idle connection does not hold it up.
    let _idle = tokio::net::TcpStream::connect(&ports[0]).await.unwrap();
    let mut under_way = tokio::net::TcpStream::connect(&ports[1]).await.unwrap();
    let body = compress_snappy(&body());
    let head = format!("POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    under_way.write_all(head.as_bytes()).await.unwrap();
    while !running(&api).await {
        tokio::task::yield_now().await;
    }
    shutdown.advance(Stage::Draining);
    under_way.write_all(&body).await.unwrap();
    let mut text = String::new();
    under_way.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 204"), "{text}");
    runtime::timeout(&SystemClock, Duration::from_secs(10), serving).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(&ports[0]).await.is_err());
}

/// Whether a request besides this one is being worked on.
async fn running(api: &Api) -> bool {
    get(api, "/metrics").await.1.contains("bellrock_api_requests_running 2")
}
