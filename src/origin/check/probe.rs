//! One question to one server.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use ::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, USER_AGENT};
use ::http::{Method, StatusCode, Uri};
use bytes::{BufMut, Bytes, BytesMut};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::ALPN;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use tokio::net::TcpStream;

use super::super::pool::Server;
use super::Probe;

/// As much of an answer's content is looked at.
const MOST_CONTENT: usize = 64 << 10;
/// `SERVING` of grpc.health.v1.
const SERVING: u64 = 1;

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Passed,
    /// Not within the time.
    TimedOut,
    /// No connection, or it broke.
    Unreachable(String),
    /// Another status.
    Status(u16),
    /// The content lacks what it should have.
    Content,
    /// Not what a gRPC server answers that serves.
    NotServing(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "passed"),
            Self::TimedOut => write!(f, "no answer in time"),
            Self::Unreachable(error) => write!(f, "unreachable: {error}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Content => write!(f, "the content lacks the expected text"),
            Self::NotServing(why) => write!(f, "not serving: {why}"),
        }
    }
}

/// Asks on a connection of its own: that an old one still works says nothing about new ones.
pub async fn ask(
    probe: &Probe,
    server: &Server,
    address: SocketAddr,
    origin_host: Option<&str>,
    limit: Duration,
    connector: &Connector<()>,
) -> Finding {
    let host = |own: Option<&str>| own.or(origin_host).map_or_else(|| server.handles.label.to_string(), str::to_owned);
    let peer = || {
        let mut peer = server.peer.peer(address);
        peer.options.connection_timeout = Some(limit);
        peer.options.total_connection_timeout = Some(limit);
        peer.options.max_h2_streams = 1;
        peer
    };
    match probe {
        Probe::Tcp => match TcpStream::connect(address).await {
            Ok(_) => Finding::Passed,
            Err(error) => Finding::Unreachable(error.to_string()),
        },
        Probe::Http { method, path, statuses, host: own, body } => {
            let question = Question { method, path, host: &host(own.as_deref()), message: None };
            match question.send(&peer(), connector).await {
                Ok((mut session, status)) => judge(&mut session, status, *statuses, body.as_deref()).await,
                Err(finding) => finding,
            }
        }
        Probe::Grpc { service } => {
            let mut peer = peer();
            peer.options.alpn = ALPN::H2;
            let path = "/grpc.health.v1.Health/Check";
            let message = Some(check_request(service));
            let question = Question { method: &Method::POST, path, host: &host(None), message };
            match question.send(&peer, connector).await {
                Ok((mut session, status)) => judge_grpc(&mut session, status).await,
                Err(finding) => finding,
            }
        }
    }
}

struct Question<'a> {
    method: &'a Method,
    path: &'a str,
    host: &'a str,
    /// A gRPC message.
    message: Option<Bytes>,
}

impl Question<'_> {
    async fn send(self, peer: &HttpPeer, connector: &Connector<()>) -> Result<(HttpSession<()>, StatusCode), Finding> {
        let unreachable = |error: Box<pingora::Error>| Finding::Unreachable(error.to_string());
        let (mut session, _) = connector.get_http_session(peer).await.map_err(unreachable)?;
        let head = self.head(matches!(session, HttpSession::H2(_)), peer.is_tls()).map_err(unreachable)?;
        session.write_request_header(Box::new(head)).await.map_err(unreachable)?;
        if let Some(message) = self.message {
            session.write_request_body(message, true).await.map_err(unreachable)?;
        }
        session.finish_request_body().await.map_err(unreachable)?;
        loop {
            session.read_response_header().await.map_err(unreachable)?;
            match session.response_header().map(|head| head.status) {
                Some(status) if status.is_informational() => {}
                Some(status) => return Ok((session, status)),
                None => return Err(Finding::Unreachable("no answer".to_owned())),
            }
        }
    }

    fn head(&self, h2: bool, tls: bool) -> pingora::Result<RequestHeader> {
        let mut head = RequestHeader::build(self.method.clone(), self.path.as_bytes(), Some(4))?;
        head.insert_header(USER_AGENT, "selvedge (health check)")?;
        if h2 {
            let uri = Uri::builder().scheme(if tls { "https" } else { "http" });
            let uri = uri.authority(self.host).path_and_query(self.path).build();
            head.set_uri(uri.map_err(|error| {
                pingora::Error::because(pingora::ErrorType::InvalidHTTPHeader, "the check's target", error)
            })?);
            head.set_version(::http::Version::HTTP_2);
        } else {
            head.insert_header(HOST, self.host)?;
            if !self.method.is_safe() {
                head.insert_header(CONTENT_LENGTH, "0")?;
            }
        }
        if self.message.is_some() {
            head.insert_header(CONTENT_TYPE, "application/grpc")?;
            head.insert_header(TE, "trailers")?;
        }
        Ok(head)
    }
}

async fn judge(
    session: &mut HttpSession<()>,
    status: StatusCode,
    (lowest, highest): (u16, u16),
    expected: Option<&str>,
) -> Finding {
    if !(lowest..=highest).contains(&status.as_u16()) {
        return Finding::Status(status.as_u16());
    }
    let Some(expected) = expected else { return Finding::Passed };
    match content(session).await {
        Ok(content) if contains(&content, expected.as_bytes()) => Finding::Passed,
        Ok(_) => Finding::Content,
        Err(error) => Finding::Unreachable(error.to_string()),
    }
}

async fn content(session: &mut HttpSession<()>) -> pingora::Result<Vec<u8>> {
    let mut content = Vec::new();
    while let Some(part) = session.read_response_body().await? {
        content.extend_from_slice(part.get(..MOST_CONTENT - content.len()).unwrap_or(&part));
        if content.len() >= MOST_CONTENT {
            break;
        }
    }
    Ok(content)
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|part| part == wanted)
}

async fn judge_grpc(session: &mut HttpSession<()>, status: StatusCode) -> Finding {
    if status != StatusCode::OK {
        return Finding::Status(status.as_u16());
    }
    // A call that fails at once has its status in the head.
    let code = |fields: &::http::HeaderMap| fields.get("grpc-status").map(|v| v.to_str().unwrap_or("2").to_owned());
    let mut failed = session.response_header().and_then(|head| code(&head.headers));
    let message = match content(session).await {
        Ok(content) => content,
        Err(error) => return Finding::Unreachable(error.to_string()),
    };
    if failed.is_none()
        && let HttpSession::H2(h2) = session
    {
        match h2.read_trailers().await {
            Ok(trailers) => failed = trailers.as_ref().and_then(code),
            Err(error) => return Finding::Unreachable(error.to_string()),
        }
    }
    match (failed.as_deref(), serving_status(&message)) {
        (Some("0"), Some(SERVING)) => Finding::Passed,
        (Some("0"), Some(status)) => Finding::NotServing(format!("status {status}")),
        (Some("0"), None) => Finding::NotServing("the message is no HealthCheckResponse".to_owned()),
        (Some(code), _) => Finding::NotServing(format!("grpc-status {code}")),
        (None, _) => Finding::NotServing("no grpc-status".to_owned()),
    }
}

/// A length-prefixed `HealthCheckRequest { string service = 1; }`.
fn check_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put(message);
    framed.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The `status` (field 1) of a length-prefixed `HealthCheckResponse`; 0 (`UNKNOWN`) where it is left out, `None` for what
/// is no such message.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (prefix, message) = framed.split_at_checked(5)?;
    let [0, length @ ..] = prefix else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let mut rest = message.get(..length)?;
    let mut status = 0;
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut rest)?,
            (_, 0) => drop(take_varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, others) = rest.split_first()?;
        *rest = others;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_framed_protobuf() {
        assert_eq!(&check_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&check_request("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = check_request(&"x".repeat(200));
        assert_eq!(&long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01]);
    }

    #[test]
    fn the_serving_status_is_found_or_the_message_is_none() {
        for (framed, expected) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Some(1)),
            (b"\0\0\0\0\x02\x08\x02", Some(2)),
            (b"\0\0\0\0\0", Some(0)),
            (b"\0\0\0\0\x06\x12\x02ab\x08\x01", Some(1)),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\0\0\0\x03\x08\x01", None),
            (b"\0\0\0\0\x01\x08", None),
            (b"\0\0\0\0\x03\x12\x7fa", None),
            (b"", None),
        ] {
            assert_eq!(serving_status(framed), expected, "{framed:?}");
        }
    }

    #[test]
    fn a_text_is_found_wherever_it_is() {
        assert!(contains(b"all ok", b"ok") && contains(b"ok", b"ok") && contains(b"", b""));
        assert!(!contains(b"o k", b"ok") && !contains(b"", b"ok"));
    }
}
