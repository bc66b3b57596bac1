//! Hedged reads against a real edge: who is asked twice, who answers, and that what is relayed is what was sent.

use crate::support::edge::config;
use crate::support::faulty::Origin;
use crate::support::tools::wait_until;
use crate::support::{Client, Edge};
use bytes::Bytes;
use http::{Method, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(20);

/// One that takes requests and never answers; how many of them were given up by who asked.
async fn silent() -> (Origin, Arc<AtomicUsize>) {
    let left = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&left);
    let origin = Origin::start(move |mut stream, _| {
        let counter = Arc::clone(&counter);
        async move {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            counter.fetch_add(1, Ordering::SeqCst);
            None
        }
    })
    .await;
    (origin, left)
}

/// One that answers by path, in every framing there is.
async fn quick() -> Origin {
    Origin::start(|mut stream, head| async move {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let length = format!("Content-Length: {}\r\n\r\n", SIZE);
        let (fields, body): (String, Vec<u8>) = match path.as_str() {
            "/length" => (length, pattern()),
            "/stored" => (format!("Cache-Control: max-age=60\r\n{length}"), pattern()),
            "/chunked" => ("Transfer-Encoding: chunked\r\n\r\n".to_owned(), chunked(true)),
            "/broken-chunks" => ("Transfer-Encoding: chunked\r\n\r\n".to_owned(), chunked(false)),
            "/until-close" => ("Connection: close\r\n\r\n".to_owned(), pattern()),
            "/short" => (format!("Connection: close\r\n{length}"), pattern()[..SIZE / 2].to_vec()),
            "/none" => ("\r\n".to_owned(), Vec::new()),
            _ => ("Content-Length: 2\r\n\r\n".to_owned(), b"ok".to_vec()),
        };
        let status = if path == "/none" { "204 No Content" } else { "200 OK" };
        let early = if path == "/length" { "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" } else { "" };
        stream.write_all(format!("{early}HTTP/1.1 {status}\r\nX-Case: Kept\r\n{fields}").as_bytes()).await.ok()?;
        if !head.starts_with("HEAD") {
            stream.write_all(&body).await.ok()?;
        }
        (!matches!(path.as_str(), "/until-close" | "/short" | "/broken-chunks")).then_some(stream)
    })
    .await
}

/// More than the pipe to the core holds.
const SIZE: usize = 300_000;

fn pattern() -> Vec<u8> {
    (0..SIZE).map(|n| (n % 251) as u8).collect()
}

fn chunked(whole: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for part in pattern().chunks(70_000) {
        out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(if whole { b"0\r\n\r\n" } else { b"" });
    out
}

fn edge(servers: &[SocketAddr], hedge: &str, rest: &str) -> Edge {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    Edge::start(&config(&format!(
        "[[sites]]\nhosts = [\"*\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n\n[origins.app.http]\nservers = [{}]\n\
         hedge = {hedge}\nmax_fails = 0\n{rest}\n",
        servers.join(", ")
    )))
}

fn hedges(edge: &Edge, result: &str) -> f64 {
    edge.metric(&format!("selvedge_origin_hedges_total{{origin=\"app\",result=\"{result}\"}}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_one_server_hangs_the_other_answers_and_the_first_is_let_go() {
    let ((hangs, left), answers) = (silent().await, quick().await);
    let edge = edge(&[hangs.address, answers.address], "{ after = \"30ms\", max_percent = 100 }", "");
    let mut client = Client::new(edge.http, "a.example");
    for n in 0..10 {
        let answer = client.get(&format!("/{n}")).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "ok"), "{n}");
    }
    let asked = hangs.count();
    assert!(asked >= 4, "turns are taken: {asked}");
    assert!(hedges(&edge, "won") >= 4.0 && hedges(&edge, "sent") >= hedges(&edge, "won"));
    wait_until("the silent server is let go", PATIENCE, || left.load(Ordering::SeqCst) == asked);
    let in_flight = |server: SocketAddr| {
        edge.metric(&format!("selvedge_origin_server_in_flight{{origin=\"app\",server=\"{server}\"}}"))
    };
    wait_until("nothing is under way", PATIENCE, || in_flight(hangs.address) + in_flight(answers.address) == 0.0);
    let retries = edge.metric("selvedge_origin_retries_total{origin=\"app\",result=\"made\"}");
    assert_eq!(retries, hedges(&edge, "sent"), "each is taken out of the budget of retries");
    assert!(edge.metric("selvedge_origin_hedges_total{origin=\"app\",result=\"failed\"}") == 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_relayed_is_what_the_server_sent() {
    let ((hangs, _), answers) = (silent().await, quick().await);
    for servers in [vec![answers.address], vec![hangs.address, answers.address]] {
        let edge = edge(&servers, "{ after = \"30ms\", max_percent = 100 }", "read_timeout = \"10s\"");
        let mut client = Client::new(edge.http, "a.example");
        for path in ["/length", "/chunked", "/until-close"] {
            for _ in 0..2 {
                let answer = client.get(path).await;
                assert_eq!((answer.status, answer.field("x-case").as_str()), (StatusCode::OK, "Kept"), "{path}");
                assert!(answer.body == pattern(), "{path}: {} bytes", answer.body.len());
            }
        }
        let empty = client.get("/none").await;
        assert_eq!((empty.status.as_u16(), empty.body.len()), (204, 0));
        let head = client.send(Method::HEAD, "/chunked", &[], Bytes::new()).await.unwrap();
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        assert!(!client.get("/stored").await.is_hit());
        let hit = client.get("/stored").await;
        assert!(hit.is_hit() && hit.body == pattern(), "{}", hit.cache_status());
        // What breaks off is told as such, whatever its framing.
        for path in ["/short", "/broken-chunks"] {
            let mut client = Client::new(edge.http, "a.example");
            let broken = client.send(Method::GET, path, &[], Bytes::new()).await;
            assert!(broken.is_err() || broken.is_ok_and(|answer| answer.status != 200), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_content_or_is_beyond_the_share_is_asked_once() {
    let (slow, other) = (slow().await, slow().await);
    let edge = edge(&[slow.address, other.address], "{ after = \"1ms\", max_percent = 100 }", "");
    let mut client = Client::new(edge.http, "a.example");
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let body = if method == Method::DELETE { Bytes::new() } else { Bytes::from_static(b"content") };
        assert_eq!(client.send(method, "/", &[], body).await.unwrap().status, StatusCode::OK);
    }
    let body = Bytes::from_static(b"content");
    assert_eq!(client.send(Method::GET, "/", &[], body).await.unwrap().status, StatusCode::OK);
    assert_eq!((slow.count() + other.count(), hedges(&edge, "sent")), (4, 0.0));
    let few = self::edge(&[slow.address, other.address], "{ after = \"1ms\", max_percent = 5 }", "");
    let mut client = Client::new(few.http, "a.example");
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, StatusCode::OK);
    }
    assert_eq!((slow.count() + other.count(), hedges(&few, "refused")), (14, 10.0));
}

/// Answers after a tenth of a second.
async fn slow() -> Origin {
    Origin::start(|mut stream, head| async move {
        if head.to_ascii_lowercase().contains("content-length: 7") {
            stream.read_exact(&mut [0; 7]).await.ok()?;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).await.ok()?;
        Some(stream)
    })
    .await
}
