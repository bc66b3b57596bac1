//! Freshness lifetime and current age (RFC 9111 section 4.2).

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{AGE, DATE, ETAG, EXPIRES, HeaderValue, LAST_MODIFIED};
use http::response::Parts;
use pingora::cache::CacheMeta;

use super::ResponseRules;
use crate::field::cache_control::{CacheControl, DELTA_SECONDS_MAX};
use crate::field::date;

/// A response that says nothing of its lifetime is fresh for this part of the time it has not changed for …
const HEURISTIC_FRACTION: u32 = 10;
/// … but not for longer than this.
const HEURISTIC_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a freshness lifetime was taken from (RFC 9111 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// `s-maxage`, of the field that counts for this cache.
    SMaxage,
    /// `max-age`, of the field that counts for this cache: a targeted one (RFC 9213) or `Cache-Control`.
    MaxAge,
    /// `Expires`.
    Expires,
    /// A part of the time since `Last-Modified` (section 4.2.2).
    Heuristic,
    /// `no-cache`: never fresh, whatever else it says.
    NoCache,
    /// Nothing: it is stored for its validator.
    Nothing,
    /// None of its fields gives the lifetime it is stored with: a rule or an earlier expiry does.
    Override,
}

impl LifetimeSource {
    /// A token for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::NoCache => "no-cache",
            Self::Nothing => "none",
            Self::Override => "override",
        }
    }
}

/// The times of a response about to be stored.
pub(super) struct Times {
    /// When its age was 0.
    pub epoch: SystemTime,
    /// Until when it is fresh; before `epoch` where it never was.
    pub fresh_until: SystemTime,
    /// Seconds.
    pub stale_while_revalidate: u32,
    /// Seconds.
    pub stale_if_error: u32,
    /// The response says how long it is fresh.
    pub explicit: bool,
}

impl Times {
    /// Shortens the time it may be used to what is given, counted from its arrival, and forbids stale answers.
    pub fn cap(&mut self, now: SystemTime, most: Duration) {
        self.fresh_until = now.checked_add(most).map_or(self.fresh_until, |end| self.fresh_until.min(end));
        (self.stale_while_revalidate, self.stale_if_error) = (0, 0);
    }
}

/// The current age of a stored response (section 4.2.3).
pub fn current_age(meta: &CacheMeta, now: SystemTime) -> Duration {
    now.duration_since(meta.epoch()).unwrap_or_default()
}

/// Seconds of freshness left, negative when it is stale: the `ttl` of Cache-Status.
pub fn time_to_live(meta: &CacheMeta, now: SystemTime) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match meta.fresh_until().duration_since(now) {
        Ok(left) => seconds(left),
        Err(past) => -seconds(past.duration()),
    }
}

/// The lifetime that a response is stored with, and what it comes from: [`lifetime`] of the stored head, unless the stored
/// times say otherwise.
pub fn stored_lifetime(meta: &CacheMeta) -> (Duration, LifetimeSource) {
    let kept = meta.fresh_until().duration_since(meta.epoch()).unwrap_or_default();
    let head = meta.response_header();
    let cc = CacheControl::of_response(&head.headers);
    let (told, source) = match lifetime(head, &cc, meta.updated()) {
        _ if cc.no_cache => (Duration::ZERO, LifetimeSource::NoCache),
        Some(found) => found,
        None => (Duration::ZERO, LifetimeSource::Nothing),
    };
    let agree = kept.abs_diff(told) <= Duration::from_secs(1);
    (kept, if agree { source } else { LifetimeSource::Override })
}

/// Whether the response lets a shared cache reuse it stale at all (section 4.2.4).
pub(super) fn stale_allowed(headers: &HeaderMap) -> bool {
    let cc = CacheControl::of_response(headers);
    !(cc.must_revalidate || cc.proxy_revalidate || cc.s_maxage.is_some() || cc.no_cache)
}

/// Works out the times; `None` where neither a lifetime nor a validator makes it worth storing.
///
/// The `grace` of the rules is the `stale-if-error` of a response that has none; a stored server error has no use for it.
pub(super) fn times(response: &Parts, cc: &CacheControl, now: SystemTime, rules: &ResponseRules) -> Option<Times> {
    let headers = &response.headers;
    // The tiers hold no time before 1970. An age that reaches back so far is one of decades all the same.
    let earliest = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let made = now.checked_sub(initial_age(headers, now, rules.delay));
    let epoch = made.filter(|made| *made > earliest).unwrap_or(earliest);
    let lifetime = match lifetime(response, cc, now) {
        Some((lifetime, _)) => lifetime,
        // Stale from the first moment, but a validation may spare the content.
        None if heuristic_status(response) && has_validator(headers) => Duration::ZERO,
        None => return None,
    };
    let never_fresh = cc.no_cache || lifetime.is_zero();
    // pingora counts the very moment of `fresh_until` as fresh, so zero has to lie before it.
    let fresh_until =
        if never_fresh { epoch.checked_sub(Duration::from_secs(1))? } else { epoch.checked_add(lifetime)? };
    let stale = stale_allowed(headers);
    let grace = if response.status.as_u16() < 500 { rules.grace } else { 0 };
    Some(Times {
        epoch,
        fresh_until,
        stale_while_revalidate: if stale { cc.stale_while_revalidate.unwrap_or(0) } else { 0 },
        stale_if_error: if stale { cc.stale_if_error.unwrap_or(grace) } else { 0 },
        explicit: cc.s_maxage.or(cc.max_age).is_some() || (!cc.targeted && headers.contains_key(EXPIRES)),
    })
}

/// The freshness lifetime by section 4.2.1's precedence, then by heuristic (section 4.2.2).
fn lifetime(response: &Parts, cc: &CacheControl, now: SystemTime) -> Option<(Duration, LifetimeSource)> {
    let headers = &response.headers;
    if let Some(seconds) = cc.s_maxage.or(cc.max_age) {
        let source = if cc.s_maxage.is_some() { LifetimeSource::SMaxage } else { LifetimeSource::MaxAge };
        return Some((Duration::from_secs(seconds.into()), source));
    }
    let date = date::single(headers, &DATE).unwrap_or(now);
    if !cc.targeted && headers.contains_key(EXPIRES) {
        // What is no date, or is repeated, is in the past (section 5.3).
        let expires = date::single(headers, &EXPIRES);
        let lifetime = expires.and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default();
        return Some((lifetime, LifetimeSource::Expires));
    }
    if cc.no_cache {
        return Some((Duration::ZERO, LifetimeSource::NoCache));
    }
    if !heuristic_status(response) && !cc.public {
        return None;
    }
    let modified = date::single(headers, &LAST_MODIFIED)?;
    let unchanged = date.duration_since(modified).ok()?;
    Some(((unchanged / HEURISTIC_FRACTION).min(HEURISTIC_MAX), LifetimeSource::Heuristic))
}

/// Statuses that are cacheable by heuristic (RFC 9110 section 15.1), of those that are stored.
fn heuristic_status(response: &Parts) -> bool {
    matches!(response.status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

fn has_validator(headers: &HeaderMap) -> bool {
    headers.contains_key(ETAG) || date::single(headers, &LAST_MODIFIED).is_some()
}

/// The age a response already has when it arrives: the greater of what its `Date` and its `Age` tell. The latter counts
/// from the request on; without it there is no cache on the way, and the origin's own time to answer is not held
/// against the response.
fn initial_age(headers: &HeaderMap, now: SystemTime, delay: Duration) -> Duration {
    let apparent = date::single(headers, &DATE)
        .and_then(|date| now.duration_since(date).ok())
        .map_or(0, |apparent| apparent.as_secs())
        .min(u64::from(DELTA_SECONDS_MAX));
    let told = headers.get(AGE).and_then(age_value).map_or(0, |age| age.saturating_add(delay.as_secs()));
    Duration::from_secs(apparent.max(told))
}

/// The first member counts; what is no number is as if it were missing (section 5.1).
fn age_value(value: &HeaderValue) -> Option<u64> {
    let first = value.to_str().ok()?.split(',').next()?.trim();
    if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(first.parse().map_or(DELTA_SECONDS_MAX.into(), |age: u64| age.min(DELTA_SECONDS_MAX.into())))
}
