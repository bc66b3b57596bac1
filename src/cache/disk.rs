//! The disk tier: a log-structured segment store. `FORMAT.md` in its folder describes the bytes.
//!
//! One thread writes, in large appends at the end of the log; reads come from the page cache where they can and from
//! the blocking pool where they must; no lock is held across I/O. An error of the tier is a miss and a metric.

mod appender;
mod buffer;
mod evict;
mod flush;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hold;
mod index;
pub mod inspect;
mod io;
mod layout;
mod lookup;
mod purge_log;
mod raw_read;
mod read;
mod recovery;
mod restore;
mod retire;
mod segment;
mod send;
mod store;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::admission::{Admission, Rule};
use super::epochs::{Epochs, Mark, Record};
use crate::metrics::TierMetrics;
use format::{PurgeRecord, PurgeScope, head_id, primary_hash};
use store::{Stop, Store};

pub use read::Object;
pub use send::Placed;
use writer::Origin;

pub(super) use evict::survivors;
pub(super) use layout::{Layout, head_identity};
pub use writer::{PartialReader, Writer};

/// What the disk tier is set up from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its directory; created if missing. One process at a time.
    pub path: PathBuf,
    /// Bytes it may take on the disk, at least four segments.
    pub capacity: u64,
    /// Bytes of one segment; a power of two from 1 MiB to 1 GiB.
    pub segment_size: u64,
    /// When what was written is synchronised.
    pub sync: SyncPolicy,
    /// What it takes once it is full.
    pub admission: Rule,
}

/// When the disk is told to keep what was written, and so what a power failure or a crash of the system may cost. What
/// the system was given outlasts the process in any case: `kill -9` costs the last 50 ms or 1 MiB. Purges are always
/// synchronised before they are acknowledged, and nothing here can bring back what was purged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncPolicy {
    /// On closing. Between, the system writes when it thinks fit: Linux within about 30 seconds.
    #[default]
    Close,
    /// When so much time has passed since the last time, or 64 MiB were written.
    Every(Duration),
    /// After each append of at most 1 MiB or 50 ms.
    Always,
}

impl Settings {
    /// 16 MiB: large enough for sequential writes, small enough that evicting one is a small loss.
    pub const DEFAULT_SEGMENT_SIZE: u64 = 16 << 20;
}

/// A hash that stands for what was hashed.
pub type Hash128 = [u8; 16];

/// The identity of one stored response: the primary hash groups all Vary variants of one cache key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// Of the cache key without Vary.
    pub primary: Hash128,
    /// Of the request fields that Vary names; `None` if the response has no Vary.
    pub variant: Option<Hash128>,
}

/// Why a directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another tier of this one, uses it.
    #[error("{path}: another process uses this cache directory")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It holds something that the tier did not write.
    #[error(
        "{path} holds `{name}`, which is not part of a selvedge cache; use a directory of its own or empty this one"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The first such file.
        name: String,
    },
    /// Another version of selvedge wrote it.
    #[error(
        "{path} has cache format {found} and this version reads format {expected}; empty it or use another directory"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// In the superblock.
        found: u32,
        /// Of this code.
        expected: u32,
    },
    /// Neither copy of the superblock is valid.
    #[error("{path}/superblock is damaged or not of a selvedge cache; empty the directory to start anew")]
    Damaged {
        /// The directory.
        path: PathBuf,
    },
    /// There is no store in it, and none is wanted.
    #[error("{path} is not a selvedge cache: it has no superblock; name the directory that [cache.disk] names")]
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// The segment size cannot be changed under a store.
    #[error("{path} was made with segments of {stored} bytes, not {wanted}; keep the size or empty the directory")]
    SegmentSize {
        /// The directory.
        path: PathBuf,
        /// As stored.
        stored: u64,
        /// As set.
        wanted: u64,
    },
    /// The sizes make no store.
    #[error(
        "a disk cache of {capacity} bytes in segments of {segment_size} is impossible: 4 to 1048575 segments, each a power of two from 1 MiB to 1 GiB"
    )]
    Sizes {
        /// As set.
        capacity: u64,
        /// As set.
        segment_size: u64,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}

/// Why bytes could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The disk failed, or its file is too short.
    #[error("reading failed: {0}")]
    Io(std::io::ErrorKind),
    /// The bytes are not those that were written.
    #[error("checksum mismatch")]
    Checksum,
    /// Its segment was given up, since the disk fails there, or was needed after a reader had held it for ten minutes.
    #[error("gone while it was being read")]
    Gone,
    /// The write that was being followed did not end well.
    #[error("the write was aborted")]
    Aborted,
}

impl ReadError {
    /// The metric's label.
    fn kind(self) -> &'static str {
        match self {
            Self::Checksum => "checksum",
            Self::Io(_) | Self::Gone | Self::Aborted => "read",
        }
    }
}

/// Why an object is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A write failed before; reads go on.
    #[error("the disk tier is out of service")]
    OutOfService,
    /// The disk does not keep up, or readers hold what has to be evicted.
    #[error("the disk does not keep up")]
    Busy,
    /// Metadata above 256 KiB (less with small segments) or a body above half the capacity.
    #[error("too large for the disk tier")]
    TooLarge,
    /// Purged while it was being written.
    #[error("purged while it was being written")]
    Purged,
    /// Something newer was stored while it was being written.
    #[error("something newer was stored")]
    Superseded,
    /// Its beginning was evicted before its end was written.
    #[error("evicted while it was being written")]
    Evicted,
    /// The tier was closed.
    #[error("the disk tier is closed")]
    Closed,
}

/// Why a purge may not outlast a restart. What it names is not served by this process in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    /// The log could not be written; it is tried again with the next purge.
    #[error("the purge log could not be written: {0}")]
    Io(std::io::ErrorKind),
    /// The tier was closed.
    #[error("the disk tier is closed")]
    Closed,
}

/// What the tier holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of indexed records, framing included.
    pub bytes: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of all segments.
    pub capacity: u64,
    /// Number of segments.
    pub segments: u32,
    /// Bytes of memory for index and admission.
    pub ram: u64,
}

/// The tier. Dropping it writes what waits and ends its threads; [`DiskTier::close`] also seals, for a quicker start.
pub struct DiskTier {
    store: Arc<Store>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Unlocks the directory when the threads have ended.
    _lock: File,
}

impl DiskTier {
    /// Locks the directory and starts the tier's threads. Blocks. Of a large store most is recovered while the tier is
    /// in service: what is not there yet is a miss.
    ///
    /// # Errors
    /// See [`OpenError`]; a directory of another version or with foreign files is never changed.
    pub fn open(settings: &Settings, metrics: TierMetrics) -> Result<Arc<Self>, OpenError> {
        Self::open_on(&io::Volume::new(&settings.path), settings, metrics)
    }

    fn open_on(volume: &io::Volume, settings: &Settings, metrics: TierMetrics) -> Result<Arc<Self>, OpenError> {
        let opened = recovery::open(settings, volume)?;
        Self::start(opened, settings, metrics)
    }

    fn start(opened: recovery::Opened, settings: &Settings, metrics: TierMetrics) -> Result<Arc<Self>, OpenError> {
        let io = |source| OpenError::Io { path: settings.path.clone(), source };
        let store = Arc::new(Store::new(opened.found, Admission::new(settings.admission), metrics));
        let (flush_store, purge_store) = (Arc::clone(&store), Arc::clone(&store));
        let tier = Self { store, threads: Mutex::default(), _lock: opened.lock };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let writes = thread("disk-writes").spawn(move || flush::run(&flush_store)).map_err(io)?;
        tier.threads.lock().push(writes);
        let (log, requests) = (opened.log, opened.requests);
        let purges = thread("disk-purges").spawn(move || purge_log::run(&purge_store, log, &requests)).map_err(io)?;
        tier.threads.lock().push(purges);
        if !tier.store.recovery.has_ended() {
            let store = Arc::clone(&tier.store);
            tier.threads.lock().push(thread("disk-recovery").spawn(move || restore::run(&store)).map_err(io)?);
        }
        let stats = tier.stats();
        tier.store.metrics.capacity.set(stats.capacity as i64);
        tier.store.publish();
        tracing::info!(path = %settings.path.display(), objects = stats.objects, bytes = stats.bytes, "disk tier open");
        Ok(Arc::new(tier))
    }

    /// Returns when all that is on the disk can be found, or the tier was closed.
    pub async fn recovered(&self) {
        self.store.recovery.ended().await;
    }

    /// The stored object; `None` if there is none or it cannot be read, which is counted as an error.
    pub async fn get(&self, key: &Key) -> Option<Object> {
        self.store.get(key).await
    }

    /// Whether the index names the object, or may do so when recovery has ended; nothing is read.
    pub fn contains(&self, key: &Key) -> bool {
        if self.store.index.is_recovering() {
            return true;
        }
        let id = head_id(key, self.store.geometry.seed);
        self.store.index.shard(id.a).get(id).is_some()
    }

    /// Begins to store an object that was fetched. `None` while the tier is out of service or far behind, or if admission
    /// wants to see a second request first; what is stored under the key is then out of date and dropped, and so is
    /// what is being written.
    pub fn writer(self: &Arc<Self>, key: Key) -> Option<Writer> {
        let id = head_id(&key, self.store.geometry.seed);
        // What replaces something is wanted again; and dropping the old is not durable, being replaced is.
        let admitted = self.contains(&key) || self.store.admission.admits((id.a, id.b), self.store.has_free());
        self.begin(key, admitted)
    }

    /// The same for something small that others depend on, as slices do on their head: it needs no admission.
    pub fn writer_of_head(self: &Arc<Self>, key: Key) -> Option<Writer> {
        self.begin(key, true)
    }

    fn begin(self: &Arc<Self>, key: Key, admitted: bool) -> Option<Writer> {
        if admitted && self.store.is_relaxed() {
            return Some(Writer::new(&self.store, key, Origin::Fill));
        }
        self.store.outdate(&key);
        None
    }

    /// Drops what is stored under a key, and what is being written: something newer is elsewhere.
    pub fn outdate(&self, key: &Key) {
        self.store.outdate(key);
    }

    /// Begins to store an object that has earned it in memory. `None` while the tier is out of service or far behind. It
    /// takes no other's place: the write is given up when a fetch begins that may bring a newer one.
    pub fn demotion(self: &Arc<Self>, key: Key) -> Option<Writer> {
        self.store.is_relaxed().then(|| Writer::new(&self.store, key, Origin::Memory))
    }

    /// Counts, for the metrics, that an object was found and used.
    pub fn count_used(&self) {
        self.store.metrics.hits.inc();
    }

    /// Counts a hit of what is stored, as if it had been read. `false` if there is nothing.
    pub fn count_hit(&self, key: &Key) -> bool {
        let id = head_id(key, self.store.geometry.seed);
        self.store.index.shard(id.a).hit(id).is_some()
    }

    /// Replaces the metadata of a stored object and keeps its body; false if the object is gone or the write failed.
    pub async fn update_meta(&self, key: &Key, meta: &[u8], mark: &Mark) -> bool {
        self.store.update_meta(key, meta, mark).await.unwrap_or(false)
    }

    /// Takes back all variants of a cache key and every write under way for it; durable when it returns. True if
    /// anything was there, or if recovery had yet to tell.
    ///
    /// # Errors
    /// The objects are gone from this process, but a restart might bring them back.
    pub async fn purge(&self, primary: &Hash128) -> Result<bool, PurgeError> {
        let is_recovering = self.store.index.is_recovering();
        // What a purge by scope has taken away is still in the index, but not there for anybody.
        let live = self.store.epochs.is_quiet() || self.is_live(primary).await;
        let a = primary_hash(primary, self.store.geometry.seed);
        let ((stored, writes), seq) = {
            let mut shard = self.store.index.shard(a);
            // Under the lock, so that no record of a later write has a lower sequence.
            (shard.purge(a), self.store.next_seq())
        };
        self.store.purge_log.append(PurgeRecord { scope: PurgeScope::Key(*primary), seq }).await?;
        Ok(live && stored > 0 || writes > 0 || is_recovering)
    }

    /// Makes purges by scope durable that [`Epochs`] holds already.
    ///
    /// # Errors
    /// As [`DiskTier::purge`].
    pub(super) async fn log(&self, records: &[Record]) -> Result<(), PurgeError> {
        let mut appended = Vec::with_capacity(records.len());
        for record in records {
            appended.push(self.store.purge_log.append((*record).into()));
        }
        futures::future::try_join_all(appended).await.map(drop)
    }

    /// Whether any variant of a cache key is stored and not purged, or recovery has yet to tell.
    pub async fn is_live(&self, primary: &Hash128) -> bool {
        self.store.is_live(primary).await
    }

    /// The purges by scope and the counter, as the purge log had them.
    pub fn epochs(&self) -> &Arc<Epochs> {
        &self.store.epochs
    }

    /// No stored object has a lower epoch.
    pub fn oldest_epoch(&self) -> u64 {
        self.store.oldest_epoch()
    }

    /// Takes back everything; durable when it returns.
    ///
    /// # Errors
    /// As [`DiskTier::purge`].
    pub async fn purge_all(&self) -> Result<(), PurgeError> {
        let seq = self.store.index.clear(|| self.store.next_seq());
        self.store.purge_log.append(PurgeRecord { scope: PurgeScope::All, seq }).await
    }

    /// What the tier holds now.
    pub fn stats(&self) -> Stats {
        let (objects, bytes) = self.store.index.totals();
        let geometry = &self.store.geometry;
        let segments = geometry.segments;
        let ram = self.store.index.ram() + self.store.admission.ram();
        Stats { bytes, objects, capacity: geometry.start(segments), segments, ram }
    }

    /// Writes what waits, seals the open segment and waits for the disk. Afterwards nothing more is stored or purged.
    pub async fn close(&self) {
        let threads = self.stop(Stop::Seal);
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        if tokio::task::spawn_blocking(join).await.is_err() {
            tracing::warn!("the disk tier's threads could not be waited for");
        }
    }

    /// Lets another tier use the directory of this one, which is closed but never dropped.
    #[cfg(test)]
    pub(super) fn unlock(&self) {
        rustix::fs::flock(&self._lock, rustix::fs::FlockOperation::Unlock).unwrap();
    }

    fn stop(&self, how: Stop) -> Vec<JoinHandle<()>> {
        self.store.recovery.stop();
        self.store.appender.lock().stop.get_or_insert(how);
        self.store.work.notify_one();
        self.store.purge_log.close();
        std::mem::take(&mut *self.threads.lock())
    }
}

impl Drop for DiskTier {
    fn drop(&mut self) {
        for thread in self.stop(Stop::Flush) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
pub(super) mod stepped;
#[cfg(test)]
mod tests;
