//! Where a bucket lies: a directory, or a bucket of an object store, as its URL and settings name it.

use std::fmt;
use std::path::{Path, PathBuf};

use runtime::Secret;

/// Where the objects lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory that is one process's alone: whoever opens it holds the lock on it.
    Own(PathBuf),
    /// A directory that several processes may use at once.
    Shared(PathBuf),
    /// A bucket of an object store.
    Remote(Remote),
}

/// Which kind of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// AWS, Garage, MinIO and what else speaks S3.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// A bucket of an object store, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// What is spoken.
    pub protocol: Protocol,
    /// The bucket's name there (Azure: the container's).
    pub name: String,
    /// Comes before every key; empty, or parts between slashes with none at the ends.
    pub prefix: String,
    /// The server's URL; `None`: the provider's own.
    pub endpoint: Option<String>,
    /// What requests are signed for; `None`: what the credentials say, else `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket's name is in the path, not in the host; `None`: where an endpoint is given.
    pub path_style: Option<bool>,
    /// Certificates (PEM) that are trusted beside the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// By the names of the environment variables that the provider's tools read: `AWS_ACCESS_KEY_ID`, …
    pub credentials: Vec<(String, Secret)>,
}

impl Location {
    /// Reads `file:///path`, `s3://name/prefix`, `gs://name/prefix` or `az://container/prefix`; what is said of
    /// another text follows it in the message.
    pub fn parse(url: &str) -> Result<Location, String> {
        let expected = "is none of file:///path, s3://name/prefix, gs://name/prefix, az://container/prefix";
        let (scheme, rest) = url.split_once("://").ok_or(expected)?;
        let protocol = match scheme {
            "file" if rest.starts_with('/') => return Ok(Location::Shared(PathBuf::from(rest))),
            "s3" => Protocol::S3,
            "gs" => Protocol::Gcs,
            "az" => Protocol::Azure,
            _ => return Err(expected.to_owned()),
        };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if name.is_empty() || !is_plain(name) {
            return Err(format!("has no bucket's name between {scheme}:// and the next slash"));
        }
        // Keys are compared byte by byte; names that some store or proxy would rewrite have no place in them.
        let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && is_plain(part);
        if !prefix.is_empty() && !prefix.split('/').all(is_part) {
            return Err("has a prefix of other than letters, digits, -, _ and . between its slashes".to_owned());
        }
        Ok(Location::Remote(Remote::new(protocol, name, prefix)))
    }

    /// The settings that name this place, credentials apart: `--bucket s3://name --bucket.region garage`.
    pub fn settings(&self) -> String {
        let remote = match self {
            Location::Own(path) | Location::Shared(path) => return format!("--bucket file://{}", path.display()),
            Location::Remote(remote) => remote,
        };
        let slash = if remote.prefix.is_empty() { "" } else { "/" };
        let mut text = format!("--bucket {}://{}{slash}{}", remote.protocol.scheme(), remote.name, remote.prefix);
        let path_style = remote.path_style.map(|is_so| is_so.to_string());
        for (name, value) in [("endpoint", &remote.endpoint), ("region", &remote.region), ("path-style", &path_style)] {
            if let Some(value) = value {
                text.push_str(&format!(" --bucket.{name} {value}"));
            }
        }
        text
    }

    /// Whether requests cross a network to a store with its own idea of time.
    pub fn is_remote(&self) -> bool {
        matches!(self, Location::Remote(_))
    }
}

impl Remote {
    /// A bucket of the provider's own servers, without credentials yet.
    pub fn new(protocol: Protocol, name: &str, prefix: &str) -> Remote {
        Remote {
            protocol,
            name: name.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: None,
            path_style: None,
            ca_pem: None,
            credentials: Vec::new(),
        }
    }
}

impl Protocol {
    /// The first part of its URLs.
    pub fn scheme(self) -> &'static str {
        match self {
            Protocol::S3 => "s3",
            Protocol::Gcs => "gs",
            Protocol::Azure => "az",
        }
    }
}

/// For people: the directory, or the URL and the endpoint. Never credentials.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Own(path) | Location::Shared(path) => write!(f, "{}", path.display()),
            Location::Remote(remote) => {
                write!(f, "{}://{}", remote.protocol.scheme(), remote.name)?;
                if !remote.prefix.is_empty() {
                    write!(f, "/{}", remote.prefix)?;
                }
                match &remote.endpoint {
                    Some(endpoint) => write!(f, " at {endpoint}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Location {
        Location::Own(path.to_owned())
    }
}

impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Location {
        Location::Own(path.clone())
    }
}

impl From<&Location> for Location {
    fn from(location: &Location) -> Location {
        location.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown() {
        for (url, shown) in [
            ("file:///srv/metrics", "/srv/metrics"),
            ("s3://metrics", "s3://metrics"),
            ("s3://metrics/", "s3://metrics"),
            ("s3://metrics/a/b/", "s3://metrics/a/b"),
            ("gs://metrics/a", "gs://metrics/a"),
            ("az://metrics", "az://metrics"),
        ] {
            assert_eq!(Location::parse(url).unwrap().to_string(), shown);
        }
        let Location::Remote(mut remote) = Location::parse("s3://m").unwrap() else { panic!() };
        remote.endpoint = Some("http://[::1]:3900".to_owned());
        remote.credentials = vec![("AWS_SECRET_ACCESS_KEY".to_owned(), Secret::new("hunter2"))];
        let location = Location::Remote(remote);
        assert_eq!(location.to_string(), "s3://m at http://[::1]:3900");
        assert_eq!(location.settings(), "--bucket s3://m --bucket.endpoint http://[::1]:3900");
        assert!(!format!("{location:?}").contains("hunter2"));
    }

    #[test]
    fn other_texts_are_refused() {
        for url in [
            "",
            "/srv",
            "file://srv",
            "http://x",
            "s3://",
            "s3:///a",
            "s3://a b",
            "s3://a/../b",
            "s3://a//b",
            "s3://a/ü",
        ] {
            assert!(Location::parse(url).is_err(), "{url}");
        }
    }
}
