//! A container's settings by name, whichever way they are written.

use crate::discovery::Container;
use crate::discovery::container::LABEL_PREFIXES;
use std::collections::BTreeMap;

/// One setting: a variable's name. As a label it is the same in lower case, with `-`, `_` and `.` alike, behind either
/// prefix, and without `SELVEDGE_`: `SELVEDGE_RATE_LIMIT` is `selvedge.rate-limit`.
pub(super) type Key = &'static str;

/// Every setting a container can have, ours last.
pub(super) const KEYS: [Key; 49] = [
    "VIRTUAL_HOST",
    "VIRTUAL_PORT",
    "VIRTUAL_PATH",
    "VIRTUAL_DEST",
    "VIRTUAL_PROTO",
    "VIRTUAL_ROOT",
    "VIRTUAL_HOST_MULTIPORTS",
    "EXTERNAL_HTTP_PORT",
    "EXTERNAL_HTTPS_PORT",
    "CERT_NAME",
    "TRUST_DEFAULT_CERT",
    "HTTPS_METHOD",
    "NON_GET_REDIRECT",
    "ENABLE_HTTP_ON_MISSING_CERT",
    "HSTS",
    "SSL_POLICY",
    "SSL_VERIFY_CLIENT",
    "NETWORK_ACCESS",
    "SERVER_TOKENS",
    "HTTP2_ENABLE",
    "HTTP3_ENABLE",
    "LOADBALANCE",
    "KEEPALIVE",
    "DEBUG_ENDPOINT",
    "ACME_HTTP_CHALLENGE_LOCATION",
    "ACME_HOST",
    "ACME_EMAIL",
    "ACME_CA_URI",
    "ACME_CHALLENGE",
    "ACME_SINGLE_DOMAIN_CERTS",
    "ACME_KEYSIZE",
    "ACME_CERT_PROFILE",
    "ACME_RENEW_AFTER",
    "LETSENCRYPT_HOST",
    "LETSENCRYPT_EMAIL",
    "LETSENCRYPT_TEST",
    "SELVEDGE_CACHE",
    "SELVEDGE_COMPRESS",
    "SELVEDGE_MAX_BODY",
    "SELVEDGE_READ_TIMEOUT",
    "SELVEDGE_CONNECT_TIMEOUT",
    "SELVEDGE_REQUEST_HEADERS",
    "SELVEDGE_RESPONSE_HEADERS",
    "SELVEDGE_WWW",
    "SELVEDGE_RATE_LIMIT",
    "SELVEDGE_BASIC_AUTH",
    "SELVEDGE_ALLOW",
    "SELVEDGE_TAGS",
    "SELVEDGE_SWARM",
];

/// A container with its labels by setting.
pub(super) struct Settings<'a> {
    pub container: &'a Container,
    labels: BTreeMap<Key, &'a str>,
    /// Labels and variables that look like ours and are none.
    pub unknown: Vec<&'a str>,
}

impl<'a> Settings<'a> {
    pub(super) fn of(container: &'a Container) -> Self {
        let mut labels = BTreeMap::new();
        let mut unknown = Vec::new();
        for prefix in LABEL_PREFIXES {
            for (label, value) in &container.labels {
                let Some(rest) = label.strip_prefix(prefix) else { continue };
                match KEYS.iter().find(|key| same(key, rest)) {
                    // Ours come first and stay.
                    Some(key) => drop(labels.entry(*key).or_insert(value.as_str())),
                    None => unknown.push(label.as_str()),
                }
            }
        }
        let ours = container.env.keys().filter(|name| name.starts_with("SELVEDGE_"));
        unknown.extend(ours.map(String::as_str).filter(|name| !KEYS.contains(name)));
        Self { container, labels, unknown }
    }

    /// The setting's value, white space around it removed; the variable wins over the label. An empty one is none.
    pub(super) fn get(&self, key: Key) -> Option<&'a str> {
        self.raw(key).map(str::trim).filter(|value| !value.is_empty())
    }

    /// The same, empty ones included.
    pub(super) fn raw(&self, key: Key) -> Option<&'a str> {
        self.container.env.get(key).map(String::as_str).or_else(|| self.labels.get(key).copied())
    }
}

/// Whether a label without its prefix names the setting.
fn same(key: &str, label: &str) -> bool {
    let plain = key.strip_prefix("SELVEDGE_").unwrap_or(key);
    let fold = |b: u8| if matches!(b, b'-' | b'.') { b'_' } else { b.to_ascii_uppercase() };
    [plain, key].iter().any(|name| name.bytes().eq(label.bytes().map(fold)))
}

/// Reads nginx-proxy's booleans.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" | "yes" | "on" => Some(true),
        "false" | "0" | "f" | "no" | "off" => Some(false),
        _ => None,
    }
}
