//! The containers of a path as the servers of an origin.

use crate::discovery::nginx_proxy::{self, Balance, Directives, PathRoute, Proto};
use crate::origin;
use crate::origin::balance::{Algorithm, HashKey};
use http::HeaderName;
use std::time::Duration;

/// Failures in a row after which nginx leaves a server out, and for how long.
const MAX_FAILS: u32 = 1;
const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// How servers are chosen; the text that is hashed where it is none that is known here.
pub(super) fn algorithm(balance: &Balance) -> Result<Algorithm, &str> {
    let by = |key: HashKey| Ok(Algorithm::Hash { key, bound: None });
    match balance {
        Balance::RoundRobin => Ok(Algorithm::RoundRobin),
        Balance::LeastConnections => Ok(Algorithm::LeastConnections),
        Balance::IpHash => Ok(Algorithm::ClientAddress),
        // Of two is no worse than any.
        Balance::Random { two: _ } => Ok(Algorithm::Random),
        // Few keys move in any case.
        Balance::Hash { key, consistent: _ } => match key.as_str() {
            "$request_uri" => by(HashKey::Uri),
            "$uri" | "$document_uri" => by(HashKey::Path),
            "$remote_addr" | "$binary_remote_addr" => by(HashKey::ClientAddress),
            other => match (other.strip_prefix("$http_"), other.strip_prefix("$cookie_")) {
                (Some(field), _) => match HeaderName::try_from(field.replace('_', "-")) {
                    Ok(name) => by(HashKey::Header(name)),
                    Err(_) => Err(other),
                },
                (None, Some(cookie)) => by(HashKey::Cookie(cookie.to_owned())),
                (None, None) => Err(other),
            },
        },
    }
}

/// The origin of a path's containers.
pub(super) fn origin_of(
    site: &nginx_proxy::Site,
    route: &PathRoute,
    local: &Directives,
    balance: Algorithm,
) -> origin::Settings {
    use origin::http::{HttpVersion, ServerAddress, Settings, Timeouts};
    let default = Timeouts::default();
    let servers = if site.refused.is_some() { &[][..] } else { &route.servers };
    origin::Settings::Http(Settings {
        tls: matches!(route.proto, Proto::Https | Proto::Grpcs),
        // nginx does not verify what it proxies to, and containers have no certificates that could be.
        tls_verify: false,
        tls_server_name: None,
        version: match route.proto {
            Proto::Http | Proto::Https => HttpVersion::Http1,
            Proto::Grpc | Proto::Grpcs => HttpVersion::Http2,
        },
        host: None,
        timeouts: Timeouts {
            connect: local.connect_timeout.unwrap_or(default.connect),
            read: local.read_timeout.unwrap_or(default.read),
            write: local.send_timeout.unwrap_or(default.write),
            idle: if route.keepalive == Some(0) || route.keepalive.is_none() { IDLE_NOT_AT_ALL } else { default.idle },
        },
        max_fails: MAX_FAILS,
        eject_for: FAIL_TIMEOUT,
        try_next: true,
        balance,
        ..Settings::of(
            servers.iter().map(|s| ServerAddress { host: s.address.to_string().into(), port: s.port }.into()),
        )
    })
}

/// As good as closing a connection after its request.
const IDLE_NOT_AT_ALL: Duration = Duration::from_millis(1);
