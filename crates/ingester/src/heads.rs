//! The heads that a query may read: this process's writer's, and those of dead writers that it adopted.
//!
//! A query comes with a plan: of one writer, the last cut and the last committed segment at one revision. The answer holds
//! exactly the segments in between, whatever was committed since: [`Heads::select`] waits until the head has taken
//! in the last of them, and heads leave out what came after. While a cut is under way the samples lie in two heads,
//! the frozen one and the one that grows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use head::{Head, HeadError, HeadStats};
use model::{Labels, Matcher, Metadata, Samples, SegmentNumber, TenantId, TimeRange, WriterId};
use parking_lot::RwLock;
use tokio::sync::watch;

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
pub enum HeadsError {
    /// The plan is too old: the head was cut since and let go. Plan again at a newer revision.
    #[error("the head of writer {0} was cut since the query was planned")]
    PlanAgain(WriterId),
    /// No head of that writer is here.
    #[error("this node has no head of writer {0}")]
    Unknown(WriterId),
    /// The segments of a dead writer could not be loaded.
    #[error("the segments of writer {writer} are not loaded: {why}")]
    NotLoaded {
        /// Whose.
        writer: WriterId,
        /// Why.
        why: String,
    },
    /// The head's own codes do not decode: a bug, or broken memory.
    #[error("read the head of writer {writer}")]
    Head {
        /// Whose.
        writer: WriterId,
        /// What.
        source: HeadError,
    },
}

/// One writer's heads. Locks are taken in the order of the fields; none is held while a query decodes.
#[derive(Debug)]
pub(crate) struct WriterHeads {
    writer: WriterId,
    generations: RwLock<Generations>,
    /// What both heads take, as of the last change; read at every push, which must not wait for the lock.
    bytes: AtomicUsize,
    progress: watch::Sender<Progress>,
}

/// How far a head has come.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// The last segment that was taken in.
    applied: SegmentNumber,
    /// Nothing is still to come: what is missing can't be read.
    is_whole: bool,
    /// Why it comes no further: its writer could not be adopted.
    failed: Option<String>,
}

#[derive(Debug)]
struct Generations {
    /// The head that is being cut, with the cut it started from. More than one, oldest first, only of an adopted writer.
    frozen: Option<(SegmentNumber, Vec<Arc<Head>>)>,
    frozen_bytes: usize,
    /// The cut that `growing` starts from.
    cut: SegmentNumber,
    growing: Head,
}

impl Generations {
    /// Moves the growing head to the frozen ones and starts a new one.
    fn freeze(&mut self) -> Arc<Head> {
        let upto = self.growing.applied();
        let frozen = Arc::new(std::mem::replace(&mut self.growing, Head::new(upto)));
        let from = std::mem::replace(&mut self.cut, upto);
        self.frozen_bytes += frozen.stats().bytes;
        self.frozen.get_or_insert_with(|| (from, Vec::new())).1.push(frozen.clone());
        frozen
    }
}

impl WriterHeads {
    /// An empty head that starts from a cut.
    pub(crate) fn new(writer: WriterId, cut: SegmentNumber) -> WriterHeads {
        let generations = Generations { frozen: None, frozen_bytes: 0, cut, growing: Head::new(cut) };
        let bytes = AtomicUsize::new(generations.growing.stats().bytes);
        let progress = watch::Sender::new(Progress { applied: cut, ..Progress::default() });
        WriterHeads { writer, generations: RwLock::new(generations), bytes, progress }
    }

    /// Takes in a committed segment and returns what the head weighs now.
    pub(crate) fn take_in(&self, n: SegmentNumber, columns: &segment::Columns) -> Result<HeadStats, HeadError> {
        let stats = {
            let mut generations = self.generations.write();
            generations.growing.take_in(n, columns)?;
            let stats = generations.growing.stats();
            self.bytes.store(stats.bytes + generations.frozen_bytes, Ordering::Relaxed);
            stats
        };
        self.progress.send_modify(|progress| progress.applied = n);
        Ok(stats)
    }

    /// Freezes the growing head, which ends with segment `upto`, and starts a new one.
    pub(crate) fn freeze(&self, upto: SegmentNumber) -> Arc<Head> {
        let mut generations = self.generations.write();
        assert!(generations.frozen.is_none(), "a head is frozen while another still is");
        assert_eq!(generations.growing.applied(), upto, "a head is frozen at its last segment");
        generations.freeze()
    }

    /// Takes in a segment of an adopted writer, which may be the first above a cut point whose cut was never committed:
    /// from there on every series is spelled anew, so it begins a head of its own.
    pub(crate) fn take_in_adopted(
        &self,
        n: SegmentNumber,
        first_after_cut: bool,
        columns: &segment::Columns,
    ) -> Result<HeadStats, HeadError> {
        if first_after_cut {
            let mut generations = self.generations.write();
            if generations.growing.applied() > generations.cut {
                generations.freeze();
            }
        }
        self.take_in(n, columns)
    }

    /// Freezes the growing head wherever it ends, and returns all of an adopted writer's, oldest first: it grows no more.
    pub(crate) fn freeze_all(&self) -> Vec<Arc<Head>> {
        let mut generations = self.generations.write();
        generations.freeze();
        generations.frozen.iter().flat_map(|(_, frozen)| frozen.iter().cloned()).collect()
    }

    /// Says that nothing is still to come: all that can be read of an adopted writer was taken in. A plan of before the rest
    /// was quarantined does not know that something is missing, so it is to be made again.
    pub(crate) fn set_whole(&self) {
        self.progress.send_modify(|progress| progress.is_whole = true);
    }

    /// The last segment that was taken in.
    pub(crate) fn applied(&self) -> SegmentNumber {
        self.generations.read().growing.applied()
    }

    /// Makes one head of what is above `cut` and says where it ends; `None` if it lies in two, or begins elsewhere.
    pub(crate) fn settle(&self, cut: SegmentNumber) -> Option<SegmentNumber> {
        if self.generations.read().cut != cut {
            return None;
        }
        // The cut was committed, so a block holds what is frozen.
        self.thaw();
        Some(self.applied())
    }

    /// Says that nothing more will be taken in, and why: queries that wait for it fail at once.
    pub(crate) fn fail(&self, why: String) {
        self.progress.send_modify(|progress| progress.failed = Some(why));
    }

    /// Lets the frozen head go: a block holds its samples.
    pub(crate) fn thaw(&self) {
        let frozen = {
            let mut generations = self.generations.write();
            self.bytes.fetch_sub(std::mem::take(&mut generations.frozen_bytes), Ordering::Relaxed);
            generations.frozen.take()
        };
        // Freeing a large head takes a while: not under the lock.
        drop(frozen);
    }

    /// Bytes of the frozen and of the growing head.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Runs `read` over the heads that hold the plan's segments, oldest first.
    async fn read<T>(
        &self,
        plan: HeadPlan,
        mut read: impl FnMut(&Head) -> Result<T, HeadError>,
    ) -> Result<Vec<T>, HeadsError> {
        let mut progress = self.progress.subscribe();
        // A commit is taken in right after it is applied; whoever waits longer is stopped by the query's own deadline.
        let is_decided =
            |progress: &Progress| progress.applied >= plan.added || progress.is_whole || progress.failed.is_some();
        match progress.wait_for(is_decided).await.as_deref() {
            Ok(Progress { applied, .. }) if *applied >= plan.added => {}
            Ok(Progress { failed: Some(why), .. }) => {
                return Err(HeadsError::NotLoaded { writer: self.writer, why: why.clone() });
            }
            _ => return Err(HeadsError::PlanAgain(self.writer)),
        }
        let generations = self.generations.read();
        let mut results = Vec::with_capacity(2);
        let mut on = |head: &Head| match read(head) {
            Ok(result) => {
                results.push(result);
                Ok(())
            }
            Err(HeadError::PlanAgain { .. }) => Err(HeadsError::PlanAgain(self.writer)),
            Err(source) => Err(HeadsError::Head { writer: self.writer, source }),
        };
        match &generations.frozen {
            Some((from, frozen)) if *from == plan.cut => frozen.iter().try_for_each(|head| on(head))?,
            _ if generations.cut == plan.cut => {}
            _ => return Err(HeadsError::PlanAgain(self.writer)),
        }
        on(&generations.growing)?;
        Ok(results)
    }
}

/// Every head of this process; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Heads {
    writers: Arc<RwLock<BTreeMap<WriterId, Arc<WriterHeads>>>>,
}

impl Heads {
    pub(crate) fn insert(&self, heads: Arc<WriterHeads>) {
        self.writers.write().insert(heads.writer, heads);
    }

    pub(crate) fn remove(&self, writer: WriterId) {
        let removed = self.writers.write().remove(&writer);
        drop(removed);
    }

    /// Whose heads are here.
    pub(crate) fn writers(&self) -> Vec<WriterId> {
        self.writers.read().keys().copied().collect()
    }

    #[cfg(test)]
    pub(crate) fn is_any_frozen(&self) -> bool {
        self.writers.read().values().any(|heads| heads.generations.read().frozen.is_some())
    }

    pub(crate) fn find(&self, writer: WriterId) -> Option<Arc<WriterHeads>> {
        self.writers.read().get(&writer).cloned()
    }

    /// Bytes that all heads take.
    pub fn memory_bytes(&self) -> usize {
        self.writers.read().values().map(|heads| heads.memory_bytes()).sum()
    }

    /// Whether a head of this writer is here.
    pub fn has(&self, writer: WriterId) -> bool {
        self.writers.read().contains_key(&writer)
    }

    fn get(&self, writer: WriterId) -> Result<Arc<WriterHeads>, HeadsError> {
        self.find(writer).ok_or(HeadsError::Unknown(writer))
    }

    /// The samples of the matching series in the plan's segments, within `range`. A series may come twice, with other samples.
    ///
    /// Waits until the plan's last segment is taken in; copies under the head's read lock, decodes outside it.
    pub async fn select(
        &self,
        plan: HeadPlan,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<(Labels, Samples)>, HeadsError> {
        let heads = self.get(plan.writer)?;
        // A frozen head ends before what the writer has added while it is cut.
        let select = |head: &Head| head.select(tenant, matchers, range, plan.added.min(head.applied()));
        let selections = heads.read(plan, select).await?;
        let mut all = Vec::new();
        for selection in selections {
            for series in selection.decode() {
                all.push(series.map_err(|source| HeadsError::Head { writer: plan.writer, source })?);
            }
        }
        Ok(all)
    }

    /// The label sets of the matching series that have samples within `range`; a set may come twice.
    pub async fn series(
        &self,
        plan: HeadPlan,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<Labels>, HeadsError> {
        let heads = self.get(plan.writer)?;
        let found = heads.read(plan, |head| Ok(head.series(tenant, matchers, range))).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The names of the labels of those series; a name may come twice.
    pub async fn label_names(
        &self,
        plan: HeadPlan,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<String>, HeadsError> {
        let heads = self.get(plan.writer)?;
        let found = heads.read(plan, |head| Ok(head.label_names(tenant, matchers, range))).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The values of a label in those series; a value may come twice.
    pub async fn label_values(
        &self,
        plan: HeadPlan,
        tenant: &TenantId,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<String>, HeadsError> {
        let heads = self.get(plan.writer)?;
        let found = heads.read(plan, |head| Ok(head.label_values(tenant, name, matchers, range))).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The last metadata of each metric, by name; a metric may come twice, the later one counts.
    pub async fn metadata(&self, plan: HeadPlan, tenant: &TenantId) -> Result<Vec<(String, Metadata)>, HeadsError> {
        let heads = self.get(plan.writer)?;
        let found = heads.read(plan, |head| Ok(owned(head.metadata(tenant)))).await?;
        Ok(found.into_iter().flatten().collect())
    }
}

fn owned<'a>(metadata: impl Iterator<Item = (&'a str, &'a Metadata)>) -> Vec<(String, Metadata)> {
    metadata.map(|(metric, metadata)| (metric.to_owned(), metadata.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_that_will_never_have_a_planned_segment_has_the_query_plan_again() {
        let writer = WriterId(model::Revision { incarnation: 1, position: 1 });
        let heads = WriterHeads::new(writer, 0);
        heads.take_in(1, &segment::Columns::new()).unwrap();
        let plan = |added| HeadPlan { writer, cut: 0, added };
        // Segment 2 does not decode, and is quarantined after the plan was made.
        heads.set_whole();
        let error = heads.read(plan(2), |_| Ok(())).await.unwrap_err();
        assert!(matches!(error, HeadsError::PlanAgain(_)), "{error}");
        assert_eq!(heads.read(plan(1), |_| Ok(())).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn while_a_head_is_cut_segments_of_before_and_after_are_read() {
        let writer = WriterId(model::Revision { incarnation: 1, position: 1 });
        let heads = Arc::new(WriterHeads::new(writer, 0));
        heads.take_in(1, &segment::Columns::new()).unwrap();
        heads.freeze(1);
        heads.take_in(2, &segment::Columns::new()).unwrap();
        let all = Heads::default();
        all.insert(heads);
        let (plan, tenant) = (HeadPlan { writer, cut: 0, added: 2 }, TenantId::new("a").unwrap());
        assert_eq!(all.select(plan, &tenant, &[], TimeRange::ALL).await.unwrap(), []);
    }
}
