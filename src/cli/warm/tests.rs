use super::*;
use clap::Parser;
use std::net::TcpListener;
use std::thread::JoinHandle;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    warm: Warm,
}

fn parse(args: &[&str]) -> Result<Warm, clap::Error> {
    Line::try_parse_from(["warm"].iter().chain(args)).map(|line| line.warm)
}

fn outcome(args: &[&str]) -> (Exit, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run(&parse(args).unwrap(), &mut out, &mut err);
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

/// An index of more sitemaps than are followed, none of which can be connected to.
fn endless() -> Vec<u8> {
    let locations = (0..=MAX_SITEMAPS).map(|n| format!("<loc>https://a.example/{n}</loc>"));
    format!("<sitemapindex>{}</sitemapindex>", locations.collect::<String>()).into_bytes()
}

/// Answers `requests` requests, each on a connection of its own; their heads.
fn server(requests: usize) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = move || {
        let answer = |_| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let (status, body) = match head.split(' ').nth(1).unwrap() {
                "/index.xml" => {
                    ("200 OK", gzip(b"<sitemapindex><loc>http://b.example/map.xml.gz</loc></sitemapindex>"))
                }
                "/map.xml.gz" => {
                    let map = b"<urlset><loc>http://a.example/1</loc><loc>http://a.example/2</loc></urlset>";
                    ("200 OK", gzip(map))
                }
                "/bomb.xml.gz" => ("200 OK", gzip(&vec![b' '; (50 << 20) + 1])),
                "/endless.xml" => ("200 OK", endless()),
                "/missing" => ("404 Not Found", b"no".to_vec()),
                _ => ("200 OK", b"12345".to_vec()),
            };
            let cache = if head.contains("/2 ") { "selvedge; hit; ttl=5" } else { "selvedge; fwd=uri-miss; stored" };
            let length = body.len();
            let fields = format!("Content-Length: {length}\r\nConnection: close\r\nCache-Status: {cache}\r\n");
            stream.write_all(format!("HTTP/1.1 {status}\r\n{fields}\r\n").as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            head
        };
        (0..requests).map(answer).collect()
    };
    (address, std::thread::spawn(serve))
}

#[test]
fn urls_lists_and_sitemaps_are_fetched_once_each_and_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("urls.txt");
    std::fs::write(&list, "# pages\nhttp://a.example/1\n\n http://c.example:81/3?x=y \n").unwrap();
    let (address, seen) = server(5);
    let (exit, out, err) = outcome(&[
        "--edge",
        &address,
        "--list",
        list.to_str().unwrap(),
        "--sitemap",
        "http://b.example/index.xml",
        "-H",
        "Accept-Encoding: gzip",
        "--concurrency",
        "2",
        "http://a.example/1",
    ]);
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    assert!(
        out.starts_with("3 of 3 fetched, 15 B in ") && out.ends_with("status  200: 3\ncache   hit: 1, stored: 2\n"),
        "{out}"
    );
    let seen = seen.join().unwrap();
    let coded = seen.iter().filter(|head| head.contains("accept-encoding: gzip\r\n")).count();
    assert_eq!(coded, 3, "all but the sitemaps: {seen:?}");
    let third = seen.iter().find(|head| head.starts_with("GET /3?x=y ")).unwrap();
    assert!(third.contains("host: c.example:81\r\n"), "{third}");
}

#[test]
fn anything_that_fails_is_named_and_exits_1() {
    let (address, seen) = server(2);
    let (exit, out, err) = outcome(&["--edge", &address, "http://a.example/missing", "http://a.example/2"]);
    assert_eq!((exit, err.as_str()), (Exit::Failed, "failed  http://a.example/missing: answered 404\n"));
    assert!(out.starts_with("1 of 2 fetched") && out.contains("200: 1, 404: 1"), "{out}");
    seen.join().unwrap();
    let (exit, _, err) = outcome(&["--edge", &address, "--sitemap", "http://a.example/map.xml"]);
    assert_eq!(exit, Exit::Failed, "nobody listens there any more");
    assert!(err.contains("not read as a sitemap: cannot connect"), "{err}");
}

#[test]
fn sitemaps_that_would_not_end_are_refused_and_said_to_be() {
    let (address, seen) = server(1);
    let (exit, _, err) = outcome(&["--edge", &address, "--sitemap", "http://a.example/bomb.xml.gz"]);
    let bomb = "not read as a sitemap: it unpacks to more than 50 MiB, the most that a sitemap may have";
    assert_eq!((exit, err), (Exit::Failed, format!("failed  http://a.example/bomb.xml.gz: {bomb}\n")));
    seen.join().unwrap();
    // TLS is not spoken there: each sitemap fails at once.
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("edge.toml");
    let (address, seen) = server(1);
    std::fs::write(&config, format!("[listen]\nhttp = [\"{address}\"]\n")).unwrap();
    let args = ["--config", config.to_str().unwrap(), "--sitemap", "http://a.example/endless.xml"];
    let (exit, out, err) = outcome(&args);
    assert_eq!((exit, out.lines().next().unwrap().split(',').next()), (Exit::Failed, Some("0 of 10000 fetched")));
    let told = "failed  http://a.example/endless.xml: more than 10000 sitemaps in all; the rest is left out\n";
    assert!(err.starts_with(told), "{}", &err[..200.min(err.len())]);
    seen.join().unwrap();
}

#[test]
fn what_to_fetch_and_where_is_checked() {
    for wrong in [
        &[][..],
        &["http://a/"],
        &["--edge", "127.0.0.1:1"],
        &["--edge", "127.0.0.1:1", "/a"],
        &["--edge", "127.0.0.1:1", "--concurrency", "0", "http://a/"],
        &["--edge", "127.0.0.1:1", "-H", "Host: x", "http://a/"],
        &["--edge", "127.0.0.1:1", "--insecure", "--cacert", "x", "http://a/"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("urls.txt");
    std::fs::write(&list, "http://a/\nwww.example.com\n").unwrap();
    let (exit, _, err) = outcome(&["--edge", "127.0.0.1:1", "--list", list.to_str().unwrap()]);
    assert!(exit == Exit::Usage && err.contains("line 2: write a URL"), "{err}");
}

#[test]
fn addresses_come_from_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("edge.toml");
    std::fs::write(&config, "[listen]\nhttp = [\"0.0.0.0:8080\"]\nhttps = [\"[::]:8443\", \"10.0.0.1:443\"]\n")
        .unwrap();
    let args = parse(&["--config", config.to_str().unwrap(), "http://a/"]).unwrap();
    let expected = Listeners { http: Some("127.0.0.1:8080".to_owned()), https: Some("[::1]:8443".to_owned()) };
    assert_eq!(listeners(&args).unwrap(), expected);
}

#[test]
fn the_cache_s_part_is_read_from_its_own_member() {
    for (value, expected) in [
        (Some("selvedge; hit; ttl=1"), "hit"),
        (Some("other; hit, selvedge; fwd=uri-miss; stored"), "stored"),
        (Some("selvedge; fwd=stale; fwd-status=304; stored"), "revalidated"),
        (Some("selvedge; fwd=uri-miss; collapsed"), "collapsed"),
        (Some("selvedge; fwd=bypass"), "not stored"),
        (Some("other; hit"), "unknown"),
        (None, "unknown"),
    ] {
        let headers = value.map(|value| (HeaderName::from_static("cache-status"), value.parse().unwrap()));
        assert_eq!(fetch::outcome(&headers.into_iter().collect()), expected, "{value:?}");
    }
}
