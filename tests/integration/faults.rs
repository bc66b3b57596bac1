//! Origins that hang, reset, truncate and lie: a clear 502 or 504, and never a stored fragment.

use crate::support::edge::{config, one_origin};
use crate::support::faulty::Origin;
use crate::support::{Client, Edge};
use http::{Method, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const FRESH: &str = "Cache-Control: max-age=60\r\n";

fn quick(address: std::net::SocketAddr) -> String {
    one_origin(address)
        .replace("servers =", "read_timeout = \"1s\"\nconnect_timeout = \"1s\"\nmax_fails = 0\nservers =")
}

#[tokio::test]
async fn an_origin_that_hangs_is_a_504() {
    let origin = Origin::start(|stream, _| async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        drop(stream);
        None
    })
    .await;
    let edge = Edge::start(&config(&quick(origin.address)));
    let answer = Client::new(edge.http, "a").get("/").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.field("proxy-status"), "selvedge; error=http_response_timeout");
    assert_eq!(origin.count(), 1, "a request that reached the origin is not sent again");
}

#[tokio::test]
async fn an_origin_that_refuses_is_a_502() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let edge = Edge::start(&config(&quick(closed)));
    let answer = Client::new(edge.http, "a").get("/").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.field("proxy-status"), "selvedge; error=connection_refused");
    assert!(answer.text().contains("connection refused"), "{}", answer.text());
}

#[tokio::test]
async fn an_origin_that_resets_before_the_head_is_a_502() {
    let origin = Origin::start(|stream: TcpStream, _| async move {
        stream.set_zero_linger().unwrap();
        None
    })
    .await;
    let edge = Edge::start(&config(&quick(origin.address)));
    let answer = Client::new(edge.http, "a").get("/").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{}", answer.text());
}

#[tokio::test]
async fn garbage_for_a_head_is_a_502() {
    let origin = Origin::start(|mut stream: TcpStream, _| async move {
        stream.write_all(b"220 smtp.example ESMTP\r\n\r\n").await.unwrap();
        None
    })
    .await;
    let edge = Edge::start(&config(&quick(origin.address)));
    let answer = Client::new(edge.http, "a").get("/").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{}", answer.text());
}

/// The first response is cut short by `first`; the second is whole. Neither client may take the first for whole, and
/// the third request must be a hit of the second.
async fn truncated_is_never_stored(first: &'static str) {
    let served = Arc::new(AtomicBool::new(false));
    let origin = Origin::start(move |mut stream: TcpStream, _| {
        let served = Arc::clone(&served);
        async move {
            if !served.swap(true, Ordering::SeqCst) {
                stream.write_all(first.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                return None;
            }
            let whole = format!("HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 10\r\n\r\n0123456789");
            stream.write_all(whole.as_bytes()).await.unwrap();
            Some(stream)
        }
    })
    .await;
    let edge = Edge::start(&config(&quick(origin.address)));
    let broken = Client::new(edge.http, "a").send(Method::GET, "/x", &[], Default::default()).await;
    if let Ok(answer) = broken {
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "a fragment was passed off as whole: {answer:?}");
    }
    let mut client = Client::new(edge.http, "a");
    let whole = client.get("/x").await;
    assert_eq!((whole.text().as_str(), whole.is_hit()), ("0123456789", false));
    let hit = client.get("/x").await;
    assert_eq!((hit.text().as_str(), hit.is_hit()), ("0123456789", true));
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_body_shorter_than_its_length_is_never_stored() {
    truncated_is_never_stored("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n01234").await;
}

#[tokio::test]
async fn a_chunked_body_without_its_end_is_never_stored() {
    truncated_is_never_stored(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n",
    )
    .await;
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_passed_on_but_not_stored() {
    let origin = Origin::start(|mut stream: TcpStream, _| async move {
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{FRESH}\r\nwho knows").as_bytes()).await.unwrap();
        None
    })
    .await;
    let edge = Edge::start(&config(&quick(origin.address)));
    for _ in 0..2 {
        let answer = Client::new(edge.http, "a").get("/x").await;
        assert_eq!((answer.text().as_str(), answer.is_hit()), ("who knows", false));
    }
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_body_longer_than_its_length_is_cut_there() {
    let origin = Origin::start(|mut stream: TcpStream, _| async move {
        let lie = format!("HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 5\r\n\r\n01234SMUGGLED");
        stream.write_all(lie.as_bytes()).await.unwrap();
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&quick(origin.address)));
    let mut client = Client::new(edge.http, "a");
    for path in ["/x", "/x", "/y"] {
        assert_eq!(client.get(path).await.text(), "01234", "{path}");
    }
}

#[tokio::test]
async fn a_dead_server_is_passed_over_and_ejected() {
    let alive = Origin::start(|mut stream: TcpStream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        Some(stream)
    })
    .await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = one_origin(alive.address)
        .replace("servers = [", &format!("max_fails = 1\neject_for = \"60s\"\nservers = [\"{dead}\", "));
    let edge = Edge::start(&config(&text));
    let mut client = Client::new(edge.http, "a");
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert_eq!(edge.metric(r#"selvedge_origin_errors_total{kind="connection_refused",origin="app"}"#), 1.0);
    assert_eq!(edge.metric(&format!(r#"selvedge_origin_server_up{{origin="app",server="{dead}"}}"#)), 0.0);
}

#[tokio::test]
async fn a_stale_response_is_served_while_the_origin_is_down_where_it_said_so() {
    let up = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&up);
    let origin = Origin::start(move |mut stream: TcpStream, _| {
        let up = Arc::clone(&switch);
        async move {
            if !up.load(Ordering::SeqCst) {
                return None;
            }
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=0, stale-if-error=60\r\nETag: \"1\"\r\nContent-Length: 4\r\n\r\nkept";
            stream.write_all(head.as_bytes()).await.unwrap();
            None
        }
    })
    .await;
    let edge = Edge::start(&config(&quick(origin.address)));
    let mut client = Client::new(edge.http, "a");
    assert_eq!(client.get("/").await.text(), "kept");
    up.store(false, Ordering::SeqCst);
    let stale = client.get("/").await;
    assert_eq!((stale.status, stale.text().as_str()), (StatusCode::OK, "kept"));
}

/// A server that answers one request per connection and closes without saying so.
async fn closing_after_each(status: &'static str) -> Origin {
    Origin::start(move |mut stream: TcpStream, head| async move {
        let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let mut body = vec![0; length.map_or(0, |l| l.trim().parse().unwrap())];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body).await.unwrap();
        let text = format!("HTTP/1.1 {status}\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok");
        stream.write_all(text.as_bytes()).await.unwrap();
        None
    })
    .await
}

#[tokio::test]
async fn a_pooled_connection_that_died_unseen_costs_an_idempotent_request_nothing() {
    let origin = closing_after_each("200 OK").await;
    let edge = Edge::start(&config(&quick(origin.address)));
    let mut client = Client::new(edge.http, "a");
    for method in [Method::GET, Method::PUT, Method::GET, Method::DELETE] {
        let answer = client.send(method.clone(), "/", &[], "body".into()).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{method}");
    }
}

#[tokio::test]
async fn a_post_that_reached_the_origin_is_never_repeated() {
    let origin = Origin::start(|mut stream: TcpStream, _| async move {
        let mut body = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body).await.unwrap();
        None
    })
    .await;
    let edge = Edge::start(&config(&quick(origin.address)));
    let answer = Client::new(edge.http, "a").send(Method::POST, "/order", &[], "body".into()).await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(origin.count(), 1);
}
