//! Buffers that reads fill. Large ones are used again: to clear new memory before each read costs as much as copying
//! the bytes into it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Buffers below this are made for each read.
const SMALLEST: usize = 16 << 10;
/// Doublings of it that are kept: up to 1 MiB.
const CLASSES: usize = 7;
/// Beyond a power of two each has room for what lies before a body.
const EXTRA: usize = 4 << 10;
/// Idle bytes of one class at most.
const IDLE: usize = 2 << 20;

/// Idle buffers by size.
#[derive(Default)]
pub(super) struct Buffers {
    classes: [Mutex<Vec<Vec<u8>>>; CLASSES],
}

/// Memory for one read.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    /// Where it goes when nobody needs it any more.
    home: Option<(Arc<Buffers>, usize)>,
}

impl Buffers {
    /// A buffer of `len` bytes; what is in it is of no meaning.
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let class = (len.saturating_sub(EXTRA).div_ceil(SMALLEST)).next_power_of_two().trailing_zeros() as usize;
        if len < SMALLEST || class >= CLASSES {
            return Buffer { bytes: vec![0; len], len, home: None };
        }
        let idle = self.classes[class].lock().pop();
        let bytes = idle.unwrap_or_else(|| vec![0; (SMALLEST << class) + EXTRA]);
        Buffer { bytes, len, home: Some((Arc::clone(self), class)) }
    }
}

impl Buffer {
    pub fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
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
        &self.0.bytes[..self.0.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some((home, class)) = self.home.take() {
            let mut idle = home.classes[class].lock();
            if idle.len() < IDLE / (SMALLEST << class) {
                idle.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_comes_back_and_a_reader_keeps_its_bytes() {
        let buffers = Arc::new(Buffers::default());
        for len in [0, 1, 100, 16_384, 20_480, 20_481, 65_536, 131_072 + 100, 1 << 20, (1 << 20) + 4096, 3 << 20] {
            let mut buffer = buffers.take(len);
            buffer.as_mut().fill(7);
            let bytes = buffer.freeze();
            let part = bytes.slice(len / 2..);
            drop(bytes);
            // As long as a part of it is read, nobody else gets it.
            buffers.take(len).as_mut().fill(9);
            assert!(part.len() == len - len / 2 && part.iter().all(|byte| *byte == 7), "{len}");
        }
        let idle = |class: usize| buffers.classes[class].lock().len();
        assert!(idle(0) > 0 && idle(2) > 0 && idle(6) > 0);
    }

    #[test]
    fn what_lies_idle_is_bounded() {
        let buffers = Arc::new(Buffers::default());
        let many: Vec<Buffer> = (0..20).map(|_| buffers.take(1 << 20)).collect();
        drop(many);
        assert_eq!(buffers.classes[6].lock().len(), IDLE >> 20);
    }
}
