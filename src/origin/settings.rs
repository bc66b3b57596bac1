//! How the servers of an origin share its requests, as plain data.

use std::time::Duration;

use super::check::Check;
use super::http::ServerAddress;

/// One server of an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub address: ServerAddress,
    /// Its share of the requests, from 1.
    pub weight: u32,
    /// Asked only while no other is up, or all others are at their limit.
    pub backup: bool,
    /// Takes no new requests; those under way finish.
    pub drain: bool,
    /// Requests at a time on each of its addresses; `None`: as [`Limits::max_connections`] says, 0: without limit.
    pub max_connections: Option<u32>,
}

impl From<ServerAddress> for Server {
    fn from(address: ServerAddress) -> Self {
        Self { address, weight: 1, backup: false, drain: false, max_connections: None }
    }
}

/// Who counts as up.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What is asked in the background; `None`: nothing.
    pub check: Option<Check>,
    /// The longest an ejection lasts: it begins with `eject_for` and doubles each time in a row.
    pub max_eject_for: Duration,
    /// Percentage of failed requests that ejects; 0: never.
    pub error_rate: u32,
    /// What the percentage is taken over.
    pub error_window: Duration,
    /// Requests in `error_window` below which there is no percentage.
    pub error_min_requests: u32,
    /// Statuses that count as failures of the server.
    pub fail_statuses: Vec<u16>,
    /// Successes in a row, one request at a time, after which an ejected server is back.
    pub probes: u32,
    /// If fewer than this percentage of the servers is up, health is left out of account; with 0 only if none is.
    pub panic: u8,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            check: None,
            max_eject_for: Duration::from_secs(300),
            error_rate: 0,
            error_window: Duration::from_secs(10),
            error_min_requests: 20,
            fail_statuses: Vec::new(),
            probes: 1,
            panic: 0,
        }
    }
}

/// How much is asked of the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests at a time on each address of a server that has no number of its own; 0: without limit.
    pub max_connections: u32,
    /// Requests that wait while all servers are at their limit.
    pub queue: u32,
    /// How long one waits.
    pub queue_timeout: Duration,
    /// Further attempts, in percent of the requests of the last ten seconds …
    pub retry_percent: u32,
    /// … and on top of these so many each second.
    pub retry_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 0,
            queue: 1024,
            queue_timeout: Duration::from_secs(10),
            retry_percent: 20,
            retry_per_second: 10,
        }
    }
}
