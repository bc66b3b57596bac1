//! A request's place on a server: counted while it is held, whatever way it ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pingora::upstreams::peer::HttpPeer;

use super::ServerId;
use super::endpoint::Endpoint;
use super::health::{Admission, Change};
use super::pool::{Member, Pool, Server};

/// As good as closing a connection after its request.
pub const NOT_AT_ALL: Duration = Duration::from_millis(1);

/// One request under way at one address. Dropping it makes room for another.
pub struct Lease {
    pool: Arc<Pool>,
    endpoint: Arc<Endpoint>,
    server: usize,
    /// It is asked although it is out.
    trial: bool,
    /// How many were under way there with it when it began.
    place: usize,
    /// It is the one request that finds out whether the address is back.
    probe: bool,
}

impl Lease {
    /// Takes a place; `None` if there is none left.
    pub(super) fn take(pool: &Arc<Pool>, member: &Member, now: SystemTime) -> Option<Self> {
        let Member { server: index, endpoint } = member;
        let server = pool.servers.get(*index)?;
        let place = endpoint.enter(server.most)?;
        server.handles.in_flight.inc();
        let mut state = endpoint.state.lock();
        let admission = state.health.admit(now);
        let probe = admission == Admission::Probe;
        if probe {
            state.health.begin_probe();
        }
        let trial = admission != Admission::Healthy;
        drop(state);
        Some(Self { pool: Arc::clone(pool), endpoint: Arc::clone(endpoint), server: *index, trial, place, probe })
    }

    /// The server and its address.
    pub fn server(&self) -> ServerId {
        ServerId { index: self.server, address: self.endpoint.address }
    }

    /// The server answered with `status`, its head `took` so long. Some statuses are failures if the origin's settings
    /// say so.
    pub fn answered(&self, status: u16, took: Duration) {
        if self.pool.rules.fail_statuses.contains(&status) {
            return self.failed();
        }
        let now = self.pool.clock.now();
        let (change, latency) = {
            let mut state = self.endpoint.state.lock();
            state.latency.observe(took, now);
            let change = state.health.succeed(self.trial, now, self.pool.rules.health);
            if change == Change::Back {
                state.up_since = Some(now);
            }
            (change, state.latency.seconds(now))
        };
        if let (Some(server), Some(latency)) = (self.own(), latency) {
            server.handles.latency.set(latency);
        }
        self.tell(change);
    }

    /// The server could not be reached, broke off, or took too long.
    pub fn failed(&self) {
        let now = self.pool.clock.now();
        let change = {
            let mut state = self.endpoint.state.lock();
            state.latency.fail(now);
            state.health.fail(self.trial, now, self.pool.rules.health)
        };
        self.tell(change);
    }

    /// Another server answered before this one, which had so long. Its average hears of that, its health does not.
    pub fn outpaced(&self, had: Duration) {
        self.endpoint.state.lock().latency.observe(had, self.pool.clock.now());
    }

    /// Whether its server is asked although it is out.
    pub(super) fn is_trial(&self) -> bool {
        self.trial
    }

    /// For pingora, with all connection options.
    pub(super) fn peer(&self) -> HttpPeer {
        // A lease is only taken on a server of its pool.
        let mut peer = self.own().map_or_else(
            || HttpPeer::new(self.endpoint.address, false, String::new()),
            |server| server.peer.peer(self.endpoint.address),
        );
        // A connection is kept if it was one of the first so many at work. So no more than that are ever idle: with one at
        // work less than that, the next takes an idle one, if there is one.
        if self.pool.rules.max_idle.is_some_and(|most| self.place > most as usize) {
            peer.options.idle_timeout = Some(NOT_AT_ALL);
        }
        peer
    }

    fn own(&self) -> Option<&Server> {
        self.pool.servers.get(self.server)
    }

    fn tell(&self, change: Change) {
        let Some(server) = self.own().filter(|_| change != Change::None) else { return };
        let (origin, address) = (&self.pool.handles.name, self.endpoint.address);
        self.pool.show(self.server);
        match change {
            Change::None => {}
            Change::Ejected(reason, span) => {
                server.handles.ejected(reason.as_str());
                tracing::warn!(%origin, %address, reason = reason.as_str(), seconds = span.as_secs_f64(), "server ejected");
            }
            Change::Back => tracing::info!(%origin, %address, "server is back"),
        }
        self.pool.serve();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.probe {
            self.endpoint.state.lock().health.end_probe();
        }
        self.endpoint.leave();
        if let Some(server) = self.own() {
            server.handles.in_flight.dec();
        }
        self.pool.freed();
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("server", &self.server()).field("trial", &self.trial).finish_non_exhaustive()
    }
}
