//! A query whose head goes while it asks.

use super::*;
use crate::heads::{HeadError, HeadPlan};
use crate::segments::SegmentHeads;
use crate::segments::tests::{Orphan, tenant};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::Samples;
use runtime::SystemClock;
use segment::SeriesState;

/// What happens when the head is first asked, which is then said to be gone.
type Happens = Box<dyn Fn(Arc<Orphan>) -> BoxFuture<'static, ()> + Send + Sync>;

/// The head of an orphan, which goes while a query asks for it.
struct Going {
    orphan: Arc<Orphan>,
    segments: SegmentHeads,
    happens: Happens,
    asked: AtomicU64,
}

impl HeadReader for Going {
    fn select<'a>(
        &'a self,
        _: HeadPlan,
        _: &'a TenantId,
        _: &'a [Matcher],
        _: TimeRange,
        _: Shard,
    ) -> BoxFuture<'a, Result<Vec<(Labels, Samples)>, HeadError>> {
        unreachable!("labels alone are asked for")
    }

    fn series<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<Labels>, HeadError>> {
        async move {
            if self.asked.fetch_add(1, Ordering::SeqCst) == 0 {
                (self.happens)(self.orphan.clone()).await;
                return Err(HeadError::PlanAgain(plan.writer));
            }
            self.segments.series(plan, tenant, matchers, range).await
        }
        .boxed()
    }

    fn label_names<'a>(
        &'a self,
        _: HeadPlan,
        _: &'a TenantId,
        _: &'a [Matcher],
        _: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>> {
        unreachable!("series alone are asked for")
    }

    fn label_values<'a>(
        &'a self,
        _: HeadPlan,
        _: &'a TenantId,
        _: &'a str,
        _: &'a [Matcher],
        _: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>> {
        unreachable!("series alone are asked for")
    }

    fn metadata<'a>(
        &'a self,
        _: HeadPlan,
        _: &'a TenantId,
    ) -> BoxFuture<'a, Result<Vec<(String, Metadata)>, HeadError>> {
        unreachable!("series alone are asked for")
    }
}

/// The series of a query during which its head goes.
async fn series_while(
    happens: impl Fn(Arc<Orphan>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> Result<LabelsAnswer<Labels>, QueryError> {
    let orphan = Arc::new(Orphan::new().await);
    orphan.add(1, true, &mut SeriesState::default()).await;
    let (segments, asked) = (orphan.heads(), AtomicU64::new(0));
    let parts = Parts {
        group: orphan.group.clone(),
        bucket: orphan.bucket.clone(),
        heads: Arc::new(Going { orphan: orphan.clone(), segments, happens: Box::new(happens), asked }),
        nodes: None,
        clock: SystemClock::shared(),
        registry: Registry::new(),
    };
    let querier = Querier::new(&Settings::default(), parts);
    let found = querier.series(&tenant(), &[vec![]], TimeRange::ALL, &QueryOptions::default()).await;
    orphan.group.close().await;
    found
}

#[tokio::test]
async fn a_head_that_goes_while_the_index_loses_its_leader_is_looked_for_at_the_revision_that_is_here() {
    let answer = series_while(|orphan| {
        async move {
            orphan.add(2, true, &mut SeriesState::default()).await;
            orphan.lose_leader().await;
        }
        .boxed()
    })
    .await
    .unwrap();
    assert_eq!(answer.found.len(), 1);
    assert!(answer.warnings.iter().any(|warning| warning.contains("no-leader")), "{:?}", answer.warnings);
}

#[tokio::test]
async fn a_head_that_goes_without_a_newer_revision_fails_the_query() {
    let error = series_while(|_| async {}.boxed()).await.unwrap_err();
    assert!(error.to_string().contains("was cut since the query was planned"), "{error}");
}
