//! One place where objects lie: a directory or an object store, asked as it wants to be asked.
//!
//! A [`crate::Bucket`] is one place, or two while it moves from one to the other; see `places`. This file knows of one.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use model::ObjectKey;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};
use runtime::{Clock, Random};

use crate::check;
use crate::error::{BucketError, Operation, chain};
use crate::faults::{Effect, Faults};
use crate::folders::{Folder, parent};
use crate::local::LocalFolders;
use crate::location::Location;
use crate::metrics::Metrics;
use crate::moved::Moved;
use crate::patience::{self, Delays};
use crate::remote;

/// An object of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub key: ObjectKey,
    /// Its length.
    pub bytes: u64,
}

/// Objects by key, in one place. Clones are the same place.
#[derive(Clone)]
pub struct Place {
    store: Arc<dyn ObjectStore>,
    beneath: Beneath,
    name: Arc<str>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    faults: Faults,
}

/// What the store is, as far as it matters for how to ask it.
#[derive(Clone)]
enum Beneath {
    /// PUTs need their folders.
    Folders(Arc<LocalFolders>),
    /// Requests may be lost or slow; they are tried again for this long in all.
    Remote { patience: Duration, random: Random },
}

impl Place {
    /// Opens it. A directory is created if it is missing; of an object store nothing is asked yet.
    pub async fn open(location: &Location, clock: Arc<dyn Clock>, metrics: Metrics) -> Result<Place, BucketError> {
        let failed = |source| BucketError::sort(Operation::Open, &location.to_string(), source);
        let (store, beneath, name) = match location {
            Location::Own(dir) | Location::Shared(dir) => {
                let (path, is_own) = (dir.clone(), matches!(location, Location::Own(_)));
                let folder = path.clone();
                if let Some(moved) = runtime::blocking(move || Moved::read(&folder)).await? {
                    let from = path.display().to_string();
                    return Err(BucketError::Moved { from, to: moved.to, settings: moved.settings });
                }
                let opened = runtime::blocking(move || LocalFolders::open(&path, is_own)).await;
                let folders =
                    opened.map_err(|source| BucketError::sort(Operation::Open, &location.to_string(), source))?;
                let root: PathBuf = folders.root().to_owned();
                let store = LocalFileSystem::new_with_prefix(&root).map_err(failed)?.with_fsync(true);
                let store: Arc<dyn ObjectStore> = Arc::new(store);
                (store, Beneath::Folders(Arc::new(folders)), root.display().to_string())
            }
            Location::Remote(remote) => {
                let store = remote::open(remote).map_err(failed)?;
                // Only for jitter.
                let random = Random::from_seed(clock.boottime().as_nanos() as u64 ^ clock.now_ms() as u64);
                (store, Beneath::Remote { patience: patience::TOTAL, random }, location.to_string())
            }
        };
        Ok(Place { store, beneath, name: name.into(), clock, metrics, faults: Faults::default() })
    }

    /// Opens another one, which is asked and counted as this one is.
    pub async fn open_beside(&self, location: &Location) -> Result<Place, BucketError> {
        Place::open(location, self.clock.clone(), self.metrics.clone()).await
    }

    /// For people: a directory, or a URL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        match &self.beneath {
            Beneath::Folders(folders) => Some(folders.root()),
            Beneath::Remote { .. } => None,
        }
    }

    /// Whether requests cross a network.
    pub fn is_remote(&self) -> bool {
        matches!(self.beneath, Beneath::Remote { .. })
    }

    /// The same place, whose operations are tried again for `total`.
    pub fn with_patience(mut self, total: Duration) -> Place {
        if let Beneath::Remote { patience, .. } = &mut self.beneath {
            *patience = total;
        }
        self
    }

    /// Where tests plant faults.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Stores an object; it is durable, whole, when this returns.
    pub async fn put(&self, key: &ObjectKey, pieces: Vec<Bytes>) -> Result<(), BucketError> {
        let sent = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.put_within(key, pieces, patience::attempt_limit(sent)).await
    }

    /// The same, where an attempt may take `limit` at most.
    pub async fn put_within(&self, key: &ObjectKey, pieces: Vec<Bytes>, limit: Duration) -> Result<(), BucketError> {
        let sent = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.persist(Operation::Put, key, limit, || self.put_once(key, pieces.clone()), |()| sent).await
    }

    /// Stores an object in one attempt that takes as long as it takes: its caller knows when to try another key.
    pub async fn put_attempt(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), BucketError> {
        let sent = bytes.len() as u64;
        self.measured(Operation::Put, key, self.put_once(key, vec![bytes]), |()| sent).await
    }

    async fn put_once(&self, key: &ObjectKey, pieces: Vec<Bytes>) -> Result<(), BucketError> {
        let path = key.to_string();
        let folder = self.ensure_folder(&path).await;
        folder.map_err(|source| BucketError::sort(Operation::Put, &path, source))?;
        let put = self.store.put(&path.as_str().into(), pieces.into_iter().collect()).await;
        put.map(|_| ()).map_err(|source| BucketError::sort(Operation::Put, &path, source))
    }

    /// Fetches a whole object.
    pub async fn get(&self, key: &ObjectKey) -> Result<Bytes, BucketError> {
        // The length is not known before: each of its pieces has a limit of its own.
        let length = |bytes: &Bytes| bytes.len() as u64;
        let bytes = self.persist(Operation::Get, key, Duration::MAX, || self.get_once(key), length).await?;
        Ok(self.perhaps_flipped(key, bytes))
    }

    async fn get_once(&self, key: &ObjectKey) -> Result<Bytes, BucketError> {
        let path = key.to_string();
        let failed = |source| BucketError::sort(Operation::Get, &path, source);
        let location = path.as_str().into();
        let object = self.in_time(&path, Operation::Get, self.store.get(&location)).await?.map_err(failed)?;
        let size = object.range.end - object.range.start;
        let mut pieces = object.into_stream();
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.in_time(&path, Operation::Get, pieces.try_next()).await?.map_err(failed)? {
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() as u64 != size {
            return Err(BucketError::sort(Operation::Get, &path, format!("{} bytes came of {size}", bytes.len())));
        }
        Ok(bytes.freeze())
    }

    /// Fetches ranges of an object, in the order given; each has just the length asked for.
    pub async fn get_ranges(&self, key: &ObjectKey, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, BucketError> {
        let length = |pieces: &Vec<Bytes>| pieces.iter().map(|piece| piece.len() as u64).sum();
        let wanted = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        let limit = patience::attempt_limit(wanted);
        let pieces = self.persist(Operation::Get, key, limit, || self.get_ranges_once(key, ranges), length).await?;
        Ok(pieces.into_iter().map(|piece| self.perhaps_flipped(key, piece)).collect())
    }

    /// An object's length; `None` if it is not there.
    pub async fn length(&self, key: &ObjectKey) -> Result<Option<u64>, BucketError> {
        let head = || async {
            let path = key.to_string();
            match self.store.head(&path.as_str().into()).await {
                Ok(object) => Ok(Some(object.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(source) => Err(BucketError::sort(Operation::Get, &path, source)),
            }
        };
        self.persist(Operation::Get, key, patience::attempt_limit(0), head, |_| 0).await
    }

    async fn get_ranges_once(&self, key: &ObjectKey, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, BucketError> {
        let path = key.to_string();
        let failed = |source| BucketError::sort(Operation::Get, &path, source);
        let location = path.as_str().into();
        // HTTP has no way to ask for nothing: such a range would bring the whole object.
        let some: Vec<Range<u64>> = ranges.iter().filter(|range| range.start < range.end).cloned().collect();
        if some.is_empty() {
            return Ok(vec![Bytes::new(); ranges.len()]);
        }
        match self.store.get_ranges(&location, &some).await {
            Ok(pieces)
                if pieces.len() == some.len() && pieces.iter().zip(&some).all(|(piece, range)| is_of(piece, range)) =>
            {
                let mut pieces = pieces.into_iter();
                let piece = |range: &Range<u64>| match range.start < range.end {
                    // There is one for each, as was just counted.
                    true => pieces.next().unwrap_or_default(),
                    false => Bytes::new(),
                };
                Ok(ranges.iter().map(piece).collect())
            }
            // Either way: is the object shorter than whoever named it thought?
            fetched => {
                let bytes = self.store.head(&location).await.map_err(failed)?.size;
                let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
                if end > bytes {
                    return Err(BucketError::TooShort { path: path.clone(), bytes, end });
                }
                match fetched {
                    Err(source) => Err(failed(source)),
                    Ok(_) => {
                        Err(BucketError::sort(Operation::Get, &path, "a range came with another length, or not at all"))
                    }
                }
            }
        }
    }

    /// Deletes an object; one that is not there is deleted already.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), BucketError> {
        let delete = || async {
            let path = key.to_string();
            match self.store.delete(&path.as_str().into()).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(source) => Err(BucketError::sort(Operation::Delete, &path, source)),
            }
        };
        self.persist(Operation::Delete, key, patience::attempt_limit(0), delete, |()| 0).await
    }

    /// Lists the objects in a folder and below, ascending by key.
    ///
    /// Names that are no keys are left out, counted and logged: they are not ours to touch.
    pub async fn list(&self, folder: Folder) -> Result<Vec<Listed>, BucketError> {
        self.persist(Operation::List, &ObjectKey::Cluster, Duration::MAX, || self.list_once(folder), |_| 0).await
    }

    async fn list_once(&self, folder: Folder) -> Result<Vec<Listed>, BucketError> {
        let path = folder.to_string();
        let failed = |source| BucketError::sort(Operation::List, &path, source);
        let prefix = path.as_str().into();
        let mut found = Vec::new();
        let mut objects = self.store.list(Some(&prefix));
        while let Some(object) = self.in_time(&path, Operation::List, objects.try_next()).await?.map_err(failed)? {
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
    }

    /// The name of something that is stored, whatever it is; `None` if the place is empty, but for what an interrupted
    /// check has left.
    pub async fn anything(&self) -> Result<Option<String>, BucketError> {
        let list = || async {
            let mut objects = self.store.list(None);
            loop {
                let next = self.in_time("the bucket", Operation::List, objects.try_next()).await?;
                let next = next.map_err(|source| BucketError::sort(Operation::List, "the bucket", source))?;
                match next.map(|object| object.location.to_string()) {
                    Some(name) if name.starts_with(check::FOLDER_PREFIX) => {}
                    found => return Ok(found),
                }
            }
        };
        self.persist(Operation::List, &ObjectKey::Cluster, Duration::MAX, list, |_| 0).await
    }

    /// What lies beneath, for `check`.
    pub fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Makes the folder of a path durable where there are folders.
    pub async fn ensure_folder(&self, path: &str) -> std::io::Result<()> {
        match &self.beneath {
            Beneath::Folders(folders) => folders.ensure(parent(path)).await,
            Beneath::Remote { .. } => Ok(()),
        }
    }

    pub async fn in_time_limit<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, String> {
        runtime::timeout(&*self.clock, limit, work).await.map_err(|late| late.to_string())
    }

    /// One request, or the next piece of an answer, within the time that a remote store gets for it.
    async fn in_time<T>(
        &self,
        path: &str,
        operation: Operation,
        work: impl Future<Output = T>,
    ) -> Result<T, BucketError> {
        if !self.is_remote() {
            return Ok(work.await);
        }
        let done = runtime::timeout(&*self.clock, patience::attempt_limit(0), work).await;
        done.map_err(|late| BucketError::sort(operation, path, late))
    }

    /// Runs one operation until it succeeds, fails for good, or the bucket's patience ends. `limit` bounds an attempt.
    async fn persist<T, Attempt: Future<Output = Result<T, BucketError>>>(
        &self,
        operation: Operation,
        key: &ObjectKey,
        limit: Duration,
        attempt: impl Fn() -> Attempt,
        bytes: impl Fn(&T) -> u64,
    ) -> Result<T, BucketError> {
        let Beneath::Remote { patience, random } = &self.beneath else {
            return self.measured(operation, key, attempt(), bytes).await;
        };
        let mut delays = Delays::new(&*self.clock, random, *patience);
        let mut is_told = false;
        loop {
            let limited = async {
                let done = runtime::timeout(&*self.clock, limit, attempt()).await;
                done.unwrap_or_else(|late| Err(BucketError::sort(operation, &key.to_string(), late)))
            };
            let done = self.measured(operation, key, limited, &bytes).await;
            match done {
                Err(error) if error.may_pass_soon() => {
                    if !delays.pause().await {
                        return Err(error);
                    }
                    self.metrics.retries.with([operation.name()]).inc();
                    // Once: an outage has many operations, and each many attempts.
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(error = chain(&error), "object store is asked again until it answers");
                    }
                }
                done => return done,
            }
        }
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
