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
