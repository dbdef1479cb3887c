//! Hands the ingester's heads to the querier: roles do not know each other.

use futures::FutureExt;
use futures::future::BoxFuture;
use ingester::{Heads, HeadsError};
use model::{Labels, Matcher, Metadata, Samples, Shard, TenantId, TimeRange};
use querier::{HeadError, HeadPlan, HeadReader};

use crate::logging::chain;

/// The heads of this process.
pub struct LocalHeads(pub Heads);

fn plan(plan: HeadPlan) -> ingester::HeadPlan {
    ingester::HeadPlan { writer: plan.writer, cut: plan.cut, added: plan.added }
}

fn error(error: HeadsError) -> HeadError {
    match error {
        // A writer that the plan names and that has no head here any more was closed by a cut since.
        HeadsError::PlanAgain(writer) | HeadsError::Unknown(writer) => HeadError::PlanAgain(writer),
        failed => HeadError::Failed(chain(&failed)),
    }
}

impl LocalHeads {
    /// Whether the head of a plan is, or should be, in this process.
    pub fn has(&self, of: HeadPlan) -> bool {
        self.0.has(of.writer)
    }
}

impl HeadReader for LocalHeads {
    fn select<'a>(
        &'a self,
        of: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
        shard: Shard,
    ) -> BoxFuture<'a, Result<Vec<(Labels, Samples)>, HeadError>> {
        async move {
            let mut found = self.0.select(plan(of), tenant, matchers, range).await.map_err(error)?;
            found.retain(|(labels, _)| shard.has(labels));
            Ok(found)
        }
        .boxed()
    }

    fn series<'a>(
        &'a self,
        of: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<Labels>, HeadError>> {
        async move { self.0.series(plan(of), tenant, matchers, range).await.map_err(error) }.boxed()
    }

    fn label_names<'a>(
        &'a self,
        of: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>> {
        async move { self.0.label_names(plan(of), tenant, matchers, range).await.map_err(error) }.boxed()
    }

    fn label_values<'a>(
        &'a self,
        of: HeadPlan,
        tenant: &'a TenantId,
        name: &'a str,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>> {
        async move { self.0.label_values(plan(of), tenant, name, matchers, range).await.map_err(error) }.boxed()
    }

    fn metadata<'a>(
        &'a self,
        of: HeadPlan,
        tenant: &'a TenantId,
    ) -> BoxFuture<'a, Result<Vec<(String, Metadata)>, HeadError>> {
        async move { self.0.metadata(plan(of), tenant).await.map_err(error) }.boxed()
    }
}
