//! The ingester over a real bucket and a real log in a folder: what was acked is there, live and after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bucket::Bucket;
use index::{Entry, Index, NodeId};
use model::{Labels, MatchOp, Matcher, Sample, Samples, TenantId, TimeRange};
use proto::{DecodeLimits, WriteRequestBuilder};
use runtime::{Random, Registry, Shutdown, StopReason, SystemClock, Tasks};

use crate::{HeadPlan, IndexGroup, Ingester, Parts, PushError, Reason, Settings};

/// One life of a process over a folder.
pub(crate) struct Process {
    pub(crate) ingester: Ingester,
    pub(crate) group: IndexGroup,
    bucket: Arc<Bucket>,
    tasks: Tasks,
}

const CLUSTER: u128 = 7;

impl Process {
    async fn start(folder: &std::path::Path) -> Process {
        Process::start_with(folder, Settings::default()).await
    }

    async fn start_with(folder: &std::path::Path, settings: Settings) -> Process {
        Process::start_among(folder, settings, NodeId(1), None, None).await
    }

    /// One of several nodes: all but the first are given its index.
    pub(crate) async fn start_among(
        folder: &std::path::Path,
        settings: Settings,
        node: NodeId,
        group: Option<IndexGroup>,
        homes: Option<Arc<dyn crate::Homes>>,
    ) -> Process {
        let (clock, registry) = (SystemClock::shared(), Registry::new());
        let group = group.unwrap_or_else(|| open_group(folder, clock.clone(), registry.clone()));
        let bucket = open_bucket(folder, clock.clone(), &registry).await;
        let tasks = Tasks::new(Shutdown::new());
        let parts = Parts {
            group: group.clone(),
            bucket: bucket.clone(),
            clock,
            random: Random::from_system().unwrap(),
            registry,
            tasks: tasks.clone(),
            node,
            session: Arc::new(crate::AlwaysInSession),
            homes,
        };
        let ingester = Ingester::start(settings, parts).await.unwrap();
        Process { ingester, group, bucket, tasks }
    }

    async fn push(&self, tenant: &str, series: &[(&str, &[(i64, f64)])]) -> Result<(), PushError> {
        let mut builder = WriteRequestBuilder::new();
        for (name, samples) in series {
            builder.series(&labels(name), samples);
        }
        self.push_bytes(tenant, &builder.finish()).await
    }

    async fn push_bytes(&self, tenant: &str, body: &[u8]) -> Result<(), PushError> {
        let request = proto::decode_write_request(body, &DecodeLimits::default()).unwrap();
        let ticket = self.ingester.append(&TenantId::new(tenant).unwrap(), &request)?;
        ticket.durable().await
    }

    /// Everything that heads hold of a tenant.
    async fn heads(&self, tenant: &str) -> BTreeMap<Labels, Samples> {
        let plan = self.group.read(|index| index.plan(TimeRange::ALL));
        let all = [Matcher::new("__name__", MatchOp::Regex, ".+").unwrap()];
        let mut found: BTreeMap<Labels, Samples> = BTreeMap::new();
        for writer in plan.writers {
            let plan = HeadPlan { writer: writer.id, cut: writer.cut, added: writer.readable };
            let tenant = TenantId::new(tenant).unwrap();
            for (labels, samples) in self.ingester.heads().select(plan, &tenant, &all, TimeRange::ALL).await.unwrap() {
                found.entry(labels).or_default().merge(samples);
            }
        }
        found
    }

    /// Waits until the index satisfies a condition.
    async fn until(&self, holds: impl Fn(&Index) -> bool) {
        let mut applied = self.group.watch_applied();
        while !self.group.read(&holds) {
            applied.changed().await.unwrap();
        }
    }

    pub(crate) async fn stop_tasks(&self) {
        self.tasks.shutdown().begin(StopReason::Requested("the test ends".to_owned()));
        self.tasks.stop(&*SystemClock::shared(), |_| Duration::from_secs(30)).await;
    }

    async fn stop(self) {
        self.stop_tasks().await;
        self.group.close().await;
    }

    /// As kill -9 would: nothing is flushed or cut.
    async fn crash(self) {
        self.group.close().await;
    }
}

fn open_group(folder: &std::path::Path, clock: Arc<dyn runtime::Clock>, registry: Registry) -> IndexGroup {
    let machine = consensus::Machine {
        apply: |index: &mut Index, position, entry: &Entry| index.apply(position, entry),
        advance: Index::advance,
        encode: Entry::encode,
        decode: |bytes| Ok(Entry::decode(bytes)?),
        snapshot: Index::encode_checkpoint,
        restore: |bytes| Ok(Index::decode_checkpoint(bytes)?),
        hash: Index::state_hash,
    };
    let parts = consensus::Parts::system(clock, runtime::Random::from_system().unwrap(), registry);
    let folder = folder.join("index");
    let begin = || consensus::Start::Bootstrap(Index::new(CLUSTER, 1));
    let exists = IndexGroup::exists(&*parts.files, &folder);
    let start = if exists { consensus::Start::Existing } else { begin() };
    IndexGroup::open(&folder, machine, start, consensus::Settings::default(), parts).unwrap()
}

async fn open_bucket(folder: &std::path::Path, clock: Arc<dyn runtime::Clock>, registry: &Registry) -> Arc<Bucket> {
    Arc::new(Bucket::open(&folder.join("bucket"), clock, registry).await.unwrap())
}

fn labels(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("job", "test")]).unwrap()
}

fn samples(pairs: &[(i64, f64)]) -> Samples {
    pairs.iter().map(|&(t, v)| Sample::float(t, v)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acked_is_visible_at_once_and_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).await;
    process.push("a", &[("up", &[(1000, 1.0), (2000, 2.5)]), ("down", &[(1000, -0.0)])]).await.unwrap();
    process.push("a", &[("up", &[(3000, f64::INFINITY), (2000, 2.0)])]).await.unwrap();
    process.push("b", &[("up", &[(1000, 9.0)])]).await.unwrap();
    let want_a: BTreeMap<_, _> = [
        (labels("up"), samples(&[(1000, 1.0), (2000, 2.5), (3000, f64::INFINITY)])),
        (labels("down"), samples(&[(1000, -0.0)])),
    ]
    .into();
    assert_eq!(process.heads("a").await, want_a);
    process.crash().await;

    let process = Process::start(folder.path()).await;
    // The dead writer's samples are in its adopted head, or in its block already: then this head is empty.
    process.until(|index| index.writers().count() == 1).await;
    let block = process.group.read(|index| *index.blocks().next().unwrap());
    assert_eq!((block.series, block.samples), (3, 5));
    assert!(process.heads("a").await.is_empty());
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_cuts_and_a_cut_spells_series_anew() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).await;
    process.push("a", &[("up", &[(1000, 1.0)])]).await.unwrap();
    process.ingester.cut_now();
    process.until(|index| index.blocks().count() == 1).await;
    process.push("a", &[("up", &[(2000, 2.0)])]).await.unwrap();
    assert_eq!(process.heads("a").await, [(labels("up"), samples(&[(2000, 2.0)]))].into());
    process.stop().await;

    let process = Process::start(folder.path()).await;
    process.until(|index| index.writers().count() == 1).await;
    let blocks = process.group.read(|index| index.blocks().map(|block| block.samples).collect::<Vec<_>>());
    assert_eq!(blocks, [1, 1]);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_sample_costs_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).await;
    let mut builder = WriteRequestBuilder::new();
    builder.series(&labels("up"), &[(1000, 1.0), (-1, 2.0), (i64::MAX, 3.0)]);
    let mut add = |labels: &[(&str, &str)], sample| {
        builder.series_of(labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &[sample], &[]);
    };
    add(&[("job", "nameless")], (1000, 1.0));
    add(&[("__name__", "twice"), ("a", "1"), ("a", "2")], (1000, 1.0));
    add(&[("job", "test"), ("__name__", "up")], (5000, 5.0));
    let error = process.push_bytes("a", &builder.finish()).await.unwrap_err();
    let PushError::Rejected(rejected) = &error else { panic!("{error}") };
    let reasons: Vec<_> = rejected.counts().collect();
    let one = |reason| (reason, 1);
    let mut want =
        [Reason::MissingMetricName, Reason::InvalidLabels, Reason::BeforeEpoch, Reason::MaxFuture].map(one).to_vec();
    want.sort();
    assert_eq!(reasons, want);
    assert_eq!(process.heads("a").await, [(labels("up"), samples(&[(1000, 1.0), (5000, 5.0)]))].into());
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_does_not_decode_is_put_aside_and_the_rest_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).await;
    let writer = process.group.read(|index| index.writers().next().unwrap().0);
    process.push("a", &[("up", &[(1000, 1.0)])]).await.unwrap();
    process.push("a", &[("up", &[(2000, 2.0)])]).await.unwrap();
    process.push("a", &[("up", &[(3000, 3.0)])]).await.unwrap();
    let key = model::ObjectKey::Segment { writer, n: 2, attempt: 0 };
    process.crash().await;
    let path = folder.path().join("bucket").join(key.to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();

    let process = Process::start(folder.path()).await;
    process.until(|index| index.writers().count() == 1).await;
    let (aside, samples) = process.group.read(|index| {
        let aside: Vec<_> = index.quarantined().map(|q| (q.writer, q.from, q.upto)).collect();
        (aside, index.blocks().map(|block| block.samples).sum::<u64>())
    });
    assert_eq!((aside, samples), (vec![(writer, 2, 3)], 1));
    process.push("a", &[("up", &[(4000, 4.0)])]).await.unwrap();
    process.stop().await;
    assert!(path.exists(), "what is put aside is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_memory_refuses_new_series_first() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start_with(folder.path(), Settings { memory_bytes_max: 1, ..Settings::default() }).await;
    let error = process.push("a", &[("up", &[(1000, 1.0)])]).await.unwrap_err();
    assert!(matches!(error, PushError::Memory { .. }), "{error}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_senders_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Cut by size again and again while they send.
    let settings = Settings { head_bytes_max: 20_000, flush_interval_min: Duration::ZERO, ..Settings::default() };
    let process = Arc::new(Process::start_with(folder.path(), settings).await);
    let senders = (0..4).map(|sender| {
        let process = process.clone();
        tokio::spawn(async move {
            for step in 0..50 {
                let name = |i: usize| format!("metric_{sender}_{i}");
                let names: Vec<String> = (0..20).map(name).collect();
                let sample = [(step * 1000, step as f64)];
                let series: Vec<(&str, &[(i64, f64)])> = names.iter().map(|n| (n.as_str(), &sample[..])).collect();
                process.push("a", &series).await.unwrap();
            }
        })
    });
    for sender in futures::future::join_all(senders).await {
        sender.unwrap();
    }
    let process = Arc::into_inner(process).unwrap();
    assert!(process.group.read(|index| index.blocks().count()) > 1, "it was cut while they sent");
    process.stop().await;
    let group = open_group(folder.path(), SystemClock::shared(), Registry::new());
    let (blocks, left) = group.read(|index| {
        (
            index.blocks().map(|block| block.samples).sum::<u64>(),
            index.writers().map(|(_, w)| w.added - w.cut).sum::<u64>(),
        )
    });
    assert_eq!((blocks, left), (4 * 50 * 20, 0));
    group.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_fenced_while_it_lives_is_born_again_and_adopted() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).await;
    let first = process.group.read(|index| index.writers().next().unwrap().0);
    process.push("a", &[("up", &[(1000, 1.0)])]).await.unwrap();
    let propose = |command| process.group.propose(Entry { incarnation: 1, command });
    propose(index::Command::Fence { writer: first }).await.unwrap().unwrap();
    // A request that meets the fence is answered 503, and its sender tries again.
    while let Err(refused) = process.push("a", &[("up", &[(2000, 2.0)]), ("down", &[(2000, 0.0)])]).await {
        assert!(matches!(refused, PushError::Fenced), "{refused}");
    }
    let second = process.group.read(|index| index.writers().map(|(id, _)| id).max().unwrap());
    assert!(second > first);
    let mut want: BTreeMap<_, _> =
        [(labels("up"), samples(&[(1000, 1.0), (2000, 2.0)])), (labels("down"), samples(&[(2000, 0.0)]))].into();
    assert_eq!(process.heads("a").await, want, "the old head answers until somebody adopts it");

    let grant = |node, number| propose(index::Command::GrantAdopt { writer: first, node, number });
    grant(NodeId(1), 1).await.unwrap().unwrap();
    process.until(|index| index.writers().all(|(id, _)| id == second)).await;
    assert_eq!(process.group.read(|index| index.blocks().map(|block| block.samples).sum::<u64>()), 1);
    want.insert(labels("up"), samples(&[(2000, 2.0)]));
    assert_eq!(process.heads("a").await, want);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_above_a_cut_that_was_never_committed_are_adopted_with_those_below() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).await;
    process.push("a", &[("up", &[(1000, 1.0)]), ("down", &[(1000, 7.0)])]).await.unwrap();
    // The block does not get through, so the cut is not committed; what follows spells its series anew all the same.
    process.bucket.faults().plant(bucket::Fault {
        operation: bucket::Operation::Put,
        concerns: |key| matches!(key, model::ObjectKey::Block { .. }),
        times: u32::MAX,
        effect: bucket::Effect::Fail,
    });
    process.ingester.cut_now();
    while !process.ingester.heads().is_any_frozen() {
        tokio::task::yield_now().await;
    }
    process.push("a", &[("other", &[(2000, 3.0)]), ("up", &[(2000, 2.0)])]).await.unwrap();
    process.push("a", &[("up", &[(3000, 3.5)])]).await.unwrap();
    process.crash().await;

    let process = Process::start(folder.path()).await;
    process.until(|index| index.writers().count() == 1).await;
    let (aside, blocks) = process.group.read(|index| {
        (index.quarantined().count(), index.blocks().map(|block| (block.series, block.samples)).collect::<Vec<_>>())
    });
    assert_eq!((aside, blocks), (0, vec![(3, 5)]));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_another_node_adopts_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).await;
    let first = process.group.read(|index| index.writers().next().unwrap().0);
    process.push("a", &[("up", &[(1000, 1.0)])]).await.unwrap();
    let propose = |command| process.group.propose(Entry { incarnation: 1, command });
    propose(index::Command::Fence { writer: first }).await.unwrap().unwrap();
    let grant = index::Command::GrantAdopt { writer: first, node: NodeId(2), number: 1 };
    propose(grant).await.unwrap().unwrap();
    let plan = HeadPlan { writer: first, cut: 0, added: 1 };
    let all = [Matcher::new("__name__", MatchOp::Regex, ".+").unwrap()];
    loop {
        let tenant = TenantId::new("a").unwrap();
        match process.ingester.heads().select(plan, &tenant, &all, TimeRange::ALL).await {
            Err(crate::HeadsError::Unknown(writer)) if writer == first => break,
            Ok(_) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
    process.stop().await;
}
