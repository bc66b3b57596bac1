//! What the admin listener can ask of the running process.

use crate::admin::{Backend, Purge, PurgeFailure, PurgeReport, Readiness};
use crate::metrics::Metrics;
use crate::proxy::Edge;
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Answers the admin listener's questions.
pub struct Operator {
    edge: Arc<Edge>,
    metrics: Arc<Metrics>,
    draining: AtomicBool,
}

impl Operator {
    /// Over a running edge.
    pub fn new(edge: Arc<Edge>, metrics: Arc<Metrics>) -> Self {
        Self { edge, metrics, draining: AtomicBool::new(false) }
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

    async fn purge(&self, request: Purge) -> Result<PurgeReport, PurgeFailure> {
        let cache = self.edge.cache().ok_or_else(|| PurgeFailure::Unavailable("caching is turned off".to_owned()))?;
        let unavailable = |error: &dyn std::fmt::Display| PurgeFailure::Unavailable(error.to_string());
        let mut report = PurgeReport { results: Vec::new() };
        match request {
            Purge::All => {
                cache.purge_all().await.map_err(|e| unavailable(&e))?;
                report.results.push(("*".to_owned(), true));
            }
            Purge::Urls(urls) => {
                // All URLs are understood before the first is purged.
                let keys = urls.into_iter().map(|url| match self.edge.key_of_url(&url) {
                    Ok(key) => Ok((url, key)),
                    Err(reason) => Err(PurgeFailure::BadUrl { url, reason }),
                });
                for (url, key) in keys.collect::<Result<Vec<_>, _>>()? {
                    let found = cache.purge(&key).await.map_err(|e| unavailable(&e))?;
                    report.results.push((url, found));
                }
            }
        }
        Ok(report)
    }
}
