//! From TOML and environment to [`Config`]: strict, every problem at once, each with line, column and remedy.

use crate::route::{HostPattern, PathPattern};
use crate::{admin, cache, origin, proxy, tls};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A whole, valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from, for messages and reloads.
    pub source: PathBuf,
    /// Threads and shutdown.
    pub runtime: Runtime,
    /// Client listeners.
    pub listen: proxy::listen::Settings,
    /// Admin listener.
    pub admin: Option<admin::Settings>,
    /// Present whenever there is an HTTPS listener.
    pub tls: Option<tls::Settings>,
    /// `None`: nothing is cached.
    pub cache: Option<cache::Settings>,
    /// Access log.
    pub access_log: proxy::access_log::Settings,
    /// Origins by name.
    pub origins: BTreeMap<Arc<str>, origin::Settings>,
    /// Sites in the order of the file.
    pub sites: Vec<Site>,
}

/// Threads and shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Worker threads, at least 1; by default one per core.
    pub threads: usize,
    /// How long SIGTERM waits for requests under way.
    pub shutdown_grace: Duration,
}

/// One site.
#[derive(Clone, Debug)]
pub struct Site {
    /// For logs and metrics: the `name` key, else the first host as written.
    pub name: Arc<str>,
    /// The hosts it answers for.
    pub hosts: Vec<HostPattern>,
    /// Redirect plain HTTP to HTTPS with 301 (308 for methods other than GET and HEAD); off by default.
    pub https_redirect: bool,
    /// Its routes.
    pub routes: Vec<Route>,
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which paths it takes.
    pub path: PathPattern,
    /// A name in [`Config::origins`].
    pub origin: Arc<str>,
    /// Whether responses may be stored and reused; on by default.
    pub cache: bool,
    /// Largest request body in bytes; `None`: no limit.
    pub max_request_body: Option<u64>,
}
