//! Our own variables, `SELVEDGE_…`.

use super::keys::{Key, boolean};
use super::site::{Caching, RateLimit, SwarmAddress, Www};
use super::vhost::Directives;
use crate::types::ByteSize;
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

/// `on`, `off`, or a lifetime for what tells none.
pub(super) fn caching(text: &str) -> Result<Caching, String> {
    match boolean(text) {
        Some(true) => Ok(Caching::On),
        Some(false) => Ok(Caching::Off),
        None => match humantime::parse_duration(text) {
            Ok(lifetime) if lifetime >= Duration::from_secs(1) => Ok(Caching::Default(lifetime)),
            _ => Err(format!("SELVEDGE_CACHE is `{text}`; write on, off, or a lifetime as in `10m`")),
        },
    }
}

/// `tasks` or `vip`.
pub(super) fn swarm(text: &str) -> Result<SwarmAddress, String> {
    match text.to_ascii_lowercase().as_str() {
        "tasks" => Ok(SwarmAddress::Tasks),
        "vip" => Ok(SwarmAddress::Vip),
        _ => Err(format!("SELVEDGE_SWARM is `{text}`; write tasks (each replica's address) or vip (the service's)")),
    }
}

/// `add` or `strip`.
pub(super) fn www(text: &str) -> Result<Option<Www>, String> {
    match text.to_ascii_lowercase().as_str() {
        "add" | "www" => Ok(Some(Www::Add)),
        "strip" | "apex" => Ok(Some(Www::Strip)),
        "off" | "false" => Ok(None),
        _ => Err(format!("SELVEDGE_WWW is `{text}`; write add (to www.) or strip (to the name without it)")),
    }
}

/// `100/s`, `10/m burst=20`.
pub(super) fn rate_limit(text: &str) -> Result<RateLimit, String> {
    let error = || format!("SELVEDGE_RATE_LIMIT is `{text}`; write it as in `100/s` or `600/m burst=50`");
    let mut words = text.split_whitespace();
    let (count, unit) = words.next().and_then(|rate| rate.split_once('/')).ok_or_else(error)?;
    let requests: u32 = count.parse().ok().filter(|count| *count > 0).ok_or_else(error)?;
    let per = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(error()),
    };
    let mut burst = requests;
    for word in words {
        burst = word.strip_prefix("burst=").and_then(|n| n.parse().ok()).ok_or_else(error)?;
    }
    Ok(RateLimit { requests, per: Duration::from_secs(per), burst })
}

/// Addresses and networks, separated by commas or white space.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let parts = text.split([',', ' ', '\n']).map(str::trim).filter(|part| !part.is_empty());
    let network = |part: &str| part.parse::<IpNet>().ok().or_else(|| part.parse::<IpAddr>().ok().map(IpNet::from));
    parts
        .map(|part| network(part).ok_or_else(|| format!("SELVEDGE_ALLOW has `{part}`, not an address or a network")))
        .collect()
}

/// Puts limits, timeouts and fields over what the `vhost.d` file says; returns what cannot be used.
pub(super) fn directives<'a>(get: &mut dyn FnMut(Key) -> Option<&'a str>, out: &mut Directives) -> Vec<String> {
    let mut odd = Vec::new();
    if let Some(text) = get("SELVEDGE_MAX_BODY") {
        match super::vhost::size(text).ok().or_else(|| text.parse::<ByteSize>().ok().map(|size| size.0)) {
            Some(bytes) => out.max_body = Some(bytes),
            None => odd.push(format!("SELVEDGE_MAX_BODY is `{text}`; write a size as in `20 MiB`, or 0 for no limit")),
        }
    }
    for (key, slot) in
        [("SELVEDGE_READ_TIMEOUT", &mut out.read_timeout), ("SELVEDGE_CONNECT_TIMEOUT", &mut out.connect_timeout)]
    {
        let Some(text) = get(key) else { continue };
        match super::vhost::duration(text) {
            Ok(time) if !time.is_zero() => *slot = Some(time),
            _ => odd.push(format!("{key} is `{text}`; write a time as in `90s`")),
        }
    }
    if let Some(text) = get("SELVEDGE_REQUEST_HEADERS") {
        fields(text, &mut out.request_set, &mut out.request_remove, &mut odd);
    }
    if let Some(text) = get("SELVEDGE_RESPONSE_HEADERS") {
        fields(text, &mut out.response_set, &mut out.response_remove, &mut odd);
    }
    if let Some(text) = get("SELVEDGE_COMPRESS") {
        match boolean(text) {
            Some(value) => out.gzip = Some(value),
            None => odd.push(format!("SELVEDGE_COMPRESS is `{text}`; write on or off")),
        }
    }
    odd
}

/// `Name: value` sets and `-Name` removes; one to a line, or separated by `||`.
fn fields(text: &str, set: &mut Vec<(String, String)>, remove: &mut Vec<String>, odd: &mut Vec<String>) {
    for line in text.lines().flat_map(|line| line.split("||")).map(str::trim).filter(|line| !line.is_empty()) {
        let name = |text: &str| http::HeaderName::try_from(text.trim()).ok().map(|name| name.as_str().to_owned());
        match (line.strip_prefix('-').map(name), line.split_once(':')) {
            (Some(Some(name)), _) => remove.push(name),
            (None, Some((left, value))) if name(left).is_some() => {
                set.extend(name(left).map(|n| (n, value.trim().to_owned())))
            }
            _ => odd.push(format!("`{line}` is no field; write `Name: value` to set it or `-Name` to remove it")),
        }
    }
}

/// Purge tags, separated by commas or white space.
pub(super) fn tags(text: &str) -> Vec<String> {
    text.split([',', ' ', '\n']).map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}
