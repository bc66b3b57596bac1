//! `[dns.policies.NAME]` and `[dns.maps.NAME]`.

use super::super::reader::{Table, Value, list};
use super::nodes::Members;
use crate::dns::steer::{Groups, MOST_ANSWERS, Map, Pick, Policy, Step};
use crate::geo::networks::network_of;
use crate::geo::{Continent, Country};
use std::time::Duration;

const STEPS: &str = "[\"nearest 2\", \"weighted\"]";
const REMEDY: &str =
    "write \"nearest N\", \"map NAME\", \"failover GROUP, GROUP\", and last \"weighted N\" or \"consistent N\"";

/// Both, in the order of their names.
pub(super) fn policies(dns: &Table<'_>, members: &Members) -> (Vec<Map>, Vec<Policy>) {
    let mut maps = Vec::new();
    if let Some(value) = dns.get("maps") {
        value.table(|table| {
            let named = table.named().into_iter();
            maps.extend(named.filter_map(|(name, value)| value.table(|table| map(table, name, members))));
        });
    }
    let mut policies = Vec::new();
    if let Some(value) = dns.get("policies") {
        value.table(|table| {
            let named = table.named().into_iter();
            policies.extend(named.filter_map(|(name, value)| value.table(|table| policy(table, name, members, &maps))));
        });
    }
    (maps, policies)
}

fn policy(table: &Table<'_>, name: &str, members: &Members, maps: &[Map]) -> Policy {
    let nodes = match table.get("nodes") {
        Some(value) => members.list(&value),
        None if members.nodes.is_empty() => {
            table.absence(format!("`{}` has no nodes to choose from", table.path), "add a table `[dns.nodes.NAME]`");
            Vec::new()
        }
        None => (0..members.nodes.len()).collect(),
    };
    let (mut steps, mut pick) = (Vec::new(), None);
    let value = table.required("steps", STEPS);
    for element in value.as_ref().and_then(|v| v.array(STEPS)).unwrap_or_default() {
        if pick.is_some() {
            element.problem(format!("`{}` comes after the last step", element.path), REMEDY);
        }
        match element.text("\"nearest 2\"").and_then(|text| step(text, &element, members, maps)) {
            Some(Either::Step(step)) => steps.push(step),
            Some(Either::Pick(chosen)) => pick = Some(chosen),
            None => {}
        }
    }
    let ttl = |key, default| {
        let value = table.get(key);
        let time = value.as_ref().and_then(|v| v.duration());
        if let (Some(value), Some(time)) = (&value, time)
            && time > Duration::from_secs(7 * 86_400)
        {
            value.problem(format!("`{}` is longer than a week", value.path), "write a shorter time, as in \"60s\"");
        }
        time.unwrap_or(default)
    };
    let ttl_normal = ttl("ttl", Duration::from_secs(60));
    let changing_ttl = ttl("changing_ttl", Duration::from_secs(10));
    Policy { name: name.into(), nodes, steps, pick: pick.unwrap_or(Pick::All), ttl: ttl_normal, changing_ttl }
}

enum Either {
    Step(Step),
    Pick(Pick),
}

fn step(text: &str, value: &Value<'_>, members: &Members, maps: &[Map]) -> Option<Either> {
    let (word, rest) = text.trim().split_once(' ').map_or((text.trim(), ""), |(word, rest)| (word, rest.trim()));
    let count = || {
        let count = if rest.is_empty() { Some(1) } else { rest.parse().ok() };
        let count = count.filter(|count| (1..=MOST_ANSWERS).contains(count));
        if count.is_none() {
            value.problem(
                format!("`{}` is \"{}\", whose number is out of range", value.path, value.shown()),
                format!("write a number from 1 to {MOST_ANSWERS}, as in \"{word} 2\""),
            );
        }
        count
    };
    match word {
        "nearest" => Some(Either::Step(Step::Nearest(count()?))),
        "weighted" => Some(Either::Pick(Pick::Weighted(count()?))),
        "consistent" => Some(Either::Pick(Pick::Consistent(count()?))),
        "failover" if !rest.is_empty() => {
            let groups = rest.split(',').filter_map(|name| members.named(name.trim(), value)).collect();
            Some(Either::Step(Step::Failover(groups)))
        }
        "map" if !rest.is_empty() => {
            let found = maps.iter().position(|map| &*map.name == rest);
            if found.is_none() {
                let known = list(maps.iter().map(|map| &*map.name));
                let known = if known.is_empty() { "there is none yet".to_owned() } else { known };
                value.problem(
                    format!("`{}` names \"{rest}\", which is no map", value.path),
                    format!("write the name of a table `[dns.maps.NAME]`: {known}"),
                );
            }
            found.map(|number| Either::Step(Step::Map(number)))
        }
        _ => {
            value.problem(format!("`{}` is \"{}\", not a step", value.path, value.shown()), REMEDY);
            None
        }
    }
}

fn map(table: &Table<'_>, name: &str, members: &Members) -> Map {
    let default = table.required("default", "[\"eu\", \"us\"]").map(|v| members.groups(&v)).unwrap_or_default();
    Map {
        name: name.into(),
        networks: keyed(table, "networks", members, &|key| network_of(key)),
        regions: keyed(table, "regions", members, &|key| {
            let (country, region) = key.split_once('-').ok_or_else(|| format!("\"{key}\" is no region"))?;
            let country = country.parse().map_err(|()| format!("\"{key}\" is no region"))?;
            Ok((country, region.to_ascii_uppercase().into()))
        }),
        countries: keyed(table, "countries", members, &|key| {
            let country = key.parse().ok().filter(|country: &Country| country.is_known());
            country.ok_or_else(|| format!("\"{key}\" is no country"))
        }),
        continents: keyed(table, "continents", members, &|key| {
            Continent::from_code(key).ok_or_else(|| format!("\"{key}\" is no continent"))
        }),
        default,
    }
}

fn keyed<K>(
    table: &Table<'_>,
    key: &'static str,
    members: &Members,
    parse: &dyn Fn(&str) -> Result<K, String>,
) -> Vec<(K, Groups)> {
    let example = match key {
        "networks" => "\"192.0.2.0/24\" = [\"eu\"]",
        "regions" => "\"US-CA\" = [\"us-west\"]",
        "countries" => "DE = [\"eu\"]",
        _ => "EU = [\"eu\"], or AF, AN, AS, NA, OC, SA",
    };
    let line = |(name, value): (&str, Value<'_>)| {
        let groups = members.groups(&value);
        match parse(name) {
            Ok(key) => Some((key, groups)),
            Err(reason) => {
                value.problem(format!("`{}`: {reason}", value.path), format!("write it as in {example}"));
                None
            }
        }
    };
    table.section(key, |table| table.named().into_iter().filter_map(line).collect()).unwrap_or_default()
}
