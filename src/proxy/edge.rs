//! What all requests share: the routes in force, the cache, the log.

use super::access_log::AccessLog;
use super::answer::Answer;
use super::context::{Posted, RequestContext};
use super::guard;
use super::headers;
use super::hot;
use super::plane::{Plane, RouteRule};
use super::purge;
use super::report::RequestIds;
use super::slices;
use super::target::{Scheme, Target};
use super::traffic::Live;
use super::wire::Front;
use super::{MAX_PASSES, Phases};
use crate::cache::key::Framed;
use crate::cache::rules::{CacheRules, UseCounter};
use crate::cache::{self, Cache, policy};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::origin::Kind;
use crate::route::Match;
use crate::types::HostName;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Method};
use pingora::apps::HttpServerOptions;
use pingora::cache::key::{CacheHashKey, HashBinary};
use pingora::cache::{CacheKey, CacheMeta};
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{HttpProxy, Session};
use pingora::server::configuration::ServerConf;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the largest answer to a POST that is kept for GET.
const MAX_POSTED: usize = 1 << 20;

/// What all requests share. Reloads swap the plane; everything else lives as long as the process.
pub struct Edge {
    pub(super) plane: ArcSwap<Plane>,
    pub(super) cache: Option<&'static Cache>,
    pub(super) log: Arc<AccessLog>,
    pub(super) clock: Clock,
    pub(super) ids: RequestIds,
    /// How often targets were asked for, where a route stores only what is asked for again.
    pub(super) uses: UseCounter,
    pub(super) purge: purge::Settings,
    /// Connections for copies of requests.
    pub(super) shadows: Arc<Connector>,
}

impl Edge {
    /// Puts the parts together.
    pub fn new(
        plane: Plane,
        cache: Option<&'static Cache>,
        log: Arc<AccessLog>,
        clock: Clock,
        purge: purge::Settings,
    ) -> Arc<Self> {
        plane.announce();
        Arc::new(Self {
            plane: ArcSwap::from_pointee(plane),
            cache,
            log,
            clock,
            ids: RequestIds::new(),
            uses: UseCounter::default(),
            purge,
            shadows: Arc::new(Connector::new(None)),
        })
    }

    /// Routes every request that starts from now on by `plane`; those under way keep the routes they have. The plane before.
    pub fn swap_plane(&self, plane: Plane) -> Arc<Plane> {
        plane.announce();
        self.plane.swap(Arc::new(plane))
    }

    /// The traffic rules in force that forward.
    pub fn traffic(&self) -> Vec<Arc<Live>> {
        self.plane.load().traffic().cloned().collect()
    }

    /// The proxy core over this edge, as the listeners drive it, and before it what answers without it.
    pub fn into_app(
        self: &Arc<Self>,
        threads: usize,
        connections: hot::Settings,
        metrics: &Metrics,
    ) -> Arc<Front<HttpProxy<Phases>>> {
        let conf = ServerConf { threads, max_retries: MAX_PASSES, ..ServerConf::default() };
        let mut proxy = HttpProxy::new(Phases(Arc::clone(self)), Arc::new(conf));
        proxy.handle_init_modules();
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        // For an answer of our own: `guard` refuses it before anything is read as a tunnel.
        options.allow_connect_method_proxying = true;
        options.h2_idle_timeout = Some(Duration::from_secs(180));
        proxy.server_options = Some(options);
        let hot = hot::Path::new(Arc::clone(self), connections, metrics);
        Arc::new(Front::new(proxy, hot))
    }

    /// The cache, where there is one.
    pub fn cache(&self) -> Option<&'static Cache> {
        self.cache
    }

    /// Whether a request that a server broke off, though it could be sent again, is to go to another one: nothing of a
    /// response has been seen, and the origin's servers stand in for each other.
    pub(super) fn goes_to_the_next(&self, session: &Session, ctx: &RequestContext, error: &pingora::Error) -> bool {
        let Some(Kind::Http(origin)) = ctx.rule.as_ref().map(|rule| rule.origin.kind()) else { return false };
        origin.tries_next()
            && *error.esource() == pingora::ErrorSource::Upstream
            && ctx.origin_time.is_none()
            && session.as_ref().response_written().is_none()
    }

    /// Counts a use of the request's target and says whether there were as many as the route wants before it stores.
    pub(super) fn used_enough(&self, session: &Session, min_uses: u8) -> bool {
        min_uses <= 1 || self.uses.count(&session.cache.cache_key().primary_bin()) >= min_uses
    }

    /// Purges what the answer to an unsafe request makes invalid (RFC 9111 section 4.4), before the client gets it, and
    /// prepares to keep that answer where it is what GET would get.
    pub(super) async fn invalidate(
        &self,
        request: &RequestHeader,
        response: &ResponseHeader,
        ctx: &mut RequestContext,
    ) {
        let (Some(cache), Some(target)) = (self.cache, &ctx.target) else { return };
        let resource = target.resource();
        let mut own = None;
        for path in policy::invalidated(&request.method, response.status, &resource, &response.headers) {
            let related = Target { path_and_query: path.into(), ..target.clone() };
            let plane = self.plane.load_full();
            let Match::Route(rule) = plane.find(related.host.as_str(), related.path()) else { continue };
            if !rule.cache {
                continue;
            }
            let of_target = related.path_and_query == target.path_and_query;
            match cache.invalidate(cache_key(rule, &related), ctx.sequence).await {
                Ok(key) if of_target => own = key,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, request_id = %ctx.request_id, "an invalidation is not on the disk");
                }
            }
        }
        // Without a key another purge may have been for something newer than this answer.
        let (Some(key), Some(rule)) = (own, &ctx.rule) else { return };
        if !rule.rules.keeps_posted(&request.headers, target.path(), response) {
            return;
        }
        let max_object = rule.rules.max_object(cache.max_object());
        let limits = policy::ResponseRules { max_object, ..cache.rules() };
        if let Ok(stored) = policy::admits_post(request, response, &resource, self.clock.now(), &limits) {
            ctx.posted = Some(Posted { key, meta: stored.meta, content: Vec::new() });
        }
    }

    /// Collects the content of an answer to keep; at its end it goes into the cache, if it is whole.
    pub(super) fn collect(&self, ctx: &mut RequestContext, body: Option<&Bytes>, end: bool) {
        let Some(posted) = &mut ctx.posted else { return };
        posted.content.extend_from_slice(body.map_or(&[], |body| body));
        if posted.content.len() > MAX_POSTED {
            ctx.posted = None;
        } else if end && let (Some(cache), Some(Posted { key, meta, content })) = (self.cache, ctx.posted.take()) {
            cache.keep(&key, &meta, content.into());
        }
    }
}

/// The target that an absolute URL names.
///
/// # Errors
/// Not absolute, or a malformed host or path.
pub(super) fn target_of_url(url: &str) -> Result<Target, String> {
    let uri: http::Uri = url.parse().map_err(|e| format!("not a URL: {e}"))?;
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => return Err("not an absolute http:// or https:// URL".into()),
    };
    let mut request = RequestHeader::build(Method::GET, b"/", None).map_err(|e| e.to_string())?;
    request.set_uri(uri);
    guard::target(&request, scheme).map_err(|refusal| refusal.as_str().to_owned())
}

/// Makes the request what the route's key is made of, and refuses what the route does not allow: the answer then.
///
/// # Errors
/// A value that no field can hold.
pub(super) fn dress(session: &mut Session, ctx: &RequestContext, rule: &RouteRule) -> pingora::Result<Option<Answer>> {
    headers::strip(session.req_header_mut(), &rule.rules);
    if let Some(compression) = &rule.compression {
        compression.negotiate(session.req_header_mut())?;
    }
    if ctx.ranges.order.is_some() {
        slices::undress(session.req_header_mut());
    }
    Ok(admit(session, rule).err())
}

/// Refuses what the route does not allow, before anything is looked up.
fn admit(session: &Session, rule: &RouteRule) -> Result<(), Answer> {
    let request = session.req_header();
    if let Kind::S3(bucket) = rule.origin.kind()
        && !bucket.allows(&request.method)
    {
        return Err(Answer::MethodNotAllowed("GET, HEAD"));
    }
    let announced =
        request.headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if rule.max_request_body.zip(announced).is_some_and(|(limit, length)| length > limit) {
        return Err(Answer::TooLarge);
    }
    Ok(())
}

/// The cache key: scheme, host, port, path, and of the query what the origin gets to see and the route's rules let count.
pub(super) fn cache_key(rule: &RouteRule, target: &Target) -> CacheKey {
    let Target { scheme, host, port, path_and_query } = target;
    with_key_parts(rule, *scheme, host, *port, path_and_query, cache::key::target_under)
}

/// The same key in memory that is lent.
pub(super) fn frame_key<'f>(
    rule: &RouteRule,
    scheme: Scheme,
    host: &HostName,
    port: Option<u16>,
    path_and_query: &str,
    framed: &'f mut Vec<u8>,
) -> Framed<'f> {
    with_key_parts(rule, scheme, host, port, path_and_query, |scheme, host, port, counts, discriminator| {
        cache::key::frame(framed, scheme, host, port, counts, discriminator)
    })
}

fn with_key_parts<R>(
    rule: &RouteRule,
    scheme: Scheme,
    host: &HostName,
    port: Option<u16>,
    path_and_query: &str,
    make: impl FnOnce(&str, &str, u16, &[u8], &[u8]) -> R,
) -> R {
    let seen = match rule.origin.kind() {
        Kind::S3(_) => path_and_query.split_once('?').map_or(path_and_query, |(path, _)| path),
        Kind::Http(_) => path_and_query,
    };
    let port = port.unwrap_or(scheme.default_port());
    let counts = rule.rules.key.target(seen);
    make(scheme.as_str(), host.as_str(), port, counts.as_bytes(), &rule.rules.discriminator())
}

/// The variant that a stored response's `Vary` and the route's rules select (RFC 9111 section 4.1).
pub(super) fn variance(
    rules: &CacheRules,
    meta: &CacheMeta,
    request: &HeaderMap,
    family: &policy::Family,
) -> Option<HashBinary> {
    let seen = rules.seen_by_origin(request);
    rules.variance(policy::variance(meta.headers(), &seen, family), request)
}
