//! The bucket's face.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use model::ObjectKey;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};
use runtime::{Clock, Registry};

use crate::error::{BucketError, Operation};
use crate::faults::{Effect, Faults};
use crate::folders::{Folder, parent};
use crate::local::LocalFolders;
use crate::metrics::Metrics;

/// An object of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub key: ObjectKey,
    /// Its length.
    pub bytes: u64,
}

/// Objects by key. Clones are the same bucket.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    folders: Arc<LocalFolders>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    faults: Faults,
}

impl Bucket {
    /// Opens the bucket in a local directory, and creates the directory if it is missing.
    ///
    /// One process at a time: half-written objects of a killed one are removed.
    pub async fn open(dir: &Path, clock: Arc<dyn Clock>, registry: &Registry) -> Result<Bucket, BucketError> {
        let path = dir.to_path_buf();
        let opened = runtime::blocking(move || LocalFolders::open(&path)).await;
        let failed = |source| BucketError::sort(Operation::Open, &dir.display().to_string(), source);
        let folders = opened.map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(folders.root())
            .map_err(|source| BucketError::sort(Operation::Open, &dir.display().to_string(), source))?
            .with_fsync(true);
        Ok(Bucket {
            store: Arc::new(store),
            folders: Arc::new(folders),
            clock,
            metrics: Metrics::new(registry),
            faults: Faults::default(),
        })
    }

    /// Where the bucket lies.
    pub fn dir(&self) -> &Path {
        self.folders.root()
    }

    /// Where tests plant faults.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Stores an object; it is durable, whole, when this returns.
    ///
    /// Keys are write-once: the same bytes again are harmless, others never go under the same key. After an
    /// error the object may be there or not, now or later: see [`BucketError`].
    pub async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), BucketError> {
        self.put_pieces(key, vec![bytes]).await
    }

    /// The same for an object whose bytes lie in several pieces: a large one is not copied into one.
    pub async fn put_pieces(&self, key: &ObjectKey, pieces: Vec<Bytes>) -> Result<(), BucketError> {
        let sent = pieces.iter().map(|piece| piece.len() as u64).sum();
        let put = async {
            let path = key.to_string();
            let folder = self.folders.ensure(parent(&path)).await;
            folder.map_err(|source| BucketError::sort(Operation::Put, &path, source))?;
            let put = self.store.put(&path.as_str().into(), pieces.into_iter().collect()).await;
            put.map(|_| ()).map_err(|source| BucketError::sort(Operation::Put, &path, source))
        };
        self.measured(Operation::Put, key, put, |()| sent).await
    }

    /// Fetches a whole object.
    pub async fn get(&self, key: &ObjectKey) -> Result<Bytes, BucketError> {
        let get = async {
            let path = key.to_string();
            let failed = |source| BucketError::sort(Operation::Get, &path, source);
            let object = self.store.get(&path.as_str().into()).await.map_err(failed)?;
            object.bytes().await.map_err(failed)
        };
        let bytes = self.measured(Operation::Get, key, get, |bytes: &Bytes| bytes.len() as u64).await?;
        Ok(self.perhaps_flipped(key, bytes))
    }

    /// Fetches ranges of an object, in the order given; each has just the length asked for.
    ///
    /// Errors: `TooShort` if one reaches past the object's end.
    pub async fn get_ranges(&self, key: &ObjectKey, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, BucketError> {
        let get = async {
            let path = key.to_string();
            let failed = |source| BucketError::sort(Operation::Get, &path, source);
            let location = path.as_str().into();
            match self.store.get_ranges(&location, ranges).await {
                Ok(pieces) if pieces.iter().zip(ranges).all(|(piece, range)| is_of(piece, range)) => Ok(pieces),
                // Either way: is the object shorter than whoever named it thought?
                fetched => {
                    let bytes = self.store.head(&location).await.map_err(failed)?.size;
                    let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
                    if end > bytes {
                        return Err(BucketError::TooShort { path: path.clone(), bytes, end });
                    }
                    match fetched {
                        Err(source) => Err(failed(source)),
                        Ok(_) => Err(BucketError::sort(Operation::Get, &path, "a range came with another length")),
                    }
                }
            }
        };
        let length = |pieces: &Vec<Bytes>| pieces.iter().map(|piece| piece.len() as u64).sum();
        let pieces = self.measured(Operation::Get, key, get, length).await?;
        Ok(pieces.into_iter().map(|piece| self.perhaps_flipped(key, piece)).collect())
    }

    /// Deletes an object; one that is not there is deleted already.
    ///
    /// It may come back after a power loss: whoever deletes can do it again.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), BucketError> {
        let delete = async {
            let path = key.to_string();
            match self.store.delete(&path.as_str().into()).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(source) => Err(BucketError::sort(Operation::Delete, &path, source)),
            }
        };
        self.measured(Operation::Delete, key, delete, |()| 0).await
    }

    /// Lists the objects in a folder and below, ascending by key.
    ///
    /// Names that are no keys are left out, counted and logged: they are not ours to touch.
    pub async fn list(&self, folder: Folder) -> Result<Vec<Listed>, BucketError> {
        let list = async {
            let path = folder.to_string();
            let failed = |source| BucketError::sort(Operation::List, &path, source);
            let prefix = path.as_str().into();
            let mut found = Vec::new();
            let mut objects = self.store.list(Some(&prefix));
            while let Some(object) = objects.try_next().await.map_err(failed)? {
                match ObjectKey::parse(object.location.as_ref()) {
                    Ok(key) => found.push(Listed { key, bytes: object.size }),
                    Err(_) => {
                        self.metrics.unknown_names.inc();
                        tracing::warn!(name = %object.location, "a name in the bucket is no object's key");
                    }
                }
            }
            found.sort_unstable_by_key(|listed| listed.key);
            Ok(found)
        };
        self.measured(Operation::List, &ObjectKey::Cluster, list, |_| 0).await
    }

    /// The name of something that is stored, whatever it is; `None` if the bucket is empty.
    pub(crate) async fn anything(&self) -> Result<Option<String>, BucketError> {
        let list = async {
            let mut objects = self.store.list(None);
            let first = objects.try_next().await;
            let first = first.map_err(|source| BucketError::sort(Operation::List, "the bucket", source))?;
            Ok(first.map(|object| object.location.to_string()))
        };
        self.measured(Operation::List, &ObjectKey::Cluster, list, |_| 0).await
    }

    /// Runs one operation with its metrics and the fault that a test planted for it.
    async fn measured<T>(
        &self,
        operation: Operation,
        key: &ObjectKey,
        work: impl Future<Output = Result<T, BucketError>>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> Result<T, BucketError> {
        let started = self.clock.boottime();
        let planted = |why: &str| BucketError::sort(operation, &key.to_string(), format!("planted: {why}"));
        let done = match self.faults.strike(operation, key) {
            None => work.await,
            Some(Effect::Fail) => Err(planted("failed")),
            Some(Effect::NoSpace) => Err(BucketError::NoSpace { operation, path: key.to_string() }),
            Some(Effect::LoseAnswer) => work.await.and(Err(planted("answer lost"))),
            Some(Effect::Hang) => {
                // Whatever came of it, nobody hears.
                let _unheard = work.await.is_ok();
                std::future::pending().await
            }
            // For the next look: the bytes are there when the work is done.
            Some(Effect::FlipBit) => {
                let done = work.await;
                self.faults.flip_next(*key);
                done
            }
        };
        let seconds = self.clock.boottime().saturating_sub(started).as_secs_f64();
        self.metrics.record(operation, seconds, done.as_ref().map(bytes).map_err(|error| error.kind()));
        done
    }

    fn perhaps_flipped(&self, key: &ObjectKey, bytes: Bytes) -> Bytes {
        if bytes.is_empty() || !self.faults.take_flip(key) {
            return bytes;
        }
        let mut flipped = bytes.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        flipped.into()
    }
}

fn is_of(piece: &Bytes, range: &Range<u64>) -> bool {
    piece.len() as u64 == range.end.saturating_sub(range.start)
}
