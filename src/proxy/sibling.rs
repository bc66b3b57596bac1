//! Siblings: files that a site keeps compressed beside their originals (`app.js.br` beside `app.js`), answered in place of
//! these where the client takes the coding.
//!
//! The coding is the one that [`super::compress`] has left in the request, so that a sibling is one variant of the
//! original's key, and a purge of the original takes it too. Where there is no sibling the original is asked for in the
//! next pass and stored as that variant: while it is fresh nobody asks for the sibling again.

use super::compress::Coding;
use super::context::RequestContext;
use super::cors::add_vary;
use super::plane::RouteRule;
use super::{explain, s3};
use crate::cache::policy;
use crate::origin::Kind;
use crate::origin::s3::Attempt;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::Result;
use pingora::cache::CacheMeta;
use pingora::http::{RequestHeader, ResponseHeader};

/// Files that are worth a sibling, by extension, with their media types. Of others, for want of the type to answer with
/// or because they are compressed already, no sibling is asked for.
const KINDS: [(&str, &str); 30] = [
    ("atom", "application/atom+xml"),
    ("bmp", "image/bmp"),
    ("cjs", "text/javascript"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("eot", "application/vnd.ms-fontobject"),
    ("geojson", "application/geo+json"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("jsonld", "application/ld+json"),
    ("map", "application/json"),
    ("md", "text/markdown"),
    ("mjs", "text/javascript"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("rss", "application/rss+xml"),
    ("svg", "image/svg+xml"),
    ("toml", "application/toml"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain"),
    ("vtt", "text/vtt"),
    ("wasm", "application/wasm"),
    ("webmanifest", "application/manifest+json"),
    ("xhtml", "application/xhtml+xml"),
    ("xml", "application/xml"),
    ("yaml", "application/yaml"),
];
/// Other names of those types, under which servers have sent them for long.
const ALIASES: [(&str, &str); 5] = [
    ("application/javascript", "text/javascript"),
    ("application/x-javascript", "text/javascript"),
    ("image/x-icon", "image/vnd.microsoft.icon"),
    ("text/x-markdown", "text/markdown"),
    ("text/xml", "application/xml"),
];
/// Types that say no more than that the content is a file, or is compressed.
const GENERIC: [&str; 11] = [
    "application/brotli",
    "application/gzip",
    "application/octet-stream",
    "application/x-brotli",
    "application/x-gzip",
    "application/x-zstd",
    "application/zstd",
    "application/zstandard",
    "binary/octet-stream",
    "application/x-br",
    "application/x-zst",
];

/// Where the search for a sibling stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sibling {
    /// No origin has been asked for anything.
    #[default]
    Undecided,
    /// It is asked for, or was found.
    Asked(Candidate),
    /// The original is asked for.
    No,
}

/// A sibling that may exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    coding: Coding,
    /// The original's media type.
    kind: &'static str,
    /// The original's path, a bucket's index included, percent-encoded and without the query.
    path: Box<str>,
}

impl Sibling {
    /// The path of the sibling that is asked for.
    pub fn path(&self) -> Option<String> {
        match self {
            Self::Asked(candidate) => Some(format!("{}{}", candidate.path, candidate.coding.suffix())),
            Self::Undecided | Self::No => None,
        }
    }
}

/// Whether requests for this path may be answered with siblings, so that the answers vary by `Accept-Encoding`.
fn applies(rule: &RouteRule, path: &str) -> Option<(Box<str>, &'static str)> {
    rule.compression.as_ref().filter(|compression| !compression.precompressed.is_empty())?;
    let path = match rule.origin.kind() {
        Kind::S3(bucket) if path.ends_with('/') => format!("{path}{}", bucket.index()?),
        Kind::S3(_) | Kind::Http(_) => path.to_owned(),
    };
    let kind = kind_of(&path)?;
    Some((path.into(), kind))
}

/// The media type of a file by its path's extension.
fn kind_of(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next()?;
    let (stem, extension) = name.rsplit_once('.')?;
    let extension = extension.to_ascii_lowercase();
    let at = KINDS.binary_search_by(|(known, _)| known.cmp(&extension.as_str())).ok().filter(|_| !stem.is_empty())?;
    Some(KINDS[at].1)
}

/// Decides, before an origin is asked for the first time, whether to ask for a sibling. `looked_up` says that the cache
/// takes part: without it nothing would remember that there is no sibling.
pub fn choose(rule: &RouteRule, request: &RequestHeader, looked_up: bool, ctx: &mut RequestContext) {
    if ctx.sibling != Sibling::Undecided {
        return;
    }
    ctx.sibling = candidate(rule, request, looked_up, ctx).map_or(Sibling::No, Sibling::Asked);
}

fn candidate(rule: &RouteRule, request: &RequestHeader, looked_up: bool, ctx: &RequestContext) -> Option<Candidate> {
    // A slice is of what its head was made of.
    let whole = ctx.ranges.order.is_none();
    let compression = rule.compression.as_ref().filter(|_| looked_up && whole)?;
    let wanted = request.headers.get(ACCEPT_ENCODING)?.as_bytes();
    let coding = compression.precompressed.iter().copied().find(|c| c.as_str().as_bytes() == wanted)?;
    let (path, kind) = applies(rule, ctx.path_for_origin()?)?;
    let candidate = Candidate { coding, kind, path };
    if let Kind::S3(bucket) = rule.origin.kind() {
        // A key may be too long with a suffix, or be none at all.
        let own = format!("{}{}", candidate.path, coding.suffix());
        bucket.object_key(&own, &Attempt::Requested).ok()?;
    }
    Some(candidate)
}

/// Makes the request one for the sibling, where that is asked for. For a bucket the path is [`Sibling::path`]'s. A
/// validation is sent for what is stored only: a sibling's entity tag says nothing of its original.
///
/// # Errors
/// A path that no request can have.
pub fn address(upstream: &mut RequestHeader, stored: Option<&CacheMeta>, ctx: &mut RequestContext) -> Result<()> {
    let marked = stored.and_then(|meta| meta.headers().get(&policy::SIBLING)).map(HeaderValue::as_bytes);
    let asked = match &ctx.sibling {
        Sibling::Asked(candidate) => Some(candidate.coding),
        Sibling::Undecided | Sibling::No => None,
    };
    if stored.is_some() && marked != asked.map(|coding| coding.as_str().as_bytes()) {
        upstream.remove_header(&IF_NONE_MATCH);
        upstream.remove_header(&IF_MODIFIED_SINCE);
    }
    let Some(coding) = asked else { return Ok(()) };
    explain::asked_for_sibling(ctx, coding);
    // The sibling as it is: an origin that compressed it once more would be believed to have sent it as stored.
    upstream.insert_header(ACCEPT_ENCODING, "identity")?;
    let raw = String::from_utf8_lossy(upstream.raw_path()).into_owned();
    let own = match raw.split_once('?') {
        Some((path, query)) => format!("{path}{}?{query}", coding.suffix()),
        None => format!("{raw}{}", coding.suffix()),
    };
    upstream.set_raw_path(own.as_bytes())
}

/// Whether what was answered is the sibling that was asked for; if not, the original is next.
///
/// # Errors
/// An [`s3::asks_again`] error.
pub fn judge(response: &ResponseHeader, ctx: &mut RequestContext) -> Result<()> {
    let Sibling::Asked(candidate) = &ctx.sibling else { return Ok(()) };
    if candidate.is(response.status, &response.headers) {
        return Ok(());
    }
    ctx.sibling = Sibling::No;
    Err(s3::ask_again("there is no such sibling"))
}

impl Candidate {
    fn is(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match status {
            StatusCode::NOT_MODIFIED => return true,
            StatusCode::OK => {}
            _ => return false,
        }
        let lower = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
        let mut codings = headers.get_all(CONTENT_ENCODING).iter().map(lower);
        let named = match (codings.next().as_deref(), codings.next()) {
            (None | Some("identity"), None) => false,
            (Some("x-gzip"), None) if self.coding == Coding::Gzip => true,
            (Some(coding), None) if coding == self.coding.as_str() => true,
            _ => return false,
        };
        let Some(kind) = headers.get(CONTENT_TYPE).map(lower) else { return true };
        let kind = kind.split(';').next().unwrap_or_default().trim();
        // A site that answers every unknown path with its page would have that page go by the name of what is compressed.
        generic(kind) || canonical(kind) == self.kind && (named || self.kind != "text/html")
    }
}

fn generic(kind: &str) -> bool {
    kind.is_empty() || GENERIC.contains(&kind)
}

fn canonical(kind: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == kind).map_or(kind, |(_, name)| name)
}

/// Makes a sibling's head that of the original in another coding, and has the answers of a path that may have siblings
/// say that they vary.
///
/// # Errors
/// None for the fields there are.
pub fn dress(rule: &RouteRule, response: &mut ResponseHeader, ctx: &RequestContext) -> Result<()> {
    response.remove_header(&policy::SIBLING);
    let path = ctx.path_for_origin().unwrap_or("/");
    if applies(rule, path).is_none() {
        return Ok(());
    }
    add_vary(response, "accept-encoding")?;
    let Sibling::Asked(candidate) = &ctx.sibling else { return Ok(()) };
    response.insert_header(policy::SIBLING, candidate.coding.as_str())?;
    if response.status == StatusCode::NOT_MODIFIED {
        return Ok(());
    }
    response.insert_header(CONTENT_ENCODING, candidate.coding.as_str())?;
    let told = response.headers.get(CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()).to_ascii_lowercase());
    let told = told.as_deref().and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if generic(told) {
        response.insert_header(CONTENT_TYPE, candidate.kind)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(coding: Coding, path: &str, status: u16, fields: &[(&'static str, &'static str)]) -> bool {
        let candidate = Candidate { coding, kind: kind_of(path).unwrap(), path: path.into() };
        let mut map = HeaderMap::new();
        fields.iter().for_each(|(name, value)| {
            map.append(*name, HeaderValue::from_static(value));
        });
        candidate.is(StatusCode::from_u16(status).unwrap(), &map)
    }

    #[test]
    fn extensions_are_sorted_for_the_search_and_types_are_canonical() {
        assert!(KINDS.is_sorted());
        assert!(KINDS.iter().all(|(_, kind)| canonical(kind) == *kind && !generic(kind)));
    }

    #[test]
    fn only_files_whose_type_is_known_have_siblings() {
        for (path, kind) in [
            ("/app.js", Some("text/javascript")),
            ("/a.b/APP.MIN.JS", Some("text/javascript")),
            ("/docs/index.html", Some("text/html")),
            ("/app.js.br", None),
            ("/photo.jpg", None),
            ("/docs/", None),
            ("/a.js/b", None),
            ("/.html", None),
            ("/account.php", None),
            ("/app.js;v=1", None),
            ("", None),
        ] {
            assert_eq!(kind_of(path), kind, "{path}");
        }
    }

    #[test]
    fn only_what_can_be_the_sibling_is_taken_for_it() {
        let br = ("content-encoding", "br");
        for (path, status, fields, taken) in [
            ("/a.js", 200, &[][..], true),
            ("/a.js", 200, &[("content-type", "application/octet-stream")], true),
            ("/a.js", 200, &[("content-type", "binary/octet-stream")], true),
            ("/a.js", 200, &[("content-type", "application/x-brotli")], true),
            ("/a.js", 200, &[("content-type", "Text/JavaScript; charset=utf-8")], true),
            ("/a.js", 200, &[("content-type", "application/javascript"), br], true),
            ("/a.js", 304, &[], true),
            // A page for whatever is unknown.
            ("/a.js", 200, &[("content-type", "text/html")], false),
            ("/a.js", 200, &[("content-type", "text/html"), br], false),
            ("/a.html", 200, &[("content-type", "text/html")], false),
            ("/a.html", 200, &[("content-type", "text/html"), br], true),
            ("/a.html", 200, &[("content-type", "application/octet-stream")], true),
            // Encoded otherwise, or more than once.
            ("/a.js", 200, &[("content-encoding", "gzip")], false),
            ("/a.js", 200, &[("content-encoding", "br, br")], false),
            ("/a.js", 200, &[br, br], false),
            ("/a.js", 200, &[("content-encoding", "identity")], true),
            ("/a.js", 404, &[], false),
            ("/a.js", 403, &[], false),
            ("/a.js", 206, &[], false),
            ("/a.js", 302, &[], false),
            ("/a.js", 503, &[], false),
        ] {
            assert_eq!(is(Coding::Brotli, path, status, fields), taken, "{path} {status} {fields:?}");
        }
        assert!(is(
            Coding::Gzip,
            "/a.js",
            200,
            &[("content-encoding", "x-gzip"), ("content-type", "application/gzip")]
        ));
        assert!(!is(Coding::Brotli, "/a.js", 200, &[("content-encoding", "x-gzip")]));
    }
}
