//! `[dns]`: listeners, limits, where clients are, nodes and the zones that lead to them.

mod nodes;
mod policies;
mod zones;

use super::reader::{Table, Value};
use super::server::addresses;
use crate::dns::RateLimit;
use crate::dns::settings::{DataSettings, GeoSettings, ServerSettings, Settings, TcpSettings};
use crate::geo::networks::network_of;
use crate::geo::{Place, database, locate, networks};
use ipnet::IpNet;
use nodes::Members;
use std::time::Duration;

/// `[dns]`; `None` after a problem was written down.
pub(super) fn dns(table: &Table<'_>) -> Option<Settings> {
    let listen = table.required("listen", "[\"0.0.0.0:53\", \"[::]:53\"]");
    let listen = listen.map(|value| {
        let addresses = addresses(&value, &mut Vec::new());
        if value.is_empty_array() {
            value.problem("`dns.listen` is empty", "write `listen = [\"0.0.0.0:53\", \"[::]:53\"]`");
        }
        addresses
    });
    let threads = table.get("threads").and_then(|v| v.integer(1..=256)).and_then(|n| usize::try_from(n).ok());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let server = ServerSettings {
        listen: listen.unwrap_or_default(),
        threads: threads.unwrap_or(cores),
        tcp: table.section("tcp", tcp).unwrap_or(DEFAULT_TCP),
        cookie_key: table.get("cookie_secret").and_then(|v| cookie_key(&v)),
    };
    let number = |key, range, default: u32| {
        table.get(key).and_then(|v| v.integer(range)).and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
    };
    let (udp_payload, amplification) = (number("udp_payload", 512..=4096, 1232), number("amplification", 0..=1000, 3));
    let query_log = number("query_log", 0..=u32::MAX.into(), 0);
    let identity = table.get("identity").and_then(|v| identity(&v)).map(Into::into);
    let rate_limit = match table.get("rate_limit") {
        Some(value) => value.table(rate_limit).flatten(),
        None => Some(DEFAULT_RATE),
    };
    let geo = table.section("geo", geo).unwrap_or_default();
    let members = Members::read(table);
    let (maps, policies) = policies::policies(table, &members);
    let names: Vec<&str> = policies.iter().map(|policy| &*policy.name).collect();
    let zones = zones::zones(table, &names);
    let data = DataSettings {
        udp_payload: u16::try_from(udp_payload).unwrap_or(1232),
        amplification,
        identity,
        rate_limit,
        query_log,
        geo,
        nodes: members.nodes,
        maps,
        policies,
        zones,
    };
    Some(Settings { server, data })
}

const DEFAULT_RATE: RateLimit = RateLimit { per_second: 1000, slip: 2 };
const DEFAULT_TCP: TcpSettings =
    TcpSettings { connections: 1024, connections_per_client: 64, idle_timeout: Duration::from_secs(10) };

fn tcp(table: &Table<'_>) -> TcpSettings {
    let number = |key, default| {
        table.get(key).and_then(|v| v.integer(1..=1_000_000)).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
    };
    TcpSettings {
        connections: number("connections", DEFAULT_TCP.connections),
        connections_per_client: number("connections_per_client", DEFAULT_TCP.connections_per_client),
        idle_timeout: table.get("idle_timeout").and_then(|v| v.timeout()).unwrap_or(DEFAULT_TCP.idle_timeout),
    }
}

/// `None`: turned off.
fn rate_limit(table: &Table<'_>) -> Option<RateLimit> {
    let number = |key, range, default: u32| {
        table.get(key).and_then(|v| v.integer(range)).and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
    };
    let enabled = table.get("enabled").and_then(|v| v.boolean()).unwrap_or(true);
    let per_second = number("responses_per_second", 1..=1_000_000, DEFAULT_RATE.per_second);
    let slip = number("slip", 0..=100, DEFAULT_RATE.slip);
    enabled.then_some(RateLimit { per_second, slip })
}

fn identity(value: &Value<'_>) -> Option<String> {
    let text = value.text("\"edge-1\"")?;
    if text.len() > 64 {
        value.problem(format!("`{}` is longer than 64 bytes", value.path), "write a shorter name");
    }
    Some(text.to_owned())
}

/// 32 hexadecimal digits.
fn cookie_key(value: &Value<'_>) -> Option<[u8; 16]> {
    let secret = value.secret()?;
    let text = secret.expose();
    let byte = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    let key = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    if key.is_none() {
        value.problem(
            format!("`{}` is not 32 hexadecimal digits", value.path),
            "take random ones, as `openssl rand -hex 16` gives, the same for all servers of an address",
        );
    }
    key
}

fn geo(table: &Table<'_>) -> GeoSettings {
    let database = table.get("database").and_then(|value| {
        let path = value.path("\"city.mmdb\"")?;
        if let Err(error) = database::check(&path) {
            value.problem(
                format!("`{}`: {error}", value.path),
                "name a database in MaxMind's format, or make one with `selvedge geo build`",
            );
        }
        Some(path)
    });
    let mut networks: Vec<(IpNet, Place)> = Vec::new();
    if let Some(value) = table.get("networks_file") {
        networks.extend(networks_file(&value).unwrap_or_default());
    }
    if let Some(value) = table.get("networks") {
        value
            .table(|table| networks.extend(table.named().into_iter().filter_map(|(name, v)| inline_network(name, &v))));
    }
    let default = table.get("default").and_then(|v| place(&v));
    GeoSettings { database, networks, default }
}

fn networks_file(value: &Value<'_>) -> Option<Vec<(IpNet, Place)>> {
    let path = value.path("\"networks.csv\"")?;
    let remedy = "write lines of `network,place`, as in `192.0.2.0/24,DE`";
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            value.problem(format!("`{}`: {} cannot be read: {error}", value.path, path.display()), remedy);
            return None;
        }
    };
    match networks::parse(&text) {
        Ok(networks) => Some(networks),
        Err(reason) => {
            value.problem(format!("`{}`: {}, {reason}", value.path, path.display()), remedy);
            None
        }
    }
}

fn inline_network(name: &str, value: &Value<'_>) -> Option<(IpNet, Place)> {
    let place = place(value);
    match network_of(name) {
        Ok(network) => Some((network, place?)),
        Err(reason) => {
            value.problem(format!("`{}`: {reason}", value.path), "write a network as in \"192.0.2.0/24\" = \"DE\"");
            None
        }
    }
}

/// A place by name, code or coordinates.
fn place(value: &Value<'_>) -> Option<Place> {
    let text = value.text("\"Frankfurt\"")?;
    let found = locate(text);
    if found.is_none() {
        value.problem(
            format!("`{}` is \"{}\", a place that is not known", value.path, value.shown()),
            "write a country's code (\"DE\"), a city (\"Frankfurt\"), or latitude and longitude (\"50.11, 8.68\")",
        );
    }
    found
}
