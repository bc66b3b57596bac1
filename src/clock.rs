//! The only source of wall-clock time, so that tests can control it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// Tells the time. Cheap to clone; clones share one offset.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offset_ms: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self { offset_ms: None }
    }

    /// The system's clock with an offset that [`Clock::advance`] moves, for tests.
    pub fn adjustable() -> Self {
        Self { offset_ms: Some(Arc::new(AtomicI64::new(0))) }
    }

    /// The present wall-clock time.
    pub fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        match self.offset_ms.as_ref().map(|o| o.load(Ordering::Relaxed)) {
            None | Some(0) => now,
            Some(ms) if ms > 0 => now + Duration::from_millis(ms.unsigned_abs()),
            Some(ms) => now - Duration::from_millis(ms.unsigned_abs()),
        }
    }

    /// Moves an adjustable clock forward (or, with `forward` false, back); a system clock is left as it is.
    pub fn advance(&self, by: Duration, forward: bool) {
        if let Some(offset) = &self.offset_ms {
            let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            offset.fetch_add(if forward { ms } else { -ms }, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adjustable_clock_moves_both_ways() {
        let clock = Clock::adjustable();
        let before = SystemTime::now();
        clock.advance(Duration::from_secs(3600), true);
        assert!(clock.now() >= before + Duration::from_secs(3600));
        clock.advance(Duration::from_secs(7200), false);
        assert!(clock.now() < before);
    }
}
