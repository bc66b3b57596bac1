//! Sizes of objects: which one has which is the same in every run.

use crate::types::ByteSize;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use std::str::FromStr;

/// The largest object that a distribution gives, in bytes.
const MAX_SIZE: u64 = 1 << 40;

/// How large the objects of a catalogue are: `10KiB` each, `1KiB:50,100KiB:40,1MiB:10` (sizes with their weights), or
/// `lognormal:20KiB,1.6` (median and sigma of the logarithm).
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// Sizes, each with the sum of weights up to it.
    Weighted(Vec<(u64, f64)>),
    /// As the objects of sites are, by and large.
    LogNormal(LogNormal<f64>),
}

impl Default for Sizes {
    fn default() -> Self {
        Self::Weighted(vec![(10 << 10, 1.0)])
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let size = |text: &str| text.parse::<ByteSize>().map(|size| size.0).map_err(|error| error.to_string());
        if let Some(parameters) = text.strip_prefix("lognormal:") {
            let wrong = "write it as lognormal:MEDIAN,SIGMA, as in lognormal:20KiB,1.6";
            let (median, sigma) = parameters.split_once(',').ok_or(wrong)?;
            let (median, sigma) = (size(median)?, sigma.trim().parse::<f64>().map_err(|_| wrong)?);
            if median == 0 || !(0.0..=10.0).contains(&sigma) {
                return Err(format!("{wrong}; the median is above 0 and sigma from 0 to 10"));
            }
            return LogNormal::new((median as f64).ln(), sigma).map(Self::LogNormal).map_err(|_| wrong.to_owned());
        }
        let (mut sizes, mut sum) = (Vec::new(), 0.0);
        for item in text.split(',') {
            let (bytes, weight) = item.split_once(':').unwrap_or((item, "1"));
            let weight = weight.trim().parse::<f64>().ok().filter(|weight| weight.is_finite() && *weight > 0.0);
            sum += weight.ok_or_else(|| format!("`{item}`: a weight is a number above 0, as in 1KiB:50,1MiB:10"))?;
            sizes.push((size(bytes)?, sum));
        }
        Ok(Self::Weighted(sizes))
    }
}

impl Sizes {
    /// The size of an object, in bytes: always the same for the same number.
    pub fn of(&self, number: u64) -> u64 {
        let mut random = SmallRng::seed_from_u64(number);
        match self {
            Self::Weighted(sizes) => {
                let last = sizes.last().map_or((0, 0.0), |last| *last);
                let at = random.random::<f64>() * last.1;
                sizes.iter().find(|(_, sum)| at < *sum).map_or(last.0, |(size, _)| *size)
            }
            Self::LogNormal(distribution) => (distribution.sample(&mut random) as u64).clamp(1, MAX_SIZE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_by_their_weights() {
        let sizes: Sizes = "1KiB:90,1MiB:10".parse().unwrap();
        let large = (0..10_000).filter(|n| sizes.of(*n) == 1 << 20).count();
        assert!((800..1200).contains(&large), "{large}");
        assert!((0..100).all(|n| [1 << 10, 1 << 20].contains(&sizes.of(n)) && sizes.of(n) == sizes.of(n)));
    }

    #[test]
    fn half_of_the_objects_are_smaller_than_the_median() {
        let sizes: Sizes = "lognormal:20KiB,1.6".parse().unwrap();
        let small = (0..10_000).filter(|n| sizes.of(*n) < 20 << 10).count();
        assert!((4700..5300).contains(&small), "{small}");
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        for text in ["", "x", "1KiB:0", "1KiB:-1", "1KiB:inf", "lognormal:20KiB", "lognormal:0,1", "lognormal:1K,x"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }
}
