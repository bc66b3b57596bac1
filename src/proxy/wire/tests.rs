use super::*;
use http::HeaderValue;
use std::io::IoSlice;
use std::pin::Pin;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

const DATE_SENT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A wire and the client's end, which takes `capacity` bytes at a time.
fn wire(capacity: usize) -> (ClientWire, DuplexStream) {
    let (client, server) = tokio::io::duplex(capacity);
    (ClientWire::new(Box::new(server)), client)
}

async fn received(mut client: DuplexStream) -> String {
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    all
}

fn dated() -> Option<HeaderValue> {
    Some(HeaderValue::from_static(DATE_SENT))
}

#[tokio::test]
async fn a_slow_client_gets_heads_and_bodies_in_order() {
    for capacity in [1, 7, 64, 4096] {
        let (mut wire, client) = wire(capacity);
        let reading = tokio::spawn(received(client));
        let body = "Date: body\r\n\r\n".repeat(50);
        for _ in 0..2 {
            wire.set_date(dated());
            wire.send_interim(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n").await.unwrap();
            wire.write_all(b"HTTP/1.1 200 OK\r\nDate: now\r\nA: b\r\n\r\n").await.unwrap();
            wire.write_all(body.as_bytes()).await.unwrap();
            wire.flush().await.unwrap();
        }
        wire.write_all(b"HTTP/1.1 500 Error\r\nDate: now\r\n\r\n").await.unwrap();
        pingora::protocols::Shutdown::shutdown(&mut wire).await;
        drop(wire);
        let one = format!(
            "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nDate: {DATE_SENT}\r\nA: b\r\n\r\n{body}"
        );
        let expected = format!("{one}{one}HTTP/1.1 500 Error\r\nDate: now\r\n\r\n");
        assert_eq!(reading.await.unwrap(), expected, "{capacity} bytes at a time");
    }
}

#[tokio::test]
async fn a_head_and_its_body_in_one_vectored_write_are_told_apart() {
    let (mut wire, client) = wire(4096);
    wire.set_date(dated());
    let parts = [IoSlice::new(b""), IoSlice::new(b"HTTP/1.1 200 OK\r\nDate: now\r\n\r\nDate: "), IoSlice::new(b"x")];
    let first = std::future::poll_fn(|cx| Pin::new(&mut wire).poll_write_vectored(cx, &parts)).await.unwrap();
    assert_eq!(first, parts[1].len() - "Date: ".len());
    wire.write_all(b"Date: x").await.unwrap();
    wire.flush().await.unwrap();
    drop(wire);
    assert_eq!(received(client).await, format!("HTTP/1.1 200 OK\r\nDate: {DATE_SENT}\r\n\r\nDate: x"));
}

#[tokio::test]
async fn what_was_begun_is_not_lost_when_the_date_is_taken_back_or_the_connection_closes() {
    let (mut wire, client) = wire(4096);
    wire.set_date(dated());
    wire.write_all(b"HTTP/1.1 200 OK\r\nDa").await.unwrap();
    wire.set_date(None);
    wire.write_all(b"te: now\r\n\r\n").await.unwrap();
    wire.set_date(dated());
    wire.write_all(b"HTTP/1.1 2").await.unwrap();
    AsyncWriteExt::shutdown(&mut wire).await.unwrap();
    drop(wire);
    assert_eq!(received(client).await, "HTTP/1.1 200 OK\r\nDate: now\r\n\r\nHTTP/1.1 2");
}

#[tokio::test]
async fn a_client_that_is_gone_is_an_error() {
    let (mut wire, client) = wire(8);
    drop(client);
    wire.set_date(dated());
    assert!(wire.write_all(b"HTTP/1.1 200 OK\r\nDate: now\r\n\r\n").await.is_err());
    assert!(wire.send_interim(b"HTTP/1.1 103 Early Hints\r\n\r\n").await.is_err());
}

#[test]
fn an_interim_head_goes_on_without_framing_folds_and_hop_by_hop_fields() {
    let mut head = ResponseHeader::build(103, None).unwrap();
    head.set_version(Version::HTTP_11);
    for (name, value) in [
        ("link", "</a.css>; rel=preload"),
        ("link", "</b.js>; rel=preload"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "timeout=5"),
    ] {
        head.append_header(name, value).unwrap();
    }
    let sent = interim_head(&head);
    assert!(sent.extensions.get::<Interim>().is_some());
    let links = "link: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n";
    assert_eq!(
        String::from_utf8(to_h1(&sent)).unwrap(),
        format!("HTTP/1.1 103 Early Hints\r\n{links}via: 1.1 selvedge\r\n\r\n")
    );
}
