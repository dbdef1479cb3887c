//! The index as the bucket holds it: the newest checkpoint, and the changes that follow it.

use bucket::{Bucket, Folder, Listed};
use index::{Changes, Index};
use model::{ObjectKey, Revision};

use crate::error::CompactorError;
use crate::recover::{newest_checkpoint, next_changes};

/// Reads the newest checkpoint and what follows it; `None` if the bucket has no checkpoint.
///
/// A checkpoint or changes that can't be read are an error: there is nothing to fall back to, an older
/// checkpoint names objects that were deleted since.
pub async fn read_stored(bucket: &Bucket) -> Result<Option<Index>, CompactorError> {
    let checkpoints = bucket.list(Folder::Checkpoints).await?;
    let Some(key) = newest_checkpoint(&checkpoints) else { return Ok(None) };
    let bytes = bucket.get(&key).await?;
    let mut index = Index::decode_checkpoint(&bytes).map_err(|source| CompactorError::Checkpoint { key, source })?;
    let all = bucket.list(Folder::Changes).await?;
    while let Some(key) = next_changes(&all, index.revision()) {
        let failed = |source| CompactorError::Changes { key, source };
        let changes = Changes::decode(&bucket.get(&key).await?).map_err(failed)?;
        index.replay(&changes).map_err(failed)?;
    }
    Ok(Some(index))
}

/// Checks, before anything is proposed, that the bucket knows nothing of after `here`.
///
/// Entries are in the bucket only after they are durable in the log, so an index behind the bucket is an old
/// copy of `index/`, or somebody else's. Going on would give its positions out a second time.
pub async fn check_index_is_newest(bucket: &Bucket, here: Revision) -> Result<(), CompactorError> {
    let mut objects = bucket.list(Folder::Checkpoints).await?;
    objects.extend(bucket.list(Folder::Changes).await?);
    for Listed { key, .. } in objects {
        let reaches = match key {
            ObjectKey::Checkpoint(at) => at,
            ObjectKey::Changes { first, last } => Revision { position: last, ..first },
            _ => continue,
        };
        if reaches > here {
            return Err(CompactorError::IndexBehind { found: key, here });
        }
    }
    Ok(())
}
