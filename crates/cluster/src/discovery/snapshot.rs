//! What discovery knows now, and what it cannot find out.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::source::Source;

/// What is known of the other nodes' addresses. This node's own may be among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All addresses of all sources.
    pub addresses: BTreeSet<SocketAddr>,
    /// Every source, in the order of the settings.
    pub sources: Vec<SourceState>,
}

impl Snapshot {
    /// What is wrong, a sentence for each source that fails, for `/-/ready` and the status page.
    pub fn complaints(&self, now_ms: i64) -> Vec<String> {
        self.sources.iter().filter_map(|source| source.complaint(now_ms)).collect()
    }

    /// Says whether every source has answered or failed at least once, so that what is missing is known to be.
    pub fn is_asked(&self) -> bool {
        self.sources.iter().all(|source| source.asked > 0 || matches!(source.source, Source::Address(_)))
    }

    pub(super) fn union(&self) -> BTreeSet<SocketAddr> {
        self.sources.iter().flat_map(|source| &source.addresses).copied().collect()
    }
}

/// What is known of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// The source.
    pub source: Source,
    /// Its addresses: the last good answer, with what later answers in part have added.
    pub addresses: BTreeSet<SocketAddr>,
    /// How often it was asked and has answered or failed.
    pub asked: u64,
    /// When it last answered in full, by the wall clock; none for an address, which is not asked for.
    pub last_success_ms: Option<i64>,
    /// Why it has not answered since, if so.
    pub failure: Option<Failure>,
}

/// Why a source does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The latest reason, in words that follow the source's name.
    pub error: String,
    /// The first failure since the last good answer, by the wall clock.
    pub since_ms: i64,
    /// Questions since then, all of them in vain.
    pub asked: u64,
}

impl SourceState {
    /// Says what is wrong with this source, since when, and what is done meanwhile.
    pub fn complaint(&self, now_ms: i64) -> Option<String> {
        let failure = self.failure.as_ref()?;
        let seconds = now_ms.saturating_sub(failure.since_ms).max(0) / 1000;
        let meanwhile = match self.addresses.len() {
            0 => "no address is known".to_string(),
            1 => "the address known is used".to_string(),
            count => format!("the {count} addresses known are used"),
        };
        let (source, error, asked) = (&self.source, &failure.error, failure.asked);
        Some(format!("join {source} {error}: asked {asked} times in {seconds} s, {meanwhile} (join-unresolved)"))
    }
}
