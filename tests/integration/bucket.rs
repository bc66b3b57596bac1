//! A private bucket behind the edge, on a server that verifies signatures.

use crate::support::edge::config;
use crate::support::{Client, Edge};
use bytes::Bytes;
use futures::stream;
use http::{Method, StatusCode};
use selvedge::demo::bucket::{Attributes, Bucket};
use selvedge::types::Secret;
use std::sync::Arc;
use tempfile::TempDir;

const ACCESS_KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const ENV: [(&str, &str); 2] = [("TEST_ACCESS_KEY", ACCESS_KEY), ("TEST_SECRET_KEY", SECRET)];

struct Scene {
    bucket: Bucket,
    _root: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let bind = "127.0.0.1:0".parse().unwrap();
        let bucket = Bucket::start(root.path(), bind, ACCESS_KEY, &Secret::new(SECRET)).await.unwrap();
        Self { bucket, _root: root }
    }

    async fn put(&self, key: &str, body: &str) {
        let attributes = Attributes { content_type: Some("text/plain"), cache_control: Some("public, max-age=600") };
        let body = Bytes::from(body.to_owned());
        self.bucket.put("assets", key, attributes, stream::iter([Ok(body)])).await.unwrap();
    }

    fn edge(&self, more: &str) -> Edge {
        Edge::start_in(Arc::new(tempfile::tempdir().unwrap()), &self.config(more), &ENV)
    }

    fn config(&self, more: &str) -> String {
        config(&format!(
            "[origins.assets.s3]\nendpoint = \"http://{}\"\nbucket = \"assets\"\nregion = \"us-east-1\"\n\
             access_key_id = {{ env = \"TEST_ACCESS_KEY\" }}\nsecret_access_key = {{ env = \"TEST_SECRET_KEY\" }}\n{more}\n\n\
             [[sites]]\nhosts = [\"*\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"assets\"\n",
            self.bucket.address()
        ))
    }
}

#[tokio::test]
async fn a_private_object_is_fetched_once_and_served_from_cache() {
    let scene = Scene::new().await;
    scene.put("css/site.css", "body{}").await;
    let unsigned = Client::new(scene.bucket.address(), "s3").get("/assets/css/site.css").await;
    assert_eq!(unsigned.status, StatusCode::FORBIDDEN, "the bucket must be private for this test to mean anything");

    let edge = scene.edge("");
    let mut client = Client::new(edge.http, "assets.example.com");
    let first = client.get("/css/site.css").await;
    assert_eq!((first.status, first.text().as_str()), (StatusCode::OK, "body{}"));
    assert_eq!(first.cache_status(), "selvedge; fwd=uri-miss; stored");
    let second = client.get("/css/site.css?v=2").await;
    assert!(second.is_hit(), "a query never reaches a bucket, so it is not part of the key: {}", second.cache_status());
    assert!(!second.headers.keys().any(|n| n.as_str().starts_with("x-amz")), "{:?}", second.headers);
    assert_eq!(scene.bucket.requests(), 1);
}

#[tokio::test]
async fn the_key_requested_is_the_key_signed_and_fetched() {
    let scene = Scene::new().await;
    let edge = scene.edge("");
    for (key, path) in [
        ("a=b", "/a=b"),
        ("user@host", "/user@host"),
        ("it's (1)", "/it's%20(1)"),
        ("one+one", "/one+one"),
        ("one+two", "/one%2Btwo"),
        ("100%", "/100%25"),
        ("with space.txt", "/with%20space.txt"),
        ("漢字.txt", "/%E6%BC%A2%E5%AD%97.txt"),
        ("Привет", "/%D0%9F%D1%80%D0%B8%D0%B2%D0%B5%D1%82"),
        ("שלום", "/%D7%A9%D7%9C%D7%95%D7%9D"),
        ("tilde~x", "/tilde~x"),
        ("tilde~y", "/tilde%7Ey"),
        ("trailing.", "/trailing."),
        ("a!b*c", "/a!b*c"),
        ("semi;colon,comma:x", "/semi;colon,comma:x"),
        ("double//slash", "/double//slash"),
        ("up/../down", "/up/../down"),
    ] {
        scene.put(key, key).await;
        let raw = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let address = edge.http;
        let answer =
            tokio::task::spawn_blocking(move || crate::support::tools::raw(address, raw.as_bytes())).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(key), "{key} by {path}: {answer}");
    }
}

#[tokio::test]
async fn paths_that_are_no_key_are_refused() {
    let scene = Scene::new().await;
    let edge = scene.edge("");
    let mut client = Client::new(edge.http, "a");
    for path in ["/%zz", "/a%00b"] {
        assert_eq!(client.get(path).await.status, StatusCode::BAD_REQUEST, "{path}");
    }
    assert_eq!(client.get(&format!("/{}", "k".repeat(1025))).await.status, StatusCode::URI_TOO_LONG);
    assert_eq!(scene.bucket.requests(), 0);
}

#[tokio::test]
async fn only_get_and_head_are_allowed() {
    let scene = Scene::new().await;
    scene.put("x", "x").await;
    let edge = scene.edge("");
    for method in [Method::PUT, Method::POST, Method::DELETE] {
        let answer =
            Client::new(edge.http, "a").send(method.clone(), "/x", &[], Bytes::from_static(b"new")).await.unwrap();
        assert_eq!(
            (answer.status, answer.field("allow").as_str()),
            (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"),
            "{method}"
        );
    }
    assert_eq!(Client::new(edge.http, "a").get("/x").await.text(), "x");
}

#[tokio::test]
async fn directories_have_index_documents_and_errors_have_pages() {
    let scene = Scene::new().await;
    scene.put("index.html", "home").await;
    scene.put("docs/index.html", "docs").await;
    scene.put("404.html", "lost?").await;
    let edge =
        scene.edge("index = \"index.html\"\ndirectory_redirect = true\nerror_documents = { \"404\" = \"404.html\" }");
    let mut client = Client::new(edge.http, "a");
    assert_eq!(client.get("/").await.text(), "home");
    assert_eq!(client.get("/docs/").await.text(), "docs");
    let redirect = client.get("/docs?x=1").await;
    assert_eq!((redirect.status, redirect.field("location").as_str()), (StatusCode::FOUND, "/docs/?x=1"));
    assert_eq!(redirect.field("content-length"), "0", "without it the connection could not be used again");
    let missing = client.get("/nothing.html").await;
    assert_eq!((missing.status, missing.text().as_str()), (StatusCode::NOT_FOUND, "lost?"));
}

#[tokio::test]
async fn a_missing_object_that_is_no_directory_either_keeps_the_connection() {
    let scene = Scene::new().await;
    let edge = scene.edge("index = \"index.html\"\ndirectory_redirect = true");
    let missing = Client::new(edge.http, "a").get("/nothing").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.field("content-length"), missing.body.len().to_string());
}

#[tokio::test]
async fn a_single_page_application_answers_every_path() {
    let scene = Scene::new().await;
    scene.put("app.html", "app").await;
    let edge = scene.edge("spa_fallback = \"app.html\"");
    let mut client = Client::new(edge.http, "a");
    for path in ["/", "/settings/profile", "/app.html"] {
        let answer = client.get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "app"), "{path}");
    }
}

#[tokio::test]
async fn the_buckets_xml_never_reaches_the_client() {
    let scene = Scene::new().await;
    scene.put("x", "x").await;
    let edge = scene.edge("");
    let missing = Client::new(edge.http, "a").get("/missing").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(missing.text().starts_with("404 Not Found") && !missing.text().contains('<'), "{}", missing.text());

    let text = std::fs::read_to_string(edge.config_file()).unwrap();
    let wrong = Edge::start_in(
        Arc::new(tempfile::tempdir().unwrap()),
        &text,
        &[("TEST_ACCESS_KEY", ACCESS_KEY), ("TEST_SECRET_KEY", "not-the-secret")],
    );
    let refused = Client::new(wrong.http, "a").get("/x").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "403 stays 403");
    assert!(!refused.text().contains("Signature"), "{}", refused.text());
}

#[tokio::test]
async fn prefixes_are_stripped_and_added() {
    let scene = Scene::new().await;
    scene.put("releases/v1/x.txt", "v1").await;
    let edge = scene.edge("prefix = \"releases/\"\nstrip_prefix = \"/downloads\"");
    assert_eq!(Client::new(edge.http, "a").get("/downloads/v1/x.txt").await.text(), "v1");
}

#[tokio::test]
async fn virtual_host_style_signs_the_buckets_own_host() {
    let scene = Scene::new().await;
    scene.put("x", "x").await;
    // The resolver answers every name below `localhost` with the loopback address (RFC 6761 section 6.3).
    let text = scene.config("style = \"virtual-host\"").replace("http://127.0.0.1:", "http://localhost:");
    let edge = Edge::start_in(Arc::new(tempfile::tempdir().unwrap()), &text, &ENV);
    let answer = Client::new(edge.http, "a").get("/x").await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "x"), "{}", answer.text());
}

#[tokio::test]
async fn ranges_and_conditions_of_an_object_are_answered_from_the_stored_one() {
    let scene = Scene::new().await;
    let body: String = (0..50_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    scene.put("big.txt", &body).await;
    let edge = scene.edge("");
    let mut client = Client::new(edge.http, "a");
    let range = client.get_with("/big.txt", &[("range", "bytes=100-199")]).await;
    assert_eq!((range.status, range.text().as_str()), (StatusCode::PARTIAL_CONTENT, &body[100..200]));
    let whole = client.get("/big.txt").await;
    assert_eq!(whole.text(), body);
    let etag = whole.field("etag");
    let unchanged = client.get_with("/big.txt", &[("if-none-match", &etag)]).await;
    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
    assert_eq!(scene.bucket.requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_object_is_fetched_by_signed_slices() {
    let scene = Scene::new().await;
    let body: String = (0..3_500_000u32).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    scene.put("film.bin", &body).await;
    let edge = scene.edge("");
    let mut client = Client::new(edge.http, "a");
    for hit in [false, true] {
        let range = client.get_with("/film.bin", &[("range", "bytes=1000000-2100000")]).await;
        assert_eq!((range.status, range.is_hit()), (StatusCode::PARTIAL_CONTENT, hit), "{}", range.cache_status());
        assert!(range.text() == body[1_000_000..2_100_001]);
        assert_eq!(scene.bucket.requests(), 3);
    }
    assert!(client.get("/film.bin").await.text() == body);
    assert_eq!(scene.bucket.requests(), 4);
    // The same name, another object: what is stored of the old one is not mixed with it.
    scene.put("tape.bin", &body).await;
    assert_eq!(client.get_with("/tape.bin", &[("range", "bytes=0-9")]).await.text(), body[..10]);
    let other = body.to_uppercase();
    scene.put("tape.bin", &other).await;
    let changed = client.get_with("/tape.bin", &[("range", "bytes=3000000-3000009")]).await;
    assert_eq!(changed.text(), other[3_000_000..3_000_010]);
    assert_eq!(client.get_with("/tape.bin", &[("range", "bytes=0-9")]).await.text(), other[..10]);
}

/// The last answer about a missing object is one without a body: to a HEAD, or with nothing in it.
#[tokio::test]
async fn a_missing_object_has_a_page_where_folders_are_looked_for() {
    let scene = Scene::new().await;
    let edge = scene.edge("index = \"index.html\"\ndirectory_redirect = true");
    let mut client = Client::new(edge.http, "a");
    let missing = client.get("/nothing").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(missing.text().starts_with("404 Not Found\n"), "{missing:?}");
    assert_eq!(missing.field("content-length"), missing.body.len().to_string());
    scene.put("docs/index.html", "docs").await;
    let redirect = client.get("/docs").await;
    assert_eq!((redirect.status, redirect.field("content-length").as_str()), (StatusCode::FOUND, "0"));
    assert!(!edge.log().contains("ERROR"), "{}", edge.log());
}

#[tokio::test]
async fn a_compressed_sibling_is_asked_of_the_bucket_first() {
    let scene = Scene::new().await;
    for (key, body, kind) in [
        ("docs/index.html", "original", "text/html"),
        ("docs/index.html.gz", "sibling", "binary/octet-stream"),
        ("app.js", "alone", "text/javascript"),
    ] {
        let attributes = Attributes { content_type: Some(kind), cache_control: Some("public, max-age=600") };
        scene.bucket.put("assets", key, attributes, stream::iter([Ok(Bytes::from(body))])).await.unwrap();
    }
    let more = "index = \"index.html\"\nspa_fallback = \"app.js\"\nerror_documents = { \"404\" = \"app.js\" }";
    let rules = "[sites.routes.compression]\nprecompressed = [\"gzip\"]\n";
    let config = format!("{}{rules}", scene.config(more));
    let edge = Edge::start_in(Arc::new(tempfile::tempdir().unwrap()), &config, &ENV);
    let mut client = Client::new(edge.http, "a.example");
    let gzip = [("accept-encoding", "gzip")];
    for (path, coding, kind, body, asked) in [
        ("/docs/", "gzip", "text/html", "sibling", 1),
        ("/docs/index.html", "gzip", "text/html", "sibling", 1),
        ("/app.js", "", "text/javascript", "alone", 2),
        ("/gone.css", "", "text/javascript", "alone", 3),
    ] {
        let before = scene.bucket.requests();
        for turn in 0..3 {
            let answer = client.get_with(path, &gzip).await;
            assert_eq!((answer.field("content-encoding").as_str(), answer.text().as_str()), (coding, body), "{path}");
            assert_eq!((answer.field("content-type").as_str(), answer.is_hit()), (kind, turn > 0), "{path}");
            assert_eq!(answer.field("vary"), "accept-encoding", "{path}");
        }
        assert_eq!(scene.bucket.requests() - before, asked, "{path}");
    }
    let plain = client.get("/docs/").await;
    assert_eq!((plain.field("content-encoding").as_str(), plain.text().as_str()), ("", "original"));
}
