//! The swarm: which faults a seed has, and how often. Half of the seeds have any given one, so that each is also met alone.

use runtime::Random;

/// A millisecond and a second of virtual time, which counts microseconds.
pub(crate) const MS: u64 = 1000;
pub(crate) const SECOND: u64 = 1000 * MS;

/// What one seed's world is like. Chances are per mille; `every` is the mean time between two, 0 for never.
#[derive(Debug, Clone)]
pub(crate) struct Rates {
    pub nodes: usize,
    /// When faults stop.
    pub faults_end: u64,
    pub write_every: u64,
    pub query_every: u64,
    /// Queries that take seconds from their plan to their reads.
    pub query_slow: u64,
    pub delete_every: u64,
    pub compact_every: u64,
    pub cut_age: u64,
    pub head_samples_max: usize,
    pub segment_slots: usize,
    /// Whether PUTs of segments are timed out and hedged, as over a network.
    pub hedges: bool,
    pub groups: u16,

    pub net_loss: u64,
    pub net_duplicate: u64,
    pub net_delay: u64,
    pub proposal_loss: u64,
    pub proposal_duplicate: u64,
    pub proposal_late: u64,
    pub apply_lag: u64,

    pub put_fails: u64,
    pub put_answer_lost: u64,
    pub put_late: u64,
    pub put_twice: u64,
    pub put_slow: u64,
    pub get_fails: u64,
    pub list_stale: u64,
    pub delete_late: u64,
    pub poison: u64,

    pub kill_every: u64,
    pub wipe: u64,
    pub pause_every: u64,
    pub partition_every: u64,
    pub one_way: u64,
    pub store_cut_every: u64,
    pub store_outage_every: u64,
    pub leader_change_every: u64,
    pub leaderless_every: u64,
    /// When every node and its disk is lost and the bucket alone is left; 0 for never.
    pub disaster_at: u64,
    pub drift_ppm: u64,
    pub guard: bool,
}

impl Rates {
    /// Draws a world.
    pub(crate) fn draw(random: &Random) -> Rates {
        let half = || random.below(2) == 0;
        let per_mille = |max: u64| if half() { 1 + random.below(max) } else { 0 };
        let every = |from: u64, to: u64| if half() { from + random.below(to - from) } else { 0 };
        let faults_end = 15 * SECOND + random.below(25 * SECOND);
        Rates {
            nodes: 2 + random.below(4) as usize,
            faults_end,
            write_every: 30 * MS + random.below(200 * MS),
            query_every: 200 * MS + random.below(600 * MS),
            query_slow: per_mille(400),
            delete_every: every(4 * SECOND, 15 * SECOND),
            compact_every: every(500 * MS, 4 * SECOND),
            cut_age: SECOND + random.below(8 * SECOND),
            head_samples_max: 10 + random.below(200) as usize,
            segment_slots: 1 + random.below(3) as usize,
            hedges: half(),
            groups: 2 + random.below(4) as u16,
            net_loss: per_mille(150),
            net_duplicate: per_mille(100),
            net_delay: MS + random.below(if half() { 300 * MS } else { 5 * MS }),
            proposal_loss: per_mille(150),
            proposal_duplicate: per_mille(200),
            proposal_late: per_mille(60),
            apply_lag: MS + random.below(if half() { 500 * MS } else { 10 * MS }),
            put_fails: per_mille(150),
            put_answer_lost: per_mille(150),
            put_late: per_mille(100),
            put_twice: per_mille(60),
            put_slow: per_mille(150),
            get_fails: per_mille(100),
            list_stale: per_mille(500),
            delete_late: per_mille(200),
            poison: if random.below(8) == 0 { 1 + random.below(20) } else { 0 },
            kill_every: every(2 * SECOND, 15 * SECOND),
            wipe: per_mille(400),
            pause_every: every(2 * SECOND, 12 * SECOND),
            partition_every: every(2 * SECOND, 12 * SECOND),
            one_way: per_mille(700),
            store_cut_every: every(4 * SECOND, 15 * SECOND),
            store_outage_every: every(8 * SECOND, 25 * SECOND),
            leader_change_every: every(2 * SECOND, 12 * SECOND),
            leaderless_every: every(5 * SECOND, 20 * SECOND),
            disaster_at: if random.below(4) == 0 { 5 * SECOND + random.below(faults_end - 5 * SECOND) } else { 0 },
            drift_ppm: if half() { random.below(50_000) } else { 0 },
            guard: half(),
        }
    }

    /// The faults stop.
    pub(crate) fn heal(&mut self) {
        *self = Rates {
            net_loss: 0,
            net_duplicate: 0,
            net_delay: self.net_delay.min(20 * MS),
            proposal_loss: 0,
            proposal_duplicate: 0,
            proposal_late: 0,
            apply_lag: self.apply_lag.min(20 * MS),
            put_fails: 0,
            put_answer_lost: 0,
            put_late: 0,
            put_twice: 0,
            put_slow: 0,
            get_fails: 0,
            query_slow: 0,
            list_stale: 0,
            delete_late: 0,
            poison: 0,
            ..self.clone()
        };
    }
}
