//! The reading side: a stored response, from whichever tier has it.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use pingora::cache::storage::{HandleHit, HitHandler};
use pingora::cache::trace::SpanHandle;
use pingora::cache::{CacheKey, Storage};
use pingora::{Error, ErrorType, OrErr};
use prometheus::IntCounter;

use super::disk::Object;
use super::fill::{DISK_READ, FillReader};
use super::memory::Entry;
use super::slices::Slices;

/// Where a hit was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The memory tier.
    Memory,
    /// The disk tier.
    Disk,
    /// A fill in flight: the fetch of another request, or of this one.
    Fill,
    /// Slices, each from one of these or from the origin.
    Slices,
}

impl Tier {
    /// The token of logs and of Cache-Status's `detail`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Fill => "fill",
            Self::Slices => "slices",
        }
    }
}

/// Where a hit was found; a handler of another storage counts as memory.
pub fn tier_of(hit: &HitHandler) -> Tier {
    hit.as_any().downcast_ref::<Hit>().map_or(Tier::Memory, |hit| hit.tier)
}

/// Whether it follows a fetch of which nothing is stored, and which is given up when nobody reads it any more.
pub fn is_for_readers_alone(hit: &HitHandler) -> bool {
    let hit = hit.as_any().downcast_ref::<Hit>();
    hit.is_some_and(|hit| matches!(&hit.source, Source::Fill(reader) if !reader.fill().is_attachable()))
}

enum Source {
    Memory(Arc<Entry>),
    Disk(Object),
    Fill(FillReader),
    Slices(Box<Slices>),
}

/// pingora's hit handler.
pub(super) struct Hit {
    source: Source,
    tier: Tier,
    at: u64,
    /// The offset to stop at.
    end: u64,
    /// Counts a request answered by another's fetch, once it is.
    collapsed: Option<IntCounter>,
}

impl Hit {
    /// An object in memory; `tier` is where it came from.
    pub(super) fn memory(entry: Arc<Entry>, tier: Tier) -> Self {
        let end = entry.body.len();
        Self { source: Source::Memory(entry), tier, at: 0, end, collapsed: None }
    }

    pub(super) fn disk(object: Object) -> Self {
        let end = object.len();
        Self { source: Source::Disk(object), tier: Tier::Disk, at: 0, end, collapsed: None }
    }

    /// A fill in flight; `collapsed` where it is another request's.
    pub(super) fn fill(reader: FillReader, collapsed: Option<IntCounter>) -> Self {
        Self { source: Source::Fill(reader), tier: Tier::Fill, at: 0, end: u64::MAX, collapsed }
    }

    /// What is stored in slices.
    pub(super) fn sliced(slices: Slices) -> Self {
        let end = slices.len();
        Self { source: Source::Slices(Box::new(slices)), tier: Tier::Slices, at: 0, end, collapsed: None }
    }

    pub(super) fn slices_ref(&self) -> Option<&Slices> {
        match &self.source {
            Source::Slices(slices) => Some(slices),
            Source::Memory(_) | Source::Disk(_) | Source::Fill(_) => None,
        }
    }

    pub(super) fn slices_mut(&mut self) -> Option<&mut Slices> {
        match &mut self.source {
            Source::Slices(slices) => Some(slices),
            Source::Memory(_) | Source::Disk(_) | Source::Fill(_) => None,
        }
    }

    /// As a part of another hit, which counts for itself.
    pub(super) fn uncounted(mut self) -> Self {
        self.collapsed = None;
        self
    }

    /// The next content at `at`, up to `end`; empty at the end.
    pub(super) fn read_at(&mut self, at: u64, end: u64) -> BoxFuture<'_, pingora::Result<Bytes>> {
        if self.at != at {
            self.at = at;
            if let Source::Fill(reader) = &mut self.source {
                reader.seek(at);
            }
        }
        self.end = end;
        Box::pin(async move { Ok(self.read().await?.unwrap_or_default()) })
    }

    /// The length of the content, where any part of it can be read.
    pub(super) fn seekable_len(&self) -> Option<u64> {
        match &self.source {
            Source::Memory(entry) => Some(entry.body.len()),
            Source::Disk(object) => Some(object.len()),
            Source::Fill(reader) => reader.fill().declared.filter(|_| reader.fill().seekable),
            Source::Slices(slices) => Some(slices.len()),
        }
    }

    async fn read(&mut self) -> pingora::Result<Option<Bytes>> {
        let left = self.end.saturating_sub(self.at);
        if left == 0 {
            return Ok(None);
        }
        let bytes = match &mut self.source {
            Source::Memory(entry) => entry.body.at(self.at).map(|piece| piece.slice(..piece.len().min(usize_of(left)))),
            Source::Disk(object) => {
                let max = usize_of(left.min(DISK_READ));
                let bytes = object.read(self.at, max).await.or_err(ErrorType::ReadError, "reading the disk tier")?;
                if bytes.is_empty() || bytes.len() > max {
                    return Error::e_explain(ErrorType::ReadError, "the disk tier gave less than it has");
                }
                Some(bytes)
            }
            Source::Fill(reader) => {
                reader.read(self.end).await.or_err(ErrorType::ReadError, "following a response being stored")?
            }
            Source::Slices(slices) => Some(slices.read(self.at, self.end).await?),
        };
        if let Some(collapsed) = self.collapsed.take() {
            collapsed.inc();
        }
        self.at += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(bytes)
    }
}

#[async_trait]
impl HandleHit for Hit {
    async fn read_body(&mut self) -> pingora::Result<Option<Bytes>> {
        self.read().await
    }

    async fn finish(
        self: Box<Self>,
        _storage: &'static (dyn Storage + Sync),
        _key: &CacheKey,
        _trace: &SpanHandle,
    ) -> pingora::Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        self.seekable_len().is_some()
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> pingora::Result<()> {
        let start = start as u64;
        let Some(length) = self.seekable_len().filter(|length| start < *length) else {
            return Error::e_explain(ErrorType::InternalError, "seek beyond the content");
        };
        self.at = start;
        self.end = end.map_or(length, |end| length.min(end as u64));
        if let Source::Fill(reader) = &mut self.source {
            reader.seek(start);
        }
        Ok(())
    }

    fn should_count_access(&self) -> bool {
        false
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
impl Hit {
    pub(super) fn fill_for_test(&self) -> Option<Arc<super::fill::Fill>> {
        match &self.source {
            Source::Fill(reader) => Some(Arc::clone(reader.fill())),
            Source::Memory(_) | Source::Disk(_) | Source::Slices(_) => None,
        }
    }
}
