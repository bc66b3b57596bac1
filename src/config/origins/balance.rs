//! How the servers of an HTTP origin share its requests: `servers`, `balance`, `slow_start`, `[….health]`, `[….limits]`.

use super::{host_field, server};
use crate::config::probe;
use crate::config::reader::{Table, Value};
use crate::origin::balance::{Algorithm, HashKey};
use crate::origin::check::{Check, Probe};
use crate::origin::http::{After, Health, Hedge, Limits, Server};
use ::http::{HeaderName, Method};
use std::time::Duration;

const SERVERS: &str = "[\"127.0.0.1:8080\"]";

/// The servers: texts, or tables with an `address` and more.
pub(super) fn servers(value: &Value<'_>, tls: bool) -> Option<Vec<Server>> {
    let elements = value.array(SERVERS)?;
    if elements.is_empty() {
        value.problem(format!("`{}` is empty", value.path), "name at least one server as host:port");
    }
    let mut servers: Vec<Server> = Vec::new();
    for element in elements {
        let one = if element.is_table() {
            element.table(|table| one_server(table, tls)).flatten()
        } else {
            element.string(SERVERS).and_then(|text| server(text, &element, tls)).map(Server::from)
        };
        let Some(one) = one else { continue };
        if servers.iter().any(|other| other.address == one.address) {
            let (host, port) = (&one.address.host, one.address.port);
            let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            let shown = element.as_str().map_or(shown, str::to_owned);
            element.problem(format!("`{}` is \"{shown}\" once more", element.path), "list a server once");
        }
        servers.push(one);
    }
    if !servers.is_empty() && servers.iter().all(|server| server.drain) {
        value.problem(
            format!("every server of `{}` drains, so that nobody would answer", value.path),
            "take `drain = true` off at least one of them",
        );
    }
    Some(servers)
}

fn one_server(table: &Table<'_>, tls: bool) -> Option<Server> {
    let address = table.required("address", "\"127.0.0.1:8080\"");
    let address = address.and_then(|v| v.string("\"127.0.0.1:8080\"").and_then(|text| server(text, &v, tls)));
    let weight = table.get("weight").and_then(|v| whole(&v, 1, 65_535));
    let backup = table.get("backup").and_then(|v| v.boolean());
    let drain = table.get("drain").and_then(|v| v.boolean());
    let max_connections = table.get("max_connections").and_then(|v| whole(&v, 0, 1_000_000));
    Some(Server {
        address: address?,
        weight: weight.unwrap_or(1),
        backup: backup.unwrap_or(false),
        drain: drain.unwrap_or(false),
        max_connections,
    })
}

/// `balance`, and for hashing `hash_key` and `hash_bound`.
pub(super) fn algorithm(table: &Table<'_>) -> Algorithm {
    // Hashing alone has settings, which are filled in below.
    let hash = Algorithm::Hash { key: HashKey::Uri, bound: None };
    let choices = [
        ("round-robin", &Algorithm::RoundRobin),
        ("least-connections", &Algorithm::LeastConnections),
        ("random", &Algorithm::Random),
        ("peak-ewma", &Algorithm::PeakEwma),
        ("client-address", &Algorithm::ClientAddress),
        ("hash", &hash),
    ];
    let chosen = table.get("balance").and_then(|v| v.one_of(&choices)).cloned().unwrap_or_default();
    let (key, bound) = (table.get("hash_key"), table.get("hash_bound"));
    if !matches!(chosen, Algorithm::Hash { .. }) {
        for value in [key, bound].into_iter().flatten() {
            value.problem(
                format!("`{}` has no effect without hashing", value.path),
                "add `balance = \"hash\"`, or remove this key",
            );
        }
        return chosen;
    }
    let key = key.and_then(|v| hash_key(&v)).unwrap_or(HashKey::Uri);
    let bound = bound.map_or(Some(150), |v| v.integer(0..=10_000).and_then(|n| bound_of(&v, n)));
    Algorithm::Hash { key, bound }
}

fn bound_of(value: &Value<'_>, percent: u64) -> Option<u32> {
    if (1..100).contains(&percent) {
        value.problem(
            format!("`{}` is {percent} percent: nobody could take all of its share", value.path),
            "write 100 or more, as in 150, or 0 for no bound",
        );
    }
    u32::try_from(percent).ok().filter(|percent| *percent >= 100)
}

fn hash_key(value: &Value<'_>) -> Option<HashKey> {
    let text = value.text("\"uri\"")?;
    let found = match text.split_once(':') {
        None => match text {
            "path" => Some(HashKey::Path),
            "uri" => Some(HashKey::Uri),
            "client-address" => Some(HashKey::ClientAddress),
            _ => None,
        },
        Some(("header", name)) => name.parse::<HeaderName>().ok().map(HashKey::Header),
        // The names of cookies are tokens, as those of fields are (RFC 6265 section 4.1.1), but case counts.
        Some(("cookie", name)) => name.parse::<HeaderName>().ok().map(|_| HashKey::Cookie(name.to_owned())),
        Some(_) => None,
    };
    if found.is_none() {
        value.problem(
            format!("`{}` is \"{}\", nothing to hash", value.path, value.shown()),
            "write \"path\", \"uri\", \"client-address\", \"header:NAME\" or \"cookie:NAME\"",
        );
    }
    found
}

/// `[….health]`.
pub(super) fn health(table: &Table<'_>) -> Health {
    let default = Health::default();
    let number = |key, most, default| table.get(key).and_then(|v| whole(&v, 0, most)).unwrap_or(default);
    let duration = |key, default| table.get(key).and_then(|v| v.timeout()).unwrap_or(default);
    Health {
        check: check(table),
        max_eject_for: duration("max_eject_for", default.max_eject_for),
        error_rate: number("error_rate", 100, default.error_rate),
        error_window: duration("error_window", default.error_window),
        error_min_requests: number("error_min_requests", 1_000_000, default.error_min_requests),
        fail_statuses: table.get("fail_statuses").map(|v| statuses(&v)).unwrap_or_default(),
        probes: table.get("probes").and_then(|v| whole(&v, 1, 1000)).unwrap_or(default.probes),
        panic: u8::try_from(number("panic", 100, default.panic.into())).unwrap_or_default(),
    }
}

/// Keys that only some kinds of check have.
const OF_HTTP: [&str; 5] = ["method", "path", "status", "host", "body"];
const OF_ALL: [&str; 5] = ["interval", "timeout", "rise", "fall", "jitter"];

#[derive(Clone, Copy, PartialEq)]
enum CheckKind {
    Http,
    Tcp,
    Grpc,
}

fn check(table: &Table<'_>) -> Option<Check> {
    let kinds = [("http", CheckKind::Http), ("tcp", CheckKind::Tcp), ("grpc", CheckKind::Grpc)];
    let kind_value = table.get("check");
    let kind = kind_value.as_ref().and_then(|v| v.one_of(&kinds));
    let of_http = OF_HTTP.map(|key| table.get(key));
    let service = table.get("service");
    let of_all = OF_ALL.map(|key| table.get(key));
    let misplaced = |values: &[Option<Value<'_>>], needed: &str| {
        for value in values.iter().flatten() {
            value.problem(
                format!("`{}` has no effect without {needed}", value.path),
                format!("add {needed}, or remove this key"),
            );
        }
    };
    if kind_value.is_none() {
        misplaced(&of_all, "`check = \"http\"`, \"tcp\" or \"grpc\"");
    }
    // Of a kind that is none nothing else can be said.
    if kind_value.is_none() || kind.is_some_and(|kind| kind != CheckKind::Http) {
        misplaced(&of_http, "`check = \"http\"`");
    }
    if kind_value.is_none() || kind.is_some_and(|kind| kind != CheckKind::Grpc) {
        misplaced(std::slice::from_ref(&service), "`check = \"grpc\"`");
    }
    let probe = match kind? {
        CheckKind::Tcp => Probe::Tcp,
        CheckKind::Grpc => Probe::Grpc {
            service: service.and_then(|v| v.string("\"my.package.Service\"").map(str::to_owned)).unwrap_or_default(),
        },
        CheckKind::Http => http_probe(of_http),
    };
    let [interval, limit, rise, fall, jitter] = of_all;
    let interval = interval.and_then(|v| v.timeout()).unwrap_or(Duration::from_secs(5));
    let number = |value: Option<Value<'_>>, default| value.and_then(|v| whole(&v, 1, 1000)).unwrap_or(default);
    Some(Check {
        probe,
        interval,
        timeout: limit.and_then(|v| v.timeout()).unwrap_or(Duration::from_secs(2)),
        rise: number(rise, 2),
        fall: number(fall, 3),
        jitter: jitter.and_then(|v| whole(&v, 0, 100)).and_then(|n| u8::try_from(n).ok()).unwrap_or(10),
    })
}

fn http_probe([method, path, status, host, body]: [Option<Value<'_>>; 5]) -> Probe {
    let methods = [("GET", &Method::GET), ("HEAD", &Method::HEAD), ("OPTIONS", &Method::OPTIONS)];
    let method = method.and_then(|v| v.one_of(&methods)).cloned().unwrap_or(Method::GET);
    if let Some(value) = body.as_ref().filter(|_| method == Method::HEAD) {
        value.problem(format!("`{}` can never be in the answer to HEAD", value.path), "use `method = \"GET\"`");
    }
    Probe::Http {
        method,
        path: path.and_then(|v| probe::path(&v)).unwrap_or_else(|| "/".to_owned()),
        statuses: status.and_then(|v| probe::statuses(&v, 200..=599)).unwrap_or((200, 399)),
        host: host.and_then(|v| host_field(&v)),
        body: body.and_then(|v| v.text("\"ok\"").map(str::to_owned)),
    }
}

fn statuses(value: &Value<'_>) -> Vec<u16> {
    let elements = value.array("[502, 503]").unwrap_or_default();
    elements.iter().filter_map(|e| e.integer(400..=599)).filter_map(|n| u16::try_from(n).ok()).collect()
}

/// `hedge`: `after` and `max_percent`.
pub(super) fn hedge(table: &Table<'_>) -> Option<Hedge> {
    const EXAMPLE: &str = "\"p95\"";
    let percent = table.get("max_percent").and_then(|v| whole(&v, 1, 100));
    let value = table.required("after", EXAMPLE)?;
    let text = value.text(EXAMPLE)?;
    let after = match text.strip_prefix('p').map(str::parse::<u8>) {
        Some(Ok(percentile @ 50..=99)) => Some(After::Percentile(percentile)),
        Some(_) => {
            value.problem(
                format!("`{}` is \"{}\", not a percentile", value.path, value.shown()),
                "write one from \"p50\" to \"p99\", or a duration such as \"200ms\"",
            );
            None
        }
        None => value.timeout().map(After::Fixed),
    };
    Some(Hedge { after: after?, max_percent: percent.unwrap_or(5) })
}

/// `[….limits]`.
pub(super) fn limits(table: &Table<'_>) -> Limits {
    let default = Limits::default();
    let number = |key, most, default| table.get(key).and_then(|v| whole(&v, 0, most)).unwrap_or(default);
    Limits {
        max_connections: number("max_connections", 1_000_000, default.max_connections),
        queue: number("queue", 1_000_000, default.queue),
        queue_timeout: table.get("queue_timeout").and_then(|v| v.timeout()).unwrap_or(default.queue_timeout),
        retry_percent: number("retry_percent", 1000, default.retry_percent),
        retry_per_second: number("retry_per_second", 1_000_000, default.retry_per_second),
    }
}

fn whole(value: &Value<'_>, least: u32, most: u32) -> Option<u32> {
    value.integer(least.into()..=most.into()).and_then(|n| u32::try_from(n).ok())
}
