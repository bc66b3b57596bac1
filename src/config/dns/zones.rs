//! `[[dns.zones]]`.

use super::super::problem::nearest;
use super::super::reader::{Table, Value, list};
use crate::dns::name::Name;
use crate::dns::zone::{Record, ZoneData, Zones};
use crate::dns::zone_file;
use std::time::Duration;

const SOA: u16 = 6;
/// Zones whose apex has been read.
type Known = Vec<(Name, String)>;

/// All zones; `policies` are the names of theirs.
pub(super) fn zones(dns: &Table<'_>, policies: &[&str]) -> Vec<ZoneData> {
    let mut known: Known = Vec::new();
    let values = dns.get("zones").and_then(|v| v.tables()).unwrap_or_default();
    values.iter().filter_map(|value| value.table(|table| zone(table, policies, &mut known)).flatten()).collect()
}

fn zone(table: &Table<'_>, policies: &[&str], known: &mut Known) -> Option<ZoneData> {
    let value = table.required("name", "\"example.com\"");
    let apex = value.as_ref().and_then(|value| apex(value, known));
    let ttl = table.get("ttl").and_then(|v| ttl_of(&v)).unwrap_or(3600);
    let negative = table.get("negative_ttl").and_then(|v| ttl_of(&v)).unwrap_or(300);
    let [file, nameservers, hostmaster, serial, records, steered] =
        ["file", "nameservers", "hostmaster", "serial", "records", "policies"].map(|key| table.get(key));
    // Nothing in it can be judged without its name.
    let apex = apex?;
    let mut all: Vec<Record> = Vec::new();
    if let Some(value) = file {
        all.extend(from_file(&value, &apex, ttl));
    }
    for element in records.and_then(|v| v.array("[\"www A 192.0.2.1\"]")).unwrap_or_default() {
        let Some(line) = element.text("\"www A 192.0.2.1\"") else { continue };
        match zone_file::record(line, &apex, ttl) {
            Ok(record) => all.push(record),
            Err(reason) => element.problem(
                format!("`{}` is \"{}\", not a record: {reason}", element.path, element.shown()),
                "write it as a line of a zone file, as in \"www 300 A 192.0.2.1\"",
            ),
        }
    }
    let servers = nameservers.and_then(|v| v.array("[\"ns1\"]")).unwrap_or_default();
    let servers: Vec<(&str, Value<'_>)> = servers.into_iter().filter_map(|e| Some((e.text("\"ns1\"")?, e))).collect();
    for (server, element) in &servers {
        all.extend(made(element, &format!("@ NS {server}"), &apex, ttl));
    }
    if let Some((first, element)) = servers.first()
        && !all.iter().any(|record| record.kind == SOA)
    {
        let hostmaster = hostmaster.as_ref().and_then(|v| v.text("\"hostmaster\"")).unwrap_or("hostmaster");
        let serial = serial.as_ref().and_then(|v| v.integer(0..=u32::MAX.into())).unwrap_or(1);
        let line = format!("@ SOA {first} {} {serial} 2h 30m 2w {negative}", hostmaster.replace('@', "."));
        all.extend(made(element, &line, &apex, ttl));
    } else {
        for value in [hostmaster, serial].iter().flatten() {
            value.problem(
                format!("`{}` has no effect: the SOA record is written out, or `nameservers` is missing", value.path),
                "remove it, or have the SOA record made by naming `nameservers`",
            );
        }
    }
    let steered = steered.map(|v| steered_names(&v, &apex, policies)).unwrap_or_default();
    let zone = ZoneData { apex, records: all, steered };
    // What cannot be read is no reason to say that something is missing.
    if let (Err(problems), false) = (Zones::build(std::slice::from_ref(&zone)), table.document.has_problems()) {
        for problem in problems {
            table.absence(format!("`{}`: {problem}", table.path), "correct the records of this zone");
        }
    }
    Some(zone)
}

fn apex(value: &Value<'_>, known: &mut Known) -> Option<Name> {
    let text = value.text("\"example.com\"")?;
    let name = match Name::parse(text, None) {
        Ok(name) => name,
        Err(reason) => {
            let message = format!("`{}` is \"{}\", not a domain name: {reason}", value.path, value.shown());
            value.problem(message, "write it as in \"example.com\"");
            return None;
        }
    };
    if let Some((_, path)) = known.iter().find(|(other, _)| *other == name) {
        let message = format!("`{}` is \"{}\", which `{path}` is already", value.path, value.shown());
        value.problem(message, "write each zone once");
        return None;
    }
    known.push((name.clone(), value.path.clone()));
    Some(name)
}

fn from_file(value: &Value<'_>, apex: &Name, ttl: u32) -> Vec<Record> {
    let Some(path) = value.path("\"example.com.zone\"") else { return Vec::new() };
    zone_file::read(&path, apex, ttl).unwrap_or_else(|problems| {
        for problem in problems {
            value.problem(format!("`{}`: {problem}", value.path), "correct this line of the zone file");
        }
        Vec::new()
    })
}

fn made(value: &Value<'_>, line: &str, apex: &Name, ttl: u32) -> Option<Record> {
    let made = zone_file::record(line, apex, ttl);
    if let Err(reason) = &made {
        value.problem(
            format!("`{}`: {reason}", value.path),
            "write names as in \"ns1\", or \"ns1.example.net.\" with a final dot",
        );
    }
    made.ok()
}

fn steered_names(value: &Value<'_>, apex: &Name, policies: &[&str]) -> Vec<(Name, usize)> {
    let one = |(name, value): (&str, Value<'_>)| {
        let policy = value.text("\"web\"")?;
        let number = policies.iter().position(|known| *known == policy);
        if number.is_none() {
            let remedy = match nearest(policy, policies.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None if policies.is_empty() => "add a table `[dns.policies.NAME]`".to_owned(),
                None => format!("write one of {}", list(policies.iter().copied())),
            };
            value.problem(format!("`{}` is \"{}\", not a policy", value.path, value.shown()), remedy);
        }
        match Name::parse(name, Some(apex)) {
            Ok(name) => Some((name, number?)),
            Err(reason) => {
                value.problem(
                    format!("`{}`: {reason}", value.path),
                    "write a name as in \"www\", or \"@\" for the zone's own",
                );
                None
            }
        }
    };
    value.table(|table| table.named().into_iter().filter_map(one).collect()).unwrap_or_default()
}

/// Whole seconds, up to a week (more is of no use, and not to be taken back).
fn ttl_of(value: &Value<'_>) -> Option<u32> {
    let time = value.duration()?;
    if time > Duration::from_secs(7 * 86_400) {
        value.problem(format!("`{}` is longer than a week", value.path), "write a shorter time, as in \"1h\"");
        return None;
    }
    u32::try_from(time.as_secs()).ok()
}
