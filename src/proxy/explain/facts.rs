//! What `Selvedge-Why` holds, in the order of a request's life.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A word of a fixed vocabulary.
type Token = Cow<'static, str>;

/// What was decided about one request. What did not come to pass is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The request's id, as in the access log.
    pub id: String,
    /// Its method.
    pub method: String,
    /// Its target URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How it was routed; absent where no site has the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// Whether the cache was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// The cache key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// The variant that `Vary` selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vary: Option<Vary>,
    /// What was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
    /// What the response that was found, or is stored, is purged by besides its URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Scopes>,
    /// The servers asked, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Whether a stale response could answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
    /// Whether the origin's response is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<Stored>,
    /// What was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answered>,
}

/// How a request was routed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// The host pattern that took it.
    pub host: String,
    /// The site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Where the route stands: file and line, or containers and why each is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why the host pattern and the path go before others that take the request too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Token>,
    /// Those others: host patterns and paths, a few of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<String>,
    /// The traffic rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Ruled>,
    /// The path pattern that took it; absent where no route of the site takes the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The origin's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// A traffic rule that decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ruled {
    /// Its name.
    pub name: String,
    /// `forward`, `redirect`, `respond` or `drop`.
    pub action: Token,
    /// The group that the request was given to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Where the rule stands.
    pub source: String,
}

/// Whether the cache was asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// It was.
    pub lookup: bool,
    /// Why it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Token>,
    /// What the request's `Cache-Control` asks of a stored response.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub demands: Vec<String>,
}

/// The parts of the cache key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Key {
    /// `http` or `https`.
    pub scheme: String,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path, with the query where that is part of the key.
    pub path: String,
    /// The request has a query, and the key has not.
    #[serde(skip_serializing_if = "is_false")]
    pub query_left_out: bool,
    /// Further parts, whose values may be personal and are not told.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
}

/// The variant that a response's `Vary` selects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vary {
    /// The request fields that select.
    pub fields: Vec<String>,
    /// A hash of this request's values of them, in hexadecimal.
    pub variant: String,
}

/// What a stored response is purged by besides its URL, and everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scopes {
    /// Its host.
    pub host: String,
    /// The longest prefix of its host and path; those that end with an earlier segment take it as well.
    pub prefix: String,
    /// Its tags, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// It has more tags, or longer ones, than are told apart: any purge by host, prefix or tag takes it.
    #[serde(skip_serializing_if = "is_false")]
    pub loose: bool,
}

/// A stored response that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    /// `memory`, `disk`, or `fill` for a response that is being stored.
    pub tier: Token,
    /// Its age in seconds.
    pub age: u64,
    /// Seconds of freshness left; negative when it is stale.
    pub ttl: i64,
    /// Its freshness lifetime in seconds.
    pub lifetime: u64,
    /// What the lifetime comes from ([`crate::cache::policy::LifetimeSource`]), or `soft-purge`, which ended it.
    pub lifetime_from: Token,
    /// `used`, `used-stale`, `stale` or `refused`.
    pub verdict: Token,
    /// The request directive that refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<Token>,
}

/// One server asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// Its address.
    pub server: String,
    /// The coding of the sibling that it was asked for in place of the file itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sibling: Option<Token>,
    /// Why it did not answer, by the error types of RFC 9209.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Token>,
    /// What it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long that took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<f64>,
    /// It was asked since the one before had not begun to answer in time.
    #[serde(skip_serializing_if = "is_false")]
    pub hedge: bool,
    /// Another one, asked beside it, answered first.
    #[serde(skip_serializing_if = "is_false")]
    pub outpaced: bool,
}

/// Whether a stale response could answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stale {
    /// `updating` while it is being validated, `error` after the origin failed.
    pub cause: Token,
    /// It did.
    pub served: bool,
}

/// Whether the origin's response is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stored {
    /// It is.
    pub stored: bool,
    /// Why it is not ([`crate::cache::policy::NotStored`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Token>,
    /// Its freshness lifetime in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<u64>,
    /// What the lifetime comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_from: Option<Token>,
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// What the cache did, as in metrics; absent where the edge answered by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Token>,
    /// Why the request went forward (RFC 9211 section 2.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<Token>,
    /// It was answered by another request's fetch.
    #[serde(skip_serializing_if = "is_false")]
    pub collapsed: bool,
    /// Why the edge answered by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}
