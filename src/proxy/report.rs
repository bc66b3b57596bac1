//! What is told about a request: `Cache-Status` to the client, metrics, and one access event.

use super::Edge;
use super::access_log::{Event, field_text};
use super::context::RequestContext;
use super::failure::{self, Failure};
use super::plane::{Done, RouteRule};
use super::s3;
use super::target::{RequestId, Scheme};
use super::wire;
use crate::cache::Tier;
use crate::field::CacheOutcome;
use crate::field::cache_status::{CacheStatus, Forward};
use crate::types::HostName;
use http::header::{REFERER, USER_AGENT};
use http::{HeaderName, Method, StatusCode, Version};
use pingora::Error;
use pingora::cache::CachePhase;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

/// Makes request ids: 64 random bits of the process and a counter, mixed so that neither can be guessed from the other.
pub struct RequestIds {
    node: Box<str>,
    seed: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// With a fresh seed.
    pub fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let seed = RandomState::new().hash_one("request ids");
        Self { node: format!("selvedge-{:016x}", RandomState::new().hash_one("node")).into(), seed, next: 0.into() }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        RequestId(xxhash_rust::xxh3::xxh3_128_with_seed(&count, self.seed).to_be_bytes())
    }

    /// This process's name in `CDN-Loop`.
    pub fn node(&self) -> &str {
        &self.node
    }
}

/// The member of a hit.
pub fn hit_status(ttl: Option<i64>, tier: Option<Tier>) -> CacheStatus {
    CacheStatus { ttl, detail: tier.map(Tier::as_str), ..CacheStatus::default() }
}

/// What the cache did with this response, as RFC 9211 tells it and as metrics count it.
pub fn cache_status(
    session: &Session,
    response: &ResponseHeader,
    ctx: &RequestContext,
    now: SystemTime,
) -> (CacheStatus, CacheOutcome) {
    let meta = session.cache.maybe_cache_meta();
    let ttl = meta.map(|meta| match meta.fresh_until().duration_since(now) {
        Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        Err(over) => -i64::try_from(over.duration().as_secs()).unwrap_or(i64::MAX),
    });
    let hit = hit_status(ttl, ctx.tier);
    let forwarded = |forward: Option<Forward>| CacheStatus { forward, ..CacheStatus::default() };
    match session.cache.phase() {
        CachePhase::Hit if ctx.tier == Some(Tier::Fill) => {
            let status = CacheStatus { collapsed: true, ..forwarded(Some(Forward::UriMiss)) };
            (status, CacheOutcome::Collapsed)
        }
        CachePhase::Hit if ctx.ranges.partial => {
            let status = CacheStatus { forward: Some(Forward::Partial), stored: true, ..hit };
            (status, CacheOutcome::Miss)
        }
        CachePhase::Hit => (hit, CacheOutcome::Hit),
        CachePhase::Stale | CachePhase::StaleUpdating => (hit, CacheOutcome::Stale),
        CachePhase::Revalidated | CachePhase::RevalidatedNoCache(_) => {
            let status = CacheStatus {
                forward_status: Some(304),
                stored: true,
                ttl,
                detail: ctx.tier.map(Tier::as_str),
                ..forwarded(ctx.forward.or(Some(Forward::Stale)))
            };
            (status, CacheOutcome::Revalidated)
        }
        CachePhase::Miss | CachePhase::Expired => {
            let status = CacheStatus { stored: true, ..forwarded(ctx.forward.or(Some(Forward::UriMiss))) };
            (status, CacheOutcome::Miss)
        }
        _ if ctx.forward.is_some_and(|f| f != Forward::Bypass && f != Forward::Method) => {
            let forward_status = (response.status.as_u16() == 502).then_some(502);
            (CacheStatus { forward_status, ..forwarded(ctx.forward) }, CacheOutcome::Miss)
        }
        _ => (forwarded(Some(ctx.forward.unwrap_or(Forward::Bypass))), CacheOutcome::Bypass),
    }
}

/// Counts the request and hands its event to the access log.
pub fn finish(edge: &Edge, session: &mut Session, error: Option<&Error>, ctx: &mut RequestContext) {
    if session.is_subrequest() {
        // A validation in the background: no client asked for it.
        return;
    }
    let duration = ctx.started.elapsed();
    let status = session.response_written().map(|head| head.status);
    let response_bytes = session.body_bytes_sent() as u64;
    if let Some(assigned) =
        ctx.assigned.as_ref().filter(|_| ctx.asked.is_some() || ctx.failure.is_some_and(|f| f.is_origins()))
    {
        // What the client's leaving cut short says nothing of the group.
        let failed = ctx.failure.is_some_and(|f| f.is_origins())
            || ctx.failure.is_none() && status.is_some_and(|s| s.is_server_error());
        assigned.count(!failed);
    }
    let request = session.req_header();
    ctx.site.count(&Done {
        method: &request.method,
        status,
        outcome: ctx.outcome,
        response_bytes,
        request_bytes: ctx.request_bytes,
        seconds: duration.as_secs_f64(),
    });
    if !edge.log.enabled() {
        return;
    }
    let field = |name: &HeaderName| request.headers.get(name).map(|v| field_text(v.as_bytes()));
    let error = error.filter(|error| !s3::answered(error) && !wire::is_whole(session));
    let failure = ctx.failure.or_else(|| error.map(failure::classify));
    let target = ctx.target.as_ref();
    edge.log.record(Event {
        time: ctx.started_at,
        request_id: ctx.request_id.0,
        client: ctx.client.address,
        site: ctx.site.name().clone(),
        method: request.method.clone(),
        scheme: target.map_or("http", |t| t.scheme.as_str()),
        host: target.map(|t| t.authority()).unwrap_or_default(),
        target: target.map(|t| t.path_and_query.to_string()).unwrap_or_else(|| field_text(request.raw_path())),
        // The head's version may have been changed for a request in the background.
        protocol: if session.is_http2() { "HTTP/2.0" } else { protocol(request.version) },
        status: status.map_or(0, |s| s.as_u16()),
        request_bytes: ctx.request_bytes,
        response_bytes,
        duration,
        origin_duration: ctx.origin_time,
        cache: ctx.outcome.as_str(),
        tier: ctx.tier.map(Tier::as_str),
        upstream: ctx.server.map(|s| s.address),
        origin: ctx.rule.as_ref().map(|r| r.origin.name().clone()),
        user_agent: field(&USER_AGENT),
        referer: field(&REFERER),
        tls: session.digest().and_then(|d| d.ssl_digest.as_ref()).map(|d| tls_version(&d.version)),
        error: failure.map(|f| f.as_str().to_owned()),
    });
}

/// A request that was answered before the phases.
pub struct Hit<'r> {
    /// Its rule.
    pub rule: &'r RouteRule,
    /// Its method.
    pub method: &'r Method,
    /// By which it came.
    pub scheme: Scheme,
    /// Host and, where it is not the default, port.
    pub host: &'r HostName,
    /// See `host`.
    pub port: Option<u16>,
    /// Path and query as sent.
    pub target: &'r str,
    /// `User-Agent`.
    pub user_agent: Option<&'r [u8]>,
    /// `Referer`.
    pub referer: Option<&'r [u8]>,
    /// Who asked.
    pub client: Option<SocketAddr>,
    /// The TLS version, as in [`Event`].
    pub tls: Option<&'static str>,
    /// The status sent.
    pub status: StatusCode,
    /// Where it was.
    pub tier: Tier,
    /// Body bytes sent.
    pub response_bytes: u64,
    /// When its head had been read.
    pub started: Instant,
    /// What went wrong.
    pub failure: Option<Failure>,
}

/// Counts such a request and hands its event to the access log.
pub fn finish_hit(edge: &Edge, hit: &Hit<'_>) {
    let duration = hit.started.elapsed();
    let outcome = CacheOutcome::Hit;
    hit.rule.site.count(&Done {
        method: hit.method,
        status: Some(hit.status),
        outcome,
        response_bytes: hit.response_bytes,
        request_bytes: 0,
        seconds: duration.as_secs_f64(),
    });
    if !edge.log.enabled() {
        return;
    }
    let now = edge.clock.now();
    edge.log.record(Event {
        time: now.checked_sub(duration).unwrap_or(now),
        request_id: edge.ids.next().0,
        client: hit.client,
        site: hit.rule.site.name().clone(),
        method: hit.method.clone(),
        scheme: hit.scheme.as_str(),
        host: match hit.port {
            Some(port) => format!("{}:{port}", hit.host),
            None => hit.host.as_str().to_owned(),
        },
        target: hit.target.to_owned(),
        protocol: "HTTP/1.1",
        status: hit.status.as_u16(),
        request_bytes: 0,
        response_bytes: hit.response_bytes,
        duration,
        origin_duration: None,
        cache: outcome.as_str(),
        tier: Some(hit.tier.as_str()),
        upstream: None,
        origin: Some(hit.rule.origin.name().clone()),
        user_agent: hit.user_agent.map(field_text),
        referer: hit.referer.map(field_text),
        tls: hit.tls,
        error: hit.failure.map(|f| f.as_str().to_owned()),
    });
}

/// The TLS version as [`Event`] has it.
pub fn tls_version(version: &str) -> &'static str {
    if version.contains("1.2") || version.contains("1_2") { "TLSv1.2" } else { "TLSv1.3" }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}
