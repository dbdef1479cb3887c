//! `/api/v1/status/cluster` and `bellrock status` say what is there, what is missing and what may still be lost.

use std::process::Command;

use serde_json::Value as Json;
use tests::cluster::Cluster;
use tests::store::Kind;
use tests::{Client, Node, Store, wait_for};

use crate::{BELLROCK, settings};

const PATH: &str = "/api/v1/status/cluster";

/// The exit code of `bellrock status URL`, and what it prints.
fn status(url: &str) -> (Option<i32>, String) {
    let output = Command::new(BELLROCK).args(["status", url]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Waits until a node's report is like this.
#[track_caller]
fn wait_for_report(client: &Client, what: &str, is_so: impl Fn(&Json) -> bool) -> Json {
    let mut last = Json::Null;
    tests::wait_within(tests::wait::DEADLINE, || {
        last = client.data(PATH, &[]).ok()?;
        is_so(&last).then(|| last.clone())
    })
    .unwrap_or_else(|| panic!("{what}: not so:\n{last:#}"))
}

fn node_losses(report: &Json) -> u64 {
    report["durability"]["nodeLosses"].as_u64().unwrap()
}

fn node<'a>(report: &'a Json, name: &str) -> &'a Json {
    report["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name).unwrap()
}

#[test]
fn of_three_nodes_each_says_that_one_may_be_lost_and_then_that_none_may() {
    let mut cluster = Cluster::start(&settings(), Store::start(Kind::Directory).unwrap(), 3).unwrap();
    for node in &cluster.nodes {
        // A leader that is new counts no node that it has not heard of yet.
        let is_well = |report: &Json| report["isHealthy"] == true && node_losses(report) == 1;
        let report = wait_for_report(node.client(), "all is well", is_well);
        let nodes = report["nodes"].as_array().unwrap();
        assert!(nodes.len() == 3 && nodes.iter().all(|node| node["isAlive"] == true), "{report:#}");
        let mut roles: Vec<&str> = nodes.iter().map(|node| node["role"].as_str().unwrap()).collect();
        roles.sort_unstable();
        assert_eq!(roles, ["leader", "voter", "voter"], "{report:#}");
        assert!(report["leader"]["term"].as_u64().unwrap() > 0);
        assert!(report["writers"].as_array().unwrap().len() >= 3, "{report:#}");
        let text = wait_for("it exits with 0", || {
            let (code, text) = status(node.client().base());
            (code == Some(0) && text.contains("1 of the nodes may be lost now")).then_some(text)
        });
        assert!(text.contains("The cluster is healthy"), "{text}");
        assert!(text.contains("the loss of the disk that holds this directory loses everything"), "{text}");
    }
    let leader = cluster.leader();

    // One is killed: both others say so, also the one that does not lead.
    let victim = (0..3).find(|number| *number != leader).unwrap();
    let name = format!("n{victim}");
    cluster.nodes[victim].kill().unwrap();
    for number in (0..3).filter(|number| *number != victim) {
        let client = cluster.nodes[number].client();
        let is_told = |report: &Json| {
            let told = report["degraded"].as_array().unwrap().iter().filter_map(Json::as_str);
            told.filter(|text| text.contains("has not been heard of")).count() == 1
        };
        let report = wait_for_report(client, "the silence is told", is_told);
        assert_eq!(node_losses(&report), 0, "{report:#}");
        assert_eq!(node(&report, &name)["isAlive"], false, "{report:#}");
        let degraded = report["degraded"].to_string();
        assert!(degraded.contains(&format!("node {name} (")) && degraded.contains("(node-silent)"), "{degraded}");
        let (code, text) = status(client.base());
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("DEGRADED") && text.contains(&format!("node {name} (")), "{text}");
    }
    wait_for("whoever leads tells it beside being ready", || {
        let ready = |node: &Node| node.client().get("/-/ready", &[]).ok().filter(|ready| ready.status == 200);
        cluster.nodes.iter().filter_map(ready).any(|ready| ready.text().contains("(node-silent)")).then_some(())
    });

    // The leader goes too: the last one says what it sees itself.
    cluster.nodes[leader].kill().unwrap();
    let last = cluster.nodes[3 - leader - victim].client().clone();
    let report = wait_for_report(&last, "there is no leader", |report| report["leader"].is_null());
    assert_eq!(node_losses(&report), 0);
    let degraded = report["degraded"].to_string();
    for number in [leader, victim] {
        assert!(degraded.contains(&format!("node n{number} (")), "{degraded}");
    }
    let (code, text) = status(last.base());
    assert!(code == Some(1) && text.contains("no leader of the index answers"), "{text}");

    // Back, all is well again.
    for number in [leader, victim] {
        cluster.nodes[number].spawn_again().unwrap();
    }
    for number in [leader, victim] {
        cluster.nodes[number].wait_until_ready().unwrap();
    }
    wait_for("all is well again", || (status(last.base()).0 == Some(0)).then_some(()));
}

#[test]
fn a_node_alone_is_healthy_and_says_that_its_disk_is_all_there_is() {
    let node = Node::start(&settings()).unwrap();
    let report = wait_for_report(node.client(), "all is well", |report| report["isHealthy"] == true);
    assert_eq!(node_losses(&report), 0);
    assert_eq!(node_losses(&node.client().data(&format!("/prometheus{PATH}"), &[]).unwrap()), 0);
    let (code, text) = status(node.client().base());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("this is the only node"), "{text}");
    assert!(text.contains("the loss of that disk loses everything"), "{text}");
}

#[test]
fn who_does_not_answer_is_told_from_who_is_not_well() {
    // Nothing listens on port 1 here, and the second is no Bellrock.
    let (code, text) = status("http://127.0.0.1:1");
    assert!(code == Some(2) && text.contains("refused"), "{text}");
    let node = Node::start(&settings()).unwrap();
    let (code, text) = status(&format!("{}/nothing", node.client().base()));
    assert!(code == Some(2) && text.contains("nothing is served at"), "{text}");
}
