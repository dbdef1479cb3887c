//! Tries everything that Bellrock needs of a store, on objects of its own, and says in words what it found.
//!
//! The objects lie below `check-<random>/`, which is no key's folder, and are deleted at the end. What no request can
//! show (whether an answered PUT survives a power cut) is said as well.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use runtime::Random;

use crate::error::{BucketError, ErrorKind, Operation, chain};
use crate::place::Place;

/// Begins the name of the folder of a check's objects.
pub const FOLDER_PREFIX: &str = "check-";

/// No request of a check takes longer on a store that could be used.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Small PUTs that are timed: enough that the slowest is about the 99th percentile.
const TIMED_PUTS: usize = 100;

/// About a segment of a small node.
const SMALL_BYTES: usize = 2 << 10;

/// About a block.
const LARGE_BYTES: usize = 16 << 20;

/// An ack waits for one PUT: above this most writes feel it.
const P50_SLOW: Duration = Duration::from_millis(200);

/// Above this the slowest writes near the time at which a PUT is given up.
const P99_SLOW: Duration = Duration::from_secs(1);

/// Less than this moves blocks slower than a busy node makes them.
const LARGE_SLOW_BYTES_PER_SECOND: f64 = 2e6;

/// S3 refuses requests that are 15 minutes off; long before that the clocks of nodes and store tell different stories.
const SKEW_MAX: Duration = Duration::from_secs(30);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As needed.
    Good,
    /// Nothing that a request can show; for the operator to see to.
    Note,
    /// It works, and will be felt.
    Slow,
    /// Bellrock must not use this store.
    Missing,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Slow => "slow",
            Verdict::Missing => "MISSING",
        })
    }
}

/// One thing that was tried.
#[derive(Debug, Clone)]
pub struct Finding {
    /// How it went.
    pub verdict: Verdict,
    /// In words.
    pub text: String,
}

/// Everything that was tried, in order.
#[derive(Debug, Clone, Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Whether Bellrock can use the store.
    pub fn is_usable(&self) -> bool {
        self.0.iter().all(|finding| finding.verdict != Verdict::Missing)
    }

    fn add(&mut self, verdict: Verdict, text: impl Into<String>) {
        self.0.push(Finding { verdict, text: text.into() });
    }

    /// Good, or missing with what went wrong.
    fn judge(&mut self, what: &str, outcome: Result<(), String>) -> bool {
        match &outcome {
            Ok(()) => self.add(Verdict::Good, what),
            Err(why) => self.add(Verdict::Missing, format!("{what}: {why}")),
        }
        outcome.is_ok()
    }
}

impl Place {
    /// Tries the store. Nothing that is in it is touched.
    pub async fn check(&self, random: &Random) -> Findings {
        let folder = format!("{FOLDER_PREFIX}{:016x}", random.u64());
        let mut check = Check { place: self, folder, findings: Findings::default() };
        check.run().await;
        check.findings
    }
}

struct Check<'a> {
    place: &'a Place,
    folder: String,
    findings: Findings,
}

impl Check<'_> {
    async fn run(&mut self) {
        let small = Bytes::from(vec![7; SMALL_BYTES]);
        // Without this nothing else tells anything.
        let stored = self.put("a", &small).await;
        if !self.findings.judge("stores an object", stored) {
            return;
        }
        let read = self.reads("a", &small).await;
        self.findings.judge("hands it out again", read);
        self.overwrite(&small).await;
        self.ranges().await;
        self.lengths(&small).await;
        self.listings().await;
        self.absent().await;
        self.large(random_like(LARGE_BYTES)).await;
        self.times(&small).await;
        self.clocks().await;
        self.clean_up().await;
        self.what_no_request_shows();
    }

    async fn overwrite(&mut self, small: &Bytes) {
        let mut outcome = self.put("a", small).await;
        if outcome.is_ok() {
            outcome = self.reads("a", small).await;
        }
        self.findings.judge("takes the same bytes under the same key again", outcome);
    }

    async fn ranges(&mut self) {
        let bytes: Bytes = (0..=255).collect::<Vec<u8>>().into();
        if let Err(why) = self.put("r", &bytes).await {
            self.findings.judge("stores an object to read ranges of", Err(why));
            return;
        }
        let mut outcome = Ok(());
        for range in [0..1, 100..200, 255..256, 0..256] {
            let wanted = bytes.slice(range.start as usize..range.end as usize);
            match self.range("r", range.clone()).await {
                Ok(piece) if piece == wanted => {}
                Ok(piece) => outcome = Err(format!("bytes {range:?} came as {} others", piece.len())),
                Err(why) => outcome = Err(why),
            }
        }
        self.findings.judge("hands out ranges", outcome);
        // Either an error or what there is: an object that is shorter than the index says must be told from one that is whole.
        let mut outcome = Ok(());
        for range in [250..300_u64, 300..310] {
            match self.range("r", range.clone()).await {
                Ok(piece) if piece.len() as u64 >= range.end - range.start => {
                    outcome = Err(format!("bytes {range:?} of 256 came as {} bytes", piece.len()));
                }
                Ok(_) | Err(_) => {}
            }
        }
        self.findings.judge("makes nothing up beyond an object's end", outcome);
    }

    async fn lengths(&mut self, small: &Bytes) {
        let location = self.location("a");
        let head = self.request(Operation::Get, "a", self.store().head(&location)).await;
        let outcome = head.and_then(|meta| match meta.size as usize == small.len() {
            true => Ok(()),
            false => Err(format!("{} instead of {}", meta.size, small.len())),
        });
        self.findings.judge("tells an object's length (HEAD)", outcome);
    }

    async fn listings(&mut self) {
        let mut outcome = Ok(());
        for name in ["l/1", "l/2", "l2"] {
            if let Err(why) = self.put(name, &Bytes::from_static(b"x")).await {
                outcome = Err(why);
            }
        }
        let outcome = match outcome {
            Ok(()) => self.list("l").await.and_then(|names| expect(&names, &["l/1", "l/2"])),
            Err(why) => Err(why),
        };
        self.findings.judge("lists what was stored a moment ago, and nothing else", outcome);
        let mut outcome = self.delete("l/1").await;
        if outcome.is_ok() {
            outcome = self.list("l").await.and_then(|names| expect(&names, &["l/2"]));
        }
        self.findings.judge("lists no more what was deleted a moment ago", outcome);
    }

    async fn absent(&mut self) {
        let location = self.location("nothing");
        let fetched = self.place.in_time_limit(REQUEST_TIMEOUT, self.store().get(&location)).await;
        let outcome = match fetched {
            Ok(Err(error)) => match BucketError::sort(Operation::Get, "nothing", error) {
                error if error.kind() == ErrorKind::NotFound => Ok(()),
                // S3 answers 403 to who may not list: then nobody knows whether an object is gone.
                error => Err(format!("{error} (is the right to list missing?)")),
            },
            Ok(Ok(_)) => Err("there is one".to_owned()),
            Err(why) => Err(why),
        };
        self.findings.judge("says of a missing object that it is not there", outcome);
        let mut outcome = self.delete("a").await;
        if outcome.is_ok() {
            let location = self.location("a");
            let fetched = self.place.in_time_limit(REQUEST_TIMEOUT, self.store().get(&location)).await;
            outcome = match fetched {
                Ok(Err(object_store::Error::NotFound { .. })) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Ok(Ok(_)) => Err("it is there yet".to_owned()),
                Err(why) => Err(why),
            };
        }
        self.findings.judge("deletes an object", outcome);
        let outcome = self.delete("a").await;
        self.findings.judge("takes the delete of a missing object", outcome);
    }

    async fn large(&mut self, bytes: Bytes) {
        let clock = self.place.clock();
        let since = clock.boottime();
        let mut outcome = self.put("large", &bytes).await;
        let put = clock.boottime().saturating_sub(since);
        let since = clock.boottime();
        if outcome.is_ok() {
            outcome = self.reads("large", &bytes).await;
        }
        let got = clock.boottime().saturating_sub(since);
        let rate = |took: Duration| LARGE_BYTES as f64 / took.as_secs_f64().max(1e-6);
        let is_good = self.findings.judge("stores and hands out 16 MiB in one piece", outcome);
        if is_good {
            let text = format!("16 MiB: {:.0} MB/s in, {:.0} MB/s out", rate(put) / 1e6, rate(got) / 1e6);
            let is_slow = rate(put).min(rate(got)) < LARGE_SLOW_BYTES_PER_SECOND;
            self.findings.add(if is_slow { Verdict::Slow } else { Verdict::Good }, text);
        }
    }

    async fn times(&mut self, small: &Bytes) {
        let clock = self.place.clock();
        let mut times = Vec::with_capacity(TIMED_PUTS);
        for i in 0..TIMED_PUTS {
            let since = clock.boottime();
            if let Err(why) = self.put(&format!("t/{i}"), small).await {
                self.findings.judge("stores 100 small objects, one after another", Err(why));
                return;
            }
            times.push(clock.boottime().saturating_sub(since));
        }
        times.sort_unstable();
        let (p50, p99) = (times[TIMED_PUTS / 2], times[TIMED_PUTS * 99 / 100]);
        let is_slow = p50 > P50_SLOW || p99 > P99_SLOW;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let text = format!("a PUT of 2 KiB takes {:.1} ms (p50), {:.1} ms (p99)", ms(p50), ms(p99));
        match is_slow {
            true => self.findings.add(Verdict::Slow, format!("{text}: every write waits for one")),
            false => self.findings.add(Verdict::Good, text),
        }
    }

    async fn clocks(&mut self) {
        let before_ms = self.place.clock().now_ms();
        let outcome = self.put("c", &Bytes::from_static(b"x")).await;
        let after_ms = self.place.clock().now_ms();
        let location = self.location("c");
        let head = match outcome {
            Ok(()) => self.request(Operation::Get, "c", self.store().head(&location)).await,
            Err(why) => Err(why),
        };
        let Ok(meta) = head else { return };
        // Stores tell whole seconds, some rounded up.
        let stored_ms = meta.last_modified.timestamp_millis();
        let behind_ms = (before_ms - stored_ms - 1_000).max(0);
        let ahead_ms = (stored_ms - after_ms - 1_000).max(0);
        let skew = Duration::from_millis(behind_ms.max(ahead_ms) as u64);
        if skew <= SKEW_MAX {
            self.findings.add(Verdict::Good, "its clock and this machine's agree");
        } else {
            let direction = if behind_ms > 0 { "behind" } else { "ahead of" };
            let text = format!("its clock is {} s {direction} this machine's: set both by NTP", skew.as_secs());
            self.findings.add(Verdict::Slow, text);
        }
    }

    async fn clean_up(&mut self) {
        let mut outcome = Ok(());
        match self.list("").await {
            Ok(names) => {
                for name in names {
                    if let Err(why) = self.delete(&name).await {
                        outcome = Err(why);
                    }
                }
            }
            Err(why) => outcome = Err(why),
        }
        let what = format!("deletes all that was stored for this check ({}/)", self.folder);
        self.findings.judge(&what, outcome);
    }

    fn what_no_request_shows(&mut self) {
        if self.place.is_remote() {
            self.findings.add(
                Verdict::Note,
                "no request shows whether what the store has answered survives a power cut. Garage syncs nothing as it \
                 comes: set metadata_fsync = true and data_fsync = true in garage.toml on every node (with three nodes in \
                 three places that do not lose power together it is a choice; with one it is none)",
            );
        } else {
            self.findings.add(
                Verdict::Note,
                "every file and folder is synced before a write is answered; a disk that lies about it, and a network \
                 file system exported with async, lose what they had answered",
            );
        }
    }

    fn store(&self) -> &dyn ObjectStore {
        self.place.store()
    }

    fn location(&self, name: &str) -> Path {
        match name {
            "" => Path::from(self.folder.as_str()),
            name => Path::from(format!("{}/{name}", self.folder)),
        }
    }

    async fn request<T>(
        &self,
        operation: Operation,
        name: &str,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, String> {
        let done = self.place.in_time_limit(REQUEST_TIMEOUT, work).await?;
        done.map_err(|error| chain(&BucketError::sort(operation, name, error)))
    }

    async fn put(&self, name: &str, bytes: &Bytes) -> Result<(), String> {
        let location = self.location(name);
        let work = async {
            self.place
                .ensure_folder(location.as_ref())
                .await
                .map_err(|source| object_store::Error::Generic { store: "directory", source: Box::new(source) })?;
            self.store().put(&location, bytes.clone().into()).await
        };
        self.request(Operation::Put, name, work).await.map(|_| ())
    }

    async fn reads(&self, name: &str, expected: &Bytes) -> Result<(), String> {
        let location = self.location(name);
        let bytes =
            self.request(Operation::Get, name, async { self.store().get(&location).await?.bytes().await }).await?;
        if bytes == *expected { Ok(()) } else { Err(format!("{} bytes came, and they are others", bytes.len())) }
    }

    async fn range(&self, name: &str, range: Range<u64>) -> Result<Bytes, String> {
        let location = self.location(name);
        self.request(Operation::Get, name, self.store().get_range(&location, range)).await
    }

    async fn delete(&self, name: &str) -> Result<(), String> {
        let location = self.location(name);
        let work = async {
            match self.store().delete(&location).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                done => done,
            }
        };
        self.request(Operation::Delete, name, work).await
    }

    /// Names below a folder of the check's.
    async fn list(&self, folder: &str) -> Result<Vec<String>, String> {
        let (prefix, own) = (self.location(folder), format!("{}/", self.folder));
        let work = self.store().list(Some(&prefix)).try_collect::<Vec<_>>();
        let mut names: Vec<String> = (self.request(Operation::List, folder, work).await?.iter())
            .map(|meta| meta.location.as_ref().trim_start_matches(&own).to_owned())
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

fn expect(names: &[String], expected: &[&str]) -> Result<(), String> {
    if names == expected { Ok(()) } else { Err(format!("{names:?} instead of {expected:?}")) }
}

/// Bytes that no layer below makes smaller.
fn random_like(count: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes.into()
}
