//! `cargo run -p sim --release -- --seeds 0..1000`: any number of seeds; `--seed N --trace`: one, in words.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a tool for the command line, on all cores")]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use sim::{Plant, Report};

const USAGE: &str = "usage: sim --seeds A..B [--plant BUG] | --seed N [--trace] [--plant BUG]
  --seeds   runs the seeds A to B - 1 on all cores, up to the first that fails, and prints seeds an hour
  --seed    runs one; --trace prints everything that happens
  --plant   puts a bug in on purpose: ack-before-commit, delete-by-absence, no-fence, cut-retires-too-much,
            stale-replace, recover-checkpoint-only, collect-unstored, no-read-index, skip-missing";

struct Arguments {
    seeds: Range<u64>,
    trace: bool,
    plant: Option<Plant>,
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&arguments) {
        None => ExitCode::SUCCESS,
        Some((seed, failure)) => {
            let plant = arguments.plant.map_or(String::new(), |plant| format!(" --plant {}", plant.name()));
            println!(
                "seed {seed} failed {failure}\nreplay: cargo run -p sim --release -- --seed {seed}{plant} --trace"
            );
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments { seeds: 0..0, trace: false, plant: None };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seeds" => {
                let range = words.next()?;
                let (from, to) = range.split_once("..")?;
                arguments.seeds = from.parse().ok()?..to.parse().ok()?;
            }
            "--seed" => {
                let seed = words.next()?.parse().ok()?;
                arguments.seeds = seed..seed + 1;
            }
            "--trace" => arguments.trace = true,
            "--plant" => {
                let name = words.next()?;
                arguments.plant = Some(Plant::ALL.into_iter().find(|plant| plant.name() == name)?);
            }
            _ => return None,
        }
    }
    (!arguments.seeds.is_empty()).then_some(arguments)
}

/// Returns the lowest seed that failed, of those that ran.
fn run(arguments: &Arguments) -> Option<(u64, String)> {
    let since = Instant::now();
    if arguments.trace {
        let seed = arguments.seeds.start;
        return sim::run_traced(seed, arguments.plant).failure.map(|failure| (seed, failure));
    }
    let (next, failed) = (AtomicU64::new(arguments.seeds.start), AtomicBool::new(false));
    let work = || {
        let mut done: Vec<(u64, Report)> = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= arguments.seeds.end || failed.load(Ordering::Relaxed) {
                return done;
            }
            let report = sim::run(seed, arguments.plant);
            if report.failure.is_some() {
                failed.store(true, Ordering::Relaxed);
            }
            done.push((seed, report));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let done: Vec<(u64, Report)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        // A panic in one is a failure of its seed, and has been printed.
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect()
    });
    let seconds = since.elapsed().as_secs_f64();
    let sum = |count: fn(&Report) -> u64| done.iter().map(|(_, report)| count(report)).sum::<u64>();
    println!(
        "{} seeds in {seconds:.1} s, {:.0} an hour; {} events, {} entries, {} answers checked, {} samples acked",
        done.len(),
        done.len() as f64 / seconds * 3600.0,
        sum(|report| report.events),
        sum(|report| report.counts[0]),
        sum(|report| report.counts[1]),
        sum(|report| report.counts[2]),
    );
    let failures = done.into_iter().filter_map(|(seed, report)| report.failure.map(|failure| (seed, failure)));
    failures.min()
}
