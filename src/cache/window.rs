//! The part of a fill's content that is in memory: pieces in order, dropped from the front.

use std::collections::VecDeque;

use bytes::Bytes;

use super::entry::{Body, join};

/// Small pieces are joined when there are this many, for each costs more than its bytes.
const LOOSE_PIECES: usize = 1024;
/// A reader that is behind is given this much at a time, where there is as much: one that shares its task with the
/// writer gets a turn for several of the writer's, and has to catch up in it.
const READ: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Window {
    pieces: VecDeque<(u64, Bytes)>,
    base: u64,
    end: u64,
    /// How many pieces at the back are still to be joined, and their bytes.
    loose: usize,
    loose_bytes: usize,
}

impl Window {
    /// The offset behind the last byte that was ever pushed.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The offset of the first byte that is still here.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        self.loose += 1;
        self.loose_bytes += data.len();
        let start = self.end;
        self.end += data.len() as u64;
        self.pieces.push_back((start, data));
        if self.loose >= LOOSE_PIECES || self.loose_bytes >= Body::PIECE {
            self.join_loose();
        }
    }

    /// Drops the pieces that end at or before `offset`.
    pub(super) fn trim_to(&mut self, offset: u64) {
        while let Some((start, piece)) = self.pieces.front() {
            if start + piece.len() as u64 > offset {
                break;
            }
            if self.loose == self.pieces.len() {
                self.loose -= 1;
                self.loose_bytes -= piece.len();
            }
            self.pieces.pop_front();
        }
        self.base = self.pieces.front().map_or(self.end, |(start, _)| *start);
    }

    /// Up to `max` bytes at `offset`; `None` where none of them is here.
    pub(super) fn read(&self, offset: u64, max: u64) -> Option<Bytes> {
        let index = self.pieces.partition_point(|(start, _)| *start <= offset).checked_sub(1)?;
        let (start, piece) = self.pieces.get(index)?;
        let skip = usize::try_from(offset - start).ok()?;
        if skip >= piece.len() {
            return None;
        }
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let first = piece.slice(skip..piece.len().min(skip.saturating_add(max)));
        if first.len() >= READ.min(max) || index + 1 == self.pieces.len() {
            return Some(first);
        }
        let mut gathered = vec![first];
        let mut length = gathered[0].len();
        for (_, piece) in self.pieces.range(index + 1..) {
            let take = piece.len().min(READ.min(max) - length);
            gathered.push(piece.slice(..take));
            length += take;
            if length >= READ.min(max) {
                break;
            }
        }
        Some(join(gathered.iter()))
    }

    /// All of the content, in memory of its own; for a window that was never trimmed.
    pub(super) fn take_body(&mut self) -> Body {
        self.join_loose();
        let mut body = Body::default();
        self.pieces.iter().for_each(|(_, piece)| body.push(piece.clone()));
        body
    }

    fn join_loose(&mut self) {
        if self.loose == 0 {
            return;
        }
        let from = self.pieces.len() - self.loose;
        let start = self.pieces[from].0;
        // Even a single piece is copied: it may be a slice of a connection's much larger read buffer.
        let joined = join(self.pieces.range(from..).map(|(_, piece)| piece));
        self.pieces.truncate(from);
        self.pieces.push_back((start, joined));
        // A full one stays as it is; a smaller one is joined again with what follows.
        (self.loose, self.loose_bytes) = if self.loose_bytes >= Body::PIECE { (0, 0) } else { (1, self.loose_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_pushed_is_read_from_any_offset(
            sizes in proptest::collection::vec(0usize..3000, 1..60), trim in 0u64..100_000, max in 1u64..100_000,
        ) {
            let mut window = Window::default();
            let mut all = Vec::new();
            for size in sizes {
                let piece: Vec<u8> = (0..size).map(|at| (all.len() + at) as u8).collect();
                all.extend_from_slice(&piece);
                window.push(piece.into());
            }
            prop_assert_eq!(window.end(), all.len() as u64);
            window.trim_to(trim);
            prop_assert!(window.base() <= trim.min(window.end()));
            let mut at = window.base();
            while at < window.end() {
                let read = window.read(at, max).unwrap();
                prop_assert!(!read.is_empty() && read.len() as u64 <= max);
                prop_assert_eq!(&read[..], &all[at as usize..at as usize + read.len()]);
                at += read.len() as u64;
            }
            prop_assert!(window.read(at, max).is_none());
            if let Some(before) = window.base().checked_sub(1) {
                prop_assert!(window.read(before, max).is_none());
            }
        }
    }

    #[test]
    fn tiny_pieces_do_not_pile_up() {
        let mut window = Window::default();
        for _ in 0..(3 << 20) {
            window.push(Bytes::from_static(b"x"));
        }
        assert!(window.pieces.len() < 2 * LOOSE_PIECES, "{}", window.pieces.len());
        let body = window.take_body();
        assert_eq!(body.len(), 3 << 20);
        assert_eq!(body.pieces().count(), 3);
    }
}
