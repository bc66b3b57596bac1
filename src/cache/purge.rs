//! Purging as an operator asks for it: what an order may name, how it is carried out, and what is reported of it.
//!
//! The admin listener and the PURGE method both come here, so that they cannot differ.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use pingora::cache::CacheKey;
use serde_json::{Value, json};

use super::epochs::{Mark, Record};
use super::scope::{self, Kind};
use super::{Cache, PurgeError, key};
use crate::types::HostName;

/// URLs that are purged at the same time: they share synchronisations of the purge log.
const AT_ONCE: usize = 256;

/// What to purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One absolute URL with all its variants.
    Url(String),
    /// `host/path` with or without a scheme: that path and all below it, ending where a path segment ends, with any
    /// query, whatever the scheme and port.
    Prefix(String),
    /// A host name, whatever the scheme and port.
    Host(String),
    /// A tag, compared byte by byte.
    Tag(String),
    /// Everything stored.
    All,
}

impl Scope {
    /// `url`, `prefix`, `host`, `tag` or `all`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Prefix(_) => "prefix",
            Self::Host(_) => "host",
            Self::Tag(_) => "tag",
            Self::All => "all",
        }
    }

    /// What it names; `*` is everything.
    pub fn name(&self) -> &str {
        match self {
            Self::Url(name) | Self::Prefix(name) | Self::Host(name) | Self::Tag(name) => name,
            Self::All => "*",
        }
    }
}

/// Tells which stored responses a purge by scope would take.
#[derive(Clone, Copy, Debug)]
pub struct Matcher {
    scope: u64,
}

impl Matcher {
    /// That of a prefix, host or tag, or of everything.
    ///
    /// # Errors
    /// It is malformed, as a purge of it would say, or a URL.
    pub fn new(scope: &Scope) -> Result<Self, String> {
        match resolve(scope, |_| Err("a URL is no scope".to_owned()))? {
            Resolved::Scope(_, scope) => Ok(Self { scope }),
            Resolved::Key(_) => Err("a URL is no scope".to_owned()),
        }
    }

    /// Whether the purge would take what has this mark.
    pub fn takes(self, mark: &Mark) -> bool {
        self.scope == scope::EVERYTHING || mark.scopes.iter().any(|of| *of == self.scope || *of == scope::LOOSE)
    }
}

/// An order to purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What, at least one.
    pub scopes: Vec<Scope>,
    /// Keep it as stale, to be validated on its next use, rather than remove it.
    pub soft: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Each scope as it was given and whether anything was stored under it: known of URLs, since a purge by another
    /// scope takes the same time whatever it concerns and looks at nothing.
    pub results: Vec<(Scope, Option<bool>)>,
}

/// Why nothing, or not all, was purged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Not a scope that anything could be stored under; nothing was purged.
    #[error("`{}` cannot be purged: {reason}", .scope.name())]
    Bad {
        /// As given.
        scope: Scope,
        /// What is wrong and how to write it.
        reason: String,
    },
    /// The store cannot make a purge durable now; what was named may be served again after a restart. Try again.
    #[error("purging is not possible now: {0}")]
    Unavailable(String),
}

impl Report {
    /// How many URLs had something stored; `None` where something else was purged too, of which no number is known.
    pub fn purged(&self) -> Option<usize> {
        self.results.iter().map(|(_, found)| found.map(usize::from)).sum()
    }

    /// The answer to whoever asked.
    pub fn to_json(&self, request_id: &str, soft: bool) -> Value {
        let result = |(scope, found): &(Scope, Option<bool>)| json!({ scope.kind(): scope.name(), "found": found });
        let results: Vec<Value> = self.results.iter().map(result).collect();
        json!({ "request_id": request_id, "soft": soft, "purged": self.purged(), "results": results })
    }
}

impl Failure {
    /// The answer to whoever asked.
    pub fn to_json(&self, request_id: &str) -> Value {
        let error = self.to_string();
        match self {
            Self::Bad { scope, reason } => {
                json!({ "request_id": request_id, "error": error, scope.kind(): scope.name(), "reason": reason })
            }
            Self::Unavailable(_) => json!({ "request_id": request_id, "error": error }),
        }
    }
}

/// Writes the one line of the log that tells who purged what.
pub fn audit(request_id: &str, who: &dyn Display, order: &Order, outcome: &Result<Report, Failure>) {
    const SHOWN: usize = 20;
    let names = order.scopes.iter().take(SHOWN).map(|scope| format!("{}={:?}", scope.kind(), scope.name()));
    let mut what = names.collect::<Vec<_>>().join(" ");
    if order.scopes.len() > SHOWN {
        what += &format!(" and {} more", order.scopes.len() - SHOWN);
    }
    let (scopes, soft) = (order.scopes.len(), order.soft);
    match outcome {
        Ok(report) => {
            let found = report.purged();
            tracing::info!(request_id, %who, scopes, soft, found, what, "purge carried out");
        }
        Err(error) => tracing::warn!(request_id, %who, scopes, soft, %error, what, "purge failed"),
    }
}

/// A scope that was understood.
enum Resolved {
    Key(CacheKey),
    Scope(Kind, u64),
}

impl Cache {
    /// Carries an order out. When it returns `Ok`, no later look-up finds (or, of a soft purge, finds fresh) what was
    /// stored or asked for before the call, not even after a crash. `key_of` gives the key of a URL, or says why there
    /// is none. All scopes are understood before the first is purged.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn carry_out(
        &'static self,
        order: &Order,
        key_of: impl Fn(&str) -> Result<CacheKey, String>,
    ) -> Result<Report, Failure> {
        let resolve =
            |scope: &Scope| resolve(scope, &key_of).map_err(|reason| Failure::Bad { scope: scope.clone(), reason });
        let resolved = order.scopes.iter().map(resolve).collect::<Result<Vec<_>, _>>()?;
        let unavailable = |error: PurgeError| Failure::Unavailable(error.to_string());
        let mut found: Vec<Option<bool>> = vec![None; resolved.len()];
        let mut records = Vec::new();
        let mut hard_keys = Vec::new();
        for (at, resolved) in resolved.into_iter().enumerate() {
            match resolved {
                Resolved::Key(key) if !order.soft => hard_keys.push((at, key)),
                Resolved::Key(key) => {
                    found[at] = Some(self.holds(&key).await);
                    records.push(self.enter(Kind::Key, scope::of_key(&key::tier_key(&key).primary), true));
                }
                Resolved::Scope(Kind::All, _) if !order.soft => self.purge_all().await.map_err(unavailable)?,
                Resolved::Scope(kind, scope) => records.push(self.enter(kind, scope, order.soft)),
            }
        }
        self.make_durable(&records).await.map_err(unavailable)?;
        let purges = hard_keys.into_iter().map(|(at, key)| self.purge_at(at, key));
        let mut purges = futures::stream::iter(purges).buffer_unordered(AT_ONCE);
        while let Some((at, done)) = purges.next().await {
            found[at] = Some(done.map_err(unavailable)?);
        }
        Ok(Report { results: order.scopes.iter().cloned().zip(found).collect() })
    }

    async fn purge_at(&'static self, at: usize, key: CacheKey) -> (usize, Result<bool, PurgeError>) {
        (at, self.purge(&key).await)
    }

    /// Puts a purge by scope into force.
    pub(super) fn enter(&self, kind: Kind, scope: u64, soft: bool) -> Record {
        self.epochs.purge(kind, scope, soft.then(|| self.clock.now()))
    }

    /// Makes purges by scope outlast a crash, and looks after their number.
    pub(super) async fn make_durable(&'static self, records: &[Record]) -> Result<(), PurgeError> {
        if let Some(disk) = self.disk.as_ref().filter(|_| !records.is_empty()) {
            disk.log(records).await?;
        }
        self.purges.inc_by(records.len() as u64);
        if self.epochs.is_crowded() && !self.sweeping.swap(true, Ordering::AcqRel) {
            tokio::task::spawn_blocking(|| {
                self.sweep();
                self.sweeping.store(false, Ordering::Release);
            });
        }
        Ok(())
    }

    /// Forgets purges by scope that nothing stored is older than. It looks at all that is in memory.
    pub(super) fn sweep(&self) {
        let now = self.epochs.sequence();
        // What is being fetched now belongs to no tier yet; it is over by the next sweep, or else it is not stored.
        let before = self.swept.swap(now, Ordering::AcqRel);
        let on_disk = self.disk.as_ref().map_or(u64::MAX, |disk| disk.oldest_epoch());
        self.epochs.forget(self.memory.sweep(&self.epochs).min(on_disk).min(before));
    }

    /// Whether any variant of a key is stored or being stored.
    async fn holds(&self, key: &CacheKey) -> bool {
        let primary = key::tier_key(key).primary;
        let in_memory = self.shards.holds(&primary, |key| self.memory.holds(key, &self.epochs));
        match &self.disk {
            Some(disk) if !in_memory => disk.is_live(&primary).await,
            _ => in_memory,
        }
    }
}

fn resolve(scope: &Scope, key_of: impl Fn(&str) -> Result<CacheKey, String>) -> Result<Resolved, String> {
    match scope {
        Scope::Url(url) => key_of(url).map(Resolved::Key),
        Scope::Host(host) => {
            let host = HostName::from_str(host).map_err(|_| "not a host name, as in www.example.com".to_owned())?;
            Ok(Resolved::Scope(Kind::Host, scope::of_host(host.as_str())))
        }
        Scope::Prefix(prefix) => {
            let (host, path) = split_prefix(prefix)?;
            let depth = || format!("its path has more than {} segments; purge a shorter one", scope::MAX_DEPTH);
            Ok(Resolved::Scope(Kind::Prefix, scope::of_prefix(host.as_str(), path).ok_or_else(depth)?))
        }
        Scope::Tag(tag) => {
            let hash = scope::of_tag(tag);
            let what = || format!("a tag has 1 to {} bytes, no comma and no white space", scope::MAX_TAG);
            Ok(Resolved::Scope(Kind::Tag, hash.ok_or_else(what)?))
        }
        Scope::All => Ok(Resolved::Scope(Kind::All, scope::EVERYTHING)),
    }
}

fn split_prefix(prefix: &str) -> Result<(HostName, &str), String> {
    let rest = match prefix.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => rest,
        Some(_) => return Err("its scheme is neither http nor https".to_owned()),
        None => prefix,
    };
    if rest.contains(['?', '#']) {
        return Err("a prefix is a host and a path; every query below it is purged with it".to_owned());
    }
    if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("write characters other than visible ASCII percent-encoded, as requests have them".to_owned());
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, _) = HostName::parse_with_port(authority)
        .map_err(|_| "it begins with no host; write it as in www.example.com/blog".to_owned())?;
    Ok((host, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_with_and_without_a_scheme() {
        for (text, host, path) in [
            ("www.example.com/a/b", "www.example.com", "/a/b"),
            ("https://WWW.example.com:8443/a/", "www.example.com", "/a/"),
            ("HTTP://www.example.com", "www.example.com", ""),
            ("[::1]:80/x", "[::1]", "/x"),
        ] {
            let (found, rest) = split_prefix(text).expect(text);
            assert_eq!((found.as_str(), rest), (host, path), "{text}");
        }
        for text in ["/a", "", "ftp://a/b", "a b/c", "a/b?c", "a/ü", "a/b#c", "https:///x"] {
            assert!(split_prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_report_counts_only_what_is_known() {
        let url = |found| (Scope::Url("https://a/".to_owned()), Some(found));
        let tag = (Scope::Tag("t".to_owned()), None);
        assert_eq!(Report { results: vec![url(true), url(false), url(true)] }.purged(), Some(2));
        let mixed = Report { results: vec![url(true), tag] };
        assert_eq!(mixed.purged(), None);
        assert_eq!(
            mixed.to_json("r", true),
            json!({ "request_id": "r", "soft": true, "purged": null,
                "results": [{ "url": "https://a/", "found": true }, { "tag": "t", "found": null }] })
        );
    }
}
