//! Traces: from files, and made up by Zipf's law.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// One request. Objects are numbered from 0; one keeps the size it was first asked for with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub object: u64,
    pub size: u64,
}

pub struct Trace {
    pub requests: Vec<Request>,
    /// How many different ones there are, and their bytes.
    pub objects: u64,
    pub footprint: u64,
}

impl Trace {
    /// Reads lines of `time key size`; a file whose name ends in `.xz` by way of `xz`, `-` from standard input.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Self, String> {
        let name = path.display();
        let failed = |error: io::Error| format!("{name}: {error}");
        if path == Path::new("-") {
            return Self::parse(io::stdin().lock(), &name.to_string(), limit);
        }
        if path.extension().is_none_or(|extension| extension != "xz") {
            return Self::parse(File::open(path).map_err(failed)?, &name.to_string(), limit);
        }
        File::open(path).map_err(failed)?;
        let mut xz =
            Command::new("xz").arg("-dc").arg("--").arg(path).stdout(Stdio::piped()).spawn().map_err(|error| {
                format!("{name}: `xz` cannot be run ({error}); install it, or unpack the file first")
            })?;
        let read = xz.stdout.take().map_or_else(
            || Err(format!("{name}: `xz` has no output")),
            |output| Self::parse(output, &name.to_string(), limit),
        );
        let status = xz.wait().map_err(failed)?;
        // With a limit it is not read to its end.
        if status.success() || (limit.is_some() && read.is_ok()) {
            read
        } else {
            Err(format!("{name}: `xz` failed: {status}"))
        }
    }

    fn parse(from: impl Read, name: &str, limit: Option<usize>) -> Result<Self, String> {
        let (mut numbers, mut trace) = (HashMap::new(), Self { requests: Vec::new(), objects: 0, footprint: 0 });
        for (n, line) in BufReader::new(from).lines().take(limit.unwrap_or(usize::MAX)).enumerate() {
            let wrong = |what: &str| format!("{name}:{}: {what}; a line is `time key size`, the size in bytes", n + 1);
            let line = line.map_err(|error| wrong(&error.to_string()))?;
            let mut words = line.split_ascii_whitespace();
            let (Some(_), Some(key), Some(size)) = (words.next(), words.next(), words.next()) else {
                return Err(wrong("less than three words"));
            };
            let size: u64 = size.parse().map_err(|_| wrong("the size is no number"))?;
            let next = numbers.len() as u64;
            let (object, size) = *numbers.entry(key.to_owned()).or_insert((next, size.max(1)));
            trace.push(Request { object, size });
        }
        if trace.requests.is_empty() { Err(format!("{name}: no requests in it")) } else { Ok(trace) }
    }

    fn push(&mut self, request: Request) {
        if request.object == self.objects {
            self.objects += 1;
            self.footprint += request.size;
        }
        self.requests.push(request);
    }
}

/// Requests by Zipf's law over a catalogue that changes.
pub struct Zipf {
    /// Up to which share of all requests each rank goes.
    cumulated: Vec<f64>,
    churn: f64,
    random: Random,
}

impl Zipf {
    pub fn new(objects: u64, alpha: f64, churn: f64, seed: u64) -> Self {
        let mut sum = 0.0;
        let mut cumulated: Vec<f64> = Vec::new();
        for rank in 1..=objects.max(1) {
            sum += (rank as f64).powf(-alpha);
            cumulated.push(sum);
        }
        cumulated.iter_mut().for_each(|share| *share /= sum);
        Self { cumulated, churn: churn / 100.0, random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1) }
    }

    /// The ranks are dealt to objects at random, and one after the other new objects take the ranks of old ones.
    pub fn trace(mut self, requests: usize) -> Trace {
        let ranks = self.cumulated.len();
        let mut names: Vec<u64> = (0..ranks as u64).collect();
        let mut next = ranks as u64;
        let (mut numbers, mut trace) = (HashMap::new(), Trace { requests: Vec::new(), objects: 0, footprint: 0 });
        let each = self.churn * ranks as f64 / requests.max(1) as f64;
        let mut due = 0.0;
        for _ in 0..requests {
            due += each;
            while due >= 1.0 {
                due -= 1.0;
                let rank = (self.random.next() % ranks as u64) as usize;
                names[rank] = next;
                next += 1;
            }
            let share = self.random.share();
            let rank = self.cumulated.partition_point(|cumulated| *cumulated < share).min(ranks - 1);
            let name = names[rank];
            let number = numbers.len() as u64;
            let object = *numbers.entry(name).or_insert(number);
            trace.push(Request { object, size: size_of_object(name) });
        }
        trace
    }
}

/// Sizes as of the objects of a site: around 20 KB, a few of megabytes, whatever the popularity.
fn size_of_object(name: u64) -> u64 {
    let mut random = Random(name.wrapping_add(1).wrapping_mul(0xd6e8_feb8_6659_fd93) | 1);
    random.next();
    // The sum of several is close to a normal distribution; its exponential is log-normal.
    let normal = (0..12).map(|_| random.share()).sum::<f64>() - 6.0;
    ((9.9 + 1.6 * normal).exp() as u64).clamp(100, 64 << 20)
}

/// xorshift64*: the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 1
    }

    /// From 0 to below 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 10) as f64 / (1u64 << 53) as f64
    }
}

/// Reading and generating, on samples.
pub fn self_test() {
    let trace =
        Trace::parse("1 a 10\n2 b 0\n\u{20}3 a 99 more\n".as_bytes(), "t", None).map_err(|error| panic!("{error}"));
    let Ok(trace) = trace;
    let request = |object, size| Request { object, size };
    assert_eq!(trace.requests, [request(0, 10), request(1, 1), request(0, 10)]);
    assert_eq!((trace.objects, trace.footprint), (2, 11));
    for (text, expected) in
        [("1 a\n", "t:1: less than three"), ("1 a 1\n1 a x\n", "t:2: the size"), ("", "no requests")]
    {
        let error = Trace::parse(text.as_bytes(), "t", None).err().unwrap_or_default();
        assert!(error.contains(expected), "{error}");
    }
    let [a, b, other] = [1, 1, 2].map(|seed| Zipf::new(500, 0.9, 50.0, seed).trace(20_000));
    assert!(a.requests == b.requests && a.requests != other.requests);
    assert!((500..=760).contains(&a.objects), "{} objects", a.objects);
    let first = a.requests.iter().filter(|request| request.object == a.requests[0].object).count();
    assert!(first < a.requests.len());
}
