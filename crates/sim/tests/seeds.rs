//! What CI runs: the true system holds, each planted bug is found, and a seed is a seed.

use sim::Plant;

/// Runs seeds on all cores; returns the first that failed.
fn first_failure(seeds: std::ops::Range<u64>, plant: Option<Plant>) -> Option<(u64, String)> {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let found = std::sync::Mutex::new(None);
    let work = || {
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= seeds.end || found.lock().expect("nobody panics with it").is_some() {
                return;
            }
            if let Some(failure) = sim::run(seed, plant).failure {
                found.lock().expect("nobody panics with it").get_or_insert((seed, failure));
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    #[allow(clippy::disallowed_methods, reason = "seeds are independent, and a test has no runtime")]
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    found.into_inner().expect("nobody panics with it")
}

#[test]
fn three_hundred_seeds_hold() {
    if let Some((seed, failure)) = first_failure(0..300, None) {
        panic!("seed {seed} failed {failure}\nreplay: cargo run -p sim --release -- --seed {seed} --trace");
    }
}

#[test]
fn every_planted_bug_is_found() {
    for plant in Plant::ALL {
        assert!(first_failure(0..1000, Some(plant)).is_some(), "{} is not found within 1,000 seeds", plant.name());
    }
}

#[test]
fn a_seed_gives_its_trace_and_no_other() {
    let hash = |seed| sim::run(seed, None).trace_hash;
    for seed in [3, 4] {
        assert_eq!(hash(seed), hash(seed));
    }
    assert_ne!(hash(3), hash(4));
}
