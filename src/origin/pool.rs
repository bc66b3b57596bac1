//! The servers of one origin: which is next, at which address, which are left out, and who waits.

mod members;
mod queue;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::balance::reach::{Reach, Standing, reach};
use super::balance::{Algorithm, Candidate, Random};
use super::budget::Budget;
use super::check::{Finding, Verdicts};
use super::endpoint::Endpoint;
use super::handles::{OriginHandles, ServerHandles};
use super::health::{Admission, Limits};
use super::hedge::{Hedge, Hedging};
use super::http::peer::Template;
use super::lease::Lease;
use super::resolve::Resolver;
use super::sessions::Sessions;
use super::{PickError, ServerId};
use crate::clock::Clock;
use members::first_members;
use queue::Waiter;

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
    pub hedge: Option<Hedge>,
    /// Idle connections to each address.
    pub max_idle: Option<u32>,
    /// See [`super::sessions`].
    pub sticky_cookie: Option<String>,
}

/// Servers that answer alike.
pub(super) struct Pool {
    pub servers: Vec<Server>,
    pub rules: Rules,
    pub resolver: Arc<Resolver>,
    pub clock: Clock,
    pub handles: OriginHandles,
    /// Whether and when a second server is asked for a slow answer.
    pub hedging: Option<Hedging>,
    /// Which server has whose session.
    pub sessions: Option<Sessions>,
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
    /// By [`super::Origin::session`].
    pub session: Option<SocketAddr>,
    /// It has content, or what it does must not be done twice: it is not what finds out whether an ejected server is back.
    pub unrepeatable: bool,
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
        let hedging = rules.hedge.map(Hedging::new);
        let sessions = rules.sticky_cookie.as_deref().map(|cookie| {
            let known = before.and_then(|before| before.sessions.as_ref()).filter(|known| known.cookie() == cookie);
            known.cloned().unwrap_or_else(|| Sessions::new(cookie))
        });
        let pool = Arc::new(Self {
            servers,
            rules,
            resolver,
            clock,
            handles,
            hedging,
            sessions,
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

    /// A place on a server that is up and below its limit, at once or not at all.
    pub fn spare(self: &Arc<Self>, ask: &Ask) -> Option<Lease> {
        let mut state = self.state.lock();
        if !state.queue.is_empty() {
            return None;
        }
        let lease = self.select(&mut state.choice, ask, self.clock.now()).ok();
        drop(state);
        lease.filter(|lease| !lease.is_trial())
    }

    /// Takes the finding of a check into account.
    pub fn note_check(self: &Arc<Self>, member: &Member, finding: &Finding, rise: u32, fall: u32) {
        let up = *finding == Finding::Passed;
        {
            let mut state = member.endpoint.state.lock();
            state.check_error = (!up).then(|| finding.to_string().into());
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
                state.check_error = None;
            }
        }
        (0..self.servers.len()).for_each(|server| self.show(server));
    }

    /// All addresses known now.
    pub fn members(&self) -> Vec<Member> {
        self.state.lock().choice.members.clone()
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
        let own = |place: &usize| choice.members.get(*place).filter(|m| Some(m.endpoint.address) == ask.session);
        if ask.session.is_some()
            && let Some(lease) = places.iter().find_map(own).and_then(|member| Lease::take(self, member, now))
        {
            return Ok(lease);
        }
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
        let admitted = match state.health.admit(now) {
            Admission::Healthy => true,
            Admission::Probe => !ask.unrepeatable,
            Admission::Ejected => false,
        };
        Standing {
            backup: server.backup,
            draining: server.drain,
            up: state.verdicts.is_up() && admitted,
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
