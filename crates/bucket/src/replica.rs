//! `replicas/<node>.json`: what a replica of the index had when its node last looked at the bucket.
//!
//! The other replicas know it only as long as their processes live. This survives them, so that an old copy of a disk is
//! found out also when everybody was restarted since. A later PUT takes the place of an earlier one; should one arrive late,
//! less is found out, and nothing else. Bytes: docs/formats/replica.md.

use model::{NodeId, ObjectKey};
use serde::{Deserialize, Serialize};

use crate::error::{BucketError, ErrorKind};
use crate::store::Bucket;

/// What a replica had, durably: it can't have less unless its disk was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaNote {
    version: u32,
    /// Starts of a process on its log.
    pub boots: u64,
    /// Its term.
    pub term: u64,
    /// The position that it had applied.
    pub applied: u64,
}

const VERSION: u32 = 1;

impl ReplicaNote {
    /// What a replica has.
    pub fn new(boots: u64, term: u64, applied: u64) -> ReplicaNote {
        ReplicaNote { version: VERSION, boots, term, applied }
    }

    fn decode(text: &[u8], key: &ObjectKey) -> Result<ReplicaNote, BucketError> {
        let corrupt = |reason: String| BucketError::ReplicaFile { path: key.to_string(), reason };
        let note: ReplicaNote = serde_json::from_slice(text).map_err(|error| corrupt(error.to_string()))?;
        if note.version != VERSION {
            return Err(corrupt(format!("version {}, this program knows version {VERSION}", note.version)));
        }
        Ok(note)
    }
}

impl Bucket {
    /// Notes what a node's replica has.
    pub async fn note_replica(&self, node: NodeId, note: &ReplicaNote) -> Result<(), BucketError> {
        let mut text = serde_json::to_vec(note).expect("numbers can be written");
        text.push(b'\n');
        self.put(&ObjectKey::Replica(node), text.into()).await
    }

    /// What was noted last of a node's replica; `None` if nothing was.
    pub async fn replica(&self, node: NodeId) -> Result<Option<ReplicaNote>, BucketError> {
        let key = ObjectKey::Replica(node);
        match self.get(&key).await {
            Ok(text) => ReplicaNote::decode(&text, &key).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::{Registry, SystemClock};

    #[tokio::test]
    async fn the_last_note_is_read_back_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(dir.path(), SystemClock::shared(), &Registry::new()).await.unwrap();
        let node = NodeId(0xab);
        assert_eq!(bucket.replica(node).await.unwrap(), None);
        for note in [ReplicaNote::new(1, 2, 3), ReplicaNote::new(2, 2, u64::MAX)] {
            bucket.note_replica(node, &note).await.unwrap();
            assert_eq!(bucket.replica(node).await.unwrap(), Some(note));
        }
        for text in ["", "{}", r#"{"version":2,"boots":1,"term":1,"applied":1}"#] {
            bucket.put(&ObjectKey::Replica(node), text.into()).await.unwrap();
            assert_eq!(bucket.replica(node).await.unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
        }
    }
}
