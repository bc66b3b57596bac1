//! Reads of raw bytes: from what waits to be written, from the page cache, or from the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use super::ReadError;
use super::buffer::Buffer;
use super::index::Location;
use super::io::DirectFile;
use super::store::Store;

/// Bytes that the kernel reads ahead at once, as most block devices are set.
const READ_AHEAD: u64 = 128 << 10;

/// Reads that wait for the disk at the same time; a disk that is given more has no more to give.
const COLD_READS: usize = 64;
/// Bytes of a read from which on the page cache is worth passing by: of smaller ones it keeps the neighbours as well.
const DIRECT: usize = 32 << 10;

/// Reads that the page cache does not answer. To read past it takes a fifth of the processor's time and half the disk's.
/// What is read again goes through it, and is there from then on; most never is, and would push others out.
///
/// Which is which the page cache itself remembers: only the first page of a large read is asked for at first, and it stays
/// there. To ask for all of it would be wrong for another reason: since Linux 5.10 a read that is not to wait begins to
/// read ahead what it does not find, and everything would come from the disk twice.
pub(super) struct ColdReads {
    turns: Semaphore,
    direct: Option<DirectFile>,
    is_usable: AtomicBool,
}

impl ColdReads {
    pub fn new(direct: Option<DirectFile>) -> Self {
        let (turns, is_usable) = (Semaphore::new(COLD_READS), AtomicBool::new(direct.is_some()));
        Self { turns, direct, is_usable }
    }

    /// What to read past the page cache with, if it is possible and worth it for `len` bytes.
    fn direct(&self, len: usize) -> Option<&DirectFile> {
        self.direct.as_ref().filter(|_| len >= DIRECT && self.is_usable.load(Ordering::Relaxed))
    }

    fn give_up_direct(&self) {
        if self.is_usable.swap(false, Ordering::Relaxed) {
            tracing::debug!("the disk tier's file cannot be read past the page cache");
        }
    }
}

impl Store {
    /// Bytes of one record. `Gone`: the segment was taken for something else meanwhile.
    pub async fn read_at(self: &Arc<Self>, segment: u32, offset: u32, len: u32) -> Result<Bytes, ReadError> {
        self.read_noting(segment, offset, len, None).await
    }

    /// As `read_at`; sets `cold` if the disk had to be asked.
    pub async fn read_noting(
        self: &Arc<Self>,
        segment: u32,
        offset: u32,
        len: u32,
        cold: Option<&AtomicBool>,
    ) -> Result<Bytes, ReadError> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        if let Some(bytes) = self.waiting(segment, offset, len)? {
            return Ok(bytes);
        }
        let at = self.geometry.start(segment) + u64::from(offset);
        let mut buffer = self.buffers.take(len as usize, at);
        let (cached, past) = self.read_what_is_cached(buffer.as_mut(), at);
        if cached == len as usize {
            return Ok(buffer.freeze());
        }
        if let Some(cold) = cold {
            cold.store(true, Ordering::Relaxed);
        }
        // More at once is no faster, and the pool's threads are there for others too. It is never closed.
        let _turn = self.cold_reads.turns.acquire().await;
        let store = Arc::clone(self);
        let read = move || store.read_cold(buffer, at, cached, past).map(Buffer::freeze);
        match tokio::task::spawn_blocking(read).await {
            Ok(done) => done.map_err(|error| self.read_failed(segment, at, &error)),
            Err(_) => Err(ReadError::Io(io::ErrorKind::Interrupted)),
        }
    }

    /// How many bytes of it the page cache has, and whether the rest is to be read past it.
    fn read_what_is_cached(&self, buffer: &mut [u8], at: u64) -> (usize, bool) {
        // Where the page cache cannot be asked, nothing would ever be read through it.
        if self.cold_reads.direct(buffer.len()).is_none() || !self.nowait.load(Ordering::Relaxed) {
            return (self.read_cached(buffer, at), false);
        }
        let (first, rest) = buffer.split_at_mut((DirectFile::PAGE - at % DirectFile::PAGE) as usize);
        let cached = self.read_cached(first, at);
        if cached < first.len() {
            return (cached, true);
        }
        (cached + self.read_cached(rest, at + cached as u64), false)
    }

    /// The rest of a buffer whose first `cached` bytes are there; `past` the page cache if possible. Blocks.
    fn read_cold(&self, mut buffer: Buffer, at: u64, cached: usize, past: bool) -> io::Result<Buffer> {
        if past
            && let Some(direct) = self.cold_reads.direct(buffer.len())
            && let Some((pages, start)) = buffer.pages(cached)
        {
            match direct.read_exact_at(pages, start) {
                Ok(()) => {
                    // For the next time; newer kernels have begun to when the page was asked for.
                    self.file.will_read(at, 1);
                    return Ok(buffer);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.cold_reads.give_up_direct(),
                // The page cache may have what the disk has not, and the error is told there.
                Err(_) => {}
            }
        }
        self.file.read_exact_at(&mut buffer.as_mut()[cached..], at + cached as u64)?;
        Ok(buffer)
    }

    /// Has the kernel read a record that will be asked for next.
    pub fn read_ahead(self: &Arc<Self>, location: Location) {
        let (at, len) = (self.geometry.start(location.segment()) + u64::from(location.offset()), location.len());
        let store = Arc::clone(self);
        // It may wait for the disk's queue. The kernel takes no more than a little at a time.
        drop(tokio::task::spawn_blocking(move || {
            for skip in (0..u64::from(len)).step_by(READ_AHEAD as usize) {
                store.file.will_read(at + skip, u64::from(len).saturating_sub(skip).min(READ_AHEAD));
            }
        }));
    }

    /// As `read_at`, for the writer thread.
    pub fn read_at_blocking(&self, segment: u32, offset: u32, len: u32) -> Result<Bytes, ReadError> {
        if let Some(bytes) = self.waiting(segment, offset, len)? {
            return Ok(bytes);
        }
        let mut buffer = vec![0; len as usize];
        let at = self.geometry.start(segment) + u64::from(offset);
        self.file.read_exact_at(&mut buffer, at).map_err(|error| self.read_failed(segment, at, &error))?;
        Ok(buffer.into())
    }

    /// The bytes if they are still to be written; `None` if they are on the disk.
    fn waiting(&self, segment: u32, offset: u32, len: u32) -> Result<Option<Bytes>, ReadError> {
        let state = self.segment(segment).ok_or(ReadError::Gone)?;
        let end = offset.checked_add(len).filter(|end| *end <= self.geometry.segment_size).ok_or(ReadError::Gone)?;
        if end <= state.written.load(Ordering::Acquire) {
            return Ok(None);
        }
        let appender = self.appender.lock();
        if end <= state.written.load(Ordering::Acquire) {
            return Ok(None);
        }
        let generation = state.generation.load(Ordering::Acquire);
        let place = (generation, offset);
        let after = appender.pending.partition_point(|pending| (pending.generation, pending.offset) <= place);
        let pending = after.checked_sub(1).and_then(|at| appender.pending.get(at)).ok_or(ReadError::Gone)?;
        let inside = pending.generation == generation && end <= pending.offset + pending.len;
        let parts = inside.then(|| pending.parts.clone()).ok_or(ReadError::Gone)?;
        let skip = (offset - pending.offset) as usize;
        drop(appender);
        Ok(Some(gather(&parts, skip, len as usize)))
    }

    /// Reads from the page cache alone; how many bytes of it are there.
    fn read_cached(&self, buffer: &mut [u8], at: u64) -> usize {
        if !self.nowait.load(Ordering::Relaxed) {
            return 0;
        }
        match self.file.read_cached(buffer, at) {
            Ok(read) => read,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.nowait.store(false, Ordering::Relaxed);
                0
            }
            Err(_) => 0,
        }
    }
}

/// A range of bytes that lie in pieces; no copy if one piece has all of it.
fn gather(parts: &[Bytes], mut skip: usize, len: usize) -> Bytes {
    let mut out = BytesMut::new();
    for part in parts {
        if skip >= part.len() {
            skip -= part.len();
            continue;
        }
        let want = len - out.len();
        if out.is_empty() && part.len() - skip >= want {
            return part.slice(skip..skip + want);
        }
        let end = part.len().min(skip + want);
        out.extend_from_slice(&part[skip..end]);
        skip = 0;
        if out.len() == len {
            break;
        }
    }
    out.freeze()
}
