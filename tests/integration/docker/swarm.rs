//! A swarm of two engines, and edges in it: as a service on the manager, and on the worker.

use super::engine::Engine;
use super::nested::{APP, Nested, PORT, SELVEDGE};
use super::{Load, wait_for, who};
use crate::support::tools::wait_until;
use std::net::SocketAddr;
use std::time::Duration;

/// Swarm takes its time over tasks, one after the other.
const PATIENCE: Duration = Duration::from_secs(60);

/// Manager and worker, and a network over both.
struct Swarm {
    manager: Nested,
    worker: Nested,
    _engine: Engine,
}

impl Swarm {
    fn start() -> Self {
        let engine = Engine::new();
        let (manager, worker) = std::thread::scope(|scope| {
            let manager = scope.spawn(|| Nested::start(&engine, "manager", &[], None));
            let worker = Nested::start(&engine, "worker", &[], None);
            (manager.join().unwrap(), worker)
        });
        let address = manager.ip.to_string();
        manager.docker(&["swarm", "init", "--advertise-addr", &address]);
        let token = manager.docker(&["swarm", "join-token", "-q", "worker"]);
        worker.docker(&["swarm", "join", "--token", &token, &format!("{address}:2377")]);
        manager.docker(&["network", "create", "--driver", "overlay", "--attachable", "front"]);
        Self { manager, worker, _engine: engine }
    }

    /// Starts a service of the test's server; `more` goes to `docker service create`.
    fn service(&self, name: &str, replicas: u32, more: &[&str]) {
        let (replicas, own) = (replicas.to_string(), format!("NAME={name}-{{{{.Task.Slot}}}}"));
        let mut args = vec!["service", "create", "-d", "--name", name, "--network", "front", "--replicas", &replicas];
        // What is killed comes back at once; updates are watched no longer than they have to be.
        args.extend(["--restart-delay", "0s", "--update-monitor", "100ms", "--stop-grace-period", "5s"]);
        args.extend(["--no-resolve-image", "-e", &own]);
        args.extend(more);
        args.push(APP);
        self.manager.docker(&args);
    }

    /// The edge as `deploy/stack.yaml` has it: a service on each manager, with its ports on the machine itself.
    fn edge(&self) -> SocketAddr {
        let mut args = vec!["service", "create", "-d", "--name", "edge", "--mode", "global", "--no-resolve-image"];
        args.extend(["--constraint", "node.role==manager", "--network", "front"]);
        let publish = format!("mode=host,target={PORT},published={PORT}");
        args.extend(["--publish", &publish]);
        let mounts = Nested::mounts();
        mounts.iter().for_each(|mount| args.extend(["--mount", mount]));
        args.extend(["--mount", "type=bind,source=/var/run/docker.sock,target=/tmp/docker.sock"]);
        let listen = format!("SELVEDGE_HTTP=0.0.0.0:{PORT}");
        args.extend(["-e", &listen, APP, SELVEDGE, "serve"]);
        self.manager.docker(&args);
        let address = SocketAddr::new(self.manager.ip, PORT);
        wait_until("the edge listens", PATIENCE, || std::net::TcpStream::connect(address).is_ok());
        address
    }

    /// What `selvedge routes` prints in the edge's task.
    fn routes(&self, more: &str) -> String {
        let id = "$(docker ps -q -f label=com.docker.swarm.service.name=edge)";
        self.manager.sh(&format!("docker exec {id} {SELVEDGE} routes {more} 2>&1 || true"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_of_a_swarm_are_scaled_updated_and_drained_without_a_lost_request() {
    let swarm = Swarm::start();
    let label = ["--label", "selvedge.virtual-host=web.test", "--label", "selvedge.connect-timeout=1s"];
    swarm.service("web", 4, &label);
    let edge = swarm.edge();
    wait_for(edge, "web.test", &["web-1", "web-2", "web-3", "web-4"]).await;
    let text = swarm.routes("");
    for part in ["service web (4 tasks)", "task on manager, network front, port 80", "task on worker, network front"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // A container that is no service is routed beside them, and a task counts once.
    swarm.manager.run("plain", &["VIRTUAL_HOST=web.test"], &["--network", "front"]);
    wait_for(edge, "web.test", &["plain", "web-1", "web-2", "web-3", "web-4"]).await;
    let json: serde_json::Value = serde_json::from_str(&swarm.routes("--json")).unwrap();
    let servers = json["sites"][0]["routes"][0]["servers"].as_array().unwrap();
    assert_eq!(servers.len(), 5, "{json}");
    swarm.manager.docker(&["rm", "-f", "plain"]);

    let (fast, slow) = (Load::start(edge, "web.test", "/", 4), Load::start(edge, "web.test", "/slow", 4));
    let scale = |to: u32| swarm.manager.docker(&["service", "scale", "-d", &format!("web={to}")]);
    scale(6);
    wait_for(edge, "web.test", &["web-1", "web-2", "web-3", "web-4", "web-5", "web-6"]).await;
    scale(3);
    slow.wait_for(8);
    let update = ["service", "update", "-d", "--no-resolve-image", "--env-add", "NAME=next-{{.Task.Slot}}", "web"];
    swarm.manager.docker(&update);
    wait_until("the update is complete", PATIENCE, || {
        swarm.manager.docker(&["service", "inspect", "-f", "{{.UpdateStatus.State}}", "web"]) == "completed"
    });
    fast.wait_for(100);
    // One dies, and then its machine is to be empty.
    let task = swarm.worker.docker(&["ps", "-q", "-f", "label=com.docker.swarm.service.name=web"]);
    swarm.worker.docker(&["kill", task.lines().next().expect("a task on the worker")]);
    slow.wait_for(8);
    swarm.manager.docker(&["node", "update", "--availability", "drain", "worker"]);
    wait_until("all tasks are on the manager", PATIENCE, || {
        let text = swarm.routes("");
        text.contains("service web (3 tasks)") && !text.contains("task on worker")
    });
    slow.wait_for(8);
    let (fast, slow) = (fast.finish().await, slow.finish().await);
    assert!(fast > 400 && slow > 40, "{fast} and {slow} requests");
    // Nobody left to ask: the host stays, and is told.
    scale(0);
    wait_for(edge, "web.test", &["503"]).await;
    wait_until("the empty service is told", PATIENCE, || swarm.routes("").contains("no task of this service runs"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_on_a_worker_knows_its_machine_and_by_a_manager_the_swarm() {
    let swarm = Swarm::start();
    swarm.service("web", 2, &["--label", "selvedge.virtual-host=web.test"]);
    let mounts: Vec<String> = Nested::mounts().iter().flat_map(|mount| ["--mount".to_owned(), mount.clone()]).collect();
    let with = |more: &[&str]| {
        let mut args = vec!["run", "-d", "--network", "front"];
        args.extend(mounts.iter().map(String::as_str));
        args.extend(more);
        swarm.worker.docker(&args);
    };
    let listen = format!("SELVEDGE_HTTP=0.0.0.0:{PORT}");
    let socket = "/var/run/docker.sock:/tmp/docker.sock";
    swarm.worker.run("plain", &["VIRTUAL_HOST=plain.test"], &["--network", "front"]);
    with(&["--name", "alone", "-p", "8081:8080", "-v", socket, "-e", &listen, APP, SELVEDGE, "serve"]);
    let alone = SocketAddr::new(swarm.worker.ip, 8081);
    wait_until("the edge listens", PATIENCE, || std::net::TcpStream::connect(alone).is_ok());
    wait_for(alone, "plain.test", &["plain"]).await;
    assert_eq!(who(alone, "web.test", "/").await, "503", "a service's labels are known to managers");
    let text = swarm.worker.sh(&format!("docker exec alone {SELVEDGE} routes 2>&1 || true"));
    assert!(text.contains("worker of a swarm, and only managers list services"), "{text}");

    // Another one asks a process on the manager, which has that engine's socket.
    let pair = format!("{SELVEDGE} cert self-signed manager --out /tmp/pair");
    swarm.manager.sh(&pair);
    let certificate = swarm.manager.sh("cat /tmp/pair/manager.crt");
    let offer = format!(
        "DISCOVER_TOKEN=t {SELVEDGE} discover --listen 0.0.0.0:9443 --token-env DISCOVER_TOKEN \
         --cert /tmp/pair/manager.crt --key /tmp/pair/manager.key >/tmp/discover.log 2>&1 &"
    );
    swarm.manager.sh(&offer);
    swarm.worker.sh("mkdir -p /tmp/edge");
    swarm.worker.write("/tmp/edge/manager.crt", &certificate);
    let settings = format!(
        "[listen]\nhttp = [\"0.0.0.0:{PORT}\"]\nadmin = \"127.0.0.1:9090\"\n[discovery.remote]\n\
         endpoint = \"https://manager:9443\"\nca = \"manager.crt\"\ntoken = {{ env = \"TOKEN\" }}\n"
    );
    swarm.worker.write("/tmp/edge/selvedge.toml", &settings);
    let host = format!("manager:{}", swarm.manager.ip);
    let more = ["--name", "remote", "-p", "8082:8080", "--add-host", &host, "-v", "/tmp/edge:/edge", "-e", "TOKEN=t"];
    let command = [APP, SELVEDGE, "serve", "--config", "/edge/selvedge.toml"];
    with(&[&more[..], &command[..]].concat());
    let remote = SocketAddr::new(swarm.worker.ip, 8082);
    wait_until("the edge listens", PATIENCE, || std::net::TcpStream::connect(remote).is_ok());
    wait_for(remote, "web.test", &["web-1", "web-2"]).await;
    swarm.manager.docker(&["service", "scale", "-d", "web=3"]);
    wait_for(remote, "web.test", &["web-1", "web-2", "web-3"]).await;
}
