//! An HTTP client of Bellrock's and Prometheus's APIs, and the sender of remote-write requests.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use model::{Histogram, Labels, LabelsBuilder, METRIC_NAME, TimestampMs};
use proto::{WriteRequestBuilder, compress_snappy};
use serde_json::Value as Json;

use crate::answer;
use crate::promqltest::{Answer, Steps};

/// How long a request may take. Longer than a query may (2 min) would hide a hang.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(100);

/// Asks one server, as one tenant.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    tenant: Option<String>,
}

/// A response, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// One series of a remote-write request.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its labels, the metric's name among them.
    pub labels: Labels,
    /// Floats.
    pub floats: Vec<(TimestampMs, f64)>,
    /// Native histograms.
    pub histograms: Vec<(TimestampMs, Histogram)>,
}

impl Series {
    /// A series of floats.
    pub fn floats(labels: &Labels, floats: &[(TimestampMs, f64)]) -> Series {
        Series { labels: labels.clone(), floats: floats.to_vec(), histograms: vec![] }
    }
}

/// A label set from its metric's name and other pairs.
pub fn labels(name: &str, pairs: &[(&str, &str)]) -> Labels {
    let mut builder = LabelsBuilder::default();
    builder.set(METRIC_NAME, name);
    for (name, value) in pairs {
        builder.set(name, value);
    }
    builder.build()
}

/// The protobuf bytes of a remote-write 1.0 request.
pub fn write_request(series: &[Series]) -> Vec<u8> {
    let mut builder = WriteRequestBuilder::new();
    for one in series {
        let pairs = one.labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        builder.series_of(pairs, &one.floats, &one.histograms);
    }
    builder.finish()
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:9009`.
    pub fn new(base: &str) -> Client {
        Client::with_timeout(base, REQUEST_TIMEOUT)
    }

    /// The same, whose requests may take so long.
    pub fn with_timeout(base: &str, timeout: Duration) -> Client {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // A server may close a connection once it has refused a request without reading it: a connection each.
            .max_idle_connections(0)
            .build();
        Client { agent: config.into(), base: base.trim_end_matches('/').to_owned(), tenant: None }
    }

    /// The same for another tenant.
    pub fn tenant(&self, tenant: &str) -> Client {
        Client { tenant: Some(tenant.to_owned()), ..self.clone() }
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET with parameters.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Response> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        receive(request.call()).with_context(|| format!("GET {}{path}", self.base))
    }

    /// POST of a body with headers.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        receive(request.send(body)).with_context(|| format!("POST {}{path}", self.base))
    }

    /// POST of parameters as a form.
    pub fn post_form(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Response> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        receive(request.send_form(parameters.iter().copied())).with_context(|| format!("POST {}{path}", self.base))
    }

    /// Sends series by remote-write 1.0 and gives the answer, whatever it is.
    pub fn push(&self, series: &[Series]) -> Result<Response> {
        self.push_bytes(&write_request(series))
    }

    /// Sends the bytes of a request, to be compressed here.
    pub fn push_bytes(&self, message: &[u8]) -> Result<Response> {
        self.push_body(&compress_snappy(message), "snappy")
    }

    /// Sends a body as it is.
    pub fn push_body(&self, body: &[u8], encoding: &str) -> Result<Response> {
        let headers = [
            ("Content-Type", "application/x-protobuf"),
            ("Content-Encoding", encoding),
            ("X-Prometheus-Remote-Write-Version", "0.1.0"),
        ];
        self.post("/api/v1/write", &headers, body)
    }

    /// Sends series and expects them to be acked.
    pub fn push_ok(&self, series: &[Series]) -> Result<()> {
        let response = self.push(series)?;
        if response.status / 100 != 2 {
            bail!("the push was answered {}: {}", response.status, response.text());
        }
        Ok(())
    }

    /// An instant query; the inner error is the query's.
    pub fn instant(&self, expr: &str, at: TimestampMs) -> Result<Result<Answer, String>> {
        let at = seconds(at);
        answer::read(&self.post_form("/api/v1/query", &[("query", expr), ("time", &at)])?)
    }

    /// A range query; the inner error is the query's.
    pub fn range(&self, expr: &str, steps: Steps) -> Result<Result<Answer, String>> {
        let (start, end, step) = (seconds(steps.start), seconds(steps.end), seconds(steps.step));
        let parameters = [("query", expr), ("start", &start), ("end", &end), ("step", &step)];
        answer::read(&self.post_form("/api/v1/query_range", &parameters)?)
    }

    /// The `data` of a successful GET.
    pub fn data(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Json> {
        let response = self.get(path, parameters)?;
        if response.status != 200 {
            bail!("{path} was answered {}: {}", response.status, response.text());
        }
        let mut json: Json = serde_json::from_slice(&response.body)?;
        Ok(json["data"].take())
    }

    /// The sum of all series of one of the server's own metrics, as `/metrics` shows it; `None` if there is none.
    pub fn metric(&self, name: &str) -> Result<Option<f64>> {
        let page = self.get("/metrics", &[])?.text();
        let mut sum = None;
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some(rest) = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' '])) else { continue };
            let v: f64 = rest.rsplit(' ').next().unwrap_or_default().parse().with_context(|| line.to_owned())?;
            sum = Some(sum.unwrap_or(0.0) + v);
        }
        Ok(sum)
    }
}

/// Milliseconds as the API takes them: decimal seconds.
pub fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000)
}

fn receive(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Response> {
    let response = result?;
    let status = response.status().as_u16();
    let header = |(name, value): (&ureq::http::HeaderName, &ureq::http::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers = response.headers().iter().map(header).collect();
    let body = response.into_body().into_with_config().limit(1 << 30).read_to_vec()?;
    Ok(Response { status, headers, body })
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_decimal_seconds() {
        for (ms, text) in [(0, "0.000"), (1_500, "1.500"), (-59_999, "-59.999"), (-1, "-0.001")] {
            assert_eq!(super::seconds(ms), text);
        }
    }
}
