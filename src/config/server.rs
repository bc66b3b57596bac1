//! `[runtime]`, `[listen]`, `[admin]`, `[tls]`, `[cache]`, `[access_log]`, `[debug]`.

use super::Runtime;
use super::problem::nearest;
use super::reader::{Table, Value};
use crate::cache::admission::Rule;
use crate::{admin, cache, proxy, tls};
use proxy::{access_log, explain};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Memory tier where the file does not size it.
const DEFAULT_MEMORY: u64 = 256 << 20;
/// Below this a capacity is a forgotten unit rather than a wish.
const LEAST_MEMORY: u64 = 1 << 20;
const SEGMENT_SIZES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;
const SYNC_TIMES: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// What `[listen]` gives: the clients' listeners, and the values that other tables depend on.
pub(super) struct Listeners<'a> {
    pub settings: proxy::listen::Settings,
    /// `head_timeout`, `keepalive_timeout`, `keepalive_requests` and `hot_path`.
    pub connections: proxy::hot::Settings,
    /// The `https` key, if it has addresses.
    pub https: Option<Value<'a>>,
    /// The `admin` key.
    pub admin: Option<(admin::Address, Value<'a>)>,
}

pub(super) fn runtime(table: &Table<'_>) -> Runtime {
    let default = Runtime::default();
    let threads = table.get("threads").and_then(|v| v.integer(1..=1024)).and_then(|n| usize::try_from(n).ok());
    let shutdown_grace = table.get("shutdown_grace").and_then(|v| v.duration());
    Runtime {
        threads: threads.unwrap_or(default.threads),
        shutdown_grace: shutdown_grace.unwrap_or(default.shutdown_grace),
    }
}

pub(super) fn listen<'a>(table: &Table<'a>) -> Listeners<'a> {
    let http = table.get("http");
    let https = table.get("https");
    let mut taken = Vec::new();
    let http_addresses = http.as_ref().map(|v| addresses(v, &mut taken)).unwrap_or_default();
    let https_addresses = https.as_ref().map(|v| addresses(v, &mut taken)).unwrap_or_default();
    let admin = table.get("admin").and_then(|value| {
        let address = admin_address(&value)?;
        if let admin::Address::Tcp(tcp) = address {
            claim(tcp, &value, &mut taken);
        }
        Some((address, value))
    });
    let written = |v: &Option<Value<'_>>| v.as_ref().is_some_and(|v| !v.is_empty_array());
    if !written(&http) && !written(&https) {
        let remedy = "add `http = [\"0.0.0.0:80\"]` to [listen]";
        table.document.absence(table.span.start, "listen.http", "there is no address to listen on", remedy);
    }
    let handshake_timeout = table.get("handshake_timeout").and_then(|v| v.timeout());
    let max_connections = table.get("max_connections").and_then(|v| v.integer(1..=10_000_000));
    let settings = proxy::listen::Settings {
        http: http_addresses,
        https: https_addresses,
        handshake_timeout: handshake_timeout.unwrap_or(Duration::from_secs(10)),
        max_connections: max_connections.and_then(|n| usize::try_from(n).ok()).unwrap_or(65_536),
        proxy_protocol: table.get("proxy_protocol").map(|v| super::settings::networks(&v)).unwrap_or_default(),
    };
    let https = https.filter(|_| !settings.https.is_empty());
    Listeners { settings, connections: connections(table), https, admin }
}

fn connections(table: &Table<'_>) -> proxy::hot::Settings {
    let default = proxy::hot::Settings::default();
    let head_timeout = table.get("head_timeout").and_then(|v| v.timeout());
    let keepalive_timeout = table.get("keepalive_timeout").and_then(|v| v.timeout());
    let keepalive_requests = table.get("keepalive_requests").and_then(|v| v.integer(1..=u32::MAX.into()));
    proxy::hot::Settings {
        head_timeout: head_timeout.unwrap_or(default.head_timeout),
        keepalive_timeout: keepalive_timeout.unwrap_or(default.keepalive_timeout),
        keepalive_requests: keepalive_requests.and_then(|n| u32::try_from(n).ok()),
        enabled: table.get("hot_path").and_then(|v| v.boolean()).unwrap_or(default.enabled),
    }
}

/// `[admin]`, with the address from `[listen]`.
pub(super) fn admin(root: &Table<'_>, listener: Option<(admin::Address, Value<'_>)>) -> Option<admin::Settings> {
    let mut declared = false;
    let token = root.section("admin", |table| {
        let token = table.get("token");
        declared = token.is_some();
        if let (Some(token), None) = (&token, &listener) {
            token.document.absence(
                token.span.start,
                &token.path,
                "`admin.token` has no effect: there is no admin listener",
                "add `admin = \"127.0.0.1:9090\"` to [listen], or remove the token",
            );
        }
        token.and_then(|v| v.secret())
    });
    let (address, value) = listener?;
    let open = matches!(address, admin::Address::Tcp(tcp) if !tcp.ip().to_canonical().is_loopback());
    if open && !declared {
        value.document.absence(
            value.span.start,
            &value.path,
            format!("`listen.admin` is \"{}\", open to other machines without a token", value.shown()),
            "add `[admin]` with `token = { env = \"SELVEDGE_ADMIN_TOKEN\" }`, or listen on 127.0.0.1 or a unix socket",
        );
    }
    Some(admin::Settings { address, token: token.flatten() })
}

/// `[tls]`, which an HTTPS listener needs.
pub(super) fn tls(root: &Table<'_>, https: Option<&Value<'_>>) -> Option<tls::Settings> {
    let present = root.get("tls");
    if let (None, Some(https)) = (&present, https) {
        https.document.absence(
            https.span.start,
            &https.path,
            "`listen.https` has addresses, but there is no [tls]",
            "add `[tls]` with `certificates = \"certs\"`, the folder of <host>.crt and <host>.key",
        );
    }
    present?.table(|table| {
        let certificates = table.required("certificates", "\"certs\"").and_then(|v| v.path("\"certs\""));
        let versions = [("1.2", tls::MinVersion::Tls12), ("1.3", tls::MinVersion::Tls13)];
        let min_version = table.get("min_version").and_then(|v| v.one_of(&versions)).unwrap_or_default();
        Some(tls::Settings { certificates: certificates?, min_version })
    })?
}

/// `[cache]` and its tiers; a memory tier alone where the file says nothing.
pub(super) fn cache(root: &Table<'_>) -> Option<cache::Settings> {
    let grace = cache::Settings::DEFAULT_GRACE;
    let slice_size = cache::slices::DEFAULT_SLICE;
    let default = cache::Settings { memory_capacity: DEFAULT_MEMORY, disk: None, max_object: None, slice_size, grace };
    let Some(value) = root.get("cache") else { return Some(default) };
    value.table(|table| {
        let enabled = table.get("enabled").and_then(|v| v.boolean()).unwrap_or(true);
        let memory = table.get("memory").and_then(|v| v.table(memory)).flatten();
        let disk_value = table.get("disk");
        let disk_declared = disk_value.is_some();
        let disk = disk_value.and_then(|v| v.table(disk)).flatten();
        let memory_capacity = memory.unwrap_or(DEFAULT_MEMORY);
        if enabled && memory_capacity == 0 && !disk_declared {
            table.absence(
                "no cache tier is left: `cache.memory.capacity` is 0 and there is no [cache.disk]",
                "to cache nothing write `[cache]` with `enabled = false`",
            );
        }
        let max_object = table.get("max_object").and_then(|value| {
            let size = value.size()?;
            if size == 0 {
                value.problem("`cache.max_object` is 0 B, out of range", "write a size from 1 B, or `enabled = false`");
            }
            Some(size)
        });
        let slice_size = table.get("slice_size").and_then(|value| {
            let size = value.size()?;
            if !size.is_power_of_two() || !cache::slices::SLICE_SIZES.contains(&size) {
                value.problem(
                    format!("`cache.slice_size` is {}, out of range", crate::types::ByteSize(size)),
                    "write a power of two from 64 KiB to 16 MiB, as in \"1 MiB\"",
                );
            }
            Some(size)
        });
        let slice_size = slice_size.unwrap_or(default.slice_size);
        let grace = table.get("grace").and_then(|v| v.duration());
        let grace = grace.map_or(default.grace, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
        enabled.then_some(cache::Settings { memory_capacity, disk, max_object, slice_size, grace })
    })?
}

/// `[purge]`. The method needs a token unless every listener is on this machine alone.
pub(super) fn purge(root: &Table<'_>, listen: Option<&proxy::listen::Settings>) -> proxy::purge::Settings {
    let read = |table: &Table<'_>| {
        let method = table.get("method");
        let token = table.get("token");
        let expose_tags = table.get("expose_tags").and_then(|v| v.boolean()).unwrap_or_default();
        let on = method.as_ref().and_then(|v| v.boolean()).unwrap_or_default();
        let mut addresses = listen.into_iter().flat_map(|listen| listen.http.iter().chain(&listen.https));
        let open = addresses.any(|address| !address.ip().to_canonical().is_loopback());
        if let (true, true, None, Some(method)) = (on, open, &token, &method) {
            method.document.absence(
                method.span.start,
                &method.path,
                "`purge.method` lets every client purge: there is a listener for other machines and no token",
                "add `token = { env = \"SELVEDGE_PURGE_TOKEN\" }` to [purge], or leave purging to the admin listener",
            );
        }
        if let (false, Some(token)) = (on, &token) {
            token.document.absence(
                token.span.start,
                &token.path,
                "`purge.token` has no effect: the PURGE method is off",
                "add `method = true` to [purge], or remove the token",
            );
        }
        proxy::purge::Settings { method: on, token: token.and_then(|v| v.secret()), expose_tags }
    };
    root.section("purge", read).unwrap_or_default()
}

pub(super) fn access_log(table: &Table<'_>) -> access_log::Settings {
    let default = default_access_log();
    let formats = [
        ("json", access_log::Format::Json),
        ("combined", access_log::Format::Combined),
        ("off", access_log::Format::Off),
    ];
    let format = table.get("format").and_then(|v| v.one_of(&formats));
    let output = table.get("output").and_then(|v| output(&v));
    access_log::Settings {
        format: format.unwrap_or(default.format),
        template: template(table),
        output: output.unwrap_or(default.output),
    }
}

/// `template` and `escape` of `[access_log]`.
fn template(table: &Table<'_>) -> Option<Arc<access_log::Template>> {
    use access_log::{Escape, Template};
    let words = [("default", Escape::Default), ("json", Escape::Json), ("none", Escape::None)];
    let escape = table.get("escape");
    let value = table.get("template");
    if let (Some(escape), None) = (&escape, &value) {
        escape.problem("`access_log.escape` has no effect without a `template`", "add one, or remove this key");
    }
    let escape = escape.and_then(|v| v.one_of(&words)).unwrap_or_default();
    let value = value?;
    let (template, unknown) = Template::parse(value.text("\"$host $remote_addr $status\"")?, escape);
    if !unknown.is_empty() {
        value.problem(
            format!("`access_log.template` has ${}, which there is not", unknown.join(" and $")),
            format!("write one of {}", Template::variables()),
        );
    }
    Some(Arc::new(template))
}

pub(super) fn default_access_log() -> access_log::Settings {
    access_log::Settings { format: access_log::Format::Json, template: None, output: access_log::Output::Stderr }
}

/// `[debug]`. A token that could be guessed would tell strangers the origin's addresses.
pub(super) fn debug(table: &Table<'_>) -> explain::Settings {
    let token = table.get("token").and_then(|value| {
        let token = value.secret()?;
        if token.expose().len() < explain::Settings::LEAST_TOKEN {
            value.problem(
                format!("`{}` has less than {} characters", value.path, explain::Settings::LEAST_TOKEN),
                "take a random one, as `openssl rand -hex 16` gives",
            );
        }
        Some(token)
    });
    let server_timing = table.get("server_timing").and_then(|v| v.boolean()).unwrap_or(false);
    explain::Settings { token, server_timing }
}

fn memory(table: &Table<'_>) -> Option<u64> {
    let value = table.required("capacity", "\"256 MiB\"")?;
    let capacity = value.size()?;
    if capacity != 0 && capacity < LEAST_MEMORY {
        value.problem(
            format!("`cache.memory.capacity` is {}, too small to be of use", crate::types::ByteSize(capacity)),
            "write at least \"1 MiB\", or 0 to turn the memory tier off",
        );
    }
    Some(capacity)
}

fn disk(table: &Table<'_>) -> Option<cache::disk::Settings> {
    let path = table.required("path", "\"cache\"").and_then(|v| v.path("\"cache\""));
    let segment_size = table.get("segment_size").and_then(|value| {
        let size = value.size()?;
        let fits = size.is_power_of_two() && SEGMENT_SIZES.contains(&size);
        if !fits {
            value.problem(
                format!("`cache.disk.segment_size` is {}, not a power of two in range", crate::types::ByteSize(size)),
                "write a power of two from \"1 MiB\" to \"1 GiB\"",
            );
        }
        fits.then_some(size)
    });
    let segment_size = segment_size.unwrap_or(cache::disk::Settings::DEFAULT_SEGMENT_SIZE);
    let rules = [Rule::SecondUse, Rule::All].map(|rule| (rule.as_str(), rule));
    let admission = table.get("admission").and_then(|v| v.one_of(&rules)).unwrap_or_default();
    let value = table.required("capacity", "\"10 GiB\"");
    let capacity = value.and_then(|value| {
        let capacity = value.size()?;
        if capacity < 4 * segment_size {
            let (given, least) = (crate::types::ByteSize(capacity), crate::types::ByteSize(4 * segment_size));
            value.problem(
                format!("`cache.disk.capacity` is {given}, less than four segments"),
                format!("write at least \"{least}\", or a smaller `segment_size`"),
            );
        }
        Some(capacity)
    });
    let sync = table.get("sync").map_or(Some(cache::disk::SyncPolicy::default()), |value| sync_policy(&value));
    Some(cache::disk::Settings { path: path?, capacity: capacity?, segment_size, sync: sync?, admission })
}

/// `"close"`, `"always"`, or how often.
fn sync_policy(value: &Value<'_>) -> Option<cache::disk::SyncPolicy> {
    use cache::disk::SyncPolicy;
    const REMEDY: &str = "write \"close\", \"always\" or how often, as in \"5s\"";
    match value.string("\"5s\"")? {
        "close" => Some(SyncPolicy::Close),
        "always" => Some(SyncPolicy::Always),
        text if !text.starts_with(|c: char| c.is_ascii_digit()) => {
            value.problem(format!("`cache.disk.sync` is \"{text}\", not a time to synchronise"), REMEDY);
            None
        }
        _ => {
            let time = value.duration()?;
            if !SYNC_TIMES.contains(&time) {
                value.problem(
                    format!("`cache.disk.sync` is \"{}\", out of range", humantime::format_duration(time)),
                    "write a time from \"10ms\" to \"1h\"",
                );
                return None;
            }
            Some(SyncPolicy::Every(time))
        }
    }
}

fn output(value: &Value<'_>) -> Option<access_log::Output> {
    const EXAMPLE: &str = "\"stderr\"";
    match value.text(EXAMPLE)? {
        "stdout" => Some(access_log::Output::Stdout),
        "stderr" => Some(access_log::Output::Stderr),
        name => {
            // A slip in one of the two words would otherwise become a file in an unexpected place.
            if let Some(near) = nearest(name, ["stdout", "stderr"]) {
                value.problem(
                    format!(
                        "`access_log.output` is \"{}\", neither stdout nor stderr nor clearly a path",
                        value.shown()
                    ),
                    format!("did you mean \"{near}\"? A file of this name is \"./{}\"", value.shown()),
                );
                return None;
            }
            value.path(EXAMPLE).map(access_log::Output::File)
        }
    }
}

/// Addresses and ports; each is noted in `taken`.
pub(super) fn addresses(value: &Value<'_>, taken: &mut Vec<(SocketAddr, String)>) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for element in value.array("[\"0.0.0.0:80\"]").unwrap_or_default() {
        if let Some(address) = element.string("[\"0.0.0.0:80\"]").and_then(|text| socket_address(text, &element)) {
            claim(address, &element, taken);
            addresses.push(address);
        }
    }
    addresses
}

/// Notes that `value` takes the address, unless another key did before. Port 0 is any free port, so never taken.
fn claim(address: SocketAddr, value: &Value<'_>, taken: &mut Vec<(SocketAddr, String)>) {
    match taken.iter().find(|(other, _)| *other == address && address.port() != 0) {
        Some((_, key)) => value.problem(
            format!("`{}` is \"{address}\", which `{key}` listens on already", value.path),
            "give each listener an address or a port of its own",
        ),
        None => taken.push((address, value.path.clone())),
    }
}

fn admin_address(value: &Value<'_>) -> Option<admin::Address> {
    let text = value.text("\"127.0.0.1:9090\"")?;
    match text.strip_prefix("unix:") {
        Some("") => {
            value.problem("`listen.admin` names no socket", "write it as in \"unix:/run/selvedge/admin.sock\"");
            None
        }
        Some(path) => Some(admin::Address::Unix(value.document.base.join(path))),
        None => socket_address(text, value).map(admin::Address::Tcp),
    }
}

fn socket_address(text: &str, value: &Value<'_>) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let remedy = match text.rsplit_once(':') {
        Some(("", port)) => format!("write \"0.0.0.0:{port}\" for IPv4 or \"[::]:{port}\" for every address"),
        Some(("localhost", port)) => format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
        _ => "write an IP address and a port, as in \"0.0.0.0:80\" or \"[::]:80\"".to_owned(),
    };
    value.problem(format!("`{}` is \"{}\", not an address and port", value.path, value.shown()), remedy);
    None
}
