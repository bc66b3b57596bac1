//! From a container's start to the first request that it answers: `cargo bench --bench discovery`.
//!
//! The edge watches a real Docker Engine. Containers are started one after the other, each with a host of its own, while a
//! thread asks the edge for that host without a pause. A container's time is from the moment that the engine put on its
//! start event to the first 200; its process has to begin to listen within that, too. It fails if the median is 200 ms
//! or more.

use clap::Parser;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds that the median may take.
const ALLOWED: f64 = 200.0;
/// A container that is not reached within this is lost.
const PATIENCE: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Measures how long after its start a container gets requests.
#[derive(Parser, Debug)]
#[command(name = "cargo bench --bench discovery --", disable_version_flag = true)]
struct Options {
    /// Containers measured.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    containers: u32,
    /// Given by `cargo bench`; without it (`cargo test --benches`) two containers show that the bench works.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The edge, and what it has of the engine. Dropping it ends and removes all of it.
struct Scene {
    run: String,
    edge: Option<Child>,
    dir: PathBuf,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(edge) = &mut self.edge {
            let _ = edge.kill();
            let _ = edge.wait();
        }
        let filter = format!("label=selvedge-bench={}", self.run);
        if let Ok(ids) = docker(&["ps", "-aq", "--filter", &filter]) {
            let ids: Vec<&str> = ids.split_whitespace().collect();
            if !ids.is_empty() {
                let _ = docker(&[&["rm", "-f"], ids.as_slice()].concat());
            }
        }
        let _ = docker(&["image", "rm", "-f", &self.run]);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("discovery: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<bool> {
    let count = if options.bench { options.containers } else { options.containers.min(2) };
    let run = format!("selvedge-bench-{}", std::process::id());
    let dir = std::env::temp_dir().join(&run);
    std::fs::create_dir_all(&dir)?;
    let mut scene = Scene { run, edge: None, dir };
    image(&scene)?;
    let address = edge(&mut scene)?;
    let mut times = Vec::new();
    for n in 0..count {
        times.push(one(&scene, address, n)?);
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!("{count} containers, from the start event to the first request answered, milliseconds:");
    println!("  median {median:.1}   least {:.1}   most {:.1}", times[0], times[times.len() - 1]);
    println!("  {} at most {ALLOWED:.0}", if median < ALLOWED { "as wanted," } else { "NOT as wanted:" });
    Ok(median < ALLOWED)
}

/// Milliseconds of one container.
fn one(scene: &Scene, address: SocketAddr, n: u32) -> Outcome<f64> {
    let (name, host) = (format!("{}-{n}", scene.run), format!("h{n}.bench"));
    let (label, variable) = (format!("selvedge-bench={}", scene.run), format!("VIRTUAL_HOST={host}"));
    let begun = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().to_string();
    let asking = std::thread::spawn(move || first_answer(address, &host));
    docker(&["run", "-d", "--name", &name, "--label", &label, "-e", &variable, &scene.run])?;
    let answered = asking.join().map_err(|_| "the thread that asks has ended")?;
    let answered = answered.ok_or_else(|| format!("{name} got no request within {} s", PATIENCE.as_secs()))?;
    let until = (SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 1).to_string();
    let container = format!("container={name}");
    let mut events = vec!["events", "--since", &begun, "--until", &until, "--format", "{{.TimeNano}}"];
    events.extend(["--filter", &container, "--filter", "event=start"]);
    let started: u128 = docker(&events)?.trim().parse()?;
    let answered = answered.duration_since(UNIX_EPOCH)?.as_nanos();
    docker(&["rm", "-f", &name])?;
    Ok((answered as f64 - started as f64) / 1e6)
}

/// When the host was answered with 200.
fn first_answer(address: SocketAddr, host: &str) -> Option<SystemTime> {
    let until = Instant::now() + PATIENCE;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    while Instant::now() < until {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(address)
            && stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
        {
            return Some(SystemTime::now());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// The server of the tests, as an image of one file.
fn image(scene: &Scene) -> Outcome<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/docker/app.c");
    let app = scene.dir.join("app");
    succeed(Command::new("cc").args(["-O1", "-static", "-o"]).arg(&app).arg(source))?;
    let tar = scene.dir.join("app.tar");
    succeed(Command::new("tar").arg("-C").arg(&scene.dir).arg("-cf").arg(&tar).arg("app"))?;
    let changes = ["--change", "CMD [\"/app\"]", "--change", "EXPOSE 80"];
    succeed(Command::new("docker").arg("import").args(changes).arg(&tar).arg(&scene.run))?;
    Ok(())
}

fn edge(scene: &mut Scene) -> Outcome<SocketAddr> {
    let file = scene.dir.join("selvedge.toml");
    let label = format!("label=selvedge-bench={}", scene.run);
    std::fs::write(
        &file,
        format!("[listen]\nhttp = [\"127.0.0.1:0\"]\n[discovery.docker]\nfilters = [\"{label}\"]\n"),
    )?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
    command.args(["serve", "--config"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stderr = child.stderr.take().ok_or("no standard error")?;
    scene.edge = Some(child);
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    let serving = lines.find_map(|line| line.split_once(" http=").map(|(_, rest)| rest.to_owned()));
    // Whatever it says later has to be read, or it would wait.
    std::thread::spawn(move || lines.count());
    let text = serving.ok_or("the edge does not serve")?;
    Ok(text.split_whitespace().next().unwrap_or_default().trim_matches('"').parse()?)
}

fn docker(args: &[&str]) -> Outcome<String> {
    succeed(Command::new("docker").args(args))
}

fn succeed(command: &mut Command) -> Outcome<String> {
    let out = command.output()?;
    if !out.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
