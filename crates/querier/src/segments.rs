//! Heads that are read from their segments: what answers when a writer's node does not, and nobody has adopted it yet.
//!
//! The segments above the cut are fetched and taken in by the same code that a head is made with. A few such heads are
//! kept, and go on from where they are when a later query plans further.

use std::collections::VecDeque;
use std::sync::Arc;

use bucket::Bucket;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use head::{Head, HeadError as ReadError};
use model::{Labels, Matcher, Metadata, ObjectKey, Samples, SegmentNumber, TenantId, TimeRange, WriterId};
use parking_lot::Mutex;

use crate::IndexGroup;
use crate::heads::{HeadError, HeadPlan, HeadReader};

/// Heads that are kept.
const HEADS_MAX: usize = 4;
/// Segments that are fetched ahead of the one that is taken in.
const FETCH_AHEAD: usize = 8;
/// Further keys of one segment that are tried when the one that the index names is not there.
const OTHER_ATTEMPTS_MAX: u32 = 3;

/// Reads heads from the bucket. Clones are the same.
#[derive(Clone)]
pub struct SegmentHeads {
    group: IndexGroup,
    bucket: Arc<Bucket>,
    heads: Arc<Mutex<Kept>>,
}

/// One head: a writer's, from a cut on.
type Which = (WriterId, SegmentNumber);

/// Those that are kept; latest used last.
type Kept = VecDeque<(Which, Arc<Loading>)>;

/// Held while segments are taken in, so that each is fetched once.
type Loading = tokio::sync::Mutex<Head>;

impl SegmentHeads {
    /// Nothing is read yet.
    pub fn new(group: IndexGroup, bucket: Arc<Bucket>) -> SegmentHeads {
        SegmentHeads { group, bucket, heads: Arc::default() }
    }

    /// Runs `read` over a head that holds the plan's segments.
    async fn read<T>(&self, plan: HeadPlan, read: impl FnOnce(&Head) -> Result<T, ReadError>) -> Result<T, HeadError> {
        let loading = self.of((plan.writer, plan.cut));
        let mut head = loading.lock().await;
        if head.applied() < plan.added {
            self.take_in(&mut head, plan).await?;
        }
        read(&head).map_err(|error| match error {
            ReadError::PlanAgain { .. } => HeadError::PlanAgain(plan.writer),
            other => HeadError::Failed(format!("read the head of writer {}: {other}", plan.writer)),
        })
    }

    fn of(&self, which: Which) -> Arc<Loading> {
        let mut heads = self.heads.lock();
        let at = heads.iter().position(|(other, _)| *other == which);
        let head = match at.and_then(|at| heads.remove(at)) {
            Some((_, head)) => head,
            None => Arc::new(Loading::new(Head::new(which.1))),
        };
        heads.push_back((which, head.clone()));
        if heads.len() > HEADS_MAX {
            heads.pop_front();
        }
        head
    }

    async fn take_in(&self, head: &mut Head, plan: HeadPlan) -> Result<(), HeadError> {
        let (from, writer) = (head.applied() + 1, plan.writer);
        let attempts: Option<Vec<(SegmentNumber, u32)>> = self.group.read(|index| {
            let known = index.writer(writer)?;
            // Retired since the plan was made: a block holds them, which a new plan names.
            (known.cut == plan.cut).then(|| {
                // Those that are put aside are told of by the plan.
                let wanted = known.segments().filter(|(n, _)| (from..=plan.added).contains(n));
                let wanted = wanted.filter(|(n, _)| !index.is_quarantined(writer, *n));
                wanted.map(|(n, segment)| (n, segment.attempt)).collect()
            })
        });
        let attempts = attempts.ok_or(HeadError::PlanAgain(writer))?;
        let last = attempts.last().map_or(head.applied(), |(n, _)| *n);
        let fetches = attempts.into_iter().map(|(n, attempt)| self.fetch(writer, n, attempt).map(move |o| (n, o)));
        let mut fetched = futures::stream::iter(fetches).buffered(FETCH_AHEAD);
        while let Some((n, object)) = fetched.next().await {
            let object = object?;
            let failed = |why: String| HeadError::Failed(format!("segment {n} of writer {writer}: {why}"));
            let (header, columns) = segment::decode(&object).map_err(|error| failed(error.to_string()))?;
            if (header.writer, header.n) != (writer, n) {
                return Err(failed(format!("it says that it is {} of writer {}", header.n, header.writer)));
            }
            head.take_in(n, &columns).map_err(|error| failed(error.to_string()))?;
        }
        if head.applied() < last {
            return Err(HeadError::PlanAgain(writer));
        }
        Ok(())
    }

    async fn fetch(&self, writer: WriterId, n: SegmentNumber, attempt: u32) -> Result<Bytes, HeadError> {
        let others = (0..=OTHER_ATTEMPTS_MAX).filter(|other| *other != attempt);
        for attempt in std::iter::once(attempt).chain(others) {
            match self.bucket.get(&ObjectKey::Segment { writer, n, attempt }).await {
                Ok(object) => return Ok(object),
                Err(error) if error.kind() == bucket::ErrorKind::NotFound => {}
                Err(error) => return Err(HeadError::Failed(format!("segment {n} of writer {writer}: {error}"))),
            }
        }
        // Retired and collected since, or gone: a new plan tells.
        Err(HeadError::PlanAgain(writer))
    }
}

impl HeadReader for SegmentHeads {
    fn select<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<(Labels, Samples)>, HeadError>> {
        async move {
            let selected =
                self.read(plan, |head| head.select(tenant, matchers, range, plan.added.min(head.applied()))).await?;
            let failed = |error| HeadError::Failed(format!("read the head of writer {}: {error}", plan.writer));
            selected.decode().map(|series| series.map_err(failed)).collect()
        }
        .boxed()
    }

    fn series<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<Labels>, HeadError>> {
        self.read(plan, move |head| Ok(head.series(tenant, matchers, range))).boxed()
    }

    fn label_names<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>> {
        self.read(plan, move |head| Ok(head.label_names(tenant, matchers, range))).boxed()
    }

    fn label_values<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        name: &'a str,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>> {
        self.read(plan, move |head| Ok(head.label_values(tenant, name, matchers, range))).boxed()
    }

    fn metadata<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
    ) -> BoxFuture<'a, Result<Vec<(String, Metadata)>, HeadError>> {
        let owned = |(metric, metadata): (&str, &Metadata)| (metric.to_owned(), metadata.clone());
        self.read(plan, move |head| Ok(head.metadata(tenant).map(owned).collect())).boxed()
    }
}
