//! Gathers what one plan has of a selection: from blocks side by side, from heads, merged by series.
//!
//! The engine is synchronous and runs on a thread of its own; it asks through [`promql::Storage`] and waits there.

use std::collections::HashMap;
use std::sync::Arc;

use block::{Matchers, Select};
use futures::{StreamExt, TryStreamExt};
use index::{BlockMeta, Quarantined};
use model::{Labels, Matcher, Samples, Shard, TenantId, TimeRange};
use parking_lot::Mutex;
use promql::{Partial, PartialRequest, Selection, Storage, StorageError};

use crate::error::{QueryError, describe_quarantined};
use crate::heads::{HeadError, HeadPlan};
use crate::querier::Shared;
use crate::shares::Sharing;

/// Blocks that one selector reads at a time.
const BLOCKS_AT_ONCE: usize = 4;
/// Heads that one selector asks at a time: one on a node that does not answer keeps no other waiting.
const HEADS_AT_ONCE: usize = 16;

/// Why a query did not get its series.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A part of the plan is gone: plan again at a newer revision.
    PlanAgain(QueryError),
    /// There is no answer.
    Failed(QueryError),
}

/// Reads one tenant's data at one plan.
pub(crate) struct Gather<'q> {
    pub shared: &'q Shared,
    pub tenant: &'q TenantId,
    /// The plan's blocks, whatever their time.
    pub blocks: &'q [BlockMeta],
    /// The plan's writers with segments that no block holds.
    pub heads: &'q [HeadPlan],
    /// The plan's segments that are put aside.
    pub quarantined: &'q [Quarantined],
    /// Of which series; of labels nothing is left out.
    pub shard: Shard,
    /// Leave out what can't be read, with a warning.
    pub partial_response: bool,
    pub warnings: Mutex<Vec<String>>,
}

impl<'q> Gather<'q> {
    /// The same, with nothing to say yet.
    pub(crate) fn again(&self) -> Gather<'q> {
        Gather { warnings: Mutex::default(), ..*self }
    }

    /// The blocks with samples in a range; blocks without any samples have metadata only.
    pub(crate) fn blocks_within(&self, range: TimeRange) -> Vec<BlockMeta> {
        let overlaps = |block: &&BlockMeta| block.range.is_some_and(|other| other.overlaps(&range));
        self.blocks.iter().filter(overlaps).copied().collect()
    }

    /// Errors if segments that are put aside overlap the range, as their samples are missing from every answer.
    pub(crate) fn check_quarantined(&self, range: TimeRange) -> Result<(), Stop> {
        for segments in self.quarantined {
            if segments.range.is_some_and(|other| other.overlaps(&range)) {
                self.warn_or(Stop::Failed(QueryError::Quarantined(*segments)))?;
            }
        }
        Ok(())
    }

    /// Passes an answer on; of a failure that may be left out it makes a warning, if the query asks for that.
    pub(crate) fn or_warn<T: Default>(&self, result: Result<T, Stop>) -> Result<T, Stop> {
        result.or_else(|stop| self.warn_or(stop).map(|()| T::default()))
    }

    fn warn_or(&self, stop: Stop) -> Result<(), Stop> {
        match stop {
            Stop::Failed(error) if self.partial_response && error.may_be_warning() => {
                let text = match &error {
                    QueryError::Quarantined(segments) => describe_quarantined(segments),
                    other => other.to_string(),
                };
                let mut warnings = self.warnings.lock();
                let text = format!("partial response: {text}");
                if !warnings.contains(&text) {
                    warnings.push(text);
                }
                Ok(())
            }
            stop => Err(stop),
        }
    }

    /// Every matching series with its samples in the range.
    pub(crate) async fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        samples_max: u64,
    ) -> Result<Vec<(Labels, Arc<Samples>)>, Stop> {
        self.check_quarantined(range)?;
        let shared_matchers = Arc::new(Matchers::new(matchers.to_vec()));
        let from_blocks = futures::stream::iter(self.blocks_within(range)).map(|block| {
            let matchers = shared_matchers.clone();
            async move {
                let question = |index| {
                    let select = Select::new(index, self.tenant, matchers.clone(), range);
                    select.with_samples_max(samples_max).with_shard(self.shard)
                };
                self.or_warn(self.shared.blocks.ask(&block, question).await.map_err(block_stop))
            }
        });
        let from_heads = futures::stream::iter(self.heads).map(|plan| async move {
            let found = self.shared.heads.select(*plan, self.tenant, matchers, range, self.shard).await;
            self.or_warn(found.map_err(head_stop))
        });
        let mut merged = Merged::default();
        let from_blocks = from_blocks.buffer_unordered(BLOCKS_AT_ONCE);
        let mut found = futures::stream::select(from_blocks, from_heads.buffer_unordered(HEADS_AT_ONCE));
        while let Some(series) = found.try_next().await? {
            merged.add(series);
        }
        Ok(merged.series.into_iter().map(|(labels, samples)| (labels, Arc::new(samples))).collect())
    }
}

/// A block that is gone was merged and collected since the plan was made.
pub(crate) fn block_stop(error: QueryError) -> Stop {
    if matches!(error, QueryError::BlockGone(_)) { Stop::PlanAgain(error) } else { Stop::Failed(error) }
}

pub(crate) fn head_stop(error: HeadError) -> Stop {
    let text = error.to_string();
    match error {
        HeadError::PlanAgain(_) => Stop::PlanAgain(QueryError::Head(text)),
        HeadError::Failed(_) => Stop::Failed(QueryError::Head(text)),
    }
}

/// Series from many places, each once.
#[derive(Default)]
struct Merged {
    series: HashMap<Labels, Samples>,
}

impl Merged {
    fn add(&mut self, found: Vec<(Labels, Samples)>) {
        self.series.reserve(if self.series.is_empty() { found.len() } else { 0 });
        for (labels, samples) in found {
            self.series.entry(labels).or_default().merge(samples);
        }
    }
}

/// A [`Gather`] as the engine sees it. What stopped a selection is kept, as the engine only passes a text on.
pub(crate) struct EngineStorage<'q> {
    pub gather: Gather<'q>,
    pub samples_max: u64,
    pub stopped: Mutex<Option<Stop>>,
    /// How aggregations are spread over the nodes; `None`: not.
    pub sharing: Option<Sharing<'q>>,
}

impl EngineStorage<'_> {
    /// Keeps what stopped a selection.
    fn stopped(&self, stop: Stop) -> StorageError {
        let text = match &stop {
            Stop::PlanAgain(error) | Stop::Failed(error) => error.to_string(),
        };
        *self.stopped.lock() = Some(stop);
        StorageError(text.into())
    }
}

impl Storage for EngineStorage<'_> {
    fn select(&self, selection: &Selection) -> Result<Vec<(Labels, Arc<Samples>)>, StorageError> {
        let found =
            futures::executor::block_on(self.gather.select(&selection.matchers, selection.range, self.samples_max));
        match found {
            Ok(series) => {
                let metrics = &self.gather.shared.metrics;
                metrics.series.inc_by(series.len() as u64);
                metrics.samples.inc_by(series.iter().map(|(_, samples)| samples.len() as u64).sum());
                Ok(series)
            }
            Err(stop) => Err(self.stopped(stop)),
        }
    }

    fn partials(&self, request: &PartialRequest<'_>) -> Result<Option<Vec<Partial>>, StorageError> {
        self.shares(request).map_err(|stop| self.stopped(stop))
    }
}
