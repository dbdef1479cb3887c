//! What the face needs of the roles behind it, as traits.
//!
//! The roles' own types stay theirs: `bellrock` fills these traits in for the ingester and the querier.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use model::{Labels, Matcher, Metadata, TenantId, TimeRange, TimestampMs};
use promql::QueryResult;
use proto::WriteRequest;

/// Who acts on an error; decides the status code (STYLE.md, "Errors").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whoever asks: the request is wrong. 400.
    Invalid,
    /// Whoever asks: the query can't be answered for the data there is, or is too large. 422.
    Execution,
    /// Whoever sends, later: over a rate that was agreed to. 429 with Retry-After.
    Throttled,
    /// It took too long. 503.
    Timeout,
    /// Whoever asked went away. 499, as Prometheus says, though nobody may hear it.
    Canceled,
    /// Something is short for now. 503 with Retry-After.
    Unavailable,
    /// Stored bytes fail a check, or a bug. 500.
    Internal,
}

/// An error of a service: who acts, and what to tell them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    /// Who acts.
    pub kind: Kind,
    /// For the one who acts; may have several lines.
    pub message: String,
}

impl ServiceError {
    /// An error of this kind.
    pub fn new(kind: Kind, message: impl ToString) -> ServiceError {
        ServiceError { kind, message: message.to_string() }
    }
}

/// Waits until a request's samples are durable and visible.
///
/// `Invalid` says that part of it was refused for good and every other sample is durable; any other kind that the
/// whole request is to be sent again.
pub type Durable = BoxFuture<'static, Result<(), ServiceError>>;

/// Takes samples in.
pub trait Ingest: Send + Sync + 'static {
    /// Takes a request's samples in; what it returns waits for the rest, and borrows nothing.
    ///
    /// Synchronous: it computes and does not block. Errors: nothing was taken in.
    fn append(&self, tenant: &TenantId, request: WriteRequest<'_>) -> Result<Durable, ServiceError>;
}

/// What one query may ask for besides its expression.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryOptions {
    /// A shorter time than the limit.
    pub timeout: Option<Duration>,
    /// Another lookback than the setting.
    pub lookback: Option<Duration>,
    /// Leave out what can't be read, with a warning.
    pub partial_response: bool,
}

/// The steps of a range query, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// The first step.
    pub start: TimestampMs,
    /// No step is after it.
    pub end: TimestampMs,
    /// From step to step; at least 1.
    pub step: i64,
}

/// The answer to a query.
#[derive(Debug)]
pub struct Answer {
    /// The result.
    pub result: QueryResult,
    /// What may be wrong with it.
    pub warnings: Vec<String>,
    /// What is good to know.
    pub infos: Vec<String>,
}

/// The answer to a question about labels.
#[derive(Debug)]
pub struct Found<T> {
    /// Ascending, each once.
    pub items: Vec<T>,
    /// What may be missing.
    pub warnings: Vec<String>,
}

/// Answers queries.
///
/// Dropping a future stops the query.
pub trait Queries: Send + Sync + 'static {
    /// Evaluates `text` at one time.
    fn instant<'a>(
        &'a self,
        tenant: &'a TenantId,
        text: &'a str,
        at: TimestampMs,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Answer, ServiceError>>;

    /// Evaluates `text` at every step of a range.
    fn range<'a>(
        &'a self,
        tenant: &'a TenantId,
        text: &'a str,
        steps: Steps,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Answer, ServiceError>>;

    /// The label sets of the series that satisfy any of the selectors and have samples in the range.
    fn series<'a>(
        &'a self,
        tenant: &'a TenantId,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<Labels>, ServiceError>>;

    /// The names of the labels of those series; of all series if no selector is given.
    fn label_names<'a>(
        &'a self,
        tenant: &'a TenantId,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<String>, ServiceError>>;

    /// The values of one label in those series; in all series if no selector is given.
    fn label_values<'a>(
        &'a self,
        tenant: &'a TenantId,
        name: &'a str,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<String>, ServiceError>>;

    /// The last metadata of each metric.
    fn metadata<'a>(
        &'a self,
        tenant: &'a TenantId,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<BTreeMap<String, Metadata>, ServiceError>>;
}

/// What is wrong with the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthReport {
    /// Why it can't do its work now, each with its id from docs/runbook.md; `/-/ready` says 503 if there is any.
    pub not_ready: Vec<String>,
    /// What an operator should know although it works, such as quarantined segments.
    pub notices: Vec<String>,
}

/// Says how the node is.
pub trait Health: Send + Sync + 'static {
    /// What is wrong now; cheap.
    fn report(&self) -> HealthReport;
}
