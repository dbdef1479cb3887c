//! The driver: does what the two state machines say, and tells them what came of it.
//!
//! Two loops in one task: one keeps the index in the bucket, the other collects. What the first stores it reads
//! back from the bucket before it counts as stored, and only that is what the second goes by.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bucket::{Bucket, BucketError, Cluster};
use consensus::Group;
use futures::StreamExt;
use index::{Applied, Changes, Entry, Index, Refused};
use model::{ObjectKey, Revision};
use parking_lot::Mutex;
use runtime::{Clock, Registry, Shutdown, Stage, StopReason};
use tokio::sync::watch;

use crate::checkpoint::{self, Checkpointer};
use crate::collect::{self, Collector};
use crate::error::CompactorError;
use crate::metrics::{Metrics, now_seconds};
use crate::settings::Settings;

/// The index, replicated.
pub type IndexGroup = Group<Index, Entry, Result<Applied, Refused>>;

/// What the collector has not looked at yet; beyond this it lists everything anew.
const INPUTS_MAX: usize = 1000;

/// Deletes under way at once: a store that answers in 20 ms loses hundreds of objects a second, as many as a writer makes.
const DELETES_AT_ONCE: usize = 16;

/// For how long a look at `cluster.json` allows deletes: the interval at which the process looks at it anyway.
const CLUSTER_SEEN_MAX: Duration = Duration::from_secs(10);

/// What the compactor is handed.
#[derive(Clone)]
pub struct Parts {
    /// The index.
    pub group: IndexGroup,
    /// The bucket.
    pub bucket: Bucket,
    /// Whose bucket it must be.
    pub cluster: Cluster,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where metrics go.
    pub registry: Registry,
    /// Says the lowest revision that a running plan, or the node itself, uses.
    pub lowest_in_use: Arc<dyn Fn() -> Revision + Send + Sync>,
}

/// Keeps the index in the bucket, and collects.
pub struct Compactor {
    settings: Settings,
    parts: Parts,
    metrics: Metrics,
    /// The index as it was read back from the bucket; `None` until that was done once.
    stored: Mutex<Option<Index>>,
    stored_revision: watch::Sender<Revision>,
    /// For the collector, oldest first.
    inputs: Mutex<VecDeque<collect::Input>>,
}

impl Compactor {
    /// Does nothing before [`Compactor::run`].
    pub fn new(settings: Settings, parts: Parts) -> Compactor {
        Compactor {
            settings,
            metrics: Metrics::new(&parts.registry),
            parts,
            stored: Mutex::new(None),
            stored_revision: watch::Sender::new(Revision::default()),
            inputs: Mutex::new(VecDeque::new()),
        }
    }

    /// The same with everything to find out anew: for another term of leading the index, in which others may have stored
    /// and deleted.
    pub fn anew(&self) -> Compactor {
        Compactor {
            settings: self.settings,
            parts: self.parts.clone(),
            metrics: self.metrics.clone(),
            stored: Mutex::new(None),
            stored_revision: self.stored_revision.clone(),
            inputs: Mutex::new(VecDeque::new()),
        }
    }

    /// The revision up to which the bucket holds the index. An answered delete has waited for this.
    pub fn stored_revision(&self) -> watch::Receiver<Revision> {
        self.stored_revision.subscribe()
    }

    /// Runs until [`Stage::Closing`]; then stores the index once more, and returns. Close the group after that.
    pub async fn run(&self, shutdown: Shutdown) {
        tokio::join!(self.keep(&shutdown), self.collect(&shutdown));
    }

    async fn keep(&self, shutdown: &Shutdown) {
        let mut machine = Checkpointer::new(self.settings);
        loop {
            let is_last = shutdown.stage() >= Stage::Closing;
            let tick = checkpoint::Input::Tick { applied: self.parts.group.applied() };
            let mut output = machine.step(self.parts.clock.boottime(), tick);
            if is_last && output.is_none() {
                output = machine.step(self.parts.clock.boottime(), checkpoint::Input::Stop);
            }
            while let Some(wanted) = output {
                if wanted == checkpoint::Output::Done {
                    return;
                }
                let input = self.write(wanted).await;
                output = machine.step(self.parts.clock.boottime(), input);
            }
            if !is_last {
                self.metrics.set_counts(&self.parts.group.read(Index::counts));
                self.wait_for_tick(shutdown).await;
            }
        }
    }

    /// Until the next tick, or the end.
    async fn wait_for_tick(&self, shutdown: &Shutdown) {
        tokio::select! {
            () = self.parts.clock.sleep(self.settings.tick) => (),
            () = shutdown.reached(Stage::Closing) => (),
        }
    }

    async fn write(&self, output: checkpoint::Output) -> checkpoint::Input {
        let (object, written) = match output {
            checkpoint::Output::PutWhole => ("whole", self.write_whole().await),
            checkpoint::Output::PutChanges { after } => ("changes", self.write_changes(after).await),
            checkpoint::Output::PutCheckpoint => ("checkpoint", self.write_checkpoint().await),
            checkpoint::Output::Done => return checkpoint::Input::Stop,
        };
        self.metrics.writes.with([object]).inc();
        let stored = self.stored.lock().as_ref().map(Index::revision);
        match written {
            Ok(input) => {
                if let Some(revision) = stored {
                    self.metrics.stored_position.set(revision.position as i64);
                    self.metrics.last_success.set(now_seconds(&*self.parts.clock));
                    self.stored_revision.send_replace(revision);
                }
                input
            }
            Err(error) => {
                self.metrics.writes_failed.with([object]).inc();
                tracing::warn!(object, revision = ?stored, %error, "index not written to the bucket");
                checkpoint::Input::Failed
            }
        }
    }

    async fn write_whole(&self) -> Result<checkpoint::Input, CompactorError> {
        let (revision, bytes) = self.parts.group.read(|index| (index.revision(), index.encode_checkpoint()));
        let index = self.put_checkpoint(revision, bytes).await?;
        *self.stored.lock() = Some(index);
        self.tell_collector(collect::Input::WholeStored);
        self.tell_collector(collect::Input::CheckpointStored { at: revision });
        Ok(checkpoint::Input::WholeStored { at: revision.position })
    }

    async fn write_checkpoint(&self) -> Result<checkpoint::Input, CompactorError> {
        let stored = self.stored.lock().as_ref().map(|index| (index.revision(), index.encode_checkpoint()));
        let Some((revision, bytes)) = stored else { return Ok(checkpoint::Input::ChangesGone) };
        self.put_checkpoint(revision, bytes).await?;
        self.tell_collector(collect::Input::CheckpointStored { at: revision });
        Ok(checkpoint::Input::CheckpointStored)
    }

    async fn write_changes(&self, after: u64) -> Result<checkpoint::Input, CompactorError> {
        let Some((entries, last)) = self.parts.group.entries_after(after) else {
            return Ok(checkpoint::Input::ChangesGone);
        };
        if last <= after {
            return Ok(checkpoint::Input::ChangesStored { last: after });
        }
        let Cluster { id, incarnation } = self.parts.cluster;
        let first = Revision { incarnation, position: after + 1 };
        let changes = Changes { cluster: id, incarnation, first: after + 1, last, entries };
        let key = ObjectKey::Changes { first, last };
        let failed = |source| CompactorError::Changes { key, source };
        let bytes = self.put_and_read_back(key, changes.encode()).await?;
        let changes = Changes::decode(&bytes).map_err(failed)?;
        let outcomes = match &mut *self.stored.lock() {
            Some(index) => index.replay(&changes).map_err(failed)?,
            None => return Ok(checkpoint::Input::ChangesGone),
        };
        let applied = outcomes.into_iter().flatten().collect();
        self.tell_collector(collect::Input::ChangesStored { first, last, applied });
        Ok(checkpoint::Input::ChangesStored { last })
    }

    async fn put_checkpoint(&self, revision: Revision, bytes: Vec<u8>) -> Result<Index, CompactorError> {
        let key = ObjectKey::Checkpoint(revision);
        let bytes = self.put_and_read_back(key, bytes).await?;
        Index::decode_checkpoint(&bytes).map_err(|source| CompactorError::Checkpoint { key, source })
    }

    /// Stores an object, and takes only what comes back from the bucket for stored.
    async fn put_and_read_back(&self, key: ObjectKey, bytes: Vec<u8>) -> Result<Vec<u8>, CompactorError> {
        let stored = self.try_put_and_read_back(key, bytes).await;
        if stored.is_err() {
            self.tell_collector(collect::Input::PerhapsStored { key });
        }
        stored
    }

    async fn try_put_and_read_back(&self, key: ObjectKey, bytes: Vec<u8>) -> Result<Vec<u8>, CompactorError> {
        self.in_time(self.parts.bucket.put(&key, bytes.clone().into())).await?;
        let stored = self.in_time(self.parts.bucket.get(&key)).await?;
        if stored != bytes {
            return Err(CompactorError::Differs { key });
        }
        Ok(stored.into())
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, BucketError>>) -> Result<T, CompactorError> {
        let limit = self.settings.bucket_timeout;
        let seconds = limit.as_secs();
        let done = runtime::timeout(&*self.parts.clock, limit, work).await;
        Ok(done.map_err(|_| CompactorError::TimedOut { seconds })??)
    }

    fn tell_collector(&self, input: collect::Input) {
        let mut inputs = self.inputs.lock();
        inputs.push_back(input);
        if inputs.len() > INPUTS_MAX {
            inputs.clear();
            inputs.push_back(collect::Input::WholeStored);
        }
    }

    async fn collect(&self, shutdown: &Shutdown) {
        let mut machine = Collector::new(self.settings);
        while shutdown.stage() < Stage::Closing {
            let lowest_in_use = (self.parts.lowest_in_use)();
            let mut inputs = std::mem::take(&mut *self.inputs.lock());
            inputs.push_back(collect::Input::Tick { lowest_in_use });
            while let Some(input) = inputs.pop_front() {
                let output = match &*self.stored.lock() {
                    Some(stored) => machine.step(self.parts.clock.boottime(), input, stored),
                    None => None,
                };
                if let Some(output) = output {
                    match self.carry_out(output).await {
                        Ok(answer) => inputs.push_front(answer),
                        Err(error) => {
                            tracing::error!(%error, "collector stopped: this bucket is not ours (other-cluster)");
                            shutdown.begin(StopReason::Failed(error.to_string()));
                            return;
                        }
                    }
                }
                if shutdown.stage() >= Stage::Closing {
                    return;
                }
            }
            self.metrics.pending.set(machine.pending() as i64);
            if machine.is_idle() {
                self.metrics.collect_last_success.set(now_seconds(&*self.parts.clock));
            }
            self.wait_for_tick(shutdown).await;
        }
    }

    /// Errors: the bucket is another cluster's. Everything else is an answer.
    async fn carry_out(&self, output: collect::Output) -> Result<collect::Input, CompactorError> {
        match output {
            collect::Output::List(folder) => match self.in_time(self.parts.bucket.list(folder)).await {
                Ok(listed) => {
                    let keys = listed.into_iter().map(|listed| listed.key).collect();
                    Ok(collect::Input::Listed { folder, keys })
                }
                Err(error) => {
                    tracing::warn!(%folder, %error, "folder not listed");
                    Ok(collect::Input::ListFailed { folder })
                }
            },
            collect::Output::Delete(keys) => self.delete(keys).await,
        }
    }

    async fn delete(&self, keys: Vec<ObjectKey>) -> Result<collect::Input, CompactorError> {
        let started = self.parts.clock.boottime();
        match self.in_time(self.parts.bucket.check_cluster(&self.parts.cluster)).await {
            Err(error) if error.kind() == crate::ErrorKind::OtherCluster => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "cluster.json not read: nothing is deleted");
                return Ok(collect::Input::Deleted { failed: keys });
            }
            Ok(()) => (),
        }
        let count = keys.len();
        let mut failed = Vec::new();
        // After a failure the rest would mostly wait for the same time-out. And what was seen in cluster.json does not
        // hold for ever: a recovery waits for as long as a process may rely on it.
        let has_failed = &AtomicBool::new(false);
        let is_sure = &|| {
            let elapsed = self.parts.clock.boottime().saturating_sub(started);
            elapsed < CLUSTER_SEEN_MAX && !has_failed.load(Ordering::Relaxed)
        };
        let deletes = futures::stream::iter(keys.into_iter().map(|key| async move {
            if !is_sure() {
                return (key, None);
            }
            self.metrics.deletes.inc();
            let deleted = self.in_time(self.parts.bucket.delete(&key)).await;
            has_failed.fetch_or(deleted.is_err(), Ordering::Relaxed);
            (key, Some(deleted))
        }));
        let mut deletes = deletes.buffer_unordered(DELETES_AT_ONCE);
        while let Some((key, deleted)) = deletes.next().await {
            match deleted {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(object = %key, %error, "dead object not deleted");
                    self.metrics.deletes_failed.inc();
                    failed.push(key);
                }
                None => failed.push(key),
            }
        }
        drop(deletes);
        let elapsed: Duration = self.parts.clock.boottime().saturating_sub(started);
        let deleted = count - failed.len();
        tracing::debug!(
            deleted,
            failed = failed.len(),
            elapsed_ms = elapsed.as_millis() as u64,
            "dead objects deleted"
        );
        Ok(collect::Input::Deleted { failed })
    }
}
