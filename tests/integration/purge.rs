//! Purging by every scope, hard and soft, by the command, the admin listener and the PURGE method; and warming.

use crate::support::edge::{BINARY, config, config_tls, one_origin};
use crate::support::faulty::Origin;
use crate::support::nginx::Nginx;
use crate::support::{Answer, Client, Edge, tools};
use bytes::Bytes;
use http::{Method, StatusCode};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const TAGGED: &str = "location / { add_header Cache-Control max-age=3600; add_header Cache-Tag 'page,Front page-2'; }
    location /blog { add_header Cache-Control max-age=3600; add_header Surrogate-Key 'blog news'; }
    location /blogs { add_header Cache-Control max-age=3600; add_header x-amz-meta-cache-tag 'other'; }";

fn origin() -> Nginx {
    let nginx = Nginx::start(TAGGED);
    for page in ["page.html", "blog/one.html", "blog/two.html", "blogs/x.html"] {
        nginx.write(page, page.as_bytes());
    }
    nginx
}

fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

fn purge(edge: &Edge, args: &[&str]) -> String {
    let out = run(&[&["purge", "--admin", &edge.admin.to_string()], args].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Which of these are hits; what is none becomes one.
async fn hits(client: &mut Client, paths: &[&str]) -> Vec<bool> {
    let mut hits = Vec::new();
    for path in paths {
        hits.push(client.get(path).await.is_hit());
    }
    hits
}

const PAGES: [&str; 4] = ["/page.html", "/blog/one.html", "/blog/two.html?x=1", "/blogs/x.html"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scope_purges_what_it_covers_before_the_command_returns() {
    let nginx = origin();
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "www.example.com");
    let mut other = Client::new(edge.http, "other.example.com");
    for (args, kept) in [
        (&["http://www.example.com/page.html"][..], [false, true, true, true]),
        (&["--prefix", "www.example.com/blog"], [true, false, false, true]),
        (&["--prefix", "https://WWW.example.com/blog/two.html"], [true, true, false, true]),
        (&["--tag", "news"], [true, false, false, true]),
        (&["--tag", "News"], [true; 4]),
        (&["--tag", "Front", "--tag", "other"], [false, true, true, false]),
        (&["--host", "www.example.com"], [false; 4]),
        (&["--all"], [false; 4]),
    ] {
        hits(&mut client, &PAGES).await;
        other.get("/blogs/x.html").await;
        assert_eq!(hits(&mut client, &PAGES).await, [true; 4]);
        let told = purge(&edge, args);
        assert!(told.contains("(request "), "{told}");
        assert_eq!(hits(&mut client, &PAGES).await, kept, "{args:?}");
        let others = !args.contains(&"--all") && !args.contains(&"other");
        assert_eq!(other.get("/blogs/x.html").await.is_hit(), others, "{args:?}");
    }
    let answer = client.get("/page.html").await;
    for field in ["cache-tag", "surrogate-key", "x-amz-meta-cache-tag"] {
        assert!(!answer.headers.contains_key(field), "{field} is for caches");
        assert!(!client.get("/blog/one.html").await.headers.contains_key(field), "{field}");
    }
    let log = edge.log();
    assert!(
        log.contains("purge carried out") && log.contains(r#"tag=\"news\""#) || log.contains(r#"tag="news""#),
        "{log}"
    );
}

/// An origin whose content is the number of the last change.
async fn counting(version: Arc<AtomicU64>) -> Origin {
    Origin::start(move |mut stream, _| {
        let body = version.load(Ordering::SeqCst).to_string();
        async move {
            let fields = "Cache-Control: max-age=3600\r\nCache-Tag: all";
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
            Some(stream)
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_request_after_a_purge_is_answered_with_what_was_there_before() {
    let (version, purged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let origin = counting(Arc::clone(&version)).await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let over = Arc::new(AtomicBool::new(false));
    let mut load = tokio::task::JoinSet::new();
    for reader in 0..6 {
        let (purged, over, address) = (Arc::clone(&purged), Arc::clone(&over), edge.http);
        load.spawn(async move {
            let mut client = Client::new(address, "a.example");
            let mut hits = 0;
            for turn in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let least = purged.load(Ordering::SeqCst);
                let answer = client.get(&format!("/x/{}", (turn + reader) % 5)).await;
                let seen: u64 = answer.text().parse().unwrap();
                assert!(seen >= least, "{seen} after the purge of what was before {least}: {}", answer.cache_status());
                hits += u64::from(answer.is_hit());
            }
            hits
        });
    }
    let all: Vec<String> = (0..5).map(|n| format!("http://a.example/x/{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let scopes = [&["--tag", "all"][..], &["--prefix", "a.example/x"], &["--host", "a.example"], &["--all"], &all];
    for round in 1..=30 {
        version.store(round, Ordering::SeqCst);
        let scope = scopes[usize::try_from(round).unwrap() % scopes.len()];
        let soft: &[&str] = if round % 10 == 5 { &["--soft"] } else { &[] };
        let (address, args) = (edge.admin.to_string(), [soft, scope].concat().join("\n"));
        let done = tokio::task::spawn_blocking(move || {
            let args: Vec<&str> = args.lines().collect();
            run(&[&["purge", "--admin", &address], &args[..]].concat())
        });
        let done = done.await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        purged.store(round, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    over.store(true, Ordering::SeqCst);
    let mut hits = 0;
    while let Some(done) = load.join_next().await {
        hits += done.unwrap();
    }
    assert!(hits > 0, "what was fetched was stored in between");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_takes_every_scope_and_answers_what_it_knows() {
    let nginx = origin();
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    client.get("/page.html").await;
    let post = |body: &str| {
        let head = "POST /purge HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ";
        tools::raw(edge.admin, format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes())
    };
    let answer = post(r#"{"urls": ["http://a.example/page.html", "http://a.example/none"], "soft": true}"#);
    let json: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((json["purged"].as_u64(), &json["soft"]), (Some(1), &true.into()), "{answer}");
    assert_eq!(json["request_id"].as_str().unwrap().len(), 32);
    let answer = post("tag=page&host=a.example&prefix=a.example/x");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"purged\":null"), "{answer}");
    assert!(!client.get("/page.html").await.is_hit());
    for bad in ["tag=a%20b", "prefix=/x", r#"{"tags": ["ok", ""]}"#] {
        let answer = post(bad);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("cannot be purged"), "{bad}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_purge_has_the_origin_confirm_what_is_stored() {
    let nginx = origin();
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    let confirmed =
        |answer: &Answer| ["fwd=stale", "fwd-status=304"].iter().all(|part| answer.cache_status().contains(part));
    for args in
        [&["--tag", "news"][..], &["--prefix", "a.example/blog"], &["http://a.example/blog/one.html"], &["--all"]]
    {
        client.get("/blog/one.html").await;
        assert!(client.get("/blog/one.html").await.is_hit());
        purge(&edge, &[&["--soft"], args].concat());
        let answer = client.get("/blog/one.html").await;
        assert!(confirmed(&answer), "{args:?}: {}", answer.cache_status());
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "blog/one.html"));
        let again = client.get("/blog/one.html").await;
        assert!(again.is_hit(), "fresh again: {}", again.cache_status());
    }
    let mut expected = vec!["GET /blog/one.html 200"];
    expected.resize(5, "GET /blog/one.html 304");
    assert_eq!(nginx.requests(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_purge_has_each_variant_confirmed_once() {
    let nginx = Nginx::start(
        "location / { add_header Cache-Control max-age=3600; add_header Vary Accept-Language; add_header Cache-Tag t; }",
    );
    nginx.write("page.html", b"page");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    for language in ["de", "fr"] {
        client.get_with("/page.html", &[("accept-language", language)]).await;
    }
    purge(&edge, &["--soft", "--tag", "t"]);
    for language in ["fr", "de", "fr", "de"] {
        let answer = client.get_with("/page.html", &[("accept-language", language)]).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "page"), "{}", answer.cache_status());
    }
    let [get, confirm] = ["GET /page.html 200", "GET /page.html 304"];
    assert_eq!(nginx.requests(), [get, get, confirm, confirm]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_by_tag_survive_kill_9() {
    let nginx = origin();
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    hits(&mut client, &PAGES).await;
    tools::wait_until("all are on disk", Duration::from_secs(10), || {
        edge.metric(r#"selvedge_tier_objects{tier="disk"}"#) >= 4.0
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    purge(&edge, &["--tag", "news"]);
    purge(&edge, &["--tag", "page", "--soft"]);
    let edge = edge.crash_and_restart();
    let mut client = Client::new(edge.http, "a.example");
    let page = client.get("/page.html").await;
    assert!(page.cache_status().contains("fwd-status=304"), "{}", page.cache_status());
    assert_eq!(hits(&mut client, &PAGES).await, [true, false, false, true]);
    let edge = edge.crash_and_restart();
    let mut client = Client::new(edge.http, "a.example");
    assert!(client.get("/blogs/x.html").await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_purge_method_wants_its_token() {
    let nginx = origin();
    let table = "[purge]\nmethod = true\ntoken = \"s3cret\"\nexpose_tags = true\n\n";
    let edge = Edge::start(&config(&format!("{table}{}", one_origin(nginx.address))));
    let mut client = Client::new(edge.http, "a.example");
    assert_eq!(client.get("/page.html").await.field("cache-tag"), "page,Front page-2", "exposed as configured");
    let send = async |client: &mut Client, fields: &[(&str, &str)]| {
        client.send(Method::from_bytes(b"PURGE").unwrap(), "/page.html", fields, Bytes::new()).await.unwrap()
    };
    for fields in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "s3cret")]] {
        let answer = send(&mut client, fields).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{fields:?}");
        assert!(answer.field("www-authenticate").starts_with("Bearer "));
        assert!(client.get("/page.html").await.is_hit());
    }
    let token = ("authorization", "Bearer s3cret");
    let answer = send(&mut client, &[token, ("soft-purge", "1")]).await;
    assert_eq!((answer.status, answer.field("content-type").as_str()), (StatusCode::OK, "application/json"));
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&json["purged"], &json["soft"]), (&1.into(), &true.into()), "{json}");
    assert_eq!(json["results"][0]["url"], "http://a.example/page.html");
    assert!(client.get("/page.html").await.cache_status().contains("fwd-status=304"));
    assert_eq!(send(&mut client, &[token]).await.status, StatusCode::OK);
    assert!(!client.get("/page.html").await.cache_status().contains("304"));
    assert!(!edge.log().contains("s3cret"));
    assert!(nginx.requests().iter().all(|request| request.starts_with("GET ")), "{:?}", nginx.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_purge_method_needs_no_token_on_loopback_and_is_the_origin_s_by_default() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=3600; return 200 $request_method; }");
    let method = Method::from_bytes(b"PURGE").unwrap();
    let open = Edge::start(&config(&format!("[purge]\nmethod = true\n\n{}", one_origin(nginx.address))));
    let mut client = Client::new(open.http, "a.example");
    client.get("/").await;
    let page = client.send(method.clone(), "/", &[("origin", "https://evil.example")], Bytes::new()).await.unwrap();
    assert_eq!(page.status, StatusCode::FORBIDDEN, "a web page");
    assert!(client.get("/").await.is_hit());
    assert_eq!(client.send(method.clone(), "/", &[], Bytes::new()).await.unwrap().status, StatusCode::OK);
    assert!(!client.get("/").await.is_hit());

    let off = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(off.http, "a.example");
    client.get("/").await;
    assert_eq!(client.send(method, "/", &[], Bytes::new()).await.unwrap().text(), "PURGE");
    let after = client.get("/").await;
    assert!(!after.is_hit(), "the origin took a method that may be unsafe: RFC 9111 section 4.4");

    let exposed = config(&format!("[purge]\nmethod = true\n\n{}", one_origin(nginx.address)));
    let (status, log) = Edge::refused(&exposed.replace("http = [\"127.0.0.1:0\"]", "http = [\"0.0.0.0:0\"]"));
    assert_eq!(status.code(), Some(64));
    assert!(log.contains("lets every client purge"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_warmed_is_a_hit() {
    let nginx = origin();
    let map = "<urlset><url><loc>https://localhost/page.html</loc></url><url><loc>https://localhost/blog/one.html</loc></url></urlset>";
    nginx.write("sitemap.xml", map.as_bytes());
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let certs = dir.path().join("certs");
    assert!(run(&["cert", "self-signed", "--out", certs.to_str().unwrap(), "localhost"]).status.success());
    let edge = Edge::start_in(dir, &config_tls(&one_origin(nginx.address)), &[]);
    let https = edge.https.unwrap().to_string();
    let certificate = edge.config_file().with_file_name("certs").join("localhost.crt");
    let trusted = ["--cacert", certificate.to_str().unwrap()];
    let warm = |args: &[&str]| {
        let out = run(&[&["warm", "--edge", &https], args].concat());
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, out, err) = warm(&[&trusted[..], &["--sitemap", "https://localhost/sitemap.xml"]].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.starts_with("2 of 2 fetched") && out.ends_with("status  200: 2\ncache   stored: 2\n"), "{out}");
    let (_, out, _) = warm(&["--insecure", "https://localhost/page.html", "https://localhost/blog/one.html"]);
    assert!(out.ends_with("cache   hit: 2\n"), "{out}");
    let (code, out, err) = warm(&["https://localhost/page.html"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(err.starts_with("failed  https://localhost/page.html: TLS with"), "an unknown certificate: {err}");
    let (code, _, err) = warm(&["--insecure", "https://localhost/no.html", "https://localhost/page.html"]);
    assert_eq!((code, err.as_str()), (Some(1), "failed  https://localhost/no.html: answered 404\n"));
    let http = edge.http.to_string();
    let out = run(&["warm", "--edge", &http, "http://a.example/blogs/x.html"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(Client::new(edge.http, "a.example").get("/blogs/x.html").await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_request_after_a_purge_by_tag_gets_what_was_purged() {
    const PATHS: usize = 12;
    let (state, floor) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(1)));
    let present = Arc::clone(&state);
    let origin = Origin::start(move |mut stream, _| {
        let body = present.load(Ordering::SeqCst).to_string();
        async move {
            let head = format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nCache-Tag: t\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.ok()?;
            Some(stream)
        }
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut load = tokio::task::JoinSet::new();
    let done = Arc::new(AtomicBool::new(false));
    for reader in 0..4 {
        let (floor, done, address) = (Arc::clone(&floor), Arc::clone(&done), edge.http);
        load.spawn(async move {
            let mut client = Client::new(address, "a.example");
            let (mut at, mut hits) = (reader, 0);
            while !done.load(Ordering::SeqCst) {
                at += 1;
                let least = floor.load(Ordering::SeqCst);
                let answer = client.get(&format!("/{}", at % PATHS)).await;
                let got: u64 = answer.text().parse().unwrap();
                assert!(got >= least, "state {got} after the purge of all before {least}: {}", answer.cache_status());
                hits += usize::from(answer.is_hit());
            }
            hits
        });
    }
    let mut admin = Client::new(edge.admin, "127.0.0.1");
    for round in 2..40u64 {
        state.store(round, Ordering::SeqCst);
        let scopes = Bytes::from_static(b"tag=t");
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let answer = admin.send(Method::POST, "/purge", &kind, scopes).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        floor.store(round, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done.store(true, Ordering::SeqCst);
    let mut hits = 0;
    while let Some(reader) = load.join_next().await {
        hits += reader.unwrap();
    }
    assert!(hits > PATHS, "{hits} hits");
}
