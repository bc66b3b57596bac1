//! Picked peers, connected by pingora to real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::http::{HttpVersion, ServerAddress, Settings as HttpSettings, Timeouts};
use super::s3::{AddressingStyle, Attempt, Endpoint, Settings as S3Settings};
use super::*;

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn build(settings: &Settings) -> Arc<Origin> {
    let resolver = Resolver::new(Clock::system()).unwrap();
    Origin::build("o", settings, resolver, Clock::system(), &Metrics::new()).unwrap()
}

fn http_settings(host: &str, port: u16) -> HttpSettings {
    HttpSettings { max_fails: 1, ..HttpSettings::of([ServerAddress { host: host.into(), port }.into()]) }
}

#[tokio::test]
async fn the_signed_path_is_the_path_on_the_wire() {
    let (listener, port) = listen().await;
    let server: JoinHandle<String> = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        head
    });
    let origin = build(&Settings::S3(S3Settings {
        endpoint: Endpoint { tls: false, host: "localhost".to_owned(), port },
        bucket: "assets".to_owned(),
        region: "us-east-1".to_owned(),
        style: AddressingStyle::Path,
        credentials: None,
        prefix: String::new(),
        strip_prefix: String::new(),
        index: None,
        directory_redirect: false,
        spa_fallback: None,
        error_documents: Vec::new(),
        allow_amz_headers: Vec::new(),
        timeouts: Timeouts::default(),
        forbidden_is_not_found: false,
    }));
    let Kind::S3(s3) = origin.kind() else { panic!("not an S3 origin") };
    let picked = origin.pick(&Ask::default()).await.unwrap();
    let mut request = RequestHeader::build("GET", b"/x", None).unwrap();
    s3.prepare(&mut request, "//a%2F..//%e6%9d%b1+'(=@~.", &Attempt::Requested, UNIX_EPOCH).unwrap();
    let (mut session, _) = Connector::<()>::new(None).get_http_session(&picked.peer).await.unwrap();
    session.write_request_header(Box::new(request)).await.unwrap();
    session.read_response_header().await.unwrap();
    let head = server.await.unwrap();
    let expected = format!("GET /assets//a/..//%E6%9D%B1%2B%27%28%3D%40~. HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
    assert_eq!(head, expected);
}

/// A TLS server with a certificate of its own for `name`, which tells whether the handshake was completed and the SNI.
async fn tls_server(name: &str) -> (u16, JoinHandle<Option<Option<String>>>) {
    let certified = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listen().await;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.ok()?;
        let sni = stream.get_ref().1.server_name().map(str::to_owned);
        // A client that does not trust the certificate says so after its part of the handshake.
        stream.read_u8().await.ok()?;
        Some(sni)
    });
    (port, server)
}

async fn connect(origin: &Origin) -> Result<HttpSession<()>, Box<pingora::Error>> {
    let picked = origin.pick(&Ask::default()).await.unwrap();
    Connector::<()>::new(None).get_http_session(&picked.peer).await.map(|(session, _)| session)
}

async fn send(session: &mut HttpSession<()>) {
    let mut request = RequestHeader::build("GET", b"/", None).unwrap();
    request.insert_header("Host", "a.example").unwrap();
    session.write_request_header(Box::new(request)).await.unwrap();
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_even_for_an_address() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for host in ["localhost", "127.0.0.1"] {
        let (port, server) = tls_server(host).await;
        let settings = HttpSettings { tls: true, ..http_settings(host, port) };
        assert!(connect(&build(&Settings::Http(settings))).await.is_err(), "{host}");
        assert_eq!(server.await.unwrap(), None, "{host}");
    }
}

#[tokio::test]
async fn without_verification_any_certificate_does_and_the_name_is_still_sent() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for version in [HttpVersion::Auto, HttpVersion::Http1, HttpVersion::Http2] {
        let (port, server) = tls_server("other.example").await;
        let settings = HttpSettings {
            tls: true,
            tls_verify: false,
            tls_server_name: Some("a.example".to_owned()),
            version,
            ..http_settings("127.0.0.1", port)
        };
        let mut session = connect(&build(&Settings::Http(settings))).await.unwrap();
        let expected_h2 = version != HttpVersion::Http1;
        assert_eq!(matches!(session, HttpSession::H2(_)), expected_h2, "{version:?}");
        send(&mut session).await;
        assert_eq!(server.await.unwrap(), Some(Some("a.example".to_owned())), "{version:?}");
    }
}

#[tokio::test]
async fn http2_without_tls_is_spoken_with_prior_knowledge() {
    let (listener, port) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        preface
    });
    let settings = HttpSettings { version: HttpVersion::Http2, ..http_settings("127.0.0.1", port) };
    let session = connect(&build(&Settings::Http(settings))).await;
    assert_eq!(&server.await.unwrap(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    drop(session);
}

#[tokio::test]
async fn an_upgrade_can_insist_on_http1() {
    let settings = HttpSettings { tls: true, ..http_settings("192.0.2.1", 443) };
    let mut picked = build(&Settings::Http(settings)).pick(&Ask::default()).await.unwrap();
    picked.for_upgrade();
    assert_eq!(picked.peer.options.alpn, pingora::protocols::ALPN::H1);
    assert_eq!(picked.address, SocketAddr::from(([192, 0, 2, 1], 443)));
}
