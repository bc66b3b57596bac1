//! Host names of origin servers to addresses: hickory-resolver with the system's configuration, behind a cache of our
//! own that follows record TTLs, asks once for all who wait, and keeps the last good answer when the name servers fail
//! (RFC 8767).

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;

/// Addresses are kept at least this long, whatever their TTL says.
const MIN_TTL: Duration = Duration::from_secs(1);
/// How long a name that does not exist is not asked for again, within its negative TTL.
const NEGATIVE_TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The pause after a failure of the name servers.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long a request waits for fresh addresses while old ones are at hand (RFC 8767 section 5, client response timer).
const STALE_WAIT: Duration = Duration::from_millis(1800);
/// How long old addresses are used while the name servers fail (RFC 8767 section 4 has one to three days).
const STALE_LIMIT: Duration = Duration::from_secs(86_400);
/// The longest a look-up may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// Names held before those that were replaced by a new configuration are dropped.
const MAX_NAMES: usize = 4096;

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist or has no address.
    #[error("`{0}` has no address")]
    NotFound(Arc<str>),
    /// The name servers did not answer, or not with an answer.
    #[error("`{0}` could not be resolved: {1}")]
    Failed(Arc<str>, Arc<str>),
}

/// The system's resolver configuration is unusable.
#[derive(Debug, thiserror::Error)]
#[error("the resolver could not be set up: {0}")]
pub struct ResolverError(#[from] NetError);

/// What a name server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The addresses, at least one.
    pub addresses: Vec<IpAddr>,
    /// How long they hold.
    pub ttl: Duration,
}

/// Why a name server gave no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// There are none, and that holds for this long.
    NotFound(Duration),
    /// It could not be asked, or failed.
    Failed(String),
}

/// Asks name servers, without any cache.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of `host`.
    async fn lookup(&self, host: &str) -> Result<Answer, LookupError>;
}

/// Resolves names. One per process: its cache outlives configurations.
pub struct Resolver {
    lookup: Arc<dyn Lookup>,
    clock: Clock,
    names: RwLock<HashMap<Box<str>, Vec<Arc<Name>>>>,
}

impl Resolver {
    /// A resolver that asks as the system does: its name servers, search list and hosts file, read once. IPv4 addresses
    /// are preferred; IPv6 ones are used where a name has no others. Without a system configuration, only addresses,
    /// the hosts file and `localhost` resolve.
    ///
    /// # Errors
    /// hickory-resolver cannot be set up.
    pub fn new(clock: Clock) -> Result<Arc<Self>, ResolverError> {
        let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "the system has no usable resolver configuration: only hosts file names resolve");
            TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
        });
        let options = builder.options_mut();
        options.cache_size = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        Ok(Self::with_lookup(builder.build()?, clock))
    }

    /// A resolver that asks `lookup`.
    pub fn with_lookup(lookup: impl Lookup, clock: Clock) -> Arc<Self> {
        Arc::new(Self { lookup: Arc::new(lookup), clock, names: RwLock::default() })
    }

    /// The addresses of `host` (a name, or an address, IPv6 without brackets) with `port`, at least one. Fresh ones are
    /// answered without waiting; while one look-up is under way, all who ask for its name wait for it.
    ///
    /// # Errors
    /// See [`ResolveError`]; both kinds are remembered for a few seconds.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Arc<[SocketAddr]>, ResolveError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Arc::from([SocketAddr::new(address, port)]));
        }
        let name = self.name(host, port);
        let (old, flight) = match name.look(self.clock.now()) {
            Look::Done(result) => return result,
            Look::Refresh { old, flight } => (old, flight.unwrap_or_else(|| self.start(&name))),
        };
        let Flight { until, mut result } = flight;
        let wait = async {
            // An error is a look-up whose task was ended by the runtime.
            result.wait_for(Option::is_some).await.ok().and_then(|result| result.clone())
        };
        let fresh = match &old {
            None => wait.await,
            Some(_) => tokio::time::timeout_at(until, wait).await.ok().flatten(),
        };
        match (fresh, old) {
            (Some(Ok(addresses)), _) => Ok(addresses),
            (Some(Err(error @ ResolveError::NotFound(_))), _) => Err(error),
            (_, Some(old)) => Ok(old),
            (Some(Err(error)), None) => Err(error),
            (None, None) => Err(ResolveError::Failed(name.host.clone(), "the look-up was abandoned".into())),
        }
    }

    /// What [`Resolver::resolve`] answers without waiting; `None` where it would wait.
    pub fn known(&self, host: &str, port: u16) -> Option<Result<Arc<[SocketAddr]>, ResolveError>> {
        match self.name(host, port).look(self.clock.now()) {
            Look::Done(result) => Some(result),
            Look::Refresh { .. } => None,
        }
    }

    fn name(&self, host: &str, port: u16) -> Arc<Name> {
        let of_port = |names: &[Arc<Name>]| names.iter().find(|name| name.port == port).cloned();
        if let Some(name) = self.names.read().get(host).and_then(|names| of_port(names)) {
            return name;
        }
        let mut names = self.names.write();
        if names.len() >= MAX_NAMES {
            let now = self.clock.now();
            names.retain(|_, names| names.iter().any(|name| name.in_use(now)));
        }
        let ports = names.entry(host.into()).or_default();
        of_port(ports).unwrap_or_else(|| {
            let name = Arc::new(Name { host: host.into(), port, state: Mutex::default() });
            ports.push(name.clone());
            name
        })
    }

    /// Starts the look-up, unless another request did meanwhile. It goes on when the request that started it ends.
    fn start(&self, name: &Arc<Name>) -> Flight {
        let (sender, result) = watch::channel(None);
        let flight = Flight { until: Instant::now() + STALE_WAIT, result };
        {
            let mut state = name.state.lock();
            if let Some(other) = state.flight.as_ref().filter(|flight| !flight.is_over()) {
                return other.clone();
            }
            state.flight = Some(flight.clone());
        }
        let (name, lookup, clock) = (name.clone(), self.lookup.clone(), self.clock.clone());
        tokio::spawn(async move {
            let answer = tokio::time::timeout(LOOKUP_LIMIT, lookup.lookup(&name.host))
                .await
                .unwrap_or_else(|_| Err(LookupError::Failed("the name servers did not answer in time".to_owned())));
            // Nobody may wait any more.
            let _ = sender.send(Some(name.learn(answer, clock.now())));
        });
        flight
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.names.read().len()).finish_non_exhaustive()
    }
}

type Resolved = Result<Arc<[SocketAddr]>, ResolveError>;

/// One host and port.
struct Name {
    host: Arc<str>,
    port: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    good: Option<Good>,
    failed: Option<Failed>,
    flight: Option<Flight>,
}

struct Good {
    addresses: Arc<[SocketAddr]>,
    since: SystemTime,
    ttl: Duration,
}

struct Failed {
    error: ResolveError,
    since: SystemTime,
    pause: Duration,
}

/// A look-up under way.
#[derive(Clone)]
struct Flight {
    /// Who has old addresses waits until then.
    until: Instant,
    result: watch::Receiver<Option<Resolved>>,
}

impl Flight {
    fn is_over(&self) -> bool {
        self.result.borrow().is_some() || self.result.has_changed().is_err()
    }
}

enum Look {
    Done(Resolved),
    Refresh { old: Option<Arc<[SocketAddr]>>, flight: Option<Flight> },
}

impl Name {
    fn look(&self, now: SystemTime) -> Look {
        let state = self.state.lock();
        if let Some(good) = state.good.as_ref().filter(|good| within(good.since, good.ttl, now)) {
            return Look::Done(Ok(good.addresses.clone()));
        }
        let old = state.good.as_ref().filter(|good| within(good.since, good.ttl + STALE_LIMIT, now));
        let old = old.map(|good| good.addresses.clone());
        match state.failed.as_ref().filter(|failed| within(failed.since, failed.pause, now)) {
            Some(failed) => Look::Done(old.ok_or_else(|| failed.error.clone())),
            None => Look::Refresh { old, flight: state.flight.clone().filter(|flight| !flight.is_over()) },
        }
    }

    fn learn(&self, answer: Result<Answer, LookupError>, now: SystemTime) -> Resolved {
        let mut state = self.state.lock();
        state.flight = None;
        let (error, pause) = match answer {
            Ok(answer) if !answer.addresses.is_empty() => {
                let addresses: Arc<[SocketAddr]> =
                    answer.addresses.iter().map(|address| SocketAddr::new(*address, self.port)).collect();
                state.good = Some(Good { addresses: addresses.clone(), since: now, ttl: answer.ttl.max(MIN_TTL) });
                state.failed = None;
                return Ok(addresses);
            }
            Ok(_) => self.forget(&mut state, NEGATIVE_TTL.0),
            Err(LookupError::NotFound(ttl)) => self.forget(&mut state, ttl.clamp(NEGATIVE_TTL.0, NEGATIVE_TTL.1)),
            Err(LookupError::Failed(reason)) => {
                tracing::warn!(host = %self.host, reason, stale = state.good.is_some(), "name look-up failed");
                (ResolveError::Failed(self.host.clone(), reason.into()), RETRY_AFTER)
            }
        };
        state.failed = Some(Failed { error: error.clone(), since: now, pause });
        Err(error)
    }

    /// A name that is known not to exist has no old addresses to use: they may be another's by now.
    fn forget(&self, state: &mut State, pause: Duration) -> (ResolveError, Duration) {
        state.good = None;
        (ResolveError::NotFound(self.host.clone()), pause)
    }

    fn in_use(&self, now: SystemTime) -> bool {
        let state = self.state.lock();
        let fresh = state.good.as_ref().is_some_and(|good| within(good.since, good.ttl, now));
        fresh || state.flight.as_ref().is_some_and(|flight| !flight.is_over())
    }
}

/// Whether `now` is within `span` after `since`; a clock that was set back is as good as expired.
fn within(since: SystemTime, span: Duration, now: SystemTime) -> bool {
    now.duration_since(since).is_ok_and(|age| age < span)
}

#[async_trait]
impl Lookup for TokioResolver {
    async fn lookup(&self, host: &str) -> Result<Answer, LookupError> {
        match self.lookup_ip(host).await {
            Ok(found) => Ok(Answer {
                addresses: found.iter().collect(),
                ttl: found.valid_until().saturating_duration_since(std::time::Instant::now()),
            }),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                Err(LookupError::NotFound(Duration::from_secs(none.negative_ttl.unwrap_or_default().into())))
            }
            Err(error) => Err(LookupError::Failed(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests;
