//! What requests are routed by: immutable once built, swapped whole on a reload.

use super::compress::Compression;
use super::cors::Cors;
use super::headers::{HeaderRules, Security};
use crate::cache::rules::CacheRules;
use crate::metrics::Metrics;
use crate::origin::Origin;
use crate::route::{Match, PathPattern, RouteTable};
use crate::types::Secret;
use http::{Method, StatusCode};
use prometheus::{Histogram, IntCounter, IntCounterVec};
use std::sync::{Arc, OnceLock};

use crate::field::CacheOutcome;

/// The routes of every site, each leading to a [`RouteRule`].
pub struct Plane {
    table: RouteTable<Arc<RouteRule>>,
    unrouted: Arc<SiteHandles>,
    debug_token: Option<Secret>,
}

/// What happens to the requests of one route.
pub struct RouteRule {
    /// The site it belongs to.
    pub site: Arc<SiteHandles>,
    /// The paths that lead here.
    pub path: PathPattern,
    /// Where its responses come from.
    pub origin: Arc<Origin>,
    /// Whether responses may be stored and reused.
    pub cache: bool,
    /// How: the key, who is kept apart, for how long.
    pub rules: CacheRules,
    /// What is done to the fields of requests and responses.
    pub headers: HeaderRules,
    /// The security fields of responses.
    pub security: Option<Security>,
    /// Which sites' scripts may read responses.
    pub cors: Option<Cors>,
    /// How responses are compressed.
    pub compression: Option<Compression>,
    /// Whether plain HTTP is redirected to HTTPS.
    pub https_redirect: bool,
    /// Largest request body in bytes.
    pub max_request_body: Option<u64>,
    /// Whether responses tell their timing in `Server-Timing`.
    pub server_timing: bool,
}

/// A site's name and its metric handles.
pub struct SiteHandles {
    name: Arc<str>,
    response_bytes: IntCounter,
    request_bytes: IntCounter,
    seconds: Histogram,
    requests: IntCounterVec,
    /// GET by status class and cache outcome: what nearly every request of an edge is, resolved once.
    gets: [[OnceLock<IntCounter>; CacheOutcome::ALL.len()]; STATUS_CLASSES.len()],
}

const STATUS_CLASSES: [&str; 6] = ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Plane {
    /// Wraps a table; `metrics` gives the handles for requests that no site takes.
    pub fn new(table: RouteTable<Arc<RouteRule>>, metrics: &Metrics) -> Self {
        Self { table, unrouted: Arc::new(SiteHandles::new("-".into(), metrics)), debug_token: None }
    }

    /// The same, explaining the requests that carry `token`.
    pub fn with_debug_token(self, token: Option<Secret>) -> Self {
        Self { debug_token: token, ..self }
    }

    /// The token by which requests ask to be explained.
    pub fn debug_token(&self) -> Option<&Secret> {
        self.debug_token.as_ref()
    }

    /// The host pattern that takes a normalised host, as written.
    pub fn host_pattern(&self, host: &str) -> Option<&str> {
        self.table.host_pattern(host)
    }

    /// The rule for a normalised host and a path.
    pub fn find(&self, host: &str, path: &str) -> Match<'_, Arc<RouteRule>> {
        self.table.find(host, path)
    }

    /// The handles for requests that no site takes.
    pub fn unrouted(&self) -> &Arc<SiteHandles> {
        &self.unrouted
    }
}

impl SiteHandles {
    /// Resolves the handles of the site called `name`.
    pub fn new(name: Arc<str>, metrics: &Metrics) -> Self {
        Self {
            response_bytes: metrics.response_bytes.with_label_values(&[&*name]),
            request_bytes: metrics.request_bytes.with_label_values(&[&*name]),
            seconds: metrics.request_seconds.with_label_values(&[&*name]),
            requests: metrics.requests.clone(),
            gets: Default::default(),
            name,
        }
    }

    /// The site's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Counts one finished request.
    pub fn count(&self, done: &Done<'_>) {
        let class = usize::from(done.status.map_or(0, |s| s.as_u16() / 100)).min(STATUS_CLASSES.len() - 1);
        let labels = |method| [&*self.name, method, STATUS_CLASSES[class], done.outcome.as_str()];
        if done.method == Method::GET {
            let slot = &self.gets[class][done.outcome as usize];
            slot.get_or_init(|| self.requests.with_label_values(&labels("GET"))).inc();
        } else {
            self.requests.with_label_values(&labels(method_label(done.method))).inc();
        }
        self.response_bytes.inc_by(done.response_bytes);
        self.request_bytes.inc_by(done.request_bytes);
        self.seconds.observe(done.seconds);
    }
}

/// A finished request, as metrics count it.
pub struct Done<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The status sent; `None` when the client was gone before one could be.
    pub status: Option<StatusCode>,
    /// What the cache did.
    pub outcome: CacheOutcome,
    /// Body bytes sent.
    pub response_bytes: u64,
    /// Body bytes received.
    pub request_bytes: u64,
    /// From the request head to the end.
    pub seconds: f64,
}

/// Methods are the client's text: only the registered ones become label values.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_under_bounded_labels() {
        let metrics = Metrics::new();
        let site = SiteHandles::new("shop".into(), &metrics);
        let method = Method::from_bytes(b"BREW").unwrap();
        for method in [&Method::GET, &method] {
            site.count(&Done {
                method,
                status: Some(StatusCode::OK),
                outcome: CacheOutcome::Hit,
                response_bytes: 10,
                request_bytes: 1,
                seconds: 0.001,
            });
        }
        let text = String::from_utf8(metrics.render()).unwrap();
        for line in [
            r#"selvedge_requests_total{cache="hit",method="GET",site="shop",status_class="2xx"} 1"#,
            r#"selvedge_requests_total{cache="hit",method="other",site="shop",status_class="2xx"} 1"#,
            r#"selvedge_response_bytes_total{site="shop"} 20"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
