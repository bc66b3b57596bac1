//! Whether nodes are up: each is asked in the background, and it takes several findings in a row to change what is said.
//!
//! The origins' checks are tied to their pools of servers and connections; these ask one address.

use super::settings::{Check, Node, Probe};
use crate::metrics::Metrics;
use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http::header::{HOST, USER_AGENT};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prometheus::{IntCounter, IntGauge};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// What is known of one node.
pub(super) struct Health {
    name: Arc<str>,
    up: AtomicBool,
    gauge: IntGauge,
    passed: IntCounter,
    failed: IntCounter,
}

impl Health {
    /// A node of which nothing is known yet counts as up.
    pub fn new(node: &Node, metrics: &Metrics) -> Arc<Self> {
        let result = |result: &str| metrics.dns_checks.with_label_values(&[&*node.name, result]);
        let gauge = metrics.dns_node_up.with_label_values(&[&*node.name]);
        gauge.set(1);
        let (name, up) = (Arc::clone(&node.name), AtomicBool::new(true));
        Arc::new(Self { name, up, gauge, passed: result("passed"), failed: result("failed") })
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    fn set(&self, up: bool, why: &str) {
        self.gauge.set(i64::from(up));
        if self.up.swap(up, Ordering::Relaxed) != up {
            match up {
                true => tracing::info!(node = %self.name, "DNS node passes its checks"),
                false => tracing::warn!(node = %self.name, why, "DNS node fails its checks"),
            }
        }
    }

    async fn ask(&self, check: &Check) -> Result<(), String> {
        let found = timeout(check.timeout, probe(check)).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if found.is_ok() {
            self.passed.inc()
        } else {
            self.failed.inc()
        }
        found
    }
}

/// Checks under way; dropping it ends them.
pub(super) struct Checking(Vec<JoinHandle<()>>);

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Asks every node once; what is found counts at once.
pub(super) async fn first_round(nodes: &[Node], health: &[Arc<Health>]) {
    let one = |(node, health): (&Node, &Arc<Health>)| {
        let (check, health) = (node.check.clone(), Arc::clone(health));
        async move {
            if let Some(check) = check {
                let found = health.ask(&check).await;
                health.set(found.is_ok(), found.err().as_deref().unwrap_or_default());
            }
        }
    };
    join_all(nodes.iter().zip(health).map(one)).await;
}

/// Begins to check nodes; `changed` is notified of every change.
pub(super) fn start(nodes: &[Node], health: &[Arc<Health>], changed: &Arc<Notify>) -> Checking {
    let begin = |(node, health): (&Node, &Arc<Health>)| {
        let check = node.check.clone()?;
        Some(tokio::spawn(rounds(Arc::clone(health), check, Arc::clone(changed))))
    };
    Checking(nodes.iter().zip(health).filter_map(begin).collect())
}

async fn rounds(health: Arc<Health>, check: Check, changed: Arc<Notify>) {
    let mut against = 0;
    loop {
        let begun = Instant::now();
        let found = health.ask(&check).await;
        let up = health.is_up();
        if found.is_ok() == up {
            against = 0;
        } else {
            against += 1;
            if against >= if up { check.fall } else { check.rise }.max(1) {
                against = 0;
                health.set(!up, found.err().as_deref().unwrap_or_default());
                changed.notify_one();
            }
        }
        sleep(check.interval.saturating_sub(begun.elapsed()).max(Duration::from_millis(1))).await;
    }
}

async fn probe(check: &Check) -> Result<(), String> {
    let stream = TcpStream::connect(check.address).await.map_err(|error| error.to_string())?;
    let Probe::Http { path, host, statuses: (lowest, highest) } = &check.probe else { return Ok(()) };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let host = host.clone().unwrap_or_else(|| check.address.to_string());
    let request = Request::get(path).header(HOST, host).header(USER_AGENT, "selvedge (health check)");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let asked = async { sender.send_request(request).await.map_err(|error| error.to_string()) };
    // The connection is driven beside the request and dropped with the answer's head.
    let response = tokio::select! {
        response = asked => response?,
        ended = connection => return Err(ended.err().map_or("closed".to_owned(), |error| error.to_string())),
    };
    let status = response.status().as_u16();
    if (*lowest..=*highest).contains(&status) { Ok(()) } else { Err(format!("status {status}")) }
}
