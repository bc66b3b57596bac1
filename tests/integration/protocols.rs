//! HTTP/2, gRPC, WebSocket, Expect.

use crate::support::edge::{config, config_tls, one_origin};
use crate::support::faulty::Origin;
use crate::support::nginx::Nginx;
use crate::support::tools::{certificate, curl, wait_until};
use crate::support::{Client, Edge};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_websocket_is_passed_through() {
    let origin = Origin::start(|mut stream: TcpStream, head| async move {
        assert!(head.to_lowercase().contains("upgrade: websocket"), "{head}");
        let accept = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(accept.as_bytes()).await.unwrap();
        let mut buffer = [0; 64];
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            if read == 0 {
                return None;
            }
            stream.write_all(&buffer[..read]).await.unwrap();
        }
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut stream = TcpStream::connect(edge.http).await.unwrap();
    let request = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    for message in ["ping", "a longer message"] {
        stream.write_all(message.as_bytes()).await.unwrap();
        let mut echo = vec![0; message.len()];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(echo, message.as_bytes());
    }
}

/// An h2c server that answers like a gRPC server: a message and a status in the trailers.
async fn grpc_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let te = request.headers().get("te").cloned();
                        let mut body = request.into_body();
                        let mut message = Vec::new();
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                            message.extend_from_slice(&data);
                        }
                        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                        let mut stream = respond.send_response(head, false).unwrap();
                        stream.send_data(Bytes::from(message), false).unwrap();
                        let mut trailers = HeaderMap::new();
                        let status = if te.is_some_and(|v| v == "trailers") { "0" } else { "13" };
                        trailers.insert("grpc-status", status.parse().unwrap());
                        stream.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn grpc_calls_keep_their_trailers() {
    let server = grpc_server().await;
    let text = one_origin(server).replace("servers =", "version = \"2\"\nservers =");
    let edge = Edge::start(&config(&text));
    let stream = TcpStream::connect(edge.http).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{}/echo.Service/Call", edge.http))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    send.send_data(Bytes::from_static(b"\0\0\0\0\x05hello"), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/grpc".parse().unwrap())
    );
    let mut body = response.into_body();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        message.extend_from_slice(&data.unwrap());
    }
    assert_eq!(message, b"\0\0\0\0\x05hello");
    let trailers = body.trailers().await.unwrap().expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn http2_over_tls_is_served_from_cache() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=60; }");
    nginx.write("x.css", b"body{}");
    let dir = Arc::new(tempfile::tempdir().unwrap());
    certificate(&dir.path().join("certs"), "a.example", &["a.example"]);
    let edge = Edge::start_in(Arc::clone(&dir), &config_tls(&one_origin(nginx.address)), &[]);
    let port = edge.https.unwrap().port();
    let url = format!("https://a.example:{port}/x.css");
    let resolve = format!("a.example:{port}:127.0.0.1");
    let ca = dir.path().join("certs/a.example.crt");
    let args = ["--http2", "--cacert", ca.to_str().unwrap(), "--resolve", &resolve, &url];
    let first = curl(&args);
    assert!(
        first.starts_with("HTTP/2 200") && first.contains("cache-status: selvedge; fwd=uri-miss; stored\r\n"),
        "{first}"
    );
    let second = curl(&args);
    assert!(second.contains("cache-status: selvedge; hit"), "{second}");
    assert!(second.ends_with("body{}"));
    // Plain HTTP is another target URI, so another stored response.
    let plain = Client::new(edge.http, "a.example").get("/x.css").await;
    assert!(!plain.is_hit());
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_its_answer() {
    let nginx =
        Nginx::start("location / { proxy_pass http://unix:/nowhere; } location /ok { return 200 $content_length; }");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let body = "x".repeat(5000);
    let url = format!("http://{}/ok", edge.http);
    let answer = curl(&["-H", "Expect: 100-continue", "--expect100-timeout", "20", "--data-binary", &body, &url]);
    assert!(answer.contains("HTTP/1.1 200") && answer.ends_with("5000"), "{answer}");
}

/// Every answer to HEAD ends with its head: from the edge itself, and from an origin whose answer is not stored.
#[tokio::test]
async fn head_over_http2_has_no_content() {
    let nginx = Nginx::start(
        "location /nostore { add_header Cache-Control no-store; return 200 content; }\n\
         location /missing { add_header Cache-Control no-store; return 404 content; }",
    );
    let down = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = one_origin(nginx.address)
        + &format!(
            "[[sites.routes]]\npath = \"/down\"\norigin = \"down\"\n[origins.down.http]\nservers = [\"{down}\"]\n"
        );
    let edge = Edge::start(&config(&text));
    for (path, status) in [("nostore", 200), ("missing", 404), ("down", 502)] {
        let answer = curl(&["--http2-prior-knowledge", "--head", &format!("http://{}/{path}", edge.http)]);
        assert!(answer.starts_with(&format!("HTTP/2 {status}")), "{path}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_requests_end_is_read() {
    let nginx = Nginx::start("location / { return 200 ok; }");
    let text = one_origin(nginx.address).replace("origin = \"app\"", "origin = \"app\"\nmax_request_body = \"1 KiB\"");
    let edge = Edge::start(&config(&text));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body");
    std::fs::write(&file, vec![b'x'; 3 << 20]).unwrap();
    let (url, data) = (format!("http://{}/", edge.http), format!("@{}", file.display()));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for _ in 0..5 {
            let answer = curl(&[version, "-H", "Expect:", "--data-binary", &data, &url]);
            assert!(answer.contains(" 413"), "{version}: {answer}");
        }
    }
}

/// One request by HTTP/2 without TLS, answered with its head and whole content.
async fn h2_get(edge: &Edge, request: Request<()>) -> (HeaderMap, String) {
    let stream = TcpStream::connect(edge.http).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let (response, _) = client.send_request(request, true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        content.extend_from_slice(&data.unwrap());
    }
    (head.headers, String::from_utf8(content).unwrap())
}

#[tokio::test]
async fn a_304_by_http2_has_no_content_though_what_is_not_stored_came_whole() {
    let origin = Origin::start(|mut stream: TcpStream, _| async move {
        let answer = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nETag: \"a\"\r\nContent-Length: 4\r\n\r\nbody";
        stream.write_all(answer.as_bytes()).await.unwrap();
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    for (tag, content) in [("\"a\"", ""), ("\"b\"", "body")] {
        let request = Request::get(format!("http://{}/", edge.http)).header("if-none-match", tag).body(()).unwrap();
        let (head, body) = h2_get(&edge, request).await;
        assert_eq!(body, content, "{tag} {head:?}");
    }
}

#[tokio::test]
async fn cookie_crumbs_are_one_field_to_an_http1_origin() {
    let origin = Origin::start(|mut stream: TcpStream, head| async move {
        let cookies: Vec<&str> = head.lines().filter(|l| l.to_lowercase().starts_with("cookie:")).collect();
        let body = cookies.join("|");
        let answer =
            format!("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let request = Request::get(format!("http://{}/", edge.http)).header("cookie", "a=1").header("cookie", "b=2");
    let (_, seen) = h2_get(&edge, request.body(()).unwrap()).await;
    assert_eq!(seen.to_lowercase(), "cookie: a=1; b=2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_response_to_http2_is_validated_in_the_background() {
    let origin = Origin::start(|mut stream: TcpStream, head| async move {
        let host = head.lines().find(|l| l.to_lowercase().starts_with("host:")).unwrap().to_lowercase();
        let fresh = "Cache-Control: max-age=0, stale-while-revalidate=60\r\nETag: \"1\"";
        let answer = format!("HTTP/1.1 200 OK\r\n{fresh}\r\nContent-Length: {}\r\n\r\n{host}", host.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let request = |fields: &[(&str, &str)]| {
        let request = Request::get("http://site.example:81/page").body(()).unwrap();
        fields.iter().fold(request, |mut request, (name, value)| {
            request
                .headers_mut()
                .insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            request
        })
    };
    h2_get(&edge, request(&[])).await;
    let (head, body) = h2_get(&edge, request(&[])).await;
    assert!(head["cache-status"].to_str().unwrap().starts_with("selvedge; hit; ttl=-"), "{head:?}");
    assert_eq!(body, "host: site.example:81");
    wait_until("the origin was asked in the background", Duration::from_secs(10), || origin.count() == 2);
    // Who wants the present response gets it, stale-while-revalidate or not.
    let (head, _) = h2_get(&edge, request(&[("cache-control", "no-cache")])).await;
    assert!(head["cache-status"].to_str().unwrap().contains("fwd="), "{head:?}");
    wait_until("the requests are counted", Duration::from_secs(10), || {
        let count = |cache: &str| {
            edge.metric(&format!(
                r#"selvedge_requests_total{{cache="{cache}",method="GET",site="*",status_class="2xx"}}"#
            ))
        };
        (count("stale"), count("miss") + count("revalidated")) == (1.0, 2.0)
    });
    assert!(!edge.log().contains("panicked"), "{}", edge.log());
}

#[tokio::test]
async fn what_a_client_resets_at_once_is_not_asked_of_the_origin() {
    let origin = Origin::start(|mut stream: TcpStream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let stream = TcpStream::connect(edge.http).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let mut client = client.ready().await.unwrap();
    // Nothing is written before the connection is polled: each request and its reset arrive together.
    for n in 0..10 {
        let request = Request::get(format!("http://{}/{n}", edge.http)).body(()).unwrap();
        let (response, mut send) = client.send_request(request, true).unwrap();
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
    }
    tokio::spawn(connection);
    let request = Request::get(format!("http://{}/last", edge.http)).body(()).unwrap();
    let mut client = client.ready().await.unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    assert_eq!(origin.count(), 1, "only the last");
}
