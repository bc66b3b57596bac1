//! HTTP origins.

pub(super) mod peer;
pub(super) mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use super::balance::Algorithm;
pub use super::hedge::{After, Hedge};
pub use super::settings::{Health, Limits, Server};

/// A set of HTTP servers that answer alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The servers; at least one.
    pub servers: Vec<Server>,
    /// Speak TLS to them, verifying against the system's roots.
    pub tls: bool,
    /// Verify their certificates (off only for self-signed origins in private networks).
    pub tls_verify: bool,
    /// The name for SNI and certificate verification; `None`: the server's host name.
    pub tls_server_name: Option<String>,
    /// HTTP versions to speak.
    pub version: HttpVersion,
    /// The `Host` sent; `None`: the client's.
    pub host: Option<String>,
    /// Limits on connecting, answering and failing.
    pub timeouts: Timeouts,
    /// Failures in a row within `eject_for` after which a server is left out; 0: never.
    pub max_fails: u32,
    /// How long it is left out the first time.
    pub eject_for: Duration,
    /// Whether an idempotent request goes to another server when the first breaks off before its response begins (RFC
    /// 9110 section 9.2.2). Off by default: a request that reached an origin server is not sent again.
    pub try_next: bool,
    /// When a second server is asked for a slow answer; `None`: never.
    pub hedge: Option<Hedge>,
    /// How the next server is chosen.
    pub balance: Algorithm,
    /// How long it takes a server that comes up to get its full share; zero: no time.
    pub slow_start: Duration,
    /// Who counts as up.
    pub health: Health,
    /// How much is asked of the servers.
    pub limits: Limits,
    /// Idle connections kept to each address of a server; `None`: as many as the process keeps in all.
    pub max_idle: Option<u32>,
    /// A cookie that the servers set for their sessions: requests with one go to the server that set it, while that is up
    /// and below its limit.
    pub sticky_cookie: Option<String>,
}

impl Settings {
    /// These servers, all else as it is by default.
    pub fn of(servers: impl IntoIterator<Item = Server>) -> Self {
        Self {
            servers: servers.into_iter().collect(),
            tls: false,
            tls_verify: true,
            tls_server_name: None,
            version: HttpVersion::default(),
            host: None,
            timeouts: Timeouts::default(),
            max_fails: 3,
            eject_for: Duration::from_secs(10),
            try_next: false,
            hedge: None,
            balance: Algorithm::default(),
            slow_start: Duration::ZERO,
            health: Health::default(),
            limits: Limits::default(),
            max_idle: None,
            sticky_cookie: None,
        }
    }
}

/// Host and port of an origin server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    /// A DNS name or an IP address (IPv6 without brackets).
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

/// The HTTP version spoken to an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1; over TLS HTTP/2 where ALPN agrees on it.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only: ALPN over TLS, prior knowledge (h2c) without.
    Http2,
}

/// How long each step towards an origin may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS set-up.
    pub connect: Duration,
    /// Between two reads of a response.
    pub read: Duration,
    /// Between two writes of a request.
    pub write: Duration,
    /// An idle pooled connection is closed after this.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(60),
            write: Duration::from_secs(60),
            idle: Duration::from_secs(60),
        }
    }
}

/// What an HTTP origin wants of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOrigin {
    host: Option<String>,
    try_next: bool,
}

impl HttpOrigin {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { host: settings.host.clone(), try_next: settings.try_next }
    }

    /// Whether an idempotent request that a server broke off goes to another one.
    pub fn tries_next(&self) -> bool {
        self.try_next
    }

    /// The `Host` to send instead of the client's.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}
