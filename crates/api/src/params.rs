//! The parameters of a question: from the URL and, for POST, from a form in the body.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, header};
use model::{Matcher, TimeRange};
use runtime::Clock;

use crate::body::read_body;
use crate::budget::ByteBudget;
use crate::response::{ApiError, ErrorType};
use crate::services::QueryOptions;
use crate::settings::Settings;
use crate::times::{Time, parse_duration_ns, parse_time, promql_quote};

/// The largest form that is read, as in Go's net/http: 10 MB.
const FORM_BYTES_MAX: usize = 10 << 20;

/// Name and value pairs, those of the form first; of one that is given twice the first counts.
#[derive(Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// Reads the parameters of a request. A body that is no form is not read.
    pub(crate) async fn read(
        request: Request<Body>,
        settings: &Settings,
        bodies: &ByteBudget,
        clock: &dyn Clock,
    ) -> Result<Params, ApiError> {
        let (head, body) = request.into_parts();
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let kind = content_type.split(';').next().unwrap_or("").trim();
        let mut params = Params::default();
        if head.method == Method::POST && kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let mut held = bodies.open();
            let form = read_body(body, FORM_BYTES_MAX, settings, clock, &mut held)
                .await
                .map_err(|error| ApiError::from_body(error, FORM_BYTES_MAX, bodies))?;
            params.parse(&form);
        }
        params.parse(head.uri.query().unwrap_or("").as_bytes());
        Ok(params)
    }

    fn parse(&mut self, form: &[u8]) {
        let pairs = form_urlencoded::parse(form).map(|(name, value)| (name.into_owned(), value.into_owned()));
        self.pairs.extend(pairs);
    }

    /// The first value of a parameter, or "".
    pub(crate) fn first(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// How many of the results are wanted; 0 is all.
    pub(crate) fn limit(&self) -> Result<usize, ApiError> {
        let text = self.first("limit");
        if text.is_empty() {
            return Ok(0);
        }
        let limit: i64 = text.parse().map_err(|_| {
            ApiError::parameter("limit", format!("strconv.Atoi: parsing {}: invalid syntax", promql_quote(text)))
        })?;
        usize::try_from(limit).map_err(|_| ApiError::parameter("limit", "limit must be non-negative"))
    }

    /// A time that has to be given.
    pub(crate) fn time(&self, name: &str) -> Result<Time, ApiError> {
        parse_time(self.first(name)).map_err(|error| ApiError::parameter(name, error))
    }

    /// A time that may be given.
    pub(crate) fn time_or(&self, name: &str, default: Time) -> Result<Time, ApiError> {
        match self.first(name) {
            "" => Ok(default),
            text => parse_time(text)
                .map_err(|error| ApiError::parameter(name, format!("invalid time value for '{name}': {error}"))),
        }
    }

    /// A duration that has to be given, in nanoseconds.
    pub(crate) fn duration_ns(&self, name: &str) -> Result<i64, ApiError> {
        parse_duration_ns(self.first(name)).map_err(|error| ApiError::parameter(name, error))
    }

    /// `start` and `end` of a question about labels; all of time if they are not given.
    pub(crate) fn range(&self) -> Result<TimeRange, ApiError> {
        let start = self.time_or("start", Time::from_ms(i64::MIN))?;
        let end = self.time_or("end", Time::from_ms(i64::MAX))?;
        Ok(TimeRange { start: start.ms(), end: end.ms() })
    }

    /// What every query may ask for.
    pub(crate) fn options(&self) -> Result<QueryOptions, ApiError> {
        let timeout = match self.first("timeout") {
            "" => None,
            _ => Some(Duration::from_nanos(u64::try_from(self.duration_ns("timeout")?).unwrap_or(0))),
        };
        let lookback = match self.first("lookback_delta") {
            "" => None,
            text => Some(parse_duration_ns(text).map_err(|error| {
                ApiError::new(ErrorType::BadData, format!("error parsing lookback delta duration: {error}"))
            })?),
        };
        // As in Prometheus, a lookback of nothing is the setting's.
        let lookback = lookback.and_then(|ns| u64::try_from(ns).ok()).filter(|&ns| ns > 0).map(Duration::from_nanos);
        let partial_response = match self.first("partial_response") {
            "" | "false" | "0" => false,
            "true" | "1" => true,
            text => {
                let why = format!("{} is neither true nor false", promql_quote(text));
                return Err(ApiError::parameter("partial_response", why));
            }
        };
        Ok(QueryOptions { timeout, lookback, partial_response })
    }

    /// The selectors of `match[]`; the error is not yet dressed.
    pub(crate) fn selectors(&self) -> Result<Vec<Vec<Matcher>>, String> {
        let selectors: Result<Vec<_>, _> = self.all("match[]").map(promql::parse_matchers).collect();
        let selectors = selectors.map_err(|error| error.to_string())?;
        if selectors.iter().any(|matchers| matchers.iter().all(Matcher::matches_empty)) {
            return Err("match[] must contain at least one non-empty matcher".to_owned());
        }
        Ok(selectors)
    }
}
