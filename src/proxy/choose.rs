//! Which server of which origin is asked.

use super::context::{RequestContext, Server};
use super::failure::Failure;
use super::{explain, gate};
use crate::origin::{Outcome, PickError};
use crate::route::settings::RouteTimeouts;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

/// The next server of the route's origin; where there is none left, of another group of the traffic rule.
///
/// # Errors
/// There is nobody left to ask.
pub async fn peer(session: &mut Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
    let Some(mut rule) = ctx.rule.clone() else { return Error::e_explain(ErrorType::InternalError, "no route") };
    let mut picked = rule.origin.pick(&ctx.tried).await;
    while picked.is_err() && gate::give_up_group(session, ctx) {
        let Some(next) = ctx.rule.clone() else { break };
        rule = next;
        picked = rule.origin.pick(&ctx.tried).await;
    }
    match picked {
        Ok(mut picked) => {
            let RouteTimeouts { connect, read } = rule.settings.timeouts;
            picked.limit(connect, read);
            if session.is_upgrade_req() {
                picked.for_upgrade();
            }
            ctx.server = Some(Server { id: picked.server, address: picked.address });
            explain::asked(ctx);
            Ok(Box::new(picked.peer))
        }
        Err(error) => {
            rule.origin.count_error(error.as_str());
            // Where servers were tried, the last one's failure says more than that there are no others.
            ctx.failure = ctx.failure.or(Some(match error {
                PickError::Unresolved(_) => Failure::Dns,
                PickError::Exhausted => Failure::Unavailable,
            }));
            let mut error = Error::because(ErrorType::ConnectError, "choosing a server", error);
            error.set_retry(false);
            Err(error.into_up())
        }
    }
}

/// Counts a failed attempt against its server and remembers it.
pub fn note_failure(ctx: &mut RequestContext, failure: Failure) {
    ctx.failure = Some(failure);
    explain::attempt_failed(ctx, failure);
    let (Some(rule), Some(server)) = (&ctx.rule, ctx.server) else { return };
    rule.origin.report(server.id, Outcome::Failure);
    rule.origin.count_error(failure.as_str());
    ctx.tried.push(server.id);
}
