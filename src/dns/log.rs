//! The query log, a sample of all queries, and the time.

use super::answer::{Asked, Serving};
use super::{message, name};
use crate::clock::Clock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::UNIX_EPOCH;

static QUERIES: AtomicU32 = AtomicU32::new(0);

/// Seconds since 1970, modulo 2^32 (RFC 9018 section 4.3).
pub(super) fn seconds() -> u32 {
    let since = Clock::system().now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() as u32
}

/// Writes a query down, if it is the turn of one. `reply`: what is sent, if anything.
pub(super) fn sampled(serving: &Serving, asked: Asked<'_>, reply: Option<&[u8]>) {
    if serving.query_log == 0 || !QUERIES.fetch_add(1, Ordering::Relaxed).is_multiple_of(serving.query_log) {
        return;
    }
    let Ok(query) = message::parse(asked.message) else { return };
    let Some(question) = query.question else { return };
    let subnet = query.edns.and_then(|edns| edns.subnet).map(|subnet| format!("{}/{}", subnet.address, subnet.length));
    tracing::info!(
        target: "selvedge::dns::query",
        client = %asked.from,
        transport = asked.transport.as_str(),
        name = %name::shown(question.name),
        kind = question.kind,
        subnet,
        rcode = reply.and_then(|reply| reply.get(3)).map(|flags| flags & 0xf),
        bytes = reply.map(<[u8]>::len),
        "query"
    );
}
