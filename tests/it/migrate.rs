//! `bellrock bucket migrate`: a node's directory moves to an object store while it is written to, and nothing acked is lost,
//! whenever it is killed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::cluster::Cluster;
use tests::load::{Load, Progress, Shape};
use tests::s3::{Asked, Fate, S3Server};
use tests::store::Kind;
use tests::{Node, Random, Settings, Store, wait_for};

use crate::crash::{is_as_acked, pause_within};
use crate::settings;

/// A node on its own directory that cuts often: blocks, segments and checkpoints are among what is moved.
fn cutting() -> Settings {
    settings().argument("--ingester.cut-age-max=1s")
}

/// `bellrock bucket migrate` for the node of a data folder, to a store.
fn command(store: &Store, data: &Path) -> Command {
    let target = store.apply(settings());
    let mut command = Command::new(&target.program);
    command.args(["bucket", "migrate", "--data"]).arg(data);
    // What serving calls the bucket, moving calls the place to move to.
    command.args(target.arguments.iter().map(|argument| argument.replacen("--bucket", "--to", 1)));
    command.envs(target.environment.iter().cloned());
    command
}

/// Runs it to its end: whether the bucket has moved, and what was said.
fn migrate(store: &Store, data: &Path) -> (bool, String) {
    let output = command(store, data).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn server(store: &Store) -> &S3Server {
    let Store::S3(server) = store else { panic!() };
    server
}

fn write_for_a_while(load: &mut Load, node: &Node, samples: u64) {
    let done = load.run(&node.client().clone(), |progress| {
        wait_for("the senders get acks", || (progress.acked() >= samples).then_some(()));
        Ok(())
    });
    done.unwrap();
}

/// Starts a node on a data folder whose bucket has moved, as it was started before: it says where the bucket is.
fn the_old_place_refuses(data: &Path) {
    let mut process = cutting().spawn(data).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(1));
    wait_for("it says where the bucket is", || {
        let output = process.output();
        (output.contains("(bucket-moved)") && output.contains("--bucket s3://metrics")).then_some(())
    });
}

/// Starts the node where its bucket is now, kills it, loses its disk and recovers: every acked sample is there each time.
fn the_new_place_is_whole(store: &Store, data: &Path, load: &mut Load) {
    let moved = store.apply(cutting());
    let mut node = Node::start_on(&moved, data).unwrap();
    assert!(is_as_acked("a start in the new place", load, node.client(), true));
    write_for_a_while(load, &node, 10_000);
    node.kill().unwrap();

    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(&moved.program);
    command.args(["recover", "--recover.wait=1ms", "--data"]).arg(empty.path()).args(&moved.arguments);
    let output = command.envs(moved.environment.iter().cloned()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let node = Node::start_in(&moved, empty).unwrap();
    assert!(is_as_acked("a recovery from the new place alone", load, node.client(), true));
}

fn a_bucket_moves_under_load(kind: Kind) {
    let Some(store) = Store::start(kind) else { return };
    let seed = Random::seed("migrate::a_bucket_moves_under_load");
    let mut load = Load::new(seed, Shape::default());
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start_on(&cutting(), data.path()).unwrap();
    write_for_a_while(&mut load, &node, 60_000);
    let client = node.client().clone();
    let mut said = String::new();
    let run = load.run(&client, |progress| {
        let ((moved, text), gap) = with_longest_gap(progress, || migrate(&store, data.path()));
        assert!(moved, "{text}");
        println!("the longest time without an ack was {gap:?}");
        said = text;
        // It goes on in the new place without a restart, and cuts and collects there.
        let (acked, cuts) = (progress.acked(), cuts(&client));
        wait_for("writes and cuts go on", || {
            (progress.acked() >= acked + 20_000 && self::cuts(&client) >= cuts + 2.0).then_some(())
        });
        Ok(())
    });
    println!("{run:?}\n{said}");
    assert!(said.contains("has moved to s3://metrics") && said.contains("--bucket s3://metrics"), "{said}");
    assert!(store.secret().is_none_or(|secret| !said.contains(secret)), "{said}");
    assert!(is_as_acked("a move under load", &mut load, &client, true));
    let ready = client.get("/-/ready", &[]).unwrap();
    assert!(ready.status == 200 && ready.text().contains("(bucket-moved)"), "{}", ready.text());
    let status = client.get("/api/v1/status/cluster", &[]).unwrap().text();
    assert!(status.contains("s3://metrics"), "what losses it can take is the new place's: {status}");
    node.kill().unwrap();
    the_old_place_refuses(data.path());
    the_new_place_is_whole(&store, data.path(), &mut load);
}

/// Does something, and measures the longest time in it without an ack.
fn with_longest_gap<T>(progress: &Progress, work: impl FnOnce() -> T) -> (T, Duration) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let (mut acked, mut since, mut longest) = (progress.acked(), Instant::now(), Duration::ZERO);
            while !is_over.load(Ordering::SeqCst) {
                longest = longest.max(since.elapsed());
                if progress.acked() != acked {
                    (acked, since) = (progress.acked(), Instant::now());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            longest
        });
        let done = work();
        is_over.store(true, Ordering::SeqCst);
        (done, watching.join().unwrap())
    })
}

fn cuts(client: &tests::Client) -> f64 {
    client.metric("bellrock_ingester_cuts_total").unwrap().unwrap_or(0.0)
}

#[test]
fn a_bucket_moves_to_s3_under_load() {
    a_bucket_moves_under_load(Kind::S3);
}

#[test]
fn a_bucket_moves_to_garage_under_load() {
    a_bucket_moves_under_load(Kind::Garage);
}

#[test]
fn killed_while_it_copies_the_old_place_goes_on_and_the_move_continues() {
    let store = Store::start(Kind::S3).unwrap();
    let seed = Random::seed("migrate::killed_while_it_copies");
    let mut load = Load::new(seed, Shape::default());
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start_on(&cutting(), data.path()).unwrap();
    let client = node.client().clone();
    let cut = load.run(&client, |_| {
        wait_for("there are blocks", || (cuts(&client) >= 4.0).then_some(()));
        Ok(())
    });
    cut.unwrap();
    // Of the blocks one is copied, and the others are never answered for.
    let copied = Arc::new(AtomicU64::new(0));
    let seen = copied.clone();
    server(&store).judge(move |asked, path| {
        let is_copy = asked == Asked::Put && path.contains("/blocks/");
        match is_copy && seen.fetch_add(1, Ordering::SeqCst) >= 1 {
            true => Fate::Swallowed,
            false => Fate::Served,
        }
    });
    let mut migrating = command(&store, data.path()).spawn().unwrap();
    let killed = load.run(&node.client().clone(), |_| {
        wait_for("it copies", || (copied.load(Ordering::SeqCst) > 1).then_some(()));
        node.kill()
    });
    killed.unwrap();
    assert!(!migrating.wait().unwrap().success());
    server(&store).acquit();

    // The target says what it is, to whoever starts on it or recovers from it.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut process = store.apply(cutting()).spawn(elsewhere.path()).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(1));
    wait_for("it says why", || process.output().contains("(bucket-moving)").then_some(()));

    let mut node = Node::start_on(&cutting(), data.path()).unwrap();
    assert!(is_as_acked("killed while it copied", &mut load, node.client(), true));
    write_for_a_while(&mut load, &node, 20_000);
    let (moved, text) = migrate(&store, data.path());
    assert!(moved, "{text}");
    write_for_a_while(&mut load, &node, 10_000);
    node.kill().unwrap();
    the_old_place_refuses(data.path());
    the_new_place_is_whole(&store, data.path(), &mut load);
}

#[test]
fn killed_right_after_the_moment_the_new_place_is_in_force() {
    let store = Store::start(Kind::S3).unwrap();
    let seed = Random::seed("migrate::killed_right_after_the_moment");
    let mut load = Load::new(seed, Shape::default());
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start_on(&cutting(), data.path()).unwrap();
    write_for_a_while(&mut load, &node, 30_000);
    // The mark gets through, the last word does not.
    let is_marked = AtomicBool::new(false);
    server(&store).judge(move |asked, path| {
        let is_word = asked == Asked::Put && path.ends_with("/cluster.json");
        match is_word && is_marked.swap(true, Ordering::SeqCst) {
            true => Fate::Swallowed,
            false => Fate::Served,
        }
    });
    let mut migrating = command(&store, data.path()).spawn().unwrap();
    let note = data.path().join("bucket/moved.json");
    let killed = load.run(&node.client().clone(), |progress| {
        wait_for("the note is there", || note.exists().then_some(()));
        // Acked between the moment and the kill.
        let acked = progress.acked();
        wait_for("writes go on", || (progress.acked() > acked + 5_000).then_some(()));
        node.kill()
    });
    killed.unwrap();
    assert!(!migrating.wait().unwrap().success());
    server(&store).acquit();
    the_old_place_refuses(data.path());
    the_new_place_is_whole(&store, data.path(), &mut load);
}

/// Kills the node at random moments of one move after another, until it has moved.
#[test]
fn killed_at_any_moment_one_place_is_in_force_and_has_everything() {
    let store = Store::start(Kind::S3).unwrap();
    let seed = Random::seed("migrate::killed_at_any_moment");
    let mut random = Random::new(seed);
    let mut load = Load::new(seed, Shape::default());
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start_on(&cutting(), data.path()).unwrap();
    write_for_a_while(&mut load, &node, 20_000);
    let mut kills = 0;
    let note = data.path().join("bucket/moved.json");
    let mark = server(&store).objects().join("below/here/cluster.json");
    while !note.exists() {
        let before = std::fs::read(&mark).ok();
        let mut migrating = command(&store, data.path()).spawn().unwrap();
        let killed = load.run(&node.client().clone(), |_| {
            // Trying the target takes most of the time, and touches nothing: the moment is one of what comes after it.
            wait_for("the target is marked", || (std::fs::read(&mark).ok() != before).then_some(()));
            pause_within(Duration::from_millis(2_500), &mut random);
            node.kill()
        });
        killed.unwrap();
        migrating.wait().unwrap();
        kills += 1;
        if !note.exists() {
            node = Node::start_on(&cutting(), data.path()).unwrap();
            assert!(is_as_acked(&format!("kill {kills}"), &mut load, node.client(), true), "seed {seed}");
            if kills == 5 {
                let (moved, text) = migrate(&store, data.path());
                assert!(moved, "{text}");
                node.kill().unwrap();
            }
        }
    }
    println!("moved after {kills} kills");
    the_old_place_refuses(data.path());
    the_new_place_is_whole(&store, data.path(), &mut load);
}

#[test]
fn a_target_that_fails_costs_the_move_and_no_write() {
    let store = Store::start(Kind::S3).unwrap();
    let seed = Random::seed("migrate::a_target_that_fails");
    let mut load = Load::new(seed, Shape::default());
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start_on(&cutting(), data.path()).unwrap();
    write_for_a_while(&mut load, &node, 30_000);
    // It answers while it is tried, and refuses what is moved.
    server(&store).judge(|asked, path| match asked == Asked::Put && path.contains("/segments/") {
        true => Fate::Refused,
        false => Fate::Served,
    });
    let run = load.run(&node.client().clone(), |progress| {
        let (moved, text) = migrate(&store, data.path());
        assert!(!moved && text.contains("(bucket-move-given-up)"), "{text}");
        let acked = progress.acked();
        wait_for("writes go on", || (progress.acked() > acked + 10_000).then_some(()));
        Ok(())
    });
    run.unwrap();
    node.kill().unwrap();
    let node = Node::start_on(&cutting(), data.path()).unwrap();
    assert!(is_as_acked("a move that was given up", &mut load, node.client(), true));
}

#[test]
fn what_can_not_be_moved_is_refused_with_what_to_mend() {
    let store = Store::start(Kind::S3).unwrap();
    let nobody = tempfile::tempdir().unwrap();
    let (moved, text) = migrate(&store, nobody.path());
    assert!(!moved && text.contains("(not-serving)"), "{text}");

    // A bucket that is another node's.
    let theirs = Node::start(&store.apply(settings())).unwrap();
    let node = Node::start(&settings()).unwrap();
    let (moved, text) = migrate(&store, node.data());
    assert!(!moved && text.contains("(bucket-taken)"), "{text}");
    // A node whose bucket is no directory of its own.
    let elsewhere = Store::start(Kind::S3).unwrap();
    let (moved, text) = migrate(&elsewhere, theirs.data());
    assert!(!moved && text.contains("(bucket-not-movable)"), "{text}");
    // One of several.
    let cluster = Cluster::start(&settings(), Store::Directory, 3).unwrap();
    let (moved, text) = migrate(&elsewhere, cluster.nodes[0].data());
    assert!(!moved && text.contains("(bucket-not-movable)"), "{text}");

    // A store that lacks something, and credentials that are wrong.
    server(&elsewhere).judge(|asked, _| if asked == Asked::Delete { Fate::Refused } else { Fate::Served });
    let (moved, text) = migrate(&elsewhere, node.data());
    assert!(!moved && text.contains("(bucket-unusable)"), "{text}");
    server(&elsewhere).acquit();
    let wrong = command(&elsewhere, node.data()).env("AWS_SECRET_ACCESS_KEY", "wr0ng-Secret-9").output().unwrap();
    let text = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && text.contains("(bucket-access-denied)"), "{text}");
    assert!(!text.contains("wr0ng-Secret-9"), "{text}");

    // Nobody else may talk to the process.
    let mode = std::fs::metadata(node.data().join("control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    wait_for("it is as ready as before", || {
        node.client().get("/-/ready", &[]).ok().filter(|ready| ready.status == 200).map(|_| ())
    });
    wait_for("it stores as before", || {
        let pushed =
            node.client().push(&[tests::Series::floats(&tests::labels("m", &[]), &[(1_700_000_000_000, 1.0)])]);
        pushed.is_ok_and(|response| response.status / 100 == 2).then_some(())
    });
}
