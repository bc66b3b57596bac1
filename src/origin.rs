//! Reaching origin servers.

pub mod http;
pub mod s3;

/// How an origin is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum Settings {
    /// HTTP servers.
    Http(http::Settings),
    /// A bucket on an S3-style server.
    S3(s3::Settings),
}
