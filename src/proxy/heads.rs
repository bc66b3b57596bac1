//! Heads of responses: of the origin's before the cache sees it, of every answer before it leaves.

use super::context::RequestContext;
use super::edge::Edge;
use super::{attempt, compress, explain, forward, headers, report, respond, s3, sibling, wire};
use crate::cache::{self, policy};
use crate::field::date;
use crate::origin::Kind;
use http::StatusCode;
use pingora::cache::NoCacheReason;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{ErrorSource, Result};

impl Edge {
    /// Per-connection fields off, a bucket's answer turned into a site's, compression begun.
    ///
    /// # Errors
    /// Another object is to be asked for, or the answer is no use.
    pub(super) async fn take_head(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let Some(rule) = ctx.rule.clone() else { return Ok(()) };
        attempt::answered(ctx, response.status, &response.headers);
        forward::response_from_origin(response);
        headers::from_origin(response, &rule.rules);
        sibling::judge(response, ctx)?;
        self.invalidate(session.req_header(), response, ctx).await;
        if !response.headers.contains_key(http::header::DATE) {
            // RFC 9110 section 6.6.1: the time it was received, also for those it is stored for.
            response.insert_header(http::header::DATE, date::format(self.clock.now()))?;
        }
        if let Some(order) = ctx.ranges.order.clone() {
            return self.take_slice(&order, response).await;
        }
        if response.status == StatusCode::NOT_MODIFIED
            && let Some(meta) = session.cache.maybe_cache_meta()
        {
            let mut fields = response.headers.clone();
            compress::confirm(meta.headers(), &mut fields);
            ctx.confirmation = Some(fields);
        }
        if let Kind::S3(bucket) = rule.origin.kind() {
            s3::judge(bucket, response, ctx).inspect_err(|error| {
                if s3::answered(error) && *error.esource() != ErrorSource::Upstream && session.cache.enabled() {
                    // Those who wait for this answer need not take turns to get the same.
                    session.cache.disable(NoCacheReason::OriginNotCache);
                }
            })?;
        }
        sibling::dress(&rule, response, ctx)?;
        self.take_part(session, response, ctx).await?;
        let content_as_is = response.headers.contains_key(policy::SLICES);
        if let Some(compression) = rule.compression.as_ref().filter(|_| !ctx.replaced && !content_as_is) {
            // A HEAD that is looked up has become a GET.
            let content = session.req_header().method != http::Method::HEAD || session.cache.enabled();
            ctx.encoder = compression.begin(&session.req_header().headers, content, response)?;
            if ctx.encoder.is_some() {
                // What is collected is no longer what its head says.
                ctx.posted = None;
            }
        }
        Ok(())
    }

    /// The last fields, on every response that came from an origin or the cache.
    ///
    /// # Errors
    /// A value that no field can hold.
    pub(super) async fn finish_head(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        ctx.bodiless = respond::without_content(session, response);
        if response.status == StatusCode::NOT_MODIFIED {
            // Of a part that was found to be what the client has already.
            response.remove_header(&http::header::CONTENT_RANGE);
        }
        self.follow_slices(session, ctx).await;
        if wire::may_end_early(&session.req_header().method, response)
            && session.cache.miss_body_reader().is_some_and(|own| cache::is_for_readers_alone(own))
        {
            // The fetch is given up with its last reader, and the core closes the connection then: the client be told.
            session.set_keepalive(None);
        }
        if session.cache.miss_body_reader().is_some_and(|own| own.can_seek()) {
            // What stays readable from its beginning is stored at the origin's pace, not at this client's: others follow.
            session.set_proxy_tasks_enabled(true);
        }
        let (status, outcome) = report::cache_status(session, response, ctx, self.clock.now());
        ctx.outcome = outcome;
        explain::answering(ctx, response, &status, outcome);
        // What comes through the cache from an origin that is a cache itself is as old as that said. On hits the core
        // has set the field.
        let meta = session.cache.maybe_cache_meta().filter(|_| session.cache.upstream_used());
        let age = meta.map(|meta| policy::current_age(meta, self.clock.now()).as_secs()).filter(|age| *age > 0);
        let expose_tags = self.purge.expose_tags;
        respond::finish_head(ctx, &session.req_header().headers, expose_tags, &status, age, response)?;
        wire::keep_date(session, response);
        Ok(())
    }
}
