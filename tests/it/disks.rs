//! Disks that are full or have become read-only: writes get 503 and `/-/ready` says why; nothing acked is lost.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use model::TimestampMs;
use tests::disk::Disk;
use tests::fsync::FailingFsync;
use tests::promqltest::Data;
use tests::{Client, Node, Series, labels, wait_for};

use crate::settings;

/// A time in the past, so that no clock matters.
const T: TimestampMs = 1_700_000_000_000;

fn push(client: &Client, i: i64) -> (u16, String, Option<u64>) {
    let response = client.push(&[Series::floats(&labels("m", &[]), &[(T + i * 1_000, i as f64)])]).unwrap();
    let retry_after = response.header("retry-after").and_then(|text| text.parse().ok());
    (response.status, response.text(), retry_after)
}

fn count(client: &Client) -> usize {
    let Data::Matrix(matrix) = client.instant("m[1d]", T + 80_000_000).unwrap().unwrap().data else { panic!() };
    matrix.first().map_or(0, |(_, samples)| samples.len())
}

/// Pushes until a write is refused, and checks how.
#[track_caller]
fn push_until_refused(client: &Client, first: i64) -> i64 {
    let (refused, answer) = (first..first + 10_000)
        .find_map(|i| {
            let answer = push(client, i);
            (answer.0 / 100 != 2).then_some((i, answer))
        })
        .expect("no write was refused");
    assert_eq!(answer.0, 503, "{}", answer.1);
    assert!(answer.2.is_some_and(|seconds| (1..=5).contains(&seconds)), "Retry-After is {:?}", answer.2);
    refused
}

fn fill(file: &Path) -> File {
    let file = File::create(file).unwrap();
    let mut offset = 0;
    for size in [1 << 20, 4096] {
        let zeros = vec![0; size];
        while let Ok(n @ 1..) = file.write_at(&zeros, offset) {
            offset += n as u64;
        }
    }
    // An error of the sync is the lack of space itself.
    let _ = file.sync_all();
    file
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    let Some(disk) = Disk::new(64) else { return };
    let mut node = Node::start_on(&settings(), &disk.path().join("data")).unwrap();
    let client = node.client().clone();
    (0..10).for_each(|i| assert_eq!(push(&client, i).0 / 100, 2));
    let filler = disk.path().join("filler");
    drop(fill(&filler));
    let refused = push_until_refused(&client, 10);
    let ready = wait_for("/-/ready tells of the lack of space", || {
        Some(client.get("/-/ready", &[]).unwrap()).filter(|ready| ready.status == 503)
    });
    assert!(ready.text().to_lowercase().contains("space"), "{}", ready.text());
    wait_for("the log tells of it", || node.process().output().to_lowercase().contains("space").then_some(()));
    assert_eq!(count(&client), refused as usize, "what was acked is there, what was refused is not");

    std::fs::remove_file(filler).unwrap();
    wait_for("writes are taken again", || (push(&client, refused).0 / 100 == 2).then_some(()));
    wait_for("the node is ready again", || (client.get("/-/ready", &[]).unwrap().status == 200).then_some(()));
    assert_eq!(count(&client), refused as usize + 1);
    node.kill().unwrap();
    node.start_again().unwrap();
    assert_eq!(count(node.client()), refused as usize + 1);
    node.kill().unwrap();
}

#[test]
fn a_read_only_disk_refuses_writes_and_answers_queries() {
    let Some(mut disk) = Disk::new(64) else { return };
    let mut node = Node::start_on(&settings(), &disk.path().join("data")).unwrap();
    let client = node.client().clone();
    (0..10).for_each(|i| assert_eq!(push(&client, i).0 / 100, 2));
    disk.make_read_only().unwrap();
    let refused = push_until_refused(&client, 10);
    let ready = wait_for("/-/ready tells of the read-only disk", || {
        Some(client.get("/-/ready", &[]).unwrap()).filter(|ready| ready.status == 503)
    });
    assert!(ready.text().to_lowercase().contains("read-only"), "{}", ready.text());
    wait_for("the log tells of it", || node.process().output().to_lowercase().contains("read-only").then_some(()));
    assert_eq!(count(&client), refused as usize);

    node.kill().unwrap();
    disk.unmount().unwrap();
    disk.mount().unwrap();
    node.start_again().unwrap();
    assert!(count(node.client()) >= refused as usize);
    assert_eq!(push(node.client(), refused).0 / 100, 2);
    node.kill().unwrap();
}

#[test]
fn a_segment_whose_fsync_fails_is_not_acked_and_its_key_is_not_used_again() {
    let Some(fsync) = FailingFsync::new() else { return };
    let mut node = Node::start(&fsync.settings(settings())).unwrap();
    let client = node.client().clone();
    (0..10).for_each(|i| assert_eq!(push(&client, i).0 / 100, 2));
    fsync.fail("/segments/").unwrap();
    // Waits until the request's deadline: 503, and the same bytes are tried again under another key meanwhile.
    let (status, text, retry_after) = push(&client, 10);
    assert_eq!(status, 503, "{text}");
    assert!(retry_after.is_some());
    let ready = client.get("/-/ready", &[]).unwrap();
    assert!(ready.status == 503 && ready.text().contains("os error 5"), "{}", ready.text());
    assert_eq!(count(&client), 10, "what is not durable is not visible");
    fsync.work().unwrap();
    wait_for("writes are taken again", || (push(&client, 11).0 / 100 == 2).then_some(()));
    wait_for("the log tells of it", || {
        let output = node.process().output();
        (output.contains("segment not stored, trying again") && output.contains("os error 5")).then_some(())
    });
    node.kill().unwrap();
    node.start_again().unwrap();
    // The refused one may have been stored by a later attempt; the others are there.
    assert_eq!(count(node.client()), 12);
    node.kill().unwrap();
}

#[test]
fn an_index_log_whose_fsync_fails_ends_the_process_and_nothing_acked_is_lost() {
    let Some(fsync) = FailingFsync::new() else { return };
    let mut node = Node::start(&fsync.settings(settings())).unwrap();
    let client = node.client().clone();
    (0..10).for_each(|i| assert_eq!(push(&client, i).0 / 100, 2));
    fsync.fail("/index/").unwrap();
    let series = [Series::floats(&labels("m", &[]), &[(T + 10_000, 10.0)])];
    let answer = client.push(&series);
    assert!(answer.as_ref().map_or(true, |answer| answer.status / 100 != 2), "acked without the index: {answer:?}");
    let status = node.process().wait().unwrap();
    assert!(!status.success(), "{status}");
    let output = node.process().output();
    assert!(output.contains("index-log-failed"), "{output}");
    fsync.work().unwrap();
    node.start_again().unwrap();
    assert!(count(node.client()) >= 10);
    assert_eq!(push(node.client(), 11).0 / 100, 2);
    node.kill().unwrap();
}
