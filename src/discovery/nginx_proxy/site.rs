//! What containers ask for, as plain data: the output of the translation.

use super::vhost::Directives;
use crate::route::{HostPattern, PathPattern};
use crate::types::Secret;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// One host and everything that its containers, the files beside them and the proxy's variables say of it.
#[derive(Clone, Debug)]
pub struct Site {
    /// The host as it was written, lower case: `www.example.com`, `*.example.com`, `~^img`.
    pub host: Arc<str>,
    /// The same, parsed.
    pub pattern: HostPattern,
    /// Plain HTTP and HTTPS.
    pub https: HttpsMethod,
    /// Without a usable certificate plain HTTP is served where it would be redirected or refused.
    pub http_on_missing: bool,
    /// Status of redirects to HTTPS for methods other than GET and HEAD: 301, 307 or 308.
    pub non_get_redirect: u16,
    /// `Strict-Transport-Security`; never with [`HttpsMethod::NoRedirect`] or without a certificate.
    pub hsts: Option<String>,
    /// The pair that serves it, by file name.
    pub certificate: Option<Arc<str>>,
    /// The lowest TLS version.
    pub tls: TlsFloor,
    /// Certificates that clients have to show.
    pub client_auth: Option<ClientAuth>,
    /// Who may come.
    pub access: Access,
    /// Own listeners: the ports of `EXTERNAL_HTTP_PORT` and `EXTERNAL_HTTPS_PORT`, where they differ from the proxy's.
    pub ports: Ports,
    /// A certificate that is to be asked for.
    pub acme: Option<Acme>,
    /// Whether `/.well-known/acme-challenge/` is answered before redirects and passwords.
    pub acme_challenge: bool,
    /// Whether `/nginx-proxy-debug` tells how the host was resolved.
    pub debug_endpoint: bool,
    /// Whether responses may be kept.
    pub cache: Caching,
    /// Compress texts.
    pub compress: bool,
    /// Which of `example.com` and `www.example.com` is redirected to the other.
    pub www: Option<Www>,
    /// The most requests of one client.
    pub rate_limit: Option<RateLimit>,
    /// Users beside those of `htpasswd` files: lines as these hold them.
    pub users: Option<Secret>,
    /// Client addresses that may come; empty: all.
    pub allow: Vec<IpNet>,
    /// Purge tags of all its responses.
    pub tags: Vec<String>,
    /// Limits and fields of the whole host: its variables, over its `vhost.d` file.
    pub directives: Directives,
    /// By path; the longest prefix wins.
    pub paths: Vec<PathRoute>,
    /// Nothing of this host can be served, for this reason: every request is answered 503.
    pub refused: Option<String>,
    /// The containers that ask for it, oldest first.
    pub containers: Vec<Arc<str>>,
    /// The same for listings: containers by name, tasks by service.
    pub source: Arc<str>,
}

/// One path of a host.
#[derive(Clone, Debug)]
pub struct PathRoute {
    /// As it was written.
    pub path: Arc<str>,
    /// The same, parsed.
    pub pattern: PathPattern,
    /// What the matched prefix becomes on the way to the container; `None`: it stays.
    pub dest: Option<String>,
    /// What the containers speak.
    pub proto: Proto,
    /// Those that get requests.
    pub servers: Vec<Server>,
    /// Those that do not, and why.
    pub left_out: Vec<(Arc<str>, &'static str)>,
    /// How requests are spread.
    pub balance: Balance,
    /// Idle connections kept to the servers; `None`: none.
    pub keepalive: Option<u32>,
    /// The `htpasswd` file and its realm.
    pub auth: Option<BasicAuth>,
    /// What `vhost.d` says of this location.
    pub directives: Directives,
}

impl PathRoute {
    /// Every path, and nobody to ask: what a host gets that cannot be served.
    pub fn unserved() -> Self {
        Self {
            path: "/".into(),
            pattern: PathPattern::Prefix("/".into()),
            dest: None,
            proto: Proto::default(),
            servers: Vec::new(),
            left_out: Vec::new(),
            balance: Balance::default(),
            keepalive: None,
            auth: None,
            directives: Directives::default(),
        }
    }
}

/// One container's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The container's name.
    pub container: Arc<str>,
    /// Its address in a network that it shares with the edge.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Why this one: the network, and where the port came from.
    pub why: String,
}

/// Plain HTTP beside HTTPS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpsMethod {
    /// Plain HTTP is redirected.
    #[default]
    Redirect,
    /// Both are served.
    NoRedirect,
    /// Plain HTTP is answered 503.
    NoHttp,
    /// There is no HTTPS: a handshake ends as for an unknown host.
    NoHttps,
}

impl HttpsMethod {
    /// As `HTTPS_METHOD` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::NoRedirect => "noredirect",
            Self::NoHttp => "nohttp",
            Self::NoHttps => "nohttps",
        }
    }
}

/// The lowest TLS version of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsFloor {
    /// 1.2 and 1.3.
    #[default]
    Tls12,
    /// 1.3 alone.
    Tls13,
}

/// Client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// File name of the authorities in the certificate folder.
    pub ca: String,
    /// File name of the revocation list.
    pub crl: Option<String>,
    /// A client without one gets in, and the container is told.
    pub optional: bool,
}

/// Who may come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Everyone.
    #[default]
    External,
    /// Private addresses alone; others get 403.
    Internal,
}

/// Ports of a host's own listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// For plain HTTP.
    pub http: Option<u16>,
    /// For HTTPS.
    pub https: Option<u16>,
}

/// What a container wants of certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acme {
    /// The names of one certificate, or of one each.
    pub hosts: Vec<String>,
    /// One certificate for each name.
    pub single_domain: bool,
    /// The account's address.
    pub email: Option<String>,
    /// The authority's directory.
    pub ca: Option<String>,
    /// `HTTP-01` or `DNS-01`.
    pub challenge: Option<String>,
    /// Key type and size.
    pub key: Option<String>,
    /// The profile asked for.
    pub profile: Option<String>,
    /// Days after which it is renewed.
    pub renew_after: Option<u16>,
    /// Let's Encrypt's staging authority.
    pub staging: bool,
}

/// Whether responses may be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// Nothing is kept, as nginx-proxy keeps nothing.
    #[default]
    Off,
    /// What RFC 9111 allows.
    On,
    /// The same; what tells no lifetime of its own is fresh for this long.
    Default(Duration),
}

/// Where requests for a service of a swarm go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SwarmAddress {
    /// To its tasks: balanced, retried and left out by the edge.
    #[default]
    Tasks,
    /// To its virtual address, behind which the kernel chooses.
    Vip,
}

/// Which name is redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Www {
    /// `example.com` to `www.example.com`.
    Add,
    /// `www.example.com` to `example.com`.
    Strip,
}

/// The most requests of one client address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// So many.
    pub requests: u32,
    /// In this time.
    pub per: Duration,
    /// And so many at once beyond it.
    pub burst: u32,
}

/// What containers speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proto {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP over TLS; certificates of containers are not verified.
    Https,
    /// HTTP/2 without TLS.
    Grpc,
    /// HTTP/2 over TLS.
    Grpcs,
}

impl Proto {
    /// As `VIRTUAL_PROTO` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
        }
    }
}

/// How requests are spread over the servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastConnections,
    /// By the client's address.
    IpHash,
    /// By this text with nginx's variables in it.
    Hash {
        /// As in `$request_uri`.
        key: String,
        /// Few clients move when a server comes or goes.
        consistent: bool,
    },
    /// Any, or the better of two.
    Random {
        /// The better of two by requests under way.
        two: bool,
    },
}

/// Passwords of a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// File name in the `htpasswd` folder.
    pub file: String,
    /// The realm.
    pub realm: String,
}

/// What is answered for hosts that nobody asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fallback {
    /// This host's site answers.
    pub default_host: Option<Arc<str>>,
    /// `/` of known hosts whose containers take other paths only.
    pub default_root: DefaultRoot,
    /// An HTML page for hosts that nobody asks for.
    pub error_page: Option<Arc<str>>,
    /// ACME challenges for such hosts are answered from the folder.
    pub challenges: bool,
}

/// What is answered for `/` where no container takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultRoot {
    /// This status.
    Status(u16),
    /// A redirect to this address.
    Redirect(u16, String),
    /// Nothing of its own: as every other path without a container.
    None,
}

impl Default for DefaultRoot {
    fn default() -> Self {
        Self::Status(404)
    }
}

/// Something an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// How bad it is.
    pub level: Level,
    /// The host concerned.
    pub host: Option<Arc<str>>,
    /// The container that caused it.
    pub container: Option<Arc<str>>,
    /// What is the matter, and what to do.
    pub text: String,
}

/// How bad a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The host, or a path of it, is not served as asked for.
    Problem,
    /// It is served, perhaps otherwise than meant.
    Warning,
    /// Good to know.
    Info,
}

impl Level {
    /// For logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}
