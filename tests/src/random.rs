//! Random numbers from a seed that is printed, so that a failure can be replayed.

use std::io::Write;

/// The environment variable that sets the seed of a replay.
pub const SEED: &str = "BELLROCK_SEED";

/// SplitMix64: enough for tests, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Numbers that follow from `seed`.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The seed of [`SEED`], else one from the clock; prints it with the line that replays `test`.
    pub fn seed(test: &str) -> u64 {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let given = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or(since_1970.as_nanos() as u64 & 0xffff_ffff);
        // Past the runner's capture, as a hang prints nothing else; if stderr is closed there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "seed {seed}; replay: {SEED}={seed} cargo test -p tests --test it {test}");
        seed
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number from 0 to `end`, not included.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end.max(1)
    }
}

/// Scatters a number's bits; the same for the same number.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
