//! Bodies far larger than memory, both ways.

use crate::support::Edge;
use crate::support::edge::{config, one_origin};
use crate::support::faulty::Origin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SIZE: u64 = 10 << 30;
const LIMIT: u64 = 200 << 20;

/// Sends `SIZE` bytes for a GET, swallows a POST and answers how much it was.
async fn huge() -> Origin {
    Origin::start(|mut stream: TcpStream, head| async move {
        let piece = vec![b'z'; 1 << 20];
        if head.starts_with("POST") {
            let (mut left, mut buffer) = (SIZE, vec![0; 1 << 20]);
            while left > 0 {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(read) => left -= read as u64,
                }
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await.ok()?;
            return Some(stream);
        }
        let chunked = head.contains("/chunked");
        let framing = if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {SIZE}") };
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        for _ in 0..SIZE / (1 << 20) {
            if chunked {
                stream.write_all(b"100000\r\n").await.ok()?;
            }
            stream.write_all(&piece).await.ok()?;
            if chunked {
                stream.write_all(b"\r\n").await.ok()?;
            }
        }
        if chunked {
            stream.write_all(b"0\r\n\r\n").await.ok()?;
        }
        Some(stream)
    })
    .await
}

async fn download(edge: &Edge, path: &str) -> u64 {
    let mut stream = TcpStream::connect(edge.http).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match tokio::time::timeout(Duration::from_secs(30), stream.read(&mut buffer)).await.unwrap().unwrap() {
            0 => return total,
            read => total += read as u64,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_gibibytes_pass_both_ways_in_constant_memory() {
    let origin = huge().await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let received = download(&edge, "/known").await;
    assert!(received > SIZE, "{received}");
    assert!(edge.peak_rss() < LIMIT, "peak of {} MiB after the download", edge.peak_rss() >> 20);

    let mut stream = TcpStream::connect(edge.http).await.unwrap();
    let head = format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'u'; 1 << 20];
    for _ in 0..SIZE / (1 << 20) {
        stream.write_all(&piece).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    assert!(edge.peak_rss() < LIMIT, "peak of {} MiB after the upload", edge.peak_rss() >> 20);
}

/// The length is not known until the end, so storing begins and has to be given up without the client noticing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_turns_out_too_large_to_store_still_reaches_the_client() {
    let origin = huge().await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let received = download(&edge, "/chunked").await;
    assert!(received > SIZE, "{received}");
    assert!(edge.peak_rss() < LIMIT, "peak of {} MiB", edge.peak_rss() >> 20);
}
