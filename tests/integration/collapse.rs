//! Many clients, one fetch; and readers that follow a fill while it is written.

use crate::support::edge::{config, one_origin};
use crate::support::faulty::Origin;
use crate::support::{Client, Edge};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_for_a_cold_object_are_one_fetch() {
    let origin = Origin::start(|mut stream: TcpStream, _| async move {
        // Long enough that all requests arrive while the fetch is under way.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let body = "x".repeat(100_000);
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let address = edge.http;
    let clients: Vec<_> =
        (0..1000).map(|_| tokio::spawn(async move { Client::new(address, "a").get("/cold").await })).collect();
    for client in clients {
        let answer = client.await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 100_000));
    }
    assert_eq!(origin.count(), 1);
}

/// Several readers get the beginning of an object whose end the origin has not sent yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_follow_a_fill_at_its_pace() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |mut stream: TcpStream, _| {
        let gate = Arc::clone(&held);
        async move {
            let half = vec![b'a'; 500_000];
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1000000\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&half).await.unwrap();
            let _pass = gate.acquire().await.unwrap();
            stream.write_all(&half).await.unwrap();
            Some(stream)
        }
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(edge.http).await.unwrap();
        stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut seen = 0;
        let mut buffer = vec![0; 64 << 10];
        // The first half arrives although the origin holds back the second.
        while seen < 500_000 {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "closed after {seen} bytes");
            seen += read;
        }
        readers.push((stream, seen));
    }
    gate.add_permits(1);
    for (mut stream, seen) in readers {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(seen + rest.len() > 1_000_000, "{}", seen + rest.len());
    }
    assert_eq!(origin.count(), 1);
}

/// The origin breaks off in the middle: each reader sees an error, none an early end, and nothing is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_fill_is_an_error_to_every_reader() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |mut stream: TcpStream, _| {
        let gate = Arc::clone(&held);
        async move {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1000000\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![b'a'; 300_000]).await.unwrap();
            let _pass = gate.acquire().await.unwrap();
            None
        }
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let address = edge.http;
    let readers: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn(async move {
                Client::new(address, "a").send(http::Method::GET, "/big", &[], Default::default()).await
            })
        })
        .collect();
    // Three are attached once one fetch is under way and two more have been counted as connections.
    crate::support::tools::wait_until("all are connected", std::time::Duration::from_secs(10), || {
        edge.metric(r#"selvedge_connections_open{listener="http"}"#) >= 3.0 && origin.count() >= 1
    });
    gate.add_permits(10);
    for reader in readers {
        let answer = reader.await.unwrap();
        assert!(answer.is_err() || answer.as_ref().unwrap().status == 502, "{answer:?}");
    }
}

/// The client whose request began the fetch takes nothing of it; those who want the same object do not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_up_nobody_else() {
    const SIZE: usize = 24 << 20;
    let origin = Origin::start(|mut stream: TcpStream, _| async move {
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {SIZE}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&vec![b'a'; SIZE]).await.ok()?;
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut stalled = TcpStream::connect(edge.http).await.unwrap();
    stalled.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // Its head has come, so that the fill has begun; nothing is read after it.
    assert_eq!(stalled.read_u8().await.unwrap(), b'H');
    let follower = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        Client::new(edge.http, "a").get("/big").await
    });
    assert_eq!(follower.await.expect("the follower waits for the stalled client").body.len(), SIZE);
    assert_eq!(origin.count(), 1);
    // Late, but whole: what it did not take meanwhile was kept.
    let mut rest = 1;
    let mut buffer = vec![0; 1 << 20];
    while rest < SIZE {
        rest += stalled.read(&mut buffer).await.unwrap();
    }
}
