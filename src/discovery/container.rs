//! A container, as far as routing is concerned.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One container. Variables and labels are only those that routing reads: a provider leaves the others where they are,
/// since most hold somebody's secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The engine's identifier.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// When it was made, as the engine writes it with nine digits of a second: texts compare as times do.
    pub created: String,
    /// The image it was made from, for messages.
    pub image: String,
    /// Variables for which [`is_relevant_variable`].
    pub env: BTreeMap<String, String>,
    /// Labels for which [`is_relevant_label`].
    pub labels: BTreeMap<String, String>,
    /// The networks it has an address in.
    pub networks: Vec<Network>,
    /// It shares the network of its host and has no address of its own.
    pub host_network: bool,
    /// TCP ports that its image or its start exposes.
    pub exposed: BTreeSet<u16>,
    /// Whether it runs.
    pub state: State,
    /// What its health check says.
    pub health: Health,
    /// For which service of a swarm it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<Replica>,
}

/// What runs for a service of a swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The service's name.
    pub service: String,
    /// The machine that a task runs on. `None`: it stands for all of them.
    pub node: Option<String>,
}

/// A network and a container's, or this process's, place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The engine's identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The IPv4 address in it.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address in it.
    pub ipv6: Option<Ipv6Addr>,
    /// The host's address in it.
    pub gateway: Option<IpAddr>,
    /// It spans the machines of a swarm: from a host itself nobody in it can be reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overlay: bool,
}

/// Whether a container runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It does.
    #[default]
    Running,
    /// It was told to stop and may be gone at any moment.
    Stopping,
    /// It is frozen: connections open, nothing answers.
    Paused,
    /// It does not, or not yet.
    Stopped,
    /// It is a service none of whose tasks runs: its hosts are there, and nobody to ask.
    Awaited,
}

/// What a container's health check says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It has none.
    #[default]
    Unchecked,
    /// It was not passed yet.
    Starting,
    /// Passed.
    Healthy,
    /// Failed.
    Unhealthy,
}

impl State {
    /// As it is written in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Awaited => "awaited",
        }
    }
}

impl Health {
    /// As it is written in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl Container {
    /// How ready it is for requests, 0 the most. Of the containers that answer for one path only those of the least
    /// number get requests: a failing one is left alone while another passes its check, and is better than none.
    pub fn rank(&self) -> u8 {
        match (self.state, self.health) {
            (State::Running, Health::Unchecked | Health::Healthy) => 0,
            (State::Running, Health::Starting) => 1,
            (State::Running, Health::Unhealthy) => 2,
            (State::Stopping, _) => 3,
            (State::Paused, _) => 4,
            (State::Stopped | State::Awaited, _) => u8::MAX,
        }
    }
}

/// Prefixes of the labels that routing reads: nginx-proxy's and our own. Ours wins where both are there.
pub(super) const LABEL_PREFIXES: [&str; 2] = ["selvedge.", "com.github.nginx-proxy.nginx-proxy."];

/// Variables that routing reads, and the beginnings of those that only differ in their ends.
const VARIABLES: [&str; 8] = [
    "CERT_NAME",
    "ENABLE_HTTP_ON_MISSING_CERT",
    "HSTS",
    "HTTPS_METHOD",
    "NETWORK_ACCESS",
    "SERVER_TOKENS",
    "SSL_POLICY",
    "NON_GET_REDIRECT",
];
const VARIABLE_PREFIXES: [&str; 5] = ["VIRTUAL_", "EXTERNAL_", "ACME_", "LETSENCRYPT_", "SELVEDGE_"];

/// Whether routing reads the variable; no other leaves the engine.
pub fn is_relevant_variable(name: &str) -> bool {
    VARIABLES.contains(&name) || VARIABLE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether routing reads the label.
pub fn is_relevant_label(name: &str) -> bool {
    LABEL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
