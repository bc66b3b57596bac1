//! Opening a directory: whose it is, what is in it, and what of that still counts.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::mpsc::Receiver;

use rustix::fs::FlockOperation;

use super::format::{self, Footer, Geometry, PurgeRecord, PurgeScope, Superblock, SuperblockRead, UNIT};
use super::hold::Holders;
use super::index::Index;
use super::io::{DiskFile, Mode, PRIVATE, Volume};
use super::purge_log::{LOG_NAME, LogFile, NEW_LOG_NAME, PurgeLog, Request};
use super::restore::{Recovery, Restore, Used};
use super::segment::{self, Ends, Scanned};
use super::store::{Recovered, Segment};
use super::{OpenError, Settings, SyncPolicy};
use crate::cache::epochs::Epochs;

const LOCK_NAME: &str = "lock";
pub(super) const SUPERBLOCK_NAME: &str = "superblock";
const NEW_SUPERBLOCK_NAME: &str = "superblock.new";
pub(super) const DATA_NAME: &str = "segments";
/// Two copies, so that one damaged sector does not cost the store.
pub(super) const COPIES_AT: [usize; 2] = [0, 2048];
/// Numbers that a crash may have taken with it are not given out again.
const SKIP: u64 = 1 << 20;
const SKIP_GENERATIONS: u32 = 1 << 10;
/// The same where a segment does not say what it holds: it may be the newest, and of several starts ago. If it can be
/// read again one day, all that was numbered meanwhile has to be newer, purges above all.
const SKIP_UNSEEN: u64 = 1 << 40;
const SKIP_UNSEEN_GENERATIONS: u32 = 1 << 16;
/// From so many segments on several threads read their ends.
const MANY_SEGMENTS: usize = 64;
const READERS: usize = 4;

/// A directory that is ours alone, and what was in it.
pub(super) struct Opened {
    pub lock: File,
    pub found: Recovered,
    pub log: LogFile,
    pub requests: Receiver<Request>,
}

/// Locks and reads the directory. Never removes anything it did not write.
pub(super) fn open(settings: &Settings, volume: &Volume) -> Result<Opened, OpenError> {
    let path = volume.path();
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let count = settings.capacity / settings.segment_size.max(1);
    let valid_size = settings.segment_size.is_power_of_two() && (1 << 20..=1 << 30).contains(&settings.segment_size);
    if !valid_size || !(4..1 << 20).contains(&count) {
        return Err(OpenError::Sizes { capacity: settings.capacity, segment_size: settings.segment_size });
    }
    std::fs::create_dir_all(path).map_err(io)?;
    refuse_foreign(path)?;
    let lock = lock(path)?;
    let superblock = match read_superblock(volume)? {
        Some(found) if u64::from(found.segment_size) != settings.segment_size => {
            let stored = u64::from(found.segment_size);
            return Err(OpenError::SegmentSize { path: path.to_owned(), stored, wanted: settings.segment_size });
        }
        Some(found) => found,
        None => create(volume, settings.segment_size as u32).map_err(io)?,
    };
    let geometry = Geometry { segment_size: superblock.segment_size, segments: count as u32, seed: superblock.seed };
    recover(volume, settings.sync, geometry, superblock.store_id, lock).map_err(io)
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

/// What the superblock says; `None` if there is none.
pub(super) fn read_superblock(volume: &Volume) -> Result<Option<Superblock>, OpenError> {
    let path = volume.path();
    let read = volume.read(SUPERBLOCK_NAME).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let Some(bytes) = read else { return Ok(None) };
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

fn create(volume: &Volume, segment_size: u32) -> io::Result<Superblock> {
    let random = || RandomState::new().build_hasher().finish();
    let superblock = Superblock { segment_size, seed: random(), store_id: random() };
    LogFile::create(volume, superblock.store_id, superblock.seed, &[])?;
    let mut bytes = vec![0; 4096];
    for at in COPIES_AT {
        bytes[at..at + UNIT].copy_from_slice(&superblock.encode());
    }
    let file = volume.open(NEW_SUPERBLOCK_NAME, Mode::Anew)?;
    file.write_all_at(&bytes, 0)?;
    file.sync_all()?;
    volume.rename(NEW_SUPERBLOCK_NAME, SUPERBLOCK_NAME)?;
    volume.sync()?;
    Ok(superblock)
}

fn recover(volume: &Volume, sync: SyncPolicy, geometry: Geometry, store_id: u64, lock: File) -> io::Result<Opened> {
    let file = volume.open(DATA_NAME, Mode::Create)?;
    // Of a store that was larger before, the segments beyond the capacity are given up.
    if file.len()? > geometry.start(geometry.segments) {
        file.set_len(geometry.start(geometry.segments))?;
    }
    let mut loaded = LogFile::load(volume, store_id, geometry.seed)?;
    let Found { mut used, unreadable, is_unseen, top_generation } = read_segments(&file, &geometry);
    used.sort_by_key(|used| used.generation);
    // Sequences rise with generations, so the highest of all is in the last segment.
    let last = used.last_mut().and_then(|last| last.load(&file, &geometry).last().map(|entry| entry.seq));
    let written = used.iter().map(|used| used.base_seq).chain(last);
    let newest = written.chain(loaded.records.iter().map(|record| record.seq)).max().unwrap_or(0);
    let (skip, skip_generations) =
        if is_unseen { (SKIP_UNSEEN, SKIP_UNSEEN_GENERATIONS) } else { (SKIP, SKIP_GENERATIONS) };
    let next_seq = newest.saturating_add(skip);
    let log = if loaded.is_lost {
        // What it said is unknown, so everything counts as purged.
        tracing::warn!("the disk tier's purge log is missing or damaged: everything stored counts as purged");
        loaded.records = vec![PurgeRecord { scope: PurgeScope::All, seq: next_seq }];
        LogFile::create(volume, store_id, geometry.seed, &loaded.records)?
    } else {
        LogFile::resume(volume, store_id, geometry.seed, &loaded)?
    };
    let index = Index::default();
    let segments = segment_states(&geometry, &used);
    let is_used: Vec<bool> = {
        let mut is_used = vec![false; geometry.segments as usize];
        let taken = used.iter().map(|used| used.segment).chain(unreadable.iter().copied());
        taken.for_each(|segment| is_used[segment as usize] = true);
        is_used
    };
    let free: VecDeque<u32> = (0..geometry.segments).filter(|segment| !is_used[*segment as usize]).collect();
    let sealed = used.iter().map(|used| used.segment).collect();
    let (purge_log, requests) = PurgeLog::new();
    let next_generation = top_generation.saturating_add(skip_generations);
    let epochs = Arc::new(restored_epochs(next_seq + 1, &loaded.records));
    let mut restore = Restore::new(used, &loaded.records, geometry.seed);
    index.begin_recovery();
    restore.newest(&file, &geometry, &index);
    let recovery = Recovery::new(restore, &index);
    let found = Recovered {
        geometry,
        file,
        direct: volume.open_direct(DATA_NAME),
        sync,
        index,
        segments,
        free,
        sealed,
        retired: unreadable.into(),
        next_generation,
        epochs,
        purge_log,
        recovery,
    };
    Ok(Opened { lock, found, log, requests })
}

/// The purges by scope that the log holds.
pub(super) fn restored_epochs(next: u64, records: &[PurgeRecord]) -> Epochs {
    let (mut floor, mut scopes) = (0, Vec::new());
    for record in records {
        match record.scope {
            PurgeScope::All | PurgeScope::Floor => floor = record.seq.max(floor),
            PurgeScope::Scope(scope) => scopes.push(scope),
            PurgeScope::Key(_) | PurgeScope::Object(_) => {}
        }
    }
    Epochs::restored(next, floor, &scopes)
}

/// What the segments hold.
#[derive(Default)]
struct Found {
    used: Vec<Used>,
    /// Segments whose ends the disk does not give.
    unreadable: Vec<u32>,
    /// Of some segment it is not known what it holds.
    is_unseen: bool,
    /// The highest seen anywhere.
    top_generation: u32,
}

fn read_segments(file: &DiskFile, geometry: &Geometry) -> Found {
    let segments: Vec<u32> = (0..geometry.segments).collect();
    // Each is two small reads: a disk serves several as fast as one.
    let readers = if segments.len() < MANY_SEGMENTS { 1 } else { READERS };
    let parts: Vec<Found> = std::thread::scope(|scope| {
        let read = |part| scope.spawn(move || read_some(file, geometry, part));
        let threads: Vec<_> = segments.chunks(segments.len().div_ceil(readers)).map(read).collect();
        threads.into_iter().flat_map(|thread| thread.join()).collect()
    });
    let mut found = Found::default();
    for part in parts {
        found.used.extend(part.used);
        found.unreadable.extend(part.unreadable);
        found.is_unseen |= part.is_unseen;
        found.top_generation = found.top_generation.max(part.top_generation);
    }
    found
}

fn read_some(file: &DiskFile, geometry: &Geometry, segments: &[u32]) -> Found {
    let mut found = Found::default();
    for segment in segments.iter().copied() {
        let ends = match Ends::read(file, geometry, segment) {
            Ok(ends) => ends,
            Err(error) => {
                tracing::error!(%error, segment, offset = geometry.start(segment), "a segment cannot be read");
                found.unreadable.push(segment);
                found.is_unseen = true;
                continue;
            }
        };
        found.is_unseen |= ends.is_damaged;
        let Some(generation) = ends.generation() else { continue };
        found.top_generation = found.top_generation.max(generation);
        match ends.sealed() {
            Some(footer) if footer.count > 0 => {
                // Its table is read later.
                let (at, len) = segment::table_of(geometry, segment, footer);
                file.will_read(at, len);
                let Footer { base_seq, oldest, count, .. } = *footer;
                found.used.push(Used { segment, generation, base_seq, oldest, count, entries: None });
            }
            Some(_) => {}
            // The segment was begun anew and not sealed.
            None => {
                let Scanned { entries, oldest, .. } = segment::scan_and_seal(file, geometry, segment, generation);
                if let Some(first) = entries.first() {
                    let (base_seq, count) = (first.seq, entries.len() as u32);
                    found.used.push(Used { segment, generation, base_seq, oldest, count, entries: Some(entries) });
                }
            }
        }
    }
    found
}

fn segment_states(geometry: &Geometry, used: &[Used]) -> Box<[Segment]> {
    let mut states: Vec<Segment> = (0..geometry.segments)
        .map(|_| Segment {
            generation: AtomicU32::new(0),
            written: AtomicU32::new(0),
            base_seq: AtomicU64::new(u64::MAX),
            oldest: AtomicU64::new(u64::MAX),
            oldest_before: AtomicU64::new(u64::MAX),
            read_errors: AtomicU32::new(0),
            holders: Holders::default(),
            is_sent: AtomicBool::new(false),
        })
        .collect();
    for used in used {
        states[used.segment as usize] = Segment {
            generation: AtomicU32::new(used.generation),
            written: AtomicU32::new(geometry.segment_size),
            base_seq: AtomicU64::new(used.base_seq),
            oldest: AtomicU64::new(used.oldest),
            oldest_before: AtomicU64::new(u64::MAX),
            read_errors: AtomicU32::new(0),
            holders: Holders::default(),
            is_sent: AtomicBool::new(false),
        };
    }
    states.into_boxed_slice()
}
