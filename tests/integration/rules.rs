//! What an operator says of routes, before nginx as the origin.

use crate::support::edge::config;
use crate::support::nginx::Nginx;
use crate::support::{Answer, Client, Edge};
use bytes::Bytes;
use http::{Method, StatusCode};
use std::net::SocketAddr;

/// A site for every host whose only route has `rules`.
fn site(address: SocketAddr, rules: &str) -> String {
    config(&format!(
        "[origins.app.http]\nservers = [\"{address}\"]\n\n[[sites]]\nhosts = [\"*\"]\n\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n{rules}"
    ))
}

fn assert_hit(answer: &Answer) {
    assert!(answer.is_hit(), "{} {}", answer.status, answer.cache_status());
}

fn assert_no_hit(answer: &Answer) {
    assert!(!answer.is_hit(), "{} {}", answer.status, answer.cache_status());
}

fn stored(answer: &Answer) -> bool {
    answer.cache_status().contains("; stored")
}

async fn purge(edge: &Edge, url: &str) {
    let body = Bytes::from(format!("{{\"urls\":[\"{url}\"]}}"));
    let mut admin = Client::new(edge.admin, "127.0.0.1");
    let answer = admin.send(Method::POST, "/purge", &[], body).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

/// An origin that says what it was asked for.
const ECHO: &str = "location / { add_header Cache-Control $arg_cc; default_type text/plain; \
    return 200 \"$request_uri|$http_cookie|$http_user_agent|$http_x_device_class|$http_x_original_uri|$http_x_country\"; }";

#[tokio::test]
async fn what_does_not_count_in_the_query_reaches_neither_key_nor_origin() {
    let nginx = Nginx::start(ECHO);
    let rules = "[sites.routes.cache]\ndefault_ttl = \"1m\"\n[sites.routes.cache.key]\nignore_tracking = true\nquery_ignore = [\"x_*\"]\nsort_query = true\n";
    let edge = Edge::start(&site(nginx.address, rules));
    let mut client = Client::new(edge.http, "a.example");
    let first = client.get("/p?b=1&utm_source=evil&a=2&x_y=3").await;
    assert_eq!(first.text(), "/p?a=2&b=1||||/p?a=2&b=1|");
    for same in ["/p?a=2&b=1", "/p?b=1&a=2&gclid=7", "/p?%75tm_medium=z&a=2&b=1"] {
        assert_hit(&client.get(same).await);
    }
    assert_no_hit(&client.get("/p?a=2&b=1&c=3").await);
    // What is not looked up keeps its query.
    let post = client.send(Method::POST, "/p?utm_source=mail", &[], Bytes::new()).await.unwrap();
    assert!(post.text().starts_with("/p?utm_source=mail|"), "{}", post.text());

    // A purge by any URL of the object takes it.
    purge(&edge, "http://a.example/p?a=2&utm_campaign=x&b=1").await;
    assert_no_hit(&client.get("/p?a=2&b=1").await);
}

#[tokio::test]
async fn named_fields_cookies_and_the_device_class_make_variants_that_one_purge_takes() {
    let nginx = Nginx::start(ECHO);
    let rules = "[sites.routes.cache]\ndefault_ttl = \"1m\"\ncookies = \"key:lang\"\n[sites.routes.cache.key]\nheaders = [\"X-Country\"]\ndevice = true\n";
    let edge = Edge::start(&site(nginx.address, rules));
    let mut client = Client::new(edge.http, "a.example");
    let phone = ("user-agent", "Mozilla/5.0 (iPhone) Mobile/1");
    let other_phone = ("user-agent", "Mozilla/5.0 (Linux; Android 14; K) Mobile");
    let desktop = ("user-agent", "curl/8");
    let variants = [
        vec![phone, ("cookie", "lang=de; session=1"), ("x-country", "DE")],
        vec![phone, ("cookie", "lang=fr"), ("x-country", "DE")],
        vec![phone, ("cookie", "lang=de"), ("x-country", "FR")],
        vec![desktop, ("cookie", "lang=de"), ("x-country", "DE")],
        vec![desktop],
    ];
    for variant in &variants {
        assert_no_hit(&client.get_with("/v", variant).await);
    }
    let mut bodies = Vec::new();
    for variant in &variants {
        let answer = client.get_with("/v", variant).await;
        assert_hit(&answer);
        bodies.push(answer.text());
    }
    assert!(bodies[0].starts_with("/v|lang=de|Mozilla/5.0 (Linux; Android 10; K)"), "{}", bodies[0]);
    assert!(bodies[0].ends_with("|mobile|/v|DE"), "{}", bodies[0]);
    assert!(bodies[4].contains("|desktop|"), "{}", bodies[4]);
    bodies.dedup();
    assert_eq!(bodies.len(), variants.len());
    let same = client.get_with("/v", &[other_phone, ("cookie", "session=2; lang=de"), ("x-country", "DE")]).await;
    assert_hit(&same);

    purge(&edge, "http://a.example/v").await;
    for variant in &variants {
        assert_no_hit(&client.get_with("/v", variant).await);
    }
}

#[tokio::test]
async fn one_users_page_never_reaches_another() {
    let nginx = Nginx::start(
        "location /page { add_header Cache-Control max-age=60; default_type text/plain; return 200 \"for [$http_cookie]\"; }\n\
         location /public { add_header Cache-Control \"public, max-age=60\"; return 200 \"all\"; }\n\
         location /login { add_header Cache-Control \"public, max-age=60\"; add_header Set-Cookie session=1; return 200 \"in\"; }",
    );
    let edge = Edge::start(&site(nginx.address, ""));
    let mut client = Client::new(edge.http, "a.example");
    let cookie = [("cookie", "session=alice")];
    let hers = client.get_with("/page", &cookie).await;
    assert_eq!((hers.text().as_str(), stored(&hers)), ("for [session=alice]", false));
    let anonymous = client.get("/page").await;
    assert_eq!((anonymous.text().as_str(), stored(&anonymous)), ("for []", true));
    // What is there was fit for all.
    assert_hit(&client.get_with("/page", &cookie).await);

    assert!(stored(&client.get_with("/public", &cookie).await));
    assert_hit(&client.get("/public").await);
    for _ in 0..2 {
        let login = client.get("/login").await;
        assert_eq!((login.field("set-cookie").as_str(), login.is_hit()), ("session=1", false));
    }
}

#[tokio::test]
async fn a_route_of_assets_knows_no_cookies() {
    let nginx = Nginx::start(
        "location / { add_header Cache-Control max-age=60; add_header Set-Cookie track=1; default_type text/css; return 200 \"[$http_cookie]\"; }",
    );
    let edge = Edge::start(&site(nginx.address, "[sites.routes.cache]\ncookies = \"strip\"\n"));
    let mut client = Client::new(edge.http, "a.example");
    let first = client.get_with("/a.css", &[("cookie", "session=1")]).await;
    assert_eq!((first.text().as_str(), first.field("set-cookie").as_str()), ("[]", ""));
    let second = client.get_with("/a.css", &[("cookie", "session=2")]).await;
    assert_hit(&second);
    let post = client.send(Method::POST, "/a.css", &[("cookie", "session=1")], Bytes::new()).await.unwrap();
    assert_eq!((post.text().as_str(), post.field("set-cookie").as_str()), ("[]", ""));
}

#[tokio::test]
async fn web_cache_deception_finds_nothing() {
    let nginx = Nginx::start(
        "location /account.php { add_header Cache-Control \"public, max-age=60\"; default_type text/html; types {} return 200 \"[$http_cookie]\"; }\n\
         location /app.css { add_header Cache-Control max-age=60; default_type text/css; return 200 a; }",
    );
    let edge = Edge::start(&site(nginx.address, "[sites.routes.cache]\ndefault_ttl = \"1m\"\n"));
    let mut client = Client::new(edge.http, "a.example");
    for path in [
        "/account.php/x.css",
        "/account.php/x%2ejs",
        "/account.php;x.png",
        "/account.php%00.css",
        "/account.php%2fx.woff2",
    ] {
        let victim = client.get_with(path, &[("cookie", "session=victim")]).await;
        assert!(!stored(&victim), "{path} {}", victim.cache_status());
        let attacker = client.get(path).await;
        assert_no_hit(&attacker);
        assert!(!attacker.text().contains("victim"), "{path}");
    }
    client.get("/app.css").await;
    assert_hit(&client.get("/app.css").await);
}

#[tokio::test]
async fn lifetimes_bypasses_uses_and_limits_are_the_operators() {
    let nginx = Nginx::start(
        "default_type text/plain; location / { return 200 plain; }\n\
         location /missing { return 404; }\n\
         location ~ bin$ { }\n\
         location /private { add_header Cache-Control private; return 200 p; }",
    );
    nginx.write("big.bin", &vec![7; 20_000]);
    nginx.write("small.bin", &[7; 2_000]);
    let routes = "[sites.routes.cache]\nbypass_paths = [\"/live/*\"]\nbypass_cookies = [\"preview\"]\nmax_object = 10000\n\
        [[sites.routes.cache.ttl]]\nstatus = [404]\noverride_ttl = \"1m\"\n[[sites.routes.cache.ttl]]\npath = \"/p/*\"\ndefault_ttl = \"90s\"\n\
        [[sites.routes.cache.ttl]]\npath = \"*.bin\"\ndefault_ttl = \"1m\"\n\
        [[sites.routes]]\npath = \"/private\"\norigin = \"app\"\n[sites.routes.cache]\nforce = true\ndefault_ttl = \"1m\"\n\
        [[sites.routes]]\npath = \"/twice\"\norigin = \"app\"\n[sites.routes.cache]\nmin_uses = 2\ndefault_ttl = \"1m\"\n";
    let edge = Edge::start(&site(nginx.address, routes));
    let mut client = Client::new(edge.http, "a.example");
    for (path, hit) in [
        ("/missing", true),
        ("/p/a", true),
        ("/private", true),
        ("/other", false),
        ("/live/p/a", false),
        ("/big.bin", false),
        ("/small.bin", true),
    ] {
        client.get(path).await;
        assert_eq!(client.get(path).await.is_hit(), hit, "{path}");
    }
    let ttl = client.get("/p/a").await.cache_status();
    assert!(ttl.contains("ttl=90") || ttl.contains("ttl=89") || ttl.contains("ttl=88"), "{ttl}");
    let bypassed = client.get_with("/p/a", &[("cookie", "preview=1")]).await;
    assert_eq!(bypassed.cache_status(), "selvedge; fwd=bypass");
    let hits = [client.get("/twice").await, client.get("/twice").await, client.get("/twice").await];
    assert_eq!(hits.map(|a| a.is_hit()), [false, false, true]);
    assert_eq!(client.get("/missing").await.status, StatusCode::NOT_FOUND);
}

fn decoded(answer: &Answer) -> Vec<u8> {
    use std::io::Read;
    let mut out = Vec::new();
    let body = &answer.body[..];
    match answer.field("content-encoding").as_str() {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap(),
        "br" => brotli::Decompressor::new(body, 4096).read_to_end(&mut out).unwrap(),
        "zstd" => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut out).unwrap(),
        _ => body.to_vec().as_slice().read_to_end(&mut out).unwrap(),
    };
    out
}

#[tokio::test]
async fn text_is_stored_compressed_once_for_each_coding() {
    let nginx = Nginx::start("etag on; location / { add_header Cache-Control max-age=60; }");
    let page = "<p>selvedge</p>\n".repeat(2_000).into_bytes();
    nginx.write("page.html", &page);
    nginx.write("short.html", b"short");
    nginx.write("data.bin", &page);
    let edge = Edge::start(&site(nginx.address, "[sites.routes.compression]\n"));
    let mut client = Client::new(edge.http, "a.example");
    for (accepted, coding) in [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, br;q=0.5", "gzip"),
        ("zstd", "zstd"),
        ("identity", ""),
        ("gzip;q=0", ""),
    ] {
        for turn in 0..2 {
            let answer = client.get_with("/page.html", &[("accept-encoding", accepted)]).await;
            assert_eq!(answer.field("content-encoding"), coding, "{accepted}");
            assert_eq!(answer.field("vary").to_ascii_lowercase(), "accept-encoding", "{accepted}");
            assert_eq!(decoded(&answer), page, "{accepted}");
            assert_eq!(answer.field("etag").starts_with("W/"), !coding.is_empty(), "{accepted}");
            assert!(coding.is_empty() || answer.body.len() < page.len() / 10);
            assert_eq!(answer.is_hit(), turn == 1 || accepted == "gzip;q=0", "{accepted} {}", answer.cache_status());
        }
    }
    let etag = client.get_with("/page.html", &[("accept-encoding", "br")]).await.field("etag");
    let same = client.get_with("/page.html", &[("accept-encoding", "br"), ("if-none-match", &etag)]).await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);
    let range = client.get_with("/page.html", &[("accept-encoding", "br"), ("range", "bytes=0-9")]).await;
    assert_eq!(
        (range.status, range.field("content-encoding").as_str(), range.body.len()),
        (StatusCode::PARTIAL_CONTENT, "", 10)
    );
    let head = client.send(Method::HEAD, "/page.html", &[("accept-encoding", "br")], Bytes::new()).await.unwrap();
    assert_eq!((head.field("content-encoding").as_str(), head.body.len()), ("br", 0));
    for path in ["/short.html", "/data.bin"] {
        let answer = client.get_with(path, &[("accept-encoding", "br")]).await;
        assert_eq!((answer.field("content-encoding").as_str(), answer.field("vary").as_str()), ("", ""), "{path}");
    }
    // One for each coding and one for none.
    assert_eq!(nginx.requests().iter().filter(|r| r.contains("page.html")).count(), 4, "{:?}", nginx.requests());
}

#[tokio::test]
async fn a_validation_leaves_a_compressed_variant_whole_and_uncached_answers_are_compressed_too() {
    let nginx = Nginx::start("etag on; location / { add_header Cache-Control no-cache; }");
    let page = "0123456789 ".repeat(1_000).into_bytes();
    nginx.write("page.html", &page);
    let routes = "[sites.routes.compression]\n[[sites.routes]]\npath = \"/direct/\"\norigin = \"app\"\ncache = false\n[sites.routes.compression]\n";
    nginx.write("direct/page.html", &page);
    let edge = Edge::start(&site(nginx.address, routes));
    let mut client = Client::new(edge.http, "a.example");
    let gzip = [("accept-encoding", "gzip")];
    let first = client.get_with("/page.html", &gzip).await;
    for _ in 0..3 {
        let again = client.get_with("/page.html", &gzip).await;
        assert!(again.cache_status().contains("fwd-status=304"), "{}", again.cache_status());
        assert_eq!((again.field("etag"), again.field("content-encoding")), (first.field("etag"), "gzip".to_owned()));
        assert_eq!(decoded(&again), page);
    }
    assert_eq!(decoded(&client.get("/page.html").await), page);
    let direct = client.get_with("/direct/page.html", &gzip).await;
    assert_eq!((direct.field("content-encoding").as_str(), decoded(&direct)), ("gzip", page));
    let head = client.send(Method::HEAD, "/direct/page.html", &gzip, Bytes::new()).await.unwrap();
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn what_breaks_off_while_it_is_compressed_is_not_stored() {
    use tokio::io::AsyncWriteExt;
    let origin = crate::support::faulty::Origin::start(|mut stream, _| async move {
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: max-age=60\r\nContent-Length: 100000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&[b'x'; 50_000]).await.ok()?;
        None
    })
    .await;
    let edge = Edge::start(&site(origin.address, "[sites.routes.compression]\n"));
    for turn in 1..=2 {
        let mut client = Client::new(edge.http, "a.example");
        let answer = client.send(Method::GET, "/", &[("accept-encoding", "gzip")], Bytes::new()).await;
        // 502 where nothing had come out of the encoder yet.
        assert!(
            answer.as_ref().is_err() || answer.as_ref().is_ok_and(|a| a.status == StatusCode::BAD_GATEWAY),
            "{answer:?}"
        );
        assert_eq!(origin.count(), turn);
    }
}

#[tokio::test]
async fn operators_change_fields_and_guard_their_users() {
    let nginx = Nginx::start(
        "location / { add_header Cache-Control max-age=60; add_header X-Powered-By nginx; add_header X-Frame-Options DENY; default_type text/plain; \
         return 200 \"$http_x_edge|$http_x_debug|$http_x_client\"; }",
    );
    let rules = "[sites.routes.headers]\nrequest_remove = [\"X-Debug\"]\nrequest_set = { \"X-Edge\" = \"for $host\", \"X-Client\" = \"$client_ip\" }\n\
        response_remove = [\"X-Powered-By\"]\nresponse_set = { \"X-Id\" = \"$request_id\" }\nresponse_add = { \"Link\" = \"</a>; rel=x\" }\n\
        [sites.routes.security]\n";
    let edge = Edge::start(&site(nginx.address, rules));
    let mut client = Client::new(edge.http, "a.example");
    let first = client.get_with("/", &[("x-debug", "1"), ("x-edge", "spoof")]).await;
    assert_eq!(first.text(), "for a.example||127.0.0.1");
    let second = client.get("/").await;
    assert_hit(&second);
    assert_ne!(first.field("x-id"), second.field("x-id"));
    assert_eq!((second.field("x-powered-by").as_str(), second.field("link").as_str()), ("", "</a>; rel=x"));
    assert_eq!(second.field("x-content-type-options"), "nosniff");
    assert_eq!(
        (second.field("x-frame-options").as_str(), second.field("strict-transport-security").as_str()),
        ("DENY", "")
    );
}

#[tokio::test]
async fn cors_is_answered_by_the_edge_from_one_stored_response() {
    let nginx = Nginx::start(
        "location / { add_header Cache-Control max-age=60; add_header Access-Control-Allow-Origin $http_origin; default_type text/plain; return 200 \"[$http_origin]\"; }",
    );
    let rules = "[sites.routes.cors]\norigins = [\"https://app.example\"]\nmethods = [\"GET\", \"PUT\"]\nheaders = [\"X-A\"]\ncredentials = true\n";
    let edge = Edge::start(&site(nginx.address, rules));
    let mut client = Client::new(edge.http, "a.example");
    let evil = client.get_with("/", &[("origin", "https://evil.example")]).await;
    assert_eq!((evil.text().as_str(), evil.field("access-control-allow-origin").as_str()), ("[]", ""));
    assert_eq!(evil.field("vary"), "origin");
    let good = client.get_with("/", &[("origin", "https://app.example")]).await;
    assert_hit(&good);
    assert_eq!(good.field("access-control-allow-origin"), "https://app.example");
    assert_eq!(good.field("access-control-allow-credentials"), "true");
    let asks = |origin: &'static str| [("origin", origin), ("access-control-request-method", "PUT")];
    let preflight = client.send(Method::OPTIONS, "/", &asks("https://app.example"), Bytes::new()).await.unwrap();
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    assert_eq!(preflight.field("access-control-allow-methods"), "GET, PUT");
    assert_eq!(preflight.field("access-control-allow-headers"), "x-a");
    assert_eq!(preflight.field("access-control-max-age"), "600");
    let refused = client.send(Method::OPTIONS, "/", &asks("https://evil.example"), Bytes::new()).await.unwrap();
    assert_eq!((refused.status, refused.field("access-control-allow-origin").as_str()), (StatusCode::FORBIDDEN, ""));
    assert_eq!(nginx.requests().len(), 1);
}

#[tokio::test]
async fn what_varies_by_what_the_edge_tells_of_a_client_is_kept_for_nobody() {
    let nginx = Nginx::start(
        "location = /address { add_header Cache-Control max-age=60; add_header Vary X-Client; return 200 $http_x_client; }
         location = /forwarded { add_header Cache-Control max-age=60; add_header Vary X-Forwarded-For; return 200 $http_x_forwarded_for; }
         location = /edge { add_header Cache-Control max-age=60; add_header Vary X-Edge; return 200 $http_x_edge; }",
    );
    let rules = "[sites.routes.headers]\nrequest_set = { \"X-Edge\" = \"for $host\", \"X-Client\" = \"$client_ip\" }\n";
    let edge = Edge::start(&site(nginx.address, rules));
    let mut client = Client::new(edge.http, "a.example");
    for (path, hit) in [("/address", false), ("/forwarded", false), ("/edge", true)] {
        client.get(path).await;
        let answer = client.get(path).await;
        assert_eq!(answer.is_hit(), hit, "{path}: {}", answer.cache_status());
    }
}

#[tokio::test]
async fn a_rule_against_storing_holds_for_the_answer_to_a_post_too() {
    let nginx = Nginx::start(
        "location / { add_header Cache-Control max-age=60; add_header Content-Location $uri; types { } default_type text/html; return 200 x; }",
    );
    let edge = Edge::start(&site(
        nginx.address,
        "[sites.routes.cache]\nbypass_headers = [\"X-Preview\"]\nbypass_paths = [\"/live/*\"]\n",
    ));
    let mut client = Client::new(edge.http, "a.example");
    for (path, fields, kept) in [
        ("/a", vec![], true),
        ("/b", vec![("x-preview", "1")], false),
        ("/live/c", vec![], false),
        ("/account/d.css", vec![], false),
    ] {
        client.send(Method::POST, path, &fields, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(client.get(path).await.is_hit(), kept, "{path}");
    }
}
