//! What requests are routed by: immutable once built, swapped whole on a reload.

use super::access::Access;
use super::compress::Compression;
use super::cors::Cors;
use super::handshakes::{SiteCertificates, SiteNames};
use super::headers::{HeaderRules, Security};
use super::target::Scheme;
use super::traffic::{Live, SiteTraffic};
use crate::cache::rules::CacheRules;
use crate::metrics::Metrics;
use crate::origin::Origin;
use crate::route::settings::{Downstream, HttpsMethod, Ports, RouteSettings, SiteSettings, UnknownHosts};
use crate::route::traffic::Rewrite;
use crate::route::{Match, PathPattern, RouteTable};
use crate::tls::client::Authorities;
use crate::types::Secret;
use http::{HeaderValue, Method, StatusCode};
use prometheus::{Histogram, IntCounter, IntCounterVec};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::field::CacheOutcome;

/// The routes of every site, each leading to a [`RouteRule`].
pub struct Plane {
    table: RouteTable<Arc<RouteRule>>,
    /// In the table's order.
    sites: Vec<Arc<SitePolicy>>,
    node: NodeRules,
    default_site: Option<usize>,
    /// Listening ports that are a site's own.
    own_ports: Vec<(Scheme, u16)>,
    unrouted: Arc<SiteHandles>,
    debug_token: Option<Secret>,
    generation: u64,
}

/// What holds for every site.
#[derive(Default)]
pub struct NodeRules {
    /// Proxies before this node.
    pub downstream: Downstream,
    /// What requests get that no site takes.
    pub unknown_hosts: UnknownHosts,
    /// The certificates that handshakes are served from, and the names of the sites for them; `None`: no HTTPS.
    pub tls: Option<(Arc<SiteCertificates>, Arc<SiteNames>)>,
}

/// What a site wants of requests, whatever their path.
pub struct SitePolicy {
    /// The settings.
    pub settings: Arc<SiteSettings>,
    /// Whose certificates its clients have to show.
    pub authorities: Option<Authorities>,
    /// Its traffic rules, if it has any.
    pub traffic: Option<Arc<SiteTraffic>>,
}

impl SitePolicy {
    fn new(settings: &Arc<SiteSettings>, traffic: Option<Arc<SiteTraffic>>) -> Self {
        let authorities = settings.client_certificates.as_ref();
        let authorities = authorities.map(|c| Authorities::new(c.authorities.clone(), c.revoked.clone()));
        Self { settings: Arc::clone(settings), authorities, traffic }
    }

    /// Whether a client may do without a certificate.
    pub fn may_do_without(&self, scheme: Scheme) -> bool {
        let over_http = scheme == Scheme::Http;
        let wanted = self.settings.client_certificates.as_ref();
        wanted.is_none_or(|wanted| wanted.optional || wanted.plain_http && over_http)
    }
}

/// What happens to the requests of one route.
pub struct RouteRule {
    /// The site it belongs to.
    pub site: Arc<SiteHandles>,
    /// Where the route stands: file and line, or the containers that ask for it.
    pub source: Arc<str>,
    /// The paths that lead here.
    pub path: PathPattern,
    /// Where its responses come from.
    pub origin: Arc<Origin>,
    /// Whether responses may be stored and reused.
    pub cache: bool,
    /// How: the key, who is kept apart, for how long.
    pub rules: CacheRules,
    /// What is done to the fields of requests and responses.
    pub headers: HeaderRules,
    /// The security fields of responses.
    pub security: Option<Security>,
    /// Which sites' scripts may read responses.
    pub cors: Option<Cors>,
    /// How responses are compressed.
    pub compression: Option<Compression>,
    /// What the site does with every request, whatever the path.
    pub site_settings: Arc<SiteSettings>,
    /// Access, limits and the path that the origin gets.
    pub settings: RouteSettings,
    /// What of them says who may ask.
    pub access: Arc<Access>,
    /// The site's traffic rules, if it has any.
    pub traffic: Option<Arc<SiteTraffic>>,
    /// For each of these rules, and each group that it forwards to, this route before the group's origin.
    pub variants: Vec<Vec<Arc<RouteRule>>>,
    /// What tells the stored responses of a group from those of others.
    pub key_tag: Option<Arc<str>>,
    /// Largest request body in bytes.
    pub max_request_body: Option<u64>,
    /// Whether responses tell their timing in `Server-Timing`.
    pub server_timing: bool,
}

impl RouteRule {
    /// Whether something is decided for each request by this scheme beyond what the cache, its key and the fields of
    /// messages are: what answers from the store alone leaves such routes to the phases.
    pub fn needs_phases(&self, scheme: Scheme) -> bool {
        // Destructured, so that a new setting has to be placed on one side or the other.
        let SiteSettings {
            https,
            // See `hsts`.
            hsts: _,
            canonical,
            no_route: _,
            client_certificates,
            tls,
            ports,
            // No challenge is ever stored.
            challenges: _,
            rules,
        } = &*self.site_settings;
        let RouteSettings { networks: _, auth: _, rate_limit: _, replace_prefix: _, timeouts: _ } = &self.settings;
        let by_scheme = match https.method {
            HttpsMethod::NoRedirect => false,
            HttpsMethod::Redirect | HttpsMethod::NoHttp => scheme == Scheme::Http,
            HttpsMethod::NoHttps => true,
        };
        by_scheme
            || canonical.is_some()
            || client_certificates.is_some()
            || !tls.trust_default
            || *ports != Ports::default()
            || !rules.is_empty()
            || !self.access.is_open()
    }

    /// `Strict-Transport-Security` of the site's answers by this scheme, as long as the host has a certificate.
    pub fn hsts(&self, scheme: Scheme) -> Option<&HeaderValue> {
        let SiteSettings { https, hsts, .. } = &*self.site_settings;
        let redirects = matches!(https.method, HttpsMethod::Redirect | HttpsMethod::NoHttp);
        hsts.as_ref().filter(|_| redirects && scheme == Scheme::Https)
    }

    /// Whether all of the query is part of the key.
    pub fn whole_query_counts(&self) -> bool {
        let key = &self.rules.key;
        !key.no_query && key.only.is_none() && key.ignore.is_empty() && !key.ignore_tracking
    }

    /// The path that the origin gets for `path`; `None`: the same.
    pub fn path_for_origin(&self, path: &str) -> Option<Box<str>> {
        match (&self.path, &self.settings.replace_prefix) {
            (PathPattern::Prefix(prefix), Some(by)) => {
                Rewrite::Prefix { from: Arc::clone(prefix), to: Arc::clone(by) }.apply(path).map(Into::into)
            }
            _ => None,
        }
    }
}

/// A site's name and its metric handles.
pub struct SiteHandles {
    name: Arc<str>,
    response_bytes: IntCounter,
    request_bytes: IntCounter,
    seconds: Histogram,
    requests: IntCounterVec,
    /// GET by status class and cache outcome: what nearly every request of an edge is, resolved once.
    gets: [[OnceLock<IntCounter>; CacheOutcome::ALL.len()]; STATUS_CLASSES.len()],
}

const STATUS_CLASSES: [&str; 6] = ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Plane {
    /// Wraps a table; `metrics` gives the handles for requests that no site takes.
    pub fn new(table: RouteTable<Arc<RouteRule>>, metrics: &Metrics) -> Self {
        static GENERATIONS: AtomicU64 = AtomicU64::new(0);
        let defaults = Arc::new(SiteSettings::default());
        let policy = |first: Option<&Arc<RouteRule>>| {
            let settings = first.map_or(&defaults, |rule| &rule.site_settings);
            Arc::new(SitePolicy::new(settings, first.and_then(|rule| rule.traffic.clone())))
        };
        let sites: Vec<_> = table.routes().map(|mut routes| policy(routes.next())).collect();
        let ports = sites.iter().flat_map(|site| {
            let Ports { http, https } = site.settings.ports;
            http.map(|port| (Scheme::Http, port)).into_iter().chain(https.map(|port| (Scheme::Https, port)))
        });
        Self {
            own_ports: ports.collect(),
            table,
            sites,
            node: NodeRules::default(),
            default_site: None,
            unrouted: Arc::new(SiteHandles::new("-".into(), metrics)),
            debug_token: None,
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The same under these rules.
    pub fn with_node(mut self, node: NodeRules) -> Self {
        let default = node.unknown_hosts.default_host.as_deref();
        self.default_site = default.and_then(|pattern| self.table.hosts().site_of_pattern(pattern));
        Self { node, ..self }
    }

    /// Tells the handshakes that begin from now on of the sites.
    pub(super) fn announce(&self) {
        if let Some((certificates, names)) = &self.node.tls {
            certificates.swap(Arc::clone(names));
        }
    }

    /// Proxies before this node.
    pub fn downstream(&self) -> &Downstream {
        &self.node.downstream
    }

    /// What requests get that no site takes.
    pub fn unknown_hosts(&self) -> &UnknownHosts {
        &self.node.unknown_hosts
    }

    /// What handshakes are served from.
    pub fn certificates(&self) -> Option<&SiteCertificates> {
        self.node.tls.as_ref().map(|(certificates, _)| &**certificates)
    }

    /// Whether there are ports on which only some sites are known.
    pub fn has_own_ports(&self) -> bool {
        !self.own_ports.is_empty()
    }

    /// The site that takes a normalised host: its place in the table.
    pub fn site(&self, host: &str) -> Option<usize> {
        self.table.hosts().site(host).or(self.default_site)
    }

    /// What the site wants of requests.
    pub fn policy(&self, site: usize) -> Option<&Arc<SitePolicy>> {
        self.sites.get(site)
    }

    /// The traffic rules of all sites that forward.
    pub fn traffic(&self) -> impl Iterator<Item = &Arc<Live>> {
        self.sites.iter().filter_map(|site| site.traffic.as_ref()).flat_map(|traffic| traffic.live())
    }

    /// The rule of a site for a path.
    pub fn find_in(&self, site: usize, path: &str) -> Option<&Arc<RouteRule>> {
        self.table.find_in(site, path)
    }

    /// Whether the site is known to who connected to this local port.
    pub fn listens(&self, site: usize, scheme: Scheme, local: Option<u16>) -> bool {
        let (false, Some(local)) = (self.own_ports.is_empty(), local) else { return true };
        let ports = self.sites.get(site).map(|site| site.settings.ports).unwrap_or_default();
        let own = if scheme == Scheme::Http { ports.http } else { ports.https };
        match own {
            Some(own) => own == local,
            None => !self.own_ports.contains(&(scheme, local)),
        }
    }

    /// The same, explaining the requests that carry `token`.
    pub fn with_debug_token(self, token: Option<Secret>) -> Self {
        Self { debug_token: token, ..self }
    }

    /// The token by which requests ask to be explained.
    pub fn debug_token(&self) -> Option<&Secret> {
        self.debug_token.as_ref()
    }

    /// A number that no other plane of this process has.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The host pattern that takes a normalised host, as written.
    pub fn host_pattern(&self, host: &str) -> Option<&str> {
        self.table.hosts().host_pattern(host)
    }

    /// Every host pattern that takes a normalised host, with the name of its site; the first is in force.
    pub fn patterns_of(&self, host: &str) -> Vec<(&str, &str)> {
        let site = |site: usize| self.table.routes().nth(site)?.next().map(|rule| &**rule.site.name());
        self.table
            .hosts()
            .patterns_of(host)
            .into_iter()
            .map(|(pattern, at)| (pattern, site(at).unwrap_or("-")))
            .collect()
    }

    /// Every route of a site that takes a path; the first is in force.
    pub fn all_in(&self, site: usize, path: &str) -> impl Iterator<Item = &Arc<RouteRule>> {
        self.table.all_in(site, path)
    }

    /// The rule for a normalised host and a path.
    pub fn find(&self, host: &str, path: &str) -> Match<'_, Arc<RouteRule>> {
        match self.site(host) {
            None => Match::UnknownHost,
            Some(site) => self.table.find_in(site, path).map_or(Match::NoRoute, Match::Route),
        }
    }

    /// The handles for requests that no site takes.
    pub fn unrouted(&self) -> &Arc<SiteHandles> {
        &self.unrouted
    }
}

impl SiteHandles {
    /// Resolves the handles of the site called `name`.
    pub fn new(name: Arc<str>, metrics: &Metrics) -> Self {
        Self {
            response_bytes: metrics.response_bytes.with_label_values(&[&*name]),
            request_bytes: metrics.request_bytes.with_label_values(&[&*name]),
            seconds: metrics.request_seconds.with_label_values(&[&*name]),
            requests: metrics.requests.clone(),
            gets: Default::default(),
            name,
        }
    }

    /// The site's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Counts one finished request.
    pub fn count(&self, done: &Done<'_>) {
        let class = usize::from(done.status.map_or(0, |s| s.as_u16() / 100)).min(STATUS_CLASSES.len() - 1);
        let labels = |method| [&*self.name, method, STATUS_CLASSES[class], done.outcome.as_str()];
        if done.method == Method::GET {
            let slot = &self.gets[class][done.outcome as usize];
            slot.get_or_init(|| self.requests.with_label_values(&labels("GET"))).inc();
        } else {
            self.requests.with_label_values(&labels(method_label(done.method))).inc();
        }
        self.response_bytes.inc_by(done.response_bytes);
        self.request_bytes.inc_by(done.request_bytes);
        self.seconds.observe(done.seconds);
    }
}

/// A finished request, as metrics count it.
pub struct Done<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The status sent; `None` when the client was gone before one could be.
    pub status: Option<StatusCode>,
    /// What the cache did.
    pub outcome: CacheOutcome,
    /// Body bytes sent.
    pub response_bytes: u64,
    /// Body bytes received.
    pub request_bytes: u64,
    /// From the request head to the end.
    pub seconds: f64,
}

/// Methods are the client's text: only the registered ones become label values.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_under_bounded_labels() {
        let metrics = Metrics::new();
        let site = SiteHandles::new("shop".into(), &metrics);
        let method = Method::from_bytes(b"BREW").unwrap();
        for method in [&Method::GET, &method] {
            site.count(&Done {
                method,
                status: Some(StatusCode::OK),
                outcome: CacheOutcome::Hit,
                response_bytes: 10,
                request_bytes: 1,
                seconds: 0.001,
            });
        }
        let text = String::from_utf8(metrics.render()).unwrap();
        for line in [
            r#"selvedge_requests_total{cache="hit",method="GET",site="shop",status_class="2xx"} 1"#,
            r#"selvedge_requests_total{cache="hit",method="other",site="shop",status_class="2xx"} 1"#,
            r#"selvedge_response_bytes_total{site="shop"} 20"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
