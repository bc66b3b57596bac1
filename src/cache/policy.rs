//! What a shared cache may store and reuse (RFC 9111): pure functions of a request, a response and the time.
//!
//! [`admits_request`] before the look-up, [`on_hit`] for what was found, [`admits_response`] for what the origin server
//! answered, [`may_serve_stale`] where it could not be asked, and [`variance`] for `Vary` in look-up and store alike.

mod conditions;
mod freshness;
mod invalidation;
mod ranges;
mod selection;
mod storable;
mod update;
mod vary;

pub use conditions::{Precondition, is_conditional, precondition, range_applies};
pub use freshness::{LifetimeSource, current_age, stored_lifetime, time_to_live};
pub use invalidation::{Resource, describes_target, invalidated};
pub use ranges::{ContentRange, RangeSpec, StrongValidator, as_part, cut_part, part_answers, part_of};
pub use selection::{Selection, select};
pub use storable::{CookieRule, HARMLESS_VALUE, SetCookieRule};
pub use update::merge_validation;
pub use vary::{Family, family, names as vary_names, variance};

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Version, request, response};
use pingora::cache::CacheMeta;
use pingora::http::ResponseHeader;

use crate::field::cache_control::{CacheControl, SELVEDGE_CACHE_CONTROL};
use crate::field::cache_status::Forward;
use crate::field::connection;
use storable::Framing;

/// Set in the stored head of a response whose end was the end of a connection; never sent.
const UNTIL_CLOSE: HeaderName = HeaderName::from_static("selvedge-until-close");
/// Set in the stored head of a response whose content is stored in slices; never sent. See `cache::slices`.
pub const SLICES: HeaderName = HeaderName::from_static("selvedge-slices");
/// Fields of the stored form alone: whatever an origin server sends under these names is no such thing.
pub const STORED_FIELDS: [HeaderName; 4] = [UNTIL_CLOSE, SIBLING, SLICES, ranges::PART];
/// Fields that are between an origin server and this cache, or of the stored form alone, and no client gets to see.
pub const OWN_FIELDS: [HeaderName; 5] = [SELVEDGE_CACHE_CONTROL, UNTIL_CLOSE, SIBLING, SLICES, ranges::PART];
/// Marks a stored response whose content is a file that the origin keeps compressed beside the one asked for; its value
/// is the coding.
pub const SIBLING: HeaderName = HeaderName::from_static("selvedge-sibling");
/// For how many seconds a response that ended with its connection answers, whatever it says.
const UNTIL_CLOSE_MAX: u64 = 60;
/// The same for a part whose content is not as long as its `Content-Range` says.
const ODD_PART_MAX: u64 = 60;
/// The same for any other part.
const PART_MAX: u64 = 24 * 3600;
/// How far behind the moment of storing a clock may be that is not taken to have been put back.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// Bytes of the field section above which a response isn't stored; the stored form has to be read back in one piece.
pub const MAX_HEAD: usize = 64 << 10;
/// Field lines above which a response isn't stored, for the same reason.
pub const MAX_FIELDS: usize = 250;

/// What a request's directives ask of a stored response (RFC 9111 section 5.2.1). Durations are seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// The origin server has to confirm the stored response: `no-cache` or `Pragma: no-cache`.
    pub validate: bool,
    /// It has `Cookie` or `Authorization`, so that a response which sets cookies is not for it.
    pub personal: bool,
    /// Its greatest age.
    pub max_age: Option<u32>,
    /// The freshness that has to be left.
    pub min_fresh: Option<u32>,
    /// How long it may have been stale; `u32::MAX` for any time.
    pub max_stale: Option<u32>,
    /// Answer 504 rather than go forward.
    pub only_if_cached: bool,
}

impl Demand {
    /// Whether a stale response is not what it asks for, even one that is being validated.
    pub fn refuses_stale(&self) -> bool {
        self.validate || self.max_age.is_some() || self.min_fresh.is_some()
    }
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestVerdict {
    /// Look it up, with these demands.
    Lookup(Demand),
    /// Forward it, and store nothing.
    Bypass(BypassReason),
}

/// Why the cache is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BypassReason {
    /// Neither GET nor HEAD.
    Method,
    /// The request says `no-store`.
    NoStore,
    /// It has content, which is no part of the key.
    Content,
    /// It asks for another protocol.
    Upgrade,
}

impl BypassReason {
    /// A token for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::NoStore => "no-store",
            Self::Content => "content",
            Self::Upgrade => "upgrade",
        }
    }

    /// The `fwd` parameter of Cache-Status that tells it.
    pub fn forward(self) -> Forward {
        match self {
            Self::Method => Forward::Method,
            Self::NoStore | Self::Content | Self::Upgrade => Forward::Bypass,
        }
    }
}

/// Decides whether the cache has to do with this request. `Authorization` and `Range` do not keep it out: the first
/// decides only what is stored (section 3.5), the second selects from what is stored.
pub fn admits_request(request: &request::Parts) -> RequestVerdict {
    if request.method != Method::GET && request.method != Method::HEAD {
        return RequestVerdict::Bypass(BypassReason::Method);
    }
    let headers = &request.headers;
    let has_content = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length.as_bytes().trim_ascii() != b"0");
    if has_content {
        return RequestVerdict::Bypass(BypassReason::Content);
    }
    if headers.contains_key(header::UPGRADE) {
        return RequestVerdict::Bypass(BypassReason::Upgrade);
    }
    let cc = CacheControl::of_request(headers);
    if cc.no_store {
        return RequestVerdict::Bypass(BypassReason::NoStore);
    }
    RequestVerdict::Lookup(Demand {
        validate: cc.no_cache,
        personal: headers.contains_key(header::COOKIE) || headers.contains_key(header::AUTHORIZATION),
        max_age: cc.max_age,
        min_fresh: cc.min_fresh,
        max_stale: cc.max_stale,
        only_if_cached: cc.only_if_cached,
    })
}

/// Whether a stored response that was found may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HitVerdict {
    /// It is fresh, or stale within what the request allows.
    Use,
    /// It is stale: validate it.
    Stale,
    /// It is fresh, but the request refuses it: validate it.
    Refused,
    /// It must not be used, not even after a validation: fetch another.
    Unusable,
}

/// Compares a stored response with a request's demands (sections 4.2 and 5.2.1). The response's own prohibition of
/// stale answers is stronger than `max-stale`, and its `immutable` than the `max-age` of a reload (RFC 8246 section 2).
///
/// What was stored later than now has an age that nobody knows, since the clock has been put back: it is validated.
pub fn on_hit(meta: &CacheMeta, demand: &Demand, now: SystemTime) -> HitVerdict {
    if demand.personal && meta.headers().contains_key(header::SET_COOKIE) {
        return HitVerdict::Unusable;
    }
    let age = current_age(meta, now);
    let ttl = time_to_live(meta, now);
    let too_old = demand.max_age.is_some_and(|max| max == 0 || age > Duration::from_secs(max.into()));
    let fresh = ttl > 0 || meta.is_fresh(now);
    if fresh && !from_the_future(meta, now) && refused_by(meta, demand, now).is_none() {
        return HitVerdict::Use;
    }
    if ends_with_connection(meta) || part_of(meta.headers()).is_some() {
        // A validation would confirm the tag of a fragment, and bring none of what a part lacks.
        return HitVerdict::Unusable;
    }
    if fresh || from_the_future(meta, now) {
        return HitVerdict::Refused;
    }
    let allowed = demand.max_stale.is_some_and(|max| max == u32::MAX || -ttl <= i64::from(max));
    if allowed && !demand.validate && !too_old && freshness::stale_allowed(meta.headers()) {
        HitVerdict::Use
    } else {
        HitVerdict::Stale
    }
}

/// Whether the clock has been put back behind the moment of storing.
fn from_the_future(meta: &CacheMeta, now: SystemTime) -> bool {
    now.checked_add(CLOCK_TOLERANCE).is_some_and(|soon| meta.epoch().max(meta.created()) > soon)
}

/// Whether the end of the content was the end of a connection, so that it may be a fragment: it is kept for a minute at
/// most and not validated.
pub fn ends_with_connection(meta: &CacheMeta) -> bool {
    meta.headers().contains_key(UNTIL_CLOSE)
}

/// The request directive that refuses a fresh response (section 5.2.1).
pub fn refused_by(meta: &CacheMeta, demand: &Demand, now: SystemTime) -> Option<&'static str> {
    let (age, ttl) = (current_age(meta, now), time_to_live(meta, now));
    if demand.validate {
        return Some("no-cache");
    }
    // RFC 8246 section 2: what is immutable needs no validation while it is fresh, though a reload asks for one.
    let immutable = || CacheControl::of_response(meta.headers()).immutable;
    match demand.max_age {
        Some(0) if !immutable() => return Some("max-age=0"),
        Some(max) if age > Duration::from_secs(max.into()) && !immutable() => return Some("max-age"),
        _ => {}
    }
    demand.min_fresh.is_some_and(|min| ttl < i64::from(min)).then_some("min-fresh")
}

/// Why a stale response would be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleCause {
    /// It is being validated meanwhile (`stale-while-revalidate`).
    Updating,
    /// The origin server failed (`stale-if-error`, or the grace where it says nothing).
    Error,
}

/// Whether a stored response may answer although it is stale (RFC 5861; RFC 9111 section 4.2.4).
pub fn may_serve_stale(meta: &CacheMeta, now: SystemTime, cause: StaleCause) -> bool {
    freshness::stale_allowed(meta.headers())
        && !from_the_future(meta, now)
        && match cause {
            StaleCause::Updating => meta.serve_stale_while_revalidate(now),
            StaleCause::Error => meta.serve_stale_if_error(now),
        }
}

/// What storing is bound by besides RFC 9111.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseRules {
    /// Bytes of the largest content that is stored; 0: nothing is.
    pub max_object: u64,
    /// Seconds for which a stale response may answer while its origin server fails, where it neither forbids that nor
    /// has a `stale-if-error` of its own.
    pub grace: u32,
    /// What is done with a response that sets cookies.
    pub set_cookie: SetCookieRule,
    /// What is done with the response to a request that has cookies.
    pub cookie: CookieRule,
    /// From the request to the response's head: how much older it is than its `Age` says (section 4.2.3).
    pub delay: Duration,
}

/// A response that is to be stored.
#[derive(Debug)]
pub struct Stored {
    /// Its head as it is stored, and its times.
    pub meta: CacheMeta,
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The request was no GET or HEAD, and its response is not one that GET would get.
    Method,
    /// `no-store`, in the request or the response.
    NoStore,
    /// `private`.
    Private,
    /// The request had `Authorization`, and the response does not allow it expressly.
    Authorized,
    /// The request had `Cookie`, and the response is neither for everybody by its own word nor of a type that mostly is.
    Cookie,
    /// It sets a cookie.
    SetCookie,
    /// `Vary: *`, one that names what no key can have, or any on the response to a POST.
    VaryStar,
    /// A status that is not stored.
    Status,
    /// It is a part only.
    Partial,
    /// No lifetime, explicit or heuristic, and no validator.
    NoLifetime,
    /// Its end is the end of the connection, so that a truncated one would look complete.
    UnknownEnd,
    /// Its length is no number, or several.
    BadLength,
    /// Its content is larger than what is stored.
    TooLarge,
    /// Its head is larger than what is stored.
    HeadTooLarge,
    /// It is an error, and the request may have provoked it.
    UnusualRequest,
}

impl NotStored {
    /// A token for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorized => "authorization",
            Self::Cookie => "cookie",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::NoLifetime => "no-lifetime",
            Self::UnknownEnd => "unknown-end",
            Self::BadLength => "bad-length",
            Self::TooLarge => "too-large",
            Self::HeadTooLarge => "head-too-large",
            Self::UnusualRequest => "unusual-request",
        }
    }
}

/// Decides whether a response to the *client's* request may be stored (RFC 9111 section 3) and with which times.
///
/// `now` is when the response head arrived. What isn't for storing is taken out of the head: hop-by-hop fields and
/// those `Connection` names, `Proxy-*`, `Via`, and `Age`, which becomes part of the stored times.
pub fn admits_response(
    request: &request::Parts,
    response: &ResponseHeader,
    now: SystemTime,
    rules: &ResponseRules,
) -> Result<Stored, NotStored> {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Err(NotStored::Method);
    }
    admit(request, response, now, rules).map(|(stored, _)| stored)
}

/// Decides whether the response to a POST may be stored for GET (RFC 9110 section 9.3.3): its `Content-Location` is the
/// target, and it says how long it is fresh.
///
/// Beyond that it has to be a 200 of known length without `Vary` and `Set-Cookie`, to a request without cookies and
/// credentials: what one client posted is otherwise too likely its own.
pub fn admits_post(
    request: &request::Parts,
    response: &ResponseHeader,
    target: &Resource<'_>,
    now: SystemTime,
    rules: &ResponseRules,
) -> Result<Stored, NotStored> {
    let (asked, given) = (&request.headers, &response.headers);
    if request.method != Method::POST || response.status != http::StatusCode::OK || !describes_target(target, given) {
        return Err(NotStored::Method);
    }
    if asked.contains_key(header::COOKIE) || asked.contains_key(header::AUTHORIZATION) {
        return Err(NotStored::Authorized);
    }
    if given.contains_key(header::SET_COOKIE) {
        return Err(NotStored::SetCookie);
    }
    if given.contains_key(header::VARY) {
        return Err(NotStored::VaryStar);
    }
    if content_length(given)?.is_none() {
        return Err(NotStored::UnknownEnd);
    }
    match admit(request, response, now, rules)? {
        (stored, true) if stored.meta.is_fresh(now) => Ok(stored),
        _ => Err(NotStored::NoLifetime),
    }
}

/// What both share; the flag says that the lifetime is the response's own.
fn admit(
    request: &request::Parts,
    response: &ResponseHeader,
    now: SystemTime,
    rules: &ResponseRules,
) -> Result<(Stored, bool), NotStored> {
    let cc = CacheControl::of_response(&response.headers);
    allowed(request, response, &cc, rules)?;
    let until_close = storable::framing(response, rules)? == Framing::UntilClose;
    let mut times = freshness::times(response, &cc, now, rules).ok_or(NotStored::NoLifetime)?;
    let mut head = storable_head(response);
    if until_close {
        if !times.explicit {
            return Err(NotStored::UnknownEnd);
        }
        times.cap(now, Duration::from_secs(UNTIL_CLOSE_MAX));
        // A static name and value cannot be refused.
        let _ = head.insert_header(UNTIL_CLOSE, "1");
    }
    if let Some(part) = part_of(&response.headers) {
        let most = if ranges::is_odd(&part, &response.headers) { ODD_PART_MAX } else { PART_MAX };
        times.cap(now, Duration::from_secs(most));
    }
    let mut meta = CacheMeta::new(times.fresh_until, now, times.stale_while_revalidate, times.stale_if_error, head);
    meta.set_epoch_override(times.epoch);
    Ok((Stored { meta }, times.explicit))
}

/// The clauses of section 3 that need no arithmetic.
fn allowed(
    request: &request::Parts,
    response: &response::Parts,
    cc: &CacheControl,
    rules: &ResponseRules,
) -> Result<(), NotStored> {
    if storable::is_part(response) {
        return Err(NotStored::Partial);
    }
    if !storable::storable(response.status) && part_of(&response.headers).is_none() {
        return Err(NotStored::Status);
    }
    // Of `must-understand, no-store` the second is for caches that do not know the status (section 5.2.2.3).
    let no_store = cc.no_store && !(cc.must_understand && storable::understood(response.status));
    if no_store || CacheControl::of_request(&request.headers).no_store {
        return Err(NotStored::NoStore);
    }
    if cc.must_understand && !storable::understood(response.status) {
        return Err(NotStored::Status);
    }
    if cc.private {
        return Err(NotStored::Private);
    }
    let authorized = cc.public || cc.must_revalidate || cc.s_maxage.is_some();
    if request.headers.contains_key(header::AUTHORIZATION) && !authorized {
        return Err(NotStored::Authorized);
    }
    if request.headers.contains_key(header::COOKIE) && !rules.cookie.allows(&response.headers, cc) {
        return Err(NotStored::Cookie);
    }
    if !storable::allows_cookies(rules.set_cookie, request, &response.headers, cc) {
        return Err(NotStored::SetCookie);
    }
    if vary::is_unkeyable(&response.headers) {
        return Err(NotStored::VaryStar);
    }
    let error = response.status.is_client_error() || response.status.as_u16() >= 500;
    if error && storable::is_unusual(request) {
        return Err(NotStored::UnusualRequest);
    }
    Ok(())
}

/// The declared length of the content, where there is one.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, NotStored> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let digits = value.to_str().map_err(|_| NotStored::BadLength)?.trim();
            // `parse` would take a plus sign.
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(NotStored::BadLength);
            }
            digits.parse().map(Some).map_err(|_| NotStored::BadLength)
        }
        (Some(_), Some(_)) => Err(NotStored::BadLength),
    }
}

fn storable_head(response: &ResponseHeader) -> ResponseHeader {
    let mut head = response.clone();
    let mut drop: Vec<HeaderName> = connection::nominated(&head.headers);
    drop.extend(head.headers.keys().filter(|name| name.as_str().starts_with("proxy-")).cloned());
    drop.extend([header::VIA, header::AGE, UNTIL_CLOSE]);
    for name in &drop {
        head.remove_header(name);
    }
    // The stored form knows HTTP/1 only.
    head.set_version(Version::HTTP_11);
    head
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
