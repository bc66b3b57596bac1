//! An engine of a test's own, in a container of the machine's: with a swarm, certificates and an end that concern nobody
//! else. It has the machine's programs and libraries, so that there is nothing to pull, and the test's server as an image.

use super::engine::{Engine, docker};
use crate::support::edge::BINARY;
use crate::support::tools::wait_until;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// The image of the test's server; nobody is asked for it, since nobody answers there.
pub const APP: &str = "localhost:1/app:1";
/// The binary under test, in the engine's container and in those that [`Nested::mounts`] gives it to.
pub const SELVEDGE: &str = "/selvedge";
/// Where edges listen for HTTP: the network is the engine's own.
pub const PORT: u16 = 8080;

/// What the machine's programs need, and the same for containers within.
const FOLDERS: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives"];
/// What an engine needs beyond a container's usual capabilities.
const CAPABILITIES: [&str; 7] =
    ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "SYSLOG", "IPC_LOCK", "SYS_NICE"];

/// Begun again when it ends, but not while there is a /tmp/hold.
const LOOP: &str = r#"
mkdir -p /var/run
# The unified hierarchy is the container's own, but to be read only; a group with groups below it has no processes.
[ ! -e /sys/fs/cgroup/cgroup.controllers ] || {
  mount -o remount,rw /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/init && echo 0 >/sys/fs/cgroup/init/cgroup.procs
  sed -e 's/ / +/g' -e 's/^/+/' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
}
while :; do
  [ -e /tmp/hold ] || dockerd --config-file /tmp/daemon.json "$@" >>/tmp/dockerd.log 2>&1
  sleep 0.1
done"#;

/// An engine. It ends with the [`Engine`] that it was started in.
pub struct Nested {
    name: String,
    pub ip: IpAddr,
}

impl Nested {
    /// Starts it with these arguments of `dockerd`; of `files` the folder is mounted as /files.
    pub fn start(engine: &Engine, short: &str, arguments: &[&str], files: Option<&Path>) -> Self {
        let mut options: Vec<String> = ["seccomp", "apparmor", "systempaths"]
            .iter()
            .flat_map(|what| ["--security-opt".to_owned(), format!("{what}=unconfined")])
            .collect();
        let mut add = |name: &str, value: &str| options.extend([name.to_owned(), value.to_owned()]);
        CAPABILITIES.iter().for_each(|capability| add("--cap-add", capability));
        FOLDERS.iter().filter(|folder| Path::new(folder).exists()).for_each(|f| add("-v", &format!("{f}:{f}:ro")));
        add("-v", &format!("{BINARY}:{SELVEDGE}:ro"));
        if let Some(files) = files {
            add("-v", &format!("{}:/files:ro", files.display()));
        }
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            add("-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw");
        }
        add("-v", "/var/lib/docker");
        add("--device-cgroup-rule", "a *:* rwm");
        for folder in ["/run:exec", "/var/run:exec", "/tmp:exec"] {
            add("--tmpfs", folder);
        }
        add("-e", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        add("--hostname", short);
        add("--entrypoint", "/bin/sh");
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let script = format!("echo '{{}}' >/tmp/daemon.json; {LOOP}");
        let mut command = vec!["-c", script.as_str(), "dockerd", "--storage-driver", "vfs"];
        command.extend(["-H", "unix:///var/run/docker.sock"]);
        command.extend(arguments);
        engine.start_with(short, &options, &command);
        let nested = Self { name: engine.name(short), ip: engine.address(short).ip() };
        nested.wait();
        let import = "tar -C / -c app | docker import --change 'CMD [\"/app\"]' --change 'EXPOSE 80' - ";
        nested.sh(&format!("{import}{APP}"));
        nested
    }

    /// Until it answers.
    pub fn wait(&self) {
        let answers = || {
            let asked = Command::new("docker").args(["exec", &self.name, "docker", "version"]).output();
            asked.is_ok_and(|out| out.status.success())
        };
        let deadline = std::time::Instant::now() + PATIENCE;
        while !answers() {
            assert!(std::time::Instant::now() < deadline, "no engine:\n{}", self.sh("tail -n 40 /tmp/dockerd.log"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The engine's client within.
    pub fn docker(&self, args: &[&str]) -> String {
        let mut all = vec!["exec", self.name.as_str(), "docker"];
        all.extend(args);
        docker(&all)
    }

    /// A shell within.
    pub fn sh(&self, script: &str) -> String {
        docker(&["exec", &self.name, "/bin/sh", "-c", script])
    }

    /// Writes a file within.
    pub fn write(&self, path: &str, text: &str) {
        let mut command = Command::new("docker");
        command.args(["exec", "-i", &self.name, "/bin/sh", "-c", &format!("cat >{path}")]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Starts the test's server in a container within; `more` goes to `docker run`.
    pub fn run(&self, name: &str, variables: &[&str], more: &[&str]) {
        let own = format!("NAME={name}");
        let mut args = vec!["run", "-d", "--name", name, "-e", &own];
        variables.iter().for_each(|variable| args.extend(["-e", variable]));
        args.extend(more);
        args.push(APP);
        self.docker(&args);
    }

    /// Starts the binary beside the engine, not in a container of it, and waits until it listens.
    pub fn edge(&self, variables: &[&str]) -> SocketAddr {
        let listen = format!("SELVEDGE_HTTP=0.0.0.0:{PORT}");
        let mut args = vec!["exec", "-d", "-e", &listen, "-e", "SELVEDGE_HTTPS=0.0.0.0:8443"];
        variables.iter().for_each(|variable| args.extend(["-e", variable]));
        let command = format!("exec {SELVEDGE} serve >>/tmp/edge.log 2>&1");
        args.extend([&self.name, "/bin/sh", "-c", &command]);
        docker(&args);
        let address = SocketAddr::new(self.ip, PORT);
        wait_until("the edge listens", PATIENCE, || std::net::TcpStream::connect(address).is_ok());
        address
    }

    /// What `selvedge routes` prints, of the edge beside the engine.
    pub fn routes(&self) -> String {
        self.sh(&format!("{SELVEDGE} routes 2>&1 || true"))
    }

    /// A sample on `/metrics` of the edge beside the engine.
    pub fn metric(&self, sample: &str) -> f64 {
        let text = self.sh("curl -s http://127.0.0.1:9090/metrics || true");
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.trim().parse().ok());
        value.unwrap_or(f64::NAN)
    }

    /// Options by which a container within has what the binary needs.
    pub fn mounts() -> Vec<String> {
        let folders = FOLDERS[..5].iter().filter(|folder| Path::new(folder).exists());
        folders
            .copied()
            .chain([SELVEDGE])
            .map(|path| format!("type=bind,source={path},target={path},readonly"))
            .collect()
    }
}
