//! A response head that is written once and sent many times.

use http::header::{AGE, CONNECTION, DATE};
use http::{HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use std::io::Write;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// The parameter of `Cache-Status` whose value changes, as it is written in the head that becomes a template.
const TTL: &[u8] = b"ttl=0";

/// Fields whose values change from one answer to the next, and what no rule of a route may touch so that they are where
/// the template expects them.
pub const OWN: [HeaderName; 4] = [AGE, CACHE_STATUS, CONNECTION, DATE];

/// The bytes of a head, and the places in it that are filled with each answer.
#[derive(Debug)]
pub struct Template {
    bytes: Box<[u8]>,
    /// In the order of their places.
    holes: [(u32, Hole); 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    Age,
    Ttl,
    Connection,
}

/// What goes into the places.
#[derive(Clone, Copy, Debug, Default)]
pub struct Values {
    /// Seconds.
    pub age: u64,
    /// Seconds of freshness left.
    pub ttl: i64,
    /// Whether the connection is closed after this answer.
    pub closes: bool,
}

impl Template {
    /// Of a head that is complete but for the values of `Age`, which is there once, and of `ttl` in its last
    /// `Cache-Status`, which is 0; and without `Connection`. `None` where it is not like that.
    pub fn new(head: ResponseHeader) -> Option<Self> {
        let (head, wire) = serialised(head, true)?;
        let own = head.headers.get_all(CACHE_STATUS).iter().next_back()? as *const HeaderValue;
        let mut bytes = Vec::with_capacity(wire.len() + 32);
        status_line(&head, &mut bytes);
        let (mut rest, mut holes) = (wire.as_slice(), Vec::with_capacity(3));
        // Lines are in the order of the map, whatever the case of the names.
        for (name, value) in &head.headers {
            let (line, after) = rest.split_at_checked(name.as_str().len() + value.len() + 4)?;
            rest = after;
            let at = name.as_str().len() + 2;
            let (begin, value_at) = (bytes.len(), bytes.len() + at);
            let place = |hole| u32::try_from(value_at).ok().map(|at| (at, hole));
            if *name == DATE {
                bytes.extend_from_slice(b"Date");
                bytes.extend_from_slice(line.get(4..)?);
                continue;
            }
            bytes.extend_from_slice(line);
            if *name == AGE {
                holes.push(place(Hole::Age)?);
                bytes.drain(value_at..begin + line.len() - 2);
            } else if *name == CONNECTION {
                holes.push(place(Hole::Connection)?);
                bytes.drain(value_at..begin + line.len() - 2);
            } else if std::ptr::eq(value, own) {
                let within = value.as_bytes().windows(TTL.len()).position(|part| part == TTL)?;
                let zero = value_at + within + TTL.len() - 1;
                holes.push((u32::try_from(zero).ok()?, Hole::Ttl));
                bytes.remove(zero);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        let holes = <[(u32, Hole); 3]>::try_from(holes).ok().filter(|_| rest.is_empty())?;
        Some(Self { bytes: bytes.into(), holes })
    }

    /// Appends the head with these values.
    pub fn render(&self, values: Values, out: &mut Vec<u8>) {
        out.reserve(self.bytes.len() + 64);
        let mut from = 0;
        for (at, hole) in self.holes {
            let at = at as usize;
            out.extend_from_slice(&self.bytes[from..at]);
            from = at;
            match hole {
                Hole::Age => number(values.age, out),
                Hole::Ttl => {
                    if values.ttl < 0 {
                        out.push(b'-');
                    }
                    // The integers of RFC 9651 have at most 15 digits.
                    number(values.ttl.unsigned_abs().min(999_999_999_999_999), out);
                }
                Hole::Connection => out.extend_from_slice(if values.closes { b"close" } else { b"keep-alive" }),
            }
        }
        out.extend_from_slice(&self.bytes[from..]);
    }
}

/// Appends a head that is complete but for `Connection`; `None` where it has no one `Age` or `Date`.
pub fn write(head: ResponseHeader, closes: bool, out: &mut Vec<u8>) -> Option<()> {
    let (head, wire) = serialised(head, closes)?;
    out.reserve(wire.len() + 64);
    status_line(&head, out);
    let mut from = 0;
    // The date is there by its own name, whatever the case the origin server wrote it in.
    let mut at = 0;
    for (name, value) in &head.headers {
        if *name == DATE {
            out.extend_from_slice(wire.get(from..at)?);
            out.extend_from_slice(b"Date");
            from = at + 4;
        }
        at += name.as_str().len() + value.len() + 4;
    }
    out.extend_from_slice(wire.get(from..)?);
    out.extend_from_slice(b"\r\n");
    Some(())
}

/// The head with `Connection`, and its field lines as the core writes them.
fn serialised(mut head: ResponseHeader, closes: bool) -> Option<(ResponseHeader, Vec<u8>)> {
    // As the core does, which puts its own `Date` where the origin server's then goes.
    let connection = HeaderValue::from_static(if closes { "close" } else { "keep-alive" });
    head.insert_header(CONNECTION, connection).ok()?;
    let one = |name| {
        let mut values = head.headers.get_all(name).iter();
        values.next().is_some() && values.next().is_none()
    };
    if !one(AGE) || !one(DATE) || head.version != http::Version::HTTP_11 {
        return None;
    }
    let mut wire = Vec::with_capacity(512);
    head.header_to_h1_wire(&mut wire);
    Some((head, wire))
}

fn status_line(head: &ResponseHeader, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.get_reason_phrase().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn number(value: u64, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.set_version(http::Version::HTTP_11);
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn what_changes_is_filled_in_and_the_rest_stays() {
        let template = Template::new(head(&[
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("x-a", "age: 1\u{b5}"),
            ("age", "77"),
            ("cache-status", "other; hit; ttl=0"),
            ("cache-status", "selvedge; hit; ttl=0; detail=memory"),
            ("x-b", "ttl=0"),
        ]))
        .unwrap();
        for (values, age, ttl, connection) in [
            (Values { age: 0, ttl: 1234, closes: false }, "0", "1234", "keep-alive"),
            (Values { age: 86400, ttl: -5, closes: true }, "86400", "-5", "close"),
            (Values { age: 1, ttl: i64::MAX, closes: true }, "1", "999999999999999", "close"),
        ] {
            let mut out = b"before".to_vec();
            template.render(values, &mut out);
            let expected = format!(
                "beforeHTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nx-a: age: 1\u{b5}\r\nAge: {age}\r\ncache-status: \
                 other; hit; ttl=0\r\ncache-status: selvedge; hit; ttl={ttl}; detail=memory\r\nx-b: ttl=0\r\nConnection: {connection}\r\n\r\n"
            );
            let got = String::from_utf8(out).unwrap();
            assert_eq!(got.to_ascii_lowercase(), expected.to_ascii_lowercase());
        }
    }

    #[test]
    fn a_head_without_one_date_and_age_has_no_template() {
        let own = ("cache-status", "selvedge; hit; ttl=0");
        assert!(Template::new(head(&[("age", "0"), own])).is_none());
        assert!(Template::new(head(&[("date", "x"), ("date", "y"), ("age", "0"), own])).is_none());
        assert!(Template::new(head(&[("date", "x"), own])).is_none());
        assert!(Template::new(head(&[("date", "x"), ("age", "0")])).is_none());
    }
}
