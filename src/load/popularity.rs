//! Which object of a catalogue is asked for next.

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Zipf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// How requests are shared out among objects.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Popularity {
    /// All alike.
    #[default]
    Uniform,
    /// By Zipf's law: the object of rank r gets a share in proportion to 1/r^s.
    Zipf(f64),
    /// One after the other, and again from the first.
    Sequential,
}

impl FromStr for Popularity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write uniform, sequential, or zipf:S with S above 0 and up to 5, as in zipf:0.9";
        match text {
            "uniform" => Ok(Self::Uniform),
            "sequential" => Ok(Self::Sequential),
            "zipf" => Ok(Self::Zipf(1.0)),
            _ => {
                let exponent = text.strip_prefix("zipf:").and_then(|s| s.parse::<f64>().ok());
                exponent.filter(|s| *s > 0.0 && *s <= 5.0).map(Self::Zipf).ok_or_else(|| wrong.to_owned())
            }
        }
    }
}

/// Objects in the order of their popularity, which may shift while requests are drawn.
pub struct Catalogue {
    /// The object at each rank.
    names: Vec<AtomicU64>,
    draw: Draw,
    /// The number of the next object that nobody has asked for, and where [`Popularity::Sequential`] stands.
    next: AtomicU64,
    turn: AtomicU64,
}

enum Draw {
    Uniform,
    Zipf(Zipf<f64>),
    Sequential,
}

impl Catalogue {
    /// A catalogue of so many objects, at least 1. Ranks are dealt to objects as `random` says: numbers tell nothing of
    /// popularity.
    pub fn new(objects: u64, popularity: Popularity, random: &mut impl Rng) -> Self {
        let objects = objects.max(1);
        let mut names: Vec<u64> = (0..objects).collect();
        let draw = match popularity {
            Popularity::Sequential => Draw::Sequential,
            Popularity::Uniform => Draw::Uniform,
            Popularity::Zipf(exponent) => {
                for at in (1..names.len()).rev() {
                    names.swap(at, random.random_range(0..=at));
                }
                // An exponent that the distribution does not take was refused when it was read.
                Zipf::new(objects as f64, exponent).map_or(Draw::Uniform, Draw::Zipf)
            }
        };
        let names = names.into_iter().map(AtomicU64::new).collect();
        Self { names, draw, next: AtomicU64::new(objects), turn: AtomicU64::new(0) }
    }

    /// The number of the object that is asked for next.
    pub fn next(&self, random: &mut impl Rng) -> u64 {
        let count = self.names.len();
        let rank = match &self.draw {
            Draw::Uniform => random.random_range(0..count),
            Draw::Zipf(zipf) => (zipf.sample(random) as usize).clamp(1, count) - 1,
            Draw::Sequential => (self.turn.fetch_add(1, Ordering::Relaxed) % count as u64) as usize,
        };
        self.names[rank].load(Ordering::Relaxed)
    }

    /// Replaces the object at a random rank: what was asked for is no more, and something new is.
    pub fn shift(&self, random: &mut impl Rng) {
        let rank = random.random_range(0..self.names.len());
        self.names[rank].store(self.next.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// How many objects there are at a time.
    pub fn len(&self) -> u64 {
        self.names.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use std::collections::HashMap;

    fn counts(catalogue: &Catalogue, draws: usize) -> Vec<usize> {
        let mut random = SmallRng::seed_from_u64(1);
        let mut counts: HashMap<u64, usize> = HashMap::new();
        (0..draws).for_each(|_| *counts.entry(catalogue.next(&mut random)).or_default() += 1);
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    #[test]
    fn by_zipf_the_first_gets_twice_what_the_second_gets() {
        let catalogue = Catalogue::new(1000, Popularity::Zipf(1.0), &mut SmallRng::seed_from_u64(2));
        let counts = counts(&catalogue, 200_000);
        let ratio = counts[0] as f64 / counts[1] as f64;
        assert!((1.85..2.15).contains(&ratio), "{ratio}");
        // 1 / H(1000).
        assert!((0.128..0.139).contains(&(counts[0] as f64 / 200_000.0)), "{}", counts[0]);
    }

    #[test]
    fn in_turn_each_is_asked_for_as_often_as_the_others() {
        let catalogue = Catalogue::new(10, Popularity::Sequential, &mut SmallRng::seed_from_u64(2));
        assert_eq!(counts(&catalogue, 50), [5; 10]);
    }

    #[test]
    fn a_shift_brings_an_object_that_was_not_there() {
        let mut random = SmallRng::seed_from_u64(3);
        let catalogue = Catalogue::new(2, Popularity::Uniform, &mut random);
        (0..50).for_each(|_| catalogue.shift(&mut random));
        assert!((0..20).all(|_| (2..52).contains(&catalogue.next(&mut random))));
        assert_eq!(catalogue.len(), 2);
    }

    #[test]
    fn what_is_no_law_is_refused() {
        for text in ["", "zipf:", "zipf:0", "zipf:-1", "zipf:nan", "zipf:9", "pareto"] {
            assert!(text.parse::<Popularity>().unwrap_err().contains("zipf:0.9"), "{text}");
        }
    }
}
