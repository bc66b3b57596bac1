//! Which server is next: pure choices among those that may be asked now.
//!
//! Every algorithm honours weights. What may be asked is decided before (`reach`), so that none of them knows of health.

pub mod nginx;
pub(super) mod reach;

use std::net::IpAddr;

use ::http::header::COOKIE;
use ::http::{HeaderMap, HeaderName, Uri};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// How the next server is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// In turns, by weight, spread evenly (as nginx does it).
    #[default]
    RoundRobin,
    /// The one with the fewest requests in flight for its weight; in turns where that is equal (nginx `least_conn`).
    LeastConnections,
    /// Of two drawn at random, by weight, the one with fewer requests in flight for its weight (nginx `random two`).
    Random,
    /// Of two drawn at random, by weight, the one with the lower expected latency: a peak-sensitive moving average
    /// times the requests in flight.
    PeakEwma,
    /// By the client's address: of an IPv4 address the first three octets, an IPv6 address whole (nginx `ip_hash`).
    ClientAddress,
    /// By a key of the request.
    Hash {
        /// What is hashed. Requests without it take turns.
        key: HashKey,
        /// A server takes at most this many percent of its share of the requests in flight, 100 or more; beyond it a key
        /// goes to its next server. `None`: no bound.
        bound: Option<u32>,
    },
}

/// What of a request decides by [`Algorithm::Hash`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The path.
    Path,
    /// Path and query.
    Uri,
    /// The client's whole address.
    ClientAddress,
    /// The first value of a field.
    Header(HeaderName),
    /// The first value of a cookie.
    Cookie(String),
}

impl Algorithm {
    /// The word of the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::Random => "random",
            Self::PeakEwma => "peak-ewma",
            Self::ClientAddress => "client-address",
            Self::Hash { .. } => "hash",
        }
    }

    /// The hash that decides for a request, if this algorithm wants one and the request has what it takes.
    pub fn key(&self, uri: &Uri, headers: &HeaderMap, client: Option<IpAddr>) -> Option<u64> {
        match self {
            Self::RoundRobin | Self::LeastConnections | Self::Random | Self::PeakEwma => None,
            Self::ClientAddress => client.map(network_hash),
            Self::Hash { key, .. } => match key {
                HashKey::Path => Some(xxh3_64(uri.path().as_bytes())),
                HashKey::Uri => {
                    let text = uri.path_and_query().map_or(uri.path(), |p| p.as_str());
                    Some(xxh3_64(text.as_bytes()))
                }
                HashKey::ClientAddress => client.map(address_hash),
                HashKey::Header(name) => headers.get(name).map(|value| xxh3_64(value.as_bytes())),
                HashKey::Cookie(name) => cookie(headers, name).map(xxh3_64),
            },
        }
    }

    /// The place in `candidates` of the one to ask; `None` only if there are none. Turns are kept in the candidates:
    /// store them back.
    pub(super) fn choose(&self, candidates: &mut [Candidate], key: Option<u64>, random: &mut Random) -> Option<usize> {
        match (self, key) {
            (Self::LeastConnections, _) => least_connections(candidates),
            (Self::Random, _) => two_choices(candidates, random, Candidate::load),
            (Self::PeakEwma, _) => two_choices(candidates, random, Candidate::expected_latency),
            (Self::ClientAddress, Some(key)) => rendezvous(candidates, key, None),
            (Self::Hash { bound, .. }, Some(key)) => rendezvous(candidates, key, *bound),
            (Self::RoundRobin | Self::ClientAddress | Self::Hash { .. }, _) => take_turns(candidates, |_| true),
        }
    }
}

/// A server's address that may be asked.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Its share, more than 0; less than its configured weight while it starts slowly.
    pub weight: f64,
    /// Requests under way.
    pub in_flight: usize,
    /// Moving average of the time to a response head in seconds; `None` before the first.
    pub latency: Option<f64>,
    /// Tells it from the others, the same in every process.
    pub id: u64,
    /// How far its turn has come.
    pub turn: f64,
}

/// Cost of a server that was never measured and is being measured just now, in seconds.
const UNMEASURED: f64 = 3600.0;

impl Candidate {
    fn load(&self) -> f64 {
        self.in_flight as f64 / self.weight
    }

    fn expected_latency(&self) -> f64 {
        match (self.latency, self.in_flight) {
            (Some(latency), in_flight) => latency * (in_flight + 1) as f64 / self.weight,
            // One request finds out; a crowd would not know what it gets into.
            (None, 0) => 0.0,
            (None, in_flight) => UNMEASURED + in_flight as f64,
        }
    }
}

/// Small, fast and seedable (SplitMix64); nothing secret hangs on it.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Always the same numbers for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to but not including 1.
    pub fn unit(&mut self) -> f64 {
        unit(self.next())
    }
}

fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Smooth weighted round robin: each turn every candidate gains its weight, and the one that has most pays for all.
fn take_turns(candidates: &mut [Candidate], takes_part: impl Fn(&Candidate) -> bool) -> Option<usize> {
    let mut total = 0.0;
    let mut best: Option<(usize, f64)> = None;
    for (place, candidate) in candidates.iter_mut().enumerate().filter(|(_, c)| takes_part(c)) {
        candidate.turn += candidate.weight;
        total += candidate.weight;
        // Sums of fractions: what differs by less than this is equal.
        if best.is_none_or(|(_, turn)| candidate.turn > turn + 1e-9) {
            best = Some((place, candidate.turn));
        }
    }
    let (place, _) = best?;
    candidates.get_mut(place)?.turn -= total;
    Some(place)
}

fn least_connections(candidates: &mut [Candidate]) -> Option<usize> {
    let least = candidates.iter().map(Candidate::load).min_by(f64::total_cmp)?;
    take_turns(candidates, |candidate| candidate.load() <= least + 1e-9)
}

fn two_choices(candidates: &[Candidate], random: &mut Random, cost: impl Fn(&Candidate) -> f64) -> Option<usize> {
    let first = draw(candidates, None, random)?;
    let Some(second) = draw(candidates, Some(first), random) else { return Some(first) };
    let (a, b) = (candidates.get(first)?, candidates.get(second)?);
    Some(if cost(b) < cost(a) { second } else { first })
}

/// One at random, by weight, other than `without`.
fn draw(candidates: &[Candidate], without: Option<usize>, random: &mut Random) -> Option<usize> {
    let others = || candidates.iter().enumerate().filter(|(place, _)| Some(*place) != without);
    let mut left = random.unit() * others().map(|(_, c)| c.weight).sum::<f64>();
    let mut last = None;
    for (place, candidate) in others() {
        last = Some(place);
        left -= candidate.weight;
        if left < 0.0 {
            break;
        }
    }
    last
}

/// Weighted rendezvous hashing: each pair of key and server has a fixed score, and the best takes the key. A server that
/// comes takes from each other only what it now wins, one that goes leaves only what it had. With a bound the best is
/// taken among those below it (consistent hashing with bounded loads, Mirrokni and others).
fn rendezvous(candidates: &[Candidate], key: u64, bound: Option<u32>) -> Option<usize> {
    let weights: f64 = candidates.iter().map(|c| c.weight).sum();
    let load = candidates.iter().map(|c| c.in_flight).sum::<usize>() + 1;
    let below = |candidate: &Candidate| {
        bound.is_none_or(|percent| {
            let share = load as f64 * candidate.weight / weights;
            (candidate.in_flight as f64) < (share * f64::from(percent.max(100)) / 100.0).ceil()
        })
    };
    let score = |candidate: &Candidate| {
        // Never 0 and never 1, so that the logarithm is finite and not 0.
        let chance = unit(xxh3_64_with_seed(&key.to_le_bytes(), candidate.id)).mul_add(1.0 - 2e-16, 1e-16);
        -chance.ln() / candidate.weight
    };
    let scored = candidates.iter().enumerate().filter(|(_, c)| below(c)).map(|(place, c)| (place, score(c)));
    scored.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(place, _)| place)
}

fn address_hash(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => xxh3_64(&address.octets()),
        IpAddr::V6(address) => xxh3_64(&address.octets()),
    }
}

fn network_hash(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            xxh3_64(&[a, b, c])
        }
        address @ IpAddr::V6(_) => address_hash(address),
    }
}

/// The first value of a cookie (RFC 6265 section 5.4); HTTP/2 may have several `Cookie` lines.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests;
