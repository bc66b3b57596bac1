//! The short way: fresh hits over HTTP/1.1, answered before the proxy core.
//!
//! One loop reads a connection's requests. What can be answered from the tiers as it is stored, by the very functions
//! that decide in the phases, is answered here: one look-up, a head that was written when the response was first
//! answered with, head and content in one write. Everything else goes to the core on the same connection, with the
//! reason in a metric, and the connection comes back for its next request.

mod connection;
mod decide;
mod reason;
mod request;
mod send;
mod template;

use super::Edge;
use crate::metrics::Metrics;
use prometheus::IntCounter;
use reason::Reason;
use std::sync::Arc;
use std::time::Duration;

pub(super) use connection::serve;

/// How long connections of HTTP/1.1 are waited for, and whether hits take the short way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A request's head must be there so long after its first byte.
    pub head_timeout: Duration,
    /// A connection without a request is closed after this.
    pub keepalive_timeout: Duration,
    /// Requests that a connection answers before it is closed; `None`: any number.
    pub keepalive_requests: Option<u32>,
    /// Off, every request goes through the proxy core: for finding out whether it makes a difference.
    pub enabled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(60),
            keepalive_requests: None,
            enabled: true,
        }
    }
}

/// What all connections share.
pub struct Path {
    edge: Arc<Edge>,
    settings: Settings,
    answered: IntCounter,
    left: [IntCounter; Reason::ALL.len()],
}

impl Path {
    /// Before this edge.
    pub fn new(edge: Arc<Edge>, settings: Settings, metrics: &Metrics) -> Self {
        let counter = |result: &str| metrics.hot_path.with_label_values(&[result]);
        Self { edge, settings, answered: counter("answered"), left: Reason::ALL.map(|reason| counter(reason.as_str())) }
    }

    fn count_left(&self, reason: Reason) {
        self.left[reason as usize].inc();
    }
}
