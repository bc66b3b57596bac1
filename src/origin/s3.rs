//! S3-style origins: a request path becomes an object key, the request is signed, and the answer becomes one a site may
//! give. All of it is pure; the connection is the server pool's.
//!
//! One client request is one or more attempts, in this order: the requested object; where it does not exist, whether
//! `<path>/<index>` does; the single-page fallback; the error document. [`S3Origin::judge`] decides after each.

mod key;
mod request;
mod response;
pub mod sigv4;

use std::net::IpAddr;

use pingora::http::{Method, StatusCode};

use crate::types::Secret;
use sigv4::Signer;

pub use key::{KeyError, MAX_KEY_BYTES};
pub use request::PrepareError;
pub use response::Verdict;

/// A bucket and how its objects become a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `http://host[:port]` or `https://host[:port]`.
    pub endpoint: Endpoint,
    /// The bucket's name.
    pub bucket: String,
    /// The region in the credential scope.
    pub region: String,
    /// Where the bucket's name goes.
    pub style: AddressingStyle,
    /// `None`: requests are not signed (public buckets).
    pub credentials: Option<Credentials>,
    /// Put before every object key as it is (end it in `/` for a folder), without a leading slash; may be empty. Keys of
    /// the fallback and of error documents are below it as well.
    pub prefix: String,
    /// Taken off the request path, at a segment's end, before it becomes an object key; may be empty. A path without it
    /// stays as it is.
    pub strip_prefix: String,
    /// Object name appended to paths that end in `/`, such as `index.html`.
    pub index: Option<String>,
    /// A path without a trailing slash whose `<path>/<index>` exists is redirected (302) to `<path>/`.
    pub directory_redirect: bool,
    /// Single-page application: the object answered with 200 where none has the requested key.
    pub spa_fallback: Option<String>,
    /// Objects served as the body of error statuses: (status, object key).
    pub error_documents: Vec<(u16, String)>,
    /// `x-amz-*` response fields that reach the client; lower case. All others are removed.
    pub allow_amz_headers: Vec<String>,
    /// Limits on connecting and answering.
    pub timeouts: super::http::Timeouts,
    /// A bucket that lacks `s3:ListBucket` answers 403 for keys that do not exist: treat its 403 `AccessDenied` as 404.
    pub forbidden_is_not_found: bool,
}

/// Scheme, host and port of an S3-compatible server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// TLS or not.
    pub tls: bool,
    /// Host name or address, without port (IPv6 without brackets).
    pub host: String,
    /// Port; 80 or 443 where the URL gives none.
    pub port: u16,
}

/// Where the bucket's name goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressingStyle {
    /// `https://endpoint/bucket/key`.
    #[default]
    Path,
    /// `https://bucket.endpoint/key`.
    VirtualHost,
}

/// A static or environment key pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// AWS access key id.
    pub access_key_id: String,
    /// AWS secret access key.
    pub secret_access_key: Secret,
    /// For temporary credentials.
    pub session_token: Option<Secret>,
}

/// Which object of a request is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The one the path names.
    Requested,
    /// The single-page application's.
    Fallback,
    /// The body for an error.
    ErrorDocument {
        /// The error's status.
        status: u16,
    },
    /// Whether the path with a slash would have an index document; asked by HEAD.
    DirectoryProbe,
}

/// Why settings make no S3 origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum S3BuildError {
    /// Not a bucket's name, or one that cannot be part of a host name.
    #[error("`{0}` is not a bucket name: letters, digits, `-`, `.` and `_`, as part of a host name without `_`")]
    Bucket(String),
    /// The endpoint's host cannot be a `Host`.
    #[error("`{0}` is not a host name or IP address")]
    Host(String),
    /// A bucket's name cannot be put before an IP address.
    #[error("virtual-host style needs an endpoint with a host name, not the address {0}; use path style")]
    AddressWithVirtualHost(IpAddr),
    /// The key id or the session token holds characters that no field may.
    #[error("the access key id or session token has characters other than visible ASCII")]
    Credentials,
    /// An error document for what is no error.
    #[error("{0} is not an error status from 400 to 599")]
    ErrorStatus(u16),
}

/// A bucket, its site rules and its signer.
#[derive(Debug)]
pub struct S3Origin {
    /// The value of `Host`, port included where it is not the scheme's.
    host: String,
    /// Whom to resolve and to verify: the endpoint's host, with the bucket in virtual-host style.
    server: String,
    /// `/` or `/bucket/`.
    base: String,
    prefix: String,
    strip_prefix: String,
    index: Option<String>,
    directory_redirect: bool,
    spa_fallback: Option<String>,
    error_documents: Vec<(StatusCode, String)>,
    allow_amz_headers: Vec<String>,
    forbidden_is_not_found: bool,
    signer: Option<Signer>,
    session_token: Option<Secret>,
}

impl S3Origin {
    /// Makes an origin of its settings.
    ///
    /// # Errors
    /// See [`S3BuildError`].
    pub fn build(settings: &Settings) -> Result<Self, S3BuildError> {
        let Settings {
            endpoint,
            bucket,
            region,
            style,
            credentials,
            prefix,
            strip_prefix,
            index,
            directory_redirect,
            spa_fallback,
            error_documents,
            allow_amz_headers,
            timeouts: _,
            forbidden_is_not_found,
        } = settings;
        let (server, base) = addressing(endpoint, bucket, *style)?;
        if credentials.as_ref().is_some_and(|credentials| !credentials.fit_in_fields()) {
            return Err(S3BuildError::Credentials);
        }
        Ok(Self {
            host: endpoint.authority(&server),
            server,
            base,
            prefix: without_slash(prefix).to_owned(),
            strip_prefix: without_slash(strip_prefix).trim_end_matches('/').to_owned(),
            index: index.clone().filter(|index| !index.is_empty()),
            directory_redirect: *directory_redirect,
            spa_fallback: spa_fallback.as_deref().map(without_slash).map(str::to_owned),
            error_documents: error_documents.iter().map(error_document).collect::<Result<_, _>>()?,
            allow_amz_headers: allow_amz_headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
            forbidden_is_not_found: *forbidden_is_not_found,
            signer: credentials.as_ref().map(|c| Signer::new(&c.access_key_id, &c.secret_access_key, region, "s3")),
            session_token: credentials.as_ref().and_then(|c| c.session_token.clone()),
        })
    }

    /// Whether the bucket may be asked with `method`: GET and HEAD; any other is answered 405 with `Allow: GET, HEAD`.
    pub fn allows(&self, method: &Method) -> bool {
        matches!(*method, Method::GET | Method::HEAD)
    }

    /// What is appended to paths that end in `/`.
    pub fn index(&self) -> Option<&str> {
        self.index.as_deref()
    }

    /// The host to connect to and to verify: a name or an address, without port.
    pub fn server(&self) -> &str {
        &self.server
    }
}

impl Endpoint {
    /// `server` as `Host` has it: IPv6 in brackets, the port where it is not the scheme's default (RFC 9110 section 7.2).
    fn authority(&self, server: &str) -> String {
        let host = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl Credentials {
    fn fit_in_fields(&self) -> bool {
        let token = self.session_token.as_ref().map_or("x", Secret::expose);
        [self.access_key_id.as_str(), token]
            .iter()
            .all(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()))
    }
}

/// Server and path base.
fn addressing(endpoint: &Endpoint, bucket: &str, style: AddressingStyle) -> Result<(String, String), S3BuildError> {
    let address: Option<IpAddr> = endpoint.host.parse().ok();
    let name_like =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if address.is_none() && !name_like(&endpoint.host) {
        return Err(S3BuildError::Host(endpoint.host.clone()));
    }
    if !name_like(bucket) || bucket == "." || bucket == ".." {
        return Err(S3BuildError::Bucket(bucket.to_owned()));
    }
    match (style, address) {
        (AddressingStyle::Path, _) => Ok((endpoint.host.clone(), format!("/{bucket}/"))),
        (AddressingStyle::VirtualHost, Some(address)) => Err(S3BuildError::AddressWithVirtualHost(address)),
        (AddressingStyle::VirtualHost, None) if bucket.contains('_') => Err(S3BuildError::Bucket(bucket.to_owned())),
        (AddressingStyle::VirtualHost, None) => Ok((format!("{bucket}.{}", endpoint.host), "/".to_owned())),
    }
}

fn error_document((status, key): &(u16, String)) -> Result<(StatusCode, String), S3BuildError> {
    StatusCode::from_u16(*status)
        .ok()
        .filter(|status| status.is_client_error() || status.is_server_error())
        .map(|status| (status, without_slash(key).to_owned()))
        .ok_or(S3BuildError::ErrorStatus(*status))
}

/// Keys have no leading slash by nature; people write one.
fn without_slash(key: &str) -> &str {
    key.strip_prefix('/').unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn settings() -> Settings {
        Settings {
            endpoint: Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: 9000 },
            bucket: "assets".to_owned(),
            region: "us-east-1".to_owned(),
            style: AddressingStyle::Path,
            credentials: Some(Credentials {
                access_key_id: "AKIDEXAMPLE".to_owned(),
                secret_access_key: Secret::new("secret"),
                session_token: None,
            }),
            prefix: String::new(),
            strip_prefix: String::new(),
            index: Some("index.html".to_owned()),
            directory_redirect: false,
            spa_fallback: None,
            error_documents: Vec::new(),
            allow_amz_headers: Vec::new(),
            timeouts: super::super::http::Timeouts::default(),
            forbidden_is_not_found: false,
        }
    }

    #[test]
    fn the_bucket_goes_into_the_path_or_the_host() {
        let name = |tls, port| Endpoint { tls, host: "s3.example".to_owned(), port };
        let v6 = Endpoint { tls: false, host: "::1".to_owned(), port: 9000 };
        for (endpoint, style, host, base) in [
            (name(true, 443), AddressingStyle::Path, "s3.example", "/assets/"),
            (name(true, 80), AddressingStyle::Path, "s3.example:80", "/assets/"),
            (name(false, 80), AddressingStyle::VirtualHost, "assets.s3.example", "/"),
            (name(true, 8443), AddressingStyle::VirtualHost, "assets.s3.example:8443", "/"),
            (v6, AddressingStyle::Path, "[::1]:9000", "/assets/"),
        ] {
            let origin = S3Origin::build(&Settings { endpoint, style, ..settings() }).unwrap();
            assert_eq!((origin.host.as_str(), origin.base.as_str()), (host, base));
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let build = |change: fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            S3Origin::build(&settings).map(|_| ()).unwrap_err()
        };
        assert_eq!(build(|s| s.bucket = "a/b".into()), S3BuildError::Bucket("a/b".into()));
        assert_eq!(build(|s| s.bucket = "..".into()), S3BuildError::Bucket("..".into()));
        assert_eq!(build(|s| s.endpoint.host = "a b".into()), S3BuildError::Host("a b".into()));
        assert_eq!(build(|s| s.error_documents = vec![(200, "x".into())]), S3BuildError::ErrorStatus(200));
        assert!(matches!(build(|s| s.style = AddressingStyle::VirtualHost), S3BuildError::AddressWithVirtualHost(_)));
        let credentials = build(|s| {
            if let Some(credentials) = &mut s.credentials {
                credentials.session_token = Some(Secret::new("a\nb"));
            }
        });
        assert_eq!(credentials, S3BuildError::Credentials);
    }

    #[test]
    fn only_get_and_head_are_allowed() {
        let origin = S3Origin::build(&settings()).unwrap();
        assert!(origin.allows(&Method::GET) && origin.allows(&Method::HEAD));
        for method in [Method::PUT, Method::POST, Method::DELETE, Method::OPTIONS, Method::PATCH, Method::TRACE] {
            assert!(!origin.allows(&method), "{method}");
        }
    }
}
