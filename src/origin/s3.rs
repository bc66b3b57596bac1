//! S3-style origins.

use crate::types::Secret;

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
    /// Put before every object key, without a leading slash; may be empty.
    pub prefix: String,
    /// Taken off the request path before it becomes an object key; may be empty.
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
