//! Reading objects: body blocks on demand, every byte verified before it is returned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Key;
use super::ReadError;
use super::format::{BLOCK, Kind, RECORD_HEADER, Record, block_sum, chunk_id, head_id};
use super::hold::Hold;
use super::index::Location;
use super::lookup::Head;
use super::send::Placed;
use super::store::Store;
use crate::cache::epochs::Mark;

/// Blocks read at once at most.
const MAX_RUN: u32 = 16;

/// A stored response as it was when it was looked up. It holds the segments it lies in: evicted, replaced or purged, it
/// can be read to its end.
#[derive(Clone)]
pub struct Object {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<Store>,
    key: Key,
    meta: Bytes,
    mark: Mark,
    head: Body,
    /// The part of the body in the HEAD record, if it came with it.
    tail: Option<Bytes>,
    parts: Box<[Part]>,
    write: u64,
    len: u64,
    /// The chunk that was read last: which part, and its body.
    chunk: Mutex<Option<(usize, Body)>>,
    /// Verified bytes beyond what the last read asked for, and where they begin.
    ahead: Mutex<Option<(u64, Bytes)>>,
    /// A part of it was not in the page cache.
    cold: AtomicBool,
    /// Of all that is not in memory.
    _hold: Option<Hold>,
}

/// Where a CHUNK record lies.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// The number of its first block in the object's body.
    pub first: u32,
    pub location: Location,
    pub generation: u32,
}

/// Where the body part of one record lies, and its checksums.
#[derive(Clone)]
pub(super) struct Body {
    pub location: Location,
    pub generation: u32,
    pub offset: u32,
    pub len: u32,
    /// None if the body came with its record.
    pub sums: Arc<[u64]>,
}

impl Object {
    /// Of a HEAD record and the CHUNK records before it.
    pub(super) fn new(store: &Arc<Store>, key: &Key, head: Head, parts: Box<[Part]>, hold: Option<Hold>) -> Self {
        let inner = Inner {
            store: Arc::clone(store),
            key: *key,
            meta: head.meta,
            mark: head.mark,
            len: u64::from(head.record.first) * u64::from(BLOCK) + u64::from(head.body.len),
            head: head.body,
            tail: head.tail,
            parts,
            write: head.record.write,
            chunk: Mutex::new(None),
            ahead: Mutex::new(None),
            cold: AtomicBool::new(head.cold),
            _hold: hold,
        };
        Self { inner: Arc::new(inner) }
    }

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
        let tail_at = inner.len - u64::from(inner.head.len);
        if let (Some(tail), Some(within)) = (&inner.tail, offset.checked_sub(tail_at)) {
            let start = within as usize;
            return Ok(tail.slice(start..tail.len().min(start.saturating_add(max))));
        }
        let done = inner.read_part(offset, tail_at, max).await;
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

    /// Where `len` bytes from `offset` lie that were just read, if they came from the page cache, where they can be sent from;
    /// `None` also where they are not all of one record.
    pub fn placed(&self, offset: u64, len: usize) -> Option<Placed> {
        let inner = &*self.inner;
        if inner.cold.load(Ordering::Relaxed) {
            return None;
        }
        let chunk = inner.chunk.lock();
        let (body, begin) = match offset.checked_sub(inner.len - u64::from(inner.head.len)) {
            Some(within) => (&inner.head, within),
            None => {
                let (n, body) = chunk.as_ref()?;
                (body, offset.checked_sub(u64::from(inner.parts.get(*n)?.first) * u64::from(BLOCK))?)
            }
        };
        let (begin, len) = (u32::try_from(begin).ok()?, u32::try_from(len).ok()?);
        let is_within = begin.checked_add(len).is_some_and(|end| end <= body.len);
        let at = body.offset.checked_add(begin).filter(|_| is_within)?;
        Some(Placed::new(&inner.store, body.location.segment(), body.generation, at, len))
    }

    pub(super) fn drop_from_index(&self) {
        self.inner.drop_from_index();
    }
}

impl Inner {
    fn read_ahead(&self, offset: u64, max: usize) -> Option<Bytes> {
        let ahead = self.ahead.lock();
        let (start, bytes) = ahead.as_ref()?;
        let skip = usize::try_from(offset.checked_sub(*start)?).ok().filter(|skip| *skip < bytes.len())?;
        Some(bytes.slice(skip..bytes.len().min(skip.saturating_add(max))))
    }

    /// Verified bytes from `offset` on, of one record; at least one, perhaps more than `max`.
    async fn read_part(&self, offset: u64, tail_at: u64, max: usize) -> Result<Bytes, ReadError> {
        if let Some(within) = offset.checked_sub(tail_at) {
            return self.store.read_body(&self.head, within as u32, max, Some(&self.cold)).await;
        }
        let block = (offset / u64::from(BLOCK)) as u32;
        let n = self.parts.partition_point(|part| part.first <= block).checked_sub(1).ok_or(ReadError::Checksum)?;
        let body = self.chunk(n).await?;
        let within = offset - u64::from(self.parts[n].first) * u64::from(BLOCK);
        self.store.read_body(&body, within as u32, max, Some(&self.cold)).await
    }

    async fn chunk(&self, n: usize) -> Result<Body, ReadError> {
        let last = match self.chunk.lock().as_ref() {
            Some((cached, body)) if *cached == n => return Ok(body.clone()),
            last => last.map(|(cached, _)| *cached),
        };
        // From one chunk to the next: whoever reads that far goes on.
        if self.cold.load(Ordering::Relaxed)
            && last.map_or(n == 0, |last| last + 1 == n)
            && let Some(next) = self.parts.get(n + 1)
        {
            self.store.read_ahead(next.location);
        }
        let part = self.parts[n];
        let id = chunk_id(&self.key, self.write, part.first, self.store.geometry.seed);
        self.store.index.shard(id.a).hit(id);
        let body = self.store.load_chunk(&self.key, self.write, part, Some(&self.cold)).await?;
        *self.chunk.lock() = Some((n, body.clone()));
        Ok(body)
    }

    fn drop_from_index(&self) {
        let id = head_id(&self.key, self.store.geometry.seed);
        self.store.index.shard(id.a).remove(id, self.head.location);
    }
}

impl Store {
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
        part: Part,
        within: u32,
        max: usize,
    ) -> Result<Bytes, ReadError> {
        let body = self.load_chunk(key, write, part, None).await?;
        let run = self.read_body(&body, within, max, None).await?;
        Ok(run.slice(..run.len().min(max)))
    }

    /// Where the body of a CHUNK record lies.
    async fn load_chunk(
        self: &Arc<Self>,
        key: &Key,
        write: u64,
        part: Part,
        cold: Option<&AtomicBool>,
    ) -> Result<Body, ReadError> {
        let Part { first, location, generation } = part;
        let (segment, offset, blocks) = (location.segment(), location.offset(), location.blocks());
        let prefix = RECORD_HEADER as u32 + blocks * 8;
        let read = self.read_noting(segment, offset, prefix, cold).await;
        let record = read.as_ref().ok().and_then(|bytes| Record::decode(bytes, &self.geometry));
        let record = record
            .filter(|record| record.kind == Kind::Chunk && record.generation == generation)
            .filter(|record| record.key == *key && record.write == write && record.first == first)
            .filter(|record| record.prefix_len() == prefix as usize && record.body_len == blocks * BLOCK);
        // Taken for something else: only if it was held for too long, or the disk fails there.
        if record.is_none() && self.generation(segment) != generation {
            return Err(ReadError::Gone);
        }
        let rest = read?.slice(RECORD_HEADER..);
        let record =
            record.filter(|record| record.rest_is_valid(&rest, self.geometry.seed)).ok_or(ReadError::Checksum)?;
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

    pub(super) fn verify(&self, run: &Bytes, sums: impl ExactSizeIterator<Item = u64>) -> bool {
        run.len().div_ceil(BLOCK as usize) == sums.len()
            && run.chunks(BLOCK as usize).zip(sums).all(|(block, sum)| block_sum(block, self.geometry.seed) == sum)
    }
}
