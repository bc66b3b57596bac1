//! Between the proxy core and the client's connection, where the core's writers of response heads do other than a proxy
//! shall: they overwrite `Date` (RFC 9110 section 6.6.1 has it kept), and lose interim responses (section 15.2 has them
//! forwarded) when another head came with them, or over HTTP/2.
//!
//! HTTP/1 is served by [`hot`], and what that leaves to the core keeps the core's session over a stream of ours, which puts the origin server's `Date` into the head that goes
//! by and takes interim heads itself. HTTP/2 has a session of ours in place of the core's.

mod h1;
mod h2;
mod head;
mod session;

use super::context::RequestContext;
use super::{CLIENT_WRITE_TIMEOUT, forward, hot};
use crate::cache::policy;
use crate::field::{connection, date};
use async_trait::async_trait;
use futures::FutureExt;
pub use h1::ClientWire;
use http::header::{CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{Method, Response, StatusCode, Version};
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::http::ResponseHeader;
use pingora::protocols::http::v1::common::is_expect_continue_req;
use pingora::protocols::{ALPN, Stream};
use pingora::proxy::Session;
use pingora::server::ShutdownWatch;
use std::sync::Arc;

/// Takes connections from the listeners, chooses the protocol, and has `P` answer their requests.
pub struct Front<P> {
    proxy: Arc<P>,
    hot: hot::Path,
}

impl<P> Front<P> {
    /// In front of the proxy core, and of what answers without it.
    pub fn new(proxy: P, hot: hot::Path) -> Self {
        Self { proxy: Arc::new(proxy), hot }
    }
}

#[async_trait]
impl<P: HttpServerApp + Send + Sync + 'static> ServerApp for Front<P> {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let secure = stream.get_ssl_digest().is_some();
        let options = self.proxy.server_options();
        let h2 = match stream.selected_alpn_proto() {
            Some(ALPN::H2) => true,
            _ if secure || !options.is_some_and(|o| o.h2c) => false,
            _ => begins_h2(&mut stream).await?,
        };
        if h2 {
            h2::serve(&self.proxy, stream, shutdown.clone(), options.and_then(|o| o.h2_idle_timeout)).await;
        } else {
            hot::serve(&self.proxy, &self.hot, stream, shutdown).await;
        }
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// What a client that begins HTTP/2 without TLS sends first (RFC 9113 section 3.4).
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Interim responses of one request that are passed on: HTTP/2 has no flow control for heads.
const MAX_INTERIM: usize = 100;

async fn begins_h2(stream: &mut Stream) -> Option<bool> {
    let mut begin = [0; H2_PREFACE.len()];
    let peeked = stream.try_peek(&mut begin).await.ok()?;
    Some(peeked && begin == *H2_PREFACE)
}

/// Marks an interim head that [`forward_interim`] made, for the HTTP/2 session to tell it from the core's copy.
#[derive(Clone, Copy, Debug)]
struct Interim;

/// To be called before all else of a request.
pub fn begin(session: &mut Session) {
    // The core would write what arrives alone a second time.
    session.as_downstream_mut().set_ignore_info_resp(true);
    own_date(session);
}

/// The response has the `Date` that its origin server gave it; what is none makes place for the edge's. To be called
/// with every head that was not made here, when it is complete.
pub fn keep_date(session: &Session, head: &mut ResponseHeader) {
    let date = date::single(&head.headers, &DATE).and_then(|_| head.headers.get(DATE)).cloned();
    if date.is_none() {
        head.remove_header(&DATE);
    }
    if let Some(wire) = client_wire(session) {
        wire.set_date(date);
    }
}

/// The next response is made here, so its `Date` is, too.
pub fn own_date(session: &Session) {
    if let Some(wire) = client_wire(session) {
        wire.set_date(None);
    }
}

/// Whether the client has been given the head of its answer. An interim one is none, as 101 is.
pub fn is_answered(session: &Session) -> bool {
    let head = session.response_written();
    head.is_some_and(|head| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS)
}

/// Whether the client has been given all of its answer, as far as the head tells how much that is. What goes wrong after
/// that concerns what was to be stored, and nobody who reads.
pub fn is_whole(session: &Session) -> bool {
    let Some(head) = session.response_written().filter(|_| is_answered(session)) else { return false };
    let sent = session.body_bytes_sent() as u64;
    has_no_content(&session.req_header().method, head)
        || policy::content_length(&head.headers).is_ok_and(|declared| declared == Some(sent))
}

/// Whether a response ends with its head (RFC 9110 section 6.4.1).
fn has_no_content(method: &Method, head: &ResponseHeader) -> bool {
    *method == Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || head.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0")
}

/// Whether the answer may be over while the content that it was made from is still being fetched. HEAD is none such for the
/// core, which reads on.
pub fn may_end_early(method: &Method, head: &ResponseHeader) -> bool {
    *method != Method::HEAD && (head.status == StatusCode::PARTIAL_CONTENT || has_no_content(method, head))
}

/// Whether an HTTP/2 client has reset the stream already. What it asked for is then nobody's business, least of all the
/// origin's: a client that resets as fast as it asks would otherwise have every request forwarded.
pub fn has_left(session: &mut Session) -> bool {
    let session = session.as_downstream_mut();
    session.is_custom() && session.read_body_or_idle(true).now_or_never().is_some()
}

/// Passes an interim response on to the client at once (RFC 9110 section 15.2), but to a client of HTTP/1.0.
///
/// A client that does not take it is left for the final response to find out.
pub async fn forward_interim(session: &mut Session, head: &ResponseHeader, ctx: &mut RequestContext) {
    let over_h1 = session.as_downstream().as_http1().is_some();
    let speaks_it = session.req_header().version >= Version::HTTP_11;
    // This one the core writes, even when told to leave interim heads alone.
    let cores = over_h1 && head.status == StatusCode::CONTINUE && is_expect_continue_req(session.req_header());
    if cores || !speaks_it || ctx.interim >= MAX_INTERIM || session.is_subrequest() {
        return;
    }
    ctx.interim += 1;
    let head = interim_head(head);
    let sent = if over_h1 {
        let Some(wire) = client_wire(session) else { return };
        let wire_head = to_h1(&head);
        tokio::time::timeout(CLIENT_WRITE_TIMEOUT, wire.send_interim(&wire_head)).await.is_ok_and(|r| r.is_ok())
    } else {
        session.as_downstream_mut().write_response_header(Box::new(head)).await.is_ok()
    };
    if !sent {
        tracing::debug!(request_id = %ctx.request_id, "an interim response did not reach the client");
    }
}

/// The head as it goes on: without what is for one connection, without framing, which it cannot have, and without
/// folded values, which a proxy does not pass on (RFC 9112 section 5.2).
fn interim_head(head: &ResponseHeader) -> ResponseHeader {
    let mut fields = head.headers.clone();
    for name in connection::nominated(&fields).iter().chain([&CONTENT_LENGTH, &TRANSFER_ENCODING]) {
        fields.remove(name);
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    for (name, value) in &fields {
        if !value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            parts.headers.append(name, value.clone());
        }
    }
    parts.headers.append(http::header::VIA, forward::via(head.version));
    parts.status = head.status;
    parts.extensions.insert(Interim);
    parts.into()
}

fn to_h1(head: &ResponseHeader) -> Vec<u8> {
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut wire = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_str()).into_bytes();
    head.header_to_h1_wire(&mut wire);
    wire.extend_from_slice(b"\r\n");
    wire
}

fn client_wire(session: &Session) -> Option<&ClientWire> {
    (**session.as_downstream().stream()?).as_any().downcast_ref()
}

#[cfg(test)]
mod tests;
