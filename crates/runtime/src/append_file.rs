//! A file that only grows at its end: a log.
//!
//! Space is reserved before it is written to, so that a full disk is found while the file is untouched.
//! Reserving neither writes zeros nor changes the length; bytes past the end can't be read back.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::files::free_bytes;

/// How much is reserved at a time. Small beside any disk, large beside a commit.
const RESERVE_BYTES: u64 = 1 << 20;

/// A log file. Nothing is durable before [`AppendFile::sync`]; all calls block.
#[derive(Debug)]
pub struct AppendFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// Space up to this offset belongs to the file.
    reserved: u64,
}

impl AppendFile {
    /// Opens `path`, or creates it if `create` says so (then it must not be there).
    ///
    /// The entry of a new file in its folder is not durable yet: sync the folder.
    pub fn open(path: &Path, create: bool) -> io::Result<AppendFile> {
        let file = OpenOptions::new().append(true).create_new(create).open(path)?;
        let len = file.metadata()?.len();
        Ok(AppendFile { path: path.to_path_buf(), file, len, reserved: len })
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes sure that `bytes` more can be appended; an error (`StorageFull`) leaves the file untouched.
    ///
    /// Where the file system can't reserve, free space is compared instead, with some to spare.
    pub fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let end = self.len.saturating_add(bytes);
        if end <= self.reserved {
            return Ok(());
        }
        let reserved = end.saturating_add(RESERVE_BYTES);
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.reserved, reserved - self.reserved) {
            Ok(()) => {
                self.reserved = reserved;
                Ok(())
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                if free_bytes(&self.path)? < bytes.saturating_add(RESERVE_BYTES) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Appends; after an error the end of the file is unknown, and only a new start finds out.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Makes everything appended durable. After an error nothing more may be taken for durable.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Cuts the end off, durably.
    pub fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.file.sync_all()?;
        self.len = len;
        self.reserved = len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_go_on_where_the_file_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = AppendFile::open(&path, true).unwrap();
        file.reserve(3).unwrap();
        file.append(b"one").unwrap();
        file.sync().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3, "reserving does not change the length");
        assert!(AppendFile::open(&path, true).is_err(), "there already");
        let mut file = AppendFile::open(&path, false).unwrap();
        file.reserve(2 << 20).unwrap();
        file.append(b"two").unwrap();
        file.truncate(4).unwrap();
        file.append(b"!").unwrap();
        file.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"onet!");
        assert_eq!(file.len(), 5);
    }

    #[test]
    fn a_full_disk_is_found_before_the_file_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = AppendFile::open(&path, true).unwrap();
        assert!(file.reserve(1 << 50).is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        file.reserve(10).unwrap();
    }
}
