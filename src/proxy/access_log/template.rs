//! Lines by an operator's own pattern, with nginx's variables in it: what `log_format` is there.

use super::{Event, date};
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

/// A pattern, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    escape: Escape,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A place in [`VARIABLES`].
    Variable(usize),
}

/// How values are kept from being taken for something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    /// `"` and `\` behind a `\`, and `-` for what is absent.
    #[default]
    Default,
    /// For the inside of a JSON string; nothing for what is absent.
    Json,
    /// Quotes stay as they are; nothing for what is absent.
    None,
}

/// A variable's value; `None` where it is absent.
type Value = fn(&Event) -> Option<String>;

/// nginx's names, and what they are here. Byte counts are of bodies.
const VARIABLES: [(&str, Value); 31] = [
    ("args", |e| e.target.split_once('?').map(|(_, query)| query.to_owned())),
    ("body_bytes_sent", |e| Some(e.response_bytes.to_string())),
    ("bytes_sent", |e| Some(e.response_bytes.to_string())),
    ("host", |e| Some(e.host.clone())),
    ("http_host", |e| Some(e.host.clone())),
    ("http_referer", |e| e.referer.clone()),
    ("http_user_agent", |e| e.user_agent.clone()),
    ("https", |e| (e.scheme == "https").then(|| "on".to_owned())),
    ("msec", |e| {
        let since = e.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(format!("{}.{:03}", since.as_secs(), since.subsec_millis()))
    }),
    ("proxy_host", |e| e.origin.as_deref().map(str::to_owned)),
    ("query_string", |e| e.target.split_once('?').map(|(_, query)| query.to_owned())),
    ("remote_addr", |e| e.client.map(|client| client.ip().to_string())),
    ("remote_port", |e| e.client.map(|client| client.port().to_string())),
    // Passwords are checked, and no name is kept.
    ("remote_user", |_| None),
    ("request", |e| Some(format!("{} {} {}", e.method, e.target, e.protocol))),
    ("request_id", |e| Some(format!("{:032x}", u128::from_be_bytes(e.request_id)))),
    ("request_length", |e| Some(e.request_bytes.to_string())),
    ("request_method", |e| Some(e.method.to_string())),
    ("request_time", |e| Some(seconds(e.duration))),
    ("request_uri", |e| Some(e.target.clone())),
    ("scheme", |e| Some(e.scheme.to_owned())),
    ("server_name", |e| Some(e.site.to_string())),
    ("server_protocol", |e| Some(e.protocol.to_owned())),
    ("ssl_protocol", |e| e.tls.map(str::to_owned)),
    ("status", |e| Some(e.status.to_string())),
    ("time_iso8601", |e| {
        let time = date::rfc3339(e.time);
        Some(format!("{}+00:00", time.split(['.', 'Z']).next().unwrap_or_default()))
    }),
    ("time_local", |e| Some(date::combined(e.time))),
    ("upstream_addr", |e| e.upstream.map(|upstream| upstream.to_string())),
    ("upstream_cache_status", |e| Some(e.cache.to_ascii_uppercase())),
    ("upstream_response_time", |e| e.origin_duration.map(seconds)),
    ("uri", |e| e.target.split('?').next().map(str::to_owned)),
];

/// As nginx writes them: with milliseconds.
fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

impl Template {
    /// Reads `$host $remote_addr "$request"` or, where a letter follows, `${host}`. The second value names the variables
    /// that there are not, which count as absent.
    pub fn parse(text: &str, escape: Escape) -> (Self, Vec<String>) {
        let (mut pieces, mut unknown) = (Vec::new(), Vec::new());
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
            let (name, then) = braced.unwrap_or_else(|| after.split_at(end));
            rest = then;
            if name.is_empty() {
                literal.push('$');
                continue;
            }
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            match VARIABLES.iter().position(|(known, _)| *known == name) {
                Some(place) => pieces.push(Piece::Variable(place)),
                None => {
                    unknown.push(name.to_owned());
                    literal.push_str(if escape == Escape::Default { "-" } else { "" });
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        (Self { pieces, escape }, unknown)
    }

    /// Every variable that there is, for messages.
    pub fn variables() -> String {
        VARIABLES.map(|(name, _)| format!("${name}")).join(", ")
    }

    /// Appends an event's line, line end included.
    pub(super) fn write(&self, event: &Event, out: &mut Vec<u8>) {
        let mut line = String::with_capacity(256);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Variable(place) => match (VARIABLES[*place].1(event), self.escape) {
                    (Some(value), escape) => push(&value, escape, &mut line),
                    (None, Escape::Default) => line.push('-'),
                    (None, Escape::Json | Escape::None) => {}
                },
            }
        }
        // One event is one line, whatever the pattern has.
        out.extend(line.bytes().map(|byte| if byte == b'\n' || byte == b'\r' { b' ' } else { byte }));
        out.push(b'\n');
    }
}

/// Whatever the escape, what is not to be seen is never written as it is: it could end a line or turn a terminal.
fn push(value: &str, escape: Escape, line: &mut String) {
    for c in value.chars() {
        let hidden = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        // Writing to a String cannot fail.
        match (escape, c) {
            (Escape::Json, _) if hidden => _ = write!(line, "\\u{:04x}", u32::from(c)),
            (_, _) if hidden => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(line, "\\x{byte:02x}");
                }
            }
            (Escape::Default | Escape::Json, '"' | '\\') => line.extend(['\\', c]),
            _ => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;

    fn line(text: &str, escape: Escape, event: &Event) -> String {
        let mut out = Vec::new();
        Template::parse(text, escape).0.write(event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nginx_proxys_own_format_is_written() {
        let text = "$host $remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                    \"$http_referer\" \"$http_user_agent\" \"$upstream_addr\"";
        assert_eq!(Template::parse(text, Escape::Default).1, Vec::<String>::new());
        assert_eq!(
            line(text, Escape::Default, &event("/a?b=c")),
            "www.example.com 192.0.2.1 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?b=c HTTP/2.0\" 200 2326 \
             \"https://r.example/\" \"curl/8\" \"198.51.100.7:80\"\n"
        );
    }

    #[test]
    fn every_variable_has_a_value_or_a_dash() {
        let all: String = VARIABLES.iter().map(|(name, _)| format!("{name}=${{{name}}};")).collect();
        let text = line(&all, Escape::Default, &event("/a?b=c"));
        for part in [
            "args=b=c;",
            "https=on;",
            "msec=971186136.007;",
            "remote_user=-;",
            "request_time=0.001;",
            "time_iso8601=2000-10-10T13:55:36+00:00;",
            "upstream_cache_status=HIT;",
            "uri=/a;",
            "request_id=000102030405060708090a0b0c0d0e0f;",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn what_is_unknown_is_named_and_counts_as_absent() {
        let (template, unknown) = Template::parse("$host$nothing${upstream}x $ $$status", Escape::Default);
        assert_eq!(unknown, ["nothing", "upstream"]);
        let mut out = Vec::new();
        template.write(&event("/"), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "www.example.com--x $ $200\n");
    }

    #[test]
    fn no_client_leaves_its_quotes_or_its_line() {
        let evil = Event { user_agent: Some("a\"b\\\n\u{1b}\u{2028}é".to_owned()), ..event("/") };
        let at = |escape| line("\"$http_user_agent\"\n", escape, &evil);
        assert_eq!(at(Escape::Default), "\"a\\\"b\\\\\\x0a\\x1b\\xe2\\x80\\xa8é\" \n");
        let json: String = serde_json::from_str(at(Escape::Json).trim()).unwrap();
        assert_eq!(Some(json), evil.user_agent);
        assert_eq!(at(Escape::None), "\"a\"b\\\\x0a\\x1b\\xe2\\x80\\xa8é\" \n");
    }
}
