//! Opening a directory: whose it is, what is in it, and what of that still counts.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::mpsc::Receiver;

use rustix::fs::FlockOperation;

use super::format::{
    self, ENTRY, Entry, FRAME, Footer, Geometry, Kind, PurgeRecord, PurgeScope, RECORD_HEADER, Record, Superblock,
    SuperblockRead, UNIT,
};
use super::index::{Index, Location};
use super::purge_log::{LOG_NAME, LogFile, NEW_LOG_NAME, PRIVATE, PurgeLog, Request};
use super::store::{Recovered, Segment};
use super::{OpenError, Settings};
use crate::cache::epochs::Epochs;

const LOCK_NAME: &str = "lock";
const SUPERBLOCK_NAME: &str = "superblock";
const NEW_SUPERBLOCK_NAME: &str = "superblock.new";
const DATA_NAME: &str = "segments";
/// Two copies, so that one damaged sector does not cost the store.
const COPIES_AT: [usize; 2] = [0, 2048];
/// Numbers that a crash may have taken with it are not given out again.
const SKIP: u64 = 1 << 20;

/// A directory that is ours alone, and what was in it.
pub(super) struct Opened {
    pub lock: File,
    pub found: Recovered,
    pub log: LogFile,
    pub requests: Receiver<Request>,
}

/// Locks and reads the directory. Never removes anything it did not write.
pub(super) fn open(settings: &Settings) -> Result<Opened, OpenError> {
    let path = settings.path.as_path();
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let count = settings.capacity / settings.segment_size.max(1);
    let valid_size = settings.segment_size.is_power_of_two() && (1 << 20..=1 << 30).contains(&settings.segment_size);
    if !valid_size || !(4..1 << 20).contains(&count) {
        return Err(OpenError::Sizes { capacity: settings.capacity, segment_size: settings.segment_size });
    }
    std::fs::create_dir_all(path).map_err(io)?;
    refuse_foreign(path)?;
    let lock = lock(path)?;
    let superblock = match read_superblock(path)? {
        Some(found) if u64::from(found.segment_size) != settings.segment_size => {
            let stored = u64::from(found.segment_size);
            return Err(OpenError::SegmentSize { path: path.to_owned(), stored, wanted: settings.segment_size });
        }
        Some(found) => found,
        None => create(path, settings.segment_size as u32).map_err(io)?,
    };
    let geometry = Geometry { segment_size: superblock.segment_size, segments: count as u32, seed: superblock.seed };
    recover(path, geometry, superblock.store_id, lock).map_err(io)
}

/// The records of a segment as its footer lists them, or as a scan finds them if that use of it has no footer.
pub(super) fn entries(file: &File, geometry: &Geometry, segment: u32, generation: u32) -> Vec<Entry> {
    match read_footer(file, geometry, segment).filter(|(footer, _)| footer.generation == generation) {
        Some((_, entries)) => entries,
        None => scan(file, geometry, segment, generation).0,
    }
}

fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    const OURS: [&str; 7] =
        [LOCK_NAME, SUPERBLOCK_NAME, NEW_SUPERBLOCK_NAME, DATA_NAME, LOG_NAME, NEW_LOG_NAME, "lost+found"];
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let has_store = path.join(SUPERBLOCK_NAME).exists();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let is_ours = name.to_str().is_some_and(|name| OURS.contains(&name));
        if !is_ours || (!has_store && name == DATA_NAME) {
            return Err(OpenError::Foreign { path: path.to_owned(), name: name.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(path.join(LOCK_NAME))
        .map_err(io)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(error) => Err(io(error.into())),
    }
}

fn read_superblock(path: &Path) -> Result<Option<Superblock>, OpenError> {
    let bytes = match std::fs::read(path.join(SUPERBLOCK_NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path: path.to_owned(), source }),
    };
    let mut found = Err(OpenError::Damaged { path: path.to_owned() });
    for at in COPIES_AT {
        let copy = bytes.get(at..at + UNIT).and_then(|copy| <&[u8; UNIT]>::try_from(copy).ok());
        match copy.map(Superblock::decode) {
            Some(SuperblockRead::Valid(superblock)) => return Ok(Some(superblock)),
            Some(SuperblockRead::OtherVersion(version)) => {
                found = Err(OpenError::Version { path: path.to_owned(), found: version, expected: format::VERSION });
            }
            Some(SuperblockRead::Damaged) | None => {}
        }
    }
    found
}

fn create(path: &Path, segment_size: u32) -> io::Result<Superblock> {
    let random = || RandomState::new().build_hasher().finish();
    let superblock = Superblock { segment_size, seed: random(), store_id: random() };
    LogFile::create(path, superblock.store_id, superblock.seed, &[])?;
    let mut bytes = vec![0; 4096];
    for at in COPIES_AT {
        bytes[at..at + UNIT].copy_from_slice(&superblock.encode());
    }
    let fresh = path.join(NEW_SUPERBLOCK_NAME);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(&fresh)?;
    file.write_all_at(&bytes, 0)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path.join(SUPERBLOCK_NAME))?;
    File::open(path)?.sync_all()?;
    Ok(superblock)
}

/// A segment that holds records.
struct Used {
    segment: u32,
    generation: u32,
    entries: Vec<Entry>,
    /// The lowest epoch of a HEAD record.
    oldest: u64,
}

fn recover(path: &Path, geometry: Geometry, store_id: u64, lock: File) -> io::Result<Opened> {
    let data = path.join(DATA_NAME);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(PRIVATE).open(data)?;
    // Of a store that was larger before, the segments beyond the capacity are given up.
    if file.metadata()?.len() > geometry.start(geometry.segments) {
        file.set_len(geometry.start(geometry.segments))?;
    }
    let mut loaded = LogFile::load(path, store_id, geometry.seed)?;
    let (mut used, top_generation) = read_segments(&file, &geometry);
    used.sort_by_key(|used| used.generation);
    let written = used.iter().flat_map(|used| &used.entries).map(|entry| entry.seq);
    let newest = written.chain(loaded.records.iter().map(|record| record.seq)).max().unwrap_or(0);
    let next_seq = newest.saturating_add(SKIP);
    let log = if loaded.is_lost {
        // What it said is unknown, so everything counts as purged.
        tracing::warn!("the disk tier's purge log is missing or damaged: everything stored counts as purged");
        loaded.records = vec![PurgeRecord { scope: PurgeScope::All, seq: next_seq }];
        LogFile::create(path, store_id, geometry.seed, &loaded.records)?
    } else {
        LogFile::resume(path, store_id, geometry.seed, &loaded)?
    };
    let index = Index::default();
    fill_index(&index, &used, &loaded.records, &geometry);
    let segments = segment_states(&geometry, &used);
    let is_used: Vec<bool> = {
        let mut is_used = vec![false; geometry.segments as usize];
        used.iter().for_each(|used| is_used[used.segment as usize] = true);
        is_used
    };
    let free: VecDeque<u32> = (0..geometry.segments).filter(|segment| !is_used[*segment as usize]).collect();
    let sealed = used.iter().map(|used| used.segment).collect();
    let (purge_log, requests) = PurgeLog::new();
    let next_generation = top_generation.saturating_add(1024);
    let epochs = Arc::new(restored_epochs(next_seq + 1, &loaded.records));
    let found = Recovered { geometry, file, index, segments, free, sealed, next_generation, epochs, purge_log };
    Ok(Opened { lock, found, log, requests })
}

/// The purges by scope that the log holds.
fn restored_epochs(next: u64, records: &[PurgeRecord]) -> Epochs {
    let (mut floor, mut scopes) = (0, Vec::new());
    for record in records {
        match record.scope {
            PurgeScope::All | PurgeScope::Floor => floor = record.seq.max(floor),
            PurgeScope::Scope(scope) => scopes.push(scope),
            PurgeScope::Key(_) => {}
        }
    }
    Epochs::restored(next, floor, &scopes)
}

/// All segments with records, and the highest generation seen anywhere.
fn read_segments(file: &File, geometry: &Geometry) -> (Vec<Used>, u32) {
    let (mut used, mut top) = (Vec::new(), 0);
    for segment in 0..geometry.segments {
        let mut header = [0; FRAME as usize];
        let read = file.read_exact_at(&mut header, geometry.start(segment));
        let opened = read.ok().and_then(|()| format::read_segment_header(&header, geometry.seed));
        let footer = read_footer(file, geometry, segment);
        let sealed = footer.as_ref().map(|(footer, _)| footer.generation);
        top = top.max(opened.unwrap_or(0)).max(sealed.unwrap_or(0));
        let (generation, entries, oldest) = match (opened, footer) {
            // A header newer than the footer: the segment was begun anew and not sealed.
            (Some(opened), footer) if footer.as_ref().is_none_or(|(footer, _)| footer.generation < opened) => {
                let (entries, oldest) = scan(file, geometry, segment, opened);
                seal(file, geometry, segment, opened, &entries, oldest);
                (opened, entries, oldest)
            }
            (_, Some((footer, entries))) => (footer.generation, entries, footer.oldest),
            (_, None) => continue,
        };
        if !entries.is_empty() {
            used.push(Used { segment, generation, entries, oldest });
        }
    }
    (used, top)
}

fn read_footer(file: &File, geometry: &Geometry, segment: u32) -> Option<(Footer, Vec<Entry>)> {
    let end = geometry.start(segment + 1);
    let mut frame = [0; FRAME as usize];
    file.read_exact_at(&mut frame, end - u64::from(FRAME)).ok()?;
    let footer = Footer::decode(&frame, geometry)?;
    let mut table = vec![0; footer.count as usize * ENTRY as usize];
    let start = end - u64::from(FRAME) - table.len() as u64;
    file.read_exact_at(&mut table, start).ok()?;
    let entries = footer.entries(&table, geometry)?;
    Some((footer, entries))
}

/// Walks the records from the start to the first that is not one. It never looks for a later one: what lies there may
/// be a body that imitates records. With them the lowest epoch of a HEAD.
fn scan(file: &File, geometry: &Geometry, segment: u32, generation: u32) -> (Vec<Entry>, u64) {
    let start = geometry.start(segment);
    let mut header = [0; RECORD_HEADER];
    let mut entries: Vec<Entry> = Vec::new();
    let (mut offset, mut oldest) = (FRAME, u64::MAX);
    loop {
        let table = (entries.len() as u32 + 1) * ENTRY + FRAME;
        if file.read_exact_at(&mut header, start + u64::from(offset)).is_err() {
            return (entries, oldest);
        }
        let Some(record) = Record::decode(&header, geometry) else { return (entries, oldest) };
        let len = record.total_len();
        let fits = u64::from(offset) + u64::from(len) + u64::from(table) <= u64::from(geometry.segment_size);
        let follows = entries.last().is_none_or(|last| last.seq < record.seq);
        if !fits || !follows || record.generation != generation {
            return (entries, oldest);
        }
        if record.kind == Kind::Head {
            oldest = oldest.min(record.epoch);
        }
        entries.push(Entry { id: record.id(geometry.seed), kind: record.kind, offset, len, seq: record.seq });
        offset += len;
    }
}

/// Writes the footer that a crash prevented. Without it the next start scans again.
fn seal(file: &File, geometry: &Geometry, segment: u32, generation: u32, entries: &[Entry], oldest: u64) {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
    let footer = format::encode_footer(generation, first.seq, oldest, last.offset + last.len, entries, geometry.seed);
    if let Err(error) = file.write_all_at(&footer, geometry.start(segment + 1) - footer.len() as u64) {
        tracing::warn!(%error, segment, "a recovered segment could not be sealed");
    }
}

/// Enters the records in the order they were written, but for those purged since.
fn fill_index(index: &Index, used: &[Used], purges: &[PurgeRecord], geometry: &Geometry) {
    let mut all = 0;
    let mut keys: HashMap<u64, u64> = HashMap::new();
    for purge in purges {
        match &purge.scope {
            PurgeScope::All => all = purge.seq.max(all),
            // Look-ups compare with these.
            PurgeScope::Scope(_) | PurgeScope::Floor => {}
            PurgeScope::Key(primary) => {
                let seq = keys.entry(format::primary_hash(primary, geometry.seed)).or_default();
                *seq = purge.seq.max(*seq);
            }
        }
    }
    for used in used {
        for entry in &used.entries {
            let purged = entry.kind == Kind::Head && keys.get(&entry.id.a).is_some_and(|seq| entry.seq < *seq);
            if entry.seq >= all && !purged {
                let location = Location::new(entry.kind, used.segment, entry.offset, entry.len);
                index.shard(entry.id.a).insert(entry.id, location);
            }
        }
    }
}

fn segment_states(geometry: &Geometry, used: &[Used]) -> Box<[Segment]> {
    let mut states: Vec<Segment> = (0..geometry.segments)
        .map(|_| Segment {
            generation: AtomicU32::new(0),
            written: AtomicU32::new(0),
            base_seq: AtomicU64::new(u64::MAX),
            oldest: AtomicU64::new(u64::MAX),
            oldest_before: AtomicU64::new(u64::MAX),
        })
        .collect();
    for used in used {
        states[used.segment as usize] = Segment {
            generation: AtomicU32::new(used.generation),
            written: AtomicU32::new(geometry.segment_size),
            base_seq: AtomicU64::new(used.entries.first().map_or(u64::MAX, |entry| entry.seq)),
            oldest: AtomicU64::new(used.oldest),
            oldest_before: AtomicU64::new(u64::MAX),
        };
    }
    states.into_boxed_slice()
}
