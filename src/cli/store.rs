//! `selvedge store`: looks into the disk tier's directory, beside a running server or without one.

mod objects;
mod stat;

use super::{Exit, say};
use crate::cache::disk::OpenError;
use crate::cache::disk::inspect::{Inspector, Place, Problem, Verified};
use crate::cache::purge::Scope;
use crate::config::{Problems, load_disk};
use clap::{Args, Subcommand, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

/// What to do with the store.
#[derive(Debug, Args)]
pub(super) struct Store {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sum up what is stored
    ///
    /// Format and sizes, segments, objects, purges, and what the objects are by size and media type. Reads the head of
    /// every object.
    #[command(after_help = "Example:\n  selvedge store stat --config /etc/selvedge/edge.toml")]
    Stat(Common),

    /// Read everything and check every checksum
    ///
    /// Names each damaged place, what is wrong there, and what that means. A server may use the store meanwhile: what it
    /// changes is read again, and left out and counted if it keeps changing.
    #[command(after_help = "\
Example:
  selvedge store verify --dir /var/cache/selvedge || mail -s damage ops@example.com

Exit status: 0 sound; 1 damaged; others as `selvedge store --help` tells.")]
    Verify(Common),

    /// List the objects, the oldest first
    ///
    /// One line for each: time of storing or validation, status, bytes, seconds of freshness left, variant, URL, tags.
    /// What is purged, replaced or incomplete is not listed. --prefix, --host and --tag list what a purge by them would
    /// take; with several, what any of them would take.
    #[command(after_help = "\
Examples:
  selvedge store list --config edge.toml --prefix https://www.example.com/blog
  selvedge store list --dir /var/cache/selvedge --tag news --json | jq -r .url")]
    List(objects::List),

    /// Write a stored response's content to standard output, its head to standard error
    ///
    /// Every byte is verified before it is written. If the URL alone does not lead to it, since rules or the kind of
    /// origin make the key another, all objects are looked through.
    #[command(after_help = "\
Examples:
  selvedge store dump --config edge.toml https://www.example.com/style.css > style.css
  selvedge store dump --dir /var/cache/selvedge --variants https://www.example.com/")]
    Dump(objects::Dump),
}

/// Which store, and how to tell of it.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    source: Source,
    /// Write JSON: an object, or for list and problems one on each line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The server's configuration file, for the path in [cache.disk]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The disk tier's directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Config(Problems),
    #[error("{} has no disk tier; add [cache.disk], or name the directory with --dir", .0.display())]
    NoDisk(PathBuf),
    #[error("`{}` cannot be listed: {reason}", .scope.name())]
    Scope { scope: Scope, reason: String },
    #[error("{0}")]
    Choice(String),
    #[error("{0}")]
    NotStored(String),
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("the store cannot be read: {0}")]
    Read(io::Error),
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

impl Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::NoDisk(_) | Self::Scope { .. } | Self::Choice(_) => Exit::Usage,
            Self::NotStored(_) => Exit::Failed,
            Self::Open(_) | Self::Read(_) => Exit::Unavailable,
            // Whoever reads has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(_) => Exit::Internal,
        }
    }
}

/// A store that is open, and what its configuration says of it.
struct Opened {
    inspector: Inspector,
    path: PathBuf,
    /// Bytes it may take, where the configuration is known.
    capacity: Option<u64>,
}

/// Does it.
pub(super) fn run(args: &Store, now: SystemTime, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let done = match &args.command {
        Command::Stat(common) => stat::run(common, now, out),
        Command::Verify(common) => verify(common, out),
        Command::List(list) => objects::list(list, now, out, err),
        Command::Dump(dump) => objects::dump(dump, now, out, err),
    };
    done.unwrap_or_else(|error| {
        let exit = error.exit();
        if exit != Exit::Ok {
            say(err, &format_args!("error: {error}\n"));
        }
        exit
    })
}

impl Source {
    fn open(&self) -> Result<Opened, Error> {
        let (path, capacity) = match (&self.dir, &self.config) {
            (Some(dir), _) => (dir.clone(), None),
            (None, Some(file)) => {
                let disk = load_disk(file).map_err(Error::Config)?.ok_or_else(|| Error::NoDisk(file.clone()))?;
                (disk.path, Some(disk.capacity))
            }
            (None, None) => return Err(Error::Choice("name the store with --config or --dir".to_owned())),
        };
        Ok(Opened { inspector: Inspector::open(&path)?, path, capacity })
    }
}

/// A bar over the bytes of the data file, drawn on a terminal alone.
fn bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.with_message(what)
}

/// Moves a bar.
fn moving(bar: &ProgressBar) -> impl FnMut(u64, u64) {
    |passed, total| {
        bar.set_length(total);
        bar.set_position(passed);
    }
}

fn verify(args: &Common, out: &mut dyn Write) -> Result<Exit, Error> {
    let store = args.source.open()?;
    let bar = bar("verifying");
    let mut written = Ok(());
    let mut report = |problem: Problem| {
        let line = if args.json { problem_json(&problem).to_string() } else { problem_text(&problem) };
        let write = || writeln!(out, "{line}");
        if written.is_ok() {
            written = bar.suspend(write);
        }
    };
    let verified = store.inspector.verify(&mut moving(&bar), &mut report).map_err(Error::Read)?;
    bar.finish_and_clear();
    let Verified { segments, changed, records, bytes, purges, problems } = verified;
    let summary = if args.json {
        json!({ "segments": segments, "changed_segments": changed, "records": records, "bytes": bytes, "purges": purges,
            "problems": problems })
        .to_string()
    } else {
        let left_out = if changed > 0 {
            format!("; {changed} segments changed meanwhile and are left out")
        } else {
            String::new()
        };
        format!(
            "{records} records in {segments} segments, {bytes} bytes, {purges} purges: {problems} problems{left_out}"
        )
    };
    // The verdict stands even if nobody reads the list of problems to its end.
    let _ = written.and_then(|()| writeln!(out, "{summary}"));
    Ok(if problems == 0 { Exit::Ok } else { Exit::Failed })
}

fn problem_text(problem: &Problem) -> String {
    let place = match problem.place {
        Place::Superblock(at) => format!("superblock, offset {at}"),
        Place::PurgeLog(at) => format!("purge.log, offset {at}"),
        Place::Segment(segment, at) => format!("segment {segment}, offset {at}"),
    };
    format!("{place}: {}: {}", problem.damage.as_str(), problem.damage.remedy())
}

fn problem_json(problem: &Problem) -> serde_json::Value {
    let (file, segment, offset) = match problem.place {
        Place::Superblock(at) => ("superblock", None, at),
        Place::PurgeLog(at) => ("purge.log", None, at),
        Place::Segment(segment, at) => ("segments", Some(segment), u64::from(at)),
    };
    let (problem, remedy) = (problem.damage.as_str(), problem.damage.remedy());
    json!({ "file": file, "segment": segment, "offset": offset, "problem": problem, "remedy": remedy })
}

#[cfg(test)]
mod tests;
