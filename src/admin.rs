//! The operator's listener: health, readiness, metrics, purge.

use crate::types::Secret;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the admin listener is and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its address.
    pub address: Address,
    /// Bearer token; configuration requires one when the address is neither loopback nor a unix socket.
    pub token: Option<Secret>,
}

/// A TCP address or a unix socket's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `127.0.0.1:18090`.
    Tcp(SocketAddr),
    /// `unix:/run/selvedge/admin.sock`.
    Unix(PathBuf),
}
