//! The manager's answers, as far as routing reads them (Docker Engine API, `GET /services`, `/tasks` and `/nodes`).
//!
//! Every field may be missing: engines differ by version, and one odd service must not hide the others.

use crate::discovery::docker::convert::variable;
use serde::Deserialize;
use std::collections::HashMap;

/// One of `GET /services`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Service {
    #[serde(rename = "ID")]
    pub id: String,
    pub created_at: String,
    #[serde(deserialize_with = "null_is_default")]
    pub spec: ServiceSpec,
    #[serde(deserialize_with = "null_is_default")]
    pub endpoint: Endpoint,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ServiceSpec {
    pub name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub labels: HashMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    pub task_template: TaskSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct TaskSpec {
    #[serde(deserialize_with = "null_is_default")]
    pub container_spec: ContainerSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ContainerSpec {
    pub image: String,
    #[serde(deserialize_with = "null_is_default")]
    pub labels: HashMap<String, String>,
    #[serde(deserialize_with = "relevant")]
    pub env: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Endpoint {
    #[serde(rename = "VirtualIPs", deserialize_with = "null_is_default")]
    pub virtual_ips: Vec<VirtualIp>,
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<Port>,
}

/// An address in CIDR notation, and the network it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct VirtualIp {
    #[serde(rename = "NetworkID")]
    pub network: String,
    pub addr: String,
}

/// A published port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Port {
    pub protocol: String,
    pub target_port: u16,
}

/// One of `GET /tasks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Task {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "ServiceID")]
    pub service: String,
    #[serde(rename = "NodeID")]
    pub node: String,
    /// 0 for services that run once on each node.
    pub slot: u64,
    #[serde(deserialize_with = "null_is_default")]
    pub spec: TaskSpec,
    #[serde(deserialize_with = "null_is_default")]
    pub status: TaskStatus,
    pub desired_state: String,
    #[serde(rename = "NetworksAttachments", deserialize_with = "null_is_default")]
    pub networks: Vec<Attachment>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct TaskStatus {
    pub state: String,
    #[serde(deserialize_with = "null_is_default")]
    pub container_status: ContainerStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    pub container: String,
}

/// A task's place in a network, addresses in CIDR notation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Attachment {
    #[serde(deserialize_with = "null_is_default")]
    pub network: Network,
    #[serde(deserialize_with = "null_is_default")]
    pub addresses: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Network {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub spec: NetworkSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NetworkSpec {
    pub name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub driver_configuration: Driver,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Driver {
    pub name: String,
}

/// One of `GET /nodes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Node {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub description: NodeDescription,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NodeDescription {
    pub hostname: String,
}

/// `GET /images/NAME/json`: what an image brings with it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Image {
    #[serde(deserialize_with = "null_is_default")]
    pub config: ImageConfig,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ImageConfig {
    #[serde(deserialize_with = "relevant")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub labels: HashMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    pub exposed_ports: HashMap<String, serde::de::IgnoredAny>,
}

/// The swarm's part of `GET /info`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Info {
    pub swarm: SwarmInfo,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct SwarmInfo {
    #[serde(rename = "NodeID")]
    pub node: String,
    pub local_node_state: String,
    pub control_available: bool,
}

/// The elements that are understood, and how many are not.
pub(super) fn list<T: serde::de::DeserializeOwned>(values: Vec<serde_json::Value>) -> (Vec<T>, usize) {
    let all = values.len();
    let understood: Vec<T> = values.into_iter().filter_map(|value| serde_json::from_value(value).ok()).collect();
    let odd = all - understood.len();
    (understood, odd)
}

/// Variables that routing reads; the others hold secrets and are not kept.
fn relevant<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let lines: Vec<String> = null_is_default(deserializer)?;
    Ok(lines.into_iter().filter(|line| variable(line).is_some()).collect())
}

/// Go writes an empty list or table as `null`.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
