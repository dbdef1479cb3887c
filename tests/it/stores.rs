//! What only an object store can do to a node: count its listings, be slow, be silent, refuse it, and see its keys.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::TimestampMs;
use tests::load::{Load, Shape};
use tests::promqltest::Data;
use tests::s3::{Asked, Fate, S3Server};
use tests::store::Kind;
use tests::{Client, Node, Random, Series, Settings, Store, labels, wait_for};

use crate::crash::is_as_acked;
use crate::{node_on, settings};

/// A time in the past, so that no clock matters.
const T: TimestampMs = 1_700_000_000_000;

fn metric(client: &Client, name: &str) -> f64 {
    client.metric(name).unwrap().unwrap_or(0.0)
}

fn push(client: &Client, i: i64) -> u16 {
    client.push(&[Series::floats(&labels("m", &[]), &[(T + i * 1_000, i as f64)])]).unwrap().status
}

fn count(client: &Client) -> usize {
    let Data::Matrix(matrix) = client.instant("m[1d]", T + 80_000_000).unwrap().unwrap().data else { panic!() };
    matrix.first().map_or(0, |(_, samples)| samples.len())
}

/// A store in this process, with a hold on it.
fn s3() -> (Store, Settings) {
    let store = Store::start(Kind::S3).unwrap();
    let settings = store.apply(settings());
    (store, settings)
}

fn server(store: &Store) -> &S3Server {
    let Store::S3(server) = store else { panic!() };
    server
}

/// Files below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { _ = found.insert(path) }
    }
    found
}

/// Pushes, cuts and collects for a while: once the start is over, nothing is listed.
fn no_listing_in_the_steady_state(kind: Kind) {
    let Some(store) = Store::start_alone(kind) else { return };
    let node = Node::start(&store.apply(settings().argument("--ingester.cut-age-max=1s"))).unwrap();
    let client = node.client().clone();
    let lists = || store.lists().unwrap().unwrap();
    let cut_and_collected = |after: f64| {
        let cuts = metric(&client, "bellrock_ingester_cuts_total");
        let deleted = metric(&client, "bellrock_compactor_deletes_total");
        (cuts >= 2.0 && deleted >= after + 50.0).then_some(deleted)
    };
    let seed = Random::seed("stores::no_listing_in_the_steady_state");
    let mut load = Load::new(seed, Shape::default());
    let mut before = 0;
    load.run(&client, |_| {
        // Nothing is deleted before the start's listings are over.
        let deleted = wait_for("a head is cut and its segments collected", || cut_and_collected(0.0));
        before = lists();
        for more in [100.0, 200.0] {
            wait_for("heads are cut and their segments collected", || cut_and_collected(deleted + more));
        }
        Ok(())
    })
    .unwrap();
    assert!(before > 0, "the start lists, and is counted");
    assert!(is_as_acked("cuts and collections", &mut load, &client, true));
    assert_eq!(lists(), before, "something was listed");
}

#[test]
fn no_listing_in_the_steady_state_on_s3() {
    no_listing_in_the_steady_state(Kind::S3);
}

#[test]
fn no_listing_in_the_steady_state_on_garage() {
    no_listing_in_the_steady_state(Kind::Garage);
}

#[test]
fn slow_and_lost_puts_are_hedged_and_leave_nothing() {
    let (store, settings) = s3();
    let mut node = Node::start(&settings.argument("--ingester.cut-age-max=2s")).unwrap();
    let client = node.client().clone();
    (0..30).for_each(|i| assert_eq!(push(&client, i) / 100, 2));

    // Of five PUTs of segments one takes two seconds and one is stored without an answer.
    let puts = AtomicU64::new(0);
    server(&store).judge(move |asked, path| {
        if asked != Asked::Put || !path.contains("/segments/") {
            return Fate::Served;
        }
        match puts.fetch_add(1, Ordering::Relaxed) % 5 {
            1 => Fate::Late(Duration::from_secs(2)),
            3 => Fate::AnswerLost,
            _ => Fate::Served,
        }
    });
    let mut slowest = Duration::ZERO;
    for i in 30..80 {
        let since = Instant::now();
        assert_eq!(push(&client, i) / 100, 2);
        slowest = slowest.max(since.elapsed());
    }
    println!("the slowest ack took {slowest:?}");
    assert!(slowest < Duration::from_millis(1_900), "no hedge came: {slowest:?}");
    assert!(metric(&client, "bellrock_ingester_segment_puts_hedged_away_total") > 0.0);
    assert_eq!(count(&client), 80);
    server(&store).acquit();

    // Cut and collected, nothing of the segments remains, whichever attempts were stored.
    let segments = server(&store).objects().join("below/here/segments");
    wait_for("every attempt of every segment is deleted", || files(&segments).is_empty().then_some(()));
    assert_eq!(count(&client), 80);
    assert!(node.terminate().unwrap().success());
}

#[test]
fn a_silent_store_refuses_writes_for_its_time_and_loses_nothing() {
    let (store, settings) = s3();
    let mut node = Node::start(&settings).unwrap();
    let client = node.client().clone();
    (0..10).for_each(|i| assert_eq!(push(&client, i) / 100, 2));
    server(&store).judge(|_, _| Fate::Swallowed);
    let since = Instant::now();
    let response = client.push(&[Series::floats(&labels("m", &[]), &[(T + 10_000, 10.0)])]).unwrap();
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(response.header("retry-after").is_some());
    assert!((9..30).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    let ready = wait_for("/-/ready tells of it", || {
        Some(client.get("/-/ready", &[]).unwrap()).filter(|ready| ready.status == 503)
    });
    assert!(ready.text().contains("can't be stored"), "{}", ready.text());
    // What is in the head needs no store.
    assert_eq!(count(&client), 10);

    server(&store).acquit();
    wait_for("writes are taken again", || (push(&client, 11) / 100 == 2).then_some(()));
    wait_for("the node is ready again", || (client.get("/-/ready", &[]).unwrap().status == 200).then_some(()));
    // The refused sample went on being tried, as the segment's number is not given up.
    assert_eq!(count(&client), 12);
    node.kill().unwrap();
    node.start_again().unwrap();
    assert_eq!(count(node.client()), 12);
}

#[test]
fn an_unknown_key_stops_the_start_with_what_to_mend() {
    let (_store, settings) = s3();
    let folder = tempfile::tempdir().unwrap();
    let wrong = settings.variable("AWS_SECRET_ACCESS_KEY", "wr0ng-Secret-9");
    let mut process = wrong.spawn(folder.path()).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(1));
    wait_for("it says why", || process.output().contains("(bucket-access-denied)").then_some(()));
    assert!(!process.output().contains("wr0ng-Secret-9"), "{}", process.output());
}

#[test]
fn a_bucket_that_is_not_there_stops_the_start_with_what_to_mend() {
    let (_store, settings) = s3();
    let folder = tempfile::tempdir().unwrap();
    let mut elsewhere = settings.clone();
    elsewhere.arguments.retain(|argument| !argument.starts_with("--bucket="));
    let mut process = elsewhere.argument("--bucket=s3://holiday").spawn(folder.path()).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(1));
    wait_for("it says why", || process.output().contains("(bucket-missing)").then_some(()));
}

/// Credentials are in no log, however much is logged, and on no page.
fn the_secret_is_seen_nowhere(store: &Store) {
    let Some(secret) = store.secret() else { return };
    let mut node = Node::start(&store.apply(settings().argument("--log.level=trace"))).unwrap();
    assert_eq!(push(node.client(), 1) / 100, 2);
    assert_eq!(count(node.client()), 1);
    for path in ["/metrics", "/-/ready", "/api/v1/status/buildinfo", "/api/v1/status/config", "/api/v1/status/flags"] {
        let page = node.client().get(path, &[]).unwrap().text();
        assert!(!page.contains(secret), "{path} shows it");
    }
    assert!(node.terminate().unwrap().success());
    wait_for("the log is whole", || node.process().output().contains("stopped").then_some(()));
    assert!(!node.process().output().contains(secret), "the log shows it");
}

#[test]
fn two_nodes_may_not_begin_two_clusters_in_one_bucket() {
    let store = Store::start(Kind::S3).unwrap();
    let first = node_on(&store);
    assert_eq!(push(first.client(), 1) / 100, 2);
    let folder = tempfile::tempdir().unwrap();
    let mut second = store.apply(settings()).spawn(folder.path()).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    assert_eq!(push(first.client(), 2) / 100, 2);
}

/// `bellrock bucket check`, with its exit code and what it says.
fn check(settings: &Settings) -> (Option<i32>, String) {
    let data = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(&settings.program);
    command.args(["bucket", "check", "--data"]).arg(data.path()).args(&settings.arguments);
    let output = command.envs(settings.environment.iter().cloned()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), text)
}

fn bucket_check_finds_it_usable(store: &Store) {
    let (code, text) = check(&store.apply(settings()));
    println!("{text}");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("p99") && !text.contains("MISSING"), "{text}");
    assert_eq!(text.contains("metadata_fsync"), !matches!(store, Store::Directory), "{text}");
    assert!(store.secret().is_none_or(|secret| !text.contains(secret)), "{text}");
}

#[test]
fn bucket_check_says_what_is_missing_and_unsafe() {
    let (store, settings) = s3();
    // Deletes nothing, and takes a while for every PUT.
    server(&store).judge(|asked, _| match asked {
        Asked::Delete => Fate::Refused,
        Asked::Put => Fate::Late(Duration::from_millis(210)),
        _ => Fate::Served,
    });
    let (code, text) = check(&settings);
    assert_eq!(code, Some(1), "{text}");
    for words in ["MISSING deletes an object", "slow", "every write waits for one"] {
        assert!(text.contains(words), "{text}");
    }
    let (code, text) = check(&settings.variable("AWS_SECRET_ACCESS_KEY", "wr0ng-Secret-9"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("MISSING") && text.contains("(bucket-access-denied)"), "{text}");
}

on_every_store! {
    bucket_check_finds_it_usable,
    the_secret_is_seen_nowhere,
}
