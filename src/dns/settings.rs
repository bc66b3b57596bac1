//! What the DNS plane is told, as plain data.

use super::limit::RateLimit;
use super::steer::{Map, Policy};
use super::zone::ZoneData;
use crate::geo::Place;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything of `[dns]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What only a new process takes up.
    pub server: ServerSettings,
    /// What a reload takes up.
    pub data: DataSettings,
}

/// Sockets and threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Addresses for UDP and TCP; with port 0 both get the same free port.
    pub listen: Vec<SocketAddr>,
    /// Threads for UDP on each address, from 1.
    pub threads: usize,
    /// TCP's limits.
    pub tcp: TcpSettings,
    /// The key of cookies; `None`: a random one of this process.
    pub cookie_key: Option<[u8; 16]>,
}

/// What TCP connections may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSettings {
    /// Connections at once; beyond it new ones are closed.
    pub connections: usize,
    /// Of these from one address.
    pub connections_per_client: usize,
    /// A connection that sends no query for so long is closed, and so is one that does not take an answer.
    pub idle_timeout: Duration,
}

/// Zones, nodes and how they are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSettings {
    /// Bytes of an answer over UDP at most, 512 to 4096.
    pub udp_payload: u16,
    /// Answers over UDP have at most so many times the bytes of the query, unless its cookie proves who asks; 0: no limit.
    pub amplification: u32,
    /// NSID, and the TXT of `id.server` in class CH; `None`: neither is answered.
    pub identity: Option<Arc<str>>,
    /// `None`: responses are not limited.
    pub rate_limit: Option<RateLimit>,
    /// Every so many queries are logged; 0: none.
    pub query_log: u32,
    /// Where clients are.
    pub geo: GeoSettings,
    /// The nodes, by their numbers.
    pub nodes: Vec<Node>,
    /// Tables of policies, by their numbers.
    pub maps: Vec<Map>,
    /// Policies, by their numbers.
    pub policies: Vec<Policy>,
    /// The zones.
    pub zones: Vec<ZoneData>,
}

/// Where clients are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GeoSettings {
    /// A database in MaxMind's format; read again when the file changes.
    pub database: Option<PathBuf>,
    /// The operator's own networks, which count before the database.
    pub networks: Vec<(IpNet, Place)>,
    /// Where those are that nobody knows.
    pub default: Option<Place>,
}

/// One node that answers lead to.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name, for logs and metrics.
    pub name: Arc<str>,
    /// IPv4 addresses for A.
    pub v4: Vec<Ipv4Addr>,
    /// IPv6 addresses for AAAA.
    pub v6: Vec<Ipv6Addr>,
    /// Where it is.
    pub place: Place,
    /// The groups it is in, beside that of its own name.
    pub group: Option<Arc<str>>,
    /// Its share, from 0; with 0 it gets nobody while another is there.
    pub weight: u32,
    /// New clients are sent elsewhere.
    pub drain: bool,
    /// How it is found out whether it is up; `None`: it always is.
    pub check: Option<Check>,
}

impl Node {
    /// The address that is checked where the check names none.
    pub fn address(&self) -> Option<IpAddr> {
        self.v4.first().map(|a| IpAddr::V4(*a)).or_else(|| self.v6.first().map(|a| IpAddr::V6(*a)))
    }
}

/// How a node is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// Where.
    pub address: SocketAddr,
    /// From one check to the next; more than 0.
    pub interval: Duration,
    /// Within which it has to be answered; more than 0.
    pub timeout: Duration,
    /// Passes in a row after which a node that was down is up, at least 1.
    pub rise: u32,
    /// Failures in a row after which a node that was up is down, at least 1.
    pub fall: u32,
}

/// What is asked of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// That it takes a TCP connection.
    Tcp,
    /// An HTTP/1.1 GET without TLS.
    Http {
        /// Path and query.
        path: String,
        /// The `Host`; `None`: the address.
        host: Option<String>,
        /// The lowest and the highest status that passes.
        statuses: (u16, u16),
    },
}
