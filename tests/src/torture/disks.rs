//! Faults of disks: power loss, a disk that is new, one that is old, and all of them lost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::torture::machine::Machine;
use crate::torture::world::World;

/// What a node says whose disk was set back.
const WENT_BACK: &str = "replica-went-back";

/// Everything must be back from the bucket in so long.
const RECOVERED_WITHIN: Duration = Duration::from_secs(120);

/// Fault 5.
pub fn power_loss(world: &mut World) -> Result<String> {
    let switches = world.machines.iter().map(Machine::power_switch).collect::<Result<Vec<_>>>()?;
    let span = world.span(0, 2_000);
    world.hold(span)?;
    // Machines without power send no answers. These do: ext4 lets an fsync succeed that is under way while its journal is
    // aborted.
    world.writing.lose_answers();
    let cuts: Vec<_> = switches.into_iter().map(|switch| std::thread::spawn(move || switch.cut())).collect();
    for cut in cuts {
        cut.join().map_err(|_| anyhow::anyhow!("a power switch panicked"))??;
    }
    for machine in &mut world.machines {
        machine.kill()?;
    }
    world.writing.lose_answers();
    for machine in &mut world.machines {
        machine.replug()?;
        machine.start()?;
    }
    Ok(String::new())
}

/// Fault 15.
pub fn wiped(world: &mut World) -> Result<String> {
    let victim = world.any();
    world.machines[victim].kill()?;
    world.machines[victim].wipe()?;
    let span = world.span(0, 6_000);
    world.hold(span)?;
    world.machines[victim].start()?;
    Ok(format!("{} was away for {span:?}", world.machines[victim].name))
}

/// Fault 16.
pub fn old_disk(world: &mut World) -> Result<String> {
    let victim = world.any();
    let copy = tempfile::Builder::new().prefix("bellrock-old-").tempdir()?;
    let index = world.machines[victim].data().join("index");
    world.machines[victim].kill()?;
    Machine::copy(&index, &copy.path().join("index"))?;
    world.machines[victim].start()?;
    world.wait_until_well()?;
    world.wait_for_acks(30)?;

    world.machines[victim].kill()?;
    std::fs::remove_dir_all(&index)?;
    Machine::copy(&copy.path().join("index"), &index)?;
    // It may end by itself before it listens.
    let started = world.machines[victim].start();
    let name = world.machines[victim].name.clone();
    world.wait(&format!("{name} says why it is refused"), Duration::from_secs(30), |world| {
        world.machines[victim].output().contains(WENT_BACK).then_some(())
    })?;
    drop(started);
    // The others go on, and it is not one of them.
    world.wait_for_acks(50)?;
    let client = crate::client::Client::with_timeout(&world.machines[victim].url(), Duration::from_secs(5));
    if client.get("/-/ready", &[]).is_ok_and(|ready| ready.status == 200) {
        bail!("{name} is ready on an old copy of its disk");
    }
    if world.machines[victim].runs() {
        world.machines[victim].kill()?;
    }
    world.machines[victim].wipe()?;
    world.machines[victim].start()?;
    Ok(String::new())
}

/// Fault 24.
pub fn every_disk_lost(world: &mut World, is_full: bool) -> Result<String> {
    for machine in &mut world.machines {
        machine.kill()?;
        machine.wipe()?;
    }
    let acked = world.writing.acked_samples();
    let began = Instant::now();
    let machine = &mut world.machines[0];
    let mut command = machine.settings().command("recover", &machine.data());
    if !is_full {
        // No process of before runs any more.
        command.arg("--recover.wait=1s");
    }
    let output = command.output().context("run bellrock recover")?;
    if !output.status.success() {
        bail!("bellrock recover: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let recovered = began.elapsed();
    machine.start()?;
    machine.wait_until_ready()?;
    let first = began.elapsed();
    let client = machine.client();
    // Counted by the node: as many as were acked are there. Which ones is looked at later.
    let count = world.wait("what was acked is counted", RECOVERED_WITHIN, |world| {
        let senders = 0..world.writing.known.shape.senders;
        let requests = senders.map(|sender| world.writing.sent_requests(sender)).max()?;
        let count = world.writing.known.count(&client, requests).ok()?.ok()?;
        (count >= acked).then_some(count)
    })?;
    let took = began.elapsed();
    if took > RECOVERED_WITHIN {
        bail!("{acked} acked samples were back in {took:?}, at most {RECOVERED_WITHIN:?} is allowed");
    }
    for machine in &mut world.machines[1..] {
        machine.start()?;
    }
    Ok(format!(
        "{count} samples ({acked} acked) back in {took:.1?}: recover {recovered:.1?}, the first node ready {first:.1?}"
    ))
}
