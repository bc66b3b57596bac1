//! What it costs to build the routes anew: `cargo bench --bench routes`.
//!
//! A real edge asks this process for containers, as it would ask `selvedge discover`, over a unix socket. Each container is a
//! host of its own with a server of its own. In each rebuild one container has another address, as after its replacement:
//! translation, settings, origins, table and swap are the whole way, and only what changed is made anew. The time is the
//! edge's own (`selvedge_routes_rebuild_seconds`): from the snapshot in its hands to the routes in force.
//!
//! Meanwhile connections ask for a stored response at a fixed rate, each at its appointed time, so that a pause shows in
//! full. Spans with and without rebuilds take turns in one run; the ratio of their percentiles is what rebuilding costs the
//! hit path.

use clap::Parser;
use hdrhistogram::Histogram;
use selvedge::discovery::remote::{Offer, offer};
use selvedge::discovery::{Container, Feed, Network, Place, Snapshot};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};

/// Milliseconds that a rebuild may take on average.
const ALLOWED: f64 = 20.0;
/// How many, how long in all, and how many of them took at most so many milliseconds. Asked for when nothing is measured: it
/// costs the edge more than a rebuild.
const REBUILDS: [&str; 5] = [
    "selvedge_routes_rebuild_seconds_count",
    "selvedge_routes_rebuild_seconds_sum",
    "selvedge_routes_rebuild_seconds_bucket{le=\"0.01\"}",
    "selvedge_routes_rebuild_seconds_bucket{le=\"0.02\"}",
    "selvedge_routes_rebuild_seconds_bucket{le=\"0.05\"}",
];
/// Connections that ask for the stored response.
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures rebuilds of the routes, and what they cost the hit path.
#[derive(Parser, Debug)]
#[command(name = "cargo bench --bench routes --", disable_version_flag = true)]
struct Options {
    /// Containers, each a host with a route.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(2..=60_000))]
    routes: u32,
    /// Spans without rebuilds, and as many with them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long a span takes, in seconds.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Rebuilds in a second.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rebuilds: u32,
    /// Requests in a second.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Given by `cargo bench`; without it (`cargo test --benches`) a few routes show that the bench works.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if !options.bench {
        options = Options { routes: 50, rounds: 1, seconds: 1, rebuilds: 5, rate: 200, ..options };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&options))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) if options.bench => ExitCode::FAILURE,
        // A debug build is not what is measured.
        Ok(false) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("routes: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The edge's process, ended when dropped.
struct Edge {
    child: Child,
    http: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn run(options: &Options) -> Outcome<bool> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let origin = origin().await?;
    let socket = folder.path().join("discover.sock");
    let (feed, reports) = Feed::new();
    feed.snapshot(snapshot(options.routes, 0));
    let offered = offer(Offer::Unix(socket.clone(), None)).await?;
    tokio::spawn(offered.serve(reports));
    let edge = start(folder.path(), &socket, origin).await?;
    let known = samples(edge.admin, &["selvedge_discovery_containers"]).await?[0];
    if known < f64::from(options.routes) {
        return Err(format!("the edge knows {known} containers").into());
    }
    if get(&mut TcpStream::connect(edge.http).await?, "h1.bench").await? != 502 {
        return Err("a container's route does not lead to its server, which there is not".into());
    }
    let before = samples(edge.admin, &REBUILDS).await?;
    let mut rows = [Histogram::<u64>::new(3)?, Histogram::new(3)?];
    let mut version = 1;
    for round in 0..options.rounds * 2 {
        let rebuilding = round % 2 == 1;
        let span = Duration::from_secs(options.seconds.into());
        // On a thread of its own: making and handing over a snapshot takes this process long enough to show.
        let (http, rate) = (edge.http, options.rate);
        let loading = tokio::task::spawn_blocking(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(load(http, rate, span))
        });
        if rebuilding {
            let until = Instant::now() + span;
            while Instant::now() < until {
                let next = Instant::now() + Duration::from_secs(1) / options.rebuilds;
                feed.snapshot(snapshot(options.routes, version));
                version += 1;
                sleep_until(next).await;
            }
        }
        rows[usize::from(rebuilding)].add(loading.await??)?;
        eprintln!("[{}/{}] {}", round + 1, options.rounds * 2, if rebuilding { "with rebuilds" } else { "without" });
    }
    // The last one may be under way.
    sleep(Duration::from_secs(1)).await;
    let after = samples(edge.admin, &REBUILDS).await?;
    let rebuilds = std::array::from_fn(|n| after[n] - before[n]);
    if rebuilds[0] == 0.0 {
        return Err("the edge does not take up new containers".into());
    }
    Ok(report(options, rebuilds, &rows))
}

/// Containers with a host each, of which one has an address of its own in each version.
fn snapshot(routes: u32, version: u32) -> Snapshot {
    let address = |n: u32| {
        // Of the loopback, where nobody answers at port 9.
        let moved = if n == version % routes { version / routes % 250 + 1 } else { 0 };
        Ipv4Addr::new(127, 1 + moved as u8, (n >> 8) as u8, n as u8)
    };
    let container = |n: u32| Container {
        id: format!("{n:064x}"),
        name: format!("c{n}"),
        created: "2026-01-01T00:00:00.000000000Z".to_owned(),
        env: [("VIRTUAL_HOST".to_owned(), format!("h{n}.bench")), ("VIRTUAL_PORT".to_owned(), "9".to_owned())].into(),
        networks: vec![Network { id: "n".into(), name: "app".into(), ipv4: Some(address(n)), ..Network::default() }],
        ..Container::default()
    };
    Snapshot { containers: (0..routes).map(container).collect(), place: Place::Host, ..Snapshot::default() }
}

/// Answers every request with a response to be stored.
async fn origin() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let body = "x".repeat(1024);
                while stream.read(&mut head).await.is_ok_and(|n| n > 0) {
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nCache-Control: max-age=86400\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(address)
}

async fn start(folder: &Path, socket: &Path, origin: SocketAddr) -> Outcome<Edge> {
    let config = folder.join("edge.toml");
    std::fs::write(
        &config,
        format!(
            "[runtime]\nthreads = 1\n[listen]\nhttp = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[cache.memory]\ncapacity = \"64 MiB\"\n\
             [access_log]\nformat = \"off\"\n[discovery.remote]\nendpoint = \"unix:{}\"\n[origins.app.http]\nservers = [\"{origin}\"]\n\
             [[sites]]\nhosts = [\"hit.bench\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"app\"\n",
            socket.display()
        ),
    )?;
    let log = folder.join("edge.log");
    let output = std::fs::File::create(&log)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
    command.arg("serve").arg("--config").arg(&config).stdin(Stdio::null());
    let child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
    let none = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut edge = Edge { child, http: none, admin: none };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(&log)?;
        if let Some(line) = text.lines().find(|line| line.contains("serving")) {
            let field = |name: &str| -> Outcome<SocketAddr> {
                let value = line.split(&format!(" {name}=")).nth(1).and_then(|rest| rest.split(' ').next());
                Ok(value.unwrap_or_default().trim_matches('"').parse()?)
            };
            (edge.http, edge.admin) = (field("http")?, field("admin")?);
            return Ok(edge);
        }
        if edge.child.try_wait()?.is_some() || Instant::now() > deadline {
            return Err(format!("the edge does not serve:\n{text}").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The values of these metrics.
async fn samples(admin: SocketAddr, names: &[&str]) -> Outcome<Vec<f64>> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let value = |name: &&str| -> Outcome<f64> {
        let found = text.lines().find_map(|line| line.strip_prefix(*name)?.strip_prefix(' '));
        Ok(found.ok_or_else(|| format!("there is no {name}"))?.trim().parse()?)
    };
    names.iter().map(value).collect()
}

/// Asks and reads the whole answer; its status.
async fn get(stream: &mut TcpStream, host: &str) -> Outcome<u16> {
    stream.write_all(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut read = Vec::with_capacity(2048);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err("the edge closed a connection".into());
        }
        let Some(end) = read.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.unwrap_or("0").trim().parse()?;
        if read.len() >= end + 4 + length {
            let status = head.split(' ').nth(1).unwrap_or_default();
            return Ok(status.parse()?);
        }
    }
}

/// Asks for what is stored at a fixed rate; latencies in nanoseconds, each from its appointed time.
async fn load(edge: SocketAddr, rate: u32, span: Duration) -> Outcome<Histogram<u64>> {
    let begin = Instant::now();
    let each = Duration::from_secs(1) * CONNECTIONS as u32 / rate;
    let tasks = (0..CONNECTIONS).map(|connection| {
        tokio::spawn(async move {
            let mut hits = Histogram::<u64>::new(3)?;
            let mut stream = TcpStream::connect(edge).await?;
            stream.set_nodelay(true)?;
            let mut appointed = begin + each * connection as u32 / CONNECTIONS as u32;
            while appointed < begin + span {
                sleep_until(appointed).await;
                // The timer wakes by milliseconds: what it is late by is not the edge's.
                let late = Instant::now().saturating_duration_since(appointed).min(Duration::from_millis(2));
                let status = get(&mut stream, "hit.bench").await?;
                if status != 200 {
                    return Err(format!("a hit was answered {status}").into());
                }
                hits.record(u64::try_from((appointed.elapsed().saturating_sub(late)).as_nanos()).unwrap_or(u64::MAX))?;
                appointed += each;
            }
            Outcome::Ok(hits)
        })
    });
    let mut all = Histogram::new(3)?;
    for task in Vec::from_iter(tasks) {
        all.add(task.await??)?;
    }
    Ok(all)
}

/// Prints the tables; whether a rebuild takes no longer than is allowed.
fn report(options: &Options, rebuilds: [f64; 5], rows: &[Histogram<u64>; 2]) -> bool {
    let at = |times: &Histogram<u64>, quantile: f64| times.value_at_quantile(quantile) as f64 / 1e6;
    let [count, seconds, within @ ..] = rebuilds;
    let mean = seconds / count * 1e3;
    let [ten, twenty, fifty] = within.map(|n| format!("{:.0} %", n / count * 100.0));
    println!(
        "| {} routes from a snapshot to in force | number | mean ms | ≤ 10 ms | ≤ 20 ms | ≤ 50 ms |",
        options.routes
    );
    println!("|---|--:|--:|--:|--:|--:|\n| one server changed | {count} | {mean:.2} | {ten} | {twenty} | {fifty} |\n");
    println!("| hits at {} a second | number | p50 µs | p90 µs | p99 µs | p99.9 µs | worst µs |", options.rate);
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let quantiles = [0.5, 0.9, 0.99, 0.999, 1.0];
    let names = ["without rebuilds".to_owned(), format!("with {} rebuilds a second", options.rebuilds)];
    for (name, row) in names.iter().zip(rows) {
        let cells = quantiles.map(|quantile| format!("{:.0}", at(row, quantile) * 1e3)).join(" | ");
        println!("| {name} | {} | {cells} |", row.len());
    }
    let ratios = quantiles.map(|quantile| format!("{:.2}x", at(&rows[1], quantile) / at(&rows[0], quantile)));
    println!("| ratio | | {} |", ratios.join(" | "));
    let holds = mean <= ALLOWED;
    let verdict = if holds { "passed" } else { "FAILED" };
    println!("\nA rebuild takes {mean:.2} ms on average ({ALLOWED} ms are allowed): {verdict}");
    holds
}
