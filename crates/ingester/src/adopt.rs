//! Adopt: what a dead process's writer committed becomes a head again, then a block, which closes the writer.
//!
//! Writers that are live in the index when this process starts are fenced first: the data folder's lock says that their
//! process is gone. New writes are taken at once, by a new writer; queries of the old one's samples wait until its
//! segments are loaded. A segment that can't be decoded is put aside with those behind it, which build on it
//! (RELIABILITY.md, row 21): it is kept, `/-/ready` says so, and everything else is served.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use index::{Applied, BlockId, Command, Refused, SegmentMeta, Stage as WriterStage};
use model::{Lease, ObjectKey, Right, SegmentNumber, WriterId};
use runtime::Stage;
use tracing::{error, info, warn};

use crate::error::IngesterError;
use crate::heads::WriterHeads;
use crate::ingester::Shared;
use crate::pack::pack;
use crate::writer::{chain, propose, refused};

/// Segments that are fetched ahead of the one that is taken in.
const FETCH_AHEAD: usize = 8;
/// Further keys of one segment that are tried when the one that the index names is not there.
const OTHER_ATTEMPTS_MAX: u32 = 3;
/// First wait after a failed try, doubled each time.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two tries.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);

/// Fences every writer that was left live, offers their heads to queries, and starts to load them.
pub(crate) async fn start(shared: &Arc<Shared>) -> Result<(), IngesterError> {
    let left: Vec<_> =
        shared.parts.group.read(|index| index.writers().map(|(id, writer)| (id, writer.stage, writer.cut)).collect());
    let mut adoptions = Vec::new();
    for (id, stage, cut) in left {
        if stage == WriterStage::Live {
            let odd = propose(shared, Command::Fence { writer: id }).await?;
            if !matches!(odd, Ok(Applied::Fenced { .. })) {
                return Err(refused("fence", id, &odd));
            }
        }
        let heads = Arc::new(WriterHeads::new(id, cut));
        shared.heads.insert(heads.clone());
        shared.adopting.lock().push(format!("the segments of writer {id} are being loaded"));
        adoptions.push(Adoption { shared: shared.clone(), id, heads });
    }
    if !adoptions.is_empty() {
        shared.parts.tasks.spawn("ingester.adopt", Stage::Flushing, run(shared.clone(), adoptions));
    }
    Ok(())
}

async fn run(shared: Arc<Shared>, adoptions: Vec<Adoption>) {
    let shutdown = shared.parts.tasks.shutdown().clone();
    for adoption in adoptions {
        let (id, heads) = (adoption.id, adoption.heads.clone());
        // Stopped half-way, nothing is lost: the next process adopts again.
        let result = tokio::select! {
            result = adoption.adopt() => result,
            () = shutdown.reached(Stage::Flushing) => return,
        };
        shared.adopting.lock().retain(|text| !text.contains(&format!("writer {id} ")));
        match result {
            Ok(()) => {
                shared.metrics.adopted.inc();
            }
            Err(e) => {
                error!(writer = %id, error = chain(&e), "writer not adopted");
                // It stays fenced with its segments; queries that need them fail and name it.
                heads.fail(chain(&e));
                shared.adopting.lock().push(format!("writer {id} could not be adopted: {}", chain(&e)));
            }
        }
    }
}

struct Adoption {
    shared: Arc<Shared>,
    id: WriterId,
    heads: Arc<WriterHeads>,
}

impl Adoption {
    async fn adopt(&self) -> Result<(), IngesterError> {
        let lease = self.grant().await?;
        let segments: Vec<(SegmentNumber, SegmentMeta)> = self.shared.parts.group.read(|index| {
            let writer = index.writer(self.id);
            let segments = writer.into_iter().flat_map(|writer| writer.segments());
            segments.filter(|(n, _)| !index.is_quarantined(self.id, *n)).map(|(n, segment)| (n, *segment)).collect()
        });
        let since = self.shared.parts.clock.boottime();
        let taken_in = self.load(&segments, lease).await?;
        let elapsed_ms = (self.shared.parts.clock.boottime() - since).as_millis() as u64;
        info!(writer = %self.id, segments = taken_in, elapsed_ms, "segments of a dead writer loaded");
        if taken_in == 0 {
            self.close(lease).await?
        } else {
            self.cut(lease).await?
        }
        self.shared.heads.remove(self.id);
        Ok(())
    }

    async fn grant(&self) -> Result<Lease, IngesterError> {
        let last = self.shared.parts.group.read(|index| index.writer(self.id).map_or(0, |writer| writer.lease));
        let command = Command::GrantAdopt { writer: self.id, node: self.shared.parts.node, number: last + 1 };
        match propose(&self.shared, command).await? {
            Ok(Applied::AdoptGranted { lease, .. }) => Ok(lease),
            odd => Err(refused("grant_adopt", self.id, &odd)),
        }
    }

    /// Takes in the segments in order; returns how many. The rest, from the first that can't be read, is put aside.
    async fn load(&self, segments: &[(SegmentNumber, SegmentMeta)], lease: Lease) -> Result<usize, IngesterError> {
        let Some(&(upto, _)) = segments.last() else { return Ok(0) };
        let fetches =
            segments.iter().copied().map(|(n, segment)| self.fetch(n, segment).map(move |object| (n, object)).boxed());
        let mut fetched = futures::stream::iter(fetches).buffered(FETCH_AHEAD);
        let mut taken_in = 0;
        while let Some((n, object)) = fetched.next().await {
            if let Err(why) = self.take_in(n, object?) {
                error!(
                    writer = %self.id, segment = n, upto, error = why,
                    "segment can't be read: it and those behind it are put aside"
                );
                self.quarantine(n, upto, lease).await?;
                break;
            }
            taken_in += 1;
        }
        // Queries that wait for quarantined segments are not kept waiting: their plan names what is missing.
        self.heads.set_applied(upto);
        Ok(taken_in)
    }

    /// `None` if no object of the segment is there.
    async fn fetch(&self, n: SegmentNumber, segment: SegmentMeta) -> Result<Option<Bytes>, IngesterError> {
        let mut attempts = (0..=OTHER_ATTEMPTS_MAX).filter(|&attempt| attempt != segment.attempt);
        let mut attempt = Some(segment.attempt);
        let mut delay = RETRY_DELAY_MIN;
        while let Some(a) = attempt {
            match self.shared.parts.bucket.get(&ObjectKey::Segment { writer: self.id, n, attempt: a }).await {
                Ok(object) => return Ok(Some(object)),
                Err(e) if e.kind() == bucket::ErrorKind::NotFound => attempt = attempts.next(),
                Err(e) if e.kind() == bucket::ErrorKind::Unavailable => {
                    warn!(writer = %self.id, segment = n, error = chain(&e), "segment not fetched, trying again");
                    self.shared.parts.clock.sleep(delay).await;
                    delay = (delay * 2).min(RETRY_DELAY_MAX);
                }
                Err(source) => return Err(IngesterError::Load { writer: self.id.to_string(), n, source }),
            }
        }
        Ok(None)
    }

    fn take_in(&self, n: SegmentNumber, object: Option<Bytes>) -> Result<(), String> {
        let object = object.ok_or("it is not in the bucket")?;
        let (header, columns) = segment::decode(&object).map_err(|e| chain(&e))?;
        if (header.writer, header.n) != (self.id, n) {
            return Err(format!("it says that it is segment {} of writer {}", header.n, header.writer));
        }
        self.heads.take_in(n, &columns).map_err(|e| chain(&e))?;
        Ok(())
    }

    async fn quarantine(&self, from: SegmentNumber, upto: SegmentNumber, lease: Lease) -> Result<(), IngesterError> {
        let command = Command::Quarantine { writer: self.id, from, upto, lease };
        match propose(&self.shared, command).await? {
            Ok(_) => {
                self.shared.metrics.quarantined.inc_by(upto - from + 1);
                Ok(())
            }
            odd => Err(refused("quarantine", self.id, &odd)),
        }
    }

    async fn close(&self, lease: Lease) -> Result<(), IngesterError> {
        match propose(&self.shared, Command::Close { writer: self.id, lease }).await? {
            Ok(_) | Err(Refused::Closed { .. }) => Ok(()),
            odd => Err(refused("close", self.id, &odd)),
        }
    }

    async fn cut(&self, lease: Lease) -> Result<(), IngesterError> {
        let (cluster, built_at, from, upto) = self.shared.parts.group.read(|index| {
            let (cut, added) = index.writer(self.id).map_or((0, 0), |writer| (writer.cut, writer.added));
            (index.cluster(), index.revision(), cut, added)
        });
        let frozen = self.heads.freeze_all();
        let mut delay = RETRY_DELAY_MIN;
        for attempt in 0.. {
            let id = BlockId { right: Right::Adopter(self.id, lease), attempt };
            let head = frozen.clone();
            let packed = runtime::blocking(move || pack(&head, cluster, id, built_at)).await;
            let (object, block) =
                packed.map_err(|source| IngesterError::Pack { writer: self.id.to_string(), source })?;
            let Err(e) = self.shared.parts.bucket.put_pieces(&id.key(), object).await else {
                return self.propose_cut(from, upto, block, lease).await;
            };
            warn!(writer = %self.id, error = chain(&e), "block of a dead writer not stored, trying again");
            self.shared.metrics.cut_failures.inc();
            self.shared.parts.clock.sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
        Ok(())
    }

    async fn propose_cut(
        &self,
        from: SegmentNumber,
        upto: SegmentNumber,
        block: index::BlockMeta,
        lease: Lease,
    ) -> Result<(), IngesterError> {
        let command = Command::Cut { writer: self.id, from, upto, block, lease: Some(lease) };
        match propose(&self.shared, command).await? {
            Ok(_) | Err(Refused::Closed { .. }) => {
                info!(writer = %self.id, block = %block.id.key(), series = block.series, samples = block.samples, "dead writer cut");
                Ok(())
            }
            odd => Err(refused("cut", self.id, &odd)),
        }
    }
}
