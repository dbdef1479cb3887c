//! Copies of ranges of objects, in memory and in a local folder, for a bucket that is far away.
//!
//! A range is kept as it was asked for: readers ask for sections and pages, which are the same each time. Objects never
//! change, so a copy is right or damaged, never old; each has a checksum, and one that fails it counts as not there.
//! All of it is derived: files may be deleted at any time, are not synced, and a folder of another format is emptied at
//! the start (docs/formats/cache.md). One process uses a folder at a time: it lies in the data folder, which is locked.
//!
//! Both tiers forget what was not used for longest. What formats the bytes have is not known here.
#![allow(clippy::disallowed_methods, reason = "files of a cache need none of the care of runtime's: they may be lost")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::ObjectKey;
use parking_lot::Mutex;
use runtime::{Counter, Counters, Gauge, Registry};
use tokio::sync::mpsc;

/// What the folder's file `FORMAT` says. Any other text, or none: the folder is emptied.
const FORMAT: &str = "bellrock range cache 1\n";

/// Begins each file.
const MAGIC: [u8; 4] = *b"BRC1";

/// Magic and checksum.
const HEADER_BYTES: usize = 8;

/// A file takes whole pages of the disk.
const PAGE_BYTES: u64 = 4096;

/// A range above this share of a tier's bytes is not kept there: it would drive out too much else.
const RANGE_SHARE: u64 = 8;

/// Files that wait to be written; more are not kept. A disk that is slower than the network is no cache.
const WRITES_MAX: usize = 64;

/// Of the disk's free space: the index's log lies on the same disk and comes first.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// How much may be kept; 0 switches a tier off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// In memory.
    pub memory_bytes: u64,
    /// On disk.
    pub disk_bytes: u64,
}

/// A range of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Span {
    key: ObjectKey,
    start: u64,
    end: u64,
}

/// The copies. Clones are the same.
#[derive(Clone)]
pub struct RangeCache {
    inner: Arc<Inner>,
    writes: mpsc::Sender<Write>,
}

struct Inner {
    folder: PathBuf,
    limits: CacheLimits,
    /// Never held while a file is read or written.
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    memory: Lru<Bytes>,
    /// Files that are known to be there.
    disk: Lru<()>,
}

/// What the one task that touches files does, in order.
enum Write {
    Keep(Span, Bytes),
    Forget(ObjectKey),
    /// Tests wait for what came before.
    #[cfg(test)]
    Told(tokio::sync::oneshot::Sender<()>),
}

struct Metrics {
    hits: Counters<1>,
    misses: Counter,
    damaged: Counter,
    memory_bytes: Gauge,
    disk_bytes: Gauge,
}

impl RangeCache {
    /// Opens the folder, creating or emptying it as needed. Blocks.
    ///
    /// Needs a runtime: a task of its own writes the files, and ends with the last clone.
    pub fn open(folder: &Path, limits: CacheLimits, registry: &Registry) -> io::Result<RangeCache> {
        let mut state = State::default();
        if limits.disk_bytes > 0 {
            prepare(folder)?;
            state.disk = found(folder)?;
        }
        let metrics = Metrics::new(registry);
        let inner = Arc::new(Inner { folder: folder.to_owned(), limits, state: Mutex::new(state), metrics });
        let (writes, inbox) = mpsc::channel(WRITES_MAX);
        // Not by `inner` alone: the task must end when nobody can send any more.
        runtime::spawn(write(inner.clone(), inbox));
        Ok(RangeCache { inner, writes })
    }

    /// The copies that there are, in the order of `ranges`.
    pub(crate) async fn get(&self, key: &ObjectKey, ranges: &[Range<u64>]) -> Vec<Option<Bytes>> {
        let mut copies = Vec::with_capacity(ranges.len());
        for range in ranges {
            let span = Span { key: *key, start: range.start, end: range.end };
            let copy = match self.inner.in_memory(&span) {
                Some(bytes) => {
                    self.inner.metrics.hits.with(["memory"]).inc();
                    Some(bytes)
                }
                None => self.on_disk(span).await,
            };
            if copy.is_none() {
                self.inner.metrics.misses.inc();
            }
            copies.push(copy);
        }
        copies
    }

    /// Keeps a copy of what was fetched.
    pub(crate) fn keep(&self, key: &ObjectKey, range: &Range<u64>, bytes: &Bytes) {
        let span = Span { key: *key, start: range.start, end: range.end };
        // A piece may be a view into a much larger buffer, which would stay with it.
        let bytes = Bytes::copy_from_slice(bytes);
        self.inner.remember(span, bytes.clone());
        if fits(bytes.len() as u64, self.inner.limits.disk_bytes) {
            // Full: this one is not kept, and is fetched again some time.
            self.writes.try_send(Write::Keep(span, bytes)).ok();
        }
    }

    /// Throws every copy of an object away: its bytes are not what they should be.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        let mut state = self.inner.state.lock();
        state.memory.remove_object(key);
        // The files go in their turn; without their entries they are not looked at.
        state.disk.remove_object(key);
        drop(state);
        self.writes.try_send(Write::Forget(*key)).ok();
    }

    async fn on_disk(&self, span: Span) -> Option<Bytes> {
        self.inner.state.lock().disk.get(&span)?;
        let path = self.inner.path(&span);
        let read = runtime::blocking(move || fs::read(path).map_err(|error| error.to_string())).await;
        match read.and_then(|file| decode(&span, file)) {
            Ok(bytes) => {
                self.inner.metrics.hits.with(["disk"]).inc();
                self.inner.remember(span, bytes.clone());
                Some(bytes)
            }
            Err(why) => {
                // Deleted by somebody, or damaged: fetched again either way.
                self.inner.metrics.damaged.inc();
                tracing::warn!(object = %span.key, error = why, "cached range can't be read, it is fetched again");
                let mut state = self.inner.state.lock();
                state.disk.remove(&span);
                None
            }
        }
    }

    #[cfg(test)]
    async fn written(&self) {
        let (told, done) = tokio::sync::oneshot::channel();
        self.writes.send(Write::Told(told)).await.ok();
        done.await.unwrap();
    }
}

impl Inner {
    fn in_memory(&self, span: &Span) -> Option<Bytes> {
        self.state.lock().memory.get(span).cloned()
    }

    fn remember(&self, span: Span, bytes: Bytes) {
        let length = bytes.len() as u64;
        if !fits(length, self.limits.memory_bytes) {
            return;
        }
        let mut state = self.state.lock();
        state.memory.insert(span, bytes, length);
        while state.memory.bytes > self.limits.memory_bytes && state.memory.pop_oldest().is_some() {}
        self.metrics.memory_bytes.set(state.memory.bytes as i64);
    }

    fn path(&self, span: &Span) -> PathBuf {
        self.folder.join(span.file_name())
    }

    /// Writes one file and deletes what it drives out. Blocks.
    fn keep_on_disk(&self, span: Span, bytes: &Bytes) -> io::Result<()> {
        if runtime::free_bytes(&self.folder)? < FREE_BYTES_MIN {
            return Ok(());
        }
        let temporary = self.folder.join("writing.tmp");
        fs::write(&temporary, encode(&span, bytes))?;
        fs::rename(&temporary, self.path(&span))?;
        let mut driven_out = Vec::new();
        {
            let mut state = self.state.lock();
            state.disk.insert(span, (), on_disk_bytes(bytes.len() as u64));
            while state.disk.bytes > self.limits.disk_bytes {
                let Some(oldest) = state.disk.pop_oldest() else { break };
                driven_out.push(oldest);
            }
            self.metrics.disk_bytes.set(state.disk.bytes as i64);
        }
        for span in driven_out {
            remove(&self.path(&span))?;
        }
        Ok(())
    }

    /// Deletes the files of an object. Blocks.
    fn forget_on_disk(&self, key: &ObjectKey) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let span = path.file_name().and_then(|name| Span::of_file_name(name.to_str()?));
            if span.is_some_and(|span| span.key == *key) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

impl Span {
    fn file_name(&self) -> String {
        format!("{}@{}-{}", self.key.to_string().replace('/', "!"), self.start, self.end)
    }

    fn of_file_name(name: &str) -> Option<Span> {
        let (key, range) = name.rsplit_once('@')?;
        let (start, end) = range.split_once('-')?;
        let key = ObjectKey::parse(&key.replace('!', "/")).ok()?;
        let span = Span { key, start: start.parse().ok()?, end: end.parse().ok()? };
        (span.file_name() == name).then_some(span)
    }
}

impl Metrics {
    fn new(registry: &Registry) -> Metrics {
        Metrics {
            hits: registry.counters(
                "bellrock_bucket_cache_hits_total",
                "Ranges of objects that were at hand, in memory or on disk.",
                ["tier"],
            ),
            misses: registry.counter(
                "bellrock_bucket_cache_misses_total",
                "Ranges of objects that were not, and were fetched. Where it outruns the hits of a dashboard, give the cache more bytes.",
            ),
            damaged: registry.counter(
                "bellrock_bucket_cache_damaged_total",
                "Cached files that were gone or failed their checksum, and were fetched again. Worry about the disk when it grows.",
            ),
            memory_bytes: registry.gauge("bellrock_bucket_cache_memory_bytes", "Bytes of ranges that are kept in memory."),
            disk_bytes: registry.gauge("bellrock_bucket_cache_disk_bytes", "Bytes of ranges that are kept on disk."),
        }
    }
}

async fn write(inner: Arc<Inner>, mut inbox: mpsc::Receiver<Write>) {
    while let Some(wanted) = inbox.recv().await {
        let inner = inner.clone();
        let done = runtime::blocking(move || match wanted {
            Write::Keep(span, bytes) => inner.keep_on_disk(span, &bytes),
            Write::Forget(key) => inner.forget_on_disk(&key),
            #[cfg(test)]
            Write::Told(told) => {
                told.send(()).ok();
                Ok(())
            }
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "range not kept on disk");
        }
    }
}

/// Creates the folder, or empties one that another version has written.
fn prepare(folder: &Path) -> io::Result<()> {
    let format = folder.join("FORMAT");
    if fs::read(&format).is_ok_and(|text| text == FORMAT.as_bytes()) {
        return Ok(());
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(folder)?,
    }
    fs::write(format, FORMAT)
}

/// The files of an earlier process, those that were written longest ago the first to go.
fn found(folder: &Path) -> io::Result<Lru<()>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(span) = entry.file_name().to_str().and_then(Span::of_file_name) {
            let metadata = entry.metadata()?;
            files.push((metadata.modified()?, span, metadata.len()));
        }
    }
    files.sort_unstable_by_key(|(modified, span, _)| (*modified, *span));
    let mut disk = Lru::default();
    for (_, span, length) in files {
        disk.insert(span, (), on_disk_bytes(length.saturating_sub(HEADER_BYTES as u64)));
    }
    Ok(disk)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn fits(bytes: u64, limit: u64) -> bool {
    bytes <= limit / RANGE_SHARE
}

fn on_disk_bytes(bytes: u64) -> u64 {
    (bytes + HEADER_BYTES as u64).next_multiple_of(PAGE_BYTES)
}

fn encode(span: &Span, bytes: &Bytes) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEADER_BYTES + bytes.len());
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&checksum(span, bytes).to_le_bytes());
    file.extend_from_slice(bytes);
    file
}

fn decode(span: &Span, file: Vec<u8>) -> Result<Bytes, String> {
    let wanted = span.end - span.start;
    if file.len() as u64 != HEADER_BYTES as u64 + wanted {
        return Err(format!("{} bytes instead of {} and a header", file.len(), wanted));
    }
    let file = Bytes::from(file);
    let bytes = file.slice(HEADER_BYTES..);
    if file[..4] != MAGIC || file[4..HEADER_BYTES] != checksum(span, &bytes).to_le_bytes() {
        return Err("its checksum does not match".to_owned());
    }
    Ok(bytes)
}

/// Over the name too: a file under another's name is damaged.
fn checksum(span: &Span, bytes: &Bytes) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(span.file_name().as_bytes()), bytes)
}

/// Entries with their sizes, by last use.
struct Lru<V> {
    entries: HashMap<Span, (V, u64, u64)>,
    /// By the number of their last use.
    order: BTreeMap<u64, Span>,
    uses: u64,
    bytes: u64,
}

impl<V> Default for Lru<V> {
    fn default() -> Lru<V> {
        Lru { entries: HashMap::new(), order: BTreeMap::new(), uses: 0, bytes: 0 }
    }
}

impl<V> Lru<V> {
    fn get(&mut self, span: &Span) -> Option<&V> {
        let (value, _, used) = self.entries.get_mut(span)?;
        self.order.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.order.insert(self.uses, *span);
        Some(value)
    }

    fn insert(&mut self, span: Span, value: V, bytes: u64) {
        self.remove(&span);
        self.uses += 1;
        self.bytes += bytes;
        self.order.insert(self.uses, span);
        self.entries.insert(span, (value, bytes, self.uses));
    }

    fn remove(&mut self, span: &Span) {
        if let Some((_, bytes, used)) = self.entries.remove(span) {
            self.order.remove(&used);
            self.bytes -= bytes;
        }
    }

    fn remove_object(&mut self, key: &ObjectKey) {
        // A scan: it happens when bytes are damaged.
        let spans: Vec<Span> = self.entries.keys().filter(|span| span.key == *key).copied().collect();
        for span in spans {
            self.remove(&span);
        }
    }

    fn pop_oldest(&mut self) -> Option<Span> {
        let (_, span) = self.order.pop_first()?;
        if let Some((_, bytes, _)) = self.entries.remove(&span) {
            self.bytes -= bytes;
        }
        Some(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Lease, Right};

    fn key(number: u64) -> ObjectKey {
        ObjectKey::Block { right: Right::Compactor(Lease { incarnation: 1, number }), attempt: 0 }
    }

    fn open(folder: &Path, memory_bytes: u64, disk_bytes: u64) -> RangeCache {
        RangeCache::open(folder, CacheLimits { memory_bytes, disk_bytes }, &Registry::new()).unwrap()
    }

    fn bytes(text: &str, length: usize) -> Bytes {
        text.repeat(length).into()
    }

    async fn get(cache: &RangeCache, number: u64, range: Range<u64>) -> Option<Bytes> {
        cache.get(&key(number), &[range]).await.remove(0)
    }

    #[tokio::test]
    async fn what_is_kept_is_there_in_this_process_and_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("cache");
        let cache = open(&folder, 1 << 20, 1 << 20);
        assert_eq!(get(&cache, 1, 0..3).await, None);
        cache.keep(&key(1), &(0..3), &"abc".into());
        assert_eq!(get(&cache, 1, 0..3).await, Some("abc".into()));
        assert_eq!((get(&cache, 1, 0..2).await, get(&cache, 2, 0..3).await), (None, None), "as it was asked for");
        cache.written().await;
        drop(cache);
        let cache = open(&folder, 1 << 20, 1 << 20);
        assert_eq!(get(&cache, 1, 0..3).await, Some("abc".into()));
        // And in memory from now on.
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(get(&cache, 1, 0..3).await, Some("abc".into()));
    }

    #[tokio::test]
    async fn each_tier_keeps_what_was_used_last_within_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        // Eight ranges of 1000 bytes in memory, eight pages on disk.
        let cache = open(dir.path(), 8_000, 8 * PAGE_BYTES);
        for number in 0..8 {
            cache.keep(&key(number), &(0..1000), &bytes("x", 1000));
            cache.written().await;
        }
        assert!(get(&cache, 0, 0..1000).await.is_some(), "used: 1 is the oldest now");
        cache.inner.state.lock().disk.get(&Span { key: key(0), start: 0, end: 1000 });
        cache.keep(&key(8), &(0..1000), &bytes("x", 1000));
        cache.written().await;
        {
            let state = cache.inner.state.lock();
            assert!(state.memory.bytes <= 8_000 && state.disk.bytes <= 8 * PAGE_BYTES);
            let is_kept = |number| {
                let span = Span { key: key(number), start: 0, end: 1000 };
                (state.memory.entries.contains_key(&span), cache.inner.path(&span).exists())
            };
            assert_eq!([0, 1, 2, 8].map(is_kept), [(true, true), (false, false), (true, true), (true, true)]);
        }
        // Too large for either.
        cache.keep(&key(9), &(0..5000), &bytes("x", 5000));
        cache.written().await;
        assert_eq!(get(&cache, 9, 0..5000).await, None);
    }

    #[tokio::test]
    async fn damaged_files_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 0, 1 << 20);
        let file = |number| cache.inner.path(&Span { key: key(number), start: 0, end: 3 });
        for number in 0..5 {
            cache.keep(&key(number), &(0..3), &"abc".into());
        }
        cache.written().await;
        let mut flipped = fs::read(file(0)).unwrap();
        flipped[HEADER_BYTES] ^= 1;
        fs::write(file(0), flipped).unwrap();
        fs::write(file(1), b"BRC1").unwrap();
        fs::copy(file(4), file(2)).unwrap();
        fs::remove_file(file(3)).unwrap();
        for number in 0..4 {
            assert_eq!(get(&cache, number, 0..3).await, None, "{number}");
        }
        assert_eq!(get(&cache, 4, 0..3).await, Some("abc".into()));
        cache.forget(&key(4));
        cache.written().await;
        assert_eq!(get(&cache, 4, 0..3).await, None);
        assert!(!file(4).exists());
    }

    #[tokio::test]
    async fn a_folder_of_another_format_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 0, 1 << 20);
        cache.keep(&key(1), &(0..3), &"abc".into());
        cache.written().await;
        fs::write(dir.path().join("FORMAT"), "bellrock range cache 2\n").unwrap();
        let cache = open(dir.path(), 0, 1 << 20);
        assert_eq!(get(&cache, 1, 0..3).await, None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
