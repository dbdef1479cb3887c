//! Plans: what a query reads, at one revision of the index.
//!
//! A plan is kept in a register while its query runs. The collector deletes nothing that a plan of an older
//! revision may still name, so it asks for the oldest one.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Revision, TimeRange};
use parking_lot::Mutex;

use crate::IndexGroup;
use crate::error::QueryError;

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
    _pin: Pin,
}

impl Plan {
    /// Plans at the newest revision: everything acked before the call is in it.
    pub(crate) async fn new(group: &IndexGroup, plans: &OldestPlan, range: TimeRange) -> Result<Plan, QueryError> {
        let failed = |e: consensus::ProposeError| QueryError::Index(e.to_string());
        let newest = group.read_index().await.map_err(failed)?;
        group.wait_applied(newest).await.map_err(failed)?;
        let mut planned = None;
        let pin = plans.pin(|| {
            let plan = group.read(|index| index.plan(range));
            let revision = plan.revision;
            planned = Some(plan);
            revision
        });
        let index = planned.expect("pin has called the closure");
        Ok(Plan { index, _pin: pin })
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
