//! What selvedge's tiers are compared with, each as one cache of a number of bytes.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::input::{Request, Trace};
use selvedge::cache::admission::Rule;
use selvedge::cache::model::{self, stored_size};

/// A cache, or two, that a trace is replayed through.
pub trait Policy {
    /// Request number `n`; how many bytes of it were hits.
    fn request(&mut self, n: usize, object: u64, size: u64) -> u64;
    /// Bytes written so far.
    fn written(&self) -> u64;
}

/// selvedge's.
pub struct Tiers(model::Tiers);

impl Tiers {
    pub fn new(memory: u64, disk: u64, segment: u32, admission: Rule) -> Self {
        Self(model::Tiers::new(&model::Settings { memory, disk, segment, admission }))
    }
}

impl Policy for Tiers {
    fn request(&mut self, _: usize, object: u64, size: u64) -> u64 {
        self.0.request(object, size)
    }

    fn written(&self) -> u64 {
        self.0.written()
    }
}

/// The least recently used goes first.
pub struct Lru {
    capacity: u64,
    used: u64,
    written: u64,
    /// When last used, and bytes.
    objects: HashMap<u64, (u64, u64)>,
    order: BTreeSet<(u64, u64)>,
    now: u64,
}

impl Lru {
    pub fn new(capacity: u64) -> Self {
        Self { capacity, used: 0, written: 0, objects: HashMap::new(), order: BTreeSet::new(), now: 0 }
    }
}

impl Policy for Lru {
    fn request(&mut self, _: usize, object: u64, size: u64) -> u64 {
        self.now += 1;
        let weight = stored_size(size);
        if let Some((used, _)) = self.objects.get_mut(&object) {
            self.order.remove(&(*used, object));
            *used = self.now;
            self.order.insert((self.now, object));
            return size;
        }
        if weight > self.capacity {
            return 0;
        }
        self.used += weight;
        self.written += weight;
        self.objects.insert(object, (self.now, weight));
        self.order.insert((self.now, object));
        while self.used > self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.used -= self.objects.remove(&oldest).map_or(0, |(_, weight)| weight);
        }
        0
    }

    fn written(&self) -> u64 {
        self.written
    }
}

/// moka as it comes.
pub struct TinyLfu {
    objects: moka::sync::Cache<u64, u64>,
    written: u64,
}

impl TinyLfu {
    pub fn new(capacity: u64) -> Self {
        let weigher = |_: &u64, weight: &u64| u32::try_from(weight.div_ceil(64)).unwrap_or(u32::MAX);
        Self { objects: moka::sync::Cache::builder().max_capacity(capacity / 64).weigher(weigher).build(), written: 0 }
    }
}

impl Policy for TinyLfu {
    fn request(&mut self, _: usize, object: u64, size: u64) -> u64 {
        if self.objects.get(&object).is_some() {
            return size;
        }
        self.objects.insert(object, stored_size(size));
        self.objects.run_pending_tasks();
        // What was refused at once was not written.
        if self.objects.contains_key(&object) {
            self.written += stored_size(size);
        }
        0
    }

    fn written(&self) -> u64 {
        self.written
    }
}

/// Three queues: newcomers (a tenth), those that were hit, and the names of those that were not.
pub struct S3Fifo {
    capacity: u64,
    written: u64,
    objects: HashMap<u64, Queued>,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    small_used: u64,
    main_used: u64,
    ghost: VecDeque<(u64, u64, u64)>,
    ghosts: HashMap<u64, u64>,
    ghost_used: u64,
    turn: u64,
}

struct Queued {
    weight: u64,
    hits: u8,
}

impl S3Fifo {
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            written: 0,
            objects: HashMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            small_used: 0,
            main_used: 0,
            ghost: VecDeque::new(),
            ghosts: HashMap::new(),
            ghost_used: 0,
            turn: 0,
        }
    }

    fn evict_small(&mut self) {
        while let Some(object) = self.small.pop_front() {
            let Some(queued) = self.objects.get_mut(&object) else { continue };
            self.small_used -= queued.weight;
            if queued.hits > 1 {
                queued.hits = 0;
                self.main_used += queued.weight;
                self.main.push_back(object);
                continue;
            }
            let weight = queued.weight;
            self.objects.remove(&object);
            self.turn += 1;
            self.ghosts.insert(object, self.turn);
            self.ghost.push_back((object, weight, self.turn));
            self.ghost_used += weight;
            while self.ghost_used > self.capacity / 10 * 9
                && let Some((name, weight, turn)) = self.ghost.pop_front()
            {
                self.ghost_used -= weight;
                if self.ghosts.get(&name) == Some(&turn) {
                    self.ghosts.remove(&name);
                }
            }
            return;
        }
    }

    fn evict_main(&mut self) {
        while let Some(object) = self.main.pop_front() {
            let Some(queued) = self.objects.get_mut(&object) else { continue };
            if queued.hits > 0 {
                queued.hits -= 1;
                self.main.push_back(object);
                continue;
            }
            self.main_used -= queued.weight;
            self.objects.remove(&object);
            return;
        }
    }
}

impl Policy for S3Fifo {
    fn request(&mut self, _: usize, object: u64, size: u64) -> u64 {
        let weight = stored_size(size);
        if let Some(queued) = self.objects.get_mut(&object) {
            queued.hits = (queued.hits + 1).min(3);
            return size;
        }
        if weight > self.capacity {
            return 0;
        }
        while self.small_used + self.main_used + weight > self.capacity {
            if self.small_used > self.capacity / 10 || self.main.is_empty() {
                self.evict_small();
            } else {
                self.evict_main();
            }
        }
        self.written += weight;
        self.objects.insert(object, Queued { weight, hits: 0 });
        if self.ghosts.remove(&object).is_some() {
            self.main_used += weight;
            self.main.push_back(object);
        } else {
            self.small_used += weight;
            self.small.push_back(object);
        }
        0
    }

    fn written(&self) -> u64 {
        self.written
    }
}

/// Counts every request of every object for ever, each worth half as much after so many requests, and keeps what counts
/// most: where requests are independent of each other, nothing that does not know the future does better in the end.
pub struct Lfu {
    capacity: u64,
    used: u64,
    written: u64,
    /// By how much a request outweighs the one before it, as a logarithm.
    rise: f64,
    /// Of every object ever seen, when last asked for and what it counted then.
    counts: HashMap<u64, (usize, f64)>,
    objects: HashMap<u64, (u64, u64)>,
    order: BTreeSet<(u64, u64)>,
}

impl Lfu {
    /// `half_life` in requests; `None`: for ever.
    pub fn new(capacity: u64, half_life: Option<f64>) -> Self {
        let rise = half_life.map_or(0.0, |half_life| std::f64::consts::LN_2 / half_life.max(1.0));
        let (objects, order) = (HashMap::new(), BTreeSet::new());
        Self { capacity, used: 0, written: 0, rise, counts: HashMap::new(), objects, order }
    }

    /// Its weight among the others: the same whenever it is looked at.
    fn score(&mut self, n: usize, object: u64) -> u64 {
        let (last, count) = self.counts.entry(object).or_insert((n, 0.0));
        *count = *count * (-self.rise * (n - *last) as f64).exp() + 1.0;
        *last = n;
        ((count.ln() + self.rise * n as f64) * 1e6) as u64
    }
}

impl Policy for Lfu {
    fn request(&mut self, n: usize, object: u64, size: u64) -> u64 {
        let (score, weight) = (self.score(n, object), stored_size(size));
        if let Some((held, _)) = self.objects.get_mut(&object) {
            self.order.remove(&(*held, object));
            *held = score;
            self.order.insert((score, object));
            return size;
        }
        // Whatever would have to go for it has to count less.
        let mut missing = (self.used + weight).saturating_sub(self.capacity);
        let mut losers = self.order.iter().take_while(|(held, _)| *held < score);
        while missing > 0 {
            let Some((_, loser)) = losers.next() else { return 0 };
            missing = missing.saturating_sub(self.objects[loser].1);
        }
        while self.used + weight > self.capacity
            && let Some((_, loser)) = self.order.pop_first()
        {
            self.used -= self.objects.remove(&loser).map_or(0, |(_, weight)| weight);
        }
        self.used += weight;
        self.written += weight;
        self.objects.insert(object, (score, weight));
        self.order.insert((score, object));
        0
    }

    fn written(&self) -> u64 {
        self.written
    }
}

/// Knows the future: what is asked for last goes first, and what never is again is not stored. With objects of one size
/// nothing can do better.
pub struct Belady {
    capacity: u64,
    used: u64,
    written: u64,
    /// For each request, which is the next one of its object.
    next: Vec<usize>,
    objects: HashMap<u64, (usize, u64)>,
    order: BTreeSet<(usize, u64)>,
}

impl Belady {
    pub fn new(capacity: u64, trace: &Trace) -> Self {
        let mut next = vec![usize::MAX; trace.requests.len()];
        let mut seen: HashMap<u64, usize> = HashMap::new();
        for (n, Request { object, .. }) in trace.requests.iter().enumerate().rev() {
            next[n] = seen.insert(*object, n).unwrap_or(usize::MAX);
        }
        Self { capacity, used: 0, written: 0, next, objects: HashMap::new(), order: BTreeSet::new() }
    }
}

impl Policy for Belady {
    fn request(&mut self, n: usize, object: u64, size: u64) -> u64 {
        let (next, weight) = (self.next[n], stored_size(size));
        let held = self.objects.remove(&object);
        if let Some((due, weight)) = held {
            self.order.remove(&(due, object));
            self.used -= weight;
        }
        if next < usize::MAX && weight <= self.capacity {
            self.used += weight;
            self.objects.insert(object, (next, weight));
            self.order.insert((next, object));
            let mut refused = false;
            while self.used > self.capacity
                && let Some((_, last)) = self.order.pop_last()
            {
                refused |= last == object;
                self.used -= self.objects.remove(&last).map_or(0, |(_, weight)| weight);
            }
            if held.is_none() && !refused {
                self.written += weight;
            }
        }
        if held.is_some() { size } else { 0 }
    }

    fn written(&self) -> u64 {
        self.written
    }
}

/// A trace whose outcomes are known, through each policy.
pub fn self_test() {
    let unit = stored_size(1000);
    let hits = |policy: &mut dyn Policy, objects: &[u64]| -> Vec<bool> {
        objects.iter().enumerate().map(|(n, object)| policy.request(n, *object, 1000) > 0).collect()
    };
    // Two places: the third newcomer takes that of the least recently used.
    assert_eq!(hits(&mut Lru::new(2 * unit), &[1, 2, 1, 3, 1, 2]), [false, false, true, false, true, false]);
    let requests: Vec<Request> = [1, 2, 3, 1, 2, 4, 1].map(|object| Request { object, size: 1000 }).to_vec();
    let trace = Trace { requests, objects: 4, footprint: 4000 };
    let mut belady = Belady::new(2 * unit, &trace);
    assert_eq!(hits(&mut belady, &[1, 2, 3, 1, 2, 4, 1]), [false, false, false, true, true, false, true]);
    assert_eq!(belady.written(), 2 * unit);
    // A scan takes nothing from what was hit twice.
    let scan: Vec<u64> = [1, 1, 1].into_iter().chain(100..200).chain([1]).collect();
    assert_eq!(hits(&mut S3Fifo::new(20 * unit), &scan).last(), Some(&true));
    assert_eq!(hits(&mut Lru::new(20 * unit), &scan).last(), Some(&false));
    assert_eq!(
        hits(&mut Lfu::new(2 * unit, None), &[1, 1, 2, 3, 2, 1, 2, 3, 3, 3, 3]).iter().filter(|hit| **hit).count(),
        5
    );
    let mut tiny = TinyLfu::new(20 * unit);
    assert_eq!(hits(&mut tiny, &[1, 1]), [false, true]);
    assert_eq!(tiny.written(), unit);
    for rule in [Rule::All, Rule::SecondUse] {
        let mut tiers = Tiers::new(1 << 20, 10 << 20, 1 << 18, rule);
        assert_eq!(hits(&mut tiers, &[1, 1]), [false, true]);
        assert!(tiers.written() >= 1000 && tiers.written() < 2 * unit, "free segments take everything");
    }
}
