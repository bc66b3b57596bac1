//! The variables of the proxy itself: defaults for every host, and what the process listens on.

use super::keys::boolean;
use super::site::{DefaultRoot, HttpsMethod};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What the proxy's own environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySettings {
    /// `HTTP_PORT`.
    pub http_port: u16,
    /// `HTTPS_PORT`.
    pub https_port: u16,
    /// `HTTPS_METHOD`.
    pub https: HttpsMethod,
    /// `NON_GET_REDIRECT`: 301, 307 or 308.
    pub non_get_redirect: u16,
    /// `HSTS`; `off` is `None`.
    pub hsts: Option<String>,
    /// `SSL_POLICY`.
    pub ssl_policy: String,
    /// `TRUST_DEFAULT_CERT`.
    pub trust_default_cert: bool,
    /// `ENABLE_HTTP_ON_MISSING_CERT`.
    pub http_on_missing_cert: bool,
    /// `TRUST_DOWNSTREAM_PROXY`.
    pub trust_downstream: bool,
    /// `DEFAULT_HOST`.
    pub default_host: Option<Arc<str>>,
    /// `DEFAULT_ROOT`.
    pub default_root: DefaultRoot,
    /// `ENABLE_IPV6`: listen on IPv6 too.
    pub ipv6: bool,
    /// `PREFER_IPV6_NETWORK`.
    pub prefer_ipv6: bool,
    /// `RESOLVERS`.
    pub resolvers: Vec<IpAddr>,
    /// `ENABLE_HTTP2`.
    pub http2: bool,
    /// `ENABLE_HTTP3`.
    pub http3: bool,
    /// `ENABLE_PROXY_PROTOCOL`.
    pub proxy_protocol: bool,
    /// `ACME_HTTP_CHALLENGE_LOCATION`.
    pub acme_challenge: bool,
    /// `ACME_HTTP_CHALLENGE_ACCEPT_UNKNOWN_HOST`.
    pub acme_unknown_host: bool,
    /// `DEBUG_ENDPOINT`.
    pub debug_endpoint: bool,
    /// `LOG_JSON`.
    pub log_json: bool,
    /// `DISABLE_ACCESS_LOGS`.
    pub access_log: bool,
    /// `LOG_FORMAT`, with nginx's variables.
    pub log_format: Option<String>,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            http_port: 80,
            https_port: 443,
            https: HttpsMethod::Redirect,
            non_get_redirect: 301,
            hsts: Some(DEFAULT_HSTS.to_owned()),
            ssl_policy: "Mozilla-Intermediate".to_owned(),
            trust_default_cert: true,
            http_on_missing_cert: true,
            trust_downstream: true,
            default_host: None,
            default_root: DefaultRoot::default(),
            ipv6: false,
            prefer_ipv6: false,
            resolvers: Vec::new(),
            http2: true,
            http3: false,
            proxy_protocol: false,
            acme_challenge: true,
            acme_unknown_host: false,
            debug_endpoint: false,
            log_json: false,
            access_log: true,
            log_format: None,
        }
    }
}

/// nginx-proxy's.
pub(super) const DEFAULT_HSTS: &str = "max-age=31536000";

impl ProxySettings {
    /// Every variable that is read.
    pub const NAMES: [&str; 26] = [
        "HTTP_PORT",
        "HTTPS_PORT",
        "HTTPS_METHOD",
        "NON_GET_REDIRECT",
        "HSTS",
        "SSL_POLICY",
        "TRUST_DEFAULT_CERT",
        "ENABLE_HTTP_ON_MISSING_CERT",
        "TRUST_DOWNSTREAM_PROXY",
        "DEFAULT_HOST",
        "DEFAULT_ROOT",
        "ENABLE_IPV6",
        "PREFER_IPV6_NETWORK",
        "RESOLVERS",
        "ENABLE_HTTP2",
        "ENABLE_HTTP3",
        "ENABLE_PROXY_PROTOCOL",
        "ACME_HTTP_CHALLENGE_LOCATION",
        "ACME_HTTP_CHALLENGE_ACCEPT_UNKNOWN_HOST",
        "DEBUG_ENDPOINT",
        "LOG_JSON",
        "DISABLE_ACCESS_LOGS",
        "DHPARAM_BITS",
        "DHPARAM_SKIP",
        "LOG_FORMAT",
        "LOG_FORMAT_ESCAPE",
    ];

    /// Reads the environment. The second value says what is wrong with it; such a variable counts as not given.
    pub fn read(env: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let mut reader = Reader { env, problems: Vec::new() };
        let default = Self::default();
        let settings = Self {
            http_port: reader.take("HTTP_PORT", default.http_port, port),
            https_port: reader.take("HTTPS_PORT", default.https_port, port),
            https: reader.take("HTTPS_METHOD", default.https, https_method),
            non_get_redirect: reader.take("NON_GET_REDIRECT", default.non_get_redirect, redirect_status),
            hsts: reader.take("HSTS", default.hsts, |text| Ok(hsts(text))),
            ssl_policy: reader.take("SSL_POLICY", default.ssl_policy, |text| Ok(text.to_owned())),
            trust_default_cert: reader.boolean("TRUST_DEFAULT_CERT", default.trust_default_cert),
            http_on_missing_cert: reader.boolean("ENABLE_HTTP_ON_MISSING_CERT", default.http_on_missing_cert),
            trust_downstream: reader.boolean("TRUST_DOWNSTREAM_PROXY", default.trust_downstream),
            default_host: reader.take("DEFAULT_HOST", None, |text| Ok(Some(text.to_ascii_lowercase().into()))),
            default_root: reader.take("DEFAULT_ROOT", default.default_root, default_root),
            ipv6: reader.boolean("ENABLE_IPV6", default.ipv6),
            prefer_ipv6: reader.boolean("PREFER_IPV6_NETWORK", default.prefer_ipv6),
            resolvers: reader.take("RESOLVERS", Vec::new(), resolvers),
            http2: reader.boolean("ENABLE_HTTP2", default.http2),
            http3: reader.boolean("ENABLE_HTTP3", default.http3),
            proxy_protocol: reader.boolean("ENABLE_PROXY_PROTOCOL", default.proxy_protocol),
            acme_challenge: reader.take("ACME_HTTP_CHALLENGE_LOCATION", default.acme_challenge, acme_location),
            acme_unknown_host: reader.boolean("ACME_HTTP_CHALLENGE_ACCEPT_UNKNOWN_HOST", false),
            debug_endpoint: reader.boolean("DEBUG_ENDPOINT", default.debug_endpoint),
            log_json: reader.boolean("LOG_JSON", default.log_json),
            access_log: !reader.boolean("DISABLE_ACCESS_LOGS", false),
            log_format: reader.take("LOG_FORMAT", None, |text| Ok(Some(text.to_owned()))),
        };
        reader.without_effect(&settings);
        (settings, reader.problems)
    }
}

struct Reader<'a> {
    env: &'a BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn take<T>(&mut self, name: &str, default: T, read: impl Fn(&str) -> Result<T, String>) -> T {
        let Some(text) = self.env.get(name).map(|text| text.trim()).filter(|text| !text.is_empty()) else {
            return default;
        };
        read(text).unwrap_or_else(|reason| {
            self.problems.push(format!("{name} is `{text}`, {reason}; the default is used"));
            default
        })
    }

    fn boolean(&mut self, name: &str, default: bool) -> bool {
        self.take(name, default, |text| boolean(text).ok_or_else(|| "neither true nor false".to_owned()))
    }

    /// Names what is accepted and has nothing to act on.
    fn without_effect(&mut self, settings: &ProxySettings) {
        if settings.http3 {
            self.problems.push("ENABLE_HTTP3 is true, but HTTP/3 is not spoken here; clients stay with HTTP/2".into());
        }
        if !settings.http2 {
            self.problems.push("ENABLE_HTTP2 is false, but HTTP/2 stays: clients choose".into());
        }
        for (name, why) in [
            ("DHPARAM_BITS", "there is no finite-field Diffie-Hellman in TLS here"),
            ("DHPARAM_SKIP", "there is no finite-field Diffie-Hellman in TLS here"),
            ("RESOLVERS", "containers are reached by address, and other names looked up as the system says"),
        ] {
            if self.env.contains_key(name) {
                self.problems.push(format!("{name} has no effect: {why}"));
            }
        }
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| "not a port from 1 to 65535".to_owned())
}

pub(super) fn https_method(text: &str) -> Result<HttpsMethod, String> {
    match text.to_ascii_lowercase().as_str() {
        "redirect" => Ok(HttpsMethod::Redirect),
        "noredirect" => Ok(HttpsMethod::NoRedirect),
        "nohttp" => Ok(HttpsMethod::NoHttp),
        "nohttps" => Ok(HttpsMethod::NoHttps),
        _ => Err("none of redirect, noredirect, nohttp and nohttps".to_owned()),
    }
}

pub(super) fn redirect_status(text: &str) -> Result<u16, String> {
    match text {
        "301" => Ok(301),
        "307" => Ok(307),
        "308" => Ok(308),
        _ => Err("none of 301, 307 and 308".to_owned()),
    }
}

pub(super) fn hsts(text: &str) -> Option<String> {
    (!text.eq_ignore_ascii_case("off")).then(|| text.to_owned())
}

/// `404`, `301 https://example.com/$request_uri`, `none`.
fn default_root(text: &str) -> Result<DefaultRoot, String> {
    let error = || "neither a status, nor a redirect as in `301 https://example.com`, nor `none`".to_owned();
    let mut words = text.split_whitespace();
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    if words.next().is_some() {
        return Err(error());
    }
    match (first, first.parse::<u16>(), second) {
        ("none", _, None) => Ok(DefaultRoot::None),
        (_, Ok(status @ (301 | 302 | 303 | 307 | 308)), Some(address)) => {
            Ok(DefaultRoot::Redirect(status, address.to_owned()))
        }
        (_, Ok(status @ 200..=599), None) => Ok(DefaultRoot::Status(status)),
        _ => Err(error()),
    }
}

fn resolvers(text: &str) -> Result<Vec<IpAddr>, String> {
    let addresses = text.split([' ', ',']).filter(|part| !part.is_empty());
    let parsed =
        addresses.map(|part| part.trim_matches(['[', ']']).parse().map_err(|_| format!("`{part}` is no address")));
    parsed.collect()
}

fn acme_location(text: &str) -> Result<bool, String> {
    match (text, boolean(text)) {
        ("legacy", _) => Ok(true),
        (_, Some(value)) => Ok(value),
        _ => Err("none of true, false and legacy".to_owned()),
    }
}
