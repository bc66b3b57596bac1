//! A request head as the hot path reads it: the parser is the core's, and whatever the two could read differently is
//! left to the core.

use super::reason::Reason;
use http::Method;
use httparse::{Header, Status};
use pingora::http::RequestHeader;
use std::mem::MaybeUninit;

/// Field lines that are read here; the core takes more.
pub const MAX_FIELDS: usize = 64;

/// Where the parser puts the fields.
pub type Slots<'b> = [MaybeUninit<Header<'b>>; MAX_FIELDS];

/// A head, in the buffer it was read into.
pub struct Request<'s, 'b> {
    /// Bytes of it, the empty line included.
    pub length: usize,
    /// GET or HEAD.
    pub method: Method,
    /// In origin form, of nothing but characters that a URI has.
    pub target: &'b str,
    /// The only `Host` field.
    pub host: &'b [u8],
    /// The client closes the connection after the answer.
    pub closes: bool,
    /// There are fields that count in a decision, so that they have to be looked at in full.
    pub counts: bool,
    /// It has `Origin`.
    pub cross_origin: bool,
    /// It says for whom it was forwarded.
    pub forwarded: bool,
    /// It has `Range`.
    pub ranged: bool,
    /// It has `If-None-Match` and the like.
    pub conditional: bool,
    /// `User-Agent`.
    pub user_agent: Option<&'b [u8]>,
    /// `Referer`.
    pub referer: Option<&'b [u8]>,
    fields: &'s [Header<'b>],
}

/// What a field means for the hot path.
enum Meaning {
    Host,
    Connection,
    UserAgent,
    Referer,
    Origin,
    Forwarded,
    /// It may change the decision.
    Counts,
    Range,
    Condition,
    /// It is for the core.
    Core,
    /// It is looked at where the key or `Vary` names it.
    Other,
}

impl<'s, 'b> Request<'s, 'b> {
    /// Reads a complete head.
    ///
    /// # Errors
    /// Why the core has to.
    pub fn parse(buffer: &'b [u8], slots: &'s mut Slots<'b>) -> Result<Self, Reason> {
        let mut parsed = httparse::Request::new(&mut []);
        let length = match parsed.parse_with_uninit_headers(buffer, slots) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) | Err(_) => return Err(Reason::Head),
        };
        let httparse::Request { method: Some(method), path: Some(target), version: Some(1), headers } = parsed else {
            return Err(Reason::Head);
        };
        let method = match method {
            "GET" => Method::GET,
            "HEAD" => Method::HEAD,
            _ => return Err(Reason::Method),
        };
        if !is_plain(target.as_bytes()) {
            return Err(Reason::Target);
        }
        let mut request = Self {
            length,
            method,
            target,
            host: b"",
            closes: false,
            counts: false,
            cross_origin: false,
            forwarded: false,
            ranged: false,
            conditional: false,
            user_agent: None,
            referer: None,
            fields: headers,
        };
        request.note()?;
        if request.host.is_empty() { Err(Reason::Target) } else { Ok(request) }
    }

    fn note(&mut self) -> Result<(), Reason> {
        let mut connected = false;
        for field in self.fields {
            match meaning(field.name.as_bytes()) {
                Meaning::Other => {}
                Meaning::Host if self.host.is_empty() => self.host = field.value,
                Meaning::Host => return Err(Reason::Target),
                Meaning::Connection if connected => return Err(Reason::Fields),
                Meaning::Connection => {
                    connected = true;
                    self.closes = field.value.eq_ignore_ascii_case(b"close");
                    // What it names besides would have to be taken off.
                    if !self.closes && !field.value.eq_ignore_ascii_case(b"keep-alive") {
                        return Err(Reason::Fields);
                    }
                }
                Meaning::UserAgent => self.user_agent = self.user_agent.or(Some(field.value)),
                Meaning::Referer => self.referer = self.referer.or(Some(field.value)),
                Meaning::Origin => self.cross_origin = true,
                Meaning::Forwarded => self.forwarded = true,
                Meaning::Counts => self.counts = true,
                Meaning::Range => (self.ranged, self.counts) = (true, true),
                Meaning::Condition => (self.conditional, self.counts) = (true, true),
                Meaning::Core => return Err(Reason::Fields),
            }
        }
        Ok(())
    }

    /// The head as the core has it.
    ///
    /// # Errors
    /// A field that the core takes and the map does not.
    pub fn to_header(&self) -> Result<RequestHeader, Reason> {
        let build = || -> pingora::Result<RequestHeader> {
            let mut header =
                RequestHeader::build(self.method.clone(), self.target.as_bytes(), Some(self.fields.len()))?;
            for field in self.fields {
                header.append_header(field.name.to_owned(), field.value)?;
            }
            Ok(header)
        };
        build().map_err(|_| Reason::Head)
    }
}

/// Characters that a path with its query has (RFC 3986 sections 3.3 and 3.4), in which every parser reads the same. It
/// begins with one slash: with two, some read a host.
fn is_plain(target: &[u8]) -> bool {
    const PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let marks = b"-._~!$&'()*+,;=:@/%?";
        let mut at = 0;
        while at < 256 {
            plain[at] = (at as u8).is_ascii_alphanumeric();
            at += 1;
        }
        at = 0;
        while at < marks.len() {
            plain[marks[at] as usize] = true;
            at += 1;
        }
        plain
    };
    target.first() == Some(&b'/') && target.get(1) != Some(&b'/') && target.iter().all(|byte| PLAIN[usize::from(*byte)])
}

fn meaning(name: &[u8]) -> Meaning {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    match name.len() {
        4 if is("host") => Meaning::Host,
        5 if is("range") => Meaning::Range,
        6 if is("cookie") || is("pragma") => Meaning::Counts,
        6 if is("origin") => Meaning::Origin,
        6 if is("expect") => Meaning::Core,
        7 if is("referer") => Meaning::Referer,
        7 if is("upgrade") => Meaning::Core,
        8 if is("if-match") => Meaning::Condition,
        8 if is("if-range") || is("cdn-loop") => Meaning::Counts,
        10 if is("connection") => Meaning::Connection,
        10 if is("user-agent") => Meaning::UserAgent,
        13 if is("if-none-match") => Meaning::Condition,
        13 if is("cache-control") || is("authorization") => Meaning::Counts,
        14 if is("content-length") || is("selvedge-debug") => Meaning::Core,
        15 if is("x-forwarded-for") => Meaning::Forwarded,
        16 if is("x-forwarded-host") || is("x-forwarded-port") => Meaning::Forwarded,
        17 if is("x-forwarded-proto") => Meaning::Forwarded,
        17 if is("if-modified-since") => Meaning::Condition,
        17 if is("transfer-encoding") => Meaning::Core,
        19 if is("if-unmodified-since") => Meaning::Condition,
        _ => Meaning::Other,
    }
}

/// Where a head ends, looked for only in what is new.
#[derive(Clone, Copy, Debug, Default)]
pub struct End {
    /// Bytes looked at.
    seen: usize,
    /// The next parse of an unfinished head is at this size.
    parse_at: usize,
    /// Something other than an empty line has begun it.
    begun: bool,
    /// The last byte that counts was a line's end.
    at_line: bool,
}

impl End {
    /// Whether `buffer`, which has grown at its end, has a whole head, or what will never be one.
    pub fn is_found(&mut self, buffer: &[u8]) -> bool {
        for byte in &buffer[self.seen.min(buffer.len())..] {
            match byte {
                b'\n' if self.at_line && self.begun => return true,
                b'\n' => self.at_line = true,
                b'\r' => {}
                _ => (self.begun, self.at_line) = (true, false),
            }
        }
        self.seen = buffer.len();
        if self.seen < self.parse_at {
            return false;
        }
        // What is no HTTP is said at once; at sizes that double, so that no number of small pieces makes it dear.
        self.parse_at = self.seen * 2;
        let mut fields = [httparse::EMPTY_HEADER; 1];
        let mut request = httparse::Request::new(&mut fields);
        !matches!(request.parse(buffer), Ok(_) | Err(httparse::Error::TooManyHeaders))
    }
}

/// Bytes of a request, content included, where that can be told from its head alone: what follows is the next request.
pub fn length(buffer: &[u8]) -> Option<u64> {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut fields);
    let Ok(Status::Complete(head)) = request.parse(buffer) else { return None };
    if request.method == Some("CONNECT") {
        return None;
    }
    let mut content = None;
    for field in request.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("transfer-encoding") || is("upgrade") || is("content-length") && content.is_some() {
            return None;
        }
        if is("content-length") {
            let digits = std::str::from_utf8(field.value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()))?;
            content = Some(digits.parse::<u64>().ok()?);
        }
    }
    (head as u64).checked_add(content.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed<R>(head: &str, look: impl FnOnce(Result<Request<'_, '_>, Reason>) -> R) -> R {
        let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        look(Request::parse(head.as_bytes(), &mut slots))
    }

    #[test]
    fn what_is_plain_is_read_and_the_rest_left() {
        parsed("GET /a?b=c HTTP/1.1\r\nHost: a\r\nUser-Agent:  x \r\nConnection: Close\r\n\r\nrest", |request| {
            let request = request.unwrap();
            assert_eq!((request.target, request.host, request.length), ("/a?b=c", &b"a"[..], 68));
            assert_eq!((request.user_agent, request.closes, request.counts), (Some(&b"x"[..]), true, false));
        });
        for (head, reason) in [
            ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::Method),
            ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", Reason::Head),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Reason::Target),
            ("GET //a HTTP/1.1\r\nHost: a\r\n\r\n", Reason::Target),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Reason::Target),
            ("GET /a|b HTTP/1.1\r\nHost: a\r\n\r\n", Reason::Target),
            ("GET / HTTP/1.1\r\n\r\n", Reason::Target),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Reason::Target),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\n\r\n", Reason::Fields),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Reason::Fields),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Reason::Fields),
            ("GET / HTTP/1.1\r\nHost: a\r\nSelvedge-Debug: x\r\n\r\n", Reason::Fields),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Reason::Head),
            ("GET / HTTP/1.1\r\nHost: a\r\n", Reason::Head),
        ] {
            assert_eq!(parsed(head, |request| request.err()), Some(reason), "{head:?}");
        }
        for name in ["Range", "if-none-match", "COOKIE", "Cache-Control", "Authorization", "CDN-Loop"] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: x\r\n\r\n");
            assert!(parsed(&head, |request| request.unwrap().counts), "{name}");
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_cut() {
        for (head, rest) in
            [("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET"), ("\r\n\r\nGET / HTTP/1.1\nHost: a\n\n", "\n")]
        {
            let whole = format!("{head}{rest}");
            for step in 1..=whole.len() {
                let mut end = End::default();
                let found =
                    (1..).map(|n| (n * step).min(whole.len())).find(|at| end.is_found(&whole.as_bytes()[..*at]));
                let first = head.len().div_ceil(step) * step;
                assert_eq!(found, Some(first.min(whole.len())), "{head:?} by {step}");
            }
        }
        let mut end = End::default();
        assert!(!end.is_found(b"GET / HTTP/1.1\r\nA: "));
        assert!(End::default().is_found(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), "no HTTP");
    }

    #[test]
    fn the_length_of_a_request_is_told_only_where_nobody_reads_another() {
        for (fields, content) in [
            ("", Some(0)),
            ("Content-Length: 5\r\n", Some(5)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", None),
            ("Content-Length: +5\r\n", None),
            ("Content-Length:\r\n", None),
            ("Transfer-Encoding: chunked\r\n", None),
            ("Upgrade: websocket\r\n", None),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let told = length(format!("{head}hello").as_bytes());
            assert_eq!(told, content.map(|n: u64| head.len() as u64 + n), "{fields}");
        }
        assert_eq!(length(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"), None);
        assert_eq!(length(b"GET / HTTP/1.1\r\n"), None);
    }
}
