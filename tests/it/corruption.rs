//! Stored bytes that have rotted: found, named, and the rest is served.

use std::path::{Path, PathBuf};

use model::TimestampMs;
use tests::promqltest::Data;
use tests::{Client, Node, Series, Store, labels, wait_for};

use crate::node_on;

/// Times in the past, a day apart, so that each lies in a block of its own.
const DAYS: [TimestampMs; 2] = [1_700_000_000_000, 1_700_086_400_000];

fn push(client: &Client, name: &str, t: TimestampMs) {
    let floats: Vec<_> = (0..100).map(|n| (t + n * 1_000, n as f64)).collect();
    client.push_ok(&[Series::floats(&labels(name, &[]), &floats)]).unwrap();
}

/// How many samples a metric has on a day; the error is the query's.
fn count(client: &Client, name: &str, t: TimestampMs) -> Result<usize, String> {
    let Data::Matrix(matrix) = client.instant(&format!("{name}[1h]"), t + 1_800_000).unwrap()?.data else { panic!() };
    Ok(matrix.iter().map(|(_, samples)| samples.len()).sum())
}

/// Files below a folder of the bucket.
fn objects(node: &Node, store: &Store, folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![store.objects(node).unwrap().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Turns one bit over in every 64th byte, so that no section is spared.
fn rot(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes.iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
    std::fs::write(file, bytes).unwrap();
}

// A Garage checks what it stores itself, and hides where.
on_every_store! {
    a_rotten_block_fails_only_the_queries_that_need_it,
    a_rotten_segment_is_quarantined_and_the_node_serves,
}

fn a_rotten_block_fails_only_the_queries_that_need_it(store: &Store) {
    let mut node = node_on(store);
    if store.objects(&node).is_none() {
        return;
    }
    push(node.client(), "first", DAYS[0]);
    assert!(node.terminate().unwrap().success());
    let blocks = objects(&node, store, "blocks");
    assert_eq!(blocks.len(), 1, "a stop in order cuts: {blocks:?}");
    node.start_again().unwrap();
    push(node.client(), "second", DAYS[1]);
    assert!(node.terminate().unwrap().success());
    rot(&blocks[0]);
    node.start_again().unwrap();

    let client = node.client();
    assert_eq!(count(client, "second", DAYS[1]), Ok(100));
    let error = count(client, "first", DAYS[0]).unwrap_err();
    let key = blocks[0].strip_prefix(store.objects(&node).unwrap()).unwrap().to_string_lossy().into_owned();
    assert!(error.contains(&key), "{error:?} does not name {key}");
    let parameters = [("query", "first"), ("time", "1700000010")];
    let response = client.get("/api/v1/query", &parameters).unwrap();
    assert_eq!(response.status, 500, "{}", response.text());

    let partial = [parameters[0], parameters[1], ("partial_response", "true")];
    let response = client.get("/api/v1/query", &partial).unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.text().contains(&key), "no warning names {key}: {}", response.text());
}

fn a_rotten_segment_is_quarantined_and_the_node_serves(store: &Store) {
    let mut node = node_on(store);
    if store.objects(&node).is_none() {
        return;
    }
    push(node.client(), "first", DAYS[0]);
    node.kill().unwrap();
    let segments = objects(&node, store, "segments");
    assert!(!segments.is_empty());
    segments.iter().for_each(|segment| rot(segment));
    node.start_again().unwrap();
    let client = node.client();
    let ready = client.get("/-/ready", &[]).unwrap();
    assert!(ready.text().contains("quarantine"), "{}", ready.text());
    push(client, "second", DAYS[1]);
    assert_eq!(count(client, "second", DAYS[1]), Ok(100));
    wait_for("the log tells of it", || node.process().output().contains("segment can't be read").then_some(()));
}
