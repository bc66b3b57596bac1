//! The disk tier beside a file per object and foyer's hybrid cache: `cargo bench --bench store`.
//!
//! What is the same for all of them: the same objects, asked for in the same order by the same number of tasks on a
//! tokio runtime of their own process; mimalloc; reads through the page cache; every read is checked. They take turns,
//! so that what else the machine does meets all of them; figures are medians over the rounds.
//!
//! What differs: ours and foyer verify checksums on every read, files have none. A file is written under another name and
//! renamed, as nginx does it. foyer has 4 MiB of memory for entries (its figures profit by what little of the set that
//! is), the others none. `raw` and `direct` are threads that read pages of our data file and look at nothing: through the page
//! cache without readahead, and past it. Cold means: written back and dropped from the page cache (`posix_fadvise`) before
//! each run, and read for the first time: each round has objects of its own. (What is read again soon our tier reads through
//! the page cache, so that it stays there.) The kernel's inodes and directory entries stay, in favour of files.
//!
//! CPU time, resident memory and bytes written (`write_bytes` of /proc/self/io: pages made dirty, metadata of the file
//! system not counted) are those of the store's process.

mod process;
mod report;
mod subject;
mod subjects;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use serde_json::json;

use process::Child;
use report::{Cell, Report};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, String>;

/// Measures the disk tier beside other stores.
#[derive(Parser, Debug)]
#[command(name = "cargo bench --bench store --", disable_version_flag = true)]
struct Options {
    /// Objects of each size at most; for `recovery`, the objects.
    #[arg(long)]
    objects: Option<u64>,
    /// MiB of each size at most; the larger the set, the less of it the disk's own caches hold.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Sizes of objects in bytes, or with k or m for KiB and MiB; up to 16m.
    #[arg(long, value_delimiter = ',', default_value = "1k,64k,1m", value_parser = size)]
    sizes: Vec<usize>,
    /// How often each store is measured in each row.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of a warm measurement; cold ones read their part of the objects once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Tasks that read or write at the same time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1024))]
    tasks: u64,
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_value = "segments,files,foyer")]
    only: Vec<What>,
    /// Where the stores are put; a folder of its own is made in it and removed at the end.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Given by `cargo bench`; without it (`cargo test --benches`) nothing is measured.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the bench starts itself with for each store; the first of them tells.
#[derive(Parser, Debug)]
struct Worker {
    #[arg(long = "as")]
    kind: Kind,
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    capacity: u64,
    #[arg(long)]
    tasks: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Segments,
    Files,
    Foyer,
    /// How long a store of a million objects of 1 to 100 KiB takes to open; alone, as it needs 10 GB.
    Recovery,
}

/// A store, or the disk itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Segments,
    Files,
    Foyer,
    Raw,
    Direct,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Segments => "segments",
            Self::Files => "files",
            Self::Foyer => "foyer",
            Self::Raw => "raw",
            Self::Direct => "direct",
        }
    }
}

fn main() -> ExitCode {
    let is_worker = std::env::args().nth(1).is_some_and(|first| first == "--as");
    let done = if is_worker { subjects::run(&Worker::parse()) } else { lead(&Options::parse()) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("store: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn lead(options: &Options) -> Outcome<()> {
    if !options.bench {
        println!("store: `cargo bench --bench store` measures");
        return Ok(());
    }
    let base = options.folder.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    std::fs::create_dir_all(&base).map_err(|error| format!("{}: {error}", base.display()))?;
    let folder = tempfile::Builder::new().prefix("store-").tempdir_in(&base).map_err(|error| error.to_string())?;
    let lab = process::Lab::new(options, folder.path())?;
    if options.only.contains(&What::Recovery) {
        return recovery(options, &lab);
    }
    let mut report = Report::new(options);
    for &size in &options.sizes {
        measure(options, &lab, size, &mut report)?;
    }
    report.finish()
}

/// All rows of one size.
fn measure(options: &Options, lab: &process::Lab, size: usize, report: &mut Report) -> Outcome<()> {
    let count = ((options.mib << 20) / size as u64).min(options.objects.unwrap_or(200_000)).max(1);
    let objects = |what: &str| json!({ "do": what, "size": size, "count": count, "tasks": options.tasks });
    let kinds: Vec<Kind> = [(What::Segments, Kind::Segments), (What::Files, Kind::Files), (What::Foyer, Kind::Foyer)]
        .into_iter()
        .filter(|(what, _)| options.only.contains(what))
        .map(|(_, kind)| kind)
        .collect();
    let mut running: Vec<Child> = Vec::new();
    for &kind in &kinds {
        let mut child = lab.start(kind, size, count)?;
        let empty = child.hello["rss"].as_f64().unwrap_or(0.0);
        let before = child.ask(&json!({ "do": "usage" }))?;
        let filled = child.ask(&objects("fill"))?;
        report.add(size, kind, Cell::Fill, report::per_operation(&filled));
        // Every byte, once: it also is in the page cache afterwards.
        let mut check = objects("read");
        check["thorough"] = true.into();
        child.ask(&check)?;
        child.ask(&json!({ "do": "close" }))?;
        let closed = child.ask(&json!({ "do": "usage" }))?;
        let written = closed["write_bytes"].as_f64().unwrap_or(0.0) - before["write_bytes"].as_f64().unwrap_or(0.0);
        report.add(size, kind, Cell::Amplification, written / (count * size as u64) as f64);
        drop(child);
        // Anew, so that what the fill left behind is not counted.
        let child = lab.start(kind, size, count)?;
        report.add(size, kind, Cell::Memory, (child.hello["rss"].as_f64().unwrap_or(0.0) - empty) / count as f64);
        running.push(child);
    }
    for _ in 0..options.rounds {
        for child in &mut running {
            let mut warm = objects("read");
            (warm["wrap"], warm["milliseconds"]) = (true.into(), (options.seconds * 1000).into());
            // Once over everything, so that it is warm whatever came before.
            child.ask(&objects("read"))?;
            let done = child.ask(&warm)?;
            report.add(size, child.kind, Cell::Warm, report::per_operation(&done));
            report.add(size, child.kind, Cell::WarmCpu, report::cpu_per_operation(&done));
        }
    }
    if kinds.contains(&Kind::Segments) {
        running.push(lab.start(Kind::Raw, size, count)?);
        // A file system without O_DIRECT has no such row.
        running.extend(lab.start(Kind::Direct, size, count).ok());
    }
    for round in 0..options.rounds {
        let mut cold = objects("read");
        (cold["part"], cold["parts"]) = (round.into(), options.rounds.into());
        for child in &mut running {
            lab.drop_cached(child)?;
            let done = child.ask(&cold)?;
            report.add(size, child.kind, Cell::Cold, report::per_operation(&done));
            report.add(size, child.kind, Cell::ColdCpu, report::cpu_per_operation(&done));
        }
    }
    drop(running);
    lab.clear(size)
}

/// Opens a large store again and again: warm, cold, and after a crash.
fn recovery(options: &Options, lab: &process::Lab) -> Outcome<()> {
    let count = options.objects.unwrap_or(1_000_000);
    let mut child = lab.start(Kind::Segments, 0, count)?;
    let empty = child.hello["rss"].as_f64().unwrap_or(0.0);
    let filled = child.ask(&json!({ "do": "fill", "size": 0, "count": count, "tasks": options.tasks }))?;
    let mean = filled["bytes"].as_f64().unwrap_or(0.0) / count as f64;
    println!("{count} objects of 1 to 100 KiB, {:.1} KiB on average", mean / 1024.0);
    // It is killed: the last segment has no footer.
    drop(child);
    println!(
        "| state | opened after (s) | all there after (s) | objects | RAM per object (B) |\n|---|--:|--:|--:|--:|"
    );
    let show = |state: &str, child: &Child| {
        let number = |name: &str| child.hello[name].as_f64().unwrap_or(f64::NAN);
        let memory = (number("rss") - empty) / number("objects");
        let (opened, recovered) = (number("open_seconds"), number("recovered_seconds"));
        println!("| {state} | {opened:.3} | {recovered:.3} | {} | {memory:.0} |", child.hello["objects"]);
    };
    let mut child = lab.start(Kind::Segments, 0, count)?;
    show("killed, warm", &child);
    child.ask(&json!({ "do": "close" }))?;
    drop(child);
    for _ in 0..options.rounds {
        let mut child = lab.start(Kind::Segments, 0, count)?;
        show("closed, warm", &child);
        child.ask(&json!({ "do": "close" }))?;
        lab.drop_cached(&child)?;
        drop(child);
        let child = lab.start(Kind::Segments, 0, count)?;
        show("closed, cold", &child);
    }
    let mut child = lab.start(Kind::Segments, 0, count)?;
    let read = json!({ "do": "read", "size": 0, "count": count, "tasks": options.tasks, "thorough": true, "milliseconds": 10_000 });
    let done = child.ask(&read)?;
    println!("{} of them read and compared byte for byte", done["operations"]);
    Ok(())
}

fn size(text: &str) -> Result<usize, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = match lower.strip_suffix('k').map(|digits| (digits, 1 << 10)) {
        Some(found) => found,
        None => lower.strip_suffix('m').map_or((lower.as_str(), 1), |digits| (digits, 1 << 20)),
    };
    let bytes = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| (8..=16 << 20).contains(bytes)).ok_or_else(|| "write 8 to 16m, as in 64k".to_owned())
}
