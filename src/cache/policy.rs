//! What a shared cache may store and reuse (RFC 9111): pure functions of a request, a response and the time.
//!
//! [`admits_request`] before the look-up, [`on_hit`] for what was found, [`admits_response`] for what the origin server
//! answered, [`may_serve_stale`] where it could not be asked, and [`variance`] for `Vary` in look-up and store alike.

mod freshness;
mod update;
mod vary;

pub use freshness::{current_age, time_to_live};
pub use update::merge_validation;
pub use vary::variance;

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode, Version, request, response};
use pingora::cache::CacheMeta;
use pingora::http::ResponseHeader;

use crate::field::cache_control::CacheControl;
use crate::field::cache_status::Forward;
use crate::field::connection;

/// Bytes of the field section above which a response isn't stored; the stored form has to be read back in one piece.
pub const MAX_HEAD: usize = 64 << 10;
/// Field lines above which a response isn't stored, for the same reason.
pub const MAX_FIELDS: usize = 250;

/// What a request's directives ask of a stored response (RFC 9111 section 5.2.1). Durations are seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// The origin server has to confirm the stored response: `no-cache`, `max-age=0` or `Pragma: no-cache`.
    pub validate: bool,
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
        validate: cc.no_cache || cc.max_age == Some(0),
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
}

/// Compares a stored response with a request's demands (sections 4.2 and 5.2.1). The response's own prohibition of
/// stale answers is stronger than `max-stale`.
pub fn on_hit(meta: &CacheMeta, demand: &Demand, now: SystemTime) -> HitVerdict {
    let age = current_age(meta, now);
    let ttl = time_to_live(meta, now);
    let too_old = demand.max_age.is_some_and(|max| age > Duration::from_secs(max.into()));
    if ttl > 0 || meta.is_fresh(now) {
        let refused = demand.validate || too_old || demand.min_fresh.is_some_and(|min| ttl < i64::from(min));
        return if refused { HitVerdict::Refused } else { HitVerdict::Use };
    }
    let allowed = demand.max_stale.is_some_and(|max| max == u32::MAX || -ttl <= i64::from(max));
    if allowed && !demand.validate && !too_old && freshness::stale_allowed(meta.headers()) {
        HitVerdict::Use
    } else {
        HitVerdict::Stale
    }
}

/// Why a stale response would be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleCause {
    /// It is being validated meanwhile (`stale-while-revalidate`).
    Updating,
    /// The origin server failed (`stale-if-error`).
    Error,
}

/// Whether a stored response may answer although it is stale (RFC 5861; RFC 9111 section 4.2.4).
pub fn may_serve_stale(meta: &CacheMeta, now: SystemTime, cause: StaleCause) -> bool {
    freshness::stale_allowed(meta.headers())
        && match cause {
            StaleCause::Updating => meta.serve_stale_while_revalidate(now),
            StaleCause::Error => meta.serve_stale_if_error(now),
        }
}

/// What storing is bound by besides RFC 9111.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseRules {
    /// Bytes of the largest content that is stored; 0: nothing is.
    pub max_object: u64,
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
    /// The request was no GET or HEAD.
    Method,
    /// `no-store`, in the request or the response.
    NoStore,
    /// `private`.
    Private,
    /// The request had `Authorization`, and the response does not allow it expressly.
    Authorized,
    /// It sets a cookie.
    SetCookie,
    /// `Vary: *`.
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
}

impl NotStored {
    /// A token for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorized => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::NoLifetime => "no-lifetime",
            Self::UnknownEnd => "unknown-end",
            Self::BadLength => "bad-length",
            Self::TooLarge => "too-large",
            Self::HeadTooLarge => "head-too-large",
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
    let cc = CacheControl::of(&response.headers);
    allowed(request, response, &cc)?;
    framing(response, rules)?;
    let times = freshness::times(response, &cc, now).ok_or(NotStored::NoLifetime)?;
    let mut meta = CacheMeta::new(
        times.fresh_until,
        now,
        times.stale_while_revalidate,
        times.stale_if_error,
        storable_head(response),
    );
    meta.set_epoch_override(times.epoch);
    Ok(Stored { meta })
}

/// The clauses of section 3 that need no arithmetic.
fn allowed(request: &request::Parts, response: &response::Parts, cc: &CacheControl) -> Result<(), NotStored> {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Err(NotStored::Method);
    }
    if response.status == StatusCode::PARTIAL_CONTENT || response.headers.contains_key(header::CONTENT_RANGE) {
        return Err(NotStored::Partial);
    }
    if !understood(response.status) {
        return Err(NotStored::Status);
    }
    // Of `must-understand, no-store` the second is for caches that do not know the status (section 5.2.2.3).
    let no_store = cc.no_store && !cc.must_understand;
    if no_store || CacheControl::of_request(&request.headers).no_store {
        return Err(NotStored::NoStore);
    }
    if cc.private {
        return Err(NotStored::Private);
    }
    let authorized = cc.public || cc.must_revalidate || cc.s_maxage.is_some();
    if request.headers.contains_key(header::AUTHORIZATION) && !authorized {
        return Err(NotStored::Authorized);
    }
    if response.headers.contains_key(header::SET_COOKIE) {
        return Err(NotStored::SetCookie);
    }
    if vary::has_star(&response.headers) {
        return Err(NotStored::VaryStar);
    }
    Ok(())
}

/// Final statuses whose storing is defined. Errors that one client's odd request provokes (400, 431, …) are left out,
/// as are those that RFC 6585 forbids to store: they must not answer others.
fn understood(status: StatusCode) -> bool {
    match status.as_u16() {
        206 | 304..=306 => false,
        200..=399 => true,
        403 | 404 | 405 | 410 | 451 => true,
        500..=504 => true,
        _ => false,
    }
}

/// Whether the end of the content can be told, and whether it is small enough.
fn framing(response: &response::Parts, rules: &ResponseRules) -> Result<(), NotStored> {
    let bytes = response.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    if bytes > MAX_HEAD || response.headers.len() > MAX_FIELDS {
        return Err(NotStored::HeadTooLarge);
    }
    if rules.max_object == 0 {
        return Err(NotStored::TooLarge);
    }
    if let Some(length) = content_length(&response.headers)? {
        return if length > rules.max_object { Err(NotStored::TooLarge) } else { Ok(()) };
    }
    let framed = response.version == Version::HTTP_2
        || response.status == StatusCode::NO_CONTENT
        || response.headers.get_all(header::TRANSFER_ENCODING).iter().any(|value| {
            let last = value.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
            last.trim_ascii().eq_ignore_ascii_case(b"chunked")
        });
    if framed { Ok(()) } else { Err(NotStored::UnknownEnd) }
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
    drop.extend([header::VIA, header::AGE]);
    for name in &drop {
        head.remove_header(name);
    }
    // The stored form knows HTTP/1 only.
    head.set_version(Version::HTTP_11);
    head
}

#[cfg(test)]
mod tests;
