//! What a query needs of heads. The ingester has them; the binary hands it in, so that roles do not know each other.

use futures::future::BoxFuture;
use model::{Labels, Matcher, Metadata, Samples, SegmentNumber, Shard, TenantId, TimeRange, WriterId};

/// Which segments of a writer a query wants: those above `cut` up to `added`, both from one revision of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadPlan {
    /// Whose.
    pub writer: WriterId,
    /// The last segment that a block holds.
    pub cut: SegmentNumber,
    /// The last committed segment that is not quarantined.
    pub added: SegmentNumber,
}

/// Why a head does not answer.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// It was cut since the query was planned, or is not here any more.
    #[error("the head of writer {0} was cut since the query was planned")]
    PlanAgain(WriterId),
    /// It can't be read.
    #[error("{0}")]
    Failed(String),
}

/// Reads heads. Answers hold exactly the plan's segments; a series may come twice, with other samples.
pub trait HeadReader: Send + Sync {
    /// The samples of a shard's matching series within a range; series without any are left out.
    fn select<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
        shard: Shard,
    ) -> BoxFuture<'a, Result<Vec<(Labels, Samples)>, HeadError>>;

    /// The label sets of matching series with samples in a range.
    fn series<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<Labels>, HeadError>>;

    /// The names of the labels of those series.
    fn label_names<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>>;

    /// The values of a label in those series.
    fn label_values<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        name: &'a str,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>>;

    /// The last metadata of each metric.
    fn metadata<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
    ) -> BoxFuture<'a, Result<Vec<(String, Metadata)>, HeadError>>;
}
