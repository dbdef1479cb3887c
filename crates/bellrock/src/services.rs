//! Hands the roles to the face: `api` says what it needs as traits, the roles do not know it.

use std::collections::BTreeMap;

use api::{Answer, Durable, Found, Ingest, Kind, Queries, QueryOptions, ServiceError, Steps};
use futures::FutureExt;
use futures::future::BoxFuture;
use ingester::{Ingester, PushError};
use model::{Labels, Matcher, Metadata, TenantId, TimeRange, TimestampMs};
use proto::WriteRequest;
use querier::{LabelsAnswer, Querier, QueryError, RangeOf};

use crate::late::Late;
use crate::logging::chain;
use crate::member::Member;

/// The ingester of this process, once it runs.
pub struct LocalIngest {
    /// It.
    pub ingester: Late<Ingester>,
    /// Knows whether anything can be committed.
    pub member: Late<Member>,
}

/// The querier of this process, once it runs.
pub struct LocalQueries(pub Late<Querier>);

impl Ingest for LocalIngest {
    fn append(&self, tenant: &TenantId, request: WriteRequest<'_>) -> Result<Durable, ServiceError> {
        let (Some(ingester), Some(member)) = (self.ingester.get(), self.member.get()) else { return Err(starting()) };
        if member.has_no_leader() {
            return Err(no_leader());
        }
        let routed = ingester.push(tenant, request).map_err(|error| push_error(&error))?;
        let member = member.clone();
        let durable = async move {
            let durable = member.while_led(routed.durable()).await;
            durable.ok_or_else(no_leader)?.map_err(|error| push_error(&error))
        };
        Ok(durable.boxed())
    }
}

fn starting() -> ServiceError {
    ServiceError::new(Kind::Unavailable, "this node is starting; /-/ready says what it waits for (starting)".to_owned())
}

fn no_leader() -> ServiceError {
    let text = "the index has no leader: too few of its voters are there to commit anything; writes go on by themselves \
                when most are back (no-leader)";
    ServiceError::new(Kind::Unavailable, text.to_owned())
}

impl LocalQueries {
    fn querier(&self) -> Result<&Querier, ServiceError> {
        self.0.get().ok_or_else(starting)
    }
}

fn push_error(error: &PushError) -> ServiceError {
    let kind = match error.kind() {
        ingester::Kind::Invalid => Kind::Invalid,
        ingester::Kind::Unavailable => Kind::Unavailable,
    };
    ServiceError::new(kind, chain(error))
}

fn query_error(error: QueryError) -> ServiceError {
    let kind = match error.kind() {
        querier::Kind::Invalid => Kind::Invalid,
        querier::Kind::Evaluation => Kind::Execution,
        querier::Kind::Timeout => Kind::Timeout,
        querier::Kind::Canceled => Kind::Canceled,
        querier::Kind::Unavailable => Kind::Unavailable,
        querier::Kind::Corrupt => Kind::Internal,
    };
    if kind == Kind::Internal {
        tracing::error!(error = chain(&error), "query failed on stored data");
    }
    ServiceError::new(kind, chain(&error))
}

fn options(options: &QueryOptions) -> querier::QueryOptions {
    querier::QueryOptions {
        timeout: options.timeout,
        lookback: options.lookback,
        partial_response: options.partial_response,
    }
}

fn answer(text: &str, answer: querier::Answer) -> Answer {
    let mut warnings = answer.warnings;
    warnings.extend(answer.annotations.warnings(text));
    Answer { result: answer.result, warnings, infos: answer.annotations.infos(text) }
}

fn found<T>(answer: Result<LabelsAnswer<T>, QueryError>) -> Result<Found<T>, ServiceError> {
    let answer = answer.map_err(query_error)?;
    Ok(Found { items: answer.found, warnings: answer.warnings })
}

impl Queries for LocalQueries {
    fn instant<'a>(
        &'a self,
        tenant: &'a TenantId,
        text: &'a str,
        at: TimestampMs,
        asked: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Answer, ServiceError>> {
        async move {
            let answered = self.querier()?.instant(tenant, text, at, &options(asked)).await.map_err(query_error)?;
            Ok(answer(text, answered))
        }
        .boxed()
    }

    fn range<'a>(
        &'a self,
        tenant: &'a TenantId,
        text: &'a str,
        steps: Steps,
        asked: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Answer, ServiceError>> {
        async move {
            let range = RangeOf { start: steps.start, end: steps.end, step: steps.step };
            let answered = self.querier()?.range(tenant, text, range, &options(asked)).await.map_err(query_error)?;
            Ok(answer(text, answered))
        }
        .boxed()
    }

    fn series<'a>(
        &'a self,
        tenant: &'a TenantId,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        asked: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<Labels>, ServiceError>> {
        async move { found(self.querier()?.series(tenant, selectors, range, &options(asked)).await) }.boxed()
    }

    fn label_names<'a>(
        &'a self,
        tenant: &'a TenantId,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        asked: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<String>, ServiceError>> {
        async move { found(self.querier()?.label_names(tenant, selectors, range, &options(asked)).await) }.boxed()
    }

    fn label_values<'a>(
        &'a self,
        tenant: &'a TenantId,
        name: &'a str,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        asked: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<Found<String>, ServiceError>> {
        async move { found(self.querier()?.label_values(tenant, name, selectors, range, &options(asked)).await) }
            .boxed()
    }

    fn metadata<'a>(
        &'a self,
        tenant: &'a TenantId,
        asked: &'a QueryOptions,
    ) -> BoxFuture<'a, Result<BTreeMap<String, Metadata>, ServiceError>> {
        async move { self.querier()?.metadata(tenant, &options(asked)).await.map_err(query_error) }.boxed()
    }
}
