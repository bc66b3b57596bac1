//! TLS: certificates from a folder, chosen by SNI, and the `rustls::ServerConfig` they serve.
//!
//! Files are named as nginx-proxy names them: `<name>.crt` holds the certificate and its chain, leaf first, and
//! `<name>.key` its private key. A client that asks for `www.example.com` gets the first of these that there is:
//! `www.example.com`, `example.com` (one label up, for hosts of three labels or more), `default`. With none of them the
//! handshake ends in the alert `unrecognized_name` (RFC 6066 section 3), as it does for a client that names no host
//! where there is no `default`. Choice goes by file name alone; whether the certificate's names cover the host is the
//! operator's business, as it is for nginx-proxy.
//!
//! Files beside the pairs are left alone: `<name>.chain.pem` (for OCSP, which is not done here), `<name>.dhparam.pem`
//! (rustls has no DHE), `ca.crt` and `<name>.ca.crt` (for client certificates), sub-folders, and hidden files.

pub mod client;
mod pair;
pub mod self_signed;
mod store;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

pub use pair::{Cause, Effect, Problem};
pub use store::{CertStore, OpenError};
pub use watch::{Watch, WatchError};

/// What TLS is set up from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Folder of `<host>.crt` and `<host>.key` pairs, `default.crt` and `default.key`.
    pub certificates: PathBuf,
    /// The lowest protocol version offered.
    pub min_version: MinVersion,
}

/// The lowest TLS version that clients may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

impl MinVersion {
    /// The version as it is commonly written: `1.2` or `1.3`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

/// Why no `ServerConfig` could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The cryptography does not support the versions asked for.
    #[error("TLS {version} cannot be offered: {source}", version = .version.as_str())]
    Version {
        /// The lowest version asked for.
        version: MinVersion,
        /// What rustls says.
        source: rustls::Error,
    },
    /// No key for session tickets could be made, so the system gives no random numbers.
    #[error("session ticket keys cannot be made: {0}; check that the system's random source works")]
    Tickets(rustls::Error),
}

/// TLS 1.2 sessions remembered by identifier, for the few clients that resume without tickets.
const SESSIONS: usize = 4096;

/// The server side of TLS: aws-lc-rs, ALPN `h2` before `http/1.1`, and session tickets (RFC 5077; RFC 8446 section
/// 4.6.1) whose key changes every six hours and opens tickets for twelve.
///
/// The order of cipher suites is the client's: a device without AES instructions puts ChaCha20 first for a reason, and
/// every suite rustls offers is strong. No early data (RFC 8446 section 8): it can be replayed.
///
/// # Errors
/// See [`ConfigError`].
pub fn server_config(settings: &Settings, store: Arc<CertStore>) -> Result<Arc<rustls::ServerConfig>, ConfigError> {
    let Settings { certificates: _, min_version } = settings;
    server_config_of(*min_version, ClientAuth::None, store)
}

/// Whether a handshake asks for the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No.
    None,
    /// Yes, without insisting; [`client::Authorities`] says what it is good for.
    Ask,
}

/// [`server_config`] with certificates from any source.
///
/// # Errors
/// See [`ConfigError`].
pub fn server_config_of(
    min_version: MinVersion,
    client_auth: ClientAuth,
    certificates: Arc<dyn rustls::server::ResolvesServerCert>,
) -> Result<Arc<rustls::ServerConfig>, ConfigError> {
    let versions: &[&rustls::SupportedProtocolVersion] = match min_version {
        MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|source| ConfigError::Version { version: min_version, source })?;
    let mut config = match client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Ask => builder.with_client_cert_verifier(Arc::new(client::AskOnly::new())),
    }
    .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(ConfigError::Tickets)?;
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSIONS);
    config.ignore_client_order = false;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
