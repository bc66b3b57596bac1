//! `selvedge why` and `Selvedge-Why` through the real binary: golden outputs of whole requests.

mod refusals;

use crate::support::edge::{BINARY, config, config_tls};
use crate::support::faulty::Origin;
use crate::support::{Client, Edge, tools};
use bytes::Bytes;
use http::Method;
use regex::Regex;
use std::net::SocketAddr;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const TOKEN: &str = "correct-horse-battery";

/// What the origin says for each path; every connection is closed after one response.
fn said(path: &str, head: &str) -> String {
    let fields = match path.split('?').next().unwrap() {
        "/fresh" | "/img/fresh" => "Cache-Control: max-age=60",
        "/shared" => "Cache-Control: max-age=60, s-maxage=30\r\nCache-Tag: blog, news",
        "/etag" if head.contains("if-none-match") => {
            return "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n"
                .into();
        }
        "/etag" => "Cache-Control: no-cache\r\nETag: \"1\"",
        "/vary" => "Cache-Control: max-age=60\r\nVary: Accept-Language, Cookie",
        "/cookie" => "Cache-Control: max-age=60\r\nSet-Cookie: session=oreo",
        "/theme" => "Cache-Control: max-age=60\r\nSet-Cookie: theme=dark",
        "/public" => "Cache-Control: public, max-age=60\r\nSurrogate-Key: all",
        "/account.php/x.css" => "Cache-Control: public, max-age=60\r\nContent-Type: text/html",
        "/private" => "Cache-Control: private, max-age=60",
        "/no-store" => "Cache-Control: no-store",
        "/star" => "Cache-Control: max-age=60\r\nVary: *",
        "/sie" => "Age: 10\r\nCache-Control: max-age=5, stale-if-error=600",
        "/swr" => "Age: 10\r\nCache-Control: max-age=5, stale-while-revalidate=600",
        "/old" => "Age: 10\r\nCache-Control: max-age=5, must-revalidate",
        "/big" => {
            let body = "x".repeat(2 << 20);
            let head = format!("Cache-Control: max-age=60\r\nContent-Length: {}", body.len());
            return format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{head}\r\n\r\n{body}");
        }
        "/huge" => "Cache-Control: max-age=60\r\nX: \r\nConnection: close\r\nContent-Length: 99999999\r\n\r\nhello",
        "/demanding" => {
            return "HTTP/1.1 428 Precondition Required\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into();
        }
        "/part" => {
            let head = "Cache-Control: max-age=60\r\nContent-Range: bytes 0-4/10\r\nContent-Length: 5";
            return format!("HTTP/1.1 206 Partial Content\r\nConnection: close\r\n{head}\r\n\r\nhello");
        }
        "/missing" => {
            let head = "Cache-Control: max-age=60\r\nContent-Length: 0";
            return format!("HTTP/1.1 404 Not Found\r\nConnection: close\r\n{head}\r\n\r\n");
        }
        "/app.js.br" => "Cache-Control: max-age=60",
        "/gone.js.br" => return "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into(),
        "/endless" => return "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nConnection: close\r\n\r\nhello".into(),
        _ => "X: nothing",
    };
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{fields}\r\nContent-Length: 5\r\n\r\nhello")
}

/// An origin by [`said`], which closes connections unanswered while `down`.
async fn origin(down: Arc<AtomicBool>) -> Origin {
    Origin::start(move |mut stream: TcpStream, head: String| {
        let down = down.load(Ordering::SeqCst);
        async move {
            assert!(!head.to_lowercase().contains("selvedge-debug"), "the debug field reached the origin");
            if !down {
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = stream.write_all(said(&path, &head.to_lowercase()).as_bytes()).await;
                let _ = stream.shutdown().await;
            }
            None
        }
    })
    .await
}

fn routes(address: SocketAddr) -> String {
    format!(
        "[debug]\ntoken = \"{TOKEN}\"\n\n[origins.app.http]\nservers = [\"{address}\"]\n\n\
         [origins.files.s3]\nendpoint = \"http://{address}\"\nbucket = \"b\"\nunsigned = true\n\n\
         [[sites]]\nname = \"www\"\nhosts = [\"*.example.com\"]\n\n\
         [[sites.routes]]\npath = \"/\"\norigin = \"app\"\nmax_request_body = \"1 KiB\"\n\n\
         [[sites.routes]]\npath = \"~^/img/\"\norigin = \"app\"\ncache = false\n\n\
         [[sites]]\nname = \"files\"\nhosts = [\"files.test\"]\n\n[[sites.routes]]\npath = \"/only/\"\norigin = \"files\"\n"
    )
}

/// Runs `selvedge why`: exit status, standard output, standard error.
async fn run(args: Vec<String>, token: &str) -> (ExitStatus, String, String) {
    let mut command = Command::new(BINARY);
    command.arg("why").args(args).env("SELVEDGE_DEBUG_TOKEN", token);
    let out = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (out.status, text(out.stdout), text(out.stderr))
}

fn args(address: SocketAddr, url: &str, more: &[&str]) -> Vec<String> {
    let edge = address.to_string();
    ["--edge", &edge, url].iter().chain(more).map(|arg| (*arg).to_owned()).collect()
}

/// The explanation with what differs from run to run blotted out: ids, times, the origin's port.
async fn why(edge: &Edge, url: &str, more: &[&str]) -> String {
    let (status, out, err) = run(args(edge.http, url, more), TOKEN).await;
    assert!(status.success(), "{url}: {err}");
    settled(&out)
}

fn settled(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, replacement) in [
        (r"id [0-9a-f]{32}", "id ID"),
        // What of the configuration led here has a test of its own.
        (r"(?m)^(from|because) .*\n", ""),
        (r"127\.0\.0\.1:\d+: ", "SERVER: "),
        (r"after [0-9.]+ ms", "after MS"),
        (r"variant is [0-9a-f]{32}", "variant is HASH"),
        (r"lifetime( +)\d+ s, from a soft purge", "lifetime${1}N s, from a soft purge"),
        (r"age \d+ s, (fresh|stale) for \d+ s", "age N s, $1 for N s"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, replacement).into_owned();
    }
    text
}

/// Compares line by line, indentation aside.
fn assert_text(text: &str, expected: &str) {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(text), lines(expected.trim()), "\n{text}");
}

const ROUTE: &str = "route      site www, host *.example.com, path /, origin app";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_then_a_hit_of_memory_and_a_hit_of_the_disk() {
    let origin = origin(Arc::default()).await;
    let edge = Edge::start(&config(&routes(origin.address)));
    let url = "http://www.example.com/shared?a=b";
    assert_text(
        &why(&edge, url, &[]).await,
        &format!(
            "request    GET {url} (id ID)
             {ROUTE}
             look-up    made
             key        http://www.example.com:80/shared?a=b
             forward    uri-miss: nothing is stored for this key
             origin     SERVER: 200 after MS
             stored     yes; lifetime 30 s, from Cache-Control: s-maxage
             purged by  host www.example.com, prefix www.example.com/shared and those above it, tags blog news
             answer     200, miss"
        ),
    );
    assert_text(
        &why(&edge, url, &[]).await,
        &format!(
            "request    GET {url} (id ID)
             {ROUTE}
             look-up    made
             key        http://www.example.com:80/shared?a=b
             found      in the memory tier, age N s, fresh for N s more
             lifetime   30 s, from Cache-Control: s-maxage
             verdict    used
             purged by  host www.example.com, prefix www.example.com/shared and those above it, tags blog news
             answer     200, hit"
        ),
    );
    // Larger than what is held in memory beside a disk tier.
    why(&edge, "http://www.example.com/big", &[]).await;
    tools::wait_until("the object is on the disk", Duration::from_secs(10), || {
        edge.metric(r#"selvedge_tier_objects{tier="disk"}"#) >= 1.0
    });
    let mut text = String::new();
    for _ in 0..100 {
        text = why(&edge, "http://www.example.com/big", &[]).await;
        if text.contains("disk tier") {
            break;
        }
    }
    assert!(text.contains("found      in the disk tier, age N s, fresh for N s more\n"), "{text}");
    let end = "verdict    used\npurged by  host www.example.com, prefix www.example.com/big and those above it\nanswer     200, hit\n";
    assert!(text.ends_with(end), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misses_of_every_kind_say_why_the_request_went_forward() {
    let origin = origin(Arc::default()).await;
    let edge = Edge::start(&config(&routes(origin.address)));
    // vary-miss
    let url = "http://www.example.com/vary";
    why(&edge, url, &["-H", "Accept-Language: de", "-H", "Cookie: c=topsecret"]).await;
    let missed = why(&edge, url, &["-H", "Accept-Language: fr"]).await;
    assert_text(
        &missed,
        &format!(
            "request    GET {url} (id ID)
             {ROUTE}
             look-up    made
             key        http://www.example.com:80/vary
             vary       accept-language, cookie; this request's variant is HASH
             forward    vary-miss: what is stored for this key is another variant
             origin     SERVER: 200 after MS
             stored     yes; lifetime 60 s, from Cache-Control: max-age
             purged by  host www.example.com, prefix www.example.com/vary and those above it
             answer     200, miss"
        ),
    );
    // request: a fresh response, refused; it has no validator, so it is fetched anew
    let url = "http://www.example.com/fresh";
    why(&edge, url, &[]).await;
    assert_text(
        &why(&edge, url, &["-H", "Cache-Control: no-cache"]).await,
        &format!(
            "request    GET {url} (id ID)
             {ROUTE}
             look-up    made; the request demands no-cache
             key        http://www.example.com:80/fresh
             found      in the memory tier, age N s, fresh for N s more
             lifetime   60 s, from Cache-Control: max-age
             verdict    refused by the request's no-cache
             forward    request: the request refuses what is stored
             origin     SERVER: 200 after MS
             validated  200: the stored response is replaced
             stored     yes; lifetime 60 s, from Cache-Control: max-age
             purged by  host www.example.com, prefix www.example.com/fresh and those above it
             answer     200, miss"
        ),
    );
    // stale
    let url = "http://www.example.com/old";
    why(&edge, url, &[]).await;
    let text = why(&edge, url, &[]).await;
    for line in [
        "found      in the memory tier, age N s, stale for N s\n",
        "verdict    stale: to be validated\n",
        "forward    stale: what is stored has to be validated\n",
        "validated  200: the stored response is replaced\n",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    // bypass, by the route and by the request
    assert_text(
        &why(&edge, "http://www.example.com/img/fresh", &[]).await,
        "request    GET http://www.example.com/img/fresh (id ID)
         route      site www, host *.example.com, path ~^/img/, origin app
         look-up    none, route: the route has `cache = false`
         forward    bypass: the cache does not take part
         origin     SERVER: 200 after MS
         answer     200, bypass",
    );
    let text = why(&edge, "http://www.example.com/fresh", &["-H", "Cache-Control: no-store"]).await;
    assert!(text.contains("look-up    none, no-store: the request says no-store\n"), "{text}");
    // method
    let text = why(&edge, "http://www.example.com/fresh", &["-X", "OPTIONS"]).await;
    assert_text(
        &text,
        &format!(
            "request    OPTIONS http://www.example.com/fresh (id ID)
             {ROUTE}
             look-up    none, method: only GET and HEAD are looked up
             forward    method: this method is the origin's alone
             origin     SERVER: 200 after MS
             answer     200, bypass"
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validation_tells_its_status() {
    let origin = origin(Arc::default()).await;
    let edge = Edge::start(&config(&routes(origin.address)));
    let url = "http://www.example.com/etag";
    why(&edge, url, &[]).await;
    assert_text(
        &why(&edge, url, &[]).await,
        &format!(
            "request    GET {url} (id ID)
             {ROUTE}
             look-up    made
             key        http://www.example.com:80/etag
             found      in the memory tier, age N s, stale for N s
             lifetime   0 s, from Cache-Control: no-cache, each use is to be validated
             verdict    stale: to be validated
             forward    stale: what is stored has to be validated
             origin     SERVER: 304 after MS
             validated  304: the stored response is good again
             stored     yes; lifetime 0 s, from Cache-Control: no-cache, each use is to be validated
             purged by  host www.example.com, prefix www.example.com/etag and those above it
             answer     200, revalidated"
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_answer_says_what_allowed_it() {
    let down = Arc::new(AtomicBool::new(false));
    let origin = origin(Arc::clone(&down)).await;
    let edge = Edge::start(&config(&routes(origin.address)));
    for path in ["sie", "old", "swr"] {
        why(&edge, &format!("http://www.example.com/{path}"), &[]).await;
    }
    down.store(true, Ordering::SeqCst);
    assert_text(
        &why(&edge, "http://www.example.com/sie", &[]).await,
        &format!(
            "request    GET http://www.example.com/sie (id ID)
             {ROUTE}
             look-up    made
             key        http://www.example.com:80/sie
             found      in the memory tier, age N s, stale for N s
             lifetime   5 s, from Cache-Control: max-age
             verdict    stale: to be validated
             origin     SERVER: http_response_incomplete
             stale      served, the origin failed
             purged by  host www.example.com, prefix www.example.com/sie and those above it
             answer     200, stale"
        ),
    );
    let refused = why(&edge, "http://www.example.com/old", &[]).await;
    assert!(refused.contains("origin     SERVER: http_response_incomplete\n"), "{refused}");
    let end = "answer     502 by the edge itself: http response incomplete\n";
    assert!(refused.ends_with(end), "{refused}");
    let updating = why(&edge, "http://www.example.com/swr", &[]).await;
    let end = "stale      served, it is being validated meanwhile\n\
               purged by  host www.example.com, prefix www.example.com/swr and those above it\nanswer     200, stale\n";
    assert!(updating.ends_with(end), "{updating}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collapsed_request_says_so() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |mut stream: TcpStream, _| {
        let gate = Arc::clone(&held);
        async move {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n";
            stream.write_all(format!("{head}hello").as_bytes()).await.unwrap();
            let _pass = gate.acquire().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            Some(stream)
        }
    })
    .await;
    let edge = Arc::new(Edge::start(&config(&routes(origin.address))));
    let address = edge.http;
    let first = tokio::spawn(async move { Client::new(address, "www.example.com").get("/x").await });
    tools::wait_until("the fetch is under way", Duration::from_secs(10), || {
        origin.count() == 1 && edge.metric("selvedge_cache_fills_in_flight") == 1.0
    });
    let asking = Arc::clone(&edge);
    let second = tokio::spawn(async move { why(&asking, "http://www.example.com/x", &[]).await });
    tools::wait_until("the second follows the first", Duration::from_secs(10), || {
        edge.metric("selvedge_cache_collapsed_total") == 1.0
    });
    gate.add_permits(1);
    assert_eq!(first.await.unwrap().text(), "hellohello");
    assert_text(
        &second.await.unwrap(),
        &format!(
            "request    GET http://www.example.com/x (id ID)
             {ROUTE}
             look-up    made
             key        http://www.example.com:80/x
             found      while it was being stored, age N s, fresh for N s more
             lifetime   60 s, from Cache-Control: max-age
             verdict    used
             purged by  host www.example.com, prefix www.example.com/x and those above it
             answer     200, collapsed: by the fetch of another request"
        ),
    );
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_edge_answers_itself_is_explained_too() {
    let origin = origin(Arc::default()).await;
    let edge = Edge::start(&config(&routes(origin.address)));
    assert_text(
        &why(&edge, "http://nobody.test/", &[]).await,
        "request    GET http://nobody.test/ (id ID)
         route      none: no site has this host
         answer     503 by the edge itself: no site is configured for this host",
    );
    assert_text(
        &why(&edge, "http://files.test/x", &[]).await,
        "request    GET http://files.test/x (id ID)
         route      host files.test, but no route of its site takes the path
         answer     404 by the edge itself: this site has no route for the path",
    );
    assert_text(
        &why(&edge, "http://files.test/only/x", &["-X", "DELETE"]).await,
        "request    DELETE http://files.test/only/x (id ID)
         route      site files, host files.test, path /only/, origin files
         answer     405 by the edge itself: allowed: GET, HEAD",
    );
    let text = why(&edge, "http://www.example.com/", &["-X", "TRACE"]).await;
    assert!(
        text.starts_with("request    TRACE without a target that can be read (id ID)\nanswer     405 by"),
        "{text}"
    );
    let text = why(&edge, "http://www.example.com/", &["-H", "Host: a b"]).await;
    assert!(text.contains("\nanswer     400 by the edge itself: "), "{text}");
    let text = why(&edge, "http://www.example.com/fresh?1", &["-H", "Cache-Control: only-if-cached"]).await;
    assert!(text.contains("look-up    made; the request demands only-if-cached\n"), "{text}");
    assert!(text.contains("forward    uri-miss: nothing is stored for this key\nanswer     504 by the edge"), "{text}");

    let field = ("selvedge-debug", TOKEN);
    let body = Bytes::from(vec![0; 2000]);
    let mut client = Client::new(edge.http, "www.example.com");
    let refused = client.send(Method::POST, "/", &[field], body).await.unwrap();
    let value = refused.field("selvedge-why");
    assert!(value.ends_with(r#""answer":{"status":413,"reason":"the request body is too large"}}"#), "{value}");
    assert_eq!(origin.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_token_nothing_is_told() {
    let origin = origin(Arc::default()).await;
    let edge = Edge::start(&config(&routes(origin.address)));
    let mut client = Client::new(edge.http, "www.example.com");
    let longer = format!("{TOKEN}x");
    for fields in [
        &[][..],
        &[("selvedge-debug", "correct-horse-batterz")],
        &[("selvedge-debug", &longer)],
        &[("selvedge-debug", "")],
        &[("selvedge-debug", TOKEN), ("selvedge-debug", TOKEN)],
    ] {
        for path in ["/fresh", "/private", "/img/fresh"] {
            let answer = client.get_with(path, fields).await;
            assert!(!answer.headers.contains_key("selvedge-why"), "{fields:?}: {:?}", answer.headers);
            assert!(!answer.headers.contains_key("server-timing"), "{:?}", answer.headers);
        }
        let own = Client::new(edge.http, "nobody.test").get_with("/", fields).await;
        assert!(!own.headers.contains_key("selvedge-why"), "{fields:?}: {:?}", own.headers);
    }
    // The field is no part of the key, and nothing of it is stored.
    assert!(client.get_with("/fresh", &[("selvedge-debug", TOKEN)]).await.field("selvedge-why").contains("used"));
    let answer = client.get("/fresh").await;
    assert!(answer.is_hit() && !answer.headers.contains_key("selvedge-why"), "{:?}", answer.headers);
    let (status, out, err) = run(args(edge.http, "http://www.example.com/fresh", &[]), "another-token-of-mine").await;
    assert_eq!((status.code(), out.as_str()), (Some(64), ""), "{err}");
    assert!(err.contains("without an explanation") && !err.contains("another-token"), "{err}");

    let quiet = Edge::start(&config(&routes(origin.address).replace("token = ", "# token = ")));
    let answer = Client::new(quiet.http, "www.example.com").get_with("/fresh", &[("selvedge-debug", TOKEN)]).await;
    assert!(!answer.headers.contains_key("selvedge-why"), "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_the_token_nor_what_a_client_sent_in_its_fields_is_told() {
    let origin = origin(Arc::default()).await;
    let edge = Edge::start(&config(&routes(origin.address)));
    let mut client = Client::new(edge.http, "www.example.com");
    for path in ["/vary", "/cookie", "/private", &format!("/fresh?{TOKEN}")] {
        for _ in 0..2 {
            let fields = [
                ("selvedge-debug", TOKEN),
                ("cookie", "session=chocolate"),
                ("authorization", "Bearer marzipan"),
                ("accept-language", "nougat"),
            ];
            let answer = client.get_with(path, &fields).await;
            let value = answer.field("selvedge-why");
            assert!(value.starts_with(r#"{"id":"#), "{path}: {value}");
            for secret in [TOKEN, "chocolate", "marzipan", "nougat", "oreo"] {
                assert!(!value.contains(secret), "{path}: {secret} in {value}");
            }
        }
    }
    assert!(!edge.log().contains("marzipan") && !edge.log().contains("chocolate"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_https_the_edges_certificate_is_verified() {
    let origin = origin(Arc::default()).await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let certs = dir.path().join("certs");
    let made =
        Command::new(BINARY).args(["cert", "self-signed", "www.example.com", "--out"]).arg(&certs).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let edge = Edge::start_in(Arc::clone(&dir), &config_tls(&routes(origin.address)), &[]);
    let address = edge.https.unwrap();
    let url = "https://www.example.com/fresh";
    let file = certs.join("www.example.com.crt");
    let (status, out, err) = run(args(address, url, &["--cacert", file.to_str().unwrap()]), TOKEN).await;
    assert!(status.success(), "{err}");
    assert!(out.contains("key        https://www.example.com:443/fresh\n"), "{out}");
    let (status, out, err) = run(args(address, url, &["--insecure", "--json"]), TOKEN).await;
    assert!(status.success(), "{err}");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((json["found"]["tier"].as_str(), json["answer"]["cache"].as_str()), (Some("memory"), Some("hit")));
    let (status, out, err) = run(args(address, url, &[]), TOKEN).await;
    assert_eq!((status.code(), out.as_str()), (Some(69), ""), "{err}");
    let resolve = format!("www.example.com:{}:127.0.0.1", address.port());
    let (url, field) =
        (format!("https://www.example.com:{}/fresh", address.port()), format!("Selvedge-Debug: {TOKEN}"));
    let http2 = tools::curl(&["--http2", "-k", "--resolve", &resolve, "-H", &field, &url]);
    assert!(http2.starts_with("HTTP/2 200") && http2.contains("selvedge-why: {\"id\":"), "{http2}");
    assert!(err.contains("--cacert"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_tells_timings_where_it_wants_to() {
    let origin = origin(Arc::default()).await;
    let text = routes(origin.address)
        .replace("[debug]\n", "[debug]\nserver_timing = true\n")
        .replace("name = \"files\"\n", "name = \"files\"\nserver_timing = false\n");
    let edge = Edge::start(&config(&text));
    let mut client = Client::new(edge.http, "www.example.com");
    let missed = client.get("/fresh").await.field("server-timing");
    assert!(Regex::new(r"^cache;desc=miss, origin;dur=\d+\.\d$").unwrap().is_match(&missed), "{missed}");
    assert_eq!(client.get("/fresh").await.field("server-timing"), "cache;desc=hit");
    let quiet = Client::new(edge.http, "files.test").get("/only/x").await;
    assert!(!quiet.headers.contains_key("server-timing"), "{:?}", quiet.headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_route_is_from_what_it_goes_before_and_which_rule_decided() {
    let origin = origin(Arc::default()).await;
    let text = config(&format!(
        "[debug]\ntoken = \"{TOKEN}\"\n\n[origins.old.http]\nservers = [\"{0}\"]\n[origins.new.http]\nservers = [\"{0}\"]\n\
         [[sites]]\nname = \"all\"\nhosts = [\"*\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"old\"\n\
         [[sites]]\nname = \"wild\"\nhosts = [\"*.example.com\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"old\"\n\
         [[sites]]\nname = \"www\"\nhosts = [\"www.example.com\"]\n\
         [[sites.rules]]\nname = \"canary\"\nmatch = {{ headers = {{ X-Beta = true }} }}\n\
         forward = {{ groups = [{{ name = \"v2\", origin = \"new\" }}] }}\n\
         [[sites.rules]]\nname = \"closed\"\nmatch = {{ paths = [\"=/closed\"] }}\nrespond = {{ status = 503 }}\n\
         [[sites.routes]]\npath = \"/\"\norigin = \"old\"\n[[sites.routes]]\npath = \"/api\"\norigin = \"old\"\n\
         [[sites.routes]]\npath = \"/api/v1\"\norigin = \"old\"\n",
        origin.address
    ));
    let line_of = |part: &str| {
        let place = text.lines().position(|line| line.contains(part)).unwrap();
        let header = text.lines().take(place).collect::<Vec<_>>();
        header.iter().rposition(|line| line.starts_with("[[")).unwrap() + 1
    };
    let edge = Edge::start(&text);
    let ask = async |url: &str, more: &[&str]| {
        let (status, out, err) = run(args(edge.http, url, more), TOKEN).await;
        assert!(status.success(), "{url}: {err}");
        out
    };
    let out = ask("http://www.example.com/api/v1/x", &["-H", "X-Beta: 1"]).await;
    let expected = [
        "route      site www, host www.example.com, path /api/v1, origin new".to_owned(),
        format!("selvedge.toml:{}", line_of("path = \"/api/v1\"")),
        "because    an exact host goes before patterns; no regular expression fits the path, and of prefixes the longest \
         counts; so not host *.example.com of site wild, host * of site all, path /api to origin old, path / to origin old"
            .to_owned(),
        "rule       canary: forward, group v2 (".to_owned(),
        format!("selvedge.toml:{})", line_of("name = \"canary\"") ),
    ];
    for part in expected {
        assert!(out.contains(&part), "{part}\n{out}");
    }
    let out = ask("http://www.example.com/closed", &[]).await;
    assert!(out.contains("rule       closed: respond (") && out.contains("answer     503"), "{out}");
    let out = ask("http://a.example.com/", &[]).await;
    assert!(out.contains("of wildcards the longest leading one goes first") && !out.contains("\nrule "), "{out}");
    assert!(out.contains("so not host * of site all"), "{out}");
}
