//! Answers that the edge makes itself.

use super::access::Exceeded;
use super::answer::Answer;
use super::context::RequestContext;
use super::cors::Cors;
use super::explain;
use super::failure::Failure;
use super::forward;
use super::guard::Refusal;
use super::headers;
use super::target::RequestId;
use super::wire;
use crate::cache;
use crate::cache::policy::{self, Precondition};
use crate::field::cache_status::CacheStatus;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT,
    LOCATION, SET_COOKIE, TRANSFER_ENCODING, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use std::time::Duration;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// How long the rest of a request is read that has been answered without it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Writes the answer, and reads on for a while what the client is still sending: closing on unread bytes makes the
/// client's system drop an answer that it has not read yet (RFC 9112 section 9.6).
///
/// # Errors
/// The client is gone.
pub async fn write(session: &mut Session, ctx: &RequestContext, answer: &Answer) -> Result<()> {
    let Some(status) = answer.status() else {
        if matches!(answer, Answer::Dropped) {
            session.set_keepalive(None);
            session.as_downstream_mut().shutdown().await;
        }
        return Ok(());
    };
    let (body, kind) = match answer {
        Answer::Purge(_, json) => (Bytes::from(format!("{json}\n")), HeaderValue::from_static("application/json")),
        Answer::Fixed(respond) => (respond.body.clone(), respond.content_type.clone()),
        Answer::Challenge(Some(content)) => (content.clone(), HeaderValue::from_static("text/plain")),
        Answer::UnknownHost(status, Some(page)) if status.is_server_error() => {
            (Bytes::copy_from_slice(page.as_bytes()), HeaderValue::from_static("text/html; charset=utf-8"))
        }
        _ => (page(status, &answer.reason(), ctx.request_id), HeaderValue::from_static("text/plain; charset=utf-8")),
    };
    let mut head = ResponseHeader::build(status, Some(8))?;
    // RFC 9110 section 8.6: a 204 has no length, and no content to have a type.
    if status != StatusCode::NO_CONTENT {
        head.insert_header(CONTENT_TYPE, kind)?;
        head.insert_header(CONTENT_LENGTH, body.len())?;
    }
    head.insert_header(CACHE_CONTROL, "no-store")?;
    match answer {
        Answer::Redirect(_, to) => {
            head.insert_header(LOCATION, to.as_str())?;
        }
        Answer::MethodNotAllowed(allow) => head.insert_header(ALLOW, *allow)?,
        Answer::Refused(Refusal::Trace) => head.insert_header(ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")?,
        Answer::PurgeRefused(StatusCode::UNAUTHORIZED) => {
            head.insert_header(http::header::WWW_AUTHENTICATE, "Bearer realm=\"selvedge purge\"")?;
        }
        Answer::Unauthorized(realm) => {
            head.insert_header(http::header::WWW_AUTHENTICATE, format!("Basic realm=\"{realm}\", charset=\"UTF-8\""))?;
        }
        Answer::TooMany(exceeded) => rate_fields(&mut head, exceeded)?,
        Answer::Failed(failure) => head.insert_header(PROXY_STATUS, proxy_status(*failure))?,
        _ => {}
    }
    headers::guard(ctx, &session.req_header().headers, &mut head)?;
    wire::own_date(session);
    if let Some(why) = explain::own_answer(ctx, status, &answer.reason()) {
        head.insert_header(explain::WHY_FIELD, why)?;
    }
    let head_only = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head), head_only).await?;
    // HTTP/2 has the end marked even where there is no body.
    session.write_response_body(Some(body).filter(|_| !head_only), true).await?;
    let waits = session.req_header().headers.contains_key(EXPECT);
    if !waits && !session.is_body_done() {
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        // Whether all of it came decides nothing: the answer is out.
        let _ = session.drain_request_body().await;
    }
    Ok(())
}

/// When to come back (RFC 9110 section 10.2.3), and what is allowed (draft-ietf-httpapi-ratelimit-headers).
fn rate_fields(head: &mut ResponseHeader, exceeded: &Exceeded) -> Result<()> {
    let Exceeded { limit, retry_after } = exceeded;
    head.insert_header(http::header::RETRY_AFTER, *retry_after)?;
    let window = limit.period.as_secs().max(1);
    head.insert_header("ratelimit-policy", format!("\"client\";q={};w={window}", limit.requests))?;
    head.insert_header("ratelimit", format!("\"client\";r=0;t={retry_after}"))
}

/// Answers a preflight.
///
/// # Errors
/// The client is gone.
pub async fn preflight(session: &mut Session, cors: &Cors) -> Result<()> {
    let head = cors.preflight(&session.req_header().headers)?;
    wire::own_date(session);
    session.write_response_header(Box::new(head), true).await
}

/// Whether the preconditions of the request leave a response without content. A 304 has none; a 412 is made here of what
/// has no known length yet, for which the core asks nobody about ranges and so has not heard of the 412 either.
pub fn without_content(session: &Session, response: &mut ResponseHeader) -> bool {
    if session.cache.enabled() && policy::precondition(session.req_header(), response) == Precondition::Failed {
        precondition_failed(response);
        return true;
    }
    response.status == StatusCode::NOT_MODIFIED
}

/// The last fields of a response that came from an origin or the cache: what clients do not get to see goes, what the
/// edge and the operator say is added. `age` is that of a response which has no `Age` yet and is not new.
///
/// # Errors
/// A value that no field can hold.
pub fn finish_head(
    ctx: &RequestContext,
    request: &HeaderMap,
    expose_tags: bool,
    status: &CacheStatus,
    age: Option<u64>,
    response: &mut ResponseHeader,
) -> Result<()> {
    if !expose_tags {
        for name in &cache::TAG_FIELDS {
            response.remove_header(name);
        }
    }
    for name in &policy::OWN_FIELDS {
        response.remove_header(name);
    }
    explain::tell(ctx, response)?;
    if let Some(age) = age {
        response.insert_header(AGE, age)?;
    }
    if let Ok(value) = HeaderValue::try_from(status.to_string()) {
        response.append_header("cache-status", value)?;
    }
    response.append_header(VIA, forward::via(response.version))?;
    headers::guard(ctx, request, response)?;
    headers::to_client(ctx, response)
}

/// Turns a response of the cache into the 412 that says the client's precondition failed (RFC 9110 section 15.5.13).
pub fn precondition_failed(response: &mut ResponseHeader) {
    for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_RANGE, ACCEPT_RANGES, TRANSFER_ENCODING, SET_COOKIE] {
        response.remove_header(&name);
    }
    // A length of zero cannot be refused, and neither can a status of the registry.
    let _ = response.set_status(StatusCode::PRECONDITION_FAILED);
    let _ = response.insert_header(CONTENT_LENGTH, "0");
}

/// The `Proxy-Status` member of a failure (RFC 9209 section 2).
pub fn proxy_status(failure: Failure) -> HeaderValue {
    HeaderValue::try_from(format!("selvedge; error={}", failure.as_str()))
        .unwrap_or_else(|_| HeaderValue::from_static("selvedge"))
}

/// A plain page that says what happened and gives support the id to search the logs for.
pub fn page(status: StatusCode, reason: &str, request_id: RequestId) -> Bytes {
    let phrase = status.canonical_reason().unwrap_or("Error");
    Bytes::from(format!("{} {phrase}\n\n{reason}\nrequest {request_id}\n", status.as_u16()))
}
