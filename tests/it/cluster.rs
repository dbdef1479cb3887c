//! Three nodes: any takes writes and answers, each may fail, and nothing that was acked is lost.

use std::path::Path;
use std::time::{Duration, Instant};

use model::{TimestampMs, Value};
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

/// Series that are many enough for every node to be home to some.
const MANY: usize = 90;

/// One sample of each of many series, and one that can't be stored if `bad`.
fn push_many(client: &Client, name: &str, i: i64, bad: bool) -> anyhow::Result<tests::client::Response> {
    let series = |number: usize| {
        let mut samples = vec![(T + i * 1_000, number as f64)];
        samples.extend(bad.then_some((-1, 0.0)));
        Series::floats(&labels(name, &[("series", &number.to_string())]), &samples)
    };
    client.push(&(0..MANY).map(series).collect::<Vec<_>>())
}

/// How many samples a node finds of all series of a name.
fn count_many(client: &Client, name: &str) -> Option<f64> {
    let answer = client.instant(&format!("sum(count_over_time({name}[1d]))"), T + 80_000_000).ok()?.ok()?;
    match answer.data {
        Data::Vector(vector) if answer.warnings.is_empty() => match vector.first() {
            Some((_, Value::Float(count))) => Some(*count),
            _ => None,
        },
        _ => None,
    }
}

/// One of the nodes' own metrics, over all of them.
fn sum(cluster: &Cluster, metric: &str) -> f64 {
    cluster.nodes.iter().map(|node| node.client().metric(metric).unwrap().unwrap_or(0.0)).sum()
}

#[test]
fn a_series_has_one_head_through_whichever_node_it_comes() {
    let cluster = cluster(Kind::Directory).unwrap();
    let mut trial = 0;
    // Where a node was found silent, or did not know of another yet, a series has two heads: it is tried with other series.
    let disturbed = ["bellrock_ingester_parts_failed_over_total", "bellrock_ingester_writers_fenced_total"];
    wait_for("a trial that nothing disturbs has every series in one head", || {
        trial += 1;
        let name = format!("trial_{trial}");
        let (series, sent) = ("bellrock_ingester_series", "bellrock_ingester_parts_forwarded_total");
        let taken = "bellrock_ingester_parts_taken_total";
        let before = [series, sent, taken].map(|metric| sum(&cluster, metric));
        let disturbances = disturbed.map(|metric| sum(&cluster, metric));
        for (i, node) in (0..).zip(&cluster.nodes) {
            if push_many(node.client(), &name, i, false).unwrap().status / 100 != 2 {
                return None;
            }
        }
        let after = [series, sent, taken].map(|metric| sum(&cluster, metric));
        if disturbances != disturbed.map(|metric| sum(&cluster, metric)) || after[1] - before[1] != 6.0 {
            return None;
        }
        assert_eq!((after[0] - before[0], after[2] - before[2]), (MANY as f64, 6.0), "heads of series, parts taken");
        for node in &cluster.nodes {
            assert!(node.client().metric(series).unwrap() > Some(0.0), "each is home to some");
            assert_eq!(count_many(node.client(), &name), Some(3.0 * MANY as f64));
        }
        Some(())
    });
}

#[test]
fn of_a_partly_bad_request_the_rest_is_stored_wherever_its_home_is() {
    let cluster = cluster(Kind::Directory).unwrap();
    for (i, node) in (0..).zip(&cluster.nodes) {
        let refused = wait_for("an answer that is for good", || {
            push_many(node.client(), "m", i, true).ok().filter(|response| response.status != 503)
        });
        assert_eq!(refused.status, 400, "{}", refused.text());
        let text = refused.text();
        assert!(text.starts_with(&format!("{MANY} samples refused")), "{text}");
        assert!(text.contains(&format!("{MANY} before_epoch")) && text.lines().count() == 11, "{text}");
        let stored = (i as usize + 1) * MANY;
        let found = wait_for("there is an answer of the newest revision", || count_many(node.client(), "m"));
        assert_eq!(found, stored as f64);
    }
}

#[test]
fn writes_go_on_when_a_home_is_killed() {
    let mut cluster = cluster(Kind::Directory).unwrap();
    let killed = (cluster.leader() + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|number| *number != killed).collect();
    let mut sent = 0;
    let mut push = |cluster: &Cluster| {
        for number in &others {
            let client = cluster.nodes[*number].client();
            // On a loaded machine a leader may seem silent for a moment; whoever writes tries again.
            let taken = |response: &tests::client::Response| response.status / 100 == 2;
            wait_for("the write is taken", || push_many(client, "m", sent, false).ok().filter(taken));
            sent += 1;
        }
        sent
    };
    push(&cluster);
    cluster.nodes[killed].kill().unwrap();
    for _ in 0..5 {
        push(&cluster);
    }
    let all = push(&cluster) as f64 * MANY as f64;
    for number in others.clone() {
        wait_for("all is found", || (count_many(cluster.nodes[number].client(), "m") == Some(all)).then_some(()));
    }
    let failed_over: f64 = others
        .iter()
        .map(|number| cluster.nodes[*number].client().metric("bellrock_ingester_parts_failed_over_total").unwrap())
        .map(Option::unwrap_or_default)
        .sum();
    assert!(failed_over > 0.0, "somebody has met the dead node");
}

#[test]
fn an_old_copy_of_a_disk_is_refused_though_all_others_were_restarted_since() {
    let mut cluster = cluster(Kind::Directory).unwrap();
    check_all_see_all(&cluster, 0, 6, 0);
    let copied = (cluster.leader() + 1) % 3;
    cluster.nodes[copied].kill().unwrap();
    let index = cluster.nodes[copied].data().join("index");
    let copy = tempfile::tempdir().unwrap();
    let copy_files = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    copy_files(&index, copy.path());
    let notes = cluster.shared_folder().join("replicas");
    let written = |notes: &Path| -> Vec<Vec<u8>> {
        let mut files: Vec<_> = std::fs::read_dir(notes).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().filter_map(|file| std::fs::read(file).ok()).collect()
    };
    let before = written(&notes);
    // It lives once more, and says so where it outlives all of them.
    cluster.nodes[copied].start_again().unwrap();
    wait_for("the next start is noted", || {
        let changed = written(&notes).iter().filter(|note| !before.contains(note)).count();
        (changed > 0).then_some(())
    });
    check_all_see_all(&cluster, 6, 12, 6);
    cluster.nodes.iter_mut().for_each(|node| node.kill().unwrap());
    std::fs::remove_dir_all(&index).unwrap();
    copy_files(copy.path(), &index);

    cluster.nodes.iter_mut().for_each(|node| node.spawn_again().unwrap());
    let node = &mut cluster.nodes[copied];
    assert!(!node.process().wait().unwrap().success());
    assert!(node.process().output().contains("replica-went-back"), "{}", node.process().output());
    for number in (0..3).filter(|number| *number != copied) {
        cluster.nodes[number].wait_until_ready().unwrap();
        let client = cluster.nodes[number].client();
        wait_for("everything is found", || (newest_count(client) == Some(12)).then_some(()));
    }
}
