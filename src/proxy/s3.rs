//! Where a bucket's behaviour meets the phases: which object is asked for next, and what the client gets to see.

use super::context::RequestContext;
use super::respond::{self, Answer};
use crate::origin::s3::{Attempt, S3Origin, Verdict};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, LOCATION};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};
use std::time::SystemTime;

/// The error by which a response head sends the request back through the origin phases for another object.
const ASK_AGAIN: ErrorType = ErrorType::new("another object of the bucket");
/// The error by which a request ends before it is sent; the answer is in the context.
const ANSWERED: ErrorType = ErrorType::new("answered without the bucket");

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
    let Some(path) = ctx.target.as_ref().map(|t| t.path().to_owned()) else { return Ok(()) };
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
/// An [`asks_again`] error when another object is to be asked for.
pub fn judge(bucket: &S3Origin, response: &mut ResponseHeader, ctx: &mut RequestContext) -> Result<()> {
    let Some(path) = ctx.target.as_ref().map(|t| t.path().to_owned()) else { return Ok(()) };
    match bucket.judge(response.status, &path, &ctx.attempt) {
        Verdict::Serve => {
            bucket.clean_response(response, &ctx.attempt);
            Ok(())
        }
        Verdict::Retry(attempt) => {
            ctx.attempt = attempt;
            let mut error = Error::explain(ASK_AGAIN, "asking the bucket for another object");
            error.set_retry(true);
            Err(error.into_up())
        }
        Verdict::Redirect(location) => {
            response.set_status(StatusCode::FOUND)?;
            replace(response, ctx, Bytes::new())?;
            response.insert_header(LOCATION, with_query(location, ctx))
        }
        Verdict::Sanitise { status } => {
            response.set_status(status)?;
            let page = respond::page(status, "the bucket does not give this object", ctx.request_id);
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
