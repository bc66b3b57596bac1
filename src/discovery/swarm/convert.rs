//! Services and tasks as containers: the same translation then makes sites of either.

use super::model::{Image, Service, Task, TaskSpec};
use crate::discovery::docker::convert::{nine_digits, tcp_port, variable};
use crate::discovery::nginx_proxy::{SwarmAddress, swarm_address};
use crate::discovery::{Container, Health, Network, Remark, Replica, State, is_relevant_label};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

/// What a manager told.
#[derive(Default)]
pub(super) struct Seen {
    /// The machine whose engine was asked.
    pub own_node: String,
    /// Names and values of labels, as in `com.example.public` and `stage=live`, that services have to have.
    pub labels: Vec<String>,
    pub services: Vec<Service>,
    /// Those that are to run.
    pub tasks: Vec<Task>,
    /// Host names of the machines.
    pub nodes: HashMap<String, String>,
    /// By the name that services have.
    pub images: HashMap<String, Image>,
}

impl Seen {
    /// Whether a service has the labels asked for, its own or those of its containers.
    pub(super) fn passes(&self, service: &Service) -> bool {
        let has = |name: &str, value: Option<&str>| {
            let container = &service.spec.task_template.container_spec.labels;
            [&service.spec.labels, container]
                .iter()
                .any(|labels| labels.get(name).is_some_and(|found| value.is_none_or(|value| value == found)))
        };
        self.labels.iter().all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => has(name, Some(value)),
            None => has(wanted, None),
        })
    }

    /// Networks that span the swarm.
    pub(super) fn overlays(&self) -> HashSet<&str> {
        let attached = self.tasks.iter().flat_map(|task| &task.networks).map(|attachment| &attachment.network);
        attached.filter(|n| n.spec.driver_configuration.name == "overlay").map(|n| n.id.as_str()).collect()
    }
}

/// Whether a container runs for a service, by its labels.
pub(in crate::discovery) fn is_task(labels: &HashMap<String, String>) -> bool {
    labels.contains_key("com.docker.swarm.task.id")
}

/// Each task that runs, each service that has asked for its VIP, and each service none of whose tasks runs.
pub(super) fn containers<'a>(
    seen: &Seen,
    local: impl Fn(&str) -> Option<&'a Container>,
) -> (Vec<Container>, Vec<Remark>) {
    let mut tasks: HashMap<&str, Vec<&Task>> = HashMap::new();
    for task in &seen.tasks {
        tasks.entry(task.service.as_str()).or_default().push(task);
    }
    let (mut out, mut remarks) = (Vec::new(), Vec::new());
    for service in &seen.services {
        let whole = template(seen, service, &service.spec.task_template);
        let tasks = tasks.get(service.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let replicas: Vec<Container> = tasks.iter().filter_map(|task| replica(seen, service, task, &local)).collect();
        if replicas.is_empty() {
            out.push(Container { state: State::Awaited, ..whole });
            continue;
        }
        match swarm_address(&whole) {
            Ok(SwarmAddress::Tasks) => out.extend(replicas),
            Ok(SwarmAddress::Vip) if !service.endpoint.virtual_ips.is_empty() => out.push(vip(seen, service, whole)),
            Ok(SwarmAddress::Vip) => {
                let text = format!("service {} asks for its VIP and has none; its tasks are asked", whole.name);
                remarks.push(Remark { problem: false, text });
                out.extend(replicas);
            }
            Err(text) => {
                remarks.push(Remark { problem: false, text: format!("service {}: {text}", whole.name) });
                out.extend(replicas);
            }
        }
    }
    (out, remarks)
}

/// What a service says of any of its tasks. Its labels win over those of its containers, these over the image's.
fn template(seen: &Seen, service: &Service, spec: &TaskSpec) -> Container {
    let image = seen.images.get(&spec.container_spec.image).map(|image| &image.config);
    let env = image.map(|image| image.env.as_slice()).unwrap_or_default().iter().chain(&spec.container_spec.env);
    let mut labels = BTreeMap::new();
    for given in image.map(|image| &image.labels).into_iter().chain([&spec.container_spec.labels, &service.spec.labels])
    {
        labels.extend(given.iter().filter(|(name, _)| is_relevant_label(name)).map(|(k, v)| (k.clone(), v.clone())));
    }
    let exposed = image.into_iter().flat_map(|image| image.exposed_ports.keys()).filter_map(|port| tcp_port(port));
    Container {
        id: service.id.clone(),
        name: service.spec.name.clone(),
        created: nine_digits(&service.created_at),
        image: spec.container_spec.image.split('@').next().unwrap_or_default().to_owned(),
        env: env.filter_map(|line| variable(line)).collect(),
        labels,
        exposed: exposed.chain(published(service)).collect(),
        replica: Some(Replica { service: service.spec.name.clone(), node: None }),
        ..Container::default()
    }
}

/// Ports that the service publishes are exposed in its containers.
fn published(service: &Service) -> impl Iterator<Item = u16> + '_ {
    service.endpoint.ports.iter().filter(|port| port.protocol != "udp").map(|port| port.target_port)
}

/// One task; `None` if it does not run.
fn replica<'a>(
    seen: &Seen,
    service: &Service,
    task: &Task,
    local: &impl Fn(&str) -> Option<&'a Container>,
) -> Option<Container> {
    let health = match (task.desired_state.as_str(), task.status.state.as_str()) {
        // A task with a health check runs once it has passed.
        ("running", "running") => Health::Unchecked,
        ("running", "starting") => Health::Starting,
        _ => return None,
    };
    let host = seen.nodes.get(&task.node).cloned().unwrap_or_else(|| task.node.clone());
    let whole = template(seen, service, &task.spec);
    let place = if task.slot > 0 { task.slot.to_string() } else { host.clone() };
    let name = format!("{}.{place}", service.spec.name);
    let replica = Some(Replica { service: service.spec.name.clone(), node: Some(host.clone()) });
    let id = task.status.container_status.container.as_str();
    if task.node == seen.own_node {
        // Its engine knows it better: what has died is not listed there any more.
        let found = local(id).filter(|found| found.state != State::Stopped)?;
        let mut container = Container { name, replica, created: whole.created, ..found.clone() };
        container.labels.extend(whole.labels);
        container.exposed.extend(published(service));
        return Some(container);
    }
    let values = Values { service, task, host: &host };
    let env = whole.env.iter().map(|(name, value)| (name.clone(), values.fill_in(value))).collect();
    let networks = task.networks.iter().map(|attachment| {
        let spec = &attachment.network.spec;
        network(&attachment.network.id, &spec.name, spec.driver_configuration.name == "overlay", &attachment.addresses)
    });
    let networks = networks.collect();
    let id = if id.is_empty() { task.id.clone() } else { id.to_owned() };
    Some(Container { id, name, replica, env, networks, health, ..whole })
}

/// A service as one server: the kernel behind its address chooses the task.
fn vip(seen: &Seen, service: &Service, whole: Container) -> Container {
    let attached = seen.tasks.iter().flat_map(|task| &task.networks).map(|attachment| &attachment.network);
    let by_id: HashMap<&str, _> = attached.map(|network| (network.id.as_str(), &network.spec)).collect();
    let networks = service.endpoint.virtual_ips.iter().map(|vip| {
        let spec = by_id.get(vip.network.as_str());
        let name = spec.map_or(vip.network.as_str(), |spec| spec.name.as_str());
        let overlay = spec.is_none_or(|spec| spec.driver_configuration.name == "overlay");
        network(&vip.network, name, overlay, std::slice::from_ref(&vip.addr))
    });
    Container { networks: networks.collect(), ..whole }
}

fn network(id: &str, name: &str, overlay: bool, addresses: &[String]) -> Network {
    let mut network = Network { id: id.to_owned(), name: name.to_owned(), overlay, ..Network::default() };
    for address in addresses {
        match address.split('/').next().unwrap_or_default().parse() {
            Ok(IpAddr::V4(v4)) => drop(network.ipv4.get_or_insert(v4)),
            Ok(IpAddr::V6(v6)) => drop(network.ipv6.get_or_insert(v6)),
            Err(_) => {}
        }
    }
    network
}

/// What an engine fills into a task's variables.
struct Values<'a> {
    service: &'a Service,
    task: &'a Task,
    host: &'a str,
}

impl Values<'_> {
    /// `{{.Node.Hostname}}` and the like; what is none of them stays.
    fn fill_in(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, end)) = after.split_once("}}") else { break };
            out.push_str(before);
            match self.value(name.trim()) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("{{");
                    out.push_str(name);
                    out.push_str("}}");
                }
            }
            rest = end;
        }
        out + rest
    }

    fn value(&self, name: &str) -> Option<String> {
        let service = &self.service.spec.name;
        Some(match name {
            ".Service.ID" => self.service.id.clone(),
            ".Service.Name" => service.clone(),
            ".Node.ID" => self.task.node.clone(),
            ".Node.Hostname" => self.host.to_owned(),
            ".Task.ID" => self.task.id.clone(),
            ".Task.Slot" => self.task.slot.to_string(),
            ".Task.Name" => {
                let place = if self.task.slot > 0 { self.task.slot.to_string() } else { self.task.node.clone() };
                format!("{service}.{place}.{}", self.task.id)
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
