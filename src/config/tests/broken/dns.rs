//! Zones, nodes and policies of DNS.

use super::Case;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    (
        "[dns]\nlisten = []",
        "2:10: `dns.listen` is empty",
        "write `listen = [\"0.0.0.0:53\", \"[::]:53\"]`",
    ),
    (
        "[dns]\nlisten = [\"127.0.0.1:53\"]\ncookie_secret = \"0123\"",
        "3:17: `dns.cookie_secret` is not 32 hexadecimal digits",
        "take random ones, as `openssl rand -hex 16` gives, the same for all servers of an address",
    ),
    (
        "[dns]\nlisten = [\"127.0.0.1:53\"]\n[dns.nodes.a]\naddresses = [\"192.0.2.1:80\"]",
        "4:14: `dns.nodes.a.addresses[0]` is \"192.0.2.1:80\", not an IP address",
        "write an address without a port, as in \"192.0.2.1\" or \"2001:db8::1\"",
    ),
    (
        "[dns]\nlisten = [\"127.0.0.1:53\"]\n[dns.nodes.a]\naddresses = [\"192.0.2.1\"]\nlocation = \"Atlantis\"",
        "5:12: `dns.nodes.a.location` is \"Atlantis\", a place that is not known",
        "write a country's code (\"DE\"), a city (\"Frankfurt\"), or latitude and longitude (\"50.11, 8.68\")",
    ),
    (
        "[dns]\nlisten = [\"127.0.0.1:53\"]\n[dns.nodes.a]\naddresses = [\"192.0.2.1\"]\n[dns.policies.p]\nsteps = [\"failover a, b\"]",
        "6:10: `dns.policies.p.steps[0]` names \"b\", neither a node nor a group",
        "write a name of [dns.nodes] or a `group` of them: `a`",
    ),
    (
        "[dns]\nlisten = [\"127.0.0.1:53\"]\n[dns.nodes.a]\naddresses = [\"192.0.2.1\"]\n[dns.policies.p]\nsteps = [\"nearest 9\"]",
        "6:10: `dns.policies.p.steps[0]` is \"nearest 9\", whose number is out of range",
        "write a number from 1 to 8, as in \"nearest 2\"",
    ),
    (
        "[dns]\nlisten = [\"127.0.0.1:53\"]\n[[dns.zones]]\nname = \"example.com\"\nnameservers = [\"ns1\"]\nrecords = [\"www A 192.0.2.300\"]",
        "6:12: `dns.zones[0].records[0]` is \"www A 192.0.2.300\", not a record: \"192.0.2.300\" is no data of type A, \
         expected an IPv4 address (network address parse error: invalid IPv4 address syntax)",
        "write it as a line of a zone file, as in \"www 300 A 192.0.2.1\"",
    ),
    (
        "[dns]\nlisten = [\"127.0.0.1:53\"]\n[[dns.zones]]\nname = \"example.com\"\nnameservers = [\"ns1\"]\nrecords = [\"www CNAME a\", \"www A 192.0.2.1\"]",
        "3:1: `dns.zones[0]`: www.example.com is an alias (CNAME), so it can have no other records beside that one",
        "correct the records of this zone",
    ),
    (
        "[dns]\nlisten = [\"127.0.0.1:53\"]\n[[dns.zones]]\nname = \"example.com\"\nrecords = [\"@ NS ns1\"]",
        "3:1: `dns.zones[0]`: zone example.com has no SOA record",
        "correct the records of this zone",
    ),
];
