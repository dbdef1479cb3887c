//! `bellrock recover`: rebuilds the index from the bucket, for a cluster that has lost the disks of most of its voters.
//!
//! PROTOCOL.md, "Recovery from the bucket": a new incarnation first, then a wait, so that no process of the old one acks
//! or deletes any more, then the newest checkpoint, its changes, and every unclosed writer's unbroken run of segments. What
//! comes of it is an index of one voter in `--data`, that `bellrock serve` goes on with; other nodes join it with empty disks.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bucket::{Bucket, Folder, Location};
use index::Index;
use runtime::{DataDir, Random, Registry, SystemClock};

use crate::index_log::{self, IndexGroup};
use crate::logging::chain;
use crate::settings::sources::Surroundings;
use crate::settings::{Loaded, Settings};

/// Recovers; the exit code is 1 if nothing came of it.
#[allow(clippy::print_stderr, reason = "a program for a terminal")]
pub fn run(loaded: Loaded, _: Surroundings) -> ExitCode {
    match recover(&loaded.settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the index cannot be recovered: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn recover(settings: &Settings) -> Result<()> {
    let data = DataDir::open(&settings.data)?;
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start threads")?;
    executor.block_on(recover_into(settings, &data))
}

#[allow(clippy::print_stdout, reason = "a program for a terminal")]
async fn recover_into(settings: &Settings, data: &DataDir) -> Result<()> {
    let (clock, random, registry) = (SystemClock::shared(), Random::from_system()?, Registry::new());
    let folder = data.folder("index")?;
    let parts = consensus::Parts::system(clock.clone(), random, registry.clone());
    if IndexGroup::exists(&*parts.files, &folder) {
        bail!(
            "there is an index in {}: start with that, or, if it is of no use any more, move it away first (index-there)",
            folder.display()
        );
    }
    let location = match &settings.bucket {
        Some(location) => location.clone(),
        None => Location::Own(data.folder("bucket")?),
    };
    let bucket = Bucket::open(location, clock.clone(), &registry).await?;
    bucket.finish_move(&data.path().join("bucket")).await?;
    let Some(before) = bucket.cluster().await? else {
        bail!("the bucket in {} has no cluster.json: there is nothing to recover (no-cluster)", bucket.place());
    };
    let now = bucket.begin_incarnation(&before).await?;
    println!("cluster {now}: recovering from {}", bucket.place());
    println!(
        "waiting {:?}, until every process of incarnation {} has seen that it is over",
        settings.recover_wait, before.incarnation
    );
    clock.sleep(settings.recover_wait).await;

    let stored = compactor::read_stored(&bucket).await?;
    let stored = stored.unwrap_or_else(|| Index::new(before.id, before.incarnation));
    if stored.cluster() != before.id {
        bail!(
            "the checkpoint in the bucket is of cluster {:032x}, cluster.json of {before} (other-cluster)",
            stored.cluster()
        );
    }
    let (revision, segments) = (stored.revision(), bucket.list(Folder::Segments).await?);
    let index = compactor::recover::recover(now.incarnation, stored, &[], &segments)?;
    let counts = index.counts();
    let group = index_log::begin_with(&folder, index, parts).await?;
    group.close().await;
    println!(
        "recovered from revision {revision}: {} blocks, {} segments of {} writers that are to be adopted",
        counts.blocks, counts.segments, counts.writers_fenced,
    );
    println!("start bellrock serve on this --data; other nodes join it with an empty index/");
    Ok(())
}
