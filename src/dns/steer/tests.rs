use super::*;
use crate::geo::{PlaceMap, locate};
use proptest::prelude::*;
use std::net::IpAddr;

const CITIES: [&str; 8] =
    ["Frankfurt", "Ashburn", "Singapore", "Sao Paulo", "Sydney", "Tokyo", "London", "Johannesburg"];

fn node(number: usize, weight: u32) -> Node {
    Node {
        name: format!("node{number}").into(),
        v4: vec![[192, 0, 2, number as u8].into()],
        v6: Vec::new(),
        place: locate(CITIES[number % CITIES.len()]).unwrap(),
        group: None,
        weight,
        drain: false,
        check: None,
    }
}

fn policy(nodes: usize, steps: Vec<Step>, pick: Pick) -> Policy {
    Policy {
        name: "p".into(),
        nodes: (0..nodes).collect(),
        steps,
        pick,
        ttl: Duration::from_secs(60),
        changing_ttl: Duration::from_secs(5),
    }
}

const UP: NodeState = NodeState { up: true, drain: false };
const DOWN: NodeState = NodeState { up: false, drain: false };
const DRAINING: NodeState = NodeState { up: true, drain: true };

fn at(place: &Place) -> Client<'_> {
    Client { place, networks: &[] }
}

#[test]
fn health_and_drain_come_first_and_nobody_is_left_without_an_answer() {
    let nodes: Vec<Node> = (0..3).map(|n| node(n, 1)).collect();
    let berlin = locate("Berlin").unwrap();
    let near = policy(3, vec![Step::Nearest(1)], Pick::All);
    for (states, expected) in [
        ([UP, UP, UP], 0),
        ([DOWN, UP, UP], 1),
        ([DRAINING, UP, UP], 1),
        ([DRAINING, DOWN, DOWN], 0),
        ([DOWN, DRAINING, DOWN], 1),
        ([DOWN, DOWN, DOWN], 0),
    ] {
        assert_eq!(narrow(&near, at(&berlin), &nodes, &states, &[]), [expected], "{states:?}");
    }
    let all = policy(3, Vec::new(), Pick::All);
    assert_eq!(narrow(&all, at(&berlin), &nodes, &[DOWN; 3], &[]), [0, 1, 2]);
    // Where nobody knows the client's place the order of the list decides.
    assert_eq!(narrow(&near, at(&Place::UNKNOWN), &nodes, &[UP; 3], &[]), [0]);
}

#[test]
fn steps_narrow_down_in_turn() {
    let nodes: Vec<Node> = (0..8).map(|n| node(n, 1)).collect();
    let world = Map {
        name: "world".into(),
        networks: vec![("192.0.2.0/24".parse().unwrap(), vec![vec![4]])],
        regions: vec![(("US".parse().unwrap(), "CA".into()), vec![vec![5]])],
        countries: vec![("DE".parse().unwrap(), vec![vec![0], vec![6]])],
        continents: vec![(Continent::Europe, vec![vec![6, 0]])],
        default: vec![vec![1], vec![2, 3]],
    };
    let maps = [world];
    let by_map = policy(8, vec![Step::Map(0), Step::Nearest(1)], Pick::All);
    let left = |place: &str, network: Option<usize>, states: &[NodeState]| {
        let mut place = locate(place).unwrap();
        if place.country == "US".parse().ok() {
            place.region = Some("CA".into());
        }
        narrow(&by_map, Client { place: &place, networks: &[network] }, &nodes, states, &maps)
    };
    let all_up = [UP; 8];
    let without = |down: usize| std::array::from_fn::<_, 8, _>(|n| if n == down { DOWN } else { UP });
    assert_eq!(left("Berlin", None, &all_up), [0]);
    assert_eq!(left("Berlin", None, &without(0)), [6]);
    assert_eq!(left("Berlin", Some(0), &all_up), [4]);
    assert_eq!(left("Paris", None, &without(0)), [6]);
    assert_eq!(left("San Francisco", None, &all_up), [5]);
    assert_eq!(left("Tokyo", None, &all_up), [1]);
    assert_eq!(left("Tokyo", None, &without(1)), [2]);
    let over = policy(8, vec![Step::Failover(vec![vec![7], vec![2, 3]])], Pick::All);
    let tokyo = locate("Tokyo").unwrap();
    assert_eq!(narrow(&over, at(&tokyo), &nodes, &all_up, &[]), [7]);
    assert_eq!(narrow(&over, at(&tokyo), &nodes, &without(7), &[]), [2, 3]);
}

#[test]
fn rendezvous_keeps_to_weights_and_moves_only_what_it_must() {
    let nodes: Vec<(usize, u64, u32)> = (0..4).map(|n| (n, node_seed(&node(n, 1)), n as u32)).collect();
    let pick = |nodes: &[(usize, u64, u32)], key: u64| {
        let mut chosen = Chosen::default();
        rendezvous(nodes, key, 1, &mut chosen);
        chosen.iter().next().unwrap()
    };
    let mut shares = [0_u32; 4];
    for key in 0..60_000 {
        let first = pick(&nodes, key);
        shares[first] += 1;
        let without: Vec<_> = nodes.iter().copied().filter(|(n, ..)| *n != 2).collect();
        let second = pick(&without, key);
        assert!(first == 2 || first == second, "{key} moved from {first} to {second}");
    }
    assert_eq!(shares[0], 0, "weight 0 gets nobody while others are there");
    for (node, share) in shares.iter().enumerate().skip(1) {
        let expected = 10_000.0 * node as f64;
        assert!((f64::from(*share) - expected).abs() < expected * 0.05, "{shares:?}");
    }
    assert_eq!(pick(&nodes[..1], 3), 0);
    let mut three = Chosen::default();
    rendezvous(&nodes, 9, 3, &mut three);
    let mut distinct: Vec<usize> = three.iter().collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 3);
}

/// Policies of every kind over networks in 10.0.0.0/16, one node or none down.
fn case() -> impl Strategy<Value = (PlaceMap, Vec<Policy>, Vec<Map>, Vec<NodeState>)> {
    let networks = prop::collection::vec((any::<u16>(), 17_u8..=30, 0..CITIES.len()), 0..40);
    let overrides = prop::collection::vec((any::<u16>(), 18_u8..=32, 0_usize..8), 0..6);
    (networks, overrides, 0_usize..9).prop_map(|(networks, overrides, down)| {
        let network =
            |n: u16, length: u8| IpNet::new(IpAddr::V4((0x0a00_0000 | u32::from(n)).into()), length).unwrap().trunc();
        let places = networks.into_iter().map(|(n, length, city)| (network(n, length), locate(CITIES[city]).unwrap()));
        let networks = overrides.into_iter().map(|(n, length, node)| (network(n, length), vec![vec![node]])).collect();
        let map = Map { name: "m".into(), networks, default: vec![vec![0, 1]], ..Map::default() };
        let policies = vec![
            policy(8, vec![Step::Nearest(1)], Pick::All),
            policy(8, vec![Step::Nearest(3)], Pick::Weighted(1)),
            policy(8, vec![Step::Map(0)], Pick::All),
            policy(8, vec![Step::Map(0), Step::Nearest(2)], Pick::Consistent(1)),
        ];
        let states = (0..8).map(|n| if n == down { DOWN } else { UP }).collect();
        (PlaceMap::from_networks(places, Place::UNKNOWN), policies, vec![map], states)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A resolver may give an answer to every client within the scope: any other that asks with the same source length
    /// within it gets the same nodes.
    #[test]
    fn within_a_scope_everyone_gets_the_same((places, policies, maps, states) in case(), asked in prop::collection::vec((any::<u16>(), 16_u8..=32), 1..12)) {
        let nodes: Arc<[Node]> = (0..8).map(|n| node(n, 1 + n as u32)).collect();
        let steering = Steering::build(&policies, &maps, &nodes, states, &places);
        for table in &steering.tables {
            for (n, source) in &asked {
                let address = 0x0a00_0000 | u32::from(*n);
                let network = crate::geo::Address::network(address, *source);
                let (chosen, widest) = table.choose(IpAddr::V4(network.into()), b"\x03www\0");
                let scope = widest.min(*source);
                let start = crate::geo::Address::network(network, scope);
                // The networks of this length within the scope: all, or some of them where there are many.
                let count = 1_u64 << (source - scope);
                for step in (0..count).step_by(usize::try_from(count / 64).unwrap().max(1)) {
                    let other = u64::from(start) + (step << (32 - source));
                    let (theirs, _) = table.choose(IpAddr::V4((other as u32).into()), b"\x03www\0");
                    prop_assert_eq!(theirs, chosen, "{:#x}/{} and {:#x} in /{}", network, source, other, scope);
                }
            }
        }
    }
}

#[test]
fn nearest_is_what_brute_force_says_for_ten_thousand_subnets() {
    use crate::geo::{Point, database, write_database};
    let mut seed = 42_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    // Disjoint /22s, each somewhere on the earth, in a database of MaxMind's format.
    let entries: Vec<(u32, Point)> = (0..20_000_u32)
        .map(|n| {
            let (latitude, longitude) =
                (f64::from(random() % 1800) / 10.0 - 90.0, f64::from(random() % 3600) / 10.0 - 180.0);
            (0x0100_0000 + (n << 12), Point::new(latitude, longitude).unwrap())
        })
        .collect();
    let network = |start: u32| IpNet::new(IpAddr::V4(start.into()), 22).unwrap();
    let place = |point: Point| Place { point: Some(point), ..Place::UNKNOWN };
    let networks: Vec<_> = entries.iter().map(|(start, point)| (network(*start), place(*point))).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("city.mmdb");
    std::fs::write(&path, write_database(&networks, std::time::SystemTime::UNIX_EPOCH)).unwrap();
    let places = database::read(&path, Place::UNKNOWN).unwrap();
    let nodes: Arc<[Node]> = (0..8).map(|n| node(n, 1)).collect();
    let states: Vec<NodeState> = (0..8).map(|n| if n == 6 { DOWN } else { UP }).collect();
    let policies = [policy(8, vec![Step::Nearest(1)], Pick::All)];
    let steering = Steering::build(&policies, &[], &nodes, states, &places);
    // By the angle between vectors, not by the formula of the code.
    let vector = |point: Point| {
        let (latitude, longitude) = (point.latitude.to_radians(), point.longitude.to_radians());
        [latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()]
    };
    let closeness = |a: Point, b: Point| vector(a).iter().zip(vector(b)).map(|(x, y)| x * y).sum::<f64>();
    for (start, point) in entries.iter().step_by(2) {
        let subnet = start | (random() % 4) << 8;
        let (chosen, scope) = steering.tables[0].choose(IpAddr::V4(subnet.into()), b"\0");
        let chosen = chosen.iter().next().unwrap();
        let best = (0..8).filter(|n| *n != 6).map(|n| closeness(*point, nodes[n].place.point.unwrap()));
        let best = best.fold(f64::MIN, f64::max);
        let ours = closeness(*point, nodes[chosen].place.point.unwrap());
        assert!(chosen != 6 && best - ours < 1e-9, "{subnet:#x}: {chosen}");
        assert!(scope <= 22, "the scope of {subnet:#x} is not longer than the network");
    }
    // A client whom the database does not know: not everyone's answer.
    let (_, unknown) = steering.tables[0].choose("203.0.113.1".parse().unwrap(), b"\0");
    assert!(unknown > 0);
}
