//! From settings to what pingora connects to.

use std::net::{IpAddr, SocketAddr};

use pingora::protocols::ALPN;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy, PeerOptions};
use rustls::pki_types::ServerName;

use super::{HttpVersion, Timeouts};

/// Requests at a time on one HTTP/2 connection (RFC 9113 section 6.5.2 recommends servers allow at least 100).
const MAX_H2_STREAMS: usize = 100;

/// How every connection to an origin is made.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Speak TLS.
    pub tls: bool,
    /// Verify the server's certificate.
    pub verify: bool,
    /// HTTP versions to speak.
    pub version: HttpVersion,
    /// Limits.
    pub timeouts: &'a Timeouts,
    /// Whether requests to upgrade the connection go through.
    pub upgrades: bool,
}

/// A peer but for its address.
#[derive(Clone, Debug)]
pub struct Template {
    tls: bool,
    sni: String,
    group: u64,
    options: PeerOptions,
}

impl Template {
    /// A template for a server that is verified as `name`, a host name or an IP address. `None` if TLS is wanted and
    /// `name` is neither: pingora turns verification off where the name is empty, so there always is one.
    pub fn new(connection: Connection<'_>, name: &str) -> Option<Self> {
        let Connection { tls, verify, version, timeouts, upgrades } = connection;
        let name = name.strip_suffix('.').unwrap_or(name);
        if tls && ServerName::try_from(name).is_err() {
            return None;
        }
        let mut options = PeerOptions::new();
        options.connection_timeout = Some(timeouts.connect);
        options.total_connection_timeout = Some(timeouts.connect);
        options.read_timeout = Some(timeouts.read);
        options.write_timeout = Some(timeouts.write);
        options.idle_timeout = Some(timeouts.idle);
        options.verify_cert = verify;
        options.verify_hostname = verify;
        options.max_h2_streams = MAX_H2_STREAMS;
        options.alpn = match version {
            HttpVersion::Auto if tls => ALPN::H2H1,
            HttpVersion::Auto | HttpVersion::Http1 => ALPN::H1,
            HttpVersion::Http2 => ALPN::H2,
        };
        if !upgrades {
            options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
        }
        Some(Self { tls, sni: name.to_owned(), group: version as u64, options })
    }

    /// The peer at `address`.
    pub fn peer(&self, address: SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(address, self.tls, self.sni.clone());
        // Pooled connections are told apart by address and name; the protocol has to be in it too.
        peer.group_key = self.group;
        peer.options = self.options.clone();
        peer
    }
}

/// Whether a text can be the host of a server: an IP address, or characters of a DNS name.
pub fn is_host(text: &str) -> bool {
    let octet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.len() <= 253 && text.bytes().all(octet))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        connect: Duration::from_secs(1),
        read: Duration::from_secs(2),
        write: Duration::from_secs(3),
        idle: Duration::from_secs(4),
    };

    fn connection(tls: bool, version: HttpVersion) -> Connection<'static> {
        Connection { tls, verify: true, version, timeouts: &TIMEOUTS, upgrades: true }
    }

    fn peer(connection: Connection<'_>, name: &str) -> HttpPeer {
        Template::new(connection, name).unwrap().peer(SocketAddr::from(([192, 0, 2, 1], 443)))
    }

    #[test]
    fn the_version_decides_what_is_spoken() {
        for (tls, version, alpn) in [
            (true, HttpVersion::Auto, ALPN::H2H1),
            (false, HttpVersion::Auto, ALPN::H1),
            (true, HttpVersion::Http1, ALPN::H1),
            (false, HttpVersion::Http1, ALPN::H1),
            (true, HttpVersion::Http2, ALPN::H2),
            (false, HttpVersion::Http2, ALPN::H2),
        ] {
            assert_eq!(peer(connection(tls, version), "a.example").options.alpn, alpn, "{tls} {version:?}");
        }
    }

    #[test]
    fn timeouts_reach_the_connection() {
        let options = peer(connection(false, HttpVersion::Auto), "a.example").options;
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!((options.connection_timeout, options.total_connection_timeout), (seconds(1), seconds(1)));
        assert_eq!(
            (options.read_timeout, options.write_timeout, options.idle_timeout),
            (seconds(2), seconds(3), seconds(4))
        );
    }

    #[test]
    fn tls_always_has_a_name_to_verify() {
        let tls = connection(true, HttpVersion::Auto);
        for (name, sni) in [("a.example.", "a.example"), ("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1")] {
            let peer = peer(tls, name);
            assert_eq!(peer.sni, sni);
            assert!(peer.options.verify_cert && peer.options.verify_hostname);
        }
        for name in ["", ".", "a b", "-"] {
            assert!(Template::new(tls, name).is_none(), "{name}");
        }
    }

    #[test]
    fn verification_is_off_only_where_it_is_said() {
        let off = Connection { verify: false, ..connection(true, HttpVersion::Auto) };
        let peer = peer(off, "a.example");
        assert!(!peer.options.verify_cert && !peer.options.verify_hostname);
        assert_eq!(peer.sni, "a.example");
    }

    #[test]
    fn protocols_do_not_share_connections() {
        use pingora::upstreams::peer::Peer;
        let h1 = peer(connection(false, HttpVersion::Http1), "a.example");
        let h2 = peer(connection(false, HttpVersion::Http2), "a.example");
        assert_ne!(h1.reuse_hash(), h2.reuse_hash());
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for host in ["a.example", "my_app", "192.0.2.1", "::1"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "a b", "a/b", "[::1]", "a:80"] {
            assert!(!is_host(host), "{host}");
        }
    }
}
