//! Snapshots handed on: a process that may see the engine's socket offers them, and edges that need not see it ask.
//!
//! `GET /snapshot?after=N` is answered as soon as there is a version other than N, or after half a minute with what there
//! is: `{"version": …, "snapshot": …, "trouble": …}`. Over a unix socket, whose file says who may, or over HTTPS with a
//! bearer token.

mod offer;

pub use offer::{Offer, OfferError, Offered, offer};

use super::docker::own_container;
use super::feed::Feed;
use super::{Place, Snapshot};
use crate::types::Secret;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

/// How long an answer is held back while nothing is new.
const HOLD: Duration = Duration::from_secs(30);
/// An answer that takes longer than that and this is lost.
const BEYOND: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// More than ten thousand containers with long variables.
const MAX_SNAPSHOT: usize = 64 << 20;
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);

/// Whom an edge asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it is.
    pub endpoint: Endpoint,
    /// What it wants to hear; over a unix socket it may want nothing.
    pub token: Option<Secret>,
}

/// Where snapshots are offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`, and the certificates (PEM) that its own is verified by.
    Https(String, PathBuf),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https(authority, _) => write!(f, "https://{authority}"),
        }
    }
}

/// One answer.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    version: u64,
    snapshot: Option<Snapshot>,
    trouble: Option<String>,
}

/// Why nothing was heard.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("{path}: {1}", path = .0.display())]
    Trust(PathBuf, String),
    #[error("the answer broke off: {0}")]
    Broken(String),
    #[error("it answered {0}; look at the token")]
    Refused(hyper::StatusCode),
    #[error("it answered what is no snapshot: {0}")]
    Nonsense(serde_json::Error),
    #[error("it gave no answer in time")]
    Late,
}

/// Asks until nobody reads `feed` any more.
pub async fn watch(settings: Settings, feed: Feed) {
    let own = own_container();
    let mut pause = *PAUSES.start();
    let mut after = None;
    while !feed.is_closed() {
        match ask(&settings, after).await {
            Ok(message) => {
                pause = *PAUSES.start();
                after = Some(message.version);
                if let Some(mut snapshot) = message.snapshot {
                    snapshot.place = place(&snapshot, own.as_deref());
                    feed.snapshot(snapshot);
                }
                if let Some(trouble) = message.trouble {
                    feed.lost(&trouble);
                }
            }
            Err(error) => {
                let reason = format!("{} offers no containers: {error}", settings.endpoint);
                tracing::warn!(%reason, "containers are routed as last seen");
                feed.lost(&reason);
                // Versions are those of one process.
                after = None;
                sleep(pause).await;
                pause = (pause * 2).min(*PAUSES.end());
            }
        }
    }
}

/// The edge stands where its own container does, which is not where the one stands that offers.
fn place(snapshot: &Snapshot, own: Option<&str>) -> Place {
    let found = own.and_then(|own| snapshot.containers.iter().find(|container| container.id == own));
    match found {
        Some(container) if !container.host_network => Place::Container(container.networks.clone()),
        None if own.is_some() => Place::Elsewhere,
        _ => Place::Host,
    }
}

async fn ask(settings: &Settings, after: Option<u64>) -> Result<Message, Lost> {
    let connect = |error: std::io::Error| Lost::Connect(error);
    let within = |_| Lost::Late;
    match &settings.endpoint {
        Endpoint::Unix(path) => {
            let stream = timeout(CONNECT_WITHIN, UnixStream::connect(path)).await.map_err(within)?.map_err(connect)?;
            converse(stream, "localhost", settings, after).await
        }
        Endpoint::Https(authority, trust) => {
            let connector = connector(trust)?;
            let stream =
                timeout(CONNECT_WITHIN, TcpStream::connect(authority)).await.map_err(within)?.map_err(connect)?;
            let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(|error| Lost::Broken(error.to_string()))?;
            let tls =
                timeout(CONNECT_WITHIN, connector.connect(name, stream)).await.map_err(within)?.map_err(connect)?;
            converse(tls, authority, settings, after).await
        }
    }
}

fn connector(trust: &PathBuf) -> Result<tokio_rustls::TlsConnector, Lost> {
    let unusable = |reason: String| Lost::Trust(trust.clone(), reason);
    let pem = std::fs::read(trust).map_err(|error| unusable(error.to_string()))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(unusable("no PEM certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config =
        config.map_err(|error| unusable(error.to_string()))?.with_root_certificates(roots).with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    settings: &Settings,
    after: Option<u64>,
) -> Result<Message, Lost> {
    let broken = |error: &dyn std::fmt::Display| Lost::Broken(error.to_string());
    let query = after.map(|version| format!("?after={version}")).unwrap_or_default();
    let mut request = Request::get(format!("/snapshot{query}")).header("host", host);
    if let Some(token) = &settings.token {
        request = request.header("authorization", format!("Bearer {}", token.expose()));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| broken(&e))?;
    let conversation = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_SNAPSHOT).collect().await.map_err(|e| broken(&e))?;
        driver.abort();
        if status != hyper::StatusCode::OK {
            return Err(Lost::Refused(status));
        }
        // Megabytes of them would hold up requests.
        let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice(&body.to_bytes())).await;
        parsed.map_err(|error| Lost::Broken(error.to_string()))?.map_err(Lost::Nonsense)
    };
    timeout(HOLD + BEYOND, conversation).await.unwrap_or(Err(Lost::Late))
}
