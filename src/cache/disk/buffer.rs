//! Buffers that reads fill. All but the smallest are used again: to clear new memory before each read costs as much as copying
//! the bytes into it. They lie in memory as what they are for lies on the disk, so that whole pages can be read.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::io::DirectFile;

/// Buffers below this are made for each read.
const SMALLEST: usize = 4 << 10;
/// Doublings of it that are kept: up to 1 MiB.
const CLASSES: usize = 9;
/// Beyond a power of two each has room for what lies before a body, and for the rest of the pages it is in.
const EXTRA: usize = 16 << 10;
const PAGE: usize = DirectFile::PAGE as usize;
/// Idle bytes at most, whatever the sizes.
const IDLE: usize = 8 << 20;

/// Idle buffers by size.
#[derive(Default)]
pub(super) struct Buffers {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    classes: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

/// Bytes of a buffer of a class.
fn size(class: usize) -> usize {
    (SMALLEST << class) + EXTRA
}

impl Idle {
    fn take(&mut self, class: usize) -> Option<Vec<u8>> {
        let buffer = self.classes[class].pop()?;
        self.bytes -= size(class);
        Some(buffer)
    }

    /// Keeps a buffer; what is then too much, of the class that has most. Returns what is not kept.
    fn put(&mut self, class: usize, buffer: Vec<u8>) -> Vec<Vec<u8>> {
        self.classes[class].push(buffer);
        self.bytes += size(class);
        let mut surplus = Vec::new();
        while self.bytes > IDLE {
            let most = (0..CLASSES).max_by_key(|class| self.classes[*class].len() * size(*class)).unwrap_or_default();
            surplus.extend(self.take(most));
        }
        surplus
    }
}

/// Memory for one read.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
    /// Where the bytes lie on the disk.
    at: u64,
    /// Where it goes when nobody needs it any more.
    home: Option<(Arc<Buffers>, usize)>,
}

impl Buffers {
    /// A buffer for `len` bytes that lie at `at`; what is in it is of no meaning.
    pub fn take(self: &Arc<Self>, len: usize, at: u64) -> Buffer {
        let class = ((len + 3 * PAGE).saturating_sub(EXTRA).div_ceil(SMALLEST)).next_power_of_two().trailing_zeros();
        let class = class as usize;
        if len < SMALLEST || class >= CLASSES {
            return Buffer { bytes: vec![0; len], start: 0, len, at, home: None };
        }
        let idle = self.idle.lock().take(class);
        let bytes = idle.unwrap_or_else(|| vec![0; size(class)]);
        let start = page_of(&bytes) + at as usize % PAGE;
        Buffer { bytes, start, len, at, home: Some((Arc::clone(self), class)) }
    }
}

/// Where the first page of some memory begins.
fn page_of(bytes: &[u8]) -> usize {
    // It may say that it does not know, never in practice.
    bytes.as_ptr().align_offset(PAGE).min(PAGE)
}

impl Buffer {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }

    /// The pages from the one with the byte `from` on, and where they lie on the disk; `None` for small buffers.
    pub fn pages(&mut self, from: usize) -> Option<(&mut [u8], u64)> {
        self.home.as_ref()?;
        let first = (self.start + from - page_of(&self.bytes)) / PAGE;
        let (base, lead) = (page_of(&self.bytes), self.at % PAGE as u64);
        let end = base + (self.start + self.len - base).next_multiple_of(PAGE);
        let at = self.at - lead + (first * PAGE) as u64;
        Some((self.bytes.get_mut(base + first * PAGE..end)?, at))
    }

    /// The bytes as they are now, for any number of readers.
    pub fn freeze(self) -> Bytes {
        if self.home.is_some() { Bytes::from_owner(Owned(self)) } else { Bytes::from(self.take_bytes()) }
    }

    fn take_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

struct Owned(Buffer);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes[self.0.start..self.0.start + self.0.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some((home, class)) = self.home.take() {
            // What is not kept is freed after the lock is.
            let surplus = home.idle.lock().put(class, std::mem::take(&mut self.bytes));
            drop(surplus);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_comes_back_and_a_reader_keeps_its_bytes() {
        let buffers = Arc::new(Buffers::default());
        for len in [0, 1, 100, 5_000, 16_384, 20_480, 20_481, 65_536, 131_072 + 100, 1 << 20, (1 << 20) + 4096, 3 << 20]
        {
            let mut buffer = buffers.take(len, 64 * len as u64);
            buffer.as_mut().fill(7);
            let bytes = buffer.freeze();
            let part = bytes.slice(len / 2..);
            drop(bytes);
            // As long as a part of it is read, nobody else gets it.
            buffers.take(len, 0).as_mut().fill(9);
            assert!(part.len() == len - len / 2 && part.iter().all(|byte| *byte == 7), "{len}");
        }
        let idle = |class: usize| buffers.idle.lock().classes[class].len();
        assert!(idle(0) > 0 && idle(4) > 0 && idle(8) > 0);
    }

    #[test]
    fn pages_hold_the_bytes_where_they_belong() {
        let buffers = Arc::new(Buffers::default());
        for (len, at, from) in [(40_000, 0, 0), (40_000, 4032, 0), (66_000, 70_080, 5_000), (1 << 20, 64, 1 << 19)] {
            let mut buffer = buffers.take(len, at);
            let (pages, start) = buffer.pages(from).unwrap();
            assert!(
                start.is_multiple_of(4096)
                    && pages.len().is_multiple_of(4096)
                    && (pages.as_ptr() as usize).is_multiple_of(4096)
            );
            assert!(start <= at + from as u64 && start + 4096 > at + from as u64);
            assert!(
                start + pages.len() as u64 >= at + len as u64 && start + (pages.len() as u64) < at + len as u64 + 4096
            );
            pages.iter_mut().zip(start..).for_each(|(byte, place)| *byte = (place / 7) as u8);
            let right = buffer.as_mut().iter().zip(at..).skip(from).all(|(byte, place)| *byte == (place / 7) as u8);
            assert!(right, "{len} bytes at {at}");
        }
    }

    #[test]
    fn what_lies_idle_is_bounded_whatever_the_sizes() {
        let buffers = Arc::new(Buffers::default());
        for (len, count) in [(20 << 10, 600), (1 << 20, 20), (100 << 10, 200)] {
            let many: Vec<Buffer> = (0..count).map(|_| buffers.take(len, 0)).collect();
            drop(many);
            let idle = buffers.idle.lock();
            let held: usize = idle.classes.iter().flatten().map(Vec::len).sum();
            assert!(held == idle.bytes && held <= IDLE && held > IDLE / 2, "{held} bytes");
        }
        // What came last has not pushed out all the others.
        assert!(buffers.idle.lock().classes.iter().filter(|class| !class.is_empty()).count() == 3);
    }
}
