//! selvedge beside nginx (proxy_cache) and varnish, answering the same files from their caches: `cargo bench --bench peers`.
//!
//! What is the same for all of them:
//! - One core for the server, another for the load generator and for the origin server, which is idle while anything is measured (its
//!   access log has to show no new request, or the run fails). One worker each: nginx `worker_processes 1`, varnish
//!   `thread_pools=1`, selvedge `threads = 1`.
//! - The same files, from the same origin server, with an hour of freshness, and 64 requests in flight: over HTTP/1.1 64 keep-alive
//!   connections, over HTTP/2 16 connections with 4 streams each, so that latencies can be compared across protocols.
//! - TLS 1.3 with TLS_AES_256_GCM_SHA384, X25519 and one P-256 certificate: both generators offer nothing else.
//! - No access log, unless `--access-logs` turns on everybody's (varnish's is varnishncsa, whose CPU time is then varnish's).
//! - The peers take turns (A B C A B C), so that what else the machine does meets all of them; figures are medians over the rounds.
//!
//! With `--disk`, the set of each size is many times selvedge's memory tier, so that it answers from its disk tier, as nginx does
//! from its files: both out of the page cache. The objects of a size are all alike (the origin server has one file of it), and
//! asked for with the same probability each.
//!
//! What differs: nginx keeps its cache in files, which are all in the page cache here, with `open_file_cache` on and `tcp_nopush` off
//! (on, it stalls at 100 KiB over loopback); varnish keeps it in memory, and writes its shared-memory log as it ships; it has no TLS,
//! so it takes part in plain HTTP/1.1 only. Nobody's limit of requests per connection comes into play.
//!
//! CPU time is that of all the server's processes over a run, from /proc, divided by the requests that wrk or h2load completed. The
//! kernel books most of the work for loopback's TCP to the sender, so it holds the network's cost, not only the program's.

mod client;
mod load;
mod peers;
mod process;
mod report;

use clap::{Parser, ValueEnum};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Measures selvedge beside nginx and varnish, one core each for server and load generator.
#[derive(Parser, Debug)]
#[command(name = "cargo bench --bench peers --", disable_version_flag = true)]
struct Options {
    /// How often each server is measured in each row of the table.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// The servers to measure.
    #[arg(long, value_delimiter = ',', default_value = "selvedge,nginx,varnish")]
    only: Vec<Kind>,
    /// Sizes of the files: bytes, or with k or m for KiB and MiB.
    #[arg(long, value_delimiter = ',', default_value = "1k,10k,100k,1m")]
    sizes: Vec<Size>,
    /// The protocols between generator and server.
    #[arg(long, value_delimiter = ',', default_value = "h1,https,h2")]
    protocols: Vec<Protocol>,
    /// From the disk: so many MiB of objects of each size, asked for over HTTP/1.1 in no order; selvedge gets a disk tier and
    /// 32 MiB of memory.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    disk: Option<u64>,
    /// Have every server write its access log while it is measured.
    #[arg(long)]
    access_logs: bool,
    /// The CPU that the servers run on, one at a time.
    #[arg(long, default_value_t = 0)]
    server_cpu: u32,
    /// The CPU of the load generator and of the origin server.
    #[arg(long, default_value_t = 1)]
    generator_cpu: u32,
    /// Put the table into README.md, between its two `peers` marks.
    #[arg(long)]
    update_readme: bool,
    /// Check the readers of wrk's, h2load's and /proc's output on samples, and measure nothing.
    #[arg(long)]
    self_test: bool,
    /// Given by `cargo bench`; without it (`cargo test --benches`) only the self-test runs.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A server under measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Selvedge,
    Nginx,
    Varnish,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Selvedge => "selvedge",
            Kind::Nginx => "nginx",
            Kind::Varnish => "varnish",
        }
    }

    fn speaks(self, protocol: Protocol) -> bool {
        self != Kind::Varnish || protocol == Protocol::H1
    }
}

/// What is spoken between generator and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// HTTP/1.1 over TCP.
    H1,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 over TLS.
    H2,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Protocol::H1 => "h1",
            Protocol::Https => "https",
            Protocol::H2 => "h2",
        }
    }
}

/// The size of a file in bytes; 1 byte to 64 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size(u64);

impl Size {
    /// Where the origin server has the file of this size.
    fn path(self) -> String {
        format!("/{}.bin", self.0)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit) = match text.to_ascii_lowercase() {
            lower if lower.ends_with('k') => (lower.trim_end_matches('k').to_owned(), 1 << 10),
            lower if lower.ends_with('m') => (lower.trim_end_matches('m').to_owned(), 1 << 20),
            lower => (lower, 1),
        };
        let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
        bytes.filter(|b| (1..=64 << 20).contains(b)).map(Size).ok_or_else(|| "write 1 to 64m, as in 10k".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n % (1 << 20) == 0 => write!(f, "{} MiB", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{n} B"),
        }
    }
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(
        "not installed: {programs}; on Debian: apt-get install nginx-light varnish wrk nghttp2-client openssl util-linux"
    )]
    Missing { programs: String },
    #[error("{name}: {problem}\nits log is {}, and ends:\n{tail}", log.display())]
    Peer { name: &'static str, problem: String, log: PathBuf, tail: String },
    #[error("{doing}: {source}")]
    Io { doing: String, source: std::io::Error },
    #[error("{0}")]
    Wrong(String),
}

type Outcome<T> = Result<T, Failure>;

/// Names what was being done when an I/O error came up.
trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Outcome<T>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl Into<String>) -> Outcome<T> {
        self.map_err(|source| Failure::Io { doing: what.into(), source })
    }
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.disk.is_some() {
        // Varnish keeps what it has in memory.
        options.only.retain(|kind| *kind != Kind::Varnish);
        options.protocols = vec![Protocol::H1];
    }
    if options.self_test || !options.bench {
        return self_test();
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("peers: {failure}");
            ExitCode::from(if matches!(failure, Failure::Missing { .. }) { 2 } else { 1 })
        }
    }
}

fn run(options: &Options) -> Outcome<()> {
    let tools = process::Tools::find(&options.only)?;
    let readme = options.update_readme.then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    // Now rather than after minutes of measuring.
    readme.as_deref().map_or(Ok(()), report::find_marks)?;
    warn_if_busy();
    let setting = report::Setting::read(options, &tools)?;
    let mut lab = peers::Lab::set_up(options, &tools)?;
    let measured = lab.start(options).and_then(|()| warm(&lab, options)).and_then(|()| measure(&lab, options));
    let rows = match measured {
        Ok(rows) => rows,
        Err(failure) => {
            eprintln!("peers: the working directory is kept: {}", lab.keep().display());
            return Err(failure);
        }
    };
    drop(lab);
    let report = report::Report::new(setting, &rows);
    println!("\n{}", report.markdown());
    let folder = output_folder();
    report.write(&folder)?;
    println!("written: {0}/peers.json and {0}/peers.md", folder.display());
    readme.map_or(Ok(()), |readme| report.put_into(&readme))
}

/// Asks every server for everything until it answers without the origin server, and checks each answer.
fn warm(lab: &peers::Lab, options: &Options) -> Outcome<()> {
    const TRIES: usize = 20;
    const IN_A_ROW: usize = 3;
    for peer in lab.peers() {
        for (protocol, size) in cells(options).filter(|(protocol, _)| peer.kind.speaks(*protocol)) {
            let mut hits = 0;
            for _ in 0..TRIES {
                let before = lab.origin_requests()?;
                let answer = client::fetch(lab, peer, protocol, &lab.path_of(size));
                answer.and_then(|body| lab.check_body(size, &body)).map_err(|problem| peer.failure(problem))?;
                // The origin server logs a request just after the client has its answer.
                std::thread::sleep(Duration::from_millis(20));
                hits = if lab.origin_requests()? == before { hits + 1 } else { 0 };
                if hits == IN_A_ROW {
                    break;
                }
            }
            if hits < IN_A_ROW {
                let what = format!("{} over {} is not answered from the cache", size, protocol.as_str());
                return Err(peer.failure(what));
            }
            if let Some(count) = lab.objects_of(size) {
                load::fetch_all(lab, peer, size, count)?;
            }
        }
    }
    Ok(())
}

/// All rows of the table: every round asks the servers in turn.
fn measure(lab: &peers::Lab, options: &Options) -> Outcome<Vec<report::Row>> {
    let mut rows = Vec::new();
    let turns = cells(options).map(|(protocol, _)| lab.peers().iter().filter(|p| p.kind.speaks(protocol)).count());
    let total = turns.sum::<usize>() * options.rounds as usize;
    eprintln!("{total} measurements of {} s each", options.seconds);
    let (start, mut done) = (Instant::now(), 0);
    for (protocol, size) in cells(options) {
        let first = rows.len();
        let taking_part = || lab.peers().iter().filter(|peer| peer.kind.speaks(protocol));
        rows.extend(taking_part().map(|peer| report::Row::new(peer.kind, protocol, size)));
        for _ in 0..options.rounds {
            for (peer, row) in taking_part().zip(&mut rows[first..]) {
                let sample = load::measure(lab, peer, protocol, size, options.seconds)?;
                done += 1;
                eprintln!(
                    "[{done:>3}/{total} {:>4} s] {:>5} {:>8} {:<8} {:>9.0} req/s {:>8.1} CPU µs",
                    start.elapsed().as_secs(),
                    protocol.as_str(),
                    size.to_string(),
                    peer.kind.as_str(),
                    sample.rate,
                    sample.cpu_us
                );
                row.samples.push(sample);
            }
        }
    }
    Ok(rows)
}

fn cells(options: &Options) -> impl Iterator<Item = (Protocol, Size)> + '_ {
    options.protocols.iter().flat_map(|&protocol| options.sizes.iter().map(move |&size| (protocol, size)))
}

fn warn_if_busy() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minute = load.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    if minute.is_some_and(|minute| minute > 0.5) {
        eprintln!("peers: the machine is not idle (load {load:.4}): what follows is as noisy");
    }
}

fn output_folder() -> PathBuf {
    // Cargo gives a bench target `tmp` inside the target folder, wherever that is.
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench").join("peers")
}

fn self_test() -> ExitCode {
    load::self_test();
    process::self_test();
    report::self_test();
    println!("peers: the self-test passed; `cargo bench --bench peers` measures");
    ExitCode::SUCCESS
}
