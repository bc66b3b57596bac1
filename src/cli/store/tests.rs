use super::*;
use crate::cache::{Cache, Settings, disk, key};
use crate::cli::{Cli, Command as Top};
use crate::clock::Clock;
use crate::metrics::Metrics;
use clap::Parser;
use pingora::cache::trace::Span;
use pingora::cache::{CacheMeta, Storage};
use pingora::http::ResponseHeader;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// 2026-01-01T00:00:00Z
const THEN: Duration = Duration::from_secs(1_767_225_600);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + THEN + Duration::from_secs(seconds)
}

async fn put(
    cache: &'static Cache,
    path: &str,
    variant: Option<u8>,
    stored: u64,
    fields: &[(&'static str, &str)],
    body: &[u8],
) {
    let mut key = key::target("https", "www.example.com", 443, path.as_bytes());
    if let Some(variant) = variant {
        key.set_variance_key([variant; 16]);
    }
    let mut head = ResponseHeader::build(200, None).unwrap();
    head.append_header("content-length", body.len().to_string()).unwrap();
    for (name, value) in fields {
        head.append_header(*name, *value).unwrap();
    }
    let meta = CacheMeta::new(at(stored + 60), at(stored), 0, 0, head);
    let span = Span::inactive().handle();
    let mut miss = cache.get_miss_handler(&key, &meta, &span).await.unwrap();
    let own = cache.lookup_streaming_write(&key, miss.streaming_write_tag(), &span).await.unwrap();
    miss.write_body(bytes::Bytes::copy_from_slice(body), true).await.unwrap();
    miss.finish().await.unwrap();
    drop(own);
}

/// A store of a few objects, closed.
fn small(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let disk = disk::Settings {
            path: dir.to_owned(),
            capacity: 8 << 20,
            segment_size: 1 << 20,
            sync: disk::SyncPolicy::Close,
            admission: crate::cache::admission::Rule::All,
        };
        let slice_size = crate::cache::slices::DEFAULT_SLICE;
        let settings = Settings { memory_capacity: 1 << 20, disk: Some(disk), max_object: None, slice_size, grace: 0 };
        let cache = Cache::open(&settings, Clock::system(), &Metrics::new()).unwrap();
        let html = ("content-type", "text/html; charset=utf-8");
        put(cache, "/", None, 0, &[html, ("cache-tag", "front, news")], b"<p>front</p>").await;
        put(cache, "/blog/a?b=c", None, 10, &[html, ("cache-tag", "news")], &[b'a'; 5000]).await;
        put(cache, "/gone", None, 20, &[html], b"gone").await;
        put(cache, "/pic.png", Some(0xab), 30, &[("content-type", "image/png"), ("vary", "accept")], &[0, 10, 13, 255])
            .await;
        put(cache, "/pic.png", Some(0xcd), 31, &[("content-type", "image/png"), ("vary", "accept")], &[7; 100_000])
            .await;
        cache.purge(&key::target("https", "www.example.com", 443, b"/gone")).await.unwrap();
        cache.close().await;
    });
}

/// Exit status, standard output and standard error at 2026-01-01T00:01:00Z.
fn outcome(args: &[&str]) -> (Exit, Vec<u8>, String) {
    let cli = Cli::try_parse_from(["selvedge", "store"].iter().chain(args));
    let Top::Store(store) = cli.unwrap_or_else(|error| panic!("{error}")).command else { panic!("not store") };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run(&store, at(60), &mut out, &mut err);
    (exit, out, String::from_utf8(err).unwrap())
}

fn text(args: &[&str]) -> String {
    let (exit, out, err) = outcome(args);
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""), "{args:?}");
    String::from_utf8(out).unwrap()
}

#[test]
fn a_small_store_is_listed_and_summed_up() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let path = dir.path().to_str().unwrap();
    let listed = text(&["list", "--dir", path]);
    let lines = [
        "2026-01-01T00:00:00Z  200          12        0  -         https://www.example.com/  [front news]",
        "2026-01-01T00:00:10Z  200        5000       10  -         https://www.example.com/blog/a?b=c  [news]",
        "2026-01-01T00:00:30Z  200           4       30  abababab  https://www.example.com/pic.png",
        "2026-01-01T00:00:31Z  200      100000       31  cdcdcdcd  https://www.example.com/pic.png",
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), lines);
    for (filter, expected) in [
        (&["--prefix", "https://www.example.com/blog/"][..], &lines[1..2]),
        (&["--prefix", "www.example.com/bl"], &[]),
        (&["--tag", "news"], &lines[..2]),
        (&["--tag", "front", "--prefix", "www.example.com/pic.png"], &[lines[0], lines[2], lines[3]]),
        (&["--host", "www.example.com"], &lines[..]),
        (&["--host", "example.com"], &[]),
    ] {
        let args = [&["list", "--dir", path], filter].concat();
        assert_eq!(text(&args).lines().collect::<Vec<_>>(), expected, "{filter:?}");
    }
    let json = text(&["list", "--dir", path, "--json", "--tag", "front"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["url"], "https://www.example.com/");
    assert_eq!(json["tags"], json!(["front", "news"]));
    assert_eq!((&json["size"], &json["ttl"], &json["media_type"]), (&json!(12), &json!(0), &json!("text/html")));

    let stat = text(&["stat", "--dir", path]);
    let expected = "\
format 3
1 MiB, in segments of 1 MiB
1 sealed, 0 open, 0 free
4, 102.6 KiB of content in N
2026-01-01T00:00:00Z to 2026-01-01T00:00:31Z
N, 1 by URL, 0 by scope, 0 of all
0 purged, 0 incomplete, 0 damaged, 0 unknown, 0 objects and 0 segments changed
         2  16 B
         1  4.9 KiB
         1  97.7 KiB
         2  97.7 KiB
         2  4.9 KiB
";
    let names = ["store", "size", "segments", "objects", "stored", "purge log", "left out"];
    let classes = ["up to 1 KiB", "up to 16 KiB", "up to 256 KiB", "image/png", "text/html"];
    for ((line, expected), name) in stat.lines().zip(expected.lines()).zip(names.iter().chain(&classes)) {
        let (found, value) = line.split_at(15);
        assert_eq!(found.trim_end(), *name, "{stat}");
        // What the framing takes is the format's affair.
        let value = match *name {
            "store" => value.trim_start_matches(path).trim_start_matches(", ").to_owned(),
            "objects" => format!("{}in N", value.split("in ").next().unwrap()),
            "purge log" => format!("N,{}", value.split_once(',').unwrap().1),
            _ => value.to_owned(),
        };
        assert_eq!(value, expected, "{stat}");
    }
    assert_eq!(stat.lines().count(), names.len() + classes.len());
    let json: serde_json::Value = serde_json::from_str(&text(&["stat", "--dir", path, "--json"])).unwrap();
    assert_eq!((&json["objects"], &json["bytes"]), (&json!(4), &json!(105_016)));
    assert_eq!(json["purge_log"]["by_url"], 1);
    assert_eq!(json["media_types"]["image/png"]["objects"], 2);
}

#[test]
fn a_stored_response_is_dumped_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let path = dir.path().to_str().unwrap();
    let dump = |args: &[&str]| outcome(&[&["dump", "--dir", path], args].concat());
    let (exit, out, err) = dump(&["https://WWW.example.com:443/blog/a?b=c"]);
    assert_eq!((exit, out), (Exit::Ok, vec![b'a'; 5000]));
    assert!(err.starts_with("HTTP/1.1 200 OK\r\n") && err.ends_with("\r\n\r\n"), "{err}");
    assert!(err.contains("content-length: 5000\r\n") && err.contains("cache-tag: news\r\n"), "{err}");
    let (exit, out, err) = dump(&["--head", "https://www.example.com/"]);
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    assert!(out.ends_with(b"\r\n\r\n") && out.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let (exit, out, err) = dump(&["https://www.example.com/pic.png"]);
    assert_eq!((exit, out.len()), (Exit::Usage, 0));
    assert!(err.contains("2 variants"), "{err}");
    let (exit, out, _) = dump(&["--variants", "https://www.example.com/pic.png"]);
    assert_eq!((exit, String::from_utf8(out).unwrap().lines().count()), (Exit::Ok, 2));
    assert_eq!(dump(&["--variant", "ab", "https://www.example.com/pic.png"]).1, [0, 10, 13, 255]);
    assert_eq!(dump(&["--variant", "cd", "https://www.example.com/pic.png"]).1, [7; 100_000]);
    for args in [
        &["https://www.example.com/gone"][..],
        &["http://www.example.com/"],
        &["--variant", "9", "https://www.example.com/pic.png"],
    ] {
        let (exit, out, err) = dump(args);
        assert_eq!((exit, out.len()), (Exit::Failed, 0), "{args:?}");
        assert!(err.starts_with("error: "), "{err}");
    }
}

#[test]
fn damage_is_a_failure_with_a_line_for_each() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let path = dir.path().to_str().unwrap();
    let sound = text(&["verify", "--dir", path]);
    assert!(sound.contains(" records in 1 segments, ") && sound.ends_with(" 1 purges: 0 problems\n"), "{sound}");
    let segments = dir.path().join("segments");
    let mut bytes = std::fs::read(&segments).unwrap();
    // The key, in the metadata of an object.
    let at = bytes.windows(11).position(|part| part == b"/blog/a?b=c").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segments, &bytes).unwrap();
    let (exit, out, _) = outcome(&["verify", "--dir", path]);
    let out = String::from_utf8(out).unwrap();
    assert_eq!(exit, Exit::Failed);
    assert!(out.starts_with("segment 0, offset ") && out.ends_with(": 1 problems\n"), "{out}");
    let (exit, out, _) = outcome(&["verify", "--json", "--dir", path]);
    let lines = String::from_utf8(out).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((exit, lines.len()), (Exit::Failed, 2));
    assert_eq!((&lines[0]["segment"], &lines[1]["problems"]), (&json!(0), &json!(1)));
    assert_eq!(lines[0]["problem"], "a record's checksums, scopes or metadata are damaged");
    assert!(lines[0]["offset"].as_u64().unwrap() < at as u64);
    let (exit, _, err) = outcome(&["list", "--dir", path]);
    assert_eq!(exit, Exit::Ok);
    assert!(err.starts_with("1 objects are damaged"), "{err}");
}

#[test]
fn what_is_no_store_is_told_and_the_configuration_names_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for (args, status, part) in [
        (&["stat", "--dir", path][..], Exit::Unavailable, "is not a selvedge cache"),
        (&["verify", "--dir", "/none/such"], Exit::Unavailable, "/none/such"),
        (&["list", "--dir", path, "--prefix", "/x"], Exit::Usage, "cannot be listed"),
        (&["list", "--dir", path, "--tag", "a b"], Exit::Usage, "cannot be listed"),
        (&["stat", "--config", "/none/such.toml"], Exit::Usage, "cannot be read"),
    ] {
        let (exit, out, err) = outcome(args);
        assert_eq!((exit, out.len()), (status, 0), "{args:?}");
        assert!(err.starts_with("error: ") && err.contains(part), "{err}");
    }
    let file = dir.path().join("edge.toml");
    let config = file.to_str().unwrap();
    std::fs::write(&file, "[listen]\nhttp = [\"nonsense\"]\n").unwrap();
    let (exit, _, err) = outcome(&["stat", "--config", config]);
    assert_eq!(exit, Exit::Usage);
    assert!(err.contains("has no disk tier"), "{err}");
    std::fs::write(&file, "[cache.disk]\npath = \"c\"\ncapacity = \"8 MiB\"\nsegment_size = \"1 MiB\"\n").unwrap();
    small(&dir.path().join("c"));
    assert_eq!(text(&["list", "--config", config]).lines().count(), 4);
    assert!(text(&["stat", "--config", config]).contains("1 MiB of 8 MiB, in segments of 1 MiB"));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    struct Closed(io::ErrorKind);
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let path = dir.path().to_str().unwrap();
    for args in
        [&["list", "--dir", path][..], &["stat", "--dir", path], &["dump", "--dir", path, "https://www.example.com/"]]
    {
        let Top::Store(store) = Cli::try_parse_from(["selvedge", "store"].iter().chain(args)).unwrap().command else {
            panic!("not store")
        };
        for (kind, expected) in [(io::ErrorKind::BrokenPipe, Exit::Ok), (io::ErrorKind::StorageFull, Exit::Internal)] {
            let mut err = Vec::new();
            assert_eq!(run(&store, at(60), &mut Closed(kind), &mut err), expected, "{args:?}");
            let told = String::from_utf8(err).unwrap().contains("error: ");
            assert_eq!(told, expected != Exit::Ok);
        }
    }
}
