//! `selvedge store` beside a running edge and on what one has left behind.

use crate::support::edge::{BINARY, config, one_origin};
use crate::support::nginx::Nginx;
use crate::support::tools::wait_until;
use crate::support::{Client, Edge};
use std::os::unix::fs::FileExt;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const FILES: usize = 24;

fn store(args: &[&str], config: &str) -> Output {
    let (command, rest) = args.split_first().unwrap();
    Command::new(BINARY).args(["store", command, "--config", config]).args(rest).output().unwrap()
}

fn ok(args: &[&str], config: &str) -> String {
    let out = store(args, config);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

fn content(n: usize) -> Vec<u8> {
    (0..3_000 + n * 9_000).map(|at| (at * (n + 3) % 251) as u8).collect()
}

/// Fetches for ever, each time under another query, so that the store is written and evicted.
async fn load(edge: std::net::SocketAddr, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) {
    let mut client = Client::new(edge, "a.example");
    while !stop.load(Ordering::Relaxed) {
        let n = count.fetch_add(1, Ordering::Relaxed) as usize;
        client.get(&format!("/{}.bin?{n}", n % FILES)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_use_is_read_without_harm_or_false_alarm() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=3600; add_header Cache-Tag all; }");
    for n in 0..FILES {
        nginx.write(&format!("{n}.bin"), &content(n));
    }
    let text = config(&one_origin(nginx.address))
        .replace("capacity = \"256 MiB\"", "capacity = \"12 MiB\"\nsegment_size = \"1 MiB\"");
    let edge = Edge::start(&text);
    let file = edge.config_file();
    let file = file.to_str().unwrap();
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let fetching = tokio::spawn(load(edge.http, Arc::clone(&stop), Arc::clone(&count)));
    wait_until("something is on disk", Duration::from_secs(20), || {
        edge.metric(r#"selvedge_tier_objects{tier="disk"}"#) >= 10.0
    });
    let mut compared = 0;
    for _ in 0..4 {
        assert!(ok(&["verify"], file).contains(": 0 problems"));
        let stat: serde_json::Value = serde_json::from_str(&ok(&["stat", "--json"], file)).unwrap();
        assert_eq!((&stat["capacity"], &stat["left_out"]["damaged"]), (&(12 << 20).into(), &0.into()));
        for line in ok(&["list", "--json", "--tag", "all"], file).lines().rev().take(3) {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            let url = object["url"].as_str().unwrap();
            let n: usize = url.rsplit('/').next().unwrap().split('.').next().unwrap().parse().unwrap();
            assert_eq!(object["size"].as_u64(), Some(content(n).len() as u64));
            let dumped = store(&["dump", url], file);
            // It may have been evicted since.
            if dumped.status.success() {
                assert!(dumped.stdout == content(n), "{url}");
                compared += 1;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    fetching.await.unwrap();
    assert!(compared > 0 && edge.metric(r#"selvedge_tier_errors_total{tier="disk",kind="checksum"}"#) == 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_edge_left_is_verified_listed_and_dumped() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=3600; }");
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 241) as u8).collect();
    nginx.write("large.bin", &large);
    for n in 0..200 {
        nginx.write(&format!("{n}.html"), b"small");
    }
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    for n in 0..200 {
        client.get(&format!("/{n}.html")).await;
    }
    client.get("/large.bin").await;
    let listed = |file: &str| ok(&["list"], file).lines().count();
    let path = edge.config_file();
    let file = path.to_str().unwrap();
    wait_until("all are on disk", Duration::from_secs(20), || listed(file) == 201);
    let purge =
        Command::new(BINARY).args(["purge", "--admin", &edge.admin.to_string(), "http://a.example/7.html"]).status();
    assert!(purge.unwrap().success());
    assert_eq!(listed(file), 200, "what is purged is not listed");
    edge.signal("KILL");
    let script = format!("set -o pipefail; '{BINARY}' store list --config '{file}' | head -1");
    let first = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(String::from_utf8_lossy(&first.stdout).lines().count(), 1);
    assert!(store(&["dump", "http://a.example/large.bin"], file).stdout == large);
    assert_eq!(store(&["dump", "http://a.example/7.html"], file).status.code(), Some(1));
    ok(&["verify"], file);

    let segments = path.parent().unwrap().join("cache/segments");
    let data = std::fs::OpenOptions::new().write(true).open(segments).unwrap();
    data.write_all_at(b"scribble", 200).unwrap();
    let damaged = store(&["verify"], file);
    let text = String::from_utf8_lossy(&damaged.stdout).into_owned();
    assert_eq!(damaged.status.code(), Some(1), "{text}");
    assert!(text.starts_with("segment 0, offset "), "{text}");
    let none = Command::new(BINARY).args(["store", "stat", "--dir"]).arg(path.parent().unwrap()).output().unwrap();
    assert_eq!(none.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&none.stderr).contains("is not a selvedge cache"));
}
