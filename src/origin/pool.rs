//! The servers of one origin: which is next, at which address, and which are left out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prometheus::IntGauge;

use super::health::{Admission, Health, Limits};
use super::http::peer::Template;
use super::resolve::{ResolveError, Resolver};
use super::{Outcome, PickError, Picked, ServerId};
use crate::clock::Clock;

/// Servers that answer alike.
pub(super) struct Pool {
    pub(super) servers: Vec<Server>,
    pub(super) limits: Limits,
    pub(super) resolver: Arc<Resolver>,
    pub(super) clock: Clock,
    next: AtomicUsize,
}

/// One server; each of its addresses has its own health.
pub(super) struct Server {
    host: Arc<str>,
    port: u16,
    peer: Template,
    up: IntGauge,
    next: AtomicUsize,
    state: Mutex<ServerState>,
}

#[derive(Default)]
struct ServerState {
    /// How many addresses it had when it was last resolved.
    addresses: usize,
    /// Those that failed since they last answered.
    failing: Vec<(SocketAddr, Health)>,
}

impl Pool {
    pub(super) fn new(servers: Vec<Server>, limits: Limits, resolver: Arc<Resolver>, clock: Clock) -> Self {
        Self { servers, limits, resolver, clock, next: AtomicUsize::new(0) }
    }

    pub(super) async fn pick(&self, tried: &[ServerId]) -> Result<Picked, PickError> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut unresolved: Option<ResolveError> = None;
        let mut seen = Choice::Nothing;
        for offset in 0..self.servers.len() {
            let index = first.wrapping_add(offset) % self.servers.len();
            let Some(server) = self.servers.get(index) else { continue };
            let addresses = match self.resolver.resolve(&server.host, server.port).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    unresolved = Some(error);
                    continue;
                }
            };
            match server.choose(index, &addresses, tried, self.clock.now(), self.limits) {
                Choice::Healthy(id) => return Ok(server.picked(id)),
                Choice::Tried => seen = Choice::Tried,
                Choice::Ejected(id) if matches!(seen, Choice::Nothing) => seen = Choice::Ejected(id),
                Choice::Ejected(_) | Choice::Nothing => {}
            }
        }
        // All that resolve are out: rather any of them than an error for certain.
        if let Choice::Ejected(id) = seen
            && let Some(server) = self.servers.get(id.index)
        {
            return Ok(server.picked(id));
        }
        match unresolved {
            Some(error) if tried.is_empty() => Err(PickError::Unresolved(error)),
            _ => Err(PickError::Exhausted),
        }
    }

    /// True if the report changed whether the server's address is left out.
    pub(super) fn report(&self, id: ServerId, outcome: Outcome) -> bool {
        let now = self.clock.now();
        self.servers.get(id.index).is_some_and(|server| server.report(id.address, outcome, now, self.limits))
    }
}

enum Choice {
    Healthy(ServerId),
    /// One that is in, but was tried for this request.
    Tried,
    Ejected(ServerId),
    Nothing,
}

impl Server {
    pub(super) fn new(host: Arc<str>, port: u16, peer: Template, up: IntGauge) -> Self {
        up.set(1);
        Self { host, port, peer, up, next: AtomicUsize::new(0), state: Mutex::default() }
    }

    fn picked(&self, id: ServerId) -> Picked {
        Picked { peer: self.peer.peer(id.address), server: id, address: id.address }
    }

    fn choose(
        &self,
        index: usize,
        addresses: &[SocketAddr],
        tried: &[ServerId],
        now: SystemTime,
        limits: Limits,
    ) -> Choice {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.addresses = addresses.len();
        // An address that the name no longer has is no longer this server's.
        state.failing.retain(|(address, _)| addresses.contains(address));
        let mut choice = Choice::Nothing;
        for offset in 0..addresses.len() {
            let Some(&address) = addresses.get(first.wrapping_add(offset) % addresses.len()) else { continue };
            let id = ServerId { index, address };
            let tried = tried.contains(&id);
            let health = state.failing.iter_mut().find(|(failing, _)| *failing == address).map(|(_, health)| health);
            match health {
                Some(health) if tried && health.is_ejected() => {}
                _ if tried => choice = Choice::Tried,
                Some(health) => match health.admit(now, limits) {
                    Admission::Healthy | Admission::Probe => return Choice::Healthy(id),
                    Admission::Ejected if matches!(choice, Choice::Nothing) => choice = Choice::Ejected(id),
                    Admission::Ejected => {}
                },
                None => return Choice::Healthy(id),
            }
        }
        choice
    }

    fn report(&self, address: SocketAddr, outcome: Outcome, now: SystemTime, limits: Limits) -> bool {
        let mut state = self.state.lock();
        let position = state.failing.iter().position(|(failing, _)| *failing == address);
        let changed = match (outcome, position) {
            (Outcome::Success, None) => return false,
            (Outcome::Success, Some(position)) => state.failing.swap_remove(position).1.is_ejected(),
            (Outcome::Failure, Some(position)) => {
                state.failing.get_mut(position).is_some_and(|(_, health)| health.fail(now, limits))
            }
            (Outcome::Failure, None) => {
                let mut health = Health::new(now);
                let ejected = health.fail(now, limits);
                state.failing.push((address, health));
                ejected
            }
        };
        let out = state.failing.iter().filter(|(_, health)| health.is_ejected()).count();
        self.up.set(i64::from(out < state.addresses.max(1)));
        changed
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(|server| (&server.host, server.port)).collect();
        f.debug_struct("Pool").field("servers", &servers).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Picked {
    /// Puts a connect and a read timeout in place of the origin's own.
    pub fn limit(&mut self, connect: Option<Duration>, read: Option<Duration>) {
        let options = &mut self.peer.options;
        if connect.is_some() {
            (options.connection_timeout, options.total_connection_timeout) = (connect, connect);
        }
        options.read_timeout = read.or(options.read_timeout);
    }

    /// Makes the connection fit for a request to upgrade it.
    pub fn for_upgrade(&mut self) {
        super::http::upgrade::prepare(&mut self.peer);
    }
}
