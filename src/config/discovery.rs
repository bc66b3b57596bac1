//! `[discovery]`: containers that say themselves which hosts they answer for.

use super::reader::{Table, Value};
use crate::discovery::nginx_proxy::ProxySettings;
use crate::discovery::{docker, remote};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where sites come from beside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Who knows the containers.
    pub source: DiscoverySource,
    /// The folders that belong to them.
    pub folders: DiscoveryFolders,
    /// What nginx-proxy's own variables say for all of them.
    pub proxy: ProxySettings,
}

/// Who knows the containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoverySource {
    /// A Docker Engine.
    Docker(docker::Settings),
    /// A process that may see an engine.
    Remote(remote::Settings),
}

/// Folders that nginx-proxy has beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiscoveryFolders {
    /// `/etc/nginx/certs`: as `[tls] certificates` says.
    pub certificates: Option<PathBuf>,
    /// `/etc/nginx/htpasswd`.
    pub htpasswd: Option<PathBuf>,
    /// `/etc/nginx/vhost.d`.
    pub vhost: Option<PathBuf>,
    /// `/usr/share/nginx/html`, of which `errors/50x.html` and `.well-known/acme-challenge` count.
    pub html: Option<PathBuf>,
}

impl DiscoveryFolders {
    /// Where an ACME client beside this node puts what authorities ask for.
    pub fn challenges(&self) -> Option<PathBuf> {
        self.html.as_ref().map(|folder| folder.join(".well-known/acme-challenge"))
    }
}

/// Reads `[discovery.docker]` or `[discovery.remote]`; `certificates` is the folder of `[tls]`.
pub(super) fn discovery(table: &Table<'_>, certificates: Option<&Path>) -> Option<Discovery> {
    let (docker, remote) = (table.get("docker"), table.get("remote"));
    match (&docker, &remote) {
        (None, None) => {
            table.absence("`discovery` names no source", "add `[discovery.docker]` or `[discovery.remote]`")
        }
        (Some(_), Some(second)) => second.problem("`discovery` names two sources", "keep one of them"),
        _ => {}
    }
    let docker = docker.and_then(|v| v.table(|table| source(table, certificates, docker_source))).flatten();
    docker.or(remote.and_then(|v| v.table(|table| source(table, certificates, remote_source))).flatten())
}

/// What both kinds have, and the source itself.
fn source(
    table: &Table<'_>,
    certificates: Option<&Path>,
    read: impl Fn(&Table<'_>) -> Option<DiscoverySource>,
) -> Option<Discovery> {
    let htpasswd = table.get("htpasswd").and_then(|v| v.path("\"htpasswd\""));
    let vhost = table.get("vhost").and_then(|v| v.path("\"vhost.d\""));
    let html = table.get("html").and_then(|v| v.path("\"html\""));
    let proxy = table.get("variables").and_then(|value| value.table(|table| variables(table, &value)));
    let folders = DiscoveryFolders { certificates: certificates.map(Path::to_owned), htpasswd, vhost, html };
    Some(Discovery { source: read(table)?, folders, proxy: proxy.unwrap_or_default() })
}

fn remote_source(table: &Table<'_>) -> Option<DiscoverySource> {
    const EXAMPLE: &str = "\"unix:/run/selvedge/discover.sock\"";
    let trust = table.get("ca").and_then(|v| v.path("\"discover.crt\""));
    let token = table.get("token").and_then(|v| v.secret());
    let value = table.required("endpoint", EXAMPLE)?;
    let text = value.text(EXAMPLE)?;
    let unix = text.strip_prefix("unix:").filter(|path| path.starts_with('/'));
    let https = text.strip_prefix("https://").filter(|authority| authority.contains(':'));
    let endpoint = match (unix, https, trust) {
        (Some(path), ..) => Some(remote::Endpoint::Unix(path.into())),
        (None, Some(authority), Some(trust)) => Some(remote::Endpoint::Https(authority.to_owned(), trust)),
        (None, Some(_), None) => {
            table.absence(
                format!("`{}` has no `ca`, so that nobody could be believed", table.path),
                "add `ca`, the file of the certificate that `selvedge discover` shows, or of who signed it",
            );
            None
        }
        (None, None, _) => {
            value.problem(
                format!("`{}` is \"{}\", not where containers are offered", value.key(), value.shown()),
                "write it as in \"unix:/run/selvedge/discover.sock\" or \"https://10.0.0.5:9443\"",
            );
            None
        }
    };
    Some(DiscoverySource::Remote(remote::Settings { endpoint: endpoint?, token }))
}

fn docker_source(table: &Table<'_>) -> Option<DiscoverySource> {
    let tls = table.get("tls").and_then(|v| v.path("\"/etc/docker/certs\""));
    let endpoint_value = table.get("endpoint");
    let endpoint = endpoint_value.as_ref().and_then(|value| {
        let text = value.text("\"unix:///var/run/docker.sock\"")?;
        match docker::Endpoint::parse(text, tls.clone()) {
            Ok(endpoint) => Some(endpoint),
            Err(_) => {
                value.problem(
                    format!("`{}` is \"{}\", not an engine's address", value.key(), value.shown()),
                    "write it as in \"unix:///var/run/docker.sock\" or \"tcp://10.0.0.5:2376\"",
                );
                None
            }
        }
    });
    let filters = table.get("filters").map(|value| filters(&value));
    let environment = docker::Settings::from_environment(table.document.env, &|path| path.exists());
    let mut settings = match (environment, endpoint) {
        (Ok(settings), None) => settings,
        (Ok(settings), Some(endpoint)) => docker::Settings { endpoint, ..settings },
        (Err(_), Some(endpoint)) => docker::Settings { endpoint, filters: Default::default() },
        (Err(error), None) => {
            table.absence(error.to_string(), "correct the variable, or write `endpoint` here");
            return None;
        }
    };
    settings.filters = filters.unwrap_or(settings.filters);
    Some(DiscoverySource::Docker(settings))
}

fn filters(value: &Value<'_>) -> std::collections::HashMap<String, Vec<String>> {
    let mut all: std::collections::HashMap<String, Vec<String>> = Default::default();
    for element in value.array("[\"label=com.example.public\"]").unwrap_or_default() {
        let Some(text) = element.text("\"label=com.example.public\"") else { continue };
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                all.entry(name.to_owned()).or_default().push(value.to_owned());
            }
            _ => element.problem(
                format!("`{}` is \"{}\", not a filter", element.key(), element.shown()),
                "write it as in \"label=com.example.public\" or \"status=running\"",
            ),
        }
    }
    all
}

/// nginx-proxy's variables, in its own words.
fn variables(table: &Table<'_>, whole: &Value<'_>) -> ProxySettings {
    let mut env = BTreeMap::new();
    for (name, value) in table.named() {
        if !ProxySettings::NAMES.contains(&name) {
            value.problem(
                format!("`{}` is no variable of the proxy", value.key()),
                format!(
                    "write one of {}; variables of containers belong to the containers",
                    ProxySettings::NAMES.join(", ")
                ),
            );
        } else if let Some(text) = value.string("\"noredirect\"") {
            env.insert(name.to_owned(), text.to_owned());
        }
    }
    for name in ["LOG_FORMAT", "LOG_FORMAT_ESCAPE"].into_iter().filter(|name| env.contains_key(*name)) {
        whole.problem(
            format!("`{}.{name}` has no effect beside a configuration file", whole.key()),
            "write `template` and `escape` in [access_log]",
        );
    }
    let (settings, problems) = ProxySettings::read(&env);
    for problem in problems {
        whole.problem(problem, "correct it, or leave it out");
    }
    settings
}
