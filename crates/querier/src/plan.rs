//! Plans: what a query reads, at one revision of the index.
//!
//! A plan is kept in a register while its query runs. The collector deletes nothing that a plan of an older
//! revision may still name, so it asks for the oldest one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use consensus::ProposeError;
use model::{Revision, TimeRange};
use parking_lot::Mutex;
use runtime::Clock;

use crate::IndexGroup;
use crate::error::QueryError;
use crate::heads::HeadPlan;

/// Tells the oldest revision that a running query uses; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct OldestPlan {
    /// How many running queries use each revision.
    running: Arc<Mutex<BTreeMap<Revision, usize>>>,
}

impl OldestPlan {
    /// The oldest revision in use; `None` if no query runs.
    pub fn revision(&self) -> Option<Revision> {
        self.running.lock().keys().next().copied()
    }

    fn pin(&self, read: impl FnOnce() -> Revision) -> Pin {
        // Read under the lock: whoever asks for the oldest sees this plan or runs before it was made.
        let mut running = self.running.lock();
        let revision = read();
        *running.entry(revision).or_default() += 1;
        Pin { plans: self.clone(), revision }
    }
}

/// Keeps a revision in the register until it is dropped.
#[derive(Debug)]
struct Pin {
    plans: OldestPlan,
    revision: Revision,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut running = self.plans.running.lock();
        if let Some(count) = running.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.revision);
            }
        }
    }
}

/// The data at one revision, kept from being collected.
#[derive(Debug)]
pub(crate) struct Plan {
    index: index::Plan,
    /// Why it may not be the newest.
    pub(crate) warning: Option<String>,
    _pin: Pin,
}

impl Plan {
    /// Plans at the newest revision: everything acked before the call is in it.
    ///
    /// Without a leader of the index nobody knows the newest: then the last one applied here has to do, and the plan has
    /// a warning that says how old that may be.
    pub(crate) async fn new(
        group: &IndexGroup,
        plans: &OldestPlan,
        newest: &Newest,
        range: TimeRange,
    ) -> Result<Plan, QueryError> {
        let began = newest.clock.boottime();
        let warning = match newest.wait(group).await {
            Ok(()) => {
                *newest.known_at.lock() = Some(began);
                None
            }
            Err(ProposeError::NoLeader { .. }) => Some(newest.warning(group)),
            Err(error) => return Err(QueryError::Index(error.to_string())),
        };
        let mut planned = None;
        let pin = plans.pin(|| {
            let plan = group.read(|index| index.plan(range));
            let revision = plan.revision;
            planned = Some(plan);
            revision
        });
        let index = planned.expect("pin has called the closure");
        Ok(Plan { index, warning, _pin: pin })
    }
}

impl Plan {
    /// The writers with segments that no block holds.
    pub(crate) fn heads(&self) -> Vec<HeadPlan> {
        let plan =
            |writer: &index::PlannedWriter| HeadPlan { writer: writer.id, cut: writer.cut, added: writer.readable };
        self.writers.iter().map(plan).collect()
    }
}

/// Knows when this node last had the newest revision.
pub(crate) struct Newest {
    clock: Arc<dyn Clock>,
    known_at: Mutex<Option<Duration>>,
}

impl Newest {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Newest {
        Newest { clock, known_at: Mutex::new(None) }
    }

    /// Waits until what is the newest revision now is applied here.
    pub(crate) async fn wait(&self, group: &IndexGroup) -> Result<(), ProposeError> {
        let newest = group.read_index().await?;
        group.wait_applied(newest).await
    }

    fn warning(&self, group: &IndexGroup) -> String {
        let revision = group.read(|index| index.revision());
        let age = match *self.known_at.lock() {
            Some(at) => {
                format!("which a query {} s ago still found to be the newest", (self.clock.boottime() - at).as_secs())
            }
            None => "and since this node started nobody could say whether it is the newest".to_owned(),
        };
        format!(
            "the index has no leader: this is the data of revision {revision}, {age}; later writes are missing (no-leader)"
        )
    }
}

impl std::ops::Deref for Plan {
    type Target = index::Plan;

    fn deref(&self) -> &index::Plan {
        &self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_running_plans_counts() {
        let at = |position| Revision { incarnation: 1, position };
        let plans = OldestPlan::default();
        assert_eq!(plans.revision(), None);
        let (old, new) = (plans.pin(|| at(3)), plans.pin(|| at(7)));
        let again = plans.pin(|| at(3));
        drop(old);
        assert_eq!(plans.revision(), Some(at(3)));
        drop(again);
        assert_eq!(plans.revision(), Some(at(7)));
        drop(new);
        assert_eq!(plans.revision(), None);
    }
}
