//! The engine's answers as containers.

use crate::discovery::swarm::is_task;
use crate::discovery::{Container, Health, Network, State, is_relevant_label, is_relevant_variable};
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, EndpointSettings, HealthStatusEnum};
use std::time::Duration;

/// What an inspection tells.
pub(super) struct Inspected {
    pub container: Container,
    pub signal: StopSignal,
    /// It runs for a service of a swarm.
    pub task: bool,
}

/// A container as the engine tells it; `None` without an identifier.
pub(super) fn container(told: ContainerInspectResponse) -> Option<Inspected> {
    let config = told.config.unwrap_or_default();
    let host_network = told.host_config.and_then(|host| host.network_mode).is_some_and(|mode| mode == "host");
    let networks = told.network_settings.and_then(|n| n.networks).unwrap_or_default();
    let mut networks: Vec<Network> = networks.into_iter().map(|(name, endpoint)| network(name, endpoint)).collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let state = told.state.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let task = is_task(&labels);
    let signal = StopSignal::parse(config.stop_signal.as_deref().unwrap_or_default(), config.stop_timeout);
    let container = Container {
        id: told.id?,
        name: told.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        created: nine_digits(&told.created.unwrap_or_default()),
        image: config.image.unwrap_or_default(),
        env: config.env.unwrap_or_default().iter().filter_map(|line| variable(line)).collect(),
        labels: labels.into_iter().filter(|(name, _)| is_relevant_label(name)).collect(),
        networks: if host_network { Vec::new() } else { networks },
        host_network,
        exposed: config.exposed_ports.unwrap_or_default().iter().filter_map(|port| tcp_port(port)).collect(),
        state: match state.status {
            Some(ContainerStateStatusEnum::RUNNING) => State::Running,
            Some(ContainerStateStatusEnum::PAUSED) => State::Paused,
            Some(ContainerStateStatusEnum::STOPPING) => State::Stopping,
            _ => State::Stopped,
        },
        health: match state.health.and_then(|health| health.status) {
            Some(HealthStatusEnum::STARTING) => Health::Starting,
            Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
            Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
            _ => Health::Unchecked,
        },
        replica: None,
    };
    Some(Inspected { container, signal, task })
}

fn network(name: String, endpoint: EndpointSettings) -> Network {
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    Network {
        id: endpoint.network_id.unwrap_or_default(),
        name,
        ipv4: text(endpoint.ip_address).and_then(|text| text.parse().ok()),
        ipv6: text(endpoint.global_ipv6_address).and_then(|text| text.parse().ok()),
        gateway: text(endpoint.gateway).and_then(|text| text.parse().ok()),
        overlay: false,
    }
}

pub(in crate::discovery) fn variable(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    is_relevant_variable(name).then(|| (name.to_owned(), value.to_owned()))
}

/// `8080/tcp`.
pub(in crate::discovery) fn tcp_port(text: &str) -> Option<u16> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    port.parse().ok().filter(|_| protocol == "tcp")
}

/// A time of RFC 3339 in UTC with nine digits of a second: the engine leaves zeros at the end out, by which texts would
/// compare otherwise than times.
pub(in crate::discovery) fn nine_digits(time: &str) -> String {
    let Some(rest) = time.strip_suffix('Z') else { return time.to_owned() };
    let (seconds, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    format!("{seconds}.{fraction:0<9}Z")
}

/// What makes a container stop, beside SIGKILL, SIGTERM, SIGINT and SIGQUIT, which nearly all obey.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StopSignal {
    number: Option<u8>,
    /// Until it is killed, where the container says so.
    grace: Duration,
}

impl StopSignal {
    fn parse(text: &str, seconds: Option<i64>) -> Self {
        let name = text.trim().trim_start_matches("SIG");
        let known = [("HUP", 1), ("USR1", 10), ("USR2", 12), ("WINCH", 28)];
        let number = known.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        let grace = Duration::from_secs(seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default());
        Self { number: number.or_else(|| text.trim().parse().ok()), grace }
    }

    /// How long a container that was told to stop may go on.
    pub(super) fn grace(self) -> Duration {
        self.grace
    }

    /// Whether a container that gets this signal is about to end. Reloads and log rotation come by other signals.
    pub(super) fn ends_by(self, signal: &str) -> bool {
        signal.parse::<u8>().is_ok_and(|signal| matches!(signal, 2 | 3 | 9 | 15) || Some(signal) == self.number)
    }
}

/// The identifier of the container that this process is in, from what Linux tells: bind mounts of the engine's own
/// files, and with old versions the control group.
pub(super) fn own_id(mountinfo: &str, cgroup: &str) -> Option<String> {
    let hexadecimal = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let mounts = mountinfo.lines().filter_map(|line| {
        let (_, rest) = line.split_once("/containers/")?;
        let (id, file) = rest.split_once('/')?;
        let own = ["hostname", "hosts", "resolv.conf"].iter().any(|name| file.starts_with(name));
        (own && hexadecimal(id)).then(|| id.to_owned())
    });
    let groups = cgroup.lines().filter_map(|line| {
        let last = line.rsplit(['/', ':']).next()?;
        let id = last.trim_start_matches("docker-").trim_end_matches(".scope");
        hexadecimal(id).then(|| id.to_owned())
    });
    mounts.chain(groups).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inspected_container_is_understood() {
        let text = r#"{"Id":"abc","Name":"/web","Created":"2026-01-02T03:04:05.12Z","State":{"Status":"running",
            "Health":{"Status":"unhealthy"}},"HostConfig":{"NetworkMode":"front"},"Config":{"Image":"app:1",
            "Env":["VIRTUAL_HOST=a.b","DATABASE_PASSWORD=secret","PATH=/bin"],"ExposedPorts":{"8080/tcp":{},"53/udp":{}},
            "Labels":{"selvedge.cache":"on","other":"x"},"StopSignal":"SIGWINCH"},"NetworkSettings":{"Networks":{"front":
            {"NetworkID":"n1","Gateway":"10.0.0.1","IPAddress":"10.0.0.2","GlobalIPv6Address":""}}}}"#;
        let Inspected { container, signal, task } = container(serde_json::from_str(text).unwrap()).unwrap();
        assert!(!task);
        assert_eq!((container.name.as_str(), container.created.as_str()), ("web", "2026-01-02T03:04:05.120000000Z"));
        assert_eq!(container.env.into_iter().collect::<Vec<_>>(), [("VIRTUAL_HOST".to_owned(), "a.b".to_owned())]);
        assert_eq!(container.labels.into_keys().collect::<Vec<_>>(), ["selvedge.cache"]);
        assert_eq!(container.exposed.into_iter().collect::<Vec<_>>(), [8080]);
        assert_eq!((container.state, container.health), (State::Running, Health::Unhealthy));
        assert_eq!(container.networks[0].ipv4, Some([10, 0, 0, 2].into()));
        assert_eq!(container.networks[0].ipv6, None);
        assert!(signal.ends_by("28") && signal.ends_by("15") && !signal.ends_by("1"));
    }

    #[test]
    fn times_compare_as_texts() {
        let mut times =
            ["2026-01-01T00:00:00.12Z", "2026-01-01T00:00:00.123Z", "2026-01-01T00:00:00Z"].map(nine_digits);
        times.sort();
        assert_eq!(times[0], "2026-01-01T00:00:00.000000000Z");
        assert_eq!(times[2], "2026-01-01T00:00:00.123000000Z");
    }

    #[test]
    fn the_own_container_is_recognised() {
        let id = "0123456789abcdef".repeat(4);
        let mounts = format!("1 2 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n");
        assert_eq!(own_id(&mounts, ""), Some(id.clone()));
        assert_eq!(own_id("", &format!("12:cpu:/docker/{id}\n")), Some(id.clone()));
        assert_eq!(own_id("", &format!("0::/system.slice/docker-{id}.scope\n")), Some(id));
        assert_eq!(own_id("25 1 8:1 / / rw", "0::/user.slice"), None);
    }
}
