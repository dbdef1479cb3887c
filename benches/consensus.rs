//! Claims: a group of one takes 9 µs from a proposal to its answer where an fsync is free, and 300,000 proposals a second
//! from 64 proposers, so the fsync is what an ack waits for; a start reads 100,000 entries in 0.12 s.
//!
//! `cargo bench -p benches --bench consensus -- /dev/shm` (or a folder on the disk to be measured).
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a bench prints, and is told a folder")]

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use consensus::{Group, Machine, Parts, Settings, Start};
use runtime::{Clock, Random, Registry, SystemClock};

/// A state that takes no time of its own.
const MACHINE: Machine<u64, Vec<u8>, u64> = Machine {
    apply: |state, position, _| {
        *state += 1;
        position
    },
    advance: |_, _| {},
    encode: Vec::clone,
    decode: |bytes| Ok(bytes.to_vec()),
    snapshot: |state| state.to_le_bytes().to_vec(),
    restore: |bytes| Ok(u64::from_le_bytes(bytes.try_into()?)),
    hash: |state| *state,
};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let dir = tempfile::tempdir_in(folder.as_deref().unwrap_or("."))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&dir.path().join("index")))
}

async fn measure(folder: &Path) -> Result<(), Box<dyn Error>> {
    let settings = Settings { snapshot_after_bytes: 1 << 30, ..Settings::default() };
    let random = Random::from_system()?;
    let parts = || Parts::system(SystemClock::shared(), random.clone(), Registry::new());
    let group = Group::open(folder, MACHINE, Start::Bootstrap(0), settings, parts())?;
    for at_once in [1_u64, 64] {
        let began = SystemClock.boottime();
        let proposers: Vec<_> =
            (0..at_once).map(|_| runtime::spawn(propose(group.clone(), 6000 / at_once.min(4)))).collect();
        let mut times = Vec::new();
        for proposer in proposers {
            times.extend(proposer.await?);
        }
        let per_second = times.len() as f64 / (SystemClock.boottime() - began).as_secs_f64();
        times.sort_unstable();
        let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("{at_once} at once: p50 {p50:?}, p99 {p99:?}, {per_second:.0} a second");
    }
    let entries = group.read(|state| *state);
    // Not closed: a close would leave a snapshot and nothing to read.
    drop(group);
    SystemClock.sleep(Duration::from_millis(500)).await;
    let began = SystemClock.boottime();
    let group = Group::open(folder, MACHINE, Start::Existing, settings, parts())?;
    println!("start with {entries} entries: {:?}", SystemClock.boottime() - began);
    group.close().await;
    Ok(())
}

async fn propose(group: Group<u64, Vec<u8>, u64>, count: u64) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        let began = SystemClock.boottime();
        if let Err(error) = group.propose(vec![0; 100]).await {
            eprintln!("{error}");
        }
        times.push(SystemClock.boottime() - began);
    }
    times
}
