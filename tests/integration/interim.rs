//! What the wire says of itself: `Date` as the origin server gave it, and interim responses, over every protocol.

use crate::support::edge::{config, config_tls, one_origin};
use crate::support::faulty::Origin;
use crate::support::tools::{self, certificate, curl};
use crate::support::{Client, Edge};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A time that no clock of the test shows, but that leaves `max-age=1000` fresh.
fn while_ago() -> String {
    httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(100))
}

/// An origin that says every byte itself; `bytes` gets the path.
async fn origin(bytes: impl Fn(&str) -> String + Send + Sync + 'static) -> Origin {
    let bytes = Arc::new(bytes);
    Origin::start(move |mut stream: TcpStream, head| {
        let bytes = Arc::clone(&bytes);
        async move {
            let answer = bytes(head.split(' ').nth(1).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
            (!answer.is_empty()).then_some(stream)
        }
    })
    .await
}

/// A certificate for a.test beside an edge with HTTPS.
fn edge_with_tls(origin: SocketAddr) -> (Edge, Arc<TempDir>) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    certificate(&dir.path().join("certs"), "a.test", &["a.test"]);
    (Edge::start_in(Arc::clone(&dir), &config_tls(&one_origin(origin)), &[]), dir)
}

fn curl_https(edge: &Edge, dir: &TempDir, path: &str, args: &[&str]) -> String {
    let port = edge.https.unwrap().port();
    let (url, resolve) = (format!("https://a.test:{port}{path}"), format!("a.test:{port}:127.0.0.1"));
    let ca = dir.path().join("certs/a.test.crt");
    curl(&[&["--cacert", ca.to_str().unwrap(), "--resolve", &resolve, &url][..], args].concat())
}

fn curl_http(edge: &Edge, path: &str, args: &[&str]) -> String {
    curl(&[&[&*format!("http://{}{path}", edge.http)][..], args].concat())
}

/// All values of a field in the final head that curl shows.
fn fields(answer: &str, name: &str) -> Vec<String> {
    let heads: Vec<&str> = answer.split("\r\n\r\n").filter(|part| part.starts_with("HTTP/")).collect();
    let lines = heads.last().unwrap().lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
}

/// Reads one head, interim or final.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn ask(edge: &Edge, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(edge.http).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// An answer over HTTP/2: its interim heads, its head, its body.
struct Seen {
    interim: Vec<(StatusCode, HeaderMap)>,
    head: http::response::Parts,
    body: Vec<u8>,
}

async fn h2_client(edge: &Edge) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(edge.http).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

async fn h2_get(client: &mut h2::client::SendRequest<Bytes>, path: &str, mut on_interim: impl FnMut()) -> Seen {
    let request = Request::get(format!("http://a.test{path}")).version(Version::HTTP_2).body(()).unwrap();
    let (mut response, _) = client.send_request(request, true).unwrap();
    let mut interim = Vec::new();
    let head = poll_fn(|cx| {
        // The future of the final head throws away interim ones that nobody asked for.
        while let std::task::Poll::Ready(Some(Ok(head))) = response.poll_informational(cx) {
            let (head, ()) = head.into_parts();
            interim.push((head.status, head.headers));
            on_interim();
        }
        std::pin::Pin::new(&mut response).poll(cx)
    });
    let (head, mut stream) = head.await.unwrap().into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    Seen { interim, head, body }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_date_of_the_origin_reaches_clients_of_every_protocol_on_misses_and_hits() {
    let date = while_ago();
    let sent = date.clone();
    let origin = origin(move |path| {
        let cache = if path.starts_with("/private") { "no-store" } else { "max-age=1000" };
        // A body that looks like a head with a date.
        let body = "HTTP/1.1 200 OK\r\nDate: body\r\n\r\nDate: body\r\n\r\n";
        format!(
            "HTTP/1.1 200 OK\r\nDATE: {sent}\r\nCache-Control: {cache}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    })
    .await;
    let (edge, dir) = edge_with_tls(origin.address);
    for path in ["/a", "/private"] {
        for (nth, way) in ["http1", "http2", "https1", "https2"].into_iter().enumerate() {
            for hit in [false, true] {
                let path = format!("{path}{nth}");
                let answer = match way {
                    "http1" => curl_http(&edge, &path, &["--http1.1"]),
                    "http2" => curl_http(&edge, &path, &["--http2-prior-knowledge"]),
                    "https1" => curl_https(&edge, &dir, &path, &["--http1.1"]),
                    _ => curl_https(&edge, &dir, &path, &["--http2"]),
                };
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                assert_eq!(fields(head, "date"), [date.as_str()], "{way} {path} {answer}");
                assert_eq!(body, "HTTP/1.1 200 OK\r\nDate: body\r\n\r\nDate: body\r\n\r\n", "{way}");
                let is_hit = fields(head, "cache-status")[0].contains("selvedge; hit");
                assert_eq!(is_hit, hit && path.starts_with("/a"), "{way} {path} {answer}");
            }
        }
    }
}

#[tokio::test]
async fn answers_without_a_body_have_the_date_of_the_origin_too() {
    let date = while_ago();
    let sent = date.clone();
    let origin = origin(move |path| match path {
        "/204" => format!("HTTP/1.1 204 No Content\r\nDate: {sent}\r\n\r\n"),
        _ => format!("HTTP/1.1 200 OK\r\nDate: {sent}\r\nETag: \"a\"\r\nCache-Control: max-age=1000\r\nContent-Length: 4\r\n\r\nbody"),
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut client = Client::new(edge.http, "a.test");
    for _ in 0..2 {
        assert_eq!(client.get("/204").await.field("date"), date);
    }
    client.get("/page").await;
    let head = client.send(Method::HEAD, "/page", &[], Bytes::new()).await.unwrap();
    assert_eq!((head.is_hit(), head.field("date")), (true, date.clone()));
    for (name, value, status) in
        [("if-none-match", "\"a\"", StatusCode::NOT_MODIFIED), ("range", "bytes=1-2", StatusCode::PARTIAL_CONTENT)]
    {
        let answer = client.get_with("/page", &[(name, value)]).await;
        assert_eq!((answer.status, answer.field("date")), (status, date.clone()));
    }
    // A request of the connection before does not lend its date to an answer of the edge's own.
    let refused = client.send(Method::TRACE, "/page", &[], Bytes::new()).await.unwrap();
    assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(is_recent(&refused.field("date")), "{}", refused.field("date"));
}

fn is_recent(date: &str) -> bool {
    let date = httpdate::parse_http_date(date).unwrap();
    date > SystemTime::now() - Duration::from_secs(60) && date <= SystemTime::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_date_is_made_where_the_origin_gave_none_and_stays_that_of_the_receipt() {
    let origin = origin(|path| {
        let date = match path {
            "/nonsense" => "Date: yesterday\r\n",
            "/two" => "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nDate: Sun, 06 Nov 1994 08:49:38 GMT\r\n",
            "/broken" => return String::new(),
            _ => "",
        };
        format!("HTTP/1.1 200 OK\r\n{date}Cache-Control: max-age=1000\r\nContent-Length: 2\r\n\r\nok")
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for path in ["/nonsense", "/two", "/broken"] {
            let answer = curl_http(&edge, path, &[version]);
            let dates = fields(&answer, "date");
            assert!(dates.len() == 1 && is_recent(&dates[0]), "{version} {path} {answer}");
        }
        let path = format!("/none{version}");
        let first = fields(&curl_http(&edge, &path, &[version]), "date");
        assert!(first.len() == 1 && is_recent(&first[0]), "{first:?}");
        let second_over = httpdate::parse_http_date(&first[0]).unwrap() + Duration::from_secs(1);
        tools::wait_until("the clock shows another second", Duration::from_secs(5), || SystemTime::now() > second_over);
        assert_eq!(fields(&curl_http(&edge, &path, &[version]), "date"), first, "{version}");
    }
}

/// 103 twice (one of them with what may not be passed on), and the final head when told so.
async fn hinting(together: bool, told: Arc<Notify>) -> Origin {
    Origin::start(move |mut stream: TcpStream, _| {
        let told = Arc::clone(&told);
        async move {
            let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Hint: 1\r\n\r\n\
                         HTTP/1.1 102 Processing\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 9\r\n\r\n";
            let last = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok";
            if together {
                stream.write_all(format!("{hints}{last}").as_bytes()).await.unwrap();
            } else {
                stream.write_all(hints.as_bytes()).await.unwrap();
                told.notified().await;
                stream.write_all(last.as_bytes()).await.unwrap();
            }
            Some(stream)
        }
    })
    .await
}

#[tokio::test]
async fn interim_responses_reach_http_1_clients_in_time_and_are_not_stored() {
    for together in [false, true] {
        let told = Arc::new(Notify::new());
        let origin = hinting(together, Arc::clone(&told)).await;
        let edge = Edge::start(&config(&one_origin(origin.address)));
        for request in
            ["GET /a HTTP/1.1\r\nHost: a\r\n\r\n", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"]
        {
            let mut stream = ask(&edge, request).await;
            let hints =
                "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nx-hint: 1\r\nvia: 1.1 selvedge\r\n\r\n";
            assert_eq!(head(&mut stream).await, hints);
            assert_eq!(head(&mut stream).await, "HTTP/1.1 102 Processing\r\nvia: 1.1 selvedge\r\n\r\n");
            told.notify_one();
            let last = head(&mut stream).await;
            assert!(
                last.starts_with("HTTP/1.1 200 OK\r\n") && !last.contains("x-hint") && !last.contains("link"),
                "{last}"
            );
            let mut body = [0; 2];
            stream.read_exact(&mut body).await.unwrap();
            if request.starts_with("GET") {
                // The hit has the final head alone, on the same connection.
                stream.write_all(request.as_bytes()).await.unwrap();
                let hit = head(&mut stream).await;
                assert!(hit.starts_with("HTTP/1.1 200 OK\r\n") && hit.contains("selvedge; hit"), "{hit}");
                assert!(!hit.to_lowercase().contains("link"), "{hit}");
            }
        }
        assert_eq!(origin.count(), 2);
    }
}

#[tokio::test]
async fn interim_responses_reach_http_2_clients_in_time_and_are_not_stored() {
    for together in [false, true] {
        let told = Arc::new(Notify::new());
        let origin = hinting(together, Arc::clone(&told)).await;
        let edge = Edge::start(&config(&one_origin(origin.address)));
        let mut client = h2_client(&edge).await;
        let seen = h2_get(&mut client, "/a", || told.notify_one()).await;
        let statuses: Vec<u16> = seen.interim.iter().map(|(status, _)| status.as_u16()).collect();
        assert_eq!(statuses, [103, 102], "together: {together}");
        assert_eq!(seen.interim[0].1["link"], "</a.css>; rel=preload");
        assert!(!seen.interim[0].1.contains_key("date"));
        assert!(!seen.interim[1].1.contains_key("x-hop") && !seen.interim[1].1.contains_key("content-length"));
        assert_eq!((seen.head.status, &seen.body[..]), (StatusCode::OK, &b"ok"[..]));
        assert!(!seen.head.headers.contains_key("link") && !seen.head.headers.contains_key("x-hint"));
        let hit = h2_get(&mut client, "/a", || ()).await;
        assert!(hit.interim.is_empty() && hit.head.headers["cache-status"].to_str().unwrap().contains("selvedge; hit"));
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_responses_pass_through_tls() {
    let origin = hinting(true, Arc::default()).await;
    let (edge, dir) = edge_with_tls(origin.address);
    for (path, version, status) in [("/1", "--http1.1", "HTTP/1.1"), ("/2", "--http2", "HTTP/2")] {
        let answer = curl_https(&edge, &dir, path, &[version]);
        let heads: Vec<&str> = answer.split("\r\n\r\n").collect();
        for (head, code) in heads.iter().zip(["103", "102", "200"]) {
            assert!(head.starts_with(&format!("{status} {code}")), "{answer}");
        }
        assert_eq!((heads.len(), heads[3]), (4, "ok"), "{answer}");
        let hit = curl_https(&edge, &dir, path, &[version]);
        assert!(hit.starts_with(&format!("{status} 200")), "{hit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_http_1_0_get_no_interim_response() {
    let origin = hinting(true, Arc::default()).await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let answer = tools::raw(edge.http, b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.") && answer[8..].starts_with(" 200 ") && answer.ends_with("\r\n\r\nok"),
        "{answer}"
    );
    assert!(!answer.contains("Early Hints"), "{answer}");
}

#[tokio::test]
async fn an_origin_that_breaks_after_an_interim_response_is_answered_for() {
    let origin = Origin::start(|mut stream: TcpStream, head: String| async move {
        let hint = "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n";
        if head.contains("If-None-Match") || head.contains("if-none-match") || head.contains("/broken") {
            stream.write_all(hint.as_bytes()).await.unwrap();
            return None;
        }
        let stale = "Age: 100\r\nCache-Control: max-age=1, stale-if-error=1000\r\nETag: \"a\"\r\n";
        let answer = format!("{hint}HTTP/1.1 200 OK\r\n{stale}Content-Length: 2\r\n\r\nok");
        stream.write_all(answer.as_bytes()).await.unwrap();
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut stream = ask(&edge, "GET /broken HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 103"));
    let failed = head(&mut stream).await;
    assert!(failed.starts_with("HTTP/1.1 502"), "{failed}");
    let mut client = h2_client(&edge).await;
    let failed = h2_get(&mut client, "/broken", || ()).await;
    assert_eq!((failed.interim.len(), failed.head.status), (1, StatusCode::BAD_GATEWAY));
    // What the client was told before does not stand in the way of a stale response.
    for path in ["/h1", "/h2"] {
        for _ in 0..2 {
            let (status, body) = match path {
                "/h1" => {
                    let answer = Client::new(edge.http, "a.test").get(path).await;
                    (answer.status, answer.body.to_vec())
                }
                _ => {
                    let seen = h2_get(&mut client, path, || ()).await;
                    (seen.head.status, seen.body)
                }
            };
            assert_eq!((status, &body[..]), (StatusCode::OK, &b"ok"[..]), "{path}");
        }
    }
}

#[tokio::test]
async fn a_flood_of_interim_responses_ends() {
    let origin = origin(|_| {
        let flood = "HTTP/1.1 102 Processing\r\n\r\n".repeat(1000);
        format!("{flood}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut client = h2_client(&edge).await;
    let seen = h2_get(&mut client, "/", || ()).await;
    assert_eq!((seen.head.status, seen.interim.len()), (StatusCode::OK, 100));
}

/// Asks for the body by 100, then answers with its length.
async fn continuing() -> Origin {
    Origin::start(|mut stream: TcpStream, head: String| async move {
        let field = |name: &str| head.lines().find_map(|l| l.to_lowercase().strip_prefix(name).map(str::to_owned));
        assert_eq!(field("expect: ").as_deref(), Some("100-continue"), "{head}");
        let length: usize = field("content-length: ").unwrap().parse().unwrap();
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}", length.to_string().len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        Some(stream)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_sent_when_the_origin_says_continue() {
    let origin = continuing().await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut stream =
        ask(&edge, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK"));

    let mut client = h2_client(&edge).await;
    let request = Request::post("http://a.test/").header("expect", "100-continue").header("content-length", "2");
    let (mut response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let first = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!(first.status(), StatusCode::CONTINUE);
    body.send_data(Bytes::from_static(b"hi"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_carries_bodies_larger_than_its_windows_both_ways() {
    let origin = Origin::start(|mut stream: TcpStream, head: String| async move {
        let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
            .await
            .unwrap();
        stream.write_all(&body).await.unwrap();
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body");
    let body: String = (0..200_000).map(|n| format!("{n:08}\n")).collect();
    std::fs::write(&file, &body).unwrap();
    let data = format!("@{}", file.display());
    let answer = curl_http(&edge, "/", &["--http2-prior-knowledge", "--data-binary", &data]);
    assert!(answer.starts_with("HTTP/2 200"), "{}", &answer[..200]);
    assert!(answer.ends_with(&format!("\r\n\r\n{body}")));
}

#[tokio::test]
async fn a_stale_response_is_refreshed_in_the_background_for_http_2_clients() {
    let origin = origin(|_| {
        let stale = "Age: 100\r\nCache-Control: max-age=1, stale-while-revalidate=1000\r\n";
        format!("HTTP/1.1 200 OK\r\n{stale}Content-Length: 2\r\n\r\nok")
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut client = h2_client(&edge).await;
    h2_get(&mut client, "/a", || ()).await;
    assert_eq!(h2_get(&mut client, "/a", || ()).await.head.status, StatusCode::OK);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while origin.count() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "no background refresh");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn http_2_requests_without_one_authority_are_refused_and_the_connection_lives() {
    let origin = origin(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()).await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut client = h2_client(&edge).await;
    let request = Request::get("http://a.test/").header("host", "b.test").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::BAD_REQUEST);
    let request = Request::get("http://a.test/").header("content-length", "1, 2").body(()).unwrap();
    let (response, _) = client.send_request(request, false).unwrap();
    assert_eq!(response.await.unwrap_err().reason(), Some(h2::Reason::PROTOCOL_ERROR));
    assert_eq!(h2_get(&mut client, "/", || ()).await.head.status, StatusCode::OK);
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_shutdown_http_2_streams_are_finished_and_their_connections_closed() {
    let told = Arc::new(Notify::new());
    let origin = hinting(false, Arc::clone(&told)).await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut client = h2_client(&edge).await;
    let arrived = Arc::new(Notify::new());
    let signal = Arc::clone(&arrived);
    let get = tokio::spawn(async move { h2_get(&mut client, "/a", || signal.notify_one()).await });
    arrived.notified().await;
    edge.signal("TERM");
    edge.wait_for_log(0, "draining");
    told.notify_one();
    let seen = get.await.unwrap();
    assert_eq!((seen.head.status, &seen.body[..]), (StatusCode::OK, &b"ok"[..]));
    edge.wait_for_log(0, "drained");
}
