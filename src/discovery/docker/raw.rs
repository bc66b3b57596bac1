//! Questions to the engine whose answers bollard has no model for: of a task it leaves the addresses out.

use super::connect::Endpoint;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// An answer that takes longer is lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// More than twenty thousand tasks.
const MAX_ANSWER: usize = 128 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::discovery) enum RawError {
    /// There is no connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    /// A file of the TLS folder.
    #[error("{0}")]
    Tls(String),
    /// The connection broke.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// The engine refuses: its own words.
    #[error("it answered {0}: {1}")]
    Refused(u16, String),
    /// Something else than was asked for.
    #[error("its answer is not understood: {0}")]
    Nonsense(#[from] serde_json::Error),
    /// Too late.
    #[error("it gave no answer in time")]
    Late,
}

/// One connection, made again when it has ended.
pub(in crate::discovery) struct Raw {
    endpoint: Endpoint,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl Raw {
    /// Of the engine there; nothing is sent yet.
    pub(in crate::discovery) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, sender: None }
    }

    /// What is at `path`, which begins with `/` and may have a query.
    ///
    /// # Errors
    /// See [`RawError`].
    pub(in crate::discovery) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, RawError> {
        let answer = timeout(ANSWER_WITHIN, self.ask(path)).await.unwrap_or(Err(RawError::Late));
        if answer.is_err() {
            self.sender = None;
        }
        let (status, body) = answer?;
        if status == 200 {
            return Ok(serde_json::from_slice(&body)?);
        }
        let message = serde_json::from_slice::<Message>(&body).map(|told| told.message).unwrap_or_default();
        Err(RawError::Refused(status, message))
    }

    async fn ask(&mut self, path: &str) -> Result<(u16, Bytes), RawError> {
        if let Some(sender) = self.sender.take().filter(|sender| !sender.is_closed())
            && let Ok(answer) = self.converse(sender, path).await
        {
            return Ok(answer);
        }
        // There was no connection, or the engine ended it meanwhile.
        let sender = connect(&self.endpoint).await?;
        self.converse(sender, path).await
    }

    async fn converse(&mut self, mut sender: SendRequest<Empty<Bytes>>, path: &str) -> Result<(u16, Bytes), RawError> {
        let broken = |error: &dyn std::fmt::Display| RawError::Broken(error.to_string());
        let request = Request::get(path).header("host", "docker").body(Empty::new()).map_err(|e| broken(&e))?;
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| broken(&e))?;
        self.sender = Some(sender);
        Ok((status, body.to_bytes()))
    }
}

/// How the engine says what is wrong.
#[derive(Default, Deserialize)]
struct Message {
    #[serde(default)]
    message: String,
}

async fn connect(endpoint: &Endpoint) -> Result<SendRequest<Empty<Bytes>>, RawError> {
    match endpoint {
        Endpoint::Unix(path) => speak(UnixStream::connect(path).await?).await,
        Endpoint::Tcp(authority, None) => speak(TcpStream::connect(authority).await?).await,
        Endpoint::Tcp(authority, Some(folder)) => {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(folder)?));
            let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(|error| RawError::Tls(error.to_string()))?;
            speak(connector.connect(name, TcpStream::connect(authority).await?).await?).await
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Empty<Bytes>>, RawError> {
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| RawError::Broken(error.to_string()))?;
    tokio::spawn(connection);
    Ok(sender)
}

/// By `ca.pem`, `cert.pem` and `key.pem`, as Docker's own client names them.
fn client_config(folder: &Path) -> Result<rustls::ClientConfig, RawError> {
    let unusable =
        |name: &str, error: &dyn std::fmt::Display| RawError::Tls(format!("{}: {error}", folder.join(name).display()));
    let certificates = |name: &str| -> Result<Vec<CertificateDer<'static>>, RawError> {
        let found = CertificateDer::pem_file_iter(folder.join(name)).and_then(Iterator::collect);
        found.map_err(|error| unusable(name, &error))
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates("ca.pem")?);
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).map_err(|error| unusable("key.pem", &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| RawError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates("cert.pem")?, key)
        .map_err(|error| unusable("cert.pem", &error))
}
