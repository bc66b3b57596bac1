//! Policies compiled for every prefix.

use super::{Client, MOST_ANSWERS, Map, NodeState, Pick, Policy, narrow, node_seed, rendezvous};
use crate::dns::settings::Node;
use crate::geo::{Address, PlaceMap, Ranges};
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Prefix lengths within which weights send everyone to the same node.
const WEIGHTED_V4: u8 = 24;
const WEIGHTED_V6: u8 = 48;

/// The nodes that an answer names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    nodes: [u16; MOST_ANSWERS],
    count: usize,
}

impl Chosen {
    /// One more, as long as there is room.
    pub fn push(&mut self, node: usize) {
        if let (Some(place), Ok(node)) = (self.nodes.get_mut(self.count), u16::try_from(node)) {
            *place = node;
            self.count += 1;
        }
    }

    /// Their numbers.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.nodes.iter().take(self.count).map(|node| usize::from(*node))
    }
}

/// All policies, for the nodes as they are now.
pub struct Steering {
    /// By the numbers of the policies.
    pub tables: Vec<Table>,
    /// By the numbers of the nodes.
    pub nodes: Arc<[Node]>,
    /// What the tables were made of.
    pub states: Vec<NodeState>,
}

/// One policy: for each prefix a class of clients that get the same nodes.
pub struct Table {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    /// For each class its nodes with seeds and weights.
    classes: Vec<Vec<(usize, u64, u32)>>,
    pick: Pick,
    /// Seconds.
    pub ttl: u32,
}

impl Steering {
    /// Decides for every prefix. With large databases this takes its time: not on a thread that answers.
    pub fn build(
        policies: &[Policy],
        maps: &[Map],
        nodes: &Arc<[Node]>,
        states: Vec<NodeState>,
        places: &PlaceMap,
    ) -> Self {
        let keys = Keys::new(places, maps);
        let tables = policies.iter().map(|policy| table(policy, maps, nodes, &states, places, &keys)).collect();
        Self { tables, nodes: Arc::clone(nodes), states }
    }
}

/// Places, told apart further by the networks of maps.
enum Keys<'p> {
    Places(&'p PlaceMap),
    Split { v4: Ranges<u32>, v6: Ranges<u128>, keys: Vec<(u32, Vec<Option<usize>>)> },
}

impl<'p> Keys<'p> {
    fn new(places: &'p PlaceMap, maps: &[Map]) -> Self {
        if maps.iter().all(|map| map.networks.is_empty()) {
            return Self::Places(places);
        }
        let known = |count: usize| -> Vec<(u32, Vec<Option<usize>>)> {
            (0..count).map(|place| (place as u32, vec![None; maps.len()])).collect()
        };
        let mut keys = known(places.places.len());
        let mut numbers: HashMap<(u32, Vec<Option<usize>>), u32> =
            keys.iter().enumerate().map(|(n, key)| (key.clone(), n as u32)).collect();
        let (mut v4, mut v6) = (places.v4.clone(), places.v6.clone());
        for (at, map) in maps.iter().enumerate() {
            let (mut nets4, mut nets6) = (Vec::new(), Vec::new());
            for (number, (network, _)) in map.networks.iter().enumerate() {
                let number = number as u32 + 1;
                match network {
                    IpNet::V4(net) => nets4.push((u32::from(net.network()), u32::from(net.broadcast()), number)),
                    IpNet::V6(net) => nets6.push((u128::from(net.network()), u128::from(net.broadcast()), number)),
                }
            }
            let mut split = |key: u32, network: u32| {
                let Some(network) = network.checked_sub(1) else { return key };
                let Some(mut new) = keys.get(key as usize).cloned() else { return key };
                new.1[at] = Some(network as usize);
                let next = keys.len() as u32;
                *numbers.entry(new.clone()).or_insert_with(|| {
                    keys.push(new);
                    next
                })
            };
            v4 = v4.combine(&Ranges::from_nested(nets4, 0), &mut split);
            v6 = v6.combine(&Ranges::from_nested(nets6, 0), &mut split);
        }
        Self::Split { v4, v6, keys }
    }
}

fn table(
    policy: &Policy,
    maps: &[Map],
    nodes: &Arc<[Node]>,
    states: &[NodeState],
    places: &PlaceMap,
    keys: &Keys<'_>,
) -> Table {
    let mut classes: Vec<Vec<(usize, u64, u32)>> = Vec::new();
    let mut known: HashMap<Vec<usize>, u32> = HashMap::new();
    let mut class = |place: u32, networks: &[Option<usize>]| {
        let place = places.places.get(place as usize).unwrap_or(&crate::geo::Place::UNKNOWN);
        let mut left = narrow(policy, Client { place, networks }, nodes, states, maps);
        if policy.pick == Pick::All {
            left.truncate(MOST_ANSWERS);
        }
        *known.entry(left).or_insert_with_key(|left| {
            let candidate = |node: &usize| nodes.get(*node).map(|n| (*node, node_seed(n), n.weight));
            classes.push(left.iter().filter_map(candidate).collect());
            classes.len() as u32 - 1
        })
    };
    let (v4, v6) = match keys {
        Keys::Places(places) => {
            let of_place: Vec<u32> = (0..places.places.len()).map(|place| class(place as u32, &[])).collect();
            let of = |place: u32| of_place.get(place as usize).copied().unwrap_or(0);
            (places.v4.map(of), places.v6.map(of))
        }
        Keys::Split { v4, v6, keys } => {
            let of_key: Vec<u32> = keys.iter().map(|(place, networks)| class(*place, networks)).collect();
            let of = |key: u32| of_key.get(key as usize).copied().unwrap_or(0);
            (v4.map(of), v6.map(of))
        }
    };
    let changing = policy.nodes.iter().filter_map(|node| states.get(*node)).any(|state| state.drain || !state.up);
    let ttl = if changing { policy.changing_ttl.min(policy.ttl) } else { policy.ttl };
    Table { v4, v6, classes, pick: policy.pick, ttl: u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX) }
}

impl Table {
    /// The nodes for a client at `address` who asks for `name` (lower case), and the length of the widest prefix over
    /// which the answer is the same.
    pub fn choose(&self, address: IpAddr, name: &[u8]) -> (Chosen, u8) {
        match address {
            IpAddr::V4(address) => self.choose_in(&self.v4, u32::from(address), WEIGHTED_V4, name),
            IpAddr::V6(address) => self.choose_in(&self.v6, u128::from(address), WEIGHTED_V6, name),
        }
    }

    /// The nodes left for a client before the last step, for explanations.
    pub fn candidates(&self, address: IpAddr) -> impl Iterator<Item = usize> + '_ {
        let (class, _) = match address {
            IpAddr::V4(address) => self.v4.find(u32::from(address)),
            IpAddr::V6(address) => self.v6.find(u128::from(address)),
        };
        self.classes.get(class as usize).into_iter().flatten().map(|(node, ..)| *node)
    }

    /// Address ranges of both families whose neighbours have other classes.
    pub fn ranges(&self) -> (usize, usize) {
        (self.v4.len(), self.v6.len())
    }

    fn choose_in<A: Address>(&self, ranges: &Ranges<A>, address: A, granule: u8, name: &[u8]) -> (Chosen, u8) {
        let (class, scope) = ranges.find(address);
        let mut chosen = Chosen::default();
        let Some(candidates) = self.classes.get(class as usize) else { return (chosen, scope) };
        match self.pick {
            Pick::All => candidates.iter().for_each(|(node, ..)| chosen.push(*node)),
            // Nothing to pick: as many as there are.
            Pick::Weighted(count) if candidates.len() > count => {
                let key = address.network(granule).leading();
                rendezvous(candidates, key, count, &mut chosen);
                return (chosen, scope.max(granule));
            }
            Pick::Consistent(count) if candidates.len() > count => {
                rendezvous(candidates, xxh3_64_with_seed(name, 1), count, &mut chosen);
            }
            Pick::Weighted(_) | Pick::Consistent(_) => candidates.iter().for_each(|(node, ..)| chosen.push(*node)),
        }
        (chosen, scope)
    }
}
