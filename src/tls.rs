//! TLS: certificates from a folder, chosen by SNI, and the `rustls::ServerConfig` they serve.

use std::path::PathBuf;

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
