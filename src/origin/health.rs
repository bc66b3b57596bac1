//! Passive health of one address: failures in a row put it out, one success puts it back.

use std::time::{Duration, SystemTime};

/// When an address is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures in a row within `eject_for` that eject; 0: never.
    pub max_fails: u32,
    /// How long a failure counts, and how long an ejection lasts.
    pub eject_for: Duration,
}

/// Failures of one address since its last success.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    fails: u32,
    counting_since: SystemTime,
    ejected_at: Option<SystemTime>,
}

/// Whether an address may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// As any other.
    Healthy,
    /// Once, to see whether it is back; the next probe is due after another `eject_for`.
    Probe,
    /// No.
    Ejected,
}

impl Health {
    /// No failures yet.
    pub fn new(now: SystemTime) -> Self {
        Self { fails: 0, counting_since: now, ejected_at: None }
    }

    /// Whether it is out, probes aside.
    pub fn is_ejected(&self) -> bool {
        self.ejected_at.is_some()
    }

    /// Whether it may be asked now.
    pub fn admit(&mut self, now: SystemTime, limits: Limits) -> Admission {
        match self.ejected_at {
            None => Admission::Healthy,
            Some(since) if within(since, limits.eject_for, now) => Admission::Ejected,
            Some(_) => {
                // One request at a time finds out; a crowd would all wait for a server that may still be dead.
                self.ejected_at = Some(now);
                Admission::Probe
            }
        }
    }

    /// Counts a failure; true if it ejects an address that was in.
    pub fn fail(&mut self, now: SystemTime, limits: Limits) -> bool {
        if limits.max_fails == 0 {
            return false;
        }
        if self.is_ejected() {
            self.ejected_at = Some(now);
            return false;
        }
        if !within(self.counting_since, limits.eject_for, now) {
            self.fails = 0;
        }
        if self.fails == 0 {
            self.counting_since = now;
        }
        self.fails = self.fails.saturating_add(1);
        if self.fails >= limits.max_fails {
            self.ejected_at = Some(now);
        }
        self.is_ejected()
    }
}

/// Whether `now` is within `span` after `since`; a clock that was set back ends the span.
fn within(since: SystemTime, span: Duration, now: SystemTime) -> bool {
    now.duration_since(since).is_ok_and(|age| age < span)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_fails: 2, eject_for: Duration::from_secs(10) };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + seconds)
    }

    #[test]
    fn failures_in_a_row_eject_and_a_probe_follows() {
        let mut health = Health::new(at(0));
        assert!(!health.fail(at(0), LIMITS));
        assert_eq!(health.admit(at(1), LIMITS), Admission::Healthy);
        assert!(health.fail(at(1), LIMITS));
        assert_eq!(health.admit(at(10), LIMITS), Admission::Ejected);
        assert_eq!(health.admit(at(11), LIMITS), Admission::Probe);
        assert_eq!(health.admit(at(12), LIMITS), Admission::Ejected);
        assert!(!health.fail(at(13), LIMITS));
        assert_eq!(health.admit(at(22), LIMITS), Admission::Ejected);
        assert_eq!(health.admit(at(23), LIMITS), Admission::Probe);
    }

    #[test]
    fn failures_far_apart_do_not_add_up() {
        let mut health = Health::new(at(0));
        for seconds in [0, 10, 20, 30] {
            assert!(!health.fail(at(seconds), LIMITS));
        }
    }

    #[test]
    fn without_a_limit_nothing_is_ejected() {
        let mut health = Health::new(at(0));
        let limits = Limits { max_fails: 0, ..LIMITS };
        assert!((0..100).all(|_| !health.fail(at(0), limits)));
        assert_eq!(health.admit(at(0), limits), Admission::Healthy);
    }

    #[test]
    fn a_clock_set_back_does_not_prolong_an_ejection() {
        let mut health = Health::new(at(100));
        health.fail(at(100), LIMITS);
        health.fail(at(100), LIMITS);
        assert_eq!(health.admit(at(0), LIMITS), Admission::Probe);
    }
}
