//! Why a request was answered as it was: what each phase decided, told to whoever shows the debug token.
//!
//! A request with the field `Selvedge-Debug: TOKEN` carries an [`Explanation`] through the phases; each phase calls one
//! function here with the very values it acted on, and the response tells them in `Selvedge-Why`, one line of JSON
//! ([`Facts`]). For every other request each of these calls is one test of an empty `Option`. The field is taken off the
//! request before anything reads it, so it is part of no key and reaches no origin.
//!
//! Facts hold names of fields, never values of the request's; should the token turn up in a URL, it is blotted out.

mod facts;
mod text;

pub use facts::{Answered, Attempt, Facts, Found, Key, Request, Route, Ruled, Scopes, Stale, Stored, Vary};

use super::compress::Coding;
use super::context::RequestContext;
use super::failure::Failure;
use super::plane::Plane;
use crate::cache::policy::{self, Demand, HitVerdict, StaleCause};
use crate::cache::{MAX_TAG, MAX_TAGS, key, prefixes, softly_purged, tags, tier_of};
use crate::field::CacheOutcome;
use crate::field::cache_status::CacheStatus;
use crate::route::PathPattern;
use crate::route::traffic::{Action, Rule};
use crate::types::Secret;
use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::cache::key::HashBinary;
use pingora::cache::{CacheKey, CacheMeta, HitHandler};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// The request field that carries the token.
pub const DEBUG_FIELD: HeaderName = HeaderName::from_static("selvedge-debug");
/// The response field that carries the [`Facts`] as JSON.
pub const WHY_FIELD: HeaderName = HeaderName::from_static("selvedge-why");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Others that a route is chosen over are told up to so many of each kind.
const MOST_OTHERS: usize = 4;
/// Characters of a URL or path that are told.
const LONGEST: usize = 1024;

/// `[debug]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who sends it in `Selvedge-Debug` gets explanations; `None`: nobody does.
    pub token: Option<Secret>,
    /// Whether responses carry `Server-Timing` where their site does not say.
    pub server_timing: bool,
}

impl Settings {
    /// Characters that a token has at least.
    pub const LEAST_TOKEN: usize = 16;
}

/// The facts of one request, and the token that they must not contain.
#[derive(Debug)]
pub struct Explanation {
    token: Secret,
    facts: Facts,
}

/// Takes the debug field off the request; where its token is right, the request is explained from here on.
pub(super) fn begin(plane: &ArcSwap<Plane>, session: &mut Session, ctx: &mut RequestContext) {
    let mut values = session.req_header().headers.get_all(DEBUG_FIELD).iter();
    let (Some(given), more) = (values.next(), values.next()) else { return };
    let plane = plane.load();
    let token = plane.debug_token().filter(|token| more.is_none() && token.matches(given.as_bytes())).cloned();
    session.req_header_mut().remove_header(&DEBUG_FIELD);
    let Some(token) = token else { return };
    let method = session.req_header().method.to_string();
    let facts = Facts { id: ctx.request_id.to_string(), method, ..Facts::default() };
    ctx.explanation = Some(Box::new(Explanation { token, facts }));
}

/// Host and path were looked up in `plane`; what was found is in `ctx`.
pub(super) fn routed(ctx: &mut RequestContext, plane: &Plane) {
    let (Some(explanation), Some(target)) = (&mut ctx.explanation, &ctx.target) else { return };
    let url = format!("{}://{}{}", target.scheme.as_str(), target.authority(), target.path_and_query);
    explanation.facts.url = Some(cut(&url));
    let host = target.host.as_str();
    let Some(site) = plane.site(host) else { return };
    let patterns = plane.patterns_of(host);
    let routes: Vec<_> = plane.all_in(site, target.path()).collect();
    let own = patterns.first().map_or("-", |(pattern, _)| *pattern);
    let mut because = vec![host_reason(own)];
    because.extend(routes.first().map(|first| path_reason(&first.path)));
    let over_hosts =
        patterns.iter().skip(1).take(MOST_OTHERS).map(|(other, site)| format!("host {other} of site {site}"));
    let over_paths = routes.iter().skip(1).take(MOST_OTHERS);
    let over_paths = over_paths.map(|other| format!("path {} to origin {}", other.path, other.origin.name()));
    let rule = explanation.facts.route.take().and_then(|route| route.rule);
    explanation.facts.route = Some(Route {
        host: own.to_owned(),
        site: ctx.rule.as_ref().map(|rule| rule.site.name().to_string()),
        source: ctx.rule.as_ref().map(|rule| cut(&rule.source)),
        because: because.into_iter().map(Into::into).collect(),
        over: over_hosts.chain(over_paths).map(|text| cut(&text)).collect(),
        path: ctx.rule.as_ref().map(|rule| rule.path.to_string()),
        origin: ctx.rule.as_ref().map(|rule| rule.origin.name().to_string()),
        rule,
    });
    grouped(ctx);
}

/// Why a host pattern goes before those after it.
fn host_reason(pattern: &str) -> &'static str {
    match pattern {
        "-" => "default-host",
        "*" => "any-host",
        regex if regex.starts_with('~') => "first-host-regex",
        leading if leading.starts_with("*.") => "longest-leading-wildcard",
        trailing if trailing.ends_with(".*") => "longest-trailing-wildcard",
        _ => "exact-host",
    }
}

fn path_reason(path: &PathPattern) -> &'static str {
    match path {
        PathPattern::Regex(_) => "first-path-regex",
        PathPattern::Prefix(_) => "longest-prefix",
    }
}

/// A traffic rule decides.
pub(super) fn ruled(ctx: &mut RequestContext, rule: &Rule, action: &Action) {
    let Some(route) = ctx.explanation.as_mut().and_then(|e| e.facts.route.as_mut()) else { return };
    route.rule = Some(Ruled {
        name: rule.name.to_string(),
        action: action.as_str().into(),
        group: None,
        source: cut(&rule.source),
    });
}

/// Names the group that the request was given to.
fn grouped(ctx: &mut RequestContext) {
    let (Some(explanation), Some(assigned)) = (&mut ctx.explanation, &ctx.assigned) else { return };
    if let Some(rule) = explanation.facts.route.as_mut().and_then(|route| route.rule.as_mut()) {
        rule.group = Some(assigned.group().1.to_owned());
    }
}

/// The group could not be reached: another one of the rule's is asked.
pub(super) fn regrouped(ctx: &mut RequestContext) {
    grouped(ctx);
    let (Some(explanation), Some(rule)) = (&mut ctx.explanation, &ctx.rule) else { return };
    if let Some(route) = &mut explanation.facts.route {
        route.origin = Some(rule.origin.name().to_string());
    }
}

/// The cache is not asked.
pub(super) fn bypassed(ctx: &mut RequestContext, reason: &'static str) {
    let Some(explanation) = &mut ctx.explanation else { return };
    explanation.facts.request = Some(Request { lookup: false, reason: Some(reason.into()), demands: Vec::new() });
}

/// The cache is asked, with these demands.
pub(super) fn looked_up(ctx: &mut RequestContext, demand: &Demand) {
    let Some(explanation) = &mut ctx.explanation else { return };
    let seconds = |name: &str, value: Option<u32>| value.map(|seconds| format!("{name}={seconds}"));
    let max_stale = match demand.max_stale {
        Some(u32::MAX) => Some("max-stale".to_owned()),
        given => seconds("max-stale", given),
    };
    let demands = [
        (demand.validate && demand.max_age != Some(0)).then(|| "no-cache".to_owned()),
        seconds("max-age", demand.max_age),
        seconds("min-fresh", demand.min_fresh),
        max_stale,
        demand.only_if_cached.then(|| "only-if-cached".to_owned()),
    ];
    let demands = demands.into_iter().flatten().collect();
    explanation.facts.request = Some(Request { lookup: true, reason: None, demands });
}

/// The key is made. The parts are read back from the key itself.
pub(super) fn keyed(ctx: &mut RequestContext, cache_key: &CacheKey) {
    let Some(explanation) = &mut ctx.explanation else { return };
    let parts = key::parts(cache_key).unwrap_or_default();
    let text = |at: usize| cut(&String::from_utf8_lossy(parts.get(at).copied().unwrap_or_default()));
    let port = parts.get(2).and_then(|part| <[u8; 2]>::try_from(*part).ok()).map_or(0, u16::from_be_bytes);
    let path = text(3);
    let query = explanation.facts.url.as_ref().is_some_and(|url| url.contains('?')) && !path.contains('?');
    explanation.facts.key = Some(Key {
        scheme: text(0),
        host: text(1),
        port,
        path,
        query_left_out: query,
        more: parts.len().saturating_sub(4),
    });
}

/// The variant that a stored response's `Vary` selects, or that of the response being stored.
pub(super) fn varied(ctx: &mut RequestContext, meta: &CacheMeta, variance: Option<&HashBinary>) {
    let Some(explanation) = &mut ctx.explanation else { return };
    explanation.facts.vary = variance.map(|hash| Vary {
        fields: policy::vary_names(meta.headers()),
        variant: hash.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    });
}

/// A stored response was found and judged.
pub(super) fn found(
    ctx: &mut RequestContext,
    meta: &CacheMeta,
    hit: &HitHandler,
    verdict: HitVerdict,
    now: SystemTime,
) {
    let Some(explanation) = &mut ctx.explanation else { return };
    explanation.facts.found = Some(found_in(tier_of(hit).as_str(), meta, &ctx.demand, verdict, now));
    explanation.facts.scopes = scopes(&explanation.facts, meta);
}

/// What a response under the request's key is purged by.
fn scopes(facts: &Facts, meta: &CacheMeta) -> Option<Scopes> {
    let key = facts.key.as_ref()?;
    let longest = prefixes(key.path.as_bytes()).last().unwrap_or_default();
    let mut scopes = Scopes {
        host: key.host.clone(),
        prefix: format!("{}{}", key.host, String::from_utf8_lossy(longest)),
        ..Scopes::default()
    };
    for (at, tag) in tags(meta.headers()).enumerate() {
        if at >= MAX_TAGS || tag.len() > MAX_TAG {
            scopes.loose = true;
            break;
        }
        let tag = String::from_utf8_lossy(tag).into_owned();
        if !scopes.tags.contains(&tag) {
            scopes.tags.push(tag);
        }
    }
    Some(scopes)
}

fn found_in(tier: &'static str, meta: &CacheMeta, demand: &Demand, verdict: HitVerdict, now: SystemTime) -> Found {
    let (age, ttl) = (policy::current_age(meta, now), policy::time_to_live(meta, now));
    let (lifetime, source) = policy::stored_lifetime(meta);
    let refused_by = policy::refused_by(meta, demand, now).filter(|_| verdict == HitVerdict::Refused);
    Found {
        tier: tier.into(),
        age: age.as_secs(),
        ttl,
        lifetime: lifetime.as_secs(),
        lifetime_from: if softly_purged(meta) { "soft-purge" } else { source.as_str() }.into(),
        verdict: match verdict {
            HitVerdict::Use if ttl < 0 => "used-stale",
            HitVerdict::Use => "used",
            HitVerdict::Stale => "stale",
            HitVerdict::Refused => "refused",
            HitVerdict::Unusable => "unusable",
        }
        .into(),
        refused_by: refused_by.map(Into::into),
    }
}

/// The server in `ctx` is asked.
pub(super) fn asked(ctx: &mut RequestContext) {
    let (Some(explanation), Some(server)) = (&mut ctx.explanation, &ctx.server) else { return };
    explanation.facts.attempts.push(Attempt { server: server.address.to_string(), ..Attempt::default() });
}

/// The server that is asked now is asked for a sibling in `coding`.
pub(super) fn asked_for_sibling(ctx: &mut RequestContext, coding: Coding) {
    let Some(attempt) = ctx.explanation.as_mut().and_then(|e| e.facts.attempts.last_mut()) else { return };
    attempt.sibling = Some(coding.as_str().into());
}

/// The server asked last did not answer.
pub(super) fn attempt_failed(ctx: &mut RequestContext, failure: Failure) {
    let Some(attempt) = ctx.explanation.as_mut().and_then(|e| e.facts.attempts.last_mut()) else { return };
    attempt.error = Some(failure.as_str().into());
}

/// A second server was asked beside the last one; whether it answered first.
pub(super) fn hedged(ctx: &mut RequestContext, second: SocketAddr, won: bool) {
    let Some(attempts) = ctx.explanation.as_mut().map(|e| &mut e.facts.attempts) else { return };
    let hedge = Attempt { server: second.to_string(), hedge: true, outpaced: !won, ..Attempt::default() };
    // What is told of the answer goes to the last.
    match attempts.last_mut() {
        Some(first) if won => {
            first.outpaced = true;
            attempts.push(hedge);
        }
        _ => {
            let place = attempts.len().saturating_sub(1);
            attempts.insert(place, hedge);
        }
    }
}

/// The server asked last answered with this status.
pub(super) fn origin_answered(ctx: &mut RequestContext, status: StatusCode, took: Duration) {
    let Some(attempt) = ctx.explanation.as_mut().and_then(|e| e.facts.attempts.last_mut()) else { return };
    (attempt.status, attempt.milliseconds) = (Some(status.as_u16()), Some(milliseconds(took)));
}

/// The origin's response is judged for storing: what would be stored, or the reason not to.
pub(super) fn judged(ctx: &mut RequestContext, admitted: Result<&CacheMeta, &'static str>) {
    match admitted {
        Ok(meta) => {
            let Some(explanation) = &mut ctx.explanation else { return };
            let (lifetime, source) = policy::stored_lifetime(meta);
            let (lifetime, from) = (Some(lifetime.as_secs()), Some(source.as_str().into()));
            explanation.facts.stored = Some(Stored { stored: true, reason: None, lifetime, lifetime_from: from });
            explanation.facts.scopes = scopes(&explanation.facts, meta);
        }
        Err(reason) => not_stored(ctx, reason),
    }
}

/// The response is not stored.
pub(super) fn not_stored(ctx: &mut RequestContext, reason: &'static str) {
    let Some(explanation) = &mut ctx.explanation else { return };
    explanation.facts.stored = Some(Stored { reason: Some(reason.into()), ..Stored::default() });
    if explanation.facts.found.is_none() {
        explanation.facts.scopes = None;
    }
}

/// Whether the stale response may answer.
pub(super) fn stale(ctx: &mut RequestContext, cause: StaleCause, allowed: bool) {
    let Some(explanation) = &mut ctx.explanation else { return };
    let cause = match cause {
        StaleCause::Updating => "updating",
        StaleCause::Error => "error",
    };
    explanation.facts.stale = Some(Stale { cause: cause.into(), served: allowed });
}

/// The response of the origin or the cache is about to go out.
pub(super) fn answering(
    ctx: &mut RequestContext,
    response: &ResponseHeader,
    status: &CacheStatus,
    outcome: CacheOutcome,
) {
    let Some(explanation) = &mut ctx.explanation else { return };
    explanation.facts.answer = Some(Answered {
        status: response.status.as_u16(),
        cache: Some(outcome.as_str().into()),
        forward: status.forward.map(|forward| forward.as_str().into()),
        collapsed: status.collapsed,
        reason: None,
    });
}

/// Adds `Selvedge-Why` to it, and `Server-Timing` where the site wants it.
pub(super) fn tell(ctx: &RequestContext, response: &mut ResponseHeader) -> pingora::Result<()> {
    if ctx.rule.as_ref().is_some_and(|rule| rule.server_timing) {
        response.append_header(SERVER_TIMING, server_timing(ctx.outcome, ctx.origin_time))?;
    }
    if let Some(value) = ctx.explanation.as_ref().and_then(|explanation| explanation.value()) {
        response.insert_header(WHY_FIELD, value)?;
    }
    Ok(())
}

/// The edge answers by itself. `None` for requests that are not explained.
pub(super) fn own_answer(ctx: &RequestContext, status: StatusCode, reason: &str) -> Option<HeaderValue> {
    let Explanation { token, facts } = ctx.explanation.as_deref()?;
    let answer = Answered {
        status: status.as_u16(),
        forward: ctx.forward.map(|forward| forward.as_str().into()),
        reason: Some(cut(reason)),
        ..Answered::default()
    };
    Explanation { token: token.clone(), facts: Facts { answer: Some(answer), ..facts.clone() } }.value()
}

impl Explanation {
    /// One line of JSON in ASCII, without the token.
    fn value(&self) -> Option<HeaderValue> {
        let mut line = ascii(&serde_json::to_string(&self.facts).ok()?);
        let token = serde_json::to_string(self.token.expose()).ok()?;
        let token = token.trim_start_matches('"').strip_suffix('"').unwrap_or_default();
        if !token.is_empty() && line.contains(token) {
            line = line.replace(token, "***");
        }
        HeaderValue::try_from(line).ok()
    }
}

/// `cache;desc=hit`, and `origin;dur=12.3` with milliseconds where an origin was asked (W3C Server Timing).
fn server_timing(outcome: CacheOutcome, origin: Option<Duration>) -> String {
    let mut value = format!("cache;desc={outcome}");
    if let Some(took) = origin {
        let _ = write!(value, ", origin;dur={:.1}", milliseconds(took));
    }
    value
}

fn milliseconds(duration: Duration) -> f64 {
    // Tenths: what is below is noise.
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// JSON with everything escaped that a field value may not hold.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, ' '..='~') {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
