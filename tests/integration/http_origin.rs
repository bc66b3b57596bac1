//! nginx as the origin: routing, caching and forwarding through the real binary.

use crate::support::edge::{config, one_origin};
use crate::support::nginx::Nginx;
use crate::support::{Answer, Client, Edge, tools};
use bytes::Bytes;
use http::{Method, StatusCode};

fn assert_stored_then_hit(first: &Answer, second: &Answer) {
    assert_eq!(first.cache_status(), "selvedge; fwd=uri-miss; stored");
    assert!(second.is_hit(), "{}", second.cache_status());
    assert_eq!(first.body, second.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_is_stored_and_the_next_request_is_a_hit_with_an_age() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=60; }");
    nginx.write("page.html", b"<h1>hello</h1>");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "www.example.com");
    let first = client.get("/page.html").await;
    let second = client.get("/page.html").await;
    assert_stored_then_hit(&first, &second);
    assert!(second.cache_status().contains("detail=memory"), "{}", second.cache_status());
    assert!(second.field("age").parse::<u64>().unwrap() < 30);
    assert_eq!(second.field("content-type"), "text/html");
    assert!(second.field("via").contains("selvedge"));
    assert_eq!(nginx.requests(), ["GET /page.html 200"]);
    // Counted when the last byte is out, which the client may see first.
    tools::wait_until("the hit is counted", std::time::Duration::from_secs(5), || {
        edge.metric(r#"selvedge_requests_total{cache="hit",method="GET",site="*",status_class="2xx"}"#) == 1.0
    });
}

#[tokio::test]
async fn head_ranges_and_conditions_are_answered_from_a_stored_get() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=60; }");
    let body: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    nginx.write("data.bin", &body);
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    let stored = client.get("/data.bin").await;
    let head = client.send(Method::HEAD, "/data.bin", &[], Bytes::new()).await.unwrap();
    assert!(head.is_hit() && head.body.is_empty());
    assert_eq!(head.field("content-length"), "100000");

    let range = client.get_with("/data.bin", &[("range", "bytes=1000-1999")]).await;
    assert_eq!(
        (range.status, range.field("content-range").as_str()),
        (StatusCode::PARTIAL_CONTENT, "bytes 1000-1999/100000")
    );
    assert_eq!(range.body, body[1000..2000]);
    let suffix = client.get_with("/data.bin", &[("range", "bytes=-10")]).await;
    assert_eq!(suffix.body, body[99_990..]);
    let beyond = client.get_with("/data.bin", &[("range", "bytes=100000-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);

    let etag = stored.field("etag");
    let unchanged = client.get_with("/data.bin", &[("if-none-match", &etag)]).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let changed = client.get_with("/data.bin", &[("range", "bytes=0-9"), ("if-range", "\"other\"")]).await;
    assert_eq!((changed.status, changed.body.len()), (StatusCode::OK, 100_000));
    assert_eq!(nginx.requests().len(), 1, "{:?}", nginx.requests());
}

#[tokio::test]
async fn a_range_of_what_is_not_stored_is_answered_while_the_whole_is_fetched() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=60; }");
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 253) as u8).collect();
    nginx.write("cold.bin", &body);
    let edge = Edge::start(&config(&format!("{}[sites.routes.cache]\nslices = false\n", one_origin(nginx.address))));
    let mut client = Client::new(edge.http, "a.example");
    let range = client.get_with("/cold.bin", &[("range", "bytes=2000000-2000099")]).await;
    assert_eq!((range.status, &range.body[..]), (StatusCode::PARTIAL_CONTENT, &body[2_000_000..2_000_100]));
    let whole = client.get("/cold.bin").await;
    assert_eq!(whole.body, body);
    assert_eq!(nginx.requests().len(), 1);
}

#[tokio::test]
async fn vary_keeps_variants_apart() {
    let nginx = Nginx::start(
        "location / { add_header Cache-Control max-age=60; add_header Vary Accept-Language; return 200 \"lang=$http_accept_language\"; }",
    );
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    for language in ["de", "fr"] {
        let first = client.get_with("/", &[("accept-language", language)]).await;
        assert_eq!(first.text(), format!("lang={language}"));
        assert!(!first.is_hit());
        let second = client.get_with("/", &[("accept-language", language)]).await;
        assert!(second.is_hit(), "{}", second.cache_status());
        assert_eq!(second.text(), format!("lang={language}"));
    }
    assert_eq!(nginx.requests().len(), 2);
}

#[tokio::test]
async fn what_a_shared_cache_may_not_store_is_not_stored() {
    let nginx = Nginx::start(
        "location /no-store { add_header Cache-Control no-store; return 200 x; }
         location /private { add_header Cache-Control 'private, max-age=60'; return 200 x; }
         location /cookie { add_header Cache-Control max-age=60; add_header Set-Cookie session=b; return 200 x; }
         location /star { add_header Cache-Control max-age=60; add_header Vary '*'; return 200 x; }
         location /auth { add_header Cache-Control max-age=60; return 200 x; }",
    );
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    for path in ["/no-store", "/private", "/cookie", "/star"] {
        for _ in 0..2 {
            let answer = client.get(path).await;
            assert!(!answer.is_hit() && !answer.cache_status().contains("stored"), "{path}: {}", answer.cache_status());
        }
    }
    for _ in 0..2 {
        let answer = client.get_with("/auth", &[("authorization", "Bearer secret")]).await;
        assert!(!answer.is_hit(), "{}", answer.cache_status());
    }
    assert_eq!(nginx.requests().len(), 10);
}

#[tokio::test]
async fn a_stale_response_is_validated_with_the_origin() {
    let nginx = Nginx::start("location / { add_header Cache-Control 'no-cache'; }");
    nginx.write("page.html", b"same");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    client.get("/page.html").await;
    let second = client.get("/page.html").await;
    assert_eq!(second.status, StatusCode::OK);
    assert!(
        second.cache_status().contains("fwd=stale") && second.cache_status().contains("fwd-status=304"),
        "{}",
        second.cache_status()
    );
    assert_eq!(second.text(), "same");
    assert_eq!(nginx.requests(), ["GET /page.html 200", "GET /page.html 304"]);
}

#[tokio::test]
async fn the_origin_sees_who_asked_and_by_what_name() {
    let nginx = Nginx::start(
        "location / { return 200 \"host=$http_host xff=$http_x_forwarded_for proto=$http_x_forwarded_proto \
         xfh=$http_x_forwarded_host port=$http_x_forwarded_port real=$http_x_real_ip via=$http_via \
         override=$http_x_original_url$http_x_forwarded_uri proxy=$http_proxy conn=$http_x_hop\"; }",
    );
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "Shop.Example.com:8080");
    let answer = client
        .get_with(
            "/",
            &[
                ("x-forwarded-for", "6.6.6.6"),
                ("x-forwarded-host", "evil.example"),
                ("x-original-url", "/admin"),
                ("x-forwarded-uri", "/admin"),
                ("proxy", "http://evil"),
                ("connection", "x-hop"),
                ("x-hop", "1"),
            ],
        )
        .await;
    let text = answer.text();
    for expected in [
        "host=shop.example.com:8080",
        "xff=127.0.0.1 ",
        "proto=http ",
        "xfh=shop.example.com:8080",
        "port=8080",
        "real=127.0.0.1",
        "via=1.1 selvedge",
        "override= ",
        "proxy= ",
    ] {
        assert!(text.contains(expected), "{expected} not in {text}");
    }
    assert!(text.ends_with("conn="), "{text}");
}

#[tokio::test]
async fn unsafe_methods_pass_with_their_bodies() {
    let nginx = Nginx::start("location / { return 200 \"$request_method $content_length\"; }");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = client.send(method.clone(), "/form", &[], Bytes::from(vec![b'x'; 70_000])).await.unwrap();
        assert_eq!(answer.text(), format!("{method} 70000"));
        assert!(!answer.is_hit());
    }
}

#[tokio::test]
async fn hosts_and_paths_are_routed_by_nginx_precedence() {
    let [exact, leading, trailing, regex, any] = ["exact", "leading", "trailing", "regex", "any"]
        .map(|name| Nginx::start(&format!("location / {{ return 200 {name}; }}")));
    let mut text = String::new();
    for (name, nginx) in
        [("exact", &exact), ("leading", &leading), ("trailing", &trailing), ("regex", &regex), ("any", &any)]
    {
        text += &format!("[origins.{name}.http]\nservers = [\"{}\"]\n\n", nginx.address);
    }
    for (host, origin) in [
        ("www.example.com", "exact"),
        ("*.example.com", "leading"),
        ("www.example.*", "trailing"),
        (r"~^w+\\.", "regex"),
    ] {
        text += &format!("[[sites]]\nhosts = [\"{host}\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"{origin}\"\n\n");
    }
    text += "[[sites]]\nhosts = [\"paths.test\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"exact\"\n\
             [[sites.routes]]\npath = \"/api\"\norigin = \"leading\"\n[[sites.routes]]\npath = \"~^/api/v[0-9]\"\norigin = \"regex\"\n\n\
             [[sites]]\nhosts = [\"partial.test\"]\n[[sites.routes]]\npath = \"/only\"\norigin = \"exact\"\n";
    let edge = Edge::start(&config(&text));
    for (host, path, expected) in [
        ("WWW.example.com.", "/", "exact"),
        ("www.example.com:81", "/", "exact"),
        ("api.example.com", "/", "leading"),
        ("a.b.example.com", "/", "leading"),
        ("www.example.org", "/", "trailing"),
        ("www.other.net", "/", "regex"),
        ("paths.test", "/x", "exact"),
        ("paths.test", "/apix", "leading"),
        ("paths.test", "/api/v2", "regex"),
    ] {
        let answer = Client::new(edge.http, host).get(path).await;
        assert_eq!(answer.text(), expected, "{host}{path}");
    }
    let unknown = Client::new(edge.http, "nobody.net").get("/").await;
    assert_eq!(unknown.status, StatusCode::SERVICE_UNAVAILABLE);
    let no_route = Client::new(edge.http, "partial.test").get("/").await;
    assert_eq!(no_route.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_has_two_readings_is_refused() {
    let nginx = Nginx::start("location / { return 200 ok; }");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x:80x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    ] {
        let answer = tools::raw(edge.http, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{request:?} → {answer}");
    }
    assert!(nginx.requests().is_empty(), "{:?}", nginx.requests());
    let trace = tools::raw(edge.http, b"TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(trace.starts_with("HTTP/1.1 405"), "{trace}");
}

#[tokio::test]
async fn a_body_above_the_routes_limit_is_refused() {
    let nginx = Nginx::start("location / { return 200 ok; }");
    let routes =
        one_origin(nginx.address).replace("origin = \"app\"", "origin = \"app\"\nmax_request_body = \"1 KiB\"");
    let edge = Edge::start(&config(&routes));
    let mut client = Client::new(edge.http, "a");
    let refused = client.send(Method::POST, "/", &[], Bytes::from(vec![0; 2000])).await.unwrap();
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n".to_owned()
        + &"x".repeat(0x800)
        + "\r\n0\r\n\r\n";
    assert!(tools::raw(edge.http, chunked.as_bytes()).starts_with("HTTP/1.1 413"));
    let taken = Client::new(edge.http, "a").send(Method::POST, "/", &[], Bytes::from(vec![0; 1000])).await.unwrap();
    assert_eq!(taken.status, StatusCode::OK);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let nginx = Nginx::start("location / { return 200 $uri; }");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let requests = "GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = tools::raw(edge.http, requests.as_bytes());
    let (one, two) = (answer.find("/one").expect(&answer), answer.find("/two").expect(&answer));
    assert!(one < two);
}

#[tokio::test]
async fn a_304_renews_every_field_of_the_stored_response() {
    let nginx = Nginx::start(
        "location / { etag on; add_header Cache-Control max-age=1; add_header X-Version $http_x_n; add_header Age 0; }",
    );
    nginx.write("page.html", b"same");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    assert_eq!(client.get_with("/page.html", &[("x-n", "1")]).await.field("x-version"), "1");
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let renewed = client.get_with("/page.html", &[("x-n", "2")]).await;
    assert!(renewed.cache_status().contains("fwd-status=304"), "{}", renewed.cache_status());
    assert_eq!((renewed.status, renewed.field("x-version").as_str()), (StatusCode::OK, "2"));
    let hit = client.get_with("/page.html", &[("x-n", "3")]).await;
    assert!(hit.is_hit(), "fresh again for a second: {}", hit.cache_status());
    assert_eq!(hit.field("x-version"), "2");
}
