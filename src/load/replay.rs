//! Requests that were made before: access logs and traces.

use serde::Deserialize;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One request of a log or a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// After the first one.
    pub at: Duration,
    /// HEAD in place of GET.
    pub head: bool,
    /// What was asked for.
    pub what: What,
}

/// What a request was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Path and query, and the host if the log tells it.
    Target {
        /// Its host, maybe with a port.
        host: Option<String>,
        /// Path and query.
        target: String,
    },
    /// An object of a trace: the same key is the same object.
    Object {
        /// Its name.
        key: String,
        /// In bytes.
        size: u64,
    },
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// In the order of the file.
    pub entries: Vec<Entry>,
    /// Requests of other methods, which are left out: they are not to be repeated.
    pub left_out: u64,
}

/// Which kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NCSA common or combined (with or without a virtual host before it), or JSON objects with `method` and `target`
    /// (or `path`, `uri`, `request_uri`) and, if told, `host` and `time`.
    AccessLog,
    /// `time key size` a line, the time in seconds and the size in bytes.
    Trace,
}

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("{}: {reason}", .0.display(), reason = .1)]
    File(PathBuf, io::Error),
    /// A line is none of the kind.
    #[error("{}:{line}: {what}", .0.display(), line = .1, what = .2)]
    Line(PathBuf, usize, &'static str),
    /// There is nothing to make again.
    #[error("{}: no GET or HEAD request in it", .0.display())]
    Empty(PathBuf),
}

/// Reads a file, `-` for standard input; one whose name ends in `.gz` is unpacked.
///
/// # Errors
/// It cannot be read, or a line is none of the kind.
pub fn read(path: &Path, kind: Kind) -> Result<Log, ReplayError> {
    let failed = |error| ReplayError::File(path.to_owned(), error);
    if path == Path::new("-") {
        return parse(io::stdin().lock(), path, kind);
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    if path.extension().is_some_and(|extension| extension == "gz") {
        parse(flate2::read::MultiGzDecoder::new(file), path, kind)
    } else {
        parse(file, path, kind)
    }
}

fn parse(from: impl Read, path: &Path, kind: Kind) -> Result<Log, ReplayError> {
    let (mut log, mut first) = (Log::default(), None);
    for (n, line) in BufReader::new(from).split(b'\n').enumerate() {
        let line = line.map_err(|error| ReplayError::File(path.to_owned(), error))?;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let read = match kind {
            Kind::Trace => trace_line(text),
            Kind::AccessLog if text.starts_with('{') => json_line(text),
            Kind::AccessLog => combined_line(text),
        };
        let Line { time, method, what } = read.map_err(|what| ReplayError::Line(path.to_owned(), n + 1, what))?;
        let head = match method.as_str() {
            "GET" => false,
            "HEAD" => true,
            _ => {
                log.left_out += 1;
                continue;
            }
        };
        // Logs are written when requests end, so that a time may lie before the one above it.
        let at = time.map_or(0.0, |time| time - *first.get_or_insert(time)).max(0.0);
        let at = Duration::try_from_secs_f64(at).unwrap_or_default();
        log.entries.push(Entry { at, head, what });
    }
    if log.entries.is_empty() { Err(ReplayError::Empty(path.to_owned())) } else { Ok(log) }
}

struct Line {
    /// Seconds since any moment.
    time: Option<f64>,
    method: String,
    what: What,
}

fn trace_line(text: &str) -> Result<Line, &'static str> {
    let mut words = text.split_ascii_whitespace();
    let (Some(time), Some(key), Some(size), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err("a line of a trace is `time key size`");
    };
    let time = time.parse::<f64>().ok().filter(|time| time.is_finite()).ok_or("the time is no number of seconds")?;
    let size = size.parse().map_err(|_| "the size is no number of bytes")?;
    Ok(Line { time: Some(time), method: "GET".to_owned(), what: What::Object { key: key.to_owned(), size } })
}

/// A line of a JSON access log, ours or another's.
#[derive(Deserialize)]
struct Json {
    #[serde(alias = "request_method")]
    method: String,
    #[serde(alias = "path", alias = "uri", alias = "request_uri")]
    target: String,
    #[serde(alias = "vhost", alias = "http_host")]
    host: Option<String>,
    #[serde(alias = "timestamp", alias = "time_iso8601", alias = "@timestamp")]
    time: Option<String>,
}

fn json_line(text: &str) -> Result<Line, &'static str> {
    let line: Json =
        serde_json::from_str(text).map_err(|_| "a JSON line has at least `method` and `target` as texts")?;
    let time = line.time.as_deref().and_then(rfc3339);
    target(time, &line.method, &line.target, line.host)
}

/// `[host[:port] ]client ident user [time] "METHOD target protocol" …`
fn combined_line(text: &str) -> Result<Line, &'static str> {
    let wrong = "neither JSON nor the common or combined log format";
    let (before, rest) = text.split_once('[').ok_or(wrong)?;
    let (time, rest) = rest.split_once(']').ok_or(wrong)?;
    let request = rest.split_once('"').map(|(_, rest)| rest).ok_or(wrong)?;
    let request = request.split('"').next().unwrap_or_default();
    let mut words = request.split(' ');
    let (Some(method), Some(asked)) = (words.next(), words.next()) else {
        // What was no HTTP is logged as it came; it counts as another method.
        return Ok(Line {
            time: None,
            method: String::new(),
            what: What::Target { host: None, target: String::new() },
        });
    };
    // Ours comes at the end: host="www.example.com".
    let ours = rest.split_once(" host=\"").and_then(|(_, rest)| rest.split('"').next());
    let first = (before.split_ascii_whitespace().count() == 4).then(|| before.split(' ').next()).flatten();
    let host = ours.or(first).filter(|host| *host != "-").map(str::to_owned);
    target(clf_time(time), method, asked, host)
}

fn target(time: Option<f64>, method: &str, asked: &str, host: Option<String>) -> Result<Line, &'static str> {
    // In absolute form, as proxies are asked.
    let (host, path) = match asked.split_once("://") {
        Some((_, rest)) => {
            let at = rest.find('/').unwrap_or(rest.len());
            (Some(rest[..at].to_owned()), &rest[at..])
        }
        None => (host, asked),
    };
    let target = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    if matches!(method, "GET" | "HEAD") && http::uri::PathAndQuery::try_from(target.as_str()).is_err() {
        return Err("its target is no path with a query");
    }
    Ok(Line { time, method: method.to_owned(), what: What::Target { host, target } })
}

/// `2026-01-31T23:59:59.123Z`, or with an offset; in seconds.
fn rfc3339(text: &str) -> Option<f64> {
    let time = humantime::parse_rfc3339_weak(text.get(..19)?).ok()?;
    let seconds = time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64();
    let rest = text.get(19..)?;
    let digits = rest.strip_prefix('.').map_or(0, |rest| 1 + rest.bytes().take_while(u8::is_ascii_digit).count());
    let fraction = if digits > 1 { rest.get(..digits)?.parse::<f64>().ok()? } else { 0.0 };
    Some(seconds + fraction - offset(&rest[digits..].replace(':', "")))
}

/// `31/Jan/2026:23:59:59 +0100`, in seconds.
fn clf_time(text: &str) -> Option<f64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (date, zone) = text.split_once(' ').unwrap_or((text, ""));
    let mut parts = date.splitn(4, ['/', ':']);
    let (day, month, year, clock) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let time = humantime::parse_rfc3339_weak(&format!("{year}-{month:02}-{day}T{clock}")).ok()?;
    Some(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64() - offset(zone))
}

/// `+0130` or `Z`, in seconds; what is neither is none.
fn offset(text: &str) -> f64 {
    let minutes = |digits: &str| {
        let (hours, minutes) = (digits.get(..2)?.parse::<f64>().ok()?, digits.get(2..4)?.parse::<f64>().ok()?);
        Some(hours * 60.0 + minutes)
    };
    let sign = if text.starts_with('-') { -60.0 } else { 60.0 };
    text.get(1..).and_then(minutes).unwrap_or(0.0) * sign
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str, kind: Kind) -> Result<Log, String> {
        parse(text.as_bytes(), Path::new("log"), kind).map_err(|error| error.to_string())
    }

    fn asked(host: Option<&str>, target: &str) -> What {
        What::Target { host: host.map(str::to_owned), target: target.to_owned() }
    }

    #[test]
    fn combined_logs_are_read_with_their_times() {
        let text = "\
203.0.113.9 - - [31/Jan/2026:23:59:59 +0100] \"GET /a?b=1 HTTP/1.1\" 200 12 \"-\" \"curl \\\"x\\\"\"
203.0.113.9 - - [31/Jan/2026:23:00:01 +0000] \"HEAD http://h.example/ HTTP/1.1\" 200 12
203.0.113.9 - - [31/Jan/2026:23:00:02 +0000] \"POST /a HTTP/1.1\" 200 12

www.example.com:443 203.0.113.9 - - [31/Jan/2026:23:00:03 +0000] \"GET /v HTTP/1.1\" 200 12
203.0.113.9 - - [31/Jan/2026:23:00:03 +0000] \"\\x16\\x03\" 400 0
203.0.113.9 - - [31/Jan/2026:23:00:04 +0000] \"GET /o HTTP/1.1\" 200 1 \"-\" \"-\" site=\"s\" host=\"o.example\"
";
        let read = log(text, Kind::AccessLog).unwrap();
        let entry = |seconds, head, what| Entry { at: Duration::from_secs(seconds), head, what };
        let wanted = [
            entry(0, false, asked(None, "/a?b=1")),
            entry(2, true, asked(Some("h.example"), "/")),
            entry(4, false, asked(Some("www.example.com:443"), "/v")),
            entry(5, false, asked(Some("o.example"), "/o")),
        ];
        assert_eq!((read.entries.as_slice(), read.left_out), (wanted.as_slice(), 2));
    }

    #[test]
    fn json_logs_are_read_with_their_times() {
        let text = r#"
{"time":"2026-01-31T23:00:00.250Z","method":"GET","host":"a.example","target":"/x","status":200}
{"time":"2026-02-01T00:00:01.750+01:00","request_method":"HEAD","request_uri":"/y"}
"#;
        let read = log(text, Kind::AccessLog).unwrap();
        assert_eq!(read.entries[0], Entry { at: Duration::ZERO, head: false, what: asked(Some("a.example"), "/x") });
        let second = &read.entries[1];
        assert_eq!((second.at.as_millis(), second.head, &second.what), (1500, true, &asked(None, "/y")));
    }

    #[test]
    fn traces_are_read() {
        let read = log("0.5 a 10\n# a remark\n2 b/c 20\n", Kind::Trace).unwrap();
        let object = |key: &str, size| What::Object { key: key.to_owned(), size };
        assert_eq!(read.entries[0].what, object("a", 10));
        assert_eq!((read.entries[1].at.as_millis(), &read.entries[1].what), (1500, &object("b/c", 20)));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        for (text, kind, says) in [
            ("1 a 1\n1 a\n", Kind::Trace, "log:2: a line of a trace"),
            ("x a 1\n", Kind::Trace, "log:1: the time"),
            ("1 a -1\n", Kind::Trace, "log:1: the size"),
            ("{\"method\":1}\n", Kind::AccessLog, "log:1: a JSON line"),
            ("hello\n", Kind::AccessLog, "log:1: neither JSON"),
            ("", Kind::AccessLog, "no GET or HEAD"),
        ] {
            let error = log(text, kind).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let error = read(Path::new("/nonexistent/log"), Kind::Trace).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/log: "), "{error}");
    }
}
