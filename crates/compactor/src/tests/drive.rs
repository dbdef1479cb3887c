//! The driver with a real log and a real directory, and a clock that the test moves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bucket::{Bucket, Cluster, Effect, Fault, Folder, Operation};
use consensus::{Group, Machine, Start};
use parking_lot::Mutex;
use runtime::{ManualClock, Random, Registry, Shutdown, Stage, StopReason};
use tokio::task::JoinHandle;

use super::*;
use crate::*;

struct Node {
    group: IndexGroup,
    bucket: Bucket,
    cluster: Cluster,
    clock: ManualClock,
    shutdown: Shutdown,
    lowest_in_use: Arc<Mutex<Option<Revision>>>,
    running: JoinHandle<()>,
}

async fn start(dir: &Path) -> Node {
    let clock = ManualClock::new(0);
    let registry = Registry::new();
    let bucket = Bucket::open(&dir.join("bucket"), Arc::new(clock.clone()), &registry).await.unwrap();
    let cluster = match bucket.cluster().await.unwrap() {
        Some(cluster) => cluster,
        None => bucket.bootstrap(&Random::from_seed(1)).await.unwrap(),
    };
    let machine = Machine {
        apply: Index::apply,
        advance: Index::advance,
        encode: Entry::encode,
        decode: |bytes| Ok(Entry::decode(bytes)?),
        snapshot: Index::encode_checkpoint,
        restore: |bytes| Ok(Index::decode_checkpoint(bytes)?),
        hash: Index::state_hash,
    };
    let parts = consensus::Parts::system(Arc::new(clock.clone()), Random::from_system().unwrap(), registry.clone());
    let folder = dir.join("index");
    let begin = || Start::Bootstrap(Index::new(cluster.id, cluster.incarnation));
    let exists = IndexGroup::exists(&*parts.files, &folder);
    let start = if exists { Start::Existing } else { begin() };
    let group: IndexGroup = Group::open(&folder, machine, start, consensus::Settings::default(), parts).unwrap();
    check_index_is_newest(&bucket, group.read(Index::revision)).await.unwrap();
    let lowest_in_use = Arc::new(Mutex::new(None));
    let lowest = {
        let (pinned, group) = (lowest_in_use.clone(), group.clone());
        move || pinned.lock().unwrap_or_else(|| group.read(Index::revision))
    };
    let parts = Parts {
        group: group.clone(),
        bucket: bucket.clone(),
        cluster,
        clock: Arc::new(clock.clone()),
        registry,
        lowest_in_use: Arc::new(lowest),
    };
    let shutdown = Shutdown::new();
    // The clock runs a thousand times faster than the disk here.
    let settings = Settings { bucket_timeout: Duration::from_secs(1 << 30), ..Settings::default() };
    let compactor = Compactor::new(settings, parts);
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { compactor.run(shutdown).await }
    });
    Node { group, bucket, cluster, clock, shutdown, lowest_in_use, running }
}

impl Node {
    async fn propose(&self, entry: Entry) -> Applied {
        self.group.propose(entry).await.unwrap().unwrap()
    }

    /// Lets time go by until it is so.
    async fn until(&self, what: impl AsyncFn() -> bool) {
        for _ in 0..2000 {
            if what().await {
                return;
            }
            self.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("it never came to that");
    }

    async fn is_stored(&self) -> bool {
        read_stored(&self.bucket).await.unwrap().is_some_and(|index| index == self.group.read(Index::clone))
    }

    async fn has(&self, key: ObjectKey) -> bool {
        self.bucket.get(&key).await.is_ok()
    }

    async fn stop(self) {
        self.shutdown.advance(Stage::Closing);
        self.running.await.unwrap();
        self.group.close().await;
    }
}

/// A writer with segments 1 to 3, PUT and added.
async fn write(node: &Node) -> WriterId {
    let Applied::Registered { writer } = node.propose(entry(Command::Register { node: NodeId(1), nonce: 1 })).await
    else {
        panic!("registered")
    };
    for n in 1..=3 {
        node.bucket.put(&segment(writer, n, 0), "x".into()).await.unwrap();
        node.propose(add(writer, n, 0)).await;
    }
    writer
}

#[tokio::test]
async fn the_bucket_follows_the_index_and_a_stop_stores_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    node.until(async || node.is_stored().await).await;
    let w = write(&node).await;
    node.until(async || node.is_stored().await).await;
    assert!(!node.bucket.list(Folder::Changes).await.unwrap().is_empty());
    node.propose(add(w, 4, 0)).await;
    let (bucket, group) = (node.bucket.clone(), node.group.clone());
    node.stop().await;
    assert_eq!(read_stored(&bucket).await.unwrap().unwrap(), group.read(Index::clone));
    let checkpoints = bucket.list(Folder::Checkpoints).await.unwrap();
    assert_eq!(checkpoints.last().unwrap().key, ObjectKey::Checkpoint(group.read(Index::revision)));
    // And a new start goes on from there.
    drop((bucket, group));
    let node = start(dir.path()).await;
    node.propose(add(w, 5, 0)).await;
    node.until(async || node.is_stored().await).await;
    node.stop().await;
}

#[tokio::test]
async fn retired_segments_go_when_it_is_stored_and_nobody_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let w = write(&node).await;
    node.until(async || node.is_stored().await).await;
    *node.lowest_in_use.lock() = Some(node.group.read(Index::revision));

    // Nothing new gets into the bucket: the cut is not stored.
    let concerns = |key: &ObjectKey| matches!(key, ObjectKey::Changes { .. } | ObjectKey::Checkpoint(_));
    node.bucket.faults().plant(Fault { operation: Operation::Put, concerns, times: u32::MAX, effect: Effect::Fail });
    let block = block(Right::Writer(w), ObjectKey::cut_attempt(2, 0)).id.key();
    node.bucket.put(&block, "x".into()).await.unwrap();
    node.propose(own_cut(w, 0, 2, 0)).await;
    let later = node.clock.clone();
    for _ in 0..60 {
        later.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(node.has(segment(w, 1, 0)).await, "a recovery would need it");

    node.bucket.faults().clear();
    node.until(async || node.is_stored().await).await;
    for _ in 0..20 {
        later.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(node.has(segment(w, 1, 0)).await, "a plan reads it");

    *node.lowest_in_use.lock() = None;
    node.until(async || !node.has(segment(w, 1, 0)).await && !node.has(segment(w, 2, 0)).await).await;
    assert!(node.has(segment(w, 3, 0)).await && node.has(block).await);
    node.stop().await;
}

#[tokio::test]
async fn a_start_collects_what_nobody_ever_named() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let w = write(&node).await;
    // An uncommitted segment, and a block whose cut never came.
    node.bucket.put(&segment(w, 4, 0), "x".into()).await.unwrap();
    let orphan = block(Right::Writer(w), ObjectKey::cut_attempt(4, 0)).id.key();
    node.bucket.put(&orphan, "x".into()).await.unwrap();
    node.stop().await;

    let node = start(dir.path()).await;
    node.propose(entry(Command::Fence { writer: w })).await;
    node.propose(entry(Command::GrantAdopt { writer: w, node: NodeId(1), number: 1 })).await;
    let named = block(Right::Adopter(w, lease(1)), 0).id.key();
    node.bucket.put(&named, "x".into()).await.unwrap();
    node.propose(adopted_cut(w, 0, 3, lease(1), 0)).await;
    node.until(async || !node.has(segment(w, 4, 0)).await && !node.has(orphan).await).await;
    node.until(async || node.bucket.list(Folder::Segments).await.unwrap().is_empty()).await;
    assert!(node.has(named).await);
    node.stop().await;
}

#[tokio::test]
async fn old_checkpoints_and_changes_go_also_if_they_were_not_known_to_be_stored() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let w = write(&node).await;
    let concerns = |key: &ObjectKey| matches!(key, ObjectKey::Changes { .. } | ObjectKey::Checkpoint(_));
    for n in 4..40 {
        node.propose(add(w, n, 0)).await;
        if n % 4 == 0 {
            let effect = Effect::LoseAnswer;
            node.bucket.faults().plant(Fault { operation: Operation::Put, concerns, times: 1, effect });
        }
        node.clock.advance(Duration::from_secs(100));
        node.until(async || node.is_stored().await).await;
    }
    node.until(async || node.bucket.list(Folder::Checkpoints).await.unwrap().len() <= 3).await;
    assert!(node.bucket.list(Folder::Changes).await.unwrap().len() < 30);
    assert!(node.is_stored().await);
    node.stop().await;
}

#[tokio::test]
async fn another_cluster_s_bucket_stops_the_process_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let w = write(&node).await;
    node.until(async || node.is_stored().await).await;
    let text = std::fs::read_to_string(dir.path().join("bucket/cluster.json")).unwrap();
    let next_life = text.replace("\"incarnation\":1", "\"incarnation\":2");
    assert_ne!(text, next_life);
    std::fs::write(dir.path().join("bucket/cluster.json"), next_life).unwrap();
    node.propose(own_cut(w, 0, 3, 0)).await;
    node.until(async || node.shutdown.is_stopping()).await;
    assert!(matches!(node.shutdown.reason(), Some(StopReason::Failed(_))));
    assert!(node.has(segment(w, 1, 0)).await);
    node.stop().await;
}

#[tokio::test]
async fn an_old_copy_of_the_index_is_told_from_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    write(&node).await;
    node.until(async || node.is_stored().await).await;
    let here = node.group.read(Index::revision);
    check_index_is_newest(&node.bucket, here).await.unwrap();
    let old = Revision { position: here.position - 1, ..here };
    let error = check_index_is_newest(&node.bucket, old).await.unwrap_err();
    assert!(matches!(error, CompactorError::IndexBehind { .. }), "{error}");
    let _ = node.cluster;
    node.stop().await;
}

#[tokio::test]
async fn a_bucket_that_flips_bits_is_not_taken_for_storage() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    write(&node).await;
    let concerns = |key: &ObjectKey| matches!(key, ObjectKey::Changes { .. } | ObjectKey::Checkpoint(_));
    node.bucket.faults().plant(Fault { operation: Operation::Get, concerns, times: 3, effect: Effect::FlipBit });
    for _ in 0..100 {
        node.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    node.until(async || node.is_stored().await).await;
    node.stop().await;
}
