//! Connections to the nodes that are loaded: HTTP/1.1 and HTTP/2, over TCP or TLS.

use super::measure::{Failure, Tier};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// Of a stream of HTTP/2 and of its connection, in bytes: what is loaded is not to wait for the loader.
const WINDOW: u32 = 4 << 20;

/// The version of HTTP that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One request at a time on a connection.
    Http1,
    /// Several, as streams; without TLS by prior knowledge (RFC 9113 section 3.3).
    Http2,
}

/// Where a connection goes.
#[derive(Clone, Debug)]
pub struct Place {
    /// Of the listener.
    pub address: SocketAddr,
    /// With TLS: the name that is asked for.
    pub tls: Option<ServerName<'static>>,
}

/// A response, but for its content.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Of content.
    pub bytes: u64,
    pub tier: Tier,
    pub etag: Option<HeaderValue>,
}

/// Why there is no whole response: the kind, and what is to be said of it.
pub type Failed = (Failure, String);

fn failed<E: std::error::Error>(kind: Failure) -> impl Fn(E) -> Failed {
    move |error| {
        // The cause says more.
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        (kind, format!("{error}{}", cause.unwrap_or_default()))
    }
}

/// A connection that is made when it is first needed, and again when it has ended. HTTP/2's is shared by its streams.
pub struct Connection {
    place: Place,
    protocol: Protocol,
    tls: Arc<ClientConfig>,
    open: Mutex<Option<Sender>>,
    /// How often it was made.
    made: std::sync::atomic::AtomicU64,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    /// One that is not made yet. `tls` has to offer the protocol.
    pub fn new(place: Place, protocol: Protocol, tls: Arc<ClientConfig>) -> Self {
        Self { place, protocol, tls, open: Mutex::new(None), made: Default::default() }
    }

    /// How often it was made.
    pub fn made(&self) -> u64 {
        self.made.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Sends a request and reads the whole response.
    ///
    /// A connection that the server closed between two requests is made again, which is no failure (RFC 9112 section 9.3.1).
    pub async fn exchange(&self, request: Request<Empty<Bytes>>) -> Result<Answer, Failed> {
        for last in [false, true] {
            match self.protocol {
                Protocol::Http1 => {
                    let mut open = self.open.lock().await;
                    // While a request is under way its connection is not there, so that one given up half way is not used again.
                    let kept = match open.take() {
                        Some(Sender::Http1(mut sender)) => sender.ready().await.is_ok().then_some(sender),
                        _ => None,
                    };
                    let fresh = kept.is_none();
                    let mut sender = match kept {
                        Some(sender) => sender,
                        None => self.connect_http1().await?,
                    };
                    match sender.send_request(request.clone()).await {
                        Ok(response) => {
                            let answer = read(&request, response).await?;
                            *open = Some(Sender::Http1(sender));
                            return Ok(answer);
                        }
                        Err(_) if !fresh && !last => {}
                        Err(error) => return Err(failed(Failure::Broken)(error)),
                    }
                }
                Protocol::Http2 => {
                    let (mut sender, fresh) = self.sender_http2().await?;
                    match sender.send_request(request.clone()).await {
                        Ok(response) => return read(&request, response).await,
                        Err(error) => {
                            self.forget().await;
                            // Refused before it was looked at, or the connection was about to end.
                            if fresh || last || !(error.is_closed() || error.is_canceled()) {
                                return Err(failed(Failure::Broken)(error));
                            }
                        }
                    }
                }
            }
        }
        Err((Failure::Broken, "the connection ended again and again".to_owned()))
    }

    async fn sender_http2(&self) -> Result<(http2::SendRequest<Empty<Bytes>>, bool), Failed> {
        let mut open = self.open.lock().await;
        if let Some(Sender::Http2(sender)) = open.as_mut()
            && sender.ready().await.is_ok()
        {
            return Ok((sender.clone(), false));
        }
        let sender = self.connect_http2().await?;
        *open = Some(Sender::Http2(sender.clone()));
        Ok((sender, true))
    }

    async fn forget(&self) {
        *self.open.lock().await = None;
    }

    async fn connect_http1(&self) -> Result<http1::SendRequest<Empty<Bytes>>, Failed> {
        let stream = self.connect().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed(Failure::Broken))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn connect_http2(&self) -> Result<http2::SendRequest<Empty<Bytes>>, Failed> {
        let stream = self.connect().await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed(Failure::Broken))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Failed> {
        let stream = TcpStream::connect(self.place.address).await.map_err(failed(Failure::Connect))?;
        // A request is one write; waiting for more to send would only cost time.
        let _ = stream.set_nodelay(true);
        self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let Some(name) = &self.place.tls else { return Ok(Box::new(stream)) };
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name.clone(), stream).await;
        let stream = stream.map_err(failed(Failure::Tls))?;
        let agreed = stream.get_ref().1.alpn_protocol();
        if self.protocol == Protocol::Http2 && agreed != Some(b"h2") {
            return Err((Failure::Tls, "the server does not speak HTTP/2 (ALPN)".to_owned()));
        }
        Ok(Box::new(stream))
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn read(request: &Request<Empty<Bytes>>, response: Response<Incoming>) -> Result<Answer, Failed> {
    let (head, mut body) = response.into_parts();
    let mut answer = Answer {
        status: head.status.as_u16(),
        bytes: 0,
        tier: Tier::of(&head.headers),
        etag: head.headers.get(header::ETAG).cloned(),
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(failed(Failure::Broken))?;
        answer.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    // Of HTTP/1.1 the library says so itself.
    let declared = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let has_content = request.method() != Method::HEAD && head.status.as_u16() != 304;
    if has_content && declared.is_some_and(|declared: u64| declared != answer.bytes) {
        let (bytes, length) = (answer.bytes, declared.unwrap_or_default());
        return Err((Failure::Broken, format!("{bytes} bytes of content in place of {length}")));
    }
    Ok(answer)
}
