//! Files that a site keeps compressed beside their originals, before nginx and before a bucket.

use crate::support::edge::config;
use crate::support::nginx::Nginx;
use crate::support::{Answer, Client, Edge};
use bytes::Bytes;
use http::{Method, StatusCode};
use std::io::{Read, Write};
use std::net::SocketAddr;

/// A site for every host whose only route looks for siblings; `more` goes on with the route's keys.
fn site(address: SocketAddr, more: &str) -> String {
    config(&format!(
        "[origins.app.http]\nservers = [\"{address}\"]\n\n[[sites]]\nhosts = [\"*\"]\n\n[[sites.routes]]\npath = \"/\"\n\
         origin = \"app\"\n{more}\n[sites.routes.compression]\nprecompressed = [\"br\", \"gzip\"]\n"
    ))
}

fn brotli(text: &[u8]) -> Vec<u8> {
    let mut packed = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
    packed.write_all(text).unwrap();
    packed.into_inner()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text).unwrap();
    packed.finish().unwrap()
}

/// The content without its coding, decoded once.
fn decoded(answer: &Answer) -> String {
    let mut out = Vec::new();
    let body = &answer.body[..];
    match answer.field("content-encoding").as_str() {
        "br" => brotli::Decompressor::new(body, 4096).read_to_end(&mut out).unwrap(),
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap(),
        "zstd" => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut out).unwrap(),
        "" => body.to_vec().as_slice().read_to_end(&mut out).unwrap(),
        other => panic!("{other}"),
    };
    String::from_utf8(out).unwrap()
}

const ALL: [(&str, &str); 1] = [("accept-encoding", "gzip, br, zstd")];
const GZIP: [(&str, &str); 1] = [("accept-encoding", "gzip")];

/// An origin whose siblings say what they are, so that they can be told from what the edge compresses.
fn origin(server: &str) -> Nginx {
    let nginx = Nginx::start(&format!("etag on; {server}"));
    nginx.write("app.js", "original ".repeat(300).as_bytes());
    nginx.write("app.js.br", &brotli(b"the br sibling"));
    nginx.write("app.js.gz", &gzip(b"the gzip sibling"));
    nginx.write("site.css", "css ".repeat(300).as_bytes());
    nginx.write("data.bin", b"bin");
    nginx
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_answers_in_place_of_its_original_and_its_absence_is_remembered() {
    let nginx = origin("location / { add_header Cache-Control max-age=60; }");
    let edge = Edge::start(&site(nginx.address, ""));
    let mut client = Client::new(edge.http, "a.example");
    let original = "original ".repeat(300);
    let mut tags = Vec::new();
    for (accepted, coding, text, kind) in [
        (&ALL[..], "br", "the br sibling", "text/javascript"),
        (&GZIP, "gzip", "the gzip sibling", "text/javascript"),
        (&[("accept-encoding", "zstd")], "zstd", original.as_str(), "application/javascript"),
        (&[], "", original.as_str(), "application/javascript"),
    ] {
        for turn in 0..2 {
            let answer = client.get_with("/app.js", accepted).await;
            assert_eq!((answer.field("content-encoding").as_str(), decoded(&answer).as_str()), (coding, text));
            assert_eq!((answer.field("content-type").as_str(), answer.is_hit()), (kind, turn == 1), "{coding}");
            assert_eq!(answer.field("vary").to_ascii_lowercase(), "accept-encoding", "{coding}");
            assert!(!answer.headers.contains_key("selvedge-sibling"), "{:?}", answer.headers);
            if turn == 1 {
                tags.push(answer.field("etag"));
            }
        }
    }
    assert!(tags[0].starts_with('"') && tags[1].starts_with('"'), "bytes of their own, tags of their own: {tags:?}");
    let asked = ["GET /app.js.br 200", "GET /app.js.gz 200", "GET /app.js 200", "GET /app.js 200"];
    assert_eq!(nginx.requests(), asked);
    let all: std::collections::HashSet<&String> = tags.iter().collect();
    assert_eq!(all.len(), 4, "{tags:?}");

    // Conditions, HEAD and ranges, from what is stored.
    let same = client.get_with("/app.js", &[ALL[0], ("if-none-match", &tags[0])]).await;
    assert_eq!(
        (same.status, same.field("vary").to_ascii_lowercase()),
        (StatusCode::NOT_MODIFIED, "accept-encoding".into())
    );
    let other = client.get_with("/app.js", &[ALL[0], ("if-none-match", &tags[1])]).await;
    assert_eq!((other.status, decoded(&other).as_str()), (StatusCode::OK, "the br sibling"));
    let head = client.send(Method::HEAD, "/app.js", &ALL, Bytes::new()).await.unwrap();
    assert_eq!((head.field("content-encoding").as_str(), head.body.len()), ("br", 0));
    let part = client.get_with("/app.js", &[ALL[0], ("range", "bytes=0-7")]).await;
    assert_eq!((part.status, part.text().as_str()), (StatusCode::PARTIAL_CONTENT, "original"), "of the original");
    let mixed = client.get_with("/app.js", &[ALL[0], ("range", "bytes=0-7"), ("if-range", &tags[0])]).await;
    assert_eq!((mixed.status, mixed.text()), (StatusCode::OK, original), "no part under another coding's tag");
    assert_eq!(nginx.requests().len(), asked.len());

    // No sibling: one look for it while the original is fresh, which is compressed as ever.
    for turn in 0..3 {
        let answer = client.get_with("/site.css", &ALL).await;
        assert_eq!((answer.is_hit(), answer.field("content-encoding").as_str()), (turn > 0, "br"));
        assert!(answer.field("etag").starts_with("W/") && decoded(&answer).starts_with("css css"), "{answer:?}");
    }
    client.get_with("/data.bin", &ALL).await;
    assert_eq!(client.get_with("/data.bin", &ALL).await.field("vary"), "");
    client.get_with("/site.css?v=1", &GZIP).await;
    let more = [
        "GET /site.css.br 404",
        "GET /site.css 200",
        "GET /data.bin 200",
        "GET /site.css.gz?v=1 404",
        "GET /site.css?v=1 200",
    ];
    assert_eq!(nginx.requests()[asked.len()..], more);

    // A purge of the original takes all.
    let body = Bytes::from_static(b"{\"urls\":[\"http://a.example/app.js\"]}");
    let mut admin = Client::new(edge.admin, "127.0.0.1");
    assert_eq!(admin.send(Method::POST, "/purge", &[], body).await.unwrap().status, StatusCode::OK);
    for accepted in [&ALL[..], &GZIP, &[]] {
        assert!(!client.get_with("/app.js", accepted).await.is_hit(), "{accepted:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validation_asks_about_what_is_stored_and_siblings_may_come_and_go() {
    let nginx = origin("location / { add_header Cache-Control no-cache; }");
    let edge = Edge::start(&site(nginx.address, ""));
    let mut client = Client::new(edge.http, "a.example");
    let mut asked = 0;
    let mut expect = |requests: &[&str]| {
        let all = nginx.requests();
        assert_eq!(all[asked..], *requests);
        asked = all.len();
    };
    let sibling = async |client: &mut Client| {
        let answer = client.get_with("/app.js", &ALL).await;
        assert_eq!(
            (decoded(&answer).as_str(), answer.field("content-type").as_str()),
            ("the br sibling", "text/javascript")
        );
        answer
    };
    sibling(&mut client).await;
    expect(&["GET /app.js.br 200"]);
    for _ in 0..2 {
        let again = sibling(&mut client).await;
        assert!(again.cache_status().contains("fwd-status=304"), "{}", again.cache_status());
        expect(&["GET /app.js.br 304"]);
    }
    std::fs::remove_file(nginx.root().join("app.js.br")).unwrap();
    for status in ["200", "304", "304"] {
        let answer = client.get_with("/app.js", &ALL).await;
        assert!(decoded(&answer).starts_with("original"), "{}", answer.cache_status());
        expect(&["GET /app.js.br 404", &format!("GET /app.js {status}")]);
    }
    nginx.write("app.js.br", &brotli(b"the br sibling"));
    sibling(&mut client).await;
    expect(&["GET /app.js.br 200"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_sibling_is_not_taken_for_one_and_nothing_is_encoded_twice() {
    // A page for every path that there is not, and a server that knows its siblings' coding.
    let nginx = origin(
        "location / { add_header Cache-Control max-age=60; try_files $uri /index.html; }\n\
         location ~ \\.gz$ { add_header Cache-Control max-age=60; add_header Content-Encoding gzip; default_type text/javascript; types { } }",
    );
    nginx.write("index.html", "<p>page</p>".repeat(200).as_bytes());
    let direct = "[[sites.routes]]\npath = \"/direct/\"\norigin = \"app\"\ncache = false\n[sites.routes.compression]\nprecompressed = [\"br\"]\n";
    let edge = Edge::start(&format!("{}{direct}", site(nginx.address, "")));
    let mut client = Client::new(edge.http, "a.example");
    for (path, accepted, text) in [
        ("/site.css", &ALL, "css css"),
        ("/about.html", &ALL, "<p>page"),
        ("/app.js", &GZIP, "the gzip sibling"),
        ("/direct/app.js", &ALL, "<p>page"),
    ] {
        for _ in 0..2 {
            let answer = client.get_with(path, accepted).await;
            assert!(decoded(&answer).starts_with(text), "{path}: {answer:?}");
            assert_eq!(answer.headers.get_all("content-encoding").iter().count(), 1, "{path}");
        }
    }
    let asked = nginx.requests();
    let expected = ["GET /site.css.br 200", "GET /site.css 200", "GET /about.html.br 200", "GET /about.html 200"];
    assert_eq!(asked[..4], expected);
    assert_eq!(asked[4..], ["GET /app.js.gz 200", "GET /direct/app.js 200", "GET /direct/app.js 200"]);
}
