//! One event as one line. Whatever a client sends, it cannot end a line, forge another one, leave its quotes, or reach a
//! terminal as a control sequence.

use super::{Event, date};
use serde::Serialize;
use serde_json::ser::Formatter;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

/// Appends an event's line, line end included.
pub(super) type Encode = Box<dyn Fn(&Event, &mut Vec<u8>) + Send>;

/// One JSON object. Durations are in milliseconds; absent values are left out.
pub(super) fn json(event: &Event, out: &mut Vec<u8>) {
    let line = Line {
        time: date::rfc3339(event.time),
        request_id: hex(event.request_id),
        client: event.client.map(|client| client.ip().to_string()),
        client_port: event.client.map(|client| client.port()),
        site: &event.site,
        method: event.method.as_str(),
        scheme: event.scheme,
        host: &event.host,
        target: &event.target,
        protocol: event.protocol,
        status: event.status,
        request_bytes: event.request_bytes,
        response_bytes: event.response_bytes,
        duration_ms: milliseconds(event.duration),
        origin_duration_ms: event.origin_duration.map(milliseconds),
        cache: event.cache,
        tier: event.tier,
        upstream: event.upstream.map(|upstream| upstream.to_string()),
        origin: event.origin.as_deref(),
        user_agent: event.user_agent.as_deref(),
        referer: event.referer.as_deref(),
        tls: event.tls,
        error: event.error.as_deref(),
    };
    let before = out.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Escaping);
    match line.serialize(&mut serializer) {
        Ok(()) => out.push(b'\n'),
        // Nothing in a Line can fail; if it does, half a line must not stay.
        Err(error) => {
            out.truncate(before);
            tracing::error!(%error, "access event could not be encoded");
        }
    }
}

/// `client - - [time] "request line" status bytes "referer" "user agent"`, then `name=value` pairs; `-` stands for what
/// is absent. Times are in seconds.
pub(super) fn combined(event: &Event, out: &mut Vec<u8>) {
    let mut line = String::with_capacity(384);
    let client = event.client.map_or_else(|| "-".to_owned(), |client| client.ip().to_string());
    let time = date::combined(event.time);
    // Writing to a String cannot fail.
    let _ = write!(line, "{client} - - [{time}] \"");
    escape(event.method.as_str(), &mut line);
    line.push(' ');
    escape(&event.target, &mut line);
    let _ = write!(line, " {}\" {} {}", event.protocol, event.status, event.response_bytes);
    for text in [&event.referer, &event.user_agent] {
        line.push(' ');
        quote(text.as_deref().unwrap_or("-"), &mut line);
    }
    let _ = write!(line, " cache={} tier={}", event.cache, event.tier.unwrap_or("-"));
    let _ = write!(line, " time={:.6}", event.duration.as_secs_f64());
    match event.origin_duration {
        Some(duration) => _ = write!(line, " origin_time={:.6}", duration.as_secs_f64()),
        None => line.push_str(" origin_time=-"),
    }
    let upstream = event.upstream.map_or_else(|| "-".to_owned(), |upstream| upstream.to_string());
    let _ = write!(line, " upstream={upstream} request_id={}", hex(event.request_id));
    let _ = write!(line, " request_bytes={} scheme={}", event.request_bytes, event.scheme);
    let _ = write!(line, " tls={}", event.tls.unwrap_or("-"));
    let (site, origin) = (Some(event.site.as_ref()), event.origin.as_deref());
    for (name, text) in
        [("site", site), ("origin", origin), ("host", Some(&event.host)), ("error", event.error.as_deref())]
    {
        let _ = write!(line, " {name}=");
        quote(text.unwrap_or("-"), &mut line);
    }
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_port: Option<u16>,
    site: &'a str,
    method: &'a str,
    scheme: &'static str,
    host: &'a str,
    target: &'a str,
    protocol: &'static str,
    status: u16,
    request_bytes: u64,
    response_bytes: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin_duration_ms: Option<f64>,
    cache: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// JSON demands an escape for U+0000 to U+001F only; some terminals also act on U+007F to U+009F, and some readers end
/// a line at U+2028 and U+2029.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut written = 0;
        for (at, found) in fragment.char_indices().filter(|(_, c)| is_hidden(*c)) {
            writer.write_all(&fragment.as_bytes()[written..at])?;
            write!(writer, "\\u{:04x}", u32::from(found))?;
            written = at + found.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[written..])
    }
}

fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn quote(text: &str, line: &mut String) {
    line.push('"');
    escape(text, line);
    line.push('"');
}

/// As Apache does: `\"`, `\\`, and `\xHH` for each byte of what is not to be seen.
fn escape(text: &str, line: &mut String) {
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            _ if is_hidden(c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(line, "\\x{byte:02x}");
                }
            }
            _ => line.push(c),
        }
    }
}

fn hex(id: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(id))
}

/// With three decimals: microseconds.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;

    fn line(encode: fn(&Event, &mut Vec<u8>), event: &Event) -> String {
        let mut out = Vec::new();
        encode(event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_is_one_json_object() {
        let text = line(json, &event("/a?b=c"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "time": "2000-10-10T13:55:36.007Z", "request_id": "000102030405060708090a0b0c0d0e0f",
            "client": "192.0.2.1", "client_port": 4711, "site": "main", "method": "GET", "scheme": "https",
            "host": "www.example.com", "target": "/a?b=c", "protocol": "HTTP/2.0", "status": 200, "request_bytes": 0,
            "response_bytes": 2326, "duration_ms": 1.234, "origin_duration_ms": 0.9, "cache": "hit", "tier": "memory",
            "upstream": "198.51.100.7:80", "origin": "app", "user_agent": "curl/8", "referer": "https://r.example/",
            "tls": "TLSv1.3",
        });
        assert_eq!(value, expected);
        assert!(text.starts_with("{\"time\":") && text.ends_with("}\n"));
    }

    #[test]
    fn an_event_is_one_combined_line() {
        assert_eq!(
            line(combined, &event("/a?b=c")),
            "192.0.2.1 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?b=c HTTP/2.0\" 200 2326 \"https://r.example/\" \
             \"curl/8\" cache=hit tier=memory time=0.001234 origin_time=0.000900 upstream=198.51.100.7:80 \
             request_id=000102030405060708090a0b0c0d0e0f request_bytes=0 scheme=https tls=TLSv1.3 site=\"main\" \
             origin=\"app\" host=\"www.example.com\" error=\"-\"\n"
        );
        let bare = Event {
            client: None,
            origin_duration: None,
            tier: None,
            upstream: None,
            origin: None,
            user_agent: None,
            referer: None,
            tls: None,
            error: Some("connection_refused".to_owned()),
            ..event("/")
        };
        let text = line(combined, &bare);
        assert!(text.starts_with("- - - [10/Oct/2000:13:55:36 +0000] \"GET / HTTP/2.0\" 200 2326 \"-\" \"-\""));
        assert!(text.ends_with("origin=\"-\" host=\"www.example.com\" error=\"connection_refused\"\n"), "{text}");
        assert!(!line(json, &bare).contains("null"));
    }

    #[test]
    fn a_client_cannot_forge_a_line() {
        let evil = "x\" 200 1\n1.2.3.4 - \r\u{1b}[2J\u{9b}1m\\\u{7f}\u{2028}\0é";
        let forged = Event {
            host: evil.to_owned(),
            target: evil.to_owned(),
            user_agent: Some(evil.to_owned()),
            referer: Some(evil.to_owned()),
            error: Some(evil.to_owned()),
            ..event("/")
        };
        for encode in [json as fn(&Event, &mut Vec<u8>), combined] {
            let text = line(encode, &forged);
            let inner = text.strip_suffix('\n').unwrap();
            assert!(!inner.contains(is_hidden), "{inner:?}");
            assert!(inner.contains('é'));
        }
        let value: serde_json::Value = serde_json::from_str(&line(json, &forged)).unwrap();
        for name in ["host", "target", "user_agent", "referer", "error"] {
            assert_eq!(value[name], evil, "{name} is the same text when read back");
        }
        let text = line(combined, &forged);
        // Request line, referer, user agent, site, origin, host and error: two quotes each, all others escaped.
        assert_eq!(text.replace("\\\\", "").replace("\\\"", "").matches('"').count(), 14, "{text}");
        assert!(text.contains("x\\\" 200 1\\x0a1.2.3.4 - \\x0d\\x1b[2J\\xc2\\x9b1m\\\\\\x7f\\xe2\\x80\\xa8\\x00é"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_stays_one_line_and_reads_back(text in "\\PC*|(?s:.){0,40}") {
            let event = Event { user_agent: Some(text.clone()), ..event(&text) };
            let json_line = line(json, &event);
            proptest::prop_assert_eq!(json_line.lines().count(), 1);
            let value: serde_json::Value = serde_json::from_str(&json_line).unwrap();
            proptest::prop_assert_eq!(value["target"].as_str(), Some(text.as_str()));
            proptest::prop_assert_eq!(line(combined, &event).lines().count(), 1);
        }
    }
}
