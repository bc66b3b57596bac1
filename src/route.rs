//! Host and path to a site and a route: an immutable table, generic over what a route leads to.
//!
//! Precedence follows nginx: exact host, longest leading wildcard, longest trailing wildcard, first regex; then the
//! longest path prefix, unless a path regex matches. [`settings`] and [`traffic`] say what sites and routes can be told to
//! do, as plain data, and hold the pure decisions about it.

mod path;
mod pattern;
pub mod settings;
mod table;
pub mod traffic;

pub use pattern::{HostPatternError, PathPatternError};
pub use table::{BuildProblem, Hosts, Match, PreparedSite, RouteTable};

use std::sync::Arc;

/// How one `hosts` entry matches: `a.b`, `*.b`, `a.*`, `~regex`, or `*` for every host.
///
/// [`FromStr`](std::str::FromStr) reads these forms and `Display` writes them back.
#[derive(Clone, Debug)]
pub enum HostPattern {
    /// The host itself.
    Exact(crate::types::HostName),
    /// `*.suffix`: any host of one or more further labels; the text is `.suffix`, lower case.
    LeadingWildcard(Arc<str>),
    /// `prefix.*`: the text is `prefix.`, lower case.
    TrailingWildcard(Arc<str>),
    /// `~regex`, matched case-insensitively against the host.
    Regex(regex::Regex),
    /// `*`: whatever no other pattern matches.
    Any,
}

/// How a route's `path` matches: `/prefix`, `~regex`, or `~*regex` for a regex that ignores case.
///
/// [`FromStr`](std::str::FromStr) reads these forms; `Display` writes them back (`~*regex` as `~(?i)regex`, which
/// means the same).
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// The path starts with this text (not segment-aware, as nginx-proxy's is not).
    Prefix(Arc<str>),
    /// `~regex`: beats every prefix; the first in text order wins.
    Regex(regex::Regex),
}

/// One site as configuration or discovery describes it.
#[derive(Clone, Debug)]
pub struct SiteSpec<T> {
    /// The patterns of the hosts it answers for.
    pub hosts: Vec<HostPattern>,
    /// Its routes, in the order of the source.
    pub routes: Vec<(PathPattern, T)>,
}

impl HostPattern {
    /// Whether it takes a normalised host.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name.as_str() == host,
            Self::LeadingWildcard(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
            Self::TrailingWildcard(prefix) => host.len() > prefix.len() && host.starts_with(&**prefix),
            Self::Regex(regex) => regex.is_match(host),
            Self::Any => true,
        }
    }
}
