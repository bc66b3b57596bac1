//! Traffic rules: conditions on a request, and what is done with one that meets them all. Pure: what a rule looks at is
//! handed in, and what it decides is handed back.

mod conditions;
mod state;
mod template;

pub use conditions::{Conditions, PathMatch, Subject, ValueMatch};
pub use state::{GroupState, RuleState, WeightsError};
pub use template::{Location, LocationError, Parts};

use crate::types::Secret;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use regex::Regex;
use std::sync::Arc;
use std::time::Duration;

/// One rule. A rule with an action ends the list for requests that meet its conditions; one that only rewrites or copies
/// them lets the next rules see them too.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name, unique in the site: for the admin listener, metrics and `selvedge why`.
    pub name: Arc<str>,
    /// All of these have to hold.
    pub when: Conditions,
    /// What the origin gets as the path instead of the client's; the client's stays in the cache key.
    pub rewrite: Option<Rewrite>,
    /// Where a copy of the request goes.
    pub mirror: Option<Mirror>,
    /// What is done; `None`: the route goes on as it would.
    pub action: Option<Action>,
    /// Whether an answer of the rule's own goes to those as well whom the route's networks, rate limit or passwords keep
    /// out, as with nginx, where `return` comes before `allow`, `deny` and `auth_basic`.
    pub before_access: bool,
    /// Where it stands: file and line, or the container that asks for it.
    pub source: Arc<str>,
}

/// What ends a request's way through the rules.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// One of these origins is asked in place of the route's.
    Forward(Forward),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// The edge answers itself.
    Respond(Respond),
    /// The connection is closed without an answer.
    Drop,
}

/// Origins that share requests by weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// At least one, each with a name of its own.
    pub groups: Vec<Group>,
    /// Clients stay with the group they got first.
    pub sticky: Option<Sticky>,
    /// How the cache takes part.
    pub cache: ForwardCache,
}

/// An origin and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// For the admin listener and metrics.
    pub name: Arc<str>,
    /// A declared origin's name.
    pub origin: Arc<str>,
    /// Its share is this over the sum of all; 0: it gets nothing new. Can be changed while the node runs.
    pub weight: u32,
}

/// How clients stay with their group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The cookie's name. Its value is a keyed hash of the group's name, which nobody can make up.
    pub cookie: Arc<str>,
    /// How long browsers keep it; `None`: until they are closed.
    pub lifetime: Option<Duration>,
    /// What the hash is keyed with, the same on nodes that are to understand each other's cookies; `None`: a random key,
    /// so that no cookie outlives the process.
    pub secret: Option<Secret>,
}

/// How the cache takes part in what is forwarded by a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardCache {
    /// [`Self::Shared`] if all that the rule looks at is part of the cache key, else [`Self::Off`].
    #[default]
    Auto,
    /// The groups share what is stored with each other and with the route: for servers that answer alike.
    Shared,
    /// Each group has its own stored responses.
    Group,
    /// Nothing is stored or reused.
    Off,
}

/// A change of the path that an origin gets.
#[derive(Clone, Debug)]
pub enum Rewrite {
    /// A prefix, replaced as text; paths that begin otherwise stay.
    Prefix {
        /// What goes.
        from: Arc<str>,
        /// What takes its place.
        to: Arc<str>,
    },
    /// The first match of a regular expression, replaced by a text with `$1` or `${name}` for its groups.
    Regex {
        /// What goes.
        from: Regex,
        /// What takes its place.
        to: Arc<str>,
    },
}

/// Sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Where to.
    pub location: Location,
}

/// An answer of the edge's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// From 200 to 599.
    pub status: StatusCode,
    /// The media type.
    pub content_type: HeaderValue,
    /// The content.
    pub body: Bytes,
}

/// Copies of requests, sent to an origin whose answers nobody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// A declared HTTP origin's name.
    pub origin: Arc<str>,
    /// Of a thousand requests this many are copied; at most 1000.
    pub per_mille: u16,
    /// Requests with more content than this, in bytes, are not copied.
    pub max_body: u64,
}

impl Action {
    /// The word for listings and explanations.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::Redirect(_) => "redirect",
            Self::Respond(_) => "respond",
            Self::Drop => "drop",
        }
    }
}

impl Rewrite {
    /// The path (without query) that takes the place of `path`; `None`: it stays. A result that is no path, since it does
    /// not begin with `/`, gets one.
    pub fn apply(&self, path: &str) -> Option<String> {
        let rewritten = match self {
            Self::Prefix { from, to } => format!("{to}{}", path.strip_prefix(&**from)?),
            Self::Regex { from, to } => match from.replace(path, &**to) {
                std::borrow::Cow::Borrowed(_) => return None,
                std::borrow::Cow::Owned(rewritten) => rewritten,
            },
        };
        Some(if rewritten.starts_with('/') { rewritten } else { format!("/{rewritten}") })
    }
}

impl PartialEq for Rewrite {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Prefix { from, to }, Self::Prefix { from: from2, to: to2 }) => (from, to) == (from2, to2),
            (Self::Regex { from, to }, Self::Regex { from: from2, to: to2 }) => {
                (from.as_str(), to) == (from2.as_str(), to2)
            }
            _ => false,
        }
    }
}

/// What the rules of a site make of one request, before any chance is thrown.
#[derive(Debug, Default)]
pub struct Decision<'a> {
    /// The rules that rewrite, in order, with their places in the list.
    pub rewrites: Vec<(usize, &'a Rewrite)>,
    /// The rules that copy, with their places in the list.
    pub mirrors: Vec<(usize, &'a Mirror)>,
    /// The rule that ends the list, its place and its action.
    pub action: Option<(usize, &'a Action)>,
}

/// Evaluates `rules` in order.
pub fn decide<'a>(rules: &'a [Rule], subject: &Subject<'_>) -> Decision<'a> {
    let mut decision = Decision::default();
    for (place, rule) in rules.iter().enumerate() {
        let Rule { name: _, when, rewrite, mirror, action, before_access: _, source: _ } = rule;
        if !when.hold(subject) {
            continue;
        }
        decision.rewrites.extend(rewrite.as_ref().map(|rewrite| (place, rewrite)));
        decision.mirrors.extend(mirror.as_ref().map(|mirror| (place, mirror)));
        if let Some(action) = action {
            decision.action = Some((place, action));
            break;
        }
    }
    decision
}

/// Chooses among `weights` by `ticket`, a number that counts up: of any run of tickets each group gets its share to within
/// one or two. `None` if all weights are 0.
pub fn choose(weights: &[u32], ticket: u64) -> Option<usize> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    if total == 0 {
        return None;
    }
    // Multiples of the golden ratio spread evenly over the unit interval, however few of them are looked at.
    let spread = ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let point = (u128::from(spread) * u128::from(total)) >> 64;
    let mut left = u64::try_from(point).unwrap_or(u64::MAX);
    weights.iter().position(|weight| match left.checked_sub(u64::from(*weight)) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    })
}

#[cfg(test)]
mod tests;
