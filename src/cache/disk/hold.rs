//! Readers hold the segments they read from: one that is evicted meanwhile leaves the index at once, but nothing is
//! written over it before the last of its readers is done. Thus no body breaks off because of eviction.
//!
//! What readers hold is no use for new records. So that slow readers do not take the store's place for good, no more than
//! a quarter of the segments wait for them; then nothing is evicted, and nothing stored, until one of them is free,
//! or has waited for [`LONGEST`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::format::FRAME;
use super::store::Store;

/// For so long readers may keep an evicted segment from being used when there is no room otherwise.
const LONGEST: Duration = Duration::from_secs(600);
/// Marks a segment that nobody may hold any more.
const LEFT: u32 = 1 << 31;

/// Who holds one segment.
#[derive(Default)]
pub(super) struct Holders(AtomicU32);

impl Holders {
    fn enter(&self) -> bool {
        let more = |holders: u32| (holders & LEFT == 0).then_some(holders + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// True for the last one out of a segment that was left.
    fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == LEFT | 1
    }

    /// Lets nobody in any more; true if nobody is in.
    fn close(&self) -> bool {
        self.0.fetch_or(LEFT, Ordering::AcqRel) & !LEFT == 0
    }

    /// Lets readers in: it is used anew.
    pub fn open(&self) {
        self.0.fetch_and(!LEFT, Ordering::AcqRel);
    }

    /// Whether anybody is in.
    pub fn is_held(&self) -> bool {
        self.0.load(Ordering::Acquire) & !LEFT > 0
    }
}

/// Segments that one reader holds.
pub(super) struct Hold {
    store: Arc<Store>,
    segments: Vec<u32>,
}

impl Hold {
    pub fn new(store: &Arc<Store>) -> Self {
        Self { store: Arc::clone(store), segments: Vec::new() }
    }

    /// Holds one more. False: it was evicted, and what the index says of it is out of date.
    ///
    /// What the index names after this was true is there until this is dropped.
    pub fn add(&mut self, segment: u32) -> bool {
        if self.segments.contains(&segment) {
            return true;
        }
        let entered = self.store.segment(segment).is_some_and(|state| state.holders.enter());
        if entered {
            self.segments.push(segment);
        }
        entered
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for segment in &self.segments {
            if self.store.segment(*segment).is_some_and(|state| state.holders.leave()) {
                // Under the lock, so that the writer thread is not between its look and its sleep.
                self.store.appender.lock().is_released = true;
                self.store.work.notify_one();
            }
        }
    }
}

/// Evicted segments that readers still hold, and since when.
pub(super) type Held = Vec<(u32, Instant)>;

impl Store {
    /// How many evicted segments may wait for their readers.
    pub fn most_held(&self) -> usize {
        (self.geometry.segments / 4).max(1) as usize
    }

    /// Gives an evicted segment to the free ones, or has it wait for its readers.
    pub fn release(&self, segment: u32) -> Result<(), ()> {
        let is_free = self.segment(segment).is_some_and(|state| state.holders.close());
        if !is_free {
            // Others are written over before it. A start that found it then would find what they have replaced.
            let (start, size) = (self.geometry.start(segment), u64::from(self.geometry.segment_size));
            let blank = |at| self.file.write_all_at(&[0; FRAME as usize], at);
            blank(start).and_then(|()| blank(start + size - u64::from(FRAME))).map_err(|error| self.failed(&error))?;
        }
        let mut appender = self.appender.lock();
        appender.sealed.retain(|sealed| *sealed != segment);
        if is_free {
            appender.free.push_back(segment);
        } else {
            appender.held.push((segment, Instant::now()));
        }
        Ok(())
    }

    /// Frees the segments whose readers are done; of those that have waited too long the one that has waited longest, if
    /// there is no room otherwise.
    pub fn reclaim(&self) {
        let mut appender = self.appender.lock();
        appender.is_released = false;
        if appender.held.is_empty() {
            return;
        }
        let is_held = |segment: u32| self.segment(segment).is_some_and(|state| state.holders.is_held());
        let (held, mut done): (Held, Held) = appender.held.drain(..).partition(|(segment, _)| is_held(*segment));
        appender.held = held;
        let is_short = appender.held.len() >= self.most_held() && done.is_empty();
        if is_short && appender.held.first().is_some_and(|(_, since)| since.elapsed() >= LONGEST) {
            done.push(appender.held.remove(0));
        }
        appender.free.extend(done.iter().map(|(segment, _)| *segment));
        drop(appender);
        if !done.is_empty() {
            self.room.notify_waiters();
        }
    }
}
