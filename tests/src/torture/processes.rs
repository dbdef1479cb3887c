//! Faults of processes: killed, all at once or one of them, and stopped for a while.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;

use crate::client::{Client, Response};
use crate::garage::Garage;
use crate::torture::below::Below;
use crate::torture::world::World;

/// All nodes must be ready again so long after all were killed.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Without most of the voters a write is refused within this time.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

/// Pushes to one node what is acked already, so that it means nothing whether it is taken.
pub fn probe(world: &World, number: usize, timeout: Duration) -> Result<Response> {
    Client::with_timeout(&world.machines[number].url(), timeout).push(&world.writing.known.request(0, 0))
}

/// Fault 1.
pub fn node_killed(world: &mut World) -> Result<String> {
    let victim = world.any();
    kill_and_start_again(world, victim)
}

/// Fault 2.
pub fn leader_killed(world: &mut World) -> Result<String> {
    let (leader, _) = world.leader()?;
    kill_and_start_again(world, leader)
}

fn kill_and_start_again(world: &mut World, victim: usize) -> Result<String> {
    world.writing.gap.begin();
    world.machines[victim].kill()?;
    // It comes back at once, before its session has ended, or when it has been adopted.
    let span = world.span(0, 7_000);
    world.hold(span)?;
    world.machines[victim].start()?;
    Ok(format!("{} was away for {span:?}", world.machines[victim].name))
}

/// Fault 3.
pub fn two_of_three_down(world: &mut World) -> Result<String> {
    let survivor = world.any();
    let others: Vec<usize> = (0..world.machines.len()).filter(|number| *number != survivor).collect();
    for number in &others {
        world.machines[*number].kill()?;
    }
    let refused = |world: &mut World| probe(world, survivor, Duration::from_secs(30)).ok().filter(|r| r.status == 503);
    world.wait("writes are refused", Duration::from_secs(30), refused)?;
    let asked = Instant::now();
    let response = probe(world, survivor, Duration::from_secs(30))?;
    let took = asked.elapsed();
    if response.status != 503 || response.header("retry-after").is_none() || took > REFUSED_WITHIN {
        bail!("without most voters a write was answered {} after {took:?}: {}", response.status, response.text());
    }
    // Reads go on, and say that they may be old.
    let known = world.writing.known;
    let window = crate::known::Window { sender: 0, requests: 0..1 };
    let url = world.machines[survivor].url();
    let answer =
        known.ask(&Client::with_timeout(&url, Duration::from_secs(30)), &window)?.map_err(anyhow::Error::msg)?;
    if !answer.warnings.iter().any(|warning| warning.contains("no-leader")) {
        bail!("without most voters an answer had no warning");
    }
    let span = world.span(0, 4_000);
    world.hold(span)?;
    for number in &others {
        world.machines[*number].start()?;
    }
    Ok(format!("a write is refused in {took:?}"))
}

/// Fault 4.
pub fn all_killed(world: &mut World) -> Result<String> {
    for machine in &mut world.machines {
        machine.kill()?;
    }
    let began = Instant::now();
    for machine in &mut world.machines {
        machine.start()?;
    }
    for machine in &mut world.machines {
        machine.wait_until_ready()?;
    }
    let took = began.elapsed();
    if took > READY_WITHIN {
        bail!("after all were killed they were ready in {took:?}, at most {READY_WITHIN:?} is allowed");
    }
    Ok(format!("ready in {took:?}"))
}

/// Fault 10.
pub fn stopped(world: &mut World, is_full: bool) -> Result<String> {
    let victim = world.any();
    let fenced = |output: &str| output.matches("writer-fenced").count();
    let before = fenced(&world.machines[victim].output());
    world.machines[victim].signal(Signal::STOP)?;
    let span = Duration::from_secs(if is_full { 60 } else { 6 });
    let held = world.hold(span);
    world.machines[victim].signal(Signal::CONT)?;
    held?;
    world.wait("the writer of the stopped process is fenced", Duration::from_secs(30), |world| {
        (fenced(&world.machines[victim].output()) > before).then_some(())
    })?;
    world.wait("its next writer takes writes", Duration::from_secs(60), |world| {
        probe(world, victim, Duration::from_secs(10)).is_ok_and(|response| response.status / 100 == 2).then_some(())
    })?;
    Ok(format!("{} for {span:?}", world.machines[victim].name))
}

/// Fault 38, the process's: SIGKILL of a Garage.
pub fn garage_killed(world: &mut World) -> Result<String> {
    let victim = world.random.below(3) as usize;
    let span = world.span(0, 12_000);
    garage(world, victim)?.process().kill()?;
    world.hold(span)?;
    world.wait_for_acks(20)?;
    garage(world, victim)?.start_again()?;
    garage(world, victim)?.wait_until_healthy()?;
    Ok(format!("g{victim} was away for {span:?}"))
}

fn garage(world: &mut World, number: usize) -> Result<&mut Garage> {
    match &mut world.below {
        Below::Garages { garages, .. } => Ok(&mut garages[number]),
        Below::S3 { .. } => bail!("there is no Garage"),
    }
}
