//! Which fault comes when, by chance from the seed, and what must hold after each.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::torture::table::{Row, Table};
use crate::torture::world::World;
use crate::torture::{disks, lives, networks, processes, stores};

/// The faults of RELIABILITY.md's table that come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their texts say what they are")]
pub enum Fault {
    NodeKilled,
    LeaderKilled,
    TwoOfThreeDown,
    AllKilled,
    PowerLoss,
    Parted,
    PartedOneWay,
    CutFromStore,
    Stopped,
    DiskWiped,
    OldDisk,
    StoreFails,
    StoreSilent,
    AnswersLost,
    StoreSlow,
    EveryDiskLost,
    Resolving,
    Growing,
    GarageKilled,
    GarageParted,
}

use Fault::*;

/// Acked requests before each fault, while all is well: two seconds of them.
const CALM_ACKS: u64 = 80;

/// Those of nodes, their network and a store that is one server.
pub const FAULTS: [Fault; 16] = [
    NodeKilled,
    LeaderKilled,
    TwoOfThreeDown,
    AllKilled,
    PowerLoss,
    Parted,
    PartedOneWay,
    CutFromStore,
    Stopped,
    DiskWiped,
    OldDisk,
    StoreFails,
    StoreSilent,
    AnswersLost,
    StoreSlow,
    EveryDiskLost,
];

/// Those of a store that is three servers.
pub const GARAGE_FAULTS: [Fault; 2] = [GarageKilled, GarageParted];

impl Fault {
    /// Its number in RELIABILITY.md's table.
    pub fn number(self) -> u32 {
        match self {
            NodeKilled => 1,
            LeaderKilled => 2,
            TwoOfThreeDown => 3,
            AllKilled => 4,
            PowerLoss => 5,
            Parted => 7,
            PartedOneWay => 8,
            CutFromStore => 9,
            Stopped => 10,
            DiskWiped => 15,
            OldDisk => 16,
            StoreFails => 17,
            StoreSilent => 18,
            AnswersLost => 19,
            StoreSlow => 20,
            EveryDiskLost => 24,
            Resolving => 26,
            Growing => 35,
            GarageKilled | GarageParted => 38,
        }
    }

    /// What it is, in words.
    pub fn text(self) -> &'static str {
        match self {
            NodeKilled => "SIGKILL of any node",
            LeaderKilled => "SIGKILL of the leader",
            TwoOfThreeDown => "two of three down",
            AllKilled => "all nodes SIGKILL",
            PowerLoss => "power loss of all nodes",
            Parted => "two-way partition",
            PartedOneWay => "one-way partition",
            CutFromStore => "one node cut from the store",
            Stopped => "SIGSTOP, then on",
            DiskWiped => "wiped node of the same name",
            OldDisk => "an old disk image comes back",
            StoreFails => "store: 503",
            StoreSilent => "store: black hole",
            AnswersLost => "store: PUT done, reply lost",
            StoreSlow => "store: 1 % at 5 s",
            EveryDiskLost => "every disk lost, recovered from the bucket",
            Resolving => "names empty or stale, at start and later",
            Growing => "1 -> 3 -> 5 -> 3 nodes",
            GarageKilled => "SIGKILL of one of three Garages",
            GarageParted => "partition of one of three Garages",
        }
    }

    /// The longest that no write may be acked, where the issue sets a bound.
    fn write_gap_max(self) -> Option<Duration> {
        match self {
            NodeKilled => Some(Duration::from_secs(5)),
            LeaderKilled => Some(Duration::from_secs(3)),
            _ => None,
        }
    }

    /// Does it, and takes it away again; gives what else there is to say.
    fn strike(self, world: &mut World, is_full: bool) -> Result<String> {
        match self {
            NodeKilled => processes::node_killed(world),
            LeaderKilled => processes::leader_killed(world),
            TwoOfThreeDown => processes::two_of_three_down(world),
            AllKilled => processes::all_killed(world),
            PowerLoss => disks::power_loss(world),
            Parted => networks::parted(world),
            PartedOneWay => networks::parted_one_way(world),
            CutFromStore => networks::cut_from_store(world),
            Stopped => processes::stopped(world, is_full),
            DiskWiped => disks::wiped(world),
            OldDisk => disks::old_disk(world),
            StoreFails => stores::fails(world, is_full),
            StoreSilent => stores::silent(world),
            AnswersLost => stores::answers_lost(world),
            StoreSlow => stores::slow(world),
            EveryDiskLost => disks::every_disk_lost(world, is_full),
            Resolving => lives::resolving(world),
            Growing => lives::growing(world),
            GarageKilled => processes::garage_killed(world),
            GarageParted => networks::garage_parted(world),
        }
    }
}

/// Each of these faults so many times, in an order by chance; the table has what was measured until the first that did not end well.
pub fn torture(world: &mut World, faults: &[Fault], rounds: usize, is_full: bool, table: &mut Table) -> Result<()> {
    let mut plan = faults.repeat(rounds);
    for i in (1..plan.len()).rev() {
        plan.swap(i, world.random.below(i as u64 + 1) as usize);
    }
    let began = Instant::now();
    for (i, fault) in plan.iter().enumerate() {
        let at = format!("fault {} of {}, {} ({})", i + 1, plan.len(), fault.number(), fault.text());
        world.findings.during(&at);
        tell(&format!("{:4} s: {at}", began.elapsed().as_secs()));
        let row = strike_once(world, *fault, is_full).with_context(|| at.clone())?;
        tell(&format!("        {row:?}"));
        let (gap, limit) = (row.write_gap, fault.write_gap_max());
        table.add(*fault, row);
        if limit.is_some_and(|limit| gap > limit) {
            bail!("{at}: no write was acked for {gap:?}, at most {limit:?} is allowed");
        }
    }
    world.findings.during("the end");
    world.dismiss_crowd();
    world.wait_until_well()?;
    world.check_everything()?;
    world.findings.none()
}

/// One fault over a world of its own, in which nothing has begun.
pub fn live_through(world: &mut World, fault: Fault, is_full: bool) -> Result<Row> {
    world.findings.during(fault.text());
    let began = Instant::now();
    let note = fault.strike(world, is_full)?;
    let row = measured(world, began.elapsed(), note);
    tell(&format!("        {row:?}"));
    world.dismiss_crowd();
    world.findings.none()?;
    Ok(row)
}

fn measured(world: &World, whole: Duration, note: String) -> Row {
    Row {
        times: 1,
        write_gap: world.writing.gap.longest(),
        query_gap: world.reading.gap.longest(),
        fresh_gap: world.reading.fresh_gap.longest(),
        whole,
        note,
    }
}

fn strike_once(world: &mut World, fault: Fault, is_full: bool) -> Result<Row> {
    world.reading.forget_errors();
    world.wait_for_acks(CALM_ACKS)?;
    world.reading.no_errors("while all was well")?;
    let began = Instant::now();
    world.begin_gaps();
    let note = fault.strike(world, is_full)?;
    world.wait_until_well()?;
    let whole = began.elapsed();
    world.wait_for_acks(20)?;
    let row = measured(world, whole, note);
    world.check_recent()?;
    world.findings.none()?;
    Ok(row)
}

/// Says it past the test runner's capture, as a run takes minutes.
pub fn tell(line: &str) {
    // If stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}
