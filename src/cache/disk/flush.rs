//! The writer thread: large appends in order, eviction ahead of need, and what happens when the disk refuses.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::SyncPolicy;
use super::appender::FLUSH_BYTES;
use super::store::{FLUSH_AFTER, Service, Stop, Store};

/// After a failed write the disk is tried again this often.
const RETRY: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };
/// The thread looks around this often when nothing happens.
const IDLE: Duration = Duration::from_secs(1);
/// A segment that was retired is put to the proof this often.
const PROVE_AFTER: Duration = Duration::from_secs(600);
/// So many bytes are synchronised before their time, so that no synchronisation takes long.
const SYNC_BYTES: u64 = 64 << 20;
/// Bytes of zeros that tell whether a place can be written.
const PROBE: u32 = 4096;

/// Runs until the store is stopped.
pub(super) fn run(store: &Arc<Store>) {
    let mut retry_at = Instant::now();
    let mut prove_at = Instant::now() + PROVE_AFTER;
    loop {
        let stop = wait(store);
        match store.service() {
            Service::Open => {
                if work(store).is_err() {
                    retry_at = Instant::now() + RETRY;
                } else if Instant::now() >= prove_at {
                    // Where one is sound again the others may be too.
                    prove_at = Instant::now() + if store.try_retired() { IDLE } else { PROVE_AFTER };
                }
            }
            Service::Failed if Instant::now() >= retry_at => {
                if probe(store) {
                    tracing::info!("the disk takes writes again");
                    store.appender.lock().suspect = None;
                    store.set_service(Service::Open);
                }
                retry_at = Instant::now() + RETRY;
            }
            Service::Failed | Service::Closed => {}
        }
        store.publish();
        if let Some(stop) = stop {
            finish(store, stop);
            return;
        }
    }
}

fn work(store: &Store) -> Result<(), ()> {
    store.retire_failing()?;
    flush_all(store)?;
    store.make_room()?;
    sync_if_due(store).map_err(|error| fail(store, "sync", &error))
}

/// Writes everything that waits. On an error the tier is out of service and what waited is given up.
pub(super) fn flush_all(store: &Store) -> Result<(), ()> {
    while flush_once(store)? {}
    Ok(())
}

/// Returns when there is something to do, or after a while.
fn wait(store: &Store) -> Option<Stop> {
    let mut appender = store.appender.lock();
    let idle = match store.sync {
        SyncPolicy::Every(time) if store.unsynced.load(Ordering::Acquire) > 0 => IDLE.min(time),
        SyncPolicy::Every(_) | SyncPolicy::Close | SyncPolicy::Always => IDLE,
    };
    let idle_until = Instant::now() + idle;
    loop {
        if appender.stop.is_some() {
            return appender.stop;
        }
        if store.service() == Service::Open {
            let can_evict = !appender.sealed.is_empty() && appender.held.len() < store.most_held();
            let short = appender.free.len() < store.free_target() && can_evict || appender.is_released;
            if appender.pending_bytes >= FLUSH_BYTES || short || store.is_failing.load(Ordering::Acquire) {
                return None;
            }
        }
        let due = appender.pending_since.map(|since| since + FLUSH_AFTER);
        let until = due.filter(|_| store.service() == Service::Open).unwrap_or(idle_until);
        if Instant::now() >= until {
            return None;
        }
        store.work.wait_until(&mut appender, until);
    }
}

/// One write of adjoining records. False: nothing waits.
fn flush_once(store: &Store) -> Result<bool, ()> {
    let (segment, offset, end, count, base_seq, parts) = {
        let appender = store.appender.lock();
        let Some(first) = appender.pending.front() else { return Ok(false) };
        let (mut end, mut count) = (first.offset, 0);
        let mut parts: Vec<Bytes> = Vec::new();
        for pending in &appender.pending {
            let adjoins = pending.generation == first.generation && pending.offset == end;
            if !adjoins || (count > 0 && (end - first.offset) as usize >= FLUSH_BYTES) {
                break;
            }
            end += pending.len;
            count += 1;
            parts.extend(pending.parts.iter().filter(|part| !part.is_empty()).cloned());
        }
        (first.segment, first.offset, end, count, first.base_seq, parts)
    };
    let at = store.geometry.start(segment) + u64::from(offset);
    let written = prepare(store, segment, offset).and_then(|()| store.file.write_parts_at(&parts, at));
    written.map_err(|error| fail(store, "write", &error))?;
    store.unsynced.fetch_add((end - offset).into(), Ordering::AcqRel);
    sync_if_due(store).map_err(|error| fail(store, "sync", &error))?;
    if let Some(state) = store.segment(segment) {
        if let Some(base_seq) = base_seq {
            state.base_seq.store(base_seq, Ordering::Release);
            state.oldest_before.store(u64::MAX, Ordering::Release);
        }
        state.written.store(end, Ordering::Release);
    }
    let done: Vec<_> = {
        let mut appender = store.appender.lock();
        let done: Vec<_> = appender.pending.drain(..count).collect();
        appender.pending_bytes -= (end - offset) as usize;
        appender.pending_since = (!appender.pending.is_empty()).then(Instant::now);
        done
    };
    done.iter().for_each(|pending| store.written(pending));
    Ok(true)
}

/// Makes a segment ready for a write at an offset.
fn prepare(store: &Store, segment: u32, offset: u32) -> io::Result<()> {
    if offset == 0 {
        // A new use begins: nobody reads the one before any more, but clients may not have all of it.
        store.detach_sent(segment)?;
    }
    allocate(store, segment)
}

/// Segments get their blocks at first use, so that a disk that is full says so early.
fn allocate(store: &Store, segment: u32) -> io::Result<()> {
    let end = store.geometry.start(segment + 1);
    if store.file.len()? >= end {
        return Ok(());
    }
    let size = u64::from(store.geometry.segment_size);
    store.file.allocate(end - size, size)
}

/// Synchronises what was written if the policy has it so now.
fn sync_if_due(store: &Store) -> io::Result<()> {
    let unsynced = store.unsynced.load(Ordering::Acquire);
    let is_due = match store.sync {
        SyncPolicy::Close => false,
        SyncPolicy::Always => true,
        SyncPolicy::Every(time) => unsynced >= SYNC_BYTES || store.synced_at.lock().elapsed() >= time,
    };
    if unsynced == 0 || !is_due {
        return Ok(());
    }
    // Reset in any case: after an error another attempt would tell nothing.
    store.unsynced.store(0, Ordering::Release);
    *store.synced_at.lock() = Instant::now();
    store.file.sync_data()
}

impl Store {
    /// Takes the tier out of service after a write that failed.
    pub fn failed(&self, error: &io::Error) {
        fail(self, "write", error);
    }
}

/// Takes the tier out of service and gives up every record that is not on the disk.
fn fail(store: &Store, kind: &'static str, error: &io::Error) {
    let full = is_full(error);
    store.metrics.error(if full { "full" } else { kind }).inc();
    tracing::error!(%error, "the disk tier cannot write; it is out of service until a later attempt succeeds");
    let given_up = {
        let mut appender = store.appender.lock();
        // Under the lock: whatever is placed later would wait behind a hole.
        store.set_service(Service::Failed);
        let given_up: Vec<_> = appender.pending.drain(..).collect();
        appender.pending_bytes = 0;
        appender.pending_since = None;
        let (mut cut, mut free) = (None, Vec::new());
        for pending in &given_up {
            if cut == Some(pending.generation) {
                continue;
            }
            cut = Some(pending.generation);
            let is_open = appender.open.as_ref().is_some_and(|open| open.generation == pending.generation);
            if pending.offset == 0 {
                // Nothing of this use of the segment is on the disk.
                appender.sealed.retain(|sealed| *sealed != pending.segment);
                free.push(pending.segment);
                if is_open {
                    appender.open = None;
                }
            } else if let Some(open) = appender.open.as_mut().filter(|_| is_open) {
                open.position = pending.offset;
                open.entries.retain(|entry| entry.offset < pending.offset);
            }
        }
        // The next attempt is made where this one failed, so that it tells of this place.
        appender.suspect = given_up.first().map(|first| (first.segment, first.offset));
        free.into_iter().rev().for_each(|segment| appender.free.push_front(segment));
        given_up
    };
    for pending in &given_up {
        if let Some((id, location)) = pending.slot {
            store.index.shard(id.a).remove(id, location);
        }
        store.written(pending);
    }
    store.room.notify_waiters();
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the disk takes writes: where one failed or, if only that place is bad, elsewhere; then its segment is retired.
fn probe(store: &Store) -> bool {
    let (place, other) = {
        let appender = store.appender.lock();
        let open = appender.open.as_ref().map(|open| (open.segment, open.position));
        let mut next = appender.free.iter().map(|free| (*free, 0)).chain(open);
        let place = appender.suspect.or(open).or_else(|| next.clone().next());
        (place, next.find(|(segment, _)| place.is_none_or(|place| *segment != place.0)))
    };
    let Some((segment, offset)) = place else {
        // There is room to be made by eviction, or none at all.
        return !store.appender.lock().sealed.is_empty() || store.try_retired();
    };
    match write_zeros(store, segment, offset) {
        Ok(()) => true,
        Err(error) if is_full(&error) => false,
        Err(error) => {
            let is_place = other.is_some_and(|(segment, offset)| write_zeros(store, segment, offset).is_ok());
            if is_place {
                tracing::error!(%error, segment, "the disk tier cannot write at one place");
                store.retire(segment);
            }
            is_place
        }
    }
}

/// Zeros end the log as well as nothing does.
fn write_zeros(store: &Store, segment: u32, offset: u32) -> io::Result<()> {
    let zeros = vec![0; (store.geometry.segment_size - offset).min(PROBE) as usize];
    prepare(store, segment, offset)?;
    store.file.write_all_at(&zeros, store.geometry.start(segment) + u64::from(offset))?;
    store.file.sync_data()
}

fn finish(store: &Store, stop: Stop) {
    if store.service() == Service::Open && stop == Stop::Seal {
        store.seal_open(&mut store.appender.lock());
        if flush_all(store).is_ok()
            && let Err(error) = store.file.sync_data()
        {
            tracing::warn!(%error, "the disk tier could not be synchronised");
        }
    }
    store.set_service(Service::Closed);
    store.queue.close();
    store.room.notify_waiters();
}
