//! Which statuses, cookies and bodies are for storing.

use http::header::{
    AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, COOKIE, EXPIRES, HeaderMap, SET_COOKIE, TRANSFER_ENCODING,
};
use http::{StatusCode, Version, request, response};

use super::{MAX_FIELDS, MAX_HEAD, NotStored, ResponseRules, content_length};
use crate::field::cache_control::CacheControl;

/// Bytes of a request's head above which an error that answers it may be about its size.
const USUAL_REQUEST: usize = 8 << 10;

/// Fields that make some server take the request for another one than the key says. Most never reach an origin server
/// on a request whose answer may be stored; that they were sent is reason enough to distrust an error. Those that every
/// honest proxy in front sends (`X-Forwarded-Host` and the like) are not among them: the origin gets ours.
const OVERRIDES: [&str; 8] = [
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-original-url",
    "x-rewrite-url",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// What is done with a response that sets cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCookieRule {
    /// It is not stored.
    Never,
    /// It is stored if none of its cookies can tell one client from another, and reused only for requests without
    /// cookies and credentials of their own. See [`allows_cookies`].
    #[default]
    Harmless,
    /// It is stored if it says so to shared caches: `public`, `s-maxage` or a targeted field. For origins whose every
    /// cookie may be given to every client.
    Explicit,
}

impl SetCookieRule {
    /// The word for configurations and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Harmless => "harmless",
            Self::Explicit => "explicit",
        }
    }
}

/// What is done with the response to a request that has `Cookie`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CookieRule {
    /// It is not stored.
    Never,
    /// It is stored if it speaks to shared caches (`public`, `s-maxage`, a targeted field), if its `Vary` names
    /// `Cookie`, or if it says how long it is fresh and is of a type that pages embed rather than a page or data.
    #[default]
    Careful,
    /// Cookies do not matter. For origins that mark every personal response `private`.
    Ignore,
}

impl CookieRule {
    /// The word for configurations and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Careful => "careful",
            Self::Ignore => "ignore",
        }
    }

    /// Whether the response may be stored although the request had cookies, which the origin server may have read.
    pub(super) fn allows(self, response: &HeaderMap, cc: &CacheControl) -> bool {
        match self {
            Self::Never => false,
            Self::Ignore => true,
            Self::Careful => {
                let shared = cc.public || cc.s_maxage.is_some() || cc.targeted || super::vary::names_cookie(response);
                let explicit = cc.max_age.is_some() || response.contains_key(EXPIRES);
                shared || (explicit && is_asset(response))
            }
        }
    }
}

/// Types that are the same for everybody nearly everywhere: what a page embeds. Pages, data and text are not.
fn is_asset(response: &HeaderMap) -> bool {
    let mut types = response.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let value = value.as_bytes().to_ascii_lowercase();
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    [&b"image/"[..], b"font/", b"audio/", b"video/"].iter().any(|kind| essence.starts_with(kind))
        || matches!(
            essence,
            b"text/css"
                | b"text/javascript"
                | b"application/javascript"
                | b"application/x-javascript"
                | b"application/wasm"
        )
}

/// Whether the status is one that this cache knows, so that of `must-understand, no-store` the first counts (RFC 9111
/// section 5.2.2.3).
pub(super) fn understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=204 | 300..=303 | 307 | 308 | 400 | 403..=406 | 409 | 410 | 414 | 415 | 451 | 500..=504
    )
}

/// Whether a response of this status may be stored if it has a lifetime. Left out are those whose meaning is about one
/// request or one connection alone (401, 412, 421, …), and those that RFC 6585 forbids to store.
pub(super) fn storable(status: StatusCode) -> bool {
    !matches!(
        status.as_u16(),
        100..=199
            | 206
            | 304..=306
            | 401
            | 407
            | 408
            | 411..=413
            | 416
            | 417
            | 421
            | 424..=426
            | 428
            | 429
            | 431
            | 511
    )
}

/// Whether a request could have provoked an error that a usual request for the same target would not get: a large
/// head, bytes that parsers disagree about, credentials, or a field that claims another target or method. An error that answers it
/// must not answer others (cache-poisoned denial of service).
pub(super) fn is_unusual(request: &request::Parts) -> bool {
    let size = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    let target = request.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let odd = |byte: &u8| byte.is_ascii_control() && *byte != b'\t' || *byte >= 0x80;
    size + target > USUAL_REQUEST
        || request.headers.contains_key(AUTHORIZATION)
        || request.headers.keys().any(|name| OVERRIDES.contains(&name.as_str().replace('_', "-").as_str()))
        || request.headers.values().any(|value| value.as_bytes().iter().any(odd))
}

/// Whether a response with `Set-Cookie` may be stored under the rule.
///
/// By [`SetCookieRule::Harmless`] the request has neither `Cookie` nor `Authorization`, so that the content is nobody's
/// own, and each cookie is one that cannot hold an identity: a value of at most [`HARMLESS_VALUE`] bytes, a name that
/// does not speak of sessions, users or tokens, and none of the marks of a secret (`HttpOnly`, `__Host-`, `__Secure-`).
pub(super) fn allows_cookies(
    rule: SetCookieRule,
    request: &request::Parts,
    response: &HeaderMap,
    cc: &CacheControl,
) -> bool {
    if !response.contains_key(SET_COOKIE) {
        return true;
    }
    match rule {
        SetCookieRule::Never => false,
        SetCookieRule::Harmless => {
            let anonymous = !request.headers.contains_key(COOKIE) && !request.headers.contains_key(AUTHORIZATION);
            anonymous && response.get_all(SET_COOKIE).iter().all(|cookie| is_harmless(cookie.as_bytes()))
        }
        SetCookieRule::Explicit => cc.public || cc.s_maxage.is_some() || cc.targeted,
    }
}

/// Bytes of a cookie's value that are too few to name a session or a user: `en`, `dark`, `1`.
pub const HARMLESS_VALUE: usize = 4;

/// Parts of names that speak of an identity, however short its value.
const TELLING: [&str; 16] = [
    "sess", "sid", "uid", "user", "id", "auth", "token", "login", "account", "csrf", "xsrf", "jwt", "visit", "client",
    "cart", "customer",
];

fn is_harmless(cookie: &[u8]) -> bool {
    let Ok(cookie) = std::str::from_utf8(cookie) else { return false };
    let mut parts = cookie.split(';').map(str::trim);
    let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return false };
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
    let secret = name.starts_with("__host-")
        || name.starts_with("__secure-")
        || parts.any(|attribute| attribute.eq_ignore_ascii_case("httponly"));
    !secret && value.len() <= HARMLESS_VALUE && !TELLING.iter().any(|part| name.contains(part))
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length, its last chunk, or its last frame.
    Told,
    /// By the end of the connection, which a server that dies brings about as well.
    UntilClose,
}

/// Whether the end of the content can be told, and whether it is small enough.
///
/// A response with `Transfer-Encoding` that names a coding nobody has registered, and no chunks, ends with the
/// connection (RFC 9112 section 6.3) and is complete if that ended in order (section 8). It is the one kind of response
/// of that framing which is stored, for a short time.
pub(super) fn framing(response: &response::Parts, rules: &ResponseRules) -> Result<Framing, NotStored> {
    let bytes = response.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    if bytes > MAX_HEAD || response.headers.len() > MAX_FIELDS {
        return Err(NotStored::HeadTooLarge);
    }
    if rules.max_object == 0 {
        return Err(NotStored::TooLarge);
    }
    if let Some(length) = content_length(&response.headers)? {
        return if length > rules.max_object { Err(NotStored::TooLarge) } else { Ok(Framing::Told) };
    }
    if response.version == Version::HTTP_2 || response.status == StatusCode::NO_CONTENT {
        return Ok(Framing::Told);
    }
    let codings: Vec<Vec<u8>> = response
        .headers
        .get_all(TRANSFER_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|coding| coding.trim_ascii().to_ascii_lowercase())
        .collect();
    match codings.last().map(Vec::as_slice) {
        Some(b"chunked") => Ok(Framing::Told),
        Some(_) if !codings.iter().any(|coding| is_registered(coding)) && response.version == Version::HTTP_11 => {
            Ok(Framing::UntilClose)
        }
        _ => Err(NotStored::UnknownEnd),
    }
}

/// A coding that changes the bytes, which would have to be undone before they are stored.
fn is_registered(coding: &[u8]) -> bool {
    let name = coding.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    matches!(name, b"chunked" | b"compress" | b"x-compress" | b"deflate" | b"gzip" | b"x-gzip" | b"identity" | b"")
}

/// Whether a response carries a part and is not marked as one, as what is stored as a part is. In other responses than
/// 206 `Content-Range` has no meaning (RFC 9110 section 14.4), but one that reads `bytes 0-4/9` is a mistake that may be
/// meant.
pub(super) fn is_part(response: &response::Parts) -> bool {
    if response.status == StatusCode::PARTIAL_CONTENT {
        return super::part_of(&response.headers).is_none();
    }
    response.headers.contains_key(super::ranges::PART)
        || response.headers.get_all(CONTENT_RANGE).iter().any(|range| {
            let range = range.as_bytes().trim_ascii().to_ascii_lowercase();
            range.strip_prefix(b"bytes").is_some_and(|rest| !rest.first().is_some_and(u8::is_ascii_alphanumeric))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_that_may_name_somebody_is_not_harmless() {
        for (cookie, harmless) in [
            ("a=b", true),
            ("lang=en; Path=/; Max-Age=3600", true),
            ("theme=\"dark\"; Secure; SameSite=Lax", true),
            ("a=", true),
            ("a=12345", false),
            ("a=b; HttpOnly", false),
            ("a=b; httponly", false),
            ("PHPSESSID=1", false),
            ("JSESSIONID=1", false),
            ("uid=42", false),
            ("connect.sid=1", false),
            ("csrftoken=1", false),
            ("__Host-a=b", false),
            ("__Secure-a=b", false),
            ("a", false),
            ("", false),
            ("a=\u{e9}\u{e9}\u{e9}", false),
        ] {
            assert_eq!(is_harmless(cookie.as_bytes()), harmless, "{cookie}");
        }
        assert!(!is_harmless(b"a=\xff"));
    }

    #[test]
    fn odd_requests_are_told_from_usual_ones() {
        let unusual = |name: &str, value: &[u8]| {
            let request = http::Request::builder().uri("/a").header(name, value).body(()).unwrap();
            is_unusual(&request.into_parts().0)
        };
        assert!(!unusual("user-agent", b"Mozilla/5.0\t(X11)"));
        assert!(!unusual("x-large", &[b'x'; 8000]));
        assert!(unusual("x-large", &[b'x'; 8200]));
        assert!(unusual("x-http-method-override", b"POST"));
        assert!(unusual("x-rewrite-url", b"/admin"));
        assert!(unusual("x_rewrite_url", b"/admin"));
        assert!(!unusual("x-forwarded-host", b"example.com"));
        assert!(unusual("x-meta", b"\xc3\xa9"));
    }
}
