//! RFC 9111 and RFC 9213 through the real binary, nginx as the origin.

use crate::support::edge::{config, one_origin};
use crate::support::faulty::Origin;
use crate::support::nginx::Nginx;
use crate::support::{Client, Edge};
use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_successful_unsafe_request_invalidates_its_target_and_what_it_names() {
    let nginx = Nginx::start(
        "location = /fails { if ($request_method = POST) { return 500; } add_header Cache-Control max-age=60; return 200 x; }
         location / { add_header Cache-Control max-age=60; add_header Vary Accept-Language; add_header Location /made;
                      add_header Content-Location /also; return 200 x; }",
    );
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    for method in ["POST", "PUT", "DELETE", "M-SEARCH"] {
        for path in ["/page", "/made", "/also", "/other"] {
            for language in ["de", "fr"] {
                client.get_with(path, &[("accept-language", language)]).await;
                assert!(client.get_with(path, &[("accept-language", language)]).await.is_hit(), "{path}");
            }
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        client.send(method.clone(), "/page", &[], Bytes::from_static(b"x")).await.unwrap();
        for (path, gone) in [("/page", true), ("/made", true), ("/also", true), ("/other", false)] {
            for language in ["de", "fr"] {
                let answer = client.get_with(path, &[("accept-language", language)]).await;
                assert_eq!(!answer.is_hit(), gone, "{method} {path} {language}: {}", answer.cache_status());
            }
        }
    }
    client.get("/fails").await;
    let failed = client.send(Method::POST, "/fails", &[], Bytes::new()).await.unwrap();
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(client.get("/fails").await.is_hit());
}

#[tokio::test]
async fn the_answer_to_a_post_is_kept_for_get_where_it_says_that_it_is_what_get_would_get() {
    let nginx = Nginx::start(
        "location = /same { add_header Cache-Control max-age=60; add_header Content-Location /same; return 200 $request_method; }
         location = /other { add_header Cache-Control max-age=60; add_header Content-Location /same; return 200 $request_method; }
         location = /stale { add_header Content-Location /stale; return 200 $request_method; }",
    );
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    for (path, fields, kept) in [
        ("/same", vec![("cookie", "a=b")], false),
        ("/other", vec![], false),
        ("/stale", vec![], false),
        ("/same", vec![], true),
    ] {
        let posted = client.send(Method::POST, path, &fields, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(posted.text(), "POST");
        let got = client.get(path).await;
        assert_eq!((got.is_hit(), got.text()), (kept, if kept { "POST" } else { "GET" }.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn targeted_fields_rule_and_the_own_one_stays_here() {
    let nginx = Nginx::start(
        "add_header Cache-Control no-store; add_header CDN-Cache-Control max-age=60; add_header X-Seen 1;
         location = /own { add_header Cache-Control no-store; add_header CDN-Cache-Control no-store;
                           add_header Selvedge-Cache-Control max-age=60; return 200 x; }
         location / { return 200 x; }",
    );
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    for (path, cdn) in [("/cdn", "max-age=60"), ("/own", "no-store")] {
        for hit in [false, true] {
            let answer = client.get(path).await;
            assert_eq!(answer.is_hit(), hit, "{path}");
            assert_eq!(
                (answer.field("cdn-cache-control"), answer.field("cache-control")),
                (cdn.into(), "no-store".into())
            );
            assert!(!answer.headers.contains_key("selvedge-cache-control"));
        }
    }
}

#[tokio::test]
async fn failed_preconditions_are_412_and_ranges_need_a_strong_validator() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=60; }");
    nginx.write("data.txt", b"0123456789");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    let old = "Sat, 29 Oct 1994 19:43:31 GMT";
    // The first of each is a miss, the second a hit.
    for path in ["/data.txt?1", "/data.txt?1"] {
        let failed = client.get_with(path, &[("if-match", "\"other\"")]).await;
        assert_eq!((failed.status, failed.body.len()), (StatusCode::PRECONDITION_FAILED, 0), "{path}");
    }
    let stored = client.get("/data.txt?1").await;
    assert!(stored.is_hit());
    let (tag, modified) = (stored.field("etag"), stored.field("last-modified"));
    for (fields, status) in [
        (vec![("if-unmodified-since", old)], StatusCode::PRECONDITION_FAILED),
        (vec![("if-unmodified-since", modified.as_str())], StatusCode::OK),
        (vec![("if-match", tag.as_str())], StatusCode::OK),
        (vec![("if-match", tag.as_str()), ("range", "bytes=0-1")], StatusCode::PARTIAL_CONTENT),
        (vec![("if-match", "\"other\""), ("range", "bytes=0-1")], StatusCode::PRECONDITION_FAILED),
        (vec![("if-range", tag.as_str()), ("range", "bytes=0-1")], StatusCode::PARTIAL_CONTENT),
        (vec![("if-range", "\"other\""), ("range", "bytes=0-1")], StatusCode::OK),
        (vec![("if-range", old), ("range", "bytes=0-1")], StatusCode::OK),
    ] {
        let weak = format!("W/{tag}");
        let answer = client.get_with("/data.txt?1", &fields).await;
        assert_eq!(answer.status, status, "{fields:?}");
        let whole = client.get_with("/data.txt?1", &[("if-range", &weak), ("range", "bytes=0-1")]).await;
        assert_eq!(whole.status, StatusCode::OK);
    }
    assert_eq!(nginx.requests().len(), 1, "{:?}", nginx.requests());
}

/// What attackers send to have one thing in the key and another at the origin server.
#[tokio::test]
async fn no_field_is_in_the_key_and_kept_from_the_origin_or_the_other_way_round() {
    let origin = Origin::start(|mut stream, head: String| async move {
        let told = |name: &str| head.lines().filter(|line| line.to_lowercase().starts_with(name)).count();
        let seen = ["x-flavour: hot", "x_forwarded_host: evil", "x_original_url: /evil", "x_real_ip: 9"].map(told);
        let body = format!("{seen:?}");
        let fields = "Cache-Control: max-age=60\r\nVary: X-Flavour";
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let mut client = Client::new(edge.http, "a.example");
    let hot = ("x-flavour", "hot");
    let hidden = client.get_with("/a", &[hot, ("connection", "keep-alive, X-Flavour")]).await;
    assert_eq!(hidden.text(), "[0, 0, 0, 0]", "what is named is for this connection alone");
    let open = client.get_with("/a", &[hot]).await;
    assert_eq!((open.text().as_str(), open.is_hit()), ("[1, 0, 0, 0]", false));
    let plain = client.get("/a").await;
    assert_eq!((plain.text().as_str(), plain.is_hit()), ("[0, 0, 0, 0]", true));
    let claims = [("x_forwarded_host", "evil"), ("x_original_url", "/evil"), ("x_real_ip", "9")];
    assert_eq!(client.get_with("/b", &claims).await.text(), "[0, 0, 0, 0]");
    let passed = client.send(Method::POST, "/b", &claims, Bytes::new()).await.unwrap();
    assert_eq!(passed.text(), "[0, 0, 1, 0]", "a method that is not stored keeps what does not speak for the edge");
}

#[tokio::test]
async fn a_failed_precondition_is_412_too_while_content_of_unknown_length_is_fetched() {
    let origin = Origin::start(|mut stream, _| async move {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"a\"\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n";
        stream.write_all(head.as_bytes()).await.ok()?;
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        stream.write_all(b"0\r\n\r\n").await.ok()?;
        Some(stream)
    })
    .await;
    let edge = Edge::start(&config(&one_origin(origin.address)));
    let (mut first, mut second) = (Client::new(edge.http, "a.example"), Client::new(edge.http, "a.example"));
    let follower = async {
        while origin.count() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        second.get_with("/", &[("if-match", "\"b\"")]).await
    };
    let (whole, failed) = tokio::join!(first.get("/"), follower);
    assert_eq!((whole.text().as_str(), whole.status), ("body", StatusCode::OK));
    assert_eq!((failed.text().as_str(), failed.status), ("", StatusCode::PRECONDITION_FAILED));
    assert_eq!(origin.count(), 1);
    assert_eq!(second.get("/").await.text(), "body", "the connection goes on");
}

#[tokio::test]
async fn who_has_a_short_answer_to_a_long_fetch_is_told_that_the_connection_ends_with_it() {
    const SIZE: usize = 700 << 10;
    let origin = Origin::start(|mut stream, _| async move {
        let head = format!("ETag: \"a\"\r\nCache-Control: max-age=60\r\nContent-Length: {SIZE}");
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes()).await.ok()?;
        stream.write_all(&vec![b'x'; SIZE]).await.ok()?;
        Some(stream)
    })
    .await;
    let settings = config(&one_origin(origin.address)).replace("64 MiB", "4 MiB").replace("256 MiB", "8 MiB");
    let edge = Edge::start(&settings.replace("[cache.disk]\n", "[cache.disk]\nsegment_size = \"1 MiB\"\n"));
    let mut client = Client::new(edge.http, "a.example");
    // What comes for the first time is stored while there is room on the disk, and then no more.
    for number in 0..24 {
        assert_eq!(client.get(&format!("/{number}")).await.body.len(), SIZE);
    }
    for (name, value, status) in [
        ("if-match", "\"b\"", 412),
        ("if-none-match", "\"a\"", 304),
        ("range", "bytes=0-1,7-9", 206),
        ("range", "bytes=700000000-", 416),
    ] {
        let answer = client.get_with(&format!("/{status}"), &[(name, value)]).await;
        assert_eq!((answer.status.as_u16(), answer.field("connection").as_str()), (status, "close"));
    }
    assert_eq!(client.get("/last").await.body.len(), SIZE);
}

/// An origin whose first answer is `head` with content, and which breaks off every later connection or answers 503.
async fn failing(head: &'static str, later: Option<&'static str>) -> Origin {
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    Origin::start(move |mut stream, _| {
        let first = first.swap(false, std::sync::atomic::Ordering::SeqCst);
        async move {
            if first {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n{head}\r\n\r\nbody");
                stream.write_all(answer.as_bytes()).await.unwrap();
                return Some(stream);
            }
            if let Some(later) = later {
                stream.write_all(later.as_bytes()).await.unwrap();
                return Some(stream);
            }
            None
        }
    })
    .await
}

#[tokio::test]
async fn a_failing_origin_is_covered_by_stale_responses_that_do_not_forbid_it() {
    let unavailable = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let missing = "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n";
    for (head, later, grace, status) in [
        ("Cache-Control: max-age=0", None, "1h", 200),
        ("Cache-Control: max-age=0", Some(unavailable), "1h", 200),
        ("Cache-Control: max-age=0", Some(missing), "1h", 501),
        ("Cache-Control: max-age=0", Some(unavailable), "0s", 503),
        ("Cache-Control: max-age=0, must-revalidate", Some(unavailable), "1h", 503),
        ("Cache-Control: max-age=0, must-revalidate", None, "1h", 502),
        ("Cache-Control: max-age=0, stale-if-error=0", Some(unavailable), "1h", 503),
        ("Cache-Control: s-maxage=0", Some(unavailable), "1h", 503),
        ("Cache-Control: no-cache", Some(unavailable), "1h", 503),
    ] {
        let origin = failing(head, later).await;
        let edge = Edge::start(
            &format!("{}\n", config(&one_origin(origin.address)))
                .replace("[cache.memory]", &format!("[cache]\ngrace = \"{grace}\"\n\n[cache.memory]")),
        );
        let mut client = Client::new(edge.http, "a.example");
        assert_eq!(client.get("/").await.text(), "body");
        let answer = client.get("/").await;
        assert_eq!(answer.status.as_u16(), status, "{head} {later:?} {grace}");
        assert_eq!(answer.text() == "body", status == 200, "{head} {later:?} {grace}");
    }
}

#[tokio::test]
async fn an_error_that_an_odd_request_provoked_does_not_answer_others() {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=60 always; return 404 x; }");
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    let large = "x".repeat(9000);
    for (name, value) in [("x-http-method-override", "DELETE"), ("x-rewrite-url", "/admin"), ("x-large", &large)] {
        let provoked = client.get_with("/page", &[(name, value)]).await;
        assert!(!provoked.cache_status().contains("stored"), "{name}: {}", provoked.cache_status());
    }
    assert!(client.get("/page").await.cache_status().contains("stored"));
    assert!(client.get_with("/page", &[("x-large", &large)]).await.is_hit());
}

#[tokio::test]
async fn a_cookie_that_names_nobody_is_stored_for_those_who_have_none() {
    let nginx = Nginx::start(
        "location = /harmless { add_header Cache-Control max-age=60; add_header Set-Cookie lang=en; return 200 x; }
         location = /session { add_header Cache-Control max-age=60; add_header Set-Cookie sid=0123456789abcdef; return 200 x; }",
    );
    let edge = Edge::start(&config(&one_origin(nginx.address)));
    let mut client = Client::new(edge.http, "a.example");
    for (path, fields, hit) in [
        ("/harmless", vec![("cookie", "a=b")], false),
        ("/harmless", vec![], false),
        ("/harmless", vec![], true),
        ("/harmless", vec![("cookie", "lang=de")], false),
        ("/harmless", vec![("authorization", "Basic eDp5")], false),
        ("/harmless", vec![], true),
        ("/session", vec![], false),
        ("/session", vec![], false),
    ] {
        let answer = client.get_with(path, &fields).await;
        assert_eq!(answer.is_hit(), hit, "{path} {fields:?}: {}", answer.cache_status());
        assert!(answer.headers.contains_key("set-cookie"), "{path} {fields:?}");
    }
}
