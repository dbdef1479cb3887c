//! Three nodes: any takes writes and answers, each may fail, and nothing that was acked is lost.

use std::time::{Duration, Instant};

use model::TimestampMs;
use rustix::process::Signal;
use tests::cluster::Cluster;
use tests::promqltest::Data;
use tests::store::Kind;
use tests::{Client, Series, Store, labels, wait_for};

use crate::settings;

/// A time in the past, so that no clock matters.
const T: TimestampMs = 1_700_000_000_000;

fn push(client: &Client, i: i64) -> u16 {
    client
        .push(&[Series::floats(&labels("m", &[]), &[(T + i * 1_000, i as f64)])])
        .map_or(0, |response| response.status)
}

/// How many samples a node finds; `None` if it does not answer.
fn count(client: &Client) -> Option<usize> {
    let Data::Matrix(matrix) = client.instant("m[1d]", T + 80_000_000).ok()?.ok()?.data else { return None };
    Some(matrix.first().map_or(0, |(_, samples)| samples.len()))
}

/// The same, unless the node says that it does not know the newest.
fn newest_count(client: &Client) -> Option<usize> {
    let answer = client.instant("m[1d]", T + 80_000_000).ok()?.ok()?;
    let Data::Matrix(matrix) = answer.data else { return None };
    answer.warnings.is_empty().then(|| matrix.first().map_or(0, |(_, samples)| samples.len()))
}

fn cluster(kind: Kind) -> Option<Cluster> {
    // Garage runs for several tests at once; the cluster holds its store.
    let store = Store::start(kind)?;
    Some(Cluster::start(&settings(), store, 3).unwrap())
}

/// Writes to each node in turn; every node finds everything at once, as an ack means that a query sees it.
fn check_all_see_all(cluster: &Cluster, from: i64, to: i64, before: usize) {
    for i in from..to {
        let (writer, reader) = (cluster.nodes[i as usize % 3].client(), cluster.nodes[(i as usize + 1) % 3].client());
        // On a loaded machine a leader may seem silent for a moment; whoever writes tries again.
        wait_for("the write is taken", || (push(writer, i) / 100 == 2).then_some(()));
        let found = wait_for("there is an answer of the newest revision", || newest_count(reader));
        assert_eq!(found, before + (i - from) as usize + 1, "sample {i} from another node");
    }
}

fn any_node_may_fail(kind: Kind) {
    let Some(mut cluster) = cluster(kind) else { return };
    check_all_see_all(&cluster, 0, 12, 0);

    // The leader goes, with its disk; the others go on, and one like it takes its place.
    let leader = cluster.leader();
    cluster.nodes[leader].kill().unwrap();
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    for (i, number) in (12..).zip(&others) {
        let client = cluster.nodes[*number].client().clone();
        wait_for("writes are taken again", || (push(&client, i) / 100 == 2).then_some(()));
        wait_for("all is found without the leader", || (count(&client) == Some(i as usize + 1)).then_some(()));
    }
    cluster.replace(leader).unwrap();
    check_all_see_all(&cluster, 14, 20, 14);
    // The new one votes in the place of the old one.
    cluster.wait_for_voters(3);

    // All of them go at once, and come back.
    cluster.nodes.iter_mut().for_each(|node| node.kill().unwrap());
    cluster.nodes.iter_mut().for_each(|node| node.spawn_again().unwrap());
    cluster.nodes.iter_mut().for_each(|node| node.wait_until_ready().unwrap());
    for node in &cluster.nodes {
        wait_for("everything is found", || (newest_count(node.client()) == Some(20)).then_some(()));
    }
}

#[test]
fn any_node_may_fail_over_a_shared_directory() {
    any_node_may_fail(Kind::Directory);
}

#[test]
fn any_node_may_fail_over_s3() {
    any_node_may_fail(Kind::S3);
}

#[test]
fn any_node_may_fail_over_garage() {
    any_node_may_fail(Kind::Garage);
}

#[test]
fn of_two_nodes_the_one_that_follows_may_fail_and_come_back() {
    let store = Store::start(Kind::Directory).unwrap();
    let mut cluster = Cluster::start(&settings(), store, 2).unwrap();
    let leader = cluster.leader();
    let (writer, follower) = (cluster.nodes[leader].client().clone(), 1 - leader);
    wait_for("the write is taken", || (push(&writer, 0) / 100 == 2).then_some(()));
    cluster.nodes[follower].kill().unwrap();
    for i in 1..5 {
        wait_for("the write is taken", || (push(&writer, i) / 100 == 2).then_some(()));
    }
    // What the bucket holds of the index is now newer than what the follower has.
    let metric = |name: &str| writer.metric(name).unwrap();
    let applied = metric("bellrock_consensus_applied_position");
    wait_for("the index is stored", || (metric("bellrock_compactor_index_stored_position") >= applied).then_some(()));
    cluster.nodes[follower].start_again().unwrap();
    let follower = cluster.nodes[follower].client();
    assert_eq!(wait_for("the follower answers", || newest_count(follower)), 5);
    wait_for("the follower takes a write", || (push(follower, 5) / 100 == 2).then_some(()));
    assert_eq!(wait_for("the leader answers", || newest_count(&writer)), 6);
}

#[test]
fn without_most_of_the_voters_writes_are_refused_at_once_and_reads_go_on_with_a_warning() {
    let mut cluster = cluster(Kind::Directory).unwrap();
    check_all_see_all(&cluster, 0, 6, 0);
    let survivor = (cluster.leader() + 1) % 3;
    for number in (0..3).filter(|number| *number != survivor) {
        cluster.nodes[number].kill().unwrap();
    }
    let client = cluster.nodes[survivor].client().clone();
    wait_for("writes are refused", || (push(&client, 6) == 503).then_some(()));
    let since = Instant::now();
    let response = client.push(&[Series::floats(&labels("m", &[]), &[(T + 6_000, 6.0)])]).unwrap();
    let took = since.elapsed();
    println!("two of three down: a write is refused after {took:?}");
    assert!(took < Duration::from_secs(30), "a refusal is no timeout");
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(response.text().contains("no-leader") && response.header("retry-after").is_some(), "{}", response.text());
    let ready = client.get("/-/ready", &[]).unwrap();
    assert!(ready.status == 503 && ready.text().contains("no-leader"), "{}", ready.text());
    let answer = client.instant("m[1d]", T + 80_000_000).unwrap().unwrap();
    assert!(answer.warnings.iter().any(|warning| warning.contains("no leader")), "{:?}", answer.warnings);
    assert_eq!(count(&client), Some(6), "reads go on");

    for number in (0..3).filter(|number| *number != survivor) {
        cluster.nodes[number].spawn_again().unwrap();
    }
    for number in 0..3 {
        cluster.nodes[number].wait_until_ready().unwrap();
    }
    wait_for("writes are taken again", || (push(&client, 6) / 100 == 2).then_some(()));
    for node in &cluster.nodes {
        assert_eq!(count(node.client()), Some(7));
    }
}

#[test]
fn nodes_that_stop_together_stop_and_lose_nothing() {
    let mut cluster = cluster(Kind::Directory).unwrap();
    check_all_see_all(&cluster, 0, 6, 0);
    cluster.nodes.iter_mut().for_each(|node| node.process().signal(Signal::TERM).unwrap());
    for node in &mut cluster.nodes {
        assert!(node.process().wait().unwrap().success(), "{}", node.process().output());
    }
    cluster.nodes.iter_mut().for_each(|node| node.spawn_again().unwrap());
    cluster.nodes.iter_mut().for_each(|node| node.wait_until_ready().unwrap());
    for node in &cluster.nodes {
        wait_for("everything is found", || (newest_count(node.client()) == Some(6)).then_some(()));
    }
}
