//! The access log with real files, and with an output that stops.

use super::writer::Sink;
use super::*;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::{Instant, UNIX_EPOCH};

pub(super) fn event(target: &str) -> Event {
    Event {
        time: UNIX_EPOCH + Duration::from_millis(971_186_136_007),
        request_id: std::array::from_fn(|n| n as u8),
        client: Some("192.0.2.1:4711".parse().unwrap()),
        site: "main".into(),
        method: http::Method::GET,
        scheme: "https",
        host: "www.example.com".to_owned(),
        target: target.to_owned(),
        protocol: "HTTP/2.0",
        status: 200,
        request_bytes: 0,
        response_bytes: 2326,
        duration: Duration::from_micros(1234),
        origin_duration: Some(Duration::from_micros(900)),
        cache: "hit",
        tier: Some("memory"),
        upstream: Some("198.51.100.7:80".parse().unwrap()),
        origin: Some("app".into()),
        user_agent: Some("curl/8".to_owned()),
        referer: Some("https://r.example/".to_owned()),
        tls: Some("TLSv1.3"),
        error: None,
    }
}

fn to_file(path: &Path, format: Format) -> Settings {
    Settings { format, template: None, output: Output::File(path.to_owned()) }
}

/// Waits until a file has this many lines: the writer's own flush is what is waited for.
fn lines_in(path: &Path, count: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count {
            return text.lines().map(str::to_owned).collect();
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{count} lines awaited, got {text:?}");
        std::thread::yield_now();
    }
}

#[test]
fn events_are_appended_and_written_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    std::fs::write(&path, "before\n").unwrap();
    let metrics = Metrics::new();
    let log = AccessLog::start(&to_file(&path, Format::Json), &metrics).unwrap();
    assert!(log.enabled());
    log.record(event("/1"));
    log.record(event("/2"));
    let lines = lines_in(&path, 3);
    assert_eq!(lines[0], "before");
    assert!(lines[1].contains("\"target\":\"/1\"") && lines[2].contains("\"target\":\"/2\""));
    log.close();
    log.record(event("/3"));
    log.close();
    assert_eq!(metrics.access_log_dropped.get(), 1, "an event after the close");
}

#[test]
fn closing_writes_all_that_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let metrics = Metrics::new();
    let log = AccessLog::start(&to_file(&path, Format::Combined), &metrics).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || (0..1000).for_each(|n| log.record(event(&format!("/{thread}/{n}")))));
        }
    });
    drop(log);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count() as u64 + metrics.access_log_dropped.get(), 4000);
    assert!(text.ends_with('\n') && text.lines().all(|line| line.starts_with("192.0.2.1 - - [10/Oct/2000")));
    assert_eq!(metrics.access_log_dropped.get(), 0, "4000 events fit into the queue");
}

#[test]
fn a_rotated_file_is_left_and_a_new_one_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let log = AccessLog::start(&to_file(&path, Format::Json), &Metrics::new()).unwrap();
    log.record(event("/1"));
    lines_in(&path, 1);
    std::fs::rename(&path, &old).unwrap();
    log.record(event("/2"));
    assert!(lines_in(&old, 2)[1].contains("/2"), "until the reopening the old file is written");
    log.reopen();
    // The new file appears with the reopening.
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    log.record(event("/3"));
    assert!(lines_in(&path, 1)[0].contains("/3"));
    // A name that cannot be opened leaves the open file in use.
    std::fs::rename(&path, dir.path().join("access.log.2")).unwrap();
    std::fs::create_dir(&path).unwrap();
    log.reopen();
    log.record(event("/4"));
    log.close();
    assert!(std::fs::read_to_string(dir.path().join("access.log.2")).unwrap().contains("/4"));
}

#[test]
fn a_log_that_is_off_costs_nothing() {
    let settings =
        Settings { format: Format::Off, template: None, output: Output::File("/nonexistent/access.log".into()) };
    let metrics = Metrics::new();
    let log = AccessLog::start(&settings, &metrics).unwrap();
    assert!(!log.enabled());
    log.record(event("/"));
    log.reopen();
    log.close();
    assert_eq!(metrics.access_log_dropped.get(), 0);
}

#[test]
fn a_file_that_cannot_be_opened_is_named_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none/access.log");
    let Err(error) = AccessLog::start(&to_file(&path, Format::Json), &Metrics::new()) else { panic!("it opened") };
    let message = error.to_string();
    assert!(message.contains("none/access.log") && message.contains("its folder has to exist"), "{message}");
}

/// An output that says when it is being written to, and goes on when it is told to.
struct Scripted {
    begun: Sender<Vec<u8>>,
    go_on: Receiver<io::Result<()>>,
}

impl Sink for Scripted {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let _ = self.begun.send(lines.to_vec());
        self.go_on.recv().unwrap_or(Ok(()))
    }
}

fn scripted() -> (AccessLog, Metrics, Receiver<Vec<u8>>, Sender<io::Result<()>>) {
    let (begun, writes) = channel();
    let (go, go_on) = channel();
    let metrics = Metrics::new();
    let sink = Box::new(Scripted { begun, go_on });
    let log = AccessLog::spawn(Box::new(format::json), sink, metrics.access_log_dropped.clone()).unwrap();
    (log, metrics, writes, go)
}

#[test]
fn an_output_that_hangs_costs_events_and_no_request() {
    let (log, metrics, writes, go) = scripted();
    log.record(event("/first"));
    writes.recv().unwrap();
    // The writer hangs now: the queue fills up, and what does not fit is counted.
    let begun = Instant::now();
    for _ in 0..QUEUE + 100 {
        log.record(event("/"));
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(metrics.access_log_dropped.get(), 100);
    drop(go);
    log.close();
    let written: usize = writes.iter().map(|lines| lines.split(|b| *b == b'\n').count() - 1).sum();
    assert_eq!(written, QUEUE, "all that fitted is written");
}

#[test]
fn a_failed_write_is_counted_and_the_next_starts_a_new_line() {
    let (log, metrics, writes, go) = scripted();
    log.record(event("/lost"));
    writes.recv().unwrap();
    go.send(Err(io::Error::from(io::ErrorKind::StorageFull))).unwrap();
    log.record(event("/kept"));
    let second = String::from_utf8(writes.recv().unwrap()).unwrap();
    assert!(second.starts_with("\n{") && second.contains("/kept") && !second.contains("/lost"), "{second:?}");
    assert_eq!(metrics.access_log_dropped.get(), 1);
    drop(go);
    log.close();
}

#[test]
fn long_texts_are_cut() {
    let (log, _, writes, go) = scripted();
    drop(go);
    let long = "é".repeat(FIELD_LIMIT);
    log.record(Event { user_agent: Some(long.clone()), ..event(&long) });
    let line: serde_json::Value = serde_json::from_slice(&writes.recv().unwrap()).unwrap();
    for name in ["target", "user_agent"] {
        let text = line[name].as_str().unwrap();
        assert_eq!(text.len(), FIELD_LIMIT + '…'.len_utf8(), "{name}");
        assert!(text.ends_with("é…"));
    }
    assert_eq!(field_text(b"a\xffb"), "a\u{fffd}b");
    assert_eq!(field_text(&[b'a'; 5000]).len(), FIELD_LIMIT + '…'.len_utf8());
}

#[test]
fn an_order_is_never_slept_through() {
    // Opening and closing at once is where an order can meet a writer that is about to wait.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let begun = Instant::now();
    for _ in 0..50 {
        let log = AccessLog::start(&to_file(&path, Format::Json), &Metrics::new()).unwrap();
        log.reopen();
        log.record(event("/"));
        log.close();
    }
    assert!(begun.elapsed() < CLOSE_LIMIT, "each takes milliseconds");
    assert_eq!(lines_in(&path, 50).len(), 50);
}

#[test]
fn a_template_takes_the_place_of_the_formats_lines_unless_there_is_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let template = Arc::new(Template::parse("$status $request_uri", Escape::Default).0);
    for (format, name, expected) in [(Format::Json, "json", "200 /a\n"), (Format::Off, "off", "")] {
        let path = dir.path().join(name);
        let settings = Settings { template: Some(Arc::clone(&template)), ..to_file(&path, format) };
        let log = AccessLog::start(&settings, &Metrics::new()).unwrap();
        log.record(event("/a"));
        drop(log);
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), expected);
    }
}
