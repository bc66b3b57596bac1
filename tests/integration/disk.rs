//! A disk that is full or fails under the real binary: clients get what they ask for, the tier goes out of service and
//! comes back by itself. The file system is a real one of a few MiB; errors are injected into system calls by strace.

use crate::support::edge::{config, one_origin};
use crate::support::nginx::Nginx;
use crate::support::tools::wait_until;
use crate::support::{Client, Edge};
use http::Method;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A command that needs the rights of root.
fn as_root(program: &str, args: &[&str]) -> Command {
    let is_root = rustix::process::geteuid().is_root();
    let mut command = Command::new(if is_root { program } else { "sudo" });
    if !is_root {
        command.args(["-n", program]);
    }
    command.args(args);
    command
}

fn run_as_root(program: &str, args: &[&str]) {
    let out = as_root(program, args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A file system in memory with room for so many MiB.
struct Small {
    path: PathBuf,
    _dir: TempDir,
}

impl Small {
    fn mount(mib: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        std::fs::create_dir(&path).unwrap();
        let small = Self { path, _dir: dir };
        run_as_root("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m,mode=777"), "none", small.text()]);
        small
    }

    fn resize(&self, mib: u32) {
        run_as_root("mount", &["-o", &format!("remount,size={mib}m"), self.text()]);
    }

    fn text(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: the edge may still have files open.
        let _ = as_root("umount", &["--lazy", self.text()]).status();
    }
}

/// Lets system calls of a process fail until it is dropped.
struct Injection(Child);

impl Injection {
    fn into(pid: u32, calls: &str, error: &str) -> Self {
        let inject = format!("inject={calls}:error={error}");
        let mut child = as_root(
            "strace",
            &["-f", "-p", &pid.to_string(), "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &inject],
        )
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let attached = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("attached")));
        assert!(attached.is_some(), "strace is not attached");
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // Asked to end, it lets go of the process first.
        let _ = as_root("kill", &["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

fn edge_on(path: &Path, nginx: &Nginx) -> Edge {
    let text = config(&one_origin(nginx.address))
        .replace("capacity = \"64 MiB\"", "capacity = 0")
        .replace("path = \"cache\"", &format!("path = \"{}\"\nsegment_size = \"1 MiB\"", path.join("cache").display()));
    Edge::start(&text)
}

fn content(n: usize) -> Vec<u8> {
    (0..200_000usize).map(|at| (at * 31 + at / 251 + n * 97) as u8).collect()
}

fn origin() -> Nginx {
    let nginx = Nginx::start("location / { add_header Cache-Control max-age=3600; }");
    for n in 0..60 {
        nginx.write(&format!("{n}.bin"), &content(n));
    }
    nginx
}

fn errors(edge: &Edge, kind: &str) -> f64 {
    edge.metric(&format!(r#"selvedge_tier_errors_total{{kind="{kind}",tier="disk"}}"#))
}

/// Gets them all, whole; how many came from the disk.
async fn get_all(client: &mut Client, numbers: impl Iterator<Item = usize>) -> usize {
    let mut hits = 0;
    for n in numbers {
        let answer = client.get(&format!("/{n}.bin")).await;
        assert_eq!(answer.status, 200, "{n}");
        assert!(answer.body == content(n), "{n}: another body");
        hits += usize::from(answer.cache_status().contains("detail=disk"));
    }
    hits
}

/// What is asked for twice comes from the disk the second time, sooner or later.
async fn until_stored(client: &mut Client, n: usize) {
    let again = async {
        while get_all(client, [n].into_iter()).await == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("the tier is in service again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_hits_and_nothing_else_until_there_is_room() {
    let (nginx, small) = (origin(), Small::mount(5));
    let edge = edge_on(&small.path, &nginx);
    let mut client = Client::new(edge.http, "a.example");
    get_all(&mut client, 0..5).await;
    wait_until("they are stored", Duration::from_secs(10), || {
        edge.metric(r#"selvedge_tier_objects{tier="disk"}"#) >= 5.0
    });
    get_all(&mut client, 5..50).await;
    wait_until("the disk is full", Duration::from_secs(10), || errors(&edge, "full") >= 1.0);
    assert!(get_all(&mut client, 0..5).await > 0, "reads go on");
    get_all(&mut client, 0..50).await;
    // The log has room ahead of need: a purge is still durable.
    assert_eq!(purge(&edge, "url=http://a.example/0.bin").await, 200);
    small.resize(64);
    until_stored(&mut client, 55).await;
    let edge = edge.crash_and_restart();
    let mut client = Client::new(edge.http, "a.example");
    assert_eq!(get_all(&mut client, 0..1).await, 0, "purged");
    assert!(get_all(&mut client, 0..50).await > 0);
}

async fn purge(edge: &Edge, form: &'static str) -> u16 {
    let mut admin = Client::new(edge.admin, "localhost");
    admin.send(Method::POST, "/purge", &[], form.into()).await.unwrap().status.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_costs_hits_and_nothing_else_until_it_works() {
    let (nginx, dir) = (origin(), tempfile::tempdir().unwrap());
    let edge = edge_on(dir.path(), &nginx);
    let mut client = Client::new(edge.http, "a.example");
    get_all(&mut client, 0..10).await;
    until_stored(&mut client, 9).await;

    let writes = Injection::into(edge.pid(), "pwritev,pwrite64", "EIO");
    get_all(&mut client, 10..15).await;
    wait_until("a write has failed", Duration::from_secs(10), || errors(&edge, "write") >= 1.0);
    assert!(get_all(&mut client, 0..10).await > 0, "reads go on");
    get_all(&mut client, 10..15).await;
    assert_eq!(purge(&edge, "url=http://a.example/3.bin").await, 503, "not durable, and so it says");
    drop(writes);
    until_stored(&mut client, 20).await;
    assert_eq!(purge(&edge, "url=http://a.example/3.bin").await, 200);

    let reads = Injection::into(edge.pid(), "preadv2,pread64", "EIO");
    get_all(&mut client, 0..21).await;
    get_all(&mut client, 0..21).await;
    assert!(errors(&edge, "read") >= 1.0);
    wait_until("a segment is given up", Duration::from_secs(10), || errors(&edge, "segment") >= 1.0);
    drop(reads);
    until_stored(&mut client, 30).await;
    assert!(edge.log().contains("out of service"), "{}", edge.log());
}
