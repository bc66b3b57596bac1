//! Reading objects: the HEAD record on look-up, body blocks on demand, every byte verified before it is returned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::format::{BLOCK, Kind, RECORD_HEADER, Record, block_sum, chunk_id, head_id, primary_hash};
use super::index::Location;
use super::store::Store;
use super::{Hash128, Key, ReadError};
use crate::cache::epochs::{Mark, Standing};

/// HEAD records up to this size are read whole, body included.
const WHOLE: u32 = 128 << 10;
/// Of larger ones this much is read at first: most often all that lies before the body.
const FIRST: u32 = 16 << 10;
/// Blocks read at once at most.
const MAX_RUN: u32 = 16;
/// A record may move while it is being looked up; after so many times it counts as gone.
const ATTEMPTS: usize = 3;

/// A stored response as it was when it was looked up. It pins nothing: once its segment is evicted, reads fail.
#[derive(Clone)]
pub struct Object {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<Store>,
    key: Key,
    meta: Bytes,
    mark: Mark,
    head: Mutex<Body>,
    /// The part of the body in the HEAD record, if it came with it.
    tail: Option<Bytes>,
    chunk_size: u32,
    chunks: u32,
    write: u64,
    len: u64,
    /// The chunk that was read last.
    chunk: Mutex<Option<(u32, Body)>>,
    /// Verified bytes beyond what the last read asked for, and where they begin.
    ahead: Mutex<Option<(u64, Bytes)>>,
    /// A part of it was not in the page cache.
    cold: AtomicBool,
}

/// Where the body part of one record lies, and its checksums.
#[derive(Clone)]
pub(super) struct Body {
    location: Location,
    generation: u32,
    offset: u32,
    len: u32,
    /// None if the body came with its record.
    sums: Arc<[u64]>,
}

/// A HEAD record as read.
pub(super) struct Head {
    pub record: Record,
    pub location: Location,
    pub meta: Bytes,
    pub mark: Mark,
    body: Body,
    tail: Option<Bytes>,
    cold: bool,
}

impl Object {
    /// What was passed to `commit` or `update_meta`.
    pub fn meta(&self) -> &Bytes {
        &self.inner.meta
    }

    /// What purges by scope compare.
    pub fn mark(&self) -> &Mark {
        &self.inner.mark
    }

    /// Bytes of the body.
    pub fn len(&self) -> u64 {
        self.inner.len
    }

    /// Whether the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.inner.len == 0
    }

    /// Up to `max` bytes of the body from `offset`; fewer at the end of a run of blocks, none only at the end of the
    /// body (or for `max` 0).
    ///
    /// # Errors
    /// If the bytes cannot be read or are not those that were written, or the object was evicted meanwhile.
    pub async fn read(&self, offset: u64, max: usize) -> Result<Bytes, ReadError> {
        let inner = &*self.inner;
        if offset >= inner.len || max == 0 {
            return Ok(Bytes::new());
        }
        if let Some(bytes) = inner.read_ahead(offset, max) {
            return Ok(bytes);
        }
        let n = (offset / u64::from(inner.chunk_size)) as u32;
        let within = (offset % u64::from(inner.chunk_size)) as u32;
        if let Some(tail) = inner.tail.as_ref().filter(|_| n >= inner.chunks) {
            let start = within as usize;
            return Ok(tail.slice(start..tail.len().min(start.saturating_add(max))));
        }
        let done = inner.read_part(n, within, max).await;
        if let Err(error) = &done
            && !matches!(error, ReadError::Gone)
        {
            inner.store.metrics.error(error.kind()).inc();
            inner.drop_from_index();
        }
        let run = done?;
        if run.len() > max {
            *inner.ahead.lock() = Some((offset + max as u64, run.slice(max..)));
        }
        Ok(run.slice(..run.len().min(max)))
    }
}

impl Inner {
    fn read_ahead(&self, offset: u64, max: usize) -> Option<Bytes> {
        let ahead = self.ahead.lock();
        let (start, bytes) = ahead.as_ref()?;
        let skip = usize::try_from(offset.checked_sub(*start)?).ok().filter(|skip| *skip < bytes.len())?;
        Some(bytes.slice(skip..bytes.len().min(skip.saturating_add(max))))
    }

    /// Verified bytes from `within` part `n` on; at least one, perhaps more than `max`.
    async fn read_part(&self, n: u32, within: u32, max: usize) -> Result<Bytes, ReadError> {
        for _ in 0..ATTEMPTS {
            let body = if n < self.chunks { self.chunk(n).await? } else { self.head.lock().clone() };
            match self.store.read_body(&body, within, max, Some(&self.cold)).await {
                Err(ReadError::Gone) if n < self.chunks => *self.chunk.lock() = None,
                Err(ReadError::Gone) => self.find_head_again().await?,
                done => return done,
            }
        }
        Err(ReadError::Gone)
    }

    async fn chunk(&self, n: u32) -> Result<Body, ReadError> {
        let last = match self.chunk.lock().as_ref() {
            Some((cached, body)) if *cached == n => return Ok(body.clone()),
            last => last.map(|(cached, _)| *cached),
        };
        // From one chunk to the next: whoever reads that far goes on.
        if self.cold.load(Ordering::Relaxed) && last.map_or(n == 0, |last| last + 1 == n) {
            self.advise(n + 1);
        }
        let body = self.store.find_chunk(&self.key, self.write, n, Some(&self.cold)).await?;
        if body.len != self.chunk_size {
            return Err(ReadError::Checksum);
        }
        *self.chunk.lock() = Some((n, body.clone()));
        Ok(body)
    }

    /// Has chunk `n`, if there is one, read into the page cache.
    fn advise(&self, n: u32) {
        if n >= self.chunks {
            return;
        }
        let id = chunk_id(&self.key, self.write, n, self.store.geometry.seed);
        let location = self.store.index.shard(id.a).get(id);
        if let Some(location) = location {
            self.store.read_ahead(location);
        }
    }

    /// Eviction may have written the HEAD record again elsewhere.
    async fn find_head_again(&self) -> Result<(), ReadError> {
        let id = head_id(&self.key, self.store.geometry.seed);
        let location = self.store.index.shard(id.a).get(id).ok_or(ReadError::Gone)?;
        let head = self.store.load_head(&self.key, location).await?.ok_or(ReadError::Gone)?;
        if head.record.write != self.write {
            return Err(ReadError::Gone);
        }
        *self.head.lock() = head.body;
        Ok(())
    }

    fn drop_from_index(&self) {
        let id = head_id(&self.key, self.store.geometry.seed);
        let location = self.head.lock().location;
        self.store.index.shard(id.a).remove(id, location);
    }
}

impl Store {
    /// The object, or `None` if it is not here, purged, incomplete or damaged.
    pub async fn get(self: &Arc<Self>, key: &Key) -> Option<Object> {
        let head = self.find_head(key).await?;
        let object = self.object(key, head);
        let mark = object.mark();
        if self.epochs.standing(mark.epoch, &key.primary, &mark.scopes) == Standing::Gone {
            object.inner.drop_from_index();
            return None;
        }
        let seed = self.geometry.seed;
        // Chunks may be entered later than their HEAD.
        let is_recovering = self.index.is_recovering();
        let complete = (0..object.inner.chunks).all(|n| {
            let id = chunk_id(key, object.inner.write, n, seed);
            self.index.shard(id.a).get(id).is_some()
        });
        if !complete && is_recovering {
            return None;
        }
        if !complete {
            object.inner.drop_from_index();
            return None;
        }
        self.metrics.hits.inc();
        Some(object)
    }

    /// Whether any variant of a key is stored that no purge has taken away; true while that is not known yet.
    pub async fn is_live(self: &Arc<Self>, primary: &Hash128) -> bool {
        let a = primary_hash(primary, self.geometry.seed);
        if self.index.is_recovering() {
            return true;
        }
        let heads = self.index.shard(a).heads(a);
        if self.epochs.is_quiet() {
            return !heads.is_empty();
        }
        for location in heads {
            let Ok(bytes) = self.read_at(location.segment(), location.offset(), location.len().min(FIRST)).await else {
                continue;
            };
            let Some(record) = Record::decode(&bytes, &self.geometry).filter(|record| record.key.primary == *primary)
            else {
                continue;
            };
            if record.meta_at() > bytes.len() {
                continue;
            }
            let scopes = record.scopes(&bytes.slice(RECORD_HEADER..));
            if self.epochs.standing(record.epoch, primary, &scopes) != Standing::Gone {
                return true;
            }
        }
        false
    }

    /// The HEAD record of a key; counts a hit. A damaged one is dropped and counted.
    pub async fn find_head(self: &Arc<Self>, key: &Key) -> Option<Head> {
        let id = head_id(key, self.geometry.seed);
        for _ in 0..ATTEMPTS {
            let location = self.index.shard(id.a).hit(id)?;
            let generation = self.generation(location.segment());
            let error = match self.load_head(key, location).await {
                Ok(head) => return head,
                Err(error) => error,
            };
            let mut shard = self.index.shard(id.a);
            let stays = shard.get(id).is_some_and(|found| found.same(location));
            if stays && self.generation(location.segment()) == generation {
                shard.remove(id, location);
                drop(shard);
                if error != ReadError::Gone {
                    self.metrics.error(error.kind()).inc();
                    tracing::warn!(%error, "a stored response is damaged and dropped");
                }
                return None;
            }
        }
        None
    }

    /// `None` if the record is of another key, whose hash is the same.
    async fn load_head(self: &Arc<Self>, key: &Key, location: Location) -> Result<Option<Head>, ReadError> {
        let (segment, offset, len) = (location.segment(), location.offset(), location.len());
        let generation = self.generation(segment);
        let first = if len <= WHOLE { len } else { FIRST };
        let cold = AtomicBool::new(false);
        let mut bytes = self.read_noting(segment, offset, first, Some(&cold)).await?;
        let record = Record::decode(&bytes, &self.geometry)
            .filter(|record| record.kind == Kind::Head && record.generation == generation)
            .filter(|record| record.total_len() == len)
            .ok_or(ReadError::Checksum)?;
        if record.key != *key {
            return Ok(None);
        }
        let body_at = record.prefix_len();
        if body_at > bytes.len() {
            bytes = self.read_at(segment, offset, body_at as u32).await?;
        }
        let rest = bytes.slice(RECORD_HEADER..body_at);
        if !record.rest_is_valid(&rest, self.geometry.seed) {
            return Err(ReadError::Checksum);
        }
        let (scopes, meta) = (record.scopes(&rest), record.meta(&rest));
        let mark = Mark { epoch: record.epoch, scopes };
        let end = body_at + record.body_len as usize;
        let tail = (bytes.len() >= end).then(|| bytes.slice(body_at..end));
        if let Some(tail) = &tail
            && !self.verify(tail, record.sums(&rest))
        {
            return Err(ReadError::Checksum);
        }
        // With the whole body at hand nobody asks for its checksums again.
        let sums = if tail.is_some() { Arc::default() } else { record.sums(&rest).collect() };
        let body = Body { location, generation, offset: offset + body_at as u32, len: record.body_len, sums };
        // Small metadata is not to keep a large buffer alive.
        let meta = if tail.is_some() { meta } else { Bytes::copy_from_slice(&meta) };
        Ok(Some(Head { record, location, meta, mark, body, tail, cold: cold.into_inner() }))
    }

    fn object(self: &Arc<Self>, key: &Key, head: Head) -> Object {
        let chunk_size = self.geometry.chunk();
        let inner = Inner {
            store: Arc::clone(self),
            key: *key,
            meta: head.meta,
            mark: head.mark,
            len: u64::from(head.record.number) * u64::from(chunk_size) + u64::from(head.body.len),
            head: Mutex::new(head.body),
            tail: head.tail,
            chunk_size,
            chunks: head.record.number,
            write: head.record.write,
            chunk: Mutex::new(None),
            ahead: Mutex::new(None),
            cold: AtomicBool::new(head.cold),
        };
        Object { inner: Arc::new(inner) }
    }

    /// All of the body part of a HEAD record.
    pub async fn read_tail(self: &Arc<Self>, head: &Head) -> Result<Bytes, ReadError> {
        match &head.tail {
            Some(tail) => Ok(tail.clone()),
            None => self.read_body(&head.body, 0, head.body.len as usize, None).await,
        }
    }

    /// Part of one chunk of a write, for readers that follow it.
    pub async fn read_chunk(
        self: &Arc<Self>,
        key: &Key,
        write: u64,
        n: u32,
        within: u32,
        max: usize,
    ) -> Result<Bytes, ReadError> {
        for _ in 0..ATTEMPTS {
            let body = self.find_chunk(key, write, n, None).await?;
            match self.read_body(&body, within, max, None).await {
                Err(ReadError::Gone) => {}
                done => return done.map(|run| run.slice(..run.len().min(max))),
            }
        }
        Err(ReadError::Gone)
    }

    async fn find_chunk(
        self: &Arc<Self>,
        key: &Key,
        write: u64,
        n: u32,
        cold: Option<&AtomicBool>,
    ) -> Result<Body, ReadError> {
        let id = chunk_id(key, write, n, self.geometry.seed);
        for _ in 0..ATTEMPTS {
            let location = self.index.shard(id.a).hit(id).ok_or(ReadError::Gone)?;
            let generation = self.generation(location.segment());
            let error = match self.load_chunk(key, write, n, location, cold).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            let mut shard = self.index.shard(id.a);
            let stays = shard.get(id).is_some_and(|found| found.same(location));
            if stays && self.generation(location.segment()) == generation {
                shard.remove(id, location);
                return Err(error);
            }
        }
        Err(ReadError::Gone)
    }

    async fn load_chunk(
        self: &Arc<Self>,
        key: &Key,
        write: u64,
        n: u32,
        location: Location,
        cold: Option<&AtomicBool>,
    ) -> Result<Body, ReadError> {
        let (segment, offset) = (location.segment(), location.offset());
        let generation = self.generation(segment);
        let prefix = RECORD_HEADER as u32 + self.geometry.chunk() / BLOCK * 8;
        let bytes = self.read_noting(segment, offset, prefix, cold).await?;
        let record = Record::decode(&bytes, &self.geometry)
            .filter(|record| record.kind == Kind::Chunk && record.generation == generation)
            .filter(|record| record.key == *key && record.write == write && record.number == n)
            .filter(|record| record.prefix_len() == prefix as usize)
            .ok_or(ReadError::Checksum)?;
        let rest = bytes.slice(RECORD_HEADER..);
        if !record.rest_is_valid(&rest, self.geometry.seed) {
            return Err(ReadError::Checksum);
        }
        let sums = record.sums(&rest).collect();
        Ok(Body { location, generation, offset: offset + prefix, len: record.body_len, sums })
    }

    /// The blocks that hold `within` and what follows up to `max`, verified, from `within` on.
    async fn read_body(
        self: &Arc<Self>,
        body: &Body,
        within: u32,
        max: usize,
        cold: Option<&AtomicBool>,
    ) -> Result<Bytes, ReadError> {
        if within >= body.len {
            return Ok(Bytes::new());
        }
        let first = within / BLOCK;
        let want = u64::from(within) + max as u64;
        let last = want.div_ceil(u64::from(BLOCK)).min(u64::from(first + MAX_RUN)) as u32;
        let (start, end) = (first * BLOCK, (last * BLOCK).min(body.len));
        let sums = body.sums.get(first as usize..end.div_ceil(BLOCK) as usize).ok_or(ReadError::Checksum)?;
        let segment = body.location.segment();
        let read = self.read_noting(segment, body.offset + start, end - start, cold).await;
        let intact = read.as_ref().is_ok_and(|run| self.verify(run, sums.iter().copied()));
        if !intact && self.generation(segment) != body.generation {
            return Err(ReadError::Gone);
        }
        let run = read?;
        if intact { Ok(run.slice((within - start) as usize..)) } else { Err(ReadError::Checksum) }
    }

    fn verify(&self, run: &Bytes, sums: impl ExactSizeIterator<Item = u64>) -> bool {
        run.len().div_ceil(BLOCK as usize) == sums.len()
            && run.chunks(BLOCK as usize).zip(sums).all(|(block, sum)| block_sum(block, self.geometry.seed) == sum)
    }
}
