//! The real binary, started on port 0 and ended by its pid.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_selvedge");

/// A serving edge. Dropping it ends the process and removes its directory.
pub struct Edge {
    child: Option<Child>,
    dir: Arc<TempDir>,
    log: Arc<Mutex<Vec<String>>>,
    pub http: SocketAddr,
    pub https: Option<SocketAddr>,
    pub admin: SocketAddr,
    env: Vec<(String, String)>,
}

/// The listeners and tiers that most tests want, in front of what `rest` adds.
pub fn config(rest: &str) -> String {
    format!(
        "[runtime]\nthreads = 2\nshutdown_grace = \"10s\"\n\n[listen]\nhttp = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\n\
         [cache.memory]\ncapacity = \"64 MiB\"\n\n[cache.disk]\npath = \"cache\"\ncapacity = \"256 MiB\"\n\n{rest}"
    )
}

/// The same with HTTPS, certificates from `certs`.
pub fn config_tls(rest: &str) -> String {
    config(&format!("[tls]\ncertificates = \"certs\"\n\n{rest}"))
        .replace("admin = ", "https = [\"127.0.0.1:0\"]\nadmin = ")
}

/// One site for every host before one HTTP origin.
pub fn one_origin(address: SocketAddr) -> String {
    format!(
        "[origins.app.http]\nservers = [\"{address}\"]\n\n[[sites]]\nhosts = [\"*\"]\n\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n"
    )
}

impl Edge {
    /// Starts an edge by this configuration and waits until it serves.
    pub fn start(config: &str) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), config, &[])
    }

    /// The same, with a directory prepared by the caller and more environment.
    pub fn start_in(dir: Arc<TempDir>, config: &str, env: &[(&str, &str)]) -> Self {
        std::fs::write(dir.path().join("selvedge.toml"), config).unwrap();
        let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (child, log) = spawn(dir.path(), &env);
        let serving = wait_for(&log, "serving", Duration::from_secs(30));
        let unspecified = "127.0.0.1:1".parse().unwrap();
        let edge = Self {
            child: Some(child),
            http: addresses(&serving, "http=").first().copied().unwrap_or(unspecified),
            https: addresses(&serving, "https=").first().copied(),
            admin: addresses(&serving, "admin=").first().copied().unwrap_or(unspecified),
            dir,
            log,
            env,
        };
        edge.wait_until_healthy();
        edge
    }

    /// Runs until exit and returns status and standard error: for configurations that must be refused.
    pub fn refused(config: &str) -> (ExitStatus, String) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("selvedge.toml"), config).unwrap();
        let out =
            Command::new(BINARY).args(["serve", "--config"]).arg(dir.path().join("selvedge.toml")).output().unwrap();
        (out.status, String::from_utf8_lossy(&out.stderr).into_owned())
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("selvedge.toml")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until a log line after the first `from` lines contains `text`.
    pub fn wait_for_log(&self, from: usize, text: &str) -> String {
        wait_from(&self.log, from, text, Duration::from_secs(20))
    }

    pub fn log_lines(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// SIGTERM; waits for the exit status.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.take().unwrap().wait().unwrap()
    }

    /// `kill -9`, then a new process over the same directory.
    pub fn crash_and_restart(mut self) -> Self {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let config = std::fs::read_to_string(self.config_file()).unwrap();
        let env: Vec<(&str, &str)> = self.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        Self::start_in(Arc::clone(&self.dir), &config, &env)
    }

    /// The most that was ever resident, in bytes.
    pub fn peak_rss(&self) -> u64 {
        status_kib(self.pid(), "VmHWM:") << 10
    }

    /// What of it is now pages of files, in bytes: the program itself, of which a debug build has much, and which the
    /// system can drop.
    pub fn rss_of_files(&self) -> u64 {
        status_kib(self.pid(), "RssFile:") << 10
    }

    fn wait_until_healthy(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if super::tools::http_get(self.admin, "/healthz").is_some_and(|(status, _)| status == 200) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not healthy:\n{}", self.log());
    }

    /// The value of one sample on `/metrics`; 0 where it is absent.
    pub fn metric(&self, sample: &str) -> f64 {
        let (_, text) = super::tools::http_get(self.admin, "/metrics").unwrap();
        text.lines()
            .find_map(|l| l.strip_prefix(sample)?.strip_prefix(' '))
            .and_then(|v| v.trim().parse().ok())
            .unwrap_or(0.0)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the edge's log ---\n{}", self.log());
        }
    }
}

fn spawn(dir: &Path, env: &[(String, String)]) -> (Child, Arc<Mutex<Vec<String>>>) {
    let mut child = Command::new(BINARY)
        .args(["serve", "--config"])
        .arg(dir.join("selvedge.toml"))
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let sink = Arc::clone(&log);
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| sink.lock().unwrap().push(line)));
    (child, log)
}

fn wait_for(log: &Arc<Mutex<Vec<String>>>, text: &str, patience: Duration) -> String {
    wait_from(log, 0, text, patience)
}

fn wait_from(log: &Arc<Mutex<Vec<String>>>, from: usize, text: &str, patience: Duration) -> String {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(line) = log.lock().unwrap().iter().skip(from).find(|l| l.contains(text)) {
            return line.clone();
        }
        assert!(Instant::now() < deadline, "no `{text}` in the log:\n{}", log.lock().unwrap().join("\n"));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The addresses behind ` key` in a log line: `http=127.0.0.1:80,127.0.0.1:81 https=…`.
fn addresses(line: &str, key: &str) -> Vec<SocketAddr> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(key))
        .map(|list| list.trim_matches('"').split(',').filter_map(|a| a.parse().ok()).collect())
        .unwrap_or_default()
}

fn status_kib(pid: u32, field: &str) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap()
        .lines()
        .find_map(|l| l.strip_prefix(field)?.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap()
}
