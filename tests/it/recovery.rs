//! Disks are lost and the bucket is left: `bellrock recover` brings every acked sample back.

use std::path::Path;

use model::TimestampMs;
use tests::cluster::Cluster;
use tests::promqltest::Data;
use tests::store::Kind;
use tests::{Client, Node, Series, Settings, Store, labels};

use crate::settings;

/// A time in the past, so that no clock matters.
const T: TimestampMs = 1_700_000_000_000;

fn push(client: &Client, i: i64) {
    let series: Vec<Series> = (0..3)
        .map(|s| Series::floats(&labels("m", &[("s", &s.to_string())]), &[(T + i * 1_000, (i * 10 + s) as f64)]))
        .collect();
    client.push_ok(&series).unwrap();
}

/// Samples of every series, added up; doubled or wrong ones show in the second number.
fn sums(client: &Client) -> (usize, f64) {
    let Data::Matrix(matrix) = client.instant("m[1d]", T + 80_000_000).unwrap().unwrap().data else { panic!() };
    let count = matrix.iter().map(|(_, samples)| samples.len()).sum();
    (count, matrix.iter().flat_map(|(_, samples)| samples.floats.clone()).sum())
}

fn expected(pushes: i64) -> (usize, f64) {
    let sum: i64 = (0..pushes).map(|i| 3 * i * 10 + 3).sum();
    (pushes as usize * 3, sum as f64)
}

/// Runs `bellrock recover` on a folder, with what a node was told of its bucket.
fn recover(settings: &Settings, data: &Path) -> (bool, String) {
    let output = settings.command("recover", data).arg("--recover.wait=1ms").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_lost_index_is_rebuilt_from_the_directory_beside_it() {
    // Some of it is in blocks, some in segments of two dead writers.
    let mut node = Node::start(&settings().argument("--ingester.cut-age-max=1s")).unwrap();
    (0..10).for_each(|i| push(node.client(), i));
    node.terminate().unwrap();
    let (done, text) = recover(node.settings(), node.data());
    assert!(!done && text.contains("index-there"), "{text}");
    node.start_again().unwrap();
    (10..20).for_each(|i| push(node.client(), i));
    node.kill().unwrap();

    std::fs::remove_dir_all(node.data().join("index")).unwrap();
    node.spawn_again().unwrap();
    assert!(!node.process().wait().unwrap().success());
    assert!(node.process().output().contains("index-gone"), "{}", node.process().output());
    let (done, text) = recover(node.settings(), node.data());
    assert!(done, "{text}");
    node.start_again().unwrap();
    assert_eq!(sums(node.client()), expected(20));
    (20..25).for_each(|i| push(node.client(), i));
    node.kill().unwrap();
    node.start_again().unwrap();
    assert_eq!(sums(node.client()), expected(25));
}

#[test]
fn a_cluster_whose_every_disk_is_lost_comes_back_from_the_bucket() {
    let Some(store) = Store::start(Kind::S3) else { return };
    let mut cluster = Cluster::start(&settings(), store, 3).unwrap();
    for i in 0..15 {
        push(cluster.nodes[i as usize % 3].client(), i);
    }
    cluster.nodes.iter_mut().for_each(|node| node.kill().unwrap());
    let alone = cluster.settings_alone();
    let folder = tempfile::tempdir().unwrap();
    let (done, text) = recover(&alone, folder.path());
    assert!(done, "{text}");
    cluster.begin_again(folder).unwrap();
    assert_eq!(sums(cluster.nodes[0].client()), expected(15));
    for number in 1..3 {
        cluster.replace(number).unwrap();
    }
    for (i, node) in (15..).zip(&cluster.nodes) {
        push(node.client(), i);
    }
    for node in &cluster.nodes {
        assert_eq!(sums(node.client()), expected(18));
    }
}

#[test]
fn a_node_stops_when_its_cluster_was_recovered_elsewhere() {
    let mut node = Node::start(&settings()).unwrap();
    push(node.client(), 0);
    let file = node.data().join("bucket/cluster.json");
    let before = std::fs::read_to_string(&file).unwrap();
    let after = before.replace(r#""incarnation":1"#, r#""incarnation":2"#);
    assert_ne!(before, after, "{before}");
    std::fs::write(&file, after).unwrap();
    // It looks every ten seconds.
    assert!(!node.process().wait().unwrap().success());
    assert!(node.process().output().contains("other-cluster"), "{}", node.process().output());
    node.spawn_again().unwrap();
    assert!(!node.process().wait().unwrap().success());
}
