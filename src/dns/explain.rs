//! Why a question is answered as it is: the decisions once more, step by step, in words.

use super::answer::Serving;
use super::name::Name;
use super::settings::DataSettings;
use super::steer::{Client, Pick, Policy, Step, distance, groups_of, narrow};
use super::zone::Found;
use crate::geo::{Place, PlaceMap};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::IpAddr;

/// What is asked, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name, absolute.
    pub name: Name,
    /// The client's network, as a resolver would send it.
    pub subnet: IpNet,
}

impl Question {
    /// From texts: a name with or without its final dot, and a network or an address.
    ///
    /// # Errors
    /// Which of the two is none.
    pub fn parse(name: &str, subnet: &str) -> Result<Self, String> {
        let name = Name::parse(name, None)?;
        let parsed = subnet.parse::<IpNet>().ok().or_else(|| subnet.parse::<IpAddr>().ok().map(IpNet::from));
        let subnet = parsed.ok_or_else(|| format!("{subnet:?} is no subnet; write it as in 203.0.113.0/24"))?;
        Ok(Self { name, subnet: subnet.trunc() })
    }
}

/// The policy's decisions as JSON.
pub(super) fn explain(question: &Question, data: &DataSettings, serving: &Serving, places: &PlaceMap) -> Value {
    let Question { name, subnet } = question;
    let asked = json!({ "name": name.to_string(), "subnet": subnet.to_string() });
    let fail = |error: String| json!({ "question": asked, "error": error });
    let Some((_, zone)) = serving.zones.zone_of(name.as_wire()) else {
        return fail(format!("{name} is in no zone that is served here: REFUSED"));
    };
    let zone_name = zone.apex.to_string();
    let entry = match serving.zones.find(zone, name.as_wire(), false) {
        Found::Entry(entry) => entry,
        Found::Delegated(..) => return fail(format!("{name} is delegated to other servers by the zone {zone_name}")),
        Found::Nothing => return fail(format!("there is no {name} in the zone {zone_name}: NXDOMAIN")),
    };
    let Some((number, policy)) = entry.policy.and_then(|number| Some((number, data.policies.get(number)?))) else {
        let alias = entry.sets.iter().find_map(|set| set.target.as_ref());
        return fail(match alias {
            Some(target) => format!("{name} is an alias of {target}; ask for that"),
            None => format!("{name} has no policy: its records are the same for everyone, with scope 0"),
        });
    };
    let Some(table) = serving.steering.tables.get(number) else {
        return fail("the policy is not in force yet".to_owned());
    };
    let address = subnet.network();
    let (place, known) = places.find(address);
    let networks = map_networks(data, *subnet);
    let (chosen, widest) = table.choose(address, name.as_wire());
    let states = &serving.steering.states;
    let node = |number: usize| {
        let node = data.nodes.get(number)?;
        let state = states.get(number)?;
        Some(json!({
            "node": &*node.name,
            "distance_km": distance(place.point, Some(node)).map(f64::round),
            "weight": node.weight,
            "up": state.up,
            "drain": state.drain,
            "addresses": node.v4.iter().map(ToString::to_string).chain(node.v6.iter().map(ToString::to_string)).collect::<Vec<_>>(),
        }))
    };
    json!({
        "question": asked,
        "zone": zone_name,
        "policy": &*policy.name,
        "place": { "text": place_text(place), "known_for": format!("{}/{known}", address) },
        "steps": steps(policy, data, serving, Client { place, networks: &networks }),
        "candidates": table.candidates(address).filter_map(node).collect::<Vec<_>>(),
        "chosen": chosen.iter().filter_map(node).collect::<Vec<_>>(),
        "scope": widest.min(subnet.prefix_len()),
        "ttl": table.ttl,
    })
}

/// Each step with what it left.
fn steps(policy: &Policy, data: &DataSettings, serving: &Serving, client: Client<'_>) -> Vec<Value> {
    let states = &serving.steering.states;
    let names = |nodes: &[usize]| -> Vec<&str> {
        nodes.iter().filter_map(|node| data.nodes.get(*node)).map(|node| &*node.name).collect()
    };
    let up_to = |count: usize| {
        let part = Policy { steps: policy.steps.iter().take(count).cloned().collect(), ..policy.clone() };
        narrow(&part, client, &data.nodes, states, &data.maps)
    };
    let mut steps = vec![json!({ "rule": "up and not draining", "left": names(&up_to(0)) })];
    for (at, step) in policy.steps.iter().enumerate() {
        let rule = match step {
            Step::Nearest(count) => format!("the nearest {count}"),
            Step::Failover(_) => "the first group that has a node".to_owned(),
            Step::Map(number) => data.maps.get(*number).map_or_else(String::new, |map| {
                let network = client.networks.get(*number).copied().flatten();
                let groups = groups_of(map, client.place, network);
                let groups: Vec<String> = groups.iter().map(|group| names(group).join(" ")).collect();
                format!("map {}: {}", map.name, groups.join(", then "))
            }),
        };
        steps.push(json!({ "rule": rule, "left": names(&up_to(at + 1)) }));
    }
    let pick = match policy.pick {
        Pick::All => "all of them".to_owned(),
        Pick::Weighted(count) => format!("{count} by weight and the client's prefix"),
        Pick::Consistent(count) => format!("{count} by the name that is asked for"),
    };
    steps.push(json!({ "rule": pick }));
    steps
}

/// For each map the network that a client is in.
fn map_networks(data: &DataSettings, subnet: IpNet) -> Vec<Option<usize>> {
    let longest = |networks: &[(IpNet, Vec<Vec<usize>>)]| {
        let inside = networks.iter().enumerate().filter(|(_, (network, _))| network.contains(&subnet.network()));
        inside.max_by_key(|(at, (network, _))| (network.prefix_len(), *at)).map(|(at, _)| at)
    };
    data.maps.iter().map(|map| longest(&map.networks)).collect()
}

fn place_text(place: &Place) -> String {
    let Place { country, continent, region, point } = place;
    let parts = [
        country.map(|country| country.to_string()),
        region.as_ref().map(|region| format!("region {region}")),
        continent.map(|continent| continent.code().to_owned()),
        point.map(|point| format!("{}, {}", point.latitude, point.longitude)),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "unknown".to_owned() } else { parts.join("; ") }
}
