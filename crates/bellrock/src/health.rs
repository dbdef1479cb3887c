//! What `/-/ready` says.

use api::{Health, HealthReport};
use ingester::Ingester;
use runtime::Shutdown;

use crate::late::Late;
use crate::member::Member;
use crate::mover::Mover;

/// Looks at the parts of this process. Clones are the same.
#[derive(Clone)]
pub struct NodeHealth {
    /// Says what keeps writes from being stored.
    pub ingester: Late<Ingester>,
    /// Knows what keeps this node out of its cluster, and what is quarantined.
    pub member: Late<Member>,
    /// Knows whether the bucket moves.
    pub mover: Mover,
    /// Knows whether the process stops.
    pub shutdown: Shutdown,
}

impl NodeHealth {
    /// What is wrong with this node itself.
    pub fn own(&self) -> HealthReport {
        let mut not_ready =
            self.ingester.get().map_or_else(|| vec!["the node is starting (starting)".to_string()], Ingester::troubles);
        let Some(member) = self.member.get() else { return HealthReport { not_ready, notices: Vec::new() } };
        not_ready.extend(member.troubles());
        if self.shutdown.is_stopping() {
            not_ready.push("the process is stopping (stopping)".to_string());
        }
        let mut notices = member.notices();
        notices.extend(self.mover.notice());
        notices.extend(member.group().read(|index| {
            let quarantined = index.quarantined().map(|quarantined| {
                format!(
                    "segments {} to {} of writer {} cannot be decoded and are put aside; queries of their time fail \
                     (segment-quarantined)",
                    quarantined.from, quarantined.upto, quarantined.writer,
                )
            });
            quarantined.collect::<Vec<_>>()
        }));
        HealthReport { not_ready, notices }
    }
}

impl Health for NodeHealth {
    fn report(&self) -> HealthReport {
        let mut report = self.own();
        // Until there is a member, `own` says that the node is starting.
        report.notices.extend(self.member.get().map(Member::complaints_of_members).unwrap_or_default());
        report
    }
}
