//! `moved.json`: the note in a directory's bucket that it lies elsewhere from here on (docs/formats/cluster.md).
//!
//! Its rename is the moment at which a move happens: a start before it goes on here, a start after it must not.

use std::fs;
use std::io;
use std::path::Path;

use model::Incarnation;
use serde::{Deserialize, Serialize};

use crate::error::BucketError;

/// Its name, which is no object's key.
const NAME: &str = "moved.json";

const VERSION: u32 = 1;

/// What the note says. Unknown fields are refused: a newer version may mean something by them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    version: u32,
    /// Which move: its target's `cluster.json` had the same id while the move was under way.
    pub id: String,
    /// The new place, for people.
    pub to: String,
    /// What the next start is to be told.
    pub settings: String,
    /// The cluster, 32 hexadecimal digits.
    pub cluster: String,
    /// The life of its index.
    pub incarnation: Incarnation,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

impl Moved {
    /// Of version 1.
    pub fn new(id: String, to: String, settings: String, cluster: u128, incarnation: Incarnation, at_ms: i64) -> Moved {
        Moved { version: VERSION, id, to, settings, cluster: format!("{cluster:032x}"), incarnation, at_ms }
    }

    /// Reads a folder's note; `None` if it has none. Blocks.
    #[allow(clippy::disallowed_methods, reason = "one small file, read at the start")]
    pub fn read(folder: &Path) -> Result<Option<Moved>, BucketError> {
        let corrupt = |reason: String| BucketError::MovedFile { folder: folder.display().to_string(), reason };
        let text = match fs::read(folder.join(NAME)) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(corrupt(error.to_string())),
        };
        let moved: Moved = serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
        if moved.version != VERSION {
            return Err(corrupt(format!("version {}, this program knows version {VERSION}", moved.version)));
        }
        Ok(Some(moved))
    }

    /// Leaves the note, durably. Blocks. After an error it may be there or not: see [`Moved::remove`].
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec(self).expect("numbers and strings can be written");
        text.push(b'\n');
        runtime::write_atomically(&folder.join(NAME), &text)
    }

    /// Takes the note away, durably. Blocks.
    #[allow(clippy::disallowed_methods, reason = "one small file, whose folder is synced")]
    pub fn remove(folder: &Path) -> io::Result<()> {
        match fs::remove_file(folder.join(NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => runtime::sync_folder(folder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Moved::read(dir.path()).unwrap(), None);
        let moved = Moved::new("ab".into(), "s3://m".into(), "--bucket s3://m".into(), 7, 2, 1);
        moved.write(dir.path()).unwrap();
        assert_eq!(Moved::read(dir.path()).unwrap(), Some(moved));
        Moved::remove(dir.path()).unwrap();
        Moved::remove(dir.path()).unwrap();
        assert_eq!(Moved::read(dir.path()).unwrap(), None);
        for text in ["", "{}", "{\"version\":2}"] {
            fs::write(dir.path().join(NAME), text).unwrap();
            assert!(Moved::read(dir.path()).unwrap_err().to_string().contains("(bucket-moved)"), "{text}");
        }
    }
}
