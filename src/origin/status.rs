//! What operators are told of an origin: plain data.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::health::Admission;
use super::pool::{Member, Pool};

/// An origin at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct OriginStatus {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// How servers are chosen, as the configuration has it.
    pub balance: &'static str,
    /// Requests that wait for a server below its limit.
    pub waiting: usize,
    /// Every known address of every server, in the order of the configuration.
    pub servers: Vec<ServerStatus>,
}

/// One address of one server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerStatus {
    /// Host and port as configured.
    pub server: Arc<str>,
    /// Where it is.
    pub address: SocketAddr,
    /// Whether it is asked.
    pub state: ServerState,
    /// Asked only where the others cannot be.
    pub backup: bool,
    /// The configured share.
    pub weight: u32,
    /// The share at present.
    pub present_weight: f64,
    /// Requests under way.
    pub in_flight: usize,
    /// Of them at most so many; 0: without limit.
    pub max_connections: u32,
    /// Moving average of the time to a response head, once there was one.
    pub latency: Option<Duration>,
    /// Ejections in a row.
    pub ejections: u32,
    /// What was wrong when it was checked last; `None` where that passed, or it is not checked.
    pub check_error: Option<Arc<str>>,
}

/// Whether a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// As any other.
    Up,
    /// Less than its weight says, since it came up a short time ago.
    Starting,
    /// Left out after failed requests.
    Ejected,
    /// One request at a time, to see whether it is back.
    Probing,
    /// Left out since it fails its checks.
    Failing,
    /// Nothing new, by configuration.
    Draining,
}

impl ServerState {
    /// The word for output and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Starting => "starting",
            Self::Ejected => "ejected",
            Self::Probing => "probing",
            Self::Failing => "failing",
            Self::Draining => "draining",
        }
    }
}

pub(super) fn of(pool: &Pool) -> OriginStatus {
    OriginStatus {
        name: Arc::clone(&pool.handles.name),
        balance: pool.rules.algorithm.as_str(),
        waiting: pool.waiting(),
        servers: pool.members().iter().filter_map(|member| server(pool, member)).collect(),
    }
}

fn server(pool: &Pool, Member { server, endpoint }: &Member) -> Option<ServerStatus> {
    let server = pool.servers.get(*server)?;
    let now = pool.clock.now();
    let mut state = endpoint.state.lock();
    let present_weight = state.weight(server.weight, pool.rules.slow_start, now);
    let admission = state.health.admit(now);
    let standing = if server.drain {
        ServerState::Draining
    } else if !state.verdicts.is_up() {
        ServerState::Failing
    } else if state.health.is_half_open() {
        ServerState::Probing
    } else if admission == Admission::Ejected {
        ServerState::Ejected
    } else if present_weight < f64::from(server.weight) {
        ServerState::Starting
    } else {
        ServerState::Up
    };
    Some(ServerStatus {
        server: Arc::clone(&server.handles.label),
        address: endpoint.address,
        state: standing,
        backup: server.backup,
        weight: server.weight,
        present_weight,
        in_flight: endpoint.in_flight(),
        max_connections: server.most,
        latency: state.latency.seconds(now).map(Duration::from_secs_f64),
        ejections: state.health.ejections(),
        check_error: state.check_error.clone(),
    })
}
