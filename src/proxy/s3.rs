//! Where a bucket's behaviour meets the phases: which object is asked for next, and what the client gets to see.

use super::answer::Answer;
use super::context::RequestContext;
use super::respond;
use crate::origin::s3::{Attempt, S3Origin, Verdict};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, LOCATION};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};
use std::time::SystemTime;

/// The error by which a response head sends the request back through the origin phases for something else.
const ASK_AGAIN: ErrorType = ErrorType::new("asking for something else");
/// The error by which a request ends with an answer that is in the context.
const ANSWERED: ErrorType = ErrorType::new("answered without the bucket's content");

/// What a page says in place of the bucket's own error.
const NOT_GIVEN: &str = "the bucket does not give this object";

/// Rewrites and signs the request for the object that this attempt asks for.
///
/// # Errors
/// The path names no object; the answer is in `ctx`.
pub fn prepare(
    bucket: &S3Origin,
    upstream: &mut RequestHeader,
    ctx: &mut RequestContext,
    now: SystemTime,
) -> Result<()> {
    let Some(path) = ctx.path_for_origin().map(str::to_owned) else { return Ok(()) };
    let path = ctx.sibling.path().unwrap_or(path);
    let original = upstream.clone();
    loop {
        let Err(error) = bucket.prepare(upstream, &path, &ctx.attempt, now) else { return Ok(()) };
        // A path without an object is to the site what the bucket's own 404 would be.
        let verdict =
            (error.status() == StatusCode::NOT_FOUND).then(|| bucket.judge(StatusCode::NOT_FOUND, &path, &ctx.attempt));
        let status = match verdict {
            Some(Verdict::Retry(attempt)) => {
                ctx.attempt = attempt;
                *upstream = original.clone();
                continue;
            }
            Some(Verdict::Sanitise { status }) => status,
            Some(Verdict::Serve | Verdict::Redirect(_)) | None => error.status(),
        };
        ctx.answer = Some(Answer::NoObject(status, error.to_string()));
        return Err(Error::because(ANSWERED, "naming the object", error).into_down());
    }
}

/// Decides what a bucket's response head means for the site.
///
/// # Errors
/// An [`asks_again`] error when another object is to be asked for, and an [`answered`] one when the bucket's response has
/// no body whose place a page could take.
pub fn judge(bucket: &S3Origin, response: &mut ResponseHeader, ctx: &mut RequestContext) -> Result<()> {
    let Some(path) = ctx.path_for_origin().map(str::to_owned) else { return Ok(()) };
    match bucket.judge(response.status, &path, &ctx.attempt) {
        Verdict::Serve => {
            bucket.clean_response(response, &ctx.attempt);
            Ok(())
        }
        Verdict::Retry(attempt) => {
            ctx.attempt = attempt;
            Err(ask_again("asking the bucket for another object"))
        }
        Verdict::Redirect(location) => {
            response.set_status(StatusCode::FOUND)?;
            replace(response, ctx, Bytes::new())?;
            // A probe's response ends with its head, and without a length that of a connection would be its end.
            response.insert_header(CONTENT_LENGTH, 0)?;
            // The client knows the path that it asked for, and not what the bucket was asked for.
            let location = match (&ctx.origin_path, &ctx.target) {
                (Some(own), Some(target)) if location == format!("{own}/") => format!("{}/", target.path()),
                _ => location,
            };
            response.insert_header(LOCATION, with_query(location, ctx))
        }
        Verdict::Sanitise { status } if has_no_body(response, ctx) => {
            ctx.answer = Some(Answer::NoObject(status, NOT_GIVEN.to_owned()));
            let error = Error::explain(ANSWERED, "the bucket's response has no body");
            // Only what is the bucket's fault may be answered by something stale instead.
            Err(if status.is_server_error() { error.into_up() } else { error.into_down() })
        }
        Verdict::Sanitise { status } => {
            response.set_status(status)?;
            response.set_reason_phrase(None)?;
            let page = respond::page(status, NOT_GIVEN, ctx.request_id);
            replace(response, ctx, page)
        }
    }
}

/// The client's query goes with it to the directory.
fn with_query(location: String, ctx: &RequestContext) -> String {
    match ctx.target.as_ref().and_then(|t| t.path_and_query.split_once('?')) {
        Some((_, query)) => format!("{location}?{query}"),
        None => location,
    }
}

/// Whether the message ends with its head, as it does for a probe, which is a HEAD.
fn has_no_body(response: &ResponseHeader, ctx: &RequestContext) -> bool {
    let empty = response.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
    empty || ctx.attempt == Attempt::DirectoryProbe
}

/// Whether the request ends with the answer in its context, which is no failure of anyone.
pub fn answered(error: &Error) -> bool {
    *error.etype() == ANSWERED
}

/// The error that sends the request through the origin phases once more: for another object, path or range.
pub fn ask_again(reason: &'static str) -> Box<Error> {
    let mut error = Error::explain(ASK_AGAIN, reason);
    error.set_retry(true);
    error.into_up()
}

/// Whether the error only sends the request to another object.
pub fn asks_again(error: &Error) -> bool {
    *error.etype() == ASK_AGAIN
}

/// Swaps the bucket's body (XML for machines) for `page`. The answer to a directory probe has no body, since the probe is
/// a HEAD request and its response ends with the head; the length has to say so, or clients wait for the connection's end.
fn replace(response: &mut ResponseHeader, ctx: &mut RequestContext, page: Bytes) -> Result<()> {
    let names: Vec<HeaderName> =
        response.headers.keys().filter(|n| n.as_str().starts_with("x-amz-")).cloned().collect();
    for name in names.iter().chain([&CONTENT_LENGTH, &ETAG, &LAST_MODIFIED, &CONTENT_TYPE, &CACHE_CONTROL]) {
        response.remove_header(name);
    }
    for name in ["server", "accept-ranges", "content-range", "content-encoding"] {
        response.remove_header(name);
    }
    ctx.replaced = true;
    if ctx.attempt == Attempt::DirectoryProbe {
        ctx.replacement = None;
        return response.insert_header(CONTENT_LENGTH, "0");
    }
    response.insert_header(CONTENT_TYPE, "text/plain; charset=utf-8")?;
    ctx.replacement = Some(page);
    Ok(())
}
