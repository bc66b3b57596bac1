//! Who a request comes from and what it was asked for, as far as it can be believed.
//!
//! The peer of the connection is certain. What it says of those before it counts only where the operator trusts it.

use super::target::{Scheme, Target};
use crate::route::settings::Downstream;
use crate::types::HostName;
use http::{HeaderMap, HeaderValue};
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_PORT: &str = "x-forwarded-port";

/// What a believed peer says the client asked for. Empty for all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The scheme of the client's connection.
    pub scheme: Option<Scheme>,
    /// The host it named, with a port if it named one.
    pub host: Option<HeaderValue>,
    /// The port it connected to.
    pub port: Option<u16>,
    /// The addresses before the peer, as it told them; those are passed on, and the peer's own behind them.
    pub chain: Option<String>,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The client's address: the peer's, or what a trusted proxy says it is. The port is 0 where only the address is known.
    pub address: Option<SocketAddr>,
    /// The other end of the connection.
    pub peer: Option<IpAddr>,
    /// What was asked for before the request came here.
    pub claims: Option<Box<Claims>>,
}

/// Finds out who asks.
pub fn identify(peer: Option<SocketAddr>, headers: &HeaderMap, settings: &Downstream) -> Client {
    let plain = Client { address: peer, peer: peer.map(|peer| peer.ip()), claims: None };
    let Some(peer) = peer.filter(|_| settings.listens()) else { return plain };
    let trusted = settings.trusts(peer.ip());
    if !trusted && !settings.trust_everyone {
        return plain;
    }
    let text = |name: &'static str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    // Of several the first is what the client itself asked for.
    let first = |name| text(name).map(|value| value.split(',').next().unwrap_or(value).trim());
    let scheme = first(X_FORWARDED_PROTO).and_then(|proto| match proto.to_ascii_lowercase().as_str() {
        "https" | "wss" => Some(Scheme::Https),
        "http" | "ws" => Some(Scheme::Http),
        _ => None,
    });
    let host = first(X_FORWARDED_HOST).filter(|host| HostName::parse_with_port(host).is_ok());
    let chain: Vec<&str> =
        headers.get_all(X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).map(str::trim).collect();
    let chain = Some(chain.join(", ")).filter(|chain| !chain.is_empty());
    let address = chain.as_deref().filter(|_| trusted).map_or(peer, |chain| client_of(chain, peer, settings));
    let claims = Claims {
        scheme,
        host: host.and_then(|host| HeaderValue::from_str(host).ok()),
        port: first(X_FORWARDED_PORT).and_then(|port| port.parse().ok()).filter(|port| *port != 0),
        chain,
    };
    Client { address: Some(address), claims: Some(Box::new(claims)), ..plain }
}

/// The last address of the chain that is not a trusted proxy's: what stands before it, anyone may have written.
fn client_of(chain: &str, peer: SocketAddr, settings: &Downstream) -> SocketAddr {
    let mut client = peer;
    for entry in chain.rsplit(',') {
        let Some(address) = address(entry.trim()) else { break };
        client = address;
        if !settings.trusts(address.ip()) {
            break;
        }
    }
    client
}

/// An entry as proxies write it: an address, one in brackets, or either with a port.
fn address(entry: &str) -> Option<SocketAddr> {
    let bare = |text: &str| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip.to_canonical(), 0));
    if let Some(address) = bare(entry.trim_start_matches('[').trim_end_matches(']')) {
        return Some(address);
    }
    entry.parse::<SocketAddr>().ok().map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
}

impl Client {
    /// The address alone.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }

    /// Puts the scheme that was claimed in place of the connection's.
    pub fn retarget(&self, target: &mut Target) {
        let Some(scheme) = self.claims.as_ref().and_then(|claims| claims.scheme) else { return };
        if scheme != target.scheme {
            target.port = Some(target.port.unwrap_or(target.scheme.default_port()));
            // A port that was left out was that of the scheme the client used.
            target.port =
                target.port.filter(|port| ![scheme.default_port(), target.scheme.default_port()].contains(port));
            target.scheme = scheme;
        }
    }

    /// Whether the origin is told of another host or port than the cache key has: what it answers is then not for all who
    /// ask for the key.
    pub fn asks_elsewhere(&self, target: &Target) -> bool {
        let Some(claims) = &self.claims else { return false };
        let own_port = target.port.unwrap_or(target.scheme.default_port());
        let other_host = claims.host.as_ref().is_some_and(|host| {
            let claimed = host.to_str().ok().and_then(|host| HostName::parse_with_port(host).ok());
            claimed.is_none_or(|(host, port)| host != target.host || port.is_some_and(|port| port != own_port))
        });
        other_host || claims.port.is_some_and(|port| port != own_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, Method};

    fn settings(networks: &[&str], trust_everyone: bool) -> Downstream {
        Downstream { trusted_proxies: networks.iter().map(|n| n.parse().unwrap()).collect(), trust_everyone }
    }

    fn fields(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn client(settings: &Downstream, peer: &str, chain: &[&str]) -> String {
        let list: Vec<_> = chain.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let peer = SocketAddr::new(peer.parse().unwrap(), 4711);
        identify(Some(peer), &fields(&list), settings).ip().unwrap().to_string()
    }

    #[test]
    fn an_address_is_believed_from_the_right_up_to_the_first_stranger() {
        let trusted = settings(&["10.0.0.0/8", "2001:db8::/32"], false);
        for (peer, chain, expected) in [
            ("10.0.0.1", &["192.0.2.1"][..], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6", "192.0.2.1, 10.9.9.9"], "192.0.2.1"),
            ("10.0.0.1", &["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, rubbish, 10.2.2.2"], "10.2.2.2"),
            ("10.0.0.1", &["rubbish"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1:5555"], "192.0.2.1"),
            ("10.0.0.1", &["[2001:db9::1]:5555"], "2001:db9::1"),
            ("10.0.0.1", &["[2001:db9::1]"], "2001:db9::1"),
            ("10.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1"),
            ("2001:db8::1", &["192.0.2.1"], "192.0.2.1"),
            ("192.0.2.9", &["6.6.6.6"], "192.0.2.9"),
        ] {
            assert_eq!(client(&trusted, peer, chain), expected, "{peer} {chain:?}");
        }
        assert_eq!(client(&settings(&[], true), "192.0.2.9", &["6.6.6.6"]), "192.0.2.9", "not without a list");
        assert_eq!(client(&settings(&[], false), "192.0.2.9", &["6.6.6.6"]), "192.0.2.9");
    }

    fn target(scheme: Scheme, host: &str) -> Target {
        let mut request = pingora::http::RequestHeader::build(Method::GET, b"/", None).unwrap();
        request.insert_header("host", host).unwrap();
        super::super::guard::target(&request, scheme).unwrap()
    }

    #[test]
    fn what_is_claimed_counts_only_from_those_who_are_believed() {
        let headers = fields(&[
            ("x-forwarded-proto", "https, http"),
            ("x-forwarded-host", "shop.example:8443"),
            ("x-forwarded-port", "8443"),
        ]);
        let peer = Some("192.0.2.9:1".parse().unwrap());
        assert_eq!(identify(peer, &headers, &settings(&["10.0.0.0/8"], false)).claims, None);
        for believed in [settings(&["192.0.2.0/24"], false), settings(&[], true)] {
            let client = identify(peer, &headers, &believed);
            let claims = client.claims.as_deref().unwrap();
            assert_eq!((claims.scheme, claims.port), (Some(Scheme::Https), Some(8443)));
            assert!(client.asks_elsewhere(&target(Scheme::Http, "a.example")));
        }
        let headers =
            fields(&[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a b"), ("x-forwarded-port", "0")]);
        let claims = identify(peer, &headers, &settings(&[], true)).claims;
        assert_eq!(claims, Some(Box::default()));
    }

    #[test]
    fn a_proxy_that_ends_tls_makes_the_target_https() {
        let headers = fields(&[("x-forwarded-proto", "https"), ("x-forwarded-port", "443")]);
        let client = identify(Some("10.0.0.1:1".parse().unwrap()), &headers, &settings(&["10.0.0.0/8"], false));
        for (host, authority, elsewhere) in [
            ("a.example", "a.example", false),
            ("a.example:8080", "a.example:8080", true),
            ("a.example:443", "a.example", false),
        ] {
            let mut target = target(Scheme::Http, host);
            client.retarget(&mut target);
            assert_eq!((target.scheme, target.authority().as_str()), (Scheme::Https, authority));
            assert_eq!(client.asks_elsewhere(&target), elsewhere, "{host}");
        }
    }
}
