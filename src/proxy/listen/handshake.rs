//! The server's side of a TLS handshake.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::listeners::TlsAccept;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::Stream;
use pingora::protocols::tls::TlsRef;
use pingora::protocols::tls::server::handshake_with_callback;
use prometheus::{IntCounter, IntCounterVec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::TlsSlot;
use super::stream::ClientStream;
use crate::metrics::Metrics;
use crate::proxy::handshakes::Handshakes;
use crate::tls::client::Shown;

/// Does handshakes and counts how they end.
pub(super) struct Tls {
    slot: Arc<TlsSlot>,
    /// From accept to the end of the handshake.
    pub(super) timeout: Duration,
    results: [IntCounter; 4],
}

impl Tls {
    pub(super) fn new(slot: Arc<TlsSlot>, timeout: Duration, metrics: &Metrics) -> Self {
        let counter = |counters: &IntCounterVec, r: Outcome| counters.with_label_values(&[r.as_str()]);
        let results = Outcome::ALL.map(|r| counter(&metrics.tls_handshakes, r));
        Self { slot, timeout, results }
    }

    /// The encrypted stream, or nothing when the handshake failed or was not over by `deadline`.
    pub(super) async fn accept(&self, stream: ClientStream, peer: SocketAddr, deadline: Instant) -> Option<Stream> {
        let (outcome, done) = match tokio::time::timeout_at(deadline, self.handshake(stream)).await {
            Ok(Ok(stream)) => (Outcome::Ok, Some(stream)),
            Ok(Err(failure)) => {
                tracing::debug!(client = %peer, error = %failure, "TLS handshake failed");
                (failure.outcome(), None)
            }
            Err(_) => (Outcome::Timeout, None),
        };
        self.count(outcome);
        done
    }

    /// Counts a client that connected and let the time for its handshake pass.
    pub(super) fn timed_out(&self) {
        self.count(Outcome::Timeout);
    }

    async fn handshake(&self, mut stream: ClientStream) -> Result<Stream, Failure> {
        let (hello, config) = match read_hello(&mut stream, &self.slot.load()).await {
            Ok(read) => read,
            Err(failure) => {
                say(&mut stream, failure.alert()).await;
                return Err(failure);
            }
        };
        stream.rewind(&hello);
        stream.gather();
        match handshake_with_callback(&Acceptor::from_server_config(config), stream, &KeepShown).await {
            Ok(tls) => Ok(Box::new(tls)),
            Err(error) => Err(Failure::Handshake(error)),
        }
    }

    fn count(&self, outcome: Outcome) {
        self.results[outcome as usize].inc();
    }
}

/// How a handshake ended: the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    Timeout,
    UnrecognizedName,
    Failed,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Ok, Self::Timeout, Self::UnrecognizedName, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::UnrecognizedName => "unrecognized_name",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no certificate for {}", .0.as_deref().unwrap_or("a client that names no host"))]
    UnrecognizedName(Option<String>),
    #[error("no ClientHello: {error}")]
    Hello { error: rustls::Error, alert: Vec<u8> },
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Handshake(Box<pingora::Error>),
}

impl Failure {
    fn outcome(&self) -> Outcome {
        match self {
            Self::UnrecognizedName(_) => Outcome::UnrecognizedName,
            Self::Hello { .. } | Self::Io(_) | Self::Handshake(_) => Outcome::Failed,
        }
    }

    /// The record that tells the client, where there is one to be told.
    fn alert(&self) -> &[u8] {
        match self {
            Self::UnrecognizedName(_) => &UNRECOGNIZED_NAME,
            Self::Hello { alert, .. } => alert,
            Self::Io(_) | Self::Handshake(_) => &[],
        }
    }
}

/// An alert record (RFC 8446 sections 5.1 and 6): type 21, version 3.3, two bytes, fatal, `unrecognized_name` (RFC 6066
/// section 9). rustls would say `access_denied` when it finds no certificate, and offers no other choice.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A handshake message has 64 KiB at most in rustls; the rest is for record headers of a client that sends tiny records.
const MAX_HELLO: usize = 128 << 10;

/// Keeps what the client showed with the connection, for the sites that want to see it.
struct KeepShown;

#[async_trait]
impl TlsAccept for KeepShown {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        let chain = tls.peer_cert_chain_der().map(<[_]>::to_vec).unwrap_or_default();
        let asked = tls.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        Some(Arc::new(Shown { chain, asked }))
    }
}

/// Reads up to the end of the ClientHello, and returns all that was read, if a certificate serves it, with the set-up for
/// the name asked for.
///
/// The message is parsed again by the handshake proper: that costs little beside a signature, and pingora's stream can
/// only be made from the raw connection.
async fn read_hello(
    stream: &mut ClientStream,
    handshakes: &Handshakes,
) -> Result<(Vec<u8>, Arc<rustls::ServerConfig>), Failure> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut seen = Vec::with_capacity(2 << 10);
    loop {
        let fed = seen.len();
        match stream.read_buf(&mut seen).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ if seen.len() > MAX_HELLO => return Err(io::Error::other("the ClientHello has no end").into()),
            _ => {}
        }
        let mut unfed = &seen[fed..];
        while !unfed.is_empty() {
            acceptor.read_tls(&mut unfed)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let host = hello.server_name().map(str::to_owned);
                    let config = handshakes.config(host.as_deref());
                    return match config.cert_resolver.resolve(hello) {
                        Some(_) => Ok((seen, config)),
                        None => Err(Failure::UnrecognizedName(host)),
                    };
                }
                Err((error, mut queued)) => {
                    let mut alert = Vec::new();
                    // A vector takes all there is.
                    let _ = queued.write_all(&mut alert);
                    return Err(Failure::Hello { error, alert });
                }
            }
        }
    }
}

/// Sends an alert and ends the connection's sending side; a client that is gone need not hear it.
async fn say(stream: &mut ClientStream, alert: &[u8]) {
    if !alert.is_empty() && stream.write_all(alert).await.is_ok() {
        let _ = AsyncWriteExt::shutdown(stream).await;
    }
}
