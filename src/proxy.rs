//! The HTTP plane: the life of a request, readable top to bottom.
//!
//! [`Phases`] is what pingora's proxy core calls, in the order of the methods below; each phase is short and calls one
//! named function. Decisions are pure functions of other modules: `guard` parses, `route` routes, `cache::policy`
//! decides on storing and reuse, `origin` chooses and signs, `failure` turns causes into answers, `report` writes the
//! one access event.

mod access;
pub mod access_log;
mod answer;
mod attempt;
mod caching;
mod challenge;
mod compress;
mod context;
mod cors;
mod downstream;
mod edge;
pub mod explain;
mod failure;
mod forward;
mod gate;
mod guard;
mod handshakes;
mod headers;
mod heads;
pub mod hot;
mod htpasswd;
mod kept;
pub mod listen;
mod mirror;
mod plane;
pub mod purge;
mod ranges;
mod report;
mod respond;
mod s3;
mod sibling;
mod slices;
mod target;
pub mod traffic;
mod wire;

pub use access::Access;
pub use compress::{Coding, Compression};
pub use context::RequestContext;
pub use cors::Cors;
pub use edge::Edge;
pub use handshakes::{Handshakes, SiteCertificates, SiteNames};
pub use headers::{FieldRules, HeaderRules, Security, Template, TemplateError};
pub use htpasswd::Htpasswd;
pub use kept::Kept;
pub use mirror::Shadow;
pub use plane::{NodeRules, Plane, RouteRule, SiteHandles, SitePolicy};
pub use target::{Scheme, Target};

use crate::cache::{self, policy};
use crate::field::cache_status::Forward;
use crate::origin::Kind;
use answer::Answer;
use async_trait::async_trait;
use bytes::Bytes;
use failure::Failure;
use http::{Method, StatusCode};
use pingora::cache::key::HashBinary;
use pingora::cache::{CacheKey, CacheMeta, ForcedFreshness, HitHandler, RespCacheable};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, RangeType, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Upper bound on all passes of the core through the origin phases: servers tried and objects of a bucket asked for.
const MAX_PASSES: usize = 8;
/// Statuses of an origin that a stale response is better than.
const STALE_ON: [u16; 4] = [500, 502, 503, 504];
/// A client that takes no byte of its response for this long is gone.
const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// The phases of a request, as pingora's proxy core calls them.
pub struct Phases(Arc<Edge>);

#[async_trait]
impl ProxyHttp for Phases {
    type CTX = RequestContext;

    fn new_ctx(&self) -> Self::CTX {
        let edge = &self.0;
        RequestContext::new(Arc::clone(edge.plane.load().unrouted()), edge.ids.next(), edge.clock.now())
    }

    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {
        // None: each one costs every request.
    }

    /// Slices are fetched by subrequests, which need none of their own.
    fn allow_spawning_subrequest(&self, session: &Session, _: &Self::CTX) -> bool {
        self.0.cache.is_some() && !session.is_subrequest()
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<()> {
        slices::begin(session, ctx);
        // Off, the core drops a pipelined request and closes (RFC 9112 section 9.3.2 has it answered in order).
        session.set_pipelining_enabled(true);
        session.set_write_timeout(Some(CLIENT_WRITE_TIMEOUT));
        wire::begin(session);
        Ok(())
    }

    /// Guard, route, access.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        explain::begin(&self.0.plane, session, ctx);
        self.0.identify(session, ctx);
        if self.0.purge_method(session, ctx).await? {
            return Ok(true);
        }
        self.0.receive(session, ctx).await
    }

    /// Request policy (RFC 9111 section 4): whether the cache takes part at all.
    fn request_cache_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<()> {
        self.0.begin_lookup(session, ctx);
        Ok(())
    }

    fn cache_key_callback(&self, _: &Session, ctx: &mut Self::CTX) -> Result<CacheKey> {
        let (Some(rule), Some(target), Some(cache)) = (&ctx.rule, &ctx.target, self.0.cache) else {
            return Error::e_explain(ErrorType::InternalError, "a request reached the cache unrouted");
        };
        let mut key = match &ctx.ranges.order {
            Some(order) => order.key(),
            None => edge::cache_key(rule, target),
        };
        // What the origin answers to this request is older than any purge from now on.
        cache.stamp(&mut key);
        if let Some(bytes) = rule.rules.max_object.filter(|_| ctx.ranges.order.is_none()) {
            cache.limit(&mut key, bytes);
        }
        explain::keyed(ctx, &key);
        Ok(key)
    }

    /// The variant that the stored response's `Vary` selects (RFC 9111 section 4.1).
    fn cache_vary_filter(&self, meta: &CacheMeta, ctx: &mut Self::CTX, request: &RequestHeader) -> Option<HashBinary> {
        self.0.variance(meta, ctx, request)
    }

    fn cache_miss(&self, session: &mut Session, ctx: &mut Self::CTX) {
        ctx.forward = Some(if ctx.varied { Forward::VaryMiss } else { Forward::UriMiss });
        session.cache.cache_miss();
    }

    /// Request directives on a stored response (RFC 9111 section 5.2.1).
    async fn cache_hit_filter(
        &self,
        session: &mut Session,
        meta: &CacheMeta,
        hit: &mut HitHandler,
        is_fresh: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<ForcedFreshness>> {
        if ctx.ranges.order.is_some() {
            // A slice is good for as long as its head, which was asked.
            return Ok(Some(ForcedFreshness::ForceFresh));
        }
        ctx.tier = Some(cache::tier_of(hit));
        let now = self.0.clock.now();
        let verdict = policy::on_hit(meta, &ctx.demand, now);
        explain::found(ctx, meta, hit, verdict, now);
        ctx.forward = match verdict {
            policy::HitVerdict::Use => None,
            policy::HitVerdict::Stale => Some(Forward::Stale),
            policy::HitVerdict::Refused | policy::HitVerdict::Unusable => Some(Forward::Request),
        };
        if verdict != policy::HitVerdict::Unusable
            && let Some(forced) = self.0.prepare(session, meta, hit, verdict == policy::HitVerdict::Use, ctx).await
        {
            return Ok(Some(forced));
        }
        Ok(match verdict {
            // Stale, and the client said how much of that it puts up with.
            policy::HitVerdict::Use => (!is_fresh).then_some(ForcedFreshness::ForceFresh),
            policy::HitVerdict::Stale => None,
            policy::HitVerdict::Refused => Some(ForcedFreshness::ForceExpired),
            policy::HitVerdict::Unusable => Some(ForcedFreshness::ForceMiss),
        })
    }

    /// Preconditions on what the cache answers with (RFC 9111 section 4.3.2).
    fn cache_not_modified_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        _: &mut Self::CTX,
    ) -> Result<bool> {
        Ok(policy::precondition(session.req_header(), response) == policy::Precondition::NotModified)
    }

    /// Ranges of what the cache answers with; a failed precondition comes first (RFC 9110 section 13.2.2).
    fn range_header_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> RangeType {
        let request = session.req_header();
        if policy::precondition(request, response) == policy::Precondition::Failed {
            respond::precondition_failed(response);
            // The one answer that the core sends without content.
            return RangeType::Invalid;
        }
        if policy::part_of(&response.headers).is_some() {
            return slices::of_part(request, response, ctx);
        }
        ranges::apply(request, response)
    }

    /// `only-if-cached` (RFC 9111 section 5.2.1.7): 504 rather than a request to the origin.
    async fn proxy_upstream_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        if wire::has_left(session) {
            return Error::e_explain(ErrorType::ConnectionClosed, "the client has left").map_err(|e| e.into_down());
        }
        // Validating in the background is for those who come later, not for the client that set it off.
        if ctx.demand.only_if_cached && !session.is_subrequest() {
            respond::write(session, ctx, &Answer::NotStored).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Origin choice.
    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        attempt::choose(&self.0, session, ctx).await
    }

    /// The request as the origin gets it; signing is last.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        upstream.remove_header(&traffic::GROUP_MARK);
        let Some(rule) = ctx.rule.clone() else { return Ok(()) };
        ctx.asked = Some(Instant::now());
        sibling::choose(&rule, session.req_header(), session.cache.enabled(), ctx);
        slices::ask(&self.0, session, upstream, ctx)?;
        match rule.origin.kind() {
            Kind::S3(bucket) => {
                sibling::address(upstream, session.cache.maybe_cache_meta(), ctx)?;
                s3::prepare(bucket, upstream, ctx, self.0.clock.now())
            }
            Kind::Http(origin) => {
                let (stored, node) = (session.cache.enabled(), self.0.ids.node());
                forward::request_to_origin(upstream, session.req_header(), ctx, origin.host(), node, stored)?;
                headers::to_origin(upstream, ctx, &rule, stored)?;
                sibling::address(upstream, session.cache.maybe_cache_meta(), ctx)
            }
        }
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        ctx.request_bytes += body.as_ref().map_or(0, |b| b.len() as u64);
        mirror::collect(&self.0, ctx, body.as_ref(), end);
        match ctx.rule.as_ref().and_then(|rule| rule.max_request_body) {
            Some(limit) if ctx.request_bytes > limit => {
                Error::e_explain(ErrorType::HTTPStatus(413), "the request body is too large").map_err(|e| e.into_down())
            }
            _ => Ok(()),
        }
    }

    /// Before the cache sees the response: per-connection fields off, a bucket's answer turned into a site's.
    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
            // The core writes some of them too late or not at all.
            wire::forward_interim(session, response, ctx).await;
            return Ok(());
        }
        self.0.take_head(session, response, ctx).await
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        if ctx.replaced {
            // The whole page goes out in place of the first piece; what follows of the origin's is swallowed.
            *body = ctx.replacement.take().or_else(|| (!end).then(Bytes::new));
        }
        if let Some(encoder) = &mut ctx.encoder {
            *body = Some(encoder.encode(body.take(), end)?);
        }
        self.0.collect(ctx, body.as_ref(), end);
        if end {
            // However long the client takes to read what is left of it.
            ctx.lease = None;
        }
        Ok(None)
    }

    /// Response policy (RFC 9111 section 3): whether it may be stored, and how long it stays fresh.
    fn response_cache_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<RespCacheable> {
        Ok(self.0.judge(session, response, ctx))
    }

    /// The last fields, on every response that came from an origin or the cache.
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        if response.status.is_informational() {
            return Ok(());
        }
        self.0.finish_head(session, response, ctx).await
    }

    /// The answer to HEAD has no content, though the cache may have asked for it by GET; nor has a 304, though the origin
    /// may have sent a 200 which is not stored. HTTP/1 writes none by itself.
    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        if session.req_header().method == Method::HEAD || ctx.bodiless {
            *body = None;
        }
        Ok(None)
    }

    /// Stale answers where a directive or RFC 5861 allows them; `error` is none while another request revalidates.
    fn should_serve_stale(&self, session: &mut Session, ctx: &mut Self::CTX, error: Option<&Error>) -> bool {
        let cause = match error {
            // Who asks for more than the stored response is waits for the new one.
            None if ctx.demand.refuses_stale() => return false,
            None => policy::StaleCause::Updating,
            // Of the statuses those that RFC 5861 section 4 calls an error.
            Some(error) if matches!(error.etype(), ErrorType::HTTPStatus(status) if !STALE_ON.contains(status)) => {
                return false;
            }
            Some(error) if *error.esource() == ErrorSource::Upstream => policy::StaleCause::Error,
            Some(_) => return false,
        };
        let now = self.0.clock.now();
        // What has to be fetched first is no answer while the origin server fails.
        let whole = !ctx.ranges.partial;
        let serves =
            whole && session.cache.maybe_cache_meta().is_some_and(|meta| policy::may_serve_stale(meta, now, cause));
        explain::stale(ctx, cause, serves);
        if serves && error.is_none() && session.cache.is_cache_lock_writer() {
            forward::as_http1(session.req_header_mut(), ctx);
        }
        serves
    }

    /// A request that was never sent may go to another server.
    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut Self::CTX,
        mut error: Box<Error>,
    ) -> Box<Error> {
        attempt::failed(ctx, failure::classify(&error));
        let more = attempt::may_go_on(ctx);
        error.set_retry(more || gate::give_up_group(session, ctx));
        error
    }

    /// A request that was sent goes out once more only when a pooled connection had died unseen and the method is
    /// idempotent with its body still at hand (RFC 9110 section 9.2.2), or when a bucket is asked for another object.
    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Self::CTX,
        reused: bool,
    ) -> Box<Error> {
        if s3::asks_again(&error) || s3::answered(&error) {
            return error;
        }
        let mut error = error.more_context(format!("origin server {}", peer._address));
        let repeatable = session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        if repeatable {
            error.retry.decide_reuse(reused);
            if !error.retry() && self.0.goes_to_the_next(session, ctx, &error) {
                attempt::failed(ctx, failure::classify(&error));
                error.set_retry(attempt::may_go_on(ctx));
                return error;
            }
        } else {
            error.set_retry(false);
        }
        let failure = failure::classify(&error);
        if failure.is_origins() && !error.retry() && *error.esource() == ErrorSource::Upstream {
            attempt::failed(ctx, failure);
        }
        error
    }

    /// Error answers.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Self::CTX) -> FailToProxy {
        if wire::is_whole(session) {
            return FailToProxy { error_code: 0, can_reuse_downstream: true };
        }
        let answer = match ctx.answer.take() {
            Some(answer) => answer,
            None => {
                let failure = ctx.failure.filter(|f| f.is_origins()).unwrap_or_else(|| failure::classify(error));
                ctx.failure = Some(failure);
                Answer::Failed(failure)
            }
        };
        let status = answer.status();
        if status.is_some() && !wire::is_answered(session) {
            // A request whose body may be half read leaves the connection unusable.
            session.set_keepalive(None);
            if let Err(error) = respond::write(session, ctx, &answer).await {
                tracing::debug!(%error, request_id = %ctx.request_id, "the client left before its error answer");
            }
        }
        FailToProxy { error_code: status.map_or(0, |s| s.as_u16()), can_reuse_downstream: false }
    }

    /// One access event, whatever happened.
    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Self::CTX) {
        report::finish(&self.0, session, error, ctx);
    }

    fn request_summary(&self, session: &Session, ctx: &Self::CTX) -> String {
        format!("request {} {}", ctx.request_id, session.as_ref().request_summary())
    }

    /// The access event carries the error; a second line for each failed request would only flood the log.
    fn suppress_error_log(&self, session: &Session, ctx: &Self::CTX, error: &Error) -> bool {
        let told = self.0.log.enabled() && ctx.failure != Some(Failure::Internal);
        told || wire::is_whole(session) || s3::answered(error) || ctx.failure == Some(Failure::ClientGone)
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Self::CTX,
        error: &Error,
        _: pingora::proxy::ProxyWarnLogContext,
    ) -> bool {
        self.0.log.enabled() || s3::asks_again(error)
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) use guard::fuzz as fuzz_target;
