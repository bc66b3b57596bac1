//! Fetching: HTTP/1.1 over TCP or TLS to the edge's listener, with the Host and SNI of the URL.

use super::Listeners;
use super::sitemap::MAX_SIZE;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Idle connections that are kept.
const MAX_IDLE: usize = 64;

/// A response.
#[derive(Debug)]
pub(super) struct Fetched {
    pub status: u16,
    /// What the edge's cache did.
    pub outcome: &'static str,
    pub bytes: u64,
    /// Empty unless it was to be kept.
    pub body: Vec<u8>,
}

/// Keeps connections and what all fetches share.
pub(super) struct Fetcher {
    listeners: Listeners,
    tls: Arc<ClientConfig>,
    fields: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    idle: Mutex<Vec<(Origin, Sender)>>,
}

type Sender = SendRequest<Empty<Bytes>>;

/// What a connection can be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    tls: bool,
    host: String,
}

impl Fetcher {
    pub(super) fn new(
        listeners: Listeners,
        tls: Arc<ClientConfig>,
        fields: Vec<(HeaderName, HeaderValue)>,
        timeout: Duration,
    ) -> Self {
        Self { listeners, tls, fields, timeout, idle: Mutex::default() }
    }

    /// Fetches a URL to its last byte; with `keep`, the content as well. The error is for people.
    pub(super) async fn fetch(&self, url: &str, keep: bool) -> Result<Fetched, String> {
        match timeout(self.timeout, self.exchange(url, keep)).await {
            Ok(done) => done,
            Err(_) => Err(format!("no whole response within {} s", self.timeout.as_secs_f32())),
        }
    }

    async fn exchange(&self, url: &str, keep: bool) -> Result<Fetched, String> {
        let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        let authority = uri.authority().ok_or("it has no host")?;
        let origin = Origin { tls: uri.scheme_str() == Some("https"), host: authority.host().to_owned() };
        // A fragment is not sent, nor are a user's name and password.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        if let Some(mut sender) = self.take_idle(&origin)
            && sender.ready().await.is_ok()
            // The edge may have closed it a moment ago.
            && let Ok(fetched) = self.converse(&mut sender, host, target, keep).await
        {
            self.keep_idle(origin, sender);
            return Ok(fetched);
        }
        let mut sender = self.connect(&origin).await?;
        let fetched = self.converse(&mut sender, host, target, keep).await?;
        self.keep_idle(origin, sender);
        Ok(fetched)
    }

    async fn converse(&self, sender: &mut Sender, host: &str, target: &str, keep: bool) -> Result<Fetched, String> {
        let mut request = Request::get(target).header(header::HOST, host);
        let agent = concat!("selvedge-warm/", env!("CARGO_PKG_VERSION"));
        if !self.fields.iter().any(|(name, _)| name == header::USER_AGENT) {
            request = request.header(header::USER_AGENT, agent);
        }
        // What is kept is read here, and codings are for those who browse.
        for (name, value) in self.fields.iter().filter(|(name, _)| !keep || name != header::ACCEPT_ENCODING) {
            request = request.header(name, value);
        }
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let (head, mut body) = sender.send_request(request).await.map_err(|error| shown(&error))?.into_parts();
        let mut fetched =
            Fetched { status: head.status.as_u16(), outcome: outcome(&head.headers), bytes: 0, body: Vec::new() };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| shown(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            fetched.bytes += data.len() as u64;
            if keep && fetched.body.len() + data.len() > MAX_SIZE {
                return Err("it is larger than 50 MiB".to_owned());
            }
            if keep {
                fetched.body.extend_from_slice(data);
            }
        }
        Ok(fetched)
    }

    async fn connect(&self, origin: &Origin) -> Result<Sender, String> {
        let (listener, scheme) =
            if origin.tls { (&self.listeners.https, "https") } else { (&self.listeners.http, "http") };
        let address = listener.as_ref().ok_or_else(|| format!("the edge has no {scheme} listener"))?;
        let stream =
            TcpStream::connect(address).await.map_err(|error| format!("cannot connect to {address}: {error}"))?;
        if !origin.tls {
            return handshake(stream).await;
        }
        let name = origin.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS with {address}: {error}"))?;
        handshake(stream).await
    }

    fn take_idle(&self, origin: &Origin) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let at = idle.iter().position(|(kept, _)| kept == origin)?;
        Some(idle.swap_remove(at).1)
    }

    fn keep_idle(&self, origin: Origin, sender: Sender) {
        let mut idle = self.idle.lock();
        if idle.len() >= MAX_IDLE {
            idle.remove(0);
        }
        idle.push((origin, sender));
    }
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Sender, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| shown(&error))?;
    tokio::spawn(connection);
    Ok(sender)
}

/// With its cause, which says more.
fn shown(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What the edge's member of `Cache-Status` says (RFC 9211).
pub(super) fn outcome(headers: &HeaderMap) -> &'static str {
    let values = headers.get_all("cache-status").iter().filter_map(|value| value.to_str().ok());
    let members = values.flat_map(|value| value.split(','));
    let Some(member) = members.map(str::trim).rfind(|member| member.split(';').next() == Some("selvedge")) else {
        return "unknown";
    };
    let has = |wanted: &str| member.split(';').skip(1).any(|parameter| parameter.trim() == wanted);
    if has("hit") {
        "hit"
    } else if has("fwd-status=304") {
        "revalidated"
    } else if has("collapsed") {
        "collapsed"
    } else if has("stored") {
        "stored"
    } else {
        "not stored"
    }
}
