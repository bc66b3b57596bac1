//! pingora-cache's `Storage` over the tiers.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::cache::key::CompactCacheKey;
use pingora::cache::storage::{HitHandler, MissHandler, PurgeOutcome, PurgeTarget, PurgeType};
use pingora::cache::trace::SpanHandle;
use pingora::cache::{CacheKey, CacheMeta, Storage};
use pingora::{Error, ErrorType, OrErr};

use super::disk::{Hash128, Key, Object};
use super::entry::{Body, Head};
use super::epochs::Standing;
use super::fill::DISK_READ;
use super::hit::{Hit, Tier};
use super::memory::Entry;
use super::miss::FillWriter;
use super::purged::Shard;
use super::slices::{Layout, SliceWriter, Slices};
use super::{Asked, Cache, key};

type Found = Option<(CacheMeta, HitHandler)>;

#[async_trait]
impl Storage for Cache {
    async fn lookup(&'static self, key: &CacheKey, _trace: &SpanHandle) -> pingora::Result<Found> {
        Ok(self.find(key).await.map(|(meta, hit)| (meta, Box::new(hit) as HitHandler)))
    }

    /// Never `Ok(None)`, at which the proxy would panic.
    async fn lookup_streaming_write(
        &'static self,
        key: &CacheKey,
        tag: Option<&[u8]>,
        _trace: &SpanHandle,
    ) -> pingora::Result<Found> {
        if let Some(own) = tag.and_then(|tag| self.own_slices(key, tag)) {
            return Ok(Some(own));
        }
        let primary = key::tier_key(key).primary;
        let own = tag
            .and_then(|tag| <[u8; 8]>::try_from(tag).ok())
            .and_then(|tag| self.shards.with(&primary, |shard| shard.take_own(u64::from_be_bytes(tag))));
        match own {
            Some(reader) => Ok(Some((reader.fill().head.to_meta(), Box::new(Hit::fill(reader, None))))),
            None => Error::e_explain(ErrorType::InternalError, "no such fill"),
        }
    }

    async fn get_miss_handler(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> pingora::Result<MissHandler> {
        match Layout::of(meta.headers()) {
            Some(layout) => Ok(Box::new(SliceWriter::begin(self, key, meta, layout).await?)),
            None => Ok(Box::new(FillWriter::begin(self, key, meta)?)),
        }
    }

    /// Takes all variants, for the slot that pingora names selects no less.
    async fn purge(
        &'static self,
        target: PurgeTarget<'_>,
        _purge_type: PurgeType,
        _trace: &SpanHandle,
    ) -> pingora::Result<PurgeOutcome> {
        let CompactCacheKey { primary, .. } = target.key();
        let found = self.purge_primary(primary).await.or_err(ErrorType::InternalError, "purging")?;
        Ok(if found { PurgeOutcome::Purged(None) } else { PurgeOutcome::NotFound })
    }

    /// Replaces the head of what was validated, if that is still what is stored.
    async fn update_meta(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> pingora::Result<bool> {
        let (tier_key, whole, asked) = (key::tier_key(key), key.primary_key(), self.asked(key));
        let primary_slot = tier_key.variant.is_none();
        let head = Head::new(meta, whole, primary_slot, asked)?;
        if self.standing(&tier_key.primary, &head) == Standing::Gone {
            return Ok(false);
        }
        let in_memory = self.shards.with(&tier_key.primary, |shard| self.update_memory(shard, tier_key, &head, asked));
        let Some(disk) = &self.disk else { return Ok(in_memory) };
        let Some(landing) = self.shards.landing(tier_key.primary, asked) else { return Ok(in_memory) };
        let stored =
            disk.get(&tier_key).await.and_then(|object| Head::decode(object.meta(), primary_slot, object.mark()));
        let same = stored.is_some_and(|stored| stored.is_of(whole) && stored.same_object(&head));
        let on_disk = same && disk.update_meta(&tier_key, &head.encode()?, &head.mark).await;
        drop(landing);
        Ok(in_memory || on_disk)
    }

    fn support_streaming_partial_write(&self) -> bool {
        true
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

impl Cache {
    /// The stored response of a key, from memory, a fill in flight, or the disk.
    pub(super) async fn find(&'static self, key: &CacheKey) -> Option<(CacheMeta, Hit)> {
        let (tier_key, whole) = (key::tier_key(key), key.primary_key());
        let held = self.memory.get(&tier_key).filter(|entry| entry.head.is_of(whole));
        let held = held.and_then(|entry| match entry.standing(&self.epochs, &tier_key.primary) {
            Standing::Gone => {
                self.shards.with(&tier_key.primary, |_| self.memory.drop_entry(&tier_key, &entry));
                None
            }
            standing => Some((entry, standing)),
        });
        if let Some((entry, Standing::Valid)) = &held
            && entry.head.is_fresh(self.clock.now())
        {
            return Some(self.found(key, &entry.head, Standing::Valid, self.memory_hit(entry)));
        }
        // What is being fetched now is newer than anything stale.
        let (fill, promotion) = self.shards.with(&tier_key.primary, |shard| {
            let promotion = shard.may_promote(&tier_key.primary).then(|| self.shards.sequence());
            (shard.fill(&tier_key, whole), promotion)
        });
        // What was asked for before a purge, a soft one too, answers only those who had asked.
        let fill = fill.filter(|fill| self.standing(&tier_key.primary, &fill.head) == Standing::Valid);
        if let Some(reader) = fill.and_then(|fill| fill.attach()) {
            let fill = Arc::clone(reader.fill());
            let hit = Hit::fill(reader, Some(self.collapsed.clone()));
            return Some(self.found(key, &fill.head, Standing::Valid, hit));
        }
        match held {
            Some((entry, standing)) => Some(self.found(key, &entry.head, standing, self.memory_hit(&entry))),
            None => self.find_on_disk(key, promotion).await,
        }
    }

    /// What the proxy gets of what was found. The content of what is stored in slices is not with its head.
    fn found(&'static self, key: &CacheKey, head: &Head, standing: Standing, hit: Hit) -> (CacheMeta, Hit) {
        let meta = self.meta_of(head, standing);
        match head.layout() {
            Some(layout) => (meta, Hit::sliced(Slices::new(self, key.clone(), layout))),
            None => (meta, hit),
        }
    }

    /// The purge sequence a request began at, as [`Cache::stamp`] left it, or else the present one.
    pub(super) fn asked(&self, key: &CacheKey) -> u64 {
        key.extensions.get::<Asked>().map_or_else(|| self.shards.sequence(), |asked| asked.0)
    }

    /// Puts an object into memory unless it was purged since; under the lock of its shard.
    pub(super) fn insert(&self, shard: &mut Shard, key: Key, entry: Arc<Entry>, asked: u64) -> bool {
        let gone = entry.standing(&self.epochs, &key.primary) == Standing::Gone;
        if gone || shard.purged_since(&key.primary, asked) {
            return false;
        }
        shard.note_variant(&key, |other| self.memory.contains(other));
        self.memory.insert(key, entry);
        true
    }

    /// How a response stands with purges by scope.
    pub(super) fn standing(&self, primary: &Hash128, head: &Head) -> Standing {
        self.epochs.standing(head.mark.epoch, primary, &head.mark.scopes)
    }

    /// The head as the proxy gets it: stale where a soft purge made it so.
    fn meta_of(&self, head: &Head, standing: Standing) -> CacheMeta {
        match standing {
            Standing::Stale(since) => head.to_stale_meta(since, self.clock.now()),
            Standing::Valid | Standing::Gone => head.to_meta(),
        }
    }

    fn memory_hit(&self, entry: &Arc<Entry>) -> Hit {
        self.memory.count_hit(entry);
        Hit::memory(Arc::clone(entry), Tier::Memory)
    }

    /// A hit on the disk; what is small and hit again soon, or while memory has room, moves up there, unless a purge is
    /// under way (`promotion` is `None`) or comes before it is there. Whatever cannot be read is a miss.
    async fn find_on_disk(&'static self, asked_for: &CacheKey, promotion: Option<u64>) -> Option<(CacheMeta, Hit)> {
        let (key, whole) = (key::tier_key(asked_for), asked_for.primary_key());
        let disk = self.disk.as_ref()?;
        let object = disk.get(&key).await?;
        let head = Head::decode(object.meta(), key.variant.is_none(), object.mark());
        let head = head.filter(|head| head.is_of(whole))?;
        if !head.declares(object.len()) {
            return None;
        }
        let standing = self.standing(&key.primary, &head);
        if standing == Standing::Gone {
            return None;
        }
        disk.count_used();
        match self.moved_up(key, &object, head, promotion).await {
            Ok(entry) => {
                let hit = Hit::memory(Arc::clone(&entry), Tier::Disk);
                Some(self.found(asked_for, &entry.head, standing, hit))
            }
            Err(Unmoved::Stays(head)) => Some(self.found(asked_for, &head, standing, Hit::disk(object))),
            Err(Unmoved::Unreadable) => None,
        }
    }

    /// The object as an entry of the memory tier, where it moves up if that is worth it.
    pub(super) async fn moved_up(
        &'static self,
        key: Key,
        object: &Object,
        head: Head,
        promotion: Option<u64>,
    ) -> Result<Arc<Entry>, Unmoved> {
        let again = self.promotion.is_again(&key, object.len());
        let Some(asked) = promotion.filter(|_| again || self.memory.has_room()) else {
            return Err(Unmoved::Stays(head));
        };
        if object.len() > self.memory_object {
            return Err(Unmoved::Stays(head));
        }
        let body = read_whole(object).await.ok_or(Unmoved::Unreadable)?;
        let entry = Arc::new(Entry::new(head.detached().ok_or(Unmoved::Unreadable)?, body, asked));
        self.shards.with(&key.primary, |shard| {
            // What came meanwhile is newer.
            if !self.memory.contains(&key) && shard.fill(&key, entry.head.key()).is_none() {
                self.insert(shard, key, Arc::clone(&entry), asked);
            }
        });
        Ok(entry)
    }

    fn update_memory(&self, shard: &mut Shard, key: Key, head: &Head, asked: u64) -> bool {
        let Some(old) = self.memory.get(&key).filter(|old| old.head.same_key(head) && old.head.same_object(head))
        else {
            return false;
        };
        let entry = Entry::renewed(&old, head.clone(), asked);
        self.insert(shard, key, Arc::new(entry), asked)
    }
}

/// Why an object did not move up to memory.
pub(super) enum Unmoved {
    /// It is not worth it, or too large.
    Stays(Head),
    /// A part of it cannot be read.
    Unreadable,
}

/// All of an object; `None` if a part of it cannot be read.
async fn read_whole(object: &Object) -> Option<Body> {
    let mut body = Body::default();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < object.len() {
        let max = usize::try_from((object.len() - at).min(DISK_READ)).ok()?;
        let bytes = object.read(at, max).await.ok().filter(|bytes| !bytes.is_empty() && bytes.len() <= max)?;
        at += bytes.len() as u64;
        pieces.push(bytes);
    }
    // One piece each for the writes to come; a slice of the tier's own buffers must not outlive its use here.
    for group in pieces.chunks(Body::PIECE / usize::try_from(DISK_READ).ok()?) {
        body.push(super::entry::join(group.iter()));
    }
    Some(body)
}
