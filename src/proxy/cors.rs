//! Cross-origin resource sharing, answered by the edge (the Fetch standard, section "CORS protocol").
//!
//! One stored response serves all sites: the fields are put on when it leaves, and the origin server does not see which
//! site asked.

use crate::cache::rules::Glob;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use std::time::Duration;

/// Which sites may read the answers of a route, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// `scheme://host:port` as browsers send it, `*` in it for a part of the host; `None`: every site.
    pub origins: Option<Vec<Glob>>,
    /// Methods that a preflight allows.
    pub methods: Vec<Method>,
    /// Request fields that a preflight allows; `None`: whatever is asked for.
    pub headers: Option<Vec<HeaderName>>,
    /// Response fields that scripts may read besides the harmless ones.
    pub expose: Vec<HeaderName>,
    /// Whether requests may come with cookies. Not with every site: that would open each user's answers to all.
    pub credentials: bool,
    /// How long browsers keep the answer to a preflight.
    pub max_age: Duration,
}

/// Whether the request only asks whether another may be sent.
pub fn is_preflight(request: &RequestHeader) -> bool {
    request.method == Method::OPTIONS
        && request.headers.contains_key(ORIGIN)
        && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl Cors {
    /// The answer to a preflight: 204 to the sites that are allowed, 403 to others.
    ///
    /// # Errors
    /// A value that no field can hold.
    pub fn preflight(&self, request: &HeaderMap) -> Result<ResponseHeader> {
        let allowed = self.allowed(request);
        let status = if allowed.is_some() { StatusCode::NO_CONTENT } else { StatusCode::FORBIDDEN };
        let mut head = ResponseHeader::build(status, Some(8))?;
        head.insert_header(VARY, "origin, access-control-request-method, access-control-request-headers")?;
        let Some(origin) = allowed else {
            head.insert_header(http::header::CONTENT_LENGTH, 0)?;
            return Ok(head);
        };
        head.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin)?;
        head.insert_header(ACCESS_CONTROL_ALLOW_METHODS, list(self.methods.iter().map(Method::as_str)))?;
        let asked = request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let headers = match &self.headers {
            Some(names) if names.is_empty() => None,
            Some(names) => HeaderValue::try_from(list(names.iter().map(HeaderName::as_str))).ok(),
            None => asked,
        };
        if let Some(headers) = headers {
            head.insert_header(ACCESS_CONTROL_ALLOW_HEADERS, headers)?;
        }
        if self.credentials {
            head.insert_header(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")?;
        }
        head.insert_header(ACCESS_CONTROL_MAX_AGE, self.max_age.as_secs())?;
        Ok(head)
    }

    /// Puts the fields on a response, in place of those the origin server may have set.
    ///
    /// # Errors
    /// A value that no field can hold.
    pub fn dress(&self, request: &HeaderMap, response: &mut ResponseHeader) -> Result<()> {
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
            ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_HEADERS,
            ACCESS_CONTROL_MAX_AGE,
        ] {
            response.remove_header(&name);
        }
        // Also where nothing is allowed: a cache must not give that answer to a site that is.
        if self.origins.is_some() {
            add_vary(response, "origin")?;
        }
        let Some(origin) = self.allowed(request) else { return Ok(()) };
        response.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin)?;
        if self.credentials {
            response.insert_header(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")?;
        }
        if !self.expose.is_empty() {
            let names = list(self.expose.iter().map(HeaderName::as_str));
            response.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, names)?;
        }
        Ok(())
    }

    /// What `Access-Control-Allow-Origin` says; `None`: the site is not allowed, or none asks.
    fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let origin = request.get(ORIGIN)?;
        let Some(globs) = &self.origins else { return Some(HeaderValue::from_static("*")) };
        let text = origin.to_str().ok()?;
        // Nothing but a host and a port stands behind the scheme, so that `*` cannot stand for more.
        let host = text.split_once("://").map_or("", |(_, host)| host);
        let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
        (plain && globs.iter().any(|glob| glob.matches(text))).then(|| origin.clone())
    }
}

/// Adds a name to `Vary` unless it is there, or everything is.
///
/// # Errors
/// None for the names of fields.
pub fn add_vary(response: &mut ResponseHeader, name: &'static str) -> Result<()> {
    let has = response.headers.get_all(VARY).iter().flat_map(|v| v.as_bytes().split(|b| *b == b',')).any(|member| {
        let member = member.trim_ascii();
        member == b"*" || member.eq_ignore_ascii_case(name.as_bytes())
    });
    if !has {
        response.append_header(VARY, name)?;
    }
    Ok(())
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        let origins = (origins != ["*"]).then(|| origins.iter().map(|o| Glob::new(o)).collect());
        Cors {
            origins,
            methods: vec![Method::GET, Method::PUT],
            headers: None,
            expose: vec![HeaderName::from_static("x-total")],
            credentials,
            max_age: Duration::from_secs(600),
        }
    }

    fn from(origin: &str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        map.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-a, x-b"));
        map
    }

    fn dressed(cors: &Cors, request: &HeaderMap) -> ResponseHeader {
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, "https://origin.has.its.own").unwrap();
        cors.dress(request, &mut response).unwrap();
        response
    }

    fn field(head: &ResponseHeader, name: HeaderName) -> &str {
        head.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    #[test]
    fn only_listed_sites_are_allowed() {
        let cors = cors(&["https://app.example", "https://*.shop.example"], true);
        for (origin, allowed) in [
            ("https://app.example", true),
            ("https://a.b.shop.example", true),
            ("http://app.example", false),
            ("https://app.example.evil", false),
            ("https://evil/.shop.example", false),
            ("https://evil@x.shop.example", false),
            ("null", false),
        ] {
            let head = dressed(&cors, &from(origin));
            let expected = if allowed { origin } else { "" };
            assert_eq!(field(&head, ACCESS_CONTROL_ALLOW_ORIGIN), expected, "{origin}");
            assert_eq!(field(&head, ACCESS_CONTROL_ALLOW_CREDENTIALS), if allowed { "true" } else { "" });
            assert_eq!(field(&head, VARY), "origin", "{origin}");
            assert_eq!(cors.preflight(&from(origin)).unwrap().status.as_u16(), if allowed { 204 } else { 403 });
        }
        let head = dressed(&cors, &HeaderMap::new());
        assert_eq!((field(&head, ACCESS_CONTROL_ALLOW_ORIGIN), field(&head, VARY)), ("", "origin"));
    }

    #[test]
    fn what_is_open_to_all_needs_no_vary() {
        let head = dressed(&cors(&["*"], false), &from("https://any"));
        assert_eq!((field(&head, ACCESS_CONTROL_ALLOW_ORIGIN), field(&head, VARY)), ("*", ""));
        assert_eq!(field(&head, ACCESS_CONTROL_EXPOSE_HEADERS), "x-total");
    }

    #[test]
    fn a_preflight_is_told_methods_fields_and_for_how_long() {
        let head = cors(&["https://a"], false).preflight(&from("https://a")).unwrap();
        assert_eq!(field(&head, ACCESS_CONTROL_ALLOW_METHODS), "GET, PUT");
        assert_eq!(field(&head, ACCESS_CONTROL_ALLOW_HEADERS), "x-a, x-b");
        assert_eq!(field(&head, ACCESS_CONTROL_MAX_AGE), "600");
        assert!(field(&head, VARY).contains("origin"));
    }
}
