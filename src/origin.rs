//! Reaching origin servers: an [`Origin`] is a named set of servers, each with addresses that follow DNS, and what its
//! kind wants of a request and makes of a response.

pub mod balance;
mod budget;
pub mod check;
#[cfg(test)]
mod connect_tests;
mod endpoint;
mod handles;
mod health;
mod hedge;
pub mod http;
mod lease;
mod pool;
pub mod resolve;
pub mod s3;
mod sessions;
pub mod settings;
pub mod status;
#[cfg(test)]
mod tests;
mod window;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Uri};
use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;

use crate::clock::Clock;
use crate::metrics::Metrics;
use balance::Algorithm;
use budget::Budget;
use check::{Check, Checking};
use handles::{OriginHandles, ServerHandles};
pub use hedge::{Race, Won};
use http::peer::{Connection, Template, is_host};
use http::{HttpOrigin, HttpVersion, ServerAddress};
pub use lease::{Lease, NOT_AT_ALL};
pub use pool::Ask;
use pool::{Pool, Rules, Server};
pub use resolve::{ResolveError, Resolver};
pub use s3::S3Origin;
pub use status::OriginStatus;

/// How an origin is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum Settings {
    /// HTTP servers.
    Http(http::Settings),
    /// A bucket on an S3-style server.
    S3(s3::Settings),
}

/// What an origin wants of requests.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per origin, behind an Arc already")]
pub enum Kind {
    /// HTTP servers.
    Http(HttpOrigin),
    /// A bucket on an S3-style server.
    S3(S3Origin),
}

/// Why settings make no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A server's host is neither a name nor an address, or cannot be verified as one.
    #[error("`{0}` is not a host name or IP address")]
    Server(String),
    /// Not the text of a `Host` field.
    #[error("`{0}` cannot be sent as `Host`")]
    Host(String),
    /// The bucket's settings.
    #[error(transparent)]
    S3(#[from] s3::S3BuildError),
}

/// Why there is no server for a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// No server's name resolves (RFC 9209 `dns_error`).
    #[error(transparent)]
    Unresolved(ResolveError),
    /// All were tried for this request, or drain (RFC 9209 `destination_unavailable`).
    #[error("every server was tried")]
    Exhausted,
    /// All are at their limit, and so is the queue (RFC 9209 `connection_limit_reached`).
    #[error("every server is at its limit, and no more requests may wait")]
    QueueFull,
    /// All were at their limit for as long as a request may wait (RFC 9209 `connection_limit_reached`).
    #[error("every server was at its limit for too long")]
    QueueTimeout,
}

impl PickError {
    /// The RFC 9209 error type.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unresolved(_) => "dns_error",
            Self::Exhausted => "destination_unavailable",
            Self::QueueFull | Self::QueueTimeout => "connection_limit_reached",
        }
    }
}

/// One address of one server of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerId {
    index: usize,
    address: SocketAddr,
}

impl ServerId {
    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Where to send a request.
#[derive(Debug)]
pub struct Picked {
    /// For pingora, with all connection options.
    pub peer: HttpPeer,
    /// For [`Ask::tried`].
    pub server: ServerId,
    /// For the log.
    pub address: SocketAddr,
    /// Counts the request at the server while it is held, and takes its outcome.
    pub lease: Lease,
}

impl Picked {
    /// Puts a connect and a read timeout in place of the origin's own.
    pub fn limit(&mut self, connect: Option<Duration>, read: Option<Duration>) {
        let options = &mut self.peer.options;
        if connect.is_some() {
            (options.connection_timeout, options.total_connection_timeout) = (connect, connect);
        }
        options.read_timeout = read.or(options.read_timeout);
    }

    /// Makes the connection fit for a request to upgrade it.
    pub fn for_upgrade(&mut self) {
        http::upgrade::prepare(&mut self.peer);
    }
}

/// A named set of servers. Built from settings; replaced, not changed, when they change.
#[derive(Debug)]
pub struct Origin {
    settings: Settings,
    kind: Kind,
    pool: Arc<Pool>,
    check: Option<Check>,
    checking: Mutex<Option<Checking>>,
}

impl Origin {
    /// Makes an origin; nothing is resolved or connected yet.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(
        name: &str,
        settings: &Settings,
        resolver: Arc<Resolver>,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, BuildError> {
        Self::build_after(None, name, settings, (resolver, clock), metrics)
    }

    /// The same with settings that change: of servers that stay, all that `before` knows of them is taken over. What is
    /// new starts slowly if the settings say so.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build_after(
        before: Option<&Self>,
        name: &str,
        settings: &Settings,
        (resolver, clock): (Arc<Resolver>, Clock),
        metrics: &Metrics,
    ) -> Result<Arc<Self>, BuildError> {
        let (kind, servers, rules, limits, check) = match settings {
            Settings::Http(settings) => {
                let servers = http_servers(name, settings, metrics)?;
                let check = settings.health.check.clone();
                let kind = Kind::Http(HttpOrigin::new(settings));
                (kind, servers, rules(settings), settings.limits.clone(), check)
            }
            Settings::S3(settings) => {
                let origin = S3Origin::build(settings)?;
                let server = s3_server(name, settings, &origin, metrics)?;
                (Kind::S3(origin), vec![server], one_server(), settings::Limits::default(), None)
            }
        };
        let budget = Budget::new(limits.retry_percent, limits.retry_per_second);
        let handles = OriginHandles::new(name, metrics);
        let pool = Pool::new(servers, rules, budget, (resolver, clock), handles, before.map(|b| &b.pool));
        Ok(Arc::new(Self { settings: settings.clone(), kind, pool, check, checking: Mutex::default() }))
    }

    /// What it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.pool.handles.name
    }

    /// What it wants of requests.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Puts it into force: begins the checks of its servers, if the settings have any and they have not begun. Needs a
    /// tokio runtime.
    pub fn begin(&self) {
        let mut checking = self.checking.lock();
        if checking.is_none() {
            self.pool.adopt();
        }
        if let (None, Some(check)) = (&*checking, &self.check) {
            let host = match &self.kind {
                Kind::Http(origin) => origin.host().map(str::to_owned),
                Kind::S3(_) => None,
            };
            *checking = Some(Checking::start(&self.pool, check.clone(), host));
        }
    }

    /// Ends the checks, since no new requests come. Of servers that `successor` does not have, metrics are forgotten.
    pub fn retire(&self, successor: Option<&Self>) {
        self.checking.lock().take();
        let stays = |label: &str| successor.is_some_and(|s| s.pool.servers.iter().any(|s| &*s.handles.label == label));
        for server in self.pool.servers.iter().filter(|server| !stays(&server.handles.label)) {
            server.handles.remove();
        }
        if successor.is_none() {
            self.pool.handles.remove();
        }
    }

    /// Sets the gauges of its servers to what is known of them.
    pub fn show(&self) {
        (0..self.pool.servers.len()).for_each(|server| self.pool.show(server));
    }

    /// What decides for a request where it goes, besides the state of the servers.
    pub fn key(&self, uri: &Uri, headers: &HeaderMap, client: Option<IpAddr>) -> Option<u64> {
        self.pool.rules.algorithm.key(uri, headers, client)
    }

    /// The server that has the session of a request with these fields, as far as one is known.
    pub fn session(&self, request: &HeaderMap) -> Option<SocketAddr> {
        self.pool.sessions.as_ref()?.server(request)
    }

    /// A server has answered with these fields.
    pub fn learn(&self, response: &HeaderMap, server: SocketAddr) {
        if let Some(sessions) = &self.pool.sessions {
            sessions.learn(response, server);
        }
    }

    /// The next server, by the origin's algorithm, with a place on it. Left out are those that are ejected, fail their
    /// checks or drain, and those that were tried; if all are out, none is left out for that. An ejected one whose time is
    /// over gets one request at a time as a probe. While all are at their limit, requests wait in turn.
    ///
    /// # Errors
    /// See [`PickError`].
    pub async fn pick(&self, ask: &Ask) -> Result<Picked, PickError> {
        let lease = self.pool.pick(ask).await?;
        let server = lease.server();
        Ok(Picked { peer: lease.peer(), server, address: server.address, lease })
    }

    /// Whether the budget allows a further attempt, which it counts.
    pub fn may_retry(&self) -> bool {
        self.pool.may_retry()
    }

    /// What its servers are up to.
    pub fn status(&self) -> OriginStatus {
        status::of(&self.pool)
    }

    /// Has a second server asked if the one in `picked` has not begun to answer within the origin's delay: for requests
    /// that are safe, without content, and no upgrades. `None` where the origin does not hedge, or knows too little yet.
    pub fn hedge(&self, picked: &mut Picked, ask: &Ask) -> Option<Arc<Race>> {
        hedge::prepare(&self.pool, picked, ask)
    }

    /// Records the time from a request sent to its response's head.
    pub fn observe_head(&self, took: Duration) {
        self.pool.handles.seconds.observe(took.as_secs_f64());
        if let Some(hedging) = &self.pool.hedging {
            hedging.observe(took);
        }
    }

    /// Counts a failed attempt; `kind` is an RFC 9209 error type. Resolved per call: errors are rare, and thirty zero
    /// series per origin would not help anyone.
    pub fn count_error(&self, kind: &'static str) {
        self.pool.handles.errors.with_label_values(&[&**self.name(), kind]).inc();
    }
}

fn http_servers(name: &str, settings: &http::Settings, metrics: &Metrics) -> Result<Vec<Server>, BuildError> {
    let http::Settings { servers, tls, tls_verify, tls_server_name, version, host, timeouts, .. } = settings;
    if let Some(host) = host
        && (host.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic()))
    {
        return Err(BuildError::Host(host.clone()));
    }
    let connection = Connection { tls: *tls, verify: *tls_verify, version: *version, timeouts, upgrades: true };
    let most = |server: &settings::Server| server.max_connections.unwrap_or(settings.limits.max_connections);
    let name_of = tls_server_name.as_deref();
    servers.iter().map(|s| server(name, s, most(s), connection, name_of, metrics)).collect()
}

fn rules(settings: &http::Settings) -> Rules {
    let http::Settings {
        max_fails,
        eject_for,
        balance,
        slow_start,
        health,
        limits,
        hedge,
        max_idle,
        sticky_cookie,
        ..
    } = settings;
    let settings::Health {
        check,
        max_eject_for,
        error_rate,
        error_window,
        error_min_requests,
        fail_statuses,
        probes,
        panic,
    } = health;
    Rules {
        algorithm: balance.clone(),
        health: health::Limits {
            max_fails: *max_fails,
            eject_for: *eject_for,
            max_eject_for: *max_eject_for,
            error_rate: *error_rate,
            window: *error_window,
            min_requests: *error_min_requests,
            probes: *probes,
        },
        checked: check.is_some(),
        panic: *panic,
        slow_start: *slow_start,
        fail_statuses: fail_statuses.clone(),
        queue: limits.queue as usize,
        queue_timeout: limits.queue_timeout,
        hedge: *hedge,
        max_idle: *max_idle,
        sticky_cookie: sticky_cookie.clone(),
    }
}

/// Where there is one address to ask, leaving it out would help nobody.
fn one_server() -> Rules {
    Rules {
        algorithm: Algorithm::RoundRobin,
        health: health::Limits {
            max_fails: 0,
            eject_for: Duration::ZERO,
            max_eject_for: Duration::ZERO,
            error_rate: 0,
            window: Duration::ZERO,
            min_requests: 0,
            probes: 1,
        },
        checked: false,
        panic: 0,
        slow_start: Duration::ZERO,
        fail_statuses: Vec::new(),
        queue: 0,
        queue_timeout: Duration::ZERO,
        hedge: None,
        max_idle: None,
        sticky_cookie: None,
    }
}

fn s3_server(name: &str, settings: &s3::Settings, origin: &S3Origin, metrics: &Metrics) -> Result<Server, BuildError> {
    let connection = Connection {
        tls: settings.endpoint.tls,
        verify: true,
        // S3 itself speaks nothing newer.
        version: HttpVersion::Http1,
        timeouts: &settings.timeouts,
        upgrades: false,
    };
    let address = ServerAddress { host: origin.server().into(), port: settings.endpoint.port };
    server(name, &address.into(), 0, connection, None, metrics)
}

fn server(
    origin: &str,
    server: &settings::Server,
    most: u32,
    connection: Connection<'_>,
    tls_server_name: Option<&str>,
    metrics: &Metrics,
) -> Result<Server, BuildError> {
    let settings::Server { address: ServerAddress { host, port }, weight, backup, drain, max_connections: _ } = server;
    if !is_host(host) {
        return Err(BuildError::Server(host.to_string()));
    }
    let verified = tls_server_name.unwrap_or(host);
    let peer = Template::new(connection, verified).ok_or_else(|| BuildError::Server(verified.to_owned()))?;
    let label = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Ok(Server {
        host: Arc::clone(host),
        port: *port,
        literal: host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, *port)),
        peer,
        weight: (*weight).max(1),
        backup: *backup,
        drain: *drain,
        most,
        handles: ServerHandles::new(origin, &label, metrics),
    })
}
