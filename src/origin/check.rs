//! Active health: servers are asked in the background, whatever requests do.

mod probe;

use std::sync::{Arc, Weak};
use std::time::Duration;

use ::http::Method;
use futures::future::join_all;
use pingora::connectors::http::Connector;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::balance::Random;
use super::pool::{Member, Pool};
pub(super) use probe::Finding;

/// What is asked, and what counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// From one round to the next; more than 0.
    pub interval: Duration,
    /// Within which the whole answer has to be there; more than 0.
    pub timeout: Duration,
    /// Passes in a row after which a server that was down is up, at least 1.
    pub rise: u32,
    /// Failures in a row after which a server that was up is down, at least 1.
    pub fall: u32,
    /// Each check comes up to this many percent of the interval late, so that not all servers are asked at once.
    pub jitter: u8,
}

/// What is asked of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// An HTTP request.
    Http {
        /// The method.
        method: Method,
        /// Path and query.
        path: String,
        /// The lowest and the highest status that passes.
        statuses: (u16, u16),
        /// The `Host`; `None`: the origin's, or the server's own host and port.
        host: Option<String>,
        /// What the first 64 KiB of the content have to contain.
        body: Option<String>,
    },
    /// That it takes a TCP connection.
    Tcp,
    /// `grpc.health.v1.Health/Check` over HTTP/2.
    Grpc {
        /// The service asked about; empty: the server as a whole.
        service: String,
    },
}

/// What the checks of one address say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdicts {
    up: bool,
    /// Findings in a row that speak against `up`.
    against: u32,
}

impl Default for Verdicts {
    /// Before the first check an address counts as up.
    fn default() -> Self {
        Self { up: true, against: 0 }
    }
}

impl Verdicts {
    /// Whether it may be asked, as far as checks know.
    pub fn is_up(self) -> bool {
        self.up
    }

    /// Counts a finding; true if it changed whether the address is up.
    pub fn note(&mut self, passed: bool, rise: u32, fall: u32) -> bool {
        if passed == self.up {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let changes = self.against >= if self.up { fall } else { rise }.max(1);
        if changes {
            *self = Self { up: passed, against: 0 };
        }
        changes
    }
}

/// Checks under way; dropping it ends them.
#[derive(Debug)]
pub(super) struct Checking(JoinHandle<()>);

impl Checking {
    /// Begins to check the servers of `pool`. It ends with the pool at the latest.
    pub fn start(pool: &Arc<Pool>, check: Check, host: Option<String>) -> Self {
        Self(tokio::spawn(rounds(Arc::downgrade(pool), check, host)))
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn rounds(pool: Weak<Pool>, check: Check, host: Option<String>) {
    let connector = Connector::<()>::new(None);
    let mut random = Random::seeded(super::pool::seed());
    loop {
        let begun = Instant::now();
        {
            let Some(pool) = pool.upgrade() else { return };
            pool.resolve().await;
            let members = pool.members();
            let checks = members.iter().map(|member| {
                let delay = check.interval.mul_f64(f64::from(check.jitter.min(100)) / 100.0 * random.unit());
                one(&pool, member, &check, host.as_deref(), delay, &connector)
            });
            join_all(checks).await;
        }
        sleep(check.interval.saturating_sub(begun.elapsed()).max(Duration::from_millis(1))).await;
    }
}

async fn one(
    pool: &Arc<Pool>,
    member: &Member,
    check: &Check,
    host: Option<&str>,
    delay: Duration,
    connector: &Connector<()>,
) {
    sleep(delay).await;
    let Some(server) = pool.servers.get(member.server) else { return };
    let asked = probe::ask(&check.probe, server, member.endpoint.address, host, check.timeout, connector);
    let finding = timeout(check.timeout, asked).await.unwrap_or(Finding::TimedOut);
    let passed = finding == Finding::Passed;
    if passed {
        server.handles.passed.inc()
    } else {
        server.handles.failed.inc()
    }
    pool.note_check(member, &finding, check.rise, check.fall);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_several_findings_in_a_row_to_change_a_verdict() {
        let mut verdicts = Verdicts::default();
        assert!(verdicts.is_up());
        // p: passed, f: failed; the upper case ones change the verdict.
        for (step, finding) in "ffpffFfpfpPfpffF".chars().enumerate() {
            let passed = finding.eq_ignore_ascii_case(&'p');
            let changed = verdicts.note(passed, 2, 3);
            assert_eq!(changed, finding.is_ascii_uppercase(), "step {step}");
        }
        assert!(!verdicts.is_up());
    }
}
