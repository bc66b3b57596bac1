//! What happened lately: two counts over a span that moves on in tenths.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PARTS: usize = 10;

/// Counts of two kinds over the last `span`.
#[derive(Clone, Debug)]
pub(super) struct Window {
    part: Duration,
    counts: [(u32, u32); PARTS],
    /// The number of the part that is counted into, since the epoch.
    present: u128,
}

impl Window {
    /// Empty, over `span`; one that is no span at all counts as a hundredth of a second.
    pub fn new(span: Duration) -> Self {
        let part = (span / PARTS as u32).max(Duration::from_millis(1));
        Self { part, counts: [(0, 0); PARTS], present: 0 }
    }

    /// Goes on over another span, which begins anew if it differs.
    pub fn stretch(&mut self, span: Duration) {
        let other = Self::new(span);
        if other.part != self.part {
            *self = other;
        }
    }

    /// Adds to both counts.
    pub fn add(&mut self, now: SystemTime, first: u32, second: u32) {
        self.move_on(now);
        let place = (self.present % PARTS as u128) as usize;
        if let Some((a, b)) = self.counts.get_mut(place) {
            *a = a.saturating_add(first);
            *b = b.saturating_add(second);
        }
    }

    /// Both counts over the span that ends now.
    pub fn sums(&mut self, now: SystemTime) -> (u64, u64) {
        self.move_on(now);
        self.counts.iter().fold((0, 0), |(a, b), (x, y)| (a + u64::from(*x), b + u64::from(*y)))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts = [(0, 0); PARTS];
    }

    fn move_on(&mut self, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() / self.part.as_nanos().max(1);
        if now < self.present || now - self.present >= PARTS as u128 {
            // Long ago, or a clock that was set back.
            self.clear();
        } else {
            for gone in self.present + 1..=now {
                if let Some(counts) = self.counts.get_mut((gone % PARTS as u128) as usize) {
                    *counts = (0, 0);
                }
            }
        }
        self.present = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
    }

    #[test]
    fn what_is_older_than_the_span_is_forgotten() {
        let mut window = Window::new(Duration::from_secs(1));
        window.add(at(0), 1, 10);
        window.add(at(500), 2, 20);
        for (ms, sums) in [(500, (3, 30)), (999, (3, 30)), (1000, (2, 20)), (1499, (2, 20)), (1500, (0, 0))] {
            assert_eq!(window.sums(at(ms)), sums, "{ms}");
        }
    }

    #[test]
    fn a_clock_set_back_begins_anew() {
        let mut window = Window::new(Duration::from_secs(1));
        window.add(at(5000), 1, 1);
        window.add(at(0), 2, 2);
        assert_eq!(window.sums(at(0)), (2, 2));
    }
}
