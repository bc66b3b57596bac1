//! What keeps one person's answers from another.

use http::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, VARY};
use pingora::http::ResponseHeader;

use crate::field::cache_control::CacheControl;

/// How a route takes cookies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cookies {
    /// A request with a cookie is answered from the cache, since what is there was fit for all. What the origin answers
    /// to it is stored only where it says that it is for all: `public`, `s-maxage` or a field for CDNs that gives a
    /// lifetime; or where its `Vary` names `Cookie`, so that it is kept for this very cookie.
    #[default]
    Bypass,
    /// The origin sees no cookie and the client gets none: for assets.
    Strip,
    /// Of all cookies the origin sees those of these names, and they are part of the key.
    Key(Vec<Box<str>>),
}

/// How a route takes `Authorization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authorization {
    /// RFC 9111 section 3.5: stored only where the response allows it expressly.
    #[default]
    Standard,
    /// Such requests are neither looked up nor stored.
    Bypass,
    /// The origin does not see it: for assets.
    Strip,
}

impl Cookies {
    /// The names that are part of the key.
    pub fn keyed(&self) -> &[Box<str>] {
        match self {
            Self::Key(names) => names,
            Self::Bypass | Self::Strip => &[],
        }
    }

    /// Whether a response may depend on a cookie that is not in the key.
    pub(super) fn may_differ(&self) -> bool {
        *self == Self::Bypass
    }

    /// The `Cookie` field that the origin gets of a request that may be stored; `None`: none at all. Cookies that are
    /// not in the key are left out where the rules name some.
    pub fn for_origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        match self {
            Self::Bypass => request.get(COOKIE).cloned(),
            Self::Strip => None,
            Self::Key(names) => {
                let mut kept = Vec::new();
                for name in names {
                    for value in cookie_values(request, name) {
                        if !kept.is_empty() {
                            kept.extend_from_slice(b"; ");
                        }
                        kept.extend_from_slice(name.as_bytes());
                        kept.push(b'=');
                        kept.extend_from_slice(value);
                    }
                }
                if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept).ok() }
            }
        }
    }
}

/// All values of the cookie called `name`, in the order of the request.
pub fn cookie_values<'r>(request: &'r HeaderMap, name: &'r str) -> impl Iterator<Item = &'r [u8]> {
    raw_pairs(request).filter(move |(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
}

/// Names, where they are text, and values.
pub(super) fn cookie_pairs(request: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    raw_pairs(request).filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)))
}

fn raw_pairs(request: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    request.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';')).map(|pair| {
        let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        (pair[..at].trim_ascii(), pair.get(at + 1..).unwrap_or_default().trim_ascii())
    })
}

/// Whether a response says that it may answer anybody, or that it is kept apart by cookie.
pub(super) fn for_all(response: &HeaderMap) -> bool {
    let cc = CacheControl::of_response(response);
    let varies = || {
        let mut names = response.get_all(VARY).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"cookie"))
    };
    cc.public || cc.s_maxage.is_some() || (cc.targeted && cc.max_age.is_some()) || varies()
}

/// Whether the last segment of a path has an asset's extension while the content is a document: what a deceived user's
/// browser fetches when somebody sends them to `/account.php/x.css`. Answers of 300 and above are no such document.
pub(super) fn disguised(path: &str, response: &ResponseHeader) -> bool {
    if !response.status.is_success() {
        return false;
    }
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let segment = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    // Some servers read what is behind these characters as something else than a part of the name.
    segment.split([';', '?', '#', '\0', '\n', '\r', '!', '$', ':']).any(|piece| {
        let Some((_, extension)) = piece.rsplit_once('.') else { return false };
        let extension = extension.trim().to_ascii_lowercase();
        let Some(markup) = asset(&extension) else { return false };
        document(&response.headers, markup)
    })
}

/// Which structured text an asset of this extension may be besides its own type; `None`: it is no asset's.
fn asset(extension: &str) -> Option<&'static str> {
    match extension {
        "css" | "js" | "mjs" | "wasm" | "png" | "jpg" | "jpeg" | "gif" | "webp" | "avif" | "ico" | "bmp" | "tif"
        | "tiff" | "woff" | "woff2" | "ttf" | "otf" | "eot" | "mp3" | "mp4" | "m4a" | "m4v" | "ogg" | "ogv"
        | "webm" | "wav" | "flac" | "mov" | "avi" | "mpg" | "mpeg" | "aac" | "pdf" | "zip" | "gz" | "bz2" | "xz"
        | "zst" | "7z" | "rar" | "tar" | "jar" | "exe" | "dmg" | "iso" | "apk" | "doc" | "docx" | "xls" | "xlsx"
        | "ppt" | "pptx" | "swf" | "csv" => Some(""),
        "svg" | "svgz" => Some("xml"),
        "map" => Some("json"),
        _ => None,
    }
}

fn document(headers: &HeaderMap, allowed: &str) -> bool {
    headers.get_all(CONTENT_TYPE).iter().any(|value| {
        let kind = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        let markup: &str = match kind.as_slice() {
            b"text/html" | b"application/xhtml+xml" => return true,
            b"image/svg+xml" => return false,
            b"application/xml" | b"text/xml" => "xml",
            b"application/json" | b"text/json" => "json",
            kind if kind.ends_with(b"+json") => "json",
            kind if kind.ends_with(b"+xml") => "xml",
            _ => return false,
        };
        markup != allowed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn cookies_that_are_not_in_the_key_do_not_reach_the_origin() {
        let request = map(&[("cookie", "lang=de; session=secret;  lang = fr"), ("cookie", "theme=dark; xlang=1")]);
        let keyed = Cookies::Key(vec!["lang".into(), "theme".into()]);
        assert_eq!(keyed.for_origin(&request).unwrap(), "lang=de; lang=fr; theme=dark");
        assert_eq!(Cookies::Key(vec!["none".into()]).for_origin(&request), None);
        assert_eq!(Cookies::Strip.for_origin(&request), None);
    }

    #[test]
    fn only_what_says_so_is_for_all() {
        for (fields, expected) in [
            (&[("cache-control", "max-age=60")][..], false),
            (&[("cache-control", "max-age=60, must-revalidate, immutable")], false),
            (&[("cache-control", "public, max-age=60")], true),
            (&[("cache-control", "s-maxage=60")], true),
            (&[("cdn-cache-control", "max-age=60")], true),
            (&[("cdn-cache-control", "max-age=x y"), ("cache-control", "max-age=60")], false),
            (&[("cdn-cache-control", "no-cache"), ("cache-control", "public, max-age=60")], false),
            (&[("vary", "accept, Cookie")], true),
            (&[("vary", "accept"), ("expires", "Thu, 01 Jan 2099 00:00:00 GMT")], false),
        ] {
            assert_eq!(for_all(&map(fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_document_under_the_name_of_an_asset_is_disguised() {
        for (path, kind, expected) in [
            ("/account.php/x.css", "text/html; charset=utf-8", true),
            ("/account/x%2Ejs", "Text/HTML", true),
            ("/account%2fx.png", "application/xhtml+xml", true),
            ("/account;x.css", "text/html", true),
            ("/account%00.css", "text/html", true),
            ("/account/x.css;jsessionid=1", "text/html", true),
            ("/account/x.css/", "text/html", true),
            ("/api/me/x.js", "application/json", true),
            ("/api/me/x.woff2", "application/problem+json", true),
            ("/a.js.map", "application/json", false),
            ("/a.svg", "image/svg+xml", false),
            ("/a.svg", "text/xml", false),
            ("/a.css", "text/css", false),
            ("/a.js", "text/plain", false),
            ("/a.html", "text/html", false),
            ("/account.php", "text/html", false),
            ("/v1.2/page", "text/html", false),
            ("/", "text/html", false),
        ] {
            let mut response = ResponseHeader::build(200, None).unwrap();
            response.insert_header(CONTENT_TYPE, kind).unwrap();
            assert_eq!(disguised(path, &response), expected, "{path} {kind}");
            response.set_status(http::StatusCode::NOT_FOUND).unwrap();
            assert!(!disguised(path, &response), "an error page names nobody");
        }
    }
}
