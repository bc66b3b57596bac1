//! `selvedge warm`: fetches URLs through a running edge, so that its cache has them before clients ask.

mod fetch;
mod sitemap;

use super::purge::absolute_url;
use super::{Exit, say, trust};
use crate::config::{Problems, load_listen};
use clap::{Args, ValueHint};
use fetch::{Fetched, Fetcher};
use futures::StreamExt;
use http::{HeaderName, HeaderValue};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Sitemaps that indexes may lead to, and URLs that all of them may name: what they say is a stranger's, perhaps.
const MAX_SITEMAPS: usize = 10_000;
const MAX_URLS: usize = 5_000_000;

/// What to fetch, and where the edge is.
#[derive(Debug, Args)]
pub(super) struct Warm {
    /// URLs to fetch, with scheme and host
    #[arg(value_name = "URL", required_unless_present_any = ["sitemap", "list"], value_parser = absolute_url)]
    urls: Vec<String>,
    /// A sitemap, or an index of sitemaps, gzip or not, whose URLs are fetched; it is fetched through the edge too
    #[arg(long, value_name = "URL", value_parser = absolute_url)]
    sitemap: Vec<String>,
    /// A file with a URL on each line, `-` for standard input; empty lines and those that begin with # are left out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    list: Option<PathBuf>,
    /// The server's configuration file, for the addresses of its listeners
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "edge")]
    config: Option<PathBuf>,
    /// The listener to send to, HOST:PORT, in place of those of --config: TLS for https URLs, else cleartext
    #[arg(long, value_name = "ADDR")]
    edge: Option<String>,
    /// How many to fetch at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// A request field, to warm the variant that it selects, as in 'Accept-Encoding: gzip'
    #[arg(short = 'H', long, value_name = "FIELD", value_parser = field)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// How long one response may take
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Certificates to trust besides the system's, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "insecure")]
    cacert: Option<PathBuf>,
    /// Take any certificate: for an edge with a self-signed one
    #[arg(long)]
    insecure: bool,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Config(Problems),
    #[error("{}: {reason}", .0.display(), reason = .1)]
    List(PathBuf, io::Error),
    #[error("{}, line {line}: {reason}", .0.display(), line = .1, reason = .2)]
    Line(PathBuf, usize, String),
    #[error("{0}")]
    Trust(#[from] trust::TrustError),
    #[error("cannot start a runtime: {0}")]
    Runtime(io::Error),
}

/// Where URLs of each scheme are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listeners {
    http: Option<String>,
    https: Option<String>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Summary {
    statuses: BTreeMap<u16, usize>,
    outcomes: BTreeMap<&'static str, usize>,
    bytes: u64,
    failures: Vec<(String, String)>,
    total: usize,
}

/// Fetches everything and prints a summary; failed if any was.
pub(super) fn run(args: &Warm, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let begun = Instant::now();
    match fetch_all(args) {
        Ok(summary) => {
            for (url, reason) in &summary.failures {
                say(err, &format_args!("failed  {url}: {reason}\n"));
            }
            print(&summary, begun.elapsed(), out);
            if summary.failures.is_empty() { Exit::Ok } else { Exit::Failed }
        }
        Err(error) => {
            say(err, &format_args!("error: {error}\n"));
            if matches!(error, Error::Runtime(_)) { Exit::Internal } else { Exit::Usage }
        }
    }
}

fn print(summary: &Summary, took: Duration, out: &mut dyn Write) {
    let listed = |counts: Vec<String>| if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    let fetched = summary.total - summary.failures.len();
    let seconds = took.as_secs_f64();
    let bytes = HumanBytes(summary.bytes);
    say(out, &format_args!("{fetched} of {} fetched, {bytes} in {seconds:.1} s\n", summary.total));
    let statuses = summary.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
    say(out, &format_args!("status  {}\n", listed(statuses)));
    let outcomes = summary.outcomes.iter().map(|(outcome, count)| format!("{outcome}: {count}")).collect();
    say(out, &format_args!("cache   {}\n", listed(outcomes)));
}

fn fetch_all(args: &Warm) -> Result<Summary, Error> {
    let listeners = listeners(args)?;
    let tls = trust::client(args.cacert.as_deref(), args.insecure, b"http/1.1")?;
    let mut urls = args.urls.clone();
    if let Some(path) = &args.list {
        urls.extend(read_list(path)?);
    }
    let fetcher = Fetcher::new(listeners, tls, args.header.clone(), args.timeout);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    Ok(runtime.block_on(warm(&fetcher, urls, &args.sitemap, usize::from(args.concurrency))))
}

async fn warm(fetcher: &Fetcher, mut urls: Vec<String>, sitemaps: &[String], concurrency: usize) -> Summary {
    let mut summary = Summary::default();
    urls.extend(follow_sitemaps(fetcher, sitemaps, &mut summary).await);
    let mut seen = HashSet::new();
    urls.retain(|url| seen.insert(url.clone()));
    summary.total += urls.len();
    // Drawn on a terminal alone.
    let bar = ProgressBar::new(urls.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta}") {
        bar.set_style(style);
    }
    let fetches = urls.into_iter().map(|url| fetch_one(fetcher, url));
    let mut fetches = futures::stream::iter(fetches).buffer_unordered(concurrency);
    while let Some((url, fetched)) = fetches.next().await {
        summary.add(url, fetched);
        bar.set_message(HumanBytes(summary.bytes).to_string());
        bar.inc(1);
    }
    bar.finish_and_clear();
    summary
}

async fn fetch_one(fetcher: &Fetcher, url: String) -> (String, Result<Fetched, String>) {
    let fetched = fetcher.fetch(&url, false).await;
    (url, fetched)
}

/// The URLs of sitemaps and of those that their indexes name. One that cannot be read counts as a failure.
async fn follow_sitemaps(fetcher: &Fetcher, sitemaps: &[String], summary: &mut Summary) -> Vec<String> {
    let mut urls = Vec::new();
    let mut queue: VecDeque<String> = sitemaps.iter().cloned().collect();
    let mut seen: HashSet<String> = queue.iter().cloned().collect();
    while let Some(sitemap) = queue.pop_front() {
        let read = match fetcher.fetch(&sitemap, true).await {
            Ok(fetched) if fetched.status == 200 => sitemap::read(&fetched.body).map_err(str::to_owned),
            Ok(fetched) => Err(format!("answered {}", fetched.status)),
            Err(reason) => Err(reason),
        };
        let (found, is_index) = match read {
            Ok(sitemap::Sitemap { locations, is_index }) => (locations, is_index),
            Err(reason) => {
                summary.fail(sitemap, format!("not read as a sitemap: {reason}"));
                continue;
            }
        };
        let most = if is_index { MAX_SITEMAPS } else { MAX_URLS };
        for url in found {
            match absolute_url(&url) {
                Err(reason) => summary.fail(url, reason),
                Ok(url) if is_index && seen.contains(&url) => {}
                Ok(_) if if is_index { seen.len() } else { urls.len() } >= most => {
                    let what = if is_index { "sitemaps" } else { "URLs" };
                    summary.fail(sitemap, format!("more than {most} {what} in all; the rest is left out"));
                    break;
                }
                Ok(url) if is_index => {
                    seen.insert(url.clone());
                    queue.push_back(url);
                }
                Ok(url) => urls.push(url),
            }
        }
    }
    urls
}

impl Summary {
    fn fail(&mut self, url: String, reason: String) {
        self.total += 1;
        self.failures.push((url, reason));
    }

    fn add(&mut self, url: String, fetched: Result<Fetched, String>) {
        match fetched {
            Ok(Fetched { status, outcome, bytes, body: _ }) => {
                *self.statuses.entry(status).or_default() += 1;
                *self.outcomes.entry(outcome).or_default() += 1;
                self.bytes += bytes;
                if status >= 400 {
                    self.failures.push((url, format!("answered {status}")));
                }
            }
            Err(reason) => self.failures.push((url, reason)),
        }
    }
}

fn listeners(args: &Warm) -> Result<Listeners, Error> {
    if let Some(edge) = &args.edge {
        return Ok(Listeners { http: Some(edge.clone()), https: Some(edge.clone()) });
    }
    let Some(path) = &args.config else { return Ok(Listeners { http: None, https: None }) };
    let settings = load_listen(path).map_err(Error::Config)?;
    let reached = |addresses: &[SocketAddr]| addresses.first().map(|address| reachable(*address).to_string());
    Ok(Listeners { http: reached(&settings.http), https: reached(&settings.https) })
}

/// A listener on every address is reached over loopback.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn read_list(path: &PathBuf) -> Result<Vec<String>, Error> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(path).map(|read| text = read)
    };
    read.map_err(|error| Error::List(path.clone(), error))?;
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(at, line)| absolute_url(line).map_err(|reason| Error::Line(path.clone(), at + 1, reason))).collect()
}

/// A request field as it is given on the command line.
pub(super) fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as in 'Accept-Encoding: gzip'")?;
    let name: HeaderName = name.trim().parse().map_err(|_| "not the name of a field")?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| "not the value of a field")?;
    if [http::header::HOST, http::header::CONNECTION].contains(&name) {
        return Err("this field comes from the URL and the connection".to_owned());
    }
    Ok((name, value))
}

/// A fuzz target.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_sitemap(data: &[u8]) {
    if let Ok(sitemap) = sitemap::read(data) {
        let trimmed =
            |location: &String| location.trim() == location.as_str() || location.contains(char::is_whitespace);
        assert!(sitemap.locations.iter().all(trimmed) && sitemap.locations.len() <= data.len() / 5);
    }
}

#[cfg(test)]
mod tests;
