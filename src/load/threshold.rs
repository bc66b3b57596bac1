//! What a run has to reach, for scripts that go by the exit status.

use super::report::Report;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A figure of the report and its bound, as in `p99<50ms`, `errors<=0.1%`, `hits>90%` or `rate>=1000`.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    figure: Figure,
    bound: Bound,
    /// In the figure's unit: seconds, shares, or a second's requests.
    value: f64,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    /// A quantile of the response time, in hundredths of a per cent.
    Quantile(u32),
    Mean,
    Errors,
    Hits,
    Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Below,
    AtMost,
    Above,
    AtLeast,
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text.find(['<', '>']).ok_or("write a figure, <, <=, > or >=, and a value, as in p99<50ms")?;
        let (name, rest) = text.split_at(at);
        let (bound, value) = match rest.as_bytes() {
            [b'<', b'=', ..] => (Bound::AtMost, &rest[2..]),
            [b'>', b'=', ..] => (Bound::AtLeast, &rest[2..]),
            [b'<', ..] => (Bound::Below, &rest[1..]),
            _ => (Bound::Above, &rest[1..]),
        };
        let figure = match name.trim() {
            "p50" => Figure::Quantile(5000),
            "p90" => Figure::Quantile(9000),
            "p95" => Figure::Quantile(9500),
            "p99" => Figure::Quantile(9900),
            "p99.9" => Figure::Quantile(9990),
            "p99.99" => Figure::Quantile(9999),
            "max" => Figure::Quantile(10_000),
            "mean" => Figure::Mean,
            "errors" => Figure::Errors,
            "hits" => Figure::Hits,
            "rate" => Figure::Rate,
            other => {
                let known = "p50, p90, p95, p99, p99.9, p99.99, max, mean, errors, hits and rate";
                return Err(format!("`{other}` is no figure; there are {known}"));
            }
        };
        let value = figure.read(value.trim())?;
        Ok(Self { figure, bound, value, text: text.to_owned() })
    }
}

impl Figure {
    fn read(self, text: &str) -> Result<f64, String> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
        match self {
            Self::Quantile(_) | Self::Mean => humantime::parse_duration(text)
                .map(|duration| duration.as_secs_f64())
                .map_err(|_| format!("`{text}` is no duration; write it as 50ms or 1s")),
            Self::Errors | Self::Hits => text
                .strip_suffix('%')
                .and_then(number)
                .map(|percent| percent / 100.0)
                .ok_or_else(|| format!("`{text}` is no share; write it as 0.1%")),
            Self::Rate => number(text).ok_or_else(|| format!("`{text}` is no number of requests a second")),
        }
    }

    fn of(self, report: &Report) -> f64 {
        match self {
            Self::Quantile(hundredths) => report.latency.quantile(f64::from(hundredths) / 10_000.0).as_secs_f64(),
            Self::Mean => report.latency.mean().as_secs_f64(),
            Self::Errors => report.error_ratio(),
            Self::Hits => report.hit_ratio(),
            Self::Rate => report.rate(),
        }
    }
}

impl Threshold {
    /// Whether the run kept to it; the error says by how much it did not.
    pub fn check(&self, report: &Report) -> Result<(), String> {
        let value = self.figure.of(report);
        let kept = match self.bound {
            Bound::Below => value < self.value,
            Bound::AtMost => value <= self.value,
            Bound::Above => value > self.value,
            Bound::AtLeast => value >= self.value,
        };
        let shown = match self.figure {
            Figure::Quantile(_) | Figure::Mean => super::report::short(Duration::from_secs_f64(value)),
            Figure::Errors | Figure::Hits => format!("{:.3} %", value * 100.0),
            Figure::Rate => format!("{value:.0}/s"),
        };
        if kept { Ok(()) } else { Err(format!("{self}: it is {shown}")) }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::measure::{Interval, Sample, Tier};

    fn report() -> Report {
        let mut interval = Interval::default();
        for n in 1..=100_u64 {
            let tier = if n <= 80 { Tier::Memory } else { Tier::Origin };
            interval.add(&Sample { latency: Duration::from_millis(n), bytes: 10, tier, outcome: Ok(200) });
        }
        (0..25).for_each(|_| {
            let outcome = Err(crate::load::measure::Failure::Timeout);
            interval.add(&Sample { latency: Duration::from_millis(1), bytes: 0, tier: Tier::Unknown, outcome });
        });
        Report::of(interval, Duration::from_secs(10))
    }

    #[test]
    fn figures_are_held_against_their_bounds() {
        let report = report();
        for (text, kept) in [
            ("p50<60ms", true),
            ("p50<40ms", false),
            ("p99<=100ms", true),
            ("max>99ms", true),
            ("mean<1s", true),
            ("errors<10%", false),
            ("errors<=20%", true),
            ("hits>=80%", true),
            ("hits>80.5%", false),
            ("rate>=10", true),
            ("rate > 10.5", false),
        ] {
            let outcome = text.parse::<Threshold>().unwrap().check(&report);
            assert_eq!(outcome.is_ok(), kept, "{text}: {outcome:?}");
        }
        let missed = "errors<10%".parse::<Threshold>().unwrap().check(&report).unwrap_err();
        assert_eq!(missed, "errors<10%: it is 20.000 %");
    }

    #[test]
    fn what_is_no_threshold_is_refused_with_a_remedy() {
        for (text, says) in [
            ("p99", "p99<50ms"),
            ("p98<1ms", "p99.9"),
            ("p99<50", "50ms"),
            ("errors<1", "0.1%"),
            ("hits>-1%", "0.1%"),
            ("rate>many", "a second"),
        ] {
            let error = text.parse::<Threshold>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
