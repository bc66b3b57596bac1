//! Eviction: the oldest segment goes, and what was hit since it was written is written again.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::appender::{FLUSH_BYTES, PlaceError, Purpose};
use super::flush::flush_all;
use super::format::{Draft, Entry, Id, Kind, RECORD_HEADER, Record, block_sum, head_id};
use super::index::Location;
use super::store::Store;
use super::{ReadError, segment};

/// A live record of the segment that goes.
struct Live {
    entry: Entry,
    location: Location,
    /// Of what it is a part, and that one's HEAD record, if there is one yet.
    object: Id,
    head: Option<Location>,
    hits: u8,
}

/// Which records of a segment that goes are written again: those hit since they were written, the most hit first, the
/// older among equals. At most three quarters of the segment, so that eviction always gains and what it writes is
/// bounded even where everything was hit. A record written again begins without hits: it has to earn every turn.
pub(in crate::cache) fn survivors(records: &[(u8, u32)], segment_size: u32) -> Vec<bool> {
    let mut order: Vec<usize> = (0..records.len()).filter(|at| records[*at].0 > 0).collect();
    order.sort_by_key(|at| std::cmp::Reverse(records[*at].0));
    let mut budget = u64::from(segment_size) / 4 * 3;
    let mut survives = vec![false; records.len()];
    for at in order {
        let len = u64::from(records[at].1);
        if len <= budget {
            budget -= len;
            survives[at] = true;
        }
    }
    survives
}

impl Store {
    /// Frees segments until there are as many in reserve as there should be.
    pub fn make_room(&self) -> Result<(), ()> {
        loop {
            self.reclaim();
            let oldest = {
                let appender = self.appender.lock();
                if appender.free.len() >= self.free_target() || appender.held.len() >= self.most_held() {
                    return Ok(());
                }
                match appender.sealed.front() {
                    Some(segment) => *segment,
                    None => return Ok(()),
                }
            };
            // Its own records may still be waiting.
            flush_all(self)?;
            self.evict(oldest)?;
            self.release(oldest)?;
            self.admission.segment_evicted(self.geometry.segments.into());
            self.room.notify_waiters();
        }
    }

    fn evict(&self, segment: u32) -> Result<(), ()> {
        self.recovery.give_up(segment);
        let generation = self.generation(segment);
        let (entries, error) = segment::entries(&self.file, &self.geometry, segment, generation);
        if let Some(error) = error {
            // Records that are not listed stay in the index until the segment is retired.
            self.distrust(segment, &error);
        }
        let mut lost = HashSet::new();
        let mut live: Vec<Live> =
            entries.into_iter().filter_map(|entry| self.live(segment, entry, &mut lost)).collect();
        // Parts of what was given up for the sake of a later part.
        live.iter_mut().filter(|live| lost.contains(&live.object)).for_each(|live| live.hits = 0);
        let records: Vec<(u8, u32)> = live.iter().map(|live| (live.hits, live.entry.len)).collect();
        let survives = survivors(&records, self.geometry.segment_size);
        let (keep, drop): (Vec<_>, Vec<_>) = live.into_iter().zip(survives).partition(|(_, survives)| *survives);
        for (live, _) in &drop {
            self.forget(live);
            // An object that loses a part is lost.
            if let Some(head) = live.head {
                self.forget_slot(live.object, head);
                lost.insert(live.object);
            }
        }
        for (live, _) in keep {
            if lost.contains(&live.object) || !self.reinsert(segment, generation, &live) {
                self.forget(&live);
            }
            if self.appender.lock().pending_bytes >= FLUSH_BYTES {
                flush_all(self)?;
            }
        }
        Ok(())
    }

    /// The record if the index still names it, with the hits that speak for it.
    fn live(&self, segment: u32, entry: Entry, lost: &mut HashSet<Id>) -> Option<Live> {
        let place = Location::new(entry.kind, segment, entry.offset, entry.len);
        let location = self.index.shard(entry.id.a).get(entry.id).filter(|location| location.same(place))?;
        let (object, head, hits) = match entry.kind {
            Kind::Head => (entry.id, Some(location), location.hits()),
            Kind::Chunk => self.chunk_hits(segment, &entry, location, lost),
        };
        Some(Live { entry, location, object, head, hits })
    }

    /// A chunk is worth what its object is worth: nothing once another write replaced it, all while it is being
    /// written.
    fn chunk_hits(
        &self,
        segment: u32,
        entry: &Entry,
        location: Location,
        lost: &mut HashSet<Id>,
    ) -> (Id, Option<Location>, u8) {
        let Some(chunk) = self.header(segment, entry.offset) else { return (entry.id, None, 0) };
        let id = head_id(&chunk.key, self.geometry.seed);
        let head = {
            let shard = self.index.shard(id.a);
            if shard.is_writing(chunk.write) {
                return (id, None, 3);
            }
            shard.get(id)
        };
        let Some(head) = head else { return (id, None, 0) };
        match self.header(head.segment(), head.offset()) {
            // Else it was split off for a HEAD that then found no place.
            Some(record) if record.write == chunk.write && record.key == chunk.key && chunk.first < record.first => {
                let hits = head.hits().max(location.hits());
                if hits == 0 {
                    self.forget_slot(id, head);
                    lost.insert(id);
                }
                (id, Some(head), hits)
            }
            _ => (id, None, 0),
        }
    }

    fn header(&self, segment: u32, offset: u32) -> Option<Record> {
        let bytes = self.read_at_blocking(segment, offset, RECORD_HEADER as u32).ok()?;
        Record::decode(&bytes, &self.geometry)
    }

    fn forget(&self, live: &Live) {
        self.forget_slot(live.entry.id, live.location);
    }

    fn forget_slot(&self, id: Id, location: Location) {
        if self.index.shard(id.a).remove(id, location) && location.is_head() {
            self.metrics.evictions.inc();
            self.admission.evicted((id.a, id.b));
        }
    }

    /// Writes the record again at the end of the log, unless it is gone meanwhile.
    fn reinsert(&self, segment: u32, generation: u32, live: &Live) -> bool {
        let draft = match self.load(segment, generation, &live.entry) {
            Ok(draft) => draft,
            Err(error) => {
                if error != ReadError::Gone {
                    self.metrics.error(error.kind()).inc();
                }
                return false;
            }
        };
        let mut draft = Box::new(draft);
        loop {
            let (whole, blocks) = {
                let mut shard = self.index.shard(live.entry.id.a);
                if !shard.get(live.entry.id).is_some_and(|location| location.same(live.location)) {
                    return true;
                }
                match self.place(*draft, 0, Purpose::Reinsertion) {
                    Ok(location) => {
                        shard.insert(live.entry.id, location);
                        return true;
                    }
                    Err(PlaceError::Split(draft, blocks)) => (draft, blocks),
                    Err(PlaceError::NoRoom(_) | PlaceError::Unwanted | PlaceError::Refused(_)) => return false,
                }
            };
            draft = self.fill_up(whole, blocks, Purpose::Reinsertion, &mut |_, _| {});
        }
    }

    /// All of a record, every checksum verified: damage is not to be copied under a fresh checksum. What a purge by
    /// scope concerns is `Gone`; the rest is known to be younger than every purge so far, and so those can be forgotten.
    fn load(&self, segment: u32, generation: u32, entry: &Entry) -> Result<Draft, ReadError> {
        let bytes = self.read_at_blocking(segment, entry.offset, entry.len)?;
        let seed = self.geometry.seed;
        let record = Record::decode(&bytes, &self.geometry)
            .filter(|record| record.generation == generation && record.total_len() == entry.len)
            .filter(|record| record.id(seed) == entry.id)
            .ok_or(ReadError::Checksum)?;
        let rest = bytes.slice(RECORD_HEADER..record.prefix_len());
        if !record.rest_is_valid(&rest, seed) {
            return Err(ReadError::Checksum);
        }
        let scopes = record.scopes(&rest);
        let epoch = match record.kind {
            Kind::Head => self.epochs.advance(record.epoch, &record.key.primary, &scopes).ok_or(ReadError::Gone)?,
            Kind::Chunk => record.epoch,
        };
        let body = &bytes[record.prefix_len()..record.prefix_len() + record.body_len as usize];
        let intact = body
            .chunks(super::format::BLOCK as usize)
            .zip(record.sums(&rest))
            .all(|(b, sum)| block_sum(b, seed) == sum);
        intact.then(|| Draft::copy(&record, epoch, &bytes, seed)).ok_or(ReadError::Checksum)
    }

    /// No record on the disk, stale ones included, has a lower sequence than this.
    pub fn oldest_seq(&self) -> u64 {
        let oldest = self.segments.iter().map(|segment| segment.base_seq.load(Ordering::Acquire)).min();
        oldest.unwrap_or(u64::MAX)
    }
}
