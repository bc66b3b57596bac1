//! What a run came to: for people, for scripts (JSON) and for a browser (HTML).

mod chart;
mod html;

use super::measure::{Failure, Interval, Tier};
use hdrhistogram::Histogram;
use indicatif::HumanBytes;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

pub use html::html;

/// The quantiles that are told.
const QUANTILES: [(&str, f64); 7] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// Response times.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Latency {
    /// The time within which this share of requests was answered.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }

    /// Their mean.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.0.mean() / 1e6)
    }

    /// Pairs of a share and the time within which it was answered, ever closer to all.
    fn curve(&self) -> Vec<(f64, Duration)> {
        let steps = self.0.iter_quantiles(2);
        steps.map(|step| (step.quantile_iterated_to(), Duration::from_micros(step.value_iterated_to()))).collect()
    }
}

/// One second of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Seconds since counting began.
    pub at: f64,
    /// That ended in this second.
    pub requests: u64,
    /// Without an answer, or with a status of 500 or above.
    pub errors: u64,
    /// Of content.
    pub bytes: u64,
    /// Answers of the cache.
    pub hits: u64,
    /// The median of response times, in microseconds.
    pub p50_us: u64,
    /// Their 99th percentile, in microseconds.
    pub p99_us: u64,
}

impl Point {
    pub(super) fn of(interval: &Interval, at: Duration) -> Self {
        Self {
            at: at.as_secs_f64(),
            requests: interval.requests(),
            errors: interval.errors(),
            bytes: interval.bytes,
            hits: interval.hits(),
            p50_us: interval.latency.value_at_quantile(0.5),
            p99_us: interval.latency.value_at_quantile(0.99),
        }
    }
}

/// All of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// How long was counted.
    pub elapsed: Duration,
    /// Response times of the requests that were answered.
    pub latency: Latency,
    counts: Interval,
    /// Second by second.
    pub points: Vec<Point>,
    /// What was said of the first failure of each kind.
    pub reasons: BTreeMap<Failure, String>,
    /// That were made.
    pub connections: u64,
    /// Requests of an open model that had to wait for a free connection.
    pub backlogged: u64,
}

impl Report {
    pub(super) fn of(counts: Interval, elapsed: Duration) -> Self {
        let latency = Latency(counts.latency.clone());
        Self { elapsed, latency, counts, points: Vec::new(), reasons: BTreeMap::new(), connections: 0, backlogged: 0 }
    }

    /// Requests that were counted.
    pub fn requests(&self) -> u64 {
        self.counts.requests()
    }

    /// Those that were answered.
    pub fn answered(&self) -> u64 {
        self.counts.answered()
    }

    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answered() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The share of requests without a response or with a status of 500 or above, from 0 to 1.
    pub fn error_ratio(&self) -> f64 {
        share(self.counts.errors(), self.requests())
    }

    /// The share of answers that came from the cache, from 0 to 1.
    pub fn hit_ratio(&self) -> f64 {
        share(self.counts.hits(), self.answered())
    }

    /// The same of bytes.
    pub fn byte_hit_ratio(&self) -> f64 {
        share(self.counts.hit_bytes(), self.counts.bytes)
    }

    /// Who answered: tier, answers, bytes. Those that gave none are left out.
    fn tiers(&self) -> impl Iterator<Item = (Tier, u64, u64)> {
        let tiers = Tier::ALL.into_iter().zip(self.counts.tiers);
        tiers.filter(|(_, (count, _))| *count > 0).map(|(tier, (count, bytes))| (tier, count, bytes))
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        let bytes = HumanBytes(self.counts.bytes);
        let each = HumanBytes((self.counts.bytes as f64 / seconds) as u64);
        let _ = writeln!(out, "requests  {} in {seconds:.1} s, {:.0}/s answered", self.requests(), self.rate());
        let _ = writeln!(out, "content   {bytes}, {each}/s");
        let _ = writeln!(out, "errors    {} ({:.3} %)", self.counts.errors(), self.error_ratio() * 100.0);
        for (failure, count) in &self.counts.failures {
            let why = self.reasons.get(failure).map_or_else(String::new, |why| format!(" ({why})"));
            let _ = writeln!(out, "          {}: {count}{why}", failure.as_str());
        }
        let statuses: Vec<_> =
            self.counts.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        let _ =
            writeln!(out, "status    {}", if statuses.is_empty() { "none".to_owned() } else { statuses.join(", ") });
        let (hits, of_bytes) = (self.hit_ratio() * 100.0, self.byte_hit_ratio() * 100.0);
        let _ = writeln!(out, "hits      {hits:.2} % of answers, {of_bytes:.2} % of bytes");
        for (tier, count, bytes) in self.tiers() {
            let part = share(count, self.answered()) * 100.0;
            let _ = writeln!(out, "          {:<11} {part:>6.2} %  {count} ({})", tier.as_str(), HumanBytes(bytes));
        }
        let times: Vec<_> =
            QUANTILES.iter().map(|(name, share)| format!("{name} {}", short(self.latency.quantile(*share)))).collect();
        let _ = writeln!(out, "time      mean {}, {}", short(self.latency.mean()), times.join(", "));
        let _ = writeln!(out, "          {} connections made", self.connections);
        if self.backlogged > 0 {
            let _ = writeln!(
                out,
                "          {} requests waited for a free connection; the wait is in their times (more --connections?)",
                self.backlogged
            );
        }
        out
    }

    /// For scripts. Times are in microseconds, shares from 0 to 1.
    pub fn json(&self) -> Value {
        let us = |duration: Duration| duration.as_micros() as u64;
        let quantiles: serde_json::Map<_, _> = QUANTILES
            .iter()
            .map(|(name, share)| ((*name).to_owned(), json!(us(self.latency.quantile(*share)))))
            .collect();
        let tiers: serde_json::Map<_, _> = self
            .tiers()
            .map(|(tier, count, bytes)| (tier.as_str().to_owned(), json!({ "requests": count, "bytes": bytes })))
            .collect();
        json!({
            "seconds": self.elapsed.as_secs_f64(),
            "requests": self.requests(),
            "answered": self.answered(),
            "rate": self.rate(),
            "bytes": self.counts.bytes,
            "errors": self.counts.errors(),
            "error_ratio": self.error_ratio(),
            "failures": self.counts.failures,
            "reasons": self.reasons,
            "statuses": self.counts.statuses,
            "hit_ratio": self.hit_ratio(),
            "byte_hit_ratio": self.byte_hit_ratio(),
            "tiers": tiers,
            "mean_us": us(self.latency.mean()),
            "latency_us": quantiles,
            "connections": self.connections,
            "backlogged": self.backlogged,
            "points": self.points,
        })
    }
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

/// A duration in three digits or so.
pub(super) fn short(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    match us {
        ..1e3 => format!("{us:.0} µs"),
        ..1e4 => format!("{:.2} ms", us / 1e3),
        ..1e6 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests;
