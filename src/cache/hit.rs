//! The reading side: a stored response, from whichever tier has it.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::cache::storage::{HandleHit, HitHandler};
use pingora::cache::trace::SpanHandle;
use pingora::cache::{CacheKey, Storage};
use pingora::{Error, ErrorType, OrErr};
use prometheus::IntCounter;

use super::disk::Object;
use super::fill::{DISK_READ, FillReader};
use super::memory::Entry;

/// Where a hit was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The memory tier.
    Memory,
    /// The disk tier.
    Disk,
    /// A fill in flight: the fetch of another request, or of this one.
    Fill,
}

impl Tier {
    /// The token of logs and of Cache-Status's `detail`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Fill => "fill",
        }
    }
}

/// Where a hit was found; a handler of another storage counts as memory.
pub fn tier_of(hit: &HitHandler) -> Tier {
    hit.as_any().downcast_ref::<Hit>().map_or(Tier::Memory, |hit| hit.tier)
}

enum Source {
    Memory(Arc<Entry>),
    Disk(Object),
    Fill(FillReader),
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

    /// The length of the content, where any part of it can be read.
    fn seekable_len(&self) -> Option<u64> {
        match &self.source {
            Source::Memory(entry) => Some(entry.body.len()),
            Source::Disk(object) => Some(object.len()),
            Source::Fill(reader) => reader.fill().declared.filter(|_| reader.fill().seekable),
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
            Source::Memory(_) | Source::Disk(_) => None,
        }
    }
}
