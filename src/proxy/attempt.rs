//! Attempts at origin servers: which one, how it went, whether there is another.

use super::context::{RequestContext, Server};
use super::edge::Edge;
use super::explain;
use super::failure::Failure;
use super::gate;
use super::plane::RouteRule;
use crate::origin::{Origin, PickError, Picked};
use crate::route::settings::RouteTimeouts;
use http::StatusCode;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use std::sync::Arc;

/// Servers of one origin that a request tries before it fails.
const MAX_SERVERS_TRIED: usize = 3;

/// The server to ask now, and a place on it: of the route's origin, or where there is none left, of another group of the
/// traffic rule.
///
/// # Errors
/// There is nobody left to ask; the request ends with that.
pub async fn choose(edge: &Edge, session: &mut Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
    let Some(mut rule) = ctx.rule.clone() else { return Error::e_explain(ErrorType::InternalError, "no route") };
    let mut picked = pick(&as_of_now(edge, ctx, &rule), session, ctx).await;
    while picked.is_err() && gate::give_up_group(session, ctx) {
        let Some(next) = ctx.rule.clone() else { break };
        rule = next;
        picked = pick(&rule.origin, session, ctx).await;
    }
    match picked {
        Ok(mut picked) => {
            let RouteTimeouts { connect, read } = rule.settings.timeouts;
            picked.limit(connect, read);
            if session.is_upgrade_req() {
                picked.for_upgrade();
            }
            ctx.server = Some(Server { id: picked.server, address: picked.address });
            ctx.lease = Some(picked.lease);
            explain::asked(ctx);
            Ok(Box::new(picked.peer))
        }
        Err(error) => {
            rule.origin.count_error(error.as_str());
            // Where servers were tried, the last one's failure says more than that there are no others.
            ctx.failure = ctx.failure.or(Some(match error {
                PickError::Unresolved(_) => Failure::Dns,
                PickError::Exhausted => Failure::Unavailable,
                PickError::QueueFull | PickError::QueueTimeout => Failure::ConnectionLimit,
            }));
            let mut error = Error::because(ErrorType::ConnectError, "choosing a server", error);
            error.set_retry(false);
            Err(error.into_up())
        }
    }
}

/// The rule's origin; for a further attempt as the routes in force have it, where servers may have come in place of those
/// that failed since the request began.
fn as_of_now(edge: &Edge, ctx: &RequestContext, rule: &RouteRule) -> Arc<Origin> {
    let in_force = || {
        let target = ctx.target.as_ref().filter(|_| !ctx.ask.tried.is_empty())?;
        let plane = edge.plane.load();
        let route = plane.find_in(plane.site(target.host.as_str())?, target.path())?;
        (route.origin.name() == rule.origin.name()).then(|| Arc::clone(&route.origin))
    };
    in_force().unwrap_or_else(|| Arc::clone(&rule.origin))
}

async fn pick(origin: &Origin, session: &Session, ctx: &mut RequestContext) -> std::result::Result<Picked, PickError> {
    // The server of an attempt before is free for others.
    ctx.lease = None;
    if ctx.ask.tried.is_empty() {
        let request = session.req_header();
        ctx.ask.key = origin.key(&request.uri, &request.headers, ctx.client.ip());
    }
    origin.pick(&ctx.ask).await
}

/// The server asked has answered.
pub fn answered(ctx: &mut RequestContext, status: StatusCode) {
    let (Some(rule), Some(lease), Some(asked)) = (&ctx.rule, &ctx.lease, ctx.asked) else { return };
    let took = asked.elapsed();
    rule.origin.observe_head(took.as_secs_f64());
    lease.answered(status.as_u16(), took);
    ctx.origin_time = Some(took);
    // Another server may have failed before this one answered.
    ctx.failure = None;
    explain::origin_answered(ctx, status, took);
}

/// Counts a failed attempt against its server and remembers it.
pub fn failed(ctx: &mut RequestContext, failure: Failure) {
    ctx.failure = Some(failure);
    explain::attempt_failed(ctx, failure);
    let (Some(rule), Some(server)) = (&ctx.rule, ctx.server) else { return };
    if let Some(lease) = &ctx.lease {
        lease.failed();
    }
    rule.origin.count_error(failure.as_str());
    ctx.ask.tried.push(server.id);
}

/// Whether one more server may be asked: only so many for a request, and within the origin's budget.
pub fn may_go_on(ctx: &RequestContext) -> bool {
    let Some(rule) = &ctx.rule else { return false };
    ctx.ask.tried.len() < MAX_SERVERS_TRIED && rule.origin.may_retry()
}
