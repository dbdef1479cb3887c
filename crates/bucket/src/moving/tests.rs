//! A move that is killed, hindered or hurried at every point: what was answered is in the place that is in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::{Lease, Revision, Right, WriterId};
use runtime::{Registry, SystemClock};

use super::*;
use crate::faults::{Effect, Fault};
use crate::{BucketError, Operation};

fn segment(n: u64) -> ObjectKey {
    ObjectKey::Segment { writer: WriterId(Revision { incarnation: 1, position: 7 }), n, attempt: 0 }
}

fn object(i: u64) -> ObjectKey {
    let at = Revision { incarnation: 1, position: i };
    match i % 4 {
        0 => segment(i),
        1 => ObjectKey::Block { right: Right::Compactor(Lease { incarnation: 1, number: i }), attempt: 0 },
        2 => ObjectKey::Checkpoint(at),
        _ => ObjectKey::Changes { first: at, last: i + 1 },
    }
}

fn content(i: u64) -> Bytes {
    vec![i as u8; (i * 37 % 5_000) as usize].into()
}

/// A bucket in a directory, with objects, and another directory for it to move to.
struct World {
    dir: tempfile::TempDir,
    bucket: Bucket,
    cluster: Cluster,
    /// All that was answered and not deleted.
    answered: BTreeMap<ObjectKey, Bytes>,
    next: u64,
}

impl World {
    async fn new(objects: u64) -> World {
        let dir = tempfile::tempdir().unwrap();
        let bucket = open(&dir.path().join("old")).await.unwrap();
        let cluster = bucket.bootstrap(&Random::from_seed(3)).await.unwrap();
        let mut world = World { dir, bucket, cluster, answered: BTreeMap::new(), next: 0 };
        for _ in 0..objects {
            world.put().await.unwrap();
        }
        world
    }

    fn old(&self) -> PathBuf {
        self.dir.path().join("old")
    }

    fn new_place(&self) -> PathBuf {
        self.dir.path().join("new")
    }

    async fn begin(&self) -> Move {
        let target = Location::Shared(self.new_place());
        Move::new(&self.bucket, target, self.cluster, &Random::from_system().unwrap()).await.unwrap()
    }

    async fn put(&mut self) -> Result<(), BucketError> {
        let i = self.next;
        self.next += 1;
        // Both ways in which objects are put.
        match i % 2 {
            0 => self.bucket.put_attempt(&object(i), content(i)).await?,
            _ => self.bucket.put(&object(i), content(i)).await?,
        }
        self.answered.insert(object(i), content(i));
        Ok(())
    }

    async fn delete_one(&mut self) {
        let (key, _) = self.answered.pop_first().unwrap();
        self.bucket.delete(&key).await.unwrap();
    }

    /// Everything that was answered is in a bucket, and nothing that was deleted.
    async fn is_whole_in(&self, bucket: &Bucket) {
        for (key, bytes) in &self.answered {
            assert_eq!(bucket.get(key).await.unwrap(), bytes, "{key}");
        }
        let mut listed = Vec::new();
        for folder in FOLDERS {
            listed.extend(bucket.list(folder).await.unwrap().into_iter().map(|listed| listed.key));
        }
        listed.sort_unstable();
        assert_eq!(listed, self.answered.keys().copied().collect::<Vec<_>>());
        assert_eq!(bucket.cluster().await.unwrap(), Some(self.cluster));
    }
}

async fn open(folder: &Path) -> Result<Bucket, BucketError> {
    Bucket::open(Location::Shared(folder.to_owned()), SystemClock::shared(), &Registry::new()).await
}

async fn finish(moving: &mut Move) {
    while moving.step().await.unwrap() != Step::Done {}
}

fn always(operation: Operation, effect: Effect) -> Fault {
    Fault { operation, concerns: |_| true, times: u32::MAX, effect }
}

#[tokio::test]
async fn killed_after_any_step_the_place_in_force_has_everything() {
    for killed_after in 0..=8 {
        let mut world = World::new(40).await;
        let mut moving = world.begin().await;
        let mut next = Step::Look;
        for _ in 0..killed_after {
            next = moving.step().await.unwrap();
            world.put().await.unwrap();
            world.delete_one().await;
        }
        // The process is gone, and with it all that it knew.
        drop(moving);
        let is_decided = next > Step::Decide;
        match open(&world.old()).await {
            Ok(bucket) => {
                assert!(!is_decided, "killed before {next:?}");
                world.bucket = bucket;
                if next > Step::Mark {
                    let refused = open(&world.new_place()).await.unwrap().cluster().await.unwrap_err();
                    assert!(refused.to_string().contains("(bucket-moving)"), "{refused}");
                }
                world.is_whole_in(&world.bucket).await;
                // It goes on alone, and then the move is tried again.
                world.put().await.unwrap();
                world.delete_one().await;
                let again = &mut world.begin().await;
                finish(again).await;
                world.put().await.unwrap();
            }
            Err(error) => {
                assert!(is_decided && error.to_string().contains("(bucket-moved)"), "before {next:?}: {error}");
            }
        }
        let new = open(&world.new_place()).await.unwrap();
        let was_missing = new.finish_move(&world.old()).await.unwrap();
        assert_eq!(was_missing, next == Step::Finish, "killed before {next:?}");
        assert!(!new.finish_move(&world.old()).await.unwrap());
        // What an earlier attempt had copied and was deleted since is dead, and left for the collector.
        for key in leftovers(&world, &new).await {
            new.delete(&key).await.unwrap();
        }
        world.is_whole_in(&new).await;
    }
}

async fn leftovers(world: &World, bucket: &Bucket) -> Vec<ObjectKey> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        found.extend(bucket.list(folder).await.unwrap().into_iter().map(|listed| listed.key));
    }
    found.retain(|key| !world.answered.contains_key(key));
    found
}

#[tokio::test]
async fn a_move_under_load_misses_nothing_and_clones_follow() {
    let mut world = World::new(200).await;
    let clone = world.bucket.with_patience(std::time::Duration::ZERO);
    let mut moving = world.begin().await;
    let work = async {
        for _ in 0..300 {
            world.put().await.unwrap();
            world.delete_one().await;
        }
        world
    };
    let ((), world) = futures::join!(finish(&mut moving), work);
    assert_eq!(clone.place(), moving.target());
    world.is_whole_in(&clone).await;
    let progress = *moving.progress().borrow();
    assert!(progress.objects >= 100 && progress.objects <= progress.objects_total, "{progress:?}");
}

#[tokio::test]
async fn a_target_that_fails_costs_the_move_and_no_write() {
    for step in [Step::Copy, Step::Decide] {
        let mut world = World::new(20).await;
        let mut moving = world.begin().await;
        while moving.step().await.unwrap() != step {}
        moving.target_faults().plant(always(Operation::Put, Effect::Fail));
        // Answered, as it is in the old place, and that is in force alone.
        world.put().await.unwrap();
        let error = moving.step().await.unwrap_err().to_string();
        assert!(error.contains("(bucket-move-given-up)") && error.contains("planted"), "{error}");
        moving.target_faults().clear();
        world.put().await.unwrap();
        drop(moving);
        let reopened = open(&world.old()).await.unwrap();
        world.is_whole_in(&reopened).await;
    }
}

#[tokio::test]
async fn a_copy_that_fails_gives_the_move_up() {
    let mut world = World::new(20).await;
    let mut moving = world.begin().await;
    while moving.step().await.unwrap() != Step::Copy {}
    moving.target_faults().plant(always(Operation::Get, Effect::Fail));
    let error = moving.step().await.unwrap_err().to_string();
    assert!(error.contains("(bucket-move-given-up)"), "{error}");
    world.put().await.unwrap();
    assert_eq!(world.bucket.places().whole().folder(), Some(&*world.old().canonicalize().unwrap()));
    moving.target_faults().clear();
    let after = moving.to.length(&object(world.next - 1)).await;
    assert_eq!(after.unwrap(), None, "nothing goes to the target any more");
}

#[tokio::test]
async fn once_decided_what_is_not_in_the_new_place_is_not_stored() {
    let mut world = World::new(20).await;
    let mut moving = world.begin().await;
    while moving.step().await.unwrap() != Step::Finish {}
    moving.target_faults().plant(always(Operation::Put, Effect::Fail));
    assert!(world.put().await.is_err());
    let error = moving.step().await.unwrap_err();
    assert!(matches!(error, MoveError::Unfinished { .. }) && moving.is_decided(), "{error}");
    moving.target_faults().clear();
    world.put().await.unwrap();
    assert_eq!(moving.step().await.unwrap(), Step::Done);
    world.put().await.unwrap();
    // The refused one is left in the old place at most.
    let new = open(&world.new_place()).await.unwrap();
    world.is_whole_in(&new).await;
}

#[tokio::test]
async fn a_note_that_cant_be_written_gives_the_move_up() {
    let mut world = World::new(5).await;
    std::fs::create_dir(world.old().join("moved.json.tmp")).unwrap();
    let mut moving = world.begin().await;
    while moving.step().await.unwrap() != Step::Decide {}
    let error = moving.step().await.unwrap_err().to_string();
    assert!(error.contains("moved.json is not written"), "{error}");
    world.put().await.unwrap();
    assert_eq!(moving.to.length(&object(world.next - 1)).await.unwrap(), None);
    world.is_whole_in(&open(&world.old()).await.unwrap()).await;
}

#[tokio::test]
async fn copies_are_compared_byte_by_byte() {
    let world = World::new(20).await;
    // The first attempt copies; later ones find what is there, and look at it.
    for (times, is_whole) in [(0, true), (1, true), (u32::MAX, false)] {
        let mut moving = world.begin().await;
        while moving.step().await.unwrap() != Step::Copy {}
        let concerns = |key: &ObjectKey| *key == object(5);
        moving.target_faults().plant(Fault { operation: Operation::Get, concerns, times, effect: Effect::FlipBit });
        match moving.step().await {
            // What came back damaged was put again.
            Ok(next) => assert!(is_whole && next == Step::Copy),
            Err(error) => assert!(!is_whole && error.to_string().contains("other bytes"), "{error}"),
        }
    }
}

#[tokio::test]
async fn what_is_deleted_while_it_is_copied_stays_deleted() {
    let world = World::new(1).await;
    let mut moving = world.begin().await;
    while moving.step().await.unwrap() != Step::Copy {}
    for n in 100..300 {
        let key = segment(n);
        // As if it had been there before: in the old place alone.
        moving.from.put(&key, vec![content(n)]).await.unwrap();
        let delete = async {
            for _ in 0..n % 20 {
                tokio::task::yield_now().await;
            }
            world.bucket.delete(&key).await
        };
        let (copied, deleted) = futures::join!(moving.copy(&key), delete);
        copied.unwrap();
        deleted.unwrap();
        assert_eq!(
            (moving.from.length(&key).await.unwrap(), moving.to.length(&key).await.unwrap()),
            (None, None),
            "{n}"
        );
    }
}

#[tokio::test]
async fn a_place_that_is_somebodys_is_refused_untouched() {
    let world = World::new(5).await;
    let other = open(&world.new_place()).await.unwrap();
    let found = other.bootstrap(&Random::from_seed(9)).await.unwrap();
    let error = world.begin().await.step().await.unwrap_err().to_string();
    assert!(error.contains("(bucket-taken)") && error.contains(&found.to_string()), "{error}");
    assert_eq!(other.cluster().await.unwrap(), Some(found));

    std::fs::remove_file(world.new_place().join("cluster.json")).unwrap();
    std::fs::write(world.new_place().join("photo.jpg"), "x").unwrap();
    let error = world.begin().await.step().await.unwrap_err();
    assert!(format!("{error}").contains("(bucket-not-empty)"), "{error}");

    // Onto itself.
    let target = Location::Shared(world.old());
    let onto_itself = Move::new(&world.bucket, target, world.cluster, &Random::from_seed(1)).await;
    assert!(onto_itself.unwrap().step().await.unwrap_err().to_string().contains("(bucket-taken)"));
}

#[test]
fn listings_are_compared() {
    let listed = |i: u64, bytes| Listed { key: segment(i), bytes };
    let old = [listed(1, 10), listed(2, 20), listed(3, 30)];
    let compared = HashSet::from([segment(1), segment(2)]);
    let first = compare(&old, &old, None);
    assert_eq!(first, Round { copy: old.to_vec(), is_whole: false }, "an earlier attempt's copies are looked at");
    assert_eq!(compare(&old, &old, Some(&compared)), Round { copy: vec![], is_whole: true });
    // On its way to both places.
    assert_eq!(compare(&old, &old[..2], Some(&compared)), Round { copy: vec![old[2]], is_whole: true });
    // Forgotten, or of another length.
    for new in [vec![listed(2, 20), listed(3, 30)], vec![listed(1, 9), listed(2, 20), listed(3, 30)]] {
        assert_eq!(compare(&old, &new, Some(&compared)), Round { copy: vec![old[0]], is_whole: false });
    }
    // Deleted in the meantime.
    assert_eq!(compare(&old[1..], &old, Some(&compared)), Round { copy: vec![], is_whole: true });
}
