//! Answers from the page cache straight into a socket, which spares the copy that a write costs.
//!
//! What is sent so has been read and verified just before, from the same pages; what a socket does not take at once is
//! for the caller to write from what was read. The kernel keeps the pages until the client has acknowledged them, long
//! after the read is over. So they must not change: the log only appends, and before a segment is used again that pages
//! were sent of, its pages are taken off the file ([`Store::detach_sent`]). What is then written there gets new ones.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::hold::Hold;
use super::store::Store;

/// Where verified bytes lie in the tier's file.
pub struct Placed {
    store: Arc<Store>,
    segment: u32,
    generation: u32,
    /// In the segment.
    offset: u32,
    len: u32,
}

impl Placed {
    /// Of the record body that begins at `offset` of a segment.
    pub(super) fn new(store: &Arc<Store>, segment: u32, generation: u32, offset: u32, len: u32) -> Self {
        Self { store: Arc::clone(store), segment, generation, offset, len }
    }

    /// Sends what a socket takes at once, and tells how many bytes that was; `None` where it cannot be sent like this:
    /// the segment is on its way out, the bytes still wait to be written, or the system cannot. It does not block, unless the kernel
    /// has dropped the pages since they were read.
    ///
    /// # Errors
    /// The socket's, `WouldBlock` among them.
    pub fn send_to(&self, socket: BorrowedFd<'_>) -> Option<io::Result<usize>> {
        let Self { store, segment, generation, offset, len } = self;
        let state = store.segment(*segment).filter(|_| store.sends.load(Ordering::Relaxed))?;
        // As long as it is held nothing is written over it.
        let mut hold = Hold::new(store);
        if !hold.add(*segment) {
            return None;
        }
        let end = offset.checked_add(*len)?;
        let is_there = state.generation.load(Ordering::Acquire) == *generation
            && end <= state.written.load(Ordering::Acquire)
            && end <= store.geometry.segment_size;
        if !is_there {
            return None;
        }
        // Before, so that whoever takes the segment next knows.
        state.is_sent.store(true, Ordering::Release);
        let sent = store.file.send(socket, store.geometry.start(*segment) + u64::from(*offset), *len as usize);
        if let Err(error) = &sent
            && matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
        {
            store.sends.store(false, Ordering::Relaxed);
            return None;
        }
        Some(sent)
    }
}

impl Store {
    /// Takes the pages of a segment off the file, if any of them were sent and may still be on their way. To be called when
    /// nobody holds the segment any more, before it is written to.
    ///
    /// # Errors
    /// They are still there, and must not be written over.
    pub fn detach_sent(&self, segment: u32) -> io::Result<()> {
        let Some(state) = self.segment(segment).filter(|state| state.is_sent.load(Ordering::Acquire)) else {
            return Ok(());
        };
        self.file.detach(self.geometry.start(segment), self.geometry.segment_size.into())?;
        state.is_sent.store(false, Ordering::Release);
        Ok(())
    }
}
