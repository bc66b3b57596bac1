//! What a site can be told: schemes, names, access, limits, and what its origin is told of the client.

use crate::support::edge::{config, config_tls};
use crate::support::faulty::Origin;
use crate::support::tools::{certificate, raw};
use crate::support::{Answer, Client, Edge};
use bytes::Bytes;
use http::Method;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

/// An origin that answers with the request head it got, to be stored for a minute under `/stored`.
async fn echo() -> Origin {
    Origin::start(|mut stream, head| async move {
        let lifetime = if head.contains(" /stored") { "max-age=60" } else { "no-store" };
        let length = head.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: {lifetime}\r\nContent-Length: {length}\r\n\r\n{head}"
        );
        stream.write_all(answer.as_bytes()).await.ok()?;
        Some(stream)
    })
    .await
}

/// One site of these keys before `origin`, its only route with `route`.
fn site(origin: &Origin, hosts: &str, site: &str, route: &str) -> String {
    format!(
        "[origins.app.http]\nservers = [\"{}\"]\n[[sites]]\nhosts = {hosts}\n{site}\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n{route}\n",
        origin.address
    )
}

/// Status and target of the redirect, by curl: over TLS the name is what SNI has. Status 0: the handshake failed.
fn visit(edge: &Edge, scheme: &str, host: &str, more: &[&str]) -> (u16, String) {
    let port = if scheme == "https" { edge.https.unwrap().port() } else { edge.http.port() };
    let out = Command::new("curl")
        .args(["-sk", "--max-time", "20", "-o", "/dev/null", "-D", "-", "-w", "%{http_code} %{redirect_url}"])
        .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
        .args(more)
        .arg(format!("{scheme}://{host}:{port}/a?b=c"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    let (status, to) = last.split_once(' ').unwrap_or((last, ""));
    let status = status.parse().unwrap_or(0);
    let hsts = text.lines().any(|line| line.to_lowercase().starts_with("strict-transport-security:"));
    (status, format!("{to}{}", if hsts { " +hsts" } else { "" }))
}

fn with_certificates(names: &[&str]) -> Arc<TempDir> {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    std::fs::create_dir_all(dir.path().join("certs")).unwrap();
    for name in names {
        certificate(&dir.path().join("certs"), name, &[name]);
    }
    dir
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemes_follow_the_method_the_certificate_and_the_default_certificate() {
    let origin = echo().await;
    let mut sites = String::new();
    for (method, host) in
        [("redirect", "redirect"), ("noredirect", "noredirect"), ("nohttp", "nohttp"), ("nohttps", "nohttps")]
    {
        for (has, more) in [("has", ""), ("none", ""), ("open", "http_on_missing_certificate = true\n")] {
            sites.push_str(&format!(
                "[[sites]]\nhosts = [\"{host}.{has}.example\"]\nhttps = \"{method}\"\nhsts = \"max-age=9\"\ntrust_default_certificate = false\n\
                 {more}[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n"
            ));
        }
    }
    let text = format!("[origins.app.http]\nservers = [\"{}\"]\n{sites}", origin.address);
    for default in [false, true] {
        let mut names = vec!["has.example"];
        names.extend(default.then_some("default"));
        let edge = Edge::start_in(with_certificates(&names), &config_tls(&text), &[]);
        // Without a default certificate an unknown name ends the handshake.
        let unknown = if default { 503 } else { 0 };
        for (method, certificate, http, https, hsts) in [
            ("redirect", "has", 301, 200, true),
            ("noredirect", "has", 200, 200, false),
            ("nohttp", "has", 503, 200, true),
            ("nohttps", "has", 200, unknown, false),
            ("redirect", "none", 301, unknown, false),
            ("noredirect", "none", 200, unknown, false),
            ("nohttp", "none", 503, unknown, false),
            ("nohttps", "none", 200, unknown, false),
            ("redirect", "open", 200, unknown, false),
            ("noredirect", "open", 200, unknown, false),
            ("nohttp", "open", 200, unknown, false),
            ("nohttps", "open", 200, unknown, false),
        ] {
            let host = format!("{method}.{certificate}.example");
            let row = format!("{host}, default certificate: {default}");
            let (status, to) = visit(&edge, "http", &host, &[]);
            let to_https = if http == 301 { format!("https://{host}/a?b=c") } else { String::new() };
            assert_eq!((status, to), (http, to_https), "http, {row}");
            let (status, to) = visit(&edge, "https", &host, &[]);
            assert_eq!((status, to.as_str()), (https, if hsts { " +hsts" } else { "" }), "https, {row}");
        }
        assert_eq!(visit(&edge, "http", "unknown.example", &[]).0, 503, "http, unknown, {default}");
        assert_eq!(visit(&edge, "https", "unknown.example", &[]).0, unknown, "https, unknown, {default}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_know_method_port_and_name_and_odd_methods_are_refused() {
    let origin = echo().await;
    let keys =
        "https = \"redirect\"\nhttps_port = 8443\nnon_get_redirect = 307\ncanonical = \"www\"\nhsts = \"max-age=9\"";
    let text = site(&origin, "[\"a.example\", \"www.a.example\"]", keys, "");
    let edge = Edge::start_in(with_certificates(&["a.example", "www.a.example"]), &config_tls(&text), &[]);
    for method in ["OPTIONS", "POST", "PUT", "PATCH", "DELETE"] {
        let (status, to) = visit(&edge, "http", "www.a.example", &["-X", method]);
        assert_eq!((status, to.as_str()), (307, "https://www.a.example:8443/a?b=c"), "{method}");
    }
    // One step for both, and errors and redirects over HTTPS have the field as well.
    assert_eq!(visit(&edge, "http", "a.example", &[]), (301, "https://www.a.example:8443/a?b=c".to_owned()));
    let port = edge.https.unwrap().port();
    assert_eq!(visit(&edge, "https", "a.example", &[]), (301, format!("https://www.a.example:{port}/a?b=c +hsts")));
    assert_eq!(visit(&edge, "https", "www.a.example", &[]), (200, " +hsts".to_owned()));
    assert_eq!(visit(&edge, "https", "www.a.example", &["-X", "TRACE"]).0, 405);
    let connect = raw(edge.http, b"CONNECT www.a.example:443 HTTP/1.1\r\nHost: www.a.example:443\r\n\r\n");
    assert!(connect.starts_with("HTTP/1.1 400"), "{connect}");
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_hosts_and_paths_get_what_is_said() {
    let origin = echo().await;
    let routed = |rest: &str| {
        let text = site(&origin, "[\"a.example\"]", "no_route = \"302 https://b.example/\"", "");
        config(&format!("{rest}{}", text.replace("path = \"/\"", "path = \"/app\"")))
    };
    let edge = Edge::start(&routed("[unknown_hosts]\nanswer = \"drop\"\n"));
    let dropped = raw(edge.http, b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n");
    assert_eq!(dropped, "");
    let mut client = Client::new(edge.http, "a.example");
    let elsewhere = client.get("/other").await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.field("location").as_str()), (302, "https://b.example/"));

    let edge = Edge::start(&routed("[unknown_hosts]\nanswer = 421\n"));
    assert_eq!(Client::new(edge.http, "b.example").get("/app").await.status, 421);
    let edge = Edge::start(&routed("[unknown_hosts]\ndefault_host = \"a.example\"\n"));
    let taken_in = Client::new(edge.http, "b.example").get("/app").await;
    assert!(taken_in.text().contains("Host: b.example\r\n"), "{}", taken_in.text());
}

fn told(answer: &Answer, name: &str) -> String {
    let text = answer.text();
    let line = text.lines().find_map(|line| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)));
    line.map(|(_, value)| value.to_owned()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_trusted_proxies_say_who_the_client_is() {
    let origin = echo().await;
    let text = site(&origin, "[\"*\"]", "", "[sites.routes.access]\ndeny = [\"198.51.100.0/24\"]\n");
    let fields = [
        ("x-forwarded-for", "203.0.113.5, 192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-port", "8443"),
        ("proxy", "evil"),
    ];
    let seen = |answer: &Answer| {
        ["x-real-ip", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "proxy"]
            .map(|name| told(answer, name))
    };
    for (proxies, expected) in [
        ("", ["127.0.0.1", "127.0.0.1", "http", "a.example", "80", ""]),
        (
            "[proxies]\ntrusted = [\"127.0.0.0/8\"]\n",
            ["192.0.2.1", "203.0.113.5, 192.0.2.1, 127.0.0.1", "https", "shop.example", "8443", ""],
        ),
        (
            "[proxies]\ntrust_everyone = true\n",
            ["127.0.0.1", "203.0.113.5, 192.0.2.1, 127.0.0.1", "https", "shop.example", "8443", ""],
        ),
        ("[proxies]\ntrusted = [\"10.0.0.0/8\"]\n", ["127.0.0.1", "127.0.0.1", "http", "a.example", "80", ""]),
    ] {
        let edge = Edge::start(&config(&format!("{proxies}{text}")));
        let mut client = Client::new(edge.http, "a.example");
        let answer = client.get_with("/x", &fields).await;
        assert_eq!(seen(&answer), expected, "{proxies}");
        // Who is told apart by claims that the key does not have is neither stored for others nor answered from the store.
        let elsewhere = !proxies.is_empty() && !proxies.contains("10.0");
        client.get_with("/stored", &fields).await;
        assert_eq!(client.get_with("/stored", &fields).await.is_hit(), !elsewhere, "{proxies}");
        // A refusal by address cannot be talked out of, nor talked into.
        let status = client.get_with("/x", &[("x-forwarded-for", "198.51.100.7")]).await.status.as_u16();
        assert_eq!(status, if proxies.contains("127.0") { 403 } else { 200 }, "{proxies}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheme_that_a_proxy_ended_is_part_of_the_key_and_needs_no_redirect() {
    let origin = echo().await;
    let text = site(&origin, "[\"a.example\"]", "https = \"redirect\"\nhsts = \"max-age=9\"", "");
    let dir = with_certificates(&["a.example"]);
    let edge = Edge::start_in(dir, &config_tls(&format!("[proxies]\ntrusted = [\"127.0.0.1\"]\n{text}")), &[]);
    let mut client = Client::new(edge.http, "a.example");
    let https = [("x-forwarded-proto", "https")];
    let first = client.get_with("/stored", &https).await;
    assert_eq!((first.status.as_u16(), first.field("strict-transport-security").as_str()), (200, "max-age=9"));
    assert!(client.get_with("/stored", &https).await.is_hit());
    assert_eq!(client.get_with("/stored", &[("x-forwarded-proto", "http")]).await.status, 301);
    assert_eq!(client.get("/stored").await.status, 301);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_header_names_the_client_and_only_listed_peers_have_one() {
    let origin = echo().await;
    let text = site(&origin, "[\"*\"]", "", "");
    let edge = Edge::start(&config(&text).replace("admin = ", "proxy_protocol = [\"127.0.0.0/8\"]\nadmin = "));
    let request = "GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    let v1 = raw(edge.http, format!("PROXY TCP4 192.0.2.77 10.0.0.1 4096 80\r\n{request}").as_bytes());
    assert!(v1.to_lowercase().contains("x-real-ip: 192.0.2.77\r\n"), "{v1}");
    let v2 =
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x4d\x0a\0\0\x01\x10\0\0\x50".as_slice(), request.as_bytes()];
    assert!(raw(edge.http, &v2.concat()).to_lowercase().contains("x-real-ip: 192.0.2.77\r\n"));
    assert_eq!(raw(edge.http, request.as_bytes()), "", "a listed peer has to send one");
    let edge = Edge::start(&config(&text));
    let refused = raw(edge.http, format!("PROXY TCP4 192.0.2.77 10.0.0.1 4096 80\r\n{request}").as_bytes());
    assert!(!refused.contains("192.0.2.77"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_networks_and_rates_guard_what_is_stored_as_well() {
    let origin = echo().await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let users = dir.path().join("htpasswd");
    // The password is `secret`.
    std::fs::write(&users, "anna:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/\n").unwrap();
    let route = "cache = \"1m\"\n[sites.routes.cache]\n".replace("cache = \"1m\"\n", "");
    let text = site(
        &origin,
        "[\"a.example\"]",
        "[sites.auth]\nusers_file = \"htpasswd\"\nrealm = \"Staff only\"",
        &format!(
            "{route}authorization = \"strip\"\n[[sites.routes]]\npath = \"/open\"\norigin = \"app\"\n[sites.routes.auth]\nenabled = false\n"
        ),
    );
    let edge = Edge::start_in(Arc::clone(&dir), &config(&text), &[]);
    let mut client = Client::new(edge.http, "a.example");
    let anna = [("authorization", "Basic YW5uYTpzZWNyZXQ=")];
    let refused = client.get("/stored").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.field("www-authenticate"), "Basic realm=\"Staff only\", charset=\"UTF-8\"");
    assert_eq!(client.get_with("/stored", &anna).await.status, 200);
    assert!(client.get_with("/stored", &anna).await.is_hit());
    assert_eq!(client.get("/stored").await.status, 401, "stored, and yet not for all");
    assert_eq!(client.get_with("/stored", &[("authorization", "Basic YW5uYTp3cm9uZw==")]).await.status, 401);
    assert_eq!(client.get("/open").await.status, 200);
    // Another password takes the place of the old one while the edge runs.
    std::fs::write(&users, "anna:{SHA}9qmcbZZcLKgIzd2RdIBbMxFcdjM=\n").unwrap();
    crate::support::tools::wait_until("the new list", std::time::Duration::from_secs(20), || {
        let line = "GET /stored HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nAuthorization: Basic YW5uYTpzZWNyZXQ=\r\n\r\n";
        raw(edge.http, line.as_bytes()).starts_with("HTTP/1.1 401")
    });

    let limited = site(&origin, "[\"*\"]", "", "[sites.routes.rate_limit]\nrequests = 1\nperiod = \"1h\"\nburst = 3\n");
    let edge = Edge::start(&config(&limited));
    let mut client = Client::new(edge.http, "a.example");
    for _ in 0..3 {
        assert_eq!(client.get("/stored").await.status, 200);
    }
    let exceeded = client.get("/stored").await;
    assert_eq!((exceeded.status.as_u16(), exceeded.field("ratelimit-policy").as_str()), (429, "\"client\";q=1;w=3600"));
    let wait: u64 = exceeded.field("retry-after").parse().unwrap();
    assert!((3000..=3600).contains(&wait), "{wait}");

    let external = site(&origin, "[\"*\"]", "[sites.access]\nallow = [\"192.0.2.0/24\"]", "");
    let edge = Edge::start(&config(&external));
    assert_eq!(Client::new(edge.http, "a.example").get("/stored").await.status, 403);
    let internal = site(&origin, "[\"*\"]", "[sites.access]\ninternal = true", "");
    let edge = Edge::start(&config(&internal));
    assert_eq!(Client::new(edge.http, "a.example").get("/stored").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_is_replaced_for_the_origin_and_the_key_keeps_the_clients() {
    let origin = echo().await;
    let mut text = site(&origin, "[\"*\"]", "", "");
    for (path, by) in [("/one/", "/stored/"), ("/two/", "/stored/2/"), ("/three", "")] {
        text.push_str(&format!("[[sites.routes]]\npath = \"{path}\"\norigin = \"app\"\nreplace_prefix = \"{by}\"\n"));
    }
    let edge = Edge::start(&config(&text));
    let mut client = Client::new(edge.http, "a.example");
    for (path, got) in
        [("/one/a?q=1", "/stored/a?q=1"), ("/two/a?q=1", "/stored/2/a?q=1"), ("/three/stored", "/stored")]
    {
        let first = client.get(path).await;
        assert!(first.text().starts_with(&format!("GET {got} HTTP/1.1\r\n")), "{path}: {}", first.text());
        assert_eq!(told(&first, "x-original-uri"), path);
        let again = client.get(path).await;
        assert!(again.is_hit() && again.text() == first.text(), "{path}");
    }
    assert!(!client.get("/stored/a?q=1").await.is_hit(), "what has another name has another key");
    let body = Bytes::from_static(b"{\"urls\":[\"http://a.example/one/a?q=1\"]}");
    let purged = Client::new(edge.admin, "127.0.0.1").send(Method::POST, "/purge", &[], body).await.unwrap();
    assert_eq!(purged.status, 200);
    assert!(!client.get("/one/a?q=1").await.is_hit());
    assert!(client.get("/two/a?q=1").await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_with_a_port_of_its_own_is_known_there_alone() {
    let origin = echo().await;
    let own = crate::support::tools::free_port();
    let mut text = site(&origin, "[\"own.example\"]", &format!("[sites.ports]\nhttp = {own}"), "");
    text.push_str("[[sites]]\nhosts = [\"a.example\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n");
    let listen = format!("http = [\"127.0.0.1:0\", \"127.0.0.1:{own}\"]");
    let edge = Edge::start(&config(&text).replace("http = [\"127.0.0.1:0\"]", &listen));
    let there = std::net::SocketAddr::from(([127, 0, 0, 1], own));
    for (address, host, status) in [
        (edge.http, "a.example", 200),
        (edge.http, "own.example", 503),
        (there, "own.example", 200),
        (there, "a.example", 503),
    ] {
        assert_eq!(Client::new(address, host).get("/x").await.status, status, "{address} {host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_has_its_own_patience_with_the_origin() {
    let origin = Origin::start(|mut stream, head| async move {
        if head.contains(" /hangs") {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok").await.ok()?;
        Some(stream)
    })
    .await;
    let text = format!(
        "[origins.app.http]\nservers = [\"{}\"]\nread_timeout = \"20s\"\nmax_fails = 0\n[[sites]]\nhosts = [\"a.example\"]\n\
         [[sites.routes]]\npath = \"/\"\norigin = \"app\"\n[[sites.routes]]\npath = \"/hangs\"\norigin = \"app\"\nread_timeout = \"100ms\"\n\
         [[sites.routes]]\npath = \"/short\"\norigin = \"app\"\nread_timeout = \"100ms\"\n",
        origin.address
    );
    let edge = Edge::start(&config(&text));
    let mut client = Client::new(edge.http, "a.example");
    for (path, status) in [("/hangs", 504), ("/short", 504), ("/else", 200)] {
        assert_eq!(client.get(path).await.status.as_u16(), status, "{path}");
    }
}
