//! Writing objects: bytes are collected into chunks, and the HEAD record makes the whole visible at once.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::appender::{PlaceError, Purpose};
use super::format::{BLOCK, Draft, DraftFields, Id, Kind, PurgeRecord, PurgeScope, block_sum, chunk_id, head_id};
use super::hold::Hold;
use super::index::{Location, Ticket};
use super::read::Part;
use super::store::Store;
use super::{Key, ReadError, WriteError};
use crate::cache::epochs::Mark;

/// A rewrite of metadata that keeps meeting changes is given up.
const ATTEMPTS: usize = 3;

/// Where an object comes from that is being written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// From the origin server: newer than what is stored.
    Fill,
    /// From memory: no newer than what is stored or being written.
    Memory,
}

/// Stores one object. Nothing is visible before [`Writer::commit`] returns; dropping it aborts.
pub struct Writer {
    store: Arc<Store>,
    key: Key,
    id: Id,
    ticket: Arc<Ticket>,
    origin: Origin,
    partial: Arc<Mutex<Partial>>,
    is_done: bool,
}

/// Follows a [`Writer`]: reads what was appended so far, from memory or from the disk.
#[derive(Clone)]
pub struct PartialReader {
    store: Arc<Store>,
    key: Key,
    write: u64,
    partial: Arc<Mutex<Partial>>,
}

/// What there is of a body.
struct Partial {
    /// Its CHUNK records, in order, and what keeps them readable.
    parts: Vec<Part>,
    hold: Hold,
    /// Blocks in them; the rest follows.
    first: u32,
    /// Full blocks, and their checksums.
    blocks: Vec<Bytes>,
    sums: Vec<u64>,
    /// The current block.
    block: BytesMut,
    written: u64,
    is_aborted: bool,
}

impl Writer {
    pub(super) fn new(store: &Arc<Store>, key: Key, origin: Origin) -> Self {
        let id = head_id(&key, store.geometry.seed);
        let ticket = {
            let mut shard = store.index.shard(id.a);
            if origin == Origin::Fill {
                shard.supersede(id, Some(Origin::Memory));
            }
            let ticket = Ticket::new(id, store.next_seq(), origin);
            shard.register(Arc::clone(&ticket));
            ticket
        };
        let partial = Partial {
            parts: Vec::new(),
            hold: Hold::new(store),
            first: 0,
            blocks: Vec::new(),
            sums: Vec::new(),
            block: BytesMut::new(),
            written: 0,
            is_aborted: false,
        };
        let partial = Arc::new(Mutex::new(partial));
        Self { store: Arc::clone(store), key, id, ticket, origin, partial, is_done: false }
    }

    /// Adds to the body. Waits at most about a second for room when the disk is behind.
    ///
    /// # Errors
    /// The object cannot be stored; drop the writer.
    pub async fn append(&mut self, data: Bytes) -> Result<(), WriteError> {
        if self.ticket.is_purged() {
            return Err(WriteError::Purged);
        }
        let mut rest = &data[..];
        while !rest.is_empty() {
            // Only once more comes: the end of a body is written with its HEAD.
            let is_full = self.partial.lock().blocks.len() as u32 * BLOCK >= self.store.geometry.chunk();
            if is_full {
                self.write_chunk().await.inspect_err(|error| self.refuse(*error))?;
            }
            rest = self.partial.lock().fill(rest, &self.store);
        }
        Ok(())
    }

    /// A reader of what was appended and will be.
    pub fn reader(&self) -> PartialReader {
        PartialReader {
            store: Arc::clone(&self.store),
            key: self.key,
            write: self.ticket.write,
            partial: Arc::clone(&self.partial),
        }
    }

    /// Bytes appended so far.
    pub fn written(&self) -> u64 {
        self.partial.lock().written
    }

    /// Ends the body and makes the object visible, in the place of one stored before.
    ///
    /// # Errors
    /// The object is not stored, nor any longer the one it was to replace.
    pub async fn commit(mut self, meta: &[u8], mark: &Mark) -> Result<(), WriteError> {
        let done = self.write_head(meta, mark).await;
        match &done {
            Ok(()) => self.is_done = true,
            Err(error) => self.refuse(*error),
        }
        done
    }

    /// The origin has answered anew and that cannot be stored: what is stored is out of date.
    fn refuse(&self, error: WriteError) {
        if error != WriteError::Purged && self.origin == Origin::Fill {
            self.store.drop_object(&self.key);
        }
    }

    async fn write_chunk(&self) -> Result<(), WriteError> {
        let store = &*self.store;
        let (draft, written) = {
            let partial = self.partial.lock();
            (self.draft(&partial, Kind::Chunk, &[], &Mark::default()), partial.written)
        };
        // More than this could push its own beginning out.
        if written > u64::from(store.geometry.segment_size) * u64::from(store.geometry.segments) / 2 {
            return Err(WriteError::TooLarge);
        }
        let place = |draft: Draft, permits: usize| {
            let (id, first) = (draft.id, draft.first());
            let mut shard = store.index.shard(id.a);
            let location = store.place(draft, permits, Purpose::Fill)?;
            shard.insert(id, location);
            self.placed(first, location);
            Ok(())
        };
        store.with_room(draft, place, |first, location| self.placed(first, location)).await?;
        let mut partial = self.partial.lock();
        partial.first += partial.blocks.len() as u32;
        partial.blocks.clear();
        partial.sums.clear();
        Ok(())
    }

    async fn write_head(&self, meta: &[u8], mark: &Mark) -> Result<(), WriteError> {
        let store = &*self.store;
        if self.ticket.is_purged() {
            return Err(WriteError::Purged);
        }
        if meta.len() > store.geometry.max_meta() {
            return Err(WriteError::TooLarge);
        }
        let (draft, blocks) = {
            let mut partial = self.partial.lock();
            partial.end_block(store);
            (self.draft(&partial, Kind::Head, meta, mark), partial.first)
        };
        if !store.has_parts(&self.key, self.ticket.write, blocks) {
            return Err(WriteError::Evicted);
        }
        let place = |draft: Draft, permits: usize| {
            let mut shard = store.index.shard(self.id.a);
            if self.ticket.is_purged() {
                return Err(PlaceError::Refused(WriteError::Purged));
            }
            if self.origin == Origin::Memory && shard.get(self.id).is_some() {
                return Err(PlaceError::Refused(WriteError::Superseded));
            }
            let location = store.place(draft, permits, Purpose::Fill)?;
            shard.insert(self.id, location);
            shard.unregister(self.ticket.write);
            Ok(())
        };
        store.with_room(draft, place, |first, location| self.placed(first, location)).await.map(drop)
    }

    /// All that is in no record yet.
    fn draft(&self, partial: &Partial, kind: Kind, meta: &[u8], mark: &Mark) -> Draft {
        let fields = DraftFields {
            kind,
            key: self.key,
            write: self.ticket.write,
            first: partial.first,
            sums: &partial.sums,
            mark,
            meta,
            body: partial.blocks.clone(),
        };
        Draft::new(fields, self.store.geometry.seed)
    }

    /// Notes a CHUNK record. Under the lock of its shard: eviction comes there before it gives the segment away.
    fn placed(&self, first: u32, location: Location) {
        let generation = self.store.generation(location.segment());
        let mut partial = self.partial.lock();
        partial.hold.add(location.segment());
        let at = partial.parts.partition_point(|part| part.first < first);
        partial.parts.insert(at, Part { first, location, generation });
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let store = &*self.store;
        store.index.shard(self.id.a).unregister(self.ticket.write);
        let parts = {
            let mut partial = self.partial.lock();
            partial.is_aborted = true;
            partial.parts.clone()
        };
        for part in parts {
            let id = chunk_id(&self.key, self.ticket.write, part.first, store.geometry.seed);
            let mut shard = store.index.shard(id.a);
            if let Some(location) = shard.get(id) {
                shard.remove(id, location);
            }
        }
    }
}

impl PartialReader {
    /// Up to `max` bytes from `offset` on; none if nothing beyond `offset` was appended yet.
    ///
    /// # Errors
    /// The write was aborted, or what went to the disk cannot be read back.
    pub async fn read(&self, offset: u64, max: usize) -> Result<Bytes, ReadError> {
        let part = {
            let partial = self.partial.lock();
            if partial.is_aborted {
                return Err(ReadError::Aborted);
            }
            if offset >= partial.written || max == 0 {
                return Ok(Bytes::new());
            }
            if let Some(within) = offset.checked_sub(u64::from(partial.first) * u64::from(BLOCK)) {
                return Ok(partial.read(within as usize, max));
            }
            let block = (offset / u64::from(BLOCK)) as u32;
            let after = partial.parts.partition_point(|part| part.first <= block);
            after.checked_sub(1).map(|at| partial.parts[at]).ok_or(ReadError::Gone)?
        };
        let within = (offset - u64::from(part.first) * u64::from(BLOCK)) as u32;
        let done = self.store.read_chunk(&self.key, self.write, part, within, max).await;
        if let Err(error) = &done
            && *error != ReadError::Gone
        {
            self.store.metrics.error(error.kind()).inc();
        }
        done
    }
}

impl Partial {
    /// Takes what fits the current block; the rest.
    fn fill<'a>(&mut self, data: &'a [u8], store: &Store) -> &'a [u8] {
        let (taken, rest) = data.split_at(data.len().min(BLOCK as usize - self.block.len()));
        if !self.blocks.is_empty() {
            // A large body: no growing by copies.
            self.block.reserve(BLOCK as usize - self.block.len());
        }
        self.block.extend_from_slice(taken);
        self.written += taken.len() as u64;
        if self.block.len() == BLOCK as usize {
            self.end_block(store);
        }
        rest
    }

    fn end_block(&mut self, store: &Store) {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block).freeze();
            self.sums.push(block_sum(&block, store.geometry.seed));
            self.blocks.push(block);
        }
    }

    /// From one block of the current chunk; `within` is below what was written.
    fn read(&self, within: usize, max: usize) -> Bytes {
        let (n, start) = (within / BLOCK as usize, within % BLOCK as usize);
        match self.blocks.get(n) {
            Some(block) => block.slice(start..block.len().min(start.saturating_add(max))),
            None => Bytes::copy_from_slice(&self.block[start..self.block.len().min(start.saturating_add(max))]),
        }
    }
}

impl Store {
    /// Drops what the index has for a key. A record in the purge log keeps a restart from bringing it back, as early as a
    /// record that had replaced it would have.
    pub fn drop_object(&self, key: &Key) {
        let id = head_id(key, self.geometry.seed);
        let seq = {
            let mut shard = self.index.shard(id.a);
            // Under the lock, so that no record of a later write has a lower sequence.
            shard.forget(id).then(|| self.next_seq())
        };
        if let Some(seq) = seq {
            self.purge_log.append_later(PurgeRecord { scope: PurgeScope::Object(*key), seq });
        }
    }

    /// As `drop_object`, and takes back the writes under way: something newer is fetched and will not be stored here.
    pub fn outdate(&self, key: &Key) {
        let id = head_id(key, self.geometry.seed);
        self.index.shard(id.a).supersede(id, None);
        self.drop_object(key);
    }

    /// Writes the HEAD record again with other metadata, if the object is still there.
    pub async fn update_meta(self: &Arc<Self>, key: &Key, meta: &[u8], mark: &Mark) -> Result<bool, WriteError> {
        if meta.len() > self.geometry.max_meta() {
            return Err(WriteError::TooLarge);
        }
        for _ in 0..ATTEMPTS {
            let Some(head) = self.find_head(key).await else { return Ok(false) };
            let id = head_id(key, self.geometry.seed);
            let Ok(tail) = self.read_tail(&head).await else { return Ok(false) };
            let blocks = (0..tail.len()).step_by(BLOCK as usize);
            let body: Vec<Bytes> = blocks.map(|at| tail.slice(at..tail.len().min(at + BLOCK as usize))).collect();
            let sums: Vec<u64> = body.iter().map(|block| block_sum(block, self.geometry.seed)).collect();
            let (write, first) = (head.record.write, head.record.first);
            let fields = DraftFields { kind: Kind::Head, key: *key, write, first, sums: &sums, mark, meta, body };
            let place = |draft: Draft, permits: usize| {
                let mut shard = self.index.shard(id.a);
                // The same place in another use of its segment is another record.
                let is_current = self.generation(head.location.segment()) == head.record.generation;
                if !is_current || !shard.get(id).is_some_and(|location| location.same(head.location)) {
                    return Err(PlaceError::Unwanted);
                }
                let location = self.place(draft, permits, Purpose::Fill)?;
                shard.insert(id, location);
                Ok(())
            };
            // A part that is split off is found by way of the new HEAD alone.
            if self.with_room(Draft::new(fields, self.geometry.seed), place, |_, _| {}).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
