//! Hit ratios of the tiers on a trace of requests, without HTTP: `cargo bench --bench trace -- --help`.
//!
//! selvedge's row comes from `selvedge::cache::model`: its memory tier before its disk tier, with the code that decides in
//! both. Every other row is one cache of the memory's and the disk's bytes together, which is more than two tiers with the
//! same content twice could hold. All rows charge an object the same bytes for metadata and framing. Hits are counted from
//! the given part of the trace on, of content; writes are what goes to the disk meanwhile, eviction's own included. LRU,
//! S3-FIFO and TinyLFU write what they miss and can hold; the offline bound writes only what will be asked for again. The
//! best LFU is the one of several half-lives that has most byte hits in the end: it needs no knowledge of the future but
//! that, and memory without bound.

mod input;
mod policies;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use input::{Trace, Zipf};
use policies::{Belady, Lfu, Lru, Policy, S3Fifo, Tiers, TinyLfu};
use selvedge::cache::admission::Rule;

/// Replays request traces through selvedge's tiers, LRU, S3-FIFO, TinyLFU and an offline bound.
#[derive(Parser, Debug)]
#[command(
    name = "cargo bench --bench trace --",
    disable_version_flag = true,
    after_help = "A trace is text: `time key size` on each line, separated by spaces, the size in bytes; the time is not looked at. \
                  Files that end in .xz are read through `xz -dc`, and `-` is standard input. Without --trace the bench makes \
                  its own requests: Zipf's law over a catalogue of which a part is replaced as time goes by, the same for the same seed."
)]
struct Options {
    /// A trace to replay; repeatable.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    trace: Vec<PathBuf>,
    /// Sizes of the disk, in percent of the bytes of all different objects in the trace.
    #[arg(long, value_delimiter = ',', default_value = "5,10,20")]
    sizes: Vec<f64>,
    /// Size of the memory tier, in percent of the disk's.
    #[arg(long, default_value_t = 10.0)]
    memory: f64,
    /// Segments of the disk. By default 512, of 1 to 16 MiB each; at least 32 where the disk is smaller than that.
    #[arg(long, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    segments: Option<u32>,
    /// The part of the trace, in percent, that fills the caches and is not counted.
    #[arg(long, default_value_t = 50.0)]
    warmup: f64,
    /// Read no more requests than this of each trace.
    #[arg(long)]
    limit: Option<usize>,
    /// Requests to generate.
    #[arg(long, default_value_t = 1_000_000)]
    requests: usize,
    /// Objects in the generated catalogue at a time.
    #[arg(long, default_value_t = 200_000)]
    objects: u64,
    /// Zipf's exponent.
    #[arg(long, default_value_t = 0.9)]
    alpha: f64,
    /// Percent of the catalogue that the generated requests replace by new objects from first to last.
    #[arg(long, default_value_t = 100.0)]
    churn: f64,
    /// Seed of the generated requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Check the policies against each other on a small trace, and print nothing.
    #[arg(long)]
    self_test: bool,
    /// Given by `cargo bench`; without it (`cargo test --benches`) only the self-test runs.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one policy did on the counted part of a trace.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    requests: u64,
    hits: u64,
    bytes: u64,
    hit_bytes: u64,
    written: u64,
}

impl Outcome {
    fn object_ratio(&self) -> f64 {
        100.0 * self.hits as f64 / self.requests.max(1) as f64
    }

    fn byte_ratio(&self) -> f64 {
        100.0 * self.hit_bytes as f64 / self.bytes.max(1) as f64
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.self_test || !options.bench {
        policies::self_test();
        input::self_test();
        return ExitCode::SUCCESS;
    }
    let generated = || Zipf::new(options.objects, options.alpha, options.churn, options.seed).trace(options.requests);
    let traces = match options.trace.as_slice() {
        [] => vec![Ok(("generated".to_owned(), generated()))],
        files => files.iter().map(|file| Ok((file.display().to_string(), Trace::read(file, options.limit)?))).collect(),
    };
    for trace in traces {
        let printed: Result<(), String> = trace.map(|(name, trace)| {
            for size in &options.sizes {
                print!("{}", table(&name, &trace, *size, &options));
            }
        });
        if let Err(error) = printed {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn replay(policy: &mut dyn Policy, trace: &Trace, warmup: f64) -> Outcome {
    let first = (trace.requests.len() as f64 * warmup / 100.0) as usize;
    let (mut outcome, mut before) = (Outcome::default(), 0);
    for (n, request) in trace.requests.iter().enumerate() {
        if n == first {
            before = policy.written();
        }
        let hit = policy.request(n, request.object, request.size);
        if n >= first {
            outcome.requests += 1;
            outcome.bytes += request.size;
            outcome.hits += u64::from(hit == request.size);
            outcome.hit_bytes += hit;
        }
    }
    Outcome { written: policy.written() - before, ..outcome }
}

/// Bytes of a segment.
fn segment(disk: u64, segments: Option<u32>) -> u32 {
    let wanted = match segments {
        Some(segments) => (disk / u64::from(segments)).min(1 << 30),
        None => (disk / 512).clamp(1 << 20, 16 << 20).min(disk / 32),
    };
    u32::try_from(wanted.max(4096) / 64 * 64).unwrap_or(1 << 30)
}

fn table(name: &str, trace: &Trace, percent: f64, options: &Options) -> String {
    let disk = (trace.footprint as f64 * percent / 100.0) as u64;
    let memory = (disk as f64 * options.memory / 100.0) as u64;
    let all = disk + memory;
    let tiers = |rule| Tiers::new(memory, disk, segment(disk, options.segments), rule);
    let mut policies: Vec<(&str, Box<dyn Policy>)> = vec![
        ("LRU", Box::new(Lru::new(all))),
        ("moka TinyLFU", Box::new(TinyLfu::new(all))),
        ("S3-FIFO", Box::new(S3Fifo::new(all))),
        ("offline bound (Belady)", Box::new(Belady::new(all, trace))),
        ("selvedge, all admitted", Box::new(tiers(Rule::All))),
        ("selvedge", Box::new(tiers(Rule::SecondUse))),
    ];
    let mut outcomes: Vec<(&str, Outcome)> =
        policies.iter_mut().map(|(name, policy)| (*name, replay(&mut **policy, trace, options.warmup))).collect();
    let half_lives = [None, Some(3.0), Some(1.0), Some(0.3), Some(0.1)];
    let lfu = half_lives.map(|half_life| {
        let half_life = half_life.map(|objects| objects * trace.objects as f64);
        replay(&mut Lfu::new(all, half_life), trace, options.warmup)
    });
    let best = lfu.into_iter().max_by_key(|outcome| outcome.hit_bytes).unwrap_or_default();
    outcomes.insert(3, ("best exact LFU", best));
    let (lru, bound) = (outcomes[0].1, outcomes[4].1);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{name}: {} requests, {} objects, {:.2} GiB; disk {percent} % of that, memory {} % of the disk; first {} % not counted",
        trace.requests.len(),
        trace.objects,
        trace.footprint as f64 / (1u64 << 30) as f64,
        options.memory,
        options.warmup,
    );
    let _ = writeln!(
        out,
        "| {:<23}| object hits | byte hits | against LRU | of the way to the bound | written, GiB | of LRU's |\n|---|---|---|---|---|---|---|",
        "policy"
    );
    for (name, outcome) in outcomes {
        let gain = outcome.byte_ratio() - lru.byte_ratio();
        let way = 100.0 * gain / (bound.byte_ratio() - lru.byte_ratio()).max(0.001);
        let _ = writeln!(
            out,
            "| {name:<23}| {:.1} % | {:.1} % | {gain:+.1} | {way:.0} % | {:.2} | {:.2} |",
            outcome.object_ratio(),
            outcome.byte_ratio(),
            outcome.written as f64 / (1u64 << 30) as f64,
            outcome.written as f64 / lru.written.max(1) as f64,
        );
    }
    out.push('\n');
    out
}
