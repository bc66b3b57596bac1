//! What the tier's threads and handles share: segments, the appender and reads of raw bytes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::buffer::Buffers;
use super::format::{self, Draft, Entry, FRAME, Geometry, Id, Kind};
use super::index::{Index, Location};
use super::io::DiskFile;
use super::layout::Layout;
use super::purge_log::PurgeLog;
use super::restore::Recovery;
use super::{ReadError, SyncPolicy, WriteError};
use crate::cache::admission::Admission;
use crate::cache::epochs::Epochs;
use crate::metrics::TierMetrics;

/// KiB of records that wait to be written, over all writers.
const QUEUE_KIB: u32 = 32 << 10;
/// A writer that gets no room for so long gives up, so that a slow disk never holds up a response for longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Once so much waits it is written.
pub(super) const FLUSH_BYTES: usize = 1 << 20;
/// Reads that wait for the disk at the same time; a disk that is given more has no more to give.
const COLD_READS: usize = 64;
/// Bytes that the kernel reads ahead at once, as most block devices are set.
const READ_AHEAD: u64 = 128 << 10;
/// What waits is written after this time at the latest.
pub(super) const FLUSH_AFTER: Duration = Duration::from_millis(50);

/// Whether the tier takes writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Service {
    Open,
    /// A write failed; reads go on, the writer thread tries again from time to time.
    Failed,
    Closed,
}

/// How the writer thread is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// Write what waits, nothing more: what a dropped tier does.
    Flush,
    /// Also seal the open segment and wait for the disk.
    Seal,
}

/// What is known of one segment.
pub(super) struct Segment {
    /// Counts every use of every segment; records carry it.
    pub generation: AtomicU32,
    /// Bytes from its start that are written.
    pub written: AtomicU32,
    /// No record in it, stale ones included, has a lower sequence; `u64::MAX` while it has none.
    pub base_seq: AtomicU64,
    /// The lowest epoch of a HEAD record of the present use; `u64::MAX` while there is none.
    pub oldest: AtomicU64,
    /// The same of uses before, until the header of the present one is written.
    pub oldest_before: AtomicU64,
    /// Reads of it that the disk refused.
    pub read_errors: AtomicU32,
}

impl Segment {
    /// No HEAD record in it, stale ones included, has a lower epoch.
    fn oldest(&self) -> u64 {
        // In this order: a new use moves the one into the other before it begins anew.
        let oldest = self.oldest.load(Ordering::Acquire);
        oldest.min(self.oldest_before.load(Ordering::Acquire))
    }
}

/// A record, header or footer that has its place and waits to be written.
pub(super) struct Pending {
    pub segment: u32,
    pub generation: u32,
    pub offset: u32,
    pub len: u32,
    pub parts: Vec<Bytes>,
    /// The record's slot, should the write fail.
    pub slot: Option<(Id, Location)>,
    /// For a segment's header: the sequence at which it was opened.
    pub base_seq: Option<u64>,
    permits: usize,
}

pub(super) struct OpenSegment {
    pub segment: u32,
    pub generation: u32,
    pub position: u32,
    pub base_seq: u64,
    pub entries: Vec<Entry>,
    /// The lowest epoch of a HEAD record.
    pub oldest: u64,
}

/// The end of the log: gives records their places, in order.
pub(super) struct Appender {
    pub open: Option<OpenSegment>,
    pub free: VecDeque<u32>,
    /// Oldest first.
    pub sealed: VecDeque<u32>,
    /// Segments that the disk cannot keep; see `retire`.
    pub retired: VecDeque<u32>,
    /// Segment and offset of the write that took the tier out of service.
    pub suspect: Option<(u32, u32)>,
    pub next_generation: u32,
    pub pending: VecDeque<Pending>,
    pub pending_bytes: usize,
    pub pending_since: Option<Instant>,
    pub stop: Option<Stop>,
}

/// Who asks for room: the last free segment is kept for records that eviction saves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Fill,
    Reinsertion,
}

pub(super) struct Store {
    pub geometry: Geometry,
    pub file: DiskFile,
    pub sync: SyncPolicy,
    /// Bytes written since the last synchronisation, and when that was.
    pub unsynced: AtomicU64,
    pub synced_at: Mutex<Instant>,
    pub index: Index,
    pub segments: Box<[Segment]>,
    /// Some segment failed too many reads.
    pub is_failing: AtomicBool,
    pub appender: Mutex<Appender>,
    /// Wakes the writer thread.
    pub work: Condvar,
    /// Wakes writers that wait for a free segment.
    pub room: Notify,
    pub queue: Semaphore,
    pub epochs: Arc<Epochs>,
    service: AtomicU8,
    pub purge_log: PurgeLog,
    pub recovery: Recovery,
    pub admission: Admission,
    pub metrics: TierMetrics,
    nowait: AtomicBool,
    buffers: Arc<Buffers>,
    /// Reads that wait for the disk at the same time.
    cold_reads: Semaphore,
}

/// What recovery found; the store starts from it.
pub(super) struct Recovered {
    pub geometry: Geometry,
    pub file: DiskFile,
    pub sync: SyncPolicy,
    pub index: Index,
    pub segments: Box<[Segment]>,
    pub free: VecDeque<u32>,
    pub sealed: VecDeque<u32>,
    /// Segments that could not be read.
    pub retired: VecDeque<u32>,
    pub next_generation: u32,
    pub epochs: Arc<Epochs>,
    pub purge_log: PurgeLog,
    pub recovery: Recovery,
}

impl Store {
    pub fn new(found: Recovered, admission: Admission, metrics: TierMetrics) -> Self {
        let appender = Appender {
            open: None,
            free: found.free,
            sealed: found.sealed,
            retired: found.retired,
            suspect: None,
            next_generation: found.next_generation,
            pending: VecDeque::new(),
            pending_bytes: 0,
            pending_since: None,
            stop: None,
        };
        // Each read says all it wants; what the kernel reads beyond would be of another object.
        found.file.read_at_random();
        Self {
            geometry: found.geometry,
            file: found.file,
            sync: found.sync,
            unsynced: AtomicU64::new(0),
            synced_at: Mutex::new(Instant::now()),
            is_failing: AtomicBool::new(false),
            index: found.index,
            segments: found.segments,
            appender: Mutex::new(appender),
            work: Condvar::new(),
            room: Notify::new(),
            queue: Semaphore::new(QUEUE_KIB as usize),
            epochs: found.epochs,
            service: AtomicU8::new(Service::Open as u8),
            purge_log: found.purge_log,
            recovery: found.recovery,
            admission,
            metrics,
            nowait: AtomicBool::new(true),
            buffers: Arc::default(),
            cold_reads: Semaphore::new(COLD_READS),
        }
    }

    pub fn next_seq(&self) -> u64 {
        self.epochs.next()
    }

    pub fn service(&self) -> Service {
        match self.service.load(Ordering::Acquire) {
            0 => Service::Open,
            1 => Service::Failed,
            _ => Service::Closed,
        }
    }

    pub fn set_service(&self, service: Service) {
        self.service.store(service as u8, Ordering::Release);
    }

    pub fn segment(&self, segment: u32) -> Option<&Segment> {
        self.segments.get(segment as usize)
    }

    pub fn generation(&self, segment: u32) -> u32 {
        self.segment(segment).map_or(0, |segment| segment.generation.load(Ordering::Acquire))
    }

    /// Free segments that the writer thread keeps in reserve.
    pub fn free_target(&self) -> usize {
        Layout::RESERVE as usize
    }

    /// Whether there are segments that nothing has to be evicted for.
    pub fn has_free(&self) -> bool {
        self.appender.lock().free.len() > self.free_target()
    }

    /// Whether there is plenty of room in the queue; a new store is not begun otherwise.
    pub fn is_relaxed(&self) -> bool {
        self.service() == Service::Open && self.queue.available_permits() > QUEUE_KIB as usize / 8
    }

    /// Waits for room in the queue of writes.
    pub async fn admit(&self, len: u32) -> Result<SemaphorePermit<'_>, WriteError> {
        match self.service() {
            Service::Open => {}
            Service::Failed => return Err(WriteError::OutOfService),
            Service::Closed => return Err(WriteError::Closed),
        }
        let permits = len.div_ceil(1024).min(QUEUE_KIB);
        match tokio::time::timeout(PATIENCE, self.queue.acquire_many(permits)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(WriteError::Closed),
            Err(_) => Err(WriteError::Busy),
        }
    }

    /// Runs `place` until there is a segment with room for the draft. False: there is no use for it any more.
    pub async fn with_room(
        &self,
        mut draft: Draft,
        place: impl Fn(Draft, usize) -> Result<(), PlaceError>,
    ) -> Result<bool, WriteError> {
        let permit = self.admit(draft.len()).await?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            // Made before the attempt, so that a segment freed in between wakes it.
            let room = self.room.notified();
            draft = match place(draft, permit.num_permits()) {
                Ok(()) => {
                    // The writer thread gives them back once the record is on the disk.
                    permit.forget();
                    return Ok(true);
                }
                Err(PlaceError::Unwanted) => return Ok(false),
                Err(PlaceError::Refused(error)) => return Err(error),
                Err(PlaceError::NoRoom(draft)) => *draft,
            };
            if self.service() != Service::Open {
                return Err(WriteError::OutOfService);
            }
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return Err(WriteError::Busy);
            }
        }
    }

    /// Gives a draft its place and queues it; the caller enters the location into the index under the lock of the
    /// shard it already holds, so that index, sequence and place agree. `permits` are given back once it is written.
    pub fn place(&self, draft: Draft, permits: usize, purpose: Purpose) -> Result<Location, PlaceError> {
        let mut appender = self.appender.lock();
        if self.service() != Service::Open || appender.stop.is_some() {
            return Err(PlaceError::Refused(WriteError::OutOfService));
        }
        if !self.reserve(&mut appender, draft.len(), purpose) {
            return Err(PlaceError::NoRoom(Box::new(draft)));
        }
        let seq = self.next_seq();
        let Some(open) = appender.open.as_mut() else { return Err(PlaceError::NoRoom(Box::new(draft))) };
        let (segment, generation, offset, len) = (open.segment, open.generation, open.position, draft.len());
        let location = Location::new(draft.kind, segment, offset, len);
        open.position += len;
        if draft.kind == Kind::Head {
            open.oldest = open.oldest.min(draft.epoch);
            if let Some(state) = self.segment(segment) {
                state.oldest.fetch_min(draft.epoch, Ordering::AcqRel);
            }
        }
        open.entries.push(Entry { id: draft.id, kind: draft.kind, offset, len, seq });
        let slot = Some((draft.id, location));
        let parts = draft.finish(generation, seq, self.geometry.seed);
        self.queue(&mut appender, Pending { segment, generation, offset, len, parts, slot, base_seq: None, permits });
        Ok(location)
    }

    /// Makes the open segment one that has room for `len` bytes.
    fn reserve(&self, appender: &mut Appender, len: u32, purpose: Purpose) -> bool {
        if let Some(open) = &appender.open {
            let layout = Layout::new(self.geometry.segment_size);
            let fits = layout.fits(open.position, open.entries.len() as u32, len);
            // Footers hold sequences as 32-bit distances.
            let counts = self.epochs.sequence() - open.base_seq < u64::from(u32::MAX / 2);
            if fits && counts {
                return true;
            }
            self.seal_open(appender);
        }
        let kept = usize::from(purpose == Purpose::Fill);
        if appender.free.len() <= kept {
            return false;
        }
        let Some(segment) = appender.free.pop_front() else { return false };
        let generation = appender.next_generation;
        appender.next_generation += 1;
        let base_seq = self.epochs.sequence();
        if let Some(state) = self.segment(segment) {
            state.base_seq.fetch_min(base_seq, Ordering::AcqRel);
            state.oldest_before.fetch_min(state.oldest.load(Ordering::Acquire), Ordering::AcqRel);
            state.oldest.store(u64::MAX, Ordering::Release);
            state.written.store(0, Ordering::Release);
            state.generation.store(generation, Ordering::Release);
        }
        let header = Bytes::copy_from_slice(&format::segment_header(generation, self.geometry.seed));
        let oldest = u64::MAX;
        appender.open =
            Some(OpenSegment { segment, generation, position: FRAME, base_seq, entries: Vec::new(), oldest });
        let parts = vec![header];
        let base_seq = Some(base_seq);
        let header = Pending { segment, generation, offset: 0, len: FRAME, parts, slot: None, base_seq, permits: 0 };
        self.queue(appender, header);
        true
    }

    /// Ends the open segment with its footer.
    pub fn seal_open(&self, appender: &mut Appender) {
        let Some(open) = appender.open.take() else { return };
        let footer = format::encode_footer(
            open.generation,
            open.base_seq,
            open.oldest,
            open.position,
            &open.entries,
            self.geometry.seed,
        );
        let len = footer.len() as u32;
        appender.sealed.push_back(open.segment);
        let pending = Pending {
            segment: open.segment,
            generation: open.generation,
            offset: self.geometry.segment_size - len,
            len,
            parts: vec![Bytes::from(footer)],
            slot: None,
            base_seq: None,
            permits: 0,
        };
        self.queue(appender, pending);
    }

    fn queue(&self, appender: &mut Appender, pending: Pending) {
        let idle = appender.pending.is_empty();
        appender.pending_since.get_or_insert_with(Instant::now);
        appender.pending_bytes += pending.len as usize;
        appender.pending.push_back(pending);
        if idle || appender.pending_bytes >= FLUSH_BYTES || appender.free.len() < self.free_target() {
            self.work.notify_one();
        }
    }

    /// Gives back what a pending write held of the queue.
    pub fn release(&self, pending: &Pending) {
        self.queue.add_permits(pending.permits);
    }

    /// Bytes of one record. `Gone`: the segment was taken for something else meanwhile.
    pub async fn read_at(self: &Arc<Self>, segment: u32, offset: u32, len: u32) -> Result<Bytes, ReadError> {
        self.read_noting(segment, offset, len, None).await
    }

    /// As `read_at`; sets `cold` if the disk had to be asked.
    pub async fn read_noting(
        self: &Arc<Self>,
        segment: u32,
        offset: u32,
        len: u32,
        cold: Option<&AtomicBool>,
    ) -> Result<Bytes, ReadError> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        if let Some(bytes) = self.waiting(segment, offset, len)? {
            return Ok(bytes);
        }
        let at = self.geometry.start(segment) + u64::from(offset);
        let mut buffer = self.buffers.take(len as usize);
        let cached = self.read_cached(buffer.as_mut(), at);
        if cached == len as usize {
            return Ok(buffer.freeze());
        }
        if let Some(cold) = cold {
            cold.store(true, Ordering::Relaxed);
        }
        // More at once is no faster, and the pool's threads are there for others too. It is never closed.
        let _turn = self.cold_reads.acquire().await;
        let store = Arc::clone(self);
        let read = move || {
            let rest = &mut buffer.as_mut()[cached..];
            store.file.read_exact_at(rest, at + cached as u64).map(|()| buffer.freeze())
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(done) => done.map_err(|error| self.read_failed(segment, at, &error)),
            Err(_) => Err(ReadError::Io(io::ErrorKind::Interrupted)),
        }
    }

    /// Has the kernel read a record that will be asked for next.
    pub fn read_ahead(self: &Arc<Self>, location: Location) {
        let (at, len) = (self.geometry.start(location.segment()) + u64::from(location.offset()), location.len());
        let store = Arc::clone(self);
        // It may wait for the disk's queue. The kernel takes no more than a little at a time.
        drop(tokio::task::spawn_blocking(move || {
            for skip in (0..u64::from(len)).step_by(READ_AHEAD as usize) {
                store.file.will_read(at + skip, u64::from(len).saturating_sub(skip).min(READ_AHEAD));
            }
        }));
    }

    /// As `read_at`, for the writer thread.
    pub fn read_at_blocking(&self, segment: u32, offset: u32, len: u32) -> Result<Bytes, ReadError> {
        if let Some(bytes) = self.waiting(segment, offset, len)? {
            return Ok(bytes);
        }
        let mut buffer = vec![0; len as usize];
        let at = self.geometry.start(segment) + u64::from(offset);
        self.file.read_exact_at(&mut buffer, at).map_err(|error| self.read_failed(segment, at, &error))?;
        Ok(buffer.into())
    }

    /// The bytes if they are still to be written; `None` if they are on the disk.
    fn waiting(&self, segment: u32, offset: u32, len: u32) -> Result<Option<Bytes>, ReadError> {
        let state = self.segment(segment).ok_or(ReadError::Gone)?;
        let end = offset.checked_add(len).filter(|end| *end <= self.geometry.segment_size).ok_or(ReadError::Gone)?;
        if end <= state.written.load(Ordering::Acquire) {
            return Ok(None);
        }
        let appender = self.appender.lock();
        if end <= state.written.load(Ordering::Acquire) {
            return Ok(None);
        }
        let generation = state.generation.load(Ordering::Acquire);
        let place = (generation, offset);
        let after = appender.pending.partition_point(|pending| (pending.generation, pending.offset) <= place);
        let pending = after.checked_sub(1).and_then(|at| appender.pending.get(at)).ok_or(ReadError::Gone)?;
        let inside = pending.generation == generation && end <= pending.offset + pending.len;
        let parts = inside.then(|| pending.parts.clone()).ok_or(ReadError::Gone)?;
        let skip = (offset - pending.offset) as usize;
        drop(appender);
        Ok(Some(gather(&parts, skip, len as usize)))
    }

    /// Reads from the page cache alone; how many bytes of it are there.
    fn read_cached(&self, buffer: &mut [u8], at: u64) -> usize {
        if !self.nowait.load(Ordering::Relaxed) {
            return 0;
        }
        match self.file.read_cached(buffer, at) {
            Ok(read) => read,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.nowait.store(false, Ordering::Relaxed);
                0
            }
            Err(_) => 0,
        }
    }

    /// No HEAD record on the disk, stale ones included, has a lower epoch than this; `u64::MAX` where there is none.
    pub fn oldest_epoch(&self) -> u64 {
        self.segments.iter().map(Segment::oldest).min().unwrap_or(u64::MAX)
    }

    /// Shows the totals to the metrics.
    pub fn publish(&self) {
        let (objects, bytes) = self.index.totals();
        self.metrics.objects.set(objects as i64);
        self.metrics.bytes.set(bytes as i64);
        self.admission.observe(objects, bytes, self.geometry.start(self.geometry.segments));
    }
}

/// Why a draft got no place.
#[derive(Debug)]
pub(super) enum PlaceError {
    /// Eviction has to free a segment first.
    NoRoom(Box<Draft>),
    /// What it was to replace is gone or another.
    Unwanted,
    Refused(WriteError),
}

/// A range of bytes that lie in pieces; no copy if one piece has all of it.
fn gather(parts: &[Bytes], mut skip: usize, len: usize) -> Bytes {
    let mut out = BytesMut::new();
    for part in parts {
        if skip >= part.len() {
            skip -= part.len();
            continue;
        }
        let want = len - out.len();
        if out.is_empty() && part.len() - skip >= want {
            return part.slice(skip..skip + want);
        }
        let end = part.len().min(skip + want);
        out.extend_from_slice(&part[skip..end]);
        skip = 0;
        if out.len() == len {
            break;
        }
    }
    out.freeze()
}

impl Location {
    /// Whether it is a HEAD record.
    pub fn is_head(self) -> bool {
        self.kind() == Kind::Head
    }
}
