//! The metrics of one origin and its servers: handles resolved once, series removed with what they tell of.

use std::sync::Arc;

use prometheus::{Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::metrics::{Metrics, observer};

/// One origin's.
pub(super) struct OriginHandles {
    pub name: Arc<str>,
    pub seconds: Histogram,
    pub errors: IntCounterVec,
    pub queued: IntGauge,
    retries: IntCounter,
    retries_refused: IntCounter,
    queue_full: IntCounter,
    queue_timeout: IntCounter,
    hedges: IntCounterVec,
    all: Families,
}

/// What has series for each origin.
struct Families {
    seconds: HistogramVec,
    queued: IntGaugeVec,
    retries: IntCounterVec,
    rejected: IntCounterVec,
}

/// One server's.
pub(super) struct ServerHandles {
    pub label: Arc<str>,
    pub up: IntGauge,
    pub in_flight: IntGauge,
    pub latency: Gauge,
    origin: Arc<str>,
    ejections: IntCounterVec,
    pub passed: IntCounter,
    pub failed: IntCounter,
    metrics: Series,
}

/// What has a series for each server.
struct Series {
    up: prometheus::IntGaugeVec,
    in_flight: prometheus::IntGaugeVec,
    latency: prometheus::GaugeVec,
    checks: IntCounterVec,
}

impl OriginHandles {
    /// Those of the origin `name`.
    pub fn new(name: &str, metrics: &Metrics) -> Self {
        let retries = |result| metrics.origin_retries.with_label_values(&[name, result]);
        let rejected = |reason| metrics.origin_queue_rejected.with_label_values(&[name, reason]);
        Self {
            name: name.into(),
            seconds: observer(&metrics.origin_seconds, name),
            errors: metrics.origin_errors.clone(),
            queued: metrics.origin_queued.with_label_values(&[name]),
            retries: retries("made"),
            retries_refused: retries("refused"),
            queue_full: rejected("full"),
            queue_timeout: rejected("timeout"),
            hedges: metrics.origin_hedges.clone(),
            all: Families {
                seconds: metrics.origin_seconds.clone(),
                queued: metrics.origin_queued.clone(),
                retries: metrics.origin_retries.clone(),
                rejected: metrics.origin_queue_rejected.clone(),
            },
        }
    }

    /// Counts a wish for one more attempt.
    pub fn retry(&self, made: bool) {
        if made { self.retries.inc() } else { self.retries_refused.inc() }
    }

    /// Removes the series of an origin that is no more; errors, of which there are few kinds, stay as they were counted.
    pub fn remove(&self) {
        let Families { seconds, queued, retries, rejected } = &self.all;
        let name = &*self.name;
        // An error is a series that there is not.
        let _ = seconds.remove_label_values(&[name]);
        let _ = queued.remove_label_values(&[name]);
        ["made", "refused"].iter().for_each(|result| drop(retries.remove_label_values(&[name, result])));
        ["full", "timeout"].iter().for_each(|reason| drop(rejected.remove_label_values(&[name, reason])));
        for result in ["sent", "won", "failed", "refused", "no_server"] {
            let _ = self.hedges.remove_label_values(&[name, result]);
        }
    }

    /// Counts what became of a wish for a second server. Most origins never have one.
    pub fn hedge(&self, result: &'static str) {
        self.hedges.with_label_values(&[&*self.name, result]).inc();
    }

    /// Counts a request that found no place in the queue.
    pub fn queue_was_full(&self) {
        self.queue_full.inc();
    }

    /// Counts a request that waited in vain.
    pub fn waited_in_vain(&self) {
        self.queue_timeout.inc();
    }
}

impl ServerHandles {
    /// Those of one server of the origin `origin`.
    pub fn new(origin: &str, label: &str, metrics: &Metrics) -> Self {
        let Metrics {
            origin_server_up,
            origin_server_in_flight,
            origin_server_latency,
            origin_ejections,
            origin_checks,
            ..
        } = metrics;
        let values = [origin, label];
        let check = |result| origin_checks.with_label_values(&[origin, label, result]);
        Self {
            label: label.into(),
            up: origin_server_up.with_label_values(&values),
            in_flight: origin_server_in_flight.with_label_values(&values),
            latency: origin_server_latency.with_label_values(&values),
            origin: origin.into(),
            ejections: origin_ejections.clone(),
            passed: check("passed"),
            failed: check("failed"),
            metrics: Series {
                up: origin_server_up.clone(),
                in_flight: origin_server_in_flight.clone(),
                latency: origin_server_latency.clone(),
                checks: origin_checks.clone(),
            },
        }
    }

    /// Counts an ejection.
    pub fn ejected(&self, reason: &'static str) {
        self.ejections.with_label_values(&[&*self.origin, &*self.label, reason]).inc();
    }

    /// Removes the series of a server that is no more; what is counted after that is not told.
    pub fn remove(&self) {
        let Series { up, in_flight, latency, checks } = &self.metrics;
        let values = [&*self.origin, &*self.label];
        // An error is a series that another server of the same name has taken along.
        let _ = up.remove_label_values(&values);
        let _ = in_flight.remove_label_values(&values);
        let _ = latency.remove_label_values(&values);
        for result in ["passed", "failed"] {
            let _ = checks.remove_label_values(&[values[0], values[1], result]);
        }
        for reason in super::health::Reason::ALL {
            let _ = self.ejections.remove_label_values(&[values[0], values[1], reason.as_str()]);
        }
    }
}
