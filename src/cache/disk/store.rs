//! What the tier's threads and handles share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, Semaphore};

use super::SyncPolicy;
use super::appender::Appender;
use super::buffer::Buffers;
use super::format::Geometry;
use super::hold::Holders;
use super::index::Index;
use super::io::{DirectFile, DiskFile};
use super::layout::Layout;
use super::purge_log::PurgeLog;
use super::raw_read::ColdReads;
use super::restore::Recovery;
use crate::cache::admission::Admission;
use crate::cache::epochs::Epochs;
use crate::metrics::TierMetrics;

/// KiB of records that wait to be written, over all writers.
pub(super) const QUEUE_KIB: u32 = 32 << 10;
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
    /// Who reads it.
    pub holders: Holders,
    /// Pages of it were sent, and may be on their way still.
    pub is_sent: AtomicBool,
}

impl Segment {
    /// No HEAD record in it, stale ones included, has a lower epoch.
    fn oldest(&self) -> u64 {
        // In this order: a new use moves the one into the other before it begins anew.
        let oldest = self.oldest.load(Ordering::Acquire);
        oldest.min(self.oldest_before.load(Ordering::Acquire))
    }
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
    /// Reads of the page cache alone work here.
    pub nowait: AtomicBool,
    /// Pages may be sent: they can be taken off the file before it is written over.
    pub sends: AtomicBool,
    pub buffers: Arc<Buffers>,
    pub cold_reads: ColdReads,
}

/// What recovery found; the store starts from it.
pub(super) struct Recovered {
    pub geometry: Geometry,
    pub file: DiskFile,
    /// The same past the page cache, where the file system can.
    pub direct: Option<DirectFile>,
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
            held: Vec::new(),
            is_released: false,
            suspect: None,
            next_generation: found.next_generation,
            pending: VecDeque::new(),
            pending_bytes: 0,
            pending_since: None,
            stop: None,
        };
        // Each read says all it wants; what the kernel reads beyond would be of another object.
        found.file.read_at_random();
        let sends = found.file.can_detach();
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
            sends: AtomicBool::new(sends),
            buffers: Arc::default(),
            cold_reads: ColdReads::new(found.direct),
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
