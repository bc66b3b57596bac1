//! Writing objects: bytes are collected into chunks, and the HEAD record makes the whole visible at once.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::format::{BLOCK, Draft, DraftFields, Id, Kind, block_sum, chunk_id, head_id};
use super::index::Ticket;
use super::store::{PlaceError, Purpose, Store};
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

/// The end of a body that is in no CHUNK record yet.
#[derive(Default)]
struct Partial {
    /// CHUNK records written.
    chunks: u32,
    /// Full blocks of the current chunk, and their checksums.
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
        Self { store: Arc::clone(store), key, id, ticket, origin, partial: Arc::default(), is_done: false }
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
            let is_full = {
                let mut partial = self.partial.lock();
                rest = partial.fill(rest, &self.store);
                partial.blocks.len() as u32 * BLOCK >= self.store.geometry.chunk()
            };
            if is_full {
                self.write_chunk().await.inspect_err(|error| self.refuse(*error))?;
            }
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
            let fields = DraftFields {
                kind: Kind::Chunk,
                key: self.key,
                write: self.ticket.write,
                number: partial.chunks,
                sums: &partial.sums,
                mark: &Mark::default(),
                meta: &[],
                body: partial.blocks.clone(),
            };
            (Draft::new(fields, store.geometry.seed), partial.written)
        };
        // More than this could push its own beginning out.
        if written > u64::from(store.geometry.segment_size) * u64::from(store.geometry.segments) / 2 {
            return Err(WriteError::TooLarge);
        }
        let place = |draft: Draft, permits: usize| {
            let id = draft.id;
            let mut shard = store.index.shard(id.a);
            let location = store.place(draft, permits, Purpose::Fill)?;
            shard.insert(id, location);
            Ok(())
        };
        store.with_room(draft, place).await?;
        let mut partial = self.partial.lock();
        partial.chunks += 1;
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
        let (draft, chunks) = {
            let mut partial = self.partial.lock();
            partial.end_block(store);
            let fields = DraftFields {
                kind: Kind::Head,
                key: self.key,
                write: self.ticket.write,
                number: partial.chunks,
                sums: &partial.sums,
                mark,
                meta,
                body: partial.blocks.clone(),
            };
            (Draft::new(fields, store.geometry.seed), partial.chunks)
        };
        for n in 0..chunks {
            let id = chunk_id(&self.key, self.ticket.write, n, store.geometry.seed);
            if store.index.shard(id.a).get(id).is_none() {
                return Err(WriteError::Evicted);
            }
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
        store.with_room(draft, place).await.map(drop)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let store = &*self.store;
        store.index.shard(self.id.a).unregister(self.ticket.write);
        let chunks = {
            let mut partial = self.partial.lock();
            partial.is_aborted = true;
            partial.chunks
        };
        for n in 0..chunks {
            let id = chunk_id(&self.key, self.ticket.write, n, store.geometry.seed);
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
        let chunk = u64::from(self.store.geometry.chunk());
        {
            let partial = self.partial.lock();
            if partial.is_aborted {
                return Err(ReadError::Aborted);
            }
            if offset >= partial.written || max == 0 {
                return Ok(Bytes::new());
            }
            if let Some(within) = offset.checked_sub(u64::from(partial.chunks) * chunk) {
                return Ok(partial.read(within as usize, max));
            }
        }
        let (n, within) = ((offset / chunk) as u32, (offset % chunk) as u32);
        let done = self.store.read_chunk(&self.key, self.write, n, within, max).await;
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
    /// Drops what the index has for a key.
    pub fn drop_object(&self, key: &Key) {
        let id = head_id(key, self.geometry.seed);
        self.index.shard(id.a).forget(id);
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
            let (write, number) = (head.record.write, head.record.number);
            let fields = DraftFields { kind: Kind::Head, key: *key, write, number, sums: &sums, mark, meta, body };
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
            if self.with_room(Draft::new(fields, self.geometry.seed), place).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
