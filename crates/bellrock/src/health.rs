//! What `/-/ready` says.

use api::{Health, HealthReport};
use ingester::Ingester;
use runtime::Shutdown;

use crate::index_log::IndexGroup;

/// Looks at the parts of this process.
pub struct NodeHealth {
    /// Says what keeps writes from being stored.
    pub ingester: Ingester,
    /// Knows what is quarantined.
    pub index: IndexGroup,
    /// Knows whether the process stops.
    pub shutdown: Shutdown,
}

impl Health for NodeHealth {
    fn report(&self) -> HealthReport {
        let mut not_ready = self.ingester.troubles();
        if self.shutdown.is_stopping() {
            not_ready.push("the process is stopping (stopping)".to_string());
        }
        let notices = self.index.read(|index| {
            let quarantined = index.quarantined().map(|quarantined| {
                format!(
                    "segments {} to {} of writer {} cannot be decoded and are put aside; queries of their time fail \
                     (segment-quarantined)",
                    quarantined.from, quarantined.upto, quarantined.writer,
                )
            });
            quarantined.collect()
        });
        HealthReport { not_ready, notices }
    }
}
