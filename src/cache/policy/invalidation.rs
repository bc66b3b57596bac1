//! What the answer to an unsafe request makes invalid (RFC 9111 section 4.4).

use http::header::{CONTENT_LOCATION, HeaderMap, LOCATION};
use http::{Method, StatusCode};

use crate::types::HostName;

/// The URI an answer is about, as the key has it.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Normalised.
    pub host: &'a HostName,
    /// The scheme's default where the URI has none.
    pub port: u16,
    /// Path and query in origin form.
    pub path_and_query: &'a str,
}

/// Path and query of every URI of the target's origin whose stored responses a final response makes invalid: the target
/// itself, `Location` and `Content-Location`. Empty for a safe method and for an error.
///
/// A method whose safety is unknown counts as unsafe.
pub fn invalidated(method: &Method, status: StatusCode, target: &Resource<'_>, response: &HeaderMap) -> Vec<String> {
    if is_safe(method) || !(status.is_success() || status.is_redirection()) {
        return Vec::new();
    }
    let mut paths = vec![target.path_and_query.to_owned()];
    for name in [LOCATION, CONTENT_LOCATION] {
        let path = response.get(name).and_then(|value| value.to_str().ok()).and_then(|uri| resolve(target, uri));
        paths.extend(path.filter(|path| !paths.contains(path)));
    }
    paths
}

/// Whether `Content-Location` names the target itself, so that the response to any method is what GET would get
/// (RFC 9110 section 8.7).
pub fn describes_target(target: &Resource<'_>, response: &HeaderMap) -> bool {
    let mut values = response.get_all(CONTENT_LOCATION).iter();
    match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
        (Some(uri), None) => resolve(target, uri).is_some_and(|path| path == target.path_and_query),
        _ => false,
    }
}

/// The methods that RFC 9110 section 9.2.1 and the registry have as safe.
fn is_safe(method: &Method) -> bool {
    method.is_safe() || matches!(method.as_str(), "PROPFIND" | "REPORT" | "SEARCH" | "QUERY" | "PRI")
}

/// Path and query of a URI reference relative to the target (RFC 3986 section 5.2), if it is of the target's origin.
fn resolve(target: &Resource<'_>, reference: &str) -> Option<String> {
    let reference = reference.trim().split('#').next()?;
    let scheme_end = reference.find([':', '/', '?']).filter(|at| reference.as_bytes()[*at] == b':');
    let rest = match scheme_end {
        Some(at) => {
            let same = reference[..at].eq_ignore_ascii_case(target.scheme);
            same.then(|| &reference[at + 1..]).filter(|rest| rest.starts_with("//"))?
        }
        None => reference,
    };
    if let Some(hierarchical) = rest.strip_prefix("//") {
        let end = hierarchical.find(['/', '?']).unwrap_or(hierarchical.len());
        let (authority, path) = hierarchical.split_at(end);
        let authority = authority.rsplit('@').next()?;
        let (host, port) = HostName::parse_with_port(authority).ok()?;
        let default = if target.scheme == "https" { 443 } else { 80 };
        let same = host == *target.host && port.unwrap_or(default) == target.port;
        return same.then(|| if path.starts_with('/') { without_dots(path) } else { format!("/{path}") });
    }
    let base = target.path_and_query.split('?').next().unwrap_or("/");
    Some(match rest.as_bytes().first() {
        None => target.path_and_query.to_owned(),
        Some(b'/') => without_dots(rest),
        Some(b'?') => format!("{base}{rest}"),
        Some(_) => without_dots(&format!("{}{rest}", &base[..base.rfind('/').map_or(0, |at| at + 1)])),
    })
}

/// The path without `.` and `..` segments (RFC 3986 section 5.2.4); the query as it is.
fn without_dots(path_and_query: &str) -> String {
    let (path, query) = match path_and_query.find('?') {
        Some(at) => path_and_query.split_at(at),
        None => (path_and_query, ""),
    };
    if !path.split('/').any(|segment| segment == "." || segment == "..") {
        return path_and_query.to_owned();
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            ".." => drop(kept.pop()),
            "." => {}
            other => kept.push(other),
        }
        if last && matches!(segment, "." | "..") {
            kept.push("");
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn of(method: &str, status: u16, fields: &[(http::HeaderName, &str)]) -> Vec<String> {
        let host = HostName::parse_with_port("example.com").unwrap().0;
        let target = Resource { scheme: "http", host: &host, port: 80, path_and_query: "/a/b?c=d" };
        let headers = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        invalidated(&method, StatusCode::from_u16(status).unwrap(), &target, &headers.collect())
    }

    #[test]
    fn only_the_success_of_an_unsafe_method_invalidates() {
        for (method, status, invalidates) in [
            ("POST", 200, true),
            ("PUT", 204, true),
            ("DELETE", 303, true),
            ("M-SEARCH", 200, true),
            ("PATCH", 404, false),
            ("POST", 500, false),
            ("GET", 200, false),
            ("HEAD", 200, false),
            ("OPTIONS", 200, false),
            ("PROPFIND", 207, false),
        ] {
            assert_eq!(!of(method, status, &[]).is_empty(), invalidates, "{method} {status}");
        }
    }

    #[test]
    fn references_are_resolved_against_the_target_and_kept_to_its_origin() {
        for (reference, path) in [
            ("http://example.com/x", Some("/x")),
            ("HTTP://Example.COM:80/x?y#z", Some("/x?y")),
            ("http://example.com", Some("/")),
            ("http://example.com?q", Some("/?q")),
            ("//example.com/x", Some("/x")),
            ("/x/../y/./z", Some("/y/z")),
            ("x", Some("/a/x")),
            ("../x", Some("/x")),
            ("../../../x", Some("/x")),
            ("..", Some("/")),
            (".", Some("/a/")),
            ("?q=1", Some("/a/b?q=1")),
            ("x?u=http://b/..", Some("/a/x?u=http://b/..")),
            ("https://example.com/x", None),
            ("http://example.com:8080/x", None),
            ("http://other.example/x", None),
            ("//other.example/x", None),
            ("mailto:a@example.com", None),
            ("http:/x", None),
        ] {
            let expected: Vec<String> = ["/a/b?c=d"].into_iter().chain(path).map(str::to_owned).collect();
            for name in [LOCATION, CONTENT_LOCATION] {
                assert_eq!(of("POST", 201, &[(name, reference)]), expected, "{reference}");
            }
        }
        let both = of("POST", 201, &[(LOCATION, "/new"), (CONTENT_LOCATION, "/new")]);
        assert_eq!(both, ["/a/b?c=d", "/new"], "each once");
        assert_eq!(of("POST", 201, &[(LOCATION, "")]), ["/a/b?c=d"]);
    }

    #[test]
    fn content_location_may_name_the_target() {
        let host = HostName::parse_with_port("example.com").unwrap().0;
        let target = Resource { scheme: "https", host: &host, port: 443, path_and_query: "/a?b" };
        for (value, same) in [("/a?b", true), ("https://example.com/a?b", true), ("/a", false), ("//x/a?b", false)] {
            let headers = [(CONTENT_LOCATION, HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(describes_target(&target, &headers), same, "{value}");
        }
        assert!(!describes_target(&target, &HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn no_reference_panics_and_each_gives_an_absolute_path(reference in "[ -~]{0,30}") {
            for path in of("POST", 200, &[(LOCATION, &reference)]) {
                prop_assert!(path.starts_with('/'), "{path}");
            }
        }
    }
}
