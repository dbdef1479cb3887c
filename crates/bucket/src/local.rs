//! What a local directory needs beside `object_store`: durable folders, and no leftovers.
//!
//! `LocalFileSystem` with fsync syncs an object, its folder, and folders that it creates itself. Two gaps are
//! left, and closed here (read in 0.14.2, `local.rs`, `create_parent_dirs`):
//!
//! - Of two PUTs into a new folder the second finds it there and answers, while the first has not synced the
//!   folder's own entry yet: a power loss takes the folder, with the answered object.
//! - A process that dies between creating a folder and syncing it leaves one that only the page cache knows;
//!   after a restart nobody syncs it any more.
//!
//! So each folder is created and its parent synced before this process's first PUT into it, whether it was
//! there or not, and PUTs wait for that.
#![allow(
    clippy::disallowed_methods,
    reason = "leftovers of object_store are removed here, at the start; nothing is written"
)]

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::ObjectKey;
use parking_lot::RwLock;

use crate::folders::Folder;

/// The folders of a local bucket.
pub struct LocalFolders {
    root: PathBuf,
    /// Those whose entries are known to be durable.
    durable: RwLock<HashSet<String>>,
    /// Held while one is made so.
    making: tokio::sync::Mutex<()>,
}

impl LocalFolders {
    /// Creates what is missing, durably, and removes what a killed process left over. Blocks.
    ///
    /// With `is_own` nobody else may use the directory meanwhile: the data folder's lock sees to that. In a directory
    /// that others use, nothing is removed: what is half-written may be somebody's who lives.
    pub fn open(root: &Path, is_own: bool) -> io::Result<LocalFolders> {
        runtime::create_folder(root)?;
        let root = root.canonicalize()?;
        let mut durable = HashSet::new();
        for folder in Folder::TOP {
            let path = root.join(folder);
            runtime::create_folder(&path)?;
            if is_own {
                remove_leftovers(&root, &path, true)?;
            }
            durable.insert(folder.to_owned());
        }
        if is_own {
            remove_leftovers(&root, &root, false)?;
        }
        runtime::sync_folder(&root)?;
        durable.insert(String::new());
        Ok(LocalFolders { root, durable: RwLock::new(durable), making: tokio::sync::Mutex::new(()) })
    }

    /// Where the bucket lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folder and its entry durable, unless this process has done so before.
    pub async fn ensure(&self, folder: &str) -> io::Result<()> {
        if self.durable.read().contains(folder) {
            return Ok(());
        }
        let _making = self.making.lock().await;
        if self.durable.read().contains(folder) {
            return Ok(());
        }
        let path = self.root.join(folder);
        runtime::blocking(move || runtime::create_folder(&path)).await?;
        self.durable.write().insert(folder.to_owned());
        Ok(())
    }
}

/// Removes half-written objects (`<name>#<number>`, as `object_store` calls them) and empty folders.
///
/// A folder that is empty had its objects deleted, or never got one; a PUT creates it again.
fn remove_leftovers(root: &Path, folder: &Path, with_folders: bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if with_folders {
                remove_leftovers(root, &path, true)?;
                match fs::remove_dir(&path) {
                    Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => return Err(error),
                    _ => (),
                }
            }
        } else if path.strip_prefix(root).is_ok_and(is_half_written) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Only what would have become one of our objects: anything else in the directory is not ours to touch.
fn is_half_written(name: &Path) -> bool {
    let Some((object, number)) = name.to_str().and_then(|name| name.rsplit_once('#')) else { return false };
    ObjectKey::parse(object).is_ok() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}
