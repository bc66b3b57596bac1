//! Large responses in slices: a stored head without content names them, and each slice is a stored response of its own.
//!
//! The head is stored under the target's key as a 200 of the complete length. Its field [`policy::SLICES`] has a random
//! id, the size of the slices, and the number of the one that came with it. A slice's key is made of the target's key, the id and the slice's number, so that
//! with the head all slices become unreachable, and it lives, is filled, evicted and read like any stored response.
//! All slices of one id are of one representation: their strong validator and complete length were compared when they
//! were fetched (RFC 9111 section 3.4). What is missing is fetched when it is read, by way of a [`SliceSource`].

mod reader;
mod writer;

pub(super) use reader::Slices;
pub(super) use writer::SliceWriter;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_LENGTH, HeaderMap};
use pingora::cache::key::CacheHashKey;
use pingora::cache::storage::HitHandler;
use pingora::cache::{CacheKey, CacheMeta};
use pingora::http::ResponseHeader;
use pingora::protocols::http::subrequest::server::SubrequestHandle;

use super::hit::Hit;
use super::policy::{self, StrongValidator};
use super::{Cache, key};

/// Bytes of a slice, unless configured otherwise.
pub const DEFAULT_SLICE: u64 = 1 << 20;
/// What may be configured; a power of two.
pub const SLICE_SIZES: std::ops::RangeInclusive<u64> = (64 << 10)..=(16 << 20);
/// A slice is good for as long as its head is, which alone is validated.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How a response is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Names the slices that belong together.
    pub id: u128,
    /// Bytes of each but the last.
    pub size: u64,
    /// Bytes of the whole representation.
    pub complete: u64,
}

impl Layout {
    /// A new one, of an id that nothing else has; `None` if the system gives no random bytes.
    pub fn new(size: u64, complete: u64) -> Option<Self> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).ok()?;
        Some(Self { id: u128::from_be_bytes(id), size, complete })
    }

    /// The layout of a stored response; `None` for one that is stored whole, and for a field that makes no sense.
    pub fn of(stored: &HeaderMap) -> Option<Self> {
        let (id, rest) = stored.get(policy::SLICES)?.to_str().ok()?.split_once(';')?;
        let (size, _first) = rest.split_once(';')?;
        let id = u128::from_str_radix(id, 16).ok()?;
        let size: u64 = size.parse().ok().filter(|size: &u64| size.is_power_of_two() && SLICE_SIZES.contains(size))?;
        let complete = policy::content_length(stored).ok().flatten()?;
        Some(Self { id, size, complete })
    }

    /// The number of the slice that has a position.
    pub fn index(&self, position: u64) -> u64 {
        position / self.size
    }

    /// Positions of the first byte of a slice and of the byte behind its last.
    pub fn bounds(&self, index: u64) -> (u64, u64) {
        let start = index.saturating_mul(self.size).min(self.complete);
        (start, start.saturating_add(self.size).min(self.complete))
    }

    /// Bytes of a slice.
    pub fn length(&self, index: u64) -> u64 {
        let (start, end) = self.bounds(index);
        end - start
    }

    /// Writes it into a head, which becomes that of a 200 of the complete length; `first` is the slice that comes with
    /// it as content.
    ///
    /// # Errors
    /// None: digits cannot be refused.
    pub fn mark(&self, head: &mut ResponseHeader, first: u64) -> pingora::Result<()> {
        head.set_status(http::StatusCode::OK)?;
        head.set_reason_phrase(None)?;
        head.remove_header(&http::header::CONTENT_RANGE);
        head.remove_header(&http::header::TRANSFER_ENCODING);
        head.insert_header(policy::SLICES, format!("{:032x};{};{first}", self.id, self.size))?;
        head.insert_header(CONTENT_LENGTH, self.complete)
    }

    /// The number of the slice that came with a stored head.
    fn first_of(stored: &HeaderMap) -> Option<u64> {
        stored.get(policy::SLICES)?.to_str().ok()?.rsplit_once(';')?.1.parse().ok()
    }
}

/// One slice that is to be fetched.
#[derive(Clone, Debug)]
pub struct Order {
    /// The key of the head.
    pub head: CacheKey,
    /// How the response is cut.
    pub layout: Layout,
    /// Which slice.
    pub index: u64,
    /// What the slice has to have.
    pub validator: StrongValidator,
}

impl Order {
    /// The key that the slice is stored under.
    pub fn key(&self) -> CacheKey {
        slice_key(self.head.primary_key(), &self.layout, self.index)
    }

    /// The head that a slice is stored with. The times of the sliced response are in its own head.
    ///
    /// # Errors
    /// None for the fields there are.
    pub fn meta(&self, now: SystemTime) -> pingora::Result<CacheMeta> {
        slice_meta(&self.layout, self.index, now)
    }
}

/// Where the slices come from that are not stored.
pub trait SliceSource: Send + Sync {
    /// Begins to fetch one, which is stored on its way. Its content, all of it, is what the handle gives behind a head of
    /// status 200; anything else means that it cannot be had.
    fn fetch(&self, order: Order) -> SubrequestHandle;
}

/// The key of a slice. It tells the target as [`key::target`] does, so that purges by host and prefix and the listing of
/// a store find it.
fn slice_key(whole: &[u8], layout: &Layout, index: u64) -> CacheKey {
    key::slice(whole, &layout.id.to_be_bytes(), index)
}

fn slice_meta(layout: &Layout, index: u64, now: SystemTime) -> pingora::Result<CacheMeta> {
    let mut head = ResponseHeader::build(200, None)?;
    head.insert_header(CONTENT_LENGTH, layout.length(index))?;
    Ok(CacheMeta::new(now.checked_add(FOREVER).unwrap_or(now), now, 0, 0, head))
}

/// How ready a sliced response is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It is stored whole, or all that is wanted of it is stored.
    Stored,
    /// Something of it has to be fetched, and the first of that is on its way.
    Fetching,
    /// The first of it cannot be had.
    Failed,
}

/// The layout of a hit on a sliced response.
pub fn layout_of(hit: &HitHandler) -> Option<Layout> {
    sliced(hit).map(Slices::layout)
}

/// Gives a hit on a sliced response, whose fields are `stored`, the source of its missing slices.
pub fn attach(hit: &mut HitHandler, source: Arc<dyn SliceSource>, stored: &HeaderMap) {
    if let Some(slices) = hit.as_any_mut().downcast_mut::<Hit>().and_then(Hit::slices_mut) {
        slices.attach(source, StrongValidator::of(stored));
    }
}

/// Makes sure that a sliced response can be read from `start` on; `end` is the position behind the last byte wanted.
/// Without a source only what is stored counts. To be awaited before the head of the answer is sent.
pub async fn prepare(hit: &mut HitHandler, start: u64, end: u64) -> Readiness {
    match hit.as_any_mut().downcast_mut::<Hit>().and_then(Hit::slices_mut) {
        Some(slices) => slices.prepare(start, end).await,
        None => Readiness::Stored,
    }
}

fn sliced(hit: &HitHandler) -> Option<&Slices> {
    hit.as_any().downcast_ref::<Hit>().and_then(Hit::slices_ref)
}

impl Cache {
    /// Bytes of the slices of what is stored from now on; `None` where the tiers are too small for any.
    pub fn slice_size(&self) -> Option<u64> {
        Some(self.slice_size).filter(|size| *size <= self.max_object)
    }

    /// Bytes of the largest response that is stored in slices.
    pub fn max_sliced(&self) -> u64 {
        self.max_sliced
    }

    /// The layout for a representation, of which one part has come: that of the stored response under the key, if it is
    /// of the same validator, length and slice size, so that its slices count for the new head.
    pub async fn layout_for(
        &'static self,
        key: &CacheKey,
        validator: &StrongValidator,
        size: u64,
        complete: u64,
    ) -> Option<Layout> {
        if let Some((meta, _)) = self.find(key).await
            && let Some(layout) = Layout::of(meta.headers())
            && (layout.size, layout.complete) == (size, complete)
            && StrongValidator::of(meta.headers()).as_ref() == Some(validator)
        {
            return Some(layout);
        }
        Layout::new(size, complete)
    }

    /// Drops the head of a slice that turned out to be of another representation, and with it all slices.
    pub async fn forget(&'static self, order: &Order) {
        let Some((meta, _)) = self.find(&order.head).await else { return };
        if Layout::of(meta.headers()).is_some_and(|layout| layout.id == order.layout.id) {
            let primary = order.head.primary_bin();
            if let Err(error) = self.invalidate(order.head.clone(), self.sequence()).await {
                tracing::warn!(%error, primary = ?primary, "a response that has changed may be found again after a crash");
            }
        }
    }

    /// Whether a slice is stored or on its way, as far as that shows without reading.
    fn has_slice(&self, slice: &CacheKey) -> bool {
        let tier_key = key::tier_key(slice);
        self.memory.contains(&tier_key)
            || self.shards.with(&tier_key.primary, |shard| shard.fill(&tier_key, slice.primary_key())).is_some()
            || self.disk.as_ref().is_some_and(|disk| disk.contains(&tier_key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_layout_is_read_back_from_the_head_it_marks() {
        let layout = Layout::new(1 << 20, 10 << 30).unwrap();
        assert_ne!(layout.id, Layout::new(1 << 20, 10 << 30).unwrap().id);
        let mut head = ResponseHeader::build(206, None).unwrap();
        head.insert_header("content-range", "bytes 2097152-3145727/10737418240").unwrap();
        head.insert_header("transfer-encoding", "chunked").unwrap();
        layout.mark(&mut head, 2).unwrap();
        assert_eq!((head.status.as_u16(), head.headers.len()), (200, 2), "{head:?}");
        assert_eq!(Layout::of(&head.headers), Some(layout));
        assert_eq!(Layout::first_of(&head.headers), Some(2));
        for broken in ["", "x;1048576;0", "1;1048575;0", "1;1;0", "1;2097152", "1;33554432;0"] {
            head.insert_header(policy::SLICES, broken).unwrap();
            assert_eq!(Layout::of(&head.headers), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn slices_follow_each_other_and_are_the_whole(exponent in 16u32..=24, complete in 1u64..1 << 40, at: u64) {
            let layout = Layout { id: 1, size: 1 << exponent, complete };
            let at = at % complete;
            let index = layout.index(at);
            let (start, end) = layout.bounds(index);
            prop_assert!(start <= at && at < end && end <= complete);
            prop_assert_eq!(layout.length(index), end - start);
            prop_assert_eq!(layout.bounds(index + 1).0, end);
            prop_assert!(layout.length(index) == layout.size || end == complete);
            prop_assert_eq!(layout.bounds(u64::MAX), (complete, complete));
        }
    }
}
