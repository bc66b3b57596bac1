//! An origin whose every answer can be worked out beforehand: HTTP's rules for ranges, preconditions and negotiation,
//! written once more and by the book (RFC 9110 sections 12 to 14).

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, COOKIE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the variants of a resource differ by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varies {
    Never,
    /// `X-Flavour`, its value as it is.
    Flavour,
    /// `Accept-Language`: the best of en, de and fr.
    Language,
    /// `Accept-Encoding`: deflate before gzip before none.
    Coding,
    /// `Cookie`, byte for byte.
    Cookie,
}

/// How a resource is tagged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagged {
    None,
    Weak,
    Strong,
}

/// What a resource is.
#[derive(Clone, Debug)]
pub struct Resource {
    pub size: usize,
    pub status: u16,
    pub tagged: Tagged,
    /// It tells when it was changed.
    pub dated: bool,
    /// Its length is not told beforehand.
    pub chunked: bool,
    pub varies: Varies,
    pub cache_control: &'static str,
}

/// A resource and the number of its present state, which changes with each PUT.
pub struct Held {
    pub resource: Resource,
    version: AtomicU64,
    pub asked: AtomicUsize,
    contents: Mutex<HashMap<String, Bytes>>,
}

/// An answer before it is put into messages. Content of several parts stands in `parts`.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub content: Bytes,
    pub parts: Vec<Range<usize>>,
}

/// The server. It ends when it is dropped.
pub struct Oracle {
    pub address: SocketAddr,
    held: Arc<Mutex<HashMap<String, Arc<Held>>>>,
    task: JoinHandle<()>,
}

/// Between the parts of the oracle's own multipart content.
const BOUNDARY: &str = "oracle-boundary";
const FLAVOUR: HeaderName = HeaderName::from_static("x-flavour");

impl Oracle {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held: Arc<Mutex<HashMap<String, Arc<Held>>>> = Arc::default();
        let resources = Arc::clone(&held);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let resources = Arc::clone(&resources);
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let held = resources.lock().unwrap().get(request.uri().path()).cloned();
                    async move { Ok::<_, Infallible>(serve(held, request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, held, task }
    }

    /// Puts a resource at a path.
    pub fn hold(&self, path: &str, resource: Resource) -> Arc<Held> {
        let held =
            Held { resource, version: AtomicU64::new(1), asked: AtomicUsize::new(0), contents: Mutex::default() };
        let held = Arc::new(held);
        self.held.lock().unwrap().insert(path.to_owned(), Arc::clone(&held));
        held
    }

    pub fn forget(&self, path: &str) {
        self.held.lock().unwrap().remove(path);
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    held: Option<Arc<Held>>,
    request: Request<hyper::body::Incoming>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let (head, body) = request.into_parts();
    let _ = body.collect().await;
    let Some(held) = held else {
        return Response::builder().status(410).body(Full::new(Bytes::new()).boxed()).unwrap();
    };
    held.asked.fetch_add(1, Ordering::SeqCst);
    if head.method == Method::PUT {
        held.change();
        return Response::builder().status(204).body(Full::new(Bytes::new()).boxed()).unwrap();
    }
    let reply = held.reply(&head.method, &head.headers);
    let whole = reply.wire();
    let mut response = Response::new(if reply.status == 200 && held.resource.chunked && head.method == Method::GET {
        let pieces: Vec<_> = whole.chunks(40_000).map(|piece| Ok(Frame::data(whole.slice_ref(piece)))).collect();
        StreamBody::new(futures::stream::iter(pieces)).boxed()
    } else {
        Full::new(whole).boxed()
    });
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

impl Held {
    /// Makes another state the present one.
    pub fn change(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.contents.lock().unwrap().clear();
    }

    /// The present time of the last change.
    pub fn modified(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.version.load(Ordering::SeqCst) * 1000)
    }

    /// The opaque part of the entity tag of the variant that these fields select.
    pub fn opaque(&self, request: &HeaderMap) -> String {
        let variant: String = self.variant(request).bytes().filter(u8::is_ascii_alphanumeric).map(char::from).collect();
        format!("v{}-{variant}", self.version.load(Ordering::SeqCst))
    }

    fn variant(&self, request: &HeaderMap) -> String {
        let line = |name: &HeaderName| {
            let lines: Vec<_> = request.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect();
            (!lines.is_empty()).then(|| lines.join(if name == COOKIE { "; " } else { ", " }))
        };
        match self.resource.varies {
            Varies::Never => String::new(),
            Varies::Flavour => line(&FLAVOUR).unwrap_or_else(|| "none".to_owned()),
            Varies::Cookie => line(&COOKIE).map_or_else(|| "none".to_owned(), |c| format!("c{:x}", sum(c.as_bytes()))),
            Varies::Language => best(line(&ACCEPT_LANGUAGE), &["en", "de", "fr"], "en"),
            Varies::Coding => {
                let taken = line(&ACCEPT_ENCODING);
                let takes = |coding: &&&str| taken.as_ref().is_some_and(|t| t.split(", ").any(|c| c == **coding));
                ["deflate", "gzip"].iter().find(takes).map_or("identity", |coding| coding).to_owned()
            }
        }
    }

    fn content(&self, variant: &str) -> Bytes {
        let key = format!("{} {variant}", self.version.load(Ordering::SeqCst));
        let mut contents = self.contents.lock().unwrap();
        let made = contents.entry(key).or_insert_with_key(|key| {
            // No part of it looks like another, nor like the same part of another variant.
            let mut state = sum(key.as_bytes()) | 1;
            let mut bytes = Vec::with_capacity(self.resource.size + 8);
            while bytes.len() < self.resource.size {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
            }
            bytes.truncate(self.resource.size);
            bytes.into()
        });
        made.clone()
    }

    /// What a request by these fields has to be answered with now.
    pub fn reply(&self, method: &Method, request: &HeaderMap) -> Reply {
        let resource = &self.resource;
        let variant = self.variant(request);
        let mut headers = self.fields(request, &variant);
        let status = StatusCode::from_u16(resource.status).unwrap();
        let content = if status == 204 { Bytes::new() } else { self.content(&variant) };
        let bare = |status: u16, headers: HeaderMap| Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            content: Bytes::new(),
            parts: Vec::new(),
        };
        if status == 200 {
            match self.precondition(request) {
                Some(412) => return bare(412, HeaderMap::new()),
                Some(_) => {
                    let _ = [CONTENT_TYPE, CONTENT_ENCODING, ACCEPT_RANGES].map(|name| headers.remove(name));
                    return bare(304, headers);
                }
                None => {}
            }
            let ranges = if *method == Method::GET && self.range_applies(request) {
                request.get(RANGE).and_then(|range| ranges(range.to_str().unwrap(), content.len()))
            } else {
                None
            };
            match ranges.as_deref() {
                Some([]) => {
                    let range = format!("bytes */{}", content.len());
                    return bare(416, [(CONTENT_RANGE, range.try_into().unwrap())].into_iter().collect());
                }
                Some(parts) => return partial(headers, &content, parts),
                None => {}
            }
        }
        if !(status == 204 || resource.chunked) {
            headers.insert(CONTENT_LENGTH, content.len().into());
        }
        let content = if *method == Method::HEAD { Bytes::new() } else { content };
        Reply { status, headers, content, parts: Vec::new() }
    }

    fn fields(&self, request: &HeaderMap, variant: &str) -> HeaderMap {
        let resource = &self.resource;
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: &str| headers.append(name, HeaderValue::from_str(value).unwrap());
        put(CONTENT_TYPE, "application/x-oracle");
        put(HeaderName::from_static("x-state"), &self.version.load(Ordering::SeqCst).to_string());
        put(HeaderName::from_static("x-twice"), "one");
        put(HeaderName::from_static("x-twice"), "two, three");
        if resource.status == 200 {
            put(ACCEPT_RANGES, "bytes");
        }
        if !resource.cache_control.is_empty() {
            put(CACHE_CONTROL, resource.cache_control);
        }
        match resource.tagged {
            Tagged::None => {}
            Tagged::Weak => drop(put(ETAG, &format!("W/\"{}\"", self.opaque(request)))),
            Tagged::Strong => drop(put(ETAG, &format!("\"{}\"", self.opaque(request)))),
        }
        if resource.dated {
            put(LAST_MODIFIED, &httpdate::fmt_http_date(self.modified()));
        }
        match resource.varies {
            Varies::Never => {}
            Varies::Flavour => drop(put(VARY, "X-Flavour")),
            Varies::Cookie => drop(put(VARY, "Cookie")),
            Varies::Language => {
                put(VARY, "accept-language");
                put(CONTENT_LANGUAGE, variant);
            }
            Varies::Coding => {
                put(VARY, "Accept-Encoding");
                if variant != "identity" {
                    put(CONTENT_ENCODING, variant);
                }
            }
        }
        headers
    }

    /// RFC 9110 section 13.2.2: the status that the preconditions lead to, if any.
    fn precondition(&self, request: &HeaderMap) -> Option<u16> {
        let own = self.opaque(request);
        let (strong, any) = (self.resource.tagged == Tagged::Strong, self.resource.tagged != Tagged::None);
        let date =
            |name| request.get(name).and_then(|v: &HeaderValue| httpdate::parse_http_date(v.to_str().ok()?).ok());
        let listed = |value: &HeaderValue, weakly: bool| {
            value.to_str().unwrap().split(',').map(str::trim).any(|tag| {
                let (weak, opaque) = tag.strip_prefix("W/").map_or((false, tag), |opaque| (true, opaque));
                tag == "*" || opaque == format!("\"{own}\"") && any && (weakly || !weak && strong)
            })
        };
        match request.get(IF_MATCH) {
            Some(list) if !listed(list, false) => return Some(412),
            Some(_) => {}
            None if self.resource.dated && date(IF_UNMODIFIED_SINCE).is_some_and(|since| self.modified() > since) => {
                return Some(412);
            }
            None => {}
        }
        match request.get(IF_NONE_MATCH) {
            Some(list) => listed(list, true).then_some(304),
            None => (self.resource.dated && date(IF_MODIFIED_SINCE).is_some_and(|since| self.modified() <= since))
                .then_some(304),
        }
    }

    /// RFC 9110 section 13.1.5.
    fn range_applies(&self, request: &HeaderMap) -> bool {
        let Some(condition) = request.get(IF_RANGE) else { return true };
        let condition = condition.to_str().unwrap();
        if condition.contains('"') {
            return self.resource.tagged == Tagged::Strong && condition == format!("\"{}\"", self.opaque(request));
        }
        self.resource.dated && httpdate::parse_http_date(condition).is_ok_and(|date| date == self.modified())
    }
}

impl Reply {
    /// The content as it goes over the connection.
    fn wire(&self) -> Bytes {
        if self.parts.is_empty() {
            return self.content.clone();
        }
        let mut out = Vec::new();
        for part in &self.parts {
            let head = format!("\r\n--{BOUNDARY}\r\nContent-Type: application/x-oracle\r\nContent-Range: ");
            out.extend_from_slice(head.as_bytes());
            let range = format!("bytes {}-{}/{}\r\n\r\n", part.start, part.end - 1, self.content.len());
            out.extend_from_slice(range.as_bytes());
            out.extend_from_slice(&self.content[part.clone()]);
        }
        out.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        out.into()
    }
}

fn partial(mut headers: HeaderMap, content: &Bytes, parts: &[Range<usize>]) -> Reply {
    headers.remove(ACCEPT_RANGES);
    let status = StatusCode::PARTIAL_CONTENT;
    if let [one] = parts {
        let range = format!("bytes {}-{}/{}", one.start, one.end - 1, content.len());
        headers.insert(CONTENT_RANGE, range.try_into().unwrap());
        headers.insert(CONTENT_LENGTH, one.len().into());
        return Reply { status, headers, content: content.slice(one.clone()), parts: Vec::new() };
    }
    let kind = format!("multipart/byteranges; boundary={BOUNDARY}");
    headers.insert(CONTENT_TYPE, kind.try_into().unwrap());
    Reply { status, headers, content: content.clone(), parts: parts.to_vec() }
}

/// What a `Range` selects: `None` where it is to be ignored, which goes for what breaks the grammar and for ranges out of
/// order; empty where nothing of it can be satisfied.
fn ranges(field: &str, length: usize) -> Option<Vec<Range<usize>>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for one in field.strip_prefix("bytes=")?.split(',').map(str::trim) {
        let (first, last) = one.split_once('-')?;
        let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true if digits.is_empty() => Some(None),
            true => Some(Some(digits.parse::<usize>().unwrap_or(usize::MAX))),
            false => None,
        };
        let range = match (number(first)?, number(last)?) {
            (None, None) => return None,
            (Some(first), Some(last)) if last < first => return None,
            (Some(first), last) => first..last.map_or(length, |last| length.min(last.saturating_add(1))),
            (None, Some(suffix)) => length.saturating_sub(suffix)..length,
        };
        if range.start >= range.end {
            continue;
        }
        if found.last().is_some_and(|before| range.start < before.end) {
            return None;
        }
        found.push(range);
    }
    Some(found)
}

/// The one of `has` with the greatest weight in a list, the default where that is none.
fn best(list: Option<String>, has: &[&str], default: &str) -> String {
    let list = list.unwrap_or_default().to_ascii_lowercase();
    let mut best = (0.0, default);
    for member in list.split(',').map(str::trim) {
        let (name, weight) = member.split_once(";q=").map_or((member, 1.0), |(n, w)| (n, w.parse::<f32>().unwrap()));
        if let Some(known) = has.iter().find(|known| **known == name)
            && weight > best.0
        {
            best = (weight, known);
        }
    }
    best.1.to_owned()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
