//! Heads that are read from their segments: what answers when a writer's node does not, and nobody has adopted it yet.
//!
//! The segments above the cut are fetched and taken in by the same code that a head is made with. A few such heads are
//! kept, and go on from where they are when a later query plans further. Where a writer has set a cut point and its cut was
//! never committed, or is not yet, every series is spelled anew: from there on it is one more head.

use std::collections::VecDeque;
use std::sync::Arc;

use bucket::Bucket;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt};
use head::{Head, HeadError as ReadError};
use model::{Labels, Matcher, Metadata, ObjectKey, Samples, SegmentNumber, Shard, TenantId, TimeRange, WriterId};
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
type Loading = tokio::sync::Mutex<Loaded>;

/// A writer's samples above a cut: one head up to each cut point and one after the last, oldest first.
struct Loaded {
    before: Vec<Head>,
    growing: Head,
}

impl Loaded {
    fn new(cut: SegmentNumber) -> Loaded {
        Loaded { before: Vec::new(), growing: Head::new(cut) }
    }

    /// Takes in the next segment.
    fn take_in(&mut self, header: &segment::Header, columns: &segment::Columns) -> Result<(), ReadError> {
        let applied = self.growing.applied();
        if header.first_after_cut && applied > self.growing.cut() {
            self.before.push(std::mem::replace(&mut self.growing, Head::new(applied)));
        }
        self.growing.take_in(header.n, columns)
    }

    /// The heads that segments up to `added` lie in; later plans may have had more loaded.
    fn upto(&self, added: SegmentNumber) -> impl Iterator<Item = &Head> {
        let is_planned = move |head: &&Head| head.cut() < added;
        self.before.iter().chain(std::iter::once(&self.growing)).filter(is_planned)
    }
}

impl SegmentHeads {
    /// Nothing is read yet.
    pub fn new(group: IndexGroup, bucket: Arc<Bucket>) -> SegmentHeads {
        SegmentHeads { group, bucket, heads: Arc::default() }
    }

    /// Runs `read` over the heads that hold the plan's segments, oldest first.
    async fn read<T>(
        &self,
        plan: HeadPlan,
        read: impl FnMut(&Head) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, HeadError> {
        let loading = self.of((plan.writer, plan.cut));
        let mut loaded = loading.lock().await;
        if loaded.growing.applied() < plan.added {
            self.take_in(&mut loaded, plan).await?;
        }
        loaded.upto(plan.added).map(read).collect::<Result<_, _>>().map_err(|error| match error {
            ReadError::PlanAgain { .. } => HeadError::PlanAgain(plan.writer),
            other => HeadError::Failed(format!("read the head of writer {}: {other}", plan.writer)),
        })
    }

    fn of(&self, which: Which) -> Arc<Loading> {
        let mut heads = self.heads.lock();
        let at = heads.iter().position(|(other, _)| *other == which);
        let head = match at.and_then(|at| heads.remove(at)) {
            Some((_, head)) => head,
            None => Arc::new(Loading::new(Loaded::new(which.1))),
        };
        heads.push_back((which, head.clone()));
        if heads.len() > HEADS_MAX {
            heads.pop_front();
        }
        head
    }

    async fn take_in(&self, loaded: &mut Loaded, plan: HeadPlan) -> Result<(), HeadError> {
        let (from, writer) = (loaded.growing.applied() + 1, plan.writer);
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
        let fetches = attempts.into_iter().map(|(n, attempt)| self.fetch(writer, n, attempt).map(move |o| (n, o)));
        let mut fetched = futures::stream::iter(fetches).buffered(FETCH_AHEAD);
        while let Some((n, object)) = fetched.next().await {
            let object = object?;
            let failed = |why: String| HeadError::Failed(format!("segment {n} of writer {writer}: {why}"));
            let (header, columns) = segment::decode(&object).map_err(|error| failed(error.to_string()))?;
            if (header.writer, header.n) != (writer, n) {
                return Err(failed(format!("it says that it is {} of writer {}", header.n, header.writer)));
            }
            loaded.take_in(&header, &columns).map_err(|error| failed(error.to_string()))?;
        }
        if loaded.growing.applied() < plan.added {
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
        shard: Shard,
    ) -> BoxFuture<'a, Result<Vec<(Labels, Samples)>, HeadError>> {
        async move {
            let select = |head: &Head| head.select(tenant, matchers, range, plan.added.min(head.applied()));
            let selected = self.read(plan, select).await?;
            let failed = |error| HeadError::Failed(format!("read the head of writer {}: {error}", plan.writer));
            let series = selected.into_iter().flat_map(|selection| selection.decode());
            let in_shard = series.filter(|series| series.as_ref().map_or(true, |(labels, _)| shard.has(labels)));
            in_shard.map(|series| series.map_err(failed)).collect()
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
        self.read(plan, move |head| Ok(head.series(tenant, matchers, range))).map_ok(|found| found.concat()).boxed()
    }

    fn label_names<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>> {
        self.read(plan, move |head| Ok(head.label_names(tenant, matchers, range)))
            .map_ok(|found| found.concat())
            .boxed()
    }

    fn label_values<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        name: &'a str,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>> {
        self.read(plan, move |head| Ok(head.label_values(tenant, name, matchers, range)))
            .map_ok(|found| found.concat())
            .boxed()
    }

    fn metadata<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
    ) -> BoxFuture<'a, Result<Vec<(String, Metadata)>, HeadError>> {
        let owned = |(metric, metadata): (&str, &Metadata)| (metric.to_owned(), metadata.clone());
        self.read(plan, move |head| Ok(head.metadata(tenant).map(owned).collect::<Vec<_>>()))
            .map_ok(|found| found.concat())
            .boxed()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use consensus::{Machine, MembersError, Parts, Settings, Start, Transport};
    use index::{Applied, Command, Entry, Index, SegmentMeta};
    use model::{MatchOp, NodeId, Revision};
    use parking_lot::Mutex;
    use runtime::{Random, Registry, SystemClock};
    use segment::{Columns, Header, SeriesState};

    /// A writer whose segments are in a bucket and in the index, and no node that has its head.
    pub(crate) struct Orphan {
        folder: tempfile::TempDir,
        pub(crate) group: IndexGroup,
        pub(crate) bucket: Arc<Bucket>,
        writer: WriterId,
        /// Leads to the other replica, if there is one.
        wire: Arc<Wire>,
    }

    /// What a replica sends to the one at the other end, with the sender's id.
    #[derive(Default)]
    struct Wire(Mutex<Option<(u64, IndexGroup)>>);

    impl Transport for Wire {
        fn send(&self, _: u64, message: Vec<u8>) {
            if let Some((from, group)) = &*self.0.lock() {
                group.receive(*from, message);
            }
        }
    }

    fn open_group(folder: &std::path::Path, seed: u64, start: Start<Index>, wire: Arc<Wire>) -> IndexGroup {
        let machine = Machine {
            apply: |index: &mut Index, position, entry: &Entry| index.apply(position, entry),
            advance: Index::advance,
            encode: Entry::encode,
            decode: |bytes| Ok(Entry::decode(bytes)?),
            snapshot: Index::encode_checkpoint,
            restore: |bytes| Ok(Index::decode_checkpoint(bytes)?),
            hash: Index::state_hash,
        };
        let parts = Parts::system(SystemClock::shared(), Random::from_seed(seed), Registry::new());
        IndexGroup::open(folder, machine, start, Settings::default(), Parts { transport: wire, ..parts }).unwrap()
    }

    impl Orphan {
        pub(crate) async fn new() -> Orphan {
            let folder = tempfile::tempdir().unwrap();
            let wire = Arc::new(Wire::default());
            let start = Start::Bootstrap(Index::new(1, 1));
            let group = open_group(&folder.path().join("index"), 1, start, wire.clone());
            let place = folder.path().join("bucket");
            let bucket = Arc::new(Bucket::open(&place, SystemClock::shared(), &Registry::new()).await.unwrap());
            let applied = propose(&group, Command::Register { node: NodeId(1), nonce: 1 }).await;
            let Applied::Registered { writer } = applied else { panic!("{applied:?}") };
            Orphan { folder, group, bucket, writer, wire }
        }

        /// Has a second replica vote, and loses it: one of two voters can't lead.
        pub(crate) async fn lose_leader(&self) {
            let wire = Arc::new(Wire::default());
            let start = Start::Join(Index::new(0, 0));
            let other = open_group(&self.folder.path().join("other"), 2, start, wire.clone());
            let [own, others] = [&self.group, &other].map(|group| group.identity().id);
            *self.wire.0.lock() = Some((own, other.clone()));
            *wire.0.lock() = Some((others, self.group.clone()));
            self.group.add_learner(others).await.unwrap();
            while let Err(error) = self.group.promote(others).await {
                assert!(matches!(error, MembersError::NotCaughtUp { .. }), "{error}");
                // It catches up by the leader's heartbeats.
                SystemClock::shared().sleep(std::time::Duration::from_millis(10)).await;
            }
            *self.wire.0.lock() = None;
            *wire.0.lock() = None;
            other.close().await;
        }

        /// Segment `n` holds one sample of the series `up`, at `n` s; `spells` says whether it is the first that names it.
        pub(crate) async fn add(&self, n: SegmentNumber, spells: bool, state: &mut SeriesState) {
            let mut columns = Columns::new();
            let id = 0;
            if spells {
                columns.spell(id, &tenant(), &Labels::from_pairs([("__name__", "up")]).unwrap());
            }
            columns.push_float(id, state, n as i64 * 1000, n as f64);
            columns.seal();
            let sealed_at = Revision { incarnation: 1, position: 1 };
            let header = Header { cluster: 1, writer: self.writer, n, sealed_at, first_after_cut: spells };
            let object = segment::encode(&header, &columns);
            let info = SegmentMeta { attempt: 0, bytes: object.len() as u64, range: columns.time_range() };
            self.bucket.put(&self.key(n), object.into()).await.unwrap();
            propose(&self.group, Command::AddSegment { writer: self.writer, n, segment: info }).await;
        }

        fn key(&self, n: SegmentNumber) -> ObjectKey {
            ObjectKey::Segment { writer: self.writer, n, attempt: 0 }
        }

        /// Three segments: a cut point, whose cut is not committed, lies between the second and the third.
        async fn with_a_cut_point() -> Orphan {
            let orphan = Orphan::new().await;
            let mut state = SeriesState::default();
            orphan.add(1, true, &mut state).await;
            orphan.add(2, false, &mut state).await;
            orphan.add(3, true, &mut SeriesState::default()).await;
            orphan
        }

        pub(crate) fn heads(&self) -> SegmentHeads {
            SegmentHeads::new(self.group.clone(), self.bucket.clone())
        }
    }

    async fn propose(group: &IndexGroup, command: Command) -> Applied {
        group.propose(Entry { incarnation: 1, command }).await.unwrap().unwrap()
    }

    pub(crate) fn tenant() -> TenantId {
        TenantId::new("a").unwrap()
    }

    /// The timestamps that a plan reads, in seconds.
    async fn read(heads: &SegmentHeads, writer: WriterId, added: SegmentNumber) -> Result<Vec<i64>, HeadError> {
        let all = [Matcher::new("__name__", MatchOp::Equal, "up").unwrap()];
        let plan = HeadPlan { writer, cut: 0, added };
        let found = heads.select(plan, &tenant(), &all, TimeRange::ALL, Shard::WHOLE).await?;
        let times = found.iter().flat_map(|(_, samples)| samples.iter().map(|sample| sample.t / 1000));
        Ok(times.collect())
    }

    #[tokio::test]
    async fn segments_on_both_sides_of_a_cut_point_are_read() {
        let orphan = Orphan::with_a_cut_point().await;
        assert_eq!(read(&orphan.heads(), orphan.writer, 3).await.unwrap(), [1, 2, 3]);
        let plan = HeadPlan { writer: orphan.writer, cut: 0, added: 3 };
        let names = orphan.heads().label_names(plan, &tenant(), &[], TimeRange::ALL).await.unwrap();
        assert_eq!(names, ["__name__", "__name__"]);
        orphan.group.close().await;
    }

    #[tokio::test]
    async fn an_older_plan_reads_no_more_than_it_names() {
        let orphan = Orphan::with_a_cut_point().await;
        let heads = orphan.heads();
        for (added, want) in [(1, vec![1]), (3, vec![1, 2, 3]), (1, vec![1]), (2, vec![1, 2]), (3, vec![1, 2, 3])] {
            assert_eq!(read(&heads, orphan.writer, added).await.unwrap(), want, "up to {added}");
        }
        orphan.group.close().await;
    }

    #[tokio::test]
    async fn what_was_put_aside_since_the_plan_is_planned_again() {
        let orphan = Orphan::with_a_cut_point().await;
        let writer = orphan.writer;
        propose(&orphan.group, Command::Fence { writer }).await;
        let granted = propose(&orphan.group, Command::GrantAdopt { writer, node: NodeId(1), number: 1 }).await;
        let Applied::AdoptGranted { lease, .. } = granted else { panic!("{granted:?}") };
        propose(&orphan.group, Command::Quarantine { writer, from: 2, upto: 3, lease }).await;
        let error = read(&orphan.heads(), writer, 3).await.unwrap_err();
        assert!(matches!(error, HeadError::PlanAgain(_)), "{error}");
        assert_eq!(read(&orphan.heads(), writer, 1).await.unwrap(), [1]);
        orphan.group.close().await;
    }

    #[tokio::test]
    async fn what_is_missing_is_planned_again() {
        let orphan = Orphan::with_a_cut_point().await;
        orphan.bucket.delete(&orphan.key(3)).await.unwrap();
        assert_eq!(read(&orphan.heads(), orphan.writer, 2).await.unwrap(), [1, 2]);
        let error = read(&orphan.heads(), orphan.writer, 3).await.unwrap_err();
        assert!(matches!(error, HeadError::PlanAgain(_)), "{error}");
        orphan.group.close().await;
    }
}
