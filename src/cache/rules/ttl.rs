//! Lifetimes that an operator gives.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use http::header::{CACHE_CONTROL, CONTENT_TYPE, EXPIRES, HeaderMap, HeaderName, HeaderValue, PRAGMA};
use http::{StatusCode, request};
use pingora::cache::CacheMeta;
use pingora::http::ResponseHeader;

use super::pattern::{Glob, PathMatch};
use crate::cache::policy::{self, CookieRule, NotStored, ResponseRules};
use crate::field::cache_control::CacheControl;

/// RFC 9213: fields that speak to this cache alone.
const TARGETED: [HeaderName; 2] =
    [HeaderName::from_static("selvedge-cache-control"), HeaderName::from_static("cdn-cache-control")];

/// A lifetime in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// For responses that tell none: counted from when the origin made them.
    Default(Duration),
    /// In place of what responses tell: counted from when they arrive here. `no-store`, `private` and `no-cache` still
    /// count.
    Override(Duration),
}

/// Statuses from first to last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusMatch(pub RangeInclusive<u16>);

/// A lifetime and the responses that it is for; what is not given matches all, without `statuses` all those that RFC
/// 9110 section 15.1 lets a cache keep by itself, errors excepted.
#[derive(Clone, Debug)]
pub struct TtlRule {
    /// Any of these.
    pub statuses: Vec<StatusMatch>,
    /// The path, percent-decoded.
    pub path: Option<PathMatch>,
    /// The media type, in lower case and without parameters.
    pub content_type: Option<Glob>,
    /// What it says.
    pub ttl: Ttl,
}

impl TtlRule {
    pub(super) fn matches(&self, path: &str, response: &ResponseHeader) -> bool {
        let status = match self.statuses.as_slice() {
            [] => by_default(response.status),
            some => some.iter().any(|s| s.0.contains(&response.status.as_u16())),
        };
        status
            && self.path.as_ref().is_none_or(|p| p.matches(path))
            && self.content_type.as_ref().is_none_or(|glob| {
                let kind = response.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
                let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
                glob.matches(&String::from_utf8_lossy(&kind))
            })
    }
}

/// Statuses that a lifetime is for when it names none.
pub(super) fn by_default(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308)
}

/// Whether a field for caches like this one gives a lifetime.
pub(super) fn targeted_lifetime(headers: &HeaderMap) -> bool {
    TARGETED.iter().any(|name| headers.get_all(name).iter().any(|v| contains(v, &["max-age", "s-maxage"])))
}

/// [`policy::admits_response`] with the operator's lifetime, and without the origin's prohibitions where `force` is on.
/// What is stored shows the origin's own fields.
pub(super) fn admit(
    force: bool,
    ttl: Option<Ttl>,
    request: &request::Parts,
    response: &ResponseHeader,
    now: SystemTime,
    limits: &ResponseRules,
) -> Result<CacheMeta, NotStored> {
    // Cookies are the route's own concern: `Cookies` has decided about them.
    let limits = &ResponseRules { cookie: CookieRule::Ignore, ..*limits };
    let freed = force.then(|| unrestricted(response));
    let seen = freed.as_ref().unwrap_or(response);
    let mut meta = match (policy::admits_response(request, seen, now, limits), ttl) {
        (Ok(stored), _) => stored.meta,
        (Err(NotStored::NoLifetime), Some(ttl)) => {
            let mut told = seen.clone();
            let seconds = HeaderValue::from(ttl.duration().as_secs());
            let value = [b"max-age=", seconds.as_bytes()].concat();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                // The name is a registered one: it cannot be refused.
                let _ = told.append_header(CACHE_CONTROL, value);
            }
            policy::admits_response(request, &told, now, limits)?.meta
        }
        (Err(reason), _) => return Err(reason),
    };
    let from = match ttl {
        Some(Ttl::Override(_)) if !no_cache(&seen.headers) => Some(now),
        Some(Ttl::Default(_)) if !explicit(&seen.headers) => Some(meta.epoch()),
        _ => None,
    };
    if let (Some(from), Some(ttl)) = (from, ttl) {
        let lifetime = ttl.duration();
        // Zero has to lie before the moment: it counts as fresh itself.
        let until =
            if lifetime.is_zero() { from.checked_sub(Duration::from_secs(1)) } else { from.checked_add(lifetime) };
        let until =
            until.map(|until| if policy::ends_with_connection(&meta) { until.min(meta.fresh_until()) } else { until });
        let (revalidate, error) = (meta.stale_while_revalidate_sec(), meta.stale_if_error_sec());
        meta.update_freshness(until.unwrap_or(from), revalidate, error);
    }
    restore(&mut meta, response);
    Ok(meta)
}

/// Whether the origin gives a lifetime or asks for validation.
fn explicit(headers: &HeaderMap) -> bool {
    let cc = CacheControl::of(headers);
    cc.max_age.is_some()
        || cc.s_maxage.is_some()
        || headers.contains_key(EXPIRES)
        || targeted_lifetime(headers)
        || no_cache(headers)
}

fn no_cache(headers: &HeaderMap) -> bool {
    let targeted = TARGETED.iter().any(|name| headers.get_all(name).iter().any(|v| contains(v, &["no-cache"])));
    targeted || CacheControl::of(headers).no_cache
}

/// A copy without what forbids storing or reuse.
fn unrestricted(response: &ResponseHeader) -> ResponseHeader {
    const FORBIDDING: [&str; 4] = ["no-store", "private", "no-cache", "must-understand"];
    let mut copy = response.clone();
    copy.remove_header(&PRAGMA);
    for name in TARGETED {
        if response.headers.get_all(&name).iter().any(|v| contains(v, &FORBIDDING)) {
            copy.remove_header(&name);
        }
    }
    if response.headers.get_all(CACHE_CONTROL).iter().any(|v| contains(v, &FORBIDDING)) {
        copy.remove_header(&CACHE_CONTROL);
        for line in response.headers.get_all(CACHE_CONTROL) {
            for directive in directives(line.as_bytes()).filter(|d| !FORBIDDING.contains(&name_of(d).as_str())) {
                if let Ok(value) = HeaderValue::from_bytes(directive) {
                    let _ = copy.append_header(CACHE_CONTROL, value);
                }
            }
        }
    }
    copy
}

/// Puts the origin's own fields back.
fn restore(meta: &mut CacheMeta, response: &ResponseHeader) {
    for name in TARGETED.iter().chain([&CACHE_CONTROL, &PRAGMA]) {
        let own: Vec<&HeaderValue> = response.headers.get_all(name).iter().collect();
        if meta.headers().get_all(name).iter().eq(own.iter().copied()) {
            continue;
        }
        let head = meta.response_header_mut();
        head.remove_header(name);
        for value in own {
            let _ = head.append_header(name.clone(), value.clone());
        }
    }
}

fn contains(value: &HeaderValue, names: &[&str]) -> bool {
    directives(value.as_bytes()).any(|directive| names.contains(&name_of(directive).as_str()))
}

fn name_of(directive: &[u8]) -> String {
    let name = directive.split(|b| matches!(b, b'=' | b';')).next().unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase()
}

/// The members of a list, commas in quoted strings not counted.
fn directives(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    line.split(move |byte| {
        let separates = *byte == b',' && !quoted;
        quoted ^= *byte == b'"' && !escaped;
        escaped = quoted && *byte == b'\\' && !escaped;
        separates
    })
    .map(<[u8]>::trim_ascii)
    .filter(|directive| !directive.is_empty())
}
