//! The writing side: the first slice of a response that is stored in slices, and its head.

use async_trait::async_trait;
use bytes::Bytes;
use pingora::cache::storage::{HandleMiss, HitHandler, MissFinishType};
use pingora::cache::{CacheKey, CacheMeta};

use super::{Cache, Layout, Slices, slice_key, slice_meta};
use crate::cache::hit::Hit;
use crate::cache::miss::FillWriter;
use crate::cache::{Asked, key};

/// pingora's miss handler for content that is one slice of a response: the head is stored at once, the content becomes
/// the slice.
pub(crate) struct SliceWriter {
    slice: Box<FillWriter>,
    tag: Vec<u8>,
}

/// Bytes of [`SliceWriter`]'s tag: layout, number of the slice, and the tag of its fill.
const TAG: usize = 16 + 8 + 8 + 8 + 8;

impl SliceWriter {
    pub(crate) async fn begin(
        cache: &'static Cache,
        head: &CacheKey,
        meta: &CacheMeta,
        layout: Layout,
    ) -> pingora::Result<Self> {
        let index = Layout::first_of(meta.headers()).unwrap_or_default();
        let mut key = slice_key(head.primary_key(), &layout, index);
        if let Some(asked) = head.extensions.get::<Asked>() {
            key.extensions.insert(*asked);
        }
        let slice = FillWriter::begin(cache, &key, &slice_meta(&layout, index, meta.created())?)?;
        // The slice can be found before the head that names it.
        let stored = FillWriter::begin_with(cache, head, meta, Some(0))?;
        Box::new(stored).finish().await?;
        let mut tag = Vec::with_capacity(TAG);
        tag.extend_from_slice(&layout.id.to_be_bytes());
        for number in [layout.size, layout.complete, index] {
            tag.extend_from_slice(&number.to_be_bytes());
        }
        tag.extend_from_slice(slice.streaming_write_tag().unwrap_or_default());
        Ok(Self { slice: Box::new(slice), tag })
    }
}

#[async_trait]
impl HandleMiss for SliceWriter {
    async fn write_body(&mut self, data: Bytes, eof: bool) -> pingora::Result<()> {
        self.slice.write_body(data, eof).await
    }

    async fn finish(self: Box<Self>) -> pingora::Result<MissFinishType> {
        self.slice.finish().await
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(&self.tag)
    }
}

impl Cache {
    /// The reader of the request whose response a [`SliceWriter`] stores; `None` for the tag of any other writer.
    pub(in crate::cache) fn own_slices(&'static self, head: &CacheKey, tag: &[u8]) -> Option<(CacheMeta, HitHandler)> {
        let tag: &[u8; TAG] = tag.try_into().ok()?;
        let number = |at: usize| tag[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        let id = u128::from_be_bytes(tag[..16].try_into().ok()?);
        let layout = Layout { id, size: number(16)?, complete: number(24)? };
        let (index, fill) = (number(32)?, number(40)?);
        let slice = key::tier_key(&slice_key(head.primary_key(), &layout, index));
        let reader = self.shards.with(&slice.primary, |shard| shard.take_own(fill))?;
        let meta = reader.fill().head.to_meta();
        let mut slices = Slices::new(self, head.clone(), layout);
        slices.begin_with(index, Hit::fill(reader, None));
        Some((meta, Box::new(Hit::sliced(slices))))
    }
}
