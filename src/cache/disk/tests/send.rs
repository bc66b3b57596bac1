//! What is sent out of the page cache stays what it was until the client has it.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use super::*;

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[tokio::test]
async fn what_was_sent_does_not_change_when_its_segment_is_used_again() {
    let dir = TempDir::new().unwrap();
    let stepped = Stepped::open(dir.path(), 8, Rule::All);
    let tier = &stepped.tier;
    assert!(tier.store.sends.load(Ordering::Relaxed), "this file system cannot take pages off a file");
    // One record with all of it, and one behind a chunk; less than a socket holds that nobody reads from.
    let wholes = [body(1, 50_000), body(2, 700_000)];
    let (mut under_way, mut stale) = (Vec::new(), Vec::new());
    for (n, whole) in (0..).zip(&wholes) {
        stepped.write(key(n), b"m", whole.clone()).await;
        let object = tier.get(&key(n)).await.unwrap();
        let (client, server) = connection();
        let mut at = 0;
        while at < object.len() {
            let part = object.read(at, 128 << 10).await.unwrap();
            let placed = object.placed(at, part.len()).unwrap();
            let sent = placed.send_to(server.as_fd()).unwrap().unwrap();
            assert!(sent > 0 && sent <= part.len());
            at += sent as u64;
            stale.push(placed);
        }
        under_way.push((whole, client));
    }
    let reused = |n: u32| tier.store.segment(n).unwrap().generation.load(Ordering::Relaxed) > 8;
    // The whole log is written over, by what is larger than a block and so by no same bytes anywhere.
    for n in 10..40 {
        stepped.write(key(n), b"m", body(n, 900_000)).await;
    }
    assert!((0..8).filter(|n| reused(*n)).count() >= 6);
    let (_client, server) = connection();
    assert!(stale.iter().all(|placed| placed.send_to(server.as_fd()).is_none()), "what is there now is something else");
    for (whole, mut client) in under_way {
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == whole[..], "the client got other bytes");
    }
}

#[tokio::test]
async fn what_still_waits_to_be_written_is_not_sent_from_the_file() {
    let dir = TempDir::new().unwrap();
    let stepped = Stepped::open(dir.path(), 8, Rule::All);
    let mut writer = stepped.tier.writer(key(1)).unwrap();
    writer.append(body(1, 50_000)).await.unwrap();
    writer.commit(b"m", &stepped.tier.mark()).await.unwrap();
    let object = stepped.tier.get(&key(1)).await.unwrap();
    let (_client, server) = connection();
    object.read(0, 50_000).await.unwrap();
    assert!(object.placed(0, 50_000).unwrap().send_to(server.as_fd()).is_none());
    assert!(object.placed(1, 50_000).is_none() && object.placed(50_000, 1).is_none(), "there is no such byte");
    stepped.step();
    assert!(object.placed(0, 50_000).unwrap().send_to(server.as_fd()).is_some());
}
