//! Medians, ratios, and the table as text, Markdown and JSON.

use crate::load::{H2_CONNECTIONS, H2_STREAMS, IN_FLIGHT, Sample};
use crate::process::Tools;
use crate::{Doing, Failure, Kind, Options, Outcome, Protocol, Size};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

const BEGIN: &str = "<!-- peers:begin -->";
const END: &str = "<!-- peers:end -->";
/// Below this share of its core a server was not what limited the rate.
const SATURATED: f64 = 0.9;

/// All measurements of one server for one size over one protocol.
pub struct Row {
    kind: Kind,
    protocol: Protocol,
    size: Size,
    pub samples: Vec<Sample>,
}

impl Row {
    pub fn new(kind: Kind, protocol: Protocol, size: Size) -> Row {
        Row { kind, protocol, size, samples: Vec::new() }
    }

    fn over_rounds(&self, value: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(value).collect())
    }
}

/// Fails unless a Markdown file has the two marks that [`Report::put_into`] needs.
pub fn find_marks(file: &Path) -> Outcome<()> {
    replaced(file, "").map(|_| ())
}

/// What the figures were measured on and with.
pub struct Setting {
    machine: String,
    versions: Vec<String>,
    rounds: u32,
    seconds: u64,
    access_logs: bool,
}

impl Setting {
    pub fn read(options: &Options, tools: &Tools) -> Outcome<Setting> {
        let mut versions = Vec::new();
        if options.only.contains(&Kind::Selvedge) {
            versions.push(format!("selvedge {}", env!("CARGO_PKG_VERSION")));
        }
        for (name, argument) in
            [("nginx", "-v"), ("varnishd", "-V"), ("wrk", "-v"), ("h2load", "--version"), ("openssl", "version")]
        {
            if name != "varnishd" || options.only.contains(&Kind::Varnish) {
                versions.push(version(tools, name, argument)?);
            }
        }
        let (rounds, seconds, access_logs) = (options.rounds, options.seconds, options.access_logs);
        Ok(Setting { machine: machine(), versions, rounds, seconds, access_logs })
    }
}

/// The finished table.
pub struct Report {
    setting: Setting,
    lines: Vec<Line>,
}

/// One row of the table: medians over the rounds, each with the least and the greatest.
struct Line {
    kind: Kind,
    protocol: Protocol,
    size: Size,
    rate: Spread,
    cpu_us: Spread,
    p50_us: Spread,
    p99_us: Spread,
    server_busy: Spread,
    generator_busy: Spread,
    rate_to_nginx: Option<f64>,
    rate_to_varnish: Option<f64>,
    cpu_to_nginx: Option<f64>,
    samples: Vec<Sample>,
}

impl Report {
    pub fn new(setting: Setting, rows: &[Row]) -> Report {
        let lines = rows.iter().map(|row| Line::new(row, rows)).collect();
        Report { setting, lines }
    }

    /// The table, with a line each on how to read it, the machine and the versions.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| protocol | size | server | req/s (min–max) | CPU µs per request | p50 | p99 | req/s ÷ nginx | req/s ÷ varnish | CPU ÷ nginx |\n\
             |---|---|---|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for line in &self.lines {
            text.push_str(&line.markdown());
        }
        let Setting { machine, versions, rounds, seconds, access_logs } = &self.setting;
        let logs = if *access_logs { "on" } else { "off" };
        text.push_str(&format!(
            "\nMedians over {rounds} × {seconds} s, everything answered from cache; one core for the server, one for the load \
             generator, {IN_FLIGHT} requests in flight (h2: {H2_CONNECTIONS} connections with {H2_STREAMS} streams each), TLS 1.3 \
             with AES-256-GCM, access logs {logs}. –: not measured (varnish has no TLS)."
        ));
        if self.lines.iter().any(|line| line.idle()) {
            text.push_str(" †: the server used less than 90 % of its core; the generator, or other work on the machine, set the pace: compare CPU.");
        }
        text.push_str(&format!("\n\nMachine: {machine}. Versions: {}.\n", versions.join(", ")));
        text
    }

    /// Writes `peers.json`, with every sample, and `peers.md`.
    pub fn write(&self, folder: &Path) -> Outcome<()> {
        fs::create_dir_all(folder).doing(format!("making {}", folder.display()))?;
        let json = format!("{:#}\n", self.json());
        fs::write(folder.join("peers.json"), json).doing("writing peers.json")?;
        fs::write(folder.join("peers.md"), self.markdown()).doing("writing peers.md")
    }

    /// Replaces what a Markdown file has between the two marks.
    pub fn put_into(&self, file: &Path) -> Outcome<()> {
        let text = replaced(file, &self.markdown())?;
        fs::write(file, text).doing(format!("writing {}", file.display()))
    }

    fn json(&self) -> Value {
        let Setting { machine, versions, rounds, seconds, access_logs } = &self.setting;
        json!({
            "machine": machine,
            "versions": versions,
            "rounds": rounds,
            "seconds": seconds,
            "access_logs": access_logs,
            "rows": self.lines.iter().map(Line::json).collect::<Vec<_>>(),
        })
    }
}

impl Line {
    fn new(row: &Row, rows: &[Row]) -> Line {
        let rate = |row: &Row| row.over_rounds(|s| s.rate).median;
        let cpu = |row: &Row| row.over_rounds(|s| s.cpu_us).median;
        let other = |kind| rows.iter().find(|r| r.kind == kind && r.protocol == row.protocol && r.size == row.size);
        let (nginx, varnish) = (other(Kind::Nginx), other(Kind::Varnish));
        Line {
            kind: row.kind,
            protocol: row.protocol,
            size: row.size,
            rate: row.over_rounds(|s| s.rate),
            cpu_us: row.over_rounds(|s| s.cpu_us),
            p50_us: row.over_rounds(|s| s.p50_us as f64),
            p99_us: row.over_rounds(|s| s.p99_us as f64),
            server_busy: row.over_rounds(|s| s.server_busy),
            generator_busy: row.over_rounds(|s| s.generator_busy),
            rate_to_nginx: nginx.map(|nginx| rate(row) / rate(nginx)),
            rate_to_varnish: varnish.map(|varnish| rate(row) / rate(varnish)),
            cpu_to_nginx: nginx.map(|nginx| cpu(row) / cpu(nginx)),
            samples: row.samples.clone(),
        }
    }

    fn idle(&self) -> bool {
        self.server_busy.median < SATURATED
    }

    fn markdown(&self) -> String {
        let rate = &self.rate;
        format!(
            "| {} | {} | {} | {}{} ({}–{}) | {} | {} | {} | {} | {} | {} |\n",
            self.protocol.as_str(),
            self.size,
            self.kind.as_str(),
            thousands(rate.median),
            if self.idle() { "†" } else { "" },
            thousands(rate.min),
            thousands(rate.max),
            three_digits(self.cpu_us.median),
            duration(self.p50_us.median),
            duration(self.p99_us.median),
            ratio(self.rate_to_nginx),
            ratio(self.rate_to_varnish),
            ratio(self.cpu_to_nginx),
        )
    }

    fn json(&self) -> Value {
        json!({
            "protocol": self.protocol.as_str(),
            "size": self.size.0,
            "server": self.kind.as_str(),
            "requests_per_second": self.rate.json(),
            "cpu_us_per_request": self.cpu_us.json(),
            "p50_us": self.p50_us.json(),
            "p99_us": self.p99_us.json(),
            "server_busy": self.server_busy.json(),
            "generator_busy": self.generator_busy.json(),
            "rate_to_nginx": self.rate_to_nginx,
            "rate_to_varnish": self.rate_to_varnish,
            "cpu_to_nginx": self.cpu_to_nginx,
            "samples": self.samples,
        })
    }
}

/// A figure over the rounds.
#[derive(Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Not a number without values.
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Spread { median: f64::NAN, min: f64::NAN, max: f64::NAN };
        };
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Spread { median, min, max }
    }

    fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

fn replaced(file: &Path, table: &str) -> Outcome<String> {
    let name = file.display();
    let text = fs::read_to_string(file).doing(format!("reading {name}"))?;
    let missing = || Failure::Wrong(format!("{name} has no `{BEGIN}` followed by `{END}`"));
    spliced(&text, table).ok_or_else(missing)
}

fn spliced(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn three_digits(number: f64) -> String {
    match number {
        n if n < 10.0 => format!("{n:.2}"),
        n if n < 100.0 => format!("{n:.1}"),
        n => thousands(n),
    }
}

fn duration(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0} µs") } else { format!("{} ms", three_digits(us / 1000.0)) }
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn version(tools: &Tools, name: &str, argument: &str) -> Outcome<String> {
    let output = Command::new(tools.path(name)).arg(argument).output().doing(format!("running {name}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Ok(tidied(name, text.lines().next().unwrap_or_default()))
}

/// "nginx 1.22.1" of "nginx version: nginx/1.22.1": the first part with a dot and a digit, from that digit on.
fn tidied(name: &str, line: &str) -> String {
    let numbers = line.split(|c: char| c.is_ascii_whitespace() || c == '/').filter(|word| word.contains('.'));
    let number = numbers.filter_map(|word| word.find(|c: char| c.is_ascii_digit()).map(|at| &word[at..])).next();
    let product = if name == "varnishd" { "varnish" } else { name };
    format!("{product} {}", number.unwrap_or("of an unknown version"))
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let value = |text: &str, key: &str, by: char| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(by)?.1.trim().trim_matches('"').to_owned())
    };
    let model = value(&cpus, "model name", ':').unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let system = value(&read("/etc/os-release"), "PRETTY_NAME", '=').unwrap_or_else(|| "Linux".to_owned());
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel: String = kernel.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    format!("{model}, {count} CPUs, {system}, kernel {}", kernel.trim_end_matches('.'))
}

pub fn self_test() {
    assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
    assert_eq!(Spread::of(vec![4.0, 1.0]).median, 2.5);
    assert_eq!(thousands(1_234_567.8), "1,234,568");
    assert_eq!(thousands(999.0), "999");
    assert_eq!((three_digits(7.746), three_digits(28.54)), ("7.75".to_owned(), "28.5".to_owned()));
    assert_eq!((duration(540.4), duration(1210.0)), ("540 µs".to_owned(), "1.21 ms".to_owned()));
    assert_eq!((ratio(Some(1.456)), ratio(None)), ("1.46".to_owned(), "–".to_owned()));
    assert_eq!(tidied("nginx", "nginx version: nginx/1.22.1"), "nginx 1.22.1");
    assert_eq!(tidied("varnishd", "varnishd (varnish-7.1.1 revision 7cee1c)"), "varnish 7.1.1");
    assert_eq!(tidied("wrk", "wrk debian/4.1.0-3+b2 [epoll] Copyright"), "wrk 4.1.0-3+b2");
    assert_eq!(tidied("h2load", "h2load nghttp2/1.52.0"), "h2load 1.52.0");
    let readme = format!("a\n{BEGIN}\nold\n{END}\nb\n");
    assert_eq!(spliced(&readme, "new\n"), Some(format!("a\n{BEGIN}\nnew\n{END}\nb\n")));
    assert_eq!(spliced("no marks", "new"), None);

    let sample = |rate: f64, cpu_us: f64, busy: f64| Sample {
        rate,
        cpu_us,
        p50_us: 540,
        p99_us: 1210,
        requests: 9,
        server_busy: busy,
        generator_busy: 1.0,
    };
    let row = |kind, samples| Row { kind, protocol: Protocol::H1, size: Size(1024), samples };
    let rows = [row(Kind::Selvedge, vec![sample(9000.0, 5.0, 0.7)]), row(Kind::Nginx, vec![sample(6000.0, 10.0, 1.0)])];
    let line = Line::new(&rows[0], &rows).markdown();
    let expected = "| h1 | 1 KiB | selvedge | 9,000† (9,000–9,000) | 5.00 | 540 µs | 1.21 ms | 1.50 | – | 0.50 |\n";
    assert_eq!(line, expected);
}
