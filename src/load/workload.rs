//! Which requests are made.

use super::popularity::{Catalogue, Popularity};
use super::replay::{Log, What};
use super::sizes::Sizes;
use super::template::Template;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// One request to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which of the URLs it is made from.
    pub template: usize,
    /// In place of the URL's host.
    pub host: Option<String>,
    pub target: String,
    pub head: bool,
    /// The size of the object, where it is known.
    pub size: Option<u64>,
    /// Only in a replay by the log's own times: after the first one.
    pub at: Option<Duration>,
}

/// Makes requests, for any number of tasks at a time.
pub struct Workload {
    templates: Vec<Template>,
    sizes: Sizes,
    source: Source,
}

enum Source {
    Catalogue(Catalogue),
    Log {
        log: Log,
        next: AtomicUsize,
        /// What the log's times are multiplied with; `None`: as fast as the model goes, again and again.
        pace: Option<f64>,
        /// Numbers of a trace's keys.
        numbers: Mutex<HashMap<String, u64>>,
    },
}

impl Workload {
    /// Objects of a catalogue: each URL is one, or, with a place for a number, `objects` many.
    ///
    /// # Errors
    /// No URL, or one with a place for a key.
    pub fn catalogue(
        templates: Vec<Template>,
        objects: u64,
        popularity: Popularity,
        sizes: Sizes,
        seed: u64,
    ) -> Result<Self, String> {
        if templates.is_empty() {
            return Err("no URL to load; give one, as in https://www.example.com/objects/{n}".to_owned());
        }
        // Numbers go round: object k is the number k / URLs of URL k % URLs.
        let each = if templates.iter().any(Template::is_many) { objects } else { 1 };
        let count = each.checked_mul(templates.len() as u64).filter(|count| *count <= u64::from(u32::MAX));
        let count = count.ok_or("more than 4,294,967,295 objects")?;
        let catalogue = Catalogue::new(count, popularity, &mut SmallRng::seed_from_u64(seed));
        Ok(Self { templates, sizes, source: Source::Catalogue(catalogue) })
    }

    /// The requests of a log or a trace, made of the first URL: its host counts where the log tells none. With `speed`, at
    /// the log's own times divided by it, once; without, in the log's order again and again.
    pub fn replay(template: Template, log: Log, speed: Option<f64>) -> Self {
        let source =
            Source::Log { log, next: AtomicUsize::new(0), pace: speed.map(f64::recip), numbers: Mutex::default() };
        Self { templates: vec![template], sizes: Sizes::default(), source }
    }

    /// The URLs that requests are made from.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// Whether requests have times of their own.
    pub fn is_timed(&self) -> bool {
        matches!(self.source, Source::Log { pace: Some(_), .. })
    }

    /// The next request; `None` where a replay is at its end.
    pub fn next(&self, random: &mut SmallRng) -> Option<Asked> {
        match &self.source {
            Source::Catalogue(catalogue) => {
                let object = catalogue.next(random);
                let (template, number) = self.place(object);
                let size = self.sizes.of(object);
                let of = &self.templates[template];
                let target = of.target(number, &number.to_string(), size);
                Some(Asked { template, host: None, target, head: false, size: of.is_many().then_some(size), at: None })
            }
            Source::Log { log, next, pace, numbers } => {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let at = if pace.is_some() { at } else { at % log.entries.len() };
                let entry = log.entries.get(at)?;
                let asked = |host, target, size| Asked {
                    template: 0,
                    host,
                    target,
                    head: entry.head,
                    size,
                    at: pace.map(|pace| entry.at.mul_f64(pace)),
                };
                Some(match &entry.what {
                    What::Target { host, target } => asked(host.clone(), target.clone(), None),
                    What::Object { key, size } => {
                        let number = {
                            let mut numbers = numbers.lock();
                            let next = numbers.len() as u64;
                            *numbers.entry(key.clone()).or_insert(next)
                        };
                        asked(None, self.templates[0].target(number, key, *size), Some(*size))
                    }
                })
            }
        }
    }

    fn place(&self, object: u64) -> (usize, u64) {
        let urls = self.templates.len() as u64;
        ((object % urls) as usize, object / urls)
    }

    /// Replaces a share of the catalogue by objects that nobody has asked for. Where URLs have no place for a number there is
    /// nothing to replace them with.
    pub fn shift(&self, objects: u64, random: &mut SmallRng) {
        if let Source::Catalogue(catalogue) = &self.source
            && self.templates.iter().all(Template::is_many)
        {
            (0..objects).for_each(|_| catalogue.shift(random));
        }
    }

    /// How many objects there are at a time, where there is a catalogue.
    pub fn objects(&self) -> Option<u64> {
        match &self.source {
            Source::Catalogue(catalogue) => Some(catalogue.len()),
            Source::Log { .. } => None,
        }
    }
}

/// Some of the requests, by chance.
pub fn chance(share: f64, random: &mut SmallRng) -> bool {
    share > 0.0 && random.random::<f64>() < share
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::replay::Entry;
    use std::collections::BTreeSet;

    fn template(text: &str) -> Template {
        text.parse().unwrap()
    }

    #[test]
    fn every_object_of_every_url_is_asked_for() {
        let templates = vec![template("http://a/x/{n}/{size}"), template("http://b/y/{n}")];
        let sizes = "7".parse().unwrap();
        let workload = Workload::catalogue(templates, 3, Popularity::Sequential, sizes, 1).unwrap();
        assert_eq!(workload.objects(), Some(6));
        let mut random = SmallRng::seed_from_u64(1);
        let asked: BTreeSet<_> = (0..12).map(|_| workload.next(&mut random).unwrap().target).collect();
        let wanted = ["/x/0/7", "/x/1/7", "/x/2/7", "/y/0", "/y/1", "/y/2"];
        assert_eq!(asked.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
        workload.shift(50, &mut random);
        assert!(workload.next(&mut random).is_some_and(|asked| !wanted.contains(&asked.target.as_str())));
    }

    #[test]
    fn plain_urls_are_objects_themselves() {
        let templates = vec![template("http://a/1"), template("http://a/2")];
        let workload = Workload::catalogue(templates, 1000, Popularity::Sequential, Sizes::default(), 1).unwrap();
        let mut random = SmallRng::seed_from_u64(1);
        workload.shift(10, &mut random);
        let asked: Vec<_> = (0..3).map(|_| workload.next(&mut random).unwrap().target).collect();
        assert_eq!((workload.objects(), asked), (Some(2), vec!["/1".to_owned(), "/2".to_owned(), "/1".to_owned()]));
    }

    #[test]
    fn a_replay_keeps_order_and_times() {
        let object = |at, key: &str| Entry {
            at: Duration::from_secs(at),
            head: false,
            what: What::Object { key: key.to_owned(), size: 9 },
        };
        let log = Log { entries: vec![object(0, "k"), object(4, "l"), object(6, "k")], left_out: 0 };
        let mut random = SmallRng::seed_from_u64(1);
        let timed = Workload::replay(template("http://h/{n}/{key}/{size}"), log.clone(), Some(2.0));
        let all: Vec<_> = std::iter::from_fn(|| timed.next(&mut random)).collect();
        let told: Vec<_> = all.iter().map(|asked| (asked.target.as_str(), asked.at.unwrap().as_secs())).collect();
        assert_eq!(told, [("/0/k/9", 0), ("/1/l/9", 2), ("/0/k/9", 3)]);
        let endless = Workload::replay(template("http://h/{key}"), log, None);
        assert_eq!(std::iter::from_fn(|| endless.next(&mut random)).take(7).count(), 7);
    }
}
