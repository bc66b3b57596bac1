//! Starts the DNS plane, and takes it over reloads.

use crate::config::Config;
use crate::dns::{Dns, Plan, Sockets, StartError};
use crate::metrics::Metrics;
use std::sync::Arc;

/// Checks the nodes and begins to answer; `None` without `[dns]`.
pub(super) async fn start(
    config: &Config,
    sockets: Option<Sockets>,
    metrics: &Metrics,
) -> Result<Option<Arc<Dns>>, StartError> {
    let Some((settings, sockets)) = config.dns.as_ref().zip(sockets) else { return Ok(None) };
    let plan = tokio::task::block_in_place(|| Plan::build(&settings.data, None, metrics))?;
    Dns::start(settings, sockets, plan).await.map(Some)
}

/// What a new configuration asks of a plane that runs; `None`: nothing new.
pub(super) fn prepare(
    dns: Option<&Arc<Dns>>,
    (old, new): (&Config, &Config),
    metrics: &Metrics,
) -> Result<Option<Plan>, StartError> {
    let (Some(dns), Some(settings)) = (dns, &new.dns) else { return Ok(None) };
    if old.dns == new.dns {
        return Ok(None);
    }
    tokio::task::block_in_place(|| Plan::build(&settings.data, Some(dns), metrics)).map(Some)
}

/// Puts it into force.
pub(super) fn activate(dns: Option<&Arc<Dns>>, plan: Option<Plan>) {
    if let Some((dns, plan)) = dns.zip(plan) {
        tokio::task::block_in_place(|| dns.activate(plan));
    }
}
