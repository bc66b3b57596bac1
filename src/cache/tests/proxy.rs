//! The storage under pingora's own proxy, between an origin server and clients on loopback.

use super::*;
use crate::cache::policy::{self, RequestVerdict, ResponseRules};
use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::cache::{NoCacheReason, RespCacheable};
use pingora::http::RequestHeader;
use pingora::proxy::{HttpProxy, ProxyHttp, Session, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

struct Edge {
    cache: &'static Cache,
    origin: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.origin, false, String::new())))
    }

    fn request_cache_filter(&self, session: &mut Session, _: &mut ()) -> pingora::Result<()> {
        if matches!(policy::admits_request(session.req_header()), RequestVerdict::Lookup(_)) {
            session.cache.enable(self.cache, None, None, Some(self.cache.lock()), None);
        }
        Ok(())
    }

    fn cache_key_callback(&self, session: &Session, _: &mut ()) -> pingora::Result<CacheKey> {
        let mut key = key(session.req_header().uri.path());
        self.cache.stamp(&mut key);
        Ok(key)
    }

    fn cache_vary_filter(&self, meta: &CacheMeta, _: &mut (), request: &RequestHeader) -> Option<disk::Hash128> {
        policy::variance(meta.headers(), &request.headers, &policy::family(meta.headers()))
    }

    fn response_cache_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        _: &mut (),
    ) -> pingora::Result<RespCacheable> {
        let rules = ResponseRules { max_object: self.cache.max_object(), ..Default::default() };
        Ok(match policy::admits_response(session.req_header(), response, SystemTime::now(), &rules) {
            Ok(stored) => RespCacheable::Cacheable(stored.meta),
            Err(reason) => RespCacheable::Uncacheable(NoCacheReason::Custom(reason.as_str())),
        })
    }
}

/// What the origin server has done, and the leave to go on that `/held` waits for.
#[derive(Default)]
struct Origin {
    requests: AtomicUsize,
    go_on: Notify,
}

const HELD: usize = 200_000;
const CHUNKED: usize = 24 << 20;

impl Origin {
    async fn answer(self: Arc<Self>, mut stream: TcpStream) -> std::io::Result<()> {
        let head = read_head(&mut stream).await?;
        self.requests.fetch_add(1, Ordering::SeqCst);
        let fields = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nvary: x-variant\r\nconnection: close\r\n";
        match head.split(' ').nth(1).unwrap_or_default() {
            "/held" => {
                stream.write_all(format!("{fields}content-length: {HELD}\r\n\r\n").as_bytes()).await?;
                let body = content(HELD);
                stream.write_all(&body[..HELD / 2]).await?;
                self.go_on.notified().await;
                stream.write_all(&body[HELD / 2..]).await
            }
            "/cut" => stream.write_all(format!("{fields}content-length: 1000\r\n\r\nshort").as_bytes()).await,
            "/chunked" => {
                stream.write_all(format!("{fields}transfer-encoding: chunked\r\n\r\n").as_bytes()).await?;
                for chunk in content(CHUNKED).chunks(100_000) {
                    stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
                    stream.write_all(chunk).await?;
                    stream.write_all(b"\r\n").await?;
                }
                stream.write_all(b"0\r\n\r\n").await
            }
            _ => stream.write_all(format!("{fields}content-length: 10\r\n\r\n0123456789").as_bytes()).await,
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Starts both servers; the edge's address.
async fn start(cache: &'static Cache) -> (SocketAddr, Arc<Origin>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (origin, address) = (Arc::new(Origin::default()), listener.local_addr().unwrap());
    let served = Arc::clone(&origin);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(Arc::clone(&served).answer(stream));
        }
    });
    let app: Arc<HttpProxy<Edge>> =
        Arc::new(http_proxy(&Arc::new(ServerConf::default()), Edge { cache, origin: address }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let edge = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let app = Arc::clone(&app);
            tokio::spawn(async move {
                let (_stop, watch) = tokio::sync::watch::channel(false);
                let stream: pingora::protocols::l4::stream::Stream = stream.into();
                app.process_new(Box::new(stream), &watch).await;
            });
        }
    });
    (edge, origin)
}

async fn send(edge: SocketAddr, method: &str, path: &str, fields: &str) -> TcpStream {
    let mut stream = TcpStream::connect(edge).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn get(edge: SocketAddr, path: &str, fields: &str) -> (String, Vec<u8>) {
    let mut stream = send(edge, "GET", path, fields).await;
    let head = read_head(&mut stream).await.unwrap();
    let mut body = Vec::new();
    stream.read_to_end(&mut body).await.unwrap();
    (head, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_for_a_cold_object_are_one_fetch() {
    for bench in every() {
        let (edge, origin) = start(bench.cache).await;
        let mut clients = tokio::task::JoinSet::new();
        let (started, mut all_started) = tokio::sync::mpsc::channel(1);
        for _ in 0..100 {
            let started = started.clone();
            clients.spawn(async move {
                let mut stream = send(edge, "GET", "/held", "").await;
                assert!(read_head(&mut stream).await.unwrap().starts_with("HTTP/1.1 200"));
                let mut body = vec![0; HELD / 2];
                stream.read_exact(&mut body).await.unwrap();
                started.send(()).await.unwrap();
                stream.read_to_end(&mut body).await.unwrap();
                body
            });
        }
        for _ in 0..100 {
            all_started.recv().await.unwrap();
        }
        origin.go_on.notify_one();
        while let Some(body) = clients.join_next().await {
            assert!(body.unwrap() == content(HELD));
        }
        assert_eq!(origin.requests.load(Ordering::SeqCst), 1);
        assert_eq!(bench.metrics.collapsed.get(), 99);
        let (head, body) = get(edge, "/held", "range: bytes=5-9\r\n").await;
        assert!(head.starts_with("HTTP/1.1 206") && body == content(10)[5..], "{head}");
        let mut stream = send(edge, "HEAD", "/held", "").await;
        let head = read_head(&mut stream).await.unwrap().to_ascii_lowercase();
        assert!(head.contains(&format!("content-length: {HELD}")) && head.contains("age: "), "{head}");
        assert_eq!(origin.requests.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_response_is_never_stored() {
    for bench in every() {
        let (edge, origin) = start(bench.cache).await;
        for fetch in 1..=2 {
            let (head, body) = get(edge, "/cut", "").await;
            assert!(!head.starts_with("HTTP/1.1 200") || body.len() < 1000, "{head}");
            assert_eq!(origin.requests.load(Ordering::SeqCst), fetch);
            assert!(bench.find(&key("/cut")).await.is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_response_too_large_to_store_reaches_its_client_whole() {
    for bench in [bench(8 * MIB, false), bench(8 * MIB, true)] {
        assert!(bench.cache.max_object() < CHUNKED as u64);
        let (edge, origin) = start(bench.cache).await;
        let mut stream = send(edge, "GET", "/chunked", "").await;
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        // A client slower than the origin server: everything between them has to wait for it.
        let (mut body, mut part) = (Vec::new(), [0; 3000]);
        loop {
            let length = stream.read(&mut part).await.unwrap();
            if length == 0 {
                break;
            }
            body.extend_from_slice(&part[..length]);
            tokio::task::yield_now().await;
        }
        // The framing of the chunks makes it longer.
        assert!(body.len() > CHUNKED && body.ends_with(b"\r\n0\r\n\r\n"), "{}", body.len());
        assert!(bench.find(&key("/chunked")).await.is_none());
        assert_eq!(origin.requests.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_variant_is_fetched_once_and_purged_with_the_others() {
    for bench in every() {
        let (edge, origin) = start(bench.cache).await;
        let fetch_all = || async {
            for variant in ["", "x-variant: 1\r\n", "x-variant: 2\r\n", "x-variant: 1\r\n", ""] {
                assert_eq!(get(edge, "/small", variant).await.1, b"0123456789");
            }
            origin.requests.load(Ordering::SeqCst)
        };
        assert_eq!(fetch_all().await, 3);
        assert_eq!(fetch_all().await, 3);
        assert!(bench.cache.purge(&key("/small")).await.unwrap());
        assert_eq!(fetch_all().await, 6);
    }
}
