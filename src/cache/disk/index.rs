//! The index in memory: which record holds what. 24 bytes a record in sharded open addressing; a shard's lock is never
//! held across I/O.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::format::{ALIGN, BLOCK, Id, Kind, RECORD_HEADER};
use super::writer::Origin;

const SHARDS: usize = 64;
const SHARD_BITS: u32 = SHARDS.trailing_zeros();
const INITIAL_SLOTS: usize = 16;
/// All variants of a key share a run of slots, so their number is bounded; one more takes the place of another.
const MAX_VARIANTS: usize = 256;

/// Where a record is: segment, offset, length, kind and how often it was hit, in one word. Zero is no location.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Location(u64);

impl Location {
    const PRESENT: u64 = 1 << 63;
    const CHUNK: u64 = 1 << 62;
    const HIT_SHIFT: u32 = 60;
    const HITS: u64 = 3 << Self::HIT_SHIFT;

    /// `offset` and `len` are multiples of 64; `len` is below 2 MiB, `segment` below 2^20.
    pub fn new(kind: Kind, segment: u32, offset: u32, len: u32) -> Self {
        let kind = if kind == Kind::Chunk { Self::CHUNK } else { 0 };
        let (offset, len) = (u64::from(offset / ALIGN), u64::from(len / ALIGN));
        Self(Self::PRESENT | kind | (len & 0x7fff) << 44 | u64::from(segment & 0xf_ffff) << 24 | offset & 0xff_ffff)
    }

    pub fn kind(self) -> Kind {
        if self.0 & Self::CHUNK == 0 { Kind::Head } else { Kind::Chunk }
    }

    pub fn segment(self) -> u32 {
        (self.0 >> 24) as u32 & 0xf_ffff
    }

    pub fn offset(self) -> u32 {
        (self.0 as u32 & 0xff_ffff) * ALIGN
    }

    pub fn len(self) -> u32 {
        (self.0 >> 44) as u32 % 0x8000 * ALIGN
    }

    /// Whether it is a HEAD record.
    pub fn is_head(self) -> bool {
        self.kind() == Kind::Head
    }

    /// Blocks of the body in a CHUNK record; at least one, so that whoever walks along them gets on.
    pub fn blocks(self) -> u32 {
        (self.len().saturating_sub(RECORD_HEADER as u32) / (BLOCK + 8)).max(1)
    }

    /// Look-ups since it was written, at most 3.
    pub fn hits(self) -> u8 {
        ((self.0 & Self::HITS) >> Self::HIT_SHIFT) as u8
    }

    /// The same record, whatever the hits.
    pub fn same(self, other: Self) -> bool {
        self.0 & !Self::HITS == other.0 & !Self::HITS
    }

    fn hit(&mut self) {
        if self.hits() < 3 {
            self.0 += 1 << Self::HIT_SHIFT;
        }
    }

    fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// What was taken away while older records of it may still be read from the disk.
#[derive(Default)]
struct Gone {
    ids: HashSet<(u64, u64)>,
    /// Cache keys, of which all variants.
    primaries: HashSet<u64>,
    all: bool,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    a: u64,
    b: u64,
    location: Location,
}

/// A write under way. A purge takes it back before it was ever visible.
#[derive(Debug)]
pub(super) struct Ticket {
    id: Id,
    pub write: u64,
    origin: Origin,
    purged: AtomicBool,
}

impl Ticket {
    pub fn new(id: Id, write: u64, origin: Origin) -> Arc<Self> {
        Arc::new(Self { id, write, origin, purged: AtomicBool::new(false) })
    }

    /// Conclusive only under the lock of the key's shard.
    pub fn is_purged(&self) -> bool {
        self.purged.load(Ordering::Acquire)
    }
}

/// One part of the index. All variants of a cache key are in one shard, and so are the writes under way for it.
pub(super) struct Shard {
    slots: Box<[Slot]>,
    used: usize,
    objects: u64,
    bytes: u64,
    tickets: Vec<Arc<Ticket>>,
    /// Only while recovery goes on.
    gone: Option<Box<Gone>>,
}

impl Default for Shard {
    fn default() -> Self {
        let slots = vec![Slot::default(); INITIAL_SLOTS].into_boxed_slice();
        Self { slots, used: 0, objects: 0, bytes: 0, tickets: Vec::new(), gone: None }
    }
}

impl Shard {
    pub fn get(&self, id: Id) -> Option<Location> {
        self.find(id).map(|at| self.slots[at].location)
    }

    /// As `get`, and counts a hit.
    pub fn hit(&mut self, id: Id) -> Option<Location> {
        let at = self.find(id)?;
        self.slots[at].location.hit();
        Some(self.slots[at].location)
    }

    /// Where the variants of a cache key are.
    pub fn heads(&self, primary: u64) -> Vec<Location> {
        let mut heads = Vec::new();
        let mut at = self.bucket(primary);
        while !self.slots[at].location.is_none() {
            if self.slots[at].a == primary && self.slots[at].location.kind() == Kind::Head {
                heads.push(self.slots[at].location);
            }
            at = (at + 1) & self.mask();
        }
        heads
    }

    pub fn insert(&mut self, id: Id, location: Location) {
        if (self.used + 1) * 8 > self.slots.len() * 7 {
            self.grow();
        }
        let mut at = self.bucket(id.a);
        let (mut variants, mut first) = (0, None);
        while !self.slots[at].location.is_none() {
            let slot = self.slots[at];
            if slot.a == id.a && slot.b == id.b {
                break;
            }
            if slot.a == id.a {
                variants += 1;
                first.get_or_insert(at);
            }
            at = (at + 1) & self.mask();
        }
        if let Some(first) = first.filter(|_| variants >= MAX_VARIANTS && self.slots[at].location.is_none()) {
            at = first;
        }
        let old = self.slots[at].location;
        if old.is_none() {
            self.used += 1;
        } else {
            self.discount(old);
        }
        self.count(location);
        self.slots[at] = Slot { a: id.a, b: id.b, location };
    }

    /// Enters what recovery reads from the disk, newest first: what is here already is newer, and what was taken away
    /// since the start does not come back.
    pub fn restore(&mut self, id: Id, location: Location) {
        let is_head = location.kind() == Kind::Head;
        if self.gone.as_ref().is_some_and(|gone| {
            gone.all || gone.ids.contains(&(id.a, id.b)) || is_head && gone.primaries.contains(&id.a)
        }) {
            return;
        }
        if (self.used + 1) * 8 > self.slots.len() * 7 {
            self.grow();
        }
        let (mut at, mut variants) = (self.bucket(id.a), 0);
        while !self.slots[at].location.is_none() {
            let slot = &self.slots[at];
            variants += usize::from(slot.a == id.a);
            if slot.a == id.a && slot.b == id.b || variants >= MAX_VARIANTS {
                return;
            }
            at = (at + 1) & self.mask();
        }
        self.used += 1;
        self.count(location);
        self.slots[at] = Slot { a: id.a, b: id.b, location };
    }

    /// Removes the slot if it still names this record.
    pub fn remove(&mut self, id: Id, location: Location) -> bool {
        match self.find(id) {
            Some(at) if self.slots[at].location.same(location) => {
                self.remove_at(at);
                if let Some(gone) = &mut self.gone {
                    gone.ids.insert((id.a, id.b));
                }
                true
            }
            _ => false,
        }
    }

    /// Removes whatever is stored under this identity, and what recovery has yet to read of it; whether there is, or may
    /// be, such a thing on the disk.
    pub fn forget(&mut self, id: Id) -> bool {
        let found = self.find(id);
        if let Some(at) = found {
            self.remove_at(at);
        }
        if let Some(gone) = &mut self.gone {
            gone.ids.insert((id.a, id.b));
        }
        found.is_some() || self.gone.is_some()
    }

    /// Removes every variant of a cache key and takes back the writes under way; how many there were of each.
    pub fn purge(&mut self, primary: u64) -> (usize, usize) {
        let (mut gone, mut writes) = (0, 0);
        let mut at = self.bucket(primary);
        while !self.slots[at].location.is_none() {
            if self.slots[at].a == primary && self.slots[at].location.kind() == Kind::Head {
                // The next slot may have moved here: look again.
                self.remove_at(at);
                gone += 1;
            } else {
                at = (at + 1) & self.mask();
            }
        }
        if let Some(recovering) = &mut self.gone {
            recovering.primaries.insert(primary);
        }
        for ticket in self.tickets.iter().filter(|ticket| ticket.id.a == primary) {
            writes += usize::from(!ticket.purged.swap(true, Ordering::AcqRel));
        }
        (gone, writes)
    }

    /// Takes back the writes under way of one object: all of them, or those of what was in memory.
    pub fn supersede(&mut self, id: Id, origin: Option<Origin>) {
        let meant = |ticket: &&Arc<Ticket>| ticket.id == id && origin.is_none_or(|origin| ticket.origin == origin);
        self.tickets.iter().filter(meant).for_each(|ticket| ticket.purged.store(true, Ordering::Release));
    }

    pub fn register(&mut self, ticket: Arc<Ticket>) {
        self.tickets.push(ticket);
    }

    pub fn unregister(&mut self, write: u64) {
        self.tickets.retain(|ticket| ticket.write != write);
    }

    pub fn is_writing(&self, write: u64) -> bool {
        self.tickets.iter().any(|ticket| ticket.write == write && !ticket.is_purged())
    }

    /// Chunks stay, out of reach, for those who read them now; eviction takes them.
    fn clear(&mut self) {
        let Self { slots, tickets, gone, .. } = std::mem::take(self);
        self.gone = gone.map(|_| Box::new(Gone { all: true, ..Gone::default() }));
        tickets.iter().for_each(|ticket| ticket.purged.store(true, Ordering::Release));
        self.tickets = tickets;
        let chunks = slots.iter().filter(|slot| !slot.location.is_none() && slot.location.kind() == Kind::Chunk);
        chunks.for_each(|slot| self.insert(Id { a: slot.a, b: slot.b }, slot.location));
    }

    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    fn bucket(&self, a: u64) -> usize {
        (a >> SHARD_BITS) as usize & self.mask()
    }

    fn find(&self, id: Id) -> Option<usize> {
        let mut at = self.bucket(id.a);
        while !self.slots[at].location.is_none() {
            if self.slots[at].a == id.a && self.slots[at].b == id.b {
                return Some(at);
            }
            at = (at + 1) & self.mask();
        }
        None
    }

    /// Backward shift: later slots of the run move up, so that no tombstones are needed.
    fn remove_at(&mut self, at: usize) {
        self.discount(self.slots[at].location);
        self.used -= 1;
        let mask = self.mask();
        let (mut hole, mut next) = (at, (at + 1) & mask);
        while !self.slots[next].location.is_none() {
            let home = self.bucket(self.slots[next].a);
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.slots[hole] = Slot::default();
    }

    fn grow(&mut self) {
        self.resize(self.slots.len() * 2);
    }

    /// `slots` is a power of two that has room for all.
    fn resize(&mut self, slots: usize) {
        let larger = vec![Slot::default(); slots].into_boxed_slice();
        let old = std::mem::replace(&mut self.slots, larger);
        for slot in old.iter().filter(|slot| !slot.location.is_none()) {
            let mut at = self.bucket(slot.a);
            while !self.slots[at].location.is_none() {
                at = (at + 1) & self.mask();
            }
            self.slots[at] = *slot;
        }
    }

    fn count(&mut self, location: Location) {
        self.bytes += u64::from(location.len());
        self.objects += u64::from(location.kind() == Kind::Head);
    }

    fn discount(&mut self, location: Location) {
        self.bytes -= u64::from(location.len());
        self.objects -= u64::from(location.kind() == Kind::Head);
    }
}

/// The whole index.
pub(super) struct Index {
    shards: Box<[Mutex<Shard>]>,
    /// Records on the disk are not all entered yet.
    recovering: AtomicBool,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), recovering: AtomicBool::new(false) }
    }
}

impl Index {
    /// The shard of an `Id::a`.
    pub fn shard(&self, a: u64) -> MutexGuard<'_, Shard> {
        self.shards[a as usize % SHARDS].lock()
    }

    /// Makes room for so many records more, so that none of it is made in steps whose memory lingers.
    pub fn reserve(&self, records: u64) {
        let each = records as usize / SHARDS;
        for shard in &self.shards {
            let mut shard = shard.lock();
            let slots = ((shard.used + each) * 8).div_ceil(7).next_power_of_two();
            if slots > shard.slots.len() {
                shard.resize(slots);
            }
        }
    }

    /// From here to [`Index::end_recovery`] what is not found may still be on the disk, and what is taken away is noted.
    pub fn begin_recovery(&self) {
        self.shards.iter().for_each(|shard| shard.lock().gone = Some(Box::default()));
        self.recovering.store(true, Ordering::Release);
    }

    pub fn end_recovery(&self) {
        self.recovering.store(false, Ordering::Release);
        self.shards.iter().for_each(|shard| shard.lock().gone = None);
    }

    /// Whether records on the disk may be missing here. Ask before looking: afterwards it may just have ended.
    pub fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::Acquire)
    }

    /// Objects and bytes of records that are indexed.
    pub fn totals(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(objects, bytes), shard| {
            let shard = shard.lock();
            (objects + shard.objects, bytes + shard.bytes)
        })
    }

    /// Removes everything that lies in a segment, slot by slot; how many objects that were.
    pub fn remove_segment(&self, segment: u32) -> u64 {
        let remove = |shard: &Mutex<Shard>| {
            let mut shard = shard.lock();
            let before = shard.objects;
            let lost = shard.slots.iter().filter(|slot| !slot.location.is_none() && slot.location.segment() == segment);
            let lost: Vec<Slot> = lost.copied().collect();
            for slot in lost {
                shard.remove(Id { a: slot.a, b: slot.b }, slot.location);
            }
            before - shard.objects
        };
        self.shards.iter().map(remove).sum()
    }

    /// Bytes of memory it takes.
    pub fn ram(&self) -> u64 {
        self.shards.iter().map(|shard| size_of_val(&*shard.lock().slots) as u64).sum()
    }

    /// Removes all objects at one moment and takes back every write under way; `mark` runs at that moment.
    pub fn clear<T>(&self, mark: impl FnOnce() -> T) -> T {
        let mut guards: Vec<_> = self.shards.iter().map(|shard| shard.lock()).collect();
        guards.iter_mut().for_each(|shard| shard.clear());
        mark()
    }
}

#[cfg(test)]
mod tests;
