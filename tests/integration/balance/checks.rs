//! Active health checks: what is asked, and what follows from the answers.

use super::{Backend, Mode, PATIENCE, count, origin, reload, texts};
use crate::support::edge::Edge;
use crate::support::faulty::Origin;
use crate::support::tools::wait_until;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

const OFTEN: &str = "interval = \"50ms\"\nrise = 2\nfall = 2\njitter = 0\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_left_out_before_requests_meet_it() {
    let (good, bad) = (Backend::start("good").await, Backend::start("bad").await);
    let rest = format!(
        "[origins.app.http.health]\ncheck = \"http\"\npath = \"/health?deep\"\nhost = \"checked.example\"\n\
         timeout = \"200ms\"\nstatus = \"200\"\n{OFTEN}"
    );
    let edge = Edge::start(&origin(&[good.origin.address, bad.origin.address], &rest));
    let both = texts(&edge, 10).await;
    assert_eq!((count(&both, "good"), count(&both, "bad")), (5, 5));
    for mode in [Mode::Hangs, Mode::Unavailable, Mode::Breaks] {
        let from = edge.log_lines();
        bad.set(mode);
        let line = edge.wait_for_log(from, "server fails its checks");
        assert!(line.contains(&bad.origin.address.to_string()), "{line}");
        assert_eq!(count(&texts(&edge, 10).await, "good"), 10);
        let from = edge.log_lines();
        bad.set(Mode::Answers);
        edge.wait_for_log(from, "server passes its checks");
        assert_eq!(count(&texts(&edge, 10).await, "bad"), 5);
    }
    let server = bad.origin.address;
    let checks = |result: &str| {
        edge.metric(&format!("selvedge_origin_checks_total{{origin=\"app\",result=\"{result}\",server=\"{server}\"}}"))
    };
    assert!(checks("passed") >= 2.0 && checks("failed") >= 6.0);
}

/// An origin server that keeps the heads of checks, and answers `text`.
async fn telling(text: &'static str) -> (Origin, Arc<std::sync::Mutex<Vec<String>>>) {
    let heads = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    let origin = Origin::start(move |mut stream, head| {
        if head.contains("health check") {
            kept.lock().unwrap().push(head);
        }
        async move {
            let length = text.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {length}\r\n\r\n{text}");
            stream.write_all(answer.as_bytes()).await.ok()?;
            Some(stream)
        }
    })
    .await;
    (origin, heads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_asks_what_is_configured_and_looks_into_the_answer() {
    let ((well, heads), (ill, _)) = (telling("all is well").await, telling("all is ill").await);
    let rest = format!(
        "host = \"app.example\"\n[origins.app.http.health]\ncheck = \"http\"\npath = \"/health?deep\"\nbody = \"well\"\n{OFTEN}"
    );
    let edge = Edge::start(&origin(&[well.address, ill.address], &rest));
    let line = edge.wait_for_log(0, "server fails its checks");
    assert!(line.contains(&ill.address.to_string()) && line.contains("lacks the expected text"), "{line}");
    assert_eq!(count(&texts(&edge, 6).await, "all is well"), 6);
    let head = heads.lock().unwrap()[0].to_lowercase();
    assert!(head.starts_with("get /health?deep http/1.1\r\n") && head.contains("host: app.example\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_end_with_their_origin_and_go_on_over_other_reloads() {
    let (server, heads) = telling("one").await;
    let checked = format!("[origins.app.http.health]\ncheck = \"http\"\n{OFTEN}");
    let (with, without) = (origin(&[server.address], &checked), origin(&[server.address], ""));
    let edge = Edge::start(&with);
    let asked = || heads.lock().unwrap().len();
    wait_until("it is checked", PATIENCE, || asked() > 1);
    reload(&edge, &with.replace("path = \"/\"", "path = \"/\"\nmax_request_body = \"1 MiB\""));
    let before = asked();
    wait_until("it is checked on", PATIENCE, || asked() > before + 1);
    reload(&edge, &without);
    // A check under way may still have been on the wire. After it requests come and go, and no check among them.
    texts(&edge, 1).await;
    let after = asked();
    texts(&edge, 500).await;
    assert!(asked() <= after + 1, "{} and then {}", after, asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tcp_check_finds_who_listens() {
    let good = Backend::start("good").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let rest = format!("[origins.app.http.health]\ncheck = \"tcp\"\n{OFTEN}");
    let edge = Edge::start(&origin(&[good.origin.address, gone], &rest));
    let line = edge.wait_for_log(0, "server fails its checks");
    assert!(line.contains(&gone.to_string()), "{line}");
    assert_eq!(count(&texts(&edge, 4).await, "good"), 4);
}

/// A gRPC server of the health service alone, over h2 without TLS. `status` is what it answers; 99 makes the call fail.
async fn grpc(status: Arc<AtomicU64>, asked: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (status, asked) = (Arc::clone(&status), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.ok()?;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let (parts, mut body) = request.into_parts();
                    let status = status.load(Ordering::SeqCst);
                    let asked = Arc::clone(&asked);
                    tokio::spawn(async move {
                        let mut message = Vec::new();
                        while let Some(Ok(data)) = body.data().await {
                            message.extend_from_slice(&data);
                        }
                        assert_eq!(parts.uri.path(), "/grpc.health.v1.Health/Check");
                        assert_eq!(parts.headers["content-type"], "application/grpc");
                        assert_eq!(parts.headers["te"], "trailers");
                        assert_eq!(message, b"\0\0\0\0\x06\x0a\x04shop");
                        asked.fetch_add(1, Ordering::SeqCst);
                        let head = Response::builder().header("content-type", "application/grpc");
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", HeaderValue::from_static(if status == 99 { "5" } else { "0" }));
                        let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        if status != 99 {
                            stream.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status as u8]), false).unwrap();
                        }
                        stream.send_trailers(trailers).unwrap();
                    });
                }
                Some(())
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_check_asks_the_health_service() {
    let (status, asked) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicUsize::new(0)));
    let address = grpc(Arc::clone(&status), Arc::clone(&asked)).await;
    let rest = format!("version = \"2\"\n[origins.app.http.health]\ncheck = \"grpc\"\nservice = \"shop\"\n{OFTEN}");
    let edge = Edge::start(&origin(&[address], &rest));
    let up = format!("selvedge_origin_server_up{{origin=\"app\",server=\"{address}\"}}");
    wait_until("it is checked", PATIENCE, || asked.load(Ordering::SeqCst) > 2);
    assert_eq!(edge.metric(&up), 1.0, "{}", edge.log());
    for (ill, why) in [(2, "not serving: status 2"), (99, "not serving: grpc-status 5")] {
        let from = edge.log_lines();
        status.store(ill, Ordering::SeqCst);
        let line = edge.wait_for_log(from, "server fails its checks");
        assert!(line.contains(why), "{line}");
        assert_eq!(edge.metric(&up), 0.0);
        let from = edge.log_lines();
        status.store(1, Ordering::SeqCst);
        edge.wait_for_log(from, "server passes its checks");
        assert_eq!(edge.metric(&up), 1.0);
    }
}
