//! Purges by scope as points in time: each is one record, and a stored response is purged by every later record of a
//! scope that it has. A purge costs the same whatever it takes away; the look-up does the comparing.
//!
//! One counter orders all of it: purges and, with a disk tier, its records. A response's *epoch* is the counter's value
//! when its request began, so that what the origin server made before a purge counts as older, whenever it arrives.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;

use super::disk::Hash128;
use super::scope::{self, EVERYTHING, Kind, LOOSE};

/// Records beyond which the responses that have them in view are looked through, so that old ones can be forgotten.
const SWEEP_AT: usize = 4096;
/// Records that are kept at most; then the older half is forgotten, and whatever is older than it counts as purged.
pub(super) const MAX_RECORDS: usize = 1 << 20;

/// What a stored response is compared by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// No purge up to this one concerns it.
    pub epoch: u64,
    /// The hashes of its scopes.
    pub scopes: Arc<[u64]>,
}

/// How a stored response stands with the purges so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// None concerns it.
    Valid,
    /// It was purged softly: it is stale since this time.
    Stale(SystemTime),
    /// It is purged.
    Gone,
}

/// One purge by scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub kind: Kind,
    pub scope: u64,
    pub seq: u64,
    /// Of a soft purge: seconds since 1970.
    pub soft_at: Option<u64>,
}

/// The counter and the purges that still matter.
pub struct Epochs {
    sequence: AtomicU64,
    /// The last purge; what is not older needs no look at the table.
    newest: AtomicU64,
    table: RwLock<Table>,
    #[cfg(test)]
    pub(super) operations: AtomicU64,
}

#[derive(Default)]
struct Table {
    /// Whatever is older counts as purged: which purges concerned it is forgotten.
    floor: u64,
    records: HashMap<u64, Marks>,
    sweep_at: usize,
}

/// The last purges of one scope; 0 for none.
#[derive(Clone, Copy, Default)]
struct Marks {
    hard: u64,
    soft: u64,
    soft_at: u64,
}

impl Default for Epochs {
    fn default() -> Self {
        Self::restored(1, 0, &[])
    }
}

impl Epochs {
    /// Goes on from what a purge log holds. `next` is above every number given out before.
    pub(super) fn restored(next: u64, floor: u64, records: &[Record]) -> Self {
        let mut table = Table { floor, ..Table::default() };
        records.iter().filter(|record| record.seq > floor).for_each(|record| table.enter(record));
        let newest = records.iter().map(|record| record.seq).max().unwrap_or(0).max(floor);
        Self {
            sequence: AtomicU64::new(next),
            newest: AtomicU64::new(newest),
            table: RwLock::new(table),
            #[cfg(test)]
            operations: AtomicU64::new(0),
        }
    }

    /// The counter: the epoch of what is asked for now.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// Gives the present number to one record or purge.
    pub(super) fn next(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::AcqRel)
    }

    /// From now on what has this scope and an earlier epoch is purged, or stale since `soft_at`.
    pub(super) fn purge(&self, kind: Kind, scope: u64, soft_at: Option<SystemTime>) -> Record {
        let soft_at = soft_at.map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        let mut table = self.table.write();
        let record = Record { kind, scope, seq: self.next() + 1, soft_at };
        table.enter(&record);
        self.newest.fetch_max(record.seq, Ordering::AcqRel);
        #[cfg(test)]
        self.operations.fetch_add(1, Ordering::Relaxed);
        record
    }

    /// From now on everything with an epoch below `seq` is purged.
    pub(super) fn purge_all(&self, seq: u64) {
        let mut table = self.table.write();
        table.forget(seq);
        self.newest.fetch_max(seq, Ordering::AcqRel);
    }

    /// How a response stands; `primary` is the hash of its key without variance.
    pub(super) fn standing(&self, epoch: u64, primary: &Hash128, scopes: &[u64]) -> Standing {
        if self.newest.load(Ordering::Acquire) <= epoch {
            return Standing::Valid;
        }
        self.table.read().standing(epoch, primary, scopes)
    }

    /// The epoch that a response may have from now on, if no purge so far concerns it.
    pub(super) fn advance(&self, epoch: u64, primary: &Hash128, scopes: &[u64]) -> Option<u64> {
        // Under the lock: a purge that has its number, but is not in the table yet, would be passed over.
        let table = self.table.read();
        (table.standing(epoch, primary, scopes) == Standing::Valid).then(|| self.sequence())
    }

    /// Whether any purge by scope is remembered.
    pub(super) fn is_quiet(&self) -> bool {
        self.newest.load(Ordering::Acquire) == 0
    }

    /// Whether there are so many records that it is worth looking for those that can be forgotten.
    pub(super) fn is_crowded(&self) -> bool {
        let table = self.table.read();
        table.records.len() >= table.sweep_at.max(SWEEP_AT)
    }

    /// Forgets the records that no stored response is older than; `oldest` is the lowest epoch stored. What turns up
    /// with a lower one after all counts as purged.
    pub(super) fn forget(&self, oldest: u64) {
        let mut table = self.table.write();
        let before = table.records.len();
        table.forget(oldest.min(self.sequence()));
        if table.records.len() > MAX_RECORDS {
            let mut all: Vec<u64> = table.records.values().map(|marks| marks.last()).collect();
            let middle = all.len() / 2;
            let floor = *all.select_nth_unstable(middle).1;
            table.forget(floor);
            tracing::warn!(floor, "too many purges to remember: the oldest stored responses count as purged");
        }
        table.sweep_at = table.records.len() * 2;
        tracing::debug!(before, after = table.records.len(), "purges forgotten");
    }

    /// How many records there are.
    #[cfg(test)]
    pub(super) fn records(&self) -> usize {
        self.table.read().records.len()
    }
}

impl Table {
    fn enter(&mut self, record: &Record) {
        self.records.entry(record.scope).or_default().enter(record);
        if matches!(record.kind, Kind::Host | Kind::Prefix | Kind::Tag) {
            self.records.entry(LOOSE).or_default().enter(record);
        }
    }

    fn forget(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        let floor = self.floor;
        self.records.retain(|_, marks| marks.last() > floor);
        self.records.shrink_to_fit();
    }

    fn standing(&self, epoch: u64, primary: &Hash128, scopes: &[u64]) -> Standing {
        if epoch < self.floor {
            return Standing::Gone;
        }
        let mut since: Option<u64> = None;
        let own = [EVERYTHING, scope::of_key(primary)];
        for marks in own.iter().chain(scopes).filter_map(|scope| self.records.get(scope)) {
            if marks.hard > epoch {
                return Standing::Gone;
            }
            if marks.soft > epoch {
                since = Some(since.map_or(marks.soft_at, |at| at.min(marks.soft_at)));
            }
        }
        match since {
            Some(at) => Standing::Stale(UNIX_EPOCH.checked_add(Duration::from_secs(at)).unwrap_or(UNIX_EPOCH)),
            None => Standing::Valid,
        }
    }
}

impl Marks {
    fn enter(&mut self, record: &Record) {
        match record.soft_at {
            None => self.hard = self.hard.max(record.seq),
            Some(at) if record.seq > self.soft => (self.soft, self.soft_at) = (record.seq, at),
            Some(_) => {}
        }
    }

    fn last(self) -> u64 {
        self.hard.max(self.soft)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRIMARY: Hash128 = [7; 16];

    fn time(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_purge_concerns_what_is_older_and_has_the_scope() {
        let epochs = Epochs::default();
        let before = epochs.sequence();
        epochs.purge(Kind::Tag, 10, None);
        let between = epochs.sequence();
        epochs.purge(Kind::Tag, 11, Some(time(500)));
        let after = epochs.sequence();
        let standing = |epoch, scopes: &[u64]| epochs.standing(epoch, &PRIMARY, scopes);
        assert_eq!(standing(before, &[10]), Standing::Gone);
        assert_eq!(standing(between, &[10]), Standing::Valid);
        assert_eq!(standing(between, &[10, 11]), Standing::Stale(time(500)));
        assert_eq!(standing(before, &[11]), Standing::Stale(time(500)));
        assert_eq!(standing(before, &[10, 11]), Standing::Gone, "hard beats soft");
        assert_eq!(standing(before, &[12]), Standing::Valid);
        assert_eq!(standing(before, &[LOOSE]), Standing::Gone);
        assert_eq!(standing(after, &[10, 11, LOOSE]), Standing::Valid);
        epochs.purge(Kind::Key, scope::of_key(&PRIMARY), None);
        assert_eq!(standing(after, &[]), Standing::Gone);
        assert_eq!(epochs.standing(after, &[8; 16], &[LOOSE]), Standing::Valid, "a key's purge has a known scope");
        epochs.purge(Kind::All, EVERYTHING, Some(time(9)));
        assert_eq!(epochs.standing(after, &[8; 16], &[]), Standing::Stale(time(9)));
    }

    #[test]
    fn what_was_looked_at_may_have_its_epoch_raised() {
        let epochs = Epochs::default();
        let before = epochs.sequence();
        epochs.purge(Kind::Tag, 10, None);
        assert_eq!(epochs.advance(before, &PRIMARY, &[10]), None);
        let raised = epochs.advance(before, &PRIMARY, &[11]).unwrap();
        epochs.forget(raised);
        assert_eq!(epochs.records(), 0);
        assert_eq!(epochs.standing(raised, &PRIMARY, &[11]), Standing::Valid);
        assert_eq!(epochs.standing(before, &PRIMARY, &[11]), Standing::Gone, "nobody knows any more");
    }

    #[test]
    fn the_records_are_bounded() {
        let epochs = Epochs::default();
        assert!(!epochs.is_crowded());
        let first = epochs.sequence();
        for scope in 0..(MAX_RECORDS as u64 + 10) {
            epochs.purge(Kind::Key, 100 + scope, None);
        }
        assert!(epochs.is_crowded());
        epochs.forget(first);
        assert!(epochs.records() <= MAX_RECORDS / 2 + 10, "{}", epochs.records());
        assert_eq!(epochs.standing(first, &PRIMARY, &[3]), Standing::Gone);
        assert_eq!(epochs.standing(epochs.sequence(), &PRIMARY, &[100]), Standing::Valid);
        assert!(!epochs.is_crowded());
    }

    proptest! {
        /// Against a list of all purges: forgetting may purge more, never less.
        #[test]
        fn forgetting_never_brings_anything_back(
            purges in proptest::collection::vec((0u64..6, any::<bool>(), proptest::option::weighted(0.2, 0u64..40)), 1..60),
            scopes in proptest::collection::btree_set(0u64..6, 0..4), at in 0usize..60,
        ) {
            let (epochs, mut all, mut stamps) = (Epochs::default(), Vec::new(), Vec::new());
            let scopes: Vec<u64> = scopes.into_iter().map(|scope| scope + 10).collect();
            for (scope, soft, forget) in purges {
                stamps.push(epochs.sequence());
                all.push(epochs.purge(Kind::Prefix, scope + 10, soft.then(|| time(5))));
                if let Some(oldest) = forget {
                    epochs.forget(oldest);
                }
            }
            let epoch = stamps[at % stamps.len()];
            let concerned = |hard: bool| {
                all.iter().any(|r| r.seq > epoch && scopes.contains(&r.scope) && r.soft_at.is_none() == hard)
            };
            match epochs.standing(epoch, &PRIMARY, &scopes) {
                Standing::Valid => prop_assert!(!concerned(true) && !concerned(false)),
                Standing::Stale(_) => prop_assert!(!concerned(true) && concerned(false)),
                Standing::Gone => prop_assert!(concerned(true) || epoch < epochs.table.read().floor),
            }
        }
    }
}
