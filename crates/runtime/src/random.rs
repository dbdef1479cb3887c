//! Random numbers, from the kernel's seed or from a test's.
//!
//! For identities, jitter and sampling, where two nodes must differ; never for secrets. The generator
//! is xoshiro256** (public domain, by Blackman and Vigna), seeded whole from the kernel.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// A shared generator. Clones draw from the same sequence.
#[derive(Debug, Clone)]
pub struct Random {
    state: Arc<Mutex<[u64; 4]>>,
}

/// The kernel gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("read random bytes from the kernel: {0}")]
pub struct RandomError(getrandom::Error);

impl Random {
    /// Creates a generator that is seeded with 256 bits from the kernel.
    pub fn from_system() -> Result<Random, RandomError> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(RandomError)?;
        let mut state = [0u64; 4];
        for (word, bytes) in state.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        // All zeros is the one state that the generator never leaves.
        state[0] |= u64::from(state == [0; 4]);
        Ok(Random { state: Arc::new(Mutex::new(state)) })
    }

    /// Creates a generator whose whole sequence follows from `seed`, for tests and simulation.
    pub fn from_seed(seed: u64) -> Random {
        // SplitMix64 spreads the seed over the state, as the generator's authors advise.
        let mut x = seed;
        let state = std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Random { state: Arc::new(Mutex::new(state)) }
    }

    /// Returns 64 random bits.
    pub fn u64(&self) -> u64 {
        let mut s = self.state.lock();
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Returns 128 random bits, enough for an identity that is never given twice.
    pub fn u128(&self) -> u128 {
        u128::from(self.u64()) << 64 | u128::from(self.u64())
    }

    /// Returns a number in `0..bound`; 0 when `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        // The high half of a product; its bias (bound / 2^64) does not matter for jitter and sampling.
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Returns a duration in `from..=to`, to the microsecond; `from` when `to` is not greater.
    pub fn duration_between(&self, from: Duration, to: Duration) -> Duration {
        let span_us = u64::try_from(to.saturating_sub(from).as_micros()).unwrap_or(u64::MAX - 1);
        from + Duration::from_micros(self.below(span_us.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_sequence_and_no_other() {
        let draw = |random: Random| -> Vec<u64> { (0..8).map(|_| random.u64()).collect() };
        assert_eq!(draw(Random::from_seed(1)), draw(Random::from_seed(1)));
        assert_ne!(draw(Random::from_seed(1)), draw(Random::from_seed(2)));
        assert_ne!(draw(Random::from_system().unwrap()), draw(Random::from_system().unwrap()));
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let random = Random::from_seed(3);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[random.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.below(0), 0);
        let (from, to) = (Duration::from_secs(1), Duration::from_secs(5));
        for _ in 0..200 {
            assert!((from..=to).contains(&random.duration_between(from, to)));
        }
        assert_eq!(random.duration_between(to, from), to);
    }
}
