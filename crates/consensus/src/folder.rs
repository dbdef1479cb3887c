//! A replica's folder: begun, read, and kept clean.
//!
//! It holds `identity`, one snapshot and one log; a moment longer, what these replaced. Reading changes nothing:
//! whatever is found to be wrong is reported with every byte still in its place.

use std::mem;
use std::path::{Path, PathBuf};

use raft::eraftpb::{ConfState, HardState, SnapshotMetadata};
use runtime::Random;

use crate::error::OpenError;
use crate::files::Files;
use crate::identity::{NAME, read_identity, write_identity};
use crate::log::{Contents, Log, log_name, parse_log_name, read_log};
use crate::mem_log::MemLog;
use crate::snapshot::{parse_snapshot_name, read_snapshot, snapshot_name, write_snapshot};

/// What a folder holds.
pub struct Stored {
    pub id: u64,
    pub meta: SnapshotMetadata,
    pub state: Vec<u8>,
    /// What the log holds beyond and around the snapshot.
    pub log: MemLog,
    /// The rest of what it holds; its entries are in `log`.
    contents: Contents,
    /// The log on disk does not lead up to the snapshot: it is begun anew after it.
    is_log_passed: bool,
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError + use<> {
    let path = path.to_path_buf();
    move |source| OpenError::Io { what, path, source }
}

/// Whether there is a replica in `folder`, of this version or another.
pub fn exists(files: &dyn Files, folder: &Path) -> bool {
    let names = files.names(folder).unwrap_or_default();
    // Without the identity, files of this version are what a start was killed over.
    let is_old = |name: &String| {
        let is_ours = parse_log_name(name).is_some() || parse_snapshot_name(name).is_some();
        is_ours && files.read(&folder.join(name)).is_ok_and(|bytes| bytes.get(4..8) == Some(&[1, 0, 0, 0]))
    };
    names.iter().any(|name| name == NAME) || names.iter().any(is_old)
}

/// Begins a replica: a snapshot, a log after it, and an id. Any leftovers go.
pub fn begin(
    files: &dyn Files,
    folder: &Path,
    random: &Random,
    state: &[u8],
    bootstrap: bool,
) -> Result<(), OpenError> {
    files.create_folder(folder).map_err(io("create", folder))?;
    for name in files.names(folder).map_err(io("list", folder))? {
        if parse_log_name(&name).is_some() || parse_snapshot_name(&name).is_some() {
            files.remove(&folder.join(&name)).map_err(io("clean", folder))?;
        }
    }
    // 0 means nobody in raft.
    let id = random.u64().max(1);
    let meta = first_meta(bootstrap.then_some(id));
    write_snapshot(files, folder, &meta, state).map_err(io("begin", folder))?;
    let hard_state = HardState { term: meta.term, commit: meta.index, ..HardState::default() };
    Log::create(files, folder, 1, 0, (meta.index, meta.term), &hard_state, &[])
        .map_err(io("begin a log in", folder))?;
    write_identity(files, folder, id).map_err(io("begin", folder))
}

/// Of the snapshot that a folder begins with: a group of one at position 1, or nobody at 0.
///
/// A group never begins at 0: whoever joins it later would be sent the log from its first entry on, and could make
/// nothing of a change of members that it has not got.
fn first_meta(voter: Option<u64>) -> SnapshotMetadata {
    let mut meta = SnapshotMetadata::default();
    if let Some(id) = voter {
        (meta.index, meta.term) = (1, 1);
        meta.set_conf_state(ConfState { voters: vec![id], ..ConfState::default() });
    }
    meta
}

/// Makes a replica that joined, and has heard nothing, a group of one. Its id stays.
pub fn bootstrap_joined(files: &dyn Files, folder: &Path, state: &[u8]) -> Result<(), OpenError> {
    let stored = read(files, folder)?;
    if stored.meta.index > 0 || stored.contents.hard_state.term > 0 || !stored.log.entries.is_empty() {
        return Err(OpenError::Start { folder: folder.to_path_buf(), what: "there is an index in it already" });
    }
    // A snapshot that the log does not lead up to is taken as it is: this is the whole of it.
    write_snapshot(files, folder, &first_meta(Some(stored.id)), state).map_err(io("begin", folder))
}

/// Reads everything. Errors: `Corrupt` when something is gone that was acked.
pub fn read(files: &dyn Files, folder: &Path) -> Result<Stored, OpenError> {
    let corrupt = |path: &Path, what: &str| OpenError::Corrupt { path: path.into(), offset: 0, what: what.to_owned() };
    let names = files.names(folder).map_err(io("list", folder))?;
    let Some(position) = names.iter().filter_map(|name| parse_snapshot_name(name)).max() else {
        return Err(corrupt(folder, "it holds no snapshot to apply the log to"));
    };
    let path = folder.join(snapshot_name(position));
    let bytes = files.read(&path).map_err(io("read", &path))?;
    let (meta, state) = read_snapshot(&path, &bytes, position)?;
    let state = state.to_vec();

    let mut numbers: Vec<u64> = names.iter().filter_map(|name| parse_log_name(name)).collect();
    numbers.sort_unstable();
    let mut found = None;
    for number in numbers.into_iter().rev() {
        let path = folder.join(log_name(number));
        let bytes = files.read(&path).map_err(io("read", &path))?;
        if let Some(contents) = read_log(&path, &bytes, number)? {
            found = Some((path, contents));
            break;
        }
    }
    let Some((path, mut contents)) = found else {
        return Err(corrupt(folder, "it holds no whole log beside its snapshot"));
    };
    let id = read_identity(files, folder)?;

    let (index, term) = (meta.index, meta.term);
    if contents.base.0 > index {
        return Err(corrupt(
            &path,
            &format!("it begins after position {}, and the snapshot is at {index}", contents.base.0),
        ));
    }
    let mut log = MemLog {
        hard_state: contents.hard_state.clone(),
        members: meta.get_conf_state().clone(),
        base: contents.base,
        entries: mem::take(&mut contents.entries).into(),
        ..MemLog::default()
    };
    // A snapshot that came from the leader: the log before it is not the one that led to it.
    let is_log_passed = log.term_at(index) != Some(term);
    if is_log_passed {
        log.restart(index, term);
    }
    if log.hard_state.term < term {
        (log.hard_state.term, log.hard_state.vote) = (term, 0);
    }
    log.hard_state.commit = log.hard_state.commit.max(index);
    if log.hard_state.commit > log.last() {
        let (commit, last) = (log.hard_state.commit, log.last());
        return Err(corrupt(&path, &format!("it ends at position {last}, and says that {commit} was committed")));
    }
    Ok(Stored { id, meta, state, log, contents, is_log_passed })
}

/// Opens the log that was read, for this start of the process, and removes what is needless.
pub fn open_log(files: &dyn Files, folder: &Path, stored: &Stored) -> Result<Log, OpenError> {
    let contents = &stored.contents;
    let log = if stored.is_log_passed {
        let (number, boots) = (contents.number + 1, contents.boots + 1);
        Log::create(files, folder, number, boots, stored.log.base, &stored.log.hard_state, &[])
            .map_err(io("begin a log in", folder))?
    } else {
        let path: PathBuf = folder.join(log_name(contents.number));
        Log::open(files, path.clone(), contents).map_err(io("open", &path))?
    };
    files.sync_folder(folder).map_err(io("sync", folder))?;
    remove_older(files, folder, stored.meta.index, log.number);
    Ok(log)
}

/// Removes what a durable snapshot and the log beside it made needless. What is left over is removed next time.
pub fn remove_older(files: &dyn Files, folder: &Path, snapshot: u64, log: u64) {
    let is_needless = |name: &String| {
        parse_snapshot_name(name).is_some_and(|position| position < snapshot)
            || parse_log_name(name).is_some_and(|number| number != log)
            || name.ends_with(".tmp")
    };
    for name in files.names(folder).unwrap_or_default().iter().filter(|name| is_needless(name)) {
        if let Err(error) = files.remove(&folder.join(name)) {
            tracing::warn!(file = name, %error, "old index log file not removed");
        }
    }
}
