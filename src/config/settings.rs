//! What sites and routes say of schemes, names, certificates, access and limits; `[proxies]` and `[unknown_hosts]`.

use super::reader::{Table, Value, shown};
use super::rules::field_name;
use crate::proxy::Htpasswd;
use crate::route::settings::{
    BasicAuth, Canonical, ClientCertificates, Downstream, Https, HttpsMethod, NetworkRule, NoRoute, Ports, RateLimit,
    RouteSettings, SiteSettings, SiteTls, TlsVersion, UnknownHost, UnknownHosts, Users,
};
use crate::tls::client::Authorities;
use http::{HeaderValue, StatusCode};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// The keys of a site but for its routes and rules; `https` says whether there is an HTTPS listener.
pub(super) fn site(table: &Table<'_>, https: bool) -> SiteSettings {
    SiteSettings {
        https: schemes(table, https),
        hsts: table.get("hsts").and_then(|v| hsts(&v)),
        canonical: table.get("canonical").and_then(|v| v.one_of(&[("www", Canonical::Www), ("apex", Canonical::Apex)])),
        no_route: table.get("no_route").and_then(|v| no_route(&v)).unwrap_or_default(),
        client_certificates: table.section("client_certificates", client_certificates).flatten(),
        tls: tls(table),
        ports: table.section("ports", ports).unwrap_or_default(),
        challenges: None,
        rules: Vec::new(),
    }
}

fn schemes(table: &Table<'_>, listens: bool) -> Https {
    let default = Https::default();
    let words = HttpsMethod::ALL.map(|method| (method.as_str(), method));
    let (word, old) = (table.get("https"), table.get("https_redirect"));
    let method = word.as_ref().and_then(|v| v.one_of(&words));
    let redirect = old.as_ref().and_then(Value::boolean).map(|on| match on {
        true => HttpsMethod::Redirect,
        false => HttpsMethod::NoRedirect,
    });
    if let (Some(_), Some(old)) = (&word, &old) {
        old.problem(
            format!("`{}` is given beside `https`", old.path),
            "keep `https`: `https = \"redirect\"` is what `https_redirect = true` was",
        );
    }
    let method = method.or(redirect).unwrap_or(default.method);
    let needs_https = matches!(method, HttpsMethod::Redirect | HttpsMethod::NoHttp);
    if let (Some(value), true, false) = (word.as_ref().or(old.as_ref()), needs_https, listens) {
        let given = value.as_str().map_or_else(|| "true".to_owned(), |_| format!("\"{}\"", value.shown()));
        let message = format!("`{}` is {given}, but nothing listens for HTTPS", value.path);
        let remedy = "add `https = [\"0.0.0.0:443\"]` to [listen] and a [tls] table, or remove this key";
        value.document.absence(value.span.start, &value.path, message, remedy);
    }
    let status = table.get("non_get_redirect").and_then(|v| status(&v, &[301, 307, 308]));
    let port = table.get("https_port").and_then(|v| port(&v));
    let open = table.get("http_on_missing_certificate").and_then(|v| v.boolean());
    Https {
        method,
        non_get_redirect: status.unwrap_or(default.non_get_redirect),
        port: port.unwrap_or(default.port),
        http_on_missing_certificate: open.unwrap_or(default.http_on_missing_certificate),
    }
}

fn hsts(value: &Value<'_>) -> Option<HeaderValue> {
    let text = value.text("\"max-age=31536000\"")?;
    if text == "off" {
        return None;
    }
    let header = HeaderValue::from_str(text).ok().filter(|_| text.to_ascii_lowercase().contains("max-age="));
    if header.is_none() {
        value.problem(
            format!("`{}` is \"{}\", not a value of Strict-Transport-Security", value.path, value.shown()),
            "write it as in \"max-age=31536000; includeSubDomains\" (RFC 6797 section 6.1), or \"off\"",
        );
    }
    header
}

/// A status, `"301 URI"`, or `"none"`.
fn no_route(value: &Value<'_>) -> Option<NoRoute> {
    const REMEDY: &str = "write a status as in 404, a redirect as in \"301 https://www.example.com/\", or \"none\"";
    if value.is_integer() {
        return value.integer(200..=599).and_then(status_of).map(NoRoute::Status);
    }
    let text = value.text("\"301 https://www.example.com/\"")?;
    if text == "none" {
        return Some(NoRoute::default());
    }
    let parsed = text.split_once(' ').and_then(|(status, to)| {
        let status = status.parse().ok().filter(|status| [301, 302, 303, 307, 308].contains(status))?;
        let to = to.trim();
        let usable = (to.starts_with('/') || to.contains("://")) && to.bytes().all(|b| b.is_ascii_graphic());
        Some(NoRoute::Redirect(status_of(status)?, to.into())).filter(|_| usable)
    });
    if parsed.is_none() {
        value.problem(format!("`{}` is \"{}\", not an answer", value.path, value.shown()), REMEDY);
    }
    parsed
}

fn client_certificates(table: &Table<'_>) -> Option<ClientCertificates> {
    let value = table.required("authorities", "\"ca.crt\"");
    let authorities = value.as_ref().and_then(|v| v.path("\"ca.crt\""));
    let revoked = table.get("revoked").and_then(|v| v.path("\"ca.crl.pem\""));
    let optional = table.get("optional").and_then(|v| v.boolean()).unwrap_or(false);
    let plain_http = table.get("plain_http").and_then(|v| v.boolean()).unwrap_or(false);
    let subject_field = table.get("subject_field").and_then(|v| field_name(v.text("\"X-Client-Subject\"")?, &v));
    let authorities = authorities?;
    if let (Some(value), Err(error)) = (value, Authorities::new(authorities.clone(), revoked.clone()).check()) {
        value.problem(
            format!("`{}` is of no use: {error}", value.path),
            "name a PEM file of authorities' certificates, and in `revoked` one of their revocation lists",
        );
    }
    Some(ClientCertificates { authorities, revoked, optional, plain_http, subject_field })
}

fn tls(table: &Table<'_>) -> SiteTls {
    let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
    let min_version = table.get("tls_min_version").and_then(|v| v.one_of(&versions));
    let policy = table.get("tls_policy").and_then(|value| {
        let name = value.text("\"Mozilla-Intermediate\"")?;
        let known = TlsVersion::of_policy(name);
        if known.is_none() {
            value.problem(
                format!("`{}` is \"{}\", not a policy", value.path, value.shown()),
                "write \"Mozilla-Intermediate\" (TLS 1.2 and 1.3), \"Mozilla-Modern\" (1.3 alone), or an \"AWS-…\" name",
            );
        }
        known.map(|(version, _)| version)
    });
    let certificate = table.get("certificate").and_then(|v| v.text("\"shared\"").map(Arc::from));
    let trust_default = table.get("trust_default_certificate").and_then(|v| v.boolean()).unwrap_or(true);
    SiteTls { min_version: min_version.or(policy), certificate, trust_default }
}

fn ports(table: &Table<'_>) -> Ports {
    let read = |key| table.get(key).and_then(|v| port(&v));
    Ports { http: read("http"), https: read("https") }
}

fn port(value: &Value<'_>) -> Option<u16> {
    value.integer(1..=65_535).and_then(|port| u16::try_from(port).ok())
}

/// One of a few statuses.
pub(super) fn status(value: &Value<'_>, choices: &[u64]) -> Option<StatusCode> {
    let given = value.integer(100..=599)?;
    if !choices.contains(&given) {
        let known = choices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        value.problem(format!("`{}` is {given}, expected one of {known}", value.path), format!("write one of {known}"));
        return None;
    }
    status_of(given)
}

pub(super) fn status_of(status: u64) -> Option<StatusCode> {
    u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok())
}

/// The keys of a site or a route that each route has for itself; `site` is the site's first host, for the realm.
pub(super) fn route(table: &Table<'_>, base: &RouteSettings, site: &str) -> RouteSettings {
    let mut own = base.clone();
    if let Some(networks) = table.section("access", access) {
        own.networks = networks;
    }
    if let Some(auth) = table.section("auth", |table| auth(table, site)) {
        own.auth = auth;
    }
    if let Some(limit) = table.section("rate_limit", rate_limit) {
        own.rate_limit = limit;
    }
    if let Some(time) = table.get("connect_timeout").and_then(|v| v.timeout()) {
        own.timeouts.connect = Some(time);
    }
    if let Some(time) = table.get("read_timeout").and_then(|v| v.timeout()) {
        own.timeouts.read = Some(time);
    }
    own
}

/// `allow`, `deny` and `internal`: who is in `deny` may not, who is in `allow` may, and where there is an `allow` nobody else.
fn access(table: &Table<'_>) -> Vec<NetworkRule> {
    let list = |key, allow: bool| {
        let networks = table.get(key).map(|v| networks(&v)).unwrap_or_default();
        networks.into_iter().map(move |network| NetworkRule { network, allow })
    };
    let denied: Vec<_> = list("deny", false).collect();
    let allowed: Vec<_> = list("allow", true).collect();
    let internal = table.get("internal").and_then(|v| v.boolean()).unwrap_or(false);
    let closed = internal || !allowed.is_empty();
    let mut rules = denied;
    rules.extend(allowed);
    if internal {
        rules.extend(NetworkRule::internal());
    } else if closed {
        rules.extend(NetworkRule::everyone_else(false));
    }
    rules
}

/// Addresses and networks (`10.0.0.0/8`, `192.0.2.7`).
pub(super) fn networks(value: &Value<'_>) -> Vec<IpNet> {
    const EXAMPLE: &str = "[\"10.0.0.0/8\"]";
    let network = |element: &Value<'_>| {
        let text = element.text(EXAMPLE)?;
        let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        match parsed {
            Some(network) if network.addr() == network.network() => Some(network),
            Some(network) => {
                let message =
                    format!("`{}` is \"{}\", whose address has bits beyond its length", element.path, element.shown());
                element.problem(message, format!("write \"{}\"", network.trunc()));
                None
            }
            None => {
                element.problem(
                    format!("`{}` is \"{}\", neither an address nor a network", element.path, element.shown()),
                    "write it as in \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\"",
                );
                None
            }
        }
    };
    value.array(EXAMPLE).unwrap_or_default().iter().filter_map(network).collect()
}

/// `[sites.auth]`; `None`: turned off.
fn auth(table: &Table<'_>, site: &str) -> Option<BasicAuth> {
    let enabled = table.get("enabled").and_then(|v| v.boolean()).unwrap_or(true);
    let realm = table.get("realm").and_then(|value| {
        let text = value.text("\"Restricted\"")?;
        if text.bytes().any(|b| b == b'"' || b == b'\\' || !(b' '..=b'~').contains(&b)) {
            let message =
                format!("`{}` is \"{}\", which cannot stand between quotes in a field", value.path, value.shown());
            value.problem(message, "write it in ASCII, without quotes and backslashes");
            return None;
        }
        Some(Arc::from(text))
    });
    let file = table.get("users_file");
    let inline = table.get("users");
    let users = match (&file, &inline) {
        (Some(value), None) => value.path("\"htpasswd\"").map(Users::File),
        (None, Some(value)) => {
            let lines = value.array("[\"name:$2y$05$…\"]").unwrap_or_default();
            let lines: Vec<&str> = lines.iter().filter_map(|line| line.text("\"name:$2y$05$…\"")).collect();
            Some(Users::Inline(lines.join("\n").into()))
        }
        (None, None) if !enabled => None,
        _ => {
            table.absence(
                format!("`{}` needs either `users_file` or `users`", table.path),
                "add `users_file = \"htpasswd\"`, a file as `htpasswd -B` writes it",
            );
            None
        }
    };
    let users = users?;
    if let (Some(value), Err(reason)) = (file.or(inline), Htpasswd::new(&users).check()) {
        value.problem(
            format!("`{}` is of no use: {}", value.path, shown(&reason)),
            "write lines of `name:hash` with hashes of bcrypt (`htpasswd -B`), apr1, SHA, or crypt's $5$ and $6$",
        );
    }
    let realm = realm.unwrap_or_else(|| format!("Restricted {}", site.replace(['"', '\\'], "")).into());
    enabled.then_some(BasicAuth { realm, users })
}

/// `[sites.rate_limit]`; `None`: turned off.
fn rate_limit(table: &Table<'_>) -> Option<RateLimit> {
    let enabled = table.get("enabled").and_then(|v| v.boolean()).unwrap_or(true);
    let number = |value: &Value<'_>| value.integer(1..=1_000_000).and_then(|n| u32::try_from(n).ok());
    let requests = match enabled {
        true => table.required("requests", "10"),
        false => table.get("requests"),
    };
    let requests = requests.as_ref().and_then(number);
    let period = table.get("period").and_then(|v| v.timeout()).unwrap_or(std::time::Duration::from_secs(1));
    let burst = table.get("burst").as_ref().and_then(number);
    let requests = requests.filter(|_| enabled)?;
    Some(RateLimit { requests, period, burst: burst.unwrap_or(requests) })
}

/// `replace_prefix` of a route.
pub(super) fn replace_prefix(value: &Value<'_>, by_regex: bool) -> Option<Arc<str>> {
    let text = value.string("\"/\"")?;
    if by_regex {
        let message = format!("`{}` has no effect: the route's path is a regular expression", value.path);
        value.problem(message, "give the route a prefix, or rewrite by a rule: `[sites.rules.rewrite]`");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b)) {
        value.problem(
            format!("`{}` is \"{}\", which no path begins with", value.path, value.shown()),
            "percent-encode it, and leave the query out",
        );
    }
    Some(text.into())
}

/// `[proxies]`.
pub(super) fn proxies(table: &Table<'_>) -> Downstream {
    Downstream {
        trusted_proxies: table.get("trusted").map(|v| networks(&v)).unwrap_or_default(),
        trust_everyone: table.get("trust_everyone").and_then(|v| v.boolean()).unwrap_or(false),
    }
}

/// `[unknown_hosts]`; `hosts` are those of all sites, as written.
pub(super) fn unknown_hosts(table: &Table<'_>, hosts: &[String]) -> UnknownHosts {
    let default = UnknownHosts::default();
    let answer = table.get("answer").and_then(|value| match value.as_str() {
        Some("drop") => Some(UnknownHost::Drop),
        Some(_) => {
            let message = format!("`{}` is \"{}\", not an answer", value.path, value.shown());
            value.problem(message, "write a status as in 503, or \"drop\" to close the connection");
            None
        }
        None => value.integer(400..=599).and_then(status_of).map(UnknownHost::Status),
    });
    let default_host = table.get("default_host").and_then(|value| {
        let text = value.text("\"www.example.com\"")?;
        if !hosts.iter().any(|host| host == text) {
            value.problem(
                format!("`{}` is \"{}\", a host of no site", value.path, value.shown()),
                "write one of the `hosts` of a site, just as it stands there",
            );
            return None;
        }
        Some(Arc::from(text))
    });
    UnknownHosts { answer: answer.unwrap_or(default.answer), default_host, ..default }
}
