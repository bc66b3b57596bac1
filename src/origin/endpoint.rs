//! One address of a server: what is known of it. It outlives the origin that made it while requests are under way, and a
//! configuration that keeps the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::check::Verdicts;
use super::health::{Health, Limits};

/// How fast old latencies are forgotten.
const MEMORY: Duration = Duration::from_secs(10);
/// What a failure counts as at least, so that a server that refuses at once does not seem to be the fastest.
const FAILURE_PENALTY: f64 = 1.0;
/// The share of its weight that a slowly starting server begins with.
const FIRST_SHARE: f64 = 0.1;

/// An address and its state.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub address: SocketAddr,
    /// The same in every process, for consistent hashing.
    pub id: u64,
    in_flight: AtomicUsize,
    pub state: Mutex<State>,
}

/// What requests and checks have found out.
#[derive(Debug)]
pub(super) struct State {
    pub health: Health,
    pub verdicts: Verdicts,
    /// What was wrong at the last check.
    pub check_error: Option<Arc<str>>,
    pub latency: Latency,
    /// Since when it is up, where that began while the origin served already.
    pub up_since: Option<SystemTime>,
    /// How far its turn has come.
    pub turn: f64,
}

impl Endpoint {
    /// One that nothing is known of. `fresh`: it came while the origin served already.
    pub fn new(address: SocketAddr, fresh: bool, now: SystemTime, limits: Limits) -> Self {
        let state = State {
            health: Health::new(now, limits),
            verdicts: Verdicts::default(),
            check_error: None,
            latency: Latency::default(),
            up_since: fresh.then_some(now),
            turn: 0.0,
        };
        let id = xxh3_64(address.to_string().as_bytes());
        Self { address, id, in_flight: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// One more, and how many there are with it; `None` if there are `most` already (0: without limit). Two generations of
    /// an origin may ask at once.
    pub fn enter(&self, most: u32) -> Option<usize> {
        let most = if most == 0 { usize::MAX } else { most as usize };
        let one_more = |n: usize| (n < most).then(|| n + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok().map(|before| before + 1)
    }

    /// One less.
    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    /// Its present weight: a line up to `weight` over `slow_start` after it came up.
    pub fn weight(&self, weight: u32, slow_start: Duration, now: SystemTime) -> f64 {
        f64::from(weight.max(1)) * share(self.up_since, slow_start, now)
    }
}

/// From [`FIRST_SHARE`] to 1.
fn share(up_since: Option<SystemTime>, slow_start: Duration, now: SystemTime) -> f64 {
    let Some(since) = up_since.filter(|_| !slow_start.is_zero()) else { return 1.0 };
    // A clock that was set back does not hold a server down.
    let Ok(age) = now.duration_since(since) else { return 1.0 };
    (age.as_secs_f64() / slow_start.as_secs_f64()).clamp(FIRST_SHARE, 1.0)
}

/// A moving average of latencies that follows a rise at once and a fall slowly (peak EWMA).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latency {
    last: Option<(f64, SystemTime)>,
}

impl Latency {
    /// Adds a measured time.
    pub fn observe(&mut self, took: Duration, now: SystemTime) {
        self.add(took.as_secs_f64(), now);
    }

    /// Adds a failure.
    pub fn fail(&mut self, now: SystemTime) {
        let present = self.seconds(now).unwrap_or_default();
        self.add((present * 2.0).clamp(FAILURE_PENALTY, 60.0), now);
    }

    /// What is expected now, in seconds: without measurements it sinks, so that a server once slow is tried again.
    pub fn seconds(&self, now: SystemTime) -> Option<f64> {
        self.last.map(|(value, at)| value * remembered(at, now))
    }

    fn add(&mut self, seconds: f64, now: SystemTime) {
        let value = match self.last {
            Some((value, at)) if seconds < value => {
                let old = remembered(at, now);
                value.mul_add(old, seconds * (1.0 - old))
            }
            _ => seconds,
        };
        self.last = Some((value, now));
    }
}

fn remembered(at: SystemTime, now: SystemTime) -> f64 {
    let age = now.duration_since(at).unwrap_or_default();
    (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
    }

    #[test]
    fn weight_grows_in_a_line() {
        let slow = Duration::from_secs(10);
        for (since, now, expected) in [
            (None, 0, 1.0),
            (Some(0), 0, 0.1),
            (Some(0), 1000, 0.1),
            (Some(0), 5000, 0.5),
            (Some(0), 10_000, 1.0),
            (Some(0), 99_000, 1.0),
            (Some(5000), 0, 1.0),
        ] {
            assert_eq!(share(since.map(at), slow, at(now)), expected, "{since:?} {now}");
        }
        assert_eq!(share(Some(at(0)), Duration::ZERO, at(0)), 1.0);
    }

    #[test]
    fn latency_follows_a_rise_at_once_and_a_fall_slowly() {
        let mut latency = Latency::default();
        assert_eq!(latency.seconds(at(0)), None);
        latency.observe(Duration::from_millis(100), at(0));
        latency.observe(Duration::from_millis(500), at(0));
        assert_eq!(latency.seconds(at(0)), Some(0.5));
        latency.observe(Duration::from_millis(100), at(1000));
        let seconds = latency.seconds(at(1000)).unwrap();
        assert!((0.4..0.5).contains(&seconds), "{seconds}");
        assert!(latency.seconds(at(60_000)).unwrap() < 0.01);
    }

    #[test]
    fn a_failure_is_never_fast() {
        let mut latency = Latency::default();
        latency.observe(Duration::from_millis(1), at(0));
        latency.fail(at(0));
        assert_eq!(latency.seconds(at(0)), Some(1.0));
        latency.fail(at(0));
        assert_eq!(latency.seconds(at(0)), Some(2.0));
    }

    #[test]
    fn no_more_enter_than_may() {
        let endpoint = Endpoint::new(
            SocketAddr::from(([192, 0, 2, 1], 80)),
            false,
            at(0),
            Limits {
                max_fails: 0,
                eject_for: Duration::ZERO,
                max_eject_for: Duration::ZERO,
                error_rate: 0,
                window: Duration::ZERO,
                min_requests: 0,
                probes: 1,
            },
        );
        assert_eq!([2, 2, 2, 0].map(|most| endpoint.enter(most)), [Some(1), Some(2), None, Some(3)]);
        endpoint.leave();
        assert_eq!(endpoint.in_flight(), 2);
    }
}
