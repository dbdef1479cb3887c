//! The files that a group stands on, behind a face so that tests can lose power.
#![allow(
    clippy::disallowed_methods,
    reason = "the log's folder is listed, read and cleaned here; what is written goes through runtime"
)]

use std::io;
use std::path::Path;

/// A folder's files. All calls block.
pub trait Files: Send + Sync + 'static {
    /// Creates a folder and its parents, durably.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, in any order.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// A whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Puts a file there whole or not at all, durable when it returns.
    fn write_atomically(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Removes a file; it may come back after a power loss.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder's entries durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Opens a log at its end; `create`: it must not be there.
    fn open_log(&self, path: &Path, create: bool) -> io::Result<Box<dyn LogFile>>;
}

/// A file that only grows at its end.
pub trait LogFile: Send {
    /// Length in bytes.
    fn len(&self) -> u64;
    /// Whether nothing was written.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Makes sure that `bytes` more can be appended; an error leaves the file untouched.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;
    /// Appends. After an error the file's end is unknown.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was appended durable. After an error nothing of it may be taken for durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the end off, durably.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// The machine's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        runtime::create_folder(path)
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn write_atomically(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        runtime::write_atomically(path, bytes)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        runtime::sync_folder(path)
    }

    fn open_log(&self, path: &Path, create: bool) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(runtime::AppendFile::open(path, create)?))
    }
}

impl LogFile for runtime::AppendFile {
    fn len(&self) -> u64 {
        runtime::AppendFile::len(self)
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        runtime::AppendFile::reserve(self, bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        runtime::AppendFile::append(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        runtime::AppendFile::sync(self)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        runtime::AppendFile::truncate(self, len)
    }
}
