//! What fuzzers feed the DNS plane: whole requests, by both transports, with hickory-proto as the second opinion.

use super::answer::{Asked, Serving, Shared, answer};
use super::cookie::Key;
use super::handles::{Handles, Transport};
use super::limit::Limiter;
use super::message;
use super::name::Name;
use super::settings::Node;
use super::steer::{NodeState, Pick, Policy, Steering, Step};
use super::zone::{ZoneData, Zones};
use super::zone_file::record;
use crate::geo::{Place, PlaceMap, locate};
use crate::metrics::Metrics;
use hickory_proto::op::Message;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// The zone that is asked for.
pub(crate) const ZONE: &[&str] = &[
    "@ SOA ns1 hostmaster 1 2h 30m 2w 5m",
    "@ NS ns1",
    "@ NS ns2.example.net.",
    "@ MX 10 mail",
    "@ TXT \"v=spf1 -all\"",
    "@ CAA 0 issue \"letsencrypt.org\"",
    "@ HTTPS 1 . alpn=h2",
    "ns1 A 192.0.2.53",
    "ns1 AAAA 2001:db8::53",
    "mail A 192.0.2.25",
    "www CNAME @",
    "alias CNAME www",
    "out CNAME www.example.net.",
    "loop CNAME loop2",
    "loop2 CNAME loop",
    "dangling CNAME nowhere",
    "*.wild A 192.0.2.99",
    "*.wild TXT wild",
    "deep.empty.below A 192.0.2.98",
    "sub NS ns.sub",
    "ns.sub A 192.0.2.153",
    "tosub CNAME host.sub",
    "big TXT \"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"",
    "big TXT \"a123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"",
];

/// A server of [`ZONE`] with three nodes.
pub(crate) fn serving(change: impl FnOnce(&mut Vec<Node>, &mut Vec<Policy>)) -> Serving {
    let apex = Name::from_wire(b"\x07example\x03com\0");
    let records = ZONE.iter().filter_map(|line| record(line, &apex, 300).ok()).collect();
    let node = |n: u8, name: &str, place: &str| Node {
        name: name.into(),
        v4: vec![[198, 51, 100, n].into()],
        v6: vec![[0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()].into()],
        place: locate(place).unwrap_or(Place::UNKNOWN),
        group: None,
        weight: 1,
        drain: false,
        check: None,
    };
    let mut nodes = vec![node(1, "fra", "Frankfurt"), node(2, "iad", "Ashburn"), node(3, "sin", "Singapore")];
    let policy = |name: &str, pick, steps: Vec<Step>| Policy {
        name: name.into(),
        nodes: vec![0, 1, 2],
        steps,
        pick,
        ttl: Duration::from_secs(60),
        changing_ttl: Duration::from_secs(10),
    };
    let mut policies = vec![
        policy("near", Pick::All, vec![Step::Nearest(1)]),
        policy("share", Pick::Weighted(1), Vec::new()),
        policy("same", Pick::Consistent(1), Vec::new()),
    ];
    change(&mut nodes, &mut policies);
    let steered = [("@", 0), ("near", 0), ("share", 1), ("same", 2), ("*.near", 0)];
    let steered = steered.iter().filter_map(|(name, policy)| Some((Name::parse(name, Some(&apex)).ok()?, *policy)));
    let zones = Zones::build(&[ZoneData { apex: apex.clone(), records, steered: steered.collect() }]);
    let zones = zones.unwrap_or_default();
    let names: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
    let handles = Handles::new(
        &Metrics::new(),
        zones.iter().map(|zone| zone.apex.to_string()),
        policies.iter().map(|policy| &*policy.name),
        &names,
    );
    let states = nodes.iter().map(|node| NodeState { up: true, drain: node.drain }).collect();
    let networks = [("203.0.113.0/24", "DE"), ("198.18.0.0/16", "US"), ("2001:db8:5::/48", "SG")];
    let networks = networks.iter().filter_map(|(network, place)| Some((network.parse().ok()?, locate(place)?)));
    let places = PlaceMap::from_networks(networks, Place::UNKNOWN);
    Serving {
        zones: Arc::new(zones),
        steering: Arc::new(Steering::build(&policies, &[], &nodes.into(), states, &places)),
        handles: Arc::new(handles),
        udp_payload: 1232,
        amplification: 3,
        identity: Some("edge-1".into()),
        rate_limit: None,
        query_log: 0,
    }
}

/// What goes with it.
pub(crate) fn shared() -> Shared {
    Shared { cookies: Key::new([7; 16]), limiter: Limiter::default(), keepalive: 100, begun: Instant::now() }
}

/// A request, whatever it is: the answer is well-formed, to the point, and not too long.
pub(crate) fn request(data: &[u8]) {
    static SERVING: LazyLock<(Serving, Shared)> = LazyLock::new(|| (serving(|_, _| {}), shared()));
    let (serving, shared) = &*SERVING;
    let ours = message::parse(data);
    let from: IpAddr = [203, 0, 113, 9].into();
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut out = vec![0xaa; 65_535];
        let asked = Asked { message: data, from, transport, now: 1_000_000, micros: 1 };
        let Some(length) = answer(serving, shared, asked, &mut out) else {
            assert_eq!(ours.as_ref().err(), Some(&message::Unusable::Ignored));
            continue;
        };
        out.truncate(length);
        if transport == Transport::Udp {
            assert!(length <= 1232 && length <= 3 * data.len().max(32), "{length} for {}", data.len());
        }
        // hickory-proto knows no family 0, by which BIND's tools ask for no subnet at all.
        let nameless = ours.as_ref().is_ok_and(|q| q.edns.and_then(|e| e.subnet).is_some_and(|s| s.family == 0));
        if !nameless {
            well_formed(&out, data);
        }
    }
    // What is understood here is understood by others, to the same effect.
    if let Ok(query) = ours {
        let theirs = Message::from_vec(data);
        let Ok(theirs) = theirs else { return };
        assert_eq!(theirs.queries.len(), usize::from(query.question.is_some()));
        if let (Some(question), Some(other)) = (query.question, theirs.queries.first()) {
            assert_eq!((question.kind, question.class), (other.query_type().into(), other.query_class().into()));
            let labels: Vec<u8> =
                other.name().iter().flat_map(|label| [&[label.len() as u8], label].concat()).collect();
            assert_eq!(question.name.strip_suffix(&[0]), Some(&*labels));
        }
        assert_eq!(theirs.edns.is_some(), query.edns.is_some());
    }
}

fn well_formed(out: &[u8], request: &[u8]) {
    let reply = Message::from_vec(out).unwrap_or_else(|error| panic!("{error}: {}", out.escape_ascii()));
    assert_eq!(out.get(..2), request.get(..2));
    assert!(out.get(2).is_some_and(|flags| flags & 0x80 != 0), "it is a response");
    assert!(out.get(3).is_some_and(|flags| flags & 0xe0 == 0), "RA, Z and AD are never set");
    if let Some(question) = reply.queries.first() {
        let wire = out.get(12..).unwrap_or_default();
        let length = question.name().len() + 4;
        assert!(wire.len() >= length && request.get(12..12 + length) == wire.get(..length), "the question is repeated");
    }
}
