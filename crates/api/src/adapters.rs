//! Fills the face's traits in for the roles.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use ingester::{Ingester, PushError};
use model::{Labels, Matcher, Metadata, TenantId, TimeRange, TimestampMs};
use proto::WriteRequest;
use querier::{LabelsAnswer, Querier, QueryError, RangeOf};

use crate::services::{Answer, Durable, Found, Ingest, Kind, Queries, QueryOptions, ServiceError, Steps};

impl Ingest for Ingester {
    fn append(&self, tenant: &TenantId, request: &WriteRequest<'_>) -> Result<Durable, ServiceError> {
        let ticket = Ingester::append(self, tenant, request).map_err(push_error)?;
        Ok(async { ticket.durable().await.map_err(push_error) }.boxed())
    }
}

fn push_error(error: PushError) -> ServiceError {
    let kind = match error.kind() {
        ingester::Kind::Invalid => Kind::Invalid,
        ingester::Kind::Unavailable => Kind::Unavailable,
    };
    ServiceError::new(kind, error)
}

impl Queries for Querier {
    fn instant<'a>(
        &'a self,
        tenant: &'a TenantId,
        text: &'a str,
        at: TimestampMs,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Answer, ServiceError>> {
        let options = options_of(options);
        async move { Ok(answer(Querier::instant(self, tenant, text, at, &options).await?, text)) }.boxed()
    }

    fn range<'a>(
        &'a self,
        tenant: &'a TenantId,
        text: &'a str,
        steps: Steps,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Answer, ServiceError>> {
        let options = options_of(options);
        let range = RangeOf { start: steps.start, end: steps.end, step: steps.step };
        async move { Ok(answer(Querier::range(self, tenant, text, range, &options).await?, text)) }.boxed()
    }

    fn series<'a>(
        &'a self,
        tenant: &'a TenantId,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<Labels>, ServiceError>> {
        let options = options_of(options);
        async move { Ok(found(Querier::series(self, tenant, selectors, range, &options).await?)) }.boxed()
    }

    fn label_names<'a>(
        &'a self,
        tenant: &'a TenantId,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<String>, ServiceError>> {
        let options = options_of(options);
        async move { Ok(found(Querier::label_names(self, tenant, selectors, range, &options).await?)) }.boxed()
    }

    fn label_values<'a>(
        &'a self,
        tenant: &'a TenantId,
        name: &'a str,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<String>, ServiceError>> {
        let options = options_of(options);
        async move { Ok(found(Querier::label_values(self, tenant, name, selectors, range, &options).await?)) }.boxed()
    }

    fn metadata<'a>(
        &'a self,
        tenant: &'a TenantId,
        options: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<BTreeMap<String, Metadata>, ServiceError>> {
        let options = options_of(options);
        async move { Ok(Querier::metadata(self, tenant, &options).await?) }.boxed()
    }
}

fn options_of(options: &QueryOptions) -> querier::QueryOptions {
    let QueryOptions { timeout, lookback, partial_response } = *options;
    querier::QueryOptions { timeout, lookback, partial_response }
}

fn answer(answer: querier::Answer, text: &str) -> Answer {
    let mut warnings = answer.annotations.warnings(text);
    warnings.extend(answer.warnings);
    Answer { result: answer.result, warnings, infos: answer.annotations.infos(text) }
}

fn found<T>(answer: LabelsAnswer<T>) -> Found<T> {
    Found { items: answer.found, warnings: answer.warnings }
}

impl From<QueryError> for ServiceError {
    fn from(error: QueryError) -> ServiceError {
        let kind = match error.kind() {
            querier::Kind::Invalid => Kind::Invalid,
            querier::Kind::Evaluation => Kind::Execution,
            querier::Kind::Timeout => Kind::Timeout,
            querier::Kind::Canceled => Kind::Canceled,
            querier::Kind::Unavailable => Kind::Unavailable,
            querier::Kind::Corrupt => Kind::Internal,
        };
        ServiceError::new(kind, error)
    }
}
