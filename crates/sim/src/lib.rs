//! A whole cluster in one process, from one seed, with faults.
//!
//! Several nodes run the product's own machines (`index::Index::apply`, ingester's flush, cut, fence and adopt,
//! compactor's checkpoint, collect and recover) over models of what is around them: a replicated log, a network, an object
//! store, disks, clocks. Everything that happens follows from the seed, in virtual time, on one thread. Contents are
//! abstract: a segment is a set of sample ids and of series that it spells.
//!
//! Checked all the time: every answer of a query equals the data at the one revision that it was planned at, contains all that
//! was acked before it began and nothing whose delete was answered by then; nothing that the index names is deleted;
//! no key is PUT with two contents; every replica comes to the same state. At the end, without faults: every writer of a dead
//! process is closed, every dead object is gone, every request is acked.
//!
//! It does not cover: raft itself (the log is an oracle), the bytes of segments and blocks, time partitions, tenants,
//! membership changes, the real drivers' tasks (they are written again here, as thin as there).

mod adopting;
mod compacting;
mod keeping;
mod ledger;
mod plant;
mod process;
mod querying;
mod rates;
mod store;
mod world;
mod writing;

pub use plant::Plant;
pub use world::Report;

/// Runs the world of a seed to its end, or to the first thing that breaks.
pub fn run(seed: u64, plant: Option<Plant>) -> Report {
    world::World::new(seed, plant, false).run()
}

/// The same, printing what happens.
pub fn run_traced(seed: u64, plant: Option<Plant>) -> Report {
    world::World::new(seed, plant, true).run()
}
