//! One host out of all that its containers say of it.

use super::keys::{Key, Settings, boolean};
use super::site::{Access, Balance, BasicAuth, Caching, HttpsMethod, PathRoute, Ports, Proto, Server, Site};
use super::vhost::{self, Directives};
use super::{Around, Claimed, Notes, acme, address, balance, own, proxy, sha1, tls};
use crate::discovery::State;
use crate::route::{HostPattern, PathPattern};
use crate::types::Secret;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the parts of one host are made from.
struct Host<'a> {
    name: Arc<str>,
    /// The name in file names: of a regex its SHA-1.
    file_name: String,
    claims: &'a [Claimed<'a>],
    around: &'a Around,
}

/// The site, or `None` for what is no host.
pub(super) fn site(name: &str, claims: &[Claimed<'_>], around: &Around, notes: &mut Notes) -> Option<Site> {
    let containers = containers(claims);
    let name: Arc<str> = name.into();
    let pattern: HostPattern = match name.parse() {
        Ok(pattern) => pattern,
        Err(error) => {
            notes.problem(Some(&name), containers.first(), format!("VIRTUAL_HOST: {error}"));
            return None;
        }
    };
    let file_name = if name.starts_with('~') { sha1(&name) } else { name.to_string() };
    let host = Host { name: Arc::clone(&name), file_name, claims, around };
    let (certificate, https, hsts) = host.https(notes);
    let policy = host.text("SSL_POLICY", notes).unwrap_or(&around.proxy.ssl_policy);
    let (floor, odd) = tls::policy(policy);
    if let Some(text) = odd {
        notes.warn(Some(&name), None, text);
    }
    let mut directives = host.server_directives(notes);
    for text in own::directives(&mut |key| host.text(key, notes), &mut directives) {
        notes.warn(Some(&name), None, text);
    }
    let (paths, refused) = host.paths(notes);
    let verify = host.text("SSL_VERIFY_CLIENT", notes);
    let compress = directives.gzip.unwrap_or(false);
    host.unserved(notes);
    Some(Site {
        https,
        hsts,
        http_on_missing: host.flag("ENABLE_HTTP_ON_MISSING_CERT", around.proxy.http_on_missing_cert, notes),
        tls: floor,
        client_auth: tls::client_auth(&around.files.certificates, &host.file_name, verify),
        non_get_redirect: host
            .parsed("NON_GET_REDIRECT", proxy::redirect_status, notes)
            .unwrap_or(around.proxy.non_get_redirect),
        access: host.parsed("NETWORK_ACCESS", access, notes).unwrap_or_default(),
        ports: host.ports(notes),
        acme: host.acme(notes),
        acme_challenge: host.flag("ACME_HTTP_CHALLENGE_LOCATION", around.proxy.acme_challenge, notes)
            && around.files.challenges
            && !matches!(https, HttpsMethod::NoHttp | HttpsMethod::NoHttps),
        debug_endpoint: host.flag("DEBUG_ENDPOINT", around.proxy.debug_endpoint, notes),
        cache: host.parsed("SELVEDGE_CACHE", own::caching, notes).unwrap_or(Caching::Off),
        compress,
        www: host.parsed("SELVEDGE_WWW", own::www, notes).flatten(),
        rate_limit: host.parsed("SELVEDGE_RATE_LIMIT", own::rate_limit, notes),
        users: host.text("SELVEDGE_BASIC_AUTH", notes).map(|text| Secret::new(text.replace([',', ' '], "\n"))),
        allow: host.parsed("SELVEDGE_ALLOW", own::networks, notes).unwrap_or_default(),
        tags: host.text("SELVEDGE_TAGS", notes).map(own::tags).unwrap_or_default(),
        directives,
        paths,
        refused,
        certificate,
        pattern,
        host: name,
        source: source(claims),
        containers,
    })
}

fn containers(claims: &[Claimed<'_>]) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for claimed in claims {
        let name = claimed.settings.container.name.as_str();
        if !names.iter().any(|known| **known == *name) {
            names.push(name.into());
        }
    }
    names
}

/// Containers and services by name; of a service how many tasks there are.
fn source(claims: &[Claimed<'_>]) -> Arc<str> {
    let (mut plain, mut services): (Vec<&str>, BTreeMap<&str, BTreeSet<&str>>) = Default::default();
    for claimed in claims {
        let container = claimed.settings.container;
        match &container.replica {
            None if plain.contains(&container.name.as_str()) => {}
            None => plain.push(&container.name),
            Some(replica) => {
                let tasks = services.entry(replica.service.as_str()).or_default();
                tasks.extend(replica.node.as_ref().map(|_| container.id.as_str()));
            }
        }
    }
    let mut parts = Vec::new();
    if !plain.is_empty() {
        let noun = if plain.len() == 1 { "container" } else { "containers" };
        parts.push(format!("{noun} {}", plain.join(", ")));
    }
    parts.extend(services.into_iter().map(|(service, tasks)| match tasks.len() {
        0 => format!("service {service}"),
        1 => format!("service {service} (1 task)"),
        n => format!("service {service} ({n} tasks)"),
    }));
    parts.join("; ").into()
}

fn access(text: &str) -> Result<Access, String> {
    match text.to_ascii_lowercase().as_str() {
        "external" => Ok(Access::External),
        "internal" => Ok(Access::Internal),
        _ => Err("neither external nor internal".to_owned()),
    }
}

impl<'a> Host<'a> {
    /// Each container of the host once, the oldest first.
    fn settings(&self) -> impl DoubleEndedIterator<Item = &'a Settings<'a>> {
        let mut seen: Vec<&'a Settings<'a>> = Vec::new();
        for claimed in self.claims {
            if !seen.iter().any(|s| std::ptr::eq(*s, claimed.settings)) {
                seen.push(claimed.settings);
            }
        }
        seen.into_iter()
    }

    /// The value on which the oldest container that has one decides; others that differ are told.
    fn text(&self, key: Key, notes: &mut Notes) -> Option<&'a str> {
        let given = self.settings().filter_map(|s| Some((s.container.name.as_str(), s.get(key)?)));
        decide(&self.name, key, given, notes)
    }

    fn parsed<T>(&self, key: Key, read: impl Fn(&str) -> Result<T, String>, notes: &mut Notes) -> Option<T> {
        let text = self.text(key, notes)?;
        read(text).map_err(|reason| notes.warn(Some(&self.name), None, unusable(key, text, &reason))).ok()
    }

    fn flag(&self, key: Key, default: bool, notes: &mut Notes) -> bool {
        let read = |text: &str| match text {
            "legacy" => Ok(true),
            _ => boolean(text).ok_or_else(|| "neither true nor false".to_owned()),
        };
        self.parsed(key, read, notes).unwrap_or(default)
    }

    /// Certificate, what is done with plain HTTP, and HSTS.
    fn https(&self, notes: &mut Notes) -> (Option<Arc<str>>, HttpsMethod, Option<String>) {
        let proxy = &self.around.proxy;
        let trust = self.flag("TRUST_DEFAULT_CERT", proxy.trust_default_cert, notes);
        let cert_name = self.text("CERT_NAME", notes);
        let files = &self.around.files.certificates;
        let certificate =
            tls::certificate(files, &self.name, &self.file_name, cert_name, trust).unwrap_or_else(|text| {
                notes.warn(Some(&self.name), None, text);
                None
            });
        if certificate.as_ref().is_some_and(|name| files.contains(&format!("{name}.dhparam.pem"))) {
            let text =
                "the .dhparam.pem beside its certificate has no use: there is no finite-field Diffie-Hellman here";
            notes.info(Some(&self.name), None, text.to_owned());
        }
        let asked = self.parsed("HTTPS_METHOD", proxy::https_method, notes).unwrap_or(proxy.https);
        let on_missing = self.flag("ENABLE_HTTP_ON_MISSING_CERT", proxy.http_on_missing_cert, notes);
        let missing = certificate.is_none() && on_missing;
        let method = match asked {
            HttpsMethod::Redirect | HttpsMethod::NoHttp if missing => HttpsMethod::NoRedirect,
            other => other,
        };
        let hsts = match self.text("HSTS", notes) {
            Some(text) => proxy::hsts(text),
            None => proxy.hsts.clone(),
        };
        let serves = certificate.is_some() && !matches!(method, HttpsMethod::NoRedirect | HttpsMethod::NoHttps);
        (certificate, method, hsts.filter(|_| serves))
    }

    /// A multiports value wins for the whole host.
    fn ports(&self, notes: &mut Notes) -> Ports {
        let mut decide_port =
            |key: Key, own: u16, of: for<'c> fn(&'c Claimed<'a>) -> Option<&'c Result<u16, String>>| {
                let mut given: Vec<(bool, &str, u16)> = Vec::new();
                for claimed in self.claims {
                    let container = claimed.settings.container.name.as_str();
                    match of(claimed) {
                        Some(Ok(port)) => given.push((claimed.claim.multiports, container, *port)),
                        Some(Err(reason)) => notes.warn(Some(&self.name), Some(&container.into()), reason.clone()),
                        None => {}
                    }
                }
                let multiports = given.iter().any(|(multiports, ..)| *multiports);
                let given = given.into_iter().filter(|(m, ..)| *m == multiports).map(|(_, name, port)| (name, port));
                decide(&self.name, key, given, notes).filter(|port| *port != own)
            };
        let proxy = &self.around.proxy;
        Ports {
            http: decide_port("EXTERNAL_HTTP_PORT", proxy.http_port, |c| c.claim.external_http.as_ref()),
            https: decide_port("EXTERNAL_HTTPS_PORT", proxy.https_port, |c| c.claim.external_https.as_ref()),
        }
    }

    fn acme(&self, notes: &mut Notes) -> Option<super::Acme> {
        let (settings, wanted) = self.settings().find_map(|settings| {
            let container: Arc<str> = settings.container.name.as_str().into();
            let wanted = acme::read(settings, &mut |text| notes.warn(Some(&self.name), Some(&container), text))?;
            wanted.hosts.iter().any(|host| **host == *self.name).then_some((settings, wanted))
        })?;
        let container: Arc<str> = settings.container.name.as_str().into();
        let text =
            "ACME_HOST asks for a certificate; none is issued here yet: put the pair into the certificate folder";
        notes.warn(Some(&self.name), Some(&container), text.to_owned());
        Some(wanted)
    }

    /// Settings that are understood and have nothing to act on.
    fn unserved(&self, notes: &mut Notes) {
        let http3 = self.flag("HTTP3_ENABLE", false, notes);
        if http3 {
            let text = "http3.enable is true, but HTTP/3 is not spoken here; clients stay with HTTP/2";
            notes.warn(Some(&self.name), None, text.to_owned());
        }
        if self.flag("HTTP2_ENABLE", self.around.proxy.http2, notes) != self.around.proxy.http2 {
            let text = "http2.enable cannot differ from host to host: a connection may serve several";
            notes.warn(Some(&self.name), None, text.to_owned());
        }
        if self.text("SERVER_TOKENS", notes).is_some() {
            let text = "SERVER_TOKENS has nothing to do: the edge adds no `Server` field";
            notes.info(Some(&self.name), None, text.to_owned());
        }
        if self.text("VIRTUAL_ROOT", notes).is_some() {
            notes.info(Some(&self.name), None, "VIRTUAL_ROOT belongs to fastcgi, which is not spoken here".to_owned());
        }
    }

    fn server_directives(&self, notes: &mut Notes) -> Directives {
        self.file(&[self.file_name.clone(), "default".to_owned()], notes)
    }

    fn location_directives(&self, path: &str, notes: &mut Notes) -> Directives {
        let (host, digest) = (&self.file_name, sha1(path));
        for name in [format!("{host}_{digest}_location_override"), format!("{host}_location_override")] {
            if self.around.files.vhost.contains_key(&name) {
                let text =
                    format!("vhost.d/{name} replaces a whole location in nginx's own words; it is not translated");
                notes.problem(Some(&self.name), None, text);
            }
        }
        let names = [format!("{host}_{digest}_location"), format!("{host}_location"), "default_location".to_owned()];
        self.file(&names, notes)
    }

    /// The first of these files that there is.
    fn file(&self, names: &[String], notes: &mut Notes) -> Directives {
        let found = names.iter().find_map(|name| Some((name, self.around.files.vhost.get(name)?)));
        let Some((name, text)) = found else { return Directives::default() };
        let (directives, untranslated) = vhost::parse(text);
        for line in untranslated {
            notes.problem(Some(&self.name), None, format!("vhost.d/{name} {line}"));
        }
        directives
    }

    /// The paths, and why the whole host is refused if it is.
    fn paths(&self, notes: &mut Notes) -> (Vec<PathRoute>, Option<String>) {
        let mut by_path: BTreeMap<&str, Vec<&Claimed<'a>>> = BTreeMap::new();
        for claimed in self.claims {
            by_path.entry(claimed.claim.path.as_str()).or_default().push(claimed);
        }
        let mut refused = None;
        let mut routes = Vec::new();
        for (path, claims) in by_path {
            match self.path(path, &claims, notes) {
                Ok(route) => routes.push(route),
                Err(Refusal::Path(text)) => notes.problem(Some(&self.name), None, text),
                Err(Refusal::Host(text)) => {
                    notes.problem(Some(&self.name), None, text.clone());
                    refused.get_or_insert(text);
                }
            }
        }
        (routes, refused)
    }

    fn path(&self, path: &str, claims: &[&Claimed<'a>], notes: &mut Notes) -> Result<PathRoute, Refusal> {
        let pattern = path_pattern(path).map_err(|error| Refusal::Path(format!("VIRTUAL_PATH: {error}")))?;
        let agreed = |key: Key, of: &dyn Fn(&Claimed<'a>) -> Option<&'a str>, notes: &mut Notes| {
            let given = claims.iter().filter_map(|c| Some((c.settings.container.name.as_str(), of(c)?)));
            decide(&self.name, key, given, notes).map(str::to_owned)
        };
        let protos = claims.iter().filter_map(|c| Some((c.settings.container.name.as_str(), c.claim.proto.clone()?)));
        let proto = match decide(&self.name, "VIRTUAL_PROTO", protos, notes).as_deref() {
            None | Some("http" | "") => Proto::Http,
            Some("https") => Proto::Https,
            Some("grpc") => Proto::Grpc,
            Some("grpcs") => Proto::Grpcs,
            Some(other @ ("uwsgi" | "fastcgi")) => {
                return Err(Refusal::Host(format!("VIRTUAL_PROTO {other} is not spoken here: every request gets 503")));
            }
            Some(other) => {
                let text =
                    format!("VIRTUAL_PROTO is `{other}`; write http, https, grpc or grpcs: every request gets 503");
                return Err(Refusal::Host(text));
            }
        };
        let balance = agreed("LOADBALANCE", &|c| c.settings.get("LOADBALANCE"), notes);
        let balance = balance.map_or(Ok(Balance::RoundRobin), |text| balance::parse(&text)).unwrap_or_else(|text| {
            notes.warn(Some(&self.name), None, format!("loadbalance: {text}; requests take turns"));
            Balance::RoundRobin
        });
        let (servers, left_out) = self.servers(claims, notes);
        let keepalive = agreed("KEEPALIVE", &|c| c.settings.get("KEEPALIVE"), notes);
        let keepalive = self.keepalive(keepalive.as_deref(), servers.len(), notes);
        Ok(PathRoute {
            path: path.into(),
            dest: self.dest(&pattern, claims, notes),
            proto,
            servers,
            left_out,
            balance,
            keepalive,
            auth: self.auth(path),
            directives: self.location_directives(path, notes),
            pattern,
        })
    }

    fn dest(&self, pattern: &PathPattern, claims: &[&Claimed<'a>], notes: &mut Notes) -> Option<String> {
        let given = claims.iter().filter_map(|c| Some((c.settings.container.name.as_str(), c.claim.dest.clone()?)));
        let dest = decide(&self.name, "VIRTUAL_DEST", given, notes).filter(|dest| !dest.is_empty())?;
        if matches!(pattern, PathPattern::Regex(_)) {
            let text = format!("VIRTUAL_DEST `{dest}` is left out: a path that is a regex has no prefix to replace");
            notes.warn(Some(&self.name), None, text);
            return None;
        }
        if !dest.starts_with('/') {
            let text = format!("VIRTUAL_DEST `{dest}` is left out: it does not begin with `/`");
            notes.warn(Some(&self.name), None, text);
            return None;
        }
        Some(dest)
    }

    /// The addresses of the readiest containers, and who is left out.
    fn servers(&self, claims: &[&Claimed<'a>], notes: &mut Notes) -> (Vec<Server>, Vec<(Arc<str>, &'static str)>) {
        let mut reachable: Vec<(u8, &Claimed<'a>, Server)> = Vec::new();
        let mut left_out = Vec::new();
        for claimed in claims {
            let container = claimed.settings.container;
            let name: Arc<str> = container.name.as_str().into();
            if container.state == State::Awaited {
                notes.warn(Some(&self.name), Some(&name), "no task of this service runs".to_owned());
                left_out.push((name, "no task of it runs"));
                continue;
            }
            let address = address::of(container, &self.around.place, self.around.proxy.prefer_ipv6);
            match (address, &claimed.claim.port) {
                (Ok((address, network)), Ok((port, source))) => {
                    let on = match container.replica.as_ref().map(|replica| &replica.node) {
                        None => String::new(),
                        Some(Some(node)) => format!("task on {node}, "),
                        Some(None) => "the service's virtual address, ".to_owned(),
                    };
                    let why = format!("{on}{network}, port {port}: {source}");
                    let server = Server { container: name, address, port: *port, why };
                    reachable.push((container.rank(), claimed, server));
                }
                (Err(reason), _) => {
                    notes.problem(Some(&self.name), Some(&name), format!("it cannot be reached: {reason}"));
                    left_out.push((name, "unreachable"));
                }
                (_, Err(reason)) => {
                    notes.problem(Some(&self.name), Some(&name), reason.clone());
                    left_out.push((name, "no port"));
                }
            }
        }
        let best = reachable.iter().map(|(rank, ..)| *rank).min();
        let mut servers = Vec::new();
        for (rank, claimed, server) in reachable {
            if Some(rank) == best {
                servers.push(server);
            } else {
                left_out.push((server.container, standing(claimed)));
            }
        }
        (servers, left_out)
    }

    fn keepalive(&self, text: Option<&str>, servers: usize, notes: &mut Notes) -> Option<u32> {
        let auto = u32::try_from(servers * 2).unwrap_or(u32::MAX);
        match text {
            None | Some("auto") => Some(auto),
            Some("disabled") => None,
            Some(other) => Some(other.parse().unwrap_or_else(|_| {
                let text = format!("keepalive is `{other}`; write auto, disabled or a number");
                notes.warn(Some(&self.name), None, text);
                auto
            })),
        }
    }

    fn auth(&self, path: &str) -> Option<BasicAuth> {
        let of_path = format!("{}_{}", self.file_name, sha1(path));
        let files = &self.around.files.htpasswd;
        if files.contains(&of_path) {
            return Some(BasicAuth { file: of_path, realm: format!("Restricted {}{path}", self.name) });
        }
        let of_host = self.file_name.clone();
        files.contains(&of_host).then(|| BasicAuth { file: of_host, realm: format!("Restricted {}", self.name) })
    }
}

/// How much of a host a problem takes out.
enum Refusal {
    Path(String),
    Host(String),
}

/// Why a container waits while others answer.
fn standing(claimed: &Claimed<'_>) -> &'static str {
    match claimed.settings.container.rank() {
        1 => "starting: it has not passed its health check yet",
        2 => "unhealthy",
        3 => "stopping",
        _ => "paused",
    }
}

/// `/prefix`, nginx's `= /exact` and `^~ /prefix`, or `~regex` with white space after the tilde or not.
fn path_pattern(text: &str) -> Result<PathPattern, crate::route::PathPatternError> {
    if let Some(exact) = text.strip_prefix('=') {
        return format!("~^{}$", regex::escape(exact.trim())).parse();
    }
    if let Some(prefix) = text.strip_prefix("^~") {
        return prefix.trim().parse();
    }
    for (mark, ours) in [("~*", "~*"), ("~", "~")] {
        if let Some(source) = text.strip_prefix(mark) {
            return format!("{ours}{}", source.trim()).parse();
        }
    }
    text.parse()
}

/// The first value; every other container that says something else is told.
fn decide<T: PartialEq + std::fmt::Display>(
    host: &Arc<str>,
    key: Key,
    given: impl Iterator<Item = (impl AsRef<str>, T)>,
    notes: &mut Notes,
) -> Option<T> {
    let mut given = given;
    let (winner, value) = given.next()?;
    for (container, other) in given.filter(|(_, other)| *other != value) {
        let text =
            format!("{key} is `{other}` here and `{value}` in the older container {}, which decides", winner.as_ref());
        notes.warn(Some(host), Some(&container.as_ref().into()), text);
    }
    Some(value)
}

fn unusable(key: Key, text: &str, reason: &str) -> String {
    if reason.contains(key) { reason.to_owned() } else { format!("{key} is `{text}`, {reason}; it is left out") }
}
