//! Services of a swarm, which nginx-proxy does not know.

use super::{Case, case, world};
use crate::discovery::{Place, State};

const AREA: &str = "Swarm";

pub(super) fn cases() -> Vec<Case> {
    let task = || world().container("web.1", &["selvedge.virtual-host=a.b"]).replica("web", Some("beta"));
    vec![
        case(
            AREA,
            "A task is a server of what its service's labels and variables ask for",
            task().container("web.2", &["selvedge.virtual-host=a.b"]).replica("web", Some("alpha")),
            [
                "a.b / -> http web.1=10.0.1.2:80 web.2=10.0.1.3:80.",
                "web.1 because task on beta, network app, port 80",
                "a.b source service web (2 tasks)",
            ],
        ),
        case(
            AREA,
            "Services and containers of one host answer together",
            task().container("plain", &["VIRTUAL_HOST=a.b"]),
            ["a.b / -> http web.1=10.0.1.2:80 plain=10.0.1.3:80.", "a.b source container plain; service web (1 task)"],
        ),
        case(
            AREA,
            "SELVEDGE_SWARM=vip sends requests to the service's virtual address",
            world().container("web", &["selvedge.virtual-host=a.b", "selvedge.swarm=vip"]).replica("web", None),
            ["web=10.0.1.2:80.", "web because the service's virtual address, network app"],
        ),
        case(
            AREA,
            "A service none of whose tasks runs keeps its hosts: 503, loudly",
            world()
                .container("web", &["selvedge.virtual-host=a.b"])
                .replica("web", None)
                .in_networks(&[])
                .state(State::Awaited),
            ["a.b / -> http.", "without web: no task of it runs", "warning a.b web: no task of this service runs"],
        ),
        case(
            AREA,
            "A proxy on the host reaches nobody in a network of the swarm, and is told so",
            task().overlay().place(Place::Host),
            ["a.b / -> http.", "problem a.b web.1: it cannot be reached: it is in networks of the swarm alone"],
        ),
        case(
            AREA,
            "A proxy in the same network of the swarm reaches everyone",
            task().overlay(),
            ["a.b / -> http web.1=10.0.1.2:80."],
        ),
    ]
}
