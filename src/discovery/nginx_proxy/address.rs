//! At which address a container can be reached.

use super::keys::Settings;
use crate::discovery::{Container, Place};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Docker's own network for published ports of a swarm, in which nobody can be reached by address.
const INGRESS: &str = "ingress";

/// The address, and the network it is in.
///
/// # Errors
/// Why there is none.
pub(super) fn of(container: &Container, place: &Place, prefer_ipv6: bool) -> Result<(IpAddr, String), &'static str> {
    if container.host_network {
        return match place {
            Place::Host => Ok((IpAddr::V4(Ipv4Addr::LOCALHOST), "both are in the host's network".to_owned())),
            Place::Elsewhere => Err("it is in the network of its host, and the edge in a container of another engine"),
            Place::Container(networks) => {
                let mut sorted: Vec<_> = networks.iter().filter(|n| n.name != INGRESS).collect();
                sorted.sort_by(|a, b| a.name.cmp(&b.name));
                let gateway = sorted.iter().find_map(|n| Some((n.gateway?, n.name.as_str())));
                gateway
                    .map(|(address, name)| (address, format!("the host, by the gateway of network {name}")))
                    .ok_or("it is in the host's network, and no network of the edge has a gateway to the host")
            }
        };
    }
    let mut shared: Vec<_> = container.networks.iter().filter(|n| n.name != INGRESS).collect();
    if shared.is_empty() {
        return Err("it is in no network");
    }
    if let Place::Container(own) = place {
        shared.retain(|n| own.iter().any(|o| o.id == n.id || (o.id.is_empty() && o.name == n.name)));
        if shared.is_empty() {
            return Err("it shares no network with the edge; attach both to one");
        }
    }
    if matches!(place, Place::Host) {
        shared.retain(|n| !n.overlay);
        if shared.is_empty() {
            return Err(
                "it is in networks of the swarm alone, where a host reaches nobody: attach the edge's container to one",
            );
        }
    }
    shared.sort_by(|a, b| a.name.cmp(&b.name));
    let usable = |v6: Ipv6Addr| !v6.is_unspecified();
    shared
        .iter()
        .find_map(|network| {
            let (v4, v6) = (network.ipv4.map(IpAddr::V4), network.ipv6.filter(|v6| usable(*v6)).map(IpAddr::V6));
            let address = if prefer_ipv6 { v6.or(v4) } else { v4.or(v6) };
            Some((address?, format!("network {}", network.name)))
        })
        .ok_or("it has no address in the networks it shares with the edge")
}

/// The port, and where it comes from.
///
/// # Errors
/// Why there is none.
pub(super) fn port(settings: &Settings<'_>) -> Result<(u16, &'static str), String> {
    if let Some(text) = settings.get("VIRTUAL_PORT") {
        return match text.parse() {
            Ok(0) | Err(_) => Err(format!("VIRTUAL_PORT is `{text}`, not a port; write a number from 1 to 65535")),
            Ok(port) => Ok((port, "VIRTUAL_PORT")),
        };
    }
    default_port(settings.container)
}

/// The port of a container that names none.
///
/// # Errors
/// Why there is none.
pub(super) fn default_port(container: &Container) -> Result<(u16, &'static str), String> {
    if container.host_network {
        return Err("it is in the host's network and needs VIRTUAL_PORT".to_owned());
    }
    match (container.exposed.len(), container.exposed.first()) {
        (1, Some(port)) => Ok((*port, "the only exposed port")),
        _ => Ok((80, "the default")),
    }
}
