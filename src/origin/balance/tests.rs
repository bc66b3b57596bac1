use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// `PROPTEST_RNG_SEED` varies it.
pub(in crate::origin) fn same_each_time() -> ProptestConfig {
    let config = ProptestConfig::default();
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(20),
        fixed => fixed,
    };
    ProptestConfig { rng_seed, failure_persistence: None, ..config }
}

fn candidates(weights: &[f64]) -> Vec<Candidate> {
    let one = |(n, weight): (usize, &f64)| Candidate {
        weight: *weight,
        in_flight: 0,
        latency: None,
        id: xxh3_64(&n.to_le_bytes()),
        turn: 0.0,
    };
    weights.iter().enumerate().map(one).collect()
}

fn by_hash(bound: Option<u32>) -> Algorithm {
    Algorithm::Hash { key: HashKey::Path, bound }
}

/// How often each is chosen of `n` requests with keys, none of which is in flight for long.
fn spread(algorithm: &Algorithm, candidates: &mut [Candidate], n: u64) -> Vec<f64> {
    let mut random = Random::seeded(7);
    let mut counts = vec![0.0; candidates.len()];
    for key in 0..n {
        let place = algorithm.choose(candidates, Some(xxh3_64(&key.to_le_bytes())), &mut random).unwrap();
        counts[place] += 1.0;
    }
    counts
}

#[test]
fn turns_are_spread_by_weight() {
    let mut three = candidates(&[5.0, 1.0, 1.0]);
    let mut random = Random::seeded(0);
    let order: Vec<_> = (0..7).map(|_| Algorithm::RoundRobin.choose(&mut three, None, &mut random).unwrap()).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn every_algorithm_honours_weights() {
    let weights = [1.0, 3.0, 2.0, 0.5];
    let total: f64 = weights.iter().sum();
    let n = 40_000;
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::Random, by_hash(None)] {
        let counts = spread(&algorithm, &mut candidates(&weights), n);
        for (count, weight) in counts.iter().zip(weights) {
            let expected = n as f64 * weight / total;
            // Far outside what chance does at this number: the standard deviation is below one percent.
            assert!((count - expected).abs() < expected * 0.08, "{algorithm:?}: {counts:?}");
        }
    }
}

#[test]
fn the_fewest_in_flight_for_its_weight_is_next() {
    for (in_flight, weights, expected) in [
        ([2, 1, 3], [1.0, 1.0, 1.0], 1),
        ([2, 1, 3], [1.0, 1.0, 4.0], 2),
        ([0, 0, 0], [1.0, 1.0, 2.0], 2),
        ([4, 4, 9], [2.0, 1.0, 4.0], 0),
    ] {
        let mut three = candidates(&weights);
        for (candidate, n) in three.iter_mut().zip(in_flight) {
            candidate.in_flight = n;
        }
        let chosen = Algorithm::LeastConnections.choose(&mut three, None, &mut Random::seeded(0));
        assert_eq!(chosen, Some(expected), "{in_flight:?} {weights:?}");
    }
}

#[test]
fn of_two_drawn_the_less_loaded_is_asked() {
    let mut two = candidates(&[1.0, 1.0]);
    two[0].in_flight = 5;
    assert_eq!(spread(&Algorithm::Random, &mut two, 100), [0.0, 100.0]);
    let mut three = candidates(&[1.0, 1.0, 1.0]);
    three[0].in_flight = 5;
    let counts = spread(&Algorithm::Random, &mut three, 3000);
    assert_eq!(counts[0], 0.0, "{counts:?}");
}

#[test]
fn latency_and_requests_in_flight_decide_together() {
    for (latency, in_flight, expected) in [
        ([Some(0.1), Some(0.01)], [0, 0], 1),
        ([Some(0.1), Some(0.01)], [0, 20], 0),
        ([Some(0.001), None], [0, 0], 1),
        ([Some(0.001), None], [9, 1], 0),
    ] {
        let mut two = candidates(&[1.0, 1.0]);
        for (candidate, (latency, n)) in two.iter_mut().zip(latency.into_iter().zip(in_flight)) {
            (candidate.latency, candidate.in_flight) = (latency, n);
        }
        let chosen = Algorithm::PeakEwma.choose(&mut two, None, &mut Random::seeded(0));
        assert_eq!(chosen, Some(expected), "{latency:?} {in_flight:?}");
    }
}

#[test]
fn a_key_beyond_the_bound_goes_elsewhere_and_comes_back() {
    let mut three = candidates(&[1.0, 1.0, 1.0]);
    let choose = |three: &mut [Candidate]| by_hash(Some(125)).choose(three, Some(42), &mut Random::seeded(0));
    let home = choose(&mut three).unwrap();
    three[home].in_flight = 10;
    assert_ne!(choose(&mut three).unwrap(), home);
    three.iter_mut().for_each(|c| c.in_flight = 10);
    assert_eq!(choose(&mut three).unwrap(), home);
}

#[test]
fn keys_come_from_the_request() {
    let uri: Uri = "http://a.example/one?two=3".parse().unwrap();
    let mut headers = HeaderMap::new();
    headers.append("x-user", "7".parse().unwrap());
    headers.append("cookie", "a=1; sid=9".parse().unwrap());
    headers.append("cookie", "xsid=8; sid=10".parse().unwrap());
    let client = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let hash = |key| Algorithm::Hash { key, bound: None };
    let of = |algorithm: &Algorithm, address: &str| algorithm.key(&uri, &headers, client(address));
    assert_eq!(of(&hash(HashKey::Path), "::1"), Some(xxh3_64(b"/one")));
    assert_eq!(of(&hash(HashKey::Uri), "::1"), Some(xxh3_64(b"/one?two=3")));
    assert_eq!(of(&hash(HashKey::Header(HeaderName::from_static("x-user"))), "::1"), Some(xxh3_64(b"7")));
    assert_eq!(of(&hash(HashKey::Header(HeaderName::from_static("x-none"))), "::1"), None);
    assert_eq!(of(&hash(HashKey::Cookie("sid".to_owned())), "::1"), Some(xxh3_64(b"9")));
    assert_eq!(of(&hash(HashKey::Cookie("id".to_owned())), "::1"), None);
    let whole = hash(HashKey::ClientAddress);
    assert_ne!(of(&whole, "192.0.2.1"), of(&whole, "192.0.2.2"));
    assert_eq!(of(&whole, "192.0.2.1"), of(&whole, "::ffff:192.0.2.1"));
    let network = Algorithm::ClientAddress;
    assert_eq!(of(&network, "192.0.2.1"), of(&network, "192.0.2.200"));
    assert_ne!(of(&network, "192.0.2.1"), of(&network, "192.0.3.1"));
    assert_ne!(of(&network, "2001:db8::1"), of(&network, "2001:db8::2"));
    assert_eq!(network.key(&uri, &headers, None), None);
}

#[test]
fn without_a_key_the_servers_take_turns() {
    let mut two = candidates(&[1.0, 1.0]);
    let order: Vec<_> = (0..4).map(|_| by_hash(None).choose(&mut two, None, &mut Random::seeded(0)).unwrap()).collect();
    assert_eq!(order, [0, 1, 0, 1]);
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop::sample::select(vec![
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
        Algorithm::Random,
        Algorithm::PeakEwma,
        Algorithm::ClientAddress,
        by_hash(None),
        by_hash(Some(100)),
        by_hash(Some(125)),
    ])
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    (0.01_f64..200.0, 0_usize..500, prop::option::of(0.0_f64..10.0), any::<u64>(), -200.0_f64..200.0)
        .prop_map(|(weight, in_flight, latency, id, turn)| Candidate { weight, in_flight, latency, id, turn })
}

proptest! {
    #![proptest_config(same_each_time())]

    #[test]
    fn there_is_always_a_choice(
        algorithm in algorithms(),
        mut candidates in prop::collection::vec(any_candidate(), 0..20),
        key in prop::option::of(any::<u64>()),
        seed in any::<u64>(),
    ) {
        let chosen = algorithm.choose(&mut candidates, key, &mut Random::seeded(seed));
        prop_assert_eq!(chosen.is_some(), !candidates.is_empty());
        prop_assert!(chosen.is_none_or(|place| place < candidates.len()));
    }

    #[test]
    fn a_server_that_comes_or_goes_moves_only_its_own_keys(
        weights in prop::collection::vec(0.5_f64..4.0, 2..8),
        gone in any::<prop::sample::Index>(),
    ) {
        const KEYS: u64 = 1000;
        let all = candidates(&weights);
        let gone = gone.index(all.len());
        let rest: Vec<_> = all.iter().enumerate().filter(|(n, _)| *n != gone).map(|(_, c)| c.clone()).collect();
        let mut moved = 0_u64;
        for key in 0..KEYS {
            let key = xxh3_64(&key.to_le_bytes());
            let before = all[rendezvous(&all, key, None).unwrap()].id;
            let after = rest[rendezvous(&rest, key, None).unwrap()].id;
            if before != after {
                prop_assert_eq!(before, all[gone].id);
                moved += 1;
            }
        }
        let share = weights[gone] / weights.iter().sum::<f64>();
        let deviation = (KEYS as f64 * share * (1.0 - share)).sqrt();
        prop_assert!((moved as f64) < (KEYS as f64).mul_add(share, 5.0 * deviation), "{} of {}", moved, share);
    }

    #[test]
    fn a_bound_holds_for_everyone(weights in prop::collection::vec(0.5_f64..4.0, 1..8), percent in 100_u32..200) {
        let mut all = candidates(&weights);
        let total: f64 = weights.iter().sum();
        for n in 1..=300_u32 {
            // One key alone: all would go to one server.
            let place = rendezvous(&all, 1, Some(percent)).unwrap();
            all[place].in_flight += 1;
            let most = (f64::from(n) * all[place].weight / total * f64::from(percent) / 100.0).ceil();
            prop_assert!(all[place].in_flight as f64 <= most);
        }
    }
}
