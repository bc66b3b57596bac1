//! What a rule looks at.

use crate::route::HostPattern;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, Method};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use regex::Regex;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// The part of a request that rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Normalised: lower case, no port, no trailing dot.
    pub host: &'a str,
    /// Without the query, as sent.
    pub path: &'a str,
    /// Without its `?`; empty where there is none.
    pub query: &'a str,
    /// The method.
    pub method: &'a Method,
    /// All fields.
    pub headers: &'a HeaderMap,
    /// The client's address as far as it can be believed.
    pub client: Option<IpAddr>,
}

/// Everything that has to hold. A list that is empty holds; of hosts, paths, methods and sources one has to fit, of fields,
/// parameters and cookies each.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Hosts.
    pub hosts: Vec<HostPattern>,
    /// Paths.
    pub paths: Vec<PathMatch>,
    /// Methods.
    pub methods: Vec<Method>,
    /// Fields: one line of that name has to fit.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// Parameters of the query, percent-decoded.
    pub query: Vec<(Arc<str>, ValueMatch)>,
    /// Cookies.
    pub cookies: Vec<(Arc<str>, ValueMatch)>,
    /// Networks that the client is in.
    pub sources: Vec<IpNet>,
}

/// How a rule's path fits.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// The path itself.
    Exact(Arc<str>),
    /// The path begins with this text.
    Prefix(Arc<str>),
    /// Somewhere in the path.
    Regex(Regex),
}

/// How the value of a field, parameter or cookie fits.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// It is there.
    Present,
    /// It is not there.
    Absent,
    /// It is this text.
    Exact(Arc<str>),
    /// Somewhere in it.
    Regex(Regex),
}

impl Conditions {
    /// Whether all of them hold.
    pub fn hold(&self, subject: &Subject<'_>) -> bool {
        let Self { hosts, paths, methods, headers, query, cookies, sources } = self;
        any(hosts, |pattern| pattern.matches(subject.host))
            && any(paths, |pattern| pattern.matches(subject.path))
            && any(methods, |method| method == subject.method)
            && any(sources, |network| subject.client.is_some_and(|c| network.contains(&c.to_canonical())))
            && headers.iter().all(|(name, value)| {
                value.fits(subject.headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())))
            })
            && query.iter().all(|(name, value)| value.fits(parameters(subject.query, name)))
            && cookies.iter().all(|(name, value)| value.fits(cookie_values(subject.headers, name)))
    }

    /// Whether what they look at is part of every cache key: host, path and (among those that are looked up) method are.
    /// The query is unless the route leaves some of it out, which the caller knows.
    pub fn are_in_the_key(&self, query_counts: bool) -> bool {
        let Self { hosts: _, paths: _, methods, headers, query, cookies, sources } = self;
        // HEAD is answered from what GET stored, so that one of them alone would not tell them apart.
        let methods_count = methods.is_empty() || methods.contains(&Method::GET) == methods.contains(&Method::HEAD);
        methods_count
            && headers.is_empty()
            && cookies.is_empty()
            && sources.is_empty()
            && (query.is_empty() || query_counts)
    }
}

/// Whether one of the list fits; an empty list asks nothing.
fn any<T>(list: &[T], fits: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(fits)
}

impl PathMatch {
    /// Whether it takes this path.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => path.starts_with(&**prefix),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

impl ValueMatch {
    fn fits<'v>(&self, mut values: impl Iterator<Item = Cow<'v, str>>) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Exact(exact) => values.any(|value| *value == **exact),
            Self::Regex(regex) => values.any(|value| regex.is_match(&value)),
        }
    }
}

/// The values of a parameter; one without `=` has an empty one.
fn parameters<'q>(query: &'q str, name: &str) -> impl Iterator<Item = Cow<'q, str>> {
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (own, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(own) == name).then(|| decoded(value))
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        return percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned().into();
    }
    percent_decode_str(text).decode_utf8_lossy()
}

/// The values of a cookie (RFC 6265 section 4.2), whatever lines they came in.
pub(super) fn cookie_values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = Cow<'h, str>> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(move |pair| {
        let (own, value) = pair.trim().split_once('=')?;
        (own == name).then_some(Cow::Borrowed(value))
    })
}

impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) | (Self::Absent, Self::Absent) => true,
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl PartialEq for Conditions {
    fn eq(&self, other: &Self) -> bool {
        let Self { hosts, paths, methods, headers, query, cookies, sources } = self;
        let texts = |patterns: &[HostPattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        texts(hosts) == texts(&other.hosts)
            && *paths == other.paths
            && *methods == other.methods
            && *headers == other.headers
            && *query == other.query
            && *cookies == other.cookies
            && *sources == other.sources
    }
}
