//! The folder that holds a node's data, and the lock that keeps a second process off it.
//!
//! The lock is `flock` on `<data>/lock`: the kernel lets go of it when the process ends, however it
//! ends, so a crash leaves nothing to clean up. The file holds the holder's pid, for the message only.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::files;

/// A data folder that this process holds the lock of, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error(
        "data folder {} is in use by process {holder}. Stop that process, or give this one \
         another folder with --data (data-in-use)", path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The pid that stands in the lock file, or a word when there is none.
        holder: String,
    },
    /// It cannot be created, read or locked.
    #[error("open data folder {}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDir {
    /// Creates the folder if it is missing, and locks it.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_path_buf(), source };
        files::create_folder(path).map_err(io)?;
        // Absolute, so that messages say where the data is whatever the working folder was.
        let path = path.canonicalize().map_err(io)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .map_err(io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DataDirError::InUse { path, holder: holder(&mut lock) });
            }
            Err(error) => return Err(io(error.into())),
        }
        write_pid(&mut lock).map_err(io)?;
        Ok(DataDir { path, _lock: lock })
    }

    /// Returns the folder's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a folder inside it, durably, and returns its path.
    pub fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        files::create_folder(&path)?;
        Ok(path)
    }
}

fn holder(lock: &mut File) -> String {
    let mut pid = String::new();
    match lock.take(32).read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => pid.trim().to_string(),
        _ => "unknown".to_string(),
    }
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::open(&path).unwrap();
        let refused = DataDir::open(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("in use by process {}.", std::process::id())), "{refused}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_an_error_that_names_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::write(&path, b"").unwrap();
        let error = DataDir::open(&path).unwrap_err();
        assert!(error.to_string().contains("data"), "{error}");
    }
}
