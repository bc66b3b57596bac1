//! Who may ask for what.
//!
//! With a token, the token decides. Without one, whoever reaches the socket may use it, and what must not reach it is a
//! web page: a browser on the same machine can be made to send requests to loopback, either across sites (they carry
//! `Origin` or `Sec-Fetch-Site`) or under a foreign name that was pointed at loopback (they carry that name as `Host`).

use crate::types::{HostName, Secret};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, Method, Version};
use std::net::IpAddr;

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the request has no valid Host field (RFC 9112 section 3.2)")]
    NoHost,
    #[error("a web page sent this request; send it without Origin and Sec-Fetch-Site, or set admin.token")]
    CrossSite,
    #[error("the Host field is neither an IP address nor localhost; use one of them, or set admin.token")]
    ForeignHost,
    #[error("this needs a token; send `Authorization: Bearer <admin.token>`")]
    NoToken,
    #[error("the token is wrong; send the value of admin.token")]
    WrongToken,
}

/// Decides on one request head; `path` is the request's.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<Secret>,
    /// A web page cannot reach a unix socket, and its clients put any name into `Host`.
    unix: bool,
}

impl Guard {
    pub(super) fn new(address_is_unix: bool, token: Option<Secret>) -> Self {
        Self { token, unix: address_is_unix }
    }

    pub(super) fn check(
        &self,
        method: &Method,
        path: &str,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let host = host(version, headers)?;
        if matches!(path, "/healthz" | "/readyz") {
            return Ok(());
        }
        match &self.token {
            Some(token) => check_token(token, headers),
            None if !self.unix && !host.as_ref().is_none_or(names_this_machine) => Err(Refusal::ForeignHost),
            None if !method.is_safe() && sent_by_a_page(headers) => Err(Refusal::CrossSite),
            None => Ok(()),
        }
    }
}

/// The one `Host`; only HTTP/1.0 may do without.
fn host(version: Version, headers: &HeaderMap) -> Result<Option<HostName>, Refusal> {
    let mut values = headers.get_all(HOST).iter();
    match (values.next(), values.next()) {
        (None, _) if version == Version::HTTP_10 => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| Refusal::NoHost)?;
            HostName::parse_with_port(text).map(|(host, _)| Some(host)).map_err(|_| Refusal::NoHost)
        }
        _ => Err(Refusal::NoHost),
    }
}

fn names_this_machine(host: &HostName) -> bool {
    let host = host.as_str();
    // An address in brackets was parsed as one when it became a HostName.
    host == "localhost" || host.starts_with('[') || host.parse::<IpAddr>().is_ok()
}

fn sent_by_a_page(headers: &HeaderMap) -> bool {
    // `none` is a person's own act, such as typing the address.
    let fetched = headers.get("sec-fetch-site").is_some_and(|site| site != "none");
    headers.contains_key(ORIGIN) || fetched
}

/// RFC 6750 section 2.1; the scheme's name is compared without case (RFC 9110 section 11.1).
fn check_token(token: &Secret, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Refusal::NoToken) };
    let (scheme, given) = value.as_bytes().split_at_checked(7).ok_or(Refusal::NoToken)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(Refusal::NoToken);
    }
    if token.matches(given.trim_ascii()) { Ok(()) } else { Err(Refusal::WrongToken) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::HeaderName;

    fn check(guard: &Guard, method: Method, path: &str, fields: &[(&str, &str)]) -> Result<(), Refusal> {
        let headers = fields
            .iter()
            .map(|(name, value)| {
                (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
            })
            .collect::<HeaderMap>();
        guard.check(&method, path, Version::HTTP_11, &headers)
    }

    #[test]
    fn without_a_token_a_web_page_gets_nothing() {
        let guard = Guard::new(false, None);
        let post = |fields: &[(&str, &str)]| check(&guard, Method::POST, "/purge", fields);
        for host in ["127.0.0.1:18090", "localhost:18090", "LOCALHOST", "[::1]:18090", "10.1.2.3"] {
            assert_eq!(post(&[("host", host)]), Ok(()), "{host}");
        }
        for host in ["evil.example", "evil.example:18090", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert_eq!(post(&[("host", host)]), Err(Refusal::ForeignHost), "{host}");
            assert_eq!(check(&guard, Method::GET, "/metrics", &[("host", host)]), Err(Refusal::ForeignHost));
            assert_eq!(check(&guard, Method::GET, "/healthz", &[("host", host)]), Ok(()));
        }
        for (name, value) in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
        {
            assert_eq!(post(&[("host", "127.0.0.1"), (name, value)]), Err(Refusal::CrossSite), "{name}: {value}");
        }
        for fields in [&[][..], &[("host", "a b")], &[("host", "127.0.0.1"), ("host", "localhost")]] {
            assert_eq!(post(fields), Err(Refusal::NoHost), "{fields:?}");
        }
        assert_eq!(guard.check(&Method::GET, "/metrics", Version::HTTP_10, &HeaderMap::new()), Ok(()));
    }

    #[test]
    fn a_unix_socket_takes_any_host() {
        let guard = Guard::new(true, None);
        assert_eq!(check(&guard, Method::POST, "/purge", &[("host", "selvedge")]), Ok(()));
    }

    #[test]
    fn with_a_token_all_but_health_needs_it() {
        let guard = Guard::new(false, Some(Secret::new("hunter2")));
        let get = |fields: &[(&str, &str)]| {
            let mut all = vec![("host", "edge.example:18090")];
            all.extend(fields);
            check(&guard, Method::GET, "/metrics", &all)
        };
        for authorization in ["Bearer hunter2", "bearer hunter2", "BEARER  hunter2 "] {
            assert_eq!(get(&[("authorization", authorization)]), Ok(()), "{authorization}");
        }
        for (authorization, refusal) in [
            ("Bearer hunter3", Refusal::WrongToken),
            ("Bearer ", Refusal::WrongToken),
            ("Bearer", Refusal::NoToken),
            ("", Refusal::NoToken),
            ("Basic aHVudGVyMg==", Refusal::NoToken),
            ("hunter2", Refusal::NoToken),
        ] {
            assert_eq!(get(&[("authorization", authorization)]), Err(refusal), "{authorization}");
        }
        assert_eq!(get(&[]), Err(Refusal::NoToken));
        let twice = [("authorization", "Bearer x"), ("authorization", "Bearer hunter2")];
        assert_eq!(get(&twice), Err(Refusal::NoToken));
        for path in ["/healthz", "/readyz"] {
            assert_eq!(check(&guard, Method::GET, path, &[("host", "edge.example")]), Ok(()));
        }
        assert_eq!(check(&guard, Method::GET, "/secret", &[("host", "edge.example")]), Err(Refusal::NoToken));
    }
}
