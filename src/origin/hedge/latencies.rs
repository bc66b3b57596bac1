//! How long an origin's answers took lately.

use std::time::Duration;

use tokio::time::Instant;

/// Each of two spans; what is asked looks at both.
const SPAN: Duration = Duration::from_secs(30);
/// Answers below which there is no percentile.
const ENOUGH: u64 = 20;
/// Steps for each doubling: a value is known to within a fifth.
const STEPS: f64 = 4.0;
const LEAST: f64 = 100e-6;
/// Up to half an hour.
const STEPS_IN_ALL: usize = 96;

/// Counts by logarithmic steps over the last half to whole minute.
#[derive(Debug)]
pub(super) struct Latencies {
    present: [u32; STEPS_IN_ALL],
    before: [u32; STEPS_IN_ALL],
    began: Instant,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { present: [0; STEPS_IN_ALL], before: [0; STEPS_IN_ALL], began: Instant::now() }
    }
}

impl Latencies {
    /// Counts one.
    pub fn observe(&mut self, took: Duration) {
        self.move_on();
        let step = (STEPS * (took.as_secs_f64() / LEAST).max(1.0).log2()) as usize;
        if let Some(count) = self.present.get_mut(step.min(STEPS_IN_ALL - 1)) {
            *count = count.saturating_add(1);
        }
    }

    /// What `percent` of them took at most, rounded up to a step; `None` while there are too few.
    pub fn percentile(&mut self, percent: u8) -> Option<Duration> {
        self.move_on();
        let counts = || self.before.iter().zip(&self.present).map(|(a, b)| u64::from(*a) + u64::from(*b));
        let total: u64 = counts().sum();
        if total < ENOUGH {
            return None;
        }
        let wanted = (total * u64::from(percent.min(100))).div_ceil(100);
        let mut seen = 0;
        let step = counts().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_secs_f64(LEAST * ((step + 1) as f64 / STEPS).exp2()))
    }

    fn move_on(&mut self) {
        let age = self.began.elapsed();
        if age < SPAN {
            return;
        }
        let present = std::mem::replace(&mut self.present, [0; STEPS_IN_ALL]);
        self.before = if age < 2 * SPAN { present } else { [0; STEPS_IN_ALL] };
        self.began = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn percentiles_are_right_to_within_a_step_and_forgotten_in_time() {
        let mut latencies = Latencies::default();
        for milliseconds in 1..=100 {
            assert_eq!(latencies.percentile(50).is_some(), milliseconds > ENOUGH);
            latencies.observe(Duration::from_millis(milliseconds));
        }
        for (percent, exact) in [(50, 50.0), (95, 95.0), (99, 99.0)] {
            let found = latencies.percentile(percent).unwrap().as_secs_f64() * 1e3;
            assert!((exact..exact * 1.2).contains(&found), "{percent}: {found}");
        }
        tokio::time::advance(SPAN).await;
        (0..300).for_each(|_| latencies.observe(Duration::from_micros(10)));
        assert!(latencies.percentile(50).unwrap() < Duration::from_millis(1));
        assert!(latencies.percentile(95).unwrap() > Duration::from_millis(50));
        tokio::time::advance(2 * SPAN).await;
        assert_eq!(latencies.percentile(50), None);
        latencies.observe(Duration::MAX);
        latencies.observe(Duration::ZERO);
    }
}
