//! Reads blocks: opens each once and keeps its index, then fetches the ranges that a question asks for.
//!
//! `block` says which ranges it needs and checks what it is given; `bucket` fetches them; this file only carries bytes
//! from one to the other. Bytes that fail a check are fetched once more, then the query fails and names the block.

use std::collections::HashMap;
use std::sync::Arc;

use block::{BlockIndex, Open, Request, Step};
use bucket::Bucket;
use index::BlockMeta;
use model::ObjectKey;
use parking_lot::Mutex;
use tracing::error;

use crate::error::QueryError;
use crate::metrics::Metrics;

/// Opened blocks and how to read them.
pub(crate) struct Blocks {
    bucket: Arc<Bucket>,
    cache: Mutex<Cache>,
    metrics: Metrics,
}

/// Why a block gave no answer.
enum ReadError {
    Gone,
    Bucket(String),
    Corrupt(String),
    TooManySamples(u64),
}

impl Blocks {
    pub(crate) fn new(bucket: Arc<Bucket>, bytes_max: usize, metrics: Metrics) -> Blocks {
        Blocks { bucket, cache: Mutex::new(Cache { bytes_max, ..Cache::default() }), metrics }
    }

    /// Asks a block a question. `question` is called again if the bytes failed a check the first time.
    ///
    /// Errors: `BlockGone` if the block is not in the bucket; then the caller plans again.
    pub(crate) async fn ask<R: Request>(
        &self,
        block: &BlockMeta,
        question: impl Fn(Arc<BlockIndex>) -> R,
    ) -> Result<R::Output, QueryError> {
        let key = block.id.key();
        let mut result = self.ask_once(&key, block.bytes, &question).await;
        if let Err(ReadError::Corrupt(why)) = &result {
            error!(block = %key, error = why, "block can't be read, reading it once more");
            self.cache.lock().remove(&key);
            self.bucket.forget_copies(&key);
            result = self.ask_once(&key, block.bytes, &question).await;
        }
        result.map_err(|e| match e {
            ReadError::Gone => QueryError::BlockGone(key),
            ReadError::Bucket(why) => QueryError::Bucket(why),
            ReadError::Corrupt(why) => QueryError::Block { key, why },
            ReadError::TooManySamples(max) => QueryError::TooManySamples(max),
        })
    }

    async fn ask_once<R: Request>(
        &self,
        key: &ObjectKey,
        bytes: u64,
        question: &impl Fn(Arc<BlockIndex>) -> R,
    ) -> Result<R::Output, ReadError> {
        let cached = self.cache.lock().get(key);
        let index = match cached {
            Some(index) => {
                self.metrics.cache_hits.inc();
                index
            }
            None => {
                self.metrics.cache_misses.inc();
                let index = Arc::new(self.drive(key, Open::new(bytes)).await?);
                self.cache.lock().insert(*key, index.clone());
                index
            }
        };
        self.drive(key, question(index)).await
    }

    async fn drive<R: Request>(&self, key: &ObjectKey, mut request: R) -> Result<R::Output, ReadError> {
        let refused = |e: block::BlockError| match e {
            block::BlockError::TooManySamples { max } => ReadError::TooManySamples(max),
            other => ReadError::Corrupt(other.to_string()),
        };
        loop {
            match request.step().map_err(refused)? {
                Step::Done(output) => return Ok(output),
                Step::Fetch(ranges) => {
                    let parts = self.bucket.get_ranges(key, &ranges).await.map_err(|e| {
                        if e.kind() == bucket::ErrorKind::NotFound {
                            ReadError::Gone
                        } else {
                            ReadError::Bucket(e.to_string())
                        }
                    })?;
                    request.supply(parts).map_err(refused)?;
                }
            }
        }
    }
}

/// Opened blocks, the least recently used leave first.
#[derive(Default)]
struct Cache {
    open: HashMap<ObjectKey, (Arc<BlockIndex>, u64)>,
    bytes: usize,
    bytes_max: usize,
    /// Counts uses; an entry's number is when it was used last.
    uses: u64,
}

impl Cache {
    fn get(&mut self, key: &ObjectKey) -> Option<Arc<BlockIndex>> {
        self.uses += 1;
        let (index, used) = self.open.get_mut(key)?;
        *used = self.uses;
        Some(index.clone())
    }

    fn insert(&mut self, key: ObjectKey, index: Arc<BlockIndex>) {
        self.remove(&key);
        self.uses += 1;
        self.bytes += index.memory_bytes();
        self.open.insert(key, (index, self.uses));
        while self.bytes > self.bytes_max && self.open.len() > 1 {
            // A scan: there are some thousands of entries, and opening a block costs far more.
            let Some((&oldest, _)) = self.open.iter().min_by_key(|(_, (_, used))| *used) else { break };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &ObjectKey) {
        if let Some((index, _)) = self.open.remove(key) {
            self.bytes -= index.memory_bytes();
        }
    }
}
