//! Where sites come from without being written down: containers and their variables.
//!
//! A provider (`docker.rs` with `swarm.rs`, `remote.rs`) watches a source and emits [`Snapshot`]s, each whole;
//! [`nginx_proxy::translate`] turns one into sites as nginx-proxy would route them. Nothing here serves, resolves or
//! connects to an origin: `app` merges the sites with those of the configuration file and swaps the table.

mod container;
pub mod docker;
mod feed;
pub mod nginx_proxy;
pub mod remote;
mod swarm;

pub use container::{Container, Health, Network, Replica, State, is_relevant_label, is_relevant_variable};
pub use feed::{Feed, Report, Reports};

use serde::{Deserialize, Serialize};

/// What a source holds at one time: whole, so that a snapshot never depends on the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Every container that runs, and what runs elsewhere for a service, in no particular order.
    pub containers: Vec<Container>,
    /// Where this process stands among their networks.
    pub place: Place,
    /// What an operator should know of the source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}

/// Something that an operator should know, of no single container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// Something may be routed otherwise than it should.
    pub problem: bool,
    /// What is the matter, and what to do.
    pub text: String,
}

/// Where the edge stands among the containers' networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On the host itself, or in its network: every container's address can be reached.
    #[default]
    Host,
    /// In a container with these networks.
    Container(Vec<Network>),
    /// In a container that the source does not know: every address that containers have is taken for one.
    Elsewhere,
}
