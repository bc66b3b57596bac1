//! Which addresses the servers of a pool have.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::super::endpoint::Endpoint;
use super::super::resolve::ResolveError;
use super::{Choice, Member, Pool, Rules, Server};

/// How long a request waits for names that do not resolve at once while others do.
const PATIENCE: Duration = Duration::from_millis(200);

impl Pool {
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
}

/// The addresses known from the start: those that are written as such, and what the origin before knew.
pub(super) fn first_members(
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
