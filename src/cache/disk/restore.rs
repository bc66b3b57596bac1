//! The second half of opening: the records that are on the disk are entered into the index, newest first, while the tier
//! is in service already. Until a record is entered, a look-up for it is a miss.
//!
//! What happens meanwhile is newer than anything on the disk: what is in the index stays, and what was taken out of it,
//! replaced or purged is noted there and does not come back.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::format::{self, Entry, Geometry, Id, Kind, PurgeRecord, PurgeScope};
use super::index::{Index, Location};
use super::io::DiskFile;
use super::segment;
use super::store::Store;

/// So many segments are entered before the tier is in service, in a time that nobody notices: all of a small store, and
/// of a large one what is most likely asked for first.
const AT_ONCE: usize = 32;

/// A segment that holds records.
pub(super) struct Used {
    pub segment: u32,
    pub generation: u32,
    /// None of its records has a lower sequence.
    pub base_seq: u64,
    /// The lowest epoch of a HEAD record.
    pub oldest: u64,
    /// How many there are, those that are out of date included.
    pub count: u32,
    /// Once they are read.
    pub entries: Option<Vec<Entry>>,
}

impl Used {
    /// Its records, in the order in which they were written.
    pub fn load(&mut self, file: &DiskFile, geometry: &Geometry) -> &[Entry] {
        let (segment, generation) = (self.segment, self.generation);
        self.entries.get_or_insert_with(|| segment::entries_or_seal(file, geometry, segment, generation))
    }
}

/// What is still to be entered, and the purges it has to pass.
pub(super) struct Restore {
    /// Oldest first.
    waiting: Vec<Used>,
    purges: Arc<KeyPurges>,
}

impl Restore {
    /// `used` by rising generation.
    pub fn new(used: Vec<Used>, records: &[PurgeRecord], seed: u64) -> Self {
        Self { waiting: used, purges: Arc::new(KeyPurges::new(records, seed)) }
    }

    /// Enters the newest segments.
    pub fn newest(&mut self, file: &DiskFile, geometry: &Geometry, index: &Index) {
        index.reserve(self.waiting.iter().map(|used| u64::from(used.count)).sum());
        for _ in 0..AT_ONCE {
            let Some(mut used) = self.waiting.pop() else { return };
            self.purges.enter(used.segment, used.load(file, geometry), index, Order::NewestFirst);
        }
    }
}

/// The purges of keys and of everything that the log holds, by what they take back. Look-ups compare with those by scope.
pub(super) struct KeyPurges {
    all: u64,
    keys: HashMap<u64, u64>,
    objects: HashMap<Id, u64>,
}

impl KeyPurges {
    pub fn new(records: &[PurgeRecord], seed: u64) -> Self {
        let mut purges = Self { all: 0, keys: HashMap::new(), objects: HashMap::new() };
        for record in records {
            match &record.scope {
                PurgeScope::All => purges.all = record.seq.max(purges.all),
                PurgeScope::Scope(_) | PurgeScope::Floor => {}
                PurgeScope::Object(key) => {
                    let seq = purges.objects.entry(format::head_id(key, seed)).or_default();
                    *seq = record.seq.max(*seq);
                }
                PurgeScope::Key(primary) => {
                    let seq = purges.keys.entry(format::primary_hash(primary, seed)).or_default();
                    *seq = record.seq.max(*seq);
                }
            }
        }
        purges
    }

    /// Enters records of a segment, in the order in which they were written, but for those purged since. `order` says
    /// whether what is in the index already counts as newer or older.
    pub fn enter(&self, segment: u32, entries: &[Entry], index: &Index, order: Order) {
        let enter = |entry: &Entry| {
            let location = Location::new(entry.kind, segment, entry.offset, entry.len);
            let mut shard = index.shard(entry.id.a);
            match order {
                Order::NewestFirst => shard.restore(entry.id, location),
                Order::OldestFirst => shard.insert(entry.id, location),
            }
        };
        let live = entries.iter().filter(|entry| !self.take(entry));
        match order {
            Order::NewestFirst => live.rev().for_each(enter),
            Order::OldestFirst => live.for_each(enter),
        }
    }

    fn take(&self, entry: &Entry) -> bool {
        let is_before = |seq: Option<&u64>| seq.is_some_and(|seq| entry.seq < *seq);
        let is_head = entry.kind == Kind::Head;
        entry.seq < self.all
            || is_head && (is_before(self.keys.get(&entry.id.a)) || is_before(self.objects.get(&entry.id)))
    }
}

/// In which order segments are entered into an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// What is in the index, or was taken out of it, is newer.
    NewestFirst,
    /// What is in the index is older.
    OldestFirst,
}

/// How far it is.
pub(super) struct Recovery {
    state: Mutex<State>,
    /// A segment is done.
    step: Condvar,
    ended: watch::Sender<bool>,
}

struct State {
    restore: Restore,
    busy: Option<u32>,
}

impl Recovery {
    /// Goes on from where the opening came to; the index hears of it if that was the end.
    pub fn new(restore: Restore, index: &Index) -> Self {
        let has_ended = restore.waiting.is_empty();
        if has_ended {
            index.end_recovery();
        }
        let state = Mutex::new(State { restore, busy: None });
        Self { state, step: Condvar::new(), ended: watch::Sender::new(has_ended) }
    }

    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Returns when all that is on the disk is in the index, or the tier was closed.
    pub async fn ended(&self) {
        // The sender is a part of `self`, so waiting cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Takes a segment out of what is still to be entered, because it is evicted; waits if it is just being entered.
    pub fn give_up(&self, segment: u32) {
        let mut state = self.state.lock();
        state.restore.waiting.retain(|used| used.segment != segment);
        while state.busy == Some(segment) {
            self.step.wait(&mut state);
        }
    }

    /// Lets [`run`] end early.
    pub fn stop(&self) {
        self.state.lock().restore.waiting.clear();
    }

    /// Enters one segment; false if there is none left.
    pub fn advance(&self, store: &Store) -> bool {
        let (mut used, purges) = {
            let mut state = self.state.lock();
            let Some(used) = state.restore.waiting.pop() else { return false };
            state.busy = Some(used.segment);
            (used, Arc::clone(&state.restore.purges))
        };
        purges.enter(used.segment, used.load(&store.file, &store.geometry), &store.index, Order::NewestFirst);
        self.state.lock().busy = None;
        self.step.notify_all();
        true
    }
}

/// Enters all that is left.
pub(super) fn run(store: &Store) {
    while store.recovery.advance(store) {}
    store.index.end_recovery();
    store.recovery.ended.send_replace(true);
    store.publish();
}
