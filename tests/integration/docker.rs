//! Containers of a real Docker Engine behind the real binary: they come, go, fail and contradict each other.

mod daemon;
mod engine;
mod nested;
mod socket;
mod swarm;

use crate::support::edge::{BINARY, config, config_tls};
use crate::support::tools::{certificate, wait_until};
use crate::support::{Client, Edge};
use engine::Engine;
use http::Method;
use socket::Socket;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn discovering(engine: &Engine, more: &str) -> String {
    format!("[discovery.docker]\nfilters = [\"label={}\"]\n{more}\n", engine.label())
}

fn edge(engine: &Engine) -> Edge {
    Edge::start(&config(&discovering(engine, "")))
}

/// The container that answers, or the status if it is not 200.
async fn who(address: SocketAddr, host: &str, path: &str) -> String {
    let answer = Client::new(address, host).get(path).await;
    match answer.status.as_u16() {
        200 => answer.text().lines().next().unwrap_or_default().trim_start_matches("name=").to_owned(),
        status => status.to_string(),
    }
}

/// Waits until `host` is answered by these containers, each of them and no other, in sixteen requests.
async fn wait_for(address: SocketAddr, host: &str, expected: &[&str]) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..16 {
            seen.insert(who(address, host, "/").await);
        }
        if seen.iter().map(String::as_str).eq(expected.iter().copied()) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{host}: {seen:?}, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Idempotent requests without a pause; every one has to be a 200.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr, host: &'static str, path: &'static str, clients: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut failures = Vec::new();
                let mut client = Client::new(address, host);
                while !stop.load(Ordering::Relaxed) {
                    match client.send(Method::GET, path, &[], Default::default()).await {
                        Ok(answer) if answer.status == 200 => {}
                        Ok(answer) => failures.push(format!("{} {}", answer.status, answer.field("proxy-status"))),
                        Err(error) => failures.push(error),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        };
        let tasks = (0..clients).map(client).collect();
        Self { stop, done, tasks }
    }

    fn wait_for(&self, more: usize) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        wait_until("the load goes on", PATIENCE, || self.done.load(Ordering::Relaxed) >= goal);
    }

    async fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let failures = task.await.unwrap();
            assert!(failures.is_empty(), "{} failed: {}", failures.len(), failures[0]);
        }
        self.done.load(Ordering::Relaxed)
    }
}

/// What `selvedge routes` prints, and its exit status.
fn routes(edge: &Edge, more: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(BINARY).args(["routes", "--admin", &edge.admin.to_string()]).args(more).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_routed_as_they_come_and_go() {
    let engine = Engine::new();
    engine.start("before", &["VIRTUAL_HOST=before.test"], &[]);
    let edge = edge(&engine);
    assert_eq!(who(edge.http, "before.test", "/").await, "before", "as soon as it serves");
    assert_eq!(who(edge.http, "later.test", "/").await, "503");
    engine.start("later", &["VIRTUAL_HOST=later.test,*.later.test", "VIRTUAL_PORT=8080", "PORT=8080"], &[]);
    wait_for(edge.http, "later.test", &["later"]).await;
    assert_eq!(who(edge.http, "x.later.test", "/").await, "later");
    engine.start("second", &["selvedge.virtual-host=later.test", "selvedge.virtual-port=80"], &[]);
    wait_for(edge.http, "later.test", &["later", "second"]).await;
    engine.tell(&["stop", "-t", "1"], "later");
    wait_for(edge.http, "later.test", &["second"]).await;
    assert_eq!(who(edge.http, "x.later.test", "/").await, "503", "nobody asks for it any more");
    engine.tell(&["start"], "later");
    wait_for(edge.http, "later.test", &["later", "second"]).await;
    engine.tell(&["rm", "-f"], "second");
    wait_for(edge.http, "later.test", &["later"]).await;
    assert_eq!(edge.metric("selvedge_discovery_up"), 1.0);
    wait_until("the removed one is forgotten", PATIENCE, || edge.metric("selvedge_discovery_containers") == 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_idempotent_request_fails_while_containers_are_started_stopped_killed_and_paused() {
    let engine = Engine::new();
    let host = ["VIRTUAL_HOST=load.test"];
    engine.start("one", &host, &[]);
    let edge = edge(&engine);
    let (fast, slow) = (Load::start(edge.http, "load.test", "/", 6), Load::start(edge.http, "load.test", "/slow", 6));
    for name in ["two", "three", "four"] {
        engine.start(name, &host, &[]);
    }
    wait_for(edge.http, "load.test", &["four", "one", "three", "two"]).await;
    slow.wait_for(20);
    for name in ["one", "two"] {
        engine.tell(&["stop", "-t", "1"], name);
        fast.wait_for(50);
        engine.tell(&["start"], name);
        slow.wait_for(10);
    }
    for name in ["three", "four", "one"] {
        engine.tell(&["kill"], name);
        slow.wait_for(10);
        engine.tell(&["start"], name);
        fast.wait_for(50);
    }
    engine.tell(&["pause"], "two");
    fast.wait_for(50);
    engine.tell(&["unpause"], "two");
    engine.tell(&["restart", "-t", "1"], "three");
    // The next version beside this one, then this one away.
    engine.start("next", &host, &[]);
    wait_until("the next version answers", PATIENCE, || routes(&edge, &[]).1.contains("next="));
    for name in ["one", "two", "three", "four"] {
        engine.tell(&["stop", "-t", "1"], name);
    }
    slow.wait_for(10);
    wait_for(edge.http, "load.test", &["next"]).await;
    let (fast, slow) = (fast.finish().await, slow.finish().await);
    assert!(fast > 200 && slow > 60, "{fast} and {slow} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_loses_its_network_is_left_out_and_comes_back() {
    let engine = Engine::new();
    let settings = ["VIRTUAL_HOST=net.test", "SELVEDGE_READ_TIMEOUT=2s", "SELVEDGE_CONNECT_TIMEOUT=1s"];
    engine.start("stays", &settings, &[]);
    engine.start("leaves", &settings, &[]);
    engine.start("lonely", &["VIRTUAL_HOST=lonely.test"], &[]);
    let edge = edge(&engine);
    wait_for(edge.http, "net.test", &["leaves", "stays"]).await;
    let load = Load::start(edge.http, "net.test", "/", 4);
    engine.tell(&["network", "disconnect", &engine.net()], "leaves");
    wait_for(edge.http, "net.test", &["stays"]).await;
    engine.tell(&["network", "disconnect", &engine.net()], "lonely");
    wait_for(edge.http, "lonely.test", &["503"]).await;
    let (code, text) = routes(&edge, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("it cannot be reached: it is in no network"), "{text}");
    engine.tell(&["network", "connect", &engine.net()], "leaves");
    wait_for(edge.http, "net.test", &["leaves", "stays"]).await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unhealthy_container_is_left_alone_while_a_healthy_one_answers() {
    let engine = Engine::new();
    engine.start_checked("first", &["VIRTUAL_HOST=health.test", "SELVEDGE_READ_TIMEOUT=1s"]);
    let edge = edge(&engine);
    assert_eq!(who(edge.http, "health.test", "/").await, "first", "alone, before its first check");
    engine.start_checked("second", &["VIRTUAL_HOST=health.test"]);
    wait_for(edge.http, "health.test", &["first", "second"]).await;
    let load = Load::start(edge.http, "health.test", "/", 2);
    engine.tell(&["pause"], "second");
    wait_for(edge.http, "health.test", &["first"]).await;
    engine.tell(&["unpause"], "second");
    wait_for(edge.http, "health.test", &["first", "second"]).await;
    load.finish().await;
    // Past the edge: it would send the words to either.
    Client::new(engine.address("second"), "health.test").get("/sick").await;
    wait_for(edge.http, "health.test", &["first"]).await;
    Client::new(engine.address("first"), "health.test").get("/sick").await;
    wait_for(edge.http, "health.test", &["first", "second"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_that_contradict_each_other_are_told_and_the_oldest_decides() {
    let engine = Engine::new();
    engine.start("old", &["VIRTUAL_HOST=both.test", "VIRTUAL_PATH=/api/", "VIRTUAL_DEST=/v1/"], &[]);
    engine.start("new", &["VIRTUAL_HOST=both.test", "VIRTUAL_PATH=/api/", "VIRTUAL_DEST=/v2/"], &[]);
    engine.start("odd", &["VIRTUAL_HOST=odd.test", "VIRTUAL_PROTO=fastcgi"], &[]);
    engine.start("file", &["VIRTUAL_HOST=file.test"], &[]);
    let file = "[origins.x.http]\nservers = [\"127.0.0.1:1\"]\n[[sites]]\nhosts = [\"file.test\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"x\"\n";
    let edge = Edge::start(&config(&discovering(&engine, file)));
    for _ in 0..4 {
        let text = Client::new(edge.http, "both.test").get("/api/x?y=1").await.text();
        assert!(text.contains("GET /v1/x?y=1 HTTP/1.1"), "{text}");
    }
    assert_eq!(who(edge.http, "odd.test", "/").await, "503");
    assert_eq!(who(edge.http, "file.test", "/").await, "502", "the file's site has its own origin");
    let (code, text) = routes(&edge, &[]);
    assert_eq!(code, Some(1), "{text}");
    let (old, new) = (engine.name("old"), engine.name("new"));
    for part in [
        format!("{old}=1"),
        format!("containers {old}, {new}"),
        format!("warning: both.test, {new}: VIRTUAL_DEST is `/v2/` here and `/v1/` in the older container {old}"),
        "VIRTUAL_PROTO fastcgi is not spoken here".to_owned(),
        "the configuration file has a site for this host".to_owned(),
        "network ".to_owned() + &engine.net(),
    ] {
        assert!(text.contains(&part), "{part}\n{text}");
    }
    let (_, json) = routes(&edge, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let both = json["sites"].as_array().unwrap().iter().find(|site| site["hosts"][0] == "both.test").unwrap();
    assert_eq!(both["routes"][0]["servers"].as_array().unwrap().len(), 2, "{both}");
    assert!(edge.metric(r#"selvedge_discovery_notes{level="problem"}"#) >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_stay_while_the_engine_is_lost_or_talks_nonsense() {
    let engine = Engine::new();
    engine.start("one", &["VIRTUAL_HOST=lost.test"], &[]);
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let socket = Socket::new(dir.path());
    let endpoint = format!("endpoint = \"unix://{}\"", socket.path.display());
    let edge = Edge::start_in(Arc::clone(&dir), &config(&discovering(&engine, &endpoint)), &[]);
    wait_for(edge.http, "lost.test", &["one"]).await;
    let load = Load::start(edge.http, "lost.test", "/", 2);
    for nonsense in [false, true] {
        let name = if nonsense { "three" } else { "two" };
        if nonsense {
            socket.babble()
        } else {
            socket.refuse()
        }
        wait_until("the loss is noticed", PATIENCE, || edge.metric("selvedge_discovery_up") == 0.0);
        engine.start(name, &[&format!("VIRTUAL_HOST={name}.test")], &[]);
        let (code, text) = routes(&edge, &[]);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("cannot be read") && text.contains("as last seen"), "{text}");
        assert_eq!(who(edge.http, "lost.test", "/").await, "one");
        assert_eq!(who(edge.http, &format!("{name}.test"), "/").await, "503");
        socket.pass();
        wait_for(edge.http, &format!("{name}.test"), &[name]).await;
        wait_until("the engine is back", PATIENCE, || edge.metric("selvedge_discovery_up") == 1.0);
    }
    load.finish().await;
    assert_eq!(routes(&edge, &[]).0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_beside_the_edge_count_as_they_do_for_nginx_proxy() {
    let engine = Engine::new();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    for folder in ["certs", "vhost.d", "htpasswd"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    certificate(&dir.path().join("certs"), "files.test", &["files.test"]);
    std::fs::write(dir.path().join("vhost.d/files.test"), "add_header X-From vhost;\nauth_request /no;\n").unwrap();
    engine.start("web", &["VIRTUAL_HOST=files.test,plain.test"], &[]);
    engine.start("cached", &["VIRTUAL_HOST=cached.test", "SELVEDGE_CACHE=on", "CACHE_CONTROL=max-age=60"], &[]);
    let more = discovering(&engine, "vhost = \"vhost.d\"\nhtpasswd = \"htpasswd\"");
    let edge = Edge::start_in(Arc::clone(&dir), &config_tls(&more), &[]);
    let redirected = Client::new(edge.http, "files.test").get("/x").await;
    assert_eq!((redirected.status.as_u16(), redirected.field("location")), (301, "https://files.test/x".to_owned()));
    let https = edge.https.unwrap();
    let answer = crate::support::tools::curl(&[
        "-k",
        "--resolve",
        &format!("files.test:{}:127.0.0.1", https.port()),
        &format!("https://files.test:{}/x", https.port()),
    ]);
    let lower = answer.to_ascii_lowercase();
    assert!(
        lower.contains("strict-transport-security: max-age=31536000") && lower.contains("x-from: vhost"),
        "{answer}"
    );
    assert!(lower.contains("x-forwarded-proto: https"), "{answer}");
    assert!(routes(&edge, &[]).1.contains("vhost.d/files.test line 2: `auth_request /no` is not translated"));
    // No certificate: no redirect. Then a password, while it runs.
    assert_eq!(who(edge.http, "plain.test", "/").await, "web");
    std::fs::write(dir.path().join("htpasswd/plain.test"), "ann:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=\n").unwrap();
    wait_for(edge.http, "plain.test", &["401"]).await;
    let mut client = Client::new(edge.http, "cached.test");
    client.get("/c").await;
    assert!(client.get("/c").await.is_hit());
    assert!(!Client::new(edge.http, "plain.test").get("/c").await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn challenges_and_pages_beside_the_edge_are_served_and_a_host_can_tell_how_it_was_resolved() {
    let engine = Engine::new();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let challenges = dir.path().join("html/.well-known/acme-challenge");
    std::fs::create_dir_all(&challenges).unwrap();
    std::fs::create_dir_all(dir.path().join("html/errors")).unwrap();
    std::fs::write(dir.path().join("html/errors/50x.html"), "<p>closed</p>").unwrap();
    certificate(&dir.path().join("certs"), "tls.test", &["tls.test"]);
    engine.start("tls", &["VIRTUAL_HOST=tls.test", "SELVEDGE_BASIC_AUTH=ann:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk="], &[]);
    engine.start("off", &["VIRTUAL_HOST=off.test", "ACME_HTTP_CHALLENGE_LOCATION=false"], &[]);
    engine.start("debug", &["VIRTUAL_HOST=debug.test", "selvedge.debug-endpoint=true"], &[]);
    let more = discovering(&engine, "html = \"html\"\n[discovery.docker.variables]\nDEFAULT_ROOT = \"404\"");
    let edge = Edge::start_in(Arc::clone(&dir), &config_tls(&more), &[]);
    let path = "/.well-known/acme-challenge/t-1_x";
    assert_eq!(who(edge.http, "tls.test", path).await, "404", "no such file, and no redirect");
    std::fs::write(challenges.join("t-1_x"), "t-1_x.print").unwrap();
    let answer = Client::new(edge.http, "tls.test").get(path).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "t-1_x.print"), "as soon as it is there");
    assert_eq!(who(edge.http, "tls.test", "/x").await, "301");
    assert_eq!(who(edge.http, "off.test", path).await, "off", "the container is asked");
    let unknown = Client::new(edge.http, "nobody.test").get(path).await;
    assert_eq!((unknown.status.as_u16(), unknown.text().as_str()), (503, "<p>closed</p>"));
    assert_eq!(unknown.field("content-type"), "text/html; charset=utf-8");
    let text = Client::new(edge.http, "debug.test").get("/nginx-proxy-debug").await.text();
    let view: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&view["host"], &view["containers"][0]), (&"debug.test".into(), &engine.name("debug").into()));
    assert_eq!(view["paths"][0]["servers"][0]["container"], *engine.name("debug"));
    assert_eq!(who(edge.http, "off.test", "/nginx-proxy-debug").await, "off", "not unless it was asked for");
}

/// A `selvedge` that is ended with the test.
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_needs_no_socket_where_another_process_offers_the_containers() {
    let engine = Engine::new();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let socket = dir.path().join("discover.sock");
    let offer = || {
        let mut command = Command::new(BINARY);
        command.args(["discover", "--listen", &format!("unix:{}", socket.display())]);
        command
            .env("DOCKER_CONTAINER_FILTERS", format!("label={}", engine.label()))
            .stderr(std::process::Stdio::null());
        Process(command.spawn().unwrap())
    };
    let first = offer();
    engine.start("one", &["VIRTUAL_HOST=remote.test"], &[]);
    let settings = format!("[discovery.remote]\nendpoint = \"unix:{}\"\n", socket.display());
    let edge = Edge::start_in(Arc::clone(&dir), &config(&settings), &[]);
    wait_for(edge.http, "remote.test", &["one"]).await;
    engine.start("two", &["VIRTUAL_HOST=remote.test"], &[]);
    wait_for(edge.http, "remote.test", &["one", "two"]).await;
    drop(first);
    wait_until("the loss is noticed", PATIENCE, || edge.metric("selvedge_discovery_up") == 0.0);
    wait_for(edge.http, "remote.test", &["one", "two"]).await;
    let _second = offer();
    wait_until("it is back", PATIENCE, || edge.metric("selvedge_discovery_up") == 1.0);
    engine.tell(&["stop", "-t", "1"], "one");
    wait_for(edge.http, "remote.test", &["two"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_offered_over_https_to_those_that_know_the_token() {
    let engine = Engine::new();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let made =
        Command::new(BINARY).args(["cert", "self-signed", "localhost", "--out"]).arg(dir.path()).output().unwrap();
    assert!(made.status.success());
    let token = "a-token-of-the-test";
    let mut command = Command::new(BINARY);
    command.args(["discover", "--listen", "127.0.0.1:0", "--token-env", "DISCOVER_TOKEN", "--cert"]);
    command.arg(dir.path().join("localhost.crt")).arg("--key").arg(dir.path().join("localhost.key"));
    command.env("DISCOVER_TOKEN", token).env("DOCKER_CONTAINER_FILTERS", format!("label={}", engine.label()));
    let mut offering = Process(command.stderr(std::process::Stdio::piped()).spawn().unwrap());
    let lines = std::io::BufRead::lines(std::io::BufReader::new(offering.0.stderr.take().unwrap()));
    let mut lines = lines.map_while(Result::ok);
    let port = lines.find_map(|line| line.split("listen=127.0.0.1:").nth(1)?.split(' ').next()?.parse::<u16>().ok());
    std::thread::spawn(move || lines.count());
    let port = port.expect("it says where it offers");
    engine.start("one", &["VIRTUAL_HOST=https.test"], &[]);
    let settings = |variable: &str| {
        format!(
            "[discovery.remote]\nendpoint = \"https://localhost:{port}\"\nca = \"localhost.crt\"\ntoken = {{ env = \"{variable}\" }}\n"
        )
    };
    let env = [("RIGHT", token), ("WRONG", "another")];
    let edge = Edge::start_in(Arc::clone(&dir), &config(&settings("RIGHT")), &env);
    wait_for(edge.http, "https.test", &["one"]).await;
    let other = Arc::new(tempfile::tempdir().unwrap());
    std::fs::copy(dir.path().join("localhost.crt"), other.path().join("localhost.crt")).unwrap();
    let refused = Edge::start_in(other, &config(&settings("WRONG")), &env);
    assert_eq!(who(refused.http, "https.test", "/").await, "503");
    assert!(routes(&refused, &[]).1.contains("it answered 401 Unauthorized; look at the token"));
}

/// The binary and the libraries it needs, as an image in nginx-proxy's place: no file, no arguments but `serve`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_an_image_it_does_what_nginx_proxys_does() {
    let engine = Engine::new();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("tmp")).unwrap();
    std::os::unix::fs::symlink(BINARY, root.join("selvedge")).unwrap();
    let needed = Command::new("ldd").arg(BINARY).output().unwrap();
    for library in String::from_utf8_lossy(&needed.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(library, place).unwrap();
    }
    engine.import(
        &root,
        &["."],
        &format!("{}:edge", engine.label().replace("selvedge-test=", "")),
        &["CMD [\"/selvedge\", \"serve\"]"],
    );
    engine.start("web", &["VIRTUAL_HOST=image.test"], &[]);
    let other = format!("{}-other", engine.net());
    engine.network(&other);
    engine.start("away", &["VIRTUAL_HOST=away.test"], &["--network", &other]);
    engine.edge(&["-v", "/var/run/docker.sock:/tmp/docker.sock", "-e", "HTTPS_METHOD=noredirect"]);
    let address = engine.address("edge");
    wait_until("it listens", PATIENCE, || std::net::TcpStream::connect(address).is_ok());
    wait_for(address, "image.test", &["web"]).await;
    assert_eq!(who(address, "away.test", "/").await, "503", "no network is shared");
    assert_eq!(who(address, "nobody.test", "/").await, "503");
    let text = Client::new(address, "image.test").get("/x").await.text().to_ascii_lowercase();
    assert!(text.contains("host: image.test") && text.contains("x-forwarded-proto: http"), "{text}");
}
