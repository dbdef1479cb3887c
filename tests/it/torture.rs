//! Three nodes and a store under every fault of RELIABILITY.md's table that a cluster must withstand: nothing that was acked is
//! lost or doubled, and no answer is wrong at any time.
//!
//! Each fault once, shortened; `BELLROCK_FULL=1`: each five times. `BELLROCK_TORTURE=1,16` does only those, `BELLROCK_SEED=N` replays
//! the same order, victims and times; `BELLROCK_TORTURE_LOGS=FOLDER` keeps what the processes said last. Needs root: everything runs in network namespaces of its own, on loop devices.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use tests::Random;
use tests::Settings;
use tests::namespaces::Network;
use tests::torture::below::Under;
use tests::torture::nemesis::{FAULTS, Fault, GARAGE_FAULTS, live_through, tell, torture};
use tests::torture::table::Table;
use tests::torture::world::World;

use crate::crash::is_full;
use crate::settings;

/// One world at a time: its times are bounds.
static ALONE: Mutex<()> = Mutex::new(());

/// How often each fault comes.
fn rounds() -> usize {
    if is_full() { 5 } else { 1 }
}

/// Those of the faults that were asked for, or all.
fn asked(faults: &[Fault]) -> Vec<Fault> {
    let asked = std::env::var("BELLROCK_TORTURE").unwrap_or_default();
    let numbers: Vec<u32> = asked.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    faults.iter().copied().filter(|fault| numbers.is_empty() || numbers.contains(&fault.number())).collect()
}

/// How nodes are started: heads are cut often, so that faults fall into cuts too.
fn cutting(expect: usize) -> Settings {
    settings().argument(format!("--expect={expect}")).argument("--ingester.cut-age-max=15s")
}

/// A kind of world.
#[derive(Clone, Copy)]
struct Kind {
    under: Under,
    machines: usize,
    /// Nodes that begin the cluster.
    expect: usize,
}

/// Makes a world on a network of its own and calls `act` there; gives how that ended, with how the nodes do. `None`: skipped.
fn in_world(
    kind: Kind,
    settings: &Settings,
    seed: u64,
    act: impl FnOnce(&mut World) -> Result<()> + Send,
) -> Option<Result<()>> {
    let network = Network::new()?;
    let hub = network.hub().clone();
    let run = || {
        let world = World::new(network, kind.under, settings, kind.machines, seed)?;
        let mut world = world.unwrap();
        let done = act(&mut world);
        if let Some(folder) = std::env::var_os("BELLROCK_TORTURE_LOGS") {
            world.write_logs(Path::new(&folder)).unwrap();
        }
        tell(&format!("{} samples were acked", world.writing.acked_samples()));
        Some(done.with_context(|| world.describe()))
    };
    hub.run(run).unwrap()
}

/// All of these faults over one world, again and again.
fn withstands(test: &str, under: Under, faults: &[Fault]) {
    let (_alone, faults) = (ALONE.lock().unwrap_or_else(|e| e.into_inner()), asked(faults));
    if faults.is_empty() {
        return;
    }
    let (seed, mut table) = (Random::seed(test), Table::default());
    let kind = Kind { under, machines: 3, expect: 3 };
    let done = in_world(kind, &cutting(kind.expect), seed, |world| {
        world.begin()?;
        torture(world, &faults, rounds(), is_full(), &mut table)
    });
    tell(&table.to_string());
    done.unwrap_or(Ok(())).unwrap();
}

/// A fault that takes a world of its own each time.
fn lives_through(test: &str, fault: Fault, machines: usize, expect: usize) {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    if asked(&[fault]).is_empty() {
        return;
    }
    let (seed, mut table) = (Random::seed(test), Table::default());
    let kind = Kind { under: Under::S3, machines, expect };
    for round in 0..rounds() {
        let done = in_world(kind, &cutting(expect), seed + round as u64, |world| {
            table.add(fault, live_through(world, fault, is_full())?);
            Ok(())
        });
        tell(&table.to_string());
        done.unwrap_or(Ok(())).unwrap();
    }
}

#[test]
fn three_nodes_withstand_every_fault() {
    withstands("torture::three_nodes_withstand_every_fault", Under::S3, &FAULTS);
}

#[test]
fn three_nodes_withstand_the_faults_of_three_garages() {
    withstands("torture::three_nodes_withstand_the_faults_of_three_garages", Under::Garages, &GARAGE_FAULTS);
}

#[test]
fn names_that_say_nothing_or_the_wrong_thing_make_no_second_cluster() {
    let test = "torture::names_that_say_nothing_or_the_wrong_thing_make_no_second_cluster";
    lives_through(test, Fault::Resolving, 3, 3);
}

#[test]
fn a_cluster_grows_and_shrinks_without_a_failed_query() {
    lives_through("torture::a_cluster_grows_and_shrinks_without_a_failed_query", Fault::Growing, 5, 1);
}

/// The check finds what it is there to find: nodes that ack before they have stored, and all of them killed.
#[cfg(feature = "plant")]
#[test]
fn an_ack_before_the_put_is_found() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let seed = Random::seed("torture::an_ack_before_the_put_is_found");
    let planted = cutting(3).variable("BELLROCK_PLANT", "ack-before-fsync");
    let done = in_world(Kind { under: Under::S3, machines: 3, expect: 3 }, &planted, seed, |world| {
        world.begin()?;
        torture(world, &[Fault::AllKilled], 3, false, &mut Table::default())
    });
    if let Some(done) = done {
        let found = format!("{:#}", done.unwrap_err());
        assert!(found.contains("is missing"), "{found}");
    }
}
