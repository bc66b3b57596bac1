//! The operator's listener: health, readiness, metrics, purge.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | 200 whenever the process serves |
//! | `GET /readyz` | 200, or 503 with the reason |
//! | `GET /metrics` | the text exposition format 0.0.4 |
//! | `GET /routes` | the routes in force, where each stands, and what the servers of each origin are up to |
//! | `GET /traffic` | the traffic rules that forward, their groups with weights and counts |
//! | `GET`, `PUT /traffic/<site>/<rule>` | one of them; `{"weights": {"<group>": 50}}` changes it |
//! | `GET /dns/why?name=…&subnet=…` | which node a client of a subnet is sent to, and why |
//! | `POST /purge` | `{"urls": […], "prefixes": […], "hosts": […], "tags": […]}` or `{"all": true}`, each with `"soft": true` where it is meant to be kept as stale; or a form with `url=…`, `prefix=…`, `host=…`, `tag=…`, `all=true`, `soft=true` |
//!
//! Who may ask is decided in `guard`: a token where one is set, else nothing that a browser sends for another site.

mod answer;
mod guard;
mod purge;
mod serve;
mod socket;
mod traffic;

pub use socket::BindError;

use crate::cache::purge::{Failure, Order, Report};
use crate::route::traffic::{RuleState, WeightsError};
use crate::types::Secret;
use async_trait::async_trait;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Where the admin listener is and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its address.
    pub address: Address,
    /// Bearer token; configuration requires one when the address is neither loopback nor a unix socket.
    pub token: Option<Secret>,
}

/// A TCP address or a unix socket's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `127.0.0.1:18090`.
    Tcp(SocketAddr),
    /// `unix:/run/selvedge/admin.sock`.
    Unix(PathBuf),
}

/// What the listener asks the rest of the process.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Whether clients should be sent here.
    fn ready(&self) -> Readiness;

    /// All metrics in the text exposition format 0.0.4.
    fn metrics(&self) -> Vec<u8>;

    /// The routes in force: hosts, paths, servers, where each came from and what is to be said of it.
    fn routes(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// The traffic rules in force that forward.
    fn traffic(&self) -> Vec<RuleState> {
        Vec::new()
    }

    /// Changes weights of such a rule, all that are named or none.
    ///
    /// # Errors
    /// See [`WeightsError`].
    fn set_weights(&self, site: &str, rule: &str, weights: &[(String, u32)]) -> Result<RuleState, WeightsError> {
        let _ = (site, rule, weights);
        Err(WeightsError::NoRule)
    }

    /// Why the DNS plane sends a client of a subnet where it does.
    ///
    /// # Errors
    /// There is no such plane, or the name or subnet is none.
    fn dns_why(&self, name: &str, subnet: &str) -> Result<serde_json::Value, String> {
        let _ = (name, subnet);
        Err("this server has no [dns]".to_owned())
    }

    /// Takes stored responses out of every tier; durable before it returns. Runs to its end even if the caller hangs up,
    /// and writes the audit line.
    ///
    /// # Errors
    /// Something named that nothing could be stored under, or a tier that cannot purge now.
    async fn purge(&self, order: Order, request_id: String, who: String) -> Result<Report, Failure>;
}

/// Whether clients should be sent here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// No, for this reason: starting, draining, a store that is still recovering.
    NotReady(String),
}

/// Opens the listener; connections wait in the kernel's queue until [`Admin::serve`] runs. A unix socket gets mode 0600,
/// and a socket file that nobody answers on is replaced.
///
/// # Errors
/// The address is in use, is not a socket, or may not be opened.
pub fn bind(settings: &Settings) -> Result<Admin, BindError> {
    let socket = socket::Socket::bind(&settings.address)?;
    Ok(Admin { socket, token: settings.token.clone() })
}

/// An open admin listener.
#[derive(Debug)]
pub struct Admin {
    socket: socket::Socket,
    token: Option<Secret>,
}

impl Admin {
    /// The address in the form of the configuration, with the port that was in fact bound: `127.0.0.1:18090` or
    /// `unix:/run/selvedge/admin.sock`.
    pub fn address(&self) -> String {
        self.socket.address()
    }

    /// Answers until `shutdown` turns true or its sender is gone, then lets requests under way end (for at most five
    /// seconds) and removes its unix socket. Needs a tokio runtime.
    ///
    /// A drain comes before: keep serving while [`Backend::ready`] says `NotReady`, and turn `shutdown` true last.
    pub async fn serve(self, backend: Arc<dyn Backend>, shutdown: watch::Receiver<bool>) {
        serve::run(self.socket, self.token, backend, shutdown).await;
    }
}
