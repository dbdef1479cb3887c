//! Moves a bucket from a directory to another place while it is used, and happens at one moment.
//!
//! The steps, in order; a process that is killed between any two of them, or within one, loses nothing:
//!
//! | step | what it does | killed after it |
//! |---|---|---|
//! | look | the target is empty, or an earlier attempt at this move began there | |
//! | check | the target does all that is needed of a store | |
//! | mark | `cluster.json` of the target: "a move to here is under way"; nobody starts on that | the old place goes on; the next attempt continues |
//! | double | every PUT and delete goes to both places from here on; those of before have ended | the same |
//! | copy | what the old place lists is copied and read back; listed again, in both, until nothing is missing | the same |
//! | decide | `moved.json` in the old place, durable: the moment | the new place is in force; the old one refuses a start |
//! | finish | `cluster.json` of the target without the mark; reads come from there | the new place is in force |
//!
//! Why nothing is missing in the end: an object is in the old place's listing, and was copied, or its PUT was answered
//! after the doubling, and was answered by both places; the changes that began before have ended before the listing.
//! A target that fails costs the move, and no write: see `places`.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::ObjectKey;
use runtime::Random;
use tokio::sync::{Semaphore, watch};

use crate::check::Verdict;
use crate::cluster::{Cluster, Moving};
use crate::error::{BucketError, ErrorKind};
use crate::folders::Folder;
use crate::location::Location;
use crate::moved::Moved;
use crate::place::{Listed, Place};
use crate::places::Two;
use crate::store::Bucket;

/// Objects that are copied at once.
const COPIES_AT_ONCE: usize = 8;

/// What these may take in memory, in KiB; a larger object is copied alone.
const COPY_KIB_MAX: u32 = 64 << 10;

/// An object is read back in pieces of this size.
const PIECE_BYTES: u64 = 4 << 20;

/// Rounds of listing and copying. The second finds nothing missing, unless the target forgets or lists what was true once.
const ROUNDS_MAX: u32 = 5;

/// The folders whose objects are moved.
const FOLDERS: [Folder; 4] = [Folder::Segments, Folder::Blocks, Folder::Checkpoints, Folder::Changes];

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Whose is the target?
    Look,
    /// Is it good enough?
    Check,
    /// Say there what is about to happen.
    Mark,
    /// Write everything twice.
    Double,
    /// Copy the rest.
    Copy,
    /// Leave the note in the old place.
    Decide,
    /// Use the new place alone.
    Finish,
    /// Nothing: it has happened.
    Done,
}

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveProgress {
    /// Under way.
    pub step: Step,
    /// Objects copied and compared.
    pub objects: u64,
    /// Of so many that are known.
    pub objects_total: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of so many that are known.
    pub bytes_total: u64,
}

/// Why a move did not happen.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The bucket does not lie in a directory.
    #[error("the bucket in {0} is no directory: only a single node's own directory can be moved (bucket-not-movable)")]
    NotADirectory(String),
    /// The target is somebody's.
    #[error("the bucket in {to} is of cluster {found}: give an empty one (bucket-taken)")]
    Taken {
        /// The target.
        to: String,
        /// Whose it is.
        found: Cluster,
    },
    /// The target can't be used; nothing was moved.
    #[error("the bucket in {to} can't be used: {missing}; bellrock bucket check says more (bucket-unusable)")]
    Unusable {
        /// The target.
        to: String,
        /// What is missing.
        missing: String,
    },
    /// Asked of the target before anything was moved.
    #[error("the bucket in {to} can't be moved to: {source}")]
    Target {
        /// The target.
        to: String,
        /// What it said.
        source: BucketError,
    },
    /// It was given up on the way; the old place is in force alone, with all that was answered.
    #[error(
        "the move to {to} was given up: {reason}; {from} is in force, nothing is lost. Begin again when that is mended, it \
         continues (bucket-move-given-up)"
    )]
    GivenUp {
        /// The old place.
        from: String,
        /// The target.
        to: String,
        /// What went wrong.
        reason: String,
    },
    /// Whether the note of the move is in the old place is not known: the process must stop, and its next start tells.
    #[error(
        "whether the bucket has moved from {from} is not known: {reason}; the next start tells (bucket-move-unknown)"
    )]
    Unknown {
        /// The old place.
        from: String,
        /// What went wrong.
        reason: String,
    },
    /// It has happened, and the target does not take the last word yet; to be tried again.
    #[error("the bucket has moved to {to}, which does not answer: {source}")]
    Unfinished {
        /// The new place.
        to: String,
        /// What it said.
        source: BucketError,
    },
}

/// A move; step by step, see the module. Dropped before it is decided it is given up.
pub struct Move {
    bucket: Bucket,
    from: Place,
    to: Place,
    location: Location,
    cluster: Cluster,
    random: Random,
    id: String,
    next: Step,
    two: Option<Two<Place>>,
    /// Objects that were compared in the new place, byte by byte.
    compared: HashSet<ObjectKey>,
    rounds: u32,
    progress: watch::Sender<MoveProgress>,
}

impl Move {
    /// Of this bucket, of this cluster, to an empty place. Nothing is asked of it yet.
    ///
    /// Errors: `NotADirectory`; and the target's settings may be of no use.
    pub async fn new(
        bucket: &Bucket,
        location: Location,
        cluster: Cluster,
        random: &Random,
    ) -> Result<Move, MoveError> {
        let from = bucket.whole();
        if from.folder().is_none() {
            return Err(MoveError::NotADirectory(from.name().to_owned()));
        }
        let to = location.to_string();
        let opened = from.open_beside(&location).await;
        Ok(Move {
            bucket: bucket.clone(),
            from,
            to: opened.map_err(|source| MoveError::Target { to, source })?,
            location,
            cluster,
            random: random.clone(),
            id: format!("{:032x}", random.u128()),
            next: Step::Look,
            two: None,
            compared: HashSet::new(),
            rounds: 0,
            progress: watch::Sender::new(MoveProgress {
                step: Step::Look,
                objects: 0,
                objects_total: 0,
                bytes: 0,
                bytes_total: 0,
            }),
        })
    }

    /// Follows it.
    pub fn progress(&self) -> watch::Receiver<MoveProgress> {
        self.progress.subscribe()
    }

    /// Where it moves to, for people.
    pub fn target(&self) -> &str {
        self.to.name()
    }

    /// Where it moves to.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether it has happened, or will have with the next start.
    pub fn is_decided(&self) -> bool {
        self.two.as_ref().is_some_and(Two::is_decided)
    }

    /// Where tests plant faults of the target.
    pub fn target_faults(&self) -> &crate::Faults {
        self.to.faults()
    }

    /// Gives it up, unless it is decided.
    pub fn give_up(&self, reason: &str) {
        if let Some(two) = &self.two {
            self.bucket.places().give_up(two, reason);
        }
    }

    /// Does the next step and returns the one after. After an error the move is over, but for `Unfinished`: then the same
    /// step is tried again.
    pub async fn step(&mut self) -> Result<Step, MoveError> {
        let (from, to) = (self.from.name().to_owned(), self.to.name().to_owned());
        let before = |source| MoveError::Target { to: to.clone(), source };
        let given_up = |reason: String| MoveError::GivenUp { from, to: to.clone(), reason };
        self.next = match self.next {
            Step::Look => {
                self.look().await?;
                Step::Check
            }
            Step::Check => {
                self.check().await?;
                Step::Mark
            }
            Step::Mark => {
                let moving = Moving { id: self.id.clone(), from: self.from.name().to_owned() };
                self.to.set_cluster(&self.cluster, Some(moving)).await.map_err(before)?;
                Step::Double
            }
            Step::Double => {
                let doubled = self.bucket.places().double(self.to.clone());
                let (two, earlier) = doubled.ok_or_else(|| given_up("another one is under way".to_owned()))?;
                self.two = Some(two);
                earlier.ended().await;
                Step::Copy
            }
            Step::Copy => match self.copy_round().await {
                Ok(true) => Step::Decide,
                Ok(false) => Step::Copy,
                Err(reason) => {
                    self.give_up(&reason);
                    return Err(given_up(reason));
                }
            },
            Step::Decide => {
                self.decide().await?;
                Step::Finish
            }
            Step::Finish => {
                self.finish().await?;
                Step::Done
            }
            Step::Done => Step::Done,
        };
        self.progress.send_modify(|progress| progress.step = self.next);
        Ok(self.next)
    }

    /// Errors unless the target is empty, or marked by an earlier attempt at moving this bucket.
    async fn look(&self) -> Result<(), MoveError> {
        let to = || self.to.name().to_owned();
        let failed = |source| MoveError::Target { to: to(), source };
        match self.to.cluster().await.map_err(failed)? {
            Some((found, Some(_))) if found == self.cluster => Ok(()),
            Some((found, _)) => Err(MoveError::Taken { to: to(), found }),
            None => match self.to.anything().await.map_err(failed)? {
                Some(found) => Err(failed(BucketError::NotEmpty { found })),
                None => Ok(()),
            },
        }
    }

    async fn check(&self) -> Result<(), MoveError> {
        let findings = self.to.check(&self.random).await;
        let missing: Vec<String> = (findings.0.iter().filter(|finding| finding.verdict == Verdict::Missing))
            .map(|finding| finding.text.clone())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(MoveError::Unusable { to: self.to.name().to_owned(), missing: missing.join("; ") })
    }

    /// Lists both places and copies what the new one lacks. `true`: nothing was missing that had been there.
    async fn copy_round(&mut self) -> Result<bool, String> {
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            return Err(format!("the target still lacks objects after {ROUNDS_MAX} rounds of copying"));
        }
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for folder in FOLDERS {
            // In this order: what is in the old one's listing only may be on its way to both.
            old.extend(self.from.list(folder).await.map_err(|error| error.to_string())?);
            new.extend(self.to.list(folder).await.map_err(|error| error.to_string())?);
        }
        let round = compare(&old, &new, if self.rounds == 1 { None } else { Some(&self.compared) });
        self.progress.send_modify(|progress| {
            progress.objects_total = progress.objects + round.copy.len() as u64;
            progress.bytes_total = progress.bytes + round.copy.iter().map(|listed| listed.bytes).sum::<u64>();
        });
        let memory = &Semaphore::new(COPY_KIB_MAX as usize);
        let this = &*self;
        let copies = futures::stream::iter(round.copy.into_iter().map(|listed| async move {
            let kib = u32::try_from(listed.bytes >> 10).unwrap_or(u32::MAX).clamp(1, COPY_KIB_MAX);
            let _room = memory.acquire_many(kib).await.map_err(|error| error.to_string())?;
            if let Some(reason) = this.two.as_ref().and_then(Two::given_up) {
                return Err(reason);
            }
            this.copy(&listed.key).await.map_err(|reason| format!("{}: {reason}", listed.key))?;
            this.count(listed.bytes);
            Ok(listed.key)
        }));
        let copied: Vec<ObjectKey> = copies.buffer_unordered(COPIES_AT_ONCE).try_collect().await?;
        self.compared.extend(copied);
        Ok(round.is_whole)
    }

    fn count(&self, bytes: u64) {
        self.from.metrics().moved_objects.inc();
        self.from.metrics().moved_bytes.inc_by(bytes);
        self.progress.send_modify(|progress| {
            progress.objects += 1;
            progress.bytes += bytes;
        });
    }

    /// Copies an object, unless it is there, and reads it back.
    async fn copy(&self, key: &ObjectKey) -> Result<(), String> {
        let text = |error: BucketError| error.to_string();
        let bytes = match self.from.get(key).await {
            Ok(bytes) => bytes,
            // The collector was here.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        if !self.holds(key, &bytes).await.map_err(text)? {
            self.to.put(key, vec![bytes.clone()]).await.map_err(text)?;
            if !self.holds(key, &bytes).await.map_err(text)? && self.is_in_old(key).await? {
                return Err("it came back from the target with other bytes".to_owned());
            }
        }
        // Deleted in both places while it was copied, it would be there again. It was dead, and dead is for ever; deletes
        // go to the old place first, so either it is still there, or the delete is yet to come to the copy.
        if !self.is_in_old(key).await? {
            self.to.delete(key).await.map_err(text)?;
        }
        Ok(())
    }

    async fn is_in_old(&self, key: &ObjectKey) -> Result<bool, String> {
        Ok(self.from.length(key).await.map_err(|error| error.to_string())?.is_some())
    }

    /// Whether the new place has just these bytes.
    async fn holds(&self, key: &ObjectKey, bytes: &Bytes) -> Result<bool, BucketError> {
        let length = bytes.len() as u64;
        if self.to.length(key).await? != Some(length) {
            return Ok(false);
        }
        for start in (0..length).step_by(PIECE_BYTES as usize) {
            let end = length.min(start + PIECE_BYTES);
            match self.to.get_ranges(key, std::slice::from_ref(&(start..end))).await {
                Ok(pieces) if pieces[0] == bytes[start as usize..end as usize] => {}
                Ok(_) => return Ok(false),
                // Deleted or replaced between the two looks.
                Err(BucketError::NotFound { .. } | BucketError::TooShort { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn decide(&self) -> Result<(), MoveError> {
        let (from, to) = (self.from.name().to_owned(), self.to.name().to_owned());
        let (Some(two), Some(folder)) = (&self.two, self.from.folder()) else {
            return Err(MoveError::NotADirectory(from));
        };
        let places = self.bucket.places();
        if let Err(reason) = places.decide(two) {
            return Err(MoveError::GivenUp { from, to, reason });
        }
        let moved = Moved::new(
            self.id.clone(),
            to.clone(),
            self.location.settings(),
            self.cluster.id,
            self.cluster.incarnation,
            self.from.clock().now_ms(),
        );
        let path = folder.to_owned();
        let written = runtime::blocking(move || moved.write(&path)).await;
        let Err(error) = written else { return Ok(()) };
        // Perhaps renamed and not synced: whoever starts next may see it or not, so it must be known to be gone.
        let path = folder.to_owned();
        match runtime::blocking(move || Moved::remove(&path)).await {
            Ok(()) => {
                let reason = format!("moved.json is not written: {error}");
                places.take_back(two, &reason);
                Err(MoveError::GivenUp { from, to, reason })
            }
            Err(_) => Err(MoveError::Unknown { from, reason: error.to_string() }),
        }
    }

    async fn finish(&self) -> Result<(), MoveError> {
        let Some(two) = &self.two else { return Err(MoveError::NotADirectory(self.from.name().to_owned())) };
        let unfinished = |source| MoveError::Unfinished { to: self.to.name().to_owned(), source };
        self.to.set_cluster(&self.cluster, None).await.map_err(unfinished)?;
        self.bucket.places().flip(two);
        Ok(())
    }
}

impl Drop for Move {
    fn drop(&mut self) {
        self.give_up("it was stopped");
    }
}

impl Bucket {
    /// Says the last word of a move to this bucket that was killed just before it: `folder` is the old place, and its note
    /// says that the move happened. `true`: it was missing.
    pub async fn finish_move(&self, folder: &std::path::Path) -> Result<bool, BucketError> {
        let folder = folder.to_owned();
        let Some(moved) = runtime::blocking(move || Moved::read(&folder)).await? else { return Ok(false) };
        match self.whole().cluster().await? {
            Some((cluster, Some(moving))) if moving.id == moved.id => {
                self.whole().set_cluster(&cluster, None).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// What a round has to copy.
#[derive(Debug, PartialEq, Eq)]
struct Round {
    copy: Vec<Listed>,
    /// Whether nothing was missing but what is on its way to both places.
    is_whole: bool,
}

/// Compares the listings. In the first round (`compared` is `None`) everything is copied, or compared where it is there
/// from an earlier attempt. Later only what is missing is; what had been compared must not be.
fn compare(old: &[Listed], new: &[Listed], compared: Option<&HashSet<ObjectKey>>) -> Round {
    let Some(compared) = compared else { return Round { copy: old.to_vec(), is_whole: false } };
    let new: BTreeMap<ObjectKey, u64> = new.iter().map(|listed| (listed.key, listed.bytes)).collect();
    let is_missing = |listed: &&Listed| new.get(&listed.key) != Some(&listed.bytes);
    let copy: Vec<Listed> = old.iter().filter(is_missing).copied().collect();
    let is_whole = copy.iter().all(|listed| !compared.contains(&listed.key));
    Round { copy, is_whole }
}

#[cfg(test)]
mod tests;
