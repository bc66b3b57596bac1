//! What the parts of the hit path cost by themselves: `cargo bench --bench micro`.
//!
//! Each is a function that every request calls, given what a request gives it. Times are of one call on one core with warm
//! caches; compare them with each other and with an earlier run on the same machine, not with other machines.

use divan::{Bencher, black_box};
use http::{HeaderMap, HeaderValue, Method, Request, request};
use pingora::cache::CacheMeta;
use pingora::http::ResponseHeader;
use selvedge::cache::{key, policy};
use selvedge::field::cache_control::CacheControl;
use selvedge::origin::s3::sigv4::{EMPTY_PAYLOAD, Signer, Timestamp};
use selvedge::route::{Match, RouteTable, SiteSpec};
use selvedge::types::Secret;
use std::time::{Duration, SystemTime};

fn main() {
    divan::main();
}

/// As a browser sends it.
fn browser(path: &str) -> request::Parts {
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header("host", "www.example.com")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
        .header("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header("accept-language", "en-GB,en;q=0.7,de;q=0.3");
    let Ok(request) = request.body(()) else { panic!("the request is well formed") };
    request.into_parts().0
}

/// As a static file's is stored.
fn response() -> ResponseHeader {
    let fields = [
        ("content-type", "text/css"),
        ("content-length", "10240"),
        ("etag", "\"65a1f0c2-2800\""),
        ("last-modified", "Fri, 12 Jan 2024 08:00:00 GMT"),
        ("cache-control", "public, max-age=86400, stale-while-revalidate=60"),
        ("vary", "Accept-Encoding"),
        ("date", "Fri, 12 Jan 2024 09:00:00 GMT"),
    ];
    let head = ResponseHeader::build(200, Some(fields.len())).and_then(|mut head| {
        fields.iter().try_for_each(|(name, value)| head.append_header(*name, *value).map(drop))?;
        Ok(head)
    });
    let Ok(head) = head else { panic!("the response is well formed") };
    head
}

fn meta(now: SystemTime) -> CacheMeta {
    let lifetime = Duration::from_secs(86_400);
    CacheMeta::new(now + lifetime, now, 60, 0, response())
}

mod cache {
    use super::*;

    #[divan::bench(args = [16, 64, 256])]
    fn key(bencher: Bencher, path_length: usize) {
        let path = format!("/{}", "a".repeat(path_length - 1));
        let mut framed = Vec::new();
        bencher.bench_local(|| {
            key::frame(&mut framed, black_box("https"), "www.example.com", 443, path.as_bytes(), &[]).hash
        });
    }

    #[divan::bench]
    fn admits_request(bencher: Bencher) {
        let request = browser("/assets/site.css");
        bencher.bench_local(|| policy::admits_request(black_box(&request)));
    }

    #[divan::bench]
    fn judges_a_fresh_hit(bencher: Bencher) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000);
        let (meta, demand) = (meta(now), policy::Demand::default());
        let later = now + Duration::from_secs(100);
        bencher.bench_local(|| policy::on_hit(black_box(&meta), &demand, later));
    }

    #[divan::bench]
    fn admits_response(bencher: Bencher) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000);
        let (request, response) = (browser("/assets/site.css"), response());
        let rules = policy::ResponseRules { max_object: 1 << 30, ..policy::ResponseRules::default() };
        bencher.bench_local(|| policy::admits_response(black_box(&request), &response, now, &rules).is_ok());
    }

    #[divan::bench]
    fn selects_a_variant(bencher: Bencher) {
        let (request, response) = (browser("/assets/site.css"), response());
        let family = policy::family(&response.headers);
        bencher.bench_local(|| policy::variance(&response.headers, black_box(&request.headers), &family));
    }

    #[divan::bench]
    fn reads_cache_control(bencher: Bencher) {
        let fields = HeaderMap::from_iter([(
            http::header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=86400, stale-while-revalidate=60, stale-if-error=600"),
        )]);
        bencher.bench_local(|| CacheControl::of(black_box(&fields)));
    }
}

mod route {
    use super::*;

    /// Half of the hosts by name, half by wildcard, each with 4 paths.
    fn table(hosts: usize) -> RouteTable<usize> {
        let parsed = |text: String| text.parse().unwrap_or_else(|_| panic!("{text} is a host or a path"));
        let site = |n: usize| {
            let hosts = vec![if n.is_multiple_of(2) { format!("www.{n}.example") } else { format!("*.{n}.example") }];
            let paths = ["/", "/api", "/api/v2", "/static"].iter().enumerate();
            SiteSpec {
                hosts: hosts.into_iter().map(parsed).collect(),
                routes: paths
                    .map(|(at, path)| (path.parse().unwrap_or_else(|_| panic!("{path} is a path")), n * 4 + at))
                    .collect(),
            }
        };
        RouteTable::build((0..hosts).map(site).collect()).unwrap_or_else(|_| panic!("no host is there twice"))
    }

    #[divan::bench(args = [10, 10_000])]
    fn exact(bencher: Bencher, hosts: usize) {
        let table = table(hosts);
        let host = format!("www.{}.example", hosts / 2 / 2 * 2);
        assert!(matches!(table.find(&host, "/api/v2/users"), Match::Route(_)));
        bencher.bench_local(|| matches!(table.find(black_box(&host), "/api/v2/users"), Match::Route(_)));
    }

    #[divan::bench(args = [10, 10_000])]
    fn wildcard(bencher: Bencher, hosts: usize) {
        let table = table(hosts);
        let host = format!("a.b.{}.example", hosts / 2 / 2 * 2 + 1);
        assert!(matches!(table.find(&host, "/static/site.css"), Match::Route(_)));
        bencher.bench_local(|| matches!(table.find(black_box(&host), "/static/site.css"), Match::Route(_)));
    }

    #[divan::bench(args = [10, 10_000])]
    fn unknown(bencher: Bencher, hosts: usize) {
        let table = table(hosts);
        bencher.bench_local(|| matches!(table.find(black_box("www.elsewhere.test"), "/"), Match::UnknownHost));
    }

    #[divan::bench(args = [2_000, 10_000], sample_count = 20)]
    fn build(bencher: Bencher, hosts: usize) {
        bencher.bench_local(|| table(hosts));
    }
}

mod bucket {
    use super::*;
    use selvedge::origin::s3::sigv4;

    #[divan::bench]
    fn signs_a_get(bencher: Bencher) {
        let signer = Signer::new("AKIDEXAMPLE", &Secret::new("a-secret"), "eu-central-1", "s3");
        let now = Timestamp::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000));
        let headers = [
            ("host", "assets.s3.eu-central-1.amazonaws.com"),
            ("x-amz-content-sha256", EMPTY_PAYLOAD),
            ("x-amz-date", now.as_str()),
        ];
        let request = sigv4::Request {
            method: "GET",
            path: "/img/2024/01/header%20large.webp",
            query: "",
            headers: &headers,
            payload_hash: EMPTY_PAYLOAD,
        };
        bencher.bench_local(|| signer.sign(black_box(&request), &now).signature.len());
    }
}
