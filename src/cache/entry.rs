//! A stored response as the tiers hold it: head and content.

mod form;

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use pingora::cache::CacheMeta;
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType};

use super::epochs::Mark;
use super::slices::Layout;
use super::{policy, scope};

/// A [`CacheMeta`] extension: a soft purge has made it stale.
#[derive(Clone, Copy)]
struct SoftlyPurged;

/// Whether a response that was found is stale by a soft purge, whatever it says itself.
pub fn softly_purged(meta: &CacheMeta) -> bool {
    meta.extensions().get::<SoftlyPurged>().is_some()
}

/// The head of a stored response and its times, sharing no memory with the connection it came by: key and values are
/// slices of its form on the disk.
pub(super) struct Head {
    meta: CacheMeta,
    /// What purges by scope compare.
    pub(super) mark: Mark,
    /// The whole key: a hash alone does not prove that two requests mean the same.
    key: Bytes,
}

impl Clone for Head {
    fn clone(&self) -> Self {
        Self { meta: self.to_meta(), mark: self.mark.clone(), key: self.key.clone() }
    }
}

impl Head {
    /// Copies what the proxy hands over; `asked` is the purge sequence at which its request began.
    pub(super) fn new(meta: &CacheMeta, key: &[u8], primary_slot: bool, asked: u64) -> pingora::Result<Self> {
        // The primary slot's provenance bounds the variants beside it, and rebuilding a `CacheMeta` can set it only
        // by the time of creation, which means nothing else there.
        let created = if primary_slot { meta.provenance() } else { meta.created() };
        // The values of a received head are slices of the connection's read buffer, which they would keep alive.
        let form = Bytes::from(form::encode(meta, created, key)?);
        let copied = form::decode(&form, CacheMeta::created);
        let (meta, key) =
            copied.ok_or_else(|| Error::explain(ErrorType::InternalError, "a head that cannot be stored"))?;
        let mark = Mark { epoch: asked, scopes: scope::of_response(&key, meta.headers()) };
        Ok(Self { meta, mark, key })
    }

    /// The form that policy judges, without a copy.
    pub(super) fn meta(&self) -> &CacheMeta {
        &self.meta
    }

    /// The form the proxy works with.
    pub(super) fn to_meta(&self) -> CacheMeta {
        self.to_meta_until(self.meta.fresh_until())
    }

    /// The same of a response that is stale since a time in the past, if not for longer.
    pub(super) fn to_stale_meta(&self, since: SystemTime, now: SystemTime) -> CacheMeta {
        // The very moment counts as fresh, and clocks go back: it has to lie before both.
        let since = since.min(now);
        let until = since.checked_sub(Duration::from_secs(1)).unwrap_or(since);
        let mut meta = self.to_meta_until(self.meta.fresh_until().min(until));
        if until < self.meta.fresh_until() {
            meta.extensions_mut().insert(SoftlyPurged);
        }
        meta
    }

    fn to_meta_until(&self, fresh_until: SystemTime) -> CacheMeta {
        rebuilt(&self.meta, fresh_until, self.meta.created(), self.meta.response_header_copy())
    }

    /// Tells the length that is now known, so that ranges of it can be served.
    pub(super) fn with_content_length(&self, length: u64) -> pingora::Result<Self> {
        let mut fields = self.meta.response_header_copy();
        if fields.status != StatusCode::NO_CONTENT && !fields.headers.contains_key(CONTENT_LENGTH) {
            fields.insert_header(CONTENT_LENGTH, length.to_string())?;
        }
        let meta = rebuilt(&self.meta, self.meta.fresh_until(), self.meta.created(), fields);
        Ok(Self { meta, key: self.key.clone(), mark: self.mark.clone() })
    }

    /// Whether it was stored less than `age` ago.
    pub(super) fn is_younger_than(&self, age: std::time::Duration, now: SystemTime) -> bool {
        now.duration_since(self.meta.created()).is_ok_and(|since| since < age)
    }

    pub(super) fn is_of(&self, key: &[u8]) -> bool {
        *self.key == *key
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn same_key(&self, other: &Self) -> bool {
        self.key == other.key
    }

    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        self.meta.is_fresh(now)
    }

    /// How the content is cut, where it is not stored with this head.
    pub(super) fn layout(&self) -> Option<Layout> {
        Layout::of(self.meta.headers())
    }

    /// Whether it answers only some requests for its target: a part, or a head whose slices may be missing.
    pub(super) fn is_partial(&self) -> bool {
        policy::part_of(self.meta.headers()).is_some() || self.layout().is_some()
    }

    /// Whether the head agrees with the content having this length.
    pub(super) fn declares(&self, length: u64) -> bool {
        if self.layout().is_some() {
            return length == 0;
        }
        match self.meta.headers().get(CONTENT_LENGTH) {
            Some(declared) => declared.to_str().ok().and_then(|digits| digits.parse().ok()) == Some(length),
            None => length == 0,
        }
    }

    /// Whether both are of one storing, so that the one may take over the content of the other.
    pub(super) fn same_object(&self, other: &Self) -> bool {
        let length = |head: &Self| head.meta.headers().get(CONTENT_LENGTH).cloned();
        self.meta.created() == other.meta.created() && length(self) == length(other)
    }

    /// Bytes it takes in memory, roughly, together with the head of an answer that is worked out from it and kept
    /// beside it: that is its lines once more, and what answers get besides.
    pub(super) fn size(&self) -> u64 {
        // Its slots in two maps, names, and a line's framing.
        const PER_FIELD: usize = 136;
        const ADDED: usize = 320;
        let lines: usize = self.meta.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let fields = self.meta.headers().len() * PER_FIELD;
        (2 * lines + fields + ADDED + self.key.len() + self.mark.scopes.len() * 8 + size_of::<Self>()) as u64
    }

    /// The metadata of an object on the disk.
    pub(super) fn encode(&self) -> pingora::Result<Vec<u8>> {
        form::encode(&self.meta, self.meta.created(), &self.key)
    }

    /// The same in memory of its own, for who keeps it longer than what it was read with.
    pub(super) fn detached(&self) -> Option<Self> {
        let (meta, key) = form::decode(&self.encode().ok()?.into(), CacheMeta::created)?;
        Some(Self { meta, mark: self.mark.clone(), key })
    }

    /// Reads what [`Head::encode`] wrote, of which it keeps slices; `None` for anything else.
    pub(super) fn decode(bytes: &Bytes, primary_slot: bool, mark: &Mark) -> Option<Self> {
        let created = |meta: &CacheMeta| if primary_slot { meta.provenance() } else { meta.created() };
        let (meta, key) = form::decode(bytes, created)?;
        Some(Self { meta, mark: mark.clone(), key })
    }
}

/// The same with other times and fields; `CacheMeta` has no copy of its own.
fn rebuilt(meta: &CacheMeta, fresh_until: SystemTime, created: SystemTime, fields: ResponseHeader) -> CacheMeta {
    let (revalidate, error) = (meta.stale_while_revalidate_sec(), meta.stale_if_error_sec());
    let mut rebuilt = CacheMeta::new(fresh_until, created, revalidate, error, fields);
    rebuilt.set_epoch_override(meta.epoch());
    if let Some(variance) = meta.variance() {
        rebuilt.set_variance(variance);
    }
    rebuilt
}

/// Content held in memory: pieces in order, one of them for anything up to [`Body::PIECE`].
#[derive(Clone, Default)]
pub(super) struct Body {
    /// Each with the offset of its first byte.
    pieces: Vec<(u64, Bytes)>,
    len: u64,
}

impl Body {
    /// Bytes of a piece of a large object.
    pub(super) const PIECE: usize = 1 << 20;

    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            let start = self.len;
            self.len += piece.len() as u64;
            self.pieces.push((start, piece));
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The rest of the piece at `offset`, without copying it; `None` at the end.
    pub(super) fn at(&self, offset: u64) -> Option<Bytes> {
        let index = self.pieces.partition_point(|(start, _)| *start <= offset).checked_sub(1)?;
        let (start, piece) = &self.pieces[index];
        let skip = usize::try_from(offset - start).ok()?;
        (skip < piece.len()).then(|| piece.slice(skip..))
    }

    /// The bytes from `start` to `end`, piece by piece, without copying them.
    pub(super) fn slices(&self, start: u64, end: u64) -> impl Iterator<Item = &[u8]> {
        let first = self.pieces.partition_point(|(at, _)| *at <= start).saturating_sub(1);
        self.pieces[first.min(self.pieces.len())..].iter().filter(move |(at, _)| *at < end).map(move |(at, piece)| {
            let within = |offset: u64| usize::try_from(offset.saturating_sub(*at)).unwrap_or(usize::MAX);
            let end = within(end).min(piece.len());
            &piece[within(start).min(end)..end]
        })
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = Bytes> {
        self.pieces.iter().map(|(_, piece)| piece.clone())
    }
}

/// One piece of exactly the bytes of several, in memory of its own.
pub(super) fn join<'a>(pieces: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let mut joined = BytesMut::with_capacity(pieces.clone().map(Bytes::len).sum());
    pieces.for_each(|piece| joined.extend_from_slice(piece));
    joined.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    fn head(primary_slot: bool) -> Head {
        let mut fields = ResponseHeader::build(200, None).unwrap();
        fields.append_header("ETag", "\"a\"").unwrap();
        fields.append_header("X-Two", "1").unwrap();
        fields.append_header("x-two", "2 b").unwrap();
        fields.append_header("Empty", "").unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut meta = CacheMeta::new(at(2000), at(1000), 7, 8, fields);
        meta.set_epoch_override(at(900));
        meta.set_variance([3; 16]);
        Head::new(&meta, b"key", primary_slot, 5).unwrap()
    }

    #[test]
    fn a_head_survives_its_form_on_the_disk() {
        for primary_slot in [true, false] {
            let stored = head(primary_slot);
            let before = form::encode_before(&stored.to_meta(), b"key");
            for encoded in [stored.encode().unwrap(), before] {
                let read = Head::decode(&encoded.into(), primary_slot, &head(true).mark).unwrap();
                assert!(read.is_of(b"key") && !read.is_of(b"kez"));
                assert!(read.same_object(&head(primary_slot)));
                let (meta, original) = (read.to_meta(), head(primary_slot).to_meta());
                assert_eq!(meta.headers(), original.headers());
                assert_eq!(
                    (meta.fresh_until(), meta.created(), meta.epoch(), meta.variance()),
                    (original.fresh_until(), original.created(), original.epoch(), original.variance())
                );
                assert_eq!((meta.stale_while_revalidate_sec(), meta.stale_if_error_sec()), (7, 8));
                let lines = |meta: &CacheMeta| {
                    let mut lines = Vec::new();
                    meta.response_header().header_to_h1_wire(&mut lines);
                    lines
                };
                assert_eq!(lines(&meta), b"ETag: \"a\"\r\nX-Two: 1\r\nx-two: 2 b\r\nEmpty: \r\n");
                assert_eq!(lines(&meta), lines(&original), "names keep their case");
            }
        }
    }

    #[test]
    fn a_damaged_form_is_no_head() {
        let decode = |bytes: &[u8]| Head::decode(&Bytes::copy_from_slice(bytes), true, &Mark::default());
        let encoded = head(true).encode().unwrap();
        let before = form::encode_before(&head(true).to_meta(), b"key");
        for whole in [encoded, before] {
            assert!((0..whole.len()).all(|length| decode(&whole[..length]).is_none()));
        }
        assert!(decode(b"SVM1\xff\xff\xff\xffxx").is_none() && decode(b"SVM3").is_none());
    }

    #[test]
    fn content_is_read_from_any_offset() {
        let mut body = Body::default();
        body.push(Bytes::from_static(b"abc"));
        body.push(Bytes::new());
        body.push(Bytes::from_static(b"de"));
        assert_eq!(body.len(), 5);
        for (offset, rest) in [(0, "abc"), (2, "c"), (3, "de"), (4, "e")] {
            assert_eq!(body.at(offset).unwrap(), rest);
        }
        assert_eq!(body.at(5), None);
        for (start, end, whole) in [(0, 5, "abcde"), (1, 4, "bcd"), (3, 5, "de"), (2, 3, "c"), (5, 5, ""), (9, 12, "")]
        {
            assert_eq!(body.slices(start, end).collect::<Vec<_>>().concat(), whole.as_bytes(), "{start}..{end}");
        }
        assert_eq!(Body::default().at(0), None);
    }
}
