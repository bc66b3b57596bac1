use super::*;
use aws_lc_rs::{digest, hmac};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::fmt::Write;
use std::net::Ipv4Addr;

const KEY: &str = "TESTKEY";
const SECRET: &str = "test/secret+of=40";

struct Answer {
    status: StatusCode,
    fields: http::HeaderMap,
    body: Bytes,
}

async fn running(root: &Path) -> Bucket {
    Bucket::start(root, (Ipv4Addr::LOCALHOST, 0).into(), KEY, &Secret::new(SECRET)).await.unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The smallest signature that a server accepts: three signed fields and an unsigned payload.
fn sign(request: &mut Request<Full<Bytes>>, secret: &str) {
    let now = humantime::format_rfc3339_seconds(crate::clock::Clock::system().now()).to_string();
    let date: String = now.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let scope = format!("{}/us-east-1/s3/aws4_request", &date[..8]);
    let host = request.headers()["host"].to_str().unwrap().to_owned();
    let canonical = format!(
        "{}\n{}\n\nhost:{host}\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:{date}\n\n\
         host;x-amz-content-sha256;x-amz-date\nUNSIGNED-PAYLOAD",
        request.method(),
        canonical_path(request.uri().path()),
    );
    let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashed}");
    let mac =
        |key: &[u8], data: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes()).as_ref().to_vec();
    let key = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &text));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={KEY}/{scope}, \
         SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}"
    );
    let fields = request.headers_mut();
    fields.insert("x-amz-date", date.parse().unwrap());
    fields.insert("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().unwrap());
    fields.insert("authorization", authorization.parse().unwrap());
}

/// The key decoded once and encoded again as signatures want it, slashes as they are.
fn canonical_path(path: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    utf8_percent_encode(&percent_decode_str(path).decode_utf8().unwrap(), KEPT).to_string()
}

fn request(method: Method, host: &str, path: &str, body: &'static str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", host);
    request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
}

async fn send(bucket: &Bucket, request: Request<Full<Bytes>>) -> Answer {
    let stream = TcpStream::connect(bucket.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    drop(sender);
    connection.await.unwrap().unwrap();
    Answer { status: head.status, fields: head.headers, body }
}

async fn signed(bucket: &Bucket, method: Method, path: &str, body: &'static str) -> Answer {
    let mut request = request(method, &bucket.address().to_string(), path, body);
    sign(&mut request, SECRET);
    send(bucket, request).await
}

fn once(text: &'static str) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    futures::stream::iter([Ok(Bytes::from_static(text.as_bytes()))])
}

#[tokio::test]
async fn only_rightly_signed_requests_are_answered() {
    let root = tempfile::tempdir().unwrap();
    let bucket = running(root.path()).await;
    let attributes = Attributes { content_type: Some("text/plain"), cache_control: Some("max-age=60") };
    bucket.put("site", "a.txt", attributes, once("hello")).await.unwrap();
    let host = bucket.address().to_string();

    let anonymous = send(&bucket, request(Method::GET, &host, "/site/a.txt", "")).await;
    assert_eq!(anonymous.status, StatusCode::FORBIDDEN);
    let mut wrong = request(Method::GET, &host, "/site/a.txt", "");
    sign(&mut wrong, "another secret");
    assert_eq!(send(&bucket, wrong).await.status, StatusCode::FORBIDDEN);
    let mut moved = request(Method::GET, &host, "/site/a.txt", "");
    sign(&mut moved, SECRET);
    *moved.uri_mut() = "/site/b.txt".parse().unwrap();
    assert_eq!(send(&bucket, moved).await.status, StatusCode::FORBIDDEN);
    assert_eq!(bucket.requests(), 0, "what is refused is not counted");

    let answer = signed(&bucket, Method::GET, "/site/a.txt", "").await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"hello"[..]));
    assert_eq!(answer.fields["cache-control"], "max-age=60");
    assert_eq!(answer.fields["content-type"], "text/plain");
    assert_eq!(bucket.requests(), 1);
    bucket.stop().await;
}

#[tokio::test]
async fn a_file_written_by_hand_is_an_object_and_a_folder_is_not() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("site/docs")).unwrap();
    std::fs::write(root.path().join("site/docs/index.html"), "<p>").unwrap();
    let bucket = running(root.path()).await;
    let found = signed(&bucket, Method::HEAD, "/site/docs/index.html", "").await;
    assert_eq!((found.status, &found.fields["content-length"]), (StatusCode::OK, &"3".parse().unwrap()));
    for path in ["/site/docs", "/site/docs/", "/site/none"] {
        let answer = signed(&bucket, Method::GET, path, "").await;
        let body = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(body.contains("<Code>NoSuchKey</Code>"), "{path}: {body}");
        assert_eq!(signed(&bucket, Method::HEAD, path, "").await.status, StatusCode::NOT_FOUND, "HEAD {path}");
    }
    let answer = signed(&bucket, Method::GET, "/elsewhere/a", "").await;
    assert!(String::from_utf8_lossy(&answer.body).contains("NoSuchBucket"));
    assert_eq!(bucket.requests(), 8);
    bucket.stop().await;
}

#[tokio::test]
async fn what_was_put_under_an_odd_key_is_found_under_that_key_alone() {
    let root = tempfile::tempdir().unwrap();
    let bucket = running(root.path()).await;
    std::fs::create_dir_all(root.path().join("site")).unwrap();
    let keys = ["a//b", "a/b", "/x", "x", "d/", "d%2F", "t/..%2Fx", "%D0%B6/%E4%BD%A0", "q=1&r@'()~!%2B%25%20."];
    for key in keys {
        let answer = signed(&bucket, Method::PUT, &format!("/site/{key}"), "PUT").await;
        // `d%2F` is the same key as `d/` and `t/..%2Fx` one that would climb out of its folder.
        assert_eq!(answer.status, StatusCode::OK, "{key}: {:?}", answer.body);
    }
    for key in keys {
        assert_eq!(signed(&bucket, Method::GET, &format!("/site/{key}"), "").await.status, StatusCode::OK, "{key}");
    }
    assert_eq!(signed(&bucket, Method::DELETE, "/site/a//b", "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(signed(&bucket, Method::GET, "/site/a//b", "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(signed(&bucket, Method::GET, "/site/a/b", "").await.status, StatusCode::OK);
    assert!(!root.path().join("site/t").exists() && !root.path().join("x").exists());
    bucket.stop().await;
}

#[tokio::test]
async fn ranges_and_conditions_are_honoured() {
    let root = tempfile::tempdir().unwrap();
    let bucket = running(root.path()).await;
    let attributes = Attributes { content_type: None, cache_control: Some("max-age=60") };
    bucket.put("site", "ten", attributes, once("0123456789")).await.unwrap();
    let host = bucket.address().to_string();
    let ask = |field: &'static str, value: String| {
        let mut request = request(Method::GET, &host, "/site/ten", "");
        sign(&mut request, SECRET);
        request.headers_mut().insert(field, value.parse().unwrap());
        send(&bucket, request)
    };
    let part = ask("range", "bytes=2-4".to_owned()).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &b"234"[..]));
    assert_eq!(part.fields["content-range"], "bytes 2-4/10");
    assert_eq!(ask("range", "bytes=10-".to_owned()).await.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let e_tag = part.fields["etag"].to_str().unwrap().to_owned();
    let same = ask("if-none-match", e_tag.clone()).await;
    assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(same.fields["etag"], e_tag);
    assert_eq!(same.fields["cache-control"], "max-age=60");
    assert_eq!(ask("if-match", "\"other\"".to_owned()).await.status, StatusCode::PRECONDITION_FAILED);
    let date = part.fields["last-modified"].to_str().unwrap().to_owned();
    assert_eq!(ask("if-modified-since", date).await.status, StatusCode::NOT_MODIFIED);
    bucket.stop().await;
}

#[tokio::test]
async fn the_host_may_name_the_bucket() {
    let root = tempfile::tempdir().unwrap();
    let bucket = running(root.path()).await;
    bucket.put("site", "a", Attributes::default(), once("hello")).await.unwrap();
    for (host, path) in [("site.localhost:9000", "/a"), ("site.s3.test", "/a"), ("store.internal:9000", "/site/a")] {
        let mut request = request(Method::GET, host, path, "");
        sign(&mut request, SECRET);
        assert_eq!(send(&bucket, request).await.status, StatusCode::OK, "{host}{path}");
    }
    bucket.stop().await;
}

#[tokio::test]
async fn after_stop_the_port_is_free_and_the_objects_remain() {
    let root = tempfile::tempdir().unwrap();
    let bucket = running(root.path()).await;
    let attributes = Attributes { content_type: None, cache_control: Some("max-age=60") };
    bucket.put("site", "a", attributes, once("hello")).await.unwrap();
    let (address, idle) = (bucket.address(), TcpStream::connect(bucket.address()).await.unwrap());
    bucket.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
    let again = Bucket::start(root.path(), address, KEY, &Secret::new(SECRET)).await.unwrap();
    assert!(again.holds("site", "a", attributes).await);
    assert!(!again.holds("site", "a", Attributes::default()).await, "other attributes");
    assert!(!again.holds("site", "b", attributes).await);
    assert_eq!(signed(&again, Method::GET, "/site/a", "").await.body, "hello");
    again.stop().await;
}
