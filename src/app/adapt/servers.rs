//! The containers of a path as the servers of an origin.

use crate::discovery::nginx_proxy::{self, Balance, Directives, PathRoute, Proto};
use crate::origin;
use crate::origin::NOT_AT_ALL;
use crate::origin::balance::Algorithm;
use crate::origin::balance::nginx::UnknownDirective;
use std::sync::Arc;
use std::time::Duration;

/// Failures in a row after which nginx leaves a server out, and for how long.
const MAX_FAILS: u32 = 1;
const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// How servers are chosen.
///
/// # Errors
/// What is hashed is nothing that is known here.
pub(super) fn algorithm(balance: &Balance) -> Result<Algorithm, UnknownDirective> {
    match balance {
        Balance::RoundRobin => Ok(Algorithm::RoundRobin),
        Balance::LeastConnections => Ok(Algorithm::LeastConnections),
        Balance::IpHash => Ok(Algorithm::ClientAddress),
        // Of two is no worse than any.
        Balance::Random { two: _ } => Ok(Algorithm::Random),
        // Few keys move in any case.
        Balance::Hash { key, consistent: _ } => Algorithm::from_nginx(&format!("hash {key}")),
    }
}

/// The containers of a path and why each is asked there, as listings have it.
pub(super) fn source(route: &PathRoute) -> Arc<str> {
    const MOST: usize = 3;
    let one = |server: &nginx_proxy::Server| format!("container {} ({})", server.container, server.why);
    let mut named: Vec<String> = route.servers.iter().take(MOST).map(one).collect();
    if let Some(more) = route.servers.len().checked_sub(MOST).filter(|more| *more > 0) {
        named.push(format!("{more} more"));
    }
    if named.is_empty() { "no container that can be reached".into() } else { named.join(", ").into() }
}

/// The origin of a path's containers.
pub(super) fn origin_of(
    site: &nginx_proxy::Site,
    route: &PathRoute,
    local: &Directives,
    balance: Algorithm,
) -> origin::Settings {
    use origin::http::{HttpVersion, Limits, ServerAddress, Settings, Timeouts};
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
            idle: if route.keepalive.is_none() { NOT_AT_ALL } else { default.idle },
        },
        max_fails: MAX_FAILS,
        eject_for: FAIL_TIMEOUT,
        try_next: true,
        balance,
        // `auto`, twice the number of servers, is nginx's way to say that connections are kept at all.
        max_idle: route.keepalive.filter(|n| *n as usize != 2 * servers.len()),
        // nginx has no budget: whoever is not answered by one server is sent to the next. One for each request is what
        // replacing half of the servers at once can take.
        limits: Limits { retry_percent: 100, ..Limits::default() },
        ..Settings::of(
            servers.iter().map(|s| ServerAddress { host: s.address.to_string().into(), port: s.port }.into()),
        )
    })
}
