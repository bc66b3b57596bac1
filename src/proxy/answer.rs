//! The answers that the edge makes itself.

use super::access::Exceeded;
use super::failure::Failure;
use super::guard::Refusal;
use crate::route::traffic::Respond;
use crate::tls::client::ClientRefusal;
use bytes::Bytes;
use http::StatusCode;
use std::sync::Arc;

/// An answer of the edge's own.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The request is refused.
    Refused(Refusal),
    /// No site has this host: as a rule 503, as nginx-proxy answers. With the operator's HTML page, if there is one.
    UnknownHost(StatusCode, Option<Arc<str>>),
    /// What an ACME authority asks for, or nothing of that name.
    Challenge(Option<Bytes>),
    /// Nothing: the connection is closed.
    Dropped,
    /// The site has no route for this path.
    NoRoute(StatusCode),
    /// The site is not served by plain HTTP: 503, as nginx-proxy answers.
    PlainHttpOff,
    /// The connection was begun for another site, and this one wants a certificate that was not asked for.
    Misdirected,
    /// No certificate, or none that is good: 400, as nginx answers.
    NoCertificate(ClientRefusal),
    /// The client's network is not let in.
    Forbidden,
    /// The client asks too often.
    TooMany(Exceeded),
    /// A name and a password are wanted for this realm.
    Unauthorized(Arc<str>),
    /// The origin takes other methods: 405 with this `Allow`.
    MethodNotAllowed(&'static str),
    /// The body is larger than the route allows.
    TooLarge,
    /// What a traffic rule says.
    Fixed(Box<Respond>),
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
            Self::UnknownHost(status, _) | Self::NoRoute(status) => *status,
            Self::Challenge(Some(_)) => StatusCode::OK,
            Self::Challenge(None) => StatusCode::NOT_FOUND,
            Self::Dropped => return None,
            Self::PlainHttpOff => StatusCode::SERVICE_UNAVAILABLE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoCertificate(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Fixed(respond) => respond.status,
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
            Self::Challenge(Some(_)) => "an ACME challenge".to_owned(),
            Self::Challenge(None) => "there is no such ACME challenge".to_owned(),
            Self::UnknownHost(..) => "no site is configured for this host".to_owned(),
            Self::Dropped => "closed without an answer".to_owned(),
            Self::PlainHttpOff => "this site is not served over plain HTTP".to_owned(),
            Self::Misdirected => "this connection was begun for another site".to_owned(),
            Self::NoCertificate(ClientRefusal::None) => "no required client certificate was sent".to_owned(),
            Self::NoCertificate(_) => "the client certificate is not accepted".to_owned(),
            Self::Forbidden => "access from this network is not allowed".to_owned(),
            Self::Fixed(_) => "answered by a traffic rule".to_owned(),
            Self::TooMany(exceeded) => format!("too many requests; try again in {} s", exceeded.retry_after),
            Self::Unauthorized(_) => "a user name and a password are required".to_owned(),
            Self::NoRoute(_) => "this site has no route for the path".to_owned(),
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
