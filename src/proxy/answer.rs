//! The answers that the edge makes itself.

use super::failure::Failure;
use super::guard::Refusal;
use http::StatusCode;

/// An answer of the edge's own.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The request is refused.
    Refused(Refusal),
    /// No site has this host: 503, as nginx-proxy answers.
    UnknownHost,
    /// The site has no route for this path.
    NoRoute,
    /// The origin takes other methods: 405 with this `Allow`.
    MethodNotAllowed(&'static str),
    /// The body is larger than the route allows.
    TooLarge,
    /// Go to this URI.
    Redirect(StatusCode, String),
    /// The path names nothing that the bucket could be asked for.
    NoObject(StatusCode, String),
    /// What a PURGE request did, as JSON.
    Purge(StatusCode, String),
    /// A PURGE request that is not allowed.
    PurgeRefused(StatusCode),
    /// The client wants a stored response or none.
    NotStored,
    /// The origin could not answer.
    Failed(Failure),
}

impl Answer {
    /// Its status; `None` when there is nobody left to answer.
    pub fn status(&self) -> Option<StatusCode> {
        Some(match self {
            Self::Refused(refusal) => refusal.status(),
            Self::UnknownHost => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Redirect(status, _) => *status,
            Self::NoObject(status, _) => *status,
            Self::Purge(status, _) | Self::PurgeRefused(status) => *status,
            Self::NotStored => StatusCode::GATEWAY_TIMEOUT,
            Self::Failed(failure) => return failure.status(),
        })
    }

    /// What it says to the client.
    pub fn reason(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.as_str().to_owned(),
            Self::UnknownHost => "no site is configured for this host".to_owned(),
            Self::NoRoute => "this site has no route for the path".to_owned(),
            Self::MethodNotAllowed(allow) => format!("allowed: {allow}"),
            Self::TooLarge => "the request body is too large".to_owned(),
            Self::Redirect(_, to) => format!("see {to}"),
            Self::NoObject(_, reason) => reason.clone(),
            Self::Purge(_, json) => json.clone(),
            Self::PurgeRefused(_) => "purging needs the right token: Authorization: Bearer <purge.token>".to_owned(),
            Self::NotStored => "no stored response can be used, and only-if-cached was asked for".to_owned(),
            Self::Failed(failure) => failure.as_str().replace('_', " "),
        }
    }
}
