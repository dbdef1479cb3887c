//! What every bucket must do, whatever lies beneath; and what the local directory must do beside.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{Lease, ObjectKey, Revision, Right, WriterId};
use runtime::{Random, Registry, SystemClock};

use super::*;
use crate::s3_server::{self, Asked, Fate, S3Server};

fn segment(position: u64, n: u64) -> ObjectKey {
    ObjectKey::Segment { writer: WriterId(Revision { incarnation: 1, position }), n, attempt: 0 }
}

fn block(number: u64, attempt: u64) -> ObjectKey {
    ObjectKey::Block { right: Right::Compactor(Lease { incarnation: 1, number }), attempt }
}

async fn local(dir: &Path) -> Bucket {
    Bucket::open(dir, SystemClock::shared(), &Registry::new()).await.unwrap()
}

async fn s3(server: &S3Server, prefix: &str) -> Bucket {
    let secret = |name: &str, text: &str| (name.to_owned(), runtime::Secret::new(text));
    let remote = Remote {
        endpoint: Some(server.endpoint()),
        credentials: vec![
            secret("AWS_ACCESS_KEY_ID", s3_server::ACCESS_KEY_ID),
            secret("AWS_SECRET_ACCESS_KEY", s3_server::SECRET_ACCESS_KEY),
        ],
        ca_pem: server.certificate_pem().map(|pem| pem.as_bytes().to_vec()),
        ..Remote::new(Protocol::S3, s3_server::BUCKET, prefix)
    };
    Bucket::open(Location::Remote(remote), SystemClock::shared(), &Registry::new()).await.unwrap()
}

fn keys(listed: &[Listed]) -> Vec<ObjectKey> {
    listed.iter().map(|listed| listed.key).collect()
}

/// Every bucket, S3 included, passes this, starting empty.
async fn conformance(bucket: &Bucket) {
    let kind = |error: BucketError| error.kind();
    // Nothing is there, and the error says what was asked of what.
    let missing = bucket.get(&segment(1, 1)).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().starts_with("get segments/1.00000000000000000001/"), "{missing}");
    assert_eq!(bucket.get_ranges(&segment(1, 1), &[0..1, 2..3]).await.map_err(kind), Err(ErrorKind::NotFound));
    assert_eq!(bucket.list(Folder::Segments).await.unwrap(), []);

    // A bucket is nobody's, then one cluster's for ever.
    assert_eq!(bucket.cluster().await.unwrap(), None);
    let random = Random::from_seed(1);
    let cluster = bucket.bootstrap(&random).await.unwrap();
    assert_eq!(bucket.cluster().await.unwrap(), Some(cluster));
    bucket.check_cluster(&cluster).await.unwrap();
    assert!(matches!(bucket.bootstrap(&random).await, Err(BucketError::NotEmpty { .. })));
    let next_life = Cluster { incarnation: 2, ..cluster };
    assert_eq!(bucket.check_cluster(&next_life).await.map_err(kind), Err(ErrorKind::OtherCluster));

    // What was put is there, and stays when it is put again.
    let text: Bytes = "0123456789".into();
    for _ in 0..2 {
        bucket.put(&segment(1, 2), text.clone()).await.unwrap();
    }
    assert_eq!(bucket.get(&segment(1, 2)).await.unwrap(), text);
    bucket.put(&segment(1, 1), Bytes::new()).await.unwrap();
    assert_eq!(bucket.get(&segment(1, 1)).await.unwrap(), "");

    // Ranges come in the order asked for, overlapping or not, and each whole.
    let ranges = [7..10, 0..3, 2..5, 3..4, 4..4];
    let pieces = bucket.get_ranges(&segment(1, 2), &ranges).await.unwrap();
    assert_eq!(pieces, ["789", "012", "234", "3", ""]);
    assert_eq!(bucket.get_ranges(&segment(1, 2), &[]).await.unwrap().len(), 0);
    for range in [8..11, 10..11, 20..30] {
        let short = bucket.get_ranges(&segment(1, 2), std::slice::from_ref(&range)).await.unwrap_err();
        assert!(matches!(short, BucketError::TooShort { bytes: 10, end, .. } if end == range.end), "{short}");
    }

    // Listings are sorted, and of one folder.
    for key in [segment(10, 1), segment(2, 10), segment(2, 9), block(2, 1), block(1, 0), block(10, 0)] {
        bucket.put(&key, text.clone()).await.unwrap();
    }
    let listed = bucket.list(Folder::Segments).await.unwrap();
    let all = [segment(1, 1), segment(1, 2), segment(2, 9), segment(2, 10), segment(10, 1)];
    assert_eq!(keys(&listed), all);
    assert_eq!((listed[0].bytes, listed[1].bytes), (0, 10));
    let writer = WriterId(Revision { incarnation: 1, position: 2 });
    assert_eq!(keys(&bucket.list(Folder::SegmentsOf(writer)).await.unwrap()), [segment(2, 9), segment(2, 10)]);
    assert_eq!(keys(&bucket.list(Folder::Blocks).await.unwrap()), [block(1, 0), block(2, 1), block(10, 0)]);
    let right = Right::Compactor(Lease { incarnation: 1, number: 1 });
    assert_eq!(keys(&bucket.list(Folder::BlocksOf(right)).await.unwrap()), [block(1, 0)], "1, and not 10");
    assert_eq!(keys(&bucket.list(Folder::Checkpoints).await.unwrap()), []);

    // Gone is gone, and deleting again is no error.
    for _ in 0..2 {
        bucket.delete(&segment(1, 2)).await.unwrap();
    }
    assert_eq!(bucket.get(&segment(1, 2)).await.map_err(kind), Err(ErrorKind::NotFound));
    assert_eq!(bucket.list(Folder::Segments).await.unwrap().len(), 4);

    // Planted faults.
    let plant = |operation, effect| {
        bucket.faults().plant(Fault { operation, concerns: |key| *key == segment(5, 1), times: 1, effect })
    };
    plant(Operation::Put, Effect::Fail);
    assert_eq!(bucket.put(&segment(5, 1), text.clone()).await.map_err(kind), Err(ErrorKind::Unavailable));
    assert_eq!(bucket.get(&segment(5, 1)).await.map_err(kind), Err(ErrorKind::NotFound));
    plant(Operation::Put, Effect::NoSpace);
    assert_eq!(bucket.put(&segment(5, 1), text.clone()).await.map_err(kind), Err(ErrorKind::NoSpace));
    plant(Operation::Put, Effect::LoseAnswer);
    assert_eq!(bucket.put(&segment(5, 1), text.clone()).await.map_err(kind), Err(ErrorKind::Unavailable));
    assert_eq!(bucket.get(&segment(5, 1)).await.unwrap(), text);
    plant(Operation::Get, Effect::FlipBit);
    assert_ne!(bucket.get(&segment(5, 1)).await.unwrap(), text);
    assert_eq!(bucket.get(&segment(5, 1)).await.unwrap(), text);
    plant(Operation::Delete, Effect::Hang);
    let hanging = tokio::spawn({
        let bucket = bucket.clone();
        async move { bucket.delete(&segment(5, 1)).await }
    });
    while bucket.get(&segment(5, 1)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!hanging.is_finished());
    hanging.abort();
}

#[tokio::test]
async fn the_local_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance(&local(&dir.path().join("a/bucket")).await).await;
}

#[tokio::test]
async fn a_shared_directory_conforms_and_leaves_what_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let half = dir.path().join(format!("{}#1", segment(1, 2)));
    std::fs::create_dir_all(half.parent().unwrap()).unwrap();
    std::fs::write(&half, b"half").unwrap();
    let registry = Registry::new();
    let open = || Bucket::open(Location::Shared(dir.path().into()), SystemClock::shared(), &registry);
    conformance(&open().await.unwrap()).await;
    assert!(half.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let server = S3Server::start().unwrap();
    // Planted errors are to be seen, not tried again.
    conformance(&s3(&server, "").await.with_patience(Duration::ZERO)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_a_good_store_good_and_leaves_nothing() {
    let server = S3Server::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for bucket in [s3(&server, "x").await, local(dir.path()).await] {
        let findings = bucket.check(&Random::from_seed(1)).await;
        assert!(findings.is_usable(), "{findings:#?}");
        assert!(findings.0.len() >= 15, "{findings:#?}");
        assert_eq!(bucket.whole().anything().await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_is_missing() {
    let server = S3Server::start().unwrap();
    let bucket = s3(&server, "").await;
    let missing = |findings: Findings| -> Vec<String> {
        let missing = findings.0.into_iter().filter(|finding| finding.verdict == Verdict::Missing);
        missing.map(|finding| finding.text).collect()
    };
    server.judge(|asked, _| if asked == Asked::Delete { Fate::Refused } else { Fate::Served });
    let found = missing(bucket.check(&Random::from_seed(1)).await);
    assert!(found.iter().any(|text| text.starts_with("deletes an object")), "{found:?}");
    server.judge(|asked, _| if asked == Asked::Put { Fate::Refused } else { Fate::Served });
    let found = missing(bucket.check(&Random::from_seed(1)).await);
    assert_eq!(found.len(), 1, "the rest would tell nothing: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_certificate_of_its_own_is_trusted_when_it_is_named() {
    let server = S3Server::start_tls().unwrap();
    conformance(&s3(&server, "").await.with_patience(Duration::ZERO)).await;
    let stranger = Remote { endpoint: Some(server.endpoint()), ..Remote::new(Protocol::S3, s3_server::BUCKET, "") };
    let secret = |name: &str| (name.to_owned(), runtime::Secret::new("x"));
    let stranger =
        Remote { credentials: vec![secret("AWS_ACCESS_KEY_ID"), secret("AWS_SECRET_ACCESS_KEY")], ..stranger };
    let stranger = Bucket::open(Location::Remote(stranger), SystemClock::shared(), &Registry::new()).await.unwrap();
    let refused = stranger.with_patience(Duration::ZERO).cluster().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_comes_before_every_key_and_parts_buckets() {
    let server = S3Server::start().unwrap();
    conformance(&s3(&server, "one/cell").await.with_patience(Duration::ZERO)).await;
    assert!(server.objects().join("one/cell/cluster.json").exists());
    assert_eq!(std::fs::read_dir(server.objects()).unwrap().count(), 1);
    let other = s3(&server, "one/cellar").await;
    assert_eq!(other.cluster().await.unwrap(), None);
    other.bootstrap(&Random::from_seed(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_are_at_hand_are_not_fetched() {
    let (server, dir) = (S3Server::start().unwrap(), tempfile::tempdir().unwrap());
    let limits = CacheLimits { memory_bytes: 1 << 20, disk_bytes: 1 << 20 };
    let cache = RangeCache::open(dir.path(), limits, &Registry::new()).unwrap();
    let bucket = s3(&server, "").await.with_cache(cache);
    bucket.put(&segment(1, 1), "0123456789".into()).await.unwrap();
    assert_eq!(bucket.get_ranges(&segment(1, 1), &[1..3, 4..6]).await.unwrap(), ["12", "45"]);
    let gets = server.count(Asked::Get);
    assert_eq!(bucket.get_ranges(&segment(1, 1), &[4..6, 1..3, 1..3]).await.unwrap(), ["45", "12", "12"]);
    assert_eq!(server.count(Asked::Get), gets);
    assert_eq!(bucket.get_ranges(&segment(1, 1), &[4..6, 7..8, 1..3]).await.unwrap(), ["45", "7", "12"]);
    assert_eq!(server.count(Asked::Get), gets + 1);
    bucket.forget_copies(&segment(1, 1));
    assert_eq!(bucket.get_ranges(&segment(1, 1), &[1..3, 7..8]).await.unwrap(), ["12", "7"]);
    assert_eq!(server.count(Asked::Get), gets + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_for_a_moment_is_asked_again() {
    let server = S3Server::start().unwrap();
    let bucket = s3(&server, "").await;
    let failures = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let fail_twice = |asked: Asked| {
        let failures = failures.clone();
        failures.store(0, std::sync::atomic::Ordering::SeqCst);
        server.judge(move |this, _| {
            let is_hit = this == asked && failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;
            if is_hit { Fate::Refused } else { Fate::Served }
        });
    };
    fail_twice(Asked::Put);
    bucket.put(&segment(1, 1), "text".into()).await.unwrap();
    fail_twice(Asked::Get);
    assert_eq!(bucket.get(&segment(1, 1)).await.unwrap(), "text");
    fail_twice(Asked::Get);
    assert_eq!(bucket.get_ranges(&segment(1, 1), &[1..2, 0..1]).await.unwrap(), ["e", "t"]);
    fail_twice(Asked::List);
    assert_eq!(bucket.list(Folder::Segments).await.unwrap().len(), 1);
    fail_twice(Asked::Delete);
    bucket.delete(&segment(1, 1)).await.unwrap();
    assert_eq!(bucket.get(&segment(1, 1)).await.unwrap_err().kind(), ErrorKind::NotFound);

    // One attempt is one, for those who know better what to do next.
    fail_twice(Asked::Put);
    let puts = server.count(Asked::Put);
    assert_eq!(bucket.put_attempt(&segment(1, 2), "x".into()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(server.count(Asked::Put), puts + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_is_not_asked_again_and_says_why() {
    let (server, registries) = (S3Server::start().unwrap(), [Registry::new(), Registry::new()]);
    let open = |name: &str, secret: &str, registry: usize| {
        let credential = |name: &str, text: &str| (name.to_owned(), runtime::Secret::new(text));
        let remote = Remote {
            endpoint: Some(server.endpoint()),
            credentials: vec![
                credential("AWS_ACCESS_KEY_ID", s3_server::ACCESS_KEY_ID),
                credential("AWS_SECRET_ACCESS_KEY", secret),
            ],
            ..Remote::new(Protocol::S3, name, "")
        };
        Bucket::open(Location::Remote(remote), SystemClock::shared(), &registries[registry])
    };
    let wrong = open(s3_server::BUCKET, "another-Secret-77", 0).await.unwrap();
    let error = wrong.put(&segment(1, 1), "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    assert!(error.to_string().contains("(bucket-access-denied)"), "{error}");
    assert!(!error.to_string().contains("another-Secret-77"), "{error}");
    assert_eq!(server.count(Asked::Put), 1);

    let absent = open("holiday", s3_server::SECRET_ACCESS_KEY, 1).await.unwrap();
    let error = absent.bootstrap(&Random::from_seed(1)).await.unwrap_err();
    assert!(matches!(error, BucketError::NoSuchBucket { .. }), "{error}");
}

#[tokio::test]
async fn another_process_finds_everything_and_no_leftovers() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = local(dir.path()).await;
    let random = Random::from_seed(1);
    let cluster = bucket.bootstrap(&random).await.unwrap();
    bucket.put(&segment(1, 1), "x".into()).await.unwrap();
    bucket.put(&segment(2, 1), "x".into()).await.unwrap();
    bucket.delete(&segment(2, 1)).await.unwrap();
    // What a kill -9 in the middle of a PUT leaves.
    let left = dir.path().join(format!("{}#1", segment(1, 2)));
    std::fs::write(&left, b"half").unwrap();
    std::fs::write(dir.path().join("cluster.json#12"), b"half").unwrap();
    let stranger = dir.path().join("segments/README");
    std::fs::write(&stranger, b"not ours").unwrap();
    std::fs::write(dir.path().join("holiday#1"), b"not ours").unwrap();
    drop(bucket);

    let registry = Registry::new();
    let bucket = Bucket::open(dir.path(), SystemClock::shared(), &registry).await.unwrap();
    assert!(!left.exists() && !dir.path().join("cluster.json#12").exists());
    assert!(!dir.path().join(Folder::SegmentsOf(writer_of(segment(2, 1))).to_string()).exists(), "empty");
    assert_eq!(keys(&bucket.list(Folder::Segments).await.unwrap()), [segment(1, 1)]);
    assert!(stranger.exists() && dir.path().join("holiday#1").exists());
    bucket.check_cluster(&cluster).await.unwrap();
    bucket.put(&segment(2, 2), "x".into()).await.unwrap();
    let text = registry.encode();
    assert!(text.contains("bellrock_bucket_unknown_names_total 1"), "{text}");
    assert!(text.contains(r#"bellrock_bucket_requests_total{operation="put"} 1"#), "{text}");
    assert!(text.contains(r#"bellrock_bucket_bytes_total{operation="put"} 1"#), "{text}");
}

fn writer_of(key: ObjectKey) -> WriterId {
    match key {
        ObjectKey::Segment { writer, .. } => writer,
        _ => panic!("{key}"),
    }
}

#[tokio::test]
async fn a_bucket_that_holds_anything_is_not_bootstrapped() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = local(dir.path()).await;
    bucket.put(&segment(1, 1), "x".into()).await.unwrap();
    let refused = bucket.bootstrap(&Random::from_seed(1)).await.unwrap_err();
    assert!(refused.to_string().contains("segments/1."), "{refused}");
    bucket.delete(&segment(1, 1)).await.unwrap();
    std::fs::write(dir.path().join("holiday.jpg"), b"not ours").unwrap();
    assert!(bucket.bootstrap(&Random::from_seed(1)).await.is_err());
}

#[tokio::test]
async fn puts_into_one_new_folder_wait_for_it_to_be_durable() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = local(dir.path()).await;
    let puts = (1..=20).map(|n| {
        let bucket = bucket.clone();
        tokio::spawn(async move { bucket.put(&segment(1, n), "x".into()).await })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await.unwrap().unwrap();
    }
    assert_eq!(bucket.list(Folder::Segments).await.unwrap().len(), 20);
}

#[test]
fn errors_of_the_system_are_sorted_by_what_to_do() {
    use std::io;
    for (system, kind) in [
        (io::ErrorKind::StorageFull, ErrorKind::NoSpace),
        (io::ErrorKind::QuotaExceeded, ErrorKind::NoSpace),
        (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::ReadOnly),
        (io::ErrorKind::PermissionDenied, ErrorKind::ReadOnly),
        (io::ErrorKind::TimedOut, ErrorKind::Unavailable),
    ] {
        let below = object_store::Error::Generic { store: "test", source: Box::new(io::Error::from(system)) };
        assert_eq!(BucketError::sort(Operation::Put, "x", below).kind(), kind);
        assert_eq!(BucketError::sort(Operation::Put, "x", io::Error::from(system)).kind(), kind);
    }
}

/// A full or a read-only disk for real needs root; a file system that refuses stands in for both.
#[tokio::test]
async fn a_folder_that_is_a_file_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = local(dir.path()).await;
    std::fs::write(dir.path().join(Folder::SegmentsOf(writer_of(segment(1, 1))).to_string()), b"").unwrap();
    assert!(bucket.put(&segment(1, 1), "x".into()).await.is_err());
    assert!(bucket.get(&segment(1, 1)).await.is_err());
    bucket.put(&segment(2, 1), "x".into()).await.unwrap();
}

/// The face's futures can be sent between threads.
#[tokio::test]
async fn futures_are_send() {
    fn is_send(future: impl Future + Send) {
        drop(future);
    }
    let dir = tempfile::tempdir().unwrap();
    let bucket = Arc::new(local(dir.path()).await);
    is_send(bucket.put(&ObjectKey::Cluster, Bytes::new()));
    is_send(bucket.get_ranges(&ObjectKey::Cluster, &[]));
    is_send(bucket.list(Folder::Blocks));
}
