//! Which hosts, paths and ports a container asks for.

use super::address;
use super::keys::Settings;
use std::collections::BTreeSet;
use yaml_rust2::{Yaml, YamlLoader};

/// One path of one host, as one container asks for it.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// Lower case, but for regexes.
    pub host: String,
    pub path: String,
    /// And where it comes from; an error is why there is none.
    pub port: Result<(u16, &'static str), String>,
    /// `None`: not said.
    pub proto: Option<String>,
    /// `None`: not said; empty: the path stays.
    pub dest: Option<String>,
    pub external_http: Option<Result<u16, String>>,
    pub external_https: Option<Result<u16, String>>,
    /// From `VIRTUAL_HOST_MULTIPORTS`, whose ports of the host win over others'.
    pub multiports: bool,
}

/// What one container asks for, and what is wrong with it.
pub(super) fn claims(settings: &Settings<'_>, warn: &mut dyn FnMut(String)) -> Vec<Claim> {
    let mut claims = match settings.get("VIRTUAL_HOST_MULTIPORTS") {
        Some(text) => multiports(settings, text, warn).unwrap_or_else(|error| {
            warn(format!("VIRTUAL_HOST_MULTIPORTS cannot be used, so none of its hosts is served: {error}"));
            Vec::new()
        }),
        None => plain(settings),
    };
    // One container is one server of a path, however often it names it.
    let mut seen = BTreeSet::new();
    claims.retain(|claim| seen.insert((claim.host.clone(), claim.path.clone())));
    claims
}

/// The hosts of a comma-separated list, in the order of the list.
pub(super) fn host_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|host| !host.is_empty()).map(normal).collect()
}

fn normal(host: &str) -> String {
    if host.starts_with('~') { host.to_owned() } else { host.trim_end_matches('.').to_ascii_lowercase() }
}

fn plain(settings: &Settings<'_>) -> Vec<Claim> {
    let external = |key| settings.get(key).map(|text| port_number(text, key));
    let claim = |host| Claim {
        host,
        path: settings.get("VIRTUAL_PATH").unwrap_or("/").to_owned(),
        port: address::port(settings),
        proto: settings.get("VIRTUAL_PROTO").map(str::to_ascii_lowercase),
        dest: settings.raw("VIRTUAL_DEST").map(|dest| dest.trim().to_owned()),
        external_http: external("EXTERNAL_HTTP_PORT"),
        external_https: external("EXTERNAL_HTTPS_PORT"),
        multiports: false,
    };
    host_list(settings.get("VIRTUAL_HOST").unwrap_or_default()).into_iter().map(claim).collect()
}

fn multiports(settings: &Settings<'_>, text: &str, warn: &mut dyn FnMut(String)) -> Result<Vec<Claim>, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| {
        format!("it is neither YAML nor JSON: {error}; write it as in `www.example.com: {{\"/\": {{port: 8080}}}}`")
    })?;
    let hosts = match documents.as_slice() {
        [Yaml::Hash(hosts)] => hosts,
        [] => return Ok(Vec::new()),
        _ => return Err("it is no table of hosts; write it as in `www.example.com: {\"/\": {port: 8080}}`".to_owned()),
    };
    let mut claims = Vec::new();
    for (host, paths) in hosts {
        let Some(host) = host.as_str().map(str::trim).filter(|host| !host.is_empty()) else {
            warn(format!("VIRTUAL_HOST_MULTIPORTS has {} where a host belongs; it is skipped", shown(host)));
            continue;
        };
        claims.extend(host_of(settings, &normal(host), paths, warn)?);
    }
    Ok(claims)
}

fn host_of(
    settings: &Settings<'_>,
    host: &str,
    value: &Yaml,
    warn: &mut dyn FnMut(String),
) -> Result<Vec<Claim>, String> {
    let mut base = Claim {
        host: host.to_owned(),
        path: "/".to_owned(),
        port: address::default_port(settings.container),
        proto: None,
        dest: None,
        external_http: None,
        external_https: None,
        multiports: true,
    };
    let table = match value {
        Yaml::Null | Yaml::BadValue => return Ok(vec![base]),
        Yaml::Hash(table) => table,
        other => return Err(format!("`{host}` is {}, not a table of paths", shown(other))),
    };
    let mut paths = Vec::new();
    for (key, value) in table {
        match key.as_str().map(str::trim) {
            Some("external_http_port") => base.external_http = Some(port_of(value, "external_http_port")),
            Some("external_https_port") => base.external_https = Some(port_of(value, "external_https_port")),
            Some(path) if path.starts_with('/') => paths.push((path, value)),
            _ => warn(format!(
                "VIRTUAL_HOST_MULTIPORTS: {} of `{host}` is skipped: it does not begin with `/`",
                shown(key)
            )),
        }
    }
    if paths.is_empty() {
        return Ok(vec![base]);
    }
    paths.into_iter().map(|(path, value)| path_of(&base, path, value, warn)).collect()
}

fn path_of(base: &Claim, path: &str, value: &Yaml, warn: &mut dyn FnMut(String)) -> Result<Claim, String> {
    let mut claim = Claim { path: path.to_owned(), ..base.clone() };
    let table = match value {
        Yaml::Null | Yaml::BadValue => return Ok(claim),
        Yaml::Hash(table) => table,
        other => return Err(format!("`{path}` is {}, not a table with port, proto and dest", shown(other))),
    };
    for (key, value) in table {
        match key.as_str() {
            Some("port") => {
                claim.port = match value {
                    Yaml::String(text) if text == "default" => address_default(base),
                    other => port_of(other, "port").map(|port| (port, "VIRTUAL_HOST_MULTIPORTS")),
                }
            }
            Some("proto") => claim.proto = value.as_str().map(|proto| proto.trim().to_ascii_lowercase()),
            Some("dest") => claim.dest = value.as_str().map(|dest| dest.trim().to_owned()),
            _ => warn(format!("VIRTUAL_HOST_MULTIPORTS: {} of `{path}` is skipped: there is no such key", shown(key))),
        }
    }
    Ok(claim)
}

fn address_default(base: &Claim) -> Result<(u16, &'static str), String> {
    base.port.clone()
}

fn port_of(value: &Yaml, key: &str) -> Result<u16, String> {
    match value {
        Yaml::Integer(number) => port_number(&number.to_string(), key),
        Yaml::String(text) => port_number(text, key),
        other => Err(format!("{key} is {}, not a port; write a number from 1 to 65535", shown(other))),
    }
}

fn port_number(text: &str, key: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err(format!("{key} is `{text}`, not a port; write a number from 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

fn shown(value: &Yaml) -> String {
    match value {
        Yaml::String(text) | Yaml::Real(text) => format!("`{text}`"),
        Yaml::Integer(number) => format!("`{number}`"),
        Yaml::Boolean(value) => format!("`{value}`"),
        Yaml::Array(_) => "a list".to_owned(),
        Yaml::Hash(_) => "a table".to_owned(),
        Yaml::Null | Yaml::BadValue | Yaml::Alias(_) => "nothing".to_owned(),
    }
}
