//! What the admin listener can ask of the running process.

use super::routes::Routes;
use crate::admin::{Backend, Readiness};
use crate::cache::purge::{Failure, Order, Report};
use crate::dns::{self, Dns};
use crate::metrics::Metrics;
use crate::proxy::Edge;
use crate::route::traffic::{RuleState, WeightsError};
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Answers the admin listener's questions.
pub struct Operator {
    edge: Arc<Edge>,
    metrics: Arc<Metrics>,
    draining: AtomicBool,
    routes: ArcSwapOption<Routes>,
    dns: Option<Arc<Dns>>,
}

impl Operator {
    /// Over a running edge, and its DNS plane if it has one.
    pub fn new(edge: Arc<Edge>, metrics: Arc<Metrics>, dns: Option<Arc<Dns>>) -> Self {
        Self { edge, metrics, draining: AtomicBool::new(false), routes: ArcSwapOption::empty(), dns }
    }

    /// These routes are in force now.
    pub fn routed(&self, routes: Routes) {
        self.routes.store(Some(Arc::new(routes)));
    }

    /// From now on the node is not ready: load balancers stop sending to it while it drains.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl Backend for Operator {
    fn ready(&self) -> Readiness {
        if self.draining.load(Ordering::Relaxed) {
            Readiness::NotReady("draining".to_owned())
        } else {
            Readiness::Ready
        }
    }

    fn metrics(&self) -> Vec<u8> {
        self.metrics.render()
    }

    fn routes(&self) -> serde_json::Value {
        self.routes.load().as_ref().map_or(serde_json::Value::Null, |routes| routes.to_json())
    }

    fn traffic(&self) -> Vec<RuleState> {
        self.edge.traffic().iter().map(|live| live.state()).collect()
    }

    fn set_weights(&self, site: &str, rule: &str, weights: &[(String, u32)]) -> Result<RuleState, WeightsError> {
        let rules = self.edge.traffic();
        let live = rules.iter().find(|live| live.name() == (site, rule)).ok_or(WeightsError::NoRule)?;
        live.set(weights)?;
        Ok(live.state())
    }

    fn dns_why(&self, name: &str, subnet: &str) -> Result<serde_json::Value, String> {
        let dns = self.dns.as_ref().ok_or("this server has no [dns]")?;
        let question = dns::Question::parse(name, subnet)?;
        Ok(dns.why(&question))
    }

    async fn purge(&self, order: Order, request_id: String, who: String) -> Result<Report, Failure> {
        self.edge.purge(order, request_id, who).await
    }
}
