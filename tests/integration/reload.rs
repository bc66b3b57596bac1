//! Reloads: all or nothing, and without a failed request.

use crate::support::edge::{BINARY, config, config_tls, one_origin};
use crate::support::nginx::Nginx;
use crate::support::tools::{certificate, wait_until};
use crate::support::{Client, Edge};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

fn answering(text: &str) -> Nginx {
    Nginx::start(&format!("location / {{ add_header Cache-Control no-store; return 200 {text}; }}"))
}

/// Requests without a pause until it is told to stop; every one has to be a 200.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                tokio::spawn(async move {
                    let mut failures = Vec::new();
                    let mut client = Client::new(address, "a.example");
                    while !stop.load(Ordering::Relaxed) {
                        match client.send(http::Method::GET, &format!("/{n}"), &[], Default::default()).await {
                            Ok(answer) if answer.status == 200 => {}
                            other => failures.push(format!("{other:?}")),
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    failures
                })
            })
            .collect();
        Self { stop, done, tasks }
    }

    fn wait_for(&self, more: usize) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        wait_until("the load goes on", Duration::from_secs(20), || self.done.load(Ordering::Relaxed) >= goal);
    }

    async fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let failures = task.await.unwrap();
            assert!(failures.is_empty(), "{} failed: {}", failures.len(), failures[0]);
        }
        self.done.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_fail_no_request() {
    let (one, two) = (answering("one"), answering("two"));
    let edge = Edge::start(&config(&one_origin(one.address)));
    let load = Load::start(edge.http);
    for round in 0..10 {
        let origin = if round % 2 == 0 { &two } else { &one };
        let from = edge.log_lines();
        std::fs::write(edge.config_file(), config(&one_origin(origin.address))).unwrap();
        edge.signal("HUP");
        edge.wait_for_log(from, "configuration applied");
        load.wait_for(50);
    }
    let answer = Client::new(edge.http, "a").get("/").await;
    assert_eq!(answer.text(), "one");
    assert!(load.finish().await > 500);
    assert_eq!(edge.metric(r#"selvedge_reloads_total{result="refused"}"#), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_picked_up_without_a_signal() {
    let (one, two) = (answering("one"), answering("two"));
    let edge = Edge::start(&config(&one_origin(one.address)));
    let mut client = Client::new(edge.http, "a");
    assert_eq!(client.get("/").await.text(), "one");
    std::fs::write(edge.config_file(), config(&one_origin(two.address))).unwrap();
    edge.wait_for_log(0, "configuration applied");
    assert_eq!(client.get("/").await.text(), "two", "on the connection that was open before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_changes_nothing_and_is_reported() {
    let one = answering("one");
    let good = config(&one_origin(one.address));
    let edge = Edge::start(&good);
    let mut client = Client::new(edge.http, "a");
    let broken = good.replace("origin = \"app\"", "origin = \"appp\"\nchache = true");
    std::fs::write(edge.config_file(), broken).unwrap();
    edge.signal("HUP");
    edge.wait_for_log(0, "configuration refused");
    edge.wait_for_log(0, "chache");
    edge.wait_for_log(0, "appp");
    assert_eq!(client.get("/").await.text(), "one");
    assert!(edge.metric(r#"selvedge_reloads_total{result="refused"}"#) >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_need_a_restart_are_named_and_nothing_is_applied() {
    let (one, two) = (answering("one"), answering("two"));
    let edge = Edge::start(&config(&one_origin(one.address)));
    let changed = config(&one_origin(two.address)).replace("64 MiB", "32 MiB");
    std::fs::write(edge.config_file(), changed).unwrap();
    edge.signal("HUP");
    edge.wait_for_log(0, "[cache] can only be changed by a restart");
    assert_eq!(Client::new(edge.http, "a").get("/").await.text(), "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_requests_finish_and_exits_0() {
    let nginx = Nginx::start("location / { limit_rate 200k; add_header Cache-Control no-store; }");
    nginx.write("slow.bin", &vec![7; 300_000]);
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let address = edge.http;
    let slow = tokio::spawn(async move { Client::new(address, "a").get("/slow.bin").await });
    wait_until("the request is under way", Duration::from_secs(5), || {
        edge.metric(r#"selvedge_connections_open{listener="http"}"#) >= 1.0
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let status = tokio::task::spawn_blocking(move || edge.terminate()).await.unwrap();
    assert_eq!(slow.await.unwrap().body.len(), 300_000);
    assert_eq!(status.code(), Some(0));
    assert!(std::net::TcpStream::connect(address).is_err());
}

/// The serial number of the certificate that `name` gets.
fn serial(https: SocketAddr, name: &str) -> String {
    let out = Command::new("bash")
        .arg("-c")
        .arg(format!(
            "openssl s_client -connect {https} -servername {name} </dev/null 2>/dev/null | openssl x509 -noout -serial"
        ))
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn https_status(https: SocketAddr, name: &str, version: &str) -> String {
    let out = Command::new("curl")
        .args(["-sk", version, "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--resolve"])
        .arg(format!("{name}:{}:127.0.0.1", https.port()))
        .arg(format!("https://{name}:{}/", https.port()))
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_chosen_by_name_and_changed_under_load() {
    let origin = answering("ok");
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let certs = dir.path().join("certs");
    certificate(&certs, "www.example.com", &["www.example.com"]);
    certificate(&certs, "example.org", &["example.org", "*.example.org"]);
    let edge = Edge::start_in(Arc::clone(&dir), &config_tls(&one_origin(origin.address)), &[]);
    let https = edge.https.unwrap();
    for (name, version, expected) in [
        ("www.example.com", "--http1.1", "200 1.1"),
        ("www.example.com", "--http2", "200 2"),
        ("shop.example.org", "--http2", "200 2"),
        ("other.net", "--http2", "000 0"),
    ] {
        assert_eq!(https_status(https, name, version), expected, "{name}");
    }
    let alert = Command::new("openssl")
        .args(["s_client", "-connect", &https.to_string(), "-servername", "other.net"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&alert.stderr).contains("unrecognized name"),
        "{}",
        String::from_utf8_lossy(&alert.stderr)
    );
    certificate(&certs, "default", &["default.test"]);
    wait_until("the default certificate is used", Duration::from_secs(5), || {
        https_status(https, "other.net", "--http2") == "200 2"
    });

    let load = {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let task = std::thread::spawn(move || {
            let (mut count, mut failures) = (0, Vec::new());
            while !flag.load(Ordering::Relaxed) {
                count += 1;
                let status = https_status(https, "www.example.com", "--http2");
                if status != "200 2" {
                    failures.push(status);
                }
            }
            (count, failures)
        });
        (stop, task)
    };
    let mut before = serial(https, "www.example.com");
    for _ in 0..3 {
        certificate(&certs, "www.example.com", &["www.example.com"]);
        let old = before.clone();
        wait_until("the new certificate is served", Duration::from_secs(5), || {
            before = serial(https, "www.example.com");
            !before.is_empty() && before != old
        });
    }
    // A broken pair: the last good one stays.
    std::fs::write(certs.join("www.example.com.crt"), "-----BEGIN NONSENSE-----").unwrap();
    edge.wait_for_log(0, "www.example.com.crt");
    assert_eq!(serial(https, "www.example.com"), before);
    load.0.store(true, Ordering::Relaxed);
    let (count, failures) = load.1.join().unwrap();
    assert!(count > 10 && failures.is_empty(), "{count} requests, {failures:?}");
}

#[test]
fn check_names_every_problem_and_exits_64() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, "[listen]\nhttp = [\"nowhere\"]\nhtps = []\n\n[[sites]]\nhosts = [\"~(\"]\n").unwrap();
    for command in ["check", "serve"] {
        let out = Command::new(BINARY).args([command, "--config"]).arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(64), "{command}: {text}");
        for part in ["bad.toml:2:", "nowhere", "bad.toml:3:", "htps", "bad.toml:6:"] {
            assert!(text.contains(part), "{command}: {part} missing in\n{text}");
        }
    }
}
