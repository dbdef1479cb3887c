//! Tasks that live as long as the process, and work off the async threads.
//!
//! A long-lived task has a name and the [`Stage`] in which it ends. A panic in one is logged and stops
//! the process in order: a node that goes on without its flusher or its cutter only looks alive.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::{Clock, timeout};
use crate::shutdown::{Shutdown, Stage, StopReason};

/// The long-lived tasks of a process. Clones are the same set.
#[derive(Clone)]
pub struct Tasks {
    shutdown: Shutdown,
    running: Arc<Mutex<BTreeMap<u64, Running>>>,
    // One more with each task that ends, so that `stop` can wait for the last.
    ended: watch::Sender<u64>,
}

struct Running {
    name: &'static str,
    ends_in: Stage,
    abort: tokio::task::AbortHandle,
}

impl Tasks {
    /// Creates an empty set; a panic in one of its tasks begins `shutdown`.
    pub fn new(shutdown: Shutdown) -> Tasks {
        Tasks { shutdown, running: Arc::default(), ended: watch::Sender::new(0) }
    }

    /// Returns the token that these tasks stop by.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Starts a task that ends by itself once `ends_in` is reached.
    ///
    /// The name is `crate.verb`, as in logs. The task waits for [`Shutdown::reached`] among its other
    /// inputs and then winds up; [`Tasks::stop`] waits for it.
    pub fn spawn(&self, name: &'static str, ends_in: Stage, task: impl Future<Output = ()> + Send + 'static) {
        // The lock is held while the task starts, so that a task which ends at once finds its entry.
        let mut running = self.running.lock();
        let id = running.last_key_value().map_or(0, |(id, _)| id + 1);
        let work = tokio::spawn(task);
        let abort = work.abort_handle();
        let tasks = self.clone();
        tokio::spawn(async move {
            let result = work.await;
            tasks.running.lock().remove(&id);
            if let Err(error) = result.map_err(tokio::task::JoinError::try_into_panic)
                && let Ok(panic) = error
            {
                let message = panic_message(panic.as_ref());
                tracing::error!(task = name, error = message, "task panicked");
                tasks.shutdown.begin(StopReason::Failed(format!("task {name} panicked: {message}")));
            }
            tasks.ended.send_modify(|count| *count += 1);
        });
        running.insert(id, Running { name, ends_in, abort });
    }

    /// Stops everything in order: moves the token from stage to stage and waits in each for the tasks
    /// that end there, at most `limit` a stage; what is left then is aborted and logged by name.
    pub async fn stop(&self, clock: &dyn Clock, limit: impl Fn(Stage) -> Duration) {
        for stage in Stage::STOPPING {
            self.shutdown.advance(stage);
            if timeout(clock, limit(stage), self.ended(stage)).await.is_err() {
                for task in self.running.lock().values().filter(|task| task.ends_in <= stage) {
                    tracing::warn!(task = task.name, ?stage, "task did not stop in time");
                    task.abort.abort();
                }
            }
        }
    }

    /// Waits until no task is left that ends in `stage` or before.
    async fn ended(&self, stage: Stage) {
        let mut ended = self.ended.subscribe();
        while self.running.lock().values().any(|task| task.ends_in <= stage) {
            if ended.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Starts a task that belongs to one request or job: nobody waits for it at the end of the process.
///
/// Its result, or its panic, comes out of the handle; dropping the handle lets it run on.
pub fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}

/// Runs work that computes or blocks (decoding, compression, fsync) on a thread of its own kind, so that
/// the async threads go on serving. A panic in it goes on in the caller.
///
/// The work runs to its end even if the caller is dropped.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => panic::resume_unwind(panic),
        // Not started because the runtime is going away, and the caller with it.
        Err(Err(_cancelled)) => std::future::pending().await,
    }
}

/// Returns what a panic said.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => message,
        (_, Some(message)) => message,
        _ => "no message",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock};

    fn tasks() -> Tasks {
        Tasks::new(Shutdown::new())
    }

    #[tokio::test]
    async fn tasks_stop_in_the_order_of_their_stages() {
        let tasks = tasks();
        let order = Arc::new(Mutex::new(Vec::new()));
        for (name, stage) in [("index", Stage::Closing), ("listener", Stage::Draining), ("cutter", Stage::Flushing)] {
            let (shutdown, order) = (tasks.shutdown().clone(), order.clone());
            tasks.spawn(name, stage, async move {
                shutdown.reached(stage).await;
                order.lock().push(name);
            });
        }
        tasks.stop(&SystemClock, |_| Duration::from_secs(10)).await;
        assert_eq!(*order.lock(), ["listener", "cutter", "index"]);
    }

    #[tokio::test]
    async fn a_panic_stops_the_process_with_its_message() {
        let tasks = tasks();
        tasks.spawn("test.panic", Stage::Flushing, async { panic!("planted {}", 7) });
        tasks.shutdown().reached(Stage::Draining).await;
        let reason = tasks.shutdown().reason();
        assert_eq!(reason, Some(StopReason::Failed("task test.panic panicked: planted 7".into())));
    }

    #[tokio::test]
    async fn a_task_that_hangs_is_aborted_at_the_limit() {
        let tasks = tasks();
        let clock = ManualClock::new(0);
        tasks.spawn("test.hang", Stage::Draining, std::future::pending());
        let advance = async { clock.advance(Duration::from_secs(5)) };
        tokio::join!(tasks.stop(&clock, |_| Duration::from_secs(5)), advance);
        assert_eq!(tasks.shutdown().stage(), Stage::Stopped);
    }

    #[tokio::test]
    async fn blocking_returns_the_result_and_passes_a_panic_on() {
        assert_eq!(blocking(|| 6 * 7).await, 42);
        let panicked = spawn(blocking(|| panic!("planted"))).await;
        assert!(panicked.unwrap_err().is_panic());
    }
}
