//! How many retries an origin is given: a share of its requests, and a few for quiet times.

use std::time::{Duration, SystemTime};

use super::window::Window;

/// What counts, lately.
const SPAN: Duration = Duration::from_secs(10);

/// A budget of retries.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    percent: u32,
    per_second: u32,
    /// First attempts and retries.
    window: Window,
}

impl Budget {
    /// `percent` of the requests of the last ten seconds, and `per_second` on top.
    pub fn new(percent: u32, per_second: u32) -> Self {
        Self { percent, per_second, window: Window::new(SPAN) }
    }

    /// A request's first attempt.
    pub fn request(&mut self, now: SystemTime) {
        self.window.add(now, 1, 0);
    }

    /// Whether one more retry is within the budget; if so it is taken out of it.
    pub fn retry(&mut self, now: SystemTime) -> bool {
        let (requests, retries) = self.window.sums(now);
        let most = requests * u64::from(self.percent) / 100 + u64::from(self.per_second) * SPAN.as_secs();
        let within = retries < most;
        if within {
            self.window.add(now, 0, 1);
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is under way at one of `servers` that goes fails and is sent to another, while `rate` requests a second, of
    /// `seconds` each, have been coming for `since` seconds.
    #[test]
    fn a_server_of_several_may_go_if_less_than_two_seconds_of_requests_are_under_way_there() {
        let at = |s: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + s);
        let default = super::super::settings::Limits::default();
        let (usual, all) = (default.retry_percent, 100);
        for (percent, rate, seconds, servers, since, within) in [
            (usual, 1000, 1, 2, 10, true),
            (usual, 1000, 3, 2, 10, true),
            (usual, 1000, 5, 2, 10, false),
            (usual, 50, 4, 2, 10, true),
            // All at once, right after the start.
            (usual, 1000, 1, 2, 1, false),
            (all, 1000, 1, 2, 1, true),
            (all, 1000, 5, 2, 10, true),
        ] {
            let mut budget = Budget::new(percent, default.retry_per_second);
            for second in 0..since {
                (0..rate).for_each(|_| budget.request(at(second)));
            }
            let lost = rate * seconds.min(since) / servers;
            let given = (0..lost).filter(|_| budget.retry(at(since - 1))).count() as u64;
            let row = format!("{percent} %, {rate}/s of {seconds} s, {servers} servers, since {since} s");
            assert_eq!(given == lost, within, "{row}: {given} of {lost}");
        }
    }

    #[test]
    fn retries_are_a_share_of_requests_and_a_few_more() {
        let at = |s: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + s);
        for (percent, per_second, requests, expected) in
            [(20, 0, 100, 20), (20, 1, 100, 30), (0, 2, 5, 20), (0, 0, 100, 0), (100, 0, 7, 7)]
        {
            let mut budget = Budget::new(percent, per_second);
            (0..requests).for_each(|_| budget.request(at(0)));
            let given = (0..1000).filter(|_| budget.retry(at(1))).count();
            assert_eq!(given, expected, "{percent} % + {per_second}/s of {requests}");
        }
        let mut budget = Budget::new(0, 1);
        assert_eq!((0..1000).filter(|_| budget.retry(at(0))).count(), 10);
        assert_eq!((0..1000).filter(|_| budget.retry(at(11))).count(), 10);
    }
}
