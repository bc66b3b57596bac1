//! Reaching origin servers: an [`Origin`] is a named set of servers, each with addresses that follow DNS, and what its
//! kind wants of a request and makes of a response.

#[cfg(test)]
mod connect_tests;
mod health;
pub mod http;
mod pool;
pub mod resolve;
pub mod s3;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;
use prometheus::{Histogram, IntCounterVec};

use crate::clock::Clock;
use crate::metrics::{Metrics, observer};
use health::Limits;
use http::peer::{Connection, Template, is_host};
use http::{HttpOrigin, HttpVersion, ServerAddress};
use pool::{Pool, Server};
pub use resolve::{ResolveError, Resolver};
pub use s3::S3Origin;

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
    /// All were tried for this request (RFC 9209 `destination_unavailable`).
    #[error("every server was tried")]
    Exhausted,
}

impl PickError {
    /// The RFC 9209 error type.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unresolved(_) => "dns_error",
            Self::Exhausted => "destination_unavailable",
        }
    }
}

/// One address of one server of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerId {
    index: usize,
    address: SocketAddr,
}

/// Where to send a request.
#[derive(Clone, Debug)]
pub struct Picked {
    /// For pingora, with all connection options.
    pub peer: HttpPeer,
    /// For [`Origin::report`] and the next [`Origin::pick`].
    pub server: ServerId,
    /// For the log.
    pub address: SocketAddr,
}

/// How asking a server went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Success,
    /// It could not be reached, or broke off, or took too long.
    Failure,
}

/// A named set of servers. Built from settings; replaced, not changed, when they change.
#[derive(Debug)]
pub struct Origin {
    name: Arc<str>,
    kind: Kind,
    pool: Pool,
    seconds: Histogram,
    errors: IntCounterVec,
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
        let (kind, servers, limits) = match settings {
            Settings::Http(settings) => {
                let (servers, limits) = http_servers(name, settings, metrics)?;
                (Kind::Http(HttpOrigin::new(settings)), servers, limits)
            }
            Settings::S3(settings) => {
                let origin = S3Origin::build(settings)?;
                let server = s3_server(name, settings, &origin, metrics)?;
                // There is one address to ask; leaving it out would help nobody.
                (Kind::S3(origin), vec![server], Limits { max_fails: 0, eject_for: Duration::ZERO })
            }
        };
        Ok(Arc::new(Self {
            name: name.into(),
            kind,
            pool: Pool::new(servers, limits, resolver, clock),
            seconds: observer(&metrics.origin_seconds, name),
            errors: metrics.origin_errors.clone(),
        }))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it wants of requests.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The next server by round robin, and of a server with several addresses the next address. Left out are those
    /// that are ejected and those in `tried`; if all are ejected, none is left out for that. An ejected one whose time is
    /// over gets one request as a probe.
    ///
    /// # Errors
    /// See [`PickError`].
    pub async fn pick(&self, tried: &[ServerId]) -> Result<Picked, PickError> {
        self.pool.pick(tried).await
    }

    /// Tells how a server did: a success clears its failures, failures in a row eject it. A server is down in
    /// `origin_server_up` while all its addresses are out.
    pub fn report(&self, server: ServerId, outcome: Outcome) {
        if self.pool.report(server, outcome) {
            match outcome {
                Outcome::Success => tracing::info!(origin = %self.name, address = %server.address, "server is back"),
                Outcome::Failure => tracing::warn!(origin = %self.name, address = %server.address, "server ejected"),
            }
        }
    }

    /// Records the time from a request sent to its response's head, in seconds.
    pub fn observe_head(&self, seconds: f64) {
        self.seconds.observe(seconds);
    }

    /// Counts a failed attempt; `kind` is an RFC 9209 error type. Resolved per call: errors are rare, and thirty zero
    /// series per origin would not help anyone.
    pub fn count_error(&self, kind: &'static str) {
        self.errors.with_label_values(&[&*self.name, kind]).inc();
    }
}

fn http_servers(name: &str, settings: &http::Settings, metrics: &Metrics) -> Result<(Vec<Server>, Limits), BuildError> {
    let http::Settings {
        servers,
        tls,
        tls_verify,
        tls_server_name,
        version,
        host,
        timeouts,
        max_fails,
        eject_for,
        try_next: _,
    } = settings;
    if let Some(host) = host
        && (host.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic()))
    {
        return Err(BuildError::Host(host.clone()));
    }
    let connection = Connection { tls: *tls, verify: *tls_verify, version: *version, timeouts, upgrades: true };
    let servers = servers
        .iter()
        .map(|address| server(name, address, connection, tls_server_name.as_deref(), metrics))
        .collect::<Result<_, _>>()?;
    Ok((servers, Limits { max_fails: *max_fails, eject_for: *eject_for }))
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
    server(name, &address, connection, None, metrics)
}

fn server(
    origin: &str,
    address: &ServerAddress,
    connection: Connection<'_>,
    tls_server_name: Option<&str>,
    metrics: &Metrics,
) -> Result<Server, BuildError> {
    let ServerAddress { host, port } = address;
    if !is_host(host) {
        return Err(BuildError::Server(host.to_string()));
    }
    let verified = tls_server_name.unwrap_or(host);
    let peer = Template::new(connection, verified).ok_or_else(|| BuildError::Server(verified.to_owned()))?;
    let label = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let up = metrics.origin_server_up.with_label_values(&[origin, &label]);
    Ok(Server::new(host.clone(), *port, peer, up))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::IpAddr;

    use async_trait::async_trait;

    use super::resolve::{Answer, Lookup, LookupError};
    use super::*;

    const EJECT_FOR: Duration = Duration::from_secs(10);

    /// Names to the last octets of their addresses; others fail.
    struct Names(HashMap<&'static str, Vec<u8>>);

    #[async_trait]
    impl Lookup for Names {
        async fn lookup(&self, host: &str) -> Result<Answer, LookupError> {
            let last = self.0.get(host).ok_or_else(|| LookupError::Failed("refused".to_owned()))?;
            let addresses = last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect();
            Ok(Answer { addresses, ttl: Duration::from_secs(3600) })
        }
    }

    struct Fixture {
        origin: Arc<Origin>,
        clock: Clock,
        metrics: Metrics,
    }

    fn http_settings(hosts: &[&str]) -> http::Settings {
        let servers = hosts.iter().map(|host| ServerAddress { host: (*host).into(), port: 80 }).collect();
        http::Settings {
            servers,
            tls: false,
            tls_verify: true,
            tls_server_name: None,
            version: HttpVersion::Auto,
            host: None,
            timeouts: http::Timeouts::default(),
            max_fails: 1,
            eject_for: EJECT_FOR,
            try_next: false,
        }
    }

    fn fixture(hosts: &[&str]) -> Fixture {
        let names = Names(HashMap::from([("a", vec![1]), ("b", vec![2]), ("three", vec![3, 4, 5])]));
        let (clock, metrics) = (Clock::adjustable(), Metrics::new());
        let resolver = Resolver::with_lookup(names, clock.clone());
        let settings = Settings::Http(http_settings(hosts));
        let origin = Origin::build("o", &settings, resolver, clock.clone(), &metrics).unwrap();
        Fixture { origin, clock, metrics }
    }

    impl Fixture {
        async fn pick(&self, tried: &[ServerId]) -> Result<Picked, PickError> {
            self.origin.pick(tried).await
        }

        /// The last octets of the next `n` picks.
        async fn next(&self, n: usize) -> Vec<u8> {
            let mut out = Vec::new();
            for _ in 0..n {
                let picked = self.pick(&[]).await.unwrap();
                let IpAddr::V4(address) = picked.address.ip() else { panic!("not an IPv4 address") };
                out.push(address.octets()[3]);
            }
            out
        }

        /// Reports about the address of the `index`th server that ends in `last`.
        fn report(&self, index: usize, last: u8, outcome: Outcome) {
            let address = SocketAddr::from(([192, 0, 2, last], 80));
            self.origin.report(ServerId { index, address }, outcome);
        }

        fn up(&self, server: &str) -> i64 {
            self.metrics.origin_server_up.with_label_values(&["o", server]).get()
        }
    }

    #[tokio::test]
    async fn servers_take_turns() {
        let fixture = fixture(&["a", "b", "192.0.2.9"]);
        assert_eq!(fixture.next(6).await, [1, 2, 9, 1, 2, 9]);
    }

    #[tokio::test]
    async fn addresses_of_a_server_take_turns() {
        let fixture = fixture(&["three"]);
        assert_eq!(fixture.next(6).await, [3, 4, 5, 3, 4, 5]);
    }

    #[tokio::test]
    async fn a_retry_goes_elsewhere_until_all_were_tried() {
        let fixture = fixture(&["a", "three"]);
        let mut tried = Vec::new();
        for _ in 0..4 {
            let picked = fixture.pick(&tried).await.unwrap();
            assert!(!tried.contains(&picked.server));
            assert_eq!(picked.peer._address.as_inet(), Some(&picked.address));
            tried.push(picked.server);
        }
        assert_eq!(fixture.pick(&tried).await.unwrap_err(), PickError::Exhausted);
    }

    #[tokio::test]
    async fn an_ejected_server_is_left_out_and_probed_when_its_time_is_over() {
        let fixture = fixture(&["a", "b"]);
        fixture.next(2).await;
        fixture.report(0, 1, Outcome::Failure);
        assert_eq!((fixture.up("a:80"), fixture.up("b:80")), (0, 1));
        assert_eq!(fixture.next(4).await, [2, 2, 2, 2]);
        fixture.clock.advance(EJECT_FOR, true);
        let mut probed = fixture.next(6).await;
        probed.sort_unstable();
        assert_eq!(probed, [1, 2, 2, 2, 2, 2]);
        assert_eq!(fixture.up("a:80"), 0);
        fixture.report(0, 1, Outcome::Success);
        assert_eq!(fixture.up("a:80"), 1);
        assert_eq!(fixture.next(4).await, [1, 2, 1, 2]);
    }

    #[tokio::test]
    async fn if_all_are_ejected_all_are_used() {
        let fixture = fixture(&["a", "b"]);
        fixture.next(2).await;
        fixture.report(0, 1, Outcome::Failure);
        fixture.report(1, 2, Outcome::Failure);
        let picks = fixture.next(4).await;
        assert!(picks.contains(&1) && picks.contains(&2), "{picks:?}");
        let first = fixture.pick(&[]).await.unwrap().server;
        let second = fixture.pick(&[first]).await.unwrap().server;
        assert_ne!(first, second);
        assert_eq!(fixture.pick(&[first, second]).await.unwrap_err(), PickError::Exhausted);
    }

    #[tokio::test]
    async fn an_ejected_server_is_no_refuge_for_a_retry() {
        let fixture = fixture(&["a", "b"]);
        fixture.report(0, 1, Outcome::Failure);
        let healthy = fixture.pick(&[]).await.unwrap().server;
        assert_eq!(fixture.pick(&[healthy]).await.unwrap_err(), PickError::Exhausted);
    }

    #[tokio::test]
    async fn one_bad_address_does_not_take_its_server_down() {
        let fixture = fixture(&["three"]);
        fixture.next(1).await;
        fixture.report(0, 4, Outcome::Failure);
        assert_eq!(fixture.up("three:80"), 1);
        assert!(!fixture.next(6).await.contains(&4));
        fixture.report(0, 3, Outcome::Failure);
        fixture.report(0, 5, Outcome::Failure);
        assert_eq!(fixture.up("three:80"), 0);
    }

    #[tokio::test]
    async fn a_server_that_does_not_resolve_is_passed_over() {
        assert_eq!(fixture(&["gone", "a"]).next(3).await, [1, 1, 1]);
        let error = fixture(&["gone"]).pick(&[]).await.unwrap_err();
        assert_eq!(error.as_str(), "dns_error");
    }

    #[tokio::test]
    async fn errors_and_latency_are_counted_under_the_origins_name() {
        let fixture = fixture(&["a"]);
        fixture.origin.count_error("connection_refused");
        fixture.origin.observe_head(0.02);
        let text = String::from_utf8(fixture.metrics.render()).unwrap();
        assert!(text.contains(r#"selvedge_origin_errors_total{kind="connection_refused",origin="o"} 1"#), "{text}");
        assert!(text.contains(r#"selvedge_origin_seconds_count{origin="o"} 1"#), "{text}");
        assert!(text.contains(r#"selvedge_origin_server_up{origin="o",server="a:80"} 1"#), "{text}");
    }

    #[tokio::test]
    async fn what_cannot_be_reached_or_verified_is_refused() {
        let build = |settings: http::Settings| {
            let resolver = Resolver::with_lookup(Names(HashMap::new()), Clock::system());
            Origin::build("o", &Settings::Http(settings), resolver, Clock::system(), &Metrics::new()).unwrap_err()
        };
        assert_eq!(build(http_settings(&["a b"])), BuildError::Server("a b".to_owned()));
        let unnamed = http::Settings { tls: true, tls_server_name: Some(String::new()), ..http_settings(&["a"]) };
        assert_eq!(build(unnamed), BuildError::Server(String::new()));
        let host = http::Settings { host: Some("a\r\nb".to_owned()), ..http_settings(&["a"]) };
        assert_eq!(build(host), BuildError::Host("a\r\nb".to_owned()));
    }
}
