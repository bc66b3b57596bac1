//! What happened to requests, counted as they end.

use hdrhistogram::Histogram;
use http::HeaderMap;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest response time that is told from longer ones: an hour, in microseconds.
const MAX_LATENCY_US: u64 = 3_600_000_000;

/// Who answered, by the response's `Cache-Status` (RFC 9211), else by the `X-Cache` that other caches send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The cache, from memory.
    Memory,
    /// The cache, from its disk.
    Disk,
    /// The cache; it does not say from where.
    Cache,
    /// The cache, once the origin had said that what it holds is still right.
    Revalidated,
    /// The origin.
    Origin,
    /// The response does not say.
    Unknown,
}

impl Tier {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 6] = [Self::Memory, Self::Disk, Self::Cache, Self::Revalidated, Self::Origin, Self::Unknown];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Cache => "cache",
            Self::Revalidated => "revalidated",
            Self::Origin => "origin",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the origin was spared.
    pub fn is_hit(self) -> bool {
        matches!(self, Self::Memory | Self::Disk | Self::Cache)
    }

    /// Reads it off a response: the member nearest to the client counts, which is the last.
    pub fn of(fields: &HeaderMap) -> Self {
        let values = fields.get_all("cache-status").iter().filter_map(|value| value.to_str().ok());
        if let Some(member) = values.flat_map(|value| value.split(',')).last() {
            let mut parameters = member.split(';').skip(1).map(str::trim);
            let has = |wanted: &str| parameters.clone().any(|parameter| parameter == wanted);
            return match (has("hit"), has("fwd-status=304")) {
                (true, _) => parameters
                    .find_map(|parameter| match parameter.strip_prefix("detail=") {
                        Some("memory") => Some(Self::Memory),
                        Some("disk") => Some(Self::Disk),
                        _ => None,
                    })
                    .unwrap_or(Self::Cache),
                (false, true) => Self::Revalidated,
                (false, false) => Self::Origin,
            };
        }
        match fields.get("x-cache").and_then(|value| value.to_str().ok()) {
            Some(text) if text.to_ascii_lowercase().contains("hit") => Self::Cache,
            Some(_) => Self::Origin,
            None => Self::Unknown,
        }
    }
}

/// Why a request has no whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// No connection.
    Connect,
    /// No TLS session.
    Tls,
    /// The connection ended, or what came over it was no HTTP.
    Broken,
    /// It took longer than it may.
    Timeout,
}

impl Failure {
    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
        }
    }
}

/// One request that ended.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Since it was due (with a constant rate) or sent, to the last byte.
    pub latency: Duration,
    /// Of content.
    pub bytes: u64,
    pub tier: Tier,
    /// The status, or why there is none.
    pub outcome: Result<u16, Failure>,
}

/// Requests of some stretch of time.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Response times of the requests that were answered, in microseconds.
    pub latency: Histogram<u64>,
    pub bytes: u64,
    pub statuses: BTreeMap<u16, u64>,
    pub failures: BTreeMap<Failure, u64>,
    /// Answers and bytes by who gave them, in the order of [`Tier::ALL`].
    pub tiers: [(u64, u64); Tier::ALL.len()],
}

impl Default for Interval {
    fn default() -> Self {
        #[allow(clippy::expect_used, reason = "the bounds are constants that the histogram takes")]
        let latency = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("bounds of a histogram");
        Self {
            latency,
            bytes: 0,
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
            tiers: [(0, 0); Tier::ALL.len()],
        }
    }
}

impl Interval {
    /// Counts a request.
    pub fn add(&mut self, sample: &Sample) {
        match sample.outcome {
            Ok(status) => {
                let us = u64::try_from(sample.latency.as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(us.max(1));
                self.bytes += sample.bytes;
                *self.statuses.entry(status).or_default() += 1;
                let tier = &mut self.tiers[sample.tier as usize];
                *tier = (tier.0 + 1, tier.1 + sample.bytes);
            }
            Err(failure) => *self.failures.entry(failure).or_default() += 1,
        }
    }

    /// Adds what another stretch counted.
    pub fn join(&mut self, other: &Self) {
        // Both have the same bounds: nothing is out of range.
        let _ = self.latency.add(&other.latency);
        self.bytes += other.bytes;
        other.statuses.iter().for_each(|(status, count)| *self.statuses.entry(*status).or_default() += count);
        other.failures.iter().for_each(|(failure, count)| *self.failures.entry(*failure).or_default() += count);
        for (mine, theirs) in self.tiers.iter_mut().zip(&other.tiers) {
            *mine = (mine.0 + theirs.0, mine.1 + theirs.1);
        }
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        self.latency.reset();
        self.bytes = 0;
        self.statuses.clear();
        self.failures.clear();
        self.tiers = [(0, 0); Tier::ALL.len()];
    }

    /// Requests that were answered.
    pub fn answered(&self) -> u64 {
        self.latency.len()
    }

    /// Requests without a response, and those answered with a status of 500 or above.
    pub fn errors(&self) -> u64 {
        let failed: u64 = self.failures.values().sum();
        failed + self.statuses.range(500..).map(|(_, count)| count).sum::<u64>()
    }

    /// Requests, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.answered() + self.failures.values().sum::<u64>()
    }

    /// Answers of the cache.
    pub fn hits(&self) -> u64 {
        self.sum(|(count, _)| count)
    }

    /// Bytes of the cache's answers.
    pub fn hit_bytes(&self) -> u64 {
        self.sum(|(_, bytes)| bytes)
    }

    fn sum(&self, of: impl Fn((u64, u64)) -> u64) -> u64 {
        Tier::ALL.iter().zip(self.tiers).filter(|(tier, _)| tier.is_hit()).map(|(_, tier)| of(tier)).sum()
    }
}

/// Counts of many tasks at a time: each adds to one of a few intervals, which are collected now and then.
pub struct Recorder(Vec<Mutex<Interval>>);

impl Recorder {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Self((0..threads.max(1)).map(|_| Mutex::default()).collect())
    }

    /// Counts a request of a task.
    pub fn add(&self, task: usize, sample: &Sample) {
        self.0[task % self.0.len()].lock().add(sample);
    }

    /// Moves what was counted since the last call into `interval`.
    pub fn collect(&self, interval: &mut Interval) {
        for shard in &self.0 {
            let mut shard = shard.lock();
            interval.join(&shard);
            shard.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_nearest_cache_says_who_answered() {
        for (field, value, tier) in [
            ("cache-status", "selvedge;hit;ttl=10;detail=memory", Tier::Memory),
            ("cache-status", "selvedge;hit;ttl=10;detail=disk", Tier::Disk),
            ("cache-status", "other;hit", Tier::Cache),
            ("cache-status", "selvedge;fwd=stale;fwd-status=304", Tier::Revalidated),
            ("cache-status", "selvedge;fwd=uri-miss;stored", Tier::Origin),
            ("cache-status", "shield;hit, selvedge;fwd=uri-miss;stored", Tier::Origin),
            ("x-cache", "Hit from cloudfront", Tier::Cache),
            ("x-cache", "MISS", Tier::Origin),
            ("server", "nginx", Tier::Unknown),
        ] {
            let fields = HeaderMap::from_iter([(field.parse().unwrap(), HeaderValue::from_static(value))]);
            assert_eq!(Tier::of(&fields), tier, "{value}");
        }
        assert!(Tier::ALL.iter().enumerate().all(|(at, tier)| *tier as usize == at));
    }

    #[test]
    fn what_is_collected_is_counted_once() {
        let recorder = Recorder::new(2);
        for task in 0..10 {
            let outcome = if task == 9 { Err(Failure::Broken) } else { Ok(if task == 8 { 503 } else { 200 }) };
            let sample = Sample { latency: Duration::from_millis(5), bytes: 100, tier: Tier::Disk, outcome };
            recorder.add(task, &sample);
        }
        let mut all = Interval::default();
        recorder.collect(&mut all);
        recorder.collect(&mut all);
        assert_eq!((all.requests(), all.answered(), all.errors(), all.hits()), (10, 9, 2, 9));
        assert_eq!((all.bytes, all.hit_bytes(), all.statuses[&200]), (900, 900, 8));
    }
}
