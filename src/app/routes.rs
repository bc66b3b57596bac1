//! The routes in force, for `selvedge routes`.

use super::adapt::Discovered;
use crate::config::Config;
use crate::discovery::nginx_proxy::{self, PathRoute};
use crate::origin::status::ServerStatus;
use crate::origin::{self, Origin, OriginStatus};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// What the table was built from. The answer is made when somebody asks, which is rare beside rebuilding.
pub struct Routes {
    /// The configuration, discovered sites included.
    pub effective: Arc<Config>,
    /// What containers asked for.
    pub discovered: Arc<Discovered>,
    /// Why the containers cannot be seen now.
    pub trouble: Option<Arc<str>>,
    /// The origins in force.
    pub origins: Vec<Arc<Origin>>,
}

impl Routes {
    /// Hosts with paths, servers, where each came from and why; and what is to be said of them.
    pub fn to_json(&self) -> Value {
        let containers: HashMap<&str, &nginx_proxy::Site> =
            self.discovered.translation.sites.iter().map(|site| (&*site.host, &**site)).collect();
        let sites: Vec<Value> = self
            .effective
            .sites
            .iter()
            .map(|site| {
                let asked = site.discovered.then(|| containers.get(&*site.name).copied()).flatten();
                let routes: Vec<Value> = site
                    .routes
                    .iter()
                    .map(|route| {
                        let asked = asked.and_then(|site| {
                            site.paths.iter().find(|path| path.pattern.to_string() == route.path.to_string())
                        });
                        let origin = self.effective.origins.get(&route.origin);
                        json!({
                            "path": route.path.to_string(),
                            "source": &*route.source,
                            "origin": &*route.origin,
                            "cache": route.cache,
                            "servers": asked.map_or_else(|| servers(origin.map(|origin| &**origin)), discovered_servers),
                            "left_out": asked.map(left_out).unwrap_or_default(),
                        })
                    })
                    .collect();
                json!({
                    "site": &*site.name,
                    "hosts": site.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "source": &*site.source,
                    "https": site.settings.https.method.as_str(),
                    "certificate": site.settings.tls.certificate.as_deref(),
                    "refused": asked.and_then(|site| site.refused.as_deref()),
                    "routes": routes,
                })
            })
            .collect();
        let notes = self.discovered.translation.notes.iter().map(|note| {
            json!({
                "level": note.level.as_str(),
                "host": note.host.as_deref(),
                "container": note.container.as_deref(),
                "text": note.text,
            })
        });
        json!({
            "sites": sites,
            "origins": self.origins.iter().map(|origin| status(&origin.status())).collect::<Vec<_>>(),
            "notes": notes.collect::<Vec<_>>(),
            "trouble": self.trouble.as_deref(),
        })
    }
}

/// What an origin's servers are up to now.
fn status(origin: &OriginStatus) -> Value {
    let OriginStatus { name, balance, waiting, servers } = origin;
    let server = |server: &ServerStatus| {
        let ServerStatus {
            server,
            address,
            state,
            backup,
            weight,
            present_weight,
            in_flight,
            max_connections,
            latency,
            ejections,
            check_error,
        } = server;
        json!({
            "server": &**server,
            "address": address.to_string(),
            "state": state.as_str(),
            "backup": backup,
            "weight": weight,
            "present_weight": present_weight,
            "in_flight": in_flight,
            "max_connections": max_connections,
            "latency_ms": latency.map(|latency| latency.as_secs_f64() * 1e3),
            "ejections": ejections,
            "check_error": check_error.as_deref(),
        })
    };
    json!({
        "name": &**name,
        "balance": balance,
        "waiting": waiting,
        "servers": servers.iter().map(server).collect::<Vec<_>>(),
    })
}

fn servers(origin: Option<&origin::Settings>) -> Vec<Value> {
    match origin {
        Some(origin::Settings::Http(http)) => http
            .servers
            .iter()
            .map(|s| json!({ "address": address(&s.address.host, s.address.port), "why": "configuration" }))
            .collect(),
        Some(origin::Settings::S3(s3)) => {
            vec![
                json!({ "address": address(&s3.endpoint.host, s3.endpoint.port), "why": format!("bucket {}", s3.bucket) }),
            ]
        }
        None => Vec::new(),
    }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn discovered_servers(route: &PathRoute) -> Vec<Value> {
    let server = |s: &nginx_proxy::Server| json!({ "address": address(&s.address.to_string(), s.port), "container": &*s.container, "why": s.why });
    route.servers.iter().map(server).collect()
}

fn left_out(route: &PathRoute) -> Vec<Value> {
    route.left_out.iter().map(|(container, why)| json!({ "container": &**container, "why": why })).collect()
}

/// The source that stands for the process's environment.
pub fn is_environment(source: &Path) -> bool {
    source == Path::new(crate::config::ENVIRONMENT)
}
