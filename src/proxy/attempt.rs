//! Attempts at origin servers: which one, how it went, whether there is another.

use super::context::{RequestContext, Server};
use super::edge::Edge;
use super::explain;
use super::failure::Failure;
use super::gate;
use super::plane::RouteRule;
use crate::origin::{Origin, PickError, Picked, Won};
use crate::route::settings::RouteTimeouts;
use http::{HeaderMap, StatusCode};
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use std::sync::Arc;
use std::time::Duration;

/// Servers of one origin that a request tries before it fails.
const MAX_SERVERS_TRIED: usize = 3;

/// The server to ask now, and a place on it: of the route's origin, or where there is none left, of another group of the
/// traffic rule.
///
/// # Errors
/// There is nobody left to ask; the request ends with that.
pub async fn choose(edge: &Edge, session: &mut Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
    let Some(mut rule) = ctx.rule.clone() else { return Error::e_explain(ErrorType::InternalError, "no route") };
    let mut origin = as_of_now(edge, ctx, &rule);
    let mut picked = pick(&origin, session, ctx).await;
    while picked.is_err() && gate::give_up_group(session, ctx) {
        let Some(next) = ctx.rule.clone() else { break };
        rule = next;
        origin = Arc::clone(&rule.origin);
        picked = pick(&origin, session, ctx).await;
    }
    match picked {
        Ok(mut picked) => {
            let RouteTimeouts { connect, read } = rule.settings.timeouts;
            picked.limit(connect, read);
            if session.is_upgrade_req() {
                picked.for_upgrade();
            } else if may_be_hedged(session) {
                ctx.race = origin.hedge(&mut picked, &ctx.ask);
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
        // The route's own, or that of a group of its site's rules.
        let origins = std::iter::once(route).chain(route.variants.iter().flatten()).map(|rule| &rule.origin);
        origins.into_iter().find(|origin| origin.name() == rule.origin.name()).cloned()
    };
    in_force().unwrap_or_else(|| Arc::clone(&rule.origin))
}

async fn pick(
    origin: &Origin,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> std::result::Result<Picked, PickError> {
    // The server of an attempt before is free for others.
    (ctx.lease, ctx.race) = (None, None);
    if ctx.ask.tried.is_empty() {
        let bodiless = session.as_downstream_mut().is_body_empty();
        let request = session.req_header();
        ctx.ask.key = origin.key(&request.uri, &request.headers, ctx.client.ip());
        ctx.ask.session = origin.session(&request.headers);
        ctx.ask.unrepeatable = !(bodiless && request.method.is_idempotent());
    }
    origin.pick(&ctx.ask).await
}

/// Whether a request may be asked of two servers at once: it changes nothing, and there is nothing of it but its head.
fn may_be_hedged(session: &mut Session) -> bool {
    session.req_header().method.is_safe() && session.as_downstream_mut().is_body_empty()
}

/// The server asked has answered.
pub fn answered(ctx: &mut RequestContext, status: StatusCode, fields: &HeaderMap) {
    let hedged = take_hedge(ctx);
    let (Some(rule), Some(lease), Some(asked)) = (&ctx.rule, &ctx.lease, ctx.asked) else { return };
    let took = asked.elapsed();
    rule.origin.observe_head(took);
    lease.answered(status.as_u16(), hedged.unwrap_or(took));
    rule.origin.learn(fields, lease.server().address());
    ctx.origin_time = Some(took);
    // Another server may have failed before this one answered.
    ctx.failure = None;
    explain::origin_answered(ctx, status, took);
}

/// Where a second server was asked and answered first, the request is that one's from now on; how long it took.
fn take_hedge(ctx: &mut RequestContext) -> Option<Duration> {
    let race = ctx.race.take()?;
    let won = race.take_winner();
    if let Some(second) = race.second() {
        explain::hedged(ctx, second.address(), won.is_some());
    }
    let Won { lease, took, first_had, first_failed } = won?;
    let server = lease.server();
    ctx.server = Some(Server { id: server, address: server.address() });
    match ctx.lease.replace(lease) {
        Some(first) if first_failed => first.failed(),
        Some(first) => first.outpaced(first_had),
        None => {}
    }
    Some(took)
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
    ctx.ask.tried.extend(ctx.race.take().and_then(|race| race.second_failed()));
}

/// Whether one more server may be asked: only so many for a request, and within the origin's budget.
pub fn may_go_on(ctx: &RequestContext) -> bool {
    let Some(rule) = &ctx.rule else { return false };
    ctx.ask.tried.len() < MAX_SERVERS_TRIED && rule.origin.may_retry()
}
