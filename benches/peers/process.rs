//! Programs, processes that end with the bench, and their CPU time.

use crate::{Doing, Failure, Kind, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the programs are.
pub struct Tools {
    found: HashMap<&'static str, PathBuf>,
}

impl Tools {
    /// Looks in the search path, and in the administrator's folders, which Debian leaves out of a user's.
    pub fn find(kinds: &[Kind]) -> Outcome<Tools> {
        let mut wanted =
            vec!["nginx", "wrk", "h2load", "nghttp", "openssl", "taskset", "setpriv", "timeout", "getconf"];
        if kinds.contains(&Kind::Varnish) {
            wanted.extend(["varnishd", "varnishncsa"]);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        let locate = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
        let mut found: HashMap<_, _> = wanted.iter().filter_map(|&name| Some((name, locate(name)?))).collect();
        let missing: Vec<_> = wanted.into_iter().filter(|name| !found.contains_key(name)).collect();
        found.insert("selvedge", PathBuf::from(env!("CARGO_BIN_EXE_selvedge")));
        if missing.is_empty() { Ok(Tools { found }) } else { Err(Failure::Missing { programs: missing.join(", ") }) }
    }

    /// The program's path; its bare name if it was not looked for.
    pub fn path(&self, name: &str) -> PathBuf {
        self.found.get(name).cloned().unwrap_or_else(|| PathBuf::from(name))
    }

    /// A command that runs on one CPU only.
    pub fn on_cpu(&self, cpu: u32, name: &str) -> Command {
        let mut command = Command::new(self.path("taskset"));
        command.arg("-c").arg(cpu.to_string()).arg(self.path(name));
        command
    }

    /// A server on one CPU. It gets SIGTERM should the bench die without ending it.
    fn server(&self, cpu: u32, name: &str) -> Command {
        let mut command = Command::new(self.path("setpriv"));
        command.args(["--pdeathsig", "TERM"]).arg(self.path("taskset")).arg("-c").arg(cpu.to_string());
        command.arg(self.path(name));
        command
    }

    /// A command that is ended after so many seconds (status 124).
    pub fn limited(&self, seconds: u64, command: &Command) -> Command {
        let mut limited = Command::new(self.path("timeout"));
        limited
            .args(["--foreground", "--kill-after=5", &seconds.to_string()])
            .arg(command.get_program())
            .args(command.get_args());
        limited.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        limited
    }
}

/// A server with all the processes it started. It is ended when this is dropped.
pub struct Process {
    pub name: &'static str,
    pub log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program whose standard output and error go to `log`.
    pub fn start(
        tools: &Tools,
        cpu: u32,
        name: &'static str,
        arguments: &[&OsStr],
        folder: &Path,
        log: PathBuf,
    ) -> Outcome<Process> {
        let output = File::options().create(true).append(true).open(&log).doing("opening a log")?;
        let errors = output.try_clone().doing("opening a log")?;
        let mut command = tools.server(cpu, name);
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.env_remove("RUST_LOG").spawn().doing(format!("starting {name}"))?;
        Ok(Process { name, log, child })
    }

    /// Waits until `ready` says so; an error if the process ends first or takes too long.
    pub fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> Outcome<()> {
        let start = Instant::now();
        while !ready() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failure(format!("ended while it started ({status})")));
            }
            if start.elapsed() > PATIENCE {
                return Err(self.failure(format!("not ready after {} s", PATIENCE.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// CPU time in clock ticks of this process and all below it, since they started.
    pub fn cpu_ticks(&self) -> Outcome<u64> {
        let stats = all_stats();
        let tree = tree(&stats, self.child.id());
        let running = stats.get(&self.child.id()).is_some_and(|stat| stat.state != 'Z');
        if !running {
            return Err(self.failure("ended while it was measured".to_owned()));
        }
        Ok(tree.iter().filter_map(|pid| stats.get(pid)).map(|stat| stat.ticks).sum())
    }

    pub fn failure(&self, problem: String) -> Failure {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = match lines.len() {
            0 => "(it is empty)".to_owned(),
            n => lines[n.saturating_sub(10)..].join("\n"),
        };
        Failure::Peer { name: self.name, problem, log: self.log.clone(), tail }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // Their parent may be gone when it comes to SIGKILL: remember who they are, and since when.
        let stats = all_stats();
        let members: Vec<_> = tree(&stats, self.child.id())
            .into_iter()
            .filter_map(|pid| stats.get(&pid).map(|stat| (pid, stat.started)))
            .collect();
        signal(self.child.id(), Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let now = all_stats();
        for (pid, started) in members {
            if now.get(&pid).is_some_and(|stat| stat.started == started) {
                signal(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// Clock ticks of the children that the bench has waited for: the load generator's CPU time.
pub fn waited_ticks() -> u64 {
    fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text)).map_or(0, |stat| stat.waited)
}

/// Clock ticks of a second.
pub fn ticks_a_second(tools: &Tools) -> Outcome<u64> {
    let output = Command::new(tools.path("getconf")).arg("CLK_TCK").output().doing("running getconf")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.parse().map_err(|_| Failure::Wrong(format!("getconf CLK_TCK says `{text}`")))
}

/// What /proc/PID/stat says (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: u32,
    /// utime + stime
    ticks: u64,
    /// cutime + cstime
    waited: u64,
    started: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Stat> {
        // The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Stat {
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(1)?).ok()?,
            ticks: number(11)? + number(12)?,
            waited: number(13)? + number(14)?,
            started: number(19)?,
        })
    }
}

fn all_stats() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, Stat::parse(&String::from_utf8_lossy(&text))?))
    })
    .collect()
}

fn tree(stats: &HashMap<u32, Stat>, root: u32) -> Vec<u32> {
    let mut members = vec![root];
    let mut next = 0;
    while let Some(&parent) = members.get(next) {
        members.extend(stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    members
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself meanwhile.
        let _ = kill_process(pid, signal);
    }
}

pub fn self_test() {
    let stat = "71 (a) b (c) S 70 71 71 0 -1 4194560 9 0 2 0 150 25 7 3 20 0 1 0 4242 1 2 3";
    let parsed = Stat { state: 'S', parent: 70, ticks: 175, waited: 10, started: 4242 };
    assert_eq!(Stat::parse(stat), Some(parsed));
    assert_eq!(Stat::parse("71 (cut"), None);
    let made = |parent| Stat { state: 'S', parent, ticks: 0, waited: 0, started: 0 };
    let stats = HashMap::from([(2, made(1)), (3, made(2)), (4, made(3)), (5, made(1))]);
    assert_eq!(tree(&stats, 2), [2, 3, 4]);
}
