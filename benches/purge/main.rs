//! What a purge costs beside a store that is full: `cargo bench --bench purge`.
//!
//! A cache is opened as the server opens it, with a memory tier that takes a million objects and a disk tier, whose purge
//! log makes each purge durable. Each object has one host, a prefix and a tag that all of them share. Purges go through
//! `Cache::carry_out`, as those of the admin listener, the command and the PURGE method do; a call's time is from the
//! call to its return, synchronising the log included. Meanwhile a thread looks objects up without a pause.
//!
//! - Hard: in each round everything is stored anew; of tag, prefix and host another one is purged first and takes a million
//!   objects away, the others follow while these are still in memory. After each, objects are looked up all over the store,
//!   and the bench fails if one is found.
//! - Soft: objects stay, so that many purges can be measured beside a full store.
//!
//! It fails if the median purge of a scope takes more than 50 ms longer than that of one URL.

use bytes::Bytes;
use clap::Parser;
use hdrhistogram::Histogram;
use pingora::cache::trace::Span;
use pingora::cache::{CacheKey, CacheMeta, Storage};
use pingora::http::ResponseHeader;
use selvedge::cache::purge::{Order, Scope};
use selvedge::cache::{Cache, Settings, disk, key};
use selvedge::clock::Clock;
use selvedge::metrics::Metrics;
use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Milliseconds by which the purge of a scope may take longer than that of one URL.
const ALLOWED: f64 = 50.0;
const HOST: &str = "www.example.com";
const BODY: Bytes = Bytes::from_static(&[b'x'; 100]);
/// URLs purged one by one in each round.
const URLS: u64 = 20;
/// Look-ups after a purge that must find nothing.
const CHECKED: u64 = 10_000;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures what purges cost beside a store that is full.
#[derive(Parser, Debug)]
#[command(name = "cargo bench --bench purge --", disable_version_flag = true)]
struct Options {
    /// Objects stored.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    objects: u64,
    /// Hard purges of each scope; everything is stored anew before each round.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// Soft purges of each scope.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    soft: u64,
    /// Given by `cargo bench`; without it (`cargo test --benches`) a small store shows that the bench works.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the reading thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Nothing: the store is being filled.
    Rest,
    /// Look-ups while nobody purges.
    Quiet,
    /// Look-ups during a purge and right after it.
    Purging,
    /// It ends.
    Over,
}

/// The store under measurement.
struct Store {
    cache: &'static Cache,
    objects: u64,
}

/// The calls of one kind.
struct Row {
    name: &'static str,
    soft: bool,
    calls: Histogram<u64>,
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if !options.bench {
        options = Options { objects: 2_000, rounds: 1, soft: 5, ..options };
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("purge: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<bool> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (path, sync) = (folder.path().join("cache"), disk::SyncPolicy::Close);
    let admission = selvedge::cache::admission::Rule::All;
    let disk = disk::Settings { path, capacity: 64 << 20, segment_size: 1 << 20, sync, admission };
    let slice_size = selvedge::cache::slices::DEFAULT_SLICE;
    let settings = Settings { memory_capacity: 32 << 30, disk: Some(disk), max_object: None, slice_size, grace: 0 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let metrics: &'static Metrics = Box::leak(Box::new(Metrics::new()));
    let cache = {
        let _inside = runtime.enter();
        Cache::open(&settings, Clock::system(), metrics)?
    };
    let store = Store { cache, objects: options.objects };
    let phase = AtomicU8::new(Phase::Rest as u8);
    let (rows, looked) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| store.read(&phase));
        let rows = runtime.block_on(measure(&store, options, &phase));
        phase.store(Phase::Over as u8, Ordering::Release);
        let looked = reader.join().map_err(|_| "the reading thread broke down")??;
        Outcome::Ok((rows?, looked))
    })?;
    let stored = metrics.tier("memory").objects.get();
    runtime.block_on(cache.close());
    Ok(report(options, stored, &rows, &looked))
}

async fn measure(store: &Store, options: &Options, phase: &AtomicU8) -> Outcome<Vec<Row>> {
    let row = |name, soft| Outcome::Ok(Row { name, soft, calls: Histogram::new(3)? });
    let mut hard = ["one URL", "tag", "prefix", "host", "everything"]
        .map(|name| row(name, false))
        .into_iter()
        .collect::<Outcome<Vec<_>>>()?;
    let mut soft = ["one URL", "tag", "prefix", "host", "everything"]
        .map(|name| row(name, true))
        .into_iter()
        .collect::<Outcome<Vec<_>>>()?;
    for round in 0..options.rounds {
        phase.store(Phase::Rest as u8, Ordering::Release);
        store.fill().await?;
        phase.store(Phase::Quiet as u8, Ordering::Release);
        for at in 0..URLS {
            let n = (round * URLS + at) * 7919 % store.objects;
            store.purge(&mut hard[0], n, phase).await?;
            if store.find(n).await? {
                return Err(format!("{} was found after its purge had returned", path(n)).into());
            }
        }
        // Tag, prefix and host take turns at being first; everything comes last, for it empties the memory tier.
        hard[1..4].rotate_left(1);
        for row in &mut hard[1..] {
            store.purge(row, round, phase).await?;
            store.check_gone(row.name).await?;
        }
        eprintln!("[{}/{}] {} objects stored and purged by each scope", round + 1, options.rounds, store.objects);
    }
    phase.store(Phase::Rest as u8, Ordering::Release);
    store.fill().await?;
    phase.store(Phase::Quiet as u8, Ordering::Release);
    for round in 0..options.soft {
        for row in &mut soft {
            store.purge(row, round * 7919 % store.objects, phase).await?;
        }
    }
    hard.extend(soft);
    Ok(hard)
}

impl Store {
    /// Stores every object anew.
    async fn fill(&self) -> Outcome<()> {
        self.cache.purge_all().await?;
        let now = SystemTime::now();
        let mut head = ResponseHeader::build(200, None)?;
        head.append_header("content-length", BODY.len().to_string())?;
        head.append_header("etag", "\"1\"")?;
        head.append_header("surrogate-key", "all")?;
        let meta = CacheMeta::new(now + Duration::from_secs(86_400), now, 0, 0, head);
        for n in 0..self.objects {
            let mut key = key_of(n);
            self.cache.stamp(&mut key);
            if !self.cache.keep(&key, &meta, BODY) {
                return Err(format!("{} was not stored", path(n)).into());
            }
        }
        Ok(())
    }

    /// Fails if any of many objects is found.
    async fn check_gone(&self, by: &str) -> Outcome<()> {
        let checked = CHECKED.min(self.objects);
        for n in (0..checked).map(|at| at * (self.objects / checked)) {
            if self.find(n).await? {
                return Err(format!("{} was found after the purge of {by} had returned", path(n)).into());
            }
        }
        Ok(())
    }

    /// Whether an object is found, stale or not.
    async fn find(&self, n: u64) -> Outcome<bool> {
        Ok(self.cache.lookup(&key_of(n), &Span::inactive().handle()).await?.is_some())
    }

    async fn purge(&self, row: &mut Row, n: u64, phase: &AtomicU8) -> Outcome<()> {
        let scope = match row.name {
            "one URL" => Scope::Url(format!("https://{HOST}{}", path(n))),
            "tag" => Scope::Tag("all".to_owned()),
            "prefix" => Scope::Prefix(format!("{HOST}/shop")),
            "host" => Scope::Host(HOST.to_owned()),
            _ => Scope::All,
        };
        let order = Order { scopes: vec![scope], soft: row.soft };
        phase.store(Phase::Purging as u8, Ordering::Release);
        let begun = Instant::now();
        self.cache.carry_out(&order, |url| key_of_url(url).ok_or_else(|| "no such URL".to_owned())).await?;
        row.calls.record(nanoseconds(begun.elapsed()))?;
        // What a purge leaves to look-ups shows right after it.
        tokio::time::sleep(Duration::from_millis(2)).await;
        phase.store(Phase::Quiet as u8, Ordering::Release);
        Ok(())
    }

    /// Looks objects up until it is over: times beside no purge, and beside one.
    fn read(&self, phase: &AtomicU8) -> Outcome<[Histogram<u64>; 2]> {
        let mut times = [Histogram::new(3)?, Histogram::new(3)?];
        for n in (0..).map(|at: u64| at.wrapping_mul(1_000_003) % self.objects) {
            let now = phase.load(Ordering::Acquire);
            if now == Phase::Over as u8 {
                break;
            }
            if now == Phase::Rest as u8 {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let begun = Instant::now();
            futures::executor::block_on(self.find(n))?;
            times[usize::from(now == Phase::Purging as u8)].record(nanoseconds(begun.elapsed()))?;
        }
        Ok(times)
    }
}

fn path(n: u64) -> String {
    format!("/shop/{}/{n}", n % 1000)
}

fn key_of(n: u64) -> CacheKey {
    key::target("https", HOST, 443, path(n).as_bytes())
}

fn key_of_url(url: &str) -> Option<CacheKey> {
    let path = url.strip_prefix("https://")?.strip_prefix(HOST)?;
    Some(key::target("https", HOST, 443, path.as_bytes()))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Prints the table; whether no scope takes longer than it may.
fn report(options: &Options, stored: i64, rows: &[Row], looked: &[Histogram<u64>; 2]) -> bool {
    let milliseconds = |calls: &Histogram<u64>, quantile: f64| calls.value_at_quantile(quantile) as f64 / 1e6;
    println!("{stored} objects in the memory tier; a purge is in the disk tier's log when its call returns\n");
    println!(
        "| purge of | calls | p50 ms | p99 ms | worst ms | beside one URL, p50 | |\n|---|--:|--:|--:|--:|--:|--:|"
    );
    let mut most = f64::MIN;
    for row in rows {
        let one = rows.iter().find(|other| other.soft == row.soft).map_or(0.0, |one| milliseconds(&one.calls, 0.5));
        let [half, nearly, worst] = [0.5, 0.99, 1.0].map(|quantile| milliseconds(&row.calls, quantile));
        most = most.max(half - one);
        let kind = if row.soft { "soft" } else { "hard" };
        println!(
            "| {}, {kind} | {} | {half:.3} | {nearly:.3} | {worst:.3} | {:+.3} ms | {:.2}x |",
            row.name,
            row.calls.len(),
            half - one,
            half / one.max(f64::MIN_POSITIVE),
        );
    }
    println!("\n| look-ups | number | p50 µs | p99 µs | p99.9 µs | worst µs |\n|---|--:|--:|--:|--:|--:|");
    for (name, times) in ["beside no purge", "during a purge and 2 ms after"].iter().zip(looked) {
        let [half, nearly, rarely, worst] = [0.5, 0.99, 0.999, 1.0].map(|q| milliseconds(times, q) * 1e3);
        println!("| {name} | {} | {half:.1} | {nearly:.1} | {rarely:.1} | {worst:.1} |", times.len());
    }
    let holds = most <= ALLOWED;
    let objects = options.objects;
    println!(
        "\nThe median purge of {objects} objects by a scope takes at most {most:.3} ms longer than that of one URL \
         ({ALLOWED} ms are allowed): {}",
        if holds { "passed" } else { "FAILED" }
    );
    holds
}
