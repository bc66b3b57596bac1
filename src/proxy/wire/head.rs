//! Puts another `Date` into an HTTP/1 response head on its way to the client.

use http::HeaderValue;
use std::io::BufRead;

/// The core's heads are far smaller; what grows past this without an end is not one, and goes out as it is.
const MAX_HEAD: usize = 1 << 20;

/// Looks for the next final response head in what is written, and gives it the origin server's `Date`.
///
/// Interim heads before it (RFC 9110 section 15.2) go out as they are. What follows it is never looked at, so that no
/// bytes of a body can be taken for a field; and the value comes from the phases, not out of the head, so that neither
/// side can say by a field of its own what it shall be.
#[derive(Debug)]
pub struct Redate {
    date: HeaderValue,
    /// A head that has begun and not ended.
    head: Vec<u8>,
    /// How much of it is whole lines that have been read.
    read: usize,
    /// The lines among them that are `Date` fields: begin and end.
    dates: Vec<(usize, usize)>,
}

/// What [`Redate::take`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes that need not be written any more; 0 only for an empty buffer or after `done`.
    pub bytes: usize,
    /// The final head is out: what is written from now on is passed on as it is.
    pub done: bool,
}

impl Redate {
    /// Waits for a head, to give it `date`.
    pub fn new(date: HeaderValue) -> Self {
        Self { date, head: Vec::new(), read: 0, dates: Vec::new() }
    }

    /// Takes what belongs to heads from the begin of `buf`, and appends to `out` what can be sent.
    pub fn take(&mut self, buf: &[u8], out: &mut Vec<u8>) -> Taken {
        let mut bytes = 0;
        while bytes < buf.len() {
            let (used, end) = self.read_head(&buf[bytes..]);
            bytes += used;
            match end {
                End::Open => break,
                End::Interim => {
                    out.append(&mut self.head);
                    (self.read, self.dates) = (0, Vec::new());
                }
                End::Final => {
                    self.write(out);
                    return Taken { bytes, done: true };
                }
                End::NoHead => {
                    out.append(&mut self.head);
                    return Taken { bytes, done: true };
                }
            }
        }
        Taken { bytes, done: false }
    }

    /// What was taken of a head that never ended, for a stream that is closed.
    pub fn into_rest(self) -> Vec<u8> {
        self.head
    }

    /// Adds bytes to the head, up to its empty line.
    fn read_head(&mut self, buf: &[u8]) -> (usize, End) {
        let mut used = 0;
        while used < buf.len() {
            let mut rest = &buf[used..];
            // Reading from memory does not fail; it is here for its search.
            let n = rest.skip_until(b'\n').unwrap_or(0);
            self.head.extend_from_slice(&buf[used..used + n]);
            used += n;
            if self.head.last() != Some(&b'\n') {
                break;
            }
            let line = &self.head[self.read..];
            let empty = matches!(line, b"\r\n" | b"\n");
            if line.len() > 5 && line[..5].eq_ignore_ascii_case(b"date:") {
                self.dates.push((self.read, self.head.len()));
            }
            self.read = self.head.len();
            if empty {
                return (used, self.kind());
            }
        }
        let begin = &self.head[..self.head.len().min(5)];
        if self.head.len() > MAX_HEAD || !b"HTTP/".starts_with(begin) {
            return (used, End::NoHead);
        }
        (used, End::Open)
    }

    /// Which head has ended, by its status line.
    fn kind(&self) -> End {
        match self.head.get(..12) {
            Some([b'H', b'T', b'T', b'P', b'/', _, b'.', _, b' ', a, b, c]) => match [*a, *b, *c] {
                // The last head of the connection (RFC 9110 section 15.2.2).
                [b'1', b'0', b'1'] => End::Final,
                [b'1', ..] => End::Interim,
                _ => End::Final,
            },
            _ => End::NoHead,
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        out.reserve(self.head.len() + self.date.len());
        let mut from = 0;
        for (begin, end) in self.dates.drain(..) {
            out.extend_from_slice(&self.head[from..begin]);
            if from == 0 {
                out.extend_from_slice(b"Date: ");
                out.extend_from_slice(self.date.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            from = end;
        }
        out.extend_from_slice(&self.head[from..]);
        self.head = Vec::new();
    }
}

enum End {
    /// Not yet.
    Open,
    Interim,
    Final,
    /// It is none.
    NoHead,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    /// Writes the pieces one after the other, each until it is taken, as `write_all` does.
    fn sent<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut out = Vec::new();
        let mut redate = Some(Redate::new(HeaderValue::from_static(DATE)));
        for mut piece in pieces {
            while !piece.is_empty() {
                match &mut redate {
                    Some(some) => {
                        let taken = some.take(piece, &mut out);
                        assert_ne!(taken.bytes, 0);
                        piece = &piece[taken.bytes..];
                        if taken.done {
                            redate = None;
                        }
                    }
                    None => {
                        out.extend_from_slice(piece);
                        piece = &[];
                    }
                }
            }
        }
        out.extend(redate.map(Redate::into_rest).unwrap_or_default());
        String::from_utf8(out).unwrap()
    }

    /// What is written, and what the client is to see of it: `{}` is the place of the date.
    const CASES: &[(&str, &str)] = &[
        (
            "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nDate: {}\r\nContent-Length: 2\r\n\r\nok",
        ),
        ("HTTP/1.0 404 \r\ndate:now\r\n\r\n", "HTTP/1.0 404 \r\nDate: {}\r\n\r\n"),
        // Names that only look like it, and values that do.
        (
            "HTTP/1.1 200 OK\r\nX-Date: 1\r\nDate-X: 2\r\nLast: a\r\nDATE: now\r\nX: \tdate: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX-Date: 1\r\nDate-X: 2\r\nLast: a\r\nDate: {}\r\nX: \tdate: 3\r\n\r\n",
        ),
        // A folded value is no field and no end.
        (
            "HTTP/1.1 200 OK\r\nX: a\r\n date: 1\r\n \r\nDate: now\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n date: 1\r\n \r\nDate: {}\r\n\r\n",
        ),
        // Only the core's is there; if there are more, one is left.
        (
            "HTTP/1.1 200 OK\r\nDate: 1\r\nA: b\r\nDate: 2\r\nC: d\r\n\r\n",
            "HTTP/1.1 200 OK\r\nDate: {}\r\nA: b\r\nC: d\r\n\r\n",
        ),
        // None is none.
        ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n\r\n"),
        // A body that looks like a head, and a head of the next response, are left alone.
        (
            "HTTP/1.1 200 OK\r\nDate: now\r\n\r\nHTTP/1.1 200 OK\r\nDate: body\r\n\r\nDate: body\r\n\r\n",
            "HTTP/1.1 200 OK\r\nDate: {}\r\n\r\nHTTP/1.1 200 OK\r\nDate: body\r\n\r\nDate: body\r\n\r\n",
        ),
        // Interim heads keep what they have.
        (
            "HTTP/1.1 103 Early Hints\r\nDate: hint\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 204 N\r\nDate: now\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nDate: hint\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 204 N\r\nDate: {}\r\n\r\n",
        ),
        ("HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\nDate: y\r\n\r\n", "HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\nDate: y\r\n\r\n"),
        // What is no head goes through.
        ("hello\r\nDate: now\r\n\r\n", "hello\r\nDate: now\r\n\r\n"),
        ("\r\nDate: now\r\n\r\n", "\r\nDate: now\r\n\r\n"),
        ("HTTP/1.1 20", "HTTP/1.1 20"),
        ("HTTP/2\r\n\r\nDate: now\r\n\r\n", "HTTP/2\r\n\r\nDate: now\r\n\r\n"),
    ];

    #[test]
    fn only_the_date_of_the_final_head_is_replaced_wherever_it_is_cut() {
        for (written, expected) in CASES {
            let expected = expected.replace("{}", DATE);
            let bytes = written.as_bytes();
            assert_eq!(sent([bytes]), expected);
            assert_eq!(sent(bytes.chunks(1)), expected, "byte by byte");
            for at in 0..bytes.len() {
                let (one, two) = bytes.split_at(at);
                assert_eq!(sent([one, two]), expected, "cut at {at}");
            }
        }
    }

    #[test]
    fn a_head_without_end_is_let_go() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(MAX_HEAD + 1));
        assert_eq!(sent(long.as_bytes().chunks(1000)), long);
    }

    proptest! {
        #[test]
        fn nothing_but_the_date_line_changes(
            name in "[A-Za-z-]{1,12}", value in "[ -~]{0,40}", body in "(?s)[ -~\r\n]{0,80}", cut in 0_usize..200,
        ) {
            prop_assume!(!name.eq_ignore_ascii_case("date"));
            let head = |date: &str| format!("HTTP/1.1 200 OK\r\n{name}: {value}\r\nDate: {date}\r\n{name}: {value}\r\n\r\n{body}");
            let written = head("now");
            let (one, two) = written.as_bytes().split_at(cut.min(written.len()));
            prop_assert_eq!(sent([one, two]), head(DATE));
        }
    }
}
