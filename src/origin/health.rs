//! Passive health of one address: what requests meet puts it out, and lets it back in by steps.
//!
//! Closed (as any other) → open (left out, longer each time in a row) → half open (one request at a time finds out) →
//! closed.

use std::time::{Duration, SystemTime};

use super::window::Window;

/// When an address is left out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Failures in a row within `eject_for` that eject; 0: never.
    pub max_fails: u32,
    /// How long a failure counts, and how long the first ejection lasts; it doubles each time in a row.
    pub eject_for: Duration,
    /// The longest an ejection lasts.
    pub max_eject_for: Duration,
    /// Percentage of failed requests within `window` that ejects; 0: never.
    pub error_rate: u32,
    /// What the rate is taken over.
    pub window: Duration,
    /// Requests within `window` below which there is no rate.
    pub min_requests: u32,
    /// Successes in a row of a half-open address that close it; at least 1.
    pub probes: u32,
}

/// What is known of one address.
#[derive(Clone, Debug)]
pub(super) struct Health {
    fails: u32,
    counting_since: SystemTime,
    /// Requests and failures.
    window: Window,
    phase: Phase,
    /// Ejections in a row.
    ejections: u32,
    /// When it was last ejected, and for how long.
    last: (SystemTime, Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open,
    HalfOpen { probing: bool, passed: u32 },
}

/// Whether an address may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// As any other.
    Healthy,
    /// One request at a time, to see whether it is back.
    Probe,
    /// No.
    Ejected,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that others see.
    None,
    /// It is out, for this long.
    Ejected(Reason, Duration),
    /// It is back in.
    Back,
}

/// Why an address is put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Failures in a row.
    Failures,
    /// Too large a part of its requests failed.
    ErrorRate,
    /// It failed when it was tried again.
    Probe,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Failures, Self::ErrorRate, Self::Probe];

    /// The label of metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::ErrorRate => "error_rate",
            Self::Probe => "probe",
        }
    }
}

impl Health {
    /// No failures yet.
    pub fn new(now: SystemTime, limits: Limits) -> Self {
        Self {
            fails: 0,
            counting_since: now,
            window: Window::new(limits.window),
            phase: Phase::Closed,
            ejections: 0,
            last: (now, Duration::ZERO),
        }
    }

    /// Goes on under other limits.
    pub fn adopt(&mut self, limits: Limits) {
        self.window.stretch(limits.window);
        if limits.max_fails == 0 && limits.error_rate == 0 {
            self.phase = Phase::Closed;
        }
    }

    /// Whether it waits for, or makes, the requests that find out whether it is back.
    pub fn is_half_open(&self) -> bool {
        matches!(self.phase, Phase::HalfOpen { .. })
    }

    /// Ejections in a row.
    pub fn ejections(&self) -> u32 {
        self.ejections
    }

    /// Whether it is out, probes aside.
    pub fn is_ejected(&self) -> bool {
        self.phase != Phase::Closed
    }

    /// Whether it may be asked now.
    pub fn admit(&mut self, now: SystemTime) -> Admission {
        if self.phase == Phase::Open && !within(self.last.0, self.last.1, now) {
            self.phase = Phase::HalfOpen { probing: false, passed: 0 };
        }
        match self.phase {
            Phase::Closed => Admission::Healthy,
            // A crowd would all wait for a server that may still be dead.
            Phase::HalfOpen { probing: false, .. } => Admission::Probe,
            Phase::Open | Phase::HalfOpen { .. } => Admission::Ejected,
        }
    }

    /// A request is sent to see whether it is back.
    pub fn begin_probe(&mut self) {
        if let Phase::HalfOpen { probing, .. } = &mut self.phase {
            *probing = true;
        }
    }

    /// That request is over, whatever came of it.
    pub fn end_probe(&mut self) {
        if let Phase::HalfOpen { probing, .. } = &mut self.phase {
            *probing = false;
        }
    }

    /// Counts an answer. `trial`: it was asked although it was out.
    pub fn succeed(&mut self, trial: bool, now: SystemTime, limits: Limits) -> Change {
        self.window.add(now, 1, 0);
        if self.phase == Phase::Closed {
            self.fails = 0;
            return Change::None;
        }
        if !trial {
            // It was asked before it was put out, and says nothing of what it is like now.
            return Change::None;
        }
        let (probing, passed) = match self.phase {
            Phase::HalfOpen { probing, passed } => (probing, passed + 1),
            Phase::Open | Phase::Closed => (false, 1),
        };
        if passed < limits.probes {
            self.phase = Phase::HalfOpen { probing, passed };
            return Change::None;
        }
        self.fails = 0;
        self.window.clear();
        self.phase = Phase::Closed;
        Change::Back
    }

    /// Counts a failure. `trial`: it was asked although it was out.
    pub fn fail(&mut self, trial: bool, now: SystemTime, limits: Limits) -> Change {
        if self.is_ejected() {
            return if trial { self.eject(Reason::Probe, now, limits) } else { Change::None };
        }
        if !within(self.counting_since, limits.eject_for, now) {
            self.fails = 0;
        }
        if self.fails == 0 {
            self.counting_since = now;
        }
        self.fails = self.fails.saturating_add(1);
        self.window.add(now, 1, 1);
        if limits.max_fails > 0 && self.fails >= limits.max_fails {
            return self.eject(Reason::Failures, now, limits);
        }
        let (requests, failures) = self.window.sums(now);
        let many = requests >= u64::from(limits.min_requests.max(1));
        if limits.error_rate > 0 && many && failures * 100 >= requests * u64::from(limits.error_rate) {
            return self.eject(Reason::ErrorRate, now, limits);
        }
        Change::None
    }

    fn eject(&mut self, reason: Reason, now: SystemTime, limits: Limits) -> Change {
        let (since, span) = self.last;
        if reason != Reason::Probe && !within(since, span.saturating_mul(3), now) {
            // It has been in for twice as long as it was out.
            self.ejections = 0;
        }
        let doubled = limits.eject_for.saturating_mul(1 << self.ejections.min(20));
        let span = doubled.min(limits.max_eject_for.max(limits.eject_for));
        self.ejections = self.ejections.saturating_add(1);
        self.last = (now, span);
        self.phase = Phase::Open;
        self.fails = 0;
        Change::Ejected(reason, span)
    }
}

/// Whether `now` is within `span` after `since`; a clock that was set back ends the span.
pub(super) fn within(since: SystemTime, span: Duration, now: SystemTime) -> bool {
    now.duration_since(since).is_ok_and(|age| age < span)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_fails: 2,
        eject_for: Duration::from_secs(10),
        max_eject_for: Duration::from_secs(60),
        error_rate: 0,
        window: Duration::from_secs(10),
        min_requests: 10,
        probes: 1,
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + seconds)
    }

    fn ejected(reason: Reason, seconds: u64) -> Change {
        Change::Ejected(reason, Duration::from_secs(seconds))
    }

    #[test]
    fn failures_in_a_row_eject_and_a_probe_follows() {
        let mut health = Health::new(at(0), LIMITS);
        assert_eq!(health.fail(false, at(0), LIMITS), Change::None);
        assert_eq!(health.admit(at(1)), Admission::Healthy);
        assert_eq!(health.fail(false, at(1), LIMITS), ejected(Reason::Failures, 10));
        assert_eq!(health.admit(at(10)), Admission::Ejected);
        assert_eq!(health.admit(at(11)), Admission::Probe);
        health.begin_probe();
        assert_eq!(health.admit(at(12)), Admission::Ejected);
        assert_eq!(health.succeed(true, at(13), LIMITS), Change::Back);
        assert_eq!(health.admit(at(13)), Admission::Healthy);
    }

    #[test]
    fn each_ejection_in_a_row_is_twice_as_long_up_to_the_longest() {
        let mut health = Health::new(at(0), LIMITS);
        health.fail(false, at(0), LIMITS);
        assert_eq!(health.fail(false, at(0), LIMITS), ejected(Reason::Failures, 10));
        let mut now = 0;
        for (after, next) in [(10, 20), (20, 40), (40, 60), (60, 60)] {
            now += after;
            assert_eq!(health.admit(at(now - 1)), Admission::Ejected, "{now}");
            assert_eq!(health.admit(at(now)), Admission::Probe, "{now}");
            assert_eq!(health.fail(true, at(now), LIMITS), ejected(Reason::Probe, next));
        }
        assert_eq!(health.admit(at(now + 60)), Admission::Probe);
        assert_eq!(health.succeed(true, at(now + 60), LIMITS), Change::Back);
        // Soon after it was out for long, and then after it was in for long.
        health.fail(false, at(now + 61), LIMITS);
        assert_eq!(health.fail(false, at(now + 61), LIMITS), ejected(Reason::Failures, 60));
        now += 61 + 180;
        assert_eq!(health.admit(at(now)), Admission::Probe);
        health.succeed(true, at(now), LIMITS);
        health.fail(false, at(now), LIMITS);
        assert_eq!(health.fail(false, at(now), LIMITS), ejected(Reason::Failures, 10));
    }

    #[test]
    fn it_closes_after_as_many_successes_as_configured() {
        let limits = Limits { probes: 3, ..LIMITS };
        let mut health = Health::new(at(0), limits);
        health.fail(false, at(0), limits);
        health.fail(false, at(0), limits);
        for n in 1..=3 {
            assert_eq!(health.admit(at(10)), Admission::Probe, "{n}");
            health.begin_probe();
            assert_eq!(health.admit(at(10)), Admission::Ejected, "{n}");
            assert_eq!(health.succeed(true, at(10), limits), if n == 3 { Change::Back } else { Change::None }, "{n}");
            health.end_probe();
        }
        assert_eq!(health.admit(at(10)), Admission::Healthy);
    }

    #[test]
    fn a_probe_without_an_outcome_makes_room_for_another() {
        let mut health = Health::new(at(0), LIMITS);
        health.fail(false, at(0), LIMITS);
        health.fail(false, at(0), LIMITS);
        assert_eq!(health.admit(at(10)), Admission::Probe);
        health.begin_probe();
        health.end_probe();
        assert_eq!(health.admit(at(10)), Admission::Probe);
    }

    #[test]
    fn what_was_asked_before_the_ejection_does_not_count_after_it() {
        let mut health = Health::new(at(0), LIMITS);
        health.fail(false, at(0), LIMITS);
        health.fail(false, at(0), LIMITS);
        assert_eq!(health.succeed(false, at(1), LIMITS), Change::None);
        assert_eq!(health.fail(false, at(9), LIMITS), Change::None);
        assert_eq!(health.admit(at(9)), Admission::Ejected);
        assert_eq!(health.admit(at(10)), Admission::Probe);
    }

    #[test]
    fn a_rate_of_errors_ejects_once_there_are_enough_requests() {
        let limits = Limits { max_fails: 0, error_rate: 50, ..LIMITS };
        let mut health = Health::new(at(0), limits);
        for n in 0..4 {
            assert_eq!(health.fail(false, at(0), limits), Change::None, "{n}");
            health.succeed(false, at(0), limits);
        }
        health.succeed(false, at(1), limits);
        assert_eq!(health.fail(false, at(1), limits), ejected(Reason::ErrorRate, 10));
        let mut health = Health::new(at(0), limits);
        (0..50).for_each(|_| assert_eq!(health.succeed(false, at(0), limits), Change::None));
        (0..49).for_each(|_| assert_eq!(health.fail(false, at(0), limits), Change::None));
        // Ten seconds on, the good ones are forgotten, and so are the bad ones.
        (0..9).for_each(|_| assert_eq!(health.fail(false, at(20), limits), Change::None));
        assert_eq!(health.fail(false, at(20), limits), ejected(Reason::ErrorRate, 10));
    }

    #[test]
    fn failures_far_apart_do_not_add_up() {
        let mut health = Health::new(at(0), LIMITS);
        for seconds in [0, 10, 20, 30] {
            assert_eq!(health.fail(false, at(seconds), LIMITS), Change::None);
        }
    }

    #[test]
    fn without_a_limit_nothing_is_ejected() {
        let limits = Limits { max_fails: 0, ..LIMITS };
        let mut health = Health::new(at(0), limits);
        assert!((0..100).all(|_| health.fail(false, at(0), limits) == Change::None));
        assert_eq!(health.admit(at(0)), Admission::Healthy);
    }

    #[test]
    fn a_clock_set_back_does_not_prolong_an_ejection() {
        let mut health = Health::new(at(100), LIMITS);
        health.fail(false, at(100), LIMITS);
        health.fail(false, at(100), LIMITS);
        assert_eq!(health.admit(at(0)), Admission::Probe);
    }
}
