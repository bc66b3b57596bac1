//! Hedged reads: where a server has not begun to answer within a delay, a second one is asked as well. Whose head comes
//! first answers; the other is let go.
//!
//! The core ties a request to the one connection that it was given. So what it is given is a pipe within the process
//! ([`pipe`]), at whose other end a client of ours ([`race`]) asks one server, or two, and relays the answer that begins
//! first. Nothing else of the request's way through the core differs: what goes wrong at our end goes wrong for the core
//! as it would with a connection of its own.

mod latencies;
mod pipe;
mod race;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pingora::protocols::ALPN;
use pingora::upstreams::peer::HttpPeer;

use super::lease::Lease;
use super::pool::{Ask, Pool};
use super::{Picked, ServerId};
use latencies::Latencies;

/// Told apart from the group keys of ordinary connections: the core's pool has none of these.
const GROUP: u64 = 1 << 33;
/// What one hedge takes out of the allowance, in hundredths.
const ONE: u64 = 100;
/// The allowance never holds more than for so many hedges.
const MOST_SAVED: u64 = 10 * ONE;

/// When a second server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// How long the first one has.
    pub after: After,
    /// Hedges in percent of the requests that may have one, from 1 to 100.
    pub max_percent: u32,
}

/// How long the first server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// So long.
    Fixed(Duration),
    /// As long as this percentage of the origin's answers of the last minute took, from 50 to 99. While too few are known,
    /// nothing is hedged.
    Percentile(u8),
}

/// What a pool hedges by.
#[derive(Debug)]
pub(super) struct Hedging {
    settings: Hedge,
    /// What is left to spend, in hundredths.
    allowance: AtomicU64,
    latencies: Mutex<Latencies>,
}

impl Hedging {
    /// By these settings; nothing is known of the servers yet.
    pub fn new(settings: Hedge) -> Self {
        Self { settings, allowance: AtomicU64::new(0), latencies: Mutex::default() }
    }

    /// An answer's head took so long.
    pub fn observe(&self, took: Duration) {
        if matches!(self.settings.after, After::Percentile(_)) {
            self.latencies.lock().observe(took);
        }
    }

    /// A request that may be hedged, and the delay after which it is.
    fn begin(&self) -> Option<Duration> {
        let share = u64::from(self.settings.max_percent.min(100)) * ONE / 100;
        let save = |had: u64| Some((had + share).min(MOST_SAVED));
        let _ = self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, save);
        match self.settings.after {
            After::Fixed(delay) => Some(delay),
            After::Percentile(percent) => self.latencies.lock().percentile(percent),
        }
    }

    /// Whether one more hedge is within the allowance, which it is taken out of.
    fn spend(&self) -> bool {
        self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |had| had.checked_sub(ONE)).is_ok()
    }
}

/// What came of a hedged request, for who asked for it.
#[derive(Debug, Default)]
pub struct Race(Mutex<Outcome>);

#[derive(Debug, Default)]
struct Outcome {
    second: Option<ServerId>,
    second_failed: bool,
    won: Option<Won>,
}

/// The second server's answer came first.
#[derive(Debug)]
pub struct Won {
    /// The place on it.
    pub lease: Lease,
    /// How long its head took.
    pub took: Duration,
    /// How long the first server had.
    pub first_had: Duration,
    /// The first server failed, rather than that it was slow.
    pub first_failed: bool,
}

impl Race {
    /// The second server, if one was asked.
    pub fn second(&self) -> Option<ServerId> {
        self.0.lock().second
    }

    /// The second server, if it was asked and failed.
    pub fn second_failed(&self) -> Option<ServerId> {
        let outcome = self.0.lock();
        outcome.second.filter(|_| outcome.second_failed)
    }

    /// The second server's answer, if it came first; the first time this is asked.
    pub fn take_winner(&self) -> Option<Won> {
        self.0.lock().won.take()
    }
}

/// What a race needs.
struct Plan {
    pool: Arc<Pool>,
    /// With the first server among those tried.
    ask: Ask,
    /// The first server.
    first: HttpPeer,
    delay: Duration,
    race: Arc<Race>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("first", &self.first._address).field("delay", &self.delay).finish_non_exhaustive()
    }
}

/// Has a second server asked if the one in `picked` does not begin to answer in time. The request has to be safe, without
/// content and no upgrade. `None`: the origin's settings, or what is known of it so far, do not let it be hedged.
pub(super) fn prepare(pool: &Arc<Pool>, picked: &mut Picked, ask: &Ask) -> Option<Arc<Race>> {
    let delay = pool.hedging.as_ref()?.begin()?;
    let race = Arc::new(Race::default());
    let mut first = picked.peer.clone();
    // Two connections at once of which one is given up: HTTP/1 says what that costs, a stream of HTTP/2 shares its fate.
    first.options.alpn = ALPN::H1;
    // The core watches the pipe.
    first.options.read_timeout = None;
    let mut ask = ask.clone();
    ask.tried.push(picked.server);
    let peer = &mut picked.peer;
    let mut pipe = HttpPeer::new(picked.address, false, String::new());
    pipe.options = peer.options.clone();
    pipe.options.alpn = ALPN::H1;
    pipe.group_key = peer.group_key | GROUP;
    let plan = Plan { pool: Arc::clone(pool), ask, first, delay, race: Arc::clone(&race) };
    pipe.options.custom_l4 = Some(Arc::new(race::Connector::new(plan)));
    *peer = pipe;
    Some(race)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hedges_are_a_share_of_the_requests_and_few_are_saved_up() {
        let hedge = |max_percent| Hedging::new(Hedge { after: After::Fixed(Duration::from_millis(10)), max_percent });
        for (percent, requests, expected) in [(5, 19, 0), (5, 20, 1), (5, 60, 3), (100, 7, 7), (5, 10_000, 10)] {
            let hedging = hedge(percent);
            (0..requests).for_each(|_| assert_eq!(hedging.begin(), Some(Duration::from_millis(10))));
            assert_eq!((0..100).filter(|_| hedging.spend()).count(), expected, "{percent} % of {requests}");
        }
        let hedging = hedge(5);
        let made = (0..10_000).filter(|_| hedging.begin().is_some() && hedging.spend()).count();
        assert_eq!(made, 500);
    }

    #[test]
    fn by_percentile_nothing_is_hedged_until_enough_is_known() {
        let hedging = Hedging::new(Hedge { after: After::Percentile(95), max_percent: 5 });
        assert_eq!(hedging.begin(), None);
        (0..100).for_each(|_| hedging.observe(Duration::from_millis(50)));
        let delay = hedging.begin().unwrap();
        assert!((Duration::from_millis(50)..Duration::from_millis(60)).contains(&delay), "{delay:?}");
    }
}
