//! What containers ask for and what becomes of it, case by case: the tests run each, and `deploy/COMPATIBILITY.md` is
//! the list of their names.

mod certificates;
mod directives;
mod files;
mod hosts;
mod networks;
mod ours;
mod paths;
mod proxy;
mod swarm;

use super::{Facts, Files, Translation};
use crate::discovery::{Container, Health, Network, Place, Replica, Snapshot, State};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// One behaviour.
pub(crate) struct Case {
    /// What it belongs to.
    pub area: &'static str,
    /// What is expected, in words.
    pub name: &'static str,
    pub world: World,
    /// Parts of lines that [`show`] prints; one that begins with `!` must not be there.
    pub expect: Vec<&'static str>,
}

/// Containers, files and variables of one case.
#[derive(Clone, Default)]
pub(crate) struct World {
    snapshot: Snapshot,
    env: BTreeMap<String, String>,
    files: Files,
}

pub(crate) fn all() -> Vec<Case> {
    [
        hosts::cases(),
        paths::cases(),
        networks::cases(),
        certificates::cases(),
        proxy::cases(),
        files::cases(),
        directives::cases(),
        ours::cases(),
        swarm::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(super) fn case<const N: usize>(
    area: &'static str,
    name: &'static str,
    world: World,
    expect: [&'static str; N],
) -> Case {
    Case { area, name, world, expect: expect.to_vec() }
}

/// A proxy in the network `app`, and nothing else.
pub(super) fn world() -> World {
    let mut world = World::default();
    world.snapshot.place = Place::Container(vec![network("app", 1)]);
    world
}

/// The network of this name; the third octet of its addresses comes from the name.
pub(super) fn network(name: &str, last: u8) -> Network {
    let third = match name {
        "app" => 1,
        "back" => 2,
        _ => 9,
    };
    Network {
        id: format!("id-{name}"),
        name: name.to_owned(),
        ipv4: Some(Ipv4Addr::new(10, 0, third, last)),
        ipv6: None,
        gateway: Some(IpAddr::from([10, 0, third, 254])),
        overlay: false,
    }
}

impl World {
    /// Adds a running container in `app` that exposes port 80; the first is the oldest. Each setting is a variable as
    /// `NAME=value`, or a label if its name begins in lower case.
    pub(super) fn container(mut self, name: &str, settings: &[&str]) -> Self {
        let n = u8::try_from(self.snapshot.containers.len()).expect("few containers");
        let mut container = Container {
            id: format!("id-{name}"),
            name: name.to_owned(),
            created: format!("2026-01-01T00:00:{n:02}.000000000Z"),
            image: "app:1".to_owned(),
            networks: vec![network("app", n + 2)],
            exposed: [80].into(),
            ..Container::default()
        };
        for setting in settings {
            let (key, value) = setting.split_once('=').expect("NAME=value");
            let to = if key.starts_with(|c: char| c.is_ascii_lowercase()) {
                &mut container.labels
            } else {
                &mut container.env
            };
            to.insert(key.to_owned(), value.to_owned());
        }
        self.snapshot.containers.push(container);
        self
    }

    fn last(&mut self) -> &mut Container {
        self.snapshot.containers.last_mut().expect("a container")
    }

    /// The last one runs for a service, on this machine, or stands for all of its tasks.
    pub(super) fn replica(mut self, service: &str, node: Option<&str>) -> Self {
        self.last().replica = Some(Replica { service: service.to_owned(), node: node.map(str::to_owned) });
        self
    }

    /// Its networks span the swarm.
    pub(super) fn overlay(mut self) -> Self {
        self.last().networks.iter_mut().for_each(|network| network.overlay = true);
        self
    }

    pub(super) fn exposing(mut self, ports: &[u16]) -> Self {
        self.last().exposed = ports.iter().copied().collect();
        self
    }

    pub(super) fn in_networks(mut self, names: &[&str]) -> Self {
        let last = u8::try_from(self.snapshot.containers.len()).expect("few containers") + 1;
        self.last().networks = names.iter().map(|name| network(name, last)).collect();
        self
    }

    pub(super) fn on_the_host(mut self) -> Self {
        let last = self.last();
        last.host_network = true;
        last.networks.clear();
        last.exposed.clear();
        self
    }

    pub(super) fn with_ipv6(mut self) -> Self {
        for network in &mut self.last().networks {
            network.ipv6 = "fd00::5".parse().ok();
        }
        self
    }

    pub(super) fn without_ipv4(mut self) -> Self {
        for network in &mut self.last().networks {
            network.ipv4 = None;
        }
        self
    }

    pub(super) fn state(mut self, state: State) -> Self {
        self.last().state = state;
        self
    }

    pub(super) fn health(mut self, health: Health) -> Self {
        self.last().health = health;
        self
    }

    pub(super) fn created(mut self, when: &str) -> Self {
        self.last().created = when.to_owned();
        self
    }

    pub(super) fn place(mut self, place: Place) -> Self {
        self.snapshot.place = place;
        self
    }

    /// A variable of the proxy.
    pub(super) fn proxy(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A certificate with its key.
    pub(super) fn pair(self, name: &str) -> Self {
        self.certs(&[&format!("{name}.crt"), &format!("{name}.key")])
    }

    pub(super) fn certs(mut self, names: &[&str]) -> Self {
        self.files.certificates.extend(names.iter().map(|n| (*n).to_owned()));
        self
    }

    pub(super) fn htpasswd(mut self, name: &str) -> Self {
        self.files.htpasswd.insert(name.to_owned());
        self
    }

    /// A page for hosts that nobody has.
    pub(super) fn error_page(mut self, text: &str) -> Self {
        self.files.error_page = Some(text.to_owned());
        self
    }

    /// A folder that an ACME client writes to.
    pub(super) fn challenges(mut self) -> Self {
        self.files.challenges = true;
        self
    }

    pub(super) fn vhost(mut self, name: &str, text: &str) -> Self {
        self.files.vhost.insert(name.to_owned(), text.to_owned());
        self
    }

    /// The lines that expectations look into: those of [`show`], and what is wrong with the proxy's variables.
    pub(crate) fn lines(&self) -> Vec<String> {
        let (facts, problems) = self.facts();
        let mut out: Vec<String> = problems.into_iter().map(|problem| format!("proxy: {problem}")).collect();
        out.push(format!("proxy {:?}", *facts.proxy));
        out.extend(show(&super::translate(&facts)));
        out
    }

    /// What is translated, and what is wrong with the proxy's variables.
    pub(crate) fn facts(&self) -> (Facts<'_>, Vec<String>) {
        let (proxy, problems) = super::ProxySettings::read(&self.env);
        let facts = Facts {
            snapshot: Cow::Borrowed(&self.snapshot),
            proxy: Cow::Owned(proxy),
            files: Cow::Borrowed(&self.files),
        };
        (facts, problems)
    }
}

/// A translation in lines.
fn show(translation: &Translation) -> Vec<String> {
    let Translation { sites, fallback, notes } = translation;
    let mut out = vec![format!("fallback {fallback:?}")];
    for site in sites {
        let host = &site.host;
        out.push(format!("{host} https {}", site.https.as_str()));
        out.push(format!("{host} certificate {}", site.certificate.as_deref().unwrap_or("none")));
        out.push(format!("{host} hsts {}", site.hsts.as_deref().unwrap_or("none")));
        out.push(format!("{host} non-get {}", site.non_get_redirect));
        out.push(format!("{host} tls {:?}", site.tls));
        out.push(format!("{host} clients {:?}", site.client_auth));
        out.push(format!("{host} access {:?}", site.access));
        out.push(format!("{host} ports {:?}", site.ports));
        out.push(format!("{host} acme {:?}", site.acme));
        out.push(format!("{host} challenge {}", site.acme_challenge));
        out.push(format!("{host} debug {}", site.debug_endpoint));
        out.push(format!("{host} cache {:?}", site.cache));
        out.push(format!("{host} compress {}", site.compress));
        out.push(format!("{host} www {:?}", site.www));
        out.push(format!("{host} rate {:?}", site.rate_limit));
        out.push(format!("{host} users {:?}", site.users.as_ref().map(|users| users.expose().to_owned())));
        out.push(format!("{host} allow {:?}", site.allow));
        out.push(format!("{host} tags {:?}", site.tags));
        out.push(format!("{host} directives {:?}", site.directives));
        out.push(format!("{host} refused {}", site.refused.is_some()));
        out.push(format!("{host} containers {}", site.containers.join(" ")));
        out.push(format!("{host} source {}", site.source));
        for route in &site.paths {
            let at = format!("{host} {}", route.path);
            let servers: Vec<String> = route
                .servers
                .iter()
                .map(|s| format!("{}={}", s.container, std::net::SocketAddr::new(s.address, s.port)))
                .collect();
            out.push(format!("{at} -> {} {}", route.proto.as_str(), servers.join(" ")).trim_end().to_owned() + ".");
            out.extend(route.servers.iter().map(|s| format!("{at} {} because {}", s.container, s.why)));
            out.extend(route.left_out.iter().map(|(name, why)| format!("{at} without {name}: {why}")));
            out.push(format!("{at} dest {:?}", route.dest));
            out.push(format!("{at} balance {:?}", route.balance));
            out.push(format!("{at} keepalive {:?}", route.keepalive));
            out.push(format!("{at} auth {:?}", route.auth));
            out.push(format!("{at} directives {:?}", route.directives));
        }
    }
    for note in notes {
        let (host, container) = (note.host.as_deref().unwrap_or("-"), note.container.as_deref().unwrap_or("-"));
        out.push(format!("{} {host} {container}: {}", note.level.as_str(), note.text));
    }
    out
}
