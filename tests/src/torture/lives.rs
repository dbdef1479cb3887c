//! What a cluster goes through in its life: a first start with names that say nothing or the wrong thing, and more and fewer nodes.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::client::Client;
use crate::dns::Records;
use crate::torture::machine::Machine;
use crate::torture::world::{NODES, World};

/// An address on the network that nobody has.
const NOBODY: &str = "10.77.0.200";

/// How long nodes have to do the wrong thing: they agree on a new cluster in two seconds.
const TEMPTATION: Duration = Duration::from_secs(4);

/// Fault 26, over machines on which nothing runs yet.
pub fn resolving(world: &mut World) -> Result<String> {
    // The first start: the name is unknown, then there are no addresses, then old ones and one that is right.
    for machine in &mut world.machines {
        machine.start()?;
    }
    must_not_begin(world, "the name is unknown")?;
    world.dns.set(Records::new().text(NODES, "none yet"))?;
    must_not_begin(world, "the name has no addresses")?;
    let right = world.any();
    world.dns.set(stale(world, &[right]))?;
    must_not_begin(world, "most addresses are old ones")?;
    world.dns.set(world.records())?;
    world.wait_until_well()?;
    let Some(cluster) = world.cluster_file()? else { bail!("a cluster runs and the bucket has no cluster.json") };
    world.gather_crowd();
    world.wait_for_acks(20)?;

    // Later a cluster needs no names: all are killed and come back while there are none, or old ones.
    for records in [Records::new(), stale(world, &[])] {
        world.dns.set(records)?;
        for machine in &mut world.machines {
            machine.kill()?;
        }
        for machine in &mut world.machines {
            machine.start()?;
        }
        world.wait_until_well()?;
        world.wait_for_acks(20)?;
    }

    // One with an empty disk waits for a name that leads to the others.
    let new = world.any();
    world.machines[new].kill()?;
    world.machines[new].wipe()?;
    world.machines[new].start()?;
    world.hold(TEMPTATION)?;
    must_not_be_ready(world, new, "a node with an empty disk finds nobody")?;
    world.dns.set(stale(world, &[new]))?;
    world.hold(TEMPTATION)?;
    must_not_be_ready(world, new, "a node with an empty disk finds itself alone")?;
    world.dns.set(world.records())?;
    world.wait_until_well()?;
    world.wait_for_acks(20)?;
    if world.cluster_file()?.as_ref() != Some(&cluster) {
        bail!("the bucket is of another cluster than before: {:?}, before {cluster}", world.cluster_file()?);
    }
    world.check_everything()?;
    Ok(String::new())
}

/// Addresses of nobody, and of these machines.
fn stale(world: &World, numbers: &[usize]) -> Records {
    let records = Records::new().address(NODES, NOBODY);
    let address = |number: &usize| world.machines[*number].host.address().to_string();
    numbers.iter().fold(records, |records, number| records.address(NODES, &address(number)))
}

fn must_not_begin(world: &World, when: &str) -> Result<()> {
    world.hold(TEMPTATION)?;
    if let Some(cluster) = world.cluster_file()? {
        bail!("a cluster began while {when}: {cluster}");
    }
    (0..world.machines.len()).try_for_each(|number| must_not_be_ready(world, number, when))
}

fn must_not_be_ready(world: &World, number: usize, when: &str) -> Result<()> {
    let machine = &world.machines[number];
    let ready = Client::with_timeout(&machine.url(), Duration::from_secs(5)).get("/-/ready", &[])?;
    if ready.status == 200 {
        bail!("{} is ready while {when}", machine.name);
    }
    Ok(())
}

/// Fault 35, over five machines on which nothing runs yet: no query may fail.
pub fn growing(world: &mut World) -> Result<String> {
    world.dns.set(world.records())?;
    world.machines[0].start()?;
    world.wait_until_these_are_well(&[0])?;
    world.gather_crowd_at(&[0]);
    world.wait_for_acks(40)?;
    for (from, to) in [(1, 3), (3, 5)] {
        world.machines[from..to].iter_mut().try_for_each(Machine::start)?;
        let numbers: Vec<usize> = (0..to).collect();
        world.wait_until_these_are_well(&numbers)?;
        world.send_crowd_to(&numbers);
        world.wait_for_acks(60)?;
        world.reading.no_errors(&format!("while {from} nodes became {to}"))?;
    }
    // Any two go, one after the other, in order; who writes and reads was told before.
    let mut numbers: Vec<usize> = (0..5).collect();
    for _ in 0..2 {
        let gone = numbers.swap_remove(world.random.below(numbers.len() as u64) as usize);
        world.send_crowd_to(&numbers);
        // What is under way at it is over by then.
        world.wait_for_acks(20)?;
        world.machines[gone].terminate()?;
        // Those that are gone vote until they are known to be gone for good.
        world.wait_until_voters(&numbers, 5)?;
        let span = world.span(1_000, 5_000);
        world.hold(span)?;
        world.wait_for_acks(40)?;
        world.reading.no_errors("while 5 nodes became 3")?;
    }
    world.check_everything_at(&numbers)?;
    Ok(String::new())
}
