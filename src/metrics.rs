//! Every metric, declared once. Handles are resolved at start-up or when a site, origin or tier is built, so that a
//! request only adds to atomics.

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Seconds: from a hit's fraction of a millisecond to a slow origin's minute.
const LATENCY_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The metrics of one process. Tests make one each.
pub struct Metrics {
    registry: Registry,
    /// `selvedge_requests_total{site,method,status_class,cache}`; `cache` is a [`crate::field::CacheOutcome`] token.
    pub requests: IntCounterVec,
    /// `selvedge_response_bytes_total{site}`: body bytes sent to clients.
    pub response_bytes: IntCounterVec,
    /// `selvedge_request_bytes_total{site}`: body bytes received from clients.
    pub request_bytes: IntCounterVec,
    /// `selvedge_request_seconds{site}`: from the request head read to the last byte written.
    pub request_seconds: HistogramVec,
    /// `selvedge_origin_seconds{origin}`: from the request sent to the response head received.
    pub origin_seconds: HistogramVec,
    /// `selvedge_origin_errors_total{origin,kind}`; `kind` is an RFC 9209 error type.
    pub origin_errors: IntCounterVec,
    /// `selvedge_origin_server_up{origin,server}`: 1, or 0 while all its addresses are ejected or fail their checks.
    pub origin_server_up: IntGaugeVec,
    /// `selvedge_traffic_requests_total{site,rule,group,result}`: requests that a rule gave to a group and its origin
    /// answered, or `failed` to.
    pub traffic_requests: IntCounterVec,
    /// `selvedge_mirrored_requests_total{site,rule,result}`: copies `sent`, `failed`, and `dropped` for want of room.
    pub mirrored: IntCounterVec,
    /// `selvedge_origin_server_in_flight{origin,server}`: requests under way.
    pub origin_server_in_flight: IntGaugeVec,
    /// `selvedge_origin_server_latency_seconds{origin,server}`: moving average of the time to a response head.
    pub origin_server_latency: GaugeVec,
    /// `selvedge_origin_ejections_total{origin,server,reason}`; `reason` is `failures`, `error_rate` or `probe`.
    pub origin_ejections: IntCounterVec,
    /// `selvedge_origin_checks_total{origin,server,result}`: health checks, `passed` or `failed`.
    pub origin_checks: IntCounterVec,
    /// `selvedge_origin_retries_total{origin,result}`: further attempts, `made` or `refused` by the budget.
    pub origin_retries: IntCounterVec,
    /// `selvedge_origin_queued{origin}`: requests that wait for a server below its limit.
    pub origin_queued: IntGaugeVec,
    /// `selvedge_origin_queue_rejected_total{origin,reason}`: those that did in vain, `full` or `timeout`.
    pub origin_queue_rejected: IntCounterVec,
    /// `selvedge_origin_hedges_total{origin,result}`: slow answers for which a second server was asked (`sent`), and of these
    /// where that answered first (`won`) or failed (`failed`); those for which none was, beyond what is allowed (`refused`)
    /// or for lack of a server (`no_server`).
    pub origin_hedges: IntCounterVec,
    tier_bytes: IntGaugeVec,
    tier_capacity: IntGaugeVec,
    tier_objects: IntGaugeVec,
    tier_evictions: IntCounterVec,
    tier_hits: IntCounterVec,
    tier_errors: IntCounterVec,
    /// `selvedge_cache_collapsed_total`: requests answered by another request's fetch.
    pub collapsed: IntCounter,
    /// `selvedge_cache_fills_in_flight`.
    pub fills_in_flight: IntGauge,
    /// `selvedge_purges_total`.
    pub purges: IntCounter,
    /// `selvedge_tls_handshakes_total{result}`: `ok`, `timeout`, `unrecognized_name`, `failed`.
    pub tls_handshakes: IntCounterVec,
    /// `selvedge_connections_total{listener}`: accepted; `listener` is `http` or `https`.
    pub connections_total: IntCounterVec,
    /// `selvedge_connections_open{listener}`.
    pub connections_open: IntGaugeVec,
    /// `selvedge_hot_path_total{result}`: requests over HTTP/1 that were answered before the proxy core (`answered`), and
    /// why the others were not.
    pub hot_path: IntCounterVec,
    /// `selvedge_routes_rebuild_seconds`: from a reload, or news of containers, to the routes being in force.
    pub routes_rebuild: Histogram,
    /// `selvedge_reloads_total{result}`: `applied` or `refused`.
    pub reloads: IntCounterVec,
    /// `selvedge_discovery_up`: 1 while the source of containers can be read.
    pub discovery_up: IntGauge,
    /// `selvedge_discovery_containers`: in the last good snapshot.
    pub discovery_containers: IntGauge,
    /// `selvedge_discovery_notes{level}`: `problem`, `warning`, `info`.
    pub discovery_notes: IntGaugeVec,
    /// `selvedge_discovery_updates_total`: snapshots that were translated.
    pub discovery_updates: IntCounter,
    /// `selvedge_dns_queries_total{zone,transport,rcode}`: DNS queries answered (or kept from being by the rate limit);
    /// `rcode` is `ignored` for what is no query.
    pub dns_queries: IntCounterVec,
    /// `selvedge_dns_steered_total{policy,node}`: answers that named a node.
    pub dns_steered: IntCounterVec,
    /// `selvedge_dns_limited_total{result}`: responses above the rate limit, `dropped` or `truncated`.
    pub dns_limited: IntCounterVec,
    /// `selvedge_dns_truncated_total`: answers that ask to come again by TCP.
    pub dns_truncated: IntCounter,
    /// `selvedge_dns_node_up{node}`: 0 while it fails its checks.
    pub dns_node_up: IntGaugeVec,
    /// `selvedge_dns_checks_total{node,result}`: health checks of nodes, `passed` or `failed`.
    pub dns_checks: IntCounterVec,
    /// `selvedge_access_log_dropped_total`: events lost because the writer could not keep up.
    pub access_log_dropped: IntCounter,
}

/// The handles of one storage tier.
#[derive(Clone)]
pub struct TierMetrics {
    /// Bytes held, metadata and framing included.
    pub bytes: IntGauge,
    /// Bytes it may hold.
    pub capacity: IntGauge,
    /// Objects held.
    pub objects: IntGauge,
    /// Objects dropped to make room.
    pub evictions: IntCounter,
    /// Look-ups that found the object here.
    pub hits: IntCounter,
    errors: IntCounterVec,
    tier: &'static str,
}

impl TierMetrics {
    /// The error counter of one kind: `checksum`, `read`, `write`, `full`, `sync`, `format`; `segment` for each segment
    /// taken out of service.
    pub fn error(&self, kind: &'static str) -> IntCounter {
        self.errors.with_label_values(&[self.tier, kind])
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A fresh set, all zero.
    pub fn new() -> Self {
        let r = Registry::new();
        let this = Self {
            requests: counters(
                &r,
                "requests_total",
                "Requests answered.",
                &["site", "method", "status_class", "cache"],
            ),
            response_bytes: counters(&r, "response_bytes_total", "Body bytes sent to clients.", &["site"]),
            request_bytes: counters(&r, "request_bytes_total", "Body bytes received from clients.", &["site"]),
            request_seconds: histograms(&r, "request_seconds", "Request head read to last byte written.", &["site"]),
            origin_seconds: histograms(&r, "origin_seconds", "Request sent to response head received.", &["origin"]),
            traffic_requests: counters(
                &r,
                "traffic_requests_total",
                "Requests given to a group by a traffic rule.",
                &["site", "rule", "group", "result"],
            ),
            mirrored: counters(&r, "mirrored_requests_total", "Copies of requests.", &["site", "rule", "result"]),
            origin_errors: counters(&r, "origin_errors_total", "Failed origin attempts.", &["origin", "kind"]),
            origin_server_up: gauges(
                &r,
                "origin_server_up",
                "0 while ejected or failing its checks.",
                &["origin", "server"],
            ),
            origin_server_in_flight: gauges(
                &r,
                "origin_server_in_flight",
                "Requests under way at an origin server.",
                &["origin", "server"],
            ),
            origin_server_latency: register(
                &r,
                GaugeVec::new(
                    opts("origin_server_latency_seconds", "Moving average of the time to a response head."),
                    &["origin", "server"],
                ),
            ),
            origin_ejections: counters(
                &r,
                "origin_ejections_total",
                "Origin servers left out.",
                &["origin", "server", "reason"],
            ),
            origin_checks: counters(
                &r,
                "origin_checks_total",
                "Health checks of origin servers.",
                &["origin", "server", "result"],
            ),
            origin_retries: counters(
                &r,
                "origin_retries_total",
                "Further attempts at other origin servers.",
                &["origin", "result"],
            ),
            origin_queued: gauges(&r, "origin_queued", "Requests waiting for an origin server.", &["origin"]),
            origin_queue_rejected: counters(
                &r,
                "origin_queue_rejected_total",
                "Requests that waited for an origin server in vain.",
                &["origin", "reason"],
            ),
            origin_hedges: counters(
                &r,
                "origin_hedges_total",
                "Slow answers for which a second origin server was asked, or could not be.",
                &["origin", "result"],
            ),
            tier_bytes: gauges(&r, "tier_bytes", "Bytes held by a storage tier.", &["tier"]),
            tier_capacity: gauges(&r, "tier_capacity_bytes", "Bytes a storage tier may hold.", &["tier"]),
            tier_objects: gauges(&r, "tier_objects", "Objects held by a storage tier.", &["tier"]),
            tier_evictions: counters(&r, "tier_evictions_total", "Objects dropped to make room.", &["tier"]),
            tier_hits: counters(&r, "tier_hits_total", "Look-ups answered by a tier.", &["tier"]),
            tier_errors: counters(&r, "tier_errors_total", "Tier errors; each is a miss.", &["tier", "kind"]),
            collapsed: counter(&r, "cache_collapsed_total", "Requests answered by another request's fetch."),
            fills_in_flight: gauge(&r, "cache_fills_in_flight", "Responses being stored now."),
            purges: counter(&r, "purges_total", "Purge calls carried out."),
            tls_handshakes: counters(&r, "tls_handshakes_total", "TLS handshakes.", &["result"]),
            connections_total: counters(&r, "connections_total", "Connections accepted.", &["listener"]),
            connections_open: gauges(&r, "connections_open", "Connections open now.", &["listener"]),
            hot_path: counters(
                &r,
                "hot_path_total",
                "HTTP/1 requests, by whether they took the short way.",
                &["result"],
            ),
            routes_rebuild: register(
                &r,
                Histogram::with_opts(
                    HistogramOpts::new("selvedge_routes_rebuild_seconds", "Routes built anew and put into force.")
                        .buckets(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]),
                ),
            ),
            reloads: counters(&r, "reloads_total", "Configuration reloads.", &["result"]),
            discovery_up: gauge(&r, "discovery_up", "1 while the source of containers can be read."),
            discovery_containers: gauge(&r, "discovery_containers", "Containers in the last good snapshot."),
            discovery_notes: gauges(&r, "discovery_notes", "What is to be said of containers now.", &["level"]),
            discovery_updates: counter(&r, "discovery_updates_total", "Snapshots translated."),
            dns_queries: counters(&r, "dns_queries_total", "DNS queries.", &["zone", "transport", "rcode"]),
            dns_steered: counters(&r, "dns_steered_total", "DNS answers that named a node.", &["policy", "node"]),
            dns_limited: counters(&r, "dns_limited_total", "DNS responses above the rate limit.", &["result"]),
            dns_truncated: counter(&r, "dns_truncated_total", "DNS answers that ask to come again by TCP."),
            dns_node_up: gauges(&r, "dns_node_up", "0 while a node fails its checks.", &["node"]),
            dns_checks: counters(&r, "dns_checks_total", "Health checks of DNS nodes.", &["node", "result"]),
            access_log_dropped: counter(&r, "access_log_dropped_total", "Access log events lost."),
            registry: r,
        };
        let build = gauges(&this.registry, "build_info", "Always 1.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        this
    }

    /// The handles of one tier: `memory` or `disk`.
    pub fn tier(&self, tier: &'static str) -> TierMetrics {
        TierMetrics {
            bytes: self.tier_bytes.with_label_values(&[tier]),
            capacity: self.tier_capacity.with_label_values(&[tier]),
            objects: self.tier_objects.with_label_values(&[tier]),
            evictions: self.tier_evictions.with_label_values(&[tier]),
            hits: self.tier_hits.with_label_values(&[tier]),
            errors: self.tier_errors.clone(),
            tier,
        }
    }

    /// The text exposition format 0.0.4.
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 << 10);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        out
    }
}

// A metric that cannot be registered is a duplicate name in this file: the test below would not pass.
fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    #[expect(clippy::unwrap_used, reason = "names and labels are constants of this file, all made in the test")]
    let collector = made.unwrap();
    if let Err(error) = registry.register(Box::new(collector.clone())) {
        tracing::error!(%error, "metric declared twice");
    }
    collector
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("selvedge_{name}"), help)
}

fn counter(r: &Registry, name: &str, help: &str) -> IntCounter {
    register(r, IntCounter::with_opts(opts(name, help)))
}

fn gauge(r: &Registry, name: &str, help: &str) -> IntGauge {
    register(r, IntGauge::with_opts(opts(name, help)))
}

fn counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(r, IntCounterVec::new(opts(name, help), labels))
}

fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(r, IntGaugeVec::new(opts(name, help), labels))
}

fn histograms(r: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let opts = HistogramOpts::new(format!("selvedge_{name}"), help).buckets(LATENCY_BUCKETS.to_vec());
    register(r, HistogramVec::new(opts, labels))
}

impl Metrics {
    /// Removes the series of a site that is not in force and has answered nobody.
    pub fn forget_site(&self, site: &str) {
        // An error is a series that there is not.
        let _ = self.request_seconds.remove_label_values(&[site]);
        let _ = self.request_bytes.remove_label_values(&[site]);
        let _ = self.response_bytes.remove_label_values(&[site]);
    }
}

/// The handle of one site's or origin's histogram.
pub fn observer(histograms: &HistogramVec, label: &str) -> Histogram {
    histograms.with_label_values(&[label])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_declared_once_and_rendered() {
        let metrics = Metrics::new();
        metrics.tier("memory").hits.inc();
        metrics.requests.with_label_values(&["s", "GET", "2xx", "hit"]).inc();
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.contains("selvedge_tier_hits_total{tier=\"memory\"} 1"), "{text}");
        assert!(
            text.contains("selvedge_requests_total{cache=\"hit\",method=\"GET\",site=\"s\",status_class=\"2xx\"} 1")
        );
        assert!(text.contains("selvedge_build_info"));
    }
}
