//! What sites and routes can be told to do, as plain data: configuration reads it from TOML, discovery from containers.
//!
//! Every `Default` is what an edge does that is told nothing.

use super::traffic::Rule;
use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a site does with every request for its hosts, whatever the path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SiteSettings {
    /// How plain HTTP and HTTPS stand to each other.
    pub https: Https,
    /// The value of `Strict-Transport-Security` on every answer over HTTPS, errors and redirects included. Left out while
    /// plain HTTP is served beside HTTPS or the host has no certificate, whatever this says.
    pub hsts: Option<HeaderValue>,
    /// Which of `www.example.com` and `example.com` is the one; the other is redirected to it.
    pub canonical: Option<Canonical>,
    /// The answer for a path that no route takes.
    pub no_route: NoRoute,
    /// Client certificates; `None`: none are asked for.
    pub client_certificates: Option<ClientCertificates>,
    /// What the site's own handshakes differ in.
    pub tls: SiteTls,
    /// Where the site listens, if not wherever the node does.
    pub ports: Ports,
    /// A folder with ACME challenges (RFC 8555 section 8.3), answered over plain HTTP before anything else is asked.
    pub challenges: Option<PathBuf>,
    /// Traffic rules, in order; the first whose conditions all hold decides.
    pub rules: Vec<Rule>,
}

/// What a route, or with it every route of a site, does with a request before it is looked up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteSettings {
    /// Who may ask, by address: the first that holds the client decides, and who is in none may. Others get 403.
    pub networks: Vec<NetworkRule>,
    /// User names and passwords; `None`: none are asked for.
    pub auth: Option<BasicAuth>,
    /// How often one client may ask.
    pub rate_limit: Option<RateLimit>,
    /// Takes the place of the route's prefix in the path that the origin gets, as text; `None`: untouched. Never for a
    /// route by regular expression.
    pub replace_prefix: Option<Arc<str>>,
    /// In place of the origin's own limits.
    pub timeouts: RouteTimeouts,
}

/// How plain HTTP and HTTPS stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Https {
    /// What is served by which.
    pub method: HttpsMethod,
    /// The status that sends methods other than GET and HEAD to HTTPS: 301, 307 or 308. GET and HEAD get 301.
    pub non_get_redirect: StatusCode,
    /// The port that clients reach HTTPS at, from 1; 443 is left out of URLs.
    pub port: u16,
    /// Whether a host without certificate is served by plain HTTP where it would be redirected to HTTPS or refused.
    pub http_on_missing_certificate: bool,
}

/// What is served by plain HTTP, and what by HTTPS: nginx-proxy's `HTTPS_METHOD`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpsMethod {
    /// Plain HTTP is redirected to HTTPS.
    Redirect,
    /// Both are served.
    #[default]
    NoRedirect,
    /// Plain HTTP is answered 503.
    NoHttp,
    /// HTTPS ends as for a host that nobody knows.
    NoHttps,
}

/// Which of two names a site goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// `example.com` is redirected to `www.example.com`.
    Www,
    /// `www.example.com` is redirected to `example.com`.
    Apex,
}

/// The answer for a path that no route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// This status.
    Status(StatusCode),
    /// Another place.
    Redirect(StatusCode, Arc<str>),
}

/// The client certificates that a site wants (RFC 8446 section 4.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// Certificates of the authorities, PEM; read again when the file changes.
    pub authorities: PathBuf,
    /// Their lists of what is revoked, PEM; read again when the file changes.
    pub revoked: Option<PathBuf>,
    /// Whether a client may do without; one that shows a certificate has to show a good one all the same.
    pub optional: bool,
    /// Whether requests over plain HTTP, which cannot show one, are let in, as nginx does it.
    pub plain_http: bool,
    /// The field in which an HTTP origin gets the subject (RFC 4514); the client's own field of that name goes.
    pub subject_field: Option<HeaderName>,
}

/// What a site's handshakes differ in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteTls {
    /// The lowest version, if not the node's.
    pub min_version: Option<TlsVersion>,
    /// The pair `<name>.crt` and `<name>.key` to serve, if not the one that the host's name leads to.
    pub certificate: Option<Arc<str>>,
    /// Whether `default.crt` will do where the host has no pair of its own.
    pub trust_default: bool,
}

/// A version of TLS that may be the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// The ports a site listens on, from 1: on others it is unknown. `None`: those that no site has for its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// For plain HTTP.
    pub http: Option<u16>,
    /// For HTTPS.
    pub https: Option<u16>,
}

/// One entry of a list by which clients are let in or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkRule {
    /// Whom it is about.
    pub network: IpNet,
    /// Whether they may.
    pub allow: bool,
}

/// User names and passwords (RFC 7617).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// What the client's dialogue shows; no quotes or control characters.
    pub realm: Arc<str>,
    /// Who may.
    pub users: Users,
}

/// Where names and hashed passwords are: lines `name:hash` as `htpasswd` writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Users {
    /// In a file, which is read again when it changes.
    File(PathBuf),
    /// Here.
    Inline(Arc<str>),
}

/// A token bucket for each client address (for IPv6 each /64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests that come back to the bucket within `period`; at least 1.
    pub requests: u32,
    /// Longer than nothing.
    pub period: Duration,
    /// What the bucket holds; at least 1.
    pub burst: u32,
}

/// Limits in place of the origin's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// TCP and TLS set-up.
    pub connect: Option<Duration>,
    /// Between two reads of a response.
    pub read: Option<Duration>,
}

/// The cache in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSwitch {
    /// Responses are stored as they allow.
    #[default]
    On,
    /// Nothing is stored or reused.
    Off,
    /// Stored as they allow, and for this long if they tell no lifetime.
    Ttl(Duration),
}

/// What happens to requests that no site takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownHosts {
    /// What they are answered.
    pub answer: UnknownHost,
    /// A host pattern of a site, as written there, which takes them in.
    pub default_host: Option<Arc<str>>,
    /// An HTML page in place of the plain text of a 5xx answer.
    pub page: Option<Arc<str>>,
    /// A folder with the ACME challenges of any host, for plain HTTP.
    pub challenges: Option<PathBuf>,
}

/// The answer to a request for a host that no site names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownHost {
    /// This status.
    Status(StatusCode),
    /// None: the connection is closed.
    Drop,
}

/// Who stands between the clients and this node, and what of their words counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downstream {
    /// Proxies whose `X-Forwarded-For` tells the client's address, and whose other forwarding fields count.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the `X-Forwarded-Host`, `-Proto` and `-Port` of everyone count, as nginx-proxy's `TRUST_DOWNSTREAM_PROXY`
    /// has it. The client's address is never taken from one who is not in the list.
    pub trust_everyone: bool,
}

impl Default for Https {
    fn default() -> Self {
        Self {
            method: HttpsMethod::default(),
            non_get_redirect: StatusCode::PERMANENT_REDIRECT,
            port: 443,
            http_on_missing_certificate: false,
        }
    }
}

impl HttpsMethod {
    /// Each, with the word that configuration has for it.
    pub const ALL: [Self; 4] = [Self::Redirect, Self::NoRedirect, Self::NoHttp, Self::NoHttps];

    /// nginx-proxy's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::NoRedirect => "noredirect",
            Self::NoHttp => "nohttp",
            Self::NoHttps => "nohttps",
        }
    }
}

impl Https {
    /// The method for a host of which it is known whether it has a certificate.
    pub fn effective(&self, has_certificate: bool) -> HttpsMethod {
        match self.method {
            HttpsMethod::Redirect | HttpsMethod::NoHttp if !has_certificate && self.http_on_missing_certificate => {
                HttpsMethod::NoRedirect
            }
            method => method,
        }
    }
}

impl Canonical {
    /// The host that a request for `host` is to go to instead; `None` where it is the right one already, an address, or a
    /// name of one label.
    pub fn other(self, host: &str) -> Option<String> {
        let has_www = host.strip_prefix("www.").filter(|apex| apex.contains('.'));
        let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
        match (self, has_www) {
            (Self::Apex, Some(apex)) => Some(apex.to_owned()),
            (Self::Www, None) if host.contains('.') && !is_address && !host.starts_with("www.") => {
                Some(format!("www.{host}"))
            }
            _ => None,
        }
    }
}

impl TlsVersion {
    /// What a policy by one of nginx-proxy's names comes to (`Mozilla-…`, `AWS-…`), and whether it allowed more than there
    /// is here: TLS below 1.2, or key exchange by DHE or RSA. `None`: there is no such policy.
    pub fn of_policy(name: &str) -> Option<(Self, bool)> {
        match name {
            "Mozilla-Modern" | "AWS-TLS13-1-3-2021-06" | "AWS-TLS13-1-3-FIPS-2023-04" => Some((Self::Tls13, false)),
            "Mozilla-Intermediate"
            | "AWS-TLS13-1-2-Res-2021-06"
            | "AWS-FS-1-2-Res-2019-08"
            | "AWS-FS-1-2-Res-2020-10" => Some((Self::Tls12, false)),
            "Mozilla-Old" => Some((Self::Tls12, true)),
            _ if name.starts_with("AWS-") => Some((Self::Tls12, true)),
            _ => None,
        }
    }
}

impl Default for NoRoute {
    fn default() -> Self {
        Self::Status(StatusCode::NOT_FOUND)
    }
}

impl Default for SiteTls {
    fn default() -> Self {
        Self { min_version: None, certificate: None, trust_default: true }
    }
}

impl Default for UnknownHosts {
    fn default() -> Self {
        Self {
            answer: UnknownHost::Status(StatusCode::SERVICE_UNAVAILABLE),
            default_host: None,
            page: None,
            challenges: None,
        }
    }
}

impl NetworkRule {
    /// Private networks only, as nginx-proxy's `NETWORK_ACCESS=internal` has it.
    pub fn internal() -> Vec<Self> {
        let v4 = |a, b, length| IpNet::new_assert(IpAddr::from([a, b, 0, 0]), length);
        let v6 = IpNet::new_assert(IpAddr::from([0xfc00, 0, 0, 0, 0, 0, 0, 0_u16]), 7);
        let inside = [v4(127, 0, 8), v4(10, 0, 8), v4(192, 168, 16), v4(172, 16, 12), v6];
        let mut rules: Vec<Self> = inside.map(|network| Self { network, allow: true }).into();
        rules.extend(Self::everyone_else(false));
        rules
    }

    /// The two entries that hold every address.
    pub fn everyone_else(allow: bool) -> [Self; 2] {
        let zero = [IpAddr::from([0, 0, 0, 0]), IpAddr::from([0_u16; 8])];
        zero.map(|address| Self { network: IpNet::new_assert(address, 0), allow })
    }

    /// Whether `rules` let `client` in. An address that is not known is in no network, and so only let in where there are
    /// no rules.
    pub fn admit(rules: &[Self], client: Option<IpAddr>) -> bool {
        match client {
            _ if rules.is_empty() => true,
            None => false,
            Some(client) => {
                let client = client.to_canonical();
                rules.iter().find(|rule| rule.network.contains(&client)).is_none_or(|rule| rule.allow)
            }
        }
    }
}

impl Downstream {
    /// Whether `peer` is a proxy whose `X-Forwarded-For` counts.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }

    /// Whether anybody's forwarding fields count: if not, there is nothing to look for in a request.
    pub fn listens(&self) -> bool {
        self.trust_everyone || !self.trusted_proxies.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_certificate_can_leave_plain_http_open() {
        use HttpsMethod as M;
        for (method, open, has, effective) in [
            (M::Redirect, true, false, M::NoRedirect),
            (M::NoHttp, true, false, M::NoRedirect),
            (M::NoHttps, true, false, M::NoHttps),
            (M::NoRedirect, true, false, M::NoRedirect),
            (M::Redirect, false, false, M::Redirect),
            (M::Redirect, true, true, M::Redirect),
            (M::NoHttp, true, true, M::NoHttp),
        ] {
            let https = Https { method, http_on_missing_certificate: open, ..Https::default() };
            assert_eq!(https.effective(has), effective, "{method:?} {open} {has}");
        }
    }

    #[test]
    fn one_of_two_names_is_the_one() {
        for (canonical, host, other) in [
            (Canonical::Www, "example.com", Some("www.example.com")),
            (Canonical::Www, "www.example.com", None),
            (Canonical::Www, "localhost", None),
            (Canonical::Www, "192.0.2.1", None),
            (Canonical::Www, "[::1]", None),
            (Canonical::Apex, "www.example.com", Some("example.com")),
            (Canonical::Apex, "example.com", None),
            (Canonical::Apex, "www.com", None),
        ] {
            assert_eq!(canonical.other(host).as_deref(), other, "{canonical:?} {host}");
        }
    }

    #[test]
    fn networks_are_asked_in_order() {
        let internal = NetworkRule::internal();
        for (address, admitted) in [
            ("127.0.0.1", true),
            ("10.255.0.1", true),
            ("192.168.1.1", true),
            ("172.16.0.1", true),
            ("172.31.255.255", true),
            ("172.32.0.1", false),
            ("192.169.0.1", false),
            ("::ffff:10.0.0.1", true),
            ("8.8.8.8", false),
            ("fd00::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(NetworkRule::admit(&internal, address.parse().ok()), admitted, "{address}");
        }
        assert!(!NetworkRule::admit(&internal, None));
        assert!(NetworkRule::admit(&[], None));
        let rules = |list: &[(&str, bool)]| -> Vec<NetworkRule> {
            list.iter().map(|(n, allow)| NetworkRule { network: n.parse().unwrap(), allow: *allow }).collect()
        };
        let ordered = rules(&[("192.0.2.7/32", false), ("192.0.2.0/24", true), ("0.0.0.0/0", false)]);
        for (address, admitted) in
            [("192.0.2.7", false), ("192.0.2.8", true), ("192.0.3.1", false), ("2001:db8::1", true)]
        {
            assert_eq!(NetworkRule::admit(&ordered, address.parse().ok()), admitted, "{address}");
        }
    }
}
