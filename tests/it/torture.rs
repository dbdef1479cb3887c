//! Three nodes and a store under every fault of RELIABILITY.md's table that a cluster must withstand: nothing that was acked is
//! lost or doubled, and no answer is wrong at any time.
//!
//! Each fault once, shortened; `BELLROCK_FULL=1`: each five times. `BELLROCK_TORTURE=1,16` does only those, `BELLROCK_SEED=N` replays
//! the same order, victims and times. Needs root: everything runs in network namespaces of its own, on loop devices.

use std::sync::Mutex;

use tests::Random;
use tests::namespaces::Network;
use tests::torture::nemesis::{FAULTS, Fault, tell, torture};
use tests::torture::table::Table;
use tests::torture::world::World;

use crate::crash::is_full;
use crate::settings;

/// One world at a time: its times are bounds.
static ALONE: Mutex<()> = Mutex::new(());

/// How often each fault comes in a full run.
const ROUNDS: usize = 5;

/// The faults that were asked for, or all.
fn faults() -> Vec<Fault> {
    let asked = std::env::var("BELLROCK_TORTURE").unwrap_or_default();
    let numbers: Vec<u32> = asked.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    FAULTS.into_iter().filter(|fault| numbers.is_empty() || numbers.contains(&fault.number())).collect()
}

#[test]
fn three_nodes_withstand_every_fault() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let Some(network) = Network::new() else { return };
    let seed = Random::seed("torture::three_nodes_withstand_every_fault");
    // Heads are cut often, so that faults fall into cuts too.
    let settings = settings().argument("--expect=3").argument("--ingester.cut-age-max=15s");
    let hub = network.hub().clone();
    hub.run(move || {
        let Some(world) = World::new(network, &settings, 3, seed) else { return };
        let mut world = world.unwrap();
        world.begin().unwrap();
        let mut table = Table::default();
        let rounds = if is_full() { ROUNDS } else { 1 };
        let done = torture(&mut world, &faults(), rounds, is_full(), &mut table);
        tell(&format!("{table}\n{} samples were acked", world.writing.acked_samples()));
        if let Err(error) = done {
            panic!("seed {seed}: {error:#}\n{}", world.describe());
        }
    })
    .unwrap();
}
