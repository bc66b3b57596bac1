//! The fields that a forwarding proxy adds and removes (RFC 9110 section 7.6).

use super::context::RequestContext;
use super::downstream::Client;
use super::guard::CDN_LOOP;
use super::target::{Scheme, Target};
use crate::cache::policy::STORED_FIELDS;
use crate::field::connection;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderValue, StatusCode, Version};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_SSL: HeaderName = HeaderName::from_static("x-forwarded-ssl");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Fields by which frameworks let a request claim another target or method than it has. They are not part of the cache
/// key, so on a request whose answer may be stored they never reach the origin, nor does any `X-Forwarded-…` of a client.
const OVERRIDES: [&str; 9] = [
    "forwarded",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// Dresses the request for an HTTP origin: `Host`, the forwarding fields of nginx-proxy, `Via`, `CDN-Loop`.
///
/// The client's own `X-Forwarded-*` are replaced, not extended, unless it is one whose words count (`downstream`). Of a
/// request whose answer may be stored nothing is told but what is in the key.
///
/// # Errors
/// A value that no field can hold; the request is then answered 500.
pub fn request_to_origin(
    upstream: &mut RequestHeader,
    downstream: &RequestHeader,
    ctx: &RequestContext,
    host: Option<&str>,
    node: &str,
    may_be_stored: bool,
) -> Result<()> {
    let Some(target) = &ctx.target else { return Ok(()) };
    let authority = target.authority();
    let path_and_query = ctx.for_origin(&target.path_and_query);
    if upstream.raw_path() != path_and_query.as_bytes() {
        // Absolute form is for proxies (RFC 9112 section 3.2.2); many origins answer it 400.
        upstream.set_raw_path(path_and_query.as_bytes())?;
    }
    upstream.insert_header(HOST, host.unwrap_or(&authority))?;
    let claims = upstream.headers.keys().filter(|name| is_claim(name.as_str(), may_be_stored));
    for name in claims.cloned().collect::<Vec<_>>() {
        upstream.remove_header(&name);
    }
    // HTTP/2 clients may spread one over many lines (RFC 9113 section 8.2.3); others would read the first only.
    if upstream.headers.get_all(COOKIE).iter().nth(1).is_some() {
        let crumbs: Vec<&[u8]> = upstream.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let whole = crumbs.join(&b"; "[..]);
        upstream.insert_header(COOKIE, whole)?;
    }
    // CVE-2016-5385: CGI turns it into HTTP_PROXY.
    upstream.remove_header("proxy");
    tell_client(upstream, &ctx.client, may_be_stored)?;
    tell_target(upstream, ctx, target, may_be_stored)?;
    upstream.insert_header(X_ORIGINAL_URI, &*target.path_and_query)?;
    upstream.insert_header(X_REQUEST_ID, ctx.request_id.to_string())?;
    upstream.append_header(VIA, via(downstream.version))?;
    upstream.append_header(CDN_LOOP, node)?;
    // The core takes `TE` for connection-specific; gRPC servers insist on the one value that is not.
    if downstream.headers.get_all(TE).iter().any(|v| v.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        upstream.insert_header(TE, "trailers")?;
    }
    if downstream.version < Version::HTTP_11 {
        upstream.remove_header(&EXPECT);
    }
    Ok(())
}

/// `X-Real-IP`, and in `X-Forwarded-For` the addresses on the way here.
fn tell_client(upstream: &mut RequestHeader, client: &Client, may_be_stored: bool) -> Result<()> {
    let Some(address) = client.ip() else {
        upstream.remove_header(&X_REAL_IP);
        upstream.remove_header(&X_FORWARDED_FOR);
        return Ok(());
    };
    upstream.insert_header(X_REAL_IP, address.to_string())?;
    let chain = client.claims.as_ref().and_then(|claims| claims.chain.as_ref()).filter(|_| !may_be_stored);
    let way = match (chain, client.peer) {
        (Some(chain), Some(peer)) => format!("{chain}, {peer}"),
        _ => address.to_string(),
    };
    upstream.insert_header(X_FORWARDED_FOR, way).map(|_| ())
}

/// What the client asked for: host, scheme, port.
fn tell_target(upstream: &mut RequestHeader, ctx: &RequestContext, target: &Target, may_be_stored: bool) -> Result<()> {
    let claims = ctx.client.claims.as_deref().filter(|_| !may_be_stored);
    match claims.and_then(|claims| claims.host.clone()) {
        Some(host) => upstream.insert_header(X_FORWARDED_HOST, host)?,
        None => upstream.insert_header(X_FORWARDED_HOST, target.authority())?,
    }
    let port = claims.and_then(|claims| claims.port).or(target.port).unwrap_or(target.scheme.default_port());
    upstream.insert_header(X_FORWARDED_PROTO, target.scheme.as_str())?;
    upstream.insert_header(X_FORWARDED_PORT, port.to_string())?;
    upstream.insert_header(X_FORWARDED_SSL, if target.scheme == Scheme::Https { "on" } else { "off" })
}

/// Whether a client's field claims what is the edge's to say. Servers that hand fields over as variables (CGI, WSGI) read
/// `X_Forwarded_For` as `X-Forwarded-For`, so that other spellings of the edge's own fields never pass.
fn is_claim(name: &str, may_be_stored: bool) -> bool {
    let dashed = name.replace('_', "-");
    let other = dashed != name;
    if other && [&X_REAL_IP, &X_ORIGINAL_URI, &X_REQUEST_ID].iter().any(|own| own.as_str() == dashed) {
        return true;
    }
    let forwarded = dashed.starts_with("x-forwarded-");
    forwarded && (other || may_be_stored) || may_be_stored && OVERRIDES.contains(&dashed.as_str())
}

/// Gives a request that came by HTTP/2 the version and the `Host` of HTTP/1.1. The core makes its background request by
/// writing this head down and reading it back as HTTP/1, where it would otherwise be refused.
pub fn as_http1(request: &mut RequestHeader, ctx: &RequestContext) {
    let Some(target) = ctx.target.as_ref().filter(|_| request.version == Version::HTTP_2) else { return };
    // The authority was parsed, so that it can be a field's value.
    if request.insert_header(HOST, target.authority()).is_ok() {
        request.set_version(Version::HTTP_11);
    }
}

/// Takes off a response what is meant for one connection only, and what only this cache may say of what it stores,
/// before anything is stored of it.
pub fn response_from_origin(response: &mut ResponseHeader) {
    for name in &STORED_FIELDS {
        response.remove_header(name);
    }
    let switching = response.status == StatusCode::SWITCHING_PROTOCOLS;
    for name in connection::nominated(&response.headers) {
        if switching && (name == CONNECTION || name == UPGRADE) {
            continue;
        }
        // Framing belongs to the core; `Content-Length` cannot be nominated away.
        if name != TRANSFER_ENCODING && name != CONTENT_LENGTH {
            response.remove_header(&name);
        }
    }
}

/// The `Via` value of a message received in `version` (RFC 9110 section 7.6.3).
pub fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 selvedge",
        Version::HTTP_10 => "1.0 selvedge",
        _ => "1.1 selvedge",
    })
}
