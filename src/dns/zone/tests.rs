use super::super::zone_file::record;
use super::*;

fn name(text: &str) -> Name {
    Name::parse(text, None).unwrap()
}

fn zone(apex: &str, lines: &[&str], steered: &[&str]) -> ZoneData {
    let apex = name(apex);
    let records = lines.iter().map(|line| record(line, &apex, 300).unwrap()).collect();
    let steered = steered.iter().map(|text| (Name::parse(text, Some(&apex)).unwrap(), 0)).collect();
    ZoneData { apex, records, steered }
}

const BASICS: [&str; 2] = ["@ SOA ns1 hostmaster 1 2h 30m 2w 1m", "@ NS ns1"];

fn basic(more: &[&str]) -> Vec<&'static str> {
    BASICS.iter().copied().chain(more.iter().map(|line| &*String::from(*line).leak())).collect()
}

#[test]
fn names_in_data_are_relative_to_the_apex() {
    let zones =
        Zones::build(&[zone("example.com", &basic(&["@ MX 10 mail", "@ MX 20 mail.example.net."]), &[])]).unwrap();
    let zone = zones.iter().next().unwrap();
    let apex = zones.apex(zone).unwrap();
    let soa = &apex.set(kind::SOA).unwrap().data[0];
    assert!(soa.bytes.starts_with(b"\x03ns1\0\0\x0ahostmaster\0\0\0\0\0\x01"), "{}", soa.bytes.escape_ascii());
    assert_eq!(*soa.pointers, [4, 17]);
    let mx = &apex.set(kind::MX).unwrap().data;
    assert_eq!((&*mx[0].bytes, &*mx[0].pointers), (&b"\0\x0a\x04mail\0\0"[..], &[7][..]));
    assert_eq!((&*mx[1].bytes, &*mx[1].pointers), (&b"\0\x14\x04mail\x07example\x03net\0"[..], &[][..]));
    // RFC 2308 section 5: the lesser of the SOA's TTL and its last field.
    assert_eq!(zone.negative.ttl, 60);
}

#[test]
fn names_are_found_by_the_rules_of_wildcards_and_delegations() {
    let lines = basic(&[
        "*.w A 192.0.2.1",
        "x.w TXT here",
        "a.b.c A 192.0.2.2",
        "sub NS ns.sub",
        "ns.sub A 192.0.2.3",
        "deep.sub A 192.0.2.4",
    ]);
    let zones = Zones::build(&[zone("example.com", &lines, &["s"]), zone("own.example.com", &BASICS, &[])]).unwrap();
    let found = |text: &str| {
        let name = name(text);
        let (_, zone) = zones.zone_of(name.as_wire())?;
        Some(match zones.find(zone, name.as_wire(), false) {
            Found::Entry(entry) if entry.sets.is_empty() && entry.policy.is_none() => "empty".to_owned(),
            Found::Entry(entry) if entry.policy.is_some() => "steered".to_owned(),
            Found::Entry(entry) => format!("{}", entry.sets[0].kind),
            Found::Delegated(entry, before) => format!("delegated at {before}, glue {}", entry.glue.len()),
            Found::Nothing => "nothing".to_owned(),
        })
    };
    for (text, expected) in [
        ("example.com", Some("6")),
        ("y.w.example.com", Some("1")),
        ("y.y.w.example.com", Some("1")),
        ("x.w.example.com", Some("16")),
        // The wildcard is not beside a name that exists below it (RFC 4592 section 2.2.1).
        ("y.x.w.example.com", Some("nothing")),
        ("w.example.com", Some("empty")),
        ("*.w.example.com", Some("1")),
        ("b.c.example.com", Some("empty")),
        ("z.c.example.com", Some("nothing")),
        ("sub.example.com", Some("delegated at 0, glue 1")),
        ("deep.sub.example.com", Some("delegated at 5, glue 1")),
        ("s.example.com", Some("steered")),
        ("own.example.com", Some("6")),
        ("x.own.example.com", Some("nothing")),
        ("example.org", None),
        ("com", None),
    ] {
        assert_eq!(found(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn contradictions_are_named() {
    for (lines, steered, part) in [
        (vec!["@ NS ns1"], vec![], "no SOA"),
        (vec!["@ SOA a b 1 1 1 1 1"], vec![], "names no name server"),
        (basic(&["@ SOA a b 2 1 1 1 1"]), vec![], "2 SOA records"),
        (basic(&["x CNAME y", "x A 192.0.2.1"]), vec![], "x.example.com is an alias"),
        (basic(&["x CNAME y", "x CNAME z"]), vec![], "x.example.com is an alias"),
        (basic(&["x.example.net. A 192.0.2.1"]), vec![], "lies outside"),
        (basic(&["x SOA a b 2 1 1 1 1"]), vec![], "which only the apex"),
        (basic(&["x A 192.0.2.1"]), vec!["x"], "has a policy, so it can have no A"),
        (basic(&["x NS y"]), vec!["x"], "delegated by its NS"),
        (basic(&[]), vec!["x.example.net."], "lies outside"),
    ] {
        let problems = Zones::build(&[zone("example.com", &lines, &steered)]).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
    }
    let twice = [zone("example.com", &BASICS, &[]), zone("example.com", &BASICS, &[])];
    assert_eq!(Zones::build(&twice).unwrap_err(), ["zone example.com is there twice"]);
}
