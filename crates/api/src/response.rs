//! Prometheus's answers: the envelope around data and errors, and results that are written as they are sent.

use std::convert::Infallible;
use std::vec;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use model::Labels;
use promql::{QueryResult, ResultSample, ResultSeries};

use crate::body::BodyError;
use crate::budget::ByteBudget;
use crate::json::{put_labels, put_sample, put_samples, put_scalar, put_short_time, put_string, put_strings};
use crate::services::{Answer, Kind, ServiceError};

/// Results are written and sent in pieces of about this many bytes, so that no answer lies in memory twice.
const CHUNK_BYTES: usize = 64 << 10;

/// Warnings, and likewise infos, that an answer spells out; as Prometheus.
const ANNOTATIONS_MAX: usize = 10;

/// An error in Prometheus's words: `errorType` decides the status, unless the transport has one of its own.
#[derive(Debug)]
pub(crate) struct ApiError {
    kind: ErrorType,
    status: StatusCode,
    message: String,
}

/// `errorType`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorType {
    BadData,
    Execution,
    Timeout,
    Canceled,
    Internal,
    NotFound,
    Unavailable,
}

impl ErrorType {
    fn as_str(self) -> &'static str {
        match self {
            ErrorType::BadData => "bad_data",
            ErrorType::Execution => "execution",
            ErrorType::Timeout => "timeout",
            ErrorType::Canceled => "canceled",
            ErrorType::Internal => "internal",
            ErrorType::NotFound => "not_found",
            ErrorType::Unavailable => "unavailable",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            ErrorType::BadData => StatusCode::BAD_REQUEST,
            ErrorType::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorType::Timeout | ErrorType::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            // nginx's "client closed request", as in Prometheus.
            ErrorType::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            ErrorType::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorType::NotFound => StatusCode::NOT_FOUND,
        }
    }
}

impl ApiError {
    pub(crate) fn new(kind: ErrorType, message: impl Into<String>) -> ApiError {
        ApiError { kind, status: kind.status(), message: message.into() }
    }

    /// A parameter that can't be used.
    pub(crate) fn parameter(name: &str, why: impl std::fmt::Display) -> ApiError {
        ApiError::new(ErrorType::BadData, format!("invalid parameter \"{name}\": {why}"))
    }

    /// A request with another status than its kind of error has.
    pub(crate) fn with_status(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { kind: ErrorType::BadData, status, message: message.into() }
    }

    /// A form that can't be read.
    pub(crate) fn from_body(error: BodyError, bytes_max: usize, bodies: &ByteBudget) -> ApiError {
        let (status, message) = crate::write::describe_body_error(error, bytes_max, bodies);
        match status {
            StatusCode::SERVICE_UNAVAILABLE => ApiError::new(ErrorType::Unavailable, message),
            status => ApiError::with_status(status, message),
        }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> ApiError {
        let kind = match error.kind {
            Kind::Invalid => ErrorType::BadData,
            Kind::Execution => ErrorType::Execution,
            Kind::Timeout => ErrorType::Timeout,
            Kind::Canceled => ErrorType::Canceled,
            Kind::Throttled | Kind::Unavailable => ErrorType::Unavailable,
            Kind::Internal => ErrorType::Internal,
        };
        let mut answer = ApiError::new(kind, error.message);
        if error.kind == Kind::Throttled {
            answer.status = StatusCode::TOO_MANY_REQUESTS;
        }
        answer
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut out = Vec::new();
        out.extend_from_slice(b"{\"status\":\"error\",\"errorType\":");
        put_string(&mut out, self.kind.as_str(), true);
        out.extend_from_slice(b",\"error\":");
        put_string(&mut out, &self.message, true);
        out.push(b'}');
        json(self.status, Body::from(out))
    }
}

/// An answer whose data `put` writes.
pub(crate) fn success(warnings: &[String], put: impl FnOnce(&mut Vec<u8>)) -> Response {
    let mut out = b"{\"status\":\"success\",\"data\":".to_vec();
    put(&mut out);
    put_tail(&mut out, warnings, &[]);
    json(StatusCode::OK, Body::from(out))
}

/// The answer to a query: whole if it is short, else in pieces.
pub(crate) fn success_of_query(answer: Answer) -> Response {
    let mut chunks = Chunks::new(answer);
    let first = chunks.next().unwrap_or_default();
    let body = match chunks.tail {
        None => Body::from(first),
        Some(_) => {
            let all = std::iter::once(first).chain(chunks);
            Body::from_stream(stream::iter(all.map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk)))))
        }
    };
    json(StatusCode::OK, body)
}

fn json(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Writes what follows the data.
fn put_tail(out: &mut Vec<u8>, warnings: &[String], infos: &[String]) {
    for (key, noun, texts) in [("warnings", "warning", warnings), ("infos", "info", infos)] {
        if texts.is_empty() {
            continue;
        }
        out.extend_from_slice(format!(",\"{key}\":").as_bytes());
        let omitted = texts.len().saturating_sub(ANNOTATIONS_MAX);
        let omitted = (omitted > 0).then(|| format!("{omitted} more {noun} annotations omitted"));
        let shown = texts.iter().take(ANNOTATIONS_MAX).chain(&omitted);
        put_strings(out, shown.map(String::as_str));
    }
    out.push(b'}');
}

/// A query's answer as pieces of JSON; items are let go of as they are written.
struct Chunks {
    head: Vec<u8>,
    items: Items,
    is_first_item: bool,
    /// `None` once it is written.
    tail: Option<Vec<u8>>,
}

enum Items {
    None,
    Vector(vec::IntoIter<ResultSample>),
    Matrix(vec::IntoIter<ResultSeries>),
}

impl Chunks {
    fn new(answer: Answer) -> Chunks {
        let mut head = b"{\"status\":\"success\",\"data\":{\"resultType\":".to_vec();
        let mut put_head = |kind: &str| {
            put_string(&mut head, kind, true);
            head.extend_from_slice(b",\"result\":[");
        };
        let items = match answer.result {
            QueryResult::Vector(samples) => {
                put_head("vector");
                Items::Vector(samples.into_iter())
            }
            QueryResult::Matrix(series) => {
                put_head("matrix");
                Items::Matrix(series.into_iter())
            }
            QueryResult::Scalar { t, v } => {
                put_head("scalar");
                put_scalar(&mut head, t, v);
                Items::None
            }
            QueryResult::String { t, v } => {
                put_head("string");
                put_short_time(&mut head, t);
                put_string(&mut head, &v, true);
                Items::None
            }
        };
        let mut tail = b"]}".to_vec();
        put_tail(&mut tail, &answer.warnings, &answer.infos);
        Chunks { head, items, is_first_item: true, tail: Some(tail) }
    }

    /// Writes the next item; `false` if there is none.
    fn put_item(&mut self, out: &mut Vec<u8>) -> bool {
        let comma = if self.is_first_item { "" } else { "," };
        match &mut self.items {
            Items::None => return false,
            Items::Vector(samples) => {
                let Some(sample) = samples.next() else { return false };
                put_metric(out, comma, &sample.labels);
                out.push(b',');
                put_sample(out, sample.t, &sample.v);
            }
            Items::Matrix(all) => {
                let Some(series) = all.next() else { return false };
                put_metric(out, comma, &series.labels);
                put_samples(out, &series.samples);
            }
        }
        out.push(b'}');
        self.is_first_item = false;
        true
    }
}

impl Iterator for Chunks {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        self.tail.as_ref()?;
        let mut out = std::mem::take(&mut self.head);
        while out.len() < CHUNK_BYTES {
            if !self.put_item(&mut out) {
                out.append(&mut self.tail.take()?);
                break;
            }
        }
        Some(out)
    }
}

fn put_metric(out: &mut Vec<u8>, comma: &str, labels: &Labels) {
    out.extend_from_slice(comma.as_bytes());
    out.extend_from_slice(b"{\"metric\":");
    put_labels(out, labels);
}
