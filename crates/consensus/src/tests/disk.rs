//! A disk in memory that loses power: what was not synced may be there, or not, or in pieces.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use runtime::Random;

use crate::files::{Files, LogFile};

/// Pieces in which unsynced bytes reach the disk, in any order.
const SECTOR_BYTES: usize = 16;

#[derive(Clone, Default)]
struct Inode {
    /// What the page cache has.
    now: Vec<u8>,
    /// What was there at the last sync.
    synced: Vec<u8>,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    names_synced: BTreeMap<PathBuf, usize>,
    /// So many operations still succeed; then the machine is dead until the power comes back.
    operations_left: Option<u64>,
    operations: u64,
    is_full: bool,
    fails_sync: bool,
    fails_create: bool,
}

/// Clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

impl Disk {
    /// The machine dies with the operation after the next `operations`.
    pub fn die_after(&self, operations: u64) {
        self.state.lock().operations_left = Some(operations);
    }

    /// Operations that there were.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    pub fn is_full(&self) -> bool {
        self.state.lock().is_full
    }

    pub fn set_full(&self, is_full: bool) {
        self.state.lock().is_full = is_full;
    }

    pub fn set_fails_sync(&self, fails: bool) {
        self.state.lock().fails_sync = fails;
    }

    pub fn set_fails_create(&self, fails: bool) {
        self.state.lock().fails_create = fails;
    }

    /// The process dies and the machine stays up: the page cache is kept.
    pub fn process_dies(&self) {
        self.state.lock().operations_left = None;
    }

    /// The power goes and comes back.
    pub fn power_loss(&self, random: &Random) {
        let mut state = self.state.lock();
        let State { names, names_synced, .. } = &mut *state;
        let mut left = names_synced.clone();
        for path in names.keys().chain(names_synced.keys()) {
            // An entry that was not synced is in either state.
            let entry = if random.below(2) == 0 { names.get(path) } else { names_synced.get(path) };
            match entry {
                Some(inode) => left.insert(path.clone(), *inode),
                None => left.remove(path),
            };
        }
        for inode in &mut state.inodes {
            let (old, new) = (inode.synced.clone(), inode.now.clone());
            let length = old.len() + random.below((new.len().saturating_sub(old.len()) + 1) as u64) as usize;
            // Grown pieces that did not reach the disk read as zeros.
            let mut bytes = old.clone();
            bytes.resize(if new.len() < old.len() && random.below(2) == 0 { new.len() } else { length }, 0);
            let from = old.len().min(bytes.len());
            for start in (from..bytes.len()).step_by(SECTOR_BYTES) {
                let end = (start + SECTOR_BYTES).min(bytes.len());
                if random.below(4) > 0 {
                    bytes[start..end].copy_from_slice(&new[start..end]);
                }
            }
            *inode = Inode { now: bytes.clone(), synced: bytes };
        }
        state.names = left.clone();
        state.names_synced = left;
        state.operations_left = None;
    }

    pub fn names(&self) -> Vec<String> {
        let state = self.state.lock();
        state.names.keys().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    /// Changes a file's bytes under everybody's feet, durably.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let inode = *state.names.iter().find(|(path, _)| path.ends_with(name)).unwrap().1;
        let mut bytes = state.inodes[inode].now.clone();
        change(&mut bytes);
        state.inodes[inode] = Inode { now: bytes.clone(), synced: bytes };
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state.lock();
        let inode = *state.names.iter().find(|(path, _)| path.ends_with(name)).unwrap().1;
        state.inodes[inode].now.clone()
    }

    /// A copy whose damage does not show here.
    pub fn copy(&self) -> Disk {
        let state = self.state.lock();
        let copy = State {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            names_synced: state.names_synced.clone(),
            ..State::default()
        };
        Disk { state: Arc::new(Mutex::new(copy)) }
    }
}

impl State {
    /// Counts one operation; an error if the machine is dead.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("the machine is dead")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        self.operate()?;
        if self.fails_sync {
            return Err(io::Error::other("planted: fsync of a folder"));
        }
        let inside = |path: &PathBuf| path.parent() == Some(folder);
        self.names_synced.retain(|path, _| !inside(path));
        let entries: Vec<_> = self.names.iter().filter(|(path, _)| inside(path)).collect();
        self.names_synced.extend(entries.into_iter().map(|(path, inode)| (path.clone(), *inode)));
        Ok(())
    }
}

impl Files for Disk {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        self.state.lock().operate()
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        Ok(state.inodes[state.inode(path)?].now.clone())
    }

    fn write_atomically(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let temporary = path.with_extension("tmp");
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.names.insert(temporary.clone(), inode);
        state.operate()?;
        state.inodes[inode].now = bytes.to_vec();
        state.operate()?;
        state.inodes[inode].synced = bytes.to_vec();
        state.operate()?;
        state.names.remove(&temporary);
        state.names.insert(path.to_path_buf(), inode);
        state.sync_folder(path.parent().unwrap())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operate()?;
        state.inode(path)?;
        state.names.remove(path);
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.state.lock().sync_folder(path)
    }

    fn open_log(&self, path: &Path, create: bool) -> io::Result<Box<dyn LogFile>> {
        let mut state = self.state.lock();
        state.operate()?;
        if state.names.contains_key(path) == create {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if create {
            state.inodes.push(Inode::default());
            let inode = state.inodes.len() - 1;
            state.names.insert(path.to_path_buf(), inode);
            if state.fails_create {
                return Err(io::Error::other("planted: create"));
            }
        }
        Ok(Box::new(DiskFile { disk: self.clone(), inode: state.inode(path)? }))
    }
}

struct DiskFile {
    disk: Disk,
    inode: usize,
}

impl LogFile for DiskFile {
    fn len(&self) -> u64 {
        self.disk.state.lock().inodes[self.inode].now.len() as u64
    }

    fn reserve(&mut self, _: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.operate()?;
        if state.is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let alive = state.operate();
        // A write that the machine died in may have got some way.
        let written = if alive.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        state.inodes[self.inode].now.extend_from_slice(written);
        alive
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.operate()?;
        if state.fails_sync {
            return Err(io::Error::other("planted: fsync"));
        }
        let inode = &mut state.inodes[self.inode];
        inode.synced = inode.now.clone();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.operate()?;
        state.inodes[self.inode].now.truncate(len as usize);
        state.operate()?;
        let inode = &mut state.inodes[self.inode];
        inode.synced = inode.now.clone();
        Ok(())
    }
}
