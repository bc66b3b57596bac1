//! From a request to an answer, in one pass and without allocation: what is asked is looked up in what was compiled before.

use super::cookie::{self, Key};
use super::handles::{Handles, Transport};
use super::limit::{Limiter, RateLimit, Verdict};
use super::message::{self, HEADER, Query, Question, Rcode, Subnet, Unusable, class, kind};
use super::name::MOST;
use super::steer::Steering;
use super::write::{Opt, Owner, Scope, Section, Writer};
use super::zone::{Entry, Found, Zone, Zones};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes that fit into one packet wherever it goes, and what clients without EDNS can take.
const LEAST_UDP: u16 = 512;
/// Aliases that are followed within a zone.
const MOST_ALIASES: usize = 8;
/// Seconds for the answer to ANY (RFC 8482 section 4.2).
const HINFO_TTL: u32 = 3600;
/// `RFC8482` and an empty text.
const HINFO: &[u8] = b"\x07RFC8482\0";
/// The hash seed of names.
const NAME: u64 = 7;

/// Everything that an answer depends on, swapped whole.
pub struct Serving {
    /// The zones.
    pub zones: Arc<Zones>,
    /// The policies.
    pub steering: Arc<Steering>,
    /// Their counters.
    pub handles: Arc<Handles>,
    /// Bytes of an answer over UDP at most.
    pub udp_payload: u16,
    /// See [`super::settings::DataSettings::amplification`].
    pub amplification: u32,
    /// NSID and `id.server`.
    pub identity: Option<Arc<str>>,
    /// `None`: not limited.
    pub rate_limit: Option<RateLimit>,
    /// Every so many queries are logged; 0: none.
    pub query_log: u32,
}

/// What all threads share whatever is served.
pub struct Shared {
    /// Signs cookies.
    pub cookies: Key,
    /// Counts responses.
    pub limiter: Limiter,
    /// For answers to the keepalive option, in units of 100 milliseconds.
    pub keepalive: u16,
    /// When the process began to answer.
    pub begun: Instant,
}

impl Shared {
    /// Since then.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A request on its way.
#[derive(Clone, Copy)]
pub struct Asked<'m> {
    /// Its bytes.
    pub message: &'m [u8],
    /// Who sent it.
    pub from: IpAddr,
    /// How it came.
    pub transport: Transport,
    /// Seconds since 1970, modulo 2^32.
    pub now: u32,
    /// Microseconds since any time before.
    pub micros: u64,
}

/// What became of a question.
struct Outcome {
    rcode: Rcode,
    authoritative: bool,
    /// How much of the client's prefix the answer depends on.
    scope: u8,
    zone: Option<usize>,
    /// For rate limiting: what the answer says.
    like: u64,
}

impl Outcome {
    fn of(rcode: Rcode) -> Self {
        Self { rcode, authoritative: false, scope: 0, zone: None, like: u64::from(rcode.code()) }
    }
}

/// Writes the answer to a request into `out` and returns its length; `None`: nothing is sent.
pub fn answer(serving: &Serving, shared: &Shared, asked: Asked<'_>, out: &mut [u8]) -> Option<usize> {
    let Asked { message, from, transport, .. } = asked;
    let query = match message::parse(message) {
        Ok(query) => query,
        Err(Unusable::Ignored) => {
            serving.handles.ignored(transport);
            return None;
        }
        Err(Unusable::Failed(header, rcode)) => {
            serving.handles.answered(None, transport, rcode);
            let verdict = judge(serving, shared, asked, u64::from(rcode.code()));
            serving.handles.limited(verdict);
            if verdict == Verdict::Drop {
                return None;
            }
            let length = Writer::new(out, HEADER, &[]).finish(header, rcode, (false, false), None);
            return Some(length);
        }
    };
    let proven = query.edns.and_then(|edns| edns.cookie).is_some_and(|c| shared.cookies.is_valid(c, from, asked.now));
    let limit = match (transport, query.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => LEAST_UDP.into(),
        (Transport::Udp, Some(edns)) => edns.payload.clamp(LEAST_UDP, serving.udp_payload.max(LEAST_UDP)).into(),
    };
    let mut opt = opt(serving, shared, &query, asked);
    let mut writer = Writer::new(out, limit, query.question.map_or(&[], |question| question.wire));
    writer.reserve(opt.as_ref().map_or(0, Opt::length));
    let outcome = outcome(serving, &query, from, &mut writer);
    if let Some(echoed) = opt.as_mut().and_then(|opt| opt.scope.as_mut()) {
        // Never longer than asked; who hides behind a length of 0 gets 0 (RFC 7871 section 7.2.1).
        echoed.scope = outcome.scope.min(echoed.source);
    }
    serving.handles.answered(outcome.zone, transport, outcome.rcode);
    let mut truncated = writer.is_full();
    if transport == Transport::Udp && !proven {
        let length = writer.length() + opt.as_ref().map_or(0, Opt::length);
        truncated |= serving.amplification > 0 && length > message.len() * serving.amplification as usize;
        let verdict = judge(serving, shared, asked, outcome.like);
        serving.handles.limited(verdict);
        if verdict == Verdict::Drop {
            return None;
        }
        truncated |= verdict == Verdict::Truncate;
    }
    if truncated {
        writer.truncate();
        serving.handles.truncated();
    }
    let length = writer.finish(query.header, outcome.rcode, (outcome.authoritative, truncated), opt.as_ref());
    Some(length)
}

fn judge(serving: &Serving, shared: &Shared, asked: Asked<'_>, like: u64) -> Verdict {
    match serving.rate_limit.filter(|_| asked.transport == Transport::Udp) {
        Some(limit) => shared.limiter.judge(limit, asked.from, like, asked.micros),
        None => Verdict::Send,
    }
}

fn opt<'s>(serving: &'s Serving, shared: &Shared, query: &Query<'_>, asked: Asked<'_>) -> Option<Opt<'s>> {
    let edns = query.edns?;
    let client = edns.cookie.and_then(|cookie| cookie.first_chunk::<{ cookie::CLIENT }>());
    let subnet =
        edns.subnet.map(|Subnet { family, length, address }| Scope { family, address, source: length, scope: 0 });
    Some(Opt {
        payload: serving.udp_payload,
        dnssec_ok: edns.dnssec_ok,
        cookie: client.map(|client| shared.cookies.make(*client, asked.from, asked.now)),
        scope: subnet,
        identity: serving.identity.as_deref().filter(|_| edns.wants_nsid).map(str::as_bytes),
        keepalive: (edns.keepalive && asked.transport == Transport::Tcp).then_some(shared.keepalive),
    })
}

fn outcome(serving: &Serving, query: &Query<'_>, from: IpAddr, writer: &mut Writer<'_>) -> Outcome {
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Outcome::of(Rcode::BadVers);
    }
    let Some(question) = query.question else { return Outcome::of(Rcode::NoError) };
    let mut lower = [0; MOST];
    let name = lower_case(question.name, &mut lower);
    match (question.class, question.kind) {
        (class::CH, _) => return chaos(serving, question, name, writer),
        (_, kind::OPT) => return Outcome::of(Rcode::FormErr),
        (class::IN, kind::ANY) => {}
        // Transfers are none of ours, and neither are the other questions that are no types (RFC 6895 section 3.1).
        (class::IN, 128..=255) => return Outcome::of(Rcode::Refused),
        (class::IN, _) => {}
        _ => return Outcome::of(Rcode::Refused),
    }
    let Some((number, zone)) = serving.zones.zone_of(name) else { return Outcome::of(Rcode::Refused) };
    writer.apex = HEADER + name.len() - zone.apex.as_wire().len();
    let client = match query.edns.and_then(|edns| edns.subnet).filter(|subnet| subnet.length > 0) {
        Some(subnet) => subnet.address,
        None => from,
    };
    let mut lookup = Lookup { serving, zone, kind: question.kind, client, scope: 0 };
    let (rcode, authoritative, exists) = lookup.run(name, writer);
    // What does not exist is alike for a whole zone, or random names would each be a new response.
    let like = if exists { xxh3_64_with_seed(name, NAME) } else { number as u64 + 32 };
    Outcome { rcode, authoritative, scope: lookup.scope, zone: Some(number), like }
}

/// Length bytes are below the letters, so that they stay as they are.
fn lower_case<'l>(name: &[u8], lower: &'l mut [u8; MOST]) -> &'l [u8] {
    let Some(lower) = lower.get_mut(..name.len()) else { return &[0] };
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    lower
}

/// `id.server` and its older name (RFC 4892), where the operator gave one.
fn chaos(serving: &Serving, question: Question<'_>, name: &[u8], writer: &mut Writer<'_>) -> Outcome {
    let ours = matches!(name, b"\x02id\x06server\0" | b"\x08hostname\x04bind\0");
    let identity = serving.identity.as_deref().filter(|_| ours && matches!(question.kind, kind::TXT | kind::ANY));
    let Some(identity) = identity else { return Outcome::of(Rcode::Refused) };
    writer.chaos_text(identity.as_bytes());
    Outcome { authoritative: true, like: 31, ..Outcome::of(Rcode::NoError) }
}

struct Lookup<'s> {
    serving: &'s Serving,
    zone: &'s Zone,
    kind: u16,
    client: IpAddr,
    scope: u8,
}

impl<'s> Lookup<'s> {
    /// The code, whether the answer is authoritative, and whether there was anything.
    fn run(&mut self, name: &[u8], writer: &mut Writer<'_>) -> (Rcode, bool, bool) {
        let mut owner = Owner::Question;
        let mut target: Option<&'s [u8]> = None;
        for alias in 0..=MOST_ALIASES {
            let name = target.unwrap_or(name);
            let entry = match self.serving.zones.find(self.zone, name, self.kind == kind::DS) {
                Found::Entry(entry) => entry,
                Found::Delegated(entry, before) => {
                    self.referral(entry, before, owner, writer);
                    return (Rcode::NoError, alias > 0, true);
                }
                Found::Nothing => {
                    writer.set(Section::Authority, Owner::Apex, &self.zone.negative);
                    // The code is that of the last name (RFC 6604 section 3).
                    return (Rcode::NxDomain, true, alias > 0);
                }
            };
            let Some(set) = entry.set(kind::CNAME).filter(|_| self.kind != kind::CNAME && self.kind != kind::ANY)
            else {
                let found = self.records(entry, owner, name, writer);
                if !found {
                    writer.set(Section::Authority, Owner::Apex, &self.zone.negative);
                }
                return (Rcode::NoError, true, found || alias > 0);
            };
            if alias == MOST_ALIASES {
                break;
            }
            writer.set(Section::Answer, owner, set);
            let (Some(next), Some(data)) = (&set.target, set.data.first()) else { break };
            // Who asks follows aliases that leave the zone.
            if !next.is_within(&self.zone.apex) {
                break;
            }
            (target, owner) = (Some(next.as_wire()), Owner::Name(data));
        }
        (Rcode::NoError, true, true)
    }

    /// Writes what an entry has of what is asked; false if there is none.
    fn records(&mut self, entry: &'s Entry, owner: Owner<'_>, name: &[u8], writer: &mut Writer<'_>) -> bool {
        if self.kind == kind::ANY {
            let any = !entry.sets.is_empty() || entry.policy.is_some();
            if any {
                writer.plain(Section::Answer, owner, kind::HINFO, HINFO_TTL, HINFO);
            }
            return any;
        }
        if let (Some(policy), kind::A | kind::AAAA) = (entry.policy, self.kind) {
            return self.steered(policy, owner, name, writer);
        }
        match entry.set(self.kind) {
            Some(set) => {
                writer.set(Section::Answer, owner, set);
                true
            }
            None => false,
        }
    }

    fn steered(&mut self, policy: usize, owner: Owner<'_>, name: &[u8], writer: &mut Writer<'_>) -> bool {
        let Steering { tables, nodes, .. } = &*self.serving.steering;
        let Some(table) = tables.get(policy) else { return false };
        let (chosen, scope) = table.choose(self.client, name);
        self.scope = scope;
        let mut any = false;
        for number in chosen.iter() {
            let Some(node) = nodes.get(number) else { continue };
            self.serving.handles.steered(policy, number);
            if self.kind == kind::A {
                for address in &node.v4 {
                    writer.plain(Section::Answer, owner, kind::A, table.ttl, &address.octets());
                }
                any |= !node.v4.is_empty();
            } else {
                for address in &node.v6 {
                    writer.plain(Section::Answer, owner, kind::AAAA, table.ttl, &address.octets());
                }
                any |= !node.v6.is_empty();
            }
        }
        any
    }

    /// Who is responsible for a name below a delegation.
    fn referral(&self, entry: &Entry, before: usize, owner: Owner<'_>, writer: &mut Writer<'_>) {
        let Some(set) = entry.set(kind::NS) else { return };
        // After an alias the delegation is not in the question: the alias's own end would have to be pointed at, and who
        // asks finds the delegation by asking for it.
        if !matches!(owner, Owner::Question) {
            return;
        }
        writer.set(Section::Authority, Owner::QuestionEnd(before), set);
        for (owner, ttl, kind, data) in &entry.glue {
            writer.plain(Section::Additional, Owner::Name(owner), *kind, *ttl, data);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
