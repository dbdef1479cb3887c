//! Pages about the node itself: health, metrics, build, and what runs here.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use runtime::metrics::CONTENT_TYPE;

use crate::json::put_string;
use crate::response::success;
use crate::router::Shared;

/// The Prometheus release whose API is met; Grafana switches features by it.
const PROMETHEUS_VERSION: &str = "3.14.0";

const TEXT: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];

/// `/-/healthy`: the process answers.
pub(crate) async fn healthy() -> Response {
    (TEXT, "Bellrock is healthy.\n").into_response()
}

/// `/-/ready`: 503 with every reason why it can't do its work; else 200, with what an operator should know.
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let report = shared.health.report();
    let is_ready = report.not_ready.is_empty();
    let mut text = String::from(if is_ready { "Bellrock is ready.\n" } else { "Bellrock is not ready:\n" });
    for reason in report.not_ready.iter().chain(&report.notices) {
        text.push_str("- ");
        text.push_str(reason);
        text.push('\n');
    }
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, TEXT, text).into_response()
}

/// `/metrics`
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], shared.registry.encode()).into_response()
}

/// `/api/v1/status/buildinfo`
pub(crate) async fn buildinfo(State(shared): State<Arc<Shared>>) -> Response {
    success(&[], |out| {
        out.extend_from_slice(b"{\"version\":");
        put_string(out, PROMETHEUS_VERSION, true);
        out.extend_from_slice(
            b",\"revision\":\"\",\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\",\"goVersion\":\"\"",
        );
        out.extend_from_slice(b",\"bellrockVersion\":");
        put_string(out, &shared.version, true);
        out.push(b'}');
    })
}

/// `/`: what runs here, and what to paste where.
pub(crate) async fn front(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    // The name that the reader came by is the one that others may use.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(|host| is_host(host));
    let host = host.unwrap_or("HOST:PORT");
    let version = &shared.version;
    let text = format!(
        "Bellrock {version}, a metrics store for Prometheus.\n\n\
         Send to it:     remote_write: [{{url: http://{host}/api/v1/write}}]\n\
         Query it:       a Grafana data source of type Prometheus, URL http://{host}\n\
         Tenant:         header X-Scope-OrgID (without it: anonymous)\n\
         Is it well?     http://{host}/-/ready, and all nodes: http://{host}/api/v1/status/cluster\n\
         Its metrics:    http://{host}/metrics\n"
    );
    (TEXT, text).into_response()
}

fn is_host(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
}
