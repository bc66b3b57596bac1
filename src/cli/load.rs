//! `selvedge load`: the arguments of a load test, and what its outcome means for the exit status.

use super::{Exit, say, trust};
use crate::load::{
    Kind, Model, Place, Plan, Point, Popularity, Protocol, ReplayError, Report, Sizes, Template, Threshold, Workload,
    html, is_private, read_log, run as load,
};
use crate::types::ByteSize;
use clap::{Args, ValueEnum, ValueHint};
use http::{HeaderName, HeaderValue};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use rustls::pki_types::ServerName;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to ask for, how fast and how long.
#[derive(Debug, Args)]
pub(super) struct Load {
    /// URLs; {n} stands for an object's number, {size} for its size in bytes, {key} for its name in a trace
    #[arg(value_name = "URL", required = true)]
    urls: Vec<Template>,
    /// The node to send to, HOST:PORT, in place of the URL's host; several share the connections
    #[arg(long, value_name = "ADDR")]
    target: Vec<String>,
    /// Load addresses that are not private as well: they are yours, or their owner has agreed
    #[arg(long)]
    i_own_this_host: bool,
    /// How long to go on [default: 10s, unless --requests or a replay ends it]
    #[arg(short, long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// How many requests to make
    #[arg(short = 'n', long, value_name = "N")]
    requests: Option<u64>,
    /// Connections to each URL's host
    #[arg(short, long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Which HTTP to speak: 2 with prior knowledge or by ALPN
    #[arg(long, value_enum, default_value_t = Version::Http1)]
    protocol: Version,
    /// Requests at a time on each connection of HTTP/2
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    streams: u32,
    /// Send so many requests a second, however long answers take; times count from when a request was due
    #[arg(short, long, value_name = "PER-SECOND", value_parser = rate, conflicts_with = "think")]
    rate: Option<f64>,
    /// How long a connection waits between an answer and its next request
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    think: Option<Duration>,
    /// Let the load grow over this time
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    ramp: Duration,
    /// Leave the first requests out of the figures
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// How many objects {n} stands for
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    objects: u64,
    /// Which objects are asked for: uniform, sequential, or zipf:S
    #[arg(long, value_name = "LAW", default_value = "uniform")]
    popularity: Popularity,
    /// Which part of the objects is replaced by new ones in a minute
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = percent)]
    shift: f64,
    /// How large objects are, for {size}: 10KiB, 1KiB:50,1MiB:10, or lognormal:MEDIAN,SIGMA
    #[arg(long, default_value = "10KiB")]
    sizes: Sizes,
    /// Make the requests of an access log (common, combined or JSON) through the first URL's host; `-`: standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["popularity", "objects", "shift", "sizes"])]
    replay: Option<PathBuf>,
    /// Make the requests of a trace (`time key size` a line) of the first URL
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["replay", "popularity", "objects", "shift", "sizes"])]
    trace: Option<PathBuf>,
    /// Replay at the log's own times, so many times as fast, once
    #[arg(long, value_name = "FACTOR", value_parser = rate, conflicts_with_all = ["rate", "think"])]
    speed: Option<f64>,
    /// Which part of the requests asks for a range
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = percent)]
    ranges: f64,
    /// How long a range is
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    range_length: ByteSize,
    /// Which part of the requests is conditional on the ETag that was last seen
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = percent)]
    conditional: f64,
    /// A request field
    #[arg(short = 'H', long, value_name = "FIELD", value_parser = super::warm::field)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// How long a response may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Certificates to trust besides the system's, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "insecure")]
    cacert: Option<PathBuf>,
    /// Take any certificate
    #[arg(long)]
    insecure: bool,
    /// What has to be reached, else the exit status is 1: p50 p90 p95 p99 p99.9 p99.99 max mean errors hits rate, as in
    /// 'p99<50ms', 'errors<0.1%', 'hits>90%', 'rate>=1000'
    #[arg(long, value_name = "THRESHOLD")]
    expect: Vec<Threshold>,
    /// Write the figures as JSON, `-` for standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    html: Option<PathBuf>,
    /// The same number makes the same choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Version {
    #[value(name = "1.1")]
    Http1,
    #[value(name = "2")]
    Http2,
}

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Workload(String),
    #[error("{0}")]
    Replay(#[from] ReplayError),
    #[error("{0}: {1}")]
    Address(String, String),
    #[error("{0} is {1}, which is no private address: with --i-own-this-host it is loaded all the same")]
    NotPrivate(String, SocketAddr),
    #[error("{0}")]
    Trust(#[from] trust::TrustError),
    #[error("cannot start a runtime: {0}")]
    Runtime(io::Error),
    #[error("{}: {reason}", .0.display(), reason = .1)]
    Output(PathBuf, io::Error),
}

/// Loads, and prints the report. Failed if a threshold is missed; unavailable if nothing was answered.
pub(super) fn run(args: &Load, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let report = match loaded(args, err) {
        Ok(report) => report,
        Err(error) => {
            say(err, &format_args!("error: {error}\n"));
            return if matches!(error, Error::Runtime(_)) { Exit::Internal } else { Exit::Usage };
        }
    };
    let checked: Vec<_> = args.expect.iter().map(|wanted| (wanted.to_string(), wanted.check(&report).err())).collect();
    if args.json.as_deref() != Some(Path::new("-")) {
        say(out, &report.text());
    }
    if let Err(error) = write(args, &report, &checked, out) {
        say(err, &format_args!("error: {error}\n"));
        return Exit::Internal;
    }
    let missed: Vec<_> = checked.iter().filter_map(|(_, missed)| missed.as_deref()).collect();
    missed.iter().for_each(|missed| say(err, &format_args!("missed: {missed}\n")));
    match (report.answered(), missed.is_empty()) {
        (0, _) => {
            say(err, &"error: no request was answered\n");
            Exit::Unavailable
        }
        (_, true) => Exit::Ok,
        (_, false) => Exit::Failed,
    }
}

fn write(args: &Load, report: &Report, checked: &[(String, Option<String>)], out: &mut dyn Write) -> Result<(), Error> {
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", report.json());
        if path == Path::new("-") {
            say(out, &text);
        } else {
            std::fs::write(path, text).map_err(|error| Error::Output(path.clone(), error))?;
        }
    }
    if let Some(path) = &args.html {
        let command: Vec<_> = std::env::args().collect();
        let page = html(report, &command.join(" "), checked);
        std::fs::write(path, page).map_err(|error| Error::Output(path.clone(), error))?;
    }
    Ok(())
}

fn loaded(args: &Load, err: &mut dyn Write) -> Result<Report, Error> {
    let places = args.urls.iter().map(|url| places(url, args)).collect::<Result<_, _>>()?;
    let protocol = if args.protocol == Version::Http2 { Protocol::Http2 } else { Protocol::Http1 };
    let alpn: &[u8] = if protocol == Protocol::Http2 { b"h2" } else { b"http/1.1" };
    let tls = trust::client(args.cacert.as_deref(), args.insecure, alpn)?;
    let workload = workload(args, err)?;
    let model = match args.rate {
        _ if workload.is_timed() => Model::Replay,
        Some(rate) => Model::Open { rate },
        None => Model::Closed { think: args.think.unwrap_or_default() },
    };
    let endless = args.requests.is_none() && !workload.is_timed();
    let duration = args.duration.or(endless.then_some(Duration::from_secs(10))).map(|d| d + args.warm_up);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cores, usize::from);
    let plan = Plan {
        workload,
        places,
        tls,
        protocol,
        model,
        connections: args.connections as usize,
        streams: if protocol == Protocol::Http2 { args.streams as usize } else { 1 },
        duration,
        requests: args.requests,
        ramp: args.ramp,
        warm_up: args.warm_up,
        timeout: args.timeout,
        fields: args.header.clone(),
        ranges: args.ranges,
        range_length: args.range_length.0,
        conditional: args.conditional,
        shift: args.shift,
        seed: args.seed,
        threads,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    Ok(runtime.block_on(watched(plan, duration)))
}

/// Loads with a line that shows how it goes, on a terminal, until it is done or interrupted.
async fn watched(plan: Plan, duration: Option<Duration>) -> Report {
    let bar = match duration {
        Some(duration) => ProgressBar::new(duration.as_millis() as u64),
        None => ProgressBar::new_spinner(),
    };
    let template = if duration.is_some() { "{wide_bar} {msg} {eta}" } else { "{spinner} {msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let shown = |point: &Point, elapsed: Duration| {
        let hits = if point.requests == 0 { 0.0 } else { point.hits as f64 / point.requests as f64 * 100.0 };
        let bytes = HumanBytes(point.bytes);
        bar.set_position(elapsed.as_millis() as u64);
        bar.set_message(format!(
            "{}/s  {bytes}/s  p50 {} µs  p99 {} µs  {hits:.1} % hits  {} errors",
            point.requests, point.p50_us, point.p99_us, point.errors
        ));
    };
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let report = load(plan, shown, interrupted).await;
    bar.finish_and_clear();
    report
}

fn workload(args: &Load, err: &mut dyn Write) -> Result<Workload, Error> {
    let file = args.replay.as_ref().map(|path| (path, Kind::AccessLog));
    let Some((path, kind)) = file.or(args.trace.as_ref().map(|path| (path, Kind::Trace))) else {
        if args.speed.is_some() {
            return Err(Error::Workload("--speed goes with --replay or --trace".to_owned()));
        }
        let (urls, sizes) = (args.urls.clone(), args.sizes.clone());
        return Workload::catalogue(urls, args.objects, args.popularity, sizes, args.seed).map_err(Error::Workload);
    };
    let log = read_log(path, kind)?;
    if log.left_out > 0 {
        say(err, &format_args!("{} requests with other methods than GET and HEAD are left out\n", log.left_out));
    }
    // The first of at least one.
    let url = args.urls.first().cloned().ok_or_else(|| Error::Workload("no URL".to_owned()))?;
    Ok(Workload::replay(url, log, args.speed))
}

/// Where a URL's connections go.
fn places(url: &Template, args: &Load) -> Result<Vec<Place>, Error> {
    let own =
        [format!("{}:{}", if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() }, url.port)];
    let nodes = if args.target.is_empty() { &own[..] } else { &args.target[..] };
    let tls = url.tls.then(|| ServerName::try_from(url.host.clone())).transpose();
    let tls = tls.map_err(|error| Error::Address(url.host.clone(), error.to_string()))?;
    let place = |node: &String| {
        let failed = |reason: String| Error::Address(node.clone(), reason);
        let mut addresses = node.to_socket_addrs().map_err(|error| failed(format!("{error}; write HOST:PORT")))?;
        let address = addresses.next().ok_or_else(|| failed("it has no address".to_owned()))?;
        if args.i_own_this_host || is_private(address.ip()) {
            Ok(Place { address, tls: tls.clone() })
        } else {
            Err(Error::NotPrivate(node.clone(), address))
        }
    };
    nodes.iter().map(place).collect()
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0 && *rate <= 1e8);
    rate.ok_or_else(|| "write a number above 0".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let share = text.strip_suffix('%').and_then(|text| text.trim().parse::<f64>().ok());
    let share = share.filter(|share| (0.0..=100.0).contains(share));
    share.map(|share| share / 100.0).ok_or_else(|| "write a share from 0% to 100%".to_owned())
}
