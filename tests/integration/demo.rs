//! The first minutes of a user: `selvedge demo`, and the commands that it prints, as printed.

use crate::support::edge::BINARY;
use crate::support::tools::free_port;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

struct Demo {
    child: Child,
    _rest: BufReader<ChildStdout>,
    commands: Vec<String>,
}

impl Demo {
    /// The port is part of the cache key, so both runs of a demo get the same ones.
    fn start(dir: &Path, ports: [u16; 4]) -> Self {
        let flags = ["--http-port", "--https-port", "--admin-port", "--origin-port"];
        let mut child = Command::new(BINARY)
            .arg("demo")
            .args(flags.iter().zip(ports).flat_map(|(flag, port)| [(*flag).to_owned(), port.to_string()]))
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut commands = Vec::new();
        let mut line = String::new();
        loop {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "the demo ended before it was ready: {commands:?}");
            let text = line.trim();
            if text == "ready" {
                break;
            }
            if text.starts_with("curl ") || text.starts_with(BINARY) {
                commands.push(text.to_owned());
            }
        }
        Self { child, _rest: out, commands }
    }

    fn run(&self, index: usize) -> String {
        let out = Command::new("bash").args(["-c", &self.commands[index]]).output().unwrap();
        assert!(out.status.success(), "{}: {}", self.commands[index], String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).to_lowercase()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_printed_commands_answer_as_printed_and_hits_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let ports = std::array::from_fn(|_| free_port());
    let demo = Demo::start(dir.path(), ports);
    assert_eq!(demo.commands.len(), 8, "{:#?}", demo.commands);
    let miss = demo.run(0);
    assert!(
        miss.starts_with("http/2 200") && miss.contains("cache-status: selvedge; fwd=uri-miss; stored\r\n"),
        "{miss}"
    );
    let hit = demo.run(1);
    assert!(hit.contains("cache-status: selvedge; hit;"), "{hit}");
    let range = demo.run(2);
    assert!(
        range.starts_with("http/2 206") && range.contains("content-range: bytes 1048576-2097151/67108864"),
        "{range}"
    );
    let purged = demo.run(3);
    assert!(purged.contains("localhost"), "{purged}");
    let again = demo.run(4);
    assert!(again.contains("fwd=uri-miss; stored"), "{again}");
    assert!(demo.run(5).contains("selvedge_requests_total"));
    assert_eq!(demo.run(6).trim(), "403");
    assert_eq!(demo.run(7).trim(), "200");
    // The disk tier writes behind by up to its interval.
    std::thread::sleep(std::time::Duration::from_millis(500));
    drop(demo); // kill -9
    let demo = Demo::start(dir.path(), ports);
    let kept = demo.run(0);
    assert!(kept.contains("cache-status: selvedge; hit;") && kept.contains("detail=disk"), "{kept}");
}
