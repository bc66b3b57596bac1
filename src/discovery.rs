//! Where sites come from without being written down: containers and their variables.
//!
//! A provider (`docker.rs`, `remote.rs`) watches a source and emits [`Snapshot`]s, each whole;
//! [`nginx_proxy::translate`] turns one into sites as nginx-proxy would route them. Nothing here serves, resolves or
//! connects to an origin: `app` merges the sites with those of the configuration file and swaps the table.

mod container;
pub mod docker;
mod feed;
pub mod nginx_proxy;
pub mod remote;

pub use container::{Container, Health, Network, State, is_relevant_label, is_relevant_variable};
pub use feed::{Feed, Report, Reports};

use serde::{Deserialize, Serialize};

/// What a source holds at one time: whole, so that a snapshot never depends on the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Every container that runs, in no particular order.
    pub containers: Vec<Container>,
    /// Where this process stands among their networks.
    pub place: Place,
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
}
