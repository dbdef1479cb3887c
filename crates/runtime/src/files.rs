//! Files that are still there after a power cut.
//!
//! A file survives when its bytes and the entry in its folder have both been fsynced; these helpers
//! never do one without the other. They block: call them through [`crate::blocking`].
//! A failed fsync is never retried (the kernel may have dropped the bytes): the caller takes a new name
//! or gives up.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Creates `path` and the folders above it that are missing, each durable in its parent.
///
/// One that is there already is made durable as well: the process that created it may have been killed before
/// it had synced the parent, and then only the page cache knows the folder, with all that was answered in it.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let parent = parent(path);
    if path.is_dir() {
        return match sync_folder(&parent) {
            // Another user's folder, which we could not have created this one in.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        };
    }
    create_folder(&parent)?;
    match fs::create_dir(path) {
        // Somebody was quicker, and has perhaps not synced it yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => create_folder(path),
        Err(error) => Err(error),
        Ok(()) => sync_folder(&parent),
    }
}

/// Makes the entries of a folder durable: names that were created, renamed or removed in it.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Puts `bytes` at `path` whole or not at all, durable when it returns.
///
/// Writes `<path>.tmp`, fsyncs it, renames it and fsyncs the folder. What stood there before is
/// replaced. One writer for each path at a time.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let result = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(&parent(path))
    })();
    if result.is_err() {
        // Best effort: the next attempt truncates what is left.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Returns the bytes that this process may still write to the file system that `path` lies on.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The folder that `path` lies in; `.` for a bare name.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        Some(_) => PathBuf::from("."),
        None => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_created_with_their_parents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        create_folder(&path).unwrap();
        create_folder(&path).unwrap();
        assert!(path.is_dir());
        fs::write(dir.path().join("file"), b"x").unwrap();
        assert!(create_folder(&dir.path().join("file")).is_err());
    }

    #[test]
    fn an_atomic_write_replaces_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder-in-the-way");
        create_folder(&path.join("full")).unwrap();
        assert!(write_atomically(&path, b"x").is_err());
        assert!(path.join("full").is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn free_space_is_known() {
        assert!(free_bytes(Path::new(".")).unwrap() > 0);
        assert!(free_bytes(Path::new("/no/such/path")).is_err());
    }
}
