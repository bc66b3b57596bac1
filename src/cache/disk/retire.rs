//! Segments that the disk cannot keep: they are taken out of service with what is in them, and used again only after the
//! disk has proved that it keeps what is written there. The writer thread does all of it.

use std::io;
use std::sync::atomic::Ordering;

use super::ReadError;
use super::flush::flush_all;
use super::store::Store;

/// A segment is given up after so many reads of it that the disk refused.
const MAX_READ_ERRORS: u32 = 3;
/// Bytes written at once to prove a segment.
const STEP: u32 = 1 << 20;

impl Store {
    /// Notes a read that the disk refused. An end of the file counts: it was longer when it was written.
    pub fn read_failed(&self, segment: u32, at: u64, error: &io::Error) -> ReadError {
        tracing::warn!(%error, segment, offset = at, "the disk tier cannot read");
        if let Some(state) = self.segment(segment)
            && state.read_errors.fetch_add(1, Ordering::AcqRel) + 1 >= MAX_READ_ERRORS
        {
            self.is_failing.store(true, Ordering::Release);
            self.work.notify_one();
        }
        ReadError::Io(error.kind())
    }

    /// Has the segment given up at the next opportunity.
    pub fn distrust(&self, segment: u32, error: &io::Error) {
        for _ in 0..MAX_READ_ERRORS {
            self.read_failed(segment, self.geometry.start(segment), error);
        }
    }

    /// Gives up the segments that failed too many reads. On an error the tier is out of service.
    pub fn retire_failing(&self) -> Result<(), ()> {
        if !self.is_failing.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        for (segment, state) in (0..).zip(&self.segments) {
            if state.read_errors.load(Ordering::Acquire) < MAX_READ_ERRORS {
                continue;
            }
            {
                let mut appender = self.appender.lock();
                if appender.open.as_ref().is_some_and(|open| open.segment == segment) {
                    self.seal_open(&mut appender);
                }
            }
            // Its footer may still be waiting.
            flush_all(self).inspect_err(|()| self.is_failing.store(true, Ordering::Release))?;
            self.retire(segment);
        }
        Ok(())
    }

    /// Takes one segment out of service. Nothing of it may wait to be written.
    pub fn retire(&self, segment: u32) {
        let Some(state) = self.segment(segment) else { return };
        {
            let mut appender = self.appender.lock();
            if appender.retired.contains(&segment) {
                return;
            }
            appender.open.take_if(|open| open.segment == segment);
            appender.sealed.retain(|sealed| *sealed != segment);
            appender.free.retain(|free| *free != segment);
            appender.held.retain(|(held, _)| *held != segment);
            appender.retired.push_back(segment);
            // No record has it: who reads the segment now finds it gone.
            state.generation.store(0, Ordering::Release);
            state.read_errors.store(0, Ordering::Release);
        }
        self.recovery.give_up(segment);
        let objects = self.index.remove_segment(segment);
        for lowest in [&state.base_seq, &state.oldest, &state.oldest_before] {
            lowest.store(u64::MAX, Ordering::Release);
        }
        self.metrics.error("segment").inc();
        let offset = self.geometry.start(segment);
        tracing::error!(segment, offset, objects, "a segment of the disk tier is out of service: the disk fails there");
    }

    /// Puts the segment that was retired first to the proof; true if it is free now.
    pub fn try_retired(&self) -> bool {
        let Some(segment) = self.appender.lock().retired.pop_front() else { return false };
        // Who reads it may be about to send of it.
        let is_held = self.segment(segment).is_some_and(|state| state.holders.is_held());
        let sound = if is_held { Err(io::ErrorKind::ResourceBusy.into()) } else { self.prove(segment) };
        let mut appender = self.appender.lock();
        match &sound {
            Ok(()) => {
                tracing::info!(segment, "a segment of the disk tier is in service again");
                appender.free.push_back(segment);
            }
            Err(error) => {
                tracing::debug!(%error, segment, "a segment of the disk tier stays out of service");
                appender.retired.push_back(segment);
            }
        }
        drop(appender);
        self.room.notify_waiters();
        sound.is_ok()
    }

    /// Writes zeros all over a segment and reads them back from the disk.
    fn prove(&self, segment: u32) -> io::Result<()> {
        let (start, size) = (self.geometry.start(segment), self.geometry.segment_size);
        let steps = || (0..size / STEP).map(|step| start + u64::from(step * STEP));
        let zeros = vec![0; STEP as usize];
        self.detach_sent(segment)?;
        for at in steps() {
            self.file.write_all_at(&zeros, at)?;
        }
        self.file.sync_data()?;
        self.file.forget_cached(start, size.into());
        let mut back = vec![0; STEP as usize];
        for at in steps() {
            back.fill(1);
            self.file.read_exact_at(&mut back, at)?;
            if back != zeros {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }
}
