//! Causes become answers in one place: status, `Proxy-Status` (RFC 9209), metric label, retry or not.

use http::StatusCode;
use pingora::{Error, ErrorSource, ErrorType};

/// Why a request could not be answered by its origin, by the error types of RFC 9209 section 2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The origin's name does not resolve.
    Dns,
    /// Every server of the origin is out of service.
    Unavailable,
    /// Every server has as many requests as it may have.
    ConnectionLimit,
    /// The connection was refused.
    ConnectionRefused,
    /// The connection did not come about in time.
    ConnectionTimeout,
    /// The connection broke before the response was whole.
    ConnectionTerminated,
    /// The origin's certificate does not verify.
    TlsCertificate,
    /// Another TLS failure towards the origin.
    TlsProtocol,
    /// No response in time.
    ResponseTimeout,
    /// The response broke off.
    ResponseIncomplete,
    /// What came is no HTTP response.
    ProtocolError,
    /// The request's body is larger than the route allows.
    RequestTooLarge,
    /// The request is malformed.
    RequestError,
    /// The client went away.
    ClientGone,
    /// A fault of our own.
    Internal,
}

impl Failure {
    /// The RFC 9209 token; also the `kind` label of `selvedge_origin_errors_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns_error",
            Self::Unavailable => "destination_unavailable",
            Self::ConnectionLimit => "connection_limit_reached",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTimeout => "connection_timeout",
            Self::ConnectionTerminated => "connection_terminated",
            Self::TlsCertificate => "tls_certificate_error",
            Self::TlsProtocol => "tls_protocol_error",
            Self::ResponseTimeout => "http_response_timeout",
            Self::ResponseIncomplete => "http_response_incomplete",
            Self::ProtocolError => "http_protocol_error",
            Self::RequestTooLarge => "http_request_error",
            Self::RequestError => "http_request_error",
            Self::ClientGone => "client_gone",
            Self::Internal => "proxy_internal_error",
        }
    }

    /// The status that answers it; `None` when there is nobody left to answer.
    pub fn status(self) -> Option<StatusCode> {
        Some(match self {
            Self::Dns
            | Self::ConnectionRefused
            | Self::ConnectionTerminated
            | Self::TlsCertificate
            | Self::TlsProtocol
            | Self::ResponseIncomplete
            | Self::ProtocolError => StatusCode::BAD_GATEWAY,
            Self::Unavailable | Self::ConnectionLimit => StatusCode::SERVICE_UNAVAILABLE,
            Self::ConnectionTimeout | Self::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestError => StatusCode::BAD_REQUEST,
            Self::ClientGone => return None,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        })
    }

    /// Whether the origin is to blame, so that its server's health suffers.
    pub fn is_origins(self) -> bool {
        !matches!(self, Self::RequestTooLarge | Self::RequestError | Self::ClientGone | Self::Internal)
    }
}

/// The failure that an error of the proxy core stands for.
pub fn classify(error: &Error) -> Failure {
    use ErrorType as E;
    match (error.esource(), error.etype()) {
        (_, E::HTTPStatus(413)) => Failure::RequestTooLarge,
        (_, E::HTTPStatus(400..=499)) => Failure::RequestError,
        (_, E::HTTPStatus(503)) => Failure::Unavailable,
        (_, E::HTTPStatus(502)) => Failure::Dns,
        (ErrorSource::Upstream, kind) => classify_upstream(kind),
        (ErrorSource::Downstream, E::ReadTimedout | E::WriteTimedout | E::ReadError | E::WriteError) => {
            Failure::ClientGone
        }
        (ErrorSource::Downstream, E::ConnectionClosed) => Failure::ClientGone,
        (ErrorSource::Downstream, _) => Failure::RequestError,
        (ErrorSource::Internal | ErrorSource::Unset, _) => Failure::Internal,
    }
}

fn classify_upstream(kind: &ErrorType) -> Failure {
    use ErrorType as E;
    match kind {
        E::ConnectTimedout | E::TLSHandshakeTimedout => Failure::ConnectionTimeout,
        E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::SocketError | E::BindError => {
            Failure::ConnectionRefused
        }
        E::InvalidCert => Failure::TlsCertificate,
        E::TLSHandshakeFailure | E::HandshakeError => Failure::TlsProtocol,
        E::ReadTimedout | E::WriteTimedout => Failure::ResponseTimeout,
        E::ConnectionClosed => Failure::ResponseIncomplete,
        E::ReadError | E::WriteError => Failure::ConnectionTerminated,
        E::InvalidHTTPHeader | E::H1Error | E::H2Error | E::InvalidH2 | E::H2Downgrade => Failure::ProtocolError,
        _ => Failure::ConnectionTerminated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_become_their_status_and_token() {
        let up = |kind| Error::create(kind, ErrorSource::Upstream, None, None);
        let down = |kind| Error::create(kind, ErrorSource::Downstream, None, None);
        for (error, token, status) in [
            (up(ErrorType::ConnectRefused), "connection_refused", Some(502)),
            (up(ErrorType::ConnectTimedout), "connection_timeout", Some(504)),
            (up(ErrorType::ReadTimedout), "http_response_timeout", Some(504)),
            (up(ErrorType::ConnectionClosed), "http_response_incomplete", Some(502)),
            (up(ErrorType::InvalidHTTPHeader), "http_protocol_error", Some(502)),
            (up(ErrorType::InvalidCert), "tls_certificate_error", Some(502)),
            (down(ErrorType::HTTPStatus(413)), "http_request_error", Some(413)),
            (down(ErrorType::InvalidHTTPHeader), "http_request_error", Some(400)),
            (down(ErrorType::WriteError), "client_gone", None),
            (
                Error::create(ErrorType::InternalError, ErrorSource::Internal, None, None),
                "proxy_internal_error",
                Some(500),
            ),
        ] {
            let failure = classify(&error);
            assert_eq!((failure.as_str(), failure.status().map(|s| s.as_u16())), (token, status), "{error}");
        }
    }

    #[test]
    fn only_the_origins_own_faults_count_against_it() {
        assert!(Failure::ConnectionRefused.is_origins() && Failure::ResponseTimeout.is_origins());
        assert!(!Failure::ClientGone.is_origins() && !Failure::RequestError.is_origins());
    }
}
