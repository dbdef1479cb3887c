//! Opens the index: whose bucket this is, and the log that says what is in it.
//!
//! The bucket's `cluster.json` and the log must name the same cluster and incarnation. A bucket that holds
//! data and has no log beside it is not taken over: the log was lost or `--data` points at the wrong place, and
//! starting over would make everything in the bucket dead.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bucket::{Bucket, Cluster, Folder};
use consensus::{Group, Machine, StandingRefused, Start};
use index::{Applied, Entry, Index, Refused};
use model::NodeId;
use runtime::Random;

/// The index as consensus keeps it.
pub type IndexGroup = Group<Index, Entry, Result<Applied, Refused>>;

/// The state machine behind it; neither crate knows the other.
const MACHINE: Machine<Index, Entry, Result<Applied, Refused>> = Machine {
    apply: |index, position, entry| index.apply(position, entry),
    advance: Index::advance,
    encode: Entry::encode,
    decode: |bytes| Ok(Entry::decode(bytes)?),
    snapshot: Index::encode_checkpoint,
    restore: |bytes| Ok(Index::decode_checkpoint(bytes)?),
    hash: Index::state_hash,
};

/// What opening the index came to.
pub enum Opened {
    /// The index is here, and the bucket's.
    Whole(IndexGroup),
    /// There is none here yet: another node has it, or this one begins it with others. Its state means nothing.
    Joining(IndexGroup),
}

/// Opens the index's log in `folder`. Without one it begins it if the bucket is new, or, if it `joins` others, waits for theirs.
pub async fn open(
    folder: &Path,
    bucket: &Bucket,
    random: &Random,
    parts: consensus::Parts,
    joins: bool,
) -> Result<Opened> {
    let exists = IndexGroup::exists(&*parts.files, folder);
    if exists || joins {
        let start = if exists { Start::Existing } else { Start::Join(Index::new(0, 0)) };
        let group = open_group(folder, start, parts).await?;
        if group.read(|index| index.cluster()) == 0 {
            return Ok(Opened::Joining(group));
        }
        check_bucket(&group, bucket, cluster(bucket, random, folder, true).await?).await?;
        check_standing(&group, bucket).await?;
        return Ok(Opened::Whole(group));
    }
    let cluster = cluster(bucket, random, folder, false).await?;
    let group = begin(folder, cluster, parts).await?;
    check_bucket(&group, bucket, cluster).await?;
    Ok(Opened::Whole(group))
}

/// Begins the index of a cluster that has none: this node is its one voter.
pub async fn begin(folder: &Path, cluster: Cluster, parts: consensus::Parts) -> Result<IndexGroup> {
    begin_with(folder, Index::new(cluster.id, cluster.incarnation), parts).await
}

/// The same with an index that was recovered.
pub async fn begin_with(folder: &Path, index: Index, parts: consensus::Parts) -> Result<IndexGroup> {
    open_group(folder, Start::Bootstrap(index), parts).await
}

async fn open_group(folder: &Path, start: Start<Index>, parts: consensus::Parts) -> Result<IndexGroup> {
    let path = folder.to_path_buf();
    let opened =
        runtime::blocking(move || IndexGroup::open(&path, MACHINE, start, consensus::Settings::default(), parts));
    opened.await.with_context(|| format!("open the index in {}", folder.display()))
}

/// Errors if the index and the bucket are not of one cluster, or the bucket knows more than a lonely index.
async fn check_bucket(group: &IndexGroup, bucket: &Bucket, cluster: Cluster) -> Result<()> {
    let log = cluster_of(group);
    if log != cluster {
        bail!(
            "the index in {} is of cluster {log}, the bucket in {} of cluster {cluster}: they do not belong together. \
             Start with the --data folder whole as it was (other-cluster)",
            group.folder().display(),
            bucket.place(),
        );
    }
    // One replica of several, or one that only follows, may be behind what the others have stored.
    if group.members().voters == [group.identity().id] {
        compactor::check_index_is_newest(bucket, group.read(|index| index.revision())).await?;
    }
    Ok(())
}

/// Errors if the replica had more when its node last looked at the bucket: its disk was set back, and it must not vote.
async fn check_standing(group: &IndexGroup, bucket: &Bucket) -> Result<()> {
    let own = group.standing();
    let Some(noted) = bucket.replica(NodeId(own.id)).await? else { return Ok(()) };
    let checks = [
        // This start is one more.
        ("boot", own.boots.saturating_sub(1), noted.boots),
        ("term", own.term, noted.term),
        ("last position", own.last_index, noted.applied),
    ];
    match checks.into_iter().find(|(_, told, seen)| told < seen) {
        Some((what, told, seen)) => Err(StandingRefused { id: own.id, what, told, seen }.into()),
        None => Ok(()),
    }
}

/// The cluster that an index is of.
pub fn cluster_of(group: &IndexGroup) -> Cluster {
    let (id, incarnation) = group.read(|index| (index.cluster(), index.incarnation()));
    Cluster { id, incarnation }
}

/// The cluster that the bucket belongs to; a new one if the bucket is empty.
async fn cluster(bucket: &Bucket, random: &Random, folder: &Path, exists: bool) -> Result<Cluster> {
    match bucket.cluster().await? {
        None if exists => bail!(
            "there is an index in {}, but the bucket in {} has no cluster.json: the bucket was emptied or moved. \
             Put it back, or start with an empty --data folder (bucket-gone)",
            folder.display(),
            bucket.place(),
        ),
        None => Ok(bucket.bootstrap(random).await?),
        Some(cluster) if exists => Ok(cluster),
        // A process that was killed between making the cluster and beginning the log leaves this.
        Some(cluster) if holds_nothing(bucket).await? => Ok(cluster),
        Some(cluster) => bail!(
            "the bucket in {} holds the data of cluster {cluster}, but there is no index in {}: it was lost or moved. \
             Put it back, or rebuild it with bellrock recover; the data stays untouched until then (index-gone)",
            bucket.place(),
            folder.display(),
        ),
    }
}

async fn holds_nothing(bucket: &Bucket) -> Result<bool> {
    for folder in [Folder::Segments, Folder::Blocks, Folder::Checkpoints, Folder::Changes] {
        if !bucket.list(folder).await?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use index::{Command, NodeId};
    use runtime::{Registry, SystemClock};

    struct Data {
        dir: tempfile::TempDir,
    }

    impl Data {
        async fn bucket(&self) -> Bucket {
            Bucket::open(&self.dir.path().join("bucket"), SystemClock::shared(), &Registry::new()).await.unwrap()
        }

        async fn open(&self) -> Result<IndexGroup> {
            let (folder, bucket) = (self.dir.path().join("index"), self.bucket().await);
            std::fs::create_dir_all(&folder).unwrap();
            let random = Random::from_seed(1);
            let parts = consensus::Parts::system(SystemClock::shared(), random.clone(), Registry::new());
            match open(&folder, &bucket, &random, parts, false).await? {
                Opened::Whole(group) => Ok(group),
                Opened::Joining(_) => panic!("nobody to join"),
            }
        }

        async fn refused(&self) -> String {
            self.open().await.err().map(|error| format!("{error:#}")).unwrap_or_default()
        }
    }

    async fn register(index: &IndexGroup) {
        let command = Command::Register { node: NodeId(1), nonce: 1 };
        index.propose(Entry { incarnation: 1, command }).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_index_is_begun_once_and_found_again() {
        let data = Data { dir: tempfile::tempdir().unwrap() };
        let index = data.open().await.unwrap();
        register(&index).await;
        let mut before = index.read(Index::clone);
        index.close().await;
        let again = data.open().await.unwrap();
        // All that came to it is the position at which the leader began.
        let revision = again.read(|index| index.revision());
        assert_eq!(revision.position, before.revision().position + 1);
        before.advance(revision.position);
        assert_eq!(again.read(|index| index.state_hash()), before.state_hash());
    }

    #[tokio::test]
    async fn a_start_that_was_killed_before_the_log_began_is_taken_up() {
        let data = Data { dir: tempfile::tempdir().unwrap() };
        let cluster = data.bucket().await.bootstrap(&Random::from_seed(2)).await.unwrap();
        let index = data.open().await.unwrap();
        assert_eq!(index.read(|index| index.cluster()), cluster.id);
    }

    #[tokio::test]
    async fn an_old_copy_of_the_log_is_refused() {
        let data = Data { dir: tempfile::tempdir().unwrap() };
        let index = data.open().await.unwrap();
        let first = index.standing();
        let applied = index.read(|index| index.revision().position);
        index.close().await;
        let bucket = data.bucket().await;
        let note = |boots: u64, term: u64, applied: u64| bucket::ReplicaNote::new(boots, term, applied);
        for (ahead, what) in [
            (note(first.boots + 9, first.term, applied), "boot"),
            (note(first.boots, first.term + 9, applied), "term"),
            (note(first.boots, first.term, applied + 900), "last position"),
        ] {
            bucket.note_replica(model::NodeId(first.id), &ahead).await.unwrap();
            let refused = data.refused().await;
            assert!(refused.contains("(replica-went-back)") && refused.contains(what), "{what}: {refused}");
        }
        bucket.note_replica(model::NodeId(first.id), &note(first.boots, first.term, applied)).await.unwrap();
        data.open().await.unwrap().close().await;
    }

    #[tokio::test]
    async fn parts_that_do_not_belong_together_are_refused_untouched() {
        let data = Data { dir: tempfile::tempdir().unwrap() };
        register(&data.open().await.unwrap()).await;
        let bucket = data.dir.path().join("bucket");

        std::fs::rename(&bucket, data.dir.path().join("elsewhere")).unwrap();
        assert!(data.refused().await.contains("(bucket-gone)"));
        std::fs::remove_dir_all(&bucket).unwrap();
        data.bucket().await.bootstrap(&Random::from_seed(3)).await.unwrap();
        assert!(data.refused().await.contains("(other-cluster)"));
        std::fs::remove_dir_all(&bucket).unwrap();
        std::fs::rename(data.dir.path().join("elsewhere"), &bucket).unwrap();
        data.open().await.unwrap();

        let key = model::ObjectKey::Segment { writer: model::WriterId(model::Revision::default()), n: 1, attempt: 0 };
        data.bucket().await.put(&key, "x".into()).await.unwrap();
        std::fs::remove_dir_all(data.dir.path().join("index")).unwrap();
        assert!(data.refused().await.contains("(index-gone)"));
    }
}
