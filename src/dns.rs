//! The DNS plane: an authoritative server for the zones of the configuration, which sends each client to the best node.
//!
//! `answer` is the one file to read for what becomes of a query. What it needs is compiled beforehand: zones to bytes
//! (`zone`), policies to a table of prefixes (`steer`). A change of health, of the database or of the configuration makes
//! new tables off the threads that answer, and swaps them whole.

mod answer;
mod check;
mod cookie;
mod explain;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handles;
mod limit;
mod log;
mod message;
pub mod name;
pub mod settings;
pub mod steer;
mod tcp;
mod udp;
mod write;
pub mod zone;
pub mod zone_file;

pub use explain::Question;
pub use limit::RateLimit;

use crate::geo::{Place, PlaceMap, database};
use crate::metrics::Metrics;
use answer::{Serving, Shared};
use arc_swap::ArcSwap;
use check::{Checking, Health};
use handles::Handles;
use parking_lot::Mutex;
use settings::{DataSettings, GeoSettings, Node, ServerSettings, Settings};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use steer::{NodeState, Steering};
use tokio::sync::{Notify, watch};
use zone::Zones;

/// How often the database's file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A free port for TCP may be taken for UDP: so often another one is tried.
const PORT_ATTEMPTS: usize = 16;

/// Why DNS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is not to be had.
    #[error(
        "DNS cannot listen on {address}: {source}; end what listens there, or choose another address in `dns.listen`"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Zones contradict themselves.
    #[error("{}", .0.join("\n"))]
    Zones(Vec<String>),
    /// The database is of no use.
    #[error("`dns.geo.database`: {0}")]
    Database(#[from] database::DatabaseError),
    /// The system refuses threads.
    #[error("DNS threads cannot be started: {0}")]
    Threads(#[from] std::io::Error),
}

/// Open sockets; datagrams and connections wait in the kernel's queues until [`Dns::start`].
pub struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

/// Opens the sockets.
///
/// # Errors
/// The first address that is not to be had.
pub fn bind(settings: &ServerSettings) -> Result<Sockets, StartError> {
    let mut sockets = Sockets { udp: Vec::new(), tcp: Vec::new() };
    for address in &settings.listen {
        let attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
        let mut bound = bind_one(*address, settings.threads);
        for _ in 1..attempts {
            if bound.is_err() {
                bound = bind_one(*address, settings.threads);
            }
        }
        let (udp, tcp) = bound.map_err(|source| StartError::Bind { address: *address, source })?;
        sockets.udp.extend(udp);
        sockets.tcp.push(tcp);
    }
    Ok(sockets)
}

/// TCP first: its port is nobody else's, while one of UDP is shared with whoever asks for it.
fn bind_one(address: SocketAddr, threads: usize) -> std::io::Result<(Vec<UdpSocket>, TcpListener)> {
    let tcp = tcp_listener(address)?;
    let address = tcp.local_addr()?;
    Ok((udp::bind(address, threads)?, tcp))
}

fn tcp_listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 1024)?;
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Sockets {
    /// The addresses, with the ports that were in fact bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// What a configuration asks for, ready to be put into force.
pub struct Plan {
    data: DataSettings,
    nodes: Arc<[Node]>,
    zones: Arc<Zones>,
    handles: Arc<Handles>,
    health: Vec<Arc<Health>>,
    places: Mutex<Places>,
}

struct Places {
    map: Arc<PlaceMap>,
    /// Of the database's file.
    stamp: Option<Stamp>,
}

type Stamp = (u64, u64, i64, i64);

/// A running DNS plane.
pub struct Dns {
    serving: Arc<ArcSwap<Serving>>,
    plan: Mutex<Arc<Plan>>,
    checking: Mutex<Option<Checking>>,
    /// Held while tables are made, so that the last ones made are those in force.
    compiling: Mutex<()>,
    changed: Arc<Notify>,
    stop: Arc<AtomicBool>,
    stop_tcp: watch::Sender<bool>,
}

impl Plan {
    /// Compiles zones and reads the database. What is as it was in `before` is taken over: the health of nodes, and the
    /// database if its file did not change.
    ///
    /// # Errors
    /// Zones that contradict themselves, or a database that cannot be read.
    pub fn build(data: &DataSettings, before: Option<&Dns>, metrics: &Metrics) -> Result<Self, StartError> {
        let before = before.map(|dns| Arc::clone(&dns.plan.lock()));
        let zones = Arc::new(Zones::build(&data.zones).map_err(StartError::Zones)?);
        let names: Vec<&str> = data.nodes.iter().map(|node| &*node.name).collect();
        let policies = data.policies.iter().map(|policy| &*policy.name);
        let handles = Handles::new(metrics, zones.iter().map(|zone| zone.apex.to_string()), policies, &names);
        let health = |node: &Node| {
            let known = before.as_ref().and_then(|plan| {
                let at = plan.nodes.iter().position(|old| old.name == node.name && old.check == node.check)?;
                plan.health.get(at).cloned()
            });
            known.unwrap_or_else(|| Health::new(node, metrics))
        };
        let stamp = data.geo.database.as_deref().and_then(stamp);
        let kept = before.as_ref().filter(|plan| plan.data.geo == data.geo).map(|plan| plan.places.lock());
        let map = match kept {
            Some(kept) if kept.stamp == stamp => Arc::clone(&kept.map),
            _ => Arc::new(places(&data.geo)?),
        };
        Ok(Self {
            nodes: data.nodes.clone().into(),
            health: data.nodes.iter().map(health).collect(),
            data: data.clone(),
            zones,
            handles: Arc::new(handles),
            places: Mutex::new(Places { map, stamp }),
        })
    }

    fn states(&self) -> Vec<NodeState> {
        let state = |(node, health): (&Node, &Arc<Health>)| NodeState { up: health.is_up(), drain: node.drain };
        self.nodes.iter().zip(&self.health).map(state).collect()
    }

    fn serving(&self) -> Serving {
        let DataSettings { policies, maps, udp_payload, amplification, identity, rate_limit, query_log, .. } =
            &self.data;
        let places = Arc::clone(&self.places.lock().map);
        let steering = Steering::build(policies, maps, &self.nodes, self.states(), &places);
        Serving {
            zones: Arc::clone(&self.zones),
            steering: Arc::new(steering),
            handles: Arc::clone(&self.handles),
            udp_payload: *udp_payload,
            amplification: *amplification,
            identity: identity.clone(),
            rate_limit: *rate_limit,
            query_log: *query_log,
        }
    }

    /// Reads the database again if its file changed; true if it did.
    fn refresh_places(&self) -> bool {
        let Some(path) = self.data.geo.database.as_deref() else { return false };
        let now = stamp(path);
        {
            let mut places = self.places.lock();
            if places.stamp == now {
                return false;
            }
            places.stamp = now;
        }
        match places(&self.data.geo) {
            Ok(map) => {
                tracing::info!(database = %path.display(), places = map.places.len(), "a changed database is in use");
                self.places.lock().map = Arc::new(map);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a changed database is of no use; what it said before counts");
                false
            }
        }
    }
}

/// The operator's networks over the database, or over nothing.
fn places(geo: &GeoSettings) -> Result<PlaceMap, database::DatabaseError> {
    let unknown = geo.default.clone().unwrap_or(Place::UNKNOWN);
    let base = match &geo.database {
        Some(path) => database::read(path, unknown)?,
        None => PlaceMap::everywhere(unknown),
    };
    if geo.networks.is_empty() {
        return Ok(base);
    }
    let networks = geo.networks.iter().cloned();
    Ok(base.overlaid_with(&PlaceMap::from_networks(networks, Place::UNKNOWN)))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

impl Dns {
    /// Checks every node once, and then answers.
    ///
    /// # Errors
    /// Threads cannot be had.
    pub async fn start(settings: &Settings, sockets: Sockets, plan: Plan) -> Result<Arc<Self>, StartError> {
        let ServerSettings { listen: _, threads: _, tcp, cookie_key } = &settings.server;
        check::first_round(&plan.nodes, &plan.health).await;
        let shared = Arc::new(Shared {
            cookies: cookie_key.map_or_else(cookie::Key::random, cookie::Key::new),
            limiter: limit::Limiter::default(),
            keepalive: u16::try_from(tcp.idle_timeout.as_millis() / 100).unwrap_or(u16::MAX),
            begun: Instant::now(),
        });
        let (stop_tcp, stopping) = watch::channel(false);
        let this = Arc::new(Self {
            serving: Arc::new(ArcSwap::from_pointee(plan.serving())),
            plan: Mutex::new(Arc::new(plan)),
            checking: Mutex::new(None),
            compiling: Mutex::new(()),
            changed: Arc::new(Notify::new()),
            stop: Arc::new(AtomicBool::new(false)),
            stop_tcp,
        });
        for (number, socket) in sockets.udp.into_iter().enumerate() {
            let (serving, shared, stop) = (Arc::clone(&this.serving), Arc::clone(&shared), Arc::clone(&this.stop));
            let run = move || udp::serve(&socket, &serving, &shared, &stop);
            std::thread::Builder::new().name(format!("selvedge-dns-{number}")).spawn(run)?;
        }
        let open = Arc::new(tcp::Open::default());
        for listener in sockets.tcp {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let served = (Arc::clone(&this.serving), Arc::clone(&shared));
            tokio::spawn(tcp::serve(listener, Arc::clone(&open), *tcp, served, stopping.clone()));
        }
        this.begin_checks();
        tokio::spawn(keep_current(Arc::downgrade(&this), Arc::clone(&this.changed), stopping));
        Ok(this)
    }

    /// Puts a plan into force. The first answers after it are its own.
    pub fn activate(&self, plan: Plan) {
        *self.plan.lock() = Arc::new(plan);
        self.recompile();
        self.begin_checks();
    }

    /// Ends answering; the threads are gone within a moment.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.stop_tcp.send(true);
        *self.checking.lock() = None;
    }

    /// How a question is answered, and why.
    pub fn why(&self, question: &Question) -> serde_json::Value {
        let plan = Arc::clone(&self.plan.lock());
        let places = Arc::clone(&plan.places.lock().map);
        explain::explain(question, &plan.data, &self.serving.load(), &places)
    }

    fn begin_checks(&self) {
        let plan = Arc::clone(&self.plan.lock());
        *self.checking.lock() = Some(check::start(&plan.nodes, &plan.health, &self.changed));
    }

    fn recompile(&self) {
        let _one_at_a_time = self.compiling.lock();
        let plan = Arc::clone(&self.plan.lock());
        self.serving.store(Arc::new(plan.serving()));
    }
}

/// Makes new tables when nodes or the database change.
async fn keep_current(dns: std::sync::Weak<Dns>, changed: Arc<Notify>, mut stopping: watch::Receiver<bool>) {
    loop {
        let health = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            () = changed.notified() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        let Some(dns) = dns.upgrade() else { return };
        let work = tokio::task::spawn_blocking(move || {
            let plan = Arc::clone(&dns.plan.lock());
            if plan.refresh_places() || health {
                dns.recompile();
            }
        });
        if let Err(error) = work.await {
            tracing::error!(%error, "the DNS tables could not be made");
        }
    }
}
