//! What containers ask for, in the words of the configuration.

mod rules;
mod servers;

use crate::config::{DiscoveryFolders, Route, Site};
use crate::discovery::Snapshot;
use crate::discovery::nginx_proxy::{self, Facts};
use crate::discovery::nginx_proxy::{
    Access, Caching, DefaultRoot, Directives, Files, Level, Note, PathRoute, ProxySettings, Translation, Translator,
    Www,
};
use crate::origin;
use crate::origin::balance::Algorithm;
use crate::proxy::{Compression, HeaderRules};
use crate::route::settings::{
    BasicAuth, Canonical, ClientCertificates, Https, HttpsMethod, NetworkRule, NoRoute, Ports, RateLimit,
    RouteSettings, RouteTimeouts, SiteSettings, SiteTls, TlsVersion, Users,
};
use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// What one look at the containers adds to the configuration.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// Sites, after those of the file.
    pub sites: Vec<Arc<Site>>,
    /// Their origins.
    pub origins: BTreeMap<Arc<str>, Arc<origin::Settings>>,
    /// The same, as containers asked for it.
    pub translation: Translation,
}

/// What the sites of containers are made from, beside themselves.
pub struct Surroundings<'a> {
    /// The proxy's variables.
    pub proxy: &'a ProxySettings,
    /// Where certificates, passwords and `vhost.d` are.
    pub folders: &'a DiscoveryFolders,
    /// Ports that something listens on, for HTTP and for HTTPS.
    pub http: &'a [u16],
    /// For HTTPS.
    pub https: &'a [u16],
    /// Hosts that the configuration file has taken.
    pub taken: &'a HashSet<String>,
}

/// Translates snapshots, and remembers what became of the last: sites that are as they were are the same ones.
#[derive(Default)]
pub struct Adaptation {
    translator: Translator,
    /// What each of `made` was made from beside its site.
    beside: Beside,
    /// By the address of what was asked for, which each of them holds.
    made: HashMap<usize, Arc<Made>>,
}

/// What sites are made from that is not their own.
#[derive(Default)]
struct Beside {
    proxy: ProxySettings,
    folders: DiscoveryFolders,
    http: Vec<u16>,
    https: Vec<u16>,
    default_root: DefaultRoot,
}

/// A site in the configuration's words.
struct Made {
    asked: Arc<nginx_proxy::Site>,
    /// Its host, as all ways to write it come to.
    pattern: String,
    site: Arc<Site>,
    origins: Vec<(Arc<str>, Arc<origin::Settings>)>,
    notes: Vec<Note>,
}

impl Adaptation {
    /// Translates a snapshot. Whatever is wrong with one host is in the notes and leaves the others alone.
    pub fn adapt(&mut self, snapshot: &Snapshot, files: &Files, around: &Surroundings<'_>) -> Discovered {
        let facts = Facts {
            snapshot: Cow::Borrowed(snapshot),
            proxy: Cow::Borrowed(around.proxy),
            files: Cow::Borrowed(files),
        };
        let mut translation = self.translator.translate(&facts);
        let made = self.made(&translation, around);
        let (mut sites, mut origins) = (Vec::with_capacity(made.len()), Vec::with_capacity(made.len()));
        let mut hosts = HashSet::with_capacity(made.len());
        let mut notes = Vec::new();
        for made in &made {
            let host = &made.asked.host;
            let note = |level, text: &str| Note { level, host: Some(host.clone()), container: None, text: text.into() };
            if around.taken.contains(&made.pattern) {
                let text = "the configuration file has a site for this host, which answers";
                notes.push(note(Level::Warning, text));
            } else if !hosts.insert(made.pattern.as_str()) {
                notes.push(note(Level::Problem, "another way of writing the same host has been taken before"));
            } else {
                sites.push(Arc::clone(&made.site));
                origins.extend_from_slice(&made.origins);
                notes.extend_from_slice(&made.notes);
            }
        }
        if !notes.is_empty() {
            translation.notes.extend(notes);
            translation.notes.sort();
        }
        Discovered { sites, origins: origins.into_iter().collect(), translation }
    }

    /// Every site that is asked for, those anew that are not as they were.
    fn made(&mut self, translation: &Translation, around: &Surroundings<'_>) -> Vec<Arc<Made>> {
        let default_root = &translation.fallback.default_root;
        if !self.beside.is_of(around, default_root) {
            self.beside = Beside::of(around, default_root);
            self.made.clear();
        }
        let make = |asked: &Arc<nginx_proxy::Site>| {
            let known = self.made.get(&Arc::as_ptr(asked).addr());
            known.cloned().unwrap_or_else(|| Arc::new(Made::of(asked, around, default_root)))
        };
        let all: Vec<Arc<Made>> = translation.sites.iter().map(make).collect();
        self.made = all.iter().map(|made| (Arc::as_ptr(&made.asked).addr(), Arc::clone(made))).collect();
        all
    }
}

impl Beside {
    fn of(around: &Surroundings<'_>, default_root: &DefaultRoot) -> Self {
        // Destructured, so that what sites are made from has to be placed here.
        let Surroundings { proxy, folders, http, https, taken: _ } = *around;
        Self {
            proxy: proxy.clone(),
            folders: folders.clone(),
            http: http.to_vec(),
            https: https.to_vec(),
            default_root: default_root.clone(),
        }
    }

    fn is_of(&self, around: &Surroundings<'_>, root: &DefaultRoot) -> bool {
        let Self { proxy, folders, http, https, default_root } = self;
        proxy == around.proxy
            && folders == around.folders
            && http == around.http
            && https == around.https
            && default_root == root
    }
}

impl Made {
    fn of(asked: &Arc<nginx_proxy::Site>, around: &Surroundings<'_>, default_root: &DefaultRoot) -> Self {
        let mut adapter = Adapter { around, notes: Vec::new(), origins: Vec::new() };
        let site = Arc::new(adapter.site(asked, default_root));
        let Adapter { notes, origins, .. } = adapter;
        Self { asked: Arc::clone(asked), pattern: asked.pattern.to_string(), site, origins, notes }
    }
}

struct Adapter<'a> {
    around: &'a Surroundings<'a>,
    notes: Vec<Note>,
    origins: Vec<(Arc<str>, Arc<origin::Settings>)>,
}

impl Adapter<'_> {
    fn note(&mut self, level: Level, host: &Arc<str>, text: impl Into<String>) {
        self.notes.push(Note { level, host: Some(Arc::clone(host)), container: None, text: text.into() });
    }

    fn site(&mut self, site: &nginx_proxy::Site, default_root: &DefaultRoot) -> Site {
        let host = &site.host;
        let mut paths = HashSet::new();
        let mut routes = Vec::new();
        let nothing = PathRoute::unserved();
        let asked = if site.refused.is_some() { std::slice::from_ref(&nothing) } else { &site.paths };
        for route in asked {
            if paths.insert(route.pattern.to_string()) {
                routes.push(self.route(site, route));
            } else {
                let text = format!("VIRTUAL_PATH `{}` is another way of writing a path that is taken", route.path);
                self.note(Level::Problem, host, text);
            }
        }
        let settings = self.settings(site, default_root);
        Site {
            name: Arc::clone(host),
            hosts: vec![site.pattern.clone()],
            settings,
            server_timing: None,
            source: Arc::clone(&site.source),
            discovered: true,
            routes,
        }
    }

    fn settings(&mut self, site: &nginx_proxy::Site, default_root: &DefaultRoot) -> SiteSettings {
        let folders = self.around.folders;
        let certificates = folders.certificates.clone().unwrap_or_default();
        let clients = site.client_auth.as_ref().map(|clients| ClientCertificates {
            authorities: certificates.join(&clients.ca),
            revoked: clients.crl.as_ref().map(|name| certificates.join(name)),
            optional: clients.optional,
            // nginx verifies what comes over TLS alone.
            plain_http: true,
            subject_field: None,
        });
        if clients.is_some() && site.https == nginx_proxy::HttpsMethod::NoRedirect {
            let text = "plain HTTP is served beside HTTPS, so that nobody needs a certificate; set HTTPS_METHOD to redirect or nohttp";
            self.note(Level::Warning, &site.host, text);
        }
        let ports = self.ports(site);
        SiteSettings {
            https: Https {
                method: match site.https {
                    nginx_proxy::HttpsMethod::Redirect => HttpsMethod::Redirect,
                    nginx_proxy::HttpsMethod::NoRedirect => HttpsMethod::NoRedirect,
                    nginx_proxy::HttpsMethod::NoHttp => HttpsMethod::NoHttp,
                    nginx_proxy::HttpsMethod::NoHttps => HttpsMethod::NoHttps,
                },
                non_get_redirect: StatusCode::from_u16(site.non_get_redirect).unwrap_or(StatusCode::MOVED_PERMANENTLY),
                port: ports.https.unwrap_or(self.around.proxy.https_port),
                // Which files there are has been looked at; one that cannot be read is a missing one.
                http_on_missing_certificate: site.http_on_missing,
            },
            hsts: site.hsts.as_ref().and_then(|text| self.value(&site.host, "HSTS", text)),
            canonical: site.www.map(|www| match www {
                Www::Add => Canonical::Www,
                Www::Strip => Canonical::Apex,
            }),
            no_route: match default_root {
                DefaultRoot::Status(status) => {
                    NoRoute::Status(StatusCode::from_u16(*status).unwrap_or(StatusCode::NOT_FOUND))
                }
                DefaultRoot::Redirect(status, address) => NoRoute::Redirect(
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::FOUND),
                    rules::location(address).into(),
                ),
                DefaultRoot::None => NoRoute::default(),
            },
            client_certificates: clients,
            tls: SiteTls {
                min_version: Some(match site.tls {
                    nginx_proxy::TlsFloor::Tls12 => TlsVersion::Tls12,
                    nginx_proxy::TlsFloor::Tls13 => TlsVersion::Tls13,
                }),
                certificate: site.certificate.clone(),
                trust_default: site.certificate.as_deref() == Some("default"),
            },
            ports,
            challenges: folders.challenges().filter(|_| site.acme_challenge),
            rules: self.rules(site),
        }
    }

    /// Own ports, where something listens there: a host that nobody can reach would be worse than one at the usual port.
    fn ports(&mut self, site: &nginx_proxy::Site) -> Ports {
        let around = self.around;
        let mut listened = |port: Option<u16>, open: &[u16], key: &str, list: &str| {
            let port = port?;
            if open.contains(&port) {
                return Some(port);
            }
            let text = format!(
                "{key} is {port}, but nothing listens there, so the host stays at the usual port; add it to {list}"
            );
            self.note(Level::Problem, &site.host, text);
            None
        };
        Ports {
            http: listened(site.ports.http, around.http, "EXTERNAL_HTTP_PORT", "`http` of [listen]"),
            https: listened(site.ports.https, around.https, "EXTERNAL_HTTPS_PORT", "`https` of [listen]"),
        }
    }

    fn value(&mut self, host: &Arc<str>, key: &str, text: &str) -> Option<HeaderValue> {
        let value = HeaderValue::try_from(text).ok();
        if value.is_none() {
            self.note(Level::Warning, host, format!("{key} has characters that no field value has; it is left out"));
        }
        value
    }

    fn route(&mut self, site: &nginx_proxy::Site, route: &PathRoute) -> Route {
        let name: Arc<str> = format!("docker:{}{}", site.host, route.path).into();
        let balance = servers::algorithm(&route.balance).unwrap_or_else(|error| {
            self.note(Level::Warning, &site.host, format!("loadbalance: {error}; requests take turns"));
            Algorithm::RoundRobin
        });
        let local = merged(&site.directives, &route.directives);
        let origin = servers::origin_of(site, route, &local, balance);
        self.origins.push((Arc::clone(&name), Arc::new(origin)));
        let (cache, lifetime) = match site.cache {
            Caching::Off => (false, None),
            Caching::On => (true, None),
            Caching::Default(lifetime) => (true, Some(crate::cache::rules::Ttl::Default(lifetime))),
        };
        let rules = crate::cache::rules::CacheRules {
            lifetime,
            tags: site.tags.clone(),
            ..crate::cache::rules::CacheRules::default()
        };
        Route {
            source: servers::source(route),
            path: route.pattern.clone(),
            origin: name,
            cache,
            rules,
            headers: self.headers(&site.host, &local),
            security: None,
            cors: None,
            compression: local.gzip.unwrap_or(site.compress).then(|| compression(&local)),
            max_request_body: local.max_body.filter(|bytes| *bytes > 0),
            settings: self.route_settings(site, route, &local),
        }
    }

    fn headers(&mut self, host: &Arc<str>, from: &Directives) -> HeaderRules {
        let mut rules = HeaderRules::default();
        let names = |list: &[String]| list.iter().filter_map(|n| HeaderName::try_from(n.as_str()).ok()).collect();
        rules.request.remove = names(&from.request_remove);
        rules.response.remove = names(&from.response_remove);
        let mut odd = Vec::new();
        for (to, list) in [
            (&mut rules.request.set, &from.request_set),
            (&mut rules.response.set, &from.response_set),
            (&mut rules.response.add, &from.response_add),
        ] {
            for (name, value) in list {
                match (HeaderName::try_from(name.as_str()), value.parse()) {
                    (Ok(name), Ok(template)) => to.push((name, template)),
                    (_, Err(error)) => odd.push(format!("`{name}: {value}` is left out: {error}")),
                    (Err(error), _) => odd.push(format!("`{name}: {value}` is left out: {error}")),
                }
            }
        }
        for text in odd {
            self.note(Level::Warning, host, text);
        }
        rules
    }

    fn route_settings(&mut self, site: &nginx_proxy::Site, route: &PathRoute, local: &Directives) -> RouteSettings {
        let passwords = route.auth.as_ref().zip(self.around.folders.htpasswd.as_deref());
        let inline = site.users.as_ref().map(|users| BasicAuth {
            realm: format!("Restricted {}", site.host).into(),
            users: Users::Inline(users.expose().into()),
        });
        let auth = passwords.map(|(auth, folder): (_, &Path)| BasicAuth {
            realm: auth.realm.replace(['"', '\\'], "").into(),
            users: Users::File(folder.join(&auth.file)),
        });
        RouteSettings {
            networks: networks(site, local),
            auth: auth.or(inline),
            rate_limit: site.rate_limit.map(|limit| RateLimit {
                requests: limit.requests,
                period: limit.per,
                burst: limit.burst.max(1),
            }),
            replace_prefix: route.dest.as_deref().map(Into::into),
            timeouts: RouteTimeouts { connect: local.connect_timeout, read: local.read_timeout },
        }
    }
}

/// A location's directives, and the server's where it has none of the kind, as nginx inherits them.
fn merged(server: &Directives, location: &Directives) -> Directives {
    let list = |own: &Vec<(String, String)>, outer: &Vec<(String, String)>| {
        if own.is_empty() { outer.clone() } else { own.clone() }
    };
    let mut remove = server.response_remove.clone();
    remove.extend(location.response_remove.iter().cloned());
    let mut request_remove = server.request_remove.clone();
    request_remove.extend(location.request_remove.iter().cloned());
    Directives {
        max_body: location.max_body.or(server.max_body),
        connect_timeout: location.connect_timeout.or(server.connect_timeout),
        read_timeout: location.read_timeout.or(server.read_timeout),
        send_timeout: location.send_timeout.or(server.send_timeout),
        response_add: list(&location.response_add, &server.response_add),
        response_set: list(&location.response_set, &server.response_set),
        response_remove: remove,
        request_set: list(&location.request_set, &server.request_set),
        request_remove,
        answer: None,
        rewrites: Vec::new(),
        access: if location.access.is_empty() { server.access.clone() } else { location.access.clone() },
        gzip: location.gzip.or(server.gzip),
        gzip_types: if location.gzip_types.is_empty() {
            server.gzip_types.clone()
        } else {
            location.gzip_types.clone()
        },
        gzip_min_length: location.gzip_min_length.or(server.gzip_min_length),
    }
}

/// Who may come: what `vhost.d` refuses, then the private networks where the host is internal, then who is let in.
fn networks(site: &nginx_proxy::Site, local: &Directives) -> Vec<NetworkRule> {
    let mut rules = Vec::new();
    let internal = site.access == Access::Internal;
    for rule in local.access.iter().filter(|rule| !(internal && rule.allow)) {
        match rule.net {
            Some(network) => rules.push(NetworkRule { network, allow: rule.allow }),
            None => rules.extend(NetworkRule::everyone_else(rule.allow)),
        }
    }
    let private = |net: &IpNet| NetworkRule::internal().iter().any(|rule| rule.allow && rule.network.contains(net));
    match (internal, site.allow.is_empty()) {
        (false, true) => {}
        (true, true) => rules.extend(NetworkRule::internal()),
        (_, false) => {
            let allowed = site.allow.iter().filter(|net| !internal || private(net));
            rules.extend(allowed.map(|network| NetworkRule { network: *network, allow: true }));
            rules.extend(NetworkRule::everyone_else(false));
        }
    }
    rules
}

fn compression(local: &Directives) -> Compression {
    let mut compression = Compression::default();
    if !local.gzip_types.is_empty() {
        let types = local.gzip_types.iter().map(String::as_str).chain(["text/html"]);
        compression.types = types.map(crate::cache::rules::Glob::new).collect();
    }
    if let Some(bytes) = local.gzip_min_length {
        compression.min_size = bytes;
    }
    compression
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{Container, Place};
    use crate::route::traffic::{Action, Rewrite};

    fn adapted(containers: Vec<Container>, files: &Files) -> Discovered {
        let snapshot = Snapshot { containers, place: Place::Host, ..Snapshot::default() };
        let (proxy, _) = ProxySettings::read(&BTreeMap::new());
        let folders = DiscoveryFolders::default();
        let taken = ["taken.test".to_owned()].into();
        let around = Surroundings { proxy: &proxy, folders: &folders, http: &[80], https: &[443], taken: &taken };
        Adaptation::default().adapt(&snapshot, files, &around)
    }

    fn container(name: &str, settings: &[(&str, &str)]) -> Container {
        Container {
            id: name.to_owned(),
            name: name.to_owned(),
            env: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            networks: vec![crate::discovery::Network { ipv4: Some([10, 0, 0, 2].into()), ..Default::default() }],
            ..Container::default()
        }
    }

    #[test]
    fn two_thousand_hosts_are_each_a_site_with_an_origin() {
        let containers = (0..2000).map(|n| container(&format!("c{n}"), &[("VIRTUAL_HOST", &format!("h{n}.test"))]));
        let discovered = adapted(containers.collect(), &Files::default());
        assert_eq!((discovered.sites.len(), discovered.origins.len()), (2000, 2000));
        assert_eq!(discovered.translation.notes, []);
    }

    #[test]
    fn what_was_adapted_before_leaves_no_trace() {
        let folders = DiscoveryFolders { htpasswd: Some("/p".into()), html: Some("/h".into()), ..Default::default() };
        let mut adaptation = Adaptation::default();
        let cases = nginx_proxy::cases::all();
        for (n, case) in cases.iter().chain(cases.iter().rev()).enumerate() {
            let (facts, _) = case.world.facts();
            let taken = if n % 5 == 0 { ["a.example".to_owned()].into() } else { HashSet::new() };
            let (proxy, http): (_, &[u16]) = (&*facts.proxy, if n % 7 == 0 { &[80, 8080] } else { &[80] });
            let around = Surroundings { proxy, folders: &folders, http, https: &[443], taken: &taken };
            for _ in 0..2 {
                let now = adaptation.adapt(&facts.snapshot, &facts.files, &around);
                let alone = Adaptation::default().adapt(&facts.snapshot, &facts.files, &around);
                assert_eq!(format!("{now:?}"), format!("{alone:?}"), "{}", case.name);
            }
        }
    }

    #[test]
    fn hosts_of_the_file_and_doubles_are_left_out_and_told() {
        let host = [("VIRTUAL_HOST", "taken.test,[::1],[0:0::1],ok.test")];
        let doubled = [("VIRTUAL_HOST", "ok.test"), ("VIRTUAL_PATH", "^~ /")];
        let discovered = adapted(vec![container("a", &host), container("b", &doubled)], &Files::default());
        let hosts: Vec<&str> = discovered.sites.iter().map(|site| &*site.name).collect();
        assert_eq!(hosts, ["[0:0::1]", "ok.test"]);
        assert_eq!(discovered.sites[1].routes.len(), 1);
        assert_eq!(discovered.translation.notes.len(), 3, "{:?}", discovered.translation.notes);
    }

    #[test]
    fn a_host_that_is_refused_has_one_route_to_nobody() {
        let refused = [("VIRTUAL_HOST", "a.test"), ("VIRTUAL_PROTO", "uwsgi"), ("VIRTUAL_PATH", "/x")];
        let discovered = adapted(vec![container("a", &refused)], &Files::default());
        assert_eq!(discovered.sites[0].routes[0].path.to_string(), "/");
        let origin::Settings::Http(http) = &*discovered.origins["docker:a.test/"] else { panic!("a bucket") };
        assert!(http.servers.is_empty());
    }

    #[test]
    fn directives_become_rules_fields_and_limits() {
        let text = "rewrite ^/old/(.*)$ /new/$1x last; rewrite ^/go$ https://x.test/ permanent; return 301 https://y.test$request_uri;\
                    client_max_body_size 7; deny 192.0.2.0/24; allow all; add_header A b; proxy_read_timeout 3;";
        let files = Files { vhost: [("default".to_owned(), text.to_owned())].into(), ..Files::default() };
        let settings = [("VIRTUAL_HOST", "a.test"), ("NETWORK_ACCESS", "internal"), ("EXTERNAL_HTTP_PORT", "8080")];
        let discovered = adapted(vec![container("a", &settings)], &files);
        let site = &discovered.sites[0];
        let Some(Rewrite::Regex { .. }) = &site.settings.rules[0].rewrite else { panic!("{:?}", site.settings.rules) };
        let rewritten = site.settings.rules[0].rewrite.as_ref().and_then(|rewrite| rewrite.apply("/old/a"));
        assert_eq!(rewritten.as_deref(), Some("/new/ax"));
        assert!(matches!(site.settings.rules[1].action, Some(Action::Redirect(_))));
        assert!(matches!(site.settings.rules[2].action, Some(Action::Redirect(_))));
        let route = &site.routes[0];
        assert_eq!((route.max_request_body, route.headers.response.add.len()), (Some(7), 1));
        assert_eq!(route.settings.timeouts.read, Some(std::time::Duration::from_secs(3)));
        let admits = |ip: [u8; 4]| NetworkRule::admit(&route.settings.networks, Some(ip.into()));
        assert_eq!([[10, 0, 0, 1], [192, 0, 2, 1], [8, 8, 8, 8]].map(admits), [true, false, false]);
        assert_eq!(site.settings.ports, Ports::default(), "nothing listens on 8080");
        assert!(discovered.translation.notes.iter().any(|note| note.text.contains("nothing listens there")));
    }

    #[test]
    fn idle_connections_are_as_the_label_says_and_retries_as_nginx_makes_them() {
        for (label, most, kept) in [("auto", None, true), ("5", Some(5), true), ("disabled", None, false)] {
            let mut one = container("a", &[("VIRTUAL_HOST", "a.test")]);
            one.labels.insert("com.github.nginx-proxy.nginx-proxy.keepalive".to_owned(), label.to_owned());
            let discovered = adapted(vec![one], &Files::default());
            let origin::Settings::Http(http) = &*discovered.origins["docker:a.test/"] else { panic!("a bucket") };
            let idle = http.timeouts.idle > origin::NOT_AT_ALL;
            assert_eq!((http.max_idle, idle, http.limits.retry_percent), (most, kept, 100), "{label}");
        }
    }

    #[test]
    fn clients_of_plain_http_need_no_certificate_and_that_is_told() {
        let names = ["a.test.crt", "a.test.key", "a.test.ca.crt"].map(str::to_owned);
        let files = Files { certificates: names.into(), ..Files::default() };
        for (method, told) in [("redirect", false), ("noredirect", true)] {
            let settings = [("VIRTUAL_HOST", "a.test"), ("HTTPS_METHOD", method)];
            let discovered = adapted(vec![container("a", &settings)], &files);
            let clients = discovered.sites[0].settings.client_certificates.as_ref().unwrap();
            let notes = &discovered.translation.notes;
            assert!(clients.plain_http && !clients.optional);
            assert_eq!(notes.iter().any(|note| note.text.contains("nobody needs a certificate")), told, "{notes:?}");
        }
    }
}
