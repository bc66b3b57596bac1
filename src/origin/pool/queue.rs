//! Requests that wait for a server below its limit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::PickError;
use super::super::lease::Lease;
use super::{Ask, Pool, Refused, State};

pub(super) struct Waiter {
    ticket: u64,
    ask: Ask,
    grant: oneshot::Sender<Lease>,
}

/// A place in the queue, given up when dropped.
pub(super) struct Ticket<'p> {
    pool: &'p Pool,
    number: u64,
    granted: oneshot::Receiver<Lease>,
}

impl Pool {
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

    pub(super) fn enqueue(&self, state: &mut State, ask: &Ask) -> Ticket<'_> {
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
}

impl Ticket<'_> {
    pub(super) async fn wait(mut self, timeout: Duration) -> Result<Lease, PickError> {
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
