//! Stopping in order.
//!
//! One token for the process. It only ever moves forward through [`Stage`]s; whoever works in a stage
//! waits for it and then winds up. The first reason to stop is kept and told at the end.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// How far the process has come with stopping, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Nothing stops.
    Running,
    /// No new requests are accepted; those under way are answered.
    Draining,
    /// The writer seals, flushes and cuts; background jobs end.
    Flushing,
    /// The index writes its last checkpoint and closes its log.
    Closing,
    /// Everything has ended.
    Stopped,
}

impl Stage {
    /// The stages of a stop, in order.
    pub const STOPPING: [Stage; 4] = [Stage::Draining, Stage::Flushing, Stage::Closing, Stage::Stopped];
}

/// Why the process stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// An operator asked for it (a signal); the process exits with 0.
    Requested(String),
    /// Something broke that the process cannot go on without; it exits with 1.
    Failed(String),
}

/// The token. Clones are the same token.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stage: watch::Sender<Stage>,
    reason: Arc<Mutex<Option<StopReason>>>,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}

impl Shutdown {
    /// Creates a token in [`Stage::Running`].
    pub fn new() -> Shutdown {
        Shutdown { stage: watch::Sender::new(Stage::Running), reason: Arc::default() }
    }

    /// Begins to stop; only the first reason is kept.
    pub fn begin(&self, reason: StopReason) {
        self.reason.lock().get_or_insert(reason);
        self.advance(Stage::Draining);
    }

    /// Moves on to `stage`; does nothing when it has been reached already.
    pub fn advance(&self, stage: Stage) {
        self.stage.send_if_modified(|current| {
            let is_later = stage > *current;
            *current = stage.max(*current);
            is_later
        });
    }

    /// Returns the stage that has been reached.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Says whether stopping has begun.
    pub fn is_stopping(&self) -> bool {
        self.stage() > Stage::Running
    }

    /// Returns why the process stops, once it does.
    pub fn reason(&self) -> Option<StopReason> {
        self.reason.lock().clone()
    }

    /// Waits until `stage` has been reached. Cancel-safe.
    pub async fn reached(&self, stage: Stage) {
        // An error means that every sender is gone; `self` holds one.
        let _unreachable = self.stage.subscribe().wait_for(|current| *current >= stage).await.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_only_go_forward_and_the_first_reason_stays() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.is_stopping());
        shutdown.begin(StopReason::Requested("SIGTERM".into()));
        shutdown.advance(Stage::Closing);
        shutdown.begin(StopReason::Failed("later".into()));
        assert_eq!(shutdown.stage(), Stage::Closing);
        assert_eq!(shutdown.reason(), Some(StopReason::Requested("SIGTERM".into())));
        shutdown.reached(Stage::Flushing).await;
    }

    #[tokio::test]
    async fn waiters_wake_at_their_stage_and_not_before() {
        let shutdown = Shutdown::new();
        let waiter = shutdown.clone();
        let waiter = tokio::spawn(async move { waiter.reached(Stage::Flushing).await });
        shutdown.advance(Stage::Draining);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        shutdown.advance(Stage::Flushing);
        waiter.await.unwrap();
    }
}
