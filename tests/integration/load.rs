//! `selvedge load` against a real edge, and against servers that stall, refuse and break.

use crate::support::edge::{BINARY, config, config_tls, one_origin};
use crate::support::faulty::Origin;
use crate::support::nginx::Nginx;
use crate::support::{Edge, tools};
use serde_json::Value;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const CACHED: &str = "location / { add_header Cache-Control max-age=3600; }";

fn origin() -> Nginx {
    let nginx = Nginx::start(CACHED);
    for n in 0..4 {
        nginx.write(&format!("o/{n}"), &vec![b'x'; 100 << 10]);
    }
    nginx
}

fn load(args: &[&str]) -> Output {
    Command::new(BINARY).arg("load").args(args).output().unwrap()
}

/// Runs it to a good end and returns what `--json -` says.
fn figures(args: &[&str]) -> Value {
    let out = load(&[args, &["--json", "-"]].concat());
    assert!(out.status.success(), "{out:?}");
    serde_json::from_slice(&out.stdout).unwrap()
}

fn count(figures: &Value, path: &str) -> u64 {
    figures.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

#[test]
fn hits_are_told_by_tier_and_connections_are_kept() {
    let nginx = origin();
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let target = edge.http.to_string();
    let url = "http://www.example.com/o/{n}";
    let common = [url, "--target", &target, "--objects", "4", "-c", "3"];
    let cold = figures(&[&common[..], &["-n", "20", "--popularity", "sequential"]].concat());
    assert_eq!((count(&cold, "/answered"), count(&cold, "/statuses/200")), (20, 20), "{cold}");
    let warm = figures(&[&common[..], &["-n", "400", "--popularity", "zipf:0.9"]].concat());
    assert_eq!((count(&warm, "/tiers/memory/requests"), count(&warm, "/connections")), (400, 3), "{warm}");
    assert_eq!(count(&warm, "/bytes"), 400 * (100 << 10));
    assert_eq!(nginx.requests().len(), 4);
}

#[test]
fn http2_ranges_and_conditional_requests() {
    let nginx = origin();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    tools::certificate(&dir.path().join("certs"), "www.example.com", &["www.example.com"]);
    let edge = Edge::start_in(Arc::clone(&dir), &config_tls(&one_origin(nginx.address)), &[]);
    let target = edge.https.unwrap().to_string();
    let common = ["https://www.example.com/o/{n}", "--target", &target, "--objects", "4", "--insecure"];
    let h2 = figures(&[&common[..], &["--protocol", "2", "-c", "2", "--streams", "8", "-n", "200"]].concat());
    assert_eq!((count(&h2, "/statuses/200"), count(&h2, "/connections")), (200, 2), "{h2}");
    let ranges = figures(
        &[&common[..], &["-n", "100", "--ranges", "100%", "--sizes", "100KiB", "--range-length", "1KiB"]].concat(),
    );
    assert_eq!((count(&ranges, "/statuses/206"), count(&ranges, "/bytes")), (100, 100 << 10), "{ranges}");
    let conditional = figures(&[&common[..], &["-n", "100", "-c", "1", "--conditional", "100%"]].concat());
    assert_eq!((count(&conditional, "/statuses/200"), count(&conditional, "/statuses/304")), (4, 96), "{conditional}");
}

#[test]
fn logs_and_traces_are_replayed() {
    let nginx = origin();
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let dir = tempfile::tempdir().unwrap();
    let (log, trace) = (dir.path().join("access.log"), dir.path().join("trace"));
    let line =
        |second, path| format!("192.0.2.1 - - [31/Jan/2026:23:00:{second:02} +0000] \"GET {path} HTTP/1.1\" 200 1\n");
    std::fs::write(&log, line(0, "/o/0") + &line(1, "/o/1") + &line(2, "/missing")).unwrap();
    std::fs::write(&trace, "0 a 1\n1 b 1\n2 a 1\n").unwrap();
    let target = edge.http.to_string();
    let log = log.to_str().unwrap();
    let timed = figures(&["http://www.example.com", "--target", &target, "--replay", log, "--speed", "10"]);
    assert_eq!((count(&timed, "/statuses/200"), count(&timed, "/statuses/404")), (2, 1), "{timed}");
    let trace = trace.to_str().unwrap();
    let again = figures(&["http://www.example.com/o/{n}", "--target", &target, "--trace", trace, "-n", "9", "-c", "1"]);
    assert_eq!((count(&again, "/answered"), count(&again, "/statuses/200")), (9, 9), "{again}");
    assert_eq!(nginx.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_constant_rate_a_stall_is_charged_for_all_who_wait() {
    let begun = std::time::Instant::now();
    let stalled = AtomicBool::new(false);
    let server = Origin::start(move |mut stream, _| {
        let stalls = begun.elapsed() > Duration::from_millis(500) && !stalled.swap(true, Ordering::Relaxed);
        async move {
            if stalls {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.ok()?;
            Some(stream)
        }
    })
    .await;
    let url = format!("http://{}/", server.address);
    let run = move || figures(&[&url, "--rate", "200", "-n", "400", "-c", "1"]);
    let told = tokio::task::spawn_blocking(run).await.unwrap();
    // About 200 of 400 were due in that second and had to wait, half a second in the mean. A closed model would see one.
    assert_eq!(count(&told, "/answered"), 400, "{told}");
    assert!(count(&told, "/latency_us/p90") > 300_000 && count(&told, "/backlogged") > 50, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_is_told_by_kind_and_by_the_exit_status() {
    let server = Origin::start(|mut stream, head| async move {
        if head.starts_with("GET /hang ") {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        let answer: &[u8] = match head.split(' ').nth(1) {
            Some("/cut") => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok",
            Some("/busy") => b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        stream.write_all(answer).await.ok()?;
        (!head.starts_with("GET /cut ")).then_some(stream)
    })
    .await;
    let base = format!("http://{}", server.address);
    let check = move || {
        let out =
            load(&[&format!("{base}/cut"), &format!("{base}/"), "-n", "10", "-c", "1", "--popularity", "sequential"]);
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && text.contains("broken: 5") && text.contains("200: 5"), "{text}");
        let out = load(&[&format!("{base}/hang"), "-n", "1", "--timeout", "300ms"]);
        assert_eq!(out.status.code(), Some(69), "{out:?}");
        assert!(String::from_utf8_lossy(&out.stdout).contains("timeout: 1"));
        let page = tempfile::NamedTempFile::new().unwrap();
        let out = load(&[
            &format!("{base}/busy"),
            "-n",
            "5",
            "--expect",
            "errors<1%",
            "--html",
            page.path().to_str().unwrap(),
        ]);
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("missed: errors<1%: it is 100.000 %"), "{out:?}");
        let page = std::fs::read_to_string(page.path()).unwrap();
        assert!(page.contains("missed") && page.contains("503: 5") && page.ends_with("</html>\n"));
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let out = load(&[&format!("http://{closed}/"), "-n", "2"]);
        assert_eq!(out.status.code(), Some(69));
        assert!(String::from_utf8_lossy(&out.stdout).contains("connect: 2"), "{out:?}");
    };
    tokio::task::spawn_blocking(check).await.unwrap();
}

#[test]
fn strangers_are_not_loaded() {
    for (args, says) in [
        (&["http://192.0.2.1/"][..], "--i-own-this-host"),
        (&["http://127.0.0.1/", "--target", "192.0.2.1:80"], "--i-own-this-host"),
        (&["http://127.0.0.1/{x}"], "{x}"),
        (&["http://127.0.0.1/", "--speed", "2"], "--replay"),
        (&["http://127.0.0.1/", "--expect", "p99"], "p99<50ms"),
        (&["http://127.0.0.1/", "--replay", "/nonexistent"], "/nonexistent"),
    ] {
        let out = load(args);
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(64) && text.contains(says), "{args:?}: {text}");
    }
}
