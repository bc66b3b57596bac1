//! Fresh hits over HTTP/1.1 are answered before the proxy core. Nobody can tell: an edge with that short way and one
//! without it get the same requests, byte for byte, and their answers, log events and metrics are the same.

use crate::support::Edge;
use crate::support::edge::config;
use crate::support::oracle::{Oracle, Resource, Tagged, Varies};
use crate::support::tools::wait_until;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngSeed, TestError, TestRunner};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The sites of both edges: one for each kind of rule that bears on a hit.
const SITES: &[(&str, &str)] = &[
    ("plain.example", ""),
    (
        "dressed.example",
        "[sites.routes.headers]\nresponse_remove = [\"x-twice\", \"Via\"]\nresponse_set = { \"X-Host\" = \"$host\", \"X-State\" = \
         \"set\" }\nresponse_add = { \"Cache-Tags\" = \"a\" }\n[sites.routes.security]\nenabled = true\nhsts = \"365days\"\n",
    ),
    ("timed.example", "TIMED"),
    ("client.example", "[sites.routes.headers]\nresponse_set = { \"X-Client\" = \"$client_ip\" }\n"),
    ("age.example", "[sites.routes.headers]\nresponse_remove = [\"Age\"]\n"),
    (
        "cors.example",
        "[sites.routes.cors]\nenabled = true\norigins = [\"https://a.example\"]\nexpose_headers = [\"X-State\"]\n",
    ),
    (
        "packed.example",
        "[sites.routes.compression]\nenabled = true\nmin_size = \"100 B\"\ntypes = [\"application/x-oracle\"]\n",
    ),
    (
        "keyed.example",
        "[sites.routes.cache]\ncookies = \"key:a\"\n[sites.routes.cache.key]\nheaders = [\"X-Flavour\"]\ndevice = true\n\
         query_only = [\"v\"]\n",
    ),
    (
        "bypass.example",
        "[sites.routes.cache]\nbypass_headers = [\"X-Preview\"]\nbypass_cookies = [\"s*\"]\nbypass_paths = [\"*live*\"]\n\
         authorization = \"bypass\"\n",
    ),
    ("strip.example", "[sites.routes.cache]\ncookies = \"strip\"\nauthorization = \"strip\"\n"),
];

/// Fields that are sent as they are, whatever is stored.
const FIELDS: &[&str] = &[
    "User-Agent: Mozilla/5.0 (iPhone) Mobile",
    "user-agent: b \u{b5}",
    "Referer: http://a.example/\"x",
    "Accept-Encoding: gzip, br",
    "Accept-Encoding: gzip;q=0.5, deflate",
    "Accept-Encoding: identity",
    "Accept-Language: de, en;q=0.5",
    "X-Flavour: hot",
    "x-flavour: mild",
    "Cookie: a=1; b=2",
    "Cookie: b=2; session=3",
    "Authorization: Basic eA==",
    "Origin: https://a.example",
    "Origin: https://b.example",
    "X-Preview: 1",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: X-Flavour",
    "Connection: keep-alive, Cookie",
    "Content-Length: 0",
    "Cache-Control: max-age=3000",
    "Cache-Control: min-fresh=5",
    "Cache-Control: min-fresh=99999999",
    "Cache-Control: max-stale, only-if-cached",
    "Cache-Control: no-store",
    "CDN-Loop: other; v=1",
    "TE: trailers",
    "Keep-Alive: timeout=5",
    "Selvedge-Debug: wrong",
    "Expect: 100-continue",
    "Accept: */*",
    "X-Empty:",
    "X-Folded: a\r\n b",
    "Bad Name: x",
    "Host: other.example",
];

/// Conditions; `{TAG}` and `{DATE}` become those of what is stored.
const CONDITIONS: &[&str] = &[
    "If-None-Match: {TAG}",
    "If-None-Match: \"x\", W/{TAG}",
    "If-None-Match: *",
    "If-None-Match: \"x\"",
    "If-Modified-Since: {DATE}",
    "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
    "If-Modified-Since: nonsense",
    "If-Match: {TAG}",
    "If-Match: \"x\"",
    "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
    "If-Range: {TAG}",
    "If-Range: \"x\"",
];

const RANGES: &[&str] = &[
    "bytes=0-0",
    "bytes=1-",
    "bytes=-3",
    "bytes=0-",
    "bytes=2-5",
    "bytes=5-2",
    "bytes=99999999-",
    "bytes=-0",
    "lines=1-2",
    "bytes=0-1, 3-4",
    "bytes=70000-140000",
    "bytes=",
];

/// How a request line is written; `{}` is the path.
const LINES: &[&str] = &[
    "GET {} HTTP/1.1",
    "GET {} HTTP/1.1",
    "GET {} HTTP/1.1",
    "GET {} HTTP/1.1",
    "GET {} HTTP/1.1",
    "GET {} HTTP/1.1",
    "HEAD {} HTTP/1.1",
    "HEAD {} HTTP/1.1",
    "GET {}?v=1&utm=2 HTTP/1.1",
    "GET {}?x=1 HTTP/1.1",
    "GET {}live HTTP/1.1",
    "GET {} HTTP/1.0",
    "GET http://plain.example{} HTTP/1.1",
    "GET /{} HTTP/1.1",
    "GET {}#x HTTP/1.1",
    "GET {}|x HTTP/1.1",
    "OPTIONS {} HTTP/1.1",
    "GET {}%2e%00 HTTP/1.1",
    "get {} HTTP/1.1",
];

/// One request.
#[derive(Clone, Debug)]
struct Ask {
    line: &'static str,
    fields: Vec<&'static str>,
    conditions: Vec<&'static str>,
    range: Option<&'static str>,
    /// Lines end without a carriage return.
    bare: bool,
    /// It is sent together with the next one.
    pipelined: bool,
}

#[derive(Clone, Debug)]
struct Scene {
    resource: Resource,
    site: usize,
    disk: bool,
    asks: Vec<Ask>,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let size = prop_oneof![1 => 0usize..2, 6 => 2usize..300, 3 => 300usize..80_000, 1 => 200_000usize..1_500_000];
    let varies =
        select(vec![Varies::Never, Varies::Never, Varies::Never, Varies::Flavour, Varies::Coding, Varies::Cookie]);
    let tagged = select(vec![Tagged::Strong, Tagged::Strong, Tagged::Weak, Tagged::None]);
    let status = select(vec![200u16, 200, 200, 200, 200, 200, 404, 203, 204, 301]);
    let cache_control =
        select(vec!["max-age=3600", "public, s-maxage=3600", "max-age=3600, must-revalidate, immutable"]);
    let chunked = proptest::bool::weighted(0.2);
    let resource = (size, status, tagged, any::<bool>(), chunked, varies, cache_control).prop_map(
        |(size, status, tagged, dated, chunked, varies, cache_control)| Resource {
            size,
            status,
            tagged,
            dated,
            chunked: chunked && status == 200,
            varies,
            cache_control,
        },
    );
    let ask = (
        select(LINES),
        prop::collection::vec(select(FIELDS), 0..4),
        prop_oneof![3 => Just(0usize), 2 => Just(1), 1 => Just(2)]
            .prop_flat_map(|n| prop::collection::vec(select(CONDITIONS), n)),
        proptest::option::weighted(0.25, select(RANGES)),
        proptest::bool::weighted(0.05),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(line, fields, conditions, range, bare, pipelined)| Ask {
            line,
            fields,
            conditions,
            range,
            bare,
            pipelined,
        });
    (resource, 0..SITES.len() + 6, any::<bool>(), prop::collection::vec(ask, 3..9))
        .prop_map(|(resource, site, disk, asks)| Scene { resource, site: site.saturating_sub(6), disk, asks })
}

impl Ask {
    fn wire(&self, host: &str, path: &str, tag: &str, date: &str) -> Vec<u8> {
        let end = if self.bare { "\n" } else { "\r\n" };
        let mut text = format!("{}{end}Host: {host}{end}", self.line.replace("{}", path));
        for field in &self.fields {
            text += &format!("{field}{end}");
        }
        for condition in &self.conditions {
            text += &format!("{}{end}", condition.replace("{TAG}", tag).replace("{DATE}", date));
        }
        if let Some(range) = self.range {
            text += &format!("Range: {range}{end}");
        }
        (text + end).into_bytes()
    }
}

impl Ask {
    /// What has the variant stored that this request selects.
    fn warming(&self, host: &str, path: &str) -> Vec<u8> {
        let target = self.line.split(' ').nth(1).unwrap().replace("{}", path);
        let mut text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nReferer: warm\r\n");
        let unlike = ["Connection:", "Content-Length:", "Expect:", "Bad ", "X-Folded:", "Host:", "Cache-Control:"];
        for field in self.fields.iter().filter(|field| !unlike.iter().any(|name| field.starts_with(name))) {
            text += &format!("{field}\r\n");
        }
        (text + "\r\n").into_bytes()
    }
}

/// A client's connection, opened again where it was closed.
struct Wire {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

/// An answer as it came, and what of it may differ taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    head: String,
    body: Vec<u8>,
}

impl Wire {
    fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    fn send(&mut self, bytes: &[u8]) {
        let address = self.address;
        let stream = self.stream.get_or_insert_with(|| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.set_nodelay(true).unwrap();
            BufReader::new(stream)
        });
        // A server that has closed is found out by reading.
        let _ = stream.get_mut().write_all(bytes);
    }

    /// The next answer; none where the connection has ended.
    fn answer(&mut self, bodiless: bool) -> Option<Told> {
        let stream = self.stream.as_mut()?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let mut bytes = Vec::new();
            if stream.read_until(b'\n', &mut bytes).unwrap_or(0) == 0 {
                self.stream = None;
                assert!(lines.is_empty(), "half a head: {lines:?}");
                return None;
            }
            line.push_str(&String::from_utf8_lossy(&bytes));
            let line = line.trim_end().to_owned();
            if !line.is_empty() {
                lines.push(line);
            } else if lines[0].starts_with("HTTP/1.1 1") {
                lines.clear();
            } else {
                break;
            }
        }
        let field = |name: &str| {
            lines.iter().find_map(|l| l.to_ascii_lowercase().strip_prefix(&format!("{name}: ")).map(str::to_owned))
        };
        let status = lines[0].split(' ').nth(1).unwrap().to_owned();
        let mut body = Vec::new();
        if !bodiless && status != "204" && status != "304" {
            match field("content-length").map(|l| l.parse::<usize>().unwrap()) {
                Some(length) => {
                    body.resize(length, 0);
                    stream.read_exact(&mut body).unwrap();
                }
                None if field("transfer-encoding").is_some() => body = chunks(stream),
                None => drop(stream.read_to_end(&mut body).unwrap()),
            }
        }
        if field("connection").as_deref() == Some("close") {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "closed as announced");
            self.stream = None;
        }
        let mut head = lines.iter().map(|line| level(line)).collect::<Vec<_>>().join("\n");
        if let Some((_, boundary)) = head.clone().split("\n").find_map(|line| line.split_once("boundary=")) {
            // The core makes it up for each answer.
            head = head.replace(boundary, "-");
            body = String::from_utf8_lossy(&body).replace(boundary, "-").into_bytes();
        }
        let body = if head.contains("text/plain") {
            // The edge's own pages tell the request's id.
            String::from_utf8_lossy(&body)
                .lines()
                .filter(|l| !l.starts_with("request "))
                .collect::<String>()
                .into_bytes()
        } else {
            body
        };
        Some(Told { head, body })
    }
}

fn chunks(stream: &mut BufReader<TcpStream>) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// A line without what the clock has put into it.
fn level(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    for name in ["date: ", "age: "] {
        if lower.starts_with(name) {
            return line[..name.len()].to_owned();
        }
    }
    if lower.starts_with("cache-status: ")
        && let Some((before, after)) = line.split_once("ttl=")
    {
        return format!("{before}ttl={}", after.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    if lower.starts_with("server-timing: ")
        && let Some((before, _)) = line.split_once("dur=")
    {
        return before.to_owned();
    }
    line.to_owned()
}

/// Edges that differ in nothing but the short way.
struct Pair {
    edges: [Edge; 2],
}

impl Pair {
    fn start(origin: SocketAddr, disk: bool) -> Self {
        let sites: String = SITES
            .iter()
            .map(|(host, rules)| {
                let timed = if *rules == "TIMED" { "server_timing = true\n" } else { "" };
                let rules = rules.replace("TIMED", "");
                format!("[[sites]]\nhosts = [\"{host}\"]\n{timed}[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n{rules}\n")
            })
            .collect();
        let rest = format!(
            "[access_log]\nformat = \"json\"\noutput = \"./access.log\"\n\n[origins.app.http]\nservers = [\"{origin}\"]\n\n{sites}"
        );
        let text = config(&rest);
        let text = if disk { text.replace("capacity = \"64 MiB\"", "capacity = 0") } else { text };
        let without = text.replace("[listen]\n", "[listen]\nhot_path = false\n");
        Self { edges: [Edge::start(&text), Edge::start(&without)] }
    }

    /// The log events of both, but for those of the client that warms up.
    fn events(&self) -> [Vec<serde_json::Value>; 2] {
        [0, 1].map(|at| {
            let log = std::fs::read_to_string(self.edges[at].config_file().with_file_name("access.log")).unwrap();
            let events = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let events = events.filter(|event| event["referer"] != "warm");
            events
                .map(|mut event| {
                    for name in ["time", "request_id", "client_port", "duration_ms", "origin_duration_ms", "upstream"] {
                        event.as_object_mut().unwrap().remove(name);
                    }
                    event
                })
                .collect()
        })
    }
}

impl Ask {
    /// Whether it has a directive by which what is stored may be refused.
    fn directs(&self) -> bool {
        let names = ["cache-control:", "pragma:"];
        self.fields.iter().any(|field| names.iter().any(|name| field.to_ascii_lowercase().starts_with(name)))
    }
}

/// Asks until the answer is no longer on its way into a tier; the last one.
fn warm(edge: &Edge, request: &[u8]) -> Option<Told> {
    let mut wire = Wire::new(edge.http);
    let mut last = None;
    wait_until("an answer is stored", Duration::from_secs(10), || {
        wire.send(request);
        last = wire.answer(false);
        last.as_ref().is_none_or(|told| !told.head.contains("; stored") && !told.head.contains("; collapsed"))
    });
    last
}

/// Plays a scene to both; counts what their answers were.
fn play(
    pair: &Pair,
    oracle: &Oracle,
    scene: &Scene,
    path: &str,
    seen: &mut BTreeMap<String, usize>,
) -> Result<usize, String> {
    oracle.hold(path, scene.resource.clone());
    let host = SITES[scene.site].0;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nReferer: warm\r\n\r\n");
    let stored = [0, 1].map(|at| warm(&pair.edges[at], request.as_bytes()).unwrap());
    if stored[0] != stored[1] {
        return Err(format!("warming up: {:?}\nand without: {:?}", stored[0].head, stored[1].head));
    }
    let field = |name: &str| {
        let value = stored[0]
            .head
            .lines()
            .find_map(|l| l.to_ascii_lowercase().starts_with(name).then(|| l[name.len()..].to_owned()));
        value.unwrap_or_else(|| "\"none\"".to_owned())
    };
    let (tag, date) = (field("etag: "), field("last-modified: "));
    let tag = tag.trim_start_matches("W/");
    let mut wires = [0, 1].map(|at| Wire::new(pair.edges[at].http));
    let mut asked = 0;
    let mut asks = scene.asks.iter().peekable();
    while let Some(ask) = asks.next() {
        let mut together = vec![ask];
        // What follows one that is fetched anew finds that on its way or there already, as it happens.
        while together.last().is_some_and(|ask| ask.pipelined && !ask.directs()) && asks.peek().is_some() {
            together.push(asks.next().unwrap());
        }
        for ask in together.iter().filter(|ask| ask.line.contains(" {}")) {
            pair.edges.iter().for_each(|edge| drop(warm(edge, &ask.warming(host, path))));
        }
        let bytes: Vec<u8> = together.iter().flat_map(|ask| ask.wire(host, path, tag, &date)).collect();
        let answers = [0, 1].map(|at| {
            wires[at].send(&bytes);
            let mut answers = Vec::new();
            for ask in &together {
                let Some(told) = wires[at].answer(ask.line.starts_with("HEAD")) else { break };
                answers.push(told);
            }
            answers
        });
        asked += answers[0].len();
        for told in &answers[0] {
            let status = told.head[9..12].to_owned();
            let hit = told.head.contains("selvedge; hit");
            *seen.entry(format!("{status}{}", if hit { " hit" } else { "" })).or_default() += 1;
        }
        if answers[0] != answers[1] {
            let show = |at: usize| {
                answers[at]
                    .iter()
                    .map(|a: &Told| format!("{}\n[{} bytes]", a.head, a.body.len()))
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            let sent = String::from_utf8_lossy(&bytes).into_owned();
            return Err(format!("{sent}\nis answered\n{}\n\nand without the short way\n{}", show(0), show(1)));
        }
    }
    oracle.forget(path);
    Ok(asked)
}

/// Scenes that are played; `PROPTEST_CASES` says another number and `PROPTEST_RNG_SEED` other ones.
const SCENES: u32 = 320;
const SEED: u64 = 0x5e1_7ed9e;

#[test]
fn nobody_can_tell_the_short_way_from_the_long_one() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let oracle = runtime.block_on(Oracle::start());
    let pairs = [Pair::start(oracle.address, false), Pair::start(oracle.address, true)];
    let seen = std::cell::RefCell::new(BTreeMap::new());
    let (number, asked) = (std::cell::Cell::new(0), std::cell::Cell::new([0; 2]));
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(SCENES);
    let rng_seed = match ProptestConfig::default().rng_seed {
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
        RngSeed::Random => RngSeed::Fixed(SEED),
    };
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 400,
        rng_seed,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&scenes(), |scene| {
        number.set(number.get() + 1);
        let path = format!("/{}", number.get());
        let pair = &pairs[usize::from(scene.disk)];
        let count = play(pair, &oracle, &scene, &path, &mut seen.borrow_mut()).map_err(TestCaseError::fail)?;
        let mut counts = asked.get();
        counts[usize::from(scene.disk)] += count;
        asked.set(counts);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, scene)) => panic!("{reason}\nthe smallest such scene:\n{scene:?}"),
        Err(error) => panic!("{error}"),
    }
    for pair in &pairs {
        compare_events(pair);
    }
    let seen = seen.into_inner();
    for kind in ["200 hit", "206 hit", "304 hit", "412 hit", "416 hit", "404 hit", "301 hit", "204 hit", "400"] {
        assert!(cases < SCENES || seen.get(kind).is_some_and(|count| *count >= 3), "{kind} was hardly tried: {seen:?}");
    }
    for pair in &pairs {
        let answered = pair.edges[0].metric("selvedge_hot_path_total{result=\"answered\"}");
        assert!(cases < SCENES || answered >= 300.0, "{answered} answers took the short way: {seen:?}");
        assert_eq!(pair.edges[1].metric("selvedge_hot_path_total{result=\"answered\"}"), 0.0);
    }
    println!("{seen:?}");
}

/// Each request is one event, and the events are the same; so are the counts of requests and bytes.
fn compare_events(pair: &Pair) {
    let complete = || {
        let [one, two] = pair.events();
        one.len() == two.len()
    };
    wait_until("both logs are written", Duration::from_secs(10), complete);
    let [one, two] = pair.events();
    for (at, (one, two)) in one.iter().zip(&two).enumerate() {
        assert_eq!(one, two, "event {at}");
    }
    for tier in ["memory", "disk"] {
        let sample = format!("selvedge_tier_hits_total{{tier=\"{tier}\"}}");
        assert_eq!(pair.edges[0].metric(&sample), pair.edges[1].metric(&sample), "{sample}");
    }
    for (host, _) in SITES {
        for sample in [
            format!("selvedge_requests_total{{cache=\"bypass\",method=\"GET\",site=\"{host}\",status_class=\"2xx\"}}"),
            format!("selvedge_requests_total{{cache=\"hit\",method=\"HEAD\",site=\"{host}\",status_class=\"2xx\"}}"),
            format!("selvedge_requests_total{{cache=\"hit\",method=\"GET\",site=\"{host}\",status_class=\"3xx\"}}"),
        ] {
            assert_eq!(pair.edges[0].metric(&sample), pair.edges[1].metric(&sample), "{sample}");
        }
    }
}
