//! Where a node under test keeps its objects: a directory, an S3 server in this process, or a real Garage.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use anyhow::Result;

use crate::garage::{self, Garage};
use crate::node::{Node, Settings};
use crate::s3::{self, Asked, S3Server};

/// Which kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder in the node's data.
    Directory,
    /// `s3s-fs`, in this process.
    S3,
    /// A Garage that the test starts.
    Garage,
}

/// A store, for the time of a test.
pub enum Store {
    /// The node's own folder.
    Directory,
    /// A server of this test alone.
    S3(Box<S3Server>),
    /// A server that other tests may use too, each below a prefix of its own.
    Garage {
        /// The server.
        garage: Arc<Garage>,
        /// Where this test's objects lie.
        prefix: String,
    },
}

/// The Garage that runs now, if any test uses one: starting one takes a second or two.
static GARAGE: Mutex<Weak<Garage>> = Mutex::new(Weak::new());

/// Counts prefixes.
static TESTS: AtomicU64 = AtomicU64::new(0);

impl Store {
    /// Starts one, or joins one that runs; skips and gives `None` if there is no Garage here.
    #[track_caller]
    pub fn start(kind: Kind) -> Option<Store> {
        let started = match kind {
            Kind::Directory => Ok(Store::Directory),
            Kind::S3 => S3Server::start().map(|server| Store::S3(Box::new(server))),
            Kind::Garage => {
                let program = Garage::program()?;
                shared(&program).map(Store::garage)
            }
        };
        Some(started.unwrap_or_else(|error| panic!("{kind:?} does not start: {error:#}")))
    }

    /// The same, used by nobody else: its counts are this test's.
    #[track_caller]
    pub fn start_alone(kind: Kind) -> Option<Store> {
        if kind != Kind::Garage {
            return Store::start(kind);
        }
        let garage = Garage::start(&Garage::program()?).unwrap_or_else(|error| panic!("no Garage: {error:#}"));
        Some(Store::garage(Arc::new(garage)))
    }

    fn garage(garage: Arc<Garage>) -> Store {
        Store::Garage { garage, prefix: format!("test-{}", TESTS.fetch_add(1, Ordering::Relaxed)) }
    }

    /// What a node needs to be told to use it.
    pub fn apply(&self, settings: Settings) -> Settings {
        match self {
            Store::Directory => settings,
            Store::S3(server) => settings
                .argument(format!("--bucket=s3://{}/below/here", s3::BUCKET))
                .argument(format!("--bucket.endpoint={}", server.endpoint()))
                .variable("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY_ID)
                .variable("AWS_SECRET_ACCESS_KEY", s3::SECRET_ACCESS_KEY),
            Store::Garage { garage, prefix } => apply_garage(settings, garage, prefix),
        }
    }

    /// How often it was asked for a listing, by its own count; `None`: a directory does not count.
    pub fn lists(&self) -> Option<Result<u64>> {
        match self {
            Store::Directory => None,
            Store::S3(server) => Some(Ok(server.count(Asked::List))),
            Store::Garage { garage, .. } => {
                Some(["ListObjectsV2", "ListObjects"].iter().map(|operation| garage.count(operation)).sum())
            }
        }
    }

    /// The folder in which the node's objects are files, if they are.
    pub fn objects(&self, node: &Node) -> Option<PathBuf> {
        match self {
            Store::Directory => Some(node.data().join("bucket")),
            Store::S3(server) => Some(server.objects().join("below/here")),
            Store::Garage { .. } => None,
        }
    }

    /// What must never be seen in a log or an answer.
    pub fn secret(&self) -> Option<&'static str> {
        match self {
            Store::Directory => None,
            Store::S3(_) => Some(s3::SECRET_ACCESS_KEY),
            Store::Garage { .. } => Some(garage::SECRET_ACCESS_KEY),
        }
    }
}

/// What a node needs to be told to use this Garage.
pub fn apply_garage(settings: Settings, garage: &Garage, prefix: &str) -> Settings {
    settings
        .argument(format!("--bucket=s3://{}/{prefix}", garage::BUCKET))
        .argument(format!("--bucket.endpoint={}", garage.endpoint()))
        .argument(format!("--bucket.region={}", garage::REGION))
        .variable("AWS_ACCESS_KEY_ID", garage::ACCESS_KEY_ID)
        .variable("AWS_SECRET_ACCESS_KEY", garage::SECRET_ACCESS_KEY)
}

fn shared(program: &std::path::Path) -> Result<Arc<Garage>> {
    let mut running = GARAGE.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(garage) = running.upgrade() {
        return Ok(garage);
    }
    let garage = Arc::new(Garage::start(program)?);
    *running = Arc::downgrade(&garage);
    Ok(garage)
}
