//! The end that offers.

use super::{HOLD, Message};
use crate::discovery::feed::Reports;
use crate::types::Secret;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Edges that ask at the same time.
const MAX_CONNECTIONS: usize = 1024;
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Where snapshots are offered, and to whom.
#[derive(Clone, Debug)]
pub enum Offer {
    /// At a unix socket, to those that may open its file (owner and group).
    Unix(PathBuf, Option<Secret>),
    /// Over TLS, to those that know the token.
    Https(SocketAddr, Arc<rustls::ServerConfig>, Secret),
}

/// Why nothing can be offered.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// The address or file is not to be had.
    #[error("cannot listen on {0}: {1}")]
    Bind(String, std::io::Error),
}

/// An open listener.
pub struct Offered {
    listener: Listener,
    token: Option<Secret>,
    /// Where it is: `unix:PATH`, or the address with the port that was bound.
    pub address: String,
}

enum Listener {
    Unix(UnixListener),
    Https(TcpListener, tokio_rustls::TlsAcceptor),
}

/// Opens the listener; a socket's file that nobody answers on is replaced.
///
/// # Errors
/// See [`OfferError`].
pub async fn offer(offer: Offer) -> Result<Offered, OfferError> {
    match offer {
        Offer::Unix(path, token) => {
            let address = format!("unix:{}", path.display());
            let failed = |error| OfferError::Bind(address.clone(), error);
            if tokio::net::UnixStream::connect(&path)
                .await
                .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
            {
                std::fs::remove_file(&path).map_err(failed)?;
            }
            let listener = UnixListener::bind(&path).map_err(failed)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
            Ok(Offered { listener: Listener::Unix(listener), token, address })
        }
        Offer::Https(address, config, token) => {
            let failed = |error| OfferError::Bind(address.to_string(), error);
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?.to_string();
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            Ok(Offered { listener: Listener::Https(listener, acceptor), token: Some(token), address })
        }
    }
}

impl Offered {
    /// Answers with what `reports` hold, for ever.
    pub async fn serve(self, reports: Reports) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let (numbered, versions) = tokio::sync::watch::channel((0_u64, reports.borrow().clone()));
        tokio::spawn(number(reports, numbered));
        let shared = Arc::new(Shared { token: self.token, versions });
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let shared = Arc::clone(&shared);
            match &self.listener {
                Listener::Unix(listener) => match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(async move {
                        connection(&shared, stream).await;
                        drop(slot);
                    })),
                    Err(error) => pause(error).await,
                },
                Listener::Https(listener, acceptor) => match listener.accept().await {
                    Ok((stream, peer)) => {
                        let acceptor = acceptor.clone();
                        tokio::spawn(async move {
                            match timeout(HEAD_WITHIN, acceptor.accept(stream)).await {
                                Ok(Ok(stream)) => connection(&shared, stream).await,
                                failed => tracing::debug!(%peer, ?failed, "no handshake"),
                            }
                            drop(slot);
                        });
                    }
                    Err(error) => pause(error).await,
                },
            }
        }
    }
}

/// A failed accept is most often a lack of file descriptors.
async fn pause(error: std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

type Versions = tokio::sync::watch::Receiver<(u64, crate::discovery::Report)>;

struct Shared {
    token: Option<Secret>,
    versions: Versions,
}

/// Counts the reports, so that an edge can say which it has.
async fn number(mut reports: Reports, numbered: tokio::sync::watch::Sender<(u64, crate::discovery::Report)>) {
    loop {
        let report = reports.borrow_and_update().clone();
        numbered.send_modify(|held| *held = (held.0 + 1, report));
        if reports.changed().await.is_err() {
            return;
        }
    }
}

async fn connection(shared: &Arc<Shared>, stream: impl AsyncRead + AsyncWrite + Unpin + Send) {
    let service = service_fn(|request| {
        let shared = Arc::clone(shared);
        async move { Ok::<_, Infallible>(answer(&shared, &request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "an edge hung up");
    }
}

async fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode| {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = status;
        response
    };
    let given = request.headers().get(http::header::AUTHORIZATION).map(|value| value.as_bytes());
    let allowed = shared.token.as_ref().is_none_or(|token| {
        let wanted = format!("Bearer {}", token.expose());
        // In constant time: the answer must not tell how much of a guess was right.
        given.is_some_and(|given| aws_lc_rs::constant_time::verify_slices_are_equal(given, wanted.as_bytes()).is_ok())
    });
    if !allowed {
        return plain(StatusCode::UNAUTHORIZED);
    }
    if request.uri().path() != "/snapshot" || request.method() != http::Method::GET {
        return plain(StatusCode::NOT_FOUND);
    }
    let after = request.uri().query().and_then(|query| query.strip_prefix("after=")?.parse::<u64>().ok());
    let mut versions = shared.versions.clone();
    // A version that is not known is one of another process, and the news is all of it.
    let news = versions.wait_for(|(version, report)| {
        Some(*version) != after && (report.snapshot.is_some() || report.trouble.is_some())
    });
    let held = match timeout(HOLD, news).await {
        Ok(Ok(held)) => held.clone(),
        _ => shared.versions.borrow().clone(),
    };
    let (version, report) = held;
    let message = Message {
        version,
        snapshot: report.snapshot.as_deref().cloned(),
        trouble: report.trouble.as_deref().map(str::to_owned),
    };
    match serde_json::to_vec(&message) {
        Ok(text) => Response::new(Full::new(text.into())),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
