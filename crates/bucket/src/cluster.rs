//! `cluster.json`: whose bucket this is, and in which life of its index.
//!
//! It is written at bootstrap, into an empty bucket only, and with a new incarnation by a recovery. Whoever
//! acks or deletes has looked at it within the last interval: a process of an older incarnation, or of another
//! cluster that was pointed here by mistake, must do neither.

use std::fmt;

use model::{Incarnation, ObjectKey};
use runtime::Random;
use serde::{Deserialize, Serialize};

use crate::error::{BucketError, ErrorKind};
use crate::place::Place;
use crate::store::Bucket;

/// Whose bucket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// Drawn at bootstrap.
    pub id: u128,
    /// Which life of the index.
    pub incarnation: Incarnation,
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x} incarnation {}", self.id, self.incarnation)
    }
}

/// The file's fields. Unknown ones are refused: a newer version may mean something by them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Of this file's format.
    version: u32,
    /// 32 hexadecimal digits.
    id: String,
    incarnation: Incarnation,
    /// While a move to here is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moving: Option<Moving>,
}

/// What the target of a move says until the move has happened: nobody may start on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moving {
    /// Which move, 32 hexadecimal digits.
    pub id: String,
    /// The place that is in force, for people.
    pub from: String,
}

const VERSION: u32 = 1;

impl Cluster {
    fn encode(&self, moving: Option<Moving>) -> Vec<u8> {
        let file = File { version: VERSION, id: format!("{:032x}", self.id), incarnation: self.incarnation, moving };
        let mut text = serde_json::to_vec(&file).expect("numbers and strings can be written");
        text.push(b'\n');
        text
    }

    fn decode(text: &[u8]) -> Result<(Cluster, Option<Moving>), BucketError> {
        let corrupt = |reason: String| BucketError::ClusterFile { reason };
        let file: File = serde_json::from_slice(text).map_err(|error| corrupt(error.to_string()))?;
        if file.version != VERSION {
            return Err(corrupt(format!("version {}, this program knows version {VERSION}", file.version)));
        }
        let id = u128::from_str_radix(&file.id, 16).ok().filter(|id| format!("{id:032x}") == file.id);
        let id = id.ok_or_else(|| corrupt(format!("id {:?} is not 32 hexadecimal digits", file.id)))?;
        Ok((Cluster { id, incarnation: file.incarnation }, file.moving))
    }
}

impl Place {
    /// What its `cluster.json` says, if there is one.
    pub async fn cluster(&self) -> Result<Option<(Cluster, Option<Moving>)>, BucketError> {
        match self.get(&ObjectKey::Cluster).await {
            Ok(text) => Cluster::decode(&text).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes `cluster.json`.
    pub async fn set_cluster(&self, cluster: &Cluster, moving: Option<Moving>) -> Result<(), BucketError> {
        self.put(&ObjectKey::Cluster, vec![cluster.encode(moving).into()]).await
    }
}

impl Bucket {
    /// Whose bucket this is; `None` if nobody's yet. Errors: `Moving` if a move to here has not happened.
    pub async fn cluster(&self) -> Result<Option<Cluster>, BucketError> {
        match self.whole().cluster().await? {
            Some((_, Some(moving))) => Err(BucketError::Moving { to: self.place(), from: moving.from }),
            found => Ok(found.map(|(cluster, _)| cluster)),
        }
    }

    /// Makes this empty bucket a new cluster's. Errors: `NotEmpty` if it holds anything at all.
    pub async fn bootstrap(&self, random: &Random) -> Result<Cluster, BucketError> {
        if let Some(found) = self.whole().anything().await? {
            return Err(BucketError::NotEmpty { found });
        }
        let cluster = Cluster { id: random.u128(), incarnation: 1 };
        self.whole().set_cluster(&cluster, None).await?;
        Ok(cluster)
    }

    /// Begins the next incarnation of this bucket's cluster: whoever is of `before` stops when it looks next.
    pub async fn begin_incarnation(&self, before: &Cluster) -> Result<Cluster, BucketError> {
        let next = Cluster { incarnation: before.incarnation + 1, ..*before };
        self.whole().set_cluster(&next, None).await?;
        Ok(next)
    }

    /// Looks whether this is still `expected`'s bucket. At start, every 10 s, and before each batch of deletes.
    pub async fn check_cluster(&self, expected: &Cluster) -> Result<(), BucketError> {
        let found = self.cluster().await?;
        if found.as_ref() == Some(expected) {
            return Ok(());
        }
        let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
        Err(BucketError::OtherCluster { found, expected: expected.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_back_and_nothing_else_is() {
        let cluster = Cluster { id: 0xab, incarnation: 3 };
        assert_eq!(Cluster::decode(&cluster.encode(None)).unwrap(), (cluster, None));
        let moving = Moving { id: "ab".into(), from: "/srv/metrics".into() };
        assert_eq!(Cluster::decode(&cluster.encode(Some(moving.clone()))).unwrap(), (cluster, Some(moving)));
        let id = "000000000000000000000000000000ab";
        for text in [
            String::new(),
            "{}".to_owned(),
            format!(r#"{{"version":2,"id":"{id}","incarnation":1}}"#),
            format!(r#"{{"version":1,"id":"{id}","incarnation":1,"more":1}}"#),
            r#"{"version":1,"id":"ab","incarnation":1}"#.to_owned(),
            r#"{"version":1,"id":"+00000000000000000000000000000ab","incarnation":1}"#.to_owned(),
        ] {
            assert_eq!(Cluster::decode(text.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
        }
    }
}
