//! Look-ups without the proxy core: for who answers with a fresh response as it is stored, and leaves everything else to
//! the core and [`Storage`](pingora::cache::Storage).

use std::any::Any;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use pingora::cache::CacheMeta;

use super::Cache;
use super::disk::{Hash128, Key, Object};
use super::entry::Head;
use super::epochs::Standing;
use super::key::Framed;
use super::memory::Entry;
use super::storage::Unmoved;

/// A fresh response in memory, and what it consists of.
#[derive(Clone)]
pub struct Held(Arc<Entry>);

/// A place beside a stored response for what was worked out from it; the type is its user's.
pub struct WorkedOut(ArcSwapOption<Box<dyn Any + Send + Sync>>);

impl Default for WorkedOut {
    fn default() -> Self {
        Self(ArcSwapOption::const_empty())
    }
}

impl WorkedOut {
    /// Has `look` look at what is there, if it is of this type.
    pub fn with<T: Any, R>(&self, look: impl FnOnce(&T) -> Option<R>) -> Option<R> {
        let held = self.0.load();
        look(held.as_ref()?.downcast_ref::<T>()?)
    }

    /// Puts something in place of what is there.
    pub fn set<T: Any + Send + Sync>(&self, value: T) {
        self.0.store(Some(Arc::new(Box::new(value))));
    }
}

impl Held {
    /// Its head and times.
    pub fn meta(&self) -> &CacheMeta {
        self.0.head.meta()
    }

    /// Bytes of its content.
    pub fn len(&self) -> u64 {
        self.0.body.len()
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its content is not stored with its head, or is only a part of it.
    pub fn is_partial(&self) -> bool {
        self.0.head.is_partial()
    }

    /// Its content from `start` to `end`, piece by piece.
    pub fn slices(&self, start: u64, end: u64) -> impl Iterator<Item = &[u8]> {
        self.0.body.slices(start, end)
    }

    /// What was worked out from it before.
    pub fn worked_out(&self) -> &WorkedOut {
        &self.0.worked_out
    }
}

/// A fresh response on the disk.
pub struct OnDisk {
    key: Key,
    object: Object,
    head: Head,
    /// The purge sequence at which it was looked up, if it may move up to memory.
    promotion: Option<u64>,
}

/// The content of what was found on the disk.
pub enum Promoted {
    /// It is in memory now.
    Held(Held),
    /// It is to be read.
    Object(Object),
}

impl OnDisk {
    /// Its head and times.
    pub fn meta(&self) -> &CacheMeta {
        self.head.meta()
    }

    /// Bytes of its content.
    pub fn len(&self) -> u64 {
        self.object.len()
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its content is not stored with its head, or is only a part of it.
    pub fn is_partial(&self) -> bool {
        self.head.is_partial()
    }
}

impl Cache {
    /// What the memory tier has under a key, if no purge concerns it and it is fresh: what a look-up by way of the core
    /// would find first. It is not counted; see [`Cache::count_held`].
    pub fn held(&self, key: Framed<'_>, variant: Option<Hash128>, now: SystemTime) -> Option<Held> {
        let tier_key = Key { primary: key.hash, variant };
        let entry = self.memory.get(&tier_key)?;
        let usable = entry.head.is_of(key.whole)
            && entry.head.is_fresh(now)
            && entry.standing(&self.epochs, &tier_key.primary) == Standing::Valid;
        usable.then_some(Held(entry))
    }

    /// What the disk tier has under a key that is not in memory, if nothing newer is on its way, no purge concerns it and
    /// it is fresh.
    pub async fn held_on_disk(
        &'static self,
        key: Framed<'_>,
        variant: Option<Hash128>,
        now: SystemTime,
    ) -> Option<OnDisk> {
        let disk = self.disk.as_ref()?;
        let tier_key = Key { primary: key.hash, variant };
        let (filling, promotion) = self.shards.with(&tier_key.primary, |shard| {
            let promotion = shard.may_promote(&tier_key.primary).then(|| self.shards.sequence());
            (shard.fill(&tier_key, key.whole).is_some(), promotion)
        });
        if filling || !disk.contains(&tier_key) {
            return None;
        }
        let object = disk.get(&tier_key).await?;
        let head = Head::decode(object.meta(), variant.is_none(), object.mark())?;
        let usable = head.is_of(key.whole)
            && head.declares(object.len())
            && head.is_fresh(now)
            && self.standing(&tier_key.primary, &head) == Standing::Valid;
        usable.then_some(OnDisk { key: tier_key, object, head, promotion })
    }

    /// The content of what was found on the disk, which may move up to memory; `None` where it cannot be read.
    pub async fn promote(&'static self, found: OnDisk) -> Option<Promoted> {
        let OnDisk { key, object, head, promotion } = found;
        match self.moved_up(key, &object, head, promotion).await {
            Ok(entry) => Some(Promoted::Held(Held(entry))),
            Err(Unmoved::Stays(_)) => Some(Promoted::Object(object)),
            Err(Unmoved::Unreadable) => None,
        }
    }

    /// Counts that a response in memory was found and used.
    pub fn count_held(&self, held: &Held) {
        self.memory.count_hit(&held.0);
    }

    /// Counts that a response on the disk was found and used.
    pub fn count_on_disk(&self, _: &OnDisk) {
        if let Some(disk) = &self.disk {
            disk.count_used();
        }
    }
}
