//! The object store: PUTs whose answer is lost or that land late or twice, slow and failing requests, stale lists.
//!
//! An answer that comes says the truth; one that does not come, within [`ATTEMPT_MAX`], says nothing.

use std::collections::BTreeMap;
use std::rc::Rc;

use bucket::{Folder, Listed};
use compactor::recover::next_changes;
use index::{Changes, Index};
use model::{Incarnation, ObjectKey};

use crate::ledger::{Block, Segment};
use crate::process::{Op, Stimulus};
use crate::rates::{MS, SECOND};
use crate::world::{Event, World};

/// After this time a request counts as failed.
const ATTEMPT_MAX: u64 = 2 * SECOND;

/// What lies under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    Segment(Rc<Segment>),
    Block(Rc<Block>),
    Bytes(Rc<Vec<u8>>),
}

impl Object {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Object::Segment(segment) => 10 + segment.occurrences.len() as u64,
            Object::Block(block) => 10 + block.occurrences.len() as u64,
            Object::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    pub objects: BTreeMap<ObjectKey, Object>,
    /// Everything that was ever PUT: a key has one content for ever.
    ever: BTreeMap<ObjectKey, Object>,
    /// When keys appeared or went, for stale lists.
    changed: BTreeMap<ObjectKey, u64>,
    /// `cluster.json`.
    pub incarnation: Incarnation,
    pub is_out: bool,
    /// The index as a recovery would read it now.
    recoverable: Option<Index>,
    /// Under the planted stale Replace: where the block of a name really lies.
    pub alias: BTreeMap<ObjectKey, ObjectKey>,
}

impl Store {
    pub(crate) fn new(incarnation: Incarnation) -> Store {
        Store { incarnation, ..Store::default() }
    }

    /// Follows what a recovery would read: the newest checkpoint, and the changes that reach on from there.
    fn follow(&mut self, key: ObjectKey, object: &Object) {
        let Object::Bytes(bytes) = object else { return };
        if let ObjectKey::Checkpoint(at) = key {
            if self.recoverable.as_ref().is_some_and(|known| at <= known.revision()) {
                return;
            }
            self.recoverable = Some(Index::decode_checkpoint(bytes).expect("a checkpoint decodes"));
        }
        let Some(known) = &mut self.recoverable else { return };
        let listed: Vec<Listed> = {
            let changes = self.objects.iter().filter(|(key, _)| matches!(key, ObjectKey::Changes { .. }));
            changes.map(|(key, object)| Listed { key: *key, bytes: object.bytes() }).collect()
        };
        while let Some(key) = next_changes(&listed, known.revision()) {
            let Some(Object::Bytes(bytes)) = self.objects.get(&key) else { return };
            let changes = Changes::decode(bytes).expect("changes decode");
            known.replay(&changes).expect("changes that follow are replayed");
        }
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(self.alias.get(key).unwrap_or(key))
    }

    pub(crate) fn list(&self, folder: Folder) -> Vec<Listed> {
        let is_in = |key: &ObjectKey| match (folder, *key) {
            (Folder::Segments, ObjectKey::Segment { .. })
            | (Folder::Blocks, ObjectKey::Block { .. })
            | (Folder::Checkpoints, ObjectKey::Checkpoint(_))
            | (Folder::Changes, ObjectKey::Changes { .. }) => true,
            (Folder::SegmentsOf(wanted), ObjectKey::Segment { writer, .. }) => wanted == writer,
            (Folder::BlocksOf(wanted), ObjectKey::Block { right, .. }) => wanted == right,
            _ => false,
        };
        let inside = self.objects.iter().filter(|(key, _)| is_in(key));
        inside.map(|(key, object)| Listed { key: *key, bytes: object.bytes() }).collect()
    }
}

/// A request to the store.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Put(ObjectKey, Object),
    Get(ObjectKey),
    List(Folder),
    Delete(ObjectKey),
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Done,
    Got(Object),
    NotFound,
    Listed(Vec<Listed>),
    /// Or nobody knows.
    Failed,
}

impl World {
    /// Sends a request for a process; the answer comes as a stimulus with `op`.
    pub(crate) fn request(&mut self, slot: usize, op: Op, request: Request) {
        let token = self.process(slot).next_token();
        self.process(slot).ops.insert(token, op);
        let (rates, now) = (self.rates.clone(), self.now);
        let mut delay = MS + self.random.below(15 * MS);
        if self.chance(rates.put_slow) {
            delay += self.random.below(4 * SECOND);
        }
        let give_up = now + ATTEMPT_MAX;
        let life = self.slots[slot].life;
        let failed = Event::Process { slot, life, what: Stimulus::Store(token, Answer::Failed) };
        if self.slots[slot].is_cut_from_store {
            return self.at(give_up, failed);
        }
        // An error may come at once or late.
        let fails_at = now + 100 * MS + self.random.below(ATTEMPT_MAX);
        if self.store.is_out {
            return self.at(fails_at, failed);
        }
        let (fails, late, twice) = match request {
            Request::Put(..) => (rates.put_fails, rates.put_late, rates.put_twice),
            Request::Delete(_) => (rates.get_fails, rates.delete_late, 0),
            Request::Get(_) | Request::List(_) => (rates.get_fails, 0, 0),
        };
        let lands = |answers| Event::Store { slot, life, token, request: request.clone(), answers };
        if self.chance(fails) {
            return self.at(fails_at, failed);
        }
        if self.chance(late) {
            let when = now + SECOND + self.random.below(30 * SECOND);
            self.at(when, lands(false));
            return self.at(give_up, failed);
        }
        if self.chance(twice) {
            let when = now + delay + self.random.below(30 * SECOND);
            self.at(when, lands(false));
        }
        let answers = delay < ATTEMPT_MAX && !self.chance(rates.put_answer_lost);
        self.at(now + delay, lands(answers));
        if !answers {
            self.at(give_up, failed);
        }
    }

    /// A request takes effect at the store, whatever has become of who sent it.
    pub(crate) fn on_store(&mut self, slot: usize, life: u64, token: u64, request: Request, answers: bool) {
        let now = self.now;
        let answer = match request {
            Request::Put(key, object) => {
                let known = self.store.ever.entry(key).or_insert_with(|| object.clone());
                if *known != object {
                    return self.fail(format!("{key} was PUT with two contents"));
                }
                self.note(3, || format!("store: {key} lands"));
                self.store.objects.insert(key, object.clone());
                self.store.changed.insert(key, now);
                self.store.follow(key, &object);
                Answer::Done
            }
            Request::Get(key) => match self.store.get(&key) {
                Some(object) => Answer::Got(object.clone()),
                None => Answer::NotFound,
            },
            Request::List(folder) => Answer::Listed(self.list_perhaps_stale(folder)),
            Request::Delete(key) => {
                if let Some(why) = self.needed(&key) {
                    return self.fail(format!("{key} is deleted by {slot} and needed: {why}"));
                }
                self.note(4, || format!("store: {key} deleted"));
                self.store.objects.remove(&key);
                self.store.changed.insert(key, now);
                Answer::Done
            }
        };
        if answers {
            let when = now + MS + self.random.below(3 * MS);
            self.at(when, Event::Process { slot, life, what: Stimulus::Store(token, answer) });
        }
    }

    /// What landed in the last second may be missing.
    fn list_perhaps_stale(&mut self, folder: Folder) -> Vec<Listed> {
        let all = self.store.list(folder);
        if !self.chance(self.rates.list_stale) {
            return all;
        }
        let horizon = self.now.saturating_sub(2 * SECOND);
        let is_old = |listed: &Listed| self.store.changed.get(&listed.key).is_none_or(|at| *at < horizon);
        all.into_iter().filter(is_old).collect()
    }

    /// Why an object must not go.
    fn needed(&self, key: &ObjectKey) -> Option<&'static str> {
        let named = |index: &Index| match *key {
            ObjectKey::Segment { writer, n, attempt } => {
                index.is_quarantined(writer, n)
                    || index
                        .writer(writer)
                        .and_then(|writer| writer.segment(n))
                        .is_some_and(|segment| segment.attempt == attempt)
            }
            ObjectKey::Block { right, attempt } => {
                let aliased = self.store.alias.iter().find(|(_, real)| *real == key).map(|(name, _)| *name);
                let is_named = |key: ObjectKey| match key {
                    ObjectKey::Block { right, attempt } => index.block(&index::BlockId { right, attempt }).is_some(),
                    _ => false,
                };
                is_named(ObjectKey::Block { right, attempt }) || aliased.is_some_and(is_named)
            }
            _ => false,
        };
        if named(&self.log.truth) {
            return Some("the index names it");
        }
        let is_data = matches!(key, ObjectKey::Segment { .. } | ObjectKey::Block { .. });
        if is_data && !self.store.recoverable.as_ref().is_some_and(|stored| index::dead(stored, key)) {
            return Some("it is not dead in what the bucket holds, so a recovery may want it");
        }
        None
    }
}
