//! Instant and range queries.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use promql::QueryResult;

use crate::response::{ApiError, ErrorType, success_of_query};
use crate::router::Shared;
use crate::services::{Answer, Kind, ServiceError, Steps};
use crate::times::Time;

/// `/api/v1/query`
pub(crate) async fn instant(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (tenant, params) = shared.question(request).await?;
    let limit = params.limit()?;
    let at = params.time_or("time", Time::from_ms(shared.clock.now_ms()))?;
    let options = params.options()?;
    let answer = shared.queries.instant(&tenant, params.first("query"), at.ms(), &options).await;
    Ok(success_of_query(truncated(answer.map_err(query_error)?, limit)))
}

/// `/api/v1/query_range`
pub(crate) async fn range(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (tenant, params) = shared.question(request).await?;
    let limit = params.limit()?;
    let start = params.time("start")?;
    let end = params.time("end")?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step_ns = params.duration_ns("step")?;
    let step = step_ns / 1_000_000;
    // Finer than a millisecond is no step either: there would be no end.
    if step < 1 {
        let why = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::parameter("step", why));
    }
    let points_max = shared.settings().limits_of(&tenant).points_per_series_max;
    if (end.ns - start.ns) / i128::from(step_ns) > i128::from(points_max) {
        let why = format!(
            "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution (?step=XX)",
            with_separators(points_max)
        );
        return Err(ApiError::new(ErrorType::BadData, why));
    }
    let options = params.options()?;
    let steps = Steps { start: start.ms(), end: end.ms(), step };
    let answer = shared.queries.range(&tenant, params.first("query"), steps, &options).await;
    Ok(success_of_query(truncated(answer.map_err(query_error)?, limit)))
}

/// Prometheus dresses what is wrong with the expression itself, and only that.
fn query_error(error: ServiceError) -> ApiError {
    match error.kind {
        Kind::Invalid => ApiError::parameter("query", error.message),
        _ => error.into(),
    }
}

/// Cuts the answer down to `limit` series, if there is a limit.
fn truncated(mut answer: Answer, limit: usize) -> Answer {
    let is_cut = match &mut answer.result {
        QueryResult::Vector(samples) if limit > 0 && samples.len() > limit => {
            samples.truncate(limit);
            true
        }
        QueryResult::Matrix(series) if limit > 0 && series.len() > limit => {
            series.truncate(limit);
            true
        }
        _ => false,
    };
    if is_cut {
        answer.warnings.push("results truncated due to limit".to_owned());
    }
    answer
}

/// 11000 is `11,000`.
fn with_separators(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        for (number, expected) in [(0, "0"), (999, "999"), (11_000, "11,000"), (1_234_567, "1,234,567")] {
            assert_eq!(with_separators(number), expected);
        }
    }
}
