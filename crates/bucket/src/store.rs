//! The bucket's face: where its objects lie is `places`' and `place`'s to know.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::ObjectKey;
use runtime::{Clock, Random, Registry};

use crate::cache::RangeCache;
use crate::check::Findings;
use crate::error::BucketError;
use crate::faults::Faults;
use crate::folders::Folder;
use crate::location::Location;
use crate::metrics::Metrics;
use crate::patience;
use crate::place::{Listed, Place};
use crate::places::{Places, Targets};

/// While a bucket moves, an ack waits for the new place: so long, with several attempts, then the move is given up. Below
/// the time after which a write is answered 503.
const MIRROR_PATIENCE: Duration = Duration::from_secs(7);

/// How long one of these attempts may take that moves next to no bytes.
const MIRROR_ATTEMPT: Duration = Duration::from_secs(2);

/// Objects by key. Clones are the same bucket.
#[derive(Clone)]
pub struct Bucket {
    places: Places<Place>,
    /// How long operations are tried again, if not for as long as usual.
    patience: Option<Duration>,
    faults: Faults,
    cache: Option<RangeCache>,
}

impl Bucket {
    /// Opens a bucket. A directory is created if it is missing; of an object store nothing is asked yet.
    ///
    /// [`Location::Own`] is one process's at a time: half-written objects of a killed one are removed.
    ///
    /// Errors: `Moved` if the directory's bucket lies elsewhere now.
    pub async fn open(
        location: impl Into<Location>,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Bucket, BucketError> {
        let place = Place::open(&location.into(), clock, Metrics::new(registry)).await?;
        Ok(Bucket::of(place))
    }

    pub(crate) fn of(place: Place) -> Bucket {
        let faults = place.faults().clone();
        Bucket { places: Places::one(place), patience: None, faults, cache: None }
    }

    /// Where the bucket lies, for people: a directory, or a URL.
    pub fn place(&self) -> String {
        self.places.whole().name().to_owned()
    }

    /// Whether requests cross a network: then they are timed out and tried again, and copies of ranges are worth keeping.
    /// It changes when a directory's bucket has moved to an object store.
    pub fn is_remote(&self) -> bool {
        self.places.whole().is_remote()
    }

    /// The same bucket, whose operations are tried again for `total` while the store fails for a reason that may pass.
    ///
    /// [`Duration::ZERO`] tries once, [`Duration::MAX`] until the caller gives up. A directory is never asked again.
    pub fn with_patience(&self, total: Duration) -> Bucket {
        Bucket { patience: Some(total), ..self.clone() }
    }

    /// The same bucket, whose ranges are looked for in `cache` first and kept there.
    pub fn with_cache(&self, cache: RangeCache) -> Bucket {
        Bucket { cache: Some(cache), ..self.clone() }
    }

    /// Throws copies of an object away: its bytes failed a check, and the next look is to be at the object itself.
    pub fn forget_copies(&self, key: &ObjectKey) {
        if let Some(cache) = &self.cache {
            cache.forget(key);
        }
    }

    /// Where tests plant faults, of the place that the bucket was opened in.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(crate) fn places(&self) -> &Places<Place> {
        &self.places
    }

    /// The place that reads come from.
    pub(crate) fn whole(&self) -> Place {
        self.patient(self.places.whole())
    }

    fn patient(&self, place: Place) -> Place {
        match self.patience {
            Some(total) => place.with_patience(total),
            None => place,
        }
    }

    /// Stores an object; it is durable, whole, when this returns.
    ///
    /// Keys are write-once: the same bytes again are harmless, others never go under the same key; but for the cluster's and
    /// replicas' files, of which the last word counts. After an error the object may be there or not, now or later: see
    /// [`BucketError`].
    pub async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), BucketError> {
        self.put_pieces(key, vec![bytes]).await
    }

    /// The same for an object whose bytes lie in several pieces: a large one is not copied into one.
    pub async fn put_pieces(&self, key: &ObjectKey, pieces: Vec<Bytes>) -> Result<(), BucketError> {
        let put = |place: Place| {
            let (place, pieces) = (self.patient(place), pieces.clone());
            async move { place.put(key, pieces).await }
        };
        self.put_everywhere(put, put).await
    }

    /// Stores an object in one attempt that takes as long as it takes: its caller knows when to try another key.
    pub async fn put_attempt(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), BucketError> {
        let put = |place: Place| {
            let bytes = bytes.clone();
            async move { place.put_attempt(key, bytes).await }
        };
        // The caller's rules are the old place's, which does not cross a network; so the new one has rules of its own.
        let mirror = |place: Place| {
            let limit = MIRROR_ATTEMPT + patience::time_for(bytes.len() as u64);
            let (place, pieces) = (place.with_patience(MIRROR_PATIENCE), vec![bytes.clone()]);
            async move { place.put_within(key, pieces, limit).await }
        };
        self.put_everywhere(put, mirror).await
    }

    /// Stores an object in the bucket's place, or in both of its places.
    async fn put_everywhere<Put, Mirror>(
        &self,
        put: impl Fn(Place) -> Put,
        mirror: impl Fn(Place) -> Mirror,
    ) -> Result<(), BucketError>
    where
        Put: Future<Output = Result<(), BucketError>>,
        Mirror: Future<Output = Result<(), BucketError>>,
    {
        let (targets, _under_way) = self.places.change();
        let two = match targets {
            Targets::One(place) => return put(place).await,
            Targets::Two(two) => two,
        };
        let (in_old, in_new) = futures::join!(put(two.old.clone()), mirror(two.new.clone()));
        match in_new {
            Err(error) if !self.places.give_up(&two, &error.to_string()) => Err(error),
            // Whatever becomes of the move: what is not in the old place was never everywhere.
            _ => in_old,
        }
    }

    /// Fetches a whole object.
    pub async fn get(&self, key: &ObjectKey) -> Result<Bytes, BucketError> {
        self.whole().get(key).await
    }

    /// Fetches ranges of an object, in the order given; each has just the length asked for.
    ///
    /// Errors: `TooShort` if one reaches past the object's end.
    pub async fn get_ranges(&self, key: &ObjectKey, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, BucketError> {
        let Some(cache) = &self.cache else { return self.whole().get_ranges(key, ranges).await };
        let copies = cache.get(key, ranges).await;
        if copies.iter().all(Option::is_some) {
            return Ok(copies.into_iter().flatten().collect());
        }
        let missing: Vec<Range<u64>> =
            copies.iter().zip(ranges).filter(|(copy, _)| copy.is_none()).map(|(_, range)| range.clone()).collect();
        let fetched = self.whole().get_ranges(key, &missing).await?;
        for (range, bytes) in missing.iter().zip(&fetched) {
            cache.keep(key, range, bytes);
        }
        let mut fetched = fetched.into_iter();
        Ok(copies.into_iter().filter_map(|copy| copy.or_else(|| fetched.next())).collect())
    }

    /// Deletes an object; one that is not there is deleted already.
    ///
    /// It may come back after a power loss: whoever deletes can do it again.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), BucketError> {
        let (targets, _under_way) = self.places.change();
        match targets {
            Targets::One(place) => self.patient(place).delete(key).await,
            Targets::Two(two) => {
                // In this order: whoever copies an object looks afterwards whether the old place still has it.
                self.patient(two.old.clone()).delete(key).await?;
                match self.patient(two.new.clone()).delete(key).await {
                    // What is left there was dead; nobody will look for it.
                    Err(_) if two.given_up().is_some() => Ok(()),
                    done => done,
                }
            }
        }
    }

    /// Lists the objects in a folder and below, ascending by key.
    ///
    /// Names that are no keys are left out, counted and logged: they are not ours to touch.
    pub async fn list(&self, folder: Folder) -> Result<Vec<Listed>, BucketError> {
        self.whole().list(folder).await
    }

    /// Tries the store. Nothing that is in the bucket is touched.
    pub async fn check(&self, random: &Random) -> Findings {
        self.whole().check(random).await
    }
}
