use super::super::fuzz::{serving, shared};
use super::*;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Ask};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{Name as TheirName, RecordType};
use hickory_proto::serialize::binary::BinEncodable;
use std::str::FromStr;

struct Test {
    serving: Serving,
    shared: Shared,
    from: IpAddr,
    transport: Transport,
}

impl Test {
    fn new() -> Self {
        let from = "203.0.113.9".parse().unwrap();
        Self { serving: serving(|_, _| {}), shared: shared(), from, transport: Transport::Tcp }
    }

    fn raw(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; 65_535];
        let asked = Asked { message, from: self.from, transport: self.transport, now: 1_000_000, micros: 5 };
        let length = answer(&self.serving, &self.shared, asked, &mut out)?;
        out.truncate(length);
        Some(out)
    }

    fn ask(&self, name: &str, kind: RecordType, edns: Option<Edns>) -> Message {
        let bytes = request(name, kind, edns);
        Message::from_vec(&self.raw(&bytes).unwrap()).unwrap()
    }

    /// Code, answers, authorities and additional records as text.
    fn shown(&self, name: &str, kind: RecordType) -> String {
        let message = self.ask(name, kind, None);
        let list = |records: &[hickory_proto::rr::Record]| {
            let one = |r: &hickory_proto::rr::Record| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data);
            records.iter().map(one).collect::<Vec<_>>().join(" | ")
        };
        let aa = if message.metadata.authoritative { "aa" } else { "" };
        format!(
            "{} {aa} [{}] [{}] [{}]",
            message.metadata.response_code.low(),
            list(&message.answers),
            list(&message.authorities),
            list(&message.additionals)
        )
    }
}

fn request(name: &str, kind: RecordType, edns: Option<Edns>) -> Vec<u8> {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Ask::query(TheirName::from_str(name).unwrap(), kind));
    message.edns = edns;
    message.to_bytes().unwrap()
}

fn edns(subnet: &str) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    if !subnet.is_empty() {
        edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::from_str(subnet).unwrap()));
    }
    edns
}

fn scope(message: &Message) -> Option<u8> {
    match message.edns.as_ref()?.option(EdnsCode::Subnet)? {
        EdnsOption::Subnet(subnet) => Some(subnet.scope_prefix()),
        _ => None,
    }
}

fn address(message: &Message) -> String {
    message.answers.iter().map(|record| record.data.to_string()).collect::<Vec<_>>().join(" ")
}

const SOA: &str = "example.com. 300 SOA ns1.example.com. hostmaster.example.com. 1 7200 1800 1209600 300";

#[test]
fn every_kind_of_answer_is_as_the_standards_have_it() {
    let test = Test::new();
    for (name, kind, expected) in [
        ("example.com.", RecordType::SOA, format!("0 aa [{SOA}] [] []")),
        (
            "example.com.",
            RecordType::NS,
            "0 aa [example.com. 300 NS ns1.example.com. | example.com. 300 NS ns2.example.net.] [] []".to_owned(),
        ),
        ("example.com.", RecordType::MX, "0 aa [example.com. 300 MX 10 mail.example.com.] [] []".to_owned()),
        ("example.com.", RecordType::CAA, "0 aa [example.com. 300 CAA 0 issue \"letsencrypt.org\"] [] []".to_owned()),
        ("example.com.", RecordType::A, "0 aa [example.com. 60 A 198.51.100.1] [] []".to_owned()),
        ("example.com.", RecordType::AAAA, "0 aa [example.com. 60 AAAA 2001:db8::1] [] []".to_owned()),
        (
            "alias.example.com.",
            RecordType::A,
            "0 aa [alias.example.com. 300 CNAME www.example.com. | www.example.com. 300 CNAME example.com. | \
             example.com. 60 A 198.51.100.1] [] []"
                .to_owned(),
        ),
        (
            "alias.example.com.",
            RecordType::CNAME,
            "0 aa [alias.example.com. 300 CNAME www.example.com.] [] []".to_owned(),
        ),
        ("out.example.com.", RecordType::A, "0 aa [out.example.com. 300 CNAME www.example.net.] [] []".to_owned()),
        (
            "dangling.example.com.",
            RecordType::A,
            format!("3 aa [dangling.example.com. 300 CNAME nowhere.example.com.] [{SOA}] []"),
        ),
        ("a.b.wild.example.com.", RecordType::A, "0 aa [a.b.wild.example.com. 300 A 192.0.2.99] [] []".to_owned()),
        ("wild.example.com.", RecordType::A, format!("0 aa [] [{SOA}] []")),
        ("below.example.com.", RecordType::A, format!("0 aa [] [{SOA}] []")),
        ("nope.example.com.", RecordType::A, format!("3 aa [] [{SOA}] []")),
        (
            "x.sub.example.com.",
            RecordType::A,
            "0  [] [sub.example.com. 300 NS ns.sub.example.com.] [ns.sub.example.com. 300 A 192.0.2.153]".to_owned(),
        ),
        ("sub.example.com.", RecordType::DS, format!("0 aa [] [{SOA}] []")),
        ("example.com.", RecordType::ANY, "0 aa [example.com. 3600 HINFO RFC8482 ] [] []".to_owned()),
        ("example.org.", RecordType::A, "5  [] [] []".to_owned()),
        ("example.com.", RecordType::AXFR, "5  [] [] []".to_owned()),
    ] {
        assert_eq!(test.shown(name, kind), expected, "{name} {kind}");
    }
    let looping = test.ask("loop.example.com.", RecordType::A, None);
    assert_eq!(looping.answers.len(), MOST_ALIASES);
}

#[test]
fn the_question_keeps_its_case() {
    let bytes = request("WwW.eXaMpLe.CoM.", RecordType::A, None);
    let reply = Test::new().raw(&bytes).unwrap();
    assert_eq!(reply[12..12 + 21], bytes[12..12 + 21]);
    assert_eq!(reply[6..8], [0, 2], "alias and address");
}

#[test]
fn clients_are_told_apart_by_their_subnet() {
    let mut test = Test::new();
    for (subnet, expected, scopes) in [
        ("203.0.113.0/24", "198.51.100.1", 5),
        ("198.18.7.0/24", "198.51.100.2", 16),
        ("198.16.0.0/12", "198.51.100.1", 12),
        ("2001:db8:5::/48", "198.51.100.3", 48),
        ("2001:db8:5::/64", "198.51.100.3", 48),
        ("2001:db8:6::/48", "198.51.100.1", 47),
        ("192.0.2.0/24", "198.51.100.1", 6),
    ] {
        let reply = test.ask("near.example.com.", RecordType::A, Some(edns(subnet)));
        assert_eq!((address(&reply).as_str(), scope(&reply)), (expected, Some(scopes)), "{subnet}");
    }
    // Without a subnet, or with one of length 0, the resolver's own address counts, and the scope is 0.
    test.from = "198.18.1.1".parse().unwrap();
    assert_eq!(address(&test.ask("near.example.com.", RecordType::A, None)), "198.51.100.2");
    let hidden = test.ask("near.example.com.", RecordType::A, Some(edns("0.0.0.0/0")));
    assert_eq!((address(&hidden).as_str(), scope(&hidden)), ("198.51.100.2", Some(0)));
    // What is the same for everyone says so.
    for (name, kind) in [
        ("mail.example.com.", RecordType::A),
        ("near.example.com.", RecordType::TXT),
        ("no.example.com.", RecordType::A),
    ] {
        assert_eq!(scope(&test.ask(name, kind, Some(edns("203.0.113.0/24")))), Some(0), "{name}");
    }
    assert_eq!(scope(&test.ask("near.example.com.", RecordType::A, Some(edns("")))), None);
    // Weights go by prefix, names by name.
    let share = test.ask("share.example.com.", RecordType::A, Some(edns("203.0.113.128/25")));
    assert_eq!(scope(&share), Some(24));
    let same = |subnet: &str| {
        let reply = test.ask("same.example.com.", RecordType::A, Some(edns(subnet)));
        (address(&reply), scope(&reply))
    };
    assert_eq!(same("203.0.113.0/24"), same("198.18.7.0/24"));
    assert_eq!(same("203.0.113.0/24").1, Some(0));
}

#[test]
fn a_large_answer_is_truncated_unless_a_cookie_proves_who_asks() {
    let mut test = Test::new();
    test.transport = Transport::Udp;
    let mut with = edns("");
    let big = test.ask("big.example.com.", RecordType::TXT, Some(with.clone()));
    assert!(big.metadata.truncation && big.answers.is_empty() && big.edns.is_some());
    let cookie = |bytes: &[u8]| EdnsOption::Unknown(10, bytes.to_vec());
    with.options_mut().insert(cookie(b"12345678"));
    let first = test.ask("big.example.com.", RecordType::TXT, Some(with));
    assert!(first.metadata.truncation);
    let given = test.shared.cookies.make(*b"12345678", test.from, 1_000_000);
    let mut proven = edns("");
    proven.options_mut().insert(cookie(&given));
    let whole = test.ask("big.example.com.", RecordType::TXT, Some(proven));
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 2);
    test.serving.amplification = 0;
    assert_eq!(test.ask("big.example.com.", RecordType::TXT, Some(edns(""))).answers.len(), 2);
    assert!(!test.ask("big.example.com.", RecordType::TXT, None).metadata.truncation, "it fits in 512 bytes");
}

#[test]
fn other_versions_and_classes_are_answered_by_the_rules() {
    let test = Test::new();
    let mut other = edns("");
    other.set_version(1);
    let reply = test.ask("example.com.", RecordType::A, Some(other));
    // hickory-proto has BADSIG for the same number.
    assert_eq!(u16::from(reply.metadata.response_code), 16);
    assert_eq!((reply.answers.len(), reply.edns.unwrap().version()), (0, 0));
    let mut chaos = request("id.server.", RecordType::TXT, None);
    let class = chaos.len() - 1;
    chaos[class] = 3;
    let reply = test.raw(&chaos).unwrap();
    assert!(reply.ends_with(b"\x06edge-1"), "{}", reply.escape_ascii());
    chaos[class] = 4;
    assert_eq!(test.raw(&chaos).unwrap()[3] & 0xf, 5);
    // An unknown operation and garbage get the header alone; answers get nothing.
    assert_eq!(test.raw(b"\x12\x34\x28\0\0\0\0\0\0\0\0\0").unwrap(), b"\x12\x34\xa8\x04\0\0\0\0\0\0\0\0");
    assert_eq!(test.raw(b"\x12\x34\0\0\0\x01\0\0\0\0\0\0").unwrap(), b"\x12\x34\x80\x01\0\0\0\0\0\0\0\0");
    assert_eq!(test.raw(b"\x12\x34\x80\0\0\0\0\0\0\0\0\0"), None);
}

#[test]
fn a_changed_node_shows_in_the_time_to_live() {
    let mut test = Test::new();
    test.serving = serving(|nodes, _| nodes[1].drain = true);
    test.from = "198.18.1.1".parse().unwrap();
    let reply = test.ask("near.example.com.", RecordType::A, None);
    assert_eq!((address(&reply).as_str(), reply.answers[0].ttl), ("198.51.100.1", 10));
}

#[test]
fn responses_above_the_limit_are_dropped_or_truncated() {
    let mut test = Test::new();
    test.transport = Transport::Udp;
    test.serving.rate_limit = Some(RateLimit { per_second: 5, slip: 2 });
    let query = request("mail.example.com.", RecordType::A, None);
    let results: Vec<_> = (0..9).map(|_| test.raw(&query).map(|reply| reply[2] & 2 != 0)).collect();
    assert_eq!(results[..5], [Some(false); 5]);
    assert_eq!(results[5..], [Some(true), None, Some(true), None]);
    test.transport = Transport::Tcp;
    assert_eq!(test.raw(&query).map(|reply| reply[2] & 2 != 0), Some(false));
}
