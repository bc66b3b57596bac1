//! Reading a store's directory from outside: no lock, nothing written, and therefore safe beside a running server, which
//! goes on appending, evicting and rewriting meanwhile.
//!
//! What counts is decided by the code that recovery uses: a look at the directory finds what a start would find. Every
//! use of a segment has its own generation, so that whatever changes between two reads is seen, skipped and counted; it
//! is not damage.

mod verify;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::format::{
    self, BLOCK, Geometry, Kind, PurgeRecord, PurgeScope, RECORD_HEADER, Record, block_sum, chunk_id, head_id,
    primary_hash,
};
use super::index::{Index, Location};
use super::io::{DiskFile, Mode, Volume};
use super::purge_log::{Loaded, LogFile};
use super::recovery;
use super::restore::{KeyPurges, Order};
use super::{Hash128, Key, OpenError, segment};
use crate::cache::epochs::{self, Epochs, Mark, Standing};
use crate::cache::scope;

pub use verify::{Damage, Place, Problem, Verified};

/// Bytes read of a HEAD record at first; its metadata is nearly always among them.
const FIRST: u32 = 4 << 10;
/// What is being written this moment is there after so long, or it never will be.
const SETTLE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 20 });
/// A segment that is used anew so often while it is being looked at is left out.
const ATTEMPTS: u32 = 4;

/// A store's directory, open for reading.
pub struct Inspector {
    volume: Volume,
    /// There is none before the first write.
    data: Option<DiskFile>,
    geometry: Geometry,
    store_id: u64,
    allocated: u64,
}

/// What the directory says of itself, without a look at the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Version of the format.
    pub version: u32,
    /// Bytes of one segment.
    pub segment_size: u64,
    /// Bytes of the data file.
    pub allocated: u64,
    /// Segments that are full and listed by their footers.
    pub sealed: u32,
    /// Segments that are being written, or were when their process ended.
    pub open: u32,
    /// Segments without records.
    pub free: u32,
    /// Bytes of the purge log.
    pub log_bytes: u64,
    /// Purges of a URL in it.
    pub key_purges: u64,
    /// Purges by host, prefix or tag in it, and soft ones.
    pub scope_purges: u64,
    /// Purges of everything in it.
    pub all_purges: u64,
    /// The log is missing or damaged, so that everything stored counts as purged.
    pub is_log_lost: bool,
}

/// The objects that a start of the server would find.
pub struct Contents<'a> {
    store: &'a Inspector,
    index: Index,
    /// By segment; 0 for one without records.
    generations: Vec<u32>,
    /// In the order of their generations.
    order: Vec<u32>,
    epochs: Epochs,
    skipped: u32,
}

/// A stored object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its identity.
    pub key: Key,
    /// What was passed to `commit` or `update_meta`.
    pub meta: Bytes,
    /// What purges by scope compare.
    pub mark: Mark,
    /// Bytes of the body.
    pub len: u64,
    /// Bytes of its records.
    pub stored: u64,
    /// It was purged softly: stale since this time.
    pub stale_since: Option<SystemTime>,
    /// Blocks of the body in CHUNK records.
    first: u32,
    write: u64,
    head: Location,
}

/// Why an object that the index names is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Its segment was used anew meanwhile.
    Changed,
    /// A checksum does not match, or the disk fails.
    Damaged,
    /// A chunk of its body is gone, as eviction leaves it.
    Incomplete,
    /// A purge by scope has taken it.
    Purged,
}

/// How many objects were visited, and how many were not, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visited {
    /// Objects.
    pub objects: u64,
    /// As [`Missed::Changed`].
    pub changed: u64,
    /// As [`Missed::Damaged`].
    pub damaged: u64,
    /// As [`Missed::Incomplete`].
    pub incomplete: u64,
    /// As [`Missed::Purged`].
    pub purged: u64,
    /// Segments that were used anew while they were being looked at.
    pub skipped_segments: u32,
}

/// Why a body was not copied to its end.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The store has not got it any more, or not whole.
    #[error("{0}")]
    Store(Missed),
    /// The output does not take it.
    #[error("{0}")]
    Output(#[from] io::Error),
}

impl std::fmt::Display for Missed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Changed => "it was evicted while it was being read",
            Self::Damaged => "it is damaged on the disk",
            Self::Incomplete => "a part of it is gone",
            Self::Purged => "it is purged",
        })
    }
}

impl Inspector {
    /// Opens a directory.
    ///
    /// # Errors
    /// It is no store, not one of this version, or cannot be read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        std::fs::metadata(path).map_err(io)?;
        let volume = Volume::new(path);
        let superblock =
            recovery::read_superblock(&volume)?.ok_or_else(|| OpenError::NoStore { path: path.to_owned() })?;
        let size = superblock.segment_size;
        if !size.is_power_of_two() || !(1 << 20..=1 << 30).contains(&size) {
            return Err(OpenError::Damaged { path: path.to_owned() });
        }
        let data = match volume.open(recovery::DATA_NAME, Mode::Read) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io(error)),
        };
        let allocated = data.as_ref().map_or(Ok(0), |file| file.len()).map_err(io)?;
        let segments = allocated.div_ceil(u64::from(size)).min(1 << 20) as u32;
        let geometry = Geometry { segment_size: size, segments, seed: superblock.seed };
        Ok(Self { volume, data, geometry, store_id: superblock.store_id, allocated })
    }

    /// Counts segments and purges.
    ///
    /// # Errors
    /// The purge log cannot be read.
    pub fn overview(&self) -> io::Result<Overview> {
        let log = self.load_log()?;
        let mut overview = Overview {
            version: format::VERSION,
            segment_size: u64::from(self.geometry.segment_size),
            allocated: self.allocated,
            log_bytes: log.size,
            is_log_lost: log.is_lost,
            ..Overview::default()
        };
        for record in &log.records {
            match record.scope {
                PurgeScope::Key(_) => overview.key_purges += 1,
                PurgeScope::All => overview.all_purges += 1,
                PurgeScope::Scope(_) => overview.scope_purges += 1,
                PurgeScope::Object(_) | PurgeScope::Floor => {}
            }
        }
        for segment in 0..self.geometry.segments {
            let content = self.data.as_ref().and_then(|file| segment::read(file, &self.geometry, segment));
            match content.filter(|content| !content.entries.is_empty()) {
                Some(content) if content.is_sealed => overview.sealed += 1,
                Some(_) => overview.open += 1,
                None => overview.free += 1,
            }
        }
        Ok(overview)
    }

    /// Reads which objects there are: the footers, and the heads of records where there is none. It takes the memory that
    /// the server's index takes. `progress` is told the bytes of the data file that were passed, and all of them.
    ///
    /// # Errors
    /// The purge log cannot be read.
    pub fn contents(&self, progress: &mut dyn FnMut(u64, u64)) -> io::Result<Contents<'_>> {
        let log = self.load_log()?;
        let Read { mut index, generations, order, skipped } = self.read_index(&log, progress);
        // What was purged meanwhile is purged; what the log has forgotten meanwhile was in the first look.
        let later = self.load_log()?;
        if log.is_lost || later.is_lost {
            index = Index::default();
        }
        let known: HashSet<u64> = log.records.iter().map(|record| record.seq).collect();
        let new = later.records.into_iter().filter(|record| !known.contains(&record.seq)).map(as_scope);
        let purges: Vec<PurgeRecord> = log.records.iter().copied().chain(new).collect();
        let epochs = recovery::restored_epochs(0, &purges);
        Ok(Contents { store: self, index, generations, order, epochs, skipped })
    }

    /// The purge log. A unit that is being written this moment may be there in part.
    fn load_log(&self) -> io::Result<Loaded> {
        for _ in 1..ATTEMPTS {
            let loaded = LogFile::load(&self.volume, self.store_id, self.geometry.seed)?;
            if !loaded.is_lost {
                return Ok(loaded);
            }
            std::thread::sleep(SETTLE);
        }
        LogFile::load(&self.volume, self.store_id, self.geometry.seed)
    }

    fn read_index(&self, log: &Loaded, progress: &mut dyn FnMut(u64, u64)) -> Read {
        let segments = self.geometry.segments;
        let (index, mut generations, mut order) = (Index::default(), vec![0; segments as usize], Vec::new());
        let purges = KeyPurges::new(&log.records, self.geometry.seed);
        let Some(file) = &self.data else { return Read { index, generations, order, skipped: 0 } };
        let generation = |segment| segment::generation(file, &self.geometry, segment);
        let mut queue: BTreeMap<(u32, u32), u32> =
            (0..segments).filter_map(|segment| Some(((generation(segment)?, segment), 0))).collect();
        let (total, mut passed, mut skipped) = (queue.len() as u64, 0, 0);
        while let Some(((expected, segment), attempts)) = queue.pop_first() {
            let content = segment::read(file, &self.geometry, segment);
            match content {
                Some(content) if content.generation == expected => {
                    purges.enter(segment, &content.entries, &index, Order::OldestFirst);
                    generations[segment as usize] = expected;
                    order.push(segment);
                }
                // Begun anew, and so its turn comes later.
                Some(content) if content.generation > expected && attempts < ATTEMPTS => {
                    queue.insert((content.generation, segment), attempts + 1);
                    continue;
                }
                Some(_) | None => skipped += 1,
            }
            passed += 1;
            progress(passed * u64::from(self.geometry.segment_size), total * u64::from(self.geometry.segment_size));
        }
        Read { index, generations, order, skipped }
    }
}

/// A purge of a key as one that look-ups compare with: what is asked for later has a higher epoch.
fn as_scope(record: PurgeRecord) -> PurgeRecord {
    match record.scope {
        PurgeScope::Key(primary) => {
            let (kind, scope) = (scope::Kind::Key, scope::of_key(&primary));
            epochs::Record { kind, scope, seq: record.seq.saturating_add(1), soft_at: None }.into()
        }
        PurgeScope::Object(_) | PurgeScope::All | PurgeScope::Scope(_) | PurgeScope::Floor => record,
    }
}

/// What the footers say.
struct Read {
    index: Index,
    generations: Vec<u32>,
    order: Vec<u32>,
    skipped: u32,
}

impl Contents<'_> {
    /// Passes every object on, the oldest first. `progress` is told as that of [`Inspector::contents`].
    ///
    /// # Errors
    /// Those of `visit`, which end it.
    pub fn visit(
        &self,
        progress: &mut dyn FnMut(u64, u64),
        visit: &mut dyn FnMut(Object) -> io::Result<()>,
    ) -> io::Result<Visited> {
        let mut visited = Visited { skipped_segments: self.skipped, ..Visited::default() };
        let Some(file) = &self.store.data else { return Ok(visited) };
        let geometry = &self.store.geometry;
        for (passed, segment) in self.order.iter().enumerate() {
            let (entries, _) = segment::entries(file, geometry, *segment, self.generations[*segment as usize]);
            for entry in entries.iter().filter(|entry| entry.kind == Kind::Head) {
                let location = Location::new(entry.kind, *segment, entry.offset, entry.len);
                if !self.index.shard(entry.id.a).get(entry.id).is_some_and(|found| found.same(location)) {
                    continue;
                }
                match self.load(location) {
                    Ok(object) => {
                        visited.objects += 1;
                        visit(object)?;
                    }
                    Err(missed) => visited.count(missed),
                }
            }
            let size = u64::from(geometry.segment_size);
            progress((passed as u64 + 1) * size, self.order.len() as u64 * size);
        }
        Ok(visited)
    }

    /// All variants of a cache key.
    pub fn variants(&self, primary: &Hash128) -> Vec<Object> {
        let a = primary_hash(primary, self.store.geometry.seed);
        let heads = self.index.shard(a).heads(a);
        let objects = heads.into_iter().filter_map(|location| self.load(location).ok());
        objects.filter(|object| object.key.primary == *primary).collect()
    }

    /// Writes the body of an object, each part once its checksums are found right.
    ///
    /// # Errors
    /// Nothing but the beginning of the body was written.
    pub fn copy_body(&self, object: &Object, out: &mut dyn Write) -> Result<(), CopyError> {
        let seed = self.store.geometry.seed;
        let mut first = 0;
        while first < object.first {
            let id = chunk_id(&object.key, object.write, first, seed);
            let location = self.index.shard(id.a).get(id).ok_or(CopyError::Store(Missed::Incomplete))?;
            let is_it =
                |record: &Record| record.key == object.key && record.write == object.write && record.first == first;
            self.copy_record(location, is_it, out)?;
            first += location.blocks();
        }
        self.copy_record(object.head, |record| record.write == object.write, out)
    }

    fn copy_record(
        &self,
        location: Location,
        is_it: impl Fn(&Record) -> bool,
        out: &mut dyn Write,
    ) -> Result<(), CopyError> {
        let read = || {
            let (record, bytes) = self.read(location, location.len())?;
            let rest = bytes.slice(RECORD_HEADER..record.prefix_len());
            let body = bytes.slice(record.prefix_len()..record.prefix_len() + record.body_len as usize);
            let seed = self.store.geometry.seed;
            let intact =
                body.chunks(BLOCK as usize).zip(record.sums(&rest)).all(|(block, sum)| block_sum(block, seed) == sum);
            (intact && is_it(&record)).then_some(body)
        };
        let body = self.settled(location, read).map_err(CopyError::Store)?;
        Ok(out.write_all(&body)?)
    }

    fn load(&self, location: Location) -> Result<Object, Missed> {
        let seed = self.store.geometry.seed;
        let (record, rest) = self.settled(location, || {
            let (record, bytes) = self.read(location, location.len().min(FIRST))?;
            let is_named = self.is_named(&record, location) && record.kind == Kind::Head;
            is_named.then(|| (record, bytes.slice(RECORD_HEADER..record.prefix_len())))
        })?;
        let (scopes, meta) = (record.scopes(&rest), record.meta(&rest));
        let stale_since = match self.epochs.standing(record.epoch, &record.key.primary, &scopes) {
            Standing::Gone => return Err(Missed::Purged),
            Standing::Stale(since) => Some(since),
            Standing::Valid => None,
        };
        let (mut stored, mut first) = (u64::from(location.len()), 0);
        while first < record.first {
            let id = chunk_id(&record.key, record.write, first, seed);
            let chunk = self.index.shard(id.a).get(id).ok_or(Missed::Incomplete)?;
            stored += u64::from(chunk.len());
            first += chunk.blocks();
        }
        let len = u64::from(record.first) * u64::from(BLOCK) + u64::from(record.body_len);
        Ok(Object {
            key: record.key,
            // Not the buffer that all of it was read into.
            meta: Bytes::copy_from_slice(&meta),
            mark: Mark { epoch: record.epoch, scopes },
            len,
            stored,
            stale_since,
            first: record.first,
            write: record.write,
            head: location,
        })
    }

    fn is_named(&self, record: &Record, location: Location) -> bool {
        let id = head_id(&record.key, self.store.geometry.seed);
        self.index.shard(id.a).get(id).is_some_and(|found| found.same(location))
    }

    /// At least `len` bytes of a record and all before its body, if they are what was written in this use of the segment.
    fn read(&self, location: Location, len: u32) -> Option<(Record, Bytes)> {
        let geometry = &self.store.geometry;
        let at = geometry.start(location.segment()) + u64::from(location.offset());
        let file = self.store.data.as_ref()?;
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, at).ok()?;
        let generation = self.generations[location.segment() as usize];
        let record = Record::decode(&bytes, geometry)
            .filter(|record| record.generation == generation && record.kind == location.kind())
            .filter(|record| record.total_len() == location.len())?;
        if record.prefix_len() > bytes.len() {
            bytes.resize(record.prefix_len(), 0);
            file.read_exact_at(&mut bytes, at).ok()?;
        }
        let is_valid = record.rest_is_valid(&bytes[RECORD_HEADER..record.prefix_len()], geometry.seed);
        is_valid.then(|| (record, bytes.into()))
    }

    /// Reads again what may have been halfway through being written, and tells change from damage.
    fn settled<T>(&self, location: Location, read: impl Fn() -> Option<T>) -> Result<T, Missed> {
        if let Some(found) = read() {
            return Ok(found);
        }
        std::thread::sleep(SETTLE);
        let found = read();
        let segment = location.segment();
        let now = self.store.data.as_ref().and_then(|file| segment::generation(file, &self.store.geometry, segment));
        match found {
            Some(found) => Ok(found),
            None if now == Some(self.generations[segment as usize]) => Err(Missed::Damaged),
            None => Err(Missed::Changed),
        }
    }
}

impl Visited {
    fn count(&mut self, missed: Missed) {
        *match missed {
            Missed::Changed => &mut self.changed,
            Missed::Damaged => &mut self.damaged,
            Missed::Incomplete => &mut self.incomplete,
            Missed::Purged => &mut self.purged,
        } += 1;
    }
}

#[cfg(test)]
mod tests;
