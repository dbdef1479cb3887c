//! kill -9 under load, during a cut and during recovery: every acked sample is read back, once, bit by bit.
//!
//! Twenty rounds on a directory, which take half a minute, eleven on each other store; `BELLROCK_FULL=1` also holds the load to 20,000 samples a second, which a
//! machine that does other things besides may miss.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::load::{Load, Progress, Shape};
use tests::{Client, Node, Random, Settings, Store, wait_for};

use crate::settings;

/// What the load must reach in a full run.
const SAMPLES_PER_SECOND_MIN: f64 = 20_000.0;

/// When a node is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// While the senders push.
    Load,
    /// After SIGTERM under load: it drains, flushes and cuts.
    Cut,
    /// While it starts again after another kill.
    Recovery,
}

/// Whether the long form of a test was asked for.
pub fn is_full() -> bool {
    std::env::var("BELLROCK_FULL").is_ok_and(|v| v == "1")
}

fn rounds(random: &mut Random, share: usize) -> Vec<Moment> {
    let mut rounds = Vec::new();
    for (moment, count) in [(Moment::Load, 12_usize), (Moment::Cut, 5), (Moment::Recovery, 3)] {
        rounds.extend(std::iter::repeat_n(moment, count.div_ceil(share)));
    }
    for i in (1..rounds.len()).rev() {
        rounds.swap(i, random.below(i as u64 + 1) as usize);
    }
    rounds
}

/// Waits until the senders have got some more acks: how many is the random moment.
pub fn wait_for_acks(progress: &Progress, random: &mut Random) {
    let enough = 2_000 + random.below(60_000);
    wait_for("the senders get acks", || (progress.acked() >= enough).then_some(()));
}

/// A random part of `span`. The pause is the moment itself: nothing is waited for.
pub fn pause_within(span: Duration, random: &mut Random) {
    std::thread::sleep(span.mul_f64(random.below(1_000) as f64 / 1_000.0));
}

/// Pushes while the node cuts its head twice, and checks before anything else happens to it; a restart would take the
/// segments in anew and hide what a cut has done.
fn survives_cuts(node: &mut Node, load: &mut Load) -> bool {
    let cuts = |client: &Client| client.metric("bellrock_ingester_cuts_total").unwrap().unwrap_or(0.0);
    let client = node.client().clone();
    let before = cuts(&client);
    load.run(&client, |_| {
        wait_for("the head is cut twice", || (cuts(&client) >= before + 2.0).then_some(()));
        Ok(())
    })
    .unwrap();
    is_as_acked("two cuts under load", load, &client, true)
}

/// Whether every acked sample can be read back, once, as it was sent. `everything`, or what came since the last look.
pub fn is_as_acked(after: &str, load: &mut Load, client: &Client, everything: bool) -> bool {
    match load.check(client, everything) {
        Ok(verdict) => {
            println!("{after}: {verdict:?}");
            verdict.is_clean() && (!everything || verdict.present == load.acked())
        }
        Err(error) => {
            println!("{after}: the samples can't be read: {error:#}");
            false
        }
    }
}

/// How long an orderly stop and a start take here, with some load behind them.
fn measure(node: &mut Node, load: &mut Load, random: &mut Random) -> (Duration, Duration) {
    load.run(&node.client().clone(), |progress| {
        wait_for_acks(progress, random);
        Ok(())
    })
    .unwrap();
    let stopping = Instant::now();
    assert!(node.terminate().unwrap().success());
    let starting = Instant::now();
    node.start_again().unwrap();
    (starting - stopping, starting.elapsed())
}

/// Kills a node in every way and checks it after each; returns false at the first sample that is not as it was acked.
fn survives_kills(settings: &Settings, seed: u64, share: usize) -> bool {
    let mut random = Random::new(seed);
    let mut node = Node::start(settings).unwrap();
    let mut load = Load::new(seed, Shape::default());
    if !survives_cuts(&mut node, &mut load) {
        return false;
    }
    let (stop, start) = measure(&mut node, &mut load, &mut random);
    println!("an orderly stop takes {stop:?}, a start {start:?}");
    let (mut acked, mut elapsed) = (0, Duration::ZERO);
    for (i, moment) in rounds(&mut random, share).into_iter().enumerate() {
        let mut in_time = true;
        let run = load.run(&node.client().clone(), |progress| {
            wait_for_acks(progress, &mut random);
            if moment == Moment::Cut {
                node.process().signal(Signal::TERM)?;
                pause_within(stop, &mut random);
                in_time = node.process().ended().is_none();
            }
            node.kill()
        });
        let run = run.unwrap();
        (acked, elapsed) = (acked + run.acked, elapsed + run.elapsed);
        if moment == Moment::Recovery {
            node.spawn_again().unwrap();
            pause_within(start, &mut random);
            node.kill().unwrap();
        }
        node.start_again().unwrap();
        let late = if in_time { "" } else { " (it had stopped before)" };
        let after = format!("round {i}: killed during {moment:?}{late} after {} acked samples", run.acked);
        if !is_as_acked(&after, &mut load, node.client(), false) {
            println!("{}", node.process().output());
            return false;
        }
    }
    let rate = acked as f64 / elapsed.as_secs_f64();
    println!("{acked} samples were acked in {elapsed:?}, {rate:.0} a second");
    assert!(!is_full() || share > 1 || rate >= SAMPLES_PER_SECOND_MIN, "the load was {rate:.0} samples a second");

    // The whole once more, from the head and, after a cut, from blocks.
    for from in ["head", "blocks"] {
        if !is_as_acked(&format!("all of it, from the {from}"), &mut load, node.client(), true) {
            return false;
        }
        assert!(node.terminate().unwrap().success());
        node.start_again().unwrap();
    }
    true
}

/// A node that cuts its head every second, so that kills fall into cuts too.
fn cutting() -> Settings {
    settings().argument("--ingester.cut-age-max=1s")
}

on_every_store! {
    acked_samples_survive_kill_9,
}

fn acked_samples_survive_kill_9(store: &Store) {
    let seed = Random::seed("crash::acked_samples_survive_kill_9");
    let share = if matches!(store, Store::Directory) { 1 } else { 2 };
    let survives = survives_kills(&store.apply(cutting()), seed, share);
    assert!(survives, "acked samples are not as they were sent, seed {seed}");
}

/// The check finds what it is there to find.
#[cfg(feature = "plant")]
#[test]
fn a_cut_that_retires_nothing_is_found() {
    let seed = Random::seed("crash::a_cut_that_retires_nothing_is_found");
    let planted = cutting().variable("BELLROCK_PLANT", "cut-without-retiring");
    assert!(!survives_kills(&planted, seed, 1), "the planted bug was not found, seed {seed}");
}
