//! What an operator may set of queries.

use std::time::Duration;

/// Settings of the querier; see each field for its default.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Limits that a reload may change.
    pub limits: Limits,
    /// Queries that are evaluated at once; others wait their turn. Default 20, as Prometheus.
    pub max_concurrent: usize,
    /// Memory for opened blocks (footers and terms). Default 64 MiB.
    pub block_cache_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { limits: Limits::default(), max_concurrent: 20, block_cache_bytes: 64 << 20 }
    }
}

/// Limits of one query; a reload changes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// A query that takes longer is stopped. Default 2 min.
    pub timeout: Duration,
    /// Samples that a query may hold at once. Default 50 million.
    pub max_samples: u64,
    /// Memory that a query's series and results may take. Default 2 GiB.
    pub max_bytes: u64,
    /// How far back an instant selector looks for a sample. Default 5 min.
    pub lookback: Duration,
    /// An aggregation whose selectors read so many samples of blocks is spread over the nodes. Default 5 million.
    pub shard_samples_min: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            timeout: Duration::from_secs(120),
            max_samples: 50_000_000,
            max_bytes: 2 << 30,
            lookback: Duration::from_secs(300),
            shard_samples_min: 5_000_000,
        }
    }
}
