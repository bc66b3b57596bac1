//! Hosts, ports, several containers.

use super::{Case, case, world};
use crate::discovery::{Health, State};

const AREA: &str = "Hosts and containers";

pub(super) fn cases() -> Vec<Case> {
    let one = |host: &str| world().container("web", &[&format!("VIRTUAL_HOST={host}")]);
    vec![
        case(
            AREA,
            "A container with VIRTUAL_HOST is served under that host",
            one("www.a.b"),
            ["www.a.b / -> http web=10.0.1.2:80."],
        ),
        case(AREA, "A container without VIRTUAL_HOST is not served", world().container("db", &[]), ["!10.0.1.2"]),
        case(
            AREA,
            "VIRTUAL_HOST is a list separated by commas; white space and empty items do not count",
            one(" a.b , ,c.d,"),
            ["a.b / -> http web=", "c.d / -> http web=", "! / -> http web=10.0.1.2:80..", "!problem"],
        ),
        case(AREA, "An empty VIRTUAL_HOST is none", one(""), ["!-> http"]),
        case(
            AREA,
            "Hosts are compared in lower case",
            world().container("a", &["VIRTUAL_HOST=WWW.A.b"]).container("b", &["VIRTUAL_HOST=www.a.B"]),
            ["www.a.b / -> http a=10.0.1.2:80 b=10.0.1.3:80."],
        ),
        case(
            AREA,
            "A host named twice by one container is one server",
            one("a.b,a.b"),
            ["a.b / -> http web=10.0.1.2:80."],
        ),
        case(AREA, "*.b is taken as a leading wildcard", one("*.a.b"), ["*.a.b / -> http web="]),
        case(AREA, "a.* is taken as a trailing wildcard", one("www.a.*"), ["www.a.* / -> http web="]),
        case(
            AREA,
            "~regex is taken as a regular expression",
            one(r"~^(www|img)\.a\.b$"),
            [r"~^(www|img)\.a\.b$ / -> http web="],
        ),
        case(
            AREA,
            "Regexes are tried in text order",
            world().container("z", &["VIRTUAL_HOST=~^b"]).container("y", &["VIRTUAL_HOST=~^a"]),
            ["~^a / -> http y=", "~^b / -> http z="],
        ),
        case(AREA, "A raw IPv4 address is a host", one("192.0.2.7"), ["192.0.2.7 / -> http web="]),
        case(AREA, "An IPv6 address in brackets is a host", one("[2001:db8::1]"), ["[2001:db8::1] / -> http web="]),
        case(
            AREA,
            "A broken regex is a problem of that host alone",
            one("~(,a.b"),
            ["problem ~( web: VIRTUAL_HOST", "a.b / -> http web="],
        ),
        case(
            AREA,
            "A host with a port in it is a problem of that host alone",
            one("a.b:8080,c.d"),
            ["problem a.b:8080 web: VIRTUAL_HOST", "c.d / -> http web="],
        ),
        case(
            AREA,
            "A host with a path in it is a problem of that host alone",
            one("a.b/x,c.d"),
            ["problem a.b/x web: VIRTUAL_HOST", "c.d / -> http web="],
        ),
        case(
            AREA,
            "VIRTUAL_PORT names the port",
            world().container("web", &["VIRTUAL_HOST=a.b", "VIRTUAL_PORT=8080"]),
            ["web=10.0.1.2:8080.", "web because network app, port 8080: VIRTUAL_PORT"],
        ),
        case(
            AREA,
            "Without VIRTUAL_PORT the only exposed port is used",
            one("a.b").exposing(&[3000]),
            ["web=10.0.1.2:3000.", "the only exposed port"],
        ),
        case(
            AREA,
            "With several exposed ports and no VIRTUAL_PORT it is 80",
            one("a.b").exposing(&[3000, 9000]),
            ["web=10.0.1.2:80.", "the default"],
        ),
        case(AREA, "With no exposed port and no VIRTUAL_PORT it is 80", one("a.b").exposing(&[]), ["web=10.0.1.2:80."]),
        case(
            AREA,
            "VIRTUAL_PORT may be a port that is not exposed",
            world().container("web", &["VIRTUAL_HOST=a.b", "VIRTUAL_PORT=9"]).exposing(&[3000]),
            ["web=10.0.1.2:9."],
        ),
        case(
            AREA,
            "A VIRTUAL_PORT that is no port leaves the container out, loudly",
            world().container("web", &["VIRTUAL_HOST=a.b", "VIRTUAL_PORT=http"]),
            ["problem a.b web: VIRTUAL_PORT is `http`", "a.b / -> http.", "without web: no port"],
        ),
        case(
            AREA,
            "Several containers of one host share its requests",
            world().container("a", &["VIRTUAL_HOST=a.b"]).container("b", &["VIRTUAL_HOST=a.b"]),
            ["a.b / -> http a=10.0.1.2:80 b=10.0.1.3:80."],
        ),
        case(
            AREA,
            "The oldest container comes first, whatever the order of the list",
            world()
                .container("young", &["VIRTUAL_HOST=a.b"])
                .created("2026-02")
                .container("old", &["VIRTUAL_HOST=a.b"])
                .created("2026-01"),
            ["a.b containers old young"],
        ),
        case(
            AREA,
            "Of equally old containers the first by name comes first",
            world()
                .container("b", &["VIRTUAL_HOST=a.b"])
                .created("x")
                .container("a", &["VIRTUAL_HOST=a.b"])
                .created("x"),
            ["a.b containers a b"],
        ),
        case(
            AREA,
            "Of conflicting values the oldest container's wins, and the other is told",
            world()
                .pair("a.b")
                .container("a", &["VIRTUAL_HOST=a.b", "HTTPS_METHOD=nohttp"])
                .container("b", &["VIRTUAL_HOST=a.b", "HTTPS_METHOD=redirect"]),
            [
                "a.b https nohttp",
                "warning a.b b: HTTPS_METHOD is `redirect` here and `nohttp` in the older container a",
            ],
        ),
        case(
            AREA,
            "A value that only a younger container gives counts",
            world()
                .pair("a.b")
                .container("a", &["VIRTUAL_HOST=a.b"])
                .container("b", &["VIRTUAL_HOST=a.b", "HTTPS_METHOD=nohttp"]),
            ["a.b https nohttp", "!warning"],
        ),
        case(AREA, "A stopped container is not served", one("a.b").state(State::Stopped), ["!a.b"]),
        case(
            AREA,
            "A paused container waits while another answers",
            one("a.b").state(State::Paused).container("b", &["VIRTUAL_HOST=a.b"]),
            ["a.b / -> http b=10.0.1.3:80.", "without web: paused"],
        ),
        case(
            AREA,
            "A container that was told to stop waits while another answers",
            one("a.b").state(State::Stopping).container("b", &["VIRTUAL_HOST=a.b"]),
            ["a.b / -> http b=10.0.1.3:80.", "without web: stopping"],
        ),
        case(
            AREA,
            "An unhealthy container waits while a healthy one answers",
            one("a.b").health(Health::Unhealthy).container("b", &["VIRTUAL_HOST=a.b"]).health(Health::Healthy),
            ["a.b / -> http b=10.0.1.3:80.", "without web: unhealthy"],
        ),
        case(
            AREA,
            "An unhealthy container waits while one without a health check answers",
            one("a.b").health(Health::Unhealthy).container("b", &["VIRTUAL_HOST=a.b"]),
            ["a.b / -> http b=10.0.1.3:80."],
        ),
        case(
            AREA,
            "An unhealthy container is better than none",
            one("a.b").health(Health::Unhealthy),
            ["a.b / -> http web=10.0.1.2:80."],
        ),
        case(
            AREA,
            "A container that has not passed its first health check waits while another answers",
            one("a.b").health(Health::Healthy).container("new", &["VIRTUAL_HOST=a.b"]).health(Health::Starting),
            ["a.b / -> http web=10.0.1.2:80.", "without new: starting"],
        ),
        case(
            AREA,
            "A starting container alone gets requests at once",
            one("a.b").health(Health::Starting),
            ["a.b / -> http web=10.0.1.2:80."],
        ),
        case(
            AREA,
            "Settings can be labels with nginx-proxy's prefix",
            world().container("web", &["com.github.nginx-proxy.nginx-proxy.virtual-host=a.b"]),
            ["a.b / -> http web="],
        ),
        case(
            AREA,
            "Settings can be labels with our prefix",
            world().container("web", &["selvedge.virtual-host=a.b", "selvedge.virtual_port=81"]),
            ["web=10.0.1.2:81."],
        ),
        case(
            AREA,
            "Our prefix wins over nginx-proxy's",
            world().container(
                "web",
                &["selvedge.virtual-host=ours.b", "com.github.nginx-proxy.nginx-proxy.virtual-host=theirs.b"],
            ),
            ["ours.b / -> http", "!theirs.b"],
        ),
        case(
            AREA,
            "A variable wins over a label",
            world().container("web", &["VIRTUAL_HOST=env.b", "selvedge.virtual-host=label.b"]),
            ["env.b / -> http", "!label.b"],
        ),
        case(
            AREA,
            "A label with our prefix that is no setting is told",
            world().container("web", &["VIRTUAL_HOST=a.b", "selvedge.virtual-hots=a.b"]),
            ["warning - web: `selvedge.virtual-hots` is no setting"],
        ),
        case(
            AREA,
            "A SELVEDGE_ variable that is no setting is told",
            world().container("web", &["VIRTUAL_HOST=a.b", "SELVEDGE_CASHE=on"]),
            ["warning - web: `SELVEDGE_CASHE` is no setting"],
        ),
        case(
            AREA,
            "Label loadbalance: least_conn: the same here",
            one("a.b")
                .container("b", &["VIRTUAL_HOST=a.b", "com.github.nginx-proxy.nginx-proxy.loadbalance=least_conn;"]),
            ["a.b / balance LeastConnections"],
        ),
        case(
            AREA,
            "Label loadbalance: ip_hash: the same here",
            world().container("b", &["VIRTUAL_HOST=a.b", "selvedge.loadbalance=ip_hash;"]),
            ["a.b / balance IpHash"],
        ),
        case(
            AREA,
            "Label loadbalance: hash by a text, consistent or not: the same here",
            world().container("b", &["VIRTUAL_HOST=a.b", "selvedge.loadbalance=hash $request_uri consistent;"]),
            ["a.b / balance Hash { key: \"$request_uri\", consistent: true }"],
        ),
        case(
            AREA,
            "Label loadbalance: random and random two: the same here",
            world().container("b", &["VIRTUAL_HOST=a.b", "selvedge.loadbalance=random two least_conn;"]),
            ["a.b / balance Random { two: true }"],
        ),
        case(AREA, "Without a label requests take turns", one("a.b"), ["a.b / balance RoundRobin"]),
        case(
            AREA,
            "A directive of balancing that is unknown is told, and requests take turns",
            world().container("b", &["VIRTUAL_HOST=a.b", "selvedge.loadbalance=sticky cookie x;"]),
            ["a.b / balance RoundRobin", "warning a.b -: loadbalance: `sticky cookie x`"],
        ),
        case(
            AREA,
            "Idle connections kept: by default twice the servers",
            one("a.b").container("b", &["VIRTUAL_HOST=a.b"]),
            ["a.b / keepalive Some(4)"],
        ),
        case(
            AREA,
            "Label keepalive: a number",
            world().container("b", &["VIRTUAL_HOST=a.b", "com.github.nginx-proxy.nginx-proxy.keepalive=64"]),
            ["a.b / keepalive Some(64)"],
        ),
        case(
            AREA,
            "Label keepalive: disabled",
            world().container("b", &["VIRTUAL_HOST=a.b", "com.github.nginx-proxy.nginx-proxy.keepalive=disabled"]),
            ["a.b / keepalive None"],
        ),
        case(
            AREA,
            "A keepalive that is no number is told, and auto counts",
            world().container("b", &["VIRTUAL_HOST=a.b", "selvedge.keepalive=many"]),
            ["a.b / keepalive Some(2)", "warning a.b -: keepalive is `many`"],
        ),
    ]
}
