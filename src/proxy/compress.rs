//! Compression of responses on their way into the cache, so that a hit compresses nothing.
//!
//! The request's `Accept-Encoding` is replaced by the one coding that was chosen from it. Origin, key and `Vary` then
//! know no other, and each text is stored once for each coding. The core's own compression is not used: it takes no
//! notice of weights, and its brotli streams lack their end.

use super::cors::add_vary;
use crate::cache::rules::Glob;
use crate::field::cache_control::CacheControl;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, RANGE, TRANSFER_ENCODING,
};
use http::{StatusCode, Version};
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, OrErr, Result};
use std::io::Write;

/// The media types that are compressed unless a route names its own.
pub const TYPES: [&str; 18] = [
    "text/*",
    "application/javascript",
    "application/x-javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/xml",
    "application/xhtml+xml",
    "application/rss+xml",
    "application/atom+xml",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "application/geo+json",
    "application/problem+json",
    "font/ttf",
    "font/otf",
    "image/svg+xml",
    "image/bmp",
];
/// Of `text/*`: a stream whose reader waits for each line.
const EVENT_STREAM: &str = "text/event-stream";
/// Digests of what the compression changes.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
];

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// Its name in `Content-Encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What the names of files in this coding end in.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }
}

/// How a route compresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The codings on offer; of those that a client likes best, the first.
    pub codings: Vec<Coding>,
    /// Those of the codings in which the origin may keep files ([`super::sibling`]).
    pub precompressed: Vec<Coding>,
    /// Bytes of content below which it stays as it is.
    pub min_size: u64,
    /// Media types, in lower case.
    pub types: Vec<Glob>,
    /// 1 to 9.
    pub gzip_level: u32,
    /// 0 to 11.
    pub brotli_level: u32,
    /// 1 to 19.
    pub zstd_level: i32,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            codings: vec![Coding::Brotli, Coding::Zstd, Coding::Gzip],
            precompressed: Vec::new(),
            min_size: 1024,
            types: TYPES.iter().map(|t| Glob::new(t)).collect(),
            gzip_level: 6,
            brotli_level: 5,
            zstd_level: 3,
        }
    }
}

impl Compression {
    /// Chooses a coding and leaves the request no other.
    ///
    /// # Errors
    /// None: the value is one of few.
    pub fn negotiate(&self, request: &mut RequestHeader) -> Result<()> {
        // Parts of a compressed text are of no use to who asked for parts of the text.
        let ranged = request.headers.contains_key(RANGE);
        let coding = if ranged { None } else { self.choose(&request.headers) };
        request.insert_header(ACCEPT_ENCODING, coding.map_or("identity", Coding::as_str))
    }

    /// The coding of the greatest weight (RFC 9110 section 12.5.3), `None` where that is none.
    fn choose(&self, request: &HeaderMap) -> Option<Coding> {
        let mut weights: [Option<u16>; 3] = [None; 3];
        let (mut star, mut identity) = (None, None);
        for member in request.get_all(ACCEPT_ENCODING).iter().flat_map(|v| v.as_bytes().split(|b| *b == b',')) {
            let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(weight).unwrap_or(1000);
            match name.as_slice() {
                b"br" => weights[Coding::Brotli as usize] = Some(weight),
                b"zstd" => weights[Coding::Zstd as usize] = Some(weight),
                b"gzip" | b"x-gzip" => weights[Coding::Gzip as usize] = Some(weight),
                b"*" => star = Some(weight),
                b"identity" => identity = Some(weight),
                _ => {}
            }
        }
        let mut best = None;
        for coding in &self.codings {
            let weight = weights[*coding as usize].or(star).unwrap_or(0);
            if weight > best.map_or(0, |(_, best)| best) {
                best = Some((*coding, weight));
            }
        }
        best.filter(|(_, weight)| identity.is_none_or(|identity| *weight >= identity)).map(|(coding, _)| coding)
    }

    /// Prepares a response's head and gives the encoder for its content, where it is to be compressed. `content` says
    /// that content follows the head. A response that would be compressed for others gets its `Vary` too.
    ///
    /// # Errors
    /// None for the fields there are.
    pub fn begin(&self, request: &HeaderMap, content: bool, response: &mut ResponseHeader) -> Result<Option<Encoder>> {
        let Some(length) = self.eligible(response) else { return Ok(None) };
        add_vary(response, "accept-encoding")?;
        let wanted = request.get(ACCEPT_ENCODING).map(HeaderValue::as_bytes).unwrap_or_default();
        let Some(coding) = self.codings.iter().copied().find(|c| c.as_str().as_bytes() == wanted) else {
            return Ok(None);
        };
        if !content {
            return Ok(None);
        }
        let encoder = self.encoder(coding, length)?;
        response.insert_header(CONTENT_ENCODING, coding.as_str())?;
        response.remove_header(&CONTENT_LENGTH);
        response.remove_header(&ACCEPT_RANGES);
        for name in &DIGESTS {
            response.remove_header(name);
        }
        if response.version != Version::HTTP_2 {
            response.insert_header(TRANSFER_ENCODING, "chunked")?;
        }
        // RFC 9110 section 8.8.1: the same tag for other bytes is a weak one.
        if let Some(tag) = response.headers.get(ETAG).map(HeaderValue::as_bytes)
            && !tag.starts_with(b"W/")
        {
            let weak = HeaderValue::from_bytes(&[b"W/", tag].concat());
            match weak {
                Ok(weak) => response.insert_header(ETAG, weak)?,
                Err(_) => {
                    response.remove_header(&ETAG);
                }
            }
        }
        Ok(Some(encoder))
    }

    /// The declared length of content that may be compressed: `Some(None)` where it ends with its last chunk.
    #[allow(clippy::option_option, reason = "the outer one says whether, the inner one how long")]
    fn eligible(&self, response: &ResponseHeader) -> Option<Option<u64>> {
        let headers = &response.headers;
        let status = matches!(response.status.as_u16(), 200 | 203 | 403 | 404 | 410);
        let encoded = headers.get(CONTENT_ENCODING).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"));
        if !status
            || response.status == StatusCode::PARTIAL_CONTENT
            || encoded
            || headers.contains_key(CONTENT_RANGE)
            || CacheControl::of(headers).no_transform
            || CacheControl::of_response(headers).no_transform
        {
            return None;
        }
        let kind = headers.get(CONTENT_TYPE)?.as_bytes().split(|b| *b == b';').next()?;
        let kind = String::from_utf8_lossy(kind.trim_ascii()).to_ascii_lowercase();
        if kind == EVENT_STREAM || !self.types.iter().any(|glob| glob.matches(&kind)) {
            return None;
        }
        match crate::cache::policy::content_length(headers) {
            Ok(Some(length)) => (length >= self.min_size).then_some(Some(length)),
            // Content that ends with the connection has no end that can be told from a break, and the trailers of HTTP/2
            // come where the end of the compressed content would have to be.
            Ok(None) if response.version != Version::HTTP_2 && headers.contains_key(TRANSFER_ENCODING) => Some(None),
            Ok(None) | Err(_) => None,
        }
    }

    fn encoder(&self, coding: Coding, length: Option<u64>) -> Result<Encoder> {
        let stream = match coding {
            Coding::Gzip => Stream::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(self.gzip_level))),
            Coding::Brotli => {
                Stream::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, self.brotli_level, 20)))
            }
            Coding::Zstd => Stream::Zstd(
                zstd::stream::write::Encoder::new(Vec::new(), self.zstd_level)
                    .or_err(ErrorType::InternalError, "setting zstd up")?,
            ),
        };
        Ok(Encoder { stream: Mutex::new(Some(stream)), length, seen: 0 })
    }
}

/// `q=0.5` in thousandths; what is no weight is none.
fn weight(parameter: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(parameter).ok()?;
    let (name, value) = text.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value: f32 = value.trim().parse().ok().filter(|v: &f32| v.is_finite())?;
    // In range by the clamp.
    Some((value.clamp(0.0, 1.0) * 1000.0) as u16)
}

/// Takes from the fields of a 304 what would undo the marks that compression left on the stored head.
pub fn confirm(stored: &HeaderMap, fields: &mut HeaderMap) {
    let weakened = match (stored.get(ETAG), fields.get(ETAG)) {
        (Some(own), Some(told)) => own.as_bytes().strip_prefix(b"W/").is_some_and(|opaque| opaque == told.as_bytes()),
        _ => false,
    };
    if weakened && stored.contains_key(CONTENT_ENCODING) {
        fields.remove(ETAG);
        fields.remove(ACCEPT_RANGES);
        for name in &DIGESTS {
            fields.remove(name);
        }
    }
}

enum Stream {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Compresses one response's content as it comes.
pub struct Encoder {
    /// The lock is never taken: it makes the encoder one that several threads may know of.
    stream: Mutex<Option<Stream>>,
    length: Option<u64>,
    seen: u64,
}

impl Encoder {
    /// What of the compressed content is there after `piece`; all of it at the `end`.
    ///
    /// # Errors
    /// The content ends before its declared length.
    pub fn encode(&mut self, piece: Option<Bytes>, end: bool) -> Result<Bytes> {
        let piece = piece.unwrap_or_default();
        self.seen += piece.len() as u64;
        if end && self.length.is_some_and(|length| self.seen < length) {
            return Error::e_explain(ErrorType::InternalError, "content shorter than declared");
        }
        let end = end || self.length.is_some_and(|length| self.seen >= length);
        let place = self.stream.get_mut();
        let failed = "compressing";
        if end {
            let Some(mut stream) = place.take() else { return Ok(Bytes::new()) };
            let mut out = stream.write(&piece, false).or_err(ErrorType::InternalError, failed)?;
            out.extend(stream.finish().or_err(ErrorType::InternalError, failed)?);
            return Ok(out.into());
        }
        let Some(stream) = place else { return Ok(Bytes::new()) };
        // Content of unknown length is made while its reader waits.
        let flush = self.length.is_none() && !piece.is_empty();
        stream.write(&piece, flush).map(Bytes::from).or_err(ErrorType::InternalError, failed)
    }
}

impl Stream {
    /// Returns what has come out so far.
    fn write(&mut self, piece: &[u8], flush: bool) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Gzip(stream) => {
                stream.write_all(piece)?;
                if flush {
                    stream.flush()?;
                }
                Ok(std::mem::take(stream.get_mut()))
            }
            Self::Brotli(stream) => {
                stream.write_all(piece)?;
                if flush {
                    stream.flush()?;
                }
                Ok(std::mem::take(stream.get_mut()))
            }
            Self::Zstd(stream) => {
                stream.write_all(piece)?;
                if flush {
                    stream.flush()?;
                }
                Ok(std::mem::take(stream.get_mut()))
            }
        }
    }

    fn finish(self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Gzip(stream) => stream.finish(),
            Self::Brotli(stream) => Ok(stream.into_inner()),
            Self::Zstd(stream) => stream.finish(),
        }
    }
}

#[cfg(test)]
mod tests;
