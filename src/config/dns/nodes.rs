//! `[dns.nodes.NAME]` and `[dns.check]`.

use super::super::probe;
use super::super::reader::{Table, Value, list};
use super::place;
use crate::dns::settings::{Check, Node, Probe};
use crate::geo::Place;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The nodes, and the names that mean one or several of them.
pub(super) struct Members {
    pub nodes: Vec<Node>,
}

impl Members {
    pub fn read(dns: &Table<'_>) -> Self {
        let common = dns.section("check", check).flatten();
        let mut nodes: Vec<Node> = Vec::new();
        if let Some(value) = dns.get("nodes") {
            value.table(|table| {
                for (name, value) in table.named() {
                    nodes.extend(value.table(|table| node(table, name, common.as_ref())).flatten());
                }
            });
        }
        Self { nodes }
    }

    /// The numbers of the nodes that an array names, each by its own name or its group's, in that order; each once.
    pub fn list(&self, value: &Value<'_>) -> Vec<usize> {
        let mut all = Vec::new();
        for group in self.groups(value) {
            let new: Vec<usize> = group.into_iter().filter(|node| !all.contains(node)).collect();
            all.extend(new);
        }
        all
    }

    /// The same, each name's nodes apart.
    pub fn groups(&self, value: &Value<'_>) -> Vec<Vec<usize>> {
        let elements = value.array("[\"eu\", \"us\"]").unwrap_or_default();
        if elements.is_empty() && value.is_empty_array() {
            value.problem(format!("`{}` is empty", value.path), "name at least one node or group");
        }
        elements.iter().filter_map(|element| self.named(element.text("\"eu\"")?, element)).collect()
    }

    /// The nodes that one name means; `None` after a problem was written down.
    pub fn named(&self, name: &str, value: &Value<'_>) -> Option<Vec<usize>> {
        let means = |node: &Node| &*node.name == name || node.group.as_deref() == Some(name);
        let found: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes.get(*n).is_some_and(means)).collect();
        if found.is_empty() {
            let names = self.nodes.iter().flat_map(|node| [Some(&*node.name), node.group.as_deref()]);
            let names: BTreeSet<&str> = names.flatten().collect();
            let known = if names.is_empty() { "none yet".to_owned() } else { list(names) };
            value.problem(
                format!("`{}` names \"{name}\", neither a node nor a group", value.path),
                format!("write a name of [dns.nodes] or a `group` of them: {known}"),
            );
            return None;
        }
        Some(found)
    }
}

fn node(table: &Table<'_>, name: &str, common: Option<&CheckText>) -> Option<Node> {
    let value = table.required("addresses", "[\"192.0.2.1\", \"2001:db8::1\"]");
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let example = "[\"192.0.2.1\"]";
    for element in value.as_ref().and_then(|v| v.array(example)).unwrap_or_default() {
        match element.text(example).map(str::parse::<IpAddr>) {
            Some(Ok(IpAddr::V4(address))) => v4.push(address),
            Some(Ok(IpAddr::V6(address))) => v6.push(address),
            Some(Err(_)) => element.problem(
                format!("`{}` is \"{}\", not an IP address", element.path, element.shown()),
                "write an address without a port, as in \"192.0.2.1\" or \"2001:db8::1\"",
            ),
            None => {}
        }
    }
    if let Some(value) = value.as_ref().filter(|value| value.is_empty_array()) {
        value.problem(format!("`{}` is empty", value.path), "name the addresses that clients are given");
    }
    let location = table.get("location").and_then(|v| place(&v));
    let group = table.get("group").and_then(|v| v.text("\"eu\"").map(Arc::from));
    let weight = table.get("weight").and_then(|v| v.integer(0..=65_535)).and_then(|n| u32::try_from(n).ok());
    let drain = table.get("drain").and_then(|v| v.boolean()).unwrap_or(false);
    let own = table.get("check").and_then(|v| v.table(check));
    let mut node = Node {
        name: name.into(),
        v4,
        v6,
        place: location.unwrap_or(Place::UNKNOWN),
        group,
        weight: weight.unwrap_or(1),
        drain,
        check: None,
    };
    // A table of its own that is turned off turns the common one off, too.
    let text = own.as_ref().map_or(common, Option::as_ref);
    node.check = text.and_then(|text| text.of(&node));
    Some(node).filter(|node| node.address().is_some())
}

/// A check without the address that a node gives it.
struct CheckText {
    probe: Probe,
    address: Option<IpAddr>,
    port: u16,
    interval: Duration,
    timeout: Duration,
    rise: u32,
    fall: u32,
}

impl CheckText {
    fn of(&self, node: &Node) -> Option<Check> {
        let Self { probe, address, port, interval, timeout, rise, fall } = self;
        let address = SocketAddr::new((*address).or_else(|| node.address())?, *port);
        let (probe, interval, timeout) = (probe.clone(), *interval, *timeout);
        Some(Check { probe, address, interval, timeout, rise: *rise, fall: *fall })
    }
}

/// `[dns.check]` or a node's own; `None`: turned off.
fn check(table: &Table<'_>) -> Option<CheckText> {
    let enabled = table.get("enabled").and_then(|v| v.boolean()).unwrap_or(true);
    let is_http = table.get("probe").and_then(|v| v.one_of(&[("http", true), ("tcp", false)])).unwrap_or(true);
    let of_http = [table.get("path"), table.get("host"), table.get("status")];
    if !is_http {
        for value in of_http.iter().flatten() {
            value.problem(
                format!("`{}` has no effect without `probe = \"http\"`", value.path),
                "add `probe = \"http\"`, or remove this key",
            );
        }
    }
    let [path, host, status] = of_http;
    let port = table.get("port").and_then(|v| v.integer(1..=65_535)).and_then(|n| u16::try_from(n).ok());
    let address = table.get("address").and_then(|value| {
        let parsed = value.text("\"10.0.0.1\"")?.parse().ok();
        if parsed.is_none() {
            let message = format!("`{}` is \"{}\", not an IP address", value.path, value.shown());
            value.problem(message, "write the address to ask, without a port, as in \"10.0.0.1\"");
        }
        parsed
    });
    let path = path.and_then(|v| probe::path(&v)).unwrap_or_else(|| "/".to_owned());
    let host = host.and_then(|v| v.text("\"www.example.com\"").map(str::to_owned));
    let statuses = status.and_then(|v| probe::statuses(&v, 100..=599)).unwrap_or((200, 399));
    let number = |key| table.get(key).and_then(|v| v.integer(1..=1000)).and_then(|n| u32::try_from(n).ok());
    let (rise, fall) = (number("rise").unwrap_or(2), number("fall").unwrap_or(2));
    let duration = |key, default| table.get(key).and_then(|v| v.timeout()).unwrap_or(default);
    let interval = duration("interval", Duration::from_secs(5));
    let timeout = duration("timeout", Duration::from_secs(2));
    let probe = if is_http { Probe::Http { path, host, statuses } } else { Probe::Tcp };
    enabled.then_some(CheckText { probe, address, port: port.unwrap_or(80), interval, timeout, rise, fall })
}
