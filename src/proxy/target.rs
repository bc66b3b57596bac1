//! What a request is for, and its name in the logs.

use crate::cache::policy::Resource;
use crate::types::HostName;
use std::fmt;

/// The scheme a request came by, and so the scheme of its target URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The target URI (RFC 9110 section 7.1), normalised for routing and the cache key.
#[derive(Clone, Debug)]
pub struct Target {
    /// From the connection.
    pub scheme: Scheme,
    /// From `:authority`, the absolute form, or `Host`.
    pub host: HostName,
    /// `None`: the scheme's default.
    pub port: Option<u16>,
    /// Path and query as sent, in origin form.
    pub path_and_query: Box<str>,
}

impl Target {
    /// The path without the query, still percent-encoded.
    pub fn path(&self) -> &str {
        self.path_and_query.split_once('?').map_or(&*self.path_and_query, |(path, _)| path)
    }

    /// The same for [`crate::cache::policy`].
    pub fn resource(&self) -> Resource<'_> {
        Resource {
            scheme: self.scheme.as_str(),
            host: &self.host,
            port: self.port.unwrap_or(self.scheme.default_port()),
            path_and_query: &self.path_and_query,
        }
    }

    /// Host and, where it is not the default, port.
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.to_string(),
        }
    }
}

/// 128 bits that name one request; written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub [u8; 16]);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
