//! Asking the servers, and relaying the answer that begins first.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};

use ::http::Method;
use ::http::header::{CONNECTION, TRANSFER_ENCODING};
use async_trait::async_trait;
use bytes::BytesMut;
use pingora::connectors::http::Connector as Client;
use pingora::connectors::{ConnectorOptions, L4Connect};
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::VirtualSocketStream;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::lease::Lease;
use super::pipe::{Fault, Pipe};
use super::{Plan, Won};

/// What the pipe holds before the core has read it.
const PIPE: usize = 64 << 10;
/// The longest head of a request; the core's own limit for what clients send is lower.
const HEAD: usize = 256 << 10;
/// Fields of a request's head.
const FIELDS: usize = 256;
/// Idle connections that are kept for hedged requests, over all origins.
const IDLE: usize = 512;

/// Connections of hedged requests; the core's own are out of reach.
fn client() -> &'static Client<()> {
    static CLIENT: OnceLock<Client<()>> = OnceLock::new();
    CLIENT.get_or_init(|| Client::new(Some(ConnectorOptions::new(IDLE))))
}

type Connected = (HttpSession<()>, bool);
type Connecting = Pin<Box<dyn Future<Output = Result<Connected>> + Send>>;

/// Gives the core a pipe for a connection.
#[derive(Debug)]
pub(super) struct Connector(Arc<Plan>);

impl Connector {
    /// For one request.
    pub fn new(plan: Plan) -> Self {
        Self(Arc::new(plan))
    }
}

#[async_trait]
impl L4Connect for Connector {
    /// Connects to the first server, so that the core hears of a failure as it is used to; a server that takes longer than
    /// the delay is waited for at the other end of the pipe, beside a second one.
    async fn connect(&self, _: &SocketAddr) -> Result<Stream> {
        let begun = Instant::now();
        let plan = Arc::clone(&self.0);
        let peer = plan.first.clone();
        let mut connecting: Connecting = Box::pin(async move { client().get_http_session(&peer).await });
        let first: Connecting = tokio::select! {
            biased;
            connected = &mut connecting => Box::pin(std::future::ready(Ok(connected?))),
            () = sleep(plan.delay) => connecting,
        };
        let (ours, cores) = tokio::io::duplex(PIPE);
        let fault = Fault::default();
        let pipe = Pipe::new(cores, Arc::clone(&fault));
        tokio::spawn(serve(plan, first, begun, ours, fault));
        Ok(VirtualSocketStream::new(Box::new(pipe)).into())
    }
}

/// The other end of the pipe: one request, one answer. Ends with the core's interest.
async fn serve(plan: Arc<Plan>, first: Connecting, begun: Instant, pipe: DuplexStream, fault: Fault) {
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let Ok(Some(head)) = read_head(&mut reader).await else { return };
    let gone = async {
        // The request has no content: what comes is its end, when the core has done with it.
        let mut byte = [0];
        while reader.read(&mut byte).await.is_ok_and(|n| n > 0) {}
    };
    let answering = async {
        if let Err(kind) = answer(&plan, first, begun, head, &mut writer).await {
            let _ = fault.set(kind);
        }
    };
    tokio::select! {
        () = gone => {}
        () = answering => {}
    }
}

/// A server's answer, begun.
struct Begun {
    session: HttpSession<()>,
    peer: HttpPeer,
    /// It was asked by HEAD.
    head_only: bool,
}

async fn answer(
    plan: &Plan,
    first: Connecting,
    begun: Instant,
    head: RequestHeader,
    writer: &mut (impl AsyncWriteExt + Unpin),
) -> std::result::Result<(), io::ErrorKind> {
    let mut first = pin!(ask_first(plan, first, &head));
    let early = tokio::select! {
        biased;
        answer = &mut first => Some(answer),
        () = sleep_until(begun + plan.delay) => None,
    };
    let answer = match early {
        Some(answer) => answer,
        None => match second(plan) {
            None => first.await,
            Some(lease) => race(plan, first, lease, begun, &head).await,
        },
    };
    match answer {
        Ok(answer) => relay(answer, writer).await,
        Err(error) => Err(kind(&error)),
    }
}

/// A place on a second server, if the allowance, the budget of retries and the servers' state have one to give.
fn second(plan: &Plan) -> Option<Lease> {
    let (pool, hedging) = (&plan.pool, plan.pool.hedging.as_ref()?);
    let lease = pool.spare(&plan.ask);
    let result = match &lease {
        None => "no_server",
        Some(_) if hedging.spend() && pool.may_retry() => "sent",
        Some(_) => "refused",
    };
    pool.handles.hedge(result);
    lease.filter(|_| result == "sent")
}

async fn race(
    plan: &Plan,
    mut first: Pin<&mut impl Future<Output = Result<Begun>>>,
    lease: Lease,
    begun: Instant,
    head: &RequestHeader,
) -> Result<Begun> {
    plan.race.0.lock().second = Some(lease.server());
    let mut peer = lease.peer();
    peer.options.alpn = plan.first.options.alpn.clone();
    peer.options.connection_timeout = plan.first.options.connection_timeout;
    peer.options.total_connection_timeout = plan.first.options.total_connection_timeout;
    peer.options.read_timeout = None;
    let asked = Instant::now();
    let mut other = pin!(ask(peer, None, head));
    let mut failed: Option<Box<Error>> = None;
    loop {
        tokio::select! {
            biased;
            answer = &mut first, if failed.is_none() => match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = Some(error),
            },
            answer = &mut other => match answer {
                Ok(answer) => {
                    let (took, first_had) = (asked.elapsed(), begun.elapsed());
                    plan.pool.handles.hedge("won");
                    plan.race.0.lock().won = Some(Won { lease, took, first_had, first_failed: failed.is_some() });
                    return Ok(answer);
                }
                Err(error) => {
                    tracing::debug!(%error, "the second server of a hedged request failed");
                    plan.pool.handles.hedge("failed");
                    lease.failed();
                    plan.race.0.lock().second_failed = true;
                    return match failed {
                        Some(error) => Err(error),
                        None => first.await,
                    };
                }
            },
        }
    }
}

async fn ask_first(plan: &Plan, first: Connecting, head: &RequestHeader) -> Result<Begun> {
    ask(plan.first.clone(), Some(first.await?), head).await
}

/// Asks one server and waits for the first head of its answer. A pooled connection that had died unseen is no failure of
/// the server: a request without content that may be repeated is sent again (RFC 9110 section 9.2.2).
async fn ask(peer: HttpPeer, connected: Option<Connected>, head: &RequestHeader) -> Result<Begun> {
    let mut next = connected;
    loop {
        let (mut session, reused) = match next.take() {
            Some(connected) => connected,
            None => client().get_http_session(&peer).await?,
        };
        match exchange(&mut session, head).await {
            Ok(()) => return Ok(Begun { session, peer, head_only: head.method == Method::HEAD }),
            Err(_) if reused => {}
            Err(error) => return Err(error),
        }
    }
}

async fn exchange(session: &mut HttpSession<()>, head: &RequestHeader) -> Result<()> {
    session.write_request_header(Box::new(head.clone())).await?;
    session.finish_request_body().await?;
    session.read_response_header().await
}

/// Writes the answer as it came, and keeps the connection where it can be used again.
async fn relay(begun: Begun, writer: &mut (impl AsyncWriteExt + Unpin)) -> std::result::Result<(), io::ErrorKind> {
    let Begun { mut session, peer, head_only } = begun;
    let gone = |error: io::Error| error.kind();
    let chunked = loop {
        let HttpSession::H1(h1) = &session else { return Err(io::ErrorKind::Unsupported) };
        writer.write_all(&h1.get_headers_raw_bytes()).await.map_err(gone)?;
        let Some(response) = h1.resp_header() else { return Err(io::ErrorKind::InvalidData) };
        if !response.status.is_informational() {
            let content = !head_only && !matches!(response.status.as_u16(), 204 | 304);
            break content && is_chunked(&response.headers);
        }
        session.read_response_header().await.map_err(|error| kind(&error))?;
    };
    while let Some(part) = session.read_response_body().await.map_err(|error| kind(&error))? {
        if part.is_empty() {
            // Would be the last chunk.
            continue;
        }
        if chunked {
            writer.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await.map_err(gone)?;
        }
        writer.write_all(&part).await.map_err(gone)?;
        if chunked {
            writer.write_all(b"\r\n").await.map_err(gone)?;
        }
    }
    if chunked {
        writer.write_all(b"0\r\n\r\n").await.map_err(gone)?;
    }
    let idle = peer.options.idle_timeout;
    client().release_http_session(session, &peer, idle).await;
    Ok(())
}

/// Whether the content is framed by chunks (RFC 9112 section 6.3); the client has taken the framing off.
fn is_chunked(fields: &::http::HeaderMap) -> bool {
    let last = fields.get_all(TRANSFER_ENCODING).iter().next_back();
    let coding = last.and_then(|value| value.to_str().ok()).and_then(|text| text.rsplit(',').next());
    coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

/// What the core is told of a failure.
fn kind(error: &Error) -> io::ErrorKind {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout => io::ErrorKind::TimedOut,
        ErrorType::ConnectRefused => io::ErrorKind::ConnectionRefused,
        ErrorType::ConnectionClosed => io::ErrorKind::UnexpectedEof,
        ErrorType::InvalidHTTPHeader => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::ConnectionReset,
    }
}

/// The head that the core writes into the pipe; `None` where it writes none.
async fn read_head(reader: &mut (impl AsyncReadExt + Unpin)) -> Result<Option<RequestHeader>> {
    let mut text = BytesMut::with_capacity(4 << 10);
    loop {
        let read = reader.read_buf(&mut text).await;
        if read.map_or(true, |n| n == 0) || text.len() > HEAD {
            return Ok(None);
        }
        if let Some(head) = parse(&text)? {
            return Ok(Some(head));
        }
    }
}

fn parse(text: &[u8]) -> Result<Option<RequestHeader>> {
    let invalid = |error| Error::because(ErrorType::InvalidHTTPHeader, "a head that the core wrote", error);
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    if request.parse(text).map_err(invalid)?.is_partial() {
        return Ok(None);
    }
    let (Some(method), Some(path)) = (request.method, request.path) else { return Ok(None) };
    let mut head = RequestHeader::build(method, path.as_bytes(), Some(request.headers.len()))?;
    head.set_version(::http::Version::HTTP_11);
    for field in request.headers.iter() {
        // Of the core's connection, not of ours.
        if !field.name.eq_ignore_ascii_case(CONNECTION.as_str()) {
            head.append_header(field.name.to_owned(), field.value)?;
        }
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_the_core_wrote_it() {
        let text =
            b"GET /a%20b?c=%7E HTTP/1.1\r\nHost: a.example\r\nX-Case: \xe9\r\nConnection: close\r\nx-b: 1\r\n\r\n";
        assert!(parse(&text[..60]).unwrap().is_none());
        let head = parse(text).unwrap().unwrap();
        let mut wire = Vec::new();
        head.header_to_h1_wire(&mut wire);
        assert_eq!(head.raw_path(), b"/a%20b?c=%7E");
        assert_eq!(wire, b"Host: a.example\r\nX-Case: \xe9\r\nx-b: 1\r\n");
        assert!(parse(b"GET\r\n\r\n").is_err());
    }

    #[test]
    fn only_the_last_coding_frames() {
        for (value, chunked) in [("chunked", true), ("gzip, Chunked ", true), ("chunked, gzip", false), ("gzip", false)]
        {
            let fields = [(TRANSFER_ENCODING, ::http::HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(is_chunked(&fields), chunked, "{value}");
        }
    }
}
