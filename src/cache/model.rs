//! The tiers as they decide, over sizes alone: for replaying traces of millions of requests (`cargo bench --bench trace`).
//!
//! What decides is the tiers' own: the memory tier's cache, [`Admission`] and eviction's [`survivors`]. What is modelled is
//! where records lie; a test holds the disk's half against the real one, decision by decision. Nothing is concurrent here.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moka::notification::RemovalCause;
use parking_lot::Mutex;

use super::admission::{Admission, Rule};
use super::disk::{Key, Layout, head_identity, survivors};
use super::memory::{self, ENTRY_OVERHEAD};

/// Bytes of metadata that an object is taken to have.
pub const METADATA: u64 = 400;
/// Objects above this are stored as slices of it, each on its own.
pub const SLICE: u64 = 1 << 20;

/// What the tiers are set up from.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of the memory tier.
    pub memory: u64,
    /// Bytes of the disk tier.
    pub disk: u64,
    /// Bytes of a segment, at most 1 GiB. Below the 1 MiB that the real tier takes at least, chunks shrink with it: a small
    /// trace then meets as many segments as a real disk has.
    pub segment: u32,
    /// What the disk tier takes.
    pub admission: Rule,
}

/// Memory before disk.
pub struct Tiers {
    memory: moka::sync::Cache<Key, Arc<InMemory>>,
    leaving: Leaving,
    /// Bytes up to which an object is held in memory.
    memory_object: u64,
    largest: u64,
    disk: Disk,
}

/// Evicted from memory, in order.
type Leaving = Arc<Mutex<VecDeque<(Key, Arc<InMemory>)>>>;

struct InMemory {
    size: u64,
    hit: AtomicBool,
}

impl Tiers {
    /// Empty tiers.
    pub fn new(settings: &Settings) -> Self {
        let leaving = Leaving::default();
        let left = Arc::clone(&leaving);
        let memory = memory::objects(
            settings.memory,
            |object: &Arc<InMemory>| object.size + METADATA + ENTRY_OVERHEAD,
            move |key, object, cause| {
                if cause == RemovalCause::Size {
                    left.lock().push_back((key, object));
                }
            },
        );
        let disk = Disk::new(settings.disk, settings.segment, settings.admission, 0);
        Self { memory, leaving, memory_object: (settings.memory / 8).min(SLICE), largest: settings.disk / 2, disk }
    }

    /// Asks for all of an object of `size` bytes; how many of them were hits.
    pub fn request(&mut self, object: u64, size: u64) -> u64 {
        if size > self.largest {
            return 0;
        }
        let slices = size.div_ceil(SLICE).max(1);
        let hit = |n: u64| {
            let length = (size - n * SLICE).min(SLICE);
            if self.slice(key(object, n), length) { length } else { 0 }
        };
        (0..slices).map(hit).sum()
    }

    /// Bytes written to the disk so far, framing and what eviction wrote again included.
    pub fn written(&self) -> u64 {
        self.disk.written
    }

    /// As `Storage::lookup`, `FillWriter` and `memory::demote_entry`.
    fn slice(&mut self, key: Key, size: u64) -> bool {
        let small = size <= self.memory_object;
        if let Some(object) = self.memory.get(&key) {
            object.hit.store(true, Ordering::Relaxed);
            return true;
        }
        let stored = self.disk.get(&key);
        if small {
            self.memory.insert(key, Arc::new(InMemory { size, hit: AtomicBool::new(false) }));
        }
        if !stored {
            self.disk.fill(key, size);
        }
        self.memory.run_pending_tasks();
        loop {
            let Some((key, object)) = self.leaving.lock().pop_front() else { return stored };
            if object.hit.load(Ordering::Relaxed) && !self.disk.count_hit(&key) {
                self.disk.put(key, object.size);
            }
        }
    }
}

/// About the bytes that an object of `size` bytes takes on the disk.
pub fn stored_size(size: u64) -> u64 {
    let framing = Layout::new(1 << 20).head_record(0, METADATA as u32) + Layout::ENTRY;
    size + size.div_ceil(SLICE).max(1) * u64::from(framing)
}

/// The key of one slice of an object.
fn key(object: u64, slice: u64) -> Key {
    let mut primary = [0; 16];
    primary[..8].copy_from_slice(&object.to_le_bytes());
    primary[8..].copy_from_slice(&slice.to_le_bytes());
    Key { primary, variant: None }
}

/// The disk tier: which records are in which segment.
pub(super) struct Disk {
    layout: Layout,
    seed: u64,
    admission: Admission,
    segments: u32,
    objects: HashMap<Key, Object>,
    /// Bytes of the records that the index would name.
    bytes: u64,
    /// Places of CHUNK records whose object is gone: the index names them until their segment goes.
    orphans: HashSet<u64>,
    open: Option<Segment>,
    sealed: VecDeque<Segment>,
    free: u32,
    next: u64,
    pub(super) written: u64,
}

struct Object {
    write: u64,
    head: Slot,
    /// By the number of their first block.
    chunks: BTreeMap<u32, Slot>,
}

/// What the index knows of a record.
#[derive(Clone, Copy)]
struct Slot {
    place: u64,
    len: u32,
    hits: u8,
}

impl Slot {
    fn hit(&mut self) {
        self.hits = (self.hits + 1).min(3);
    }
}

#[derive(Clone, Copy)]
struct Record {
    key: Key,
    write: u64,
    is_head: bool,
    /// The number of its first block.
    first: u32,
    body: u32,
    place: u64,
}

#[derive(Default)]
struct Segment {
    records: Vec<Record>,
    position: u32,
    /// All that was ever placed here: what the footer lists.
    entries: u32,
}

impl Disk {
    pub(super) fn new(capacity: u64, segment: u32, rule: Rule, seed: u64) -> Self {
        let layout = Layout::new(segment);
        let segments = u32::try_from(capacity / u64::from(segment)).unwrap_or(u32::MAX).max(4);
        Self {
            layout,
            seed,
            admission: Admission::new(rule),
            segments,
            objects: HashMap::new(),
            bytes: 0,
            orphans: HashSet::new(),
            open: None,
            sealed: VecDeque::new(),
            free: segments,
            next: 0,
            written: 0,
        }
    }

    /// Whether it is here; counts a hit.
    pub(super) fn get(&mut self, key: &Key) -> bool {
        let Some(object) = self.objects.get_mut(key) else { return false };
        object.head.hit();
        object.chunks.values_mut().for_each(Slot::hit);
        true
    }

    pub(super) fn count_hit(&mut self, key: &Key) -> bool {
        self.objects.get_mut(key).map(|object| object.head.hit()).is_some()
    }

    /// A fetch; whether it was admitted.
    pub(super) fn fill(&mut self, key: Key, size: u64) -> bool {
        let admitted = self.admission.admits(head_identity(&key, self.seed), self.free > Layout::RESERVE);
        if admitted {
            self.put(key, size);
        } else {
            self.remove(&key);
        }
        admitted
    }

    /// Writes an object and makes room for the next.
    pub(super) fn put(&mut self, key: Key, size: u64) {
        self.next += 1;
        let (write, chunk) = (self.next, self.layout.chunk);
        let (mut chunks, mut first, mut left) = (BTreeMap::new(), 0, size);
        let mut placed = true;
        while left > u64::from(chunk) && placed {
            let record = Record { key, write, is_head: false, first, body: chunk, place: 0 };
            placed = self.place(record, 1, &mut chunks).map(|slot| chunks.insert(first, slot)).is_some();
            first += chunk / self.layout.block;
            left -= u64::from(chunk);
        }
        let record = Record { key, write, is_head: true, first, body: left as u32, place: 0 };
        if let Some(head) = placed.then(|| self.place(record, 1, &mut chunks)).flatten() {
            self.remove(&key);
            self.objects.insert(key, Object { write, head, chunks });
        } else {
            self.bytes -= chunks.values().map(|slot| u64::from(slot.len)).sum::<u64>();
        }
        while self.free < Layout::RESERVE
            && let Some(oldest) = self.sealed.pop_front()
        {
            self.evict(&oldest);
            self.free += 1;
            self.admission.segment_evicted(self.segments.into());
        }
        let capacity = u64::from(self.segments) * u64::from(self.layout.segment);
        self.admission.observe(self.objects.len() as u64, self.bytes, capacity);
    }

    /// Objects, and bytes of their records and of those that wait to be evicted.
    #[cfg(test)]
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.objects.len() as u64, self.bytes)
    }

    #[cfg(test)]
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.objects.contains_key(key)
    }

    fn remove(&mut self, key: &Key) {
        if let Some(object) = self.objects.remove(key) {
            self.bytes -= u64::from(object.head.len);
            self.orphans.extend(object.chunks.values().map(|slot| slot.place));
        }
    }

    fn len(&self, record: &Record) -> u32 {
        match record.is_head {
            true => self.layout.head_record(record.body, METADATA as u32),
            false => self.layout.chunk_record(record.body / self.layout.block),
        }
    }

    /// As `Store::place`: `keep` segments stay free. What does not fit the end of a segment is split, as `Draft::split` does;
    /// `chunks` gets what is split off.
    fn place(&mut self, mut record: Record, keep: u32, chunks: &mut BTreeMap<u32, Slot>) -> Option<Slot> {
        while let Some(open) = &self.open {
            let (len, block) = (self.len(&record), self.layout.block);
            if self.layout.fits(open.position, open.entries, len) {
                break;
            }
            let blocks = self.layout.room(open.position, open.entries).min(record.body / block);
            if blocks == 0 {
                self.sealed.extend(self.open.take());
                break;
            }
            record.body -= blocks * block;
            let first = if record.is_head { record.first } else { record.first + record.body / block };
            record.first += if record.is_head { blocks } else { 0 };
            let part = Record { is_head: false, first, body: blocks * block, ..record };
            let slot = self.append(part)?;
            chunks.insert(first, slot);
        }
        if self.open.is_none() {
            if self.free <= keep {
                return None;
            }
            self.free -= 1;
            self.written += u64::from(Layout::FRAMES);
            self.open = Some(Segment { records: Vec::new(), position: Layout::START, entries: 0 });
        }
        self.append(record)
    }

    fn append(&mut self, record: Record) -> Option<Slot> {
        let len = self.len(&record);
        let open = self.open.as_mut()?;
        self.next += 1;
        open.position += len;
        open.entries += 1;
        open.records.push(Record { place: self.next, ..record });
        self.written += u64::from(len + Layout::ENTRY);
        self.bytes += u64::from(len);
        Some(Slot { place: self.next, len, hits: 0 })
    }

    /// As `Store::evict`.
    fn evict(&mut self, segment: &Segment) {
        let mut live: Vec<(Record, u8)> =
            segment.records.iter().filter_map(|record| Some((*record, self.hits(record)?))).collect();
        live.iter_mut().filter(|(record, _)| self.slot(record).is_none()).for_each(|(_, hits)| *hits = 0);
        let records: Vec<(u8, u32)> = live.iter().map(|(record, hits)| (*hits, self.len(record))).collect();
        let survives = survivors(&records, self.layout.segment);
        let (keep, drop): (Vec<_>, Vec<_>) = live.into_iter().zip(survives).partition(|(_, survives)| *survives);
        drop.iter().for_each(|((record, _), _)| self.forget(record));
        for ((record, _), _) in keep {
            self.reinsert(&record);
        }
        for record in &segment.records {
            if self.orphans.remove(&record.place) {
                self.bytes -= u64::from(self.len(record));
            }
        }
    }

    fn reinsert(&mut self, record: &Record) {
        if self.slot(record).is_none() {
            return;
        }
        let mut chunks = BTreeMap::new();
        let placed = self.place(*record, 0, &mut chunks);
        let (Some(old), Some(placed)) = (self.slot(record).copied(), placed) else { return self.forget(record) };
        self.bytes -= u64::from(old.len);
        if let Some(slot) = self.slot(record) {
            *slot = placed;
        }
        if let Some(object) = self.objects.get_mut(&record.key) {
            object.chunks.append(&mut chunks);
        }
    }

    /// The slot of a record that is still the one the index names.
    fn slot(&mut self, record: &Record) -> Option<&mut Slot> {
        let object = self.objects.get_mut(&record.key).filter(|object| object.write == record.write)?;
        let slot = match record.is_head {
            true => Some(&mut object.head),
            false => object.chunks.get_mut(&record.first),
        };
        slot.filter(|slot| slot.place == record.place)
    }

    /// As `Store::live`: a chunk is worth what its object is.
    fn hits(&mut self, record: &Record) -> Option<u8> {
        let own = self.slot(record)?.hits;
        if record.is_head {
            return Some(own);
        }
        let head = self.objects.get(&record.key)?.head.hits;
        if head.max(own) == 0 {
            self.lose(&record.key);
        }
        Some(head.max(own))
    }

    /// An object that loses a record is lost.
    fn forget(&mut self, record: &Record) {
        if self.slot(record).is_some() {
            self.lose(&record.key);
        }
    }

    fn lose(&mut self, key: &Key) {
        self.remove(key);
        self.admission.evicted(head_identity(key, self.seed));
    }
}

#[cfg(test)]
mod tests;
