//! Traffic rules against a real edge: what each does, what the cache makes of it, and weights that change under load.

use crate::support::edge::{BINARY, config};
use crate::support::faulty::Origin;
use crate::support::tools::{free_port, raw, wait_until};
use crate::support::{Client, Edge};
use bytes::Bytes;
use http::Method;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// An origin that answers with its name and the target it was asked for; under `/stored` for a minute.
async fn named(name: &'static str, status: u16) -> Origin {
    Origin::start(move |mut stream, head| async move {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let lifetime = if target.starts_with("/stored") { "public, max-age=60" } else { "no-store" };
        let cookie = head.lines().find(|line| line.to_lowercase().starts_with("cookie:")).unwrap_or_default();
        let body = format!("{name} {target} {cookie}");
        let answer = format!(
            "HTTP/1.1 {status} OK\r\nContent-Type: text/plain\r\nCache-Control: {lifetime}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.ok()?;
        Some(stream)
    })
    .await
}

fn edge_of(origins: &[(&str, std::net::SocketAddr)], rules: &str, route: &str) -> String {
    let mut text = String::new();
    for (name, address) in origins {
        text.push_str(&format!("[origins.{name}.http]\nservers = [\"{address}\"]\nmax_fails = 0\n"));
    }
    config(&format!(
        "{text}[[sites]]\nname = \"www\"\nhosts = [\"a.example\"]\n{rules}\n[[sites.routes]]\npath = \"/\"\norigin = \"{}\"\n{route}",
        origins[0].0
    ))
}

fn traffic(edge: &Edge, args: &[&str]) -> Output {
    Command::new(BINARY).arg("traffic").args(args).args(["--admin", &edge.admin.to_string()]).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_action_answers_those_that_meet_its_conditions() {
    let (old, new) = (named("old", 200).await, named("new", 200).await);
    let rules = r#"
[[sites.rules]]
match = { paths = ["/moved/"] }
redirect = { status = 308, to = "https://$host/new$path$query" }
[[sites.rules]]
match = { paths = ["=/closed"], methods = ["GET"] }
respond = { status = 503, content_type = "text/html", body = "<p>Back soon</p>" }
[[sites.rules]]
match = { headers = { User-Agent = "~^evil" } }
drop = true
[[sites.rules]]
match = { paths = ["~^/v[0-9]+/"] }
rewrite = { regex = "^/v[0-9]+/(.*)$", to = "/$1" }
[[sites.rules]]
match = { query = { beta = true } }
forward = { groups = [{ origin = "new" }] }
[[sites.rules]]
match = { cookies = { group = "beta" } }
forward = { groups = [{ origin = "new" }] }
"#;
    let edge = Edge::start(&edge_of(&[("old", old.address), ("new", new.address)], rules, ""));
    let mut client = Client::new(edge.http, "a.example");
    let moved = client.get("/moved/x?q=1").await;
    assert_eq!((moved.status.as_u16(), moved.field("location").as_str()), (308, "https://a.example/new/moved/x?q=1"));
    let closed = client.get("/closed").await;
    assert_eq!((closed.status.as_u16(), closed.text().as_str()), (503, "<p>Back soon</p>"));
    assert_eq!(closed.field("content-type"), "text/html");
    let posted = client.send(Method::POST, "/closed", &[], Bytes::new()).await.unwrap();
    assert!(posted.text().starts_with("old /closed"), "{}", posted.text());
    let evil = raw(edge.http, b"GET / HTTP/1.1\r\nHost: a.example\r\nUser-Agent: evil/1\r\n\r\n");
    assert_eq!(evil, "");
    for (path, cookie, text) in [
        ("/x", "", "old /x "),
        ("/v2/x?y=z", "", "old /x?y=z "),
        ("/x?beta", "", "new /x?beta "),
        ("/v2/x?beta=1", "", "new /x?beta=1 "),
        ("/x", "group=beta", "new /x cookie: group=beta"),
        ("/x", "group=alpha", "old /x cookie: group=alpha"),
    ] {
        let fields = [("cookie", cookie)];
        let answer = client.get_with(path, if cookie.is_empty() { &[] } else { &fields }).await;
        assert_eq!(answer.text().to_lowercase(), text.to_lowercase(), "{path} {cookie}");
    }
    // A rule by what is not in the key neither fills the cache nor is answered from it; one by the query has its own key.
    for _ in 0..2 {
        assert!(client.get_with("/stored", &[("cookie", "group=beta")]).await.text().starts_with("new "));
    }
    assert!(client.get("/stored").await.text().starts_with("old "));
    assert!(client.get("/stored").await.is_hit());
    assert!(client.get_with("/stored", &[("cookie", "group=beta")]).await.text().starts_with("new "));
    client.get("/stored?beta").await;
    let beta = client.get("/stored?beta").await;
    assert!(beta.is_hit() && beta.text().starts_with("new "), "{} {}", beta.cache_status(), beta.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_share_what_is_stored_unless_each_has_its_own_and_one_purge_takes_all() {
    let (old, new) = (named("old", 200).await, named("new", 200).await);
    let origins = [("old", old.address), ("new", new.address)];
    let rules = |cache: &str| {
        format!(
            "[[sites.rules]]\nname = \"r\"\n[sites.rules.forward]\ngroups = [{{ origin = \"old\" }}, {{ origin = \"new\" }}]\ncache = \"{cache}\"\n"
        )
    };
    for (cache, answers) in [("auto", 1), ("shared", 1), ("group", 2)] {
        let edge = Edge::start(&edge_of(&origins, &rules(cache), ""));
        let mut client = Client::new(edge.http, "a.example");
        let before = old.count() + new.count();
        let mut bodies = std::collections::BTreeSet::new();
        for _ in 0..12 {
            bodies.insert(client.get("/stored/x").await.text());
        }
        assert_eq!((bodies.len(), old.count() + new.count() - before), (answers, answers), "{cache}: {bodies:?}");
        let body = Bytes::from_static(b"{\"urls\":[\"http://a.example/stored/x\"]}");
        let purged = Client::new(edge.admin, "127.0.0.1").send(Method::POST, "/purge", &[], body).await.unwrap();
        assert_eq!(purged.status, 200);
        for _ in 0..12 {
            client.get("/stored/x").await;
        }
        assert_eq!(old.count() + new.count() - before, 2 * answers, "{cache}: the purge took all of them");
    }
    let edge = Edge::start(&edge_of(&origins, &rules("off"), ""));
    let mut client = Client::new(edge.http, "a.example");
    for _ in 0..4 {
        assert!(!client.get("/stored/x").await.is_hit());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_stays_with_its_group_and_its_cookie_is_never_stored_nor_sent_on() {
    let (old, new) = (named("old", 200).await, named("new", 200).await);
    let rules = "[[sites.rules]]\nname = \"r\"\n[sites.rules.forward]\ngroups = [{ origin = \"old\" }, { origin = \"new\" }]\n\
                 sticky = { cookie = \"sel\", lifetime = \"1h\" }\n";
    let edge = Edge::start(&edge_of(&[("old", old.address), ("new", new.address)], rules, ""));
    let mut client = Client::new(edge.http, "a.example");
    for _ in 0..4 {
        let first = client.get("/x").await;
        let cookie = first.field("set-cookie");
        assert!(cookie.starts_with("sel=") && cookie.contains("; Max-Age=3600; HttpOnly; SameSite=Lax"), "{cookie}");
        let pair = cookie.split(';').next().unwrap().to_owned();
        let sent = format!("a=1; {pair}; b=2");
        for _ in 0..6 {
            let again = client.get_with("/x", &[("cookie", &sent)]).await;
            assert_eq!(again.text().split(' ').next(), first.text().split(' ').next());
            assert!(again.text().ends_with("ookie: a=1; b=2"), "{}", again.text());
            assert_eq!(again.field("set-cookie"), "");
        }
    }
    let made_up = client.get_with("/x", &[("cookie", "sel=old")]).await;
    assert!(made_up.field("set-cookie").starts_with("sel="), "a cookie that is not ours says nothing");
    // Each client gets a cookie of its own with what is stored, and nobody another's.
    client.get("/stored/x").await;
    let cookies: std::collections::BTreeSet<_> =
        futures::future::join_all((0..8).map(|_| async { Client::new(edge.http, "a.example").get("/stored/x").await }))
            .await
            .into_iter()
            .map(|answer| {
                assert!(answer.is_hit(), "{}", answer.cache_status());
                answer.headers.get_all("set-cookie").iter().count()
            })
            .collect();
    assert_eq!(cookies.into_iter().collect::<Vec<_>>(), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_reach_the_shadow_and_never_hold_up_the_client() {
    let (old, shadow) = (named("old", 200).await, named("shadow", 500).await);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rules = "[[sites.rules]]\nname = \"m\"\nmirror = { origin = \"shadow\", max_body = \"1 KiB\" }\n\
                 [[sites.rules]]\nname = \"deaf\"\nmirror = { origin = \"silent\" }\n\
                 [[sites.rules]]\nname = \"dead\"\nmirror = { origin = \"dead\" }\n";
    let dead = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let origins =
        [("old", old.address), ("shadow", shadow.address), ("silent", silent.local_addr().unwrap()), ("dead", dead)];
    let edge = Edge::start(&edge_of(&origins, rules, ""));
    let mut client = Client::new(edge.http, "a.example");
    for n in 0..20 {
        assert_eq!(client.get(&format!("/{n}")).await.status, 200);
    }
    let small = client.send(Method::POST, "/p", &[], Bytes::from(vec![b'x'; 1000])).await.unwrap();
    let large = client.send(Method::POST, "/q", &[], Bytes::from(vec![b'x'; 5000])).await.unwrap();
    assert_eq!((small.status.as_u16(), large.status.as_u16(), old.count()), (200, 200, 22));
    let sent = |result: &str| {
        edge.metric(&format!("selvedge_mirrored_requests_total{{result=\"{result}\",rule=\"m\",site=\"www\"}}"))
    };
    wait_until("the copies", Duration::from_secs(20), || sent("sent") == 21.0 && sent("dropped") == 1.0);
    let failed = "selvedge_mirrored_requests_total{result=\"failed\",rule=\"dead\",site=\"www\"}";
    wait_until("the failed copies", Duration::from_secs(20), || edge.metric(failed) == 22.0);
}

/// Clients that ask without pause until they are stopped; what they got by status class.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    bad: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(edge: &Edge) -> Self {
        let (stop, good, bad) = (Arc::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let task = |_| {
            let (stop, good, bad): (Arc<AtomicBool>, _, _) = (Arc::clone(&stop), Arc::clone(&good), Arc::clone(&bad));
            let mut client = Client::new(edge.http, "a.example");
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.send(Method::GET, "/x", &[], Bytes::new()).await;
                    let counter = if answer.is_ok_and(|answer| answer.status == 200) { &good } else { &bad };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let tasks = (0..4).map(task).collect();
        Self { stop, good, bad, tasks }
    }

    async fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        futures::future::join_all(self.tasks).await;
        (self.good.load(Ordering::Relaxed), self.bad.load(Ordering::Relaxed))
    }
}

const SHIFT: [&str; 11] =
    ["shift", "www", "canary", "--to", "v2", "--steps", "4", "--every", "500ms", "--min-requests", "5"];

fn canary() -> &'static str {
    "[[sites.rules]]\nname = \"canary\"\n[sites.rules.forward]\ngroups = [{ origin = \"v1\", weight = 100 }, { origin = \"v2\", weight = 0 }]\n"
}

fn weights(edge: &Edge) -> String {
    let shown = String::from_utf8(traffic(edge, &["show", "www"]).stdout).unwrap();
    let weight =
        |line: &str| line.split("weight").nth(1).and_then(|rest| rest.split_whitespace().next()).map(str::to_owned);
    shown.lines().filter_map(weight).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shift_under_load_fails_no_request() {
    let (v1, v2) = (named("v1", 200).await, named("v2", 200).await);
    let edge = Edge::start(&edge_of(&[("v1", v1.address), ("v2", v2.address)], canary(), ""));
    assert_eq!(weights(&edge), "100 0");
    let load = Load::start(&edge);
    let out = tokio::task::block_in_place(|| traffic(&edge, &SHIFT));
    let asked = v1.count();
    let mut client = Client::new(edge.http, "a.example");
    for _ in 0..20 {
        assert!(client.get("/y").await.text().starts_with("v2 "), "all of it goes to the new group");
    }
    let (good, bad) = load.end().await;
    assert_eq!((out.status.code(), bad), (Some(0), 0), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(good > 100 && asked > 0 && v2.count() > 20, "{good}");
    assert_eq!(weights(&edge), "0 1000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shift_to_what_cannot_be_reached_is_rolled_back_and_fails_no_request() {
    let v1 = named("v1", 200).await;
    let dead = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let edge = Edge::start(&edge_of(&[("v1", v1.address), ("v2", dead)], canary(), ""));
    let load = Load::start(&edge);
    let out = tokio::task::block_in_place(|| traffic(&edge, &SHIFT));
    let (good, bad) = load.end().await;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!((out.status.code(), bad), (Some(1), 0), "{said}");
    assert!(said.contains("rolled back") && good > 50, "{said} {good}");
    assert_eq!(weights(&edge), "100 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shift_to_what_answers_with_errors_is_rolled_back() {
    let (v1, v2) = (named("v1", 200).await, named("v2", 500).await);
    let edge = Edge::start(&edge_of(&[("v1", v1.address), ("v2", v2.address)], canary(), ""));
    let load = Load::start(&edge);
    let out = tokio::task::block_in_place(|| traffic(&edge, &SHIFT));
    let mut client = Client::new(edge.http, "a.example");
    for _ in 0..20 {
        assert_eq!(client.get("/y").await.status, 200, "after the roll-back");
    }
    let (good, bad) = load.end().await;
    assert_eq!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(bad < good, "{bad} of {good} failed before the roll-back");
    assert_eq!(weights(&edge), "100 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_set_by_name_and_outlive_a_reload_of_other_things() {
    let (v1, v2) = (named("v1", 200).await, named("v2", 200).await);
    let text = edge_of(&[("v1", v1.address), ("v2", v2.address)], canary(), "");
    let edge = Edge::start(&text);
    for (args, status) in [
        (&["set", "www", "canary", "v2=100"][..], 0),
        (&["set", "www", "canary", "v3=1"], 64),
        (&["set", "www", "canary", "v1=0", "v2=0"], 64),
        (&["set", "www", "other", "v1=1"], 64),
    ] {
        assert_eq!(traffic(&edge, args).status.code(), Some(status), "{args:?}");
    }
    assert_eq!(weights(&edge), "100 100");
    let reload = |text: &str| {
        let from = edge.log_lines();
        std::fs::write(edge.config_file(), text).unwrap();
        edge.wait_for_log(from, "configuration applied");
    };
    reload(&format!("{text}max_request_body = \"1 MiB\"\n"));
    assert_eq!(weights(&edge), "100 100");
    reload(&text.replace("weight = 0", "weight = 7"));
    assert_eq!(weights(&edge), "100 7");
    let admin = Client::new(edge.admin, "127.0.0.1").get("/traffic/www/canary").await;
    assert!(admin.text().contains("\"weight\":7") && admin.status == 200, "{}", admin.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_route_keeps_out_gets_no_answer_of_a_rule_unless_it_says_so() {
    let old = named("old", 200).await;
    let rules = r#"
[[sites.rules]]
match = { paths = ["=/closed"] }
respond = { status = 200, body = "secret" }
[[sites.rules]]
match = { paths = ["=/moved"] }
redirect = { to = "/closed" }
[[sites.rules]]
match = { paths = ["=/open"] }
respond = { status = 200, body = "for everyone" }
before_access = true
[[sites.rules]]
match = { paths = ["=/other"] }
forward = { groups = [{ origin = "old" }] }
"#;
    let passwords = "[sites.routes.auth]\nusers = [\"anna:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\"]\n";
    for (route, refused) in [("access = { deny = [\"127.0.0.0/8\"] }\n", 403), (passwords, 401)] {
        let edge = Edge::start(&edge_of(&[("old", old.address)], rules, route));
        let mut client = Client::new(edge.http, "a.example");
        for path in ["/closed", "/moved", "/other", "/else"] {
            assert_eq!(client.get(path).await.status.as_u16(), refused, "{path}");
        }
        assert_eq!(client.get("/open").await.text(), "for everyone");
        if refused == 401 {
            let known = [("authorization", "Basic YW5uYTpwYXNzd29yZA==")];
            assert_eq!(client.get_with("/closed", &known).await.text(), "secret");
            assert!(client.get_with("/other", &known).await.text().starts_with("old /other"));
        }
    }
    assert_eq!(old.count(), 1);
}
