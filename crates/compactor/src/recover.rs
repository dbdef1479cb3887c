//! Recover: what the bucket holds becomes the index of a new incarnation. A pure function.
//!
//! PROTOCOL.md, "Recovery from the bucket", steps 1 to 3. Whoever calls does step 0 first: writes the new incarnation to
//! `cluster.json` and waits until no process of the old one can ack or delete any more; only then lists. The listing must
//! show every PUT that was answered before it began.
//!
//! The newest checkpoint counts, with the changes that follow it, and nothing else: an older one names objects that
//! were deleted since. So what can't be read is an error, and nothing to step over.

use std::collections::BTreeMap;

use bucket::Listed;
use index::{Changes, ChangesError, Index, SegmentMeta};
use model::{Incarnation, ObjectKey, Revision, SegmentNumber, TimeRange, WriterId};

/// Why the stored index can't be put together.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Changes do not follow what is before them.
    #[error("replay the stored changes")]
    Changes(#[from] ChangesError),
    /// The new incarnation is not new.
    #[error("incarnation {new} is not above the stored index's, {stored}")]
    OldIncarnation {
        /// What was asked for.
        new: Incarnation,
        /// What the bucket holds.
        stored: Incarnation,
    },
}

/// The newest checkpoint in a listing; `None` if there is none.
pub fn newest_checkpoint(listed: &[Listed]) -> Option<ObjectKey> {
    let checkpoints = listed.iter().filter_map(|listed| match listed.key {
        ObjectKey::Checkpoint(at) => Some(at),
        _ => None,
    });
    checkpoints.max().map(ObjectKey::Checkpoint)
}

/// Of the listed changes that follow `at`, those that reach farthest; `None` at the end of what is stored.
pub fn next_changes(listed: &[Listed], at: Revision) -> Option<ObjectKey> {
    let following = listed.iter().filter_map(|listed| match listed.key {
        ObjectKey::Changes { first, last } => {
            let follows =
                first.incarnation == at.incarnation && first.position <= at.position + 1 && at.position < last;
            follows.then_some((last, first))
        }
        _ => None,
    });
    following.max().map(|(last, first)| ObjectKey::Changes { first, last })
}

/// The index of `incarnation`, from the newest checkpoint, the changes that follow it in order, and all segments listed.
///
/// Segments of one (writer, number) under several keys are one: all hold the same bytes. The longest is named, as
/// one that was torn is shorter; whoever reads tries the others too.
pub fn recover(
    incarnation: Incarnation,
    checkpoint: Index,
    changes: &[Changes],
    segments: &[Listed],
) -> Result<Index, RecoverError> {
    let mut stored = checkpoint;
    for changes in changes {
        // What the entries did is not asked: the state says it.
        stored.replay(changes)?;
    }
    if incarnation <= stored.incarnation() {
        return Err(RecoverError::OldIncarnation { new: incarnation, stored: stored.incarnation() });
    }
    let mut found: BTreeMap<WriterId, BTreeMap<SegmentNumber, SegmentMeta>> = BTreeMap::new();
    for listed in segments {
        let ObjectKey::Segment { writer, n, attempt } = listed.key else { continue };
        // Its time is not known before it is read; should it turn out to be unreadable, no query may miss that.
        let segment = SegmentMeta { attempt, bytes: listed.bytes, range: Some(TimeRange::ALL) };
        let known = found.entry(writer).or_default().entry(n).or_insert(segment);
        if (known.bytes, segment.attempt) < (segment.bytes, known.attempt) {
            *known = segment;
        }
    }
    Ok(stored.recovered(incarnation, &found))
}

#[cfg(test)]
mod tests {
    use index::{Command, Entry, Stage};
    use model::NodeId;

    use super::*;

    fn at(incarnation: Incarnation, position: u64) -> Revision {
        Revision { incarnation, position }
    }

    fn segment(writer: u64, n: SegmentNumber, attempt: u32) -> Listed {
        Listed { key: ObjectKey::Segment { writer: WriterId(at(1, writer)), n, attempt }, bytes: 10 }
    }

    fn apply(index: &mut Index, command: Command) {
        index.apply(index.revision().position + 1, &Entry { incarnation: 1, command }).unwrap();
    }

    /// Writer 1 has two segments and writer 2 is closed; position 9 is the last known.
    fn checkpoint() -> Index {
        let mut index = Index::new(7, 1);
        for nonce in [1, 2] {
            apply(&mut index, Command::Register { node: NodeId(nonce), nonce });
        }
        let (one, two) = (WriterId(at(1, 1)), WriterId(at(1, 2)));
        for n in [1, 2] {
            let segment = SegmentMeta { attempt: 0, bytes: 10, range: None };
            apply(&mut index, Command::AddSegment { writer: one, n, segment });
        }
        apply(&mut index, Command::Fence { writer: two });
        apply(&mut index, Command::GrantAdopt { writer: two, node: NodeId(1), number: 1 });
        let lease = model::Lease { incarnation: 1, number: 1 };
        apply(&mut index, Command::Close { writer: two, lease });
        index.advance(9);
        index
    }

    #[test]
    fn unbroken_runs_are_taken_in_and_closed_writers_stay_closed() {
        let listed = [
            segment(1, 2, 0),
            segment(1, 3, 1),
            segment(1, 5, 0),
            // Closed, and one that the checkpoint can't know.
            segment(2, 1, 0),
            segment(20, 1, 0),
            segment(20, 2, 0),
            // Registered, but its first segment never landed.
            segment(30, 2, 0),
        ];
        let index = recover(2, checkpoint(), &[], &listed).unwrap();
        let writers: Vec<_> = index.writers().map(|(id, writer)| (id.0.position, writer.cut, writer.added)).collect();
        assert_eq!(writers, [(1, 0, 3), (20, 0, 2)]);
        assert!(index.writers().all(|(_, writer)| writer.stage == Stage::Fenced && writer.adopter.is_none()));
        assert_eq!(index.revision(), at(2, 0));
        assert_eq!(index.writer(WriterId(at(1, 1))).unwrap().segment(3).unwrap().attempt, 1);
        let again = Index::decode_checkpoint(&index.encode_checkpoint()).unwrap();
        assert_eq!(again, index);
    }

    #[test]
    fn what_is_found_behind_a_quarantined_segment_is_quarantined_too() {
        let mut index = checkpoint();
        let writer = WriterId(at(1, 1));
        apply(&mut index, Command::Fence { writer });
        apply(&mut index, Command::GrantAdopt { writer, node: NodeId(1), number: 1 });
        let lease = model::Lease { incarnation: 1, number: 1 };
        apply(&mut index, Command::Quarantine { writer, from: 2, upto: 2, lease });
        let index = recover(2, index, &[], &[segment(1, 3, 0), segment(1, 4, 0)]).unwrap();
        let aside: Vec<_> = (1..=4).filter(|n| index.is_quarantined(writer, *n)).collect();
        assert_eq!((index.writer(writer).unwrap().added, aside), (4, vec![2, 3, 4]));
    }

    #[test]
    fn changes_that_reach_farthest_follow() {
        let changes = |first, last| Listed { key: ObjectKey::Changes { first: at(1, first), last }, bytes: 1 };
        let listed = [changes(1, 4), changes(3, 9), changes(5, 7), changes(11, 12)];
        assert_eq!(next_changes(&listed, at(1, 4)), Some(listed[1].key));
        assert_eq!(next_changes(&listed, at(1, 9)), None, "10 is missing");
        assert_eq!(next_changes(&listed, at(2, 4)), None, "of another life");
    }

    #[test]
    fn an_incarnation_is_not_begun_twice() {
        assert!(matches!(recover(1, checkpoint(), &[], &[]), Err(RecoverError::OldIncarnation { .. })));
    }
}
