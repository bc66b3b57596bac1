//! The fields that concern one connection only and are neither forwarded nor stored (RFC 9110 section 7.6.1).

use http::header::{CONNECTION, HeaderMap, HeaderName};

/// Hop-by-hop by definition, whether or not `Connection` names them.
pub const HOP_BY_HOP: [HeaderName; 8] = [
    http::header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::TE,
    http::header::TRAILER,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// The hop-by-hop fields present in a message: the standard ones and those its `Connection` field names.
///
/// The framing field `Content-Length` cannot be nominated away: RFC 9110 forbids naming it, and a message that lost
/// it would be read as another one.
pub fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = HOP_BY_HOP.iter().filter(|name| headers.contains_key(*name)).cloned().collect();
    for value in headers.get_all(CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',') {
            let Ok(name) = HeaderName::from_bytes(option.trim_ascii()) else { continue };
            if name != http::header::CONTENT_LENGTH && headers.contains_key(&name) && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_connection_names_is_hop_by_hop() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret,, bad name, absent"),
            ("connection", "Content-Length, keep-alive"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("content-length", "3"),
            ("etag", "\"a\""),
            ("transfer-encoding", "chunked"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut names: Vec<String> = nominated(&headers).iter().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(names, ["connection", "keep-alive", "transfer-encoding", "x-secret"]);
    }
}
