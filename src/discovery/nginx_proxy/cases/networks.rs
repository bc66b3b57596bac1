//! Which address of a container.

use super::{Case, case, network, world};
use crate::discovery::Place;

const AREA: &str = "Networks";

pub(super) fn cases() -> Vec<Case> {
    let web = || world().container("web", &["VIRTUAL_HOST=a.b"]);
    let both = || Place::Container(vec![network("back", 1), network("app", 1)]);
    vec![
        case(
            AREA,
            "Only networks shared with the proxy count",
            web().in_networks(&["other", "app"]),
            ["web=10.0.1.2:80.", "because network app"],
        ),
        case(
            AREA,
            "A container that shares no network: no server for that host, loudly",
            web().in_networks(&["other"]).container("b", &["VIRTUAL_HOST=c.d"]),
            [
                "a.b / -> http.",
                "problem a.b web: it cannot be reached: it shares no network",
                "without web: unreachable",
                "c.d / -> http b=",
            ],
        ),
        case(
            AREA,
            "A container without a network: no server for that host, loudly",
            web().in_networks(&[]),
            ["a.b / -> http.", "problem a.b web: it cannot be reached: it is in no network"],
        ),
        case(
            AREA,
            "Of several shared networks the first by name is used",
            web().in_networks(&["back", "app"]).place(both()),
            ["web=10.0.1.2:80.", "because network app"],
        ),
        case(
            AREA,
            "A container has one address, however many networks it shares",
            web().in_networks(&["app", "back"]).place(both()),
            ["a.b / -> http web=10.0.1.2:80."],
        ),
        case(
            AREA,
            "The network `ingress` is ignored",
            web().in_networks(&["ingress"]).place(Place::Container(vec![network("ingress", 1)])),
            ["a.b / -> http.", "problem a.b web: it cannot be reached"],
        ),
        case(
            AREA,
            "A proxy in the host's network reaches every network",
            web().in_networks(&["other"]).place(Place::Host),
            ["web=10.0.9.2:80."],
        ),
        case(
            AREA,
            "A network without an address for the container is passed over",
            web().in_networks(&["app"]).without_ipv4(),
            ["a.b / -> http.", "it has no address in the networks"],
        ),
        case(
            AREA,
            "A container in host mode is reached by the proxy's gateway",
            world().container("web", &["VIRTUAL_HOST=a.b", "VIRTUAL_PORT=8080"]).on_the_host(),
            ["web=10.0.1.254:8080.", "the host, by the gateway of network app"],
        ),
        case(
            AREA,
            "A container in host mode is at 127.0.0.1 if the proxy is too",
            world().container("web", &["VIRTUAL_HOST=a.b", "VIRTUAL_PORT=8080"]).on_the_host().place(Place::Host),
            ["web=127.0.0.1:8080."],
        ),
        case(
            AREA,
            "A container in host mode needs VIRTUAL_PORT, and is told so",
            web().on_the_host(),
            ["a.b / -> http.", "problem a.b web: it is in the host's network and needs VIRTUAL_PORT"],
        ),
        case(AREA, "IPv4 is used where there is both", web().with_ipv6(), ["web=10.0.1.2:80."]),
        case(
            AREA,
            "PREFER_IPV6_NETWORK uses IPv6 where there is both",
            web().with_ipv6().proxy("PREFER_IPV6_NETWORK", "true"),
            ["web=[fd00::5]:80."],
        ),
        case(
            AREA,
            "PREFER_IPV6_NETWORK falls back to IPv4",
            web().proxy("PREFER_IPV6_NETWORK", "true"),
            ["web=10.0.1.2:80."],
        ),
        case(
            AREA,
            "A network with IPv6 alone is reached by IPv6",
            web().with_ipv6().without_ipv4(),
            ["web=[fd00::5]:80."],
        ),
        case(
            AREA,
            "One container that cannot be reached leaves the host to the others",
            web().in_networks(&["other"]).container("b", &["VIRTUAL_HOST=a.b"]),
            ["a.b / -> http b=10.0.1.3:80.", "without web: unreachable"],
        ),
    ]
}
