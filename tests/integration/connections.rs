//! The life of HTTP/1.1 connections, whose requests are answered partly before the proxy core and partly by it.

use crate::support::Edge;
use crate::support::edge::{config, config_tls, one_origin};
use crate::support::oracle::{Oracle, Resource, Tagged, Varies};
use crate::support::tools::{certificate, curl, wait_until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn resource(size: usize) -> Resource {
    Resource {
        size,
        status: 200,
        tagged: Tagged::Strong,
        dated: false,
        chunked: false,
        varies: Varies::Never,
        cache_control: "max-age=3600",
    }
}

/// An edge with more keys in `[listen]`, before an origin with resources of these sizes at `/SIZE`, all of them in memory.
fn edge(oracle: &Oracle, listen: &str, sizes: &[usize]) -> Edge {
    let text = config(&one_origin(oracle.address)).replace("[listen]\n", &format!("[listen]\n{listen}\n"));
    let edge = Edge::start(&text);
    for size in sizes {
        oracle.hold(&format!("/{size}"), resource(*size));
        wait_until("it is in memory", Duration::from_secs(10), || {
            let mut stream = connect(edge.http);
            stream.write_all(request(&format!("/{size}"), "Connection: close\r\n").as_bytes()).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            String::from_utf8_lossy(&all).contains("detail=memory")
        });
    }
    edge
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn request(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

fn answered(edge: &Edge) -> f64 {
    edge.metric("selvedge_hot_path_total{result=\"answered\"}")
}

/// Reads until the peer closes.
fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads one answer with `Content-Length`.
fn one(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

#[test]
fn requests_sent_together_are_answered_in_order_whoever_answers_them() {
    let runtime = runtime();
    let oracle = runtime.block_on(Oracle::start());
    let edge = edge(&oracle, "", &[10, 20]);
    oracle.hold("/miss", resource(30));
    let before = answered(&edge);
    let mut stream = connect(edge.http);
    let post = "PUT /10 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 26\r\n\r\nGET /20 HTTP/1.1\r\nHost: a\r\n";
    let chunked = "PUT /20 HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n";
    let all = [
        request("/10", ""),
        request("/miss", ""),
        request("/20", ""),
        post.to_owned(),
        request("/20", ""),
        request("/20", "Cache-Control: no-store\r\n"),
        request("/20", ""),
        chunked.to_owned(),
        request("/20", "Range: bytes=0-4\r\nConnection: close\r\n"),
    ];
    stream.write_all(all.concat().as_bytes()).unwrap();
    let text = rest(&mut stream);
    let statuses: Vec<&str> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "200", "200", "204", "200", "200", "200", "204", "206"], "{text}");
    assert_eq!(answered(&edge) - before, 4.0, "/10 and three times /20");
    assert!(text.matches("Connection: keep-alive").count() == 8 && text.matches("Connection: close").count() == 1);
}

#[test]
fn over_tls_hits_take_the_short_way_too() {
    let runtime = runtime();
    let oracle = runtime.block_on(Oracle::start());
    oracle.hold("/100000", resource(100_000));
    let dir = Arc::new(tempfile::tempdir().unwrap());
    certificate(&dir.path().join("certs"), "a.example", &["a.example"]);
    let edge = Edge::start_in(Arc::clone(&dir), &config_tls(&one_origin(oracle.address)), &[]);
    let port = edge.https.unwrap().port();
    let (url, resolve) = (format!("https://a.example:{port}/100000"), format!("a.example:{port}:127.0.0.1"));
    let get = |range: &str| curl(&["-k", "--http1.1", "--resolve", &resolve, "-r", range, "-o", "-", &url, &url]);
    wait_until("it is in memory", Duration::from_secs(10), || get("0-").matches("detail=memory").count() == 2);
    let (before, lines) = (answered(&edge), edge.log_lines());
    let text = get("99990-");
    assert!(text.matches("206 Partial Content").count() == 2 && text.matches("bytes 99990-99999/100000").count() == 2);
    assert_eq!(answered(&edge) - before, 2.0);
    // Events of the requests before may be written after their answers.
    let event = edge.wait_for_log(lines, "\"response_bytes\":10,");
    assert!(event.contains("\"tls\":\"TLSv1.3\"") && event.contains("\"scheme\":\"https\""), "{event}");
    assert!(event.contains(&format!("\"host\":\"a.example:{port}\"")) && event.contains("\"status\":206"), "{event}");
}

#[test]
fn a_head_cut_anywhere_is_put_together() {
    let runtime = runtime();
    let oracle = runtime.block_on(Oracle::start());
    let edge = edge(&oracle, "", &[10]);
    let mut stream = connect(edge.http);
    stream.set_nodelay(true).unwrap();
    for request in
        [request("/10", ""), request("/10", "Upgrade-Insecure-Requests: 1\r\n").replace("/10", "http://a.example/10")]
    {
        for byte in request.as_bytes() {
            stream.write_all(&[*byte]).unwrap();
        }
        let (head, body) = one(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200") && body.len() == 10, "{head}");
    }
    // A request begins with its last bytes of the one before.
    let two = request("/10", "").repeat(2);
    let (first, second) = two.split_at(two.len() / 2 + 7);
    stream.write_all(first.as_bytes()).unwrap();
    assert!(one(&mut stream).0.starts_with("HTTP/1.1 200"));
    stream.write_all(second.as_bytes()).unwrap();
    assert!(one(&mut stream).0.starts_with("HTTP/1.1 200"));
}

#[test]
fn a_client_that_takes_too_long_is_told_and_closed() {
    let runtime = runtime();
    let oracle = runtime.block_on(Oracle::start());
    let edge = edge(&oracle, "head_timeout = \"300ms\"\nkeepalive_timeout = \"300ms\"", &[10]);
    let mut slow = connect(edge.http);
    slow.write_all(b"GET /10 HTTP/1.1\r\nHost: a").unwrap();
    let told = rest(&mut slow);
    assert!(told.starts_with("HTTP/1.1 408 ") && told.contains("Connection: close"), "{told}");
    // Each byte comes in good time, the whole does not.
    let mut drip = connect(edge.http);
    let mut writer = drip.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        let _ = writer.write_all(b"GET /10 HTTP/1.1\r\n");
        while writer.write_all(b"A: b\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let told = rest(&mut drip);
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 408 "), "{told}");
    dripping.join().unwrap();
    // Between requests it is only closed, after those of either kind.
    for fields in ["", "Cache-Control: no-store\r\n"] {
        let mut idle = connect(edge.http);
        idle.write_all(request("/10", fields).as_bytes()).unwrap();
        assert!(one(&mut idle).0.contains("Connection: keep-alive"));
        assert_eq!(rest(&mut idle), "");
    }
}

#[test]
fn a_connection_answers_as_many_requests_as_it_may() {
    let runtime = runtime();
    let oracle = runtime.block_on(Oracle::start());
    let edge = edge(&oracle, "keepalive_requests = 3", &[10]);
    for fields in [
        ["", "", ""],
        ["Cache-Control: no-store\r\n", "", "Cache-Control: no-store\r\n"],
        ["", "Pragma: no-cache\r\n", ""],
    ] {
        let mut stream = connect(edge.http);
        for (at, fields) in fields.iter().enumerate() {
            stream.write_all(request("/10", fields).as_bytes()).unwrap();
            let (head, _) = one(&mut stream);
            assert_eq!(head.contains("Connection: close"), at == 2, "{at}: {head}");
        }
        assert_eq!(rest(&mut stream), "");
    }
}

#[test]
fn a_client_that_reads_slowly_gets_all_and_one_that_leaves_is_logged() {
    let runtime = runtime();
    let oracle = runtime.block_on(Oracle::start());
    let edge = edge(&oracle, "", &[900_000]);
    let before = answered(&edge);
    let mut stream = connect(edge.http);
    stream.write_all(request("/900000", "").as_bytes()).unwrap();
    let (_, expected) = one(&mut stream);
    assert_eq!(expected.len(), 900_000);
    let asks = 8;
    stream.write_all(request("/900000", "").repeat(asks).as_bytes()).unwrap();
    // Far more than the system buffers is under way before anything is read.
    wait_until("the first answers are under way", Duration::from_secs(10), || answered(&edge) > before);
    for _ in 0..asks {
        let (_, body) = one(&mut stream);
        assert!(body == expected);
    }
    let lines = edge.log_lines();
    let mut leaving = connect(edge.http);
    leaving.write_all(request("/900000", "Referer: leaves\r\n").repeat(asks).as_bytes()).unwrap();
    leaving.read_exact(&mut [0; 100]).unwrap();
    drop(leaving);
    let event = edge.wait_for_log(lines, "client_gone");
    assert!(event.contains("\"status\":200") && event.contains("\"tier\":\"memory\""), "{event}");
}

#[test]
fn the_last_answer_before_the_end_says_so() {
    let runtime = runtime();
    let oracle = runtime.block_on(Oracle::start());
    let edge = edge(&oracle, "", &[10, 900_000]);
    let mut idle = connect(edge.http);
    idle.write_all(request("/10", "").as_bytes()).unwrap();
    one(&mut idle);
    let mut begun = connect(edge.http);
    let whole = request("/10", "");
    begun.write_all(&whole.as_bytes()[..20]).unwrap();
    let mut reading = connect(edge.http);
    reading.write_all(request("/900000", "").repeat(6).as_bytes()).unwrap();
    let open = "selvedge_connections_open{listener=\"http\"}";
    wait_until("all are open", Duration::from_secs(10), || edge.metric(open) >= 3.0);
    // What has been sent of a head is read before the signal comes.
    let before = answered(&edge);
    wait_until("the reader is being answered", Duration::from_secs(10), || answered(&edge) >= before);
    edge.signal("TERM");
    assert_eq!(rest(&mut idle), "");
    begun.write_all(&whole.as_bytes()[20..]).unwrap();
    let text = rest(&mut begun);
    assert!(text.is_empty() || text.contains("Connection: close"), "{text}");
    let text = rest(&mut reading);
    let last = text.rfind("HTTP/1.1 200").unwrap();
    assert!(text[last..].contains("Connection: close"), "{}", &text[last..last + 300]);
    assert!(edge.terminate().success());
}
