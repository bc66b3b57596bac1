//! The writing side of a fill: from the origin server's response into the tiers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::cache::storage::streaming_write::U64WriteId;
use pingora::cache::storage::{HandleMiss, MissFinishType};
use pingora::cache::{CacheKey, CacheMeta};
use pingora::{Error, ErrorType, OrErr};

use super::disk;
use super::entry::Head;
use super::epochs::Standing;
use super::fill::{Fill, FillError, WINDOW};
use super::memory::Entry;
use super::{Cache, Limit, PendingWrite, key, policy};

/// Where the content of a fill stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// In memory as a whole, and on the disk if that takes it.
    Memory,
    /// On the disk; memory holds a window.
    Stream,
    /// Nowhere: it goes to the readers there are, through a window.
    Through,
}

/// What became of a write to the disk tier.
pub(super) enum Committed {
    Yes,
    /// The tier failed.
    No,
    /// A purge came before; the writer is given back for readers that still need it.
    Purged(disk::Writer),
}

/// pingora's miss handler. Dropped before [`HandleMiss::finish`], it fails the fill.
pub(super) struct FillWriter {
    cache: &'static Cache,
    fill: Arc<Fill>,
    mode: Mode,
    writer: Option<disk::Writer>,
    /// The purge sequence its request began at.
    asked: u64,
    tag: U64WriteId,
    /// Bytes of the cache's allowance for fills in memory that this one has taken.
    held: u64,
    /// Bytes of content above which it is not stored.
    max_object: u64,
    ended: bool,
}

impl FillWriter {
    /// Begins a fill and lets look-ups find it.
    pub(super) fn begin(cache: &'static Cache, key: &CacheKey, meta: &CacheMeta) -> pingora::Result<Self> {
        Self::begin_with(cache, key, meta, policy::content_length(meta.headers()).unwrap_or(None))
    }

    /// The same for content whose length is not that of the head.
    pub(super) fn begin_with(
        cache: &'static Cache,
        key: &CacheKey,
        meta: &CacheMeta,
        declared: Option<u64>,
    ) -> pingora::Result<Self> {
        let tier_key = key::tier_key(key);
        let asked = cache.asked(key);
        let head = Head::new(meta, key.primary_key(), tier_key.variant.is_none(), asked)?;
        let id = cache.next_fill.fetch_add(1, Ordering::Relaxed);
        let max_object = key.extensions.get::<Limit>().map_or(cache.max_object, |limit| limit.0);
        let fits = declared.unwrap_or(0) <= max_object;
        let current = cache.shards.with(&tier_key.primary, |shard| !shard.purged_since(&tier_key.primary, asked))
            && cache.standing(&tier_key.primary, &head) == Standing::Valid;
        let writer = cache.disk.as_ref().filter(|_| fits && current).and_then(|disk| match head.layout() {
            Some(_) => disk.writer_of_head(tier_key),
            None => disk.writer(tier_key),
        });
        let mut held = 0;
        let in_memory = declared.unwrap_or(0) <= cache.memory_object && cache.hold(&mut held, declared.unwrap_or(0));
        let mode = match (fits && current, in_memory, &writer) {
            (true, true, _) => Mode::Memory,
            (true, false, Some(_)) => Mode::Stream,
            _ => Mode::Through,
        };
        let attachable = mode != Mode::Through;
        let reader = writer.as_ref().map(disk::Writer::reader);
        let (fill, own) = Fill::begin(id, tier_key, head, declared, attachable, reader);
        cache.shards.with(&tier_key.primary, |shard| {
            let attachable = attachable && !shard.purged_since(&tier_key.primary, asked);
            shard.add_fill(&fill, own, attachable);
        });
        cache.fills_in_flight.inc();
        Ok(Self { cache, fill, mode, writer, asked, tag: id.into(), held, max_object, ended: false })
    }

    async fn write(&mut self, data: Bytes) -> Result<(), FillError> {
        if self.ended {
            return Err(FillError::Aborted);
        }
        if data.is_empty() {
            return Ok(());
        }
        let total = self.fill.written() + data.len() as u64;
        if self.fill.declared.is_some_and(|declared| total > declared) {
            return Err(FillError::Aborted);
        }
        self.choose_mode(total);
        if self.mode == Mode::Through {
            self.fill.make_room().await?;
            self.fill.push(data);
            return Ok(());
        }
        self.fill.push(data.clone());
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if writer.append(data).await.is_ok() {
            self.fill.reached_disk(writer.written(), (self.mode == Mode::Stream).then_some(WINDOW));
        } else {
            // The tier counts its errors. What is in memory as a whole can still be stored there; else the part that
            // the disk has is kept for those who still read it.
            if self.mode == Mode::Stream {
                self.pass_through();
            } else {
                self.fill.lost_disk();
                self.writer = None;
            }
        }
        Ok(())
    }

    /// Content of unknown length moves from memory to the disk, and on to nowhere, as it grows.
    fn choose_mode(&mut self, total: u64) {
        let fits = total <= self.cache.memory_object;
        if self.mode == Mode::Memory && !(fits && self.cache.hold(&mut self.held, total)) {
            self.cache.release(&mut self.held);
            if self.writer.is_some() {
                self.mode = Mode::Stream;
            } else {
                self.pass_through();
            }
        }
        if self.mode != Mode::Through && total > self.max_object {
            self.pass_through();
        }
    }

    fn pass_through(&mut self) {
        self.mode = Mode::Through;
        self.unlist();
        self.fill.detach(self.writer.take());
    }

    fn unlist(&self) {
        self.cache.shards.with(&self.fill.key.primary, |shard| shard.remove_fill(&self.fill));
    }

    /// Whether all of it has come.
    fn is_whole(&self) -> bool {
        !self.ended && self.fill.declared.is_none_or(|declared| declared == self.fill.written())
    }

    /// Puts the object into memory, unless it was purged, and writes it to the disk in the background.
    fn store_in_memory(&mut self, head: Head) {
        let (cache, key, asked) = (self.cache, self.fill.key, self.asked);
        let entry = Arc::new(Entry::new(head, self.fill.body(), asked));
        let stored = cache.shards.with(&key.primary, |shard| {
            shard.remove_fill(&self.fill);
            // Something newer may be stored meanwhile.
            entry.standing(&cache.epochs, &key.primary) == Standing::Valid
                && cache.insert(shard, key, Arc::clone(&entry), asked)
        });
        let Some(writer) = self.writer.take().filter(|_| stored) else {
            // What was in memory before may have begun to move to the disk meanwhile.
            if let Some(disk) = cache.disk.as_ref().filter(|_| stored) {
                disk.outdate(&key);
            }
            return;
        };
        let pending = PendingWrite::new(cache);
        tokio::spawn(async move {
            cache.commit(key, asked, writer, &entry.head).await;
            drop(pending);
        });
    }

    /// Finishes the object on the disk in the background; until then look-ups are answered by the fill.
    fn store_on_disk(&mut self, head: Head) {
        let Some(writer) = self.writer.take() else { return };
        let (cache, fill, asked) = (self.cache, Arc::clone(&self.fill), self.asked);
        let pending = PendingWrite::new(cache);
        tokio::spawn(async move {
            let committed = cache.commit(fill.key, asked, writer, &head).await;
            let stored = matches!(committed, Committed::Yes);
            match committed {
                // Those who still read it need nothing of it in memory.
                Committed::Yes => fill.reached_disk(fill.written(), Some(0)),
                Committed::Purged(writer) => fill.park(writer),
                Committed::No => {}
            }
            cache.shards.with(&fill.key.primary, |shard| {
                // An older and smaller object in memory would hide the one on the disk.
                if stored {
                    cache.memory.remove(&[fill.key], &cache.epochs);
                }
                shard.remove_fill(&fill);
            });
            drop(pending);
        });
    }
}

#[async_trait]
impl HandleMiss for FillWriter {
    async fn write_body(&mut self, data: Bytes, _eof: bool) -> pingora::Result<()> {
        let written = self.write(data).await;
        if written.is_err() {
            self.ended = true;
            self.unlist();
            self.fill.fail();
        }
        written.or_err(ErrorType::WriteError, "storing a response")
    }

    async fn finish(mut self: Box<Self>) -> pingora::Result<MissFinishType> {
        if !self.is_whole() {
            // Dropping it tells the readers.
            return Error::e_explain(ErrorType::WriteError, "the response is not as long as it declared");
        }
        let length = self.fill.written();
        let head = self.fill.head.with_content_length(length)?;
        match self.mode {
            Mode::Memory => self.store_in_memory(head),
            Mode::Stream => self.store_on_disk(head),
            Mode::Through => {}
        }
        self.ended = true;
        self.fill.complete();
        Ok(MissFinishType::Created(usize::try_from(length).unwrap_or(usize::MAX)))
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(self.tag.as_bytes())
    }
}

impl Drop for FillWriter {
    fn drop(&mut self) {
        if !self.ended {
            self.unlist();
            self.fill.fail();
        }
        // There if the proxy failed before it took it.
        drop(self.cache.shards.with(&self.fill.key.primary, |shard| shard.take_own(self.fill.id)));
        self.cache.release(&mut self.held);
        self.cache.fills_in_flight.dec();
    }
}

impl Cache {
    /// Completes a write to the disk tier, unless its key was purged since.
    pub(super) async fn commit(
        &'static self,
        key: disk::Key,
        asked: u64,
        writer: disk::Writer,
        head: &Head,
    ) -> Committed {
        let Some(landing) = self.shards.landing(key.primary, asked) else { return Committed::Purged(writer) };
        // Look-ups would find out; but something newer may be stored meanwhile.
        if self.standing(&key.primary, head) != Standing::Valid {
            return Committed::Purged(writer);
        }
        let Ok(meta) = head.encode() else { return Committed::No };
        let written = writer.commit(&meta, &head.mark).await;
        drop(landing);
        match written {
            Ok(()) => Committed::Yes,
            // A tier that is turned over faster than objects are written to it counts what it evicts; what is newer is there.
            Err(disk::WriteError::Evicted | disk::WriteError::Superseded) => Committed::No,
            Err(error) => {
                tracing::warn!(%error, "an object was not written to the disk tier");
                Committed::No
            }
        }
    }

    /// Takes `total` bytes in all of the allowance for fills that are in memory as a whole; `held` is what the fill
    /// has taken so far. `false` leaves that as it was.
    fn hold(&self, held: &mut u64, total: u64) -> bool {
        let more = total.saturating_sub(*held);
        let taken = self
            .filling
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |filling| {
                filling.checked_add(more).filter(|filling| *filling <= self.filling_max)
            })
            .is_ok();
        if taken {
            *held += more;
        }
        taken
    }

    fn release(&self, held: &mut u64) {
        self.filling.fetch_sub(*held, Ordering::AcqRel);
        *held = 0;
    }
}
