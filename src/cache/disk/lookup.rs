//! Looking objects up: the index names a HEAD record, which is read and verified, and where the rest of the body lies.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;

use super::format::{Kind, RECORD_HEADER, Record, chunk_id, head_id, primary_hash};
use super::hold::Hold;
use super::index::Location;
use super::read::{Body, Object, Part};
use super::store::Store;
use super::{Hash128, Key, ReadError};
use crate::cache::epochs::{Mark, Standing};

/// HEAD records up to this size are read whole, body included.
const WHOLE: u32 = 128 << 10;
/// Of larger ones this much is read at first: most often all that lies before the body.
const FIRST: u32 = 16 << 10;
/// A record may move while it is being looked up; after so many times it counts as gone.
const ATTEMPTS: usize = 3;

/// A HEAD record as read.
pub(super) struct Head {
    pub record: Record,
    pub location: Location,
    pub meta: Bytes,
    pub mark: Mark,
    pub body: Body,
    pub tail: Option<Bytes>,
    pub cold: bool,
}

/// What is found of a body.
enum Parts {
    Found(Box<[Part]>),
    /// Some of it is gone.
    Incomplete,
    /// Some of it moved in between.
    Moved,
}

impl Store {
    /// The object, or `None` if it is not here, purged, incomplete or damaged.
    pub async fn get(self: &Arc<Self>, key: &Key) -> Option<Object> {
        for _ in 0..ATTEMPTS {
            let head = self.find_head(key).await?;
            if head.tail.is_some() && head.record.first == 0 {
                return self.standing(Object::new(self, key, head, Box::default(), None), key);
            }
            let mut hold = Hold::new(self);
            // The record that was read is still of this use of the segment.
            let segment = head.location.segment();
            if !hold.add(segment) || self.generation(segment) != head.body.generation {
                continue;
            }
            // Chunks may be entered later than their HEAD.
            let is_recovering = self.index.is_recovering();
            match self.find_parts(key, &head.record, &mut hold) {
                Parts::Found(parts) => return self.standing(Object::new(self, key, head, parts, Some(hold)), key),
                Parts::Moved => {}
                Parts::Incomplete if is_recovering => return None,
                Parts::Incomplete => {
                    let id = head_id(key, self.geometry.seed);
                    self.index.shard(id.a).remove(id, head.location);
                    return None;
                }
            }
        }
        None
    }

    /// The object unless a purge by scope has taken it.
    fn standing(&self, object: Object, key: &Key) -> Option<Object> {
        let mark = object.mark();
        if self.epochs.standing(mark.epoch, &key.primary, &mark.scopes) == Standing::Gone {
            object.drop_from_index();
            return None;
        }
        Some(object)
    }

    /// Where the CHUNK records of an object lie, whose segments are held from here on.
    fn find_parts(&self, key: &Key, head: &Record, hold: &mut Hold) -> Parts {
        let mut parts = Vec::new();
        let mut first = 0;
        while first < head.first {
            let id = chunk_id(key, head.write, first, self.geometry.seed);
            let named = || self.index.shard(id.a).get(id);
            let Some(location) = named() else { return Parts::Incomplete };
            let is_there = hold.add(location.segment()) && named().is_some_and(|again| again.same(location));
            if !is_there {
                return Parts::Moved;
            }
            parts.push(Part { first, location, generation: self.generation(location.segment()) });
            first += location.blocks();
        }
        if first == head.first { Parts::Found(parts.into()) } else { Parts::Incomplete }
    }

    /// Whether the index names every CHUNK record of a body with so many blocks in them.
    pub fn has_parts(&self, key: &Key, write: u64, blocks: u32) -> bool {
        let mut first = 0;
        while first < blocks {
            let id = chunk_id(key, write, first, self.geometry.seed);
            let Some(location) = self.index.shard(id.a).get(id) else { return false };
            first += location.blocks();
        }
        first == blocks
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
}
