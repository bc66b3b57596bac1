//! The servers of one origin: which is next, at which address, which are left out, and who waits.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::balance::reach::{Reach, Standing, reach};
use super::balance::{Algorithm, Candidate, Random};
use super::budget::Budget;
use super::check::{Finding, Verdicts};
use super::endpoint::Endpoint;
use super::handles::{OriginHandles, ServerHandles};
use super::health::{Admission, Limits};
use super::http::peer::Template;
use super::lease::Lease;
use super::resolve::{ResolveError, Resolver};
use super::{PickError, ServerId};
use crate::clock::Clock;

/// How long a request waits for names that do not resolve at once while others do.
const PATIENCE: Duration = Duration::from_millis(200);

/// How the servers share requests.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub algorithm: Algorithm,
    pub health: Limits,
    /// Whether servers are checked.
    pub checked: bool,
    /// See [`super::settings::Health::panic`].
    pub panic: u8,
    pub slow_start: Duration,
    pub fail_statuses: Vec<u16>,
    /// Requests that may wait, and how long.
    pub queue: usize,
    pub queue_timeout: Duration,
}

/// Servers that answer alike.
pub(super) struct Pool {
    pub servers: Vec<Server>,
    pub rules: Rules,
    pub resolver: Arc<Resolver>,
    pub clock: Clock,
    pub handles: OriginHandles,
    state: Mutex<State>,
    waiting: AtomicUsize,
    /// Who takes over the servers: its requests wait for those of this one.
    successor: Mutex<Weak<Pool>>,
}

/// One server.
pub(super) struct Server {
    pub host: Arc<str>,
    pub port: u16,
    /// The address, where `host` is one.
    pub literal: Option<SocketAddr>,
    pub peer: Template,
    pub weight: u32,
    pub backup: bool,
    pub drain: bool,
    /// Requests at a time on each address; 0: without limit.
    pub most: u32,
    pub handles: ServerHandles,
}

struct State {
    choice: Choice,
    queue: VecDeque<Waiter>,
    tickets: u64,
    budget: Budget,
}

struct Choice {
    /// Every address, in the order of the servers.
    members: Vec<Member>,
    /// The servers that resolved at least once.
    known: Vec<bool>,
    random: Random,
}

/// One address of one server.
#[derive(Clone)]
pub(super) struct Member {
    pub server: usize,
    pub endpoint: Arc<Endpoint>,
}

/// What decides for a request where it may go.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Servers that failed for it.
    pub tried: Vec<ServerId>,
    /// By [`super::Origin::key`].
    pub key: Option<u64>,
}

struct Waiter {
    ticket: u64,
    ask: Ask,
    grant: oneshot::Sender<Lease>,
}

/// A place in the queue, given up when dropped.
struct Ticket<'p> {
    pool: &'p Pool,
    number: u64,
    granted: oneshot::Receiver<Lease>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Full,
    Exhausted,
}

impl Pool {
    /// What `before` knew of the same servers is taken over.
    pub fn new(
        servers: Vec<Server>,
        rules: Rules,
        budget: Budget,
        (resolver, clock): (Arc<Resolver>, Clock),
        handles: OriginHandles,
        before: Option<&Arc<Pool>>,
    ) -> Arc<Self> {
        let (members, known) = first_members(&servers, &rules, before, clock.now());
        let choice = Choice { members, known, random: Random::seeded(seed()) };
        let state = State { choice, queue: VecDeque::new(), tickets: 0, budget };
        let pool = Arc::new(Self {
            servers,
            rules,
            resolver,
            clock,
            handles,
            state: Mutex::new(state),
            waiting: AtomicUsize::new(0),
            successor: Mutex::default(),
        });
        if let Some(before) = before {
            *before.successor.lock() = Arc::downgrade(&pool);
        }
        (0..pool.servers.len()).for_each(|server| pool.show(server));
        pool
    }

    /// See [`super::Origin::pick`].
    pub async fn pick(self: &Arc<Self>, ask: &Ask) -> Result<Lease, PickError> {
        let unresolved = self.resolve().await;
        let now = self.clock.now();
        let ticket = {
            let mut state = self.state.lock();
            if ask.tried.is_empty() {
                state.budget.request(now);
            }
            let refused = match state.queue.is_empty() {
                true => match self.select(&mut state.choice, ask, now) {
                    Ok(lease) => return Ok(lease),
                    Err(refused) => refused,
                },
                false => Refused::Full,
            };
            match refused {
                Refused::Full if state.queue.len() < self.rules.queue => self.enqueue(&mut state, ask),
                Refused::Full => {
                    self.handles.queue_was_full();
                    return Err(PickError::QueueFull);
                }
                Refused::Exhausted => {
                    return Err(match unresolved {
                        Some(error) if ask.tried.is_empty() => PickError::Unresolved(error),
                        _ => PickError::Exhausted,
                    });
                }
            }
        };
        // Where others wait that cannot use what is free, this one may.
        self.serve();
        ticket.wait(self.rules.queue_timeout).await
    }

    /// Takes the finding of a check into account.
    pub fn note_check(self: &Arc<Self>, member: &Member, finding: &Finding, rise: u32, fall: u32) {
        let up = *finding == Finding::Passed;
        {
            let mut state = member.endpoint.state.lock();
            if !state.verdicts.note(up, rise, fall) {
                return;
            }
            if up {
                state.up_since = Some(self.clock.now());
            }
        }
        self.show(member.server);
        let (origin, address) = (&self.handles.name, member.endpoint.address);
        if up {
            tracing::info!(%origin, %address, "server passes its checks");
        } else {
            tracing::warn!(%origin, %address, %finding, "server fails its checks");
        }
        self.serve();
    }

    /// Whether one more attempt is within the budget; if so it is taken out of it.
    pub fn may_retry(&self) -> bool {
        let made = self.state.lock().budget.retry(self.clock.now());
        self.handles.retry(made);
        made
    }

    /// Has what was taken over of servers go by the rules of this pool.
    pub fn adopt(&self) {
        for Member { endpoint, .. } in self.members() {
            let mut state = endpoint.state.lock();
            state.health.adopt(self.rules.health);
            if !self.rules.checked {
                state.verdicts = Verdicts::default();
            }
        }
        (0..self.servers.len()).for_each(|server| self.show(server));
    }

    /// All addresses known now.
    pub fn members(&self) -> Vec<Member> {
        self.state.lock().choice.members.clone()
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether any server has a limit, so that requests may wait.
    pub fn is_limited(&self) -> bool {
        self.servers.iter().any(|server| server.most > 0)
    }

    /// A request is over: who waits for its place may have it.
    pub fn freed(self: &Arc<Self>) {
        // The server may have a limit by now where it had none.
        if self.is_limited() || self.successor.lock().strong_count() > 0 {
            self.serve();
        }
    }

    /// Lets those who wait, first come first served, have what has become free here and in those that took over.
    pub fn serve(self: &Arc<Self>) {
        let mut next = Some(Arc::clone(self));
        while let Some(pool) = next {
            pool.serve_own();
            next = pool.successor.lock().upgrade();
        }
    }

    fn serve_own(self: &Arc<Self>) {
        let mut grants = Vec::new();
        {
            let mut state = self.state.lock();
            let State { choice, queue, .. } = &mut *state;
            let now = self.clock.now();
            let mut place = 0;
            while let Some(waiter) = queue.get(place) {
                let lease = match self.select(choice, &waiter.ask, now) {
                    Err(Refused::Full) if waiter.ask.tried.is_empty() => break,
                    Err(Refused::Full) => {
                        place += 1;
                        continue;
                    }
                    Err(Refused::Exhausted) => None,
                    Ok(lease) => Some(lease),
                };
                if let Some(waiter) = queue.remove(place) {
                    grants.push((waiter.grant, lease));
                }
            }
            self.count_waiting(queue.len());
        }
        for (grant, lease) in grants {
            // Who has given up meanwhile gives it back, and it goes to the next by way of its drop.
            drop(lease.and_then(|lease| grant.send(lease).err()));
        }
    }

    fn enqueue(&self, state: &mut State, ask: &Ask) -> Ticket<'_> {
        let (grant, granted) = oneshot::channel();
        state.tickets += 1;
        let number = state.tickets;
        state.queue.push_back(Waiter { ticket: number, ask: ask.clone(), grant });
        self.count_waiting(state.queue.len());
        Ticket { pool: self, number, granted }
    }

    fn count_waiting(&self, n: usize) {
        let before = self.waiting.swap(n, Ordering::Relaxed);
        self.handles.queued.add(n as i64 - before as i64);
    }

    /// The server for a request among those known now.
    fn select(self: &Arc<Self>, choice: &mut Choice, ask: &Ask, now: SystemTime) -> Result<Lease, Refused> {
        let standing = |member: &Member| self.standing(member, ask, now);
        let standings: Vec<Standing> = choice.members.iter().map(standing).collect();
        let mut places = match reach(&standings, self.rules.panic) {
            Reach::Some(places) => places,
            Reach::Full => return Err(Refused::Full),
            Reach::Exhausted => return Err(Refused::Exhausted),
        };
        // Another generation of this origin may take the last place on a server between look and step.
        while !places.is_empty() {
            let mut candidates = self.candidates(choice, &places, now);
            let chosen = self.rules.algorithm.choose(&mut candidates, ask.key, &mut choice.random);
            for (place, candidate) in places.iter().zip(&candidates) {
                if let Some(member) = choice.members.get(*place) {
                    member.endpoint.state.lock().turn = candidate.turn;
                }
            }
            let Some(chosen) = chosen else { break };
            let member = choice.members.get(places.swap_remove(chosen));
            if let Some(lease) = member.and_then(|member| Lease::take(self, member, now)) {
                return Ok(lease);
            }
        }
        Err(Refused::Full)
    }

    fn standing(&self, member: &Member, ask: &Ask, now: SystemTime) -> Standing {
        let Member { server: index, endpoint } = member;
        let Some(server) = self.servers.get(*index) else { return Standing { draining: true, ..Standing::default() } };
        let mut state = endpoint.state.lock();
        Standing {
            backup: server.backup,
            draining: server.drain,
            up: state.verdicts.is_up() && state.health.admit(now) != Admission::Ejected,
            tried: ask.tried.contains(&ServerId { index: *index, address: endpoint.address }),
            full: server.most > 0 && endpoint.in_flight() >= server.most as usize,
        }
    }

    fn candidates(&self, choice: &Choice, places: &[usize], now: SystemTime) -> Vec<Candidate> {
        let members = places.iter().filter_map(|place| choice.members.get(*place));
        let candidate = |Member { server, endpoint }: &Member| {
            let weight = self.servers.get(*server).map_or(1, |server| server.weight);
            let state = endpoint.state.lock();
            Candidate {
                weight: state.weight(weight, self.rules.slow_start, now),
                in_flight: endpoint.in_flight(),
                latency: state.latency.seconds(now),
                id: endpoint.id,
                turn: state.turn,
            }
        };
        members.map(candidate).collect()
    }

    /// Brings the addresses up to date; the error of a name that has none.
    pub async fn resolve(&self) -> Option<ResolveError> {
        type LookUp<'p> = Pin<Box<dyn Future<Output = (usize, Result<Arc<[SocketAddr]>, ResolveError>)> + Send + 'p>>;
        let mut pending: FuturesUnordered<LookUp<'_>> = FuturesUnordered::new();
        let (mut error, mut ready) = (None, 0);
        for (index, server) in self.servers.iter().enumerate() {
            if server.literal.is_some() {
                ready += 1;
                continue;
            }
            match self.resolver.known(&server.host, server.port) {
                Some(result) => match self.learn(index, result) {
                    Ok(()) => ready += 1,
                    Err(failed) => error = Some(failed),
                },
                None => pending
                    .push(Box::pin(async move { (index, self.resolver.resolve(&server.host, server.port).await) })),
            }
        }
        if pending.is_empty() {
            return error;
        }
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            let resolved = tokio::select! {
                biased;
                next = pending.next() => next,
                () = &mut patience, if ready > 0 => None,
            };
            let Some((index, result)) = resolved else { return error };
            match self.learn(index, result) {
                Ok(()) => ready += 1,
                Err(failed) => error = Some(failed),
            }
        }
    }

    fn learn(&self, index: usize, result: Result<Arc<[SocketAddr]>, ResolveError>) -> Result<(), ResolveError> {
        let now = self.clock.now();
        let addresses = result.as_ref().map(|a| &**a).unwrap_or_default();
        let changed = {
            let mut state = self.state.lock();
            let Choice { members, known, .. } = &mut state.choice;
            let own = members.iter().filter(|m| m.server == index);
            if own.clone().map(|m| m.endpoint.address).eq(addresses.iter().copied()) {
                false
            } else {
                let first = members.iter().take_while(|m| m.server < index).count();
                let old: Vec<Member> = own.cloned().collect();
                members.retain(|m| m.server != index);
                let fresh = known.get(index).copied().unwrap_or_default();
                let new = addresses.iter().map(|address| {
                    let same = old.iter().find(|m| m.endpoint.address == *address).cloned();
                    same.unwrap_or_else(|| {
                        let endpoint = Arc::new(Endpoint::new(*address, fresh, now, self.rules.health));
                        Member { server: index, endpoint }
                    })
                });
                members.splice(first..first, new);
                if let Some(known) = known.get_mut(index).filter(|_| !addresses.is_empty()) {
                    *known = true;
                }
                true
            }
        };
        if changed {
            self.show(index);
        }
        result.map(|_| ())
    }

    /// Tells in `origin_server_up` whether a server is up: unless all its addresses are out.
    pub fn show(&self, server: usize) {
        let Some(handles) = self.servers.get(server).map(|s| &s.handles) else { return };
        let is_up = |m: &Member| {
            let state = m.endpoint.state.lock();
            state.verdicts.is_up() && !state.health.is_ejected()
        };
        let state = self.state.lock();
        let mut own = state.choice.members.iter().filter(|m| m.server == server).peekable();
        handles.up.set(i64::from(own.peek().is_none() || own.any(is_up)));
    }
}

impl Ticket<'_> {
    async fn wait(mut self, timeout: Duration) -> Result<Lease, PickError> {
        match tokio::time::timeout(timeout, &mut self.granted).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(_)) => Err(PickError::Exhausted),
            Err(_) => {
                self.pool.handles.waited_in_vain();
                Err(PickError::QueueTimeout)
            }
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.queue.retain(|waiter| waiter.ticket != self.number);
        self.pool.count_waiting(state.queue.len());
    }
}

/// The addresses known from the start: those that are written as such, and what the origin before knew.
fn first_members(
    servers: &[Server],
    rules: &Rules,
    before: Option<&Arc<Pool>>,
    now: SystemTime,
) -> (Vec<Member>, Vec<bool>) {
    let known = |server: &Server| -> Vec<Arc<Endpoint>> {
        let Some(before) = before else { return Vec::new() };
        let same = |m: &Member| {
            before.servers.get(m.server).is_some_and(|old| (&old.host, old.port) == (&server.host, server.port))
        };
        before.members().into_iter().filter(same).map(|m| m.endpoint).collect()
    };
    let mut members = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        let mut endpoints = known(server);
        if let Some(address) = server.literal.filter(|_| endpoints.is_empty()) {
            endpoints.push(Arc::new(Endpoint::new(address, before.is_some(), now, rules.health)));
        }
        members.extend(endpoints.into_iter().map(|endpoint| Member { server: index, endpoint }));
    }
    // What comes into an origin that serves already starts slowly, whether it resolves at once or later.
    let known = vec![before.is_some(); servers.len()];
    (members, known)
}

/// Another one each time.
pub(super) fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("choice of servers")
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(|server| (&server.host, server.port)).collect();
        f.debug_struct("Pool").field("servers", &servers).field("rules", &self.rules).finish_non_exhaustive()
    }
}
