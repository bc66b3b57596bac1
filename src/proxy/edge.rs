//! What all requests share: the routes in force, the cache, the log.

use super::access_log::AccessLog;
use super::context::{RequestContext, Scheme, Target};
use super::guard::{self, Refusal};
use super::plane::{Plane, RouteRule};
use super::report::RequestIds;
use super::respond::Answer;
use super::{MAX_PASSES, Phases};
use crate::cache::{self, Cache};
use crate::clock::Clock;
use crate::origin::Kind;
use crate::route::Match;
use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use pingora::apps::HttpServerOptions;
use pingora::cache::CacheKey;
use pingora::http::RequestHeader;
use pingora::proxy::{HttpProxy, Session};
use pingora::server::configuration::ServerConf;
use std::sync::Arc;
use std::time::Duration;

/// What all requests share. Reloads swap the plane; everything else lives as long as the process.
pub struct Edge {
    pub(super) plane: ArcSwap<Plane>,
    pub(super) cache: Option<&'static Cache>,
    pub(super) log: Arc<AccessLog>,
    pub(super) clock: Clock,
    pub(super) ids: RequestIds,
}

impl Edge {
    /// Puts the parts together.
    pub fn new(plane: Plane, cache: Option<&'static Cache>, log: Arc<AccessLog>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { plane: ArcSwap::from_pointee(plane), cache, log, clock, ids: RequestIds::new() })
    }

    /// Routes every request that starts from now on by `plane`; those under way keep the routes they have.
    pub fn swap_plane(&self, plane: Plane) {
        self.plane.store(Arc::new(plane));
    }

    /// The proxy core over this edge, as the listeners drive it.
    pub fn into_app(self: &Arc<Self>, threads: usize) -> Arc<HttpProxy<Phases>> {
        let conf = ServerConf { threads, max_retries: MAX_PASSES, ..ServerConf::default() };
        let mut proxy = HttpProxy::new(Phases(Arc::clone(self)), Arc::new(conf));
        proxy.handle_init_modules();
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(Duration::from_secs(180));
        proxy.server_options = Some(options);
        Arc::new(proxy)
    }

    /// The cache key of an absolute URL, by the same rules that requests go by.
    ///
    /// # Errors
    /// Why the URL has no key: not absolute, a malformed host, or a host and path that no route takes.
    pub fn key_of_url(&self, url: &str) -> Result<CacheKey, String> {
        let uri: http::Uri = url.parse().map_err(|e| format!("not a URL: {e}"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err("not an absolute http:// or https:// URL".into()),
        };
        let mut request = RequestHeader::build(Method::GET, b"/", None).map_err(|e| e.to_string())?;
        request.set_uri(uri);
        let target = guard::target(&request, scheme).map_err(|refusal| refusal.as_str().to_owned())?;
        match self.plane.load().find(target.host.as_str(), target.path()) {
            Match::Route(rule) => Ok(cache_key(rule, &target)),
            Match::NoRoute => Err(format!("no route of {} takes the path", target.host)),
            Match::UnknownHost => Err(format!("no site has the host {}", target.host)),
        }
    }

    /// The cache, where there is one.
    pub fn cache(&self) -> Option<&'static Cache> {
        self.cache
    }

    /// Parses the target, refuses what has passed here before, and finds the rule.
    ///
    /// # Errors
    /// The answer to give instead.
    pub(super) fn guard_and_route(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<Arc<RouteRule>, Answer> {
        let tls = session.digest().is_some_and(|d| d.ssl_digest.is_some());
        let scheme = if tls { Scheme::Https } else { Scheme::Http };
        let request = session.req_header();
        let target = guard::target(request, scheme).map_err(Answer::Refused)?;
        if guard::loops(&request.headers, self.ids.node()) {
            return Err(Answer::Refused(Refusal::Loop));
        }
        let rule = match self.plane.load().find(target.host.as_str(), target.path()) {
            Match::Route(rule) => Ok(Arc::clone(rule)),
            Match::NoRoute => Err(Answer::NoRoute),
            Match::UnknownHost => Err(Answer::UnknownHost),
        };
        ctx.target = Some(target);
        if let Ok(rule) = &rule {
            ctx.site = Arc::clone(&rule.site);
            ctx.rule = Some(Arc::clone(rule));
        }
        rule
    }
}

/// Refuses what the route does not allow, before anything is looked up.
pub(super) fn admit(session: &Session, ctx: &RequestContext, rule: &RouteRule) -> Result<(), Answer> {
    let request = session.req_header();
    if let Some(target) = &ctx.target
        && rule.https_redirect
        && target.scheme == Scheme::Http
    {
        // RFC 9110 section 15.4.9: 308 keeps the method, which 301 does not promise.
        let safe = matches!(request.method, Method::GET | Method::HEAD);
        let status = if safe { StatusCode::MOVED_PERMANENTLY } else { StatusCode::PERMANENT_REDIRECT };
        return Err(Answer::Redirect(status, format!("https://{}{}", target.host, target.path_and_query)));
    }
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

/// The cache key: scheme, host, port, path, and the query where the origin gets to see it.
pub(super) fn cache_key(rule: &RouteRule, target: &Target) -> CacheKey {
    let seen = match rule.origin.kind() {
        Kind::S3(_) => target.path(),
        Kind::Http(_) => &*target.path_and_query,
    };
    let port = target.port.unwrap_or(target.scheme.default_port());
    cache::key::target(target.scheme.as_str(), target.host.as_str(), port, seen.as_bytes())
}
