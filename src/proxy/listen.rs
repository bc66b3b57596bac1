//! The accept loops.

use std::net::SocketAddr;
use std::time::Duration;

/// The addresses clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Plain HTTP (HTTP/1.1, and HTTP/2 by prior knowledge).
    pub http: Vec<SocketAddr>,
    /// HTTPS (HTTP/1.1 and HTTP/2 by ALPN).
    pub https: Vec<SocketAddr>,
    /// A TLS handshake must end within this.
    pub handshake_timeout: Duration,
    /// Open connections over all listeners; more wait in the kernel's queue.
    pub max_connections: usize,
}
