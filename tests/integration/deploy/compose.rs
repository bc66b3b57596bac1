//! `deploy/compose.yaml` as a user runs it, with images built here, while everything behind the edge is replaced.

use super::ROOT;
use crate::support::Client;
use crate::support::edge::BINARY;
use crate::support::tools::{free_port, wait_until};
use bytes::Bytes;
use http::Method;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);
/// A root file system with what `deploy/app/Dockerfile` would install; made by `tests/run`.
const BASE: &str = "target/test-tools/app-base.tar";
const WWW: &str = "www.example.com";
const API: &str = "api.example.com";

/// The app, running. Dropping it removes containers, networks, volumes and images.
struct App {
    project: String,
    env: Vec<(&'static str, String)>,
    http: SocketAddr,
}

impl App {
    fn start() -> Self {
        assert!(Path::new(ROOT).join(BASE).exists(), "there is no {BASE}: run tests/run, which makes it");
        let project = format!("selvedge-test-{}-compose", std::process::id());
        let group = run(Command::new("stat").args(["-L", "-c", "%g", "/var/run/docker.sock"]));
        let env = vec![
            ("SELVEDGE_IMAGE", format!("{project}:edge")),
            ("APP_BASE", format!("{project}:base")),
            ("DOCKER_GID", group.trim().to_owned()),
            ("HTTP_PORT", String::new()),
            ("HTTPS_PORT", String::new()),
        ];
        let mut app = Self { project, env, http: SocketAddr::from(([127, 0, 0, 1], 0)) };
        run(Command::new("docker").args(["import", BASE, app.env("APP_BASE")]));
        run(Command::new("deploy/image").arg(app.env("SELVEDGE_IMAGE")).env("BINARY", BINARY));
        app.compose(&["build", "--quiet"]);
        // Ports cannot be left to the system here; another process may take one before it is used.
        for attempt in 0.. {
            let ports = [free_port(), free_port()];
            app.env[3].1 = ports[0].to_string();
            app.env[4].1 = ports[1].to_string();
            app.http.set_port(ports[0]);
            let Output { status, stderr, .. } = app.command(&["up", "-d"]).output().unwrap();
            if status.success() {
                break;
            }
            assert!(attempt < 3, "{}", String::from_utf8_lossy(&stderr));
        }
        app
    }

    fn env(&self, name: &str) -> &str {
        &self.env.iter().find(|(key, _)| *key == name).unwrap().1
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker-compose");
        command.args(["-p", &self.project, "-f", "deploy/compose.yaml"]).args(args);
        command.envs(self.env.iter().map(|(key, value)| (key, value))).current_dir(ROOT).stdin(Stdio::null());
        command
    }

    fn compose(&self, args: &[&str]) -> String {
        run(&mut self.command(args))
    }

    fn containers(&self, service: &str) -> Vec<String> {
        self.compose(&["ps", "-q", service]).lines().map(str::to_owned).collect()
    }

    /// As many containers as said, those that are there untouched.
    fn scale(&self, numbers: &[&str]) {
        let mut args = vec!["up", "-d", "--no-recreate"];
        numbers.iter().for_each(|number| args.extend(["--scale", number]));
        self.compose(&args);
    }

    /// Waits until so many containers of the API answer, and no other.
    async fn wait_for_apis(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut seen = BTreeSet::new();
            for _ in 0..4 * count {
                seen.insert(self.get(API, "/host").await);
            }
            if seen.len() == count && seen.iter().all(|answer| answer.starts_with("200 ")) {
                return;
            }
            assert!(Instant::now() < deadline, "not {count}: {seen:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, host: &str, path: &str) -> String {
        match Client::new(self.http, host).send(Method::GET, path, &[], Bytes::new()).await {
            Ok(answer) => format!("{} {}", answer.status.as_u16(), answer.text()),
            Err(error) => error,
        }
    }

    async fn wait_for(&self, host: &str, path: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(host, path).await;
            if answer.starts_with("200 ") {
                return;
            }
            assert!(Instant::now() < deadline, "{host}{path}: {answer}\n{}", self.compose(&["logs", "--tail=40"]));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.command(&["logs", "--tail=60", "edge"]).output();
            eprintln!("{}", logs.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default());
        }
        let _ = self.command(&["down", "-v", "--rmi", "local", "--remove-orphans", "-t", "1"]).output();
        let _ = Command::new("docker").args(["image", "rm", "-f", self.env("SELVEDGE_IMAGE")]).output();
        let _ = Command::new("docker").args(["image", "rm", "-f", self.env("APP_BASE")]).output();
    }
}

fn run(command: &mut Command) -> String {
    super::run(command)
}

/// Requests without a pause, each of which has to be a 200.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let wanted = [
            (Method::GET, API, "/notes"),
            (Method::GET, API, "/host"),
            (Method::PUT, API, "/notes/a"),
            (Method::PUT, API, "/notes/b"),
            (Method::HEAD, WWW, "/"),
            (Method::GET, WWW, "/"),
            (Method::GET, WWW, "/assets/style.css"),
        ];
        let client = |(method, host, path): (Method, &'static str, &'static str)| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut client, mut failures) = (Client::new(address, host), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let body = if method == Method::PUT { Bytes::from_static(b"text") } else { Bytes::new() };
                    match client.send(method.clone(), path, &[], body).await {
                        Ok(answer) if answer.status == 200 => {}
                        Ok(answer) => failures.push(format!(
                            "{method} {path}: {} {}",
                            answer.status,
                            answer.field("proxy-status")
                        )),
                        Err(error) => failures.push(format!("{method} {path}: {error}")),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        };
        let tasks = wanted.into_iter().map(client).collect();
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
            assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), &failures[..failures.len().min(8)]);
        }
        self.done.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_compose_app_loses_no_idempotent_request_while_everything_behind_the_edge_is_replaced() {
    let app = App::start();
    app.wait_for(API, "/notes").await;
    app.wait_for(WWW, "/").await;
    let load = Load::start(app.http);
    app.scale(&["api=5", "web=2"]);
    app.wait_for_apis(5).await;
    // Each is taken away, and a new one comes in its place.
    for service in ["api", "web"] {
        for old in app.containers(service) {
            run(Command::new("docker").args(["stop", "-t", "20", &old]));
            run(Command::new("docker").args(["rm", &old]));
            app.scale(&["api=5", "web=2"]);
        }
    }
    app.wait_for_apis(5).await;
    // The API waits for its database.
    app.compose(&["up", "-d", "--no-deps", "--force-recreate", "-t", "5", "db"]);
    app.wait_for(API, "/notes").await;
    let apis = app.containers("api");
    run(Command::new("docker").args(["kill", &apis[0]]));
    load.wait_for(300);
    run(Command::new("docker").args(["pause", &apis[1]]));
    load.wait_for(300);
    run(Command::new("docker").args(["unpause", &apis[1]]));
    app.wait_for_apis(4).await;
    wait_until("ten thousand requests are done", PATIENCE, || load.done.load(Ordering::Relaxed) >= 10_000);
    let done = load.finish().await;
    assert!(done >= 10_000, "{done} requests");
}
