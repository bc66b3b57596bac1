//! Counters of the DNS plane, resolved when zones and policies are put into force.

use super::limit::Verdict;
use super::message::Rcode;
use crate::metrics::Metrics;
use prometheus::IntCounter;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// On a connection.
    Tcp,
}

impl Transport {
    /// As metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// For each transport and code.
type Counts = [[IntCounter; Rcode::ALL.len()]; 2];

/// The counters.
pub struct Handles {
    /// By zone, in the zones' order.
    zones: Vec<Counts>,
    /// Of what belongs to no zone.
    none: Counts,
    ignored: [IntCounter; 2],
    /// By policy and node.
    steered: Vec<Vec<IntCounter>>,
    dropped: IntCounter,
    slipped: IntCounter,
    truncated: IntCounter,
}

impl Handles {
    /// For zones, policies and nodes of these names.
    pub fn new<'n>(
        metrics: &Metrics,
        zones: impl Iterator<Item = String>,
        policies: impl Iterator<Item = &'n str>,
        nodes: &[&str],
    ) -> Self {
        let counts = |zone: &str| {
            [Transport::Udp, Transport::Tcp].map(|transport| {
                let labels = |rcode: Rcode| [zone, transport.as_str(), rcode.as_str()];
                Rcode::ALL.map(|rcode| metrics.dns_queries.with_label_values(&labels(rcode)))
            })
        };
        let of_policy = |policy: &str| {
            nodes.iter().map(|node| metrics.dns_steered.with_label_values(&[policy, node])).collect::<Vec<_>>()
        };
        Self {
            zones: zones.map(|zone| counts(&zone)).collect(),
            none: counts(""),
            ignored: [Transport::Udp, Transport::Tcp]
                .map(|transport| metrics.dns_queries.with_label_values(&["", transport.as_str(), "ignored"])),
            steered: policies.map(of_policy).collect(),
            dropped: metrics.dns_limited.with_label_values(&["dropped"]),
            slipped: metrics.dns_limited.with_label_values(&["truncated"]),
            truncated: metrics.dns_truncated.clone(),
        }
    }

    pub(super) fn answered(&self, zone: Option<usize>, transport: Transport, rcode: Rcode) {
        let counts = zone.and_then(|zone| self.zones.get(zone)).unwrap_or(&self.none);
        let at = Rcode::ALL.iter().position(|other| *other == rcode).unwrap_or(0);
        counts[transport as usize][at].inc();
    }

    pub(super) fn ignored(&self, transport: Transport) {
        self.ignored[transport as usize].inc();
    }

    pub(super) fn steered(&self, policy: usize, node: usize) {
        if let Some(counter) = self.steered.get(policy).and_then(|nodes| nodes.get(node)) {
            counter.inc();
        }
    }

    pub(super) fn limited(&self, verdict: Verdict) {
        match verdict {
            Verdict::Send => {}
            Verdict::Truncate => self.slipped.inc(),
            Verdict::Drop => self.dropped.inc(),
        }
    }

    pub(super) fn truncated(&self) {
        self.truncated.inc();
    }
}
