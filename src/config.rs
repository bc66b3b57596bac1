//! From TOML and environment to [`Config`]: strict, every problem at once, each with line, column and remedy.
//!
//! Two steps: the text becomes a tree whose keys and values know their place, then hand-written readers take it apart
//! table by table. An unknown key, a wrong type, a value out of range or a name that leads nowhere is written down and
//! reading goes on. `config/selvedge.toml` shows every key.

mod discovery;
mod dns;
mod environment;
mod origins;
mod probe;
mod problem;
mod reader;
mod rules;
mod server;
mod settings;
mod sites;
mod traffic;
mod transform;

pub use discovery::{Discovery, DiscoveryFolders, DiscoverySource};
pub use environment::ENVIRONMENT;
pub use problem::{Position, Problem, Problems};

use crate::route::settings::{CacheSwitch, Downstream, RouteSettings, SiteSettings, UnknownHosts};
use crate::route::{HostPattern, PathPattern};
use crate::{admin, cache, origin, proxy, tls};
use reader::{Document, Table};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use toml::de::DeTable;

/// A whole, valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from, for messages and reloads.
    pub source: PathBuf,
    /// Threads and shutdown.
    pub runtime: Runtime,
    /// Client listeners.
    pub listen: proxy::listen::Settings,
    /// How long their connections are waited for.
    pub connections: proxy::hot::Settings,
    /// Admin listener.
    pub admin: Option<admin::Settings>,
    /// Present whenever there is an HTTPS listener.
    pub tls: Option<tls::Settings>,
    /// `None`: nothing is cached.
    pub cache: Option<cache::Settings>,
    /// The PURGE method, and what clients see of tags.
    pub purge: proxy::purge::Settings,
    /// Access log.
    pub access_log: proxy::access_log::Settings,
    /// Explanations and timings for those who look into it.
    pub debug: proxy::explain::Settings,
    /// Containers that name their hosts themselves.
    pub discovery: Option<Discovery>,
    /// The DNS plane; `None`: there is none.
    pub dns: Option<crate::dns::settings::Settings>,
    /// Origins by name.
    pub origins: BTreeMap<Arc<str>, Arc<origin::Settings>>,
    /// Proxies between the clients and this node, and what of their words counts.
    pub downstream: Downstream,
    /// What requests get that no site takes.
    pub unknown_hosts: UnknownHosts,
    /// Sites in the order of the file.
    pub sites: Vec<Arc<Site>>,
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
    /// What it does with every request, whatever the path.
    pub settings: SiteSettings,
    /// Whether responses carry `Server-Timing`; `None`: as `[debug]` says.
    pub server_timing: Option<bool>,
    /// Where it stands: file and line, or the containers that ask for it.
    pub source: Arc<str>,
    /// Whether containers ask for it.
    pub discovered: bool,
    /// Its routes.
    pub routes: Vec<Route>,
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it stands: file and line, or the containers that ask for it.
    pub source: Arc<str>,
    /// Which paths it takes.
    pub path: PathPattern,
    /// A name in [`Config::origins`].
    pub origin: Arc<str>,
    /// Whether responses may be stored and reused; on by default.
    pub cache: bool,
    /// The operator's rules on storing and reuse, those of the site included.
    pub rules: cache::rules::CacheRules,
    /// What is done to the fields of requests and responses.
    pub headers: proxy::HeaderRules,
    /// The security fields of responses; off by default.
    pub security: Option<proxy::Security>,
    /// Which sites' scripts may read responses; by default the origin says.
    pub cors: Option<proxy::Cors>,
    /// How responses are compressed; off by default.
    pub compression: Option<proxy::Compression>,
    /// Largest request body in bytes; `None`: no limit.
    pub max_request_body: Option<u64>,
    /// Access, limits and the path that the origin gets.
    pub settings: RouteSettings,
}

impl Route {
    /// Turns the cache on or off in one word; a lifetime is for responses that tell none.
    pub fn set_cache(&mut self, switch: CacheSwitch) {
        self.cache = switch != CacheSwitch::Off;
        if let CacheSwitch::Ttl(lifetime) = switch {
            self.rules.lifetime = Some(cache::rules::Ttl::Default(lifetime));
        }
    }
}

impl Config {
    /// Reads a file, with the process's environment for credentials.
    ///
    /// # Errors
    /// The file cannot be read, or anything in it is wrong.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Self::parse(&text_of(path)?, path, &process_environment)
    }

    /// Reads a text. `path` names it in messages and its folder is where relative paths start; `env` looks environment
    /// variables up. Files that hold credentials (`{ file = "…" }`) are read; nothing else is opened.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        read(text, path, env, |_| true, |root| whole(root, path))
    }
}

/// Reads `[admin]` and the admin address of `[listen]` alone, for a command that talks to a running server and has no
/// need of the origins' credentials. `None`: there is no admin listener.
///
/// # Errors
/// The file cannot be read, is not TOML, or these parts of it are wrong.
pub fn load_admin(path: &Path) -> Result<Option<admin::Settings>, Problems> {
    let concerned = |key: &str| ["", "listen", "listen.admin", "admin"].contains(&key) || key.starts_with("admin.");
    read(&text_of(path)?, path, &process_environment, concerned, |root| {
        let listeners = root.section("listen", server::listen);
        Some(server::admin(root, listeners.and_then(|l| l.admin)))
    })
}

/// Reads the client listeners and `[debug]` alone, for a command that asks a running server about a request.
///
/// # Errors
/// The file cannot be read, is not TOML, or these parts of it are wrong.
pub fn load_debug(path: &Path) -> Result<(proxy::listen::Settings, proxy::explain::Settings), Problems> {
    let concerned = |key: &str| ["", "listen", "debug"].contains(&key) || key.starts_with("debug.");
    read(&text_of(path)?, path, &process_environment, concerned, |root| {
        let listeners = root.section("listen", server::listen);
        let debug = root.section("debug", server::debug).unwrap_or_default();
        Some((listeners?.settings, debug))
    })
}

/// Reads `[cache]` alone, for a command that looks into the disk tier's directory. `None`: there is no disk tier.
///
/// # Errors
/// The file cannot be read, is not TOML, or this part of it is wrong.
pub fn load_disk(path: &Path) -> Result<Option<cache::disk::Settings>, Problems> {
    let concerned = |key: &str| ["", "cache"].contains(&key) || key.starts_with("cache.");
    read(&text_of(path)?, path, &process_environment, concerned, |root| {
        Some(server::cache(root).and_then(|cache| cache.disk))
    })
}

/// Reads the clients' addresses of `[listen]` alone, for a command that sends requests to a running server.
///
/// # Errors
/// The file cannot be read, is not TOML, or this part of it is wrong.
pub fn load_listen(path: &Path) -> Result<proxy::listen::Settings, Problems> {
    let concerned = |key: &str| ["", "listen"].contains(&key) || key.starts_with("listen.");
    read(&text_of(path)?, path, &process_environment, concerned, |root| {
        root.section("listen", |table| server::listen(table).settings)
    })
}

/// Reads the whole file; `None` only after a problem was written down.
fn whole(root: &Table<'_>, path: &Path) -> Option<Config> {
    let runtime = root.section("runtime", server::runtime).unwrap_or_default();
    let listen_value = root.get("listen");
    if listen_value.is_none() {
        root.absence("there is no address to listen on", "add `[listen]` with `http = [\"0.0.0.0:80\"]`");
    }
    let listeners = listen_value.and_then(|v| v.table(server::listen));
    let (listen, connections, https, admin) = match listeners {
        Some(server::Listeners { settings, connections, https, admin }) => (Some(settings), connections, https, admin),
        None => (None, proxy::hot::Settings::default(), None, None),
    };
    let admin = server::admin(root, admin);
    let tls = server::tls(root, https.as_ref());
    let cache = server::cache(root);
    let purge = server::purge(root, listen.as_ref());
    let access_log = root.section("access_log", server::access_log).unwrap_or_else(server::default_access_log);
    let debug = root.section("debug", server::debug).unwrap_or_default();
    let certificates = tls.as_ref().map(|tls| tls.certificates.as_path());
    let discovery_value = root.get("discovery");
    let discovers = discovery_value.is_some();
    let discovery = discovery_value.and_then(|v| v.table(|table| discovery::discovery(table, certificates))).flatten();
    let dns_value = root.get("dns");
    let dns = dns_value.and_then(|v| v.table(dns::dns)).flatten();
    let declared = origins::origins(root);
    let names: Vec<&str> = declared.iter().map(|(name, _)| *name).collect();
    let sites = sites::sites(root, &names, https.is_some(), discovers);
    let downstream = root.section("proxies", settings::proxies).unwrap_or_default();
    let hosts: Vec<String> = sites.iter().flat_map(|site| site.hosts.iter().map(ToString::to_string)).collect();
    let unknown_hosts =
        root.section("unknown_hosts", |table| settings::unknown_hosts(table, &hosts)).unwrap_or_default();
    let origins =
        declared.into_iter().filter_map(|(name, origin)| Some((Arc::from(name), Arc::new(origin?)))).collect();
    Some(Config {
        source: path.to_owned(),
        runtime,
        listen: listen?,
        connections,
        admin,
        tls,
        cache,
        purge,
        access_log,
        debug,
        discovery,
        dns,
        origins,
        downstream,
        unknown_hosts,
        sites,
    })
}

impl Default for Runtime {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { threads, shutdown_grace: Duration::from_secs(30) }
    }
}

/// Parses the TOML and has `take` read it; problems with keys that are not `concerned` are left out.
fn read<T>(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    concerned: impl Fn(&str) -> bool,
    take: impl FnOnce(&Table<'_>) -> Option<T>,
) -> Result<T, Problems> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let base = path.parent().unwrap_or(Path::new(""));
    let incomplete = Cell::new(!errors.is_empty());
    let lines = OnceCell::new();
    let document = Document { text, lines, source: path, base, env, problems: RefCell::default(), incomplete };
    let mut broken_lines: Vec<usize> = Vec::new();
    for error in &errors {
        let offset = error.span().map_or(text.len(), |span| span.start);
        let line = document.position(offset).line;
        // One slip often gives several errors; the first of a line is the one to act on.
        if !broken_lines.contains(&line) {
            broken_lines.push(line);
            let (message, remedy) = syntax_error(error.message(), text.get(offset..).unwrap_or_default());
            document.problem(offset, "", message, remedy);
        }
    }
    let value = Table::read(&document, String::new(), 0..0, tree.get_ref(), take);
    let mut problems = document.problems.take();
    problems.retain(|p| {
        let on_broken_line = p.position.is_some_and(|position| broken_lines.contains(&position.line));
        concerned(&p.key) && (p.key.is_empty() || !on_broken_line)
    });
    problems.sort_by_key(|p| p.position);
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        _ if problems.is_empty() => Err(whole_file(path, "it could not be understood", "compare it with the sample")),
        _ => Err(Problems { file: path.to_owned(), problems }),
    }
}

/// The parser's words without the list of single characters it would have taken next, and what to do. `rest` is the
/// text from there on.
fn syntax_error(message: &str, rest: &str) -> (String, &'static str) {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    if what.contains("must be quoted") && rest.trim_start_matches([' ', '\t']).starts_with(['\r', '\n', '#']) {
        return ("not TOML: a value is missing".to_owned(), "write a value after the `=`, or remove the line");
    }
    let message = if expected.is_empty() || expected.contains(',') || expected == "literal string" {
        format!("not TOML: {what}")
    } else {
        format!("not TOML: {what}, expected {expected}")
    };
    let remedy = if what.contains("duplicate key") {
        "keep one of the two"
    } else if what.contains("escape") {
        "write \\\\ for a backslash, or put the text between single quotes"
    } else if what.contains("must be quoted") {
        "put a text, a size or a duration between double quotes, as in \"256 MiB\""
    } else if what.contains("string") {
        "end the text with the quote it begins with, on the same line"
    } else {
        "write `key = value`, one to a line, and tables as `[name]`"
    };
    (message, remedy)
}

fn text_of(path: &Path) -> Result<String, Problems> {
    let bytes = std::fs::read(path).map_err(|error| {
        whole_file(path, &format!("cannot be read: {error}"), "check the path and the permissions of the file")
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|b| **b == b'\n').count() + 1;
        whole_file(path, &format!("is not UTF-8 (line {line})"), "save it with the UTF-8 encoding")
    })
}

fn whole_file(path: &Path, message: &str, remedy: &str) -> Problems {
    let problem =
        Problem { position: None, key: String::new(), message: message.to_owned(), remedy: remedy.to_owned() };
    Problems { file: path.to_owned(), problems: vec![problem] }
}

fn process_environment(name: &str) -> Option<String> {
    // A name with `=` or NUL in it is none that can be set, and `var` takes it for one that is not.
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests;
