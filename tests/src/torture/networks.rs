//! Faults of the network: a node that the others cannot reach, or that reaches nobody, or whose store is away.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::client::Client;
use crate::namespaces::{Block, Host};
use crate::torture::below::Below;
use crate::torture::processes::probe;
use crate::torture::world::World;

/// Ways that are blocked until [`Blocked::heal`].
struct Blocked(Vec<(Host, Host, Block)>);

impl Blocked {
    fn new(ways: Vec<(Host, Host, Block)>) -> Result<Blocked> {
        for (from, to, block) in &ways {
            from.block(to, *block)?;
        }
        Ok(Blocked(ways))
    }

    fn heal(self) -> Result<()> {
        for (from, to, block) in &self.0 {
            from.unblock(to, *block)?;
        }
        Ok(())
    }
}

/// How, by chance.
fn block(world: &mut World) -> Block {
    [Block::NoRoute, Block::Silent][world.random.below(2) as usize]
}

/// A node, by chance or the leader, and the machines of the others.
fn victim(world: &mut World) -> Result<(usize, bool, Vec<Host>)> {
    let (leader, _) = world.leader()?;
    let victim = if world.random.below(2) == 0 { leader } else { world.any() };
    let others = world.machines.iter().enumerate().filter(|(number, _)| *number != victim);
    Ok((victim, victim == leader, others.map(|(_, machine)| machine.host.clone()).collect()))
}

/// Fault 7: from the others, and sometimes from the store too.
pub fn parted(world: &mut World) -> Result<String> {
    let (victim, is_leader, mut others) = victim(world)?;
    let (how, host) = (block(world), world.machines[victim].host.clone());
    let with_store = world.random.below(3) == 0;
    if with_store {
        others.push(world.below.host(victim));
    }
    let (_, term) = world.leader()?;
    let there = others.iter().map(|other| (host.clone(), other.clone(), how));
    let back = others.iter().map(|other| (other.clone(), host.clone(), how));
    let blocked = Blocked::new(there.chain(back).collect())?;
    let name = world.machines[victim].name.clone();
    let refused = world.wait(&format!("{name}, alone, refuses writes"), Duration::from_secs(30), |world| {
        probe(world, victim, Duration::from_secs(15)).ok().filter(|response| response.status == 503)
    });
    let span = world.span(2_000, 8_000);
    let held = refused.and_then(|_| world.hold(span)).and_then(|()| world.wait_for_acks(20));
    blocked.heal()?;
    held?;
    world.wait_until_well()?;
    let (_, term_now) = world.leader()?;
    // A lost leader costs one election, perhaps one more; a follower that was alone must cost none, and this machine may be slow.
    if term_now > term + 3 {
        bail!("the leader changes and changes: term {term} became {term_now}");
    }
    let (leads, store) =
        (if is_leader { ", leading" } else { "" }, if with_store { ", from the store too" } else { "" });
    Ok(format!("{name}{leads}{store} ({how:?}); {} elections", term_now - term))
}

/// Fault 8: what it sends does not come, or what is sent to it.
pub fn parted_one_way(world: &mut World) -> Result<String> {
    let (victim, is_leader, others) = victim(world)?;
    let (how, host) = (block(world), world.machines[victim].host.clone());
    let is_outgoing = world.random.below(2) == 0;
    let ways = others.iter().map(|other| match is_outgoing {
        true => (host.clone(), other.clone(), how),
        false => (other.clone(), host.clone(), how),
    });
    let (_, term) = world.leader()?;
    let blocked = Blocked::new(ways.collect())?;
    let span = world.span(4_000, 10_000);
    let held = world.hold(span).and_then(|()| world.wait_for_acks(20));
    blocked.heal()?;
    held?;
    world.wait_until_well()?;
    let (_, term_now) = world.leader()?;
    if term_now > term + 3 {
        bail!("the leader changes and changes: term {term} became {term_now}");
    }
    let (leads, way) = (if is_leader { ", leading" } else { "" }, if is_outgoing { "sends" } else { "hears" });
    let name = &world.machines[victim].name;
    Ok(format!("{name}{leads} {way} nothing ({how:?}); {} elections", term_now - term))
}

/// Fault 9.
pub fn cut_from_store(world: &mut World) -> Result<String> {
    let victim = world.any();
    let (how, host, store) = (block(world), world.machines[victim].host.clone(), world.below.host(victim));
    let blocked = Blocked::new(vec![(host.clone(), store.clone(), how), (store, host, how)])?;
    let url = world.machines[victim].url();
    let told = world.wait("/-/ready says that the store is away", Duration::from_secs(60), |_| {
        let ready = Client::with_timeout(&url, Duration::from_secs(5)).get("/-/ready", &[]).ok()?;
        (ready.status == 503).then(|| ready.text())
    });
    let others = told.and_then(|told| world.wait_for_acks(30).map(|()| told));
    blocked.heal()?;
    let told = others?;
    Ok(format!("{} says: {}", world.machines[victim].name, told.trim().lines().nth(1).unwrap_or_default().trim()))
}

/// Fault 38, the network's: a Garage that neither the others nor the nodes reach.
pub fn garage_parted(world: &mut World, is_full: bool) -> Result<String> {
    let Below::Garages { hosts, .. } = &world.below else { bail!("there is no Garage") };
    let hosts = hosts.clone();
    let victim = world.random.below(hosts.len() as u64) as usize;
    let how = block(world);
    let others = hosts.iter().enumerate().filter(|(number, _)| *number != victim).map(|(_, host)| host.clone());
    let others: Vec<Host> = others.chain(world.machines.iter().map(|machine| machine.host.clone())).collect();
    let there = others.iter().map(|other| (hosts[victim].clone(), other.clone(), how));
    let back = others.iter().map(|other| (other.clone(), hosts[victim].clone(), how));
    let blocked = Blocked::new(there.chain(back).collect())?;
    let span = world.span(4_000, if is_full { 15_000 } else { 6_000 });
    // Garage closes a silent connection after four pings, 15 s apart; until then the others may answer nothing at all.
    let held = world.hold(span).and_then(|()| if is_full { world.wait_for_acks(20) } else { Ok(()) });
    blocked.heal()?;
    held?;
    Ok(format!("g{victim} for {span:?} or longer ({how:?})"))
}
