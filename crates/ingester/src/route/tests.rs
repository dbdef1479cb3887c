//! Three ingesters over one index, and a network between them that can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Labels, MatchOp, Matcher, NodeId, Samples, TenantId, TimeRange, Value};
use parking_lot::Mutex;
use proto::{DecodeLimits, WriteRequestBuilder};
use runtime::SystemClock;

use super::{Homes, NotTaken};
use crate::tests::Process;
use crate::{HeadPlan, PushError, Reason, Settings};

/// How a node fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It says that it takes nothing.
    Refuses,
    /// Nobody is there.
    Unreachable,
    /// It is there, and never says anything.
    Hangs,
    /// It takes parts, and its answers are lost.
    LosesAnswers,
}

#[derive(Default)]
struct Network {
    nodes: Mutex<BTreeMap<NodeId, crate::Ingester>>,
    faults: Mutex<BTreeMap<NodeId, Fault>>,
    /// The forms of the parts that were sent.
    forms: Mutex<Vec<Form>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Labels,
    Hashes,
}

/// What a node reaches of it.
#[derive(Clone)]
struct Link(Arc<Network>);

fn silent() -> NotTaken {
    NotTaken::Silent("nobody is there".to_owned())
}

/// Whoever is reached behind a fault.
async fn meet(
    fault: Option<Fault>,
    ingester: Option<crate::Ingester>,
    limit: Duration,
) -> Result<Option<crate::Ingester>, NotTaken> {
    match fault {
        Some(Fault::Unreachable) => Err(silent()),
        Some(Fault::Refuses) => Err(NotTaken::Refused("not now".to_owned())),
        Some(Fault::Hangs) => {
            let never = std::future::pending::<()>();
            runtime::timeout(&SystemClock, limit, never).await.map_err(|_| silent())?;
            Ok(None)
        }
        Some(Fault::LosesAnswers) | None => Ok(ingester),
    }
}

impl Homes for Link {
    fn append(&self, node: NodeId, part: Bytes, limit: Duration) -> BoxFuture<'static, Result<Bytes, NotTaken>> {
        let fault = self.0.faults.lock().get(&node).copied();
        let ingester = self.0.nodes.lock().get(&node).cloned();
        let form = match super::part::decode(&part).unwrap() {
            (_, super::part::Part::WithLabels(_)) => Form::Labels,
            (_, super::part::Part::WithHashes(_)) => Form::Hashes,
        };
        self.0.forms.lock().push(form);
        async move {
            let Some(ingester) = meet(fault, ingester, limit).await? else { return Err(silent()) };
            let taken = ingester.take_part(&part).map_err(|error| NotTaken::Refused(error.to_string()))?;
            let answer = taken.await.map_err(|error| NotTaken::Refused(error.to_string()))?;
            if fault == Some(Fault::LosesAnswers) { Err(silent()) } else { Ok(answer) }
        }
        .boxed()
    }

    fn ask(&self, node: NodeId, limit: Duration) -> BoxFuture<'static, Result<(), NotTaken>> {
        let fault = self.0.faults.lock().get(&node).copied();
        let ingester = self.0.nodes.lock().get(&node).cloned();
        async move {
            let Some(ingester) = meet(fault, ingester, limit).await? else { return Err(silent()) };
            ingester.takes_parts().map_err(|error| NotTaken::Refused(error.to_string()))
        }
        .boxed()
    }
}

/// Three nodes over one index and one bucket.
struct Three {
    network: Arc<Network>,
    /// The first one's process holds the index.
    nodes: Vec<Process>,
}

impl Three {
    async fn start(folder: &Path) -> Three {
        Three::start_with(folder, |_| Settings::default()).await
    }

    async fn start_with(folder: &Path, settings: impl Fn(usize) -> Settings) -> Three {
        let network = Arc::new(Network::default());
        let link: Arc<dyn Homes> = Arc::new(Link(network.clone()));
        let mut nodes: Vec<Process> = Vec::new();
        for i in 0..3 {
            let group = nodes.first().map(|first| first.group.clone());
            let node = node_id(i);
            let process = Process::start_among(folder, settings(i), node, group, Some(link.clone())).await;
            network.nodes.lock().insert(node, process.ingester.clone());
            nodes.push(process);
        }
        Three { network, nodes }
    }

    fn fail(&self, i: usize, fault: Option<Fault>) {
        let mut faults = self.network.faults.lock();
        match fault {
            Some(fault) => faults.insert(node_id(i), fault),
            None => faults.remove(&node_id(i)),
        };
    }

    async fn push(&self, through: usize, body: &[u8]) -> Result<(), PushError> {
        let request = proto::decode_write_request(body, &DecodeLimits::default()).unwrap();
        self.nodes[through].ingester.push(&tenant(), request)?.durable().await
    }

    /// What a node's own head holds.
    async fn head(&self, i: usize) -> BTreeMap<Labels, Samples> {
        let plan = self.nodes[0].group.read(|index| index.plan(TimeRange::ALL));
        let all = [Matcher::new("__name__", MatchOp::Regex, ".+").unwrap()];
        let mut found = BTreeMap::new();
        for writer in plan.writers {
            let node = self.nodes[0].group.read(|index| index.writer(writer.id).unwrap().node);
            if node == node_id(i) {
                let plan = HeadPlan { writer: writer.id, cut: writer.cut, added: writer.readable };
                let heads = self.nodes[i].ingester.heads();
                found.extend(heads.select(plan, &tenant(), &all, TimeRange::ALL).await.unwrap());
            }
        }
        found
    }

    /// What all heads hold, merged, as a query sees it.
    async fn all(&self) -> BTreeMap<Labels, Samples> {
        let mut found: BTreeMap<Labels, Samples> = BTreeMap::new();
        for i in 0..3 {
            for (labels, samples) in self.head(i).await {
                found.entry(labels).or_default().merge(samples);
            }
        }
        found
    }

    fn forwarded(&self) -> u64 {
        self.nodes.iter().map(|node| node.ingester.shared.metrics.parts_forwarded.get()).sum()
    }

    /// The forms of the parts that were sent since the last time, sorted.
    fn forms(&self) -> Vec<Form> {
        let mut forms = std::mem::take(&mut *self.network.forms.lock());
        forms.sort_unstable();
        forms
    }

    fn samples_taken(&self) -> u64 {
        self.nodes.iter().map(|node| node.ingester.shared.metrics.samples.get()).sum()
    }

    async fn stop(self) {
        self.network.nodes.lock().clear();
        for node in self.nodes.iter().rev() {
            node.stop_tasks().await;
        }
        self.nodes[0].group.close().await;
    }
}

fn node_id(i: usize) -> NodeId {
    // As they are drawn: anything.
    NodeId([0x9e37_79b9_7f4a_7c15, 0x1234_5678_9abc_def0, 0xfeed_f00d_dead_beef][i])
}

fn tenant() -> TenantId {
    TenantId::new("a").unwrap()
}

fn series(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())]).unwrap()
}

const SERIES: usize = 60;

/// One sample of every series.
fn request(t: i64) -> Vec<u8> {
    let mut builder = WriteRequestBuilder::new();
    (0..SERIES).for_each(|i| {
        builder.series(&series(i), &[(t, i as f64)]);
    });
    builder.finish()
}

async fn check_all_there(three: &Three, times: &[i64]) {
    let all = three.all().await;
    assert_eq!(all.len(), SERIES);
    for (labels, samples) in all {
        assert_eq!(samples.timestamps, times, "{labels}");
        let own = Value::Float(labels.get("i").unwrap().parse().unwrap());
        assert!(samples.iter().all(|sample| sample.v == own), "{labels}: {samples:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_has_one_head_through_whichever_node_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let three = Three::start(folder.path()).await;
    for (through, t) in [(0, 1000), (1, 2000), (2, 3000), (0, 4000)] {
        three.push(through, &request(t)).await.unwrap();
    }
    let mut seen = BTreeSet::new();
    for i in 0..3 {
        let head = three.head(i).await;
        assert!(head.len() > SERIES / 6, "node {i} has {} series", head.len());
        for (labels, samples) in head {
            assert_eq!(samples.timestamps, [1000, 2000, 3000, 4000]);
            assert!(seen.insert(labels));
        }
    }
    assert_eq!(seen.len(), SERIES);
    assert_eq!(three.forwarded(), 2 * 4);
    let in_flight = three.nodes.iter().map(|node| node.ingester.shared.router.in_flight_bytes());
    assert_eq!(in_flight.sum::<usize>(), 0);
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_sample_costs_no_other_wherever_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let three = Three::start(folder.path()).await;
    for (through, t) in [(0, 1000), (1, 2000), (2, 3000), (0, 4000), (1, 5000)] {
        let mut builder = WriteRequestBuilder::new();
        for i in 0..SERIES {
            builder.series(&series(i), &[(t, i as f64), (-1, 0.0)]);
            let twice = [("__name__", "twice"), ("a", &i.to_string()), ("a", "2")];
            builder.series_of(twice.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &[(t, 1.0)], &[]);
        }
        let error = three.push(through, &builder.finish()).await.unwrap_err();
        let PushError::Rejected(rejected) = &error else { panic!("{error}") };
        let counts: Vec<_> = rejected.counts().collect();
        assert_eq!(counts, [(Reason::InvalidLabels, SERIES as u64), (Reason::BeforeEpoch, SERIES as u64)]);
        assert_eq!(error.to_string().lines().count(), 11, "{error}");
    }
    check_all_there(&three, &[1000, 2000, 3000, 4000, 5000]).await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_is_sent_hashes_as_long_as_it_knows_every_series() {
    use Form::{Hashes, Labels};
    let folder = tempfile::tempdir().unwrap();
    let three = Three::start(folder.path()).await;
    let push = async |body: &[u8]| {
        let before = three.samples_taken();
        three.push(0, body).await.unwrap();
        (three.forms(), three.samples_taken() - before)
    };
    // The first answers say how to hash.
    assert_eq!(push(&request(1000)).await, (vec![Labels; 2], SERIES as u64));
    assert_eq!(push(&request(2000)).await, (vec![Hashes; 2], SERIES as u64));
    check_all_there(&three, &[1000, 2000]).await;

    // With a series that is new to each home: nothing is taken twice.
    let mut builder = WriteRequestBuilder::new();
    for i in 0..2 * SERIES {
        builder.series(&series(i), &[(3000, 3.0), (3001, f64::NAN)]);
    }
    let body = builder.finish();
    assert_eq!(push(&body).await, (vec![Labels, Labels, Hashes, Hashes], 4 * SERIES as u64));
    assert_eq!(push(&body).await.0, [Hashes; 2]);

    // A histogram goes with labels.
    let mut builder = WriteRequestBuilder::new();
    let histogram = model::Histogram::default();
    (0..SERIES).for_each(|i| {
        builder.histograms(&series(i), &[(4000, histogram.clone())]);
    });
    assert_eq!(push(&builder.finish()).await, (vec![Labels; 2], SERIES as u64));

    // Each cut of a head wants the labels once.
    for node in &three.nodes {
        let metrics = &node.ingester.shared.metrics;
        node.ingester.cut_now();
        while metrics.cuts.get() == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(push(&request(5000)).await, (vec![Labels, Labels, Hashes, Hashes], SERIES as u64));
    assert_eq!(push(&request(6000)).await, (vec![Hashes; 2], SERIES as u64));
    check_all_there(&three, &[5000, 6000]).await;

    // A new process has another key, and says so.
    let hashers = &three.nodes[0].ingester.shared.router.hashers;
    let known = hashers.next(node_id(1)).unwrap();
    let of_before = crate::series_table::SeriesHasher::new([1, 2, 3, 4]);
    assert_ne!(known, of_before);
    hashers.told(node_id(1), of_before);
    assert_eq!(push(&request(7000)).await, (vec![Labels, Hashes, Hashes], SERIES as u64));
    assert_eq!(hashers.next(node_id(1)), Some(known));
    check_all_there(&three, &[5000, 6000, 7000]).await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_that_is_refused_is_told_of_by_name_also_if_its_series_is_known() {
    use Form::{Hashes, Labels};
    let folder = tempfile::tempdir().unwrap();
    let three = Three::start(folder.path()).await;
    three.push(0, &request(1000)).await.unwrap();
    three.push(0, &request(2000)).await.unwrap();
    assert_eq!(three.forms(), [Labels, Labels, Hashes, Hashes]);
    let mut builder = WriteRequestBuilder::new();
    (0..SERIES).for_each(|i| {
        builder.series(&series(i), &[(3000, i as f64), (-1, 0.0)]);
    });
    let error = three.push(0, &builder.finish()).await.unwrap_err();
    let PushError::Rejected(rejected) = &error else { panic!("{error}") };
    assert_eq!(rejected.counts().collect::<Vec<_>>(), [(Reason::BeforeEpoch, SERIES as u64)]);
    assert!(error.to_string().contains("__name__=\"m\""), "{error}");
    assert_eq!(three.forms(), [Labels, Labels, Hashes, Hashes]);
    check_all_there(&three, &[1000, 2000, 3000]).await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_room_with_labels_only_goes_with_labels() {
    use Form::{Hashes, Labels};
    let folder = tempfile::tempdir().unwrap();
    let three = Three::start(folder.path()).await;
    three.push(0, &request(1000)).await.unwrap();
    three.push(0, &request(2000)).await.unwrap();
    assert_eq!(three.forms(), [Labels, Labels, Hashes, Hashes]);
    // With labels some 40 series take 60 bytes each, with hashes 39 each beside.
    let in_flight = &three.nodes[0].ingester.shared.router.in_flight_bytes;
    let taken = Settings::default().forward_bytes_max - 3000 - super::PART_OVERHEAD_BYTES;
    in_flight.fetch_add(taken, Ordering::Relaxed);
    three.push(0, &request(3000)).await.unwrap();
    assert_eq!(three.forms(), [Labels; 2]);
    in_flight.fetch_sub(taken, Ordering::Relaxed);
    three.push(0, &request(4000)).await.unwrap();
    assert_eq!(three.forms(), [Hashes; 2]);
    check_all_there(&three, &[1000, 2000, 3000, 4000]).await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hash_of_one_tenant_is_no_series_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let three = Three::start(folder.path()).await;
    three.push(0, &request(1000)).await.unwrap();
    let body = request(2000);
    let decoded = proto::decode_write_request(&body, &DecodeLimits::default()).unwrap();
    let other = TenantId::new("b").unwrap();
    three.nodes[0].ingester.push(&other, decoded).unwrap().durable().await.unwrap();
    use Form::{Hashes, Labels};
    assert_eq!(three.forms(), [Labels, Labels, Labels, Labels, Hashes, Hashes]);
    check_all_there(&three, &[1000]).await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_home_does_not_take_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let three = Three::start(folder.path()).await;
    let mut times = vec![1, 2];
    three.push(0, &request(1)).await.unwrap();
    three.push(2, &request(2)).await.unwrap();
    // From here on parts have hashes.
    for fault in [Fault::Refuses, Fault::Unreachable, Fault::Hangs, Fault::LosesAnswers] {
        three.fail(1, Some(fault));
        for through in [0, 2, 0] {
            let t = 1000 * times.len() as i64;
            three.push(through, &request(t)).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            times.push(t);
        }
        check_all_there(&three, &times).await;
        three.fail(1, None);
        // Nobody has to write for it to be asked; but somebody has to look.
        while three.nodes[0].ingester.shared.candidates(&[]).len() < 3 {
            tokio::task::yield_now().await;
        }
        while three.nodes[2].ingester.shared.candidates(&[]).len() < 3 {
            tokio::task::yield_now().await;
        }
    }
    // Nobody else is there: all stays here.
    three.fail(1, Some(Fault::Unreachable));
    three.fail(2, Some(Fault::Refuses));
    times.push(99_000);
    three.push(0, &request(99_000)).await.unwrap();
    assert_eq!(three.head(0).await.len(), SERIES);
    check_all_there(&three, &times).await;
    three.fail(1, None);
    three.fail(2, None);
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_store_segments_hands_all_of_it_on() {
    let folder = tempfile::tempdir().unwrap();
    let three = Three::start(folder.path()).await;
    *three.nodes[1].ingester.shared.failing.lock() = Some("the bucket is out of reach".to_owned());
    let mut builder = WriteRequestBuilder::new();
    (0..SERIES).for_each(|i| {
        builder.series(&series(i), &[(1000, i as f64)]);
    });
    builder.metadata(model::MetricKind::Gauge, "m", "", "help");
    three.push(1, &builder.finish()).await.unwrap();
    three.push(0, &request(2000)).await.unwrap();
    assert_eq!(three.head(1).await.len(), 0);
    check_all_there(&three, &[1000, 2000]).await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_that_a_home_has_no_memory_for_go_elsewhere_and_only_they() {
    // A node that has taken its part of the first request uses more than 80 % of this.
    let folder = tempfile::tempdir().unwrap();
    let three = Three::start(folder.path()).await;
    three.push(0, &request(1000)).await.unwrap();
    let used = three.nodes[1].ingester.shared.memory_bytes();
    three.stop().await;

    let folder = tempfile::tempdir().unwrap();
    let limited = |i| match i {
        1 => Settings { memory_bytes_max: used * 11 / 10, ..Settings::default() },
        _ => Settings::default(),
    };
    let three = Three::start_with(folder.path(), limited).await;
    three.push(0, &request(1000)).await.unwrap();
    let before = three.head(1).await;
    for through in 0..3 {
        let mut builder = WriteRequestBuilder::new();
        for i in 0..SERIES {
            let t = 2000 + through as i64;
            builder.series(&series(i), &[(t, 1.0)]).series(&series(1000 * (through + 1) + i), &[(t, 1.0)]);
        }
        three.push(through, &builder.finish()).await.unwrap();
    }
    let keys = |head: &BTreeMap<Labels, Samples>| head.keys().cloned().collect::<Vec<_>>();
    let full = three.head(1).await;
    assert!(!full.is_empty());
    assert_eq!(keys(&full), keys(&before));
    assert!(full.values().all(|samples| samples.len() == 4));
    assert_eq!(three.all().await.len(), 4 * SERIES);
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_memory_to_send_a_request_stays_here() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { forward_bytes_max: 2048, ..Settings::default() };
    let three = Three::start_with(folder.path(), |_| settings.clone()).await;
    three.push(0, &request(1000)).await.unwrap();
    assert_eq!((three.head(0).await.len(), three.forwarded()), (SERIES, 0));
    // It can't be stored here either. The commit has said that it can, last of all that it does.
    while three.nodes[0].ingester.shared.metrics.segments_committed.get() < 1 {
        tokio::task::yield_now().await;
    }
    *three.nodes[0].ingester.shared.failing.lock() = Some("the bucket is out of reach".to_owned());
    let error = three.push(0, &request(2000)).await.unwrap_err();
    assert!(matches!(error, PushError::ForwardsFull { max_bytes: 2048, .. }), "{error}");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_all_is_an_error_that_passes() {
    let folder = tempfile::tempdir().unwrap();
    let three = Three::start(folder.path()).await;
    three.fail(1, Some(Fault::Refuses));
    three.fail(2, Some(Fault::Refuses));
    three.nodes[0].ingester.shared.appender.lock().close();
    let error = three.push(0, &request(1000)).await.unwrap_err();
    assert_eq!(error.kind(), crate::Kind::Unavailable, "{error}");
    three.stop().await;
}
