//! Writes databases in MaxMind's format 2.0: a binary tree over the bits of addresses, whose leaves point to records.

use super::Place;
use ipnet::IpNet;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Separates the tree from the records.
const SEPARATOR: usize = 16;
const METADATA_MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

#[derive(Clone, Copy)]
enum Branch {
    Empty,
    Node(usize),
    Record(u32),
}

/// A database of these networks. They may lie in each other: the longest counts for an address, of equal ones the last.
pub fn write_database(networks: &[(IpNet, Place)], built: SystemTime) -> Vec<u8> {
    let mut records = Records::default();
    let mut tree = vec![[Branch::Empty; 2]];
    let mut ordered: Vec<&(IpNet, Place)> = networks.iter().collect();
    ordered.sort_by_key(|(network, _)| depth(network));
    for (network, place) in ordered {
        let record = records.offset(place);
        insert(&mut tree, network, record);
    }
    let mut out = Vec::with_capacity(tree.len() * 8 + records.data.len() + 256);
    for node in &tree {
        for branch in node {
            let value = match branch {
                Branch::Empty => tree.len(),
                Branch::Node(node) => *node,
                Branch::Record(offset) => tree.len() + SEPARATOR + *offset as usize,
            };
            out.extend(u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    out.extend([0; SEPARATOR]);
    out.extend(&records.data);
    out.extend(METADATA_MARKER);
    metadata(&mut out, tree.len(), built);
    out
}

/// IPv4 is ::/96 of a tree for IPv6.
fn depth(network: &IpNet) -> u8 {
    match network {
        IpNet::V4(net) => 96 + net.prefix_len(),
        IpNet::V6(net) => net.prefix_len(),
    }
}

fn insert(tree: &mut Vec<[Branch; 2]>, network: &IpNet, record: u32) {
    let bits = match network {
        IpNet::V4(net) => u128::from(u32::from(net.network())),
        IpNet::V6(net) => u128::from(net.network()),
    };
    let depth = depth(network).max(1);
    let mut node = 0;
    for level in 0..depth {
        let side = (bits >> (127 - level) & 1) as usize;
        if level + 1 == depth {
            tree[node][side] = Branch::Record(record);
            return;
        }
        node = match tree[node][side] {
            Branch::Node(below) => below,
            // What a shorter network said goes on beside the longer one.
            above => {
                tree.push([above; 2]);
                tree[node][side] = Branch::Node(tree.len() - 1);
                tree.len() - 1
            }
        };
    }
}

/// Each different record once.
#[derive(Default)]
struct Records {
    data: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
}

impl Records {
    fn offset(&mut self, place: &Place) -> u32 {
        let encoded = encode(place);
        let next = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        *self.known.entry(encoded).or_insert_with_key(|encoded| {
            self.data.extend(encoded);
            next
        })
    }
}

/// As GeoIP2's city databases have it, names left out.
fn encode(place: &Place) -> Vec<u8> {
    let Place { country, continent, region, point } = place;
    let fields = [country.is_some(), continent.is_some(), region.is_some(), point.is_some()];
    let mut out = Vec::new();
    map(&mut out, fields.iter().filter(|there| **there).count());
    if let Some(country) = country {
        text(&mut out, "country");
        map(&mut out, 1);
        text(&mut out, "iso_code");
        text(&mut out, &country.to_string());
    }
    if let Some(continent) = continent {
        text(&mut out, "continent");
        map(&mut out, 1);
        text(&mut out, "code");
        text(&mut out, continent.code());
    }
    if let Some(region) = region {
        text(&mut out, "subdivisions");
        control(&mut out, 11, 1);
        map(&mut out, 1);
        text(&mut out, "iso_code");
        text(&mut out, region);
    }
    if let Some(point) = point {
        text(&mut out, "location");
        map(&mut out, 2);
        for (name, number) in [("latitude", point.latitude), ("longitude", point.longitude)] {
            text(&mut out, name);
            control(&mut out, 3, 8);
            out.extend(number.to_be_bytes());
        }
    }
    out
}

fn metadata(out: &mut Vec<u8>, nodes: usize, built: SystemTime) {
    let seconds = built.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    map(out, 9);
    for (name, number) in [
        ("binary_format_major_version", 2_u16),
        ("binary_format_minor_version", 0),
        ("ip_version", 6),
        ("record_size", 32),
    ] {
        text(out, name);
        control(out, 5, 2);
        out.extend(number.to_be_bytes());
    }
    text(out, "node_count");
    control(out, 6, 4);
    out.extend(u32::try_from(nodes).unwrap_or(u32::MAX).to_be_bytes());
    text(out, "build_epoch");
    control(out, 9, 8);
    out.extend(seconds.to_be_bytes());
    text(out, "database_type");
    text(out, "selvedge-City");
    text(out, "languages");
    control(out, 11, 1);
    text(out, "en");
    text(out, "description");
    map(out, 1);
    text(out, "en");
    text(out, "made by selvedge geo build");
}

fn map(out: &mut Vec<u8>, entries: usize) {
    control(out, 7, entries);
}

fn text(out: &mut Vec<u8>, text: &str) {
    // Nothing longer is written here: names of fields and codes.
    let text = text.get(..text.len().min(255)).unwrap_or_default();
    control(out, 2, text.len());
    out.extend(text.as_bytes());
}

/// The byte or bytes before a value: its type, and its size up to 284.
fn control(out: &mut Vec<u8>, kind: u8, size: usize) {
    let short = size.min(29) as u8;
    if kind > 7 {
        out.extend([short, kind - 7]);
    } else {
        out.push(kind << 5 | short);
    }
    if size >= 29 {
        out.push((size - 29) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PlaceMap, database, locate};
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn read_back(networks: &[(IpNet, Place)]) -> PlaceMap {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.mmdb");
        std::fs::write(&path, write_database(networks, SystemTime::UNIX_EPOCH)).unwrap();
        database::read(&path, Place::UNKNOWN).unwrap()
    }

    fn network() -> impl Strategy<Value = (IpNet, Place)> {
        let place = prop::sample::select(vec!["DE", "US", "Singapore", "1.5, 2.5", "FR"]);
        let v4 = (any::<u16>(), 8_u8..=32).prop_map(|(n, length)| {
            let address = IpAddr::V4(Ipv4Addr::from(u32::from(n) << 12));
            IpNet::new(address, length).unwrap().trunc()
        });
        let v6 = (any::<u16>(), 16_u8..=128).prop_map(|(n, length)| {
            let address = IpAddr::V6(Ipv6Addr::from(0x2001 << 112 | u128::from(n) << 80));
            IpNet::new(address, length).unwrap().trunc()
        });
        (prop_oneof![v4, v6], place).prop_map(|(network, place)| (network, locate(place).unwrap()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_database_reads_as_the_networks_it_was_made_of(networks in prop::collection::vec(network(), 0..40)) {
            let direct = PlaceMap::from_networks(networks.clone(), Place::UNKNOWN);
            let read = read_back(&networks);
            for (network, _) in &networks {
                for address in [network.network(), network.broadcast()] {
                    prop_assert_eq!(direct.find(address), read.find(address), "{}", address);
                }
            }
        }
    }

    #[test]
    fn an_empty_database_knows_nobody() {
        assert_eq!(read_back(&[]).find("192.0.2.1".parse().unwrap()), (&Place::UNKNOWN, 0));
    }
}
