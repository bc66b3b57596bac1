//! The end of the log: records get their places here, in order, and wait to be written.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::SemaphorePermit;

use super::WriteError;
use super::format::{self, Draft, Entry, FRAME, Id, Kind};
use super::hold::Held;
use super::index::Location;
use super::layout::Layout;
use super::store::{QUEUE_KIB, Service, Stop, Store};

/// A writer that gets no room for so long gives up, so that a slow disk never holds up a response for longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Once so much waits it is written.
pub(super) const FLUSH_BYTES: usize = 1 << 20;

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
    /// Evicted segments whose readers are not done.
    pub held: Held,
    /// One of them may be free.
    pub is_released: bool,
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

/// Why a draft got no place.
#[derive(Debug)]
pub(super) enum PlaceError {
    /// Eviction has to free a segment first.
    NoRoom(Box<Draft>),
    /// It does not fit what is left of the segment, but so many of its blocks do.
    Split(Box<Draft>, u32),
    /// What it was to replace is gone or another.
    Unwanted,
    Refused(WriteError),
}

impl Store {
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
        draft: Draft,
        place: impl Fn(Draft, usize) -> Result<(), PlaceError>,
        mut split_off: impl FnMut(u32, Location),
    ) -> Result<bool, WriteError> {
        let permit = self.admit(draft.len()).await?;
        let mut draft = Box::new(draft);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            // Made before the attempt, so that a segment freed in between wakes it.
            let room = self.room.notified();
            draft = match place(*draft, permit.num_permits()) {
                Ok(()) => {
                    // The writer thread gives them back once the record is on the disk.
                    permit.forget();
                    return Ok(true);
                }
                Err(PlaceError::Unwanted) => return Ok(false),
                Err(PlaceError::Refused(error)) => return Err(error),
                Err(PlaceError::Split(whole, blocks)) => {
                    draft = self.fill_up(whole, blocks, Purpose::Fill, &mut split_off);
                    continue;
                }
                Err(PlaceError::NoRoom(draft)) => draft,
            };
            if self.service() != Service::Open {
                return Err(WriteError::OutOfService);
            }
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return Err(WriteError::Busy);
            }
        }
    }

    /// Fills what is left of the open segment with a part of a draft, whose rest is given back; all of it if that room
    /// was taken meanwhile. `split_off` is told the number of the part's first block, and its place.
    pub fn fill_up(
        &self,
        draft: Box<Draft>,
        blocks: u32,
        purpose: Purpose,
        split_off: &mut impl FnMut(u32, Location),
    ) -> Box<Draft> {
        let (part, rest) = draft.split(blocks, self.geometry.seed);
        let (id, first) = (part.id, part.first());
        let mut shard = self.index.shard(id.a);
        match self.place_part(part, purpose) {
            Some(location) => {
                shard.insert(id, location);
                split_off(first, location);
                Box::new(rest)
            }
            None => draft,
        }
    }

    /// Gives a draft a place in the open segment, if there is room.
    fn place_part(&self, draft: Draft, purpose: Purpose) -> Option<Location> {
        let mut appender = self.appender.lock();
        let is_open = self.service() == Service::Open && appender.stop.is_none();
        let layout = Layout::new(self.geometry.segment_size);
        let open = appender.open.as_ref().filter(|_| is_open)?;
        let fits = layout.fits(open.position, open.entries.len() as u32, draft.len());
        (fits && self.reserve(&mut appender, draft.len(), purpose))
            .then(|| self.append(&mut appender, draft, 0))
            .flatten()
    }

    /// Gives a draft its place and queues it; the caller enters the location into the index under the lock of the
    /// shard it already holds, so that index, sequence and place agree. `permits` are given back once it is written.
    pub fn place(&self, draft: Draft, permits: usize, purpose: Purpose) -> Result<Location, PlaceError> {
        let mut appender = self.appender.lock();
        if self.service() != Service::Open || appender.stop.is_some() {
            return Err(PlaceError::Refused(WriteError::OutOfService));
        }
        if let Some(blocks) = self.splits(&appender, &draft) {
            return Err(PlaceError::Split(Box::new(draft), blocks));
        }
        if !self.reserve(&mut appender, draft.len(), purpose) || appender.open.is_none() {
            return Err(PlaceError::NoRoom(Box::new(draft)));
        }
        self.append(&mut appender, draft, permits).ok_or(PlaceError::Refused(WriteError::OutOfService))
    }

    /// Of a draft that does not fit the open segment, how many blocks do, if any.
    fn splits(&self, appender: &Appender, draft: &Draft) -> Option<u32> {
        let (open, layout) = (appender.open.as_ref()?, Layout::new(self.geometry.segment_size));
        let (position, entries) = (open.position, open.entries.len() as u32);
        if layout.fits(position, entries, draft.len()) {
            return None;
        }
        Some(layout.room(position, entries).min(draft.whole_blocks())).filter(|blocks| *blocks > 0)
    }

    /// Puts a draft at the end of the open segment, where it fits.
    fn append(&self, appender: &mut Appender, draft: Draft, permits: usize) -> Option<Location> {
        let seq = self.next_seq();
        let open = appender.open.as_mut()?;
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
        self.queue(appender, Pending { segment, generation, offset, len, parts, slot, base_seq: None, permits });
        Some(location)
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
            state.holders.open();
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
    pub fn written(&self, pending: &Pending) {
        self.queue.add_permits(pending.permits);
    }
}
