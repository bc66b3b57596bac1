//! Containers to sites, as nginx-proxy 1.11 and acme-companion read their variables.
//!
//! [`translate`] is pure: of the files beside the proxy it gets names and, for `vhost.d`, contents. Where nginx-proxy leaves the
//! choice to the order in which an engine lists containers, the oldest container wins here, then the first by name, and
//! the others are told so.

mod acme;
mod address;
mod balance;
mod host;
mod hosts;
mod keys;
mod own;
mod proxy;
mod site;
mod tls;
mod vhost;

pub use proxy::ProxySettings;
pub use site::{
    Access, Acme, Balance, BasicAuth, Caching, ClientAuth, DefaultRoot, Fallback, HttpsMethod, Level, Note, PathRoute,
    Ports, Proto, RateLimit, Server, Site, SwarmAddress, TlsFloor, Www,
};
pub use vhost::{AccessRule, Answer, Directives, Rewrite};

use super::{Container, Snapshot, State};
use hosts::Claim;
use keys::Settings;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Everything the sites depend on.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// The containers.
    pub snapshot: std::borrow::Cow<'a, Snapshot>,
    /// The proxy's variables.
    pub proxy: ProxySettings,
    /// The files beside it.
    pub files: Files,
}

/// The files that an operator mounts beside nginx-proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// File names in `/etc/nginx/certs`.
    pub certificates: BTreeSet<String>,
    /// File names in `/etc/nginx/htpasswd`.
    pub htpasswd: BTreeSet<String>,
    /// Names and contents of the files in `/etc/nginx/vhost.d`.
    pub vhost: BTreeMap<String, String>,
    /// What is in `/usr/share/nginx/html/errors/50x.html`.
    pub error_page: Option<String>,
    /// There is a folder `/usr/share/nginx/html/.well-known/acme-challenge`.
    pub challenges: bool,
}

/// The sites that containers ask for.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// By host, in text order: also the order in which regexes are tried.
    pub sites: Vec<Site>,
    /// What is answered where no container answers.
    pub fallback: Fallback,
    /// What an operator should know, the worst first. Each is said once.
    pub notes: Vec<Note>,
}

/// One container's claim on one path of one host.
struct Claimed<'a> {
    settings: &'a Settings<'a>,
    claim: Claim,
}

/// Translates. The same facts give the same sites, whatever order the containers are listed in.
pub fn translate(facts: &Facts<'_>) -> Translation {
    let mut notes = Notes::default();
    for remark in &facts.snapshot.remarks {
        match remark.problem {
            true => notes.problem(None, None, remark.text.clone()),
            false => notes.warn(None, None, remark.text.clone()),
        }
    }
    let mut containers: Vec<&Container> =
        facts.snapshot.containers.iter().filter(|c| c.state != State::Stopped).collect();
    containers.sort_by(|a, b| (&a.created, &a.name, &a.id).cmp(&(&b.created, &b.name, &b.id)));
    let all: Vec<Settings<'_>> = containers.iter().map(|container| Settings::of(container)).collect();
    let mut by_host: BTreeMap<String, Vec<Claimed<'_>>> = BTreeMap::new();
    for settings in &all {
        let name: Arc<str> = settings.container.name.as_str().into();
        for unknown in &settings.unknown {
            notes.warn(None, Some(&name), format!("`{unknown}` is no setting that there is; look at its spelling"));
        }
        let claims = hosts::claims(settings, &mut |text| notes.problem(None, Some(&name), text));
        for claim in claims {
            by_host.entry(claim.host.clone()).or_default().push(Claimed { settings, claim });
        }
    }
    let sites: Vec<Site> =
        by_host.into_iter().filter_map(|(name, claims)| host::site(&name, &claims, facts, &mut notes)).collect();
    let fallback = fallback(facts, &sites, &mut notes);
    Translation { sites, fallback, notes: notes.into_sorted() }
}

/// What a service says of where its requests go.
///
/// # Errors
/// It says something else.
pub(super) fn swarm_address(service: &Container) -> Result<SwarmAddress, String> {
    Settings::of(service).get("SELVEDGE_SWARM").map_or(Ok(SwarmAddress::default()), own::swarm)
}

fn fallback(facts: &Facts<'_>, sites: &[Site], notes: &mut Notes) -> Fallback {
    let wanted = facts.proxy.default_host.clone();
    let default_host = wanted.filter(|host| {
        let known = sites.iter().any(|site| site.host == *host);
        if !known {
            let text =
                format!("DEFAULT_HOST is `{host}`, which no container has as VIRTUAL_HOST; unknown hosts get 503");
            notes.warn(Some(host), None, text);
        }
        known
    });
    Fallback {
        default_host,
        default_root: facts.proxy.default_root.clone(),
        error_page: facts.files.error_page.as_deref().map(Into::into),
        challenges: facts.files.challenges && facts.proxy.acme_unknown_host,
    }
}

/// The hexadecimal SHA-1 by which nginx-proxy names the files of paths and regexes.
fn sha1(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was noticed, each once.
#[derive(Default)]
struct Notes(BTreeSet<Note>);

impl Notes {
    fn add(&mut self, level: Level, host: Option<&Arc<str>>, container: Option<&Arc<str>>, text: String) {
        self.0.insert(Note { level, host: host.cloned(), container: container.cloned(), text });
    }

    fn problem(&mut self, host: Option<&Arc<str>>, container: Option<&Arc<str>>, text: String) {
        self.add(Level::Problem, host, container, text);
    }

    fn warn(&mut self, host: Option<&Arc<str>>, container: Option<&Arc<str>>, text: String) {
        self.add(Level::Warning, host, container, text);
    }

    fn info(&mut self, host: Option<&Arc<str>>, container: Option<&Arc<str>>, text: String) {
        self.add(Level::Info, host, container, text);
    }

    fn into_sorted(self) -> Vec<Note> {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
pub(crate) mod cases;
#[cfg(test)]
mod tests;
