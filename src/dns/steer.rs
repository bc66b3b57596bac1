//! Which nodes a client is sent to: pure decisions about places, nodes and their health.
//!
//! A policy narrows its nodes down step by step. What depends on where the client is was decided for every prefix before
//! any query came (`steer/table.rs`); what is left to do for a query is the last step, which hashes.

mod table;

pub use table::{Chosen, Steering, Table};

use super::settings::Node;
use crate::geo::{Continent, Country, Place, Point};
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Nodes that an answer names at most.
pub const MOST_ANSWERS: usize = 8;

/// How addresses of a name are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: Arc<str>,
    /// The nodes to choose from, in order of preference where nothing else decides.
    pub nodes: Vec<usize>,
    /// What narrows them down, in turn.
    pub steps: Vec<Step>,
    /// How one of those left is picked.
    pub pick: Pick,
    /// TTL of answers.
    pub ttl: Duration,
    /// TTL while a node of the policy drains or is down.
    pub changing_ttl: Duration,
}

/// Narrows nodes down by where the client is, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Those nearest to the client, so many of them.
    Nearest(usize),
    /// Those of the first group that has one, by the table of this number.
    Map(usize),
    /// Those of the first of these groups that has one.
    Failover(Vec<Vec<usize>>),
}

/// Picks among those left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// All of them, up to [`MOST_ANSWERS`].
    All,
    /// So many, by weight, the same for all clients of a /24 or /48.
    Weighted(usize),
    /// So many, by the name that was asked for, the same for all clients.
    Consistent(usize),
}

impl Pick {
    /// As configuration writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Weighted(_) => "weighted",
            Self::Consistent(_) => "consistent",
        }
    }
}

/// Groups of nodes by where the client is; the first line that applies counts: networks, regions, countries, continents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    /// Its name.
    pub name: Arc<str>,
    /// By network: of several the longest.
    pub networks: Vec<(IpNet, Groups)>,
    /// By country and ISO 3166-2 region.
    pub regions: Vec<((Country, Arc<str>), Groups)>,
    /// By country.
    pub countries: Vec<(Country, Groups)>,
    /// By continent.
    pub continents: Vec<(Continent, Groups)>,
    /// All others.
    pub default: Groups,
}

/// Nodes of each group, the preferred group first.
pub type Groups = Vec<Vec<usize>>;

/// What is known of a node's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// It passes its checks.
    pub up: bool,
    /// New clients are sent elsewhere.
    pub drain: bool,
}

/// What a client's prefix has in common with others as far as a policy can see.
#[derive(Clone, Copy, Debug)]
pub struct Client<'p> {
    /// Where it is.
    pub place: &'p Place,
    /// For each map the number of its network that the client is in.
    pub networks: &'p [Option<usize>],
}

/// The nodes left after all steps, in order of preference; never none unless the policy has none.
pub fn narrow(policy: &Policy, client: Client<'_>, nodes: &[Node], states: &[NodeState], maps: &[Map]) -> Vec<usize> {
    let state = |node: usize| states.get(node).copied().unwrap_or(NodeState { up: true, drain: false });
    let fit = |all: &dyn Fn(NodeState) -> bool| -> Vec<usize> {
        policy.nodes.iter().copied().filter(|node| all(state(*node))).collect()
    };
    // Who is up, else who is up and drains, else everyone: a guess is better than no answer.
    let mut left = fit(&|state| state.up && !state.drain);
    for other in [fit(&|state| state.up), fit(&|_| true)] {
        if left.is_empty() {
            left = other;
        }
    }
    for step in &policy.steps {
        match step {
            Step::Nearest(count) => left = nearest(&left, client.place.point, *count, nodes),
            Step::Failover(groups) => keep_first_group(&mut left, groups),
            Step::Map(number) => {
                if let Some(map) = maps.get(*number) {
                    let network = client.networks.get(*number).copied().flatten();
                    keep_first_group(&mut left, groups_of(map, client.place, network));
                }
            }
        }
    }
    left
}

/// What a map says of a client.
pub fn groups_of<'m>(map: &'m Map, place: &Place, network: Option<usize>) -> &'m Groups {
    let Map { name: _, networks, regions, countries, continents, default } = map;
    let by_network = network.and_then(|number| networks.get(number)).map(|(_, groups)| groups);
    let region = place.country.zip(place.region.as_ref());
    let by_region =
        || region.and_then(|(c, r)| regions.iter().find(|((country, region), _)| *country == c && region == r));
    let by_country = || place.country.and_then(|c| countries.iter().find(|(country, _)| *country == c));
    let by_continent = || place.continent.and_then(|c| continents.iter().find(|(continent, _)| *continent == c));
    by_network
        .or_else(|| by_region().map(|(_, groups)| groups))
        .or_else(|| by_country().map(|(_, groups)| groups))
        .or_else(|| by_continent().map(|(_, groups)| groups))
        .unwrap_or(default)
}

/// Leaves the nodes of the first group that has any of them, and all where none has.
fn keep_first_group(left: &mut Vec<usize>, groups: &Groups) {
    if let Some(group) = groups.iter().find(|group| group.iter().any(|node| left.contains(node))) {
        left.retain(|node| group.contains(node));
    }
}

/// The nearest first; of equally near ones, and where it is not known where the client is, the first listed. A node whose
/// place nobody knows comes last.
fn nearest(left: &[usize], from: Option<Point>, count: usize, nodes: &[Node]) -> Vec<usize> {
    let distance = |node: &usize| distance(from, nodes.get(*node)).unwrap_or(f64::INFINITY);
    let mut by_distance: Vec<(f64, usize)> = left.iter().map(|node| (distance(node), *node)).collect();
    by_distance.sort_by(|a, b| a.0.total_cmp(&b.0));
    by_distance.into_iter().take(count).map(|(_, node)| node).collect()
}

/// Kilometres from a client to a node.
pub fn distance(from: Option<Point>, node: Option<&Node>) -> Option<f64> {
    Some(from?.distance_to(node?.place.point?))
}

/// A node's hash, which is that of its name, so that it stays with its clients whatever becomes of other nodes.
pub fn node_seed(node: &Node) -> u64 {
    xxh3_64_with_seed(node.name.as_bytes(), 0)
}

/// Of nodes (number, seed, weight) those with the highest score for `key`, best first, into `out`: weighted rendezvous
/// hashing. Each node gets its share of keys, and one that goes leaves the keys of all others where they are.
pub fn rendezvous(nodes: &[(usize, u64, u32)], key: u64, count: usize, out: &mut Chosen) {
    let mut best = [(f64::NEG_INFINITY, 0_usize); MOST_ANSWERS];
    let count = count.min(MOST_ANSWERS).min(nodes.len());
    for (node, seed, weight) in nodes {
        let hash = xxh3_64_with_seed(&seed.to_le_bytes(), key);
        // In (0, 1]: the logarithm is finite and not above 0.
        let uniform = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        let score = match weight {
            // After all that have a weight, but in an order.
            0 => f64::MIN / 2.0 * uniform,
            weight => uniform.ln() / f64::from(*weight),
        };
        let at = best.iter().take(count).position(|(other, _)| score > *other);
        if let Some(at) = at.filter(|at| *at < count) {
            best.copy_within(at..count - 1, at + 1);
            best[at] = (score, *node);
        }
    }
    best.iter().take(count).for_each(|(_, node)| out.push(*node));
}

#[cfg(test)]
mod tests;
