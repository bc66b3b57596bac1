//! What survives `kill -9`: what was stored, and what was purged.

use crate::support::edge::{BINARY, config, one_origin};
use crate::support::nginx::Nginx;
use crate::support::{Client, Edge};
use std::process::Command;

fn purge(edge: &Edge, url: &str) -> String {
    let out = Command::new(BINARY).args(["purge", "--admin", &edge.admin.to_string(), url]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_the_disk_tier_serves_what_it_had() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=3600; }");
    let large: Vec<u8> = (0..5_000_000u32).map(|n| (n % 241) as u8).collect();
    nginx.write("small.html", b"small");
    nginx.write("large.bin", &large);
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    client.get("/small.html").await;
    assert_eq!(client.get("/large.bin").await.body, large);
    // On disk within the write interval; a hit proves the commit, the metric that the tier has both.
    crate::support::tools::wait_until("both are on disk", std::time::Duration::from_secs(10), || {
        edge.metric(r#"selvedge_tier_objects{tier="disk"}"#) >= 2.0
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let edge = edge.crash_and_restart();
    let mut client = Client::new(edge.http, "a.example");
    let small = client.get("/small.html").await;
    assert!(small.is_hit() && small.cache_status().contains("detail=disk"), "{}", small.cache_status());
    let whole = client.get("/large.bin").await;
    assert!(whole.is_hit(), "{}", whole.cache_status());
    assert_eq!(whole.body, large);
    let range = client.get_with("/large.bin", &[("range", "bytes=4000000-4000009")]).await;
    assert_eq!(range.body, large[4_000_000..4_000_010]);
    assert_eq!(nginx.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_takes_effect_at_once_and_survives_kill_9() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=3600; add_header Vary Accept-Language; }");
    nginx.write("a.html", b"one");
    nginx.write("b.html", b"two");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    for language in ["de", "fr"] {
        client.get_with("/a.html", &[("accept-language", language)]).await;
    }
    client.get("/b.html").await;
    crate::support::tools::wait_until("all are on disk", std::time::Duration::from_secs(10), || {
        edge.metric(r#"selvedge_tier_objects{tier="disk"}"#) >= 3.0
    });
    purge(&edge, "http://A.example/a.html");
    let edge = edge.crash_and_restart();
    let mut client = Client::new(edge.http, "a.example");
    for language in ["de", "fr"] {
        let answer = client.get_with("/a.html", &[("accept-language", language)]).await;
        assert!(!answer.is_hit(), "{language}: a purged response came back: {}", answer.cache_status());
    }
    let kept = client.get("/b.html").await;
    assert!(kept.is_hit(), "{}", kept.cache_status());
    purge(&edge, "http://a.example/b.html");
    assert!(!client.get("/b.html").await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_can_be_purged() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=3600; return 200 $uri; }");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    for path in ["/1", "/2", "/3"] {
        client.get(path).await;
        assert!(client.get(path).await.is_hit());
    }
    let out = Command::new(BINARY).args(["purge", "--admin", &edge.admin.to_string(), "--all"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for path in ["/1", "/2", "/3"] {
        assert!(!client.get(path).await.is_hit(), "{path}");
    }
}

#[test]
fn two_processes_cannot_share_one_store() {
    let nginx = Nginx::start("location / { return 200 ok; }");
    let shared = tempfile::tempdir().unwrap();
    let text = config(&one_origin(nginx.address))
        .replace("path = \"cache\"", &format!("path = \"{}\"", shared.path().join("cache").display()));
    let _first = Edge::start(&text);
    let (status, log) = Edge::refused(&text);
    assert_eq!(status.code(), Some(69), "{log}");
    assert!(log.contains("cache"), "{log}");
}
