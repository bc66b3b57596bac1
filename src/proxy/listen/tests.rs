use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::http_app::{HttpServer, ServeHttp};
use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::{Listeners, Settings, TlsSlot, serve};
use crate::metrics::Metrics;
use crate::tls::MinVersion;
use crate::tls::testing::{client, put, server};

/// The TLS version and the host asked for.
type Version = (String, Option<String>);

/// Answers every message with itself; `panic` panics.
#[derive(Default)]
struct Echo {
    /// What the application was told of its connections: client, server, TLS version and host.
    seen: Mutex<Vec<(SocketAddr, SocketAddr, Option<Version>)>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    cleaned: AtomicUsize,
    told: Notify,
}

#[async_trait]
impl ServerApp for Echo {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let digest = stream.get_socket_digest().unwrap();
        let inet = |a: Option<&pingora::protocols::l4::socket::SocketAddr>| *a.unwrap().as_inet().unwrap();
        let version = stream.get_ssl_digest().map(|d| d.version.to_string());
        let tls = version.map(|v| (v, stream.get_ssl().unwrap().server_name().map(str::to_owned)));
        self.seen.lock().push((inet(digest.peer_addr()), inet(digest.local_addr()), tls));
        self.most_open.fetch_max(self.open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let mut buf = [0; 64];
        while let Ok(n @ 1..) = stream.read(&mut buf).await {
            assert!(&buf[..n] != b"panic", "asked to");
            stream.write_all(&buf[..n]).await.unwrap();
            stream.flush().await.unwrap();
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
        None
    }

    async fn cleanup(&self) {
        self.cleaned.fetch_add(1, Ordering::SeqCst);
        self.told.notify_one();
    }
}

/// A running `serve` with a plain and a secure listener.
struct Running<A> {
    app: Arc<A>,
    http: SocketAddr,
    https: SocketAddr,
    slot: Arc<TlsSlot>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _certificates: TempDir,
}

fn start<A: ServerApp + Send + Sync + 'static>(app: A, change: impl FnOnce(&mut Settings)) -> Running<A> {
    let certificates = tempfile::tempdir().unwrap();
    put(certificates.path(), "a.test", "a.test");
    let (config, _) = server(certificates.path(), MinVersion::Tls12);
    let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut settings = Settings {
        http: vec![local],
        https: vec![local],
        handshake_timeout: Duration::from_secs(10),
        max_connections: 100,
        proxy_protocol: Vec::new(),
    };
    change(&mut settings);
    let listeners = Listeners::bind(&settings).unwrap();
    let (http, https) = (listeners.http_addrs()[0], listeners.https_addrs()[0]);
    let (app, slot, metrics) = (Arc::new(app), Arc::new(TlsSlot::new(config)), Arc::new(Metrics::new()));
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve(listeners, app.clone(), Some(slot.clone()), metrics.clone(), stopped));
    Running { app, http, https, slot, metrics, stop, task, _certificates: certificates }
}

impl<A> Running<A> {
    fn handshakes(&self, result: &str) -> u64 {
        self.metrics.tls_handshakes.with_label_values(&[result]).get()
    }

    fn open(&self, listener: &str) -> i64 {
        self.metrics.connections_open.with_label_values(&[listener]).get()
    }

    async fn secure(
        &self,
        config: ClientConfig,
        host: &str,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.https).await.unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    async fn end(self) {
        self.stop.send(true).unwrap();
        bounded(self.task).await.unwrap();
    }
}

/// A test that would hang fails instead.
async fn bounded<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("not within 10 s")
}

async fn eventually(mut done: impl FnMut() -> bool) {
    bounded(async {
        while !done() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn echo(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), text: &[u8]) {
    let mut back = vec![0; text.len()];
    stream.write_all(text).await.unwrap();
    stream.flush().await.unwrap();
    bounded(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, text);
}

fn tls13() -> ClientConfig {
    client(&rustls::version::TLS13, &["h2", "http/1.1"])
}

#[tokio::test]
async fn the_application_is_told_of_addresses_and_tls() {
    let running = start(Echo::default(), |_| {});
    let mut plain = TcpStream::connect(running.http).await.unwrap();
    echo(&mut plain, b"hello").await;
    let mut secure = running.secure(tls13(), "a.test").await.unwrap();
    echo(&mut secure, b"hello").await;
    let seen = running.app.seen.lock().clone();
    let tls = Some(("TLSv1_3".to_owned(), Some("a.test".to_owned())));
    assert_eq!(seen[0], (plain.local_addr().unwrap(), running.http, None));
    assert_eq!(seen[1], (secure.get_ref().0.local_addr().unwrap(), running.https, tls));
    assert_eq!((running.open("http"), running.open("https"), running.handshakes("ok")), (1, 1, 1));
    drop((plain, secure));
    eventually(|| running.open("http") + running.open("https") == 0).await;
    let total = |l: &str| running.metrics.connections_total.with_label_values(&[l]).get();
    assert_eq!((total("http"), total("https")), (1, 1));
    running.end().await;
}

#[tokio::test]
async fn an_unknown_host_and_no_host_get_the_alert_unrecognized_name() {
    let running = start(Echo::default(), |_| {});
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for host in ["elsewhere.test", "127.0.0.1"] {
            let error = bounded(running.secure(client(version, &[]), host)).await.unwrap_err();
            let error = error.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
            assert_eq!(*error, rustls::Error::AlertReceived(AlertDescription::UnrecognisedName), "{host}");
        }
    }
    assert_eq!((running.handshakes("unrecognized_name"), running.handshakes("failed")), (4, 0));
    running.end().await;
}

#[tokio::test]
async fn a_client_hello_in_single_bytes_is_understood() {
    let running = start(Echo::default(), |_| {});
    let name = ServerName::try_from("a.test").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(tls13()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut tcp = TcpStream::connect(running.https).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    for byte in hello {
        tcp.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 3];
    bounded(tcp.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, [22, 3, 3], "a handshake record");
    drop(tcp);
    running.end().await;
}

#[tokio::test]
async fn what_is_no_tls_is_counted_as_failed_and_a_probe_not_at_all() {
    let running = start(Echo::default(), |_| {});
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 500], &[22, 3, 1]] {
        let mut tcp = TcpStream::connect(running.https).await.unwrap();
        tcp.write_all(nonsense).await.unwrap();
        tcp.shutdown().await.unwrap();
        // The end may come as a reset, when the server did not read all.
        let _ = bounded(tcp.read_to_end(&mut Vec::new())).await;
    }
    let mut probe = TcpStream::connect(running.https).await.unwrap();
    probe.shutdown().await.unwrap();
    bounded(probe.read_to_end(&mut Vec::new())).await.unwrap();
    eventually(|| running.open("https") == 0).await;
    assert_eq!((running.handshakes("failed"), running.handshakes("timeout")), (3, 0));
    running.end().await;
}

#[tokio::test]
async fn a_handshake_that_idles_is_ended_and_counted() {
    let running = start(Echo::default(), |s| s.handshake_timeout = Duration::from_millis(50));
    let mut silent = TcpStream::connect(running.https).await.unwrap();
    let mut stalled = TcpStream::connect(running.https).await.unwrap();
    stalled.write_all(&[22, 3, 1, 2]).await.unwrap();
    for tcp in [&mut silent, &mut stalled] {
        let _ = bounded(tcp.read_to_end(&mut Vec::new())).await;
    }
    eventually(|| running.handshakes("timeout") == 2 && running.open("https") == 0).await;
    running.end().await;
}

#[tokio::test]
async fn a_new_set_up_is_used_by_the_next_handshake() {
    let running = start(Echo::default(), |_| {});
    let tls12 = || client(&rustls::version::TLS12, &[]);
    let mut before = running.secure(tls12(), "a.test").await.unwrap();
    let (config, _) = server(running._certificates.path(), MinVersion::Tls13);
    running.slot.store(Arc::new(crate::proxy::Handshakes::single(config)));
    assert!(bounded(running.secure(tls12(), "a.test")).await.is_err());
    assert!(bounded(running.secure(tls13(), "a.test")).await.is_ok());
    echo(&mut before, b"still here").await;
    drop(before);
    running.end().await;
}

#[tokio::test]
async fn shutdown_drains_active_connections_and_closes_those_that_sent_nothing() {
    let running = start(Echo::default(), |_| {});
    let mut active = running.secure(tls13(), "a.test").await.unwrap();
    echo(&mut active, b"one").await;
    let mut idle = TcpStream::connect(running.http).await.unwrap();
    eventually(|| running.open("http") == 1).await;
    running.stop.send(true).unwrap();
    bounded(running.app.told.notified()).await;
    assert_eq!(bounded(idle.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    assert!(TcpStream::connect(running.http).await.is_err(), "listeners are closed");
    echo(&mut active, b"two").await;
    assert!(!running.task.is_finished());
    drop(active);
    bounded(running.task).await.unwrap();
    assert_eq!(running.app.cleaned.load(Ordering::SeqCst), 1);
    assert_eq!(running.metrics.connections_open.with_label_values(&["https"]).get(), 0);
}

#[tokio::test]
async fn a_panic_ends_its_own_connection_only() {
    let running = start(Echo::default(), |_| {});
    let mut other = TcpStream::connect(running.http).await.unwrap();
    echo(&mut other, b"one").await;
    let mut doomed = TcpStream::connect(running.http).await.unwrap();
    doomed.write_all(b"panic").await.unwrap();
    let _ = bounded(doomed.read_to_end(&mut Vec::new())).await;
    eventually(|| running.open("http") == 1).await;
    echo(&mut other, b"two").await;
    drop(other);
    running.end().await;
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let running = start(Echo::default(), |s| s.max_connections = 2);
    let mut waiting = Vec::new();
    let mut first = Vec::new();
    for _ in 0..2 {
        let mut tcp = TcpStream::connect(running.http).await.unwrap();
        echo(&mut tcp, b"in").await;
        first.push(tcp);
    }
    for _ in 0..5 {
        let mut tcp = TcpStream::connect(running.http).await.unwrap();
        tcp.write_all(b"later").await.unwrap();
        waiting.push(tcp);
    }
    echo(&mut first[0], b"still the two").await;
    assert_eq!(running.open("http"), 2);
    drop(first);
    for mut tcp in waiting {
        let mut back = [0; 5];
        bounded(tcp.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"later");
    }
    assert_eq!(running.app.most_open.load(Ordering::SeqCst), 2);
    running.end().await;
}

struct Hello;

#[async_trait]
impl ServeHttp for Hello {
    async fn response(&self, session: &mut ServerSession) -> http::Response<Vec<u8>> {
        let body = format!("{:?}", session.req_header().version).into_bytes();
        http::Response::builder().header("content-length", body.len()).body(body).unwrap()
    }
}

#[tokio::test]
async fn plain_listeners_take_http_1_and_http_2_by_prior_knowledge() {
    let mut app = HttpServer::new_app(Hello);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    app.server_options = Some(options);
    let running = start(app, |_| {});

    // Shorter than the HTTP/2 preface, and complete.
    let mut tcp = TcpStream::connect(running.http).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nHTTP/1.0") {
        assert_ne!(bounded(tcp.read_buf(&mut answer)).await.unwrap(), 0, "{answer:?}");
    }
    assert!(answer.starts_with(b"HTTP/1."), "{answer:?}");
    drop(tcp);

    let tcp = TcpStream::connect(running.http).await.unwrap();
    let (mut h2, connection) = h2::client::handshake(tcp).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://a.test/").body(()).unwrap();
    let (response, _) = h2.send_request(request, true).unwrap();
    let mut body = bounded(response).await.unwrap().into_body();
    assert_eq!(bounded(body.data()).await.unwrap().unwrap(), "HTTP/2.0");
    drop((h2, body));
    let _ = bounded(connection).await.unwrap();

    let mut tls = running.secure(tls13(), "a.test").await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    tls.shutdown().await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn an_address_in_use_is_named_and_nothing_stays_bound() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // No other test uses this address, so that none takes the port in between.
    let free = std::net::TcpListener::bind("127.9.8.7:0").unwrap();
    let (taken_at, free_at) = (taken.local_addr().unwrap(), free.local_addr().unwrap());
    drop(free);
    let settings = |https| Settings {
        http: vec![free_at],
        https: vec![https],
        handshake_timeout: Duration::from_secs(1),
        max_connections: 1,
        proxy_protocol: Vec::new(),
    };
    let error = Listeners::bind(&settings(taken_at)).unwrap_err();
    assert_eq!(error.address, taken_at);
    assert!(error.to_string().contains("another listener") && error.to_string().contains(&taken_at.to_string()));
    let bound = Listeners::bind(&settings("127.0.0.1:0".parse().unwrap())).unwrap();
    assert_eq!(bound.http_addrs(), [free_at]);
    assert_ne!(bound.https_addrs()[0].port(), 0);
    drop(bound);
    // No interface has an address of the documentation's range (RFC 5737).
    let error = Listeners::bind(&settings("192.0.2.1:0".parse().unwrap())).unwrap_err();
    assert!(error.to_string().contains("no interface has this address"), "{error}");
}

#[tokio::test]
async fn both_families_can_have_one_port() {
    let Ok(probe) = std::net::TcpListener::bind("[::]:0") else { return };
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let settings = Settings {
        http: vec![SocketAddr::from(([0, 0, 0, 0], port)), format!("[::]:{port}").parse().unwrap()],
        https: vec![],
        handshake_timeout: Duration::from_secs(1),
        max_connections: 1,
        proxy_protocol: Vec::new(),
    };
    assert_eq!(Listeners::bind(&settings).unwrap().http_addrs().len(), 2);
    let alone = Settings { http: vec!["[::]:0".parse().unwrap()], ..settings };
    let listeners = Listeners::bind(&alone).unwrap();
    let v4 = SocketAddr::from(([127, 0, 0, 1], listeners.http_addrs()[0].port()));
    let (app, metrics) = (Arc::new(Echo::default()), Arc::new(Metrics::new()));
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve(listeners, app.clone(), None, metrics, stopped));
    let mut tcp = TcpStream::connect(v4).await.unwrap();
    echo(&mut tcp, b"hello").await;
    assert_eq!(app.seen.lock()[0].0, tcp.local_addr().unwrap(), "an IPv4 client has its IPv4 address");
    drop((tcp, stop));
    bounded(task).await.unwrap();
}
