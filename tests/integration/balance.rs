//! Several origin servers before real requests: what fails, hangs, flaps, drains or is full.

mod checks;

use crate::support::edge::config;
use crate::support::faulty::Origin;
use crate::support::nginx::Nginx;
use crate::support::tools::wait_until;
use crate::support::{Answer, Client, Edge};
use bytes::Bytes;
use http::{Method, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a [`Backend`] does with requests.
#[derive(Clone, Copy, PartialEq)]
#[repr(u8)]
enum Mode {
    /// 200 with its name.
    Answers,
    /// 503.
    Unavailable,
    /// Closes without an answer.
    Breaks,
    /// Keeps the connection and says nothing.
    Hangs,
}

/// An origin server whose behaviour can be changed while it runs.
struct Backend {
    origin: Origin,
    mode: Arc<AtomicU8>,
    /// Requests for `/held` wait for one of these each.
    permits: Arc<Semaphore>,
    held: Arc<AtomicUsize>,
}

impl Backend {
    async fn start(name: &'static str) -> Self {
        let mode = Arc::new(AtomicU8::new(Mode::Answers as u8));
        let (permits, held) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, gate, counter) = (Arc::clone(&mode), Arc::clone(&permits), Arc::clone(&held));
        let origin = Origin::start(move |mut stream, head| {
            let (mode, gate, counter) = (now.load(Ordering::SeqCst), Arc::clone(&gate), Arc::clone(&counter));
            async move {
                if head.starts_with("GET /held") {
                    counter.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                }
                let status = match mode {
                    m if m == Mode::Answers as u8 => "200 OK",
                    m if m == Mode::Unavailable as u8 => "503 Service Unavailable",
                    m if m == Mode::Breaks as u8 => return None,
                    _ => {
                        std::future::pending::<()>().await;
                        return None;
                    }
                };
                let length = name.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\nCache-Control: no-store\r\nContent-Length: {length}\r\n\r\n{name}");
                stream.write_all(answer.as_bytes()).await.ok()?;
                Some(stream)
            }
        })
        .await;
        Self { origin, mode, permits, held }
    }

    fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Waits until so many requests are held.
    fn wait_for_held(&self, n: usize) {
        wait_until("a request is held", PATIENCE, || self.held.load(Ordering::SeqCst) >= n);
    }
}

/// A site for every host before an origin `app` with these servers and whatever else.
fn origin(servers: &[SocketAddr], rest: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|s| format!("\"{s}\"")).collect();
    origin_of(&servers.join(", "), rest)
}

fn origin_of(servers: &str, rest: &str) -> String {
    config(&format!(
        "[[sites]]\nhosts = [\"*\"]\n\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n\n\
         [origins.app.http]\nservers = [{servers}]\n{rest}\n"
    ))
}

/// The texts of `n` answers, one after the other, each a 200.
async fn texts(edge: &Edge, n: usize) -> Vec<String> {
    let mut client = Client::new(edge.http, "a.example");
    let mut texts = Vec::new();
    for _ in 0..n {
        let answer = client.get("/").await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        texts.push(answer.text());
    }
    texts
}

fn count(texts: &[String], name: &str) -> usize {
    texts.iter().filter(|text| *text == name).count()
}

fn request(edge: &Edge, path: &'static str) -> tokio::task::JoinHandle<Answer> {
    let address = edge.http;
    tokio::spawn(async move { Client::new(address, "a.example").get(path).await })
}

fn reload(edge: &Edge, text: &str) {
    let lines = edge.log_lines();
    std::fs::write(edge.config_file(), text).unwrap();
    edge.signal("HUP");
    edge.wait_for_log(lines, "configuration applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_and_backups_are_honoured_and_a_killed_server_fails_no_request() {
    let answering =
        |text: &str| Nginx::start(&format!("location / {{ add_header Cache-Control no-store; return 200 {text}; }}"));
    let (one, two, spare) = (answering("one"), answering("two"), answering("spare"));
    let servers = format!(
        "\"{}\", {{ address = \"{}\", weight = 3 }}, {{ address = \"{}\", backup = true }}",
        one.address, two.address, spare.address
    );
    let edge = Edge::start(&origin_of(&servers, "max_fails = 1\neject_for = \"1h\""));
    let all = texts(&edge, 40).await;
    assert_eq!((count(&all, "one"), count(&all, "two"), count(&all, "spare")), (10, 30, 0));
    let two_address = two.address;
    drop(two);
    let rest = texts(&edge, 40).await;
    assert_eq!(count(&rest, "one"), 40, "{rest:?}");
    assert_eq!(edge.metric(&format!("selvedge_origin_server_up{{origin=\"app\",server=\"{two_address}\"}}")), 0.0);
    let retries = edge.metric("selvedge_origin_retries_total{origin=\"app\",result=\"made\"}");
    assert!(retries >= 1.0, "{retries}");
    drop(one);
    let rest = texts(&edge, 10).await;
    assert_eq!(count(&rest, "spare"), 10, "{rest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_gets_what_it_can_take() {
    let (slow, fast) = (Backend::start("slow").await, Backend::start("fast").await);
    for balance in ["least-connections", "random", "peak-ewma"] {
        let text = origin(&[slow.origin.address, fast.origin.address], &format!("balance = \"{balance}\""));
        let edge = Edge::start(&text);
        let before = (slow.held.load(Ordering::SeqCst), fast.held.load(Ordering::SeqCst));
        let held = request(&edge, "/held");
        let taken = || slow.held.load(Ordering::SeqCst) > before.0 || fast.held.load(Ordering::SeqCst) > before.1;
        wait_until("a request is held", PATIENCE, taken);
        let (busy, idle) = if slow.held.load(Ordering::SeqCst) > before.0 { (&slow, "fast") } else { (&fast, "slow") };
        let texts = texts(&edge, 20).await;
        assert_eq!(count(&texts, idle), 20, "{balance}: {texts:?}");
        busy.permits.add_permits(1);
        assert_eq!(held.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_stays_with_its_server() {
    let (one, two, three) = (Backend::start("one").await, Backend::start("two").await, Backend::start("three").await);
    let servers = [&one, &two, &three].map(|b| b.origin.address);
    let edge = Edge::start(&origin(&servers, "balance = \"hash\"\nhash_key = \"header:X-User\""));
    let mut client = Client::new(edge.http, "a.example");
    let mut homes = Vec::new();
    for user in 0..30 {
        let user = format!("user-{user}");
        let first = client.get_with("/", &[("x-user", &user)]).await.text();
        assert_eq!(client.get_with("/other", &[("x-user", &user)]).await.text(), first);
        homes.push(first);
    }
    for name in ["one", "two", "three"] {
        assert!(count(&homes, name) > 0, "{homes:?}");
    }
    let edge = Edge::start(&origin(&servers, "balance = \"client-address\""));
    let texts = texts(&edge, 9).await;
    assert_eq!(count(&texts, &texts[0]), 9, "{texts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flapping_server_is_left_out_longer_each_time_and_comes_back() {
    let (good, bad) = (Backend::start("good").await, Backend::start("bad").await);
    let rest = "max_fails = 2\neject_for = \"100ms\"\n[origins.app.http.health]\nprobes = 2\nfail_statuses = [503]\n\
                max_eject_for = \"400ms\"";
    let edge = Edge::start(&origin(&[good.origin.address, bad.origin.address], rest));
    bad.set(Mode::Unavailable);
    let mut client = Client::new(edge.http, "a.example");
    let mut seen = 0;
    for span in ["0.1", "0.2", "0.4"] {
        // Asked until it has been ejected once more: its probes fail.
        let ejected =
            |log: &str| log.lines().skip(seen).any(|l| l.contains("ejected") && l.contains(&format!("seconds={span}")));
        wait_until(&format!("it is left out for {span} s"), PATIENCE, || {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(client.get("/")));
            ejected(&edge.log())
        });
        seen = edge.log_lines();
    }
    bad.set(Mode::Answers);
    wait_until("it is back", PATIENCE, || {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(client.get("/")));
        edge.log().contains("server is back")
    });
    let texts = texts(&edge, 10).await;
    assert_eq!((count(&texts, "good"), count(&texts, "bad")), (5, 5));
    let ejections = |reason: &str| {
        let server = bad.origin.address;
        edge.metric(&format!(
            "selvedge_origin_ejections_total{{origin=\"app\",reason=\"{reason}\",server=\"{server}\"}}"
        ))
    };
    assert!(ejections("failures") >= 1.0 && ejections("probe") >= 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_fails_no_request_and_sends_no_new_one() {
    let (stays, goes) = (Backend::start("stays").await, Backend::start("goes").await);
    let servers = |drain: bool| {
        format!("\"{}\", {{ address = \"{}\", drain = {drain} }}", stays.origin.address, goes.origin.address)
    };
    let edge = Edge::start(&origin_of(&servers(false), ""));
    let held = [request(&edge, "/held/1"), request(&edge, "/held/2")];
    goes.wait_for_held(1);
    stays.wait_for_held(1);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load: Vec<_> = (0..6)
        .map(|n| {
            let (stop, mut client) = (Arc::clone(&stop), Client::new(edge.http, "a.example"));
            tokio::spawn(async move {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.send(Method::GET, &format!("/{n}"), &[], Bytes::new()).await.unwrap();
                    assert_eq!(answer.status, StatusCode::OK);
                    done += 1;
                }
                done
            })
        })
        .collect();
    let asked = goes.origin.count();
    wait_until("the load goes on", PATIENCE, || goes.origin.count() > asked + 20);
    reload(&edge, &origin_of(&servers(true), ""));
    let gauge = |n: f64| {
        let server = goes.origin.address;
        edge.metric(&format!("selvedge_origin_server_in_flight{{origin=\"app\",server=\"{server}\"}}")) == n
    };
    wait_until("only the held request is left", PATIENCE, || gauge(1.0));
    let asked = (goes.origin.count(), stays.origin.count());
    wait_until("the load goes on elsewhere", PATIENCE, || stays.origin.count() > asked.1 + 50);
    assert_eq!(goes.origin.count(), asked.0, "nothing new");
    goes.permits.add_permits(1);
    stays.permits.add_permits(1);
    for held in held {
        assert_eq!(held.await.unwrap().status, StatusCode::OK);
    }
    wait_until("it has drained", PATIENCE, || gauge(0.0));
    stop.store(true, Ordering::Relaxed);
    for task in load {
        assert!(task.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_exceeds_the_limit_waits_and_what_exceeds_the_queue_is_refused() {
    let one = Backend::start("one").await;
    let rest = |timeout: &str| {
        format!("[origins.app.http.limits]\nmax_connections = 1\nqueue = 1\nqueue_timeout = \"{timeout}\"")
    };
    let edge = Edge::start(&origin(&[one.origin.address], &rest("1h")));
    let first = request(&edge, "/held/1");
    one.wait_for_held(1);
    let second = request(&edge, "/held/2");
    wait_until("the second waits", PATIENCE, || edge.metric("selvedge_origin_queued{origin=\"app\"}") == 1.0);
    let refused = Client::new(edge.http, "a.example").get("/third").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.field("proxy-status"), "selvedge; error=connection_limit_reached");
    assert_eq!(one.origin.count(), 1);
    one.permits.add_permits(2);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert_eq!(second.await.unwrap().status, StatusCode::OK);
    assert_eq!(edge.metric("selvedge_origin_queue_rejected_total{origin=\"app\",reason=\"full\"}"), 1.0);
    assert_eq!(texts(&edge, 3).await, ["one"; 3]);

    reload(&edge, &origin(&[one.origin.address], &rest("50ms")));
    let first = request(&edge, "/held/3");
    one.wait_for_held(3);
    let waited = Client::new(edge.http, "a.example").get("/fourth").await;
    assert_eq!(waited.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(edge.metric("selvedge_origin_queue_rejected_total{origin=\"app\",reason=\"timeout\"}"), 1.0);
    one.permits.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_gives_its_place_back() {
    let one = Backend::start("one").await;
    let edge = Edge::start(&origin(&[one.origin.address], "[origins.app.http.limits]\nmax_connections = 1"));
    let server = one.origin.address;
    let in_flight = format!("selvedge_origin_server_in_flight{{origin=\"app\",server=\"{server}\"}}");
    let mut client = tokio::net::TcpStream::connect(edge.http).await.unwrap();
    client.write_all(b"GET /held HTTP/1.1\r\nHost: a\r\nCache-Control: no-store\r\n\r\n").await.unwrap();
    one.wait_for_held(1);
    assert_eq!(edge.metric(&in_flight), 1.0);
    drop(client);
    one.permits.add_permits(1);
    wait_until("the place is free", PATIENCE, || edge.metric(&in_flight) == 0.0);
    one.set(Mode::Breaks);
    let broken = Client::new(edge.http, "a.example").get("/").await;
    assert_eq!(broken.status, StatusCode::BAD_GATEWAY);
    wait_until("the place is free", PATIENCE, || edge.metric(&in_flight) == 0.0);
    one.set(Mode::Answers);
    assert_eq!(texts(&edge, 3).await, ["one"; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_beyond_the_budget_are_not_made() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let good = Backend::start("good").await;
    let rest = "max_fails = 0\n[origins.app.http.limits]\nretry_percent = 0\nretry_per_second = 0";
    let edge = Edge::start(&origin(&[dead, good.origin.address], rest));
    let mut client = Client::new(edge.http, "a.example");
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(client.get("/").await.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 502, 502, 502]);
    assert_eq!(good.origin.count(), 3);
    assert_eq!(edge.metric("selvedge_origin_retries_total{origin=\"app\",result=\"refused\"}"), 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_what_each_server_is_up_to() {
    let (good, bad) = (Backend::start("good").await, Backend::start("bad").await);
    let rest = "eject_for = \"1h\"\nmax_fails = 1\n[origins.app.http.limits]\nmax_connections = 7\n[origins.app.http.health]\n\
                fail_statuses = [503]\ncheck = \"http\"\ninterval = \"50ms\"\npath = \"/healthz\"\nfall = 1000";
    let edge = Edge::start(&origin(&[good.origin.address, bad.origin.address], rest));
    bad.set(Mode::Unavailable);
    let mut client = Client::new(edge.http, "a.example");
    wait_until("the bad server is ejected", PATIENCE, || {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(client.get("/")));
        edge.log().contains("server ejected")
    });
    let held = request(&edge, "/held");
    good.wait_for_held(1);
    let shown = || {
        let mut command = std::process::Command::new(crate::support::edge::BINARY);
        let out = command.args(["routes", "--admin", &edge.admin.to_string()]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    wait_until("the last check is told", PATIENCE, || shown().contains("last check: status 503"));
    let text = shown();
    let line = |server: SocketAddr| {
        let own = |line: &&str| line.starts_with("app ") && line.contains(&server.to_string());
        text.lines().find(own).unwrap_or_else(|| panic!("no {server} in\n{text}")).to_owned()
    };
    let (up, out) = (line(good.origin.address), line(bad.origin.address));
    assert!(up.contains("up") && up.contains("1 of 7") && up.contains("answers in"), "{up}");
    assert!(out.contains("ejected") && out.contains("0 of 7") && out.contains("ejected 1 times in a row"), "{out}");
    assert!(text.contains("selvedge.toml:"), "{text}");
    good.permits.add_permits(1);
    assert_eq!(held.await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_reload_leaves_no_series_of_what_it_would_have_brought() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let dir = Arc::new(tempfile::tempdir().unwrap());
    crate::support::tools::certificate(&dir.path().join("certs"), "a.example", &["a.example"]);
    let text = |servers: &[SocketAddr]| {
        origin(servers, "")
            .replace("[cache.memory]", "[tls]\ncertificates = \"certs\"\n\n[cache.memory]")
            .replace("admin = \"127.0.0.1:0\"\n", "https = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n")
    };
    let edge = Edge::start_in(dir, &text(&[one.origin.address]), &[]);
    assert_eq!(texts(&edge, 1).await, ["one"]);
    let lines = edge.log_lines();
    let more = format!(
        "[[sites]]\nname = \"more\"\nhosts = [\"more.example\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"extra\"\n\
         [origins.extra.http]\nservers = [\"{}\"]\n",
        two.origin.address
    );
    let other = text(&[one.origin.address, two.origin.address]).replace("\"certs\"", "\"missing\"") + &more;
    std::fs::write(edge.config_file(), other).unwrap();
    edge.signal("HUP");
    edge.wait_for_log(lines, "configuration refused");
    let (status, metrics) = crate::support::tools::http_get(edge.admin, "/metrics").unwrap();
    assert_eq!(status, 200);
    for gone in [two.origin.address.to_string().as_str(), "\"extra\"", "site=\"more\""] {
        let left: Vec<&str> = metrics.lines().filter(|line| line.contains(gone)).collect();
        assert_eq!(left, [""; 0], "{gone}");
    }
    let up = format!("selvedge_origin_server_up{{origin=\"app\",server=\"{}\"}}", one.origin.address);
    assert_eq!((edge.metric(&up), texts(&edge, 2).await), (1.0, vec!["one".to_owned(); 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stays_with_the_server_that_began_it() {
    let gone = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let app = async |name: &'static str, gone: &Arc<std::sync::atomic::AtomicBool>| {
        let gone = Arc::clone(gone);
        Origin::start(move |mut stream, head| {
            let gone = gone.load(Ordering::SeqCst);
            async move {
                if gone {
                    return None;
                }
                let begins = if head.starts_with("GET /login") {
                    format!("Set-Cookie: sid={name}-1; Path=/\r\n")
                } else {
                    String::new()
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\n{begins}Cache-Control: no-store\r\nContent-Length: {}\r\n\r\n{name}",
                    name.len()
                );
                stream.write_all(answer.as_bytes()).await.ok()?;
                Some(stream)
            }
        })
        .await
    };
    let stays = Arc::default();
    let (one, two) = (app("one", &gone).await, app("two", &stays).await);
    let text = origin(&[one.address, two.address], "sticky_cookie = \"sid\"\nmax_fails = 1");
    let edge = Edge::start(&text);
    let mut client = Client::new(edge.http, "a.example");
    for _ in 0..3 {
        let began = client.get("/login").await;
        let cookie = began.field("set-cookie");
        let pair = cookie.split(';').next().unwrap();
        assert_eq!(pair, format!("sid={}-1", began.text()), "the server's own cookie, as it is");
        for _ in 0..5 {
            assert_eq!(client.get_with("/", &[("cookie", pair)]).await.text(), began.text());
        }
    }
    assert_eq!(texts(&edge, 4).await.iter().filter(|text| *text == "one").count(), 2, "others take turns");
    reload(&edge, &text.replace("max_fails = 1", "max_fails = 2"));
    assert_eq!(client.get_with("/", &[("cookie", "sid=one-1")]).await.text(), "one", "known over a reload");
    // Its idle connections break with the next request, and nobody takes new ones.
    gone.store(true, Ordering::SeqCst);
    drop(one);
    let answer = client.get_with("/", &[("cookie", "sid=one-1")]).await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "two"), "the session's server is gone");
}
