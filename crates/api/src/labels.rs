//! Questions about labels and metrics: series, label names and values, metadata.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Request;
use axum::response::Response;

use crate::json::{put_labels, put_list, put_string, put_strings};
use crate::response::{ApiError, ErrorType, success};
use crate::router::Shared;
use crate::services::Found;
use crate::times::promql_quote;

/// `/api/v1/series`
pub(crate) async fn series(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (tenant, params) = shared.question(request).await?;
    if params.all("match[]").next().is_none() {
        return Err(ApiError::new(ErrorType::BadData, "no match[] parameter provided"));
    }
    let (limit, range) = (params.limit()?, params.range()?);
    let selectors = params.selectors().map_err(|error| ApiError::parameter("match[]", error))?;
    let found = shared.queries.series(&tenant, &selectors, range, &params.options()?).await?;
    let found = truncated(found, limit);
    Ok(success(&found.warnings, |out| put_list(out, &found.items, put_labels)))
}

/// `/api/v1/labels`
pub(crate) async fn names(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (tenant, params) = shared.question(request).await?;
    let (limit, range) = (params.limit()?, params.range()?);
    let selectors = params.selectors().map_err(|error| ApiError::new(ErrorType::BadData, error))?;
    let found = shared.queries.label_names(&tenant, &selectors, range, &params.options()?).await?;
    let found = truncated(found, limit);
    Ok(success(&found.warnings, |out| put_strings(out, found.items.iter().map(String::as_str))))
}

/// `/api/v1/label/<name>/values`
pub(crate) async fn values(
    State(shared): State<Arc<Shared>>,
    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let Ok(Path(name)) = name else {
        return Err(ApiError::new(ErrorType::BadData, "invalid label name: it is not UTF-8"));
    };
    let (tenant, params) = shared.question(request).await?;
    let name = unescape_name(&name).unwrap_or(name);
    if name.is_empty() {
        return Err(ApiError::new(ErrorType::BadData, format!("invalid label name: {}", promql_quote(&name))));
    }
    let (limit, range) = (params.limit()?, params.range()?);
    let selectors = params.selectors().map_err(|error| ApiError::new(ErrorType::BadData, error))?;
    let found = shared.queries.label_values(&tenant, &name, &selectors, range, &params.options()?).await?;
    let found = truncated(found, limit);
    Ok(success(&found.warnings, |out| put_strings(out, found.items.iter().map(String::as_str))))
}

/// `/api/v1/metadata`
///
/// Of each metric the last metadata is kept, so that any `limit_per_metric` above 0 is met.
pub(crate) async fn metadata(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (tenant, params) = shared.question(request).await?;
    let number = |name: &str| match params.first(name) {
        "" => Ok(None),
        text => {
            let limit = text.parse::<i64>();
            limit.map(Some).map_err(|_| ApiError::new(ErrorType::BadData, format!("{name} must be a number")))
        }
    };
    // A negative limit is none.
    let limit = number("limit")?.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    number("limit_per_metric")?;
    let mut all = shared.queries.metadata(&tenant, &params.options()?).await?;
    let metric = params.first("metric");
    if !metric.is_empty() {
        all.retain(|name, _| name == metric);
    }
    Ok(success(&[], |out| {
        out.push(b'{');
        for (i, (name, metadata)) in all.iter().take(limit).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            put_string(out, name, true);
            out.extend_from_slice(b":[{\"type\":");
            put_string(out, metadata.kind.as_str(), true);
            out.extend_from_slice(b",\"unit\":");
            put_string(out, &metadata.unit, true);
            out.extend_from_slice(b",\"help\":");
            put_string(out, &metadata.help, true);
            out.extend_from_slice(b"}]");
        }
        out.push(b'}');
    }))
}

fn truncated<T>(mut found: Found<T>, limit: usize) -> Found<T> {
    if limit > 0 && found.items.len() > limit {
        found.items.truncate(limit);
        found.warnings.push("results truncated due to limit".to_owned());
    }
    found
}

/// Reads a name in Prometheus's `U__` form, in which `__` is an underscore and `_e9_` the character U+00E9.
///
/// `None` if it is in no such form, or not rightly; it is then itself.
fn unescape_name(name: &str) -> Option<String> {
    let mut rest = name.strip_prefix("U__")?;
    let mut out = String::new();
    while let Some((plain, escape)) = rest.split_once('_') {
        out.push_str(plain);
        if let Some(after) = escape.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let (hex, after) = escape.split_once('_')?;
        if hex.len() > 6 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        out.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unescaped() {
        let check = |name: &str, expected: Option<&str>| assert_eq!(unescape_name(name).as_deref(), expected, "{name}");
        check("job", None);
        check("U__http_2e_status_2e_code", Some("http.status.code"));
        check("U__a__b", Some("a_b"));
        check("U___e9_", Some("é"));
        check("U___1f600_x", Some("😀x"));
        check("U__", Some(""));
        check("U__a_", None);
        check("U__a_zz_", None);
        check("U__a_d800_", None);
        check("U__a_1234567_", None);
    }
}
