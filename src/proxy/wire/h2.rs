//! A client's HTTP/2 connection: from its preface to its last stream.

use super::session::H2Session;
use h2::Reason;
use h2::server::SendResponse;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use pingora::apps::HttpServerApp;
use pingora::http::RequestHeader;
use pingora::http::authority::{RawTargetAuthority, raw_target_authority};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::authority::validate_request_authority;
use pingora::protocols::http::v2::server;
use pingora::protocols::{Digest, Stream};
use pingora::server::ShutdownWatch;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Malformed requests of one connection; the next one ends it, as the core's own limit does.
const MAX_MALFORMED: usize = 32;

/// Serves every stream of a connection with `proxy`, until the client has ended it, it was idle for `idle`, or after
/// shutdown all streams have ended.
pub async fn serve<P>(proxy: &Arc<P>, stream: Stream, mut shutdown: ShutdownWatch, idle: Option<Duration>)
where
    P: HttpServerApp + Send + Sync + 'static,
{
    let digest = Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: stream.get_timing_digest(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    });
    let mut connection = match server::handshake(stream, proxy.h2_options()).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "no HTTP/2 handshake"),
    };
    let active = Arc::new(Active::default());
    let (mut malformed, mut draining) = (0, false);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop), if !draining => {
                // Two GOAWAYs: what is on its way is still served (RFC 9113 section 6.8).
                connection.graceful_shutdown();
                draining = true;
                continue;
            }
            // This is also what moves the streams there are.
            accepted = connection.accept() => accepted,
            // A peer that is silent need not be told good-bye.
            () = active.idle_for(idle) => return,
        };
        let (request, mut respond) = match accepted {
            None => return,
            Some(Err(error)) => return tracing::debug!(%error, "HTTP/2 connection broke"),
            Some(Ok(accepted)) => accepted,
        };
        let Some((request, body)) = check(request, &mut respond) else {
            malformed += 1;
            if malformed >= MAX_MALFORMED {
                tracing::warn!(malformed, "HTTP/2 connection ended: too many malformed requests");
                return;
            }
            continue;
        };
        let session = ServerSession::new_custom(Box::new(H2Session::new(request, body, respond, digest.clone())));
        let (proxy, shutdown, busy) = (Arc::clone(proxy), shutdown.clone(), Active::start(&active));
        tokio::spawn(async move {
            let _busy = busy;
            proxy.process_new_http(session, &shutdown).await;
        });
    }
}

/// The request, if it has one reading in HTTP/1 too; otherwise it is answered or reset.
fn check(
    request: Request<h2::RecvStream>,
    respond: &mut SendResponse<bytes::Bytes>,
) -> Option<(RequestHeader, h2::RecvStream)> {
    let (parts, body) = request.into_parts();
    let request = RequestHeader::from(parts);
    match judge(&request) {
        None => return Some((request, body)),
        Some(Malformed::Message) => respond.send_reset(Reason::PROTOCOL_ERROR),
        Some(Malformed::Authority) => {
            let mut answer = Response::new(());
            *answer.status_mut() = StatusCode::BAD_REQUEST;
            // The client may have reset the stream already.
            let _ = respond.send_response(answer, true);
        }
    }
    None
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Malformed {
    /// The stream is reset (RFC 9113 section 8.1.1).
    Message,
    /// It is answered 400.
    Authority,
}

fn judge(request: &RequestHeader) -> Option<Malformed> {
    let target = request.raw_path();
    if target.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r' | b' ')) || !has_one_length(&request.headers) {
        return Some(Malformed::Message);
    }
    if request.method == Method::CONNECT {
        // Has no path; the core refuses the method.
        return None;
    }
    let unnamed = request.uri.authority().is_none() && !request.headers.contains_key(HOST);
    let absolute = !matches!(raw_target_authority(target), RawTargetAuthority::None);
    (unnamed || absolute || validate_request_authority(request).is_err()).then_some(Malformed::Authority)
}

/// No `Content-Length`, or one, or several that agree (RFC 9110 section 8.6); and no `Transfer-Encoding`.
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            let number = std::str::from_utf8(token).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
            // A length that does not fit is none that could be kept to.
            let Some(number) = number.and_then(|t| t.parse::<usize>().ok()) else { return false };
            if length.is_some_and(|known| known != number) {
                return false;
            }
            length = Some(number);
        }
    }
    !headers.contains_key(TRANSFER_ENCODING)
}

/// Counts the streams under way.
#[derive(Default)]
struct Active {
    streams: AtomicUsize,
    last_ended: Notify,
}

impl Active {
    fn start(self: &Arc<Self>) -> Busy {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Returns when there was no stream for `limit`.
    async fn idle_for(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return pending().await };
        while self.streams.load(Ordering::Relaxed) != 0 {
            self.last_ended.notified().await;
        }
        tokio::time::sleep(limit).await;
    }
}

struct Busy(Arc<Active>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.last_ended.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_http_1_would_read_otherwise_is_malformed() {
        let request = |uri: &str, fields: &[(&str, &str)]| {
            let mut request = Request::builder().uri(uri);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            RequestHeader::from(request.body(()).unwrap().into_parts().0)
        };
        for (uri, fields, expected) in [
            ("https://a.test/x", &[][..], None),
            ("https://a.test/x", &[("host", "a.test"), ("content-length", "5, 5")], None),
            ("/x", &[("host", "a.test")], None),
            ("/x", &[], Some(Malformed::Authority)),
            ("https://a.test/x", &[("host", "b.test")], Some(Malformed::Authority)),
            ("https://u@a.test/x", &[], Some(Malformed::Authority)),
            ("/x", &[("host", "a.test"), ("host", "a.test")], Some(Malformed::Authority)),
            ("https://a.test/x", &[("content-length", "5"), ("content-length", "6")], Some(Malformed::Message)),
            ("https://a.test/x", &[("content-length", "+5")], Some(Malformed::Message)),
            ("https://a.test/x", &[("content-length", "")], Some(Malformed::Message)),
            ("https://a.test/x", &[("content-length", "99999999999999999999999")], Some(Malformed::Message)),
            ("https://a.test/x", &[("transfer-encoding", "chunked")], Some(Malformed::Message)),
        ] {
            assert_eq!(judge(&request(uri, fields)), expected, "{uri} {fields:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_from_its_last_stream_on() {
        let active = Arc::new(Active::default());
        let busy = Active::start(&active);
        let limit = Duration::from_secs(10);
        assert!(tokio::time::timeout(limit * 5, active.idle_for(Some(limit))).await.is_err());
        drop(busy);
        tokio::time::timeout(limit * 2, active.idle_for(Some(limit))).await.unwrap();
        assert!(tokio::time::timeout(limit * 5, active.idle_for(None)).await.is_err());
    }
}
