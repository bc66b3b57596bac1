//! The table: medians over the rounds, and what they are beside ours.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::{Kind, Options, Outcome};

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Objects stored per second.
    Fill,
    /// Reads per second out of the page cache, and their CPU microseconds.
    Warm,
    WarmCpu,
    /// The same from the disk.
    Cold,
    ColdCpu,
    /// Bytes written per byte stored.
    Amplification,
    /// Bytes of resident memory per object.
    Memory,
}

impl Cell {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Fill, "fills/s"),
        (Self::Warm, "warm reads/s"),
        (Self::WarmCpu, "CPU µs"),
        (Self::Cold, "cold reads/s"),
        (Self::ColdCpu, "CPU µs"),
        (Self::Amplification, "bytes written per byte"),
        (Self::Memory, "RAM per object (B)"),
    ];

    /// Whether ours is to be compared with it as a multiple.
    fn is_rate(self) -> bool {
        matches!(self, Self::Fill | Self::Warm | Self::Cold)
    }
}

/// Every sample of a run.
pub struct Report {
    samples: Vec<(usize, Kind, Cell, f64)>,
    setting: Value,
}

pub fn per_operation(done: &Value) -> f64 {
    number(done, "operations") / number(done, "seconds")
}

pub fn cpu_per_operation(done: &Value) -> f64 {
    number(done, "cpu_seconds") * 1e6 / number(done, "operations")
}

fn number(done: &Value, name: &str) -> f64 {
    done[name].as_f64().unwrap_or(f64::NAN)
}

impl Report {
    pub fn new(options: &Options) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let setting = json!({
            "rounds": options.rounds, "seconds": options.seconds, "tasks": options.tasks, "mib": options.mib,
            "load_before": load.trim(),
        });
        Self { samples: Vec::new(), setting }
    }

    pub fn add(&mut self, size: usize, kind: Kind, cell: Cell, value: f64) {
        eprintln!("{size:>8} {:<9} {cell:?} {value:.2}", kind.as_str());
        self.samples.push((size, kind, cell, value));
    }

    /// Prints the table and writes it, with every sample, to `target/bench/store/`.
    pub fn finish(&self) -> Outcome<()> {
        let table = self.markdown();
        println!("\n{table}");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench").join("store");
        let samples: Vec<Value> = self
            .samples
            .iter()
            .map(|(size, kind, cell, value)| {
                json!({ "size": size, "store": kind.as_str(), "what": format!("{cell:?}"), "value": value })
            })
            .collect();
        let all = format!("{:#}\n", json!({ "setting": self.setting, "samples": samples }));
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text);
        std::fs::create_dir_all(&folder)
            .and_then(|()| write("store.md", &table))
            .and_then(|()| write("store.json", &all))
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        println!("written: {0}/store.md and {0}/store.json", folder.display());
        Ok(())
    }

    /// A row for each size and store; in brackets what ours is as a multiple of it.
    fn markdown(&self) -> String {
        let mut text = String::from("| size | store |");
        Cell::ALL.iter().for_each(|(_, name)| {
            let _ = write!(text, " {name} |");
        });
        text.push_str("\n|---|---|");
        text.push_str(&"--:|".repeat(Cell::ALL.len()));
        let mut rows: Vec<(usize, Kind)> = Vec::new();
        for (size, kind, ..) in &self.samples {
            if !rows.contains(&(*size, *kind)) {
                rows.push((*size, *kind));
            }
        }
        for (size, kind) in rows {
            let _ = write!(text, "\n| {size} | {} |", kind.as_str());
            for (cell, _) in Cell::ALL {
                match self.median(size, kind, cell) {
                    Some(value) => {
                        let _ = write!(text, " {}{} |", shown(value), self.beside(size, kind, cell));
                    }
                    None => text.push_str(" – |"),
                }
            }
        }
        let _ = writeln!(text, "\n\n[n]: segments' figure divided by this one. {}", self.setting);
        text
    }

    fn beside(&self, size: usize, kind: Kind, cell: Cell) -> String {
        let ours = self.median(size, Kind::Segments, cell).filter(|_| cell.is_rate() && kind != Kind::Segments);
        let theirs = self.median(size, kind, cell);
        ours.zip(theirs).map_or_else(String::new, |(ours, theirs)| format!(" [{:.2}]", ours / theirs))
    }

    fn median(&self, size: usize, kind: Kind, cell: Cell) -> Option<f64> {
        let of = |sample: &&(usize, Kind, Cell, f64)| (sample.0, sample.1, sample.2) == (size, kind, cell);
        let mut values: Vec<f64> = self.samples.iter().filter(of).map(|sample| sample.3).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(values[middle]),
            _ => Some((values[middle - 1] + values[middle]) / 2.0),
        }
    }
}

fn shown(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}
