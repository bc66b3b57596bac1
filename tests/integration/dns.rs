//! The DNS plane against dig and dnspython.

use super::support::edge::{BINARY, Edge, config, one_origin};
use super::support::nginx::Nginx;
use super::support::tools::{free_port, wait_until};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

const ZONE: &str = "\
$TTL 300
@     SOA ns1 hostmaster 7 2h 30m 2w 1m
      NS ns1
      MX 10 mail
      TXT \"v=spf1 -all\"
      CAA 0 issue \"letsencrypt.org\"
      HTTPS 1 . alpn=\"h2,h3\"
ns1   A 127.0.0.1
      AAAA ::1
mail  A 192.0.2.25
alias CNAME www
*.any A 192.0.2.99
long  TXT ( \"0123456789012345678901234567890123456789012345678901234567890123456789\"
            \"abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghij\" )
";

const DNS: &str = r#"
[dns]
listen = ["127.0.0.1:0", "[::1]:0"]
threads = 2
identity = "edge-1"

[dns.geo.networks]
"203.0.0.0/17" = "Frankfurt"
"203.0.128.0/17" = "US"
"2001:db8:1::/48" = "DE"

[dns.nodes.fra]
addresses = ["198.51.100.1", "2001:db8::1"]
location = "Frankfurt"
group = "eu"

[dns.nodes.iad]
addresses = ["198.51.100.2"]
location = "39.0, -77.5"

[dns.policies.near]
steps = ["nearest"]
ttl = "30s"

[[dns.zones]]
name = "example.com"
file = "example.com.zone"
policies = { "@" = "near", "www" = "near" }
"#;

/// A running edge with this `[dns]`, and its first DNS address.
fn start(dns: &str) -> (Edge, SocketAddr) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("example.com.zone"), ZONE).unwrap();
    let edge = Edge::start_in(dir, &whole(dns), &[]);
    let address = addresses(&edge)[0];
    (edge, address)
}

fn whole(dns: &str) -> String {
    config(&format!("{dns}\n{}", one_origin("127.0.0.1:1".parse().unwrap())))
}

fn addresses(edge: &Edge) -> Vec<SocketAddr> {
    let line = edge.wait_for_log(0, "serving");
    let list = line.split_whitespace().find_map(|word| word.strip_prefix("dns=")).unwrap().trim_matches('"').to_owned();
    list.split(',').map(|address| address.parse().unwrap()).collect()
}

fn dig(server: SocketAddr, args: &[&str]) -> String {
    let port = server.port().to_string();
    let out = Command::new("dig")
        .args([&format!("@{}", server.ip()), "-p", &port, "+tries=1", "+time=10", "+nocookie", "+norec"])
        .args(args)
        .output()
        .expect("dig, of the package bind9-dnsutils");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "dig {args:?}: {text}");
    assert!(!text.contains("WARNING") && !text.contains("MALFORMED"), "dig {args:?}: {text}");
    text
}

/// Answers alone, one to a line.
fn short(server: SocketAddr, args: &[&str]) -> String {
    dig(server, &[&["+short"], args].concat()).trim().replace('\n', " ")
}

#[test]
fn dig_gets_every_type_by_both_transports_and_families() {
    let (edge, _) = start(DNS);
    for server in addresses(&edge) {
        for (args, expected) in [
            (&["example.com", "SOA"][..], "ns1.example.com. hostmaster.example.com. 7 7200 1800 1209600 60"),
            (&["example.com", "NS"], "ns1.example.com."),
            (&["example.com", "MX", "+tcp"], "10 mail.example.com."),
            (&["example.com", "TXT"], "\"v=spf1 -all\""),
            (&["example.com", "CAA"], "0 issue \"letsencrypt.org\""),
            (&["example.com", "HTTPS"], "1 . alpn=\"h2,h3\""),
            (&["ns1.example.com", "AAAA"], "::1"),
            (&["x.y.any.example.com", "A"], "192.0.2.99"),
            (&["example.com", "ANY", "+notcp"], "\"RFC8482\" \"\""),
            (&["id.server", "CH", "TXT", "+tcp"], "\"edge-1\""),
            (&["example.com", "A", "+subnet=203.0.1.0/24"], "198.51.100.1"),
            (&["example.com", "A", "+subnet=203.0.200.0/24"], "198.51.100.2"),
            (&["www.example.com", "AAAA", "+subnet=2001:db8:1::/48", "+tcp"], "2001:db8::1"),
            (&["alias.example.com", "A", "+subnet=203.0.200.0/24"], "www.example.com. 198.51.100.2"),
        ] {
            assert_eq!(short(server, args), expected, "{args:?} at {server}");
        }
    }
    let queries = |zone: &str, transport: &str, rcode: &str| {
        edge.metric(&format!(
            "selvedge_dns_queries_total{{rcode=\"{rcode}\",transport=\"{transport}\",zone=\"{zone}\"}}"
        ))
    };
    assert!(queries("example.com", "udp", "NOERROR") >= 20.0 && queries("example.com", "tcp", "NOERROR") >= 4.0);
    assert!(edge.metric("selvedge_dns_steered_total{node=\"iad\",policy=\"near\"}") >= 4.0);
    assert!(edge.terminate().success());
}

#[test]
fn dig_sees_statuses_flags_scopes_cookies_and_truncation() {
    let (_edge, server) = start(DNS);
    for (args, parts) in [
        (&["nope.example.com", "A"][..], &["status: NXDOMAIN", "flags: qr aa;", "AUTHORITY: 1", "\t60\tIN\tSOA"][..]),
        (&["mail.example.com", "AAAA"], &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1"]),
        (&["example.net", "A"], &["status: REFUSED", "flags: qr;"]),
        (&["example.com", "AXFR", "+tcp"], &["Transfer failed"]),
        (&["version.bind", "CH", "TXT"], &["status: REFUSED"]),
        (&["example.com", "A", "+edns=1", "+noednsneg"], &["status: BADVERS", "EDNS: version: 0"]),
        (&["example.com", "A", "+noedns"], &["status: NOERROR", "ADDITIONAL: 0"]),
        (&["example.com", "A", "+nsid"], &["NSID: 65 64 67 65 2d 31"]),
        (&["example.com", "A", "+dnssec"], &["EDNS: version: 0, flags: do; udp: 1232"]),
        (&["example.com", "A", "+subnet=203.0.1.0/24"], &["CLIENT-SUBNET: 203.0.1.0/24/17"]),
        (&["example.com", "A", "+subnet=203.0.0.0/12"], &["CLIENT-SUBNET: 203.0.0.0/12/12"]),
        (&["example.com", "A", "+subnet=0/0"], &["CLIENT-SUBNET: 0.0.0.0/0/0"]),
        (&["mail.example.com", "A", "+subnet=203.0.1.0/24"], &["CLIENT-SUBNET: 203.0.1.0/24/0"]),
        (&["example.com", "A", "+subnet=192.0.2.0/24"], &["CLIENT-SUBNET: 192.0.2.0/24/5"]),
        (&["example.com", "A", "+ednsopt=100:010203"], &["status: NOERROR", "ADDITIONAL: 1"]),
        (&["long.example.com", "TXT", "+ignore"], &["flags: qr aa tc;", "ANSWER: 0"]),
        (&["long.example.com", "TXT"], &["Truncated, retrying in TCP", "ANSWER: 1"]),
        (&["EXAMPLE.coM", "NS"], &["EXAMPLE.coM.\t\t300\tIN\tNS\tns1.EXAMPLE.coM."]),
    ] {
        let text = dig(server, args);
        for part in parts {
            assert!(text.contains(part), "dig {args:?}, {part:?}: {text}");
        }
    }
    let cookie = dig(server, &["+cookie=0123456789abcdef", "example.com", "A"]);
    let given = cookie.lines().find_map(|line| line.strip_prefix("; COOKIE: ")).unwrap();
    assert!(given.ends_with(" (good)") && given.len() == 48 + 7, "{given}");
    let given = given.trim_end_matches(" (good)");
    // Who shows the cookie need not come by TCP.
    let whole = dig(server, &[&format!("+cookie={given}"), "+ignore", "long.example.com", "TXT"]);
    assert!(whole.contains("flags: qr aa;") && whole.contains("ANSWER: 1"), "{whole}");
}

#[test]
fn dnspython_finds_edns_pipelining_and_scopes_as_they_should_be() {
    let (_edge, server) = start(&DNS.replace("listen = [\"127.0.0.1:0\", \"[::1]:0\"]", "listen = [\"127.0.0.1:0\"]"));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Command::new(root.join("target/test-tools/bin/python"))
        .arg(root.join("tests/integration/support/dns_scene.py"))
        .arg(server.port().to_string())
        .output()
        .expect("the Python tools of tests/requirements.txt, which tests/run installs");
    let text = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(out.status.success() && text.trim() == "ok", "{text}");
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let dns = DNS.replace("listen = [\"127.0.0.1:0\", \"[::1]:0\"]", "listen = [\"0.0.0.0:0\", \"[::]:0\"]");
    let (edge, _) = start(&dns);
    for (listener, address) in addresses(&edge).iter().zip(["127.0.0.7", "::1"]) {
        let server = SocketAddr::new(address.parse().unwrap(), listener.port());
        // dig takes no answer from another address than the one it asked.
        assert_eq!(short(server, &["mail.example.com", "A"]), "192.0.2.25", "{server}");
    }
}

#[test]
fn a_reload_changes_zones_and_nodes_whole_or_not_at_all() {
    let (edge, server) = start(DNS);
    let zone = edge.config_file().with_file_name("example.com.zone");
    let reload = |expected: &str| {
        let from = edge.log_lines();
        edge.signal("HUP");
        edge.wait_for_log(from, expected);
        edge.log().lines().skip(from).collect::<Vec<_>>().join("\n")
    };
    std::fs::write(&zone, format!("{ZONE}new A 192.0.2.77\n")).unwrap();
    reload("configuration applied");
    assert_eq!(short(server, &["new.example.com", "A"]), "192.0.2.77");
    std::fs::write(&zone, format!("{ZONE}new A 192.0.2.777\n")).unwrap();
    let log = reload("configuration refused");
    assert!(log.contains("example.com.zone:15:") && log.contains("192.0.2.777"), "{log}");
    assert_eq!(short(server, &["new.example.com", "A"]), "192.0.2.77");
    std::fs::write(&zone, ZONE).unwrap();
    std::fs::write(edge.config_file(), whole(&DNS.replace("[dns.nodes.fra]", "[dns.nodes.fra]\ndrain = true")))
        .unwrap();
    reload("configuration applied");
    let reply = dig(server, &["example.com", "A", "+subnet=203.0.1.0/24"]);
    assert!(reply.contains("example.com.\t\t10\tIN\tA\t198.51.100.2"), "{reply}");
    assert_eq!(short(server, &["new.example.com", "A"]), "");
}

#[test]
fn answers_leave_a_node_that_dies_and_come_back_with_it() {
    let server = Nginx::start("");
    let (alive, dead) = (server.address.port(), free_port());
    let checked = |name: &str, port: u16| {
        format!(
            "\n[dns.nodes.{name}.check]\naddress = \"127.0.0.1\"\nport = {port}\nstatus = \"200-499\"\ninterval = \"2s\"\n"
        )
    };
    let dns = DNS
        .replace("group = \"eu\"\n", &format!("group = \"eu\"\n{}", checked("fra", alive)))
        .replace("location = \"39.0, -77.5\"\n", &format!("location = \"39.0, -77.5\"\n{}", checked("iad", dead)));
    let (edge, address) = start(&dns);
    let asked = |subnet: &str| short(address, &["example.com", "A", &format!("+subnet={subnet}")]);
    // The first answer knows who is up: nobody listens for the other node's check.
    assert_eq!(asked("203.0.200.0/24"), "198.51.100.1");
    assert_eq!(edge.metric("selvedge_dns_node_up{node=\"iad\"}"), 0.0);
    let failed = |edge: &Edge| edge.metric("selvedge_dns_checks_total{node=\"fra\",result=\"failed\"}");
    drop(server);
    let killed = Instant::now();
    // All are down now, and all are answered with: each client gets the one near it.
    wait_until("the node is left", PATIENCE, || asked("203.0.200.0/24") == "198.51.100.2");
    println!("answers left the node {} ms after its end", killed.elapsed().as_millis());
    assert!(failed(&edge) <= 3.0, "after two failed checks, not {}", failed(&edge));
    assert_eq!(edge.metric("selvedge_dns_node_up{node=\"fra\"}"), 0.0);
}

#[test]
fn a_database_is_made_used_and_replaced_while_serving_and_answers_are_explained() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("example.com.zone"), ZONE).unwrap();
    let build = |text: &str| {
        std::fs::write(dir.path().join("table.csv"), text).unwrap();
        let args = ["geo", "build", "--out", "city.mmdb", "table.csv"];
        let out = Command::new(BINARY).args(args).current_dir(dir.path()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    build("192.0.2.0/24,US\n203.0.1.0/24,US\n");
    let dns = DNS.replace("[dns.geo.networks]", "[dns.geo]\ndatabase = \"city.mmdb\"\n[dns.geo.networks]");
    let edge = Edge::start_in(Arc::clone(&dir), &whole(&dns), &[]);
    let server = addresses(&edge)[0];
    let asked = |subnet: &str| short(server, &["example.com", "A", &format!("+subnet={subnet}")]);
    assert_eq!(asked("192.0.2.0/24"), "198.51.100.2");
    assert_eq!(asked("203.0.1.0/24"), "198.51.100.1", "the operator's networks count first");
    let why = |args: &[&str]| {
        let out =
            Command::new(BINARY).args(["dns", "why", "--admin", &edge.admin.to_string()]).args(args).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (status, text) = why(&["www.example.com", "--subnet", "192.0.2.0/24"]);
    assert_eq!(status, Some(0), "{text}");
    for part in [
        "policy      near",
        "place       US; NA; 40.71, -74.01",
        "the nearest 1: iad",
        "chosen      iad, 3",
        "scope       /24",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(why(&["mail.example.com", "--subnet", "192.0.2.0/24"]).0, Some(1));
    assert_eq!(why(&["www.example.com", "--subnet", "nonsense"]).0, Some(64));
    let from = edge.log_lines();
    build("192.0.2.0/24,DE\n");
    edge.wait_for_log(from, "a changed database is in use");
    wait_until("the new database decides", PATIENCE, || asked("192.0.2.0/24") == "198.51.100.1");
    let from = edge.log_lines();
    std::fs::write(dir.path().join("city.mmdb"), "broken").unwrap();
    edge.wait_for_log(from, "a changed database is of no use");
    assert_eq!(asked("192.0.2.0/24"), "198.51.100.1");
}

#[test]
fn problems_are_named_with_line_and_remedy() {
    let dns = DNS
        .replace("steps = [\"nearest\"]", "steps = [\"neerest\"]")
        .replace("location = \"Frankfurt\"", "location = \"Frankfrt\"")
        .replace("\"www\" = \"near\"", "\"www\" = \"neat\"")
        .replace("threads = 2\nidentity", "threads = 0\nidentity")
        .replace("example.com.zone", "missing.zone");
    let (status, text) = Edge::refused(&whole(&dns));
    assert_eq!(status.code(), Some(64), "{text}");
    for part in [
        "`dns.threads` is 0, out of range",
        "`dns.nodes.fra.location` is \"Frankfrt\", a place that is not known",
        "`dns.policies.near.steps[0]` is \"neerest\", not a step",
        "missing.zone:1: the file cannot be read",
        "is \"neat\", not a policy\n  remedy: did you mean \"near\"?",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().filter(|line| line.contains("selvedge.toml:")).count() >= 5, "{text}");
}
