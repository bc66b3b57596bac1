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
mod translator;
mod vhost;

pub use proxy::ProxySettings;
pub use site::{
    Access, Acme, Balance, BasicAuth, Caching, ClientAuth, DefaultRoot, Fallback, HttpsMethod, Level, Note, PathRoute,
    Ports, Proto, RateLimit, Server, Site, SwarmAddress, TlsFloor, Www,
};
pub use translator::Translator;
pub use vhost::{AccessRule, Answer, Directives, Rewrite};

use super::{Container, Place, Snapshot};
use hosts::Claim;
use keys::Settings;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Everything the sites depend on.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// The containers.
    pub snapshot: Cow<'a, Snapshot>,
    /// The proxy's variables.
    pub proxy: Cow<'a, ProxySettings>,
    /// The files beside it.
    pub files: Cow<'a, Files>,
}

/// What every host depends on, beside the containers that ask for it: a host is given nothing else, or a [`Translator`]
/// would not see it change.
#[derive(Default)]
struct Around {
    proxy: ProxySettings,
    files: Files,
    place: Place,
}

impl Around {
    fn of(facts: &Facts<'_>) -> Self {
        Self {
            proxy: facts.proxy.clone().into_owned(),
            files: facts.files.clone().into_owned(),
            place: facts.snapshot.place.clone(),
        }
    }

    fn is_of(&self, facts: &Facts<'_>) -> bool {
        let Self { proxy, files, place } = self;
        *proxy == *facts.proxy && *files == *facts.files && *place == facts.snapshot.place
    }
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
    pub sites: Vec<Arc<Site>>,
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
    Translator::default().translate(facts)
}

/// What a service says of where its requests go.
///
/// # Errors
/// It says something else.
pub(super) fn swarm_address(service: &Container) -> Result<SwarmAddress, String> {
    Settings::of(service).get("SELVEDGE_SWARM").map_or(Ok(SwarmAddress::default()), own::swarm)
}

fn fallback(facts: &Facts<'_>, sites: &[Arc<Site>], notes: &mut Notes) -> Fallback {
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

    fn repeat(&mut self, notes: &[Note]) {
        self.0.extend(notes.iter().cloned());
    }

    fn into_sorted(self) -> Vec<Note> {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
pub(crate) mod cases;
#[cfg(test)]
mod tests;
