//! The writer thread: large appends in order, eviction ahead of need, and what happens when the disk refuses.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::store::{FLUSH_AFTER, FLUSH_BYTES, Service, Stop, Store};

/// After a failed write the disk is tried again this often.
const RETRY: Duration = Duration::from_secs(5);
/// The thread looks around this often when nothing happens.
const IDLE: Duration = Duration::from_secs(1);
/// Below the kernel's limit of 1,024 pieces for one call.
const MAX_PIECES: usize = 512;

/// Runs until the store is stopped.
pub(super) fn run(store: &Arc<Store>) {
    let mut retry_at = Instant::now();
    loop {
        let stop = wait(store);
        match store.service() {
            Service::Open => {
                if flush_all(store).and_then(|()| store.make_room()).is_err() {
                    retry_at = Instant::now() + RETRY;
                }
            }
            Service::Failed if Instant::now() >= retry_at => {
                if probe(store) {
                    tracing::info!("the disk takes writes again");
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

/// Writes everything that waits. On an error the tier is out of service and what waited is given up.
pub(super) fn flush_all(store: &Store) -> Result<(), ()> {
    while flush_once(store)? {}
    Ok(())
}

/// Returns when there is something to do, or after a while.
fn wait(store: &Store) -> Option<Stop> {
    let mut appender = store.appender.lock();
    let idle_until = Instant::now() + IDLE;
    loop {
        if appender.stop.is_some() {
            return appender.stop;
        }
        if store.service() == Service::Open {
            let short = appender.free.len() < store.free_target() && !appender.sealed.is_empty();
            if appender.pending_bytes >= FLUSH_BYTES || short {
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
    let start = store.geometry.start(segment);
    let written = allocate(store, segment).and_then(|()| write_all(store, &parts, start + u64::from(offset)));
    if let Err(error) = written {
        fail(store, &error);
        return Err(());
    }
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
    done.iter().for_each(|pending| store.release(pending));
    Ok(true)
}

/// Segments get their blocks at first use, so that a disk that is full says so early.
fn allocate(store: &Store, segment: u32) -> io::Result<()> {
    let end = store.geometry.start(segment + 1);
    if store.file.metadata()?.len() >= end {
        return Ok(());
    }
    let size = u64::from(store.geometry.segment_size);
    match rustix::fs::fallocate(&store.file, FallocateFlags::empty(), end - size, size) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => store.file.set_len(end),
        Err(error) => Err(error.into()),
    }
}

fn write_all(store: &Store, parts: &[Bytes], mut at: u64) -> io::Result<()> {
    for parts in parts.chunks(MAX_PIECES) {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match rustix::io::pwritev(&store.file, left, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Takes the tier out of service and gives up every record that is not on the disk.
fn fail(store: &Store, error: &io::Error) {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    store.metrics.error(if full { "full" } else { "write" }).inc();
    tracing::error!(%error, "the disk tier cannot write; it is out of service until a later attempt succeeds");
    let given_up = {
        let mut appender = store.appender.lock();
        // Under the lock: whatever is placed later would wait behind a hole.
        store.set_service(Service::Failed);
        let given_up: Vec<_> = appender.pending.drain(..).collect();
        appender.pending_bytes = 0;
        appender.pending_since = None;
        let mut cut: Option<u32> = None;
        for pending in &given_up {
            if cut == Some(pending.generation) {
                continue;
            }
            cut = Some(pending.generation);
            let is_open = appender.open.as_ref().is_some_and(|open| open.generation == pending.generation);
            if pending.offset == 0 {
                // Nothing of this use of the segment is on the disk.
                appender.sealed.retain(|sealed| *sealed != pending.segment);
                appender.free.push_back(pending.segment);
                if is_open {
                    appender.open = None;
                }
            } else if let Some(open) = appender.open.as_mut().filter(|_| is_open) {
                open.position = pending.offset;
                open.entries.retain(|entry| entry.offset < pending.offset);
            }
        }
        given_up
    };
    for pending in &given_up {
        if let Some((id, location)) = pending.slot {
            store.index.shard(id.a).remove(id, location);
        }
        store.release(pending);
    }
    store.room.notify_waiters();
}

/// Whether a write succeeds where the next one would go; zeros end the log there as well as nothing does.
fn probe(store: &Store) -> bool {
    let (segment, offset) = {
        let appender = store.appender.lock();
        match (&appender.open, appender.free.front()) {
            (Some(open), _) => (open.segment, open.position),
            (None, Some(free)) => (*free, 0),
            (None, None) => return true,
        }
    };
    let room = (store.geometry.segment_size - offset).min(4096) as usize;
    let zeros = Bytes::from(vec![0; room]);
    let at = store.geometry.start(segment) + u64::from(offset);
    allocate(store, segment).and_then(|()| write_all(store, &[zeros], at)).is_ok()
}

fn finish(store: &Store, stop: Stop) {
    if store.service() == Service::Open && stop == Stop::Seal {
        store.seal_open(&mut store.appender.lock());
        if flush_all(store).is_ok()
            && let Err(error) = rustix::fs::fdatasync(&store.file)
        {
            tracing::warn!(%error, "the disk tier could not be synchronised");
        }
    }
    store.set_service(Service::Closed);
    store.queue.close();
    store.room.notify_waiters();
}
