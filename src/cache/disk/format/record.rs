//! Records: a fixed header, block checksums, metadata, body.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    ALIGN, BLOCK, Geometry, Id, Kind, RECORD_HEADER, chunk_id, get_hash, get32, get64, head_id, put32, put64, seal,
    sealed,
};
use crate::cache::disk::Key;
use crate::cache::epochs::Mark;
use crate::cache::scope::MAX_SCOPES;

const HEAD_MAGIC: u32 = 0x4441_4531;
const CHUNK_MAGIC: u32 = 0x4b4e_4831;

/// The fixed header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::cache::disk) struct Record {
    pub kind: Kind,
    pub generation: u32,
    pub seq: u64,
    pub key: Key,
    /// Names one write of an object; HEAD and CHUNK records of it share it.
    pub write: u64,
    /// The number of its first block in the object's body; of a HEAD, how many blocks are in CHUNK records.
    pub first: u32,
    pub meta_len: u32,
    pub body_len: u32,
    /// How many scopes it has.
    pub scopes: u32,
    /// HEAD: no purge by scope up to this one concerns it. CHUNK: 0.
    pub epoch: u64,
    rest_sum: u64,
}

impl Record {
    /// Number of body blocks.
    pub fn blocks(&self) -> u32 {
        self.body_len.div_ceil(BLOCK)
    }

    /// Bytes before the body: header, block checksums, scopes, metadata.
    pub fn prefix_len(&self) -> usize {
        self.meta_at() + self.meta_len as usize
    }

    /// Bytes before the metadata.
    pub fn meta_at(&self) -> usize {
        RECORD_HEADER + (self.blocks() + self.scopes) as usize * 8
    }

    /// All bytes, padding included. Both lengths are bounded by `decode`, so this cannot overflow.
    pub fn total_len(&self) -> u32 {
        (self.prefix_len() as u32 + self.body_len).next_multiple_of(ALIGN)
    }

    /// Its identity in the index.
    pub fn id(&self, seed: u64) -> Id {
        match self.kind {
            Kind::Head => head_id(&self.key, seed),
            Kind::Chunk => chunk_id(&self.key, self.write, self.first, seed),
        }
    }

    /// The header, where it is valid; what follows it is checked by [`Self::rest_is_valid`].
    pub fn decode(bytes: &[u8], geometry: &Geometry) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        if !sealed(bytes, geometry.seed) {
            return None;
        }
        let kind = match get32(bytes, 8) {
            HEAD_MAGIC => Kind::Head,
            CHUNK_MAGIC => Kind::Chunk,
            _ => return None,
        };
        let flags = get32(bytes, 76);
        let variant = match flags & 0xffff {
            0 => None,
            1 => Some(get_hash(bytes, 40)),
            _ => return None,
        };
        let record = Self {
            kind,
            generation: get32(bytes, 12),
            seq: get64(bytes, 16),
            key: Key { primary: get_hash(bytes, 24), variant },
            write: get64(bytes, 56),
            first: get32(bytes, 64),
            meta_len: get32(bytes, 68),
            body_len: get32(bytes, 72),
            scopes: flags >> 16,
            epoch: get64(bytes, 88),
            rest_sum: get64(bytes, 80),
        };
        let fits = record.meta_len as usize <= geometry.max_meta()
            && record.body_len <= geometry.chunk()
            && record.scopes as usize <= MAX_SCOPES;
        fits.then_some(record)
    }

    /// Whether checksum table and metadata are what was written; `rest` is what lies between header and body.
    pub fn rest_is_valid(&self, rest: &[u8], seed: u64) -> bool {
        xxh3_64_with_seed(rest, seed) == self.rest_sum
    }

    /// The block checksums in `rest`.
    pub fn sums<'a>(&self, rest: &'a [u8]) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        rest[..self.blocks() as usize * 8].chunks_exact(8).map(|raw| get64(raw, 0))
    }

    /// The scopes in `rest`.
    pub fn scopes(&self, rest: &[u8]) -> Arc<[u64]> {
        match self.scopes {
            // Nothing to allocate.
            0 => Arc::default(),
            _ => rest[self.blocks() as usize * 8..self.meta_at() - RECORD_HEADER]
                .chunks_exact(8)
                .map(|raw| get64(raw, 0))
                .collect(),
        }
    }

    /// The metadata in `rest`.
    pub fn meta(&self, rest: &Bytes) -> Bytes {
        rest.slice(self.meta_at() - RECORD_HEADER..)
    }
}

/// A record that has no place yet: generation and sequence are set when it gets one.
#[derive(Debug)]
pub(in crate::cache::disk) struct Draft {
    pub id: Id,
    pub kind: Kind,
    /// As in the record.
    pub epoch: u64,
    prefix: BytesMut,
    body: Vec<Bytes>,
    len: u32,
}

/// What a draft is made of.
pub(in crate::cache::disk) struct DraftFields<'a> {
    pub kind: Kind,
    pub key: Key,
    pub write: u64,
    pub first: u32,
    pub sums: &'a [u64],
    /// Of a HEAD; default for a CHUNK.
    pub mark: &'a Mark,
    pub meta: &'a [u8],
    pub body: Vec<Bytes>,
}

impl Draft {
    pub fn new(fields: DraftFields<'_>, seed: u64) -> Self {
        let body_len: usize = fields.body.iter().map(Bytes::len).sum();
        let scopes = &fields.mark.scopes[..fields.mark.scopes.len().min(MAX_SCOPES)];
        let words = fields.sums.len() + scopes.len();
        let mut prefix = BytesMut::with_capacity(RECORD_HEADER + words * 8 + fields.meta.len());
        prefix.resize(RECORD_HEADER, 0);
        for word in fields.sums.iter().chain(scopes) {
            prefix.extend_from_slice(&word.to_le_bytes());
        }
        prefix.extend_from_slice(fields.meta);
        let rest_sum = xxh3_64_with_seed(&prefix[RECORD_HEADER..], seed);
        put32(&mut prefix, 8, if fields.kind == Kind::Head { HEAD_MAGIC } else { CHUNK_MAGIC });
        prefix[24..40].copy_from_slice(&fields.key.primary);
        let mut flags = (scopes.len() as u32) << 16;
        if let Some(variant) = &fields.key.variant {
            prefix[40..56].copy_from_slice(variant);
            flags |= 1;
        }
        put32(&mut prefix, 76, flags);
        put64(&mut prefix, 88, fields.mark.epoch);
        put64(&mut prefix, 56, fields.write);
        put32(&mut prefix, 64, fields.first);
        put32(&mut prefix, 68, fields.meta.len() as u32);
        put32(&mut prefix, 72, body_len as u32);
        put64(&mut prefix, 80, rest_sum);
        let id = match fields.kind {
            Kind::Head => head_id(&fields.key, seed),
            Kind::Chunk => chunk_id(&fields.key, fields.write, fields.first, seed),
        };
        let len = (prefix.len() + body_len).next_multiple_of(ALIGN as usize) as u32;
        Self { id, kind: fields.kind, epoch: fields.mark.epoch, prefix, body: fields.body, len }
    }

    /// A stored record that moves elsewhere, with this epoch; `bytes` is all of it.
    pub fn copy(record: &Record, epoch: u64, bytes: &Bytes, seed: u64) -> Self {
        let body_at = record.prefix_len();
        Self {
            id: record.id(seed),
            kind: record.kind,
            epoch,
            prefix: BytesMut::from(&bytes[..body_at]),
            body: vec![bytes.slice(body_at..body_at + record.body_len as usize)],
            len: record.total_len(),
        }
    }

    /// Bytes it will take, padding included.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The number of its first block in the object's body.
    pub fn first(&self) -> u32 {
        get32(&self.prefix, 64)
    }

    /// Whole blocks of its body.
    pub fn whole_blocks(&self) -> u32 {
        (self.body.iter().map(Bytes::len).sum::<usize>() / BLOCK as usize) as u32
    }

    /// As two records, so that the first fills what is left of a segment: a CHUNK of `blocks` blocks, at least one and no
    /// more than there are whole ones, and the rest, of the same kind. From a HEAD the first blocks are taken, from a
    /// CHUNK the last: whichever of the two is entered into the index first, what readers find is complete.
    pub fn split(&self, blocks: u32, seed: u64) -> (Self, Self) {
        let (scopes, first) = (get32(&self.prefix, 76) >> 16, self.first());
        let variant = (get32(&self.prefix, 76) & 0xffff == 1).then(|| get_hash(&self.prefix, 40));
        let sums_end = self.prefix.len() - get32(&self.prefix, 68) as usize - scopes as usize * 8;
        let words = |bytes: &[u8]| -> Vec<u64> { bytes.chunks_exact(8).map(|raw| get64(raw, 0)).collect() };
        let sums = words(&self.prefix[RECORD_HEADER..sums_end]);
        let meta_at = sums_end + scopes as usize * 8;
        let mark = Mark { epoch: self.epoch, scopes: words(&self.prefix[sums_end..meta_at]).into() };
        let all = self.body.iter().map(Bytes::len).sum::<usize>().div_ceil(BLOCK as usize) as u32;
        let at = if self.kind == Kind::Head { blocks } else { all - blocks };
        let (before, after) = cut(&self.body, at as usize * BLOCK as usize);
        let (sums_before, sums_after) = sums.split_at(at as usize);
        let key = Key { primary: get_hash(&self.prefix, 24), variant };
        let write = get64(&self.prefix, 56);
        let chunk = |first, sums, body| {
            let (mark, meta) = (&Mark::default(), &[][..]);
            Self::new(DraftFields { kind: Kind::Chunk, key, write, first, sums, mark, meta, body }, seed)
        };
        if self.kind == Kind::Chunk {
            return (chunk(first + at, sums_after, after), chunk(first, sums_before, before));
        }
        let meta = &self.prefix[meta_at..];
        let (kind, sums) = (Kind::Head, sums_after);
        let rest = DraftFields { kind, key, write, first: first + at, sums, mark: &mark, meta, body: after };
        (chunk(first, sums_before, before), Self::new(rest, seed))
    }

    /// The bytes to write, in pieces.
    pub fn finish(mut self, generation: u32, seq: u64, seed: u64) -> Vec<Bytes> {
        static ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];
        put32(&mut self.prefix, 12, generation);
        put64(&mut self.prefix, 16, seq);
        put64(&mut self.prefix, 88, self.epoch);
        seal(&mut self.prefix[..RECORD_HEADER], seed);
        let used = self.prefix.len() + self.body.iter().map(Bytes::len).sum::<usize>();
        let mut parts = Vec::with_capacity(self.body.len() + 2);
        parts.push(self.prefix.freeze());
        parts.append(&mut self.body);
        parts.push(Bytes::from_static(&ZEROS[..self.len as usize - used]));
        parts
    }
}

/// The pieces before and after an offset.
fn cut(pieces: &[Bytes], mut at: usize) -> (Vec<Bytes>, Vec<Bytes>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for piece in pieces {
        let (left, right) = (piece.slice(..at.min(piece.len())), piece.slice(at.min(piece.len())..));
        at -= left.len();
        before.extend(Some(left).filter(|left| !left.is_empty()));
        after.extend(Some(right).filter(|right| !right.is_empty()));
    }
    (before, after)
}
