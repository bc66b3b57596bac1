//! The side of the bench that runs in the process of a store: commands come in on standard input, one JSON object a
//! line, and answers go out the same way. `benches/foyer` includes this file, so that all stores are driven alike.

use std::future::Future;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

/// A store under measurement. An object is named by a number and filled with what [`Expected`] checks.
pub trait Subject: Send + Sync + 'static {
    /// Stores an object.
    fn put(&self, key: u64, body: Bytes) -> impl Future<Output = Result<(), String>> + Send;

    /// Hands every byte of an object to `expected`, in order.
    fn get(&self, expected: &mut Expected<'_>) -> impl Future<Output = Result<(), String>> + Send;

    /// Returns once what was put is with the operating system.
    fn settle(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Ends it in good order.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// Makes and checks bodies: the key, then bytes of a template that no compressor shortens.
pub struct Expected<'a> {
    pub key: u64,
    pub size: usize,
    template: &'a Bytes,
    thorough: bool,
    seen: usize,
}

impl Expected<'_> {
    /// Looks at the next bytes of the body: at all of them, or at the first and the last word.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), String> {
        let (start, end) = (self.seen, self.seen + piece.len());
        self.seen = end;
        if end > self.size {
            return Err(format!("object {} is too long", self.key));
        }
        let head = self.key.to_le_bytes();
        let same = |at: usize, bytes: &[u8]| bytes == &self.template[at..at + bytes.len()];
        let first = if start == 0 { piece.len().min(8) } else { 0 };
        let begins = piece[..first] == head[..first];
        let rest = if self.thorough { first } else { piece.len().saturating_sub(8).max(first) };
        if begins && same(start + rest, &piece[rest..]) {
            return Ok(());
        }
        Err(format!("object {} has other bytes than were stored", self.key))
    }

    /// Counts the whole body as seen.
    pub fn skip(&mut self) {
        self.seen = self.size;
    }

    fn end(&self) -> Result<(), String> {
        if self.seen == self.size { Ok(()) } else { Err(format!("object {} ends after {}", self.key, self.seen)) }
    }
}

/// Objects of one size, or of sizes from 1 to 100 KiB with many small ones (mean about 9 KiB).
#[derive(Clone, Copy)]
enum Sizes {
    Fixed(usize),
    Mixed,
}

impl Sizes {
    fn of(self, key: u64) -> usize {
        match self {
            Self::Fixed(size) => size,
            Self::Mixed => {
                let unit = (mix(key) >> 11) as f64 / (1u64 << 53) as f64;
                (1024.0 * 100f64.powf(unit.powi(3))) as usize
            }
        }
    }
}

/// Answers commands until the input ends: `opened` is what the store's opening took.
pub fn serve<S: Subject>(runtime: &tokio::runtime::Runtime, subject: S, opened: Value) -> Result<(), String> {
    let (subject, template) = (Arc::new(subject), template());
    answer(&opened)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let command: Value = serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?;
        let number = |name: &str| command[name].as_u64().unwrap_or(0);
        let sizes = match number("size") {
            0 => Sizes::Mixed,
            size => Sizes::Fixed(size as usize),
        };
        let run = Run {
            subject: Arc::clone(&subject),
            template: template.clone(),
            sizes,
            count: number("count").max(1),
            tasks: number("tasks").max(1),
            limit: Duration::from_millis(number("milliseconds")),
            thorough: command["thorough"] == true,
            part: (number("part"), number("parts").max(1)),
        };
        let done = match command["do"].as_str() {
            Some("fill") => runtime.block_on(run.fill())?,
            Some("read") => runtime.block_on(run.read(command["wrap"] == true))?,
            Some("usage") => json!({}),
            Some("close") => {
                runtime.block_on(subject.close());
                json!({})
            }
            other => return Err(format!("unknown command {other:?}")),
        };
        answer(&done)?;
    }
    Ok(())
}

fn answer(done: &Value) -> Result<(), String> {
    let mut done = done.clone();
    done["rss"] = status("/proc/self/status", "VmRSS:").saturating_mul(1024).into();
    done["write_bytes"] = status("/proc/self/io", "write_bytes:").into();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{done}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}

struct Run<S> {
    subject: Arc<S>,
    template: Bytes,
    sizes: Sizes,
    count: u64,
    tasks: u64,
    /// Zero: no limit.
    limit: Duration,
    thorough: bool,
    /// Which of how many parts of the objects are read.
    part: (u64, u64),
}

impl<S: Subject> Run<S> {
    /// Puts objects 0 to `count`.
    async fn fill(self) -> Result<Value, String> {
        let (run, next, bytes) = (Arc::new(self), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let task = |_| {
            let (run, next, bytes) = (Arc::clone(&run), Arc::clone(&next), Arc::clone(&bytes));
            tokio::spawn(async move {
                loop {
                    let key = next.fetch_add(1, Ordering::Relaxed);
                    if key >= run.count {
                        return Ok::<(), String>(());
                    }
                    let size = run.sizes.of(key);
                    bytes.fetch_add(size as u64, Ordering::Relaxed);
                    run.subject.put(key, run.body(key, size)).await?;
                }
            })
        };
        join((0..run.tasks).map(task)).await?;
        run.subject.settle().await?;
        let done = json!({ "operations": run.count, "bytes": bytes.load(Ordering::Relaxed) });
        Ok(timed(done, start, cpu))
    }

    /// Gets every object of the part once, in no order; with `wrap` over and over until the time is up.
    async fn read(self, wrap: bool) -> Result<Value, String> {
        let limit = if self.limit.is_zero() { Duration::from_secs(3600) } else { self.limit };
        let run = Arc::new(self);
        let (next, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (part, parts) = run.part;
        let order: Arc<[u64]> = shuffled(run.count).into_iter().filter(|key| key % parts == part).collect();
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let task = |_| {
            let (run, next, stop, order) = (Arc::clone(&run), Arc::clone(&next), Arc::clone(&stop), Arc::clone(&order));
            tokio::spawn(async move {
                let mut done = 0u64;
                // Many at a time, so that counting costs nothing and no task keeps its thread for itself.
                while !stop.load(Ordering::Relaxed) {
                    let batch = if wrap { 32 } else { 1 };
                    let at = next.fetch_add(batch, Ordering::Relaxed);
                    if !wrap && at >= order.len() as u64 {
                        break;
                    }
                    for n in at..at + batch {
                        run.get(order[n as usize % order.len()]).await?;
                        done += 1;
                    }
                    if start.elapsed() >= limit {
                        stop.store(true, Ordering::Relaxed);
                    }
                    if wrap {
                        tokio::task::yield_now().await;
                    }
                }
                Ok::<u64, String>(done)
            })
        };
        let operations: u64 = join((0..run.tasks).map(task)).await?.into_iter().sum();
        Ok(timed(json!({ "operations": operations }), start, cpu))
    }

    async fn get(&self, key: u64) -> Result<(), String> {
        let size = self.sizes.of(key);
        let mut expected = Expected { key, size, template: &self.template, thorough: self.thorough, seen: 0 };
        self.subject.get(&mut expected).await?;
        expected.end()
    }

    fn body(&self, key: u64, size: usize) -> Bytes {
        let mut body = BytesMut::with_capacity(size);
        body.extend_from_slice(&key.to_le_bytes()[..size.min(8)]);
        body.extend_from_slice(&self.template[body.len()..size]);
        body.freeze()
    }
}

async fn join<T>(tasks: impl Iterator<Item = tokio::task::JoinHandle<Result<T, String>>>) -> Result<Vec<T>, String> {
    let mut done = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        done.push(task.await.map_err(|error| error.to_string())??);
    }
    Ok(done)
}

fn timed(mut done: Value, start: Instant, cpu: f64) -> Value {
    done["seconds"] = start.elapsed().as_secs_f64().into();
    done["cpu_seconds"] = (cpu_seconds() - cpu).into();
    done
}

/// User and system time of this process; Linux counts it in hundredths here.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split_ascii_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn status(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn template() -> Bytes {
    (0..1u64 << 21).flat_map(|n| mix(n).to_le_bytes()).collect()
}

fn shuffled(count: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..count).collect();
    for n in (1..order.len()).rev() {
        order.swap(n, (mix(n as u64) % (n as u64 + 1)) as usize);
    }
    order
}

/// splitmix64's output function.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}
