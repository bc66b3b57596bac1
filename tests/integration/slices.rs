//! Large objects in slices, and parts: what a range costs the origin, what is read again, and what may never be mixed.

use crate::support::edge::{BINARY, config, one_origin};
use crate::support::faulty::Origin;
use crate::support::{Answer, Client, Edge, tools};
use http::{Method, StatusCode};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const SLICE: u64 = 64 << 10;
const MIB: u64 = 1 << 20;

/// How the origin answers.
#[derive(Clone, Debug)]
struct Nature {
    size: u64,
    /// Of the content and of the entity tag.
    version: u8,
    fields: &'static str,
    kind: Kind,
    /// Answers 503.
    down: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Honest,
    /// Knows no ranges.
    Whole,
    /// Says that what it sends is one byte further on.
    Shifted,
    /// Has no strong validator.
    Weak,
}

/// An origin whose content is a function of the position.
struct Blob {
    origin: Origin,
    nature: Arc<Mutex<Nature>>,
    sent: Arc<AtomicU64>,
    ranges: Arc<Mutex<Vec<String>>>,
}

fn byte(version: u8, at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16) ^ (at >> 24)) as u8 ^ version
}

fn content(version: u8, start: u64, end: u64) -> Vec<u8> {
    (start..end).map(|at| byte(version, at)).collect()
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

impl Blob {
    async fn start(size: u64, fields: &'static str, kind: Kind) -> Self {
        let nature = Arc::new(Mutex::new(Nature { size, version: 0, fields, kind, down: false }));
        let sent = Arc::new(AtomicU64::new(0));
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let (natures, bytes, seen) = (Arc::clone(&nature), Arc::clone(&sent), Arc::clone(&ranges));
        let origin = Origin::start(move |mut stream, head| {
            let (nature, bytes) = (natures.lock().unwrap().clone(), Arc::clone(&bytes));
            seen.lock().unwrap().push(field(&head, "range").unwrap_or_default().to_owned());
            async move {
                let Nature { size, version, fields, kind, down } = nature;
                if down {
                    stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await.ok()?;
                    return Some(stream);
                }
                let tag = format!("{}\"v{version}\"", if kind == Kind::Weak { "W/" } else { "" });
                let common = format!("ETag: {tag}\r\nAccept-Ranges: bytes\r\n{fields}\r\n");
                if field(&head, "if-none-match") == Some(&tag) {
                    stream.write_all(format!("HTTP/1.1 304 Same\r\n{common}\r\n").as_bytes()).await.ok()?;
                    return Some(stream);
                }
                let range = field(&head, "range").filter(|_| kind != Kind::Whole).map(|range| {
                    let (first, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
                    match (first.parse::<u64>(), last.parse::<u64>()) {
                        (Ok(first), last) => (first, last.unwrap_or(u64::MAX).min(size - 1)),
                        (Err(_), suffix) => (size - suffix.unwrap().min(size), size - 1),
                    }
                });
                let (status, first, last) = match range {
                    Some((first, _)) if first >= size => {
                        let head =
                            format!("HTTP/1.1 416 No\r\nContent-Range: bytes */{size}\r\nContent-Length: 0\r\n\r\n");
                        stream.write_all(head.as_bytes()).await.ok()?;
                        return Some(stream);
                    }
                    Some((first, last)) => {
                        let shift = u64::from(kind == Kind::Shifted && first > 0);
                        let told = format!("bytes {}-{}/{}", first + shift, last + shift, size + shift);
                        (format!("206 Part\r\nContent-Range: {told}"), first, last)
                    }
                    None => ("200 OK".to_owned(), 0, size - 1),
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{common}\r\n", last - first + 1);
                stream.write_all(head.as_bytes()).await.ok()?;
                let mut at = first;
                while at <= last {
                    let end = (at + 65_536).min(last + 1);
                    stream.write_all(&content(version, at, end)).await.ok()?;
                    bytes.fetch_add(end - at, Ordering::Relaxed);
                    at = end;
                }
                Some(stream)
            }
        })
        .await;
        Self { origin, nature, sent, ranges }
    }

    fn edge(&self) -> Edge {
        Edge::start(&self.config(""))
    }

    fn config(&self, more: &str) -> String {
        let config = config(&format!("{}\n{more}", one_origin(self.origin.address)));
        config.replace("[cache.memory]", "[cache]\nslice_size = \"64 KiB\"\n\n[cache.memory]")
    }

    fn set(&self, change: impl FnOnce(&mut Nature)) {
        change(&mut self.nature.lock().unwrap());
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// What it was asked for since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.ranges.lock().unwrap())
    }
}

const FRESH: &str = "Cache-Control: max-age=3600";

async fn range(client: &mut Client, path: &str, first: u64, last: u64) -> Answer {
    client.get_with(path, &[("range", &format!("bytes={first}-{last}"))]).await
}

#[track_caller]
fn assert_part(answer: &Answer, version: u8, first: u64, last: u64, complete: u64) {
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{:?}", answer.headers);
    assert_eq!(answer.field("content-range"), format!("bytes {first}-{last}/{complete}"));
    assert!(answer.body == content(version, first, last + 1), "other bytes than {first}-{last} of version {version}");
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("selvedge-")), "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_near_the_end_of_ten_gibibytes_costs_a_few_slices_once() {
    let size = 10 << 30;
    let blob = Blob::start(size, FRESH, Kind::Honest).await;
    let edge = Edge::start(&config(&one_origin(blob.origin.address)));
    let mut client = Client::new(edge.http, "a.example");
    let (first, last) = (size - 3 * MIB / 2, size - MIB / 4);
    let cold = range(&mut client, "/big", first, last).await;
    assert_part(&cold, 0, first, last, size);
    assert_eq!(cold.cache_status(), "selvedge; fwd=uri-miss; stored");
    assert!(blob.sent() <= 2 * MIB && blob.origin.count() == 2, "{} in {:?}", blob.sent(), blob.asked());
    let again = range(&mut client, "/big", first, last).await;
    assert_part(&again, 0, first, last, size);
    assert!(again.is_hit() && again.cache_status().ends_with("detail=slices"), "{}", again.cache_status());
    let suffix = client.get_with("/big", &[("range", "bytes=-100")]).await;
    assert_part(&suffix, 0, size - 100, size - 1, size);
    assert!(suffix.is_hit(), "{}", suffix.cache_status());
    assert_eq!(blob.origin.count(), 2);
    let begin = range(&mut client, "/big", 10, 19).await;
    assert_part(&begin, 0, 10, 19, size);
    assert!(begin.cache_status().starts_with("selvedge; fwd=partial; stored"), "{}", begin.cache_status());
    assert_eq!(blob.origin.count(), 3);
    let head = client.send(Method::HEAD, "/big", &[], bytes::Bytes::new()).await.unwrap();
    assert_eq!((head.status, head.field("content-length")), (StatusCode::OK, size.to_string()));
    assert_eq!(blob.origin.count(), 3);
    assert!(edge.peak_rss() < 200 << 20, "peak of {} MiB", edge.peak_rss() >> 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_with_one_cold_range_fetch_each_slice_once() {
    let size = 100 * SLICE + 17;
    let blob = Blob::start(size, FRESH, Kind::Honest).await;
    let edge = blob.edge();
    let (first, last) = (3 * SLICE + 5, 23 * SLICE + 9);
    let clients = (0..50).map(|_| async {
        let mut client = Client::new(edge.http, "a.example");
        assert_part(&range(&mut client, "/big", first, last).await, 0, first, last, size);
    });
    futures::future::join_all(clients).await;
    let mut asked = blob.asked();
    asked.sort();
    let before = asked.len();
    asked.dedup();
    assert_eq!((before, asked.len()), (21, 21), "{asked:?}");
    assert_eq!(blob.sent(), 21 * SLICE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_and_several_ranges_are_answered_from_slices() {
    let size = 20 * SLICE + 100;
    let blob = Blob::start(size, FRESH, Kind::Honest).await;
    let edge = blob.edge();
    let mut client = Client::new(edge.http, "a.example");
    let held = client.get_with("/x", &[("range", "bytes=5-9"), ("if-range", "\"v0\"")]).await;
    assert_part(&held, 0, 5, 9, size);
    let stale = client.get_with("/x", &[("range", "bytes=5-9"), ("if-range", "\"old\"")]).await;
    assert_eq!(stale.status, StatusCode::OK);
    assert!(stale.body == content(0, 0, size));
    for (name, value, status) in [
        ("if-none-match", "\"v0\"", StatusCode::NOT_MODIFIED),
        ("if-match", "\"old\"", StatusCode::PRECONDITION_FAILED),
        ("range", "bytes=99999999-", StatusCode::RANGE_NOT_SATISFIABLE),
    ] {
        let answer = client.get_with("/x", &[(name, value)]).await;
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{name}");
    }
    let asked = blob.origin.count();
    let (a, b) = (2 * SLICE - 3, 7 * SLICE - 2);
    for _ in 0..2 {
        let several = client.get_with("/x", &[("range", &format!("bytes=1-3,{a}-{},{b}-{}", a + 5, b + 7))]).await;
        assert_eq!(several.status, StatusCode::PARTIAL_CONTENT);
        assert!(several.field("content-type").starts_with("multipart/byteranges"), "{several:?}");
        for (first, last) in [(1, 3), (a, a + 5), (b, b + 7)] {
            let head = format!("Content-Range: bytes {first}-{last}/{size}\r\n\r\n");
            let part = [head.as_bytes(), &content(0, first, last + 1), b"\r\n--"].concat();
            assert!(several.body.windows(part.len()).any(|window| window == part), "{first}-{last}");
        }
    }
    assert_eq!(blob.origin.count(), asked, "all of it had been fetched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_a_small_object_stores_all_of_it() {
    let blob = Blob::start(1000, FRESH, Kind::Honest).await;
    let edge = blob.edge();
    let mut client = Client::new(edge.http, "a.example");
    assert_part(&range(&mut client, "/x", 100, 199).await, 0, 100, 199, 1000);
    let whole = client.get("/x").await;
    assert!(whole.is_hit() && whole.body == content(0, 0, 1000), "{}", whole.cache_status());
    assert_eq!(blob.asked(), ["bytes=0-65535"]);
    let beyond = client.get_with("/y", &[("range", "bytes=70000-")]).await;
    assert_eq!(
        (beyond.status, beyond.field("content-range")),
        (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */1000".into())
    );
    assert!(!beyond.cache_status().contains("stored"), "{}", beyond.cache_status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_purge_of_the_object_takes_its_slices() {
    let blob = Blob::start(9 * SLICE, "Cache-Control: max-age=3600\r\nCache-Tag: film", Kind::Honest).await;
    let edge = blob.edge();
    let mut client = Client::new(edge.http, "a.example");
    for (version, scope) in [
        (1, &["http://a.example/x"][..]),
        (2, &["--tag", "film"]),
        (3, &["--host", "a.example"]),
        (4, &["--prefix", "a.example/x"]),
        (5, &["--all"]),
    ] {
        for (first, last) in [(0, 3 * SLICE), (5 * SLICE, 9 * SLICE - 1)] {
            range(&mut client, "/x", first, last).await;
            let again = range(&mut client, "/x", first, last).await;
            assert!(again.is_hit(), "{}", again.cache_status());
            assert_part(&again, version - 1, first, last, 9 * SLICE);
        }
        blob.set(|nature| nature.version = version);
        let admin = edge.admin.to_string();
        let purge = [&["purge", "--admin", &admin], scope].concat();
        let done = std::process::Command::new(BINARY).args(&purge).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let after = range(&mut client, "/x", SLICE, 2 * SLICE).await;
        assert!(!after.is_hit(), "{scope:?}: {}", after.cache_status());
        assert_part(&after, version, SLICE, 2 * SLICE, 9 * SLICE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slices_are_hits_after_kill_9() {
    let size = 40 * SLICE;
    let blob = Blob::start(size, FRESH, Kind::Honest).await;
    let edge = blob.edge();
    let mut client = Client::new(edge.http, "a.example");
    let (first, last) = (10 * SLICE + 1, 14 * SLICE + 1);
    assert_part(&range(&mut client, "/x", first, last).await, 0, first, last, size);
    let on_disk = || edge.metric(r#"selvedge_tier_objects{tier="disk"}"#);
    tools::wait_until("head and slices are on disk", Duration::from_secs(10), || on_disk() >= 6.0);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let edge = edge.crash_and_restart();
    let mut client = Client::new(edge.http, "a.example");
    let again = range(&mut client, "/x", first, last).await;
    assert_part(&again, 0, first, last, size);
    assert!(again.is_hit(), "{}", again.cache_status());
    assert_eq!(blob.origin.count(), 5);
}

/// A client that reads raw: status line and fields, then what comes of the content until the end or the break.
async fn download(edge: &Edge, path: &str, range: &str) -> (String, Vec<u8>) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nRange: {range}\r\nConnection: close\r\n\r\n");
    let mut stream = tokio::net::TcpStream::connect(edge.http).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all).await;
    let head = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    (String::from_utf8_lossy(&all[..head]).into_owned(), all[head..].to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_in_the_middle_is_never_mixed() {
    let size = 30 * SLICE;
    let blob = Blob::start(size, FRESH, Kind::Honest).await;
    let edge = blob.edge();
    let mut client = Client::new(edge.http, "a.example");
    assert_part(&range(&mut client, "/x", 0, 2 * SLICE - 1).await, 0, 0, 2 * SLICE - 1, size);
    blob.set(|nature| nature.version = 1);
    // Begins with what is stored, and goes on to what is not.
    let (head, body) = download(&edge, "/x", &format!("bytes=0-{}", 6 * SLICE - 1)).await;
    assert!(head.starts_with("HTTP/1.1 206"), "{head}");
    assert!(body.len() <= 2 * SLICE as usize && body == content(0, 0, body.len() as u64), "{} bytes", body.len());
    let next = range(&mut client, "/x", 0, 6 * SLICE - 1).await;
    assert_part(&next, 1, 0, 6 * SLICE - 1, size);
    // Where nothing has been sent yet, the new version is.
    blob.set(|nature| nature.version = 2);
    let changed = range(&mut client, "/x", 20 * SLICE, 21 * SLICE - 1).await;
    assert_part(&changed, 2, 20 * SLICE, 21 * SLICE - 1, size);
    assert_part(&range(&mut client, "/x", 0, 99).await, 2, 0, 99, size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_origin_is_an_error_where_a_slice_is_missing() {
    let size = 30 * SLICE;
    let blob = Blob::start(size, "Cache-Control: max-age=1, stale-if-error=600", Kind::Honest).await;
    let edge = blob.edge();
    let mut client = Client::new(edge.http, "a.example");
    assert_part(&range(&mut client, "/x", 0, 99).await, 0, 0, 99, size);
    blob.set(|nature| nature.down = true);
    assert_eq!(range(&mut client, "/x", 9 * SLICE, 9 * SLICE + 9).await.status, StatusCode::SERVICE_UNAVAILABLE);
    tools::wait_until("it is stale", Duration::from_secs(10), || {
        tools::raw(edge.http, b"GET /x HTTP/1.1\r\nHost: a.example\r\nRange: bytes=0-9\r\nConnection: close\r\n\r\n")
            .contains("ttl=-")
    });
    let stale = range(&mut client, "/x", 0, 99).await;
    assert_part(&stale, 0, 0, 99, size);
    assert_eq!(range(&mut client, "/x", 9 * SLICE, 9 * SLICE + 9).await.status, StatusCode::SERVICE_UNAVAILABLE);
    blob.set(|nature| nature.down = false);
    let asked = blob.sent();
    let valid = range(&mut client, "/x", 0, 99).await;
    assert_part(&valid, 0, 0, 99, size);
    assert_eq!(blob.sent(), asked, "a validation keeps the slices: {}", valid.cache_status());
    assert_part(&range(&mut client, "/x", 9 * SLICE, 9 * SLICE + 9).await, 0, 9 * SLICE, 9 * SLICE + 9, size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origins_that_cannot_be_sliced_are_served_all_the_same() {
    let size = 5 * SLICE + 9;
    for (kind, fields) in [(Kind::Whole, FRESH), (Kind::Weak, FRESH), (Kind::Honest, "Cache-Control: no-store")] {
        let blob = Blob::start(size, fields, kind).await;
        let edge = blob.edge();
        let mut client = Client::new(edge.http, "a.example");
        for (first, last) in [(10, 19), (10, 19), (SLICE - 5, 3 * SLICE), (0, size - 1), (4 * SLICE, size - 1)] {
            let answer = range(&mut client, "/x", first, last).await;
            assert_part(&answer, 0, first, last, size);
        }
        let end = client.get_with("/x", &[("range", "bytes=-7")]).await;
        assert_part(&end, 0, size - 7, size - 1, size);
        let open = client.get_with("/x", &[("range", &format!("bytes={}-", 2 * SLICE))]).await;
        assert_part(&open, 0, 2 * SLICE, size - 1, size);
        let whole = client.get("/x").await;
        assert_eq!(whole.status, StatusCode::OK, "{kind:?}");
        assert!(whole.body == content(0, 0, size), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_lies_about_its_ranges_is_not_believed() {
    let size = 20 * SLICE;
    let blob = Blob::start(size, FRESH, Kind::Honest).await;
    let edge = blob.edge();
    let mut client = Client::new(edge.http, "a.example");
    assert_part(&range(&mut client, "/x", 0, 99).await, 0, 0, 99, size);
    blob.set(|nature| nature.kind = Kind::Shifted);
    // What it says of a part it is taken at its word for, but not as a slice of the other.
    let told = range(&mut client, "/x", 5 * SLICE, 5 * SLICE + 9).await;
    assert_eq!(told.field("content-range"), format!("bytes {}-{}/{}", 5 * SLICE + 1, 5 * SLICE + 10, size + 1));
    blob.set(|nature| nature.kind = Kind::Honest);
    for at in [0, 5 * SLICE, 7 * SLICE] {
        assert_part(&range(&mut client, "/x", at, at + 99).await, 0, at, at + 99, size);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_answers_what_it_has_and_nothing_else() {
    let size = 5 * SLICE;
    let blob = Blob::start(size, FRESH, Kind::Weak).await;
    let edge = blob.edge();
    let mut client = Client::new(edge.http, "a.example");
    let mut ask = async |range: &str| {
        let answer = client.get_with("/x", &[("range", range)]).await;
        (answer.is_hit(), answer)
    };
    let end = ask("bytes=-1000").await.1;
    assert_part(&end, 0, size - 1000, size - 1, size);
    for (range, first, last) in [
        ("bytes=-1000".to_owned(), size - 1000, size - 1),
        ("bytes=-1".to_owned(), size - 1, size - 1),
        (format!("bytes={}-{}", size - 900, size - 800), size - 900, size - 800),
        (format!("bytes={}-", size - 900), size - 900, size - 1),
        (format!("bytes={}-", size - 1000), size - 1000, size - 1),
    ] {
        let (hit, answer) = ask(&range).await;
        assert!(hit, "{range}: {}", answer.cache_status());
        assert_part(&answer, 0, first, last, size);
    }
    let (hit, more) = ask("bytes=-1001").await;
    assert!(!hit, "{}", more.cache_status());
    assert_part(&more, 0, size - 1001, size - 1, size);
    // RFC 9110 section 14.2: ranges are of GET alone.
    let range = ("range", "bytes=-1000");
    let head = client.send(Method::HEAD, "/x", &[range], Vec::new().into()).await.unwrap();
    assert_eq!((head.status, head.field("content-length")), (StatusCode::OK, size.to_string()));
    let whole = client.get("/x").await;
    assert!(whole.status == StatusCode::OK && whole.body == content(0, 0, size));
    assert!(client.get("/x").await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_larger_than_its_tiers_is_read_in_full() {
    let size = 24 * MIB;
    let blob = Blob::start(size, FRESH, Kind::Honest).await;
    let config = blob.config("").replace("64 MiB", "4 MiB").replace("256 MiB", "8 MiB").replace("64 KiB", "256 KiB");
    let edge = Edge::start(&config.replace("[cache.disk]\n", "[cache.disk]\nsegment_size = \"1 MiB\"\n"));
    let mut client = Client::new(edge.http, "a.example");
    for _ in 0..2 {
        assert_part(&range(&mut client, "/x", 1, size - 2).await, 0, 1, size - 2, size);
    }
    // The end is what was stored last, but for what was read ahead and did not outlast it.
    let sent = settled(&blob).await;
    assert_part(&range(&mut client, "/x", size - 9, size - 1).await, 0, size - 9, size - 1, size);
    let more = settled(&blob).await - sent;
    assert!(more <= MIB / 4, "{more}");
    let sent = settled(&blob).await;
    // Of what was evicted one slice is fetched.
    assert_part(&range(&mut client, "/x", 3 * MIB, 3 * MIB + 9).await, 0, 3 * MIB, 3 * MIB + 9, size);
    let more = settled(&blob).await - sent;
    assert!(more <= MIB / 4, "{more}");
}

/// Bytes sent so far, when nothing that was read ahead is on its way any more.
async fn settled(blob: &Blob) -> u64 {
    loop {
        let before = blob.sent();
        tokio::time::sleep(Duration::from_millis(200)).await;
        if blob.sent() == before {
            return before;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_to_be_stored_whole_is_stored_in_slices() {
    let size = 40 * MIB;
    let blob = Blob::start(size, FRESH, Kind::Honest).await;
    let edge = Edge::start(&config(&one_origin(blob.origin.address)));
    let mut client = Client::new(edge.http, "a.example");
    for hit in [false, true] {
        let whole = client.get("/x").await;
        assert_eq!((whole.status, whole.is_hit()), (StatusCode::OK, hit), "{}", whole.cache_status());
        assert!(whole.body == content(0, 0, size));
    }
    let asked = blob.asked();
    assert_eq!((asked.len(), asked[0].as_str(), asked[1].as_str()), (41, "", "bytes=0-1048575"), "{asked:?}");
    // Without leave to store it, or ranges to ask for, it goes through as it comes.
    for (fields, kind) in [("Cache-Control: no-store", Kind::Honest), (FRESH, Kind::Weak)] {
        let blob = Blob::start(size, fields, kind).await;
        let edge = Edge::start(&config(&one_origin(blob.origin.address)));
        let whole = Client::new(edge.http, "a.example").get("/x").await;
        assert!(whole.body == content(0, 0, size));
        assert_eq!(blob.asked(), [""]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http_2_reads_slices_too() {
    let size = 9 * SLICE;
    let blob = Blob::start(size, FRESH, Kind::Honest).await;
    let edge = blob.edge();
    let (first, last) = (SLICE + 1, 6 * SLICE);
    for hit in [false, true] {
        let (url, range) = (format!("http://{}/x", edge.http), format!("{first}-{last}"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let args = ["--http2-prior-knowledge", "-r", &range, "-D", "-", "-o", file.path().to_str().unwrap(), &url];
        let args = args.map(str::to_owned);
        let got = tokio::task::spawn_blocking(move || {
            let out = std::process::Command::new("curl").args(["-sS", "--max-time", "60"]).args(args).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8_lossy(&out.stdout).into_owned()
        });
        let head = got.await.unwrap();
        assert!(head.starts_with("HTTP/2 206") && head.contains("selvedge; hit") == hit, "{head}");
        assert!(std::fs::read(file.path()).unwrap() == content(0, first, last + 1));
    }
    assert_eq!(blob.origin.count(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_can_do_without_slices() {
    let size = 5 * SLICE;
    let blob = Blob::start(size, FRESH, Kind::Honest).await;
    let edge = Edge::start(&blob.config("[sites.routes.cache]\nslices = false\n"));
    let mut client = Client::new(edge.http, "a.example");
    assert_part(&range(&mut client, "/x", 9, 99).await, 0, 9, 99, size);
    assert_eq!(blob.asked(), [""]);
    assert!(client.get("/x").await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_the_origins_bytes() {
    let size = 23 * SLICE + 4321;
    let blob = Blob::start(size, FRESH, Kind::Honest).await;
    let mut runner = TestRunner::default();
    let edge = blob.edge();
    for round in 0..12 {
        let path = format!("/{}", round % 4);
        let ranges = proptest::collection::vec((0..size, 0..6 * SLICE, 0u8..4), 1..12);
        let mut client = Client::new(edge.http, "a.example");
        for (at, length, form) in ranges.new_tree(&mut runner).unwrap().current() {
            let (text, first, last) = match form {
                0 => (format!("bytes={at}-"), at, size - 1),
                1 => (format!("bytes=-{}", length + 1), size - (length + 1).min(size), size - 1),
                _ => (format!("bytes={at}-{}", at + length), at, (at + length).min(size - 1)),
            };
            let answer = client.get_with(&path, &[("range", &text)]).await;
            assert_part(&answer, 0, first, last, size);
        }
    }
    let whole = Client::new(edge.http, "a.example").get("/1").await;
    assert!(whole.body == content(0, 0, size));
}
