//! The composition root: `Config → parts → serve`. Start-up, reload and shutdown are here and nowhere else.

pub(crate) mod adapt;
mod discovery;
mod dns;
mod operator;
mod parts;
mod routes;
mod signals;

use crate::admin;
use crate::cache::{self, Cache};
use crate::clock::Clock;
use crate::config::Config;
use crate::dns::Dns;
use crate::metrics::Metrics;
use crate::proxy::Edge;
use crate::proxy::access_log::AccessLog;
use crate::proxy::listen::{self, Listeners};
use adapt::Discovered;
use discovery::Discovery;
use operator::Operator;
use parts::Parts;
use routes::Routes;
use signals::{Event, Events};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Exit status of a configuration that cannot be used (EX_USAGE).
pub const EXIT_CONFIG: u8 = 64;
/// Exit status when an address or directory is not to be had (EX_UNAVAILABLE).
pub const EXIT_UNAVAILABLE: u8 = 69;

/// Why serving could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration, with all its problems.
    #[error("{0}")]
    Config(#[from] crate::config::Problems),
    /// What the configuration names does not fit together.
    #[error("{0}")]
    Parts(#[from] parts::PartsError),
    /// A client listener.
    #[error("{0}")]
    Bind(#[from] listen::BindError),
    /// The admin listener.
    #[error("{0}")]
    Admin(#[from] admin::BindError),
    /// A storage tier.
    #[error("{0}")]
    Cache(#[from] cache::OpenError),
    /// The access log.
    #[error("{0}")]
    AccessLog(#[from] crate::proxy::access_log::OpenError),
    /// The DNS plane.
    #[error("{0}")]
    Dns(#[from] crate::dns::StartError),
    /// The operating system refuses threads or signals.
    #[error("the runtime cannot start: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Serves by the configuration file, or without one by the environment, until SIGTERM or SIGINT, and returns the exit
/// status: 0 after a drain, 64 for a bad configuration, 69 for what is not to be had.
pub fn serve(config: Option<PathBuf>) -> ExitCode {
    let source = config.unwrap_or_else(|| crate::config::ENVIRONMENT.into());
    match load(&source).map_err(StartError::from).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ (StartError::Config(_) | StartError::Parts(_))) => {
            eprintln!("{error}");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(error) => {
            eprintln!("selvedge: {error}");
            ExitCode::from(EXIT_UNAVAILABLE)
        }
    }
}

/// The file, or the environment in place of one.
fn load(source: &Path) -> Result<Config, crate::config::Problems> {
    if !routes::is_environment(source) {
        return Config::load(source);
    }
    let (config, odd) = Config::from_environment(&std::env::vars().collect::<BTreeMap<_, _>>())?;
    odd.iter().for_each(|text| tracing::warn!("{text}"));
    if let Some(tls) = &config.tls
        && let Err(error) = std::fs::create_dir_all(&tls.certificates)
    {
        tracing::warn!(folder = %tls.certificates.display(), %error, "the certificate folder cannot be made");
    }
    Ok(config)
}

fn run(config: Config) -> Result<(), StartError> {
    // A second install (an embedding program, a test) keeps the first: both are the same provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.runtime.threads)
        .thread_name("selvedge")
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve_until_stopped(config));
    runtime.shutdown_background();
    served
}

async fn serve_until_stopped(config: Config) -> Result<(), StartError> {
    let metrics = Arc::new(Metrics::new());
    let clock = Clock::system();
    let grace = config.runtime.shutdown_grace;

    let mut events = Events::new(&config.source)?;
    let mut discovery = match &config.discovery {
        Some(settings) => Some(Discovery::start(settings).await),
        None => None,
    };
    let mut discovered = discovery.as_mut().map(|d| d.discovered(&config)).unwrap_or_default();
    let effective = discovery::effective(&config, &mut discovered);
    let parts = Parts::build(&effective, None, &clock, &metrics)?;
    let listeners = Listeners::bind(&config.listen)?;
    let admin = config.admin.as_ref().map(admin::bind).transpose()?;
    let sockets = config.dns.as_ref().map(|dns| crate::dns::bind(&dns.server)).transpose()?;
    let log = Arc::new(AccessLog::start(&config.access_log, &metrics)?);
    let cache = config.cache.as_ref().map(|s| Cache::open(s, clock.clone(), &metrics)).transpose()?;

    let edge =
        Edge::new(parts.plane(&effective, &metrics)?, cache, Arc::clone(&log), clock.clone(), config.purge.clone());
    parts.begin();
    let dns_addresses = sockets.as_ref().map(crate::dns::Sockets::addresses).unwrap_or_default();
    let dns = dns::start(&config, sockets, &metrics).await?;
    let operator = Arc::new(Operator::new(Arc::clone(&edge), Arc::clone(&metrics), dns.clone()));
    let (stop, stopping) = watch::channel(false);
    let (end, ending) = watch::channel(false);
    announce(&listeners, &dns_addresses, admin.as_ref());
    let app = edge.into_app(config.runtime.threads, config.connections, &metrics);
    let serving = tokio::spawn(listen::serve(listeners, app, parts.tls_slot(), Arc::clone(&metrics), stopping));
    let administering = admin.map(|admin| tokio::spawn(admin.serve(Arc::clone(&operator) as _, ending)));

    let effective_now = Arc::new(effective.clone());
    let operating = Arc::clone(&operator);
    let mut state =
        Running { config, effective: effective_now, parts, edge, metrics, clock, log, dns, operator: operating };
    state.routed(effective, discovered, discovery.as_mut());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = changed(discovery.as_mut()) => {
                state.rediscover(discovery.as_mut());
                continue;
            }
        };
        match event {
            Event::Reload(why) => state.reload(why, discovery.as_mut()),
            Event::Stop(signal) => {
                tracing::info!(signal, grace_seconds = grace.as_secs(), "draining");
                break;
            }
        }
    }
    operator.drain();
    let _ = stop.send(true);
    if let Some(dns) = &state.dns {
        dns.stop();
    }
    tokio::select! {
        _ = serving => tracing::info!("drained"),
        () = tokio::time::sleep(grace) => tracing::warn!("requests were still under way when the grace period ended"),
        signal = events.stop() => tracing::warn!(signal, "stopped at once"),
    }
    if let Some(cache) = cache {
        cache.close().await;
    }
    let _ = end.send(true);
    if let Some(task) = administering {
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), task).await;
    }
    state.log.close();
    Ok(())
}

fn announce(listeners: &Listeners, dns: &[SocketAddr], admin: Option<&admin::Admin>) {
    let list = |addresses: &[SocketAddr]| addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
    tracing::info!(
        http = %list(listeners.http_addrs()),
        https = %list(listeners.https_addrs()),
        dns = %list(dns),
        admin = %admin.map(admin::Admin::address).unwrap_or_default(),
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
}

/// Ends when the containers, or the files beside them, have changed.
async fn changed(discovery: Option<&mut Discovery>) {
    match discovery {
        Some(discovery) => discovery.changed().await,
        None => std::future::pending().await,
    }
}

/// Forgets the metrics of sites that were to be, and are not.
fn forget_sites(refused: &Config, in_force: &Config, metrics: &Metrics) {
    let known: std::collections::HashSet<&str> = in_force.sites.iter().map(|site| &*site.name).collect();
    refused.sites.iter().filter(|site| !known.contains(&*site.name)).for_each(|site| metrics.forget_site(&site.name));
}

/// What a reload works on.
struct Running {
    config: Config,
    /// The same with what was discovered, as it is in force.
    effective: Arc<Config>,
    parts: Parts,
    edge: Arc<Edge>,
    metrics: Arc<Metrics>,
    clock: Clock,
    log: Arc<AccessLog>,
    dns: Option<Arc<Dns>>,
    operator: Arc<Operator>,
}

impl Running {
    /// Applies the file as it is now, whole or not at all.
    fn reload(&mut self, why: &'static str, discovery: Option<&mut Discovery>) {
        if why == signals::HANGUP {
            self.log.reopen();
        }
        let result = match self.try_reload(Instant::now(), discovery) {
            Ok(()) => {
                tracing::info!(why, sites = self.config.sites.len(), "configuration applied");
                "applied"
            }
            Err(error) => {
                tracing::error!(why, "configuration refused; the one before stays in force\n{error}");
                "refused"
            }
        };
        self.metrics.reloads.with_label_values(&[result]).inc();
    }

    fn try_reload(&mut self, begun: Instant, mut discovery: Option<&mut Discovery>) -> Result<(), StartError> {
        let config = load(Path::new(&self.config.source))?;
        parts::same_process(&self.config, &config)?;
        let discovered = discovery.as_mut().map(|d| d.discovered(&config)).unwrap_or_default();
        self.apply(begun, config, discovered, discovery)
    }

    /// Takes up what the containers are now. What cannot be put into force leaves the routes as they were.
    fn rediscover(&mut self, discovery: Option<&mut Discovery>) {
        let Some(discovery) = discovery else { return };
        let begun = Instant::now();
        let config = self.config.clone();
        let discovered = discovery.discovered(&config);
        if let Err(error) = self.apply(begun, config, discovered, Some(discovery)) {
            tracing::error!("what containers ask for cannot be put into force; the routes before stay\n{error}");
        }
    }

    fn apply(
        &mut self,
        begun: Instant,
        config: Config,
        mut discovered: Discovered,
        discovery: Option<&mut Discovery>,
    ) -> Result<(), StartError> {
        let effective = discovery::effective(&config, &mut discovered);
        let parts = Parts::build(&effective, Some(&self.parts), &self.clock, &self.metrics)?;
        let undo = || {
            parts.discard(&self.parts);
            forget_sites(&effective, &self.effective, &self.metrics);
        };
        let plane = parts.plane(&effective, &self.metrics).inspect_err(|_| undo())?;
        let names = dns::prepare(self.dns.as_ref(), (&self.config, &config), &self.metrics).inspect_err(|_| undo())?;
        // Nothing below can fail: from here on the new configuration is in force.
        parts.activate(&self.parts);
        let before = self.edge.swap_plane(plane);
        dns::activate(self.dns.as_ref(), names);
        let before = (before, std::mem::replace(&mut self.parts, parts), Arc::clone(&self.effective));
        self.metrics.routes_rebuild.observe(begun.elapsed().as_secs_f64());
        // Taking thousands of routes apart takes as long as half of putting them together, and nobody waits for it.
        tokio::task::spawn_blocking(move || drop(before));
        self.config = config;
        self.routed(effective, discovered, discovery);
        Ok(())
    }

    /// Tells of the routes that are in force now.
    fn routed(&mut self, effective: Config, discovered: Discovered, discovery: Option<&mut Discovery>) {
        let mut trouble = None;
        if let Some(discovery) = discovery {
            discovery.tell(&discovered, &self.metrics);
            trouble = discovery.trouble();
        }
        let (effective, discovered) = (Arc::new(effective), Arc::new(discovered));
        let origins = self.parts.origins();
        self.effective = Arc::clone(&effective);
        self.operator.routed(Routes { effective, discovered, trouble, origins });
    }
}
