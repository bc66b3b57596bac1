//! The first look at a request: one target URI, or the reason why it is refused.

use super::target::{Scheme, Target};
use crate::types::HostName;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::http::RequestHeader;
use pingora::http::authority::{RawTargetAuthority, is_http_family_scheme, raw_target_authority};

/// RFC 8586: each CDN that forwards a request adds its identifier.
pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Why a request is refused before it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No `Host` field and no authority in the target (RFC 9112 section 3.2).
    NoHost,
    /// The host or port cannot be parsed.
    BadHost,
    /// Neither origin form, absolute form nor `OPTIONS *` (RFC 9112 section 3.2), or not UTF-8.
    BadTarget,
    /// A `Content-Length` that is not one number (RFC 9112 section 6.3): another server may read another one.
    BadLength,
    /// CONNECT is for forward proxies (RFC 9110 section 9.3.6).
    Connect,
    /// TRACE would send the client's secrets back to a script (RFC 9110 section 9.3.8 permits refusing it).
    Trace,
    /// The request has passed through this node already (RFC 8586 section 2).
    Loop,
}

impl Refusal {
    /// The status that answers it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoHost | Self::BadHost | Self::BadTarget | Self::BadLength | Self::Connect => StatusCode::BAD_REQUEST,
            Self::Trace => StatusCode::METHOD_NOT_ALLOWED,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }

    /// For the access log and the body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoHost => "the request has no Host",
            Self::BadHost => "the Host is malformed",
            Self::BadTarget => "the request target is malformed",
            Self::BadLength => "the Content-Length is malformed",
            Self::Connect => "CONNECT is not supported",
            Self::Trace => "TRACE is not supported",
            Self::Loop => "the request has passed through this node before",
        }
    }
}

/// Parses the target URI of a request that arrived by `scheme`.
///
/// The core has already refused several or conflicting `Host` and `:authority` values.
///
/// # Errors
/// The [`Refusal`] to answer with.
pub fn target(request: &RequestHeader, scheme: Scheme) -> Result<Target, Refusal> {
    if request.method == Method::TRACE {
        return Err(Refusal::Trace);
    }
    if request.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    if !has_one_length(&request.headers) {
        return Err(Refusal::BadLength);
    }
    if !request.raw_path_is_utf8() {
        return Err(Refusal::BadTarget);
    }
    let (authority, path_and_query) = split(request)?;
    let authority = match authority {
        Some(authority) => authority,
        None => request.headers.get(HOST).ok_or(Refusal::NoHost)?.as_bytes(),
    };
    if authority.is_empty() {
        return Err(Refusal::NoHost);
    }
    let authority = std::str::from_utf8(authority).map_err(|_| Refusal::BadHost)?;
    let (host, port) = HostName::parse_with_port(authority).map_err(|_| Refusal::BadHost)?;
    let path_and_query = std::str::from_utf8(path_and_query).map_err(|_| Refusal::BadTarget)?;
    let path_and_query = match path_and_query.as_bytes().first() {
        Some(b'/') => path_and_query.into(),
        Some(b'*') if path_and_query == "*" && request.method == Method::OPTIONS => path_and_query.into(),
        // The absolute form may leave out an empty path (RFC 9112 section 3.2.2).
        Some(b'?') => format!("/{path_and_query}").into(),
        None => "/".into(),
        Some(_) => return Err(Refusal::BadTarget),
    };
    Ok(Target { scheme, host, port: port.filter(|p| *p != scheme.default_port()), path_and_query })
}

/// Authority, where the target has one, and path with query. HTTP/2 has them parsed; the core leaves an HTTP/1 target
/// in absolute form as it came.
fn split(request: &RequestHeader) -> Result<(Option<&[u8]>, &[u8]), Refusal> {
    if let Some(authority) = request.uri.authority() {
        let path = request.uri.path_and_query().map_or("", |p| p.as_str());
        return Ok((Some(authority.as_str().as_bytes()), path.as_bytes()));
    }
    match raw_target_authority(request.raw_path()) {
        RawTargetAuthority::None => Ok((None, request.raw_path())),
        RawTargetAuthority::Absolute { scheme, authority, path_and_query } if is_http_family_scheme(scheme) => {
            Ok((Some(authority), path_and_query))
        }
        RawTargetAuthority::Absolute { .. } | RawTargetAuthority::AmbiguousAuthority => Err(Refusal::BadTarget),
    }
}

/// Whether the length is given at most once, by digits only. The core reads `5, 5` and repeated fields as one length, but
/// sends them on as they are.
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    let first = lengths.next().is_none_or(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit));
    first && lengths.next().is_none()
}

/// Whether `node` has forwarded this request before. Other nodes of a fleet may have: the identifier names the node.
pub fn loops(headers: &HeaderMap, node: &str) -> bool {
    headers
        .get_all(CDN_LOOP)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|info| info.split(';').next().is_some_and(|id| id.trim() == node))
}

/// A fuzz target: the first line is a request target, the second a `Host`, both as they come. What is accepted is one
/// URI that is understood again as itself.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (uri, host) = (lines.next().unwrap_or_default(), lines.next());
    let Ok(mut request) = RequestHeader::build(Method::GET, uri, None) else { return };
    if let Some(value) = host.and_then(|host| HeaderValue::from_bytes(host).ok()) {
        let _ = request.insert_header(HOST, value);
    }
    let Ok(found) = target(&request, Scheme::Https) else { return };
    assert!(found.path_and_query.starts_with('/'), "{found:?}");
    let Ok(mut again) = RequestHeader::build(Method::GET, found.path_and_query.as_bytes(), None) else { return };
    let _ = again.insert_header(HOST, found.authority());
    match target(&again, Scheme::Https) {
        Ok(again) => assert!(
            again.host == found.host && again.port == found.port && again.path_and_query == found.path_and_query,
            "{found:?} {again:?}"
        ),
        Err(refusal) => panic!("{found:?} is then refused: {refusal:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, host: Option<&str>) -> RequestHeader {
        let mut request = RequestHeader::build(method, target.as_bytes(), None).unwrap();
        if let Some(host) = host {
            request.insert_header(HOST, host).unwrap();
        }
        request
    }

    #[test]
    fn targets_are_normalised_to_one_uri() {
        for (uri, host, scheme, authority, path) in [
            ("/a?b=c", Some("WWW.Example.com.:443"), Scheme::Https, "www.example.com", "/a"),
            ("/", Some("a.example:443"), Scheme::Http, "a.example:443", "/"),
            ("http://a.example/x?y", None, Scheme::Http, "a.example", "/x"),
            ("http://a.example?y", None, Scheme::Http, "a.example", "/"),
            ("/%2e%2e//b", Some("[::1]:8080"), Scheme::Http, "[::1]:8080", "/%2e%2e//b"),
        ] {
            let target = target(&request("GET", uri, host), scheme).expect(uri);
            assert_eq!((target.authority().as_str(), target.path()), (authority, path), "{uri}");
        }
    }

    #[test]
    fn what_has_no_single_reading_is_refused() {
        for (method, uri, host, refusal) in [
            ("GET", "/", None, Refusal::NoHost),
            ("GET", "/", Some(""), Refusal::NoHost),
            ("GET", "/", Some("x:80x"), Refusal::BadHost),
            ("GET", "/", Some("a b"), Refusal::BadHost),
            ("GET", "*", Some("a"), Refusal::BadTarget),
            ("TRACE", "/", Some("a"), Refusal::Trace),
        ] {
            assert_eq!(target(&request(method, uri, host), Scheme::Http).unwrap_err(), refusal, "{method} {uri}");
        }
        assert!(target(&request("OPTIONS", "*", Some("a")), Scheme::Http).is_ok());
    }

    #[test]
    fn a_length_is_one_number() {
        for (lengths, refused) in [
            (&["0"][..], false),
            (&["123"], false),
            (&["5, 5"], true),
            (&["5", "5"], true),
            (&["+5"], true),
            (&["5 "], true),
            (&[""], true),
        ] {
            let mut request = request("POST", "/", Some("a"));
            for length in lengths {
                request.append_header(CONTENT_LENGTH, *length).unwrap();
            }
            let refusal = target(&request, Scheme::Http).err();
            assert_eq!(refusal == Some(Refusal::BadLength), refused, "{lengths:?}");
        }
    }

    #[test]
    fn only_the_node_itself_is_a_loop() {
        let mut headers = HeaderMap::new();
        headers.append(CDN_LOOP, "other, selvedge-1f;v=1".parse().unwrap());
        assert!(loops(&headers, "selvedge-1f"));
        assert!(!loops(&headers, "selvedge-1"));
    }
}
