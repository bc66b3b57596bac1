//! What the phases ask the cache's rules and policy, with what they know of the request.

use super::context::RequestContext;
use super::{Edge, edge, explain};
use crate::cache::policy::{self, StrongValidator};
use crate::field::cache_status::Forward;
use pingora::cache::key::HashBinary;
use pingora::cache::{CacheMeta, NoCacheReason, RespCacheable};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

/// A variant of one group: what `Vary` and the rules select, told apart by the group. One purge takes those of all groups,
/// since they have the primary key in common.
fn tagged(variance: Option<HashBinary>, tag: &str) -> HashBinary {
    let mut text = variance.map_or_else(Vec::new, |variance| variance.to_vec());
    text.extend_from_slice(tag.as_bytes());
    xxhash_rust::xxh3::xxh3_128(&text).to_be_bytes()
}

impl Edge {
    /// Decides whether the cache takes part, and turns it on (RFC 9111 section 4).
    pub(super) fn begin_lookup(&self, session: &mut Session, ctx: &mut RequestContext) {
        let (Some(cache), Some(rule)) = (self.cache, ctx.rule.as_ref()) else {
            explain::bypassed(ctx, "off");
            return;
        };
        ctx.sequence = cache.sequence();
        if ctx.ranges.order.is_some() {
            session.cache.enable(cache, None, None, Some(cache.lock()), None);
            return;
        }
        let own_body = !session.as_downstream_mut().is_body_empty();
        let request = session.req_header();
        // A body on GET has no meaning (RFC 9110 section 9.3.1); waiting for it must not hold up those who wait for us.
        if !rule.cache || own_body || session.is_upgrade_req() {
            ctx.forward = Some(Forward::Bypass);
            let reason = if !rule.cache {
                "route"
            } else if own_body {
                "content"
            } else {
                "upgrade"
            };
            explain::bypassed(ctx, reason);
            return;
        }
        let (path, target) = ctx.target.as_ref().map_or(("/", "/"), |t| (t.path(), &*t.path_and_query));
        if ctx.off_key {
            ctx.forward = Some(Forward::Bypass);
            explain::bypassed(ctx, "rewritten");
            return;
        }
        if ctx.target.as_ref().is_some_and(|target| ctx.client.asks_elsewhere(target)) {
            ctx.forward = Some(Forward::Bypass);
            explain::bypassed(ctx, "forwarded");
            return;
        }
        if rule.rules.bypasses(&request.headers, path) {
            ctx.forward = Some(Forward::Bypass);
            explain::bypassed(ctx, "rule");
            return;
        }
        match policy::admits_request(request) {
            policy::RequestVerdict::Lookup(demand) => {
                ctx.demand = demand;
                let counted = rule.rules.key.target(target);
                ctx.counted = (*counted != *target).then(|| counted.into());
                explain::looked_up(ctx, &demand);
                session.cache.enable(cache, None, None, Some(cache.lock()), None);
            }
            policy::RequestVerdict::Bypass(reason) => {
                ctx.forward = Some(reason.forward());
                explain::bypassed(ctx, reason.as_str());
            }
        }
    }

    /// The variant that a stored response's `Vary` and the route's rules select (RFC 9111 section 4.1).
    pub(super) fn variance(
        &self,
        meta: &CacheMeta,
        ctx: &mut RequestContext,
        request: &RequestHeader,
    ) -> Option<HashBinary> {
        if ctx.ranges.order.is_some() {
            return None;
        }
        // What was found says how its siblings are told apart; a response that has none begins a family.
        let family = match ctx.family.take() {
            Some(family) if ctx.asked.is_some() => family,
            _ => policy::family(meta.headers()),
        };
        let variance = match &ctx.rule {
            Some(rule) => edge::variance(&rule.rules, meta, &request.headers, &family),
            None => policy::variance(meta.headers(), &request.headers, &family),
        };
        let tag = ctx.rule.as_ref().and_then(|rule| rule.key_tag.as_ref());
        let variance = match tag {
            Some(tag) => Some(tagged(variance, tag)),
            None => variance,
        };
        ctx.family = Some(family);
        ctx.varied |= variance.is_some();
        explain::varied(ctx, meta, variance.as_ref());
        variance
    }

    /// Decides whether a response may be stored, and for how long it is fresh (RFC 9111 section 3).
    pub(super) fn judge(
        &self,
        session: &Session,
        response: &ResponseHeader,
        ctx: &mut RequestContext,
    ) -> RespCacheable {
        if let Some(verdict) = self.early_verdict(ctx) {
            return verdict;
        }
        if ctx.replaced {
            explain::not_stored(ctx, "replaced");
            return RespCacheable::Uncacheable(NoCacheReason::Custom("replaced"));
        }
        let Some(rule) = ctx.rule.clone() else {
            return RespCacheable::Uncacheable(NoCacheReason::InternalError);
        };
        let rules = &rule.rules;
        let path = ctx.target.as_ref().map_or("/", |t| t.path());
        let limits = self.cache.map(|cache| cache.rules()).unwrap_or_default();
        let delay = ctx.asked.map(|asked| asked.elapsed()).unwrap_or_default();
        // What is stored in slices has no limit but the operator's.
        let sliced = response.headers.contains_key(policy::SLICES);
        let largest = self.cache.filter(|_| sliced).map_or(limits.max_object, |cache| cache.max_sliced());
        let limits = policy::ResponseRules { max_object: rules.max_object(largest), delay, ..limits };
        if let Some(name) =
            policy::vary_names(&response.headers).iter().find(|name| rule.headers.request.is_per_client(name))
        {
            explain::not_stored(ctx, "vary-client");
            tracing::debug!(request_id = %ctx.request_id, name, "varies by what the edge tells of the client");
            return RespCacheable::Uncacheable(NoCacheReason::OriginNotCache);
        }
        let (request, now) = (session.req_header(), self.clock.now());
        let known = session.cache.maybe_cache_meta();
        let admitted = match (ctx.confirmation.take(), known) {
            // The core merges five fields of a 304; RFC 9111 section 4.3.4 wants all.
            (Some(fields), Some(meta)) => {
                let mut merged = meta.response_header_copy();
                policy::merge_validation(&mut merged, &fields, now);
                if merged.headers.contains_key(policy::SLICES)
                    && StrongValidator::of(&merged.headers) != StrongValidator::of(meta.headers())
                {
                    // The slices there are have another validator than those to come would have.
                    return RespCacheable::Uncacheable(NoCacheReason::Custom("validator"));
                }
                rules.admit(request, path, &merged, true, now, &limits)
            }
            _ => rules.admit(request, path, response, false, now, &limits),
        };
        explain::judged(ctx, admitted.as_ref().map_err(|reason| reason.as_str()));
        match admitted {
            Ok(_) if known.is_none() && !self.used_enough(session, rules.min_uses) => {
                explain::not_stored(ctx, "min-uses");
                RespCacheable::Uncacheable(NoCacheReason::Custom("min-uses"))
            }
            Ok(meta) => RespCacheable::Cacheable(meta),
            Err(reason) => {
                tracing::debug!(request_id = %ctx.request_id, reason = reason.as_str(), "not stored");
                RespCacheable::Uncacheable(NoCacheReason::OriginNotCache)
            }
        }
    }
}
