//! `selvedge routes`: the routes of a running edge, and where each came from.

use super::purge::{Endpoint, ask, target_of};
use super::{Exit, say};
use clap::{Args, ValueHint};
use hyper::Method;
use serde::Deserialize;
use std::io::Write;
use std::path::PathBuf;

/// Which routes, and where the server is.
#[derive(Debug, Args)]
pub(super) struct Routes {
    /// Only hosts that contain this text
    #[arg(value_name = "HOST")]
    host: Option<String>,
    /// Print what the server answered, as JSON
    #[arg(long)]
    json: bool,
    /// The admin listener, HOST:PORT or unix:PATH [default: that of --config, else 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    admin: Option<Endpoint>,
    /// The server's configuration file, for the admin listener's address and token
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The environment variable that holds the admin token [default: the token of --config]
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Table {
    sites: Vec<Site>,
    origins: Vec<Origin>,
    notes: Vec<Note>,
    trouble: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Site {
    hosts: Vec<String>,
    source: String,
    https: String,
    certificate: Option<String>,
    refused: Option<String>,
    routes: Vec<Route>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Route {
    path: String,
    origin: String,
    cache: bool,
    servers: Vec<Server>,
    left_out: Vec<LeftOut>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Server {
    address: String,
    container: Option<String>,
    why: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Origin {
    name: String,
    balance: String,
    waiting: usize,
    servers: Vec<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    server: String,
    address: String,
    state: String,
    backup: bool,
    weight: u32,
    present_weight: f64,
    in_flight: usize,
    max_connections: u32,
    latency_ms: Option<f64>,
    ejections: u32,
    check_error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LeftOut {
    container: String,
    why: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Note {
    level: String,
    host: Option<String>,
    container: Option<String>,
    text: String,
}

/// Prints the routes; exit status 1 if something is not served as it was asked for.
pub(super) fn run(
    args: &Routes,
    env: &dyn Fn(&str) -> Option<String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    let Routes { host, json, admin, config, token_env } = args;
    let target = target_of(admin.as_ref(), config.as_ref(), token_env.as_ref(), env);
    let answer = target.and_then(|(endpoint, token)| ask(&endpoint, token.as_ref(), Method::GET, "/routes", None));
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            say(err, &format_args!("error: {error}\n"));
            return error.exit();
        }
    };
    let table: Table = match serde_json::from_slice(&answer) {
        Ok(table) => table,
        Err(error) => {
            say(err, &format_args!("error: this is no answer of a routing table: {error}\n"));
            return Exit::Internal;
        }
    };
    if *json {
        say(out, &String::from_utf8_lossy(&answer));
    } else {
        print(&table, host.as_deref().unwrap_or_default(), out);
    }
    let problems = table.notes.iter().any(|note| note.level == "problem") || table.trouble.is_some();
    if problems { Exit::Failed } else { Exit::Ok }
}

fn print(table: &Table, wanted: &str, out: &mut dyn Write) {
    let mut rows = vec![["HOST", "PATH", "SERVERS", "FROM", "WHY"].map(str::to_owned)];
    for site in table.sites.iter().filter(|site| site.hosts.iter().any(|host| host.contains(wanted))) {
        let Site { hosts, source, https, certificate, refused, routes } = site;
        for route in routes {
            let mut why: Vec<String> =
                route.servers.iter().map(|s| s.why.clone()).filter(|why| !why.is_empty()).collect();
            why.dedup();
            why.extend(route.left_out.iter().map(|left| format!("without {}: {}", left.container, left.why)));
            why.extend(refused.clone());
            why.push(format!("https {https}"));
            why.extend(certificate.as_ref().map(|name| format!("certificate {name}")));
            why.extend(route.cache.then(|| "cached".to_owned()));
            rows.push([hosts.join(" "), route.path.clone(), servers(route), source.clone(), why.join("; ")]);
        }
    }
    columns(&rows, out);
    origins(table, wanted, out);
    for note in table.notes.iter().filter(|note| note.host.as_ref().is_none_or(|host| host.contains(wanted))) {
        let Note { level, host, container, text } = note;
        let about: Vec<&str> = [host, container].into_iter().flatten().map(String::as_str).collect();
        let about = if about.is_empty() { String::new() } else { format!("{}: ", about.join(", ")) };
        say(out, &format_args!("{level}: {about}{text}\n"));
    }
    if let Some(trouble) = &table.trouble {
        say(out, &format_args!("problem: {trouble}; these routes are as last seen\n"));
    }
}

/// The servers of the origins that the printed routes lead to, and of all others where no host is wanted.
fn origins(table: &Table, wanted: &str, out: &mut dyn Write) {
    let sites = || table.sites.iter().filter(|site| site.hosts.iter().any(|host| host.contains(wanted)));
    let printed = |name: &str| sites().any(|site| site.routes.iter().any(|route| route.origin == name));
    let mut rows = vec![["ORIGIN", "SERVER", "STATE", "IN FLIGHT", "DETAILS"].map(str::to_owned)];
    for origin in table.origins.iter().filter(|origin| wanted.is_empty() || printed(&origin.name)) {
        let Origin { name, balance, waiting, servers } = origin;
        for server in servers {
            let in_flight = match server.max_connections {
                0 => server.in_flight.to_string(),
                most => format!("{} of {most}", server.in_flight),
            };
            let address = match server.server == server.address {
                true => server.address.clone(),
                false => format!("{} at {}", server.server, server.address),
            };
            let mut details = vec![balance.clone()];
            details.extend(
                (server.weight != 1 || server.state == "starting")
                    .then(|| format!("weight {:.1} of {}", server.present_weight, server.weight)),
            );
            details.extend(server.backup.then(|| "backup".to_owned()));
            details.extend(server.latency_ms.map(|ms| format!("answers in {ms:.1} ms")));
            details.extend((server.ejections > 0).then(|| format!("ejected {} times in a row", server.ejections)));
            details.extend(server.check_error.as_ref().map(|error| format!("last check: {error}")));
            details.extend((*waiting > 0).then(|| format!("{waiting} requests wait")));
            rows.push([name.clone(), address, server.state.clone(), in_flight, details.join("; ")]);
        }
    }
    if rows.len() > 1 {
        say(out, &"\n");
        columns(&rows, out);
    }
}

fn servers(route: &Route) -> String {
    if route.servers.is_empty() {
        return format!("none ({}): 503", route.origin);
    }
    let server = |s: &Server| match &s.container {
        Some(container) => format!("{}={}", container, s.address),
        None => s.address.clone(),
    };
    route.servers.iter().map(server).collect::<Vec<_>>().join(" ")
}

fn columns(rows: &[[String; 5]], out: &mut dyn Write) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = format!("{}  {}", cells.collect::<Vec<_>>().join("  "), row[4]);
        say(out, &format_args!("{}\n", line.trim_end()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_printed_with_servers_sources_and_notes() {
        let table: Table = serde_json::from_str(
            r#"{"sites":[{"hosts":["a.b"],"source":"container web","https":"redirect","certificate":"a.b","routes":[
            {"path":"/","origin":"docker:a.b/","cache":true,"servers":[{"address":"10.0.0.2:80","container":"web",
            "why":"network app"}],"left_out":[{"container":"old","why":"unhealthy"}]},{"path":"/x","origin":"docker:a.b/x"}]},
            {"hosts":["c.d"],"source":"edge.toml","routes":[{"path":"/","servers":[{"address":"1.2.3.4:5"}]}]}],
            "origins":[{"name":"docker:a.b/","balance":"round-robin","waiting":2,"servers":[{"server":"10.0.0.2:80",
            "address":"10.0.0.2:80","state":"failing","weight":1,"present_weight":1.0,"in_flight":3,"max_connections":8,
            "latency_ms":12.34,"ejections":1,"check_error":"status 503"}]},{"name":"other","servers":[{"server":"x:1",
            "address":"1.1.1.1:1","state":"starting","weight":4,"present_weight":0.4}]}],
            "notes":[{"level":"warning","host":"a.b","container":"web","text":"odd"},{"level":"info","text":"so"}],
            "trouble":"no engine"}"#,
        )
        .unwrap();
        let mut out = Vec::new();
        print(&table, "", &mut out);
        let text = String::from_utf8(out).unwrap();
        for part in [
            "HOST  PATH  SERVERS",
            "a.b   /     web=10.0.0.2:80",
            "container web",
            "network app; without old: unhealthy; https redirect; certificate a.b; cached",
            "a.b   /x    none (docker:a.b/x): 503",
            "c.d   /     1.2.3.4:5",
            "10.0.0.2:80       failing   3 of 8",
            "round-robin; answers in 12.3 ms; ejected 1 times in a row; last check: status 503; 2 requests wait",
            "x:1 at 1.1.1.1:1",
            "weight 0.4 of 4",
            "warning: a.b, web: odd",
            "info: so",
            "problem: no engine",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let mut out = Vec::new();
        print(&table, "c.d", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("a.b") && !text.contains("x:1"), "{text}");
    }
}
